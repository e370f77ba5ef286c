//! `aldaba settings`: the page of all settings, the check of the sources, and the values in force.

use anyhow::bail;
use clap::Subcommand;
use serde_json::{Value, json};

use super::args::{Output, SettingArgs, print_line};
use crate::config::{Problem, Reading};

#[derive(Subcommand)]
pub(super) enum SettingsCommand {
    /// Check the settings without starting anything, and tell every problem at once
    ///
    /// It reads what `serve` would read, and ends with 1 if `serve` would not start
    Check {
        #[command(flatten)]
        output: Output,
    },
    /// Print the value of every setting and where it is set; secrets are masked
    Show {
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn run(settings: &SettingArgs, command: Option<SettingsCommand>, output: Output) -> anyhow::Result<()> {
    match command {
        None => output.print(&crate::config::settings_json(), crate::config::settings_page().trim_end()),
        Some(SettingsCommand::Check { output: own }) => check(settings.read([], []), output.or(own)),
        Some(SettingsCommand::Show { output: own }) => show(settings.read([], []), output.or(own)),
    }
}

fn check(reading: Reading, output: Output) -> anyhow::Result<()> {
    let problems = reading.config.err().map_or_else(Vec::new, |error| error.0);
    if output.json {
        let shown: Vec<Value> = problems.iter().map(json_of).collect();
        print_line(json!({ "valid": problems.is_empty(), "problems": shown, "sources": reading.sources }))?;
    } else {
        for problem in &problems {
            print_line(&problem.text)?;
        }
        if problems.is_empty() {
            print_line(format_args!("the settings are valid; {}", read_from(&reading.sources)))?;
        }
    }
    match problems.len() {
        0 => Ok(()),
        1 => bail!("the settings have a problem"),
        count => bail!("the settings have {count} problems"),
    }
}

fn json_of(problem: &Problem) -> Value {
    json!({ "setting": problem.setting, "source": problem.source, "message": problem.text })
}

/// The sources of the settings, in a sentence.
pub(super) fn read_from(sources: &[String]) -> String {
    if sources.is_empty() {
        return "there is no settings file and no variable, so every setting has its default".to_owned();
    }
    format!("they were read from {}", sources.join(", "))
}

fn show(reading: Reading, output: Output) -> anyhow::Result<()> {
    reading.config?;
    let settings = reading.effective.shown();
    if output.json {
        let rows = settings
            .iter()
            .map(|setting| json!({ "name": setting.name, "value": setting.value, "source": setting.source }));
        return print_line(rows.collect::<Value>());
    }
    for setting in settings {
        let source = setting.source.as_deref().unwrap_or("default");
        print_line(format_args!("{} = {}  # {source}", setting.name, setting.value))?;
    }
    Ok(())
}

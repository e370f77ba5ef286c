//! What is wrong with settings, in words. No problem contains a value, which may be a secret.

use std::fmt::Display;

use super::table::{ANY_BUCKET, SETTINGS};
use crate::api::Bucket;

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting; `None` where a file cannot be read as a whole.
    pub setting: Option<String>,
    /// Where it is written: a file with the line, a variable or a flag. `None` where it is written nowhere, or where
    /// settings contradict each other.
    pub source: Option<String>,
    /// The whole message.
    pub text: String,
}

impl Problem {
    /// A fault of a setting that is written in `source`.
    pub(super) fn at(name: &str, source: &str, fault: impl Display) -> Self {
        let text = format!("setting {name} ({source}) {fault}");
        Self { setting: Some(name.to_owned()), source: Some(source.to_owned()), text }
    }

    /// A fault of a setting that contradicts other settings.
    pub(super) fn of(name: &str, fault: impl Display) -> Self {
        Self { setting: Some(name.to_owned()), source: None, text: format!("setting {name} {fault}") }
    }

    /// A fault of the file `path`.
    pub(super) fn of_file(path: &str, fault: impl Display) -> Self {
        Self { setting: None, source: Some(path.to_owned()), text: format!("settings file {path}: {fault}") }
    }

    /// A setting that the table does not have, with the name that may be meant.
    pub(super) fn unknown(name: &str, source: &str) -> Self {
        let hint = nearest(name).map_or_else(String::new, |known| format!("is {known} meant? "));
        let list = if name.starts_with("rate_limits.") {
            let names: Vec<_> = Bucket::ALL.iter().map(|bucket| bucket.name()).collect();
            format!("the buckets are {}", names.join(", "))
        } else {
            "`aldaba settings` lists all of them".to_owned()
        };
        Self::at(name, source, format!("is unknown; {hint}{list}"))
    }
}

/// Everything that is wrong with the settings, one line for each problem.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct ConfigError(pub Vec<Problem>);

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(|problem| problem.text.as_str()).collect();
    lines.join("\n")
}

/// The setting whose name is most like `name`. `None` where more than a third of the letters differ: such a name would
/// mislead.
fn nearest(name: &str) -> Option<String> {
    let rows = SETTINGS.iter().filter(|setting| setting.name != ANY_BUCKET).map(|setting| setting.name.to_owned());
    let known = rows.chain(Bucket::ALL.iter().map(|bucket| format!("rate_limits.{}", bucket.name())));
    let distance = |known: &str| match known.strip_suffix(name) {
        // The name of the table was left out.
        Some(table) if table.ends_with('.') => 0,
        _ => strsim::osa_distance(name, known),
    };
    let (distance, known) = known.map(|known| (distance(&known), known)).min()?;
    (distance <= name.chars().count() / 3).then_some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_one_that_may_be_meant() {
        for (name, known) in [
            ("webhooks_timeout", Some("webhooks.timeout")),
            ("webhooks.timout", Some("webhooks.timeout")),
            ("timeout", Some("webhooks.timeout")),
            ("databse_url", Some("database_url")),
            ("secrets.masterkey", Some("secrets.master_key")),
            ("rate_limits.event_create", Some("rate_limits.events_create")),
            ("no_such", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(name).as_deref(), known, "{name}");
        }
    }
}

//! `aldaba check`: checks a database, and prints what it finds.

use anyhow::bail;
use serde_json::{Value, json};

use super::args::{Output, SettingArgs};
use crate::clock::{Clock as _, SystemClock};
use crate::store::{Checked, Contents, MAX_COUNTED, Problem, Seals, Store};

/// Checks the database, and ends with an error if there is a problem.
pub(super) async fn check(settings: &SettingArgs, output: Output) -> anyhow::Result<()> {
    let config = settings.load([])?;
    settings.start_telemetry(&config);
    let checked = Store::check(&config.database, &config.keys, SystemClock.now()).await?;
    let mut lines = vec![format!("{}: version {}", config.database, checked.version)];
    lines.extend(checked.left_out.clone());
    lines.extend(checked.contents.iter().flat_map(contents_text));
    lines.extend(seals_text(&checked.seals));
    lines.extend(checked.problems.iter().map(|problem| format!("problem: {problem}")));
    if checked.is_sound() {
        lines.push("no problem was found".to_owned());
    }
    output.print(&checked_json(&checked), &lines.join("\n"))?;
    if !checked.is_sound() {
        let rows: usize = checked.problems.iter().map(|problem| problem.rows).sum();
        bail!(
            "the check has found {rows} problems, of {} kinds; it counts at most {MAX_COUNTED} of a kind",
            checked.problems.len()
        );
    }
    Ok(())
}

fn contents_text(contents: &Contents) -> Vec<String> {
    let counted = |counts: &std::collections::BTreeMap<&'static str, u64>| {
        counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
    };
    let newest = contents.newest_event.map_or_else(String::new, |at| format!(", the newest of {at}"));
    let mut lines = vec![
        format!("accounts: {}", contents.accounts),
        format!("endpoints: {}", counted(&contents.endpoints)),
        format!("events: {}{newest}", contents.events),
        format!("deliveries: {}; due: {}", counted(&contents.deliveries), contents.due),
    ];
    lines.extend(contents.on_hold_since.map(|since| format!("deliveries are on hold since {since}")));
    lines
}

/// What to say where no master key is there to open secrets.
pub(super) fn seals_text(seals: &Seals) -> Option<String> {
    let Seals { total, has_keys, .. } = seals;
    (!has_keys && *total > 0).then(|| {
        format!(
            "There is no master key here, so {total} secrets and credentials could not be opened. The server does not \
             start without the key"
        )
    })
}

fn checked_json(checked: &Checked) -> Value {
    let problem = |problem: &Problem| {
        json!({
            "table": problem.table,
            "reason": problem.reason,
            "rows": problem.rows,
            "named": problem.named,
        })
    };
    let contents = |contents: &Contents| {
        json!({
            "accounts": contents.accounts,
            "endpoints": contents.endpoints,
            "events": contents.events,
            "newest_event_at": contents.newest_event.map(|at| at.to_string()),
            "deliveries": contents.deliveries,
            "due": contents.due,
            "on_hold_since": contents.on_hold_since.map(|at| at.to_string()),
        })
    };
    json!({
        "sound": checked.is_sound(),
        "version": checked.version,
        "problems": checked.problems.iter().map(problem).collect::<Value>(),
        "left_out": checked.left_out,
        "serves": checked.contents.as_ref().map(contents),
        "sealed": { "total": checked.seals.total, "opened": checked.seals.has_keys },
    })
}

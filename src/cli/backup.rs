//! `aldaba backup` and `aldaba restore`, for databases of SQLite.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::args::{Output, SettingArgs};
use super::check::seals_text;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::private_files::{Access, access, beside, folder_of};
use crate::store::{DEFAULT_RATE_MIB, Database, NewBackup, NewRestore, Store};

/// Most MiB a second that can be asked for: no disk is faster.
const MAX_RATE_MIB: i64 = 65_536;

#[derive(Args)]
pub(super) struct BackupArgs {
    /// The file to write; it must not exist
    file: PathBuf,
    /// Write the master key too, into FILE.master-key. Without it, keep a copy of the key in another place
    #[arg(long)]
    include_master_key: bool,
    /// Copy at most this many MiB a second
    #[arg(long, value_name = "MIB", default_value_t = DEFAULT_RATE_MIB,
          value_parser = clap::value_parser!(u32).range(1..=MAX_RATE_MIB))]
    rate: u32,
    /// Replace FILE if it exists
    #[arg(long)]
    force: bool,
    /// Skip SQLite's check of the copy
    #[arg(long)]
    no_check: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are the switches of a command")]
pub(super) struct RestoreArgs {
    /// A file that `aldaba backup` has written
    file: PathBuf,
    /// Put all deliveries on hold: the server accepts events and sends nothing until `aldaba resume`
    #[arg(long)]
    hold: bool,
    /// Rename a database that exists already
    #[arg(long)]
    force: bool,
    /// Restore without the master key; the server does not start until the key is there
    #[arg(long)]
    without_master_key: bool,
    /// Restore even if the check finds problems
    #[arg(long)]
    with_problems: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) fn back_up(settings: &SettingArgs, args: BackupArgs) -> anyhow::Result<()> {
    let config = settings.load([])?;
    settings.start_telemetry(&config);
    let database = file_of(&config, "back up")?;
    let BackupArgs { file, include_master_key, rate, force, no_check, output } = args;
    let new = NewBackup {
        file: file.clone(),
        with_master_key: include_master_key,
        rate_mib: rate,
        replace: force,
        check: !no_check,
    };
    let made = Store::back_up(database, &config.keys, &new, SystemClock.now())?;
    let newest = made.newest_event.map(|at| at.to_string());
    let json = json!({
        "file": file.display().to_string(),
        "made_at": made.at.to_string(),
        "bytes": made.bytes,
        "seconds": made.took.as_secs_f64(),
        "events": made.events,
        "newest_event_at": newest,
        "master_key": include_master_key,
    });
    let key = match (include_master_key, config.keys.path()) {
        (true, _) => {
            format!("The master key is in {}: who has both files can read all secrets", key_beside(&file))
        }
        (false, Some(path)) => {
            format!("The master key is not inside: keep a copy of {} in another place", path.display())
        }
        (false, None) => "The master key is not inside: it is in your settings".to_owned(),
    };
    let text = format!(
        "{}: {} in {:.1} s, {} events, {}\n{key}",
        file.display(),
        mebibytes(made.bytes),
        made.took.as_secs_f64(),
        made.events,
        newest.map_or_else(|| "none so far".to_owned(), |at| format!("the newest of {at}")),
    );
    output.print(&json, &text)
}

pub(super) fn restore(settings: &SettingArgs, args: RestoreArgs) -> anyhow::Result<()> {
    let config = settings.load([])?;
    settings.start_telemetry(&config);
    let database = file_of(&config, "restore")?;
    let RestoreArgs { file, hold, force, without_master_key, with_problems, output } = args;
    let new = NewRestore { file, hold, replace: force, without_master_key, with_problems };
    let restored = Store::restore(database, &config.keys, &new, SystemClock.now())?;
    let contents = restored.checked.contents.as_ref();
    let newest = contents.and_then(|contents| contents.newest_event).map(|at| at.to_string());
    let aside = restored.aside.as_ref().map(|path| path.display().to_string());
    let on_hold = hold || contents.is_some_and(|contents| contents.on_hold_since.is_some());
    let problems: Vec<String> = restored.checked.problems.iter().map(ToString::to_string).collect();
    let json = json!({
        "database": database.display().to_string(),
        "made_at": restored.made_at.map(|at| at.to_string()),
        "newest_event_at": newest,
        "events": contents.map(|contents| contents.events),
        "due": contents.map(|contents| contents.due),
        "on_hold": on_hold,
        "master_key_of_backup": restored.has_master_key_of_backup,
        "aside": aside,
        "problems": problems,
    });
    let mut lines = vec![format!("{} is restored", database.display())];
    lines.extend(problems.iter().map(|problem| format!("problem: {problem}")));
    lines.extend(restored.checked.left_out.clone());
    let state = match (restored.made_at, &newest) {
        (Some(at), _) => format!("This is the state of {at}"),
        (None, Some(at)) => format!("This is the state of {at} or later: its newest event was accepted then"),
        (None, None) => "This is a state without any event".to_owned(),
    };
    lines.push(format!("{state}. Events that were accepted since are lost"));
    lines.push(
        "Deliveries that were sent since are sent again, with the same webhook-id, by which receivers know them"
            .to_owned(),
    );
    let due = contents.map_or_else(String::new, |contents| format!("; due: {}", contents.due));
    lines.push(if on_hold {
        format!("Deliveries are on hold{due}. `aldaba resume` lets them go")
    } else {
        format!("The next start sends what is due{due}")
    });
    lines.extend(seals_text(&restored.checked.seals));
    lines.extend(aside.map(|aside| format!("The database that was there is {aside}")));
    let folder = folder_of(database);
    lines.extend(access(folder).ok().and_then(|found| owner_text(folder, &found)));
    output.print(&json, &lines.join("\n"))
}

/// What to do where the restored files belong to another user than the folder, which is usually that of the server.
fn owner_text(folder: &Path, found: &Access) -> Option<String> {
    (!found.is_ours).then(|| {
        format!(
            "The folder {} belongs to another user, and the restored files to this one: where the server runs as that \
             user, give them to it with chown",
            folder.display()
        )
    })
}

/// The file of the configured database.
fn file_of<'a>(config: &'a Config, what: &str) -> anyhow::Result<&'a Path> {
    match &config.database {
        Database::Sqlite(path) => Ok(path),
        Database::Postgres(_) => bail!(
            "the database is on PostgreSQL: {what} with its own programs, such as pg_dump and pg_restore. The guide \
             \"Back it up and get it back\" shows how"
        ),
    }
}

fn key_beside(file: &Path) -> String {
    beside(file, ".master-key").display().to_string()
}

/// Bytes as MiB with one decimal.
fn mebibytes(bytes: u64) -> String {
    let tenths = u128::from(bytes) * 10 / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_a_server_of_another_user_could_not_open_are_told() {
        let found = |is_ours| Access { is_ours, others_read: false, others_write: false };
        let folder = Path::new("/var/lib/aldaba");
        assert_eq!(owner_text(folder, &found(true)), None);
        let told = owner_text(folder, &found(false)).expect("told");
        assert!(told.contains("/var/lib/aldaba belongs to another user") && told.contains("chown"), "{told}");
    }

    #[test]
    fn sizes_are_told_in_mebibytes() {
        for (bytes, text) in
            [(0, "0.0 MiB"), (1 << 20, "1.0 MiB"), (3 * (1 << 19), "1.5 MiB"), (u64::MAX, "17592186044415.9 MiB")]
        {
            assert_eq!(mebibytes(bytes), text);
        }
    }
}

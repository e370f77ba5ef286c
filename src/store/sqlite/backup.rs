//! An online copy of a database file for a backup: all pages of one snapshot, in steps with pauses.
//!
//! SQLite's backup begins anew whenever another connection writes between two steps, and under load it would never end.
//! Within a read transaction of the source, it copies the snapshot of that transaction to the end
//! (`docs/decisions/0027-backup.md`).

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::check::{faults, newest_event, open};
use super::columns::count;
use super::connection::{KEPT_BYTES, inspector, writer_connection};
use crate::domain::time::Timestamp;
use crate::private_files::{Partial, are_on_one_disk, beside, folder_of, free_bytes};
use crate::store::backup::{BackedUp, NewBackup};
use crate::store::errors::OpenError;
use crate::store::keys::{KeySource, MasterKeyBytes};

/// Bytes of one step, one MiB: SQLite reads and writes them in some milliseconds.
const STEP_BYTES: i32 = 1 << 20;

/// SQLite's own files beside a database.
pub(super) const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The other files beside a database.
const OWN_FILES: [&str; 2] = [".lock", ".master-key"];

/// The row of `settings` by which a backup tells when it was made. No database that a server runs on has it.
const TIME: &str = "backed_up_at";

/// Copies the database at `database`, whose master keys are `keys`, beside the server that may run on it.
pub fn back_up(database: &Path, keys: &KeySource, new: &NewBackup, now: Timestamp) -> Result<BackedUp, OpenError> {
    let began = Instant::now();
    if !database.exists() {
        return Err(OpenError(format!("there is no database {}", database.display())));
    }
    check_place(database, new)?;
    let failed = |error: &dyn Display| OpenError(format!("cannot write the backup {}: {error}", new.file.display()));
    let partial = begin_copy(&new.file).map_err(|error| failed(&error))?;
    let before = keys_of(keys, new)?;
    let source = open(database, database)?;
    begin_snapshot(&source).map_err(|error| failed(&error))?;
    if are_on_one_disk(folder_of(database), folder_of(&new.file)) {
        let bytes = bytes_of(&source).map_err(|error| failed(&error))?;
        check_room(bytes, free_bytes(folder_of(&new.file))).map_err(|error| failed(&error))?;
    }
    // The key may be rotated between the two reads: one of both keys then has sealed the secrets of the snapshot.
    let master_keys = merged(keys_of(keys, new)?, before);
    copy_pages(&source, partial.path(), new.rate_mib).map_err(|error| failed(&error))?;
    drop(source);
    write_time(partial.path(), now).map_err(|error| failed(&error))?;
    let copy = inspector(partial.path()).map_err(|error| failed(&error))?;
    if new.check
        && let Some(fault) = faults(&copy, "quick_check").first()
    {
        return Err(OpenError(format!(
            "the copy is damaged, and so is the database: {fault}. See `aldaba check`; --no-check keeps the copy"
        )));
    }
    let events = count(&copy, "SELECT COUNT(*) AS total FROM events", []).map_err(|error| failed(&error))?;
    let newest_event = newest_event(&copy).map_err(|error| failed(&error))?;
    copy.close().map_err(|(_, error)| failed(&error))?;
    partial.sync().map_err(|error| failed(&error))?;
    // The key is written first, so that a backup never stands without the key with which it was made.
    if let Some(master_keys) = master_keys {
        KeySource::file_of(&new.file).write_file(&master_keys)?;
    }
    let bytes = partial.file().metadata().map_err(|error| failed(&error))?.len();
    partial.finish().map_err(|error| failed(&error))?;
    Ok(BackedUp { at: now, bytes, took: began.elapsed(), events, newest_event })
}

/// Refuses to write over the database's own files, and over files that are there, unless they are to be replaced.
fn check_place(database: &Path, new: &NewBackup) -> Result<(), OpenError> {
    let shown = new.file.display();
    if new.file.is_dir() {
        return Err(OpenError(format!("{shown} is a folder: name a file")));
    }
    let Some(place) = place_of(&new.file) else {
        return Err(OpenError(format!("the folder of {shown} is not there")));
    };
    let linked = database.canonicalize().ok();
    for own in [Some(database.to_owned()), linked].into_iter().flatten() {
        let others = COMPANIONS.iter().chain(&OWN_FILES).map(|ending| beside(&own, ending));
        if others.chain([own.clone()]).any(|file| place_of(&file).as_ref() == Some(&place)) {
            return Err(OpenError(format!("{shown} is a file of the database itself: name another")));
        }
    }
    let key_file = beside(&new.file, ".master-key");
    if !new.replace
        && let Some(there) = [&new.file, &key_file].into_iter().find(|path| is_there(path))
    {
        return Err(OpenError(format!("{} is there already: name another file, or add --force", there.display())));
    }
    if !new.with_master_key && is_there(&key_file) {
        let shown = key_file.display();
        return Err(OpenError(format!(
            "{shown} is the master key of an earlier backup: remove it, or add --include-master-key"
        )));
    }
    Ok(())
}

/// Whether there is a file, or a link without a target.
pub(super) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// A path by its real folder; `None` where the folder is not there.
pub(super) fn place_of(path: &Path) -> Option<PathBuf> {
    Some(folder_of(path).canonicalize().ok()?.join(path.file_name()?))
}

/// Begins a copy that is to be at `place`, without what SQLite has left of an interrupted one, which it would read as a
/// part of this one.
pub(super) fn begin_copy(place: &Path) -> std::io::Result<Partial> {
    let partial = Partial::begin(place)?;
    for ending in COMPANIONS {
        match std::fs::remove_file(beside(partial.path(), ending)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(partial)
}

/// The keys of the key file, if they go into the backup.
fn keys_of(keys: &KeySource, new: &NewBackup) -> Result<Option<Vec<MasterKeyBytes>>, OpenError> {
    if !new.with_master_key {
        return Ok(None);
    }
    if keys.path().is_none() {
        return Err(OpenError(
            "the master key is in the setting secrets.master_key, and in no file: keep a copy of your settings, and \
             leave out --include-master-key"
                .into(),
        ));
    }
    keys.read_file().map(Some)
}

/// The current keys, and after them the earlier keys that are no longer among them.
fn merged(now: Option<Vec<MasterKeyBytes>>, before: Option<Vec<MasterKeyBytes>>) -> Option<Vec<MasterKeyBytes>> {
    let (mut keys, before) = (now?, before?);
    let gone: Vec<MasterKeyBytes> = before.into_iter().filter(|key| !keys.contains(key)).collect();
    keys.extend(gone);
    Some(keys)
}

/// Begins the read transaction whose snapshot is copied. It ends with the connection.
fn begin_snapshot(source: &Connection) -> rusqlite::Result<()> {
    source.execute_batch("BEGIN")?;
    // The first read takes the snapshot.
    source.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |_| Ok(()))
}

/// Bytes of the snapshot of `source`.
fn bytes_of(source: &Connection) -> rusqlite::Result<u64> {
    let number = |pragma: &str| source.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    Ok(u64::try_from(number("page_count")? * number("page_size")?).unwrap_or_default())
}

/// Refuses a copy for which the disk of the database has no room: it would fill the disk, and all that a server writes
/// would fail meanwhile. As much as the log of a server keeps must be left.
fn check_room(bytes: u64, free: Option<u64>) -> Result<(), String> {
    let needed = bytes.saturating_add(KEPT_BYTES.unsigned_abs());
    match free.filter(|free| *free < needed) {
        Some(free) => Err(format!(
            "it needs {} MiB of the disk that the database is on, and {} MiB are free: name a file on another disk",
            needed >> 20,
            free >> 20
        )),
        None => Ok(()),
    }
}

/// Copies the snapshot of `source` into a new file, at most `rate_mib` MiB a second.
fn copy_pages(source: &Connection, to: &Path, rate_mib: u32) -> rusqlite::Result<()> {
    let mut copy = Connection::open(to)?;
    // An interrupted copy is removed, and a whole copy is synced when it gets its name.
    copy.pragma_update(None, "journal_mode", "OFF")?;
    copy.pragma_update(None, "synchronous", "OFF")?;
    let page_size: i32 = source.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let step_pages = STEP_BYTES / page_size.max(1);
    let step_time = Duration::from_secs(1) / rate_mib.max(1);
    let backup = Backup::new(source, &mut copy)?;
    loop {
        let began = Instant::now();
        match backup.step(step_pages)? {
            StepResult::Done => break,
            StepResult::More => std::thread::sleep(step_time.saturating_sub(began.elapsed())),
            // No other process uses the copy, and a reader of the source never waits.
            _ => return Err(in_use()),
        }
    }
    drop(backup);
    copy.close().map_err(|(_, error)| error)
}

/// Writes into a copy when it was made.
fn write_time(copy: &Path, at: Timestamp) -> rusqlite::Result<()> {
    let copy = writer_connection(copy)?;
    let sql =
        "INSERT INTO settings (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    copy.execute(sql, params![TIME, at.as_millis()])?;
    // The last connection takes the log into the file.
    copy.close().map_err(|(_, error)| error)
}

/// Takes the time at which a copy was made out of it; `None` where something else has made the copy.
pub(super) fn take_time(copy: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let sql = "SELECT value FROM settings WHERE name = ?1";
    let at: Option<i64> = copy.query_row(sql, [TIME], |row| row.get(0)).optional()?;
    copy.execute("DELETE FROM settings WHERE name = ?1", [TIME])?;
    Ok(at.map(Timestamp::from_millis))
}

fn in_use() -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
    rusqlite::Error::SqliteFailure(code, Some("another process uses the copy".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file in the journal mode of a server, with so many rows of a kilobyte.
    fn database(path: &Path, rows: u32) -> Connection {
        let db = Connection::open(path).expect("opens");
        db.pragma_update(None, "journal_mode", "WAL").expect("set");
        let sql = format!(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, b BLOB); WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 \
             FROM n WHERE n < {rows}) INSERT INTO t SELECT n, randomblob(1000) FROM n"
        );
        db.execute_batch(&sql).expect("filled");
        db
    }

    #[test]
    fn a_copy_is_the_snapshot_in_which_it_began_and_ends_while_others_write() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("a.db"), folder.path().join("b.db"));
        let writer = database(&from, 5_000);
        let source = inspector(&from).expect("opens");
        begin_snapshot(&source).expect("begun");
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let writing = std::thread::spawn(move || {
            let mut written = 0;
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                writer.execute("INSERT INTO t (b) VALUES (randomblob(1000))", []).expect("written");
                written += 1;
            }
            written
        });
        // Five steps or more, and a write between each two of them.
        copy_pages(&source, &to, 20).expect("copied");
        stop.send(()).expect("it still writes");
        assert!(writing.join().expect("no panic") > 5);
        let copy = inspector(&to).expect("opens");
        let rows: u32 = copy.query_row("SELECT COUNT(*) FROM t", [], |row| row.get(0)).expect("counted");
        assert_eq!((rows, faults(&copy, "integrity_check")), (5_000, vec![]));
    }

    #[test]
    fn a_copy_leaves_the_disk_of_the_database_room_for_the_log() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let db = database(&path, 1_000);
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("moved");
        let bytes = bytes_of(&db).expect("read");
        assert_eq!(bytes, path.metadata().expect("a file").len());
        let log = KEPT_BYTES.unsigned_abs();
        assert_eq!((check_room(bytes, Some(bytes + log)), check_room(bytes, None)), (Ok(()), Ok(())));
        let refused = check_room(5 << 30, Some(5 << 30)).expect_err("refused");
        assert!(
            refused.contains("it needs 5152 MiB of the disk") && refused.contains("5120 MiB are free"),
            "{refused}"
        );
    }

    #[test]
    fn a_copy_holds_the_keys_of_before_and_after_a_rotation() {
        let key = |byte| zeroize::Zeroizing::new([byte; 32]);
        let keys = |bytes: &[u8]| Some(bytes.iter().map(|byte| key(*byte)).collect::<Vec<_>>());
        for (now, before, both) in [
            (&[1][..], &[1][..], &[1][..]),
            (&[2][..], &[1][..], &[2, 1][..]),
            (&[2, 1][..], &[1][..], &[2, 1][..]),
            (&[2][..], &[2, 1][..], &[2, 1][..]),
        ] {
            assert!(merged(keys(now), keys(before)) == keys(both), "{now:?} {before:?}");
        }
        assert!(merged(None, None).is_none());
    }
}

//! The server and the command line on one file: which of them is the server, and how the others know that it has seen
//! what they wrote.
//!
//! Each commit beside the server counts a generation up, in its own transaction. The server writes the generation that
//! it has read into its lock file, and whoever made it waits for that: a command that has ended is known to the server.

use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _};

use crate::store::errors::OpenError;

/// A command that looks whether there is a server holds the lock for a moment: a server tries again.
const LOCK_TRIES: u32 = 20;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// How long a command waits for a server that is busy.
const PATIENCE: Duration = Duration::from_secs(2);

/// One server for one file: a second one would void the leases of the first.
pub(super) fn take_lock(database: &Path) -> Result<std::fs::File, OpenError> {
    let shown = database.display();
    // Whoever can open this file can hold its lock, and keep the server from starting.
    let file = crate::private_files::options()
        .read(true)
        .create(true)
        .truncate(false)
        .open(lock_path(database))
        .map_err(|e| OpenError(format!("cannot open the database {shown}: {e}")))?;
    for _ in 0..LOCK_TRIES {
        if file.try_lock().is_ok() {
            return Ok(file);
        }
        std::thread::sleep(PAUSE);
    }
    Err(OpenError(format!("another server is running on the database {shown}")))
}

/// Beside the database.
fn lock_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

/// How often something was written beside the server.
pub(super) fn generation(db: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT value FROM settings WHERE name = 'generation'";
    // The first such write makes the row.
    Ok(db.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Counts this transaction.
pub(super) fn next_generation(db: &Connection) -> rusqlite::Result<i64> {
    let sql = "INSERT INTO settings (name, value) VALUES ('generation', 1) \
               ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value";
    db.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

/// The server has read everything up to this generation.
pub(super) fn acknowledge(mut lock: &std::fs::File, generation: i64) {
    // Of one length, so that a reader never sees half of an older number behind it.
    let written = lock.rewind().and_then(|()| write!(lock, "{generation:020}"));
    if let Err(error) = written {
        tracing::warn!(%error, "the lock file could not be written: commands wait longer than they must");
    }
}

/// Waits until the server, if there is one, has read this generation.
pub(super) fn wait_until_seen(database: &Path, generation: i64) {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let Ok(mut file) = std::fs::File::open(lock_path(database)) else { return };
        if file.try_lock_shared().is_ok() {
            // Nobody is there.
            return;
        }
        let mut seen = String::new();
        if file.read_to_string(&mut seen).is_ok() && seen.trim().parse::<i64>().is_ok_and(|seen| seen >= generation) {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

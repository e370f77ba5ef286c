//! Connections to the file: the settings of each kind.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::private_files::{beside, close_to_others, make_private, warn_of_open_folder};
use crate::store::errors::StoreError;

/// How long a checkpoint waits for readers.
pub(super) const CHECKPOINT_TIMEOUT: Duration = Duration::from_millis(100);

/// How long a statement waits for another process (the command line beside the server) to finish its write.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that the log's file keeps when it begins anew: as many as it has where writers wait for it to begin anew.
pub(super) const KEPT_BYTES: i64 = 32 << 20;

pub(super) fn writer_connection(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // After a commit in which pages of an index changed places, SQLite looks at every page that it has in memory: a
    // larger cache costs more than it saves.
    connection.pragma_update(None, "cache_size", -8_192)?;
    // The checkpointer moves the log into the file from a connection of its own.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", KEPT_BYTES)?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "cache_size", -4_096)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// A connection of a command that looks at a file and writes no row. Where it is the last one of the file, it takes
/// SQLite's log and shared memory away with it, as a server does that stops.
pub(super) fn inspector(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// A connection that only checkpoints.
pub(super) fn checkpointer(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    // While it waits, nobody writes.
    connection.busy_timeout(CHECKPOINT_TIMEOUT)?;
    Ok(connection)
}

/// Before SQLite opens the file: it gives the log and the shared memory the mode that the file has.
pub(super) fn make_files_private(path: &Path) -> std::io::Result<()> {
    warn_of_open_folder(path);
    make_private(path)?;
    for ending in ["-wal", "-shm", "-journal", ".lock"] {
        close_to_others(&beside(path, ending));
    }
    Ok(())
}

//! Opening the file: settings of each connection, migrations, the lock of the one server.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{BUSY_TIMEOUT, Readers, Store, admin, dispatch, export, peer, writer};
use crate::clock::Clock;
use crate::domain::audit::Origin;
use crate::store::shared::Shared;
use crate::store::view::View;
use crate::store::{OpenError, OpenOptions, StoreError};

/// Forward only; the position in the list is the version.
const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_initial", include_str!("../../../migrations/sqlite/0001_initial.sql")),
    ("0002_replay", include_str!("../../../migrations/sqlite/0002_replay.sql")),
    ("0003_log", include_str!("../../../migrations/sqlite/0003_log.sql")),
    ("0004_people", include_str!("../../../migrations/sqlite/0004_people.sql")),
    ("0005_leased", include_str!("../../../migrations/sqlite/0005_leased.sql")),
    ("0006_counters", include_str!("../../../migrations/sqlite/0006_counters.sql")),
    ("0007_events", include_str!("../../../migrations/sqlite/0007_events.sql")),
    ("0008_lists", include_str!("../../../migrations/sqlite/0008_lists.sql")),
    ("0009_days", include_str!("../../../migrations/sqlite/0009_days.sql")),
    ("0010_counts", include_str!("../../../migrations/sqlite/0010_counts.sql")),
];

/// How long a checkpoint waits for readers.
pub(super) const CHECKPOINT_TIMEOUT: Duration = Duration::from_millis(100);

impl Store {
    /// Opens the file, brings it to this program's version and starts the writer.
    ///
    /// With an inbox this process delivers: it takes the file's lock and voids the leases of whoever came before.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, OpenError> {
        let connection = |path: &Path| {
            writer_connection(path).map_err(|e| OpenError(format!("cannot open the database {}: {e}", path.display())))
        };
        Self::open_on(connection, path, options)
    }

    /// The same with a writer's connection that somebody else makes, once the file's lock is taken.
    pub(super) fn open_on(
        connect: impl FnOnce(&Path) -> Result<Connection, OpenError>,
        path: &Path,
        options: OpenOptions,
    ) -> Result<Self, OpenError> {
        let shown = path.display().to_string();
        let failed =
            |what: &str, error: &dyn std::fmt::Display| OpenError(format!("{what} the database {shown}: {error}"));
        let lock = options.inbox.as_ref().map(|_| peer::take_lock(path)).transpose()?;
        let mut connection = connect(path)?;
        let alone = if lock.is_none() { lock_to_migrate(&connection, path)? } else { None };
        migrate(&mut connection, &*options.clock)?;
        drop(alone);
        export::check_not_moved(&connection)?;
        let keyring = options.keys.load(&*options.random)?;
        admin::check_master_keys(&connection, &keyring)?;
        let lease = match options.inbox {
            Some(_) => dispatch::void_leases(&connection, options.clock.now()).map_err(|e| failed("cannot use", &e))?,
            None => 0,
        };
        let shared = Arc::new(Shared::new(options, keyring));
        let view = View::default();
        let writer = writer::start(connection, path, shared.clone(), view.clone(), lease, lock)
            .map_err(|e| failed("cannot read", &e))?;
        Ok(Self { writer, readers: Readers::new(path), view, shared, origin: Origin::default() })
    }
}

pub(super) fn writer_connection(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // After a commit in which pages of an index changed places, SQLite looks at every page that it has in memory: a larger
    // cache costs more than it saves.
    connection.pragma_update(None, "cache_size", -8_192)?;
    // The checkpointer moves the log into the file from a connection of its own.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", super::checkpoint::KEPT_BYTES)?;
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

/// A connection that only checkpoints.
pub(super) fn checkpointer(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    // While it waits, nobody writes.
    connection.busy_timeout(CHECKPOINT_TIMEOUT)?;
    Ok(connection)
}

/// The version that this program brings a database to.
fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

fn version_of(connection: &Connection) -> Result<i64, OpenError> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(cannot_migrate)
}

fn is_current(connection: &Connection) -> Result<bool, OpenError> {
    Ok(version_of(connection)? >= newest())
}

/// No database is migrated beside a server: that of an older version would go on writing what it knows. One that is just
/// starting, or another command, may be at it.
fn lock_to_migrate(connection: &Connection, path: &Path) -> Result<Option<std::fs::File>, OpenError> {
    let begin = Instant::now();
    while !is_current(connection)? {
        match peer::take_lock(path) {
            Ok(lock) => return Ok(Some(lock)),
            Err(_) if begin.elapsed() < BUSY_TIMEOUT => {}
            Err(_) => {
                let shown = path.display();
                return Err(OpenError(format!(
                    "the database {shown} is of an older version, and a server is running on it: stop that one first"
                )));
            }
        }
    }
    Ok(None)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn cannot_migrate(error: rusqlite::Error) -> OpenError {
    OpenError(format!("cannot migrate the database: {error}"))
}

pub(super) fn migrate(connection: &mut Connection, clock: &dyn Clock) -> Result<(), OpenError> {
    let newest = newest();
    if version_of(connection)? == newest {
        return Ok(());
    }
    // Within the write lock, so that two programs that start together migrate once.
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(cannot_migrate)?;
    let version = version_of(&tx)?;
    if version > newest {
        return Err(OpenError(format!(
            "the database has version {version}, and this program knows versions up to {newest}: run a newer aldaba"
        )));
    }
    let done = usize::try_from(version).unwrap_or(0);
    for (name, sql) in &MIGRATIONS[done..] {
        tx.execute_batch(sql).map_err(|e| OpenError(format!("migration {name} failed: {e}")))?;
    }
    if version == 0 {
        admin::add_initial_event_types(&tx, clock.now()).map_err(cannot_migrate)?;
    }
    tx.pragma_update(None, "user_version", newest).map_err(cannot_migrate)?;
    tx.commit().map_err(cannot_migrate)
}

#[cfg(test)]
mod tests {
    #[test]
    fn migrations_are_numbered_in_order() {
        for (index, (name, _)) in super::MIGRATIONS.iter().enumerate() {
            assert!(name.starts_with(&format!("{:04}_", index + 1)), "{name}");
        }
    }
}

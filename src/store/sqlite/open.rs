//! Opening the file: settings of each connection, migrations, the lock of the one server.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior, params};

use super::{BUSY_TIMEOUT, Store, admin, dispatch, export, peer, readers::Readers, writer};
use crate::clock::Clock;
use crate::domain::audit::Origin;
use crate::private_files::{close_to_others, make_private, warn_of_open_folder};
use crate::store::compatible::{Fit, Versions};
use crate::store::shared::Shared;
use crate::store::view::View;
use crate::store::{OpenError, OpenOptions, StoreError};

/// One migration, as on PostgreSQL (`postgres/migrate.rs`); here it is one transaction with all that are due.
struct Migration {
    name: &'static str,
    sql: &'static str,
    /// The oldest program that may work on the database from then on; 0 where the migration changes nothing about that.
    minimum: i64,
}

/// Forward only; the number in the name is the version.
const MIGRATIONS: &[Migration] = &[
    Migration { name: "0001_initial", sql: include_str!("../../../migrations/sqlite/0001_initial.sql"), minimum: 0 },
    Migration { name: "0002_replay", sql: include_str!("../../../migrations/sqlite/0002_replay.sql"), minimum: 0 },
    Migration { name: "0003_log", sql: include_str!("../../../migrations/sqlite/0003_log.sql"), minimum: 0 },
    Migration { name: "0004_people", sql: include_str!("../../../migrations/sqlite/0004_people.sql"), minimum: 0 },
    Migration { name: "0005_leased", sql: include_str!("../../../migrations/sqlite/0005_leased.sql"), minimum: 0 },
    Migration { name: "0006_counters", sql: include_str!("../../../migrations/sqlite/0006_counters.sql"), minimum: 0 },
    Migration { name: "0007_events", sql: include_str!("../../../migrations/sqlite/0007_events.sql"), minimum: 0 },
    Migration { name: "0008_lists", sql: include_str!("../../../migrations/sqlite/0008_lists.sql"), minimum: 0 },
    Migration { name: "0009_days", sql: include_str!("../../../migrations/sqlite/0009_days.sql"), minimum: 0 },
    Migration { name: "0010_counts", sql: include_str!("../../../migrations/sqlite/0010_counts.sql"), minimum: 0 },
    Migration {
        name: "0011_compatible",
        sql: include_str!("../../../migrations/sqlite/0011_compatible.sql"),
        minimum: 0,
    },
    Migration {
        name: "0012_id_offsets",
        sql: include_str!("../../../migrations/sqlite/0012_id_offsets.sql"),
        minimum: 0,
    },
    Migration {
        name: "0014_memberships",
        sql: include_str!("../../../migrations/sqlite/0014_memberships.sql"),
        minimum: 0,
    },
    Migration {
        name: "0015_portal_links",
        sql: include_str!("../../../migrations/sqlite/0015_portal_links.sql"),
        minimum: 0,
    },
];

impl Migration {
    fn version(&self) -> i64 {
        self.name[..4].parse().expect("a migration's name begins with its number")
    }
}

/// The row of `settings` that says which is the oldest program that may work on the database; without it, every program
/// may that knows the row.
const MINIMUM: &str = "minimum_version";

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
        make_files_private(path).map_err(|e| failed("cannot open", &e))?;
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

/// Before SQLite opens the file: it gives the log and the shared memory the mode that the file has.
pub(super) fn make_files_private(path: &Path) -> std::io::Result<()> {
    warn_of_open_folder(path);
    make_private(path)?;
    for beside in ["-wal", "-shm", "-journal", ".lock"] {
        let mut name = path.as_os_str().to_owned();
        name.push(beside);
        close_to_others(Path::new(&name));
    }
    Ok(())
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

/// This program's own version.
fn newest() -> i64 {
    MIGRATIONS.last().map_or(0, Migration::version)
}

fn versions(connection: &Connection) -> Result<Versions, OpenError> {
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(cannot_migrate)?;
    if version == 0 {
        return Ok(Versions { version, minimum: 0 });
    }
    let sql = "SELECT value FROM settings WHERE name = ?1";
    let minimum = connection.query_row(sql, [MINIMUM], |row| row.get(0)).optional().map_err(cannot_migrate)?;
    Ok(Versions { version, minimum: minimum.unwrap_or(0) })
}

fn is_current(connection: &Connection) -> Result<bool, OpenError> {
    Ok(versions(connection)?.admit(newest())? == Fit::Current)
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
    if is_current(connection)? {
        return Ok(());
    }
    // Within the write lock, so that two programs that start together migrate once.
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(cannot_migrate)?;
    let before = versions(&tx)?;
    if before.admit(newest())? == Fit::Current {
        return Ok(());
    }
    for Migration { name, sql, minimum } in MIGRATIONS.iter().filter(|next| next.version() > before.version) {
        tx.execute_batch(sql).map_err(|e| OpenError(format!("migration {name} failed: {e}")))?;
        if *minimum > before.minimum {
            let sql = "INSERT INTO settings (name, value) VALUES (?1, ?2) \
                       ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)";
            tx.execute(sql, params![MINIMUM, minimum]).map_err(cannot_migrate)?;
        }
    }
    if before.version == 0 {
        admin::add_initial_event_types(&tx, clock.now()).map_err(cannot_migrate)?;
    }
    tx.pragma_update(None, "user_version", newest()).map_err(cannot_migrate)?;
    tx.commit().map_err(cannot_migrate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_in_order() {
        assert!(MIGRATIONS.iter().map(Migration::version).is_sorted_by(|one, next| one < next));
    }
}

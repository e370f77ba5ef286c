//! Migrations of the file.

use std::path::Path;
use std::time::Instant;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::connection::BUSY_TIMEOUT;
use super::{admin, peer};
use crate::clock::Clock;
use crate::store::compatible::{Fit, Versions};
use crate::store::errors::OpenError;

/// One migration, as on PostgreSQL (`postgres/migrations.rs`); here it is one transaction with all that are due.
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
    Migration { name: "0016_settings", sql: include_str!("../../../migrations/sqlite/0016_settings.sql"), minimum: 0 },
];

impl Migration {
    fn version(&self) -> i64 {
        self.name[..4].parse().expect("a migration's name begins with its number")
    }
}

/// The row of `settings` that says which is the oldest program that may work on the database; without it, every program
/// may that knows the row.
const MINIMUM: &str = "minimum_version";

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
    // Databases of the first versions name none.
    Ok(Versions { version, minimum: minimum.unwrap_or(0) })
}

fn is_current(connection: &Connection) -> Result<bool, OpenError> {
    Ok(versions(connection)?.admit(newest())? == Fit::Current)
}

/// No database is migrated beside a server: that of an older version would go on writing what it knows. One that is
/// just starting, or another command, may be at it.
pub(super) fn lock_to_migrate(connection: &Connection, path: &Path) -> Result<Option<std::fs::File>, OpenError> {
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

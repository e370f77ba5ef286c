//! Migrations of the file.

use std::path::Path;
use std::time::Instant;

use rusqlite::{Connection, TransactionBehavior};

use super::connection::BUSY_TIMEOUT;
use super::{admin, minimum, peer};
use crate::clock::Clock;
use crate::store::compatible::{Fit, Versions};
use crate::store::errors::OpenError;
use crate::store::migrations::{Migration, SQLITE_MIGRATIONS, newest};

/// The versions that the file has, whatever program made it; those of a file without tables are 0.
pub(super) fn versions(connection: &Connection) -> Result<Versions, OpenError> {
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(cannot_migrate)?;
    if version == 0 {
        return Ok(Versions { version, minimum: 0 });
    }
    // Databases of the first versions name none.
    Ok(Versions { version, minimum: minimum::read(connection).map_err(cannot_migrate)? })
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

/// Runs what the file has not had, in one transaction.
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
    for migration in SQLITE_MIGRATIONS.iter().filter(|next| next.version() > before.version) {
        let Migration { name, sql, minimum } = migration;
        tx.execute_batch(sql).map_err(|e| OpenError(format!("migration {name} failed: {e}")))?;
        if *minimum > before.minimum {
            minimum::raise(&tx, *minimum).map_err(cannot_migrate)?;
        }
    }
    if before.version == 0 {
        admin::add_initial_event_types(&tx, clock.now()).map_err(cannot_migrate)?;
    }
    tx.pragma_update(None, "user_version", newest()).map_err(cannot_migrate)?;
    tx.commit().map_err(cannot_migrate)
}

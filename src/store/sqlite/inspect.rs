//! A look at the file for `aldaba doctor`, beside a server or without one.

use std::path::Path;

use rusqlite::Connection;

use super::connection::reader;
use super::export::check_not_moved;
use super::id_times;
use super::migrate::versions;
use super::writer::last_id;
use crate::domain::time::Timestamp;
use crate::store::errors::OpenError;
use crate::store::inspection::{DatabaseTime, Inspection};

/// Looks at the file.
pub fn inspect(path: &Path) -> Result<Inspection, OpenError> {
    let failed =
        |error: &dyn std::fmt::Display| OpenError(format!("the database {} cannot be read: {error}", path.display()));
    let db = reader(path).map_err(|error| failed(&error))?;
    let found = versions(&db).map_err(|error| failed(&error))?;
    let mut inspection = Inspection::new(format!("SQLite {}", rusqlite::version()), found);
    if found.version > 0 {
        inspection.refusals.extend(check_not_moved(&db).err().map(|refusal| refusal.0));
        inspection.time = newest_time(&db).map(DatabaseTime::Newest);
    }
    Ok(inspection)
}

/// When the newest row was made. `None` where there is none, or where the tables are those of another version.
fn newest_time(db: &Connection) -> Option<Timestamp> {
    let last = last_id(db).ok().filter(|last| *last > 0)?;
    Some(id_times::read(db).ok()?.of(last))
}

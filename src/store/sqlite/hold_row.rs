//! The row of `settings` that has the time at which the hold of all deliveries began.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::minimum::require;
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::hold::{REQUIRES, ROW};

/// Since when deliveries are on hold.
pub(super) fn read(db: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let sql = "SELECT value FROM settings WHERE name = ?1";
    let since: Option<i64> = db.prepare_cached(sql)?.query_row([ROW], |row| row.get(0)).optional()?;
    Ok(since.map(Timestamp::from_millis))
}

/// Writes that deliveries are on hold from now on. An earlier hold stays as it is.
pub(super) fn begin(db: &Connection, now: Timestamp) -> Result<(), StoreError> {
    require(db, REQUIRES)?;
    let sql = "INSERT INTO settings (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING";
    db.prepare_cached(sql)?.execute(params![ROW, now.as_millis()])?;
    Ok(())
}

/// Ends the hold.
pub(super) fn end(db: &Connection) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM settings WHERE name = ?1")?.execute([ROW])?;
    Ok(())
}

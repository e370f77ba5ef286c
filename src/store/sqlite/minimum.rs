//! The minimum version of the file: a row of `settings` says which is the oldest program that may work on it. Without
//! the row, every program may that knows the row.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::store::errors::StoreError;

const NAME: &str = "minimum_version";

/// The minimum version; 0 where there is none.
pub(super) fn read(db: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT value FROM settings WHERE name = ?1";
    Ok(db.query_row(sql, [NAME], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Raises the minimum version where it is lower.
pub(super) fn raise(db: &Connection, version: i64) -> rusqlite::Result<()> {
    let sql = "INSERT INTO settings (name, value) VALUES (?1, ?2) \
               ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE value < excluded.value";
    db.prepare_cached(sql)?.execute(params![NAME, version])?;
    Ok(())
}

/// Requires a program of this version from here on, in the transaction that writes a row which older ones would ignore.
pub(super) fn require(db: &Connection, version: i64) -> Result<(), StoreError> {
    if version > 0 {
        raise(db, version)?;
    }
    Ok(())
}

//! Reads a whole database for its move to PostgreSQL (`aldaba import`). No server runs on it meanwhile, and none will
//! again. The exports of lists as files are in `src/api`.

use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _};

use super::peer;
use crate::clock::Clock;
use crate::lock::Mutex;
use crate::store::errors::{OpenError, StoreError};
use crate::store::numbers::sql_limit;

/// The setting that says that a database was moved, or that its move has begun.
const MOVED: &str = "moved";

/// A database that is being moved.
pub(in crate::store) struct Export {
    db: Mutex<Connection>,
    /// No server starts beside the move.
    _lock: std::fs::File,
}

impl Export {
    /// Opens the file as the only one, and marks it: from here on no server opens it.
    pub fn open(path: &Path, clock: &dyn Clock) -> Result<Self, OpenError> {
        let shown = path.display();
        if !path.exists() {
            return Err(OpenError(format!("there is no database {shown}")));
        }
        let failed = |error: rusqlite::Error| OpenError(format!("cannot open the database {shown}: {error}"));
        super::connection::make_files_private(path)
            .map_err(|e| OpenError(format!("cannot open the database {shown}: {e}")))?;
        let lock = peer::take_lock(path)?;
        let mut db = super::connection::writer_connection(path).map_err(failed)?;
        super::migrate::migrate(&mut db, clock)?;
        let sql = "INSERT INTO settings (name, value) VALUES (?1, 1) ON CONFLICT (name) DO NOTHING";
        db.execute(sql, [MOVED]).map_err(failed)?;
        Ok(Self { db: Mutex::new(db), _lock: lock })
    }

    /// The oldest program that may work on the database.
    pub fn minimum(&self) -> Result<i64, StoreError> {
        Ok(super::minimum::read(&self.db.lock())?)
    }

    /// Whether all deliveries are on hold.
    pub fn is_on_hold(&self) -> Result<bool, StoreError> {
        Ok(super::hold_row::read(&self.db.lock())?.is_some())
    }

    /// Rows of a query that takes a position and a number of rows. The first column is the position of each.
    pub fn rows(&self, sql: &str, after: i64, most: usize) -> Result<Vec<(i64, Vec<Value>)>, StoreError> {
        let db = self.db.lock();
        let mut statement = db.prepare_cached(sql)?;
        let columns = statement.column_count();
        let rows = statement.query_map([after, sql_limit(most)], |row| {
            let values = (1..columns).map(|column| row.get(column));
            Ok((row.get(0)?, values.collect::<Result<Vec<Value>, _>>()?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// Refuses a database that was moved: what it holds is the truth no more.
pub(super) fn check_not_moved(db: &Connection) -> Result<(), OpenError> {
    let sql = "SELECT value FROM settings WHERE name = ?1";
    let moved: Option<i64> = db
        .query_row(sql, [MOVED], |row| row.get(0))
        .optional()
        .map_err(|error| OpenError(format!("cannot read the database: {error}")))?;
    if moved.is_some() {
        return Err(OpenError(
            "the database was moved to PostgreSQL by `aldaba import`: set database_url to where it is now".into(),
        ));
    }
    Ok(())
}

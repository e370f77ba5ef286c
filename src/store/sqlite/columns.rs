//! Columns of a row as the types that they hold, and what SQLite's errors mean. It knows no table.

use rusqlite::{Connection, Row};

use crate::domain::endpoint::{EndpointHealth, EndpointStatus};
use crate::domain::time::Timestamp;
use crate::store::{Page, StoreError};

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match error {
            E::QueryReturnedNoRows => Self::NotFound,
            // Only what `readers` has ended is interrupted.
            E::SqliteFailure(code, _) if code.code == rusqlite::ErrorCode::OperationInterrupted => Self::TooSlow,
            E::FromSqlConversionFailure(..) | E::IntegralValueOutOfRange(..) | E::InvalidColumnType(..) => {
                Self::Corrupt(error.to_string())
            }
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// Reads a column through `parse`; what it refuses is named as corrupt.
pub(super) fn parsed<T, C: rusqlite::types::FromSql>(
    row: &rusqlite::Row<'_>,
    column: &str,
    parse: impl FnOnce(C) -> Option<T>,
) -> rusqlite::Result<T> {
    let index = row.as_ref().column_index(column)?;
    let kind = row.get_ref(index)?.data_type();
    parse(row.get(index)?).ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(index, kind, format!("{column} holds an impossible value").into())
    })
}

/// A number that this program has a narrower type for.
pub(super) fn whole<T: TryFrom<i64>>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    parsed(row, column, |number: i64| T::try_from(number).ok())
}

/// An error of a row that this program cannot read, where SQLite's own errors are returned.
pub(super) fn unreadable(error: StoreError) -> rusqlite::Error {
    let reason = if let StoreError::Corrupt(reason) = error { reason } else { error.to_string() };
    // A column of no number: the reason names it.
    rusqlite::Error::FromSqlConversionFailure(usize::MAX, rusqlite::types::Type::Text, reason.into())
}

pub(super) fn health(row: &Row<'_>) -> rusqlite::Result<EndpointHealth> {
    Ok(EndpointHealth {
        status: parsed(row, "status", EndpointStatus::from_column)?,
        consecutive_failures: row.get("consecutive_failures")?,
        failing_since: time(row, "failing_since")?,
    })
}

pub(super) fn time(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
}

pub(super) fn uuid(row: &Row<'_>, column: &str) -> rusqlite::Result<uuid::Uuid> {
    parsed(row, column, |bytes: Vec<u8>| uuid::Uuid::from_slice(&bytes).ok())
}

/// A page's offset as SQL takes it. Where it is too great a number, so is any row's position.
pub(super) fn sql_offset(page: Page) -> i64 {
    i64::try_from(page.offset()).unwrap_or(i64::MAX)
}

/// The number in the column `total`.
pub(super) fn count(db: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<u64, StoreError> {
    Ok(db.prepare_cached(sql)?.query_row(params, |row| whole(row, "total"))?)
}

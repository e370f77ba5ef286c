//! Columns of a row as the types that they hold, and what SQLite's errors mean. It knows no table.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use crate::domain::endpoint::{EndpointHealth, EndpointStatus};
use crate::domain::secret::SealedSecret;
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::values::Page;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match error {
            E::QueryReturnedNoRows => Self::NotFound,
            // Only what `readers` has ended is interrupted.
            E::SqliteFailure(code, _) if code.code == rusqlite::ErrorCode::OperationInterrupted => Self::TooSlow,
            error if is_of_a_value(&error) => Self::Corrupt(error.to_string()),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// Whether a column holds what it cannot hold.
fn is_of_a_value(error: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    matches!(
        error,
        E::FromSqlConversionFailure(..) | E::IntegralValueOutOfRange(..) | E::InvalidColumnType(..) | E::Utf8Error(..)
    )
}

/// Reads a row of `table`. Where it holds what it cannot hold, the error names the table, the row and the column.
pub(super) fn read_row<T>(
    table: &str,
    row: &Row<'_>,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    read(row).map_err(|error| {
        if is_of_a_value(&error) {
            unreadable(StoreError::Corrupt(format!("{table} {}: {error}", id_of(row))))
        } else {
            error
        }
    })
}

/// What tells a row from the others of its table.
fn id_of(row: &Row<'_>) -> String {
    match row.get_ref("id") {
        Ok(ValueRef::Blob(id)) => {
            uuid::Uuid::from_slice(id).map_or_else(|_| "without an id".into(), |id| id.to_string())
        }
        Ok(ValueRef::Integer(id)) => id.to_string(),
        _ => "without an id".into(),
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

/// What is sealed in these columns: the id of the master key, and the bytes.
pub(super) fn sealed(row: &Row<'_>, key_id: &str, bytes: &str) -> rusqlite::Result<Option<SealedSecret>> {
    let key_id: Option<String> = row.get(key_id)?;
    key_id.map(|key_id| Ok(SealedSecret { key_id, bytes: row.get(bytes)? })).transpose()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(columns: &str) -> StoreError {
        let db = Connection::open_in_memory().expect("opens");
        let sent = |row: &Row<'_>| read_row("replays", row, |row| whole::<u64>(row, "sent"));
        db.query_row(&format!("SELECT {columns}"), [], sent).expect_err("it is corrupt").into()
    }

    #[test]
    fn a_corrupt_row_is_named_with_its_table_and_column() {
        for columns in ["-1 AS sent, 7 AS id", "'x' AS sent, 7 AS id"] {
            let StoreError::Corrupt(reason) = read(columns) else { panic!("{columns}") };
            assert!(reason.starts_with("replays 7: ") && reason.contains("sent"), "{reason}");
        }
    }

    #[test]
    fn a_column_that_is_not_there_is_no_corrupt_row() {
        assert!(matches!(read("7 AS id"), StoreError::Unavailable(_)));
    }
}

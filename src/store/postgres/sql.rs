//! Statements, and columns of a row as the types that they hold. It knows no table.

use std::error::Error as _;

use deadpool_postgres::{GenericClient, Object, Transaction};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, ToSql, Type};
use uuid::Uuid;

use crate::domain::secret::SealedSecret;
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::values::Page;

/// Text from outside as PostgreSQL can hold it: without NUL.
pub(super) fn text(value: String) -> String {
    if value.contains('\0') { value.replace('\0', "\u{fffd}") } else { value }
}

/// One column of many rows, as an array.
pub(super) fn column<T, V>(rows: impl IntoIterator<Item = T>, value: impl FnMut(T) -> V) -> Vec<V> {
    rows.into_iter().map(value).collect()
}

pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

pub(super) async fn rows(db: &impl GenericClient, sql: &str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.query(&statement, params).await?)
}

pub(super) async fn row(db: &impl GenericClient, sql: &str, params: Params<'_>) -> Result<Option<Row>, StoreError> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.query_opt(&statement, params).await?)
}

/// The one row of a query that has one.
pub(super) async fn one(db: &impl GenericClient, sql: &str, params: Params<'_>) -> Result<Row, StoreError> {
    row(db, sql, params).await?.ok_or(StoreError::NotFound)
}

pub(super) async fn execute(db: &impl GenericClient, sql: &str, params: Params<'_>) -> Result<u64, StoreError> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.execute(&statement, params).await?)
}

/// A transaction in which everything is read from one snapshot.
pub(super) async fn snapshot(client: &mut Object) -> Result<Transaction<'_>, StoreError> {
    let level = tokio_postgres::IsolationLevel::RepeatableRead;
    Ok(client.build_transaction().isolation_level(level).read_only(true).start().await?)
}

/// A column.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: &str) -> Result<T, StoreError> {
    row.try_get(column).map_err(|error| {
        let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        StoreError::Corrupt(format!("{column}: {reason}"))
    })
}

/// Reads a row of `table`. Where it holds what it cannot hold, the error names the table, the row and the column.
pub(super) fn read_row<T>(
    table: &str,
    row: &Row,
    read: impl FnOnce(&Row) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    read(row).map_err(|error| match error {
        StoreError::Corrupt(reason) => StoreError::Corrupt(format!("{table} {}: {reason}", id_of(row))),
        other => other,
    })
}

/// What tells a row from the others of its table.
fn id_of(row: &Row) -> String {
    let uuid = row.try_get("id").map(|id: Uuid| id.to_string());
    let id = uuid.or_else(|_| row.try_get("id").map(|id: i64| id.to_string()));
    id.unwrap_or_else(|_| "without an id".into())
}

/// A number of whatever width.
pub(super) fn number(row: &Row, column: &str) -> Result<Option<i64>, StoreError> {
    let index = row.columns().iter().position(|known| known.name() == column).ok_or_else(|| corrupt(column))?;
    match *row.columns()[index].type_() {
        Type::INT2 => Ok(get::<Option<i16>>(row, column)?.map(i64::from)),
        Type::INT4 => Ok(get::<Option<i32>>(row, column)?.map(i64::from)),
        _ => get::<Option<i64>>(row, column),
    }
}

/// A number that this program has a narrower type for.
pub(super) fn whole<T: TryFrom<i64>>(row: &Row, column: &str) -> Result<T, StoreError> {
    maybe_whole(row, column)?.ok_or_else(|| corrupt(column))
}

pub(super) fn maybe_whole<T: TryFrom<i64>>(row: &Row, column: &str) -> Result<Option<T>, StoreError> {
    number(row, column)?.map(|value| T::try_from(value).map_err(|_| corrupt(column))).transpose()
}

/// Reads a number through `parse`.
pub(super) fn parsed<T>(row: &Row, column: &str, parse: impl FnOnce(i64) -> Option<T>) -> Result<T, StoreError> {
    number(row, column)?.and_then(parse).ok_or_else(|| corrupt(column))
}

pub(super) fn time(row: &Row, column: &str) -> Result<Option<Timestamp>, StoreError> {
    Ok(number(row, column)?.map(Timestamp::from_millis))
}

pub(super) fn when(row: &Row, column: &str) -> Result<Timestamp, StoreError> {
    time(row, column)?.ok_or_else(|| corrupt(column))
}

/// What is sealed in these columns: the id of the master key, and the bytes.
pub(super) fn sealed(row: &Row, key_id: &str, bytes: &str) -> Result<Option<SealedSecret>, StoreError> {
    let key_id: Option<String> = get(row, key_id)?;
    key_id.map(|key_id| Ok(SealedSecret { key_id, bytes: get(row, bytes)? })).transpose()
}

pub(super) fn corrupt(column: &str) -> StoreError {
    StoreError::Corrupt(format!("{column} holds an impossible value"))
}

/// Why a search failed, which the database ends after `SEARCH_TIMEOUT`.
pub(super) fn search_failed(error: tokio_postgres::Error) -> StoreError {
    if error.code() == Some(&SqlState::QUERY_CANCELED) { StoreError::TooSlow } else { error.into() }
}

/// An error for a log or an operator. The detail of a server's answer may hold values; its message does not.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(answer) => format!("{} ({})", answer.message(), answer.code().code()),
        None => error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}")),
    }
}

/// A page's offset as SQL takes it. Where it is too great a number, so is any row's position.
pub(super) fn offset(page: Page) -> i64 {
    i64::try_from(page.offset()).unwrap_or(i64::MAX)
}

/// The number in the column `total`.
pub(super) async fn count(
    db: &impl GenericClient,
    sql: &str,
    params: super::sql::Params<'_>,
) -> Result<u64, StoreError> {
    // A sum of no rows is none.
    Ok(maybe_whole(&one(db, sql, params).await?, "total")?.unwrap_or(0))
}

/// From the first of the ids to the first after the last of them; where there are none, nothing is between the two.
pub(super) fn span(ids: impl Iterator<Item = i64> + Clone) -> (i64, i64) {
    (ids.clone().min().unwrap_or(0), ids.max().map_or(0, |last| last.saturating_add(1)))
}

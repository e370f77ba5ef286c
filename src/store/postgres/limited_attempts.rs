//! The row of an endpoint's attempts that count towards its rate limit. Endpoints without a limit have none.
//!
//! Whoever counts holds the row until its transaction ends, on any node. Time is the database's. A transaction takes
//! these rows before rows of the queue, in the order of the endpoints.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use tokio::time::Instant;

use super::node::NOW;
use super::sql::{column, execute, get, row, rows};
use crate::domain::id::EndpointKey;
use crate::domain::time::Timestamp;
use crate::store::counted_attempts::{CountedAttempts, limited_endpoints};
use crate::store::errors::StoreError;
use crate::store::values::Unattempted;

/// Reads what is counted now. Nobody else counts until the transaction ends. The caller writes what is changed then.
pub(super) async fn lock(tx: &Transaction<'_>, endpoint: EndpointKey) -> Result<CountedAttempts, StoreError> {
    if let Some(attempts) = try_lock(tx, endpoint).await? {
        return Ok(attempts);
    }
    let sql = "INSERT INTO limited_attempts (endpoint, attempts) VALUES ($1, '[]') ON CONFLICT DO NOTHING";
    execute(tx, sql, &[&endpoint.0]).await?;
    try_lock(tx, endpoint).await?.ok_or(StoreError::NotFound)
}

/// The same where the endpoint has its row.
async fn try_lock(tx: &Transaction<'_>, endpoint: EndpointKey) -> Result<Option<CountedAttempts>, StoreError> {
    let asked_at = Instant::now();
    let sql = format!("SELECT attempts, {NOW} AS now FROM limited_attempts WHERE endpoint = $1 FOR UPDATE");
    let Some(found) = row(tx, &sql, &[&endpoint.0]).await? else { return Ok(None) };
    let now = Timestamp::from_millis(get(&found, "now")?);
    Ok(Some(CountedAttempts::read(endpoint, get::<&str>(&found, "attempts")?.as_bytes(), now, asked_at)))
}

/// The same for the endpoints of those deliveries with which a rate limit has to do, as far as they have rows. While
/// they are locked, nobody claims a delivery of these endpoints.
pub(super) async fn lock_known(
    tx: &Transaction<'_>,
    deliveries: &[Unattempted],
) -> Result<BTreeMap<EndpointKey, CountedAttempts>, StoreError> {
    let endpoints = column(limited_endpoints(deliveries), |endpoint| endpoint.0);
    let asked_at = Instant::now();
    // One by one, in the order of the keys: see `docs/decisions/0013-postgresql-plans-and-locks.md`.
    let sql = format!(
        "SELECT l.endpoint, l.attempts, {NOW} AS now FROM unnest($1::bigint[]) AS w(endpoint) CROSS JOIN LATERAL \
         (SELECT endpoint, attempts FROM limited_attempts WHERE endpoint = w.endpoint LIMIT 1 FOR UPDATE) AS l"
    );
    let mut locked = BTreeMap::new();
    for row in rows(tx, &sql, &[&endpoints]).await? {
        let (endpoint, now) = (EndpointKey(get(&row, "endpoint")?), Timestamp::from_millis(get(&row, "now")?));
        let attempts = get::<&str>(&row, "attempts")?.as_bytes();
        locked.insert(endpoint, CountedAttempts::read(endpoint, attempts, now, asked_at));
    }
    Ok(locked)
}

/// Writes what is changed.
pub(super) async fn write(
    tx: &Transaction<'_>,
    endpoint: EndpointKey,
    attempts: &CountedAttempts,
) -> Result<(), StoreError> {
    if !attempts.is_changed() {
        return Ok(());
    }
    let sql = "UPDATE limited_attempts SET attempts = $2 WHERE endpoint = $1";
    execute(tx, sql, &[&endpoint.0, &attempts.column()]).await?;
    Ok(())
}

/// Writes those of them that are changed. The transaction has their rows.
pub(super) async fn write_all(
    tx: &Transaction<'_>,
    locked: &BTreeMap<EndpointKey, CountedAttempts>,
) -> Result<(), StoreError> {
    let (endpoints, columns): (Vec<i64>, Vec<String>) = locked
        .iter()
        .filter(|(_, attempts)| attempts.is_changed())
        .map(|(endpoint, attempts)| (endpoint.0, attempts.column()))
        .unzip();
    if endpoints.is_empty() {
        return Ok(());
    }
    // Found one by one, like the rows of the queue in `settle`.
    let sql = "WITH w AS MATERIALIZED (SELECT l.row_ref, t.attempts FROM unnest($1::bigint[], $2::text[]) \
               AS t(endpoint, attempts) CROSS JOIN LATERAL (SELECT ctid AS row_ref FROM limited_attempts \
               WHERE endpoint = t.endpoint LIMIT 1) AS l) \
               UPDATE limited_attempts l SET attempts = w.attempts FROM w WHERE l.ctid = w.row_ref";
    execute(tx, sql, &[&endpoints, &columns]).await?;
    Ok(())
}

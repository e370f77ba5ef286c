//! The row of an endpoint's attempts that count towards its rate limit. Endpoints without a limit have none.
//!
//! Whoever counts holds the row until its transaction ends, on any node. Time is the database's. A transaction takes
//! these rows before rows of the queue, in the order of the endpoints.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use tokio::time::Instant;

use super::node::NOW;
use super::sql::{execute, get, row};
use crate::domain::id::EndpointKey;
use crate::domain::time::Timestamp;
use crate::store::counted_attempts::CountedAttempts;
use crate::store::errors::StoreError;
use crate::store::values::Unattempted;

/// Reads what is counted now. Nobody else counts until the transaction ends.
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
    CountedAttempts::read(get(&found, "attempts")?, now, asked_at).map(Some)
}

pub(super) async fn write(
    tx: &Transaction<'_>,
    endpoint: EndpointKey,
    attempts: &CountedAttempts,
) -> Result<(), StoreError> {
    let sql = "UPDATE limited_attempts SET attempts = $2 WHERE endpoint = $1";
    execute(tx, sql, &[&endpoint.0, &attempts.column()]).await?;
    Ok(())
}

/// Whether a rate limit has to do with a delivery that is given back.
pub(super) fn concern(row: &Unattempted) -> bool {
    row.counted.is_some() || row.due_at.is_some()
}

/// The rows of those endpoints whose rate limits have to do with these deliveries, as far as they have rows. While they
/// are locked, nobody claims a delivery of these endpoints.
pub(super) async fn lock_known(
    tx: &Transaction<'_>,
    deliveries: &[Unattempted],
) -> Result<BTreeMap<EndpointKey, CountedAttempts>, StoreError> {
    let mut endpoints: Vec<EndpointKey> =
        deliveries.iter().filter(|row| concern(row)).map(|row| row.endpoint).collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    let mut locked = BTreeMap::new();
    for endpoint in endpoints {
        if let Some(attempts) = try_lock(tx, endpoint).await? {
            locked.insert(endpoint, attempts);
        }
    }
    Ok(locked)
}

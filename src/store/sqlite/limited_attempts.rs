//! The row of an endpoint's attempts that count towards its rate limit. Endpoints without a limit have none.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension as _, params};
use tokio::time::Instant;

use super::tx::Tx;
use crate::domain::id::EndpointKey;
use crate::store::counted_attempts::{CountedAttempts, limited_endpoints};
use crate::store::errors::StoreError;
use crate::store::values::Unattempted;

/// Reads what is counted now. The caller writes what is changed then.
pub(super) fn read(tx: &Tx<'_>, endpoint: EndpointKey) -> Result<CountedAttempts, StoreError> {
    // The transaction may have begun a while ago. A clock that is set forward ends no window.
    let (asked_at, now) = (Instant::now(), tx.shared.steady_now());
    let sql = "SELECT attempts FROM limited_attempts WHERE endpoint = ?1";
    // A number is read as nothing, which is not a log.
    let column: Option<Vec<u8>> = tx
        .db
        .prepare_cached(sql)?
        .query_row([endpoint.0], |row| Ok(row.get_ref(0)?.as_bytes().unwrap_or_default().to_vec()))
        .optional()?;
    Ok(CountedAttempts::read(endpoint, column.as_deref().unwrap_or(b"[]"), now, asked_at))
}

/// The same for the endpoints of those deliveries with which a rate limit has to do.
pub(super) fn read_counted(
    tx: &Tx<'_>,
    deliveries: &[Unattempted],
) -> Result<BTreeMap<EndpointKey, CountedAttempts>, StoreError> {
    limited_endpoints(deliveries).into_iter().map(|endpoint| Ok((endpoint, read(tx, endpoint)?))).collect()
}

/// Writes what is changed.
pub(super) fn write(tx: &Tx<'_>, endpoint: EndpointKey, attempts: &CountedAttempts) -> Result<(), StoreError> {
    if !attempts.is_changed() {
        return Ok(());
    }
    let sql = "INSERT INTO limited_attempts (endpoint, attempts) VALUES (?1, ?2) \
               ON CONFLICT (endpoint) DO UPDATE SET attempts = excluded.attempts";
    tx.db.prepare_cached(sql)?.execute(params![endpoint.0, attempts.column()])?;
    Ok(())
}

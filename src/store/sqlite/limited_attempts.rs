//! The row of an endpoint's attempts that count towards its rate limit. Endpoints without a limit have none.

use rusqlite::{OptionalExtension as _, params};
use tokio::time::Instant;

use super::tx::Tx;
use crate::domain::id::{DeliveryId, EndpointKey};
use crate::store::counted_attempts::CountedAttempts;
use crate::store::errors::StoreError;
use crate::store::values::Unattempted;

/// Reads what is counted now.
pub(super) fn read(tx: &Tx<'_>, endpoint: EndpointKey) -> Result<CountedAttempts, StoreError> {
    // The transaction may have begun a while ago. A clock that is set forward ends no window.
    let (asked_at, now) = (Instant::now(), tx.shared.steady_now());
    let sql = "SELECT attempts FROM limited_attempts WHERE endpoint = ?1";
    let column: Option<String> = tx.db.prepare_cached(sql)?.query_row([endpoint.0], |row| row.get(0)).optional()?;
    CountedAttempts::read(column.as_deref().unwrap_or("[]"), now, asked_at)
}

pub(super) fn write(tx: &Tx<'_>, endpoint: EndpointKey, attempts: &CountedAttempts) -> Result<(), StoreError> {
    let sql = "INSERT INTO limited_attempts (endpoint, attempts) VALUES (?1, ?2) \
               ON CONFLICT (endpoint) DO UPDATE SET attempts = excluded.attempts";
    tx.db.prepare_cached(sql)?.execute(params![endpoint.0, attempts.column()])?;
    Ok(())
}

/// Takes out what was counted for these of the deliveries, which were given back.
pub(super) fn give_back(tx: &Tx<'_>, deliveries: &[Unattempted], given_back: &[DeliveryId]) -> Result<(), StoreError> {
    for row in deliveries {
        let Some(counted) = row.counted else { continue };
        if given_back.contains(&row.delivery) {
            let mut attempts = read(tx, row.endpoint)?;
            attempts.give_back(counted);
            write(tx, row.endpoint, &attempts)?;
        }
    }
    Ok(())
}

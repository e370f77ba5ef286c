//! The delivery index (table `delivery_lists`), the counters of endpoints, and the leases of listed deliveries: written
//! for many deliveries at once.
//!
//! A new delivery is only in its own row. A delivery above `listed_to` is *recent*: readers look through all recent
//! rows. Some thousands of recent deliveries are *listed* together, in the order of the index, so that those of one
//! endpoint share a page that is written once.

use std::time::Duration;

use rusqlite::{Connection, params};

use super::tx::Tx;
use crate::domain::id::{DeliveryId, EndpointKey};
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::numbers::{row_count, sql_limit};

/// So many recent deliveries are flushed at once: that takes a few milliseconds, and so does looking through them.
const FLUSH_ROWS: usize = 4_096;

/// More are flushed in parts, so that what is read of them is little even where a few transactions have brought
/// millions.
const MAX_FLUSH_ROWS: usize = 65_536;

/// Fewer than [`FLUSH_ROWS`] are flushed once in this time: readers have little to look through unless much comes.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// So few are flushed sooner, in a transaction that writes something else: its callers do not notice them. A thousand
/// of two hundred endpoints take 3 ms.
const EARLY_FLUSH_MAX_ROWS: usize = 256;

/// How long after the last flush an early one may come.
const EARLY_FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// Whether so many recent deliveries are to be flushed that long after the last flush, in a transaction of their own
/// if need be.
pub(super) fn is_flush_due(recent: usize, since: Duration) -> bool {
    recent >= FLUSH_ROWS || recent > 0 && since >= FLUSH_INTERVAL
}

/// Whether they are to be flushed in a transaction that writes something else.
pub(super) fn is_early_flush_due(recent: usize, since: Duration) -> bool {
    is_flush_due(recent, since) || (1..=EARLY_FLUSH_MAX_ROWS).contains(&recent) && since >= EARLY_FLUSH_INTERVAL
}

impl Tx<'_> {
    /// A delivery is leased that may be listed.
    pub fn note_lease(&self, delivery: DeliveryId) -> Result<(), StoreError> {
        if self.cache.is_listed(delivery) {
            self.db.prepare_cached("INSERT OR IGNORE INTO listed_leases (id) VALUES (?1)")?.execute([delivery.0])?;
        }
        Ok(())
    }

    /// It is leased no more.
    pub fn forget_lease(&self, delivery: DeliveryId) -> Result<(), StoreError> {
        if self.cache.is_listed(delivery) {
            self.db.prepare_cached("DELETE FROM listed_leases WHERE id = ?1")?.execute([delivery.0])?;
        }
        Ok(())
    }

    /// A delivery has changed that may be listed.
    pub fn relist(&self, delivery: DeliveryId, endpoint: EndpointKey) -> Result<(), StoreError> {
        if self.cache.is_listed(delivery) {
            let sql = "UPDATE delivery_lists SET (status, attempt, response_status, response_time_ms) = \
                       (SELECT status, attempt, response_status, response_time_ms FROM deliveries WHERE id = ?2) \
                       WHERE endpoint = ?1 AND id = ?2";
            self.db.prepare_cached(sql)?.execute(params![endpoint.0, delivery.0])?;
        }
        Ok(())
    }
}

/// Frees all that is leased. Returns how many that were.
pub(super) fn void_leases(db: &Connection, now: Timestamp) -> rusqlite::Result<usize> {
    let mut freed = 0;
    for which in ["id IN (SELECT id FROM listed_leases)", "id IN (SELECT id FROM recent_deliveries)"] {
        let sql = format!("UPDATE deliveries SET lease = NULL, due_at = ?1 WHERE lease IS NOT NULL AND {which}");
        freed += db.execute(&sql, [now.as_millis()])?;
    }
    db.execute("DELETE FROM listed_leases", [])?;
    Ok(freed)
}

/// Puts what is recent into the lists, and reads how far they go now.
pub(super) fn flush_recent(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    write_lists(tx.db)?;
    tx.cache.read_recent(tx.db)
}

/// What the lists and counters take from the row of a recent delivery.
struct Recent {
    endpoint: i64,
    id: i64,
    event: i64,
    status: i64,
    attempt: i64,
    response_status: Option<i64>,
    response_time_ms: Option<i64>,
    started_at: Option<i64>,
    is_leased: bool,
}

/// The oldest of what is recent.
fn read_part(db: &Connection) -> rusqlite::Result<Vec<Recent>> {
    let sql = "SELECT endpoint, id, event, status, attempt, response_status, response_time_ms, started_at, \
               lease IS NOT NULL FROM recent_deliveries ORDER BY id LIMIT ?1";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([sql_limit(MAX_FLUSH_ROWS)], |row| {
        Ok(Recent {
            endpoint: row.get(0)?,
            id: row.get(1)?,
            event: row.get(2)?,
            status: row.get(3)?,
            attempt: row.get(4)?,
            response_status: row.get(5)?,
            response_time_ms: row.get(6)?,
            started_at: row.get(7)?,
            is_leased: row.get(8)?,
        })
    })?;
    rows.collect()
}

/// Puts what is recent into the lists and the counters.
pub(super) fn write_lists(db: &Connection) -> rusqlite::Result<()> {
    loop {
        let part = read_part(db)?;
        let many = part.len();
        write_part(db, part)?;
        if many < MAX_FLUSH_ROWS {
            return Ok(());
        }
    }
}

fn write_part(db: &Connection, mut recent: Vec<Recent>) -> rusqlite::Result<()> {
    debug_assert!(recent.is_sorted_by_key(|delivery| delivery.id), "the oldest are listed first");
    let Some(listed_to) = recent.last().map(|delivery| delivery.id) else { return Ok(()) };
    recent.sort_unstable_by_key(|delivery| (delivery.endpoint, delivery.id));
    let mut list = db.prepare_cached("INSERT OR REPLACE INTO delivery_lists VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    let mut note_lease = db.prepare_cached("INSERT OR IGNORE INTO listed_leases (id) VALUES (?1)")?;
    let mut count = db.prepare_cached(
        "UPDATE endpoint_counters SET deliveries_total = deliveries_total + ?2, \
         last_delivery_at = NULLIF(MAX(IFNULL(last_delivery_at, 0), ?3), 0) WHERE endpoint = ?1",
    )?;
    for of_endpoint in recent.chunk_by(|a, b| a.endpoint == b.endpoint) {
        // 0 where none was attempted.
        let mut last_at = 0;
        for d in of_endpoint {
            list.execute(params![
                d.endpoint,
                d.id,
                d.event,
                d.status,
                d.attempt,
                d.response_status,
                d.response_time_ms
            ])?;
            if d.is_leased {
                note_lease.execute([d.id])?;
            }
            last_at = last_at.max(d.started_at.unwrap_or(0));
        }
        count.execute([of_endpoint[0].endpoint, row_count(of_endpoint.len()), last_at])?;
    }
    db.prepare_cached("UPDATE settings SET value = ?1 WHERE name = 'listed_to'")?.execute([listed_to])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_flushed_early_but_only_with_something_else() {
        assert!(
            is_early_flush_due(1, EARLY_FLUSH_INTERVAL)
                && is_early_flush_due(EARLY_FLUSH_MAX_ROWS, EARLY_FLUSH_INTERVAL)
        );
        assert!(!is_early_flush_due(1, EARLY_FLUSH_INTERVAL / 2) && !is_early_flush_due(0, FLUSH_INTERVAL));
        assert!(!is_flush_due(1, EARLY_FLUSH_INTERVAL));
    }

    #[test]
    fn more_gather_for_a_while_and_many_do_not_wait() {
        assert!(
            !is_early_flush_due(EARLY_FLUSH_MAX_ROWS + 1, EARLY_FLUSH_INTERVAL)
                && !is_early_flush_due(FLUSH_ROWS - 1, EARLY_FLUSH_INTERVAL)
        );
        for is_due in [is_flush_due, is_early_flush_due] {
            assert!(is_due(EARLY_FLUSH_MAX_ROWS + 1, FLUSH_INTERVAL) && is_due(FLUSH_ROWS, Duration::ZERO));
        }
    }
}

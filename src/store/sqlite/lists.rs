//! The lists of endpoints' deliveries, their counters, and what is leased: written for many deliveries at once.
//!
//! A delivery is in its own row alone until it is *listed*: what is newer than `listed_to` is recent, and is found by looking
//! through all that is. It is put into the lists with a few thousand others, in the order of the lists, so that those of one
//! endpoint share a page that is written once.

use std::time::Duration;

use rusqlite::{Connection, params};

use super::writer::Tx;
use crate::domain::id::{DeliveryId, EndpointKey};
use crate::domain::time::Timestamp;
use crate::store::StoreError;

/// Recent deliveries that are listed together: listing so many takes a few milliseconds, and so does looking through them.
const TOGETHER: usize = 4_096;

/// Fewer are listed once in this time: what readers have to look through is little unless much comes.
const OFTEN_ENOUGH: Duration = Duration::from_secs(1);

/// Whether so many recent deliveries are to be listed, that long after the last time.
pub(super) fn is_to_be_listed(recent: usize, since: Duration) -> bool {
    recent >= TOGETHER || recent > 0 && since >= OFTEN_ENOUGH
}

impl Tx<'_> {
    /// A delivery is leased that may be listed.
    pub fn note_lease(&self, delivery: DeliveryId) -> Result<(), StoreError> {
        if self.book.is_listed(delivery) {
            self.db.prepare_cached("INSERT OR IGNORE INTO listed_leases (id) VALUES (?1)")?.execute([delivery.0])?;
        }
        Ok(())
    }

    /// It is leased no more.
    pub fn forget_lease(&self, delivery: DeliveryId) -> Result<(), StoreError> {
        if self.book.is_listed(delivery) {
            self.db.prepare_cached("DELETE FROM listed_leases WHERE id = ?1")?.execute([delivery.0])?;
        }
        Ok(())
    }

    /// A delivery has changed that may be listed.
    pub fn relist(&self, delivery: DeliveryId, endpoint: EndpointKey) -> Result<(), StoreError> {
        if self.book.is_listed(delivery) {
            let sql = "UPDATE delivery_lists SET (status, attempt, response_status, response_time_ms) = \
                       (SELECT status, attempt, response_status, response_time_ms FROM deliveries WHERE id = ?2) \
                       WHERE endpoint = ?1 AND id = ?2";
            self.db.prepare_cached(sql)?.execute(params![endpoint.0, delivery.0])?;
        }
        Ok(())
    }
}

/// The newest delivery that is listed, and how many are newer.
pub(super) fn recent(db: &Connection) -> rusqlite::Result<(i64, i64)> {
    let sql = "SELECT value, (SELECT COUNT(*) FROM recent_deliveries) FROM settings WHERE name = 'listed_to'";
    db.prepare_cached(sql)?.query_row([], |row| row.try_into())
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

/// Lists what is recent.
pub(super) fn list_recent(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    write_lists(tx.db)?;
    tx.book.read_recent(tx.db)
}

/// Puts what is recent into the lists and the counters.
pub(super) fn write_lists(db: &Connection) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO delivery_lists SELECT endpoint, id, event, status, attempt, response_status, \
               response_time_ms FROM recent_deliveries ORDER BY endpoint, id";
    if db.prepare_cached(sql)?.execute([])? == 0 {
        return Ok(());
    }
    let sql = "INSERT OR IGNORE INTO listed_leases SELECT id FROM recent_deliveries WHERE lease IS NOT NULL";
    db.prepare_cached(sql)?.execute([])?;
    let sql = "UPDATE endpoint_counters AS c SET deliveries_total = c.deliveries_total + r.deliveries, \
               last_delivery_at = NULLIF(MAX(IFNULL(c.last_delivery_at, 0), r.last_at), 0) \
               FROM recent_totals r WHERE r.endpoint = c.endpoint";
    db.prepare_cached(sql)?.execute([])?;
    let sql = "UPDATE settings SET value = (SELECT MAX(id) FROM deliveries) WHERE name = 'listed_to'";
    db.prepare_cached(sql)?.execute([])?;
    Ok(())
}

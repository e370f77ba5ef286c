//! FIFO endpoints: their deliveries are sent in the order of their acceptance.
//!
//! The column `turn` has the FIFO endpoint of a delivery. At most one of a FIFO endpoint's open deliveries is due or
//! leased. When it has ended, the head becomes due: the delivery of the lowest id.

use rusqlite::{Connection, params};

use super::tx::Tx;
use crate::domain::id::{DeliveryId, EndpointKey};
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;

impl Tx<'_> {
    /// Adds an open delivery that is due to the FIFO order of its endpoint, where there is one. Returns whether the
    /// delivery stays due.
    pub fn add_to_fifo(&self, delivery: DeliveryId, endpoint: EndpointKey) -> Result<bool, StoreError> {
        if !self.cache.endpoint(endpoint).is_some_and(|row| row.is_fifo) {
            return Ok(true);
        }
        let sql = "SELECT 1 FROM deliveries WHERE turn = ?1 LIMIT 1";
        let waits = self.db.prepare_cached(sql)?.exists([endpoint.0])?;
        let sql = "UPDATE deliveries SET turn = ?2, due_at = iif(?3, NULL, due_at) WHERE id = ?1";
        self.db.prepare_cached(sql)?.execute(params![delivery.0, endpoint.0, waits])?;
        Ok(!waits)
    }

    /// Takes a delivery that has ended out of the FIFO order of its endpoint, if it was in one, and makes the next head
    /// due.
    pub fn remove_from_fifo(&mut self, delivery: DeliveryId, endpoint: EndpointKey) -> Result<(), StoreError> {
        let sql = "UPDATE deliveries SET turn = NULL WHERE id = ?1 AND turn IS NOT NULL";
        self.db.prepare_cached(sql)?.execute([delivery.0])?;
        if make_head_due(self.db, endpoint, self.now)? {
            self.after.due.push((endpoint, self.now));
        }
        Ok(())
    }
}

/// Makes the head of a FIFO endpoint due, if none of its deliveries is due or leased. Returns whether a delivery became
/// due.
pub(super) fn make_head_due(db: &Connection, endpoint: EndpointKey, now: Timestamp) -> rusqlite::Result<bool> {
    let sql = "UPDATE deliveries SET due_at = ?2 WHERE id = (SELECT id FROM deliveries WHERE turn = ?1 ORDER BY id \
               LIMIT 1) AND NOT EXISTS (SELECT 1 FROM deliveries WHERE turn = ?1 AND turn IS NOT NULL \
               AND (due_at IS NOT NULL OR lease IS NOT NULL))";
    Ok(db.prepare_cached(sql)?.execute(params![endpoint.0, now.as_millis()])? > 0)
}

//! FIFO order: the open deliveries of such an endpoint form a line (the column `turn`). One of them is due or leased.
//! The others are neither until it has ended.

use rusqlite::{Connection, params};

use super::tx::Tx;
use crate::domain::id::{DeliveryId, EndpointKey};
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;

impl Tx<'_> {
    /// Puts an open delivery that is due into its endpoint's line, where there is one. Returns whether it is its turn.
    pub fn line_up(&self, delivery: DeliveryId, endpoint: EndpointKey) -> Result<bool, StoreError> {
        if !self.cache.endpoint(endpoint).is_some_and(|row| row.fifo) {
            return Ok(true);
        }
        let sql = "SELECT 1 FROM deliveries WHERE turn = ?1 LIMIT 1";
        let waits = self.db.prepare_cached(sql)?.exists([endpoint.0])?;
        let sql = "UPDATE deliveries SET turn = ?2, due_at = iif(?3, NULL, due_at) WHERE id = ?1";
        self.db.prepare_cached(sql)?.execute(params![delivery.0, endpoint.0, waits])?;
        Ok(!waits)
    }

    /// A delivery has come to an end: the next in its line, if it was in one, has its turn.
    pub fn leave_line(&mut self, delivery: DeliveryId, endpoint: EndpointKey) -> Result<(), StoreError> {
        let sql = "UPDATE deliveries SET turn = NULL WHERE id = ?1 AND turn IS NOT NULL";
        self.db.prepare_cached(sql)?.execute([delivery.0])?;
        if pass_turn(self.db, endpoint, self.now)? {
            self.after.due.push((endpoint, self.now));
        }
        Ok(())
    }
}

/// Gives the first in the line its turn, if nobody has it. Returns whether somebody got it.
pub(super) fn pass_turn(db: &Connection, endpoint: EndpointKey, now: Timestamp) -> rusqlite::Result<bool> {
    let sql = "UPDATE deliveries SET due_at = ?2 WHERE id = (SELECT id FROM deliveries WHERE turn = ?1 ORDER BY id \
               LIMIT 1) AND NOT EXISTS (SELECT 1 FROM deliveries WHERE turn = ?1 AND turn IS NOT NULL \
               AND (due_at IS NOT NULL OR lease IS NOT NULL))";
    Ok(db.prepare_cached(sql)?.execute(params![endpoint.0, now.as_millis()])? > 0)
}

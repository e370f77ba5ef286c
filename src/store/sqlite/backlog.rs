//! Figures for operators: what is due, and what waits for the database.

use std::time::Duration;

use rusqlite::params;

use super::columns::whole;
use super::dispatch::next_due;
use super::store::Store;
use crate::domain::id::EndpointKey;
use crate::store::contract::Figures;
use crate::store::errors::StoreError;
use crate::store::inbox::Inbox;
use crate::store::numbers::sql_limit;
use crate::store::values::{Backlog, DatabaseLoad, SEARCH_TIMEOUT};

impl Figures for Store {
    async fn backlog(&self, most: usize) -> Result<Backlog, StoreError> {
        let (mut active, now) = (self.view.unlimited_endpoints(), self.shared.clock.now());
        active.sort_unstable();
        self.read_in_background_within(SEARCH_TIMEOUT, move |db| {
            // Only endpoints with deliveries in the index are looked at: most have none.
            let mut next = db.prepare_cached(
                "SELECT MIN(endpoint) FROM deliveries INDEXED BY deliveries_due \
                 WHERE endpoint > ?1 AND due_at IS NOT NULL",
            )?;
            let sql = "SELECT COUNT(*) AS due FROM (SELECT 1 FROM deliveries WHERE endpoint = ?1 \
                       AND due_at IS NOT NULL AND due_at <= ?2 LIMIT ?3)";
            let mut count = db.prepare_cached(sql)?;
            let (mut backlog, mut endpoint) = (Backlog::default(), EndpointKey(i64::MIN));
            while let Some(key) = next.query_row([endpoint.0], |row| row.get(0))? {
                endpoint = EndpointKey(key);
                if active.binary_search(&endpoint).is_err() {
                    continue;
                }
                let Some(first) = next_due(db, endpoint)?.filter(|first| *first <= now) else { continue };
                backlog.oldest = Some(backlog.oldest.map_or(first, |oldest| oldest.min(first)));
                let left = sql_limit(most - backlog.deliveries);
                let due: usize =
                    count.query_row(params![endpoint.0, now.as_millis(), left], |row| whole(row, "due"))?;
                backlog.deliveries += due;
                debug_assert!(backlog.deliveries <= most, "no more are counted than asked for");
            }
            Ok(backlog)
        })
        .await
    }

    fn database_load(&self) -> DatabaseLoad {
        DatabaseLoad {
            calls_waiting: self.writer.waiting(),
            reads_waiting: self.readers.waiting(),
            reads_in_use: self.readers.in_use(),
            node_calls_waiting: 0,
            // The writer shows what it commits.
            view_age: Duration::ZERO,
        }
    }

    fn in_memory(&self) -> usize {
        self.shared.inbox.as_ref().map_or(0, Inbox::count)
    }

    fn nodes(&self) -> usize {
        1
    }
}

//! Attempts, counted for the charts.

use std::time::Duration;

use rusqlite::params;

use super::catalog_rows::account;
use super::columns::whole;
use super::endpoints::find;
use super::store::Store;
use crate::domain::id::{AccountId, EndpointId};
use crate::domain::statistics::{Came, Count, Counted, SLOTS};
use crate::domain::time::{Timestamp, millis};
use crate::store::contract::Statistics;
use crate::store::errors::StoreError;

impl Statistics for Store {
    async fn count_attempts(&self, counts: Vec<(Counted, u64)>) -> Result<(), StoreError> {
        self.writer
            .write_hot(move |tx| {
                let mut rows = Vec::with_capacity(counts.len() * SLOTS.len());
                for (counted, attempts) in counts {
                    let Some(endpoint) = tx.cache.endpoint(counted.endpoint) else { continue };
                    let attempts = i64::try_from(attempts).expect("no process makes so many attempts");
                    let Counted { endpoint: key, came, class, .. } = counted;
                    rows.extend(counted.slots().map(|(length, slot)| {
                        (endpoint.account.0, length, slot.as_millis(), key.0, came.number(), class, attempts)
                    }));
                }
                // In the order of the table, so that each of its pages is changed once.
                rows.sort_unstable();
                let sql = "INSERT INTO attempt_counts (account, length, slot, endpoint, came, class, attempts) \
                           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (account, length, slot, endpoint, came, \
                           class) DO UPDATE SET attempts = attempts + excluded.attempts";
                let mut statement = tx.db.prepare_cached(sql)?;
                for row in rows {
                    statement.execute(row)?;
                }
                Ok(())
            })
            .await
    }

    async fn attempt_counts(
        &self,
        owner: AccountId,
        endpoint: Option<EndpointId>,
        slot: Duration,
        from: Timestamp,
    ) -> Result<Vec<Count>, StoreError> {
        self.read(Some(owner), move |db| {
            let snapshot = db.unchecked_transaction()?;
            let account = account(&snapshot, owner)?.key;
            let endpoint = endpoint.map(|id| find(&snapshot, owner, id).map(|found| found.key.0)).transpose()?;
            let sql = "SELECT slot, came, class, SUM(attempts) AS attempts FROM attempt_counts WHERE account = ?1 \
                       AND length = ?2 AND slot >= ?3 AND (?4 IS NULL OR endpoint = ?4) GROUP BY slot, came, class \
                       ORDER BY slot, came, class";
            let mut statement = snapshot.prepare_cached(sql)?;
            let mut rows = statement.query(params![account.0, millis(slot), from.as_millis(), endpoint])?;
            let mut counts = Vec::new();
            while let Some(row) = rows.next()? {
                // What only a newer server knows is not shown.
                let Some(came) = Came::from_number(row.get("came")?) else { continue };
                let (slot, class) = (Timestamp::from_millis(row.get("slot")?), row.get("class")?);
                counts.push(Count { slot, came, class, attempts: whole(row, "attempts")? });
            }
            Ok(counts)
        })
        .await
    }
}

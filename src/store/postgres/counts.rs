//! Attempts, counted for the charts.

use std::time::Duration;

use super::catalog_rows::account;
use super::endpoints::find;
use super::sql::{column, execute, get, rows, snapshot, when, whole};
use super::store::Store;
use crate::domain::id::{AccountId, EndpointId};
use crate::domain::statistics::{Came, Count, Counted, SLOTS};
use crate::domain::time::{Timestamp, millis};
use crate::store::contract::Statistics;
use crate::store::errors::StoreError;

impl Statistics for Store {
    async fn count_attempts(&self, counts: Vec<(Counted, u64)>) -> Result<(), StoreError> {
        let mut counted = Vec::with_capacity(counts.len() * SLOTS.len());
        for (what, attempts) in counts {
            let attempts = i64::try_from(attempts).expect("no process makes so many attempts");
            counted.extend(what.slots().map(|(length, slot)| (what, length, slot, attempts)));
        }
        // Each row once, and in one order everywhere, so that two nodes never wait for each other.
        let sql = "INSERT INTO attempt_counts AS c (account, length, slot, endpoint, came, class, attempts) \
                   SELECT e.account, n.length, n.slot, n.endpoint, n.came, n.class, sum(n.attempts)::bigint \
                   FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[]) \
                   AS n(endpoint, length, slot, came, class, attempts) JOIN endpoints e ON e.key = n.endpoint \
                   WHERE e.deleted_at IS NULL GROUP BY e.account, n.length, n.slot, n.endpoint, n.came, n.class \
                   ORDER BY e.account, n.length, n.slot, n.endpoint, n.came, n.class \
                   ON CONFLICT (account, length, slot, endpoint, came, class) \
                   DO UPDATE SET attempts = c.attempts + excluded.attempts";
        let parameters: super::sql::Params<'_> = &[
            &column(&counted, |(what, ..)| what.endpoint.0),
            &column(&counted, |(_, length, ..)| *length),
            &column(&counted, |(_, _, slot, _)| slot.as_millis()),
            &column(&counted, |(what, ..)| what.came.number()),
            &column(&counted, |(what, ..)| i64::from(what.class)),
            &column(&counted, |(.., attempts)| *attempts),
        ];
        execute(&self.client().await?, sql, parameters).await?;
        Ok(())
    }

    async fn attempt_counts(
        &self,
        owner: AccountId,
        endpoint: Option<EndpointId>,
        slot: Duration,
        from: Timestamp,
    ) -> Result<Vec<Count>, StoreError> {
        let mut client = self.reader(Some(owner)).await?;
        let found = async {
            let db = snapshot(&mut client).await?;
            let account = account(&db, owner).await?.key;
            let endpoint = match endpoint {
                Some(id) => Some(find(&db, owner, id).await?.key.0),
                None => None,
            };
            let sql = "SELECT slot, came, class, sum(attempts)::bigint AS attempts FROM attempt_counts \
                       WHERE account = $1 AND length = $2 AND slot >= $3 AND ($4::bigint IS NULL \
                       OR endpoint = $4::bigint) GROUP BY slot, came, class ORDER BY slot, came, class";
            let mut counts = Vec::new();
            for row in rows(&db, sql, &[&account.0, &millis(slot), &from.as_millis(), &endpoint]).await? {
                // What only a newer server knows is not shown.
                let Some(came) = Came::from_number(get(&row, "came")?) else { continue };
                let (class, attempts) = (whole(&row, "class")?, whole(&row, "attempts")?);
                counts.push(Count { slot: when(&row, "slot")?, came, class, attempts });
            }
            Ok(counts)
        }
        .await;
        client.end(found)
    }
}

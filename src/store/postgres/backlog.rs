//! Figures for operators: what is due, and what waits for the database.

use super::sql::{one, snapshot, time, whole};
use super::store::Store;
use crate::store::contract::Figures;
use crate::store::errors::StoreError;
use crate::store::inbox::Inbox;
use crate::store::numbers::sql_limit;
use crate::store::values::{Backlog, DatabaseLoad};

/// The plan does not depend on the table's statistics: the index of what is due, endpoint by endpoint.
const BY_INDEX: &str = "SET LOCAL enable_seqscan = off; SET LOCAL plan_cache_mode = force_generic_plan";

/// The due deliveries of these endpoints, each from its position on: how many, `$4` at most, and since when.
/// The oldest is looked for among all endpoints, wherever the count ends.
const BACKLOG: &str = "WITH e AS MATERIALIZED (SELECT * FROM unnest($1::bigint[], $2::bigint[]) AS e(key, first)) \
     SELECT (SELECT count(*) FROM (SELECT 1 FROM e CROSS JOIN LATERAL (SELECT due_at FROM queue WHERE endpoint = e.key \
     AND due_at >= e.first AND due_at <= $3 ORDER BY due_at LIMIT $4) AS q LIMIT $4) AS due) AS deliveries, \
     (SELECT min(q.due_at) FROM e CROSS JOIN LATERAL (SELECT due_at FROM queue WHERE endpoint = e.key \
     AND due_at >= e.first AND due_at <= $3 ORDER BY due_at LIMIT 1) AS q) AS oldest";

impl Figures for Store {
    async fn backlog(&self, most: usize) -> Result<Backlog, StoreError> {
        let (active, now) = (self.view.unlimited_endpoints(), self.now());
        // Entries of claimed deliveries stay in the index as long as somebody holds an old snapshot: see `positions`.
        let from = self.positions.measure_from(&active, now);
        let keys: Vec<i64> = active.iter().map(|key| key.0).collect();
        let limit = sql_limit(most);
        let mut client = self.reader(None).await?;
        let found = async {
            let db = snapshot(&mut client).await?;
            db.batch_execute(BY_INDEX).await?;
            let found = one(&db, BACKLOG, &[&keys, &from, &now.as_millis(), &limit]).await?;
            let deliveries: usize = whole(&found, "deliveries")?;
            debug_assert!(deliveries <= most, "no more are counted than asked for");
            Ok(Backlog { deliveries, oldest: time(&found, "oldest")? })
        }
        .await;
        client.end(found)
    }

    fn database_load(&self) -> DatabaseLoad {
        DatabaseLoad {
            calls_waiting: self.pool.status().waiting + self.reads.calls_waiting(),
            reads_waiting: self.reads.waiting(),
            reads_in_use: self.reads.in_use(),
            node_calls_waiting: self.change_feed.waiting(),
            view_age: self.freshness.age(),
        }
    }

    fn in_memory(&self) -> usize {
        self.shared.inbox.as_ref().map_or(0, Inbox::count)
    }

    fn nodes(&self) -> usize {
        self.node.share().nodes
    }
}

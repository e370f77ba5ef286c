//! Removes what cancelled replays have made and nobody has begun to send.

use std::collections::BTreeSet;

use deadpool_postgres::{GenericClient, Pool, Transaction};

use super::fifo;
use super::sql::{execute, get, rows};
use crate::domain::replay::ReplayStatus;
use crate::store::errors::StoreError;
use crate::store::inbox::Nudge;
use crate::store::shared::Shared;
use crate::store::status::literal;

/// Removes what cancelled replays have made and nobody has begun to send.
pub(super) async fn take_back(pool: &Pool, shared: &Shared, replays: BTreeSet<i64>) -> Result<(), StoreError> {
    for replay in replays {
        let mut client = pool.get().await?;
        let tx = client.transaction().await?;
        let fifo_endpoints = take_back_one(&tx, replay).await?;
        tx.commit().await?;
        let now = shared.clock.now();
        let heads = &shared.fifo_heads;
        for endpoint in fifo::make_heads_due_afterwards(&mut client, heads, &fifo_endpoints, now).await? {
            if let Some(inbox) = &shared.inbox {
                inbox.send(Nudge::Due(endpoint, now));
            }
        }
    }
    shared.replays.notify_one();
    Ok(())
}

/// Returns the FIFO endpoints of which something was removed.
pub(super) async fn take_back_one(tx: &Transaction<'_>, replay: i64) -> Result<BTreeSet<i64>, StoreError> {
    // The lock first: whether it is cancelled is known when whoever cancels it has committed.
    execute(tx, "SELECT 1 FROM replays WHERE key = $1 FOR UPDATE", &[&replay]).await?;
    let sql = concat!(
        "WITH back AS (DELETE FROM queue q USING replays r WHERE q.replay = $1 AND q.attempt = 0 \
         AND q.lease IS NULL AND r.key = $1 AND r.status = $2::bigint \
         RETURNING q.account, q.delivery, q.endpoint, q.turn AS fifo_endpoint), \
         gone AS (DELETE FROM deliveries d USING back b WHERE d.account = b.account AND d.id = b.delivery), \
         counted AS (INSERT INTO counters AS c (account, endpoint, shard, total) SELECT account, endpoint, ",
        literal!(Shard::Rows),
        ", -count(*) FROM back GROUP BY account, endpoint \
         ON CONFLICT (account, endpoint, shard) DO UPDATE SET total = c.total + excluded.total), \
         made AS (UPDATE replays SET made = made - (SELECT count(*) FROM back) WHERE key = $1 \
         AND EXISTS (SELECT 1 FROM back)) SELECT DISTINCT fifo_endpoint FROM back \
         WHERE fifo_endpoint IS NOT NULL"
    );
    let found = rows(tx, sql, &[&replay, &ReplayStatus::Cancelled.to_column()]).await?;
    found.iter().map(|row| get(row, "fifo_endpoint")).collect()
}

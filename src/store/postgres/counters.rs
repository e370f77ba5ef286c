//! The counters: deliveries of each endpoint and events of each account ([`EVENTS_COUNTER`]), and each endpoint's last
//! delivery.
//!
//! A commit appends rows to `counter_deltas`; the first node adds them to `counters` and deletes them. A counter is the
//! sum of both. No row is updated by every commit, because old versions of rows stay while somebody holds a snapshot,
//! and every statement that looks for the row walks them. For the same reason readers and the fold begin after a
//! position, `counters_folded_to`: up to there no delta is left, and entries of folded deltas may still be in the
//! indexes.

use std::sync::Weak;
use std::time::Duration;

use deadpool_postgres::{GenericClient, Pool};
use tokio::time::Instant;

use super::node::Node;
use super::sql::{count, execute, get, one};
use crate::domain::id::{AccountKey, EndpointKey};
use crate::store::errors::StoreError;
use crate::store::numbers::EVENTS_COUNTER;
use crate::store::status::literal;

/// Between two folds. A list reads the deltas of its endpoints that came since: some hundreds where each commit adds
/// one.
const FOLD_INTERVAL: Duration = Duration::from_secs(5);

/// Deltas in one statement: some 20 ms.
const FOLD_BATCH: i64 = 10_000;

/// Statements of one fold. What is left waits for the next one.
const MAX_FOLD_BATCHES: usize = 100;

/// A commit that began so long ago has ended: its statements and its pauses between them end after 5 s each
/// (`open.rs`).
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks for deltas before the position. There are none, unless a commit took longer than
/// [`COMMIT_TIMEOUT`].
const FULL_FOLD_INTERVAL: Duration = Duration::from_secs(3_600);

/// The key of the lock under which one node folds.
const FOLD_LOCK: i64 = 0x666f_6c64;

/// Deliveries of an endpoint that is not deleted.
pub(super) async fn endpoint_total(
    db: &impl GenericClient,
    account: AccountKey,
    endpoint: EndpointKey,
) -> Result<u64, StoreError> {
    let sql = "SELECT coalesce(sum(c.total), 0)::bigint AS total FROM (SELECT total FROM counters WHERE account = $1 \
               AND endpoint = $2 UNION ALL SELECT total FROM counter_deltas WHERE account = $1 AND endpoint = $2 \
               AND seq > (SELECT value FROM settings WHERE name = 'counters_folded_to')) AS c";
    count(db, sql, &[&account.0, &endpoint.0]).await
}

/// Events of an account.
pub(super) async fn events_total(db: &impl GenericClient, account: AccountKey) -> Result<u64, StoreError> {
    endpoint_total(db, account, EndpointKey(EVENTS_COUNTER)).await
}

/// Deliveries of an account's endpoints that are not deleted.
pub(super) async fn deliveries_total(db: &impl GenericClient, account: AccountKey) -> Result<u64, StoreError> {
    let sql = "SELECT coalesce(sum(c.total), 0)::bigint AS total FROM endpoints e CROSS JOIN LATERAL (SELECT total \
               FROM counters WHERE account = $1 AND endpoint = e.key UNION ALL SELECT total FROM counter_deltas \
               WHERE account = $1 AND endpoint = e.key \
               AND seq > (SELECT value FROM settings WHERE name = 'counters_folded_to')) AS c \
               WHERE e.account = $1 AND e.deleted_at IS NULL";
    count(db, sql, &[&account.0]).await
}

/// Removes the counter of an endpoint that nothing is delivered to any more.
pub(super) async fn forget_endpoint(db: &impl GenericClient, account: i64, endpoint: i64) -> Result<(), StoreError> {
    // The deltas first: this waits for a fold that has them, and then sees what it has written.
    execute(db, "DELETE FROM counter_deltas WHERE account = $1 AND endpoint = $2", &[&account, &endpoint]).await?;
    execute(db, "DELETE FROM counters WHERE account = $1 AND endpoint = $2", &[&account, &endpoint]).await?;
    Ok(())
}

/// Removes the counters of an account that has gone.
pub(super) async fn forget_account(db: &impl GenericClient, account: i64) -> Result<(), StoreError> {
    execute(db, "DELETE FROM counter_deltas WHERE account = $1", &[&account]).await?;
    execute(db, "DELETE FROM counters WHERE account = $1", &[&account]).await?;
    Ok(())
}

/// Folds for as long as the node lives, while it is the first.
pub(super) async fn fold_on(pool: Pool, node: Weak<Node>) {
    let mut ticks = tokio::time::interval(FOLD_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut folder = Folder::default();
    loop {
        ticks.tick().await;
        let Some(is_first) = node.upgrade().map(|node| node.is_first()) else { return };
        if !is_first {
            folder = Folder::default();
            continue;
        }
        if let Err(error) = folder.fold(&pool).await {
            tracing::warn!(%error, "counters were not folded and are folded later");
        }
    }
}

/// What a node remembers from one fold to the next.
#[derive(Default)]
struct Folder {
    /// A delta of this number was seen at this moment. Every commit with a smaller number had begun.
    mark: Option<(Instant, i64)>,
    /// The last look at everything.
    looked_at_all: Option<Instant>,
}

impl Folder {
    async fn fold(&mut self, pool: &Pool) -> Result<(), StoreError> {
        if self.looked_at_all.is_none_or(|at| at.elapsed() >= FULL_FOLD_INTERVAL) {
            self.looked_at_all = Some(Instant::now());
            if let Err(error) = fold_after(pool, i64::MIN).await {
                // Entries of folded deltas that an old snapshot keeps may be too many. What is new is folded all the
                // same.
                tracing::warn!(%error, "not all deltas of counters could be looked at; the next look is in an hour");
            }
        }
        let sql = "SELECT value FROM settings WHERE name = 'counters_folded_to'";
        let folded_to: i64 = get(&one(&pool.get().await?, sql, &[]).await?, "value")?;
        let reached = self.mark.filter(|(at, _)| at.elapsed() >= COMMIT_TIMEOUT);
        let Some(last) = fold_after(pool, folded_to).await? else { return Ok(()) };
        if let Some((_, seq)) = reached
            && seq > folded_to
        {
            // Every delta up to here was visible before this fold began.
            let sql = "UPDATE settings SET value = $1 WHERE name = 'counters_folded_to' AND value < $1 \
                       AND NOT EXISTS (SELECT 1 FROM counter_deltas WHERE seq > $2 AND seq <= $1)";
            execute(&pool.get().await?, sql, &[&seq, &folded_to]).await?;
        }
        if reached.is_some() || self.mark.is_none() {
            self.mark = (last > folded_to).then(|| (Instant::now(), last));
        }
        Ok(())
    }
}

/// Folds the deltas after this one. Returns the last of them; `None` where some are left.
async fn fold_after(pool: &Pool, from: i64) -> Result<Option<i64>, StoreError> {
    let mut last = from;
    for _ in 0..MAX_FOLD_BATCHES {
        let (folded, up_to) = super::time_limit::in_time(fold_batch(pool, last)).await?;
        last = last.max(up_to);
        if folded < FOLD_BATCH {
            return Ok(Some(last));
        }
    }
    Ok(None)
}

/// Returns how many deltas were folded, and the last of them.
async fn fold_batch(pool: &Pool, from: i64) -> Result<(i64, i64), StoreError> {
    let mut client = pool.get().await?;
    let tx = client.transaction().await?;
    // A node that is the first no more may still be at it.
    execute(&tx, "SELECT pg_advisory_xact_lock($1)", &[&FOLD_LOCK]).await?;
    // In the order of the keys, and into a row that nothing else updates: the fold never waits for others in a circle.
    let sql = concat!(
        "WITH folded AS (DELETE FROM counter_deltas WHERE ctid = ANY (ARRAY(SELECT ctid FROM counter_deltas \
         WHERE seq > $1 ORDER BY seq LIMIT $2)) RETURNING seq, account, endpoint, total, last_delivery_at), \
         added AS (INSERT INTO counters AS c (account, endpoint, shard, total, last_delivery_at) \
         SELECT account, endpoint, ",
        literal!(Shard::Folded),
        ", sum(total)::bigint, max(last_delivery_at) FROM folded \
         GROUP BY account, endpoint ORDER BY account, endpoint ON CONFLICT (account, endpoint, shard) DO UPDATE \
         SET total = c.total + excluded.total, \
         last_delivery_at = greatest(c.last_delivery_at, excluded.last_delivery_at)) \
         SELECT count(*) AS folded, coalesce(max(seq), $1) AS last FROM folded"
    );
    let found = one(&tx, sql, &[&from, &FOLD_BATCH]).await?;
    let folded = (get(&found, "folded")?, get(&found, "last")?);
    tx.commit().await?;
    Ok(folded)
}

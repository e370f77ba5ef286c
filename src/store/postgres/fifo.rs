//! FIFO endpoints: their deliveries are sent in the order of their acceptance.
//!
//! In the queue, the column `turn` has the FIFO endpoint of a delivery and `place` the delivery's position. Older nodes
//! that share the database use these names. At most one of a FIFO endpoint's open deliveries is due or leased. When it
//! has ended, the head becomes due: the delivery of the lowest position. Whoever adds or removes such a delivery holds
//! the endpoint's row.

use std::collections::BTreeSet;
use std::time::Duration;

use deadpool_postgres::{GenericClient, Object};
use tokio::time::Instant;

use super::sql::{execute, get, rows};
use crate::domain::id::EndpointKey;
use crate::domain::time::Timestamp;
use crate::lock::Mutex;
use crate::store::errors::StoreError;
use crate::store::shared::FifoHeads;

/// Positions by which a look begins before the head that is known: an operational event takes its position before it
/// has the endpoint's row, and may be committed a little later than others. At 300 deliveries a second for all FIFO
/// endpoints these are the positions of a second. A look walks their old entries, up to five for each: a quarter of a
/// millisecond.
const MARGIN: i64 = 300;

/// Endpoints whose head is remembered, 16 bytes for each. Beyond, all are forgotten.
const MAX_HEADS: usize = 100_000;

/// So often all are forgotten, should something have come later than [`MARGIN`] allows for.
const FORGET_INTERVAL: Duration = Duration::from_secs(600);

/// The position of a delivery that was retried by hand. It is before all others.
pub(super) const FIRST_POSITION: i64 = i64::MIN;

/// Makes the heads of endpoints due, where none of their deliveries is due or leased. Before `$3` is nothing but what
/// was retried by hand, and what the index still has of rows long gone: while somebody has an old snapshot, all of it.
const MAKE_HEADS_DUE: &str = "WITH t AS MATERIALIZED (SELECT u.* FROM unnest($2::bigint[], $3::bigint[]) \
                              AS u(fifo_endpoint, first)) \
                              UPDATE queue q SET due_at = $1 FROM t CROSS JOIN LATERAL (SELECT * FROM \
                              ((SELECT account, delivery, place FROM queue WHERE turn = t.fifo_endpoint \
                              AND place = $4 ORDER BY place, delivery LIMIT 1) UNION ALL (SELECT account, delivery, \
                              place FROM queue WHERE turn = t.fifo_endpoint AND place >= t.first \
                              ORDER BY place, delivery LIMIT 1)) AS f \
                              ORDER BY place, delivery LIMIT 1) AS h WHERE q.account = h.account \
                              AND q.delivery = h.delivery AND q.due_at IS NULL AND q.lease IS NULL \
                              AND NOT EXISTS (SELECT 1 FROM queue a WHERE a.turn = t.fifo_endpoint \
                              AND a.turn IS NOT NULL AND a.place = $4 \
                              AND (a.due_at IS NOT NULL OR a.lease IS NOT NULL)) \
                              AND NOT EXISTS (SELECT 1 FROM queue a WHERE a.turn = t.fifo_endpoint \
                              AND a.turn IS NOT NULL AND a.place >= t.first \
                              AND (a.due_at IS NOT NULL OR a.lease IS NOT NULL)) \
                              RETURNING q.endpoint, h.place";

/// The positions of the heads when this process last looked. Positions only grow: a later head is not before them.
pub(super) type KnownHeads = Mutex<FifoHeads>;

/// Nobody else changes the order of these endpoints' deliveries until the transaction ends.
pub(super) async fn lock(db: &impl GenericClient, fifo_endpoints: &BTreeSet<i64>) -> Result<(), StoreError> {
    let keys: Vec<i64> = fifo_endpoints.iter().copied().collect();
    execute(db, "SELECT 1 FROM endpoints WHERE key = ANY($1) ORDER BY key FOR NO KEY UPDATE", &[&keys]).await?;
    Ok(())
}

/// Makes the heads of these endpoints due, where none of their deliveries is due or leased. Returns the endpoints whose
/// head became due.
pub(super) async fn make_heads_due(
    db: &impl GenericClient,
    heads: &KnownHeads,
    fifo_endpoints: &BTreeSet<i64>,
    now: Timestamp,
) -> Result<Vec<EndpointKey>, StoreError> {
    if fifo_endpoints.is_empty() {
        return Ok(Vec::new());
    }
    lock(db, fifo_endpoints).await?;
    let first: Vec<i64> = with(heads, |heads| fifo_endpoints.iter().map(|key| first_of(heads, *key)).collect());
    let keys: Vec<i64> = fifo_endpoints.iter().copied().collect();
    let mut due = Vec::new();
    for row in rows(db, MAKE_HEADS_DUE, &[&now.as_millis(), &keys, &first, &FIRST_POSITION]).await? {
        let (endpoint, position): (i64, i64) = (get(&row, "endpoint")?, get(&row, "place")?);
        due.push(EndpointKey(endpoint));
        if position != FIRST_POSITION {
            with(heads, |heads| _ = heads.positions.insert(endpoint, position));
        }
    }
    debug_assert!(due.len() <= fifo_endpoints.len(), "an endpoint has one head");
    Ok(due)
}

/// From where the head of an endpoint is looked for; no position is below [`FIRST_POSITION`].
fn first_of(heads: &FifoHeads, fifo_endpoint: i64) -> i64 {
    heads.positions.get(&fifo_endpoint).map_or(FIRST_POSITION, |position| position.saturating_sub(MARGIN))
}

fn with<T>(heads: &KnownHeads, work: impl FnOnce(&mut FifoHeads) -> T) -> T {
    work(&mut heads.lock())
}

/// The same in a transaction of its own, for callers whose transaction locks other rows: two of them that waited for an
/// endpoint's row as well could wait for each other. Should it not come to it, [`make_stalled_heads_due`] makes up for
/// it.
pub(super) async fn make_heads_due_afterwards(
    db: &mut Object,
    heads: &KnownHeads,
    fifo_endpoints: &BTreeSet<i64>,
    now: Timestamp,
) -> Result<Vec<EndpointKey>, StoreError> {
    if fifo_endpoints.is_empty() {
        return Ok(Vec::new());
    }
    let tx = db.transaction().await?;
    let due = make_heads_due(&tx, heads, fifo_endpoints, now).await?;
    tx.commit().await?;
    Ok(due)
}

/// The same for every FIFO endpoint none of whose deliveries is due or leased: the process that should have made the
/// head due has died, or knew of no FIFO endpoints.
pub(super) async fn make_stalled_heads_due(
    db: &mut Object,
    heads: &KnownHeads,
    now: Timestamp,
) -> Result<Vec<EndpointKey>, StoreError> {
    let sql = "WITH RECURSIVE t AS (SELECT min(turn) AS fifo_endpoint FROM queue WHERE turn IS NOT NULL UNION ALL \
               SELECT (SELECT min(turn) FROM queue WHERE turn > t.fifo_endpoint) FROM t \
               WHERE t.fifo_endpoint IS NOT NULL) \
               SELECT t.fifo_endpoint FROM t WHERE t.fifo_endpoint IS NOT NULL AND NOT EXISTS (SELECT 1 FROM queue a \
               WHERE a.turn = t.fifo_endpoint AND a.turn IS NOT NULL \
               AND (a.due_at IS NOT NULL OR a.lease IS NOT NULL))";
    let stalled: BTreeSet<i64> =
        rows(&*db, sql, &[]).await?.iter().map(|row| get(row, "fifo_endpoint")).collect::<Result<_, _>>()?;
    // What is known of their positions may be wrong: a database that has lost commits gives positions out again.
    with(heads, |heads| {
        heads.positions.retain(|key, _| !stalled.contains(key));
        if heads.positions.len() > MAX_HEADS || heads.forgotten_at.is_none_or(|at| at.elapsed() > FORGET_INTERVAL) {
            *heads = FifoHeads { forgotten_at: Some(Instant::now()), ..FifoHeads::default() };
        }
    });
    make_heads_due_afterwards(db, heads, &stalled, now).await
}

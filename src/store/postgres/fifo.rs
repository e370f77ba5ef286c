//! FIFO order: the open deliveries of such an endpoint form a line. One of them is due or leased. The others are
//! neither until it has ended. Code that adds to a line or takes from it holds the lock of the endpoint's row.

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

/// Places by which a look begins before the first one that is known: an operational event takes its place before it has
/// the line, and may be committed a little later than others. At 300 deliveries a second in all lines these are the
/// places of a second. A look walks their old entries, up to five for each: a quarter of a millisecond.
const MARGIN: i64 = 300;

/// Lines whose first place is remembered, 16 bytes for each. Beyond, all are forgotten.
const MAX_HEADS: usize = 100_000;

/// So often all are forgotten, should something have come later than [`MARGIN`] allows for.
const FORGET_INTERVAL: Duration = Duration::from_secs(600);

/// The place of a delivery that was retried by hand. It is before all others.
pub(super) const FRONT: i64 = i64::MIN;

/// The first of each line gets its turn, if nobody has it. Before `$3` is nothing but what was retried by hand, and
/// what the index still has of rows long gone: while somebody holds an old snapshot, all of it.
const PASS: &str = "WITH t AS MATERIALIZED (SELECT u.* FROM unnest($2::bigint[], $3::bigint[]) AS u(turn, first)) \
                    UPDATE queue q SET due_at = $1 FROM t CROSS JOIN LATERAL (SELECT * FROM \
                    ((SELECT account, delivery, place FROM queue WHERE turn = t.turn AND place = $4 \
                    ORDER BY place, delivery LIMIT 1) UNION ALL (SELECT account, delivery, place FROM queue \
                    WHERE turn = t.turn AND place >= t.first ORDER BY place, delivery LIMIT 1)) AS f \
                    ORDER BY place, delivery LIMIT 1) AS h WHERE q.account = h.account AND q.delivery = h.delivery \
                    AND q.due_at IS NULL AND q.lease IS NULL \
                    AND NOT EXISTS (SELECT 1 FROM queue a WHERE a.turn = t.turn AND a.turn IS NOT NULL \
                    AND a.place = $4 AND (a.due_at IS NOT NULL OR a.lease IS NOT NULL)) \
                    AND NOT EXISTS (SELECT 1 FROM queue a WHERE a.turn = t.turn AND a.turn IS NOT NULL \
                    AND a.place >= t.first AND (a.due_at IS NOT NULL OR a.lease IS NOT NULL)) \
                    RETURNING q.endpoint, h.place";

/// The places that were first when this process last looked. Places only grow: a later first one is not before them.
pub(super) type Heads = Mutex<FifoHeads>;

/// Nobody else changes these lines until the transaction ends.
pub(super) async fn lock(db: &impl GenericClient, lines: &BTreeSet<i64>) -> Result<(), StoreError> {
    let lines: Vec<i64> = lines.iter().copied().collect();
    execute(db, "SELECT 1 FROM endpoints WHERE key = ANY($1) ORDER BY key FOR NO KEY UPDATE", &[&lines]).await?;
    Ok(())
}

/// Passes the turn on in these lines. Returns the endpoints of those who got it.
pub(super) async fn pass(
    db: &impl GenericClient,
    heads: &Heads,
    lines: &BTreeSet<i64>,
    now: Timestamp,
) -> Result<Vec<EndpointKey>, StoreError> {
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    lock(db, lines).await?;
    let first: Vec<i64> = with(heads, |heads| lines.iter().map(|line| first_of(heads, *line)).collect());
    let lines: Vec<i64> = lines.iter().copied().collect();
    let mut passed = Vec::new();
    for row in rows(db, PASS, &[&now.as_millis(), &lines, &first, &FRONT]).await? {
        let (endpoint, place): (i64, i64) = (get(&row, "endpoint")?, get(&row, "place")?);
        passed.push(EndpointKey(endpoint));
        if place != FRONT {
            with(heads, |heads| _ = heads.places.insert(endpoint, place));
        }
    }
    Ok(passed)
}

fn first_of(heads: &FifoHeads, line: i64) -> i64 {
    heads.places.get(&line).map_or(FRONT, |place| place.saturating_sub(MARGIN))
}

fn with<T>(heads: &Heads, work: impl FnOnce(&mut FifoHeads) -> T) -> T {
    work(&mut heads.lock())
}

/// The same in a transaction of its own, for those that hold other rows: waiting for an endpoint's row beside them, two
/// of them could wait for each other. Should it not come to it, [`pass_stalled`] makes up for it.
pub(super) async fn pass_afterwards(
    db: &mut Object,
    heads: &Heads,
    lines: &BTreeSet<i64>,
    now: Timestamp,
) -> Result<Vec<EndpointKey>, StoreError> {
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    let tx = db.transaction().await?;
    let passed = pass(&tx, heads, lines, now).await?;
    tx.commit().await?;
    Ok(passed)
}

/// The same in every line in which nobody has the turn: who should have passed it on has died, or knew of no lines.
pub(super) async fn pass_stalled(
    db: &mut Object,
    heads: &Heads,
    now: Timestamp,
) -> Result<Vec<EndpointKey>, StoreError> {
    let sql = "WITH RECURSIVE t AS (SELECT min(turn) AS turn FROM queue WHERE turn IS NOT NULL UNION ALL \
               SELECT (SELECT min(turn) FROM queue WHERE turn > t.turn) FROM t WHERE t.turn IS NOT NULL) \
               SELECT t.turn FROM t WHERE t.turn IS NOT NULL AND NOT EXISTS (SELECT 1 FROM queue a \
               WHERE a.turn = t.turn AND a.turn IS NOT NULL AND (a.due_at IS NOT NULL OR a.lease IS NOT NULL))";
    let stalled: BTreeSet<i64> =
        rows(&*db, sql, &[]).await?.iter().map(|row| get(row, "turn")).collect::<Result<_, _>>()?;
    // What is known of their places may be wrong: a database that has lost commits gives places out again.
    with(heads, |heads| {
        heads.places.retain(|line, _| !stalled.contains(line));
        if heads.places.len() > MAX_HEADS || heads.forgotten_at.is_none_or(|at| at.elapsed() > FORGET_INTERVAL) {
            *heads = FifoHeads { forgotten_at: Some(Instant::now()), ..FifoHeads::default() };
        }
    });
    pass_afterwards(db, heads, &stalled, now).await
}

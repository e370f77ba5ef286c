//! Deliveries in the order of their acceptance. Of those that are in a line, one has its turn: it is due or leased, and the
//! others are neither until it has come to an end. Whoever adds to a line or takes from it holds the endpoint's row.

use std::collections::BTreeSet;

use deadpool_postgres::{GenericClient, Object};

use super::{execute, get, rows};
use crate::domain::id::EndpointKey;
use crate::domain::time::Timestamp;
use crate::store::StoreError;

/// The first of each line gets its turn, if nobody has it. `t` are the lines.
const PASS: &str = "UPDATE queue q SET due_at = $1 FROM t CROSS JOIN LATERAL \
                    (SELECT w.account, w.delivery FROM queue w WHERE w.turn = t.turn ORDER BY w.place, w.delivery LIMIT 1) AS h \
                    WHERE q.account = h.account AND q.delivery = h.delivery AND q.due_at IS NULL AND q.lease IS NULL \
                    AND NOT EXISTS (SELECT 1 FROM queue a WHERE a.turn = t.turn AND a.turn IS NOT NULL \
                    AND (a.due_at IS NOT NULL OR a.lease IS NOT NULL)) RETURNING q.endpoint";

/// Nobody else changes these lines until the transaction ends.
pub(super) async fn lock(db: &impl GenericClient, lines: &BTreeSet<i64>) -> Result<(), StoreError> {
    let lines: Vec<i64> = lines.iter().copied().collect();
    execute(db, "SELECT 1 FROM endpoints WHERE key = ANY($1) ORDER BY key FOR NO KEY UPDATE", &[&lines]).await?;
    Ok(())
}

/// Passes the turn on in these lines. Returns the endpoints of those who got it.
pub(super) async fn pass(
    db: &impl GenericClient,
    lines: &BTreeSet<i64>,
    now: Timestamp,
) -> Result<Vec<EndpointKey>, StoreError> {
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    lock(db, lines).await?;
    let lines: Vec<i64> = lines.iter().copied().collect();
    let sql = format!("WITH t AS MATERIALIZED (SELECT turn FROM unnest($2::bigint[]) AS u(turn)) {PASS}");
    passed(rows(db, &sql, &[&now.as_millis(), &lines]).await?)
}

/// The same in a transaction of its own, for those that hold other rows: waiting for an endpoint's row beside them, two of
/// them could wait for each other. Should it not come to it, [`pass_stalled`] makes up for it.
pub(super) async fn pass_afterwards(
    db: &mut Object,
    lines: &BTreeSet<i64>,
    now: Timestamp,
) -> Result<Vec<EndpointKey>, StoreError> {
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    let tx = db.transaction().await?;
    let passed = pass(&tx, lines, now).await?;
    tx.commit().await?;
    Ok(passed)
}

/// The same in every line in which nobody has the turn: who should have passed it on has died, or knew of no lines.
pub(super) async fn pass_stalled(db: &mut Object, now: Timestamp) -> Result<Vec<EndpointKey>, StoreError> {
    let sql = "WITH RECURSIVE t AS (SELECT min(turn) AS turn FROM queue WHERE turn IS NOT NULL UNION ALL \
               SELECT (SELECT min(turn) FROM queue WHERE turn > t.turn) FROM t WHERE t.turn IS NOT NULL) \
               SELECT t.turn FROM t WHERE t.turn IS NOT NULL AND NOT EXISTS (SELECT 1 FROM queue a WHERE a.turn = t.turn \
               AND a.turn IS NOT NULL AND (a.due_at IS NOT NULL OR a.lease IS NOT NULL))";
    let stalled = rows(&*db, sql, &[]).await?.iter().map(|row| get(row, "turn")).collect::<Result<_, _>>()?;
    pass_afterwards(db, &stalled, now).await
}

fn passed(rows: Vec<tokio_postgres::Row>) -> Result<Vec<EndpointKey>, StoreError> {
    rows.iter().map(|row| Ok(EndpointKey(get(row, "endpoint")?))).collect()
}

//! Leases of deliveries: given back, found again where memory has lost them, and voided at the start.

use std::collections::BTreeSet;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::delivery_index;
use super::fifo::make_head_due;
use super::tx::Tx;
use super::writer_cache::EndpointRow;
use crate::domain::id::{DeliveryId, EndpointKey};
use crate::domain::replay::ReplayStatus;
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::inbox::Inbox;
use crate::store::numbers::row_count;
use crate::store::status::literal;

/// After a delivery was given back, its endpoint is looked at again.
const RELEASED_DELAY: Duration = Duration::from_secs(1);

/// Gives back deliveries that are leased to this process; those with a time are due since then, the others at once.
/// Returns those that were leased.
pub(super) fn release(
    tx: &mut Tx<'_>,
    deliveries: impl Iterator<Item = (DeliveryId, Option<Timestamp>)>,
) -> Result<Vec<DeliveryId>, StoreError> {
    let sql = "UPDATE deliveries SET lease = NULL, due_at = ?2 WHERE id = ?1 AND lease = ?3 \
               RETURNING endpoint, replay";
    let (mut replays, mut given_back) = (BTreeSet::new(), Vec::new());
    for (id, due_at) in deliveries {
        // The clock may have been set back.
        let due_at = due_at.map_or(tx.now, |at| at.min(tx.now));
        let mut statement = tx.db.prepare_cached(sql)?;
        let mut rows = statement.query(params![id.0, due_at.as_millis(), tx.lease])?;
        while let Some(row) = rows.next()? {
            tx.forget_lease(id)?;
            given_back.push(id);
            let endpoint = EndpointKey(row.get(0)?);
            replays.extend(row.get::<_, Option<i64>>(1)?.map(|replay| (replay, endpoint)));
            // It may have become active again while its deliveries were on their way back. A little later:
            // what made this one come back may still be so.
            if tx.cache.endpoint(endpoint).is_some_and(EndpointRow::can_receive) {
                tx.after.due.push((endpoint, tx.now.plus(RELEASED_DELAY)));
            }
        }
    }
    let mut taken_back = Vec::new();
    for (replay, endpoint) in replays {
        taken_back.push((endpoint, take_back(tx, replay)?));
    }
    for (endpoint, _) in &taken_back {
        if make_head_due(tx.db, *endpoint, tx.now)? {
            tx.after.due.push((*endpoint, tx.now));
        }
    }
    for (endpoint, count) in taken_back {
        tx.cache.gone(endpoint, count);
    }
    Ok(given_back)
}

/// The deliveries with a lease. `CROSS JOIN` keeps the order of the loops: without it SQLite reads all deliveries and
/// looks each up among the listed leases, which stops the writer for 0.6 s where there are 10,000,000 of them.
const LEASED: &str = "SELECT d.id FROM listed_leases l CROSS JOIN deliveries d ON d.id = l.id WHERE d.lease = ?1 \
                      UNION ALL SELECT id FROM recent_deliveries WHERE lease = ?1";

/// Deliveries that are leased to this process and that its memory does not hold. Outside of a transaction there are
/// none, unless a write came to something of which its caller was told nothing. What an engine that has stopped does
/// not hold any more is not lost: the next start frees it.
pub(super) fn lost_leases(db: &Connection, lease: i64, inbox: &Inbox) -> Result<Vec<DeliveryId>, StoreError> {
    let mut lost = Vec::new();
    if inbox.is_closed() {
        return Ok(lost);
    }
    let mut statement = db.prepare_cached(LEASED)?;
    let mut rows = statement.query([lease])?;
    while let Some(row) = rows.next()? {
        let id = DeliveryId(row.get(0)?);
        if !inbox.in_memory().contains(id) {
            lost.push(id);
        }
    }
    Ok(lost)
}

/// Makes lost deliveries due again.
pub(super) fn free_lost(tx: &mut Tx<'_>, lost: &[DeliveryId]) -> Result<(), StoreError> {
    tracing::warn!(deliveries = lost.len(), "leased deliveries were not in memory: they are due again");
    release(tx, lost.iter().map(|id| (*id, None)))?;
    Ok(())
}

/// Removes what a replay has made and nobody has begun to send, if it was cancelled. Returns how many that were.
pub(super) fn take_back(tx: &mut Tx<'_>, replay: i64) -> Result<i64, StoreError> {
    let sql = "SELECT 1 FROM replays WHERE key = ?1 AND status = ?2";
    if !tx.db.prepare_cached(sql)?.exists([replay, ReplayStatus::Cancelled.to_column()])? {
        return Ok(0);
    }
    // What goes is counted as listed.
    delivery_index::flush_recent(tx)?;
    Ok(remove_unsent(tx.db, replay)?)
}

fn remove_unsent(db: &Connection, replay: i64) -> rusqlite::Result<i64> {
    let sql = concat!(
        "DELETE FROM deliveries WHERE replay = ?1 AND status = ",
        literal!(DeliveryStatus::Pending),
        " AND lease IS NULL AND (SELECT status FROM replays WHERE key = ?1) = ?2"
    );
    let cancelled = ReplayStatus::Cancelled.to_column();
    let unsent = row_count(db.prepare_cached(sql)?.execute([replay, cancelled])?);
    db.prepare_cached("UPDATE replays SET made = made - ?2 WHERE key = ?1")?.execute([replay, unsent])?;
    Ok(unsent)
}

/// Frees what an earlier process had leased when it ended, and takes a lease number of its own.
pub(super) fn void_leases(db: &Connection, now: Timestamp) -> rusqlite::Result<i64> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    let freed = delivery_index::void_leases(db, now)?;
    // A replay that was cancelled while its deliveries were in memory.
    let sql = concat!(
        "SELECT DISTINCT r.key, r.endpoint FROM replays r JOIN deliveries d ON d.replay = r.key AND d.status = ",
        literal!(DeliveryStatus::Pending),
        " WHERE r.status = ?1"
    );
    let cancelled: Vec<(i64, i64)> = db
        .prepare(sql)?
        .query_map([ReplayStatus::Cancelled.to_column()], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    if !cancelled.is_empty() {
        delivery_index::write_lists(db)?;
    }
    for (replay, endpoint) in cancelled {
        let taken_back = remove_unsent(db, replay)?;
        let sql = "UPDATE endpoint_counters SET deliveries_total = deliveries_total - ?2 WHERE endpoint = ?1";
        db.execute(sql, [endpoint, taken_back])?;
    }
    let fifo_endpoints: Vec<i64> = db
        .prepare("SELECT DISTINCT turn FROM deliveries WHERE turn IS NOT NULL")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for endpoint in fifo_endpoints {
        make_head_due(db, EndpointKey(endpoint), now)?;
    }
    let sql = "INSERT INTO settings (name, value) VALUES ('lease', 1) \
               ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value";
    let lease = db.query_row(sql, [], |row| row.get(0))?;
    db.execute_batch("COMMIT")?;
    if freed > 0 {
        tracing::info!(deliveries = freed, "took over deliveries that an earlier process had not finished");
    }
    Ok(lease)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::store::sqlite::migrate::migrate;

    #[test]
    fn a_search_for_lost_leases_reads_no_delivery_that_is_listed_and_not_leased() {
        let mut db = Connection::open_in_memory().expect("opens");
        migrate(&mut db, &ManualClock::at(Timestamp::from_millis(0))).expect("migrated");
        let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {LEASED}")).expect("prepared");
        let plan = statement.query_map([1], |row| row.get(3)).expect("a plan");
        let plan: Vec<String> = plan.collect::<Result<_, _>>().expect("read");
        let scans: Vec<&String> = plan.iter().filter(|step| step.starts_with("SCAN ")).collect();
        assert_eq!(scans, ["SCAN l"], "{plan:?}");
    }
}

//! Housekeeping: what is old or deleted goes in small steps, and the log moves into the file beside the writer.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use super::Store;
use super::writer::Tx;
use crate::domain::delivery::DeliveryStatus;
use crate::domain::id::{DeliveryId, EndpointKey, EventId};
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::values::KEPT_ANSWER_TTL;

/// Rows that one step removes: short enough that no publisher notices.
const STEP: i64 = 500;

/// Transactions after which the log is moved into the file. While it is synced, commits wait for the same disk: with 200
/// the 99th percentile of a 202 at 20,000 events/s was twice as long, with 50 accepting took a tenth more.
const CHECKPOINT_EVERY: u32 = 100;

/// An idle log is moved into the file after this long.
const CHECKPOINT_IDLE: Duration = Duration::from_secs(2);

/// Pages of the log (4 KiB each) from which on writers wait until it is empty, so that it cannot grow without end.
const LOG_LIMIT_PAGES: i64 = 32_768;

/// After writers have waited in vain for the log to empty, they are left alone for this long.
const RESTART_AGAIN: Duration = Duration::from_secs(30);

impl Store {
    /// Removes a step of what deleted endpoints and accounts left behind. Returns whether there may be more.
    pub async fn purge_deleted(&self) -> Result<bool, StoreError> {
        self.writer.write(purge_deleted).await
    }

    /// Removes a step of finished deliveries made before `cutoff` and their events, from `after` on. Returns where the
    /// next step goes on, or `None` at the end.
    pub async fn purge_old(&self, cutoff: Timestamp, after: DeliveryId) -> Result<Option<DeliveryId>, StoreError> {
        self.writer.write(move |tx| purge_old(tx, cutoff, after)).await
    }

    /// Forgets a step of replays that were finished and of events that were missed before `cutoff`. Returns whether
    /// there may be more.
    pub async fn purge_old_replays(&self, cutoff: Timestamp) -> Result<bool, StoreError> {
        self.writer
            .write(move |tx| {
                let sql = "DELETE FROM missed WHERE (endpoint, type, event) IN \
                           (SELECT endpoint, type, event FROM missed WHERE event < ?1 LIMIT ?2)";
                let event = EventId::first_at(cutoff).0;
                let missed = tx.db.prepare_cached(sql)?.execute(params![event, STEP])?;
                let sql = "DELETE FROM replays WHERE key IN (SELECT key FROM replays WHERE finished_at < ?1 LIMIT ?2)";
                let replays = tx.db.prepare_cached(sql)?.execute([cutoff.as_millis(), STEP])?;
                Ok(missed + replays > 0)
            })
            .await
    }

    /// Forgets a step of kept answers whose time is over. Returns whether there may be more.
    pub async fn purge_kept_answers(&self) -> Result<bool, StoreError> {
        self.writer
            .write(|tx| {
                let sql = "DELETE FROM kept_answers WHERE (owner, path, key) IN \
                           (SELECT owner, path, key FROM kept_answers WHERE created_at < ?1 LIMIT ?2)";
                let before = tx.now.minus(KEPT_ANSWER_TTL).as_millis();
                Ok(tx.db.prepare_cached(sql)?.execute(params![before, STEP])? > 0)
            })
            .await
    }
}

fn purge_deleted(tx: &mut Tx<'_>) -> Result<bool, StoreError> {
    let sql = "SELECT key FROM endpoints WHERE deleted_at IS NOT NULL LIMIT 1";
    if let Some(endpoint) = first(tx.db, sql)? {
        let sql = "SELECT id, event FROM deliveries WHERE endpoint = ?1 ORDER BY id LIMIT ?2";
        let mut statement = tx.db.prepare_cached(sql)?;
        let rows = statement.query_map(params![endpoint, STEP], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
        for id in &rows {
            delete_delivery(tx.db, *id)?;
        }
        let sql = "DELETE FROM missed WHERE (endpoint, type, event) IN \
                   (SELECT endpoint, type, event FROM missed WHERE endpoint = ?1 LIMIT ?2)";
        let missed = tx.db.prepare_cached(sql)?.execute(params![endpoint, STEP])?;
        if rows.is_empty() && missed == 0 {
            tx.db.prepare_cached("DELETE FROM replays WHERE endpoint = ?1")?.execute([endpoint])?;
            tx.db.prepare_cached("DELETE FROM endpoints WHERE key = ?1")?.execute([endpoint])?;
        }
        return Ok(true);
    }
    let sql = "SELECT key FROM accounts WHERE deleted_at IS NOT NULL LIMIT 1";
    if let Some(account) = first(tx.db, sql)? {
        let sql = "SELECT id FROM events WHERE account = ?1 LIMIT ?2";
        let mut statement = tx.db.prepare_cached(sql)?;
        let rows = statement.query_map(params![account, STEP], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
        for id in &rows {
            delete_event(tx.db, *id)?;
        }
        if rows.is_empty() {
            let sql = "DELETE FROM audit_log WHERE key IN (SELECT key FROM audit_log WHERE account = ?1 LIMIT ?2)";
            if tx.db.prepare_cached(sql)?.execute(params![account, STEP])? > 0 {
                return Ok(true);
            }
            tx.db.prepare_cached("DELETE FROM accounts WHERE key = ?1")?.execute([account])?;
        }
        return Ok(true);
    }
    Ok(false)
}

fn purge_old(tx: &mut Tx<'_>, cutoff: Timestamp, after: DeliveryId) -> Result<Option<DeliveryId>, StoreError> {
    // Events and deliveries share one sequence: both ends of the step are ids.
    let end = DeliveryId::first_at(cutoff).0;
    let sql = "SELECT id, endpoint, status FROM deliveries WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT ?3";
    let mut statement = tx.db.prepare_cached(sql)?;
    let rows = statement
        .query_map(params![after.0, end, STEP], |row| Ok((row.get(0)?, EndpointKey(row.get(1)?), row.get(2)?)))?
        .collect::<Result<Vec<(i64, EndpointKey, i64)>, _>>()?;
    let full = i64::try_from(rows.len()).unwrap_or(STEP) == STEP;
    let up_to = if full { rows.last().map_or(end, |row| row.0) } else { end };
    let mut gone = Vec::new();
    for (id, endpoint, status) in rows {
        if DeliveryStatus::from_column(status).is_some_and(|status| !status.is_open()) {
            delete_delivery(tx.db, id)?;
            gone.push(endpoint);
        }
    }
    let sql = "SELECT e.id, e.account, e.type FROM events e WHERE e.id > ?1 AND e.id < ?2 AND NOT EXISTS \
               (SELECT 1 FROM deliveries d WHERE d.id > e.id AND d.id <= e.id + e.deliveries AND d.event = e.id) \
               AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event = e.id AND d.replay IS NOT NULL) ORDER BY e.id LIMIT ?3";
    let mut statement = tx.db.prepare_cached(sql)?;
    // One event before the step too: the last of its deliveries may have gone just now.
    let begin = after.0.saturating_sub(i64::from(u16::MAX));
    let events = statement
        .query_map(params![begin, up_to, STEP], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<Vec<(i64, i64, String)>, _>>()?;
    // More events than one step removes: the next one looks at the same stretch again.
    let again = i64::try_from(events.len()).unwrap_or(STEP) == STEP;
    for (id, account, event_type) in events {
        delete_event(tx.db, id)?;
        if event_type != crate::domain::event::TEST_TYPE {
            let sql = "UPDATE accounts SET events_total = events_total - 1 WHERE key = ?1";
            tx.db.prepare_cached(sql)?.execute([account])?;
        }
    }
    // The book is not rolled back with a savepoint: it is told when nothing can fail any more.
    for endpoint in gone {
        tx.book.count_delivery(endpoint, -1);
    }
    Ok(if again { Some(after) } else { full.then_some(DeliveryId(up_to)) })
}

fn first(db: &Connection, sql: &str) -> Result<Option<i64>, StoreError> {
    Ok(db.prepare_cached(sql)?.query_map([], |row| row.get(0))?.next().transpose()?)
}

fn delete_delivery(db: &Connection, id: i64) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM attempts WHERE delivery = ?1")?.execute([id])?;
    db.prepare_cached("DELETE FROM deliveries WHERE id = ?1")?.execute([id])?;
    Ok(())
}

fn delete_event(db: &Connection, id: i64) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM payloads WHERE event = ?1")?.execute([id])?;
    db.prepare_cached("DELETE FROM events WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// The writer's way to wake the checkpointer.
pub(super) struct Checkpoints {
    wake: SyncSender<()>,
    since: u32,
}

impl Checkpoints {
    /// A transaction was committed.
    pub fn wrote(&mut self) {
        self.since += 1;
        if self.since >= CHECKPOINT_EVERY && self.wake.try_send(()).is_ok() {
            self.since = 0;
        }
    }
}

/// Moves the log into the file from a thread and a connection of its own: in the writer it would hold up commits.
pub(super) fn start_checkpointer(path: &Path) -> Result<Checkpoints, StoreError> {
    let connection = super::open::checkpointer(path)?;
    let (wake, woken) = sync_channel(1);
    std::thread::Builder::new()
        .name("store-checkpoint".into())
        .spawn(move || run_checkpointer(&connection, &woken))
        .map_err(|e| StoreError::Unavailable(e.to_string()))?;
    Ok(Checkpoints { wake, since: 0 })
}

fn run_checkpointer(connection: &Connection, woken: &Receiver<()>) {
    let mut idle = false;
    let mut blocked_until = None;
    loop {
        match woken.recv_timeout(CHECKPOINT_IDLE) {
            // Once after the load is over, and then not again until there is something.
            Err(RecvTimeoutError::Timeout) if idle => continue,
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        idle = checkpoint(connection, "PASSIVE").is_some_and(|(log, moved)| {
            // Somebody who reads for long (a backup) would hold up every writer at each try.
            let blocked = blocked_until.is_some_and(|until| Instant::now() < until);
            if log > LOG_LIMIT_PAGES
                && !blocked
                && checkpoint(connection, "RESTART").is_none_or(|(log, moved)| log != moved)
            {
                blocked_until = Some(Instant::now() + RESTART_AGAIN);
            }
            log == moved
        });
    }
    checkpoint(connection, "TRUNCATE");
}

/// Pages in the log and pages moved.
fn checkpoint(connection: &Connection, mode: &str) -> Option<(i64, i64)> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    connection
        .query_row(&sql, [], |row| Ok((row.get(1)?, row.get(2)?)))
        .inspect_err(|error| tracing::warn!(%error, "the log could not be moved into the database file"))
        .ok()
}

//! Housekeeping: what is old or deleted goes in small steps.

use std::time::Duration;

use rusqlite::{Connection, params};

use super::catalog_rows::own_retention;
use super::delivery_index::flush_recent;
use super::id_times;
use super::store::Store;
use super::tx::Tx;
use crate::domain::event::TEST_TYPE;
use crate::domain::id::{AccountKey, DeliveryId, EndpointKey};
use crate::domain::retention::{OwnRetention, Retention};
use crate::domain::statistics::SLOTS;
use crate::domain::time::{Timestamp, millis};
use crate::store::contract::Housekeeping;
use crate::store::errors::StoreError;
use crate::store::status::{is_finished, is_open};
use crate::store::values::{PurgePart, PurgePosition, PurgeRound, STORED_REPLY_TTL, cut};

/// Rows that one step removes: short enough that no publisher notices.
const STEP: i64 = 500;

/// Rows that one step looks at, on a reader: what stays (deliveries of a paused endpoint) is skipped in some
/// milliseconds.
const LOOK: i64 = 2_000;

/// Accounts that one step looks at.
const ACCOUNTS: i64 = 100;

impl Housekeeping for Store {
    async fn purge_deleted(&self) -> Result<bool, StoreError> {
        self.writer.write(purge_deleted).await
    }

    async fn make_days(&self, _: Timestamp) -> Result<(), StoreError> {
        // Differs by necessity: the history has no partitions.
        Ok(())
    }

    async fn begin_purge(&self, _: Retention, _: Timestamp) -> Result<Option<PurgeRound>, StoreError> {
        // Differs by necessity: there are no days to drop. What there is to remove is looked for in the lists.
        self.writer.write(flush_recent).await?;
        Ok(Some(PurgeRound { position: PurgePosition::start(true), failed_days: 0 }))
    }

    async fn purge_old(
        &self,
        retention: Retention,
        now: Timestamp,
        from: PurgePosition,
    ) -> Result<Option<PurgePosition>, StoreError> {
        // On a reader: most of what is looked at stays.
        let (step, next) = self.read_in_background(move |db| what_is_old(db, retention, now, from)).await?;
        let Some(step) = step else { return Ok(next) };
        match (self.writer.write(move |tx| purge_step(tx, &step)).await, next) {
            (Ok(()), next) => Ok(next),
            // The next step begins with this account, and tells of it.
            (Err(_), Some(at)) if at.account != from.account => Ok(Some(from.in_account(at.account))),
            (Err(error), _) => Err(error),
        }
    }

    async fn oldest_kept(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read_in_background(|db| {
            let oldest = first(db, "SELECT id FROM events ORDER BY id LIMIT 1")?;
            let times = id_times::read(db)?;
            Ok(oldest.map(|id| times.of(id)))
        })
        .await
    }

    async fn purge_old_replays(&self, retention: Retention, now: Timestamp) -> Result<bool, StoreError> {
        self.writer
            .write(move |tx| {
                let sql =
                    "SELECT DISTINCT retention_deliveries, retention_payloads FROM accounts WHERE deleted_at IS NULL";
                let own: Vec<OwnRetention> =
                    tx.db.prepare_cached(sql)?.query_map([], own_retention)?.collect::<Result<_, _>>()?;
                let longest = own.into_iter().fold(retention, |longest, own| longest.longer(retention.of(own)));
                let Some(oldest) = longest.deliveries else { return Ok(false) };
                let cutoff = now.minus(oldest);
                let sql = "DELETE FROM missed WHERE (endpoint, type, event) IN \
                           (SELECT endpoint, type, event FROM missed WHERE event < ?1 LIMIT ?2)";
                let event = tx.ids.times().first_at(cutoff);
                let missed = tx.db.prepare_cached(sql)?.execute(params![event, STEP])?;
                let sql = "DELETE FROM replays WHERE key IN (SELECT key FROM replays WHERE finished_at < ?1 LIMIT ?2)";
                let replays = tx.db.prepare_cached(sql)?.execute([cutoff.as_millis(), STEP])?;
                Ok(missed + replays > 0)
            })
            .await
    }

    async fn purge_stored_replies(&self) -> Result<bool, StoreError> {
        self.writer
            .write(|tx| {
                let sql = "DELETE FROM kept_answers WHERE (owner, path, key) IN \
                           (SELECT owner, path, key FROM kept_answers WHERE created_at < ?1 LIMIT ?2)";
                let before = tx.now.minus(STORED_REPLY_TTL).as_millis();
                Ok(tx.db.prepare_cached(sql)?.execute(params![before, STEP])? > 0)
            })
            .await
    }

    async fn purge_audit_log(&self, cutoff: Timestamp) -> Result<bool, StoreError> {
        self.writer
            .write(move |tx| {
                let sql = "DELETE FROM audit_log WHERE key IN \
                           (SELECT key FROM audit_log WHERE created_at < ?1 LIMIT ?2)";
                Ok(tx.db.prepare_cached(sql)?.execute(params![cutoff.as_millis(), STEP])? > 0)
            })
            .await
    }

    async fn purge_sessions(&self, idle: Duration) -> Result<bool, StoreError> {
        self.writer
            .write(move |tx| {
                let now = tx.now.as_millis();
                let sql = "DELETE FROM sessions WHERE token IN \
                           (SELECT token FROM sessions WHERE expires_at <= ?1 OR seen_at <= ?2 LIMIT ?3)";
                let unused = tx.now.minus(idle).as_millis();
                let sessions = tx.db.prepare_cached(sql)?.execute(params![now, unused, STEP])?;
                let sql = "DELETE FROM portal_links WHERE token IN \
                           (SELECT token FROM portal_links WHERE expires_at <= ?1 LIMIT ?2)";
                let links = tx.db.prepare_cached(sql)?.execute(params![now, STEP])?;
                Ok(sessions + links > 0)
            })
            .await
    }

    async fn purge_attempt_counts(&self, now: Timestamp) -> Result<bool, StoreError> {
        self.writer
            .write(move |tx| {
                let sql = "DELETE FROM attempt_counts WHERE (account, length, slot, endpoint, came, class) IN \
                           (SELECT account, length, slot, endpoint, came, class FROM attempt_counts \
                           WHERE length = ?1 AND slot < ?2 LIMIT ?3)";
                let mut gone = 0;
                for (length, kept_for) in SLOTS {
                    let before = now.minus(kept_for).as_millis();
                    gone += tx.db.prepare_cached(sql)?.execute(params![millis(length), before, STEP])?;
                }
                Ok(gone > 0)
            })
            .await
    }
}

fn purge_deleted(tx: &mut Tx<'_>) -> Result<bool, StoreError> {
    let sql = "SELECT key FROM endpoints WHERE deleted_at IS NOT NULL LIMIT 1";
    if let Some(endpoint) = first(tx.db, sql)? {
        flush_recent(tx)?;
        let sql = "SELECT id FROM delivery_lists WHERE endpoint = ?1 LIMIT ?2";
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
            tx.db.prepare_cached("DELETE FROM endpoint_counters WHERE endpoint = ?1")?.execute([endpoint])?;
            tx.db.prepare_cached("DELETE FROM limited_attempts WHERE endpoint = ?1")?.execute([endpoint])?;
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
            let sql = "DELETE FROM attempt_counts WHERE (account, length, slot, endpoint, came, class) IN \
                       (SELECT account, length, slot, endpoint, came, class FROM attempt_counts WHERE account = ?1 \
                       LIMIT ?2)";
            if tx.db.prepare_cached(sql)?.execute(params![account, STEP])? > 0 {
                return Ok(true);
            }
            // What a server of the last version has left, which does not know of them.
            super::users::forget(tx.db, AccountKey(account))?;
            tx.db.prepare_cached("DELETE FROM accounts WHERE key = ?1")?.execute([account])?;
        }
        return Ok(true);
    }
    Ok(false)
}

/// What one step removes.
enum Old {
    Deliveries(Vec<i64>),
    Events(Vec<i64>),
    /// Bodies of an account's events, and the last event that was looked at.
    Payloads(i64, Vec<i64>, i64),
}

/// What the next step removes, and where the one after it goes on; `None` at the end.
fn what_is_old(
    db: &Connection,
    retention: Retention,
    now: Timestamp,
    from: PurgePosition,
) -> Result<(Option<Old>, Option<PurgePosition>), StoreError> {
    let sql = "SELECT key, retention_deliveries, retention_payloads, payloads_gone FROM accounts \
               WHERE deleted_at IS NULL AND key >= ?1 ORDER BY key LIMIT ?2";
    let mut statement = db.prepare_cached(sql)?;
    let accounts = statement
        .query_map([from.account, ACCOUNTS], |row| Ok((row.get(0)?, own_retention(row)?, row.get(3)?)))?
        .collect::<Result<Vec<(i64, OwnRetention, i64)>, _>>()?;
    let mut next = None;
    for (account, own, gone) in accounts {
        let (rows_since, bodies_since) = retention.of(own).since(now);
        match old_of(db, from.in_account(account), rows_since, bodies_since.map(|since| (gone, since))) {
            Ok(None) => {}
            Ok(Some((old, at))) => return Ok((Some(old), Some(at))),
            Err(_) if account != from.account => return Ok((None, Some(from.in_account(account)))),
            Err(error) => return Err(error),
        }
        next = Some(from.in_account(account + 1));
    }
    Ok((None, next))
}

/// What a stretch of rows has that may go, and where the next stretch begins; `None` where there are no more rows.
type Stretch = Option<(Old, PurgePosition)>;

/// What an account need not keep: rows from before `rows_since`, bodies after an event and from before a time.
fn old_of(
    db: &Connection,
    from: PurgePosition,
    rows_since: Option<Timestamp>,
    bodies: Option<(i64, Timestamp)>,
) -> Result<Stretch, StoreError> {
    let mut part = Some(from);
    while let Some(at) = part {
        let found = match (at.part, rows_since, bodies) {
            (PurgePart::Deliveries, Some(since), _) => old_deliveries(db, at, since)?,
            (PurgePart::Events, Some(since), _) => old_events(db, at, since)?,
            (PurgePart::Payloads, _, Some((gone, since))) => old_payloads(db, at, gone, since)?,
            _ => None,
        };
        if found.is_some() {
            return Ok(found);
        }
        part = at.next_part();
    }
    Ok(None)
}

/// An account's finished deliveries, endpoint by endpoint.
fn old_deliveries(db: &Connection, from: PurgePosition, since: Timestamp) -> Result<Stretch, StoreError> {
    let (end, mut at) = (id_times::read(db)?.first_at(since), from);
    loop {
        let sql = concat!(
            "SELECT id, ",
            is_finished!("status"),
            " FROM delivery_lists WHERE endpoint = ?1 AND id > ?2 AND id < ?3 ORDER BY id LIMIT ?4"
        );
        let (go, last) = look(db, sql, [at.endpoint, at.after, end, LOOK])?;
        if let Some(last) = last {
            return Ok(Some((Old::Deliveries(go), at.after(last))));
        }
        let sql = "SELECT key FROM endpoints WHERE account = ?1 AND key > ?2 ORDER BY key LIMIT 1";
        let mut statement = db.prepare_cached(sql)?;
        let next: Option<i64> = statement.query_map([at.account, at.endpoint], |row| row.get(0))?.next().transpose()?;
        let Some(endpoint) = next else { return Ok(None) };
        at = PurgePosition { endpoint, after: 0, ..at };
    }
}

/// An account's events that no delivery is of.
fn old_events(db: &Connection, at: PurgePosition, since: Timestamp) -> Result<Stretch, StoreError> {
    let sql = format!(
        "SELECT e.id, {UNREFERRED} FROM events e WHERE e.account = ?1 AND e.id > ?2 AND e.id < ?3 ORDER BY e.id \
         LIMIT ?4"
    );
    let (go, last) = look(db, &sql, [at.account, at.after, id_times::read(db)?.first_at(since), LOOK])?;
    Ok(last.map(|last| (Old::Events(go), at.after(last))))
}

/// Bodies of an account's events after `gone`.
fn old_payloads(db: &Connection, at: PurgePosition, gone: i64, since: Timestamp) -> Result<Stretch, StoreError> {
    let sql = "SELECT id, 1 FROM events WHERE account = ?1 AND id > ?2 AND id < ?3 ORDER BY id LIMIT ?4";
    let end = id_times::read(db)?.first_at(since);
    let (events, last) = look(db, sql, [at.account, gone.max(at.after), end, STEP])?;
    Ok(last.map(|last| (Old::Payloads(at.account, events, last), at.after(last))))
}

/// That no delivery is of the event `e`: those of its acceptance follow it, those of replays are found by the event.
const UNREFERRED: &str = "(NOT EXISTS \
                          (SELECT 1 FROM deliveries d WHERE d.id > e.id AND d.id <= e.id + e.deliveries \
                          AND d.event = e.id) AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event = e.id \
                          AND d.replay IS NOT NULL))";

/// Looks at the next rows: which of them go, and the last that was looked at.
fn look(db: &Connection, sql: &str, parameters: [i64; 4]) -> Result<(Vec<i64>, Option<i64>), StoreError> {
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(parameters, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let looked_at = rows.collect::<Result<Vec<(i64, bool)>, _>>()?;
    Ok(cut(looked_at, usize::try_from(STEP).expect("a small number")))
}

/// Removes what was found, as far as it is still so.
fn purge_step(tx: &mut Tx<'_>, step: &Old) -> Result<(), StoreError> {
    let mut gone = Vec::new();
    match step {
        Old::Deliveries(deliveries) => {
            for id in deliveries {
                let sql =
                    concat!("DELETE FROM deliveries WHERE id = ?1 AND ", is_finished!("status"), " RETURNING endpoint");
                let endpoint: Option<i64> = first_of(tx.db, sql, *id)?;
                if let Some(endpoint) = endpoint {
                    tx.db.prepare_cached("DELETE FROM attempts WHERE delivery = ?1")?.execute([id])?;
                    gone.push(EndpointKey(endpoint));
                }
            }
        }
        Old::Events(events) => {
            for id in events {
                let still = first_of::<i64>(
                    tx.db,
                    &format!("SELECT e.id FROM events e WHERE {UNREFERRED} AND e.id = ?1"),
                    *id,
                )?
                .is_some();
                let sql = format!("SELECT account FROM events WHERE id = ?1 AND type <> '{TEST_TYPE}'");
                let account: Option<i64> = first_of(tx.db, &sql, *id)?;
                if !still {
                    continue;
                }
                delete_event(tx.db, *id)?;
                let sql = "UPDATE accounts SET events_total = events_total - 1 WHERE key = ?1";
                tx.db.prepare_cached(sql)?.execute([account])?;
            }
        }
        Old::Payloads(account, events, last) => {
            for id in events {
                drop_body(tx.db, *id)?;
            }
            let sql = "UPDATE accounts SET payloads_gone = MAX(payloads_gone, ?2) WHERE key = ?1";
            tx.db.prepare_cached(sql)?.execute([account, last])?;
        }
    }
    // The cache is not rolled back with a savepoint: it is told when nothing can fail any more.
    for endpoint in gone {
        tx.cache.gone(endpoint, 1);
    }
    Ok(())
}

/// Removes an event's body. What is still to be sent keeps it.
fn drop_body(db: &Connection, event: i64) -> Result<(), StoreError> {
    let sql = concat!(
        "DELETE FROM payloads WHERE event = ?1 AND NOT EXISTS (SELECT 1 FROM events e JOIN deliveries d ON d.id > \
         e.id AND d.id <= e.id + e.deliveries AND d.event = e.id WHERE e.id = ?1 AND ",
        is_open!("d.status"),
        ") AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event = ?1 AND d.replay IS NOT NULL AND ",
        is_open!("d.status"),
        ")"
    );
    db.prepare_cached(sql)?.execute([event])?;
    Ok(())
}

/// What has come to an end long after it was accepted may have outlived the time of its body, which was kept for it
/// alone.
pub(super) fn drop_spent_body(db: &Connection, delivery: DeliveryId) -> Result<(), StoreError> {
    let sql = "SELECT d.event FROM deliveries d JOIN events e ON e.id = d.event JOIN accounts a ON a.key = e.account \
               WHERE d.id = ?1 AND d.event <= a.payloads_gone";
    match first_of(db, sql, delivery.0)? {
        Some(event) => drop_body(db, event),
        None => Ok(()),
    }
}

fn first_of<T: rusqlite::types::FromSql>(db: &Connection, sql: &str, id: i64) -> Result<Option<T>, StoreError> {
    Ok(db.prepare_cached(sql)?.query_map([id], |row| row.get(0))?.next().transpose()?)
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
    db.prepare_cached("DELETE FROM missed WHERE event = ?1")?.execute([id])?;
    db.prepare_cached("DELETE FROM events WHERE id = ?1")?.execute([id])?;
    Ok(())
}

//! Housekeeping: what is old or deleted goes in small steps.

use rusqlite::{Connection, params};

use super::Store;
use super::admin::own_retention;
use super::lists::list_recent;
use super::writer::Tx;
use crate::domain::event::TEST_TYPE;
use crate::domain::id::{AccountKey, DeliveryId, EndpointKey, EventId};
use crate::domain::retention::{OwnRetention, Retention};
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::values::KEPT_ANSWER_TTL;

/// Rows that one step removes: short enough that no publisher notices.
const STEP: i64 = 500;

/// Accounts that one step looks at.
const ACCOUNTS: i64 = 100;

impl Store {
    /// Removes a step of what deleted endpoints and accounts left behind. Returns whether there may be more.
    pub async fn purge_deleted(&self) -> Result<bool, StoreError> {
        self.writer.write(purge_deleted).await
    }

    /// Removes a step of what accounts need not keep any longer, beginning with the account whose key is `from`.
    pub async fn purge_old(&self, keep: Retention, now: Timestamp, from: i64) -> Result<Option<i64>, StoreError> {
        // What there is to remove is looked for in the lists, and on a reader: most of what is looked at stays.
        if from == 0 {
            self.writer.write(list_recent).await?;
        }
        match self.read(move |db| what_is_old(db, keep, now, from)).await? {
            (Some(step), next) => {
                self.writer.write(move |tx| purge_step(tx, &step)).await?;
                Ok(Some(next))
            }
            (None, next) => Ok((next > 0).then_some(next)),
        }
    }

    /// Forgets a step of replays that were finished, and of events that were missed, before anything that is kept.
    pub async fn purge_old_replays(&self, keep: Retention, now: Timestamp) -> Result<bool, StoreError> {
        self.writer
            .write(move |tx| {
                let sql =
                    "SELECT DISTINCT retention_deliveries, retention_payloads FROM accounts WHERE deleted_at IS NULL";
                let own: Vec<OwnRetention> =
                    tx.db.prepare_cached(sql)?.query_map([], own_retention)?.collect::<Result<_, _>>()?;
                let longest = own.into_iter().fold(keep, |longest, own| longest.longer(keep.of(own)));
                let Some(oldest) = longest.deliveries else { return Ok(false) };
                let cutoff = now.minus(oldest);
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
        list_recent(tx)?;
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
                       (SELECT account, length, slot, endpoint, came, class FROM attempt_counts WHERE account = ?1 LIMIT ?2)";
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

/// What the next account that keeps too much need not keep, and the account with which to go on; 0 when there is none.
fn what_is_old(db: &Connection, keep: Retention, now: Timestamp, from: i64) -> Result<(Option<Old>, i64), StoreError> {
    let sql = "SELECT key, retention_deliveries, retention_payloads, payloads_gone FROM accounts \
               WHERE deleted_at IS NULL AND key >= ?1 ORDER BY key LIMIT ?2";
    let mut statement = db.prepare_cached(sql)?;
    let accounts = statement
        .query_map([from, ACCOUNTS], |row| Ok((row.get(0)?, own_retention(row)?, row.get(3)?)))?
        .collect::<Result<Vec<(i64, OwnRetention, i64)>, _>>()?;
    let mut next = 0;
    for (account, own, gone) in accounts {
        let (rows_since, bodies_since) = keep.of(own).since(now);
        if let Some(old) = old_of(db, account, rows_since, bodies_since, gone)? {
            return Ok((Some(old), account));
        }
        next = account + 1;
    }
    Ok((None, next))
}

fn old_of(
    db: &Connection,
    account: i64,
    rows_since: Option<Timestamp>,
    bodies_since: Option<Timestamp>,
    gone: i64,
) -> Result<Option<Old>, StoreError> {
    if let Some(since) = rows_since {
        let end = DeliveryId::first_at(since).0;
        let sql = "SELECT d.id FROM endpoints n JOIN delivery_lists d ON d.endpoint = n.key \
                   WHERE n.account = ?1 AND d.id < ?2 AND d.status > 1 LIMIT ?3";
        let deliveries = ids(db, sql, [account, end, STEP])?;
        if !deliveries.is_empty() {
            return Ok(Some(Old::Deliveries(deliveries)));
        }
        let events = ids(db, &format!("{UNREFERRED} AND e.account = ?1 AND e.id < ?2 LIMIT ?3"), [account, end, STEP])?;
        if !events.is_empty() {
            return Ok(Some(Old::Events(events)));
        }
    }
    if let Some(since) = bodies_since {
        let end = EventId::first_at(since).0;
        let sql = format!("SELECT id FROM events WHERE account = ?1 AND id > {gone} AND id < ?2 ORDER BY id LIMIT ?3");
        let events = ids(db, &sql, [account, end, STEP])?;
        if let Some(&last) = events.last() {
            return Ok(Some(Old::Payloads(account, events, last)));
        }
    }
    Ok(None)
}

/// Events that no delivery is of: those of its acceptance follow it, those of replays are found by the event.
const UNREFERRED: &str = "SELECT e.id FROM events e WHERE NOT EXISTS \
                          (SELECT 1 FROM deliveries d WHERE d.id > e.id AND d.id <= e.id + e.deliveries AND d.event = e.id) \
                          AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event = e.id AND d.replay IS NOT NULL)";

fn ids(db: &Connection, sql: &str, parameters: [i64; 3]) -> Result<Vec<i64>, StoreError> {
    Ok(db.prepare(sql)?.query_map(parameters, |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// Removes what was found, as far as it is still so.
fn purge_step(tx: &mut Tx<'_>, step: &Old) -> Result<(), StoreError> {
    let mut gone = Vec::new();
    match step {
        Old::Deliveries(deliveries) => {
            for id in deliveries {
                let sql = "DELETE FROM deliveries WHERE id = ?1 AND status > 1 RETURNING endpoint";
                let endpoint: Option<i64> = first_of(tx.db, sql, *id)?;
                if let Some(endpoint) = endpoint {
                    tx.db.prepare_cached("DELETE FROM attempts WHERE delivery = ?1")?.execute([id])?;
                    gone.push(EndpointKey(endpoint));
                }
            }
        }
        Old::Events(events) => {
            for id in events {
                let still = first_of::<i64>(tx.db, &format!("{UNREFERRED} AND e.id = ?1"), *id)?.is_some();
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
    // The book is not rolled back with a savepoint: it is told when nothing can fail any more.
    for endpoint in gone {
        tx.book.gone(endpoint, 1);
    }
    Ok(())
}

/// Removes an event's body. What is still to be sent keeps it.
fn drop_body(db: &Connection, event: i64) -> Result<(), StoreError> {
    let sql = "DELETE FROM payloads WHERE event = ?1 AND NOT EXISTS (SELECT 1 FROM events e JOIN deliveries d \
               ON d.id > e.id AND d.id <= e.id + e.deliveries AND d.event = e.id WHERE e.id = ?1 AND d.status < 2) \
               AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event = ?1 AND d.replay IS NOT NULL AND d.status < 2)";
    db.prepare_cached(sql)?.execute([event])?;
    Ok(())
}

/// What has come to an end long after it was accepted may have outlived the time of its body, which was kept for it alone.
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

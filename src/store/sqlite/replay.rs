//! Sending again: one delivery at once, or the events of a stretch of time as a durable job.
//!
//! A step of a job looks for its next events on a reader, and then writes their deliveries and the job's new position
//! in one commit, if the position is still the one that it started from. So each event of the job gets one delivery,
//! whatever dies in between.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::catalog_rows::account;
use super::columns::{parsed, read_row, time, unreadable, uuid, whole};
use super::endpoints::find;
use super::fifo::make_head_due;
use super::id_times;
use super::leases::take_back;
use super::log::find_delivery;
use super::store::Store;
use super::tx::Tx;
use super::writer_cache::EndpointRow;
use crate::domain::audit::Action;
use crate::domain::channels::Channels;
use crate::domain::delivery::{Delivery, DeliveryStatus};
use crate::domain::id::{AccountId, DeliveryId, EndpointId, EndpointKey, ReplayId};
use crate::domain::payload_filter::ParsedEvent;
use crate::domain::replay::{NewReplay, Replay, ReplayStatus, Selection};
use crate::domain::subscription::{Subscription, includes};
use crate::domain::time::Timestamp;
use crate::store::contract::{ReplayWork, Replays};
use crate::store::errors::StoreError;
use crate::store::filter_checks::replay_bytes;
use crate::store::numbers::{row_count, sql_limit};
use crate::store::replay_job::{Job, SCAN, SCAN_AT_ONCE, first_status, room};
use crate::store::settings::{channels_of, delivery_settings};
use crate::store::shared::{AuditRecord, check_open_replays, words};
use crate::store::status::literal;
use crate::store::values::{Missed, OpenReplay, PendingReply, Step};

/// A stretch of events that was looked through.
struct Scan {
    /// Those that are taken.
    found: Vec<Candidate>,
    /// The last event that was looked at; `None` where the stretch is at its end.
    up_to: Option<i64>,
}

struct Candidate {
    event: i64,
    event_type: String,
    channels: Option<Channels>,
    /// Deliveries that were made when it was accepted.
    deliveries: i64,
}

impl Replays for Store {
    async fn retry(
        &self,
        owner: AccountId,
        id: DeliveryId,
        pending_reply: Option<PendingReply<Delivery>>,
    ) -> Result<Delivery, StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                if find_delivery(tx.db, owner, id)?.status.is_open() {
                    return Err(StoreError::UnderWay);
                }
                let sql = "SELECT 1 FROM deliveries d JOIN payloads p ON p.event = d.event WHERE d.id = ?1";
                if !tx.db.prepare_cached(sql)?.exists([id.0])? {
                    return Err(StoreError::PayloadGone);
                }
                let sql = "UPDATE deliveries SET status = ?2, failures = 0, due_at = ?3, lease = NULL WHERE id = ?1 \
                           RETURNING endpoint";
                let retrying = DeliveryStatus::Retrying.to_column();
                let endpoint: i64 = tx
                    .db
                    .prepare_cached(sql)?
                    .query_row(params![id.0, retrying, tx.now.as_millis()], |row| row.get(0))?;
                tx.relist(id, EndpointKey(endpoint))?;
                let is_due = tx.add_to_fifo(id, EndpointKey(endpoint))?;
                let delivery = find_delivery(tx.db, owner, id)?;
                tx.audit(&origin, &AuditRecord::of(account(tx.db, owner)?.key, Action::DeliveryRetried, id))?;
                tx.store_pending_reply(pending_reply, &delivery)?;
                if is_due {
                    tx.after.due.push((EndpointKey(endpoint), tx.now));
                }
                Ok(delivery)
            })
            .await
    }

    async fn create_replay(
        &self,
        owner: AccountId,
        endpoint: EndpointId,
        new: NewReplay,
        pending_reply: Option<PendingReply<Replay>>,
    ) -> Result<Replay, StoreError> {
        // Most replays are counted before they are answered; the rest of the others is counted by their first steps.
        let (total, counted_to) = self
            .read(Some(owner), move |db| {
                let snapshot = db.unchecked_transaction()?;
                let job = requested_job(&snapshot, owner, endpoint, new)?;
                let scan = scan(&snapshot, &job, job.first, SCAN_AT_ONCE, usize::MAX)?;
                Ok((row_count(scan.found.len()), scan.up_to))
            })
            .await?;
        let id = ReplayId::from_random(self.shared.random.array());
        let origin = self.origin.clone();
        let made = self
            .writer
            .write(move |tx| {
                let job = requested_job(tx.db, owner, endpoint, new)?;
                check_open_replays(&open_of(tx.db, job.account)?, job.endpoint)?;
                let status = first_status(total, counted_to);
                let finished_at = (status == ReplayStatus::Completed).then(|| tx.now.as_millis());
                let last = job.last.min(last_event(tx.db)?);
                tx.db
                    .prepare_cached(
                        "INSERT INTO replays (id, endpoint, selection, status, from_at, to_at, first, last, position, \
                         total, created_at, finished_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                    )?
                    .execute(params![
                        id.0.as_bytes(),
                        job.endpoint.0,
                        new.selection.to_column(),
                        status.to_column(),
                        new.from.as_millis(),
                        new.to.as_millis(),
                        job.first,
                        last,
                        counted_to.unwrap_or(job.first),
                        total,
                        tx.now.as_millis(),
                        finished_at,
                    ])?;
                let replay = find_replay(tx.db, owner, id)?;
                tx.audit(&origin, &AuditRecord::of(account(tx.db, owner)?.key, Action::ReplayCreated, id))?;
                tx.store_pending_reply(pending_reply, &replay)?;
                Ok(replay)
            })
            .await?;
        self.shared.replays.notify_one();
        Ok(made)
    }

    async fn replay(&self, owner: AccountId, id: ReplayId) -> Result<Replay, StoreError> {
        self.read(Some(owner), move |db| {
            let snapshot = db.unchecked_transaction()?;
            find_replay(&snapshot, owner, id)
        })
        .await
    }

    async fn cancel_replay(&self, owner: AccountId, id: ReplayId) -> Result<(), StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                if find_replay(tx.db, owner, id)?.finished_at.is_some() {
                    return Ok(());
                }
                let sql = "SELECT key, endpoint FROM replays WHERE id = ?1";
                let (key, endpoint) = tx
                    .db
                    .prepare_cached(sql)?
                    .query_row([id.0.as_bytes()], |row| Ok((row.get::<_, i64>(0)?, EndpointKey(row.get(1)?))))?;
                let sql = "UPDATE replays SET status = ?2, finished_at = ?3 WHERE key = ?1";
                let cancelled = ReplayStatus::Cancelled.to_column();
                tx.db.prepare_cached(sql)?.execute(params![key, cancelled, tx.now.as_millis()])?;
                let unsent = take_back(tx, key)?;
                if make_head_due(tx.db, endpoint, tx.now)? {
                    tx.after.due.push((endpoint, tx.now));
                }
                tx.audit(&origin, &AuditRecord::of(account(tx.db, owner)?.key, Action::ReplayCancelled, id))?;
                tx.cache.gone(endpoint, unsent);
                // What is in memory comes back without an attempt: see `release`.
                tx.cache.cancel(key);
                Ok(())
            })
            .await
    }

    async fn missed(&self, owner: AccountId, id: EndpointId) -> Result<Missed, StoreError> {
        self.read(Some(owner), move |db| {
            let snapshot = db.unchecked_transaction()?;
            let endpoint = find(&snapshot, owner, id)?;
            let (times, mut missed) = (id_times::read(&snapshot)?, Missed::default());
            let sql =
                "SELECT type, COUNT(*) AS count, MIN(event) AS oldest FROM missed WHERE endpoint = ?1 GROUP BY type";
            let mut statement = snapshot.prepare_cached(sql)?;
            let mut rows = statement.query([endpoint.key.0])?;
            while let Some(row) = rows.next()? {
                if includes(&endpoint.settings.events, &row.get::<_, String>("type")?) {
                    let (count, oldest) = (whole::<u64>(row, "count")?, times.of(row.get("oldest")?));
                    missed.add(count, oldest);
                }
            }
            Ok(missed)
        })
        .await
    }
}

impl ReplayWork for Store {
    async fn replay_wanted(&self) {
        self.shared.replays.notified().await;
    }

    async fn open_replays(&self) -> Result<Vec<OpenReplay>, StoreError> {
        let view = self.view.clone();
        self.read_in_background(move |db| {
            let sql = "SELECT r.key, r.endpoint, r.status, a.id AS account FROM replays r \
                       JOIN endpoints e ON e.key = r.endpoint JOIN accounts a ON a.key = e.account \
                       WHERE r.finished_at IS NULL AND e.deleted_at IS NULL ORDER BY r.key";
            let mut statement = db.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| {
                let counts = row.get::<_, i64>("status")? == ReplayStatus::Pending.to_column();
                let active = view.target(EndpointKey(row.get("endpoint")?)).is_some_and(|target| target.active);
                let account = AccountId(uuid(row, "account")?);
                Ok(OpenReplay { key: row.get("key")?, account, ready: counts || active })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn replay_step(&self, key: i64) -> Result<Step, StoreError> {
        let found = self
            .read_in_background(move |db| {
                let snapshot = db.unchecked_transaction()?;
                let Some(job) = job(&snapshot, key)? else { return Ok(None) };
                if job.status == ReplayStatus::Pending {
                    let scan = scan(&snapshot, &job, job.position, SCAN, usize::MAX)?;
                    return Ok(Some((job, scan)));
                }
                let room = room(waiting(&snapshot, job.endpoint)?);
                // All are made, and some are under way.
                let made = job.position >= job.last && unsent(&snapshot, key)? > 0;
                let scan = if room == 0 || made {
                    Scan { found: Vec::new(), up_to: Some(job.position) }
                } else {
                    scan(&snapshot, &job, job.position, SCAN, room)?
                };
                Ok(Some((job, scan)))
            })
            .await?;
        let Some((job, scan)) = found else { return Ok(Step::Finished) };
        match job.status {
            ReplayStatus::Pending => self.writer.write(move |tx| count(tx, &job, &scan)).await,
            ReplayStatus::Running if scan.up_to == Some(job.position) => Ok(Step::Waiting),
            _ => self.writer.write(move |tx| advance(tx, &job, &scan)).await,
        }
    }
}

/// The endpoint's job as it would be now.
fn requested_job(db: &Connection, owner: AccountId, id: EndpointId, new: NewReplay) -> Result<Job, StoreError> {
    Ok(Job::requested(find(db, owner, id)?, new, &id_times::read(db)?))
}

fn last_event(db: &Connection) -> rusqlite::Result<i64> {
    db.prepare_cached("SELECT IFNULL(MAX(id), 0) FROM events")?.query_row([], |row| row.get(0))
}

fn job(db: &Connection, key: i64) -> Result<Option<Job>, StoreError> {
    let sql = "SELECT r.*, e.account, e.events, e.settings FROM replays r JOIN endpoints e ON e.key = r.endpoint \
               WHERE r.key = ?1 AND r.finished_at IS NULL AND e.deleted_at IS NULL";
    let found = db
        .prepare_cached(sql)?
        .query_row([key], |row| {
            let entries = words(&row.get::<_, String>("events")?);
            let delivery = delivery_settings(&row.get::<_, String>("settings")?, None).map_err(unreadable)?;
            Ok(Job {
                key,
                endpoint: EndpointKey(row.get("endpoint")?),
                account: row.get("account")?,
                subscription: Subscription { entries, channels: delivery.channels, filter: delivery.filter },
                selection: parsed(row, "selection", Selection::from_column)?,
                status: parsed(row, "status", ReplayStatus::from_column)?,
                first: row.get("first")?,
                last: row.get("last")?,
                position: row.get("position")?,
            })
        })
        .optional()?;
    Ok(found)
}

/// Deliveries of one replay that wait for their first attempt.
fn unsent(db: &Connection, key: i64) -> rusqlite::Result<i64> {
    let sql =
        concat!("SELECT COUNT(*) FROM deliveries WHERE replay = ?1 AND status = ", literal!(DeliveryStatus::Pending));
    db.prepare_cached(sql)?.query_row([key], |row| row.get(0))
}

/// The unfinished replays of the account, each after its endpoint.
fn open_of(db: &Connection, account: i64) -> rusqlite::Result<Vec<(EndpointKey, ReplayId)>> {
    let sql = "SELECT r.endpoint, r.id FROM replays r JOIN endpoints e ON e.key = r.endpoint \
               WHERE e.account = ?1 AND e.deleted_at IS NULL AND r.finished_at IS NULL ORDER BY r.key";
    db.prepare_cached(sql)?
        .query_map([account], |row| Ok((EndpointKey(row.get("endpoint")?), ReplayId(uuid(row, "id")?))))?
        .collect()
}

/// Deliveries of the endpoint's replays that wait for their first attempt.
fn waiting(db: &Connection, endpoint: EndpointKey) -> rusqlite::Result<usize> {
    let sql = concat!(
        "SELECT COUNT(*) AS waiting FROM replays r JOIN deliveries d ON d.replay = r.key AND d.status = ",
        literal!(DeliveryStatus::Pending),
        " WHERE r.endpoint = ?1 AND r.finished_at IS NULL"
    );
    db.prepare_cached(sql)?.query_row([endpoint.0], |row| whole(row, "waiting"))
}

/// Looks at up to `most` events after `position`, until `most_taken` of them are taken, or until it has checked as many
/// bytes against the endpoint's filter as one step may.
fn scan(db: &Connection, job: &Job, position: i64, most: usize, most_taken: usize) -> Result<Scan, StoreError> {
    // One without a body cannot be sent again.
    let sql = "SELECT id, type, deliveries, channels FROM events JOIN payloads ON event = id WHERE account = ?1 \
               AND id > ?2 AND id <= ?3 ORDER BY id LIMIT ?4";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![job.account, position, job.last, sql_limit(most)])?;
    let mut scan = Scan { found: Vec::new(), up_to: None };
    let (mut seen, mut checked) = (0, 0);
    let most_checked = job.subscription.filter.as_ref().map_or(usize::MAX, replay_bytes);
    while let Some(row) = rows.next()? {
        let channels = channels_of(row.get::<_, Option<String>>(3)?.as_deref());
        let candidate = Candidate { event: row.get(0)?, event_type: row.get(1)?, channels, deliveries: row.get(2)? };
        scan.up_to = Some(candidate.event);
        if takes(db, job, &candidate)? && matches(db, job, &candidate, &mut checked)? {
            scan.found.push(candidate);
        }
        seen += 1;
        if scan.found.len() >= most_taken || checked >= most_checked {
            return Ok(scan);
        }
    }
    if seen < most {
        scan.up_to = None;
    }
    Ok(scan)
}

/// Whether an event matches the endpoint's filter. Adds the bytes that were checked.
fn matches(db: &Connection, job: &Job, event: &Candidate, checked: &mut usize) -> Result<bool, StoreError> {
    let Candidate { event, event_type, channels, .. } = event;
    let Some(filter) = job.subscription.filter_for(event_type) else { return Ok(true) };
    let sql = "SELECT body FROM payloads WHERE event = ?1";
    let body: Vec<u8> = db.prepare_cached(sql)?.query_row([event], |row| row.get(0))?;
    *checked += body.len();
    Ok(filter.matches(&ParsedEvent::of_message(event_type, &body, channels.as_ref())))
}

/// Whether the job takes this event, as things are now. The filter is asked apart: it decides once, when the event is
/// found.
fn takes(db: &Connection, job: &Job, event: &Candidate) -> Result<bool, StoreError> {
    let Candidate { event_type, channels, .. } = event;
    if !job.admits(event_type, channels.as_ref()) {
        return Ok(false);
    }
    let mut statement = db.prepare_cached(
        "SELECT status FROM deliveries WHERE id > ?1 AND id <= ?1 + ?3 AND endpoint = ?2 AND event = ?1 \
         UNION ALL SELECT status FROM deliveries WHERE event = ?1 AND endpoint = ?2 AND replay IS NOT NULL",
    )?;
    let rows = statement.query_map(params![event.event, job.endpoint.0, event.deliveries], |row| {
        parsed(row, "status", DeliveryStatus::from_column)
    })?;
    let statuses = rows.collect::<Result<Vec<_>, _>>()?;
    Ok(job.takes(event_type, &statuses))
}

/// Goes on counting; at the end the job may run.
fn count(tx: &mut Tx<'_>, job: &Job, scan: &Scan) -> Result<Step, StoreError> {
    let (status, position) = job.counted(scan.up_to);
    let sql = "UPDATE replays SET status = ?2, position = ?3, total = total + ?4 WHERE key = ?1 AND position = ?5 \
               AND finished_at IS NULL";
    let parameters = params![job.key, status.to_column(), position, row_count(scan.found.len()), job.position];
    tx.db.prepare_cached(sql)?.execute(parameters)?;
    Ok(Step::Made(0))
}

/// Writes deliveries of what was found, and how far the job has come.
fn advance(tx: &mut Tx<'_>, job: &Job, scan: &Scan) -> Result<Step, StoreError> {
    let active = tx.cache.endpoint(job.endpoint).is_some_and(EndpointRow::can_receive);
    if !active && !scan.found.is_empty() {
        return Ok(Step::Waiting);
    }
    let sql = "SELECT made FROM replays WHERE key = ?1 AND position = ?2 AND finished_at IS NULL";
    let before = tx.db.prepare_cached(sql)?.query_row(params![job.key, job.position], |row| row.get(0)).optional()?;
    // Cancelled, or another step was faster.
    let Some(before): Option<i64> = before else { return Ok(Step::Finished) };
    debug_assert!(scan.up_to.is_none_or(|up_to| up_to >= job.position), "a replay never goes back");
    let mut made = 0;
    for candidate in &scan.found {
        // It may have come to something since it was found.
        if !takes(tx.db, job, candidate)? {
            continue;
        }
        let id = DeliveryId(tx.ids.next(tx.now));
        // Its body may have left with its retention since it was found.
        let sql = "INSERT INTO deliveries (id, endpoint, event, due_at, replay) SELECT ?1, ?2, event, ?4, ?5 \
                   FROM payloads WHERE event = ?3";
        let parameters = params![id.0, job.endpoint.0, candidate.event, tx.now.as_millis(), job.key];
        let inserted = tx.db.prepare_cached(sql)?.execute(parameters)?;
        if inserted > 0 {
            tx.add_to_fifo(id, job.endpoint)?;
        }
        made += inserted;
    }
    let finished = scan.up_to.is_none() && unsent(tx.db, job.key)? == 0;
    let made_in_all = before + row_count(made);
    let (status, total) = if finished { (ReplayStatus::Completed, Some(made_in_all)) } else { (job.status, None) };
    let sql = "UPDATE replays SET position = ?2, made = ?3, status = ?4, total = IFNULL(?5, MAX(total, ?3)), \
               finished_at = ?6 WHERE key = ?1";
    tx.db.prepare_cached(sql)?.execute(params![
        job.key,
        scan.up_to.unwrap_or(job.last.max(job.position)),
        made_in_all,
        status.to_column(),
        total,
        finished.then(|| tx.now.as_millis()),
    ])?;
    // The cache is not rolled back with a savepoint: it is told when nothing can fail any more.
    tx.cache.came(made);
    if made > 0 {
        tx.after.due.push((job.endpoint, tx.now));
    }
    Ok(if finished { Step::Finished } else { Step::Made(made as u64) })
}

/// One replay of the account; another account's does not exist.
fn find_replay(db: &Connection, owner: AccountId, id: ReplayId) -> Result<Replay, StoreError> {
    let sql = concat!(
        "SELECT r.*, e.id AS endpoint_id, r.made - (SELECT COUNT(*) FROM deliveries d WHERE d.replay = r.key AND \
         d.status = ",
        literal!(DeliveryStatus::Pending),
        ") AS sent FROM replays r JOIN endpoints e ON e.key = r.endpoint WHERE r.id = ?1 AND e.deleted_at IS NULL \
         AND e.account = (SELECT key FROM accounts WHERE id = ?2 AND deleted_at IS NULL)"
    );
    Ok(db.prepare_cached(sql)?.query_row(params![id.0.as_bytes(), owner.0.as_bytes()], replay_from_row)?)
}

fn replay_from_row(row: &Row<'_>) -> rusqlite::Result<Replay> {
    read_row("replays", row, |row| {
        let requested = NewReplay {
            from: Timestamp::from_millis(row.get("from_at")?),
            to: Timestamp::from_millis(row.get("to_at")?),
            selection: parsed(row, "selection", Selection::from_column)?,
        };
        Ok(Replay {
            id: ReplayId(uuid(row, "id")?),
            endpoint: EndpointId(uuid(row, "endpoint_id")?),
            requested,
            status: parsed(row, "status", ReplayStatus::from_column)?,
            total: whole(row, "total")?,
            sent: whole(row, "sent")?,
            created_at: Timestamp::from_millis(row.get("created_at")?),
            finished_at: time(row, "finished_at")?,
        })
    })
}

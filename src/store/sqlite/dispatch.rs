//! Implements `Dispatch` for the engine: claims due deliveries, writes outcomes (`settle` calls `transition`), and
//! releases deliveries. Every statement checks the lease.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use rusqlite::{Connection, params};

use super::leases::release;
use super::limited_attempts;
use super::maintain::drop_spent_body;
use super::operational_events::Failure;
use super::store::Store;
use super::tx::Tx;
use crate::domain::delivery::{DeliveryKind, DeliveryStatus, Job};
use crate::domain::endpoint::EndpointHealth;
use crate::domain::event::TEST_TYPE;
use crate::domain::id::{DeliveryId, EndpointKey};
use crate::domain::rate_limit::Rate;
use crate::domain::time::Timestamp;
use crate::domain::trace_context::TraceContext;
use crate::domain::transition::transition;
use crate::store::contract::Dispatch;
use crate::store::counted_attempts::give_back;
use crate::store::errors::StoreError;
use crate::store::inbox::{Leased, MemoryPermit};
use crate::store::numbers::sql_limit;
use crate::store::start_permit::CountedStart;
use crate::store::status::literal;
use crate::store::values::{Claimed, Isolation, Settled, Settlement, Unattempted};

/// What ends so long after its acceptance may have outlived the time of its body: the shortest that can be set.
const SHORTEST_BODY_RETENTION: Duration = Duration::from_secs(3_600);

/// Deliveries that one look finds which are due too late after the clock was set back. A look reads the whole index.
const MAX_LATE_FOUND: i64 = 10_000;

/// Deliveries that one transaction makes due: short enough that no publisher notices.
const MAX_LATE_PER_TRANSACTION: usize = 500;

/// Deliveries in one claim.
pub const MAX_CLAIM: usize = 256;

impl Dispatch for Store {
    async fn claim(&self, endpoint: EndpointKey, limit: usize) -> Result<Claimed, StoreError> {
        self.writer.write_hot(move |tx| claim(tx, endpoint, limit.min(MAX_CLAIM))).await
    }

    async fn count_start(
        &self,
        endpoint: EndpointKey,
        rate: Rate,
        earlier: Option<CountedStart>,
        validity: Duration,
    ) -> Result<Option<CountedStart>, StoreError> {
        let count = move |tx: &mut Tx<'_>| {
            // Nothing is sent to an endpoint that is not there any more.
            if tx.cache.endpoint(endpoint).is_none() {
                return Ok(None);
            }
            let mut attempts = limited_attempts::read(tx, endpoint)?;
            let counted = attempts.count_start(rate, earlier, validity);
            limited_attempts::write(tx, endpoint, &attempts)?;
            Ok(counted)
        };
        self.writer.write_hot(count).await
    }

    async fn due_endpoints(&self) -> Result<Vec<(EndpointKey, Timestamp)>, StoreError> {
        // What became due by a clock that was ahead is due at once: after a start, and where the clock was set back
        // since the last call.
        if self.shared.was_set_back() {
            while self.make_due_again().await? {}
        }
        let active = self.view.active_endpoints();
        self.read_in_background(move |db| {
            let mut due = Vec::new();
            for endpoint in active {
                if let Some(at) = next_due(db, endpoint)? {
                    due.push((endpoint, at));
                }
            }
            Ok(due)
        })
        .await
    }

    fn settle_window(&self) -> Duration {
        // Differs by necessity: all writes share their commits anyway.
        Duration::ZERO
    }

    async fn settle(
        &self,
        settlements: Arc<Vec<Settlement>>,
        isolation: Isolation,
    ) -> Result<Vec<Settled>, StoreError> {
        match isolation {
            Isolation::Shared => self.writer.write_hot(move |tx| settle(tx, &settlements)).await,
            Isolation::Savepoint => self.writer.write(move |tx| settle(tx, &settlements)).await,
        }
    }

    async fn release(&self, deliveries: Vec<Unattempted>) -> Result<(), StoreError> {
        let give_back_all = move |tx: &mut Tx<'_>| {
            // Each log is read once, and before the first write.
            let mut counted = limited_attempts::read_counted(tx, &deliveries)?;
            let given_back = release(tx, deliveries.iter().map(|row| (row.delivery, row.due_at)))?;
            give_back(&mut counted, &deliveries, &given_back);
            counted.iter().try_for_each(|(endpoint, attempts)| limited_attempts::write(tx, *endpoint, attempts))
        };
        self.writer.write_hot(give_back_all).await
    }
}

impl Store {
    /// Makes a step of what is due too late because the clock was set back due now. Returns whether there may be more.
    ///
    /// Such a delivery was last attempted in the future, or was due at once in the future. One whose last attempt was
    /// in the past waits for its delay at most.
    async fn make_due_again(&self) -> Result<bool, StoreError> {
        let now = self.shared.clock.now().as_millis();
        let late = self
            .read_in_background(move |db| {
                let sql = "SELECT id FROM deliveries INDEXED BY deliveries_due WHERE due_at > ?1 \
                           AND (started_at IS NULL OR started_at > ?1) LIMIT ?2";
                let mut statement = db.prepare_cached(sql)?;
                let rows = statement.query_map([now, MAX_LATE_FOUND], |row| row.get(0))?;
                Ok(rows.collect::<Result<Vec<i64>, _>>()?)
            })
            .await?;
        for step in late.chunks(MAX_LATE_PER_TRANSACTION) {
            let step = step.to_vec();
            let write = move |tx: &mut Tx<'_>| {
                let sql = "UPDATE deliveries SET due_at = MIN(due_at, ?2) WHERE id = ?1 AND due_at IS NOT NULL";
                let mut statement = tx.db.prepare_cached(sql)?;
                for id in &step {
                    statement.execute([*id, now])?;
                }
                Ok(())
            };
            self.writer.write(write).await?;
        }
        Ok(i64::try_from(late.len()).is_ok_and(|found| found == MAX_LATE_FOUND))
    }
}

pub(super) fn next_due(db: &Connection, endpoint: EndpointKey) -> rusqlite::Result<Option<Timestamp>> {
    let sql = "SELECT MIN(due_at) FROM deliveries WHERE endpoint = ?1 AND due_at IS NOT NULL";
    let due: Option<i64> = db.prepare_cached(sql)?.query_row([endpoint.0], |row| row.get(0))?;
    Ok(due.map(Timestamp::from_millis))
}

fn claim(tx: &mut Tx<'_>, endpoint: EndpointKey, limit: usize) -> Result<Claimed, StoreError> {
    let Some(inbox) = &tx.shared.inbox else { return Ok(Claimed::default()) };
    // Deliveries of a paused endpoint stay where they are until it is active again, and those of all endpoints until
    // the end of a hold, which nudges the engine.
    let active = tx.cache.endpoint(endpoint).filter(|row| row.can_receive() && !tx.cache.is_on_hold());
    let allowed = active.map(|row| (row.memory.clone(), row.delivery.rate_limit));
    let Some((memory, rate)) = allowed else { return Ok(Claimed::default()) };
    let mut counted = match rate {
        Some(rate) => Some((rate, limited_attempts::read(tx, endpoint)?)),
        None => None,
    };
    let limit = counted.as_mut().map_or(limit, |(rate, attempts)| limit.min(attempts.free(*rate)));
    let mut jobs = Vec::new();
    let named = |permit: Option<MemoryPermit>, id| permit.map(|permit| permit.named(inbox.in_memory(), id));
    let reserve = |id, bytes| named(inbox.reserve(&memory, bytes), id);
    let full = limit == 0 || find_due(tx, endpoint, FRESH, limit, reserve, &mut jobs)?;
    if !full && jobs.len() < limit {
        let reserve = |id, bytes| named(inbox.reserve_replayed(&memory, bytes), id);
        find_due(tx, endpoint, REPLAYED, limit - jobs.len(), reserve, &mut jobs)?;
    }
    debug_assert!(jobs.len() <= limit, "no more are claimed than asked for");
    let sql = "UPDATE deliveries SET lease = ?2, due_at = NULL WHERE id = ?1";
    for leased in &jobs {
        tx.db.prepare_cached(sql)?.execute(params![leased.job.id.0, tx.lease])?;
        tx.note_lease(leased.job.id)?;
    }
    let mut limited_for = None;
    if let Some((rate, attempts)) = &mut counted {
        attempts.permit(*rate, &mut jobs);
        limited_for = attempts.limited_for(*rate);
        limited_attempts::write(tx, endpoint, attempts)?;
    }
    let next_due = next_due(tx.db, endpoint)?;
    memory.note_stored(next_due.is_some_and(|at| at <= tx.now));
    Ok(Claimed { jobs, next_due, limited_for })
}

/// What a replay has made and nobody has begun to send; and everything else, which goes before it.
const REPLAYED: &str = concat!("d.replay IS NOT NULL AND d.status = ", literal!(DeliveryStatus::Pending));

const FRESH: &str = concat!("(d.replay IS NULL OR d.status <> ", literal!(DeliveryStatus::Pending), ")");

/// Takes due deliveries of one of these kinds as far as there is memory. Returns whether there was none for a
/// delivery.
fn find_due(
    tx: &Tx<'_>,
    endpoint: EndpointKey,
    kind: &str,
    limit: usize,
    reserve: impl Fn(DeliveryId, usize) -> Option<MemoryPermit>,
    jobs: &mut Vec<Leased>,
) -> Result<bool, StoreError> {
    let mut statement = tx.db.prepare_cached(&format!(
        "SELECT d.id, d.due_at, d.attempt, d.failures, d.replay, e.type, p.body, p.trace_context \
         FROM deliveries d JOIN events e ON e.id = d.event JOIN payloads p ON p.event = d.event WHERE d.endpoint = ?1 \
         AND d.due_at <= ?2 AND {kind} ORDER BY d.due_at, d.id LIMIT ?3"
    ))?;
    let mut rows = statement.query(params![endpoint.0, tx.now.as_millis(), sql_limit(limit)])?;
    while let Some(row) = rows.next()? {
        let (id, body) = (DeliveryId(row.get("id")?), row.get::<_, Vec<u8>>("body")?);
        let Some(permit) = reserve(id, body.len()) else { return Ok(true) };
        let event_type: Arc<str> = row.get::<_, String>("type")?.into();
        let kind = match row.get::<_, Option<i64>>("replay")? {
            _ if &*event_type == TEST_TYPE => DeliveryKind::Test,
            Some(replay) => DeliveryKind::Replay(replay),
            None => DeliveryKind::Event,
        };
        let job = Job {
            id,
            endpoint,
            lease: tx.lease,
            kind,
            event_type,
            attempts_made: row.get("attempt")?,
            failures: row.get("failures")?,
            trace: row.get::<_, Option<String>>("trace_context")?.as_deref().and_then(TraceContext::from_column),
            body: body.into(),
        };
        jobs.push(Leased::new(job, Timestamp::from_millis(row.get("due_at")?), permit));
    }
    Ok(false)
}

pub(super) fn settle(tx: &mut Tx<'_>, settlements: &[Settlement]) -> Result<Vec<Settled>, StoreError> {
    tx.size.rows += settlements.len();
    let mut healths: HashMap<EndpointKey, EndpointHealth> = HashMap::default();
    let mut settled = Vec::with_capacity(settlements.len());
    let mut attempts = Vec::with_capacity(settlements.len());
    let (mut failed, mut paused) = (Vec::new(), Vec::new());
    let settings = tx.shared.settings();
    let mut write = tx.db.prepare_cached(
        "UPDATE deliveries SET status = ?2, attempt = ?3, failures = ?4, due_at = ?5, lease = NULL, started_at = ?6, \
         response_status = ?7, response_time_ms = ?8, response_body = ?9, error_message = ?10 \
         WHERE id = ?1 AND lease = ?11",
    )?;
    for settlement in settlements {
        // An endpoint that is not in the cache is deleted, and so are its deliveries.
        let Some(row) = tx.cache.endpoint(settlement.endpoint) else {
            settled.push(Settled::LeaseLost);
            continue;
        };
        let health = *healths.get(&settlement.endpoint).unwrap_or(&row.health);
        let has_fifo_order = row.has_fifo_order;
        let policy = settings.policy.of_endpoint(row.delivery.retry_schedule.as_ref());
        let Settlement { kind, failures, outcome, jitter, .. } = settlement;
        let mut next = transition(*kind, *failures, health, outcome, &policy, tx.now, *jitter);
        // An attempt at what the endpoint was before its owner changed it tells nothing of what it is now.
        if row.version().is_some_and(|version| outcome.endpoint_version < version) {
            next.health = health;
        }
        if settlement.attempts_made > 0 {
            keep_earlier_attempt(tx, settlement.delivery)?;
        }
        let written = write.execute(params![
            settlement.delivery.0,
            next.status.to_column(),
            settlement.attempts(),
            next.failures,
            next.next_retry_at.map(Timestamp::as_millis),
            outcome.started_at.as_millis(),
            outcome.http_status,
            outcome.duration_ms,
            outcome.body,
            outcome.error,
            tx.lease,
        ])?;
        if written == 0 {
            settled.push(Settled::LeaseLost);
            continue;
        }
        update_other_rows(tx, settlement, next.status, has_fifo_order)?;
        if next.status == DeliveryStatus::Failed && *kind != DeliveryKind::Test {
            let attempts = settlement.attempts();
            let Settlement { endpoint, delivery, .. } = *settlement;
            failed.push(Failure { endpoint, delivery, attempts, outcome: outcome.clone() });
        }
        if next.health.status != health.status {
            paused.push((settlement.endpoint, next.health.consecutive_failures, outcome.clone()));
        }
        healths.insert(settlement.endpoint, next.health);
        // A row has its last attempt alone, and is looked at until it is listed.
        let in_its_row = settlement.attempts_made == 0 && !tx.cache.is_listed(settlement.delivery);
        attempts.push((settlement.endpoint, next.health, outcome.started_at, in_its_row));
        settled.push(next.next_retry_at.map_or(Settled::Done, Settled::RetryAt));
    }
    debug_assert_eq!(settled.len(), settlements.len(), "each has a result");
    tx.announce_outcomes(&failed, &paused)?;
    for (endpoint, health, at, in_its_row) in attempts {
        tx.cache.record_attempt(endpoint, health, at, in_its_row);
    }
    Ok(settled)
}

/// Updates what is stored of a delivery beside its row, when an outcome has set its status.
fn update_other_rows(
    tx: &mut Tx<'_>,
    settlement: &Settlement,
    status: DeliveryStatus,
    has_fifo_order: bool,
) -> Result<(), StoreError> {
    let Settlement { delivery, endpoint, .. } = *settlement;
    tx.relist(delivery, endpoint)?;
    tx.forget_lease(delivery)?;
    if matches!(settlement.kind, DeliveryKind::Replay(_)) && settlement.attempts_made == 0 {
        let sql = "DELETE FROM missed WHERE event = (SELECT event FROM deliveries WHERE id = ?1) AND endpoint = ?2";
        tx.db.prepare_cached(sql)?.execute([delivery.0, endpoint.0])?;
    }
    if status.is_open() {
        return Ok(());
    }
    if tx.now.since(tx.ids.times().of(delivery.0)) >= SHORTEST_BODY_RETENTION {
        drop_spent_body(tx.db, delivery)?;
    }
    if has_fifo_order {
        tx.remove_from_fifo(delivery, endpoint)?;
    }
    Ok(())
}

/// The delivery's row shows its latest attempt; the one before moves to the history.
fn keep_earlier_attempt(tx: &Tx<'_>, delivery: DeliveryId) -> Result<(), StoreError> {
    tx.db
        .prepare_cached(
            "INSERT OR IGNORE INTO attempts SELECT id, attempt, started_at, response_status, response_time_ms, \
             response_body, error_message FROM deliveries WHERE id = ?1 AND lease = ?2 AND started_at IS NOT NULL",
        )?
        .execute(params![delivery.0, tx.lease])?;
    Ok(())
}

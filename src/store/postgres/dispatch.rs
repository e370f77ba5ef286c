//! Implements `Dispatch` for the engine: claims due deliveries, and releases deliveries. `settle` writes outcomes.
//! Every statement checks the lease.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{GenericClient, Object, Transaction};
use foldhash::HashMap;
use tokio::time::Instant;
use tokio_postgres::Row;

use super::limited_attempts;
use super::sql::{column, execute, get, maybe_whole, one, row, rows, span, time, when, whole};
use super::store::Store;
use crate::domain::delivery::{DeliveryKind, Job};
use crate::domain::event::TEST_TYPE;
use crate::domain::id::{DeliveryId, EndpointKey};
use crate::domain::rate_limit::Rate;
use crate::domain::time::Timestamp;
use crate::domain::trace_context::TraceContext;
use crate::store::contract::Dispatch;
use crate::store::counted_attempts::{give_back, is_limited};
use crate::store::errors::StoreError;
use crate::store::inbox::{Leased, MemoryPermit};
use crate::store::numbers::sql_limit;
use crate::store::start_permit::CountedStart;
use crate::store::status::literal;
use crate::store::values::{Claimed, Isolation, Settled, Settlement, Unattempted};

/// After a delivery was given back, its endpoint is looked at again.
const RELEASED_DELAY: Duration = Duration::from_secs(1);

/// How long after a batch of outcomes the next outcomes wait for others: a commit for each handful of them costs more
/// than the wait.
const SETTLE_WINDOW: Duration = Duration::from_millis(4);

/// Deliveries in one claim.
const MAX_CLAIM: usize = 256;

/// What a replay has made and nobody has begun to send; and everything else, which goes before it.
const REPLAYED: &str = concat!(
    "replay IS NOT NULL AND attempt = 0 AND NOT EXISTS (SELECT 1 FROM replays r WHERE r.key = queue.replay AND \
     r.status = ",
    literal!(ReplayStatus::Cancelled),
    ")"
);

const FRESH: &str = "(replay IS NULL OR attempt > 0)";

/// A row of the queue that was chosen, and its permit.
struct Chosen {
    account: i64,
    delivery: i64,
    event: i64,
    attempts_made: u32,
    failures: u32,
    replay: Option<i64>,
    due_at: Timestamp,
    permit: MemoryPermit,
}

impl Dispatch for Store {
    async fn claim(&self, endpoint: EndpointKey, limit: usize) -> Result<Claimed, StoreError> {
        let limit = limit.min(MAX_CLAIM);
        let Some(inbox) = &self.shared.inbox else { return Ok(Claimed::default()) };
        // Deliveries of a paused endpoint stay where they are until it is active again, which nudges the engine.
        let active = self.view.target(endpoint).filter(|target| target.active && self.serves(endpoint));
        let (Some(target), Some(lease)) = (active, self.node.lease()) else { return Ok(Claimed::default()) };
        let memory = self.endpoint_memory.of(endpoint, &target);
        let now = self.now();
        let span = (self.positions.claim_from(endpoint, now), now.as_millis());
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let sql = concat!(
            "SELECT 1 FROM endpoints WHERE key = $1 AND status = ",
            literal!(EndpointStatus::Active),
            " AND deleted_at IS NULL"
        );
        if row(&tx, sql, &[&endpoint.0]).await?.is_none() {
            return Ok(Claimed::default());
        }
        // Before the rows of the queue: whoever waits here holds none.
        let mut counted = match target.delivery.rate_limit {
            Some(rate) => Some((rate, limited_attempts::lock(&tx, endpoint).await?)),
            None => None,
        };
        let limit = counted.as_mut().map_or(limit, |(rate, attempts)| limit.min(attempts.free(*rate)));
        let mut chosen = Vec::new();
        let reserve = |bytes| inbox.reserve(&memory, bytes);
        let full = limit == 0 || choose(&tx, endpoint, FRESH, limit, span, reserve, &mut chosen).await?;
        if !full && chosen.len() < limit {
            let reserve = |bytes| inbox.reserve_replayed(&memory, bytes);
            choose(&tx, endpoint, REPLAYED, limit - chosen.len(), span, reserve, &mut chosen).await?;
        }
        debug_assert!(chosen.len() <= limit, "no more are claimed than asked for");
        let mut jobs = Vec::new();
        if !chosen.is_empty() {
            let accounts: Vec<i64> = chosen.iter().map(|row| row.account).collect();
            let deliveries: Vec<i64> = chosen.iter().map(|row| row.delivery).collect();
            let sql = "UPDATE queue SET lease = $3, due_at = NULL WHERE ctid = ANY (ARRAY(SELECT q.row_ref \
                       FROM unnest($1::bigint[], $2::bigint[]) AS c(account, delivery) CROSS JOIN LATERAL \
                       (SELECT ctid AS row_ref FROM queue WHERE account = c.account AND delivery = c.delivery \
                       LIMIT 1) AS q))";
            execute(&tx, sql, &[&accounts, &deliveries, &lease]).await?;
            jobs = self.load(&tx, endpoint, lease, chosen).await?;
        }
        let mut limited_for = None;
        if let Some((rate, attempts)) = &mut counted {
            attempts.permit(*rate, &mut jobs);
            limited_for = attempts.limited_for(*rate);
            limited_attempts::write(&tx, endpoint, attempts).await?;
        }
        let next_due = self.next_due(&tx, endpoint, span.0).await?;
        tx.commit().await?;
        memory.note_stored(next_due.is_some_and(|at| at <= now));
        self.positions.found(endpoint, next_due, now);
        Ok(Claimed { jobs, next_due, limited_for })
    }

    async fn count_start(
        &self,
        endpoint: EndpointKey,
        rate: Rate,
        earlier: Option<CountedStart>,
        validity: Duration,
    ) -> Result<Option<CountedStart>, StoreError> {
        // Nothing is sent to an endpoint that is not there any more.
        let Some(target) = self.view.target(endpoint) else { return Ok(None) };
        let memory = self.endpoint_memory.of(endpoint, &target);
        let _counting = memory.counting().await;
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let mut attempts = limited_attempts::lock(&tx, endpoint).await?;
        let counted = attempts.count_start(rate, earlier, validity);
        if attempts.is_changed() {
            limited_attempts::write(&tx, endpoint, &attempts).await?;
            tx.commit().await?;
        }
        Ok(counted)
    }

    async fn due_endpoints(&self) -> Result<Vec<(EndpointKey, Timestamp)>, StoreError> {
        let active = self.view.active_endpoints();
        let now = self.now();
        let from = self.positions.look_from(&active, now);
        let keys: Vec<i64> = active.iter().map(|key| key.0).collect();
        let db = self.client().await?;
        let sql = "SELECT e.key, q.due_at FROM unnest($1::bigint[], $2::bigint[]) AS e(key, first) CROSS JOIN LATERAL \
                   (SELECT due_at FROM queue WHERE endpoint = e.key AND due_at >= e.first ORDER BY due_at \
                   LIMIT 1) AS q";
        let mut due = HashMap::default();
        for row in rows(&db, sql, &[&keys, &from]).await? {
            due.insert(EndpointKey(get(&row, "key")?), Timestamp::from_millis(get(&row, "due_at")?));
        }
        self.positions.found_all(&active, &due, now);
        Ok(due.into_iter().collect())
    }

    fn settle_window(&self) -> Duration {
        SETTLE_WINDOW
    }

    async fn settle(
        &self,
        settlements: Arc<Vec<Settlement>>,
        isolation: Isolation,
    ) -> Result<Vec<Settled>, StoreError> {
        // Differs by necessity: each batch is a transaction of its own, and fails alone. An outdated node begins no
        // batch, but ends what it has begun, as far as its lease stands.
        if isolation == Isolation::Shared {
            self.node.check_admitted()?;
        }
        match self.settle_delivered(&settlements).await? {
            Some(settled) => Ok(settled),
            None => self.settle_batch(&settlements, None).await,
        }
    }

    async fn release(&self, mut deliveries: Vec<Unattempted>) -> Result<(), StoreError> {
        // In the order of the ids, as whoever writes outcomes locks them.
        deliveries.sort_unstable_by_key(|row| row.delivery);
        let mut db = self.client().await?;
        let owners = self.owners(&db, deliveries.iter().map(|row| row.endpoint)).await?;
        deliveries.retain(|row| owners.contains_key(&row.endpoint));
        let accounts = column(&deliveries, |row| owners[&row.endpoint].0);
        let released = if deliveries.iter().any(is_limited) {
            self.release_limited(&mut db, &accounts, &deliveries).await?
        } else {
            let now = self.now().as_millis();
            release(&db, &accounts, &deliveries, &vec![now; deliveries.len()]).await?
        };
        drop(db);
        let (mut endpoints, mut replays) = (BTreeSet::new(), BTreeSet::new());
        for row in &released {
            endpoints.insert(EndpointKey(get(row, "endpoint")?));
            replays.extend(get::<Option<i64>>(row, "replay")?);
        }
        super::cancellation::take_back(&self.pool, &self.shared, replays).await?;
        for endpoint in endpoints {
            // It may have become active again while its deliveries were on their way back. A little later: what made
            // this one come back may still be so.
            if self.view.target(endpoint).is_some_and(|target| target.active) {
                self.nudge(endpoint, self.now().plus(RELEASED_DELAY));
            }
        }
        Ok(())
    }
}

impl Store {
    /// Gives leased rows of the queue back, takes out what was counted for those that it gives back, and lets those
    /// that their rate limit has delayed keep their places. All is one commit: a release that comes twice takes out
    /// what was counted once.
    async fn release_limited(
        &self,
        db: &mut Object,
        accounts: &[i64],
        deliveries: &[Unattempted],
    ) -> Result<Vec<Row>, StoreError> {
        let tx = db.transaction().await?;
        let mut counted = limited_attempts::lock_known(&tx, deliveries).await?;
        let (now, mut first_due) = (self.now(), BTreeMap::new());
        let endpoints: Vec<i64> = counted.keys().map(|endpoint| endpoint.0).collect();
        let positions: Vec<i64> = counted.keys().map(|endpoint| self.positions.claim_from(*endpoint, now)).collect();
        let sql = "SELECT w.endpoint, q.due_at FROM unnest($1::bigint[], $2::bigint[]) AS w(endpoint, position) \
                   CROSS JOIN LATERAL (SELECT due_at FROM queue WHERE endpoint = w.endpoint AND due_at >= w.position \
                   ORDER BY due_at LIMIT 1) AS q";
        for found in rows(&tx, sql, &[&endpoints, &positions]).await? {
            first_due.insert(EndpointKey(get(&found, "endpoint")?), when(&found, "due_at")?);
        }
        // Differs by necessity: claims of all nodes begin at the first of what waits (`positions`), so that nothing may
        // become due before it. What was due earlier gets the same time, and the lower id goes first.
        let due_again = |row: &Unattempted| {
            let first = first_due.get(&row.endpoint).map_or(now, |first| now.min(*first));
            row.due_at.map_or(now, |due_at| due_at.clamp(first, now)).as_millis()
        };
        let released = release(&tx, accounts, deliveries, &column(deliveries, due_again)).await?;
        let given_back: Result<Vec<DeliveryId>, StoreError> =
            released.iter().map(|row| Ok(DeliveryId(get(row, "delivery")?))).collect();
        give_back(&mut counted, deliveries, &given_back?);
        limited_attempts::write_all(&tx, &counted).await?;
        tx.commit().await?;
        Ok(released)
    }

    /// When the endpoint's next delivery is due. With it, the last change: those that were claimed are not older.
    async fn next_due(
        &self,
        tx: &Transaction<'_>,
        endpoint: EndpointKey,
        from: i64,
    ) -> Result<Option<Timestamp>, StoreError> {
        let began = Instant::now();
        let sql = "SELECT s.value, (SELECT due_at FROM queue WHERE endpoint = $1 AND due_at >= $2 \
                   ORDER BY due_at LIMIT 1) AS due_at FROM settings s WHERE s.name = 'generation'";
        let found = one(tx, sql, &[&endpoint.0, &from]).await?;
        self.freshness.found(get(&found, "value")?, began);
        time(&found, "due_at")
    }

    /// Reads the bodies of what was chosen. One that has none can never be sent: it stops nobody behind it.
    async fn load(
        &self,
        tx: &Transaction<'_>,
        endpoint: EndpointKey,
        lease: i64,
        chosen: Vec<Chosen>,
    ) -> Result<Vec<Leased>, StoreError> {
        let accounts: Vec<i64> = chosen.iter().map(|row| row.account).collect();
        let deliveries: Vec<i64> = chosen.iter().map(|row| row.delivery).collect();
        let events: Vec<i64> = chosen.iter().map(|row| row.event).collect();
        // One by one, by their whole keys. As a join, by a plan that was made while a new partition was small, each of
        // them read all bodies of the account, until somebody had analysed the tables. The spans of the ids limit the
        // partitions.
        let ((first_delivery, end_delivery), (first_event, end_event)) =
            (span(deliveries.iter().copied()), span(events.iter().copied()));
        let sql = "SELECT c.id, d.type, p.body, p.trace_context FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) \
                   AS c(account, id, event) CROSS JOIN LATERAL (SELECT type FROM deliveries WHERE account = c.account \
                   AND id = c.id AND id >= $4 AND id < $5 LIMIT 1) AS d CROSS JOIN LATERAL (SELECT body, trace_context \
                   FROM payloads WHERE account = c.account AND event = c.event AND event >= $6 AND event < $7 \
                   LIMIT 1) AS p";
        let parameters: super::sql::Params<'_> =
            &[&accounts, &deliveries, &events, &first_delivery, &end_delivery, &first_event, &end_event];
        let mut bodies = HashMap::default();
        for row in rows(tx, sql, parameters).await? {
            let body: Vec<u8> = get(&row, "body")?;
            let trace = get::<Option<&str>>(&row, "trace_context")?.and_then(TraceContext::from_column);
            bodies.insert(get::<i64>(&row, "id")?, (Arc::<str>::from(get::<&str>(&row, "type")?), trace, body));
        }
        let mut jobs = Vec::with_capacity(chosen.len());
        for row in chosen {
            let Some((event_type, trace, body)) = bodies.remove(&row.delivery) else {
                give_up(tx, row.account, row.delivery).await?;
                continue;
            };
            let kind = match row.replay {
                _ if &*event_type == TEST_TYPE => DeliveryKind::Test,
                Some(replay) => DeliveryKind::Replay(replay),
                None => DeliveryKind::Event,
            };
            let job = Job {
                id: DeliveryId(row.delivery),
                endpoint,
                lease,
                kind,
                event_type,
                attempts_made: row.attempts_made,
                failures: row.failures,
                trace,
                body: body.into(),
            };
            let permit = row.permit.named(self.node.in_memory(), job.id);
            jobs.push(Leased::new(job, row.due_at, permit));
        }
        Ok(jobs)
    }
}

/// Gives leased rows of the queue back, which are due from these times on. Found as those of `settle::SETTLE` are.
async fn release(
    db: &impl GenericClient,
    accounts: &[i64],
    deliveries: &[Unattempted],
    due_at: &[i64],
) -> Result<Vec<Row>, StoreError> {
    let sql = "WITH r AS MATERIALIZED (SELECT q.row_ref, r.lease, r.due_at \
               FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) \
               AS r(account, delivery, lease, due_at) \
               CROSS JOIN LATERAL (SELECT ctid AS row_ref, lease FROM queue WHERE account = r.account \
               AND delivery = r.delivery LIMIT 1) AS q WHERE q.lease = r.lease) \
               UPDATE queue q SET lease = NULL, due_at = r.due_at FROM r WHERE q.ctid = r.row_ref \
               AND coalesce(q.lease, 0) = r.lease RETURNING q.endpoint, q.replay, q.delivery";
    let (ids, leases) = (column(deliveries, |row| row.delivery.0), column(deliveries, |row| row.lease));
    rows(db, sql, &[&accounts, &ids, &leases, &due_at]).await
}

/// Chooses deliveries of one kind that became due within the span and that nobody else is choosing, as far as there is
/// memory. Returns whether there was none for a delivery.
async fn choose(
    tx: &Transaction<'_>,
    endpoint: EndpointKey,
    kind: &str,
    limit: usize,
    (from, now): (i64, i64),
    reserve: impl Fn(usize) -> Option<MemoryPermit>,
    chosen: &mut Vec<Chosen>,
) -> Result<bool, StoreError> {
    let sql = format!(
        "SELECT account, delivery, event, size, attempt, failures, replay, due_at FROM queue WHERE endpoint = $1 \
         AND due_at >= $2 AND due_at <= $3 AND {kind} ORDER BY due_at, delivery LIMIT $4 FOR UPDATE SKIP LOCKED"
    );
    for row in rows(tx, &sql, &[&endpoint.0, &from, &now, &sql_limit(limit)]).await? {
        let Some(permit) = reserve(whole(&row, "size")?) else { return Ok(true) };
        chosen.push(Chosen {
            account: get(&row, "account")?,
            delivery: get(&row, "delivery")?,
            event: get(&row, "event")?,
            attempts_made: whole(&row, "attempt")?,
            failures: whole(&row, "failures")?,
            replay: maybe_whole(&row, "replay")?,
            due_at: when(&row, "due_at")?,
            permit,
        });
    }
    Ok(false)
}

/// Closes a delivery whose event is gone.
async fn give_up(tx: &Transaction<'_>, account: i64, delivery: i64) -> Result<(), StoreError> {
    tracing::error!(delivery, "a delivery has no event any more and is given up");
    execute(tx, "DELETE FROM queue WHERE account = $1 AND delivery = $2", &[&account, &delivery]).await?;
    let sql = concat!(
        "UPDATE deliveries SET status = ",
        literal!(DeliveryStatus::Failed),
        ", error_message = 'its event is gone' WHERE account = $1 AND id = $2"
    );
    execute(tx, sql, &[&account, &delivery]).await?;
    Ok(())
}

//! Writes outcomes, as `transition` decides. Successes of healthy endpoints take one statement. All other outcomes take
//! a transaction, which locks the healths of their endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use deadpool_postgres::{GenericClient, Transaction};
use foldhash::HashMap;

use super::catalog_rows::health;
use super::change_feed::{Change, write_change};
use super::operational_events::{AfterCommit, Failure, Paused, operational_events_of};
use super::sql::{column, execute, get, number, rows, span, text};
use super::store::Store;
use super::stored_replies::write_pending_reply;
use crate::domain::delivery::{DeliveryKind, DeliveryStatus};
use crate::domain::endpoint::EndpointHealth;
use crate::domain::id::{AccountKey, DeliveryId, EndpointId, EndpointKey, IdTimes};
use crate::domain::retry::RetrySchedule;
use crate::domain::time::Timestamp;
use crate::domain::transition::{Verdict, classify, transition};
use crate::store::errors::StoreError;
use crate::store::numbers::sql_counter;
use crate::store::settings::{delivery_settings, readable};
use crate::store::status::is_open;
use crate::store::values::{PendingReply, Settled, Settlement};

/// What ends so long after its acceptance may have outlived the time of its body: the shortest that can be set.
const SHORTEST_BODY_RETENTION: Duration = Duration::from_secs(3_600);

/// What becomes of one settlement's delivery.
struct Written<'a> {
    settlement: &'a Settlement,
    account: AccountKey,
    status: DeliveryStatus,
    failures: u32,
    next_retry_at: Option<Timestamp>,
}

/// Healths of endpoints, and the versions that these have.
type Healths = HashMap<EndpointKey, (EndpointHealth, i64)>;

/// Whether outcomes are written only when none of their endpoints has failures to be forgotten.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Healthy {
    Required,
    Whatever,
}

/// What was missed is missed no more when a replay has sent it. One by one, by whole keys, and then by the `ctid` of
/// the rows: a planner that joined the two tables read everything that anybody ever missed.
const FORGET_MISSED: &str = "DELETE FROM missed WHERE ctid = ANY (ARRAY(SELECT m.row_ref \
                             FROM unnest($1::bigint[], $2::bigint[]) AS s(account, delivery) CROSS JOIN LATERAL \
                             (SELECT endpoint, type, event FROM deliveries WHERE account = s.account \
                             AND id = s.delivery LIMIT 1) AS d CROSS JOIN LATERAL (SELECT ctid AS row_ref FROM missed \
                             WHERE account = s.account AND endpoint = d.endpoint AND type = d.type AND event = d.event \
                             LIMIT 1) AS m))";

/// What became of each, in the order of the settlements.
fn settled_of(settlements: &[Settlement], written: &[Written<'_>], lease_valid: &BTreeSet<i64>) -> Vec<Settled> {
    let next: HashMap<i64, Option<Timestamp>> =
        written.iter().map(|row| (row.settlement.delivery.0, row.next_retry_at)).collect();
    let settled = |settlement: &Settlement| match next.get(&settlement.delivery.0) {
        Some(next) if lease_valid.contains(&settlement.delivery.0) => next.map_or(Settled::Done, Settled::RetryAt),
        _ => Settled::LeaseLost,
    };
    settlements.iter().map(settled).collect()
}

fn is_late(delivery: DeliveryId, times: &IdTimes, now: Timestamp) -> bool {
    now.since(times.of(delivery.0)) >= SHORTEST_BODY_RETENTION
}

/// What has come to an end long after it was accepted may have outlived the time of its body, which was kept for it
/// alone.
async fn drop_spent_bodies(
    tx: &Transaction<'_>,
    written: &[Written<'_>],
    lease_valid: &BTreeSet<i64>,
    times: &IdTimes,
    now: Timestamp,
) -> Result<(), StoreError> {
    let late = |row: &&Written<'_>| {
        let id = row.settlement.delivery;
        lease_valid.contains(&id.0) && !row.status.is_open() && is_late(id, times, now)
    };
    let (accounts, ids): (Vec<i64>, Vec<i64>) =
        written.iter().filter(late).map(|row| (row.account.0, row.settlement.delivery.0)).unzip();
    if ids.is_empty() {
        return Ok(());
    }
    // One by one, by whole keys: see SETTLE.
    let sql = concat!(
        "WITH s AS MATERIALIZED (SELECT s.account, d.event FROM unnest($1::bigint[], $2::bigint[]) AS s(account, id) \
         CROSS JOIN LATERAL (SELECT event FROM deliveries WHERE account = s.account AND id = s.id LIMIT 1) AS d \
         CROSS JOIN LATERAL (SELECT payloads_gone FROM accounts WHERE key = s.account LIMIT 1) AS a WHERE d.event <= \
         a.payloads_gone) DELETE FROM payloads p USING s, events e WHERE e.account = s.account AND e.id = s.event \
         AND p.account = s.account AND p.event = s.event AND NOT EXISTS (SELECT 1 FROM queue q WHERE q.account = \
         s.account AND q.delivery = ANY(e.deliveries)) AND NOT EXISTS (SELECT 1 FROM deliveries o WHERE o.event = \
         e.id AND o.replay IS NOT NULL AND ",
        is_open!("o.status"),
        ")"
    );
    execute(tx, sql, &[&accounts, &ids]).await?;
    Ok(())
}

/// The queue first: what it says of the lease decides about everything else. Its rows are found one by one, by their
/// whole keys, and then named by their `ctid`: a planner that joined them read, when it was told that there are few,
/// all that the index of leases still had of rows long gone. What became of a lease meanwhile is asked in a way that
/// cannot use that index. The limits limit nothing: with them nobody expects more than one row, and deliveries are
/// looked up by their keys too. From `$17` to `$18` are the ids of the batch: the database opens the partitions of
/// these days and no others.
const SETTLE: &str = "WITH i AS MATERIALIZED (SELECT t.*, q.row_ref, q.turn \
                      FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::integer[], $5::integer[], \
                      $6::bigint[], $7::bigint[], $8::integer[], $9::bigint[], $10::text[], $11::text[], \
                      $12::bigint[]) AS t(account, id, status, attempt, failures, due_at, started_at, response_status, \
                      response_time_ms, response_body, error_message, lease) CROSS \
                      JOIN LATERAL (SELECT ctid AS row_ref, lease, turn FROM queue WHERE account = t.account \
                      AND delivery = t.id LIMIT 1) AS q WHERE q.lease = t.lease AND (NOT $16 OR NOT EXISTS (SELECT 1 \
                      FROM unnest($14::bigint[]) AS w(key) JOIN endpoints e ON e.key = w.key \
                      WHERE e.consecutive_failures > 0)) LIMIT cardinality($2::bigint[])), gone AS (DELETE \
                      FROM queue q USING i WHERE q.ctid = i.row_ref AND coalesce(q.lease, 0) = i.lease \
                      AND i.due_at IS NULL RETURNING i.*), waiting AS (UPDATE queue q \
                      SET lease = NULL, due_at = i.due_at, attempt = i.attempt, failures = i.failures FROM i \
                      WHERE q.ctid = i.row_ref AND coalesce(q.lease, 0) = i.lease AND i.due_at IS NOT NULL \
                      RETURNING i.*), settled AS MATERIALIZED (SELECT * FROM (SELECT * FROM gone UNION ALL SELECT * \
                      FROM waiting) AS w LIMIT cardinality($2::bigint[])), \
                      earlier AS (INSERT INTO attempts (account, delivery, attempt, started_at, response_status, \
                      response_time_ms, response_body, error_message) SELECT d.account, d.id, d.attempt, d.started_at, \
                      d.response_status, d.response_time_ms, d.response_body, d.error_message FROM settled h \
                      JOIN deliveries d ON d.account = h.account AND d.id = h.id AND d.id >= $17::bigint \
                      AND d.id < $18::bigint WHERE h.attempt > 1 AND d.started_at IS NOT NULL ON CONFLICT DO NOTHING), \
                      outcome AS (UPDATE deliveries d SET status = h.status, attempt = h.attempt, \
                      started_at = h.started_at, response_status = h.response_status, \
                      response_time_ms = h.response_time_ms, response_body = h.response_body, \
                      error_message = h.error_message FROM settled h WHERE d.account = h.account AND d.id = h.id \
                      AND d.id >= $17::bigint AND d.id < $18::bigint), \
                      counted AS (INSERT INTO counter_deltas (account, endpoint, total, last_delivery_at) \
                      SELECT account, endpoint, 0, at FROM unnest($13::bigint[], $14::bigint[], $15::bigint[]) \
                      AS l(account, endpoint, at)) \
                      SELECT id AS delivery, CASE WHEN due_at IS NULL THEN turn END AS fifo_endpoint FROM settled";

impl Store {
    /// Settles in one statement what was delivered to endpoints that have not failed of late, of which there is nothing
    /// to tell. `None` where there is more to it; then nothing was written.
    pub(super) async fn settle_delivered(
        &self,
        settlements: &[Settlement],
    ) -> Result<Option<Vec<Settled>>, StoreError> {
        let (now, times) = (self.now(), self.shared.id_times());
        let settings = self.shared.settings();
        let mut written = Vec::with_capacity(settlements.len());
        for settlement in settlements {
            let Settlement { delivery, endpoint, kind, failures, outcome, jitter, .. } = settlement;
            let plain = classify(outcome) == Verdict::Delivered
                && *kind == DeliveryKind::Event
                && !is_late(*delivery, &times, now);
            let (true, Some(target)) = (plain, self.view.target(*endpoint)) else { return Ok(None) };
            let next = transition(*kind, *failures, EndpointHealth::NEW, outcome, &settings.policy, now, *jitter);
            let (account, status, failures) = (target.account, next.status, next.failures);
            written.push(Written { settlement, account, status, failures, next_retry_at: next.next_retry_at });
        }
        let mut client = self.client().await?;
        let (lease_valid, fifo_endpoints) = self.write_outcomes(&client, &written, Healthy::Required).await?;
        if lease_valid.is_empty() {
            return Ok(None);
        }
        self.run_after_commit(&mut client, AfterCommit { fifo_endpoints, ..AfterCommit::default() }, now).await;
        Ok(Some(settled_of(settlements, &written, &lease_valid)))
    }

    pub(super) async fn settle_batch(
        &self,
        settlements: &[Settlement],
        pending_reply: Option<PendingReply<()>>,
    ) -> Result<Vec<Settled>, StoreError> {
        let now = self.now();
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let owners = self.owners(&tx, settlements.iter().map(|row| row.endpoint)).await?;
        write_pending_reply(&tx, pending_reply, &(), now).await?;
        let (mut healths, schedules) = self.lock_healths(&tx, settlements).await?;
        let before: HashMap<EndpointKey, EndpointHealth> =
            healths.iter().map(|(key, (health, _))| (*key, *health)).collect();
        // Where a health may change, only outcomes that will be written may change it.
        let guarded = if healths.is_empty() { None } else { Some(self.lock_leased(&tx, settlements, &owners).await?) };
        let settings = self.shared.settings();
        let mut written = Vec::with_capacity(settlements.len());
        for settlement in settlements {
            let Some(account) = owners.get(&settlement.endpoint).copied() else { continue };
            if guarded.as_ref().is_some_and(|leased| !leased.contains(&settlement.delivery.0)) {
                continue;
            }
            let Settlement { endpoint, kind, failures, outcome, jitter, .. } = settlement;
            let (known, version) = healths.get(endpoint).copied().unwrap_or((EndpointHealth::NEW, i64::MIN));
            let policy = settings.policy.of_endpoint(schedules.get(endpoint));
            let next = transition(*kind, *failures, known, outcome, &policy, now, *jitter);
            // An attempt at what the endpoint was before its owner changed it tells nothing of what it is now.
            if outcome.endpoint_version >= version
                && let Some(entry) = healths.get_mut(endpoint)
            {
                entry.0 = next.health;
            }
            let (status, failures, next_retry_at) = (next.status, next.failures, next.next_retry_at);
            written.push(Written { settlement, account, status, failures, next_retry_at });
        }
        let (lease_valid, fifo_endpoints) = self.write_outcomes(&tx, &written, Healthy::Whatever).await?;
        let paused = self.write_healths(&tx, &before, &healths, now).await?;
        let mut after = self.announce_outcomes(&tx, &written, &lease_valid, &paused, &healths, now).await?;
        after.fifo_endpoints.extend(fifo_endpoints);
        drop_spent_bodies(&tx, &written, &lease_valid, &self.shared.id_times(), now).await?;
        if paused.is_empty() {
            tx.commit().await?;
        } else {
            for key in paused {
                write_change(&tx, Change::Endpoint(key), now).await?;
            }
            self.commit(tx).await?;
        }
        self.run_after_commit(&mut client, after, now).await;
        Ok(settled_of(settlements, &written, &lease_valid))
    }

    /// Whose endpoints these are. One that is nowhere is deleted, and so are its deliveries.
    pub(super) async fn owners(
        &self,
        db: &impl GenericClient,
        endpoints: impl Iterator<Item = EndpointKey>,
    ) -> Result<HashMap<EndpointKey, AccountKey>, StoreError> {
        let (mut owners, mut unknown) = (HashMap::default(), Vec::new());
        for endpoint in endpoints {
            match self.view.target(endpoint) {
                Some(target) => _ = owners.insert(endpoint, target.account),
                None => unknown.push(endpoint.0),
            }
        }
        if !unknown.is_empty() {
            for row in
                rows(db, "SELECT key, account FROM endpoints WHERE key = ANY($1) AND deleted_at IS NULL", &[&unknown])
                    .await?
            {
                owners.insert(EndpointKey(get(&row, "key")?), AccountKey(get(&row, "account")?));
            }
        }
        Ok(owners)
    }

    /// The health of every endpoint that this batch may change, until the transaction ends: those with a failure, and
    /// those with a success after failures. With each, the version that it has now. Also the schedules of those that
    /// have one of their own. The schedule of an endpoint whose settings cannot be read is the server's.
    async fn lock_healths(
        &self,
        tx: &Transaction<'_>,
        settlements: &[Settlement],
    ) -> Result<(Healths, HashMap<EndpointKey, RetrySchedule>), StoreError> {
        let mut failing: BTreeMap<i64, bool> = BTreeMap::new();
        for settlement in settlements {
            *failing.entry(settlement.endpoint.0).or_default() |= classify(&settlement.outcome) != Verdict::Delivered;
        }
        let (keys, failing): (Vec<i64>, Vec<bool>) = failing.into_iter().unzip();
        let sql = "SELECT e.key, e.id, e.status, e.consecutive_failures, e.failing_since, e.version, e.settings \
                   FROM unnest($1::bigint[], $2::boolean[]) AS w(key, failing) JOIN endpoints e ON e.key = w.key \
                   WHERE e.deleted_at IS NULL AND (w.failing OR e.consecutive_failures > 0) ORDER BY e.key FOR \
                   UPDATE OF e";
        let (mut healths, mut schedules) = (Healths::default(), HashMap::default());
        for row in rows(tx, sql, &[&keys, &failing]).await? {
            let key = EndpointKey(get(&row, "key")?);
            let shown = self.view.target(key);
            let known = shown.as_ref().map(|target| &*target.delivery);
            let id = EndpointId(get(&row, "id")?);
            let Some(health) = readable(id, health(&row))? else { continue };
            healths.insert(key, (health, get(&row, "version")?));
            let read = get(&row, "settings").and_then(|settings| delivery_settings(settings, known));
            let settings = readable(id, read)?;
            schedules.extend(settings.and_then(|settings| settings.retry_schedule).map(|schedule| (key, schedule)));
        }
        Ok((healths, schedules))
    }

    /// Those deliveries of the batch whose leases still stand, until the transaction ends.
    async fn lock_leased(
        &self,
        tx: &Transaction<'_>,
        settlements: &[Settlement],
        owners: &HashMap<EndpointKey, AccountKey>,
    ) -> Result<BTreeSet<i64>, StoreError> {
        let mut named: Vec<(i64, i64, i64)> = settlements
            .iter()
            .filter_map(|settlement| {
                Some((settlement.delivery.0, owners.get(&settlement.endpoint)?.0, settlement.lease))
            })
            .collect();
        named.sort_unstable();
        // One by one, in the order of the ids, each by its whole key: see SETTLE.
        let sql = "SELECT q.delivery FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS s(delivery, account, \
                   lease) CROSS JOIN LATERAL (SELECT delivery, lease FROM queue WHERE account = s.account \
                   AND delivery = s.delivery LIMIT 1 FOR UPDATE) AS q WHERE q.lease = s.lease";
        let parameters: super::sql::Params<'_> =
            &[&column(&named, |row| row.0), &column(&named, |row| row.1), &column(&named, |row| row.2)];
        rows(tx, sql, parameters).await?.iter().map(|row| get(row, "delivery")).collect()
    }

    /// Writes what came of attempts whose leases are still valid. Returns their deliveries, and the FIFO endpoints
    /// of which deliveries have ended.
    async fn write_outcomes(
        &self,
        db: &impl GenericClient,
        rows_of: &[Written<'_>],
        healthy: Healthy,
    ) -> Result<(BTreeSet<i64>, BTreeSet<i64>), StoreError> {
        // In the order of the ids: two batches that touch the same rows never wait for each other in a circle.
        let mut sorted: Vec<&Written<'_>> = rows_of.iter().collect();
        sorted.sort_unstable_by_key(|row| row.settlement.delivery);
        let mut last = BTreeMap::<(i64, i64), i64>::new();
        // Whole keys of first attempts of replayed deliveries: accounts and deliveries.
        let mut replayed: (Vec<i64>, Vec<i64>) = Default::default();
        for row in &sorted {
            let at = row.settlement.outcome.started_at.as_millis();
            let entry = last.entry((row.account.0, row.settlement.endpoint.0)).or_insert(at);
            *entry = at.max(*entry);
            if matches!(row.settlement.kind, DeliveryKind::Replay(_)) && row.settlement.attempts_made == 0 {
                replayed.0.push(row.account.0);
                replayed.1.push(row.settlement.delivery.0);
            }
        }
        let outcomes = || sorted.iter().map(|row| &row.settlement.outcome);
        let (first, end) = span(sorted.iter().map(|row| row.settlement.delivery.0));
        let parameters: super::sql::Params<'_> = &[
            &column(&sorted, |row| row.account.0),
            &column(&sorted, |row| row.settlement.delivery.0),
            &column(&sorted, |row| i16::try_from(row.status.to_column()).expect("there are few statuses")),
            &column(&sorted, |row| sql_counter(row.settlement.attempts())),
            &column(&sorted, |row| sql_counter(row.failures)),
            &column(&sorted, |row| row.next_retry_at.map(Timestamp::as_millis)),
            &column(outcomes(), |outcome| outcome.started_at.as_millis()),
            &column(outcomes(), |outcome| outcome.http_status.map(i32::from)),
            &column(outcomes(), |outcome| i64::from(outcome.duration_ms)),
            &column(outcomes(), |outcome| outcome.body.clone().map(text)),
            &column(outcomes(), |outcome| outcome.error.clone().map(text)),
            &column(&sorted, |row| row.settlement.lease),
            &column(last.keys(), |key| key.0),
            &column(last.keys(), |key| key.1),
            &column(last.values(), |at| *at),
            &(healthy == Healthy::Required),
            &first,
            &end,
        ];
        let (mut lease_valid, mut fifo_endpoints) = (BTreeSet::new(), BTreeSet::new());
        for row in rows(db, SETTLE, parameters).await? {
            lease_valid.insert(get(&row, "delivery")?);
            fifo_endpoints.extend(number(&row, "fifo_endpoint")?);
        }
        if !replayed.0.is_empty() {
            execute(db, FORGET_MISSED, &[&replayed.0, &replayed.1]).await?;
        }
        Ok((lease_valid, fifo_endpoints))
    }

    /// Tells those who want to know which deliveries failed for good, and which endpoints were paused.
    async fn announce_outcomes(
        &self,
        tx: &Transaction<'_>,
        written: &[Written<'_>],
        lease_valid: &BTreeSet<i64>,
        paused: &[EndpointKey],
        healths: &Healths,
        now: Timestamp,
    ) -> Result<AfterCommit, StoreError> {
        let mut failures = Vec::new();
        for Written { settlement, account, status, .. } in written {
            let for_good = *status == DeliveryStatus::Failed && settlement.kind != DeliveryKind::Test;
            if for_good && lease_valid.contains(&settlement.delivery.0) {
                let attempts = settlement.attempts();
                let Settlement { delivery, endpoint, ref outcome, .. } = **settlement;
                failures.push(Failure { account: *account, endpoint, delivery, attempts, outcome });
            }
        }
        let last = |key: &EndpointKey| written.iter().rev().find(|row| row.settlement.endpoint == *key);
        let pause = |key: &EndpointKey| {
            let row = last(key)?;
            let failures = healths.get(key).map_or(0, |(health, _)| health.consecutive_failures);
            let outcome = Some(&row.settlement.outcome);
            Some(Paused { account: row.account, endpoint: *key, failures, outcome })
        };
        let paused: Vec<Paused<'_>> = paused.iter().filter_map(pause).collect();
        if failures.is_empty() && paused.is_empty() {
            return Ok(AfterCommit::default());
        }
        let operational_events = operational_events_of(tx, &failures, &paused, &self.shared.failure_limit).await?;
        self.announce(tx, &operational_events, now).await
    }

    /// Writes what has changed of the healths. Returns the endpoints that have been paused with it.
    async fn write_healths(
        &self,
        tx: &Transaction<'_>,
        before: &HashMap<EndpointKey, EndpointHealth>,
        healths: &Healths,
        now: Timestamp,
    ) -> Result<Vec<EndpointKey>, StoreError> {
        let changed = |(key, (health, _)): (&EndpointKey, &(EndpointHealth, i64))| {
            let was = before.get(key).filter(|was| *was != health)?;
            Some((*key, *health, was.status != health.status))
        };
        let changed: Vec<(EndpointKey, EndpointHealth, bool)> = healths.iter().filter_map(changed).collect();
        if changed.is_empty() {
            return Ok(Vec::new());
        }
        // The rows are locked. They are found one by one: see SETTLE.
        let sql = "WITH h AS MATERIALIZED (SELECT t.*, l.row_ref FROM unnest($1::bigint[], $2::bigint[], \
                   $3::integer[], $4::bigint[], $5::boolean[]) AS t(key, status, failures, since, is_paused) \
                   CROSS JOIN LATERAL (SELECT ctid AS row_ref FROM endpoints WHERE key = t.key LIMIT 1) AS l) \
                   UPDATE endpoints e SET status = h.status, consecutive_failures = h.failures, \
                   failing_since = h.since, version = e.version + CASE WHEN h.is_paused THEN 1 ELSE 0 END, \
                   updated_at = CASE WHEN h.is_paused THEN $6::bigint ELSE e.updated_at END FROM h \
                   WHERE e.ctid = h.row_ref";
        let parameters: super::sql::Params<'_> = &[
            &column(&changed, |row| row.0.0),
            &column(&changed, |row| row.1.status.to_column()),
            &column(&changed, |row| sql_counter(row.1.consecutive_failures)),
            &column(&changed, |row| row.1.failing_since.map(Timestamp::as_millis)),
            &column(&changed, |row| row.2),
            &now.as_millis(),
        ];
        execute(tx, sql, parameters).await?;
        Ok(changed.into_iter().filter(|row| row.2).map(|row| row.0).collect())
    }
}

//! Sending again: one delivery at once, or the events of a stretch of time as a durable job.
//!
//! A step of a job looks for its next events, and then writes their deliveries and the job's new position in one
//! commit, if the position is still the one that it started from: every node tries, one of them wins.

use std::collections::BTreeSet;

use bytes::Bytes;
use deadpool_postgres::{GenericClient, Object};
use tokio_postgres::Row;

use super::bodies::with_bodies;
use super::cancellation::take_back_one;
use super::catalog_rows::active_and_fifo;
use super::catalog_rows::lock_account;
use super::change_feed::{Change, write_change};
use super::endpoints::find;
use super::fifo;
use super::ids::Ids;
use super::log::find_delivery;
use super::operational_events::AfterCommit;
use super::sql::{execute, get, one, parsed, read_row, row, rows, snapshot, time, when, whole};
use super::store::Store;
use super::stored_replies::write_pending_reply;
use crate::domain::audit::Action;
use crate::domain::channels::Channels;
use crate::domain::delivery::{Delivery, DeliveryStatus};
use crate::domain::id::{AccountId, AccountKey, DeliveryId, EndpointId, EndpointKey, EventId, IdTimes, ReplayId};
use crate::domain::payload_filter::PayloadFilter;
use crate::domain::replay::{NewReplay, Replay, ReplayStatus, Selection};
use crate::domain::subscription::{Subscription, includes};
use crate::store::contract::{ReplayWork, Replays};
use crate::store::errors::StoreError;
use crate::store::filter_checks::replay_bytes;
use crate::store::kept_events::KeptEvent;
use crate::store::numbers::{row_count, sql_limit};
use crate::store::replay_job::{Job, SCAN, SCAN_AT_ONCE, first_status, room};
use crate::store::settings::{channels_of, delivery_settings};
use crate::store::shared::{AuditRecord, check_open_replays, words};
use crate::store::status::literal;
use crate::store::values::{Missed, OpenReplay, PendingReply, Step};

/// A stretch of events that was looked through.
struct Scan {
    /// Those that are taken.
    found: Vec<i64>,
    /// The last event that was looked at; `None` where the stretch is at its end.
    up_to: Option<i64>,
}

/// An event that was looked at.
struct Candidate {
    event: i64,
    event_type: String,
    channels: Option<Channels>,
    /// Whether the job takes it as things are now. [`check_filter`] decides about the endpoint's filter.
    is_taken: bool,
}

impl Candidate {
    /// The filter that it must match.
    fn filter<'j>(&self, job: &'j Job) -> Option<&'j PayloadFilter> {
        job.subscription.filter_for(&self.event_type).filter(|_| self.is_taken)
    }

    /// The event before its body is read.
    fn without_body(&self) -> KeptEvent {
        let Self { event, event_type, channels, .. } = self;
        let (event_type, channels) = (event_type.clone(), channels.clone());
        KeptEvent { id: EventId(*event), event_type, channels, body: Bytes::new() }
    }
}

impl Replays for Store {
    async fn retry(
        &self,
        owner: AccountId,
        id: DeliveryId,
        pending_reply: Option<PendingReply<Delivery>>,
    ) -> Result<Delivery, StoreError> {
        let now = self.now();
        let mut client = self.client_for(Some(owner)).await?;
        let tx = client.transaction().await?;
        // The lock first: of two retries, the second finds the delivery under way.
        let sql = "SELECT d.account, d.endpoint FROM deliveries d JOIN accounts a ON a.key = d.account \
                   WHERE d.id = $1 AND a.id = $2 FOR UPDATE OF d";
        one(&tx, sql, &[&id.0, &owner.0]).await?;
        if find_delivery(&tx, owner, id, &self.shared.id_times()).await?.status.is_open() {
            return Err(StoreError::UnderWay);
        }
        let sql = "SELECT 1 FROM deliveries d JOIN events e ON e.account = d.account AND e.id = d.event \
                   JOIN accounts a ON a.key = d.account WHERE d.id = $1 AND a.id = $2 FOR KEY SHARE OF e";
        one(&tx, sql, &[&id.0, &owner.0]).await?;
        let sql = concat!(
            "UPDATE deliveries d SET status = ",
            literal!(DeliveryStatus::Retrying),
            " FROM accounts a WHERE a.key = d.account AND d.id = $1 AND a.id = $2 RETURNING d.account, d.endpoint"
        );
        let retried = one(&tx, sql, &[&id.0, &owner.0]).await?;
        let (account, endpoint): (i64, i64) = (get(&retried, "account")?, get(&retried, "endpoint")?);
        let sql = "INSERT INTO queue (account, delivery, endpoint, event, size, attempt, due_at, replay) \
                   SELECT d.account, d.id, d.endpoint, d.event, length(p.body), d.attempt, $3, d.replay \
                   FROM deliveries d JOIN payloads p ON p.account = d.account AND p.event = d.event \
                   WHERE d.account = $1 AND d.id = $2";
        if execute(&tx, sql, &[&account, &id.0, &now.as_millis()]).await? == 0 {
            return Err(StoreError::PayloadGone);
        }
        let mut due = vec![EndpointKey(endpoint)];
        let sql = concat!(
            "SELECT 1 FROM endpoints WHERE key = $1 AND ordering = ",
            literal!(Ordering::Fifo),
            " FOR NO KEY UPDATE"
        );
        if row(&tx, sql, &[&endpoint]).await?.is_some() {
            // It goes before those that wait.
            let sql =
                "UPDATE queue SET turn = endpoint, place = $3, due_at = NULL WHERE account = $1 AND delivery = $2";
            execute(&tx, sql, &[&account, &id.0, &fifo::FIRST_POSITION]).await?;
            due = fifo::make_heads_due(&tx, &self.shared.fifo_heads, &[endpoint].into(), now).await?;
        }
        let delivery = find_delivery(&tx, owner, id, &self.shared.id_times()).await?;
        self.audit(&tx, &AuditRecord::of(AccountKey(account), Action::DeliveryRetried, id), now).await?;
        write_pending_reply(&tx, pending_reply, &delivery, now).await?;
        tx.commit().await?;
        for endpoint in due {
            self.nudge(endpoint, now);
        }
        Ok(delivery)
    }

    async fn create_replay(
        &self,
        owner: AccountId,
        endpoint: EndpointId,
        new: NewReplay,
        pending_reply: Option<PendingReply<Replay>>,
    ) -> Result<Replay, StoreError> {
        let now = self.now();
        let mut client = self.client_for(Some(owner)).await?;
        // Most replays are counted before they are answered; the rest of the others is counted by their first steps.
        let db = snapshot(&mut client).await?;
        let job = requested_job(&db, owner, endpoint, new, &self.shared.id_times()).await?;
        let scan = scan(&db, &job, job.first, SCAN_AT_ONCE, usize::MAX).await?;
        drop(db);
        let (total, counted_to) = (row_count(scan.found.len()), scan.up_to);
        let tx = client.transaction().await?;
        // Two that are asked for at once wait for each other here: the bounds hold over all nodes.
        lock_account(&tx, owner).await?;
        execute(&tx, "SELECT 1 FROM endpoints WHERE key = $1 FOR UPDATE", &[&job.endpoint.0]).await?;
        let job = requested_job(&tx, owner, endpoint, new, &self.shared.id_times()).await?;
        check_open_replays(&open_of(&tx, job.account).await?, job.endpoint)?;
        let status = first_status(total, counted_to);
        let finished_at = (status == ReplayStatus::Completed).then(|| now.as_millis());
        let newest =
            one(&tx, "SELECT coalesce(max(id), 0) AS id FROM events WHERE account = $1", &[&job.account]).await?;
        let last = job.last.min(get(&newest, "id")?);
        let id = ReplayId::from_random(self.shared.random.array());
        let sql = "INSERT INTO replays (id, account, endpoint, selection, status, from_at, to_at, first, last, \
                   position, total, created_at, finished_at) \
                   VALUES ($1, $2, $3, $4::bigint, $5::bigint, $6, $7, $8, $9, $10, $11, $12, $13)";
        let parameters: super::sql::Params<'_> = &[
            &id.0,
            &job.account,
            &job.endpoint.0,
            &new.selection.to_column(),
            &status.to_column(),
            &new.from.as_millis(),
            &new.to.as_millis(),
            &job.first,
            &last,
            &counted_to.unwrap_or(job.first),
            &total,
            &now.as_millis(),
            &finished_at,
        ];
        execute(&tx, sql, parameters).await?;
        let replay = find_replay(&tx, owner, id).await?;
        self.audit(&tx, &AuditRecord::of(AccountKey(job.account), Action::ReplayCreated, id), now).await?;
        write_pending_reply(&tx, pending_reply, &replay, now).await?;
        write_change(&tx, Change::Replay, now).await?;
        self.commit(tx).await?;
        self.shared.replays.notify_one();
        Ok(replay)
    }

    async fn replay(&self, owner: AccountId, id: ReplayId) -> Result<Replay, StoreError> {
        find_replay(&*self.client_for(Some(owner)).await?, owner, id).await
    }

    async fn cancel_replay(&self, owner: AccountId, id: ReplayId) -> Result<(), StoreError> {
        let now = self.now();
        let mut client = self.client_for(Some(owner)).await?;
        let tx = client.transaction().await?;
        find_replay(&tx, owner, id).await?;
        let sql = "UPDATE replays SET status = $2::bigint, finished_at = $3 WHERE id = $1 AND finished_at IS NULL \
                   RETURNING key, account";
        let cancelled = row(&tx, sql, &[&id.0, &ReplayStatus::Cancelled.to_column(), &now.as_millis()]).await?;
        // One that is finished stays as it is.
        let Some(cancelled) = cancelled else { return Ok(()) };
        let key = get(&cancelled, "key")?;
        let fifo_endpoints = take_back_one(&tx, key).await?;
        let account = AccountKey(get(&cancelled, "account")?);
        self.audit(&tx, &AuditRecord::of(account, Action::ReplayCancelled, id), now).await?;
        // What is in memory comes back without an attempt: see `release`.
        write_change(&tx, Change::Cancelled(key), now).await?;
        self.commit(tx).await?;
        self.run_after_commit(&mut client, AfterCommit { fifo_endpoints, ..AfterCommit::default() }, now).await;
        Ok(())
    }

    async fn missed(&self, owner: AccountId, id: EndpointId) -> Result<Missed, StoreError> {
        let mut client = self.client_for(Some(owner)).await?;
        let db = snapshot(&mut client).await?;
        let endpoint = find(&db, owner, id).await?;
        let sql = "SELECT type, count(*) AS count, min(event) AS oldest FROM missed \
                   WHERE account = $1 AND endpoint = $2 GROUP BY type";
        let (times, mut missed) = (self.shared.id_times(), Missed::default());
        for row in rows(&db, sql, &[&endpoint.account.0, &endpoint.key.0]).await? {
            if includes(&endpoint.settings.events, get(&row, "type")?) {
                missed.add(whole(&row, "count")?, times.of(get(&row, "oldest")?));
            }
        }
        Ok(missed)
    }
}

impl ReplayWork for Store {
    async fn replay_wanted(&self) {
        self.shared.replays.notified().await;
    }

    async fn open_replays(&self) -> Result<Vec<OpenReplay>, StoreError> {
        let sql = "SELECT r.key, r.endpoint, r.status, a.id AS account FROM replays r \
                   JOIN endpoints e ON e.key = r.endpoint JOIN accounts a ON a.key = e.account \
                   WHERE r.finished_at IS NULL AND e.deleted_at IS NULL ORDER BY r.key";
        let mut open = Vec::new();
        for row in rows(&self.client().await?, sql, &[]).await? {
            let counts = parsed(&row, "status", ReplayStatus::from_column)? == ReplayStatus::Pending;
            let target = self.view.target(EndpointKey(get(&row, "endpoint")?));
            let ready = counts || target.is_some_and(|target| target.active);
            open.push(OpenReplay { key: get(&row, "key")?, account: AccountId(get(&row, "account")?), ready });
        }
        Ok(open)
    }

    async fn replay_step(&self, key: i64) -> Result<Step, StoreError> {
        let mut client = self.client().await?;
        let db = snapshot(&mut client).await?;
        let Some(job) = job(&db, key).await? else { return Ok(Step::Finished) };
        if job.status == ReplayStatus::Pending {
            let scan = scan(&db, &job, job.position, SCAN, usize::MAX).await?;
            drop(db);
            return count(&client, &job, &scan).await;
        }
        let room = room(waiting(&db, job.endpoint).await?);
        // The window is full; or all are made, and some are under way.
        if room == 0 || job.position >= job.last && unsent(&db, key).await? > 0 {
            return Ok(Step::Waiting);
        }
        let scan = scan(&db, &job, job.position, SCAN, room).await?;
        drop(db);
        if scan.up_to == Some(job.position) {
            return Ok(Step::Waiting);
        }
        self.advance(&mut client, &job, &scan).await
    }
}

impl Store {
    /// Writes deliveries of what was found, and how far the job has come.
    async fn advance(&self, client: &mut Object, job: &Job, scan: &Scan) -> Result<Step, StoreError> {
        let now = self.now();
        let first = self.shared.id_times().first_at(now);
        let mut ids = Ids::default().reserve(&*client, scan.found.len(), first, self.node.given()).await?.into_iter();
        let tx = client.transaction().await?;
        let sql = "SELECT made FROM replays WHERE key = $1 AND position = $2 AND finished_at IS NULL FOR UPDATE";
        // Cancelled, or another step was faster.
        let Some(found) = row(&tx, sql, &[&job.key, &job.position]).await? else { return Ok(Step::Waiting) };
        let before: i64 = get(&found, "made")?;
        debug_assert!(scan.up_to.is_none_or(|up_to| up_to >= job.position), "a replay never goes back");
        // Of two replays of one endpoint the second waits here, and sees what the first has made.
        let sql = "SELECT status, ordering FROM endpoints WHERE key = $1 AND deleted_at IS NULL FOR UPDATE";
        let Some(endpoint) = row(&tx, sql, &[&job.endpoint.0]).await? else { return Ok(Step::Finished) };
        let (active, is_fifo) = active_and_fifo(&endpoint)?;
        if !active && !scan.found.is_empty() {
            return Ok(Step::Waiting);
        }
        // They may have come to something since they were found, or have left with their retention; from here on they
        // stay.
        let sql = "SELECT 1 FROM events WHERE account = $1 AND id = ANY($2) ORDER BY id FOR KEY SHARE";
        execute(&tx, sql, &[&job.account, &scan.found]).await?;
        let candidates = candidates(&tx, job, "v.id = ANY($3)", &scan.found, i64::MAX).await?;
        let taken = candidates.iter().filter(|candidate| candidate.is_taken);
        let events: Vec<i64> = taken.map(|candidate| candidate.event).collect();
        let pairs: Vec<(i64, i64)> = ids.by_ref().zip(events).collect();
        let (ids, events): (Vec<i64>, Vec<i64>) = pairs.into_iter().unzip();
        let made = row_count(ids.len());
        if made > 0 {
            let sql = "WITH m AS MATERIALIZED (SELECT * FROM unnest($1::bigint[], $2::bigint[]) AS t(id, event)), \
                       made AS (INSERT INTO deliveries (account, id, endpoint, event, type, validation_id, replay) \
                       SELECT $3, m.id, $4, m.event, v.type, v.validation_id, $5 FROM m CROSS JOIN LATERAL \
                       (SELECT type, validation_id FROM events WHERE account = $3 AND id = m.event LIMIT 1) AS v), \
                       counted AS (INSERT INTO counter_deltas (account, endpoint, total) VALUES ($3, $4, $6)) \
                       INSERT INTO queue (account, delivery, endpoint, event, size, due_at, replay, turn, place) \
                       SELECT $3, m.id, $4, m.event, length(p.body), CASE WHEN $8 THEN NULL ELSE $7::bigint END, $5, \
                       CASE WHEN $8 THEN $4 END, CASE WHEN $8 THEN nextval('turns') END FROM m CROSS JOIN LATERAL \
                       (SELECT body FROM payloads WHERE account = $3 AND event = m.event LIMIT 1) AS p";
            let parameters: super::sql::Params<'_> =
                &[&ids, &events, &job.account, &job.endpoint.0, &job.key, &made, &now.as_millis(), &is_fifo];
            execute(&tx, sql, parameters).await?;
            if is_fifo {
                fifo::make_heads_due(&tx, &self.shared.fifo_heads, &[job.endpoint.0].into(), now).await?;
            }
        }
        let finished = scan.up_to.is_none() && unsent(&tx, job.key).await? == 0;
        let (status, total) =
            if finished { (ReplayStatus::Completed, Some(before + made)) } else { (job.status, None) };
        let sql = "UPDATE replays SET position = $2, made = $3, status = $4::bigint, \
                   total = coalesce($5::bigint, greatest(total, $3)), finished_at = $6 WHERE key = $1";
        let parameters: super::sql::Params<'_> = &[
            &job.key,
            &scan.up_to.unwrap_or(job.last.max(job.position)),
            &(before + made),
            &status.to_column(),
            &total,
            &finished.then(|| now.as_millis()),
        ];
        execute(&tx, sql, parameters).await?;
        tx.commit().await?;
        if made > 0 {
            self.nudge(job.endpoint, now);
        }
        Ok(if finished { Step::Finished } else { Step::Made(made.unsigned_abs()) })
    }
}

/// The endpoint's job as it would be now.
async fn requested_job(
    db: &impl GenericClient,
    owner: AccountId,
    id: EndpointId,
    new: NewReplay,
    times: &IdTimes,
) -> Result<Job, StoreError> {
    Ok(Job::requested(find(db, owner, id).await?, new, times))
}

async fn job(db: &impl GenericClient, key: i64) -> Result<Option<Job>, StoreError> {
    let sql = "SELECT r.endpoint, r.account, r.selection, r.status, r.first, r.last, r.position, e.events, \
               e.settings FROM replays r JOIN endpoints e ON e.key = r.endpoint \
               WHERE r.key = $1 AND r.finished_at IS NULL AND e.deleted_at IS NULL";
    let Some(row) = row(db, sql, &[&key]).await? else { return Ok(None) };
    let delivery = delivery_settings(get(&row, "settings")?, None)?;
    let entries = words(get(&row, "events")?);
    Ok(Some(Job {
        key,
        endpoint: EndpointKey(get(&row, "endpoint")?),
        account: get(&row, "account")?,
        subscription: Subscription { entries, channels: delivery.channels, filter: delivery.filter },
        selection: parsed(&row, "selection", Selection::from_column)?,
        status: parsed(&row, "status", ReplayStatus::from_column)?,
        first: get(&row, "first")?,
        last: get(&row, "last")?,
        position: get(&row, "position")?,
    }))
}

/// Deliveries of one replay that wait for their first attempt.
async fn unsent(db: &impl GenericClient, key: i64) -> Result<i64, StoreError> {
    let sql = "SELECT count(*) AS unsent FROM queue WHERE replay = $1 AND attempt = 0";
    get(&one(db, sql, &[&key]).await?, "unsent")
}

/// The unfinished replays of the account, each after its endpoint.
async fn open_of(db: &impl GenericClient, account: i64) -> Result<Vec<(EndpointKey, ReplayId)>, StoreError> {
    let sql = "SELECT r.endpoint, r.id FROM replays r JOIN endpoints e ON e.key = r.endpoint \
               WHERE e.account = $1 AND e.deleted_at IS NULL AND r.finished_at IS NULL ORDER BY r.key";
    let open = rows(db, sql, &[&account]).await?;
    open.iter().map(|row| Ok((EndpointKey(get(row, "endpoint")?), ReplayId(get(row, "id")?)))).collect()
}

/// Deliveries of the endpoint's replays that wait for their first attempt.
async fn waiting(db: &impl GenericClient, endpoint: EndpointKey) -> Result<usize, StoreError> {
    let sql = "SELECT count(*) AS waiting FROM replays r JOIN queue q ON q.replay = r.key AND q.attempt = 0 \
               WHERE r.endpoint = $1 AND r.finished_at IS NULL";
    whole(&one(db, sql, &[&endpoint.0]).await?, "waiting")
}

/// Events that `condition` names and that have their body still, in the order of their ids. The endpoint's filter is
/// not asked.
async fn candidates(
    db: &impl GenericClient,
    job: &Job,
    condition: &str,
    bounds: &[i64],
    limit: i64,
) -> Result<Vec<Candidate>, StoreError> {
    let sql = format!(
        "SELECT v.id, v.type, v.channels, ARRAY(SELECT d.status FROM unnest(v.deliveries) AS u(id) JOIN deliveries d \
         ON d.account = v.account AND d.id = u.id WHERE d.endpoint = $2 UNION ALL SELECT d.status FROM deliveries d \
         WHERE d.event = v.id AND d.endpoint = $2 AND d.replay IS NOT NULL) AS statuses \
         FROM events v CROSS JOIN LATERAL \
         (SELECT 1 FROM payloads WHERE account = v.account AND event = v.id LIMIT 1) AS p \
         WHERE v.account = $1 AND {condition} ORDER BY v.id LIMIT $4"
    );
    let mut found = Vec::new();
    for row in rows(db, &sql, &[&job.account, &job.endpoint.0, &bounds, &limit]).await? {
        let event_type: String = get(&row, "type")?;
        let statuses: Vec<i16> = get(&row, "statuses")?;
        let statuses: Option<Vec<_>> =
            statuses.into_iter().map(|status| DeliveryStatus::from_column(status.into())).collect();
        let statuses = statuses.ok_or_else(|| super::sql::corrupt("status"))?;
        let channels = channels_of(get(&row, "channels")?);
        let is_taken = job.admits(&event_type, channels.as_ref()) && job.takes(&event_type, &statuses);
        found.push(Candidate { event: get(&row, "id")?, event_type, channels, is_taken });
    }
    Ok(found)
}

/// Asks the endpoint's filter about the candidates that are taken, as far as one step may. The others are removed, and
/// looked at by the next step; the answer is whether there are some.
async fn check_filter(db: &impl GenericClient, job: &Job, looked_at: &mut Vec<Candidate>) -> Result<bool, StoreError> {
    let Some(filter) = job.subscription.filter.clone() else { return Ok(false) };
    let asked = looked_at.iter().filter(|candidate| candidate.filter(job).is_some());
    let asked: Vec<KeptEvent> = asked.map(Candidate::without_body).collect();
    let ids: Vec<i64> = asked.iter().map(|event| event.id.0).collect();
    let read = with_bodies(db, job.account, asked, replay_bytes(&filter)).await?;
    debug_assert!(ids.is_empty() || !read.is_empty(), "a candidate has its body, and the first one is read");
    let unread = ids.get(read.len()).copied();
    // Away from the threads that serve requests.
    let matching = move || {
        let matching = read.iter().filter(|event| filter.matches(&event.parsed()));
        matching.map(|event| event.id.0).collect::<BTreeSet<i64>>()
    };
    let matching = tokio::task::spawn_blocking(matching).await;
    let matching = matching.map_err(|_| StoreError::Unavailable("a check was interrupted".into()))?;
    if let Some(unread) = unread {
        looked_at.truncate(looked_at.partition_point(|candidate| candidate.event < unread));
    }
    for candidate in looked_at {
        if candidate.filter(job).is_some() {
            candidate.is_taken = matching.contains(&candidate.event);
        }
    }
    Ok(unread.is_some())
}

/// Looks at up to `most` events after `position`, until `most_taken` of them are taken, or until it has checked as many
/// bytes against the endpoint's filter as one step may.
async fn scan(
    db: &impl GenericClient,
    job: &Job,
    position: i64,
    most: usize,
    most_taken: usize,
) -> Result<Scan, StoreError> {
    let stretch = "v.id > ($3::bigint[])[1] AND v.id <= ($3::bigint[])[2]";
    let mut looked_at = candidates(db, job, stretch, &[position, job.last], sql_limit(most)).await?;
    let is_last = looked_at.len() < most;
    let goes_on = check_filter(db, job, &mut looked_at).await?;
    let mut scan = Scan { found: Vec::new(), up_to: None };
    for candidate in &looked_at {
        scan.up_to = Some(candidate.event);
        if candidate.is_taken {
            scan.found.push(candidate.event);
        }
        if scan.found.len() >= most_taken {
            return Ok(scan);
        }
    }
    if is_last && !goes_on {
        scan.up_to = None;
    }
    Ok(scan)
}

/// Goes on counting; at the end the job may run.
async fn count(db: &Object, job: &Job, scan: &Scan) -> Result<Step, StoreError> {
    let (status, position) = job.counted(scan.up_to);
    let sql = "UPDATE replays SET status = $2::bigint, position = $3, total = total + $4 \
               WHERE key = $1 AND position = $5 AND finished_at IS NULL";
    let parameters: super::sql::Params<'_> =
        &[&job.key, &status.to_column(), &position, &row_count(scan.found.len()), &job.position];
    execute(db, sql, parameters).await?;
    Ok(Step::Made(0))
}

/// One replay of the account; another account's does not exist.
async fn find_replay(db: &impl GenericClient, owner: AccountId, id: ReplayId) -> Result<Replay, StoreError> {
    let sql = "SELECT r.id, r.selection, r.status, r.from_at, r.to_at, r.total, r.created_at, r.finished_at, \
               e.id AS endpoint_id, r.made - (SELECT count(*) FROM queue q WHERE q.replay = r.key \
               AND q.attempt = 0) AS sent FROM replays r JOIN endpoints e ON e.key = r.endpoint WHERE r.id = $1 \
               AND e.deleted_at IS NULL AND e.account = (SELECT key FROM accounts WHERE id = $2 \
               AND deleted_at IS NULL)";
    replay_from_row(&one(db, sql, &[&id.0, &owner.0]).await?)
}

fn replay_from_row(row: &Row) -> Result<Replay, StoreError> {
    read_row("replays", row, |row| {
        Ok(Replay {
            id: ReplayId(get(row, "id")?),
            endpoint: EndpointId(get(row, "endpoint_id")?),
            requested: NewReplay {
                from: when(row, "from_at")?,
                to: when(row, "to_at")?,
                selection: parsed(row, "selection", Selection::from_column)?,
            },
            status: parsed(row, "status", ReplayStatus::from_column)?,
            total: whole(row, "total")?,
            sent: whole(row, "sent")?,
            created_at: when(row, "created_at")?,
            finished_at: time(row, "finished_at")?,
        })
    })
}

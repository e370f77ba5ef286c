//! The task that writes events: event, payload, fan-out and stored reply in one commit, for many requests at once.
//!
//! The writer takes what has gathered, reads who subscribes, and writes everything in one statement. There is no timer:
//! the batch grows with the load. There is one writer for each node: two of them made twice the commits of half the
//! size, and were slower by half.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, atomic};

use deadpool_postgres::Pool;
use foldhash::HashSet;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::catalog_rows::active_and_fifo;
use super::endpoint_memory::EndpointMemory;
use super::fan_out::{BatchNeeds, FanOut};
use super::freshness::Freshness;
use super::ids::Ids;
use super::lease::NO_NODE;
use super::node::Node;
use super::notifier::Notifier;
use super::sql::{get, rows};
use super::write::{DeliveryRow, EventRow, Write};
use crate::domain::delivery::{DeliveryKind, Job};
use crate::domain::event::{Event, NewEvent};
use crate::domain::id::{AccountId, AccountKey, DeliveryId, EndpointId, EndpointKey, EventId};
use crate::domain::settings::DeliverySettings;
use crate::domain::subscription::entries_of;
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::filter_checks::{CallChecks, Checks, Intaken, Publishing};
use crate::store::inbox::{Inbox, Leased, MemoryPermit, Nudge, SharedBody};
use crate::store::numbers::{body_size, delivery_count};
use crate::store::settings::{delivery_settings, readable};
use crate::store::shared::Shared;
use crate::store::values::PendingReply;
use crate::store::view::View;
use crate::store::write_shares::{BatchWeights, WriteShare, WriteSize};

/// Requests that may wait.
const QUEUE: usize = 4_096;

/// Requests, and bytes of bodies, in one commit.
const MAX_BATCH: usize = 512;

const MAX_BATCH_BYTES: usize = 8 << 20;

/// Events, deliveries and missed events in one commit; a single request may come to more.
const MAX_ROWS: usize = 20_000;

/// Which comes first: the writer begins with a request, or its caller gives it up. A request that was given up is never
/// written, so that its caller may publish again.
#[derive(Default)]
pub(super) struct Begin(AtomicBool);

impl Begin {
    /// Whether nobody was here before.
    pub fn is_first(&self) -> bool {
        !self.0.swap(true, atomic::Ordering::AcqRel)
    }
}

pub(super) struct Request {
    pub call: Publishing,
    pub reply: Reply,
    /// None where the writer has begun with it.
    pub begin: Option<Arc<Begin>>,
    /// Given back when the request has been written.
    pub share: Option<WriteShare>,
}

impl Request {
    fn bytes(&self) -> usize {
        WriteSize::bytes_of(&self.call.events)
    }
}

/// The way to the writer, which ends with the last of the handles.
#[derive(Clone)]
pub(super) struct Handle(pub mpsc::Sender<Request>);

impl Handle {
    /// Resolves when the writer has ended although there are handles: it has panicked.
    pub async fn ended(&self) {
        self.0.closed().await;
    }
}

/// What the writer works with.
pub(super) struct Parts {
    pub pool: Pool,
    pub view: View,
    pub shared: Arc<Shared>,
    pub node: Arc<Node>,
    pub endpoint_memory: EndpointMemory,
    pub notifier: Notifier,
    pub freshness: Arc<Freshness>,
}

/// Starts the writer.
pub(super) fn start(parts: Parts) -> Handle {
    let (queue, requests) = mpsc::channel(QUEUE);
    let writer = Writer { parts, ids: Ids::default(), known: None };
    tokio::spawn(writer.run(Waiting { requests, next: None }));
    Handle(queue)
}

struct Waiting {
    requests: mpsc::Receiver<Request>,
    /// One that did not fit into the last batch.
    next: Option<Request>,
}

impl Waiting {
    /// The next batch; `None` when the store is closed.
    async fn batch(&mut self) -> Option<Vec<Request>> {
        let first = match self.next.take() {
            Some(next) => next,
            None => self.requests.recv().await?,
        };
        let mut bytes = first.bytes();
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && let Ok(next) = self.requests.try_recv()
        {
            bytes += next.bytes();
            if bytes > MAX_BATCH_BYTES {
                self.next = Some(next);
                break;
            }
            batch.push(next);
        }
        Some(batch)
    }
}

struct Writer {
    parts: Parts,
    ids: Ids,
    /// Who subscribed when it was last read.
    known: Option<FanOut>,
}

impl Writer {
    async fn run(mut self, mut waiting: Waiting) {
        while let Some(batch) = waiting.batch().await {
            self.accept(batch).await;
        }
    }

    /// Accepts a batch by what is known of its subscribers, and reads them where that is not enough.
    async fn accept(&mut self, batch: Vec<Request>) {
        let needs = BatchNeeds::of(batch.iter().map(|request| &request.call));
        let known = self.known.take();
        let batch = match &known {
            Some(known) if known.suffices(&needs, self.parts.freshness.generation()) => {
                self.accept_by(batch, known, Some(known.generation)).await
            }
            _ => batch,
        };
        if batch.is_empty() {
            self.known = known;
            return;
        }
        match super::time_limit::in_time(self.read(&needs)).await {
            Ok(mut fan_out) => {
                self.accept_by(batch, &fan_out, None).await;
                fan_out.taken.clear();
                self.known = Some(fan_out.with(known));
            }
            Err(error) => {
                for request in batch {
                    let _ = request.reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// Accepts a batch, in as many commits as its fan-out needs. Returns those for which it was planned at a change
    /// that is no longer the last.
    async fn accept_by(&mut self, batch: Vec<Request>, fan_out: &FanOut, planned_at: Option<i64>) -> Vec<Request> {
        let (mut part, mut again) = (Vec::new(), Vec::new());
        let (mut ids, mut rows) = (0, 0);
        for request in batch {
            let (more_ids, more_missed) = fan_out.rows_of(&request.call);
            let more = more_ids + more_missed;
            if rows + more > MAX_ROWS && !part.is_empty() {
                again.extend(self.accept_part(std::mem::take(&mut part), fan_out, ids, planned_at).await);
                (ids, rows) = (0, 0);
            }
            (ids, rows) = (ids + more_ids, rows + more);
            part.push(request);
        }
        again.extend(self.accept_part(part, fan_out, ids, planned_at).await);
        again
    }

    /// Writes requests in one commit and answers each of them, or returns them. They take so many ids.
    async fn accept_part(
        &mut self,
        part: Vec<Request>,
        fan_out: &FanOut,
        ids: usize,
        planned_at: Option<i64>,
    ) -> Vec<Request> {
        let part_began = Instant::now();
        let (planned, refused) = match super::time_limit::in_time(self.reserve(ids)).await {
            Ok(ids) => self.plan(part, fan_out, ids, planned_at),
            Err(error) => (None, part.into_iter().map(|request| (request.reply, Err(error.clone()))).collect()),
        };
        for (reply, answer) in refused {
            // A caller that has gone away no longer wants to know.
            let _ = reply.send(answer);
        }
        let Some((write, planned)) = planned else { return Vec::new() };
        let began = Instant::now();
        let written =
            super::time_limit::in_time(write.run_in_its_day(&self.parts.pool, &self.parts.shared.fifo_heads)).await;
        match &written {
            Ok(written) => {
                self.parts.freshness.found(written.generation, began);
                if write.is_late(written.generation) {
                    return planned.into_iter().map(Planned::again).collect();
                }
                self.hand_over(Vec::new(), written.due.iter().copied().collect(), write.now);
            }
            Err(error) => tracing::error!(%error, requests = planned.len(), "events could not be accepted"),
        }
        let sizes = planned.iter().filter_map(|plan| Some((plan.accepted.first()?.account.0, plan.size)));
        let (weights, ended) = (BatchWeights::of(sizes), Instant::now());
        for Planned { accepted, jobs, due, has_key, reply, size, share, .. } in planned {
            if let (Some(share), Some(first)) = (share, accepted.first()) {
                let began = weights.began(first.account.0, part_began, ended);
                drop(share.ran(began, accepted.len(), size));
            }
            let answer = match &written {
                Ok(_) => {
                    self.hand_over(jobs, due, write.now);
                    Ok(Intaken::Written(accepted))
                }
                // The database does not say whose key was taken in this very moment. The others may come again.
                Err(StoreError::KeyTaken) if !has_key => {
                    Err(StoreError::Unavailable("another request of the same commit was refused".into()))
                }
                Err(error) => Err(error.clone()),
            };
            let _ = reply.send(answer);
        }
        Vec::new()
    }

    /// Tells the engine of what was accepted.
    fn hand_over(&self, jobs: Vec<Leased>, due: BTreeSet<EndpointKey>, now: Timestamp) {
        if let Some(inbox) = &self.parts.shared.inbox {
            if !jobs.is_empty() {
                inbox.send(Nudge::Jobs(jobs));
            }
            for endpoint in &due {
                inbox.send(Nudge::Due(*endpoint, now));
            }
        }
        // Other nodes may have memory for what has none here.
        if self.parts.shared.inbox.is_none() || self.parts.node.share().nodes > 1 {
            for endpoint in due {
                self.parts.notifier.notify(endpoint);
            }
        }
    }

    /// So many ids.
    async fn reserve(&mut self, count: usize) -> Result<Vec<i64>, StoreError> {
        let db = self.parts.pool.get().await?;
        let shared = &self.parts.shared;
        self.ids.reserve(&db, count, shared.id_times().first_at(shared.clock.now()), self.parts.node.given()).await
    }

    /// Reads who subscribes to what the batch holds.
    async fn read(&self, needs: &BatchNeeds) -> Result<FanOut, StoreError> {
        let (accounts, types): (Vec<Uuid>, Vec<&str>) =
            needs.events.iter().map(|(id, name)| (id.0, name.as_str())).unzip();
        let entries: Vec<String> = types.iter().map(|name| entries_of(name)).collect();
        let db = self.parts.pool.get().await?;
        let sql = "SELECT g.value, w.id, w.type, a.key AS account, t.name IS NOT NULL AS known, e.key, \
                   e.id AS endpoint, e.status, e.ordering, e.settings FROM settings g \
                   CROSS JOIN unnest($1::uuid[], $2::text[], $3::text[]) AS w(id, type, entries) \
                   LEFT JOIN accounts a ON a.id = w.id AND a.deleted_at IS NULL \
                   LEFT JOIN event_types t ON t.name = w.type LEFT JOIN LATERAL (SELECT DISTINCT endpoint \
                   FROM subscriptions WHERE account = a.key AND type = ANY(string_to_array(w.entries, ' '))) AS s \
                   ON true LEFT JOIN endpoints e ON e.key = s.endpoint AND e.deleted_at IS NULL \
                   WHERE g.name = 'generation' ORDER BY e.key";
        let mut fan_out = FanOut::default();
        for row in rows(&db, sql, &[&accounts, &types, &entries]).await? {
            fan_out.generation = get(&row, "value")?;
            let whose: (_, String) = (AccountId(get(&row, "id")?), get(&row, "type")?);
            if let Some(account) = get(&row, "account")? {
                fan_out.accounts.insert(whose.0, AccountKey(account));
            }
            if get(&row, "known")? {
                fan_out.types.insert(whose.1.clone());
            }
            let Some(key) = get::<Option<i64>>(&row, "key")?.map(EndpointKey) else { continue };
            // The view has a filter compiled already.
            let shown = self.parts.view.target(key);
            let known = shown.as_ref().map(|target| &*target.delivery);
            let endpoint = EndpointId(get(&row, "endpoint")?);
            let read = active_and_fifo(&row).and_then(|(is_active, is_fifo)| {
                Ok((is_active, is_fifo, delivery_settings(get(&row, "settings")?, known)?))
            });
            let read = readable(endpoint, read)?;
            // Which events an endpoint wants is not known while its row cannot be read: it misses them all.
            let receives = matches!(read, Some((true, ..)));
            let subscribers = if receives { &mut fan_out.active } else { &mut fan_out.paused };
            subscribers.entry(whose).or_default().push(key);
            let Some((_, is_fifo, delivery)) = read else { continue };
            if is_fifo {
                fan_out.fifo.insert(key);
            }
            fan_out.has_filters |= delivery.filter.is_some();
            if delivery != DeliverySettings::default() {
                fan_out.delivery.insert(key, Arc::new(delivery));
            }
        }
        fan_out.read_for = needs.events.iter().cloned().collect();
        fan_out.taken = super::stored_replies::scopes_with_reply(&db, &needs.scopes).await?;
        Ok(fan_out)
    }

    /// Decides what is written for each request, and which are refused or handed back.
    #[expect(clippy::type_complexity, reason = "two lists of what becomes of the requests")]
    fn plan(
        &self,
        batch: Vec<Request>,
        fan_out: &FanOut,
        ids: Vec<i64>,
        planned_at: Option<i64>,
    ) -> (Option<(Write, Vec<Planned>)>, Vec<(Reply, Answer)>) {
        let lease = self.parts.node.lease();
        let now = self.parts.shared.clock.now();
        // Without a lease nothing is leased, and the number is not written.
        let mut write = Write { lease: lease.unwrap_or(NO_NODE), now, planned_at, ..Write::default() };
        let (mut planned, mut refused) = (Vec::with_capacity(batch.len()), Vec::new());
        let (mut ids, mut scopes) = (ids.into_iter(), HashSet::default());
        for Request { call, reply, begin, share } in batch {
            // Nobody waits for it any longer: it was answered, and may have come again.
            if reply.is_closed() || begin.is_some_and(|begin| !begin.is_first()) {
                continue;
            }
            let scope = call.pending_reply.as_ref().map(|pending| &pending.scope);
            if let Some(error) = fan_out.refusal(&call.events, scope) {
                refused.push((reply, Err(error)));
                continue;
            }
            let filter_checks = &self.parts.shared.filter_checks;
            if !filter_checks.is_checked(&call, fan_out.has_filters, |event| fan_out.filtered(event)) {
                refused.push((reply, Ok(Intaken::Unchecked(Box::new(call)))));
                continue;
            }
            if let Some(scope) = scope
                && !scopes.insert(scope.clone())
            {
                refused.push((reply, Err(StoreError::KeyTaken)));
                continue;
            }
            let Publishing { events, checks, pending_reply } = call;
            let (rows_before, bytes) = (write.rows(), WriteSize::bytes_of(&events));
            let mut plan = Planned {
                events: if planned_at.is_some() { events.clone() } else { Vec::new() },
                checks: CallChecks::default(),
                accepted: Vec::with_capacity(events.len()),
                jobs: Vec::new(),
                due: BTreeSet::new(),
                has_key: pending_reply.is_some(),
                reply,
                size: WriteSize { rows: 0, bytes },
                share,
            };
            for (number, event) in events.into_iter().enumerate() {
                let event = (event, checks.of(number));
                self.plan_event(event, fan_out, lease.is_some(), &mut ids, &mut write, &mut plan);
            }
            plan.checks = checks;
            plan.size.rows = write.rows() - rows_before;
            if let Some(PendingReply { scope, render }) = pending_reply {
                let reply = render(&plan.accepted);
                plan.size.bytes += reply.body.len();
                write.replies.push((scope, reply));
            }
            planned.push(plan);
        }
        ((!planned.is_empty()).then_some((write, planned)), refused)
    }

    /// Adds an event, its deliveries and its missed events to what is written.
    fn plan_event(
        &self,
        (new, checks): (NewEvent, &Checks),
        fan_out: &FanOut,
        may_lease: bool,
        ids: &mut impl Iterator<Item = i64>,
        write: &mut Write,
        plan: &mut Planned,
    ) {
        let Some(account) = fan_out.accounts.get(&new.account).copied() else { return };
        let Some(id) = ids.next() else { return };
        // Every event has been given as many ids as it has subscribers.
        let recipients = fan_out.recipients(&fan_out.active, &new, checks).zip(ids);
        let whose = (account, id, may_lease);
        let deliveries = self.plan_deliveries(&new, whose, recipients, fan_out, write, plan);
        debug_assert_eq!(
            deliveries.len(),
            fan_out.recipients(&fan_out.active, &new, checks).count(),
            "each recipient has a delivery"
        );
        let missed = write.missed.len();
        for endpoint in fan_out.recipients(&fan_out.paused, &new, checks) {
            write.missed.push((account, endpoint, new.event_type.clone(), id));
        }
        plan.accepted.push(Event {
            id: EventId(id),
            created_at: self.parts.shared.id_times().of(id),
            account: (new.account, account),
            event_type: new.event_type.clone(),
            occurred_at: new.occurred_at,
            channels: new.channels.clone(),
            deliveries: delivery_count(deliveries.len()),
            missed: delivery_count(write.missed.len() - missed),
        });
        write.events.push(EventRow {
            account,
            id,
            event_type: new.event_type,
            occurred_at: new.occurred_at.as_millis(),
            validation: new.validation_id,
            channels: new.channels,
            trace: new.trace,
            deliveries,
            body: new.body,
        });
    }

    /// Adds the deliveries of an event to what is written, and leases those for which there is memory. Returns their
    /// ids.
    fn plan_deliveries(
        &self,
        new: &NewEvent,
        (account, event, may_lease): (AccountKey, i64, bool),
        recipients: impl Iterator<Item = (EndpointKey, i64)>,
        fan_out: &FanOut,
        write: &mut Write,
        plan: &mut Planned,
    ) -> Vec<i64> {
        let size = body_size(new.body.len());
        let event_type: Arc<str> = new.event_type.as_str().into();
        let mut deliveries = Vec::new();
        let body = self.parts.shared.inbox.as_ref().map(|inbox| (inbox, inbox.body(new.body.len())));
        for (endpoint, delivery) in recipients {
            // A delivery of a FIFO endpoint, and of an endpoint with a rate limit, waits in the store.
            let is_fifo = fan_out.fifo.contains(&endpoint);
            let may_have_memory = may_lease && !is_fifo && !fan_out.is_rate_limited(endpoint);
            let inbox = body.as_ref().filter(|_| may_have_memory);
            let permit = inbox.and_then(|(inbox, body)| self.reserve_memory(inbox, body, endpoint));
            write.deliveries.push(DeliveryRow {
                account,
                id: delivery,
                endpoint,
                event,
                size,
                leased: permit.is_some(),
                is_fifo,
            });
            deliveries.push(delivery);
            let Some(permit) = permit else {
                // Whether it is the head shows when it is written.
                if !is_fifo {
                    plan.due.insert(endpoint);
                }
                continue;
            };
            let permit = permit.named(self.parts.node.in_memory(), DeliveryId(delivery));
            let (whose, body) = ((DeliveryId(delivery), endpoint), new.body.clone());
            let job = Job::new(whose, write.lease, DeliveryKind::Event, event_type.clone(), body);
            plan.jobs.push(Leased::new(Job { trace: new.trace.clone(), ..job }, write.now, permit));
        }
        deliveries
    }

    /// Memory for a delivery that was just accepted, if this node sends to its endpoint.
    fn reserve_memory(&self, inbox: &Inbox, body: &SharedBody, endpoint: EndpointKey) -> Option<MemoryPermit> {
        let most = self.parts.shared.max_in_flight_per_endpoint;
        let target =
            self.parts.view.target(endpoint).filter(|target| {
                target.active && self.parts.node.share().of(target.max_in_flight(most), endpoint) > 0
            })?;
        inbox.reserve_new(&self.parts.endpoint_memory.of(endpoint, &target), body)
    }
}

/// What becomes of a request.
type Answer = Result<Intaken, StoreError>;

pub(super) type Reply = oneshot::Sender<Answer>;

/// A request on its way through a batch.
struct Planned {
    /// What was asked for, where it may have to be planned again.
    events: Vec<NewEvent>,
    checks: CallChecks,
    accepted: Vec<Event>,
    jobs: Vec<Leased>,
    /// Endpoints with deliveries for which there was no memory.
    due: BTreeSet<EndpointKey>,
    /// Whether it has an idempotency key.
    has_key: bool,
    reply: Reply,
    /// What it comes to.
    size: WriteSize,
    share: Option<WriteShare>,
}

impl Planned {
    /// The request as it came. None with a key is planned by what is known.
    fn again(self) -> Request {
        let call = Publishing { events: self.events, checks: self.checks, pending_reply: None };
        Request { call, reply: self.reply, begin: None, share: self.share }
    }
}

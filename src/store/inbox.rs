//! The way from the store to the engine: nudges, which bring leased deliveries or say that deliveries are due.
//!
//! Memory is reserved *before* the write that leases a delivery, so that a commit never leases a delivery that finds no
//! memory. A delivery without a reservation is written unleased and claimed later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use foldhash::HashMap;
use tokio::sync::mpsc;

use super::start_permit::StartPermit;
use crate::domain::delivery::Job;
use crate::domain::id::{DeliveryId, EndpointKey};
use crate::domain::time::Timestamp;
use crate::lock::Mutex;

/// Deliveries that may be in memory at once, over all endpoints.
pub const MAX_IN_MEMORY: usize = 16_384;

/// Bytes of bodies that may be in memory at once. A body is counted once, however many deliveries carry it.
pub const MAX_BYTES_IN_MEMORY: usize = 64 << 20;

/// Deliveries of one endpoint that may be in memory at once.
pub const MAX_IN_MEMORY_PER_ENDPOINT: usize = 1_024;

/// A delivery that is leased to this process, with its memory.
#[derive(Debug)]
pub struct Leased {
    /// What to send.
    pub job: Job,
    /// Given back when the delivery is settled or released.
    pub permit: MemoryPermit,
    /// What allows its attempt to begin, where its endpoint has a rate limit.
    pub start: StartPermit,
}

impl Leased {
    /// A delivery whose attempt needs no permit to begin, or has yet to get one.
    pub fn new(job: Job, permit: MemoryPermit) -> Self {
        Self { job, permit, start: StartPermit::default() }
    }
}

/// What wakes the engine.
#[derive(Debug)]
pub enum Nudge {
    /// Just accepted and leased: send them.
    Jobs(Vec<Leased>),
    /// An endpoint has deliveries in the store that are due then.
    Due(EndpointKey, Timestamp),
    /// Something may have changed anywhere: look at everything that is due.
    Rescan,
    /// Other processes have come or gone: this is the share from here on.
    Share(Share),
    /// An endpoint was changed, and perhaps what its owner allows.
    Changed(EndpointKey),
}

/// This process among those that deliver: what an endpoint may have in flight is divided among them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Processes, at least one.
    pub nodes: usize,
    /// This one among them, from 0. All have the same order.
    pub index: usize,
}

impl Share {
    /// There is no other.
    pub const WHOLE: Self = Self { nodes: 1, index: 0 };

    /// Requests that this process may have in flight to an endpoint, of those that all may have together. Where there
    /// are fewer requests than processes, some have none; another endpoint begins with another process.
    pub fn of(self, most: usize, endpoint: EndpointKey) -> usize {
        // A process that delivers nothing counts those that do: there may be none.
        let nodes = self.nodes.max(1);
        let first = usize::try_from(endpoint.0.unsigned_abs() % nodes as u64).expect("less than a usize");
        most / nodes + usize::from((self.index + first) % nodes < most % nodes)
    }
}

/// An endpoint uses at most what is free, divided by this: whatever some endpoints use, others find memory.
const FREE_PARTS: usize = 8;

/// The last part of the memory (one of [`FREE_PARTS`]) is for endpoints that have fewer deliveries in it than this.
const MIN_PER_ENDPOINT: usize = 2;

/// Deliveries of one endpoint that just-accepted events may take; what waits in the store has the rest, so that it is
/// never starved by what is new.
pub const MAX_NEW_PER_ENDPOINT: usize = MAX_IN_MEMORY_PER_ENDPOINT / 4 * 3;

/// What an endpoint's last answers tell of it. The memory that it may use depends on it, so that receivers that
/// are slow, or new, do not take what those need that answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Responsiveness {
    /// Nothing is known: seven eighths of the memory.
    #[default]
    Unknown,
    /// Its last answer was a prompt success: all of the memory.
    Prompt,
    /// Its last attempt failed or took long, or one in flight does: three quarters of the memory.
    Slow,
}

impl Responsiveness {
    /// The part of a bound that such an endpoint may use.
    fn part_of(self, bound: usize) -> usize {
        match self {
            Self::Prompt => bound,
            Self::Unknown => bound / 8 * 7,
            Self::Slow => bound / 4 * 3,
        }
    }
}

/// Counts what is in memory, in all or of one endpoint.
#[derive(Debug, Default)]
pub struct MemoryUse {
    deliveries: AtomicUsize,
    bytes: AtomicUsize,
    responsiveness: AtomicU8,
    /// Whether older deliveries of the endpoint are due in the store, as far as this process knows.
    stored: AtomicBool,
    /// Requests that its owner allows in flight, over all processes; 0 where the owner has set nothing.
    max_in_flight: AtomicUsize,
    /// Held while an attempt is counted towards its rate limit.
    counting: tokio::sync::Mutex<()>,
}

impl MemoryUse {
    /// Deliveries in memory now.
    pub fn count(&self) -> usize {
        self.deliveries.load(Ordering::Relaxed)
    }

    /// How promptly the endpoint answers.
    pub fn responsiveness(&self) -> Responsiveness {
        match self.responsiveness.load(Ordering::Relaxed) {
            stored if stored == Responsiveness::Prompt as u8 => Responsiveness::Prompt,
            stored if stored == Responsiveness::Slow as u8 => Responsiveness::Slow,
            _ => Responsiveness::Unknown,
        }
    }

    /// Notes how promptly the endpoint answers.
    pub fn note_responsiveness(&self, responsiveness: Responsiveness) {
        self.responsiveness.store(responsiveness as u8, Ordering::Relaxed);
    }

    /// Notes whether deliveries of the endpoint are due in the store. What is accepted then goes to the store as well,
    /// so that it does not pass them.
    pub fn note_stored(&self, stored: bool) {
        self.stored.store(stored, Ordering::Relaxed);
    }

    /// Requests that the endpoint's owner allows in flight, over all processes.
    pub fn max_in_flight(&self) -> Option<usize> {
        Some(self.max_in_flight.load(Ordering::Relaxed)).filter(|most| *most > 0)
    }

    /// Notes what the endpoint's owner has set.
    pub fn note_max_in_flight(&self, most: Option<usize>) {
        debug_assert!(most != Some(0), "an owner allows one at least");
        self.max_in_flight.store(most.unwrap_or(0), Ordering::Relaxed);
    }

    /// Waits until no other attempt of the endpoint is being counted towards its rate limit: those of one endpoint wait
    /// for its row with one connection of the database.
    pub async fn counting(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.counting.lock().await
    }

    /// Counts one more; returns what was there before.
    fn add(&self, bytes: usize) -> (usize, usize) {
        (self.deliveries.fetch_add(1, Ordering::Relaxed), self.bytes.fetch_add(bytes, Ordering::Relaxed))
    }

    fn remove(&self, bytes: usize) {
        let deliveries = self.deliveries.fetch_sub(1, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(deliveries > 0 && bytes_before >= bytes, "no more is given back than was taken");
    }
}

/// The sending side, which the store keeps.
#[derive(Clone, Debug)]
pub struct Inbox {
    nudges: mpsc::UnboundedSender<Nudge>,
    total: Arc<MemoryUse>,
    in_memory: InMemoryDeliveries,
}

impl Inbox {
    /// An inbox and the engine's end of it. The channel is bounded by the memory for jobs; other nudges are small and
    /// come at most once for each endpoint and commit.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Nudge>) {
        let (nudges, receiver) = mpsc::unbounded_channel();
        (Self { nudges, total: Arc::default(), in_memory: InMemoryDeliveries::default() }, receiver)
    }

    /// A body of so many bytes, which deliveries may share.
    pub fn body(&self, bytes: usize) -> SharedBody {
        SharedBody(Arc::new(BodyBytes { total: self.total.clone(), bytes, is_counted: AtomicBool::new(false) }))
    }

    /// Reserves memory for a delivery that was just accepted, if there is memory for it and no older delivery of its
    /// endpoint is due in the store.
    pub fn reserve_new(&self, endpoint: &Arc<MemoryUse>, body: &SharedBody) -> Option<MemoryPermit> {
        if endpoint.stored.load(Ordering::Relaxed) {
            return None;
        }
        let permit = self.reserve_up_to(MAX_NEW_PER_ENDPOINT, endpoint, body.clone());
        endpoint.note_stored(permit.is_none());
        permit
    }

    /// Reserves memory for a delivery of `bytes` that waits in the store, if there is memory for it.
    pub fn reserve(&self, endpoint: &Arc<MemoryUse>, bytes: usize) -> Option<MemoryPermit> {
        self.reserve_up_to(MAX_IN_MEMORY_PER_ENDPOINT, endpoint, self.body(bytes))
    }

    /// Reserves memory for a delivery of `bytes` that a replay made, if there is memory for it: in a quarter of what
    /// others may have, so that what is new finds memory too.
    pub fn reserve_replayed(&self, endpoint: &Arc<MemoryUse>, bytes: usize) -> Option<MemoryPermit> {
        let part = endpoint.bytes.load(Ordering::Relaxed) + bytes <= MAX_BYTES_IN_MEMORY / FREE_PARTS / 4;
        let few = endpoint.count() < MIN_PER_ENDPOINT;
        if part || few { self.reserve_up_to(MAX_IN_MEMORY_PER_ENDPOINT / 4, endpoint, self.body(bytes)) } else { None }
    }

    fn reserve_up_to(&self, most: usize, endpoint: &Arc<MemoryUse>, body: SharedBody) -> Option<MemoryPermit> {
        let bytes = body.0.bytes;
        let in_memory = self.total.deliveries.fetch_add(1, Ordering::Relaxed);
        let (own, own_bytes) = endpoint.add(bytes);
        let (bytes_in_memory, more_bytes) = body.count();
        // The permit gives back everything when it is dropped here.
        let permit = MemoryPermit { total: self.total.clone(), endpoint: endpoint.clone(), body, named: None };
        let responsiveness = endpoint.responsiveness();
        // Endpoints that answer may have taken more than the part of those that do not: then nothing is free for them.
        let free = responsiveness.part_of(MAX_IN_MEMORY).saturating_sub(in_memory);
        let free_bytes = responsiveness.part_of(MAX_BYTES_IN_MEMORY).saturating_sub(bytes_in_memory);
        let share = free.saturating_sub(MAX_IN_MEMORY / FREE_PARTS) / FREE_PARTS;
        let share_bytes = free_bytes.saturating_sub(MAX_BYTES_IN_MEMORY / FREE_PARTS) / FREE_PARTS;
        let within_share = own < share && own_bytes + bytes <= share_bytes;
        (free > 0
            && own < most
            && (in_memory == 0 || more_bytes <= free_bytes)
            && (own < MIN_PER_ENDPOINT || within_share))
            .then_some(permit)
    }

    /// Hands something to the engine; when the engine has stopped, it is dropped.
    pub fn send(&self, nudge: Nudge) {
        let _ = self.nudges.send(nudge);
    }

    /// Whether the engine has stopped. What it leaves, and what comes, is for the next start.
    pub fn is_closed(&self) -> bool {
        self.nudges.is_closed()
    }

    /// Deliveries in memory now.
    pub fn count(&self) -> usize {
        self.total.count()
    }

    /// Which deliveries are in memory, for a store whose leases belong to this inbox alone.
    pub fn in_memory(&self) -> &InMemoryDeliveries {
        &self.in_memory
    }
}

/// The body of an event, counted in memory from its first delivery that has a permit until the last one is gone.
#[derive(Clone, Debug)]
pub struct SharedBody(Arc<BodyBytes>);

#[derive(Debug)]
struct BodyBytes {
    total: Arc<MemoryUse>,
    bytes: usize,
    is_counted: AtomicBool,
}

impl SharedBody {
    /// Counts the body, if it is not counted yet. Returns the bytes that were in memory before, and how many it has
    /// added.
    fn count(&self) -> (usize, usize) {
        let BodyBytes { total, bytes, is_counted } = &*self.0;
        if is_counted.swap(true, Ordering::Relaxed) {
            return (total.bytes.load(Ordering::Relaxed), 0);
        }
        (total.bytes.fetch_add(*bytes, Ordering::Relaxed), *bytes)
    }
}

impl Drop for BodyBytes {
    fn drop(&mut self) {
        if *self.is_counted.get_mut() {
            self.total.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// Memory for one delivery.
#[derive(Debug)]
pub struct MemoryPermit {
    total: Arc<MemoryUse>,
    endpoint: Arc<MemoryUse>,
    body: SharedBody,
    /// The delivery that it is for, where the store asks what is in memory.
    named: Option<(InMemoryDeliveries, DeliveryId)>,
}

/// The deliveries that are in memory, each with how many permits it has.
#[derive(Clone, Debug, Default)]
pub struct InMemoryDeliveries(Arc<Mutex<HashMap<DeliveryId, u32>>>);

impl InMemoryDeliveries {
    /// Whether the delivery is in memory, or about to be.
    pub fn contains(&self, id: DeliveryId) -> bool {
        self.0.lock().contains_key(&id)
    }
}

impl MemoryPermit {
    /// A permit of a memory of its own, which no bound counts: for an engine without this store, and for tests.
    pub fn unbounded() -> Self {
        let (total, endpoint) = <(Arc<MemoryUse>, Arc<MemoryUse>)>::default();
        total.add(0);
        endpoint.add(0);
        let body =
            SharedBody(Arc::new(BodyBytes { total: total.clone(), bytes: 0, is_counted: AtomicBool::new(false) }));
        Self { total, endpoint, body, named: None }
    }

    /// What its endpoint holds of this memory.
    pub fn endpoint(&self) -> &Arc<MemoryUse> {
        &self.endpoint
    }

    /// For this delivery, which is among those in memory for as long as the permit lives.
    #[must_use]
    pub fn named(mut self, in_memory: &InMemoryDeliveries, id: DeliveryId) -> Self {
        *in_memory.0.lock().entry(id).or_insert(0) += 1;
        self.named = Some((in_memory.clone(), id));
        self
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        // The bytes of the body are counted in all as long as any delivery has it.
        self.total.remove(0);
        self.endpoint.remove(self.body.0.bytes);
        if let Some((in_memory, id)) = self.named.take() {
            let mut in_memory = in_memory.0.lock();
            debug_assert!(in_memory.contains_key(&id), "a delivery is in memory as long as its permit");
            match in_memory.get_mut(&id) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(in_memory.remove(&id)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_endpoint_cannot_take_all_the_memory() {
        let (inbox, _engine) = Inbox::new();
        let endpoint = Arc::new(MemoryUse::default());
        let new: Vec<_> = std::iter::from_fn(|| inbox.reserve_new(&endpoint, &inbox.body(10))).collect();
        assert_eq!(new.len(), MAX_NEW_PER_ENDPOINT);
        let due: Vec<_> = std::iter::from_fn(|| inbox.reserve(&endpoint, 10)).collect();
        assert_eq!(new.len() + due.len(), MAX_IN_MEMORY_PER_ENDPOINT, "what waits in the store has a part of its own");
        assert!(inbox.reserve(&Arc::default(), 10).is_some(), "another endpoint still has memory");
        drop((new, due));
        assert_eq!((inbox.count(), endpoint.count()), (0, 0));
    }

    #[test]
    fn what_is_new_does_not_pass_what_waits_in_the_store() {
        let (inbox, _engine) = Inbox::new();
        let endpoint = Arc::new(MemoryUse::default());
        let full: Vec<_> = std::iter::from_fn(|| inbox.reserve_new(&endpoint, &inbox.body(10))).collect();
        drop(full);
        assert!(inbox.reserve_new(&endpoint, &inbox.body(10)).is_none(), "one of them is in the store now");
        endpoint.note_stored(false);
        assert!(inbox.reserve_new(&endpoint, &inbox.body(10)).is_some());
    }

    #[test]
    fn a_body_that_deliveries_share_is_counted_once() {
        let (inbox, _engine) = Inbox::new();
        let body = inbox.body(MAX_BYTES_IN_MEMORY / 4);
        let endpoints: Vec<Arc<MemoryUse>> = (0..150).map(|_| Arc::default()).collect();
        let permits: Vec<_> = endpoints.iter().filter_map(|endpoint| inbox.reserve_new(endpoint, &body)).collect();
        assert_eq!(permits.len(), 150);
        drop(body);
        assert_eq!(inbox.total.bytes.load(Ordering::Relaxed), MAX_BYTES_IN_MEMORY / 4);
        drop(permits);
        assert_eq!(inbox.total.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn slow_and_new_endpoints_leave_memory_for_those_that_answer() {
        let (inbox, _engine) = Inbox::new();
        let mut permits = Vec::new();
        for responsiveness in [Responsiveness::Slow, Responsiveness::Unknown] {
            for _ in 0..2_000 {
                let endpoint = Arc::<MemoryUse>::default();
                endpoint.note_responsiveness(responsiveness);
                permits.extend(std::iter::from_fn(|| inbox.reserve_new(&endpoint, &inbox.body(250_000))));
            }
        }
        let another = Arc::<MemoryUse>::default();
        assert!(inbox.reserve_new(&another, &inbox.body(250_000)).is_none());
        let prompt = Arc::<MemoryUse>::default();
        prompt.note_responsiveness(Responsiveness::Prompt);
        let found: Vec<_> = std::iter::from_fn(|| inbox.reserve_new(&prompt, &inbox.body(250_000))).collect();
        assert!(found.len() >= 2, "{}", found.len());
    }

    #[test]
    fn an_endpoints_requests_are_divided_among_processes_and_none_is_lost() {
        for (most, nodes) in [(64, 1), (64, 3), (1, 1), (1, 5), (3, 2), (7, 7)] {
            for endpoint in (0..20).map(EndpointKey) {
                let shares = (0..nodes).map(|index| Share { nodes, index }.of(most, endpoint));
                assert_eq!(shares.sum::<usize>(), most, "{most} over {nodes}");
            }
        }
        let owners: std::collections::BTreeSet<usize> = (0..20)
            .filter_map(|key| (0..5).find(|index| Share { nodes: 5, index: *index }.of(1, EndpointKey(key)) == 1))
            .collect();
        assert_eq!(owners.len(), 5, "they do not all fall to the same one");
    }

    #[test]
    fn many_greedy_endpoints_leave_memory_for_another() {
        let (inbox, _engine) = Inbox::new();
        for (greedy, bytes) in [(500, 10), (20, 200_000)] {
            let mut permits = Vec::new();
            for _ in 0..greedy {
                let endpoint = Arc::default();
                permits.extend(std::iter::from_fn(|| inbox.reserve(&endpoint, bytes)));
            }
            let other = Arc::default();
            assert!(inbox.reserve(&other, bytes).is_some(), "{} permits of {bytes} bytes", permits.len());
        }
    }

    #[test]
    fn bodies_are_counted_in_bytes() {
        let (inbox, _engine) = Inbox::new();
        let prompt = || {
            let endpoint = Arc::<MemoryUse>::default();
            endpoint.note_responsiveness(Responsiveness::Prompt);
            endpoint
        };
        let first = inbox.reserve(&prompt(), MAX_BYTES_IN_MEMORY - 1);
        assert!(first.is_some());
        assert!(inbox.reserve(&prompt(), 2).is_none());
        assert!(inbox.reserve(&prompt(), 1).is_some());
    }
}

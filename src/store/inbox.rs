//! The way from the store to the engine: nudges, which bring leased deliveries or say that deliveries are due.
//!
//! Memory is reserved *before* the write that leases a delivery, so that a commit never leases a delivery that finds no
//! memory. A delivery without a reservation is written unleased and claimed later.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use foldhash::HashMap;
use tokio::sync::mpsc;

use super::memory_shares::{self, Amount, InMemory};
use super::start_permit::StartPermit;
use crate::domain::delivery::Job;
use crate::domain::id::{AccountKey, DeliveryId, EndpointKey};
use crate::domain::time::Timestamp;
use crate::lock::Mutex;

pub use super::memory_shares::{
    MAX_BYTES_IN_MEMORY, MAX_IN_MEMORY, MAX_IN_MEMORY_PER_ENDPOINT, MAX_NEW_PER_ENDPOINT, Responsiveness,
};

/// A delivery that is leased to this process, with its memory.
#[derive(Debug)]
pub struct Leased {
    /// What to send.
    pub job: Job,
    /// Since when it is due.
    pub due_at: Timestamp,
    /// Given back when the delivery is settled or released.
    pub permit: MemoryPermit,
    /// What allows its attempt to begin, where its endpoint has a rate limit.
    pub start: StartPermit,
}

impl Leased {
    /// A delivery whose attempt needs no permit to begin, or has yet to get one.
    pub fn new(job: Job, due_at: Timestamp, permit: MemoryPermit) -> Self {
        Self { job, due_at, permit, start: StartPermit::default() }
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

/// What one endpoint has in memory, and what this process knows of the endpoint.
#[derive(Debug)]
pub struct MemoryUse {
    account: AccountKey,
    deliveries: AtomicUsize,
    bytes: AtomicUsize,
    responsiveness: AtomicU8,
    /// Whether older deliveries of the endpoint are due in the store, as far as this process knows.
    stored: AtomicBool,
    /// Requests that its owner allows in flight, over all processes; 0 where the owner has set nothing.
    max_in_flight: AtomicUsize,
    /// Locked while an attempt is counted towards its rate limit.
    counting: tokio::sync::Mutex<()>,
}

impl MemoryUse {
    /// Of an endpoint of this account, with nothing in memory.
    pub fn of(account: AccountKey) -> Self {
        Self {
            account,
            deliveries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            responsiveness: AtomicU8::new(Responsiveness::default() as u8),
            stored: AtomicBool::new(false),
            max_in_flight: AtomicUsize::new(0),
            counting: tokio::sync::Mutex::default(),
        }
    }

    /// Whose endpoint it is.
    pub fn account(&self) -> AccountKey {
        self.account
    }

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

    /// Deliveries that it may have in memory: more than it can send for a while are of no use there.
    fn most(&self) -> usize {
        memory_shares::max_of_endpoint(self.max_in_flight())
    }

    fn amount(&self) -> Amount {
        Amount { deliveries: self.count(), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    fn add(&self, bytes: usize) {
        self.deliveries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
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
    total: Arc<Mutex<InMemory>>,
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
        SharedBody::new(self.total.clone(), bytes)
    }

    /// Reserves memory for a delivery that was just accepted, if there is memory for it and no older delivery of its
    /// endpoint is due in the store.
    pub fn reserve_new(&self, endpoint: &Arc<MemoryUse>, body: &SharedBody) -> Option<MemoryPermit> {
        if endpoint.stored.load(Ordering::Relaxed) {
            return None;
        }
        let permit = self.reserve_up_to(memory_shares::new_part(endpoint.most()), endpoint, body.clone());
        endpoint.note_stored(permit.is_none());
        permit
    }

    /// Reserves memory for a delivery of `bytes` that waits in the store, if there is memory for it.
    pub fn reserve(&self, endpoint: &Arc<MemoryUse>, bytes: usize) -> Option<MemoryPermit> {
        self.reserve_up_to(endpoint.most(), endpoint, self.body(bytes))
    }

    /// Reserves memory for a delivery of `bytes` that a replay made, if there is memory for it: in a quarter of what
    /// others may have, so that what is new finds memory too.
    pub fn reserve_replayed(&self, endpoint: &Arc<MemoryUse>, bytes: usize) -> Option<MemoryPermit> {
        let own = endpoint.amount();
        let part = own.bytes + bytes <= MAX_BYTES_IN_MEMORY / memory_shares::FREE_PARTS / 4;
        let few = own.deliveries < memory_shares::MIN_PER_ENDPOINT;
        if part || few { self.reserve_up_to(endpoint.most() / 4, endpoint, self.body(bytes)) } else { None }
    }

    fn reserve_up_to(&self, most: usize, endpoint: &Arc<MemoryUse>, body: SharedBody) -> Option<MemoryPermit> {
        let (bytes, whose) = (body.0.bytes, (endpoint.account, endpoint.responsiveness()));
        let mut total = self.total.lock();
        let own = endpoint.amount();
        let more_bytes = if body.is_counted() { 0 } else { bytes };
        if own.deliveries >= most || !total.has_room_for(whose, own, bytes, more_bytes) {
            return None;
        }
        Some(MemoryPermit::count(&mut total, self.total.clone(), endpoint.clone(), body))
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
        self.total.lock().all.deliveries
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
    total: Arc<Mutex<InMemory>>,
    bytes: usize,
    /// The account whose memory it is counted in, once it is.
    counted_for: OnceLock<AccountKey>,
}

impl SharedBody {
    fn new(total: Arc<Mutex<InMemory>>, bytes: usize) -> Self {
        Self(Arc::new(BodyBytes { total, bytes, counted_for: OnceLock::new() }))
    }

    fn is_counted(&self) -> bool {
        self.0.counted_for.get().is_some()
    }
}

impl Drop for BodyBytes {
    fn drop(&mut self) {
        if let Some(account) = self.counted_for.get() {
            self.total.lock().remove(*account, Amount { deliveries: 0, bytes: self.bytes });
        }
    }
}

/// Memory for one delivery.
#[derive(Debug)]
pub struct MemoryPermit {
    total: Arc<Mutex<InMemory>>,
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
    /// A permit of a memory of its own, which no bound counts: for an engine without this store, for an attempt that
    /// its call makes, and for tests.
    pub fn unbounded(account: AccountKey) -> Self {
        let total = Arc::<Mutex<InMemory>>::default();
        let body = SharedBody::new(total.clone(), 0);
        let mut in_memory = total.lock();
        Self::count(&mut in_memory, total.clone(), Arc::new(MemoryUse::of(account)), body)
    }

    /// Counts a delivery, and its body where no other delivery has brought it.
    fn count(
        in_memory: &mut InMemory,
        total: Arc<Mutex<InMemory>>,
        endpoint: Arc<MemoryUse>,
        body: SharedBody,
    ) -> Self {
        let bytes = body.0.bytes;
        let account = endpoint.account;
        // Whoever counts holds the lock.
        let more_bytes = if body.0.counted_for.set(account).is_ok() { bytes } else { 0 };
        in_memory.add(account, Amount { deliveries: 1, bytes: more_bytes });
        endpoint.add(bytes);
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
        // The bytes of the body are counted as long as any delivery has it.
        self.total.lock().remove(self.endpoint.account, Amount { deliveries: 1, bytes: 0 });
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
    use crate::store::memory_shares::{MAX_IN_MEMORY_PER_REQUEST, MIN_PER_ENDPOINT};

    /// A new endpoint of this account.
    fn endpoint(account: i64) -> Arc<MemoryUse> {
        Arc::new(MemoryUse::of(AccountKey(account)))
    }

    fn endpoint_that_is(responsiveness: Responsiveness, account: i64) -> Arc<MemoryUse> {
        let endpoint = endpoint(account);
        endpoint.note_responsiveness(responsiveness);
        endpoint
    }

    /// All that an endpoint gets for deliveries that were just accepted.
    fn fill(inbox: &Inbox, endpoint: &Arc<MemoryUse>, bytes: usize) -> Vec<MemoryPermit> {
        std::iter::from_fn(|| inbox.reserve_new(endpoint, &inbox.body(bytes))).collect()
    }

    #[test]
    fn one_endpoint_cannot_take_all_the_memory() {
        let (inbox, _engine) = Inbox::new();
        let one = endpoint(1);
        let new = fill(&inbox, &one, 10);
        assert_eq!(new.len(), MAX_NEW_PER_ENDPOINT);
        let due: Vec<_> = std::iter::from_fn(|| inbox.reserve(&one, 10)).collect();
        assert_eq!(new.len() + due.len(), MAX_IN_MEMORY_PER_ENDPOINT, "what waits in the store has a part of its own");
        assert!(inbox.reserve(&endpoint(1), 10).is_some(), "another endpoint still has memory");
        drop((new, due));
        assert_eq!((inbox.count(), one.count()), (0, 0));
        assert!(inbox.total.lock().accounts.is_empty(), "an account is forgotten that has nothing in memory");
    }

    #[test]
    fn an_endpoint_has_no_more_in_memory_than_its_owners_limit_lets_it_send_for_a_while() {
        let (inbox, _engine) = Inbox::new();
        let one = endpoint_that_is(Responsiveness::Prompt, 1);
        one.note_max_in_flight(Some(1));
        assert_eq!(fill(&inbox, &one, 10).len(), MAX_IN_MEMORY_PER_REQUEST / 4 * 3);
        one.note_stored(false);
        one.note_max_in_flight(Some(1_000));
        assert_eq!(fill(&inbox, &one, 10).len(), MAX_NEW_PER_ENDPOINT, "never more than without a limit");
    }

    #[test]
    fn what_is_new_does_not_pass_what_waits_in_the_store() {
        let (inbox, _engine) = Inbox::new();
        let endpoint = endpoint(1);
        drop(fill(&inbox, &endpoint, 10));
        assert!(inbox.reserve_new(&endpoint, &inbox.body(10)).is_none(), "one of them is in the store now");
        endpoint.note_stored(false);
        assert!(inbox.reserve_new(&endpoint, &inbox.body(10)).is_some());
    }

    #[test]
    fn a_body_that_deliveries_share_is_counted_once() {
        let (inbox, _engine) = Inbox::new();
        let body = inbox.body(MAX_BYTES_IN_MEMORY / 4);
        let endpoints: Vec<_> = (0..150).map(|_| endpoint(1)).collect();
        let permits: Vec<_> = endpoints.iter().filter_map(|endpoint| inbox.reserve_new(endpoint, &body)).collect();
        assert_eq!(permits.len(), 150);
        drop(body);
        assert_eq!(inbox.total.lock().all.bytes, MAX_BYTES_IN_MEMORY / 4);
        drop(permits);
        assert_eq!(inbox.total.lock().all.bytes, 0);
    }

    #[test]
    fn slow_and_new_endpoints_leave_memory_for_those_that_answer() {
        let (inbox, _engine) = Inbox::new();
        let mut permits = Vec::new();
        for responsiveness in [Responsiveness::Slow, Responsiveness::Unknown] {
            for account in 0..2_000 {
                permits.extend(fill(&inbox, &endpoint_that_is(responsiveness, account), 250_000));
            }
        }
        assert!(fill(&inbox, &endpoint(5_000), 250_000).is_empty());
        let found = fill(&inbox, &endpoint_that_is(Responsiveness::Prompt, 5_000), 250_000);
        assert!(found.len() >= 2, "{}", found.len());
    }

    /// An account fills what it can while its endpoints answer promptly. Then they begin to hang.
    #[test]
    fn what_an_account_holds_for_endpoints_that_begin_to_hang_leaves_memory_for_any_endpoint_of_others() {
        let (inbox, _engine) = Inbox::new();
        let mut permits = Vec::new();
        for account in 1..=5 {
            let before = permits.len();
            let endpoints: Vec<_> = (0..50).map(|_| endpoint_that_is(Responsiveness::Prompt, account)).collect();
            for endpoint in &endpoints {
                permits.extend(fill(&inbox, endpoint, 10));
            }
            assert!(permits.len() - before <= MAX_IN_MEMORY / 2, "{} of account {account}", permits.len() - before);
            for endpoint in &endpoints {
                endpoint.note_responsiveness(Responsiveness::Slow);
            }
            for responsiveness in [Responsiveness::Prompt, Responsiveness::Unknown, Responsiveness::Slow] {
                let found = fill(&inbox, &endpoint_that_is(responsiveness, 100), 10).len();
                let least = if account == 1 { 100 } else { MIN_PER_ENDPOINT };
                assert!(found >= least, "{found} of a {responsiveness:?} one beside {account} accounts");
            }
        }
    }

    #[test]
    fn endpoints_that_hang_leave_memory_for_others_of_their_account() {
        let (inbox, _engine) = Inbox::new();
        let mut permits = Vec::new();
        for _ in 0..200 {
            permits.extend(fill(&inbox, &endpoint_that_is(Responsiveness::Prompt, 1), 10));
        }
        for responsiveness in [Responsiveness::Prompt, Responsiveness::Unknown, Responsiveness::Slow] {
            let found = fill(&inbox, &endpoint_that_is(responsiveness, 1), 10);
            assert!(found.len() >= MIN_PER_ENDPOINT, "{} beside {}", found.len(), permits.len());
        }
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
            for number in 0..greedy {
                let endpoint = endpoint(number % 7);
                permits.extend(std::iter::from_fn(|| inbox.reserve(&endpoint, bytes)));
            }
            assert!(inbox.reserve(&endpoint(100), bytes).is_some(), "{} permits of {bytes} bytes", permits.len());
        }
    }

    #[test]
    fn bodies_are_counted_in_bytes() {
        let (inbox, _engine) = Inbox::new();
        let half = MAX_BYTES_IN_MEMORY / 2;
        let prompt = |account| endpoint_that_is(Responsiveness::Prompt, account);
        assert!(inbox.reserve(&prompt(1), half + 1).is_none());
        let first = inbox.reserve(&prompt(1), half);
        assert!(first.is_some());
        assert!(inbox.reserve(&prompt(1), 2).is_none(), "the account has half of it");
        assert!(inbox.reserve(&prompt(2), half / 2 + 1).is_none());
        assert!(inbox.reserve(&prompt(2), half / 2).is_some());
    }
}

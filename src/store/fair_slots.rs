//! Slots that owners share: a bound over all, a share for each owner, and a queue for each owner, so that no owner can
//! fill the order of service. Both stores share their connections for reads by it, and the API the look-ups of unknown
//! clients.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::oneshot;

use crate::lock::Mutex;
use crate::waiting::at_most;

/// How long a read waits for a connection. A call of the store ends after 5 s on PostgreSQL, so that a search that has
/// waited still has its 2 s.
pub(crate) const READ_PATIENCE: Duration = Duration::from_secs(3);

/// Reads of one kind that wait for a connection, in all and of one account: more than that many would be refused for
/// their patience in any case if each took longer than some 20 ms.
const MAX_WAITING_READS: (usize, usize) = (2_048, 256);

/// How many slots there are, and who may wait for them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Slots in all.
    pub slots: usize,
    /// Slots that one owner holds at most.
    pub slots_per_owner: usize,
    /// Requests that wait at most.
    pub waiting: usize,
    /// Requests of one owner that wait at most.
    pub waiting_per_owner: usize,
    /// How long a request waits at most.
    pub patience: Duration,
}

impl Bounds {
    /// The bounds of connections that read: so many in all and of one account.
    pub const fn of_reads((slots, slots_per_owner): (usize, usize), patience: Duration) -> Self {
        let (waiting, waiting_per_owner) = MAX_WAITING_READS;
        Self { slots, slots_per_owner, waiting, waiting_per_owner, patience }
    }
}

/// A request gets no slot: too many wait already, or it has waited for too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Busy;

/// Gives out slots. Clones share them.
#[derive(Clone)]
pub(crate) struct FairSlots<K: Copy + Eq + Hash>(Arc<Inner<K>>);

struct Inner<K: Copy + Eq + Hash> {
    bounds: Bounds,
    state: Mutex<State<K>>,
}

struct State<K: Copy + Eq + Hash> {
    /// Slots that each owner has; an owner without one has no entry.
    taken_by: HashMap<K, usize>,
    in_use: usize,
    /// Owners whose requests wait, the next to be served first.
    queues: VecDeque<OwnerQueue<K>>,
    waiting: usize,
    last_ticket: u64,
}

/// Requests of one owner, in the order in which they came.
struct OwnerQueue<K: Copy + Eq + Hash> {
    owner: K,
    requests: VecDeque<Request<K>>,
}

struct Request<K: Copy + Eq + Hash> {
    ticket: u64,
    reply: oneshot::Sender<Slot<K>>,
}

impl<K: Copy + Eq + Hash> FairSlots<K> {
    pub fn new(bounds: Bounds) -> Self {
        let state =
            State { taken_by: HashMap::default(), in_use: 0, queues: VecDeque::new(), waiting: 0, last_ticket: 0 };
        Self(Arc::new(Inner { bounds, state: Mutex::new(state) }))
    }

    /// A slot for this owner. It waits while the owner has its share, or all slots are taken. Owners are served
    /// round robin.
    pub async fn acquire(&self, owner: K) -> Result<Slot<K>, Busy>
    where
        K: Send + 'static,
    {
        let mut waiting = match self.ask(owner)? {
            Ok(slot) => return Ok(slot),
            Err(waiting) => waiting,
        };
        match at_most(self.0.bounds.patience, &mut waiting.answer).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }

    /// A slot at once, or a request in the owner's queue.
    fn ask(&self, owner: K) -> Result<Result<Slot<K>, Waiting<K>>, Busy> {
        let bounds = &self.0.bounds;
        let mut state = self.0.lock();
        if state.has_slot_for(owner, bounds) {
            state.take(owner);
            return Ok(Ok(Slot { slots: self.0.clone(), owner }));
        }
        let queue = state.queues.iter().position(|queue| queue.owner == owner);
        let of_owner = queue.map_or(0, |index| state.queues[index].requests.len());
        if state.waiting >= bounds.waiting || of_owner >= bounds.waiting_per_owner {
            return Err(Busy);
        }
        state.last_ticket += 1;
        state.waiting += 1;
        let (reply, answer) = oneshot::channel();
        let request = Request { ticket: state.last_ticket, reply };
        let waiting = Waiting { slots: self.0.clone(), owner, ticket: request.ticket, answer };
        match queue {
            Some(index) => state.queues[index].requests.push_back(request),
            None => state.queues.push_back(OwnerQueue { owner, requests: [request].into() }),
        }
        Ok(Err(waiting))
    }

    /// Slots that are taken.
    pub fn in_use(&self) -> usize {
        self.0.lock().in_use
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.0.lock().waiting
    }
}

impl<K: Copy + Eq + Hash> Inner<K> {
    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock()
    }
}

impl<K: Copy + Eq + Hash> State<K> {
    fn has_slot_for(&self, owner: K, bounds: &Bounds) -> bool {
        self.in_use < bounds.slots && self.taken_by.get(&owner).copied().unwrap_or(0) < bounds.slots_per_owner
    }

    fn take(&mut self, owner: K) {
        *self.taken_by.entry(owner).or_default() += 1;
        self.in_use += 1;
    }

    fn give_back(&mut self, owner: K) {
        debug_assert!(self.in_use > 0 && self.taken_by.contains_key(&owner), "a slot is given back once");
        self.in_use -= 1;
        match self.taken_by.get_mut(&owner) {
            Some(taken) if *taken > 1 => *taken -= 1,
            _ => drop(self.taken_by.remove(&owner)),
        }
    }

    /// The next request that may have a slot. Its owner's other requests wait behind all other owners.
    fn next(&mut self, bounds: &Bounds) -> Option<(K, Request<K>)> {
        let index = self.queues.iter().position(|queue| self.has_slot_for(queue.owner, bounds))?;
        let mut queue = self.queues.remove(index).expect("it was found");
        let request = queue.requests.pop_front().expect("no queue is empty");
        let owner = queue.owner;
        if !queue.requests.is_empty() {
            self.queues.push_back(queue);
        }
        self.waiting -= 1;
        debug_assert!(self.is_counted(), "each request in a queue waits, and no other");
        self.take(owner);
        debug_assert!(self.in_use <= bounds.slots, "no more slots are taken than there are");
        Some((owner, request))
    }

    /// Whether `waiting` is the number of the requests in the queues, none of which is empty.
    fn is_counted(&self) -> bool {
        let lengths = || self.queues.iter().map(|queue| queue.requests.len());
        lengths().sum::<usize>() == self.waiting && lengths().all(|length| length > 0)
    }

    /// Removes a request that waits no longer, if it is still there.
    fn forget(&mut self, owner: K, ticket: u64) {
        let Some(index) = self.queues.iter().position(|queue| queue.owner == owner) else { return };
        let requests = &mut self.queues[index].requests;
        let Some(position) = requests.iter().position(|request| request.ticket == ticket) else { return };
        requests.remove(position);
        if requests.is_empty() {
            self.queues.remove(index);
        }
        self.waiting -= 1;
        debug_assert!(self.is_counted(), "each request in a queue waits, and no other");
    }
}

/// A request that waits. It leaves its queue when its caller gives up.
struct Waiting<K: Copy + Eq + Hash> {
    slots: Arc<Inner<K>>,
    owner: K,
    ticket: u64,
    answer: oneshot::Receiver<Slot<K>>,
}

impl<K: Copy + Eq + Hash> Drop for Waiting<K> {
    fn drop(&mut self) {
        // A slot that has come meanwhile is given back when `answer` is dropped, after the lock.
        self.slots.lock().forget(self.owner, self.ticket);
    }
}

/// A slot, given back when it is dropped.
pub(crate) struct Slot<K: Copy + Eq + Hash> {
    slots: Arc<Inner<K>>,
    owner: K,
}

impl<K: Copy + Eq + Hash> Drop for Slot<K> {
    fn drop(&mut self) {
        let Inner { bounds, .. } = &*self.slots;
        let mut state = self.slots.lock();
        state.give_back(self.owner);
        let next = state.next(bounds);
        drop(state);
        if let Some((owner, request)) = next {
            // A caller that has gone drops it, and the next one gets it. The lock is free.
            let _ = request.reply.send(Slot { slots: self.slots.clone(), owner });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    const BOUNDS: Bounds =
        Bounds { slots: 4, slots_per_owner: 2, waiting: 8, waiting_per_owner: 5, patience: Duration::from_secs(3) };

    fn slots() -> FairSlots<char> {
        FairSlots::new(BOUNDS)
    }

    /// Begins to wait, in a task.
    async fn wait(slots: &FairSlots<char>, owner: char) -> tokio::task::JoinHandle<Result<Slot<char>, Busy>> {
        let (clone, before) = (slots.clone(), slots.waiting());
        let task = tokio::spawn(async move { clone.acquire(owner).await });
        while slots.waiting() == before {
            tokio::task::yield_now().await;
        }
        task
    }

    #[tokio::test]
    async fn an_owner_holds_no_more_than_its_share_and_another_gets_a_slot_at_once() {
        let slots = slots();
        let taken = [slots.acquire('a').await, slots.acquire('a').await];
        let third = wait(&slots, 'a').await;
        assert!(slots.acquire('b').await.is_ok(), "there are slots for others");
        drop(taken);
        assert!(third.await.expect("no panic").is_ok());
        assert_eq!((slots.in_use(), slots.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn owners_are_served_round_robin_however_many_requests_one_of_them_has() {
        let slots = slots();
        let mut taken = Vec::new();
        for owner in ['a', 'a', 'b', 'b'] {
            taken.push(slots.acquire(owner).await.expect("free"));
        }
        let first = [wait(&slots, 'a').await, wait(&slots, 'a').await, wait(&slots, 'a').await];
        let other = wait(&slots, 'c').await;
        drop(taken.remove(0));
        // The queue of the first owner was there before the other's.
        let [served, ..] = first;
        let served = served.await.expect("no panic").expect("served");
        drop(taken.remove(0));
        let _other = other.await.expect("no panic").expect("the other owner before the rest of the first one's queue");
        assert_eq!(slots.waiting(), 2);
        drop((served, taken));
        while slots.waiting() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn queues_have_an_end_for_one_owner_and_for_all() {
        let slots = slots();
        let _taken = [slots.acquire('a').await, slots.acquire('a').await];
        let mut tasks = Vec::new();
        for _ in 0..BOUNDS.waiting_per_owner {
            tasks.push(wait(&slots, 'a').await);
        }
        assert_eq!(slots.acquire('a').await.err(), Some(Busy));
        let _others = [slots.acquire('b').await.ok(), slots.acquire('b').await.ok()];
        for _ in BOUNDS.waiting_per_owner..BOUNDS.waiting {
            tasks.push(wait(&slots, 'b').await);
        }
        assert_eq!(slots.acquire('c').await.err(), Some(Busy));
        for task in tasks {
            task.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_too_long_is_refused_and_leaves_its_queue() {
        let slots = slots();
        let taken = [slots.acquire('a').await, slots.acquire('a').await];
        assert_eq!(slots.acquire('a').await.err(), Some(Busy));
        assert_eq!(slots.waiting(), 0);
        drop(taken);
        assert_eq!(slots.in_use(), 0);
    }

    #[tokio::test]
    async fn a_slot_that_comes_to_a_caller_who_has_gone_goes_to_the_next() {
        let slots = slots();
        let mut taken = vec![slots.acquire('a').await, slots.acquire('a').await];
        {
            let mut gone = pin!(slots.acquire('a'));
            assert!(poll_once(gone.as_mut()).await.is_none(), "it waits");
            drop(taken.pop());
            assert_eq!(slots.in_use(), 2, "the slot is on its way");
        }
        assert_eq!(slots.in_use(), 1, "and was given back");
    }

    /// Polls once.
    async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match future.as_mut().poll(context) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}

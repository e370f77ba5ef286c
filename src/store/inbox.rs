//! The way from the store to the engine: leased deliveries straight from memory, and nudges.
//!
//! Room is reserved *before* the write that leases a delivery, so that a commit never leases what memory has no
//! place for; what finds no room is written unleased and claimed later.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::HashMap;
use tokio::sync::mpsc;

use crate::domain::delivery::Job;
use crate::domain::id::{DeliveryId, EndpointKey};
use crate::domain::time::Timestamp;

/// Deliveries that may be in memory at once, over all endpoints.
pub const MAX_HELD: usize = 16_384;

/// Bytes of bodies that may be in memory at once. A body is counted once, however many deliveries carry it.
pub const MAX_HELD_BYTES: usize = 64 << 20;

/// Deliveries of one endpoint that may be in memory at once.
pub const MAX_HELD_PER_ENDPOINT: usize = 1_024;

/// A delivery that is leased to this process, with its place in memory.
#[derive(Debug)]
pub struct Leased {
    /// What to send.
    pub job: Job,
    /// Given back when the delivery is settled or released.
    pub place: Place,
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

    /// Requests that this process may have in flight to an endpoint, of those that all may have together. Where there are
    /// fewer requests than processes, some have none; another endpoint begins with another process.
    pub fn of(self, most: usize, endpoint: EndpointKey) -> usize {
        let nodes = self.nodes.max(1);
        let first = usize::try_from(endpoint.0.unsigned_abs()).unwrap_or(0) % nodes;
        most / nodes + usize::from((self.index + first) % nodes < most % nodes)
    }
}

/// An endpoint holds at most what is free, divided by this: whatever some endpoints hold, others find room.
const SHARE: usize = 8;

/// The last part of the room (one of [`SHARE`]) is kept for endpoints that hold fewer deliveries than this.
const FEW: usize = 2;

/// Deliveries of one endpoint that just-accepted events may take; what waits in the store has the rest, so that it is
/// never starved by what is new.
pub const MAX_NEW_PER_ENDPOINT: usize = MAX_HELD_PER_ENDPOINT / 4 * 3;

/// What an endpoint's last answers tell of it. The room in memory that it may use depends on it, so that receivers that
/// are slow, or new, do not take what those need that answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Pace {
    /// Nothing is known: seven eighths of the room.
    #[default]
    Unknown,
    /// Its last answer was a prompt success: all of the room.
    Prompt,
    /// Its last attempt failed or took long, or one in flight does: three quarters of the room.
    Slow,
}

impl Pace {
    /// The part of a bound that an endpoint of this pace may use.
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
pub struct Room {
    held: AtomicUsize,
    bytes: AtomicUsize,
    pace: AtomicU8,
    /// Whether older deliveries of the endpoint are due in the store, as far as this process knows.
    stored: AtomicBool,
}

impl Room {
    /// Deliveries in memory now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// How promptly the endpoint answers.
    pub fn pace(&self) -> Pace {
        match self.pace.load(Ordering::Relaxed) {
            pace if pace == Pace::Prompt as u8 => Pace::Prompt,
            pace if pace == Pace::Slow as u8 => Pace::Slow,
            _ => Pace::Unknown,
        }
    }

    /// Notes how promptly the endpoint answers.
    pub fn note_pace(&self, pace: Pace) {
        self.pace.store(pace as u8, Ordering::Relaxed);
    }

    /// Notes whether deliveries of the endpoint are due in the store. What is accepted then goes to the store as well, so
    /// that it does not pass them.
    pub fn note_stored(&self, stored: bool) {
        self.stored.store(stored, Ordering::Relaxed);
    }

    /// Counts one more; returns what was there before.
    fn add(&self, bytes: usize) -> (usize, usize) {
        (self.held.fetch_add(1, Ordering::Relaxed), self.bytes.fetch_add(bytes, Ordering::Relaxed))
    }

    fn remove(&self, bytes: usize) {
        self.held.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The sending side, which the store keeps.
#[derive(Clone, Debug)]
pub struct Inbox {
    nudges: mpsc::UnboundedSender<Nudge>,
    room: Arc<Room>,
    names: Names,
}

impl Inbox {
    /// An inbox and the engine's end of it. The channel is bounded by the room for jobs; other nudges are small and
    /// come at most once for each endpoint and commit.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Nudge>) {
        let (nudges, receiver) = mpsc::unbounded_channel();
        (Self { nudges, room: Arc::default(), names: Names::default() }, receiver)
    }

    /// A body of so many bytes, which deliveries may share.
    pub fn body(&self, bytes: usize) -> SharedBody {
        SharedBody(Arc::new(BodyBytes { room: self.room.clone(), bytes, is_counted: AtomicBool::new(false) }))
    }

    /// Reserves a place for a delivery that was just accepted, if there is one and no older delivery of its endpoint
    /// is due in the store.
    pub fn reserve_new(&self, endpoint: &Arc<Room>, body: &SharedBody) -> Option<Place> {
        if endpoint.stored.load(Ordering::Relaxed) {
            return None;
        }
        let place = self.reserve_up_to(MAX_NEW_PER_ENDPOINT, endpoint, body.clone());
        endpoint.note_stored(place.is_none());
        place
    }

    /// Reserves a place for a delivery of `bytes` that waits in the store, if there is one.
    pub fn reserve(&self, endpoint: &Arc<Room>, bytes: usize) -> Option<Place> {
        self.reserve_up_to(MAX_HELD_PER_ENDPOINT, endpoint, self.body(bytes))
    }

    /// Reserves a place for a delivery of `bytes` that a replay made, if there is one: in a quarter of what others may
    /// have, so that what is new finds room beside it.
    pub fn reserve_replayed(&self, endpoint: &Arc<Room>, bytes: usize) -> Option<Place> {
        let part = endpoint.bytes.load(Ordering::Relaxed) + bytes <= MAX_HELD_BYTES / SHARE / 4;
        let few = endpoint.held() < FEW;
        if part || few { self.reserve_up_to(MAX_HELD_PER_ENDPOINT / 4, endpoint, self.body(bytes)) } else { None }
    }

    fn reserve_up_to(&self, most: usize, endpoint: &Arc<Room>, body: SharedBody) -> Option<Place> {
        let bytes = body.0.bytes;
        let held = self.room.held.fetch_add(1, Ordering::Relaxed);
        let (own, own_bytes) = endpoint.add(bytes);
        let (held_bytes, more_bytes) = body.count();
        // The place gives back everything when it is dropped here.
        let place = Place { room: self.room.clone(), endpoint: endpoint.clone(), body, named: None };
        let answers = endpoint.pace();
        let free = answers.part_of(MAX_HELD).saturating_sub(held);
        let free_bytes = answers.part_of(MAX_HELD_BYTES).saturating_sub(held_bytes);
        let share = free.saturating_sub(MAX_HELD / SHARE) / SHARE;
        let share_bytes = free_bytes.saturating_sub(MAX_HELD_BYTES / SHARE) / SHARE;
        let within_share = own < share && own_bytes + bytes <= share_bytes;
        (free > 0 && own < most && (held == 0 || more_bytes <= free_bytes) && (own < FEW || within_share))
            .then_some(place)
    }

    /// Hands something to the engine; when the engine has stopped, it is dropped.
    pub fn send(&self, nudge: Nudge) {
        let _ = self.nudges.send(nudge);
    }

    /// Deliveries in memory now.
    pub fn held(&self) -> usize {
        self.room.held()
    }

    /// Which deliveries are in memory, for a store whose leases belong to this inbox alone.
    pub fn names(&self) -> &Names {
        &self.names
    }
}

/// The body of an event, counted in the room from the first delivery that finds a place until the last one is gone.
#[derive(Clone, Debug)]
pub struct SharedBody(Arc<BodyBytes>);

#[derive(Debug)]
struct BodyBytes {
    room: Arc<Room>,
    bytes: usize,
    is_counted: AtomicBool,
}

impl SharedBody {
    /// Counts the body, if it is not counted yet. Returns the bytes that were in memory before, and how many it has added.
    fn count(&self) -> (usize, usize) {
        let BodyBytes { room, bytes, is_counted } = &*self.0;
        if is_counted.swap(true, Ordering::Relaxed) {
            return (room.bytes.load(Ordering::Relaxed), 0);
        }
        (room.bytes.fetch_add(*bytes, Ordering::Relaxed), *bytes)
    }
}

impl Drop for BodyBytes {
    fn drop(&mut self) {
        if *self.is_counted.get_mut() {
            self.room.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// A place in memory for one delivery.
#[derive(Debug)]
pub struct Place {
    room: Arc<Room>,
    endpoint: Arc<Room>,
    body: SharedBody,
    /// The delivery that it is for, where the store asks what is in memory.
    named: Option<(Names, DeliveryId)>,
}

/// The deliveries that are in memory, by name.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<Mutex<HashMap<DeliveryId, u32>>>);

impl Names {
    /// Whether the delivery is in memory, or about to be.
    pub fn contains(&self, id: DeliveryId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&id)
    }
}

impl Place {
    /// A place that no bound counts, for an engine without this store.
    pub fn unbounded() -> Self {
        let (room, endpoint) = <(Arc<Room>, Arc<Room>)>::default();
        let body = SharedBody(Arc::new(BodyBytes { room: room.clone(), bytes: 0, is_counted: AtomicBool::new(false) }));
        Self { room, endpoint, body, named: None }
    }

    /// What its endpoint holds of this memory.
    pub fn endpoint(&self) -> &Arc<Room> {
        &self.endpoint
    }

    /// For this delivery, which is among the names for as long as the place is taken.
    #[must_use]
    pub fn named(mut self, names: &Names, id: DeliveryId) -> Self {
        *names.0.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_insert(0) += 1;
        self.named = Some((names.clone(), id));
        self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.held.fetch_sub(1, Ordering::Relaxed);
        self.endpoint.remove(self.body.0.bytes);
        if let Some((names, id)) = self.named.take() {
            let mut names = names.0.lock().unwrap_or_else(PoisonError::into_inner);
            match names.get_mut(&id) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(names.remove(&id)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_endpoint_cannot_take_all_the_room() {
        let (inbox, _engine) = Inbox::new();
        let endpoint = Arc::new(Room::default());
        let new: Vec<_> = std::iter::from_fn(|| inbox.reserve_new(&endpoint, &inbox.body(10))).collect();
        assert_eq!(new.len(), MAX_NEW_PER_ENDPOINT);
        let due: Vec<_> = std::iter::from_fn(|| inbox.reserve(&endpoint, 10)).collect();
        assert_eq!(new.len() + due.len(), MAX_HELD_PER_ENDPOINT, "what waits in the store has a part of its own");
        assert!(inbox.reserve(&Arc::default(), 10).is_some(), "another endpoint still has room");
        drop((new, due));
        assert_eq!((inbox.held(), endpoint.held()), (0, 0));
    }

    #[test]
    fn what_is_new_does_not_pass_what_waits_in_the_store() {
        let (inbox, _engine) = Inbox::new();
        let endpoint = Arc::new(Room::default());
        let full: Vec<_> = std::iter::from_fn(|| inbox.reserve_new(&endpoint, &inbox.body(10))).collect();
        drop(full);
        assert!(inbox.reserve_new(&endpoint, &inbox.body(10)).is_none(), "one of them is in the store now");
        endpoint.note_stored(false);
        assert!(inbox.reserve_new(&endpoint, &inbox.body(10)).is_some());
    }

    #[test]
    fn a_body_that_deliveries_share_is_counted_once() {
        let (inbox, _engine) = Inbox::new();
        let body = inbox.body(MAX_HELD_BYTES / 4);
        let endpoints: Vec<Arc<Room>> = (0..150).map(|_| Arc::default()).collect();
        let places: Vec<_> = endpoints.iter().filter_map(|endpoint| inbox.reserve_new(endpoint, &body)).collect();
        assert_eq!(places.len(), 150);
        drop(body);
        assert_eq!(inbox.room.bytes.load(Ordering::Relaxed), MAX_HELD_BYTES / 4);
        drop(places);
        assert_eq!(inbox.room.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn slow_and_new_endpoints_leave_room_for_those_that_answer() {
        let (inbox, _engine) = Inbox::new();
        let mut places = Vec::new();
        for pace in [Pace::Slow, Pace::Unknown] {
            for _ in 0..2_000 {
                let endpoint = Arc::<Room>::default();
                endpoint.note_pace(pace);
                places.extend(std::iter::from_fn(|| inbox.reserve_new(&endpoint, &inbox.body(250_000))));
            }
        }
        let another = Arc::<Room>::default();
        assert!(inbox.reserve_new(&another, &inbox.body(250_000)).is_none());
        let prompt = Arc::<Room>::default();
        prompt.note_pace(Pace::Prompt);
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
    fn many_greedy_endpoints_leave_room_for_another() {
        let (inbox, _engine) = Inbox::new();
        for (greedy, bytes) in [(500, 10), (20, 200_000)] {
            let mut places = Vec::new();
            for _ in 0..greedy {
                let endpoint = Arc::default();
                places.extend(std::iter::from_fn(|| inbox.reserve(&endpoint, bytes)));
            }
            let other = Arc::default();
            assert!(inbox.reserve(&other, bytes).is_some(), "{} places of {bytes} bytes", places.len());
        }
    }

    #[test]
    fn bodies_are_counted_in_bytes() {
        let (inbox, _engine) = Inbox::new();
        let prompt = || {
            let endpoint = Arc::<Room>::default();
            endpoint.note_pace(Pace::Prompt);
            endpoint
        };
        let first = inbox.reserve(&prompt(), MAX_HELD_BYTES - 1);
        assert!(first.is_some());
        assert!(inbox.reserve(&prompt(), 2).is_none());
        assert!(inbox.reserve(&prompt(), 1).is_some());
    }
}

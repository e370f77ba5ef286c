//! The way from the store to the engine: leased deliveries straight from memory, and nudges.
//!
//! Room is reserved *before* the write that leases a delivery, so that a commit never leases what memory has no
//! place for; what finds no room is written unleased and claimed later.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use crate::domain::delivery::Job;
use crate::domain::id::EndpointKey;
use crate::domain::time::Timestamp;

/// Deliveries that may be in memory at once, over all endpoints.
pub const MAX_HELD: usize = 16_384;

/// Bytes of bodies that may be in memory at once, each counted for every delivery that carries it.
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
}

/// Counts what is in memory.
#[derive(Debug, Default)]
pub struct Room {
    held: AtomicUsize,
    bytes: AtomicUsize,
}

/// The sending side, which the store keeps.
#[derive(Clone, Debug)]
pub struct Inbox {
    nudges: mpsc::UnboundedSender<Nudge>,
    room: Arc<Room>,
}

impl Inbox {
    /// An inbox and the engine's end of it. The channel is bounded by the room for jobs; other nudges are small and
    /// come at most once for each endpoint and commit.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Nudge>) {
        let (nudges, receiver) = mpsc::unbounded_channel();
        (Self { nudges, room: Arc::default() }, receiver)
    }

    /// Reserves a place for a delivery of `bytes`, if there is one.
    pub fn reserve(&self, endpoint: &Arc<AtomicUsize>, bytes: usize) -> Option<Place> {
        let place = Place { room: self.room.clone(), endpoint: endpoint.clone(), bytes };
        let held = place.room.held.fetch_add(1, Ordering::Relaxed);
        let total = place.room.bytes.fetch_add(bytes, Ordering::Relaxed);
        let of_endpoint = place.endpoint.fetch_add(1, Ordering::Relaxed);
        // The place gives back all three when it is dropped here.
        (held < MAX_HELD && of_endpoint < MAX_HELD_PER_ENDPOINT && (total + bytes <= MAX_HELD_BYTES || held == 0))
            .then_some(place)
    }

    /// Hands something to the engine; when the engine has stopped, it is dropped.
    pub fn send(&self, nudge: Nudge) {
        let _ = self.nudges.send(nudge);
    }

    /// Deliveries in memory now.
    pub fn held(&self) -> usize {
        self.room.held.load(Ordering::Relaxed)
    }
}

/// A place in memory for one delivery.
#[derive(Debug)]
pub struct Place {
    room: Arc<Room>,
    endpoint: Arc<AtomicUsize>,
    bytes: usize,
}

impl Place {
    /// A place that no bound counts, for an engine without this store.
    pub fn unbounded() -> Self {
        Self { room: Arc::default(), endpoint: Arc::default(), bytes: 0 }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.held.fetch_sub(1, Ordering::Relaxed);
        self.room.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.endpoint.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_endpoint_cannot_take_all_the_room() {
        let (inbox, _engine) = Inbox::new();
        let endpoint = Arc::new(AtomicUsize::new(0));
        let places: Vec<_> = std::iter::from_fn(|| inbox.reserve(&endpoint, 10)).collect();
        assert_eq!(places.len(), MAX_HELD_PER_ENDPOINT);
        assert!(inbox.reserve(&Arc::default(), 10).is_some(), "another endpoint still has room");
        drop(places);
        assert_eq!((inbox.held(), endpoint.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn bodies_are_counted_in_bytes() {
        let (inbox, _engine) = Inbox::new();
        let first = inbox.reserve(&Arc::default(), MAX_HELD_BYTES - 1);
        assert!(first.is_some());
        assert!(inbox.reserve(&Arc::default(), 2).is_none());
        assert!(inbox.reserve(&Arc::default(), 1).is_some());
    }
}

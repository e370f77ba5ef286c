//! An endpoint's row as it is now, for attempts that begin now.
//!
//! A view may be late. All that it shows has one number, that of the last change (`follow`): a statement that finds the view's
//! number in the database proves that everything in the view was current when the statement began. Whatever makes a
//! delivery or claims it reads the number beside it, so that no attempt uses a view that is older than its delivery; and one that
//! waited in memory uses no view that is older than [`RECENT`]. What was committed before (a rotation, a pause) holds
//! for it, on any node.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Store, in_time};
use crate::domain::id::EndpointKey;
use crate::domain::secret::Keyring;
use crate::store::{Snapshot, StoreError, Target, View};

/// How old the view may be for an attempt that asks for nothing.
const RECENT: Duration = Duration::from_millis(10);

/// And for one that has asked, as it may take a while to hear. An attempt may begin 100 ms before its request is written.
const FRESH: Duration = Duration::from_millis(70);

impl Snapshot for Store {
    fn view(&self) -> &View {
        &self.view
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        self.follower.refresh().await
    }

    async fn refresh_stale(&self) -> Result<(), StoreError> {
        if self.follower.is_stale() { in_time(self.follower.refresh()).await } else { Ok(()) }
    }

    fn holds(&self, lease: i64) -> bool {
        // A command that is no node holds nothing, and may send.
        self.node.key() == 0 || self.node.lease() == Some(lease)
    }

    fn keyring(&self) -> Arc<Keyring> {
        self.shared.keyring()
    }

    async fn target(&self, endpoint: EndpointKey) -> Result<Option<Arc<Target>>, StoreError> {
        // Differs by necessity: a node that has lost its leases gets no endpoint.
        if self.node.key() != 0 && self.node.lease().is_none() {
            return Err(StoreError::Unavailable("this node has not been heard of for too long".into()));
        }
        let mut age = RECENT;
        while !self.seen.is_within(age) {
            self.follower.refresh().await?;
            age = FRESH;
        }
        Ok(self.view.target(endpoint))
    }
}

/// How new the view of this node is.
#[derive(Default)]
pub(super) struct Seen {
    /// The last change that the view shows.
    generation: AtomicI64,
    moments: Mutex<Moments>,
}

#[derive(Clone, Copy, Default)]
struct Moments {
    /// The view shows everything that was committed before this moment.
    current: Option<Instant>,
    /// A statement that began then found a change that the view did not show.
    late: Option<Instant>,
    /// Since when the numbers may stand for other changes than those that were read.
    doubted: Option<Instant>,
}

impl Moments {
    /// The moment that the view is known to be as new as.
    fn known(self) -> Option<Instant> {
        self.current.filter(|current| self.doubted.is_none() && self.late.is_none_or(|late| late < *current))
    }
}

impl Seen {
    pub fn generation(&self) -> i64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The view was read from `began` on, and shows everything up to this change.
    pub fn shows(&self, generation: i64, began: Instant) {
        self.generation.store(generation, Ordering::Release);
        self.change(|moments| {
            moments.current = moments.current.max(Some(began));
            moments.doubted = moments.doubted.filter(|doubted| *doubted >= began);
        });
    }

    /// A statement that began at this moment found this to be the last change.
    pub fn found(&self, generation: i64, began: Instant) {
        let shown = self.generation() == generation;
        self.change(|moments| {
            let moment = if shown { &mut moments.current } else { &mut moments.late };
            *moment = (*moment).max(Some(began));
        });
    }

    /// From now on nothing of the view is relied on until it was compared with the database, or read anew.
    pub fn doubt(&self) {
        self.change(|moments| moments.doubted = Some(Instant::now()));
    }

    pub fn is_doubted(&self) -> bool {
        self.moments.lock().unwrap_or_else(PoisonError::into_inner).doubted.is_some()
    }

    /// Whether the view shows everything that was committed before this moment.
    pub fn is_since(&self, moment: Instant) -> bool {
        let moments = *self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        moments.known().is_some_and(|known| known >= moment)
    }

    /// Whether the view is no older than this.
    pub fn is_within(&self, age: Duration) -> bool {
        Instant::now().checked_sub(age).is_some_and(|moment| self.is_since(moment))
    }

    /// How long ago the view was last known to be current.
    pub fn age(&self) -> Duration {
        let current = self.moments.lock().unwrap_or_else(PoisonError::into_inner).current;
        current.map_or(Duration::ZERO, |current| current.elapsed())
    }

    fn change(&self, change: impl FnOnce(&mut Moments)) {
        change(&mut self.moments.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_view_is_as_new_as_the_last_statement_that_found_nothing_newer() {
        let (seen, start) = (Seen::default(), Instant::now());
        assert!(!seen.is_since(start), "nothing is known before the first look");
        seen.shows(7, start);
        seen.found(7, after(start, 5));
        seen.found(7, after(start, 3));
        assert!(seen.is_since(after(start, 5)) && !seen.is_since(after(start, 6)));
    }

    #[test]
    fn a_view_that_is_late_is_not_current_again_before_it_was_read_anew() {
        let (seen, start) = (Seen::default(), Instant::now());
        seen.shows(7, start);
        seen.found(8, after(start, 5));
        // One that began before, and is heard later.
        seen.found(7, after(start, 3));
        assert!(!seen.is_since(start));
        seen.shows(8, after(start, 6));
        assert!(seen.is_since(after(start, 6)));
        // A straggler that saw what was before changes nothing.
        seen.found(7, after(start, 4));
        assert!(seen.is_since(after(start, 6)));
    }

    #[test]
    fn a_view_that_is_doubted_is_believed_again_only_when_it_was_read_since() {
        let (seen, start) = (Seen::default(), Instant::now());
        seen.shows(7, start);
        seen.doubt();
        let later = after(Instant::now(), 1);
        // The number is the same, and may be that of another change.
        seen.found(7, later);
        // This look had begun before.
        seen.shows(7, start);
        assert!(!seen.is_since(start) && seen.is_doubted());
        seen.shows(7, later);
        assert!(seen.is_since(later) && !seen.is_doubted());
    }
}

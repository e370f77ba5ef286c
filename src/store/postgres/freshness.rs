//! How new the view of this node is.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::Mutex;

/// How new the view of this node is.
#[derive(Default)]
pub(super) struct Freshness {
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

impl Freshness {
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
        self.moments.lock().doubted.is_some()
    }

    /// Whether the view shows everything that was committed before this moment.
    pub fn is_since(&self, moment: Instant) -> bool {
        let moments = *self.moments.lock();
        moments.known().is_some_and(|known| known >= moment)
    }

    /// Whether the view is no older than this.
    pub fn is_within(&self, age: Duration) -> bool {
        Instant::now().checked_sub(age).is_some_and(|moment| self.is_since(moment))
    }

    /// How long ago the view was last known to be current.
    pub fn age(&self) -> Duration {
        let current = self.moments.lock().current;
        current.map_or(Duration::ZERO, |current| current.elapsed())
    }

    fn change(&self, change: impl FnOnce(&mut Moments)) {
        change(&mut self.moments.lock());
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
        let (freshness, start) = (Freshness::default(), Instant::now());
        assert!(!freshness.is_since(start), "nothing is known before the first look");
        freshness.shows(7, start);
        freshness.found(7, after(start, 5));
        freshness.found(7, after(start, 3));
        assert!(freshness.is_since(after(start, 5)) && !freshness.is_since(after(start, 6)));
    }

    #[test]
    fn a_view_that_is_late_is_not_current_again_before_it_was_read_anew() {
        let (freshness, start) = (Freshness::default(), Instant::now());
        freshness.shows(7, start);
        freshness.found(8, after(start, 5));
        // One that began before, and is heard later.
        freshness.found(7, after(start, 3));
        assert!(!freshness.is_since(start));
        freshness.shows(8, after(start, 6));
        assert!(freshness.is_since(after(start, 6)));
        // A straggler that saw what was before changes nothing.
        freshness.found(7, after(start, 4));
        assert!(freshness.is_since(after(start, 6)));
    }

    #[test]
    fn a_view_that_is_doubted_is_believed_again_only_when_it_was_read_since() {
        let (freshness, start) = (Freshness::default(), Instant::now());
        freshness.shows(7, start);
        freshness.doubt();
        let later = after(Instant::now(), 1);
        // The number is the same, and may be that of another change.
        freshness.found(7, later);
        // This look had begun before.
        freshness.shows(7, start);
        assert!(!freshness.is_since(start) && freshness.is_doubted());
        freshness.shows(7, later);
        assert!(freshness.is_since(later) && !freshness.is_doubted());
    }
}

//! Start permits: where an endpoint has a rate limit, an attempt begins only with a permit, which says that the
//! database counts the attempt towards the limit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::rate_limit::Rate;
use crate::domain::time::Timestamp;
use crate::lock::Mutex;

/// An attempt that the database counts towards the rate limit of its endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CountedStart {
    /// The group of the endpoint's attempts in which it is counted.
    pub group: Timestamp,
    /// The limit that it is counted towards.
    pub rate: Rate,
    asked_at: Instant,
    /// It begins before this.
    until: Instant,
}

impl CountedStart {
    /// It may begin until `validity` has passed since `asked_at`, a moment before the database counted it.
    pub fn new(group: Timestamp, rate: Rate, asked_at: Instant, validity: Duration) -> Self {
        Self { group, rate, asked_at, until: asked_at + validity }
    }

    /// Until then nobody else has its place: whoever has not begun by then counts it again.
    pub fn lapses_at(&self) -> Instant {
        self.asked_at + self.rate.window
    }
}

/// What allows the next request of an attempt: at most one. Without a rate limit none is needed.
#[derive(Debug, Default)]
pub struct StartPermit {
    counted: Mutex<Option<CountedStart>>,
    /// Whether a request could not be counted: the delivery then keeps its place.
    refused: AtomicBool,
}

impl StartPermit {
    /// For an attempt that is counted.
    pub fn of(counted: CountedStart) -> Self {
        Self { counted: Mutex::new(Some(counted)), refused: AtomicBool::default() }
    }

    /// Whether a request may be sent now to an endpoint with this limit.
    pub fn is_valid(&self, rate: Rate) -> bool {
        self.counted().is_some_and(|counted| counted.rate == rate && Instant::now() < counted.until)
    }

    /// What is counted for a request that was not sent.
    pub fn counted(&self) -> Option<CountedStart> {
        *self.counted.lock()
    }

    /// Takes what is counted for the next request.
    pub fn replace(&self, counted: Option<CountedStart>) {
        *self.counted.lock() = counted;
    }

    /// A request could not be counted.
    pub fn note_refusal(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Whether a request could not be counted.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

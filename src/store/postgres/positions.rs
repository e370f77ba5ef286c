//! Where this node begins to look in the index of what is due: before an endpoint's position nothing of it is due any
//! more.
//!
//! A claimed delivery leaves an entry in the index. While somebody holds an old snapshot the entries stay, and a look
//! from the beginning would walk all of them. A position is a hint: whatever is made due is made due now or later, or
//! with the first of what waits, so that only a commit that took long can be before it. Claims begin a little before
//! the position, the regular look at all endpoints begins further before it, and every so often that look begins at
//! the beginning.

use std::time::Duration;

use foldhash::HashMap;
use tokio::time::Instant;

use crate::domain::id::EndpointKey;
use crate::domain::time::Timestamp;
use crate::lock::Mutex;

/// How far before its position a claim begins: a commit and the difference of two nodes' clocks are rarely longer. At
/// 1,000 deliveries a second these are 3,000 old entries, half a millisecond.
const CLAIM_MARGIN: Duration = Duration::from_secs(3);

/// And the look at all endpoints, which comes every 5 s: no commit takes longer, its statements end after 5 s each
/// (`open.rs`).
const LOOK_MARGIN: Duration = Duration::from_secs(30);

/// Between two looks from the beginning, should something be before a position after all.
const FULL_LOOK_INTERVAL: Duration = Duration::from_secs(600);

/// The position of each endpoint, as a time in milliseconds; none for an endpoint that was not looked at yet.
#[derive(Default)]
pub(super) struct Positions(Mutex<Known>);

#[derive(Default)]
struct Known {
    due_from: HashMap<EndpointKey, i64>,
    looked_at_all: Option<Instant>,
}

impl Positions {
    /// The first time of what a claim looks at.
    pub fn claim_from(&self, endpoint: EndpointKey, now: Timestamp) -> i64 {
        self.with(|known| known.from(endpoint, now, CLAIM_MARGIN))
    }

    /// The first times of what a look at these endpoints looks at.
    pub fn look_from(&self, endpoints: &[EndpointKey], now: Timestamp) -> Vec<i64> {
        self.with(|known| {
            if known.looked_at_all.is_none_or(|at| at.elapsed() >= FULL_LOOK_INTERVAL) {
                known.looked_at_all = Some(Instant::now());
                known.due_from.clear();
            }
            endpoints.iter().map(|endpoint| known.from(*endpoint, now, LOOK_MARGIN)).collect()
        })
    }

    /// The same for who only measures, and leaves the looks as they are.
    pub fn measure_from(&self, endpoints: &[EndpointKey], now: Timestamp) -> Vec<i64> {
        self.with(|known| endpoints.iter().map(|endpoint| known.from(*endpoint, now, LOOK_MARGIN)).collect())
    }

    /// A look that began at `now` found this to be the first delivery of the endpoint that is or will be due.
    pub fn found(&self, endpoint: EndpointKey, first: Option<Timestamp>, now: Timestamp) {
        self.with(|known| _ = known.due_from.insert(endpoint, position(first, now)));
    }

    /// The same of all endpoints that are active. Others are forgotten: what they hold is looked for when they are
    /// active again.
    pub fn found_all(&self, endpoints: &[EndpointKey], first: &HashMap<EndpointKey, Timestamp>, now: Timestamp) {
        let due_from =
            endpoints.iter().map(|endpoint| (*endpoint, position(first.get(endpoint).copied(), now))).collect();
        self.with(|known| known.due_from = due_from);
    }

    /// A delivery of the endpoint became due at this time.
    pub fn lower(&self, endpoint: EndpointKey, at: Timestamp) {
        self.with(|known| {
            if let Some(from) = known.due_from.get_mut(&endpoint) {
                *from = at.as_millis().min(*from);
            }
        });
    }

    /// The endpoint was changed: what it holds is looked for from the beginning.
    pub fn forget(&self, endpoint: EndpointKey) {
        self.with(|known| _ = known.due_from.remove(&endpoint));
    }

    /// The database may be another than before.
    pub fn forget_all(&self) {
        self.with(|known| known.due_from.clear());
    }

    fn with<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        work(&mut self.0.lock())
    }
}

impl Known {
    fn from(&self, endpoint: EndpointKey, now: Timestamp, margin: Duration) -> i64 {
        match self.due_from.get(&endpoint) {
            Some(from) if *from <= now.as_millis() => Timestamp::from_millis(*from).minus(margin).as_millis(),
            // Not looked at yet, or by a clock that has since gone back.
            _ => i64::MIN,
        }
    }
}

/// What is written from `now` on is due at `now` at the earliest.
fn position(first: Option<Timestamp>, now: Timestamp) -> i64 {
    first.map_or(now, |first| first.min(now)).as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: EndpointKey = EndpointKey(1);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_claim_begins_a_little_before_what_was_found_last() {
        let positions = Positions::default();
        assert_eq!(positions.claim_from(ENDPOINT, at(100)), i64::MIN, "nothing is known yet");
        positions.found(ENDPOINT, None, at(100));
        assert_eq!(positions.claim_from(ENDPOINT, at(110)), 97_000);
        positions.found(ENDPOINT, Some(at(90)), at(110));
        assert_eq!(positions.claim_from(ENDPOINT, at(111)), 87_000, "what is left over is never passed");
        positions.found(ENDPOINT, Some(at(500)), at(112));
        assert_eq!(positions.claim_from(ENDPOINT, at(113)), 109_000, "what comes meanwhile is due before a retry");
    }

    #[test]
    fn what_became_due_before_the_position_is_looked_at() {
        let positions = Positions::default();
        positions.found(ENDPOINT, None, at(100));
        positions.lower(ENDPOINT, at(80));
        positions.lower(ENDPOINT, at(90));
        assert_eq!(positions.claim_from(ENDPOINT, at(100)), 77_000);
    }

    #[test]
    fn an_endpoint_that_was_changed_is_looked_at_from_the_beginning() {
        let positions = Positions::default();
        let other = EndpointKey(2);
        positions.found(ENDPOINT, None, at(100));
        positions.found(other, None, at(100));
        positions.forget(ENDPOINT);
        assert_eq!(positions.claim_from(ENDPOINT, at(101)), i64::MIN);
        assert_eq!(positions.claim_from(other, at(101)), 97_000);
        positions.forget_all();
        assert_eq!(positions.claim_from(other, at(101)), i64::MIN);
    }

    #[test]
    fn a_clock_that_has_gone_back_looks_from_the_beginning() {
        let positions = Positions::default();
        positions.found(ENDPOINT, None, at(100));
        assert_eq!(positions.claim_from(ENDPOINT, at(99)), i64::MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn the_look_at_all_endpoints_begins_earlier_and_now_and_then_at_the_beginning() {
        let positions = Positions::default();
        let endpoints = [ENDPOINT];
        assert_eq!(positions.look_from(&endpoints, at(100)), [i64::MIN]);
        positions.found_all(&endpoints, &HashMap::default(), at(100));
        assert_eq!(positions.look_from(&endpoints, at(105)), [70_000]);
        tokio::time::advance(FULL_LOOK_INTERVAL).await;
        assert_eq!(positions.look_from(&endpoints, at(700)), [i64::MIN]);
        positions.found_all(&[], &HashMap::default(), at(700));
        assert_eq!(positions.claim_from(ENDPOINT, at(700)), i64::MIN, "it was not active");
    }
}

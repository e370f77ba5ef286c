//! Which delivery goes next: a queue and a limit for each endpoint, turns between endpoints, a bound over all.
//!
//! No I/O and no clock: it is told what happened and asked what to do.
//!
//! An endpoint's limit grows with each success and halves with each failure, down to one probe. Endpoints that answer
//! promptly are *proven*; all others together may use half of the global bound, so that hanging receivers cannot take
//! the room of those that answer.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::time::Duration;

use super::Limits;
use crate::domain::id::EndpointKey;
use crate::domain::time::Timestamp;
use crate::store::Claimed;
use crate::store::inbox::Leased;

/// Requests in flight to an endpoint that nothing is known about.
const FIRST_LIMIT: f64 = 2.0;

/// An answer within this time is prompt.
const PROMPT: Duration = Duration::from_secs(1);

/// A lane with fewer deliveries in memory fetches those that are due.
const REFILL_BELOW: usize = 64;

/// Deliveries asked for in one claim.
const CLAIM: usize = 256;

/// When a claim brought nothing though something was due (memory is full, or the store failed), it is tried again
/// after this long.
const CLAIM_AGAIN: Duration = Duration::from_millis(250);

/// Lanes kept for what they know although nothing is going on in them.
const MAX_QUIET_LANES: usize = 16_384;

/// What an attempt told about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// 2xx within the time.
    Delivered(Duration),
    /// Anything else.
    Failed,
    /// It was not attempted.
    Held,
}

/// A delivery that may go now.
#[derive(Debug)]
pub(super) struct Start {
    pub leased: Leased,
    /// Whether it counts towards the share of unproven endpoints; to be told again at the end.
    pub unproven: bool,
}

/// Where a lane waits for its turn: those that answer promptly apart from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ring {
    Proven,
    Unproven,
}

#[derive(Debug)]
struct Lane {
    queue: VecDeque<Leased>,
    in_flight: usize,
    limit: f64,
    /// Until the first failure the limit doubles instead of creeping.
    fresh: bool,
    proven: bool,
    /// The ring in which its turn is awaited.
    queued: Option<Ring>,
    claiming: bool,
    next_due: Option<Timestamp>,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            in_flight: 0,
            limit: FIRST_LIMIT,
            fresh: true,
            proven: false,
            queued: None,
            claiming: false,
            next_due: None,
        }
    }
}

impl Lane {
    fn is_quiet(&self) -> bool {
        self.queue.is_empty() && self.in_flight == 0 && !self.claiming && self.next_due.is_none()
    }

    fn has_room(&self) -> bool {
        // The limit is at least 1 and far below what a float counts exactly.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 65536")]
        let limit = self.limit as usize;
        self.in_flight < limit
    }
}

/// A hash without a random seed, so that a simulation repeats.
type Lanes = HashMap<EndpointKey, Lane, BuildHasherDefault<std::hash::DefaultHasher>>;

pub(super) struct Scheduler {
    limits: Limits,
    lanes: Lanes,
    /// Endpoints with a delivery to send and room for it, those that answer promptly and the others.
    proven: VecDeque<EndpointKey>,
    unproven: VecDeque<EndpointKey>,
    unproven_turn: bool,
    in_flight: usize,
    unproven_in_flight: usize,
    /// When lanes want to look into the store.
    timers: BTreeSet<(Timestamp, EndpointKey)>,
}

impl Scheduler {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            lanes: Lanes::default(),
            proven: VecDeque::new(),
            unproven: VecDeque::new(),
            unproven_turn: false,
            in_flight: 0,
            unproven_in_flight: 0,
            timers: BTreeSet::new(),
        }
    }

    fn lane(&mut self, endpoint: EndpointKey) -> &mut Lane {
        let most = self.most_per_endpoint();
        self.lanes.entry(endpoint).or_insert_with(|| Lane { limit: FIRST_LIMIT.min(most), ..Lane::default() })
    }

    fn most_per_endpoint(&self) -> f64 {
        f64::from(u16::try_from(self.limits.max_in_flight_per_endpoint).unwrap_or(u16::MAX))
    }

    /// Requests in flight now.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Leased deliveries have arrived.
    pub fn add(&mut self, jobs: impl IntoIterator<Item = Leased>) {
        for leased in jobs {
            let endpoint = leased.job.endpoint;
            self.lane(endpoint).queue.push_back(leased);
            self.enqueue(endpoint);
        }
    }

    /// The endpoint has something in the store that is due then.
    pub fn due(&mut self, endpoint: EndpointKey, at: Timestamp) {
        let lane = self.lane(endpoint);
        if lane.next_due.is_some_and(|due| due <= at) {
            return;
        }
        if let Some(later) = lane.next_due.replace(at) {
            self.timers.remove(&(later, endpoint));
        }
        self.timers.insert((at, endpoint));
    }

    /// When [`Scheduler::next_claim`] will have something to say.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// An endpoint whose due deliveries are to be fetched now, and how many.
    pub fn next_claim(&mut self, now: Timestamp) -> Option<(EndpointKey, usize)> {
        while let Some((at, endpoint)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, endpoint));
            let Some(lane) = self.lanes.get_mut(&endpoint) else { continue };
            // A lane that is busy asks again when it has drained: see `refill`.
            if lane.claiming || lane.queue.len() >= REFILL_BELOW {
                continue;
            }
            lane.next_due = None;
            lane.claiming = true;
            return Some((endpoint, CLAIM));
        }
        None
    }

    /// A claim has come back; `None` is one that failed.
    pub fn claimed(&mut self, endpoint: EndpointKey, claimed: Option<Claimed>, now: Timestamp) {
        let lane = self.lane(endpoint);
        lane.claiming = false;
        // A note that came while the claim was under way had no timer of its own left.
        if let Some(noted) = lane.next_due {
            self.timers.insert((noted, endpoint));
        }
        match claimed {
            Some(Claimed { jobs, next_due }) => {
                let starved = jobs.is_empty();
                self.add(jobs);
                if let Some(at) = next_due {
                    self.due(endpoint, if starved { at.max(now.plus(CLAIM_AGAIN)) } else { at });
                }
            }
            None => self.due(endpoint, now.plus(CLAIM_AGAIN)),
        }
        self.refill(endpoint);
    }

    /// The next delivery to send, if the bounds allow one.
    pub fn next_start(&mut self) -> Option<Start> {
        if self.in_flight >= self.limits.max_in_flight {
            return None;
        }
        let share = (self.limits.max_in_flight / 2).max(1);
        let unproven_allowed = self.unproven_in_flight < share;
        self.unproven_turn = !self.unproven_turn;
        let endpoint = if self.unproven_turn && unproven_allowed {
            self.pop(Ring::Unproven).or_else(|| self.pop(Ring::Proven))
        } else {
            self.pop(Ring::Proven).or_else(|| if unproven_allowed { self.pop(Ring::Unproven) } else { None })
        }?;
        let lane = self.lanes.get_mut(&endpoint)?;
        lane.queued = None;
        let leased = lane.queue.pop_front()?;
        lane.in_flight += 1;
        let unproven = !lane.proven;
        self.in_flight += 1;
        self.unproven_in_flight += usize::from(unproven);
        self.enqueue(endpoint);
        self.refill(endpoint);
        Some(Start { leased, unproven })
    }

    /// An attempt has ended.
    pub fn ended(&mut self, endpoint: EndpointKey, unproven: bool, answered: Answered) {
        self.in_flight -= 1;
        self.unproven_in_flight -= usize::from(unproven);
        let most = self.most_per_endpoint();
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        lane.in_flight -= 1;
        match answered {
            Answered::Delivered(took) => {
                lane.limit = (lane.limit + if lane.fresh { 0.5 } else { 1.0 / lane.limit }).min(most).max(1.0);
                lane.proven = took < PROMPT;
            }
            Answered::Failed => {
                lane.limit = (lane.limit / 2.0).max(1.0);
                lane.fresh = false;
                lane.proven = false;
            }
            Answered::Held => {}
        }
        self.enqueue(endpoint);
        self.refill(endpoint);
        self.forget_quiet();
    }

    /// Puts a lane that can send into its ring. One that has changed sides leaves a stale entry in the other.
    fn enqueue(&mut self, endpoint: EndpointKey) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        let ring = if lane.proven { Ring::Proven } else { Ring::Unproven };
        if lane.queued == Some(ring) || lane.queue.is_empty() || !lane.has_room() {
            return;
        }
        lane.queued = Some(ring);
        self.ring(ring).push_back(endpoint);
    }

    /// The next lane of a ring, past stale entries.
    fn pop(&mut self, ring: Ring) -> Option<EndpointKey> {
        loop {
            let endpoint = self.ring(ring).pop_front()?;
            if self.lanes.get(&endpoint).is_some_and(|lane| lane.queued == Some(ring)) {
                return Some(endpoint);
            }
        }
    }

    fn ring(&mut self, ring: Ring) -> &mut VecDeque<EndpointKey> {
        match ring {
            Ring::Proven => &mut self.proven,
            Ring::Unproven => &mut self.unproven,
        }
    }

    /// Looks into the store again when a lane has drained and something is due.
    fn refill(&mut self, endpoint: EndpointKey) {
        let Some(lane) = self.lanes.get(&endpoint) else { return };
        if !lane.claiming
            && lane.queue.len() < REFILL_BELOW
            && let Some(at) = lane.next_due
        {
            self.timers.insert((at, endpoint));
        }
    }

    fn forget_quiet(&mut self) {
        if self.lanes.len() > MAX_QUIET_LANES {
            self.lanes.retain(|_, lane| !lane.is_quiet());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::delivery::{DeliveryKind, Job};
    use crate::domain::id::DeliveryId;
    use crate::store::inbox::Place;

    const LIMITS: Limits = Limits { max_in_flight: 100, max_in_flight_per_endpoint: 8 };

    fn jobs(endpoint: i64, count: i64) -> Vec<Leased> {
        (0..count)
            .map(|n| Leased {
                job: Job {
                    id: DeliveryId(endpoint * 1_000_000 + n),
                    endpoint: EndpointKey(endpoint),
                    kind: DeliveryKind::Event,
                    event_type: "a.b".into(),
                    attempts_made: 0,
                    failures: 0,
                    body: bytes::Bytes::new(),
                },
                place: Place::unbounded(),
            })
            .collect()
    }

    fn starts(scheduler: &mut Scheduler) -> Vec<i64> {
        std::iter::from_fn(|| scheduler.next_start()).map(|start| start.leased.job.endpoint.0).collect()
    }

    fn prompt() -> Answered {
        Answered::Delivered(Duration::from_millis(5))
    }

    #[test]
    fn an_endpoints_limit_grows_with_success_and_falls_to_one_probe_with_failure() {
        let mut scheduler = Scheduler::new(LIMITS);
        scheduler.add(jobs(1, 1_000));
        assert_eq!(starts(&mut scheduler).len(), 2);
        for _ in 0..40 {
            scheduler.ended(EndpointKey(1), true, prompt());
            scheduler.unproven_in_flight = 1;
            starts(&mut scheduler);
        }
        assert_eq!(scheduler.lanes[&EndpointKey(1)].in_flight, 8, "never more than the setting");
        for _ in 0..8 {
            scheduler.ended(EndpointKey(1), false, Answered::Failed);
        }
        assert_eq!(starts(&mut scheduler).len(), 1, "a failing endpoint is probed");
    }

    #[test]
    fn a_bound_of_one_holds_from_the_first_delivery_on() {
        let mut scheduler = Scheduler::new(Limits { max_in_flight: 100, max_in_flight_per_endpoint: 1 });
        scheduler.add(jobs(1, 5));
        assert_eq!(starts(&mut scheduler).len(), 1);
    }

    #[test]
    fn endpoints_take_turns() {
        let mut scheduler = Scheduler::new(LIMITS);
        scheduler.add(jobs(1, 5));
        scheduler.add(jobs(2, 5));
        scheduler.add(jobs(3, 5));
        assert_eq!(starts(&mut scheduler), [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn unproven_endpoints_leave_half_of_the_room() {
        let mut scheduler = Scheduler::new(LIMITS);
        for endpoint in 1..=100 {
            scheduler.add(jobs(endpoint, 2));
        }
        assert_eq!(starts(&mut scheduler).len(), 50);
        scheduler.ended(EndpointKey(1), true, prompt());
        scheduler.add(jobs(1, 10));
        assert!(starts(&mut scheduler).contains(&1), "one that answers goes on");
    }

    #[test]
    fn the_bound_over_all_holds() {
        let mut scheduler = Scheduler::new(Limits { max_in_flight: 3, max_in_flight_per_endpoint: 64 });
        for endpoint in 1..=10 {
            let lane = Lane { proven: true, ..Lane::default() };
            scheduler.lanes.insert(EndpointKey(endpoint), lane);
            scheduler.add(jobs(endpoint, 2));
        }
        assert_eq!(starts(&mut scheduler).len(), 3);
    }

    #[test]
    fn what_is_due_while_a_claim_is_under_way_is_not_forgotten() {
        let mut scheduler = Scheduler::new(LIMITS);
        let now = Timestamp::from_millis(1_000);
        scheduler.due(EndpointKey(1), now);
        assert_eq!(scheduler.next_claim(now), Some((EndpointKey(1), CLAIM)));
        scheduler.due(EndpointKey(1), now);
        assert_eq!(scheduler.next_claim(now), None, "one claim at a time");
        scheduler.claimed(EndpointKey(1), Some(Claimed::default()), now);
        assert_eq!(scheduler.next_claim(now), Some((EndpointKey(1), CLAIM)));
    }

    #[test]
    fn a_full_lane_fetches_again_when_it_has_drained() {
        let mut scheduler = Scheduler::new(LIMITS);
        let now = Timestamp::from_millis(1_000);
        scheduler.add(jobs(1, 65));
        scheduler.due(EndpointKey(1), now);
        assert_eq!(scheduler.next_claim(now), None);
        starts(&mut scheduler);
        assert_eq!(scheduler.next_claim(now), Some((EndpointKey(1), CLAIM)));
    }

    #[test]
    fn a_claim_that_failed_or_found_no_room_is_tried_again_a_little_later() {
        let mut scheduler = Scheduler::new(LIMITS);
        let now = Timestamp::from_millis(1_000);
        for came_back in [None, Some(Claimed { jobs: vec![], next_due: Some(Timestamp::from_millis(5)) })] {
            scheduler.due(EndpointKey(1), now);
            scheduler.next_claim(now.plus(CLAIM_AGAIN));
            scheduler.claimed(EndpointKey(1), came_back, now);
            assert_eq!(scheduler.next_claim(now), None);
            assert_eq!(scheduler.next_wake(), Some(now.plus(CLAIM_AGAIN)));
        }
    }
}

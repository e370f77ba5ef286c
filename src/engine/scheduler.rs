//! Decides which delivery is sent next: a queue and a limit for each endpoint, round robins of accounts and endpoints,
//! and a global bound (`admission`).
//!
//! It does no I/O and reads no clock: events and times are parameters, and decisions are results.
//!
//! Each lane has its own limit (`lane`). Endpoints that answer promptly are *healthy*. Those that failed, were slow or
//! have an attempt in flight for longer than a second are *unhealthy*.

use std::collections::{BTreeSet, VecDeque};

use foldhash::fast::FixedState;
use tokio::time::Instant;

use super::Limits;
use super::admission::{Admission, Admitted};
use super::lane::{AttemptResult, Claiming, Lane, PROMPT};
use super::waiting_lanes::{MAX_LIMITED_WAIT, WOKEN_BY_SUCCESS, Wait, WaitingLanes};
use crate::domain::id::EndpointKey;
use crate::domain::time::Timestamp;
use crate::store::Claimed;
use crate::store::inbox::{Leased, Share};

/// Deliveries in one claim: a few times the limit of the lane.
const CLAIM: std::ops::RangeInclusive<usize> = 8..=256;
const CLAIM_ROUNDS: usize = 4;

/// Claims under way. A node has ten connections to PostgreSQL for all its calls: three times as many claims keep these
/// busy, and another call waits for a few of them only. SQLite runs so many in one transaction.
const MAX_CLAIMS_UNDER_WAY: usize = 32;

/// Lanes up to which no idle one is dropped: an idle lane knows the health and the limit of its endpoint. So many take
/// some 4 MB.
const KEPT_LANES: usize = 16_384;

/// The number of an attempt, in the order in which they begin.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct AttemptId(u64);

/// A delivery that may go now.
#[derive(Debug)]
pub(super) struct Start {
    pub leased: Leased,
    pub id: AttemptId,
}

/// A hash without a random seed, so that a simulation repeats.
type Lanes = std::collections::HashMap<EndpointKey, Lane, FixedState>;

pub(super) struct Scheduler {
    limits: Limits,
    /// This process's share of the limit of each endpoint.
    share: Share,
    given_up: Vec<Leased>,
    lanes: Lanes,
    /// Where there are more lanes than this, idle lanes are dropped.
    forget_above: usize,
    admission: Admission,
    /// Attempts that have begun and not ended.
    attempts: std::collections::HashMap<AttemptId, Admitted, FixedState>,
    next_attempt: u64,
    /// Attempts that have begun within the last second, the oldest first. The first one is in flight.
    started: VecDeque<(Instant, AttemptId)>,
    /// When lanes will claim from the store.
    timers: BTreeSet<(Timestamp, EndpointKey)>,
    /// Lanes that are to claim now, each once. A lane that has claimed and is to claim again comes last, however old
    /// its deliveries are.
    to_claim: VecDeque<EndpointKey>,
    /// Claims under way, at most [`MAX_CLAIMS_UNDER_WAY`].
    claims: usize,
    waiting: WaitingLanes,
    /// Endpoints that were changed while a claim of theirs was under way.
    changed: BTreeSet<EndpointKey>,
}

impl Scheduler {
    pub fn new(limits: Limits) -> Self {
        Self {
            admission: Admission::new(limits.max_in_flight),
            limits,
            share: Share::WHOLE,
            given_up: Vec::new(),
            lanes: Lanes::default(),
            forget_above: KEPT_LANES,
            attempts: std::collections::HashMap::default(),
            next_attempt: 0,
            started: VecDeque::new(),
            timers: BTreeSet::new(),
            to_claim: VecDeque::new(),
            claims: 0,
            waiting: WaitingLanes::default(),
            changed: BTreeSet::new(),
        }
    }

    fn lane(&mut self, endpoint: EndpointKey) -> &mut Lane {
        let most = self.most_of(endpoint, None);
        self.lanes.entry(endpoint).or_insert_with(|| Lane::new(most))
    }

    /// The highest limit that the endpoint can reach here, where its owner allows so many; 0 where other processes
    /// deliver to it.
    fn most_of(&self, endpoint: EndpointKey, own: Option<usize>) -> f64 {
        let setting = self.limits.max_in_flight_per_endpoint;
        let most = self.share.of(own.map_or(setting, |own| own.min(setting)), endpoint);
        f64::from(u16::try_from(most).expect("the setting is 4,096 at most"))
    }

    /// Takes the deliveries of endpoints that other processes deliver to.
    pub fn given_up(&mut self) -> Vec<Leased> {
        std::mem::take(&mut self.given_up)
    }

    /// Sets the share of this process.
    pub fn share(&mut self, share: Share) {
        self.share = share;
        for endpoint in self.lanes.keys().copied().collect::<Vec<_>>() {
            self.apply_limit(endpoint);
        }
    }

    /// Applies the highest limit of an endpoint, which its owner may have changed. What other processes send from now
    /// on is given up.
    fn apply_limit(&mut self, endpoint: EndpointKey) {
        let Some(own) = self.lanes.get(&endpoint).map(Lane::own_limit) else { return };
        let most = self.most_of(endpoint, own);
        let given_up = self.lanes.get_mut(&endpoint).map(|lane| lane.take_share(most));
        self.given_up.extend(given_up.into_iter().flatten());
        self.enqueue(endpoint);
        self.refill(endpoint);
    }

    /// Requests in flight now.
    pub fn in_flight(&self) -> usize {
        self.admission.in_flight()
    }

    /// Adds deliveries that were just accepted, with their leases.
    pub fn add(&mut self, jobs: impl IntoIterator<Item = Leased>) {
        self.push(jobs, false);
    }

    fn push(&mut self, jobs: impl IntoIterator<Item = Leased>, claimed: bool) {
        for leased in jobs {
            let endpoint = leased.job.endpoint;
            let most = self.most_of(endpoint, leased.permit.endpoint().max_in_flight());
            if most == 0.0 {
                self.given_up.push(leased);
                continue;
            }
            let lane = self.lane(endpoint);
            lane.push(leased, claimed);
            lane.bound(most);
            self.enqueue(endpoint);
        }
    }

    /// Notes that a delivery of the endpoint in the store is due then.
    pub fn due(&mut self, endpoint: EndpointKey, at: Timestamp) {
        self.apply_limit(endpoint);
        let lane = self.lane(endpoint);
        if lane.next_due.is_some_and(|due| due <= at) {
            return;
        }
        let (later, waits) = (lane.next_due.replace(at), lane.waits.is_some());
        if let Some(later) = later {
            self.timers.remove(&(later, endpoint));
        }
        if !waits {
            self.timers.insert((at, endpoint));
        }
    }

    /// The endpoint was changed: what was found of its rate limit may hold no more.
    pub fn note_change(&mut self, endpoint: EndpointKey) {
        let Some((claiming, waits)) = self.lanes.get(&endpoint).map(|lane| (lane.claiming, lane.waits)) else { return };
        if claiming == Claiming::UnderWay {
            self.changed.insert(endpoint);
        }
        if let Some(Wait::Limited(until)) = waits {
            self.waiting.remove_limited(endpoint, until);
            self.wake(endpoint);
        }
    }

    /// When [`Scheduler::next_claim`], which has none now, will have a claim: a time of the wall clock for due
    /// deliveries, and one of the monotonic clock for lanes that wait. Lanes that wait for the end of another claim
    /// have no time.
    pub fn next_wake(&self) -> (Option<Timestamp>, Option<Instant>) {
        (self.timers.first().map(|(at, _)| *at), self.waiting.next())
    }

    /// An endpoint whose due deliveries are to be fetched now, and how many. `None` also where as many claims as there
    /// may be are under way.
    pub fn next_claim(&mut self, now: Timestamp, at: Instant) -> Option<(EndpointKey, usize)> {
        for endpoint in self.waiting.take_due(at) {
            self.wake(endpoint);
        }
        while let Some((at, endpoint)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, endpoint));
            let Some(lane) = self.lanes.get_mut(&endpoint) else { continue };
            // A busy lane claims when it has drained: see `refill`.
            if lane.wants_claim() && lane.claiming == Claiming::No {
                lane.claiming = Claiming::Queued;
                self.to_claim.push_back(endpoint);
            }
        }
        while self.claims < MAX_CLAIMS_UNDER_WAY {
            let endpoint = self.to_claim.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&endpoint) else { continue };
            lane.claiming = Claiming::No;
            // It may have become busy meanwhile.
            if !lane.wants_claim() {
                continue;
            }
            debug_assert!(lane.next_due.is_some(), "a lane that is to claim has a due time");
            lane.next_due = None;
            lane.claiming = Claiming::UnderWay;
            self.claims += 1;
            let most = (lane.limit() * CLAIM_ROUNDS).clamp(*CLAIM.start(), *CLAIM.end());
            return Some((endpoint, lane.room().map_or(most, |room| room.min(most))));
        }
        None
    }

    /// Takes the result of a claim; `None` where it failed.
    pub fn claimed(&mut self, endpoint: EndpointKey, claimed: Option<Claimed>, now: Timestamp, at: Instant) {
        self.claims -= 1;
        let lane = self.lane(endpoint);
        debug_assert_eq!(lane.claiming, Claiming::UnderWay, "a lane has one claim at a time");
        lane.claiming = Claiming::No;
        // A due time that was noted while the claim was under way has no timer yet.
        if let Some(noted) = lane.next_due {
            self.timers.insert((noted, endpoint));
        }
        let was_changed = self.changed.remove(&endpoint);
        match claimed {
            Some(Claimed { jobs, next_due, limited_for }) => {
                let is_due = next_due.is_some_and(|due| due <= now);
                let may_wake = if jobs.is_empty() { 0 } else { WOKEN_BY_SUCCESS };
                for woken in self.waiting.take_starved(may_wake, at) {
                    self.wake(woken);
                }
                match limited_for {
                    Some(limited_for) if !was_changed => {
                        self.wait(endpoint, Wait::Limited(at + limited_for.min(MAX_LIMITED_WAIT)), at);
                    }
                    None if jobs.is_empty() && is_due => self.wait(endpoint, Wait::Starved, at),
                    _ => {}
                }
                self.push(jobs, true);
                if let Some(due) = next_due {
                    self.due(endpoint, due);
                }
            }
            None => {
                self.wait(endpoint, Wait::Starved, at);
                self.due(endpoint, now);
            }
        }
        self.refill(endpoint);
    }

    /// Lets a lane claim nothing until it is woken.
    fn wait(&mut self, endpoint: EndpointKey, wait: Wait, at: Instant) {
        let lane = self.lane(endpoint);
        debug_assert!(lane.waits.is_none(), "a lane that waits claims nothing");
        lane.waits = Some(wait);
        if let Some(noted) = lane.next_due {
            self.timers.remove(&(noted, endpoint));
        }
        self.waiting.add(endpoint, wait, at);
    }

    /// Lets a lane claim again.
    fn wake(&mut self, endpoint: EndpointKey) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        debug_assert!(lane.waits.is_some(), "only lanes that wait are woken");
        lane.waits = None;
        if let Some(at) = lane.next_due {
            self.timers.insert((at, endpoint));
        }
    }

    /// Takes endpoints for unhealthy that have an attempt in flight for longer than a prompt answer. The attempts stay
    /// counted as they began. Returns when the next one is due.
    pub fn mark_overdue(&mut self, now: Instant) -> Option<Instant> {
        loop {
            self.forget_ended();
            let (began, id) = *self.started.front()?;
            if now < began + PROMPT {
                return Some(began + PROMPT);
            }
            self.started.pop_front();
            let Some(endpoint) = self.attempts.get(&id).map(|attempt| attempt.endpoint) else { continue };
            if let Some(lane) = self.lanes.get_mut(&endpoint) {
                lane.overdue();
            }
            self.enqueue(endpoint);
        }
    }

    /// Drops ended attempts from the front of `started`.
    fn forget_ended(&mut self) {
        while self.started.front().is_some_and(|(_, id)| !self.attempts.contains_key(id)) {
            self.started.pop_front();
        }
    }

    /// The next delivery to send, if the bounds allow one.
    pub fn next_start(&mut self, now: Instant) -> Option<Start> {
        let lanes = &mut self.lanes;
        // A lane that has its share leaves its queue: the end of an attempt adds it again.
        let admitted = self.admission.next(|endpoint, health, share| {
            lanes.get_mut(&endpoint).is_some_and(|lane| lane.may_start(health, share))
        })?;
        let endpoint = admitted.endpoint;
        let lane = self.lanes.get_mut(&endpoint).expect("a lane that may start is there");
        let leased = lane.next().expect("a lane that may start has work");
        lane.in_flight += 1;
        let id = AttemptId(self.next_attempt);
        self.next_attempt += 1;
        self.attempts.insert(id, admitted);
        self.started.push_back((now, id));
        self.enqueue(endpoint);
        self.refill(endpoint);
        debug_assert_eq!(self.in_flight(), self.attempts.len(), "each attempt is counted");
        Some(Start { leased, id })
    }

    /// Takes the end of an attempt into account.
    pub fn ended(&mut self, id: AttemptId, answered: AttemptResult) {
        let Some(admitted) = self.attempts.remove(&id) else { return };
        self.forget_ended();
        self.admission.ended(admitted);
        let endpoint = admitted.endpoint;
        let most = self.most_of(endpoint, self.lanes.get(&endpoint).and_then(Lane::own_limit));
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        lane.in_flight -= 1;
        lane.answered(answered, most);
        self.enqueue(endpoint);
        self.refill(endpoint);
        self.forget_quiet();
    }

    /// Adds a lane that can send to the queue of its health.
    fn enqueue(&mut self, endpoint: EndpointKey) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        if lane.queued[lane.health as usize] || !lane.has_work() || !lane.has_capacity() {
            return;
        }
        lane.queued[lane.health as usize] = true;
        let account = lane.account().expect("a lane with work knows whose endpoint it is");
        self.admission.add(account, endpoint, lane.health);
    }

    /// Sets the timer of a claim, where a lane has drained and deliveries are due.
    fn refill(&mut self, endpoint: EndpointKey) {
        let Some(lane) = self.lanes.get(&endpoint) else { return };
        if lane.wants_claim()
            && let Some(at) = lane.next_due
        {
            self.timers.insert((at, endpoint));
        }
    }

    /// Drops idle lanes, if there are many lanes. Where many are not idle, this looks at all of them only when as many
    /// again have come.
    fn forget_quiet(&mut self) {
        if self.lanes.len() > self.forget_above {
            self.lanes.retain(|_, lane| !lane.is_quiet());
            self.forget_above = KEPT_LANES.max(2 * self.lanes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::delivery::{DeliveryKind, Job};
    use crate::domain::id::{AccountKey, DeliveryId};
    use crate::engine::lane::LaneHealth;
    use crate::store::inbox::MemoryPermit;

    const LIMITS: Limits = Limits { max_in_flight: 100, max_in_flight_per_endpoint: 8 };

    #[test]
    fn an_endpoint_that_is_left_to_another_process_is_given_up_and_taken_again() {
        let mut scheduler = Scheduler::new(Limits { max_in_flight_per_endpoint: 1, ..LIMITS });
        scheduler.add(jobs(0, 3));
        let first = scheduler.next_start(Instant::now()).expect("it starts");
        scheduler.share(Share { nodes: 2, index: 1 });
        let given_up = scheduler.given_up();
        assert_eq!(given_up.len(), 2, "what waits goes to the other");
        scheduler.add(given_up);
        let given_up = scheduler.given_up();
        assert_eq!(given_up.len(), 2, "and what was on its way here as well");
        scheduler.due(EndpointKey(0), Timestamp::from_millis(0));
        scheduler.ended(first.id, AttemptResult::Delivered(Duration::ZERO));
        let (now, at) = (Timestamp::from_millis(1), Instant::now());
        assert!(scheduler.next_claim(now, at).is_none() && scheduler.next_start(Instant::now()).is_none());
        scheduler.share(Share::WHOLE);
        assert!(scheduler.given_up().is_empty());
        assert_eq!(scheduler.next_claim(now, at).map(|(endpoint, _)| endpoint), Some(EndpointKey(0)));
        scheduler.claimed(EndpointKey(0), Some(Claimed { jobs: given_up, ..Claimed::default() }), now, at);
        assert!(scheduler.next_start(Instant::now()).is_some());
    }

    /// Deliveries of an endpoint that is the only one of its account.
    fn jobs(endpoint: i64, count: i64) -> Vec<Leased> {
        jobs_of(endpoint, endpoint, count)
    }

    fn jobs_of(account: i64, endpoint: i64, count: i64) -> Vec<Leased> {
        let job = |n| {
            let whose = (DeliveryId(endpoint * 1_000_000 + n), EndpointKey(endpoint));
            Job::new(whose, 0, DeliveryKind::Event, "a.b", bytes::Bytes::new())
        };
        (0..count)
            .map(|n| Leased::new(job(n), Timestamp::from_millis(0), MemoryPermit::unbounded(AccountKey(account))))
            .collect()
    }

    fn start_all(scheduler: &mut Scheduler, now: Instant) -> Vec<(i64, AttemptId)> {
        std::iter::from_fn(|| scheduler.next_start(now)).map(|start| (start.leased.job.endpoint.0, start.id)).collect()
    }

    fn starts(scheduler: &mut Scheduler) -> Vec<i64> {
        start_all(scheduler, Instant::now()).into_iter().map(|(endpoint, _)| endpoint).collect()
    }

    fn prompt() -> AttemptResult {
        AttemptResult::Delivered(Duration::from_millis(5))
    }

    /// Ends everything in flight like this, and starts what may go then. Returns how many are in flight.
    fn round(scheduler: &mut Scheduler, answered: AttemptResult) -> usize {
        let mut ids: Vec<_> = scheduler.attempts.keys().copied().collect();
        ids.sort_unstable_by_key(|id| id.0);
        for id in ids {
            scheduler.ended(id, answered);
        }
        starts(scheduler).len()
    }

    #[test]
    fn an_endpoints_limit_grows_with_success_and_falls_to_one_probe_with_failure() {
        let mut scheduler = Scheduler::new(LIMITS);
        scheduler.add(jobs(1, 1_000));
        assert_eq!(starts(&mut scheduler).len(), 2);
        let reached = (0..10).map(|_| round(&mut scheduler, prompt())).last();
        assert_eq!(reached, Some(8), "never more than the setting");
        round(&mut scheduler, AttemptResult::Failed);
        assert_eq!(round(&mut scheduler, AttemptResult::Failed), 1, "a failing endpoint is probed");
    }

    #[test]
    fn a_bound_of_one_holds_from_the_first_delivery_on() {
        let mut scheduler = Scheduler::new(Limits { max_in_flight_per_endpoint: 1, ..LIMITS });
        scheduler.add(jobs(1, 5));
        assert_eq!(starts(&mut scheduler).len(), 1);
    }

    #[test]
    fn endpoints_are_served_round_robin() {
        let mut scheduler = Scheduler::new(LIMITS);
        scheduler.add(jobs(1, 5));
        scheduler.add(jobs(2, 5));
        scheduler.add(jobs(3, 5));
        assert_eq!(starts(&mut scheduler), [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn unhealthy_endpoints_leave_capacity_for_unknown_ones_and_both_for_healthy_ones() {
        let mut scheduler = Scheduler::new(LIMITS);
        for endpoint in 1..=100 {
            scheduler.lane(EndpointKey(endpoint)).health = LaneHealth::Unhealthy;
            scheduler.add(jobs(endpoint, 2));
        }
        assert_eq!(starts(&mut scheduler).len(), 50);
        for endpoint in 101..=200 {
            scheduler.add(jobs(endpoint, 2));
        }
        let new = start_all(&mut scheduler, Instant::now());
        assert_eq!(new.len(), 25, "nothing is known of these");
        scheduler.ended(new[0].1, prompt());
        scheduler.add(jobs(new[0].0, 10));
        assert!(starts(&mut scheduler).contains(&new[0].0), "one that answers goes on");
    }

    #[test]
    fn endpoints_that_begin_to_hang_leave_capacity_for_others_at_once_and_count_as_unhealthy_after_a_second() {
        let limits = Limits { max_in_flight: 1_024, max_in_flight_per_endpoint: 64 };
        let mut scheduler = Scheduler::new(limits);
        for endpoint in 1..=100 {
            scheduler.lane(EndpointKey(endpoint)).set_healthy(64.0);
            scheduler.add(jobs(endpoint, 1_000));
        }
        let now = Instant::now();
        let hanging = start_all(&mut scheduler, now).len();
        assert!(hanging > 900, "all of them together use what there is: {hanging}");
        for endpoint in 101..=110 {
            scheduler.lane(EndpointKey(endpoint)).set_healthy(64.0);
            scheduler.add(jobs(endpoint, 10));
        }
        let others = start_all(&mut scheduler, now);
        let endpoints: BTreeSet<i64> = others.iter().map(|(endpoint, _)| *endpoint).collect();
        assert_eq!(endpoints, (101..=110).collect(), "each of the others has capacity");
        assert_eq!(scheduler.mark_overdue(now), Some(now + PROMPT));
        let later = now + PROMPT;
        for (_, id) in others {
            scheduler.ended(id, prompt());
        }
        assert_eq!(scheduler.mark_overdue(later), None);
        assert_eq!(scheduler.in_flight(), hanging);
        let started = start_all(&mut scheduler, later);
        assert!(started.iter().all(|(endpoint, _)| *endpoint > 100), "those that hang get no more");
        assert!(started.len() >= 10, "and the others go on: {}", started.len());
    }

    /// Fills an account with attempts of endpoints that have answered promptly, and hang.
    fn hang(scheduler: &mut Scheduler, account: i64, endpoints: std::ops::Range<i64>, now: Instant) -> usize {
        for endpoint in endpoints {
            scheduler.lane(EndpointKey(endpoint)).set_healthy(64.0);
            scheduler.add(jobs_of(account, endpoint, 1_000));
        }
        start_all(scheduler, now).len()
    }

    #[test]
    fn an_account_whose_endpoints_begin_to_hang_leaves_half_to_any_endpoint_of_others() {
        let mut scheduler = Scheduler::new(Limits { max_in_flight: 1_024, max_in_flight_per_endpoint: 64 });
        let (mut now, mut free) = (Instant::now(), 1_024_usize);
        for account in 1..=6 {
            let first = account * 100;
            let begun = hang(&mut scheduler, account, first..first + 50, now);
            assert!((free / 3..=free.div_ceil(2)).contains(&begun), "account {account} has {begun} of {free}");
            free -= begun;
            now += PROMPT;
            assert_eq!(scheduler.mark_overdue(now), None);
            for (endpoint, health) in LaneHealth::ALL.into_iter().enumerate() {
                let endpoint = 10_000 + i64::try_from(endpoint).expect("few");
                scheduler.lane(EndpointKey(endpoint)).health = health;
                scheduler.add(jobs_of(10_000, endpoint, 1));
                let started = start_all(&mut scheduler, now);
                assert_eq!(started.len(), 1, "a {health:?} endpoint beside {account} accounts");
                assert_eq!(started[0].0, endpoint);
                scheduler.ended(started[0].1, AttemptResult::Unattempted);
            }
        }
    }

    #[test]
    fn endpoints_that_begin_to_hang_leave_capacity_for_others_of_their_account() {
        let mut scheduler = Scheduler::new(Limits { max_in_flight: 1_024, max_in_flight_per_endpoint: 64 });
        let now = Instant::now();
        assert!(hang(&mut scheduler, 1, 1..17, now) > 400);
        for endpoint in 17..=64 {
            scheduler.add(jobs_of(1, endpoint, 1));
        }
        assert_eq!(start_all(&mut scheduler, now).len(), 48, "each of the others has capacity");
    }

    #[test]
    fn what_was_just_accepted_does_not_keep_out_what_waits_in_the_store() {
        let mut scheduler = Scheduler::new(LIMITS);
        let (now, at) = (Timestamp::from_millis(1_000), Instant::now());
        scheduler.add(jobs(1, 1_000));
        scheduler.due(EndpointKey(1), now);
        assert!(scheduler.next_claim(now, at).is_some());
    }

    #[test]
    fn idle_lanes_are_forgotten_where_there_are_many_and_again_when_the_lanes_have_doubled() {
        let mut scheduler = Scheduler::new(LIMITS);
        let end_one = |scheduler: &mut Scheduler| {
            scheduler.add(jobs(0, 1));
            let start = scheduler.next_start(Instant::now()).expect("it starts");
            scheduler.ended(start.id, prompt());
            scheduler.lanes.len()
        };
        (1..=10_000).for_each(|endpoint| scheduler.due(EndpointKey(endpoint), Timestamp::from_millis(1_000)));
        let idle = |scheduler: &mut Scheduler, endpoints: std::ops::Range<i64>| {
            for endpoint in endpoints {
                scheduler.lane(EndpointKey(endpoint));
            }
        };
        idle(&mut scheduler, 10_001..16_384);
        assert_eq!(end_one(&mut scheduler), KEPT_LANES);
        idle(&mut scheduler, 16_384..16_385);
        assert_eq!(end_one(&mut scheduler), 10_000, "those with deliveries that will be due");
        idle(&mut scheduler, 20_000..29_999);
        assert_eq!(end_one(&mut scheduler), 20_000);
        idle(&mut scheduler, 29_999..30_000);
        assert_eq!(end_one(&mut scheduler), 10_000);
    }

    #[test]
    fn the_bound_over_all_holds() {
        let mut scheduler = Scheduler::new(Limits { max_in_flight: 3, max_in_flight_per_endpoint: 64 });
        for endpoint in 1..=10 {
            scheduler.lane(EndpointKey(endpoint)).set_healthy(64.0);
            scheduler.add(jobs(endpoint, 2));
        }
        assert_eq!(starts(&mut scheduler).len(), 3);
    }

    #[test]
    fn a_full_lane_fetches_again_when_it_has_drained() {
        let mut scheduler = Scheduler::new(LIMITS);
        let (now, at) = (Timestamp::from_millis(1_000), Instant::now());
        scheduler.push(jobs(1, 65), true);
        scheduler.due(EndpointKey(1), now);
        assert_eq!(scheduler.next_claim(now, at), None);
        starts(&mut scheduler);
        assert_eq!(scheduler.next_claim(now, at), Some((EndpointKey(1), 8)));
    }
}

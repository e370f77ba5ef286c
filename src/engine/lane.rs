//! The lane of one endpoint: the deliveries that wait for it, its limit of requests in flight, and its health.
//!
//! The limit grows as TCP's window does (RFC 5681, section 3.1). It shrinks by the share of failures, once in a round
//! of answers, as DCTCP's does (RFC 8257, section 3.3): an endpoint that sometimes fails keeps more than a few
//! requests. An endpoint that only fails is halved with each answer, down to one probe.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::waiting_lanes::Wait;
use crate::domain::delivery::DeliveryKind;
use crate::domain::id::AccountKey;
use crate::domain::time::Timestamp;
use crate::store::inbox::{Leased, MemoryUse, Responsiveness};

/// Requests in flight to an endpoint that nothing is known about.
const FIRST_LIMIT: f64 = 2.0;

/// An answer within this time is prompt. An attempt that takes longer counts as unhealthy from then on.
pub(super) const PROMPT: Duration = Duration::from_secs(1);

/// The weight of one answer in the share of failures: about the last 16 count (RFC 8257, section 4.2).
const FAILURE_WEIGHT: f64 = 1.0 / 16.0;

/// This many failures in a row mean that the endpoint fails.
const FAILING_STREAK: u32 = 4;

/// A lane with fewer claimed deliveries in memory claims more.
const REFILL_BELOW: usize = 64;

/// What the end of an attempt says about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptResult {
    /// A 2xx answer, and how long it took.
    Delivered(Duration),
    /// Anything else.
    Failed,
    /// It was not attempted.
    Unattempted,
}

/// How an endpoint answers. Lanes of the same health share a ring and a part of the global bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneHealth {
    /// The last answer was a prompt success.
    Healthy,
    /// Nothing is known.
    Unknown,
    /// The last attempt failed or took long, or an attempt in flight takes long.
    Unhealthy,
}

impl LaneHealth {
    pub const ALL: [Self; 3] = [Self::Healthy, Self::Unknown, Self::Unhealthy];
}

/// Whether a lane claims due deliveries from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claiming {
    /// It does not claim, and is not to claim.
    No,
    /// It is in the queue of lanes that are to claim.
    Queued,
    /// Its claim is under way.
    UnderWay,
}

/// The state of one endpoint in this process.
#[derive(Debug)]
pub(super) struct Lane {
    queue: VecDeque<Queued>,
    /// How many deliveries of the queue came from claims.
    claimed: usize,
    /// Deliveries of replays, which are sent when the queue is empty.
    replays: VecDeque<Leased>,
    pub in_flight: usize,
    limit: f64,
    /// Whether there was no failure yet: until then the limit doubles.
    fresh: bool,
    /// The share of its last answers that were failures, from 0 to 1.
    failing: f64,
    /// Failures since the last success.
    streak: u32,
    /// Answers until a failure may shrink the limit again: those to requests that were in flight when it shrank.
    round: usize,
    pub health: LaneHealth,
    /// What the endpoint has in memory, once it had a delivery there.
    memory: Option<Arc<MemoryUse>>,
    /// The queues in which the lane waits to start a delivery, by health. In those that are not of its health now it
    /// is passed over.
    pub queued: [bool; LaneHealth::ALL.len()],
    pub claiming: Claiming,
    /// Why the lane claims nothing, although deliveries may be due.
    pub waits: Option<Wait>,
    /// Whether its endpoint has a rate limit, as the last delivery that came here shows. What may not begin stays in
    /// the store.
    rate_limited: bool,
    pub next_due: Option<Timestamp>,
}

#[derive(Debug)]
struct Queued {
    leased: Leased,
    claimed: bool,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            claimed: 0,
            replays: VecDeque::new(),
            in_flight: 0,
            limit: FIRST_LIMIT,
            fresh: true,
            failing: 0.0,
            streak: 0,
            round: 0,
            health: LaneHealth::Unknown,
            memory: None,
            queued: Default::default(),
            claiming: Claiming::No,
            waits: None,
            rate_limited: false,
            next_due: None,
        }
    }
}

impl Lane {
    /// A lane whose limit may grow to `most`; 0 where other processes deliver to the endpoint.
    pub fn new(most: f64) -> Self {
        Self { limit: FIRST_LIMIT.min(most), ..Self::default() }
    }

    pub fn is_quiet(&self) -> bool {
        let may_claim = self.claiming != Claiming::No || self.waits.is_some() || self.next_due.is_some();
        !self.has_work() && self.in_flight == 0 && !may_claim
    }

    pub fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.replays.is_empty()
    }

    /// Whose endpoint it is, once the endpoint had a delivery here.
    pub fn account(&self) -> Option<AccountKey> {
        Some(self.memory.as_ref()?.account())
    }

    /// Whether the lane, which has left a queue of this health, starts a delivery, where it may have so many in flight.
    pub fn may_start(&mut self, health: LaneHealth, share: usize) -> bool {
        let was_queued = std::mem::take(&mut self.queued[health as usize]);
        was_queued && self.health == health && self.has_work() && self.has_capacity() && self.in_flight < share
    }

    /// Takes the next delivery.
    pub fn next(&mut self) -> Option<Leased> {
        let Some(Queued { leased, claimed }) = self.queue.pop_front() else { return self.replays.pop_front() };
        self.claimed -= usize::from(claimed);
        debug_assert!(self.claimed <= self.queue.len(), "what came from claims is a part of the queue");
        Some(leased)
    }

    pub fn has_capacity(&self) -> bool {
        self.in_flight < self.limit()
    }

    /// Requests that its owner allows in flight, over all processes, once the endpoint had a delivery here.
    pub fn own_limit(&self) -> Option<usize> {
        self.memory.as_ref()?.max_in_flight()
    }

    /// Requests that may be in flight: no more than the owner allows now, and at least 1, or 0 where other processes
    /// deliver to the endpoint.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 4,096, the highest setting")]
    pub fn limit(&self) -> usize {
        let limit = self.limit as usize;
        self.own_limit().map_or(limit, |own| limit.min(own))
    }

    /// Whether the lane should claim due deliveries from the store. Deliveries that were just accepted do not count:
    /// they would keep out older ones.
    pub fn wants_claim(&self) -> bool {
        let has_room = self.room().map_or(self.claimed < REFILL_BELOW, |room| room > 0);
        self.claiming != Claiming::UnderWay && self.waits.is_none() && has_room && self.limit() > 0
    }

    /// Where the endpoint has a rate limit: deliveries that could be sent at once. No more are claimed, because the
    /// attempt of each that is claimed is counted towards the limit.
    pub fn room(&self) -> Option<usize> {
        let here = self.in_flight + self.queue.len() + self.replays.len();
        self.rate_limited.then(|| self.limit().saturating_sub(here))
    }

    /// Adds a delivery; `claimed` tells whether it came from a claim.
    pub fn push(&mut self, leased: Leased, claimed: bool) {
        let memory = leased.permit.endpoint();
        if !self.memory.as_ref().is_some_and(|known| Arc::ptr_eq(known, memory)) {
            self.memory = Some(memory.clone());
            self.note_responsiveness();
        }
        self.rate_limited = leased.start.counted().is_some();
        if matches!(leased.job.kind, DeliveryKind::Replay(_)) && leased.job.attempts_made == 0 {
            self.replays.push_back(leased);
        } else {
            self.queue.push_back(Queued { leased, claimed });
            self.claimed += usize::from(claimed);
        }
    }

    /// Sets a new bound of the limit.
    pub fn bound(&mut self, most: f64) {
        self.limit = if self.limit == 0.0 { FIRST_LIMIT.min(most) } else { self.limit.min(most) };
    }

    /// Sets a new bound of the limit. At 0 it returns all waiting deliveries.
    pub fn take_share(&mut self, most: f64) -> Vec<Leased> {
        self.bound(most);
        if most > 0.0 {
            return Vec::new();
        }
        self.claimed = 0;
        self.queue.drain(..).map(|queued| queued.leased).chain(self.replays.drain(..)).collect()
    }

    /// Takes the result of an attempt into account.
    pub fn answered(&mut self, answered: AttemptResult, most: f64) {
        match answered {
            AttemptResult::Delivered(took) => {
                let step = if self.fresh { 0.5 } else { 1.0 / self.limit.max(1.0) };
                self.limit = (self.limit + step).max(1.0).min(most);
                self.failing -= self.failing * FAILURE_WEIGHT;
                self.streak = 0;
                self.stand(if took < PROMPT { LaneHealth::Healthy } else { LaneHealth::Unhealthy });
            }
            AttemptResult::Failed => {
                self.failing += (1.0 - self.failing) * FAILURE_WEIGHT;
                // Beyond FAILING_STREAK its number does not matter.
                self.streak = self.streak.saturating_add(1);
                self.fresh = false;
                self.stand(LaneHealth::Unhealthy);
                if self.streak >= FAILING_STREAK {
                    self.shrink(0.5, most);
                } else if self.round == 0 {
                    self.shrink(1.0 - self.failing / 2.0, most);
                    self.round = self.limit();
                }
            }
            AttemptResult::Unattempted => return,
        }
        // 0 is the end of the round, and stays so until the next failure.
        self.round = self.round.saturating_sub(1);
    }

    fn shrink(&mut self, factor: f64, most: f64) {
        self.limit = (self.limit * factor).max(1.0).min(most);
    }

    /// An attempt in flight has not been answered promptly.
    pub fn overdue(&mut self) {
        self.stand(LaneHealth::Unhealthy);
    }

    fn stand(&mut self, health: LaneHealth) {
        if self.health != health {
            self.health = health;
            self.note_responsiveness();
        }
    }

    /// Reports the health to the part that reserves memory for the endpoint.
    fn note_responsiveness(&self) {
        let responsiveness = match self.health {
            LaneHealth::Healthy => Responsiveness::Prompt,
            LaneHealth::Unknown => Responsiveness::Unknown,
            LaneHealth::Unhealthy => Responsiveness::Slow,
        };
        if let Some(memory) = &self.memory {
            memory.note_responsiveness(responsiveness);
        }
    }

    /// Sets the state that many prompt answers lead to.
    #[cfg(test)]
    pub fn set_healthy(&mut self, limit: f64) {
        (self.health, self.limit) = (LaneHealth::Healthy, limit);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::domain::delivery::Job;
    use crate::domain::id::{DeliveryId, EndpointKey};
    use crate::domain::rate_limit::Rate;
    use crate::store::CountedStart;
    use crate::store::inbox::MemoryPermit;

    const PROMPTLY: AttemptResult = AttemptResult::Delivered(Duration::from_millis(5));

    /// The limit after so many answers, of which each n-th is a failure.
    fn limit_after(lane: &mut Lane, answers: usize, failure_each: usize) -> f64 {
        for number in 1..=answers {
            lane.answered(if number % failure_each == 0 { AttemptResult::Failed } else { PROMPTLY }, 64.0);
        }
        lane.limit
    }

    #[test]
    fn an_endpoint_that_fails_now_and_then_is_not_kept_at_a_few_requests() {
        let mut lane = Lane::new(64.0);
        assert!((limit_after(&mut lane, 200, usize::MAX) - 64.0).abs() < 0.01);
        let rarely = limit_after(&mut lane, 10_000, 20);
        assert!(rarely > 15.0, "one failure of twenty: {rarely}");
        let often = limit_after(&mut lane, 10_000, 3);
        assert!((4.0..12.0).contains(&often), "one of three: {often}");
    }

    #[test]
    fn what_its_owner_allows_bounds_a_lane_at_once() {
        let whose = (DeliveryId(1), EndpointKey(1));
        let job = Job::new(whose, 0, DeliveryKind::Event, "a.b", bytes::Bytes::new());
        let permit = MemoryPermit::unbounded(AccountKey(1));
        let memory = permit.endpoint().clone();
        let mut lane = Lane::new(64.0);
        lane.push(Leased::new(job, Timestamp::from_millis(0), permit), false);
        limit_after(&mut lane, 20, usize::MAX);
        assert!(lane.limit() > 5);
        memory.note_max_in_flight(Some(3));
        assert_eq!((lane.limit(), lane.own_limit()), (3, Some(3)));
        memory.note_max_in_flight(None);
        assert!(lane.limit() > 5 && lane.own_limit().is_none());
        // With a rate limit it takes no more from the store than it can send at once.
        assert_eq!((lane.room(), lane.wants_claim()), (None, true));
        let leased = lane.next().expect("one waits");
        let (now, rate) = (Timestamp::from_millis(0), Rate { attempts: 9, window: Duration::from_secs(1) });
        leased.start.replace(Some(CountedStart::new(now, rate, Instant::now(), rate.validity())));
        lane.push(leased, true);
        memory.note_max_in_flight(Some(3));
        lane.in_flight = 1;
        assert_eq!((lane.room(), lane.wants_claim()), (Some(1), true));
        lane.in_flight = 2;
        assert_eq!((lane.room(), lane.wants_claim()), (Some(0), false));
    }

    #[test]
    fn an_endpoint_that_only_fails_is_probed_after_a_few_failures_and_recovers() {
        let mut lane = Lane::new(64.0);
        limit_after(&mut lane, 200, usize::MAX);
        let down = (1..100).find(|_| limit_after(&mut lane, 1, 1) <= 1.0);
        assert!(down.is_some_and(|failures| failures <= 10), "{down:?}");
        let up = limit_after(&mut lane, 3_000, usize::MAX);
        assert!(up > 60.0, "{up}");
    }
}

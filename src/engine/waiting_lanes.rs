//! Lanes that claim nothing for a while although deliveries of theirs wait in the store.
//!
//! A lane is starved when its claim brought nothing although deliveries were due: the memory is full, or the store
//! failed. Starved lanes wait in a list: after a pause some of them claim again, and each claim that brings deliveries
//! wakes two more. A lane is limited while the rate limit of its endpoint allows no attempt.
//!
//! Times are those of the monotonic clock: a wall clock that is set back must not delay a lane.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::id::EndpointKey;

/// After this long some of the starved lanes claim again: as many as claims may be under way.
const STARVED_RETRY_DELAY: Duration = Duration::from_millis(250);
const WOKEN_AT_ONCE: usize = 32;

/// Starved lanes that claim again where another lane's claim has brought deliveries.
pub(super) const WOKEN_BY_SUCCESS: usize = 2;

/// A limited lane claims again after this long at the latest: an attempt may have been given back, or the note of a
/// change of its limit may have been lost.
pub(super) const MAX_LIMITED_WAIT: Duration = Duration::from_secs(10);

/// Why a lane waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    /// Its last claim found no memory, or failed.
    Starved,
    /// Its rate limit allows no attempt until then.
    Limited(Instant),
}

/// The lanes that wait.
#[derive(Default)]
pub(super) struct WaitingLanes {
    starved: VecDeque<EndpointKey>,
    wake_starved: Option<Instant>,
    limited: BTreeSet<(Instant, EndpointKey)>,
}

impl WaitingLanes {
    /// Adds a lane. It is in no other list.
    pub fn add(&mut self, endpoint: EndpointKey, wait: Wait, at: Instant) {
        match wait {
            Wait::Starved => {
                self.starved.push_back(endpoint);
                self.wake_starved.get_or_insert(at + STARVED_RETRY_DELAY);
            }
            Wait::Limited(until) => _ = self.limited.insert((until, endpoint)),
        }
    }

    /// Takes a lane out that was limited until then.
    pub fn remove_limited(&mut self, endpoint: EndpointKey, until: Instant) {
        self.limited.remove(&(until, endpoint));
    }

    /// When [`WaitingLanes::take_due`] will have a lane.
    pub fn next(&self) -> Option<Instant> {
        let limited = self.limited.first().map(|(until, _)| *until);
        self.wake_starved.into_iter().chain(limited).min()
    }

    /// Takes the lanes out whose time has come.
    pub fn take_due(&mut self, at: Instant) -> Vec<EndpointKey> {
        let mut due = Vec::new();
        if self.wake_starved.is_some_and(|wake| wake <= at) {
            self.wake_starved = None;
            due = self.take_starved(WOKEN_AT_ONCE, at);
        }
        while let Some((until, endpoint)) = self.limited.first().copied().filter(|(until, _)| *until <= at) {
            self.limited.remove(&(until, endpoint));
            due.push(endpoint);
        }
        due
    }

    /// Takes the first starved lanes out.
    pub fn take_starved(&mut self, count: usize, at: Instant) -> Vec<EndpointKey> {
        let taken = self.starved.drain(..count.min(self.starved.len())).collect();
        if !self.starved.is_empty() {
            self.wake_starved.get_or_insert(at + STARVED_RETRY_DELAY);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::delivery::{DeliveryKind, Job};
    use crate::domain::id::{AccountKey, DeliveryId};
    use crate::domain::time::Timestamp;
    use crate::engine::Limits;
    use crate::engine::scheduler::Scheduler;
    use crate::store::Claimed;
    use crate::store::inbox::{Leased, MemoryPermit};

    const LIMITS: Limits = Limits { max_in_flight: 100, max_in_flight_per_endpoint: 8 };
    const ENDPOINT: EndpointKey = EndpointKey(1);
    const WINDOW: Duration = Duration::from_secs(5);

    /// A scheduler with a lane that has asked for what is due.
    fn claiming(now: Timestamp, at: Instant) -> Scheduler {
        let mut scheduler = Scheduler::new(LIMITS);
        scheduler.due(ENDPOINT, now);
        assert_eq!(scheduler.next_claim(now, at), Some((ENDPOINT, 8)));
        scheduler
    }

    /// What a claim finds while the rate limit allows no attempt.
    fn limited(now: Timestamp, limited_for: Duration) -> Claimed {
        Claimed { next_due: Some(now), limited_for: Some(limited_for), ..Claimed::default() }
    }

    #[test]
    fn a_lane_claims_nothing_while_its_rate_limit_holds_it() {
        let (now, at) = (Timestamp::from_millis(10_000), Instant::now());
        let mut scheduler = claiming(now, at);
        scheduler.claimed(ENDPOINT, Some(limited(now, WINDOW)), now, at);
        scheduler.due(ENDPOINT, now.minus(WINDOW));
        assert_eq!(scheduler.next_claim(now, at + WINDOW / 2), None, "a note does not wake it");
        assert_eq!(scheduler.next_wake(), (None, Some(at + WINDOW)));
        assert_eq!(scheduler.next_claim(now, at + WINDOW), Some((ENDPOINT, 8)));
        scheduler.claimed(ENDPOINT, Some(limited(now, WINDOW * 1_000)), now, at);
        assert_eq!(scheduler.next_wake(), (None, Some(at + MAX_LIMITED_WAIT)), "should a change be missed");
    }

    #[test]
    fn an_endpoint_whose_limit_is_changed_goes_on_at_once() {
        let (now, at) = (Timestamp::from_millis(10_000), Instant::now());
        let mut scheduler = claiming(now, at);
        scheduler.claimed(ENDPOINT, Some(limited(now, WINDOW)), now, at);
        scheduler.note_change(ENDPOINT);
        assert_eq!(scheduler.next_claim(now, at), Some((ENDPOINT, 8)));
        // The change comes while the claim is under way, which may have found the limit of before.
        scheduler.note_change(ENDPOINT);
        scheduler.claimed(ENDPOINT, Some(limited(now, WINDOW)), now, at);
        assert_eq!(scheduler.next_claim(now, at), Some((ENDPOINT, 8)));
        scheduler.claimed(ENDPOINT, Some(limited(now, WINDOW)), now, at);
        assert_eq!(scheduler.next_claim(now, at), None);
    }

    #[test]
    fn a_claim_that_failed_or_found_no_memory_is_tried_again_a_little_later() {
        let mut scheduler = Scheduler::new(LIMITS);
        let (now, at) = (Timestamp::from_millis(1_000), Instant::now());
        for came_back in [None, Some(Claimed { next_due: Some(Timestamp::from_millis(5)), ..Claimed::default() })] {
            scheduler.due(EndpointKey(1), now);
            scheduler.next_claim(now, at + STARVED_RETRY_DELAY);
            scheduler.claimed(EndpointKey(1), came_back, now, at);
            assert_eq!(scheduler.next_claim(now, at), None);
            assert_eq!(scheduler.next_wake(), (None, Some(at + STARVED_RETRY_DELAY)));
        }
    }

    #[test]
    fn a_starved_lane_does_not_wait_for_a_wall_clock_that_was_set_back() {
        let mut scheduler = Scheduler::new(LIMITS);
        let (now, at) = (Timestamp::from_millis(7_200_000), Instant::now());
        scheduler.due(EndpointKey(1), now.minus(Duration::from_secs(7_200)));
        assert!(scheduler.next_claim(now, at).is_some());
        let full = Claimed { next_due: Some(Timestamp::from_millis(5)), ..Claimed::default() };
        scheduler.claimed(EndpointKey(1), Some(full), now, at);
        let back = now.minus(Duration::from_secs(3_600));
        assert_eq!(scheduler.next_claim(back, at), None);
        assert!(scheduler.next_claim(back, at + STARVED_RETRY_DELAY).is_some());
    }

    fn leased() -> Leased {
        let job = Job::new((DeliveryId(1), ENDPOINT), 0, DeliveryKind::Event, "a.b", bytes::Bytes::new());
        Leased::new(job, Timestamp::from_millis(0), MemoryPermit::unbounded(AccountKey(1)))
    }

    #[test]
    fn lanes_that_find_no_memory_are_starved_and_do_not_ask_all_at_once() {
        let mut scheduler = Scheduler::new(LIMITS);
        let (now, at) = (Timestamp::from_millis(1_000), Instant::now());
        let starved = || Some(Claimed { next_due: Some(Timestamp::from_millis(5)), ..Claimed::default() });
        for endpoint in 1..=1_000 {
            scheduler.due(EndpointKey(endpoint), now);
        }
        let asked = |scheduler: &mut Scheduler, at| claims(scheduler, now, at).len();
        for endpoint in 1..=1_000 {
            assert_eq!(scheduler.next_claim(now, at), Some((EndpointKey(endpoint), 8)));
            scheduler.claimed(EndpointKey(endpoint), starved(), now, at);
            scheduler.due(EndpointKey(endpoint), now);
        }
        assert_eq!(asked(&mut scheduler, at), 0, "a note does not wake a starved lane");
        let later = at + STARVED_RETRY_DELAY;
        assert_eq!(asked(&mut scheduler, later), WOKEN_AT_ONCE);
        scheduler.claimed(EndpointKey(2), starved(), now, later);
        scheduler.claimed(EndpointKey(1), Some(Claimed { jobs: vec![leased()], ..Claimed::default() }), now, later);
        assert_eq!(asked(&mut scheduler, later), WOKEN_BY_SUCCESS, "where one found memory, more may");
    }

    /// The endpoints that claim now.
    fn claims(scheduler: &mut Scheduler, now: Timestamp, at: Instant) -> Vec<i64> {
        std::iter::from_fn(|| scheduler.next_claim(now, at)).map(|(endpoint, _)| endpoint.0).collect()
    }

    #[test]
    fn few_claims_are_under_way_and_the_end_of_each_lets_another_endpoint_claim() {
        let mut scheduler = Scheduler::new(LIMITS);
        let (now, at) = (Timestamp::from_millis(10_000), Instant::now());
        for endpoint in 1..=100 {
            scheduler.due(EndpointKey(endpoint), now);
        }
        assert_eq!(claims(&mut scheduler, now, at), (1..=32).collect::<Vec<_>>());
        assert_eq!(scheduler.next_wake(), (None, None), "the loop sleeps until a claim ends");
        scheduler.claimed(EndpointKey(1), Some(Claimed::default()), now, at);
        // What it has left is older than what the others have, and it still comes last.
        scheduler.due(EndpointKey(1), now.minus(WINDOW));
        assert_eq!(claims(&mut scheduler, now, at), [33]);
        scheduler.claimed(EndpointKey(33), None, now, at);
        assert_eq!(claims(&mut scheduler, now, at), [34], "a claim that failed has ended too");
        assert_eq!(scheduler.next_wake(), (None, Some(at + STARVED_RETRY_DELAY)), "it is tried again");
        let mut order = Vec::new();
        for endpoint in (2..=32).chain(34..=100) {
            scheduler.claimed(EndpointKey(endpoint), Some(Claimed::default()), now, at);
            order.extend(claims(&mut scheduler, now, at));
        }
        assert_eq!(order, (35..=100).chain([1]).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_due_while_a_claim_is_under_way_is_not_forgotten() {
        let mut scheduler = Scheduler::new(LIMITS);
        let (now, at) = (Timestamp::from_millis(1_000), Instant::now());
        scheduler.due(EndpointKey(1), now);
        assert_eq!(scheduler.next_claim(now, at), Some((EndpointKey(1), 8)));
        scheduler.due(EndpointKey(1), now);
        assert_eq!(scheduler.next_claim(now, at), None, "one claim at a time");
        scheduler.claimed(EndpointKey(1), Some(Claimed::default()), now, at);
        assert_eq!(scheduler.next_claim(now, at), Some((EndpointKey(1), 8)));
    }
}

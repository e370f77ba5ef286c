//! Which endpoint may begin an attempt next: a round robin of accounts, within each of them one of endpoints, and the
//! shares of the global bound. It counts, and does no I/O.
//!
//! An account may begin one more while it has fewer in flight than are free: one account has half of the bound, the
//! next one a quarter, and so on. The same holds within the part of unhealthy endpoints, and within that of all that
//! are not healthy; the last quarter is for healthy ones. An attempt is counted by the health that its endpoint had
//! when it began: endpoints that begin to hang use up what their account may have, and no part of others.

use std::collections::VecDeque;

use foldhash::fast::FixedState;

use super::lane::LaneHealth;
use crate::domain::id::{AccountKey, EndpointKey};

/// A lane may have as many requests in flight as its account may still begin, divided by this. If 16 endpoints of an
/// account take all they can of 1,024, each has 28 or 29, and 57 are left for others of the account.
const LANE_SHARE: usize = 2;

/// Attempts in flight, by the health that their endpoints had when they began.
#[derive(Default, Debug)]
struct InFlight([usize; LaneHealth::ALL.len()]);

impl InFlight {
    fn total(&self) -> usize {
        self.0.iter().sum()
    }

    fn not_healthy(&self) -> usize {
        self.total() - self.0[LaneHealth::Healthy as usize]
    }

    fn unhealthy(&self) -> usize {
        self.0[LaneHealth::Unhealthy as usize]
    }
}

/// An account with attempts in flight, or with endpoints that wait to begin some.
#[derive(Default)]
struct Account {
    in_flight: InFlight,
    /// Its endpoints that have a delivery to send and capacity for it, by health.
    ready: [VecDeque<EndpointKey>; LaneHealth::ALL.len()],
}

impl Account {
    fn is_idle(&self) -> bool {
        self.in_flight.total() == 0 && self.ready.iter().all(VecDeque::is_empty)
    }

    /// Whether its endpoints of this health may begin another attempt, beside all that are in flight.
    fn may_begin(&self, health: LaneHealth, all: &InFlight, max_in_flight: usize) -> bool {
        let own = &self.in_flight;
        let has_share =
            |part: usize, counted: fn(&InFlight) -> usize| counted(own) < part.max(1).saturating_sub(counted(all));
        let of_not_healthy = || has_share(max_in_flight * 3 / 4, InFlight::not_healthy);
        has_share(max_in_flight, InFlight::total)
            && match health {
                LaneHealth::Healthy => true,
                LaneHealth::Unknown => of_not_healthy(),
                LaneHealth::Unhealthy => of_not_healthy() && has_share(max_in_flight / 2, InFlight::unhealthy),
            }
    }

    /// Requests that one of its lanes may have in flight, whatever the lane's own limit is.
    fn lane_share(&self, all: &InFlight, max_in_flight: usize) -> usize {
        let may_still_begin = max_in_flight.saturating_sub(all.total() + self.in_flight.total()).div_ceil(2);
        (may_still_begin / LANE_SHARE).max(1)
    }
}

/// An attempt that may begin, and how it is counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admitted {
    pub endpoint: EndpointKey,
    account: AccountKey,
    counted_as: LaneHealth,
}

/// What is in flight, and who is next.
pub(super) struct Admission {
    max_in_flight: usize,
    in_flight: InFlight,
    /// By a hash without a random seed, so that a simulation repeats.
    accounts: std::collections::HashMap<AccountKey, Account, FixedState>,
    /// The accounts that have endpoints that are ready, by the health of these; the next to be served first.
    rings: [VecDeque<AccountKey>; LaneHealth::ALL.len()],
    /// The index of the ring that was served first the last time.
    last_ring: usize,
}

impl Admission {
    pub fn new(max_in_flight: usize) -> Self {
        Self {
            max_in_flight,
            in_flight: InFlight::default(),
            accounts: std::collections::HashMap::default(),
            rings: Default::default(),
            last_ring: 0,
        }
    }

    /// Requests in flight now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.total()
    }

    /// Puts an endpoint at the end of its account's queue.
    pub fn add(&mut self, account: AccountKey, endpoint: EndpointKey, health: LaneHealth) {
        let ready = &mut self.accounts.entry(account).or_default().ready[health as usize];
        if ready.is_empty() {
            self.rings[health as usize].push_back(account);
        }
        ready.push_back(endpoint);
    }

    /// Takes the next endpoint that may begin an attempt, and counts the attempt. `may_take` says whether an endpoint
    /// that comes from a queue of this health begins one, where a lane may have so many in flight. What it refuses has
    /// left the queue.
    pub fn next(&mut self, mut may_take: impl FnMut(EndpointKey, LaneHealth, usize) -> bool) -> Option<Admitted> {
        if self.in_flight() >= self.max_in_flight {
            return None;
        }
        // Round robin over the rings, so that none waits until another is empty.
        let count = LaneHealth::ALL.len();
        self.last_ring = (self.last_ring + 1) % count;
        let first = self.last_ring;
        let admitted =
            (0..count).find_map(|step| self.next_of(LaneHealth::ALL[(first + step) % count], &mut may_take))?;
        debug_assert!(self.in_flight() <= self.max_in_flight, "no more than the bound are in flight");
        Some(admitted)
    }

    /// The same for endpoints of one health. An account that may begin none stays in the ring. Where an account without
    /// attempts in flight may begin none, no account may. Otherwise those that may begin none have attempts in flight,
    /// so that there are fewer of them than the bound, however many accounts wait.
    fn next_of(
        &mut self,
        health: LaneHealth,
        may_take: &mut impl FnMut(EndpointKey, LaneHealth, usize) -> bool,
    ) -> Option<Admitted> {
        if !Account::default().may_begin(health, &self.in_flight, self.max_in_flight) {
            return None;
        }
        let ring = &mut self.rings[health as usize];
        for _ in 0..ring.len() {
            let key = ring.pop_front()?;
            let account = self.accounts.get_mut(&key).expect("an account in a ring has endpoints that are ready");
            let may_begin = account.may_begin(health, &self.in_flight, self.max_in_flight);
            let share = account.lane_share(&self.in_flight, self.max_in_flight);
            let ready = &mut account.ready[health as usize];
            let mut taken = None;
            while may_begin
                && taken.is_none()
                && let Some(endpoint) = ready.pop_front()
            {
                taken = may_take(endpoint, health, share).then_some(endpoint);
            }
            if !ready.is_empty() {
                ring.push_back(key);
            }
            if let Some(endpoint) = taken {
                account.in_flight.0[health as usize] += 1;
                self.in_flight.0[health as usize] += 1;
                return Some(Admitted { endpoint, account: key, counted_as: health });
            }
            if account.is_idle() {
                self.accounts.remove(&key);
            }
        }
        None
    }

    /// An attempt has ended.
    pub fn ended(&mut self, Admitted { account: key, counted_as, .. }: Admitted) {
        self.in_flight.0[counted_as as usize] -= 1;
        let account = self.accounts.get_mut(&key).expect("an account is known while it has attempts in flight");
        account.in_flight.0[counted_as as usize] -= 1;
        if account.is_idle() {
            self.accounts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Begins attempts of an account until it may begin no more; returns how many.
    fn fill(admission: &mut Admission, account: i64, health: LaneHealth) -> usize {
        let begins = |endpoint: &i64| {
            admission.add(AccountKey(account), EndpointKey(*endpoint), health);
            admission.next(|_, _, _| true).is_some()
        };
        (0..100_000).take_while(begins).count()
    }

    #[test]
    fn each_account_has_half_of_what_others_leave_of_the_part_of_its_endpoints_health() {
        let halves = [
            (LaneHealth::Healthy, [512, 256, 128, 64]),
            (LaneHealth::Unknown, [384, 192, 96, 48]),
            (LaneHealth::Unhealthy, [256, 128, 64, 32]),
        ];
        for (health, halves) in halves {
            let mut admission = Admission::new(1_024);
            assert_eq!([1, 2, 3, 4].map(|account| fill(&mut admission, account, health)), halves, "{health:?}");
        }
    }

    #[test]
    fn attempts_that_began_as_healthy_take_no_part_of_what_unknown_and_unhealthy_ones_have() {
        let mut admission = Admission::new(1_024);
        assert_eq!(fill(&mut admission, 1, LaneHealth::Healthy), 512);
        assert_eq!(fill(&mut admission, 2, LaneHealth::Unhealthy), 256);
        assert_eq!(fill(&mut admission, 3, LaneHealth::Unknown), 128);
    }

    #[test]
    fn unhealthy_endpoints_of_many_accounts_leave_a_part_for_unknown_ones_and_both_for_healthy_ones() {
        let mut admission = Admission::new(1_024);
        let mut fill_all = |accounts: std::ops::Range<i64>, health| -> usize {
            accounts.map(|account| fill(&mut admission, account, health)).sum()
        };
        assert_eq!(fill_all(0..50, LaneHealth::Unhealthy), 512);
        assert_eq!(fill_all(50..100, LaneHealth::Unknown), 256);
        assert_eq!(fill_all(100..150, LaneHealth::Healthy), 256);
    }

    #[test]
    fn accounts_are_served_round_robin_however_many_endpoints_one_has_and_forgotten_when_idle() {
        let mut admission = Admission::new(1_024);
        for endpoint in 1..=10 {
            admission.add(AccountKey(1), EndpointKey(endpoint), LaneHealth::Healthy);
        }
        admission.add(AccountKey(2), EndpointKey(11), LaneHealth::Healthy);
        let admitted: Vec<_> = std::iter::from_fn(|| admission.next(|_, _, _| true)).collect();
        assert_eq!(admitted[1].endpoint, EndpointKey(11));
        assert_eq!(admitted.len(), 11);
        for admitted in admitted {
            admission.ended(admitted);
        }
        assert!(admission.accounts.is_empty() && admission.in_flight() == 0);
    }

    #[test]
    fn while_the_part_of_a_health_is_used_up_no_account_is_looked_at_and_then_each_goes_on() {
        let mut admission = Admission::new(1_024);
        let mut begun = Vec::new();
        // Each of so many accounts may begin at least one.
        for account in 0..50 {
            begun.extend(std::iter::from_fn(|| {
                admission.add(AccountKey(account), EndpointKey(account), LaneHealth::Unhealthy);
                admission.next(|_, _, _| true)
            }));
        }
        assert_eq!(begun.len(), 512, "the part of unhealthy endpoints");
        for account in 100..20_000 {
            admission.add(AccountKey(account), EndpointKey(account), LaneHealth::Unhealthy);
        }
        let ring = |admission: &Admission| admission.rings[LaneHealth::Unhealthy as usize].clone();
        let before = ring(&admission);
        // This would take minutes if each call looked at all accounts.
        for _ in 0..100_000 {
            assert!(admission.next(|_, _, _| panic!("no endpoint may begin")).is_none());
        }
        assert_eq!(ring(&admission), before);
        admission.add(AccountKey(1_000_000), EndpointKey(7), LaneHealth::Healthy);
        assert_eq!(admission.next(|_, _, _| true).map(|admitted| admitted.endpoint), Some(EndpointKey(7)));
        // One begins for each that has ended, and no account twice while others wait.
        let mut served = BTreeSet::new();
        for ended in begun.into_iter().take(100) {
            admission.ended(ended);
            assert!(served.insert(admission.next(|_, _, _| true).expect("one has ended").account));
            assert!(admission.next(|_, _, _| panic!("no endpoint may begin")).is_none());
        }
    }

    #[test]
    fn a_small_bound_lets_every_kind_of_endpoint_begin() {
        for max_in_flight in 1..8 {
            for health in LaneHealth::ALL {
                assert!(fill(&mut Admission::new(max_in_flight), 1, health) > 0, "{health:?} of {max_in_flight}");
            }
        }
    }
}

//! What may start: the global bound of requests in flight, and the parts of it by the health of endpoints. It counts,
//! and does no I/O.

use super::lane::LaneHealth;

/// A lane may have as many requests in flight as are free in the bound, divided by this. With 16 endpoints that take
/// all they can, each has 57 of 1,024, and 113 are free for others.
const FREE_SHARE: usize = 2;

/// Requests in flight, and the bound of them.
pub(super) struct Admission {
    max_in_flight: usize,
    /// Requests in flight, by health.
    in_flight: [usize; LaneHealth::ALL.len()],
}

impl Admission {
    pub fn new(max_in_flight: usize) -> Self {
        Self { max_in_flight, in_flight: [0; LaneHealth::ALL.len()] }
    }

    /// Requests in flight now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.iter().sum()
    }

    pub fn is_full(&self) -> bool {
        self.in_flight() >= self.max_in_flight
    }

    /// Requests that one lane may have in flight, whatever its own limit is.
    pub fn lane_share(&self) -> usize {
        debug_assert!(self.in_flight() <= self.max_in_flight, "no more than the bound are in flight");
        ((self.max_in_flight - self.in_flight()) / FREE_SHARE).max(1)
    }

    /// Whether endpoints of this health may start another attempt.
    pub fn may_start(&self, health: LaneHealth) -> bool {
        let most = self.max_in_flight;
        let unhealthy = self.in_flight[LaneHealth::Unhealthy as usize];
        let not_healthy = unhealthy + self.in_flight[LaneHealth::Unknown as usize];
        match health {
            LaneHealth::Healthy => true,
            LaneHealth::Unknown => not_healthy < (most * 3 / 4).max(1),
            LaneHealth::Unhealthy => unhealthy < (most / 2).max(1) && not_healthy < (most * 3 / 4).max(1),
        }
    }

    /// Counts an attempt that begins.
    pub fn began(&mut self, health: LaneHealth) {
        self.in_flight[health as usize] += 1;
    }

    /// An attempt has ended that was counted like this.
    pub fn ended(&mut self, health: LaneHealth) {
        self.in_flight[health as usize] -= 1;
    }
}

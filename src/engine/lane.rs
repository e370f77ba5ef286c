//! The lane of one endpoint: what waits for it, how many requests it may have in flight, and what is known of it.
//!
//! The limit grows with each success and halves with each failure, down to one probe.

use std::collections::VecDeque;
use std::time::Duration;

use crate::domain::delivery::DeliveryKind;
use crate::domain::time::Timestamp;
use crate::store::inbox::Leased;

/// Requests in flight to an endpoint that nothing is known about.
const FIRST_LIMIT: f64 = 2.0;

/// An endpoint is near while one of its last few answers took less than `NEAR`, so that the way to it is short, and they take less
/// than `NEAR_ON_AVERAGE` all in all: under load most of them wait, here or there, for others.
const NEAR: Duration = Duration::from_millis(1);
const NEAR_ON_AVERAGE: Duration = Duration::from_millis(5);

/// How many its last few answers are.
const REMEMBERED: u8 = 16;

/// An answer within this time is prompt.
const PROMPT: Duration = Duration::from_secs(1);

/// A lane with fewer deliveries in memory fetches those that are due.
const REFILL_BELOW: usize = 64;

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

/// What is known of an endpoint. Lanes wait for their turn with others of their standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its last answer was a prompt success, and the way to it is short: see `NEAR`.
    Near,
    /// Its last answer was a prompt success, and the way is not known to be short.
    Proven,
    /// Nothing.
    New,
    /// Its last attempt failed or took long.
    Sick,
}

impl Standing {
    pub const ALL: [Self; 4] = [Self::Near, Self::Proven, Self::New, Self::Sick];
}

/// What waits for an endpoint, and what is known of it.
#[derive(Debug)]
pub(super) struct Lane {
    queue: VecDeque<Queued>,
    /// Of the queue, those that a claim has brought.
    claimed: usize,
    /// Deliveries of replays: they go when the queue is empty.
    replays: VecDeque<Leased>,
    pub in_flight: usize,
    limit: f64,
    /// Until the first failure the limit doubles instead of creeping.
    fresh: bool,
    /// For how many answers it is still near.
    near: u8,
    /// How long its answers took, the last ones above all.
    average: Duration,
    pub standing: Standing,
    /// The ring in which its turn is awaited.
    pub queued: Option<Standing>,
    pub claiming: bool,
    /// Whether it is in the line of those whose claim brought nothing.
    pub starved: bool,
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
            near: 0,
            average: Duration::ZERO,
            standing: Standing::New,
            queued: None,
            claiming: false,
            starved: false,
            next_due: None,
        }
    }
}

impl Lane {
    /// A lane whose limit can reach `most` here; 0 where its endpoint is left to other processes.
    pub fn new(most: f64) -> Self {
        Self { limit: FIRST_LIMIT.min(most), ..Self::default() }
    }

    pub fn is_quiet(&self) -> bool {
        !self.has_work() && self.in_flight == 0 && !self.claiming && !self.starved && self.next_due.is_none()
    }

    pub fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.replays.is_empty()
    }

    /// Takes what goes next.
    pub fn next(&mut self) -> Option<Leased> {
        let Some(Queued { leased, claimed }) = self.queue.pop_front() else { return self.replays.pop_front() };
        self.claimed -= usize::from(claimed);
        Some(leased)
    }

    pub fn has_room(&self) -> bool {
        self.in_flight < self.limit()
    }

    /// At least 1 and far below what a float counts exactly.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 65536")]
    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Whether it wants what is due in the store. What was just accepted does not count: it would keep out what has
    /// waited for longer.
    pub fn wants_claim(&self) -> bool {
        !self.claiming && !self.starved && self.claimed < REFILL_BELOW && self.limit() > 0
    }

    /// Puts a delivery to the others; `claimed` where a claim has brought it.
    pub fn push(&mut self, leased: Leased, claimed: bool) {
        if matches!(leased.job.kind, DeliveryKind::Replay(_)) && leased.job.attempts_made == 0 {
            self.replays.push_back(leased);
        } else {
            self.queue.push_back(Queued { leased, claimed });
            self.claimed += usize::from(claimed);
        }
    }

    /// Takes a new bound of the limit. Gives up everything that waits where there is none.
    pub fn take_share(&mut self, most: f64) -> Vec<Leased> {
        self.limit = if self.limit == 0.0 { FIRST_LIMIT.min(most) } else { self.limit.min(most) };
        if most > 0.0 {
            return Vec::new();
        }
        self.claimed = 0;
        self.queue.drain(..).map(|queued| queued.leased).chain(self.replays.drain(..)).collect()
    }

    /// An attempt has ended like this.
    pub fn answered(&mut self, answered: Answered, most: f64) {
        match answered {
            Answered::Delivered(took) => {
                let step = if self.fresh { 0.5 } else { 1.0 / self.limit.max(1.0) };
                self.limit = (self.limit + step).max(1.0).min(most);
                self.near = if took < NEAR { REMEMBERED } else { self.near.saturating_sub(1) };
                self.average = (self.average * u32::from(REMEMBERED - 1) + took) / u32::from(REMEMBERED);
                self.standing = match took {
                    _ if took >= PROMPT => Standing::Sick,
                    _ if self.near > 0 && self.average < NEAR_ON_AVERAGE => Standing::Near,
                    _ => Standing::Proven,
                };
            }
            Answered::Failed => {
                self.limit = (self.limit / 2.0).max(1.0).min(most);
                self.fresh = false;
                self.near = 0;
                self.standing = Standing::Sick;
            }
            Answered::Held => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_near_while_some_of_its_answers_take_no_time_and_none_takes_long() {
        let mut lane = Lane::new(64.0);
        let mut standing_after = |answers: usize, millis: u64| {
            for _ in 0..answers {
                lane.answered(Answered::Delivered(Duration::from_millis(millis)), 64.0);
            }
            lane.standing
        };
        assert_eq!(standing_after(1, 1), Standing::Proven);
        assert_eq!(standing_after(1, 0), Standing::Near);
        assert_eq!(standing_after(15, 3), Standing::Near, "these may have waited");
        assert_eq!(standing_after(1, 3), Standing::Proven);
        assert_eq!(standing_after(1, 0), Standing::Near);
        assert_eq!(standing_after(3, 40), Standing::Proven, "these have not waited for us");
        assert_eq!(standing_after(40, 0), Standing::Near);
        lane.answered(Answered::Failed, 64.0);
        assert_eq!(lane.standing, Standing::Sick);
    }
}

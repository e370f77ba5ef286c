//! The lane of one endpoint: what waits for it, how many requests it may have in flight, and what is known of it.
//!
//! The limit grows as TCP's window does (RFC 5681, section 3.1), and shrinks with the share of answers that are
//! failures, once in a round of answers, as DCTCP's does (RFC 8257, section 3.3): an endpoint that now and then fails
//! is not kept at a few requests for ever. One that only fails is halved with each answer, down to one probe.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::delivery::DeliveryKind;
use crate::domain::time::Timestamp;
use crate::store::inbox::{Leased, MemoryUse, Pace};

/// Requests in flight to an endpoint that nothing is known about.
const FIRST_LIMIT: f64 = 2.0;

/// An answer within this time is prompt. An attempt that takes longer counts as sick from then on.
pub(super) const PROMPT: Duration = Duration::from_secs(1);

/// The weight of one answer in the share of failures: about the last 16 count (RFC 8257, section 4.2).
const FAILURE_WEIGHT: f64 = 1.0 / 16.0;

/// So many failures in a row are no accident.
const FAILING_STREAK: u32 = 4;

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
    /// Its last answer was a prompt success.
    Proven,
    /// Nothing.
    New,
    /// Its last attempt failed or took long, or one in flight does.
    Sick,
}

impl Standing {
    pub const ALL: [Self; 3] = [Self::Proven, Self::New, Self::Sick];
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
    /// The share of its last answers that were failures, from 0 to 1.
    failing: f64,
    /// Failures since the last success.
    streak: u32,
    /// Answers until a failure may shrink the limit again: those to requests that were in flight when it shrank.
    round: usize,
    pub standing: Standing,
    /// What its endpoint holds of the memory, once something of it was there.
    room: Option<Arc<MemoryUse>>,
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
            failing: 0.0,
            streak: 0,
            round: 0,
            standing: Standing::New,
            room: None,
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
        let room = leased.permit.endpoint();
        if !self.room.as_ref().is_some_and(|known| Arc::ptr_eq(known, room)) {
            self.room = Some(room.clone());
            self.note_pace();
        }
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
                self.failing -= self.failing * FAILURE_WEIGHT;
                self.streak = 0;
                self.stand(if took < PROMPT { Standing::Proven } else { Standing::Sick });
            }
            Answered::Failed => {
                self.failing += (1.0 - self.failing) * FAILURE_WEIGHT;
                self.streak = self.streak.saturating_add(1);
                self.fresh = false;
                self.stand(Standing::Sick);
                if self.streak >= FAILING_STREAK {
                    self.shrink(0.5, most);
                } else if self.round == 0 {
                    self.shrink(1.0 - self.failing / 2.0, most);
                    self.round = self.limit();
                }
            }
            Answered::Held => return,
        }
        self.round = self.round.saturating_sub(1);
    }

    fn shrink(&mut self, factor: f64, most: f64) {
        self.limit = (self.limit * factor).max(1.0).min(most);
    }

    /// An attempt in flight has not been answered promptly.
    pub fn overdue(&mut self) {
        self.stand(Standing::Sick);
    }

    fn stand(&mut self, standing: Standing) {
        if self.standing != standing {
            self.standing = standing;
            self.note_pace();
        }
    }

    /// Tells whoever reserves memory for the endpoint what is known of it.
    fn note_pace(&self) {
        let pace = match self.standing {
            Standing::Proven => Pace::Prompt,
            Standing::New => Pace::Unknown,
            Standing::Sick => Pace::Slow,
        };
        if let Some(room) = &self.room {
            room.note_pace(pace);
        }
    }

    /// As after many prompt answers.
    #[cfg(test)]
    pub fn prove(&mut self, limit: f64) {
        (self.standing, self.limit) = (Standing::Proven, limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPTLY: Answered = Answered::Delivered(Duration::from_millis(5));

    /// The limit after so many answers, of which each n-th is a failure.
    fn limit_after(lane: &mut Lane, answers: usize, failure_each: usize) -> f64 {
        for number in 1..=answers {
            lane.answered(if number % failure_each == 0 { Answered::Failed } else { PROMPTLY }, 64.0);
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
    fn an_endpoint_that_only_fails_is_probed_after_a_few_failures_and_recovers() {
        let mut lane = Lane::new(64.0);
        limit_after(&mut lane, 200, usize::MAX);
        let down = (1..100).find(|_| limit_after(&mut lane, 1, 1) <= 1.0);
        assert!(down.is_some_and(|failures| failures <= 10), "{down:?}");
        let up = limit_after(&mut lane, 3_000, usize::MAX);
        assert!(up > 60.0, "{up}");
    }
}

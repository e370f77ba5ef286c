//! When the writer begins its next transaction: at once, or when more writes can share it.
//!
//! A commit costs a write and a flush of the disk, however little is in it. Where several writes come together, the writer
//! therefore lets the next ones gather for a moment. Whoever has a few connections and waits for their answers must not
//! pay for that: where a wait has shown how many can come, the next ones end as soon as so many have.

use std::time::{Duration, Instant};

/// A transaction waits for more until so long after the one before it began for each write that was in that one: where
/// fewer come, each wait gathers less than the one before, until there is none; where more come, each gathers more,
const FOR_EACH: Duration = Duration::from_micros(200);

/// but no longer than this.
const SPACE: Duration = Duration::from_micros(2_500);

/// Where the one before took longer, it waits until this long after that one's end.
const AT_LEAST: Duration = Duration::from_micros(300);

/// Nobody else is waited for when nobody has come for this long. Programs whose timers know milliseconds send in bursts that are
/// one apart: the next of them is still waited for.
const GAP: Duration = Duration::from_micros(1_200);

/// Where nobody has come for this long at the end of a wait, nobody else was there.
const QUIET: Duration = Duration::from_micros(800);

/// Writes in the last transaction from which on it is worth while to wait.
const MANY: usize = 3;

/// No more than these are waited for.
const ENOUGH: usize = 24;

/// Transactions after one of many, until `ENOUGH` are expected again, whatever was learned.
const TRY_AGAIN: u32 = 512;

pub(super) struct Pace {
    /// When the last transaction began and ended, and how many writes it had.
    began: Instant,
    ended: Instant,
    writes: usize,
    /// How many can be expected to come together.
    expected: usize,
    /// Transactions after one of many, since `ENOUGH` were expected.
    since: u32,
}

/// What the writer waits for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wait {
    from: Instant,
    until: Instant,
    /// So many writes end it.
    pub writes: usize,
}

impl Wait {
    /// When it ends without them, where the last write came at `last`.
    pub fn end(&self, last: Instant) -> Instant {
        self.until.min(self.quiet_from(last) + GAP)
    }

    /// What came before the wait says nothing of who else may come: they may all have been in the transaction.
    fn quiet_from(&self, last: Instant) -> Instant {
        self.from.max(last)
    }
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        Self { began: now, ended: now, writes: 0, expected: ENOUGH, since: 0 }
    }

    /// Plans the next transaction, for which `waiting` writes are there: what it still waits for.
    pub fn plan(&mut self, waiting: usize, now: Instant) -> Option<Wait> {
        if self.writes < MANY {
            return None;
        }
        self.since += 1;
        if self.since >= TRY_AGAIN {
            self.expected = ENOUGH;
            self.since = 0;
        }
        if waiting > self.expected {
            self.expected = (2 * waiting).min(ENOUGH);
        }
        let space = u32::try_from(self.writes).map_or(SPACE, |writes| SPACE.min(FOR_EACH * writes));
        let until = (self.began + space).max(self.ended + AT_LEAST);
        (waiting < self.expected && now < until).then_some(Wait { from: now, until, writes: self.expected })
    }

    /// The wait is over with `waiting` writes, the last of which came at `last`.
    pub fn waited(&mut self, wait: &Wait, waiting: usize, last: Instant, now: Instant) {
        let quiet = now.saturating_duration_since(wait.quiet_from(last));
        if waiting < wait.writes && quiet >= QUIET {
            self.expected = waiting;
        }
    }

    /// A transaction begins.
    pub fn begins(&mut self, writes: usize, now: Instant) {
        self.began = now;
        self.writes = writes;
    }

    /// It has ended.
    pub fn ends(&mut self, now: Instant) {
        self.ended = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_nanos(1);

    /// A pace after a transaction of `writes` writes, and when that one began.
    fn after(writes: usize) -> (Pace, Instant) {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        pace.begins(writes, began);
        (pace, began)
    }

    /// A pace that has seen that no more than `writes` come together.
    fn learned(writes: usize) -> (Pace, Instant) {
        let (mut pace, began) = after(MANY);
        let wait = pace.plan(1, began).expect("it waits");
        pace.waited(&wait, writes, began, began + QUIET);
        (pace, began)
    }

    #[test]
    fn the_first_write_and_one_after_few_begin_at_once() {
        let now = Instant::now();
        assert_eq!(Pace::new(now).plan(1, now), None);
        assert_eq!(after(MANY - 1).0.plan(1, now), None);
    }

    #[test]
    fn after_many_the_next_transaction_waits_until_there_are_enough() {
        let (mut pace, began) = after(MANY);
        assert_eq!(pace.plan(ENOUGH - 1, began).map(|wait| wait.writes), Some(ENOUGH));
        assert_eq!(pace.plan(ENOUGH, began), None);
    }

    #[test]
    fn a_wait_ends_when_the_last_transaction_began_long_ago_even_while_they_still_come() {
        let (mut pace, began) = after(ENOUGH);
        let wait = pace.plan(1, began + SPACE / 2).expect("it waits");
        assert_eq!(wait.end(began + SPACE), began + SPACE);
    }

    #[test]
    fn the_fewer_the_last_transaction_had_the_sooner_a_wait_ends() {
        let (mut pace, began) = after(MANY);
        let space = FOR_EACH * 3;
        let wait = pace.plan(1, began + space / 2).expect("it waits");
        assert_eq!(wait.end(began + space), began + space);
        assert_eq!(pace.plan(1, began + space), None);
    }

    #[test]
    fn a_wait_ends_when_nobody_has_come_for_a_while() {
        let (mut pace, began) = after(ENOUGH);
        let wait = pace.plan(1, began).expect("it waits");
        assert_eq!(wait.end(began), began + GAP);
        assert_eq!(wait.end(began + GAP / 2), began + GAP / 2 + GAP);
    }

    #[test]
    fn after_a_transaction_that_took_long_there_is_a_short_wait_too() {
        let (mut pace, began) = after(MANY);
        let ended = began + 2 * SPACE;
        pace.ends(ended);
        let wait = pace.plan(1, ended).expect("it waits");
        assert_eq!(wait.end(ended + AT_LEAST / 2), ended + AT_LEAST);
        assert_eq!(pace.plan(1, ended + AT_LEAST), None);
    }

    #[test]
    fn where_nobody_else_came_the_next_wait_ends_with_as_many() {
        let (mut pace, began) = learned(8);
        assert_eq!(pace.plan(5, began).map(|wait| wait.writes), Some(8));
        assert_eq!(pace.plan(8, began), None);
    }

    #[test]
    fn a_wait_that_ends_while_they_still_come_teaches_nothing() {
        let (mut pace, began) = after(ENOUGH);
        let wait = pace.plan(1, began).expect("it waits");
        pace.waited(&wait, 8, began + TICK, began + QUIET);
        assert_eq!(pace.plan(8, began).map(|wait| wait.writes), Some(ENOUGH));
    }

    #[test]
    fn silence_before_the_wait_teaches_nothing() {
        let (mut pace, began) = after(ENOUGH);
        let late = began + SPACE / 2;
        let wait = pace.plan(1, late).expect("it waits");
        pace.waited(&wait, 1, began, late + TICK);
        assert_eq!(pace.plan(1, began).map(|wait| wait.writes), Some(ENOUGH));
    }

    #[test]
    fn a_wait_that_ended_with_all_who_were_expected_teaches_nothing() {
        let (mut pace, began) = learned(8);
        let wait = pace.plan(5, began).expect("it waits");
        pace.waited(&wait, 9, began, began + QUIET);
        assert_eq!(pace.plan(8, began), None);
    }

    #[test]
    fn when_more_come_than_were_expected_twice_as_many_are_expected() {
        let (mut pace, began) = learned(4);
        assert_eq!(pace.plan(5, began).map(|wait| wait.writes), Some(10));
        assert_eq!(pace.plan(ENOUGH - 1, began).map(|wait| wait.writes), Some(ENOUGH));
    }

    #[test]
    fn what_was_learned_is_tried_again_after_a_while() {
        let (mut pace, began) = learned(8);
        // One was planned to learn it.
        let waits = (2..=TRY_AGAIN).filter(|_| pace.plan(8, began).is_some()).count();
        assert_eq!(waits, 1);
    }
}

//! When the writer begins its next transaction: at once, or when more writes can share it.
//!
//! A commit costs a write and a flush of the disk, however little is in it. Where several writes come together, the writer
//! therefore lets the next ones gather for a moment. Whoever has a few connections and waits for their answers must not
//! pay for that: where a wait has shown how many can come, the next ones end as soon as so many have.

use std::time::{Duration, Instant};

/// A transaction that waits for more begins at the latest this long after the one before it.
const SPACE: Duration = Duration::from_millis(2);

/// Writes in the last transaction from which on it is worth while to wait. One client alone never waits.
const MANY: usize = 3;

/// No more than these are waited for.
const ENOUGH: usize = 16;

/// Where nobody has come for this long at the end of a wait, nobody else was there.
const QUIET: Duration = Duration::from_micros(200);

/// Transactions after which what was learned is tried again.
const TRY_AGAIN: u32 = 512;

pub(super) struct Pace {
    /// When the last transaction began, and how many writes it had.
    began: Instant,
    writes: usize,
    /// How many can be expected to come together.
    expected: usize,
    /// Transactions since everybody was expected.
    since: u32,
}

/// What the writer still waits for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wait {
    pub until: Instant,
    /// So many writes end it.
    pub writes: usize,
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        Self { began: now, writes: 0, expected: ENOUGH, since: 0 }
    }

    /// What the next transaction still waits for, where `waiting` writes are there.
    pub fn wait(&mut self, waiting: usize) -> Option<Wait> {
        if self.writes < MANY {
            return None;
        }
        self.since += 1;
        if waiting > self.expected || self.since >= TRY_AGAIN {
            self.expected = ENOUGH;
            self.since = 0;
        }
        (waiting < self.expected).then(|| Wait { until: self.began + SPACE, writes: self.expected })
    }

    /// The wait is over. The last of the `waiting` writes came `quiet` ago.
    pub fn waited(&mut self, waiting: usize, quiet: Duration) {
        if waiting < self.expected && quiet >= QUIET {
            self.expected = waiting;
        }
    }

    /// A transaction begins.
    pub fn begins(&mut self, writes: usize, now: Instant) {
        self.began = now;
        self.writes = writes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pace after a transaction of `writes` writes, and when that one began.
    fn after(writes: usize) -> (Pace, Instant) {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        pace.begins(writes, began);
        (pace, began)
    }

    #[test]
    fn the_first_write_and_one_after_few_begin_at_once() {
        assert_eq!(Pace::new(Instant::now()).wait(1), None);
        assert_eq!(after(MANY - 1).0.wait(1), None);
    }

    #[test]
    fn after_many_the_next_transaction_waits_for_enough_and_never_longer_than_the_space() {
        let (mut pace, began) = after(MANY);
        assert_eq!(pace.wait(1), Some(Wait { until: began + SPACE, writes: ENOUGH }));
        assert_eq!(pace.wait(ENOUGH - 1), Some(Wait { until: began + SPACE, writes: ENOUGH }));
        assert_eq!(pace.wait(ENOUGH), None);
    }

    #[test]
    fn where_nobody_else_came_the_next_wait_ends_with_as_many() {
        let (mut pace, began) = after(8);
        pace.waited(8, QUIET);
        assert_eq!(pace.wait(5), Some(Wait { until: began + SPACE, writes: 8 }));
        assert_eq!(pace.wait(8), None);
    }

    #[test]
    fn a_wait_that_ends_while_they_still_come_teaches_nothing() {
        let (mut pace, began) = after(8);
        pace.waited(8, QUIET / 2);
        assert_eq!(pace.wait(8), Some(Wait { until: began + SPACE, writes: ENOUGH }));
    }

    #[test]
    fn a_wait_that_ended_with_all_who_were_expected_changes_nothing() {
        let (mut pace, _) = after(8);
        pace.waited(8, QUIET);
        pace.waited(8, Duration::from_secs(1));
        assert_eq!(pace.wait(8), None);
    }

    #[test]
    fn when_more_come_than_were_expected_all_are_expected_again() {
        let (mut pace, began) = after(8);
        pace.waited(4, QUIET);
        assert_eq!(pace.wait(5), Some(Wait { until: began + SPACE, writes: ENOUGH }));
    }

    #[test]
    fn what_was_learned_is_tried_again_after_a_while() {
        let (mut pace, _) = after(8);
        pace.waited(8, QUIET);
        let waits = (1..=TRY_AGAIN).filter(|_| pace.wait(8).is_some()).count();
        assert_eq!(waits, 1);
    }
}

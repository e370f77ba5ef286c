//! Group commit: how long the writer gathers writes before it begins its next transaction.
//!
//! A commit costs a write and a flush of the disk, however little is in it. After a transaction of several writes the
//! writer waits for as many again: callers who have just been answered send their next writes. A first write, and a
//! write after a small transaction, is committed at once. `docs/decisions/0007-group-commit.md` has the figures.

use std::time::{Duration, Instant};

/// After a transaction with fewer writes the writer does not wait.
const MIN_WRITES: usize = 3;

/// The writer waits for no more writes than this.
const MAX_GATHERED_WRITES: usize = 24;

/// A wait ends this long after the last transaction began for each write of that transaction, so that it dies out where
/// fewer than 5,000 writes come in a second.
const WAIT_PER_WRITE: Duration = Duration::from_micros(200);

/// A wait ends this long after the last transaction began, however many writes that transaction had.
const MAX_WAIT: Duration = Duration::from_micros(2_500);

/// A wait lasts this long after the end of the last transaction, however long that transaction took.
const WAIT_AFTER_END: Duration = Duration::from_micros(300);

/// A wait ends when no write has come for this long. Programs whose timers count milliseconds send bursts that are 1 ms
/// apart: the writer still waits for the next burst.
const MAX_SILENCE: Duration = Duration::from_micros(1_200);

/// The last transaction, which says what the writer waits for.
pub(super) struct GroupCommit {
    began: Instant,
    ended: Instant,
    writes: usize,
}

/// What the writer waits for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wait {
    from: Instant,
    until: Instant,
    /// The wait ends when so many writes are there.
    pub writes: usize,
}

impl Wait {
    /// When the wait ends without them, where the last write came at `last`.
    pub fn end(&self, last: Instant) -> Instant {
        self.until.min(self.from.max(last) + MAX_SILENCE)
    }
}

impl GroupCommit {
    pub fn new(now: Instant) -> Self {
        Self { began: now, ended: now, writes: 0 }
    }

    /// What the writer still waits for at `now`, where `waiting` writes are there.
    pub fn plan(&self, waiting: usize, now: Instant) -> Option<Wait> {
        let writes = self.writes.min(MAX_GATHERED_WRITES);
        let wait = u32::try_from(writes).map_or(MAX_WAIT, |writes| MAX_WAIT.min(WAIT_PER_WRITE * writes));
        let until = (self.began + wait).max(self.ended + WAIT_AFTER_END);
        (writes >= MIN_WRITES && waiting < writes && now < until).then_some(Wait { from: now, until, writes })
    }

    /// A transaction of so many writes begins.
    pub fn begins(&mut self, writes: usize, now: Instant) {
        self.began = now;
        self.writes = writes;
    }

    /// The transaction has ended.
    pub fn ends(&mut self, now: Instant) {
        self.ended = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After a transaction of so many writes, and when that one began.
    fn after(writes: usize) -> (GroupCommit, Instant) {
        let began = Instant::now();
        let mut commits = GroupCommit::new(began);
        commits.begins(writes, began);
        (commits, began)
    }

    #[test]
    fn the_first_write_and_a_write_after_few_are_committed_at_once() {
        let now = Instant::now();
        assert_eq!(GroupCommit::new(now).plan(1, now), None);
        assert_eq!(after(MIN_WRITES - 1).0.plan(1, now), None);
    }

    #[test]
    fn a_transaction_is_followed_by_one_of_as_many_writes() {
        let (commits, began) = after(8);
        assert_eq!(commits.plan(7, began).map(|wait| wait.writes), Some(8));
        assert_eq!(commits.plan(8, began), None);
    }

    #[test]
    fn no_more_writes_are_waited_for_than_the_most() {
        let (commits, began) = after(100);
        assert_eq!(commits.plan(1, began).map(|wait| wait.writes), Some(MAX_GATHERED_WRITES));
    }

    #[test]
    fn a_wait_ends_while_writes_still_come() {
        let (commits, began) = after(MAX_GATHERED_WRITES);
        let wait = commits.plan(1, began + MAX_WAIT / 2).expect("it waits");
        assert_eq!(wait.end(began + MAX_WAIT), began + MAX_WAIT);
    }

    #[test]
    fn the_fewer_writes_the_last_transaction_had_the_sooner_a_wait_ends() {
        let (commits, began) = after(3);
        let until = began + WAIT_PER_WRITE * 3;
        assert_eq!(commits.plan(1, began).expect("it waits").end(until), until);
        assert_eq!(commits.plan(1, until), None);
    }

    #[test]
    fn a_wait_ends_when_no_write_has_come_for_a_while() {
        let (commits, began) = after(MAX_GATHERED_WRITES);
        let wait = commits.plan(1, began).expect("it waits");
        assert_eq!(wait.end(began), began + MAX_SILENCE);
        assert_eq!(wait.end(began + MAX_SILENCE / 2), began + MAX_SILENCE / 2 + MAX_SILENCE);
    }

    #[test]
    fn after_a_transaction_that_took_long_there_is_a_short_wait_too() {
        let (mut commits, began) = after(3);
        let ended = began + 2 * MAX_WAIT;
        commits.ends(ended);
        let wait = commits.plan(1, ended).expect("it waits");
        assert_eq!(wait.end(ended + WAIT_AFTER_END / 2), ended + WAIT_AFTER_END);
        assert_eq!(commits.plan(1, ended + WAIT_AFTER_END), None);
    }
}

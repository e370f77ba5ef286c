//! The attempts that count towards an endpoint's rate limit, while a transaction of either store has their row.

use std::time::Duration;

use tokio::time::Instant;

use super::errors::StoreError;
use super::inbox::Leased;
use super::start_permit::{CountedStart, StartPermit};
use crate::domain::rate_limit::{AttemptLog, Rate};
use crate::domain::time::Timestamp;

/// The counted attempts of an endpoint.
pub(super) struct CountedAttempts {
    log: AttemptLog,
    /// A time of the clock by which attempts are counted.
    now: Timestamp,
    /// A moment before that.
    asked_at: Instant,
}

impl CountedAttempts {
    /// Reads the column `attempts`, JSON: a list of groups, each a time in milliseconds and a number of attempts.
    pub fn read(column: &str, now: Timestamp, asked_at: Instant) -> Result<Self, StoreError> {
        let corrupt = |error: serde_json::Error| StoreError::Corrupt(format!("limited_attempts.attempts: {error}"));
        let groups: Vec<(i64, u32)> = serde_json::from_str(column).map_err(corrupt)?;
        let groups = groups.into_iter().map(|(at, attempts)| (Timestamp::from_millis(at), attempts));
        Ok(Self { log: AttemptLog::of_groups(groups.collect()), now, asked_at })
    }

    /// The column.
    pub fn column(&self) -> String {
        let groups = self.log.groups().iter().map(|(at, attempts)| (at.as_millis(), *attempts));
        serde_json::to_string(&groups.collect::<Vec<_>>()).expect("numbers are JSON")
    }

    /// Attempts that may be counted now.
    pub fn free(&mut self, rate: Rate) -> usize {
        self.log.free(rate, self.now) as usize
    }

    /// Counts the attempts of deliveries that are claimed, as many as are free, and gives them their permits.
    pub fn permit(&mut self, rate: Rate, jobs: &mut [Leased]) {
        if jobs.is_empty() {
            return;
        }
        debug_assert!(jobs.len() <= self.free(rate), "no more are claimed than may begin");
        let count = u32::try_from(jobs.len()).expect("a claim is small");
        let group = self.log.count(rate, count, self.now, rate.validity());
        let counted = CountedStart::new(group, rate, self.asked_at, rate.validity());
        for leased in jobs {
            leased.start = StartPermit::of(counted);
        }
    }

    /// See [`Dispatch::count_start`](crate::store::Dispatch::count_start).
    pub fn count_start(
        &mut self,
        rate: Rate,
        earlier: Option<CountedStart>,
        validity: Duration,
    ) -> Option<CountedStart> {
        let group = self.log.count_again(rate, earlier.map(|earlier| earlier.group), self.now, validity)?;
        Some(CountedStart::new(group, rate, self.asked_at, validity))
    }

    /// Takes out an attempt that was counted and is not made.
    pub fn give_back(&mut self, counted: CountedStart) {
        self.log.give_back(counted.group);
    }

    /// How long no attempt may begin; `None` where another one may.
    pub fn held_for(&mut self, rate: Rate) -> Option<Duration> {
        self.log.held_for(rate, self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_attempts_are_read_as_they_were_written() {
        let (now, rate) =
            (Timestamp::from_millis(1_800_000_000_000), Rate { attempts: 3, window: Duration::from_secs(60) });
        let mut attempts = CountedAttempts::read("[]", now, Instant::now()).expect("none");
        let counted = attempts.count_start(rate, None, rate.validity()).expect("free");
        attempts.count_start(rate, None, Duration::from_secs(4)).expect("free");
        assert_eq!(attempts.column(), "[[1800000001000,1],[1800000004000,1]]");
        let mut read = CountedAttempts::read(&attempts.column(), now, Instant::now()).expect("read");
        assert_eq!((read.free(rate), read.held_for(rate)), (1, None));
        read.give_back(counted);
        assert_eq!((read.free(rate), read.column().as_str()), (2, "[[1800000004000,1]]"));
        assert!(CountedAttempts::read("none", now, Instant::now()).is_err());
    }
}

//! The rate limit of an endpoint: how it is written, and which attempts it allows.
//!
//! An [`AttemptLog`] counts the attempts of the last window. An attempt is counted before it begins, and may begin for
//! a short time after that. The log has the end of that time, so that it never places an attempt too early. No window
//! of the limit's length holds more attempts than the limit allows: see `docs/decisions/0024-rate-limits.md`.

use std::fmt;
use std::time::Duration;

use super::duration::parse_rate;
use super::time::Timestamp;

/// Most attempts of a limit.
pub const MAX_ATTEMPTS: u32 = 10_000;

/// Longest text of a limit, in characters.
pub const MAX_RATE_LIMIT_CHARS: usize = 32;

/// What a limit looks like.
pub const RATE_LIMIT_PATTERN: &str = "^[1-9][0-9]{0,4}/([0-9]+(d|h|m|s|ms))+$";

/// Shortest and longest window of a limit.
const WINDOWS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);

/// An attempt may begin for this part of the window after it was counted: so much is lost of the rate.
const VALIDITY_PART: u32 = 20;

/// How long an attempt may begin after it was counted, whatever the window is: at least as long as a commit and the way
/// to the attempt usually take, and at most a pause that a user of a long window does not notice.
const VALIDITY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// The longest time for which an attempt may begin after it was counted, by whoever finds that the usual time is too
/// short.
pub const LONGEST_VALIDITY: Duration = Duration::from_secs(16);

/// Groups of attempts in which a window is counted. A limit of more attempts loses this part of its rate. A column with
/// so many groups takes some 1.3 KB.
const GROUPS: u32 = 64;

/// Most groups of a log. There are more than [`GROUPS`] only after an owner has changed the limit again and again.
const MAX_GROUPS: usize = 2 * GROUPS as usize;

/// So many attempts in a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Attempts that may begin in any window.
    pub attempts: u32,
    /// The length of a window.
    pub window: Duration,
}

impl Rate {
    /// How long an attempt may begin after it was counted.
    pub fn validity(self) -> Duration {
        (self.window / VALIDITY_PART).clamp(VALIDITY.0, VALIDITY.1)
    }

    /// The time that a group of attempts stands for. Few attempts are counted one by one.
    fn group_length(self) -> Duration {
        if self.attempts <= GROUPS { Duration::ZERO } else { self.window / GROUPS }
    }
}

/// A limit as an owner has written it, such as `100/1m`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RateLimit {
    text: String,
    rate: Rate,
}

impl RateLimit {
    /// Reads `N/DURATION`: 1 to 10,000 attempts in 1 second to 1 hour, without spaces.
    pub fn parse(text: &str) -> Option<Self> {
        let is_short = text.len() <= MAX_RATE_LIMIT_CHARS;
        let is_plain = !text.starts_with('0') && !text.contains(char::is_whitespace);
        let (attempts, window) = parse_rate(text).filter(|_| is_short && is_plain)?;
        let rate = Rate { attempts, window };
        (attempts <= MAX_ATTEMPTS && WINDOWS.contains(&window)).then(|| Self { text: text.to_owned(), rate })
    }

    /// What it allows.
    pub fn rate(&self) -> Rate {
        self.rate
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The attempts of an endpoint that count towards its limit: in groups, each with the latest time at which an attempt
/// of the group begins. The times grow.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AttemptLog(Vec<(Timestamp, u32)>);

impl AttemptLog {
    /// A log of these groups, which [`AttemptLog::groups`] gave; `None` where it cannot have given them.
    pub fn of_groups(groups: Vec<(Timestamp, u32)>) -> Option<Self> {
        let attempts: u64 = groups.iter().map(|(_, attempts)| u64::from(*attempts)).sum();
        let can_be = groups.is_sorted_by(|(one, _), (next, _)| one < next)
            && groups.iter().all(|(_, attempts)| *attempts > 0)
            && attempts <= u64::from(MAX_ATTEMPTS);
        can_be.then_some(Self(groups))
    }

    /// A log in place of one that is lost. No limit allows more attempts than it has, and all that were counted begin
    /// by the time that it has. Whatever the limit is, no attempt may begin until their window has passed.
    pub fn full(now: Timestamp) -> Self {
        Self(vec![(now.plus(LONGEST_VALIDITY), MAX_ATTEMPTS)])
    }

    /// The groups: the time of each, and how many attempts it has.
    pub fn groups(&self) -> &[(Timestamp, u32)] {
        &self.0
    }

    /// Attempts that may be counted now.
    pub fn free(&mut self, rate: Rate, now: Timestamp) -> u32 {
        self.forget(rate, now);
        rate.attempts.saturating_sub(self.counted())
    }

    /// Counts so many attempts, each of which begins from now on and within `validity`. The caller has found them
    /// [free](AttemptLog::free). Returns the time of their group, by which [`AttemptLog::give_back`] finds it.
    pub fn count(&mut self, rate: Rate, attempts: u32, now: Timestamp, validity: Duration) -> Timestamp {
        debug_assert!(validity <= LONGEST_VALIDITY, "a log knows how far ahead its times can be");
        let begins_by = now.plus(validity);
        let group = match self.0.last_mut() {
            Some((group, counted)) if *group >= begins_by => {
                *counted += attempts;
                *group
            }
            _ => {
                let group = begins_by.plus(rate.group_length());
                self.0.push((group, attempts));
                group
            }
        };
        while self.0.len() > MAX_GROUPS {
            let (_, oldest) = self.0.remove(0);
            self.0[0].1 += oldest;
        }
        debug_assert!(self.0.is_sorted_by(|(one, _), (next, _)| one < next), "the times of groups grow");
        group
    }

    /// Counts one attempt in place of one that was counted in the group `earlier` and has not begun. Returns the time
    /// of its group; `None` where no attempt may begin now.
    pub fn count_again(
        &mut self,
        rate: Rate,
        earlier: Option<Timestamp>,
        now: Timestamp,
        validity: Duration,
    ) -> Option<Timestamp> {
        if let Some(earlier) = earlier {
            self.give_back(earlier);
        }
        (self.free(rate, now) > 0).then(|| self.count(rate, 1, now, validity))
    }

    /// Takes an attempt out that was counted in this group and will not begin. A group that is no more has nothing to
    /// take out.
    pub fn give_back(&mut self, group: Timestamp) {
        let Some(index) = self.0.iter().position(|(known, _)| *known == group) else { return };
        self.0[index].1 -= 1;
        if self.0[index].1 == 0 {
            self.0.remove(index);
        }
    }

    /// How long it takes until another attempt may be counted; `None` where it may be counted now.
    pub fn limited_for(&mut self, rate: Rate, now: Timestamp) -> Option<Duration> {
        if self.free(rate, now) > 0 {
            return None;
        }
        let mut left = self.counted();
        let last = self.0.iter().find(|(_, attempts)| {
            left -= attempts;
            left < rate.attempts
        });
        last.map(|(group, _)| group.plus(rate.window).since(now) + Duration::from_millis(1))
    }

    fn counted(&self) -> u32 {
        self.0.iter().map(|(_, attempts)| attempts).sum()
    }

    /// Forgets the groups that no window shares with an attempt that begins now.
    fn forget(&mut self, rate: Rate, now: Timestamp) {
        // What is further ahead was written by a clock that has since been set back. It has begun before now.
        let furthest = now.plus(LONGEST_VALIDITY).plus(rate.group_length());
        let ahead = self.0.partition_point(|(group, _)| *group < furthest);
        let attempts: u32 = self.0.drain(ahead..).map(|(_, attempts)| attempts).sum();
        if attempts > 0 {
            self.0.push((furthest, attempts));
        }
        // Times are whole milliseconds: an attempt may begin almost one later than its group says.
        self.0.retain(|(group, _)| group.plus(rate.window) >= now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + ms)
    }

    fn rate(attempts: u32, seconds: u64) -> Rate {
        Rate { attempts, window: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_limit_is_a_number_of_attempts_in_a_second_to_an_hour() {
        for (text, attempts, ms) in [
            ("1/1s", 1, 1_000),
            ("10000/1h", 10_000, 3_600_000),
            ("100/1m", 100, 60_000),
            ("7/1m30s", 7, 90_000),
            ("5/60s", 5, 60_000),
            ("5/1500ms", 5, 1_500),
        ] {
            let limit = RateLimit::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(limit.rate(), Rate { attempts, window: Duration::from_millis(ms) });
            assert_eq!(limit.to_string(), text, "it is shown as it was written");
        }
        let long = format!("1/{}1s", "0".repeat(30));
        for text in
            ["", "5", "5/", "/1s", "0/1s", "05/1s", "10001/1s", "5/999ms", "5/1h1s", "5/1d", "5 /1s", "5/ 1s", " 5/1s"]
        {
            assert_eq!(RateLimit::parse(text), None, "{text}");
        }
        for text in ["5/1s ", "-5/1s", "+5/1s", "5.5/1s", "5/1.5s", "5/m", "5/60", "5/1s/1s", "five/1s", &long] {
            assert_eq!(RateLimit::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_burst_may_begin_at_once_and_the_next_attempt_when_the_window_has_passed() {
        let (mut log, rate) = (AttemptLog::default(), rate(3, 10));
        assert_eq!((log.free(rate, at(0)), log.limited_for(rate, at(0))), (3, None));
        log.count(rate, 2, at(0), rate.validity());
        log.count(rate, 1, at(4_000), rate.validity());
        assert_eq!(log.free(rate, at(4_000)), 0);
        // Half a second for which they may begin, the window, and a millisecond.
        assert_eq!(log.limited_for(rate, at(4_000)), Some(Duration::from_millis(6_501)));
        assert_eq!((log.free(rate, at(10_500)), log.free(rate, at(10_501))), (0, 2));
        assert_eq!((log.free(rate, at(14_500)), log.free(rate, at(14_501))), (2, 3));
        assert!(log.groups().is_empty());
    }

    #[test]
    fn an_attempt_that_is_late_is_counted_again_in_its_own_place() {
        let (mut log, rate) = (AttemptLog::default(), rate(1, 10));
        let first = log.count(rate, 1, at(0), rate.validity());
        assert_eq!(log.count_again(rate, None, at(600), rate.validity()), None, "another one waits");
        let again = log.count_again(rate, Some(first), at(600), rate.validity());
        assert_eq!(again, Some(at(1_100)));
        assert_eq!(log.limited_for(rate, at(600)), Some(Duration::from_millis(10_501)));
        log.give_back(again.expect("counted"));
        assert_eq!(log.free(rate, at(600)), 1, "one that does not begin makes room");
        log.give_back(at(1_100));
        assert_eq!(log.free(rate, at(600)), 1, "once");
    }

    #[test]
    fn many_attempts_are_counted_in_few_groups_and_most_of_the_rate_is_used() {
        let (mut log, rate) = (AttemptLog::default(), rate(10_000, 3_600));
        let mut counted = 0;
        for second in 0..10_800 {
            let now = at(second * 1_000);
            let free = log.free(rate, now).min(3);
            if free > 0 {
                log.count(rate, free, now, rate.validity());
                counted += free;
            }
            assert!(log.groups().len() <= 66, "{}", log.groups().len());
        }
        assert!(counted > 29_000, "{counted} in three hours");
    }

    #[test]
    fn however_often_an_owner_changes_the_limit_a_log_has_few_groups_and_forgets_no_attempt() {
        let mut log = AttemptLog::default();
        for n in 0..1_000 {
            let rate = rate(if n % 2 == 0 { 1_999 } else { 2_000 }, 3_600);
            assert!(log.free(rate, at(n * 20)) > 0);
            log.count(rate, 1, at(n * 20), rate.validity());
        }
        assert_eq!((log.groups().len(), log.counted()), (1, 1_000));
        for n in 0..1_000 {
            log.count(rate(64, 3_600), 1, at(100_000 + n), Duration::ZERO);
        }
        assert_eq!((log.groups().len(), log.counted()), (MAX_GROUPS, 2_000));
    }

    #[test]
    fn a_clock_that_was_set_back_holds_an_endpoint_for_a_window_and_a_little() {
        for (rate, expected_ms) in [(rate(5, 1), 17_001), (rate(1_000, 3_600), 3_672_251)] {
            let mut log = AttemptLog::default();
            log.count(rate, rate.attempts, at(0), rate.validity());
            let back = at(-86_400_000);
            assert_eq!(log.limited_for(rate, back), Some(Duration::from_millis(expected_ms)));
            assert_eq!(log.free(rate, back.plus(Duration::from_millis(expected_ms))), rate.attempts);
        }
    }

    #[test]
    fn a_log_that_is_lost_holds_an_endpoint_for_a_window_and_a_little() {
        for rate in [rate(1, 1), rate(100, 60), rate(MAX_ATTEMPTS, 3_600)] {
            let mut log = AttemptLog::full(at(0));
            let limited_for = rate.window + LONGEST_VALIDITY + Duration::from_millis(1);
            assert_eq!(log.limited_for(rate, at(0)), Some(limited_for));
            assert_eq!(log.free(rate, at(0).plus(limited_for)), rate.attempts);
        }
    }

    #[test]
    fn groups_that_no_log_gave_are_refused() {
        let log = AttemptLog::full(at(0));
        assert_eq!(AttemptLog::of_groups(log.groups().to_vec()), Some(log));
        assert_eq!(AttemptLog::of_groups(Vec::new()), Some(AttemptLog::default()));
        for groups in [
            vec![(at(0), 0)],
            vec![(at(1), 1), (at(0), 1)],
            vec![(at(0), 1), (at(0), 1)],
            vec![(at(0), MAX_ATTEMPTS), (at(1), 1)],
            vec![(at(0), u32::MAX), (at(1), u32::MAX)],
        ] {
            assert_eq!(AttemptLog::of_groups(groups.clone()), None, "{groups:?}");
        }
    }

    #[test]
    fn a_limit_that_is_lowered_counts_what_has_begun() {
        let (mut log, wide, narrow) = (AttemptLog::default(), rate(100, 60), rate(2, 60));
        let group = log.count(wide, 10, at(0), wide.validity());
        assert_eq!(log.free(narrow, at(0)), 0);
        assert_eq!(log.count_again(narrow, Some(group), at(0), narrow.validity()), None);
        assert_eq!(log.free(wide, at(0)), 91, "what may not begin is not counted");
    }

    proptest! {
        #[test]
        fn no_window_holds_more_attempts_than_the_limit_allows(
            attempts in 1_u32..=100,
            seconds in 1_u64..=30,
            steps in prop::collection::vec((0_u64..800, 0_u32..4, 0_u32..=100), 1..300),
        ) {
            let rate = rate(attempts, seconds);
            let (mut log, mut now) = (AttemptLog::default(), at(0));
            // When each attempt begins, and the group that it is counted in.
            let mut begun: Vec<(Timestamp, Timestamp)> = Vec::new();
            for (pause, kind, percent) in steps {
                now = now.plus(Duration::from_millis(pause));
                let begins = now.plus(rate.validity() * percent / 100);
                let waiting = begun.last().copied().filter(|(begins, _)| *begins > now);
                match (kind, waiting) {
                    (0, Some((_, group))) => {
                        begun.pop();
                        log.give_back(group);
                    }
                    (1, Some((_, group))) => {
                        begun.pop();
                        let again = log.count_again(rate, Some(group), now, rate.validity());
                        begun.extend(again.map(|group| (begins, group)));
                    }
                    _ => {
                        let free = log.free(rate, now).min(1 + kind * 10);
                        if free > 0 {
                            let group = log.count(rate, free, now, rate.validity());
                            begun.extend((0..free).map(|_| (begins, group)));
                        }
                    }
                }
                prop_assert!(log.limited_for(rate, now).is_none_or(|wait| log.clone().free(rate, now.plus(wait)) > 0));
            }
            let mut begun: Vec<i64> = begun.iter().map(|(begins, _)| begins.as_millis()).collect();
            begun.sort_unstable();
            let window = i64::try_from(rate.window.as_millis()).expect("short");
            for first in 0..begun.len().saturating_sub(attempts as usize) {
                let next = begun[first + attempts as usize];
                prop_assert!(next - begun[first] > window, "{} and {next}", begun[first]);
            }
        }
    }
}

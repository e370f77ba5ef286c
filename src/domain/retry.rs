//! When the next attempt is due: the schedule, its jitter, and what a receiver's `Retry-After` asks for.

use std::sync::Arc;
use std::time::Duration;

use super::time::Timestamp;

/// Longest `Retry-After` that is honoured.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Most steps of a schedule.
pub const MAX_STEPS: usize = 50;

/// Most steps of a schedule that belongs to an endpoint.
pub const MAX_ENDPOINT_STEPS: usize = 20;

/// Longest delay in such a schedule, in seconds: 7 days.
pub const MAX_ENDPOINT_DELAY_SECONDS: u64 = 604_800;

/// Share of a delay that jitter may add or take away.
const JITTER: f64 = 0.1;

/// The delays between attempts: the first follows the first attempt. Clones share them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetrySchedule(Arc<[Duration]>);

impl Default for RetrySchedule {
    /// 30s, 2m, 10m, 30m, 1h30m, 3h, 3h30m: about 8.6 hours.
    fn default() -> Self {
        Self::stored(&[30, 120, 600, 1_800, 5_400, 10_800, 12_600])
    }
}

impl RetrySchedule {
    /// From delays, at most [`MAX_STEPS`] of them; an empty schedule never retries.
    pub fn new(delays: Vec<Duration>) -> Option<Self> {
        (delays.len() <= MAX_STEPS).then(|| Self(delays.into()))
    }

    /// From seconds, as an endpoint may have them; without any it never retries.
    pub fn of_endpoint(seconds: &[u64]) -> Option<Self> {
        let fits = |delay: &u64| (1..=MAX_ENDPOINT_DELAY_SECONDS).contains(delay);
        (seconds.len() <= MAX_ENDPOINT_STEPS && seconds.iter().all(fits)).then(|| Self::stored(seconds))
    }

    /// What was checked before it was stored.
    pub fn stored(seconds: &[u64]) -> Self {
        Self(seconds.iter().copied().map(Duration::from_secs).collect())
    }

    /// The delays in whole seconds.
    pub fn seconds(&self) -> Vec<u64> {
        self.0.iter().map(Duration::as_secs).collect()
    }

    /// The delays.
    pub fn delays(&self) -> &[Duration] {
        &self.0
    }

    /// When the attempt after `failures` failed ones is due, or `None` when there is no further one.
    ///
    /// `jitter` is a random number from -1 to 1. `retry_after` is a floor: where it is later than the schedule it
    /// takes the schedule's place, and jitter only adds to it, up to [`MAX_RETRY_AFTER`] in all.
    pub fn next(&self, failures: u32, now: Timestamp, jitter: f64, retry_after: Option<Duration>) -> Option<Timestamp> {
        let step = usize::try_from(failures).ok()?.checked_sub(1)?;
        let delay = *self.0.get(step)?;
        let jitter = jitter.clamp(-1.0, 1.0);
        let scheduled = delay.mul_f64(1.0 + JITTER * jitter);
        let floor = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
        let later = floor.mul_f64(1.0 + JITTER * jitter.abs()).min(MAX_RETRY_AFTER);
        let wait = if floor > scheduled { later } else { scheduled };
        Some(now.plus(wait))
    }
}

/// Reads a `Retry-After` value (RFC 9110, section 10.2.3): seconds, or an HTTP date taken relative to `now`.
pub fn parse_retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if value.len() > 64 {
        return None;
    }
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // Digits that are no `u64` are more than it holds.
        let seconds = value.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    }
    // All three forms of a date that RFC 9110, section 5.6.7, has recipients accept.
    let at = httpdate::parse_http_date(value).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let at = Timestamp::from_millis(i64::try_from(at.as_millis()).ok()?);
    Some(at.since(now).min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_schedule_lasts_about_eight_and_a_half_hours() {
        let total: Duration = RetrySchedule::default().delays().iter().sum();
        assert_eq!(total, Duration::from_secs(31_350));
    }

    #[test]
    fn an_endpoints_schedule_has_up_to_20_steps_of_up_to_a_week() {
        for good in [&[][..], &[1], &[604_800; 20]] {
            assert_eq!(RetrySchedule::of_endpoint(good).expect("allowed").seconds(), good);
        }
        for bad in [&[0][..], &[1, 604_801], &[1; 21]] {
            assert_eq!(RetrySchedule::of_endpoint(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn retry_after_reads_seconds_and_dates() {
        let now = Timestamp::parse("2026-05-01T05:14:38Z").expect("a time");
        for (value, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("99999999999999999999999", Some(86_400)),
            ("Fri, 01 May 2026 05:15:38 GMT", Some(60)),
            ("Fri, 01 May 2020 05:15:38 GMT", Some(0)),
            ("Friday, 01-May-26 05:15:38 GMT", Some(60)),
            ("Fri May  1 05:15:38 2026", Some(60)),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(parse_retry_after(value, now), seconds.map(Duration::from_secs), "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn a_scheduled_delay_stays_within_its_jitter(failures in 1u32..8, jitter in -1.0f64..1.0) {
            let schedule = RetrySchedule::default();
            let now = Timestamp::from_millis(1_000_000);
            let wait = schedule.next(failures, now, jitter, None).expect("a step").since(now);
            let delay = schedule.delays()[failures as usize - 1];
            prop_assert!(wait >= delay.mul_f64(0.899) && wait <= delay.mul_f64(1.101));
        }

        #[test]
        fn retry_after_is_a_floor_up_to_a_day(failures in 1u32..8, jitter in -1.0f64..1.0, asked in 0u64..200_000) {
            let now = Timestamp::from_millis(1_000_000);
            let asked = Duration::from_secs(asked);
            let wait = RetrySchedule::default().next(failures, now, jitter, Some(asked)).expect("a step").since(now);
            prop_assert!(wait >= asked.min(MAX_RETRY_AFTER).saturating_sub(Duration::from_millis(1)));
            prop_assert!(wait <= MAX_RETRY_AFTER);
        }

        #[test]
        fn after_the_last_step_there_is_none(failures in 8u32.., jitter in -1.0f64..1.0) {
            prop_assert_eq!(RetrySchedule::default().next(failures, Timestamp::default(), jitter, None), None);
        }

        #[test]
        fn any_retry_after_is_read_or_ignored(value in "\\PC{0,70}") {
            let _ = parse_retry_after(&value, Timestamp::default());
        }
    }
}

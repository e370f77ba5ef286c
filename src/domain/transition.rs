//! What becomes of a delivery and its endpoint after an attempt: the decision at the heart of the engine.
//!
//! ```text
//!            2xx                      ┌────────────── failure, step left ─────────────┐
//! pending ────────► success           ▼                                               │
//!    │                ▲            retrying ──── 2xx ────► success                    │
//!    ├─ failure ──────┼──────────────►│└──────── failure, no step left, or 410 ──► failed
//!    └─ 410 ──────────┼──────────────────────────────────────────────────────────► failed
//! ```

use std::time::Duration;

use super::delivery::{DeliveryKind, DeliveryStatus, Outcome};
use super::endpoint::{EndpointHealth, EndpointStatus};
use super::retry::RetrySchedule;
use super::time::Timestamp;

/// The settings that the decision rests on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeliveryPolicy {
    /// Delays between attempts.
    pub schedule: RetrySchedule,
    /// An endpoint with more consecutive failures than this is paused.
    pub auto_disable_threshold: u32,
    /// It must have been failing for this long too; zero lets the count alone decide.
    pub auto_disable_after: Duration,
}

impl Default for DeliveryPolicy {
    fn default() -> Self {
        Self { schedule: RetrySchedule::default(), auto_disable_threshold: 20, auto_disable_after: Duration::ZERO }
    }
}

impl DeliveryPolicy {
    /// The same for an endpoint that may have a schedule of its own.
    #[must_use]
    pub fn of_endpoint(&self, schedule: Option<&RetrySchedule>) -> Self {
        Self { schedule: schedule.unwrap_or(&self.schedule).clone(), ..*self }
    }
}

/// What an outcome means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The receiver has it.
    Delivered,
    /// Try again, no sooner than the given time from now.
    Failed(Option<Duration>),
    /// 410: the receiver wants no more.
    Gone,
}

/// Reads an outcome: 2xx is success, 410 is final, everything else failed; `Retry-After` counts on 429 and 503.
pub fn classify(outcome: &Outcome) -> Verdict {
    match outcome.http_status {
        Some(200..=299) if outcome.error.is_none() => Verdict::Delivered,
        Some(410) => Verdict::Gone,
        Some(429 | 503) => Verdict::Failed(outcome.retry_after_ms.map(Duration::from_millis)),
        _ => Verdict::Failed(None),
    }
}

/// What is written after an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transition {
    /// The delivery's new status, never pending.
    pub status: DeliveryStatus,
    /// When the next attempt is due, with [`DeliveryStatus::Retrying`] only.
    pub next_retry_at: Option<Timestamp>,
    /// Failures that count towards the schedule now.
    pub failures: u32,
    /// The endpoint afterwards.
    pub health: EndpointHealth,
}

/// Decides what becomes of a delivery with `failures` failed attempts before `outcome`, and of its endpoint.
///
/// `now` is when the outcome is settled; `jitter` is a random number from -1 to 1.
pub fn transition(
    kind: DeliveryKind,
    failures: u32,
    health: EndpointHealth,
    outcome: &Outcome,
    policy: &DeliveryPolicy,
    now: Timestamp,
    jitter: f64,
) -> Transition {
    let verdict = classify(outcome);
    if kind == DeliveryKind::Test {
        let status = if verdict == Verdict::Delivered { DeliveryStatus::Success } else { DeliveryStatus::Failed };
        return Transition { status, next_retry_at: None, failures, health };
    }
    match verdict {
        Verdict::Delivered => Transition {
            status: DeliveryStatus::Success,
            next_retry_at: None,
            failures,
            health: EndpointHealth { consecutive_failures: 0, failing_since: None, ..health },
        },
        Verdict::Gone => {
            let health = after_failure(health, outcome, policy, now);
            let status = match health.status {
                EndpointStatus::Active => EndpointStatus::AutoDisabled,
                paused => paused,
            };
            let health = EndpointHealth { status, ..health };
            Transition {
                status: DeliveryStatus::Failed,
                next_retry_at: None,
                failures: failures.saturating_add(1),
                health,
            }
        }
        Verdict::Failed(retry_after) => {
            let failures = failures.saturating_add(1);
            let next_retry_at = policy.schedule.next(failures, now, jitter, retry_after);
            let status = if next_retry_at.is_some() { DeliveryStatus::Retrying } else { DeliveryStatus::Failed };
            Transition { status, next_retry_at, failures, health: after_failure(health, outcome, policy, now) }
        }
    }
}

/// Counts a failure and pauses an active endpoint that has had too many.
fn after_failure(health: EndpointHealth, outcome: &Outcome, policy: &DeliveryPolicy, now: Timestamp) -> EndpointHealth {
    let consecutive_failures = health.consecutive_failures.saturating_add(1);
    let since = health.failing_since.unwrap_or(outcome.started_at);
    let too_many = consecutive_failures > policy.auto_disable_threshold;
    let too_long = now.since(since) >= policy.auto_disable_after;
    let status = match health.status {
        EndpointStatus::Active if too_many && too_long => EndpointStatus::AutoDisabled,
        status => status,
    };
    EndpointHealth { status, consecutive_failures, failing_since: Some(since) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answered(status: u16) -> Outcome {
        Outcome {
            started_at: Timestamp::from_millis(1_000),
            duration_ms: 5,
            http_status: Some(status),
            body: None,
            error: (!(200..300).contains(&status)).then(|| format!("status {status}")),
            endpoint_version: 1,
            retry_after_ms: None,
        }
    }

    fn unanswered() -> Outcome {
        Outcome { http_status: None, error: Some("timed out".into()), ..answered(200) }
    }

    fn run(failures: u32, health: EndpointHealth, outcome: &Outcome) -> Transition {
        let now = Timestamp::from_millis(2_000);
        transition(DeliveryKind::Event, failures, health, outcome, &DeliveryPolicy::default(), now, 0.0)
    }

    #[test]
    fn only_2xx_is_success() {
        for (status, verdict) in [
            (200, Verdict::Delivered),
            (204, Verdict::Delivered),
            (299, Verdict::Delivered),
            (301, Verdict::Failed(None)),
            (304, Verdict::Failed(None)),
            (400, Verdict::Failed(None)),
            (410, Verdict::Gone),
            (500, Verdict::Failed(None)),
            (100, Verdict::Failed(None)),
        ] {
            assert_eq!(classify(&answered(status)), verdict, "{status}");
        }
        assert_eq!(classify(&unanswered()), Verdict::Failed(None));
    }

    #[test]
    fn retry_after_counts_on_429_and_503_only() {
        for (status, asked) in [(429, true), (503, true), (500, false), (404, false)] {
            let outcome = Outcome { retry_after_ms: Some(7_000), ..answered(status) };
            let expected = asked.then(|| Duration::from_secs(7));
            assert_eq!(classify(&outcome), Verdict::Failed(expected), "{status}");
        }
    }

    #[test]
    fn a_failure_is_retried_step_by_step_and_then_failed() {
        for failures in 0..7 {
            let next = run(failures, EndpointHealth::NEW, &unanswered());
            assert_eq!(next.status, DeliveryStatus::Retrying, "{failures}");
            let delay = DeliveryPolicy::default().schedule.delays()[failures as usize];
            assert_eq!(next.next_retry_at, Some(Timestamp::from_millis(2_000).plus(delay)));
        }
        let last = run(7, EndpointHealth::NEW, &unanswered());
        assert_eq!((last.status, last.next_retry_at), (DeliveryStatus::Failed, None));
    }

    #[test]
    fn an_endpoints_own_schedule_takes_the_place_of_the_servers() {
        let (policy, now) = (DeliveryPolicy::default(), Timestamp::from_millis(2_000));
        let next = |own: Option<&RetrySchedule>, failures| {
            let policy = policy.of_endpoint(own);
            let kind = DeliveryKind::Event;
            transition(kind, failures, EndpointHealth::NEW, &unanswered(), &policy, now, 0.0).next_retry_at
        };
        let own = RetrySchedule::of_endpoint(&[7]).expect("a schedule");
        assert_eq!(next(Some(&own), 0), Some(now.plus(Duration::from_secs(7))));
        assert_eq!(next(Some(&own), 1), None);
        assert_eq!(next(RetrySchedule::of_endpoint(&[]).as_ref(), 0), None);
        assert_eq!(next(None, 1), Some(now.plus(Duration::from_secs(120))));
    }

    #[test]
    fn a_410_stops_the_delivery_and_pauses_the_endpoint() {
        let next = run(0, EndpointHealth::NEW, &answered(410));
        assert_eq!(next.status, DeliveryStatus::Failed);
        assert_eq!(next.health.status, EndpointStatus::AutoDisabled);
    }

    #[test]
    fn past_the_threshold_and_the_time_an_endpoint_is_paused() {
        let health = EndpointHealth { consecutive_failures: 19, ..EndpointHealth::NEW };
        assert_eq!(run(0, health, &unanswered()).health.status, EndpointStatus::Active);
        let health = EndpointHealth { consecutive_failures: 20, ..health };
        assert_eq!(run(0, health, &unanswered()).health.status, EndpointStatus::AutoDisabled);

        let patient = DeliveryPolicy { auto_disable_after: Duration::from_secs(60), ..DeliveryPolicy::default() };
        let health = EndpointHealth { failing_since: Some(Timestamp::from_millis(0)), ..health };
        for (now, status) in [(59_999, EndpointStatus::Active), (60_000, EndpointStatus::AutoDisabled)] {
            let now = Timestamp::from_millis(now);
            let next = transition(DeliveryKind::Event, 0, health, &unanswered(), &patient, now, 0.0);
            assert_eq!(next.health.status, status);
        }
    }

    #[test]
    fn a_test_is_tried_once_and_leaves_the_endpoint_alone() {
        let health = EndpointHealth { consecutive_failures: 20, ..EndpointHealth::NEW };
        for outcome in [answered(200), answered(410), unanswered()] {
            let next = transition(
                DeliveryKind::Test,
                0,
                health,
                &outcome,
                &DeliveryPolicy::default(),
                Timestamp::default(),
                0.0,
            );
            assert_eq!((next.health, next.next_retry_at), (health, None));
            assert!(!next.status.is_open());
        }
    }

    prop_compose! {
        fn any_outcome()(
            status in proptest::option::of(100u16..600),
            broken in any::<bool>(),
            wait in proptest::option::of(any::<u64>()),
        ) -> Outcome {
            Outcome {
                http_status: status,
                error: (broken || status.is_none()).then(|| "broken".to_owned()),
                retry_after_ms: wait,
                ..answered(200)
            }
        }
    }

    proptest! {
        #[test]
        fn a_transition_is_whole(
            outcome in any_outcome(),
            failures in 0u32..20,
            before in 0u32..40,
            paused in any::<bool>(),
            jitter in -1.0f64..1.0,
        ) {
            let status = if paused { EndpointStatus::Disabled } else { EndpointStatus::Active };
            let health = EndpointHealth { status, consecutive_failures: before, failing_since: None };
            let now = Timestamp::from_millis(5_000);
            let policy = DeliveryPolicy::default();
            let next = transition(DeliveryKind::Event, failures, health, &outcome, &policy, now, jitter);
            prop_assert_ne!(next.status, DeliveryStatus::Pending);
            prop_assert_eq!(next.status == DeliveryStatus::Retrying, next.next_retry_at.is_some());
            prop_assert!(next.next_retry_at.is_none_or(|at| at > now));
            let delivered = classify(&outcome) == Verdict::Delivered;
            prop_assert_eq!(delivered, next.status == DeliveryStatus::Success);
            prop_assert_eq!(next.health.consecutive_failures, if delivered { 0 } else { before + 1 });
            prop_assert_eq!(next.health.failing_since.is_some(), !delivered);
            if paused {
                prop_assert_eq!(next.health.status, EndpointStatus::Disabled);
            }
        }
    }
}

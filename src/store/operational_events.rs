//! Operational events before they are written: their data, the same for both stores. Each is written in the transaction
//! that it reports, for the account's endpoints that subscribe, and never for the endpoint that it is about. An account
//! is told of a bounded number of failed deliveries.

use std::time::Duration;

use foldhash::HashMap;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::domain::delivery::Outcome;
use crate::domain::endpoint::EndpointStatus;
use crate::domain::event::Operational;
use crate::domain::id::{AccountKey, DeliveryId, EndpointId, EndpointKey, EventId};
use crate::lock::Mutex;
use crate::log_limit::LogLimit;

/// An operational event before it is written.
pub(super) struct OperationalEvent {
    pub account: AccountKey,
    pub about: EndpointKey,
    pub kind: Operational,
    /// `data`, as JSON text.
    pub data: String,
}

/// An endpoint that something is told of.
pub(super) struct About {
    pub account: AccountKey,
    pub key: EndpointKey,
    pub id: EndpointId,
    pub url: String,
}

/// A delivery that failed for good.
pub(super) struct FailedDelivery<'a> {
    pub id: DeliveryId,
    pub event: EventId,
    pub event_type: &'a str,
    pub attempts: u32,
    pub outcome: &'a Outcome,
    /// Deliveries of the account that failed before it and of which nothing was told ([`FailureLimit`]).
    pub left_out: u64,
}

impl About {
    /// Something about the endpoint, with `more` beside what it is.
    fn event(&self, kind: Operational, more: Value) -> OperationalEvent {
        let mut data = json!({ "endpoint_id": self.id.to_string(), "url": self.url });
        if let (Some(data), Value::Object(more)) = (data.as_object_mut(), more) {
            data.extend(more);
        }
        OperationalEvent { account: self.account, about: self.key, kind, data: data.to_string() }
    }

    /// The owner changed its status, if it did.
    pub fn status(&self, before: EndpointStatus, after: EndpointStatus) -> Option<OperationalEvent> {
        let kind = match after {
            _ if before == after => return None,
            EndpointStatus::Active => Operational::EndpointEnabled,
            EndpointStatus::Disabled => Operational::EndpointDisabled,
            EndpointStatus::AutoDisabled => return None,
        };
        Some(self.event(kind, json!({})))
    }

    /// It failed too often, or asked to be left alone.
    pub fn auto_disabled(&self, failures: u32, outcome: Option<&Outcome>) -> OperationalEvent {
        let more = json!({
            "consecutive_failures": failures,
            "response_status": outcome.and_then(|outcome| outcome.http_status),
            "error_message": outcome.and_then(|outcome| outcome.error.as_deref()),
        });
        self.event(Operational::EndpointAutoDisabled, more)
    }

    /// It has a new secret, which ends in these characters.
    pub fn rotated(&self, hint: &str) -> OperationalEvent {
        self.event(Operational::SecretRotated, json!({ "secret_hint": hint }))
    }

    /// A delivery to it is out of attempts. It is of no operational event: of such a delivery nothing is told.
    pub fn failed(&self, delivery: &FailedDelivery<'_>) -> OperationalEvent {
        debug_assert!(Operational::parse(delivery.event_type).is_none(), "no failure is told of an operational event");
        let mut more = json!({
            "delivery_id": delivery.id.to_string(),
            "event_id": delivery.event.to_string(),
            "event_type": delivery.event_type,
            "attempts": delivery.attempts,
            "response_status": delivery.outcome.http_status,
            "error_message": delivery.outcome.error,
        });
        if delivery.left_out > 0 {
            more["left_out"] = delivery.left_out.into();
        }
        self.event(Operational::DeliveryFailed, more)
    }
}

/// `delivery.failed` of one account in a [`FAILURE_WINDOW`], on PostgreSQL on each node. Each makes a row for every
/// endpoint that subscribes: with 50 endpoints so many come to 10,000 rows, which take SQLite's writer some 50 ms.
const MAX_FAILURES_TOLD: u32 = 200;

/// How long a window is.
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// Accounts that are remembered although none of their windows is open.
const MAX_IDLE_ACCOUNTS: usize = 1_024;

/// The first failure that a window leaves out is logged.
static LEFT_OUT_LOGGED: LogLimit = LogLimit::new();

/// How many failed deliveries each account is told of. What fails is bounded by what was published; without this bound,
/// each failure would be written once more for every endpoint that subscribes to `delivery.failed`.
#[derive(Default)]
pub(super) struct FailureLimit(Mutex<HashMap<AccountKey, FailureWindow>>);

/// What one account was told.
struct FailureWindow {
    began: Instant,
    told: u32,
    /// Failures that nothing was told of, and that the next `delivery.failed` counts.
    left_out: u64,
}

impl FailureWindow {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= FAILURE_WINDOW
    }
}

impl FailureLimit {
    /// Whether the account is told of one more failed delivery. With it, of how many it was not told since the last one
    /// it was told of. A write that is rolled back and tried again counts twice.
    pub fn admit(&self, account: AccountKey) -> Option<u64> {
        let now = Instant::now();
        let mut accounts = self.0.lock();
        if accounts.len() > MAX_IDLE_ACCOUNTS && !accounts.contains_key(&account) {
            accounts.retain(|_, window| window.left_out > 0 || !window.is_over(now));
        }
        let window = accounts.entry(account).or_insert(FailureWindow { began: now, told: 0, left_out: 0 });
        if window.is_over(now) {
            (window.began, window.told) = (now, 0);
        }
        if window.told < MAX_FAILURES_TOLD {
            window.told += 1;
            return Some(std::mem::take(&mut window.left_out));
        }
        window.left_out += 1;
        if window.left_out == 1
            && let Some(suppressed) = LEFT_OUT_LOGGED.admit()
        {
            tracing::warn!(
                account = account.0,
                suppressed,
                "so many deliveries of an account fail that it is not told of each: the next delivery.failed counts \
                 the others"
            );
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;

    #[tokio::test(start_paused = true)]
    async fn failures_beyond_the_limit_are_counted_and_told_in_the_next_window() {
        let (limit, one, other) = (FailureLimit::default(), AccountKey(1), AccountKey(2));
        for _ in 0..MAX_FAILURES_TOLD {
            assert_eq!(limit.admit(one), Some(0));
        }
        for _ in 0..3 {
            assert_eq!(limit.admit(one), None);
        }
        assert_eq!(limit.admit(other), Some(0), "another account has a window of its own");
        tokio::time::advance(FAILURE_WINDOW).await;
        assert_eq!([limit.admit(one), limit.admit(one)], [Some(3), Some(0)]);
    }

    #[test]
    fn a_failure_tells_how_many_were_left_out_if_any_were() {
        let about = About {
            account: AccountKey(1),
            key: EndpointKey(1),
            id: EndpointId::from_random([1; 16]),
            url: "u".into(),
        };
        let outcome = Outcome {
            started_at: Timestamp::default(),
            duration_ms: 1,
            http_status: Some(500),
            body: None,
            error: None,
            endpoint_version: 0,
            retry_after_ms: None,
        };
        let told = |left_out| {
            let (id, event) = (DeliveryId(2), EventId(1));
            let failed = FailedDelivery { id, event, event_type: "a.b", attempts: 1, outcome: &outcome, left_out };
            let data: Value = serde_json::from_str(&about.failed(&failed).data).expect("JSON");
            data["left_out"].clone()
        };
        assert_eq!((told(0), told(7)), (Value::Null, json!(7)));
    }
}

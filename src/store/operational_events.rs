//! Operational events before they are written: their data, the same for both stores. Each is written in the transaction
//! that it reports, for the account's endpoints that subscribe, and never for the endpoint that it is about.

use serde_json::{Value, json};

use crate::domain::delivery::Outcome;
use crate::domain::endpoint::EndpointStatus;
use crate::domain::event::Operational;
use crate::domain::id::{AccountKey, DeliveryId, EndpointId, EndpointKey, EventId};

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

    /// A delivery to it is out of attempts. Of one that itself told of such things, nothing is told.
    pub fn failed(&self, delivery: &FailedDelivery<'_>) -> Option<OperationalEvent> {
        if Operational::parse(delivery.event_type).is_some() {
            return None;
        }
        let more = json!({
            "delivery_id": delivery.id.to_string(),
            "event_id": delivery.event.to_string(),
            "event_type": delivery.event_type,
            "attempts": delivery.attempts,
            "response_status": delivery.outcome.http_status,
            "error_message": delivery.outcome.error,
        });
        Some(self.event(Operational::DeliveryFailed, more))
    }
}

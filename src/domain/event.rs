//! Events and their types, the operational event types, and the message: the one body that every attempt of every
//! delivery sends.

use bytes::Bytes;
use uuid::Uuid;

use super::channels::Channels;
use super::id::{AccountId, AccountKey, EventId, parse_hyphenated};
use super::time::Timestamp;
use super::trace_context::TraceContext;

/// Longest name of an event type, in characters.
pub const MAX_TYPE_CHARS: usize = 128;

/// The type of a test send. No catalog can hold it.
pub const TEST_TYPE: &str = "test";

/// Types that a new catalog starts with, and what they mean.
pub const INITIAL_TYPES: &[(&str, &str)] = &[
    ("validation.completed", "A validation has ended with a result."),
    ("validation.failed", "A validation has ended without passing."),
    ("validation.error", "A validation could not be carried out."),
    ("validation.retry.scheduled", "A validation will be tried again."),
    ("validation.retry.resolved", "A retried validation has ended with a result."),
    ("validation.retry.exhausted", "A validation will not be tried again."),
    ("validation.returned", "A validation was sent back."),
    ("billing.payment_succeeded", "A payment was collected."),
    ("billing.payment_failed", "A payment could not be collected."),
    ("billing.trial_will_end", "A trial is about to end."),
    ("billing.subscription_canceled", "A subscription was canceled."),
    ("billing.invoice_upcoming", "An invoice is about to be issued."),
];

macro_rules! operational {
    ($($variant:ident = $name:literal),* $(,)?) => {
        /// What the server itself tells of an account's endpoints. Such types are in no catalog: they can be subscribed
        /// to, and nobody publishes them.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Operational {
            $(#[doc = concat!("`", $name, "`")] $variant),*
        }

        impl Operational {
            /// Every one.
            pub const ALL: &'static [Operational] = &[$(Operational::$variant),*];

            /// The type's name.
            pub fn name(self) -> &'static str {
                match self { $(Operational::$variant => $name),* }
            }
        }
    };
}

operational! {
    EndpointAutoDisabled = "endpoint.auto_disabled",
    EndpointDisabled = "endpoint.disabled",
    EndpointEnabled = "endpoint.enabled",
    DeliveryFailed = "delivery.failed",
    SecretRotated = "secret.rotated",
}

impl Operational {
    /// Reads a type's name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// Whether `name` can name an event type: `^[a-z0-9_]+(\.[a-z0-9_]+)*$`, up to [`MAX_TYPE_CHARS`].
pub fn is_type_name(name: &str) -> bool {
    name.len() <= MAX_TYPE_CHARS
        && name
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_')))
}

/// An entry of the catalog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventType {
    /// Its name, which identifies it.
    pub name: String,
    /// What it means, for people.
    pub description: Option<String>,
    /// A JSON Schema (as JSON text) that `data` must match.
    pub schema: Option<String>,
    /// An example of `data` (as JSON text).
    pub example: Option<String>,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// An event about to be accepted.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Whose event it is.
    pub account: AccountId,
    /// Its type, which is in the catalog.
    pub event_type: String,
    /// When it happened, by the publisher.
    pub occurred_at: Timestamp,
    /// `data.id`, for events about a validation.
    pub validation_id: Option<Uuid>,
    /// The channels that it carries.
    pub channels: Option<Channels>,
    /// The trace that it was published in.
    pub trace: Option<TraceContext>,
    /// The body of every delivery request.
    pub body: Bytes,
}

/// An accepted event, without its body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Its id. Later events have greater ones.
    pub id: EventId,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Whose event it is.
    pub account: (AccountId, AccountKey),
    /// Its type.
    pub event_type: String,
    /// When it happened, by the publisher.
    pub occurred_at: Timestamp,
    /// The channels that it carries.
    pub channels: Option<Channels>,
    /// How many deliveries it fanned out to.
    pub deliveries: u32,
}

/// What stands in a message between its time and its data.
const BEFORE_DATA: &str = "\",\"data\":";

/// What follows the data in a message.
const AFTER_DATA: &str = ",\"meta\":{\"datetime\":{\"timezone\":\"UTC\",\"format\":\"ISO 8601\"}}}";

/// The body of the delivery request. `data` is JSON text and goes in as it came.
pub fn message(event_type: &str, occurred_at: Timestamp, data: &str) -> Bytes {
    // An event type needs no JSON escape: see `is_type_name`.
    let time = occurred_at.to_string();
    ["{\"event\":\"", event_type, "\",\"timestamp\":\"", &time, BEFORE_DATA, data, AFTER_DATA].concat().into()
}

/// The data of a message, as it came. `None` for what [`message`] has not made.
pub fn data_of(message: &[u8]) -> Option<&str> {
    // Neither a type nor a time has a quotation mark in it.
    let (_, rest) = std::str::from_utf8(message).ok()?.split_once(BEFORE_DATA)?;
    rest.strip_suffix(AFTER_DATA)
}

/// The id of the validation that an event is about: `data.id` when it is a UUID and the type begins with `validation.`.
pub fn validation_id(event_type: &str, data_id: Option<&str>) -> Option<Uuid> {
    if !event_type.starts_with("validation.") {
        return None;
    }
    data_id.and_then(parse_hyphenated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_names_are_dotted_lowercase_words() {
        for (name, _) in INITIAL_TYPES {
            assert!(is_type_name(name), "{name}");
        }
        for name in ["", ".", "a.", ".a", "a..b", "A", "a-b", "a b", "é", "a\n", &"a".repeat(129)] {
            assert!(!is_type_name(name), "{name:?}");
        }
    }

    #[test]
    fn the_message_is_valid_json_around_the_data_as_it_came() {
        let body = message("a.b", Timestamp::default(), r#"{"n": 1.0}"#);
        let text = std::str::from_utf8(&body).expect("text");
        assert_eq!(
            text,
            concat!(
                r#"{"event":"a.b","timestamp":"1970-01-01T00:00:00Z","data":{"n": 1.0},"#,
                r#""meta":{"datetime":{"timezone":"UTC","format":"ISO 8601"}}}"#
            )
        );
    }

    #[test]
    fn the_data_of_a_message_is_found_again_whatever_it_says() {
        for data in ["{}", r#"{"n": 1.0}"#, r#"{"a":"\",\"data\":","meta":{"data":{}}}"#, r#"{"é":[{"data":1}]}"#] {
            let body = message("a.b", Timestamp::default(), data);
            assert_eq!(data_of(&body), Some(data));
        }
        for other in ["", "{}", r#"{"event":"a","data":{}}"#, r#"{"event":"a","timestamp":"b","data":{}}"#] {
            assert_eq!(data_of(other.as_bytes()), None, "{other}");
        }
        assert_eq!(data_of(b"\xff"), None);
    }
}

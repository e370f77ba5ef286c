//! Deliveries: status and kind, the job of an attempt, the `Outcome` of an attempt, and a delivery as its owner sees
//! it. `transition` decides what follows from an outcome.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::id::{DeliveryId, EndpointId, EndpointKey, EventId};
use super::time::Timestamp;
use super::trace_context::TraceContext;

/// Characters of an answer's body that are kept.
pub const KEPT_BODY_CHARS: usize = 500;

/// Attempts of one delivery that are shown.
pub const SHOWN_ATTEMPTS: usize = 1_000;

/// Where a delivery stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeliveryStatus {
    /// Not tried yet.
    Pending,
    /// A receiver answered 2xx.
    Success,
    /// The last attempt failed and another is scheduled.
    Retrying,
    /// No further attempt.
    Failed,
}

impl DeliveryStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Retrying, Self::Success, Self::Failed];

    /// From the name outside.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// The name outside.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Success => "success",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
        }
    }

    /// Whether an attempt is still to come.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Retrying)
    }

    /// The number in a database column.
    pub fn to_column(self) -> i64 {
        match self {
            Self::Pending => 0,
            Self::Retrying => 1,
            Self::Success => 2,
            Self::Failed => 3,
        }
    }

    /// From a database column.
    pub fn from_column(column: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.to_column() == column)
    }
}

/// Why a delivery exists, which decides what its outcome touches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeliveryKind {
    /// An event was published.
    Event,
    /// Somebody pressed "test": tried once, and the endpoint's failures are not counted.
    Test,
    /// A replay sends an event of the past again: what is new goes first. Its row in this database.
    Replay(i64),
}

/// A leased delivery: what an attempt needs, apart from the endpoint's current row.
#[derive(Clone, Debug)]
pub struct Job {
    /// The delivery.
    pub id: DeliveryId,
    /// Where it goes.
    pub endpoint: EndpointKey,
    /// Under which lease it is in memory: what comes of it is written only while that holds.
    pub lease: i64,
    /// Why it exists.
    pub kind: DeliveryKind,
    /// The type of its event.
    pub event_type: Arc<str>,
    /// Attempts made before this one.
    pub attempts_made: u32,
    /// Failures that count towards the schedule.
    pub failures: u32,
    /// The trace of its event.
    pub trace: Option<TraceContext>,
    /// The bytes to send.
    pub body: Bytes,
}

impl Job {
    /// The first attempt of a delivery whose event has no trace.
    pub fn new(
        (id, endpoint): (DeliveryId, EndpointKey),
        lease: i64,
        kind: DeliveryKind,
        event_type: impl Into<Arc<str>>,
        body: Bytes,
    ) -> Self {
        let event_type = event_type.into();
        Self { id, endpoint, lease, kind, event_type, attempts_made: 0, failures: 0, trace: None, body }
    }
}

/// What one attempt came to. A failure is a value like any other.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// When the attempt began.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u32,
    /// The answer's status; `None` when there was no whole answer.
    pub http_status: Option<u16>,
    /// The first [`KEPT_BODY_CHARS`] characters of the answer.
    pub body: Option<String>,
    /// What went wrong, in words that a person can act on.
    pub error: Option<String>,
    /// The version of the endpoint's row that the attempt went by.
    pub endpoint_version: i64,
    /// What the answer's `Retry-After` asked for, in milliseconds from the end of the attempt.
    pub retry_after_ms: Option<u64>,
}

/// A delivery as its owner sees it: one row, showing the latest attempt.
#[derive(Clone, PartialEq, Debug)]
pub struct Delivery {
    /// Its id, the same over all attempts.
    pub id: DeliveryId,
    /// When it was made.
    pub created_at: Timestamp,
    /// Where it goes.
    pub endpoint: EndpointId,
    /// The endpoint's URL now.
    pub endpoint_url: String,
    /// The type of its event.
    pub event_type: String,
    /// The validation that its event is about.
    pub validation_id: Option<Uuid>,
    /// Where it stands.
    pub status: DeliveryStatus,
    /// The number of the latest attempt; 1 while pending.
    pub attempt: u32,
    /// When the next attempt is due.
    pub next_retry_at: Option<Timestamp>,
    /// The latest answer's status.
    pub response_status: Option<u16>,
    /// The first [`KEPT_BODY_CHARS`] characters of the latest answer.
    pub response_body: Option<String>,
    /// How long the latest attempt took, in milliseconds.
    pub response_time_ms: Option<u32>,
    /// What went wrong in the latest attempt.
    pub error_message: Option<String>,
}

/// One try of a delivery, as its owner sees it.
#[derive(Clone, PartialEq, Debug)]
pub struct Attempt {
    /// 1 is the first.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// The answer's status.
    pub response_status: Option<u16>,
    /// How long it took, in milliseconds.
    pub response_time_ms: u32,
    /// The first [`KEPT_BODY_CHARS`] characters of the answer.
    pub response_body: Option<String>,
    /// What went wrong.
    pub error_message: Option<String>,
}

/// A delivery with all that is known of it.
#[derive(Clone, PartialEq, Debug)]
pub struct DeliveryDetail {
    /// The delivery.
    pub delivery: Delivery,
    /// Its event.
    pub event: EventId,
    /// The bytes that every attempt sends; `None` when they are no longer kept.
    pub body: Option<Bytes>,
    /// Its attempts, the first one first; the newest [`SHOWN_ATTEMPTS`].
    pub attempts: Vec<Attempt>,
}

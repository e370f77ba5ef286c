//! Webhook endpoints: a receiver's URL, what it subscribes to, and how it is doing.

use super::id::{AccountKey, EndpointId, EndpointKey};
use super::settings::EndpointSettings;
use super::time::Timestamp;

/// Most event types that an endpoint can subscribe to, counted as sent.
pub const MAX_EVENTS: usize = 10;

/// Longest description, in characters.
pub const MAX_DESCRIPTION_CHARS: usize = 255;

/// Whether an endpoint receives deliveries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EndpointStatus {
    /// It does.
    #[default]
    Active,
    /// Its owner paused it.
    Disabled,
    /// The platform paused it: too many failures, or a 410.
    AutoDisabled,
}

impl EndpointStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Active, Self::Disabled, Self::AutoDisabled];

    /// The name outside.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::AutoDisabled => "auto_disabled",
        }
    }

    /// What an owner may set it to.
    pub fn parse_settable(name: &str) -> Option<Self> {
        match name {
            "active" => Some(Self::Active),
            "disabled" => Some(Self::Disabled),
            _ => None,
        }
    }

    /// The number in a database column.
    pub fn to_column(self) -> i64 {
        match self {
            Self::Active => 0,
            Self::Disabled => 1,
            Self::AutoDisabled => 2,
        }
    }

    /// From a database column.
    pub fn from_column(column: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.to_column() == column)
    }
}

/// How an endpoint has been doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndpointHealth {
    /// Whether it receives deliveries.
    pub status: EndpointStatus,
    /// Failed attempts since the last success.
    pub consecutive_failures: u32,
    /// When the first of them was; `None` when there is none.
    pub failing_since: Option<Timestamp>,
}

impl EndpointHealth {
    /// An active endpoint with a clean record.
    pub const NEW: Self = Self { status: EndpointStatus::Active, consecutive_failures: 0, failing_since: None };
}

/// An endpoint as its owner sees it, without its secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The id outside.
    pub id: EndpointId,
    /// The row inside.
    pub key: EndpointKey,
    /// Its owner's row.
    pub account: AccountKey,
    /// What its owner has set.
    pub settings: EndpointSettings,
    /// How it is doing.
    pub health: EndpointHealth,
    /// When the last attempt began, whatever came of it.
    pub last_delivery_at: Option<Timestamp>,
    /// `...` and the last 4 characters of the secret.
    pub secret_hint: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its owner or the platform last changed it.
    pub updated_at: Timestamp,
}

/// In which order an endpoint gets its deliveries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ordering {
    /// In any: none waits for another.
    #[default]
    None,
    /// In that of their acceptance, one at a time: while one is being retried the others wait.
    Fifo,
}

impl Ordering {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::None, Self::Fifo];

    /// The name, as the API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Fifo => "fifo",
        }
    }

    /// Reads a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ordering| ordering.name() == name)
    }

    /// As a database column.
    pub fn to_column(self) -> i64 {
        i64::from(self == Self::Fifo)
    }

    /// From a database column.
    pub fn from_column(column: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|ordering| ordering.to_column() == column)
    }
}

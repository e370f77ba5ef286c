//! What a description of a call consists of: its texts, the body that it takes and what it answers.

use crate::api::error::Code;
use crate::api::fields::BodySchema;

/// What the reference says of a call.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// The `operationId`; with hyphens the name of its page.
    pub id: &'static str,
    /// The resource that it belongs to.
    pub tag: Tag,
    /// A short title.
    pub title: &'static str,
    /// What it does, in Markdown.
    pub about: &'static str,
    /// The body that it takes.
    pub body: Body,
    /// The status of its success.
    pub status: u16,
    /// What it answers.
    pub answer: Shape,
    /// The filters that it takes, and what each is.
    pub filters: &'static [(&'static str, &'static str)],
    /// Codes beside those that follow from the route and from the fields of the body.
    pub errors: &'static [Code],
    /// The guide that shows how to use it.
    pub guide: Option<&'static str>,
    /// Calls that belong together with it.
    pub related: &'static [&'static str],
}

impl Description {
    /// What most calls have in common.
    pub const BLANK: Self = Self {
        id: "",
        tag: Tag::Webhooks,
        title: "",
        about: "",
        body: Body::None,
        status: 200,
        answer: Shape::Nothing(""),
        filters: &[],
        errors: &[],
        guide: None,
        related: &[],
    };
}

/// The resource that a call belongs to, in the order of the reference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tag {
    /// Endpoints.
    Webhooks,
    /// Deliveries.
    Deliveries,
    /// Events.
    Events,
    /// The catalog.
    EventTypes,
    /// Accounts.
    Accounts,
    /// Keys.
    ApiKeys,
    /// People.
    Users,
    /// Links into an account's pages.
    PortalLinks,
    /// The audit log.
    AuditLog,
}

impl Tag {
    pub(super) const ALL: [Self; 9] = [
        Self::Webhooks,
        Self::Deliveries,
        Self::Events,
        Self::EventTypes,
        Self::Accounts,
        Self::ApiKeys,
        Self::Users,
        Self::PortalLinks,
        Self::AuditLog,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Webhooks => "Webhooks",
            Self::Deliveries => "Deliveries",
            Self::Events => "Events",
            Self::EventTypes => "Event types",
            Self::Accounts => "Accounts",
            Self::ApiKeys => "API keys",
            Self::Users => "Users",
            Self::PortalLinks => "Portal links",
            Self::AuditLog => "Audit log",
        }
    }

    pub(super) fn about(self) -> &'static str {
        match self {
            Self::Webhooks => "Receivers: where events go, which of them, and the secret that signs them.",
            Self::Deliveries => "What became of each event on its way to each endpoint, and sending it again.",
            Self::Events => "What happened: publish it, and look back.",
            Self::EventTypes => "The catalog of what can happen, which the operator owns.",
            Self::Accounts => "The owners of endpoints, events and keys.",
            Self::ApiKeys => "What programs sign in with.",
            Self::Users => "The people who sign in to an account's dashboard.",
            Self::PortalLinks => {
                "A short-lived way into an account's pages, to hand to a customer or to show in a frame."
            }
            Self::AuditLog => "Who changed what, when, and from where.",
        }
    }
}

/// The body that a call takes: its fields, and an example as JSON text; of an optional one, what the example with the
/// body shows comes third.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// A call without one.
    None,
    /// JSON.
    Json(fn() -> BodySchema, &'static str),
    /// JSON, or nothing. The first example of the call is without it.
    Optional(fn() -> BodySchema, &'static str, &'static str),
    /// JSON or NDJSON, as large as a batch.
    Batch(fn() -> BodySchema, &'static str),
    /// None is needed; a JSON object is taken and ignored.
    Ignored,
}

impl Body {
    /// Its fields, where it has some.
    pub(super) fn schema(self) -> Option<BodySchema> {
        match self {
            Self::Json(schema, _) | Self::Optional(schema, ..) | Self::Batch(schema, _) => Some(schema()),
            Self::None | Self::Ignored => None,
        }
    }
}

/// What a success carries, and what it means.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// No body.
    Nothing(&'static str),
    /// One resource.
    One(Kind, &'static str),
    /// A list of all.
    List(Kind, &'static str),
    /// A page of a list.
    Page(Kind, &'static str),
    /// A list as a file.
    File(&'static str),
}

/// A resource of the answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `webhook_endpoint`
    WebhookEndpoint,
    /// `webhook_test_result`
    WebhookTestResult,
    /// `webhook_delivery`
    WebhookDelivery,
    /// `webhook_delivery`, with its body and its attempts
    WebhookDeliveryDetail,
    /// `webhook_replay`
    WebhookReplay,
    /// `webhook_missed`
    WebhookMissed,
    /// `event`
    Event,
    /// `event`, with its deliveries beside it
    EventWithDeliveries,
    /// `event_type`
    EventType,
    /// `account`
    Account,
    /// `api_key`
    ApiKey,
    /// `audit_entry`
    AuditEntry,
    /// `user`
    User,
    /// `portal_link`
    PortalLink,
    /// `webhook_statistics`
    WebhookStatistics,
    /// `webhook_filter_preview`
    WebhookFilterPreview,
}

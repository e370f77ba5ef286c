//! The audit log: who did what to which resource, when, and from where. Nothing in it is secret.

use std::net::IpAddr;

use super::account::ApiKey;
use super::filter::{Parameter, list, optional, read, set};
use super::id::{AccountId, ApiKeyId, AuditId, PortalLinkId, UserId};
use super::time::Timestamp;
use super::user::User;

/// Values that one filter can name.
const MAX_VALUES: usize = 100;

/// Characters of an id that a filter names.
const MAX_ID_CHARS: usize = 255;

macro_rules! actions {
    ($($variant:ident = $name:literal on $resource:literal),* $(,)?) => {
        /// What was done.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Action {
            $(#[doc = concat!("`", $name, "`")] $variant),*
        }

        impl Action {
            /// Every action, in the order of the reference.
            pub const ALL: &'static [Action] = &[$(Action::$variant),*];

            /// The name, as the API writes it.
            pub fn name(self) -> &'static str {
                match self { $(Action::$variant => $name),* }
            }

            /// The type of the resource that it was done to.
            pub fn resource(self) -> &'static str {
                match self { $(Action::$variant => $resource),* }
            }
        }
    };
}

actions! {
    WebhookCreated = "webhook.created" on "webhook_endpoint",
    WebhookUpdated = "webhook.updated" on "webhook_endpoint",
    WebhookDeleted = "webhook.deleted" on "webhook_endpoint",
    SecretRegenerated = "webhook.secret_regenerated" on "webhook_endpoint",
    DeliveryRetried = "delivery.retried" on "webhook_delivery",
    ReplayCreated = "replay.created" on "webhook_replay",
    ReplayCancelled = "replay.cancelled" on "webhook_replay",
    EventTypeCreated = "event_type.created" on "event_type",
    EventTypeUpdated = "event_type.updated" on "event_type",
    EventTypeDeleted = "event_type.deleted" on "event_type",
    AccountCreated = "account.created" on "account",
    AccountUpdated = "account.updated" on "account",
    AccountDeleted = "account.deleted" on "account",
    ApiKeyCreated = "api_key.created" on "api_key",
    ApiKeyRevoked = "api_key.revoked" on "api_key",
    UserInvited = "user.invited" on "user",
    UserJoined = "user.joined" on "user",
    UserUpdated = "user.updated" on "user",
    UserFactorReset = "user.two_factor_reset" on "user",
    UserDeleted = "user.deleted" on "user",
    UserSignedIn = "user.signed_in" on "user",
    UserSignInFailed = "user.sign_in_failed" on "user",
    UserSignedOut = "user.signed_out_everywhere" on "user",
    PortalLinkCreated = "portal_link.created" on "portal_link",
    PortalLinkOpened = "portal_link.opened" on "portal_link",
    PortalLinkRevoked = "portal_link.revoked" on "portal_link",
    SecretsRekeyed = "secrets.rekeyed" on "master_key",
    DeliveriesHeld = "deliveries.held" on "server",
    DeliveriesResumed = "deliveries.resumed" on "server",
}

impl Action {
    /// Reads a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.name() == name)
    }
}

/// Who does something.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Actor {
    /// A program of the account, by its key: the key's id, and its name or hint as it was then.
    ApiKey(ApiKeyId, String),
    /// A program of the operator, likewise.
    OperatorKey(ApiKeyId, String),
    /// A person of the account, by their address.
    User(UserId, String),
    /// A person of the operator, likewise.
    OperatorUser(UserId, String),
    /// Somebody who came by a portal link.
    PortalLink(PortalLinkId),
    /// Somebody at the machine, by the name of their user there.
    CommandLine(String),
    /// Somebody who tries to sign in. Who it is nobody knows: it may be the user, or somebody who guesses.
    Anonymous,
    /// The server itself.
    #[default]
    System,
}

impl Actor {
    /// Who has this key.
    pub fn of_key(key: &ApiKey) -> Self {
        let name = key.name.clone().unwrap_or_else(|| key.hint.clone());
        if key.account.is_some() { Self::ApiKey(key.id, name) } else { Self::OperatorKey(key.id, name) }
    }

    /// Who this user is.
    pub fn of_user(user: &User) -> Self {
        let email = user.email.to_string();
        if user.account.is_some() { Self::User(user.id, email) } else { Self::OperatorUser(user.id, email) }
    }

    /// `api_key`, `operator_key`, `user`, `operator_user`, `portal_link`, `command_line`, `anonymous` or `system`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ApiKey(..) => "api_key",
            Self::OperatorKey(..) => "operator_key",
            Self::User(..) => "user",
            Self::OperatorUser(..) => "operator_user",
            Self::PortalLink(_) => "portal_link",
            Self::CommandLine(_) => "command_line",
            Self::Anonymous => "anonymous",
            Self::System => "system",
        }
    }

    /// The id of what acts, where it has one.
    pub fn id(&self) -> Option<String> {
        match self {
            Self::ApiKey(id, _) | Self::OperatorKey(id, _) => Some(id.to_string()),
            Self::User(id, _) | Self::OperatorUser(id, _) => Some(id.to_string()),
            Self::PortalLink(id) => Some(id.to_string()),
            Self::CommandLine(_) | Self::Anonymous | Self::System => None,
        }
    }

    /// A name for people.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::ApiKey(_, name) | Self::OperatorKey(_, name) | Self::CommandLine(name) => Some(name),
            Self::User(_, email) | Self::OperatorUser(_, email) => Some(email),
            Self::PortalLink(_) | Self::Anonymous | Self::System => None,
        }
    }
}

/// Where a change comes from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    /// Who makes it.
    pub actor: Actor,
    /// The address that the request came from.
    pub address: Option<IpAddr>,
    /// The request's id.
    pub request: Option<String>,
}

/// An entry of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditEntry {
    /// The id outside.
    pub id: AuditId,
    /// The account that it concerns; `None` for what is the operator's.
    pub account: Option<AccountId>,
    /// What was done: an [`Action`], or what a newer server calls one.
    pub action: String,
    /// The type, id and name of who did it.
    pub actor: (String, Option<String>, Option<String>),
    /// The type, and the id or the name, of what it was done to.
    pub resource: (String, String),
    /// The fields that were changed.
    pub fields: Vec<String>,
    /// The address that the request came from.
    pub address: Option<String>,
    /// The request's id.
    pub request: Option<String>,
    /// When it was committed.
    pub created_at: Timestamp,
}

impl AuditEntry {
    /// As an account sees it: who of the operator's people it was, and where they were, is not its business.
    #[must_use]
    pub fn for_account(self) -> Self {
        if matches!(self.actor.0.as_str(), "api_key" | "user" | "portal_link" | "anonymous") {
            return self;
        }
        Self { actor: (self.actor.0, None, None), address: None, ..self }
    }
}

/// Which entries are looked for. What is empty does not count; all that is not must hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AuditFilter {
    /// One of these actions.
    pub actions: Vec<Action>,
    /// By one of these.
    pub actors: Vec<String>,
    /// To a resource of one of these types.
    pub resource_types: Vec<&'static str>,
    /// To one of these resources.
    pub resources: Vec<String>,
    /// Concerning this account: an operator may name one.
    pub account: Option<AccountId>,
    /// At this time or later.
    pub from: Option<Timestamp>,
    /// Before the end of this second.
    pub to: Option<Timestamp>,
}

impl AuditFilter {
    /// Every parameter that is a filter, with the field that it fills.
    const PARAMETERS: [Parameter<Self>; 7] = [
        ("action", |filter, values| set(&mut filter.actions, list(values, MAX_VALUES, Action::parse))),
        ("actor_id", |filter, values| set(&mut filter.actors, list(values, MAX_VALUES, id))),
        ("resource_type", |filter, values| set(&mut filter.resource_types, list(values, MAX_VALUES, resource_type))),
        ("resource_id", |filter, values| set(&mut filter.resources, list(values, MAX_VALUES, id))),
        ("account_id", |filter, values| set(&mut filter.account, optional(values, AccountId::parse))),
        ("from", |filter, values| set(&mut filter.from, optional(values, Timestamp::parse_start))),
        ("to", |filter, values| set(&mut filter.to, optional(values, Timestamp::parse_end))),
    ];

    /// Reads the parameters of a request; where values cannot be read, the names of their parameters.
    pub fn read(parameters: &[(String, String)]) -> Result<Self, Vec<&'static str>> {
        read(&Self::PARAMETERS, parameters)
    }

    /// The account whose entries somebody sees, who may be an operator: `Some(None)` are all of them, `None` are none.
    pub fn seen_by(&self, owner: Option<AccountId>) -> Option<Option<AccountId>> {
        match owner {
            Some(owner) if self.account.is_some_and(|named| named != owner) => None,
            owner => Some(owner.or(self.account)),
        }
    }
}

fn id(text: &str) -> Option<String> {
    (text.chars().count() <= MAX_ID_CHARS && !text.contains('\0')).then(|| text.to_owned())
}

fn resource_type(text: &str) -> Option<&'static str> {
    Action::ALL.iter().map(|action| action.resource()).find(|kind| *kind == text)
}

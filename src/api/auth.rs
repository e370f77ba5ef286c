//! The authenticated caller: by the key in `Authorization`, which is looked up by its hash, or by a session of the
//! dashboard.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use foldhash::HashMap;
use uuid::Uuid;

use super::error::{ApiError, Code};
use crate::domain::account::{ApiKey, KeyHash};
use crate::domain::audit::Actor;
use crate::domain::id::{AccountId, ApiKeyId, UserId};
use crate::domain::permission::{Permission, Permissions};
use crate::domain::time::Timestamp;
use crate::domain::user::{PortalLink, User};
use crate::lock::Mutex;
use crate::store::View;

/// Longest key that is hashed.
const MAX_KEY_LEN: usize = 256;

/// What a caller came with, by which they are looked up again.
#[derive(Clone)]
pub(super) enum Credential {
    /// An API key.
    Key(KeyHash, Arc<ApiKey>),
    /// The token of a session.
    Session(KeyHash),
    /// The token of a portal link.
    PortalLink(KeyHash),
}

/// The authenticated caller.
#[derive(Clone)]
pub struct Caller {
    account: Option<AccountId>,
    /// What they may do.
    pub permissions: Permissions,
    /// Who they are to the audit log.
    pub actor: Actor,
    /// What rate limits count their calls by.
    pub counted_as: Uuid,
    /// The account whose keys, users and portal links share limits with them. An operator who looks at an account takes
    /// none of its calls.
    pub counted_with: Option<Uuid>,
    credential: Credential,
    /// Whether a person has given password and second factor for this very call: their session may have been stolen.
    confirmed: bool,
}

impl Caller {
    fn of_key(hash: KeyHash, key: Arc<ApiKey>) -> Self {
        Self {
            account: key.account.map(|(id, _)| id),
            permissions: key.permissions,
            actor: Actor::of_key(&key),
            counted_as: key.id.0,
            counted_with: key.account.map(|(id, _)| id.0),
            credential: Credential::Key(hash, key),
            confirmed: false,
        }
    }

    /// A user who has signed in, by this session, in their own account; an operator in the account that they look at,
    /// or in none.
    pub(super) fn of_user(user: &User, session: KeyHash, looks_at: Option<AccountId>) -> Self {
        Self {
            account: user.account.map(|(id, _)| id).or(looks_at),
            permissions: user.role.permissions(),
            actor: Actor::of_user(user),
            counted_as: user.id.0,
            counted_with: user.account.map(|(id, _)| id.0),
            credential: Credential::Session(session),
            confirmed: false,
        }
    }

    /// The holder of a portal link.
    pub(super) fn of_portal(link: &PortalLink, token: KeyHash) -> Self {
        Self {
            account: Some(link.account),
            permissions: link.permissions,
            actor: Actor::PortalLink(link.id),
            counted_as: link.id.0,
            counted_with: Some(link.account.0),
            credential: Credential::PortalLink(token),
            confirmed: false,
        }
    }

    /// The account that they act for; an operator acts for none.
    pub fn account(&self) -> Option<AccountId> {
        self.account
    }

    /// The same, after they have given password and second factor for what they do now.
    #[must_use]
    pub fn confirmed(self) -> Self {
        Self { confirmed: true, ..self }
    }

    /// Whether the caller may take away what a user signs in with, and let others in. A key may. A person may after
    /// giving password and second factor.
    pub(super) fn is_proved(&self) -> bool {
        match &self.actor {
            Actor::User(..) | Actor::OperatorUser(..) => self.confirmed,
            Actor::PortalLink(_) | Actor::Anonymous => false,
            Actor::ApiKey(..) | Actor::OperatorKey(..) | Actor::CommandLine(_) | Actor::System => true,
        }
    }

    /// Whether the caller may make a link that sets a new password for this user, who has joined. Nobody may for
    /// themselves.
    pub(super) fn may_replace_password_of(&self, user: UserId) -> bool {
        let is_own = matches!(&self.actor, Actor::User(id, _) | Actor::OperatorUser(id, _) if *id == user);
        self.is_proved() && !is_own
    }

    /// What they came with.
    pub(super) fn credential(&self) -> &Credential {
        &self.credential
    }

    /// When the key that they came with expires, if it does.
    pub fn key_expires_at(&self) -> Option<Timestamp> {
        match &self.credential {
            Credential::Key(_, key) => key.expires_at,
            Credential::Session(_) | Credential::PortalLink(_) => None,
        }
    }

    /// Whether they may do this.
    pub fn may(&self, permission: &str) -> bool {
        Permission::parse(permission).is_some_and(|permission| self.permissions.allows(permission))
    }
}

/// Reads `Authorization: Bearer <key>` (RFC 6750, section 2.1). What cannot be a key is refused.
///
/// The key is found by its SHA-256, so that the time of the look-up tells nothing about other keys.
pub fn presented_key(headers: &HeaderMap) -> Result<KeyHash, ApiError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(unauthorized()) };
    let (scheme, key) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(unauthorized)?;
    if !scheme.eq_ignore_ascii_case("bearer") || key.len() > MAX_KEY_LEN {
        return Err(unauthorized());
    }
    KeyHash::of_presented(key.trim()).ok_or_else(unauthorized)
}

/// The caller with this key, if the view has it and it has not expired.
pub fn authenticate(hash: &KeyHash, view: &View, now: Timestamp) -> Result<Caller, ApiError> {
    let key = view.api_key(hash).filter(|key| key.expires_at.is_none_or(|at| at > now));
    key.map(|key| Caller::of_key(*hash, key)).ok_or_else(unauthorized)
}

fn unauthorized() -> ApiError {
    ApiError::from(Code::Unauthorized).with_header("www-authenticate", "Bearer")
}

/// When keys were last used, until it is written down: once a minute for each key is enough.
#[derive(Default)]
pub struct KeyUses(Mutex<HashMap<ApiKeyId, Timestamp>>);

impl KeyUses {
    /// Notes a call, if it came with a key.
    pub fn note(&self, caller: &Caller, now: Timestamp) {
        let Credential::Key(_, key) = &caller.credential else { return };
        let mut uses = self.0.lock();
        uses.insert(key.id, now);
    }

    /// The last call with a key that is not written down yet.
    pub fn last(&self, key: ApiKeyId) -> Option<Timestamp> {
        self.0.lock().get(&key).copied()
    }

    /// Takes what was noted.
    pub fn take(&self) -> Vec<(ApiKeyId, Timestamp)> {
        self.0.lock().drain().collect()
    }
}

//! Sessions of people who have signed in, and of those who came by a portal link.

use super::Api;
use super::auth::Caller;
use super::error::ApiError;
use super::request_context::RequestContext;
use crate::domain::account::KeyHash;
use crate::domain::audit::{Actor, Origin};
use crate::domain::id::AccountId;
use crate::domain::user::{PortalLink, User};
use crate::store::{PortalLinks, Proof, SignIn, SignInChange, StoreError};

/// Longest token that is looked up.
const MAX_TOKEN_LEN: usize = 128;

/// Why a sign-in, or a change of a password or a second factor, is refused.
#[derive(Clone, Debug)]
pub enum SignInRefused {
    /// The address, the password or the code is wrong: which of them is not said.
    Wrong,
    /// A new password is too short or too long: at least and at most so many characters.
    Password(usize, usize),
    /// A rate limit is reached, or the store does not answer.
    Refused(ApiError),
}

impl From<ApiError> for SignInRefused {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

impl From<StoreError> for SignInRefused {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::Wrong,
            other => Self::Refused(other.into()),
        }
    }
}

/// The session of a user who has signed in.
#[derive(Clone)]
pub struct Session {
    pub(super) user: User,
    pub(super) token_hash: KeyHash,
}

impl Session {
    /// Their address.
    pub fn email(&self) -> &str {
        self.user.email.as_str()
    }

    /// The account that they belong to; an operator belongs to none.
    pub fn account(&self) -> Option<String> {
        self.user.account.map(|(id, _)| id.to_string())
    }

    /// Their id.
    pub fn id(&self) -> String {
        self.user.id.to_string()
    }

    pub(super) fn account_id(&self) -> Option<AccountId> {
        self.user.account.map(|(id, _)| id)
    }

    /// Whether signing in takes a second factor.
    pub fn two_factor(&self) -> bool {
        self.user.two_factor
    }

    /// When another user turned off their second factor, if they have not read the notice.
    pub fn factor_reset_at(&self) -> Option<String> {
        self.user.factor_reset_at.map(|at| at.to_string())
    }

    /// Until when a link that sets a new password for them can be used.
    pub fn invited_until(&self) -> Option<(i64, String)> {
        self.user.invited_until.map(|at| (at.as_millis(), at.to_string()))
    }

    /// The caller on the pages of this account, or on the operator's; `None` where the user may not see them.
    pub fn caller(&self, account: Option<&str>) -> Option<Caller> {
        let asked = account.map(|id| AccountId::parse(id).ok_or(())).transpose().ok()?;
        let allowed = self.user.account.is_none() || asked.is_some() && asked == self.user.account.map(|(id, _)| id);
        allowed.then(|| Caller::of_user(&self.user, self.token_hash, asked))
    }
}

/// The holder of a portal link.
#[derive(Clone)]
pub struct Portal {
    link: PortalLink,
    token_hash: KeyHash,
}

impl Portal {
    /// The account whose pages it opens.
    pub fn account(&self) -> String {
        self.link.account.to_string()
    }

    /// Who calls.
    pub fn caller(&self) -> Caller {
        Caller::of_portal(&self.link, self.token_hash)
    }

    /// The name at the top, where the operator has given one.
    pub fn brand(&self) -> Option<&str> {
        self.link.brand.as_deref()
    }

    /// Sites that may hold the pages in a frame.
    pub fn frame_origins(&self) -> &[String] {
        &self.link.frame_origins
    }

    /// The style sheet of the operator's colour, shaded so that it can be read in light and in dark.
    pub fn theme(&self) -> Option<String> {
        let color = self.link.color?;
        let rule = |dark| {
            let shade = color.readable(dark);
            format!(":root{{--accent:{shade};--accent-ink:{}}}", shade.ink())
        };
        Some(format!("{}\n@media (prefers-color-scheme:dark){{{}}}\n", rule(false), rule(true)))
    }
}

/// A session that was opened.
pub struct Opened {
    /// Its token.
    pub token: String,
    /// The cookie by which the device is known from now on.
    pub device: String,
    /// Whether the user must first see the notice that another user turned off their second factor.
    pub has_news: bool,
}

/// The user whom an invitation is for.
pub struct Invited {
    /// Their address.
    pub email: String,
    /// Whether they have a second factor, whose code they give to set a new password.
    pub two_factor: bool,
}

/// The fields of the sign-in form.
pub struct SignInForm<'a> {
    /// Their address.
    pub email: &'a str,
    /// Their password.
    pub password: &'a str,
    /// The code of their second factor, or nothing.
    pub code: &'a str,
    /// The cookie of their device, or nothing.
    pub device: &'a str,
}

impl Api {
    /// The session of a token, if it has not ended. `touch` prolongs it: requests that a page makes by itself do not.
    pub async fn session(
        &self,
        context: &RequestContext,
        token: &str,
        touch: bool,
    ) -> Result<Option<Session>, ApiError> {
        let Some(hash) = token_hash(token) else { return Ok(None) };
        let found = self.store.session(hash, self.sessions().idle, touch);
        let user = self.lookups.run(context.address(), found).await?;
        Ok(user.map(|user| Session { user, token_hash: hash }))
    }

    /// Ends this session.
    pub async fn sign_out(&self, session: &Session) -> Result<(), ApiError> {
        Ok(self.store.sign_out(session.token_hash).await?)
    }

    /// Ends every session of this user, this one too.
    pub async fn sign_out_everywhere(&self, context: &RequestContext, session: &Session) -> Result<(), ApiError> {
        let store = self.acting(context, &session.user);
        match store.change_sign_in(session.user.id, SignInChange::Sessions, Proof::Trusted, session.token_hash).await {
            // It has ended already.
            Err(StoreError::NotFound) => Ok(()),
            other => Ok(other?),
        }
    }

    /// The portal link of a token, if it has not expired.
    pub async fn portal(&self, context: &RequestContext, token: &str) -> Result<Option<Portal>, ApiError> {
        let Some(hash) = token_hash(token) else { return Ok(None) };
        let found = self.lookups.run(context.address(), self.store.portal_link(hash)).await?;
        Ok(found.map(|link| Portal { link, token_hash: hash }))
    }

    /// The same for a page. The first use is written to the audit log before the page is shown.
    pub async fn open_portal(&self, context: &RequestContext, token: &str) -> Result<Option<Portal>, ApiError> {
        let Some(portal) = self.portal(context, token).await? else { return Ok(None) };
        if portal.link.opened_at.is_none() {
            let (address, request) = (context.address(), Some(context.info().id.to_string()));
            let origin = Origin { actor: Actor::PortalLink(portal.link.id), address, request };
            self.store.acting(origin).open_portal_link(portal.token_hash).await?;
        }
        Ok(Some(portal))
    }
}

/// The hash by which a token is found; `None` for what cannot be a token.
pub(super) fn token_hash(token: &str) -> Option<KeyHash> {
    if token.len() > MAX_TOKEN_LEN { None } else { KeyHash::of_presented(token) }
}

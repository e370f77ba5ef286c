//! People at the door: signing in with a password and a second factor, staying signed in, invitations, portal links.
//!
//! Whoever is let in becomes a [`Caller`], and calls the API like a program does.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier as _;
use axum::body::Body;
use axum::http::{HeaderMap, Response};
use ring::digest;
use totp_rs::{Builder, Totp};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Api;
use super::auth::Caller;
use super::device::Device;
use super::envelope::{RequestInfo, refuse};
use super::error::{ApiError, Code};
use super::limits::Bucket;
use super::memberships::{SignedIn, hash_with};
use super::origin::{self, Peer};
use super::tries::Guess;
use crate::domain::account::KeyHash;
use crate::domain::audit::{Actor, Origin};
use crate::domain::id::{AccountId, UserId};
use crate::domain::secret::Secret;
use crate::domain::user::{Email, MAX_PASSWORD_CHARS, PortalLink, User};
use crate::store::{
    Credentials, Factor, PasswordHash, PortalLinks, Proof, SignIn, SignInChange, Store, StoreError, Users,
};

/// Longest token that is looked up.
const MAX_TOKEN_LEN: usize = 128;

/// Who is let in by a link, without a password, as long as the process lives.
#[derive(Clone, Copy, Debug)]
pub struct Welcome {
    /// Their account.
    pub account: AccountId,
    /// Who they are.
    pub user: UserId,
    /// The hash of what the link ends with.
    pub token: KeyHash,
}

/// How long people stay signed in.
#[derive(Clone, Copy, Debug)]
pub struct Sessions {
    /// Without a click.
    pub idle: Duration,
    /// In any case.
    pub lifetime: Duration,
}

/// Why somebody is not let in, or does not change what lets them in.
#[derive(Clone, Debug)]
pub enum SignInRefused {
    /// The address, the password or the code is wrong: which of them is not said.
    Wrong,
    /// A new password is too short or too long: at least and at most so many characters.
    Password(usize, usize),
    /// Too often, or the store does not answer.
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

/// A request for a page: who it is, and from where.
#[derive(Clone, Debug)]
pub struct Doorstep {
    info: RequestInfo,
    address: Option<IpAddr>,
    host: String,
}

impl Doorstep {
    pub(super) fn info(&self) -> &RequestInfo {
        &self.info
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// A refusal in the API's envelope, for whoever takes no pages.
    pub fn refuse(&self, error: &ApiError) -> Response<Body> {
        refuse(error, &self.info)
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }
}

/// Somebody who has signed in.
#[derive(Clone)]
pub struct Visitor {
    pub(super) user: User,
    pub(super) session: KeyHash,
}

impl Visitor {
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

    /// When somebody else turned off their second factor, if they have not been told.
    pub fn factor_reset_at(&self) -> Option<String> {
        self.user.factor_reset_at.map(|at| at.to_string())
    }

    /// Until when a link that sets a new password for them can be used.
    pub fn invited_until(&self) -> Option<(i64, String)> {
        self.user.invited_until.map(|at| (at.as_millis(), at.to_string()))
    }

    /// Who calls when they look at this account's pages, or at the operator's own; `None` where they may not.
    pub fn caller(&self, account: Option<&str>) -> Option<Caller> {
        let asked = account.map(|id| AccountId::parse(id).ok_or(())).transpose().ok()?;
        let allowed = self.user.account.is_none() || asked.is_some() && asked == self.user.account.map(|(id, _)| id);
        allowed.then(|| Caller::of_user(&self.user, asked))
    }
}

/// Somebody who came by a portal link.
#[derive(Clone)]
pub struct Portal(PortalLink);

impl Portal {
    /// The account whose pages it opens.
    pub fn account(&self) -> String {
        self.0.account.to_string()
    }

    /// Who calls.
    pub fn caller(&self) -> Caller {
        Caller::of_portal(&self.0)
    }

    /// The name at the top, where the operator has given one.
    pub fn brand(&self) -> Option<&str> {
        self.0.brand.as_deref()
    }

    /// Sites that may hold the pages in a frame.
    pub fn frame_origins(&self) -> &[String] {
        &self.0.frame_origins
    }

    /// The style sheet of the operator's colour, shaded so that it can be read in light and in dark.
    pub fn theme(&self) -> Option<String> {
        let color = self.0.color?;
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
    /// Whether the user has to be told first that somebody else turned off their second factor.
    pub has_news: bool,
}

/// Whom an invitation invites.
pub struct Invited {
    /// Their address.
    pub email: String,
    /// Whether they have a second factor, whose code they give to set a new password.
    pub two_factor: bool,
}

/// The hash of nobody's password, for whom there is none: so that it takes as long as for anybody.
pub(super) static NOBODY: LazyLock<PasswordHash> =
    LazyLock::new(|| hash_with("nobody's", &[0; 16]).unwrap_or(PasswordHash(String::new())));

/// What somebody has typed to sign in.
pub struct Typed<'a> {
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
    /// Who asks, for what follows.
    pub fn door(&self, info: &RequestInfo, headers: &HeaderMap, peer: Option<Peer>) -> Doorstep {
        let address = peer.map(|Peer(peer)| origin::client(peer, headers, &self.settings.trusted_proxies));
        let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or("").to_owned();
        Doorstep { info: info.clone(), address, host }
    }

    /// Whether people reach the server over TLS only, as in production.
    pub fn is_secure(&self) -> bool {
        self.settings.environment == crate::domain::url::Environment::Production
    }

    /// Milliseconds since the epoch.
    pub fn now_millis(&self) -> i64 {
        self.clock.now().as_millis()
    }

    /// 32 random hex digits.
    pub fn draw(&self) -> String {
        hex::encode(self.random.array::<16>())
    }

    /// How long people stay signed in.
    pub fn sessions(&self) -> Sessions {
        self.settings.sessions
    }

    /// Signs in: a session, or a choice where the password opens several accounts. Whoever is not let in learns nothing of why, not
    /// even by how long it took.
    pub async fn sign_in(&self, door: &Doorstep, typed: Typed<'_>) -> Result<SignedIn, SignInRefused> {
        let (email, device) = (Email::parse(typed.email), Device::parse(typed.device));
        let (counted, opens) = self.count_sign_in(door, email.as_ref(), device.as_ref()).await?;
        let mut wrong_code = Vec::new();
        let with = (&typed, device.as_ref(), &opens);
        let let_in = self.let_in(door, email.clone(), with, &mut wrong_code).await;
        let signed_in = match let_in {
            Ok(let_in) => self.open(door, let_in, device).await,
            Err(refused) => Err(refused),
        };
        if matches!(signed_in, Err(SignInRefused::Wrong)) {
            self.note_wrong(door, email, wrong_code);
        } else {
            self.give_back(counted).await;
        }
        signed_in
    }

    /// Signs in whoever has the link that a server prints which was started to be tried.
    pub async fn welcome(&self, door: &Doorstep, token: &str) -> Result<Option<String>, ApiError> {
        let Some(welcome) = self.settings.welcome else { return Ok(None) };
        if !token_hash(token).is_some_and(|given| is_same(&given, &welcome.token)) {
            return Ok(None);
        }
        let user = match self.store.user(Some(welcome.account), welcome.user).await {
            Ok(user) => user,
            Err(StoreError::NotFound) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let token = self.acting(door, &user).sign_in(user.id, Proof::Trusted, self.settings.sessions.lifetime).await?;
        Ok(Some(token.reveal().to_owned()))
    }

    /// Whether there is a link that lets somebody in without a password.
    pub fn welcomes(&self) -> bool {
        self.settings.welcome.is_some()
    }

    /// Whose session this is, if it has not ended. What a page does by itself is no use of it.
    pub async fn visitor(&self, token: &str, touch: bool) -> Result<Option<Visitor>, ApiError> {
        let Some(hash) = token_hash(token) else { return Ok(None) };
        let user = self.store.session(hash, self.settings.sessions.idle, touch).await?;
        Ok(user.map(|user| Visitor { user, session: hash }))
    }

    /// Ends this session.
    pub async fn sign_out(&self, visitor: &Visitor) -> Result<(), ApiError> {
        Ok(self.store.sign_out(visitor.session).await?)
    }

    /// Ends every session of this person, this one too.
    pub async fn sign_out_everywhere(&self, door: &Doorstep, visitor: &Visitor) -> Result<(), ApiError> {
        let store = self.acting(door, &visitor.user);
        match store.change_sign_in(visitor.user.id, SignInChange::Sessions, Proof::Trusted, visitor.session).await {
            // It has ended already.
            Err(StoreError::NotFound) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Whom an invitation invites.
    pub async fn invited(&self, token: &str) -> Result<Option<Invited>, ApiError> {
        let Some(hash) = token_hash(token) else { return Ok(None) };
        let invited = self.store.invited(hash).await?;
        Ok(invited.map(|user| Invited { email: user.email.to_string(), two_factor: user.two_factor }))
    }

    /// Takes an invitation: sets the password, and signs in. Whoever has a second factor gives its code: the link replaces the
    /// password alone.
    pub async fn join(
        &self,
        door: &Doorstep,
        token: &str,
        password: &str,
        (code, device): (&str, &str),
    ) -> Result<Opened, SignInRefused> {
        self.limit(counted("address", &network(door.address)), Bucket::Login).await?;
        let hash = token_hash(token).ok_or(SignInRefused::Wrong)?;
        let invited = self.store.invited(hash).await?.ok_or(SignInRefused::Wrong)?;
        let known = self.store.credentials_of(invited.id).await?.ok_or(SignInRefused::Wrong)?;
        let step = match self.guessed_step(&known, code, Guess::Link).await {
            Err(SignInRefused::Wrong) => {
                self.note_wrong(door, None, vec![known.user]);
                return Err(SignInRefused::Wrong);
            }
            step => step?,
        };
        let store = self.acting(door, &invited);
        let user =
            self.set_password(door, &invited.email, password, |password| store.join(hash, password, step)).await?;
        let token = store.sign_in(user.id, Proof::Trusted, self.settings.sessions.lifetime).await?;
        let device = self.known_device(Device::parse(device), user.id);
        Ok(Opened { token: token.reveal().to_owned(), device, has_news: user.factor_reset_at.is_some() })
    }

    /// What a portal link opens, if it has not expired.
    pub async fn portal(&self, token: &str) -> Result<Option<Portal>, ApiError> {
        let Some(hash) = token_hash(token) else { return Ok(None) };
        Ok(self.store.portal_link(hash).await?.map(Portal))
    }

    /// The same for somebody who looks at a page. The first time is written down before they see anything.
    pub async fn open_portal(&self, door: &Doorstep, token: &str) -> Result<Option<Portal>, ApiError> {
        let (Some(hash), Some(portal)) = (token_hash(token), self.portal(token).await?) else { return Ok(None) };
        if portal.0.opened_at.is_none() {
            let Doorstep { info, address, .. } = door.clone();
            let (actor, request) = (Actor::PortalLink(portal.0.id), Some(info.id.to_string()));
            self.store.acting(Origin { actor, address, request }).open_portal_link(hash).await?;
        }
        Ok(Some(portal))
    }

    /// The name under which the server delivers.
    pub fn brand(&self) -> &str {
        &self.settings.brand
    }

    /// Whether this is the password that was hashed; without a hash it is not, after just as long.
    pub(super) async fn is_password(
        &self,
        door: &Doorstep,
        password: &str,
        hash: Option<PasswordHash>,
    ) -> Result<bool, ApiError> {
        if password.chars().count() > MAX_PASSWORD_CHARS {
            return Ok(false);
        }
        let password = Zeroizing::new(password.to_owned());
        let verify = move || {
            let known = hash.is_some();
            let PasswordHash(hash) = hash.unwrap_or_else(|| NOBODY.clone());
            Argon2::default().verify_password(password.as_bytes(), hash.as_str()).is_ok() && known
        };
        self.hashing.run(door.address, verify).await
    }

    /// The time step of the second factor's code; `None` for whoever has no second factor.
    pub(super) fn second_step(&self, known: &Credentials, code: &str) -> Result<Option<i64>, SignInRefused> {
        match &known.second_factor {
            Factor::None => Ok(None),
            Factor::Secret(secret) => self.step_of(secret, &known.user, code).map(Some).ok_or(SignInRefused::Wrong),
            Factor::Sealed => Err(ApiError::from(Code::InternalError).into()),
        }
    }

    /// The time step whose code this is, if it is one of now.
    pub(super) fn step_of(&self, secret: &Secret, user: &User, code: &str) -> Option<i64> {
        let code: String = code.chars().filter(|c| !c.is_whitespace()).take(16).collect();
        let now = u64::try_from(self.clock.now().as_secs()).ok()?;
        let step = totp(secret, self.brand(), user.email.as_str())?.check(&code, now)?;
        i64::try_from(step).ok()
    }

    pub(super) fn acting(&self, door: &Doorstep, user: &User) -> Store {
        let Doorstep { info, address, .. } = door.clone();
        self.store.acting(Origin { actor: Actor::of_user(user), address, request: Some(info.id.to_string()) })
    }
}

/// What tries are counted by: an address, or the network that one IPv6 customer has (RFC 6177).
pub(super) fn network(address: Option<IpAddr>) -> String {
    match address {
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}")
        }
        Some(address) => address.to_string(),
        None => String::new(),
    }
}

pub(super) fn counted(kind: &str, text: &str) -> Uuid {
    let hash = digest::digest(&digest::SHA256, format!("{kind}\0{text}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    Uuid::from_bytes(bytes)
}

pub(super) fn token_hash(token: &str) -> Option<KeyHash> {
    (!token.is_empty() && token.len() <= MAX_TOKEN_LEN).then(|| KeyHash::of(token))
}

/// Compares in a time that does not depend on where they differ.
fn is_same(left: &KeyHash, right: &KeyHash) -> bool {
    left.as_bytes().iter().zip(right.as_bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

pub(super) fn totp_secret(secret: &Secret) -> Option<totp_rs::Secret> {
    let bytes = Zeroizing::new(hex::decode(secret.reveal()).ok()?);
    // 160 bits, as RFC 4226, section 4 recommends: longer ones some apps do not take.
    Some(totp_rs::Secret::from(bytes.get(..20)?.to_vec()))
}

/// Six digits every thirty seconds (RFC 6238), one step early or late.
pub(super) fn totp(secret: &Secret, issuer: &str, email: &str) -> Option<Totp> {
    // A colon divides issuer and name in the key's address.
    let plain = |text: &str| text.replace(':', " ");
    Builder::new()
        .with_secret(totp_secret(secret)?)
        .with_skew(1)
        .with_issuer(Some(plain(issuer)))
        .with_account_name(plain(email))
        .build()
        .ok()
}

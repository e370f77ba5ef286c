//! Limits on sign-ins, and what wrong ones leave in the log and in the audit log.
//!
//! A try is counted before it is checked, and uncounted unless it was wrong. Windows bound it by the network of the
//! client, by e-mail address and site, and by e-mail address. Where these are used up, a known device (`device`) has
//! windows of its own. Larger windows bound right tries too. `sign_in` and `memberships` check passwords and codes.

use std::net::IpAddr;
use std::time::Duration;

use ring::digest;
use uuid::Uuid;

use super::Api;
use super::counting::CountedCall;
use super::device::{Device, NUMBER_BYTES};
use super::error::{ApiError, Language};
use super::hashing::{self, HashingPermit};
use super::limits::{Bucket, RateLimit};
use super::request_context::RequestContext;
use super::session::SignInRefused;
use crate::domain::audit::{Actor, Origin};
use crate::domain::id::UserId;
use crate::domain::user::{Email, User};
use crate::log_limit::LogLimit;
use crate::store::{Factor, Memberships, Proof, SignInCredentials, Snapshot};

/// All networks together may make this many times the limit of wrong tries for one e-mail address. At 100 tries a
/// minute, only the most common passwords are found.
const ADDRESS_TIMES: u32 = 10;

/// A network or a known device may make this many times the limit of tries, right ones included, and a user may sign in
/// as often: each try takes a hash, and each sign-in makes a session and an audit entry.
const RIGHT_TIMES: u32 = 10;

/// Wrong codes of one user's second factor that are looked at in a day: at sign-ins of unknown devices, within
/// sessions, with invitation links, and for each known device, so many each. At any time 3 of 1,000,000 codes are
/// right. Whoever has the password, a session and a link guesses right with a chance of 300 × 3 / 1,000,000 a day, less
/// than 0.1 %.
const WRONG_CODES: RateLimit = RateLimit { calls: 100, window: Duration::from_secs(86_400) };

/// The same beside wrong passwords. It only makes both answers take equally long. Its keys come from unauthenticated
/// clients, so its windows are short.
const CODES_OF_NOBODY: RateLimit = RateLimit { calls: 100, window: Duration::from_secs(60) };

/// Right sign-ins with an address to one account in a day that are given back whole. Later ones stay counted for the
/// address, and are noted as wrong for its users whom they did not let in: an account can have a user with the address
/// of somebody else, set its password to a guess, and sign in. A session lasts for days, so people need fewer, and
/// nothing of what they do in one account shows in another.
const FREE_SIGN_INS: RateLimit = RateLimit { calls: 5, window: Duration::from_secs(86_400) };

/// Entries in the audit log on wrong passwords of one user, and on wrong codes: guessing must not fill the log of an
/// account.
const NOTED: RateLimit = RateLimit { calls: 1, window: Duration::from_secs(3_600) };

/// Users of one e-mail address in whose audit logs a wrong try is written.
const MAX_NOTED_USERS: usize = 20;

static FAILURES_LOGGED: LogLimit = LogLimit::new();

/// The users whom a try may sign in.
pub(super) enum SignInScope {
    /// Any user with the address and the password.
    Any,
    /// These only: the device is known for them.
    Only(Vec<UserId>),
}

impl SignInScope {
    pub fn allows(&self, user: UserId) -> bool {
        match self {
            Self::Any => true,
            Self::Only(users) => users.contains(&user),
        }
    }
}

/// What was wrong with a try, and for whom.
pub(super) enum WrongTry {
    /// The password, for the users with this address but for these, for whom it was right.
    Password(Option<Email>, Vec<UserId>),
    /// The code, for users whose password was right.
    Code(Vec<User>),
    /// The password or the code that a user gave again within a session: `password` or `two_factor`.
    InSession(User, &'static str),
}

/// Where a code of the second factor was given. Each place has a window of its own, so that one that is used up does
/// not close the others.
#[derive(Clone, Copy)]
pub(super) enum CodeSource<'a> {
    /// At a sign-in, perhaps with a known device.
    SignIn(Option<&'a Device>),
    /// By somebody who has signed in.
    Session,
    /// By somebody who has an invitation link.
    Link,
}

impl Api {
    /// Counts a try to sign in with this address, or refuses it.
    pub(super) async fn count_sign_in(
        &self,
        context: &RequestContext,
        email: Option<&Email>,
        device: Option<&Device>,
    ) -> Result<(CountedCall, SignInScope), ApiError> {
        let from = network(context.address());
        let mut windows = vec![(counted("address", &from), 1)];
        if let Some(email) = email {
            let site = hashing::site(context.address()).map(|site| site.to_string()).unwrap_or_default();
            windows.push((counted("user at", &format!("{site}\0{email}")), 1));
            windows.push((counted("user", email.as_str()), ADDRESS_TIMES));
        }
        let refused = match self.count_try(windows, counted("tries of an address", &from)).await {
            Ok(counted) => return Ok((counted, SignInScope::Any)),
            Err(refused) => refused,
        };
        let taken = async {
            let (Some(email), Some(device), 429) = (email, device, refused.status()) else { return Err(refused) };
            let known = self.known_at(email, device).await?;
            if known.is_empty() {
                return Err(refused);
            }
            let own = format!("{}\0{email}", device.number());
            let windows = vec![(counted("device", &own), 1)];
            let counted = self.count_try(windows, counted("tries of a device", &own)).await?;
            Ok((counted, SignInScope::Only(known)))
        };
        taken.await.inspect_err(|_| self.metrics.http_rate_limited_total.add(1))
    }

    /// Counts a try in windows to which a right one is given back, and in one to which none is.
    async fn count_try(&self, windows: Vec<(Uuid, u32)>, of_all: Uuid) -> Result<CountedCall, ApiError> {
        let counted = self.count_in(Bucket::Login, windows).await?;
        match self.count_in(Bucket::Login, [(of_all, RIGHT_TIMES)]).await {
            Ok(_) => Ok(counted),
            Err(refused) => {
                self.give_back(counted).await;
                Err(refused)
            }
        }
    }

    /// Whether a try that has let these users in is given back whole. With a known device it is: it lets in no others
    /// than those who have signed in with the device.
    pub(super) async fn is_free_sign_in(&self, scope: &SignInScope, let_in: &[User]) -> bool {
        if matches!(scope, SignInScope::Only(_)) {
            return true;
        }
        for user in let_in {
            // Not by the user: one who is deleted and invited anew would have others.
            let account = user.account.map(|(id, _)| id.to_string()).unwrap_or_default();
            let window = counted("free sign-in", &format!("{account}\0{}", user.email));
            if !matches!(self.count_fixed(window, FREE_SIGN_INS).await, Ok(Some(_))) {
                return false;
            }
        }
        true
    }

    /// Of these users, whose password and code were right, those who may sign in once more. Where none of them may, it
    /// is refused.
    pub(super) async fn count_right(&self, let_in: Vec<(User, Proof)>) -> Result<Vec<(User, Proof)>, ApiError> {
        let (mut may_sign_in, mut refused) = (Vec::new(), None);
        for (user, proof) in let_in {
            let window = (counted("sign-in", &user.id.to_string()), RIGHT_TIMES);
            match self.count_in(Bucket::Login, [window]).await {
                Ok(_) => may_sign_in.push((user, proof)),
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(refused) if may_sign_in.is_empty() => {
                self.metrics.http_rate_limited_total.add(1);
                Err(refused)
            }
            _ => Ok(may_sign_in),
        }
    }

    /// The time step of the second factor's code, as [`Api::second_step`], where another guess may be looked at. Where
    /// it may not, the answer is that of a wrong code: another one would tell that the password is right.
    pub(super) async fn checked_step(
        &self,
        known: &SignInCredentials,
        code: &str,
        source: CodeSource<'_>,
    ) -> Result<Option<i64>, SignInRefused> {
        let is_guess = matches!(known.second_factor, Factor::Secret(_)) && !code.trim().is_empty();
        if !is_guess {
            return self.second_step(known, code);
        }
        let id = known.user.id;
        let kind = match source {
            CodeSource::SignIn(_) => "code",
            CodeSource::Session => "code in a session",
            CodeSource::Link => "code with a link",
        };
        let mut taken = self.count_fixed(counted(kind, &id.to_string()), WRONG_CODES).await?;
        if let (None, CodeSource::SignIn(Some(device))) = (&taken, source)
            && self.knows(device, id)
        {
            let own = counted("code of a device", &format!("{}\0{id}", device.number()));
            taken = self.count_fixed(own, WRONG_CODES).await?;
        }
        let taken = taken.ok_or(SignInRefused::Wrong)?;
        let step = self.second_step(known, code)?;
        self.give_back(taken).await;
        Ok(step)
    }

    /// Counts a code that came with a wrong password, so that the answer takes as long as with the right one.
    pub(super) async fn count_code_of_nobody(&self, context: &RequestContext, code: &str) -> Result<(), ApiError> {
        if !code.trim().is_empty() {
            self.count_fixed(counted("code of nobody", &network(context.address())), CODES_OF_NOBODY).await?;
        }
        Ok(())
    }

    /// The cookie of a device with which this user has signed in now.
    pub(super) fn known_device(&self, device: Option<Device>, user: UserId) -> String {
        let mut device = device.unwrap_or_else(|| Device::new(self.random.array::<NUMBER_BYTES>()));
        let keys = self.store.keyring();
        device.mark(user, self.clock.now(), |text, signature| keys.is_signed(text, signature), |text| keys.sign(text));
        device.to_cookie()
    }

    fn knows(&self, device: &Device, user: UserId) -> bool {
        let keys = self.store.keyring();
        device.knows(user, self.clock.now(), |text, signature| keys.is_signed(text, signature))
    }

    /// The users with this address that the device is known for.
    async fn known_at(&self, email: &Email, device: &Device) -> Result<Vec<UserId>, ApiError> {
        let users = self.store.users_with(email.clone()).await?;
        Ok(users.into_iter().map(|user| user.id).filter(|id| self.knows(device, *id)).collect())
    }

    /// A permit to hash a password. Where the network of the client has none left, a known device of the user has one.
    pub(super) async fn hashing_permit(
        &self,
        context: &RequestContext,
        email: Option<&Email>,
        device: Option<&Device>,
    ) -> Result<HashingPermit, ApiError> {
        let refused = match self.hashing.permit(context.address()) {
            Ok(permit) => return Ok(permit),
            Err(refused) => refused,
        };
        let (Some(email), Some(device)) = (email, device) else { return Err(refused) };
        if self.known_at(email, device).await?.is_empty() {
            return Err(refused);
        }
        self.hashing.permit_of_device(context.address(), device.bytes()).ok_or(refused)
    }

    /// Writes down wrong codes of users, if there were any, as [`Api::note_wrong`].
    pub(super) fn note_wrong_codes(&self, context: &RequestContext, users: Vec<User>) {
        if !users.is_empty() {
            self.note_wrong(context, WrongTry::Code(users));
        }
    }

    /// Writes down a wrong try after the answer: the time of the answer must not tell whether the address has a user.
    pub(super) fn note_wrong(&self, context: &RequestContext, wrong: WrongTry) {
        let Ok(permit) = self.notes.clone().try_acquire_owned() else {
            FAILURES_LOGGED.suppress();
            return;
        };
        let (api, context) = (self.clone(), context.clone());
        tokio::spawn(async move {
            let noted = api.note(&context, wrong).await;
            if let Err(error) = noted
                && let Some(suppressed) = FAILURES_LOGGED.admit()
            {
                let reason = error.detail(Language::English);
                tracing::warn!(reason, suppressed, "a wrong try to sign in could not be written down");
            }
            drop(permit);
        });
    }

    async fn note(&self, context: &RequestContext, wrong: WrongTry) -> Result<(), ApiError> {
        let (wrong, users, actor) = match wrong {
            WrongTry::Password(email, right) => {
                let known = match email {
                    Some(email) => self.store.users_with(email).await?,
                    None => Vec::new(),
                };
                let users: Vec<User> = known.into_iter().filter(|user| !right.contains(&user.id)).collect();
                if !right.is_empty() && !users.iter().any(|user| user.joined) {
                    return Ok(());
                }
                ("password", users, Actor::Anonymous)
            }
            WrongTry::Code(users) => ("two_factor", users, Actor::Anonymous),
            WrongTry::InSession(user, wrong) => {
                let actor = Actor::of_user(&user);
                (wrong, vec![user], actor)
            }
        };
        let users: Vec<User> = users.into_iter().filter(|user| user.joined).take(MAX_NOTED_USERS).collect();
        let by = actor.kind();
        if let Some(suppressed) = FAILURES_LOGGED.admit() {
            // An unknown address may be a password in the wrong field, so it is not written.
            let email = users.first().map_or_else(|| "unknown".to_owned(), |user| masked(&user.email));
            let (address, id) = (context.address().map(tracing::field::display), &context.info().id);
            tracing::warn!(address, email, wrong, by, suppressed, request_id = %id, "a sign-in failed");
        }
        let request = Some(context.info().id.to_string());
        let store = self.store.acting(Origin { actor, address: context.address(), request });
        for user in users {
            if self.count_fixed(counted("noted", &format!("{wrong}\0{by}\0{}", user.id)), NOTED).await?.is_some() {
                store.note_failed_sign_in(user, wrong).await?;
            }
        }
        Ok(())
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

/// The key of a window: what is counted, and for whom.
pub(super) fn counted(kind: &str, text: &str) -> Uuid {
    let hash = digest::digest(&digest::SHA256, format!("{kind}\0{text}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    Uuid::from_bytes(bytes)
}

/// An e-mail address as the log shows it: recognizable, but not usable.
fn masked(email: &Email) -> String {
    let (local, domain) = email.as_str().rsplit_once('@').expect("an address has an @");
    format!("{}***@{domain}", local.chars().next().expect("something stands before it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_address_shows_one_character_before_its_domain() {
        for (email, shown) in [("ana@example.com", "a***@example.com"), ("é@example.org", "é***@example.org")] {
            assert_eq!(masked(&Email::parse(email).expect("an address")), shown);
        }
    }
}

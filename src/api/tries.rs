//! Tries to sign in: how many there may be, and what wrong ones leave in the log and in the audit log.
//!
//! A try is counted before anything is looked at, and given back unless it was wrong. What is counted is bounded for
//! the network that it comes from, for the user from that site, and for the user from everywhere. Where those are used
//! up, a known device (`device`) has tries of its own. `people` and `memberships` look at passwords and codes.

use std::time::Duration;

use super::Api;
use super::device::{Device, NUMBER_BYTES};
use super::error::ApiError;
use super::hashing::{self, Place};
use super::limits::{Bucket, Counted, RateLimit};
use super::people::{Doorstep, SignInRefused, counted, network};
use crate::domain::audit::{Actor, Origin};
use crate::domain::id::UserId;
use crate::domain::user::{Email, User};
use crate::log_limit::LogLimit;
use crate::store::{Credentials, Factor, Memberships, Snapshot};

/// All networks together have so many times the limit of wrong tries for one address. A password that is not among the
/// most common ones is not found by 100 tries a minute.
const ADDRESS_TIMES: u32 = 10;

/// Wrong codes of one user's second factor that are looked at in a day: at sign-ins of unknown devices, within
/// sessions, with invitation links, and for each known device, so many each. At any time 3 of 1,000,000 codes are
/// right. Whoever has the password, a session and a link guesses right with a chance of 300 × 3 / 1,000,000 a day, less
/// than 0.1 %.
const WRONG_CODES: RateLimit = RateLimit { calls: 100, window: Duration::from_secs(86_400) };

/// The same beside wrong passwords. It refuses nobody, and strangers choose its keys: they are soon forgotten.
const CODES_OF_NOBODY: RateLimit = RateLimit { calls: 100, window: Duration::from_secs(60) };

/// Entries in the audit log on wrong passwords of one user, and on wrong codes: nobody fills the log of an account by
/// guessing.
const NOTED: RateLimit = RateLimit { calls: 1, window: Duration::from_secs(3_600) };

/// Wrong tries that are written down at once; more are answered and leave nothing but a count in the log.
pub(super) const MAX_NOTES: usize = 16;

/// Users of one address whose accounts are told of a wrong try.
const MAX_NOTED_USERS: usize = 20;

static FAILURES_LOGGED: LogLimit = LogLimit::new();

/// What a try may open.
pub(super) enum Opens {
    /// Whatever user has the address and the password.
    Anybody,
    /// These: the device is known for them, and it is let through for nobody else.
    Only(Vec<UserId>),
}

impl Opens {
    pub fn allows(&self, user: UserId) -> bool {
        match self {
            Self::Anybody => true,
            Self::Only(users) => users.contains(&user),
        }
    }
}

/// Where a code of the second factor is guessed. Each has a bound of its own: whoever uses up one does not close the
/// others.
#[derive(Clone, Copy)]
pub(super) enum Guess<'a> {
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
        door: &Doorstep,
        email: Option<&Email>,
        device: Option<&Device>,
    ) -> Result<(Counted, Opens), ApiError> {
        let from = (counted("address", &network(door.address())), 1);
        let mut windows = vec![from];
        if let Some(email) = email {
            let site = hashing::site(door.address()).map(|site| site.to_string()).unwrap_or_default();
            windows.push((counted("user at", &format!("{site}\0{email}")), 1));
            windows.push((counted("user", email.as_str()), ADDRESS_TIMES));
        }
        let refused = match self.count_in(Bucket::Login, windows).await {
            Ok(counted) => return Ok((counted, Opens::Anybody)),
            Err(refused) => refused,
        };
        let taken = async {
            let (Some(email), Some(device), 429) = (email, device, refused.status()) else { return Err(refused) };
            let known = self.known_at(email, device).await?;
            if known.is_empty() {
                return Err(refused);
            }
            let own = counted("device", &format!("{}\0{email}", device.number()));
            Ok((self.count_in(Bucket::Login, [(own, 1)]).await?, Opens::Only(known)))
        };
        taken.await.inspect_err(|_| self.metrics.http_rate_limited_total.add(1))
    }

    /// The time step of the second factor's code, as [`Api::second_step`], where another guess may be looked at. Where
    /// it may not, the answer is that of a wrong code: another one would tell that the password is right.
    pub(super) async fn guessed_step(
        &self,
        known: &Credentials,
        code: &str,
        guess: Guess<'_>,
    ) -> Result<Option<i64>, SignInRefused> {
        let is_guess = matches!(known.second_factor, Factor::Secret(_)) && !code.trim().is_empty();
        if !is_guess {
            return self.second_step(known, code);
        }
        let id = known.user.id;
        let kind = match guess {
            Guess::SignIn(_) => "code",
            Guess::Session => "code in a session",
            Guess::Link => "code with a link",
        };
        let mut taken = self.count_fixed(counted(kind, &id.to_string()), WRONG_CODES).await?;
        if let (None, Guess::SignIn(Some(device))) = (&taken, guess)
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

    /// Counts a code beside a wrong password, so that the answer takes as long as beside the right one.
    pub(super) async fn guess_for_nobody(&self, door: &Doorstep, code: &str) -> Result<(), ApiError> {
        if !code.trim().is_empty() {
            self.count_fixed(counted("code of nobody", &network(door.address())), CODES_OF_NOBODY).await?;
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

    /// A place to check a password in, for whoever comes from there: where their network has none, one of those for devices that a
    /// user with the address has signed in with.
    pub(super) async fn place(
        &self,
        door: &Doorstep,
        email: Option<&Email>,
        device: Option<&Device>,
    ) -> Result<Place, ApiError> {
        let refused = match self.hashing.place(door.address()) {
            Ok(place) => return Ok(place),
            Err(refused) => refused,
        };
        let (Some(email), Some(device)) = (email, device) else { return Err(refused) };
        if self.known_at(email, device).await?.is_empty() {
            return Err(refused);
        }
        self.hashing.place_of_known(door.address(), device.bytes()).ok_or(refused)
    }

    /// Writes down a wrong try, after the answer: how long the answer takes must not tell whether somebody has the
    /// address. `wrong_code` are the users whose password was right.
    pub(super) fn note_wrong(&self, door: &Doorstep, email: Option<Email>, wrong_code: Vec<User>) {
        let Ok(permit) = self.notes.clone().try_acquire_owned() else {
            FAILURES_LOGGED.suppress();
            return;
        };
        let (api, door) = (self.clone(), door.clone());
        tokio::spawn(async move {
            let noted = api.note(&door, email, wrong_code).await;
            if let Err(error) = noted
                && let Some(suppressed) = FAILURES_LOGGED.admit()
            {
                let reason = error.detail(super::Language::English);
                tracing::warn!(reason, suppressed, "a wrong try to sign in could not be written down");
            }
            drop(permit);
        });
    }

    async fn note(&self, door: &Doorstep, email: Option<Email>, wrong_code: Vec<User>) -> Result<(), ApiError> {
        let wrong = if wrong_code.is_empty() { "password" } else { "two_factor" };
        let users = match email {
            Some(email) if wrong_code.is_empty() => self.store.users_with(email).await?,
            _ => wrong_code,
        };
        let users: Vec<User> = users.into_iter().filter(|user| user.joined).take(MAX_NOTED_USERS).collect();
        if let Some(suppressed) = FAILURES_LOGGED.admit() {
            // What is nobody's address may be a password in the wrong field: nothing of it is written.
            let email = users.first().map_or_else(|| "unknown".to_owned(), |user| masked(&user.email));
            let (address, id) = (door.address().map(tracing::field::display), &door.info().id);
            tracing::warn!(address, email, wrong, suppressed, request_id = %id, "a sign-in failed");
        }
        let request = Some(door.info().id.to_string());
        let store = self.store.acting(Origin { actor: Actor::Anonymous, address: door.address(), request });
        for user in users {
            if self.count_fixed(counted("noted", &format!("{wrong}\0{}", user.id)), NOTED).await?.is_some() {
                store.note_failed_sign_in(user, wrong).await?;
            }
        }
        Ok(())
    }
}

/// An address as the log has it: enough to recognize a colleague, too little to write to them.
fn masked(email: &Email) -> String {
    let (local, domain) = email.as_str().rsplit_once('@').unwrap_or_default();
    format!("{}***@{domain}", local.chars().next().map(String::from).unwrap_or_default())
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

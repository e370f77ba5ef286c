//! The second factor: codes that an authenticator app makes of a secret and the time (RFC 6238).

use totp_rs::{Builder, Totp};
use zeroize::Zeroizing;

use super::Api;
use super::error::{ApiError, Code};
use super::session::SignInRefused;
use crate::domain::secret::Secret;
use crate::domain::user::User;
use crate::store::{Factor, SignInCredentials};

impl Api {
    /// The time step of the second factor's code; `None` for a user without one.
    pub(super) fn second_step(&self, known: &SignInCredentials, code: &str) -> Result<Option<i64>, SignInRefused> {
        match &known.second_factor {
            Factor::None => Ok(None),
            Factor::Secret(secret) => self.step_of(secret, &known.user, code).map(Some).ok_or(SignInRefused::Wrong),
            Factor::Sealed => Err(ApiError::from(Code::InternalError).into()),
        }
    }

    /// The time step whose code this is, if it is one of now.
    pub(super) fn step_of(&self, secret: &Secret, user: &User, code: &str) -> Option<i64> {
        let code: String = code.chars().filter(|c| !c.is_whitespace()).take(16).collect();
        let now = self.clock.now().unix_seconds();
        let step = totp(secret, self.brand(), user.email.as_str())?.check(&code, now)?;
        Some(i64::try_from(step).expect("a step is half a minute, and time ends with the year 9999"))
    }
}

/// A secret as authenticator apps take it.
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

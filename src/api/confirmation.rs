//! Steps for which a session is not enough: changing how a user signs in, or letting another user in.
//!
//! A session may have been stolen or left open. Each step here requires the password again, and the code of the second
//! factor of users who have one. `sign_in` opens sessions.

use super::Api;
use super::error::{ApiError, Code};
use super::limits::Bucket;
use super::request_context::RequestContext;
use super::second_factor::{totp, totp_secret};
use super::session::{Session, SignInRefused};
use super::sign_in_limits::{CodeSource, WrongTry, counted};
use crate::domain::id::UserId;
use crate::domain::secret::Secret;
use crate::store::{Proof, SignIn, SignInChange, Users};

/// The password and the code that confirm a step.
#[derive(Clone, Copy)]
pub struct Confirmation<'a> {
    /// Their password.
    pub password: &'a str,
    /// The code of their second factor, or nothing where they have none.
    pub code: &'a str,
}

/// A second factor that is being set up.
pub struct Enrolment {
    /// The secret, as the form carries it.
    pub secret: String,
    /// The secret as authenticator apps take it when it is typed.
    pub typed: String,
    /// What they read from a picture (the otpauth key URI format).
    pub uri: String,
}

impl Api {
    /// Confirms one step for which a session is not enough.
    pub async fn confirm(
        &self,
        context: &RequestContext,
        session: &Session,
        given: Confirmation<'_>,
    ) -> Result<(), SignInRefused> {
        let proof = self.proof(context, session, given).await?;
        Ok(self.store.confirm(session.user.id, proof, session.token_hash).await?)
    }

    /// Sets another password; every other session ends.
    pub async fn change_password(
        &self,
        context: &RequestContext,
        session: &Session,
        given: Confirmation<'_>,
        new: &str,
    ) -> Result<(), SignInRefused> {
        let proof = self.proof(context, session, given).await?;
        let (store, Session { user, token_hash }) = (self.acting(context, &session.user), session);
        let change = |new| store.change_sign_in(user.id, SignInChange::Password(new), proof.clone(), *token_hash);
        self.set_password(context, &user.email, new, change).await
    }

    /// A second factor to be set up.
    pub fn enrol(&self, session: &Session, random: Option<&str>) -> Option<Enrolment> {
        let secret = match random {
            Some(text) => Secret::parse(text)?,
            None => Secret::from_random(self.random.array()),
        };
        let totp = totp(&secret, self.brand(), session.email())?;
        let typed = totp_secret(&secret)?.to_base32();
        Some(Enrolment { secret: secret.reveal().to_owned(), typed, uri: totp.to_url().ok()? })
    }

    /// Sets up a second factor, once a code proves that the app has its secret. An existing one must be turned off
    /// first.
    pub async fn enable_two_factor(
        &self,
        context: &RequestContext,
        session: &Session,
        current: &str,
        secret: &str,
        code: &str,
    ) -> Result<(), SignInRefused> {
        let secret = Secret::parse(secret).ok_or(SignInRefused::Wrong)?;
        let step = self.step_of(&secret, &session.user, code).ok_or(SignInRefused::Wrong)?;
        // The code belongs to the new secret. A user with an old second factor has proved nothing of it and is refused.
        let proof = self.proof(context, session, Confirmation { password: current, code: "" }).await?;
        self.change(context, session, proof, SignInChange::SecondFactor(secret, step)).await
    }

    /// Signs in without a second factor from now on.
    pub async fn disable_two_factor(
        &self,
        context: &RequestContext,
        session: &Session,
        given: Confirmation<'_>,
    ) -> Result<(), SignInRefused> {
        let proof = self.proof(context, session, given).await?;
        self.change(context, session, proof, SignInChange::NoSecondFactor).await
    }

    /// Turns off the second factor of another user of this account, who is told at their next sign-in.
    pub async fn reset_second_factor(
        &self,
        context: &RequestContext,
        session: &Session,
        (account, user): (&str, &str),
        given: Confirmation<'_>,
    ) -> Result<(), SignInRefused> {
        let caller = session.caller(Some(account)).filter(|caller| caller.may("users:write"));
        let caller = caller.ok_or(ApiError::from(Code::Forbidden))?;
        let id = UserId::parse(user).ok_or(ApiError::from(Code::NotFound))?;
        let found = self.store.user(caller.account(), id).await.map_err(ApiError::from)?;
        // Users turn off their own second factor with its code.
        if id == session.user.id || !caller.permissions.covers(found.role.permissions()) {
            return Err(ApiError::from(Code::Forbidden).into());
        }
        self.confirm(context, session, given).await?;
        let reset = self.acting(context, &session.user).reset_second_factor(caller.account(), id).await;
        reset.map_err(ApiError::from)?;
        Ok(())
    }

    /// Notes that the user has read the notice on their second factor.
    pub async fn note_told(&self, context: &RequestContext, session: &Session) -> Result<(), SignInRefused> {
        self.change(context, session, Proof::Trusted, SignInChange::ResetSeen).await
    }

    async fn change(
        &self,
        context: &RequestContext,
        session: &Session,
        proof: Proof,
        change: SignInChange,
    ) -> Result<(), SignInRefused> {
        let Session { user, token_hash } = session;
        Ok(self.acting(context, user).change_sign_in(user.id, change, proof, *token_hash).await?)
    }

    /// The proof that the user knows their password and has their second factor.
    async fn proof(
        &self,
        context: &RequestContext,
        session: &Session,
        given: Confirmation<'_>,
    ) -> Result<Proof, SignInRefused> {
        let user = &session.user;
        // A window of its own: wrong sign-ins of others do not lock the user out of it.
        self.limit(counted("change", &user.id.to_string()), Bucket::Login).await?;
        let known = self.store.credentials_of(user.id).await?;
        let hash = known.as_ref().and_then(|known| known.password.clone());
        // The user of `aldaba dev` has no password yet, and sets the first one without one.
        if hash.is_none() && self.settings.sign_in_link.is_some_and(|sign_in_link| sign_in_link.user == user.id) {
            return Ok(Proof::Trusted);
        }
        let right = self.is_password(context, given.password, hash.clone()).await?;
        let (Some(known), Some(hash)) = (known.filter(|_| right), hash) else {
            self.note_wrong(context, WrongTry::InSession(user.clone(), "password"));
            return Err(SignInRefused::Wrong);
        };
        let step = self.checked_step(&known, given.code, CodeSource::Session).await.inspect_err(|refused| {
            if matches!(refused, SignInRefused::Wrong) {
                self.note_wrong(context, WrongTry::InSession(user.clone(), "two_factor"));
            }
        })?;
        Ok(Proof::Password(hash, step))
    }
}

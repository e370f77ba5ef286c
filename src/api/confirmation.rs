//! What takes more than a session: changing how one signs in, and what lets somebody else sign in.
//!
//! A session may have been stolen, or left open. Each step here asks for the password again, and for the code of the second factor
//! from whoever has one. `people` opens sessions; this file may call it, and the store.

use super::Api;
use super::error::{ApiError, Code};
use super::limits::Bucket;
use super::people::{Doorstep, SignInRefused, Visitor, counted, totp, totp_secret};
use super::tries::Guess;
use crate::domain::id::UserId;
use crate::domain::secret::Secret;
use crate::store::{Proof, SignIn, SignInChange, Users};

/// What somebody types who has signed in already.
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
    /// Checks that whoever has signed in is who they are, for one step that a session alone may not take.
    pub async fn confirm(
        &self,
        door: &Doorstep,
        visitor: &Visitor,
        given: Confirmation<'_>,
    ) -> Result<(), SignInRefused> {
        let proof = self.proof(door, visitor, given).await?;
        Ok(self.store.confirm(visitor.user.id, proof, visitor.session).await?)
    }

    /// Sets another password; every other session ends.
    pub async fn change_password(
        &self,
        door: &Doorstep,
        visitor: &Visitor,
        given: Confirmation<'_>,
        new: &str,
    ) -> Result<(), SignInRefused> {
        let proof = self.proof(door, visitor, given).await?;
        let (store, Visitor { user, session }) = (self.acting(door, &visitor.user), visitor);
        let change = |new| store.change_sign_in(user.id, SignInChange::Password(new), proof.clone(), *session);
        self.set_password(door, &user.email, new, change).await
    }

    /// A second factor to be set up.
    pub fn enrol(&self, visitor: &Visitor, random: Option<&str>) -> Option<Enrolment> {
        let secret = match random {
            Some(text) => Secret::parse(text)?,
            None => Secret::from_random(self.random.array()),
        };
        let totp = totp(&secret, self.brand(), visitor.email())?;
        let typed = totp_secret(&secret)?.to_base32();
        Some(Enrolment { secret: secret.reveal().to_owned(), typed, uri: totp.to_url().ok()? })
    }

    /// Sets up the second factor, once its code has proved that the app has it. Whoever has one turns it off first.
    pub async fn enable_two_factor(
        &self,
        door: &Doorstep,
        visitor: &Visitor,
        current: &str,
        secret: &str,
        code: &str,
    ) -> Result<(), SignInRefused> {
        let secret = Secret::parse(secret).ok_or(SignInRefused::Wrong)?;
        let step = self.step_of(&secret, &visitor.user, code).ok_or(SignInRefused::Wrong)?;
        // The code is the new factor's: where there is an old one, nothing was proved of it, and this is refused.
        let proof = self.proof(door, visitor, Confirmation { password: current, code: "" }).await?;
        self.change(door, visitor, proof, SignInChange::SecondFactor(secret, step)).await
    }

    /// Signs in without a second factor from now on.
    pub async fn disable_two_factor(
        &self,
        door: &Doorstep,
        visitor: &Visitor,
        given: Confirmation<'_>,
    ) -> Result<(), SignInRefused> {
        let proof = self.proof(door, visitor, given).await?;
        self.change(door, visitor, proof, SignInChange::NoSecondFactor).await
    }

    /// Turns off the second factor of another user of this account, who is told at their next sign-in.
    pub async fn reset_second_factor(
        &self,
        door: &Doorstep,
        visitor: &Visitor,
        (account, user): (&str, &str),
        given: Confirmation<'_>,
    ) -> Result<(), SignInRefused> {
        let caller = visitor.caller(Some(account)).filter(|caller| caller.may("users:write"));
        let caller = caller.ok_or(ApiError::from(Code::Forbidden))?;
        let id = UserId::parse(user).ok_or(ApiError::from(Code::NotFound))?;
        let found = self.store.user(caller.account(), id).await.map_err(ApiError::from)?;
        // Their own they turn off themselves, with its code.
        if id == visitor.user.id || !caller.permissions.covers(found.role.permissions()) {
            return Err(ApiError::from(Code::Forbidden).into());
        }
        self.confirm(door, visitor, given).await?;
        let reset = self.acting(door, &visitor.user).reset_second_factor(caller.account(), id).await;
        reset.map_err(ApiError::from)?;
        Ok(())
    }

    /// Notes that a user has read that somebody else turned off their second factor.
    pub async fn note_told(&self, door: &Doorstep, visitor: &Visitor) -> Result<(), SignInRefused> {
        self.change(door, visitor, Proof::Trusted, SignInChange::Told).await
    }

    async fn change(
        &self,
        door: &Doorstep,
        visitor: &Visitor,
        proof: Proof,
        change: SignInChange,
    ) -> Result<(), SignInRefused> {
        let Visitor { user, session } = visitor;
        Ok(self.acting(door, user).change_sign_in(user.id, change, proof, *session).await?)
    }

    /// What somebody who has signed in proves: that they know their password, and have their second factor.
    async fn proof(&self, door: &Doorstep, visitor: &Visitor, given: Confirmation<'_>) -> Result<Proof, SignInRefused> {
        let user = &visitor.user;
        // In a window of its own: who tries to sign in as them does not keep them from it.
        self.limit(counted("change", &user.id.to_string()), Bucket::Login).await?;
        let known = self.store.credentials_of(user.id).await?;
        let hash = known.as_ref().and_then(|known| known.password.clone());
        // Whom `aldaba dev` lets in has no password yet, and need not give one to get one.
        if hash.is_none() && self.settings.welcome.is_some_and(|welcome| welcome.user == user.id) {
            return Ok(Proof::Trusted);
        }
        let right = self.is_password(door, given.password, hash.clone()).await?;
        let (Some(known), Some(hash)) = (known.filter(|_| right), hash) else { return Err(SignInRefused::Wrong) };
        let step = self.guessed_step(&known, given.code, Guess::Session).await?;
        Ok(Proof::Password(hash, step))
    }
}

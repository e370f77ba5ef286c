//! Signing in: with a password and a second factor, by an invitation, and by the link of `aldaba dev`.
//!
//! A session calls the API as a [`super::Caller`], with the same checks as a key.

use super::Api;
use super::device::Device;
use super::error::ApiError;
use super::limits::Bucket;
use super::memberships::SignedIn;
use super::request_context::RequestContext;
use super::session::{Invited, Opened, SignInForm, SignInRefused, token_hash};
use super::sign_in_limits::{CodeSource, WrongTry, counted, network};
use crate::domain::account::KeyHash;
use crate::domain::user::{Email, User};
use crate::store::{Proof, SignIn, StoreError, Users};

impl Api {
    /// Signs in: opens a session, or offers a choice where the password is right for several accounts. A refusal does
    /// not tell its cause, not even by the time that it takes.
    pub async fn sign_in(&self, context: &RequestContext, form: SignInForm<'_>) -> Result<SignedIn, SignInRefused> {
        let (email, device) = (Email::parse(form.email), Device::parse(form.device));
        let (taken, scope) = self.count_sign_in(context, email.as_ref(), device.as_ref()).await?;
        let mut wrong_code = Vec::new();
        let with = (&form, device.as_ref(), &scope);
        let let_in = self.let_in(context, email.clone(), with, &mut wrong_code).await;
        let opened: Vec<User> = let_in.iter().flatten().map(|(user, _)| user.clone()).collect();
        let signed_in = match let_in {
            Ok(let_in) => self.open(context, let_in, device).await,
            Err(refused) => Err(refused),
        };
        if matches!(signed_in, Err(SignInRefused::Wrong)) {
            let is_code = !wrong_code.is_empty();
            let wrong = if is_code { WrongTry::Code(wrong_code) } else { WrongTry::Password(email, Vec::new()) };
            self.note_wrong(context, wrong);
        } else if opened.is_empty() || self.is_free_sign_in(&scope, &opened).await {
            self.give_back(taken).await;
            self.note_wrong_codes(context, wrong_code);
        } else {
            // It was wrong for the other users with the address, whose password it may have been a guess of.
            self.give_back_in(counted("address", &network(context.address())), taken).await;
            let right = opened.iter().chain(&wrong_code).map(|user| user.id).collect();
            self.note_wrong(context, WrongTry::Password(email, right));
            self.note_wrong_codes(context, wrong_code);
        }
        signed_in
    }

    /// Signs in with the link that `aldaba dev` prints.
    pub async fn sign_in_by_link(&self, context: &RequestContext, token: &str) -> Result<Option<String>, ApiError> {
        let Some(sign_in_link) = self.settings.sign_in_link else { return Ok(None) };
        if !token_hash(token).is_some_and(|given| is_same(&given, &sign_in_link.token)) {
            return Ok(None);
        }
        let user = match self.store.user(Some(sign_in_link.account), sign_in_link.user).await {
            Ok(user) => user,
            Err(StoreError::NotFound) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let token = self.acting(context, &user).sign_in(user.id, Proof::Trusted, self.sessions().lifetime).await?;
        Ok(Some(token.reveal().to_owned()))
    }

    /// Whether there is a link to sign in without a password.
    pub fn has_sign_in_link(&self) -> bool {
        self.settings.sign_in_link.is_some()
    }

    /// The user whom an invitation is for.
    pub async fn invited(&self, context: &RequestContext, token: &str) -> Result<Option<Invited>, ApiError> {
        let Some(hash) = token_hash(token) else { return Ok(None) };
        let invited = self.lookups.run(context.address(), self.store.invited(hash)).await?;
        Ok(invited.map(|user| Invited { email: user.email.to_string(), two_factor: user.two_factor }))
    }

    /// Accepts an invitation: sets the password and signs in. A user with a second factor gives its code, because the
    /// link replaces only the password.
    pub async fn join(
        &self,
        context: &RequestContext,
        token: &str,
        password: &str,
        (code, device): (&str, &str),
    ) -> Result<Opened, SignInRefused> {
        self.limit(counted("address", &network(context.address())), Bucket::Login).await?;
        let hash = token_hash(token).ok_or(SignInRefused::Wrong)?;
        let invited = self.lookups.run(context.address(), self.store.invited(hash)).await?;
        let invited = invited.ok_or(SignInRefused::Wrong)?;
        let known = self.store.credentials_of(invited.id).await?.ok_or(SignInRefused::Wrong)?;
        let step = match self.checked_step(&known, code, CodeSource::Link).await {
            Err(SignInRefused::Wrong) => {
                self.note_wrong(context, WrongTry::Code(vec![known.user]));
                return Err(SignInRefused::Wrong);
            }
            step => step?,
        };
        let store = self.acting(context, &invited);
        let user =
            self.set_password(context, &invited.email, password, |password| store.join(hash, password, step)).await?;
        let token = store.sign_in(user.id, Proof::Trusted, self.sessions().lifetime).await?;
        let device = self.known_device(Device::parse(device), user.id);
        Ok(Opened { token: token.reveal().to_owned(), device, has_news: user.factor_reset_at.is_some() })
    }
}

/// Compares in a time that does not depend on where they differ.
fn is_same(left: &KeyHash, right: &KeyHash) -> bool {
    left.as_bytes().iter().zip(right.as_bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

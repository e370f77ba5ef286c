//! One person in several accounts: which users a password opens, and the choice among them.
//!
//! Each account makes its own users, and an invitation proves nothing about an address. So each user has a password and
//! a second factor of their own, and accounts do not share them. See `docs/decisions/0006-people.md`.

use zeroize::Zeroizing;

use super::Api;
use super::device::Device;
use super::error::{ApiError, Code};
use super::passwords::{DUMMY_HASH, hash_with, salt_of};
use super::request_context::RequestContext;
use super::session::{Opened, SignInForm, SignInRefused, token_hash};
use super::sign_in_limits::{CodeSource, SignInScope};
use crate::domain::account::KeyHash;
use crate::domain::user::{Email, MAX_PASSWORD_CHARS, User};
use crate::store::{Accounts, Memberships, Proof, SignIn, StoreError};

/// Most offers that a form may send back; a sign-in makes fewer.
const MAX_OFFERS: usize = 50;

/// The result of a sign-in.
pub enum SignedIn {
    /// A session.
    Opened(Opened),
    /// Several accounts, of which one is to be chosen.
    Choice(Vec<Offer>),
}

/// An account that the sign-in may go on to.
pub struct Offer {
    /// The token that opens it.
    pub token: String,
    /// Its name and its id; an operator belongs to none.
    pub account: Option<(String, String)>,
    /// The user's role there.
    pub role: &'static str,
}

impl Api {
    /// The users with this address, password and code, each with the proof. It takes one hash, however many users there
    /// are. Users with the right password and a wrong code are added to `wrong_code`.
    pub(super) async fn let_in(
        &self,
        context: &RequestContext,
        email: Option<Email>,
        (form, device, scope): (&SignInForm<'_>, Option<&Device>, &SignInScope),
        wrong_code: &mut Vec<User>,
    ) -> Result<Vec<(User, Proof)>, SignInRefused> {
        if form.password.chars().count() > MAX_PASSWORD_CHARS {
            return Ok(Vec::new());
        }
        let like = match &email {
            Some(email) => self.store.password_of_address(email.clone()).await?,
            None => None,
        };
        let like = like.unwrap_or_else(|| DUMMY_HASH.clone());
        let (password, salt) = (Zeroizing::new(form.password.to_owned()), salt_of(&like));
        let permit = self.hashing_permit(context, email.as_ref(), device).await?;
        let hashed = self.hashing.run_in(permit, move || salt.and_then(|salt| hash_with(&password, &salt))).await?;
        let hash = hashed.ok_or_else(|| ApiError::from(Code::InternalError))?;
        let Some(email) = email else { return Ok(Vec::new()) };
        let (mut let_in, mut failed) = (Vec::new(), None);
        for known in self.store.opened_by(email, hash.clone()).await? {
            if !scope.allows(known.user.id) {
                continue;
            }
            match self.checked_step(&known, form.code, CodeSource::SignIn(device)).await {
                Ok(step) => let_in.push((known.user, Proof::Password(hash.clone(), step))),
                // The code of another account's second factor, or none.
                Err(SignInRefused::Wrong) => wrong_code.push(known.user),
                Err(refused) => failed = Some(refused),
            }
        }
        if let_in.is_empty() && wrong_code.is_empty() {
            self.count_code_of_nobody(context, form.code).await?;
        }
        failed.filter(|_| let_in.is_empty()).map_or(Ok(let_in), Err)
    }

    /// Opens a session where there is one user; otherwise offers all accounts.
    pub(super) async fn open(
        &self,
        context: &RequestContext,
        let_in: Vec<(User, Proof)>,
        device: Option<Device>,
    ) -> Result<SignedIn, SignInRefused> {
        let mut let_in = self.count_right(let_in).await?;
        if let_in.len() <= 1 {
            let (user, proof) = let_in.pop().ok_or(SignInRefused::Wrong)?;
            let token = self.acting(context, &user).sign_in(user.id, proof, self.sessions().lifetime).await?;
            let has_news = user.factor_reset_at.is_some();
            let device = self.known_device(device, user.id);
            return Ok(SignedIn::Opened(Opened { token: token.reveal().to_owned(), device, has_news }));
        }
        let mut offers = Vec::new();
        for (user, proof) in let_in {
            let token = match self.store.offer_sign_in(user.id, proof).await {
                Ok(token) => token.reveal().to_owned(),
                // The password or the second factor has changed meanwhile.
                Err(StoreError::NotFound) => continue,
                Err(error) => return Err(error.into()),
            };
            let account = match user.account {
                Some((id, _)) => Some((self.store.account(id).await?.name, id.to_string())),
                None => None,
            };
            offers.push(Offer { token, account, role: user.role.name() });
        }
        if offers.is_empty() { Err(SignInRefused::Wrong) } else { Ok(SignedIn::Choice(offers)) }
    }

    /// Opens the account that was chosen among these offers.
    pub async fn choose(
        &self,
        context: &RequestContext,
        token: &str,
        offers: &[&str],
        device: &str,
    ) -> Result<Opened, SignInRefused> {
        let hash = token_hash(token).ok_or(SignInRefused::Wrong)?;
        let offered = self.lookups.run(context.address(), self.store.offered(hash)).await?;
        let user = offered.ok_or(SignInRefused::Wrong)?;
        let others: Vec<KeyHash> = offers.iter().take(MAX_OFFERS).filter_map(|offer| token_hash(offer)).collect();
        let others = others.into_iter().filter(|other| *other != hash).collect();
        self.acting(context, &user).take_offer(hash, others, self.sessions().lifetime).await?;
        let device = self.known_device(Device::parse(device), user.id);
        Ok(Opened { token: token.to_owned(), device, has_news: user.factor_reset_at.is_some() })
    }
}

//! One person in several accounts: which users a password opens, and the choice among them.
//!
//! An account makes its users itself, and an invitation proves nothing of an address: so each user has a password and a second factor
//! of their own, and what one account does with an address shows in no other. `docs/decisions/0006-people.md` has the reasons.

use argon2::Argon2;
use argon2::password_hash::PasswordHasher as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

use super::Api;
use super::device::Device;
use super::error::{ApiError, Code};
use super::people::{Doorstep, NOBODY, Opened, SignInRefused, Typed, token_hash};
use super::tries::{Guess, Opens};
use crate::clock::Random;
use crate::domain::account::KeyHash;
use crate::domain::user::{Email, MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS, User};
use crate::store::{Accounts, Memberships, PasswordHash, Proof, SignIn, Store, StoreError};

/// Bytes of a salt (RFC 9106, section 3.1, recommends 16).
const SALT: usize = 16;

/// How often a password is hashed anew because somebody with the same address has joined meanwhile.
const MAX_HASHED: usize = 3;

/// Offers that a form brings back; no sign-in makes as many.
const MAX_OFFERS: usize = 50;

/// What a sign-in comes to.
pub enum SignedIn {
    /// A session.
    Opened(Opened),
    /// Several accounts, of which one is to be chosen.
    Choice(Vec<Offer>),
}

/// An account that somebody may choose.
pub struct Offer {
    /// What opens it.
    pub token: String,
    /// Its name and its id; an operator belongs to none.
    pub account: Option<(String, String)>,
    /// What they are there.
    pub role: &'static str,
}

/// Hashes a password with argon2id (RFC 9106), with 19 MiB of memory and two passes: with the salt of this other hash, or with
/// a new one.
pub fn hash_password(password: &str, like: Option<&PasswordHash>, random: &dyn Random) -> Option<PasswordHash> {
    let salt = like.map_or_else(|| Some(random.array()), salt_of)?;
    hash_with(password, &salt)
}

pub(super) fn hash_with(password: &str, salt: &[u8; SALT]) -> Option<PasswordHash> {
    let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), salt).ok()?;
    Some(PasswordHash(hash.to_string()))
}

/// The salt of a hash in the PHC string format: what stands after the last `$` of its recipe.
fn salt_of(hash: &PasswordHash) -> Option<[u8; SALT]> {
    let (_, salt) = hash.recipe().rsplit_once('$')?;
    STANDARD_NO_PAD.decode(salt).ok()?.try_into().ok()
}

impl Api {
    /// The users whom these words let in, each with what was proved. It takes one hash, whoever they are and however
    /// many. Users whose password was right and whose code was not are added to `wrong_code`.
    pub(super) async fn let_in(
        &self,
        door: &Doorstep,
        email: Option<Email>,
        (typed, device, opens): (&Typed<'_>, Option<&Device>, &Opens),
        wrong_code: &mut Vec<User>,
    ) -> Result<Vec<(User, Proof)>, SignInRefused> {
        if typed.password.chars().count() > MAX_PASSWORD_CHARS {
            return Ok(Vec::new());
        }
        let like = match &email {
            Some(email) => self.store.password_of_address(email.clone()).await?,
            None => None,
        };
        let like = like.unwrap_or_else(|| NOBODY.clone());
        let (password, salt) = (Zeroizing::new(typed.password.to_owned()), salt_of(&like));
        let place = self.place(door, email.as_ref(), device).await?;
        let hashed = self.hashing.run_in(place, move || salt.and_then(|salt| hash_with(&password, &salt))).await?;
        let hash = hashed.ok_or_else(|| ApiError::from(Code::InternalError))?;
        let Some(email) = email else { return Ok(Vec::new()) };
        let (mut let_in, mut failed) = (Vec::new(), None);
        for known in self.store.opened_by(email, hash.clone()).await? {
            if !opens.allows(known.user.id) {
                continue;
            }
            match self.guessed_step(&known, typed.code, Guess::SignIn(device)).await {
                Ok(step) => let_in.push((known.user, Proof::Password(hash.clone(), step))),
                // The code of another account's second factor, or none.
                Err(SignInRefused::Wrong) => wrong_code.push(known.user),
                Err(refused) => failed = Some(refused),
            }
        }
        if let_in.is_empty() && wrong_code.is_empty() {
            self.guess_for_nobody(door, typed.code).await?;
        }
        failed.filter(|_| let_in.is_empty()).map_or(Ok(let_in), Err)
    }

    /// Opens the only account of these, or offers all of them.
    pub(super) async fn open(
        &self,
        door: &Doorstep,
        mut let_in: Vec<(User, Proof)>,
        device: Option<Device>,
    ) -> Result<SignedIn, SignInRefused> {
        if let_in.len() <= 1 {
            let (user, proof) = let_in.pop().ok_or(SignInRefused::Wrong)?;
            let token = self.acting(door, &user).sign_in(user.id, proof, self.settings.sessions.lifetime).await?;
            let has_news = user.factor_reset_at.is_some();
            let device = self.known_device(device, user.id);
            return Ok(SignedIn::Opened(Opened { token: token.reveal().to_owned(), device, has_news }));
        }
        let mut offers = Vec::new();
        for (user, proof) in let_in {
            let token = match self.store.offer_sign_in(user.id, proof).await {
                Ok(token) => token.reveal().to_owned(),
                // What was proved has changed meanwhile.
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
        door: &Doorstep,
        token: &str,
        offers: &[&str],
        device: &str,
    ) -> Result<Opened, SignInRefused> {
        let hash = token_hash(token).ok_or(SignInRefused::Wrong)?;
        let user = self.store.offered(hash).await?.ok_or(SignInRefused::Wrong)?;
        let others: Vec<KeyHash> = offers.iter().take(MAX_OFFERS).filter_map(|offer| token_hash(offer)).collect();
        let others = others.into_iter().filter(|other| *other != hash).collect();
        self.acting(door, &user).take_offer(hash, others, self.settings.sessions.lifetime).await?;
        let device = self.known_device(Device::parse(device), user.id);
        Ok(Opened { token: token.to_owned(), device, has_news: user.factor_reset_at.is_some() })
    }

    /// Sets a password by a step that is repeated when it finds that the password must be hashed otherwise.
    pub(super) async fn set_password<T, R>(
        &self,
        door: &Doorstep,
        email: &Email,
        password: &str,
        mut set: impl FnMut(PasswordHash) -> R,
    ) -> Result<T, SignInRefused>
    where
        R: Future<Output = Result<T, StoreError>>,
    {
        if !(MIN_PASSWORD_CHARS..=MAX_PASSWORD_CHARS).contains(&password.chars().count()) {
            return Err(SignInRefused::Password(MIN_PASSWORD_CHARS, MAX_PASSWORD_CHARS));
        }
        for _ in 0..MAX_HASHED {
            let like = self.store.password_of_address(email.clone()).await?;
            let (password, salt) = (Zeroizing::new(password.to_owned()), like.as_ref().map(salt_of));
            let salt = salt.unwrap_or_else(|| Some(self.random.array()));
            let hashed =
                self.hashing.run(door.address(), move || salt.and_then(|salt| hash_with(&password, &salt))).await?;
            match set(hashed.ok_or_else(|| ApiError::from(Code::InternalError))?).await {
                Err(StoreError::OtherRecipe) => {}
                other => return Ok(other?),
            }
        }
        Err(ApiError::from(Code::Unavailable).with_header("retry-after", 1).into())
    }
}

/// Makes a password for somebody with this address, for a command: hashed like others of the address.
pub async fn hash_for_address(
    store: &Store,
    email: &Email,
    password: &str,
    random: &dyn Random,
) -> Result<Option<PasswordHash>, StoreError> {
    let like = store.password_of_address(email.clone()).await?;
    Ok(hash_password(password, like.as_ref(), random))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededRandom;

    #[test]
    fn a_password_that_is_hashed_like_another_differs_only_where_the_passwords_do() {
        let random = SeededRandom::new(1);
        let first = hash_password("correct horse", None, &random).expect("a hash");
        let same = hash_password("correct horse", Some(&first), &random).expect("a hash");
        let other = hash_password("another horse", Some(&first), &random).expect("a hash");
        assert!(same == first && other != first && other.recipe() == first.recipe());
        let fresh = hash_password("correct horse", None, &random).expect("a hash");
        assert!(fresh != first && fresh.recipe() != first.recipe());
        assert!(hash_password("correct horse", Some(&PasswordHash("nonsense".into())), &random).is_none());
    }
}

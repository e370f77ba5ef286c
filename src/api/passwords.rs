//! Passwords: hashing, checking and setting them. All users with one e-mail address share a salt, so that a sign-in
//! takes one hash, however many there are.

use std::sync::LazyLock;

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

use super::Api;
use super::error::{ApiError, Code};
use super::request_context::RequestContext;
use super::session::SignInRefused;
use crate::clock::Random;
use crate::domain::user::{Email, MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS};
use crate::store::{Memberships, PasswordHash, Store, StoreError};

/// Bytes of a salt (RFC 9106, section 3.1, recommends 16).
const SALT: usize = 16;

/// How often a password is hashed anew because somebody with the same address has joined meanwhile.
const MAX_HASHED: usize = 3;

/// A hash of no user's password. It is checked where there is no user, so that the answer takes as long.
pub(super) static DUMMY_HASH: LazyLock<PasswordHash> = LazyLock::new(|| {
    hash_with("nobody's", &[0; SALT]).expect("argon2 takes any short password and a salt of 16 bytes")
});

/// Hashes a password with argon2id (RFC 9106), with 19 MiB of memory and two passes: with the salt of this other hash,
/// or with a new one.
pub fn hash_password(password: &str, like: Option<&PasswordHash>, random: &dyn Random) -> Option<PasswordHash> {
    let salt = like.map_or_else(|| Some(random.array()), salt_of)?;
    hash_with(password, &salt)
}

pub(super) fn hash_with(password: &str, salt: &[u8; SALT]) -> Option<PasswordHash> {
    let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), salt).ok()?;
    Some(PasswordHash(hash.to_string()))
}

/// The salt of a hash in the PHC string format: what stands after the last `$` of its recipe.
pub(super) fn salt_of(hash: &PasswordHash) -> Option<[u8; SALT]> {
    let (_, salt) = hash.recipe().rsplit_once('$')?;
    STANDARD_NO_PAD.decode(salt).ok()?.try_into().ok()
}

impl Api {
    /// Whether this is the password of the hash. Without a hash the answer is no, and takes as long.
    pub(super) async fn is_password(
        &self,
        context: &RequestContext,
        password: &str,
        hash: Option<PasswordHash>,
    ) -> Result<bool, ApiError> {
        if password.chars().count() > MAX_PASSWORD_CHARS {
            return Ok(false);
        }
        let password = Zeroizing::new(password.to_owned());
        let verify = move || {
            let known = hash.is_some();
            let PasswordHash(hash) = hash.unwrap_or_else(|| DUMMY_HASH.clone());
            Argon2::default().verify_password(password.as_bytes(), hash.as_str()).is_ok() && known
        };
        self.hashing.run(context.address(), verify).await
    }

    /// Sets a password by a step that is repeated when it finds that the password must be hashed otherwise.
    pub(super) async fn set_password<T, R>(
        &self,
        context: &RequestContext,
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
                self.hashing.run(context.address(), move || salt.and_then(|salt| hash_with(&password, &salt))).await?;
            match set(hashed.ok_or_else(|| ApiError::from(Code::InternalError))?).await {
                Err(StoreError::OtherRecipe) => {}
                other => return Ok(other?),
            }
        }
        Err(ApiError::from(Code::Unavailable).with_header("retry-after", 1).into())
    }
}

/// Hashes a password for a user with this address, with the salt of the address: for commands.
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

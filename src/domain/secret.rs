//! Secrets of endpoints and of second factors: how they are made, sealed for the database and kept from view.
//!
//! A secret leaves this file in three ways only: into a signature, into an encrypted column, and as the text of
//! the one answer that shows it.

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{digest, hmac};
use uuid::Uuid;
use zeroize::{Zeroize, Zeroizing};

use super::time::Timestamp;

/// Older secrets that may sign beside the current one; the oldest goes when there would be more.
pub const MAX_OLDER_SECRETS: usize = 4;

/// Longest overlap of an old secret and its successor, in seconds: 7 days.
pub const MAX_OVERLAP_SECONDS: u32 = 604_800;

/// Fewest and most characters of a secret.
pub const SECRET_CHARS: (usize, usize) = (24, 128);

/// What a secret looks like, as a regular expression.
pub const SECRET_PATTERN: &str = "^[!-~]{24,128}$";

/// Before the base64 text of a key, in the form of other senders.
const PREFIX: &str = "whsec_";

/// Fewest and most bytes of a key behind [`PREFIX`].
const PREFIXED_KEY: std::ops::RangeInclusive<usize> = 24..=64;

/// A signing secret: 64 lowercase hex characters, or what its owner brought.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// From 32 random bytes.
    pub fn from_random(mut bytes: [u8; 32]) -> Self {
        let secret = Self(hex::encode(bytes));
        bytes.zeroize();
        secret
    }

    /// The text for the one answer that shows it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What may be shown later: `...` and the last 4 characters.
    pub fn hint(&self) -> String {
        format!("...{}", &self.0[self.0.len() - 4..])
    }

    /// Reads a secret that was generated here.
    pub fn parse(text: &str) -> Option<Self> {
        is_generated(text).then(|| Self(text.to_owned()))
    }

    /// Reads a secret that may be its owner's own: visible ASCII characters, and behind `whsec_` padded base64.
    pub fn of_owner(text: &str) -> Option<Self> {
        let fits =
            (SECRET_CHARS.0..=SECRET_CHARS.1).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        let is_key = |key| decoded(key).is_some_and(|key| PREFIXED_KEY.contains(&key.len()));
        (fits && text.strip_prefix(PREFIX).is_none_or(is_key)).then(|| Self(text.to_owned()))
    }

    /// Whether it has the form of those that are generated here.
    pub fn is_generated(&self) -> bool {
        is_generated(&self.0)
    }

    /// Whether both are the same, in a time that does not depend on where they differ.
    pub fn is_same(&self, other: &Self) -> bool {
        hmac::verify(&self.text_key(), b"", hmac::sign(&other.text_key(), b"").as_ref()).is_ok()
    }

    /// The HMAC-SHA256 key of our own two signatures: the characters.
    pub(super) fn text_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.as_bytes())
    }

    /// The HMAC-SHA256 key of the Standard Webhooks scheme: what is behind `whsec_`, or else the text, base64-decoded;
    /// where it is no base64, the characters. A generated secret gives 48 bytes.
    pub(super) fn decoded_key(&self) -> hmac::Key {
        match decoded(self.0.strip_prefix(PREFIX).unwrap_or(&self.0)) {
            Some(bytes) => hmac::Key::new(hmac::HMAC_SHA256, &bytes),
            None => self.text_key(),
        }
    }
}

fn is_generated(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The bytes of padded base64.
fn decoded(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok().map(Zeroizing::new)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A secret as the database keeps it: a nonce and the ChaCha20-Poly1305 ciphertext (RFC 8439), beside the id of
/// the master key that sealed it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealedSecret {
    /// Which master key opens it.
    pub key_id: String,
    /// 12 bytes of nonce, then ciphertext and tag.
    pub bytes: Vec<u8>,
}

/// What a sealed text is. Its seal says so: none opens as another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SealedKind {
    /// A [`Secret`].
    Secret,
    /// The credentials of an endpoint, as the store writes them.
    Credentials,
}

impl SealedKind {
    /// What is authenticated beside the text: whose it is, and what it is.
    fn context(self, owner: Uuid) -> Vec<u8> {
        let kind: &[u8] = match self {
            Self::Secret => b"",
            Self::Credentials => b"credentials",
        };
        [&owner.as_bytes()[..], kind].concat()
    }
}

/// A sealed secret cannot be opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OpenError {
    /// No master key at hand has this id.
    #[error("no master key with the id {0} is configured (secrets.master_key, secrets.previous_master_keys)")]
    UnknownKey(String),
    /// The bytes are not what this key sealed for this owner.
    #[error("a sealed secret is damaged or belongs to something else")]
    Damaged,
}

/// A 32-byte key that seals secrets.
struct MasterKey {
    id: String,
    key: LessSafeKey,
    /// Signs what a client keeps for us: a key of its own, derived from the master key.
    signer: hmac::Key,
}

/// The master keys: the first seals, all of them open.
pub struct Keyring(Vec<MasterKey>);

impl Keyring {
    /// From the current key and those before it.
    pub fn new(current: &[u8; 32], previous: &[[u8; 32]]) -> Self {
        let keys = std::iter::once(current).chain(previous).filter_map(|bytes| {
            let id = key_id(bytes);
            let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, bytes), b"aldaba device cookies");
            let signer = hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref());
            let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, bytes).ok()?);
            Some(MasterKey { id, key, signer })
        });
        Self(keys.collect())
    }

    /// The id of the key that seals now.
    pub fn current_id(&self) -> &str {
        &self.0[0].id
    }

    /// Encrypts a secret for one row, whose public id is `owner`; `nonce` must be fresh random bytes.
    pub fn seal(&self, secret: &Secret, owner: Uuid, nonce: [u8; NONCE_LEN]) -> SealedSecret {
        self.seal_text(SealedKind::Secret, secret.0.as_bytes(), owner, nonce)
    }

    /// The same for a text of this kind.
    pub fn seal_text(&self, kind: SealedKind, text: &[u8], owner: Uuid, nonce: [u8; NONCE_LEN]) -> SealedSecret {
        let master = &self.0[0];
        let mut bytes = nonce.to_vec();
        let mut text = Zeroizing::new(text.to_vec());
        let tag = master
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(kind.context(owner)), &mut text)
            .expect("a secret is within what one ChaCha20-Poly1305 call can seal");
        bytes.extend_from_slice(&text);
        bytes.extend_from_slice(tag.as_ref());
        SealedSecret { key_id: master.id.clone(), bytes }
    }

    /// Signs what a client keeps for us (HMAC-SHA256).
    pub fn sign(&self, text: &[u8]) -> [u8; 32] {
        let signature = hmac::sign(&self.0[0].signer, text);
        signature.as_ref().try_into().expect("HMAC-SHA256 gives 32 bytes")
    }

    /// Whether one of these keys has signed it, in a time that does not depend on where signatures differ.
    pub fn is_signed(&self, text: &[u8], signature: &[u8]) -> bool {
        self.0.iter().any(|master| hmac::verify(&master.signer, text, signature).is_ok())
    }

    /// Decrypts a secret of this owner.
    pub fn open(&self, sealed: &SealedSecret, owner: Uuid) -> Result<Secret, OpenError> {
        let text = self.open_text(SealedKind::Secret, sealed, owner)?;
        std::str::from_utf8(&text).ok().and_then(Secret::of_owner).ok_or(OpenError::Damaged)
    }

    /// Encrypts anew what one of these keys has sealed.
    pub fn reseal(
        &self,
        kind: SealedKind,
        sealed: &SealedSecret,
        owner: Uuid,
        nonce: [u8; NONCE_LEN],
    ) -> Result<SealedSecret, OpenError> {
        Ok(self.seal_text(kind, &self.open_text(kind, sealed, owner)?, owner, nonce))
    }

    /// Decrypts a text of this kind and owner.
    pub fn open_text(
        &self,
        kind: SealedKind,
        sealed: &SealedSecret,
        owner: Uuid,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let master = self
            .0
            .iter()
            .find(|master| master.id == sealed.key_id)
            .ok_or_else(|| OpenError::UnknownKey(sealed.key_id.clone()))?;
        let (nonce, ciphertext) = sealed.bytes.split_at_checked(NONCE_LEN).ok_or(OpenError::Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError::Damaged)?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let aad = Aad::from(kind.context(owner));
        let length = master.key.open_in_place(nonce, aad, &mut buffer).map_err(|_| OpenError::Damaged)?.len();
        buffer.truncate(length);
        Ok(buffer)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|master| &master.id)).finish()
    }
}

/// The id of a master key: the first 8 bytes of a SHA-256 of it, which tells keys apart and tells nothing of them.
fn key_id(bytes: &[u8; 32]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"aldaba master key id\0");
    context.update(bytes);
    hex::encode(&context.finish().as_ref()[..8])
}

/// The secrets of an endpoint at one moment: the current one and, in an overlap, older ones.
#[derive(Clone, Debug)]
pub struct SecretSet {
    /// Signs always.
    pub current: Secret,
    /// Each signs beside the current one until its time.
    pub older: Vec<(Secret, Timestamp)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: Uuid = Uuid::from_bytes([1; 16]);

    #[test]
    fn a_sealed_secret_opens_for_its_own_endpoint_only() {
        let ring = Keyring::new(&[1; 32], &[]);
        let secret = Secret::from_random([9; 32]);
        let own = Secret::of_owner(&"own".repeat(40)).expect("a secret");
        assert_eq!(ring.open(&ring.seal(&own, ENDPOINT, [4; 12]), ENDPOINT), Ok(own));
        let sealed = ring.seal(&secret, ENDPOINT, [3; 12]);
        assert_eq!(ring.open(&sealed, ENDPOINT), Ok(secret));
        assert_eq!(ring.open(&sealed, Uuid::from_bytes([2; 16])), Err(OpenError::Damaged));
        let mut altered = sealed.clone();
        altered.bytes[20] ^= 1;
        assert_eq!(ring.open(&altered, ENDPOINT), Err(OpenError::Damaged));
    }

    #[test]
    fn what_is_sealed_opens_as_its_own_kind_only_also_when_it_is_sealed_anew() {
        let (ring, next) = (Keyring::new(&[1; 32], &[]), Keyring::new(&[2; 32], &[[1; 32]]));
        let text = b"a-text-that-could-be-a-secret-too";
        let sealed = ring.seal_text(SealedKind::Credentials, text, ENDPOINT, [5; 12]);
        assert!(!sealed.bytes.windows(text.len()).any(|part| part == text));
        assert_eq!(ring.open(&sealed, ENDPOINT), Err(OpenError::Damaged));
        let secret = ring.seal(&Secret::from_random([9; 32]), ENDPOINT, [3; 12]);
        let opened = ring.open_text(SealedKind::Credentials, &secret, ENDPOINT);
        assert_eq!(opened.err(), Some(OpenError::Damaged));
        let anew = next.reseal(SealedKind::Credentials, &sealed, ENDPOINT, [6; 12]).expect("opened");
        assert_eq!(anew.key_id, next.current_id());
        let opened = Keyring::new(&[2; 32], &[]).open_text(SealedKind::Credentials, &anew, ENDPOINT);
        assert_eq!(opened.expect("opened").as_slice(), text);
        let other = Keyring::new(&[3; 32], &[]).reseal(SealedKind::Credentials, &sealed, ENDPOINT, [6; 12]);
        assert_eq!(other, Err(OpenError::UnknownKey(sealed.key_id.clone())));
    }

    #[test]
    fn a_secret_of_its_owner_is_visible_ascii_and_behind_the_prefix_base64() {
        let longest = "~".repeat(128);
        let (shortest_key, longest_key) = (format!("whsec_{}", "A".repeat(32)), format!("whsec_{}==", "A".repeat(86)));
        let shortest = "!".repeat(24);
        for text in [&shortest, &longest, &shortest_key, &longest_key] {
            let secret = Secret::of_owner(text).unwrap_or_else(|| panic!("{text}"));
            assert!(secret.reveal() == text && !secret.is_generated());
        }
        assert!(Secret::of_owner(Secret::from_random([7; 32]).reveal()).is_some_and(|secret| secret.is_generated()));
        let too_long_key = format!("whsec_{}=", "A".repeat(87));
        let (short_key, loose) = (format!("whsec_{}=", "A".repeat(31)), format!("whsec_{}", "A".repeat(34)));
        let bad: [&str; 13] = [
            "",
            "short",
            &"a".repeat(23),
            &"a".repeat(129),
            "with a space in between them",
            "with-a-line-break-at-its-end\n",
            "with-a-nul-at-the-end-of-it\0",
            "ñ-is-not-one-of-the-visible-ASCII",
            &too_long_key,
            &short_key,
            &loose,
            "whsec_",
            "whsec_this-is-not-the-standard-alphabet_",
        ];
        for text in bad {
            assert!(Secret::of_owner(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_secret_is_the_same_as_itself_only() {
        let (long, longer) = ("a".repeat(127), "a".repeat(128));
        let texts = ["a-secret-of-24-characters", "A-secret-of-24-characters", &*long, &*longer];
        let secrets = texts.map(|text| Secret::of_owner(text).expect("a secret"));
        for (i, secret) in secrets.iter().enumerate() {
            for (j, other) in secrets.iter().enumerate() {
                assert_eq!(secret.is_same(other), i == j);
            }
        }
    }

    #[test]
    fn a_previous_master_key_still_opens_and_an_unknown_one_is_named() {
        let secret = Secret::from_random([9; 32]);
        let sealed = Keyring::new(&[1; 32], &[]).seal(&secret, ENDPOINT, [3; 12]);
        let both = Keyring::new(&[2; 32], &[[1; 32]]);
        assert_eq!(both.open(&sealed, ENDPOINT), Ok(secret));
        let other = Keyring::new(&[2; 32], &[]);
        assert_eq!(other.open(&sealed, ENDPOINT), Err(OpenError::UnknownKey(sealed.key_id.clone())));
    }

    #[test]
    fn a_signature_holds_for_its_text_under_this_key_and_those_before() {
        let old = Keyring::new(&[1; 32], &[]);
        let signature = old.sign(b"a text");
        assert!(old.is_signed(b"a text", &signature) && !old.is_signed(b"another", &signature));
        assert!(Keyring::new(&[2; 32], &[[1; 32]]).is_signed(b"a text", &signature));
        assert!(!Keyring::new(&[2; 32], &[]).is_signed(b"a text", &signature));
        assert!(!old.is_signed(b"a text", &signature[..31]) && !old.is_signed(b"a text", b""));
    }

    #[test]
    fn a_secret_prints_as_redacted() {
        let secret = Secret::from_random([0xcd; 32]);
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(secret.hint(), "...cdcd");
        let set = SecretSet { current: secret.clone(), older: vec![(secret, Timestamp::default())] };
        assert!(!format!("{set:?}").contains("cdcd"));
    }
}

//! Accounts and the API keys that act for them.

use std::fmt;
use std::time::Duration;

use ring::digest;
use zeroize::Zeroize;

use super::external_id::ExternalId;
use super::id::{AccountId, AccountKey, ApiKeyId};
use super::network_rules::{AccountNetworks, NetworkList};
use super::permission::Permissions;
use super::retention::OwnRetention;
use super::settings::Metadata;
use super::time::Timestamp;

/// Longest name of an account or a key, in characters.
pub const MAX_NAME_CHARS: usize = 255;

/// Whether an account or a key may be called so: a name is one line of text that moves no cursor of a terminal.
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_CHARS).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// The owner of endpoints, events and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The id outside.
    pub id: AccountId,
    /// The row inside.
    pub key: AccountKey,
    /// A label for people.
    pub name: String,
    /// How long its history is kept, where it is not as long as the settings say.
    pub retention: OwnRetention,
    /// The operator's own notes.
    pub metadata: Option<Metadata>,
    /// The operator's own name for it, which no other account of the server has.
    pub external_id: Option<ExternalId>,
    /// Where its requests may go, beside what the server's settings say.
    pub networks: AccountNetworks,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// An account about to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAccount {
    /// The label.
    pub name: String,
    /// The operator's own notes.
    pub metadata: Option<Metadata>,
    /// The operator's own name for it.
    pub external_id: Option<ExternalId>,
    /// Where its requests may go, beside what the server's settings say.
    pub networks: AccountNetworks,
}

impl From<String> for NewAccount {
    /// With nothing but its name.
    fn from(name: String) -> Self {
        Self { name, metadata: None, external_id: None, networks: AccountNetworks::default() }
    }
}

impl From<&str> for NewAccount {
    /// With nothing but its name.
    fn from(name: &str) -> Self {
        name.to_owned().into()
    }
}

/// What is to be changed of an account; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct AccountChange {
    /// The label.
    pub name: Option<String>,
    /// Of deliveries; `Some(None)` is what the settings say.
    pub deliveries: Option<Option<Duration>>,
    /// Of bodies, likewise.
    pub payloads: Option<Option<Duration>>,
    /// The operator's own notes.
    pub metadata: Option<Option<Metadata>>,
    /// The operator's own name for it.
    pub external_id: Option<Option<ExternalId>>,
    /// Networks where its receivers may live.
    pub allow_networks: Option<Option<NetworkList>>,
    /// Networks to which nothing of it is sent.
    pub deny_networks: Option<Option<NetworkList>>,
}

impl AccountChange {
    /// The fields that it names.
    pub fn fields(&self) -> Vec<&'static str> {
        let named = [
            ("name", self.name.is_some()),
            ("deliveries_retention_days", self.deliveries.is_some()),
            ("payloads_retention_days", self.payloads.is_some()),
            ("metadata", self.metadata.is_some()),
            ("external_id", self.external_id.is_some()),
            ("egress_allow_networks", self.allow_networks.is_some()),
            ("egress_deny_networks", self.deny_networks.is_some()),
        ];
        named.into_iter().filter(|(_, is_named)| *is_named).map(|(name, _)| name).collect()
    }
}

/// An API key without the key: what the database holds and the API shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// The id outside.
    pub id: ApiKeyId,
    /// The account it acts for; `None` is an operator key.
    pub account: Option<(AccountId, AccountKey)>,
    /// A label for people.
    pub name: Option<String>,
    /// What it may do.
    pub permissions: Permissions,
    /// The prefix and the last 4 characters.
    pub hint: String,
    /// After this it is refused.
    pub expires_at: Option<Timestamp>,
    /// The last call that it was used for, kept to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The key itself: shown once, when it is made.
#[derive(Clone, PartialEq, Eq)]
pub struct PlainKey(String);

impl PlainKey {
    /// The configured prefix and 32 random bytes in lowercase hex.
    pub fn from_random(prefix: &str, mut bytes: [u8; 32]) -> Self {
        let key = Self(format!("{prefix}{}", hex::encode(bytes)));
        bytes.zeroize();
        key
    }

    /// The text that the owner of the key keeps.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What may be shown later: the prefix and the last 4 characters.
    pub fn hint(&self) -> String {
        let split = self.0.len() - 64;
        format!("{}...{}", &self.0[..split], &self.0[self.0.len() - 4..])
    }
}

impl fmt::Debug for PlainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Drop for PlainKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// SHA-256 of a key. The key has 256 random bits, so a slow hash would add nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of a presented key.
    pub fn of(key: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, key.as_bytes());
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        Self(hash)
    }

    /// The hash of what a client presents as a key or a token. What does not end as [`PlainKey::from_random`] writes it
    /// is nobody's, and needs no look-up.
    pub fn of_presented(text: &str) -> Option<Self> {
        let is_random = |end: &[u8; 64]| end.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        text.as_bytes().last_chunk::<64>().is_some_and(is_random).then(|| Self::of(text))
    }

    /// The bytes that the database keeps.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From a database column.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_prints_as_redacted_and_hints_only_its_ends() {
        let key = PlainKey::from_random("mxcep_", [0xab; 32]);
        assert_eq!(key.reveal().len(), 70);
        assert_eq!(key.hint(), "mxcep_...abab");
        assert_eq!(format!("{key:?} {:?}", KeyHash::of(key.reveal())), "[redacted] [redacted]");
    }

    #[test]
    fn what_does_not_end_like_a_key_is_nobodys() {
        for prefix in ["mxcep_", "", "schlüssel-"] {
            let key = PlainKey::from_random(prefix, [0xab; 32]);
            assert!(KeyHash::of_presented(key.reveal()) == Some(KeyHash::of(key.reveal())), "{prefix}");
        }
        let almost = "a".repeat(63);
        for wrong in ["", "mxcep_", &almost, &format!("{almost}A"), &format!("{almost}g"), &format!("{almost}é")] {
            assert!(KeyHash::of_presented(wrong).is_none(), "{wrong}");
        }
    }
}

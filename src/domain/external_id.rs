//! A client's own name for something of ours, which stands for our id in paths.

use std::fmt;

use uuid::Uuid;

/// Longest external id, in characters.
pub const MAX_EXTERNAL_ID_CHARS: usize = 255;

/// The external ids that [`ExternalId::parse`] takes, as a regular expression. UUIDs match it too, and are none.
pub const EXTERNAL_ID_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._:-]{0,254}$";

/// A client's own name. It is no UUID, so that a path never means one thing by its id and another by its external id.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ExternalId(String);

impl ExternalId {
    /// Reads one: [`EXTERNAL_ID_PATTERN`], and no UUID in any of its forms.
    pub fn parse(text: &str) -> Option<Self> {
        let may_follow = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
        let is_name = (1..=MAX_EXTERNAL_ID_CHARS).contains(&text.len())
            && text.as_bytes()[0].is_ascii_alphanumeric()
            && text.bytes().all(may_follow);
        (is_name && Uuid::try_parse(text).is_err()).then(|| Self(text.to_owned()))
    }

    /// One that was parsed before it was stored.
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExternalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_external_id_is_a_plain_name_and_no_uuid() {
        for good in ["a", "7", "Order-7.b_c:d", &"a".repeat(255), "8b7967bd-c278-46ca-8bbb"] {
            assert_eq!(ExternalId::parse(good).expect(good).as_str(), good);
        }
        for bad in [
            "",
            "-a",
            ".a",
            "a b",
            "a/b",
            "ñ",
            "a\n",
            &"a".repeat(256),
            "8b7967bd-c278-46ca-8bbb-33e3131a6239",
            "8B7967BD-C278-46CA-8BBB-33E3131A6239",
            "8b7967bdc27846ca8bbb33e3131a6239",
            "urn:uuid:8b7967bd-c278-46ca-8bbb-33e3131a6239",
        ] {
            assert_eq!(ExternalId::parse(bad), None, "{bad:?}");
        }
    }
}

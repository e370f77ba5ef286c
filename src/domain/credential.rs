//! A value that an owner writes and that nobody reads again: a header's value, a password, a token, a private key.

use std::fmt;

use ring::hmac;
use zeroize::Zeroize as _;

/// Longest value of a header, and of what authentication consists of, in characters.
pub const MAX_VALUE_CHARS: usize = 1024;

/// A mask shows the end of values of at least so many characters: of a shorter one it would tell too much.
const SHOWN_FROM: usize = 12;

/// Characters that a mask shows.
const SHOWN_CHARS: usize = 4;

/// What a mask begins with.
pub const MASK: &str = "...";

/// A value that leaves its type only into a request, into an encrypted column, or as its mask.
#[derive(Clone)]
pub struct Credential(String);

impl Credential {
    /// A text that its reader has checked.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// 1 to 1024 visible ASCII characters.
    pub fn visible(text: &str) -> Option<Self> {
        is_visible(text).then(|| Self(text.to_owned()))
    }

    /// The text, for the request or for the encrypted column.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What may be shown: `...`, and of a value of 12 characters or more the last 4.
    pub fn mask(&self) -> String {
        let long = self.0.len() >= SHOWN_FROM;
        let end = long.then(|| self.0.get(self.0.len() - SHOWN_CHARS..)).flatten();
        format!("{MASK}{}", end.unwrap_or_default())
    }
}

/// Whether it is 1 to 1024 visible ASCII characters.
pub fn is_visible(text: &str) -> bool {
    (1..=MAX_VALUE_CHARS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// In a time that does not depend on where they differ.
impl PartialEq for Credential {
    fn eq(&self, other: &Self) -> bool {
        let key = |credential: &Self| hmac::Key::new(hmac::HMAC_SHA256, credential.0.as_bytes());
        hmac::verify(&key(self), b"", hmac::sign(&key(other), b"").as_ref()).is_ok()
    }
}

impl Eq for Credential {}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Drop for Credential {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What may be shown, together with the value that may not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WithCredential<T> {
    /// What answers and pages show.
    pub shown: T,
    /// What they do not.
    pub credential: Credential,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(text: &str) -> Credential {
        Credential::new(text.to_owned())
    }

    #[test]
    fn a_mask_shows_the_end_of_long_values_only() {
        for (text, mask) in [
            ("a", "..."),
            ("elevenchars", "..."),
            ("twelve-chars", "...hars"),
            ("a longer value with spaces", "...aces"),
        ] {
            assert_eq!(credential(text).mask(), mask);
        }
    }

    #[test]
    fn a_credential_prints_as_redacted_and_is_the_same_as_itself_only() {
        let both = WithCredential { shown: "shown", credential: credential("hidden") };
        let printed = format!("{both:?}");
        assert!(printed.contains("shown") && printed.contains("[redacted]") && !printed.contains("hidden"));
        assert_eq!(credential("hidden"), credential("hidden"));
        let long = "a".repeat(100);
        for other in ["", "hiddem", "hidden ", &long] {
            assert_ne!(credential("hidden"), credential(other));
        }
    }

    #[test]
    fn a_visible_value_has_no_spaces_and_no_letters_of_other_scripts() {
        let longest = "~".repeat(1024);
        for good in ["!", "a:b", longest.as_str()] {
            assert!(Credential::visible(good).is_some_and(|value| value.reveal() == good), "{good}");
        }
        let too_long = "~".repeat(1025);
        for bad in ["", " ", "a b", "a\n", "\0", "señal", too_long.as_str()] {
            assert!(Credential::visible(bad).is_none(), "{bad:?}");
        }
    }
}

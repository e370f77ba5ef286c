//! Headers that an endpoint's owner has its requests carry: which names and values are allowed, and what is shown of
//! them.

use std::collections::BTreeMap;

use super::credential::{Credential, MASK, MAX_VALUE_CHARS};

/// Most headers of an endpoint.
pub const MAX_HEADERS: usize = 20;

/// Longest name, in characters.
pub const MAX_HEADER_NAME_CHARS: usize = 64;

/// What a name looks like, as a regular expression.
pub const HEADER_NAME_PATTERN: &str = "^[A-Za-z0-9-]{1,64}$";

/// What a value looks like, as a regular expression.
pub const HEADER_VALUE_PATTERN: &str = "^[!-~]([ -~]{0,1022}[!-~])?$";

/// The name that authentication uses.
pub const AUTHORIZATION: &str = "Authorization";

/// Names that belong to the connection or to this program, in small letters.
const REFUSED: [&str; 14] = [
    "host",
    "content-type",
    "content-length",
    "user-agent",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "forwarded",
    "traceparent",
    "tracestate",
];

/// What such names begin with. So does what is named after the brand.
const REFUSED_BEGINNINGS: [&str; 4] = ["proxy-", "x-forwarded-", "webhook-", "x-webhook-"];

/// What is shown of an endpoint's headers: each name as its owner wrote it, with the mask of its value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Headers(BTreeMap<String, String>);

impl Headers {
    /// What was parsed before it was stored.
    pub fn stored(masks: BTreeMap<String, String>) -> Self {
        Self(masks)
    }

    /// The names with their masks.
    pub fn masks(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is one of this name, in any case.
    pub fn has(&self, name: &str) -> bool {
        self.0.keys().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// Headers in place of those until now. A name without a value keeps the value that it has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NewHeaders(Vec<(String, Option<Credential>)>);

impl NewHeaders {
    /// `None` where there are too many, where a name is repeated or belongs to this program under this brand, or where
    /// a name or a value is not allowed.
    pub fn parse(entries: Vec<(String, Option<String>)>, brand: &str) -> Option<Self> {
        let is_new = |(at, (name, _)): (usize, &(String, Option<String>))| {
            !entries[..at].iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
        };
        let fits = entries.len() <= MAX_HEADERS
            && entries.iter().all(|(name, value)| is_name(name, brand) && value.as_deref().is_none_or(is_value))
            && entries.iter().enumerate().all(is_new);
        let header = |(name, value): (String, Option<String>)| (name, value.map(Credential::new));
        fits.then(|| Self(entries.into_iter().map(header).collect()))
    }

    /// The names, as they were written.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The names that keep their values.
    pub fn kept(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name.as_str())
    }

    /// What is shown of them, and their values, where these are the values until now.
    pub fn in_place_of(self, stored: &BTreeMap<String, Credential>) -> (Headers, BTreeMap<String, Credential>) {
        let value_of = |name: &str| {
            let found = stored.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            debug_assert!(found.is_some(), "a name that is not known keeps nothing: it was refused");
            found.map(|(_, value)| value.clone())
        };
        let pairs = self.0.into_iter().filter_map(|(name, value)| {
            let value = value.or_else(|| value_of(&name))?;
            Some((name, value))
        });
        let values: BTreeMap<String, Credential> = pairs.collect();
        let masks = values.iter().map(|(name, value)| (name.clone(), value.mask())).collect();
        (Headers(masks), values)
    }
}

fn is_name(name: &str, brand: &str) -> bool {
    let small = name.to_ascii_lowercase();
    let is_of_brand = || small.starts_with(&format!("x-{}-", brand.to_ascii_lowercase()));
    (1..=MAX_HEADER_NAME_CHARS).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !REFUSED.contains(&small.as_str())
        && !REFUSED_BEGINNINGS.iter().any(|beginning| small.starts_with(beginning))
        && !is_of_brand()
}

/// Whether it is a value, and no mask that is written back.
fn is_value(value: &str) -> bool {
    let is_visible = |end: Option<&u8>| end.is_some_and(u8::is_ascii_graphic);
    let bytes = value.as_bytes();
    bytes.len() <= MAX_VALUE_CHARS
        && is_visible(bytes.first())
        && is_visible(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_graphic() || *b == b' ')
        && !value.starts_with(MASK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(entries: &[(&str, Option<&str>)]) -> Option<NewHeaders> {
        let owned = |(name, value): &(&str, Option<&str>)| ((*name).to_owned(), value.map(str::to_owned));
        NewHeaders::parse(entries.iter().map(owned).collect(), "Acme-1")
    }

    #[test]
    fn names_of_the_connection_and_of_this_program_are_refused_in_any_case() {
        let longest = "N".repeat(64);
        for good in ["X-Api-Key", "authorization", "cookie", "X-Acme-10", "Te-St", "Hosts", "9", longest.as_str()] {
            assert!(parse(&[(good, Some("a"))]).is_some(), "{good}");
        }
        let too_long = "N".repeat(65);
        for bad in [
            "",
            " ",
            "a b",
            "a_b",
            "a:",
            "ñ",
            "a\n",
            &too_long,
            "HOST",
            "content-type",
            "Content-Length",
            "User-Agent",
            "connection",
            "Keep-Alive",
            "Proxy-Authorization",
            "proxy-x",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "Expect",
            "Forwarded",
            "X-Forwarded-For",
            "Webhook-Id",
            "webhook-a",
            "X-Webhook-Signature",
            "x-webhook-a",
            "X-ACME-1-Event",
            "x-acme-1-a",
            "TraceParent",
            "tracestate",
        ] {
            assert!(parse(&[(bad, Some("a"))]).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn values_are_visible_with_inner_spaces_and_no_masks() {
        let longest = format!("a{}b", " ".repeat(1022));
        for good in ["a", "a b", "Bearer ~!\"", "..a", longest.as_str()] {
            assert!(parse(&[("X-A", Some(good))]).is_some(), "{good}");
        }
        let too_long = format!("a{}b", " ".repeat(1023));
        for bad in ["", " ", " a", "a ", "a\tb", "a\r\nX-B: c", "a\0b", "ñ", "...", "...abcd", too_long.as_str()] {
            assert!(parse(&[("X-A", Some(bad))]).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn headers_are_few_and_distinct_in_any_case() {
        let many = |count: usize| {
            NewHeaders::parse((0..count).map(|n| (format!("X-{n}"), Some("a".to_owned()))).collect(), "Acme")
        };
        assert!(many(0).is_some() && many(20).is_some() && many(21).is_none());
        assert!(parse(&[("X-A", Some("a")), ("x-a", Some("b"))]).is_none());
        assert!(parse(&[("X-A", Some("a")), ("x-a", None)]).is_none());
    }

    #[test]
    fn a_name_without_a_value_keeps_it_and_one_that_is_absent_goes() {
        let first = parse(&[("X-A", Some("the value of a")), ("X-B", Some("b")), ("X-C", Some("c"))]);
        let (_, stored) = first.expect("headers").in_place_of(&BTreeMap::new());
        let next = parse(&[("x-a", None), ("X-B", Some("another value of b"))]).expect("headers");
        assert_eq!(next.kept().collect::<Vec<_>>(), ["x-a"]);
        let (shown, stored) = next.in_place_of(&stored);
        let masks: Vec<_> = shown.masks().iter().map(|(name, mask)| (name.as_str(), mask.as_str())).collect();
        assert_eq!(masks, [("X-B", "...of b"), ("x-a", "...of a")]);
        assert!(shown.has("X-A") && shown.has("x-b") && !shown.has("X-C"));
        let values: Vec<_> = stored.values().map(Credential::reveal).collect();
        assert_eq!(values, ["another value of b", "the value of a"]);
    }
}

//! A receiver's URL: parsed where it comes in, and valid by construction from then on.

use std::fmt;
use std::net::IpAddr;

/// Longest URL, in characters.
pub const MAX_URL_CHARS: usize = 2048;

/// Where the software runs, which decides what a receiver's URL may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Environment {
    /// `https` and public addresses only.
    Production,
    /// Plain HTTP and private addresses pass.
    Development,
}

/// Why a text is no receiver URL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UrlError {
    /// Nothing in it.
    #[error("the URL is empty")]
    Empty,
    /// More than [`MAX_URL_CHARS`].
    #[error("the URL is longer than {MAX_URL_CHARS} characters")]
    TooLong,
    /// No absolute `http` or `https` URL, or one with user info.
    #[error("this is no absolute http(s) URL without user info")]
    InvalidFormat,
    /// Plain HTTP in production.
    #[error("the URL must use https")]
    NotHttps,
}

/// The host of a receiver's URL.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Host {
    /// To be resolved; lowercase, in ASCII.
    Name(String),
    /// A literal address.
    Address(IpAddr),
}

impl Host {
    /// Whether it is `localhost` or below it, with or without a trailing dot (RFC 6761, section 6.3).
    pub fn is_localhost(&self) -> bool {
        let Host::Name(name) = self else { return false };
        let name = name.strip_suffix('.').unwrap_or(name);
        name == "localhost" || name.ends_with(".localhost")
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => name.fmt(f),
            Host::Address(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
            Host::Address(address) => address.fmt(f),
        }
    }
}

/// An absolute `http` or `https` URL without user info, with a host.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ReceiverUrl {
    text: String,
    /// Whether the connection is encrypted.
    pub https: bool,
    /// Where to connect to.
    pub host: Host,
    /// The TCP port.
    pub port: u16,
    /// The request target: path and query.
    pub target: String,
    /// The `Host` header: host, and port where it is not the scheme's own.
    pub authority: String,
}

impl ReceiverUrl {
    /// Parses and checks a URL (WHATWG URL standard). No network is asked.
    pub fn parse(text: &str, environment: Environment) -> Result<Self, UrlError> {
        if text.is_empty() {
            return Err(UrlError::Empty);
        }
        if text.chars().count() > MAX_URL_CHARS {
            return Err(UrlError::TooLong);
        }
        // The standard's parser mends what it reads (drops tabs, adds slashes); a receiver's URL is taken as it is or
        // not at all.
        let has_slashes = text.split_once(':').is_some_and(|(_, rest)| rest.starts_with("//"));
        if !has_slashes || text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
            return Err(UrlError::InvalidFormat);
        }
        let url = url::Url::parse(text).map_err(|_| UrlError::InvalidFormat)?;
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(UrlError::InvalidFormat),
        };
        let authority = text.split("//").nth(1).and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or("");
        if authority.is_empty() || authority.contains('@') || url.port() == Some(0) {
            return Err(UrlError::InvalidFormat);
        }
        let host = match url.host() {
            Some(url::Host::Domain(name)) if is_plausible_name(name) => Host::Name(name.to_ascii_lowercase()),
            Some(url::Host::Ipv4(v4)) => Host::Address(IpAddr::V4(v4)),
            Some(url::Host::Ipv6(v6)) => Host::Address(IpAddr::V6(v6)),
            _ => return Err(UrlError::InvalidFormat),
        };
        if !https && environment == Environment::Production {
            return Err(UrlError::NotHttps);
        }
        let target = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let port = url.port_or_known_default().ok_or(UrlError::InvalidFormat)?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        Ok(Self { text: text.to_owned(), https, host, port, target, authority })
    }

    /// The URL as it was registered.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Labels of 1 to 63 characters, 253 in all (RFC 1035, section 2.3.4); the parser has lowercased and punycoded it.
fn is_plausible_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| !label.is_empty() && label.len() <= 63)
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

impl fmt::Debug for ReceiverUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Paths and queries of receivers often carry tokens.
        write!(f, "{}://{}/…", if self.https { "https" } else { "http" }, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Environment::{Development, Production};
    use super::*;

    #[test]
    fn a_receiver_url_is_taken_apart() {
        let url = ReceiverUrl::parse("https://Hooks.Example.com:8443/a/b?c=d#e", Production).expect("a URL");
        assert_eq!(url.host, Host::Name("hooks.example.com".into()));
        assert_eq!((url.port, url.https), (8443, true));
        assert_eq!(url.target, "/a/b?c=d");
        assert_eq!(url.authority, "hooks.example.com:8443");
        assert_eq!(url.as_str(), "https://Hooks.Example.com:8443/a/b?c=d#e");
        let plain = ReceiverUrl::parse("https://[2606:4700::1]", Production).expect("a URL");
        assert_eq!((plain.target.as_str(), plain.authority.as_str()), ("/", "[2606:4700::1]"));
    }

    #[test]
    fn what_is_no_receiver_url_is_refused_with_the_reason() {
        let long = format!("https://example.com/{}", "a".repeat(2048));
        for (text, error) in [
            ("", UrlError::Empty),
            (long.as_str(), UrlError::TooLong),
            ("example.com", UrlError::InvalidFormat),
            ("/hook", UrlError::InvalidFormat),
            ("https:example.com", UrlError::InvalidFormat),
            ("https://", UrlError::InvalidFormat),
            ("https:///path", UrlError::InvalidFormat),
            ("https://user@example.com", UrlError::InvalidFormat),
            ("https://user:pass@example.com", UrlError::InvalidFormat),
            ("https://@example.com", UrlError::InvalidFormat),
            ("https://exa mple.com", UrlError::InvalidFormat),
            ("https://example.com/\n", UrlError::InvalidFormat),
            ("https:\\\\example.com", UrlError::InvalidFormat),
            ("https://example.com:0/", UrlError::InvalidFormat),
            ("https://example.com:99999/", UrlError::InvalidFormat),
            ("https://a..b/", UrlError::InvalidFormat),
            ("ftp://example.com/", UrlError::InvalidFormat),
            ("javascript://alert(1)", UrlError::InvalidFormat),
            ("http://example.com/", UrlError::NotHttps),
        ] {
            assert_eq!(ReceiverUrl::parse(text, Production).map(|_| ()), Err(error), "{text:?}");
        }
        assert!(ReceiverUrl::parse("http://127.0.0.1:3000/hook", Development).is_ok());
    }

    #[test]
    fn a_number_in_disguise_is_the_address_that_it_stands_for() {
        for text in ["https://2130706433/", "https://0x7f.1/", "https://0177.0.0.1/", "https://127.1/"] {
            let url = ReceiverUrl::parse(text, Production).expect(text);
            assert_eq!(url.host, Host::Address([127, 0, 0, 1].into()), "{text}");
        }
    }

    #[test]
    fn localhost_is_known_under_all_its_names() {
        for text in ["https://localhost/", "https://LOCALHOST./", "https://a.localhost/", "https://a.b.localhost./"] {
            assert!(ReceiverUrl::parse(text, Production).expect(text).host.is_localhost(), "{text}");
        }
        assert!(!ReceiverUrl::parse("https://localhost.example.com/", Production).expect("a URL").host.is_localhost());
    }

    proptest! {
        #[test]
        fn any_text_is_a_url_or_an_error_and_never_a_panic(text in "\\PC{0,80}") {
            let _ = ReceiverUrl::parse(&text, Development);
        }

        #[test]
        fn a_parsed_url_parses_again_to_itself(
            host in "[a-z]{1,10}(\\.[a-z]{1,5}){1,3}",
            port in 1u16..,
            path in "[a-zA-Z0-9/._~%-]{0,40}",
        ) {
            let url = ReceiverUrl::parse(&format!("https://{host}:{port}/{path}"), Production).expect("a URL");
            prop_assert_eq!(ReceiverUrl::parse(url.as_str(), Production).expect("a URL"), url);
        }
    }
}

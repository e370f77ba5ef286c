//! How requests authenticate to an endpoint's receiver: a name with a password, a token, or an access token that a
//! token server gives out (OAuth 2, RFC 6749, section 4.4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::credential::{Credential, MAX_VALUE_CHARS, is_visible};
use super::url::{Environment, ReceiverUrl};

/// How requests authenticate, without the one value that nobody reads again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Authentication {
    /// A name and a password (RFC 7617).
    Basic {
        /// The name.
        username: String,
    },
    /// A token (RFC 6750).
    Bearer,
    /// Client credentials of OAuth 2, for which a token server gives out access tokens.
    OAuth2 {
        /// Where tokens are obtained, as registered.
        token_url: String,
        /// The client's name.
        client_id: String,
        /// What the token is for.
        scope: Option<String>,
        /// Whom the token is for.
        audience: Option<String>,
    },
}

impl Authentication {
    /// Where tokens are obtained.
    pub fn token_url(&self) -> Option<&str> {
        match self {
            Self::OAuth2 { token_url, .. } => Some(token_url),
            Self::Basic { .. } | Self::Bearer => None,
        }
    }

    /// What an attempt needs of it. `None` where the token server's URL cannot be used.
    pub fn authorization(self, credential: Credential) -> Option<Authorization> {
        Some(match self {
            Self::Basic { username } => Authorization::Fixed(basic(&username, credential.reveal())),
            Self::Bearer => Authorization::Fixed(bearer(&credential)),
            Self::OAuth2 { token_url, client_id, scope, audience } => Authorization::Token(TokenGrant {
                // It may have been registered in development: each connection to it is checked.
                token_url: ReceiverUrl::parse(&token_url, Environment::Development).ok()?,
                client_id,
                client_secret: credential,
                scope,
                audience,
            }),
        })
    }
}

/// The value of the header that carries a name and a password (RFC 7617).
pub fn basic(username: &str, password: &str) -> Credential {
    let pair = Zeroizing::new(format!("{username}:{password}"));
    Credential::new(format!("Basic {}", BASE64.encode(pair.as_bytes())))
}

/// The value of the header that carries a token.
pub fn bearer(token: &Credential) -> Credential {
    Credential::new(format!("Bearer {}", token.reveal()))
}

/// The password in the value of a header that carries a name and a password.
pub fn basic_password(value: &Credential) -> Option<Credential> {
    let (scheme, pair) = value.reveal().split_once(' ')?;
    let pair = Zeroizing::new(BASE64.decode(pair).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?);
    let (_, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    Some(Credential::new(password.to_owned()))
}

/// Whether it can be the name of basic authentication: a colon ends it.
pub fn is_username(text: &str) -> bool {
    is_visible(text) && !text.contains(':')
}

/// Whether it can be the scope of a token: names, separated by spaces (RFC 6749, section 3.3).
pub fn is_scope(text: &str) -> bool {
    text.len() <= MAX_VALUE_CHARS && text.split(' ').all(is_visible)
}

/// What stands in `Authorization`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Authorization {
    /// Always this value.
    Fixed(Credential),
    /// An access token.
    Token(TokenGrant),
}

/// What an access token is obtained for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenGrant {
    /// Where.
    pub token_url: ReceiverUrl,
    /// The client's name.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: Credential,
    /// What the token is for.
    pub scope: Option<String>,
    /// Whom the token is for.
    pub audience: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorization(authentication: Authentication) -> Option<Authorization> {
        authentication.authorization(Credential::new("open sesame".to_owned()))
    }

    #[test]
    fn a_name_with_a_password_and_a_token_are_always_the_same_header() {
        let fixed = |text: &str| Some(Authorization::Fixed(Credential::new(text.to_owned())));
        // The example of RFC 7617, section 2.
        let basic = Authentication::Basic { username: "Aladdin".into() };
        assert_eq!(authorization(basic), fixed("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert_eq!(authorization(Authentication::Bearer), fixed("Bearer open sesame"));
    }

    #[test]
    fn a_token_server_is_kept_with_all_that_it_is_asked() {
        let oauth2 = |token_url: &str| Authentication::OAuth2 {
            token_url: token_url.into(),
            client_id: "aldaba".into(),
            scope: Some("a b".into()),
            audience: None,
        };
        let Some(Authorization::Token(grant)) = authorization(oauth2("https://id.example/token")) else {
            panic!("a grant")
        };
        assert_eq!((grant.token_url.as_str(), grant.client_id.as_str()), ("https://id.example/token", "aldaba"));
        assert_eq!((grant.client_secret.reveal(), grant.scope.as_deref()), ("open sesame", Some("a b")));
        assert!(!format!("{grant:?}").contains("sesame"));
        // Registered in development: the guard refuses the connection.
        assert!(authorization(oauth2("http://id.example/token")).is_some());
        assert_eq!(authorization(oauth2("no URL")), None);
    }

    #[test]
    fn names_have_no_colon_and_scopes_may_be_several() {
        assert!(is_username("a@b") && !is_username("a:b") && !is_username("") && !is_username("a b"));
        let (longest, too_long) = ("a".repeat(1024), "a".repeat(1025));
        assert!(is_scope("read") && is_scope("read write:all") && is_scope(&longest));
        for bad in ["", " ", "a ", " a", "a  b", "a\tb", "ñ", &too_long] {
            assert!(!is_scope(bad), "{bad:?}");
        }
    }
}

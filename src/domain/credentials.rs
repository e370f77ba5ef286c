//! Headers and credentials of an endpoint's requests: what is shown of them, what is not, how they are changed, and the
//! rule that none of their values follows a changed address.

use std::collections::BTreeMap;
use std::ops::Range;

use zeroize::Zeroizing;

use super::authentication::{Authentication, Authorization, TokenGrant, basic_password};
use super::client_certificate::{ClientIdentity, ShownCertificate};
use super::credential::{Credential, MASK, WithCredential};
use super::custom_headers::{AUTHORIZATION, Headers, NewHeaders};
use super::url::{Environment, ReceiverUrl};

/// The attributes of an endpoint that have values which nobody reads again, as requests name them.
pub const HEADERS: &str = "headers";
/// See [`HEADERS`].
pub const AUTHENTICATION: &str = "authentication";
/// See [`HEADERS`].
pub const CLIENT_CERTIFICATE: &str = "client_certificate";

/// The shortest value that is masked where a receiver answers with it.
const MASKED_FROM: usize = 8;

/// What is shown of an endpoint's headers and credentials.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ShownCredentials {
    /// Headers that each request carries.
    pub headers: Option<Headers>,
    /// How each request authenticates.
    pub authentication: Option<Authentication>,
    /// The certificate that connections have.
    pub client_certificate: Option<ShownCertificate>,
}

/// The values that are not shown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Credentials {
    /// The values of the headers.
    pub headers: BTreeMap<String, Credential>,
    /// The password, the token or the client's secret.
    pub authentication: Option<Credential>,
    /// The client certificate with its private key.
    pub client_certificate: Option<Credential>,
}

impl Credentials {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.authentication.is_none() && self.client_certificate.is_none()
    }
}

/// Both together, as an attempt needs them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RequestCredentials {
    /// Headers with their values, each name as its owner wrote it.
    pub headers: Vec<(String, Credential)>,
    /// What stands in `Authorization`.
    pub authorization: Option<Authorization>,
    /// The certificate that connections have, with its key.
    pub identity: Option<ClientIdentity>,
}

impl RequestCredentials {
    /// What an access token is obtained for, where requests carry one.
    pub fn grant(&self) -> Option<&TokenGrant> {
        match &self.authorization {
            Some(Authorization::Token(grant)) => Some(grant),
            Some(Authorization::Fixed(_)) | None => None,
        }
    }

    /// The text with a mask for each of the values that it has, and for this token, also where JSON has escaped them.
    /// `None` where it has none. Short values stay, because words may have them by chance.
    pub fn masked_in(&self, text: &str, token: Option<&Credential>) -> Option<String> {
        let fixed = match &self.authorization {
            Some(Authorization::Fixed(value)) => Some(value),
            Some(Authorization::Token(_)) | None => token,
        };
        let named = self.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(AUTHORIZATION));
        let authorizing: Vec<&Credential> = fixed.into_iter().chain(named.map(|(_, value)| value)).collect();
        // Of `Authorization` what comes after the scheme, and the password in it.
        let after_schemes = authorizing.iter().map(|value| {
            let value = value.reveal();
            value.split_once(' ').map_or(value, |(_, rest)| rest)
        });
        let passwords: Vec<Credential> = authorizing.iter().filter_map(|value| basic_password(value)).collect();
        let of_headers = self.headers.iter().map(|(_, value)| value.reveal());
        let all = of_headers.chain(after_schemes).chain(passwords.iter().map(Credential::reveal));
        let values: Vec<&str> = all.filter(|value| value.len() >= MASKED_FROM).collect();
        masked(text, places_of(&values, text))
    }
}

/// Where these values stand in a text, as they are or with characters that JSON writes as escapes.
fn places_of(values: &[&str], text: &str) -> Vec<Range<usize>> {
    let found = |text: &str| -> Vec<Range<usize>> {
        let of_value = |value: &&str| {
            let matches = text.match_indices(*value);
            matches.map(|(at, matched)| at..at + matched.len()).collect::<Vec<_>>()
        };
        values.iter().flat_map(of_value).collect()
    };
    let mut places = found(text);
    if !values.is_empty() && text.contains('\\') {
        let (plain, starts) = unescaped(text);
        places.extend(found(&plain).into_iter().map(|range| starts[range.start]..starts[range.end]));
    }
    places
}

/// The text with a mask at each of these places, where places that overlap have one. `None` where there is none.
fn masked(text: &str, mut places: Vec<Range<usize>>) -> Option<String> {
    if places.is_empty() {
        return None;
    }
    places.sort_unstable_by_key(|range| (range.start, range.end));
    let (mut masked, mut end) = (String::with_capacity(text.len()), 0);
    for range in places {
        if range.start >= end {
            masked.push_str(&text[end..range.start]);
            masked.push_str(MASK);
        }
        end = end.max(range.end);
    }
    masked.push_str(&text[end..]);
    Some(masked)
}

/// The text with plain ASCII characters in place of JSON's escapes, and for each of its bytes, and for its end, where
/// the character begins in `text`.
fn unescaped(text: &str) -> (Zeroizing<String>, Vec<usize>) {
    let mut plain = Zeroizing::new(String::with_capacity(text.len()));
    let mut starts = Vec::with_capacity(text.len() + 1);
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let (character, length) = escaped_character(&text[at..]).unwrap_or((first, first.len_utf8()));
        plain.push(character);
        starts.resize(plain.len(), at);
        at += length;
    }
    starts.push(at);
    (plain, starts)
}

/// The ASCII character that the text begins with as an escape, and the length of the escape.
fn escaped_character(text: &str) -> Option<(char, usize)> {
    let escape = text.strip_prefix('\\')?;
    match escape.chars().next()? {
        character @ ('"' | '\\' | '/') => Some((character, 2)),
        'u' => {
            let code = u8::from_str_radix(escape.get(1..5)?, 16).ok()?;
            code.is_ascii().then_some((char::from(code), 6))
        }
        _ => None,
    }
}

impl ShownCredentials {
    /// Together with their values. `None` where one lacks what the other has.
    pub fn with(self, credentials: Credentials) -> Option<RequestCredentials> {
        let names = self.headers.as_ref().map(Headers::masks).into_iter().flat_map(BTreeMap::keys);
        if !names.eq(credentials.headers.keys()) {
            return None;
        }
        let authorization = match (self.authentication, credentials.authentication) {
            (Some(authentication), Some(credential)) => Some(authentication.authorization(credential)?),
            (None, None) => None,
            _ => return None,
        };
        let identity = match (self.client_certificate, credentials.client_certificate) {
            (Some(_), Some(pem)) => Some(ClientIdentity::new(pem)),
            (None, None) => None,
            _ => return None,
        };
        Some(RequestCredentials { headers: credentials.headers.into_iter().collect(), authorization, identity })
    }
}

/// What an owner changes of them; `None` stays as it is, and `Some(None)` removes it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CredentialsChange {
    /// Other headers.
    pub headers: Option<Option<NewHeaders>>,
    /// Another authentication, which is replaced whole.
    pub authentication: Option<Option<WithCredential<Authentication>>>,
    /// Another client certificate, which is replaced whole.
    pub client_certificate: Option<Option<WithCredential<ShownCertificate>>>,
}

/// Why a change is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CredentialFault {
    /// The attribute at fault.
    pub attribute: &'static str,
    /// What is wrong.
    pub reason: CredentialRefusal,
}

/// See [`CredentialFault`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CredentialRefusal {
    /// A header keeps its value that there is not.
    UnknownHeader,
    /// There would be `Authorization` among the headers beside `authentication`.
    TwoAuthorizations,
    /// A value would be sent to another address than the one that it was given for.
    AddressChanged,
    /// A client certificate needs `https`.
    NotHttps,
}

/// Where the requests of an endpoint go with a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UrlAfter {
    /// Whether it has another scheme, host or port than before.
    pub moves: bool,
    /// Whether it is `https`.
    pub https: bool,
}

impl CredentialsChange {
    /// The attributes that it names.
    pub fn fields(&self) -> impl Iterator<Item = &'static str> {
        let named = [
            (HEADERS, self.headers.is_some()),
            (AUTHENTICATION, self.authentication.is_some()),
            (CLIENT_CERTIFICATE, self.client_certificate.is_some()),
        ];
        named.into_iter().filter(|(_, is_named)| *is_named).map(|(name, _)| name)
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.fields().next().is_none()
    }

    /// What is wrong with it for an endpoint that shows these, at most one fault of each attribute, in their order.
    ///
    /// A value that nobody reads again never follows a changed address. Where `url` or `token_url` gets another scheme,
    /// host or port, every header and credential must be given again or be removed.
    pub fn faults(&self, before: &ShownCredentials, url: UrlAfter) -> Vec<CredentialFault> {
        let moves = url.moves || self.token_url_moves(before);
        let found = [
            (HEADERS, self.fault_of_headers(before, moves)),
            (AUTHENTICATION, self.fault_of_authentication(before, moves)),
            (CLIENT_CERTIFICATE, self.fault_of_certificate(before, moves, url.https)),
        ];
        let fault = |(attribute, reason): (_, Option<_>)| Some(CredentialFault { attribute, reason: reason? });
        found.into_iter().filter_map(fault).collect()
    }

    fn token_url_moves(&self, before: &ShownCredentials) -> bool {
        let new = self.authentication.as_ref().and_then(Option::as_ref).and_then(|new| new.shown.token_url());
        let old = before.authentication.as_ref().and_then(Authentication::token_url);
        matches!((old, new), (Some(old), Some(new)) if !is_same_address(old, new))
    }

    fn fault_of_headers(&self, before: &ShownCredentials, moves: bool) -> Option<CredentialRefusal> {
        let known = |name: &str| before.headers.as_ref().is_some_and(|headers| headers.has(name));
        match &self.headers {
            None => {
                let has_values = before.headers.as_ref().is_some_and(|headers| !headers.is_empty());
                (moves && has_values).then_some(CredentialRefusal::AddressChanged)
            }
            Some(None) => None,
            Some(Some(new)) if !new.kept().all(known) => Some(CredentialRefusal::UnknownHeader),
            Some(Some(new)) if moves && new.kept().next().is_some() => Some(CredentialRefusal::AddressChanged),
            Some(Some(new)) => {
                let authorizes = new.names().any(|name| name.eq_ignore_ascii_case(AUTHORIZATION));
                (authorizes && self.authenticates(before)).then_some(CredentialRefusal::TwoAuthorizations)
            }
        }
    }

    fn fault_of_authentication(&self, before: &ShownCredentials, moves: bool) -> Option<CredentialRefusal> {
        if self.authentication.is_none() {
            let has_one = before.authentication.is_some();
            return (moves && has_one).then_some(CredentialRefusal::AddressChanged);
        }
        // Where headers are named too, the fault is theirs.
        let authorizes =
            self.headers.is_none() && before.headers.as_ref().is_some_and(|known| known.has(AUTHORIZATION));
        (authorizes && self.authenticates(before)).then_some(CredentialRefusal::TwoAuthorizations)
    }

    fn fault_of_certificate(&self, before: &ShownCredentials, moves: bool, https: bool) -> Option<CredentialRefusal> {
        let is_there = self.client_certificate.as_ref().map_or(before.client_certificate.is_some(), Option::is_some);
        let follows = moves && self.client_certificate.is_none();
        match (is_there, https) {
            (true, false) => Some(CredentialRefusal::NotHttps),
            (true, true) => follows.then_some(CredentialRefusal::AddressChanged),
            (false, _) => None,
        }
    }

    /// Whether the endpoint has `authentication` with this change.
    fn authenticates(&self, before: &ShownCredentials) -> bool {
        self.authentication.as_ref().map_or(before.authentication.is_some(), Option::is_some)
    }

    /// What is shown with this change, and the values, of an endpoint that has these. A change with faults is not made.
    pub fn applied_to(
        self,
        mut shown: ShownCredentials,
        mut credentials: Credentials,
    ) -> (ShownCredentials, Credentials) {
        if let Some(headers) = self.headers {
            let (masks, values) = headers.map(|new| new.in_place_of(&credentials.headers)).unzip();
            (shown.headers, credentials.headers) = (masks, values.unwrap_or_default());
        }
        if let Some(authentication) = self.authentication {
            (shown.authentication, credentials.authentication) =
                authentication.map(|WithCredential { shown, credential }| (shown, credential)).unzip();
        }
        if let Some(certificate) = self.client_certificate {
            (shown.client_certificate, credentials.client_certificate) =
                certificate.map(|WithCredential { shown, credential }| (shown, credential)).unzip();
        }
        (shown, credentials)
    }
}

/// Whether two URLs have the same scheme, host and port. What is no URL has an address of its own.
pub fn is_same_address(one: &str, other: &str) -> bool {
    let address = |text: &str| {
        let url = ReceiverUrl::parse(text, Environment::Development).ok()?;
        Some((url.https, url.host, url.port))
    };
    address(one).is_some_and(|known| address(other) == Some(known))
}

/// Whether a URL is `https`.
pub fn is_https(url: &str) -> bool {
    ReceiverUrl::parse(url, Environment::Development).is_ok_and(|url| url.https)
}

#[cfg(test)]
mod tests {
    use super::CredentialRefusal::{AddressChanged, NotHttps, TwoAuthorizations, UnknownHeader};
    use super::*;
    use crate::domain::time::Timestamp;

    fn credential(text: &str) -> Credential {
        Credential::new(text.to_owned())
    }

    fn headers(entries: &[(&str, Option<&str>)]) -> NewHeaders {
        let owned = |(name, value): &(&str, Option<&str>)| ((*name).to_owned(), value.map(str::to_owned));
        NewHeaders::parse(entries.iter().map(owned).collect(), "Acme").expect("headers")
    }

    fn bearer() -> WithCredential<Authentication> {
        WithCredential { shown: Authentication::Bearer, credential: credential("a-token") }
    }

    fn oauth2(token_url: &str) -> WithCredential<Authentication> {
        let shown = Authentication::OAuth2 {
            token_url: token_url.into(),
            client_id: "aldaba".into(),
            scope: None,
            audience: None,
        };
        WithCredential { shown, credential: credential("a-client-secret") }
    }

    fn change(
        headers: Option<Option<NewHeaders>>,
        authentication: Option<Option<WithCredential<Authentication>>>,
    ) -> CredentialsChange {
        CredentialsChange { headers, authentication, client_certificate: None }
    }

    fn certificate() -> WithCredential<ShownCertificate> {
        let shown = ShownCertificate {
            subject: "CN=a".into(),
            fingerprint: "0".repeat(64),
            not_after: Timestamp::from_millis(0),
        };
        WithCredential { shown, credential: credential("a-certificate-with-its-key") }
    }

    fn certificate_change(to: Option<WithCredential<ShownCertificate>>) -> CredentialsChange {
        CredentialsChange { client_certificate: Some(to), ..CredentialsChange::default() }
    }

    /// An endpoint with these.
    fn with(
        headers: Option<NewHeaders>,
        authentication: Option<WithCredential<Authentication>>,
    ) -> (ShownCredentials, Credentials) {
        change(Some(headers), Some(authentication)).applied_to(ShownCredentials::default(), Credentials::default())
    }

    fn refusals(
        change: &CredentialsChange,
        before: &ShownCredentials,
        url_moves: bool,
    ) -> Vec<(&'static str, CredentialRefusal)> {
        let url = UrlAfter { moves: url_moves, https: true };
        change.faults(before, url).into_iter().map(|fault| (fault.attribute, fault.reason)).collect()
    }

    #[test]
    fn no_value_follows_a_changed_address() {
        let key = || headers(&[("X-Key", Some("a"))]);
        let kept = || headers(&[("x-key", None)]);
        let (both, _) = with(Some(key()), Some(bearer()));
        let all = vec![(HEADERS, AddressChanged), (AUTHENTICATION, AddressChanged)];
        for (changed, expected) in [
            (change(None, None), all.clone()),
            (change(Some(Some(kept())), None), all),
            (change(Some(Some(key())), None), vec![(AUTHENTICATION, AddressChanged)]),
            (change(None, Some(Some(bearer()))), vec![(HEADERS, AddressChanged)]),
            (change(Some(None), None), vec![(AUTHENTICATION, AddressChanged)]),
            (change(None, Some(None)), vec![(HEADERS, AddressChanged)]),
            (change(Some(Some(key())), Some(Some(bearer()))), vec![]),
            (change(Some(Some(headers(&[]))), Some(None)), vec![]),
            (change(Some(None), Some(None)), vec![]),
        ] {
            assert_eq!(refusals(&changed, &both, true), expected, "{changed:?}");
            assert_eq!(refusals(&changed, &both, false), vec![], "the address stays: {changed:?}");
        }
        for none in [ShownCredentials::default(), with(Some(headers(&[])), None).0] {
            assert_eq!(refusals(&change(None, None), &none, true), vec![], "there is nothing that could follow");
        }
    }

    #[test]
    fn a_client_certificate_follows_no_address_and_needs_https() {
        let none = ShownCredentials::default();
        let (certified, credentials) =
            certificate_change(Some(certificate())).applied_to(none.clone(), Credentials::default());
        let (moved, http) = (UrlAfter { moves: true, https: true }, UrlAfter { moves: true, https: false });
        let stays = UrlAfter { moves: false, https: true };
        let (same, other) = (CredentialsChange::default(), certificate_change(Some(certificate())));
        let removed = certificate_change(None);
        for (change, before, url, expected) in [
            (&same, &certified, moved, Some(AddressChanged)),
            (&other, &certified, moved, None),
            (&removed, &certified, moved, None),
            (&same, &certified, stays, None),
            (&same, &certified, http, Some(NotHttps)),
            (&other, &certified, http, Some(NotHttps)),
            (&other, &none, UrlAfter { moves: false, https: false }, Some(NotHttps)),
            (&removed, &certified, http, None),
            (&same, &none, http, None),
        ] {
            let found: Vec<_> = change.faults(before, url).iter().map(|fault| fault.reason).collect();
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{change:?} {url:?}");
        }
        let request = certified.clone().with(credentials.clone()).expect("they fit");
        assert_eq!(request.identity, Some(ClientIdentity::new(certificate().credential)));
        assert_eq!(certified.with(Credentials::default()), None);
        assert_eq!(none.with(credentials), None);
    }

    #[test]
    fn a_changed_token_url_is_a_changed_address() {
        let url = "https://id.example/token";
        let (before, _) = with(Some(headers(&[("X-Key", Some("a"))])), Some(oauth2(url)));
        let refused = vec![(HEADERS, AddressChanged)];
        for (next, expected) in [
            (Some(oauth2("https://id.example/token2?a=b")), vec![]),
            (Some(oauth2("https://ID.example:443/token")), vec![]),
            (Some(oauth2("https://other.example/token")), refused.clone()),
            (Some(oauth2("https://id.example:8443/token")), refused.clone()),
            (Some(oauth2("http://id.example/token")), refused),
            (Some(bearer()), vec![]),
            (None, vec![]),
        ] {
            assert_eq!(refusals(&change(None, Some(next.clone())), &before, false), expected, "{next:?}");
        }
        let again = change(Some(Some(headers(&[("X-Key", Some("a"))]))), Some(Some(oauth2("https://b.example/"))));
        assert_eq!(refusals(&again, &before, false), vec![]);
        let (tokens, _) = with(Some(headers(&[("X-Key", Some("a"))])), Some(bearer()));
        assert_eq!(refusals(&change(None, Some(Some(oauth2(url)))), &tokens, false), vec![], "there was none before");
    }

    #[test]
    fn one_authorization_is_enough() {
        let authorization = || headers(&[("AUTHORIZATION", Some("a"))]);
        let none = ShownCredentials::default();
        let (with_header, _) = with(Some(authorization()), None);
        let (with_authentication, _) = with(None, Some(bearer()));
        let on_headers = vec![(HEADERS, TwoAuthorizations)];
        for (changed, before, expected) in [
            (change(Some(Some(authorization())), Some(Some(bearer()))), &none, on_headers.clone()),
            (change(Some(Some(authorization())), None), &with_authentication, on_headers.clone()),
            (change(Some(Some(headers(&[("authorization", None)]))), Some(Some(bearer()))), &with_header, on_headers),
            (change(None, Some(Some(bearer()))), &with_header, vec![(AUTHENTICATION, TwoAuthorizations)]),
            (change(Some(Some(authorization())), Some(None)), &with_authentication, vec![]),
            (change(Some(None), Some(Some(bearer()))), &with_header, vec![]),
            (change(Some(Some(authorization())), None), &none, vec![]),
        ] {
            assert_eq!(refusals(&changed, before, false), expected, "{changed:?}");
        }
    }

    #[test]
    fn a_header_keeps_a_value_that_there_is() {
        let (before, credentials) = with(Some(headers(&[("X-Key", Some("a"))])), None);
        let kept = change(Some(Some(headers(&[("x-KEY", None), ("X-New", Some("b"))]))), None);
        assert_eq!(refusals(&kept, &before, false), vec![]);
        let unknown = change(Some(Some(headers(&[("X-Other", None)]))), None);
        assert_eq!(refusals(&unknown, &before, false), vec![(HEADERS, UnknownHeader)]);
        assert_eq!(refusals(&kept, &ShownCredentials::default(), false), vec![(HEADERS, UnknownHeader)]);
        let (shown, credentials) = kept.applied_to(before, credentials);
        let request = shown.with(credentials).expect("they fit");
        assert_eq!(request.headers, [("X-New".to_owned(), credential("b")), ("x-KEY".to_owned(), credential("a"))]);
    }

    #[test]
    fn what_is_not_named_stays() {
        let (shown, credentials) = with(Some(headers(&[("X-Key", Some("a"))])), Some(bearer()));
        assert_eq!(
            CredentialsChange::default().applied_to(shown.clone(), credentials.clone()),
            (shown.clone(), credentials.clone())
        );
        assert!(CredentialsChange::default().is_empty());
        let removal = change(None, Some(None));
        assert_eq!(removal.fields().collect::<Vec<_>>(), [AUTHENTICATION]);
        let (without, rest) = removal.applied_to(shown.clone(), credentials.clone());
        assert_eq!((without.authentication, rest.authentication), (None, None));
        assert_eq!((without.headers, &rest.headers), (shown.headers, &credentials.headers));
    }

    #[test]
    fn what_is_shown_and_what_is_held_belong_together() {
        let (shown, credentials) = with(Some(headers(&[("X-Key", Some("a"))])), Some(bearer()));
        let request = shown.clone().with(credentials.clone()).expect("they fit");
        assert_eq!(request.authorization, Some(Authorization::Fixed(credential("Bearer a-token"))));
        assert_eq!(ShownCredentials::default().with(Credentials::default()), Some(RequestCredentials::default()));
        assert_eq!(shown.clone().with(Credentials::default()), None);
        assert_eq!(shown.with(Credentials { authentication: None, ..credentials.clone() }), None);
        assert_eq!(ShownCredentials::default().with(credentials), None);
    }

    #[test]
    fn a_value_that_a_receiver_answers_with_is_masked() {
        let entries = [("X-Key", Some("the-value-of-a-key")), ("X-Short", Some("short"))];
        let (shown, credentials) = with(Some(headers(&entries)), Some(bearer()));
        let request = shown.with(credentials).expect("they fit");
        let masked = |text: &str| request.masked_in(text, None);
        assert_eq!(masked("x-key: the-value-of-a-key, short"), Some("x-key: ..., short".into()));
        assert_eq!(masked("the-value-of-a-key the-value-of-a-key"), Some("... ...".into()));
        assert_eq!(masked("nothing of it, Bearer only"), None);
        let token = credential("Bearer a-token-of-the-server");
        let (shown, credentials) = with(None, Some(oauth2("https://id.example/")));
        let request = shown.with(credentials).expect("they fit");
        assert_eq!(request.masked_in("got a-token-of-the-server", Some(&token)), Some("got ...".into()));
    }

    #[test]
    fn a_password_is_masked_in_all_its_forms() {
        let shown = Authentication::Basic { username: "ana".into() };
        let password = r#"a/long"pass\word+"#;
        let request = with(None, Some(WithCredential { shown, credential: credential(password) }));
        let request = request.0.with(request.1).expect("they fit");
        let masked = |text: &str| request.masked_in(text, None);
        assert_eq!(masked(&format!("ana:{password}!")), Some("ana:...!".into()));
        assert_eq!(masked(r#"é{"p":"a/long\"pass\\word+"}ñ"#), Some(r#"é{"p":"..."}ñ"#.into()));
        assert_eq!(masked(r#"{"p":"a\/long\u0022pass\u005Cword\u002b"}"#), Some(r#"{"p":"..."}"#.into()));
        assert_eq!(masked(r"a/long \u00e9 \u12 \"), None);
        let Some(Authorization::Fixed(basic)) = &request.authorization else { panic!("always the same") };
        assert_eq!(masked(basic.reveal()), Some("Basic ...".into()));
        let (shown, credentials) = with(Some(headers(&[("authorization", Some(basic.reveal()))])), None);
        let request = shown.with(credentials).expect("they fit");
        assert_eq!(request.masked_in(password, None), Some("...".into()), "a header of that name is the same");
    }

    #[test]
    fn a_value_within_another_leaves_no_rest_of_it() {
        let entries = [("X-A", Some("a-short-key")), ("X-B", Some("a-short-key-and-more"))];
        let (shown, credentials) = with(Some(headers(&entries)), None);
        let request = shown.with(credentials).expect("they fit");
        let masked = |text: &str| request.masked_in(text, None);
        assert_eq!(masked("a-short-key-and-more, a-short-key, x"), Some("..., ..., x".into()));
    }

    #[test]
    fn an_address_is_scheme_host_and_port() {
        for other in ["https://shop.example/", "https://SHOP.example:443/b?c#d"] {
            assert!(is_same_address("https://shop.example/a", other), "{other}");
        }
        for other in ["http://shop.example/a", "https://shop.example:8443/a", "https://shop.example./a", "no URL"] {
            assert!(!is_same_address("https://shop.example/a", other), "{other}");
        }
        assert!(!is_same_address("no URL", "no URL"));
        assert!(is_https("HTTPS://shop.example/") && !is_https("http://shop.example/") && !is_https("no URL"));
    }
}

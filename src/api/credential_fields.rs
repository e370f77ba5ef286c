//! Headers and authentication of an endpoint as bodies and answers have them. Their values are read here and shown
//! nowhere.

use std::collections::HashSet;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::error::{Code, Fault, Words};
use super::fields::Shape;
use crate::domain::authentication::{Authentication, is_scope, is_username};
use crate::domain::credential::{Credential, MAX_VALUE_CHARS, WithCredential, is_visible};
use crate::domain::custom_headers::{HEADER_NAME_PATTERN, HEADER_VALUE_PATTERN, MAX_HEADERS, NewHeaders};
use crate::domain::url::{Environment, MAX_URL_CHARS, ReceiverUrl};

/// Names with values.
pub const HEADERS_SHAPE: Shape = Shape::Written(|| headers_schema(&json!("string")));

/// The same in a change: `null` keeps a value.
pub const NEXT_HEADERS_SHAPE: Shape = Shape::Written(|| headers_schema(&json!(["string", "null"])));

fn headers_schema(types: &Value) -> Value {
    json!({
        "type": "object",
        "maxProperties": MAX_HEADERS,
        "propertyNames": { "type": "string", "pattern": HEADER_NAME_PATTERN },
        "additionalProperties": { "type": types, "pattern": HEADER_VALUE_PATTERN, "maxLength": MAX_VALUE_CHARS },
    })
}

/// One of three ways to authenticate.
pub const AUTHENTICATION_SHAPE: Shape = Shape::Written(|| {
    let text =
        |about: &str| json!({ "type": "string", "minLength": 1, "maxLength": MAX_VALUE_CHARS, "description": about });
    json!({
        "type": "object",
        "required": ["type"],
        "additionalProperties": false,
        "properties": {
            "type": {
                "type": "string",
                "enum": ["basic", "bearer", "oauth2"],
                "description": "How: with a name and a password, with a token, or with access tokens that a token \
                                server gives out (OAuth 2 client credentials).",
            },
            "username": text("Of `basic`: the name, without a colon."),
            "password": text("Of `basic`: the password. No answer shows it."),
            "token": text("Of `bearer`: the token. No answer shows it."),
            "token_url": {
                "type": "string",
                "format": "uri",
                "maxLength": MAX_URL_CHARS,
                "description": "Of `oauth2`: where access tokens are obtained, under the same rules as `url`.",
            },
            "client_id": text("Of `oauth2`: the client's name at the token server."),
            "client_secret": text("Of `oauth2`: the client's secret. No answer shows it."),
            "scope": text("Of `oauth2`: what the token is for, if the token server asks for it."),
            "audience": text("Of `oauth2`: whom the token is for, if the token server asks for it."),
        },
    })
});

/// Reads headers, or `null`. Names of the brand are refused.
pub fn read_headers(value: &Value, brand: &str) -> Result<Option<NewHeaders>, Vec<Fault>> {
    if value.is_null() {
        return Ok(None);
    }
    let header = |(name, value): (&String, &Value)| match value {
        Value::Null => Some((name.clone(), None)),
        Value::String(text) => Some((name.clone(), Some(text.clone()))),
        _ => None,
    };
    let entries: Option<Vec<_>> = value.as_object().and_then(|object| object.iter().map(header).collect());
    let headers = entries.and_then(|entries| NewHeaders::parse(entries, brand));
    headers.map(Some).ok_or_else(|| vec![Fault::new(Code::HeadersInvalid)])
}

/// Reads authentication, or `null`.
pub fn read_authentication(
    value: &Value,
    environment: Environment,
) -> Result<Option<WithCredential<Authentication>>, Vec<Fault>> {
    if value.is_null() {
        return Ok(None);
    }
    let invalid = || vec![Fault::new(Code::AuthenticationInvalid)];
    let members = value.as_object().ok_or_else(invalid)?;
    let text = |name: &str| members.get(name).and_then(Value::as_str).filter(|text| is_visible(text));
    let owned = |name: &str| text(name).map(str::to_owned).ok_or_else(invalid);
    let credential = |name: &str| text(name).and_then(Credential::visible).ok_or_else(invalid);
    let kind = members.get("type").and_then(Value::as_str);
    if let Some(fault) = kind.and_then(|kind| fault_of_members(kind, members)) {
        return Err(vec![fault]);
    }
    let (shown, credential) = match kind {
        Some("basic") => {
            let username = owned("username")?;
            if !is_username(&username) {
                return Err(invalid());
            }
            (Authentication::Basic { username }, credential("password")?)
        }
        Some("bearer") => (Authentication::Bearer, credential("token")?),
        Some("oauth2") => {
            let token_url = members.get("token_url").ok_or_else(invalid)?;
            let (client_id, client_secret) = (owned("client_id")?, credential("client_secret")?);
            let scope = optional(members, "scope", is_scope)?;
            let audience = optional(members, "audience", is_visible)?;
            let token_url = token_url.as_str().and_then(|text| ReceiverUrl::parse(text, environment).ok());
            // The object is right but for this member.
            let at_url = || vec![Fault::new(Code::AuthenticationInvalid).at("/token_url")];
            let token_url = token_url.ok_or_else(at_url)?.as_str().to_owned();
            (Authentication::OAuth2 { token_url, client_id, scope, audience }, client_secret)
        }
        _ => return Err(invalid()),
    };
    Ok(Some(WithCredential { shown, credential }))
}

/// The fault of authentication of a known kind that has members of no meaning.
fn fault_of_members(kind: &str, members: &Map<String, Value>) -> Option<Fault> {
    let (kind, known): (&str, &[&str]) = match kind {
        "basic" => ("basic", &["type", "username", "password"]),
        "bearer" => ("bearer", &["type", "token"]),
        "oauth2" => ("oauth2", &["type", "token_url", "client_id", "client_secret", "scope", "audience"]),
        _ => return None,
    };
    let has_other = members.keys().any(|name| !known.contains(&name.as_str()));
    has_other.then(|| {
        let names = known.join(", ");
        Fault::new(Code::AuthenticationInvalid).saying(Words::new(
            format!("authentication of type {kind} has no members other than {names}."),
            format!("authentication de type {kind} no tiene más miembros que {names}."),
        ))
    })
}

/// The fault of authentication that has a name twice.
pub fn repeated_member() -> Fault {
    Fault::new(Code::AuthenticationInvalid).saying(Words::new(
        "authentication must not have a member twice.",
        "authentication no debe tener un miembro dos veces.",
    ))
}

/// A member that may be absent or `null`.
fn optional(
    members: &Map<String, Value>,
    name: &str,
    is_allowed: fn(&str) -> bool,
) -> Result<Option<String>, Vec<Fault>> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if is_allowed(text) => Ok(Some(text.clone())),
        Some(_) => Err(vec![Fault::new(Code::AuthenticationInvalid)]),
    }
}

/// Which objects of a body have a name twice: of equal names JSON keeps one, and the other would be lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RepeatedNames {
    /// `headers`.
    pub headers: bool,
    /// `authentication`.
    pub authentication: bool,
    /// `client_certificate`.
    pub client_certificate: bool,
}

impl RepeatedNames {
    /// Of a body as it was sent.
    pub fn of(body: &[u8]) -> Self {
        let Ok(sent) = serde_json::from_slice::<Sent>(body) else { return Self::default() };
        let is_repeated = |names: Option<Names>| names.is_some_and(|Names { is_repeated }| is_repeated);
        Self {
            headers: is_repeated(sent.headers),
            authentication: is_repeated(sent.authentication),
            client_certificate: is_repeated(sent.client_certificate),
        }
    }
}

#[derive(Deserialize)]
struct Sent {
    headers: Option<Names>,
    authentication: Option<Names>,
    client_certificate: Option<Names>,
}

/// The names of an object.
struct Names {
    is_repeated: bool,
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfNames;

        impl<'de> Visitor<'de> for OfNames {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Names, A::Error> {
                let (mut known, mut is_repeated) = (HashSet::new(), false);
                while let Some((name, IgnoredAny)) = members.next_entry::<String, IgnoredAny>()? {
                    is_repeated |= !known.insert(name);
                }
                Ok(Names { is_repeated })
            }
        }

        deserializer.deserialize_map(OfNames)
    }
}

/// How requests authenticate, without the value that nobody reads again.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct AuthenticationAttributes {
    /// `basic`, `bearer` or `oauth2`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of `basic`: the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub username: Option<String>,
    /// Of `oauth2`: where access tokens are obtained.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = "uri")]
    pub token_url: Option<String>,
    /// Of `oauth2`: the client's name at the token server.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub client_id: Option<String>,
    /// Of `oauth2`: what the token is for. Only present where it was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub scope: Option<String>,
    /// Of `oauth2`: whom the token is for. Only present where it was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub audience: Option<String>,
}

impl AuthenticationAttributes {
    fn bare(kind: &str) -> Self {
        Self { kind: kind.to_owned(), username: None, token_url: None, client_id: None, scope: None, audience: None }
    }
}

impl From<&Authentication> for AuthenticationAttributes {
    fn from(authentication: &Authentication) -> Self {
        match authentication.clone() {
            Authentication::Basic { username } => Self { username: Some(username), ..Self::bare("basic") },
            Authentication::Bearer => Self::bare("bearer"),
            Authentication::OAuth2 { token_url, client_id, scope, audience } => {
                Self { token_url: Some(token_url), client_id: Some(client_id), scope, audience, ..Self::bare("oauth2") }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_stands_twice_is_noticed_before_json_drops_one() {
        let of =
            |headers, authentication, client_certificate| RepeatedNames { headers, authentication, client_certificate };
        for (body, expected) in [
            (r#"{"authentication":{"type":"a","type":"b"},"headers":null}"#, of(false, true, false)),
            (r#"{"client_certificate":{"a":"1","a":"1"},"headers":{"A":"1"}}"#, of(false, false, true)),
            (r#"{"headers":{"A":"1","A":"1"},"authentication":{"b":1,"b":2}}"#, of(true, true, false)),
            (r#"{"authentication":null,"client_certificate":{"a":"1","b":"1"}}"#, RepeatedNames::default()),
        ] {
            assert_eq!(RepeatedNames::of(body.as_bytes()), expected, "{body}");
        }
        for (body, expected) in [
            (r#"{"headers":{"X-A":"1","X-A":"2"}}"#, true),
            (r#"{"url":"u","headers":{"X-A":"1","X-B":{"c":[]},"\u0058-A":null},"events":[]}"#, true),
            (r#"{"headers":{"X-A":"1","X-B":"1"}}"#, false),
            (r#"{"headers":null,"metadata":{"a":"1","a":"2"}}"#, false),
            (r#"{"headers":["a","a"]}"#, false),
            (r#"{"a":{"headers":{"X-A":"1","X-A":"2"}}}"#, false),
            ("{", false),
        ] {
            assert_eq!(RepeatedNames::of(body.as_bytes()).headers, expected, "{body}");
        }
    }

    #[test]
    fn a_wrong_token_url_is_named_where_all_else_is_right() {
        let read = |value: Value| read_authentication(&value, Environment::Production);
        let at = |value: Value| read(value).err().map(|faults| faults == [Fault::new(Code::AuthenticationInvalid)]);
        let whole = json!({ "type": "oauth2", "token_url": "https://a.b/", "client_id": "c", "client_secret": "d" });
        assert_eq!(at(whole.clone()), None);
        for (name, value, is_whole) in [
            ("token_url", json!("http://a.b/"), false),
            ("token_url", json!(7), false),
            ("client_id", json!("c d"), true),
            ("client_secret", json!(""), true),
            ("scope", json!(" a"), true),
            ("audience", json!("a b"), true),
        ] {
            let mut wrong = whole.clone();
            wrong[name] = value;
            assert_eq!(at(wrong), Some(is_whole), "{name}");
        }
        let mut more = whole;
        (more["scope"], more["audience"]) = (json!("a b"), Value::Null);
        let read = read(more).unwrap_or_default().expect("authentication");
        let Authentication::OAuth2 { scope, audience, .. } = read.shown else { panic!("OAuth 2") };
        assert_eq!((scope.as_deref(), audience), (Some("a b"), None));
    }

    #[test]
    fn a_member_of_another_kind_is_refused() {
        let read = |value: Value| read_authentication(&value, Environment::Production);
        let bearer = json!({ "type": "bearer", "token": "a" });
        assert!(read(bearer.clone()).is_ok());
        for name in ["username", "token_url", "Token", ""] {
            let mut wrong = bearer.clone();
            wrong[name] = Value::Null;
            let faults = read(wrong).expect_err("it has one member more");
            let expected = fault_of_members("bearer", json!({ "a": 1 }).as_object().expect("an object"));
            assert_eq!(Some(faults), expected.map(|fault| vec![fault]), "{name}");
        }
    }
}

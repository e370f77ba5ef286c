//! A call as its handler gets it: who calls, the path, the query and the body.

use std::fmt;

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Api;
use super::auth::Caller;
use super::bodies::Reservation;
use super::envelope::{Answer, RequestInfo};
use super::error::{ApiError, Code, Fault, Words};
use super::origin::{self, Peer};
use crate::domain::audit::Origin;
use crate::domain::id::AccountId;
use crate::store::{Page, PendingReply, ReplyScope, Store, StoredReply};

/// A call that has passed the checks of its route.
pub struct ApiCall {
    /// The server's parts.
    pub api: Api,
    /// The authenticated caller.
    pub caller: Caller,
    /// The request's id and language.
    pub info: RequestInfo,
    /// The headers.
    pub headers: HeaderMap,
    pub(super) peer: Option<Peer>,
    pub(super) params: Vec<(String, String)>,
    pub(super) query: String,
    pub(super) body: Result<Bytes, ApiError>,
    pub(super) idempotent: Option<IdempotentCall>,
    /// The memory of the body, until the call is answered.
    pub(super) _memory: Option<Reservation<Option<AccountId>>>,
}

/// A call with an idempotency key.
#[derive(Clone)]
pub(super) struct IdempotentCall {
    pub scope: ReplyScope,
    pub body_hash: [u8; 32],
}

impl ApiCall {
    /// The account that the call acts for. A route with `KeyScope::Account` is reached with an account only.
    pub fn account(&self) -> Result<AccountId, ApiError> {
        self.caller.account().ok_or_else(|| Code::Forbidden.into())
    }

    /// The store with the caller as the actor of the audit log. Every change goes through it.
    pub fn store(&self) -> Store {
        let address = self.peer.map(|Peer(peer)| self.api.client(peer, &self.headers));
        let actor = self.caller.actor.clone();
        self.api.store.acting(Origin { actor, address, request: Some(self.info.id.to_string()) })
    }

    /// The base URL by which people reach this server.
    pub fn base(&self) -> String {
        let told = self.api.changing.read().public_url.clone();
        told.or_else(|| origin::base(&self.headers)).unwrap_or_default()
    }

    /// A parameter of the path, parsed. A value that cannot be parsed is answered with 404.
    pub fn param<T>(&self, name: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, ApiError> {
        let found = self.params.iter().find(|(known, _)| known == name);
        found.and_then(|(_, value)| parse(value)).ok_or_else(|| Code::NotFound.into())
    }

    /// The parameters of the query, in the order given.
    pub fn query(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(self.query.as_bytes()).into_owned().collect()
    }

    /// A parameter that is a whole number, clamped to its bounds. Without a number it is `default`.
    pub fn number(&self, name: &str, default: u32, least: u32, most: u32) -> u32 {
        let pairs = self.query();
        let value = pairs.iter().rev().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim());
        let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return default;
        }
        let beyond = if value.starts_with('-') { i64::MIN } else { i64::MAX };
        let number = value.parse().unwrap_or(beyond).clamp(i64::from(least), i64::from(most));
        u32::try_from(number).expect("its bounds are of this type")
    }

    /// `page` and `per_page`, clamped to their bounds.
    pub fn page(&self) -> Page {
        Page { page: self.number("page", 1, 1, u32::MAX), per_page: self.number("per_page", 50, 1, 100) }
    }

    /// The bytes of the body.
    pub fn body(&self) -> Result<Bytes, ApiError> {
        self.body.clone()
    }

    /// The body, which must be JSON by its content type and begin like an object.
    pub fn json_bytes(&self) -> Result<Bytes, ApiError> {
        let body = self.body()?;
        if body.is_empty() {
            return Err(Code::BodyEmpty.into());
        }
        if !self.has_media_type(&["application/json"]) {
            return Err(Fault::new(Code::UnsupportedMediaType).naming("application/json").into());
        }
        if body.trim_ascii_start().first() != Some(&b'{') {
            let reason = Words::new("it does not begin with {", "no empieza con {");
            return Err(Fault::new(Code::InvalidJson).because(&reason).into());
        }
        Ok(body)
    }

    /// The body as a JSON object.
    pub fn json(&self) -> Result<Map<String, Value>, ApiError> {
        serde_json::from_slice(&self.json_bytes()?).map_err(|error| invalid_json(&error))
    }

    /// The same with one member as a string: its text as it came, of which a value would lose digits. `null` stays
    /// `null`.
    pub fn json_with_text(&self, name: &str) -> Result<Map<String, Value>, ApiError> {
        with_text(&self.json_bytes()?, name).map_err(|error| invalid_json(&error))
    }

    /// The body of a call that needs none: an object, or nothing at all with any content type.
    pub fn optional_json(&self) -> Result<Map<String, Value>, ApiError> {
        if self.body()?.is_empty() { Ok(Map::new()) } else { self.json() }
    }

    /// Whether the content type, without its parameters, is one of these.
    pub fn has_media_type(&self, types: &[&str]) -> bool {
        let value = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let sent = value.split(';').next().unwrap_or("").trim();
        types.iter().any(|media_type| sent.eq_ignore_ascii_case(media_type))
    }

    /// The reply that the store is to store with the effect, when the call has an idempotency key. `render` makes the
    /// reply that is repeated later: without anything that is shown only once, such as a secret.
    pub fn pending_reply<T>(&self, render: impl FnOnce(&T) -> Answer + Send + 'static) -> Option<PendingReply<T>> {
        let IdempotentCall { scope, body_hash } = self.idempotent.clone()?;
        let info = self.info.clone();
        let write = move |effect: &T| {
            let answer = render(effect);
            stored_reply(body_hash, answer.status(), &info, answer.into_body(&info.id))
        };
        Some(PendingReply { scope, render: Box::new(write) })
    }
}

fn with_text(body: &[u8], name: &str) -> serde_json::Result<Map<String, Value>> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let object = reader.deserialize_map(WithText(name))?;
    reader.end()?;
    Ok(object)
}

/// Reads an object in which the member with this name stands as a string: its text.
struct WithText<'n>(&'n str);

impl<'de> Visitor<'de> for WithText<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = if name == self.0 {
                match members.next_value::<&RawValue>()?.get() {
                    "null" => Value::Null,
                    text => text.into(),
                }
            } else {
                members.next_value()?
            };
            object.insert(name, value);
        }
        Ok(object)
    }
}

/// The error of a body that is not valid JSON, with the line and the column.
pub fn invalid_json(error: &serde_json::Error) -> ApiError {
    // The message of a parse error names the place and the syntax, not the content.
    let (english, spanish) = match error.classify() {
        serde_json::error::Category::Eof => ("it ends early", "termina antes de tiempo"),
        serde_json::error::Category::Data => ("an unexpected value", "un valor inesperado"),
        _ => ("a syntax error", "un error de sintaxis"),
    };
    let (line, column) = (error.line(), error.column());
    let reason = Words::new(
        format!("{english} at line {line} column {column}"),
        format!("{spanish} en la línea {line}, columna {column}"),
    );
    Fault::new(Code::InvalidJson).because(&reason).into()
}

/// A reply as it is stored for an idempotency key.
pub(super) fn stored_reply(body_hash: [u8; 32], status: u16, info: &RequestInfo, body: Vec<u8>) -> StoredReply {
    StoredReply { body_hash, status, request_id: info.id.to_string(), body }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_member_of_a_body_is_its_text_to_the_digit() {
        let read = |body: &str| with_text(body.as_bytes(), "f").map(Value::Object);
        for (body, expected) in [
            (r#" {"a": 1.50, "f": {"n": 1.50, "m":1e350} } "#, json!({ "a": 1.5, "f": r#"{"n": 1.50, "m":1e350}"# })),
            (r#"{"f":null,"b":[null]}"#, json!({ "f": null, "b": [null] })),
            (r#"{"f":"null"}"#, json!({ "f": "\"null\"" })),
            (r#"{"f":1,"\u0066":2}"#, json!({ "f": "2" })),
            ("{}", json!({})),
        ] {
            assert_eq!(read(body).expect(body), expected, "{body}");
        }
        for body in ["{", r#"{"f":}"#, r#"{"f":{"a":}}"#, r#"{"f":1} {}"#, r#"{"a":1e350}"#, "[]"] {
            assert!(read(body).is_err(), "{body}");
        }
    }
}

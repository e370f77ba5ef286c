//! `Idempotency-Key`: the same call twice has its effect once.
//!
//! The reply is stored in the effect's own commit. What is still in flight is marked in memory, and over many nodes by
//! a mark in the store. The mark goes with the call's end, which is tried until it is written; with the end of its
//! node; and at last by itself. Otherwise the key would answer 409 for ever after a crash.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};
use foldhash::HashSet;
use ring::digest;
use tokio::time::Instant;
use uuid::Uuid;

use super::error::{ApiError, Code};
use crate::domain::secret::Keyring;
use crate::lock::Mutex;
use crate::store::{CALL_LIFE, Calls, ReplyScope, Store, StoreError};

/// The header of the request.
const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// Ended calls whose marks are still in the store because it did not answer. Each is some 400 bytes; what does not fit
/// runs out by itself.
const MAX_ENDED: usize = 8_192;

/// Marks that go with one statement.
const ENDED_BATCH: usize = 256;

/// Between two tries. A client tries again after a second, as it is told to.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Reads the key, if there is one.
pub fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let valid = |key: &&str| {
        (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    match (value.to_str().ok().filter(valid), values.next()) {
        (Some(key), None) => Ok(Some(key.to_owned())),
        _ => Err(Code::InvalidIdempotencyKey.into()),
    }
}

/// Under this path bodies can hold values that no answer shows again.
const SECRET_PATH: &str = "/v1/webhooks";

/// The names of such values, as they are in a body.
const SECRET_NAMES: [&str; 4] = ["secret", "headers", "authentication", "client_certificate"];

/// Before the hash of a body that is signed.
const SIGNED: &[u8] = b"idempotent body\0";

/// What is stored of a body, so that the same key with another one is refused.
#[derive(Clone, Copy)]
pub struct BodyHash {
    sha256: [u8; 32],
    /// Whether the body can hold a secret: whoever reads the database must not be able to try secrets out.
    is_keyed: bool,
}

impl BodyHash {
    /// Of the body of a call to this path.
    pub fn new(path: &str, body: &[u8]) -> Self {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest::digest(&digest::SHA256, body).as_ref());
        let holds = |name: &[u8]| body.windows(name.len()).any(|part| part == name);
        // A backslash can be part of a name in JSON.
        let can_hold = || body.contains(&b'\\') || SECRET_NAMES.iter().any(|name| holds(name.as_bytes()));
        Self { sha256, is_keyed: path.starts_with(SECRET_PATH) && can_hold() }
    }

    /// As it is stored: SHA-256 of the body, or where it can hold a secret, that under a key.
    pub fn stored(&self, keyring: &Keyring) -> [u8; 32] {
        if self.is_keyed { keyring.sign(&self.signed()) } else { self.sha256 }
    }

    /// Whether this is stored of the same body. Programs before this one have stored no keyed hashes.
    pub fn is_of(&self, stored: &[u8; 32], keyring: &Keyring) -> bool {
        self.sha256 == *stored || self.is_keyed && keyring.is_signed(&self.signed(), stored)
    }

    fn signed(&self) -> Vec<u8> {
        [SIGNED, &self.sha256].concat()
    }
}

/// Keys whose first call has not been answered yet.
#[derive(Clone, Default)]
pub struct InFlight {
    scopes: Arc<Mutex<HashSet<ReplyScope>>>,
    ended: Ended,
}

impl InFlight {
    /// Marks a key, here and on every other node; `None` where it is marked already.
    pub async fn begin(&self, store: &Store, scope: &ReplyScope) -> Result<Option<Mark>, StoreError> {
        if !self.scopes.lock().insert(scope.clone()) {
            return Ok(None);
        }
        // The holder is known before the store is asked: whatever the store answers, dropping the mark ends it.
        let holder = store.draw_holder();
        let in_store = holder.map(|holder| (store.clone(), holder));
        let mark = Mark { marks: self.clone(), scope: scope.clone(), in_store };
        let begun = match holder {
            Some(holder) => store.begin_call(scope, holder).await?,
            None => true,
        };
        Ok(begun.then_some(mark))
    }
}

/// The answer to a key that is in use.
pub fn in_progress() -> ApiError {
    ApiError::from(Code::IdempotencyKeyInProgress).with_header("retry-after", 1)
}

/// The mark of a key in use. It ends with the call.
pub struct Mark {
    marks: InFlight,
    scope: ReplyScope,
    /// The store and this call's holder there, until the mark has gone from the store.
    in_store: Option<(Store, Uuid)>,
}

impl Mark {
    /// The call is answered. When this returns, the same key is no longer in use, or soon will not be: where the store
    /// does not answer, the end is tried again.
    pub async fn end(mut self) {
        let Some((store, holder)) = self.in_store.clone() else { return };
        if store.end_calls(&[(self.scope.clone(), holder)]).await.is_ok() {
            self.in_store = None;
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.marks.scopes.lock().remove(&self.scope);
        if let Some((store, holder)) = self.in_store.take() {
            self.marks.ended.add(&store, EndedCall { scope: self.scope.clone(), holder, at: Instant::now() });
        }
    }
}

/// Ended calls whose marks have yet to go from the store. One task takes them away, and ends when there are none.
#[derive(Clone, Default)]
struct Ended(Arc<Mutex<EndedCalls>>);

#[derive(Default)]
struct EndedCalls {
    waiting: VecDeque<EndedCall>,
    /// Calls that did not fit, since the task began.
    dropped: u64,
    /// Whether the task runs.
    is_running: bool,
}

#[derive(Clone)]
struct EndedCall {
    scope: ReplyScope,
    holder: Uuid,
    at: Instant,
}

impl Ended {
    fn add(&self, store: &Store, call: EndedCall) {
        let mut calls = self.0.lock();
        if calls.waiting.len() >= MAX_ENDED {
            calls.dropped += 1;
            return;
        }
        calls.waiting.push_back(call);
        if !std::mem::replace(&mut calls.is_running, true) {
            tokio::spawn(self.clone().clear(store.clone()));
        }
        debug_assert!(calls.waiting.len() <= MAX_ENDED);
    }

    async fn clear(self, store: Store) {
        while let Some(batch) = self.first() {
            match store.end_calls(&batch).await {
                Ok(()) => self.forget(batch.len()),
                Err(error) => {
                    tracing::warn!(%error, "the end of calls with an idempotency key is tried again");
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// The calls that have waited longest; `None`, and the end of the task, where there are none.
    fn first(&self) -> Option<Vec<(ReplyScope, Uuid)>> {
        let mut calls = self.0.lock();
        // Those marks are void by now.
        while calls.waiting.front().is_some_and(|call| call.at.elapsed() > CALL_LIFE) {
            calls.waiting.pop_front();
        }
        calls.is_running = !calls.waiting.is_empty();
        let dropped = if calls.is_running { 0 } else { std::mem::take(&mut calls.dropped) };
        if dropped > 0 {
            tracing::warn!(
                calls = dropped,
                "too many calls ended without the store: their keys answer 409 for three minutes"
            );
        }
        let batch = calls.waiting.iter().take(ENDED_BATCH).map(|call| (call.scope.clone(), call.holder)).collect();
        calls.is_running.then_some(batch)
    }

    /// Only the task takes calls out, so that the first ones are still those of its batch.
    fn forget(&self, count: usize) {
        self.0.lock().waiting.drain(..count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_hold_a_secret_is_hashed_under_a_key() {
        let (old, other) = (Keyring::new(&[1; 32], &[]), Keyring::new(&[2; 32], &[]));
        let after_a_change = Keyring::new(&[2; 32], &[[1; 32]]);
        let create = br#"{"data":{"attributes":{"secret":"one-of-its-owner-itself"}}}"#;
        let escaped = br#"{"data":{"attributes":{"\u0073ecret":"one-of-its-owner-itself"}}}"#;
        for body in [&create[..], &escaped[..]] {
            let hash = BodyHash::new("/v1/webhooks", body);
            let stored = hash.stored(&old);
            assert_ne!(stored, hash.sha256, "it can be tried out by nobody without the key");
            assert!(hash.is_of(&stored, &old) && hash.is_of(&stored, &after_a_change) && !hash.is_of(&stored, &other));
            assert!(hash.is_of(&hash.sha256, &old), "a program before this one has stored it");
            assert!(!BodyHash::new("/v1/webhooks", b"secret").is_of(&stored, &old));
            // Elsewhere a body has no secrets.
            let event = BodyHash::new("/v1/events", body);
            assert_eq!(event.stored(&old), event.sha256);
        }
        for body in [r#"{"headers":{"X-Key":"a"}}"#, r#"{"authentication":{"type":"bearer","token":"a"}}"#] {
            assert!(BodyHash::new("/v1/webhooks", body.as_bytes()).is_keyed, "{body}");
        }
        let without = BodyHash::new("/v1/webhooks", br#"{"data":{"attributes":{"url":"https://example.com"}}}"#);
        assert_eq!(without.stored(&old), without.sha256);
        assert!(without.is_of(&without.sha256, &old) && !without.is_of(&[0; 32], &old));
    }
}

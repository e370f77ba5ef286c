//! `Idempotency-Key`: the same call twice has its effect once.
//!
//! The answer is kept in the effect's own commit. What is still in flight is marked in memory, and over many nodes by a mark
//! that runs out: one that were kept would answer 409 for ever after a crash.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderName};
use foldhash::HashSet;
use ring::digest;
use uuid::Uuid;

use super::error::{ApiError, Code};
use crate::store::{KeepScope, Store, StoreError};

/// The header of the request.
const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

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

/// SHA-256 of a body.
pub fn hash(body: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, body).as_ref());
    hash
}

/// Keys whose first call has not been answered yet.
#[derive(Clone, Default)]
pub struct InFlight(Arc<Mutex<HashSet<KeepScope>>>);

impl InFlight {
    /// Marks a key, here and on every other node; `None` where it is marked already.
    pub async fn begin(&self, store: &Store, scope: &KeepScope) -> Result<Option<Mark>, StoreError> {
        if !self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(scope.clone()) {
            return Ok(None);
        }
        // Known before it is asked for: whatever becomes of the question, the mark is taken back.
        let holder = store.draw_holder();
        let held = holder.map(|holder| (store.clone(), holder));
        let mark = Mark { marks: self.clone(), scope: scope.clone(), held };
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

/// Gone when the call is answered, or given up.
pub struct Mark {
    marks: InFlight,
    scope: KeepScope,
    held: Option<(Store, Uuid)>,
}

impl Mark {
    /// The call is answered. When this returns, the same key is no longer in use.
    pub async fn end(mut self) {
        if let Some((store, holder)) = self.held.take() {
            end(&store, &self.scope, holder).await;
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.marks.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.scope);
        if let Some((store, holder)) = self.held.take() {
            let scope = self.scope.clone();
            tokio::spawn(async move { end(&store, &scope, holder).await });
        }
    }
}

async fn end(store: &Store, scope: &KeepScope, holder: Uuid) {
    if let Err(error) = store.end_call(scope, holder).await {
        tracing::warn!(%error, "an idempotency key stays marked until its mark runs out");
    }
}

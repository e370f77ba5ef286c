//! `Idempotency-Key`: the same call twice has its effect once.
//!
//! The answer is kept in the effect's own commit. What is still in flight is marked in memory only: a mark that were
//! kept would answer 409 for ever after a crash.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderMap;
use ring::digest;

use super::error::{ApiError, Code};
use crate::store::KeepScope;

/// The header of the request.
const HEADER: &str = "idempotency-key";

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
    /// Marks a key, or tells that it is marked already.
    pub fn begin(&self, scope: &KeepScope) -> Result<Mark, ApiError> {
        let mut marked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !marked.insert(scope.clone()) {
            return Err(ApiError::from(Code::IdempotencyKeyInProgress).with_header("retry-after", 1));
        }
        Ok(Mark { marks: self.clone(), scope: scope.clone() })
    }
}

/// Gone when the call is answered, or given up.
pub struct Mark {
    marks: InFlight,
    scope: KeepScope,
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.marks.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.scope);
    }
}

//! Who is calling: the key in `Authorization`, looked up by its hash.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderMap;

use super::error::{ApiError, Code};
use crate::domain::account::{ApiKey, KeyHash};
use crate::domain::id::{AccountId, ApiKeyId};
use crate::domain::time::Timestamp;
use crate::store::View;

/// Longest key that is hashed.
const MAX_KEY_LEN: usize = 256;

/// The authenticated caller.
#[derive(Clone)]
pub struct Caller {
    /// The key it came with.
    pub key: Arc<ApiKey>,
}

impl Caller {
    /// The account it acts for; an operator acts for none.
    pub fn account(&self) -> Option<AccountId> {
        self.key.account.map(|(id, _)| id)
    }
}

/// Reads and checks `Authorization: Bearer <key>` (RFC 6750, section 2.1).
///
/// The key is found by its SHA-256, so that the time of the look-up tells nothing about other keys.
pub fn authenticate(headers: &HeaderMap, view: &View, now: Timestamp) -> Result<Caller, ApiError> {
    let refused = || ApiError::from(Code::Unauthorized).with_header("www-authenticate", "Bearer");
    let mut values = headers.get_all("authorization").iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(refused()) };
    let (scheme, key) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(refused)?;
    if !scheme.eq_ignore_ascii_case("bearer") || key.len() > MAX_KEY_LEN {
        return Err(refused());
    }
    let key = view.api_key(&KeyHash::of(key.trim())).ok_or_else(refused)?;
    if key.expires_at.is_some_and(|at| at <= now) {
        return Err(refused());
    }
    Ok(Caller { key })
}

/// When keys were last used, until it is written down: once a minute for each key is enough.
#[derive(Default)]
pub struct KeyUses(Mutex<HashMap<ApiKeyId, Timestamp>>);

impl KeyUses {
    /// Notes a call.
    pub fn note(&self, key: &ApiKey, now: Timestamp) {
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        uses.insert(key.id, now);
    }

    /// The last call with a key that is not written down yet.
    pub fn last(&self, key: ApiKeyId) -> Option<Timestamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied()
    }

    /// Takes what was noted.
    pub fn take(&self) -> Vec<(ApiKeyId, Timestamp)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).drain().collect()
    }
}

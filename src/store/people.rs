//! The store, as far as people are concerned: users and what they sign in with, portal links, and the counts that charts show.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Credentials, Keep, NewPortalLink, NewUser, Page, Paged, PasswordHash, Proof, SignInChange, Store, StoreError,
    Which, WithToken, postgres,
};
use crate::domain::account::{KeyHash, PlainKey};
use crate::domain::id::{AccountId, EndpointId, PortalLinkId, UserId};
use crate::domain::secret::Keyring;
use crate::domain::statistics::{Count, Counted};
use crate::domain::time::Timestamp;
use crate::domain::user::{Email, PortalLink, Role, User};

impl Store {
    /// The master keys: they sign what a browser keeps for us.
    pub fn keyring(&self) -> Arc<Keyring> {
        match &self.0 {
            Which::Sqlite(store) => store.keyring(),
            Which::Postgres(store) => store.keyring(),
        }
    }
}

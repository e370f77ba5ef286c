//! The roles `Accounts`, `Catalog` and `Endpoints`: accounts and their API keys, event types, endpoints.

use std::time::Duration;

use crate::domain::account::{Account, AccountChange, ApiKey, NewAccount};
use crate::domain::endpoint::Endpoint;
use crate::domain::event::EventType;
use crate::domain::external_id::ExternalId;
use crate::domain::id::{AccountId, ApiKeyId, EndpointId};
use crate::domain::permission::Permissions;
use crate::domain::secret::Secret;
use crate::domain::settings::EndpointChange;
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::values::{NewApiKey, NewEndpoint, Page, Paged, PendingReply, WithKey, WithSecret};

role! {
    /// Accounts and API keys.
    pub trait Accounts {
        /// Makes an account. An external id that another account has is [`StoreError::ExternalIdTaken`].
        async fn create_account(
            &self,
            new: NewAccount,
            pending_reply: Option<PendingReply<Account>>,
        ) -> Result<Account, StoreError>;

        /// The id of the account that has this external id.
        async fn account_named(&self, name: ExternalId) -> Result<AccountId, StoreError>;

        /// Changes an account. An external id that another account has is [`StoreError::ExternalIdTaken`].
        async fn update_account(&self, id: AccountId, change: AccountChange) -> Result<Account, StoreError>;

        /// Deletes an account, its keys, users, portal links and endpoints at once, and the rest of what it owned in
        /// the background.
        async fn delete_account(&self, id: AccountId) -> Result<(), StoreError>;

        /// One account.
        async fn account(&self, id: AccountId) -> Result<Account, StoreError>;

        /// All accounts, newest first.
        async fn accounts(&self, page: Page) -> Result<Paged<Account>, StoreError>;

        /// Makes an API key; the key itself is in this answer only. An account that has as many as it may have gets
        /// none: [`StoreError::KeyLimitReached`].
        async fn create_api_key(
            &self,
            new: NewApiKey,
            prefix: String,
            pending_reply: Option<PendingReply<WithKey>>,
        ) -> Result<WithKey, StoreError>;

        /// Keys of an account, newest first; of no account, the operators'.
        async fn api_keys(&self, account_id: Option<AccountId>, page: Page) -> Result<Paged<ApiKey>, StoreError>;

        /// Revokes a key of an account, or an operator's, for a caller with the permissions `by`. A key that has more
        /// permissions stays: [`StoreError::AllowsMore`].
        async fn delete_api_key(
            &self,
            account_id: Option<AccountId>,
            id: ApiKeyId,
            by: Permissions,
        ) -> Result<(), StoreError>;

        /// Notes when keys were last used.
        async fn record_key_use(&self, uses: Vec<(ApiKeyId, Timestamp)>) -> Result<(), StoreError>;
    }
}

role! {
    /// The catalog of event types. [`View::event_types`](crate::store::View::event_types) shows it.
    pub trait Catalog {
        /// Adds a type to the catalog.
        async fn create_event_type(
            &self,
            new: EventType,
            pending_reply: Option<PendingReply<EventType>>,
        ) -> Result<EventType, StoreError>;

        /// Replaces a type's description, schema and example.
        async fn update_event_type(&self, entry: EventType) -> Result<EventType, StoreError>;

        /// Removes a type from the catalog. Endpoints that subscribe to it stay subscribed.
        async fn delete_event_type(&self, name: String) -> Result<(), StoreError>;
    }
}

role! {
    /// Webhook endpoints and their secrets.
    pub trait Endpoints {
        /// Registers an endpoint. Its secret is in this answer only. An external id that another endpoint of the
        /// account has is [`StoreError::ExternalIdTaken`].
        async fn create_endpoint(
            &self,
            owner: AccountId,
            new: NewEndpoint,
            pending_reply: Option<PendingReply<WithSecret<Endpoint>>>,
        ) -> Result<WithSecret<Endpoint>, StoreError>;

        /// Every endpoint of the account, newest first.
        async fn endpoints(&self, owner: AccountId) -> Result<Vec<Endpoint>, StoreError>;

        /// One endpoint of the account.
        async fn endpoint(&self, owner: AccountId, id: EndpointId) -> Result<Endpoint, StoreError>;

        /// The id of the account's endpoint that has this external id.
        async fn endpoint_named(&self, owner: AccountId, name: ExternalId) -> Result<EndpointId, StoreError>;

        /// Changes an endpoint. An external id that another endpoint of the account has is
        /// [`StoreError::ExternalIdTaken`]. Headers and credentials that do not fit those of the endpoint, or that
        /// would follow a changed address, are [`StoreError::CredentialsRefused`].
        async fn update_endpoint(
            &self,
            owner: AccountId,
            id: EndpointId,
            change: EndpointChange,
        ) -> Result<Endpoint, StoreError>;

        /// Deletes an endpoint at once, and its history in the background.
        async fn delete_endpoint(&self, owner: AccountId, id: EndpointId) -> Result<(), StoreError>;

        /// Replaces the signing secret by this one; `None` is one that is generated. Without an overlap every older
        /// secret is dead with the commit. With an overlap the secret until now signs beside the new one for that long.
        /// The secret until now is [`StoreError::SecretUnchanged`].
        async fn rotate_secret(
            &self,
            owner: AccountId,
            id: EndpointId,
            secret: Option<Secret>,
            overlap: Duration,
            pending_reply: Option<PendingReply<WithSecret<Endpoint>>>,
        ) -> Result<WithSecret<Endpoint>, StoreError>;
    }
}

//! Accounts, API keys and the catalog of event types.

use std::time::Duration;

use deadpool_postgres::{Object, Transaction};

use super::catalog_rows::{
    ACCOUNT_COLUMNS, API_KEY_COLUMNS, account, account_from_row, api_key_from_row, lock_account,
};
use super::change_feed::{Change, write_change};
use super::migrate::require;
use super::sql::{count, execute, get, offset, one, rows, sealed, text};
use super::store::Store;
use super::stored_replies::write_pending_reply;
use crate::domain::account::{Account, AccountChange, ApiKey, KeyHash, NewAccount, PlainKey};
use crate::domain::audit::Action;
use crate::domain::event::EventType;
use crate::domain::external_id::ExternalId;
use crate::domain::id::{AccountId, AccountKey, ApiKeyId, EndpointId, EndpointKey};
use crate::domain::network_rules::AccountNetworks;
use crate::domain::permission::Permissions;
use crate::domain::secret::{Keyring, SealedSecret};
use crate::domain::time::{Timestamp, millis};
use crate::store::contract::{Accounts, Catalog};
use crate::store::credentials::{self, KEY_ID, SEALED};
use crate::store::errors::{OpenError, StoreError};
use crate::store::settings::AccountSettings;
use crate::store::shared::AuditRecord;
use crate::store::values::{NewApiKey, Page, Paged, PendingReply, StoreSettings, WithKey};

/// How long the answer to a change waits for this node's own view.
const REFRESH_TIMEOUT: Duration = Duration::from_millis(500);

impl Accounts for Store {
    async fn create_account(
        &self,
        new: NewAccount,
        pending_reply: Option<PendingReply<Account>>,
    ) -> Result<Account, StoreError> {
        let (id, name, now) = (AccountId::from_random(self.shared.random.array()), text(new.name), self.now());
        let settings = AccountSettings { metadata: new.metadata, networks: new.networks };
        let (settings, requires) = settings.column("{}")?;
        let external_id = new.external_id.as_ref().map(ExternalId::as_str);
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        require(&tx, &self.pool, requires).await?;
        let sql = "INSERT INTO accounts (id, name, settings, external_id, created_at, updated_at) \
                   VALUES ($1, $2, $3, $4, $5, $5)";
        let statement = tx.prepare_cached(sql).await?;
        let parameters: super::sql::Params<'_> = &[&id.0, &name, &settings, &external_id, &now.as_millis()];
        tx.execute(&statement, parameters).await.map_err(taken)?;
        let account = account(&tx, id).await?;
        let key = account.key;
        self.audit(&tx, &AuditRecord::of(key, Action::AccountCreated, id), now).await?;
        write_pending_reply(&tx, pending_reply, &account, now).await?;
        write_change(&tx, Change::Account(key), now).await?;
        self.commit(tx).await?;
        Ok(account)
    }

    async fn account_named(&self, name: ExternalId) -> Result<AccountId, StoreError> {
        let db = self.client_for(None).await?;
        let sql = "SELECT id FROM accounts WHERE external_id = $1 AND deleted_at IS NULL";
        Ok(AccountId(get(&one(&*db, sql, &[&name.as_str()]).await?, "id")?))
    }

    async fn update_account(&self, id: AccountId, change: AccountChange) -> Result<Account, StoreError> {
        let now = self.now();
        let mut client = self.client_for(Some(id)).await?;
        let tx = client.transaction().await?;
        let found = lock_account(&tx, id).await?;
        let (fields, own) = (change.fields(), found.retention);
        let name = text(change.name.unwrap_or(found.name));
        let deliveries = change.deliveries.unwrap_or(own.deliveries).map(millis);
        let payloads = change.payloads.unwrap_or(own.payloads).map(millis);
        let key = found.key;
        let stored = one(&tx, "SELECT settings FROM accounts WHERE key = $1", &[&key.0]).await?;
        let settings = AccountSettings {
            metadata: change.metadata.unwrap_or(found.metadata),
            networks: AccountNetworks {
                allow: change.allow_networks.unwrap_or(found.networks.allow),
                deny: change.deny_networks.unwrap_or(found.networks.deny),
            },
        };
        let (settings, requires) = settings.column(get(&stored, "settings")?)?;
        require(&tx, &self.pool, requires).await?;
        let external_id = change.external_id.unwrap_or(found.external_id);
        let external_id = external_id.as_ref().map(ExternalId::as_str);
        let sql = "UPDATE accounts SET name = $2, retention_deliveries = $3, retention_payloads = $4, settings = $5, \
                   external_id = $6, updated_at = $7 WHERE key = $1";
        let parameters: super::sql::Params<'_> =
            &[&key.0, &name, &deliveries, &payloads, &settings, &external_id, &now.as_millis()];
        let statement = tx.prepare_cached(sql).await?;
        tx.execute(&statement, parameters).await.map_err(taken)?;
        self.audit(&tx, &AuditRecord::of(key, Action::AccountUpdated, id).with_fields(&fields), now).await?;
        let changed = account(&tx, id).await?;
        write_change(&tx, Change::Account(key), now).await?;
        self.commit(tx).await?;
        Ok(changed)
    }

    async fn delete_account(&self, id: AccountId) -> Result<(), StoreError> {
        let now = self.now();
        let mut client = self.client_for(Some(id)).await?;
        let tx = client.transaction().await?;
        let sql = "UPDATE accounts SET deleted_at = $2 WHERE id = $1 AND deleted_at IS NULL RETURNING key";
        let account = AccountKey(get(&one(&tx, sql, &[&id.0, &now.as_millis()]).await?, "key")?);
        let mut changes = Vec::new();
        for key in rows(&tx, "DELETE FROM api_keys WHERE account = $1 RETURNING id", &[&account.0]).await? {
            changes.push(Change::ApiKey(ApiKeyId(get(&key, "id")?)));
        }
        let sql = "SELECT key FROM endpoints WHERE account = $1 AND deleted_at IS NULL ORDER BY key FOR UPDATE";
        for endpoint in rows(&tx, sql, &[&account.0]).await? {
            let key = EndpointKey(get(&endpoint, "key")?);
            super::endpoints::bury(&tx, key, now).await?;
            changes.push(Change::Endpoint(key));
        }
        super::users::forget(&tx, account).await?;
        // What the account's own log says goes with it.
        self.audit(&tx, &AuditRecord::of(None, Action::AccountDeleted, id), now).await?;
        changes.push(Change::Account(account));
        for change in changes {
            write_change(&tx, change, now).await?;
        }
        self.commit(tx).await
    }

    async fn account(&self, id: AccountId) -> Result<Account, StoreError> {
        account(&*self.client_for(Some(id)).await?, id).await
    }

    async fn accounts(&self, page: Page) -> Result<Paged<Account>, StoreError> {
        let mut client = self.client_for(None).await?;
        let db = super::sql::snapshot(&mut client).await?;
        let total = count(&db, "SELECT count(*) AS total FROM accounts WHERE deleted_at IS NULL", &[]).await?;
        let sql = format!("{ACCOUNT_COLUMNS} WHERE deleted_at IS NULL ORDER BY key DESC LIMIT $1 OFFSET $2");
        let found = rows(&db, &sql, &[&i64::from(page.limit()), &offset(page)]).await?;
        Ok(Paged::exact(found.iter().map(account_from_row).collect::<Result<_, _>>()?, total))
    }

    async fn create_api_key(
        &self,
        new: NewApiKey,
        prefix: String,
        pending_reply: Option<PendingReply<WithKey>>,
    ) -> Result<WithKey, StoreError> {
        let (now, name) = (self.now(), new.name.map(text));
        let mut client = self.client_for(new.account).await?;
        let tx = client.transaction().await?;
        let account = match new.account {
            Some(id) => Some((id, lock_account(&tx, id).await?.key)),
            None => None,
        };
        if let Some((_, key)) = account {
            // Whoever makes another one waits for the account's row: the limit holds over all nodes.
            let limit = self.shared.settings().max_api_keys;
            let sql = "SELECT count(*) AS total FROM api_keys WHERE account = $1";
            if count(&tx, sql, &[&key.0]).await? >= u64::from(limit) {
                return Err(StoreError::KeyLimitReached(limit));
            }
        }
        let key = PlainKey::from_random(&prefix, self.shared.random.array());
        let id = ApiKeyId::from_random(self.shared.random.array());
        let sql = "INSERT INTO api_keys (id, account, hash, name, permissions, hint, expires_at, created_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let hash = KeyHash::of(key.reveal());
        execute(
            &tx,
            sql,
            &[
                &id.0,
                &account.map(|(_, key)| key.0),
                &hash.as_bytes().as_slice(),
                &name,
                &new.permissions.to_column(),
                &key.hint(),
                &new.expires_at.map(Timestamp::as_millis),
                &now.as_millis(),
            ],
        )
        .await?;
        let resource = ApiKey {
            id,
            account,
            name,
            permissions: new.permissions,
            hint: key.hint(),
            expires_at: new.expires_at,
            last_used_at: None,
            created_at: now,
        };
        let made = WithKey { resource, key };
        let account = account.map(|(_, key)| key);
        self.audit(&tx, &AuditRecord::of(account, Action::ApiKeyCreated, id), now).await?;
        write_pending_reply(&tx, pending_reply, &made, now).await?;
        write_change(&tx, Change::ApiKey(id), now).await?;
        self.commit(tx).await?;
        Ok(made)
    }

    async fn api_keys(&self, account_id: Option<AccountId>, page: Page) -> Result<Paged<ApiKey>, StoreError> {
        let mut client = self.client_for(account_id).await?;
        let db = super::sql::snapshot(&mut client).await?;
        let key = match account_id {
            Some(id) => Some(account(&db, id).await?.key.0),
            None => None,
        };
        let sql = "SELECT count(*) AS total FROM api_keys WHERE account IS NOT DISTINCT FROM $1";
        let total = count(&db, sql, &[&key]).await?;
        let sql = format!(
            "{API_KEY_COLUMNS} WHERE k.account IS NOT DISTINCT FROM $1 ORDER BY k.created_at DESC, k.id \
             LIMIT $2 OFFSET $3"
        );
        let found = rows(&db, &sql, &[&key, &i64::from(page.limit()), &offset(page)]).await?;
        let items = found.iter().map(|row| api_key_from_row(row).map(|(_, key)| key)).collect::<Result<_, _>>()?;
        Ok(Paged::exact(items, total))
    }

    async fn delete_api_key(
        &self,
        account_id: Option<AccountId>,
        id: ApiKeyId,
        by: Permissions,
    ) -> Result<(), StoreError> {
        let now = self.now();
        let mut client = self.client_for(account_id).await?;
        let tx = client.transaction().await?;
        let account = match account_id {
            Some(id) => Some(account(&tx, id).await?.key),
            None => None,
        };
        let sql = "DELETE FROM api_keys WHERE id = $1 AND account IS NOT DISTINCT FROM $2 RETURNING permissions";
        let deleted = one(&tx, sql, &[&id.0, &account.map(|key| key.0)]).await?;
        // The transaction ends without its commit: the key stays.
        if !by.covers(Permissions::from_column(get(&deleted, "permissions")?)) {
            return Err(StoreError::AllowsMore);
        }
        self.audit(&tx, &AuditRecord::of(account, Action::ApiKeyRevoked, id), now).await?;
        write_change(&tx, Change::ApiKey(id), now).await?;
        self.commit(tx).await
    }

    async fn record_key_use(&self, mut uses: Vec<(ApiKeyId, Timestamp)>) -> Result<(), StoreError> {
        // In one order everywhere, so that two nodes never wait for each other.
        uses.sort_unstable();
        let (ids, times): (Vec<_>, Vec<_>) = uses.into_iter().map(|(id, at)| (id.0, at.as_millis())).unzip();
        let sql = "UPDATE api_keys k SET last_used_at = greatest(coalesce(k.last_used_at, 0), u.at) \
                   FROM unnest($1::uuid[], $2::bigint[]) AS u(id, at) WHERE k.id = u.id";
        execute(&self.client().await?, sql, &[&ids, &times]).await?;
        Ok(())
    }
}

impl Catalog for Store {
    async fn create_event_type(
        &self,
        new: EventType,
        pending_reply: Option<PendingReply<EventType>>,
    ) -> Result<EventType, StoreError> {
        let now = self.now();
        let new = EventType { description: new.description.map(text), created_at: now, updated_at: now, ..new };
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let sql = "INSERT INTO event_types (name, description, schema, example, created_at, updated_at) \
                   VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (name) DO NOTHING";
        let parameters: super::sql::Params<'_> =
            &[&new.name, &new.description, &new.schema, &new.example, &now.as_millis()];
        if execute(&tx, sql, parameters).await? == 0 {
            return Err(StoreError::Exists);
        }
        self.audit(&tx, &AuditRecord::of(None, Action::EventTypeCreated, &new.name), now).await?;
        write_pending_reply(&tx, pending_reply, &new, now).await?;
        write_change(&tx, Change::EventTypes, now).await?;
        self.commit(tx).await?;
        Ok(new)
    }

    async fn update_event_type(&self, entry: EventType) -> Result<EventType, StoreError> {
        let now = self.now();
        let entry = EventType { description: entry.description.map(text), updated_at: now, ..entry };
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let sql = "UPDATE event_types SET description = $2, schema = $3, example = $4, updated_at = $5 WHERE name = $1";
        let parameters: super::sql::Params<'_> =
            &[&entry.name, &entry.description, &entry.schema, &entry.example, &now.as_millis()];
        if execute(&tx, sql, parameters).await? == 0 {
            return Err(StoreError::NotFound);
        }
        self.audit(&tx, &AuditRecord::of(None, Action::EventTypeUpdated, &entry.name), now).await?;
        write_change(&tx, Change::EventTypes, now).await?;
        self.commit(tx).await?;
        Ok(entry)
    }

    async fn delete_event_type(&self, name: String) -> Result<(), StoreError> {
        let (now, name) = (self.now(), text(name));
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        if execute(&tx, "DELETE FROM event_types WHERE name = $1", &[&name]).await? == 0 {
            return Err(StoreError::NotFound);
        }
        self.audit(&tx, &AuditRecord::of(None, Action::EventTypeDeleted, name), now).await?;
        write_change(&tx, Change::EventTypes, now).await?;
        self.commit(tx).await
    }
}

impl Store {
    /// Commits, and brings this node's own view up to what was committed.
    pub(super) async fn commit(&self, tx: Transaction<'_>) -> Result<(), StoreError> {
        tx.commit().await?;
        // It is committed whatever comes now: a view that is late is brought up to date when it is asked for.
        if !matches!(tokio::time::timeout(REFRESH_TIMEOUT, self.change_feed.refresh()).await, Ok(Ok(()))) {
            self.freshness.doubt();
            tracing::warn!("the view of this node is late");
        }
        Ok(())
    }
}

/// Why an account was not written: another one may have its external id.
fn taken(error: tokio_postgres::Error) -> StoreError {
    let constraint = error.as_db_error().and_then(tokio_postgres::error::DbError::constraint);
    if constraint == Some("accounts_external_id") { StoreError::ExternalIdTaken } else { error.into() }
}

impl Store {
    /// Applies other settings. If their keys do not open the stored secrets, nothing changes.
    pub async fn reload(&self, settings: StoreSettings) -> Result<(), OpenError> {
        let keyring = self.shared.changed_keyring(&settings)?;
        if let Some(keyring) = &keyring {
            let unread = |error: StoreError| OpenError(format!("the stored secrets cannot be read: {error}"));
            let db = self.client().await.map_err(unread)?;
            check_master_keys(&db, keyring).await?;
        }
        self.shared.set_settings(settings, keyring);
        Ok(())
    }
}

/// Refuses to start with a master key that cannot open what is stored.
pub(super) async fn check_master_keys(db: &Object, keyring: &Keyring) -> Result<(), OpenError> {
    let sql = "(SELECT DISTINCT ON (s.key_id) s.key_id, s.sealed, e.id FROM endpoint_secrets s \
               JOIN endpoints e ON e.key = s.endpoint WHERE e.deleted_at IS NULL) UNION ALL \
               (SELECT DISTINCT ON (factor_key_id) factor_key_id, factor_sealed, id FROM users \
               WHERE factor_key_id IS NOT NULL)";
    let of_credentials = "SELECT DISTINCT ON (credentials_key_id) credentials_key_id, credentials, id FROM endpoints \
                          WHERE credentials_key_id IS NOT NULL";
    let check = async {
        for row in rows(db, sql, &[]).await? {
            let sealed = SealedSecret { key_id: get(&row, "key_id")?, bytes: get(&row, "sealed")? };
            let opened = keyring.open(&sealed, get(&row, "id")?);
            opened.map_err(|error| StoreError::Corrupt(error.to_string()))?;
        }
        for row in rows(db, of_credentials, &[]).await? {
            let id = EndpointId(get(&row, "id")?);
            let opened = credentials::open(keyring, id, sealed(&row, KEY_ID, SEALED)?.as_ref());
            opened.map_err(|error| StoreError::Corrupt(error.to_string()))?;
        }
        Ok(())
    };
    check.await.map_err(|error| match error {
        StoreError::Corrupt(reason) => OpenError(format!("the stored secrets cannot be opened: {reason}")),
        other => OpenError(format!("the stored secrets cannot be read: {other}")),
    })
}

//! Accounts, API keys and the catalog of event types.

use rusqlite::{Connection, params};

use super::catalog_rows::{API_KEY_COLUMNS, account, account_from_row, api_key, api_key_from_row};
use super::columns::{count, sealed, sql_offset, uuid};
use super::minimum::require;
use super::store::Store;
use super::tx::Tx;
use crate::domain::account::{Account, AccountChange, ApiKey, KeyHash, NewAccount, PlainKey};
use crate::domain::audit::Action;
use crate::domain::event::{EventType, INITIAL_TYPES};
use crate::domain::external_id::ExternalId;
use crate::domain::id::{AccountId, AccountKey, ApiKeyId, EndpointId};
use crate::domain::network_rules::AccountNetworks;
use crate::domain::permission::Permissions;
use crate::domain::secret::Keyring;
use crate::domain::time::{Timestamp, millis};
use crate::store::contract::{Accounts, Catalog};
use crate::store::credentials::{self, KEY_ID, SEALED};
use crate::store::errors::{OpenError, StoreError};
use crate::store::settings::AccountSettings;
use crate::store::shared::AuditRecord;
use crate::store::values::{NewApiKey, Page, Paged, PendingReply, ReplyScope, StoreSettings, StoredReply, WithKey};

impl Accounts for Store {
    async fn create_account(
        &self,
        new: NewAccount,
        pending_reply: Option<PendingReply<Account>>,
    ) -> Result<Account, StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let id = AccountId::from_random(tx.shared.random.array());
                let external_id = new.external_id.as_ref().map(ExternalId::as_str);
                is_external_id_free(tx.db, external_id, None)?;
                let settings = AccountSettings { metadata: new.metadata, networks: new.networks };
                let (settings, requires) = settings.column("{}")?;
                require(tx.db, requires)?;
                let sql = "INSERT INTO accounts (id, name, settings, external_id, created_at, updated_at) \
                           VALUES (?1, ?2, ?3, ?4, ?5, ?5)";
                let now = tx.now.as_millis();
                tx.db.prepare_cached(sql)?.execute(params![id.0.as_bytes(), new.name, settings, external_id, now])?;
                let key = AccountKey(tx.db.last_insert_rowid());
                tx.cache.touch_account(key);
                let account = account(tx.db, id)?;
                tx.audit(&origin, &AuditRecord::of(key, Action::AccountCreated, id))?;
                tx.store_pending_reply(pending_reply, &account)?;
                Ok(account)
            })
            .await
    }

    async fn account_named(&self, name: ExternalId) -> Result<AccountId, StoreError> {
        self.read(None, move |db| {
            let sql = "SELECT id FROM accounts WHERE external_id = ?1 AND deleted_at IS NULL";
            Ok(db.prepare_cached(sql)?.query_row([name.as_str()], |row| Ok(AccountId(uuid(row, "id")?)))?)
        })
        .await
    }

    async fn update_account(&self, id: AccountId, change: AccountChange) -> Result<Account, StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let found = account(tx.db, id)?;
                let fields = change.fields();
                let own = found.retention;
                let external_id = change.external_id.unwrap_or(found.external_id);
                let external_id = external_id.as_ref().map(ExternalId::as_str);
                is_external_id_free(tx.db, external_id, Some(found.key))?;
                let sql = "SELECT settings FROM accounts WHERE key = ?1";
                let stored: String = tx.db.prepare_cached(sql)?.query_row([found.key.0], |row| row.get(0))?;
                let settings = AccountSettings {
                    metadata: change.metadata.unwrap_or(found.metadata),
                    networks: AccountNetworks {
                        allow: change.allow_networks.unwrap_or(found.networks.allow),
                        deny: change.deny_networks.unwrap_or(found.networks.deny),
                    },
                };
                let (settings, requires) = settings.column(&stored)?;
                require(tx.db, requires)?;
                let sql = "UPDATE accounts SET name = ?2, retention_deliveries = ?3, retention_payloads = ?4, \
                           settings = ?5, external_id = ?6, updated_at = ?7 WHERE key = ?1";
                tx.db.prepare_cached(sql)?.execute(params![
                    found.key.0,
                    change.name.unwrap_or(found.name),
                    change.deliveries.unwrap_or(own.deliveries).map(millis),
                    change.payloads.unwrap_or(own.payloads).map(millis),
                    settings,
                    external_id,
                    tx.now.as_millis(),
                ])?;
                tx.cache.touch_account(found.key);
                tx.audit(&origin, &AuditRecord::of(found.key, Action::AccountUpdated, id).with_fields(&fields))?;
                account(tx.db, id)
            })
            .await
    }

    async fn delete_account(&self, id: AccountId) -> Result<(), StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let account = account(tx.db, id)?;
                for (_, key) in api_keys_where(tx.db, Some(account.key), None)? {
                    tx.db.execute("DELETE FROM api_keys WHERE id = ?1", [key.id.0.as_bytes()])?;
                    tx.cache.touch_api_key(key.id);
                }
                let sql = "SELECT key FROM endpoints WHERE account = ?1 AND deleted_at IS NULL";
                let keys: Vec<i64> = tx
                    .db
                    .prepare_cached(sql)?
                    .query_map([account.key.0], |row| row.get(0))?
                    .collect::<Result<_, _>>()?;
                for key in keys {
                    super::endpoints::bury(tx, crate::domain::id::EndpointKey(key))?;
                }
                super::users::forget(tx.db, account.key)?;
                let sql = "UPDATE accounts SET deleted_at = ?2 WHERE key = ?1";
                tx.db.prepare_cached(sql)?.execute(params![account.key.0, tx.now.as_millis()])?;
                tx.cache.touch_account(account.key);
                // What the account's own log says goes with it.
                tx.audit(&origin, &AuditRecord::of(None, Action::AccountDeleted, id))
            })
            .await
    }

    async fn account(&self, id: AccountId) -> Result<Account, StoreError> {
        self.read(Some(id), move |db| account(db, id)).await
    }

    async fn accounts(&self, page: Page) -> Result<Paged<Account>, StoreError> {
        self.read(None, move |db| {
            let total = count(db, "SELECT COUNT(*) AS total FROM accounts WHERE deleted_at IS NULL", [])?;
            let sql = "SELECT * FROM accounts WHERE deleted_at IS NULL ORDER BY key DESC LIMIT ?1 OFFSET ?2";
            let mut statement = db.prepare_cached(sql)?;
            let rows = statement.query_map(params![page.limit(), sql_offset(page)], account_from_row)?;
            Ok(Paged::exact(rows.collect::<Result<_, _>>()?, total))
        })
        .await
    }

    async fn create_api_key(
        &self,
        new: NewApiKey,
        prefix: String,
        pending_reply: Option<PendingReply<WithKey>>,
    ) -> Result<WithKey, StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let account = new.account.map(|id| account(tx.db, id).map(|found| (id, found.key))).transpose()?;
                if let Some((_, key)) = account {
                    let limit = tx.shared.settings().max_api_keys;
                    let sql = "SELECT COUNT(*) AS total FROM api_keys WHERE account = ?1";
                    let existing = count(tx.db, sql, [key.0])?;
                    if existing >= u64::from(limit) {
                        return Err(StoreError::KeyLimitReached(limit));
                    }
                }
                let key = PlainKey::from_random(&prefix, tx.shared.random.array());
                let id = ApiKeyId::from_random(tx.shared.random.array());
                tx.db
                    .prepare_cached(
                        "INSERT INTO api_keys (id, account, hash, name, permissions, hint, expires_at, created_at) \
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    )?
                    .execute(params![
                        id.0.as_bytes(),
                        account.map(|(_, key)| key.0),
                        KeyHash::of(key.reveal()).as_bytes(),
                        new.name,
                        new.permissions.to_column(),
                        key.hint(),
                        new.expires_at.map(Timestamp::as_millis),
                        tx.now.as_millis(),
                    ])?;
                tx.cache.touch_api_key(id);
                let resource = ApiKey {
                    id,
                    account,
                    name: new.name,
                    permissions: new.permissions,
                    hint: key.hint(),
                    expires_at: new.expires_at,
                    last_used_at: None,
                    created_at: tx.now,
                };
                let made = WithKey { resource, key };
                tx.audit(&origin, &AuditRecord::of(account.map(|(_, key)| key), Action::ApiKeyCreated, id))?;
                tx.store_pending_reply(pending_reply, &made)?;
                Ok(made)
            })
            .await
    }

    async fn api_keys(&self, account_id: Option<AccountId>, page: Page) -> Result<Paged<ApiKey>, StoreError> {
        self.read(account_id, move |db| {
            let key = account_id.map(|id| account(db, id)).transpose()?.map(|account| account.key);
            let sql = "SELECT COUNT(*) AS total FROM api_keys WHERE account IS ?1";
            let total = count(db, sql, [key.map(|key| key.0)])?;
            let items = api_keys_where(db, key, Some(page))?.into_iter().map(|(_, key)| key).collect();
            Ok(Paged::exact(items, total))
        })
        .await
    }

    async fn delete_api_key(
        &self,
        account_id: Option<AccountId>,
        id: ApiKeyId,
        by: Permissions,
    ) -> Result<(), StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let key = account_id.map(|id| account(tx.db, id)).transpose()?.map(|account| account.key);
                let (_, found) = api_key(tx.db, id)?.ok_or(StoreError::NotFound)?;
                if found.account.map(|(_, account)| account) != key {
                    return Err(StoreError::NotFound);
                }
                if !by.covers(found.permissions) {
                    return Err(StoreError::AllowsMore);
                }
                tx.db.prepare_cached("DELETE FROM api_keys WHERE id = ?1")?.execute([id.0.as_bytes()])?;
                tx.cache.touch_api_key(id);
                tx.audit(&origin, &AuditRecord::of(key, Action::ApiKeyRevoked, id))
            })
            .await
    }

    async fn record_key_use(&self, uses: Vec<(ApiKeyId, Timestamp)>) -> Result<(), StoreError> {
        self.writer
            .write(move |tx| {
                for (id, at) in uses {
                    let sql = "UPDATE api_keys SET last_used_at = MAX(IFNULL(last_used_at, 0), ?2) WHERE id = ?1";
                    tx.db.prepare_cached(sql)?.execute(params![id.0.as_bytes(), at.as_millis()])?;
                }
                Ok(())
            })
            .await
    }
}

impl Catalog for Store {
    async fn create_event_type(
        &self,
        new: EventType,
        pending_reply: Option<PendingReply<EventType>>,
    ) -> Result<EventType, StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let new = EventType { created_at: tx.now, updated_at: tx.now, ..new };
                let sql = "INSERT INTO event_types (name, description, schema, example, created_at, updated_at) \
                           VALUES (?1, ?2, ?3, ?4, ?5, ?5) ON CONFLICT (name) DO NOTHING";
                let added = tx.db.prepare_cached(sql)?.execute(params![
                    new.name,
                    new.description,
                    new.schema,
                    new.example,
                    tx.now.as_millis()
                ])?;
                if added == 0 {
                    return Err(StoreError::Exists);
                }
                tx.cache.touch_event_types();
                tx.audit(&origin, &AuditRecord::of(None, Action::EventTypeCreated, &new.name))?;
                tx.store_pending_reply(pending_reply, &new)?;
                Ok(new)
            })
            .await
    }

    async fn update_event_type(&self, entry: EventType) -> Result<EventType, StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let entry = EventType { updated_at: tx.now, ..entry };
                let sql = "UPDATE event_types SET description = ?2, schema = ?3, example = ?4, updated_at = ?5 \
                           WHERE name = ?1";
                let changed = tx.db.prepare_cached(sql)?.execute(params![
                    entry.name,
                    entry.description,
                    entry.schema,
                    entry.example,
                    tx.now.as_millis()
                ])?;
                if changed == 0 {
                    return Err(StoreError::NotFound);
                }
                tx.cache.touch_event_types();
                tx.audit(&origin, &AuditRecord::of(None, Action::EventTypeUpdated, &entry.name))?;
                Ok(entry)
            })
            .await
    }

    async fn delete_event_type(&self, name: String) -> Result<(), StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                if tx.db.prepare_cached("DELETE FROM event_types WHERE name = ?1")?.execute([&name])? == 0 {
                    return Err(StoreError::NotFound);
                }
                tx.cache.touch_event_types();
                tx.audit(&origin, &AuditRecord::of(None, Action::EventTypeDeleted, name))
            })
            .await
    }
}

/// The catalog of a new database.
pub(super) fn add_initial_event_types(db: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    for (name, description) in INITIAL_TYPES {
        db.execute(
            "INSERT INTO event_types (name, description, created_at, updated_at) VALUES (?1, ?2, ?3, ?3)",
            params![name, description, now.as_millis()],
        )?;
    }
    Ok(())
}

/// Refuses an external id that an account has, other than this one.
fn is_external_id_free(db: &Connection, external_id: Option<&str>, own: Option<AccountKey>) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM accounts WHERE external_id = ?1 AND deleted_at IS NULL AND key IS NOT ?2";
    let is_taken = db.prepare_cached(sql)?.exists(params![external_id, own.map(|key| key.0)])?;
    if is_taken { Err(StoreError::ExternalIdTaken) } else { Ok(()) }
}

impl Store {
    /// Applies other settings. If their keys do not open the stored secrets, nothing changes.
    pub async fn reload(&self, settings: StoreSettings) -> Result<(), OpenError> {
        let keyring = match self.shared.changed_keyring(&settings)? {
            Some(keyring) => {
                let checking = self.read_short(None, move |db| {
                    let checked = check_master_keys(db, &keyring);
                    Ok(checked.map(|()| keyring))
                });
                let unread = |error: StoreError| OpenError(format!("the stored secrets cannot be read: {error}"));
                Some(checking.await.map_err(unread)??)
            }
            None => None,
        };
        self.shared.set_settings(settings, keyring);
        Ok(())
    }
}

/// Refuses to start with a master key that cannot open what is stored.
pub(super) fn check_master_keys(db: &Connection, keyring: &Keyring) -> Result<(), OpenError> {
    let check = || -> Result<(), StoreError> {
        let sql = "SELECT s.key_id AS key_id, s.sealed AS sealed, e.id AS id FROM endpoint_secrets s \
                   JOIN endpoints e ON e.key = s.endpoint WHERE e.deleted_at IS NULL GROUP BY s.key_id \
                   UNION ALL SELECT factor_key_id, factor_sealed, id FROM users WHERE factor_key_id IS NOT NULL \
                   GROUP BY factor_key_id";
        let mut statement = db.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let sealed = crate::domain::secret::SealedSecret { key_id: row.get("key_id")?, bytes: row.get("sealed")? };
            keyring.open(&sealed, uuid(row, "id")?).map_err(|e| StoreError::Corrupt(e.to_string()))?;
        }
        let sql = "SELECT credentials_key_id, credentials, id FROM endpoints WHERE credentials_key_id IS NOT NULL \
                   GROUP BY credentials_key_id";
        let mut statement = db.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id = EndpointId(uuid(row, "id")?);
            let opened = credentials::open(keyring, id, sealed(row, KEY_ID, SEALED)?.as_ref());
            opened.map_err(|error| StoreError::Corrupt(error.to_string()))?;
        }
        Ok(())
    };
    check().map_err(|e| match e {
        StoreError::Corrupt(reason) => OpenError(format!("the stored secrets cannot be opened: {reason}")),
        other => OpenError(format!("the stored secrets cannot be read: {other}")),
    })
}

fn api_keys_where(
    db: &Connection,
    account: Option<AccountKey>,
    page: Option<Page>,
) -> Result<Vec<(KeyHash, ApiKey)>, StoreError> {
    let sql = format!("{API_KEY_COLUMNS} WHERE k.account IS ?1 ORDER BY k.created_at DESC, k.id LIMIT ?2 OFFSET ?3");
    let mut statement = db.prepare_cached(&sql)?;
    let (limit, offset) = page.map_or((-1, 0), |page| (i64::from(page.limit()), sql_offset(page)));
    let rows = statement.query_map(params![account.map(|key| key.0), limit, offset], api_key_from_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Tx<'_> {
    /// Stores the reply to this effect in the transaction, where the call has an idempotency key.
    pub fn store_pending_reply<T>(
        &mut self,
        pending_reply: Option<PendingReply<T>>,
        effect: &T,
    ) -> Result<(), StoreError> {
        let Some(PendingReply { scope, render }) = pending_reply else { return Ok(()) };
        self.store_reply(&scope, &render(effect))
    }

    /// Refuses when a reply is stored under this key.
    pub fn check_scope_free(&self, scope: &ReplyScope) -> Result<(), StoreError> {
        if super::calls::stored_reply(self.db, scope)?.is_some() { Err(StoreError::KeyTaken) } else { Ok(()) }
    }

    /// Stores a reply to a call that has changed nothing.
    pub fn store_reply(&mut self, scope: &ReplyScope, reply: &StoredReply) -> Result<(), StoreError> {
        self.size.bytes += reply.body.len();
        let stored = self
            .db
            .prepare_cached(
                "INSERT OR IGNORE INTO kept_answers (owner, path, key, body_hash, status, request_id, answer, \
                 created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                super::calls::owner(scope),
                scope.path,
                scope.key,
                reply.body_hash,
                reply.status,
                reply.request_id,
                reply.body,
                self.now.as_millis(),
            ])?;
        // Another call with this key has had its effect: this one must have none.
        if stored == 0 { Err(StoreError::KeyTaken) } else { Ok(()) }
    }
}

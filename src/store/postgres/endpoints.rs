//! Webhook endpoints and their secrets.

use std::time::Duration;

use deadpool_postgres::{GenericClient, Transaction};
use tokio_postgres::Row;

use super::catalog_rows::{account, health, lock_account};
use super::change_feed::{Change, write_change};
use super::migrate::require;
use super::sql::{count, execute, get, one, read_row, rows, sealed, text, time, when, whole};
use super::store::Store;
use super::stored_replies::write_pending_reply;
use crate::domain::account::Account;
use crate::domain::audit::Action;
use crate::domain::endpoint::{Endpoint, EndpointStatus};
use crate::domain::external_id::ExternalId;
use crate::domain::id::{AccountId, AccountKey, EndpointId, EndpointKey};
use crate::domain::secret::{Keyring, MAX_OLDER_SECRETS, SealedKind, SealedSecret, Secret};
use crate::domain::settings::{EndpointChange, EndpointSettings};
use crate::domain::time::Timestamp;
use crate::store::contract::Endpoints;
use crate::store::credentials::{KEY_ID, SEALED};
use crate::store::errors::StoreError;
use crate::store::numbers::sql_limit;
use crate::store::operational_events::About;
use crate::store::settings::{NewColumns, SettingsColumns, required_of_secret};
use crate::store::shared::AuditRecord;
use crate::store::values::{NewEndpoint, PendingReply, WithSecret};

/// An endpoint's columns; its secret's hint is the current one's.
const COLUMNS: &str = "SELECT e.id, e.key, e.account, e.url, e.events, e.description, e.ordering, \
                       e.settings, e.external_id, e.status, e.consecutive_failures, \
                       e.failing_since, e.created_at, e.updated_at, (SELECT s.hint FROM endpoint_secrets s \
                       WHERE s.endpoint = e.key ORDER BY s.version DESC LIMIT 1) AS hint, \
                       greatest((SELECT max(c.last_delivery_at) FROM counters c \
                       WHERE c.account = e.account AND c.endpoint = e.key), \
                       (SELECT max(c.last_delivery_at) FROM counter_deltas c \
                       WHERE c.account = e.account AND c.endpoint = e.key AND c.seq > \
                       (SELECT value FROM settings WHERE name = 'counters_folded_to'))) AS last_delivery_at \
                       FROM endpoints e WHERE e.deleted_at IS NULL";

impl Endpoints for Store {
    async fn create_endpoint(
        &self,
        owner: AccountId,
        new: NewEndpoint,
        pending_reply: Option<PendingReply<WithSecret<Endpoint>>>,
    ) -> Result<WithSecret<Endpoint>, StoreError> {
        let now = self.now();
        let mut client = self.client_for(Some(owner)).await?;
        let tx = client.transaction().await?;
        // Two that are made at once wait for each other here: the cap holds over all nodes.
        let account = lock_account(&tx, owner).await?;
        let limit = self.shared.settings().max_endpoints;
        let sql = "SELECT count(*) AS total FROM endpoints WHERE account = $1 AND deleted_at IS NULL";
        if count(&tx, sql, &[&account.key.0]).await? >= u64::from(limit) {
            return Err(StoreError::LimitReached(limit));
        }
        let made = self.insert_endpoint(&tx, &account, new, now).await?;
        self.audit(&tx, &AuditRecord::of(account.key, Action::WebhookCreated, made.resource.id), now).await?;
        write_pending_reply(&tx, pending_reply, &made, now).await?;
        write_change(&tx, Change::Endpoint(made.resource.key), now).await?;
        self.commit(tx).await?;
        Ok(made)
    }

    async fn endpoints(&self, owner: AccountId) -> Result<Vec<Endpoint>, StoreError> {
        let db = self.client_for(Some(owner)).await?;
        let account = account(&*db, owner).await?;
        let sql = format!("{COLUMNS} AND e.account = $1 ORDER BY e.key DESC");
        rows(&*db, &sql, &[&account.key.0]).await?.iter().map(endpoint_from_row).collect()
    }

    async fn endpoint(&self, owner: AccountId, id: EndpointId) -> Result<Endpoint, StoreError> {
        find(&*self.client_for(Some(owner)).await?, owner, id).await
    }

    async fn endpoint_named(&self, owner: AccountId, name: ExternalId) -> Result<EndpointId, StoreError> {
        let db = self.client_for(Some(owner)).await?;
        let sql = "SELECT e.id FROM endpoints e JOIN accounts a ON a.key = e.account WHERE a.id = $1 \
                   AND a.deleted_at IS NULL AND e.external_id = $2 AND e.deleted_at IS NULL";
        Ok(EndpointId(get(&one(&*db, sql, &[&owner.0, &name.as_str()]).await?, "id")?))
    }

    async fn update_endpoint(
        &self,
        owner: AccountId,
        id: EndpointId,
        change: EndpointChange,
    ) -> Result<Endpoint, StoreError> {
        let now = self.now();
        let mut client = self.client_for(Some(owner)).await?;
        let tx = client.transaction().await?;
        let endpoint = find_locked(&tx, owner, id).await?;
        let record = AuditRecord::of(endpoint.account, Action::WebhookUpdated, id).with_fields(&change.fields());
        let status = change.status.unwrap_or(endpoint.health.status);
        let cleared = change.status == Some(EndpointStatus::Active);
        let (stored, sealed) = stored_settings(&tx, endpoint.key).await?;
        let (settings, sealed) = self.shared.change_settings(id, change, endpoint.settings, sealed)?;
        subscribe(&tx, endpoint.account, endpoint.key, &settings.events).await?;
        let NewColumns { columns, requires } = SettingsColumns::of(settings, &stored)?;
        require(&tx, &self.pool, requires).await?;
        let sql = "UPDATE endpoints SET url = $2, events = $3, description = $4, status = $5::bigint, \
                   ordering = $8::bigint, settings = $9, external_id = $10, \
                   consecutive_failures = CASE WHEN $6 THEN 0 ELSE consecutive_failures END, \
                   failing_since = CASE WHEN $6 THEN NULL ELSE failing_since END, version = version + 1, \
                   updated_at = $7, credentials_key_id = $11, credentials = $12 WHERE key = $1";
        let key = endpoint.key;
        let (key_id, sealed) = sealed.map(|sealed| (sealed.key_id, sealed.bytes)).unzip();
        let parameters: super::sql::Params<'_> = &[
            &key.0,
            &columns.url,
            &columns.events,
            &columns.description.map(text),
            &status.to_column(),
            &cleared,
            &now.as_millis(),
            &columns.ordering,
            &columns.settings,
            &columns.external_id,
            &key_id,
            &sealed,
        ];
        let statement = tx.prepare_cached(sql).await?;
        tx.execute(&statement, parameters).await.map_err(taken)?;
        let changed = find(&tx, owner, id).await?;
        self.audit(&tx, &record, now).await?;
        let operational_event = about(&changed).status(endpoint.health.status, status);
        let after = self.announce(&tx, operational_event.as_slice(), now).await?;
        write_change(&tx, Change::Endpoint(key), now).await?;
        self.commit(tx).await?;
        self.run_after_commit(&mut client, after, now).await;
        Ok(changed)
    }

    async fn delete_endpoint(&self, owner: AccountId, id: EndpointId) -> Result<(), StoreError> {
        let now = self.now();
        let mut client = self.client_for(Some(owner)).await?;
        let tx = client.transaction().await?;
        let endpoint = find_locked(&tx, owner, id).await?;
        bury(&tx, endpoint.key, now).await?;
        self.audit(&tx, &AuditRecord::of(endpoint.account, Action::WebhookDeleted, id), now).await?;
        write_change(&tx, Change::Endpoint(endpoint.key), now).await?;
        self.commit(tx).await
    }

    async fn rotate_secret(
        &self,
        owner: AccountId,
        id: EndpointId,
        secret: Option<Secret>,
        overlap: Duration,
        pending_reply: Option<PendingReply<WithSecret<Endpoint>>>,
    ) -> Result<WithSecret<Endpoint>, StoreError> {
        let now = self.now();
        let mut client = self.client_for(Some(owner)).await?;
        let tx = client.transaction().await?;
        let endpoint = find_locked(&tx, owner, id).await?;
        if let Some(secret) = &secret {
            self.is_new(&tx, endpoint.key, id, secret).await?;
        }
        retire_secrets(&tx, endpoint.key, overlap, now).await?;
        let secret = self.add_secret(&tx, endpoint.key, id, secret).await?;
        let sql = "UPDATE endpoints SET version = version + 1, updated_at = $2 WHERE key = $1";
        execute(&tx, sql, &[&endpoint.key.0, &now.as_millis()]).await?;
        let rotated = WithSecret { resource: find(&tx, owner, id).await?, secret };
        self.audit(&tx, &AuditRecord::of(endpoint.account, Action::SecretRegenerated, id), now).await?;
        write_pending_reply(&tx, pending_reply, &rotated, now).await?;
        let operational_event = about(&rotated.resource).rotated(&rotated.resource.secret_hint);
        let after = self.announce(&tx, &[operational_event], now).await?;
        write_change(&tx, Change::Endpoint(endpoint.key), now).await?;
        self.commit(tx).await?;
        self.run_after_commit(&mut client, after, now).await;
        Ok(rotated)
    }
}

impl Store {
    /// Seals every secret with the current master key. Returns how many were sealed anew.
    pub(super) async fn reseal_secrets(&self) -> Result<u64, StoreError> {
        let keyring = self.shared.keyring();
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        // Endpoints first, as whoever rotates a secret locks them.
        let credentials = self.reseal_credentials(&tx, &keyring).await?;
        let sql = "SELECT s.endpoint, s.version, s.key_id, s.sealed, e.id FROM endpoint_secrets s \
                   JOIN endpoints e ON e.key = s.endpoint WHERE s.key_id <> $1 ORDER BY s.endpoint FOR UPDATE OF s";
        let stale = rows(&tx, sql, &[&keyring.current_id()]).await?;
        for row in &stale {
            let id = EndpointId(get(row, "id")?);
            let old = SealedSecret { key_id: get(row, "key_id")?, bytes: get(row, "sealed")? };
            let secret = keyring.open(&old, id.0).map_err(|error| StoreError::Corrupt(error.to_string()))?;
            let new = keyring.seal(&secret, id.0, self.shared.random.array());
            let sql = "UPDATE endpoint_secrets SET key_id = $3, sealed = $4 WHERE endpoint = $1 AND version = $2";
            let (endpoint, version): (i64, i64) = (get(row, "endpoint")?, get(row, "version")?);
            execute(&tx, sql, &[&endpoint, &version, &new.key_id, &new.bytes]).await?;
        }
        let factors = self.reseal_factors(&tx, &keyring).await?;
        let now = self.now();
        self.audit(&tx, &AuditRecord::of(None, Action::SecretsRekeyed, keyring.current_id()), now).await?;
        write_change(&tx, Change::MasterKeys, now).await?;
        self.commit(tx).await?;
        Ok(stale.len() as u64 + factors + credentials)
    }

    /// Seals the credentials of endpoints with the current master key. Returns of how many.
    async fn reseal_credentials(&self, tx: &Transaction<'_>, keyring: &Keyring) -> Result<u64, StoreError> {
        let sql = "SELECT key, id, credentials_key_id, credentials FROM endpoints WHERE credentials_key_id <> $1 \
                   ORDER BY key FOR UPDATE";
        let mut resealed = 0;
        for row in rows(tx, sql, &[&keyring.current_id()]).await? {
            let Some(old) = sealed(&row, KEY_ID, SEALED)? else { continue };
            let new = keyring.reseal(SealedKind::Credentials, &old, get(&row, "id")?, self.shared.random.array());
            let new = new.map_err(|error| StoreError::Corrupt(error.to_string()))?;
            let sql = "UPDATE endpoints SET credentials_key_id = $2, credentials = $3 WHERE key = $1";
            execute(tx, sql, &[&get::<i64>(&row, "key")?, &new.key_id, &new.bytes]).await?;
            resealed += 1;
        }
        Ok(resealed)
    }

    async fn insert_endpoint(
        &self,
        tx: &Transaction<'_>,
        account: &Account,
        new: NewEndpoint,
        now: Timestamp,
    ) -> Result<WithSecret<Endpoint>, StoreError> {
        let id = EndpointId::from_random(self.shared.random.array());
        let sql = "INSERT INTO endpoints (id, account, url, events, description, ordering, settings, external_id, \
                   created_at, updated_at, status, credentials_key_id, credentials) \
                   VALUES ($1, $2, $3, $4, $5, $6::bigint, $7, $8, $9, $9, $10::bigint, $11, $12) RETURNING key";
        let sealed = self.shared.seal_credentials(id, &new.credentials);
        let (key_id, sealed) = sealed.map(|sealed| (sealed.key_id, sealed.bytes)).unzip();
        let events = new.settings.events.clone();
        let NewColumns { columns, requires } = SettingsColumns::of(new.settings, "{}")?;
        require(tx, &self.pool, requires).await?;
        let parameters: super::sql::Params<'_> = &[
            &id.0,
            &account.key.0,
            &columns.url,
            &columns.events,
            &columns.description.map(text),
            &columns.ordering,
            &columns.settings,
            &columns.external_id,
            &now.as_millis(),
            &new.status.to_column(),
            &key_id,
            &sealed,
        ];
        let statement = tx.prepare_cached(sql).await?;
        let key = EndpointKey(get(&tx.query_one(&statement, parameters).await.map_err(taken)?, "key")?);
        subscribe(tx, account.key, key, &events).await?;
        let secret = self.add_secret(tx, key, id, new.secret).await?;
        Ok(WithSecret { resource: find(tx, account.id, id).await?, secret })
    }

    /// Refuses the secret that the endpoint has. One that cannot be opened is another.
    async fn is_new(
        &self,
        tx: &Transaction<'_>,
        key: EndpointKey,
        id: EndpointId,
        secret: &Secret,
    ) -> Result<(), StoreError> {
        let sql = "SELECT key_id, sealed FROM endpoint_secrets WHERE endpoint = $1 ORDER BY version DESC LIMIT 1";
        let row = one(tx, sql, &[&key.0]).await?;
        let current = SealedSecret { key_id: get(&row, "key_id")?, bytes: get(&row, "sealed")? };
        let current = self.shared.open_sealed(|keyring| keyring.open(&current, id.0));
        let is_same = current.is_ok_and(|current| current.is_same(secret));
        if is_same { Err(StoreError::SecretUnchanged) } else { Ok(()) }
    }

    /// Adds its owner's own secret, or one that is generated.
    async fn add_secret(
        &self,
        tx: &Transaction<'_>,
        key: EndpointKey,
        id: EndpointId,
        own: Option<Secret>,
    ) -> Result<Secret, StoreError> {
        require(tx, &self.pool, required_of_secret(own.as_ref())).await?;
        let secret = own.unwrap_or_else(|| Secret::from_random(self.shared.random.array()));
        let sealed = self.shared.keyring().seal(&secret, id.0, self.shared.random.array());
        let sql = "INSERT INTO endpoint_secrets (endpoint, version, key_id, sealed, hint) SELECT $1, \
                   coalesce((SELECT max(version) FROM endpoint_secrets WHERE endpoint = $1), 0) + 1, $2, $3, $4";
        execute(tx, sql, &[&key.0, &sealed.key_id, &sealed.bytes, &secret.hint()]).await?;
        Ok(secret)
    }
}

/// Why an endpoint was not written: another one of the account may have its external id.
fn taken(error: tokio_postgres::Error) -> StoreError {
    let constraint = error.as_db_error().and_then(tokio_postgres::error::DbError::constraint);
    if constraint == Some("endpoints_external_id") { StoreError::ExternalIdTaken } else { error.into() }
}

/// The endpoint, for an operational event.
fn about(endpoint: &Endpoint) -> About {
    About { account: endpoint.account, key: endpoint.key, id: endpoint.id, url: endpoint.settings.url.clone() }
}

/// The types that an endpoint subscribes to, from here on.
async fn subscribe(
    tx: &Transaction<'_>,
    account: AccountKey,
    key: EndpointKey,
    events: &[String],
) -> Result<(), StoreError> {
    let sql = "DELETE FROM subscriptions WHERE endpoint = $1 AND NOT (type = ANY($2))";
    execute(tx, sql, &[&key.0, &events]).await?;
    let sql = "INSERT INTO subscriptions (account, type, endpoint) SELECT $1, type, $2 \
               FROM unnest($3::text[]) AS t(type) ON CONFLICT DO NOTHING";
    execute(tx, sql, &[&account.0, &key.0, &events]).await?;
    Ok(())
}

/// Drops older secrets, or lets the current one live on for the overlap.
async fn retire_secrets(
    tx: &Transaction<'_>,
    key: EndpointKey,
    overlap: Duration,
    now: Timestamp,
) -> Result<(), StoreError> {
    if overlap.is_zero() {
        execute(tx, "DELETE FROM endpoint_secrets WHERE endpoint = $1", &[&key.0]).await?;
        return Ok(());
    }
    let sql = "DELETE FROM endpoint_secrets WHERE endpoint = $1 AND expires_at <= $2";
    execute(tx, sql, &[&key.0, &now.as_millis()]).await?;
    let sql = "UPDATE endpoint_secrets SET expires_at = $2 WHERE endpoint = $1 AND expires_at IS NULL";
    execute(tx, sql, &[&key.0, &now.plus(overlap).as_millis()]).await?;
    let sql = "DELETE FROM endpoint_secrets WHERE endpoint = $1 AND version NOT IN \
               (SELECT version FROM endpoint_secrets WHERE endpoint = $1 ORDER BY version DESC LIMIT $2)";
    execute(tx, sql, &[&key.0, &sql_limit(MAX_OLDER_SECRETS)]).await?;
    Ok(())
}

/// Makes an endpoint a tombstone: it does not exist any more, and its rows wait to be purged.
pub(super) async fn bury(tx: &Transaction<'_>, key: EndpointKey, now: Timestamp) -> Result<(), StoreError> {
    let sql = "UPDATE endpoints SET deleted_at = $2, version = version + 1, credentials_key_id = NULL, \
               credentials = NULL WHERE key = $1";
    execute(tx, sql, &[&key.0, &now.as_millis()]).await?;
    execute(tx, "DELETE FROM endpoint_secrets WHERE endpoint = $1", &[&key.0]).await?;
    execute(tx, "DELETE FROM subscriptions WHERE endpoint = $1", &[&key.0]).await?;
    Ok(())
}

const OWNED: &str = "AND e.id = $1 AND e.account = (SELECT key FROM accounts WHERE id = $2 AND deleted_at IS NULL)";

/// One endpoint of the account; another account's does not exist.
pub(super) async fn find(db: &impl GenericClient, owner: AccountId, id: EndpointId) -> Result<Endpoint, StoreError> {
    endpoint_from_row(&one(db, &format!("{COLUMNS} {OWNED}"), &[&id.0, &owner.0]).await?)
}

/// The same, which nobody else changes until the transaction ends.
async fn find_locked(tx: &Transaction<'_>, owner: AccountId, id: EndpointId) -> Result<Endpoint, StoreError> {
    // The lock first: a row that was read before it was waited for may be an old one.
    let sql = format!("SELECT 1 FROM endpoints e WHERE e.deleted_at IS NULL {OWNED} FOR UPDATE");
    one(tx, &sql, &[&id.0, &owner.0]).await?;
    find(tx, owner, id).await
}

/// The column `settings`, and the sealed credentials.
async fn stored_settings(tx: &Transaction<'_>, key: EndpointKey) -> Result<(String, Option<SealedSecret>), StoreError> {
    let sql = "SELECT settings, credentials_key_id, credentials FROM endpoints WHERE key = $1";
    let row = one(tx, sql, &[&key.0]).await?;
    Ok((get(&row, "settings")?, sealed(&row, KEY_ID, SEALED)?))
}

fn settings(row: &Row) -> Result<EndpointSettings, StoreError> {
    let columns = SettingsColumns {
        url: get(row, "url")?,
        events: get(row, "events")?,
        description: get(row, "description")?,
        ordering: whole(row, "ordering")?,
        external_id: get(row, "external_id")?,
        settings: get(row, "settings")?,
    };
    columns.read()
}

fn endpoint_from_row(row: &Row) -> Result<Endpoint, StoreError> {
    read_row("endpoints", row, |row| {
        Ok(Endpoint {
            id: EndpointId(get(row, "id")?),
            key: EndpointKey(get(row, "key")?),
            account: AccountKey(get(row, "account")?),
            settings: settings(row)?,
            health: health(row)?,
            last_delivery_at: time(row, "last_delivery_at")?,
            secret_hint: get(row, "hint")?,
            created_at: when(row, "created_at")?,
            updated_at: when(row, "updated_at")?,
        })
    })
}

//! Webhook endpoints and their secrets.

use std::time::Duration;

use rusqlite::{Connection, Row, params};

use super::catalog_rows::account;
use super::columns::{health, read_row, sealed, time, unreadable, uuid};
use super::minimum::require;
use super::store::Store;
use super::tx::Tx;
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
const COLUMNS: &str = "SELECT e.*, c.*, (SELECT hint FROM endpoint_secrets s WHERE s.endpoint = e.key \
                       ORDER BY version DESC LIMIT 1) AS hint FROM endpoints e \
                       JOIN endpoint_totals c ON c.endpoint = e.key WHERE e.deleted_at IS NULL";

impl Endpoints for Store {
    async fn create_endpoint(
        &self,
        owner: AccountId,
        new: NewEndpoint,
        pending_reply: Option<PendingReply<WithSecret<Endpoint>>>,
    ) -> Result<WithSecret<Endpoint>, StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let account = account(tx.db, owner)?;
                let limit = tx.shared.settings().max_endpoints;
                let sql = "SELECT COUNT(*) FROM endpoints WHERE account = ?1 AND deleted_at IS NULL";
                let existing: u32 = tx.db.prepare_cached(sql)?.query_row([account.key.0], |row| row.get(0))?;
                if existing >= limit {
                    return Err(StoreError::LimitReached(limit));
                }
                let made = insert(tx, &account, new)?;
                tx.audit(&origin, &AuditRecord::of(account.key, Action::WebhookCreated, made.resource.id))?;
                tx.store_pending_reply(pending_reply, &made)?;
                Ok(made)
            })
            .await
    }

    async fn endpoints(&self, owner: AccountId) -> Result<Vec<Endpoint>, StoreError> {
        self.read(Some(owner), move |db| {
            let account = account(db, owner)?;
            let mut statement = db.prepare_cached(&format!("{COLUMNS} AND e.account = ?1 ORDER BY e.key DESC"))?;
            let rows = statement.query_map([account.key.0], endpoint_from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn endpoint(&self, owner: AccountId, id: EndpointId) -> Result<Endpoint, StoreError> {
        self.read(Some(owner), move |db| find(db, owner, id)).await
    }

    async fn endpoint_named(&self, owner: AccountId, name: ExternalId) -> Result<EndpointId, StoreError> {
        self.read(Some(owner), move |db| {
            let sql = "SELECT e.id FROM endpoints e JOIN accounts a ON a.key = e.account WHERE a.id = ?1 \
                       AND a.deleted_at IS NULL AND e.external_id = ?2 AND e.deleted_at IS NULL";
            let parameters = params![owner.0.as_bytes(), name.as_str()];
            Ok(db.prepare_cached(sql)?.query_row(parameters, |row| Ok(EndpointId(uuid(row, "id")?)))?)
        })
        .await
    }

    async fn update_endpoint(
        &self,
        owner: AccountId,
        id: EndpointId,
        change: EndpointChange,
    ) -> Result<Endpoint, StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let endpoint = find(tx.db, owner, id)?;
                tx.audit(
                    &origin,
                    &AuditRecord::of(endpoint.account, Action::WebhookUpdated, id).with_fields(&change.fields()),
                )?;
                let (named, before) = (change.status, endpoint.health.status);
                let status = named.unwrap_or(before);
                let (stored, sealed) = stored_settings(tx.db, endpoint.key)?;
                let (settings, sealed) = tx.shared.change_settings(id, change, endpoint.settings, sealed)?;
                let NewColumns { columns, requires } = SettingsColumns::of(settings, &stored)?;
                require(tx.db, requires)?;
                is_external_id_free(tx.db, endpoint.account, columns.external_id.as_deref(), Some(endpoint.key))?;
                tx.db
                    .prepare_cached(
                        "UPDATE endpoints SET url = ?2, events = ?3, description = ?4, ordering = ?5, settings = ?6, \
                         external_id = ?7, status = ?8, version = version + 1, updated_at = ?9, \
                         credentials_key_id = ?10, credentials = ?11 WHERE key = ?1",
                    )?
                    .execute(params![
                        endpoint.key.0,
                        columns.url,
                        columns.events,
                        columns.description,
                        columns.ordering,
                        columns.settings,
                        columns.external_id,
                        status.to_column(),
                        tx.now.as_millis(),
                        sealed.as_ref().map(|sealed| &sealed.key_id),
                        sealed.as_ref().map(|sealed| &sealed.bytes),
                    ])?;
                if named == Some(EndpointStatus::Active) {
                    let sql = "UPDATE endpoint_counters SET consecutive_failures = 0, failing_since = NULL \
                               WHERE endpoint = ?1";
                    tx.db.prepare_cached(sql)?.execute([endpoint.key.0])?;
                }
                tx.cache.touch_endpoint(endpoint.key);
                if status == EndpointStatus::Active {
                    // Its deliveries go on.
                    tx.after.due.push((endpoint.key, tx.now));
                }
                let changed = find(tx.db, owner, id)?;
                if let Some(operational_event) = about(&changed).status(before, status) {
                    tx.announce(&operational_event)?;
                }
                Ok(changed)
            })
            .await
    }

    async fn delete_endpoint(&self, owner: AccountId, id: EndpointId) -> Result<(), StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let endpoint = find(tx.db, owner, id)?;
                tx.audit(&origin, &AuditRecord::of(endpoint.account, Action::WebhookDeleted, id))?;
                bury(tx, endpoint.key)
            })
            .await
    }

    async fn rotate_secret(
        &self,
        owner: AccountId,
        id: EndpointId,
        secret: Option<Secret>,
        overlap: Duration,
        pending_reply: Option<PendingReply<WithSecret<Endpoint>>>,
    ) -> Result<WithSecret<Endpoint>, StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let endpoint = find(tx.db, owner, id)?;
                if let Some(secret) = &secret {
                    is_new(tx, endpoint.key, id, secret)?;
                }
                retire_secrets(tx, endpoint.key, overlap)?;
                let secret = add_secret(tx, endpoint.key, id, secret)?;
                let sql = "UPDATE endpoints SET version = version + 1, updated_at = ?2 WHERE key = ?1";
                tx.db.prepare_cached(sql)?.execute(params![endpoint.key.0, tx.now.as_millis()])?;
                tx.cache.touch_endpoint(endpoint.key);
                let rotated = WithSecret { resource: find(tx.db, owner, id)?, secret };
                tx.audit(&origin, &AuditRecord::of(endpoint.account, Action::SecretRegenerated, id))?;
                tx.store_pending_reply(pending_reply, &rotated)?;
                tx.announce(&about(&rotated.resource).rotated(&rotated.resource.secret_hint))?;
                Ok(rotated)
            })
            .await
    }
}

impl Store {
    /// Seals every secret with the current master key. Returns how many were sealed anew.
    pub(super) async fn reseal_secrets(&self) -> Result<u64, StoreError> {
        self.shared.reload_keyring();
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let keyring = tx.shared.keyring();
                let sql = "SELECT s.endpoint, s.version, s.key_id, s.sealed, e.id FROM endpoint_secrets s \
                           JOIN endpoints e ON e.key = s.endpoint WHERE s.key_id <> ?1";
                let mut statement = tx.db.prepare(sql)?;
                let mut rows = statement.query([keyring.current_id()])?;
                let mut resealed = super::users::reseal_factors(tx, &keyring)? + reseal_credentials(tx, &keyring)?;
                while let Some(row) = rows.next()? {
                    let id = EndpointId(uuid(row, "id")?);
                    let old = SealedSecret { key_id: row.get("key_id")?, bytes: row.get("sealed")? };
                    let secret = keyring.open(&old, id.0).map_err(|e| StoreError::Corrupt(e.to_string()))?;
                    let new = keyring.seal(&secret, id.0, tx.shared.random.array());
                    let sql =
                        "UPDATE endpoint_secrets SET key_id = ?3, sealed = ?4 WHERE endpoint = ?1 AND version = ?2";
                    tx.db.prepare_cached(sql)?.execute(params![
                        row.get::<_, i64>("endpoint")?,
                        row.get::<_, i64>("version")?,
                        new.key_id,
                        new.bytes
                    ])?;
                    resealed += 1;
                }
                tx.audit(&origin, &AuditRecord::of(None, Action::SecretsRekeyed, keyring.current_id()))?;
                Ok(resealed)
            })
            .await
    }
}

/// Seals the credentials of endpoints with the current master key. Returns of how many.
fn reseal_credentials(tx: &Tx<'_>, keyring: &Keyring) -> Result<u64, StoreError> {
    let sql = "SELECT key, id, credentials_key_id, credentials FROM endpoints WHERE credentials_key_id <> ?1";
    let stale = tx
        .db
        .prepare(sql)?
        .query_map([keyring.current_id()], |row| {
            Ok((row.get::<_, i64>("key")?, uuid(row, "id")?, sealed(row, KEY_ID, SEALED)?))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    let mut resealed = 0;
    for (key, id, old) in stale {
        let Some(old) = old else { continue };
        let new = keyring.reseal(SealedKind::Credentials, &old, id, tx.shared.random.array());
        let new = new.map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let sql = "UPDATE endpoints SET credentials_key_id = ?2, credentials = ?3 WHERE key = ?1";
        tx.db.prepare_cached(sql)?.execute(params![key, new.key_id, new.bytes])?;
        resealed += 1;
    }
    Ok(resealed)
}

/// The endpoint, for an operational event.
fn about(endpoint: &Endpoint) -> About {
    About { account: endpoint.account, key: endpoint.key, id: endpoint.id, url: endpoint.settings.url.clone() }
}

fn insert(tx: &mut Tx<'_>, account: &Account, new: NewEndpoint) -> Result<WithSecret<Endpoint>, StoreError> {
    let id = EndpointId::from_random(tx.shared.random.array());
    let sealed = tx.shared.seal_credentials(id, &new.credentials);
    let NewColumns { columns, requires } = SettingsColumns::of(new.settings, "{}")?;
    require(tx.db, requires)?;
    is_external_id_free(tx.db, account.key, columns.external_id.as_deref(), None)?;
    tx.db
        .prepare_cached(
            "INSERT INTO endpoints (id, account, url, events, description, ordering, settings, external_id, status, \
             created_at, updated_at, credentials_key_id, credentials) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?11, ?12)",
        )?
        .execute(params![
            id.0.as_bytes(),
            account.key.0,
            columns.url,
            columns.events,
            columns.description,
            columns.ordering,
            columns.settings,
            columns.external_id,
            new.status.to_column(),
            tx.now.as_millis(),
            sealed.as_ref().map(|sealed| &sealed.key_id),
            sealed.as_ref().map(|sealed| &sealed.bytes),
        ])?;
    let key = EndpointKey(tx.db.last_insert_rowid());
    tx.db.prepare_cached("INSERT INTO endpoint_counters (endpoint) VALUES (?1)")?.execute([key.0])?;
    let secret = add_secret(tx, key, id, new.secret)?;
    tx.cache.touch_endpoint(key);
    Ok(WithSecret { resource: find(tx.db, account.id, id)?, secret })
}

/// Drops older secrets, or lets the current one live on for the overlap.
fn retire_secrets(tx: &Tx<'_>, key: EndpointKey, overlap: Duration) -> Result<(), StoreError> {
    if overlap.is_zero() {
        tx.db.prepare_cached("DELETE FROM endpoint_secrets WHERE endpoint = ?1")?.execute([key.0])?;
        return Ok(());
    }
    let until = tx.now.plus(overlap).as_millis();
    tx.db
        .prepare_cached("DELETE FROM endpoint_secrets WHERE endpoint = ?1 AND expires_at <= ?2")?
        .execute(params![key.0, tx.now.as_millis()])?;
    tx.db
        .prepare_cached("UPDATE endpoint_secrets SET expires_at = ?2 WHERE endpoint = ?1 AND expires_at IS NULL")?
        .execute(params![key.0, until])?;
    tx.db
        .prepare_cached(
            "DELETE FROM endpoint_secrets WHERE endpoint = ?1 AND version NOT IN \
             (SELECT version FROM endpoint_secrets WHERE endpoint = ?1 ORDER BY version DESC LIMIT ?2)",
        )?
        .execute(params![key.0, sql_limit(MAX_OLDER_SECRETS)])?;
    Ok(())
}

/// Refuses the secret that the endpoint has. One that cannot be opened is another.
fn is_new(tx: &Tx<'_>, key: EndpointKey, id: EndpointId, secret: &Secret) -> Result<(), StoreError> {
    let sql = "SELECT key_id, sealed FROM endpoint_secrets WHERE endpoint = ?1 ORDER BY version DESC LIMIT 1";
    let sealed = |row: &Row<'_>| Ok(SealedSecret { key_id: row.get(0)?, bytes: row.get(1)? });
    let current = tx.db.prepare_cached(sql)?.query_row([key.0], sealed)?;
    let current = tx.shared.open_sealed(|keyring| keyring.open(&current, id.0));
    let is_same = current.is_ok_and(|current| current.is_same(secret));
    if is_same { Err(StoreError::SecretUnchanged) } else { Ok(()) }
}

/// Adds its owner's own secret, or one that is generated.
fn add_secret(tx: &Tx<'_>, key: EndpointKey, id: EndpointId, own: Option<Secret>) -> Result<Secret, StoreError> {
    require(tx.db, required_of_secret(own.as_ref()))?;
    let keyring: std::sync::Arc<Keyring> = tx.shared.keyring();
    let secret = own.unwrap_or_else(|| Secret::from_random(tx.shared.random.array()));
    let sealed = keyring.seal(&secret, id.0, tx.shared.random.array());
    tx.db
        .prepare_cached(
            "INSERT INTO endpoint_secrets (endpoint, version, key_id, sealed, hint) SELECT ?1, \
             IFNULL((SELECT MAX(version) FROM endpoint_secrets WHERE endpoint = ?1), 0) + 1, ?2, ?3, ?4",
        )?
        .execute(params![key.0, sealed.key_id, sealed.bytes, secret.hint()])?;
    Ok(secret)
}

/// Makes an endpoint a tombstone: it does not exist any more, and its rows wait to be purged.
pub(super) fn bury(tx: &mut Tx<'_>, key: EndpointKey) -> Result<(), StoreError> {
    let sql = "UPDATE endpoints SET deleted_at = ?2, version = version + 1, credentials_key_id = NULL, \
               credentials = NULL WHERE key = ?1";
    tx.db.prepare_cached(sql)?.execute(params![key.0, tx.now.as_millis()])?;
    tx.db.prepare_cached("DELETE FROM endpoint_secrets WHERE endpoint = ?1")?.execute([key.0])?;
    tx.cache.touch_endpoint(key);
    Ok(())
}

/// One endpoint of the account; another account's does not exist.
pub(super) fn find(db: &Connection, owner: AccountId, id: EndpointId) -> Result<Endpoint, StoreError> {
    let sql = format!(
        "{COLUMNS} AND e.id = ?1 AND e.account = (SELECT key FROM accounts WHERE id = ?2 AND deleted_at IS NULL)"
    );
    let found = db.prepare_cached(&sql)?.query_row(params![id.0.as_bytes(), owner.0.as_bytes()], endpoint_from_row)?;
    Ok(found)
}

/// Refuses an external id that an endpoint of the account has, other than this one.
fn is_external_id_free(
    db: &Connection,
    account: AccountKey,
    external_id: Option<&str>,
    own: Option<EndpointKey>,
) -> Result<(), StoreError> {
    let sql =
        "SELECT 1 FROM endpoints WHERE account = ?1 AND external_id = ?2 AND deleted_at IS NULL AND key IS NOT ?3";
    let is_taken = db.prepare_cached(sql)?.exists(params![account.0, external_id, own.map(|key| key.0)])?;
    if is_taken { Err(StoreError::ExternalIdTaken) } else { Ok(()) }
}

/// The column `settings`, and the sealed credentials.
fn stored_settings(db: &Connection, key: EndpointKey) -> Result<(String, Option<SealedSecret>), StoreError> {
    let sql = "SELECT settings, credentials_key_id, credentials FROM endpoints WHERE key = ?1";
    let stored = |row: &Row<'_>| Ok((row.get("settings")?, sealed(row, KEY_ID, SEALED)?));
    Ok(db.prepare_cached(sql)?.query_row([key.0], stored)?)
}

fn settings(row: &Row<'_>) -> rusqlite::Result<EndpointSettings> {
    let columns = SettingsColumns {
        url: row.get("url")?,
        events: row.get("events")?,
        description: row.get("description")?,
        ordering: row.get("ordering")?,
        external_id: row.get("external_id")?,
        settings: row.get("settings")?,
    };
    columns.read().map_err(unreadable)
}

fn endpoint_from_row(row: &Row<'_>) -> rusqlite::Result<Endpoint> {
    read_row("endpoints", row, |row| {
        Ok(Endpoint {
            id: EndpointId(uuid(row, "id")?),
            key: EndpointKey(row.get("key")?),
            account: AccountKey(row.get("account")?),
            settings: settings(row)?,
            health: health(row)?,
            last_delivery_at: time(row, "last_delivery_at")?,
            secret_hint: row.get("hint")?,
            created_at: Timestamp::from_millis(row.get("created_at")?),
            updated_at: Timestamp::from_millis(row.get("updated_at")?),
        })
    })
}

//! Accounts, API keys, event types and the health of endpoints, read from their rows.

use std::time::Duration;

use deadpool_postgres::{GenericClient, Transaction};
use tokio_postgres::Row;

use super::sql::{corrupt, execute, get, maybe_whole, one, parsed, read_row, row, rows, time, when, whole};
use crate::domain::account::{Account, ApiKey, KeyHash};
use crate::domain::endpoint::{EndpointHealth, EndpointStatus, Ordering};
use crate::domain::event::{EventType, INITIAL_TYPES};
use crate::domain::external_id::ExternalId;
use crate::domain::id::{AccountId, AccountKey, ApiKeyId};
use crate::domain::permission::Permissions;
use crate::domain::retention::OwnRetention;
use crate::store::errors::StoreError;
use crate::store::settings::AccountSettings;
use crate::store::view::EventTypes;

pub(super) const ACCOUNT_COLUMNS: &str = "SELECT id, key, name, retention_deliveries, retention_payloads, settings, \
                                          external_id, created_at, updated_at FROM accounts";

pub(super) const API_KEY_COLUMNS: &str = "SELECT k.id, k.account, k.hash, k.name, k.permissions, k.hint, k.expires_at, \
                               k.last_used_at, k.created_at, a.id AS account_id FROM api_keys k \
                               LEFT JOIN accounts a ON a.key = k.account";

/// The catalog of a new database.
pub(super) async fn add_initial_event_types(db: &impl GenericClient) -> Result<(), StoreError> {
    let sql = "INSERT INTO event_types (name, description, created_at, updated_at) SELECT $1, $2, now_ms, now_ms \
               FROM (SELECT (extract(epoch FROM now()) * 1000)::bigint AS now_ms) AS t";
    for (name, description) in INITIAL_TYPES {
        execute(db, sql, &[&name, &description]).await?;
    }
    Ok(())
}

pub(super) async fn account(db: &impl GenericClient, id: AccountId) -> Result<Account, StoreError> {
    let sql = format!("{ACCOUNT_COLUMNS} WHERE id = $1 AND deleted_at IS NULL");
    account_from_row(&one(db, &sql, &[&id.0]).await?)
}

/// The account, which stays until the transaction ends: what is made in it now is not left behind by its deletion.
pub(super) async fn lock_account(tx: &Transaction<'_>, id: AccountId) -> Result<Account, StoreError> {
    let sql = format!("{ACCOUNT_COLUMNS} WHERE id = $1 AND deleted_at IS NULL FOR UPDATE");
    account_from_row(&one(tx, &sql, &[&id.0]).await?)
}

pub(super) fn account_from_row(row: &Row) -> Result<Account, StoreError> {
    read_row("accounts", row, |row| {
        let settings = AccountSettings::read(get(row, "settings")?)?;
        Ok(Account {
            id: AccountId(get(row, "id")?),
            key: AccountKey(get(row, "key")?),
            name: get(row, "name")?,
            retention: own_retention(row)?,
            metadata: settings.metadata,
            external_id: get::<Option<String>>(row, "external_id")?.map(ExternalId::stored),
            networks: settings.networks,
            created_at: when(row, "created_at")?,
            updated_at: when(row, "updated_at")?,
        })
    })
}

/// How long an account's history is kept, where it is not as long as the settings say.
pub(super) fn own_retention(row: &Row) -> Result<OwnRetention, StoreError> {
    let read = |column| Ok::<_, StoreError>(maybe_whole(row, column)?.map(Duration::from_millis));
    Ok(OwnRetention { deliveries: read("retention_deliveries")?, payloads: read("retention_payloads")? })
}

/// The next keys after one, by their ids, each with its hash.
pub(super) async fn api_keys_after(
    db: &impl GenericClient,
    after: ApiKeyId,
    most: i64,
) -> Result<Vec<(KeyHash, ApiKey)>, StoreError> {
    let sql = format!("{API_KEY_COLUMNS} WHERE k.id > $1 ORDER BY k.id LIMIT $2");
    rows(db, &sql, &[&after.0, &most]).await?.iter().map(api_key_from_row).collect()
}

pub(super) async fn find_api_key(
    db: &impl GenericClient,
    id: ApiKeyId,
) -> Result<Option<(KeyHash, ApiKey)>, StoreError> {
    let sql = format!("{API_KEY_COLUMNS} WHERE k.id = $1");
    row(db, &sql, &[&id.0]).await?.as_ref().map(api_key_from_row).transpose()
}

pub(super) fn api_key_from_row(row: &Row) -> Result<(KeyHash, ApiKey), StoreError> {
    read_row("api_keys", row, |row| {
        let account = match get::<Option<i64>>(row, "account")? {
            Some(key) => Some((AccountId(get(row, "account_id")?), AccountKey(key))),
            None => None,
        };
        let key = ApiKey {
            id: ApiKeyId(get(row, "id")?),
            account,
            name: get(row, "name")?,
            permissions: Permissions::from_column(get(row, "permissions")?),
            hint: get(row, "hint")?,
            expires_at: time(row, "expires_at")?,
            last_used_at: time(row, "last_used_at")?,
            created_at: when(row, "created_at")?,
        };
        let hash: Vec<u8> = get(row, "hash")?;
        Ok((KeyHash::from_bytes(hash.try_into().map_err(|_| corrupt("hash"))?), key))
    })
}

pub(super) async fn event_types(db: &impl GenericClient) -> Result<EventTypes, StoreError> {
    let sql = "SELECT name, description, schema, example, created_at, updated_at FROM event_types";
    let mut types = EventTypes::default();
    for row in rows(db, sql, &[]).await? {
        let entry = EventType {
            name: get(&row, "name")?,
            description: get(&row, "description")?,
            schema: get(&row, "schema")?,
            example: get(&row, "example")?,
            created_at: when(&row, "created_at")?,
            updated_at: when(&row, "updated_at")?,
        };
        types.insert(entry.name.clone(), entry);
    }
    Ok(types)
}

/// Whether an endpoint is active, and whether its deliveries keep their order.
pub(super) fn active_and_fifo(row: &Row) -> Result<(bool, bool), StoreError> {
    let status = parsed(row, "status", EndpointStatus::from_column)?;
    let ordering = parsed(row, "ordering", Ordering::from_column)?;
    Ok((status == EndpointStatus::Active, ordering == Ordering::Fifo))
}

/// How an endpoint has been doing.
pub(super) fn health(row: &Row) -> Result<EndpointHealth, StoreError> {
    Ok(EndpointHealth {
        status: parsed(row, "status", EndpointStatus::from_column)?,
        consecutive_failures: whole(row, "consecutive_failures")?,
        failing_since: time(row, "failing_since")?,
    })
}

//! Accounts, API keys and event types, read from their rows.

use std::time::Duration;

use rusqlite::{Connection, Row};

use super::columns::{parsed, read_row, time, unreadable, uuid};
use crate::domain::account::{Account, ApiKey, KeyHash};
use crate::domain::event::EventType;
use crate::domain::external_id::ExternalId;
use crate::domain::id::{AccountId, AccountKey, ApiKeyId};
use crate::domain::permission::Permissions;
use crate::domain::retention::OwnRetention;
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::settings::AccountSettings;
use crate::store::view::EventTypes;

pub(super) fn account(db: &Connection, id: AccountId) -> Result<Account, StoreError> {
    let sql = "SELECT * FROM accounts WHERE id = ?1 AND deleted_at IS NULL";
    Ok(db.prepare_cached(sql)?.query_row([id.0.as_bytes()], account_from_row)?)
}

pub(super) fn account_from_row(row: &Row<'_>) -> rusqlite::Result<Account> {
    read_row("accounts", row, |row| {
        let settings = AccountSettings::read(&row.get::<_, String>("settings")?).map_err(unreadable)?;
        Ok(Account {
            id: AccountId(uuid(row, "id")?),
            key: AccountKey(row.get("key")?),
            name: row.get("name")?,
            retention: own_retention(row)?,
            metadata: settings.metadata,
            external_id: row.get::<_, Option<String>>("external_id")?.map(ExternalId::stored),
            networks: settings.networks,
            created_at: Timestamp::from_millis(row.get("created_at")?),
            updated_at: Timestamp::from_millis(row.get("updated_at")?),
        })
    })
}

/// How long an account's history is kept, where it is not as long as the settings say.
pub(super) fn own_retention(row: &Row<'_>) -> rusqlite::Result<OwnRetention> {
    let read = |column| {
        parsed(row, column, |kept_for: Option<i64>| {
            kept_for.map(u64::try_from).transpose().ok().map(|kept_for| kept_for.map(Duration::from_millis))
        })
    };
    Ok(OwnRetention { deliveries: read("retention_deliveries")?, payloads: read("retention_payloads")? })
}

pub(super) const API_KEY_COLUMNS: &str =
    "SELECT k.*, a.id AS account_id FROM api_keys k LEFT JOIN accounts a ON a.key = k.account";

/// Every key, with its hash.
pub(super) fn api_keys(db: &Connection) -> Result<Vec<(KeyHash, ApiKey)>, StoreError> {
    let mut statement = db.prepare_cached(API_KEY_COLUMNS)?;
    let rows = statement.query_map([], api_key_from_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn api_key(db: &Connection, id: ApiKeyId) -> Result<Option<(KeyHash, ApiKey)>, StoreError> {
    let mut statement = db.prepare_cached(&format!("{API_KEY_COLUMNS} WHERE k.id = ?1"))?;
    let mut rows = statement.query_map([id.0.as_bytes()], api_key_from_row)?;
    Ok(rows.next().transpose()?)
}

pub(super) fn api_key_from_row(row: &Row<'_>) -> rusqlite::Result<(KeyHash, ApiKey)> {
    read_row("api_keys", row, |row| {
        let account = match row.get::<_, Option<i64>>("account")? {
            Some(key) => Some((AccountId(uuid(row, "account_id")?), AccountKey(key))),
            None => None,
        };
        let key = ApiKey {
            id: ApiKeyId(uuid(row, "id")?),
            account,
            name: row.get("name")?,
            permissions: Permissions::from_column(&row.get::<_, String>("permissions")?),
            hint: row.get("hint")?,
            expires_at: time(row, "expires_at")?,
            last_used_at: time(row, "last_used_at")?,
            created_at: Timestamp::from_millis(row.get("created_at")?),
        };
        Ok((KeyHash::from_bytes(row.get("hash")?), key))
    })
}

pub(super) fn event_types(db: &Connection) -> Result<EventTypes, StoreError> {
    let mut statement = db.prepare_cached("SELECT * FROM event_types")?;
    let rows = statement.query_map([], |row| {
        Ok(EventType {
            name: row.get("name")?,
            description: row.get("description")?,
            schema: row.get("schema")?,
            example: row.get("example")?,
            created_at: Timestamp::from_millis(row.get("created_at")?),
            updated_at: Timestamp::from_millis(row.get("updated_at")?),
        })
    })?;
    let entries: Vec<EventType> = rows.collect::<Result<_, _>>()?;
    Ok(entries.into_iter().map(|entry| (entry.name.clone(), entry)).collect())
}

//! Rows of accounts and endpoints as the writer's cache reads them, before settings are read and secrets are opened.

use std::sync::Arc;

use rusqlite::{Connection, Row};

use super::columns::{health, parsed, sealed, time, unreadable, uuid, whole};
use crate::domain::endpoint::{EndpointHealth, EndpointStatus, Ordering};
use crate::domain::external_id::ExternalId;
use crate::domain::id::{AccountId, AccountKey, EndpointId, EndpointKey};
use crate::domain::secret::SealedSecret;
use crate::domain::time::Timestamp;
use crate::store::credentials::{KEY_ID, SEALED};
use crate::store::errors::StoreError;
use crate::store::settings::account_rules;
use crate::store::shared::{StoredEndpoint, words};
use crate::store::view::KnownAccount;

/// An account, as the cache has it.
pub(super) fn known_account(row: &Row<'_>) -> rusqlite::Result<(AccountId, KnownAccount)> {
    let external_id = row.get::<_, Option<String>>("external_id")?.map(ExternalId::stored);
    let id = AccountId(uuid(row, "id")?);
    let settings = row.get::<_, String>("settings").map_err(StoreError::from);
    Ok((id, KnownAccount { external_id, networks: account_rules(id, settings).map_err(unreadable)? }))
}

/// A row of the cache before its settings are read and its secrets are opened.
pub(super) struct StoredRow {
    pub endpoint: StoredEndpoint,
    /// How it has been doing, its order, and the column `settings`.
    pub read: rusqlite::Result<(EndpointHealth, Ordering, String)>,
    pub events: Vec<String>,
    pub last_delivery_at: Option<Timestamp>,
    pub has_fifo_order: bool,
}

/// Reads a row.
pub(super) fn stored_row(row: &Row<'_>) -> rusqlite::Result<StoredRow> {
    let read = health(row)
        .and_then(|health| Ok((health, parsed(row, "ordering", Ordering::from_column)?, row.get("settings")?)));
    let endpoint = StoredEndpoint {
        key: EndpointKey(row.get("key")?),
        id: EndpointId(uuid(row, "id")?),
        account: AccountKey(row.get("account")?),
        url: row.get("url")?,
        version: row.get("version")?,
        active: read.as_ref().is_ok_and(|(health, ..)| health.status == EndpointStatus::Active),
        delivery: Arc::default(),
        networks: None,
        credentials: sealed(row, KEY_ID, SEALED)?,
        secrets: Vec::new(),
    };
    let events = words(&row.get::<_, String>("events")?);
    Ok(StoredRow {
        endpoint,
        read,
        events,
        last_delivery_at: time(row, "last_delivery_at")?,
        has_fifo_order: row.get("has_fifo_order")?,
    })
}

/// The secrets of an endpoint, the current one first.
pub(super) fn secrets_of(
    db: &Connection,
    key: EndpointKey,
) -> rusqlite::Result<Vec<(SealedSecret, Option<Timestamp>)>> {
    let sql = "SELECT key_id, sealed, expires_at FROM endpoint_secrets WHERE endpoint = ?1 ORDER BY version DESC";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([key.0], |row| {
        let sealed = SealedSecret { key_id: row.get("key_id")?, bytes: row.get("sealed")? };
        Ok((sealed, time(row, "expires_at")?))
    })?;
    rows.collect()
}

/// The newest delivery that is listed, and how many are newer.
pub(super) fn recent(db: &Connection) -> rusqlite::Result<(i64, usize)> {
    let sql = "SELECT value, (SELECT COUNT(*) FROM recent_deliveries) AS recent FROM settings WHERE name = 'listed_to'";
    db.prepare_cached(sql)?.query_row([], |row| Ok((row.get("value")?, whole(row, "recent")?)))
}

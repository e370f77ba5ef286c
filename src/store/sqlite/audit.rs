//! The audit log: each change writes its entry in its own transaction.

use rusqlite::{Connection, Row, params, params_from_iter};

use super::catalog_rows::account;
use super::columns::{count, read_row, sql_offset, uuid};
use super::store::Store;
use super::tx::Tx;
use crate::domain::audit::{AuditEntry, AuditFilter, Origin};
use crate::domain::id::{AccountId, AccountKey, AuditId};
use crate::domain::time::Timestamp;
use crate::store::contract::AuditLog;
use crate::store::errors::StoreError;
use crate::store::shared::{AUDIT_TEXTS, AuditRecord, audit_condition, entry_seen_by, words};
use crate::store::values::{Page, Paged, STRETCH, Stretch};

const COLUMNS: &str = "SELECT l.*, a.id AS account_id FROM audit_log l LEFT JOIN accounts a ON a.key = l.account";

impl Tx<'_> {
    /// Writes the entry of this change, with the actor.
    pub fn audit(&self, origin: &Origin, record: &AuditRecord) -> Result<(), StoreError> {
        let [action, actor, actor_id, actor_name, kind, resource, fields, address, request] = record.texts(origin);
        let sql = format!(
            "INSERT INTO audit_log (id, account, created_at, {AUDIT_TEXTS}) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
        );
        self.db.prepare_cached(&sql)?.execute(params![
            AuditId::from_random(self.shared.random.array()).0.as_bytes(),
            record.account.map(|account| account.0),
            self.now.as_millis(),
            action,
            actor,
            actor_id,
            actor_name,
            kind,
            resource,
            fields,
            address,
            request,
        ])?;
        Ok(())
    }
}

impl AuditLog for Store {
    async fn audit_log(
        &self,
        owner: Option<AccountId>,
        filter: AuditFilter,
        page: Page,
    ) -> Result<Paged<AuditEntry>, StoreError> {
        self.search(owner, move |db| {
            let snapshot = db.unchecked_transaction()?;
            let Some(account) = seen(&snapshot, owner, &filter)? else {
                return Ok(Paged::exact(Vec::new(), 0));
            };
            let (condition, texts) = audit_condition(&filter, account, |number| format!("?{number}"));
            let is_filtered = filter != AuditFilter::default();
            let most = if is_filtered { format!("LIMIT {}", page.max_found()) } else { String::new() };
            let sql = format!("SELECT COUNT(*) AS total FROM (SELECT 1 FROM audit_log l WHERE {condition} {most})");
            let found = count(&snapshot, &sql, params_from_iter(&texts))?;
            let (limit, offset) = (page.limit(), sql_offset(page));
            let sql = format!("{COLUMNS} WHERE {condition} ORDER BY l.key DESC LIMIT {limit} OFFSET {offset}");
            let mut statement = snapshot.prepare(&sql)?;
            let rows = statement.query_map(params_from_iter(&texts), |row| entry_from_row(row, owner))?;
            let items = rows.map(|row| row.map(|(_, entry)| entry)).collect::<Result<_, _>>()?;
            Ok(if is_filtered { Paged::found(items, found) } else { Paged::exact(items, found) })
        })
        .await
    }

    async fn walk_audit_log(
        &self,
        owner: Option<AccountId>,
        filter: AuditFilter,
        before: Option<i64>,
    ) -> Result<Stretch<AuditEntry>, StoreError> {
        self.read(owner, move |db| {
            let snapshot = db.unchecked_transaction()?;
            let Some(account) = seen(&snapshot, owner, &filter)? else {
                return Ok(Stretch { items: Vec::new(), next: None });
            };
            let (condition, texts) = audit_condition(&filter, account, |number| format!("?{number}"));
            // From the newest on.
            let before = before.unwrap_or(i64::MAX);
            let sql = format!("{COLUMNS} WHERE {condition} AND l.key < {before} ORDER BY l.key DESC LIMIT {STRETCH}");
            let mut statement = snapshot.prepare(&sql)?;
            let rows = statement.query_map(params_from_iter(&texts), |row| entry_from_row(row, owner))?;
            let (keys, items): (Vec<i64>, Vec<AuditEntry>) = rows.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
            let next = keys.last().copied().filter(|_| keys.len() == STRETCH);
            Ok(Stretch { items, next })
        })
        .await
    }
}

/// The row of the account whose entries are seen, as [`AuditFilter::seen_by`] says.
fn seen(
    db: &Connection,
    owner: Option<AccountId>,
    filter: &AuditFilter,
) -> Result<Option<Option<AccountKey>>, StoreError> {
    let Some(named) = filter.seen_by(owner) else { return Ok(None) };
    match named.map(|named| account(db, named)).transpose() {
        Ok(account) => Ok(Some(account.map(|account| account.key))),
        Err(StoreError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An entry as `owner` sees it, and its key.
fn entry_from_row(row: &Row<'_>, owner: Option<AccountId>) -> rusqlite::Result<(i64, AuditEntry)> {
    read_row("audit_log", row, |row| {
        let account = match row.get::<_, Option<Vec<u8>>>("account_id")? {
            Some(_) => Some(AccountId(uuid(row, "account_id")?)),
            None => None,
        };
        let entry = AuditEntry {
            id: AuditId(uuid(row, "id")?),
            account,
            action: row.get("action")?,
            actor: (row.get("actor")?, row.get("actor_id")?, row.get("actor_name")?),
            resource: (row.get("resource")?, row.get("resource_id")?),
            fields: words(&row.get::<_, String>("fields")?),
            address: row.get("address")?,
            request: row.get("request")?,
            created_at: Timestamp::from_millis(row.get("created_at")?),
        };
        Ok((row.get("key")?, entry_seen_by(owner, entry)))
    })
}

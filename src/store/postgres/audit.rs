//! The audit log: each change writes its entry in its own transaction.

use deadpool_postgres::{GenericClient, Transaction};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::catalog_rows::account;
use super::sql::{corrupt, execute, get, offset, read_row, search_failed, snapshot, text, when};
use super::store::Store;
use crate::domain::audit::{AuditEntry, AuditFilter};
use crate::domain::id::{AccountId, AccountKey, AuditId};
use crate::domain::time::Timestamp;
use crate::store::contract::AuditLog;
use crate::store::errors::StoreError;
use crate::store::shared::{AUDIT_TEXTS, AuditRecord, audit_condition, entry_seen_by, words};
use crate::store::values::{Page, Paged, STRETCH, Stretch};

const COLUMNS: &str = "SELECT l.key, l.id, l.action, l.actor, l.actor_id, l.actor_name, l.resource, l.resource_id, \
                       l.fields, l.address, l.request, l.created_at, a.id AS account_id FROM audit_log l \
                       LEFT JOIN accounts a ON a.key = l.account";

impl AuditLog for Store {
    async fn audit_log(
        &self,
        owner: Option<AccountId>,
        filter: AuditFilter,
        page: Page,
    ) -> Result<Paged<AuditEntry>, StoreError> {
        let mut client = self.searcher(owner).await?;
        let found = async {
            let db = snapshot(&mut client).await?;
            let Some(account) = seen(&db, owner, &filter).await? else {
                return Ok(Paged::exact(Vec::new(), 0));
            };
            let (condition, texts) = audit_condition(&filter, account, |number| format!("${number}"));
            let parameters: Vec<&(dyn ToSql + Sync)> = texts.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
            let is_filtered = filter != AuditFilter::default();
            let most = if is_filtered { format!("LIMIT {}", page.max_found()) } else { String::new() };
            let sql =
                format!("SELECT count(*) AS found FROM (SELECT 1 FROM audit_log l WHERE {condition} {most}) AS f");
            let found: i64 = get(&db.query_one(&sql, &parameters).await.map_err(search_failed)?, "found")?;
            let found = u64::try_from(found).map_err(|_| corrupt("found"))?;
            let (limit, offset) = (page.limit(), offset(page));
            let sql = format!("{COLUMNS} WHERE {condition} ORDER BY l.key DESC LIMIT {limit} OFFSET {offset}");
            let rows = db.query(&sql, &parameters).await.map_err(search_failed)?;
            let items = rows.iter().map(|row| entry_from_row(row, owner)).collect::<Result<_, _>>()?;
            Ok(if is_filtered { Paged::found(items, found) } else { Paged::exact(items, found) })
        }
        .await;
        client.end(found)
    }

    async fn walk_audit_log(
        &self,
        owner: Option<AccountId>,
        filter: AuditFilter,
        before: Option<i64>,
    ) -> Result<Stretch<AuditEntry>, StoreError> {
        let mut client = self.reader(owner).await?;
        let found = async {
            let db = snapshot(&mut client).await?;
            let Some(account) = seen(&db, owner, &filter).await? else {
                return Ok(Stretch { items: Vec::new(), next: None });
            };
            let (condition, texts) = audit_condition(&filter, account, |number| format!("${number}"));
            let parameters: Vec<&(dyn ToSql + Sync)> = texts.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
            // From the newest on.
            let before = before.unwrap_or(i64::MAX);
            let sql = format!("{COLUMNS} WHERE {condition} AND l.key < {before} ORDER BY l.key DESC LIMIT {STRETCH}");
            let found = db.query(&sql, &parameters).await?;
            let next = found.last().filter(|_| found.len() == STRETCH).map(|row| get(row, "key")).transpose()?;
            Ok(Stretch { items: found.iter().map(|row| entry_from_row(row, owner)).collect::<Result<_, _>>()?, next })
        }
        .await;
        client.end(found)
    }
}

impl Store {
    /// Writes the entry of this change, with the actor.
    pub(super) async fn audit(
        &self,
        tx: &Transaction<'_>,
        record: &AuditRecord,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let id = AuditId::from_random(self.shared.random.array());
        let texts = record.texts(&self.origin).map(|value| value.map(text));
        let (account, now) = (record.account.map(|account| account.0), now.as_millis());
        let sql = format!(
            "INSERT INTO audit_log (id, account, created_at, {AUDIT_TEXTS}) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
        );
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&id.0, &account, &now];
        parameters.extend(texts.iter().map(|value| value as &(dyn ToSql + Sync)));
        execute(tx, &sql, &parameters).await?;
        Ok(())
    }
}

/// The row of the account whose entries are seen, as [`AuditFilter::seen_by`] says.
async fn seen(
    db: &impl GenericClient,
    owner: Option<AccountId>,
    filter: &AuditFilter,
) -> Result<Option<Option<AccountKey>>, StoreError> {
    let Some(named) = filter.seen_by(owner) else { return Ok(None) };
    let Some(named) = named else { return Ok(Some(None)) };
    match account(db, named).await {
        Ok(account) => Ok(Some(Some(account.key))),
        Err(StoreError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An entry as `owner` sees it.
fn entry_from_row(row: &Row, owner: Option<AccountId>) -> Result<AuditEntry, StoreError> {
    read_row("audit_log", row, |row| {
        let entry = AuditEntry {
            id: AuditId(get(row, "id")?),
            account: get::<Option<_>>(row, "account_id")?.map(AccountId),
            action: get(row, "action")?,
            actor: (get(row, "actor")?, get(row, "actor_id")?, get(row, "actor_name")?),
            resource: (get(row, "resource")?, get(row, "resource_id")?),
            fields: words(get(row, "fields")?),
            address: get(row, "address")?,
            request: get(row, "request")?,
            created_at: when(row, "created_at")?,
        };
        Ok(entry_seen_by(owner, entry))
    })
}

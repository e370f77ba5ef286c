//! The lists: deliveries and events, newest first, with exact totals. Also how a delivery's row is read. Pages reach
//! the newest `MAX_PAGED_ROWS`.

use rusqlite::{Connection, Row, params};

use super::catalog_rows::account;
use super::columns::{count, parsed, read_row, sql_offset, time, uuid};
use super::endpoints::find;
use super::id_times;
use super::newest::{Wanted, newest_ids};
use super::store::Store;
use crate::domain::delivery::{Attempt, Delivery, DeliveryDetail, DeliveryStatus, SHOWN_ATTEMPTS};
use crate::domain::event::{Event, TEST_TYPE};
use crate::domain::id::{AccountId, AccountKey, DeliveryId, EndpointId, EventId, IdTimes};
use crate::domain::time::Timestamp;
use crate::store::contract::Log;
use crate::store::errors::StoreError;
use crate::store::numbers::sql_limit;
use crate::store::settings::channels_of;
use crate::store::values::{MAX_EVENT_DELIVERIES, Page, Paged};

pub(super) const DELIVERY_COLUMNS: &str = "SELECT d.*, n.id AS endpoint_id, n.url, e.type, e.validation_id \
                                FROM deliveries d JOIN endpoints n ON n.key = d.endpoint JOIN events e \
                                ON e.id = d.event";

const EVENT_COLUMNS: &str = "SELECT v.*, a.id AS account_id FROM events v JOIN accounts a ON a.key = v.account";

impl Log for Store {
    async fn endpoint_deliveries(
        &self,
        owner: AccountId,
        id: EndpointId,
        page: Page,
    ) -> Result<Paged<Delivery>, StoreError> {
        self.read(Some(owner), move |db| {
            // One snapshot, so that the total and the page belong together.
            let snapshot = db.unchecked_transaction()?;
            let endpoint = find(&snapshot, owner, id)?;
            let total = deliveries_total(&snapshot, "key", endpoint.key.0)?;
            if page.is_past_the_end(total) {
                return Ok(Paged::exact(Vec::new(), total));
            }
            // What is skipped costs its entry of the list only.
            let sql = format!(
                "{DELIVERY_COLUMNS} WHERE d.id IN (SELECT id FROM delivery_lists WHERE endpoint = ?1 \
                 UNION ALL SELECT id FROM recent_deliveries WHERE endpoint = ?1 \
                 ORDER BY id DESC LIMIT ?2 OFFSET ?3) ORDER BY d.id DESC"
            );
            let times = id_times::read(&snapshot)?;
            let mut statement = snapshot.prepare_cached(&sql)?;
            let parameters = params![endpoint.key.0, page.limit(), sql_offset(page)];
            let rows = statement.query_map(parameters, |row| delivery_from_row(row, &times))?;
            Ok(Paged::exact(rows.collect::<Result<_, _>>()?, total))
        })
        .await
    }

    async fn account_deliveries(&self, owner: AccountId, page: Page) -> Result<Paged<Delivery>, StoreError> {
        self.read(Some(owner), move |db| {
            let snapshot = db.unchecked_transaction()?;
            let account = account(&snapshot, owner)?.key;
            let total = deliveries_total(&snapshot, "account", account.0)?;
            if page.is_past_the_end(total) {
                return Ok(Paged::exact(Vec::new(), total));
            }
            let sql = "SELECT key FROM endpoints WHERE account = ?1 AND deleted_at IS NULL";
            let endpoints: Vec<i64> =
                snapshot.prepare_cached(sql)?.query_map([account.0], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let skipped = usize::try_from(page.offset()).expect("at most MAX_PAGED_ROWS");
            let ids = newest_ids(&snapshot, &Wanted::all_of(&endpoints), skipped + page.limit() as usize)?;
            Ok(Paged::exact(deliveries_of(&snapshot, ids.into_iter().skip(skipped))?, total))
        })
        .await
    }

    async fn delivery(&self, owner: AccountId, id: DeliveryId) -> Result<DeliveryDetail, StoreError> {
        self.read(Some(owner), move |db| {
            let snapshot = db.unchecked_transaction()?;
            let delivery = find_delivery(&snapshot, owner, id)?;
            let sql =
                "SELECT d.event, p.body FROM deliveries d LEFT JOIN payloads p ON p.event = d.event WHERE d.id = ?1";
            let (event, body) = snapshot.prepare_cached(sql)?.query_row([id.0], |row| {
                Ok((EventId(row.get(0)?), row.get::<_, Option<Vec<u8>>>(1)?.map(Into::into)))
            })?;
            Ok(DeliveryDetail { delivery, event, body, attempts: attempts_of(&snapshot, id)? })
        })
        .await
    }

    async fn events(&self, owner: AccountId, page: Page) -> Result<Paged<Event>, StoreError> {
        self.read(Some(owner), move |db| {
            let snapshot = db.unchecked_transaction()?;
            let key = account(&snapshot, owner)?.key.0;
            let total = count(&snapshot, "SELECT events_total AS total FROM accounts WHERE key = ?1", [key])?;
            if page.is_past_the_end(total) {
                return Ok(Paged::exact(Vec::new(), total));
            }
            let sql =
                format!("{EVENT_COLUMNS} WHERE v.account = ?1 AND v.type <> ?4 ORDER BY v.id DESC LIMIT ?2 OFFSET ?3");
            let times = id_times::read(&snapshot)?;
            let mut statement = snapshot.prepare_cached(&sql)?;
            let parameters = params![key, page.limit(), sql_offset(page), TEST_TYPE];
            let rows = statement.query_map(parameters, |row| event_from_row(row, &times))?;
            Ok(Paged::exact(rows.collect::<Result<_, _>>()?, total))
        })
        .await
    }

    async fn event(&self, owner: AccountId, id: EventId) -> Result<(Event, Vec<Delivery>), StoreError> {
        self.read(Some(owner), move |db| {
            let snapshot = db.unchecked_transaction()?;
            let key = account(&snapshot, owner)?.key.0;
            let sql = format!("{EVENT_COLUMNS} WHERE v.id = ?1 AND v.account = ?2 AND v.type <> ?3");
            let times = id_times::read(&snapshot)?;
            let event = snapshot
                .prepare_cached(&sql)?
                .query_row(params![id.0, key, TEST_TYPE], |row| event_from_row(row, &times))?;
            // Those of its acceptance follow it; those of replays are found by the event.
            let sql = format!(
                "{DELIVERY_COLUMNS} WHERE d.id IN (SELECT id FROM deliveries WHERE id > ?1 AND id <= ?1 + ?2 \
                 AND event = ?1 UNION SELECT id FROM deliveries WHERE event = ?1 AND replay IS NOT NULL) \
                 AND n.deleted_at IS NULL ORDER BY d.id LIMIT {MAX_EVENT_DELIVERIES}"
            );
            let mut statement = snapshot.prepare_cached(&sql)?;
            let rows = statement.query_map(params![id.0, event.deliveries], |row| delivery_from_row(row, &times))?;
            Ok((event, rows.collect::<Result<_, _>>()?))
        })
        .await
    }
}

/// One delivery of the account; another account's does not exist.
pub(super) fn find_delivery(db: &Connection, owner: AccountId, id: DeliveryId) -> Result<Delivery, StoreError> {
    let sql = format!(
        "{DELIVERY_COLUMNS} WHERE d.id = ?1 AND n.deleted_at IS NULL \
         AND n.account = (SELECT key FROM accounts WHERE id = ?2 AND deleted_at IS NULL)"
    );
    let times = id_times::read(db)?;
    let parameters = params![id.0, owner.0.as_bytes()];
    Ok(db.prepare_cached(&sql)?.query_row(parameters, |row| delivery_from_row(row, &times))?)
}

/// The attempts of a delivery, the first one first: what `attempts` has, and the latest in its own row.
fn attempts_of(db: &Connection, id: DeliveryId) -> Result<Vec<Attempt>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT attempt, started_at, response_status, response_time_ms, response_body, error_message \
         FROM attempts WHERE delivery = ?1 UNION ALL \
         SELECT attempt, started_at, response_status, response_time_ms, response_body, error_message \
         FROM deliveries WHERE id = ?1 AND started_at IS NOT NULL ORDER BY attempt DESC LIMIT ?2",
    )?;
    let rows = statement.query_map(params![id.0, sql_limit(SHOWN_ATTEMPTS)], |row| {
        Ok(Attempt {
            number: row.get("attempt")?,
            started_at: Timestamp::from_millis(row.get("started_at")?),
            response_status: row.get("response_status")?,
            response_time_ms: row.get("response_time_ms")?,
            response_body: row.get("response_body")?,
            error_message: row.get("error_message")?,
        })
    })?;
    let mut attempts: Vec<Attempt> = rows.collect::<Result<_, _>>()?;
    attempts.reverse();
    Ok(attempts)
}

/// From counters, and what is not counted yet. `column` is one of two names written above.
fn deliveries_total(db: &Connection, column: &str, value: i64) -> Result<u64, StoreError> {
    let sql = format!(
        "SELECT IFNULL(SUM(c.deliveries_total), 0) AS total FROM endpoints e \
         JOIN endpoint_totals c ON c.endpoint = e.key WHERE e.{column} = ?1 AND e.deleted_at IS NULL"
    );
    count(db, &sql, [value])
}

/// The deliveries with these ids, in their order.
pub(super) fn deliveries_of(db: &Connection, ids: impl Iterator<Item = i64>) -> Result<Vec<Delivery>, StoreError> {
    let mut statement = db.prepare_cached(&format!("{DELIVERY_COLUMNS} WHERE d.id = ?1"))?;
    let times = id_times::read(db)?;
    Ok(ids.map(|id| statement.query_row([id], |row| delivery_from_row(row, &times))).collect::<Result<_, _>>()?)
}

pub(super) fn delivery_from_row(row: &Row<'_>, times: &IdTimes) -> rusqlite::Result<Delivery> {
    read_row("deliveries", row, |row| {
        let status = parsed(row, "status", DeliveryStatus::from_column)?;
        let id = DeliveryId(row.get("id")?);
        Ok(Delivery {
            id,
            created_at: times.of(id.0),
            endpoint: EndpointId(uuid(row, "endpoint_id")?),
            endpoint_url: row.get("url")?,
            event_type: row.get("type")?,
            validation_id: parsed(row, "validation_id", |id: Option<Vec<u8>>| {
                id.map(|id| uuid::Uuid::from_slice(&id)).transpose().ok()
            })?,
            status,
            // Before the first attempt, that one is shown.
            attempt: row.get::<_, u32>("attempt")?.max(1),
            next_retry_at: time(row, "due_at")?.filter(|_| status == DeliveryStatus::Retrying),
            response_status: row.get("response_status")?,
            response_body: row.get("response_body")?,
            response_time_ms: row.get("response_time_ms")?,
            error_message: row.get("error_message")?,
        })
    })
}

fn event_from_row(row: &Row<'_>, times: &IdTimes) -> rusqlite::Result<Event> {
    read_row("events", row, |row| {
        let id = EventId(row.get("id")?);
        Ok(Event {
            id,
            created_at: times.of(id.0),
            account: (AccountId(uuid(row, "account_id")?), AccountKey(row.get("account")?)),
            event_type: row.get("type")?,
            occurred_at: Timestamp::from_millis(row.get("occurred_at")?),
            channels: channels_of(row.get::<_, Option<String>>("channels")?.as_deref()),
            deliveries: row.get("deliveries")?,
            missed: 0,
        })
    })
}

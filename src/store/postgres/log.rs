//! The lists: deliveries and events, newest first, with exact totals. Also how a delivery's row is read. Pages reach
//! the newest `MAX_PAGED_ROWS`.

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;

use super::catalog_rows::account;
use super::counters;
use super::endpoints::find;
use super::sql::{get, maybe_whole, offset, one, parsed, read_row, rows, snapshot, time, when, whole};
use super::store::Store;
use crate::domain::delivery::{Attempt, Delivery, DeliveryDetail, DeliveryStatus, SHOWN_ATTEMPTS};
use crate::domain::event::{Event, TEST_TYPE};
use crate::domain::id::{AccountId, AccountKey, DeliveryId, EndpointId, EventId, IdTimes};
use crate::store::contract::Log;
use crate::store::errors::StoreError;
use crate::store::numbers::sql_limit;
use crate::store::settings::channels_of;
use crate::store::status::literal;
use crate::store::values::{MAX_EVENT_DELIVERIES, Page, Paged};

/// What a delivery shows, of rows `d` that a query chooses.
const SHOWN: &str = "SELECT d.id, d.status, d.attempt, d.response_status, d.response_time_ms, d.response_body, \
                     d.error_message, d.type, d.validation_id, n.id AS endpoint_id, n.url, q.due_at FROM";

const JOINED: &str = concat!(
    "AS d JOIN endpoints n ON n.key = d.endpoint LEFT JOIN queue q ON d.status = ",
    literal!(DeliveryStatus::Retrying),
    " AND q.account = d.account AND q.delivery = d.id"
);

const EVENT_COLUMNS: &str = "SELECT v.id, v.account, v.type, v.occurred_at, cardinality(v.deliveries) AS deliveries, \
                             v.channels, a.id AS account_id FROM events v JOIN accounts a ON a.key = v.account";

/// The query that shows the deliveries that `chosen` selects.
pub(super) fn shown(chosen: &str) -> String {
    format!("{SHOWN} ({chosen}) {JOINED}")
}

impl Log for Store {
    async fn endpoint_deliveries(
        &self,
        owner: AccountId,
        id: EndpointId,
        page: Page,
    ) -> Result<Paged<Delivery>, StoreError> {
        let mut client = self.reader(Some(owner)).await?;
        let found = async {
            // One snapshot, so that the total and the page belong together.
            let db = snapshot(&mut client).await?;
            let endpoint = find(&db, owner, id).await?;
            let total = counters::endpoint_total(&db, endpoint.account, endpoint.key).await?;
            if page.is_past_the_end(total) {
                return Ok(Paged::exact(Vec::new(), total));
            }
            let chosen = "SELECT * FROM deliveries WHERE endpoint = $1 ORDER BY id DESC LIMIT $2 OFFSET $3";
            let sql = format!("{} ORDER BY d.id DESC", shown(chosen));
            let found = rows(&db, &sql, &[&endpoint.key.0, &i64::from(page.limit()), &offset(page)]).await?;
            let times = self.shared.id_times();
            Ok(Paged::exact(found.iter().map(|row| delivery_from_row(row, &times)).collect::<Result<_, _>>()?, total))
        }
        .await;
        client.end(found)
    }

    async fn account_deliveries(&self, owner: AccountId, page: Page) -> Result<Paged<Delivery>, StoreError> {
        let mut client = self.reader(Some(owner)).await?;
        let found = async {
            let db = snapshot(&mut client).await?;
            let account = account(&db, owner).await?.key;
            let total = counters::deliveries_total(&db, account).await?;
            if page.is_past_the_end(total) {
                return Ok(Paged::exact(Vec::new(), total));
            }
            let chosen = "SELECT * FROM deliveries WHERE account = $1 AND endpoint IN (SELECT key FROM endpoints \
                          WHERE account = $1 AND deleted_at IS NULL) ORDER BY id DESC LIMIT $2 OFFSET $3";
            let sql = format!("{} ORDER BY d.id DESC", shown(chosen));
            let found = rows(&db, &sql, &[&account.0, &i64::from(page.limit()), &offset(page)]).await?;
            let times = self.shared.id_times();
            Ok(Paged::exact(found.iter().map(|row| delivery_from_row(row, &times)).collect::<Result<_, _>>()?, total))
        }
        .await;
        client.end(found)
    }

    async fn delivery(&self, owner: AccountId, id: DeliveryId) -> Result<DeliveryDetail, StoreError> {
        let mut client = self.reader(Some(owner)).await?;
        let found = async {
            let db = snapshot(&mut client).await?;
            let delivery = find_delivery(&db, owner, id, &self.shared.id_times()).await?;
            let account = account(&db, owner).await?.key;
            let sql = "SELECT d.event, p.body FROM deliveries d LEFT JOIN payloads p ON p.account = d.account \
                       AND p.event = d.event WHERE d.account = $1 AND d.id = $2";
            let found = one(&db, sql, &[&account.0, &id.0]).await?;
            let (event, body) =
                (EventId(get(&found, "event")?), get::<Option<Vec<u8>>>(&found, "body")?.map(Into::into));
            Ok(DeliveryDetail { delivery, event, body, attempts: attempts_of(&db, account, id).await? })
        }
        .await;
        client.end(found)
    }

    async fn events(&self, owner: AccountId, page: Page) -> Result<Paged<Event>, StoreError> {
        let mut client = self.reader(Some(owner)).await?;
        let found = async {
            let db = snapshot(&mut client).await?;
            let key = account(&db, owner).await?.key.0;
            let total = counters::events_total(&db, AccountKey(key)).await?;
            if page.is_past_the_end(total) {
                return Ok(Paged::exact(Vec::new(), total));
            }
            let sql =
                format!("{EVENT_COLUMNS} WHERE v.account = $1 AND v.type <> $4 ORDER BY v.id DESC LIMIT $2 OFFSET $3");
            let found = rows(&db, &sql, &[&key, &i64::from(page.limit()), &offset(page), &TEST_TYPE]).await?;
            let times = self.shared.id_times();
            Ok(Paged::exact(found.iter().map(|row| event_from_row(row, &times)).collect::<Result<_, _>>()?, total))
        }
        .await;
        client.end(found)
    }

    async fn event(&self, owner: AccountId, id: EventId) -> Result<(Event, Vec<Delivery>), StoreError> {
        let mut client = self.reader(Some(owner)).await?;
        let found = async {
            let db = snapshot(&mut client).await?;
            let key = account(&db, owner).await?.key.0;
            let sql = format!("{EVENT_COLUMNS} WHERE v.account = $1 AND v.id = $2 AND v.type <> $3");
            let times = self.shared.id_times();
            let event = event_from_row(&one(&db, &sql, &[&key, &id.0, &TEST_TYPE]).await?, &times)?;
            // Those of its acceptance are named by it; those of replays are found by the event.
            let chosen = format!(
                "SELECT * FROM (SELECT d.* FROM events v CROSS JOIN LATERAL unnest(v.deliveries) AS u(id) \
                 JOIN deliveries d ON d.account = v.account AND d.id = u.id WHERE v.account = $1 AND v.id = $2 \
                 UNION ALL SELECT * FROM deliveries WHERE event = $2 AND replay IS NOT NULL \
                 AND account = $1) AS all_of_it WHERE endpoint IN (SELECT key FROM endpoints WHERE account = $1 \
                 AND deleted_at IS NULL) ORDER BY id LIMIT {MAX_EVENT_DELIVERIES}"
            );
            let sql = format!("{} ORDER BY d.id", shown(&chosen));
            let found = rows(&db, &sql, &[&key, &id.0]).await?;
            Ok((event, found.iter().map(|row| delivery_from_row(row, &times)).collect::<Result<_, _>>()?))
        }
        .await;
        client.end(found)
    }
}

/// One delivery of the account; another account's does not exist.
pub(super) async fn find_delivery(
    db: &impl GenericClient,
    owner: AccountId,
    id: DeliveryId,
    times: &IdTimes,
) -> Result<Delivery, StoreError> {
    let chosen = "SELECT * FROM deliveries WHERE id = $1 \
                  AND account = (SELECT key FROM accounts WHERE id = $2 AND deleted_at IS NULL)";
    let sql = format!("{} WHERE n.deleted_at IS NULL", shown(chosen));
    delivery_from_row(&one(db, &sql, &[&id.0, &owner.0]).await?, times)
}

/// The attempts of a delivery, the first one first: what `attempts` has, and the latest in its own row.
async fn attempts_of(db: &impl GenericClient, account: AccountKey, id: DeliveryId) -> Result<Vec<Attempt>, StoreError> {
    let sql = "SELECT attempt, started_at, response_status, response_time_ms, response_body, error_message \
               FROM attempts WHERE account = $1 AND delivery = $2 UNION ALL \
               SELECT attempt, started_at, response_status, response_time_ms, response_body, error_message \
               FROM deliveries WHERE account = $1 AND id = $2 AND started_at IS NOT NULL ORDER BY attempt DESC \
               LIMIT $3";
    let mut attempts = Vec::new();
    for row in rows(db, sql, &[&account.0, &id.0, &sql_limit(SHOWN_ATTEMPTS)]).await? {
        attempts.push(Attempt {
            number: whole(&row, "attempt")?,
            started_at: when(&row, "started_at")?,
            response_status: maybe_whole(&row, "response_status")?,
            response_time_ms: whole(&row, "response_time_ms")?,
            response_body: get(&row, "response_body")?,
            error_message: get(&row, "error_message")?,
        });
    }
    attempts.reverse();
    Ok(attempts)
}

pub(super) fn delivery_from_row(row: &Row, times: &IdTimes) -> Result<Delivery, StoreError> {
    read_row("deliveries", row, |row| {
        let status = parsed(row, "status", DeliveryStatus::from_column)?;
        let id = DeliveryId(get(row, "id")?);
        Ok(Delivery {
            id,
            created_at: times.of(id.0),
            endpoint: EndpointId(get(row, "endpoint_id")?),
            endpoint_url: get(row, "url")?,
            event_type: get(row, "type")?,
            validation_id: get(row, "validation_id")?,
            status,
            // Before the first attempt, that one is shown.
            attempt: whole::<u32>(row, "attempt")?.max(1),
            next_retry_at: time(row, "due_at")?.filter(|_| status == DeliveryStatus::Retrying),
            response_status: maybe_whole(row, "response_status")?,
            response_body: get(row, "response_body")?,
            response_time_ms: maybe_whole(row, "response_time_ms")?,
            error_message: get(row, "error_message")?,
        })
    })
}

fn event_from_row(row: &Row, times: &IdTimes) -> Result<Event, StoreError> {
    read_row("events", row, |row| {
        let id = EventId(get(row, "id")?);
        Ok(Event {
            id,
            created_at: times.of(id.0),
            account: (AccountId(get(row, "account_id")?), AccountKey(get(row, "account")?)),
            event_type: get(row, "type")?,
            occurred_at: when(row, "occurred_at")?,
            channels: channels_of(get(row, "channels")?),
            deliveries: whole(row, "deliveries")?,
            missed: 0,
        })
    })
}

//! The account-wide list of deliveries, filtered: by page, or from one end to the other; and events with their bodies.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};

use super::catalog_rows::account;
use super::columns::uuid;
use super::id_times;
use super::log::{DELIVERY_COLUMNS, deliveries_of, delivery_from_row};
use super::newest::{Wanted, newest_ids};
use super::store::Store;
use crate::domain::delivery::Delivery;
use crate::domain::filter::{DeliveryFilter, ResponseFilter};
use crate::domain::id::{AccountId, DeliveryId, EndpointId, EventId};
use crate::domain::subscription::Subscription;
use crate::store::contract::{Log, Search};
use crate::store::errors::StoreError;
use crate::store::kept_events::{BODY_STRETCH, EVENT_STRETCH, KeptEvent};
use crate::store::numbers::sql_limit;
use crate::store::settings::channels_of;
use crate::store::values::{Page, Paged, STRETCH, Stretch};

/// A validation's id as text, as it is shown.
const VALIDATION: &str = "lower(substr(hex(e.validation_id), 1, 8) || '-' || substr(hex(e.validation_id), 9, 4) || '-' \
                          || substr(hex(e.validation_id), 13, 4) || '-' || substr(hex(e.validation_id), 17, 4) || '-' \
                          || substr(hex(e.validation_id), 21))";

impl Search for Store {
    async fn find_deliveries(
        &self,
        owner: AccountId,
        filter: DeliveryFilter,
        page: Page,
    ) -> Result<Paged<Delivery>, StoreError> {
        if filter == DeliveryFilter::default() {
            return self.account_deliveries(owner, page).await;
        }
        self.search(Some(owner), move |db| {
            // One snapshot, so that the total and the page belong together.
            let snapshot = db.unchecked_transaction()?;
            let condition = Condition::of(&snapshot, owner, &filter)?;
            // One look at each row for the total and for the page.
            let most = usize::try_from(page.max_found()).expect("MAX_PAGED_ROWS and a page");
            let ids = newest_ids(&snapshot, &condition.wanted(filter.ids(&id_times::read(&snapshot)?)), most)?;
            let found = ids.len() as u64;
            // Where it is too great a number, the page is empty.
            let skipped = usize::try_from(page.offset()).unwrap_or(usize::MAX);
            let shown = ids.into_iter().skip(skipped).take(page.limit() as usize);
            Ok(Paged::found(deliveries_of(&snapshot, shown)?, found))
        })
        .await
    }

    async fn walk_deliveries(
        &self,
        owner: AccountId,
        filter: DeliveryFilter,
        before: Option<i64>,
    ) -> Result<Stretch<Delivery>, StoreError> {
        self.read(Some(owner), move |db| {
            let snapshot = db.unchecked_transaction()?;
            let condition = Condition::of(&snapshot, owner, &filter)?;
            let times = id_times::read(&snapshot)?;
            let (first, end) = range(filter.ids(&times));
            let range = (first, end.min(before.unwrap_or(i64::MAX)));
            let ids = newest_ids(&snapshot, &Wanted { ids: range, ..Wanted::all_of(&condition.endpoints) }, STRETCH)?;
            let sql =
                format!("{DELIVERY_COLUMNS} WHERE {} AND {} ORDER BY d.id DESC", one_of("d.id", &ids), condition.sql);
            let mut statement = snapshot.prepare(&sql)?;
            let rows =
                statement.query_map(params_from_iter(&condition.values), |row| delivery_from_row(row, &times))?;
            let next = ids.last().copied().filter(|_| ids.len() == STRETCH);
            Ok(Stretch { items: rows.collect::<Result<_, _>>()?, next })
        })
        .await
    }

    async fn walk_kept_events(
        &self,
        owner: AccountId,
        wanted: Subscription,
        before: Option<i64>,
    ) -> Result<Stretch<KeptEvent>, StoreError> {
        self.read(Some(owner), move |db| {
            let snapshot = db.unchecked_transaction()?;
            let account = account(&snapshot, owner)?.key;
            let sql = "SELECT id, type, channels FROM events WHERE account = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3";
            let mut statement = snapshot.prepare_cached(sql)?;
            let mut body = snapshot.prepare_cached("SELECT body FROM payloads WHERE event = ?1")?;
            let mut rows = statement.query(params![account.0, before.unwrap_or(i64::MAX), sql_limit(EVENT_STRETCH)])?;
            let mut stretch = Stretch { items: Vec::new(), next: None };
            let (mut looked_at, mut bytes) = (0, 0);
            while let Some(row) = rows.next()? {
                let (id, event_type): (i64, String) = (row.get("id")?, row.get("type")?);
                let channels = channels_of(row.get::<_, Option<String>>("channels")?.as_deref());
                looked_at += 1;
                stretch.next = Some(id);
                if !wanted.covers(&event_type, channels.as_ref()) {
                    continue;
                }
                let Some(body) = body.query_row([id], |row| row.get::<_, Vec<u8>>(0)).optional()? else { continue };
                bytes += body.len();
                stretch.items.push(KeptEvent { id: EventId(id), event_type, channels, body: body.into() });
                if bytes >= BODY_STRETCH {
                    return Ok(stretch);
                }
            }
            stretch.next = stretch.next.filter(|_| looked_at == EVENT_STRETCH);
            Ok(stretch)
        })
        .await
    }

    // Differs by necessity: a file has one server.
    async fn begin_preview(&self, _: AccountId) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn end_preview(&self, _: AccountId) -> Result<(), StoreError> {
        Ok(())
    }
}

/// The first id that a filter takes, and the first that is too high for it.
fn range((first, end): (Option<DeliveryId>, Option<DeliveryId>)) -> (i64, i64) {
    (first.map_or(0, |id| id.0), end.map_or(i64::MAX, |id| id.0))
}

/// A filter as SQL, without its endpoints and times: numbers of ours are written out, text from outside is bound.
struct Condition {
    sql: String,
    values: Vec<Value>,
    /// The endpoints whose deliveries may be taken.
    endpoints: Vec<i64>,
    /// Whether it looks at the event.
    asks_events: bool,
}

impl Condition {
    fn of(db: &Connection, owner: AccountId, filter: &DeliveryFilter) -> Result<Self, StoreError> {
        let (named, found) = endpoints(db, owner, filter)?;
        let mut condition = Self { sql: "TRUE".to_owned(), values: Vec::new(), endpoints: named, asks_events: false };
        if !filter.statuses.is_empty() {
            let statuses: Vec<i64> = filter.statuses.iter().map(|status| status.to_column()).collect();
            condition.and(&one_of("d.status", &statuses));
        }
        if !filter.event_types.is_empty() {
            condition.and_bound("e.type", filter.event_types.iter().cloned().map(Value::Text).collect());
        }
        if !filter.validations.is_empty() {
            let ids = filter.validations.iter().map(|id| Value::Blob(id.as_bytes().to_vec()));
            condition.and_bound("e.validation_id", ids.collect());
        }
        if !filter.responses.is_empty() {
            let answers: Vec<String> = filter.responses.iter().map(|response| answered(*response)).collect();
            condition.and(&format!("({})", answers.join(" OR ")));
        }
        if let Some(least) = filter.min_attempt {
            condition.and(&format!("MAX(d.attempt, 1) >= {least}"));
        }
        if let Some(least) = filter.min_response_time_ms {
            condition.and(&format!("d.response_time_ms >= {least}"));
        }
        if let Some(search) = &filter.search {
            condition.search(search, &found);
        }
        Ok(condition)
    }

    /// The deliveries that the filter takes.
    fn wanted(&self, ids: (Option<DeliveryId>, Option<DeliveryId>)) -> Wanted<'_> {
        let Self { sql, values, endpoints, asks_events } = self;
        Wanted { endpoints, ids: range(ids), condition: sql, values, joins_events: *asks_events }
    }

    fn and(&mut self, more: &str) {
        self.sql.push_str(" AND ");
        self.sql.push_str(more);
    }

    /// The event's column holds one of these.
    fn and_bound(&mut self, column: &str, values: Vec<Value>) {
        let placeholders = vec!["?"; values.len()].join(", ");
        self.and(&format!("{column} IN ({placeholders})"));
        self.values.extend(values);
        self.asks_events = true;
    }

    /// The text is in what a delivery shows; `endpoints` are those that show it.
    fn search(&mut self, text: &str, endpoints: &[i64]) {
        let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        let columns = ["CAST(d.id AS TEXT)", "CAST(d.response_status AS TEXT)", "e.type", VALIDATION];
        let like = columns.map(|column| format!("{column} LIKE ? ESCAPE '\\'")).join(" OR ");
        self.and(&format!("({} OR {like})", one_of("d.endpoint", endpoints)));
        self.values.extend(columns.map(|_| Value::Text(format!("%{escaped}%"))));
        self.asks_events = true;
    }
}

fn one_of(column: &str, numbers: &[i64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    format!("{column} IN ({})", numbers.join(", "))
}

fn answered(response: ResponseFilter) -> String {
    match response {
        ResponseFilter::None => "d.response_status IS NULL".to_owned(),
        ResponseFilter::Exact(status) => format!("d.response_status = {status}"),
        ResponseFilter::Class(class) => {
            format!("d.response_status BETWEEN {} AND {}", u32::from(class) * 100, u32::from(class) * 100 + 99)
        }
    }
}

/// The account's endpoints that the filter names, or all; and those of them in which the searched text is.
fn endpoints(db: &Connection, owner: AccountId, filter: &DeliveryFilter) -> Result<(Vec<i64>, Vec<i64>), StoreError> {
    let account = account(db, owner)?.key;
    let sql = "SELECT key, id, url, description FROM endpoints WHERE account = ?1 AND deleted_at IS NULL";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([account.0])?;
    let (mut named, mut found) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let (key, id) = (row.get("key")?, EndpointId(uuid(row, "id")?));
        if !filter.endpoints.is_empty() && !filter.endpoints.contains(&id) {
            continue;
        }
        named.push(key);
        let texts = [Some(id.to_string()), row.get("url")?, row.get("description")?];
        let shows = |search: &str| texts.iter().flatten().any(|text: &String| text.to_lowercase().contains(search));
        if filter.search.as_deref().is_some_and(shows) {
            found.push(key);
        }
    }
    Ok((named, found))
}

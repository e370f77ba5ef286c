//! The account-wide list of deliveries, filtered: by page, or from one end to the other; and events with their bodies.

use bytes::Bytes;
use deadpool_postgres::GenericClient;
use tokio_postgres::types::ToSql;

use super::bodies::with_bodies;
use super::catalog_rows::account;
use super::log::{delivery_from_row, shown};
use super::node::NOW;
use super::sql::{column, execute, get, row, rows, search_failed, snapshot, text, whole};
use super::store::Store;
use crate::domain::delivery::Delivery;
use crate::domain::filter::{DeliveryFilter, ResponseFilter};
use crate::domain::id::{AccountId, EndpointId, EventId, IdTimes};
use crate::domain::subscription::Subscription;
use crate::domain::time::millis;
use crate::store::contract::{Log, Search};
use crate::store::errors::StoreError;
use crate::store::kept_events::{BODY_STRETCH, EVENT_STRETCH, KeptEvent, PREVIEW_LEASE};
use crate::store::numbers::sql_limit;
use crate::store::settings::channels_of;
use crate::store::values::{MAX_PAGED_ROWS, Page, Paged, STRETCH, Stretch};

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
        let mut client = self.searcher(Some(owner)).await?;
        let found = async {
            let db = snapshot(&mut client).await?;
            let times = self.shared.id_times();
            let condition = Condition::of(&db, owner, &filter, &times).await?;
            let parameters: Vec<&(dyn ToSql + Sync)> =
                condition.values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
            // One look at each row for the total and for the page. The aggregate keeps the order of its input, because
            // nothing stands between them. An offset that no page has would be too large for an index of an array.
            let skipped = page.offset().min(MAX_PAGED_ROWS);
            let sql = format!(
                "SELECT count(*) AS found, (array_agg(id))[{}:{}] AS page FROM \
                 (SELECT id FROM deliveries WHERE {} ORDER BY id DESC LIMIT {}) AS newest",
                skipped + 1,
                skipped + u64::from(page.limit()),
                condition.sql,
                page.max_found()
            );
            // Not cached, either of them: filters are too many.
            let counted = db.query_one(&sql, &parameters).await.map_err(search_failed)?;
            let found: u64 = whole(&counted, "found")?;
            // A page without rows is no array.
            let ids: Vec<i64> = get::<Option<_>>(&counted, "page")?.unwrap_or_default();
            debug_assert!(ids.is_sorted_by(|a, b| a > b), "the newest first");
            let chosen =
                format!("SELECT * FROM deliveries WHERE account = {} AND {}", condition.account, one_of("id", &ids));
            let shown = db.query(&format!("{} ORDER BY d.id DESC", shown(&chosen)), &[]).await?;
            Ok(Paged::found(shown.iter().map(|row| delivery_from_row(row, &times)).collect::<Result<_, _>>()?, found))
        }
        .await;
        client.end(found)
    }

    async fn walk_deliveries(
        &self,
        owner: AccountId,
        filter: DeliveryFilter,
        before: Option<i64>,
    ) -> Result<Stretch<Delivery>, StoreError> {
        let mut client = self.reader(Some(owner)).await?;
        let found = async {
            let db = snapshot(&mut client).await?;
            let times = self.shared.id_times();
            let mut condition = Condition::of(&db, owner, &filter, &times).await?;
            let (first, end) = filter.ids(&times);
            let end = end.map_or(i64::MAX, |end| end.0).min(before.unwrap_or(i64::MAX));
            let sql = "SELECT id FROM deliveries WHERE account = $1 AND endpoint = ANY($2) AND id >= $3 AND id < $4 \
                       ORDER BY id DESC LIMIT $5";
            let parameters: super::sql::Params<'_> =
                &[&condition.account, &condition.endpoints, &first.map_or(0, |id| id.0), &end, &sql_limit(STRETCH)];
            let ids: Vec<i64> =
                rows(&db, sql, parameters).await?.iter().map(|row| get(row, "id")).collect::<Result<_, _>>()?;
            let next = ids.last().copied().filter(|_| ids.len() == STRETCH);
            condition.and(&one_of("id", &ids));
            let parameters: Vec<&(dyn ToSql + Sync)> =
                condition.values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
            let chosen = format!("SELECT * FROM deliveries WHERE {}", condition.sql);
            let found = db.query(&format!("{} ORDER BY d.id DESC", shown(&chosen)), &parameters).await?;
            Ok(Stretch {
                items: found.iter().map(|row| delivery_from_row(row, &times)).collect::<Result<_, _>>()?,
                next,
            })
        }
        .await;
        client.end(found)
    }

    async fn walk_kept_events(
        &self,
        owner: AccountId,
        wanted: Subscription,
        before: Option<i64>,
    ) -> Result<Stretch<KeptEvent>, StoreError> {
        let mut client = self.reader(Some(owner)).await?;
        let found = async {
            let db = snapshot(&mut client).await?;
            let account = account(&db, owner).await?.key.0;
            let sql = "SELECT id, type, channels FROM events WHERE account = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
            let parameters: super::sql::Params<'_> =
                &[&account, &before.unwrap_or(i64::MAX), &sql_limit(EVENT_STRETCH)];
            let looked_at = rows(&db, sql, parameters).await?;
            let (mut last, mut covered) = (None, Vec::new());
            for row in &looked_at {
                let (id, event_type): (i64, String) = (get(row, "id")?, get(row, "type")?);
                let channels = channels_of(get(row, "channels")?);
                last = Some(id);
                if wanted.covers(&event_type, channels.as_ref()) {
                    covered.push(KeptEvent { id: EventId(id), event_type, channels, body: Bytes::new() });
                }
            }
            let items = with_bodies(&db, account, covered, BODY_STRETCH).await?;
            let bytes: usize = items.iter().map(|event| event.body.len()).sum();
            // Bodies after the last one may not have been read.
            let is_cut = bytes >= BODY_STRETCH;
            let last_read = items.last().map(|event| event.id.0).filter(|_| is_cut);
            let next = last_read.or(last.filter(|_| looked_at.len() == EVENT_STRETCH));
            Ok(Stretch { items, next })
        }
        .await;
        client.end(found)
    }

    async fn begin_preview(&self, owner: AccountId) -> Result<bool, StoreError> {
        let sql = format!(
            "INSERT INTO filter_previews AS p (account, until) VALUES ($1, {NOW} + $2) ON CONFLICT (account) DO \
             UPDATE SET until = excluded.until WHERE p.until < {NOW} RETURNING account"
        );
        let db = self.pool.get().await?;
        Ok(row(&db, &sql, &[&owner.0, &millis(PREVIEW_LEASE)]).await?.is_some())
    }

    async fn end_preview(&self, owner: AccountId) -> Result<(), StoreError> {
        let db = self.pool.get().await?;
        execute(&db, "DELETE FROM filter_previews WHERE account = $1", &[&owner.0]).await?;
        Ok(())
    }
}

/// A filter as SQL: numbers of ours are written out, text from outside is bound.
struct Condition {
    sql: String,
    values: Vec<Box<dyn ToSql + Sync + Send>>,
    account: i64,
    /// The endpoints whose deliveries may be taken.
    endpoints: Vec<i64>,
}

impl Condition {
    async fn of(
        db: &impl GenericClient,
        owner: AccountId,
        filter: &DeliveryFilter,
        times: &IdTimes,
    ) -> Result<Self, StoreError> {
        let account = account(db, owner).await?.key.0;
        let (named, found) = endpoints(db, account, filter).await?;
        let sql = format!("account = {account} AND {}", one_of("endpoint", &named));
        let mut condition = Self { sql, values: Vec::new(), account, endpoints: named };
        if !filter.statuses.is_empty() {
            let statuses: Vec<i64> = filter.statuses.iter().map(|status| status.to_column()).collect();
            condition.and(&one_of("status", &statuses));
        }
        if !filter.event_types.is_empty() {
            condition.and_bound("type = ANY", Box::new(column(filter.event_types.iter().cloned(), text)));
        }
        if !filter.validations.is_empty() {
            condition.and_bound("validation_id = ANY", Box::new(filter.validations.clone()));
        }
        if !filter.responses.is_empty() {
            let answers: Vec<String> = filter.responses.iter().map(|response| answered(*response)).collect();
            condition.and(&format!("({})", answers.join(" OR ")));
        }
        let (first, end) = filter.ids(times);
        if let Some(first) = first {
            condition.and(&format!("id >= {first}"));
        }
        if let Some(end) = end {
            condition.and(&format!("id < {end}"));
        }
        if let Some(least) = filter.min_attempt {
            condition.and(&format!("greatest(attempt, 1) >= {least}"));
        }
        if let Some(least) = filter.min_response_time_ms {
            condition.and(&format!("response_time_ms >= {least}"));
        }
        if let Some(search) = &filter.search {
            condition.search(search, &found);
        }
        Ok(condition)
    }

    fn and(&mut self, more: &str) {
        self.sql.push_str(" AND ");
        self.sql.push_str(more);
    }

    fn and_bound(&mut self, test: &str, value: Box<dyn ToSql + Sync + Send>) {
        self.values.push(value);
        self.and(&format!("{test}(${})", self.values.len()));
    }

    /// The text is in what a delivery shows; `endpoints` are those that show it.
    fn search(&mut self, searched: &str, endpoints: &[i64]) {
        // The columns are ASCII in lowercase, and so is what can be found in them.
        let escaped = searched.to_lowercase().replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        self.values.push(Box::new(text(format!("%{escaped}%"))));
        let number = self.values.len();
        let like = ["id::text", "response_status::text", "type", "validation_id::text"]
            .map(|column| format!("{column} LIKE ${number}"))
            .join(" OR ");
        self.and(&format!("({} OR {like})", one_of("endpoint", endpoints)));
    }
}

/// A column that holds one of these; of none, no row does.
fn one_of(column: &str, numbers: &[i64]) -> String {
    if numbers.is_empty() {
        return "false".to_owned();
    }
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    format!("{column} IN ({})", numbers.join(", "))
}

fn answered(response: ResponseFilter) -> String {
    match response {
        ResponseFilter::None => "response_status IS NULL".to_owned(),
        ResponseFilter::Exact(status) => format!("response_status = {status}"),
        ResponseFilter::Class(class) => {
            format!("response_status BETWEEN {} AND {}", u32::from(class) * 100, u32::from(class) * 100 + 99)
        }
    }
}

/// The account's endpoints that the filter names, or all; and those of them in which the searched text is.
async fn endpoints(
    db: &impl GenericClient,
    account: i64,
    filter: &DeliveryFilter,
) -> Result<(Vec<i64>, Vec<i64>), StoreError> {
    let sql = "SELECT key, id, url, description FROM endpoints WHERE account = $1 AND deleted_at IS NULL";
    let (mut named, mut found) = (Vec::new(), Vec::new());
    for row in rows(db, sql, &[&account]).await? {
        let (key, id) = (get(&row, "key")?, EndpointId(get(&row, "id")?));
        if !filter.endpoints.is_empty() && !filter.endpoints.contains(&id) {
            continue;
        }
        named.push(key);
        let texts = [Some(id.to_string()), get(&row, "url")?, get(&row, "description")?];
        let shows = |search: &str| texts.iter().flatten().any(|text: &String| text.to_lowercase().contains(search));
        if filter.search.as_deref().is_some_and(shows) {
            found.push(key);
        }
    }
    Ok((named, found))
}

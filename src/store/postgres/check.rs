//! A check of a PostgreSQL database, beside the nodes that work on it: whether its rows agree, and what a node would
//! serve. PostgreSQL checks its own files.
//!
//! Each statement has a snapshot of its own. So no snapshot lasts long, and a statement compares rows of one moment.

use std::sync::Arc;

use deadpool_postgres::Pool;
use tokio_postgres::Row;

use super::connect::Connector;
use super::migrate::versions;
use super::sql::{get, number, rows, sealed, whole};
use super::{hold_row, ids};
use crate::domain::delivery::DeliveryStatus;
use crate::domain::endpoint::EndpointStatus;
use crate::domain::event::TEST_TYPE;
use crate::domain::secret::SealedSecret;
use crate::store::check::{
    Checked, Contents, EndpointRow, Findings, MAX_COUNTED, RowChecks, Seals, by_name, left_out, unreadable,
};
use crate::store::counted_attempts::CountedAttempts;
use crate::store::credentials::{KEY_ID, SEALED};
use crate::store::errors::{OpenError, StoreError};
use crate::store::keys::KeySource;
use crate::store::migrations::newest;
use crate::store::postgres_url::PostgresUrl;
use crate::store::status::{is_open, literal};

/// For statements that read whole tables: without a time limit, and with plans for the rows that are there.
const WHOLE_TABLES: &str =
    "SET LOCAL statement_timeout = 0; SET LOCAL enable_seqscan = on; SET LOCAL plan_cache_mode = auto";

/// Rules for the rows of a table: the table, and a query that finds rows that break a rule. Its columns are the name of
/// the row, and what is wrong with it.
const ROW_CHECKS: &[(&str, &str)] = &[
    (
        "deliveries",
        concat!(
            "SELECT id, reason FROM (SELECT d.id::text AS id, CASE WHEN d.status NOT BETWEEN 0 AND 3 \
             THEN 'its status is unknown' WHEN d.id <= d.event THEN 'its id is not after that of its event' \
             WHEN n.key IS NULL THEN 'its endpoint is missing' WHEN n.deleted_at IS NOT NULL THEN NULL WHEN ",
            is_open!("d.status"),
            " AND NOT EXISTS (SELECT 1 FROM queue q WHERE q.account = d.account AND q.delivery = d.id) \
             THEN 'it is open, and not in the queue' END AS reason FROM deliveries d LEFT JOIN endpoints n \
             ON n.key = d.endpoint) AS t WHERE reason IS NOT NULL"
        ),
    ),
    (
        "queue",
        concat!(
            "SELECT id, reason FROM (SELECT q.delivery::text AS id, CASE WHEN n.deleted_at IS NOT NULL THEN NULL \
             WHEN NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.account = q.account AND d.id = q.delivery AND ",
            is_open!("d.status"),
            ") THEN 'its delivery is missing, or not open' WHEN NOT EXISTS (SELECT 1 FROM payloads p \
             WHERE p.account = q.account AND p.event = q.event) THEN 'its body is missing' WHEN q.due_at IS NOT NULL \
             AND q.lease IS NOT NULL THEN 'it is due and leased' WHEN q.due_at IS NULL AND q.lease IS NULL \
             AND q.turn IS NULL THEN 'it is neither due nor leased' WHEN q.lease IS NOT NULL AND NOT EXISTS (SELECT 1 \
             FROM nodes o WHERE o.key = q.lease) THEN 'the node of its lease is missing' END AS reason FROM queue q \
             LEFT JOIN endpoints n ON n.key = q.endpoint) AS t WHERE reason IS NOT NULL"
        ),
    ),
    (
        "queue",
        "SELECT min(delivery)::text, 'another of its FIFO endpoint is due or leased too' FROM queue \
         WHERE turn IS NOT NULL AND (due_at IS NOT NULL OR lease IS NOT NULL) GROUP BY turn HAVING count(*) > 1",
    ),
    (
        "endpoints",
        "SELECT id, reason FROM (SELECT e.id::text AS id, CASE WHEN e.status NOT BETWEEN 0 AND 2 \
         THEN 'its status is unknown' WHEN e.ordering NOT BETWEEN 0 AND 1 THEN 'its ordering is unknown' \
         WHEN e.deleted_at IS NOT NULL THEN NULL WHEN NOT EXISTS (SELECT 1 FROM accounts a WHERE a.key = e.account) \
         THEN 'its account is missing' WHEN NOT EXISTS (SELECT 1 FROM endpoint_secrets s WHERE s.endpoint = e.key) \
         THEN 'it has no secret' WHEN EXISTS (SELECT t.type FROM unnest(string_to_array(e.events, ' ')) AS t(type) \
         WHERE t.type <> '' EXCEPT SELECT s.type FROM subscriptions s WHERE s.endpoint = e.key \
         AND s.account = e.account) OR EXISTS (SELECT s.type FROM subscriptions s WHERE s.endpoint = e.key \
         EXCEPT SELECT t.type FROM unnest(string_to_array(e.events, ' ')) AS t(type)) \
         THEN 'its subscriptions are not its event types' END AS reason FROM endpoints e) AS t \
         WHERE reason IS NOT NULL",
    ),
    (
        "endpoints",
        "SELECT e.id::text, 'its counter is not the number of its deliveries' FROM endpoints e LEFT JOIN \
         (SELECT endpoint, sum(total) AS counted FROM (SELECT endpoint, total FROM counters UNION ALL \
         SELECT endpoint, total FROM counter_deltas) AS t GROUP BY endpoint) AS c ON c.endpoint = e.key LEFT JOIN \
         (SELECT endpoint, count(*) AS found FROM deliveries GROUP BY endpoint) AS d ON d.endpoint = e.key \
         WHERE e.deleted_at IS NULL AND coalesce(c.counted, 0) <> coalesce(d.found, 0)",
    ),
    (
        "replays",
        "SELECT r.id::text, 'its status is unknown, or its endpoint is missing' FROM replays r WHERE r.status \
         NOT BETWEEN 0 AND 3 OR NOT EXISTS (SELECT 1 FROM endpoints e WHERE e.key = r.endpoint)",
    ),
    (
        "settings",
        "SELECT t.name, 'it is missing' FROM unnest(ARRAY['generation', 'counters_folded_to']) AS t(name) \
         WHERE NOT EXISTS (SELECT 1 FROM settings s WHERE s.name = t.name)",
    ),
];

/// See [`Store::check`](crate::store::Store::check).
pub async fn check(url: Arc<PostgresUrl>, keys: &KeySource) -> Result<Checked, OpenError> {
    let shown = url.database().to_owned();
    let failed = |error: &dyn std::fmt::Display| OpenError(format!("cannot open the database {shown}: {error}"));
    let connector = Connector::new(url).map_err(|error| failed(&error))?;
    let pool = connector.pool().map_err(|error| failed(&error))?;
    let db = pool.get().await.map_err(|error| failed(&StoreError::from(error)))?;
    let found = versions(&db).await.map_err(|error| failed(&error))?;
    drop(db);
    if found.version == 0 {
        return Err(OpenError(format!("{shown} is not a database of Aldaba")));
    }
    found.admit(newest())?;
    let keyring = keys.find()?;
    let (mut findings, mut contents) = (Findings::default(), None);
    let mut seals = Seals { has_keys: keyring.is_some(), ..Seals::default() };
    let left_out = left_out(found.version, newest());
    if left_out.is_none() {
        let mut rows = RowChecks { findings: &mut findings, seals: &mut seals, keyring: keyring.as_ref() };
        check_rows(&pool, &mut rows).await.map_err(|error| unreadable(&error))?;
        contents = Some(contents_of(&pool).await.map_err(|error| unreadable(&error))?);
    }
    Ok(Checked { version: found.version, problems: findings.problems(), left_out, contents, seals })
}

/// Runs one statement in a transaction of its own.
async fn read(pool: &Pool, sql: &str) -> Result<Vec<Row>, StoreError> {
    let mut client = pool.get().await?;
    let tx = client.build_transaction().read_only(true).start().await?;
    tx.batch_execute(WHOLE_TABLES).await?;
    rows(&tx, sql, &[]).await
}

async fn check_rows(pool: &Pool, rows: &mut RowChecks<'_>) -> Result<(), StoreError> {
    for (table, sql) in ROW_CHECKS {
        note_rows(pool, rows.findings, table, sql).await?;
    }
    let counters = format!(
        "SELECT a.id::text, 'its counter is not the number of its events' FROM accounts a LEFT JOIN (SELECT account, \
         sum(total) AS counted FROM (SELECT account, total FROM counters WHERE endpoint = {events} UNION ALL \
         SELECT account, total FROM counter_deltas WHERE endpoint = {events}) AS t GROUP BY account) AS c \
         ON c.account = a.key LEFT JOIN (SELECT account, count(*) AS found FROM events WHERE type <> '{TEST_TYPE}' \
         GROUP BY account) AS e ON e.account = a.key WHERE a.deleted_at IS NULL \
         AND coalesce(c.counted, 0) <> coalesce(e.found, 0)",
        events = literal!(Counter::Events)
    );
    note_rows(pool, rows.findings, "accounts", &counters).await?;
    for row in read(pool, "SELECT id, settings FROM accounts WHERE deleted_at IS NULL").await? {
        rows.account(get(&row, "id")?, get(&row, "settings")?);
    }
    let sql = "SELECT id, url, settings, credentials_key_id, credentials FROM endpoints WHERE deleted_at IS NULL";
    for row in read(pool, sql).await? {
        rows.endpoint(&EndpointRow {
            id: get(&row, "id")?,
            url: get(&row, "url")?,
            settings: get(&row, "settings")?,
            credentials: sealed(&row, KEY_ID, SEALED)?,
        });
    }
    for (table, sql) in [
        (
            "endpoint_secrets",
            "SELECT e.id, s.key_id, s.sealed FROM endpoint_secrets s JOIN endpoints e ON e.key = s.endpoint \
             WHERE e.deleted_at IS NULL",
        ),
        (
            "users",
            "SELECT id, factor_key_id AS key_id, factor_sealed AS sealed FROM users WHERE factor_key_id IS NOT NULL",
        ),
    ] {
        for row in read(pool, sql).await? {
            let sealed = SealedSecret { key_id: get(&row, "key_id")?, bytes: get(&row, "sealed")? };
            rows.secret(table, get(&row, "id")?, &sealed);
        }
    }
    for row in read(pool, "SELECT endpoint, attempts FROM limited_attempts").await? {
        let attempts: &str = get(&row, "attempts")?;
        if !CountedAttempts::is_readable(attempts.as_bytes()) {
            rows.findings.note("limited_attempts", "it cannot be read", get::<i64>(&row, "endpoint")?);
        }
    }
    Ok(())
}

/// Notes the rows that a query finds, [`MAX_COUNTED`] at most.
async fn note_rows(pool: &Pool, findings: &mut Findings, table: &str, sql: &str) -> Result<(), StoreError> {
    for row in read(pool, &format!("{sql} LIMIT {MAX_COUNTED}")).await? {
        let (name, reason): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        findings.note(table, &reason, name);
    }
    Ok(())
}

async fn contents_of(pool: &Pool) -> Result<Contents, StoreError> {
    let endpoints = "SELECT status, count(*) AS total FROM endpoints WHERE deleted_at IS NULL GROUP BY status";
    let deliveries = "SELECT status, count(*) AS total FROM deliveries GROUP BY status";
    // The time is that of the database, as in every other statement.
    let due = concat!(
        "SELECT count(*) AS total FROM queue q JOIN endpoints e ON e.key = q.endpoint WHERE e.deleted_at IS NULL \
         AND e.status = ",
        literal!(EndpointStatus::Active),
        " AND (q.due_at <= extract(epoch FROM clock_timestamp()) * 1000 OR q.lease IS NOT NULL)"
    );
    let client = pool.get().await?;
    let (on_hold_since, times) = (hold_row::read(&client).await?, ids::read_times(&client).await?);
    drop(client);
    let newest = read(pool, "SELECT max(id) AS id FROM events").await?;
    let newest: Option<i64> = newest.first().map(|row| get::<Option<i64>>(row, "id")).transpose()?.flatten();
    Ok(Contents {
        accounts: total(pool, "SELECT count(*) AS total FROM accounts WHERE deleted_at IS NULL").await?,
        endpoints: by_name(
            by_status(pool, endpoints).await?,
            EndpointStatus::ALL.map(|status| (status.to_column(), status.name())),
        ),
        events: total(pool, "SELECT count(*) AS total FROM events").await?,
        newest_event: newest.map(|id| times.of(id)),
        deliveries: by_name(
            by_status(pool, deliveries).await?,
            DeliveryStatus::ALL.map(|status| (status.to_column(), status.name())),
        ),
        due: total(pool, due).await?,
        on_hold_since,
    })
}

async fn total(pool: &Pool, sql: &str) -> Result<u64, StoreError> {
    let found = read(pool, sql).await?;
    whole(found.first().ok_or(StoreError::NotFound)?, "total")
}

async fn by_status(pool: &Pool, sql: &str) -> Result<Vec<(i64, u64)>, StoreError> {
    let found = read(pool, sql).await?;
    found.iter().map(|row| Ok((number(row, "status")?.unwrap_or(-1), whole(row, "total")?))).collect()
}

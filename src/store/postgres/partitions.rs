//! The history by days: events, payloads, deliveries and attempts are in the partition of the day in which the id that
//! they begin with was made, so that what is old leaves as whole tables.
//!
//! Partitions of the next days are made beforehand. Whoever finds none for its row makes it (`create`).

use std::collections::BTreeSet;

use deadpool_postgres::{GenericClient, Pool, Transaction};
use tokio_postgres::error::SqlState;

use super::{execute, get, rows};
use crate::domain::id::DeliveryId;
use crate::domain::time::Timestamp;
use crate::store::StoreError;

/// What is partitioned.
const TABLES: [&str; 4] = ["events", PAYLOADS, "deliveries", "attempts"];

/// What may go before the rest.
const PAYLOADS: &str = "payloads";

const DAY_MS: i64 = 86_400_000;

/// Days for which there are partitions beforehand, today included.
const AHEAD: i64 = 3;

/// The key of the lock under which one process makes or drops partitions.
const LOCK: i64 = 0x7061_7274;

/// A day of the history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Day(i64);

impl Day {
    pub fn of(time: Timestamp) -> Self {
        Self(time.as_millis().div_euclid(DAY_MS))
    }

    /// The first id of the day.
    pub fn first_id(self) -> i64 {
        DeliveryId::first_at(Timestamp::from_millis(self.0 * DAY_MS)).0
    }

    /// The first id after the day.
    pub fn end_id(self) -> i64 {
        Self(self.0 + 1).first_id()
    }

    /// The end of the day.
    pub fn ends_at(self) -> Timestamp {
        Timestamp::from_millis((self.0 + 1) * DAY_MS)
    }

    fn partition(self, table: &str) -> String {
        format!("{table}_{}", self.0)
    }
}

/// Whether a statement failed because the day of its rows has no partition.
pub(super) fn is_missing(error: &tokio_postgres::Error) -> bool {
    // Its message is the only thing that tells it from a check of ours, and there is none on these tables.
    error.code() == Some(&SqlState::CHECK_VIOLATION)
}

/// Makes the partitions of the day of `now` and of those after it, where there are none.
pub(super) async fn create(pool: &Pool, now: Timestamp) -> Result<(), StoreError> {
    let today = Day::of(now);
    create_days(pool, (0..AHEAD).map(|ahead| Day(today.0 + ahead)).collect()).await
}

/// Makes the partitions of these days, where there are none.
pub(super) async fn create_days(pool: &Pool, mut wanted: BTreeSet<Day>) -> Result<(), StoreError> {
    let mut client = pool.get().await?;
    for have in days(&client).await? {
        wanted.remove(&have);
    }
    for day in wanted {
        let tx = client.transaction().await?;
        // Whoever makes them first, the others wait for.
        tx.batch_execute("SET LOCAL lock_timeout = 0").await?;
        execute(&tx, "SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
        if !days(&tx).await?.contains(&day) {
            for table in TABLES {
                let (name, first, end) = (day.partition(table), day.first_id(), day.end_id());
                // Made beside its table and then attached, which stops nobody who reads or writes. An outcome is written
                // into the page of its row, beside it.
                let sql = format!(
                    "CREATE TABLE {name} (LIKE {table} INCLUDING ALL) WITH (fillfactor = {filled}); \
                     ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({first}) TO ({end})",
                    filled = if table == "deliveries" { 60 } else { 100 }
                );
                tx.batch_execute(&sql).await?;
            }
        }
        tx.commit().await?;
    }
    Ok(())
}

/// The days that have partitions, the oldest first.
pub(super) async fn days(db: &impl GenericClient) -> Result<Vec<Day>, StoreError> {
    days_of(db, "events").await
}

/// The days whose bodies are still there, the oldest first.
pub(super) async fn days_with_bodies(db: &impl GenericClient) -> Result<Vec<Day>, StoreError> {
    days_of(db, PAYLOADS).await
}

async fn days_of(db: &impl GenericClient, table: &str) -> Result<Vec<Day>, StoreError> {
    let sql = "SELECT c.relname::text AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
               WHERE i.inhparent = to_regclass($1)";
    let mut days = Vec::new();
    for row in rows(db, sql, &[&table]).await? {
        let name: String = get(&row, "name")?;
        days.extend(name.strip_prefix(&format!("{table}_")).and_then(|number| number.parse().ok()).map(Day));
    }
    days.sort_unstable();
    Ok(days)
}

/// Drops a day, if nothing of it is needed any more: no open delivery, and no event that a later delivery is of. Counts
/// what has gone. Returns whether the day is gone.
pub(super) async fn drop_day(pool: &Pool, day: Day) -> Result<bool, StoreError> {
    let mut client = pool.get().await?;
    let tx = client.transaction().await?;
    // Counting a large day takes its time. Whoever uses the tables now is waited for only so long as nobody notices.
    tx.batch_execute("SET LOCAL statement_timeout = '10min'; SET LOCAL lock_timeout = '500ms'").await?;
    execute(&tx, "SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    if !days(&tx).await?.contains(&day) {
        return Ok(true);
    }
    if is_needed(&tx, day).await? {
        return Ok(false);
    }
    let sql = format!(
        "INSERT INTO counters (account, endpoint, shard, total) \
         SELECT account, endpoint, 0, -count(*) FROM {deliveries} GROUP BY account, endpoint UNION ALL \
         SELECT account, 0, 0, -count(*) FROM {events} WHERE type <> '{test}' GROUP BY account \
         ORDER BY account, endpoint \
         ON CONFLICT (account, endpoint, shard) DO UPDATE SET total = counters.total + excluded.total",
        deliveries = day.partition("deliveries"),
        events = day.partition("events"),
        test = crate::domain::event::TEST_TYPE,
    );
    tx.batch_execute(&sql).await?;
    execute(&tx, "DELETE FROM missed WHERE event >= $1 AND event < $2", &[&day.first_id(), &day.end_id()]).await?;
    // From here on nobody reads or writes the day, and what has been written while it was counted is seen.
    let bodies = days_with_bodies(&tx).await?.contains(&day);
    let tables = TABLES.into_iter().filter(|table| bodies || *table != PAYLOADS);
    for table in tables.clone() {
        tx.batch_execute(&format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", day.partition(table))).await?;
    }
    if is_needed(&tx, day).await? {
        return Ok(false);
    }
    for table in tables {
        tx.batch_execute(&format!("DROP TABLE {}", day.partition(table))).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Drops a day's bodies, if nothing that is open needs one. Returns whether they are gone.
pub(super) async fn drop_payloads(pool: &Pool, day: Day) -> Result<bool, StoreError> {
    let mut client = pool.get().await?;
    let tx = client.transaction().await?;
    tx.batch_execute("SET LOCAL lock_timeout = '500ms'").await?;
    execute(&tx, "SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    if !days_with_bodies(&tx).await?.contains(&day) {
        return Ok(true);
    }
    if is_open(&tx, day).await? {
        return Ok(false);
    }
    // From here on nobody makes a delivery of them, and what has been made until now is seen.
    tx.batch_execute(&format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", day.partition(PAYLOADS))).await?;
    if is_open(&tx, day).await? {
        return Ok(false);
    }
    tx.batch_execute(&format!("DROP TABLE {}", day.partition(PAYLOADS))).await?;
    tx.commit().await?;
    Ok(true)
}

/// Whether something that is open needs a body of the day.
async fn is_open(db: &impl GenericClient, day: Day) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM queue WHERE event >= $1 AND event < $2 LIMIT 1";
    Ok(!rows(db, sql, &[&day.first_id(), &day.end_id()]).await?.is_empty())
}

/// Whether something of the day is open, or a later delivery is of one of its events.
async fn is_needed(db: &impl GenericClient, day: Day) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM queue WHERE delivery >= $1 AND delivery < $2 OR event >= $1 AND event < $2 UNION ALL \
               SELECT 1 FROM deliveries WHERE id >= $2 AND event >= $1 AND event < $2 AND replay IS NOT NULL LIMIT 1";
    Ok(!rows(db, sql, &[&day.first_id(), &day.end_id()]).await?.is_empty())
}

/// Held by whoever removes rows or days: what they count is counted once.
pub(super) async fn lock(tx: &Transaction<'_>) -> Result<(), StoreError> {
    execute(tx, "SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    Ok(())
}

//! The history by days: events, payloads, deliveries and attempts are in the partition of the day in which the id that
//! they begin with was made, so that old rows leave as whole tables.
//!
//! Partitions are made a week ahead. A writer that finds none for its row makes it (`create`). A day is dropped table
//! by table (`drop_day`), each under the lock of one parent; `docs/decisions/0001-days.md` has the reasons.

use std::collections::BTreeSet;
use std::time::Duration;

use deadpool_postgres::{GenericClient, Pool, Transaction};
use tokio_postgres::error::SqlState;

use super::sql::{execute, get, rows};
use crate::clock::Random;
use crate::domain::event::TEST_TYPE;
use crate::domain::id::{clock_of, first_at_clock};
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::numbers::EVENTS_COUNTER;
use crate::store::status::literal;

/// What is partitioned.
const TABLES: [&str; 4] = ["events", PAYLOADS, "deliveries", "attempts"];

/// What may go before the rest.
const PAYLOADS: &str = "payloads";

const DAY_MS: i64 = 86_400_000;

/// Days for which there are partitions beforehand, today included. Where they cannot be made,
/// `housekeeping_failures_total` tells it a week before a row finds no partition.
const AHEAD: i64 = 8;

/// The key of the lock under which one process removes rows or days.
const REMOVING: i64 = 0x7061_7274;

/// The key of the lock under which one process makes partitions. It is another one, so that a writer which needs a day
/// does not wait while an old day is counted.
const MAKING: i64 = 0x6d61_6b65;

/// The part of the counters in which dropped days are counted: apart from the one into which deltas are folded, so that
/// no fold waits while a day is counted and dropped.
const SHARD: &str = literal!(Shard::Days);

/// How long a drop waits for a table's lock. Every statement that comes meanwhile waits behind it, so that it is short.
const LOCK_WAIT: Duration = Duration::from_millis(50);

/// How long a statement may take under the lock: it looks up two index ranges, or removes a table's rows in the
/// catalog.
const LOCKED_STATEMENT: Duration = Duration::from_secs(1);

/// Tries to lock one table. A statement or a list holds it for some milliseconds, at most for its timeout of 4.5 s.
const LOCK_TRIES: u32 = 25;

/// Tries in one round, for all of its days: where somebody holds a table for long (a dump), the next round tries again.
const ROUND_TRIES: u32 = 100;

/// The pause between two tries, and what is added at random so that no rhythm of others meets all tries. A table is
/// locked for at most a quarter of the time. Both stay below `idle_in_transaction_session_timeout` (`open.rs`).
const LOCK_PAUSE: Duration = Duration::from_millis(150);

const LOCK_PAUSE_RANDOM: Duration = Duration::from_millis(150);

/// Percent of a page of deliveries that new rows fill: an outcome is written into the page of its row, beside it.
const DELIVERIES_FILLED: u32 = 60;

/// Rows of `missed` that one statement deletes when their day goes.
const MISSED_STEP: i64 = 5_000;

/// For statements that read a whole table, a day or the queue: 10 minutes are some 100 million rows.
const WHOLE_TABLE: &str = "SET LOCAL statement_timeout = '10min'; SET LOCAL enable_seqscan = on";

/// For statements that look up what they read (`BY_KEY` in `open.rs`).
const KEYS_ONLY: &str = "SET LOCAL enable_seqscan = off";

/// Deliveries that were closed and are open again, or that a replay made: what may come to need a day after the queue
/// was read. The condition is that of the indexes `queue_again_event` and `queue_again_delivery`.
const REOPENED: &str = "(attempt > 0 OR replay IS NOT NULL)";

/// A day of the history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Day(i64);

impl Day {
    /// The first id of the day.
    pub fn first_id(self) -> i64 {
        first_at_clock(Timestamp::from_millis(self.0 * DAY_MS))
    }

    /// The first id after the day.
    pub fn end_id(self) -> i64 {
        Self(self.0 + 1).first_id()
    }

    /// The day of an id, by its own clock: an offset of its time moves no row.
    pub fn of_id(id: i64) -> Self {
        Self(clock_of(id).as_millis().div_euclid(DAY_MS))
    }

    /// The day after.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Days since 1970, as in the names of its partitions.
    pub fn number(self) -> i64 {
        self.0
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

/// Makes the partitions of the day of an id that is made now, and of those after it, where there are none.
pub(super) async fn create(pool: &Pool, id: i64) -> Result<(), StoreError> {
    let today = Day::of_id(id);
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
        execute(&tx, "SELECT pg_advisory_xact_lock($1)", &[&MAKING]).await?;
        if !days(&tx).await?.contains(&day) {
            for table in TABLES {
                let (name, first, end) = (day.partition(table), day.first_id(), day.end_id());
                // Made beside its table and then attached, which stops nobody who reads or writes.
                let sql = format!(
                    "CREATE TABLE {name} (LIKE {table} INCLUDING ALL) WITH (fillfactor = {filled}); \
                     ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({first}) TO ({end})",
                    filled = if table == "deliveries" { DELIVERIES_FILLED } else { 100 }
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

/// What became of a day that should go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dropped {
    Gone,
    /// Something of it is open, or a later delivery is of one of its events.
    Needed,
    /// Its tables could not be locked. The next round tries again.
    Busy,
}

/// The days that open deliveries need, when the queue was last read.
pub(super) struct OpenDays {
    /// Days of open deliveries.
    deliveries: BTreeSet<Day>,
    /// Days of their events.
    events: BTreeSet<Day>,
}

impl OpenDays {
    /// Whether an open delivery needs the bodies of the day.
    fn needs_bodies(&self, day: Day) -> bool {
        self.events.contains(&day)
    }

    /// Whether an open delivery needs anything of the day.
    fn needs(&self, day: Day) -> bool {
        self.events.contains(&day) || self.deliveries.contains(&day)
    }

    /// Reads the queue once for all days before `end`.
    pub async fn before(pool: &Pool, end: Day) -> Result<Self, StoreError> {
        let mut client = pool.get().await?;
        let tx = client.transaction().await?;
        tx.batch_execute(WHOLE_TABLE).await?;
        // One row for each pair of days, and not one for each delivery. A delivery is never older than its event.
        let sql = "SELECT min(delivery) AS delivery, min(event) AS event FROM queue WHERE event < $1 \
                   GROUP BY delivery / $2, event / $2";
        let day_ids = Day(1).first_id();
        let mut open = Self { deliveries: BTreeSet::new(), events: BTreeSet::new() };
        for row in rows(&tx, sql, &[&end.first_id(), &day_ids]).await? {
            open.deliveries.insert(Day::of_id(get(&row, "delivery")?));
            open.events.insert(Day::of_id(get(&row, "event")?));
        }
        Ok(open)
    }
}

/// Drops the days of one round.
pub(super) struct Dropping<'a> {
    pool: &'a Pool,
    random: &'a dyn Random,
    open: OpenDays,
    /// Tries to lock a table that are left to this round.
    tries: u32,
}

/// One table of a day, and what must hold for it to go.
struct Removal {
    table: &'static str,
    day: Day,
    /// A query that finds a row, given the first id of the day and the first after it, if the table is still needed.
    unless: Option<String>,
    /// What counts the rows that go.
    counted: Option<String>,
}

impl<'a> Dropping<'a> {
    pub fn new(pool: &'a Pool, random: &'a dyn Random, open: OpenDays) -> Self {
        Self { pool, random, open, tries: ROUND_TRIES }
    }

    /// Drops a day that nothing needs, and counts what has gone.
    ///
    /// The bodies go first: without them no delivery of the day's events can be made or opened again, so that what is
    /// found closed afterwards stays closed. Each table is a transaction of its own that locks one parent, so that it
    /// never waits for somebody who waits for it. What is left after an interruption is a day without bodies, then one
    /// without deliveries, and the next round goes on with it. The events' partitions are the list of the days and go
    /// last.
    pub async fn drop_day(&mut self, day: Day) -> Result<Dropped, StoreError> {
        if self.open.needs(day) || has_later_deliveries(self.pool, day).await? {
            return Ok(Dropped::Needed);
        }
        let bodies = self.drop_bodies(day).await?;
        if bodies != Dropped::Gone {
            return Ok(bodies);
        }
        // A replay may have made some until the bodies went. From here on there are no new ones.
        if has_later_deliveries(self.pool, day).await? {
            return Ok(Dropped::Needed);
        }
        let deliveries = Removal {
            table: "deliveries",
            day,
            unless: Some(format!("SELECT 1 FROM queue WHERE delivery >= $1 AND delivery < $2 AND {REOPENED} LIMIT 1")),
            counted: Some(format!(
                "SELECT account, endpoint, {SHARD}::smallint, -count(*) FROM {} GROUP BY account, endpoint",
                day.partition("deliveries")
            )),
        };
        let attempts = Removal { table: "attempts", day, unless: None, counted: None };
        for removal in [deliveries, attempts] {
            let dropped = self.remove(&removal).await?;
            if dropped != Dropped::Gone {
                return Ok(dropped);
            }
        }
        forget_missed(self.pool, day).await?;
        let counted = format!(
            "SELECT account, {EVENTS_COUNTER}, {SHARD}::smallint, -count(*) FROM {} WHERE type <> '{TEST_TYPE}' \
             GROUP BY account",
            day.partition("events")
        );
        self.remove(&Removal { table: "events", day, unless: None, counted: Some(counted) }).await
    }

    /// Drops a day's bodies, if nothing that is open needs one.
    pub async fn drop_bodies(&mut self, day: Day) -> Result<Dropped, StoreError> {
        if self.open.needs_bodies(day) {
            return Ok(Dropped::Needed);
        }
        // Whoever makes or opens a delivery of them holds their table until its commit: what was made is seen under the
        // lock.
        let unless = format!("SELECT 1 FROM queue WHERE event >= $1 AND event < $2 AND {REOPENED} LIMIT 1");
        self.remove(&Removal { table: PAYLOADS, day, unless: Some(unless), counted: None }).await
    }

    /// Drops one table of a day in one transaction. It is counted before it is locked: nobody adds to a day that is
    /// over, and whoever removes rows from it waits for [`lock`].
    async fn remove(&mut self, removal: &Removal) -> Result<Dropped, StoreError> {
        let mut client = self.pool.get().await?;
        let tx = client.transaction().await?;
        lock(&tx).await?;
        if !days_of(&tx, removal.table).await?.contains(&removal.day) {
            return Ok(Dropped::Gone);
        }
        if let Some(counted) = &removal.counted {
            let sql = format!(
                "{WHOLE_TABLE}; INSERT INTO counters (account, endpoint, shard, total) {counted} \
                 ON CONFLICT (account, endpoint, shard) DO UPDATE SET total = counters.total + excluded.total"
            );
            tx.batch_execute(&sql).await?;
        }
        tx.batch_execute(&format!(
            "{KEYS_ONLY}; SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}",
            LOCK_WAIT.as_millis(),
            LOCKED_STATEMENT.as_millis()
        ))
        .await?;
        // A table has LOCK_TRIES, as long as those of all tables last; then one each.
        let tries = self.tries.clamp(1, LOCK_TRIES);
        for tried in 0..tries {
            self.tries = self.tries.saturating_sub(u32::from(tried > 0));
            tx.batch_execute("SAVEPOINT try").await?;
            match removal.run(&tx).await {
                Ok(false) => return Ok(Dropped::Needed),
                Ok(true) => {
                    tx.commit().await?;
                    return Ok(Dropped::Gone);
                }
                Err(error) if is_late(&error) => tx.batch_execute("ROLLBACK TO SAVEPOINT try").await?,
                Err(error) => return Err(error.into()),
            }
            // Nothing is locked meanwhile but the rows of the counters' own part.
            tokio::time::sleep(self.pause()).await;
        }
        Ok(Dropped::Busy)
    }

    fn pause(&self) -> Duration {
        LOCK_PAUSE + LOCK_PAUSE_RANDOM.mul_f64(self.random.jitter().abs())
    }
}

impl Removal {
    /// Locks the table and drops it, if it is not needed. Returns whether it has gone.
    async fn run(&self, tx: &Transaction<'_>) -> Result<bool, tokio_postgres::Error> {
        let (table, partition) = (self.table, self.day.partition(self.table));
        // The parent first, as every statement does.
        let lock = format!(
            "LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE; LOCK TABLE ONLY {partition} IN ACCESS EXCLUSIVE MODE"
        );
        tx.batch_execute(&lock).await?;
        if let Some(unless) = &self.unless {
            let statement = tx.prepare_cached(unless).await?;
            if tx.query_opt(&statement, &[&self.day.first_id(), &self.day.end_id()]).await?.is_some() {
                return Ok(false);
            }
        }
        tx.batch_execute(&format!("DROP TABLE {partition}")).await?;
        Ok(true)
    }
}

/// Whether somebody else had the lock for too long.
fn is_late(error: &tokio_postgres::Error) -> bool {
    let late = [SqlState::LOCK_NOT_AVAILABLE, SqlState::QUERY_CANCELED, SqlState::T_R_DEADLOCK_DETECTED];
    error.code().is_some_and(|code| late.contains(code))
}

/// Whether a replay has made a later delivery of one of the day's events.
async fn has_later_deliveries(pool: &Pool, day: Day) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM deliveries WHERE id >= $2 AND event >= $1 AND event < $2 AND replay IS NOT NULL LIMIT 1";
    Ok(!rows(&pool.get().await?, sql, &[&day.first_id(), &day.end_id()]).await?.is_empty())
}

/// Forgets which endpoints missed events of the day.
async fn forget_missed(pool: &Pool, day: Day) -> Result<(), StoreError> {
    let sql = "DELETE FROM missed WHERE (account, endpoint, type, event) IN (SELECT account, endpoint, type, event \
               FROM missed WHERE event >= $1 AND event < $2 LIMIT $3)";
    let db = pool.get().await?;
    while execute(&db, sql, &[&day.first_id(), &day.end_id(), &MISSED_STEP]).await? > 0 {}
    Ok(())
}

/// Taken by whoever removes rows or days: what they count is counted once.
pub(super) async fn lock(tx: &Transaction<'_>) -> Result<(), StoreError> {
    execute(tx, "SELECT pg_advisory_xact_lock($1)", &[&REMOVING]).await?;
    Ok(())
}

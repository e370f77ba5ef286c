//! The past in a file of SQLite.

use std::fs::File;
use std::path::Path;

use rusqlite::Connection;

use super::{DAY_MS, EARLIER, EARLIER_COLUMNS, OUTCOME, OUTCOME_COLUMNS, PLACES, Past, body, now};

/// Rows in one commit.
const STEP: usize = 100_000;

const UUID: &str = "unhex(printf('%032x', validation))";

/// Writes what events and their deliveries leave behind.
pub fn write(file: &Path, past: Past) -> anyhow::Result<()> {
    let (now, body) = (now()?, body());
    let tomorrow = now + DAY_MS;
    let db = Connection::open(file)?;
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA cache_size = -200000")?;
    db.execute_batch(PLACES)?;
    for (first, last) in past.steps(STEP) {
        let numbers = format!("SELECT {first} UNION ALL SELECT i + 1 FROM numbers WHERE i < {last}");
        let made = past.made(now, &numbers, UUID);
        db.execute_batch(&format!(
            "BEGIN; \
             {made} INSERT INTO events (id, account, type, occurred_at, validation_id, deliveries) \
             SELECT id, account, type, made_at, validation_id, 1 FROM made; \
             {made} INSERT INTO payloads (event, body) SELECT id, CAST({body} AS BLOB) FROM made; \
             {made} INSERT INTO deliveries (id, endpoint, event, {OUTCOME_COLUMNS}, failures, due_at) \
             SELECT id + 1, endpoint, id, {OUTCOME}, CASE WHEN status < 2 THEN attempt ELSE 0 END, \
             CASE WHEN status = 1 THEN {tomorrow} END FROM made; \
             {made} INSERT INTO attempts (delivery, {EARLIER_COLUMNS}) SELECT id + 1, {EARLIER}; \
             INSERT INTO delivery_lists SELECT endpoint, id, event, status, attempt, response_status, response_time_ms \
             FROM recent_deliveries ORDER BY endpoint, id; \
             UPDATE settings SET value = (SELECT MAX(id) FROM deliveries) WHERE name = 'listed_to'; \
             COMMIT"
        ))?;
    }
    db.execute_batch(
        "UPDATE endpoint_counters AS c SET deliveries_total = \
         (SELECT COUNT(*) FROM delivery_lists d WHERE d.endpoint = c.endpoint); \
         UPDATE accounts SET events_total = (SELECT COUNT(*) FROM events e WHERE e.account = accounts.key); \
         PRAGMA wal_checkpoint(TRUNCATE)",
    )?;
    drop(db);
    // What is measured then does not wait for it.
    Ok(File::open(file)?.sync_all()?)
}

//! The past in PostgreSQL, in the partitions of its days.

use std::ops::RangeInclusive;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::{
    DAY_MS, EARLIER, EARLIER_COLUMNS, OUTCOME, OUTCOME_COLUMNS, PLACES, Past, REACH_MS, SEQUENCE_BITS, body, now,
};
use crate::load::BODY_BYTES;

/// Rows in one statement.
const STEP: usize = 1_000_000;

/// What is partitioned.
const TABLES: [&str; 4] = ["events", "payloads", "deliveries", "attempts"];

const UUID: &str = "lpad(to_hex(validation), 32, '0')::uuid";

const COUNTERS: &str = "INSERT INTO counters (account, endpoint, shard, total) \
                        SELECT account, endpoint, 0, count(*) FROM deliveries GROUP BY account, endpoint UNION ALL \
                        SELECT account, 0, 0, count(*) FROM events GROUP BY account";

/// Writes what events and their deliveries leave behind.
pub fn write(url: &str, past: Past) -> anyhow::Result<()> {
    let now = now()?;
    let days = (now - REACH_MS) / DAY_MS..=now / DAY_MS;
    let mut statements = vec![
        "SET synchronous_commit = off".to_owned(),
        partitions(days.clone()),
        PLACES.to_owned(),
        "ANALYZE places".to_owned(),
    ];
    for (first, last) in past.steps(STEP) {
        let numbers = format!("SELECT generate_series({first}::bigint, {last}::bigint)");
        statements.extend(inserts(&past.made(now, &numbers, UUID), now + DAY_MS));
    }
    statements.push(COUNTERS.to_owned());
    statements.push(vacuum(days));
    statements.push("CHECKPOINT".to_owned());
    run(url, &statements)
}

/// The partitions of these days, as the server makes them.
fn partitions(days: RangeInclusive<u64>) -> String {
    let mut sql = String::new();
    for day in days {
        let (first, end) = ((day * DAY_MS) << SEQUENCE_BITS, ((day + 1) * DAY_MS) << SEQUENCE_BITS);
        for table in TABLES {
            let filled = if table == "deliveries" { 60 } else { 100 };
            sql.push_str(&format!(
                "CREATE TABLE IF NOT EXISTS {table}_{day} PARTITION OF {table} FOR VALUES FROM ({first}) TO ({end}) \
                 WITH (fillfactor = {filled}); "
            ));
        }
    }
    sql
}

/// Retries are due `tomorrow`.
fn inserts(made: &str, tomorrow: u64) -> [String; 5] {
    let body = body();
    [
        format!(
            "{made} INSERT INTO events (account, id, type, occurred_at, validation_id, deliveries) \
             SELECT account, id, type, made_at, validation_id, ARRAY[id + 1] FROM made"
        ),
        format!(
            "{made} INSERT INTO payloads (account, event, body) \
             SELECT account, id, convert_to({body}, 'UTF8') FROM made"
        ),
        format!(
            "{made} INSERT INTO deliveries (account, id, endpoint, event, type, validation_id, {OUTCOME_COLUMNS}) \
             SELECT account, id + 1, endpoint, id, type, validation_id, {OUTCOME} FROM made"
        ),
        format!(
            "{made} INSERT INTO queue (account, delivery, endpoint, event, size, attempt, failures, due_at) \
             SELECT account, id + 1, endpoint, id, {BODY_BYTES}, attempt, attempt, {tomorrow} FROM made \
             WHERE status = 1"
        ),
        format!("{made} INSERT INTO attempts (account, delivery, {EARLIER_COLUMNS}) SELECT account, id + 1, {EARLIER}"),
    ]
}

/// What the database does by itself after a while. It leaves the partitioned tables themselves alone.
fn vacuum(days: RangeInclusive<u64>) -> String {
    let partitions = days.flat_map(|day| TABLES.map(|table| format!("{table}_{day}")));
    let tables: Vec<String> = partitions.chain(["queue".to_owned(), "counters".to_owned()]).collect();
    format!("VACUUM (ANALYZE) {}", tables.join(", "))
}

/// Each statement by itself, up to the first that fails.
fn run(url: &str, statements: &[String]) -> anyhow::Result<()> {
    let mut psql = Command::new("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url]);
    for statement in statements {
        psql.args(["-c", statement]);
    }
    let output = psql.output().context("psql runs")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

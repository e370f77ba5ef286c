//! A database with a past: deliveries that were made over the last weeks, spread over accounts.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use rusqlite::{Connection, params};

use crate::load::{BODY_BYTES, EVENT};
use crate::server::Server;

/// The past that the log reaches back to, well within the retention of 30 days.
const REACH_MS: u64 = 20 * 24 * 60 * 60 * 1_000;

/// Bits of an id below its milliseconds.
const SEQUENCE_BITS: u32 = 20;

/// Rows in one commit.
const STEP: usize = 100_000;

/// A server with this many deliveries in its log, spread over accounts with one endpoint each.
pub async fn server(accounts: usize, deliveries: usize) -> anyhow::Result<Server> {
    let mut server = Server::start(&[])?;
    for _ in 0..accounts {
        let tenant = server.tenant().await?;
        server.endpoint(&tenant, "http://127.0.0.1:9/", EVENT).await?;
    }
    server.offline(|database| write(database, deliveries))?;
    Ok(server)
}

/// Writes what events and their successful deliveries leave behind, an event in turn for each endpoint.
fn write(database: &Path, deliveries: usize) -> anyhow::Result<()> {
    let mut db = Connection::open(database)?;
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA cache_size = -200000")?;
    let endpoints = {
        let mut statement = db.prepare("SELECT key, account FROM endpoints ORDER BY key")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect::<Result<Vec<(i64, i64)>, _>>()?
    };
    let now = u64::try_from(now()?)?;
    let body = format!(
        r#"{{"event":"{EVENT}","timestamp":"2026-01-01T00:00:00Z","data":{{"padding":"{}"}},"meta":{{"datetime":{{"timezone":"UTC","format":"ISO 8601"}}}}}}"#,
        "x".repeat(BODY_BYTES - 160)
    );
    for first in (0..deliveries).step_by(STEP) {
        let tx = db.transaction()?;
        {
            let mut event = tx.prepare_cached(
                "INSERT INTO events (id, account, type, occurred_at, deliveries) VALUES (?1, ?2, ?3, ?4, 1)",
            )?;
            let mut payload = tx.prepare_cached("INSERT INTO payloads (event, body) VALUES (?1, ?2)")?;
            let mut delivery = tx.prepare_cached(
                "INSERT INTO deliveries (id, endpoint, event, status, attempt, started_at, response_status, \
                 response_time_ms, response_body) VALUES (?1, ?2, ?3, 2, 1, ?4, 200, 12, 'ok')",
            )?;
            for number in first..(first + STEP).min(deliveries) {
                let (endpoint, account) = endpoints[number % endpoints.len()];
                let at = now - REACH_MS + REACH_MS * number as u64 / deliveries as u64;
                // Several in one millisecond follow each other.
                let id = i64::try_from((at << SEQUENCE_BITS) + (number as u64 % 100_000) * 2)?;
                let at = i64::try_from(at)?;
                event.execute(params![id, account, EVENT, at])?;
                payload.execute(params![id, body.as_bytes()])?;
                delivery.execute(params![id + 1, endpoint, id, at])?;
            }
        }
        tx.commit()?;
    }
    db.execute_batch(
        "UPDATE endpoints SET deliveries_total = (SELECT COUNT(*) FROM deliveries d WHERE d.endpoint = endpoints.key); \
         UPDATE accounts SET events_total = (SELECT COUNT(*) FROM events e WHERE e.account = accounts.key); \
         PRAGMA wal_checkpoint(TRUNCATE)",
    )?;
    Ok(())
}

/// Milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "rows of the past need the time of today")]
fn now() -> anyhow::Result<u128> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("a clock after 1970")?.as_millis())
}

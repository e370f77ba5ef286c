//! A database with a past: deliveries that were made over the last weeks, spread over accounts.
//!
//! Both databases make the same rows, each within itself: what is said of them here is SQL that both understand.

mod postgres;
mod sqlite;

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use crate::load::{BODY_BYTES, EVENT};
use crate::server::{Database, Server, Settings, Tenant};

/// The past that the log reaches back to, well within the retention of 30 days.
const REACH_MS: u64 = 20 * DAY_MS;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Bits of an id below its milliseconds.
const SEQUENCE_BITS: u32 = 20;

/// The endpoints in the order in which they were made, from 0 on: deliveries go to each of them in turn.
const PLACES: &str = "CREATE TEMP TABLE places (place bigint PRIMARY KEY, endpoint bigint NOT NULL, \
                      account bigint NOT NULL); \
                      INSERT INTO places SELECT row_number() OVER (ORDER BY key) - 1, key, account FROM endpoints";

/// The `mix` of a delivery with which everything is as usual: a success at the first attempt, about no validation. What
/// the expressions below make of it goes by remainders; an endpoint's deliveries have one `mix` after the other.
const USUAL: &str = "7";

const TYPE: &str = "CASE mix % 7 WHEN 1 THEN 'validation.failed' WHEN 4 THEN 'billing.payment_succeeded' \
                    WHEN 5 THEN 'billing.payment_failed' WHEN 6 THEN 'billing.invoice_upcoming' \
                    ELSE 'validation.completed' END";

const IS_ABOUT_VALIDATION: &str = "mix % 7 < 4 AND mix % 5 <> 2";

/// Of a hundred deliveries 5 have failed, 1 is retried tomorrow, and 1 is pending without a due time: nothing is sent.
/// (A pending delivery that is due tomorrow was accepted by a clock that was ahead: the server makes it due when it
/// starts.)
const STATUS: &str = "CASE WHEN mix % 100 < 5 THEN 3 WHEN mix % 100 = 5 THEN 1 WHEN mix % 100 = 6 THEN 0 ELSE 2 END";

const ATTEMPT: &str = "CASE WHEN mix % 100 < 5 THEN 3 WHEN mix % 100 = 5 THEN 2 WHEN mix % 100 = 6 THEN 0 \
                       WHEN mix % 9 = 0 THEN 2 ELSE 1 END";

const RESPONSE_STATUS: &str = "CASE mix % 100 WHEN 0 THEN 500 WHEN 1 THEN 503 WHEN 2 THEN 404 WHEN 3 THEN NULL \
                               WHEN 4 THEN 502 WHEN 5 THEN 503 WHEN 6 THEN NULL ELSE 200 END";

const RESPONSE_TIME: &str = "CASE WHEN mix % 100 <> 6 THEN 5 + mix % 97 * 7 END";

/// What the latest attempt came to, and the columns that it has in both databases.
const OUTCOME: &str = "status, attempt, CASE WHEN attempt > 0 THEN made_at + 60000 * (attempt - 1) END, \
                       response_status, response_time_ms, CASE WHEN response_status = 200 THEN 'ok' \
                       WHEN response_status > 200 THEN 'oops' END, \
                       CASE WHEN status IN (1, 3) THEN 'the receiver did not answer with 2xx' END";
const OUTCOME_COLUMNS: &str =
    "status, attempt, started_at, response_status, response_time_ms, response_body, error_message";

/// The same of the attempts before it.
const EARLIER: &str = "number, made_at + 60000 * (number - 1), 503, 20, 'oops', 'the receiver did not answer with 2xx' \
                       FROM made CROSS JOIN earlier WHERE number < attempt";
const EARLIER_COLUMNS: &str = "attempt, started_at, response_status, response_time_ms, response_body, error_message";

/// What there was.
#[derive(Clone, Copy, Debug)]
pub struct Past {
    /// Accounts.
    pub accounts: usize,
    /// Endpoints of each account.
    pub endpoints: usize,
    /// Deliveries of all of them, each of an event of its own.
    pub deliveries: usize,
    /// Whether they differ; otherwise each was a success at the first attempt.
    pub varied: bool,
}

impl Past {
    /// Deliveries of the account that was made after so many others.
    pub fn of_account(self, index: usize) -> usize {
        let all = self.accounts * self.endpoints;
        let rest = (self.deliveries % all).saturating_sub(index * self.endpoints).min(self.endpoints);
        self.deliveries / all * self.endpoints + rest
    }

    /// The numbers of deliveries in steps: the first and the last of each.
    fn steps(self, step: usize) -> impl Iterator<Item = (usize, usize)> {
        (0..self.deliveries).step_by(step).map(move |first| (first, (first + step).min(self.deliveries) - 1))
    }

    /// What stands before an insert: for each of the `numbers`, `made` has a delivery and its event, which has the id
    /// before; `earlier` has the attempts that may come before the latest. `uuid` makes an id of a `validation`.
    fn made(self, now: u64, numbers: &str, uuid: &str) -> String {
        let Self { endpoints: of_account, deliveries, .. } = self;
        let (begin, all) = (now - REACH_MS, self.accounts * of_account);
        let mix = if self.varied { format!("i / {all} + place") } else { USUAL.to_owned() };
        // Several in one millisecond follow each other.
        format!(
            "WITH RECURSIVE numbers (i) AS ({numbers}), \
             placed AS (SELECT i, {begin} + {REACH_MS} * i / {deliveries} AS made_at, endpoint, account, {mix} AS mix, \
             i / {of_account} AS validation FROM numbers CROSS JOIN places WHERE place = i % {all}), \
             made AS (SELECT (made_at << {SEQUENCE_BITS}) + i % 100000 * 2 AS id, made_at, account, endpoint, \
             {TYPE} AS type, CASE WHEN {IS_ABOUT_VALIDATION} THEN {uuid} END AS validation_id, {STATUS} AS status, \
             {ATTEMPT} AS attempt, {RESPONSE_STATUS} AS response_status, {RESPONSE_TIME} AS response_time_ms \
             FROM placed), \
             earlier (number) AS (VALUES (1), (2))"
        )
    }
}

/// A server with this past, and its accounts in the order in which they were made.
pub async fn server(past: Past, settings: Settings) -> anyhow::Result<(Server, Vec<Tenant>)> {
    let mut server = Server::start(settings)?;
    let mut tenants = Vec::with_capacity(past.accounts);
    for _ in 0..past.accounts {
        let tenant = server.tenant().await?;
        for _ in 0..past.endpoints {
            server.endpoint(&tenant, "http://127.0.0.1:9/", EVENT).await?;
        }
        tenants.push(tenant);
    }
    if past.deliveries > 0 {
        server.offline(|database| match database {
            Database::File(file) => sqlite::write(&file, past),
            Database::Url(url) => postgres::write(&url, past),
        })?;
    }
    Ok((server, tenants))
}

/// The text of a body, of an event of this `type`.
fn body() -> String {
    format!(
        concat!(
            r#"'{{"event":"' || type || '","timestamp":"2026-01-01T00:00:00Z","data":{{"padding":"{}"}},"#,
            r#""meta":{{"datetime":{{"timezone":"UTC","format":"ISO 8601"}}}}}}'"#
        ),
        "x".repeat(BODY_BYTES - 160)
    )
}

/// Milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "rows of the past need the time of today")]
fn now() -> anyhow::Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock after 1970")?;
    Ok(u64::try_from(since.as_millis())?)
}

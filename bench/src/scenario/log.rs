//! Log: how long it takes to find something in a log that is long.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::Plan;
use crate::figure::{Figure, Unit, percentile};
use crate::history::{self, Past};
use crate::http::{Connection, Message, request};
use crate::server::{Server, Tenant, text};

/// Accounts that the log is spread over.
const ACCOUNTS: usize = 1_000;

/// Endpoints of each of them.
const ENDPOINTS: usize = 5;

/// Deliveries of each of them at least: each status is among them, and there is a page 5.
const LEAST: usize = 600;

/// Accounts that ask, in turn.
const ASKING: usize = 20;

/// How often each call is made.
const TIMES: usize = 300;

const LIST: &str = "/v1/webhooks/deliveries";

const EVENTS: &str = "/v1/events";

const STATUSES: [&str; 4] = ["pending", "retrying", "success", "failed"];

/// An account, and what it asks for.
struct Asker {
    key: String,
    endpoint: String,
    validation: String,
    day: String,
    delivery: String,
    event: String,
}

/// Makes the path of a call.
type Path = fn(&Asker) -> String;

/// The calls.
const CALLS: &[(&str, Path)] = &[
    ("the account's list, page 1", |_| LIST.to_owned()),
    ("the account's list, page 5", |_| format!("{LIST}?page=5")),
    ("an endpoint's list", |asker| format!("/v1/webhooks/{}/deliveries", asker.endpoint)),
    ("with endpoint_id", |asker| format!("{LIST}?endpoint_id={}", asker.endpoint)),
    ("with status", |_| format!("{LIST}?status=failed")),
    ("with event_type", |_| format!("{LIST}?event_type=validation.failed")),
    ("with response_status", |_| format!("{LIST}?response_status=5xx")),
    ("with validation_id", |asker| format!("{LIST}?validation_id={}", asker.validation)),
    ("with from and to", |asker| format!("{LIST}?{}", one_day(asker))),
    ("with min_attempt", |_| format!("{LIST}?min_attempt=2")),
    ("with min_response_time_ms", |_| format!("{LIST}?min_response_time_ms=600")),
    ("with q", |_| format!("{LIST}?q=invoice")),
    ("with q that finds nothing", |_| NOTHING.to_owned()),
    ("with endpoint_id and status", |asker| format!("{LIST}?endpoint_id={}&status=failed", asker.endpoint)),
    ("with event_type, from and to", |asker| format!("{LIST}?event_type=validation.failed&{}", one_day(asker))),
    ("with status, from and to", |asker| format!("{LIST}?status=failed&{}", one_day(asker))),
    ("one delivery", |asker| format!("{LIST}/{}", asker.delivery)),
    ("the list of events, page 1", |_| EVENTS.to_owned()),
    ("one event", |asker| format!("{EVENTS}/{}", asker.event)),
];

const NOTHING: &str = "/v1/webhooks/deliveries?q=nowhere";

fn one_day(asker: &Asker) -> String {
    let day = &asker.day;
    format!("from={day}&to={day}")
}

/// Loads the log, compares totals with it, and measures each call.
pub async fn run(plan: Plan) -> anyhow::Result<Vec<Figure>> {
    let (accounts, times) = if plan.quick { (10, ASKING) } else { (ACCOUNTS, TIMES) };
    let deliveries = plan.history.max(accounts * LEAST);
    let past = Past { accounts, endpoints: ENDPOINTS, deliveries, varied: true };
    let begin = Instant::now();
    let (server, tenants) = history::server(past, &[]).await?;
    eprintln!("a log of {deliveries} deliveries was written in {:.0?}", begin.elapsed());
    let mut askers = Vec::new();
    for (index, tenant) in tenants.iter().enumerate().step_by((accounts / ASKING).max(1)) {
        let loaded = past.of_account(index);
        compare(&server, tenant, loaded).await?;
        askers.push(asker(&server, tenant, loaded).await?);
    }
    let mut connection = Connection::open(server.address).await?;
    let mut figures = Vec::new();
    for (name, path) in CALLS {
        let requests = askers.iter().map(|asker| request("GET", &path(asker), &asker.key, ""));
        let requests = requests.collect::<anyhow::Result<Vec<_>>>()?;
        let mut took = ask(&mut connection, &requests, times).await?;
        for percent in [50, 99] {
            let millis = percentile(&mut took, percent);
            figures.push(Figure::new("log", &format!("{name}, p{percent}"), Unit::Millis, millis));
        }
    }
    Ok(figures)
}

/// The totals are what was loaded, and every delivery has one of the statuses.
async fn compare(server: &Server, tenant: &Tenant, loaded: usize) -> anyhow::Result<()> {
    let key = &tenant.key;
    for list in [LIST, EVENTS] {
        let total = server.total(list, key).await?;
        ensure!(total == loaded, "{list} has {total} rows, and {loaded} were loaded");
    }
    let mut sum = 0;
    for status in STATUSES {
        let total = server.total(&format!("{LIST}?status={status}"), key).await?;
        ensure!(total > 0, "some deliveries are {status}");
        sum += total;
    }
    ensure!(sum == loaded, "with their statuses there are {sum} deliveries, and {loaded} were loaded");
    ensure!(server.total(NOTHING, key).await? == 0, "nothing is found where there is nothing");
    Ok(())
}

/// What the account, which has so many deliveries, asks for: what is in the middle of its list.
async fn asker(server: &Server, tenant: &Tenant, deliveries: usize) -> anyhow::Result<Asker> {
    let key = &tenant.key;
    let rows = data(server, key, &format!("{LIST}?per_page=1&page={}", deliveries / 2)).await?;
    let delivery = text(&rows[0]["id"])?;
    let detail = data(server, key, &format!("{LIST}/{delivery}")).await?;
    let shown = &detail["attributes"];
    let rows = data(server, key, &format!("{LIST}?event_type=validation.completed&per_page=100")).await?;
    let mut rows = rows.as_array().context("a list")?.iter();
    let validation = rows.find_map(|row| row["attributes"]["validation_id"].as_str()).context("a validation")?;
    Ok(Asker {
        key: key.clone(),
        endpoint: text(&shown["endpoint_id"])?,
        validation: validation.to_owned(),
        day: text(&shown["created_at"])?.chars().take(10).collect(),
        event: text(&shown["event_id"])?,
        delivery,
    })
}

/// What a call answers.
async fn data(server: &Server, key: &str, path: &str) -> anyhow::Result<Value> {
    let (status, answer) = server.call("GET", path, key, &Value::Null).await?;
    ensure!(status == 200, "{path} answered {status}: {answer}");
    Ok(answer["data"].clone())
}

/// Sends requests in turn, each when the answer before it has come. Returns how long each took, in microseconds.
async fn ask(connection: &mut Connection, requests: &[Message], times: usize) -> anyhow::Result<Vec<u64>> {
    let mut took = Vec::with_capacity(times);
    for request in requests.iter().cycle().take(times) {
        let begin = Instant::now();
        let answer = connection.send(request).await?;
        took.push(u64::try_from(begin.elapsed().as_micros())?);
        answer.expect(200)?;
    }
    Ok(took)
}

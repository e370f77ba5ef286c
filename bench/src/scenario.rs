//! The scenarios: what is sent, what is waited for, and what is counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::http::{Connection, request};
use crate::receiver::Receiver;
use crate::server::Server;

/// Keep-alive connections of the load generator.
const CONNECTIONS: usize = 64;

/// Events in one batch.
const BATCH: usize = 100;

/// Bytes of a delivered body, about.
const BODY_BYTES: usize = 500;

/// Longest wait for the last delivery.
const PATIENCE: Duration = Duration::from_secs(120);

/// The type that is published.
const EVENT: &str = "validation.completed";

/// How much to do.
pub struct Plan {
    /// Rounds of which the median is taken.
    pub rounds: usize,
    /// Requests in a round.
    pub requests: usize,
    /// A smoke test.
    pub quick: bool,
}

/// What a scenario came to, per second and round.
pub struct Figure {
    /// What was counted.
    pub name: String,
    /// One rate for each round.
    pub rounds: Vec<f64>,
}

impl Figure {
    /// The middle of the rounds.
    pub fn median(&self) -> f64 {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
    }
}

/// Runs every scenario, round by round, so that a slow minute of the machine hits all of them alike.
pub async fn run_all(plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    let named = |name: &str| Figure { name: name.to_owned(), rounds: Vec::new() };
    let mut figures = [
        named("floor: bare POSTs, generator to receiver"),
        named("accept: events, one for each request"),
        named("accept: events, 100 for each request"),
        named("end to end: deliveries, one endpoint"),
        named("end to end: deliveries, fan-out of 4"),
    ];
    for _ in 0..plan.rounds {
        figures[0].rounds.push(floor(plan.requests * 4).await?);
        figures[1].rounds.push(accept(plan.requests).await?);
        figures[2].rounds.push(accept_batches(plan.requests * 4).await?);
        figures[3].rounds.push(end_to_end(plan, plan.requests, 1).await?);
        figures[4].rounds.push(end_to_end(plan, plan.requests / 2, 4).await?);
    }
    Ok(figures.into())
}

/// The padding that brings a body to its size.
fn padding() -> String {
    "x".repeat(BODY_BYTES - 170)
}

fn event() -> String {
    format!(r#"{{"event":"{EVENT}","data":{{"padding":"{}"}}}}"#, padding())
}

/// Sends one request many times over all connections; returns how long it took.
async fn load(address: SocketAddr, bytes: Vec<u8>, count: usize, expected: u16) -> anyhow::Result<Duration> {
    let left = Arc::new(AtomicUsize::new(count));
    let bytes: Arc<[u8]> = bytes.into();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(address).await?);
    }
    let begin = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for mut connection in connections {
        let (left, bytes) = (left.clone(), bytes.clone());
        workers.spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                let answer = connection.send(&bytes).await?;
                let text = String::from_utf8_lossy(&answer.body);
                ensure!(answer.status == expected, "{} instead of {expected}: {text}", answer.status);
            }
            Ok(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(begin.elapsed())
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

async fn floor(count: usize) -> anyhow::Result<f64> {
    let receiver = Receiver::start(false).await?;
    let body = "x".repeat(BODY_BYTES);
    let took = load(receiver.address, request("POST", "/", "none", &body), count, 200).await?;
    Ok(rate(count, took))
}

async fn accept(count: usize) -> anyhow::Result<f64> {
    let server = Server::start()?;
    let took = load(server.address, request("POST", "/v1/events", &server.key, &event()), count, 202).await?;
    ensure!(total(&server, "/v1/events").await? == count, "every event that was answered with 202 is there");
    Ok(rate(count, took))
}

async fn accept_batches(count: usize) -> anyhow::Result<f64> {
    let server = Server::start()?;
    let events = vec![event(); BATCH].join(",");
    let body = format!("{{\"events\":[{events}]}}");
    let batches = count / BATCH;
    let took = load(server.address, request("POST", "/v1/events/batch", &server.key, &body), batches, 202).await?;
    ensure!(total(&server, "/v1/events").await? == batches * BATCH, "every event is there");
    Ok(rate(batches * BATCH, took))
}

/// From the first publish until the last outcome is on disk.
async fn end_to_end(plan: &Plan, events: usize, fan_out: usize) -> anyhow::Result<f64> {
    let server = Server::start()?;
    let receiver = Receiver::start(plan.quick).await?;
    let mut connection = Connection::open(server.address).await?;
    for _ in 0..fan_out {
        let endpoint = format!(r#"{{"url":"http://{}/","events":["{EVENT}"]}}"#, receiver.address);
        let made = connection.send(&request("POST", "/v1/webhooks", &server.key, &endpoint)).await?;
        ensure!(made.status == 201, "an endpoint is registered: {}", String::from_utf8_lossy(&made.body));
    }
    let begin = Instant::now();
    load(server.address, request("POST", "/v1/events", &server.key, &event()), events, 202).await?;
    let deliveries = events * fan_out;
    // The attempts that were counted and are no longer in memory have their outcome on disk.
    loop {
        let delivered = metric(&mut connection, "aldaba_attempts_delivered_total").await?;
        let in_memory = metric(&mut connection, "aldaba_deliveries_in_memory").await?;
        if delivered >= deliveries && in_memory == 0 {
            break;
        }
        ensure!(begin.elapsed() < PATIENCE, "{delivered} of {deliveries} deliveries after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = begin.elapsed();
    ensure!(total(&server, "/v1/webhooks/deliveries").await? == deliveries, "every delivery is listed");
    ensure!(receiver.requests() >= deliveries, "nothing is lost");
    if plan.quick {
        ensure!(receiver.deliveries() == deliveries, "nothing is lost: {} of {deliveries}", receiver.deliveries());
        ensure!(receiver.requests() == deliveries, "nothing arrives twice without a cause");
    }
    Ok(rate(deliveries, took))
}

async fn metric(connection: &mut Connection, name: &str) -> anyhow::Result<usize> {
    let answer = connection.send(&request("GET", "/metrics", "none", "")).await?;
    let text = String::from_utf8(answer.body)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no metric {name}"))?;
    Ok(line.trim().parse()?)
}

/// How many rows a list has, exactly.
async fn total(server: &Server, path: &str) -> anyhow::Result<usize> {
    let mut connection = Connection::open(server.address).await?;
    let answer = connection.send(&request("GET", &format!("{path}?per_page=1"), &server.key, "")).await?;
    let json: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let total = json["meta"]["pagination"]["total"].as_u64().context("a total")?;
    Ok(usize::try_from(total)?)
}

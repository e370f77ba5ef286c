//! Rates: how many events are accepted and delivered in a second, when the load is all that the server takes.

use std::time::Instant;

use anyhow::ensure;
use serde_json::{Value, json};

use super::Plan;
use crate::figure::{Rate, rate};
use crate::http::{Message, request};
use crate::load::{BODY_BYTES, EVENT, closed, event, publish, publish_each};
use crate::receiver::{Keep, Mode, Receiver};
use crate::server::{Server, Settings, Tenant};

/// Events in one batch.
pub const BATCH: usize = 100;

/// Room for the endpoints of a [`Crowd`].
pub const SETTINGS: Settings = &[("WEBHOOKS__MAX_ENDPOINTS", "1000")];

/// A server on a fresh database.
pub fn server() -> anyhow::Result<Server> {
    Server::start(SETTINGS)
}

/// The same bodies, from the generator straight to the receiver.
pub async fn floor(count: usize) -> anyhow::Result<f64> {
    let receiver = Receiver::start(Mode::Healthy, Keep::Nothing).await?;
    let bare = request("POST", "/", "none", &"x".repeat(BODY_BYTES))?;
    Ok(rate(count, closed(receiver.address, vec![bare], count, 200).await?))
}

/// The same bodies to the server, which reads and refuses them: the HTTP stack without what it is for.
pub async fn http(count: usize) -> anyhow::Result<Rate> {
    let server = server()?;
    let cpu = server.cpu()?;
    let refused = request("POST", "/healthz", "none", &event(EVENT))?;
    let took = closed(server.address, vec![refused], count, 405).await?;
    Ok(Rate::of(count, took, server.cpu()?.saturating_sub(cpu)))
}

/// From the first request to the last 202, each of which is on disk.
pub async fn accept(server: &Server, count: usize) -> anyhow::Result<Rate> {
    let tenant = server.tenant().await?;
    let cpu = server.cpu()?;
    let took = closed(server.address, vec![publish(&tenant.key, EVENT)?], count, 202).await?;
    let cpu = server.cpu()?.saturating_sub(cpu);
    ensure!(server.total("/v1/events", &tenant.key).await? == count, "every event that was answered with 202 is there");
    Ok(Rate::of(count, took, cpu))
}

/// The same in batches.
pub async fn batches(server: &Server, count: usize) -> anyhow::Result<Rate> {
    let tenant = server.tenant().await?;
    let cpu = server.cpu()?;
    let count = count / BATCH * BATCH;
    let took = closed(server.address, vec![batch(&tenant.key, EVENT)?], count / BATCH, 202).await?;
    let cpu = server.cpu()?.saturating_sub(cpu);
    ensure!(server.total("/v1/events", &tenant.key).await? == count, "every event is there");
    Ok(Rate::of(count, took, cpu))
}

/// A request that publishes [`BATCH`] events.
pub fn batch(key: &str, event_type: &str) -> anyhow::Result<Message> {
    let events = vec![event(event_type); BATCH].join(",");
    request("POST", "/v1/events/batch", key, &format!("{{\"events\":[{events}]}}"))
}

/// From the first publish until the last outcome is on disk; each event goes to so many endpoints.
pub async fn deliver(server: &Server, plan: Plan, events: usize, endpoints: usize) -> anyhow::Result<Rate> {
    let receiver = Receiver::start(Mode::Healthy, plan.keep()).await?;
    let tenant = server.tenant().await?;
    for _ in 0..endpoints {
        server.endpoint(&tenant, &receiver.url(), EVENT).await?;
    }
    let before = server.delivered().await?;
    let (cpu, begin) = (server.cpu()?, Instant::now());
    closed(server.address, vec![publish(&tenant.key, EVENT)?], events, 202).await?;
    let deliveries = events * endpoints;
    server.settled(before + deliveries).await?;
    let (took, cpu) = (begin.elapsed(), server.cpu()?.saturating_sub(cpu));
    let listed = server.total("/v1/webhooks/deliveries", &tenant.key).await?;
    ensure!(listed == deliveries, "every delivery is listed: {listed} of {deliveries}");
    complete(plan, &receiver, deliveries)?;
    Ok(Rate::of(deliveries, took, cpu))
}

/// Endpoints with filters, of which one gets each event.
const FILTERED: usize = 10;

/// A filter of five conditions, the last of which decides.
fn filter(matches: bool) -> Value {
    let end = if matches { "x" } else { "y" };
    let at = json!({ "$gte": 1_000_000_000_000_u64, "$lt": 2_000_000_000_000_u64 });
    json!({ "event": EVENT, "data": { "at": at, "padding": { "$starts_with": "x", "$ends_with": end } } })
}

/// Accepting events that one of ten endpoints gets by its filter, and before that, accepting events for one endpoint
/// without a filter: both make one delivery of each event.
pub async fn filtered(server: &Server, plan: Plan, events: usize) -> anyhow::Result<[Rate; 2]> {
    let receiver = Receiver::start(Mode::Healthy, if plan.quick { Keep::Ids } else { Keep::Nothing }).await?;
    let (unfiltered, filtered) = (server.tenant().await?, server.tenant().await?);
    server.endpoint(&unfiltered, &receiver.url(), EVENT).await?;
    for number in 0..FILTERED {
        let attributes = json!({ "url": receiver.url(), "events": [EVENT], "filter": filter(number == 0) });
        server.endpoint_of(&filtered, attributes).await?;
    }
    let without = accept_and_deliver(server, &unfiltered, events).await?;
    let with = accept_and_deliver(server, &filtered, events).await?;
    complete(plan, &receiver, 2 * events)?;
    Ok([with, without])
}

/// From the first publish to the last 202. It returns when each event has been delivered once.
async fn accept_and_deliver(server: &Server, tenant: &Tenant, events: usize) -> anyhow::Result<Rate> {
    let (before, cpu) = (server.delivered().await?, server.cpu()?);
    let took = closed(server.address, vec![publish(&tenant.key, EVENT)?], events, 202).await?;
    let cpu = server.cpu()?.saturating_sub(cpu);
    server.settled(before + events).await?;
    let listed = server.total("/v1/webhooks/deliveries", &tenant.key).await?;
    ensure!(listed == events, "each event makes one delivery: {listed} of {events}");
    Ok(Rate::of(events, took, cpu))
}

/// Many endpoints, each of which is sent an event in its turn.
pub struct Crowd {
    /// Where all of them are.
    pub receiver: Receiver,
    requests: Vec<Message>,
}

impl Crowd {
    /// Registers them, in an account of their own.
    pub async fn of(server: &Server, plan: Plan) -> anyhow::Result<Self> {
        let endpoints = if plan.quick { 50 } else { 1_000 };
        let receiver = Receiver::start(Mode::Healthy, plan.keep()).await?;
        let urls = vec![receiver.url(); endpoints];
        Self::at(server, receiver, urls).await
    }

    /// Registers one at each of these URLs of the receiver.
    pub async fn at(server: &Server, receiver: Receiver, urls: Vec<String>) -> anyhow::Result<Self> {
        let tenant = server.tenant().await?;
        let names: Vec<_> = (0..urls.len()).map(|number| format!("bench.n{number}")).collect();
        for (name, url) in names.iter().zip(&urls) {
            server.event_type(name).await?;
            server.endpoint(&tenant, url, name).await?;
        }
        Ok(Self { receiver, requests: publish_each(&tenant.key, &names)? })
    }

    /// The same as [`deliver`], where each event goes to one of them.
    pub async fn deliver(&self, server: &Server, plan: Plan, events: usize) -> anyhow::Result<Rate> {
        let (before, received) = (server.delivered().await?, self.receiver.requests());
        let (cpu, begin) = (server.cpu()?, Instant::now());
        closed(server.address, self.requests.clone(), events, 202).await?;
        server.settled(before + events).await?;
        let (took, cpu) = (begin.elapsed(), server.cpu()?.saturating_sub(cpu));
        complete(plan, &self.receiver, received + events)?;
        Ok(Rate::of(events, took, cpu))
    }
}

/// The same as [`deliver`] with many endpoints, which are registered first.
pub async fn deliver_to_many(server: &Server, plan: Plan, events: usize) -> anyhow::Result<Rate> {
    Crowd::of(server, plan).await?.deliver(server, plan, events).await
}

/// Deliveries by several nodes on one database, each of which accepts its part of the events. What arrives is counted
/// one by one: nothing is lost, and no attempt is made twice.
pub async fn nodes(events: usize, nodes: usize) -> anyhow::Result<Rate> {
    let receiver = Receiver::start(Mode::Healthy, Keep::Ids).await?;
    let first = server()?;
    let tenant = first.tenant().await?;
    first.endpoint(&tenant, &receiver.url(), EVENT).await?;
    let mut servers = vec![first];
    while servers.len() < nodes {
        servers.push(servers[0].beside()?);
    }
    for server in &servers {
        server.knows(nodes).await?;
    }
    let cpu = || servers.iter().map(Server::cpu).sum::<anyhow::Result<std::time::Duration>>();
    let (before, begin) = (cpu()?, Instant::now());
    let part = events / nodes;
    let mut publishers = tokio::task::JoinSet::new();
    for server in &servers {
        let (address, request) = (server.address, publish(&tenant.key, EVENT)?);
        publishers.spawn(async move { closed(address, vec![request], part, 202).await });
    }
    while let Some(published) = publishers.join_next().await {
        published??;
    }
    loop {
        let mut delivered = 0;
        for server in &servers {
            delivered += server.delivered().await?;
        }
        if delivered >= part * nodes {
            break;
        }
        ensure!(begin.elapsed() < crate::server::PATIENCE * 3, "{delivered} of {events} were delivered");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    for server in &servers {
        server.settled(0).await?;
    }
    let (took, cpu) = (begin.elapsed(), cpu()?.saturating_sub(before));
    let count = part * nodes;
    ensure!(receiver.deliveries() == count, "nothing is lost: {} of {count}", receiver.deliveries());
    ensure!(receiver.requests() == count, "nothing arrives twice: {} for {count}", receiver.requests());
    Ok(Rate::of(count, took, cpu))
}

/// Nothing is lost, and in a smoke test nothing has come twice.
fn complete(plan: Plan, receiver: &Receiver, deliveries: usize) -> anyhow::Result<()> {
    ensure!(receiver.requests() >= deliveries, "nothing is lost");
    if plan.quick {
        ensure!(receiver.deliveries() == deliveries, "nothing is lost: {} of {deliveries}", receiver.deliveries());
        ensure!(receiver.requests() == deliveries, "nothing arrives twice without a cause");
    }
    Ok(())
}

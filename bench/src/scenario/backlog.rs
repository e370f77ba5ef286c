//! Backlog: deliveries pile up before a receiver that is down. What does that cost, and how fast does it drain?

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::Plan;
use super::rates::{BATCH, accept, batch, deliver};
use crate::figure::{Figure, Unit, rate};
use crate::load::{EVENT, closed};
use crate::receiver::{Keep, Mode, Receiver};
use crate::server::{Server, Settings};

/// The endpoint stays active, and what fails is soon due again.
pub const SETTINGS: Settings = &[
    ("WEBHOOKS__AUTO_DISABLE_THRESHOLD", "1000000000"),
    ("WEBHOOKS__RETRY_SCHEDULE", "5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s"),
    ("WEBHOOKS__TIMEOUT", "2s"),
];

/// Measures with the backlog and without, on this server, which has the settings above.
pub async fn run(server: &mut Server, plan: Plan, scenario: &'static str) -> anyhow::Result<Vec<Figure>> {
    let figure = |name: &str, unit, value| Figure::new(scenario, name, unit, value);
    let before = Figure { scenario, ..accepting(server, plan, "accepting before").await? };
    let fresh = deliver(server, plan, plan.requests, 1).await?.per_second;

    let down = Receiver::start(Mode::Hanging, Keep::Nothing).await?;
    let tenant = server.tenant().await?;
    server.endpoint(&tenant, &down.url(), EVENT).await?;
    let count = plan.backlog / BATCH * BATCH;
    closed(server.address, vec![batch(&tenant.key, EVENT)?], count / BATCH, 202).await?;
    let during = Figure { scenario, ..accepting(server, plan, "accepting with the backlog").await? };
    let memory = server.memory()?;
    let mut restarts = Vec::new();
    for _ in 0..plan.turns() {
        restarts.push(server.crash().await?.as_secs_f64());
    }

    let delivered = server.delivered().await?;
    down.heal();
    let begin = Instant::now();
    while server.delivered().await? < delivered + count {
        ensure!(begin.elapsed() < crate::server::PATIENCE, "the backlog does not drain");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let drained = rate(count, begin.elapsed());
    server.settled(delivered + count).await?;
    ensure!(server.total("/v1/webhooks/deliveries", &tenant.key).await? == count, "every delivery is listed");
    Ok(vec![
        figure("accepting with the backlog, of accepting before", Unit::Share, during.median() / before.median()),
        before,
        during,
        figure("memory with the backlog", Unit::MiB, memory),
        Figure { rounds: restarts, ..figure("from a kill to ready", Unit::Seconds, 0.0) },
        figure("deliveries, draining", Unit::PerSecond, drained),
        figure("draining, of delivering what is fresh", Unit::Share, drained / fresh),
        figure("memory after it", Unit::MiB, server.memory()?),
    ])
}

/// Accepting, in as many turns as any other rate has.
async fn accepting(server: &Server, plan: Plan, name: &str) -> anyhow::Result<Figure> {
    let mut figure = Figure { scenario: "backlog", name: name.to_owned(), unit: Unit::PerSecond, rounds: Vec::new() };
    for _ in 0..plan.rounds * plan.turns() {
        figure.rounds.push(accept(server, plan.requests).await?.per_second);
    }
    Ok(figure)
}

//! Latency at a fixed rate: how long a 202 takes, and how long it is from the moment at which an event was due to be
//! published until its delivery is at the receiver.

use std::time::Duration;

use anyhow::ensure;

use super::Plan;
use super::rates::accept;
use crate::figure::{Figure, Unit, percentile};
use crate::http::request;
use crate::load::{BODY_BYTES, EVENT, open, publish};
use crate::receiver::{Keep, Mode, Receiver};
use crate::server::Server;

/// Events per second of the delivery latency.
const RATE: u32 = 1_000;

/// How long these are measured.
pub const TIME: Duration = Duration::from_secs(10);

/// Measures on this server, for so long at the first rate and for half of it at the second; the figures belong to
/// `scenario`.
pub async fn run(server: &Server, plan: Plan, scenario: &'static str, time: Duration) -> anyhow::Result<Vec<Figure>> {
    let time = if plan.quick { Duration::from_secs(1) } else { time };
    let mut figures = Vec::new();
    let mut show = |name: &str, percent: usize, times: &mut Vec<u64>| {
        figures.push(Figure::new(scenario, &format!("{name}, p{percent}"), Unit::Millis, percentile(times, percent)));
    };

    let receiver = Receiver::start(Mode::Healthy, Keep::Times).await?;
    let tenant = server.tenant().await?;
    server.endpoint(&tenant, &receiver.url(), EVENT).await?;
    let before = server.delivered().await?;
    let mut answers = open(server.address, vec![publish(&tenant.key, EVENT)?], RATE, time, 202).await?;
    server.settled(before + answers.len()).await?;
    let mut arrivals = receiver.times();
    ensure!(arrivals.len() == answers.len(), "{} of {} deliveries arrived", arrivals.len(), answers.len());
    for percent in [50, 99] {
        show("publish to receipt at 1,000 events/s", percent, &mut arrivals);
    }
    show("publish to 202 at 1,000 events/s", 99, &mut answers);

    let most = accept(server, plan.requests).await?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate far below 2^32")]
    let half = if plan.quick { 500 } else { (most.per_second / 2.0) as u32 };
    let tenant = server.tenant().await?;
    let mut answers = open(server.address, vec![publish(&tenant.key, EVENT)?], half, time / 2, 202).await?;
    for percent in [50, 99] {
        show("publish to 202 at half of the highest rate", percent, &mut answers);
    }
    let bare = Receiver::start(Mode::Healthy, Keep::Nothing).await?;
    let post = request("POST", "/", "none", &"x".repeat(BODY_BYTES))?;
    let mut answers = open(bare.address, vec![post], half, time / 2, 200).await?;
    show("a bare POST from generator to receiver at that rate", 99, &mut answers);
    Ok(figures)
}

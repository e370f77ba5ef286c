//! Isolation: of 200 endpoints half hang and a quarter answers after 2 s; what do the others notice?

use std::time::Duration;

use anyhow::ensure;

use super::Plan;
use crate::figure::{Figure, Unit, percentile};
use crate::load::{open, publish};
use crate::receiver::{Keep, Mode, Receiver};
use crate::server::{Server, Settings};

/// Endpoints in all: a quarter is healthy, a quarter slow, half hang.
const ENDPOINTS: usize = 200;

/// Events per second to each endpoint.
const RATE: u32 = 5;

/// How long these are published.
const TIME: Duration = Duration::from_secs(15);

/// Sick endpoints stay active however long they are sick.
pub const SETTINGS: Settings =
    &[("WEBHOOKS__MAX_ENDPOINTS", "200"), ("WEBHOOKS__AUTO_DISABLE_THRESHOLD", "1000000000")];

/// What half of the endpoints and a quarter of them have.
pub type Sick = Option<[Mode; 2]>;

/// The first kind of sick ones.
pub const STILL: Sick = Some([Mode::Hanging, Mode::Slow(Duration::from_secs(2))]);

/// Measures the healthy quarter without the others and with them.
pub async fn run(plan: Plan) -> anyhow::Result<Vec<Figure>> {
    let alone = healthy_p99(&Server::start(SETTINGS)?, plan, None, TIME).await?;
    let beside = healthy_p99(&Server::start(SETTINGS)?, plan, STILL, TIME).await?;
    let others = healthy_p99(&Server::start(SETTINGS)?, plan, Some([Mode::Failing, Mode::Dripping]), TIME).await?;
    let figure = |name: &str, unit, value| Figure::new("isolation", name, unit, value);
    Ok(vec![
        figure("publish to receipt, 50 healthy endpoints alone, p99", Unit::Millis, alone),
        figure("the same beside 100 hanging and 50 slow ones, p99", Unit::Millis, beside),
        figure("how many times as long", Unit::Share, beside / alone),
        figure("the same beside 100 failing and 50 dripping ones, p99", Unit::Millis, others),
    ])
}

/// How long it is from a publish to its receipt by the healthy quarter. The endpoints, and what the sick ones have not
/// taken, are gone afterwards.
pub async fn healthy_p99(server: &Server, plan: Plan, sick: Sick, time: Duration) -> anyhow::Result<f64> {
    let healthy = Receiver::start(Mode::Healthy, Keep::Times).await?;
    let [half, quarter] = sick.unwrap_or([Mode::Healthy; 2]);
    let half = Receiver::start(half, Keep::Nothing).await?;
    let quarter = Receiver::start(quarter, Keep::Nothing).await?;
    let tenant = server.tenant().await?;
    let (mut requests, mut endpoints) = (Vec::new(), Vec::new());
    let count = if plan.quick { ENDPOINTS / 10 } else { ENDPOINTS };
    for number in 0..count {
        let receiver = match number % 4 {
            0 => &healthy,
            1 if sick.is_some() => &quarter,
            _ if sick.is_some() => &half,
            _ => continue,
        };
        let name = format!("bench.n{number}");
        server.event_type(&name).await?;
        endpoints.push(server.endpoint(&tenant, &receiver.url(), &name).await?);
        requests.push(publish(&tenant.key, &name)?);
    }
    let time = if plan.quick { Duration::from_secs(2) } else { time };
    let rate = RATE * u32::try_from(requests.len())?;
    let published = open(server.address, requests, rate, time, 202).await?.len();
    let to_healthy = if sick.is_some() { published / 4 } else { published };
    let patience = std::time::Instant::now() + Duration::from_secs(30);
    while healthy.requests() < to_healthy {
        ensure!(std::time::Instant::now() < patience, "{} of {to_healthy} arrived", healthy.requests());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for endpoint in endpoints {
        server.delete(&tenant, &endpoint).await?;
    }
    half.heal();
    quarter.heal();
    server.settled(0).await?;
    Ok(percentile(&mut healthy.times(), 99))
}

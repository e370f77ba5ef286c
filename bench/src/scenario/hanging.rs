//! Hanging: 64 endpoints are busy and healthy, then 16 of them, one receiver, begin to hang; what do the others notice?

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::{Plan, isolation};
use crate::figure::{Figure, Unit, percentile};
use crate::load::{open, publish};
use crate::receiver::{Keep, Mode, Receiver};
use crate::server::Server;

/// Endpoints in all.
const ENDPOINTS: usize = 64;

/// One of so many endpoints begins to hang. 16 endpoints with 64 requests in flight each are all of the server's 1,024.
const HANGING_SHARE: usize = 4;

/// Events per second to each endpoint: those that hang are sent their 64 requests within 3.2 s.
const RATE: u32 = 20;

/// How long nothing is measured: the server begins with two requests at a time for each endpoint.
const WARMING_UP: Duration = Duration::from_secs(3);

/// How long all are healthy after that: 9,600 receipts of the others.
const HEALTHY: Duration = Duration::from_secs(10);

/// How long some hang: longer than an attempt may take (10 s), so that the first of them have ended.
const HANGING: Duration = Duration::from_secs(15);

/// How long the last deliveries may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures the endpoints that stay healthy, before the others hang and while they do.
pub async fn run(plan: Plan) -> anyhow::Result<Vec<Figure>> {
    let server = Server::start(isolation::SETTINGS)?;
    let count = if plan.quick { ENDPOINTS / HANGING_SHARE } else { ENDPOINTS };
    let [warming_up, healthy, hanging] =
        [WARMING_UP, HEALTHY, HANGING].map(|time| if plan.quick { time / 10 } else { time });
    let others = Receiver::start(Mode::Healthy, Keep::Times).await?;
    let provider = Receiver::start(Mode::Healthy, Keep::Nothing).await?;
    let tenant = server.tenant().await?;
    let mut requests = Vec::new();
    for number in 0..count {
        let receiver = if hangs(number) { &provider } else { &others };
        let name = format!("bench.n{number}");
        server.event_type(&name).await?;
        server.endpoint(&tenant, &receiver.url(), &name).await?;
        requests.push(publish(&tenant.key, &name)?);
    }
    let rate = RATE * u32::try_from(count)?;
    let publishing = tokio::spawn(open(server.address, requests, rate, warming_up + healthy + hanging, 202));
    tokio::time::sleep(warming_up).await;
    let unmeasured = others.times().len();
    tokio::time::sleep(healthy).await;
    let mut before = others.times();
    provider.hang();
    let published = publishing.await??.len();
    let expected = (0..published).filter(|index| !hangs(index % count)).count();
    let end = Instant::now() + PATIENCE;
    while others.requests() < expected {
        ensure!(Instant::now() < end, "{} of {expected} arrived", others.requests());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ensure!(others.requests() == expected, "{} arrived of {expected}: some came twice", others.requests());
    let mut beside = others.times();
    ensure!(unmeasured + before.len() + beside.len() == expected, "each request was timed");
    let (p99, p99_beside) = (percentile(&mut before, 99), percentile(&mut beside, 99));
    let worst = percentile(&mut beside, 100);
    let figure = |name: &str, unit, value| Figure::new("hanging", name, unit, value);
    Ok(vec![
        figure("publish to receipt, 48 of 64 busy endpoints, p99", Unit::Millis, p99),
        figure("the same after the other 16 have begun to hang, p99", Unit::Millis, p99_beside),
        figure("how many times as long", Unit::Share, p99_beside / p99),
        figure("the slowest receipt after the other 16 have begun to hang", Unit::Millis, worst),
    ])
}

/// Whether the endpoint of this number is one of those that begin to hang.
fn hangs(number: usize) -> bool {
    number.is_multiple_of(HANGING_SHARE)
}

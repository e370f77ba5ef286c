//! Flat: every figure again, on a database without a log and on one whose log is long. Both begin with the same
//! accounts.

use std::time::Duration;

use super::rates::{Crowd, accept, batches, deliver};
use super::{Plan, backlog, idle, isolation, latency};
use crate::figure::{Figure, Rate, Unit, gather};
use crate::history::{self, Past};
use crate::server::{Server, Settings};

/// Accounts that the log is spread over.
const ACCOUNTS: usize = 1_000;

/// What 1,000 endpoints need, and endpoints that are sick.
const SETTINGS: Settings = &[("WEBHOOKS__MAX_ENDPOINTS", "1000"), ("WEBHOOKS__AUTO_DISABLE_THRESHOLD", "1000000000")];

/// How long the latencies are measured in a turn.
const TURN: Duration = Duration::from_secs(3);

/// How long healthy endpoints are timed alone in a turn, and how long beside sick ones.
const ISOLATED: Duration = Duration::from_secs(4);

/// Requests for each rate where only its endpoints are wanted.
const SETUP_REQUESTS: usize = 100;

/// Measures on a database with an empty log and on one with a long one, in turns.
pub async fn run(plan: Plan) -> anyhow::Result<Vec<Figure>> {
    let accounts = if plan.quick { 10 } else { ACCOUNTS };
    let begin = std::time::Instant::now();
    let past = Past { accounts, endpoints: 1, deliveries: plan.history, varied: false };
    let (mut long, _) = history::server(past, SETTINGS).await?;
    let none = Past { deliveries: 0, ..past };
    eprintln!("a log of {} deliveries was written in {:.0?}", plan.history, begin.elapsed());
    let crowd_of_long = Crowd::of(&long, plan).await?;
    let turns = plan.rounds * plan.turns();
    let mut figures = Vec::new();
    for turn in 0..turns {
        plan.prepare()?;
        let (empty, _) = history::server(none, SETTINGS).await?;
        let crowd = Crowd::of(&empty, plan).await?;
        let mut servers = [("empty", &empty, &crowd), ("long", &long, &crowd_of_long)];
        // The one is the first in a turn, and the other in the next.
        servers.rotate_left(turn % 2);
        for (log, server, crowd) in servers {
            gather(&mut figures, named(log, rates(server, crowd, plan).await?));
        }
        for (log, server, _) in servers {
            gather(&mut figures, named(log, latency::run(server, plan, "flat", TURN).await?));
        }
        for (log, server, _) in servers {
            gather(&mut figures, named(log, isolated(server, plan).await?));
        }
    }
    let (mut empty, _) = history::server(none, SETTINGS).await?;
    // As many endpoints as the server with the log has by now, and next to no deliveries.
    let crowd = Crowd::of(&empty, plan).await?;
    for _ in 0..turns {
        rates(&empty, &crowd, Plan { requests: SETUP_REQUESTS, ..plan }).await?;
    }
    empty.restart(idle::SETTINGS)?;
    long.restart(idle::SETTINGS)?;
    for (log, server) in [("empty", &mut empty), ("long", &mut long)] {
        gather(&mut figures, named(&format!("{log}: idle"), idle::run(server, plan, "flat").await?));
    }
    for (log, server) in [("empty", &mut empty), ("long", &mut long)] {
        plan.prepare()?;
        server.restart(backlog::SETTINGS)?;
        gather(&mut figures, named(&format!("{log}: backlog"), backlog::run(server, plan, "flat").await?));
    }
    let mut shares = Vec::new();
    for figure in figures.iter().filter(|figure| figure.unit != Unit::Share) {
        let Some(name) = figure.name.strip_prefix("long: ") else { continue };
        let of_empty = figures.iter().find(|other| other.name == format!("empty: {name}"));
        if let Some(empty) = of_empty.map(Figure::median).filter(|empty| *empty > 0.0) {
            let share = figure.median() / empty;
            shares.push(Figure::new("flat", &format!("{name}: long log, of empty"), Unit::Share, share));
        }
    }
    figures.extend(shares);
    Ok(figures)
}

fn named(log: &str, mut figures: Vec<Figure>) -> Vec<Figure> {
    for figure in &mut figures {
        figure.name = format!("{log}: {}", figure.name);
    }
    figures
}

async fn rates(server: &Server, crowd: &Crowd, plan: Plan) -> anyhow::Result<Vec<Figure>> {
    let n = plan.requests;
    let rate = |name: &str, rate: Rate| Figure::new("flat", name, Unit::PerSecond, rate.per_second);
    Ok(vec![
        rate("accept", accept(server, n).await?),
        rate("batch", batches(server, n * 4).await?),
        rate("deliver", deliver(server, plan, n, 1).await?),
        rate("deliver-1000", crowd.deliver(server, plan, n).await?),
        rate("fan-out-4", deliver(server, plan, n / 2, 4).await?),
        rate("fan-out-50", deliver(server, plan, n / 20, 50).await?),
    ])
}

async fn isolated(server: &Server, plan: Plan) -> anyhow::Result<Vec<Figure>> {
    let alone = isolation::healthy_p99(server, plan, None, ISOLATED).await?;
    let beside = isolation::healthy_p99(server, plan, isolation::STILL, ISOLATED).await?;
    Ok(vec![
        Figure::new("flat", "isolation, 50 healthy endpoints alone, p99", Unit::Millis, alone),
        Figure::new("flat", "isolation, the same beside 100 hanging and 50 slow ones, p99", Unit::Millis, beside),
        Figure::new("flat", "isolation, how many times as long", Unit::Share, beside / alone),
    ])
}

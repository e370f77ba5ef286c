//! Flat: the rates and latencies again, on a server whose log is long.

use super::Plan;
use super::latency;
use super::rates::{accept, batches, deliver, server};
use crate::figure::{Figure, Rate, Unit, gather};
use crate::history::{self, Past};
use crate::server::Server;

/// Accounts that the log is spread over.
const ACCOUNTS: usize = 1_000;

/// Measures on an empty database and on one with a log, in turns.
pub async fn run(plan: Plan) -> anyhow::Result<Vec<Figure>> {
    let accounts = if plan.quick { 10 } else { ACCOUNTS };
    let begin = std::time::Instant::now();
    let past = Past { accounts, endpoints: 1, deliveries: plan.history, varied: false };
    let (long, _) = history::server(past).await?;
    eprintln!("a log of {} deliveries was written in {:.0?}", plan.history, begin.elapsed());
    let mut figures = Vec::new();
    for _ in 0..plan.rounds {
        plan.prepare()?;
        let empty = server()?;
        gather(&mut figures, measure(&empty, plan, "empty").await?);
        gather(&mut figures, measure(&long, plan, "long").await?);
    }
    let mut shares = Vec::new();
    for figure in figures.iter().filter(|figure| figure.name.starts_with("long: ")) {
        let name = figure.name.trim_start_matches("long: ");
        let of_empty = figures.iter().find(|other| other.name == format!("empty: {name}"));
        if let Some(empty) = of_empty {
            let share = figure.median() / empty.median();
            shares.push(Figure::new("flat", &format!("{name}: long log, of empty"), Unit::Share, share));
        }
    }
    figures.extend(shares);
    Ok(figures)
}

async fn measure(server: &Server, plan: Plan, log: &str) -> anyhow::Result<Vec<Figure>> {
    let n = plan.requests;
    let rate = |name: &str, rate: Rate| Figure::new("flat", name, Unit::PerSecond, rate.per_second);
    let mut figures = vec![
        rate("accept", accept(server, n).await?),
        rate("batch", batches(server, n * 4).await?),
        rate("deliver", deliver(server, plan, n, 1).await?),
        rate("fan-out-4", deliver(server, plan, n / 2, 4).await?),
    ];
    figures.extend(latency::run(server, plan, "flat").await?);
    for figure in &mut figures {
        figure.name = format!("{log}: {}", figure.name);
    }
    Ok(figures)
}

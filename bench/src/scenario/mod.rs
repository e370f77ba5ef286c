//! The scenarios by name: what is sent, what is waited for, and what is measured.

mod backlog;
mod export;
mod flat;
mod hanging;
mod https;
mod idle;
mod isolation;
mod latency;
mod log;
mod rates;

use crate::figure::{Figure, Rate, Unit, gather};
use crate::memory;
use crate::receiver::Keep;
use crate::server::Server;

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds of which the median is taken.
    pub rounds: usize,
    /// Requests in a round of a rate.
    pub requests: usize,
    /// Deliveries in the log of the scenarios `flat` and `log`.
    pub history: usize,
    /// Deliveries that pile up in the scenario `backlog`.
    pub backlog: usize,
    /// A smoke test: small, and what arrived is compared one by one.
    pub quick: bool,
}

impl Plan {
    /// How often a round takes what is measured within seconds. A guest of a shared machine differs by half from one
    /// second to the next, and its disk stops for tens of milliseconds every ten seconds or so: the median of many
    /// short turns says more than that of a few long ones.
    fn turns(self) -> usize {
        if self.quick { 1 } else { 3 }
    }

    /// What a receiver keeps of each request: a smoke test compares what arrived.
    fn keep(self) -> Keep {
        if self.quick { Keep::Ids } else { Keep::Nothing }
    }

    /// Before each measurement; a smoke test asserts no timing.
    fn prepare(self) -> anyhow::Result<()> {
        if self.quick { Ok(()) } else { memory::fill() }
    }
}

/// All names, in the order in which they run.
const NAMES: &[&str] = &[
    "floor",
    "http",
    "accept",
    "batch",
    "deliver",
    "deliver-1000",
    "deliver-https",
    "fan-out-4",
    "fan-out-50",
    "deliver-filtered",
    "nodes-2",
    "nodes-4",
    "latency",
    "isolation",
    "hanging",
    "backlog",
    "flat",
    "log",
    "export",
    "idle",
];

/// Scenarios that are run once, because one round takes minutes.
const ONCE: &[&str] = &["backlog", "flat", "log", "idle"];

/// Those that come to a rate within seconds: they take turns in a round. Where the floor is asked for, it is measured
/// again before each of them: every share is a share of it.
const RATES: &[&str] = &[
    "http",
    "accept",
    "batch",
    "deliver",
    "deliver-1000",
    "deliver-https",
    "fan-out-4",
    "fan-out-50",
    "deliver-filtered",
    "nodes-2",
    "nodes-4",
];

/// Those that there are on this database: SQLite has one server, and rates beside a long log are measured on it only.
pub fn names() -> Vec<&'static str> {
    let other = if crate::server::cluster().is_some() { "flat" } else { "nodes" };
    NAMES.iter().copied().filter(|name| !name.starts_with(other)).collect()
}

/// Runs scenarios round by round, so that a slow minute of the machine hits all of them alike.
pub async fn run(names: &[&'static str], plan: Plan) -> anyhow::Result<Vec<Figure>> {
    let (rates, others): (Vec<_>, Vec<_>) = names.iter().copied().partition(|name| RATES.contains(name));
    let mut figures = Vec::new();
    for round in 0..plan.rounds {
        let others = others.iter().filter(|name| round == 0 || !ONCE.contains(name));
        for name in (0..plan.turns()).flat_map(|_| &rates).chain(others) {
            eprintln!("round {} of {}: {name}", round + 1, plan.rounds);
            plan.prepare()?;
            if names.contains(&"floor") && RATES.contains(name) {
                gather(&mut figures, one("floor", plan).await?);
            }
            gather(&mut figures, one(name, plan).await?);
        }
    }
    Ok(figures)
}

async fn one(name: &'static str, plan: Plan) -> anyhow::Result<Vec<Figure>> {
    let rate = |what: &str, rate: Rate| {
        let cost = format!("{what}: the server's time on a core for each");
        vec![
            Figure::new(name, what, Unit::PerSecond, rate.per_second),
            Figure::new(name, &cost, Unit::Micros, rate.cost),
        ]
    };
    let n = plan.requests;
    Ok(match name {
        "floor" => {
            let floor = rates::floor(n * 2).await?;
            vec![Figure::new(name, "bare POSTs, generator to receiver", Unit::PerSecond, floor)]
        }
        "http" => rate("the server's HTTP alone: the same bodies, refused with 405", rates::http(n * 2).await?),
        "accept" => rate("events, one for each request", rates::accept(&rates::server()?, n).await?),
        "batch" => rate("events, 100 for each request", rates::batches(&rates::server()?, n * 4).await?),
        "deliver" => rate("deliveries end to end, one endpoint", rates::deliver(&rates::server()?, plan, n, 1).await?),
        "deliver-1000" => {
            rate("deliveries end to end, 1,000 endpoints", rates::deliver_to_many(&rates::server()?, plan, n).await?)
        }
        "deliver-https" => https::run(plan, name).await?,
        "fan-out-4" => {
            let rounds = rates::deliver(&rates::server()?, plan, n / 2, 4).await?;
            rate("deliveries end to end, each event to 4 endpoints", rounds)
        }
        "fan-out-50" => {
            let rounds = rates::deliver(&rates::server()?, plan, n / 20, 50).await?;
            rate("deliveries end to end, each event to 50 endpoints", rounds)
        }
        "deliver-filtered" => {
            let [with, without] = rates::filtered(&rates::server()?, plan, n).await?;
            let mut figures = rate("events, which 1 of 10 endpoints gets by its filter", with);
            figures.extend(rate("the same events for one endpoint without a filter", without));
            let share = with.per_second / without.per_second;
            figures.push(Figure::new(name, "accepting with filters, of accepting without", Unit::Share, share));
            figures
        }
        "nodes-2" => rate("deliveries end to end, two nodes, counted one by one", rates::nodes(n, 2).await?),
        "nodes-4" => rate("deliveries end to end, four nodes, counted one by one", rates::nodes(n, 4).await?),
        "latency" => latency::run(&rates::server()?, plan, name, latency::TIME).await?,
        "isolation" => isolation::run(plan).await?,
        "hanging" => hanging::run(plan).await?,
        "backlog" => backlog::run(&mut Server::start(backlog::SETTINGS)?, plan, name).await?,
        "flat" => flat::run(plan).await?,
        "log" => log::run(plan).await?,
        "export" => export::run(plan).await?,
        _ => idle::run(&Server::start(idle::SETTINGS)?, plan, name).await?,
    })
}

//! The benchmark: `cargo run --release -p bench` after `cargo build --release`, or `scripts/bench`.
//!
//! Load generator, receiver and server share the machine; each figure is a median of several rounds and stands beside
//! the bare-HTTP floor of the same run. `--quick` is a smoke test: it asserts that nothing is lost and nothing arrives
//! twice, and asserts no timing.

mod http;
mod receiver;
mod scenario;
mod server;

use anyhow::{Context as _, bail};
use scenario::{Figure, Plan};

/// What the command line asked for.
struct Options {
    plan: Plan,
    json: bool,
}

fn options() -> anyhow::Result<Options> {
    let mut plan = Plan { rounds: 5, requests: 40_000, quick: false };
    let mut json = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> anyhow::Result<usize> {
            let text = arguments.next().with_context(|| format!("{argument} needs a number"))?;
            text.parse().with_context(|| format!("{argument} {text} is no number"))
        };
        match argument.as_str() {
            "--rounds" => plan.rounds = number()?.max(1),
            "--requests" => plan.requests = number()?.max(1_000),
            "--quick" => plan = Plan { rounds: 1, requests: 2_000, quick: true },
            "--json" => json = true,
            other => bail!("unknown argument {other}; allowed: --rounds N, --requests N, --quick, --json"),
        }
    }
    Ok(Options { plan, json })
}

fn main() -> anyhow::Result<()> {
    let options = options()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let figures = runtime.block_on(scenario::run_all(&options.plan))?;
    if options.json {
        let rows =
            figures.iter().map(|f| serde_json::json!({ "name": f.name, "per_second": f.median(), "rounds": f.rounds }));
        println!("{}", rows.collect::<serde_json::Value>());
    } else {
        print_table(&figures);
    }
    Ok(())
}

fn print_table(figures: &[Figure]) {
    let floor = figures.first().map_or(1.0, Figure::median);
    println!("{:<58} {:>12} {:>10}   rounds", "", "median /s", "of floor");
    for figure in figures {
        let rounds: Vec<_> = figure.rounds.iter().map(|rate| format!("{rate:.0}")).collect();
        let median = figure.median();
        println!("{:<58} {median:>12.0} {:>10.2}   {}", figure.name, median / floor, rounds.join(" "));
    }
}

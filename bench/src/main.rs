//! The benchmark: `cargo run --release -p bench` after `cargo build --release`, or `scripts/bench`.
//!
//! Load generator, receiver and server share the machine; each figure is a median of several rounds, and rates stand
//! beside the bare-HTTP floor of the same run. `--quick` is a smoke test: it asserts that nothing is lost and nothing
//! arrives twice, and asserts no timing.

mod certificates;
mod figure;
mod history;
mod http;
mod load;
mod memory;
mod receiver;
mod scenario;
mod server;

use anyhow::{Context as _, bail};
use scenario::Plan;
use tokio::signal::unix::{SignalKind, signal};

/// More than any scenario opens.
const OPEN_FILES: i32 = 16_384;

/// What the command line asked for.
struct Options {
    names: Vec<&'static str>,
    plan: Plan,
    json: bool,
}

fn options() -> anyhow::Result<Options> {
    let mut plan = Plan { rounds: 5, requests: 40_000, history: 10_000_000, backlog: 1_000_000, quick: false };
    let mut names = Vec::new();
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
            "--history" => plan.history = number()?.max(1_000),
            "--backlog" => plan.backlog = number()?.max(1_000),
            "--quick" => {
                plan = Plan { rounds: 1, requests: 2_000, history: 10_000, backlog: 10_000, quick: true };
            }
            "--json" => json = true,
            name => match scenario::names().into_iter().find(|known| *known == name) {
                Some(known) => names.push(known),
                None => bail!(
                    "unknown argument {name}; allowed: --rounds N, --requests N, --history N, --backlog N, --quick, \
                     --json, and scenarios: {}",
                    scenario::names().join(", ")
                ),
            },
        }
    }
    if names.is_empty() {
        names = scenario::names();
    }
    Ok(Options { names, plan, json })
}

fn main() -> anyhow::Result<()> {
    let options = options()?;
    // The table of open files grows now, and not while something is measured: with several threads that takes
    // milliseconds.
    let _ = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), OPEN_FILES - 1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let figures = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        // With what runs its servers end, and what they wrote is removed: gigabytes, where a log was long.
        tokio::select! {
            figures = scenario::run(&options.names, options.plan) => figures,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })?;
    if options.json {
        let rows: serde_json::Value = figures.iter().map(figure::Figure::to_json).collect();
        println!("{rows:#}");
    } else {
        figure::print_table(&figures);
    }
    Ok(())
}

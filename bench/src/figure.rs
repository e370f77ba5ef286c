//! What a scenario came to, and how it is shown.

use std::time::Duration;

use serde_json::{Value, json};

/// What a figure counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// A rate, which is compared with the floor of the same run.
    PerSecond,
    /// A rate that stands for itself.
    Share,
    /// Time on a core, in microseconds.
    Micros,
    /// Time, in milliseconds.
    Millis,
    /// Time, in seconds.
    Seconds,
    /// Memory, in MiB.
    MiB,
    /// Part of one core, in percent.
    Percent,
}

/// A figure over all rounds.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The scenario that it belongs to.
    pub scenario: &'static str,
    /// What was measured.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// One value for each round; several of the floor.
    pub rounds: Vec<f64>,
}

impl Figure {
    /// One value of one round.
    pub fn new(scenario: &'static str, name: &str, unit: Unit, value: f64) -> Self {
        Self { scenario, name: name.to_owned(), unit, rounds: vec![value] }
    }

    /// The middle of the rounds.
    pub fn median(&self) -> f64 {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
    }

    /// As a program reads it.
    pub fn to_json(&self) -> Value {
        let unit = match self.unit {
            Unit::PerSecond => "per_second",
            Unit::Share => "share",
            Unit::Micros => "us",
            Unit::Millis => "ms",
            Unit::Seconds => "s",
            Unit::MiB => "MiB",
            Unit::Percent => "percent_of_a_core",
        };
        let (scenario, name, median, rounds) = (self.scenario, &self.name, self.median(), &self.rounds);
        json!({ "scenario": scenario, "name": name, "unit": unit, "median": median, "rounds": rounds })
    }
}

/// Adds the figures of a round to those before it.
pub fn gather(figures: &mut Vec<Figure>, round: Vec<Figure>) {
    for figure in round {
        match figures.iter_mut().find(|known| known.scenario == figure.scenario && known.name == figure.name) {
            Some(known) => known.rounds.extend(figure.rounds),
            None => figures.push(figure),
        }
    }
}

/// Prints the figures as a Markdown table.
pub fn print_table(figures: &[Figure]) {
    let floor = figures.iter().find(|figure| figure.scenario == "floor").map(Figure::median);
    println!("| scenario | figure | median | of the floor | lowest and highest round |");
    println!("|---|---|---|---|---|");
    for figure in figures {
        let share = match (figure.unit, floor) {
            (Unit::PerSecond, Some(floor)) => format!("{:.2}", figure.median() / floor),
            _ => String::new(),
        };
        let lowest = figure.rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = figure.rounds.iter().copied().fold(0.0, f64::max);
        let shown = |value: f64| written(figure.unit, value);
        println!(
            "| `{}` | {} | {} | {share} | {} – {} |",
            figure.scenario,
            figure.name,
            shown(figure.median()),
            shown(lowest),
            shown(highest)
        );
    }
}

fn written(unit: Unit, value: f64) -> String {
    match unit {
        Unit::PerSecond => format!("{}/s", thousands(value)),
        Unit::Share => format!("{value:.2}"),
        Unit::Micros => format!("{value:.1} µs"),
        Unit::Millis => format!("{value:.2} ms"),
        Unit::Seconds => format!("{value:.2} s"),
        Unit::MiB => format!("{value:.1} MiB"),
        Unit::Percent => format!("{value:.2} %"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many in a second.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// What was done in a time, and what that took the server.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// How many in a second.
    pub per_second: f64,
    /// Microseconds of the server's time on a core for each.
    pub cost: f64,
}

impl Rate {
    /// So many, in this time, and with this time on a core.
    pub fn of(count: usize, took: Duration, cpu: Duration) -> Self {
        Self { per_second: rate(count, took), cost: 1e6 / rate(count, cpu) }
    }
}

/// A percentile of microseconds, in milliseconds.
pub fn percentile(micros: &mut [u64], percent: usize) -> f64 {
    micros.sort_unstable();
    let index = (micros.len() * percent / 100).min(micros.len().saturating_sub(1));
    let value = micros.get(index).copied().unwrap_or(0);
    Duration::from_micros(value).as_secs_f64() * 1_000.0
}

//! Attempts counted by result and by duration, for charts.
//!
//! The counts are not guaranteed: a killed process loses those that it had not written yet.

use std::collections::BTreeMap;
use std::time::Duration;

use super::id::EndpointKey;
use super::time::{Timestamp, millis};

/// The lengths of the slots in which attempts are counted, and how long each is kept: short ones for the chart of an
/// hour, longer ones for all others, so that no chart is made of many rows.
pub const SLOTS: [(Duration, Duration); 2] = [
    (Duration::from_secs(300), Duration::from_secs(2 * 3_600)),
    (Duration::from_secs(1_800), Duration::from_secs(8 * 86_400)),
];

/// Upper ends of the classes of response times, in milliseconds; the last class is open, and beyond the longest time
/// of an attempt. Each is about a third longer than the one before, so a percentile that is read from them is wrong by
/// less than that. The class up to 30 s alone is longer: it was the last one, and a class keeps its number.
const CLASSES: [u32; 37] = [
    1, 2, 3, 4, 5, 7, 10, 13, 18, 24, 32, 42, 56, 75, 100, 133, 178, 237, 316, 422, 562, 750, 1_000, 1_333, 1_778,
    2_371, 3_162, 4_217, 5_623, 7_499, 10_000, 30_000, 40_000, 53_000, 71_000, 95_000, 127_000,
];

/// What came of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Came {
    /// A 2xx.
    Success,
    /// A failure that is tried again.
    Retrying,
    /// A failure for good.
    Failed,
}

impl Came {
    const ALL: [Self; 3] = [Self::Success, Self::Retrying, Self::Failed];

    /// The number of its column value.
    pub fn number(self) -> i64 {
        self as i64
    }

    /// Reads a column value.
    pub fn from_number(number: i64) -> Option<Self> {
        usize::try_from(number).ok().and_then(|n| Self::ALL.get(n).copied())
    }
}

/// What attempts are counted by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Counted {
    /// To which endpoint.
    pub endpoint: EndpointKey,
    /// The beginning of its shortest slot.
    pub slot: Timestamp,
    /// What came of it.
    pub came: Came,
    /// How long it took: an index of the classes of response times.
    pub class: u8,
}

impl Counted {
    /// Where an attempt belongs that ended now.
    pub fn of(endpoint: EndpointKey, now: Timestamp, came: Came, took_ms: u32) -> Self {
        let class = CLASSES.iter().position(|end| took_ms <= *end).unwrap_or(CLASSES.len() - 1);
        let class = u8::try_from(class).expect("there are few classes");
        Self { endpoint, slot: floor(now, SLOTS[0].0), came, class }
    }

    /// The length in milliseconds and the beginning of each slot that it is counted in.
    pub fn slots(&self) -> [(i64, Timestamp); 2] {
        SLOTS.map(|(length, _)| (millis(length), floor(self.slot, length)))
    }
}

/// The last whole multiple of a length that is not after `at`.
fn floor(at: Timestamp, length: Duration) -> Timestamp {
    Timestamp::from_millis(at.as_millis().div_euclid(millis(length)) * millis(length))
}

/// Counts of one slot and outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count {
    /// The slot's beginning.
    pub slot: Timestamp,
    /// What came of them.
    pub came: Came,
    /// How long they took.
    pub class: u8,
    /// How many.
    pub attempts: u64,
}

/// How long a chart reaches back, and in what steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Period {
    /// An hour in steps of five minutes.
    Hour,
    /// A day in steps of half an hour.
    Day,
    /// A week in steps of four hours.
    Week,
}

impl Period {
    /// Every period.
    pub const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Week];

    /// The name, as the API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::Week => "7d",
        }
    }

    /// Reads a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|period| period.name() == name)
    }

    /// The length of a step.
    pub fn step(self) -> Duration {
        Duration::from_secs(match self {
            Self::Hour => 300,
            Self::Day => 1_800,
            Self::Week => 14_400,
        })
    }

    /// The length of the slots that it is made of.
    pub fn slot(self) -> Duration {
        match self {
            Self::Hour => SLOTS[0].0,
            Self::Day | Self::Week => SLOTS[1].0,
        }
    }

    /// How many steps: one more than fits, because the first and the last are not whole.
    fn steps(self) -> u32 {
        match self {
            Self::Hour => 13,
            Self::Day => 49,
            Self::Week => 43,
        }
    }

    /// The beginning of the first step of a chart that is drawn now. Steps begin at whole multiples of their length.
    pub fn begins(self, now: Timestamp) -> Timestamp {
        floor(now, self.step()).minus(self.step() * (self.steps() - 1))
    }
}

/// Response times as far as their classes tell.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Latencies(BTreeMap<u8, u64>);

impl Latencies {
    fn add(&mut self, class: u8, attempts: u64) {
        *self.0.entry(class).or_default() += attempts;
    }

    /// The time within which `share` of the attempts were answered, in milliseconds; `None` where there were none.
    /// Within its class it is taken to be spread evenly.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn percentile(&self, share: f64) -> Option<u64> {
        let total: u64 = self.0.values().sum();
        let wanted = (total as f64 * share).ceil().max(1.0);
        let mut before = 0.0;
        for (class, attempts) in &self.0 {
            let here = *attempts as f64;
            if before + here >= wanted {
                let end = CLASSES[usize::from(*class).min(CLASSES.len() - 1)];
                let begin = usize::from(*class).checked_sub(1).and_then(|n| CLASSES.get(n)).map_or(0, |end| *end);
                let within = f64::from(end - begin) * (wanted - before) / here;
                return Some(u64::from(begin) + within.round().max(1.0) as u64);
            }
            before += here;
        }
        None
    }
}

/// One step of a chart, or all of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Step {
    /// Answered with 2xx.
    pub success: u64,
    /// Failed, and tried again.
    pub retrying: u64,
    /// Failed for good.
    pub failed: u64,
    /// How long they took.
    pub latencies: Latencies,
}

impl Step {
    fn add(&mut self, count: &Count) {
        match count.came {
            Came::Success => self.success += count.attempts,
            Came::Retrying => self.retrying += count.attempts,
            Came::Failed => self.failed += count.attempts,
        }
        self.latencies.add(count.class, count.attempts);
    }

    /// Attempts in all.
    pub fn attempts(&self) -> u64 {
        self.success + self.retrying + self.failed
    }
}

/// What a chart shows: the whole, and its steps from the oldest, with the beginning of each.
pub fn chart(period: Period, now: Timestamp, counts: &[Count]) -> (Step, Vec<(Timestamp, Step)>) {
    let begins = period.begins(now);
    let mut whole = Step::default();
    let mut steps: Vec<_> =
        (0..period.steps()).map(|step| (begins.plus(period.step() * step), Step::default())).collect();
    for count in counts {
        let index = count.slot.since(begins).as_millis() / period.step().as_millis();
        let step = usize::try_from(index).ok().and_then(|index| steps.get_mut(index));
        if let (true, Some((_, step))) = (count.slot >= begins, step) {
            step.add(count);
            whole.add(count);
        }
    }
    (whole, steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(at: i64, came: Came, took: u32, attempts: u64) -> Count {
        let Counted { slot, came, class, .. } = Counted::of(EndpointKey(1), Timestamp::from_millis(at), came, took);
        Count { slot, came, class, attempts }
    }

    #[test]
    fn a_chart_counts_each_attempt_in_its_step_and_in_the_whole() {
        let now = Timestamp::from_millis(1_700_000_123_456);
        let hour = 3_600_000;
        let counts = [
            count(now.as_millis(), Came::Success, 12, 3),
            count(now.as_millis() - 2 * hour, Came::Retrying, 300, 2),
            count(now.as_millis() - 30 * hour, Came::Failed, 5, 9),
            count(now.as_millis() + 30 * hour, Came::Failed, 5, 9),
        ];
        let (whole, steps) = chart(Period::Day, now, &counts);
        assert_eq!((whole.success, whole.retrying, whole.failed), (3, 2, 0));
        assert_eq!(steps.len(), 49);
        assert_eq!(steps.last().expect("steps").1.success, 3);
        assert_eq!(steps.iter().map(|(_, step)| step.attempts()).sum::<u64>(), whole.attempts());
        assert!(steps.windows(2).all(|pair| pair[1].0.since(pair[0].0) == Period::Day.step()));
    }

    #[test]
    fn a_percentile_is_within_a_third_of_the_true_time() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(0.5), None);
        for took in 1..=1_000 {
            latencies.add(Counted::of(EndpointKey(1), Timestamp::default(), Came::Success, took).class, 1);
        }
        for (share, truth) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0)] {
            #[allow(clippy::cast_precision_loss)]
            let told = latencies.percentile(share).expect("a time") as f64;
            assert!((told / truth - 1.0).abs() < 0.34, "{told} for {truth}");
        }
    }

    #[test]
    fn an_attempt_of_up_to_two_minutes_is_told_as_such() {
        for took in [30_001_u32, 41_000, 60_000, 90_000, 120_000] {
            let mut latencies = Latencies::default();
            latencies.add(Counted::of(EndpointKey(1), Timestamp::default(), Came::Success, took).class, 1);
            let told = latencies.percentile(0.5).expect("a time");
            assert!((u64::from(took)..u64::from(took) * 4 / 3).contains(&told), "{told} for {took}");
        }
    }

    #[test]
    fn the_shortest_and_the_longest_have_a_class() {
        for took in [0, 1, 10_000, u32::MAX] {
            let class = Counted::of(EndpointKey(1), Timestamp::default(), Came::Failed, took).class;
            assert!(usize::from(class) < CLASSES.len());
        }
        assert_eq!(Came::ALL.map(|came| Came::from_number(came.number())), Came::ALL.map(Some));
    }
}

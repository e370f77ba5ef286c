//! Counts what comes of attempts, for charts. What is counted is written down every few seconds: a write for each
//! outcome would cost the deliveries their time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use foldhash::HashMap;

use crate::domain::id::EndpointKey;
use crate::domain::statistics::{Came, Counted};
use crate::domain::time::Timestamp;
use crate::domain::transition::{Verdict, classify};
use crate::store::{Settled, Settlement, Statistics};

/// How often it is written down, where it is one write.
const EVERY: Duration = Duration::from_secs(2);

/// What is more than one write, because many endpoints are busy, is added up for so many times as long: the shortest
/// slot has five minutes, and every count that is written costs the deliveries its time.
const ROUNDS_OF_MANY: u32 = 5;

/// Counts in one write: short enough that no publisher notices.
const STEP: usize = 256;

/// What was counted and not written down yet.
#[derive(Default)]
pub struct Tally(Mutex<HashMap<Counted, u64>>);

impl Tally {
    /// Counts what became of these settlements.
    pub(super) fn note(&self, settlements: &[Settlement], settled: &[Settled]) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (settlement, settled) in settlements.iter().zip(settled) {
            let outcome = &settlement.outcome;
            let came = match settled {
                Settled::LeaseLost => continue,
                Settled::RetryAt(_) => Came::Retrying,
                Settled::Done if matches!(classify(outcome), Verdict::Delivered) => Came::Success,
                Settled::Done => Came::Failed,
            };
            let ended = outcome.started_at.plus(Duration::from_millis(outcome.duration_ms.into()));
            add(&mut counts, settlement.endpoint, ended, came, outcome.duration_ms);
        }
    }

    /// Writes down what was counted. What cannot be written is not counted: whether it was written is not known, and
    /// twice is worse than not at all.
    async fn write<S: Statistics>(&self, store: &S) {
        let counts = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        // Endpoint by endpoint, so that each write is to few pages of the table.
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable();
        for step in counts.chunks(STEP) {
            if let Err(error) = store.count_attempts(step.to_vec()).await {
                tracing::warn!(%error, "attempts could not be counted");
            }
        }
    }

    fn is_many(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len() > STEP
    }

    /// Writes down what was counted, every few seconds and once more at the stop.
    pub async fn keep_writing<S: Statistics>(&self, store: S, stop: impl Future<Output = ()>) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        let mut waited = 0;
        loop {
            let is_over = tokio::select! {
                () = &mut stop => true,
                _ = ticks.tick() => false,
            };
            waited += 1;
            if is_over || !self.is_many() || waited >= ROUNDS_OF_MANY {
                self.write(&store).await;
                waited = 0;
            }
            if is_over {
                return;
            }
        }
    }
}

fn add(counts: &mut HashMap<Counted, u64>, endpoint: EndpointKey, ended: Timestamp, came: Came, took_ms: u32) {
    *counts.entry(Counted::of(endpoint, ended, came, took_ms)).or_default() += 1;
}

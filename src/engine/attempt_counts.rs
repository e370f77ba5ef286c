//! Counts the outcomes of attempts, for charts. The counts are written every few seconds, because a write for each
//! outcome would slow the deliveries.

use std::time::Duration;

use foldhash::HashMap;

use crate::domain::id::EndpointKey;
use crate::domain::statistics::{Came, Counted};
use crate::domain::time::Timestamp;
use crate::domain::transition::{Verdict, classify};
use crate::lock::Mutex;
use crate::store::{Settled, Settlement, Statistics};

/// How often the counts are written, where they fit one write.
const WRITE_INTERVAL: Duration = Duration::from_secs(2);

/// Counts of many endpoints, which need several writes, are collected for this many intervals. The shortest slot of a
/// chart is five minutes, and each write slows the deliveries.
const ROUNDS_OF_MANY: u32 = 5;

/// Counts in one write: few enough that publishers are not delayed.
const MAX_COUNTS_PER_WRITE: usize = 256;

/// Counts that are not written yet.
#[derive(Default)]
pub struct AttemptCounts(Mutex<HashMap<Counted, u64>>);

impl AttemptCounts {
    /// Counts the outcomes of these settlements.
    pub(super) fn note(&self, settlements: &[Settlement], settled: &[Settled]) {
        let mut counts = self.0.lock();
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

    /// Writes the counts. Counts whose write fails are dropped: they may have been written, and counting twice is worse
    /// than missing some.
    async fn write<S: Statistics>(&self, store: &S) {
        let counts = std::mem::take(&mut *self.0.lock());
        // Endpoint by endpoint, so that each write is to few pages of the table.
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable();
        for step in counts.chunks(MAX_COUNTS_PER_WRITE) {
            if let Err(error) = store.count_attempts(step.to_vec()).await {
                tracing::warn!(%error, "attempts could not be counted");
            }
        }
    }

    fn is_many(&self) -> bool {
        self.0.lock().len() > MAX_COUNTS_PER_WRITE
    }

    /// Writes the counts every few seconds, and once more at the stop.
    pub async fn keep_writing<S: Statistics>(&self, store: S, stop: impl Future<Output = ()>) {
        let mut ticks = tokio::time::interval(WRITE_INTERVAL);
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

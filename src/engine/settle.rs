//! Writes outcomes, as many at a time as have come while the last ones were being written. What cannot be written is
//! tried again until it can.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Dispatch, Tally};
use crate::clock::Random;
use crate::domain::delivery::Outcome;
use crate::domain::id::EndpointKey;
use crate::domain::time::Timestamp;
use crate::domain::transition::{Verdict, classify};
use crate::metrics::Metrics;
use crate::store::inbox::Leased;
use crate::store::{Held, Settled, Settlement};

/// Outcomes in one write.
const MAX_BATCH: usize = 512;

/// After a failed write: doubled each time, up to the second bound.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The end of an attempt. Without an outcome the delivery was not attempted and is given back.
pub(super) struct Ended {
    pub leased: Leased,
    pub outcome: Option<Outcome>,
}

/// Runs until every sender of `ended` is gone and everything is written. Tells `due` what is due later.
pub(super) async fn settle_all<S: Dispatch>(
    store: S,
    random: Arc<dyn Random>,
    (metrics, tally): (Arc<Metrics>, Arc<Tally>),
    mut ended: mpsc::UnboundedReceiver<Ended>,
    due: mpsc::UnboundedSender<(EndpointKey, Timestamp)>,
) {
    let mut batch = Vec::new();
    let mut not_before = Instant::now();
    while ended.recv_many(&mut batch, MAX_BATCH).await > 0 {
        if Instant::now() < not_before && batch.len() < MAX_BATCH {
            tokio::time::sleep_until(not_before).await;
            while batch.len() < MAX_BATCH
                && let Ok(more) = ended.try_recv()
            {
                batch.push(more);
            }
        }
        let mut settlements = Vec::with_capacity(batch.len());
        let mut held: Vec<Held> = Vec::new();
        for Ended { leased, outcome } in &mut batch {
            let job = &leased.job;
            match outcome.take() {
                Some(outcome) => settlements.push(Settlement {
                    // What was delivered has no next attempt to be drawn.
                    jitter: if classify(&outcome) == Verdict::Delivered { 0.0 } else { random.jitter() },
                    delivery: job.id,
                    endpoint: job.endpoint,
                    lease: job.lease,
                    kind: job.kind,
                    attempts_made: job.attempts_made,
                    failures: job.failures,
                    outcome,
                }),
                None => held.push((job.id, job.lease)),
            }
        }
        let settlements = Arc::new(settlements);
        if !settlements.is_empty() {
            let settled = until_written(&metrics, || store.settle(settlements.clone())).await;
            tally.note(&settlements, &settled);
            let mut next: HashMap<EndpointKey, Timestamp> = HashMap::default();
            for (settlement, settled) in settlements.iter().zip(settled) {
                if let Settled::RetryAt(at) = settled {
                    next.entry(settlement.endpoint).and_modify(|earliest| *earliest = at.min(*earliest)).or_insert(at);
                }
            }
            let mut next: Vec<_> = next.into_iter().collect();
            next.sort_unstable();
            for (endpoint, at) in next {
                let _ = due.send((endpoint, at));
            }
        }
        if !held.is_empty() {
            until_written(&metrics, || store.release(held.clone())).await;
        }
        // Only now is there room in memory again.
        batch.clear();
        not_before = Instant::now() + store.settle_window();
    }
}

async fn until_written<T, F>(metrics: &Metrics, write: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, crate::store::StoreError>>,
{
    let (mut wait, longest) = RETRY_AFTER;
    loop {
        match write().await {
            Ok(written) => return written,
            Err(error) => {
                tracing::error!(%error, retry_in = ?wait, "outcomes could not be written");
                metrics.settle_retries_total.add(1);
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(longest);
            }
        }
    }
}

//! The backlog for operators: how many deliveries are due in the database and in no memory, and how late the first is.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::time::Timestamp;
use crate::metrics::Metrics;
use crate::store::{Backlog, Figures};

/// Between two measurements: metrics are usually read every 15 to 60 s.
const INTERVAL: Duration = Duration::from_secs(15);

/// Deliveries that are counted. So many entries of an index are read within some tens of milliseconds, and an operator
/// does the same about more of them.
const MAX_COUNTED: usize = 100_000;

/// Measures until it is dropped. What could not be measured stays as it was.
pub async fn measure_backlog<S: Figures>(store: S, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match store.backlog(MAX_COUNTED).await {
            Ok(backlog) => note(&metrics, backlog, clock.now()),
            Err(error) => tracing::warn!(%error, "the backlog could not be measured: its metrics are old"),
        }
    }
}

fn note(metrics: &Metrics, backlog: Backlog, now: Timestamp) {
    // A clock may be set back between two looks at it: then nothing is late.
    let late = backlog.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest));
    metrics.deliveries_due.set(backlog.deliveries as u64);
    metrics.oldest_due_seconds.set(late.as_secs());
    metrics.backlog_measured_timestamp_seconds.set(now.unix_seconds());
}

//! Carries out replays step by step, as fast as their endpoints take the deliveries.

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::Metrics;
use crate::store::{ReplayWork, Step, StoreError};

/// The pause after a round that made progress.
const PAUSE: Duration = Duration::from_millis(20);

/// The pause after a round in which every replay had to wait. It doubles up to the second value.
const WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Runs until it is dropped. Each step is one transaction, so dropping loses nothing.
pub async fn replay<S: ReplayWork>(store: S, metrics: Arc<Metrics>) {
    let mut wait = WAIT.0;
    loop {
        let pause = match round(&store, &metrics).await {
            Ok(Round::Idle) => {
                store.replay_wanted().await;
                wait = WAIT.0;
                Duration::ZERO
            }
            Ok(Round::WentOn) => {
                wait = WAIT.0;
                PAUSE
            }
            Ok(Round::Waited) => {
                wait = (wait * 2).min(WAIT.1);
                wait
            }
            Err(error) => {
                tracing::error!(%error, "replays were interrupted and go on later");
                WAIT.1
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// What one step of every replay came to.
enum Round {
    /// There is none.
    Idle,
    /// Some made progress.
    WentOn,
    /// All wait for their endpoints.
    Waited,
}

async fn round<S: ReplayWork>(store: &S, metrics: &Metrics) -> Result<Round, StoreError> {
    let mut round = Round::Idle;
    for replay in store.open_replays().await? {
        let step = if replay.ready { store.replay_step(replay.key).await } else { Ok(Step::Waiting) };
        match step {
            Ok(Step::Made(deliveries)) => {
                metrics.deliveries_created_total.add(deliveries);
                round = Round::WentOn;
            }
            Ok(Step::Finished) => round = Round::WentOn,
            Ok(Step::Waiting) if matches!(round, Round::Idle) => round = Round::Waited,
            Ok(Step::Waiting) => {}
            Err(error) => {
                tracing::error!(%error, "a replay was interrupted and goes on later");
                round = Round::Waited;
            }
        }
    }
    Ok(round)
}

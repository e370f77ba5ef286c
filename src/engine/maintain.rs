//! Housekeeping beside the deliveries: retention, what deleted endpoints left behind, idle connections.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::id::DeliveryId;
use crate::egress::Egress;
use crate::store::{Store, StoreError};

/// How often it is looked for work.
const EVERY: Duration = Duration::from_secs(5);

/// Rounds between two looks at retention: it moves slowly.
const RETENTION_ROUNDS: u64 = 60;

/// Between two steps, so that deliveries go first.
const PAUSE: Duration = Duration::from_millis(20);

/// How long finished deliveries and their events are kept; `None` is for ever.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// From the delivery's creation.
    pub deliveries: Option<Duration>,
}

/// Closes idle connections until it is dropped.
pub async fn close_idle(egress: Egress) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        egress.close_idle();
    }
}

/// Runs until it is dropped.
pub async fn maintain(store: Store, clock: Arc<dyn Clock>, retention: Retention) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 0u64.. {
        ticks.tick().await;
        let due = round % RETENTION_ROUNDS == 0;
        if let Err(error) =
            once(&store, &*clock, if due { retention } else { Retention { deliveries: None } }, due).await
        {
            tracing::warn!(%error, "housekeeping was interrupted and goes on later");
        }
    }
}

async fn once(store: &Store, clock: &dyn Clock, retention: Retention, answers: bool) -> Result<(), StoreError> {
    while store.purge_deleted().await? {
        tokio::time::sleep(PAUSE).await;
    }
    while answers && store.purge_kept_answers().await? {
        tokio::time::sleep(PAUSE).await;
    }
    let Some(keep) = retention.deliveries else { return Ok(()) };
    let cutoff = clock.now().minus(keep);
    while store.purge_old_replays(cutoff).await? {
        tokio::time::sleep(PAUSE).await;
    }
    let mut position = Some(DeliveryId(0));
    while let Some(after) = position {
        position = store.purge_old(cutoff, after).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

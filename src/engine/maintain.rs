//! Housekeeping beside the deliveries: retention, what deleted endpoints left behind, idle connections.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::retention::Retention;
use crate::domain::time::Timestamp;
use crate::egress::Egress;
use crate::store::{Store, StoreError};

/// How often it is looked for work.
const EVERY: Duration = Duration::from_secs(5);

/// Rounds between two looks at retention: it moves slowly.
const RETENTION_ROUNDS: u64 = 60;

/// Between two steps, so that deliveries go first.
const PAUSE: Duration = Duration::from_millis(20);

/// How long things are kept.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// The history of accounts that have no retention of their own.
    pub history: Retention,
    /// Entries of the audit log; `None` is for ever.
    pub audit_log: Option<Duration>,
    /// Sessions without a click.
    pub idle_sessions: Duration,
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
pub async fn maintain(store: Store, clock: Arc<dyn Clock>, keep: Keep) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 0u64.. {
        ticks.tick().await;
        let due = (round % RETENTION_ROUNDS == 0).then_some(keep);
        if let Err(error) = once(&store, clock.now(), due).await {
            tracing::warn!(%error, "housekeeping was interrupted and goes on later");
        }
    }
}

async fn once(store: &Store, now: Timestamp, due: Option<Keep>) -> Result<(), StoreError> {
    while store.purge_deleted().await? {
        tokio::time::sleep(PAUSE).await;
    }
    let Some(keep) = due else { return Ok(()) };
    while store.purge_kept_answers().await? {
        tokio::time::sleep(PAUSE).await;
    }
    if let Some(audit_log) = keep.audit_log {
        while store.purge_audit_log(now.minus(audit_log)).await? {
            tokio::time::sleep(PAUSE).await;
        }
    }
    while store.purge_sessions(keep.idle_sessions).await? {
        tokio::time::sleep(PAUSE).await;
    }
    while store.purge_attempt_counts(now).await? {
        tokio::time::sleep(PAUSE).await;
    }
    while store.purge_old_replays(keep.history, now).await? {
        tokio::time::sleep(PAUSE).await;
    }
    let mut position = Some(0);
    while let Some(from) = position {
        position = store.purge_old(keep.history, now, from).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

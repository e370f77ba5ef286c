//! Housekeeping: retention, the rest of deleted endpoints, idle connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::domain::retention::Retention;
use crate::domain::time::Timestamp;
use crate::egress::Egress;
use crate::metrics::Metrics;
use crate::store::{Housekeeping, PurgePosition, Snapshot, StoreError};

/// The time between two rounds.
const ROUND_INTERVAL: Duration = Duration::from_secs(5);

/// Rounds between two checks of retention, whose limits move slowly.
const RETENTION_ROUNDS: u64 = 60;

/// Between two steps, so that deliveries go first.
const STEP_PAUSE: Duration = Duration::from_millis(20);

/// Failures after which the history is left to the next round: the database is away, and each try waits for it.
const MAX_FAILURES: u64 = 20;

/// How long things are kept.
#[derive(Clone, Copy, Debug)]
pub struct RetentionPolicy {
    /// The history of accounts that have no retention of their own.
    pub history: Retention,
    /// Entries of the audit log; `None` is for ever.
    pub audit_log: Option<Duration>,
    /// Sessions without a request.
    pub idle_sessions: Duration,
}

/// Closes idle connections until it is dropped.
pub async fn close_idle<S: Snapshot>(egress: Egress, store: S) {
    let mut ticks = tokio::time::interval(ROUND_INTERVAL);
    loop {
        ticks.tick().await;
        egress.close_idle(store.view());
    }
}

/// Runs until it is dropped. The first round of everything begins at once. A changed policy counts from the next check
/// of retention on.
pub async fn maintain<S: Housekeeping>(
    store: S,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    policy: watch::Receiver<RetentionPolicy>,
) {
    let mut ticks = tokio::time::interval(ROUND_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 0u64.. {
        ticks.tick().await;
        let mut failures = failed("what was deleted", steps(|| store.purge_deleted()).await);
        if round % RETENTION_ROUNDS == 0 {
            let current = *policy.borrow();
            let (failed_steps, did_history) = once(&store, &*clock, current).await;
            failures += failed_steps;
            if failures == 0 && did_history {
                metrics.housekeeping_last_success_timestamp_seconds.set(clock.now().unix_seconds());
            }
            match store.oldest_kept().await {
                Ok(oldest) => {
                    let age = oldest.map_or(Duration::ZERO, |oldest| clock.now().since(oldest));
                    metrics.retention_oldest_day_seconds.set(age.as_secs());
                }
                Err(error) => failures += failed("the age of the history", Err(error)),
            }
        }
        metrics.housekeeping_failures_total.add(failures);
    }
}

/// One round of what is due by time. Each kind is tried, whatever became of the others. Returns how many failed, and
/// whether the history is this process's work.
async fn once<S: Housekeeping>(store: &S, clock: &dyn Clock, policy: RetentionPolicy) -> (u64, bool) {
    let now = clock.now();
    let mut failures = failed("the days ahead", store.make_days(now).await);
    failures += failed("stored replies", steps(|| store.purge_stored_replies()).await);
    if let Some(audit_log) = policy.audit_log {
        failures += failed("the audit log", steps(|| store.purge_audit_log(now.minus(audit_log))).await);
    }
    failures += failed("sessions", steps(|| store.purge_sessions(policy.idle_sessions)).await);
    failures += failed("counts of attempts", steps(|| store.purge_attempt_counts(now)).await);
    failures += failed("old replays", steps(|| store.purge_old_replays(policy.history, now)).await);
    match purge_history(store, policy.history, now).await {
        Some(more) => (failures + more, true),
        None => (failures, false),
    }
}

/// Removes the history that is over: whole days, then the rest by rows. Returns how much failed; `None` where it is
/// another process's work.
async fn purge_history<S: Housekeeping>(store: &S, retention: Retention, now: Timestamp) -> Option<u64> {
    let (mut failures, mut position) = match store.begin_purge(retention, now).await {
        Ok(None) => return None,
        Ok(Some(round)) => (round.failed_days, Some(round.position)),
        // Where days cannot be dropped, rows still go.
        Err(error) => (failed("days of the history", Err(error)), Some(PurgePosition::start(true))),
    };
    while let Some(from) = position {
        position = match store.purge_old(retention, now, from).await {
            Ok(next) => next,
            Err(error) => {
                failures += failed("the history", Err(error));
                // The failure of one account does not stop the others.
                Some(from.in_account(from.account + 1))
            }
        };
        if failures > MAX_FAILURES {
            break;
        }
        tokio::time::sleep(STEP_PAUSE).await;
    }
    Some(failures)
}

/// Takes step after step until there is nothing left.
async fn steps<F: Future<Output = Result<bool, StoreError>>>(step: impl Fn() -> F) -> Result<(), StoreError> {
    while step().await? {
        tokio::time::sleep(STEP_PAUSE).await;
    }
    Ok(())
}

/// Tells of a kind of housekeeping that failed. Returns how many did.
fn failed(kind: &str, done: Result<(), StoreError>) -> u64 {
    let Err(error) = done else { return 0 };
    tracing::warn!(%error, "{kind}: this part of housekeeping failed, and the next round tries again");
    1
}

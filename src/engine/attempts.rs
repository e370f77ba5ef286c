//! Attempts in flight: a task for each, which reports its end to the scheduler and to the settler.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Sender;
use super::lane::AttemptResult;
use super::scheduler::{AttemptId, Start};
use super::settle::EndedAttempt;
use crate::domain::transition::{Verdict, classify};
use crate::egress::{AttemptEnd, LocalFault};
use crate::metrics::Metrics;
use crate::store::inbox::Leased;

/// The end of an attempt, for the scheduler.
#[derive(Debug)]
pub(super) struct Attempted {
    pub id: AttemptId,
    pub answered: AttemptResult,
    /// Why this machine could not make it.
    pub local_fault: Option<LocalFault>,
}

/// What every attempt needs.
pub(super) struct AttemptContext<T> {
    pub sender: T,
    pub attempted: mpsc::UnboundedSender<Attempted>,
    pub ended: mpsc::UnboundedSender<EndedAttempt>,
    pub metrics: Arc<Metrics>,
}

/// The tasks of attempts in flight. The scheduler bounds their number.
pub(super) struct Attempts<T> {
    context: Arc<AttemptContext<T>>,
    tasks: JoinSet<()>,
}

impl<T: Sender> Attempts<T> {
    pub fn new(context: AttemptContext<T>) -> Self {
        Self { context: Arc::new(context), tasks: JoinSet::new() }
    }

    /// Makes an attempt.
    pub fn begin(&mut self, start: Start) {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(attempt(self.context.clone(), start));
    }

    /// Lets attempts in flight finish. Those that have not within the grace are cut off; returns how many that were.
    pub async fn finish(self, grace: Duration) -> usize {
        let Self { context, mut tasks } = self;
        // The settler ends with the last attempt's sender.
        drop(context);
        let finished = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, finished).await.is_ok() {
            return 0;
        }
        let left = tasks.len();
        tasks.shutdown().await;
        left
    }
}

async fn attempt<T: Sender>(context: Arc<AttemptContext<T>>, start: Start) {
    let mut attempt = Attempt { id: start.id, leased: Some(start.leased), end: None, context: &context };
    if let Some(leased) = &attempt.leased {
        let end = context.sender.send(leased).await;
        attempt.end = Some(end);
    }
}

/// An attempt in flight. Dropping it reports its end, whether it ended with an outcome or a panic.
struct Attempt<'a, T> {
    id: AttemptId,
    leased: Option<Leased>,
    /// `None` until the sender has returned.
    end: Option<AttemptEnd>,
    context: &'a AttemptContext<T>,
}

impl<T> Drop for Attempt<'_, T> {
    fn drop(&mut self) {
        let AttemptContext { attempted, ended, metrics, .. } = self.context;
        let Some(leased) = self.leased.take() else { return };
        let mut local_fault = None;
        let answered = match &self.end {
            Some(AttemptEnd::Outcome(outcome)) if classify(outcome) == Verdict::Delivered => {
                metrics.attempts_delivered_total.add(1);
                AttemptResult::Delivered(Duration::from_millis(outcome.duration_ms.into()))
            }
            Some(AttemptEnd::Outcome(_)) => {
                metrics.attempts_failed_total.add(1);
                AttemptResult::Failed
            }
            Some(AttemptEnd::Unattempted) => AttemptResult::Unattempted,
            Some(AttemptEnd::LocalFault(fault)) => {
                metrics.attempts_local_fault_total.add(1);
                local_fault = Some(*fault);
                AttemptResult::Unattempted
            }
            None if std::thread::panicking() => {
                metrics.attempts_panicked_total.add(1);
                tracing::error!(delivery = %leased.job.id, "an attempt panicked; the delivery is tried again");
                AttemptResult::Failed
            }
            // The attempt was cut off at the stop. Its lease is void at the next start.
            None => return,
        };
        let _ = attempted.send(Attempted { id: self.id, answered, local_fault });
        let outcome = match self.end.take() {
            Some(AttemptEnd::Outcome(outcome)) => Some(outcome),
            _ => None,
        };
        let _ = ended.send(EndedAttempt { leased, outcome });
    }
}

//! The tasks that make attempts. One that has made its attempt waits for the next: to begin and end a task for each, keep it in
//! two lists and move what it works with is paid for each delivery.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Sender;
use super::lane::{Answered, Standing};
use super::scheduler::Start;
use super::settle::Ended;
use crate::domain::delivery::Outcome;
use crate::domain::id::EndpointKey;
use crate::domain::transition::{Verdict, classify};
use crate::metrics::Metrics;
use crate::store::inbox::Leased;

/// The way to a task that waits for an attempt to make.
#[derive(Debug)]
pub(super) struct Way(mpsc::UnboundedSender<Box<Call>>);

/// What a task is called for. It has the way to it in hand until it waits again.
struct Call {
    start: Start,
    way: Way,
}

/// The end of an attempt, for the scheduler.
#[derive(Debug)]
pub(super) struct Attempted {
    pub endpoint: EndpointKey,
    pub standing: Standing,
    pub answered: Answered,
    /// To the task, which is free again.
    pub way: Option<Way>,
}

/// What every attempt needs.
pub(super) struct Kit<T> {
    pub sender: T,
    pub attempted: mpsc::UnboundedSender<Attempted>,
    pub ended: mpsc::UnboundedSender<Ended>,
    pub metrics: Arc<Metrics>,
}

/// As many tasks as there have been attempts at once.
pub(super) struct Crew<T> {
    kit: Arc<Kit<T>>,
    tasks: JoinSet<()>,
    /// The one that was busy last is at the end: what it works with is nearest.
    free: Vec<Way>,
}

impl<T: Sender> Crew<T> {
    pub fn new(kit: Kit<T>) -> Self {
        Self { kit: Arc::new(kit), tasks: JoinSet::new(), free: Vec::new() }
    }

    /// Makes an attempt.
    pub fn begin(&mut self, start: Start) {
        let way = self.free.pop().unwrap_or_else(|| {
            // Those that did not outlive an attempt.
            while self.tasks.try_join_next().is_some() {}
            let (way, calls) = mpsc::unbounded_channel();
            self.tasks.spawn(work(self.kit.clone(), calls));
            Way(way)
        });
        let to = way.0.clone();
        // The task is there for as long as somebody has the way to it.
        let _ = to.send(Box::new(Call { start, way }));
    }

    /// A task is free again, where it has outlived its attempt.
    pub fn free(&mut self, way: Option<Way>) {
        self.free.extend(way);
    }

    /// Lets attempts in flight finish. Those that have not within the grace are cut off; returns how many that were.
    pub async fn finish(self, grace: Duration) -> usize {
        let Self { kit, mut tasks, free } = self;
        // Who waits has nothing to wait for any more.
        drop((kit, free));
        let finished = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, finished).await.is_ok() {
            return 0;
        }
        let left = tasks.len();
        tasks.shutdown().await;
        left
    }
}

async fn work<T: Sender>(kit: Arc<Kit<T>>, mut calls: mpsc::UnboundedReceiver<Box<Call>>) {
    while let Some(call) = calls.recv().await {
        let Call { start: Start { leased, standing }, way } = *call;
        let mut attempt = Attempt { leased: Some(leased), outcome: None, standing, way: Some(way), kit: &kit };
        if let Some(leased) = &attempt.leased {
            let outcome = kit.sender.send(&leased.job).await;
            attempt.returned(outcome);
        }
    }
}

/// An attempt under way. However it ends, by an outcome or by a panic, the end is told when this is dropped.
struct Attempt<'a, T> {
    leased: Option<Leased>,
    /// `None` until the sender has returned.
    outcome: Option<Option<Outcome>>,
    standing: Standing,
    way: Option<Way>,
    kit: &'a Kit<T>,
}

impl<T> Attempt<'_, T> {
    fn returned(&mut self, outcome: Option<Outcome>) {
        self.outcome = Some(outcome);
    }
}

impl<T> Drop for Attempt<'_, T> {
    fn drop(&mut self) {
        let Kit { attempted, ended, metrics, .. } = self.kit;
        let Some(leased) = self.leased.take() else { return };
        let answered = match &self.outcome {
            Some(Some(outcome)) if classify(outcome) == Verdict::Delivered => {
                metrics.attempts_delivered_total.add(1);
                Answered::Delivered(Duration::from_millis(outcome.duration_ms.into()))
            }
            Some(Some(_)) => {
                metrics.attempts_failed_total.add(1);
                Answered::Failed
            }
            Some(None) => Answered::Held,
            None if std::thread::panicking() => {
                // The task ends with it.
                self.way = None;
                metrics.attempts_panicked_total.add(1);
                tracing::error!(delivery = %leased.job.id, "an attempt panicked; the delivery is tried again");
                Answered::Failed
            }
            // Cut off at the stop: the lease is void at the next start.
            None => return,
        };
        let (endpoint, standing, way) = (leased.job.endpoint, self.standing, self.way.take());
        let _ = attempted.send(Attempted { endpoint, standing, answered, way });
        let _ = ended.send(Ended { leased, outcome: self.outcome.take().flatten() });
    }
}

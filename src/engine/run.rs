//! The engine's loop: it waits for what happens next, and moves the scheduler's decisions into tasks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::lane::{Answered, Standing};
use super::scheduler::{Scheduler, Start};
use super::settle::{Ended, settle_all};
use super::{Dispatch, Engine, Sender};
use crate::domain::delivery::Outcome;
use crate::domain::id::EndpointKey;
use crate::domain::time::Timestamp;
use crate::domain::transition::{Verdict, classify};
use crate::metrics::Metrics;
use crate::store::Claimed;
use crate::store::inbox::{Leased, Nudge};

/// Everything that is due is looked up again this often, should a nudge ever be lost.
const RESCAN_EVERY: Duration = Duration::from_secs(300);

/// After a rescan that failed.
const RESCAN_AGAIN: Duration = Duration::from_secs(1);

/// The longest sleep, so that a wall clock that was set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// What a task tells the loop.
enum Report {
    Attempted(EndpointKey, Standing, Answered),
    Claimed(EndpointKey, Option<Claimed>),
    Rescanned(Option<Vec<(EndpointKey, Timestamp)>>),
}

impl<S: Dispatch, T: Sender> Engine<S, T> {
    /// Delivers until `stop` resolves; then lets attempts in flight finish within the grace, writes their outcomes and
    /// returns. What was leased and not attempted stays in the store for the next start.
    pub async fn run(self, mut nudges: mpsc::UnboundedReceiver<Nudge>, stop: impl Future<Output = ()>) {
        let (reports, mut reported) = mpsc::unbounded_channel();
        let (ended, to_settle) = mpsc::unbounded_channel();
        let (due, mut due_later) = mpsc::unbounded_channel();
        let counting = (self.metrics.clone(), self.tally.clone());
        let settler = settle_all(self.store.clone(), self.random.clone(), counting, to_settle, due);
        let settler = tokio::spawn(settler);
        let mut scheduler = Scheduler::new(self.limits);
        let mut attempts = JoinSet::new();
        let mut rescan = tokio::time::interval(RESCAN_EVERY);
        let mut rescan_soon = None;
        tokio::pin!(stop);
        loop {
            let now = self.clock.now();
            while let Some((endpoint, limit)) = scheduler.next_claim(now) {
                self.spawn_claim(endpoint, limit, &reports);
            }
            for leased in scheduler.given_up() {
                let _ = ended.send(Ended { leased, outcome: None });
            }
            while let Some(start) = scheduler.next_start() {
                self.spawn_attempt(&mut attempts, start, &reports, &ended);
            }
            self.metrics.attempts_in_flight.set(scheduler.in_flight() as u64);
            let sleep = scheduler.next_wake().map_or(LONGEST_SLEEP, |at| at.since(now).min(LONGEST_SLEEP));
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(report) = reported.recv() => match report {
                    Report::Attempted(endpoint, standing, answered) => scheduler.ended(endpoint, standing, answered),
                    Report::Claimed(endpoint, claimed) => scheduler.claimed(endpoint, claimed, self.clock.now()),
                    Report::Rescanned(Some(found)) => {
                        for (endpoint, at) in found {
                            scheduler.due(endpoint, at);
                        }
                    }
                    Report::Rescanned(None) => rescan_soon = Some(tokio::time::Instant::now() + RESCAN_AGAIN),
                },
                Some((endpoint, at)) = due_later.recv() => scheduler.due(endpoint, at),
                Some(nudge) = nudges.recv() => match nudge {
                    Nudge::Jobs(jobs) => scheduler.add(jobs),
                    Nudge::Due(endpoint, at) => scheduler.due(endpoint, at),
                    Nudge::Rescan => self.spawn_rescan(&reports),
                    Nudge::Share(share) => scheduler.share(share),
                },
                _ = rescan.tick() => self.spawn_rescan(&reports),
                () = sleep_until(rescan_soon) => {
                    rescan_soon = None;
                    self.spawn_rescan(&reports);
                }
                () = tokio::time::sleep(sleep) => {}
            }
            while attempts.try_join_next().is_some() {}
        }
        // Attempts in flight hold the only other senders to the settler: it ends when they have, or are cut off.
        drop(ended);
        let finished = async { while attempts.join_next().await.is_some() {} };
        if tokio::time::timeout(self.grace, finished).await.is_err() {
            tracing::warn!(
                attempts = attempts.len(),
                "attempts were cut off; they are made again after the next start"
            );
            attempts.shutdown().await;
        }
        if tokio::time::timeout(self.grace, settler).await.is_err() {
            tracing::error!("some outcomes could not be written before the stop; their deliveries are attempted again");
        }
    }

    fn spawn_claim(&self, endpoint: EndpointKey, limit: usize, reports: &mpsc::UnboundedSender<Report>) {
        let (store, reports) = (self.store.clone(), reports.clone());
        tokio::spawn(async move {
            let claimed = store.claim(endpoint, limit).await;
            let claimed = claimed.inspect_err(|error| tracing::error!(%error, "due deliveries could not be claimed"));
            let _ = reports.send(Report::Claimed(endpoint, claimed.ok()));
        });
    }

    fn spawn_rescan(&self, reports: &mpsc::UnboundedSender<Report>) {
        let (store, reports) = (self.store.clone(), reports.clone());
        tokio::spawn(async move {
            let found = store.due_endpoints().await;
            let found = found.inspect_err(|error| tracing::error!(%error, "due deliveries could not be looked up"));
            let _ = reports.send(Report::Rescanned(found.ok()));
        });
    }

    fn spawn_attempt(
        &self,
        attempts: &mut JoinSet<()>,
        start: Start,
        reports: &mpsc::UnboundedSender<Report>,
        ended: &mpsc::UnboundedSender<Ended>,
    ) {
        let sender = self.sender.clone();
        let mut attempt = Attempt {
            leased: Some(start.leased),
            outcome: None,
            standing: start.standing,
            reports: reports.clone(),
            ended: ended.clone(),
            metrics: self.metrics.clone(),
        };
        attempts.spawn(async move {
            if let Some(leased) = &attempt.leased {
                let outcome = sender.send(&leased.job).await;
                attempt.returned(outcome);
            }
        });
    }
}

/// An attempt under way. However it ends, by an outcome or by a panic, the end is told when this is dropped.
struct Attempt {
    leased: Option<Leased>,
    /// `None` until the sender has returned.
    outcome: Option<Option<Outcome>>,
    standing: Standing,
    reports: mpsc::UnboundedSender<Report>,
    ended: mpsc::UnboundedSender<Ended>,
    metrics: Arc<Metrics>,
}

impl Attempt {
    fn returned(&mut self, outcome: Option<Outcome>) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(leased) = self.leased.take() else { return };
        let answered = match &self.outcome {
            Some(Some(outcome)) if classify(outcome) == Verdict::Delivered => {
                self.metrics.attempts_delivered_total.add(1);
                Answered::Delivered(Duration::from_millis(outcome.duration_ms.into()))
            }
            Some(Some(_)) => {
                self.metrics.attempts_failed_total.add(1);
                Answered::Failed
            }
            Some(None) => Answered::Held,
            None if std::thread::panicking() => {
                self.metrics.attempts_panicked_total.add(1);
                tracing::error!(delivery = %leased.job.id, "an attempt panicked; the delivery is tried again");
                Answered::Failed
            }
            // Cut off at the stop: the lease is void at the next start.
            None => return,
        };
        let _ = self.reports.send(Report::Attempted(leased.job.endpoint, self.standing, answered));
        let _ = self.ended.send(Ended { leased, outcome: self.outcome.take().flatten() });
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

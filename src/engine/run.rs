//! The engine's loop: it waits for the next event, and starts tasks for the scheduler's decisions.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::attempts::{AttemptContext, Attempted, Attempts};
use super::faults::LocalFaults;
use super::scheduler::Scheduler;
use super::settle::{EndedAttempt, settle_all};
use super::{Engine, Sender};
use crate::domain::id::EndpointKey;
use crate::domain::time::Timestamp;
use crate::log_limit::LogLimit;
use crate::store::inbox::Nudge;
use crate::store::{Claimed, Dispatch};
use crate::waiting::sleep_until;

/// How often all that is due is looked up again, should a nudge be lost.
const RESCAN_INTERVAL: Duration = Duration::from_secs(300);

/// The pause after a rescan that failed.
const RESCAN_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The longest sleep. A wall clock that was set back is noticed after it (`WallClock`).
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// A wall clock that goes back by more than this was set back. Time servers step it by less.
const SET_BACK: Duration = Duration::from_secs(60);

/// Compares the wall clock with the monotonic clock.
struct WallClock {
    last: (Timestamp, Instant),
}

impl WallClock {
    fn new(now: Timestamp, at: Instant) -> Self {
        Self { last: (now, at) }
    }

    /// Whether the wall clock was set back since the last time.
    fn is_set_back(&mut self, now: Timestamp, at: Instant) -> bool {
        let (last, last_at) = std::mem::replace(&mut self.last, (now, at));
        last.plus(at - last_at).since(now) > SET_BACK
    }
}

/// What a task tells the loop.
enum Report {
    Claimed(EndpointKey, Option<Claimed>),
    Rescanned(Option<Vec<(EndpointKey, Timestamp)>>),
}

impl<S: Dispatch, T: Sender> Engine<S, T> {
    /// Delivers until `stop` resolves; then lets attempts in flight finish within the time that it says, writes their
    /// outcomes and returns. What was leased and not attempted stays in the store for the next start.
    pub async fn run(self, mut nudges: mpsc::UnboundedReceiver<Nudge>, stop: impl Future<Output = Duration>) {
        let (reports, mut reported) = mpsc::unbounded_channel();
        let (attempted, mut attempts) = mpsc::unbounded_channel();
        let (ended, to_settle) = mpsc::unbounded_channel();
        let (due, mut due_later) = mpsc::unbounded_channel();
        let counting = (self.metrics.clone(), self.attempt_counts.clone());
        let settler = settle_all(self.store.clone(), self.random.clone(), counting, to_settle, due);
        let settler = tokio::spawn(settler);
        let mut scheduler = Scheduler::new(self.limits);
        let mut rescan = tokio::time::interval(RESCAN_INTERVAL);
        let mut rescan_soon = None;
        let mut faults = LocalFaults::default();
        let mut wall_clock = WallClock::new(self.clock.now(), Instant::now());
        tokio::pin!(stop);
        let (sender, metrics) = (self.sender.clone(), self.metrics.clone());
        let mut in_flight = Attempts::new(AttemptContext { sender, attempted, ended: ended.clone(), metrics });
        let grace = loop {
            let (now, started_at) = (self.clock.now(), Instant::now());
            if wall_clock.is_set_back(now, started_at) {
                tracing::warn!(%now, "the clock was set back: what is due is looked up again");
                self.spawn_rescan(&reports);
            }
            while let Some((endpoint, limit)) = scheduler.next_claim(now, started_at) {
                self.spawn_claim(endpoint, limit, &reports);
            }
            for leased in scheduler.given_up() {
                let _ = ended.send(EndedAttempt { leased, outcome: None });
            }
            let (overdue_at, pause_ends) = (scheduler.mark_overdue(started_at), faults.pause_ends(started_at));
            while pause_ends.is_none()
                && let Some(start) = scheduler.next_start(started_at)
            {
                in_flight.begin(start);
            }
            self.metrics.attempts_in_flight.set(scheduler.in_flight() as u64);
            let (next_due, waits_until) = scheduler.next_wake();
            let sleep = next_due.map_or(LONGEST_SLEEP, |at| at.since(now).min(LONGEST_SLEEP));
            tokio::select! {
                biased;
                grace = &mut stop => break grace,
                Some(Attempted { id, answered, local_fault }) = attempts.recv() => {
                    if let Some(fault) = local_fault {
                        faults.note(fault, Instant::now());
                    }
                    scheduler.ended(id, answered);
                }
                Some(report) = reported.recv() => match report {
                    Report::Claimed(endpoint, claimed) => {
                        scheduler.claimed(endpoint, claimed, self.clock.now(), Instant::now());
                    }
                    Report::Rescanned(Some(found)) => {
                        for (endpoint, at) in found {
                            scheduler.due(endpoint, at);
                        }
                    }
                    Report::Rescanned(None) => rescan_soon = Some(Instant::now() + RESCAN_RETRY_DELAY),
                },
                Some((endpoint, at)) = due_later.recv() => scheduler.due(endpoint, at),
                Some(nudge) = nudges.recv() => self.pass_on(nudge, &mut scheduler, &reports),
                _ = rescan.tick() => self.spawn_rescan(&reports),
                () = sleep_until(rescan_soon) => {
                    rescan_soon = None;
                    self.spawn_rescan(&reports);
                }
                () = sleep_until(overdue_at) => {}
                () = sleep_until(waits_until) => {}
                () = sleep_until(pause_ends) => {}
                () = tokio::time::sleep(sleep) => {}
            }
        };
        // The loop starts no more attempts, so that what the store hands over stays there for the next start. Attempts
        // in flight hold the last senders to the settler, which ends after them.
        nudges.close();
        drop((ended, attempts));
        finish(in_flight, settler, grace).await;
    }

    /// Does what the store asks for.
    fn pass_on(&self, nudge: Nudge, scheduler: &mut Scheduler, reports: &mpsc::UnboundedSender<Report>) {
        match nudge {
            Nudge::Jobs(jobs) => scheduler.add(jobs),
            Nudge::Due(endpoint, at) => scheduler.due(endpoint, at),
            Nudge::Rescan => self.spawn_rescan(reports),
            Nudge::Share(share) => scheduler.share(share),
            Nudge::Changed(endpoint) => scheduler.note_change(endpoint),
        }
    }

    fn spawn_claim(&self, endpoint: EndpointKey, limit: usize, reports: &mpsc::UnboundedSender<Report>) {
        let (store, reports) = (self.store.clone(), reports.clone());
        tokio::spawn(async move {
            let mut claim = Claim { endpoint, claimed: None, reports };
            let claimed = store.claim(endpoint, limit).await;
            let claimed = claimed.inspect_err(|error| {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(suppressed) = LIMIT.admit() {
                    tracing::error!(%error, suppressed, "due deliveries could not be claimed");
                }
            });
            claim.claimed = claimed.ok();
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
}

/// A claim under way. Dropping it reports its end, whether it ended with deliveries, an error or a panic: the scheduler
/// counts claims.
struct Claim {
    endpoint: EndpointKey,
    claimed: Option<Claimed>,
    reports: mpsc::UnboundedSender<Report>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = self.reports.send(Report::Claimed(self.endpoint, self.claimed.take()));
    }
}

/// Lets attempts in flight end, and what they came to be written, within `grace` each.
async fn finish<T: Sender>(in_flight: Attempts<T>, settler: JoinHandle<()>, grace: Duration) {
    let cut_off = in_flight.finish(grace).await;
    if cut_off > 0 {
        tracing::warn!(attempts = cut_off, "attempts were cut off; they are made again after the next start");
    }
    if tokio::time::timeout(grace, settler).await.is_err() {
        tracing::error!("some outcomes could not be written before the stop; their deliveries are attempted again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_claim_that_panics_has_ended_too() {
        let (reports, mut reported) = mpsc::unbounded_channel();
        let claim = Claim { endpoint: EndpointKey(1), claimed: None, reports };
        let ended: JoinHandle<()> = tokio::spawn(async move {
            let _claim = claim;
            panic!("in the store");
        });
        assert!(ended.await.is_err());
        assert!(matches!(reported.recv().await, Some(Report::Claimed(EndpointKey(1), None))));
    }

    #[test]
    fn a_wall_clock_that_was_set_back_is_noticed_once() {
        let (now, at) = (Timestamp::from_millis(1_800_000_000_000), Instant::now());
        let mut clock = WallClock::new(now, at);
        let step = Duration::from_secs(30);
        assert!(!clock.is_set_back(now.plus(step), at + step), "it goes as time does");
        assert!(!clock.is_set_back(now, at + step), "a time server has corrected it");
        let back = now.minus(Duration::from_secs(3_600));
        assert!(clock.is_set_back(back, at + step));
        assert!(!clock.is_set_back(back.plus(step), at + 2 * step));
        assert!(!clock.is_set_back(now, at + 2 * step), "and that it was set forward again does no harm");
    }
}

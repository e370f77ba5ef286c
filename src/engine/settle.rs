//! Writes outcomes in batches: each batch has the outcomes that came while the last one was written.
//!
//! A write that fails is tried again with half as many outcomes, until an outcome that cannot be written is alone. That
//! outcome is set aside and tried again apart, so that the others go on. While no outcome at all can be written, none
//! is set aside.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::AttemptCounts;
use crate::clock::Random;
use crate::domain::delivery::Outcome;
use crate::domain::id::EndpointKey;
use crate::domain::time::Timestamp;
use crate::domain::transition::{Verdict, classify};
use crate::log_limit::LogLimit;
use crate::metrics::Metrics;
use crate::store::inbox::Leased;
use crate::store::{Dispatch, Isolation, Settled, Settlement, StoreError, Unattempted};
use crate::waiting::sleep_until;

/// Outcomes in one write.
const MAX_BATCH: usize = 512;

/// The pause after a failed write. It doubles, up to the second value, only while a single outcome fails again and
/// again: halving a batch of 512 then takes half a second, and a database that is back is noticed within a second.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The pause before an outcome that was set aside is tried again. It doubles up to the second value.
const RETRY_ASIDE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// The end of an attempt. Without an outcome the delivery was not attempted and is given back.
pub(super) struct EndedAttempt {
    pub leased: Leased,
    pub outcome: Option<Outcome>,
}

/// The end of an attempt that is still to be written.
struct Unwritten {
    leased: Leased,
    settlement: Option<Settlement>,
    since: Instant,
    /// How many writes had succeeded when this one failed alone.
    failed_alone_after: Option<u64>,
}

/// Runs until every sender of `ended` is gone and everything that can be written is written. Tells `due` what is due
/// later.
pub(super) async fn settle_all<S: Dispatch>(
    store: S,
    random: Arc<dyn Random>,
    (metrics, attempt_counts): (Arc<Metrics>, Arc<AttemptCounts>),
    ended: mpsc::UnboundedReceiver<EndedAttempt>,
    due: mpsc::UnboundedSender<(EndpointKey, Timestamp)>,
) {
    let (aside, set_aside) = mpsc::unbounded_channel();
    let writer = Writer { store, metrics, attempt_counts, due };
    let apart = tokio::spawn(retry_apart(writer.clone(), set_aside));
    let settler = Settler { writer, random, aside, waiting: VecDeque::new(), successes: 0 };
    settler.run(ended).await;
    // What is still set aside is attempted again after the next start.
    apart.abort();
}

/// What a write of outcomes needs.
#[derive(Clone)]
struct Writer<S> {
    store: S,
    metrics: Arc<Metrics>,
    attempt_counts: Arc<AttemptCounts>,
    due: mpsc::UnboundedSender<(EndpointKey, Timestamp)>,
}

impl<S: Dispatch> Writer<S> {
    /// Writes a batch and frees its memory. On failure, the outcomes that are not written come back with the error.
    async fn write(&self, batch: Vec<Unwritten>, isolation: Isolation) -> Result<(), (Vec<Unwritten>, StoreError)> {
        let (mut rows, mut settlements) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        let (mut unattempted, mut returned) = (Vec::new(), Vec::new());
        for mut row in batch {
            match row.settlement.take() {
                Some(settlement) => {
                    settlements.push(settlement);
                    rows.push(row);
                }
                None => {
                    unattempted.push(Unattempted::of_leased(&row.leased));
                    returned.push(row);
                }
            }
        }
        let settlements = Arc::new(settlements);
        if !settlements.is_empty() {
            match self.store.settle(settlements.clone(), isolation).await {
                Ok(settled) => self.written(&settlements, &settled),
                Err(error) => {
                    for (row, settlement) in rows.iter_mut().zip(settlements.iter()) {
                        row.settlement = Some(settlement.clone());
                    }
                    rows.append(&mut returned);
                    return Err((rows, error));
                }
            }
        }
        if !unattempted.is_empty()
            && let Err(error) = self.store.release(unattempted).await
        {
            return Err((returned, error));
        }
        Ok(())
    }

    /// Counts what was written, and tells when the next attempts are due.
    fn written(&self, settlements: &[Settlement], settled: &[Settled]) {
        debug_assert_eq!(settlements.len(), settled.len(), "the store says of each what became of it");
        self.attempt_counts.note(settlements, settled);
        let mut next: HashMap<EndpointKey, Timestamp> = HashMap::default();
        for (settlement, settled) in settlements.iter().zip(settled) {
            if let Settled::RetryAt(at) = settled {
                next.entry(settlement.endpoint).and_modify(|earliest| *earliest = (*at).min(*earliest)).or_insert(*at);
            }
        }
        let mut next: Vec<_> = next.into_iter().collect();
        next.sort_unstable();
        for (endpoint, at) in next {
            let _ = self.due.send((endpoint, at));
        }
    }
}

/// The loop that writes outcomes in the order in which they came.
struct Settler<S> {
    writer: Writer<S>,
    random: Arc<dyn Random>,
    aside: mpsc::UnboundedSender<Unwritten>,
    waiting: VecDeque<Unwritten>,
    /// Writes that have succeeded.
    successes: u64,
}

impl<S: Dispatch> Settler<S> {
    async fn run(mut self, mut ended: mpsc::UnboundedReceiver<EndedAttempt>) {
        let (mut size, mut pause) = (MAX_BATCH, RETRY_AFTER.0);
        let mut not_before = Instant::now();
        while self.receive(&mut ended, not_before).await {
            let batch: Vec<_> = self.waiting.drain(..size.min(self.waiting.len())).collect();
            let oldest = batch.iter().chain(&self.waiting).map(|row| row.since).min();
            self.writer.metrics.oldest_unwritten_since(oldest);
            let isolation = if size == MAX_BATCH { Isolation::Shared } else { Isolation::Savepoint };
            match self.writer.write(batch, isolation).await {
                Ok(()) => {
                    self.successes += 1;
                    (size, pause) = ((size * 2).min(MAX_BATCH), RETRY_AFTER.0);
                    not_before = Instant::now() + self.writer.store.settle_window();
                }
                Err((batch, error)) => {
                    self.log_failure(&error, batch.len());
                    size = batch.len().div_ceil(2);
                    let alone = batch.len() == 1;
                    self.put_back(batch).await;
                    tokio::time::sleep(pause).await;
                    if alone {
                        pause = (pause * 2).min(RETRY_AFTER.1);
                    }
                }
            }
            self.writer.metrics.oldest_unwritten_since(self.waiting.iter().map(|row| row.since).min());
        }
    }

    /// Receives outcomes. Waits for one where none is left, and until `not_before` where that is less than a batch.
    /// `false` when none is left and none can come.
    async fn receive(&mut self, ended: &mut mpsc::UnboundedReceiver<EndedAttempt>, not_before: Instant) -> bool {
        let mut received = Vec::new();
        if self.waiting.is_empty() {
            if ended.recv_many(&mut received, MAX_BATCH).await == 0 {
                return false;
            }
            if Instant::now() < not_before && received.len() < MAX_BATCH {
                tokio::time::sleep_until(not_before).await;
            }
        }
        while received.len() + self.waiting.len() < MAX_BATCH
            && let Ok(more) = ended.try_recv()
        {
            received.push(more);
        }
        let now = Instant::now();
        for EndedAttempt { leased, outcome } in received {
            let settlement = outcome.map(|outcome| self.settlement(&leased, outcome));
            self.waiting.push_back(Unwritten { leased, settlement, since: now, failed_alone_after: None });
        }
        true
    }

    fn settlement(&self, leased: &Leased, outcome: Outcome) -> Settlement {
        let job = &leased.job;
        Settlement {
            // A delivered event has no next attempt, so it needs no jitter.
            jitter: if classify(&outcome) == Verdict::Delivered { 0.0 } else { self.random.jitter() },
            delivery: job.id,
            endpoint: job.endpoint,
            lease: job.lease,
            kind: job.kind,
            attempts_made: job.attempts_made,
            failures: job.failures,
            outcome,
        }
    }

    fn log_failure(&self, error: &StoreError, outcomes: usize) {
        static LIMIT: LogLimit = LogLimit::new();
        self.writer.metrics.settle_retries_total.add(1);
        if let Some(suppressed) = LIMIT.admit() {
            tracing::error!(%error, outcomes, suppressed, "outcomes could not be written and are tried again");
        }
    }

    /// Puts back outcomes that failed. One that failed alone twice, while others were written in between, is set aside:
    /// the fault is its own. Without other outcomes, it is enough that the store takes writes.
    async fn put_back(&mut self, mut batch: Vec<Unwritten>) {
        debug_assert!(!batch.is_empty(), "a write that fails leaves something unwritten");
        if batch.len() > 1 {
            batch.into_iter().rev().for_each(|row| self.waiting.push_front(row));
            return;
        }
        let Some(mut row) = batch.pop() else { return };
        let others_succeed = row.failed_alone_after.is_some_and(|successes| successes < self.successes);
        let has_failed = row.failed_alone_after.is_some();
        if others_succeed || has_failed && self.waiting.is_empty() && self.writer.store.ping().await.is_ok() {
            tracing::error!(
                delivery = %row.leased.job.id,
                "an outcome cannot be written and is set aside: it is tried again apart, and others go on"
            );
            self.writer.metrics.outcomes_set_aside.add(1);
            let _ = self.aside.send(row);
        } else {
            row.failed_alone_after = Some(self.successes);
            self.waiting.push_back(row);
        }
    }
}

/// Tries outcomes that were set aside, one at a time, until each is written.
async fn retry_apart<S: Dispatch>(writer: Writer<S>, mut set_aside: mpsc::UnboundedReceiver<Unwritten>) {
    let mut rows: VecDeque<(Instant, Duration, Unwritten)> = VecDeque::new();
    loop {
        let next = rows.iter().map(|(at, ..)| *at).min();
        tokio::select! {
            row = set_aside.recv() => match row {
                Some(row) => rows.push_back((Instant::now() + RETRY_ASIDE.0, RETRY_ASIDE.0, row)),
                None => return,
            },
            () = sleep_until(next) => {
                let Some(index) = rows.iter().position(|(at, ..)| Some(*at) == next) else { continue };
                let Some((_, pause, row)) = rows.remove(index) else { continue };
                match writer.write(vec![row], Isolation::Savepoint).await {
                    Ok(()) => writer.metrics.outcomes_set_aside.subtract(1),
                    Err((batch, _)) => {
                        let pause = (pause * 2).min(RETRY_ASIDE.1);
                        rows.extend(batch.into_iter().map(|row| (Instant::now() + pause, pause, row)));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededRandom;
    use crate::domain::delivery::{DeliveryKind, Job};
    use crate::domain::id::{AccountKey, DeliveryId};
    use crate::domain::rate_limit::Rate;
    use crate::lock::Mutex;
    use crate::store::inbox::MemoryPermit;
    use crate::store::{Claimed, CountedStart, Health};

    /// A store in which some deliveries cannot be written, and sometimes none.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<State>>);

    #[derive(Default)]
    struct State {
        bad: Vec<i64>,
        is_down: bool,
        written: Vec<i64>,
        writes: usize,
    }

    impl Health for Disk {
        async fn ping(&self) -> Result<(), StoreError> {
            if self.0.lock().is_down { Err(StoreError::Unavailable("no".into())) } else { Ok(()) }
        }

        async fn failed(&self) {
            std::future::pending::<()>().await;
        }
    }

    impl Dispatch for Disk {
        async fn claim(&self, _: EndpointKey, _: usize) -> Result<Claimed, StoreError> {
            Ok(Claimed::default())
        }

        async fn count_start(
            &self,
            _: EndpointKey,
            _: Rate,
            _: Option<CountedStart>,
            _: Duration,
        ) -> Result<Option<CountedStart>, StoreError> {
            Ok(None)
        }

        async fn due_endpoints(&self) -> Result<Vec<(EndpointKey, Timestamp)>, StoreError> {
            Ok(Vec::new())
        }

        fn settle_window(&self) -> Duration {
            Duration::ZERO
        }

        async fn settle(&self, batch: Arc<Vec<Settlement>>, _: Isolation) -> Result<Vec<Settled>, StoreError> {
            let mut state = self.0.lock();
            state.writes += 1;
            let failed = || Err(StoreError::Unavailable("no".into()));
            if state.is_down || batch.iter().any(|row| state.bad.contains(&row.delivery.0)) {
                return failed();
            }
            state.written.extend(batch.iter().map(|row| row.delivery.0));
            Ok(vec![Settled::Done; batch.len()])
        }

        async fn release(&self, _: Vec<Unattempted>) -> Result<(), StoreError> {
            Ok(())
        }
    }

    fn ended(id: i64) -> EndedAttempt {
        let whose = (DeliveryId(id), EndpointKey(1));
        let job = Job::new(whose, 1, DeliveryKind::Event, "a.b", bytes::Bytes::new());
        let outcome = Outcome {
            started_at: Timestamp::from_millis(0),
            duration_ms: 1,
            http_status: Some(200),
            body: None,
            error: None,
            endpoint_version: 0,
            retry_after_ms: None,
        };
        let leased = Leased::new(job, Timestamp::from_millis(0), MemoryPermit::unbounded(AccountKey(1)));
        EndedAttempt { leased, outcome: Some(outcome) }
    }

    fn start(disk: &Disk) -> (mpsc::UnboundedSender<EndedAttempt>, Arc<Metrics>, tokio::task::JoinHandle<()>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (due, _) = mpsc::unbounded_channel();
        let metrics = Arc::new(Metrics::default());
        let counting = (metrics.clone(), Arc::default());
        let settling = settle_all(disk.clone(), Arc::new(SeededRandom::new(1)), counting, receiver, due);
        (sender, metrics, tokio::spawn(settling))
    }

    async fn until(disk: &Disk, written: usize) {
        while disk.0.lock().written.len() < written {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn outcomes_that_cannot_be_written_are_set_aside_and_hold_up_no_other() {
        let disk = Disk::default();
        disk.0.lock().bad = vec![7, 300];
        let (sender, metrics, settling) = start(&disk);
        let began = Instant::now();
        (0..400).for_each(|id| sender.send(ended(id)).expect("it listens"));
        until(&disk, 398).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        sender.send(ended(1_000)).expect("it listens");
        until(&disk, 399).await;
        while metrics.outcomes_set_aside.get() < 2 {
            sender.send(ended(2_000)).expect("it listens");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(metrics.oldest_unwritten().is_none(), "what is set aside is counted apart");
        disk.0.lock().bad.clear();
        while metrics.outcomes_set_aside.get() > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let mut written = disk.0.lock().written.clone();
        written.retain(|id| *id < 400);
        written.sort_unstable();
        assert_eq!(written, (0..400).collect::<Vec<_>>(), "each is written once");
        drop(sender);
        settling.await.expect("no panic");
    }

    #[tokio::test(start_paused = true)]
    async fn while_nothing_can_be_written_nothing_is_set_aside_and_little_is_tried() {
        let disk = Disk::default();
        disk.0.lock().is_down = true;
        let (sender, metrics, settling) = start(&disk);
        (0..400).for_each(|id| sender.send(ended(id)).expect("it listens"));
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(metrics.outcomes_set_aside.get(), 0);
        assert!(metrics.oldest_unwritten().is_some_and(|age| age >= Duration::from_secs(119)));
        assert!(disk.0.lock().writes < 150);
        disk.0.lock().is_down = false;
        until(&disk, 400).await;
        drop(sender);
        settling.await.expect("no panic");
        assert!(metrics.oldest_unwritten().is_none());
    }
}

//! The only thread that writes: it takes the writes that have gathered, runs them in one transaction, commits, and only
//! then answers. The batch grows with the load, so that many writes share one flush of the disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::checkpoint::Checkpoints;
use super::delivery_index::{flush_recent, is_early_flush_due, is_flush_due};
use super::group_commit::GroupCommit;
use super::queue::{Next, Receiver, Sender, queue};
use super::tx::{AfterCommit, Inserts, Tx};
use super::writer_cache::WriterCache;
use super::{id_times, peer};
use crate::domain::id::{DeliveryId, EndpointKey, IdSequence};
use crate::domain::time::Timestamp;
use crate::log_limit::LogLimit;
use crate::store::errors::StoreError;
use crate::store::inbox::Nudge;
use crate::store::shared::Shared;
use crate::store::view::View;
use crate::store::write_shares::WriteSize;
use crate::waiting::at_most;

/// Writes that may wait.
const QUEUE: usize = 4_096;

/// How often an idle writer looks whether another process has written.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// How often it is looked for leases that memory does not hold.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// How long a call waits for a permit of the writer's queue.
pub(super) const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

trait Write: Send {
    /// Whether it touches endpoints and accounts through the cache alone, and refuses before it has written anything.
    fn is_hot(&self) -> bool;
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError>;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Task<T, F> {
    run: Option<F>,
    hot: bool,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
    _permit: OwnedSemaphorePermit,
}

impl<T: Send, F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send> Write for Task<T, F> {
    fn is_hot(&self) -> bool {
        self.hot
    }

    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let run = self.run.take().ok_or_else(|| StoreError::Unavailable("a write ran twice".into()))?;
        let result = run(tx);
        let outcome = result.as_ref().map(|_| ()).map_err(Clone::clone);
        self.result = Some(result);
        outcome
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { result, reply, .. } = *self;
        let answer = match (committed, result) {
            // What a write was refused for is its own, whatever became of the others.
            (_, Some(Err(own))) => Err(own),
            (Err(error), _) => Err(error),
            (Ok(()), Some(Ok(value))) => Ok(value),
            (Ok(()), None) => Err(StoreError::Unavailable("the write was interrupted".into())),
        };
        // A caller that has gone away no longer wants to know.
        let _ = reply.send(answer);
    }
}

/// Makes deliveries due again whose leases memory does not hold.
struct FreeLost(Vec<DeliveryId>);

impl Write for FreeLost {
    fn is_hot(&self) -> bool {
        false
    }

    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        super::leases::free_lost(tx, &self.0)
    }

    fn answer(self: Box<Self>, _: Result<(), StoreError>) {
        // Nobody asked; what is still lost is found again.
    }
}

/// The way into the writer. Clones share it; the thread ends with the last of them.
#[derive(Clone)]
pub(super) struct Handle {
    queue: Arc<Sender<Box<dyn Write>>>,
    permits: Arc<Semaphore>,
    /// A permit of the queue that no other write takes.
    ping: Arc<Semaphore>,
    /// Closed when the thread has ended.
    running: watch::Receiver<()>,
}

impl Handle {
    /// Resolves when the thread has ended although there are handles: it has panicked.
    pub async fn ended(&self) {
        let mut running = self.running.clone();
        while running.changed().await.is_ok() {}
    }

    /// Writes that are not committed yet, [`QUEUE`] at most.
    pub fn waiting(&self) -> usize {
        QUEUE - self.permits.available_permits().min(QUEUE)
    }

    /// Runs `run` inside the next transaction and answers after its commit.
    pub async fn write<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.enqueue(&self.permits, false, run).await
    }

    /// The same for the hot path: for writes that touch endpoints and accounts through the cache alone, and that refuse
    /// before they have written anything. One that fails later takes the whole transaction with it.
    pub async fn write_hot<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.enqueue(&self.permits, true, run).await
    }

    /// Waits for a commit, with a permit of the queue for this alone.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.enqueue(&self.ping, true, |_| Ok(())).await
    }

    async fn enqueue<T: Send + 'static>(
        &self,
        permits: &Arc<Semaphore>,
        hot: bool,
        run: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let closed = || StoreError::Unavailable("the store is closed".into());
        let permit = at_most(QUEUE_TIMEOUT, permits.clone().acquire_owned())
            .await
            .map_err(|_| StoreError::Unavailable("too many writes are waiting".into()))?
            .map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let task = Task { run: Some(run), hot, result: None, reply, _permit: permit };
        // The permits are the bound of the queue, and one more for the question whether it answers.
        self.queue.send(Box::new(task)).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

/// Starts the writer on its connection.
pub(super) fn start(
    db: Connection,
    path: &Path,
    shared: Arc<Shared>,
    view: View,
    lease: i64,
    lock: Option<std::fs::File>,
) -> Result<Handle, StoreError> {
    // Before all that is read: what another process writes meanwhile is noticed.
    let data_version = data_version(&db)?;
    let mut cache = WriterCache::new(view);
    cache.reload(&db, &shared)?;
    let ids = IdSequence::after(last_id(&db)?, id_times::read(&db)?);
    let checkpoints = Checkpoints::start(path)?;
    let (queue, writes) = queue();
    let path = path.to_owned();
    let (alive, running) = watch::channel(());
    let (listed, swept) = (Instant::now(), Instant::now());
    let (stale, judged_ahead) = (false, Duration::ZERO);
    let thread = Writer {
        path,
        db,
        cache,
        shared,
        ids,
        judged_ahead,
        lease,
        lock,
        data_version,
        stale,
        listed,
        swept,
        checkpoints,
    };
    std::thread::Builder::new()
        .name("store-writer".into())
        .spawn(move || {
            let _alive = alive;
            thread.run(&writes);
        })
        .map_err(|e| StoreError::Unavailable(e.to_string()))?;
    let permits = Arc::new(Semaphore::new(QUEUE));
    Ok(Handle { queue: Arc::new(queue), permits, ping: Arc::new(Semaphore::new(1)), running })
}

struct Writer {
    path: PathBuf,
    db: Connection,
    cache: WriterCache,
    shared: Arc<Shared>,
    ids: IdSequence,
    /// By how much the greatest id was ahead of the clock when it was last judged why.
    judged_ahead: Duration,
    lease: i64,
    /// Locked while a server has the file.
    lock: Option<std::fs::File>,
    data_version: i64,
    /// Whether the cache may differ from what is committed: a transaction is under way, or has failed.
    stale: bool,
    /// When what was recent was last listed.
    listed: Instant,
    /// When it was last looked for lost leases.
    swept: Instant,
    checkpoints: Checkpoints,
}

/// Changes when another connection has committed, and never by our own commits.
fn data_version(db: &Connection) -> rusqlite::Result<i64> {
    db.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

/// The greatest id in use, or once in use: events and deliveries share one sequence, and what is listed is never above
/// what comes.
pub(super) fn last_id(db: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT MAX((SELECT IFNULL(MAX(id), 0) FROM events), (SELECT IFNULL(MAX(id), 0) FROM deliveries), value) \
               FROM settings WHERE name = 'listed_to'";
    db.query_row(sql, [], |row| row.get(0))
}

impl Writer {
    fn run(mut self, writes: &Receiver<Box<dyn Write>>) {
        let mut commits = GroupCommit::new(Instant::now());
        loop {
            match writes.next(&mut commits, WATCH_INTERVAL) {
                Next::Run(batch) => {
                    self.commit(batch);
                    commits.ends(Instant::now());
                }
                Next::Idle => {
                    if let Err(error) = self.reload_if_changed() {
                        tracing::error!(%error, "the database could not be watched");
                    }
                    if self.shared.inbox.is_some() && is_flush_due(self.cache.recent(), self.listed.elapsed()) {
                        self.commit(Vec::new());
                    }
                }
                Next::Closed => return,
            }
            if self.swept.elapsed() >= SWEEP_INTERVAL {
                self.sweep();
            }
        }
    }

    /// Reads everything again when another process has written, or when a transaction of ours has failed.
    fn reload_if_changed(&mut self) -> Result<(), StoreError> {
        let version = data_version(&self.db)?;
        if version == self.data_version && !self.stale {
            return Ok(());
        }
        // The command line may have rotated the master key: nothing is sealed with the old one from here on.
        self.shared.reload_keyring();
        self.cache.reload(&self.db, &self.shared)?;
        self.ids = IdSequence::after(last_id(&self.db)?, id_times::read(&self.db)?);
        self.judged_ahead = Duration::ZERO;
        let generation = peer::generation(&self.db)?;
        self.data_version = version;
        self.stale = false;
        if let Some(lock) = &self.lock {
            peer::acknowledge(lock, generation);
        }
        if let Some(inbox) = &self.shared.inbox {
            inbox.send(Nudge::Rescan);
        }
        Ok(())
    }

    /// Frees what is leased to this process and is not in its memory: a safety net, should a write ever have come to
    /// something of which its caller was told nothing.
    fn sweep(&mut self) {
        self.swept = Instant::now();
        let Some(inbox) = &self.shared.inbox else { return };
        match super::leases::lost_leases(&self.db, self.lease, inbox) {
            Ok(lost) if lost.is_empty() => {}
            Ok(lost) => self.commit(vec![Box::new(FreeLost(lost))]),
            Err(error) => tracing::warn!(%error, "it could not be looked for lost leases"),
        }
    }

    /// Runs a batch in as many transactions as it needs.
    fn commit(&mut self, batch: Vec<Box<dyn Write>>) {
        let mut waiting = batch.into_iter();
        loop {
            self.commit_some(&mut waiting);
            if waiting.len() == 0 {
                return;
            }
        }
    }

    /// Runs the first of the writes in one transaction, and answers them.
    fn commit_some(&mut self, waiting: &mut std::vec::IntoIter<Box<dyn Write>>) {
        let (mut after, mut batch) = (AfterCommit::default(), Vec::with_capacity(waiting.len()));
        let mut size = WriteSize::default();
        let committed = self.transact(waiting, &mut batch, &mut after, &mut size);
        if let Err(error) = &committed {
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(suppressed) = LIMIT.admit() {
                tracing::error!(%error, writes = batch.len(), suppressed, "a transaction was rolled back");
            }
            after.rewind((0, 0));
            if !self.db.is_autocommit() {
                let _ = self.db.execute_batch("ROLLBACK");
            }
        } else {
            self.cache.publish(self.shared.inbox.as_ref());
        }
        // The error of one write is not that of the others, which may come again.
        let committed =
            committed.map_err(|error| StoreError::Unavailable(format!("the transaction was rolled back: {error}")));
        for write in batch {
            write.answer(committed.clone());
        }
        if let Some(inbox) = &self.shared.inbox {
            if !after.jobs.is_empty() {
                inbox.send(Nudge::Jobs(after.jobs));
            }
            let mut due: BTreeMap<EndpointKey, Timestamp> = BTreeMap::new();
            for (endpoint, at) in after.due {
                due.entry(endpoint).and_modify(|earliest| *earliest = at.min(*earliest)).or_insert(at);
            }
            for (endpoint, at) in due {
                inbox.send(Nudge::Due(endpoint, at));
            }
        }
        self.checkpoints.wrote(&self.db, size.bytes);
    }

    /// Begins a transaction, with a cache that shows what is committed.
    fn begin(&mut self) -> Result<(), StoreError> {
        self.db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        // Inside the lock nobody else can write any more: what is read now is the truth of this transaction.
        self.reload_if_changed()?;
        self.stale = true;
        self.judge_clock()
    }

    /// Sets the times of ids right where the greatest one is ahead of the clock: once each time that the clock is set
    /// back.
    fn judge_clock(&mut self) -> Result<(), StoreError> {
        let (now, last) = (self.shared.clock.now(), self.ids.last());
        let ahead = self.ids.times().ahead(last, now);
        if ahead <= self.judged_ahead + id_times::TOLERANCE {
            self.judged_ahead = self.judged_ahead.min(ahead);
            return Ok(());
        }
        self.judged_ahead = ahead;
        if let Some(times) = id_times::set_right(&self.db, &self.ids, now)? {
            self.ids = IdSequence::after(last, times);
            self.judged_ahead = Duration::ZERO;
        }
        Ok(())
    }

    /// Takes writes until the transaction is full, and commits. Those that it has taken are in `batch`, in any case.
    fn transact(
        &mut self,
        waiting: &mut impl Iterator<Item = Box<dyn Write>>,
        batch: &mut Vec<Box<dyn Write>>,
        after: &mut AfterCommit,
        size: &mut WriteSize,
    ) -> Result<(), StoreError> {
        if let Err(error) = self.begin() {
            // Whoever holds the lock holds up the others as well.
            batch.extend(waiting);
            return Err(error);
        }
        batch.extend(waiting.next());
        let mut next = 0;
        let mut tx = Tx {
            db: &self.db,
            inserts: Inserts::prepare(&self.db)?,
            cache: &mut self.cache,
            shared: &self.shared,
            ids: &mut self.ids,
            now: self.shared.clock.now(),
            lease: self.lease,
            after,
            size,
        };
        while let Some(write) = batch.get_mut(next) {
            next += 1;
            run_one(&mut tx, write.as_mut())?;
            if !tx.is_full() {
                batch.extend(waiting.next());
            }
        }
        tx.cache.write_counters(tx.db)?;
        if is_early_flush_due(tx.cache.recent(), self.listed.elapsed()) {
            // If it fails, it is tried again no sooner.
            self.listed = Instant::now();
            flush_recent(&mut tx)?;
        }
        let generation = match self.shared.inbox {
            Some(_) => None,
            None => Some(peer::next_generation(&self.db)?),
        };
        self.db.prepare_cached("COMMIT")?.execute([])?;
        self.stale = false;
        if let Some(generation) = generation {
            peer::wait_until_seen(&self.path, generation);
        }
        Ok(())
    }
}

/// Runs one write in the transaction of its batch. If the write is refused, what it has done is taken back. An error of
/// this function ends the whole transaction.
fn run_one(tx: &mut Tx<'_>, write: &mut dyn Write) -> Result<(), StoreError> {
    let hot = write.is_hot();
    // A savepoint keeps a copy of every page that is changed after it.
    if !hot {
        tx.cache.write_counters(tx.db)?;
        tx.db.prepare_cached("SAVEPOINT one")?.execute([])?;
    }
    let (mark, changes, listed_to) = (tx.after.mark(), tx.db.total_changes(), tx.cache.listed_to());
    let guarded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| write.apply(tx)));
    let result = guarded.unwrap_or_else(|_| Err(StoreError::Corrupt("a write panicked".into())));
    match result {
        Err(error) if hot && tx.db.total_changes() != changes => return Err(error),
        // SQLite rolls a transaction back by itself where a statement finds no room or no memory
        // (sqlite.org/lang_transaction.html, section 3). What came after it would be committed alone.
        Err(error) if tx.db.is_autocommit() => return Err(error),
        Err(_) => {
            tx.after.rewind(mark);
            tx.cache.forget_touched();
            if !hot {
                tx.db.prepare_cached("ROLLBACK TO one")?.execute([])?;
                if tx.cache.listed_to() != listed_to {
                    tx.cache.read_recent(tx.db)?;
                }
            }
        }
        Ok(()) => tx.cache.refresh_touched(tx.db, tx.shared)?,
    }
    debug_assert!(!tx.db.is_autocommit(), "every write of the batch is in its transaction");
    if !hot {
        tx.db.prepare_cached("RELEASE one")?.execute([])?;
    }
    Ok(())
}

//! Connections that read: what a read may hold up, how long it may take, and how it ends when its caller has gone.
//!
//! Each kind of read has connections of its own, so that a slow kind never holds up another one. Within a kind the
//! accounts share the connections (`store/fair_slots.rs`). Every read has a deadline, at which SQLite ends it; it ends
//! sooner when nobody waits for it any more.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::domain::id::AccountId;
use crate::lock::Mutex;
use crate::store::errors::StoreError;
use crate::store::fair_slots::{Bounds, FairSlots, READ_PATIENCE};
use crate::store::values::SEARCH_TIMEOUT;

/// Instructions of SQLite's machine after which a read looks whether it has to end: about half a millisecond.
const CHECKED_INSTRUCTIONS: i32 = 10_000;

/// Connections for reads by key, each of which takes microseconds, and on which every call of a kind depends: sessions,
/// links, stored replies.
const SHORT_READERS: (usize, usize) = (3, 2);

/// Connections for pages of lists, single resources and charts; and how many of them one account may use.
const LIST_READERS: (usize, usize) = (4, 2);

/// The same for searches, which may read every row of an account.
const SEARCH_READERS: (usize, usize) = (4, 2);

/// Connections for the engine and the housekeeping.
const BACKGROUND_READERS: (usize, usize) = (3, 3);

/// Longest read of the engine or the housekeeping, and longest wait for a connection. Some look through a whole index,
/// and no caller waits for them.
pub(super) const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(30);

/// The connections of each kind. Clones share them.
#[derive(Clone)]
pub(super) struct Readers {
    pub short: Lane,
    pub lists: Lane,
    pub searches: Lane,
    pub background: Lane,
    /// For the question whether the database answers, which depends on no other read.
    pub ping: Lane,
}

impl Readers {
    pub fn new(path: &Path) -> Self {
        let path: Arc<Path> = path.into();
        let lane = |readers| Lane::new(&path, readers, SEARCH_TIMEOUT, READ_PATIENCE);
        Self {
            short: lane(SHORT_READERS),
            lists: lane(LIST_READERS),
            searches: lane(SEARCH_READERS),
            background: Lane::new(&path, BACKGROUND_READERS, BACKGROUND_TIMEOUT, BACKGROUND_TIMEOUT),
            ping: lane((1, 1)),
        }
    }

    /// Reads of callers that wait for a connection.
    pub fn waiting(&self) -> usize {
        self.of_callers().map(|lane| lane.slots.waiting()).sum()
    }

    /// Reads of callers that are under way.
    pub fn in_use(&self) -> usize {
        self.of_callers().map(|lane| lane.slots.in_use()).sum()
    }

    fn of_callers(&self) -> impl Iterator<Item = &Lane> {
        [&self.short, &self.lists, &self.searches].into_iter()
    }
}

/// Connections of one kind: opened when first needed, as many as there are slots.
#[derive(Clone)]
pub(super) struct Lane {
    path: Arc<Path>,
    timeout: Duration,
    slots: FairSlots<Option<AccountId>>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Lane {
    fn new(path: &Arc<Path>, readers: (usize, usize), timeout: Duration, patience: Duration) -> Self {
        let bounds = Bounds::of_reads(readers, patience);
        Self { path: path.clone(), timeout, slots: FairSlots::new(bounds), idle: Arc::default() }
    }

    /// Runs a read on a connection, away from the async threads. The connection is taken until the read has really
    /// ended, which is soon after the caller has gone.
    pub async fn read<T: Send + 'static>(
        &self,
        owner: Option<AccountId>,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read_within(self.timeout, owner, query).await
    }

    pub async fn read_within<T: Send + 'static>(
        &self,
        limit: Duration,
        owner: Option<AccountId>,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let slot = self.slots.acquire(owner).await.map_err(|_| StoreError::Busy)?;
        let (lane, caller) = (self.clone(), Caller::default());
        let gone = caller.0.clone();
        tokio::task::spawn_blocking(move || {
            let answer = lane.run(limit, gone, query);
            drop(slot);
            answer
        })
        .await
        .map_err(|_| StoreError::Unavailable("a read was interrupted".into()))?
    }

    fn run<T>(
        &self,
        limit: Duration,
        gone: Arc<AtomicBool>,
        query: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if gone.load(Ordering::Relaxed) {
            return Err(StoreError::Busy);
        }
        let taken = self.idle.lock().pop();
        let mut connection = match taken {
            Some(connection) => connection,
            None => super::connection::reader(&self.path)?,
        };
        let answer = within(limit, gone, &mut connection, query);
        // An open transaction would keep the log from being cut.
        if connection.is_autocommit() {
            self.idle.lock().push(connection);
        }
        answer
    }
}

/// Whoever waits for a read. Dropped, it says that nobody does any more.
#[derive(Default)]
struct Caller(Arc<AtomicBool>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a query, and ends it when it takes longer than `limit`, or its caller has gone.
fn within<T>(
    limit: Duration,
    gone: Arc<AtomicBool>,
    db: &mut Connection,
    query: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let deadline = Instant::now() + limit;
    let ends = move || gone.load(Ordering::Relaxed) || Instant::now() >= deadline;
    db.progress_handler(CHECKED_INSTRUCTIONS, Some(ends))?;
    let answer = query(db);
    db.progress_handler(0, None::<fn() -> bool>)?;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDLESS: &str = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT COUNT(*) FROM n";

    fn number(db: &Connection, sql: &str) -> Result<i64, StoreError> {
        Ok(db.query_row(sql, [], |row| row.get(0))?)
    }

    fn lane(folder: &Path, timeout: Duration) -> Lane {
        let path: Arc<Path> = folder.join("aldaba.db").into();
        drop(super::super::connection::writer_connection(&path).expect("a file"));
        Lane::new(&path, (2, 1), timeout, READ_PATIENCE)
    }

    #[test]
    fn a_search_without_an_end_is_ended_and_the_connection_reads_on() {
        let mut db = Connection::open_in_memory().expect("opens");
        let gone = Arc::<AtomicBool>::default();
        let ended = within(Duration::from_millis(5), gone, &mut db, |db| number(db, ENDLESS));
        assert!(matches!(ended, Err(StoreError::TooSlow)), "{ended:?}");
        let bounded = format!("{ENDLESS} LIMIT 1").replace("FROM n)", "FROM n WHERE n < 100000)");
        assert_eq!(number(&db, &bounded), Ok(100_000));
    }

    #[tokio::test]
    async fn a_read_whose_caller_has_gone_ends_and_its_connection_reads_on() {
        let folder = tempfile::tempdir().expect("a folder");
        // Only the caller's leaving ends a read here.
        let lane = lane(folder.path(), Duration::from_secs(3_600));
        let endless = tokio::spawn({
            let lane = lane.clone();
            async move { lane.read(None, |db| number(db, ENDLESS)).await }
        });
        let until = |in_use| {
            let lane = &lane;
            let met = async move {
                while lane.slots.in_use() != in_use {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), met)
        };
        until(1).await.expect("it reads");
        endless.abort();
        until(0).await.expect("it has ended");
        assert_eq!(lane.read(None, |db| number(db, "SELECT 1")).await, Ok(1));
    }

    #[tokio::test]
    async fn an_account_whose_reads_do_not_end_leaves_connections_to_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let lane = lane(folder.path(), Duration::from_secs(3_600));
        let (one, other) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
        let mut endless = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let lane = lane.clone();
            endless.spawn(async move { lane.read(Some(AccountId(one)), |db| number(db, ENDLESS)).await });
        }
        let waiting = async {
            while lane.slots.waiting() < 9 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("all but one wait");
        for _ in 0..10 {
            let read = lane.read(Some(AccountId(other)), |db| number(db, "SELECT 1"));
            assert_eq!(tokio::time::timeout(Duration::from_secs(2), read).await.expect("at once"), Ok(1));
        }
    }

    #[tokio::test]
    async fn a_transaction_that_a_deadline_has_ended_leaves_nothing_open() {
        let folder = tempfile::tempdir().expect("a folder");
        let lane = lane(folder.path(), Duration::from_millis(5));
        let ended = lane
            .read(None, |db| {
                let snapshot = db.unchecked_transaction()?;
                number(&snapshot, ENDLESS)
            })
            .await;
        assert!(matches!(ended, Err(StoreError::TooSlow)), "{ended:?}");
        let idle = lane.idle.lock().pop().expect("the connection");
        assert!(idle.is_autocommit());
    }
}

//! The embedded store: one file, one writer thread, a few readers.
//!
//! All writes go through `writer`, which commits many at a time; reads have connections of their own. Where a
//! method lives tells who calls it: `admin`, `endpoints` and `users` the API, `intake` publishing, `dispatch` the engine,
//! `log` and `search` the lists, which `lists` writes and `newest` merges, `counts` the charts, `replay` what is sent again, `maintain` the housekeeping,
//! `checkpoint` SQLite's own log, `id_times` what a wrong clock has made, `export` the move to PostgreSQL, `backlog` the
//! metrics.

mod admin;
mod audit;
mod backlog;
mod book;
mod checkpoint;
mod counts;
mod dispatch;
mod endpoints;
mod export;
#[cfg(test)]
mod faults;
mod group_commit;
mod id_times;
mod intake;
mod lists;
mod log;
mod maintain;
mod memberships;
mod newest;
mod notice;
mod open;
mod peer;
mod queue;
mod replay;
mod search;
mod turn;
mod users;
mod writer;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::inbox::Inbox;
use super::shared::Shared;
use super::view::View;
use super::{KeepScope, KeptAnswer, SEARCH_TIMEOUT, StoreError};
use crate::domain::audit::Origin;
use crate::waiting::at_most;

pub(super) use export::Export;

/// Connections that read.
const READERS: usize = 4;

/// How long a statement waits for another process (the command line beside the server) to finish its write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a database that can serve may take to say so.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a call waits for a reader or for a place in the writer's queue.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// Instructions of SQLite's machine after which a search looks at its time: about half a millisecond.
const CHECKED_INSTRUCTIONS: i32 = 10_000;

/// The embedded store. Clones share it.
#[derive(Clone)]
pub struct Store {
    writer: writer::Handle,
    readers: Readers,
    view: View,
    shared: Arc<Shared>,
    origin: Origin,
}

impl Store {
    /// The same store in somebody's hands.
    #[must_use]
    pub fn acting(&self, origin: Origin) -> Self {
        Self { origin, ..self.clone() }
    }

    /// What attempts and authentication look at: as fresh as the last commit.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Deliveries leased to this process and still in memory.
    pub fn held(&self) -> usize {
        self.shared.inbox.as_ref().map_or(0, Inbox::held)
    }

    /// Resolves when nothing can be written any more, because the writer has panicked.
    pub async fn failed(&self) {
        self.writer.ended().await;
    }

    /// Whether the database answers, reads and writes.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let slow = |_| StoreError::Unavailable("it did not answer in time".into());
        tokio::time::timeout(PING_TIMEOUT, async {
            self.read(|db| Ok(db.query_row("SELECT 1", [], |_| Ok(()))?)).await?;
            self.writer.write_hot(|_| Ok(())).await
        })
        .await
        .map_err(slow)?
    }

    /// The answer kept under an idempotency key.
    pub async fn kept_answer(&self, scope: KeepScope) -> Result<Option<KeptAnswer>, StoreError> {
        self.read(move |db| intake::kept_answer(db, &scope)).await
    }

    /// Runs a read that may look at every row of an account, and ends it after [`SEARCH_TIMEOUT`].
    async fn search<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.with_reader(|db| within(SEARCH_TIMEOUT, db, query)).await
    }

    /// Runs a read on one of the readers' connections, away from the async threads.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.with_reader(|db| query(db)).await
    }

    async fn with_reader<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = self.readers.clone();
        let permit = readers.permit().await?;
        tokio::task::spawn_blocking(move || {
            let taken = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = match taken {
                Some(connection) => connection,
                None => open::reader(&readers.path)?,
            };
            let answer = query(&mut connection);
            readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            drop(permit);
            answer
        })
        .await
        .map_err(|_| StoreError::Unavailable("a read was interrupted".into()))?
    }
}

/// Runs a query, and ends it when it takes longer than `limit`.
fn within<T>(
    limit: Duration,
    db: &mut Connection,
    query: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let deadline = Instant::now() + limit;
    db.progress_handler(CHECKED_INSTRUCTIONS, Some(move || Instant::now() >= deadline))?;
    let answer = query(db);
    db.progress_handler(0, None::<fn() -> bool>)?;
    answer
}

/// The readers' connections: opened when first needed, never more than [`READERS`].
#[derive(Clone)]
struct Readers {
    path: Arc<std::path::Path>,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
    /// Reads that wait for a permit.
    waiting: Arc<AtomicUsize>,
}

/// A read that waits for a connection. It is counted until it has one, or its caller gives up.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Readers {
    fn new(path: &std::path::Path) -> Self {
        let permits = Arc::new(Semaphore::new(READERS));
        Self { path: path.into(), permits, idle: Arc::default(), waiting: Arc::default() }
    }

    /// Waits until a connection is free, counted meanwhile.
    async fn permit(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let _waiting = Waiting::new(&self.waiting);
        at_most(QUEUE_TIMEOUT, self.permits.clone().acquire_owned())
            .await
            .map_err(|_| StoreError::Unavailable("too many reads are waiting".into()))?
            .map_err(|_| StoreError::Unavailable("the store is closed".into()))
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match error {
            E::QueryReturnedNoRows => Self::NotFound,
            // Only `within` interrupts.
            E::SqliteFailure(code, _) if code.code == rusqlite::ErrorCode::OperationInterrupted => Self::TooSlow,
            E::FromSqlConversionFailure(..) | E::IntegralValueOutOfRange(..) | E::InvalidColumnType(..) => {
                Self::Corrupt(error.to_string())
            }
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// Reads a column through `parse`; what it refuses is named as corrupt.
fn parsed<T, C: rusqlite::types::FromSql>(
    row: &rusqlite::Row<'_>,
    column: &str,
    parse: impl FnOnce(C) -> Option<T>,
) -> rusqlite::Result<T> {
    let index = row.as_ref().column_index(column)?;
    let kind = row.get_ref(index)?.data_type();
    parse(row.get(index)?).ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(index, kind, format!("{column} holds an impossible value").into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_are_counted_while_they_wait_for_a_connection() {
        let folder = tempfile::tempdir().expect("a folder");
        let readers = Readers::new(&folder.path().join("aldaba.db"));
        let mut permits = Vec::new();
        for _ in 0..READERS {
            permits.push(readers.permit().await.expect("a free connection"));
        }
        assert_eq!(readers.waiting(), 0);
        let wait = |readers: Readers| tokio::spawn(async move { readers.permit().await.map(drop) });
        let (patient, impatient) = (wait(readers.clone()), wait(readers.clone()));
        let both = async {
            while readers.waiting() < 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), both).await.expect("both are counted");
        impatient.abort();
        assert!(impatient.await.is_err_and(|error| error.is_cancelled()));
        assert_eq!(readers.waiting(), 1, "a caller that gives up no longer waits");
        drop(permits);
        patient.await.expect("no panic").expect("a connection");
        assert_eq!(readers.waiting(), 0);
    }

    #[test]
    fn a_search_without_an_end_is_ended_and_the_connection_reads_on() {
        let mut db = Connection::open_in_memory().expect("opens");
        let endless = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT COUNT(*) FROM n";
        let number = |db: &Connection, sql: &str| Ok(db.query_row(sql, [], |row| row.get::<_, i64>(0))?);
        let ended = within(Duration::from_millis(5), &mut db, |db| number(db, endless));
        assert!(matches!(ended, Err(StoreError::TooSlow)), "{ended:?}");
        let bounded = format!("{endless} LIMIT 1").replace("FROM n)", "FROM n WHERE n < 100000)");
        assert_eq!(number(&db, &bounded), Ok(100_000));
    }
}

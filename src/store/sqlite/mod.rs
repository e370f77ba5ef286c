//! The embedded store: one file, one writer thread, a few readers.
//!
//! All writes go through `writer`, which commits many at a time; reads have connections of their own (`readers`). Where a
//! method lives tells who calls it: `admin`, `endpoints` and `users` the API, `intake` publishing, `dispatch` the engine,
//! `log` and `search` the lists, which `lists` writes and `newest` merges, `counts` the charts, `replay` what is sent again, `maintain` the housekeeping, `calls` idempotency keys,
//! `checkpoint` SQLite's own log, `id_times` what a wrong clock has made, `export` the move to PostgreSQL, `backlog` the
//! metrics.

mod admin;
mod audit;
mod backlog;
mod book;
mod calls;
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
mod portal;
mod queue;
mod readers;
mod replay;
mod search;
mod turn;
mod users;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::keys::KeySource;
use super::shared::Shared;
use super::view::View;
use super::{Health, Lifecycle, OpenError, Snapshot, StoreError, Target};
use crate::clock::Clock;
use crate::domain::audit::Origin;
use crate::domain::id::EndpointKey;
use crate::domain::secret::Keyring;

pub(super) use export::Export;

/// How long a statement waits for another process (the command line beside the server) to finish its write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a call waits for a place in the writer's queue.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// The embedded store. Clones share it.
#[derive(Clone)]
pub struct Store {
    writer: writer::Handle,
    readers: readers::Readers,
    view: View,
    shared: Arc<Shared>,
    origin: Origin,
}

impl Health for Store {
    async fn ping(&self) -> Result<(), StoreError> {
        let asked = async {
            self.ping_reader().await?;
            self.writer.ping().await
        };
        self.shared.pings.ask(asked).await
    }

    async fn failed(&self) {
        self.writer.ended().await;
    }
}

impl Snapshot for Store {
    fn view(&self) -> &View {
        &self.view
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        // Differs by necessity: the writer shows what it commits, in this and the next two methods.
        Ok(())
    }

    async fn refresh_stale(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn target(&self, endpoint: EndpointKey) -> Result<Option<Arc<Target>>, StoreError> {
        Ok(self.view.target(endpoint))
    }

    fn holds(&self, _: i64) -> bool {
        // Differs by necessity: there is no other process to take a lease over.
        true
    }

    fn keyring(&self) -> Arc<Keyring> {
        self.shared.keyring()
    }
}

impl Lifecycle for Store {
    async fn close(&self) -> Result<(), StoreError> {
        // Differs by necessity: the next start voids the leases.
        Ok(())
    }

    async fn rekey(&self) -> Result<u64, OpenError> {
        let source = &self.shared.key_source;
        source.rotate_file(Some(zeroize::Zeroizing::new(self.shared.random.array())))?;
        let resealed = self.reseal_secrets().await.map_err(|e| OpenError(format!("cannot rekey: {e}")))?;
        source.rotate_file(None)?;
        Ok(resealed)
    }

    async fn import(
        &self,
        _: &Path,
        _: &KeySource,
        _: &dyn Clock,
        _: impl FnMut(&str, usize) + Send,
    ) -> Result<usize, OpenError> {
        Err(OpenError("cannot import: database_url must be a PostgreSQL database".into()))
    }
}

impl Store {
    /// The same store in somebody's hands.
    #[must_use]
    pub fn acting(&self, origin: Origin) -> Self {
        Self { origin, ..self.clone() }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match error {
            E::QueryReturnedNoRows => Self::NotFound,
            // Only what `readers` has ended is interrupted.
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

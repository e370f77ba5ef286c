//! The embedded store: one file, one writer thread, a few readers.
//!
//! All writes go through `writer`, which commits many at a time; reads have connections of their own (`readers`). Where a
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
mod portal;
mod queue;
mod readers;
mod replay;
mod search;
mod turn;
mod users;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use super::inbox::Inbox;
use super::shared::Shared;
use super::view::View;
use super::{Health, KeepScope, KeptAnswer, StoreError};
use crate::domain::audit::Origin;

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

    /// The answer kept under an idempotency key.
    pub async fn kept_answer(&self, scope: KeepScope) -> Result<Option<KeptAnswer>, StoreError> {
        self.read_short(scope.account, move |db| intake::kept_answer(db, &scope)).await
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

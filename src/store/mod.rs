//! Everything that is kept: the only floor that knows SQL.
//!
//! [`Store`] is one of two: `sqlite/`, embedded, or `postgres/`, which many nodes share. `values` goes in and out, `view` is
//! what was last committed, `inbox` is the way to the engine. What is decided, `domain` decides; what is sent, the engine
//! sends. A method says here what it promises, whichever store it is; `tests/it/` holds both to it.

/// The same method of whichever store it is; over a network it has an end in any case.
macro_rules! on {
    ($store:expr, $($call:tt)+) => {
        match &$store.0 {
            Which::Sqlite(store) => store.$($call)+.await,
            Which::Postgres(store) => match store.check_admitted() {
                Ok(()) => postgres::in_time(store.$($call)+).await,
                Err(error) => Err(error),
            },
        }
    };
}

mod compatible;
mod contract;
mod fair_slots;
pub mod inbox;
mod intake_shares;
pub mod keys;
mod notice;
mod open;
mod people;
mod pings;
mod postgres;
mod shared;
mod sqlite;
mod values;
mod view;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::clock::Clock;
use crate::domain::account::{Account, AccountChange, ApiKey};
use crate::domain::audit::{AuditEntry, AuditFilter, Origin};
use crate::domain::delivery::{Delivery, DeliveryDetail};
use crate::domain::endpoint::{Endpoint, EndpointChange};
use crate::domain::event::{Event, EventType, NewEvent};
use crate::domain::filter::DeliveryFilter;
use crate::domain::id::{AccountId, ApiKeyId, DeliveryId, EndpointId, EndpointKey, EventId, ReplayId};
use crate::domain::permission::Permissions;
use crate::domain::replay::{NewReplay, Replay};
use crate::domain::retention::Retention;
use crate::domain::time::Timestamp;
use inbox::Leased;
use keys::KeySource;

pub use contract::{
    Accounts, AuditLog, Catalog, Dispatch, Endpoints, Health, Housekeeping, Intake, Log, Memberships, PortalLinks,
    ReplayWork, Replays, Search, SignIn, Statistics, Users,
};
pub use open::{Database, PostgresUrl};
pub use values::*;
pub use view::{EventTypes, View};

/// Where everything is kept. Clones share it.
#[derive(Clone)]
pub struct Store(Which);

#[derive(Clone)]
enum Which {
    Sqlite(sqlite::Store),
    Postgres(postgres::Store),
}

impl Store {
    /// Opens the database, brings it to this program's version and starts what works on it.
    pub async fn open(options: OpenOptions) -> Result<Self, OpenError> {
        match options.database.clone() {
            Database::Sqlite(path) => sqlite::Store::open(&path, options).map(|store| Self(Which::Sqlite(store))),
            Database::Postgres(url) => {
                postgres::Store::open(url, options).await.map(|store| Self(Which::Postgres(store)))
            }
        }
    }

    /// The same store in somebody's hands: the audit log says of changes that are made through it that they made them.
    #[must_use]
    pub fn acting(&self, origin: Origin) -> Self {
        Self(match &self.0 {
            Which::Sqlite(store) => Which::Sqlite(store.acting(origin)),
            Which::Postgres(store) => Which::Postgres(store.acting(origin)),
        })
    }

    /// What was last committed, as far as this process knows.
    pub fn view(&self) -> &View {
        match &self.0 {
            Which::Sqlite(store) => store.view(),
            Which::Postgres(store) => store.view(),
        }
    }

    /// Makes sure that [`Store::view`] shows everything that was committed before this call.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        match &self.0 {
            Which::Sqlite(_) => Ok(()),
            Which::Postgres(store) => postgres::in_time(store.refresh()).await,
        }
    }

    /// Makes sure that [`Store::view`] is not older than a revoked key may live: a second.
    pub async fn refresh_stale(&self) -> Result<(), StoreError> {
        match &self.0 {
            Which::Postgres(store) if store.is_stale() => postgres::in_time(store.refresh()).await,
            _ => Ok(()),
        }
    }

    /// The endpoint's row as it is now, for an attempt that begins now; `None` when it is deleted.
    pub async fn target(&self, endpoint: EndpointKey) -> Result<Option<Arc<Target>>, StoreError> {
        match &self.0 {
            Which::Sqlite(store) => Ok(store.view().target(endpoint)),
            Which::Postgres(store) => postgres::in_time(store.target(endpoint)).await,
        }
    }

    /// Whether what is in memory under this lease may be sent.
    pub fn holds(&self, lease: i64) -> bool {
        match &self.0 {
            Which::Sqlite(_) => true,
            Which::Postgres(store) => store.holds(lease),
        }
    }

    /// Deliveries leased to this process and still in memory.
    pub fn held(&self) -> usize {
        match &self.0 {
            Which::Sqlite(store) => store.held(),
            Which::Postgres(store) => store.held(),
        }
    }

    /// Processes that deliver from this database, as far as this one knows.
    pub fn nodes(&self) -> usize {
        match &self.0 {
            Which::Sqlite(_) => 1,
            Which::Postgres(store) => store.nodes(),
        }
    }

    /// What waits for the database now, and how old the view is. It does not ask the database.
    pub fn database_load(&self) -> DatabaseLoad {
        match &self.0 {
            Which::Sqlite(store) => store.database_load(),
            Which::Postgres(store) => store.database_load(),
        }
    }

    /// Deliveries of active endpoints that are due and wait in the database, of which `most` are counted. It ends after
    /// [`SEARCH_TIMEOUT`].
    pub async fn backlog(&self, most: usize) -> Result<Backlog, StoreError> {
        on!(self, backlog(most))
    }

    /// The answer kept under an idempotency key.
    pub async fn kept_answer(&self, scope: KeepScope) -> Result<Option<KeptAnswer>, StoreError> {
        on!(self, kept_answer(scope))
    }

    /// Keeps the answer of a call that changed nothing.
    pub async fn keep_answer(&self, scope: KeepScope, kept: KeptAnswer) -> Result<(), StoreError> {
        on!(self, keep_answer(scope, kept))
    }

    /// Whose a mark of [`Store::begin_call`] is, drawn anew; `None` where there are no other processes to be told.
    pub fn draw_holder(&self) -> Option<Uuid> {
        match &self.0 {
            Which::Sqlite(_) => None,
            Which::Postgres(store) => Some(store.draw_holder()),
        }
    }

    /// Marks a call with an idempotency key as under way over all nodes; `false` where it is so already. `holder` is this
    /// call's own. The mark is void when its node is gone, and in any case after [`CALL_LIFE`].
    pub async fn begin_call(&self, scope: &KeepScope, holder: Uuid) -> Result<bool, StoreError> {
        match &self.0 {
            Which::Sqlite(_) => Ok(true),
            Which::Postgres(store) => postgres::in_time(store.begin_call(scope, holder)).await,
        }
    }

    /// Calls that [`Store::begin_call`] has marked are answered: their marks go, where these holders have them.
    pub async fn end_calls(&self, calls: &[(KeepScope, Uuid)]) -> Result<(), StoreError> {
        match &self.0 {
            Which::Sqlite(_) => Ok(()),
            Which::Postgres(store) => postgres::in_time(store.end_calls(calls)).await,
        }
    }

    /// Takes calls of a caller's window in a bucket of rate limits, which all nodes share; opens one where none is open.
    pub async fn take_calls(
        &self,
        key: Uuid,
        bucket: &'static str,
        limit: u32,
        length: Duration,
        now: Timestamp,
    ) -> Result<RateWindow, StoreError> {
        match &self.0 {
            // There is no other node.
            Which::Sqlite(_) => Ok(RateWindow { ends_at: now.plus(length), granted: limit }),
            Which::Postgres(store) => postgres::in_time(store.take_calls(key, bucket, limit, length, now)).await,
        }
    }

    /// Gives back what this process has leased, so that others need not wait until it is missed.
    pub async fn close(&self) -> Result<(), StoreError> {
        match &self.0 {
            // The next start voids the leases.
            Which::Sqlite(_) => Ok(()),
            Which::Postgres(store) => postgres::in_time(store.leave()).await,
        }
    }

    /// Rotates the master key: makes a new one where this program keeps it, and seals every secret anew.
    pub async fn rekey(&self) -> Result<u64, OpenError> {
        match &self.0 {
            Which::Sqlite(store) => store.rekey().await,
            Which::Postgres(store) => store.rekey().await,
        }
    }

    /// Moves everything that the SQLite file at `source` holds into this PostgreSQL database, or goes on with it. Returns how
    /// many rows that were. `told` is told of each table and how many of its rows were moved.
    pub async fn import(
        &self,
        source: &Path,
        keys: &KeySource,
        clock: &dyn Clock,
        told: impl FnMut(&str, usize),
    ) -> Result<usize, OpenError> {
        match &self.0 {
            Which::Sqlite(_) => Err(OpenError("cannot import: database_url must be a PostgreSQL database".into())),
            Which::Postgres(store) => store.import(source, keys, clock, told).await,
        }
    }
}

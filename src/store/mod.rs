//! The database: the only folder that knows SQL.
//!
//! [`Store`] is one of two: `sqlite/`, embedded, or `postgres/`, which many nodes share. `contract` declares the
//! methods of both and says what each promises. `values` has their arguments and results, `view` what was last
//! committed, `inbox` the way to the engine. Decisions are in `domain`; the store calls `transition` when it writes
//! outcomes.
//! No file below imports this one: each names the file that defines the item.

mod backup;
mod check;
mod compatible;
mod contract;
mod counted_attempts;
mod credentials;
mod errors;
pub(crate) mod fair_slots;
mod filter_checks;
mod hold;
pub mod inbox;
mod inspection;
mod kept_events;
pub mod keys;
mod memory_shares;
mod migrations;
mod numbers;
mod open;
mod operational_events;
mod people_rows;
mod pings;
mod postgres;
mod postgres_url;
mod replay_job;
mod settings;
mod shared;
mod sqlite;
mod start_permit;
mod status;
mod values;
mod view;
mod write_shares;

use std::path::Path;

use crate::clock::Clock;
use crate::domain::audit::Origin;
use crate::domain::time::Timestamp;
use keys::KeySource;

pub use backup::{BackedUp, DEFAULT_RATE_MIB, NewBackup, NewRestore, Restored};
pub use check::{Checked, Contents, MAX_COUNTED, Problem, Seals};
pub use contract::*;
pub use errors::*;
pub use inspection::{DatabaseTime, Inspection};
pub use kept_events::KeptEvent;
pub use open::{Database, PostgresUrl};
pub use start_permit::{CountedStart, StartPermit};
pub use values::*;
pub use view::{EventTypes, View};

/// Where everything is stored. Clones share it.
pub type Store = AnyStore<sqlite::Store, postgres::Store>;

impl Store {
    /// Opens the database, brings it to this program's version and starts what works on it.
    pub async fn open(options: OpenOptions) -> Result<Self, OpenError> {
        match options.database.clone() {
            Database::Sqlite(path) => sqlite::Store::open(&path, options).map(Self::Sqlite),
            Database::Postgres(url) => postgres::Store::open(url, options).await.map(Self::Postgres),
        }
    }

    /// Looks at a database and changes nothing. `None` where its file is not there yet.
    pub async fn inspect(database: Database, clock: &dyn Clock) -> Result<Option<Inspection>, OpenError> {
        match database {
            Database::Sqlite(path) if !path.exists() => Ok(None),
            Database::Sqlite(path) => {
                let inspected = tokio::task::spawn_blocking(move || sqlite::inspect(&path)).await;
                inspected.map_err(|_| OpenError("the look at the database was interrupted".into()))?.map(Some)
            }
            Database::Postgres(url) => postgres::inspect(url, clock).await.map(Some),
        }
    }

    /// Applies other settings. If their keys do not open the stored secrets, nothing changes.
    pub async fn reload(&self, settings: StoreSettings) -> Result<(), OpenError> {
        match self {
            Self::Sqlite(store) => store.reload(settings).await,
            Self::Postgres(store) => store.reload(settings).await,
        }
    }

    /// Looks through a database, beside a running server too, and changes nothing in it. `keys` are its master keys, of
    /// which none is made. A database of a later program is an error.
    pub async fn check(database: &Database, keys: &KeySource, now: Timestamp) -> Result<Checked, OpenError> {
        match database {
            Database::Sqlite(path) => sqlite::check(path, keys, now),
            Database::Postgres(url) => postgres::check(url.clone(), keys).await,
        }
    }

    /// Copies a file of the embedded store, beside the server that may run on it.
    pub fn back_up(database: &Path, keys: &KeySource, new: &NewBackup, now: Timestamp) -> Result<BackedUp, OpenError> {
        sqlite::back_up(database, keys, new, now)
    }

    /// Puts a backup in the place of a file of the embedded store, while no server runs on it.
    pub fn restore(database: &Path, keys: &KeySource, new: &NewRestore, now: Timestamp) -> Result<Restored, OpenError> {
        sqlite::restore(database, keys, new, now)
    }

    /// The same store, with the actor whom the audit log names for changes that are made through it.
    #[must_use]
    pub fn acting(&self, origin: Origin) -> Self {
        match self {
            Self::Sqlite(store) => Self::Sqlite(store.acting(origin)),
            Self::Postgres(store) => Self::Postgres(store.acting(origin)),
        }
    }
}

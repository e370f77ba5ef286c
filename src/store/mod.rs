//! Everything that is stored: the only part of the program that knows SQL.
//!
//! [`Store`] is one of two: `sqlite/`, embedded, or `postgres/`, which many nodes share. `values` goes in and out,
//! `view` is what was last committed, `inbox` hands deliveries to the engine. What is decided, `domain` decides; what
//! is sent, the engine sends. `contract` declares what both can do, and says what each method promises.

mod compatible;
mod contract;
mod errors;
mod fair_slots;
pub mod inbox;
mod intake_shares;
pub mod keys;
mod numbers;
mod open;
mod operational_events;
mod pings;
mod postgres;
mod postgres_url;
mod settings;
mod shared;
mod sqlite;
mod status;
mod values;
mod view;

use crate::domain::audit::Origin;

pub use contract::*;
pub use errors::*;
pub use open::{Database, PostgresUrl};
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

    /// The same store, with the actor whom the audit log names for changes that are made through it.
    #[must_use]
    pub fn acting(&self, origin: Origin) -> Self {
        match self {
            Self::Sqlite(store) => Self::Sqlite(store.acting(origin)),
            Self::Postgres(store) => Self::Postgres(store.acting(origin)),
        }
    }
}

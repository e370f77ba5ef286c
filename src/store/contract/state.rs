//! The roles for a store's own state: the view, health, figures for operators, and the end of its work.

use std::path::Path;
use std::sync::Arc;

use crate::clock::Clock;
use crate::domain::id::EndpointKey;
use crate::domain::secret::Keyring;
use crate::heavy::HeavyWork;
use crate::store::errors::{OpenError, StoreError};
use crate::store::keys::KeySource;
use crate::store::values::{Backlog, DatabaseLoad, Target};
use crate::store::view::View;

role! {
    /// What is in this process's memory of what the database holds, and whether it is still true.
    pub trait Snapshot {
        /// What was last committed, as far as this process knows.
        fn view(&self) -> &View;

        /// Makes sure that [`Snapshot::view`] shows everything that was committed before this call.
        #[postgres(unchecked)]
        async fn refresh(&self) -> Result<(), StoreError>;

        /// Makes sure that [`Snapshot::view`] is not older than a revoked key may live: a second.
        #[postgres(unchecked, unbounded)]
        async fn refresh_stale(&self) -> Result<(), StoreError>;

        /// The endpoint's row as it is now, for an attempt that begins now; `None` when it is deleted, or cannot be
        /// used as it is stored.
        #[postgres(unchecked)]
        async fn target(&self, endpoint: EndpointKey) -> Result<Option<Arc<Target>>, StoreError>;

        /// Whether what is in memory under this lease may be sent.
        fn is_lease_valid(&self, lease: i64) -> bool;

        /// The master keys: they sign what a browser keeps for this server.
        fn keyring(&self) -> Arc<Keyring>;

        /// The threads for work that may take long, of which the store takes some for checks against filters.
        fn heavy(&self) -> HeavyWork;
    }
}

role! {
    /// Whether the store works.
    pub trait Health {
        /// Whether the database answers, reads and writes.
        async fn ping(&self) -> Result<(), StoreError>;

        /// Resolves when what writes has panicked: nothing can be accepted any more, and the process should end.
        #[postgres(unchecked, unbounded)]
        async fn failed(&self) -> ();
    }
}

role! {
    /// Figures for operators.
    pub trait Figures {
        /// Deliveries leased to this process and still in memory.
        fn in_memory(&self) -> usize;

        /// Processes that deliver from this database, as far as this one knows.
        fn nodes(&self) -> usize;

        /// What waits for the database now, and how old the view is. It does not ask the database.
        fn database_load(&self) -> DatabaseLoad;

        /// Deliveries of active endpoints without a rate limit that are due and wait in the database, of which `most`
        /// are counted. It ends after [`SEARCH_TIMEOUT`](crate::store::SEARCH_TIMEOUT).
        async fn backlog(&self, most: usize) -> Result<Backlog, StoreError>;
    }
}

role! {
    /// The beginning and end of a database, and of a process's work on it.
    pub trait Lifecycle {
        /// Gives back what this process has leased, so that other processes need not wait until they miss it.
        #[postgres(unchecked)]
        async fn close(&self) -> Result<(), StoreError>;

        /// Rotates the master key: makes a new one where this program keeps it, and seals every secret anew.
        #[postgres(unchecked, unbounded)]
        async fn rekey(&self) -> Result<u64, OpenError>;

        /// Moves everything that the SQLite file at `source` holds into this PostgreSQL database, or goes on with an
        /// interrupted move. Returns how many rows were moved. `on_progress` is called with each table and how
        /// many of its rows were moved.
        #[postgres(unchecked, unbounded)]
        async fn import(
            &self,
            source: &Path,
            keys: &KeySource,
            clock: &dyn Clock,
            on_progress: impl FnMut(&str, usize) + Send,
        ) -> Result<usize, OpenError>;
    }
}

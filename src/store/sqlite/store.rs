//! The embedded store's handle: what its clones share, how each kind of read gets a connection, and the roles that ask
//! no table.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::readers::{BACKGROUND_TIMEOUT, Readers};
use super::writer;
use crate::clock::Clock;
use crate::domain::audit::Origin;
use crate::domain::id::{AccountId, EndpointKey};
use crate::domain::secret::Keyring;
use crate::heavy::HeavyWork;
use crate::store::contract::{Health, Lifecycle, Snapshot};
use crate::store::errors::{OpenError, StoreError};
use crate::store::keys::KeySource;
use crate::store::shared::Shared;
use crate::store::values::Target;
use crate::store::view::View;

/// The embedded store. Clones share it.
#[derive(Clone)]
pub struct Store {
    pub(super) writer: writer::Handle,
    pub(super) readers: Readers,
    pub(super) view: View,
    pub(super) shared: Arc<Shared>,
    pub(super) origin: Origin,
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

    fn is_lease_valid(&self, _: i64) -> bool {
        // Differs by necessity: there is no other process to take a lease over.
        true
    }

    fn keyring(&self) -> Arc<Keyring> {
        self.shared.keyring()
    }

    fn heavy(&self) -> HeavyWork {
        self.shared.filter_checks.heavy()
    }
}

impl Lifecycle for Store {
    async fn close(&self) -> Result<(), StoreError> {
        // Differs by necessity: the next start voids the leases.
        Ok(())
    }

    async fn rekey(&self) -> Result<u64, OpenError> {
        let settings = self.shared.settings();
        let source = &settings.keys;
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
    /// The same store, with the actor whom the audit log names.
    #[must_use]
    pub fn acting(&self, origin: Origin) -> Self {
        Self { origin, ..self.clone() }
    }

    /// Runs a read by key that other calls depend on. `owner` is the account that it is made for, if that is known.
    pub(super) async fn read_short<T: Send + 'static>(
        &self,
        owner: Option<AccountId>,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.short.read(owner, query).await.map_err(not_a_search)
    }

    /// Runs a read of a bounded number of rows for an account, or for an operator.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        owner: Option<AccountId>,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.lists.read(owner, query).await.map_err(not_a_search)
    }

    /// Runs a read that may look at every row of an account, and ends it after `SEARCH_TIMEOUT`.
    pub(super) async fn search<T: Send + 'static>(
        &self,
        owner: Option<AccountId>,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.searches.read(owner, query).await
    }

    /// Runs a read of the engine, the housekeeping or the metrics.
    pub(super) async fn read_in_background<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read_in_background_within(BACKGROUND_TIMEOUT, query).await
    }

    /// The same with another deadline.
    pub(super) async fn read_in_background_within<T: Send + 'static>(
        &self,
        limit: Duration,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.background.read_within(limit, None, query).await.map_err(not_a_search)
    }

    /// Whether the file can be read.
    pub(super) async fn ping_reader(&self) -> Result<(), StoreError> {
        let query = |db: &Connection| Ok(db.query_row("SELECT 1", [], |_| Ok(()))?);
        self.readers.ping.read(None, query).await.map_err(not_a_search)
    }
}

/// A read that is no search cannot be narrowed by its caller.
fn not_a_search(error: StoreError) -> StoreError {
    match error {
        StoreError::TooSlow => StoreError::Unavailable("a read took too long".into()),
        other => other,
    }
}

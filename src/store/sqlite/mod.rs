//! The embedded store: one file, one writer thread, a few readers.
//!
//! All writes go through `writer`, which commits many at a time: `queue` and `group_commit` gather them, `tx` is what a
//! write sees, `writer_cache` what the writer knows without asking, `leases` and `delivery_index` what it looks after
//! by itself. Reads have connections of their own (`readers`). `checkpoint` looks after SQLite's own log.
//!
//! The roles of the contract are implemented in `admin`, `audit`, `backlog`, `calls`, `counts`, `dispatch`,
//! `endpoints`, `intake`, `log`, `maintain`, `memberships`, `portal`, `replay`, `search`, `users` and here. What
//! several of them use is in files below them: `catalog_rows` and `columns` read rows, `newest` merges lists,
//! `operational_events` writes operational events, `fifo` is the order of deliveries, `id_times` the times of ids.
//!
//! `open` opens the store (`connection`, `migrate`, `peer`), `export` reads it for its move to PostgreSQL.

mod admin;
mod audit;
mod backlog;
mod calls;
mod catalog_rows;
mod checkpoint;
mod columns;
mod connection;
mod counts;
mod delivery_index;
mod dispatch;
mod endpoints;
pub(super) mod export;
#[cfg(test)]
mod faults;
mod fifo;
mod group_commit;
mod id_times;
mod intake;
mod leases;
mod log;
mod maintain;
mod memberships;
mod migrate;
mod newest;
mod open;
mod operational_events;
mod peer;
mod portal;
mod queue;
mod readers;
mod replay;
mod search;
mod tx;
mod users;
mod writer;
mod writer_cache;

use std::path::Path;
use std::sync::Arc;

use super::keys::KeySource;
use super::shared::Shared;
use super::view::View;
use super::{Health, Lifecycle, OpenError, Snapshot, StoreError, Target};
use crate::clock::Clock;
use crate::domain::audit::Origin;
use crate::domain::id::EndpointKey;
use crate::domain::secret::Keyring;

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

    fn is_lease_valid(&self, _: i64) -> bool {
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
    /// The same store, with the actor whom the audit log names.
    #[must_use]
    pub fn acting(&self, origin: Origin) -> Self {
        Self { origin, ..self.clone() }
    }
}

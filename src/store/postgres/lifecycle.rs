//! The end of a node's work, the rotation of the master key, and the move from SQLite.

use std::path::Path;

use super::import;
use super::store::Store;
use crate::clock::Clock;
use crate::store::contract::Lifecycle;
use crate::store::errors::{OpenError, StoreError};
use crate::store::keys::KeySource;

impl Lifecycle for Store {
    async fn close(&self) -> Result<(), StoreError> {
        // Below the minimum version the node has left already, and writes nothing more.
        if self.node.check_admitted().is_err() {
            return Ok(());
        }
        self.node.leave(&self.pool, &self.shared).await
    }

    async fn rekey(&self) -> Result<u64, OpenError> {
        // Differs by necessity: all nodes have the same key, which their operator has set before.
        self.reseal_secrets().await.map_err(|error| OpenError(format!("cannot rekey: {error}")))
    }

    async fn import(
        &self,
        source: &Path,
        keys: &KeySource,
        clock: &dyn Clock,
        on_progress: impl FnMut(&str, usize) + Send,
    ) -> Result<usize, OpenError> {
        import::import(self, source, keys, clock, on_progress).await
    }
}

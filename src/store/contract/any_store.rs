//! The store that is open: it has every role, and forwards each call.

use crate::store::errors::StoreError;

/// A store of either kind. `role!` implements each role for it.
#[derive(Clone)]
pub enum AnyStore<S, P> {
    /// The embedded store.
    Sqlite(S),
    /// The store that many nodes share.
    Postgres(P),
}

/// What [`AnyStore`] adds to calls of a store that is reached over a network.
pub trait Remote {
    /// Whether the database still admits this program: a migration may have raised the version that it requires.
    fn check_admitted(&self) -> Result<(), StoreError>;

    /// The same call, which ends after a bounded time. Its future is boxed from the beginning, so that futures of
    /// [`AnyStore`] have no room for it where the embedded store is open.
    fn in_time<T>(
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> impl Future<Output = Result<T, StoreError>> + Send;
}

//! The state of a store in this process.

use crate::store::StoreError;

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

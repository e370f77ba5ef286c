//! The role `Holds`: an operator puts all deliveries on hold, and resumes them.

use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;

role! {
    /// The hold of all deliveries, such as after a restore: events are accepted, and nothing is sent except tests of
    /// endpoints. [`View::on_hold_since`](crate::store::View::on_hold_since) shows it.
    pub trait Holds {
        /// Puts all deliveries on hold. When it returns, no process that delivers begins another attempt; attempts in
        /// flight end. Returns since when deliveries are on hold, which may be earlier. While a node of an older
        /// program, which ignores a hold, is alive, it returns [`StoreError::OlderNodes`].
        async fn hold(&self) -> Result<Timestamp, StoreError>;

        /// Resumes deliveries. Returns since when they were on hold; `None` if they were not.
        async fn resume(&self) -> Result<Option<Timestamp>, StoreError>;
    }
}

//! The role `Holds`: an operator holds all deliveries, and lets them go on.

use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;

role! {
    /// The hold of all deliveries, such as after a restore: events are accepted, and nothing is sent but tests of
    /// endpoints. [`View::on_hold_since`](crate::store::View::on_hold_since) shows it.
    pub trait Holds {
        /// Holds all deliveries. When it returns, no process that delivers begins another attempt; attempts in flight
        /// end. Returns since when deliveries are on hold, which may be from before. While a node of a program lives
        /// that knows no hold, it is [`StoreError::OlderNodes`].
        async fn hold(&self) -> Result<Timestamp, StoreError>;

        /// Lets deliveries go on. Returns since when they were on hold; `None` where they were not.
        async fn resume(&self) -> Result<Option<Timestamp>, StoreError>;
    }
}

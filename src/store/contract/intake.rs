//! The role `Intake`: accepts events, and writes the test of an endpoint.

use bytes::Bytes;

use crate::domain::event::{Event, NewEvent};
use crate::domain::id::{AccountId, EndpointId};
use crate::store::errors::StoreError;
use crate::store::inbox::Leased;
use crate::store::values::{PendingReply, Settlement};

role! {
    /// Takes events in.
    pub trait Intake {
        /// Accepts events, all or none. When it returns they are on disk, each with a delivery for every active
        /// endpoint that subscribes to it, and whose channels and filter let it through.
        ///
        /// An unknown account is [`StoreError::NotFound`]; a type that has left the catalog
        /// [`StoreError::UnknownType`]. Where too many slow checks of the account are under way it is
        /// [`StoreError::FiltersBusy`].
        #[postgres(unbounded)]
        async fn accept(
            &self,
            events: Vec<NewEvent>,
            pending_reply: Option<PendingReply<Vec<Event>>>,
        ) -> Result<Vec<Event>, StoreError>;

        /// Writes a test delivery of the endpoint, leased to the caller. `message` is its body.
        async fn open_test(&self, owner: AccountId, id: EndpointId, message: Bytes) -> Result<Leased, StoreError>;

        /// Writes the outcome of a test, and stores the call's reply in the same commit.
        async fn settle_test(
            &self,
            settlement: Settlement,
            pending_reply: Option<PendingReply<()>>,
        ) -> Result<(), StoreError>;
    }
}

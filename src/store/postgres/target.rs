//! An endpoint's row as it is now, for attempts that begin now.
//!
//! A view may be late. All that it shows has one number, that of the last change (`change_feed`): a statement that
//! finds the view's number in the database proves that everything in the view was current when the statement began.
//! Whatever makes a delivery or claims it reads the number beside it, so that no attempt uses a view that is older than
//! its delivery; and one that waited in memory uses no view that is older than [`MAX_AGE_BEFORE_ASKING`]. What was
//! committed before (a rotation, a pause) counts for it, on any node.

use std::sync::Arc;
use std::time::Duration;

use super::store::Store;
use super::time_limit::in_time;
use crate::domain::id::EndpointKey;
use crate::domain::secret::Keyring;
use crate::heavy::HeavyWork;
use crate::store::contract::Snapshot;
use crate::store::errors::StoreError;
use crate::store::values::Target;
use crate::store::view::View;

/// How old the view may be for an attempt that asks for nothing.
const MAX_AGE_BEFORE_ASKING: Duration = Duration::from_millis(10);

/// And for one that has asked, as it may take a while to hear. An attempt may begin 100 ms before its request is
/// written.
const MAX_AGE_AFTER_ASKING: Duration = Duration::from_millis(70);

impl Snapshot for Store {
    fn view(&self) -> &View {
        &self.view
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        self.change_feed.refresh().await
    }

    async fn refresh_stale(&self) -> Result<(), StoreError> {
        if self.change_feed.is_stale() { in_time(self.change_feed.refresh()).await } else { Ok(()) }
    }

    fn is_lease_valid(&self, lease: i64) -> bool {
        // A command that is no node holds nothing, and may send.
        !self.node.has_joined() || self.node.lease() == Some(lease)
    }

    fn keyring(&self) -> Arc<Keyring> {
        self.shared.keyring()
    }

    fn heavy(&self) -> HeavyWork {
        self.shared.filter_checks.heavy()
    }

    async fn target(&self, endpoint: EndpointKey) -> Result<Option<Arc<Target>>, StoreError> {
        // Differs by necessity: a node that has lost its leases gets no endpoint.
        if self.node.has_joined() && self.node.lease().is_none() {
            return Err(StoreError::Unavailable("this node has not been heard of for too long".into()));
        }
        let mut age = MAX_AGE_BEFORE_ASKING;
        while !self.freshness.is_within(age) {
            self.change_feed.refresh().await?;
            age = MAX_AGE_AFTER_ASKING;
        }
        Ok(self.view.target(endpoint))
    }
}

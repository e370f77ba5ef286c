//! Look-ups in the store of what any client may send: sessions, links, invitations, and keys that the view does not
//! have. Whose they are is known afterwards, so networks of clients share them. Which row is looked for, callers say.

use std::net::IpAddr;

use super::error::ApiError;
use super::origin::Network;
use crate::store::StoreError;
use crate::store::fair_slots::{Bounds, FairSlots, READ_PATIENCE};

/// Each look-up takes less than a millisecond, so that few at once serve many clients. On PostgreSQL they use the
/// connections of publishing and of the engine. Behind a proxy that is not trusted all clients are one network: it may
/// wait as long as a page can take.
const BOUNDS: Bounds =
    Bounds { slots: 4, slots_per_owner: 2, waiting: 1_024, waiting_per_owner: 128, patience: READ_PATIENCE };

/// The look-ups that are under way, and those that wait.
pub struct Lookups(FairSlots<Option<Network>>);

impl Default for Lookups {
    fn default() -> Self {
        Self(FairSlots::new(BOUNDS))
    }
}

impl Lookups {
    /// Runs a look-up for a client at this address, in the turn of its network.
    pub async fn run<T>(
        &self,
        from: Option<IpAddr>,
        look_up: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, ApiError> {
        let busy = || ApiError::busy("too many sessions, links or keys of your network are being looked up");
        let _slot = self.0.acquire(from.map(Network::of)).await.map_err(|_| busy())?;
        Ok(look_up.await?)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn a_network_whose_look_ups_hang_waits_for_itself_and_is_refused_beyond_its_share() {
        let lookups = Arc::new(Lookups::default());
        let address = |text: &str| text.parse::<IpAddr>().ok();
        let mut hanging = JoinSet::new();
        for n in 0..200 {
            let lookups = lookups.clone();
            // All of one network.
            let from = address(&format!("2001:db8:7:7::{n:x}"));
            hanging.spawn(async move { lookups.run(from, pending::<Result<(), StoreError>>()).await });
        }
        let refused = hanging.join_next().await.expect("a look-up").expect("no panic").expect_err("beyond its share");
        assert_eq!((refused.status(), &refused.headers[..]), (503, &[("retry-after", "1".to_owned())][..]));
        for other in ["2001:db8:7:8::1", "192.0.2.1", "192.0.2.2"] {
            let found = lookups.run(address(other), ready(Ok(7)));
            let found = tokio::time::timeout(Duration::from_secs(1), found).await.expect("at once");
            assert_eq!(found.ok(), Some(7), "{other}");
        }
    }
}

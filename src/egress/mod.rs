//! The only way out: resolving, checking, connecting, and one signed request at a time.
//!
//! `guard` decides which addresses a name may lead to, `connector` goes to exactly those, `pool` keeps connections
//! that are worth keeping, `attempt` signs and sends. Redirects are never followed.

mod attempt;
mod connector;
mod guard;
mod pool;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::url::{Environment, ReceiverUrl};

pub use attempt::{Row, StoredTarget};
pub use guard::{GuardError, Resolver, SystemResolver};

/// Sends deliveries. Clones share connections.
#[derive(Clone)]
pub struct Egress(Arc<Inner>);

struct Inner {
    connector: connector::Connector,
    pool: pool::Pool,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    headers: attempt::BrandHeaders,
}

impl Egress {
    /// `timeout` bounds a whole attempt, from resolving the name to the last byte that is read.
    pub fn new(
        environment: Environment,
        brand: &str,
        timeout: Duration,
        clock: Arc<dyn Clock>,
        resolver: Arc<dyn Resolver>,
    ) -> Self {
        Self(Arc::new(Inner {
            connector: connector::Connector::new(environment, resolver),
            pool: pool::Pool::default(),
            clock,
            timeout,
            headers: attempt::BrandHeaders::new(brand),
        }))
    }

    /// Whether a receiver's name leads to public addresses only, as every connection to it will check again.
    pub async fn check(&self, url: &ReceiverUrl) -> Result<(), GuardError> {
        let checked = self.0.connector.addresses(url);
        match tokio::time::timeout(self.0.timeout, checked).await {
            Ok(addresses) => addresses.map(|_| ()),
            Err(_) => Err(GuardError::Unresolved { host: url.host.to_string() }),
        }
    }

    /// Closes connections that nobody has used for a while.
    pub fn close_idle(&self) {
        self.0.pool.close_idle();
    }
}

//! The only way out: resolving, checking, connecting, and one signed request at a time.
//!
//! `guard` decides which addresses a name may lead to, `connector` goes to exactly those, `pool` keeps connections
//! that are worth keeping, `attempt` signs and sends within its `deadline`. `lookups` shares the look-ups of names
//! among accounts, `dns` asks the name servers. `fault` tells what this machine lacks from what a receiver does.
//! Redirects are never followed.

mod attempt;
mod connector;
mod deadline;
mod dns;
mod fault;
mod guard;
mod lookups;
mod pool;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::egress_rules::EgressRules;
use crate::domain::id::AccountId;
use crate::domain::url::{Environment, ReceiverUrl};

pub use attempt::{AttemptEnd, Row, StoredTarget};
pub use fault::LocalFault;
pub use guard::{Asker, Begun, GuardError, Lookup, LookupError, Resolver};
pub use lookups::resolver;

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
    /// Receivers may be where `environment` and the operator's rules say. `timeout` bounds a whole attempt, from
    /// resolving the name to the last byte that is read.
    pub fn new(
        (environment, rules): (Environment, EgressRules),
        brand: &str,
        timeout: Duration,
        clock: Arc<dyn Clock>,
        resolver: Arc<dyn Resolver>,
    ) -> Self {
        Self(Arc::new(Inner {
            connector: connector::Connector::new(environment, rules, resolver),
            pool: pool::Pool::default(),
            clock,
            timeout,
            headers: attempt::BrandHeaders::new(brand),
        }))
    }

    /// Whether a receiver's name leads to public addresses only, as every connection to it will check again. The
    /// look-up is of this account's share.
    pub async fn check(&self, account: AccountId, url: &ReceiverUrl) -> Result<(), GuardError> {
        let has_begun = AtomicBool::new(false);
        let begun = || has_begun.store(true, Ordering::Relaxed);
        let addresses = self.0.connector.addresses(url, Asker::Check(account), &begun);
        match tokio::time::timeout(self.0.timeout, addresses).await {
            Ok(addresses) => addresses.map(|_| ()),
            Err(_) if !has_begun.into_inner() => Err(LocalFault::LookupNotMade.into()),
            Err(_) => Err(GuardError::Unresolved { host: url.host.to_string() }),
        }
    }

    /// Closes connections that nobody has used for a while.
    pub fn close_idle(&self) {
        self.0.pool.close_idle();
    }
}

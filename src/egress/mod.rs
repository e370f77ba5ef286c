//! All outbound connections to receivers: resolving, checking, connecting, and sending signed requests.
//!
//! `guard` decides which addresses are allowed, `connector` connects to exactly those, and `pool` keeps connections
//! open. `attempt` signs and sends within its `deadline`, and `interim` bounds what comes before an answer. `start`
//! counts attempts where an endpoint has a rate limit. `lookups` shares look-ups of names among accounts, `dns` asks
//! the name servers. `fault` distinguishes local faults from failures of a receiver. Redirects are never followed.

mod attempt;
mod connector;
mod deadline;
mod dns;
mod fault;
mod guard;
mod interim;
mod lookups;
mod pool;
mod start;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::egress_rules::EgressRules;
use crate::domain::id::AccountId;
use crate::domain::url::{Environment, ReceiverUrl};

pub use attempt::{AttemptEnd, StoredTarget, TargetSource};
pub use fault::LocalFault;
pub use guard::{GuardError, Lookup, LookupError, LookupOwner, OnBegin, Resolver};
pub use start::{COUNT_TRIES, count_start};

/// The resolver that asks these servers; without any, those of the system.
pub fn resolver(servers: Vec<SocketAddr>) -> Arc<dyn Resolver> {
    Arc::new(lookups::Lookups::new(dns::NameServers::new(servers)))
}

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
    /// `environment` and the operator's rules say which receivers are allowed. `timeout` bounds a whole attempt, from
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

    /// Checks that a receiver's name resolves to allowed addresses only. Of a name with very many addresses the first
    /// are used: the others are neither checked nor connected to (`dns`). Each connection checks again. The look-up
    /// counts against the share of this account.
    pub async fn check(&self, account: AccountId, url: &ReceiverUrl) -> Result<(), GuardError> {
        let has_begun = AtomicBool::new(false);
        let on_begin = || has_begun.store(true, Ordering::Relaxed);
        let addresses = self.0.connector.addresses(url, LookupOwner::Check(account), &on_begin);
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

//! All outbound connections to receivers: resolving, checking, connecting, and sending signed requests.
//!
//! `guard` decides which addresses are allowed, `connector` connects to exactly those, by `tcp` or through the
//! operator's `proxy`, and `pool` keeps connections open. `attempt` signs and sends within its `deadline`, `spelling`
//! writes names of headers as their owner did, `interim` bounds what comes before an answer, and `no_answer` says why
//! there is none. `start` counts attempts where an endpoint has a rate limit. `oauth` gets access tokens. `lookups`
//! shares look-ups of names among accounts, `dns` asks the name servers. `fault` distinguishes local faults from
//! failures of a receiver. `tls` has client certificates, and `tls_sessions` makes further handshakes cheap. Redirects
//! are never followed. `fetch` is apart: it reads from the server that an operator names to a command.

mod attempt;
mod connector;
mod deadline;
mod dns;
mod fault;
mod fetch;
mod guard;
mod interim;
mod lookups;
mod no_answer;
mod oauth;
mod pool;
mod proxy;
mod spelling;
mod start;
mod tcp;
mod tls;
mod tls_sessions;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::{Clock, Random};
use crate::domain::authentication::TokenGrant;
use crate::domain::egress_rules::EgressRules;
use crate::domain::id::AccountId;
use crate::domain::network_rules::NetworkRules;
use crate::domain::url::ReceiverUrl;
use crate::lock::RwLock;
use crate::store::View;

pub use attempt::{AttemptEnd, StoredTarget, TargetSource};
pub use connector::Routing;
pub use dns::{ServerAnswer, ask_each};
pub use fault::LocalFault;
pub use fetch::{FetchError, FetchedAnswer, Fetcher};
pub use guard::{GuardError, Lookup, LookupError, LookupOwner, OnBegin, Resolver};
pub use proxy::look_at_proxy;
pub use start::{COUNT_TRIES, count_start};
pub use tcp::check_sources;

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
    tokens: oauth::Tokens,
    clock: Arc<dyn Clock>,
    timeout: RwLock<Duration>,
    headers: attempt::BrandHeaders,
    span_ids: Option<Arc<dyn Random>>,
}

impl Egress {
    /// `timeout` bounds a whole attempt, from resolving the name to the last byte that is read. Each attempt at an
    /// event that has a trace context is a child span, whose id comes from `span_ids`; without `span_ids` no trace
    /// context is sent.
    pub fn new(
        routing: Routing,
        brand: &str,
        timeout: Duration,
        clock: Arc<dyn Clock>,
        resolver: Arc<dyn Resolver>,
        span_ids: Option<Arc<dyn Random>>,
    ) -> Self {
        Self(Arc::new(Inner {
            connector: connector::Connector::new(routing, resolver),
            pool: pool::Pool::default(),
            tokens: oauth::Tokens::default(),
            clock,
            timeout: RwLock::new(timeout),
            headers: attempt::BrandHeaders::new(brand),
            span_ids,
        }))
    }

    /// Applies other rules and another timeout. No request goes over a connection that was made under older rules.
    pub fn reload(&self, rules: EgressRules, timeout: Duration) {
        *self.0.timeout.write() = timeout;
        if self.0.connector.set_rules(rules) {
            self.0.pool.close_all();
        }
    }

    /// The longest time of an attempt to an endpoint without a timeout of its own.
    pub fn timeout(&self) -> Duration {
        *self.0.timeout.read()
    }

    /// Checks that a receiver's name resolves to allowed addresses only. Of a name with very many addresses the first
    /// are used: the others are neither checked nor connected to (`dns`). Each connection checks again. The look-up
    /// counts against the share of this account, for which an operator has set these rules.
    pub async fn check(
        &self,
        account: AccountId,
        networks: Option<&NetworkRules>,
        url: &ReceiverUrl,
    ) -> Result<(), GuardError> {
        let has_begun = AtomicBool::new(false);
        let on_begin = || has_begun.store(true, Ordering::Relaxed);
        let owner = (LookupOwner::Check(account), networks);
        let addresses = self.0.connector.addresses(url, owner, &on_begin);
        match tokio::time::timeout(self.timeout(), addresses).await {
            Ok(addresses) => addresses.map(|_| ()),
            Err(_) if !has_begun.into_inner() => Err(LocalFault::LookupNotMade.into()),
            Err(_) => Err(GuardError::Unresolved { host: url.host.to_string() }),
        }
    }

    /// Closes connections that nobody has used for a while, forgets client certificates in the same way, and drops
    /// access tokens that have expired or that no endpoint uses now.
    pub fn close_idle(&self, view: &View) {
        self.0.pool.close_idle();
        self.0.connector.tls.drop_unused();
        let has_grant = |endpoint, grant: &TokenGrant| {
            view.target(endpoint).is_some_and(|target| target.credentials.grant() == Some(grant))
        };
        self.0.tokens.drop_unused(has_grant);
    }
}

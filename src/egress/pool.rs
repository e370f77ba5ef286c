//! Connections kept open between attempts to the same receiver.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use tokio::time::Instant;

use super::connector::Connection;
use crate::domain::client_certificate::IdentityId;
use crate::domain::network_rules::NetworkRules;
use crate::domain::url::ReceiverUrl;
use crate::lock::Mutex;

/// Idle connections in all. A receiver's share is bounded by the requests that were in flight to it.
const MAX_IDLE: usize = 1_024;

/// An idle connection is closed after this long: most servers close theirs after a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Default)]
pub(super) struct Pool(Mutex<Idle>);

#[derive(Default)]
struct Idle {
    http: Connections,
    https: Connections,
    /// Those over `https` or not, of each other part.
    apart: HashMap<(bool, PoolPart), Connections>,
    total: usize,
}

/// What endpoints must have in common to share connections to one receiver.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct PoolPart {
    /// The client certificate.
    pub identity: Option<IdentityId>,
    /// Where requests of the account may go: the guard may refuse one account an address that another one reaches.
    pub networks: Option<Arc<NetworkRules>>,
}

/// Keyed by the `Host` header, which the URL has ready: a look-up copies nothing.
type Connections = HashMap<String, Vec<(Connection, Instant)>>;

impl Idle {
    fn of(&mut self, url: &ReceiverUrl, part: &PoolPart) -> &mut Connections {
        match part {
            PoolPart { identity: None, networks: None } if url.https => &mut self.https,
            PoolPart { identity: None, networks: None } => &mut self.http,
            part => self.apart.entry((url.https, part.clone())).or_default(),
        }
    }
}

impl Pool {
    /// The connection that was used last and is still open, if there is one.
    pub fn take(&self, url: &ReceiverUrl, part: &PoolPart) -> Option<Connection> {
        let mut idle = self.0.lock();
        while let Some((mut connection, since)) = idle.of(url, part).get_mut(&url.authority).and_then(Vec::pop) {
            idle.total -= 1;
            if connection.is_usable() && since.elapsed() < IDLE_TIMEOUT {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose last answer was read to its end, unless the pool is full.
    pub fn put(&self, url: &ReceiverUrl, part: &PoolPart, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = self.0.lock();
        if idle.total >= MAX_IDLE {
            return;
        }
        idle.total += 1;
        let pooled = (connection, Instant::now());
        let receivers = idle.of(url, part);
        match receivers.get_mut(&url.authority) {
            Some(connections) => connections.push(pooled),
            None => drop(receivers.insert(url.authority.clone(), vec![pooled])),
        }
    }

    /// Closes all idle connections: each holds a descriptor that an attempt may need.
    pub fn close_all(&self) {
        let idle = std::mem::take(&mut *self.0.lock());
        // Closed after the lock is released.
        drop(idle);
    }

    /// Drops what is closed or has been idle for too long.
    pub fn close_idle(&self) {
        let mut idle = self.0.lock();
        let mut total = 0;
        let idle = &mut *idle;
        for receivers in [&mut idle.http, &mut idle.https].into_iter().chain(idle.apart.values_mut()) {
            receivers.retain(|_, connections| {
                connections.retain_mut(|(connection, since)| connection.is_usable() && since.elapsed() < IDLE_TIMEOUT);
                total += connections.len();
                !connections.is_empty()
            });
        }
        idle.apart.retain(|_, receivers| !receivers.is_empty());
        idle.total = total;
    }
}

//! Connections kept open between attempts to the same receiver.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use foldhash::HashMap;
use tokio::time::Instant;

use super::connector::Connection;
use crate::domain::url::{Host, ReceiverUrl};

/// Idle connections kept in all. A receiver's share is bounded by the requests that were in flight to it.
const MAX_IDLE: usize = 1_024;

/// An idle connection is closed after this long: most servers close theirs after a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Default)]
pub(super) struct Pool(Mutex<Idle>);

#[derive(Default)]
struct Idle {
    hosts: HashMap<Key, Vec<(Connection, Instant)>>,
    total: usize,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    https: bool,
    host: Host,
    port: u16,
}

impl Key {
    fn of(url: &ReceiverUrl) -> Self {
        Self { https: url.https, host: url.host.clone(), port: url.port }
    }
}

impl Pool {
    /// The connection that was used last and is still open, if there is one.
    pub fn take(&self, url: &ReceiverUrl) -> Option<Connection> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = &mut *idle;
        let connections = idle.hosts.get_mut(&Key::of(url))?;
        while let Some((mut connection, since)) = connections.pop() {
            idle.total -= 1;
            if connection.is_usable() && since.elapsed() < IDLE_TIMEOUT {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose last answer was read to its end, if there is room.
    pub fn put(&self, url: &ReceiverUrl, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.total >= MAX_IDLE {
            return;
        }
        idle.hosts.entry(Key::of(url)).or_default().push((connection, Instant::now()));
        idle.total += 1;
    }

    /// Drops what is closed or has been idle for too long.
    pub fn close_idle(&self) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.hosts.retain(|_, connections| {
            connections.retain_mut(|(connection, since)| connection.is_usable() && since.elapsed() < IDLE_TIMEOUT);
            !connections.is_empty()
        });
        idle.total = idle.hosts.values().map(Vec::len).sum();
    }
}

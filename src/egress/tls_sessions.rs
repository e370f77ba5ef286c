//! TLS sessions of receivers: a new connection to one of them resumes a session, and needs no full handshake.
//!
//! The library's own store keeps eight tickets for each name. This one keeps fewer, of more names.

use std::collections::VecDeque;
use std::fmt;

use foldhash::HashMap;
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

use crate::lock::Mutex;

/// Names whose sessions are kept: as many as there are idle connections at most (`pool`). The name that came first
/// leaves for a new one.
const MAX_NAMES: usize = 1_024;

/// TLS 1.3 tickets of one name: most servers send two with each connection, and each ticket is used once. A ticket with
/// the server's certificates has some 5 KB; TLS allows both of them 64 KiB.
const MAX_TICKETS: usize = 2;

/// The sessions of all receivers.
#[derive(Default)]
pub(super) struct TlsSessions(Mutex<Names>);

#[derive(Default)]
struct Names {
    sessions: HashMap<ServerName<'static>, Sessions>,
    /// The names in the order in which they came.
    order: VecDeque<ServerName<'static>>,
}

#[derive(Default)]
struct Sessions {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    /// The oldest first.
    tickets: VecDeque<Tls13ClientSessionValue>,
}

impl Names {
    fn of(&mut self, name: ServerName<'static>) -> &mut Sessions {
        if !self.sessions.contains_key(&name) {
            if self.order.len() >= MAX_NAMES
                && let Some(first) = self.order.pop_front()
            {
                self.sessions.remove(&first);
            }
            self.order.push_back(name.clone());
        }
        debug_assert!(self.order.len() <= MAX_NAMES, "a name leaves before one comes");
        self.sessions.entry(name).or_default()
    }
}

impl ClientSessionStore for TlsSessions {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.0.lock().of(name).group = Some(group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.lock().sessions.get(name)?.group
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.lock().of(name).tls12 = Some(value);
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.lock().sessions.get(name)?.tls12.clone()
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        if let Some(sessions) = self.0.lock().sessions.get_mut(name) {
            sessions.tls12 = None;
        }
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut names = self.0.lock();
        let tickets = &mut names.of(name).tickets;
        if tickets.len() >= MAX_TICKETS {
            tickets.pop_front();
        }
        tickets.push_back(value);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().sessions.get_mut(name)?.tickets.pop_back()
    }
}

impl fmt::Debug for TlsSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // They have the keys of connections.
        f.write_str("TlsSessions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> ServerName<'static> {
        ServerName::try_from(format!("n{number}.example")).expect("a name")
    }

    #[test]
    fn the_name_that_came_first_leaves_for_a_new_one() {
        let sessions = TlsSessions::default();
        for number in (0..MAX_NAMES).chain([0, 1]) {
            sessions.set_kx_hint(name(number), NamedGroup::X25519);
        }
        assert!((0..MAX_NAMES).all(|number| sessions.kx_hint(&name(number)).is_some()));
        sessions.set_kx_hint(name(MAX_NAMES), NamedGroup::secp256r1);
        assert_eq!(sessions.kx_hint(&name(0)), None);
        assert_eq!(sessions.kx_hint(&name(1)), Some(NamedGroup::X25519));
        assert_eq!(sessions.kx_hint(&name(MAX_NAMES)), Some(NamedGroup::secp256r1));
        assert_eq!(sessions.0.lock().sessions.len(), MAX_NAMES);
    }
}

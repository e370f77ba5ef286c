//! Local faults: why this machine cannot make an attempt, without any fault of the receiver.
//!
//! The decision is a pure function of the error, its source, and when receivers were last reached.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// An address that was reached within this time shows that the machine has a network. Long enough that a server with
/// little traffic has such an address, and not much longer than an attempt may take.
const REACHED_LATELY: Duration = Duration::from_secs(10);

/// What was missing on this machine. The receiver is not charged, and its delivery is attempted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocalFault {
    /// `EMFILE`, `ENFILE`.
    #[error("no file descriptors are left: raise the limit of open files, or lower webhooks.max_in_flight")]
    OutOfFiles,
    /// `ENOBUFS`, `ENOMEM`.
    #[error(
        "the operating system has no memory for connections: give the machine more, or lower webhooks.max_in_flight"
    )]
    OutOfMemory,
    /// `EADDRNOTAVAIL`, `EADDRINUSE`: all local ports are in use for connections to one address.
    #[error("no local port is left for connections to a receiver: widen the range of ephemeral ports")]
    OutOfPorts,
    /// `ENETUNREACH`, and no receiver was reached lately.
    #[error("this machine has no route to any receiver: check its network")]
    NoNetwork,
    /// `ENETUNREACH`, and no receiver was reached since the last attempt that ended so.
    #[error("this machine has no route to a receiver: check its network, for IPv6 too")]
    NoRoute,
    /// A look-up waited too long for a permit of its account's share, or its task ended without an answer.
    #[error("a name could not be looked up in time: many look-ups of its account hang; check the name servers")]
    LookupNotMade,
    /// A socket could not have an address of `egress.source_address`.
    #[error("egress.source_address names an address that this machine does not have now: check its network")]
    NoSourceAddress,
    /// No TCP connection to the proxy, or no address of its name.
    #[error("egress.proxy cannot be reached: check its host and port, and whether it runs")]
    ProxyUnreachable,
    /// The proxy answered 407 or 401.
    #[error("egress.proxy wants other credentials than it gets (407 or 401): correct USER:PASSWORD of the setting")]
    ProxyCredentials,
    /// The proxy closed the connection without an answer, or answered as no proxy does.
    #[error("egress.proxy does not answer CONNECT as an HTTP proxy does: check its host and port, and its own log")]
    ProxyAnswer,
}

impl LocalFault {
    /// Whether attempts at other receivers would fail in the same way. Where they would not, they are not paused.
    pub fn concerns_all(self) -> bool {
        match self {
            Self::OutOfFiles | Self::OutOfMemory | Self::NoNetwork | Self::ProxyUnreachable => true,
            // A proxy may give this answer for one address, and no receiver may cause a pause of all attempts.
            Self::ProxyCredentials
            | Self::ProxyAnswer
            | Self::OutOfPorts
            | Self::NoRoute
            | Self::LookupNotMade
            | Self::NoSourceAddress => false,
        }
    }
}

/// What the operating system has run out of, whatever it was asked for.
pub(super) fn exhausted(error: &io::Error) -> Option<LocalFault> {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        match Errno::from_io_error(error)? {
            Errno::MFILE | Errno::NFILE => Some(LocalFault::OutOfFiles),
            Errno::NOBUFS | Errno::NOMEM => Some(LocalFault::OutOfMemory),
            _ => None,
        }
    }
    #[cfg(not(unix))]
    (error.kind() == ErrorKind::OutOfMemory).then_some(LocalFault::OutOfMemory)
}

/// Why the operator's proxy was not reached.
pub(super) fn of_proxy(error: &io::Error, refusal: Refusal) -> LocalFault {
    exhausted(error).unwrap_or(match error.kind() {
        _ if refusal.at_source => of_source(error),
        ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse if !refusal.ipv6 => LocalFault::OutOfPorts,
        _ => LocalFault::ProxyUnreachable,
    })
}

/// Whether this machine may have had no way to an address: what another address of the receiver said tells more.
pub(super) fn is_want_of_route(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::NetworkUnreachable)
}

/// Where a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// This machine's kernel refused within the call, before a packet left: a router's answer comes later.
    pub at_once: bool,
    /// The address is an IPv6 address.
    pub ipv6: bool,
    /// The socket did not get the address that the operator has set for it.
    pub at_source: bool,
}

/// Why a socket did not get its address: all ports of the address are in use, or the address is not there.
fn of_source(error: &io::Error) -> LocalFault {
    match error.kind() {
        ErrorKind::AddrInUse => LocalFault::OutOfPorts,
        _ => LocalFault::NoSourceAddress,
    }
}

/// Whether a connection that was not made is a local fault; `None` is the receiver's failure.
///
/// `no_route` tells what is known of other receivers. It is called only where the kernel found no route.
pub(super) fn of_connecting(
    error: &io::Error,
    refusal: Refusal,
    ipv6_works: bool,
    no_route: impl FnOnce() -> Routes,
) -> Option<LocalFault> {
    if let Some(fault) = exhausted(error) {
        return Some(fault);
    }
    if refusal.at_source {
        return Some(of_source(error));
    }
    if !refusal.at_once {
        return None;
    }
    match error.kind() {
        // Without an IPv6 address of its own, Linux says "address not available" about every IPv6 destination.
        ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse if !refusal.ipv6 || ipv6_works => {
            Some(LocalFault::OutOfPorts)
        }
        ErrorKind::AddrNotAvailable | ErrorKind::NetworkUnreachable => match no_route() {
            Routes::NobodyReached => Some(LocalFault::NoNetwork),
            Routes::NobodySince => Some(LocalFault::NoRoute),
            Routes::OthersReached => None,
        },
        _ => None,
    }
}

/// What other connections tell about the network of this machine, when there was no route to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Routes {
    /// No address was reached for [`REACHED_LATELY`].
    NobodyReached,
    /// An address was reached within that time, but not since a route was last missing: the network may have gone.
    NobodySince,
    /// An address was reached since: the network works, and this receiver cannot be reached from here.
    OthersReached,
}

/// When receivers were reached, in milliseconds since the start; 0 is never.
pub(super) struct Reached {
    start: Instant,
    any: AtomicU64,
    ipv6: AtomicU64,
    no_route: AtomicU64,
}

impl Default for Reached {
    fn default() -> Self {
        let never = || AtomicU64::new(0);
        Self { start: Instant::now(), any: never(), ipv6: never(), no_route: never() }
    }
}

impl Reached {
    /// The start is 1, so that 0 is never.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).expect("less than 500 million years") + 1
    }

    /// Notes that a receiver answered, even with a refusal.
    pub fn note(&self) {
        self.any.store(self.now(), Ordering::Relaxed);
    }

    /// The same at an address.
    pub fn note_address(&self, ipv6: bool) {
        self.note();
        if ipv6 {
            self.ipv6.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Whether an IPv6 address was reached lately.
    pub fn ipv6_works(&self) -> bool {
        is_lately(self.ipv6.load(Ordering::Relaxed), self.now())
    }

    /// There was no route to an address.
    pub fn no_route(&self) -> Routes {
        let now = self.now();
        let previous = self.no_route.swap(now, Ordering::Relaxed);
        routes(self.any.load(Ordering::Relaxed), previous, now)
    }
}

/// Times are in milliseconds since the start; 0 is never.
fn routes(reached: u64, previous_no_route: u64, now: u64) -> Routes {
    if !is_lately(reached, now) {
        Routes::NobodyReached
    } else if reached > previous_no_route {
        Routes::OthersReached
    } else {
        Routes::NobodySince
    }
}

fn is_lately(at: u64, now: u64) -> bool {
    // Another task may have noted a later time since `now` was read.
    at != 0 && u128::from(now.saturating_sub(at)) <= REACHED_LATELY.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Refusal = Refusal { at_once: true, ipv6: false, at_source: false };
    const LATER: Refusal = Refusal { at_once: false, ..AT_ONCE };
    const IPV6: Refusal = Refusal { ipv6: true, ..AT_ONCE };
    const AT_SOURCE: Refusal = Refusal { at_source: true, ..AT_ONCE };

    fn decide(error: io::Error, refusal: Refusal, ipv6_works: bool, routes: Routes) -> Option<LocalFault> {
        of_connecting(&error, refusal, ipv6_works, || routes)
    }

    #[test]
    fn what_this_machine_lacks_is_local_and_what_the_receivers_side_can_cause_is_not() {
        use ErrorKind as K;
        use LocalFault as F;
        use Routes::{NobodyReached, NobodySince, OthersReached};
        let table: &[(K, Refusal, bool, Routes, Option<F>)] = &[
            (K::AddrNotAvailable, AT_ONCE, false, OthersReached, Some(F::OutOfPorts)),
            (K::AddrInUse, AT_ONCE, false, OthersReached, Some(F::OutOfPorts)),
            (K::AddrNotAvailable, IPV6, true, OthersReached, Some(F::OutOfPorts)),
            (K::AddrNotAvailable, AT_SOURCE, true, OthersReached, Some(F::NoSourceAddress)),
            (K::PermissionDenied, AT_SOURCE, true, OthersReached, Some(F::NoSourceAddress)),
            (K::AddrInUse, AT_SOURCE, false, OthersReached, Some(F::OutOfPorts)),
            (K::AddrNotAvailable, IPV6, false, OthersReached, None),
            (K::AddrNotAvailable, IPV6, false, NobodySince, Some(F::NoRoute)),
            (K::AddrNotAvailable, IPV6, false, NobodyReached, Some(F::NoNetwork)),
            (K::NetworkUnreachable, AT_ONCE, false, NobodyReached, Some(F::NoNetwork)),
            (K::NetworkUnreachable, AT_ONCE, false, NobodySince, Some(F::NoRoute)),
            (K::NetworkUnreachable, AT_ONCE, false, OthersReached, None),
            (K::NetworkUnreachable, IPV6, true, OthersReached, None),
            (K::NetworkUnreachable, LATER, false, NobodyReached, None),
            (K::HostUnreachable, AT_ONCE, false, NobodyReached, None),
            (K::HostUnreachable, LATER, false, NobodyReached, None),
            (K::ConnectionRefused, AT_ONCE, false, NobodyReached, None),
            (K::ConnectionReset, LATER, false, NobodyReached, None),
            (K::TimedOut, LATER, false, NobodyReached, None),
            (K::PermissionDenied, AT_ONCE, false, NobodyReached, None),
        ];
        for (kind, refusal, ipv6_works, routes, expected) in table.iter().copied() {
            let found = decide(kind.into(), refusal, ipv6_works, routes);
            assert_eq!(found, expected, "{kind:?} {refusal:?} {ipv6_works} {routes:?}");
        }
    }

    #[test]
    fn a_proxy_that_is_not_reached_is_local_whatever_the_reason() {
        for (kind, refusal, expected) in [
            (ErrorKind::ConnectionRefused, AT_ONCE, LocalFault::ProxyUnreachable),
            (ErrorKind::TimedOut, LATER, LocalFault::ProxyUnreachable),
            (ErrorKind::NetworkUnreachable, IPV6, LocalFault::ProxyUnreachable),
            (ErrorKind::AddrNotAvailable, IPV6, LocalFault::ProxyUnreachable),
            (ErrorKind::AddrNotAvailable, AT_ONCE, LocalFault::OutOfPorts),
            (ErrorKind::AddrNotAvailable, AT_SOURCE, LocalFault::NoSourceAddress),
        ] {
            assert_eq!(of_proxy(&kind.into(), refusal), expected, "{kind:?} {refusal:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn whatever_the_operating_system_has_run_out_of_is_local_wherever_it_is_missing() {
        use rustix::io::Errno;
        for (errno, expected) in [
            (Errno::MFILE, Some(LocalFault::OutOfFiles)),
            (Errno::NFILE, Some(LocalFault::OutOfFiles)),
            (Errno::NOBUFS, Some(LocalFault::OutOfMemory)),
            (Errno::NOMEM, Some(LocalFault::OutOfMemory)),
            (Errno::CONNREFUSED, None),
            (Errno::HOSTUNREACH, None),
            (Errno::TIMEDOUT, None),
        ] {
            for refusal in [AT_ONCE, LATER, IPV6] {
                assert_eq!(decide(errno.into(), refusal, true, Routes::OthersReached), expected, "{errno:?}");
            }
        }
        let unreachable = io::Error::from(Errno::NETUNREACH);
        assert_eq!(decide(unreachable, AT_ONCE, false, Routes::NobodyReached), Some(LocalFault::NoNetwork));
    }

    #[test]
    fn a_receiver_without_a_route_is_charged_once_others_are_reached_and_never_for_a_network_that_has_gone() {
        for (reached, previous_no_route, now, expected) in [
            (0, 0, 1, Routes::NobodyReached),
            (1, 0, 10_001, Routes::OthersReached),
            (1, 0, 10_002, Routes::NobodyReached),
            (500, 400, 600, Routes::OthersReached),
            (500, 500, 600, Routes::NobodySince),
            (500, 550, 600, Routes::NobodySince),
        ] {
            assert_eq!(routes(reached, previous_no_route, now), expected, "{reached} {previous_no_route} {now}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_that_goes_is_charged_to_one_attempt_at_most() {
        let reached = Reached::default();
        reached.note_address(false);
        assert!(!reached.ipv6_works());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(reached.no_route(), Routes::OthersReached);
        for _ in 0..9 {
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(reached.no_route(), Routes::NobodySince);
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(reached.no_route(), Routes::NobodyReached);
        reached.note_address(true);
        assert!(reached.ipv6_works());
    }
}

//! TCP connections to addresses, from the addresses that the operator has set (`egress.source_address`), and where a
//! connection was refused.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use super::deadline::within;
use super::fault::{self, Reached, Refusal, exhausted};
use crate::domain::source_addresses::SourceAddresses;

/// While other addresses are left, one that does not answer is given up after this long.
pub(super) const NEXT_ADDRESS_AFTER: Duration = Duration::from_secs(3);

/// Makes TCP connections.
pub(super) struct Tcp(SourceAddresses);

/// A connection that an address did not get.
pub(super) struct Refused {
    pub error: io::Error,
    pub refusal: Refusal,
}

/// The first of these addresses that this machine does not have, and the error.
pub fn check_sources(sources: SourceAddresses) -> Result<(), (IpAddr, io::Error)> {
    sources.all().try_for_each(|source| bound(source).map(drop).map_err(|error| (source, error)))
}

/// A socket whose connection comes from this address.
fn bound(source: IpAddr) -> io::Result<TcpSocket> {
    let socket = if source.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(SocketAddr::new(source, 0))?;
    Ok(socket)
}

impl Tcp {
    pub fn new(sources: SourceAddresses) -> Self {
        Self(sources)
    }

    /// Connects to the first address that takes the connection. Otherwise it tells the last refusal; one for another
    /// reason than a missing route comes first.
    pub async fn connect_first(&self, addresses: &[SocketAddr], reached: &Reached) -> Result<TcpStream, Refused> {
        debug_assert!(!addresses.is_empty(), "the guard returns at least one address");
        let unreachable = io::Error::from(io::ErrorKind::HostUnreachable);
        let refusal = Refusal { at_once: true, ipv6: false, at_source: false };
        let mut last = Refused { error: unreachable, refusal };
        for (index, address) in addresses.iter().enumerate() {
            let limit = (index + 1 < addresses.len()).then_some(NEXT_ADDRESS_AFTER);
            let refused = match self.connect(*address, limit).await {
                Ok(stream) => {
                    reached.note_address(address.is_ipv6());
                    return Ok(stream);
                }
                Err(refused) => refused,
            };
            if matches!(refused.error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset) {
                reached.note_address(address.is_ipv6());
            }
            // The next address would fail in the same way, or its failure would hide this one.
            if exhausted(&refused.error).is_some() || refused.refusal.at_source {
                return Err(refused);
            }
            if index == 0 || fault::is_want_of_route(&last.error) || !fault::is_want_of_route(&refused.error) {
                last = refused;
            }
        }
        Err(last)
    }

    /// Connects to this address, within the limit if there is one.
    #[expect(clippy::disallowed_methods, reason = "the address comes from the guard, or is the operator's proxy")]
    pub async fn connect(&self, address: SocketAddr, limit: Option<Duration>) -> Result<TcpStream, Refused> {
        let refused = |error: io::Error, at_once: bool, at_source: bool| {
            let refusal = Refusal { at_once, ipv6: address.is_ipv6(), at_source };
            Refused { error, refusal }
        };
        let socket = self.0.of(address.ip()).map(bound).transpose().map_err(|error| refused(error, true, true))?;
        let mut connecting = pin!(async move {
            match socket {
                Some(socket) => socket.connect(address).await,
                None => TcpStream::connect(address).await,
            }
        });
        let first = poll_fn(|context| Poll::Ready(connecting.as_mut().poll(context))).await;
        let at_once = first.is_ready();
        let connected = match (first, limit) {
            (Poll::Ready(connected), _) => connected,
            (Poll::Pending, None) => connecting.await,
            (Poll::Pending, Some(limit)) => within(limit, || Duration::ZERO, connecting)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        };
        let connected = connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        connected.map_err(|error| refused(error, at_once, false))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn sources(text: &str) -> SourceAddresses {
        SourceAddresses::new([text.parse().expect("an address")]).expect("a source")
    }

    #[tokio::test]
    async fn a_connection_comes_from_the_address_that_the_operator_has_set() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        for (sources, peer) in [
            (SourceAddresses::default(), "127.0.0.1"),
            (sources("127.0.0.2"), "127.0.0.2"),
            (sources("::1"), "127.0.0.1"),
        ] {
            let connected = Tcp::new(sources).connect(address, None).await;
            let (_, from) = listener.accept().await.expect("a connection");
            assert!(connected.is_ok() && from.ip().to_string() == peer, "{from}");
        }
    }

    #[tokio::test]
    async fn a_source_that_this_machine_does_not_have_is_told_and_is_no_failure_of_the_receiver() {
        let missing = sources("192.0.2.1");
        let (source, error) = check_sources(missing).expect_err("refused");
        assert_eq!((source.to_string().as_str(), error.kind()), ("192.0.2.1", io::ErrorKind::AddrNotAvailable));
        assert!(check_sources(sources("127.0.0.1")).is_ok());
        let address = "127.0.0.1:9".parse().expect("an address");
        let refused = Tcp::new(missing).connect_first(&[address], &Reached::default()).await.expect_err("refused");
        assert!(refused.refusal.at_source && refused.error.kind() == io::ErrorKind::AddrNotAvailable);
    }
}

//! TCP connections to addresses, and where a connection was refused.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;

use super::deadline::within;
use super::fault::{self, Reached, Refusal, exhausted};

/// While other addresses are left, one that does not answer is given up after this long.
pub(super) const NEXT_ADDRESS_AFTER: Duration = Duration::from_secs(3);

/// A connection that an address did not get.
pub(super) struct Refused {
    pub error: io::Error,
    pub refusal: Refusal,
}

/// Connects to the first address that takes the connection. Otherwise it tells the last refusal; one for another reason
/// than a missing route comes first.
pub(super) async fn connect_first(addresses: &[SocketAddr], reached: &Reached) -> Result<TcpStream, Refused> {
    debug_assert!(!addresses.is_empty(), "the guard returns at least one address");
    let unreachable = io::Error::from(io::ErrorKind::HostUnreachable);
    let mut last = Refused { error: unreachable, refusal: Refusal { at_once: true, ipv6: false } };
    for (index, address) in addresses.iter().enumerate() {
        let limit = (index + 1 < addresses.len()).then_some(NEXT_ADDRESS_AFTER);
        let refused = match connect_to(*address, limit).await {
            Ok(stream) => {
                reached.note_address(address.is_ipv6());
                return Ok(stream);
            }
            Err(refused) => refused,
        };
        if matches!(refused.error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset) {
            reached.note_address(address.is_ipv6());
        }
        // The next address would fail in the same way.
        if exhausted(&refused.error).is_some() {
            return Err(refused);
        }
        if index == 0 || fault::is_want_of_route(&last.error) || !fault::is_want_of_route(&refused.error) {
            last = refused;
        }
    }
    Err(last)
}

/// Connects to this address, within the limit if there is one.
#[expect(clippy::disallowed_methods, reason = "the address comes from the guard, or is that of the operator's proxy")]
pub(super) async fn connect_to(address: SocketAddr, limit: Option<Duration>) -> Result<TcpStream, Refused> {
    let mut connecting = pin!(TcpStream::connect(address));
    let first = poll_fn(|context| Poll::Ready(connecting.as_mut().poll(context))).await;
    let at_once = first.is_ready();
    let connected = match (first, limit) {
        (Poll::Ready(connected), _) => connected,
        (Poll::Pending, None) => connecting.await,
        (Poll::Pending, Some(limit)) => {
            within(limit, || Duration::ZERO, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        }
    };
    let connected = connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
    connected.map_err(|error| Refused { error, refusal: Refusal { at_once, ipv6: address.is_ipv6() } })
}

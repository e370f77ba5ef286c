//! The address that a request comes from: that of its connection, or the one that a trusted proxy names.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::http::HeaderMap;
use ipnet::IpNet;

use crate::log_limit::LogLimit;

/// Any client can send the header, and a proxy that is not in the settings sends it with every request: one line a
/// minute is enough.
static UNTRUSTED_LOGGED: LogLimit = LogLimit::every(Duration::from_secs(60));

/// The other end of a request's connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Where one client comes from: an address, or the 64 bits of a network that one customer of IPv6 has at least (RFC
/// 6177).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Network(IpAddr);

impl Network {
    /// The network of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let bits = address.to_bits() & !u128::from(u64::MAX);
                Self(IpAddr::V6(bits.into()))
            }
            address @ IpAddr::V4(_) => Self(address),
        }
    }
}

/// Whether an address is a trusted proxy.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address.to_canonical()))
}

/// The address of the client. `X-Forwarded-For` is read from its end, as long as the addresses are trusted proxies:
/// what is further left may be forged.
pub fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    let values = headers.get_all("x-forwarded-for").iter();
    let told: Vec<&[u8]> = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).collect();
    for address in told.into_iter().rev() {
        if !is_trusted(client, trusted) {
            break;
        }
        match parse(address) {
            Some(address) => client = address.to_canonical(),
            None => break,
        }
    }
    client
}

/// Warns where an untrusted peer sends `X-Forwarded-For`: it may be a proxy that the settings do not name, and then all
/// of its clients are counted as one.
pub fn warn_of_forwarded(peer: IpAddr, headers: &HeaderMap) {
    if headers.contains_key("x-forwarded-for")
        && let Some(suppressed) = UNTRUSTED_LOGGED.admit()
    {
        tracing::warn!(
            %peer, suppressed,
            "X-Forwarded-For is not believed, because the sender is not in trusted_proxies; if it is your proxy, name \
             it there"
        );
    }
}

/// The server's own address as the client knows it, from `Host`: over TLS everywhere but on this machine.
pub fn base(headers: &HeaderMap) -> Option<String> {
    let host = headers.get("host").and_then(|value| value.to_str().ok()).unwrap_or("");
    let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    if host.is_empty() || host.len() > 255 || !plain {
        return None;
    }
    let local = ["localhost", "127.", "[::1]"].iter().any(|name| host.starts_with(name));
    Some(format!("{}://{host}", if local { "http" } else { "https" }))
}

/// An address, with or without a port.
fn parse(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_what_trusted_proxies_have_written_is_believed() {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "::1/128"].map(|net| net.parse().expect("a network")).into();
        for (peer, headers, expected) in [
            ("203.0.113.7", vec!["1.1.1.1"], "203.0.113.7"),
            ("10.0.0.1", vec![], "10.0.0.1"),
            ("10.0.0.1", vec!["203.0.113.7"], "203.0.113.7"),
            ("::ffff:10.0.0.1", vec!["203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", vec!["1.1.1.1, 203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", vec!["1.1.1.1", "203.0.113.7, 10.9.9.9"], "203.0.113.7"),
            ("10.0.0.1", vec!["203.0.113.7, nonsense"], "10.0.0.1"),
            ("::1", vec!["2001:db8::7"], "2001:db8::7"),
            ("10.0.0.1", vec!["\u{e9}, 203.0.113.7:8080"], "203.0.113.7"),
        ] {
            let mut map = HeaderMap::new();
            for value in headers {
                map.append("x-forwarded-for", HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
            }
            let found = client(peer.parse().expect("an address"), &map, &trusted);
            assert_eq!(found, expected.parse::<IpAddr>().expect("an address"), "{peer} {map:?}");
        }
    }
}

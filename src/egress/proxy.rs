//! Connections through the operator's HTTP proxy (`egress.proxy`): CONNECT (RFC 9110, section 9.3.6) to the very
//! address that the guard has checked, never to a name.
//!
//! The receiver's clock stands until the proxy is reached. Then it runs, because the proxy connects to the receiver.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::deadline::{ReceiverClock, within};
use super::dns::NameServers;
use super::fault::{self, LocalFault, exhausted};
use super::guard::{LookupError, LookupOwner, Resolver as _};
use super::lookups::Lookups;
use super::tcp::{NEXT_ADDRESS_AFTER, Tcp};
use crate::domain::http_proxy::HttpProxy;
use crate::domain::source_addresses::SourceAddresses;
use crate::domain::url::Host;

/// How long a look-up of the proxy's name and a connection to it may take together. A proxy is near. If it is gone,
/// attempts must end soon, because each attempt has a permit.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of all heads of answers to one CONNECT, interim answers included. A usual head has 40.
const MAX_HEADS: usize = 8 * 1024;

/// What the head of an answer begins with (RFC 9112, section 4).
const HTTP: &[u8] = b"HTTP/1.";

/// The operator's proxy.
pub(super) struct Proxy {
    proxy: HttpProxy,
    /// Asks the system's name servers: those of `egress.dns_servers` need not know the operator's own network.
    lookups: Lookups,
}

/// Why there is no connection through the proxy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProxyError {
    #[error(transparent)]
    Local(#[from] LocalFault),
    /// A failure of this one address: as far as this server can know, the proxy reaches other addresses.
    #[error("the proxy answered {0}")]
    Answered(u16),
    #[error("the proxy did not connect in time")]
    Late,
}

impl Proxy {
    pub fn new(proxy: HttpProxy) -> Self {
        Self { proxy, lookups: Lookups::new(NameServers::new(Vec::new())) }
    }

    /// A connection through the proxy to the first of these addresses that it connects to.
    pub async fn connect(
        &self,
        tcp: &Tcp,
        addresses: &[SocketAddr],
        clock: &ReceiverClock,
    ) -> Result<TcpStream, ProxyError> {
        debug_assert!(!addresses.is_empty(), "the guard returns at least one address");
        let mut last = ProxyError::Late;
        for (index, address) in addresses.iter().enumerate() {
            clock.stop();
            let reached = within(REACH_TIMEOUT, || Duration::ZERO, self.reach(tcp)).await;
            clock.start();
            let mut stream = reached.unwrap_or(Err(LocalFault::ProxyUnreachable))?;
            let request = self.request(*address);
            let asking = ask(&mut stream, request.as_bytes());
            let asked = if index + 1 < addresses.len() {
                within(NEXT_ADDRESS_AFTER, || Duration::ZERO, asking).await.unwrap_or(Err(ProxyError::Late))
            } else {
                asking.await
            };
            match asked {
                Ok(()) => return Ok(stream),
                // The next address would fail in the same way.
                Err(error @ ProxyError::Local(_)) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Connects to the proxy itself.
    async fn reach(&self, tcp: &Tcp) -> Result<TcpStream, LocalFault> {
        let mut last = LocalFault::ProxyUnreachable;
        for address in self.addresses().await? {
            match tcp.connect(address, Some(NEXT_ADDRESS_AFTER)).await {
                Ok(stream) => return Ok(stream),
                Err(refused) => last = fault::of_proxy(&refused.error, refused.refusal),
            }
        }
        Err(last)
    }

    /// The proxy's own addresses, which the guard does not judge: the operator has named them.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, LocalFault> {
        let found = match &self.proxy.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => match self.lookups.resolve(name, LookupOwner::Proxy, &|| {}).await {
                Ok(found) => found,
                Err(LookupError::Local(fault)) => return Err(fault),
                Err(LookupError::Unresolved | LookupError::ShareUsedUp) => Vec::new(),
            },
        };
        Ok(found.into_iter().map(|address| SocketAddr::new(address, self.proxy.port)).collect())
    }

    /// The request to the proxy for a connection to this address (RFC 9112, section 3.2.3).
    fn request(&self, address: SocketAddr) -> Zeroizing<String> {
        let mut request = Zeroizing::new(format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n"));
        if let Some(value) = &self.proxy.authorization {
            for part in ["Proxy-Authorization: ", value.reveal(), "\r\n"] {
                request.push_str(part);
            }
        }
        request.push_str("\r\n");
        request
    }
}

/// How long the check of the proxy waits for a connection to it, and then for its answer.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the proxy can be reached and takes the credentials, if there are any. It is asked for an address that nobody
/// has (RFC 5737): a refusal of that address, or an attempt to reach it, is no fault.
pub async fn look_at_proxy(proxy: &HttpProxy, sources: SourceAddresses) -> Result<(), LocalFault> {
    let (proxy, tcp) = (Proxy::new(proxy.clone()), Tcp::new(sources));
    let reached = tokio::time::timeout(LOOK_TIMEOUT, proxy.reach(&tcp)).await;
    let mut stream = reached.unwrap_or(Err(LocalFault::ProxyUnreachable))?;
    let request = proxy.request(SocketAddr::from(([192, 0, 2, 1], 443)));
    match tokio::time::timeout(LOOK_TIMEOUT, ask(&mut stream, request.as_bytes())).await {
        Ok(Err(ProxyError::Local(fault))) => Err(fault),
        _ => Ok(()),
    }
}

/// Asks the proxy for a connection. After a success all that is read from `stream` is the receiver's.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &[u8]) -> Result<(), ProxyError> {
    let broken = |error: io::Error| exhausted(&error).unwrap_or(LocalFault::ProxyAnswer);
    stream.write_all(request).await.map_err(broken)?;
    match read_status(stream).await.map_err(broken)? {
        Some(200..=299) => Ok(()),
        // tinyproxy answers wrong credentials with 401.
        Some(401 | 407) => Err(LocalFault::ProxyCredentials.into()),
        // A server that does not know CONNECT.
        None | Some(400 | 405 | 501) => Err(LocalFault::ProxyAnswer.into()),
        Some(status) => Err(ProxyError::Answered(status)),
    }
}

/// The status of the first answer that is not interim (1xx). `None` is an answer of no HTTP/1, or a head that is too
/// long.
///
/// It reads byte by byte, so that nothing of what follows the head is lost: a receiver may speak first.
async fn read_status(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<u16>> {
    let mut left = MAX_HEADS;
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
            let known = head.len().min(HTTP.len());
            if left == 0 || head[..known] != HTTP[..known] {
                return Ok(None);
            }
            head.push(stream.read_u8().await?);
            left -= 1;
        }
        let status = status_of(&head);
        if !status.is_some_and(|status| (100..200).contains(&status)) {
            return Ok(status);
        }
    }
}

/// The status in the first line of a head, such as `HTTP/1.1 200 OK`.
fn status_of(head: &[u8]) -> Option<u16> {
    let [b' ', status @ .., b' ' | b'\r' | b'\n'] = head.get(HTTP.len() + 1..)?.first_chunk::<5>()? else {
        return None;
    };
    let status: u16 = std::str::from_utf8(status).ok()?.parse().ok()?;
    (100..600).contains(&status).then_some(status)
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const YES: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

    /// What the exchange comes to with a proxy that sends these pieces, one after the other, and then closes.
    async fn answered(pieces: &[&str]) -> Result<(), ProxyError> {
        let (mut ours, theirs) = duplex(64 * 1024);
        let pieces: Vec<String> = pieces.iter().map(|piece| (*piece).to_owned()).collect();
        let proxy = tokio::spawn(answer(theirs, pieces));
        let asked = ask(&mut ours, b"CONNECT 192.0.2.7:443 HTTP/1.1\r\n\r\n").await;
        proxy.await.expect("no panic");
        asked
    }

    async fn answer(mut stream: DuplexStream, pieces: Vec<String>) {
        for piece in pieces {
            stream.write_all(piece.as_bytes()).await.expect("written");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_proxy_that_connects_answers_any_2xx_however_it_is_split() {
        for pieces in [
            &[YES][..],
            &["HTTP/1.0 200 OK\r\nVia: 1.1 squid\r\n\r\n"],
            &["HT", "TP/1.1 2", "00 \r", "\nA: b\r\n", "\r", "\n"],
            &["HTTP/1.1 200\r\n\r\n"],
            &["HTTP/1.1 204 No Content\n\n"],
            &["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n", YES],
        ] {
            assert_eq!(answered(pieces).await, Ok(()), "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn what_follows_the_head_is_the_receivers_to_the_last_byte() {
        let (mut ours, mut theirs) = duplex(1_024);
        theirs.write_all(YES.as_bytes()).await.expect("written");
        theirs.write_all(b"220 mail.example ESMTP\r\n\r\n").await.expect("written");
        ask(&mut ours, b"CONNECT").await.expect("connected");
        theirs.shutdown().await.expect("closed");
        let mut rest = String::new();
        ours.read_to_string(&mut rest).await.expect("read");
        assert_eq!(rest, "220 mail.example ESMTP\r\n\r\n");
    }

    #[tokio::test]
    async fn a_refusal_of_one_address_is_told_and_a_fault_of_the_proxy_is_local() {
        let local = |fault: LocalFault| Err(ProxyError::Local(fault));
        let too_long = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(MAX_HEADS));
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_HEADS / 25 + 1);
        let table: &[(&[&str], Result<(), ProxyError>)] = &[
            (&["HTTP/1.1 503 Service Unavailable\r\n\r\n"], Err(ProxyError::Answered(503))),
            (&["HTTP/1.1 502 Bad Gateway\r\n\r\n<html>"], Err(ProxyError::Answered(502))),
            (&["HTTP/1.0 500 Unable to connect\r\n\r\n"], Err(ProxyError::Answered(500))),
            (&["HTTP/1.1 403 Forbidden\r\n\r\n"], Err(ProxyError::Answered(403))),
            (&["HTTP/1.1 302 Found\r\n\r\n"], Err(ProxyError::Answered(302))),
            (&["HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"], local(LocalFault::ProxyCredentials)),
            (&["HTTP/1.0 401 Unauthorized\r\n\r\n"], local(LocalFault::ProxyCredentials)),
            (&["HTTP/1.1 405 Not Allowed\r\n\r\n"], local(LocalFault::ProxyAnswer)),
            (&["HTTP/1.1 501 Not Implemented\r\n\r\n"], local(LocalFault::ProxyAnswer)),
            (&["SSH-2.0-OpenSSH_9.2p1\r\n"], local(LocalFault::ProxyAnswer)),
            (&["\u{15}\u{3}\u{1}"], local(LocalFault::ProxyAnswer)),
            (&["HTTP/2 200\r\n\r\n"], local(LocalFault::ProxyAnswer)),
            (&["HTTP/1.1 20\r\n\r\n"], local(LocalFault::ProxyAnswer)),
            (&["HTTP/1.1 +20 OK\r\n\r\n"], local(LocalFault::ProxyAnswer)),
            (&["HTTP/1.1200OK\r\n\r\n"], local(LocalFault::ProxyAnswer)),
            (&["HTTP/1.1 200 OK\r\nA: b\r\n"], local(LocalFault::ProxyAnswer)),
            (&[""], local(LocalFault::ProxyAnswer)),
            (&[too_long.as_str()], local(LocalFault::ProxyAnswer)),
            (&[interim.as_str()], local(LocalFault::ProxyAnswer)),
        ];
        for (pieces, expected) in table {
            assert_eq!(&answered(pieces).await, expected, "{:.40}", pieces.concat());
        }
    }

    fn proxy(text: &str) -> Proxy {
        Proxy::new(HttpProxy::parse(text).expect("a proxy"))
    }

    #[tokio::test]
    async fn the_proxy_is_asked_for_an_address_with_its_port_and_gets_its_credentials() {
        let address = |text: &str| text.parse().expect("an address");
        assert_eq!(
            *proxy("http://192.0.2.1:3128").request(address("198.51.100.7:443")),
            "CONNECT 198.51.100.7:443 HTTP/1.1\r\nHost: 198.51.100.7:443\r\n\r\n"
        );
        assert_eq!(
            *proxy("http://Aladdin:open%20sesame@192.0.2.1:3128").request(address("[2001:db8::7]:8443")),
            "CONNECT [2001:db8::7]:8443 HTTP/1.1\r\nHost: [2001:db8::7]:8443\r\n\
             Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
        );
    }

    /// Takes connections and does this with each, after its request.
    async fn scripted(answers: &'static [Option<&'static str>]) -> (Proxy, tokio::task::JoinHandle<Vec<String>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let text = format!("http://{}", listener.local_addr().expect("an address"));
        let serving = tokio::spawn(async move {
            let (mut asked, mut open) = (Vec::new(), Vec::new());
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.expect("a request"));
                }
                asked.push(String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned());
                if let Some(answer) = answer {
                    stream.write_all(answer.as_bytes()).await.expect("written");
                }
                open.push(stream);
            }
            asked
        });
        (proxy(&text), serving)
    }

    /// Asks for a connection to a name with two addresses.
    async fn connect(proxy: &Proxy, clock: &ReceiverClock) -> Result<TcpStream, ProxyError> {
        let addresses = ["192.0.2.7:443", "[2001:db8::7]:443"].map(|text| text.parse().expect("an address"));
        proxy.connect(&Tcp::new(SourceAddresses::default()), &addresses, clock).await
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_the_next_address_where_it_does_not_connect_to_one() {
        let (proxy, serving) = scripted(&[Some("HTTP/1.1 503 No\r\n\r\n"), Some(YES)]).await;
        let clock = ReceiverClock::default();
        assert!(connect(&proxy, &clock).await.is_ok());
        let asked = serving.await.expect("no panic");
        assert_eq!(asked, ["CONNECT 192.0.2.7:443 HTTP/1.1", "CONNECT [2001:db8::7]:443 HTTP/1.1"]);
    }

    #[tokio::test]
    async fn a_proxy_that_wants_other_credentials_is_asked_once() {
        let (proxy, serving) = scripted(&[Some("HTTP/1.1 407 No\r\n\r\n")]).await;
        let refused = connect(&proxy, &ReceiverClock::default()).await.expect_err("refused");
        assert_eq!(refused, ProxyError::Local(LocalFault::ProxyCredentials));
        assert_eq!(serving.await.expect("no panic").len(), 1);
    }

    #[tokio::test]
    async fn the_time_of_a_silent_proxy_is_the_receivers_and_the_next_address_gets_some_of_it() {
        let (proxy, _serving) = scripted(&[None, Some("HTTP/1.1 504 No\r\n\r\n")]).await;
        let clock = ReceiverClock::default();
        let began = tokio::time::Instant::now();
        let refused = connect(&proxy, &clock).await.expect_err("refused");
        assert_eq!(refused, ProxyError::Answered(504));
        assert!(began.elapsed() >= NEXT_ADDRESS_AFTER && clock.ours() < NEXT_ADDRESS_AFTER / 2, "{:?}", clock.ours());
    }

    #[tokio::test]
    async fn a_proxy_that_is_not_there_is_a_local_fault() {
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = free.local_addr().expect("an address");
        drop(free);
        for text in [format!("http://{address}"), "http://no-such-proxy.invalid:3128".to_owned()] {
            let refused = connect(&proxy(&text), &ReceiverClock::default()).await.expect_err("refused");
            assert_eq!(refused, ProxyError::Local(LocalFault::ProxyUnreachable), "{text}");
        }
    }
}

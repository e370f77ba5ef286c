//! Connections to addresses that the guard has checked, direct or through the operator's proxy, with TLS where the URL
//! says so.

use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::unconstrained;

use super::deadline::ReceiverClock;
use super::fault::{self, LocalFault, Reached, exhausted};
use super::guard::{self, GuardError, LookupOwner, OnBegin, Resolver};
use super::interim::ReadAllowance;
use super::proxy::{Proxy, ProxyError};
use super::spelling::Spelling;
use super::tcp::{Refused, Tcp};
use super::tls::{Tls, certificate_complaint};
use crate::domain::client_certificate::ClientIdentity;
use crate::domain::egress_rules::EgressRules;
use crate::domain::http_proxy::HttpProxy;
use crate::domain::network_rules::NetworkRules;
use crate::domain::source_addresses::SourceAddresses;
use crate::domain::url::{Environment, Host, ReceiverUrl};
use crate::lock::RwLock;

/// Bytes that an answer's head may have.
const MAX_ANSWER_HEAD: usize = 32 * 1024;

/// Where requests may go, and by which way.
pub struct Routing {
    /// What receivers may be.
    pub environment: Environment,
    /// The rules that the operator adds.
    pub rules: EgressRules,
    /// The proxy of every connection, if there is one.
    pub proxy: Option<HttpProxy>,
    /// The addresses that connections come from.
    pub sources: SourceAddresses,
}

impl Routing {
    /// To any receiver that the environment allows, without a proxy, from any address.
    pub fn direct(environment: Environment) -> Self {
        Self { environment, rules: EgressRules::default(), proxy: None, sources: SourceAddresses::default() }
    }
}

/// A connection that takes one request at a time, and ends when this is dropped.
pub(super) struct Connection {
    pub sender: SendRequest<Full<Bytes>>,
    pub driver: Driver,
    pub allowance: ReadAllowance,
    pub spelling: Spelling,
    /// What the other side did where it ended the connection because of the client certificate.
    pub complaint: Arc<OnceLock<&'static str>>,
    /// The version of the rules under which the connection was made.
    pub rules_version: u64,
}

impl Connection {
    /// Whether the next request may go over it, as far as this side can know.
    pub fn is_usable(&mut self) -> bool {
        // The driver was not polled while the connection was idle.
        self.driver.poll(&mut Context::from_waker(Waker::noop()));
        self.sender.is_ready()
    }
}

/// Moves the bytes of a connection, within the task that waits for the connection. A task of its own would be woken
/// twice for every request. Dropped with the connection, it sends no goodbye to a receiver that does not read.
pub(super) struct Driver(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Driver {
    /// Does `work`, which waits only for the connection. `work` is polled after each step of the driver, so it needs no
    /// waker; and it has no cooperative budget, which would need one.
    pub async fn run<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(unconstrained(work));
        let mut look = || work.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(done) = look() {
            return done;
        }
        poll_fn(|context| {
            self.poll(context);
            look()
        })
        .await
    }

    fn poll(&mut self, context: &mut Context<'_>) {
        if self.0.as_mut().is_some_and(|driver| driver.as_mut().poll(context).is_ready()) {
            self.0 = None;
        }
    }
}

pub(super) struct Connector {
    environment: Environment,
    rules: RwLock<Arc<EgressRules>>,
    /// Counts the changes of `rules`.
    rules_version: AtomicU64,
    resolver: Arc<dyn Resolver>,
    /// The only way to receivers, if there is one.
    proxy: Option<Proxy>,
    tcp: Tcp,
    /// For receivers over TLS.
    pub tls: Tls,
    /// When receivers were reached.
    pub reached: Reached,
}

/// Why there is no connection, in words for the receiver's owner; or a local fault.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error(transparent)]
    Local(#[from] LocalFault),
    #[error(transparent)]
    Guard(GuardError),
    #[error("could not connect to {authority}: {reason}")]
    Tcp { authority: String, reason: String },
    #[error("TLS handshake with {authority} failed: {reason}")]
    Tls { authority: String, reason: String },
}

impl Connector {
    pub fn new(routing: Routing, resolver: Arc<dyn Resolver>) -> Self {
        let Routing { environment, rules, proxy, sources } = routing;
        Self {
            environment,
            rules: RwLock::new(Arc::new(rules)),
            rules_version: AtomicU64::new(0),
            resolver,
            proxy: proxy.map(Proxy::new),
            tcp: Tcp::new(sources),
            tls: Tls::new(),
            reached: Reached::default(),
        }
    }

    /// The version of the rules. A connection that is made after this call is made under these rules or later ones.
    pub fn rules_version(&self) -> u64 {
        self.rules_version.load(Ordering::Acquire)
    }

    /// Applies other rules. Returns whether they differ.
    pub fn set_rules(&self, rules: EgressRules) -> bool {
        let mut current = self.rules.write();
        if **current == rules {
            return false;
        }
        *current = Arc::new(rules);
        // A task that reads this version reads the new rules too.
        self.rules_version.fetch_add(1, Ordering::Release);
        true
    }

    /// The addresses that a connection of an owner with these rules may go to. `on_begin` is called when a look-up
    /// begins.
    pub async fn addresses(
        &self,
        url: &ReceiverUrl,
        (owner, networks): (LookupOwner, Option<&NetworkRules>),
        on_begin: OnBegin<'_>,
    ) -> Result<Vec<SocketAddr>, GuardError> {
        let rules = self.rules.read().clone();
        let rules = (&*rules, networks);
        guard::addresses(url, self.environment, rules, &*self.resolver, (owner, on_begin)).await
    }

    /// Connects with this client certificate, if there is one. The clock stands until a look-up has begun, and until
    /// the proxy is reached.
    pub async fn connect(
        &self,
        url: &ReceiverUrl,
        identity: Option<&ClientIdentity>,
        owner: (LookupOwner, Option<&NetworkRules>),
        clock: &ReceiverClock,
    ) -> Result<Connection, ConnectError> {
        if matches!(url.host, Host::Name(_)) {
            clock.stop();
        }
        let addresses = self.addresses(url, owner, &|| clock.start()).await;
        // The clock also starts if no look-up was made.
        clock.start();
        let tcp = self.reach(url, &addresses?, clock).await?;
        let failed = |e: &dyn std::fmt::Display| ConnectError::Tcp { authority: shown(url), reason: e.to_string() };
        if url.https {
            let name = server_name(&url.host).ok_or_else(|| failed(&"the host cannot be named in TLS"))?;
            let broken = |reason: String| ConnectError::Tls { authority: shown(url), reason };
            let tls = self.tls.connector(identity);
            let tls = tls.ok_or_else(|| broken("the client certificate cannot be used".into()))?;
            let stream = tls.connect(name, tcp).await.map_err(|error| match exhausted(&error) {
                Some(fault) => fault.into(),
                None => broken(tls_reason(&error)),
            })?;
            handshake(stream).await.map_err(|e| failed(&e))
        } else {
            handshake(tcp).await.map_err(|e| failed(&e))
        }
    }

    /// A connection to the first of these addresses that takes it.
    async fn reach(
        &self,
        url: &ReceiverUrl,
        addresses: &[SocketAddr],
        clock: &ReceiverClock,
    ) -> Result<TcpStream, ConnectError> {
        let Some(proxy) = &self.proxy else {
            let connected = self.tcp.connect_first(addresses, &self.reached).await;
            return connected.map_err(|refused| self.connect_error(url, &refused));
        };
        proxy.connect(&self.tcp, addresses, clock).await.map_err(|error| match error {
            ProxyError::Local(fault) => fault.into(),
            error => ConnectError::Tcp { authority: shown(url), reason: error.to_string() },
        })
    }

    /// A refusal, as a local fault or in words for the receiver's owner.
    fn connect_error(&self, url: &ReceiverUrl, refused: &Refused) -> ConnectError {
        let Refused { error, refusal } = refused;
        match fault::of_connecting(error, *refusal, self.reached.ipv6_works(), || self.reached.no_route()) {
            Some(fault) => fault.into(),
            None => ConnectError::Tcp { authority: shown(url), reason: io_reason(error) },
        }
    }
}

impl From<GuardError> for ConnectError {
    fn from(error: GuardError) -> Self {
        match error {
            GuardError::Local(fault) => Self::Local(fault),
            // Attempts wait for their share. One that is refused all the same is no failure of the receiver.
            GuardError::ShareUsedUp => Self::Local(LocalFault::LookupNotMade),
            error => Self::Guard(error),
        }
    }
}

pub(super) async fn handshake<S>(stream: S) -> hyper::Result<Connection>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (allowance, stream) = ReadAllowance::of(stream);
    let (spelling, stream) = Spelling::of(stream);
    let (sender, connection) =
        Builder::new().max_buf_size(MAX_ANSWER_HEAD).writev(false).handshake(TokioIo::new(stream)).await?;
    let complaint = Arc::new(OnceLock::new());
    let heard = complaint.clone();
    // The sender gets the errors of the driver, but for one that comes before there is a request.
    let driver = Box::pin(async move {
        let Err(error) = connection.await else { return };
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        if let Some(did) = source.and_then(certificate_complaint) {
            let _ = heard.set(did);
        }
    });
    Ok(Connection { sender, driver: Driver(Some(driver)), allowance, spelling, complaint, rules_version: 0 })
}

pub(super) fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned()).ok(),
        Host::Address(address) => Some(ServerName::IpAddress((*address).into())),
    }
}

fn shown(url: &ReceiverUrl) -> String {
    format!("{}:{}", url.host, url.port)
}

/// The cause without the operating system's number.
fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset".into(),
        io::ErrorKind::TimedOut => "no answer".into(),
        io::ErrorKind::HostUnreachable => "host unreachable".into(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".into(),
        io::ErrorKind::UnexpectedEof => "the receiver closed the connection".into(),
        _ => error.to_string(),
    }
}

/// What is wrong with the handshake, in words for the receiver's owner.
fn tls_reason(error: &io::Error) -> String {
    use rustls::{CertificateError as C, Error as E};
    if let Some(did) = certificate_complaint(error) {
        return format!("the receiver {did}");
    }
    let words = match error.get_ref().and_then(|inner| inner.downcast_ref::<E>()) {
        Some(E::InvalidMessage(_)) => "the receiver does not speak TLS on this port",
        Some(E::InvalidCertificate(C::Expired | C::ExpiredContext { .. })) => "the certificate has expired",
        Some(E::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. })) => {
            "the certificate is not valid yet"
        }
        Some(E::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. })) => {
            "the certificate is for another host name"
        }
        Some(E::InvalidCertificate(C::UnknownIssuer)) => {
            "the certificate is not signed by a known authority, or an intermediate certificate is missing"
        }
        Some(E::InvalidCertificate(C::Revoked)) => "the certificate was revoked",
        Some(E::InvalidCertificate(_)) => "the certificate is not valid for a server, or is self-signed",
        Some(E::AlertReceived(_)) => {
            "the receiver refused the handshake; does it support TLS 1.2 or 1.3 for this host?"
        }
        Some(_) => "the handshake broke",
        None => return io_reason(error),
    };
    words.to_owned()
}

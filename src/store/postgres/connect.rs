//! Connecting: hosts, TLS, the settings of each session, pools, and what a database must have.
//!
//! Every connection of a node is made by its [`Connector`]. It tries the host that was used last, then the others in
//! the order of the URL, and each address of a host has a timeout of its own. A host that does not take writes counts
//! as one that fails. A pool never ends such an attempt early: it runs in a task, and whoever no longer waits for it
//! misses nothing.
//!
//! A connection is used again without a question, because a question would cost a round trip. The exception is a
//! suspicion: after an error that a server gives that has stopped or takes no writes, and after a call that got no
//! answer in time, every connection that is older is checked before its next use ([`suspect`]). A connection whose
//! server takes no writes is dropped, and so is one to a host that the node has left. A connection that does not answer
//! is kept until another host is found: its server may be well and a commit may wait for a synchronous standby. To drop
//! it would leave its process at the server, and new ones would pile up.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use deadpool_postgres::{
    ClientWrapper, Connect, Hook, HookError, Manager, ManagerConfig, Pool, PoolError, QueueMode, RecyclingMethod,
    Runtime, Timeouts,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Client, Config, NoTls, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::sql::describe;
use crate::lock::Mutex;
use crate::store::errors::StoreError;
use crate::store::postgres_url::{PostgresUrl, Roots, Server, Tls};
use crate::store::values::SEARCH_TIMEOUT;

/// Connections of one node for calls and deliveries.
const CONNECTIONS: usize = 10;

/// Connections with which it stays one of the nodes, whatever waits for the others. One more listens.
const OWN_CONNECTIONS: usize = 3;

/// Connections for pages of lists, single resources and charts; and how many of them one account may use.
pub(super) const LIST_CONNECTIONS: (usize, usize) = (3, 2);

/// The same for searches, which may read every row of an account.
pub(super) const SEARCH_CONNECTIONS: (usize, usize) = (3, 2);

/// Connections of the pool for lists and searches.
const READ_CONNECTIONS: usize = LIST_CONNECTIONS.0 + SEARCH_CONNECTIONS.0;

/// How long a call waits for a connection of a pool: as long as a call may take.
const POOL_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that are being made at the same time: all of a node's, and a few for those whose callers have gone. The
/// bound counts while hosts are silent, when callers come and go faster than attempts end.
const MAX_CONNECTING: usize = 24;

/// Addresses of one name that are tried. More than a few stand behind one name only by mistake, and each may cost its
/// timeout.
const MAX_ADDRESSES: usize = 8;

/// How long a suspected connection may take to say that it is well. An idle server answers within a millisecond. A call
/// has 5 s and may meet several dead connections.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a node looks for another host at most, because its connections are silent: as often as calls end without
/// an answer. In between, silent connections are used unchecked.
const HOST_LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Least time between two log lines that say that no host can be used: once for a few heartbeats, not for each call.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What every session has. Statements end before whoever asked stops waiting, and a transaction whose client has gone
/// holds no locks.
const SESSION: &[(&str, &str)] = &[
    ("statement_timeout", "4500"),
    ("lock_timeout", "3000"),
    ("idle_in_transaction_session_timeout", "5000"),
    ("jit", "off"),
];

/// What sessions have besides whose statements find what they look for by its key. Each statement is planned once, and
/// for no size: the plan for a partition that was nearly empty when it was analysed would read all of it when it no
/// longer is.
const BY_KEY: &[(&str, &str)] = &[("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off")];

/// What neither a role nor the URL changes. The statements lock what they must not lose and are written for this
/// isolation; a stricter one would refuse them at random.
const FIXED: &[(&str, &str)] = &[("default_transaction_isolation", "read committed")];

pub(super) type Connection = tokio_postgres::Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// When a server was last suspected. It belongs to the process, because an error does not know the pool that it came
/// from. A store that is not concerned checks its connections once more than it must.
static SUSPECTED: Mutex<Option<Instant>> = Mutex::new(None);

/// Has every connection that is in a pool now checked before its next use.
pub(super) fn suspect() {
    *SUSPECTED.lock() = Some(Instant::now());
}

/// Suspects after an error that a server gives which is stopping, starting or read-only.
pub(super) fn suspect_after(error: &tokio_postgres::Error) {
    const CODES: &[SqlState] = &[
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
    ];
    if error.code().is_some_and(|code| CODES.contains(code)) {
        suspect();
    }
}

/// The host that was used last first, then the others in their order.
fn in_order(last_good: usize, hosts: usize) -> impl Iterator<Item = usize> {
    debug_assert!(last_good < hosts, "it is the index of a host");
    std::iter::once(last_good).chain((0..hosts).filter(move |index| *index != last_good))
}

/// Why no connection could be made: each host with its reason.
#[derive(Debug, thiserror::Error)]
#[error("no host takes connections and writes: {}", .0.join("; "))]
pub(super) struct ConnectError(Vec<String>);

impl From<ConnectError> for StoreError {
    fn from(error: ConnectError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Where the last connection was made.
#[derive(Clone, Copy)]
struct CurrentHost {
    /// The index of the host.
    host: usize,
    /// When the node left another host for it.
    since: Option<Instant>,
}

/// Makes the connections of one node.
pub(super) struct Connector {
    url: Arc<PostgresUrl>,
    tls: MakeRustlsConnect,
    current_host: Mutex<CurrentHost>,
    connecting: Semaphore,
    /// One look for another host at a time.
    looking: Arc<Semaphore>,
    /// When it was last logged that no host can be used.
    logged_at: Mutex<Option<Instant>>,
}

impl Connector {
    /// Reads the certificates that the URL names. The error is for the person who starts the program.
    pub fn new(url: Arc<PostgresUrl>) -> Result<Arc<Self>, String> {
        let tls = match &url.tls {
            Tls::Off | Tls::Unverified => crate::tls::unverified(),
            Tls::Verified(Roots::Usual) => crate::tls::verified(),
            Tls::Verified(Roots::System) => crate::tls::verified_by_system(),
            Tls::Verified(Roots::File(path)) => crate::tls::verified_by(path)?,
        };
        Ok(Arc::new(Self {
            url,
            tls: MakeRustlsConnect::new(tls),
            current_host: Mutex::new(CurrentHost { host: 0, since: None }),
            connecting: Semaphore::new(MAX_CONNECTING),
            looking: Arc::new(Semaphore::new(1)),
            logged_at: Mutex::new(None),
        }))
    }

    /// A connection to the first host that takes writes, with the settings of a session. It lasts as long as the
    /// timeouts of all addresses together at most.
    pub async fn connect(&self) -> Result<(Client, Connection), ConnectError> {
        self.connect_with(&self.settings(&[])).await
    }

    async fn connect_with(&self, settings: &str) -> Result<(Client, Connection), ConnectError> {
        let mut failures = Vec::new();
        for index in in_order(self.current_host().host, self.url.hosts.len()) {
            let server = &self.url.hosts[index];
            match self.connect_to(server, settings).await {
                Ok(connected) => {
                    self.connected_to(index);
                    return Ok(connected);
                }
                Err(reason) => failures.push(format!("{server}: {reason}")),
            }
        }
        Err(ConnectError(failures))
    }

    fn current_host(&self) -> CurrentHost {
        *self.current_host.lock()
    }

    /// Remembers the host. Connections to the one before are dropped at their next use.
    fn connected_to(&self, host: usize) {
        let mut current = self.current_host.lock();
        if current.host != host {
            *current = CurrentHost { host, since: Some(Instant::now()) };
            suspect();
            tracing::info!(host = %self.url.hosts[host], "the database's host changed");
        }
    }

    /// Looks in the background whether the host still takes connections, and for another one if not.
    fn look_again(self: &Arc<Self>) {
        let Ok(permit) = self.looking.clone().try_acquire_owned() else { return };
        let connector = self.clone();
        tokio::spawn(async move {
            if let Err(error) = connector.connect().await {
                connector.log_unreachable(&error);
            }
            tokio::time::sleep(HOST_LOOK_INTERVAL).await;
            drop(permit);
        });
    }

    /// Tries the addresses of a host, each with its own timeout.
    async fn connect_to(&self, server: &Server, settings: &str) -> Result<(Client, Connection), String> {
        let limit = self.url.host_timeout;
        let silent = |_| format!("it did not answer within {} s", limit.as_secs());
        let addresses = tokio::time::timeout(limit, addresses_of(server)).await.map_err(silent)??;
        let mut failed = "its name has no address".to_owned();
        for address in addresses {
            match tokio::time::timeout(limit, self.connect_once(server, address, settings)).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => failed = describe(&error),
                Err(elapsed) => failed = silent(elapsed),
            }
        }
        Err(failed)
    }

    async fn connect_once(
        &self,
        server: &Server,
        address: Option<IpAddr>,
        settings: &str,
    ) -> Result<(Client, Connection), tokio_postgres::Error> {
        let mut config = self.url.config.clone();
        config.port(server.port).target_session_attrs(TargetSessionAttrs::ReadWrite);
        match &server.host {
            Host::Tcp(name) => config.host(name).ssl_mode(match &self.url.tls {
                Tls::Off => SslMode::Disable,
                Tls::Unverified => SslMode::Prefer,
                Tls::Verified(_) => SslMode::Require,
            }),
            // A socket has no TLS, whatever the URL says of it: so it is in libpq.
            #[cfg(unix)]
            Host::Unix(folder) => config.host_path(folder).ssl_mode(SslMode::Disable),
        };
        if let Some(address) = address {
            config.hostaddr(address);
        }
        let (client, mut connection) = config.connect(self.tls.clone()).await?;
        tokio::select! {
            biased;
            set = client.batch_execute(settings) => set?,
            ended = &mut connection => ended?,
        }
        Ok((client, connection))
    }

    /// One statement that sets what a session has. Startup parameters would do the same, but poolers refuse them.
    fn settings(&self, more: &[(&str, &str)]) -> String {
        let own = self.url.options.iter().map(|(name, value)| (&**name, &**value));
        let all = SESSION.iter().chain(more).copied().chain(own).chain(FIXED.iter().copied());
        let calls: Vec<_> =
            all.map(|(name, value)| format!("set_config({}, {}, false)", literal(name), literal(value))).collect();
        format!("SELECT {}", calls.join(", "))
    }

    /// A pool for statements that find what they look for by its key.
    pub fn pool(self: &Arc<Self>) -> Result<Pool, deadpool_postgres::BuildError> {
        self.pool_of(CONNECTIONS, self.settings(BY_KEY))
    }

    /// The same for what keeps the node alive.
    pub fn own_pool(self: &Arc<Self>) -> Result<Pool, deadpool_postgres::BuildError> {
        self.pool_of(OWN_CONNECTIONS, self.settings(BY_KEY))
    }

    /// A pool for lists and searches, whose statements are planned for what they find, and end after
    /// [`SEARCH_TIMEOUT`].
    pub fn read_pool(self: &Arc<Self>) -> Result<Pool, deadpool_postgres::BuildError> {
        let timeout = SEARCH_TIMEOUT.as_millis().to_string();
        self.pool_of(READ_CONNECTIONS, self.settings(&[("statement_timeout", &timeout)]))
    }

    /// One connection that waits for no call.
    pub fn ping_pool(self: &Arc<Self>) -> Result<Pool, deadpool_postgres::BuildError> {
        self.pool_of(1, self.settings(BY_KEY))
    }

    /// Asks the server to end what runs on a connection.
    pub async fn cancel(&self, token: &CancelToken) -> Result<(), tokio_postgres::Error> {
        token.cancel_query(self.tls.clone()).await
    }

    fn pool_of(self: &Arc<Self>, size: usize, settings: String) -> Result<Pool, deadpool_postgres::BuildError> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let opener = Opener { connector: self.clone(), settings: settings.into() };
        // The opener does not read the configuration.
        Pool::builder(Manager::from_connect(Config::new(), opener, recycling))
            .max_size(size)
            // The connection that was used last: its process is warm, and others need not be woken.
            .queue_mode(QueueMode::Lifo)
            // The connector ends the attempt, host by host. A call that waits for it ends in time by itself.
            .timeouts(Timeouts { wait: Some(POOL_TIMEOUT), create: None, recycle: Some(POOL_TIMEOUT) })
            .pre_recycle(check_suspected(self.clone()))
            .runtime(Runtime::Tokio1)
            .build()
    }

    /// Logs that no host can be used, at most once in [`LOG_INTERVAL`].
    fn log_unreachable(&self, error: &ConnectError) {
        let mut logged_at = self.logged_at.lock();
        if logged_at.is_none_or(|at| at.elapsed() > LOG_INTERVAL) {
            *logged_at = Some(Instant::now());
            tracing::warn!(%error, "the database cannot be reached");
        }
    }
}

/// The addresses of a host; of a socket none is needed.
#[expect(clippy::disallowed_methods, reason = "the operator names the database, and no guard stands before it")]
async fn addresses_of(server: &Server) -> Result<Vec<Option<IpAddr>>, String> {
    match (&server.host, server.address) {
        (_, Some(address)) => Ok(vec![Some(address)]),
        (Host::Tcp(name), None) => {
            let found = tokio::net::lookup_host((&**name, server.port)).await;
            let found = found.map_err(|error| format!("its name has no address: {error}"))?;
            Ok(found.map(|address| Some(address.ip())).take(MAX_ADDRESSES).collect())
        }
        #[cfg(unix)]
        (Host::Unix(_), None) => Ok(vec![None]),
    }
}

/// A string as a literal of SQL, whatever `standard_conforming_strings` is.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Drops a suspected connection that is of no use any more.
fn check_suspected(connector: Arc<Connector>) -> Hook {
    Hook::async_fn(move |client: &mut ClientWrapper, metrics| {
        let suspected = *SUSPECTED.lock();
        let used = metrics.recycled.unwrap_or(metrics.created);
        if suspected.is_none_or(|at| at < used) {
            return Box::pin(std::future::ready(Ok(())));
        }
        if connector.current_host().since.is_some_and(|since| metrics.created < since) {
            return Box::pin(std::future::ready(Err(HookError::message("the node has left its host"))));
        }
        // A call that ends while it checks takes its connection with it.
        if connector.looking.available_permits() == 0 {
            return Box::pin(std::future::ready(Ok(())));
        }
        let connector = connector.clone();
        Box::pin(async move {
            match health(client).await {
                Health::Writable => Ok(()),
                Health::Unusable => Err(HookError::message("its server takes no writes")),
                Health::Silent => {
                    connector.look_again();
                    Ok(())
                }
            }
        })
    })
}

/// What a connection's server says of itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Writable,
    /// It takes no writes, or the connection is closed.
    Unusable,
    /// It does not answer in time.
    Silent,
}

/// Asks the server of a connection whether it takes writes.
pub(super) async fn health(client: &Client) -> Health {
    let asked = client.simple_query("SHOW transaction_read_only");
    let Ok(answer) = tokio::time::timeout(CHECK_TIMEOUT, asked).await else { return Health::Silent };
    let says_off = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0) == Some("off"),
        _ => false,
    };
    if answer.is_ok_and(|messages| messages.iter().any(says_off)) { Health::Writable } else { Health::Unusable }
}

/// Makes connections for a pool.
struct Opener {
    connector: Arc<Connector>,
    settings: Arc<str>,
}

type Opened<'a> = Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), tokio_postgres::Error>> + Send + 'a>>;

impl Connect for Opener {
    fn connect(&self, _: &Config) -> Opened<'_> {
        let (connector, settings) = (self.connector.clone(), self.settings.clone());
        let (mut reply, answer) = oneshot::channel();
        // In a task: a call ends after 5 s, and the host after a silent one must still be found.
        tokio::spawn(async move {
            let _permit = tokio::select! {
                permit = connector.connecting.acquire() => permit,
                () = reply.closed() => return,
            };
            let connected = connector.connect_with(&settings).await;
            if let Err(error) = &connected {
                connector.log_unreachable(error);
            }
            let _ = reply.send(connected);
        });
        Box::pin(async move {
            let (client, connection) = match answer.await {
                Ok(Ok(connected)) => connected,
                Ok(Err(error)) => return Err(as_error(error.to_string()).await),
                Err(_) => return Err(as_error("the attempt was given up".into()).await),
            };
            let task = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(error = describe(&error), "a connection to the database ended");
                }
            });
            Ok((client, task))
        })
    }
}

/// A reason as an error of `tokio_postgres`, which has no way to make one: the error of a stream that fails with it.
async fn as_error(reason: String) -> tokio_postgres::Error {
    let mut config = Config::new();
    config.user("nobody").ssl_mode(SslMode::Disable);
    config.connect_raw(Failed(reason), NoTls).await.err().expect("the stream fails")
}

/// A stream that fails.
struct Failed(String);

impl AsyncRead for Failed {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::Error::other(self.0.clone())))
    }
}

impl AsyncWrite for Failed {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::Error::other(self.0.clone())))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        suspect_after(&error);
        Self::Unavailable(describe(&error))
    }
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            PoolError::Timeout(_) => Self::Unavailable("too many calls wait for a connection".into()),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{in_order, literal};

    #[test]
    fn the_host_that_was_used_last_is_tried_first_and_each_other_once() {
        let order = |last_good, hosts| in_order(last_good, hosts).collect::<Vec<_>>();
        assert_eq!(order(0, 1), [0]);
        assert_eq!(order(0, 3), [0, 1, 2]);
        assert_eq!(order(1, 3), [1, 0, 2]);
    }

    #[test]
    fn a_literal_ends_where_it_should() {
        assert_eq!(literal("4500"), "E'4500'");
        assert_eq!(literal(r"a'b\'; DROP"), r"E'a''b\\''; DROP'");
    }
}

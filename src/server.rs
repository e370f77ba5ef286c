//! The HTTP server: connections in, bounded in number and time, and a stop that lets answers finish.

use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::api::{Peer, is_trusted};
use crate::client_socket::{ClientLeft, ClientSocket};
use crate::client_stream::{ClientStream, Refusal, Timeouts};
use crate::connections::{Activity, Connections, RegisteredConnection, UnderWay};
use crate::log_limit::LogLimit;

/// Connections at once. `connections` says which of them are closed for the next ones.
const MAX_CONNECTIONS: usize = 10_000;

/// File descriptors that clients cannot take: 1,024 for attempts in flight, as many for kept connections to receivers,
/// and the rest for look-ups, the database and the process itself.
const RESERVED_FILES: u64 = 2_560;

/// A head of some kilobytes needs seconds on the slowest network; a connection without a request may wait for the next
/// one for as long as proxies keep theirs; and a client that takes no byte of its answer for so long has gone.
const TIMEOUTS: Timeouts =
    Timeouts { head: Duration::from_secs(10), idle: Duration::from_secs(60), write: Duration::from_secs(30) };

/// Bytes that a request's head may have.
const MAX_HEAD: usize = 64 * 1024;

/// Bytes of an answer that are handed to the connection at once. hyper copies them; the rest of a larger answer is not
/// copied.
const MAX_PIECE: usize = 32 * 1024;

/// Pieces that one connection sends before its task yields. The kernel may take megabytes at once, and hundreds of
/// clients with large answers would delay all others for seconds.
const PIECES_AT_ONCE: u8 = 8;

/// After an error of accepting (no file descriptors left), before the next try.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// A client that connects too often must not fill the log.
static REFUSED_LOGGED: LogLimit = LogLimit::new();

/// The same for connections that could not be accepted, such as for want of files.
static NOT_ACCEPTED: LogLimit = LogLimit::new();

/// How many connections clients may have. It may change while the server runs, for the connections that come later.
#[derive(Clone, Debug)]
pub struct ClientLimits {
    /// Connections of one address.
    pub connections_per_address: usize,
    /// Proxies: their connections are not counted by their address.
    pub trusted_proxies: Vec<IpNet>,
}

impl ClientLimits {
    /// Limits that do not change.
    pub fn fixed(self) -> watch::Receiver<Self> {
        watch::channel(self).1
    }
}

/// How a server treats its clients.
pub struct ServerOptions {
    /// How many connections clients may have.
    pub limits: watch::Receiver<ClientLimits>,
    /// Writes the answer to an unreadable request, and to a connection beyond the bound.
    pub refusal: Option<Refusal>,
    timeouts: Timeouts,
}

impl Default for ServerOptions {
    /// Options for a server that only its own machine reaches.
    fn default() -> Self {
        let limits = ClientLimits { connections_per_address: MAX_CONNECTIONS, trusted_proxies: Vec::new() };
        Self { limits: limits.fixed(), refusal: None, timeouts: TIMEOUTS }
    }
}

impl ServerOptions {
    /// With the usual timeouts.
    pub fn new(limits: watch::Receiver<ClientLimits>, refusal: Refusal) -> Self {
        Self { limits, refusal: Some(refusal), timeouts: TIMEOUTS }
    }
}

/// What every connection is served with.
struct Serving<A> {
    builder: http1::Builder,
    answer: A,
    refusal: Option<Refusal>,
    timeouts: Timeouts,
}

/// Serves until `stop` resolves, then finishes the requests under way within the time that it says. `answer` answers
/// each request.
pub async fn serve<F>(
    listener: TcpListener,
    answer: impl Fn(Request<Body>, Peer) -> F + Send + Sync + 'static,
    options: ServerOptions,
    stop: impl Future<Output = Duration>,
) where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let ServerOptions { limits, refusal, timeouts } = options;
    let connections = Connections::new(max_connections(open_files()), limits.borrow().connections_per_address);
    let graceful = GracefulShutdown::new();
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(timeouts.idle).max_buf_size(MAX_HEAD).writev(false);
    // A client that has closed its side still gets the answer (RFC 9293, section 3.6); and nothing is read just to see
    // whether it is there.
    builder.half_close(true);
    let serving = Arc::new(Serving { builder, answer, refusal, timeouts });
    let mut stop = pin!(stop);
    let grace = loop {
        let accepted = tokio::select! {
            biased;
            grace = &mut stop => break grace,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(suppressed) = NOT_ACCEPTED.admit() {
                    tracing::warn!(%error, suppressed, "a connection could not be accepted");
                }
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        let registered = {
            let limits = limits.borrow();
            connections.set_per_network(limits.connections_per_address);
            connections.register((!is_trusted(peer.ip(), &limits.trusted_proxies)).then(|| peer.ip()))
        };
        match registered {
            Some(registered) => {
                tokio::spawn(converse(stream, peer.ip(), registered, graceful.watcher(), serving.clone()));
            }
            None => turn_away(stream, peer.ip(), serving.refusal.as_ref()),
        }
    };
    drop(listener);
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests were cut off at the stop");
    }
}

/// Serves a connection to its end, or until it makes room for another one. The wait until it is served holds up no
/// other connection.
async fn converse<A, F>(
    stream: TcpStream,
    address: IpAddr,
    registered: RegisteredConnection,
    watcher: Watcher,
    serving: Arc<Serving<A>>,
) where
    A: Fn(Request<Body>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let Some(registered) = registered.admitted().await else {
        return turn_away(stream, address, serving.refusal.as_ref());
    };
    // Small answers must not wait for more to come.
    let _ = stream.set_nodelay(true);
    let (socket, presence) = ClientSocket::new(stream);
    let (of_service, activity) = (serving.clone(), registered.activity.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let under_way = activity.begin();
        let request = request.map(|body| awaited(body, &activity));
        let (serving, presence) = (of_service.clone(), presence.clone());
        // The future is made within the block: a captured one would be stored twice.
        async move {
            // A read is abandoned when its client has left. A change is carried out to its end.
            let reads = matches!(*request.method(), Method::GET | Method::HEAD);
            let answering = pin!((serving.answer)(request, Peer(address)));
            let response = if reads { presence.unless_left(answering).await? } else { answering.await };
            Ok::<_, ClientLeft>(until_sent(response, under_way))
        }
    });
    let stream = TokioIo::new(socket);
    // Without a reset the kernel would keep the answer, and ask the client for minutes whether it takes more.
    let abandon = |stream: &TokioIo<ClientSocket>| stream.inner().abandon();
    let times = (registered.activity.clone(), serving.timeouts);
    let client_stream = ClientStream::new(stream, times, serving.refusal.clone(), abandon);
    let mut connection = pin!(watcher.watch(serving.builder.serve_connection(client_stream, service)));
    loop {
        tokio::select! {
            biased;
            // A client that closes the connection is no error of the server.
            _ = &mut connection => break,
            () = registered.activity.asked_to_make_room() => {
                // A request, a client that reads on, or the rest of a body may have come meanwhile.
                if registered.activity.may_make_room() {
                    break;
                }
            }
        }
    }
}

/// Refuses a connection beyond the bound. The answer is written only as far as that needs no waiting.
fn turn_away(stream: TcpStream, address: IpAddr, refusal: Option<&Refusal>) {
    if let Some(suppressed) = REFUSED_LOGGED.admit() {
        tracing::warn!(
            %address, suppressed,
            "refused a connection: its network has as many as it may have, or all are taken"
        );
    }
    if let (Ok(mut stream), Some(refusal)) = (stream.into_std(), refusal) {
        // What is unread when the connection is closed would reset it, and the answer with it.
        let _ = stream.read(&mut [0; 4_096]);
        let _ = stream.write(&refusal(503));
    }
}

/// An answer whose request is under way until the last of its body is sent.
fn until_sent(response: Response<Body>, under_way: UnderWay) -> Response<Body> {
    // A small one is handed to the connection at once.
    if response.body().size_hint().exact().is_some_and(|bytes| bytes <= MAX_PIECE as u64) {
        return response;
    }
    response.map(|body| Body::new(Sending { body, rest: Bytes::new(), sent: 0, _under_way: under_way }))
}

/// A body that goes out piece by piece: hyper copies each piece, and takes no more while the client has not taken
/// these.
struct Sending {
    body: Body,
    rest: Bytes,
    /// Pieces sent since the task last yielded.
    sent: u8,
    _under_way: UnderWay,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.sent == PIECES_AT_ONCE {
            self.sent = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        self.sent += 1;
        let piece = self.rest.len().min(MAX_PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, of_body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower() + rest);
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// A request's body, which tells the connection whether it is awaited.
struct AwaitedBody {
    body: Incoming,
    activity: Arc<Activity>,
}

/// The body of a request, of which most have none.
fn awaited(body: Incoming, activity: &Arc<Activity>) -> Body {
    if body.is_end_stream() { Body::empty() } else { Body::new(AwaitedBody { body, activity: activity.clone() }) }
}

impl HttpBody for AwaitedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.activity.await_body();
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) if !self.body.is_end_stream() => {
                self.activity.body_came(frame.data_ref().map_or(0, Bytes::len));
            }
            Poll::Ready(_) => self.activity.body_ended(),
            Poll::Pending => {}
        }
        polled
    }

    /// Whoever asks this is about to read the body. Until then it is not awaited: the key may take longer to be looked
    /// up.
    fn is_end_stream(&self) -> bool {
        let has_ended = self.body.is_end_stream();
        if !has_ended {
            self.activity.await_body();
        }
        has_ended
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AwaitedBody {
    fn drop(&mut self) {
        self.activity.body_ended();
    }
}

/// How many connections clients may have where this process may open so many files. Where these are few, half of them
/// stay reserved.
pub fn max_connections(files: u64) -> usize {
    let clients = files - RESERVED_FILES.min(files.div_ceil(2));
    usize::try_from(clients).unwrap_or(usize::MAX).clamp(1, MAX_CONNECTIONS)
}

/// How many files this process may open.
#[cfg(unix)]
pub fn open_files() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(not(unix))]
pub fn open_files() -> u64 {
    u64::MAX
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    /// A server whose answers have so many bytes, and whose clients have little time.
    async fn served(bytes: usize) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let short = Duration::from_millis(300);
        let options = ServerOptions {
            limits: ClientLimits { connections_per_address: 10, trusted_proxies: Vec::new() }.fixed(),
            refusal: None,
            timeouts: Timeouts { head: short, idle: short * 4, write: short },
        };
        let answer = move |_: Request<Body>, _: Peer| async move { Response::new(Body::from(vec![b'x'; bytes])) };
        let serving = serve(listener, answer, options, std::future::pending());
        (address, tokio::spawn(serving))
    }

    #[expect(clippy::disallowed_methods, reason = "a test's client")]
    async fn connect(address: std::net::SocketAddr) -> TcpStream {
        TcpStream::connect(address).await.expect("connected")
    }

    /// Reads until the server closes; how long it took.
    async fn closed(stream: &mut TcpStream) -> Duration {
        let began = Instant::now();
        let _ =
            tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut Vec::new())).await.expect("closed");
        began.elapsed()
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    #[tokio::test]
    async fn a_head_has_its_time_from_its_first_byte_and_an_idle_connection_has_more() {
        let (address, serving) = served(1).await;
        for first in [&b""[..], b"G"] {
            let mut stream = connect(address).await;
            stream.write_all(first).await.expect("written");
            let took = closed(&mut stream).await;
            assert!((250..1_000).contains(&took.as_millis()), "{first:?} {took:?}");
        }
        let mut idle = connect(address).await;
        idle.write_all(GET).await.expect("written");
        let took = closed(&mut idle).await;
        assert!(took.as_millis() >= 1_100, "an idle connection was closed after {took:?}");
        let mut second = connect(address).await;
        second.write_all(GET).await.expect("written");
        assert!(second.read(&mut [0; 1_000]).await.expect("an answer") > 0);
        tokio::time::sleep(Duration::from_millis(600)).await;
        second.write_all(b"G").await.expect("written");
        let dripping = async {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if second.write_all(b"E").await.is_err() {
                    return;
                }
            }
        };
        let began = Instant::now();
        tokio::time::timeout(Duration::from_secs(20), dripping).await.expect("closed");
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        serving.abort();
    }

    #[tokio::test]
    async fn a_client_that_never_reads_its_answer_is_closed_and_one_that_reads_slowly_is_not() {
        const BYTES: usize = 32 << 20;
        let (address, serving) = served(BYTES).await;
        let (mut stalled, mut slow) = (connect(address).await, connect(address).await);
        stalled.write_all(GET).await.expect("written");
        slow.write_all(GET).await.expect("written");
        let (mut read, mut buffer) = (0, vec![0; 1 << 20]);
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            read += slow.read(&mut buffer).await.expect("an answer");
        }
        let began = Instant::now();
        let cut = tokio::time::timeout(Duration::from_secs(20), stalled.read_to_end(&mut Vec::new())).await;
        assert!(cut.expect("closed").map_or(true, |read| read < BYTES), "it was cut off");
        assert!(began.elapsed() < Duration::from_secs(1));
        while read < BYTES {
            let more = slow.read(&mut buffer).await.expect("an answer");
            assert!(more > 0, "{read} of {BYTES}");
            read += more;
        }
        serving.abort();
    }

    #[tokio::test]
    async fn one_address_has_as_many_connections_as_it_may_have() {
        let (address, serving) = served(1).await;
        let mut open = Vec::new();
        for _ in 0..10 {
            open.push(connect(address).await);
        }
        let took = closed(&mut connect(address).await).await;
        assert!(took.as_millis() < 200, "the eleventh was closed after {took:?}");
        serving.abort();
    }

    #[test]
    fn clients_leave_descriptors_for_attempts_and_the_database() {
        for (files, expected) in
            [(u64::MAX, 10_000), (65_536, 10_000), (8_192, 5_632), (5_120, 2_560), (1_024, 512), (129, 64), (1, 1)]
        {
            assert_eq!(max_connections(files), expected, "{files}");
        }
    }
}

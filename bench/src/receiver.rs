//! The receiver: it answers at once, or is sick in one of the usual ways; it counts, and tells how long deliveries
//! took.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::HandshakeKind;

use crate::load::{micros, sent_at};

/// How a receiver behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// 200 at once.
    Healthy,
    /// 200 after this long.
    Slow(Duration),
    /// No answer.
    Hanging,
    /// 500 at once.
    Failing,
    /// The head of an answer, then a byte of its body ten times a second.
    Dripping,
}

/// What is kept of each request beside their number: it costs time that the floor should not pay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// The ids of deliveries, to find what came twice.
    Ids,
    /// How long each took from the moment at which it was due to be published.
    Times,
}

/// A receiver and what it knows.
#[derive(Clone)]
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    mode: Mutex<Mode>,
    heal: tokio::sync::Notify,
    keep: Keep,
    requests: AtomicUsize,
    ids: Mutex<HashSet<String>>,
    times: Mutex<Vec<u64>>,
    /// Of one over TLS.
    tls: Option<TlsAcceptor>,
    full_handshakes: AtomicUsize,
    resumed_handshakes: AtomicUsize,
    closes: AtomicBool,
}

/// Handshakes of a receiver over TLS.
#[derive(Clone, Copy, Debug)]
pub struct Handshakes {
    /// Those that began a session.
    pub full: usize,
    /// Those that resumed one.
    pub resumed: usize,
}

impl Handshakes {
    /// Those that came after these.
    pub fn since(self, before: Self) -> Self {
        Self { full: self.full - before.full, resumed: self.resumed - before.resumed }
    }

    /// How many there were.
    pub fn all(self) -> usize {
        self.full + self.resumed
    }
}

impl Receiver {
    /// Listens on a free port.
    pub async fn start(mode: Mode, keep: Keep) -> anyhow::Result<Self> {
        Self::start_with(mode, keep, None).await
    }

    /// The same over TLS. It is healthy.
    pub async fn start_tls(keep: Keep, tls: TlsAcceptor) -> anyhow::Result<Self> {
        Self::start_with(Mode::Healthy, keep, Some(tls)).await
    }

    async fn start_with(mode: Mode, keep: Keep, tls: Option<TlsAcceptor>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            mode: Mutex::new(mode),
            heal: tokio::sync::Notify::new(),
            keep,
            requests: AtomicUsize::new(0),
            ids: Mutex::default(),
            times: Mutex::default(),
            tls,
            full_handshakes: AtomicUsize::new(0),
            resumed_handshakes: AtomicUsize::new(0),
            closes: AtomicBool::new(false),
        });
        let receiver = Self { address, shared: shared.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, shared.clone()));
            }
        });
        Ok(receiver)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// From now on it is healthy; who waits for an answer gets one.
    pub fn heal(&self) {
        self.shared.behave(Mode::Healthy);
        self.shared.heal.notify_waiters();
    }

    /// From now on no request gets an answer.
    pub fn hang(&self) {
        self.shared.behave(Mode::Hanging);
    }

    /// From now on it closes a connection after its answer, or does not.
    pub fn close_after_answers(&self, closes: bool) {
        self.shared.closes.store(closes, Ordering::Relaxed);
    }

    /// Handshakes until now.
    pub fn handshakes(&self) -> Handshakes {
        let Shared { full_handshakes, resumed_handshakes, .. } = &*self.shared;
        Handshakes {
            full: full_handshakes.load(Ordering::Relaxed),
            resumed: resumed_handshakes.load(Ordering::Relaxed),
        }
    }

    /// Requests that have arrived.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Different deliveries that have arrived.
    pub fn deliveries(&self) -> usize {
        self.shared.ids.lock().map_or(0, |ids| ids.len())
    }

    /// How long deliveries took until they were here, in microseconds.
    pub fn times(&self) -> Vec<u64> {
        self.shared.times.lock().map_or(Vec::new(), |mut times| std::mem::take(&mut times))
    }
}

impl Shared {
    fn behave(&self, mode: Mode) {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }
}

async fn converse(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| receive(request, shared.clone()));
    // A sender that breaks off is no event of ours.
    match &shared.tls {
        None => {
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
        Some(tls) => {
            let Ok(stream) = tls.accept(stream).await else { return };
            let is_resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
            let count = if is_resumed { &shared.resumed_handshakes } else { &shared.full_handshakes };
            count.fetch_add(1, Ordering::Relaxed);
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    }
}

/// An answer's body: at once, or in drops.
type Body = Either<Full<Bytes>, Channel<Bytes>>;

async fn receive(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    match shared.keep {
        Keep::Nothing => {}
        Keep::Ids => {
            let id = head.headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or("").to_owned();
            shared.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        }
        Keep::Times => {
            let now = micros(Instant::now());
            let took = sent_at(&body).map(|at| now.saturating_sub(at));
            shared.times.lock().unwrap_or_else(PoisonError::into_inner).extend(took);
        }
    }
    shared.requests.fetch_add(1, Ordering::Relaxed);
    Ok(answer(&shared).await)
}

async fn answer(shared: &Shared) -> Response<Body> {
    let healed = shared.heal.notified();
    let mode = *shared.mode.lock().unwrap_or_else(PoisonError::into_inner);
    match mode {
        Mode::Healthy => {}
        Mode::Failing => {
            let mut failure = whole("oops");
            *failure.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return failure;
        }
        Mode::Slow(wait) => tokio::time::sleep(wait).await,
        // The sender may give up first, which ends this.
        Mode::Hanging => healed.await,
        Mode::Dripping => {
            let (mut drops, body) = Channel::new(1);
            tokio::spawn(async move {
                while drops.send_data(Bytes::from_static(b".")).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
            return Response::new(Either::Right(body));
        }
    }
    let mut answer = whole("ok");
    if shared.closes.load(Ordering::Relaxed) {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

fn whole(body: &'static str) -> Response<Body> {
    Response::new(Either::Left(Full::from(body)))
}

//! What the tests stand on: a server on port 0 with a fresh database, a receiver that remembers, and a small client.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aldaba::config::Config;
use aldaba::domain::id::AccountId;
use aldaba::domain::permission::{Permission, Permissions};
use aldaba::domain::time::Timestamp;
use aldaba::store::{Accounts, NewApiKey, Store};
use axum::body::Bytes;
use axum::http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{HandshakeKind, ServerConnection};

/// Longest wait for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A type that every new catalog has.
pub const EVENT: &str = "validation.completed";

/// A running server.
pub struct App {
    pub address: SocketAddr,
    /// Where `/metrics` is, where it has a listener of its own.
    pub metrics: Option<SocketAddr>,
    pub store: Store,
    pub account: AccountId,
    /// A key of the account that may do everything.
    pub key: String,
    /// A key of an operator.
    pub operator: String,
    folder: Arc<TempDir>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), aldaba::RunError>>,
}

impl App {
    /// In development, without rate limits.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With more settings, written like environment variables without their prefix.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        Self::in_folder(Arc::new(tempfile::tempdir().expect("a folder")), settings).await
    }

    /// Another server on the same database, with the same keys: only on PostgreSQL.
    pub async fn another(&self, settings: &[(&str, &str)]) -> Self {
        let mut next = Self::in_folder(self.folder.clone(), settings).await;
        (next.account, next.key, next.operator) = (self.account, self.key.clone(), self.operator.clone());
        next
    }

    async fn in_folder(folder: Arc<TempDir>, settings: &[(&str, &str)]) -> Self {
        // After a restart within one process the writer of the last server may need a moment to let go of the file.
        let app = eventually("the database to open", || async {
            match aldaba::App::open(config(folder.path(), settings)).await {
                Err(error) if error.to_string().contains("another server") => None,
                opened => Some(opened.expect("the database opens")),
            }
        })
        .await;
        let (store, metrics) = (app.store.clone(), app.metrics_address());
        let account = store.create_account("tests".into(), None).await.expect("an account").id;
        let key = key(&store, Some(account), &[Permission::All]).await;
        let operator = super::app::key(&store, None, &[Permission::All]).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(app.run(listener, async move {
            let _ = stopped.await;
        }));
        Self { address, metrics, store, account, key, operator, folder, stop: Some(stop), running }
    }

    /// Asks the server to stop, waits for it, and gives the folder of its database.
    pub async fn stop(mut self) -> Arc<TempDir> {
        drop(self.stop.take());
        let ended = tokio::time::timeout(PATIENCE, &mut self.running).await.expect("it stops in time");
        ended.expect("it does not panic").expect("it ends when it is asked to");
        self.folder.clone()
    }

    /// Stops the server and starts another on the same database.
    pub async fn restart(self, settings: &[(&str, &str)]) -> Self {
        let (account, key, operator) = (self.account, self.key.clone(), self.operator.clone());
        let folder = self.stop().await;
        let mut next = Self::in_folder(folder, settings).await;
        (next.account, next.key, next.operator) = (account, key, operator);
        next
    }

    /// A server on the database of one that was stopped.
    pub async fn again(folder: Arc<TempDir>) -> Self {
        Self::in_folder(folder, &[]).await
    }

    /// Where the database is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// One of the numbers that the server tells of itself, without the prefix of its name.
    pub async fn metric(&self, name: &str) -> u64 {
        let text = Call::new(self.address, "GET", "/metrics").send().await.text;
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("aldaba_{name} ")));
        line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// A key of the account that may do only this.
    pub async fn key_for(&self, permissions: &[Permission]) -> String {
        key(&self.store, Some(self.account), permissions).await
    }

    /// Another account and a key that may do everything in it.
    pub async fn stranger(&self) -> (AccountId, String) {
        let account = self.store.create_account("stranger".into(), None).await.expect("an account").id;
        (account, key(&self.store, Some(account), &[Permission::All]).await)
    }

    /// A call with the account's key.
    pub fn call(&self, method: &str, path: &str) -> Call {
        Call::new(self.address, method, path).bearer(&self.key)
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path).send().await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path).json(&body).send().await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call("PUT", path).json(&body).send().await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path).send().await
    }

    /// Registers an endpoint for [`EVENT`]: its id and its secret.
    pub async fn endpoint(&self, url: &str) -> (String, String) {
        let answer = self.post("/v1/webhooks", json!({ "url": url, "events": [EVENT] })).await.expect(201);
        (answer.id(), answer.attribute("secret").as_str().expect("a secret").to_owned())
    }

    /// Publishes an event and returns its id.
    pub async fn publish(&self, data: Value) -> String {
        self.post("/v1/events", json!({ "event": EVENT, "data": data })).await.expect(202).id()
    }

    /// Asks for a replay and returns its id.
    pub async fn replay(&self, endpoint: &str, body: Value) -> String {
        self.post(&format!("/v1/webhooks/{endpoint}/replay"), body).await.expect(202).id()
    }

    /// Waits until the replay is completed, and returns its attributes.
    pub async fn replayed(&self, replay: &str) -> Value {
        let path = format!("/v1/webhooks/replays/{replay}");
        eventually("a replay that is completed", || async {
            let found = self.get(&path).await.expect(200).json["data"]["attributes"].clone();
            (found["status"] == "completed").then_some(found)
        })
        .await
    }

    /// Waits until the newest delivery of the endpoint has this status, and returns its attributes and id.
    pub async fn delivery(&self, endpoint: &str, status: &str) -> Value {
        let path = format!("/v1/webhooks/{endpoint}/deliveries?per_page=1");
        eventually(&format!("a delivery that is {status}"), || async {
            let found = self.get(&path).await.expect(200).json["data"][0].clone();
            (found["attributes"]["status"] == status).then_some(found)
        })
        .await
    }
}

/// Settings of a server in this folder.
pub fn config(folder: &Path, settings: &[(&str, &str)]) -> Config {
    let base = [("ENVIRONMENT", "development".to_owned())].into_iter().chain(crate::database::settings(folder));
    let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned()));
    let named = base.chain(settings).map(|(name, value)| (format!("ALDABA_{name}"), value));
    Config::load(Some(Path::new("/dev/null")), without_limits().chain(named), []).expect("valid settings")
}

/// Settings by which calls are not limited: the machine decides how many there are.
pub fn without_limits() -> impl Iterator<Item = (String, String)> {
    let name = |bucket: &aldaba::api::Bucket| format!("ALDABA_RATE_LIMITS__{}", bucket.name().to_uppercase());
    aldaba::api::Bucket::ALL.iter().map(move |bucket| (name(bucket), "off".to_owned()))
}

/// Makes a key.
pub async fn key(store: &Store, account: Option<AccountId>, permissions: &[Permission]) -> String {
    let permissions: Permissions = permissions.iter().copied().collect();
    key_until(store, account, permissions, None).await
}

/// Makes a key that expires.
pub async fn key_until(
    store: &Store,
    account: Option<AccountId>,
    permissions: Permissions,
    expires_at: Option<Timestamp>,
) -> String {
    let new = NewApiKey { account, name: None, permissions, expires_at };
    let made = store.create_api_key(new, "mxcep_".into(), None).await.expect("a key");
    made.key.reveal().to_owned()
}

/// Asks until there is an answer.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let asking = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A request under construction.
pub struct Call {
    address: SocketAddr,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Call {
    pub fn new(address: SocketAddr, method: &str, path: &str) -> Self {
        Self { address, method: method.into(), path: path.into(), headers: vec![], body: vec![] }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    pub fn bearer(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub async fn send(self) -> Answer {
        self.try_send().await.expect("an answer")
    }

    /// `None` when the connection broke.
    #[expect(clippy::disallowed_methods, reason = "a test's client")]
    pub async fn try_send(self) -> Option<Answer> {
        let stream = TcpStream::connect(self.address).await.ok()?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(self.method.as_str()).uri(&self.path).header("host", "localhost");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(self.body))).expect("a request");
        let response = sender.send_request(request).await.ok()?;
        let (parts, body) = response.into_parts();
        let text = body.collect().await.ok()?.to_bytes();
        let json = serde_json::from_slice(&text).unwrap_or(Value::Null);
        let answer = Answer { status: parts.status.as_u16(), headers: parts.headers, text, json };
        crate::reference::check(&self.method, &self.path, &answer);
        Some(answer)
    }
}

/// A response, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: Bytes,
    pub json: Value,
}

impl Answer {
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.text));
        self
    }

    /// Checks the status, the code of the first error and its pointer (empty for none).
    #[track_caller]
    pub fn refused(self, status: u16, code: &str, pointer: &str) -> Self {
        let answer = self.expect(status);
        let error = &answer.json["errors"][0];
        assert_eq!(error["code"], code, "{}", answer.json);
        assert_eq!(error["status"], status.to_string());
        assert_eq!(error["source"]["pointer"].as_str().unwrap_or(""), pointer, "{}", answer.json);
        answer
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    pub fn id(&self) -> String {
        self.json["data"]["id"].as_str().expect("an id").to_owned()
    }

    pub fn attribute(&self, name: &str) -> &Value {
        &self.json["data"]["attributes"][name]
    }

    pub fn codes(&self) -> Vec<&str> {
        self.json["errors"].as_array().map_or(vec![], |list| list.iter().filter_map(|e| e["code"].as_str()).collect())
    }
}

/// What arrived at a receiver.
#[derive(Debug, Clone)]
pub struct Received {
    /// The head as it was sent.
    pub head: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: std::time::Instant,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

/// What a receiver does with the next request; when there is no more, it answers 200.
#[derive(Debug, Clone)]
pub enum Reply {
    Status(u16),
    /// With headers and a body.
    Full(u16, Vec<(&'static str, String)>, String),
    /// 200 after this long.
    Late(Duration),
    /// The same with a body.
    LateFull(Duration, String),
    /// Never.
    Hang,
    /// A head, and then a byte of the body every 50 ms.
    Drip,
    /// Closes the connection.
    Close,
}

/// A receiver that remembers what arrived.
pub struct Receiver {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    received: Mutex<Vec<Received>>,
    script: Mutex<VecDeque<Reply>>,
    always: Mutex<Option<Reply>>,
    connections: AtomicUsize,
    handshakes: Mutex<Vec<Handshake>>,
    arrived: Notify,
}

/// A TLS connection that a receiver has taken.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// Whether it resumed a session.
    pub is_resumed: bool,
    /// The certificate that the sender has shown.
    pub client: Option<Vec<u8>>,
}

impl Handshake {
    fn of(connection: &ServerConnection) -> Self {
        let client = connection.peer_certificates().and_then(|chain| chain.first());
        let is_resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        Self { is_resumed, client: client.map(|certificate| certificate.to_vec()) }
    }
}

impl Receiver {
    pub async fn start() -> Self {
        Self::on("127.0.0.1:0").await
    }

    pub async fn on(address: &str) -> Self {
        Self::listen(address, None).await
    }

    /// Over TLS.
    pub async fn over_tls(tls: TlsAcceptor) -> Self {
        Self::listen("127.0.0.1:0", Some(tls)).await
    }

    async fn listen(address: &str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let serving = tokio::spawn(accept(listener, tls, shared.clone()));
        Self { address, shared, serving }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// What it does with the next requests, in order.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.script.lock().expect("no panic").extend(replies);
    }

    /// What it does whenever the script is over.
    pub fn always(&self, reply: Reply) {
        *self.shared.always.lock().expect("no panic") = Some(reply);
    }

    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().expect("no panic").clone()
    }

    /// Connections that were ever opened to it.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// TLS connections that it has taken.
    pub fn handshakes(&self) -> Vec<Handshake> {
        self.shared.handshakes.lock().expect("no panic").clone()
    }

    /// Waits until so many requests have arrived.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        let waiting = async {
            loop {
                let arrived = self.shared.arrived.notified();
                let received = self.received();
                if received.len() >= count {
                    return received;
                }
                arrived.await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("{} of {count} requests arrived", self.received().len()))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let (shared, tls) = (shared.clone(), tls.clone());
        connections.spawn(async move {
            let Some(tls) = tls else { return converse(stream, shared).await };
            let stream = match tls.accept(stream).into_fallible().await {
                Ok(stream) => stream,
                Err((_, mut refused)) => {
                    // A connection that is closed with bytes unread is reset, and its client may miss the alert.
                    refused.shutdown().await.ok()?;
                    tokio::io::copy(&mut refused, &mut tokio::io::sink()).await.ok()?;
                    return None;
                }
            };
            shared.handshakes.lock().ok()?.push(Handshake::of(stream.get_ref().1));
            converse(stream, shared).await
        });
    }
}

/// Reads requests by hand, so that it can misbehave.
async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8(buffer[..end].to_vec()).ok()?;
        let mut lines = head.lines();
        let path = lines.next()?.split(' ').nth(1)?.to_owned();
        let mut headers = HeaderMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            headers.append(axum::http::HeaderName::try_from(name).ok()?, value.parse().ok()?);
        }
        let length: usize = headers.get("content-length")?.to_str().ok()?.parse().ok()?;
        while buffer.len() < end + length {
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        }
        let body = Bytes::copy_from_slice(&buffer[end..end + length]);
        buffer.drain(..end + length);
        let reply = {
            let next = shared.script.lock().ok()?.pop_front();
            next.or_else(|| shared.always.lock().ok()?.clone()).unwrap_or(Reply::Status(200))
        };
        shared.received.lock().ok()?.push(Received { head, path, headers, body, at: std::time::Instant::now() });
        shared.arrived.notify_waiters();
        match reply {
            Reply::Status(status) => {
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok");
                stream.write_all(answer.as_bytes()).await.ok()?;
            }
            Reply::Full(status, extra, text) => {
                let mut answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", text.len());
                for (name, value) in extra {
                    let _ = std::fmt::Write::write_fmt(&mut answer, format_args!("{name}: {value}\r\n"));
                }
                stream.write_all(format!("{answer}\r\n{text}").as_bytes()).await.ok()?;
            }
            Reply::Late(after) => {
                tokio::time::sleep(after).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.ok()?;
            }
            Reply::LateFull(after, text) => {
                tokio::time::sleep(after).await;
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                stream.write_all(answer.as_bytes()).await.ok()?;
            }
            Reply::Hang => std::future::pending().await,
            Reply::Drip => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await.ok()?;
                loop {
                    stream.write_all(b"x").await.ok()?;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            Reply::Close => return None,
        }
        stream.flush().await.ok()?;
    }
}

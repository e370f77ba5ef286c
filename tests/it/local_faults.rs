//! Faults of the server's own process or machine: receivers are not charged for them, and nothing is sent twice.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aldaba::domain::settings::EndpointSettings;
use aldaba::domain::url::{Environment, ReceiverUrl};
use aldaba::egress::{AttemptEnd, Egress, Lookup, LookupOwner, OnBegin, Resolver, Routing, StoredTarget};
use aldaba::store::{Endpoints, Intake};
use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

use crate::app::{EVENT, Receiver, Reply, eventually};
use crate::command_line::printed;
use crate::crash::Server;
use crate::fixture::Fixture;

/// A publisher that keeps one connection to the server.
struct Client {
    sender: SendRequest<Full<Bytes>>,
    key: String,
}

impl Client {
    /// Connects to the server with a key of a new account.
    async fn of_new_account(address: SocketAddr, folder: &Path) -> Self {
        let account = printed(folder, &["accounts", "create", "local faults"]);
        let key = printed(folder, &["keys", "create", "--account", &account]);
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(connect(address).await)).await.expect("connected");
        tokio::spawn(connection);
        Self { sender, key }
    }

    async fn call(&mut self, method: &str, path: &str, body: Value) -> (u16, Bytes) {
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(if body.is_null() { String::new() } else { body.to_string() })))
            .expect("a request");
        self.sender.ready().await.expect("the connection stands");
        let response = self.sender.send_request(request).await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.expect("a body").to_bytes())
    }

    /// While descriptors are missing, there may be none for a connection to the database either.
    async fn get(&mut self, path: &str) -> Value {
        let client = tokio::sync::Mutex::new(self);
        let body = eventually("an answer", || async {
            let (status, body) = client.lock().await.call("GET", path, Value::Null).await;
            assert!(matches!(status, 200 | 503), "{status} {}", String::from_utf8_lossy(&body));
            (status == 200).then_some(body)
        })
        .await;
        serde_json::from_slice(&body).expect("JSON")
    }

    async fn register(&mut self, url: &str) {
        let (status, body) = self.call("POST", "/v1/webhooks", json!({ "url": url, "events": [EVENT] })).await;
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
    }

    async fn publish(&mut self) {
        let (status, _) = self.call("POST", "/v1/events", json!({ "event": EVENT, "data": {} })).await;
        assert_eq!(status, 202);
    }

    /// Waits until there are so many deliveries and each has an outcome; returns their attributes.
    async fn ended(&mut self, count: usize) -> Vec<Value> {
        let client = tokio::sync::Mutex::new(self);
        eventually("every delivery to have an outcome", || async {
            let page = client.lock().await.get("/v1/webhooks/deliveries?per_page=100").await;
            let deliveries = page["data"].as_array().expect("a list");
            let open = |delivery: &Value| delivery["attributes"]["status"] == "pending";
            (deliveries.len() == count && !deliveries.iter().any(open))
                .then(|| deliveries.iter().map(|delivery| delivery["attributes"].clone()).collect())
        })
        .await
    }

    /// Endpoints that an attempt has failed to.
    async fn charged(&mut self) -> usize {
        let page = self.get("/v1/webhooks?per_page=100").await;
        let well = |endpoint: &&Value| {
            endpoint["attributes"]["consecutive_failures"] == 0 && endpoint["attributes"]["status"] == "active"
        };
        let endpoints = page["data"].as_array().expect("a list");
        endpoints.len() - endpoints.iter().filter(well).count()
    }

    async fn metric(&mut self, name: &str) -> u64 {
        let (_, text) = self.call("GET", "/metrics", Value::Null).await;
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("aldaba_{name} ")));
        line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no metric {name}"))
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's client")]
pub async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("connected")
}

/// A connection that comes from another address of this machine.
#[expect(clippy::disallowed_methods, reason = "a test's client")]
pub async fn connect_from(source: &str, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{source}:0").parse().expect("an address")).expect("bound");
    socket.connect(address).await.expect("connected")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_while_the_process_was_stopped_is_not_sent_again_and_is_no_failure() {
    const ENDPOINTS: usize = 20;
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = Receiver::start().await;
    receiver.always(Reply::Late(Duration::from_millis(500)));
    let settings = [("ALDABA_WEBHOOKS__TIMEOUT", "2s"), ("ALDABA_WEBHOOKS__RETRY_SCHEDULE", "100ms,100ms,100ms")];
    let server = Server::start(folder.path(), &settings);
    let mut client = Client::of_new_account(server.address, folder.path()).await;
    for _ in 0..ENDPOINTS {
        client.register(&receiver.url()).await;
    }
    client.publish().await;
    client.publish().await;
    receiver.wait_for(2 * ENDPOINTS).await;
    server.signal("STOP");
    // Twice the timeout: every attempt's deadline passes while its answer waits in the socket.
    tokio::time::sleep(Duration::from_secs(4)).await;
    server.signal("CONT");
    let deliveries = client.ended(2 * ENDPOINTS).await;
    for delivery in deliveries {
        assert_eq!((&delivery["status"], &delivery["attempt"]), (&json!("success"), &json!(1)), "{delivery}");
    }
    assert_eq!(receiver.received().len(), 2 * ENDPOINTS, "nothing is sent twice");
    assert_eq!(client.charged().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_without_file_descriptors_charges_no_receiver_whoever_takes_them() {
    const RECEIVERS: usize = 40;
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start_with_at_most_files(folder.path(), 128, &[("ALDABA_WEBHOOKS__RETRY_SCHEDULE", "1h")]);
    let mut client = Client::of_new_account(server.address, folder.path()).await;
    let mut receivers = Vec::new();
    for _ in 0..RECEIVERS {
        let receiver = Receiver::start().await;
        // Slow enough that there are more attempts at once than there are descriptors for them.
        receiver.always(Reply::Late(Duration::from_millis(300)));
        client.register(&receiver.url()).await;
        receivers.push(receiver);
    }
    // More than the process may open, from two networks: one has no more than half of them.
    let mut idle = Vec::new();
    for n in 0..150 {
        idle.push(connect_from(if n < 75 { "127.0.0.1" } else { "127.0.1.1" }, server.address).await);
    }
    client.publish().await;
    client.publish().await;
    let deliveries = client.ended(2 * RECEIVERS).await;
    let failed: Vec<_> = deliveries.iter().filter(|delivery| delivery["status"] != "success").collect();
    assert!(failed.is_empty(), "{} attempts failed: {}", failed.len(), failed[0]);
    assert_eq!(client.charged().await, 0);
    assert!(client.metric("attempts_local_fault_total").await > 0, "the descriptors were too few");
    drop(idle);
}

/// A resolver whose look-ups wait for this process before they begin.
struct WaitsForPermit(Duration);

impl Resolver for WaitsForPermit {
    fn resolve<'a>(&'a self, _: &'a str, _: LookupOwner, on_begin: OnBegin<'a>) -> Lookup<'a> {
        Box::pin(async move {
            tokio::time::sleep(self.0).await;
            on_begin();
            Ok(vec![Ipv4Addr::LOCALHOST.into()])
        })
    }
}

#[tokio::test]
async fn the_wait_for_a_look_ups_permit_is_not_timed_against_the_receiver() {
    let mut f = Fixture::new().await;
    let receiver = Receiver::start().await;
    let url = format!("http://localhost:{}/", receiver.address.port());
    let url = ReceiverUrl::parse(&url, Environment::Development).expect("a URL");
    let new = EndpointSettings::new(&url, vec![EVENT.into()]);
    f.store.create_endpoint(f.account, new.into(), None).await.expect("an endpoint");
    f.store.accept(vec![f.event(1)], None).await.expect("accepted");
    let job = f.jobs(1).await.remove(0).job;
    let (timeout, wait) = (Duration::from_secs(1), Duration::from_secs(2));
    let resolver = Arc::new(WaitsForPermit(wait));
    let routing = Routing::direct(Environment::Development);
    let egress = Egress::new(routing, "Aldaba", timeout, f.clock.clone(), resolver, None);
    let row = StoredTarget { store: &f.store, job: &job, requires_active: true, start: None };
    let AttemptEnd::Outcome(outcome) = egress.attempt(&job, &row).await else { panic!("it was made") };
    assert_eq!((outcome.http_status, outcome.error), (Some(200), None));
    assert!(outcome.duration_ms < 1_000, "{} ms", outcome.duration_ms);
}

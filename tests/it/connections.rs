//! Connections that strangers hold: how many one address may have, and what is left for others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::app::{App, Call, eventually};
use crate::command_line::printed;
use crate::crash::Server;
use crate::local_faults::{connect, connect_from};

/// Sends a request and reads all that comes until the server closes; nothing where it does not in time.
async fn ask(mut stream: TcpStream, path: &str, more: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{more}\r\n");
    let _ = stream.write_all(request.as_bytes()).await;
    let mut text = String::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut text)).await;
    text
}

/// How long `/healthz` takes for somebody with another address.
async fn health(address: SocketAddr) -> Duration {
    let began = Instant::now();
    let answer = ask(connect_from("127.0.0.2", address).await, "/healthz", "").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?} after {:?}", began.elapsed());
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_a_bounded_number_of_connections_and_others_have_theirs() {
    let app = App::with(&[("LIMITS__CONNECTIONS_PER_ADDRESS", "20")]).await;
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(connect(app.address).await);
    }
    let refused = eventually("a refusal", || async {
        let answer = ask(connect(app.address).await, "/healthz", "").await;
        // A client that is still writing may find the connection reset.
        answer.starts_with("HTTP/1.1 5").then_some(answer)
    })
    .await;
    assert!(refused.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{refused}");
    assert!(refused.contains("\r\nretry-after: ") && refused.contains("\r\nconnection: close\r\n"), "{refused}");
    assert!(refused.contains("\"code\":\"unavailable\"") && refused.contains("x-request-id: "), "{refused}");
    health(app.address).await;
    held.truncate(10);
    eventually("a place for another connection", || async {
        let answer = ask(connect(app.address).await, "/healthz", "").await;
        answer.starts_with("HTTP/1.1 200 ").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_trusted_proxy_the_requests_of_each_forwarded_address_are_bounded() {
    let settings = [("LIMITS__CONNECTIONS_PER_ADDRESS", "3"), ("TRUSTED_PROXIES", "127.0.0.1")];
    let app = App::with(&settings).await;
    let hold = |from: &'static str| {
        let (address, key) = (app.address, app.key.clone());
        async move {
            let mut stream = connect(address).await;
            let request = format!(
                "POST /v1/events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\
                 x-forwarded-for: {from}\r\ncontent-length: 100\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.expect("written");
            stream
        }
    };
    let ask = |from: &str| Call::new(app.address, "GET", "/healthz").header("x-forwarded-for", from).send();
    let mut streams = vec![hold("2001:db8:0:1::7").await];
    let refused = loop {
        streams.push(hold("203.0.113.7").await);
        let answer = ask("203.0.113.7").await;
        if answer.status != 200 {
            break answer;
        }
        assert!(streams.len() < 500, "no address is refused");
    };
    assert!(refused.refused(503, "unavailable", "").json["errors"][0]["meta"]["reason"].is_string());
    ask("203.0.113.8").await.expect(200);
    ask("2001:db8:0:1::8").await.expect(200);
    for _ in 0..20 {
        streams.push(connect(app.address).await);
    }
    ask("203.0.113.8").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_heads_of_one_byte_leave_health_to_others() {
    let app = App::with(&[("LIMITS__CONNECTIONS_PER_ADDRESS", "200")]).await;
    let mut held = Vec::new();
    for _ in 0..300 {
        let mut stream = connect(app.address).await;
        let _ = stream.write_all(b"G").await;
        held.push(stream);
    }
    let took = health(app.address).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn the_listener_of_the_metrics_takes_few_connections_of_an_address() {
    let app = App::with(&[("METRICS_LISTEN", "127.0.0.1:0")]).await;
    let metrics = app.metrics.expect("a listener of its own");
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(connect(metrics).await);
    }
    // Without a request: one that is not read resets the connection, and the refusal with it.
    let mut refused = String::new();
    connect(metrics).await.read_to_string(&mut refused).await.expect("a refusal");
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    health(app.address).await;
    held.truncate(10);
    eventually("room for another connection", || async {
        let answer = ask(connect(metrics).await, "/metrics", "").await;
        answer.starts_with("HTTP/1.1 200 ").then_some(())
    })
    .await;
}

/// Connects again and again. Each request's body comes a byte at a time, until the server closes the connection.
async fn drip(source: String, address: SocketAddr, key: String, begun: Arc<AtomicUsize>) {
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: 1000\r\n\r\n"
    );
    loop {
        let mut stream = connect_from(&source, address).await;
        let mut sent = stream.write_all(head.as_bytes()).await;
        begun.fetch_add(1, Ordering::Relaxed);
        while sent.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
            sent = stream.write_all(b" ").await;
        }
    }
}

/// All connections were taken by a few networks, and nobody else was even accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_drip_from_many_networks_leave_prompt_answers_to_others() {
    const NETWORKS: usize = 11;
    const OF_EACH: usize = 10;
    let folder = tempfile::tempdir().expect("a folder");
    // 64 of the files are for clients.
    let server = Server::start_with_at_most_files(folder.path(), 128, &[]);
    let account = printed(folder.path(), &["accounts", "create", "slow"]);
    let key = printed(folder.path(), &["keys", "create", "--account", &account]);
    let (mut dripping, begun) = (tokio::task::JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for n in 0..NETWORKS * OF_EACH {
        let source = format!("127.0.{}.1", n % NETWORKS + 1);
        dripping.spawn(drip(source, server.address, key.clone(), begun.clone()));
    }
    eventually("every place to be taken", || async {
        (begun.load(Ordering::Relaxed) >= NETWORKS * OF_EACH).then_some(())
    })
    .await;
    // It takes a while until it shows that they are slow.
    eventually("ten prompt answers, one after another", || async {
        for _ in 0..10 {
            let asked_at = Instant::now();
            let answer = ask(connect_from("127.0.100.1", server.address).await, "/healthz", "").await;
            if !answer.starts_with("HTTP/1.1 200 ") || asked_at.elapsed() > Duration::from_secs(1) {
                return None;
            }
        }
        Some(())
    })
    .await;
    dripping.abort_all();
}

/// Opens connections from many addresses, each of which may have its share.
async fn flood(address: SocketAddr, connections: usize, text: &'static str) -> Vec<TcpStream> {
    let mut opening = tokio::task::JoinSet::new();
    for n in 0..connections {
        opening.spawn(async move {
            let mut stream = connect_from(&format!("127.0.{}.1", n % 16 + 1), address).await;
            let _ = stream.write_all(text.as_bytes()).await;
            stream
        });
    }
    opening.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn ten_thousand_heads_of_one_byte_leave_health_within_a_second_and_are_closed() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), &[]);
    let held = flood(server.address, 12_000, "G").await;
    // Until the server has accepted them, the kernel's queue is full and drops the first packet of whoever comes.
    eventually("all of them to be accepted", || async {
        (health(server.address).await < Duration::from_millis(500)).then_some(())
    })
    .await;
    for _ in 0..20 {
        let took = health(server.address).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    let began = Instant::now();
    // Each has 10 s from its acceptance. A client whose last packet of the handshake was dropped sends again, more and
    // more seldom.
    let closing = async {
        for mut stream in held {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), closing).await.expect("every connection is closed");
    eprintln!("closed after {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn clients_that_never_read_their_answers_leave_health_within_a_second_and_are_closed() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), &[]);
    let (before, _) = server.memory();
    let mut held = Vec::new();
    for mut stream in flood(server.address, 300, "").await {
        held.push(tokio::spawn(async move {
            let began = Instant::now();
            let requests = "GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(10);
            // It writes until the server closes.
            while stream.write_all(requests.as_bytes()).await.is_ok() {
                assert!(began.elapsed() < Duration::from_secs(90), "it was not closed");
            }
        }));
    }
    // The machine is busy until every client is stuck.
    eventually("the clients to be stuck", || async {
        let began = Instant::now();
        let answer = ask(connect_from("127.0.0.2", server.address).await, "/healthz", "").await;
        (answer.starts_with("HTTP/1.1 200 ") && began.elapsed() < Duration::from_millis(100)).then_some(())
    })
    .await;
    for _ in 0..50 {
        let took = health(server.address).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let (_, most) = server.memory();
    eprintln!("{} MiB more", most - before);
    assert!(most - before < 100, "{before} MiB before and {most} at most");
    for reader in held {
        tokio::time::timeout(Duration::from_secs(60), reader).await.expect("closed in time").expect("no panic");
    }
}

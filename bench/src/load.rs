//! The load: a closed loop that sends as fast as answers come, and an open one that keeps its rate whatever comes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Mutex, mpsc};

use crate::http::{Connection, Message, request};

/// Keep-alive connections.
pub const CONNECTIONS: usize = 64;

/// Bytes of a delivered body, about.
pub const BODY_BYTES: usize = 500;

/// The type that is published.
pub const EVENT: &str = "validation.completed";

/// What the times in bodies count from.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Added to those times, so that each has 13 digits.
const OFFSET: u64 = 1_000_000_000_000;

/// What stands before the time in a body.
const MARK: &str = "\"at\":";

/// Microseconds since the benchmark began.
pub fn micros(at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(*BEGIN).as_micros()).unwrap_or(u64::MAX)
}

/// The padding that brings a delivered body to its size.
fn padding() -> String {
    "x".repeat(BODY_BYTES - 190)
}

/// An event's body.
pub fn event(event_type: &str) -> String {
    format!(r#"{{"event":"{event_type}","data":{{{MARK}{OFFSET},"padding":"{}"}}}}"#, padding())
}

/// The time that a delivered body carries.
pub fn sent_at(body: &[u8]) -> Option<u64> {
    let at = body.windows(MARK.len()).position(|window| window == MARK.as_bytes())? + MARK.len();
    let digits = std::str::from_utf8(body.get(at..at + 13)?).ok()?;
    digits.parse::<u64>().ok()?.checked_sub(OFFSET)
}

/// Requests that publish an event of each type. They share all that is the same, so that many of them are in the
/// processor's caches as one is.
pub fn publish_each(key: &str, event_types: &[String]) -> anyhow::Result<Vec<Message>> {
    let events: Vec<String> = event_types.iter().map(|event_type| event(event_type)).collect();
    let first = request("POST", "/v1/events", key, "")?;
    let mut all = Bytes::from(events.concat());
    Ok(events.iter().map(|event| first.with(all.split_to(event.len()))).collect())
}

/// A request that publishes an event of this type.
pub fn publish(key: &str, event_type: &str) -> anyhow::Result<Message> {
    request("POST", "/v1/events", key, &event(event_type))
}

/// Puts the time into a request that carries one.
fn stamp(request: &mut Message, at: u64) {
    let mut body = request.body.to_vec();
    if let Some(place) = body.windows(MARK.len()).position(|window| window == MARK.as_bytes()) {
        let place = place + MARK.len();
        body[place..place + 13].copy_from_slice((OFFSET + at).to_string().as_bytes());
    }
    request.body = body.into();
}

async fn connections(address: SocketAddr) -> anyhow::Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(address).await?);
    }
    Ok(connections)
}

/// Sends `count` requests, in turn from the list, over all connections, each as soon as the answer before it came.
/// Returns how long it took.
pub async fn closed(
    address: SocketAddr,
    requests: Vec<Message>,
    count: usize,
    expected: u16,
) -> anyhow::Result<Duration> {
    let next = Arc::new(AtomicUsize::new(0));
    let requests: Arc<[Message]> = requests.into();
    let connections = connections(address).await?;
    let begin = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for mut connection in connections {
        let (next, requests) = (next.clone(), requests.clone());
        workers.spawn(async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return anyhow::Ok(());
                }
                let answer = connection.send(&requests[index % requests.len()]).await?;
                answer.expect(expected)?;
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(begin.elapsed())
}

/// Sends requests in turn from the list at a fixed rate for this long, however late answers come. Returns how long each
/// answer took from the moment at which its request was due, in microseconds.
pub async fn open(
    address: SocketAddr,
    requests: Vec<Message>,
    per_second: u32,
    time: Duration,
    expected: u16,
) -> anyhow::Result<Vec<u64>> {
    let (due, to_send) = mpsc::unbounded_channel::<(usize, Instant)>();
    let to_send = Arc::new(Mutex::new(to_send));
    let requests: Arc<[Message]> = requests.into();
    let mut workers = tokio::task::JoinSet::new();
    for mut connection in connections(address).await? {
        let (to_send, requests) = (to_send.clone(), requests.clone());
        workers.spawn(async move {
            let mut took = Vec::new();
            loop {
                let next = to_send.lock().await.recv().await;
                let Some((index, at)) = next else { return anyhow::Ok(took) };
                let mut request = requests[index % requests.len()].clone();
                stamp(&mut request, micros(at));
                let answer = connection.send(&request).await?;
                answer.expect(expected)?;
                took.push(micros(Instant::now()) - micros(at));
            }
        });
    }
    // The runtime's timer knows milliseconds only: a thread that sleeps is more exact.
    let pacer = std::thread::spawn(move || {
        let begin = Instant::now();
        let pause = Duration::from_secs(1) / per_second;
        for index in 0.. {
            let at = begin + pause * index;
            if at.duration_since(begin) >= time {
                break;
            }
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if due.send((index as usize, at)).is_err() {
                break;
            }
        }
    });
    let mut took = Vec::new();
    while let Some(worker) = workers.join_next().await {
        took.append(&mut worker??);
    }
    pacer.join().map_err(|_| anyhow::anyhow!("the pacer panicked"))?;
    Ok(took)
}

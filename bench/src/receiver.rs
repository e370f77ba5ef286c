//! The receiver: it answers at once, or is sick in one of the usual ways; it counts, and tells how long deliveries took.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::http::{content_length, head_end, header};
use crate::load::{micros, sent_at};

/// What a healthy receiver answers.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// What a failing one answers.
const FAILURE: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\noops";

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
    mode: Mode,
    /// Well again, whatever its mode was.
    healed: AtomicBool,
    heal: tokio::sync::Notify,
    keep: Keep,
    requests: AtomicUsize,
    ids: Mutex<HashSet<String>>,
    times: Mutex<Vec<u64>>,
}

impl Receiver {
    /// Listens on a free port.
    pub async fn start(mode: Mode, keep: Keep) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            mode,
            healed: AtomicBool::new(false),
            heal: tokio::sync::Notify::new(),
            keep,
            requests: AtomicUsize::new(0),
            ids: Mutex::default(),
            times: Mutex::default(),
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
        self.shared.healed.store(true, Ordering::SeqCst);
        self.shared.heal.notify_waiters();
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

async fn converse(mut stream: TcpStream, shared: Arc<Shared>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut buffer = Vec::with_capacity(4_096);
    loop {
        let end = loop {
            if let Some(end) = head_end(&buffer) {
                break end;
            }
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let whole = end + content_length(&buffer[..end]).ok()?;
        while buffer.len() < whole {
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        }
        match shared.keep {
            Keep::Nothing => {}
            Keep::Ids => {
                let id = header(&buffer[..end], "webhook-id").unwrap_or("").to_owned();
                shared.ids.lock().ok()?.insert(id);
            }
            Keep::Times => {
                let now = micros(Instant::now());
                let took = sent_at(&buffer[end..whole]).map(|at| now.saturating_sub(at));
                shared.times.lock().ok()?.extend(took);
            }
        }
        buffer.drain(..whole);
        shared.requests.fetch_add(1, Ordering::Relaxed);
        answer(&mut stream, &shared).await?;
    }
}

async fn answer(stream: &mut TcpStream, shared: &Shared) -> Option<()> {
    let healed = shared.heal.notified();
    let mode = if shared.healed.load(Ordering::SeqCst) { Mode::Healthy } else { shared.mode };
    match mode {
        Mode::Healthy => stream.write_all(ANSWER).await.ok(),
        Mode::Failing => stream.write_all(FAILURE).await.ok(),
        Mode::Slow(wait) => {
            tokio::time::sleep(wait).await;
            stream.write_all(ANSWER).await.ok()
        }
        Mode::Hanging => {
            // The sender may give up first, which is seen as an end of what can be read.
            let mut nothing = [0; 1];
            tokio::select! {
                () = healed => stream.write_all(ANSWER).await.ok(),
                _ = stream.read(&mut nothing) => None,
            }
        }
        Mode::Dripping => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await.ok()?;
            loop {
                stream.write_all(b".").await.ok()?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

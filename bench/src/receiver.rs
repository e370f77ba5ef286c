//! A lean receiver: it answers 200 and counts, each delivery id once.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::http::{content_length, head_end, header};

/// What it answers.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A receiver and its counts.
#[derive(Clone)]
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicUsize,
    ids: Mutex<HashSet<String>>,
    /// Whether ids are kept: it costs time that the floor should not pay.
    keep_ids: bool,
}

impl Receiver {
    /// Listens on a free port.
    pub async fn start(keep_ids: bool) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let counts = Arc::new(Counts { keep_ids, ..Counts::default() });
        let receiver = Self { address, counts: counts.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, counts.clone()));
            }
        });
        Ok(receiver)
    }

    /// Requests that have arrived.
    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::Relaxed)
    }

    /// Different deliveries that have arrived.
    pub fn deliveries(&self) -> usize {
        self.counts.ids.lock().map_or(0, |ids| ids.len())
    }
}

async fn converse(mut stream: TcpStream, counts: Arc<Counts>) -> Option<()> {
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
        if counts.keep_ids {
            let id = header(&buffer[..end], "webhook-id").unwrap_or("").to_owned();
            counts.ids.lock().ok()?.insert(id);
        }
        buffer.drain(..whole);
        counts.requests.fetch_add(1, Ordering::Relaxed);
        stream.write_all(ANSWER).await.ok()?;
    }
}

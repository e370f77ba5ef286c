//! The generator's end of HTTP: hyper's client over keep-alive connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A request that can be sent again and again. Many that differ in their bodies alone share the rest.
#[derive(Clone)]
pub struct Message {
    head: Arc<Request<()>>,
    /// Its body.
    pub body: Bytes,
}

impl Message {
    /// The same with another body.
    pub fn with(&self, body: Bytes) -> Self {
        Self { head: self.head.clone(), body }
    }

    fn to_request(&self) -> Request<Full<Bytes>> {
        Request::clone(&self.head).map(|()| Full::new(self.body.clone()))
    }
}

/// One keep-alive connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

/// A whole answer.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Fails with what the answer says where it has another status.
    pub fn expect(&self, status: u16) -> anyhow::Result<()> {
        ensure!(self.status == status, "{} instead of {status}: {}", self.status, String::from_utf8_lossy(&self.body));
        Ok(())
    }
}

/// A body that came in chunks.
pub struct Download {
    /// The body.
    pub body: Vec<u8>,
    /// From the request to the first byte of it.
    pub first: Duration,
    /// And to the last.
    pub whole: Duration,
}

impl Connection {
    /// Connects.
    #[expect(clippy::disallowed_methods, reason = "a load generator talks to 127.0.0.1 only")]
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("the server accepts connections")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // What breaks it off is told to whoever sends.
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Sends one request and reads its answer.
    pub async fn send(&mut self, message: &Message) -> anyhow::Result<Answer> {
        self.sender.ready().await?;
        let response = self.sender.send_request(message.to_request()).await?;
        let status = response.status().as_u16();
        Ok(Answer { status, body: response.into_body().collect().await?.to_bytes() })
    }

    /// Sends one request and reads its answer, which must be a success that comes in chunks (RFC 9112, section 7.1).
    pub async fn download(&mut self, message: &Message) -> anyhow::Result<Download> {
        self.sender.ready().await?;
        let begin = Instant::now();
        let mut response = self.sender.send_request(message.to_request()).await?;
        let status = response.status().as_u16();
        let chunked = response.headers().get(TRANSFER_ENCODING).is_some_and(|value| value == "chunked");
        ensure!(status == 200 && chunked, "{status} instead of a file in chunks");
        let (mut body, mut first) = (Vec::new(), None);
        while let Some(frame) = response.body_mut().frame().await {
            first.get_or_insert_with(|| begin.elapsed());
            if let Ok(data) = frame?.into_data() {
                body.extend_from_slice(&data);
            }
        }
        let whole = begin.elapsed();
        Ok(Download { body, first: first.unwrap_or(whole), whole })
    }
}

/// A request.
pub fn request(method: &str, path: &str, key: &str, body: &str) -> anyhow::Result<Message> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "127.0.0.1")
        .header(AUTHORIZATION, format!("Bearer {key}"))
        .header(CONTENT_TYPE, "application/json");
    Ok(Message { head: Arc::new(request.body(())?), body: Bytes::copy_from_slice(body.as_bytes()) })
}

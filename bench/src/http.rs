//! A lean HTTP/1.1 client: requests as ready bytes over keep-alive connections, and just enough of the answers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One keep-alive connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A whole answer.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
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
        Ok(Self { stream, buffer: Vec::with_capacity(4_096) })
    }

    /// Sends one request and reads its answer.
    pub async fn send(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        self.stream.write_all(request).await?;
        let head = self.head().await?;
        let length = content_length(&self.buffer[..head])?;
        while self.buffer.len() < head + length {
            self.more().await?;
        }
        let status = self.status()?;
        let body = self.buffer[head..head + length].to_vec();
        self.buffer.drain(..head + length);
        Ok(Answer { status, body })
    }

    /// Sends one request and reads its answer, which must be a success that comes in chunks (RFC 9112, section 7.1).
    pub async fn download(&mut self, request: &[u8]) -> anyhow::Result<Download> {
        let begin = Instant::now();
        self.stream.write_all(request).await?;
        let head = self.head().await?;
        let status = self.status()?;
        let chunked = header(&self.buffer[..head], "transfer-encoding") == Some("chunked");
        ensure!(status == 200 && chunked, "{status} instead of a file in chunks");
        self.buffer.drain(..head);
        let (mut body, mut first) = (Vec::new(), None);
        loop {
            let line = loop {
                match self.buffer.windows(2).position(|window| window == b"\r\n") {
                    Some(at) => break at,
                    None => self.more().await?,
                }
            };
            let size = usize::from_str_radix(std::str::from_utf8(&self.buffer[..line])?, 16)?;
            let (start, end) = (line + 2, line + 2 + size);
            while self.buffer.len() <= start {
                self.more().await?;
            }
            first.get_or_insert_with(|| begin.elapsed());
            while self.buffer.len() < end + 2 {
                self.more().await?;
            }
            body.extend_from_slice(&self.buffer[start..end]);
            self.buffer.drain(..end + 2);
            if size == 0 {
                let whole = begin.elapsed();
                return Ok(Download { body, first: first.unwrap_or(whole), whole });
            }
        }
    }

    /// Reads until the whole head is there. Returns where it ends.
    async fn head(&mut self) -> anyhow::Result<usize> {
        loop {
            if let Some(end) = head_end(&self.buffer) {
                return Ok(end);
            }
            self.more().await?;
        }
    }

    /// The status of the answer whose head is there.
    fn status(&self) -> anyhow::Result<u16> {
        Ok(std::str::from_utf8(self.buffer.get(9..12).context("a status line")?)?.parse()?)
    }

    /// Reads what there is.
    async fn more(&mut self) -> anyhow::Result<()> {
        ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the connection was closed");
        Ok(())
    }
}

/// Where the head ends.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// The value of a header, found without regard to case.
pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// The length of the body.
pub fn content_length(head: &[u8]) -> anyhow::Result<usize> {
    Ok(header(head, "content-length").unwrap_or("0").parse()?)
}

/// A request as bytes.
pub fn request(method: &str, path: &str, key: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

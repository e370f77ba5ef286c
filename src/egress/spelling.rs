//! Names of headers in the case in which their owner wrote them. Names have no case (RFC 9110, section 5.1), but some
//! receivers look for one; hyper writes small letters.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::lock::Mutex;

/// The names that the next request of a connection has in another case.
pub(super) struct Spelling(Arc<Mutex<Vec<String>>>);

impl Spelling {
    /// The spelling of a new connection, and the stream that writes it.
    pub fn of<S>(stream: S) -> (Self, SpelledStream<S>) {
        let names = Arc::new(Mutex::default());
        (Self(names.clone()), SpelledStream { stream, names, spelled: Vec::new(), written: 0 })
    }

    /// A request with these names goes out.
    pub fn spell(&self, names: Vec<String>) {
        *self.0.lock() = names;
    }
}

/// A connection that writes names in the case in which they were given.
pub(super) struct SpelledStream<S> {
    stream: S,
    names: Arc<Mutex<Vec<String>>>,
    /// What stands for the bytes that are being written, and how much of it is written.
    spelled: Vec<u8>,
    written: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for SpelledStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SpelledStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let names = std::mem::take(&mut *this.names.lock());
        if !names.is_empty() {
            // The first write after the names were given: hyper has the whole head in it.
            debug_assert!(this.spelled.is_empty(), "one request is written at a time");
            this.spelled = bytes.to_vec();
            spell(&mut this.spelled, &names);
        }
        if this.spelled.is_empty() {
            return Pin::new(&mut this.stream).poll_write(context, bytes);
        }
        // hyper goes on with the bytes of which it was told that they are not written yet.
        let count = ready!(Pin::new(&mut this.stream).poll_write(context, &this.spelled[this.written..]))?;
        this.written += count;
        if this.written == this.spelled.len() {
            (this.spelled, this.written) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Writes the names of a request's head in the case of `names`. Nothing else changes, and nothing moves.
fn spell(request: &mut [u8], names: &[String]) {
    let mut rest = request;
    while let Some(length) = rest.windows(2).position(|end| end == b"\r\n") {
        let (line, after) = rest.split_at_mut(length);
        if line.is_empty() {
            // The head is over.
            return;
        }
        if let Some(colon) = line.iter().position(|byte| *byte == b':') {
            let name = &mut line[..colon];
            if let Some(spelled) = names.iter().find(|known| known.as_bytes().eq_ignore_ascii_case(name)) {
                name.copy_from_slice(spelled.as_bytes());
            }
        }
        rest = &mut after[2..];
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const REQUEST: &[u8] = b"POST /x-key: HTTP/1.1\r\nx-key: x-key\r\nhost: a\r\nx-other: x-key:\r\n\r\nx-key: a\r\n";

    #[test]
    fn names_of_the_head_are_spelled_and_nothing_else() {
        let mut request = REQUEST.to_vec();
        spell(&mut request, &["X-KEY".to_owned(), "x-OTHER".to_owned(), "Absent".to_owned()]);
        let expected = b"POST /x-key: HTTP/1.1\r\nX-KEY: x-key\r\nhost: a\r\nx-OTHER: x-key:\r\n\r\nx-key: a\r\n";
        assert_eq!(String::from_utf8_lossy(&request), String::from_utf8_lossy(expected));
        for broken in ["", "\r\n", "x-key", "x-key: a\r\n", "x-key: a\r", ":\r\n\r\n"] {
            let mut bytes = broken.as_bytes().to_vec();
            spell(&mut bytes, &["X-Key".to_owned()]);
            assert_eq!(bytes.to_ascii_lowercase(), broken.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_request_that_is_written_bit_by_bit_is_spelled_once_and_the_next_one_is_not() {
        // The other side takes 16 bytes at a time.
        let (near, mut far) = tokio::io::duplex(16);
        let (spelling, mut stream) = Spelling::of(near);
        spelling.spell(vec!["X-Key".to_owned()]);
        let writing = tokio::spawn(async move {
            stream.write_all(REQUEST).await.expect("written");
            stream.write_all(REQUEST).await.expect("written");
        });
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.expect("read");
        writing.await.expect("no panic");
        let text = String::from_utf8(received).expect("text");
        let (first, second) = text.split_at(REQUEST.len());
        assert!(first.contains("\r\nX-Key: x-key\r\n") && first.eq_ignore_ascii_case(second));
        assert_eq!(second.as_bytes(), REQUEST);
    }
}

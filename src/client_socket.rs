//! The socket of a client, which tells when the client has closed it.
//!
//! The server reads nothing from a client while it makes an answer, because a client that has closed its side still
//! gets the answer. Without this watch, answers for clients that have gone would be worked out to the end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// How long a client that sends no more may still wait for its answer. The kernel does not tell whether it has closed
/// the connection or only its own side of it.
const HALF_CLOSED_FOR: Duration = Duration::from_millis(500);

/// When to look again at a socket in which the next request lies unread.
const UNREAD_CHECK_DELAY: Duration = Duration::from_millis(200);

/// The socket. It is closed when it and its [`ClientPresence`]s are dropped.
pub struct ClientSocket {
    read: OwnedReadHalf,
    write: Arc<OwnedWriteHalf>,
}

/// Knows whether the client is there.
#[derive(Clone)]
pub struct ClientPresence(Arc<OwnedWriteHalf>);

/// The client has left.
#[derive(Debug, thiserror::Error)]
#[error("the client has left")]
pub struct ClientLeft;

impl ClientSocket {
    /// Wraps an accepted connection.
    pub fn new(stream: TcpStream) -> (Self, ClientPresence) {
        let (read, write) = stream.into_split();
        let write = Arc::new(write);
        (Self { read, write: write.clone() }, ClientPresence(write))
    }

    /// Makes the kernel forget what the client has not taken: the socket is reset when it is closed.
    pub fn abandon(&self) {
        let stream: &TcpStream = (*self.write).as_ref();
        // A socket that cannot be set is closed all the same.
        let _ = stream.set_zero_linger();
    }
}

impl ClientPresence {
    /// What `answer` comes to, unless the client leaves before it is made.
    pub async fn unless_left<T>(&self, answer: impl Future<Output = T>) -> Result<T, ClientLeft> {
        tokio::select! {
            biased;
            answer = answer => Ok(answer),
            () = self.left() => Err(ClientLeft),
        }
    }

    /// Resolves when the client has sent its last byte, and some time has passed.
    async fn left(&self) {
        while let Ok(ready) = self.0.ready(Interest::READABLE).await
            && !ready.is_read_closed()
        {
            tokio::time::sleep(UNREAD_CHECK_DELAY).await;
        }
        tokio::time::sleep(HALF_CLOSED_FOR).await;
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(context, buffer)
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let stream: &TcpStream = (*self.write).as_ref();
        loop {
            ready!(stream.poll_write_ready(context))?;
            match stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It is closed when it is dropped, which comes next.
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[expect(clippy::disallowed_methods, reason = "a test's client")]
    async fn connected() -> (TcpStream, ClientSocket, ClientPresence) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connected");
        let (socket, presence) = ClientSocket::new(listener.accept().await.expect("accepted").0);
        (client, socket, presence)
    }

    #[tokio::test]
    async fn an_answer_ends_when_its_client_leaves_even_behind_unread_requests() {
        for unread in ["", "GET /next HTTP/1.1\r\n"] {
            let (mut client, _socket, presence) = connected().await;
            client.write_all(unread.as_bytes()).await.expect("written");
            drop(client);
            let ended = tokio::time::timeout(TIMEOUT, presence.unless_left(pending::<()>())).await;
            assert!(ended.expect("in time").is_err());
        }
    }

    #[tokio::test]
    async fn a_client_that_stays_gets_its_answer_and_so_does_one_that_only_sends_no_more() {
        for half_closed in [false, true] {
            let (mut client, mut socket, presence) = connected().await;
            if half_closed {
                client.shutdown().await.expect("half closed");
            }
            let answer = async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                "answer"
            };
            let answer = presence.unless_left(answer).await.expect("it waits");
            socket.write_all(answer.as_bytes()).await.expect("written");
            drop((socket, presence));
            let mut heard = String::new();
            client.read_to_string(&mut heard).await.expect("read");
            assert_eq!(heard, "answer");
        }
    }
}

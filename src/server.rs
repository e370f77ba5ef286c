//! The HTTP server: connections in, bounded in number and time, and a stop that lets answers finish.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::api::Peer;
use crate::client_socket::ClientSocket;

/// Connections at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 10_000;

/// File descriptors that clients cannot take: 1,024 for attempts in flight, as many for kept connections to receivers,
/// and the rest for look-ups, the database and the process itself.
const RESERVED_FILES: u64 = 2_560;

/// A request's head must have arrived within this time, which also closes idle connections.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes that a request's head may have.
const MAX_HEAD: usize = 64 * 1024;

/// After an error of accepting (no file descriptors left), before the next try.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Serves until `stop` resolves, then finishes the requests under way within `grace`. `answer` answers each request, `refusal` what
/// cannot be read as one.
pub async fn serve<F>(
    listener: TcpListener,
    answer: impl Fn(Request<Body>, Peer) -> F + Clone + Send + 'static,
    refusal: Option<Refusal>,
    stop: impl Future<Output = ()>,
    grace: Duration,
) where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let connections = Arc::new(Semaphore::new(max_connections(open_files())));
    let graceful = GracefulShutdown::new();
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD).writev(false);
    // A client that has said all that it has to say still hears the answer (RFC 9293, section 3.6); and nothing is read only
    // to see whether it is there.
    builder.half_close(true);
    tokio::pin!(stop);
    loop {
        let accepted = async {
            let permit = connections.clone().acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = accepted => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        // Small answers must not wait for more to come.
        let _ = stream.set_nodelay(true);
        let (socket, presence) = ClientSocket::new(stream);
        let answer = answer.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let request = request.map(Body::new);
            let (answer, presence) = (answer.clone(), presence.clone());
            // Made within the block: one that comes from outside would lie in it twice.
            async move {
                // What only reads is of no use to a client that has left. What changes something is done to its end.
                let reads = request.method() == Method::GET;
                let answering = pin!(answer(request, Peer(peer.ip())));
                if reads { presence.unless_left(answering).await } else { Ok(answering.await) }
            }
        });
        let wire = Wire { stream: TokioIo::new(socket), refusal: refusal.clone(), pending: Vec::new() };
        let connection = graceful.watch(builder.serve_connection(wire, service));
        tokio::spawn(async move {
            // A client that breaks off is no event of ours.
            let _ = connection.await;
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests were cut off at the stop");
    }
}

/// How many connections clients may have where this process may open so many files. Where these are few, half of them
/// stay reserved.
fn max_connections(files: u64) -> usize {
    let clients = files - RESERVED_FILES.min(files.div_ceil(2));
    usize::try_from(clients).unwrap_or(usize::MAX).clamp(1, MAX_CONNECTIONS)
}

/// How many files this process may open.
#[cfg(unix)]
fn open_files() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(not(unix))]
fn open_files() -> u64 {
    u64::MAX
}

/// Writes a refusal, for a status, as a whole HTTP message.
pub type Refusal = Arc<dyn Fn(u16) -> Vec<u8> + Send + Sync>;

/// A connection on which what hyper answers by itself, to a request that it could not read, is said in our own words.
///
/// Such an answer is one short message without a body. Ours name their request, and those that carry a body do not end
/// with an empty line.
struct Wire<T> {
    stream: T,
    refusal: Option<Refusal>,
    /// What is still to be written in place of what hyper has written.
    pending: Vec<u8>,
}

impl<T: hyper::rt::Write + Unpin> Wire<T> {
    /// The status of an answer of hyper's own.
    fn own_answer(message: &[u8]) -> Option<u16> {
        let status = message.strip_prefix(b"HTTP/1.")?.get(2..5)?;
        let status = std::str::from_utf8(status).ok()?.parse().ok().filter(|status| (400..500).contains(status))?;
        let names_request = || message.windows(12).any(|window| window.eq_ignore_ascii_case(b"x-request-id"));
        (message.len() < 512 && message.ends_with(b"\r\n\r\n") && !names_request()).then_some(status)
    }

    fn write_pending(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while !self.pending.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.pending))?;
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.pending.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: hyper::rt::Read + Unpin> hyper::rt::Read for Wire<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<T: hyper::rt::Write + Unpin> hyper::rt::Write for Wire<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, message: &[u8]) -> Poll<std::io::Result<usize>> {
        ready!(self.write_pending(context))?;
        if let Some(refusal) = &self.refusal
            && let Some(status) = Self::own_answer(message)
        {
            self.pending = refusal(status);
            let _ = self.write_pending(context)?;
            return Poll::Ready(Ok(message.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(self.write_pending(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(self.write_pending(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        messages: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        match messages {
            [message] => self.poll_write(context, message),
            _ => {
                ready!(self.write_pending(context))?;
                Pin::new(&mut self.stream).poll_write_vectored(context, messages)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_descriptors_for_attempts_and_the_database() {
        for (files, expected) in
            [(u64::MAX, 10_000), (65_536, 10_000), (8_192, 5_632), (5_120, 2_560), (1_024, 512), (129, 64), (1, 1)]
        {
            assert_eq!(max_connections(files), expected, "{files}");
        }
    }
}

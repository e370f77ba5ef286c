//! A bound on what a receiver sends before its answer: hyper skips any number of interim answers (1xx), and would do so
//! until the attempt's time is over.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are read until the head of the answer is there. Enough for the largest head, for what is read with it of
/// the body, and for as much again of interim answers.
const MAX_UNTIL_ANSWER: usize = 128 * 1024;

/// The other side goes on with interim answers.
#[derive(Debug, thiserror::Error)]
#[error("too many interim answers")]
struct TooManyInterimAnswers;

/// What the other side did, where a connection broke for its interim answers.
pub(super) fn complaint(error: &io::Error) -> Option<&'static str> {
    let is_too_many = error.get_ref().is_some_and(|inner| inner.downcast_ref::<TooManyInterimAnswers>().is_some());
    is_too_many.then_some("sent 128 KiB of interim answers (1xx) before its answer")
}

/// How many bytes a connection may still read.
pub(super) struct ReadAllowance(Arc<AtomicUsize>);

impl ReadAllowance {
    /// The allowance of a new connection, and the stream that keeps to it.
    pub fn of<S>(stream: S) -> (Self, BoundedStream<S>) {
        let left = Arc::new(AtomicUsize::new(MAX_UNTIL_ANSWER));
        (Self(left.clone()), BoundedStream { stream, left })
    }

    /// A request goes out: its answer has not begun.
    pub fn await_answer(&self) {
        self.0.store(MAX_UNTIL_ANSWER, Ordering::Relaxed);
    }

    /// The head of the answer is there. The body has a bound of its own.
    pub fn lift(&self) {
        self.0.store(usize::MAX, Ordering::Relaxed);
    }
}

/// A connection whose reading fails beyond its allowance.
pub(super) struct BoundedStream<S> {
    stream: S,
    left: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for BoundedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Poll::Ready(Err(io::Error::other(TooManyInterimAnswers)));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.left.store(left.saturating_sub(buffer.filled().len() - before), Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BoundedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

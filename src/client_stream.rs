//! A client's connection under hyper: it times out when a head or the reading of an answer takes too long, and replaces
//! the answers that hyper makes by itself.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::connections::Activity;

/// Writes a refusal, for a status, as a whole HTTP message.
pub type Refusal = Arc<dyn Fn(u16) -> Vec<u8> + Send + Sync>;

/// The timeouts of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From a connection's beginning, or a later head's first byte, to the end of the head.
    pub head: Duration,
    /// Between an answer and the next head. hyper measures it.
    pub idle: Duration,
    /// Without a byte of an answer being taken.
    pub write: Duration,
}

/// A connection.
///
/// What hyper answers by itself, to a request that it could not read, is one short message without a body. Our own
/// answers name their request, and those that carry a body do not end with an empty line.
pub struct ClientStream<T> {
    stream: T,
    refusal: Option<Refusal>,
    /// What is still to be written in place of what hyper has written.
    pending: Vec<u8>,
    activity: Arc<Activity>,
    timeouts: Timeouts,
    /// Makes the kernel forget what the client has not taken.
    abandon: fn(&T),
    head: Option<Head>,
    write_timer: Option<Pin<Box<Sleep>>>,
}

/// A head that has begun to arrive.
struct Head {
    /// How many requests had ended before.
    after: u64,
    deadline: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<T> ClientStream<T> {
    /// A connection whose first head begins now.
    pub fn new(
        stream: T,
        (activity, timeouts): (Arc<Activity>, Timeouts),
        refusal: Option<Refusal>,
        abandon: fn(&T),
    ) -> Self {
        let after = activity.ended().unwrap_or(0);
        let head = Some(Head { after, deadline: Instant::now() + timeouts.head, timer: None });
        Self { stream, refusal, pending: Vec::new(), activity, timeouts, abandon, head, write_timer: None }
    }

    /// Watches a head: `has_read` says that bytes of it have come. Fails when it takes too long.
    fn watch_head(&mut self, has_read: bool, context: &mut Context<'_>) -> Poll<std::io::Error> {
        let ended = self.activity.ended();
        if self.head.as_ref().map(|head| head.after) != ended {
            self.head = None;
        }
        let Some(after) = ended else { return Poll::Pending };
        if has_read {
            let deadline = Instant::now() + self.timeouts.head;
            self.head.get_or_insert(Head { after, deadline, timer: None });
            return Poll::Pending;
        }
        let Some(head) = &mut self.head else { return Poll::Pending };
        // Most heads come with one read and need no timer.
        let timer = head.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(head.deadline)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(std::io::ErrorKind::TimedOut.into())
    }

    /// Watches writing: fails where the client takes no byte for too long.
    fn watch_writing<R>(
        &mut self,
        written: Poll<std::io::Result<R>>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<R>> {
        self.activity.set_writing(written.is_pending());
        if written.is_ready() {
            self.write_timer = None;
            return written;
        }
        let patience = self.timeouts.write;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(timer.as_mut().poll(context));
        (self.abandon)(&self.stream);
        Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()))
    }
}

impl<T> Drop for ClientStream<T> {
    /// Of a connection that is closed while its client takes nothing, nothing is kept.
    fn drop(&mut self) {
        if self.write_timer.is_some() {
            (self.abandon)(&self.stream);
        }
    }
}

impl<T: hyper::rt::Write + Unpin> ClientStream<T> {
    /// The status of an answer of hyper's own.
    fn own_answer(message: &[u8]) -> Option<u16> {
        let status = message.strip_prefix(b"HTTP/1.")?.get(2..5)?;
        let status = std::str::from_utf8(status).ok()?.parse().ok().filter(|status| (400..500).contains(status))?;
        let names_request = || message.windows(12).any(|window| window.eq_ignore_ascii_case(b"x-request-id"));
        (message.len() < 512 && message.ends_with(b"\r\n\r\n") && !names_request()).then_some(status)
    }

    fn write_pending(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while !self.pending.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(context, &self.pending);
            let written = ready!(self.watch_writing(written, context))?;
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.pending.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: hyper::rt::Read + Unpin> hyper::rt::Read for ClientStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        match self.watch_head(read.is_ready(), context) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => read,
        }
    }
}

impl<T: hyper::rt::Write + Unpin> hyper::rt::Write for ClientStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, message: &[u8]) -> Poll<std::io::Result<usize>> {
        ready!(self.write_pending(context))?;
        if let Some(refusal) = &self.refusal
            && let Some(status) = Self::own_answer(message)
        {
            self.pending = refusal(status);
            let _ = self.write_pending(context)?;
            return Poll::Ready(Ok(message.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, message);
        self.watch_writing(written, context)
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
                let written = Pin::new(&mut self.stream).poll_write_vectored(context, messages);
                self.watch_writing(written, context)
            }
        }
    }
}

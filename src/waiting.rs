//! Waiting with a time limit.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::error::Elapsed;

/// The output of `future`, if it resolves within `limit`. No timer is made where it is ready at once, as most futures
/// of a request are.
pub async fn at_most<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    match poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => tokio::time::timeout(limit, future).await,
    }
}

/// Waits until a time; for ever where there is none.
pub async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[test]
    fn what_is_ready_needs_no_timer() {
        let without_timers = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        assert_eq!(without_timers.block_on(at_most(Duration::ZERO, ready(1))).expect("it is ready"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_time_is_returned_and_what_never_comes_ends() {
        assert!(at_most(Duration::from_secs(5), pending::<()>()).await.is_err());
        let later = tokio::time::sleep(Duration::from_secs(4));
        assert!(at_most(Duration::from_secs(5), later).await.is_ok());
    }
}

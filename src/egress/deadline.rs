//! A deadline on the receiver's time: it does not count this process's own time, and gives time back after a stall.
//!
//! A process that was stopped, or whose threads had no processor, sees its timers fire before it has read what arrived
//! meanwhile. A deadline that fires late is therefore no timeout yet.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::error::Elapsed;

use crate::lock::Mutex;

/// A timer that fires later than this after its time shows that the process stalled. A runtime that is only busy is
/// late by a few milliseconds; a socket that is readable is read within much less than this.
const STALLED: Duration = Duration::from_millis(100);

/// The clock of a receiver. It stands while this process is what the attempt waits for.
#[derive(Default)]
pub(super) struct ReceiverClock {
    /// Time that this process took, which is not the receiver's: in microseconds, and since when it takes more.
    ours_us: AtomicU64,
    ours_since: Mutex<Option<Instant>>,
}

impl ReceiverClock {
    /// Stops the clock: what follows is this process's time.
    pub fn stop(&self) {
        let since = self.ours_since.lock().replace(Instant::now());
        debug_assert!(since.is_none(), "the clock is stopped once at a time");
    }

    /// Starts the clock again, if it is stopped.
    pub fn start(&self) {
        let Some(since) = self.ours_since.lock().take() else { return };
        self.ours_us.fetch_add(micros(since.elapsed()), Ordering::Relaxed);
    }

    /// Starts the clock again, and counts a part of the time for which it stood as the receiver's.
    pub fn start_after(&self, theirs: Duration) {
        let Some(since) = self.ours_since.lock().take() else { return };
        self.ours_us.fetch_add(micros(since.elapsed().saturating_sub(theirs)), Ordering::Relaxed);
    }

    /// How long the clock was stopped until now.
    pub fn ours(&self) -> Duration {
        let now = *self.ours_since.lock();
        Duration::from_micros(self.ours_us.load(Ordering::Relaxed))
            + now.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("less than 500,000 years")
}

/// Waits for `future` until `limit` has passed. The clock stands for as long as `ours` says.
///
/// Where the deadline fires late, `future` gets the time back by which it was late. All such time together is at most
/// `limit`, so that a process that is always late ends its attempts too.
pub(super) async fn within<F: Future>(
    limit: Duration,
    ours: impl Fn() -> Duration,
    future: F,
) -> Result<F::Output, Elapsed> {
    let begin = Instant::now();
    let mut future = pin!(future);
    // Time given back, and time by which the deadline has moved for it.
    let (mut returned, mut moved) = (Duration::ZERO, Duration::ZERO);
    loop {
        let elapsed = match tokio::time::timeout_at(begin + limit + ours() + moved, &mut future).await {
            Ok(output) => return Ok(output),
            Err(elapsed) => elapsed,
        };
        let (now, deadline) = (Instant::now(), begin + limit + ours() + moved);
        if now < deadline {
            continue;
        }
        let late = now - deadline;
        let back = to_return(late, returned, limit).ok_or(elapsed)?;
        returned += back;
        moved += late + back;
    }
}

/// Time that goes back to the receiver after a deadline that fired `late`; `None` where the deadline holds.
fn to_return(late: Duration, returned: Duration, limit: Duration) -> Option<Duration> {
    debug_assert!(returned <= limit, "no more than the limit is ever given back");
    let left = limit.saturating_sub(returned);
    (late > STALLED && left > Duration::ZERO).then(|| late.min(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_deadline_that_fires_late_gives_the_time_back_up_to_the_whole_limit() {
        for (late, returned, expected) in [
            (ms(0), ms(0), None),
            (ms(100), ms(0), None),
            (ms(101), ms(0), Some(ms(101))),
            (ms(12_000), ms(0), Some(ms(2_000))),
            (ms(500), ms(1_800), Some(ms(200))),
            (ms(500), ms(2_000), None),
        ] {
            assert_eq!(to_return(late, returned, ms(2_000)), expected, "{late:?} {returned:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_stood_is_not_charged() {
        let begin = Instant::now();
        let ours = || begin.elapsed().min(ms(700));
        let took = |limit| async move {
            let ended = within(limit, ours, std::future::pending::<()>()).await;
            assert!(ended.is_err());
            begin.elapsed()
        };
        let took = took(ms(1_000)).await;
        assert!(took >= ms(1_700) && took < ms(1_750), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_stood_counts_what_is_said_to_be_the_receivers() {
        let clock = ReceiverClock::default();
        clock.stop();
        tokio::time::sleep(ms(500)).await;
        assert!(clock.ours() >= ms(500));
        clock.start_after(ms(300));
        assert!(clock.ours() >= ms(200) && clock.ours() < ms(250), "{:?}", clock.ours());
        clock.start();
        clock.stop();
        clock.start_after(ms(300));
        assert!(clock.ours() < ms(250), "never more than it stood: {:?}", clock.ours());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_stall_there_is_time_to_read_what_has_arrived() {
        let begin = Instant::now();
        let answered = async {
            // The stall: nothing else runs until it is over.
            tokio::time::sleep(ms(500)).await;
            tokio::time::advance(ms(4_000)).await;
            tokio::time::sleep(ms(50)).await;
        };
        assert!(within(ms(1_000), || Duration::ZERO, answered).await.is_ok(), "{:?}", begin.elapsed());
    }
}

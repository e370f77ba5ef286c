//! A limit on log lines that a fault repeats, so that they do not fill a disk.

use std::time::{Duration, Instant};

use crate::lock::Mutex;

/// The shortest time between two lines of one place.
const INTERVAL: Duration = Duration::from_secs(1);

/// Lets one line a second pass, or one in another interval. Each place that logs has its own.
#[derive(Debug)]
pub struct LogLimit {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// A limit that nothing has passed yet.
    pub const fn new() -> Self {
        Self::every(INTERVAL)
    }

    /// The same with so long between two lines: for what stays wrong until somebody changes a setting.
    pub const fn every(interval: Duration) -> Self {
        Self { interval, state: Mutex::new(State { last: None, suppressed: 0 }) }
    }

    /// Whether a line may be written now; with it, how many were suppressed since the last one.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    /// Counts a line that is not written for another reason.
    pub fn suppress(&self) {
        self.state.lock().suppressed += 1;
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < self.interval) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_passes_and_says_how_many_did_not() {
        let (limit, now) = (LogLimit::new(), Instant::now());
        assert_eq!(limit.admit_at(now), Some(0));
        assert_eq!(limit.admit_at(now + INTERVAL / 2), None);
        assert_eq!(limit.admit_at(now + INTERVAL / 2), None);
        assert_eq!(limit.admit_at(now + INTERVAL), Some(2));
        assert_eq!(limit.admit_at(now + INTERVAL * 2), Some(0));
    }
}

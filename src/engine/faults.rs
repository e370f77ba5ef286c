//! What follows from local faults: a pause of all attempts where all would fail, and at most one warning a second.
//!
//! No I/O but the log, and no clock: the loop says what time it is.

use std::time::Duration;

use tokio::time::Instant;

use crate::egress::LocalFault;

/// After a local fault that concerns every receiver, no attempt begins for this long. The next one would fail too; and
/// descriptors and memory come back within milliseconds, when attempts in flight end.
const LOCAL_FAULT_PAUSE: Duration = Duration::from_millis(250);

/// Warnings are at least this far apart: with 1,024 attempts in flight there may be thousands of faults in a second.
const WARNING_INTERVAL: Duration = Duration::from_secs(1);

/// Local faults so far.
#[derive(Debug, Default)]
pub(super) struct LocalFaults {
    pause_ends: Option<Instant>,
    next_warning: Option<Instant>,
    /// Faults that no warning has told of.
    untold: u64,
}

impl LocalFaults {
    /// An attempt ended in a local fault.
    pub fn note(&mut self, fault: LocalFault, now: Instant) {
        if fault.concerns_all() {
            self.pause_ends = Some(now + LOCAL_FAULT_PAUSE);
        }
        if let Some(attempts) = self.count_for_warning(now) {
            tracing::warn!(attempts, "attempts were not made, and no receiver is charged: {fault}");
        }
    }

    /// How many faults a warning tells of now, if one is due.
    fn count_for_warning(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.next_warning.is_some_and(|at| now < at) {
            return None;
        }
        self.next_warning = Some(now + WARNING_INTERVAL);
        Some(std::mem::take(&mut self.untold))
    }

    /// When attempts may begin again; `None` where they may begin now.
    pub fn pause_ends(&self, now: Instant) -> Option<Instant> {
        self.pause_ends.filter(|at| now < *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fault_that_concerns_all_receivers_pauses_attempts() {
        let (mut faults, now) = (LocalFaults::default(), Instant::now());
        for fault in [LocalFault::OutOfPorts, LocalFault::NoRoute, LocalFault::LookupNotMade] {
            faults.note(fault, now);
            assert_eq!(faults.pause_ends(now), None, "{fault:?}");
        }
        for fault in [LocalFault::OutOfFiles, LocalFault::OutOfMemory, LocalFault::NoNetwork] {
            let mut faults = LocalFaults::default();
            faults.note(fault, now);
            assert_eq!(faults.pause_ends(now), Some(now + LOCAL_FAULT_PAUSE), "{fault:?}");
            assert_eq!(faults.pause_ends(now + LOCAL_FAULT_PAUSE), None, "{fault:?}");
        }
    }

    #[test]
    fn one_warning_in_a_second_tells_of_all_faults() {
        let (mut faults, now) = (LocalFaults::default(), Instant::now());
        assert_eq!(faults.count_for_warning(now), Some(1));
        for _ in 0..9 {
            assert_eq!(faults.count_for_warning(now + Duration::from_millis(999)), None);
        }
        assert_eq!(faults.count_for_warning(now + WARNING_INTERVAL), Some(10));
    }
}

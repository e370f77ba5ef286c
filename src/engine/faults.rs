//! Reacts to local faults: pauses all attempts where all would fail, and logs at most one warning a second.
//!
//! It does no I/O but the log. Times are parameters; the log limit reads its own clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::egress::LocalFault;
use crate::log_limit::LogLimit;

/// After a local fault that concerns every receiver, no attempt begins for this long. The next one would fail too; and
/// descriptors and memory come back within milliseconds, when attempts in flight end.
const LOCAL_FAULT_PAUSE: Duration = Duration::from_millis(250);

/// Local faults so far.
#[derive(Debug, Default)]
pub(super) struct LocalFaults {
    pause_ends: Option<Instant>,
    /// With 1,024 attempts in flight there may be thousands of faults in a second.
    warnings: LogLimit,
}

impl LocalFaults {
    /// An attempt ended in a local fault.
    pub fn note(&mut self, fault: LocalFault, now: Instant) {
        if fault.concerns_all() {
            self.pause_ends = Some(now + LOCAL_FAULT_PAUSE);
        }
        if let Some(suppressed) = self.warnings.admit() {
            tracing::warn!(suppressed, "an attempt was not made, and no receiver is charged: {fault}");
        }
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
        use LocalFault as F;
        let (mut faults, now) = (LocalFaults::default(), Instant::now());
        for fault in
            [F::OutOfPorts, F::NoRoute, F::LookupNotMade, F::NoSourceAddress, F::ProxyCredentials, F::ProxyAnswer]
        {
            faults.note(fault, now);
            assert_eq!(faults.pause_ends(now), None, "{fault:?}");
        }
        for fault in [F::OutOfFiles, F::OutOfMemory, F::NoNetwork, F::ProxyUnreachable] {
            let mut faults = LocalFaults::default();
            faults.note(fault, now);
            assert_eq!(faults.pause_ends(now), Some(now + LOCAL_FAULT_PAUSE), "{fault:?}");
            assert_eq!(faults.pause_ends(now + LOCAL_FAULT_PAUSE), None, "{fault:?}");
        }
    }
}

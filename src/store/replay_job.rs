//! The job of a replay, as both stores know it: what a step needs of its row, how much a step looks at and makes, and
//! which status the job has next.

use super::values::REPLAY_WINDOW;
use crate::domain::channels::Channels;
use crate::domain::delivery::DeliveryStatus;
use crate::domain::endpoint::Endpoint;
use crate::domain::event::TEST_TYPE;
use crate::domain::id::{EndpointKey, IdTimes};
use crate::domain::replay::{NewReplay, ReplayStatus, Selection};
use crate::domain::subscription::Subscription;

/// Events that one step looks at.
pub(super) const SCAN: usize = 1_000;

/// Events that are looked at before the call that asks for a replay is answered.
pub(super) const SCAN_AT_ONCE: usize = 5_000;

/// How many deliveries a step may make while `waiting` replayed deliveries of the endpoint wait for their first
/// attempt. Deliveries that are sent again by hand are not counted. If less than half of the window is free, a step
/// makes none, so that steps are large.
pub(super) fn room(waiting: usize) -> usize {
    let free = REPLAY_WINDOW.saturating_sub(waiting);
    if free < REPLAY_WINDOW / 2 { 0 } else { free }
}

/// The status of a new replay that takes `total` of the events up to this one; `None` is the end.
pub(super) fn first_status(total: i64, counted_to: Option<i64>) -> ReplayStatus {
    match counted_to {
        None if total == 0 => ReplayStatus::Completed,
        None => ReplayStatus::Running,
        Some(_) => ReplayStatus::Pending,
    }
}

/// A job's row, and what a step needs of its endpoint.
pub(super) struct Job {
    pub key: i64,
    pub endpoint: EndpointKey,
    pub account: i64,
    /// What the endpoint wants now.
    pub subscription: Subscription,
    pub selection: Selection,
    pub status: ReplayStatus,
    /// The ids of its events are above this one.
    pub first: i64,
    /// The highest id that one of its events may have.
    pub last: i64,
    /// It has looked at the events up to this one.
    pub position: i64,
}

impl Job {
    /// The endpoint's job as it would be now. It has no row yet.
    pub fn requested(endpoint: Endpoint, new: NewReplay, times: &IdTimes) -> Self {
        let first = times.first_at(new.from) - 1;
        Self {
            key: 0,
            endpoint: endpoint.key,
            account: endpoint.account.0,
            subscription: endpoint.settings.subscription(),
            selection: new.selection,
            status: ReplayStatus::Pending,
            first,
            last: times.first_at(new.to.end_of_second()) - 1,
            position: first,
        }
    }

    /// Whether it may take events of this type and with these channels, whatever has come of them.
    pub fn admits(&self, event_type: &str, channels: Option<&Channels>) -> bool {
        event_type != TEST_TYPE && self.subscription.admits(event_type, channels)
    }

    /// Whether it takes an event of this type, of which the endpoint has deliveries with these statuses.
    pub fn takes(&self, event_type: &str, statuses: &[DeliveryStatus]) -> bool {
        self.selection.takes(self.subscription.includes(event_type), statuses)
    }

    /// Its status and its position after a step that has counted up to this event; `None` is the end.
    pub fn counted(&self, up_to: Option<i64>) -> (ReplayStatus, i64) {
        match up_to {
            Some(up_to) => (ReplayStatus::Pending, up_to),
            None => (ReplayStatus::Running, self.first),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_filled_in_steps_of_half_of_it_at_least() {
        for (waiting, expected) in [
            (0, REPLAY_WINDOW),
            (REPLAY_WINDOW / 2, REPLAY_WINDOW / 2),
            (REPLAY_WINDOW / 2 + 1, 0),
            (REPLAY_WINDOW, 0),
            (REPLAY_WINDOW + 1, 0),
        ] {
            assert_eq!(room(waiting), expected, "{waiting} wait");
        }
    }

    #[test]
    fn a_replay_runs_when_its_events_are_counted_unless_there_are_none() {
        assert_eq!(first_status(0, None), ReplayStatus::Completed);
        assert_eq!(first_status(1, None), ReplayStatus::Running);
        assert_eq!(first_status(0, Some(7)), ReplayStatus::Pending);
    }
}

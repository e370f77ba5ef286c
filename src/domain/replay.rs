//! Replays: durable jobs that send events of the past to an endpoint again, and which events those are.

use super::delivery::DeliveryStatus;
use super::id::{EndpointId, ReplayId};
use super::time::Timestamp;

/// Which events of its range a replay takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Selection {
    /// Those that were tried in vain and are not tried any more.
    Failed,
    /// Those that the endpoint subscribes to and has no delivery of.
    Missed,
    /// Every one that the endpoint subscribes to or has a delivery of, whatever became of it.
    All,
}

impl Selection {
    /// Every selection.
    pub const ALL: [Self; 3] = [Self::Failed, Self::Missed, Self::All];

    /// The name outside.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Missed => "missed",
            Self::All => "all",
        }
    }

    /// From the name outside.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|selection| selection.name() == name)
    }

    /// The number in a database column.
    pub fn to_column(self) -> i64 {
        match self {
            Self::Failed => 0,
            Self::Missed => 1,
            Self::All => 2,
        }
    }

    /// From a database column.
    pub fn from_column(column: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|selection| selection.to_column() == column)
    }

    /// Whether an event is taken, by what its deliveries to the endpoint came to so far.
    pub fn takes(self, subscribed: bool, deliveries: &[DeliveryStatus]) -> bool {
        match self {
            Self::Failed => !deliveries.is_empty() && deliveries.iter().all(|s| *s == DeliveryStatus::Failed),
            Self::Missed => subscribed && deliveries.is_empty(),
            Self::All => subscribed || !deliveries.is_empty(),
        }
    }
}

/// Where a replay stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayStatus {
    /// Its events are being counted.
    Pending,
    /// It makes deliveries, as fast as the endpoint takes them.
    Running,
    /// Each of its events has been sent, successfully or not.
    Completed,
    /// It was stopped.
    Cancelled,
}

impl ReplayStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Running, Self::Completed, Self::Cancelled];

    /// The name outside.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The number in a database column.
    pub fn to_column(self) -> i64 {
        match self {
            Self::Pending => 0,
            Self::Running => 1,
            Self::Completed => 2,
            Self::Cancelled => 3,
        }
    }

    /// From a database column.
    pub fn from_column(column: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.to_column() == column)
    }
}

/// What an owner asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewReplay {
    /// Events accepted at this time or later.
    pub from: Timestamp,
    /// Events accepted before the end of this second.
    pub to: Timestamp,
    /// Which of them.
    pub selection: Selection,
}

/// A replay as its owner sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replay {
    /// Its id.
    pub id: ReplayId,
    /// Where it sends to.
    pub endpoint: EndpointId,
    /// What was asked for.
    pub requested: NewReplay,
    /// Where it stands.
    pub status: ReplayStatus,
    /// Events in all, as far as they are counted.
    pub total: u64,
    /// Events that have been sent: their new delivery had its first attempt.
    pub sent: u64,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was completed or cancelled.
    pub finished_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::DeliveryStatus::{Failed, Pending, Retrying, Success};
    use super::Selection;

    #[test]
    fn a_selection_takes_events_by_what_became_of_them() {
        for (subscribed, deliveries, [failed, missed, all]) in [
            (true, &[][..], [false, true, true]),
            (false, &[], [false, false, false]),
            (true, &[Failed], [true, false, true]),
            (false, &[Failed], [true, false, true]),
            (true, &[Failed, Failed], [true, false, true]),
            (true, &[Failed, Success], [false, false, true]),
            (true, &[Failed, Pending], [false, false, true]),
            (true, &[Retrying], [false, false, true]),
            (true, &[Success], [false, false, true]),
        ] {
            let taken = Selection::ALL.map(|selection| selection.takes(subscribed, deliveries));
            assert_eq!(taken, [failed, missed, all], "{subscribed} {deliveries:?}");
        }
    }
}

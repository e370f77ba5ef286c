//! Statuses, and other codes of columns, as literals in SQL.
//!
//! They are no parameters of a statement: a partial index is used only where the condition that it repeats is a
//! literal, and a plan is made for the literal. The literals are parts of a `concat!`.

/// The number that a column has for a value of the domain.
macro_rules! literal {
    (DeliveryStatus::Pending) => {
        "0"
    };
    (DeliveryStatus::Retrying) => {
        "1"
    };
    (DeliveryStatus::Failed) => {
        "3"
    };
    (ReplayStatus::Cancelled) => {
        "3"
    };
    (EndpointStatus::Active) => {
        "0"
    };
    (Ordering::Fifo) => {
        "1"
    };
    // The parts of a counter on PostgreSQL. Each belongs to one kind of work, so that none waits for another's row.
    // What came or went by rows:
    (Shard::Rows) => {
        "0"
    };
    // What was folded:
    (Shard::Folded) => {
        "-1"
    };
    // What went with its day:
    (Shard::Days) => {
        "63"
    };
    // In place of an endpoint: the counter of an account's events.
    (Counter::Events) => {
        "0"
    };
}

/// The condition that the delivery with this status has an attempt still to come.
macro_rules! is_open {
    ($column:literal) => {
        concat!($column, " < 2")
    };
}

/// The condition that the delivery with this status has come to an end.
macro_rules! is_finished {
    ($column:literal) => {
        concat!($column, " > 1")
    };
}

pub(super) use {is_finished, is_open, literal};

#[cfg(test)]
mod tests {
    use crate::domain::delivery::DeliveryStatus;
    use crate::domain::endpoint::{EndpointStatus, Ordering};
    use crate::domain::replay::ReplayStatus;
    use crate::store::numbers::EVENTS_COUNTER;

    #[test]
    fn literals_are_the_columns_of_the_domain() {
        assert_eq!(literal!(DeliveryStatus::Pending), DeliveryStatus::Pending.to_column().to_string());
        assert_eq!(literal!(DeliveryStatus::Retrying), DeliveryStatus::Retrying.to_column().to_string());
        assert_eq!(literal!(DeliveryStatus::Failed), DeliveryStatus::Failed.to_column().to_string());
        assert_eq!(literal!(ReplayStatus::Cancelled), ReplayStatus::Cancelled.to_column().to_string());
        assert_eq!(literal!(EndpointStatus::Active), EndpointStatus::Active.to_column().to_string());
        assert_eq!(literal!(Ordering::Fifo), Ordering::Fifo.to_column().to_string());
        assert_eq!(literal!(Counter::Events), EVENTS_COUNTER.to_string());
    }

    #[test]
    fn deliveries_are_open_below_two_and_finished_above_one() {
        assert_eq!((is_open!("s"), is_finished!("s")), ("s < 2", "s > 1"));
        for status in (0..).map_while(DeliveryStatus::from_column) {
            assert_eq!(status.is_open(), status.to_column() < 2, "{status:?}");
        }
    }
}

//! Numbers of this program as the integers of SQL.

/// In the counters of PostgreSQL, in place of an endpoint: the events of the account.
pub(super) const EVENTS_COUNTER: i64 = 0;

/// How many rows: of such as are in memory, or as one statement has written.
pub(super) fn row_count(rows: usize) -> i64 {
    i64::try_from(rows).expect("no memory and no table has as many rows as an i64 can count")
}

/// A `LIMIT`. What is greater than SQL's greatest number is no limit, and neither is that number.
pub(super) fn sql_limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// How many deliveries an event was given: one for each endpoint that subscribes, of which an account has 10,000 at
/// most.
pub(super) fn delivery_count(deliveries: usize) -> u32 {
    u32::try_from(deliveries).expect("an account has fewer endpoints than a u32 can count")
}

/// Bytes of an event's body, which came in a request: 8 MiB at most.
pub(super) fn body_size(bytes: usize) -> i32 {
    i32::try_from(bytes).expect("a body has less than 2 GiB")
}

/// A counter of attempts or failures. At the end of its column it stays there: nothing depends on such a number.
pub(super) fn sql_counter(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

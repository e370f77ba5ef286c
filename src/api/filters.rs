//! Error texts of filters that several lists have.

use super::error::Words;

/// What a filter by time accepts.
pub fn time_of(name: &str) -> Words {
    Words::new(
        format!("{name} takes an ISO 8601 date, like 2026-05-01, or a date-time with its offset"),
        format!("{name} admite una fecha ISO 8601, como 2026-05-01, o una fecha y hora con su desfase"),
    )
}

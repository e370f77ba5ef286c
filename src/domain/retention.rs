//! How long the history is kept.

use std::time::Duration;

use super::time::Timestamp;

/// Longest retention that an account can have of its own, in days.
pub const MAX_DAYS: u32 = 3_650;

/// How long finished deliveries and their events are kept, and how long the bodies of events; `None` is for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Retention {
    /// From a delivery's, and an event's, creation.
    pub deliveries: Option<Duration>,
    /// From an event's creation; never longer than its rows.
    pub payloads: Option<Duration>,
}

/// What an account has of its own; `None` is what the settings say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OwnRetention {
    /// Instead of [`Retention::deliveries`].
    pub deliveries: Option<Duration>,
    /// Instead of [`Retention::payloads`].
    pub payloads: Option<Duration>,
}

impl Retention {
    /// Of an account.
    #[must_use]
    pub fn of(self, own: OwnRetention) -> Self {
        let deliveries = own.deliveries.or(self.deliveries);
        let payloads = own.payloads.or(self.payloads);
        Self { deliveries, payloads: payloads.into_iter().chain(deliveries).min() }
    }

    /// The longer of each.
    #[must_use]
    pub fn longer(self, other: Self) -> Self {
        let longer = |one: Option<Duration>, other: Option<Duration>| Some(one?.max(other?));
        Self { deliveries: longer(self.deliveries, other.deliveries), payloads: longer(self.payloads, other.payloads) }
    }

    /// The time from which on deliveries are kept, and the one from which on bodies are.
    pub fn since(self, now: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
        (self.deliveries.map(|kept_for| now.minus(kept_for)), self.payloads.map(|kept_for| now.minus(kept_for)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_account_has_of_its_own_counts_and_no_body_outlives_its_row() {
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        for (settings, own, expected) in [
            ((None, None), (None, None), (None, None)),
            ((days(30), None), (None, None), (days(30), days(30))),
            ((days(30), days(7)), (None, None), (days(30), days(7))),
            ((days(30), days(7)), (days(90), None), (days(90), days(7))),
            ((days(30), days(7)), (days(3), None), (days(3), days(3))),
            ((days(30), days(7)), (None, days(20)), (days(30), days(20))),
            ((days(30), days(7)), (None, days(90)), (days(30), days(30))),
            ((None, days(7)), (days(90), None), (days(90), days(7))),
            ((None, None), (None, days(1)), (None, days(1))),
        ] {
            let retention = Retention { deliveries: settings.0, payloads: settings.1 };
            let found = retention.of(OwnRetention { deliveries: own.0, payloads: own.1 });
            assert_eq!((found.deliveries, found.payloads), expected, "{settings:?} {own:?}");
        }
    }
}

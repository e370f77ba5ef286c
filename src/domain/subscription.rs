//! What an endpoint subscribes to: event types by name, and wildcards; and which events of these types it wants.
//!
//! `*` means every type, and `<prefix>.*` every type that begins with `<prefix>.`, now and later. Wildcards do not mean
//! operational events or tests.

use super::channels::{Channels, wants};
use super::event::{Operational, TEST_TYPE, is_type_name};
use super::payload_filter::PayloadFilter;

/// Whether an entry is a wildcard. Its prefix is named like a type, and need not be one.
pub fn is_wildcard(entry: &str) -> bool {
    prefix(entry).is_some()
}

/// How the types begin that a wildcard means: `order.` for `order.*`, and nothing for `*`. `None` for a type's name.
pub fn prefix(entry: &str) -> Option<&str> {
    let prefix = entry.strip_suffix('*')?;
    (prefix.is_empty() || prefix.strip_suffix('.').is_some_and(is_type_name)).then_some(prefix)
}

/// The prefixes of all wildcards that mean the type, the longest first.
pub fn prefixes_of(event_type: &str) -> impl Iterator<Item = &str> {
    let is_published = event_type != TEST_TYPE && Operational::parse(event_type).is_none();
    let ends = event_type.rmatch_indices('.').map(|(at, dot)| at + dot.len()).chain([0]);
    ends.filter(move |_| is_published).map(move |end| &event_type[..end])
}

/// Every entry that means the type, separated by spaces: the type itself, and wildcards.
pub fn entries_of(event_type: &str) -> String {
    let mut entries = event_type.to_owned();
    for prefix in prefixes_of(event_type) {
        entries.push(' ');
        entries.push_str(prefix);
        entries.push('*');
    }
    entries
}

/// What an endpoint wants of the events of its account.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Types and wildcards.
    pub entries: Vec<String>,
    /// Its channels.
    pub channels: Option<Channels>,
    /// Its filter.
    pub filter: Option<PayloadFilter>,
}

impl Subscription {
    /// Whether the endpoint subscribes to the type.
    pub fn includes(&self, event_type: &str) -> bool {
        includes(&self.entries, event_type)
    }

    /// Whether the endpoint wants an event with these channels, if it subscribes to the type. Operational events come
    /// whatever its channels are.
    pub fn admits(&self, event_type: &str, channels: Option<&Channels>) -> bool {
        Operational::parse(event_type).is_some() || wants(self.channels.as_ref(), channels)
    }

    /// What an event of this type must match too, if the endpoint subscribes to it. Operational events come whatever
    /// its filter is.
    pub fn filter_for(&self, event_type: &str) -> Option<&PayloadFilter> {
        self.filter.as_ref().filter(|_| Operational::parse(event_type).is_none())
    }

    /// Whether an event was published that the endpoint subscribes to and its channels let through.
    pub fn covers(&self, event_type: &str, channels: Option<&Channels>) -> bool {
        Operational::parse(event_type).is_none() && self.includes(event_type) && wants(self.channels.as_ref(), channels)
    }
}

/// Whether one of the entries means the type.
pub fn includes(entries: &[String], event_type: &str) -> bool {
    let means = |wanted: &str| prefixes_of(event_type).any(|prefix| prefix == wanted);
    entries.iter().any(|entry| entry == event_type || prefix(entry).is_some_and(means))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_wildcard_is_a_star_alone_or_after_a_prefix() {
        let longest = format!("{}.*", "a".repeat(128));
        for entry in ["*", "a.*", "a.b_2.*", "endpoint.*", "no.such.type.*", &longest] {
            assert!(is_wildcard(entry), "{entry}");
        }
        let too_long = format!("{}.*", "a".repeat(129));
        for entry in ["", "a", "a*", ".*", "**", "a.**", "*.a", "a.*.b", "*.*", "A.*", "a..*", "a. *", " *", &too_long]
        {
            assert!(!is_wildcard(entry), "{entry}");
        }
    }

    #[test]
    fn a_prefix_means_what_stands_below_it_at_any_depth_and_not_itself() {
        let of = |entry: &str, event_type: &str| includes(&[entry.to_owned()], event_type);
        for (entry, event_type, means) in [
            ("*", "a", true),
            ("*", "a.b.c", true),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", true),
            ("a.b.*", "a.b.c", true),
            ("a.*", "a", false),
            ("a.*", "ab.c", false),
            ("a.b.*", "a.c", false),
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
        ] {
            assert_eq!(of(entry, event_type), means, "{entry} {event_type}");
        }
    }

    #[test]
    fn wildcards_mean_no_operational_events_and_no_tests() {
        for event_type in Operational::ALL.iter().map(|kind| kind.name()).chain([TEST_TYPE]) {
            let entries = ["*", "endpoint.*", "delivery.*", "secret.*"].map(str::to_owned);
            assert!(!includes(&entries, event_type), "{event_type}");
            assert!(includes(&[event_type.to_owned()], event_type));
            assert_eq!(entries_of(event_type), event_type);
        }
        assert!(includes(&["endpoint.*".to_owned()], "endpoint.renamed"), "a type of the catalog");
    }

    #[test]
    fn channels_and_filters_hold_for_what_is_published() {
        let channels = |name: &str| Channels::parse(vec![name.to_owned()], 1);
        let entries = vec!["a".into(), "endpoint.disabled".into()];
        let filter = PayloadFilter::parse("{}").ok();
        let subscription = Subscription { entries, channels: channels("x"), filter };
        assert!(subscription.admits("a", channels("x").as_ref()) && !subscription.admits("a", channels("y").as_ref()));
        assert!(!subscription.admits("a", None) && subscription.admits("endpoint.disabled", None));
        assert!(subscription.filter_for("a").is_some() && subscription.filter_for("endpoint.disabled").is_none());
        assert!(subscription.covers("a", channels("x").as_ref()) && !subscription.covers("a", None));
        assert!(!subscription.covers("b", channels("x").as_ref()));
        assert!(!subscription.covers("endpoint.disabled", channels("x").as_ref()), "nobody publishes it");
    }

    proptest! {
        #[test]
        fn the_entries_of_a_type_are_those_that_mean_it(
            entry in "[ab]{1,2}(\\.[ab]){0,3}(\\.\\*)?|\\*",
            event_type in "[ab]{1,2}(\\.[ab]){0,3}",
        ) {
            let listed = entries_of(&event_type).split(' ').any(|known| known == entry);
            prop_assert_eq!(listed, includes(&[entry], &event_type));
        }
    }
}

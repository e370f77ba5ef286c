//! What an owner can set of an endpoint. `settings!` makes the settings and their change from one list of attributes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::channels::{Channels, wants};
use super::credentials::{CredentialFault, CredentialsChange, ShownCredentials, UrlAfter, is_https, is_same_address};
use super::endpoint::{EndpointStatus, Ordering};
use super::event::NewEvent;
use super::external_id::ExternalId;
use super::payload_filter::PayloadFilter;
use super::rate_limit::{Rate, RateLimit};
use super::retry::RetrySchedule;
use super::subscription::Subscription;
use super::url::ReceiverUrl;

/// Most keys of metadata.
pub const MAX_METADATA_KEYS: usize = 20;

/// Longest key of metadata, in characters.
pub const MAX_METADATA_KEY_CHARS: usize = 64;

/// Longest string of metadata, in characters.
pub const MAX_METADATA_VALUE_CHARS: usize = 512;

/// Longest time of an attempt that an endpoint can have, in seconds.
pub const MAX_TIMEOUT_SECONDS: u32 = 120;

/// Most attempts in flight to one endpoint that an operator can allow.
pub const MAX_IN_FLIGHT_PER_ENDPOINT: u32 = 4_096;

/// A structure of attributes, and a structure of changes to them.
macro_rules! settings {
    (
        $(#[$of_settings:meta])* $settings:ident
        $(#[$of_change:meta])* $change:ident
        { $($(#[$about:meta])* $attribute:ident: $type:ty,)+ }
    ) => {
        $(#[$of_settings])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct $settings {
            $($(#[$about])* pub $attribute: $type,)+
            /// Headers and credentials of its requests, without the values that nobody reads again.
            pub credentials: ShownCredentials,
        }

        $(#[$of_change])*
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        pub struct $change {
            $($(#[$about])* pub $attribute: Option<$type>,)+
            /// Headers and credentials of its requests, with their values.
            pub credentials: CredentialsChange,
            /// `active` (which clears the failures) or `disabled`.
            pub status: Option<EndpointStatus>,
        }

        impl $change {
            /// The attributes that it names.
            pub fn fields(&self) -> Vec<&'static str> {
                let named = [$((stringify!($attribute), self.$attribute.is_some()),)+];
                let named = named.into_iter().filter(|(_, is_named)| *is_named).map(|(name, _)| name);
                named.chain(self.credentials.fields()).chain(self.status.map(|_| "status")).collect()
            }

            /// The settings with this change. The status is no setting, and the credentials stay: whoever has their
            /// values changes them.
            pub fn applied_to(self, before: $settings) -> $settings {
                $settings {
                    $($attribute: self.$attribute.unwrap_or(before.$attribute),)+
                    credentials: before.credentials,
                }
            }
        }
    };
}

settings! {
    /// What an owner has set of an endpoint.
    EndpointSettings
    /// What an owner changes of an endpoint; `None` stays as it is.
    EndpointChange
    {
        /// The receiver, as registered.
        url: String,
        /// Event types, distinct, in the order given.
        events: Vec<String>,
        /// A label for people.
        description: Option<String>,
        /// In which order it gets its deliveries. A change holds for what is accepted from then on.
        ordering: Ordering,
        /// The client's own notes.
        metadata: Option<Metadata>,
        /// The client's own name for it, which no other endpoint of the account has.
        external_id: Option<ExternalId>,
        /// It gets only events that carry one of them.
        channels: Option<Channels>,
        /// How long an attempt may take in all; the server's setting where it is absent.
        timeout_seconds: Option<u32>,
        /// Attempts that may be in flight at once, over all nodes; the server's setting where it is absent or lower.
        max_in_flight: Option<u32>,
        /// The delays between attempts; the server's setting where it is absent.
        retry_schedule: Option<RetrySchedule>,
        /// It gets only events that match it.
        filter: Option<PayloadFilter>,
        /// Attempts that may begin in any window of a length, over all nodes.
        rate_limit: Option<RateLimit>,
    }
}

impl EndpointSettings {
    /// Settings with nothing but what an endpoint must have.
    pub fn new(url: &ReceiverUrl, events: Vec<String>) -> Self {
        Self {
            url: url.as_str().to_owned(),
            events,
            description: None,
            ordering: Ordering::None,
            metadata: None,
            external_id: None,
            channels: None,
            timeout_seconds: None,
            max_in_flight: None,
            retry_schedule: None,
            filter: None,
            credentials: ShownCredentials::default(),
            rate_limit: None,
        }
    }

    /// What of the account's events the endpoint wants.
    pub fn subscription(&self) -> Subscription {
        Subscription { entries: self.events.clone(), channels: self.channels.clone(), filter: self.filter.clone() }
    }
}

impl EndpointChange {
    /// What is wrong with its headers and credentials for an endpoint with these settings.
    pub fn credential_faults(&self, before: &EndpointSettings) -> Vec<CredentialFault> {
        let moves = self.url.as_ref().is_some_and(|url| !is_same_address(url, &before.url));
        let https = is_https(self.url.as_ref().unwrap_or(&before.url));
        self.credentials.faults(&before.credentials, UrlAfter { moves, https })
    }
}

/// What an owner has set of an endpoint that decides about its deliveries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeliverySettings {
    /// It gets only published events that carry one of them.
    pub channels: Option<Channels>,
    /// How long an attempt may take in all.
    pub timeout: Option<Duration>,
    /// Attempts that may be in flight at once, over all nodes.
    pub max_in_flight: Option<usize>,
    /// The delays between attempts.
    pub retry_schedule: Option<RetrySchedule>,
    /// It gets only published events that match it.
    pub filter: Option<PayloadFilter>,
    /// Headers and credentials of its requests, without the values that nobody reads again.
    pub credentials: ShownCredentials,
    /// Attempts that may begin in any window of a length, over all nodes. Where there is such a limit, a delivery waits
    /// in the store until its attempt may begin.
    pub rate_limit: Option<Rate>,
}

impl DeliverySettings {
    /// Whether the endpoint's channels let an event through that is published. Its filter is asked apart, because that
    /// may take long.
    pub fn channels_admit(&self, event: &NewEvent) -> bool {
        wants(self.channels.as_ref(), event.channels.as_ref())
    }
}

fn is_metadata_key(key: &str) -> bool {
    (1..=MAX_METADATA_KEY_CHARS).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// A client's own notes: keys and their strings.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Metadata(BTreeMap<String, String>);

impl Metadata {
    /// Keys are letters, digits, `_` and `-`. `None` where a key or a string is not allowed, or there are too many.
    pub fn parse(strings: BTreeMap<String, String>) -> Option<Self> {
        let fits = |(key, value): (&String, &String)| {
            is_metadata_key(key) && value.chars().count() <= MAX_METADATA_VALUE_CHARS
        };
        (strings.len() <= MAX_METADATA_KEYS && strings.iter().all(fits)).then_some(Self(strings))
    }

    /// What was parsed before it was stored.
    pub fn stored(strings: BTreeMap<String, String>) -> Self {
        Self(strings)
    }

    /// The keys and their strings.
    pub fn strings(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// Which endpoints a list shows: those of which all holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EndpointFilter {
    external_id: Option<ExternalId>,
    metadata: Vec<(String, String)>,
}

impl EndpointFilter {
    /// Reads the parameters of a request and ignores others. An error lists the parameters whose values cannot be
    /// read.
    pub fn read(parameters: &[(String, String)]) -> Result<Self, Vec<&'static str>> {
        let mut filter = Self::default();
        let mut unreadable = Vec::new();
        for (name, value) in parameters {
            if name == "external_id" && !value.is_empty() {
                filter.external_id = ExternalId::parse(value);
                unreadable.extend(filter.external_id.is_none().then_some("external_id"));
            } else if let Some(key) = name.strip_prefix("metadata.") {
                unreadable.extend((!is_metadata_key(key)).then_some("metadata"));
                filter.metadata.push((key.to_owned(), value.clone()));
            }
        }
        if unreadable.is_empty() { Ok(filter) } else { Err(unreadable) }
    }

    /// Whether an endpoint with these settings is shown.
    pub fn takes(&self, settings: &EndpointSettings) -> bool {
        let has = |(key, value): &(String, String)| {
            settings.metadata.as_ref().and_then(|metadata| metadata.strings().get(key)) == Some(value)
        };
        (self.external_id.is_none() || self.external_id == settings.external_id) && self.metadata.iter().all(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::custom_headers::Headers;
    use crate::domain::url::Environment;

    #[test]
    fn metadata_is_bounded() {
        let read = |(key, value): (&str, &str)| Metadata::parse([(key.to_owned(), value.to_owned())].into());
        let (key, value) = ("k".repeat(64), "ñ".repeat(512));
        for good in [("Team-1_a", ""), (&key, "a\0b\n"), ("a", &value)] {
            assert!(read(good).is_some(), "{good:?}");
        }
        let (key, value) = ("k".repeat(65), "ñ".repeat(513));
        for bad in [("", "a"), ("a b", "a"), ("ñ", "a"), ("a.b", "a"), (&key, "a"), ("a", &value)] {
            assert!(read(bad).is_none(), "{bad:?}");
        }
        let many = |count: usize| (0..count).map(|n| (n.to_string(), String::new())).collect();
        assert!(Metadata::parse(many(20)).is_some() && Metadata::parse(many(21)).is_none());
    }

    #[test]
    fn a_change_names_what_it_sets_and_leaves_the_rest() {
        let url = ReceiverUrl::parse("http://127.0.0.1:9/", Environment::Development).expect("a URL");
        let before =
            EndpointSettings { description: Some("a".into()), ..EndpointSettings::new(&url, vec!["b".into()]) };
        let change = EndpointChange {
            description: Some(None),
            status: Some(EndpointStatus::Active),
            ordering: Some(Ordering::Fifo),
            ..EndpointChange::default()
        };
        assert_eq!(change.fields(), ["description", "ordering", "status"]);
        let credentials = CredentialsChange { authentication: Some(None), ..CredentialsChange::default() };
        assert_eq!(EndpointChange { credentials, ..change.clone() }.fields()[2..], ["authentication", "status"]);
        let after = EndpointSettings { ordering: Ordering::Fifo, ..EndpointSettings::new(&url, vec!["b".into()]) };
        assert_eq!(change.applied_to(before.clone()), after);
        assert_eq!(EndpointChange::default().applied_to(before.clone()), before);
    }

    #[test]
    fn a_changed_address_is_noticed_where_there_is_something_that_could_follow() {
        let url = ReceiverUrl::parse("https://shop.example/a", Environment::Production).expect("a URL");
        let headers = Headers::stored([("X-Key".to_owned(), "...".to_owned())].into());
        let credentials = ShownCredentials { headers: Some(headers), ..ShownCredentials::default() };
        let before = EndpointSettings { credentials, ..EndpointSettings::new(&url, vec!["b".into()]) };
        let faults = |url: &str, before: &EndpointSettings| {
            EndpointChange { url: Some(url.into()), ..EndpointChange::default() }.credential_faults(before).len()
        };
        assert_eq!(faults("https://shop.example/b", &before), 0);
        assert_eq!(faults("https://other.example/a", &before), 1);
        assert_eq!(faults("https://other.example/a", &EndpointSettings::new(&url, vec!["b".into()])), 0);
        assert!(EndpointChange::default().credential_faults(&before).is_empty());
    }
}

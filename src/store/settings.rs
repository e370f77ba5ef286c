//! An endpoint's settings as columns of its row, and an account's, the same in both stores.
//!
//! What SQL filters or joins by, and what programs before the migration `0016_settings` read, has a column of its own.
//! All else is in the column `settings`, as JSON. A program keeps the attributes there that it does not know: a program
//! of a later version has written them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::errors::StoreError;
use super::shared::words;
use crate::domain::authentication::Authentication;
use crate::domain::channels::Channels;
use crate::domain::client_certificate::ShownCertificate;
use crate::domain::credentials::ShownCredentials;
use crate::domain::custom_headers::Headers;
use crate::domain::endpoint::Ordering;
use crate::domain::external_id::ExternalId;
use crate::domain::id::{AccountId, EndpointId};
use crate::domain::network_rules::{AccountNetworks, NetworkList, NetworkRules};
use crate::domain::payload_filter::PayloadFilter;
use crate::domain::rate_limit::RateLimit;
use crate::domain::retry::RetrySchedule;
use crate::domain::secret::Secret;
use crate::domain::settings::{DeliverySettings, EndpointSettings, Metadata};
use crate::domain::subscription::is_wildcard;
use crate::domain::time::Timestamp;
use crate::log_limit::LogLimit;

/// The form of the column `settings`. A program that changes the meaning of what is there raises it, and with it the
/// database's minimum version.
const FORM: u32 = 1;

/// Every batch with an event for an endpoint may meet its settings, however often they could not be read.
static UNREADABLE_LOGGED: LogLimit = LogLimit::new();

/// The columns of `endpoints` that hold its settings.
pub(super) struct SettingsColumns {
    pub url: String,
    pub events: String,
    pub description: Option<String>,
    pub ordering: i64,
    pub external_id: Option<String>,
    /// JSON: see [`SettingsJson`].
    pub settings: String,
}

/// Columns that are about to be written.
pub(super) struct NewColumns {
    pub columns: SettingsColumns,
    /// The version of the oldest program that does all that they say. It becomes the database's minimum version with
    /// the first row that has them.
    pub requires: i64,
}

/// The version of the oldest program that does all that these settings say; 0 where every program does. A program below
/// it would send what its owner does not want, or not send what they want.
fn required_version(settings: &EndpointSettings) -> i64 {
    let versions = [
        (settings.events.iter().any(|entry| is_wildcard(entry)), 17),
        (settings.channels.is_some(), 18),
        (settings.timeout_seconds.is_some(), 18),
        (settings.max_in_flight.is_some(), 18),
        (settings.retry_schedule.is_some(), 18),
        (settings.filter.is_some(), 18),
        (settings.credentials.headers.is_some(), 19),
        (settings.credentials.authentication.is_some(), 19),
        (settings.credentials.client_certificate.is_some(), 20),
        (settings.rate_limit.is_some(), 21),
    ];
    versions.iter().filter(|(is_set, _)| *is_set).map(|(_, version)| *version).max().unwrap_or(0)
}

/// The version of the oldest program that opens this secret; 0 where every program does.
pub fn required_of_secret(secret: Option<&Secret>) -> i64 {
    if secret.is_none_or(Secret::is_generated) { 0 } else { 18 }
}

/// What is in the column `settings`. An attribute that is not set is absent.
#[derive(Serialize, Deserialize, Default)]
struct SettingsJson {
    #[serde(default = "form")]
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    channels: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_in_flight: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_schedule: Option<Vec<u64>>,
    /// JSON text: as a value its numbers would lose digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
    /// Names and masks; the values are in the column `credentials`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authentication: Option<AuthenticationJson>,
    /// What is shown; the certificate and its key are in the column `credentials`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_certificate: Option<CertificateJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate_limit: Option<String>,
    /// Of an account only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    egress_allow_networks: Option<Vec<String>>,
    /// Of an account only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    egress_deny_networks: Option<Vec<String>>,
    /// Attributes of later programs.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// How requests authenticate, without the value that nobody reads again: it is in the column `credentials`.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum AuthenticationJson {
    Basic {
        username: String,
    },
    Bearer,
    OAuth2 {
        token_url: String,
        client_id: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        audience: Option<String>,
    },
}

impl From<Authentication> for AuthenticationJson {
    fn from(authentication: Authentication) -> Self {
        match authentication {
            Authentication::Basic { username } => Self::Basic { username },
            Authentication::Bearer => Self::Bearer,
            Authentication::OAuth2 { token_url, client_id, scope, audience } => {
                Self::OAuth2 { token_url, client_id, scope, audience }
            }
        }
    }
}

impl From<AuthenticationJson> for Authentication {
    fn from(authentication: AuthenticationJson) -> Self {
        match authentication {
            AuthenticationJson::Basic { username } => Self::Basic { username },
            AuthenticationJson::Bearer => Self::Bearer,
            AuthenticationJson::OAuth2 { token_url, client_id, scope, audience } => {
                Self::OAuth2 { token_url, client_id, scope, audience }
            }
        }
    }
}

/// What is shown of a client certificate.
#[derive(Serialize, Deserialize)]
struct CertificateJson {
    subject: String,
    fingerprint: String,
    /// In milliseconds.
    not_after: i64,
}

impl From<ShownCertificate> for CertificateJson {
    fn from(ShownCertificate { subject, fingerprint, not_after }: ShownCertificate) -> Self {
        Self { subject, fingerprint, not_after: not_after.as_millis() }
    }
}

impl From<CertificateJson> for ShownCertificate {
    fn from(CertificateJson { subject, fingerprint, not_after }: CertificateJson) -> Self {
        Self { subject, fingerprint, not_after: Timestamp::from_millis(not_after) }
    }
}

fn form() -> u32 {
    FORM
}

impl SettingsJson {
    fn read(table: &str, column: &str) -> Result<Self, StoreError> {
        let corrupt = |reason: String| StoreError::Corrupt(format!("{table}.settings: {reason}"));
        let rest: Self = serde_json::from_str(column).map_err(|error| corrupt(error.to_string()))?;
        if rest.version > FORM {
            return Err(corrupt(format!("version {} is of a later program than this one", rest.version)));
        }
        Ok(rest)
    }

    fn rate_limit(&self) -> Result<Option<RateLimit>, StoreError> {
        let Some(text) = &self.rate_limit else { return Ok(None) };
        let unreadable = || StoreError::Corrupt("endpoints.settings: rate_limit cannot be read".into());
        RateLimit::parse(text).map(Some).ok_or_else(unreadable)
    }

    fn column(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers are JSON")
    }

    /// Takes out what is shown of headers and credentials.
    fn credentials(&mut self) -> ShownCredentials {
        ShownCredentials {
            headers: self.headers.take().map(Headers::stored),
            authentication: self.authentication.take().map(Authentication::from),
            client_certificate: self.client_certificate.take().map(ShownCertificate::from),
        }
    }
}

/// What the column `settings` of an account contains.
pub(super) struct AccountSettings {
    pub metadata: Option<Metadata>,
    pub networks: AccountNetworks,
}

impl AccountSettings {
    /// The column of these settings, for a row whose column is `stored` now, and the version of the oldest program that
    /// does all that they say. A new row has `{}`.
    pub fn column(self, stored: &str) -> Result<(String, i64), StoreError> {
        let SettingsJson { unknown, .. } = SettingsJson::read("accounts", stored)?;
        // A program below it would send to networks that the operator denies.
        let requires = if self.networks.rules().is_some() { 22 } else { 0 };
        let strings = |list: Option<NetworkList>| list.map(|list| list.strings());
        let settings = SettingsJson {
            version: FORM,
            metadata: self.metadata.map(|metadata| metadata.strings().clone()),
            egress_allow_networks: strings(self.networks.allow),
            egress_deny_networks: strings(self.networks.deny),
            unknown,
            ..SettingsJson::default()
        };
        Ok((settings.column(), requires))
    }

    /// The settings in this column.
    pub fn read(column: &str) -> Result<Self, StoreError> {
        let settings = SettingsJson::read("accounts", column)?;
        let list = |name: &str, texts: Option<Vec<String>>| {
            let unreadable = || StoreError::Corrupt(format!("accounts.settings: {name} cannot be read"));
            texts.map(|texts| NetworkList::parse(&texts).ok_or_else(unreadable)).transpose()
        };
        let networks = AccountNetworks {
            allow: list("egress_allow_networks", settings.egress_allow_networks)?,
            deny: list("egress_deny_networks", settings.egress_deny_networks)?,
        };
        Ok(Self { metadata: settings.metadata.map(Metadata::stored), networks })
    }
}

/// What the column `settings` of an account says of where its requests may go. Where the column cannot be read, it logs
/// a line and denies every network: one row must not fail work for all accounts, and what it denied is not known.
pub(super) fn account_rules(
    account: AccountId,
    column: Result<impl AsRef<str>, StoreError>,
) -> Result<Option<Arc<NetworkRules>>, StoreError> {
    match column.and_then(|column| read_account_rules(column.as_ref())) {
        Ok(rules) => Ok(rules),
        Err(StoreError::Corrupt(reason)) => {
            if let Some(suppressed) = UNREADABLE_LOGGED.admit() {
                tracing::error!(%account, %reason, suppressed, "an account's settings cannot be read: nothing is sent \
                                                               for it");
            }
            Ok(Some(Arc::new(NetworkRules::deny_all())))
        }
        Err(error) => Err(error),
    }
}

fn read_account_rules(column: &str) -> Result<Option<Arc<NetworkRules>>, StoreError> {
    // Most accounts have no such attribute, and each start reads all accounts.
    if !column.contains("\"egress_") {
        return Ok(None);
    }
    Ok(AccountSettings::read(column)?.networks.rules())
}

/// A stored filter. One that is `known` already is not compiled again.
fn filter_of(text: Option<String>, known: Option<&PayloadFilter>) -> Result<Option<PayloadFilter>, StoreError> {
    let Some(text) = text else { return Ok(None) };
    if let Some(known) = known.filter(|known| known.as_json() == text) {
        return Ok(Some(known.clone()));
    }
    let filter = PayloadFilter::parse(&text);
    filter.map(Some).map_err(|error| StoreError::Corrupt(format!("endpoints.settings: filter: {error}")))
}

/// What the column `settings` of an endpoint says of its deliveries; what it said before may be `known`.
pub(super) fn delivery_settings(
    column: &str,
    known: Option<&DeliverySettings>,
) -> Result<DeliverySettings, StoreError> {
    let mut rest = SettingsJson::read("endpoints", column)?;
    let rate_limit = rest.rate_limit()?;
    Ok(DeliverySettings {
        credentials: rest.credentials(),
        channels: rest.channels.map(Channels::stored),
        timeout: rest.timeout_seconds.map(|seconds| Duration::from_secs(seconds.into())),
        max_in_flight: rest.max_in_flight.map(|most| most as usize),
        retry_schedule: rest.retry_schedule.as_deref().map(RetrySchedule::stored),
        filter: filter_of(rest.filter, known.and_then(|known| known.filter.as_ref()))?,
        rate_limit: rate_limit.map(|limit| limit.rate()),
    })
}

/// What was read of an endpoint, for work that is done for many endpoints, which one row must not fail. Where it could
/// not be read, it logs a line and returns `None`. Such an endpoint counts as paused until its row is repaired.
pub(super) fn readable<T>(endpoint: EndpointId, read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(StoreError::Corrupt(reason)) => {
            if let Some(suppressed) = UNREADABLE_LOGGED.admit() {
                tracing::error!(%endpoint, %reason, suppressed, "an endpoint's row cannot be read: it counts as \
                                                                paused, and its deliveries wait");
            }
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The channels of an event, as a column has them.
pub(super) fn channels_column(channels: Option<&Channels>) -> Option<String> {
    channels.map(|channels| channels.names().join(" "))
}

/// The channels that a column of an event has.
pub(super) fn channels_of(column: Option<&str>) -> Option<Channels> {
    column.map(|names| Channels::stored(words(names)))
}

impl SettingsColumns {
    /// The columns of these settings, for a row whose column `settings` is `stored` now. A new row has `{}`.
    pub fn of(settings: EndpointSettings, stored: &str) -> Result<NewColumns, StoreError> {
        let requires = required_version(&settings);
        let SettingsJson { unknown, .. } = SettingsJson::read("endpoints", stored)?;
        let EndpointSettings {
            url,
            events,
            description,
            ordering,
            metadata,
            external_id,
            channels,
            timeout_seconds,
            max_in_flight,
            retry_schedule,
            filter,
            credentials,
            rate_limit,
        } = settings;
        let rest = SettingsJson {
            version: FORM,
            metadata: metadata.map(|metadata| metadata.strings().clone()),
            channels: channels.map(|channels| channels.names().to_vec()),
            timeout_seconds,
            max_in_flight,
            retry_schedule: retry_schedule.map(|schedule| schedule.seconds()),
            filter: filter.map(|filter| filter.as_json().to_owned()),
            headers: credentials.headers.map(|headers| headers.masks().clone()),
            authentication: credentials.authentication.map(AuthenticationJson::from),
            client_certificate: credentials.client_certificate.map(CertificateJson::from),
            rate_limit: rate_limit.map(|limit| limit.to_string()),
            egress_allow_networks: None,
            egress_deny_networks: None,
            unknown,
        };
        let columns = Self {
            url,
            events: events.join(" "),
            description,
            ordering: ordering.to_column(),
            external_id: external_id.map(|external_id| external_id.to_string()),
            settings: rest.column(),
        };
        Ok(NewColumns { columns, requires })
    }

    /// The settings in these columns.
    pub fn read(self) -> Result<EndpointSettings, StoreError> {
        let mut rest = SettingsJson::read("endpoints", &self.settings)?;
        let ordering = Ordering::from_column(self.ordering);
        let ordering = ordering.ok_or_else(|| StoreError::Corrupt(format!("endpoints.ordering: {}", self.ordering)))?;
        let rate_limit = rest.rate_limit()?;
        Ok(EndpointSettings {
            url: self.url,
            events: words(&self.events),
            description: self.description,
            ordering,
            credentials: rest.credentials(),
            metadata: rest.metadata.map(Metadata::stored),
            external_id: self.external_id.map(ExternalId::stored),
            channels: rest.channels.map(Channels::stored),
            timeout_seconds: rest.timeout_seconds,
            max_in_flight: rest.max_in_flight,
            retry_schedule: rest.retry_schedule.as_deref().map(RetrySchedule::stored),
            filter: filter_of(rest.filter, None)?,
            rate_limit,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::url::{Environment, ReceiverUrl};

    fn settings() -> EndpointSettings {
        let url = ReceiverUrl::parse("http://127.0.0.1:9/", Environment::Development).expect("a URL");
        let metadata = Metadata::parse([("team".to_owned(), "a\0b".to_owned())].into());
        let description = Some("a".into());
        let external_id = ExternalId::parse("d");
        EndpointSettings {
            description,
            metadata,
            external_id,
            ..EndpointSettings::new(&url, vec!["b".into(), "c".into()])
        }
    }

    fn credentials() -> ShownCredentials {
        let headers = Some(Headers::stored([("X-Key".to_owned(), "...abcd".to_owned())].into()));
        let authentication = Authentication::OAuth2 {
            token_url: "https://id.example/token".into(),
            client_id: "aldaba".into(),
            scope: Some("a b".into()),
            audience: None,
        };
        let client_certificate = ShownCertificate {
            subject: "CN=a".into(),
            fingerprint: "0f".repeat(32),
            not_after: Timestamp::from_millis(1_800_000_000_000),
        };
        let client_certificate = Some(client_certificate);
        ShownCredentials { headers, authentication: Some(authentication), client_certificate }
    }

    #[test]
    fn each_way_to_authenticate_is_read_as_it_was_written() {
        for authentication in [
            Authentication::Basic { username: "a".into() },
            Authentication::Bearer,
            credentials().authentication.expect("one"),
        ] {
            let credentials = ShownCredentials { authentication: Some(authentication), ..ShownCredentials::default() };
            let settings = EndpointSettings { credentials, ..settings() };
            let columns = SettingsColumns::of(settings.clone(), "{}").expect("written").columns;
            assert_eq!(columns.read(), Ok(settings));
        }
    }

    #[test]
    fn settings_are_read_as_they_were_written() {
        let NewColumns { columns, requires } = SettingsColumns::of(settings(), "{}").expect("written");
        assert_eq!((columns.read(), requires), (Ok(settings()), 0));
        let channels = Channels::parse(vec!["d".into(), "e:1".into()], 2);
        let all = EndpointSettings {
            channels: channels.clone(),
            timeout_seconds: Some(7),
            max_in_flight: Some(3),
            retry_schedule: RetrySchedule::of_endpoint(&[5, 60]),
            filter: PayloadFilter::parse(r#"{"data":{"n":1.50,"text":"\u0000é"}}"#).ok(),
            credentials: credentials(),
            rate_limit: RateLimit::parse("5/60s"),
            ..settings()
        };
        let NewColumns { columns, .. } = SettingsColumns::of(all.clone(), "{}").expect("written");
        let timeout = Some(Duration::from_secs(7));
        let retry_schedule = RetrySchedule::of_endpoint(&[5, 60]);
        let credentials = credentials();
        let rate_limit = RateLimit::parse("5/1m").map(|limit| limit.rate());
        let max_in_flight = Some(3);
        let filter = all.filter.clone();
        let delivery =
            DeliverySettings { channels, timeout, max_in_flight, retry_schedule, filter, credentials, rate_limit };
        assert_eq!(delivery_settings(&columns.settings, None), Ok(delivery.clone()));
        assert_eq!(delivery_settings(&columns.settings, Some(&delivery)), Ok(delivery));
        assert_eq!(columns.read(), Ok(all));
    }

    #[test]
    fn what_older_programs_would_ignore_requires_a_later_one() {
        let wildcard = EndpointSettings { events: vec!["b".into(), "c.*".into()], ..settings() };
        let channels = EndpointSettings { channels: Channels::parse(vec!["d".into()], 1), ..wildcard.clone() };
        let timeout = EndpointSettings { timeout_seconds: Some(7), ..settings() };
        let in_flight = EndpointSettings { max_in_flight: Some(3), ..settings() };
        let schedule = EndpointSettings { retry_schedule: RetrySchedule::of_endpoint(&[]), ..settings() };
        let filter = EndpointSettings { filter: PayloadFilter::parse("{}").ok(), ..settings() };
        let headers = ShownCredentials { authentication: None, client_certificate: None, ..credentials() };
        let headers = EndpointSettings { credentials: headers, ..settings() };
        let certificate = EndpointSettings { credentials: credentials(), ..settings() };
        let authentication = ShownCredentials { headers: None, client_certificate: None, ..credentials() };
        let authentication = EndpointSettings { credentials: authentication, ..settings() };
        for (settings, version) in [
            (wildcard, 17),
            (channels, 18),
            (timeout, 18),
            (in_flight, 18),
            (schedule, 18),
            (filter, 18),
            (headers, 19),
            (authentication, 19),
            (certificate, 20),
        ] {
            assert_eq!(SettingsColumns::of(settings, "{}").expect("written").requires, version);
        }
        let rate = EndpointSettings { rate_limit: RateLimit::parse("1/1s"), ..settings() };
        assert_eq!(SettingsColumns::of(rate, "{}").expect("written").requires, 21);
        let (own, generated) = (Secret::of_owner("an-own-secret-of-its-owner"), Secret::from_random([1; 32]));
        assert_eq!((required_of_secret(None), required_of_secret(Some(&generated))), (0, 0));
        assert_eq!(required_of_secret(Some(&own.expect("a secret"))), 18);
    }

    #[test]
    fn an_accounts_settings_are_read_as_they_were_written_and_its_networks_require_a_later_program() {
        let list = |texts: &[&str]| NetworkList::parse(texts);
        let networks = AccountNetworks { allow: list(&["10.0.0.0/8"]), deny: list(&["fd00::/8", "1.2.3.4/32"]) };
        let metadata = Metadata::parse([("plan".to_owned(), "pro".to_owned())].into());
        let settings = AccountSettings { metadata: metadata.clone(), networks: networks.clone() };
        let (column, requires) = settings.column(r#"{"version":1,"sparkle":3}"#).expect("written");
        let read = AccountSettings::read(&column).expect("read");
        assert_eq!((read.metadata, &read.networks, requires), (metadata.clone(), &networks, 22));
        let rules = |column: &str| account_rules(AccountId::from_random([1; 16]), Ok(column));
        assert_eq!(rules(&column), Ok(networks.rules()));
        assert!(column.contains(r#""sparkle":3"#), "{column}");
        let bare = AccountSettings { metadata, networks: AccountNetworks { allow: list(&[]), deny: None } };
        assert_eq!(bare.column("{}").expect("written").1, 0);
        assert_eq!(rules("{}"), Ok(None));
        let denied =
            rules(r#"{"egress_deny_networks":["everything"]}"#).expect("logged").expect("no rule is not this rule");
        assert!(
            denied.denies("192.0.2.1".parse().expect("IPv4")) && denied.denies("2001:db8::1".parse().expect("IPv6"))
        );
    }

    #[test]
    fn attributes_of_a_later_program_stay() {
        let stored = r#"{"version":1,"sparkle":{"level":3}}"#;
        let NewColumns { columns, .. } = SettingsColumns::of(settings(), stored).expect("written");
        let written: Value = serde_json::from_str(&columns.settings).expect("JSON");
        assert_eq!(written["sparkle"]["level"], 3);
        assert_eq!(columns.read(), Ok(settings()));
    }

    #[test]
    fn a_limit_that_cannot_be_read_is_an_error_and_not_no_limit() {
        assert!(delivery_settings(r#"{"version":1,"rate_limit":"many"}"#, None).is_err());
    }

    #[test]
    fn a_form_of_a_later_program_is_refused() {
        let refused = SettingsColumns::of(settings(), r#"{"version":2}"#).err().expect("refused");
        assert!(refused.to_string().contains("endpoints.settings: version 2"), "{refused}");
        assert!(SettingsColumns::of(settings(), "nothing").is_err());
        let corrupt = delivery_settings(r#"{"version":1,"filter":"{\"data\":{}}"}"#, None).expect_err("refused");
        assert!(corrupt.to_string().contains("endpoints.settings: filter"), "{corrupt}");
    }
}

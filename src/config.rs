//! Settings: a TOML file, over it the environment, over it flags. Read and checked once, at the start.

mod egress;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use crate::api::{Bucket, RateLimit, RateLimits, Sessions};
use crate::domain::egress_rules::EgressRules;
use crate::domain::retention::Retention;
use crate::domain::retry::{MAX_STEPS, RetrySchedule};
use crate::domain::transition::DeliveryPolicy;
use crate::domain::url::Environment;
use crate::store::Database;
use crate::store::keys::{KeySource, MasterKeyBytes, parse_master_key};

/// The file that is read when no other is named.
pub const DEFAULT_FILE: &str = "aldaba.toml";

/// What environment variables begin with; `__` stands between the parts of a name.
const ENV_PREFIX: &str = "ALDABA_";

/// What `database_url` may be.
const DATABASE_RULE: &str = "sqlite://PATH or postgres://USER:PASSWORD@HOST:PORT/NAME?PARAMETERS";

/// Every setting, checked.
#[derive(Clone)]
pub struct Config {
    /// `listen`: where the API is served.
    pub listen: String,
    /// Whether nothing sets `listen`.
    pub listen_is_default: bool,
    /// `database_url`: the file of the embedded store, or a PostgreSQL server.
    pub database: Database,
    /// `roles`: what this process does.
    pub roles: Roles,
    /// `environment`.
    pub environment: Environment,
    /// `brand`: in the names of delivery headers.
    pub brand: String,
    /// `api_keys.prefix`.
    pub key_prefix: String,
    /// `secrets.master_key`, or the file beside the database.
    pub keys: KeySource,
    /// `webhooks.retry_schedule`, `webhooks.auto_disable_threshold`, `webhooks.auto_disable_after`.
    pub policy: DeliveryPolicy,
    /// `webhooks.timeout`: of a whole attempt.
    pub timeout: Duration,
    /// `api_keys.max_per_account`.
    pub max_api_keys: u32,
    /// `webhooks.max_endpoints`: of one account.
    pub max_endpoints: u32,
    /// `webhooks.max_in_flight`.
    pub max_in_flight: usize,
    /// `webhooks.max_in_flight_per_endpoint`.
    pub max_in_flight_per_endpoint: usize,
    /// `limits.max_body`, in bytes.
    pub max_body: usize,
    /// `limits.connections_per_address`.
    pub connections_per_address: usize,
    /// `rate_limits.<bucket>`.
    pub rate_limits: RateLimits,
    /// `retention.deliveries` and `retention.payloads`.
    pub retention: Retention,
    /// `retention.audit_log`; `None` keeps it for ever.
    pub audit_retention: Option<Duration>,
    /// `trusted_proxies`: whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// `egress.dns_servers`: who is asked for receivers' addresses; none are those of the system.
    pub dns_servers: Vec<SocketAddr>,
    /// `public_url`: how people reach this server.
    pub public_url: Option<String>,
    /// `sessions.idle_timeout` and `sessions.lifetime`.
    pub sessions: Sessions,
    /// `egress.deny_networks`, `egress.allow_ports` and `egress.nat64_prefixes`.
    pub egress_rules: EgressRules,
    /// `metrics_listen`: where `/metrics` is served, if not beside the API.
    pub metrics_listen: Option<String>,
    /// `log.format`.
    pub log_format: LogFormat,
    /// `log.level`.
    pub log_level: tracing::Level,
}

/// What a process does of what there is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Roles {
    /// `api`: it answers calls.
    pub api: bool,
    /// `delivery`: it sends.
    pub delivery: bool,
}

impl Roles {
    fn parse(text: &str) -> Option<Self> {
        let mut roles = Self { api: false, delivery: false };
        for role in text.split(',').map(str::trim) {
            match role {
                "api" => roles.api = true,
                "delivery" => roles.delivery = true,
                _ => return None,
            }
        }
        Some(roles)
    }
}

/// How log lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines, one object a line.
    Json,
}

/// What is wrong with the settings: one line for each.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// A setting as it was written, and where.
#[derive(Clone, Debug)]
struct Written {
    text: String,
    place: String,
}

impl Config {
    /// Reads the file (`file`, else [`DEFAULT_FILE`] if it is there), then `environment`, then `flags`.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Self, ConfigError> {
        Self::load_over([], file, environment, flags)
    }

    /// The same for a command that has `defaults` of its own: everything else is read over them.
    pub fn load_over(
        defaults: impl IntoIterator<Item = (&'static str, String)>,
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Self, ConfigError> {
        let mut reader = Reader::default();
        for (name, value) in defaults {
            reader.add(name.to_owned(), value, "default");
        }
        let default = Path::new(DEFAULT_FILE);
        match file {
            Some(path) => reader.add_file(path)?,
            None if default.exists() => reader.add_file(default)?,
            None => {}
        }
        for (name, value) in environment {
            if let Some(path) = name.strip_prefix(ENV_PREFIX) {
                reader.add(path.to_ascii_lowercase().replace("__", "."), value, &name);
            }
        }
        for (name, value) in flags {
            reader.add(name.to_owned(), value, &format!("--{}", name.replace('_', "-")));
        }
        reader.finish()
    }
}

#[derive(Default)]
struct Reader {
    written: BTreeMap<String, Written>,
    errors: Vec<String>,
}

impl Reader {
    fn add(&mut self, name: String, text: String, place: &str) {
        self.written.insert(name, Written { text, place: place.to_owned() });
    }

    fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let shown = path.display();
        let fail = |what: String| ConfigError(vec![format!("settings file {shown}: {what}")]);
        let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
        // The parser's message quotes the line at fault, which may hold a secret: only its place is told.
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
            fail(format!("line {line} is not valid TOML: {}", error.message()))
        })?;
        let mut flat = Vec::new();
        flatten("", &toml::Value::Table(table), &mut flat);
        for (name, text) in flat {
            self.add(name, text, &shown.to_string());
        }
        Ok(())
    }

    /// Takes a setting out of what was written; the default is written the same way.
    fn take<T>(&mut self, name: &str, default: &str, allowed: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.take_or_tell(name, default, allowed, |text| parse(text).ok_or_else(String::new))
    }

    /// The same where a refusal has a reason. The reason must not hold the value.
    fn take_or_tell<T>(
        &mut self,
        name: &str,
        default: &str,
        allowed: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let written = self.written.remove(name);
        let text = written.as_ref().map_or(default, |written| written.text.trim());
        parse(text)
            .map_err(|reason| {
                let place = written.as_ref().map_or("default", |written| &written.place);
                let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
                // The value itself may be a secret, or a URL that carries one.
                self.errors.push(format!("setting {name} ({place}) is not valid{reason}; allowed: {allowed}"));
            })
            .ok()
    }

    fn number(&mut self, name: &str, default: &str, least: u64, most: u64) -> Option<u64> {
        let allowed = format!("a whole number from {least} to {most}");
        self.take(name, default, &allowed, |text| text.parse().ok().filter(|n| (least..=most).contains(n)))
    }

    fn duration(&mut self, name: &str, default: &str, least: Duration, most: Duration) -> Option<Duration> {
        let allowed =
            format!("a duration from {} to {}, such as 30s, 2m or 1h30m", show_duration(least), show_duration(most));
        self.take(name, default, &allowed, |text| parse_duration(text).filter(|d| (least..=most).contains(d)))
    }

    fn finish(mut self) -> Result<Config, ConfigError> {
        let listen_is_default = !self.written.contains_key("listen");
        let listen = self.take("listen", "127.0.0.1:8080", "HOST:PORT, such as 127.0.0.1:8080", parse_listen);
        let database = self.take_or_tell("database_url", "sqlite://aldaba.db", DATABASE_RULE, Database::parse);
        let environment = self.take("environment", "production", "production or development", |text| match text {
            "production" => Some(Environment::Production),
            "development" => Some(Environment::Development),
            _ => None,
        });
        let brand = self.take("brand", "Aldaba", "1 to 32 letters, digits and hyphens", |text| {
            let valid = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            valid.then(|| text.to_owned())
        });
        let prefix_rule = "1 to 16 lowercase letters, digits and underscores";
        let key_prefix = self.take("api_keys.prefix", "mxcep_", prefix_rule, |text| {
            let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            ((1..=16).contains(&text.len()) && text.bytes().all(valid)).then(|| text.to_owned())
        });
        let max_api_keys = self.number("api_keys.max_per_account", "100", 1, 10_000);
        let keys = self.keys(database.as_ref());
        let roles = self.roles(database.as_ref());
        let policy = self.policy();
        let second = Duration::from_secs(1);
        let timeout = self.duration("webhooks.timeout", "10s", second, second * 120);
        let max_endpoints = self.number("webhooks.max_endpoints", "50", 1, 10_000);
        let max_in_flight = self.number("webhooks.max_in_flight", "1024", 1, 16_384);
        let per_endpoint = self.number("webhooks.max_in_flight_per_endpoint", "64", 1, 4_096);
        let max_body = self.number("limits.max_body", "262144", 1_024, 8 << 20);
        let connections_per_address = self.number("limits.connections_per_address", "1024", 1, 1_000_000);
        let deliveries = self.retention("retention.deliveries", "30d");
        let payloads = self.retention("retention.payloads", "off");
        let audit_retention = self.retention("retention.audit_log", "365d");
        let trusted_proxies = self.networks("trusted_proxies");
        let egress_rules = self.egress_rules();
        let dns_servers = self.dns_servers();
        let metrics_rule = "HOST:PORT, such as 127.0.0.1:9100";
        let metrics_listen = self.take("metrics_listen", "", metrics_rule, |text| {
            if text.is_empty() { Some(None) } else { parse_listen(text).map(Some) }
        });
        let public_url = self.public_url();
        let sessions = self.sessions();
        let rate_limits = self.rate_limits();
        let log_format = self.take("log.format", "text", "text or json", |text| match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        });
        let levels = "error, warn, info, debug or trace";
        let log_level = self.take("log.level", "info", levels, |text| text.parse().ok());
        self.refuse_unknown();
        let errors = ConfigError(self.errors);
        let config = (|| {
            Some(Config {
                listen: listen?,
                listen_is_default,
                database: database?,
                roles: roles?,
                environment: environment?,
                brand: brand?,
                key_prefix: key_prefix?,
                max_api_keys: u32::try_from(max_api_keys?).ok()?,
                keys: keys?,
                policy: policy?,
                timeout: timeout?,
                max_endpoints: u32::try_from(max_endpoints?).ok()?,
                max_in_flight: usize::try_from(max_in_flight?).ok()?,
                max_in_flight_per_endpoint: usize::try_from(per_endpoint?).ok()?,
                max_body: usize::try_from(max_body?).ok()?,
                connections_per_address: usize::try_from(connections_per_address?).ok()?,
                rate_limits: rate_limits?,
                retention: Retention { deliveries: deliveries?, payloads: payloads? },
                audit_retention: audit_retention?,
                trusted_proxies: trusted_proxies?,
                dns_servers: dns_servers?,
                public_url: public_url?,
                sessions: sessions?,
                egress_rules: egress_rules?,
                metrics_listen: metrics_listen?,
                log_format: log_format?,
                log_level: log_level?,
            })
        })();
        match config {
            Some(config) if errors.0.is_empty() => Ok(config),
            _ => Err(errors),
        }
    }

    fn public_url(&mut self) -> Option<Option<String>> {
        self.take("public_url", "", "an origin such as https://hooks.example.com", |text| {
            let origin = url::Url::parse(text).ok().map(|url| url.origin().ascii_serialization());
            let is_http = text.starts_with("https://") || text.starts_with("http://");
            let origin = origin.filter(|origin| is_http && text.trim_end_matches('/') == origin);
            if text.is_empty() { Some(None) } else { origin.map(Some) }
        })
    }

    fn sessions(&mut self) -> Option<Sessions> {
        let (minute, day) = (Duration::from_secs(60), Duration::from_secs(86_400));
        let idle = self.duration("sessions.idle_timeout", "12h", minute, day * 30);
        let lifetime = self.duration("sessions.lifetime", "7d", minute, day * 365);
        Some(Sessions { idle: idle?, lifetime: lifetime? })
    }

    fn keys(&mut self, database: Option<&Database>) -> Option<KeySource> {
        const ALLOWED: &str = "64 hex characters (32 bytes)";
        let given = |text: &str| -> Option<Option<MasterKeyBytes>> {
            if text.is_empty() { Some(None) } else { parse_master_key(text).map(Some) }
        };
        let current = self.take("secrets.master_key", "", ALLOWED, given);
        let previous =
            self.take("secrets.previous_master_keys", "", "keys of 64 hex characters, separated by commas", |text| {
                text.split(',')
                    .map(str::trim)
                    .filter(|key| !key.is_empty())
                    .map(parse_master_key)
                    .collect::<Option<Vec<_>>>()
            });
        match (current?, previous?) {
            (Some(current), previous) => Some(KeySource::Given { current, previous }),
            (None, previous) if previous.is_empty() => {
                let Database::Sqlite(database) = database? else {
                    // A file beside one node would be unknown to the others.
                    let rule =
                        format!("setting secrets.master_key is missing; with PostgreSQL it must be given: {ALLOWED}");
                    self.errors.push(rule);
                    return None;
                };
                Some(KeySource::beside(database))
            }
            (None, _) => {
                let rule = "setting secrets.previous_master_keys needs secrets.master_key beside it";
                self.errors.push(rule.to_owned());
                None
            }
        }
    }

    fn roles(&mut self, database: Option<&Database>) -> Option<Roles> {
        let roles = self.take("roles", "api,delivery", "api, delivery, or both", Roles::parse)?;
        if matches!(database, Some(Database::Sqlite(_))) && !(roles.api && roles.delivery) {
            let rule = "setting roles must be api,delivery with SQLite: there is one process, which does everything";
            self.errors.push(rule.to_owned());
        }
        Some(roles)
    }

    fn policy(&mut self) -> Option<DeliveryPolicy> {
        let rule = format!("up to {MAX_STEPS} durations of at most 30d, separated by commas, such as 30s,2m,10m");
        let month = Duration::from_secs(30 * 86_400);
        let schedule = self.take("webhooks.retry_schedule", "30s,2m,10m,30m,1h30m,3h,3h30m", &rule, |text| {
            let parts = text.split(',').map(str::trim).filter(|_| !text.is_empty());
            let delays: Option<Vec<_>> =
                parts.map(|part| parse_duration(part).filter(|delay| *delay <= month)).collect();
            RetrySchedule::new(delays?)
        });
        let threshold = self.number("webhooks.auto_disable_threshold", "20", 0, u32::MAX.into());
        let after = self.duration("webhooks.auto_disable_after", "0s", Duration::ZERO, month * 12);
        Some(DeliveryPolicy {
            schedule: schedule?,
            auto_disable_threshold: u32::try_from(threshold?).ok()?,
            auto_disable_after: after?,
        })
    }

    fn retention(&mut self, name: &str, default: &str) -> Option<Option<Duration>> {
        let hour = Duration::from_secs(3_600);
        let rule = "a duration from 1h to 3650d, such as 30d, or off";
        self.take(name, default, rule, |text| match text {
            "off" => Some(None),
            text => parse_duration(text).filter(|keep| (hour..=hour * 24 * 3_650).contains(keep)).map(Some),
        })
    }

    fn rate_limits(&mut self) -> Option<RateLimits> {
        let mut limits = RateLimits(foldhash::HashMap::default());
        for bucket in Bucket::ALL {
            let name = format!("rate_limits.{}", bucket.name());
            let rule = "CALLS/WINDOW such as 600/60s with a window of 1s to 1d, or off";
            let default = match bucket {
                // Nobody types faster, and a guesser gets nowhere.
                Bucket::Login => "10/60s",
                // KiB: 100 GiB a day.
                Bucket::EventsStorage => "104857600/1d",
                _ => "600/60s",
            };
            let limit = self.take(&name, default, rule, parse_rate_limit);
            limits.0.insert(*bucket, limit?);
        }
        Some(limits)
    }

    fn refuse_unknown(&mut self) {
        for (name, written) in std::mem::take(&mut self.written) {
            let mut error = format!("setting {name} ({}) is unknown", written.place);
            if name.starts_with("rate_limits.") {
                let names: Vec<_> = Bucket::ALL.iter().map(|bucket| bucket.name()).collect();
                error = format!("{error}; the buckets are {}", names.join(", "));
            } else {
                error.push_str("; see the table of settings in the README");
            }
            self.errors.push(error);
        }
    }
}

/// Turns tables into dotted names and lists into text with commas.
fn flatten(prefix: &str, value: &toml::Value, flat: &mut Vec<(String, String)>) {
    let text = |value: &toml::Value| match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, value, flat);
            }
        }
        toml::Value::Array(list) => {
            flat.push((prefix.to_owned(), list.iter().map(text).collect::<Vec<_>>().join(",")));
        }
        other => flat.push((prefix.to_owned(), text(other))),
    }
}

fn parse_listen(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| text.to_owned())
}

fn parse_rate_limit(text: &str) -> Option<Option<RateLimit>> {
    if text == "off" {
        return Some(None);
    }
    let (calls, window) = text.split_once('/')?;
    let calls = calls.trim().parse().ok().filter(|calls| *calls >= 1)?;
    let range = Duration::from_secs(1)..=Duration::from_secs(86_400);
    let window = parse_duration(window.trim()).filter(|window| range.contains(window))?;
    Some(Some(RateLimit { calls, window }))
}

/// Reads whole numbers with units, the largest first: `1h30m`, `500ms`, `30d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut rest = text;
    let mut total_ms: u64 = 0;
    let mut next_unit = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_lowercase).count();
        let (unit, after) = after.split_at(letters);
        let index = UNITS.iter().position(|(name, _)| *name == unit).filter(|index| *index >= next_unit)?;
        total_ms = number.parse::<u64>().ok()?.checked_mul(UNITS[index].1)?.checked_add(total_ms)?;
        next_unit = index + 1;
        rest = after;
    }
    Some(Duration::from_millis(total_ms))
}

fn show_duration(duration: Duration) -> String {
    let secs = duration.as_secs();
    match secs {
        0 => "0s".to_owned(),
        _ if secs.is_multiple_of(86_400) => format!("{}d", secs / 86_400),
        _ => format!("{secs}s"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn load(environment: &[(&str, &str)]) -> Result<Config, String> {
        let pairs = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(Some(Path::new("/dev/null")), pairs, []).map_err(|error| error.to_string())
    }

    #[test]
    fn without_settings_the_defaults_of_the_contract_hold() {
        let config = load(&[]).expect("defaults are valid");
        assert_eq!(config.listen, "127.0.0.1:8080");
        assert_eq!(config.database, Database::Sqlite("aldaba.db".into()));
        assert_eq!(config.environment, Environment::Production);
        assert_eq!(config.policy, DeliveryPolicy::default());
        assert_eq!((config.timeout, config.max_endpoints), (Duration::from_secs(10), 50));
        assert_eq!(config.max_api_keys, 100);
        assert_eq!((config.max_in_flight, config.max_in_flight_per_endpoint), (1024, 64));
        assert_eq!(config.retention.deliveries, Some(Duration::from_secs(30 * 86_400)));
    }

    #[test]
    fn the_environment_is_read_with_double_underscores_and_commas() {
        let config = load(&[
            ("ALDABA_WEBHOOKS__RETRY_SCHEDULE", "1s, 5s,1m"),
            ("ALDABA_RATE_LIMITS__EVENTS_CREATE", "off"),
            ("ALDABA_RATE_LIMITS__WEBHOOKS_LIST", "3/60s"),
            ("ALDABA_EGRESS__DNS_SERVERS", "192.0.2.53, 2001:db8::53,[2001:db8::54]:5353"),
            ("PATH", "/bin"),
        ])
        .expect("valid settings");
        let servers: Vec<_> = config.dns_servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.53:53", "[2001:db8::53]:53", "[2001:db8::54]:5353"]);
        assert_eq!(config.policy.schedule.delays(), [1, 5, 60].map(Duration::from_secs));
        assert_eq!(config.rate_limits.0[&Bucket::EventsCreate], None);
        let limit = RateLimit { calls: 3, window: Duration::from_secs(60) };
        assert_eq!(config.rate_limits.0[&Bucket::WebhooksList], Some(limit));
    }

    #[test]
    fn a_wrong_setting_is_named_with_what_is_allowed_and_never_with_its_value() {
        for (name, value, setting) in [
            ("ALDABA_LISTEN", "8080", "listen"),
            ("ALDABA_DATABASE_URL", "mysql://x", "database_url"),
            ("ALDABA_ENVIRONMENT", "staging", "environment"),
            ("ALDABA_ROLES", "api,sender", "roles"),
            ("ALDABA_BRAND", "My Brand", "brand"),
            ("ALDABA_API_KEYS__PREFIX", "A-", "api_keys.prefix"),
            ("ALDABA_API_KEYS__MAX_PER_ACCOUNT", "0", "api_keys.max_per_account"),
            ("ALDABA_SECRETS__MASTER_KEY", "abc123secret", "secrets.master_key"),
            ("ALDABA_WEBHOOKS__TIMEOUT", "10", "webhooks.timeout"),
            ("ALDABA_WEBHOOKS__TIMEOUT", "0s", "webhooks.timeout"),
            ("ALDABA_WEBHOOKS__RETRY_SCHEDULE", "1s,soon", "webhooks.retry_schedule"),
            ("ALDABA_WEBHOOKS__RETRY_SCHEDULE", "1s,,2s", "webhooks.retry_schedule"),
            ("ALDABA_WEBHOOKS__MAX_ENDPOINTS", "0", "webhooks.max_endpoints"),
            ("ALDABA_WEBHOOKS__MAX_IN_FLIGHT", "-1", "webhooks.max_in_flight"),
            ("ALDABA_WEBHOOKS__AUTO_DISABLE_THRESHOLD", "many", "webhooks.auto_disable_threshold"),
            ("ALDABA_RATE_LIMITS__EVENTS_CREATE", "fast", "rate_limits.events_create"),
            ("ALDABA_RETENTION__DELIVERIES", "1s", "retention.deliveries"),
            ("ALDABA_EGRESS__DNS_SERVERS", "ns1.acme.example", "egress.dns_servers"),
            ("ALDABA_EGRESS__DNS_SERVERS", "192.0.2.1,192.0.2.2,192.0.2.3,192.0.2.4", "egress.dns_servers"),
            ("ALDABA_PUBLIC_URL", "hooks.acme.example", "public_url"),
            ("ALDABA_PUBLIC_URL", "https://hooks.acme.example/path", "public_url"),
            ("ALDABA_SESSIONS__IDLE_TIMEOUT", "1s", "sessions.idle_timeout"),
            ("ALDABA_SESSIONS__LIFETIME", "forever", "sessions.lifetime"),
            ("ALDABA_EGRESS__DENY_NETWORKS", "10.0.0.0/33", "egress.deny_networks"),
            ("ALDABA_EGRESS__ALLOW_PORTS", "443,0", "egress.allow_ports"),
            ("ALDABA_EGRESS__NAT64_PREFIXES", "2a00::/33", "egress.nat64_prefixes"),
            ("ALDABA_METRICS_LISTEN", "9100", "metrics_listen"),
            ("ALDABA_LOG__FORMAT", "xml", "log.format"),
            ("ALDABA_LOG__LEVEL", "loud", "log.level"),
        ] {
            let error = load(&[(name, value)]).err().unwrap_or_default();
            assert!(error.contains(&format!("setting {setting} ({name})")), "{error}");
            assert!(error.contains("allowed: "), "{error}");
            assert!(value.len() < 8 || !error.contains(value), "{error}");
        }
    }

    #[test]
    fn roles_and_a_master_key_go_with_the_database() {
        let postgres = ("ALDABA_DATABASE_URL", "postgres://aldaba:hidden@db.example/aldaba");
        let key = ("ALDABA_SECRETS__MASTER_KEY", "1111111111111111111111111111111111111111111111111111111111111111");
        let config = load(&[postgres, key, ("ALDABA_ROLES", "delivery")]).expect("valid settings");
        assert_eq!(config.roles, Roles { api: false, delivery: true });
        assert!(!format!("{:?}", config.database).contains("hidden"));
        let error = load(&[postgres]).err().unwrap_or_default();
        assert!(error.contains("setting secrets.master_key is missing") && !error.contains("hidden"), "{error}");
        let standby =
            ("ALDABA_DATABASE_URL", "postgres://aldaba:hidden@db.example/aldaba?target_session_attrs=standby");
        let error = load(&[standby, key]).err().unwrap_or_default();
        assert!(error.contains("target_session_attrs must be read-write") && !error.contains("hidden"), "{error}");
        let error = load(&[("ALDABA_ROLES", "api")]).err().unwrap_or_default();
        assert!(error.contains("setting roles must be api,delivery with SQLite"), "{error}");
    }

    #[test]
    fn an_unknown_setting_stops_the_start() {
        let error = load(&[("ALDABA_WEBHOOKS__RETRIES", "3")]).err().unwrap_or_default();
        assert!(error.contains("setting webhooks.retries (ALDABA_WEBHOOKS__RETRIES) is unknown"), "{error}");
        let error = load(&[("ALDABA_RATE_LIMITS__NOPE", "off")]).err().unwrap_or_default();
        assert!(error.contains("the buckets are webhooks_list"), "{error}");
    }

    #[test]
    fn all_wrong_settings_are_told_at_once() {
        let error = load(&[("ALDABA_LISTEN", "x"), ("ALDABA_BRAND", "")]).err().unwrap_or_default();
        assert_eq!(error.lines().count(), 2, "{error}");
    }

    #[test]
    fn durations_are_whole_numbers_with_units() {
        for (text, ms) in
            [("30s", 30_000), ("2m", 120_000), ("1h30m", 5_400_000), ("30d", 2_592_000_000), ("500ms", 500), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "30", "s", "1.5s", "-1s", "1m1h", "1s1s", "1 s", "1y", "99999999999999999999d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_duration_or_none(text in "\\PC{0,20}") {
            let _ = parse_duration(&text);
        }
    }
}

//! Checks settings. Defaults and bounds come from the table. Problems are collected, so that one start tells all of
//! them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::effective::EffectiveSettings;
use super::problems::{ConfigError, Problem};
use super::sources::Sources;
use super::table::{MAX_RETRY_DELAY, Setting, Value};
use super::values::{Config, LogFormat, Roles};
use crate::api::{Bucket, RateLimit, RateLimits, Sessions};
use crate::domain::duration::{parse_duration, parse_rate};
use crate::domain::http_proxy::HttpProxy;
use crate::domain::retention::Retention;
use crate::domain::retry::RetrySchedule;
use crate::domain::transition::DeliveryPolicy;
use crate::domain::url::Environment;
use crate::store::Database;
use crate::store::keys::{KeySource, parse_master_key};

/// The result of reading the settings.
pub struct Reading {
    /// The checked settings, or everything that is wrong with them.
    pub config: Result<Config, ConfigError>,
    /// The values in force, as text.
    pub effective: EffectiveSettings,
    /// The sources that were read, in their order.
    pub sources: Vec<String>,
    /// The settings file that was read.
    pub file: Option<PathBuf>,
}

/// What is written and not taken yet, and the problems that were found so far.
pub(super) struct Reader {
    sources: Sources,
    problems: Vec<Problem>,
    effective: EffectiveSettings,
}

impl Reader {
    pub(super) fn new(mut sources: Sources) -> Self {
        let problems = std::mem::take(&mut sources.problems);
        Self { sources, problems, effective: EffectiveSettings::default() }
    }

    /// Takes the setting `name`, which has the row `setting` in the table. `parse` refuses with a reason, which must
    /// not hold the value. A fault is noted and gives `None`.
    fn take_checked<T>(
        &mut self,
        name: &str,
        setting: &Setting,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        if self.sources.unreadable.contains(name) {
            return None;
        }
        let Some(written) = self.sources.written.remove(name) else {
            self.effective.add(name, setting.default, None);
            return Some(parse(setting.default).expect("a default of the table is valid"));
        };
        let (text, source) = (written.text.trim(), written.source);
        match parse(text) {
            Ok(value) => {
                self.effective.add(name, text, Some(source));
                Some(value)
            }
            Err(reason) => {
                let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
                // The value itself may be a secret, or a URL that carries one.
                let fault = format!("is not valid{reason}; allowed: {}", setting.value.allowed());
                self.problems.push(Problem::at(name, &source, fault));
                None
            }
        }
    }

    /// Takes a setting of the table. After a fault the default stands in, so that the other settings are checked too.
    pub(super) fn take<T>(&mut self, name: &str, parse: impl Fn(&str) -> Option<T>) -> T {
        self.take_row(name, Setting::named(name), parse)
    }

    fn take_row<T>(&mut self, name: &str, setting: &Setting, parse: impl Fn(&str) -> Option<T>) -> T {
        self.take_checked(name, setting, |text| parse(text).ok_or_else(String::new))
            .unwrap_or_else(|| parse(setting.default).expect("a default of the table is valid"))
    }

    fn number<T: TryFrom<u64>>(&mut self, name: &str) -> T {
        let Value::Number { least, most } = Setting::named(name).value else { unreachable!("{name} is a number") };
        self.take(name, |text| {
            let number = text.parse().ok().filter(|number| (least..=most).contains(number))?;
            Some(T::try_from(number).ok().expect("the type holds the bounds of the table"))
        })
    }

    fn duration(&mut self, name: &str) -> Duration {
        let Value::Duration { least, most } = Setting::named(name).value else { unreachable!("{name} is a duration") };
        self.take(name, |text| parse_duration(text).filter(|duration| (least..=most).contains(duration)))
    }

    fn duration_or_off(&mut self, name: &str) -> Option<Duration> {
        let Value::DurationOrOff { least, most } = Setting::named(name).value else {
            unreachable!("{name} is a duration or off")
        };
        self.take(name, |text| match text {
            "off" => Some(None),
            text => parse_duration(text).filter(|duration| (least..=most).contains(duration)).map(Some),
        })
    }

    fn on_or_off(&mut self, name: &str) -> bool {
        self.take(name, |text| match text {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        })
    }

    /// Takes every setting.
    pub(super) fn finish(mut self) -> Reading {
        let row = Setting::named("database_url");
        let database = self.take_checked(row.name, row, Database::parse);
        let keys = self.keys(database.as_ref());
        let roles = self.roles(database.as_ref());
        let config = Config {
            listen_is_default: !self.sources.written.contains_key("listen"),
            listen: self.take("listen", parse_listen),
            // What stands in for a fault is never used: the faults are returned.
            database: database.unwrap_or_else(|| Database::Sqlite(PathBuf::new())),
            keys: keys.unwrap_or_else(|| KeySource::File(PathBuf::new())),
            roles,
            environment: self.environment(),
            brand: self.brand(),
            key_prefix: self.key_prefix(),
            policy: self.policy(),
            timeout: self.duration("webhooks.timeout"),
            max_api_keys: self.number("api_keys.max_per_account"),
            max_endpoints: self.number("webhooks.max_endpoints"),
            max_in_flight: self.number("webhooks.max_in_flight"),
            max_in_flight_per_endpoint: self.number("webhooks.max_in_flight_per_endpoint"),
            trace_context: self.on_or_off("webhooks.trace_context"),
            max_body: self.number("limits.max_body"),
            connections_per_address: self.number("limits.connections_per_address"),
            rate_limits: self.rate_limits(),
            retention: Retention {
                deliveries: self.duration_or_off("retention.deliveries"),
                payloads: self.duration_or_off("retention.payloads"),
            },
            audit_retention: self.duration_or_off("retention.audit_log"),
            trusted_proxies: self.networks("trusted_proxies"),
            dns_servers: self.dns_servers(),
            public_url: self.public_url(),
            sessions: Sessions {
                idle: self.duration("sessions.idle_timeout"),
                lifetime: self.duration("sessions.lifetime"),
            },
            egress_rules: self.egress_rules(),
            proxy: self.take("egress.proxy", |text| optional(text, HttpProxy::parse)),
            source_addresses: self.source_addresses(),
            public_addresses: self.public_addresses(),
            metrics_listen: self.take("metrics_listen", |text| optional(text, parse_listen)),
            log_format: self.log_format(),
            log_level: self.take("log.level", |text| text.parse().ok()),
        };
        self.check_listeners(&config);
        self.refuse_unknown();
        let config = if self.problems.is_empty() { Ok(config) } else { Err(ConfigError(self.problems)) };
        Reading { config, effective: self.effective, sources: self.sources.read, file: self.sources.file }
    }

    fn environment(&mut self) -> Environment {
        self.take("environment", |text| match text {
            "production" => Some(Environment::Production),
            "development" => Some(Environment::Development),
            _ => None,
        })
    }

    fn brand(&mut self) -> String {
        self.take("brand", |text| {
            let valid = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            valid.then(|| text.to_owned())
        })
    }

    fn key_prefix(&mut self) -> String {
        self.take("api_keys.prefix", |text| {
            let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            ((1..=16).contains(&text.len()) && text.bytes().all(valid)).then(|| text.to_owned())
        })
    }

    fn public_url(&mut self) -> Option<String> {
        let parse_origin = |text: &str| {
            let origin = url::Url::parse(text).ok().map(|url| url.origin().ascii_serialization());
            let is_http = text.starts_with("https://") || text.starts_with("http://");
            origin.filter(|origin| is_http && text.trim_end_matches('/') == origin)
        };
        self.take("public_url", |text| optional(text, parse_origin))
    }

    fn keys(&mut self, database: Option<&Database>) -> Option<KeySource> {
        let row = Setting::named("secrets.master_key");
        let parse_key = |text: &str| optional(text, parse_master_key).ok_or_else(String::new);
        let current = self.take_checked(row.name, row, parse_key);
        let row = Setting::named("secrets.previous_master_keys");
        let parse_keys = |text: &str| list(text).map(parse_master_key).collect::<Option<Vec<_>>>();
        let previous = self.take_checked(row.name, row, |text| parse_keys(text).ok_or_else(String::new));
        let (current, previous, database) = (current?, previous?, database?);
        match (current, database) {
            (Some(current), _) => {
                if previous.iter().any(|key| **key == *current) {
                    let fault = "has the key of secrets.master_key: it is for earlier keys";
                    self.problems.push(Problem::of("secrets.previous_master_keys", fault));
                }
                Some(KeySource::Given { current, previous })
            }
            // The setting may stand in the file that cannot be read.
            (None, _) if self.sources.is_incomplete => None,
            (None, _) if !previous.is_empty() => {
                let fault = "needs secrets.master_key beside it";
                self.problems.push(Problem::of("secrets.previous_master_keys", fault));
                None
            }
            (None, Database::Sqlite(path)) => Some(KeySource::file_of(path)),
            // A file beside one node would be unknown to the others.
            (None, Database::Postgres(_)) => {
                let allowed = Setting::named("secrets.master_key").value.allowed();
                let fault = format!("is missing; with PostgreSQL it must be given: {allowed}");
                self.problems.push(Problem::of("secrets.master_key", fault));
                None
            }
        }
    }

    fn roles(&mut self, database: Option<&Database>) -> Roles {
        let roles = self.take("roles", Roles::parse);
        let is_sqlite = matches!(database, Some(Database::Sqlite(_))) && !self.sources.is_incomplete;
        if is_sqlite && !(roles.api && roles.delivery) {
            let fault = "must be api,delivery with SQLite: there is one process, which does everything";
            self.problems.push(Problem::of("roles", fault));
        }
        roles
    }

    fn check_listeners(&mut self, config: &Config) {
        let metrics = config.metrics_listen.as_deref();
        if metrics.is_some_and(|metrics| overlap(metrics, &config.listen)) {
            let fault = "has the address of listen: give it another port, or leave it out";
            self.problems.push(Problem::of("metrics_listen", fault));
        }
    }

    fn policy(&mut self) -> DeliveryPolicy {
        let schedule = self.take("webhooks.retry_schedule", |text| {
            // Not `list`: a gap between two commas is a mistake and no shorter schedule.
            let parts = text.split(',').map(str::trim).filter(|_| !text.is_empty());
            let parse = |part| parse_duration(part).filter(|delay| *delay <= MAX_RETRY_DELAY);
            RetrySchedule::new(parts.map(parse).collect::<Option<_>>()?)
        });
        DeliveryPolicy {
            schedule,
            auto_disable_threshold: self.number("webhooks.auto_disable_threshold"),
            auto_disable_after: self.duration("webhooks.auto_disable_after"),
        }
    }

    fn rate_limits(&mut self) -> RateLimits {
        let limit_of = |bucket: &Bucket| {
            let name = format!("rate_limits.{}", bucket.name());
            (*bucket, self.take_row(&name, Setting::of_bucket(&name), parse_rate_limit))
        };
        RateLimits(Bucket::ALL.iter().map(limit_of).collect())
    }

    fn log_format(&mut self) -> LogFormat {
        self.take("log.format", |text| match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        })
    }

    fn refuse_unknown(&mut self) {
        for (name, written) in std::mem::take(&mut self.sources.written) {
            self.problems.push(Problem::unknown(&name, &written.source));
        }
    }
}

/// A setting that may be empty, which means none.
fn optional<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { parse(text).map(Some) }
}

/// The parts of a list, which commas separate.
pub(super) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn parse_listen(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| text.to_owned())
}

fn parse_rate_limit(text: &str) -> Option<Option<RateLimit>> {
    if text == "off" {
        return Some(None);
    }
    let range = Duration::from_secs(1)..=Duration::from_secs(86_400);
    let (calls, window) = parse_rate(text).filter(|(_, window)| range.contains(window))?;
    Some(Some(RateLimit { calls, window }))
}

/// Whether two listeners cannot have these addresses at the same time.
fn overlap(one: &str, other: &str) -> bool {
    let (Ok(first), Ok(second)) = (one.parse::<SocketAddr>(), other.parse::<SocketAddr>()) else {
        return one == other && !one.ends_with(":0");
    };
    let takes_all = first.ip().is_unspecified() || second.ip().is_unspecified();
    let is_same = first.ip() == second.ip() || takes_all && first.is_ipv4() == second.is_ipv4();
    is_same && first.port() == second.port() && first.port() != 0
}

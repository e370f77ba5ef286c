//! Settings: a TOML file; the environment replaces it, and flags replace both. `table` has every setting with its
//! default and bounds, `sources` collects what is written, `reader` checks it, and `values` has the checked settings.
//! `effective` has them as text, and `problems` says what is wrong.

mod effective;
mod egress;
mod example;
mod problems;
mod reader;
mod sources;
mod table;
mod values;

use std::path::Path;

pub use effective::{Change, EffectiveSettings, ShownSetting};
pub use problems::{ConfigError, Problem};
pub use reader::Reading;
pub use values::{Config, LogFormat, Roles};

pub(crate) use example::example as settings_example;
pub(crate) use table::{json as settings_json, markdown as settings_page};

use reader::Reader;
use sources::Sources;

/// The file that is read when no other is named.
pub const DEFAULT_FILE: &str = "aldaba.toml";

impl Config {
    /// Reads the file (`file`, else [`DEFAULT_FILE`] if it is there), then `environment`, then `flags`.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Self, ConfigError> {
        Reading::of([], file, environment, flags).config
    }
}

impl Reading {
    /// Reads the settings as [`Config::load`] does, and says more of them. Everything is read over `defaults`, which a
    /// command has of its own.
    pub fn of(
        defaults: impl IntoIterator<Item = (&'static str, String)>,
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Self {
        let mut sources = Sources::default();
        for (name, value) in defaults {
            sources.add(name, value, "default");
        }
        let default = Path::new(DEFAULT_FILE);
        if let Some(path) = file.or_else(|| default.exists().then_some(default)) {
            sources.add_file(path);
        }
        sources.add_environment(environment);
        for (name, value) in flags {
            sources.add(name, value, &format!("--{}", name.replace('_', "-")));
        }
        Reader::new(sources).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::table::{Setting, Value};
    use super::*;
    use crate::api::{Bucket, RateLimit};
    use crate::domain::duration::show_duration;
    use crate::domain::transition::DeliveryPolicy;
    use crate::domain::url::Environment;
    use crate::store::Database;
    use crate::store::keys::KeySource;

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
        for (bucket, calls) in [(Bucket::EventsCreate, 600), (Bucket::Login, 10), (Bucket::EventsStorage, 100 << 20)] {
            assert_eq!(config.rate_limits.0[&bucket].map(|limit| limit.calls), Some(calls), "{}", bucket.name());
        }
    }

    #[test]
    fn every_setting_of_the_table_is_read_and_takes_its_default() {
        let rows = table::SETTINGS.iter().filter(|setting| setting.name != table::ANY_BUCKET);
        let written: Vec<_> = rows.map(|setting| (setting.variable(), setting.default)).collect();
        let written: Vec<_> = written.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(load(&written).err(), None);
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
            ("ALDABA_EGRESS__ALLOW_NETWORKS", "my-network", "egress.allow_networks"),
            ("ALDABA_EGRESS__DENY_NETWORKS", "10.0.0.0/33", "egress.deny_networks"),
            ("ALDABA_EGRESS__ALLOW_PORTS", "443,0", "egress.allow_ports"),
            ("ALDABA_EGRESS__PROXY", "https://squid.acme.example:3128", "egress.proxy"),
            ("ALDABA_EGRESS__PROXY", "http://somebody:hidden@squid.acme.example", "egress.proxy"),
            ("ALDABA_EGRESS__SOURCE_ADDRESS", "192.0.2.7,192.0.2.8", "egress.source_address"),
            ("ALDABA_EGRESS__SOURCE_ADDRESS", "eth0", "egress.source_address"),
            ("ALDABA_EGRESS__PUBLIC_ADDRESSES", "gateway.acme.example", "egress.public_addresses"),
            ("ALDABA_EGRESS__PUBLIC_ADDRESSES", "192.0.2.7/24", "egress.public_addresses"),
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
        let error = load(&[("ALDABA_RATE_LIMITS__<BUCKET>", "off")]).err().unwrap_or_default();
        assert!(error.contains("setting rate_limits.<bucket> (ALDABA_RATE_LIMITS__<BUCKET>) is unknown"), "{error}");
    }

    #[test]
    fn all_wrong_settings_are_told_at_once() {
        let error = load(&[("ALDABA_LISTEN", "x"), ("ALDABA_BRAND", "a b")]).err().unwrap_or_default();
        assert_eq!(error.lines().count(), 2, "{error}");
    }
    /// The lines of the error.
    fn problems(environment: &[(&str, &str)]) -> Vec<String> {
        load(environment).err().unwrap_or_default().lines().map(str::to_owned).collect()
    }

    #[test]
    fn an_empty_variable_counts_as_unset_but_where_it_says_something() {
        let config = load(&[
            ("ALDABA_LISTEN", ""),
            ("ALDABA_BRAND", " "),
            ("ALDABA_DATABASE_URL", ""),
            ("ALDABA_SECRETS__MASTER_KEY_FILE", ""),
            ("ALDABA_NO_SUCH", ""),
            ("ALDABA_WEBHOOKS__RETRY_SCHEDULE", ""),
        ])
        .expect("valid settings");
        assert_eq!((config.listen.as_str(), config.brand.as_str()), ("127.0.0.1:8080", "Aldaba"));
        assert!(config.policy.schedule.delays().is_empty());
    }

    #[test]
    fn a_secret_is_read_from_the_file_that_a_variable_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = "22".repeat(32);
        let keys = |config: &Config| match &config.keys {
            KeySource::Given { current, previous } => (hex::encode(**current), previous.len()),
            KeySource::File(_) => (String::new(), 0),
        };
        for content in [key.clone(), format!("{key}\n"), format!("{key}\r\n")] {
            let path = folder.path().join("key");
            std::fs::write(&path, content).expect("written");
            let path = path.to_str().expect("text");
            let config = load(&[("ALDABA_SECRETS__MASTER_KEY_FILE", path), ("ALDABA_SECRETS__MASTER_KEY", "")]);
            assert_eq!(keys(&config.expect("valid settings")), (key.clone(), 0));
        }
    }

    #[test]
    fn a_file_that_cannot_be_the_secret_is_named_with_its_variable_and_never_with_its_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
        std::fs::write(path("short"), "0123456789abcdef\n").expect("written");
        std::fs::write(path("empty"), "\n").expect("written");
        std::fs::write(path("large"), "0".repeat(64 * 1024 + 1)).expect("written");
        std::fs::write(path("binary"), [0xff, 0xfe]).expect("written");
        let variable = "ALDABA_SECRETS__MASTER_KEY_FILE";
        for (name, reason) in [
            ("missing", "No such file"),
            ("", "it is no regular file"),
            ("short", "is not valid; allowed: 64 hex characters"),
            ("empty", "it is empty"),
            ("large", "it is larger than 65536 bytes"),
            ("binary", "UTF-8"),
        ] {
            let found = problems(&[(variable, &path(name))]);
            assert_eq!(found.len(), 1, "{found:?}");
            for part in ["secrets.master_key", variable, &path(name), reason] {
                assert!(found[0].contains(part), "{found:?}: {part}");
            }
            assert!(!found[0].contains("0123456789abcdef"), "{found:?}");
        }
        // The secret itself where its path should be.
        for secret in ["33".repeat(32), "postgres://ana:hidden@db/hooks".to_owned()] {
            let found = problems(&[("ALDABA_DATABASE_URL_FILE", &secret)]);
            assert!(found.len() == 1 && !found[0].contains(&secret), "{found:?}");
        }
    }

    #[test]
    fn a_variable_and_its_file_exclude_each_other_and_only_secrets_come_from_files() {
        let found = problems(&[("ALDABA_DATABASE_URL_FILE", "/dev/null"), ("ALDABA_DATABASE_URL", "sqlite://a.db")]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("(ALDABA_DATABASE_URL_FILE) is set by ALDABA_DATABASE_URL too"), "{found:?}");
        let found = problems(&[("ALDABA_LISTEN_FILE", "/dev/null")]);
        assert!(found[0].contains("setting listen (ALDABA_LISTEN_FILE) cannot be read from a file"), "{found:?}");
    }

    #[test]
    fn a_problem_of_the_file_has_its_line_and_hides_none_of_the_environment() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.toml");
        let read = |text: &str, environment: &[(&str, &str)]| {
            std::fs::write(&path, text).expect("written");
            let pairs = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let error = Config::load(Some(&path), pairs, []).err();
            error.map_or_else(Vec::new, |error| error.0)
        };
        let found = read("brand = 'a b'\n\n[webhooks]\ntimout = '5s'\n", &[("ALDABA_LISTEN", "x")]);
        let lines: Vec<_> = found.iter().map(|problem| problem.text.as_str()).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(found.iter().any(|problem| problem.source.as_deref() == Some("ALDABA_LISTEN")), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("a.toml:1) is not valid")), "{lines:?}");
        assert!(
            lines.iter().any(|line| line.contains("a.toml:4) is unknown; is webhooks.timeout meant?")),
            "{lines:?}"
        );
        // What the file may say is not missed: only that it cannot be read, and what the environment has.
        let postgres = ("ALDABA_DATABASE_URL", "postgres://ana:hidden@db/hooks");
        let found = read("secrets = hidden\nlisten = 1\n", &[postgres, ("ALDABA_ROLES", "x")]);
        let text = ConfigError(found).to_string();
        assert!(text.contains("a.toml: line 1 is not valid TOML") && text.contains("setting roles"), "{text}");
        assert!(!text.contains("master_key") && !text.contains("hidden"), "{text}");
    }

    #[test]
    fn settings_that_contradict_each_other_are_told() {
        let (key, other) = ("22".repeat(32), "33".repeat(32));
        let both = format!("{other},{key}");
        for (settings, problem) in [
            (vec![("ALDABA_METRICS_LISTEN", "127.0.0.1:8080")], "metrics_listen has the address of listen"),
            (vec![("ALDABA_METRICS_LISTEN", "0.0.0.0:8080")], "metrics_listen has the address of listen"),
            (vec![("ALDABA_SECRETS__PREVIOUS_MASTER_KEYS", key.as_str())], "needs secrets.master_key beside it"),
            (
                vec![("ALDABA_SECRETS__MASTER_KEY", &*key), ("ALDABA_SECRETS__PREVIOUS_MASTER_KEYS", &*both)],
                "secrets.previous_master_keys has the key of secrets.master_key",
            ),
        ] {
            let found = problems(&settings);
            assert!(found.len() == 1 && found[0].contains(problem), "{found:?}");
        }
        for address in ["127.0.0.1:8081", "127.0.0.2:8080", "localhost:8080"] {
            assert!(load(&[("ALDABA_METRICS_LISTEN", address)]).is_ok(), "{address}");
        }
        assert!(load(&[("ALDABA_LISTEN", "127.0.0.1:0"), ("ALDABA_METRICS_LISTEN", "127.0.0.1:0")]).is_ok());
    }
    /// All that a configuration says, as text.
    fn fingerprint(config: &Config) -> String {
        let keys = match &config.keys {
            KeySource::Given { current, previous } => {
                let previous: Vec<_> = previous.iter().map(|key| hex::encode(**key)).collect();
                format!("{} {previous:?}", hex::encode(**current))
            }
            KeySource::File(path) => path.display().to_string(),
        };
        let limits = config.rate_limits.0.iter().map(|(bucket, limit)| format!("{} {limit:?}", bucket.name()));
        let limits: std::collections::BTreeSet<_> = limits.collect();
        let Config { listen, database, roles, environment, brand, key_prefix, policy, timeout, .. } = config;
        let one = format!("{listen} {database} {roles:?} {environment:?} {brand} {key_prefix} {policy:?} {timeout:?}");
        let Config { max_api_keys, max_endpoints, max_in_flight, max_in_flight_per_endpoint, .. } = config;
        let two = format!("{max_api_keys} {max_endpoints} {max_in_flight} {max_in_flight_per_endpoint} {limits:?}");
        let Config { trace_context, max_body, connections_per_address, retention, audit_retention, .. } = config;
        let three = format!("{trace_context} {max_body} {connections_per_address} {retention:?} {audit_retention:?}");
        let Config { trusted_proxies, dns_servers, public_url, sessions, egress_rules, .. } = config;
        let four = format!("{trusted_proxies:?} {dns_servers:?} {public_url:?} {sessions:?} {egress_rules:?}");
        let Config { metrics_listen, log_format, log_level, proxy, source_addresses, public_addresses, .. } = config;
        let five = format!("{metrics_listen:?} {log_format:?} {log_level} {source_addresses:?} {public_addresses:?}");
        format!("{one} {two} {three} {four} {five} {proxy:?} {keys}")
    }

    /// A valid value of a setting that is not its default.
    fn another_value(setting: &Setting) -> String {
        let shown = |bounds: [String; 2]| bounds.into_iter().find(|bound| bound != setting.default);
        let value = match (setting.name, setting.value) {
            ("listen", _) => "127.0.0.1:1".to_owned(),
            ("database_url", _) => "postgres://ana@db/other".to_owned(),
            ("metrics_listen", _) => "127.0.0.1:2".to_owned(),
            ("brand", _) => "Acme".to_owned(),
            ("public_url", _) => "https://hooks.acme.example".to_owned(),
            ("api_keys.prefix", _) => "acme_".to_owned(),
            ("egress.source_address", _) => "192.0.2.7".to_owned(),
            ("egress.proxy", _) => "http://proxy.acme.example:3128".to_owned(),
            ("secrets.master_key" | "secrets.previous_master_keys", _) => "22".repeat(32),
            (name, Value::Text(_)) if name.starts_with("rate_limits.") => "1/1s".to_owned(),
            (_, Value::Number { least, most }) => {
                shown([least, most].map(|number| number.to_string())).expect("two values")
            }
            (_, Value::Duration { least, most } | Value::DurationOrOff { least, most }) => {
                shown([least, most].map(show_duration)).expect("two values")
            }
            (_, Value::Choice(words)) => {
                let other = words.iter().find(|word| **word != setting.default);
                (*other.expect("two words")).to_owned()
            }
            (_, Value::List { example, .. }) => example.to_owned(),
            (name, Value::Text(_)) => panic!("{name}: this test needs another value for it"),
        };
        assert_ne!(value, setting.default, "{}", setting.name);
        value
    }

    #[test]
    fn a_running_server_takes_over_what_the_table_says_and_nothing_else() {
        let key = "11".repeat(32);
        let base = [("ALDABA_DATABASE_URL", "postgres://ana@db/hooks"), ("ALDABA_SECRETS__MASTER_KEY", key.as_str())];
        let running = load(&base).expect("valid settings");
        for setting in table::SETTINGS {
            let is_any = setting.name == table::ANY_BUCKET;
            let name = if is_any { "rate_limits.events_read" } else { setting.name };
            let variable = format!("ALDABA_{}", name.replace('.', "__").to_uppercase());
            let value = another_value(setting);
            let new = load(&[base[0], base[1], (variable.as_str(), value.as_str())]).expect("valid settings");
            let [was, is, becomes] = [&running, &new, &running.reloaded(&new)].map(fingerprint);
            assert_ne!(was, is, "{name}: `fingerprint` does not look at it");
            let expected = if table::is_reloadable(name) { is } else { was };
            assert_eq!(becomes, expected, "{name}");
        }
    }
}

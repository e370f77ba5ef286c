//! Every setting: its name, the values it takes, its default and its meaning. The reader takes defaults and bounds from
//! this table, and `aldaba settings` prints it as `docs/settings.md`.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::api::Bucket;
use crate::domain::duration::show_duration;
use crate::domain::retry::MAX_STEPS;
use crate::domain::settings::MAX_IN_FLIGHT_PER_ENDPOINT;

/// The beginning of environment variables that are settings; `__` stands between the parts of a name.
pub(super) const ENV_PREFIX: &str = "ALDABA_";

/// Name servers in `egress.dns_servers`: a lookup that no server answers asks each of them.
pub(super) const MAX_DNS_SERVERS: usize = 3;

/// Longest delay in `webhooks.retry_schedule`.
pub(super) const MAX_RETRY_DELAY: Duration = days(30);

/// The row of the buckets that have no row of their own.
pub(super) const ANY_BUCKET: &str = "rate_limits.<bucket>";

/// Settings that are a secret or contain one. A variable that ends in `_FILE` names a file that has such a setting, and
/// no output shows it.
pub(super) const SECRETS: &[&str] =
    &["database_url", "secrets.master_key", "secrets.previous_master_keys", "egress.proxy"];

/// Settings for which an empty value is not the same as none. An empty variable sets these, and no other.
pub(super) const TAKE_EMPTY: &[&str] = &["webhooks.retry_schedule"];

/// Settings that a running server takes over when it gets SIGHUP (`Config::reloaded`). All others need a restart.
pub(super) const RELOADABLE: &[&str] = &[
    "public_url",
    "trusted_proxies",
    "api_keys.max_per_account",
    "secrets.previous_master_keys",
    "webhooks.retry_schedule",
    "webhooks.timeout",
    "webhooks.auto_disable_threshold",
    "webhooks.auto_disable_after",
    "webhooks.max_endpoints",
    "egress.allow_networks",
    "egress.deny_networks",
    "egress.allow_ports",
    "egress.nat64_prefixes",
    "egress.public_addresses",
    "limits.max_body",
    "limits.connections_per_address",
    ANY_BUCKET,
    "sessions.idle_timeout",
    "sessions.lifetime",
    "retention.deliveries",
    "retention.payloads",
    "retention.audit_log",
    "log.level",
];

/// One setting.
pub struct Setting {
    /// The name in the settings file; a dot stands between a table and its key.
    pub name: &'static str,
    /// The values that it takes.
    pub value: Value,
    /// The value that holds where nobody sets one, written as in the environment; empty for none.
    pub default: &'static str,
    /// What it does, as Markdown.
    pub meaning: &'static str,
}

/// The values that a setting takes.
#[derive(Clone, Copy)]
pub enum Value {
    /// A whole number.
    Number { least: u64, most: u64 },
    /// A duration.
    Duration { least: Duration, most: Duration },
    /// A duration, or `off`.
    DurationOrOff { least: Duration, most: Duration },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Items that commas separate.
    List { items: &'static str, most: Option<usize>, example: &'static str },
    /// Text that follows this rule.
    Text(&'static str),
}

impl Value {
    /// The values in words, for an error and for the table.
    pub fn allowed(self) -> String {
        match self {
            Self::Number { least, most } => format!("a whole number from {least} to {most}"),
            Self::Duration { least, most } => {
                format!("a duration from {} to {}", show_duration(least), show_duration(most))
            }
            Self::DurationOrOff { least, most } => {
                format!("a duration from {} to {}, or off", show_duration(least), show_duration(most))
            }
            Self::Choice([words @ .., last]) if !words.is_empty() => format!("{} or {last}", words.join(", ")),
            Self::Choice(words) => words.concat(),
            Self::List { items, most, example } => {
                let most = most.map_or_else(String::new, |most| format!("up to {most} "));
                format!("{most}{items}, separated by commas, such as {example}")
            }
            Self::Text(rule) => rule.to_owned(),
        }
    }
}

impl Setting {
    /// The row of a setting.
    pub(super) fn named(name: &str) -> &'static Self {
        SETTINGS.iter().find(|setting| setting.name == name).expect("the reader takes only settings of the table")
    }

    /// The row of a bucket: its own, or that of all buckets.
    pub(super) fn of_bucket(name: &str) -> &'static Self {
        SETTINGS.iter().find(|setting| setting.name == name).unwrap_or_else(|| Self::named(ANY_BUCKET))
    }

    /// The name of the environment variable.
    pub(super) fn variable(&self) -> String {
        format!("{ENV_PREFIX}{}", self.name.replace('.', "__").to_uppercase())
    }
}

/// Whether a setting has this name.
pub(super) fn is_known(name: &str) -> bool {
    let is_bucket = |name: &str| Bucket::ALL.iter().any(|bucket| bucket.name() == name);
    name.strip_prefix("rate_limits.").is_some_and(is_bucket)
        || (name != ANY_BUCKET && SETTINGS.iter().any(|setting| setting.name == name))
}

/// Whether a running server takes the setting over. Every bucket counts as [`ANY_BUCKET`].
pub(super) fn is_reloadable(name: &str) -> bool {
    RELOADABLE.contains(&name) || (name.starts_with("rate_limits.") && RELOADABLE.contains(&ANY_BUCKET))
}

/// The page `docs/settings.md`.
pub fn markdown() -> String {
    let mut page = INTRODUCTION.replace("{secrets}", &quoted(SECRETS)).replace("{reloadable}", &quoted(RELOADABLE));
    page.push_str("\n| setting | value | default | meaning |\n|---|---|---|---|\n");
    for Setting { name, value, default, meaning } in SETTINGS {
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        page.push_str(&format!("| `{name}` | {} | {default} | {meaning} |\n", value.allowed()));
    }
    let buckets: Vec<_> = Bucket::ALL.iter().map(|bucket| format!("`{}`", bucket.name())).collect();
    page.push_str("\n## Buckets\n\nThe buckets of `rate_limits` are:\n\n");
    for bucket in buckets {
        page.push_str(&format!("- {bucket}\n"));
    }
    page
}

/// Names in a sentence.
fn quoted(names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// The table for programs.
pub fn json() -> Json {
    let rows = SETTINGS.iter().map(|setting| {
        json!({
            "name": setting.name,
            "environment": setting.variable(),
            "allowed": setting.value.allowed(),
            "default": (!setting.default.is_empty()).then_some(setting.default),
            "meaning": setting.meaning,
        })
    });
    rows.collect()
}

const INTRODUCTION: &str = "\
# Settings

<!-- Generated from src/config/table.rs: cargo run -- settings > docs/settings.md -->

Aldaba reads a TOML file, then the environment, then flags. A later source replaces an earlier one. The file is that of
`--config FILE`, otherwise `aldaba.toml` in the working directory, if it exists.

- **Environment**: the name in capitals with the prefix `ALDABA_` and `__` in place of each dot. `webhooks.timeout` is
  `ALDABA_WEBHOOKS__TIMEOUT`.
- **Lists** have commas between their items. In the file they may be TOML arrays.
- **Durations** are whole numbers with units, the largest unit first: `500ms`, `30s`, `2m`, `1h30m`, `30d`.
- **Empty variables** count as unset. Only `webhooks.retry_schedule` takes an empty value.
- **Secrets in files**: a variable that ends in `_FILE` names a file that has the value, as Docker and Kubernetes
  provide secrets: `ALDABA_SECRETS__MASTER_KEY_FILE=/run/secrets/key`. The file has 64 KiB of UTF-8 at most, and a
  newline at its end is cut. The variable with `_FILE` and the one without exclude each other. These settings can be
  read from a file: {secrets}.
- **Changes while the server runs**: at SIGHUP it reads everything again ([Reload](operations.md#reload)) and takes over
  {reloadable}. All other changes need a restart.
- **Errors**: an unknown or invalid setting stops the start. The error names every such setting, its source and the
  allowed values. It never shows the value, which may be a secret.

`aldaba settings check` tells every problem without starting anything. `aldaba settings show` prints the values in
force, and where each is set. `aldaba settings` prints this page, `aldaba settings --json` the table for programs, and
`aldaba settings --example` a settings file with every setting commented out.
";

const HOUR: Duration = Duration::from_secs(3_600);

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn days(n: u64) -> Duration {
    Duration::from_secs(n * 86_400)
}

/// Every setting, in the order of the page.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "listen",
        value: Value::Text("HOST:PORT, such as 127.0.0.1:8080"),
        default: "127.0.0.1:8080",
        meaning: "Address of the API and the dashboard. Port 0 takes a free port, and the first line of output names \
                  it.",
    },
    Setting {
        name: "database_url",
        value: Value::Text("sqlite://PATH or postgres://USER:PASSWORD@HOST:PORT/NAME?PARAMETERS"),
        default: "sqlite://aldaba.db",
        meaning: "The database. SQLite serves one process; PostgreSQL serves many nodes. \
                  [Connecting](operations.md#connecting) lists the parameters.",
    },
    Setting {
        name: "roles",
        value: Value::Choice(&["api", "delivery", "api,delivery"]),
        default: "api,delivery",
        meaning: "What this process does. One of them alone needs PostgreSQL. A process without `api` answers only \
                  `/healthz`, `/readyz` and `/metrics`.",
    },
    Setting {
        name: "metrics_listen",
        value: Value::Text("HOST:PORT, such as 127.0.0.1:9100"),
        default: "",
        meaning: "Address of a second listener that serves only `/metrics`. The listener of the API then has no \
                  `/metrics`.",
    },
    Setting {
        name: "environment",
        value: Value::Choice(&["production", "development"]),
        default: "production",
        meaning: "In `development`, receivers may use plain HTTP and private addresses.",
    },
    Setting {
        name: "brand",
        value: Value::Text("1 to 32 letters, digits and hyphens"),
        default: "Aldaba",
        meaning: "Name in the delivery headers `X-{Brand}-Event`, `X-{Brand}-Delivery-Id` and `X-{Brand}-Timestamp`.",
    },
    Setting {
        name: "public_url",
        value: Value::Text("an origin such as https://hooks.example.com"),
        default: "",
        meaning: "Address at which people reach this server, for invitations and portal links. Without it, the \
                  request's `Host` is used, and a server in production logs a warning. With `https`, browsers are \
                  told to use TLS only (HSTS).",
    },
    Setting {
        name: "trusted_proxies",
        value: Value::List { items: "networks or addresses", most: None, example: "10.0.0.0/8" },
        default: "",
        meaning: "Proxies whose `X-Forwarded-For` is believed. Without them, the client's address is that of the \
                  connection.",
    },
    Setting {
        name: "api_keys.prefix",
        value: Value::Text("1 to 16 lowercase letters, digits and underscores"),
        default: "mxcep_",
        meaning: "Beginning of new API keys.",
    },
    Setting {
        name: "api_keys.max_per_account",
        value: Value::Number { least: 1, most: 10_000 },
        default: "100",
        meaning: "API keys of an account, expired ones included. One more is refused with 422 \
                  `api_key_limit_reached`.",
    },
    Setting {
        name: "secrets.master_key",
        value: Value::Text("64 hex characters (32 bytes)"),
        default: "",
        meaning: "Key that encrypts signing secrets. PostgreSQL needs it, the same on every node. With SQLite, a \
                  file beside the database holds one if this is not set.",
    },
    Setting {
        name: "secrets.previous_master_keys",
        value: Value::List { items: "keys of 64 hex characters", most: None, example: "KEY,KEY" },
        default: "",
        meaning: "Keys that still open secrets until `aldaba secrets rekey` has run.",
    },
    Setting {
        name: "webhooks.retry_schedule",
        value: Value::List { items: "durations of at most 30d", most: Some(MAX_STEPS), example: "30s,2m,10m" },
        default: "30s,2m,10m,30m,1h30m,3h,3h30m",
        meaning: "Delays after the first, second, … failed attempt, each with a jitter of 10 %. Empty: no retries.",
    },
    Setting {
        name: "webhooks.timeout",
        value: Value::Duration { least: seconds(1), most: seconds(120) },
        default: "10s",
        meaning: "Longest time of an attempt: connection, request and response together.",
    },
    Setting {
        name: "webhooks.auto_disable_threshold",
        value: Value::Number { least: 0, most: u32::MAX as u64 },
        default: "20",
        meaning: "An endpoint is disabled after more failed attempts in a row than this.",
    },
    Setting {
        name: "webhooks.auto_disable_after",
        value: Value::Duration { least: Duration::ZERO, most: days(360) },
        default: "0s",
        meaning: "An endpoint is disabled only after it has failed for this long. Set `1h` in production: at 10 \
                  events/s, a restart of 3 s makes more than 20 failures.",
    },
    Setting {
        name: "webhooks.max_endpoints",
        value: Value::Number { least: 1, most: 10_000 },
        default: "50",
        meaning: "Endpoints of an account.",
    },
    Setting {
        name: "webhooks.max_in_flight",
        value: Value::Number { least: 1, most: 16_384 },
        default: "1024",
        meaning: "Attempts in flight, of all endpoints together. One account alone has half of them.",
    },
    Setting {
        name: "webhooks.max_in_flight_per_endpoint",
        value: Value::Number { least: 1, most: MAX_IN_FLIGHT_PER_ENDPOINT as u64 },
        default: "64",
        meaning: "Attempts in flight to one endpoint. The limit of an endpoint starts lower and grows with its \
                  successes.",
    },
    Setting {
        name: "webhooks.trace_context",
        value: Value::Choice(&["on", "off"]),
        default: "on",
        meaning: "Whether an event's `traceparent` and `tracestate` (W3C Trace Context) are kept, and sent with every \
                  attempt, each of which is a child span. Without an incoming one nothing is sent.",
    },
    Setting {
        name: "egress.allow_networks",
        value: Value::List { items: "networks or addresses", most: None, example: "10.20.0.0/16,fd12:3456::/48" },
        default: "",
        meaning: "Networks where receivers may live although they are private or special, in production too, such as \
                  your own services. `egress.deny_networks` goes first. Receivers there need `https` too.",
    },
    Setting {
        name: "egress.deny_networks",
        value: Value::List { items: "networks or addresses", most: None, example: "198.51.100.0/24,2001:db8::/32" },
        default: "",
        meaning: "Networks to which nothing is sent, in any environment, such as your own public ranges.",
    },
    Setting {
        name: "egress.allow_ports",
        value: Value::List { items: "port numbers from 1 to 65535", most: None, example: "443,8443" },
        default: "",
        meaning: "The only ports to which something is sent. Empty: all ports.",
    },
    Setting {
        name: "egress.nat64_prefixes",
        value: Value::List {
            items: "IPv6 prefixes of 32, 40, 48, 56, 64 or 96 bits",
            most: None,
            example: "2001:db8:64::/96",
        },
        default: "",
        meaning: "Prefixes of the NAT64 translators in your network. The guard checks the IPv4 address inside.",
    },
    Setting {
        name: "egress.dns_servers",
        value: Value::List {
            items: "addresses, with or without a port",
            most: Some(MAX_DNS_SERVERS),
            example: "192.0.2.53,[2001:db8::53]:53",
        },
        default: "",
        meaning: "Name servers for receivers' names. Empty: those of `/etc/resolv.conf`. `/etc/hosts` comes first; \
                  search domains are not used.",
    },
    Setting {
        name: "egress.proxy",
        value: Value::Text("http://USER:PASSWORD@HOST:PORT, or the same without USER:PASSWORD"),
        default: "",
        meaning: "HTTP proxy that every connection to a receiver or a token server goes through, by CONNECT to the \
                  address that the guard has checked. The user and the password are percent-encoded, and are not \
                  encrypted on the way to the proxy. Its name is looked up with the system's name servers.",
    },
    Setting {
        name: "egress.source_address",
        value: Value::Text("an IPv4 address, an IPv6 address, or both with a comma, such as 192.0.2.7,2001:db8::7"),
        default: "",
        meaning: "Addresses of this machine that connections to receivers, token servers and the proxy come from. Of a \
                  family without one, the system chooses. An address that this machine does not have stops the start.",
    },
    Setting {
        name: "egress.public_addresses",
        value: Value::List { items: "addresses or networks", most: None, example: "192.0.2.7,2001:db8:7::/64" },
        default: "",
        meaning: "Addresses that requests come from as receivers see them, such as those of a NAT gateway. `GET \
                  /egress` tells them to anybody, as a page and as JSON, so that customers can allow them. They are \
                  not taken from `egress.source_address`.",
    },
    Setting {
        name: "limits.max_body",
        value: Value::Number { least: 1_024, most: 8 << 20 },
        default: "262144",
        meaning: "Bytes of a request body. A batch of events may have 8 MiB in any case.",
    },
    Setting {
        name: "limits.connections_per_address",
        value: Value::Number { least: 1, most: 1_000_000 },
        default: "1024",
        meaning: "Connections of one IPv4 address or one IPv6 /64. One IPv4 /24 or IPv6 /48 has half of all at most. \
                  Behind a proxy of `trusted_proxies`: requests in progress of each forwarded address.",
    },
    Setting {
        name: ANY_BUCKET,
        value: Value::Text(RATE_LIMIT_RULE),
        default: "600/60s",
        meaning: "Calls of an API key in a fixed window. All keys, users and portal links of an account together \
                  have five times as many.",
    },
    Setting {
        name: "rate_limits.events_storage",
        value: Value::Text("KIB/WINDOW such as 104857600/1d with a window of 1s to 1d, or off"),
        default: "104857600/1d",
        meaning: "KiB that an account may store in a fixed window: bodies, channels and traces of its published \
                  events, and 1 KiB for each event, each replay, each delivery, and each endpoint that misses an \
                  event. A refusal of more than 4 KiB that is kept for an idempotency key counts too.",
    },
    Setting {
        name: "rate_limits.rate_limited_login",
        value: Value::Text(RATE_LIMIT_RULE),
        default: "10/60s",
        meaning: "Wrong sign-ins: for an address, for a user from one network (an IPv4 /24 or IPv6 /48), and ten \
                  times as many for a user from all networks. Right ones beyond a user's fifth in a day count for the \
                  user too. Sign-ins, right ones too: ten times as many for an address and for a user.",
    },
    Setting {
        name: "sessions.idle_timeout",
        value: Value::Duration { least: seconds(60), most: days(30) },
        default: "12h",
        meaning: "A dashboard session ends after this time without a request.",
    },
    Setting {
        name: "sessions.lifetime",
        value: Value::Duration { least: seconds(60), most: days(365) },
        default: "7d",
        meaning: "A dashboard session ends after this time in any case.",
    },
    Setting {
        name: "retention.deliveries",
        value: Value::DurationOrOff { least: HOUR, most: days(3_650) },
        default: "30d",
        meaning: "How long deliveries and events are kept. `off` keeps them for ever.",
    },
    Setting {
        name: "retention.payloads",
        value: Value::DurationOrOff { least: HOUR, most: days(3_650) },
        default: "off",
        meaning: "How long the bodies of events are kept, if that is shorter. A delivery without its body is listed \
                  and cannot be sent again.",
    },
    Setting {
        name: "retention.audit_log",
        value: Value::DurationOrOff { least: HOUR, most: days(3_650) },
        default: "365d",
        meaning: "How long entries of the audit log are kept.",
    },
    Setting {
        name: "log.format",
        value: Value::Choice(&["text", "json"]),
        default: "text",
        meaning: "`json` writes one object a line.",
    },
    Setting {
        name: "log.level",
        value: Value::Choice(&["error", "warn", "info", "debug", "trace"]),
        default: "info",
        meaning: "Least level that is logged.",
    },
];

const RATE_LIMIT_RULE: &str = "CALLS/WINDOW such as 600/60s with a window of 1s to 1d, or off";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_setting_stands_once_and_says_what_it_does() {
        let names: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.name).collect();
        assert_eq!(names.len(), SETTINGS.len());
        for setting in SETTINGS {
            assert!(setting.meaning.ends_with('.'), "{}: a sentence", setting.name);
            assert!(!setting.meaning.contains('|'), "{}: one cell of a table", setting.name);
        }
    }

    #[test]
    fn settings_with_a_mark_stand_in_the_table() {
        for name in SECRETS.iter().chain(TAKE_EMPTY).chain(RELOADABLE) {
            assert!(is_known(name) || *name == ANY_BUCKET, "{name}");
        }
        assert!(is_reloadable("rate_limits.events_storage") && !is_reloadable("listen"));
        assert!(!is_known(ANY_BUCKET) && !is_known("rate_limits.nope") && is_known("rate_limits.events_create"));
    }

    #[test]
    fn what_is_allowed_is_said_in_words() {
        let allowed = |name| Setting::named(name).value.allowed();
        assert_eq!(allowed("webhooks.max_endpoints"), "a whole number from 1 to 10000");
        assert_eq!(allowed("webhooks.timeout"), "a duration from 1s to 2m");
        assert_eq!(allowed("retention.deliveries"), "a duration from 1h to 3650d, or off");
        assert_eq!(allowed("log.level"), "error, warn, info, debug or trace");
        assert_eq!(
            allowed("webhooks.retry_schedule"),
            "up to 50 durations of at most 30d, separated by commas, such as 30s,2m,10m"
        );
    }
}

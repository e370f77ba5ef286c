//! Reads a connection URL of PostgreSQL (libpq's connection URI, section 34.1.1.2 of PostgreSQL's manual).
//!
//! `tokio_postgres` parses hosts, names and passwords. It has no `verify-full` and no `sslrootcert`, and it sends
//! `options` in a way that poolers refuse. This module therefore takes such parameters out of the URL first. Nothing
//! here does I/O.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslNegotiation};

/// How long one address of a host may take to answer over TCP, TLS and startup. It is as long as a call may take: an
/// attempt that lasts longer serves nobody who waits.
const HOST_TIMEOUT: Duration = Duration::from_secs(5);

/// The highest `connect_timeout`, in seconds. A start or a failover waits this long for each silent address.
const MAX_HOST_TIMEOUT_SECS: u64 = 60;

/// The port of a host that names none: PostgreSQL's own.
const DEFAULT_PORT: u16 = 5432;

/// What keeps a connection from hanging on a network that has gone: it is closed 11 s after the last answer, before a
/// node's lease ends. Parameters of the URL stand after these and override them.
const KEEPALIVE: &str = "keepalives_idle=5&keepalives_interval=2&keepalives_retries=3";

/// The same for a connection on which something was sent.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// Parameters that `tokio_postgres` reads.
const PASSED_ON: &[&str] = &[
    "user",
    "password",
    "dbname",
    "host",
    "hostaddr",
    "port",
    "application_name",
    "channel_binding",
    "sslnegotiation",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
];

/// Parameters of libpq that would be dangerous to ignore, and why they are refused.
const REFUSED: &[(&str, &str)] = &[
    ("sslcert", "client certificates are not supported: use a password"),
    ("sslkey", "client certificates are not supported: use a password"),
    ("sslpassword", "client certificates are not supported: use a password"),
    ("sslcrl", "revocation lists are not supported: leave it out"),
    ("sslcrldir", "revocation lists are not supported: leave it out"),
    ("requiressl", "it is obsolete: use sslmode=require"),
    ("gssencmode", "GSSAPI is not supported: leave it out"),
    ("krbsrvname", "GSSAPI is not supported: leave it out"),
    ("passfile", "password files are not read: put the password into the URL"),
    ("service", "service files are not read: put everything into the URL"),
];

/// What a connection URL says.
#[derive(Clone, PartialEq)]
pub struct PostgresUrl {
    /// User, password, database and the like, without hosts.
    pub(super) config: Config,
    /// The hosts in the order of the URL; at least one.
    pub(super) hosts: Vec<Server>,
    pub(super) tls: Tls,
    /// `connect_timeout`: for each address of a host.
    pub(super) host_timeout: Duration,
    /// `options`: settings of each session.
    pub(super) options: Vec<(String, String)>,
}

/// One host of the URL.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Server {
    pub host: Host,
    /// `hostaddr`: connect to this address, and verify the certificate for `host`.
    pub address: Option<IpAddr>,
    pub port: u16,
}

/// Whether connections over TCP are encrypted, and what a server must prove.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Tls {
    /// `disable`.
    Off,
    /// `allow`, `prefer`: encrypted where the server can, with any certificate.
    Unverified,
    /// `require`, `verify-ca`, `verify-full`: a trusted certificate for the name of the host.
    Verified(Roots),
}

/// `sslrootcert`: who may sign the server's certificate.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Roots {
    /// Not given: Mozilla's authorities and the system's.
    Usual,
    /// `system`: the system's only.
    System,
    /// A file of PEM certificates.
    File(PathBuf),
}

/// Parameters that this module reads itself, as they were written.
#[derive(Default)]
struct Own<'a> {
    sslmode: Option<Cow<'a, str>>,
    sslrootcert: Option<Cow<'a, str>>,
    host_timeout: Option<Duration>,
    user_timeout: Option<Duration>,
    options: Vec<(String, String)>,
}

impl PostgresUrl {
    /// Reads a URL that begins with `postgres://` or `postgresql://`. The reason of a refusal holds no value that could
    /// be a secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (start, query) = split_query(text);
        let mut own = Own::default();
        let mut rest = vec![KEEPALIVE];
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or("it has a parameter without a value")?;
            let (name, value) = (decode(name)?, decode(value)?);
            if PASSED_ON.contains(&&*name) {
                rest.push(pair);
            } else {
                own.take(&name, value)?;
            }
        }
        let parsed: Config =
            format!("{start}?{}", rest.join("&")).parse().map_err(|error: tokio_postgres::Error| {
                use std::error::Error as _;
                // It names a parameter, and no value.
                error.source().map_or_else(|| error.to_string(), ToString::to_string)
            })?;
        if parsed.get_dbname().is_none() {
            return Err("it names no database".into());
        }
        let tls = tls_of(own.sslmode.as_deref(), own.sslrootcert.as_deref())?;
        if parsed.get_ssl_negotiation() == SslNegotiation::Direct && !matches!(tls, Tls::Verified(_)) {
            return Err("sslnegotiation=direct needs sslmode=verify-full".into());
        }
        Ok(Self {
            hosts: hosts_of(&parsed)?,
            config: without_hosts(&parsed, own.user_timeout.unwrap_or(USER_TIMEOUT)),
            tls,
            host_timeout: own.host_timeout.unwrap_or(HOST_TIMEOUT),
            options: own.options,
        })
    }

    /// Whether its server is verified by the system's authorities alone.
    pub fn trusts_system_alone(&self) -> bool {
        self.tls == Tls::Verified(Roots::System)
    }

    /// The name of the database.
    pub fn database(&self) -> &str {
        self.config.get_dbname().unwrap_or_default()
    }
}

impl<'a> Own<'a> {
    fn take(&mut self, name: &str, value: Cow<'a, str>) -> Result<(), String> {
        match name {
            "sslmode" => self.sslmode = Some(value),
            "sslrootcert" => self.sslrootcert = Some(value),
            "options" => self.options = options_of(&value)?,
            "connect_timeout" => self.host_timeout = timeout_of(&value)?,
            "tcp_user_timeout" => self.user_timeout = user_timeout_of(&value)?,
            "target_session_attrs" => check_target(&value)?,
            "load_balance_hosts" if value == "disable" => {}
            "load_balance_hosts" => {
                return Err(
                    "load_balance_hosts must be disable: one host takes the writes, and it is remembered".into()
                );
            }
            _ => {
                return Err(match REFUSED.iter().find(|(refused, _)| *refused == name) {
                    Some((refused, reason)) => format!("{refused} cannot be used: {reason}"),
                    // An unknown name may be a part of a password that was not percent-encoded.
                    None => format!(
                        "it has an unknown parameter; known are sslmode, sslrootcert, target_session_attrs, options, \
                         connect_timeout, load_balance_hosts, tcp_user_timeout, {}",
                        PASSED_ON.join(", ")
                    ),
                });
            }
        }
        Ok(())
    }
}

/// Cuts the URL where its parameters begin: at the first `?` after the password, where `tokio_postgres` cuts it too.
fn split_query(text: &str) -> (&str, &str) {
    let after = text.find('@').map_or(0, |at| at + 1);
    match text[after..].find('?') {
        Some(at) => (&text[..after + at], &text[after + at + 1..]),
        None => (text, ""),
    }
}

fn decode(text: &str) -> Result<Cow<'_, str>, String> {
    percent_encoding::percent_decode_str(text).decode_utf8().map_err(|_| "it has a parameter that is not UTF-8".into())
}

/// Every session writes, so that only a host that takes writes is of use.
fn check_target(value: &str) -> Result<(), String> {
    let reason = match value {
        "read-write" | "primary" => return Ok(()),
        "any" | "prefer-standby" => "such a session may be read-only",
        "read-only" | "standby" => "such a session is read-only",
        _ => "PostgreSQL knows no such value",
    };
    Err(format!("target_session_attrs must be read-write (the default) or primary: {reason}, and aldaba writes"))
}

fn tls_of(mode: Option<&str>, roots: Option<&str>) -> Result<Tls, String> {
    let roots = match roots {
        None => None,
        Some("") => return Err("sslrootcert must be the path of a file, or system".into()),
        Some("system") => Some(Roots::System),
        Some(path) => Some(Roots::File(path.into())),
    };
    let unverified = match mode {
        Some("require" | "verify-ca" | "verify-full") => return Ok(Tls::Verified(roots.unwrap_or(Roots::Usual))),
        // libpq says so too.
        None if roots == Some(Roots::System) => return Ok(Tls::Verified(Roots::System)),
        Some("disable") => Tls::Off,
        None | Some("prefer" | "allow") => Tls::Unverified,
        Some(_) => return Err("sslmode must be disable, allow, prefer, require, verify-ca or verify-full".into()),
    };
    if roots.is_some() {
        return Err("sslrootcert needs sslmode=verify-full: weaker modes verify nothing".into());
    }
    Ok(unverified)
}

fn timeout_of(value: &str) -> Result<Option<Duration>, String> {
    match value.parse::<u64>() {
        // libpq waits without end. A server must not.
        Ok(0) => Ok(None),
        Ok(secs) if secs <= MAX_HOST_TIMEOUT_SECS => Ok(Some(Duration::from_secs(secs))),
        _ => Err(format!("connect_timeout must be a number of seconds up to {MAX_HOST_TIMEOUT_SECS}")),
    }
}

/// libpq counts it in milliseconds, `tokio_postgres` in seconds. 0 leaves it to the default.
fn user_timeout_of(value: &str) -> Result<Option<Duration>, String> {
    match value.parse::<u32>() {
        Ok(0) => Ok(None),
        Ok(millis) => Ok(Some(Duration::from_millis(millis.into()))),
        Err(_) => Err("tcp_user_timeout must be a number of milliseconds".into()),
    }
}

/// Reads `-c NAME=VALUE` and `--NAME=VALUE`, separated by spaces; a backslash quotes the next character.
fn options_of(text: &str) -> Result<Vec<(String, String)>, String> {
    const RULE: &str = "options must be -c NAME=VALUE, or several of them with spaces between";
    let mut words = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => words.last_mut().expect("one at least").extend(characters.next()),
            ' ' | '\t' | '\n' => words.push(String::new()),
            other => words.last_mut().expect("one at least").push(other),
        }
    }
    let mut options = Vec::new();
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).ok_or(RULE)? {
            "" => words.next().ok_or(RULE)?,
            setting => setting.to_owned(),
        };
        let (name, value) = setting.split_once('=').ok_or(RULE)?;
        options.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(options)
}

fn hosts_of(parsed: &Config) -> Result<Vec<Server>, String> {
    let (hosts, addresses, ports) = (parsed.get_hosts(), parsed.get_hostaddrs(), parsed.get_ports());
    if hosts.is_empty() {
        return Err("it names no host".into());
    }
    if !addresses.is_empty() && addresses.len() != hosts.len() {
        return Err("it has as many hostaddr as hosts, or none".into());
    }
    if ports.len() > 1 && ports.len() != hosts.len() {
        return Err("it has one port for each host, or one for all".into());
    }
    let server = |(index, host): (usize, &Host)| Server {
        host: host.clone(),
        address: addresses.get(index).copied(),
        port: ports.get(index).or(ports.first()).copied().unwrap_or(DEFAULT_PORT),
    };
    Ok(hosts.iter().enumerate().map(server).collect())
}

fn without_hosts(parsed: &Config, user_timeout: Duration) -> Config {
    let mut config = Config::new();
    if let Some(user) = parsed.get_user() {
        config.user(user);
    }
    if let Some(password) = parsed.get_password() {
        config.password(password);
    }
    config
        .dbname(parsed.get_dbname().unwrap_or_default())
        .application_name(parsed.get_application_name().unwrap_or("aldaba"))
        .keepalives(parsed.get_keepalives())
        .keepalives_idle(parsed.get_keepalives_idle())
        .tcp_user_timeout(user_timeout)
        .ssl_negotiation(parsed.get_ssl_negotiation())
        .channel_binding(parsed.get_channel_binding());
    if let Some(interval) = parsed.get_keepalives_interval() {
        config.keepalives_interval(interval);
    }
    if let Some(retries) = parsed.get_keepalives_retries() {
        config.keepalives_retries(retries);
    }
    config
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Tcp(name) => write!(f, "{name}:{}", self.port),
            #[cfg(unix)]
            Host::Unix(folder) => folder.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<PostgresUrl, String> {
        PostgresUrl::parse(&format!("postgres://ana:hidden@one:1,two:2/hooks?{query}"))
    }

    #[test]
    fn hosts_keep_their_order_and_their_ports() {
        let url = parse("").expect("valid");
        let shown: Vec<_> = url.hosts.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["one:1", "two:2"]);
        assert_eq!((url.database(), url.host_timeout), ("hooks", HOST_TIMEOUT));
        let url = PostgresUrl::parse("postgres:///hooks?host=/run/a&host=/run/b").expect("valid");
        let shown: Vec<_> = url.hosts.iter().map(|host| (host.to_string(), host.port)).collect();
        assert_eq!(shown, [("/run/a".to_owned(), DEFAULT_PORT), ("/run/b".to_owned(), DEFAULT_PORT)]);
        let url = PostgresUrl::parse("postgres://db:6000/hooks?hostaddr=10.0.0.1").expect("valid");
        assert_eq!(url.hosts[0].address, Some(IpAddr::from([10, 0, 0, 1])));
    }

    #[test]
    fn a_mode_of_tls_is_taken_with_its_roots_or_refused_with_the_reason() {
        let file = || Roots::File("/etc/ca.pem".into());
        for (query, tls) in [
            ("", Tls::Unverified),
            ("sslmode=disable", Tls::Off),
            ("sslmode=allow", Tls::Unverified),
            ("sslmode=prefer", Tls::Unverified),
            ("sslmode=require", Tls::Verified(Roots::Usual)),
            ("sslmode=verify-ca", Tls::Verified(Roots::Usual)),
            ("sslmode=verify-full", Tls::Verified(Roots::Usual)),
            ("sslmode=verify-full&sslrootcert=/etc/ca.pem", Tls::Verified(file())),
            ("sslrootcert=%2Fetc%2Fca.pem&sslmode=require", Tls::Verified(file())),
            ("sslmode=verify-full&sslrootcert=system", Tls::Verified(Roots::System)),
            ("sslrootcert=system", Tls::Verified(Roots::System)),
        ] {
            assert_eq!(parse(query).map(|url| url.tls), Ok(tls), "{query}");
        }
        for (query, reason) in [
            ("sslmode=verify", "sslmode must be"),
            ("sslrootcert=/etc/ca.pem", "sslrootcert needs sslmode=verify-full"),
            ("sslmode=prefer&sslrootcert=system", "sslrootcert needs sslmode=verify-full"),
            ("sslmode=require&sslrootcert=", "sslrootcert must be"),
            ("sslnegotiation=direct", "sslnegotiation=direct needs"),
        ] {
            let refused = parse(query).err().unwrap_or_default();
            assert!(refused.contains(reason), "{query}: {refused}");
        }
    }

    #[test]
    fn only_hosts_that_take_writes_are_of_use() {
        for accepted in ["read-write", "primary"] {
            assert!(parse(&format!("target_session_attrs={accepted}")).is_ok(), "{accepted}");
        }
        for refused in ["any", "read-only", "standby", "prefer-standby", "writable"] {
            let reason = parse(&format!("target_session_attrs={refused}")).err().unwrap_or_default();
            assert!(reason.starts_with("target_session_attrs must be read-write"), "{refused}: {reason}");
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_its_name_and_without_a_value() {
        for (query, reason) in [
            ("sslcert=hidden", "sslcert cannot be used: client certificates"),
            ("service=hidden", "service cannot be used"),
            ("load_balance_hosts=random", "load_balance_hosts must be disable"),
            ("connect_timeout=900", "connect_timeout must be"),
            ("connect_timeout=-1", "connect_timeout must be"),
            ("hidden=1", "it has an unknown parameter"),
            ("sslmode", "a parameter without a value"),
            ("port=hidden", "`port`"),
            ("hostaddr=10.0.0.1", "as many hostaddr as hosts"),
            ("options=-d", "options must be"),
            ("options=-c", "options must be"),
            ("options=-c%20hidden", "options must be"),
        ] {
            let refused = parse(query).err().unwrap_or_default();
            assert!(refused.contains(reason) && !refused.contains("hidden"), "{query}: {refused}");
        }
        assert!(PostgresUrl::parse("postgres://host").err().is_some_and(|reason| reason.contains("no database")));
        assert!(PostgresUrl::parse("postgres:///hooks").err().is_some_and(|reason| reason.contains("no host")));
    }

    #[test]
    fn timeouts_and_options_are_read() {
        assert_eq!(parse("connect_timeout=10").map(|url| url.host_timeout), Ok(Duration::from_secs(10)));
        assert_eq!(parse("connect_timeout=0").map(|url| url.host_timeout), Ok(HOST_TIMEOUT));
        let config = |query| parse(query).expect("valid").config;
        assert_eq!(config("").get_keepalives_idle(), Duration::from_secs(5));
        assert_eq!(config("").get_tcp_user_timeout(), Some(&USER_TIMEOUT));
        assert_eq!(config("keepalives_idle=60").get_keepalives_idle(), Duration::from_secs(60));
        assert_eq!(config("tcp_user_timeout=2500").get_tcp_user_timeout(), Some(&Duration::from_millis(2_500)));
        let options = parse(r"options=-c%20search_path=a\%20b%20--work-mem=8MB%20-cgeqo=off").map(|url| url.options);
        let pairs = [("search_path", "a b"), ("work_mem", "8MB"), ("geqo", "off")];
        assert_eq!(options, Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()));
    }
}

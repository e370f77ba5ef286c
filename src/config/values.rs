//! The settings after they were read and checked.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::api::{RateLimits, Sessions};
use crate::domain::egress_rules::EgressRules;
use crate::domain::http_proxy::HttpProxy;
use crate::domain::retention::Retention;
use crate::domain::source_addresses::SourceAddresses;
use crate::domain::transition::DeliveryPolicy;
use crate::domain::url::Environment;
use crate::store::Database;
use crate::store::keys::KeySource;

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
    /// `webhooks.trace_context`.
    pub trace_context: bool,
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
    /// `egress.allow_networks`, `egress.deny_networks`, `egress.allow_ports` and `egress.nat64_prefixes`.
    pub egress_rules: EgressRules,
    /// `egress.proxy`: what connections to receivers go through.
    pub proxy: Option<HttpProxy>,
    /// `egress.source_address`: where connections to receivers come from.
    pub source_addresses: SourceAddresses,
    /// `egress.public_addresses`: what customers are told of where requests come from.
    pub public_addresses: Vec<String>,
    /// `metrics_listen`: where `/metrics` is served, if not beside the API.
    pub metrics_listen: Option<String>,
    /// `log.format`.
    pub log_format: LogFormat,
    /// `log.level`.
    pub log_level: tracing::Level,
}

impl Config {
    /// These settings, with those of `new` that may change while a server runs (`RELOADABLE` in the table).
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> Self {
        Self {
            keys: self.keys.with_previous_of(&new.keys),
            policy: new.policy.clone(),
            timeout: new.timeout,
            max_api_keys: new.max_api_keys,
            max_endpoints: new.max_endpoints,
            max_body: new.max_body,
            connections_per_address: new.connections_per_address,
            rate_limits: new.rate_limits.clone(),
            retention: new.retention,
            audit_retention: new.audit_retention,
            trusted_proxies: new.trusted_proxies.clone(),
            public_url: new.public_url.clone(),
            sessions: new.sessions,
            egress_rules: new.egress_rules.clone(),
            public_addresses: new.public_addresses.clone(),
            log_level: new.log_level,
            ..self.clone()
        }
    }
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
    pub(super) fn parse(text: &str) -> Option<Self> {
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

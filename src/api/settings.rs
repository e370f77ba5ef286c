//! The server's settings that the API reads. `lib` fills them in.

use std::time::Duration;

use axum::http::HeaderValue;

use super::limits::RateLimits;
use crate::domain::account::KeyHash;
use crate::domain::id::{AccountId, UserId};
use crate::domain::retention::Retention;
use crate::domain::url::Environment;

/// The settings that the API looks at.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What receiver URLs may be.
    pub environment: Environment,
    /// The name under which deliveries go out.
    pub brand: String,
    /// Before every new API key.
    pub key_prefix: String,
    /// Attempts that an endpoint may have in flight at once.
    pub max_in_flight_per_endpoint: u32,
    /// Whether the trace contexts of events are kept.
    pub trace_context: bool,
    /// Test sends at once, in all and to one endpoint.
    pub max_tests: (usize, usize),
    /// The link that signs in without a password: `aldaba dev` only.
    pub sign_in_link: Option<SignInLink>,
    /// Whether `/metrics` has a listener of its own, and the API does not serve it.
    pub metrics_apart: bool,
}

/// The settings that may change while the server runs.
#[derive(Clone, Debug)]
pub struct ChangingSettings {
    /// Largest body, in bytes.
    pub max_body: usize,
    /// Rate limits.
    pub rate_limits: RateLimits,
    /// How long the history is kept, where an account has no retention of its own.
    pub retention: Retention,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Requests at once of each address that trusted proxies forward for.
    pub requests_per_forwarded_address: usize,
    /// The addresses that requests to receivers come from, as customers are told.
    pub public_addresses: Vec<String>,
    /// The base URL of the server, such as `https://hooks.example.com`. Without it the `Host` header is used.
    pub public_url: Option<String>,
    /// How long people stay signed in.
    pub sessions: Sessions,
}

/// For how long a browser that has seen the header speaks TLS only: a year.
const HSTS: &str = "max-age=31536000";

impl ChangingSettings {
    /// `Strict-Transport-Security` (RFC 6797), where people reach the server over TLS.
    pub(super) fn hsts(&self) -> Option<HeaderValue> {
        let is_https = self.public_url.as_deref().is_some_and(|url| url.starts_with("https://"));
        is_https.then(|| HeaderValue::from_static(HSTS))
    }
}

/// A link that signs in one user without a password, while the process lives.
#[derive(Clone, Copy, Debug)]
pub struct SignInLink {
    /// The user's account.
    pub account: AccountId,
    /// The user.
    pub user: UserId,
    /// The hash of the link's token.
    pub token: KeyHash,
}

/// How long people stay signed in.
#[derive(Clone, Copy, Debug)]
pub struct Sessions {
    /// Without a request.
    pub idle: Duration,
    /// At most.
    pub lifetime: Duration,
}

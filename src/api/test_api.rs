//! An API for the unit tests of this folder.

use std::sync::Arc;
use std::time::Duration;

use super::{Api, ChangingSettings, RateLimits, Sessions, Settings};
use crate::clock::{SystemClock, SystemRandom};
use crate::domain::retention::Retention;
use crate::domain::transition::DeliveryPolicy;
use crate::domain::url::Environment;
use crate::egress::{Egress, Routing, resolver};
use crate::store::keys::KeySource;
use crate::store::{Database, OpenOptions, Store};

/// An API on a new database in this folder.
pub async fn api(folder: &std::path::Path) -> Api {
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom::default()));
    let store = Store::open(OpenOptions {
        database: Database::Sqlite(folder.join("aldaba.db")),
        keys: KeySource::File(folder.join("master-key")),
        environment: Environment::Development,
        policy: DeliveryPolicy::default(),
        max_endpoints: 1,
        max_api_keys: 1,
        max_in_flight_per_endpoint: 1,
        serves: false,
        clock: clock.clone(),
        random: random.clone(),
        inbox: None,
    })
    .await;
    let (second, resolver) = (Duration::from_secs(1), resolver(Vec::new()));
    let routing = Routing::direct(Environment::Development);
    let egress = Egress::new(routing, "Aldaba", second, clock.clone(), resolver, None);
    let settings = Settings {
        environment: Environment::Development,
        key_prefix: "mxcep_".into(),
        brand: "Aldaba".into(),
        sign_in_link: None,
        metrics_apart: false,
        max_in_flight_per_endpoint: 1,
        trace_context: true,
        max_tests: (1, 1),
    };
    let changing = ChangingSettings {
        retention: Retention::default(),
        trusted_proxies: Vec::new(),
        requests_per_forwarded_address: 1,
        max_body: 1_024,
        rate_limits: RateLimits(foldhash::HashMap::default()),
        public_addresses: Vec::new(),
        public_url: None,
        sessions: Sessions { idle: Duration::from_secs(60), lifetime: Duration::from_secs(60) },
    };
    Api::new(store.expect("opens"), egress, clock, random, Arc::default(), settings, changing)
}

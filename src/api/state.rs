//! The state that every handler can reach: the store, the egress, and all that bounds and counts calls.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use tokio::sync::Semaphore;

use super::bodies::{BodyBudget, Bounds};
use super::hashing::HashingPool;
use super::lookups::Lookups;
use super::origin::{self, Network};
use super::schema_check::Schemas;
use super::settings::{ChangingSettings, Sessions, Settings};
use super::slots::Slots;
use super::{auth, envelope, idempotency, limits};
use crate::clock::{Clock, Random};
use crate::domain::id::{AccountId, EndpointKey};
use crate::egress::Egress;
use crate::heavy::HeavyWork;
use crate::lock::RwLock;
use crate::metrics::Metrics;
use crate::permits::Permits;
use crate::store::{Accounts, Snapshot, Store};

/// Wrong sign-ins that are written down at once; more are answered and leave nothing but a count in the log.
const MAX_NOTES: usize = 16;

/// What every handler can reach. Clones share it.
#[derive(Clone)]
pub struct Api(Arc<ApiState>);

/// What the API consists of.
pub struct ApiState {
    pub(super) store: Store,
    pub(super) egress: Egress,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) settings: Settings,
    /// No task waits for anything while it has this lock.
    pub(super) changing: RwLock<ChangingSettings>,
    pub(super) limiter: limits::RateLimiter,
    pub(super) in_flight: idempotency::InFlight,
    pub(super) request_ids: envelope::RequestIds,
    pub(super) key_uses: auth::KeyUses,
    pub(super) schemas: Schemas,
    pub(super) tests: Slots<EndpointKey>,
    pub(super) test_shares: Permits<AccountId>,
    pub(super) exports: Slots<Option<AccountId>>,
    pub(super) previews: Slots<AccountId>,
    pub(super) hashing: HashingPool,
    pub(super) lookups: Lookups,
    pub(super) heavy: HeavyWork,
    pub(super) bodies: BodyBudget<Option<AccountId>>,
    pub(super) forms: BodyBudget<Option<Network>>,
    pub(super) notes: Arc<Semaphore>,
    pub(super) forwarded: Slots<Network>,
}

impl std::ops::Deref for Api {
    type Target = ApiState;

    fn deref(&self) -> &ApiState {
        &self.0
    }
}

impl Api {
    /// An API on this store. `egress` is for checks of URLs and test sends.
    pub fn new(
        store: Store,
        egress: Egress,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        metrics: Arc<Metrics>,
        settings: Settings,
        changing: ChangingSettings,
    ) -> Self {
        Self(Arc::new(ApiState {
            limiter: limits::RateLimiter::new(changing.rate_limits.clone()),
            in_flight: idempotency::InFlight::default(),
            request_ids: envelope::RequestIds::starting_at(u64::from_le_bytes(random.array())),
            key_uses: auth::KeyUses::default(),
            schemas: Schemas::default(),
            tests: Slots::default(),
            test_shares: Permits::new(settings.max_tests.0),
            exports: Slots::default(),
            previews: Slots::default(),
            hashing: HashingPool::default(),
            lookups: Lookups::default(),
            heavy: store.heavy(),
            bodies: BodyBudget::new(Bounds::CALLS),
            forms: BodyBudget::new(Bounds::FORMS),
            notes: Arc::new(Semaphore::new(MAX_NOTES)),
            forwarded: Slots::default(),
            store,
            egress,
            clock,
            random,
            metrics,
            settings,
            changing: RwLock::new(changing),
        }))
    }

    /// Applies other settings.
    pub async fn reload(&self, changing: ChangingSettings) {
        self.limiter.reload(changing.rate_limits.clone()).await;
        *self.changing.write() = changing;
    }

    /// The address of a client whose request came over a connection with `peer`.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        origin::client(peer, headers, &self.changing.read().trusted_proxies)
    }

    /// Writes down when keys were last used.
    pub async fn flush_key_uses(&self) {
        let uses = self.key_uses.take();
        if uses.is_empty() {
            return;
        }
        if let Err(error) = self.store.record_key_use(uses).await {
            tracing::warn!(%error, "the last use of keys could not be written");
        }
    }

    /// Whether people reach the server over TLS only, as in production.
    pub fn is_secure(&self) -> bool {
        self.settings.environment == crate::domain::url::Environment::Production
    }

    /// Milliseconds since the epoch.
    pub fn now_millis(&self) -> i64 {
        self.clock.now().as_millis()
    }

    /// 32 random hex digits.
    pub fn draw(&self) -> String {
        hex::encode(self.random.array::<16>())
    }

    /// How long people stay signed in.
    pub fn sessions(&self) -> Sessions {
        self.changing.read().sessions
    }

    /// The name under which the server delivers.
    pub fn brand(&self) -> &str {
        &self.settings.brand
    }
}

//! What both stores are made with, and how an endpoint's row becomes a target.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;

use super::inbox::Inbox;
use super::keys::KeySource;
use super::values::{OpenOptions, Target};
use crate::clock::{Clock, Random};
use crate::domain::id::{AccountKey, EndpointId, EndpointKey};
use crate::domain::secret::{Keyring, OpenError, SealedSecret, SecretSet};
use crate::domain::sign::Signer;
use crate::domain::time::Timestamp;
use crate::domain::transition::DeliveryPolicy;
use crate::domain::url::{Environment, ReceiverUrl};

/// What all parts of a store have in common.
pub(super) struct Shared {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub key_source: KeySource,
    keyring: RwLock<Arc<Keyring>>,
    environment: Environment,
    pub policy: DeliveryPolicy,
    pub max_endpoints: u32,
    pub max_in_flight_per_endpoint: usize,
    pub inbox: Option<Inbox>,
    /// Wakes whoever carries out replays.
    pub replays: Notify,
}

/// An endpoint as its row has it.
pub(super) struct StoredEndpoint {
    pub key: EndpointKey,
    pub id: EndpointId,
    pub account: AccountKey,
    pub url: String,
    pub version: i64,
    pub active: bool,
    /// The current secret first, each with the end of its overlap.
    pub secrets: Vec<(SealedSecret, Option<Timestamp>)>,
}

impl Shared {
    pub fn new(options: OpenOptions, keyring: Keyring) -> Self {
        Self {
            clock: options.clock,
            random: options.random,
            key_source: options.keys,
            keyring: RwLock::new(Arc::new(keyring)),
            environment: options.environment,
            policy: options.policy,
            max_endpoints: options.max_endpoints,
            max_in_flight_per_endpoint: options.max_in_flight_per_endpoint,
            inbox: options.inbox,
            replays: Notify::new(),
        }
    }

    pub fn keyring(&self) -> Arc<Keyring> {
        self.keyring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the master keys again: the command line may have rotated them.
    pub fn reload_keyring(&self) {
        match self.key_source.load(&*self.random) {
            Ok(keyring) => *self.keyring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keyring),
            Err(error) => tracing::error!(%error, "the master keys could not be read again"),
        }
    }

    /// Opens the secrets of an endpoint. One that cannot be opened is logged and receives nothing until it can.
    pub fn open_target(&self, stored: &StoredEndpoint) -> Option<Target> {
        let mut opened = self.open_secrets(stored);
        if let Err(OpenError::UnknownKey(_)) = opened {
            self.reload_keyring();
            opened = self.open_secrets(stored);
        }
        // The address is checked again at each connection; a URL that was registered in development may not be valid in production.
        let url = ReceiverUrl::parse(&stored.url, self.environment)
            .or_else(|_| ReceiverUrl::parse(&stored.url, Environment::Development));
        match (opened, url) {
            (Ok(secrets), Ok(url)) => Some(Target {
                account: stored.account,
                version: stored.version,
                active: stored.active,
                url: Arc::new(url),
                signer: Signer::new(&secrets),
            }),
            (Err(error), _) => {
                tracing::error!(endpoint = %stored.id, %error, "an endpoint's secret cannot be opened: its deliveries wait");
                None
            }
            (_, Err(error)) => {
                tracing::error!(endpoint = %stored.id, %error, "an endpoint's URL cannot be used: its deliveries wait");
                None
            }
        }
    }

    fn open_secrets(&self, stored: &StoredEndpoint) -> Result<SecretSet, OpenError> {
        let keyring = self.keyring();
        let mut current = None;
        let mut older = Vec::new();
        for (sealed, expires_at) in &stored.secrets {
            let secret = keyring.open(sealed, stored.id)?;
            match (&current, expires_at) {
                (None, _) => current = Some(secret),
                (Some(_), Some(until)) => older.push((secret, *until)),
                (Some(_), None) => {}
            }
        }
        current.map(|current| SecretSet { current, older }).ok_or(OpenError::Damaged)
    }
}

/// Names separated by spaces.
pub(super) fn words(column: &str) -> Vec<String> {
    column.split_whitespace().map(str::to_owned).collect()
}

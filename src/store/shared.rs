//! What both stores are made with, and how an endpoint's row becomes a `Target`: the endpoint as an attempt needs it.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::credentials;
use super::errors::{self, StoreError};
use super::filter_checks::FilterChecks;
use super::inbox::Inbox;
use super::operational_events::FailureLimit;
use super::pings::Pings;
use super::values::{Factor, MAX_ACCOUNT_REPLAYS, MAX_REPLAYS, OpenOptions, StoreSettings, Target};
use super::write_shares::WriteShares;
use crate::clock::{Clock, Random};
use crate::domain::audit::{Action, AuditEntry, AuditFilter, Origin};
use crate::domain::credentials::RequestCredentials;
use crate::domain::id::{AccountId, AccountKey, EndpointId, EndpointKey, IdTimes, ReplayId, TOLERANCE, UserId};
use crate::domain::network_rules::NetworkRules;
use crate::domain::secret::{Keyring, OpenError, SealedSecret, SecretSet};
use crate::domain::settings::DeliverySettings;
use crate::domain::sign::Signer;
use crate::domain::time::Timestamp;
use crate::domain::url::{Environment, ReceiverUrl};
use crate::domain::user::User;
use crate::lock::{Mutex, RwLock};

/// By how much two times in whole milliseconds may differ, where neither clock was set.
const ROUNDING: Duration = Duration::from_millis(2);

/// What all parts of a store have in common.
pub(super) struct Shared {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    settings: RwLock<Arc<StoreSettings>>,
    keyring: RwLock<Arc<Keyring>>,
    environment: Environment,
    pub max_in_flight_per_endpoint: usize,
    pub inbox: Option<Inbox>,
    /// Whether the database answers.
    pub pings: Pings,
    /// What each account has waiting for the writer or being written.
    pub(super) write_shares: WriteShares,
    /// Checks of published events against the filters of endpoints.
    pub filter_checks: FilterChecks,
    /// How many failed deliveries each account is told of.
    pub failure_limit: FailureLimit,
    /// Wakes whoever carries out replays.
    pub replays: Notify,
    /// Where this process looks for the next delivery of endpoints that receive in order (PostgreSQL).
    pub fifo_heads: Mutex<FifoHeads>,
    /// When it was opened, by both clocks.
    opened_at: (Timestamp, Instant),
    /// What the clock showed when it was last looked for deliveries that are due (SQLite).
    looked_at: Mutex<Option<(Timestamp, Instant)>>,
    /// The times of the ids that an import has brought (PostgreSQL).
    id_times: RwLock<Arc<IdTimes>>,
}

/// The position of each FIFO endpoint's head when this process last looked.
#[derive(Default)]
pub(super) struct FifoHeads {
    pub positions: HashMap<i64, i64>,
    pub forgotten_at: Option<Instant>,
}

/// An endpoint as its row has it.
pub(super) struct StoredEndpoint {
    pub key: EndpointKey,
    pub id: EndpointId,
    pub account: AccountKey,
    pub url: String,
    pub version: i64,
    pub active: bool,
    pub delivery: Arc<DeliverySettings>,
    /// What an operator has set for its account.
    pub networks: Option<Arc<NetworkRules>>,
    /// The values of its headers and credentials.
    pub credentials: Option<SealedSecret>,
    /// The current secret first, each with the end of its overlap.
    pub secrets: Vec<(SealedSecret, Option<Timestamp>)>,
}

impl Shared {
    pub fn new(options: OpenOptions, keyring: Keyring) -> Self {
        let settings = StoreSettings {
            keys: options.keys,
            policy: options.policy,
            max_endpoints: options.max_endpoints,
            max_api_keys: options.max_api_keys,
        };
        Self {
            opened_at: (options.clock.now(), Instant::now()),
            clock: options.clock,
            random: options.random,
            settings: RwLock::new(Arc::new(settings)),
            keyring: RwLock::new(Arc::new(keyring)),
            environment: options.environment,
            max_in_flight_per_endpoint: options.max_in_flight_per_endpoint,
            inbox: options.inbox,
            pings: Pings::default(),
            write_shares: WriteShares::default(),
            filter_checks: FilterChecks::default(),
            failure_limit: FailureLimit::default(),
            replays: Notify::new(),
            fifo_heads: Mutex::default(),
            looked_at: Mutex::default(),
            id_times: RwLock::default(),
        }
    }

    /// The time of the clock. Where the clock was set forward since the store was opened, it is the time that the
    /// monotonic clock tells instead (SQLite).
    pub fn steady_now(&self) -> Timestamp {
        let (opened, at) = self.opened_at;
        self.clock.now().min(opened.plus(at.elapsed() + ROUNDING))
    }

    /// Whether the clock may have been set back since the last call by more than times may be wrong. At the first call
    /// it may.
    pub fn was_set_back(&self) -> bool {
        let (now, at) = (self.clock.now(), Instant::now());
        let mut looked_at = self.looked_at.lock();
        looked_at.replace((now, at)).is_none_or(|(last, last_at)| last.plus(at - last_at).since(now) > TOLERANCE)
    }

    /// The times of ids on PostgreSQL. On SQLite they are read with the rows.
    pub fn id_times(&self) -> Arc<IdTimes> {
        self.id_times.read().clone()
    }

    /// Takes the times of ids that the database has.
    pub fn set_id_times(&self, times: IdTimes) {
        *self.id_times.write() = Arc::new(times);
    }

    /// The settings as they are now.
    pub fn settings(&self) -> Arc<StoreSettings> {
        self.settings.read().clone()
    }

    /// Applies other settings, and their keys if these differ. The keys must open the stored secrets.
    pub fn set_settings(&self, settings: StoreSettings, keyring: Option<Keyring>) {
        *self.settings.write() = Arc::new(settings);
        if let Some(keyring) = keyring {
            *self.keyring.write() = Arc::new(keyring);
        }
    }

    /// The keys of other settings; `None` where they are those of now.
    pub fn changed_keyring(&self, settings: &StoreSettings) -> Result<Option<Keyring>, errors::OpenError> {
        let is_same = settings.keys == self.settings().keys;
        if is_same { Ok(None) } else { settings.keys.load(&*self.random).map(Some) }
    }

    pub fn keyring(&self) -> Arc<Keyring> {
        self.keyring.read().clone()
    }

    /// Reads the master keys again: the command line may have rotated them.
    pub fn reload_keyring(&self) {
        match self.settings().keys.load(&*self.random) {
            Ok(keyring) => *self.keyring.write() = Arc::new(keyring),
            Err(error) => tracing::error!(%error, "the master keys could not be read again"),
        }
    }

    /// Opens what is sealed. Where no master key at hand has sealed it, the keys are read again, once: another process
    /// may have rotated them.
    pub fn open_sealed<T>(&self, open: impl Fn(&Keyring) -> Result<T, OpenError>) -> Result<T, OpenError> {
        match open(&self.keyring()) {
            Err(OpenError::UnknownKey(_)) => {
                self.reload_keyring();
                open(&self.keyring())
            }
            opened => opened,
        }
    }

    /// Opens the secrets of an endpoint, and its credentials. One that cannot be opened is logged and receives nothing
    /// until it can.
    pub fn open_target(&self, stored: &StoredEndpoint) -> Option<Target> {
        let opened =
            self.open_sealed(|keyring| Ok((open_secrets(keyring, stored)?, open_credentials(keyring, stored)?)));
        // The address is checked again at each connection; a URL that was registered in development may not be valid in
        // production.
        let url = ReceiverUrl::parse(&stored.url, self.environment)
            .or_else(|_| ReceiverUrl::parse(&stored.url, Environment::Development));
        match (opened, url) {
            (Ok((secrets, credentials)), Ok(url)) => Some(Target {
                account: stored.account,
                version: stored.version,
                active: stored.active,
                url: Arc::new(url),
                signer: Signer::new(&secrets),
                credentials: Arc::new(credentials),
                delivery: stored.delivery.clone(),
                networks: stored.networks.clone(),
            }),
            (Err(error), _) => {
                tracing::error!(endpoint = %stored.id, %error, "an endpoint's secret or credentials cannot be opened: \
                                                                its deliveries wait");
                None
            }
            (_, Err(error)) => {
                tracing::error!(endpoint = %stored.id, %error, "an endpoint's URL cannot be used: its deliveries wait");
                None
            }
        }
    }

    /// Opens the secret of a user's second factor.
    pub fn open_factor(&self, sealed: Option<&SealedSecret>, user: UserId) -> Factor {
        let Some(sealed) = sealed else { return Factor::None };
        self.open_sealed(|keyring| keyring.open(sealed, user.0)).map_or_else(
            |error| {
                tracing::error!(%user, %error, "a second factor cannot be opened: nobody signs in with it");
                Factor::Sealed
            },
            Factor::Secret,
        )
    }
}

fn open_secrets(keyring: &Keyring, stored: &StoredEndpoint) -> Result<SecretSet, OpenError> {
    let mut current = None;
    let mut older = Vec::new();
    for (sealed, expires_at) in &stored.secrets {
        let secret = keyring.open(sealed, stored.id.0)?;
        match (&current, expires_at) {
            (None, _) => current = Some(secret),
            (Some(_), Some(until)) => older.push((secret, *until)),
            (Some(_), None) => {}
        }
    }
    current.map(|current| SecretSet { current, older }).ok_or(OpenError::Damaged)
}

fn open_credentials(keyring: &Keyring, stored: &StoredEndpoint) -> Result<RequestCredentials, OpenError> {
    let opened = credentials::open(keyring, stored.id, stored.credentials.as_ref())?;
    stored.delivery.credentials.clone().with(opened).ok_or(OpenError::Damaged)
}

/// What is written into the audit log, by the transaction that makes the change.
pub(super) struct AuditRecord {
    action: Action,
    pub account: Option<AccountKey>,
    resource: String,
    fields: Vec<&'static str>,
}

impl AuditRecord {
    /// A change to something of an account; `None` is the operator's.
    pub fn of(account: impl Into<Option<AccountKey>>, action: Action, resource: impl ToString) -> Self {
        Self { action, account: account.into(), resource: resource.to_string(), fields: Vec::new() }
    }

    /// A change to a user, or something that they did.
    pub fn of_user(user: &User, action: Action) -> Self {
        Self::of(user.account.map(|(_, key)| key), action, user.id)
    }

    /// The fields that were changed.
    pub fn with_fields(mut self, fields: &[&'static str]) -> Self {
        fields.clone_into(&mut self.fields);
        self
    }

    /// The text columns of its row, in the order of [`AUDIT_TEXTS`].
    pub fn texts(&self, origin: &Origin) -> [Option<String>; 9] {
        let Origin { actor, address, request } = origin;
        [
            Some(self.action.name().to_owned()),
            Some(actor.kind().to_owned()),
            actor.id(),
            actor.name().map(str::to_owned),
            Some(self.action.resource().to_owned()),
            Some(self.resource.clone()),
            Some(self.fields.join(" ")),
            address.map(|address| address.to_string()),
            request.clone(),
        ]
    }
}

/// The text columns of the audit log.
pub(super) const AUDIT_TEXTS: &str =
    "action, actor, actor_id, actor_name, resource, resource_id, fields, address, request";

/// Which entries of the audit log, as `l`, somebody may see and looks for: the condition, and the texts that it
/// compares with. `placeholder` writes the placeholder of one of them, from 1.
pub(super) fn audit_condition(
    filter: &AuditFilter,
    account: Option<AccountKey>,
    placeholder: impl Fn(usize) -> String,
) -> (String, Vec<String>) {
    let mut parts = vec!["1 = 1".to_owned()];
    let mut texts = Vec::new();
    let mut one_of = |column: &str, values: Vec<String>| {
        if values.is_empty() {
            return None;
        }
        let placeholders: Vec<String> =
            values.iter().enumerate().map(|(n, _)| placeholder(texts.len() + n + 1)).collect();
        texts.extend(values);
        Some(format!("l.{column} IN ({})", placeholders.join(", ")))
    };
    parts.extend(one_of("action", filter.actions.iter().map(|action| action.name().to_owned()).collect()));
    parts.extend(one_of("actor_id", filter.actors.clone()));
    parts.extend(one_of("resource", filter.resource_types.iter().map(ToString::to_string).collect()));
    parts.extend(one_of("resource_id", filter.resources.clone()));
    parts.extend(account.map(|account| format!("l.account = {account}", account = account.0)));
    parts.extend(filter.from.map(|from| format!("l.created_at >= {}", from.as_millis())));
    parts.extend(filter.to.map(|to| format!("l.created_at < {}", to.end_of_second().as_millis())));
    (parts.join(" AND "), texts)
}

/// An entry as its account sees it, or as an operator does.
pub(super) fn entry_seen_by(owner: Option<AccountId>, entry: AuditEntry) -> AuditEntry {
    if owner.is_some() { entry.for_account() } else { entry }
}

/// Refuses another replay of `endpoint` where it or its account, which has these unfinished ones, has as many as it may
/// have.
pub(super) fn check_open_replays(open: &[(EndpointKey, ReplayId)], endpoint: EndpointKey) -> Result<(), StoreError> {
    let of_endpoint: Vec<ReplayId> = open.iter().filter(|(of, _)| *of == endpoint).map(|(_, id)| *id).collect();
    if of_endpoint.len() >= MAX_REPLAYS {
        return Err(StoreError::TooManyReplays(of_endpoint));
    }
    if open.len() >= MAX_ACCOUNT_REPLAYS {
        return Err(StoreError::TooManyReplays(open.iter().map(|(_, id)| *id).collect()));
    }
    Ok(())
}

/// Names separated by spaces.
pub(super) fn words(column: &str) -> Vec<String> {
    column.split_whitespace().map(str::to_owned).collect()
}

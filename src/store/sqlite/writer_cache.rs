//! The writer's copy of accounts, endpoints, keys and types, and the view that other threads read.
//!
//! The [`WriterCache`] lives on the writer's thread and shows its rows as the open transaction sees them, so that a
//! fan-out reads no table. The [`View`] is what was last committed.

use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use rusqlite::{Connection, params};

use super::cache_rows::{StoredRow, known_account, recent, secrets_of, stored_row};
use crate::domain::account::{ApiKey, KeyHash};
use crate::domain::endpoint::{EndpointHealth, Ordering};
use crate::domain::event::NewEvent;
use crate::domain::id::{AccountId, AccountKey, ApiKeyId, DeliveryId, EndpointKey};
use crate::domain::network_rules::NetworkRules;
use crate::domain::settings::DeliverySettings;
use crate::domain::subscription;
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::filter_checks::{Checks, Filtered};
use crate::store::hold;
use crate::store::inbox::{Inbox, MemoryUse, Nudge};
use crate::store::settings::{delivery_settings, readable};
use crate::store::shared::Shared;
use crate::store::values::Target;
use crate::store::view::{EventTypes, KnownAccount, KnownAccounts, View, Whole};

/// An endpoint on the writer's thread.
pub(super) struct EndpointRow {
    pub account: AccountKey,
    pub health: EndpointHealth,
    pub memory: Arc<MemoryUse>,
    /// Whether deliveries that are accepted from now on are sent in order.
    pub is_fifo: bool,
    /// Whether some of its open deliveries may be sent in order.
    pub has_fifo_order: bool,
    pub delivery: Arc<DeliverySettings>,
    last_delivery_at: Option<Timestamp>,
    deliveries_gone: i64,
    /// Whether the running transaction has paused it: its status is written then, and not with every counter.
    paused: bool,
    target: Option<Arc<Target>>,
}

impl EndpointRow {
    /// Changes whenever the owner or the platform changes the endpoint; `None` while its settings cannot be read or its
    /// secret cannot be opened.
    pub fn version(&self) -> Option<i64> {
        self.target.as_ref().map(|target| target.version)
    }

    /// Whether deliveries go out now: it is active, its settings could be read, and its secret could be opened.
    pub fn can_receive(&self) -> bool {
        self.target.as_ref().is_some_and(|target| target.active)
    }
}

struct AccountRow {
    id: AccountId,
    known: KnownAccount,
    events_added: i64,
    /// Active endpoints.
    subscribers: Subscribers,
    /// Those that are not active, or whose settings cannot be read.
    paused: Subscribers,
}

/// Endpoints by what they subscribe to.
#[derive(Default)]
struct Subscribers {
    by_type: HashMap<String, Vec<EndpointKey>>,
    /// Those with wildcards, by how the types begin that a wildcard means.
    by_prefix: HashMap<String, Vec<EndpointKey>>,
}

impl Subscribers {
    fn add(&mut self, entry: &str, key: EndpointKey) {
        let (endpoints, name) = match subscription::prefix(entry) {
            Some(prefix) => (&mut self.by_prefix, prefix),
            None => (&mut self.by_type, entry),
        };
        endpoints.entry(name.to_owned()).or_default().push(key);
    }

    /// Those that subscribe to the type, each once.
    fn of(&self, event_type: &str) -> Vec<EndpointKey> {
        let mut found = self.by_type.get(event_type).cloned().unwrap_or_default();
        if !self.by_prefix.is_empty() {
            let prefixes = subscription::prefixes_of(event_type);
            found.extend(prefixes.filter_map(|prefix| self.by_prefix.get(prefix)).flatten());
            found.sort_unstable();
            found.dedup();
        }
        found
    }

    /// Takes an endpoint out; returns its entries.
    fn remove(&mut self, key: EndpointKey) -> Vec<String> {
        let prefixes = remove_from(&mut self.by_prefix, key).into_iter().map(|prefix| prefix + "*");
        remove_from(&mut self.by_type, key).into_iter().chain(prefixes).collect()
    }
}

/// Takes an endpoint out; returns the names that it had.
fn remove_from(endpoints: &mut HashMap<String, Vec<EndpointKey>>, key: EndpointKey) -> Vec<String> {
    let mut names = Vec::new();
    endpoints.retain(|name, of_name| {
        let before = of_name.len();
        of_name.retain(|other| *other != key);
        if of_name.len() < before {
            names.push(name.clone());
        }
        !of_name.is_empty()
    });
    names
}

/// A row that the running write has changed.
enum Touched {
    Account(AccountKey),
    Endpoint(EndpointKey),
    ApiKey(ApiKeyId),
    EventTypes,
    Hold,
}

/// A change of the view that waits for the commit.
enum Change {
    Endpoint(EndpointKey, Option<Arc<Target>>),
    ApiKey(KeyHash, Option<Arc<ApiKey>>),
    EventTypes(Arc<EventTypes>),
    Account(AccountId, KnownAccount),
    AccountGone(AccountId),
    Cancelled(i64),
    Hold(Option<Timestamp>),
}

pub(super) struct WriterCache {
    view: View,
    account_keys: HashMap<AccountId, AccountKey>,
    accounts: HashMap<AccountKey, AccountRow>,
    endpoints: HashMap<EndpointKey, EndpointRow>,
    /// The endpoints of each account that have a filter.
    filtered: HashMap<AccountKey, HashSet<EndpointKey>>,
    key_hashes: HashMap<ApiKeyId, KeyHash>,
    types: Arc<EventTypes>,
    /// Since when all deliveries are on hold.
    on_hold_since: Option<Timestamp>,
    /// The newest delivery that is listed, and how many are newer: see `delivery_index`.
    listed_to: i64,
    recent: usize,
    dirty_endpoints: HashSet<EndpointKey>,
    dirty_accounts: HashSet<AccountKey>,
    touched: Vec<Touched>,
    changes: Vec<Change>,
}

impl WriterCache {
    pub fn new(view: View) -> Self {
        Self {
            view,
            account_keys: HashMap::default(),
            accounts: HashMap::default(),
            endpoints: HashMap::default(),
            filtered: HashMap::default(),
            key_hashes: HashMap::default(),
            types: Arc::default(),
            on_hold_since: None,
            listed_to: 0,
            recent: 0,
            dirty_endpoints: HashSet::default(),
            dirty_accounts: HashSet::default(),
            touched: Vec::new(),
            changes: Vec::new(),
        }
    }

    pub fn account_key(&self, id: AccountId) -> Option<AccountKey> {
        self.account_keys.get(&id).copied()
    }

    pub fn has_type(&self, name: &str) -> bool {
        self.types.contains_key(name)
    }

    pub fn endpoint(&self, key: EndpointKey) -> Option<&EndpointRow> {
        self.endpoints.get(&key)
    }

    /// Whether all deliveries are on hold.
    pub fn is_on_hold(&self) -> bool {
        self.on_hold_since.is_some()
    }

    /// Active endpoints of the account that subscribe to the type.
    pub fn subscribers(&self, account: AccountKey, event_type: &str) -> Vec<EndpointKey> {
        self.accounts.get(&account).map(|row| row.subscribers.of(event_type)).unwrap_or_default()
    }

    /// Endpoints of the account that subscribe to the type and are not active.
    pub fn paused_subscribers(&self, account: AccountKey, event_type: &str) -> Vec<EndpointKey> {
        self.accounts.get(&account).map(|row| row.paused.of(event_type)).unwrap_or_default()
    }

    /// The endpoints of its account that an event concerns: those that it is sent to, and those that miss it because
    /// they are not active. The event was checked against the filters of those that [`Self::filtered`] finds.
    pub fn recipients(
        &self,
        account: AccountKey,
        event: &NewEvent,
        checks: &Checks,
    ) -> (Vec<EndpointKey>, Vec<EndpointKey>) {
        let wants =
            |key: &EndpointKey| self.endpoints.get(key).is_some_and(|row| checks.admit(event, *key, &row.delivery));
        let mut active = self.subscribers(account, &event.event_type);
        let mut paused = self.paused_subscribers(account, &event.event_type);
        active.retain(wants);
        paused.retain(wants);
        (active, paused)
    }

    /// Whether any endpoint has a filter.
    pub fn has_filters(&self) -> bool {
        !self.filtered.is_empty()
    }

    /// The endpoints with filters, active or not, that subscribe to the type of an event.
    pub fn filtered(&self, event: &NewEvent) -> Vec<Filtered> {
        let account = self.account_key(event.account).and_then(|key| Some((key, self.filtered.get(&key)?)));
        let Some((account, filtered)) = account else { return Vec::new() };
        let mut found = self.subscribers(account, &event.event_type);
        found.extend(self.paused_subscribers(account, &event.event_type));
        found.retain(|key| filtered.contains(key));
        found.into_iter().filter_map(|key| Some((key, self.endpoints.get(&key)?.delivery.clone()))).collect()
    }

    pub fn count_event(&mut self, account: AccountKey) {
        if let Some(row) = self.accounts.get_mut(&account) {
            row.events_added += 1;
            self.dirty_accounts.insert(account);
        }
    }

    /// So many deliveries were written that are not listed yet: they are counted when they are.
    pub fn came(&mut self, deliveries: usize) {
        self.recent += deliveries;
    }

    /// Deliveries of the endpoint were removed that had been listed.
    pub fn gone(&mut self, endpoint: EndpointKey, deliveries: i64) {
        if let Some(row) = self.endpoints.get_mut(&endpoint) {
            row.deliveries_gone += deliveries;
            self.dirty_endpoints.insert(endpoint);
        }
    }

    /// Deliveries that are not listed yet; where a write was refused, there are some less.
    pub fn recent(&self) -> usize {
        self.recent
    }

    /// The newest delivery that is listed.
    pub fn listed_to(&self) -> i64 {
        self.listed_to
    }

    /// Whether the delivery may be listed.
    pub fn is_listed(&self, delivery: DeliveryId) -> bool {
        delivery.0 <= self.listed_to
    }

    /// Reads how far the lists go.
    pub fn read_recent(&mut self, db: &Connection) -> Result<(), StoreError> {
        let (listed_to, recent) = recent(db)?;
        self.listed_to = listed_to;
        self.recent = recent;
        Ok(())
    }

    /// What an attempt did to its endpoint. Where `in_its_row`, that it was the last one is found in the delivery's
    /// row.
    pub fn record_attempt(&mut self, key: EndpointKey, health: EndpointHealth, at: Timestamp, in_its_row: bool) {
        let Some(row) = self.endpoints.get_mut(&key) else { return };
        row.last_delivery_at = row.last_delivery_at.max(Some(at));
        if !in_its_row || row.health != health {
            self.dirty_endpoints.insert(key);
        }
        let paused = row.health.status != health.status;
        row.health = health;
        if paused {
            row.paused = true;
            let paused = row
                .target
                .as_deref()
                .map(|target| Arc::new(Target { active: false, version: target.version + 1, ..target.clone() }));
            row.target.clone_from(&paused);
            let account = row.account;
            self.changes.push(Change::Endpoint(key, paused));
            if let Some(account) = self.accounts.get_mut(&account) {
                for entry in account.subscribers.remove(key) {
                    account.paused.add(&entry, key);
                }
            }
        }
    }

    /// The replay is cancelled with this transaction.
    pub fn cancel(&mut self, replay: i64) {
        self.changes.push(Change::Cancelled(replay));
    }

    pub fn touch_account(&mut self, key: AccountKey) {
        self.touched.push(Touched::Account(key));
    }

    pub fn touch_endpoint(&mut self, key: EndpointKey) {
        self.touched.push(Touched::Endpoint(key));
    }

    pub fn touch_api_key(&mut self, id: ApiKeyId) {
        self.touched.push(Touched::ApiKey(id));
    }

    pub fn touch_event_types(&mut self) {
        self.touched.push(Touched::EventTypes);
    }

    pub fn touch_hold(&mut self) {
        self.touched.push(Touched::Hold);
    }

    /// The running write was rolled back.
    pub fn forget_touched(&mut self) {
        self.touched.clear();
    }

    /// Reads again what the running write has changed.
    pub fn refresh_touched(&mut self, db: &Connection, shared: &Shared) -> Result<(), StoreError> {
        for touched in std::mem::take(&mut self.touched) {
            match touched {
                Touched::Account(key) => self.refresh_account(db, key)?,
                Touched::Endpoint(key) => {
                    self.load_endpoints(db, shared, Some(key))?;
                    let target = self.endpoints.get(&key).and_then(|row| row.target.clone());
                    self.changes.push(Change::Endpoint(key, target));
                }
                Touched::ApiKey(id) => self.refresh_api_key(db, id)?,
                Touched::EventTypes => {
                    self.types = Arc::new(super::catalog_rows::event_types(db)?);
                    self.changes.push(Change::EventTypes(self.types.clone()));
                }
                Touched::Hold => {
                    self.on_hold_since = super::hold_row::read(db)?;
                    self.changes.push(Change::Hold(self.on_hold_since));
                }
            }
        }
        Ok(())
    }

    /// Writes counters and healths. They are kept in memory within a transaction, because most batches touch few
    /// endpoints many times.
    pub fn write_counters(&mut self, db: &Connection) -> Result<(), StoreError> {
        let mut count = db.prepare_cached(
            "UPDATE endpoint_counters SET deliveries_total = deliveries_total - ?2, consecutive_failures = ?3, \
             failing_since = ?4, last_delivery_at = ?5 WHERE endpoint = ?1",
        )?;
        for key in self.dirty_endpoints.drain() {
            let Some(row) = self.endpoints.get_mut(&key) else { continue };
            let (health, version) = (row.health, row.target.as_ref().map(|target| target.version));
            let last_delivery_at = row.last_delivery_at.map(Timestamp::as_millis);
            count.execute(params![
                key.0,
                row.deliveries_gone,
                health.consecutive_failures,
                health.failing_since.map(Timestamp::as_millis),
                last_delivery_at,
            ])?;
            row.deliveries_gone = 0;
            if std::mem::take(&mut row.paused) {
                let sql = "UPDATE endpoints SET status = ?2, version = MAX(version, IFNULL(?3, 0)), updated_at = ?4 \
                           WHERE key = ?1";
                db.prepare_cached(sql)?.execute(params![
                    key.0,
                    health.status.to_column(),
                    version,
                    last_delivery_at
                ])?;
            }
        }
        for key in self.dirty_accounts.drain() {
            let Some(row) = self.accounts.get_mut(&key) else { continue };
            db.prepare_cached("UPDATE accounts SET events_total = events_total + ?2 WHERE key = ?1")?
                .execute(params![key.0, row.events_added])?;
            row.events_added = 0;
        }
        Ok(())
    }

    /// Shows what has been committed, and tells the engine which endpoints have changed.
    pub fn publish(&mut self, inbox: Option<&Inbox>) {
        for change in self.changes.drain(..) {
            match change {
                Change::Endpoint(key, target) => {
                    self.view.show_endpoint(key, target);
                    if let Some(inbox) = inbox {
                        inbox.send(Nudge::Changed(key));
                    }
                }
                Change::ApiKey(hash, key) => self.view.show_key(hash, key),
                Change::Account(id, account) => self.view.show_account(id, account),
                Change::AccountGone(id) => self.view.forget_account(id),
                Change::Cancelled(replay) => self.view.show_cancelled(replay),
                Change::EventTypes(types) => self.view.show_types(types),
                Change::Hold(since) => hold::show(&self.view, inbox, since),
            }
        }
    }

    /// Reads everything: at the start, after a rolled back transaction, and when another process has written. Where
    /// that fails, all stays as it was.
    pub fn reload(&mut self, db: &Connection, shared: &Shared) -> Result<(), StoreError> {
        let mut fresh = Self::new(self.view.clone());
        let keys = fresh.read_all(db, shared)?;
        for (key, row) in &mut fresh.endpoints {
            if let Some(before) = self.endpoints.get(key) {
                row.memory = before.memory.clone();
            }
        }
        *self = fresh;
        // Before the endpoints: none of them receives while deliveries are on hold.
        hold::show(&self.view, shared.inbox.as_ref(), self.on_hold_since);
        let targets = self.endpoints.iter().filter_map(|(key, row)| Some((*key, row.target.clone()?)));
        let mut accounts = KnownAccounts::default();
        self.accounts.values().for_each(|row| accounts.add(row.id, row.known.clone()));
        self.view.show(Whole {
            endpoints: targets.collect(),
            keys: keys.into_iter().map(|(hash, key)| (hash, Arc::new(key))).collect(),
            types: self.types.clone(),
            accounts,
        });
        Ok(())
    }

    /// Fills an empty cache; returns the API keys.
    fn read_all(&mut self, db: &Connection, shared: &Shared) -> Result<Vec<(KeyHash, ApiKey)>, StoreError> {
        let sql = "SELECT key, id, external_id, settings FROM accounts WHERE deleted_at IS NULL";
        let mut statement = db.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| Ok((AccountKey(row.get(0)?), known_account(row)?)))?;
        for row in rows {
            let (key, (id, known)) = row?;
            self.add_account(key, id, known);
        }
        self.load_endpoints(db, shared, None)?;
        self.read_recent(db)?;
        self.on_hold_since = super::hold_row::read(db)?;
        let keys = super::catalog_rows::api_keys(db)?;
        self.key_hashes = keys.iter().map(|(hash, key)| (key.id, *hash)).collect();
        self.types = Arc::new(super::catalog_rows::event_types(db)?);
        Ok(keys)
    }

    fn add_account(&mut self, key: AccountKey, id: AccountId, known: KnownAccount) {
        self.account_keys.insert(id, key);
        let (subscribers, paused) = Default::default();
        self.accounts.insert(key, AccountRow { id, known, events_added: 0, subscribers, paused });
    }

    /// Where requests of the account may go now: its endpoints say so too.
    fn set_networks(&mut self, account: AccountKey, networks: Option<&Arc<NetworkRules>>) {
        for (key, row) in self.endpoints.iter_mut().filter(|(_, row)| row.account == account) {
            row.target = row.target.as_ref().map(|target| target.with_networks(networks));
            self.changes.push(Change::Endpoint(*key, row.target.clone()));
        }
    }

    fn refresh_account(&mut self, db: &Connection, key: AccountKey) -> Result<(), StoreError> {
        let sql = "SELECT id, external_id, settings FROM accounts WHERE key = ?1 AND deleted_at IS NULL";
        let mut statement = db.prepare_cached(sql)?;
        let found = statement.query_map([key.0], known_account)?.next().transpose()?;
        match found {
            Some((id, known)) => {
                self.changes.push(Change::Account(id, known.clone()));
                let Some(row) = self.accounts.get_mut(&key) else {
                    self.add_account(key, id, known);
                    return Ok(());
                };
                let networks = (row.known.networks != known.networks).then(|| known.networks.clone());
                row.known = known;
                if let Some(networks) = networks {
                    self.set_networks(key, networks.as_ref());
                }
            }
            None => {
                if let Some(row) = self.accounts.remove(&key) {
                    self.account_keys.remove(&row.id);
                    self.changes.push(Change::AccountGone(row.id));
                }
            }
        }
        Ok(())
    }

    fn refresh_api_key(&mut self, db: &Connection, id: ApiKeyId) -> Result<(), StoreError> {
        let found = super::catalog_rows::api_key(db, id)?;
        if let Some((hash, key)) = found {
            self.key_hashes.insert(id, hash);
            self.changes.push(Change::ApiKey(hash, Some(Arc::new(key))));
        } else if let Some(hash) = self.key_hashes.remove(&id) {
            self.changes.push(Change::ApiKey(hash, None));
        }
        Ok(())
    }

    fn unsubscribe(&mut self, account: AccountKey, key: EndpointKey) {
        if let Some(filtered) = self.filtered.get_mut(&account) {
            filtered.remove(&key);
            if filtered.is_empty() {
                self.filtered.remove(&account);
            }
        }
        let Some(account) = self.accounts.get_mut(&account) else { return };
        account.subscribers.remove(key);
        account.paused.remove(key);
    }

    /// Reads one endpoint, or all of them.
    fn load_endpoints(
        &mut self,
        db: &Connection,
        shared: &Shared,
        only: Option<EndpointKey>,
    ) -> Result<(), StoreError> {
        let mut before = match only {
            Some(key) => self.endpoints.remove_entry(&key).into_iter().collect(),
            None => std::mem::take(&mut self.endpoints),
        };
        for (key, row) in &before {
            self.unsubscribe(row.account, *key);
        }
        let mut statement = db.prepare_cached(
            "SELECT key, id, account, url, events, status, version, consecutive_failures, failing_since, \
             last_delivery_at, ordering, settings, credentials_key_id, credentials, EXISTS (SELECT 1 \
             FROM deliveries d WHERE d.turn = endpoints.key) AS has_fifo_order FROM endpoints \
             JOIN endpoint_totals ON endpoint = key \
             WHERE deleted_at IS NULL AND (?1 IS NULL OR key = ?1)",
        )?;
        let rows = statement.query_map([only.map(|key| key.0)], stored_row)?;
        for stored in rows {
            let StoredRow { mut endpoint, read, events, last_delivery_at, has_fifo_order } = stored?;
            let memory = before.remove(&endpoint.key).map(|row| row.memory);
            let memory = memory.unwrap_or_else(|| Arc::new(MemoryUse::of(endpoint.account)));
            let shown = self.view.committed_target(endpoint.key);
            let known = shown.as_ref().map(|target| &*target.delivery);
            let read = read.map_err(StoreError::from).and_then(|(health, ordering, settings)| {
                Ok((health, ordering == Ordering::Fifo, delivery_settings(&settings, known)?))
            });
            let read = readable(endpoint.id, read)?;
            let is_readable = read.is_some();
            let (health, is_fifo, delivery) = read.unwrap_or((EndpointHealth::NEW, false, DeliverySettings::default()));
            endpoint.delivery = Arc::new(delivery);
            memory.note_max_in_flight(endpoint.delivery.max_in_flight);
            endpoint.networks = self.accounts.get(&endpoint.account).and_then(|row| row.known.networks.clone());
            // What was committed with this version is in the view: opening secrets is nearly all that a reload costs.
            let shown = shown.filter(|target| target.version == endpoint.version);
            let target = match shown {
                _ if !is_readable => None,
                Some(shown) => Some(shown.with_networks(endpoint.networks.as_ref())),
                None => {
                    endpoint.secrets = secrets_of(db, endpoint.key)?;
                    shared.open_target(&endpoint).map(Arc::new)
                }
            };
            if let Some(account) = self.accounts.get_mut(&endpoint.account) {
                // Which events an endpoint wants is not known while its row cannot be read: it misses them all.
                let receives = endpoint.active && is_readable;
                let subscribers = if receives { &mut account.subscribers } else { &mut account.paused };
                for entry in &events {
                    subscribers.add(entry, endpoint.key);
                }
            }
            let account = endpoint.account;
            if endpoint.delivery.filter.is_some() {
                self.filtered.entry(account).or_default().insert(endpoint.key);
            }
            let has_fifo_order = has_fifo_order || is_fifo;
            let row = EndpointRow {
                account,
                health,
                memory,
                is_fifo,
                has_fifo_order,
                delivery: endpoint.delivery,
                last_delivery_at,
                deliveries_gone: 0,
                paused: false,
                target,
            };
            self.endpoints.insert(endpoint.key, row);
        }
        Ok(())
    }
}

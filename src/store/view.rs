//! What was last committed, in memory: for authentication, for the catalog, and for planning attempts.
//!
//! With SQLite it is the truth of the moment. With PostgreSQL it follows the database (`postgres/change_feed.rs`), and
//! what must be the truth asks the database first.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::HashMap;

use super::values::Target;
use crate::domain::account::{ApiKey, KeyHash};
use crate::domain::event::EventType;
use crate::domain::external_id::ExternalId;
use crate::domain::id::{AccountId, AccountKey, EndpointKey};
use crate::domain::network_rules::NetworkRules;
use crate::domain::time::Timestamp;
use crate::lock::RwLock;

/// What was last committed. Clones share it.
#[derive(Clone, Default)]
pub struct View {
    endpoints: Shared<HashMap<EndpointKey, Arc<Target>>>,
    keys: Shared<HashMap<KeyHash, Arc<ApiKey>>>,
    types: Shared<Arc<EventTypes>>,
    accounts: Shared<KnownAccounts>,
    cancelled: Shared<BTreeSet<i64>>,
    on_hold_since: Shared<Option<Timestamp>>,
}

type Shared<T> = Arc<RwLock<T>>;

/// The catalog by name.
pub type EventTypes = HashMap<String, EventType>;

/// What is known of an account.
#[derive(Clone, Default)]
pub(super) struct KnownAccount {
    pub external_id: Option<ExternalId>,
    /// Where its requests may go, where an operator has set something.
    pub networks: Option<Arc<NetworkRules>>,
}

/// The accounts that exist, and those that have an external id by theirs.
#[derive(Default)]
pub(super) struct KnownAccounts {
    known: HashMap<AccountId, KnownAccount>,
    by_external_id: HashMap<ExternalId, AccountId>,
}

impl KnownAccounts {
    /// The account exists, and this is known of it.
    pub fn add(&mut self, id: AccountId, account: KnownAccount) {
        self.remove(id);
        if let Some(external_id) = &account.external_id {
            self.by_external_id.insert(external_id.clone(), id);
        }
        self.known.insert(id, account);
    }

    fn remove(&mut self, id: AccountId) {
        // Another account may have the external id by now.
        if let Some(before) = self.known.remove(&id).and_then(|account| account.external_id)
            && self.by_external_id.get(&before) == Some(&id)
        {
            self.by_external_id.remove(&before);
        }
    }

    /// Where requests of the account may go, where an operator has set something.
    pub fn networks(&self, id: AccountId) -> Option<Arc<NetworkRules>> {
        self.known.get(&id)?.networks.clone()
    }
}

/// Cancelled replays that are remembered: their deliveries that are in memory are gone long before as many have come.
const MAX_CANCELLED: usize = 1_024;

/// Everything that a view shows, read at once.
#[derive(Default)]
pub(super) struct Whole {
    pub endpoints: HashMap<EndpointKey, Arc<Target>>,
    pub keys: HashMap<KeyHash, Arc<ApiKey>>,
    pub types: Arc<EventTypes>,
    pub accounts: KnownAccounts,
}

impl View {
    /// The endpoint's row as it was last committed; `None` when it is deleted, or cannot be used as it is stored. While
    /// deliveries are on hold, no endpoint is active.
    pub fn target(&self, endpoint: EndpointKey) -> Option<Arc<Target>> {
        let target = self.committed_target(endpoint)?;
        if target.active && self.on_hold_since().is_some() {
            return Some(Arc::new(Target { active: false, ..(*target).clone() }));
        }
        Some(target)
    }

    /// The same row, without regard to a hold.
    pub(super) fn committed_target(&self, endpoint: EndpointKey) -> Option<Arc<Target>> {
        read(&self.endpoints, |endpoints| endpoints.get(&endpoint).cloned())
    }

    /// The endpoints that receive deliveries: none while deliveries are on hold.
    pub fn active_endpoints(&self) -> Vec<EndpointKey> {
        self.endpoints_that(|target| target.active)
    }

    /// Those of them whose deliveries do not wait for a rate limit.
    pub(super) fn unlimited_endpoints(&self) -> Vec<EndpointKey> {
        self.endpoints_that(|target| target.active && target.delivery.rate_limit.is_none())
    }

    fn endpoints_that(&self, receive: impl Fn(&Target) -> bool) -> Vec<EndpointKey> {
        if self.on_hold_since().is_some() {
            return Vec::new();
        }
        read(&self.endpoints, |endpoints| {
            endpoints.iter().filter(|(_, target)| receive(target)).map(|(key, _)| *key).collect()
        })
    }

    /// Since when all deliveries are on hold; `None` if they are not.
    pub fn on_hold_since(&self) -> Option<Timestamp> {
        read(&self.on_hold_since, |since| *since)
    }

    /// The key with this hash, if it was not revoked.
    pub fn api_key(&self, hash: &KeyHash) -> Option<Arc<ApiKey>> {
        read(&self.keys, |keys| keys.get(hash).cloned())
    }

    /// Whether the account exists.
    pub fn has_account(&self, id: AccountId) -> bool {
        read(&self.accounts, |accounts| accounts.known.contains_key(&id))
    }

    /// Where requests of the account may go beside what the server's settings say. `None` where nothing is set.
    pub fn account_networks(&self, id: AccountId) -> Option<Arc<NetworkRules>> {
        read(&self.accounts, |accounts| accounts.networks(id))
    }

    /// The account with this external id.
    pub fn account_named(&self, external_id: &ExternalId) -> Option<AccountId> {
        read(&self.accounts, |accounts| accounts.by_external_id.get(external_id).copied())
    }

    /// Whether the replay was cancelled while this process runs.
    pub fn is_cancelled(&self, replay: i64) -> bool {
        read(&self.cancelled, |cancelled| cancelled.contains(&replay))
    }

    /// The catalog.
    pub fn event_types(&self) -> Arc<EventTypes> {
        read(&self.types, Arc::clone)
    }

    pub(super) fn show_endpoint(&self, key: EndpointKey, target: Option<Arc<Target>>) {
        change(&self.endpoints, |endpoints| match target {
            Some(target) => endpoints.insert(key, target),
            None => endpoints.remove(&key),
        });
    }

    pub(super) fn show_key(&self, hash: KeyHash, key: Option<Arc<ApiKey>>) {
        change(&self.keys, |keys| match key {
            Some(key) => keys.insert(hash, key),
            None => keys.remove(&hash),
        });
    }

    pub(super) fn show_account(&self, id: AccountId, account: KnownAccount) {
        change(&self.accounts, |accounts| accounts.add(id, account));
    }

    /// Shows the endpoints of an account with its rules of where requests may go.
    pub(super) fn show_networks(&self, account: AccountKey, networks: Option<&Arc<NetworkRules>>) {
        change(&self.endpoints, |endpoints| {
            for target in endpoints.values_mut().filter(|target| target.account == account) {
                *target = target.with_networks(networks);
            }
        });
    }

    pub(super) fn forget_account(&self, id: AccountId) {
        change(&self.accounts, |accounts| accounts.remove(id));
    }

    pub(super) fn show_types(&self, types: Arc<EventTypes>) {
        change(&self.types, |shown| *shown = types);
    }

    pub(super) fn show_cancelled(&self, replay: i64) {
        change(&self.cancelled, |cancelled| {
            cancelled.insert(replay);
            if cancelled.len() > MAX_CANCELLED {
                cancelled.pop_first();
            }
        });
    }

    pub(super) fn show_hold(&self, since: Option<Timestamp>) {
        change(&self.on_hold_since, |shown| *shown = since);
    }

    /// Shows this in place of everything but the cancelled replays and the hold.
    pub(super) fn show(&self, whole: Whole) {
        change(&self.endpoints, |endpoints| *endpoints = whole.endpoints);
        change(&self.keys, |keys| *keys = whole.keys);
        change(&self.types, |types| *types = whole.types);
        change(&self.accounts, |accounts| *accounts = whole.accounts);
    }
}

fn read<T, R>(shared: &Shared<T>, look: impl FnOnce(&T) -> R) -> R {
    look(&shared.read())
}

fn change<T, R>(shared: &Shared<T>, change: impl FnOnce(&mut T) -> R) -> R {
    change(&mut shared.write())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_external_id_that_has_moved_on_is_that_of_its_new_account() {
        let (first, second) = (AccountId::from_random([1; 16]), AccountId::from_random([2; 16]));
        let name = ExternalId::parse("a").expect("an external id");
        let named = || KnownAccount { external_id: Some(name.clone()), networks: None };
        let view = View::default();
        view.show_account(first, named());
        assert_eq!(view.account_named(&name), Some(first));
        // Two changes that are read together come in any order.
        view.show_account(second, named());
        view.show_account(first, KnownAccount::default());
        assert_eq!(view.account_named(&name), Some(second));
        view.forget_account(first);
        assert_eq!((view.account_named(&name), view.has_account(first)), (Some(second), false));
        view.forget_account(second);
        assert_eq!(view.account_named(&name), None);
    }
}

//! Who subscribes to what a batch of events holds, as the event writer has read it: it decides for each event which
//! endpoints it concerns, and which calls are refused. It reads nothing itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use crate::domain::event::NewEvent;
use crate::domain::id::{AccountId, AccountKey, EndpointKey};
use crate::domain::settings::DeliverySettings;
use crate::store::errors::StoreError;
use crate::store::filter_checks::{Checks, Filtered, Publishing};
use crate::store::values::ReplyScope;

/// Accounts and types whose subscribers are known.
const MAX_KNOWN: usize = 10_000;

/// What must be known before a batch can be planned.
pub(super) struct BatchNeeds {
    /// Accounts and types of events.
    pub events: BTreeSet<(AccountId, String)>,
    /// Idempotency keys that must not be taken.
    pub scopes: Vec<ReplyScope>,
}

impl BatchNeeds {
    /// The needs of a batch of these calls.
    pub fn of<'a>(batch: impl Iterator<Item = &'a Publishing> + Clone) -> Self {
        let all = batch.clone().flat_map(|call| &call.events);
        let events = all.map(|event| (event.account, event.event_type.clone())).collect();
        Self { events, scopes: batch.filter_map(|call| Some(call.pending_reply.as_ref()?.scope.clone())).collect() }
    }
}

/// Endpoints by account and type.
pub(super) type Subscribers = HashMap<(AccountId, String), Vec<EndpointKey>>;

/// Who subscribes, by account and type; and what refuses a request.
#[derive(Default)]
pub(super) struct FanOut {
    /// The last change when this was read.
    pub generation: i64,
    pub accounts: HashMap<AccountId, AccountKey>,
    pub types: HashSet<String>,
    pub active: Subscribers,
    pub paused: Subscribers,
    /// Settings of endpoints that have some.
    pub delivery: HashMap<EndpointKey, Arc<DeliverySettings>>,
    /// Whether one of them is a filter.
    pub has_filters: bool,
    pub taken: HashSet<ReplyScope>,
    /// FIFO endpoints.
    pub fifo: HashSet<EndpointKey>,
    /// The accounts and types for which it was read.
    pub read_for: HashSet<(AccountId, String)>,
}

impl FanOut {
    /// Whether a batch can be planned by this while that is the last change. A batch with keys asks for them anyway,
    /// and what is refused is refused by what was read for it.
    pub fn suffices(&self, needs: &BatchNeeds, generation: i64) -> bool {
        let known = |(account, name): &(AccountId, String)| {
            self.accounts.contains_key(account)
                && self.types.contains(name)
                && self.read_for.contains(&(*account, name.clone()))
        };
        self.generation == generation && needs.scopes.is_empty() && needs.events.iter().all(known)
    }

    /// This, and what was known before, where that still holds.
    pub fn with(mut self, known: Option<Self>) -> Self {
        if let Some(known) =
            known.filter(|known| known.generation == self.generation && known.read_for.len() < MAX_KNOWN)
        {
            self.accounts.extend(known.accounts);
            self.types.extend(known.types);
            self.active.extend(known.active);
            self.paused.extend(known.paused);
            self.delivery.extend(known.delivery);
            self.has_filters |= known.has_filters;
            self.fifo.extend(known.fifo);
            self.read_for.extend(known.read_for);
        }
        self
    }

    /// Those of these endpoints that the event concerns, by the checks that were made of it.
    pub fn recipients(
        &self,
        subscribers: &Subscribers,
        event: &NewEvent,
        checks: &Checks,
    ) -> impl Iterator<Item = EndpointKey> {
        let subscribed = subscribers.get(&(event.account, event.event_type.clone())).into_iter().flatten().copied();
        subscribed.filter(|key| self.delivery.get(key).is_none_or(|delivery| checks.admit(event, *key, delivery)))
    }

    /// The endpoints with filters, active or not, that subscribe to the type of an event.
    pub fn filtered(&self, event: &NewEvent) -> Vec<Filtered> {
        let whose = (event.account, event.event_type.clone());
        let subscribed = [&self.active, &self.paused].into_iter().filter_map(|subscribers| subscribers.get(&whose));
        let settings = |key: &EndpointKey| Some((*key, self.delivery.get(key)?.clone()));
        let subscribed = subscribed.flatten().filter_map(settings);
        subscribed.filter(|(_, settings)| settings.filter.is_some()).collect()
    }

    /// Whether the endpoint has a rate limit.
    pub fn is_rate_limited(&self, endpoint: EndpointKey) -> bool {
        self.delivery.get(&endpoint).is_some_and(|delivery| delivery.rate_limit.is_some())
    }

    /// Events and deliveries that a call comes to, which have ids, and missed events. Before it is checked, these are
    /// the most.
    pub fn rows_of(&self, call: &Publishing) -> (usize, usize) {
        let recipients = |subscribers| {
            let of_one = |(number, event)| self.recipients(subscribers, event, call.checks.of(number)).count();
            call.events.iter().enumerate().map(of_one).sum::<usize>()
        };
        (call.events.len() + recipients(&self.active), recipients(&self.paused))
    }

    /// Why a call with these events cannot be accepted.
    pub fn refusal(&self, events: &[NewEvent], scope: Option<&ReplyScope>) -> Option<StoreError> {
        for event in events {
            if !self.accounts.contains_key(&event.account) {
                return Some(StoreError::NotFound);
            }
            if !self.types.contains(&event.event_type) {
                return Some(StoreError::UnknownType(event.event_type.clone()));
            }
        }
        scope.filter(|scope| self.taken.contains(scope)).map(|_| StoreError::KeyTaken)
    }
}

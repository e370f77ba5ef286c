//! What each endpoint holds of this node's memory.

use std::sync::Arc;

use foldhash::HashMap;

use crate::domain::id::EndpointKey;
use crate::lock::Mutex;
use crate::store::inbox::MemoryUse;
use crate::store::values::Target;

/// What each endpoint holds of this node's memory.
#[derive(Clone, Default)]
pub(super) struct EndpointMemory(Arc<Mutex<HashMap<EndpointKey, Arc<MemoryUse>>>>);

impl EndpointMemory {
    /// What this endpoint holds, whose row is `target`.
    pub fn of(&self, endpoint: EndpointKey, target: &Target) -> Arc<MemoryUse> {
        let mut memory = self.0.lock();
        memory.entry(endpoint).or_insert_with(|| Arc::new(MemoryUse::of(target.account))).clone()
    }

    /// Notes what the endpoint's owner allows. It holds for those that have nothing in memory yet, too.
    pub fn note_max_in_flight(&self, endpoint: EndpointKey, target: &Target) {
        let most = target.delivery.max_in_flight;
        if most.is_some() {
            self.of(endpoint, target).note_max_in_flight(most);
        } else if let Some(known) = self.0.lock().get(&endpoint) {
            known.note_max_in_flight(None);
        }
    }

    pub fn forget(&self, endpoint: EndpointKey) {
        self.0.lock().remove(&endpoint);
    }
}

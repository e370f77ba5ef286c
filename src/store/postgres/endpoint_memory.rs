//! What each endpoint holds of this node's memory.

use std::sync::Arc;

use foldhash::HashMap;

use crate::domain::id::EndpointKey;
use crate::lock::Mutex;
use crate::store::inbox::MemoryUse;

/// What each endpoint holds of this node's memory.
#[derive(Clone, Default)]
pub(super) struct EndpointMemory(Arc<Mutex<HashMap<EndpointKey, Arc<MemoryUse>>>>);

impl EndpointMemory {
    pub fn of(&self, endpoint: EndpointKey) -> Arc<MemoryUse> {
        self.0.lock().entry(endpoint).or_default().clone()
    }

    /// Notes what the endpoint's owner allows. It holds for those that have nothing in memory yet, too.
    pub fn note_max_in_flight(&self, endpoint: EndpointKey, most: Option<usize>) {
        let mut memory = self.0.lock();
        if most.is_some() {
            memory.entry(endpoint).or_default().note_max_in_flight(most);
        } else if let Some(known) = memory.get(&endpoint) {
            known.note_max_in_flight(None);
        }
    }

    pub fn forget(&self, endpoint: EndpointKey) {
        self.0.lock().remove(&endpoint);
    }
}

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

    pub fn forget(&self, endpoint: EndpointKey) {
        self.0.lock().remove(&endpoint);
    }
}

//! Bounds on how many things run at once, in all and for one owner.

use std::hash::Hash;
use std::sync::Arc;

use foldhash::HashMap;

use crate::lock::Mutex;

/// Counts what is under way.
pub struct Slots<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K> Default for Slots<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Copy + Eq + Hash> Slots<K> {
    /// A slot, if fewer than `most` are taken in all and by this owner.
    pub fn take(&self, owner: K, most: (usize, usize)) -> Option<Slot<K>> {
        let mut taken = self.0.lock();
        let of_owner = taken.get(&owner).copied().unwrap_or(0);
        if taken.values().sum::<usize>() >= most.0 || of_owner >= most.1 {
            return None;
        }
        taken.insert(owner, of_owner + 1);
        Some(Slot(self.0.clone(), owner))
    }
}

/// A slot, returned when it is dropped.
pub struct Slot<K: Copy + Eq + Hash>(Arc<Mutex<HashMap<K, usize>>>, K);

impl<K: Copy + Eq + Hash> Drop for Slot<K> {
    fn drop(&mut self) {
        let mut taken = self.0.lock();
        match taken.get_mut(&self.1) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.1)),
        }
    }
}

//! Permits with a share for each owner: a bound over all that no owner can use up alone.
//!
//! An owner may take a permit while it has fewer than are free.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::{Arc, MutexGuard};

use foldhash::HashMap;
use tokio::sync::oneshot;

use crate::lock::Mutex;

/// So many permits in all, shared by owners.
///
/// An owner gets a permit while it has fewer than are free: one owner gets half of all, the next one half of the rest.
/// An owner without a permit gets one until the last is taken. The number of owners need not be known. Clones share
/// the permits.
#[derive(Clone)]
pub struct Permits<K: Copy + Eq + Hash>(Arc<Mutex<State<K>>>);

struct State<K: Copy + Eq + Hash> {
    free: usize,
    taken: HashMap<K, usize>,
    /// Those that wait, the first one first. Callers bound their number.
    waiting: VecDeque<(K, oneshot::Sender<Permit<K>>)>,
}

impl<K: Copy + Eq + Hash> State<K> {
    fn admits(&self, owner: K) -> bool {
        self.taken.get(&owner).copied().unwrap_or(0) < self.free
    }

    fn take(&mut self, owner: K) {
        debug_assert!(self.admits(owner), "a permit is given within the owner's share only");
        self.free -= 1;
        *self.taken.entry(owner).or_default() += 1;
    }

    fn give_back(&mut self, owner: K) {
        debug_assert!(self.taken.contains_key(&owner), "a permit is given back once");
        self.free += 1;
        match self.taken.get_mut(&owner) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.taken.remove(&owner)),
        }
    }

    /// The first that waits and may have a permit, with the permit counted.
    fn next(&mut self) -> Option<(K, oneshot::Sender<Permit<K>>)> {
        self.waiting.retain(|(_, waiter)| !waiter.is_closed());
        let index = self.waiting.iter().position(|(owner, _)| self.admits(*owner))?;
        let (owner, waiter) = self.waiting.remove(index)?;
        self.take(owner);
        Some((owner, waiter))
    }
}

impl<K: Copy + Eq + Hash> Permits<K> {
    /// So many in all.
    pub fn new(total: usize) -> Self {
        Self(Arc::new(Mutex::new(State { free: total, taken: HashMap::default(), waiting: VecDeque::new() })))
    }

    /// A permit, if the owner's share has one left.
    pub fn try_take(&self, owner: K) -> Option<Permit<K>> {
        let mut state = lock(&self.0);
        if !state.admits(owner) {
            return None;
        }
        state.take(owner);
        Some(Permit { permits: self.0.clone(), owner })
    }

    /// A permit as soon as the owner's share has one. Of one owner, who has waited longest is served first.
    pub async fn take(&self, owner: K) -> Permit<K> {
        loop {
            let (given, may_be_given) = {
                let mut state = lock(&self.0);
                if state.admits(owner) && !state.waiting.iter().any(|(waits, _)| *waits == owner) {
                    state.take(owner);
                    return Permit { permits: self.0.clone(), owner };
                }
                let (waiter, given) = oneshot::channel();
                state.waiting.push_back((owner, waiter));
                (given, state.admits(owner))
            };
            // The one that waits before this may have gone.
            if may_be_given {
                give(&self.0);
            }
            if let Ok(permit) = given.await {
                return permit;
            }
        }
    }
}

/// A permit, given back when it is dropped.
pub struct Permit<K: Copy + Eq + Hash> {
    permits: Arc<Mutex<State<K>>>,
    owner: K,
}

impl<K: Copy + Eq + Hash> Drop for Permit<K> {
    fn drop(&mut self) {
        lock(&self.permits).give_back(self.owner);
        give(&self.permits);
    }
}

/// Gives what is free to those that wait.
fn give<K: Copy + Eq + Hash>(permits: &Arc<Mutex<State<K>>>) {
    loop {
        let Some((owner, waiter)) = lock(permits).next() else { return };
        // A waiter that has gone drops the permit, which goes to the next.
        let _ = waiter.send(Permit { permits: permits.clone(), owner });
    }
}

fn lock<K: Copy + Eq + Hash>(permits: &Mutex<State<K>>) -> MutexGuard<'_, State<K>> {
    permits.lock()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// As many as the owner gets now.
    fn take_all(permits: &Permits<u8>, owner: u8) -> Vec<Permit<u8>> {
        std::iter::from_fn(|| permits.try_take(owner)).collect()
    }

    #[test]
    fn an_owner_gets_half_of_what_is_left_and_whoever_has_none_gets_one() {
        let permits = Permits::new(32);
        let greedy: Vec<_> = (0..5).map(|owner| take_all(&permits, owner)).collect();
        assert_eq!(greedy.iter().map(Vec::len).collect::<Vec<_>>(), [16, 8, 4, 2, 1]);
        let last = permits.try_take(9);
        assert!(last.is_some(), "one is left for somebody who has none");
        assert!(permits.try_take(10).is_none(), "the bound over all holds");
        drop((greedy, last));
        assert_eq!(take_all(&permits, 9).len(), 16, "all came back");
    }

    #[test]
    fn one_permit_in_all_can_be_taken() {
        let permits = Permits::new(1);
        let one = permits.try_take(0);
        assert!(one.is_some() && permits.try_take(1).is_none());
    }

    #[tokio::test]
    async fn who_waits_for_its_own_share_does_not_hold_up_another_owner() {
        let permits = Arc::new(Permits::new(8));
        let mut greedy = take_all(&permits, 0);
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let permits = permits.clone();
                tokio::spawn(async move { permits.take(0).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let other = tokio::time::timeout(Duration::from_secs(5), permits.take(1)).await.expect("at once");
        assert!(waiting.iter().all(|waits| !waits.is_finished()));
        drop(other);
        greedy.pop();
        tokio::time::timeout(Duration::from_secs(5), async {
            while !waiting.iter().any(tokio::task::JoinHandle::is_finished) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("a permit that came back goes to who waits");
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
        for waits in waiting {
            drop(waits.await);
        }
        drop(greedy);
        assert_eq!(take_all(&permits, 0).len(), 4, "who went while it waited holds none");
    }
}

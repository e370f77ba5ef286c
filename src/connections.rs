//! The connections of clients: how many there may be in all and from one address, and which one is closed for the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::api::Network;
use crate::lock::Mutex;

/// The time between two requests to close a connection for the next one.
const EVICT_AGAIN: Duration = Duration::from_millis(20);

/// When all connections are taken, one whose client has taken no byte of its answer for this long is closed. Otherwise
/// it has the server's whole write timeout.
const STALLED_AFTER: Duration = Duration::from_secs(2);

/// What a connection does at the moment. Its task and the list of connections share it.
pub struct Activity {
    opened: Instant,
    /// Counts the beginnings and ends of requests: it is odd while one is under way.
    requests: AtomicU64,
    /// Since when bytes of an answer wait for the client: milliseconds after `opened`, and one more; 0 while none wait.
    writing_since: AtomicU64,
    /// Notified when the connection has to close for another one.
    make_room: Notify,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            opened: Instant::now(),
            requests: AtomicU64::new(0),
            writing_since: AtomicU64::new(0),
            make_room: Notify::new(),
        }
    }
}

impl Activity {
    /// A request begins. It ends when what is returned is dropped.
    pub fn begin(self: &Arc<Self>) -> UnderWay {
        self.requests.fetch_add(1, Ordering::AcqRel);
        UnderWay(self.clone())
    }

    /// How many requests have ended; `None` while one is under way.
    pub fn ended(&self) -> Option<u64> {
        let requests = self.requests.load(Ordering::Acquire);
        requests.is_multiple_of(2).then_some(requests / 2)
    }

    /// Says whether bytes of an answer wait for the client.
    pub fn set_writing(&self, is_writing: bool) {
        if (self.writing_since.load(Ordering::Relaxed) != 0) != is_writing {
            let since = if is_writing { self.age_ms() + 1 } else { 0 };
            self.writing_since.store(since, Ordering::Release);
        }
    }

    /// Whether nothing is under way: the next head, or the rest of one, has yet to come.
    pub fn is_waiting(&self) -> bool {
        self.ended().is_some() && self.writing_since.load(Ordering::Acquire) == 0
    }

    /// Whether the client has taken no byte of its answer for a while.
    fn is_stalled(&self) -> bool {
        let since = self.writing_since.load(Ordering::Acquire);
        since != 0 && Duration::from_millis((self.age_ms() + 1).saturating_sub(since)) >= STALLED_AFTER
    }

    /// Whether the connection may be closed for the next one.
    pub fn may_make_room(&self) -> bool {
        self.is_waiting() || self.is_stalled()
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).expect("less than 500 million years")
    }

    /// Resolves when the connection has to close for another one.
    pub async fn asked_to_make_room(&self) {
        self.make_room.notified().await;
    }
}

/// A request that is under way.
pub struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.requests.fetch_add(1, Ordering::AcqRel);
    }
}

/// All connections.
#[derive(Clone)]
pub struct Connections(Arc<Inner>);

struct Inner {
    permits: Arc<Semaphore>,
    per_network: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// In the order in which they came.
    connections: BTreeMap<u64, (Option<Network>, Arc<Activity>)>,
    of_network: HashMap<Network, usize>,
}

impl Connections {
    /// None yet; at most `most` in all and `per_network` of one network.
    pub fn new(most: usize, per_network: usize) -> Self {
        let permits = Arc::new(Semaphore::new(most));
        Self(Arc::new(Inner { permits, per_network, open: Mutex::default() }))
    }

    /// Registers a connection. `None` where its network has as many as it may have; a connection without a network is
    /// not counted by it.
    pub fn register(&self, network: Option<Network>) -> Option<RegisteredConnection> {
        let mut open = self.0.open.lock();
        if let Some(network) = network {
            let count = open.of_network.entry(network).or_default();
            if *count >= self.0.per_network {
                return None;
            }
            *count += 1;
        }
        let id = open.next;
        open.next += 1;
        let activity = Arc::new(Activity::default());
        open.connections.insert(id, (network, activity.clone()));
        Some(RegisteredConnection { connections: self.clone(), id, activity, permit: None })
    }

    /// Asks a connection to close for the next one: of those that wait for a head, the oldest of the network with the
    /// most connections, else the oldest of all. Where none waits, the same among those whose client takes nothing of
    /// its answer.
    fn ask_for_room(&self) {
        let open = self.0.open.lock();
        let largest = open.of_network.iter().max_by_key(|(_, count)| **count).map(|(network, _)| *network);
        let oldest = |may: fn(&Activity) -> bool| {
            let those = || open.connections.values().filter(|(_, activity)| may(activity));
            those().find(|(network, _)| *network == largest).or_else(|| those().next())
        };
        if let Some((_, activity)) = oldest(Activity::is_waiting).or_else(|| oldest(Activity::is_stalled)) {
            activity.make_room.notify_one();
        }
    }
}

/// A connection that is counted until it is dropped.
pub struct RegisteredConnection {
    connections: Connections,
    id: u64,
    /// What it does.
    pub activity: Arc<Activity>,
    permit: Option<OwnedSemaphorePermit>,
}

impl RegisteredConnection {
    /// Waits for a permit among all connections. Connections that only wait for a head are closed for it.
    pub async fn admitted(mut self) -> Self {
        let permits = self.connections.0.permits.clone();
        // It must not be asked to close itself.
        let busy = self.activity.begin();
        while self.permit.is_none() {
            self.permit = permits.clone().try_acquire_owned().ok();
            if self.permit.is_none() {
                self.connections.ask_for_room();
                let acquired = tokio::time::timeout(EVICT_AGAIN, permits.clone().acquire_owned()).await;
                self.permit = acquired.ok().and_then(Result::ok);
            }
        }
        drop(busy);
        self
    }
}

impl Drop for RegisteredConnection {
    fn drop(&mut self) {
        let mut open = self.connections.0.open.lock();
        let Some((Some(network), _)) = open.connections.remove(&self.id) else { return };
        match open.of_network.get_mut(&network) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.of_network.remove(&network)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn register(connections: &Connections, address: &str) -> Option<RegisteredConnection> {
        connections.register(Some(Network::of(address.parse::<IpAddr>().expect("an address"))))
    }

    #[test]
    fn a_network_has_its_number_and_one_customer_of_ipv6_is_one_network() {
        let connections = Connections::new(100, 2);
        let first = register(&connections, "203.0.113.7").expect("room");
        let _second = register(&connections, "::ffff:203.0.113.7").expect("room");
        assert!(register(&connections, "203.0.113.7").is_none());
        assert!(register(&connections, "203.0.113.8").is_some());
        drop(first);
        assert!(register(&connections, "203.0.113.7").is_some());
        let _customer = ["2001:db8:0:1::1", "2001:db8:0:1::2"].map(|address| register(&connections, address));
        assert!(register(&connections, "2001:db8:0:1:ffff::3").is_none());
        assert!(register(&connections, "2001:db8:0:2::1").is_some());
        let _proxy: Vec<_> = (0..10).map(|_| connections.register(None).expect("it is not counted")).collect();
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_are_taken_the_oldest_of_the_greediest_network_that_only_waits_makes_room() {
        let connections = Connections::new(4, 3);
        let mut registered = Vec::new();
        for address in ["203.0.113.1", "203.0.113.2", "203.0.113.2", "203.0.113.2"] {
            registered.push(register(&connections, address).expect("room").admitted().await);
        }
        let _busy = registered[1].activity.begin();
        let asked = registered[2].activity.clone();
        let evicted = registered.remove(2);
        let leaving = tokio::spawn(async move {
            asked.asked_to_make_room().await;
            drop(evicted);
        });
        let next = register(&connections, "203.0.113.9").expect("room").admitted().await;
        leaving.await.expect("the oldest that waits was asked");
        assert!(next.permit.is_some() && next.activity.is_waiting());
    }

    /// Clients that never read held all connections until the write timeout.
    #[tokio::test(start_paused = true)]
    async fn where_no_connection_waits_one_whose_client_takes_nothing_makes_room_after_a_while() {
        let connections = Connections::new(2, 2);
        let busy = register(&connections, "203.0.113.1").expect("room").admitted().await;
        let _under_way = busy.activity.begin();
        let stalled = register(&connections, "203.0.113.2").expect("room").admitted().await;
        stalled.activity.set_writing(true);
        let asked = stalled.activity.clone();
        let leaving = tokio::spawn(async move {
            asked.asked_to_make_room().await;
            assert!(asked.may_make_room());
            drop(stalled);
        });
        let began = Instant::now();
        let _next = register(&connections, "203.0.113.9").expect("room").admitted().await;
        assert!((STALLED_AFTER..STALLED_AFTER * 2).contains(&began.elapsed()), "{:?}", began.elapsed());
        leaving.await.expect("it was asked");
    }
}

//! The connections of clients: how many there may be in all and from one network, and which one is closed for the next.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use foldhash::HashMap;
use ipnet::IpNet;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::api::{Network, site};
use crate::lock::Mutex;

/// One in so many connections may wait until it is served: a few, which the next ones can always take.
const WAITING_PART: usize = 16;

/// The time between two requests to close a connection for the next one.
const EVICTION_INTERVAL: Duration = Duration::from_millis(20);

/// When all connections are taken, one whose client has taken no byte of its answer for this long is closed. Otherwise
/// it has the server's whole write timeout. The same holds for a client that is behind with its body by this long.
const STALLED_AFTER: Duration = Duration::from_secs(2);

/// Bytes of a body that a client sends in a millisecond at least: 4 KB in a second, less than any network carries. All
/// connections at this rate take 40 MB/s.
const LEAST_BYTES_PER_MS: u64 = 4;

/// How long the next connection waits until it is served. Longer than [`STALLED_AFTER`]: after that, clients that are
/// slow on purpose have to make room.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(3);

/// What a connection does at the moment. Its task and the list of connections share it.
pub struct Activity {
    opened: Instant,
    /// Counts the beginnings and ends of requests: it is odd while one is under way.
    requests: AtomicU64,
    /// Since when bytes of an answer wait for the client: milliseconds after `opened`, and one more; 0 while none wait.
    writing_since: AtomicU64,
    /// Since when the body of a request is awaited, in the same way. What comes of the body moves it on.
    body_since: AtomicU64,
    /// Notified when the connection has to close for another one.
    make_room: Notify,
    /// Whether it was asked to, and has not looked yet.
    is_asked: AtomicBool,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            opened: Instant::now(),
            requests: AtomicU64::new(0),
            writing_since: AtomicU64::new(0),
            body_since: AtomicU64::new(0),
            make_room: Notify::new(),
            is_asked: AtomicBool::new(false),
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

    /// The body of the request is awaited, from the first call on.
    pub fn await_body(&self) {
        if self.body_since.load(Ordering::Relaxed) == 0 {
            self.body_since.store(self.age_ms() + 1, Ordering::Release);
        }
    }

    /// Bytes of the awaited body have come: their client may take the time that they take at the least rate.
    pub fn body_came(&self, bytes: usize) {
        let since = self.body_since.load(Ordering::Relaxed);
        if since != 0 {
            let moved = since + bytes as u64 / LEAST_BYTES_PER_MS;
            self.body_since.store(moved.min(self.age_ms() + 1), Ordering::Release);
        }
    }

    /// The body has come, or nobody wants it any more.
    pub fn body_ended(&self) {
        self.body_since.store(0, Ordering::Release);
    }

    /// Whether nothing is under way: the next head, or the rest of one, has yet to come.
    pub fn is_waiting(&self) -> bool {
        self.ended().is_some() && self.writing_since.load(Ordering::Acquire) == 0
    }

    /// Whether the client has taken no byte of its answer for a while, or sends its body too slowly.
    fn is_stalled(&self) -> bool {
        [&self.writing_since, &self.body_since].into_iter().any(|since| {
            let since = since.load(Ordering::Acquire);
            since != 0 && Duration::from_millis((self.age_ms() + 1).saturating_sub(since)) >= STALLED_AFTER
        })
    }

    /// Whether the connection may be closed for the next one.
    pub fn may_make_room(&self) -> bool {
        self.is_waiting() || self.is_stalled()
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).expect("less than 500 million years")
    }

    fn ask_to_make_room(&self) {
        self.is_asked.store(true, Ordering::Release);
        self.make_room.notify_one();
    }

    /// Resolves when the connection has to close for another one.
    pub async fn asked_to_make_room(&self) {
        self.make_room.notified().await;
        self.is_asked.store(false, Ordering::Release);
    }
}

/// A request that is under way.
pub struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.requests.fetch_add(1, Ordering::AcqRel);
    }
}

/// Whether a connection may be closed.
type Condition = fn(&Activity) -> bool;

/// Which connection is closed first: of the site with the most connections (`true`) or of any site, one that waits for
/// a head or one that is stalled. A few sites with slow clients cost others none of theirs.
const EVICTION_ORDER: [(bool, Condition); 4] = [
    (true, Activity::is_waiting),
    (true, Activity::is_stalled),
    (false, Activity::is_waiting),
    (false, Activity::is_stalled),
];

/// All connections.
#[derive(Clone)]
pub struct Connections(Arc<Inner>);

struct Inner {
    /// With those that wait until they are served.
    most: usize,
    per_network: AtomicUsize,
    /// One for each connection that is served.
    permits: Arc<Semaphore>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// In the order in which they came.
    connections: BTreeMap<u64, Connection>,
    of_network: HashMap<Network, usize>,
    of_site: HashMap<IpNet, usize>,
    /// When no connection was found that could be closed.
    searched_in_vain_at: Option<Instant>,
}

struct Connection {
    /// `None` is a trusted proxy.
    from: Option<(Network, IpNet)>,
    activity: Arc<Activity>,
}

impl Connections {
    /// None yet; at most `most` in all and `per_network` of one network.
    pub fn new(most: usize, per_network: usize) -> Self {
        let served = (most - most.div_ceil(WAITING_PART)).max(1);
        let permits = Arc::new(Semaphore::new(served));
        let per_network = AtomicUsize::new(per_network);
        Self(Arc::new(Inner { most, per_network, permits, open: Mutex::default() }))
    }

    /// From here on a network gets no connection beyond this number.
    pub fn set_per_network(&self, per_network: usize) {
        self.0.per_network.store(per_network, Ordering::Relaxed);
    }

    /// Registers a connection from an address. `None` where its network has as many as it may have, or its site (an
    /// IPv4 /24 or IPv6 /48) as many as are free. One without an address takes any that is free.
    pub fn register(&self, address: Option<IpAddr>) -> Option<RegisteredConnection> {
        let from = address.and_then(|address| Some((Network::of(address), site(Some(address))?)));
        let mut open = self.0.open.lock();
        debug_assert!(open.connections.len() <= self.0.most, "no more connections than the bound");
        let free = self.0.most - open.connections.len();
        if free == 0 {
            return None;
        }
        if let Some((network, site)) = from {
            let of_network = open.of_network.get(&network).copied().unwrap_or(0);
            let of_site = open.of_site.get(&site).copied().unwrap_or(0);
            if of_network >= self.0.per_network.load(Ordering::Relaxed) || of_site >= free {
                return None;
            }
            open.of_network.insert(network, of_network + 1);
            open.of_site.insert(site, of_site + 1);
        }
        let id = open.next;
        open.next += 1;
        let activity = Arc::new(Activity::default());
        // While it waits it must not be asked to close itself.
        let waiting = Some(activity.begin());
        open.connections.insert(id, Connection { from, activity: activity.clone() });
        Some(RegisteredConnection { connections: self.clone(), id, activity, waiting, permit: None })
    }

    /// A permit, for which other connections are closed; `None` where none becomes free in time.
    async fn permit_in_time(&self) -> Option<OwnedSemaphorePermit> {
        let given_up_at = Instant::now() + ADMISSION_TIMEOUT;
        let mut acquired = pin!(self.0.permits.clone().acquire_owned());
        while Instant::now() < given_up_at {
            self.ask_for_room();
            if let Ok(permit) = tokio::time::timeout(EVICTION_INTERVAL, acquired.as_mut()).await {
                return permit.ok();
            }
        }
        None
    }

    /// Asks a connection to close for the next one: the oldest of the first kind of [`EVICTION_ORDER`] that there is.
    fn ask_for_room(&self) {
        let mut guard = self.0.open.lock();
        let (open, now) = (&mut *guard, Instant::now());
        // A search that finds nothing has looked at each, and all that wait would repeat it.
        if open.searched_in_vain_at.is_some_and(|at| now - at < EVICTION_INTERVAL) {
            return;
        }
        let largest = open.of_site.iter().max_by_key(|(_, count)| **count).map(|(site, _)| *site);
        let found = EVICTION_ORDER.into_iter().find_map(|(of_largest, may)| {
            open.connections.values().find(|Connection { from, activity }| {
                let is_of_site = !of_largest || from.map(|(_, site)| site) == largest;
                is_of_site && !activity.is_asked.load(Ordering::Acquire) && may(activity)
            })
        });
        match found {
            Some(connection) => connection.activity.ask_to_make_room(),
            None => open.searched_in_vain_at = Some(now),
        }
    }
}

/// A connection that is counted until it is dropped.
pub struct RegisteredConnection {
    connections: Connections,
    id: u64,
    /// What it does.
    pub activity: Arc<Activity>,
    /// Until it is served.
    waiting: Option<UnderWay>,
    permit: Option<OwnedSemaphorePermit>,
}

impl RegisteredConnection {
    /// Waits until it may be served. Connections that hold up others are closed for it. `None` where that takes too
    /// long.
    pub async fn admitted(mut self) -> Option<Self> {
        let at_once = self.connections.0.permits.clone().try_acquire_owned().ok();
        let permit = match at_once {
            Some(permit) => permit,
            // In a box: few connections wait, and each would have its size for as long as it is open.
            None => Box::pin(self.connections.permit_in_time()).await?,
        };
        self.permit = Some(permit);
        self.waiting = None;
        Some(self)
    }
}

impl Drop for RegisteredConnection {
    fn drop(&mut self) {
        let mut open = self.connections.0.open.lock();
        let removed = open.connections.remove(&self.id);
        if let Some((network, site)) = removed.and_then(|connection| connection.from) {
            leave(&mut open.of_network, network);
            leave(&mut open.of_site, site);
        }
    }
}

/// Counts one less.
fn leave<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K) {
    match counts.get_mut(&key) {
        Some(count) if *count > 1 => *count -= 1,
        _ => drop(counts.remove(&key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(connections: &Connections, address: &str) -> Option<RegisteredConnection> {
        connections.register(Some(address.parse().expect("an address")))
    }

    async fn served(connections: &Connections, address: &str) -> RegisteredConnection {
        register(connections, address).expect("room").admitted().await.expect("in time")
    }

    /// As many as these addresses get.
    fn register_all(connections: &Connections, address: impl Fn(usize) -> String) -> Vec<RegisteredConnection> {
        (0..20).map_while(|n| register(connections, &address(n))).collect()
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
        connections.set_per_network(3);
        assert!(register(&connections, "2001:db8:0:1:ffff::3").is_some());
        let _proxy: Vec<_> = (0..10).map(|_| connections.register(None).expect("it is not counted")).collect();
    }

    #[test]
    fn the_addresses_of_a_site_have_as_many_as_are_free_and_whoever_has_none_gets_the_last() {
        let connections = Connections::new(16, 16);
        let ipv4 = register_all(&connections, |n| format!("203.0.113.{n}"));
        let ipv6 = register_all(&connections, |n| format!("2001:db8:7:{n}::1"));
        let third = register_all(&connections, |n| format!("198.51.100.{n}"));
        let fourth = register_all(&connections, |n| format!("192.0.2.{n}"));
        assert_eq!([&ipv4, &ipv6, &third, &fourth].map(Vec::len), [8, 4, 2, 1]);
        let last = register(&connections, "100.64.0.1");
        assert!(last.is_some() && register(&connections, "100.64.1.1").is_none());
        assert!(connections.register(None).is_none(), "a proxy has no more than there are");
        drop((ipv4, ipv6, third, fourth, last));
        assert_eq!(register_all(&connections, |n| format!("203.0.113.{n}")).len(), 8, "all came back");
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_are_taken_the_oldest_of_the_greediest_site_that_only_waits_makes_room() {
        let connections = Connections::new(16, 16);
        let mut taken = vec![served(&connections, "192.0.2.1").await];
        for n in 0..7 {
            taken.push(served(&connections, &format!("203.0.113.{n}")).await);
        }
        for address in ["198.51.100.1", "198.51.100.2", "198.51.100.3", "192.0.2.2", "192.0.2.3", "100.64.0.1"] {
            taken.push(served(&connections, address).await);
        }
        taken.push(served(&connections, "100.64.1.1").await);
        let _busy = taken[1].activity.begin();
        let asked = taken[2].activity.clone();
        let evicted = taken.remove(2);
        let leaving = tokio::spawn(async move {
            asked.asked_to_make_room().await;
            assert!(asked.may_make_room());
            drop(evicted);
        });
        let next = served(&connections, "100.64.2.1").await;
        leaving.await.expect("the oldest that waits was asked");
        assert!(next.permit.is_some() && next.activity.is_waiting());
    }

    /// Clients that never read, or that sent a byte now and then, kept all connections until the timeouts.
    #[tokio::test(start_paused = true)]
    async fn where_none_waits_one_whose_client_takes_nothing_or_sends_too_slowly_makes_room_after_a_while() {
        for drips in [false, true] {
            let connections = Connections::new(4, 4);
            let busy = served(&connections, "203.0.113.1").await;
            let steady = served(&connections, "198.51.100.1").await;
            let stalled = served(&connections, "192.0.2.1").await;
            let _under_way = [&busy, &steady, &stalled].map(|one| one.activity.begin());
            steady.activity.await_body();
            if drips {
                stalled.activity.await_body();
            } else {
                stalled.activity.set_writing(true);
            }
            let sending = [steady.activity.clone(), stalled.activity.clone()];
            let sending = tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    sending[0].body_came(1_000);
                    sending[1].body_came(1);
                }
            });
            let asked = stalled.activity.clone();
            let leaving = tokio::spawn(async move {
                asked.asked_to_make_room().await;
                assert!(asked.may_make_room());
                drop(stalled);
            });
            let began = Instant::now();
            let _next = served(&connections, "100.64.0.1").await;
            assert!((STALLED_AFTER..ADMISSION_TIMEOUT).contains(&began.elapsed()), "{:?}", began.elapsed());
            leaving.await.expect("it was asked");
            assert!(!steady.activity.may_make_room());
            sending.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_makes_room_the_next_one_is_refused_after_a_while() {
        let connections = Connections::new(2, 2);
        let busy = served(&connections, "203.0.113.1").await;
        let _under_way = busy.activity.begin();
        busy.activity.await_body();
        busy.activity.body_ended();
        let next = register(&connections, "198.51.100.1").expect("it may wait");
        assert!(register(&connections, "192.0.2.1").is_none(), "no more than one waits");
        let began = Instant::now();
        assert!(next.admitted().await.is_none());
        assert!((ADMISSION_TIMEOUT..ADMISSION_TIMEOUT * 2).contains(&began.elapsed()), "{:?}", began.elapsed());
        assert!(register(&connections, "198.51.100.1").is_some(), "its place is free again");
    }
}

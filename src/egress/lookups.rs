//! Look-ups of names: bounds on those under way, and a cache of their answers.
//!
//! Checks for clients and look-ups for attempts have a bound each, with a share for each account (`permits`). Equal
//! names under way are one look-up. An answer is cached as long as its records say, within bounds. A look-up that
//! nothing waits for ends and returns its permit.

use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, MutexGuard, Weak};
use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::deadline::within;
use super::fault::LocalFault;
use super::guard::{Lookup, LookupError, LookupOwner, OnBegin, Resolver};
use crate::lock::Mutex;
use crate::permits::{Permit, Permits};

/// Look-ups at once for checks of URLs. With attempts together, at most 128 hang: each holds up to six sockets (packets
/// sent again, for two address families), of the file descriptors that clients leave to the server.
const MAX_CHECKS: usize = 32;

/// Look-ups at once for attempts.
const MAX_ATTEMPTS: usize = 96;

/// A check that has not begun after this long is refused, and its client tries again. Long enough for a client that
/// registers many endpoints at once, with names that are answered.
const MAX_CHECK_WAIT: Duration = Duration::from_millis(500);

/// A look-up that has not begun after this long is not made. It is half of an attempt's usual time: meanwhile the
/// attempt holds a permit that another endpoint could use.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The longest look-up: two rounds of questions, and a little.
const MAX_LOOKUP: Duration = Duration::from_secs(7);

/// The longest time for which an answer is cached, whatever its records say: a receiver may move at any time.
const MAX_TTL: Duration = Duration::from_secs(60);

/// The same for an answer without addresses: its owner may be about to add the record.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(5);

/// Names whose answers are cached. An entry has a name of 253 bytes and 32 addresses at most: about 4 MiB in all.
const MAX_CACHED: usize = 4_096;

/// How often those that are no longer valid are looked for where the cache is full: it takes a look at each.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Its addresses; none mean that it leads nowhere.
    pub addresses: Vec<IpAddr>,
    /// For how long that may be relied on.
    pub ttl: Duration,
}

/// A look-up under way, which ends when this is dropped.
pub type QueryFuture<'a> = Pin<Box<dyn Future<Output = Result<Addresses, LookupError>> + Send + 'a>>;

/// A source of the addresses of names.
pub trait NameSource: Send + Sync + 'static {
    /// Asks for the addresses of a name.
    fn look_up<'a>(&'a self, name: &'a str) -> QueryFuture<'a>;
}

type Answer = Result<Vec<IpAddr>, LookupError>;

/// `None` while the look-up is under way.
type Pending = watch::Sender<Option<Answer>>;

/// The resolver of a server. Clones share everything.
#[derive(Clone)]
pub struct Lookups(Arc<Inner>);

struct Inner {
    source: Box<dyn NameSource>,
    checks: Permits<LookupOwner>,
    attempts: Permits<LookupOwner>,
    names: Mutex<NameCache>,
}

#[derive(Default)]
struct NameCache {
    /// Weak, so that a look-up that panicked leaves nobody waiting for it.
    under_way: HashMap<String, Weak<Pending>>,
    cached: HashMap<String, (Vec<IpAddr>, Instant)>,
    swept_at: Option<Instant>,
}

impl NameCache {
    fn get(&self, name: &str, now: Instant) -> Option<Vec<IpAddr>> {
        self.cached.get(name).filter(|(_, valid_until)| now < *valid_until).map(|(addresses, _)| addresses.clone())
    }

    fn insert(&mut self, name: &str, found: &Addresses, now: Instant) {
        let most = if found.addresses.is_empty() { MAX_NEGATIVE_TTL } else { MAX_TTL };
        let ttl = found.ttl.min(most);
        if ttl.is_zero() {
            self.cached.remove(name);
            return;
        }
        if self.cached.len() >= MAX_CACHED && self.swept_at.is_none_or(|at| now - at >= SWEEP_INTERVAL) {
            self.cached.retain(|_, (_, valid_until)| now < *valid_until);
            self.swept_at = Some(now);
        }
        // Where others fill it, a name is asked for each time.
        if self.cached.len() < MAX_CACHED || self.cached.contains_key(name) {
            self.cached.insert(name.to_owned(), (found.addresses.clone(), now + ttl));
        }
    }

    fn join(&self, name: &str) -> Option<watch::Receiver<Option<Answer>>> {
        self.under_way.get(name).and_then(Weak::upgrade).map(|pending| pending.subscribe())
    }
}

impl Lookups {
    /// Look-ups of this source.
    pub fn new(source: impl NameSource) -> Self {
        Self(Arc::new(Inner {
            source: Box::new(source),
            checks: Permits::new(MAX_CHECKS),
            attempts: Permits::new(MAX_ATTEMPTS),
            names: Mutex::default(),
        }))
    }

    async fn answer(&self, name: &str, owner: LookupOwner, on_begin: OnBegin<'_>) -> Answer {
        let under_way = {
            let names = self.0.names();
            if let Some(addresses) = names.get(name, Instant::now()) {
                return Ok(addresses);
            }
            names.join(name)
        };
        let mut answer = match under_way {
            Some(answer) => answer,
            None => self.begin(name, self.permit(owner).await?),
        };
        on_begin();
        // A look-up that panicked has no answer.
        let answered = answer.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
        answered.unwrap_or(Err(LookupError::Local(LocalFault::LookupNotMade)))
    }

    async fn permit(&self, owner: LookupOwner) -> Result<Permit<LookupOwner>, LookupError> {
        match owner {
            LookupOwner::Check(_) => tokio::time::timeout(MAX_CHECK_WAIT, self.0.checks.take(owner))
                .await
                .map_err(|_| LookupError::ShareUsedUp),
            LookupOwner::Attempt(_) | LookupOwner::Proxy => tokio::time::timeout(MAX_WAIT, self.0.attempts.take(owner))
                .await
                .map_err(|_| LookupError::Local(LocalFault::LookupNotMade)),
        }
    }

    /// Begins a look-up, or joins the one that began while this waited for its permit.
    fn begin(&self, name: &str, permit: Permit<LookupOwner>) -> watch::Receiver<Option<Answer>> {
        let mut names = self.0.names();
        if let Some(joined) = names.join(name) {
            return joined;
        }
        let (pending, answer) = watch::channel(None);
        let pending = Arc::new(pending);
        names.under_way.insert(name.to_owned(), Arc::downgrade(&pending));
        tokio::spawn(look_up(self.0.clone(), name.to_owned(), pending, permit));
        answer
    }
}

impl Inner {
    fn names(&self) -> MutexGuard<'_, NameCache> {
        self.names.lock()
    }
}

/// Looks a name up, as long as something waits for it.
async fn look_up(inner: Arc<Inner>, name: String, pending: Arc<Pending>, permit: Permit<LookupOwner>) {
    let mut looking = pin!(within(MAX_LOOKUP, || Duration::ZERO, inner.source.look_up(&name)));
    let found = loop {
        tokio::select! {
            found = &mut looking => break found.unwrap_or(Err(LookupError::Unresolved)),
            () = pending.closed() => {
                let mut names = inner.names();
                // New receivers join under the lock.
                if pending.receiver_count() == 0 {
                    names.under_way.remove(&name);
                    return;
                }
            }
        }
    };
    // The permit is returned before the answer is sent, so that the next look-up finds it free.
    drop(permit);
    let mut names = inner.names();
    names.under_way.remove(&name);
    if let Ok(found) = &found {
        names.insert(&name, found, Instant::now());
    }
    pending.send_replace(Some(found.map(|found| found.addresses)));
}

impl Resolver for Lookups {
    fn resolve<'a>(&'a self, name: &'a str, owner: LookupOwner, on_begin: OnBegin<'a>) -> Lookup<'a> {
        Box::pin(self.answer(name, owner, on_begin))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::domain::id::AccountKey;

    const TTL: Duration = Duration::from_secs(30);

    /// Knows every name but those that begin with `silent`, after a second; one that begins with `panic` panics.
    #[derive(Clone, Default)]
    struct Slow {
        asked: Arc<AtomicUsize>,
        under_way: Arc<AtomicUsize>,
    }

    struct UnderWay(Arc<AtomicUsize>);

    impl Drop for UnderWay {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl NameSource for Slow {
        fn look_up<'a>(&'a self, name: &'a str) -> QueryFuture<'a> {
            Box::pin(async move {
                self.asked.fetch_add(1, Ordering::SeqCst);
                self.under_way.fetch_add(1, Ordering::SeqCst);
                let _under_way = UnderWay(self.under_way.clone());
                assert!(!name.starts_with("panic"), "a fault of the source");
                if name.starts_with("silent") {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(Addresses { addresses: vec![Ipv4Addr::LOCALHOST.into()], ttl: TTL })
            })
        }
    }

    fn attempt(account: i64) -> LookupOwner {
        LookupOwner::Attempt(AccountKey(account))
    }

    fn spawn(lookups: &Lookups, name: &str, owner: LookupOwner) -> tokio::task::JoinHandle<Answer> {
        let (lookups, name) = (lookups.clone(), name.to_owned());
        tokio::spawn(async move { lookups.resolve(&name, owner, &|| {}).await })
    }

    async fn settle() {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_whose_names_never_answer_waits_for_itself_and_nobody_else_does() {
        let source = Slow::default();
        let lookups = Lookups::new(source.clone());
        let silent: Vec<_> = (0..1_000).map(|n| spawn(&lookups, &format!("silent-{n}"), attempt(1))).collect();
        settle().await;
        assert_eq!(source.under_way.load(Ordering::SeqCst), MAX_ATTEMPTS / 2);
        let own = spawn(&lookups, "shop", attempt(1));
        let others: Vec<_> = (0..40).map(|n| spawn(&lookups, &format!("shop-{n}"), attempt(2))).collect();
        let begin = Instant::now();
        for other in others {
            assert_eq!(other.await.expect("no panic"), Ok(vec![Ipv4Addr::LOCALHOST.into()]));
        }
        // Its share is half of what is left: 24, and then the rest.
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
        let not_made = Err(LookupError::Local(LocalFault::LookupNotMade));
        assert_eq!(own.await.expect("no panic"), not_made, "it waited for its own account's permits");
        let mut ends = Vec::new();
        for one in silent {
            ends.push(one.await.expect("no panic"));
        }
        let unresolved = ends.iter().filter(|end| **end == Err(LookupError::Unresolved)).count();
        assert_eq!((unresolved, ends.len() - unresolved), (48, 952), "what was not asked is nobody's failure");
    }

    #[tokio::test(start_paused = true)]
    async fn equal_names_are_one_look_up_whoever_asks_and_nobody_waits_in_anothers_queue() {
        let source = Slow::default();
        let lookups = Lookups::new(source.clone());
        let equal: Vec<_> = (0..100).map(|n| spawn(&lookups, "shop", attempt(n))).collect();
        for one in equal {
            assert!(one.await.expect("no panic").is_ok());
        }
        assert_eq!(source.asked.load(Ordering::SeqCst), 1);
        let _silent: Vec<_> = (0..48).map(|n| spawn(&lookups, &format!("silent-{n}"), attempt(1))).collect();
        settle().await;
        let waits = spawn(&lookups, "other", attempt(1));
        settle().await;
        let begin = Instant::now();
        assert!(spawn(&lookups, "other", attempt(2)).await.expect("no panic").is_ok());
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        drop(waits);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_ends_with_the_last_who_waits_for_it() {
        let source = Slow::default();
        let lookups = Lookups::new(source.clone());
        let (first, second) = (spawn(&lookups, "silent", attempt(1)), spawn(&lookups, "silent", attempt(2)));
        settle().await;
        for (waiting, left) in [(first, 1), (second, 0)] {
            waiting.abort();
            settle().await;
            assert_eq!(source.under_way.load(Ordering::SeqCst), left);
        }
        assert!(lookups.0.names().under_way.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_panics_is_nobodys_failure_and_is_made_again() {
        let source = Slow::default();
        let lookups = Lookups::new(source.clone());
        for asked in 1..=2 {
            let end = spawn(&lookups, "panic", attempt(1)).await.expect("the caller goes on");
            assert_eq!(end, Err(LookupError::Local(LocalFault::LookupNotMade)));
            assert_eq!(source.asked.load(Ordering::SeqCst), asked);
        }
    }

    #[test]
    fn what_is_cached_is_bounded_in_time_and_in_number() {
        let (mut names, now) = (NameCache::default(), Instant::now());
        let found = |count: usize, ttl| Addresses { addresses: vec![Ipv4Addr::LOCALHOST.into(); count], ttl };
        let day = Duration::from_secs(86_400);
        names.insert("shop", &found(1, day), now);
        names.insert("missing", &found(0, day), now);
        names.insert("brief", &found(1, Duration::ZERO), now);
        for (name, most) in [("shop", MAX_TTL), ("missing", MAX_NEGATIVE_TTL)] {
            assert!(names.get(name, now + most - Duration::from_millis(1)).is_some(), "{name}");
            assert!(names.get(name, now + most).is_none(), "{name}");
        }
        assert!(names.get("brief", now).is_none());
        for n in 0..2 * MAX_CACHED {
            names.insert(&format!("shop-{n}"), &found(1, TTL), now);
        }
        assert_eq!(names.cached.len(), MAX_CACHED);
        names.insert("late", &found(1, TTL), now + TTL);
        assert!(names.get("late", now + TTL).is_some(), "what is over is replaced");
    }
}

//! A store with a clock of its own, one account, and what it hands to the engine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aldaba::clock::{Clock as _, ManualClock, SeededRandom};
use aldaba::domain::delivery::Outcome;

use aldaba::domain::event::{NewEvent, message};
use aldaba::domain::id::{AccountId, EndpointId, EndpointKey};
use aldaba::domain::replay::{NewReplay, Selection};
use aldaba::domain::retention::Retention;
use aldaba::domain::settings::EndpointSettings;
use aldaba::domain::time::Timestamp;
use aldaba::domain::transition::DeliveryPolicy;
use aldaba::domain::url::{Environment, ReceiverUrl};
use aldaba::store::inbox::{Inbox, Leased, Nudge};
use aldaba::store::keys::KeySource;
use aldaba::store::{
    Accounts, Database, Endpoints, Housekeeping, Lifecycle, OpenError, OpenOptions, Page, PurgePosition, Settlement,
    Store,
};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::app::{EVENT, eventually};
use crate::database;

/// What the clock of a fixture shows at first.
fn begin() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

pub const ALL: Page = Page { page: 1, per_page: 100 };

pub struct Fixture {
    pub store: Store,
    pub clock: Arc<ManualClock>,
    pub nudges: UnboundedReceiver<Nudge>,
    pub inbox: Inbox,
    pub account: AccountId,
    folder: tempfile::TempDir,
}

/// No two stores draw the same numbers.
static SEED: AtomicU64 = AtomicU64::new(1);

pub fn options(folder: &Path, clock: Arc<ManualClock>, inbox: Option<Inbox>) -> OpenOptions {
    options_of(database::options(folder), clock, inbox)
}

fn options_of((database, keys): (Database, KeySource), clock: Arc<ManualClock>, inbox: Option<Inbox>) -> OpenOptions {
    OpenOptions {
        database,
        keys,
        environment: Environment::Development,
        policy: DeliveryPolicy::default(),
        max_endpoints: 50,
        max_api_keys: 100,
        max_in_flight_per_endpoint: 64,
        serves: inbox.is_some(),
        clock,
        random: Arc::new(SeededRandom::new(SEED.fetch_add(1, Ordering::Relaxed))),
        inbox,
    }
}

/// Makes the tables of a database.
pub async fn migrate(database: Database, keys: KeySource) {
    let options = options_of((database, keys), Arc::new(ManualClock::at(begin())), None);
    Store::open(options).await.expect("opens").close().await.expect("closed");
}

impl Fixture {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(ManualClock::at(begin()));
        let (inbox, nudges) = Inbox::new();
        let store = Store::open(options(folder.path(), clock.clone(), Some(inbox.clone()))).await.expect("opens");
        let account = store.create_account("a".into(), None).await.expect("an account").id;
        Self { store, clock, nudges, inbox, account, folder }
    }

    /// Another process on the same file.
    pub async fn beside(&self) -> Store {
        self.open_beside().await.expect("opens beside")
    }

    pub async fn open_beside(&self) -> Result<Store, OpenError> {
        Store::open(options(self.folder.path(), self.clock.clone(), None)).await
    }

    /// The next server on the same database, when this one has ended.
    pub async fn restarted(self) -> Self {
        let Self { store, clock, account, folder, .. } = self;
        store.close().await.expect("closed");
        drop(store);
        let (inbox, nudges) = Inbox::new();
        let store = eventually("the file to be free", || async {
            Store::open(options(folder.path(), clock.clone(), Some(inbox.clone()))).await.ok()
        })
        .await;
        Self { store, clock, nudges, inbox, account, folder }
    }

    /// Where the database is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub async fn endpoint(&self) -> (EndpointId, EndpointKey) {
        let url = ReceiverUrl::parse("http://127.0.0.1:9/", Environment::Development).expect("a URL");
        let new = EndpointSettings::new(&url, vec![EVENT.into()]);
        let made = self.store.create_endpoint(self.account, new.into(), None).await.expect("an endpoint").resource;
        (made.id, made.key)
    }

    pub fn event(&self, n: u32) -> NewEvent {
        event(self.account, n)
    }

    pub async fn jobs(&mut self, count: usize) -> Vec<Leased> {
        let mut jobs = Vec::new();
        while jobs.len() < count {
            if let Some(Nudge::Jobs(more)) = self.nudges.recv().await {
                jobs.extend(more);
            }
        }
        jobs
    }
}

pub fn event(account: AccountId, n: u32) -> NewEvent {
    let now = Timestamp::from_millis(0);
    let body = message(EVENT, now, &format!("{{\"n\":{n}}}"));
    let event_type = EVENT.into();
    NewEvent { account, event_type, occurred_at: now, validation_id: None, channels: None, trace: None, body }
}

pub fn settlement(leased: &Leased, status: u16) -> Settlement {
    let job = &leased.job;
    Settlement {
        delivery: job.id,
        endpoint: job.endpoint,
        lease: job.lease,
        kind: job.kind,
        attempts_made: job.attempts_made,
        failures: job.failures,
        outcome: Outcome {
            started_at: Timestamp::from_millis(1_800_000_000_000),
            duration_ms: 3,
            http_status: Some(status),
            body: Some("answer".into()),
            error: (status >= 300).then(|| "refused".to_owned()),
            endpoint_version: i64::MAX,
            retry_after_ms: None,
        },
        jitter: 0.0,
    }
}

/// What keeps everything for a minute.
pub fn minute() -> Retention {
    Retention { deliveries: Some(Duration::from_secs(60)), payloads: None }
}

/// Removes nothing: what the embedded store has not put into its lists yet is there from here on.
pub async fn list(store: &Store) {
    let forever = Retention { deliveries: None, payloads: None };
    store.begin_purge(forever, Timestamp::from_millis(1_800_000_000_000)).await.expect("listed");
}

/// Removes all that is older than `cutoff` and finished.
pub async fn purge_before(store: &Store, cutoff: Timestamp) {
    purge(store, minute(), cutoff.plus(Duration::from_secs(60))).await;
}

/// A round of retention. Returns the positions that it went through.
pub async fn purge(store: &Store, keep: Retention, now: Timestamp) -> Vec<PurgePosition> {
    let round = store.begin_purge(keep, now).await.expect("begun").expect("this process's work");
    let (mut positions, mut position) = (Vec::new(), Some(round.position));
    while let Some(from) = position {
        position = store.purge_old(keep, now, from).await.expect("purged");
        positions.extend(position);
    }
    positions
}

/// A replay of all that was ever published.
pub fn everything(f: &Fixture) -> NewReplay {
    NewReplay { from: Timestamp::from_millis(0), to: f.clock.now(), selection: Selection::All }
}

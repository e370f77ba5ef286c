//! Unit tests of faults within SQLite's own calls: whatever statement fails, a refused write is not there, and an
//! accepted one is.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::mpsc::UnboundedReceiver;

use super::connection::writer_connection;
use super::store::Store;
use crate::clock::{SeededRandom, SystemClock};
use crate::domain::delivery::Outcome;
use crate::domain::endpoint;
use crate::domain::event::{NewEvent, message};
use crate::domain::id::{AccountId, DeliveryId, EndpointKey};
use crate::domain::settings::EndpointSettings;
use crate::domain::time::Timestamp;
use crate::domain::transition::DeliveryPolicy;
use crate::domain::url::{Environment, ReceiverUrl};
use crate::store::contract::{Accounts, Dispatch, Endpoints, Intake, Log};
use crate::store::errors::{OpenError, StoreError};
use crate::store::inbox::{Inbox, Leased, Nudge};
use crate::store::keys::KeySource;
use crate::store::open::Database;
use crate::store::values::{Isolation, OpenOptions, Page, Settlement};

const EVENT: &str = "validation.completed";

/// Steps of SQLite's machine until a statement of the writer is interrupted; never, where it is negative.
type Fuse = Arc<AtomicI64>;

struct Fixture {
    store: Store,
    nudges: UnboundedReceiver<Nudge>,
    inbox: Inbox,
    fuse: Fuse,
    account: AccountId,
    _folder: tempfile::TempDir,
}

impl Fixture {
    async fn new(ordering: endpoint::Ordering) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("aldaba.db");
        let (inbox, nudges) = Inbox::new();
        let fuse: Fuse = Arc::new(AtomicI64::new(-1));
        let options = OpenOptions {
            database: Database::Sqlite(path.clone()),
            keys: KeySource::File(folder.path().join("master-key")),
            environment: Environment::Development,
            policy: DeliveryPolicy::default(),
            max_endpoints: 50,
            max_api_keys: 100,
            max_in_flight_per_endpoint: 64,
            serves: true,
            clock: Arc::new(SystemClock),
            random: Arc::new(SeededRandom::new(1)),
            inbox: Some(inbox.clone()),
        };
        let armed = fuse.clone();
        let store = Store::open_on(|path| with_fuse(path, armed), &path, options).expect("opens");
        let account = store.create_account("a".into(), None).await.expect("an account").id;
        let url = ReceiverUrl::parse("http://127.0.0.1:9/", Environment::Development).expect("a URL");
        let new = EndpointSettings { ordering, ..EndpointSettings::new(&url, vec![EVENT.into()]) };
        store.create_endpoint(account, new.into(), None).await.expect("an endpoint");
        Self { store, nudges, inbox, fuse, account, _folder: folder }
    }

    fn event(&self, n: u32) -> NewEvent {
        let now = Timestamp::from_millis(0);
        // Longer than a page, so that many statements of SQLite's own are needed for it.
        let body = message(EVENT, now, &format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat(6_000)));
        let (account, event_type) = (self.account, EVENT.into());
        NewEvent { account, event_type, occurred_at: now, validation_id: None, channels: None, trace: None, body }
    }

    fn take_jobs(&mut self) -> Vec<Leased> {
        let mut jobs = Vec::new();
        while let Ok(nudge) = self.nudges.try_recv() {
            if let Nudge::Jobs(more) = nudge {
                jobs.extend(more);
            }
        }
        jobs
    }

    async fn events(&self) -> u64 {
        self.store.events(self.account, Page { page: 1, per_page: 1 }).await.expect("listed").total
    }

    async fn lost(&self) -> Vec<DeliveryId> {
        let inbox = self.inbox.clone();
        let find = move |tx: &mut super::tx::Tx<'_>| super::leases::lost_leases(tx.db, tx.lease, &inbox);
        self.store.writer.write(find).await.expect("looked")
    }
}

/// Steps of SQLite's machine from the commit to the end of its statement, and a few more.
const COMMIT_STEPS: i64 = 8;

fn with_fuse(path: &Path, fuse: Fuse) -> Result<rusqlite::Connection, OpenError> {
    let mut connection = writer_connection(path).map_err(|e| OpenError(e.to_string()))?;
    // A transaction that is being committed is not interrupted any more: SQLite would report a commit that has happened
    // as interrupted. Nothing but this handler does that to a commit.
    let committing = Arc::new(AtomicI64::new(0));
    let begins = committing.clone();
    let commits = move || {
        begins.store(COMMIT_STEPS, Ordering::SeqCst);
        false
    };
    connection.commit_hook(Some(commits)).expect("set");
    let blown = move || {
        if committing.load(Ordering::SeqCst) > 0 {
            committing.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        fuse.load(Ordering::SeqCst) >= 0 && fuse.fetch_sub(1, Ordering::SeqCst) == 0
    };
    connection.progress_handler(1, Some(blown)).expect("set");
    Ok(connection)
}

fn delivered(leased: &Leased) -> Settlement {
    let job = &leased.job;
    Settlement {
        delivery: job.id,
        endpoint: job.endpoint,
        lease: job.lease,
        kind: job.kind,
        attempts_made: job.attempts_made,
        failures: job.failures,
        outcome: Outcome {
            started_at: Timestamp::from_millis(1),
            duration_ms: 1,
            http_status: Some(200),
            body: None,
            error: None,
            endpoint_version: i64::MAX,
            retry_after_ms: None,
        },
        jitter: 0.0,
    }
}

/// SQLite rolls the whole transaction back by itself when a statement that writes is interrupted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_statement_is_interrupted_what_was_refused_is_not_there_and_what_was_accepted_is_sent_once() {
    let mut f = Fixture::new(endpoint::Ordering::None).await;
    let (mut accepted, mut sent, mut refused, mut number) = (0, BTreeSet::new(), 0, 0);
    let mut in_memory: Vec<Leased> = Vec::new();
    for fuse in 0.. {
        let batch: Vec<NewEvent> = (0..6).map(|n| f.event(number + n)).collect();
        number += 6;
        let settlements = Arc::new(in_memory.drain(..).map(|leased| (delivered(&leased), leased)).collect::<Vec<_>>());
        let outcomes = Arc::new(settlements.iter().map(|(settlement, _)| settlement.clone()).collect::<Vec<_>>());
        let spacing = 7;
        f.fuse.store(fuse * spacing, Ordering::SeqCst);
        let mut writes = tokio::task::JoinSet::new();
        for event in batch {
            let store = f.store.clone();
            writes.spawn(async move { store.accept(vec![event], None).await.map(|events| events.len()) });
        }
        let store = f.store.clone();
        let settled = store.settle(outcomes.clone(), Isolation::Shared);
        let (settled, answers) = tokio::join!(settled, writes.join_all());
        let blown = f.fuse.swap(-1, Ordering::SeqCst) < 0;
        for answer in answers {
            match answer {
                Ok(events) => accepted += events,
                Err(StoreError::Unavailable(_) | StoreError::TooSlow) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        if settled.is_err() {
            f.store.settle(outcomes, Isolation::Shared).await.expect("the next try succeeds");
        }
        drop(settlements);
        assert_eq!(f.events().await, accepted as u64, "after {} steps", fuse * spacing);
        // The writer hands jobs over after it has answered: what it is asked next follows them.
        assert_eq!(f.lost().await, [], "nothing is leased to nobody");
        in_memory = f.take_jobs();
        for leased in &in_memory {
            assert!(sent.insert(leased.job.id), "sent twice");
        }
        assert_eq!(sent.len(), accepted, "everything that was accepted is in memory, and nothing else");
        if !blown {
            break;
        }
    }
    assert!(refused > 20, "the fuse has hit many statements: {refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_there_is_no_room_what_is_refused_is_not_there() {
    let mut f = Fixture::new(endpoint::Ordering::None).await;
    let store = f.store.clone();
    let limit = move |pages: i64| {
        let store = store.clone();
        async move {
            let set = move |tx: &mut super::tx::Tx<'_>| {
                let used: i64 = tx.db.query_row("PRAGMA page_count", [], |row| row.get(0))?;
                let most = if pages < 0 { 1 << 30 } else { used + pages };
                Ok(tx.db.query_row(&format!("PRAGMA max_page_count = {most}"), [], |row| row.get::<_, i64>(0))?)
            };
            store.writer.write(set).await.expect("set")
        }
    };
    let mut accepted = 0;
    for pages in 0..40 {
        limit(pages).await;
        let mut writes = tokio::task::JoinSet::new();
        for n in 0..8 {
            let (store, event) = (f.store.clone(), f.event(n));
            writes.spawn(async move { store.accept(vec![event], None).await.is_ok() });
        }
        accepted += writes.join_all().await.into_iter().filter(|is_ok| *is_ok).count();
        limit(-1).await;
        assert_eq!(f.events().await, accepted as u64);
        drop(f.take_jobs());
    }
    assert!(accepted < 320, "some were refused");
}

#[tokio::test]
async fn what_is_leased_to_this_process_and_not_in_its_memory_becomes_due_again() {
    let mut f = Fixture::new(endpoint::Ordering::Fifo).await;
    f.store.accept(vec![f.event(1), f.event(2)], None).await.expect("accepted");
    let endpoint: EndpointKey = loop {
        if let Some(Nudge::Due(endpoint, _)) = f.nudges.recv().await {
            break endpoint;
        }
    };
    let claimed = f.store.claim(endpoint, 10).await.expect("claimed").jobs;
    assert_eq!(claimed.len(), 1, "in order, one at a time");
    let head = claimed[0].job.id;
    assert_eq!(f.lost().await, []);
    // Its caller was told nothing of it.
    drop(claimed);
    assert_eq!(f.lost().await, [head]);
    let due = async {
        loop {
            if let Some(Nudge::Due(found, _)) = f.nudges.recv().await
                && found == endpoint
            {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), due).await.expect("the writer looks by itself");
    let claimed = f.store.claim(endpoint, 10).await.expect("claimed").jobs;
    assert_eq!(claimed.iter().map(|leased| leased.job.id).collect::<Vec<_>>(), [head]);
}

#[tokio::test]
async fn what_an_engine_that_has_stopped_does_not_hold_is_left_for_the_next_start() {
    let mut f = Fixture::new(endpoint::Ordering::None).await;
    f.store.accept(vec![f.event(1)], None).await.expect("accepted");
    assert_eq!(f.lost().await, []);
    f.nudges.close();
    assert_eq!(f.take_jobs().len(), 1, "this drops what was handed over");
    assert_eq!(f.lost().await, []);
}

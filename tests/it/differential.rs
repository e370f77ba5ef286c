//! The same random operations on both stores, and what they answer compared: SQLite is the reference of PostgreSQL.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aldaba::clock::{ManualClock, SeededRandom, SystemRandom};
use aldaba::domain::channels::Channels;
use aldaba::domain::delivery::{Delivery, DeliveryStatus};
use aldaba::domain::endpoint::EndpointStatus::{Active, Disabled};
use aldaba::domain::event::{NewEvent, message};
use aldaba::domain::filter::DeliveryFilter;
use aldaba::domain::id::{AccountId, EndpointId, EndpointKey, EventId, ReplayId};
use aldaba::domain::payload_filter::PayloadFilter;
use aldaba::domain::replay::{NewReplay, Selection};
use aldaba::domain::settings::{EndpointChange, EndpointSettings};
use aldaba::domain::time::Timestamp;
use aldaba::domain::transition::DeliveryPolicy;
use aldaba::domain::url::{Environment, ReceiverUrl};
use aldaba::store::inbox::{Inbox, Leased};
use aldaba::store::keys::KeySource;
use aldaba::store::{
    Accounts, Database, Dispatch, Endpoints, Housekeeping, Intake, Isolation, Lifecycle, Log, OpenOptions, Page,
    ReplayWork, Replays, Search, Store, StoreError, Unattempted,
};

use crate::database;
use crate::fixture::{minute, purge_before, settlement};

/// Runs, and operations in each.
const RUNS: u64 = 5;
const OPERATIONS: u64 = 120;

const TYPES: [&str; 3] = ["validation.completed", "validation.failed", "billing.payment_failed"];

/// What endpoints subscribe to.
const ENTRIES: [&str; 5] = [TYPES[0], TYPES[1], TYPES[2], "validation.*", "*"];

/// When every run begins.
fn start() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

/// One of the two, and what it has given out. Both give out in the same order.
struct Side {
    store: Store,
    /// Another process on the same database, which publishes.
    beside: Store,
    clock: Arc<ManualClock>,
    account: AccountId,
    endpoints: Vec<(EndpointId, EndpointKey)>,
    events: Vec<EventId>,
    replays: Vec<ReplayId>,
    held: Vec<Leased>,
}

impl Side {
    async fn open(database: Database, keys: KeySource) -> Self {
        let clock = Arc::new(ManualClock::at(start()));
        let options = |inbox: Option<Inbox>| OpenOptions {
            database: database.clone(),
            keys: keys.clone(),
            environment: Environment::Development,
            policy: DeliveryPolicy { auto_disable_threshold: 6, ..DeliveryPolicy::default() },
            max_endpoints: 4,
            max_api_keys: 100,
            max_in_flight_per_endpoint: 64,
            serves: inbox.is_some(),
            clock: clock.clone(),
            random: Arc::new(SystemRandom::default()),
            inbox,
        };
        let store = Store::open(options(Some(Inbox::new().0))).await.expect("opens");
        let beside = Store::open(options(None)).await.expect("opens");
        let account = store.create_account("a".into(), None).await.expect("an account").id;
        let (endpoints, events, replays, held) = (vec![], vec![], vec![], vec![]);
        Self { store, beside, clock, account, endpoints, events, replays, held }
    }

    fn event(&self, event_type: &str, n: u64) -> NewEvent {
        let body = message(event_type, start(), &format!("{{\"n\":{n}}}"));
        let (account, event_type) = (self.account, event_type.to_owned());
        // Some carry a channel, some another one, some none.
        let channel = ["a", "b"].into_iter().nth(usize::try_from(n % 3).expect("small"));
        let channels = Channels::parse(channel.map(str::to_owned).into_iter().collect(), 1);
        NewEvent { account, event_type, occurred_at: start(), validation_id: None, channels, trace: None, body }
    }

    /// The number of an endpoint, which both sides have in common.
    fn number(&self, id: EndpointId) -> usize {
        self.endpoints.iter().position(|(known, _)| *known == id).expect("an endpoint of ours")
    }

    fn told(&self, delivery: &Delivery) -> String {
        let Delivery { endpoint, event_type, status, attempt, next_retry_at, .. } = delivery;
        let Delivery { response_status, response_body, response_time_ms, error_message, .. } = delivery;
        let made = delivery.created_at;
        format!(
            "{} {event_type} {status:?} {attempt} {next_retry_at:?} {response_status:?} {response_body:?} \
             {response_time_ms:?} {error_message:?} {made}",
            self.number(*endpoint)
        )
    }

    /// Deliveries of one time have their order from chance.
    fn told_all(&self, deliveries: &[Delivery]) -> Vec<String> {
        let mut told: Vec<_> = deliveries.iter().map(|delivery| self.told(delivery)).collect();
        told.sort();
        told
    }

    /// Claims what is due of an endpoint, and says what that was.
    async fn claim(&mut self, endpoint: usize, limit: usize) -> String {
        let claimed = self.store.claim(self.endpoints[endpoint].1, limit).await.expect("claimed");
        let told = format!("{} {:?}", claimed.jobs.len(), claimed.next_due);
        self.held.extend(claimed.jobs);
        self.held.sort_by_key(|leased| {
            let job = &leased.job;
            (job.body.clone(), job.endpoint, job.attempts_made, job.failures, job.id)
        });
        told
    }

    async fn find(&self, filter: &DeliveryFilter) -> String {
        let page = Page { page: 1, per_page: 100 };
        let found = self.store.find_deliveries(self.account, filter.clone(), page).await.expect("found");
        // Where there is more than a page, what is on it depends on the order within a moment.
        let told = if found.total <= 100 { self.told_all(&found.items) } else { vec![] };
        format!("{} {told:?}", found.total)
    }

    /// Everything that can be seen.
    async fn state(&self) -> String {
        let mut told = String::new();
        for endpoint in self.store.endpoints(self.account).await.expect("listed") {
            let missed = self.store.missed(self.account, endpoint.id).await.expect("counted");
            told += &format!(
                "{} {:?} {:?} {:?} {missed:?}\n",
                self.number(endpoint.id),
                endpoint.settings,
                endpoint.health,
                endpoint.last_delivery_at,
            );
            let of_it =
                self.store.endpoint_deliveries(self.account, endpoint.id, Page { page: 1, per_page: 100 }).await;
            let of_it = of_it.expect("listed");
            told += &format!(
                "{} {:?}\n",
                of_it.total,
                if of_it.total <= 100 { self.told_all(&of_it.items) } else { vec![] }
            );
        }
        let events = self.store.events(self.account, Page { page: 1, per_page: 100 }).await.expect("listed");
        told += &format!("{} events\n", events.total);
        for event in &events.items {
            let (event, deliveries) = self.store.event(self.account, event.id).await.expect("found");
            told += &format!("{} {} {:?}\n", event.event_type, event.deliveries, self.told_all(&deliveries));
        }
        for id in &self.replays {
            let replay = self.store.replay(self.account, *id).await;
            let shown = replay.map(|r| (r.status, r.total, r.sent, r.finished_at));
            told += &format!("replay {shown:?}\n");
        }
        told
    }
}

/// A place below `bound`.
fn pick(random: &SeededRandom, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).expect("small")
}

/// The channels of an endpoint, where it has some.
fn channels(random: &SeededRandom) -> Option<Channels> {
    (pick(random, 3) == 0).then(|| Channels::parse(vec!["a".into()], 1).expect("a channel"))
}

/// The filter of an endpoint, where it has one. About half of the events match.
fn payload_filter(random: &SeededRandom) -> Option<PayloadFilter> {
    let filter = r#"{"data":{"n":{"$gte":5000000}}}"#;
    (pick(random, 3) == 0).then(|| PayloadFilter::parse(filter).expect("a filter"))
}

/// Makes an endpoint, and says what the store has answered.
async fn make_endpoint(side: &mut Side, random: &SeededRandom, n: u64) -> String {
    let url = ReceiverUrl::parse(&format!("http://127.0.0.1:9/{n}"), Environment::Development).expect("a URL");
    let count = 1 + pick(random, 3);
    let wildcard = (pick(random, 3) == 0).then(|| ENTRIES[TYPES.len() + pick(random, 2)]);
    let events = TYPES.into_iter().take(count).chain(wildcard).map(str::to_owned).collect();
    let description = Some(format!("number {n}"));
    let channels = channels(random);
    let filter = payload_filter(random);
    let new = EndpointSettings { description, channels, filter, ..EndpointSettings::new(&url, events) };
    match side.store.create_endpoint(side.account, new.into(), None).await {
        Ok(made) => {
            side.endpoints.push((made.resource.id, made.resource.key));
            format!("made {}", made.resource.settings.url)
        }
        Err(error) => format!("{error}"),
    }
}

async fn replay_steps(side: &Side) -> String {
    let mut told = Vec::new();
    for open in side.store.open_replays().await.expect("listed") {
        told.push((open.ready, side.store.replay_step(open.key).await.expect("a step")));
    }
    format!("{told:?}")
}

/// One operation on one side; it says what the store has answered.
async fn act(side: &mut Side, seed: u64) -> String {
    let random = SeededRandom::new(seed);
    let endpoint = side.endpoints.len().checked_sub(1).map(|last| pick(&random, last + 1));
    let (operation, n) = (random.below(17), random.next() % 1_000_000);
    let Some(endpoint) = endpoint.filter(|_| operation > 0) else {
        return make_endpoint(side, &random, n).await;
    };
    let id = side.endpoints[endpoint].0;
    let name = |error: StoreError| error.to_string();
    match operation {
        1..=4 => {
            let event_type = TYPES[pick(&random, 3)];
            let count = 1 + random.below(5);
            let events = (0..count).map(|more| side.event(event_type, n * 10 + more)).collect();
            let accepted = side.beside.accept(events, None).await.expect("accepted");
            side.events.extend(accepted.iter().map(|event| event.id));
            format!("{:?}", accepted.iter().map(|event| event.deliveries).collect::<Vec<_>>())
        }
        5 | 6 => side.claim(endpoint, 1 + pick(&random, 20)).await,
        7..=9 => {
            let count = pick(&random, side.held.len() + 1);
            let statuses = [200, 200, 204, 500, 429, 404, 410];
            let batch: Vec<_> = side.held.drain(..count).collect();
            let of_endpoint: HashMap<EndpointKey, u16> =
                side.endpoints.iter().map(|(_, key)| (*key, statuses[pick(&random, statuses.len())])).collect();
            let settlements =
                batch.iter().map(|leased| settlement(leased, of_endpoint[&leased.job.endpoint])).collect();
            format!("{:?}", side.store.settle(Arc::new(settlements), Isolation::Shared).await.expect("settled"))
        }
        10 => {
            let status = if random.below(3) == 0 { Disabled } else { Active };
            let events = (pick(&random, 4) == 0).then(|| vec![ENTRIES[pick(&random, ENTRIES.len())].to_owned()]);
            let channels = (pick(&random, 4) == 0).then(|| channels(&random));
            let filter = (pick(&random, 4) == 0).then(|| payload_filter(&random));
            let change = EndpointChange { status: Some(status), events, channels, filter, ..EndpointChange::default() };
            let changed = side.store.update_endpoint(side.account, id, change).await;
            changed.map_or_else(name, |endpoint| format!("{:?} {:?}", endpoint.health, endpoint.settings.events))
        }
        11 => {
            let ids = side.held.drain(..).map(|leased| Unattempted::of(&leased.job)).collect();
            format!("{:?}", side.store.release(ids).await)
        }
        12 => {
            side.clock.advance(Duration::from_secs(random.below(400)));
            String::new()
        }
        13 => {
            let selection = Selection::ALL[pick(&random, 3)];
            let new = NewReplay { from: start(), to: start().plus(Duration::from_secs(1_000_000)), selection };
            let asked = side.store.create_replay(side.account, id, new, None).await;
            asked.map_or_else(name, |replay| {
                side.replays.push(replay.id);
                format!("{:?} {} {}", replay.status, replay.total, replay.sent)
            })
        }
        14 => replay_steps(side).await,
        15 if random.below(4) == 0 => {
            let deleted = side.store.delete_endpoint(side.account, id).await;
            while side.store.purge_deleted().await.expect("purged") {}
            format!("{deleted:?}")
        }
        15 => {
            let Some(replay) = side.replays.last() else { return String::new() };
            format!("{:?}", side.store.cancel_replay(side.account, *replay).await)
        }
        _ => {
            let page = Page { page: 1, per_page: 100 };
            let listed = side.store.account_deliveries(side.account, page).await.expect("listed");
            let done = listed.items.iter().filter(|delivery| !delivery.status.is_open());
            // The same one on both sides: the first in the order of what is seen of it.
            let chosen = done.min_by_key(|delivery| (side.told(delivery), delivery.id)).map(|delivery| delivery.id);
            let Some(chosen) = chosen.filter(|_| listed.total <= 100) else { return String::new() };
            let retried = side.store.retry(side.account, chosen, None).await;
            retried.map_or_else(name, |delivery| side.told(&delivery))
        }
    }
}

fn filters() -> Vec<DeliveryFilter> {
    let plain = DeliveryFilter::default;
    let status = |status| DeliveryFilter { statuses: vec![status], ..plain() };
    vec![
        status(DeliveryStatus::Failed),
        status(DeliveryStatus::Retrying),
        DeliveryFilter { event_types: vec![TYPES[1].into()], min_attempt: Some(2), ..plain() },
        DeliveryFilter { search: Some("number 1".into()), ..plain() },
        DeliveryFilter { from: Some(start().plus(Duration::from_secs(300))), ..plain() },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_stores_answer_the_same_to_the_same() {
    if !database::is_postgres() {
        // The run on PostgreSQL opens both.
        return;
    }
    for run in 0..RUNS {
        let seeds = SeededRandom::new(u64::from(std::process::id()) * 1_000 + run);
        let folder = tempfile::tempdir().expect("a folder");
        let (postgres, keys) = database::options(folder.path());
        let file = Database::Sqlite(folder.path().join("aldaba.db"));
        let mut reference = Side::open(file, keys.clone()).await;
        let mut other = Side::open(postgres, keys).await;
        let mut history = Vec::new();
        for _ in 0..OPERATIONS {
            let seed = seeds.next();
            let (expected, answered) = (act(&mut reference, seed).await, act(&mut other, seed).await);
            history.push(expected.clone());
            assert_eq!(expected, answered, "run {run} after {history:#?}");
            for side in [&reference, &other] {
                side.clock.advance(Duration::from_millis(7));
            }
        }
        assert_eq!(reference.state().await, other.state().await, "run {run} after {history:#?}");
        for filter in filters() {
            assert_eq!(reference.find(&filter).await, other.find(&filter).await, "run {run}: {filter:?}");
        }
        // And what is left of it when its time is over.
        let cutoff = start().plus(Duration::from_secs(500));
        for side in [&reference, &other] {
            purge_before(&side.store, cutoff).await;
            while side.store.purge_old_replays(minute(), cutoff.plus(Duration::from_secs(60))).await.expect("purged") {}
        }
        assert_eq!(reference.state().await, other.state().await, "run {run}, purged, after {history:#?}");
        other.store.close().await.expect("closed");
    }
}

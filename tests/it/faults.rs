//! Faults of the database and of the process: what cannot be written holds up nothing else, and what has died is not
//! kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aldaba::clock::{Clock, SeededRandom, SystemClock};
use aldaba::domain::time::Timestamp;
use aldaba::egress::AttemptEnd;
use aldaba::engine::{Engine, Limits, Sender};
use aldaba::metrics::Metrics;
use aldaba::store::inbox::{Inbox, Leased};
use aldaba::store::{Accounts, Health, Intake, OpenOptions, Store, StoreError};
use serde_json::json;

use crate::app::{App, Call, PATIENCE, Receiver, Reply, eventually};
use crate::database;
use crate::fixture::{Fixture, event, options};

/// The database refuses the outcome of whoever answers with this.
const POISON: &str = "poison";

async fn refuse_poison(app: &App) {
    let sql = if database::is_postgres() {
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$; \
         CREATE TRIGGER poisoned BEFORE UPDATE ON deliveries FOR EACH ROW WHEN (NEW.response_body = 'poison') \
         EXECUTE FUNCTION refuse()"
    } else {
        "CREATE TRIGGER poisoned BEFORE UPDATE ON deliveries WHEN NEW.response_body = 'poison' \
         BEGIN SELECT RAISE(ABORT, 'refused'); END"
    };
    database::execute(app.folder(), sql).await;
}

async fn ready(app: &App) -> String {
    let answer = Call::new(app.address, "GET", "/readyz").send().await;
    String::from_utf8_lossy(&answer.expect(200).text).into_owned()
}

#[tokio::test]
async fn an_outcome_that_cannot_be_written_holds_up_no_other_and_is_written_when_it_can_be() {
    let app = App::start().await;
    let (sick, well) = (Receiver::start().await, Receiver::start().await);
    let (poisoned, _) = app.endpoint(&sick.url()).await;
    refuse_poison(&app).await;
    sick.script([Reply::Full(200, vec![], POISON.to_owned())]);
    app.publish(json!({ "n": 0 })).await;
    sick.wait_for(1).await;
    let (healthy, _) = app.endpoint(&well.url()).await;
    let mut published = 0;
    // Others are published, delivered and written while the one is tried again; in the end it is set aside.
    eventually("the outcome to be set aside", || async { (ready(&app).await != "ready\n").then_some(()) }).await;
    while published < 30 {
        app.publish(json!({ "n": published })).await;
        published += 1;
    }
    eventually("the others' outcomes", || async {
        let path = format!("/v1/webhooks/{healthy}/deliveries?per_page=100");
        let listed = app.get(&path).await.expect(200).json;
        let rows = listed["data"].as_array().expect("a list").clone();
        (rows.len() >= 30 && rows.iter().all(|row| row["attributes"]["status"] == "success")).then_some(())
    })
    .await;
    assert_eq!(ready(&app).await, "ready\n1 outcomes cannot be written and are tried again apart: see the log\n");
    let drop = if database::is_postgres() { "DROP TRIGGER poisoned ON deliveries" } else { "DROP TRIGGER poisoned" };
    database::execute(app.folder(), drop).await;
    eventually("the outcome that was set aside", || async {
        let path = format!("/v1/webhooks/{poisoned}/deliveries?per_page=100");
        let listed = app.get(&path).await.expect(200).json;
        let rows = listed["data"].as_array().expect("a list").clone();
        rows.iter().all(|row| row["attributes"]["status"] == "success").then_some(())
    })
    .await;
    assert_eq!(sick.received().len(), 31, "nothing is sent twice");
    assert_eq!(ready(&app).await, "ready\n");
}

/// A clock that panics when it is told to: the threads and tasks that look at it die with it.
#[derive(Default)]
struct FragileClock(AtomicBool);

impl Clock for FragileClock {
    fn now(&self) -> Timestamp {
        assert!(!self.0.load(Ordering::SeqCst), "the clock is broken");
        SystemClock.now()
    }
}

#[tokio::test]
async fn a_store_whose_writer_has_died_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Arc::new(FragileClock::default());
    let (inbox, _nudges) = Inbox::new();
    let manual = Arc::new(aldaba::clock::ManualClock::at(Timestamp::from_millis(0)));
    let options = OpenOptions { clock: clock.clone(), ..options(folder.path(), manual, Some(inbox)) };
    let store = Store::open(options).await.expect("opens");
    let account = store.create_account("a".into(), None).await.expect("an account").id;
    let failed = tokio::spawn({
        let store = store.clone();
        async move { store.failed().await }
    });
    clock.0.store(true, Ordering::SeqCst);
    let refused = store.accept(vec![event(account, 1)], None).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    tokio::time::timeout(PATIENCE, failed).await.expect("it is told").expect("no panic");
}

#[tokio::test]
async fn a_store_that_lives_does_not_say_that_it_has_died() {
    let app = App::start().await;
    let died = tokio::time::timeout(Duration::from_millis(200), app.store.failed()).await;
    assert!(died.is_err());
    let stopped = app.stop().await;
    drop(stopped);
}

/// What never comes to an end.
#[derive(Clone)]
struct Hanging;

impl Sender for Hanging {
    async fn send(&self, _: &Leased) -> AttemptEnd {
        std::future::pending().await
    }
}

/// On SQLite the deliveries of an engine that had stopped were searched for as lost, and a warning said so.
#[tokio::test]
async fn an_engine_that_stops_takes_nothing_more_while_its_attempts_hang() {
    let f = Fixture::new().await;
    f.endpoint().await;
    let metrics = Arc::new(Metrics::default());
    let engine = Engine {
        store: f.store.clone(),
        sender: Hanging,
        clock: f.clock.clone(),
        random: Arc::new(SeededRandom::new(1)),
        limits: Limits { max_in_flight: 64, max_in_flight_per_endpoint: 8 },
        metrics: metrics.clone(),
        attempt_counts: Arc::default(),
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let until_stopped = async {
        let _ = stopped.await;
        PATIENCE
    };
    let running = tokio::spawn(engine.run(f.nudges, until_stopped));
    f.store.accept(vec![event(f.account, 1)], None).await.expect("accepted");
    eventually("an attempt to begin", || async { (metrics.attempts_in_flight.get() == 1).then_some(()) }).await;
    assert!(!f.inbox.is_closed());
    stop.send(()).expect("it runs");
    eventually("it to take nothing more", || async { f.inbox.is_closed().then_some(()) }).await;
    assert!(!running.is_finished(), "the attempt hangs");
    running.abort();
}

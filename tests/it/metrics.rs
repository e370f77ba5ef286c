//! What `/metrics` tells operators of the backlog and of the database.

use std::time::Duration;

use aldaba::domain::endpoint::EndpointStatus::{Active, Disabled};
use aldaba::domain::settings::EndpointChange;
use aldaba::store::{Backlog, Dispatch, Endpoints, Figures, Intake, Snapshot, Store, Unattempted};
use serde_json::json;

use crate::app::{App, EVENT, Receiver, Reply, eventually};
use crate::database;
use crate::fixture::{Fixture, event};

async fn backlog(store: &Store, most: usize) -> Backlog {
    store.backlog(most).await.expect("measured")
}

#[tokio::test]
async fn the_backlog_is_what_is_due_in_the_database_of_endpoints_that_are_active() {
    let f = Fixture::new().await;
    let ((first, key), (second, _)) = (f.endpoint().await, f.endpoint().await);
    assert_eq!(backlog(&f.store, 100).await, Backlog::default());
    // A process that does not deliver: nothing of it is in memory.
    let beside = f.beside().await;
    let accepted = aldaba::clock::Clock::now(&*f.clock);
    beside.accept((0..10).map(|n| event(f.account, n)).collect(), None).await.expect("accepted");
    f.clock.advance(Duration::from_secs(7));
    assert_eq!(backlog(&f.store, 100).await, Backlog { deliveries: 20, oldest: Some(accepted) });
    assert_eq!(
        backlog(&f.store, 15).await,
        Backlog { deliveries: 15, oldest: Some(accepted) },
        "the count has a bound"
    );
    let claimed = f.store.claim(key, 4).await.expect("claimed").jobs;
    assert_eq!(backlog(&f.store, 100).await.deliveries, 16, "what is in memory is not in the backlog");

    let set = async |id, status| {
        let change = EndpointChange { status: Some(status), ..EndpointChange::default() };
        f.store.update_endpoint(f.account, id, change).await.expect("changed");
        f.store.refresh().await.expect("refreshed");
    };
    set(first, Disabled).await;
    f.store.release(claimed.iter().map(|leased| Unattempted::of(&leased.job)).collect()).await.expect("released");
    assert_eq!(backlog(&f.store, 100).await.deliveries, 10, "what a paused endpoint holds is not due");
    set(second, Disabled).await;
    assert_eq!(backlog(&f.store, 100).await, Backlog::default());
    set(first, Active).await;
    assert_eq!(backlog(&f.store, 100).await, Backlog { deliveries: 10, oldest: Some(accepted) });
}

#[tokio::test]
async fn the_oldest_is_found_wherever_the_count_ends() {
    for late in 0..2 {
        let f = Fixture::new().await;
        let keys = [f.endpoint().await.1, f.endpoint().await.1];
        let accepted = aldaba::clock::Clock::now(&*f.clock);
        f.beside().await.accept((0..3).map(|n| event(f.account, n)).collect(), None).await.expect("accepted");
        let claimed = f.store.claim(keys[late], 3).await.expect("claimed").jobs;
        f.clock.advance(Duration::from_secs(5));
        f.store.release(claimed.iter().map(|leased| Unattempted::of(&leased.job)).collect()).await.expect("released");
        for most in [0, 2, 100] {
            assert_eq!(backlog(&f.store, most).await, Backlog { deliveries: most.min(6), oldest: Some(accepted) });
        }
    }
}

#[tokio::test]
async fn a_server_tells_its_backlog() {
    let settings = [("WEBHOOKS__TIMEOUT", "2s")];
    let app = App::with(&settings).await;
    let receiver = Receiver::start().await;
    receiver.always(Reply::Hang);
    app.endpoint(&receiver.url()).await;
    let events = vec![json!({ "event": EVENT, "data": {} }); 1_000];
    for _ in 0..2 {
        app.post("/v1/events/batch", json!({ "events": events })).await.expect(202);
    }
    receiver.wait_for(1).await;
    let app = app.restart(&settings).await;
    // An endpoint has at most 1,024 of them in memory.
    let due = eventually("the first measurement", || async {
        (app.metric("backlog_measured_timestamp_seconds").await > 0).then_some(app.metric("deliveries_due").await)
    })
    .await;
    assert!((900..=2_000).contains(&due), "{due}");
    assert!(app.metric("oldest_due_seconds").await < 60);
    for name in ["database_calls_waiting", "database_reads_waiting", "database_node_calls_waiting"] {
        assert!(app.metric(name).await < 10, "{name}");
    }
}

/// The changes of others cannot be read, as where the database is away.
#[tokio::test]
async fn a_view_that_is_not_kept_up_to_date_tells_its_age() {
    let app = App::start().await;
    assert_eq!(app.metric("view_age_seconds").await, 0);
    if !database::is_postgres() {
        return;
    }
    let locked = database::connect(&database::url(app.folder())).await;
    locked.batch_execute("BEGIN; LOCK TABLE changes IN ACCESS EXCLUSIVE MODE").await.expect("locked");
    eventually("an old view", || async { (app.metric("view_age_seconds").await >= 2).then_some(()) }).await;
    locked.batch_execute("ROLLBACK").await.expect("free again");
    eventually("a current view", || async { (app.metric("view_age_seconds").await == 0).then_some(()) }).await;
}

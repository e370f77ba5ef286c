//! The rate limit of an endpoint: no window holds more attempts than it allows, whatever sends them.

use std::time::{Duration, Instant};

use aldaba::domain::id::{DeliveryId, EndpointKey};
use aldaba::domain::rate_limit::RateLimit;
use aldaba::domain::settings::EndpointSettings;
use aldaba::domain::url::{Environment, ReceiverUrl};
use aldaba::store::inbox::{Inbox, Leased};
use aldaba::store::{Backlog, Dispatch, Endpoints, Figures, Intake, Lifecycle, Snapshot, Store, Unattempted};
use serde_json::{Value, json};

use crate::app::{App, Call, EVENT, Received, Receiver, Reply, eventually};
use crate::command_line::printed;
use crate::crash::Server;
use crate::database;
use crate::fixture::{Fixture, options};

/// By how much the network may shift an arrival.
const GRACE: Duration = Duration::from_millis(100);

/// The body of an endpoint with this limit.
fn limited(receiver: &Receiver, limit: &str, more: Value) -> Value {
    let mut body = json!({ "url": receiver.url(), "events": [EVENT], "rate_limit": limit });
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    body
}

async fn register(app: &App, body: Value) -> String {
    app.post("/v1/webhooks", body).await.expect(201).id()
}

async fn publish_many(app: &App, count: usize) {
    let events: Vec<Value> = (0..count).map(|n| json!({ "event": EVENT, "data": { "n": n } })).collect();
    app.post("/v1/events/batch", json!({ "events": events })).await.expect(202);
}

/// How many deliveries of the endpoint have this status.
async fn count(app: &App, endpoint: &str, status: &str) -> Value {
    let path = format!("/v1/webhooks/deliveries?endpoint_id={endpoint}&status={status}");
    app.get(&path).await.expect(200).json["meta"]["pagination"]["total"].clone()
}

/// The numbers of the events that arrived, as [`publish_many`] gave them.
fn numbers(requests: &[Received]) -> Vec<u64> {
    let number = |body: &[u8]| serde_json::from_slice::<Value>(body).expect("JSON")["data"]["n"].as_u64();
    requests.iter().filter_map(|request| number(&request.body)).collect()
}

/// Checks that no window of this length holds more arrivals than so many.
fn check_windows(receiver: &Receiver, attempts: usize, window: Duration) {
    let mut at: Vec<_> = receiver.received().iter().map(|request| request.at).collect();
    at.sort_unstable();
    for one in at.windows(attempts + 1) {
        let span = one[attempts] - one[0];
        assert!(span + GRACE >= window, "{} attempts within {span:?}", attempts + 1);
    }
}

#[tokio::test]
async fn a_burst_goes_at_once_and_the_rest_waits_over_a_restart_until_the_limit_is_lifted() {
    let app = App::start().await;
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    let id = register(&app, limited(&receiver, "5/1h", json!({}))).await;
    app.endpoint(&other.url()).await;
    publish_many(&app, 8).await;
    receiver.wait_for(5).await;
    let app = app.restart(&[]).await;
    publish_many(&app, 2).await;
    other.wait_for(10).await;
    let tested = app.call("POST", &format!("/v1/webhooks/{id}/test")).send().await.expect(200);
    assert_eq!(tested.attribute("delivered"), true, "no limit delays a test");
    eventually("the outcomes", || async { (count(&app, &id, "success").await == json!(6)).then_some(()) }).await;
    assert_eq!((count(&app, &id, "pending").await, receiver.received().len()), (json!(5), 6));
    let rows = database::number(app.folder(), "SELECT count(*) FROM limited_attempts").await;
    assert_eq!(rows, 1, "an endpoint without a limit is not counted");
    let path = format!("/v1/webhooks/{id}");
    app.put(&path, json!({ "rate_limit": "6/1h" })).await.expect(200);
    receiver.wait_for(7).await;
    app.put(&path, json!({ "rate_limit": null })).await.expect(200);
    receiver.wait_for(11).await;
}

#[tokio::test]
async fn a_limit_holds_for_what_was_accepted_before_it() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    receiver.always(Reply::Late(Duration::from_millis(300)));
    let (id, _) = app.endpoint(&receiver.url()).await;
    publish_many(&app, 40).await;
    receiver.wait_for(1).await;
    app.put(&format!("/v1/webhooks/{id}"), json!({ "rate_limit": "1/1h" })).await.expect(200);
    let answered = Instant::now();
    let later = || receiver.received().iter().filter(|request| request.at > answered + GRACE).count();
    // What had begun ends, one more may begin, and the others give up their memory.
    eventually("the others to wait", || async {
        let ended = count(&app, &id, "success").await.as_u64()?;
        let is_quiet = app.metric("attempts_in_flight").await == 0 && receiver.received().len() as u64 == ended;
        (is_quiet && app.store.in_memory() == 0).then_some(())
    })
    .await;
    let before = receiver.received().len();
    assert!(before < 40 && later() <= 1, "{} of {before} after the limit was set", later());
    app.put(&format!("/v1/webhooks/{id}"), json!({ "rate_limit": "2/1h" })).await.expect(200);
    receiver.wait_for(before + 1).await;
}

#[tokio::test]
async fn no_window_holds_more_attempts_than_allowed_with_retries_and_replays() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    receiver.script([500, 503, 500].map(Reply::Status));
    let id = register(&app, limited(&receiver, "4/1s", json!({ "retry_schedule": [1] }))).await;
    publish_many(&app, 6).await;
    receiver.wait_for(9).await;
    let replay = app.replay(&id, json!({ "from": "2026-01-01", "status": "all" })).await;
    app.replayed(&replay).await;
    receiver.wait_for(15).await;
    check_windows(&receiver, 4, Duration::from_secs(1));
    eventually("the outcomes", || async { (count(&app, &id, "success").await == json!(12)).then_some(()) }).await;
}

#[tokio::test]
async fn an_endpoint_with_an_order_and_a_limit_keeps_both() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    register(&app, limited(&receiver, "3/1s", json!({ "ordering": "fifo" }))).await;
    publish_many(&app, 9).await;
    let requests = receiver.wait_for(9).await;
    assert_eq!(numbers(&requests), (0..9).collect::<Vec<_>>());
    check_windows(&receiver, 3, Duration::from_secs(1));
}

#[tokio::test]
async fn what_waits_for_a_limit_arrives_in_the_order_of_its_acceptance_where_one_attempt_may_begin_at_a_time() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    register(&app, limited(&receiver, "1/1s", json!({ "retry_schedule": [] }))).await;
    publish_many(&app, 4).await;
    let requests = receiver.wait_for(4).await;
    assert_eq!(numbers(&requests), [0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_holds_for_all_nodes_together_and_what_one_leaves_the_other_sends() {
    if !database::is_postgres() {
        return;
    }
    let first = App::start().await;
    let second = first.another(&[]).await;
    let receiver = Receiver::start().await;
    let id = register(&first, limited(&receiver, "5/1s", json!({}))).await;
    for node in [&first, &second] {
        publish_many(node, 12).await;
    }
    receiver.wait_for(12).await;
    second.stop().await;
    receiver.wait_for(24).await;
    check_windows(&receiver, 5, Duration::from_secs(1));
    eventually("the outcomes", || async { (count(&first, &id, "success").await == json!(24)).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_exceeds_no_limit_when_it_is_back() {
    if database::is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let account = printed(folder.path(), &["accounts", "create", "killed"]);
    let key = printed(folder.path(), &["keys", "create", "--account", &account]);
    let receiver = Receiver::start().await;
    let mut server = Server::start(folder.path(), &[]);
    let new = limited(&receiver, "3/2s", json!({}));
    Call::new(server.address, "POST", "/v1/webhooks").bearer(&key).json(&new).send().await.expect(201);
    let events: Vec<Value> = (0..6).map(|n| json!({ "event": EVENT, "data": { "n": n } })).collect();
    let batch = Call::new(server.address, "POST", "/v1/events/batch").bearer(&key);
    batch.json(&json!({ "events": events })).send().await.expect(202);
    for arrived in [2, 4] {
        receiver.wait_for(arrived).await;
        server.kill();
        server = Server::start(folder.path(), &[]);
    }
    eventually("all of it", || async {
        let path = "/v1/webhooks/deliveries?status=success";
        let sent = Call::new(server.address, "GET", path).bearer(&key).send().await.expect(200);
        (sent.json["meta"]["pagination"]["total"] == 6).then_some(())
    })
    .await;
    check_windows(&receiver, 3, Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_and_the_node_that_takes_over_exceed_no_limit() {
    if !database::is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let account = printed(folder.path(), &["accounts", "create", "killed"]);
    let key = printed(folder.path(), &["keys", "create", "--account", &account]);
    let receiver = Receiver::start().await;
    let (killed, left) = (Server::start(folder.path(), &[]), Server::start(folder.path(), &[]));
    let new = limited(&receiver, "3/2s", json!({}));
    Call::new(left.address, "POST", "/v1/webhooks").bearer(&key).json(&new).send().await.expect(201);
    let events: Vec<Value> = (0..6).map(|n| json!({ "event": EVENT, "data": { "n": n } })).collect();
    for address in [killed.address, left.address] {
        let batch = Call::new(address, "POST", "/v1/events/batch").bearer(&key);
        batch.json(&json!({ "events": events })).send().await.expect(202);
    }
    receiver.wait_for(4).await;
    killed.kill();
    eventually("all of it", || async {
        let path = "/v1/webhooks/deliveries?status=success";
        let sent = Call::new(left.address, "GET", path).bearer(&key).send().await.expect(200);
        (sent.json["meta"]["pagination"]["total"] == 12).then_some(())
    })
    .await;
    check_windows(&receiver, 3, Duration::from_secs(2));
}

/// An endpoint with this limit.
pub async fn endpoint(f: &Fixture, limit: &str) -> EndpointKey {
    let url = ReceiverUrl::parse("http://127.0.0.1:9/", Environment::Development).expect("a URL");
    let plain = EndpointSettings::new(&url, vec![EVENT.into()]);
    let new = EndpointSettings { rate_limit: RateLimit::parse(limit), ..plain };
    let made = f.store.create_endpoint(f.account, new.into(), None).await.expect("an endpoint").resource;
    f.store.refresh().await.expect("refreshed");
    made.key
}

#[tokio::test]
async fn what_may_not_begin_has_no_lease_and_no_memory_and_what_is_given_back_makes_room_once() {
    let f = Fixture::new().await;
    let key = endpoint(&f, "2/1m").await;
    f.store.accept((0..5).map(|n| f.event(n)).collect(), None).await.expect("accepted");
    assert_eq!(f.store.in_memory(), 0);
    let backlog = f.store.backlog(100).await.expect("measured");
    assert_eq!(backlog, Backlog::default(), "what waits for a limit is as its owner wants it");
    let claim = async || f.store.claim(key, 10).await.expect("claimed");
    let first = claim().await;
    assert_eq!((first.jobs.len(), f.store.in_memory()), (2, 2));
    let limited_for = first.limited_for.expect("no third attempt may begin");
    assert!((Duration::from_secs(50)..Duration::from_secs(62)).contains(&limited_for), "{limited_for:?}");
    assert!(first.next_due.is_some(), "the others stay where they are");
    assert_eq!(claim().await.jobs.len(), 0);
    // One comes back twice, as after an answer that was lost. The other one had been sent.
    let unsent = Unattempted::of_leased(&first.jobs[0]);
    first.jobs[1].start.replace(None);
    for unattempted in [unsent, unsent, Unattempted::of_leased(&first.jobs[1])] {
        f.store.release(vec![unattempted]).await.expect("released");
    }
    drop(first);
    let next = claim().await;
    assert_eq!((next.jobs.len(), next.limited_for.is_some()), (1, true));
}

#[tokio::test]
async fn what_many_endpoints_give_back_at_once_makes_room_at_each_of_them() {
    let f = Fixture::new().await;
    let mut claimed = Vec::new();
    for _ in 0..20 {
        endpoint(&f, "1/1h").await;
    }
    f.store.accept((0..2).map(|n| f.event(n)).collect(), None).await.expect("accepted");
    for key in f.store.view().active_endpoints() {
        claimed.extend(f.store.claim(key, 10).await.expect("claimed").jobs);
    }
    assert_eq!(claimed.len(), 20, "one of each");
    // The last one keeps its place.
    let kept = claimed.pop().expect("there is one");
    f.store.release(claimed.iter().map(Unattempted::of_leased).collect()).await.expect("released");
    for leased in &claimed {
        assert_eq!(f.store.claim(leased.job.endpoint, 10).await.expect("claimed").jobs.len(), 1);
    }
    assert!(f.store.claim(kept.job.endpoint, 10).await.expect("claimed").jobs.is_empty());
}

/// Four deliveries, of which each is due ten minutes after the one before.
async fn accept_apart(f: &Fixture) {
    for n in 0..4 {
        f.store.accept(vec![f.event(n)], None).await.expect("accepted");
        f.clock.advance(Duration::from_secs(600));
    }
}

fn ids(jobs: &[Leased]) -> Vec<DeliveryId> {
    jobs.iter().map(|leased| leased.job.id).collect()
}

/// Gives a delivery back as one that its limit has delayed.
async fn give_back(store: &Store, leased: &Leased) {
    leased.start.note_refusal();
    store.release(vec![Unattempted::of_leased(leased)]).await.expect("released");
}

#[tokio::test]
async fn deliveries_that_their_limit_has_held_go_before_those_that_came_after_them() {
    let f = Fixture::new().await;
    let key = endpoint(&f, "2/1m").await;
    accept_apart(&f).await;
    let claim = async || f.store.claim(key, 10).await.expect("claimed").jobs;
    let claimed = claim().await;
    let oldest = ids(&claimed);
    assert_eq!(oldest.len(), 2);
    for leased in claimed.iter().rev() {
        give_back(&f.store, leased).await;
    }
    drop(claimed);
    assert_eq!(ids(&claim().await), oldest);
}

/// A node looks for what is due from the first that it found, and the delivery was due long before that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_one_node_gives_back_keeps_its_place_on_the_others() {
    if !database::is_postgres() {
        return;
    }
    let f = Fixture::new().await;
    let key = endpoint(&f, "1/1m").await;
    accept_apart(&f).await;
    let (inbox, _nudges) = Inbox::new();
    let second = Store::open(options(f.folder(), f.clock.clone(), Some(inbox))).await.expect("opens");
    let claimed = f.store.claim(key, 10).await.expect("claimed").jobs;
    assert_eq!((claimed.len(), second.claim(key, 10).await.expect("claimed").jobs.len()), (1, 0));
    give_back(&f.store, &claimed[0]).await;
    assert_eq!(ids(&second.claim(key, 10).await.expect("claimed").jobs), ids(&claimed));
    second.close().await.expect("closed");
}

#[tokio::test]
async fn a_clock_that_is_set_forward_ends_no_window_of_a_running_server() {
    let f = Fixture::new().await;
    let key = endpoint(&f, "1/1m").await;
    f.store.accept((0..2).map(|n| f.event(n)).collect(), None).await.expect("accepted");
    let claim = async || f.store.claim(key, 10).await.expect("claimed");
    let first = claim().await;
    assert_eq!(first.jobs.len(), 1);
    f.clock.advance(Duration::from_secs(3_600));
    let limited = claim().await;
    assert_eq!(limited.jobs.len(), 0);
    assert!(limited.limited_for.is_some_and(|time| time < Duration::from_secs(62)), "{:?}", limited.limited_for);
}

#[tokio::test]
async fn an_attempt_that_is_late_is_counted_in_its_own_place_and_another_waits() {
    let f = Fixture::new().await;
    let key = endpoint(&f, "1/1m").await;
    f.store.accept(vec![f.event(1)], None).await.expect("accepted");
    let claimed = f.store.claim(key, 10).await.expect("claimed").jobs;
    let counted = claimed[0].start.counted().expect("it is counted");
    let rate = counted.rate;
    assert!(claimed[0].start.is_valid(rate));
    let count = async |earlier| f.store.count_start(key, rate, earlier, rate.validity()).await.expect("answered");
    assert_eq!(count(None).await, None);
    let again = count(Some(counted)).await.expect("its own place");
    assert!(again.group >= counted.group);
    assert_eq!(count(None).await, None);
}

#[tokio::test]
async fn nothing_is_counted_for_an_endpoint_that_is_gone() {
    let f = Fixture::new().await;
    let url = ReceiverUrl::parse("http://127.0.0.1:9/", Environment::Development).expect("a URL");
    let limit = RateLimit::parse("2/1m");
    let new = EndpointSettings { rate_limit: limit, ..EndpointSettings::new(&url, vec![EVENT.into()]) };
    let made = f.store.create_endpoint(f.account, new.into(), None).await.expect("an endpoint").resource;
    f.store.accept(vec![f.event(1)], None).await.expect("accepted");
    f.store.refresh().await.expect("refreshed");
    let claimed = f.store.claim(made.key, 10).await.expect("claimed").jobs;
    let counted = claimed[0].start.counted().expect("it is counted");
    f.store.delete_endpoint(f.account, made.id).await.expect("deleted");
    f.store.refresh().await.expect("refreshed");
    for earlier in [None, Some(counted)] {
        let count = f.store.count_start(made.key, counted.rate, earlier, counted.rate.validity()).await;
        assert_eq!(count.expect("answered"), None);
    }
}

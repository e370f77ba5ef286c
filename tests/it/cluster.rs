//! Many nodes on one PostgreSQL: what must hold for all of them together, and what happens when one dies or the
//! database goes away. On SQLite there is one server, and nothing to see here.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use aldaba::clock::{Clock, SystemClock};
use aldaba::domain::time::Timestamp;
use aldaba::domain::transition::DeliveryPolicy;
use aldaba::domain::url::Environment;
use aldaba::store::{
    Accounts, Dispatch, Intake, Isolation, Lifecycle, OpenOptions, PendingReply, ReplyScope, Snapshot, Store,
    StoreError, StoredReply, Unattempted,
};
use serde_json::json;

use crate::app::{App, Call, EVENT, Receiver, Reply, eventually};
use crate::command_line::printed;
use crate::crash::Server;
use crate::database;
use crate::fixture::{Fixture, settlement};
use crate::verify::{assert_signed, plain_verifies};

/// Two nodes, where there can be two.
async fn two(settings: &[(&str, &str)]) -> Option<(App, App)> {
    if !database::is_postgres() {
        return None;
    }
    let first = App::with(settings).await;
    let second = first.another(settings).await;
    Some((first, second))
}

/// How often each delivery arrived.
pub fn arrivals(receiver: &Receiver) -> HashMap<String, usize> {
    let mut arrivals = HashMap::new();
    for request in receiver.received() {
        *arrivals.entry(request.header("x-aldaba-delivery-id").to_owned()).or_insert(0) += 1;
    }
    arrivals
}

/// What the node has delivered itself.
async fn delivered(app: &App) -> u64 {
    app.metric("attempts_delivered_total").await
}

#[tokio::test]
async fn what_any_node_accepts_is_delivered_once() {
    let Some((first, second)) = two(&[]).await else { return };
    let receiver = Receiver::start().await;
    let (id, secret) = first.endpoint(&receiver.url()).await;
    for number in 0..100 {
        let node = if number % 2 == 0 { &first } else { &second };
        node.publish(json!({ "n": number })).await;
    }
    let requests = receiver.wait_for(100).await;
    for request in &requests {
        assert_signed(request, &secret);
    }
    let path = format!("/v1/webhooks/{id}/deliveries?per_page=100");
    for node in [&first, &second] {
        let listed = eventually("every outcome", || async {
            let listed = node.get(&path).await.expect(200).json;
            let all = listed["data"].as_array().expect("a list").iter();
            all.clone().all(|row| row["attributes"]["status"] == "success").then_some(listed)
        })
        .await;
        assert_eq!(listed["meta"]["pagination"]["total"], 100, "the total is exact on every node");
    }
    assert!(arrivals(&receiver).values().all(|times| *times == 1));
    assert!(delivered(&first).await > 0 && delivered(&second).await > 0, "who accepts also sends");
}

#[tokio::test]
async fn a_rotation_that_one_node_has_answered_holds_on_every_other() {
    let Some((first, second)) = two(&[]).await else { return };
    let receiver = Receiver::start().await;
    let (id, _) = first.endpoint(&receiver.url()).await;
    for round in 1..=20 {
        let (rotating, sending) = if round % 2 == 0 { (&first, &second) } else { (&second, &first) };
        let answer = rotating.call("POST", &format!("/v1/webhooks/{id}/regenerate-secret")).send().await;
        let secret = answer.expect(200).attribute("secret").as_str().expect("a secret").to_owned();
        sending.publish(json!({ "n": round })).await;
        let requests = receiver.wait_for(round).await;
        assert!(plain_verifies(&requests[round - 1], &secret), "round {round} was signed with an old secret");
    }
}

/// A request for an earlier delivery claims it from the store: it is no older than the request either.
#[tokio::test]
async fn a_rotation_that_one_node_has_answered_signs_what_is_sent_again_on_another() {
    let Some((first, second)) = two(&[]).await else { return };
    let receiver = Receiver::start().await;
    let (id, _) = first.endpoint(&receiver.url()).await;
    let delivery = delivered_once(&first, &id, &receiver).await;
    for round in 1..=20 {
        let (rotating, sending) = if round % 2 == 0 { (&first, &second) } else { (&second, &first) };
        // The node knows the endpoint, as one that has much to do.
        sending.publish(json!({ "n": round })).await;
        receiver.wait_for(2 * round).await;
        let answer = rotating.call("POST", &format!("/v1/webhooks/{id}/regenerate-secret")).send().await;
        let secret = answer.expect(200).attribute("secret").as_str().expect("a secret").to_owned();
        sending.post(&format!("/v1/webhooks/deliveries/{delivery}/retry"), json!({})).await.expect(202);
        let requests = receiver.wait_for(2 * round + 1).await;
        assert!(plain_verifies(&requests[2 * round], &secret), "round {round} was signed with an old secret");
        settled(&first, &delivery).await;
    }
}

/// Publishes an event and returns its delivery, when that has succeeded.
pub async fn delivered_once(app: &App, endpoint: &str, receiver: &Receiver) -> String {
    app.publish(json!({})).await;
    receiver.wait_for(1).await;
    let listed = app.get(&format!("/v1/webhooks/{endpoint}/deliveries")).await.expect(200).json;
    let id = listed["data"][0]["id"].as_str().expect("an id").to_owned();
    settled(app, &id).await;
    id
}

async fn settled(app: &App, delivery: &str) {
    let path = format!("/v1/webhooks/deliveries/{delivery}");
    eventually("the outcome", || async { (app.get(&path).await.attribute("status") == "success").then_some(()) }).await;
}

/// A node remembers who subscribes. What another has answered since is not forgotten over that.
#[tokio::test]
async fn what_one_node_has_answered_of_subscribers_holds_for_what_another_accepts_next() {
    let Some((first, second)) = two(&[]).await else { return };
    let receiver = Receiver::start().await;
    let published = async |event: &str| {
        let told = second.post("/v1/events", json!({ "event": event, "data": {} })).await;
        told.expect(202).attribute("deliveries").as_u64().expect("a count")
    };
    let mut subscribers = Vec::new();
    for round in 1..=5 {
        assert_eq!(published(EVENT).await, round - 1, "so it is known");
        let (id, _) = first.endpoint(&receiver.url()).await;
        assert_eq!(published(EVENT).await, round, "one more");
        subscribers.push(id);
    }
    for (id, left) in subscribers.iter().zip([4, 3]) {
        first.put(&format!("/v1/webhooks/{id}"), json!({ "status": "disabled" })).await.expect(200);
        assert_eq!(published(EVENT).await, left, "one is paused");
    }
    first.put(&format!("/v1/webhooks/{}", subscribers[0]), json!({ "status": "active" })).await.expect(200);
    assert_eq!(published(EVENT).await, 4, "and active again");
    first.call("DELETE", &format!("/v1/webhooks/{}", subscribers[4])).send().await.expect(204);
    assert_eq!(published(EVENT).await, 3, "one is deleted");
    let kind = json!({ "name": "order.shipped", "description": "It is on its way." });
    first.call("POST", "/v1/event-types").bearer(&first.operator).json(&kind).send().await.expect(201);
    assert_eq!(published("order.shipped").await, 0, "a new type has no subscribers");
    let both = json!({ "events": [EVENT, "order.shipped"] });
    first.put(&format!("/v1/webhooks/{}", subscribers[2]), both).await.expect(200);
    assert_eq!(published("order.shipped").await, 1, "and now it has");
    assert_eq!(published(EVENT).await, 3);
}

#[tokio::test]
async fn two_rotations_at_once_on_two_nodes_both_succeed_and_one_of_them_signs() {
    let Some((first, second)) = two(&[]).await else { return };
    let receiver = Receiver::start().await;
    let (id, _) = first.endpoint(&receiver.url()).await;
    let path = format!("/v1/webhooks/{id}/regenerate-secret");
    for round in 1..=10 {
        let (one, other) = tokio::join!(first.call("POST", &path).send(), second.call("POST", &path).send());
        let secrets = [one, other].map(|answer| answer.expect(200).attribute("secret").as_str().map(str::to_owned));
        first.publish(json!({})).await;
        let request = receiver.wait_for(round).await[round - 1].clone();
        let signs = secrets.iter().flatten().filter(|secret| plain_verifies(&request, secret)).count();
        assert_eq!(signs, 1);
        let hint = second.get(&format!("/v1/webhooks/{id}")).await.expect(200).attribute("secret_hint").clone();
        let current = secrets.iter().flatten().find(|secret| plain_verifies(&request, secret)).expect("one");
        assert_eq!(hint, format!("...{}", &current[60..]), "the one that is shown is the one that signs");
    }
}

#[tokio::test]
async fn a_pause_and_a_deletion_hold_on_every_node() {
    let Some((first, second)) = two(&[("WEBHOOKS__RETRY_SCHEDULE", "200ms,200ms,200ms,200ms,200ms,200ms")]).await
    else {
        return;
    };
    let receiver = Receiver::start().await;
    receiver.always(Reply::Status(500));
    let (id, _) = first.endpoint(&receiver.url()).await;
    let path = format!("/v1/webhooks/{id}");
    for _ in 0..5 {
        second.publish(json!({})).await;
    }
    receiver.wait_for(5).await;
    first.put(&path, json!({ "status": "disabled" })).await.expect(200);
    let paused = receiver.received().len();
    let told = second.post("/v1/events", json!({ "event": EVENT, "data": {} })).await.expect(202);
    assert_eq!(told.attribute("deliveries"), 0);
    tokio::time::sleep(Duration::from_millis(600)).await;
    // What was on its way when the pause was answered may still have come.
    let after = receiver.received().len();
    assert!(after <= paused + 5, "{after} after {paused}");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(receiver.received().len(), after, "nothing more is sent while it is paused");
    receiver.always(Reply::Status(200));
    second.put(&path, json!({ "status": "active" })).await.expect(200);
    let retried = eventually("the deliveries of the endpoint", || async {
        let listed = first.get(&format!("{path}/deliveries?per_page=100")).await.expect(200).json;
        let rows = listed["data"].as_array().expect("a list").clone();
        rows.iter().all(|row| row["attributes"]["status"] == "success").then_some(rows.len())
    });
    assert_eq!(retried.await, 5);
    first.delete(&path).await.expect(204);
    second.get(&path).await.refused(404, "not_found", "");
    assert_eq!(second.post("/v1/events", json!({ "event": EVENT, "data": {} })).await.attribute("deliveries"), 0);
}

#[tokio::test]
async fn keys_and_types_are_known_to_every_node_at_once_and_forgotten_within_a_second() {
    let Some((first, second)) = two(&[]).await else { return };
    for round in 0..5 {
        let path = format!("/v1/accounts/{}/api-keys", first.account);
        let made = first.post(&path, json!({ "permissions": ["webhooks:read", "events:create"] })).await.expect(201);
        let key = made.attribute("key").as_str().expect("a key").to_owned();
        let list = || Call::new(second.address, "GET", "/v1/webhooks").bearer(&key);
        list().send().await.expect(200);
        let name = format!("cluster.round_{round}");
        let types = first.call("POST", "/v1/event-types").bearer(&first.operator);
        types.json(&json!({ "name": name })).send().await.expect(201);
        second.post("/v1/events", json!({ "event": name, "data": {} })).await.expect(202);
        first.delete(&format!("{path}/{}", made.id())).await.expect(204);
        let revoked = Instant::now();
        while list().send().await.status == 200 {
            assert!(revoked.elapsed() < Duration::from_secs(1), "a revoked key works for a second at most");
        }
        list().send().await.refused(401, "unauthorized", "");
    }
}

#[tokio::test]
async fn a_rate_limit_holds_over_all_nodes() {
    let Some((first, second)) = two(&[("RATE_LIMITS__WEBHOOKS_LIST", "7/60s")]).await else { return };
    let mut passed = 0;
    for number in 0..20 {
        let node = if number % 2 == 0 { &first } else { &second };
        let answer = node.get("/v1/webhooks").await;
        passed += usize::from(answer.status == 200);
        if answer.status != 200 {
            let answer = answer.refused(429, "rate_limit_exceeded", "");
            assert_eq!(answer.header("x-ratelimit-limit"), "7");
        }
    }
    assert_eq!(passed, 7);
}

#[tokio::test]
async fn what_an_account_may_store_holds_over_all_nodes() {
    let Some((first, second)) = two(&[("RATE_LIMITS__EVENTS_STORAGE", "30/60s")]).await else { return };
    let batch = json!({ "events": vec![json!({ "event": EVENT, "data": {} }); 20] });
    first.post("/v1/events/batch", batch.clone()).await.expect(202);
    second.post("/v1/events/batch", batch.clone()).await.expect(202);
    for node in [&first, &second] {
        node.post("/v1/events/batch", batch.clone()).await.refused(429, "rate_limit_exceeded", "");
    }
}

#[tokio::test]
async fn an_idempotency_key_has_one_effect_over_all_nodes() {
    let Some((first, second)) = two(&[]).await else { return };
    for round in 0..10 {
        let body = json!({ "event": EVENT, "data": { "round": round } });
        let call = |node: &App| {
            let key = format!("round-{round}");
            node.call("POST", "/v1/events").header("idempotency-key", &key).json(&body).send()
        };
        let answers = tokio::join!(call(&first), call(&second), call(&first), call(&second));
        let mut ids = std::collections::BTreeSet::new();
        for answer in [answers.0, answers.1, answers.2, answers.3] {
            match answer.status {
                202 => _ = ids.insert(answer.id()),
                _ => _ = answer.refused(409, "idempotency_key_in_progress", ""),
            }
        }
        assert_eq!(ids.len(), 1);
        let again = call(&second).await.expect(202);
        assert_eq!((again.header("idempotent-replayed"), ids.contains(&again.id())), ("true", true));
    }
    let total = first.get("/v1/events?per_page=1").await.expect(200).json["meta"]["pagination"]["total"].clone();
    assert_eq!(total, 10);
}

#[tokio::test]
async fn requests_to_an_endpoint_are_bounded_over_all_nodes() {
    let Some((first, second)) = two(&[("WEBHOOKS__MAX_IN_FLIGHT_PER_ENDPOINT", "1")]).await else { return };
    let receiver = Receiver::start().await;
    receiver.always(Reply::Late(Duration::from_millis(30)));
    // Until each knows of the other, there may be twice as many.
    for node in [&first, &second] {
        eventually("both to know of each other", || async { (node.metric("nodes").await == 2).then_some(()) }).await;
    }
    first.endpoint(&receiver.url()).await;
    for number in 0..20 {
        let node = if number % 2 == 0 { &first } else { &second };
        node.publish(json!({ "n": number })).await;
    }
    let requests = receiver.wait_for(20).await;
    // The next one comes when the one before it has been answered, whichever node has accepted it.
    let mut times: Vec<_> = requests.iter().map(|request| request.at).collect();
    times.sort();
    let close = times.windows(2).filter(|pair| pair[1] - pair[0] < Duration::from_millis(25)).count();
    assert!(close <= 2, "{close} of 20 came while another was under way");
    assert!(arrivals(&receiver).values().all(|times| *times == 1));
}

#[tokio::test]
async fn a_node_may_only_answer_calls_and_another_only_send() {
    if !database::is_postgres() {
        return;
    }
    let api = App::with(&[("ROLES", "api")]).await;
    let sender = api.another(&[("ROLES", "delivery")]).await;
    let receiver = Receiver::start().await;
    let (id, _) = api.endpoint(&receiver.url()).await;
    api.publish(json!({})).await;
    let begun = Instant::now();
    receiver.wait_for(1).await;
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "it is woken, and does not wait for a look: {:?}",
        begun.elapsed()
    );
    api.delivery(&id, "success").await;
    let told = api.call("POST", &format!("/v1/webhooks/{id}/test")).send().await.expect(200);
    assert_eq!(told.attribute("delivered"), true);
    let asked = |path| Call::new(sender.address, "GET", path).bearer(&sender.key).send();
    asked("/docs").await.expect(404);
    asked("/readyz").await.expect(200);
    assert_eq!((delivered(&api).await, delivered(&sender).await), (0, 1));
}

#[tokio::test]
async fn a_node_that_stops_gives_back_what_it_has_not_sent() {
    let settings = [("WEBHOOKS__RETRY_SCHEDULE", "1s,1s,1s"), ("WEBHOOKS__TIMEOUT", "1s")];
    let Some((first, second)) = two(&settings).await else { return };
    let receiver = Receiver::start().await;
    receiver.script((0..2).map(|_| Reply::Hang));
    first.endpoint(&receiver.url()).await;
    for number in 0..30 {
        first.publish(json!({ "n": number })).await;
    }
    receiver.wait_for(2).await;
    let stopped = Instant::now();
    first.stop().await;
    eventually("every delivery", || async { (arrivals(&receiver).len() == 30).then_some(()) }).await;
    assert!(stopped.elapsed() < Duration::from_secs(9), "nobody waits for a lease to run out: {:?}", stopped.elapsed());
    drop(second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_node_had_is_taken_over_and_nothing_is_lost() {
    if !database::is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let account = printed(folder.path(), &["accounts", "create", "killed"]);
    let key = printed(folder.path(), &["keys", "create", "--account", &account]);
    let receiver = Receiver::start().await;
    let (victim, survivor) = (Server::start(folder.path(), &[]), Server::start(folder.path(), &[]));
    let body = json!({ "url": receiver.url(), "events": [EVENT] });
    Call::new(survivor.address, "POST", "/v1/webhooks").bearer(&key).json(&body).send().await.expect(201);
    let mut accepted = 0;
    let mut victim = Some(victim);
    for number in 0..600 {
        let address = victim.as_ref().filter(|_| number % 2 == 0).map_or(survivor.address, |victim| victim.address);
        let body = json!({ "event": EVENT, "data": { "n": number } });
        let answer = Call::new(address, "POST", "/v1/events").bearer(&key).json(&body).try_send().await;
        accepted += usize::from(answer.is_some_and(|answer| answer.status == 202));
        if number == 300
            && let Some(victim) = victim.take()
        {
            victim.kill();
        }
    }
    assert!(accepted >= 599);
    eventually("every accepted event", || async { (arrivals(&receiver).len() >= accepted).then_some(()) }).await;
    let twice = arrivals(&receiver).values().filter(|times| **times > 1).count();
    assert!(twice <= 64, "{twice} came twice: more than one node has in flight");
}

#[tokio::test]
async fn while_the_database_is_away_calls_are_refused_and_afterwards_all_goes_on() {
    let Some((first, second)) = two(&[]).await else { return };
    let receiver = Receiver::start().await;
    receiver.script((0..5).map(|_| Reply::Late(Duration::from_secs(1))));
    let (id, _) = first.endpoint(&receiver.url()).await;
    for number in 0..5 {
        first.publish(json!({ "n": number })).await;
    }
    database::destroy(first.folder()).await;
    for node in [&first, &second] {
        let asked = Instant::now();
        let refused = node.post("/v1/events", json!({ "event": EVENT, "data": {} })).await;
        assert_eq!(refused.refused(503, "unavailable", "").header("retry-after"), "1");
        Call::new(node.address, "GET", "/readyz").send().await.refused(503, "unavailable", "");
        Call::new(node.address, "GET", "/healthz").send().await.expect(200);
        assert!(asked.elapsed() < Duration::from_secs(12), "{:?}", asked.elapsed());
    }
    database::restore(first.folder()).await;
    for node in [&first, &second] {
        eventually("the node to be ready", || async {
            (Call::new(node.address, "GET", "/readyz").send().await.status == 200).then_some(())
        })
        .await;
        node.publish(json!({})).await;
    }
    let listed = eventually("every outcome", || async {
        let listed = first.get(&format!("/v1/webhooks/{id}/deliveries")).await.expect(200).json;
        let rows = listed["data"].as_array().expect("a list").clone();
        rows.iter().all(|row| row["attributes"]["status"] == "success").then_some(rows.len())
    });
    assert_eq!(listed.await, 7);
}

#[tokio::test]
async fn a_database_that_falls_silent_is_answered_for_in_time() {
    if !database::is_postgres() {
        return;
    }
    let proxy = database::Proxy::start();
    let base = App::start().await;
    let url = database::url(base.folder()).replace(&proxy.cluster, &proxy.folder());
    let behind = base.another(&[("DATABASE_URL", &url)]).await;
    behind.get("/v1/webhooks").await.expect(200);
    proxy.freeze(true);
    let asked = Instant::now();
    let (called, ready) = tokio::join!(behind.get("/v1/webhooks"), Call::new(behind.address, "GET", "/readyz").send());
    called.refused(503, "unavailable", "");
    ready.refused(503, "unavailable", "");
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    base.get("/v1/webhooks").await.expect(200);
    proxy.freeze(false);
    eventually("the node to be back", || async { (behind.get("/v1/webhooks").await.status == 200).then_some(()) })
        .await;
}

/// A clock of its own mind, until it follows another.
struct Wrong(AtomicI64);

impl Clock for Wrong {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(SystemClock.now().as_millis() + self.0.load(Ordering::Relaxed))
    }

    fn adjust(&self, ahead_ms: i64) {
        self.0.fetch_add(ahead_ms, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn nodes_whose_clocks_differ_by_minutes_go_by_the_databases() {
    if !database::is_postgres() {
        return;
    }
    let app = App::start().await;
    for wrong_ms in [-600_000, 600_000] {
        let (database, keys) = database::options(app.folder());
        let clock = Arc::new(Wrong(AtomicI64::new(wrong_ms)));
        let options = OpenOptions {
            database,
            keys,
            environment: Environment::Development,
            policy: DeliveryPolicy::default(),
            max_endpoints: 50,
            max_api_keys: 100,
            max_in_flight_per_endpoint: 64,
            serves: true,
            clock: clock.clone(),
            random: Arc::new(aldaba::clock::SystemRandom::default()),
            inbox: None,
        };
        let store = Store::open(options).await.expect("opens");
        let made = store.create_account("wrong".into(), None).await.expect("an account");
        let off = (made.created_at.as_millis() - SystemClock.now().as_millis()).abs();
        assert!(off < 1_000, "{off} ms off");
        store.close().await.expect("closed");
    }
}

#[tokio::test]
async fn what_was_leased_before_a_node_was_given_up_is_not_sent_under_its_next_lease() {
    if !database::is_postgres() {
        return;
    }
    let mut f = Fixture::new().await;
    f.endpoint().await;
    f.store.accept(vec![f.event(1)], None).await.expect("accepted");
    let jobs = f.jobs(1).await;
    assert!(f.store.is_lease_valid(jobs[0].job.lease));
    // As others do who have not heard of it for long.
    database::execute(f.folder(), "DELETE FROM nodes").await;
    eventually("the node to notice", || async { (!f.store.is_lease_valid(jobs[0].job.lease)).then_some(()) }).await;
    let late = f.store.settle(Arc::new(vec![settlement(&jobs[0], 200)]), Isolation::Shared).await.expect("answered");
    assert_eq!(late, [aldaba::store::Settled::LeaseLost]);
    f.store.release(vec![Unattempted::of(&jobs[0].job)]).await.expect("answered");
    let again = eventually("it to be due", || async {
        let claimed = f.store.claim(jobs[0].job.endpoint, 10).await.expect("claimed");
        claimed.jobs.into_iter().next()
    })
    .await;
    assert!(again.job.id == jobs[0].job.id && f.store.is_lease_valid(again.job.lease));
}

#[tokio::test]
async fn what_a_lost_write_has_leased_to_nobodys_memory_is_sent_after_all() {
    if !database::is_postgres() {
        return;
    }
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "1h")]).await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Status(500)]);
    let (id, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    app.delivery(&id, "retrying").await;
    // The commit of a claim whose answer never came.
    database::execute(app.folder(), "UPDATE queue SET due_at = NULL, lease = (SELECT max(key) FROM nodes)").await;
    app.delivery(&id, "success").await;
    assert_eq!(receiver.received().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotency_key_that_comes_twice_in_one_commit_refuses_nobody_else() {
    if !database::is_postgres() {
        return;
    }
    let f = Fixture::new().await;
    for round in 0..20 {
        let pending_reply = || {
            let scope = ReplyScope { account: Some(f.account), path: "/v1/events".into(), key: format!("k{round}") };
            let render =
                |_: &Vec<_>| StoredReply { body_hash: [0; 32], status: 202, request_id: "r".into(), body: vec![] };
            Some(PendingReply { scope, render: Box::new(render) })
        };
        let (one, other, innocent) = tokio::join!(
            f.store.accept(vec![f.event(1)], pending_reply()),
            f.store.accept(vec![f.event(1)], pending_reply()),
            f.store.accept(vec![f.event(2)], None)
        );
        innocent.expect("accepted");
        let taken = [&one, &other].iter().filter(|result| matches!(result, Err(StoreError::KeyTaken))).count();
        assert_eq!((taken, [one, other].iter().filter(|result| result.is_ok()).count()), (1, 1));
    }
}

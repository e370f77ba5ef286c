//! Moving an embedded installation to PostgreSQL: nothing is lost, and the old place is not used again.

use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aldaba::clock::{Clock, ManualClock, SystemClock, SystemRandom};
use aldaba::domain::event::Event;
use aldaba::domain::settings::EndpointSettings;
use aldaba::domain::time::Timestamp;
use aldaba::domain::transition::DeliveryPolicy;
use aldaba::domain::url::{Environment, ReceiverUrl};
use aldaba::store::keys::KeySource;
use aldaba::store::{Accounts, Database, Endpoints, Holds, Intake, Lifecycle, Log, OpenOptions, Page, Snapshot, Store};
use serde_json::{Value, json};

use crate::app::{App, Call, EVENT, Receiver, Reply};
use crate::command_line::aldaba;
use crate::crash::Server;
use crate::database;
use crate::fixture::event;
use crate::tls::Authority;
use crate::verify::assert_signed;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Every attribute of every list that the key can read.
async fn everything(address: std::net::SocketAddr, key: &str, endpoints: &[String]) -> Vec<Value> {
    let mut paths = vec!["/v1/webhooks".to_owned(), "/v1/webhooks/deliveries?per_page=100".to_owned()];
    paths.push("/v1/events?per_page=100".to_owned());
    paths.push("/v1/event-types?per_page=100".to_owned());
    for id in endpoints {
        paths.extend([format!("/v1/webhooks/{id}/deliveries"), format!("/v1/webhooks/{id}/missed")]);
    }
    let listed = Call::new(address, "GET", "/v1/webhooks/deliveries?per_page=100").bearer(key).send().await;
    for row in listed.json["data"].as_array().expect("a list") {
        paths.push(format!("/v1/webhooks/deliveries/{}", row["id"].as_str().expect("an id")));
    }
    let mut all = Vec::new();
    for path in paths {
        let mut json = Call::new(address, "GET", &path).bearer(key).send().await.expect(200).json;
        json["meta"]["request_id"] = Value::Null;
        all.push(json);
    }
    all
}

/// An endpoint with every attribute.
fn every_attribute(url: &str, name: &str) -> Value {
    json!({
        "url": url,
        "events": [EVENT, "validation.*"],
        "description": name,
        "metadata": { "name": name },
        "channels": ["tenant:7"],
        "timeout_seconds": 7,
        "max_in_flight": 3,
        "retry_schedule": [3600, 3600],
        "rate_limit": "100/1m",
        "filter": { "data": { "n": { "$gte": 0 } } },
        "secret": (name == "first").then_some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        "headers": { "X-Key": "the-key-that-moves" },
        "authentication": { "type": "bearer", "token": "the-token-that-moves" },
    })
}

/// An endpoint with a client certificate.
fn with_certificate() -> Value {
    let authority = Authority::new();
    let pair = json!({ "certificate": authority.read("receiver.pem"), "private_key": authority.read("receiver.key") });
    let (url, events) = ("https://a.tests.localhost:9/", ["billing.trial_will_end"]);
    json!({ "url": url, "events": events, "client_certificate": pair })
}

/// Moves the file to PostgreSQL, and tries it again. `run` runs a command on the file or on PostgreSQL.
fn moves_once(file: &str, run: impl Fn(&[&str], bool) -> Output) {
    let moved = run(&["import", "--from", file, "--json"], false);
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
    let told: Value = serde_json::from_slice(&moved.stdout).expect("JSON");
    assert!(told["rows"].as_u64() > Some(20), "{told}");
    let again = run(&["import", "--from", file], false);
    assert!(String::from_utf8_lossy(&again.stderr).contains("has taken in another already"));
    let refused = run(&["accounts", "list"], true);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("was moved to PostgreSQL"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_installation_moves_with_everything_and_goes_on() {
    if !database::is_postgres() {
        return;
    }
    let receiver = Receiver::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = format!("sqlite://{}", folder.path().join("aldaba.db").display());
    let old = [("ALDABA_DATABASE_URL", file.as_str()), ("ALDABA_WEBHOOKS__RETRY_SCHEDULE", "1h,1h")];
    let run = |args: &[&str], sqlite: bool| {
        let mut command = aldaba(folder.path(), args);
        if sqlite {
            command.envs(old).env_remove("ALDABA_SECRETS__MASTER_KEY");
        }
        command.stdin(Stdio::null()).output().expect("it runs")
    };
    let printed = |args: &[&str]| String::from_utf8(run(args, true).stdout).expect("text").trim().to_owned();
    let account = printed(&["accounts", "create", "moving"]);
    let key = printed(&["keys", "create", "--account", &account]);
    let server = Server::start_without_key(folder.path(), &old);
    let call =
        |method: &str, path: &str, body: Value| Call::new(server.address, method, path).bearer(&key).json(&body).send();
    let mut endpoints = Vec::new();
    let mut secrets = Vec::new();
    for name in ["first", "second"] {
        let body = every_attribute(&receiver.url(), name);
        let made = call("POST", "/v1/webhooks", body).await.expect(201);
        endpoints.push(made.id());
        secrets.push(made.attribute("secret").as_str().expect("a secret").to_owned());
    }
    call("POST", "/v1/webhooks", with_certificate()).await.expect(201);
    receiver.script([Reply::Status(500), Reply::Status(500), Reply::Status(200), Reply::Status(200)]);
    for number in 0..2 {
        let body =
            json!({ "event": EVENT, "channels": ["tenant:7"], "data": { "n": number }, "traceparent": TRACEPARENT });
        call("POST", "/v1/events", body).await.expect(202);
        receiver.wait_for(2 + number * 2).await;
    }
    let paused = json!({ "status": "disabled" });
    call("PUT", &format!("/v1/webhooks/{}", endpoints[1]), paused).await.expect(200);
    let body = json!({ "event": EVENT, "channels": ["tenant:7"], "data": { "n": 2 } });
    let keyed =
        || Call::new(server.address, "POST", "/v1/events").bearer(&key).header("idempotency-key", "k").json(&body);
    let first_answer = keyed().send().await.expect(202);
    receiver.wait_for(5).await;
    let settled = || async {
        let path = "/v1/webhooks/deliveries?status=pending";
        let open = Call::new(server.address, "GET", path).bearer(&key).send().await.expect(200);
        (open.json["meta"]["pagination"]["total"] == 0).then_some(())
    };
    crate::app::eventually("outcomes", settled).await;
    let before = everything(server.address, &key, &endpoints).await;
    let running = run(&["import", "--from", &file], false);
    assert!(!running.status.success(), "not while a server runs on it");
    assert_eq!(server.terminate().code(), Some(0));

    moves_once(&file, run);
    assert_eq!(crate::migrations::minimum(folder.path()).await, 21, "older programs would not serve these endpoints");
    let counted = "SELECT count(*) FROM limited_attempts WHERE attempts LIKE '[[%'";
    assert_eq!(database::number(folder.path(), counted).await, 2, "what counts towards rate limits moves too");

    let server = Server::start(folder.path(), &[("ALDABA_WEBHOOKS__RETRY_SCHEDULE", "1h,1h")]);
    let after = everything(server.address, &key, &endpoints).await;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    let kept = Call::new(server.address, "POST", "/v1/events").bearer(&key).header("idempotency-key", "k").json(&body);
    let kept = kept.send().await.expect(202);
    assert_eq!((kept.id(), kept.header("idempotent-replayed")), (first_answer.id(), "true"));
    let publish = Call::new(server.address, "POST", "/v1/events").bearer(&key).json(&body);
    publish.send().await.expect(202);
    let request = receiver.wait_for(6).await.remove(5);
    assert_signed(&request, &secrets[0]);
    assert_eq!(request.header("x-key"), "the-key-that-moves");
    assert_eq!(request.header("authorization"), "Bearer the-token-that-moves");
    let path = format!("/v1/webhooks/deliveries?status=success&endpoint_id={}", endpoints[0]);
    let listed = Call::new(server.address, "GET", &path).bearer(&key).send().await.expect(200);
    let oldest = listed.json["data"].as_array().and_then(|rows| rows.last()?["id"].as_str()).expect("one of before");
    let path = format!("/v1/webhooks/deliveries/{oldest}/retry");
    Call::new(server.address, "POST", &path).bearer(&key).json(&json!({})).send().await.expect(202);
    assert!(receiver.wait_for(7).await[6].header("traceparent").starts_with(&TRACEPARENT[..36]));
    let more = json!({ "url": receiver.url(), "events": [EVENT] });
    Call::new(server.address, "POST", "/v1/webhooks").bearer(&key).json(&more).send().await.expect(201);
}

#[tokio::test]
async fn a_database_that_is_in_use_takes_in_no_other() {
    if !database::is_postgres() {
        return;
    }
    let app = App::start().await;
    let file = app.folder().join("other.db");
    let url = format!("sqlite://{}", file.display());
    let refused = aldaba(app.folder(), &["import", "--from", &url]).output().expect("it runs");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("it must be a new one"));
    assert!(!file.exists());
    assert_eq!(app.store.accounts(Page { page: 1, per_page: 1 }).await.expect("listed").total, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_was_interrupted_goes_on_where_it_was() {
    use aldaba::domain::event::{NewEvent, message};
    if !database::is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("aldaba.db");
    let (postgres, keys) = database::options(folder.path());
    let source = open(Database::Sqlite(file.clone()), keys.clone()).await;
    let account = source.create_account("a".into(), None).await.expect("an account").id;
    let url = ReceiverUrl::parse("http://127.0.0.1:9/", Environment::Development).expect("a URL");
    let new = EndpointSettings::new(&url, vec![EVENT.into()]);
    let endpoint = source.create_endpoint(account, new.into(), None).await.expect("an endpoint").resource.id;
    let now = Timestamp::from_millis(1_800_000_000_000);
    for _ in 0..6 {
        let numbered = |n: u32| NewEvent {
            account,
            event_type: EVENT.into(),
            occurred_at: now,
            validation_id: None,
            channels: None,
            trace: None,
            body: message(EVENT, now, &format!("{{\"n\":{n}}}")),
        };
        source.accept((0..1_000).map(numbered).collect(), None).await.expect("accepted");
    }
    drop(source);
    let target = open(postgres, keys.clone()).await;
    for table in ["accounts", "events", "deliveries"] {
        let (store, keys, file) = (target.clone(), keys.clone(), file.clone());
        let (reached, mut waiting) = tokio::sync::mpsc::unbounded_channel();
        let importing = tokio::spawn(async move {
            let told = |name: &str, _: usize| _ = reached.send(name.to_owned());
            store.import(&file, &keys, &SystemClock, told).await
        });
        while waiting.recv().await.is_some_and(|name| name != table) {}
        importing.abort();
        let _ = importing.await;
    }
    crate::app::eventually("the file to be free", || async {
        target.import(&file, &keys, &SystemClock, |_, _| {}).await.ok()
    })
    .await;
    let one = Page { page: 1, per_page: 1 };
    assert_eq!(target.events(account, one).await.expect("listed").total, 6_000);
    assert_eq!(target.endpoint_deliveries(account, endpoint, one).await.expect("listed").total, 6_000);
    for (table, rows) in [("events", 6_000), ("payloads", 6_000), ("deliveries", 6_000), ("queue", 6_000)] {
        assert_eq!(database::number(folder.path(), &format!("SELECT count(*) FROM {table}")).await, rows, "{table}");
    }
}

/// The times of ids that a clock ahead has made are told by the offsets of the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_that_were_set_right_in_the_file_are_right_after_the_import() {
    if !database::is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("aldaba.db");
    let (postgres, keys) = database::options(folder.path());
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_770_000_000_000)));
    let source = open_at(Database::Sqlite(file.clone()), keys.clone(), clock.clone()).await;
    let account = source.create_account("a".into(), None).await.expect("an account").id;
    let start = clock.now();
    for (n, hours) in [(1, 0), (2, 10 * 365 * 24), (3, 1), (4, 2)] {
        clock.set(start.plus(Duration::from_secs(hours * 3_600)));
        source.accept(vec![event(account, n)], None).await.expect("accepted");
    }
    let all = Page { page: 1, per_page: 100 };
    let times = |events: &[Event]| events.iter().map(|event| (event.id, event.created_at)).collect::<Vec<_>>();
    let before = times(&source.events(account, all).await.expect("listed").items);
    assert!(before.iter().all(|(_, at)| *at <= clock.now()), "{before:?}");
    source.close().await.expect("closed");
    drop(source);
    let target = open(postgres.clone(), keys.clone()).await;
    crate::app::eventually("the file to be free", || async {
        target.import(&file, &keys, &SystemClock, |_, _| {}).await.ok()
    })
    .await;
    target.close().await.expect("closed");
    let target = open(postgres, keys).await;
    assert_eq!(times(&target.events(account, all).await.expect("listed").items), before);
    // What is made next follows what the clock ahead has made, and has the time of now.
    let next = target.accept(vec![event(account, 5)], None).await.expect("accepted").remove(0);
    assert!(next.id > before[0].0, "{} follows {}", next.id, before[0].0);
    let off = next.created_at.as_millis() - SystemClock.now().as_millis();
    assert!(off.abs() < 60_000, "{off} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_that_are_on_hold_are_on_hold_after_the_import() {
    if !database::is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("aldaba.db");
    let (postgres, keys) = database::options(folder.path());
    let source = open(Database::Sqlite(file.clone()), keys.clone()).await;
    source.create_account("a".into(), None).await.expect("an account");
    source.hold().await.expect("held");
    source.close().await.expect("closed");
    drop(source);
    let target = open(postgres, keys.clone()).await;
    target.import(&file, &keys, &SystemClock, |_, _| {}).await.expect("imported");
    assert!(target.view().on_hold_since().is_some());
}

async fn open(database: Database, keys: KeySource) -> Store {
    open_at(database, keys, Arc::new(SystemClock)).await
}

async fn open_at(database: Database, keys: KeySource, clock: Arc<dyn Clock>) -> Store {
    let options = OpenOptions {
        database,
        keys,
        environment: Environment::Development,
        policy: DeliveryPolicy::default(),
        max_endpoints: 50,
        max_api_keys: 100,
        max_in_flight_per_endpoint: 64,
        serves: false,
        clock,
        random: Arc::new(SystemRandom::default()),
        inbox: None,
    };
    Store::open(options).await.expect("opens")
}

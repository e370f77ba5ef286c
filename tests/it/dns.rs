//! Names of receivers: what look-ups that hang cost other accounts, and what is asked only once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aldaba::domain::id::AccountId;
use aldaba::domain::permission::Permission;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::app::{self, Answer, App, Call, EVENT, Receiver, Reply, eventually};
use crate::name_server::NameServer;

/// A server that asks this name server.
async fn asking(names: &NameServer, settings: &[(&str, &str)]) -> App {
    let servers = names.address.to_string();
    let mut all = vec![("EGRESS__DNS_SERVERS", servers.as_str()), ("WEBHOOKS__MAX_ENDPOINTS", "500")];
    all.extend(settings);
    App::with(&all).await
}

fn create(app: &App, key: &str, host: &str, port: u16) -> Call {
    let body = json!({ "url": format!("http://{host}:{port}/"), "events": [EVENT] });
    Call::new(app.address, "POST", "/v1/webhooks").bearer(key).json(&body)
}

/// The 99th percentile.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[(times.len() * 99).div_ceil(100) - 1]
}

/// How many calls were answered how.
#[derive(Default)]
struct AttemptCounts(BTreeMap<(u16, String), usize>);

impl AttemptCounts {
    fn count(&mut self, answer: &Answer) {
        let code = answer.json["errors"][0]["code"].as_str().unwrap_or("").to_owned();
        *self.0.entry((answer.status, code)).or_default() += 1;
        if answer.status == 503 {
            assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1), "{answer:?}");
        }
    }

    fn of(&self, status: u16, code: &str) -> usize {
        self.0.get(&(status, code.to_owned())).copied().unwrap_or(0)
    }
}

/// Creates endpoints with names that never answer, 80 calls at once with each of five keys.
async fn attack(app: &App, account: AccountId, attempt_counts: &Arc<Mutex<AttemptCounts>>) -> JoinSet<()> {
    let mut attacking = JoinSet::new();
    for number in 0..5 {
        let key = app::key(&app.store, Some(account), &[Permission::All]).await;
        for caller in 0..80 {
            attacking.spawn(insist(
                app.address,
                key.clone(),
                format!("silent-{number}-{caller}"),
                attempt_counts.clone(),
            ));
        }
    }
    attacking
}

async fn insist(address: SocketAddr, key: String, name: String, attempt_counts: Arc<Mutex<AttemptCounts>>) {
    for n in 0.. {
        let body = json!({ "url": format!("http://{name}-{n}.test/"), "events": [EVENT] });
        let answer = Call::new(address, "POST", "/v1/webhooks").bearer(&key).json(&body).send().await;
        attempt_counts.lock().expect("no panic").count(&answer);
        if answer.status == 503 {
            // As long as `Retry-After` asks for: the processor is the server's too.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// An account's endpoint with a name, whose receiver closes each connection: every delivery is a look-up.
struct Bystander {
    key: String,
    endpoint: String,
    receiver: Receiver,
}

impl Bystander {
    async fn of(app: &App) -> Self {
        let (_, key) = app.stranger().await;
        let receiver = Receiver::start().await;
        receiver.always(Reply::Full(200, vec![("connection", "close".into())], String::new()));
        let made = create(app, &key, "shop.test", receiver.address.port()).send().await.expect(201);
        Self { key, endpoint: made.id(), receiver }
    }

    /// Publishes so many events and creates an endpoint after every tenth: how long deliveries and creates took.
    async fn work(&self, app: &App, name: &str, events: usize) -> (Vec<Duration>, Vec<Duration>) {
        let (mut delivered, mut created) = (Vec::new(), Vec::new());
        for n in 0..events {
            let (begin, before) = (Instant::now(), self.receiver.received().len());
            let event = json!({ "event": EVENT, "data": { "n": n } });
            Call::new(app.address, "POST", "/v1/events").bearer(&self.key).json(&event).send().await.expect(202);
            self.receiver.wait_for(before + 1).await;
            delivered.push(begin.elapsed());
            if n % 10 == 0 {
                let begin = Instant::now();
                let made = create(app, &self.key, &format!("{name}-{n}.test"), 9).send().await.expect(201);
                created.push(begin.elapsed());
                let path = format!("/v1/webhooks/{}", made.id());
                Call::new(app.address, "DELETE", &path).bearer(&self.key).send().await.expect(204);
            }
        }
        (delivered, created)
    }

    /// Nothing of it was charged or tried twice.
    async fn is_well(&self, app: &App) {
        let get = |path: String| Call::new(app.address, "GET", &path).bearer(&self.key).send();
        let endpoint = get(format!("/v1/webhooks/{}", self.endpoint)).await.expect(200);
        assert_eq!(
            (endpoint.attribute("status"), endpoint.attribute("consecutive_failures")),
            (&json!("active"), &json!(0))
        );
        let path = format!("/v1/webhooks/{}/deliveries?per_page=100", self.endpoint);
        eventually("every delivery to be written as delivered at once", || async {
            let page = get(path.clone()).await.expect(200);
            let deliveries = page.json["data"].as_array().expect("a list").clone();
            let failed = deliveries.iter().find(|one| one["attributes"]["error_message"].is_string());
            assert!(failed.is_none(), "{failed:?}");
            let well = |one: &Value| one["attributes"]["status"] == "success" && one["attributes"]["attempt"] == 1;
            deliveries.iter().all(well).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_never_answer_cost_another_account_no_delivery_no_check_and_no_failure() {
    const EVENTS: usize = 80;
    const FADING: usize = 40;
    let names = NameServer::start().await;
    let app = asking(&names, &[("WEBHOOKS__RETRY_SCHEDULE", "1s,1s,1s,1s,1s,1s,1s")]).await;
    let other = Bystander::of(&app).await;
    let (calm, _) = other.work(&app, "calm", EVENTS / 4).await;
    // Endpoints of the attacker whose names answered when they were checked: their attempts hang too.
    for n in 0..FADING {
        create(&app, &app.key, &format!("fading-{n}.test"), 9).send().await.expect(201);
    }
    names.fade();
    for n in 0..5 {
        app.publish(json!({ "n": n })).await;
    }
    let attempt_counts = Arc::new(Mutex::new(AttemptCounts::default()));
    let attacking = attack(&app, app.account, &attempt_counts).await;
    eventually("the attack to fill its share", || async {
        (attempt_counts.lock().expect("no panic").of(503, "unavailable") >= 300).then_some(())
    })
    .await;
    let (delivered, created) = other.work(&app, "made", EVENTS).await;
    other.is_well(&app).await;
    drop(attacking);
    let attempt_counts = attempt_counts.lock().expect("no panic");
    println!(
        "other account's deliveries: p99 calm {:?}, beside the attack {:?}; of its creates {:?}; the attacker: {:?}",
        p99(calm),
        p99(delivered),
        p99(created),
        attempt_counts.0
    );
    assert!(names.names("silent") > 0, "the look-ups hang");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_names_under_way_are_one_look_up() {
    let names = NameServer::start().await;
    let app = asking(&names, &[]).await;
    let calls: JoinSet<Answer> = (0..100).map(|_| create(&app, &app.key, "silent.test", 9).send()).collect();
    for answer in calls.join_all().await {
        answer.refused(400, "url_dns_failed", "/data/attributes/url");
    }
    // Asked again, with another id, when the first time brought no answer.
    assert!(names.asked("silent.test") <= 2, "{}", names.asked("silent.test"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_up_ends_with_the_call_that_waits_for_it() {
    // Half of the permits for checks.
    const SHARE: usize = 16;
    let names = NameServer::start().await;
    let app = asking(&names, &[("WEBHOOKS__TIMEOUT", "1s")]).await;
    let begin = Instant::now();
    for wave in 0..3 {
        let call = |n| create(&app, &app.key, &format!("silent-{wave}-{n}.test"), 9).send();
        for answer in (0..SHARE).map(call).collect::<JoinSet<_>>().join_all().await {
            answer.refused(400, "url_dns_failed", "/data/attributes/url");
        }
    }
    assert_eq!(names.names("silent"), 3 * SHARE);
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}: the look-ups ended by themselves", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_endpoints_that_are_registered_at_once_wait_for_their_share() {
    let names = NameServer::start().await;
    let app = asking(&names, &[]).await;
    let call = |n| create(&app, &app.key, &format!("shop-{n}.test"), 9).send();
    for answer in (0..50).map(call).collect::<JoinSet<_>>().join_all().await {
        answer.expect(201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_kept_for_as_long_as_its_record_says() {
    let names = NameServer::start().await;
    let app = asking(&names, &[]).await;
    let made = |host: &'static str| create(&app, &app.key, host, 9).send();
    for _ in 0..2 {
        made("brief.test").await.expect(201);
        made("missing.test").await.refused(400, "url_dns_failed", "/data/attributes/url");
    }
    names.set_ttl(60);
    for _ in 0..3 {
        made("kept.test").await.expect(201);
        // In other letters it is the same name.
        made("KEPT.Test").await.expect(201);
        // No domain is put behind a name without a dot.
        made("single").await.expect(201);
    }
    let asked = ["brief.test", "missing.test", "kept.test", "single"].map(|name| names.asked(name));
    assert_eq!(asked, [2, 1, 1, 1]);
    assert_eq!(names.names("single"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_leads_inside_is_refused_whoever_answers_for_it() {
    let names = NameServer::start().await;
    let app = asking(&names, &[("ENVIRONMENT", "production")]).await;
    let body = json!({ "url": "https://inside.test/", "events": [EVENT] });
    app.post("/v1/webhooks", body).await.refused(400, "url_ssrf_blocked", "/data/attributes/url");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_name_with_many_addresses_the_first_are_checked_and_no_other_is_connected_to() {
    let names = NameServer::start().await;
    let receiver = Receiver::start().await;
    let port = receiver.address.port();
    let among_the_first = asking(&names, &[("EGRESS__DENY_NETWORKS", "127.0.1.32")]).await;
    let made = create(&among_the_first, &among_the_first.key, "crowded.test", port).send().await;
    made.refused(400, "url_ssrf_blocked", "/data/attributes/url");
    let after_them = asking(&names, &[("EGRESS__DENY_NETWORKS", "127.0.0.1")]).await;
    let made = create(&after_them, &after_them.key, "crowded.test", port).send().await.expect(201);
    let told = after_them.call("POST", &format!("/v1/webhooks/{}/test", made.id())).send().await.expect(200);
    let error = format!("could not connect to crowded.test:{port}: connection refused");
    assert_eq!(told.attribute("error"), error.as_str());
    assert_eq!(receiver.connections(), 0);
}

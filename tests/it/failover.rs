//! What becomes of the nodes when the database itself dies and its standby takes over, or has no room left.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::app::{App, Call, EVENT, Receiver, eventually};
use crate::database;

/// A primary and its standby, which has everything that the primary has acknowledged.
struct Pair {
    folder: tempfile::TempDir,
}

impl Pair {
    async fn start() -> Self {
        let pair = Self { folder: tempfile::tempdir().expect("a folder") };
        pair.run("chmod 755 .; [ $(id -u) != 0 ] || chown postgres .");
        pair.run(
            "as initdb -D one -U postgres -A trust -E UTF8 --locale=C --no-sync >/dev/null; as mkdir socket-one \
             socket-two",
        );
        pair.run(&start("one"));
        pair.run("as pg_basebackup -h $PWD/socket-one -U postgres -D two -R -X stream -c fast --no-sync");
        pair.run(&start("two"));
        let primary = database::connect(&pair.url("socket-one", "postgres")).await;
        primary.batch_execute("CREATE DATABASE aldaba").await.expect("a database");
        primary.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.expect("set");
        primary.batch_execute("SELECT pg_reload_conf()").await.expect("loaded");
        eventually("the standby to be waited for", || async {
            let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            let waited: i64 = primary.query_one(sql, &[]).await.expect("a row").get(0);
            (waited == 1).then_some(())
        })
        .await;
        pair
    }

    fn url(&self, socket: &str, name: &str) -> String {
        format!("postgres://postgres@/{name}?host={}", self.folder.path().join(socket).display())
    }

    /// For nodes: the standby first, as when a name still points to it.
    fn standby_first(&self) -> String {
        format!("{}&host={}", self.url("socket-two", "aldaba"), self.folder.path().join("socket-one").display())
    }

    /// Whether the first server lets anybody write.
    async fn read_only(&self, read_only: bool) {
        let first = database::connect(&self.url("socket-one", "postgres")).await;
        let sql = format!("ALTER SYSTEM SET default_transaction_read_only = {read_only}");
        first.batch_execute(&sql).await.expect("set");
        first.batch_execute("SELECT pg_reload_conf()").await.expect("loaded");
    }

    /// For nodes: whichever of the two takes writes.
    fn either(&self) -> String {
        let second = self.folder.path().join("socket-two");
        format!("{}&host={}&target_session_attrs=read-write", self.url("socket-one", "aldaba"), second.display())
    }

    fn run(&self, script: &str) {
        assert!(shell(self.folder.path(), script), "{script}");
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in ["one", "two"] {
            shell(self.folder.path(), &format!("as pg_ctl -D {name} -m immediate stop >/dev/null 2>&1"));
        }
    }
}

fn start(name: &str) -> String {
    format!(
        "as pg_ctl -D {name} -l {name}/log -w start -o \"-c listen_addresses= -c \
         unix_socket_directories=$PWD/socket-{name} -c max_connections=100 -c fsync=off\" >/dev/null"
    )
}

/// Runs it in the folder, with PostgreSQL's programs at hand; `as` runs one as a user that it accepts.
pub fn shell(folder: &Path, script: &str) -> bool {
    let bin = std::env::var("TEST_POSTGRES_BIN").expect("where PostgreSQL's programs are");
    let prelude = "as() { if [ $(id -u) = 0 ]; then setpriv --reuid postgres --regid postgres --clear-groups \"$@\"; \
                   else \"$@\"; fi; }";
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap_or_default());
    let script = format!("{prelude}\n{script}");
    Command::new("bash").args(["-euc", &script]).current_dir(folder).env("PATH", path).status().expect("bash").success()
}

/// Publishes one event for each number, as somebody does who tries again, and returns those that were accepted.
async fn publish(nodes: &[&App], numbers: std::ops::Range<u32>) {
    for number in numbers {
        let node = nodes[number as usize % nodes.len()];
        let body = json!({ "event": EVENT, "data": { "n": number } });
        let call = || node.call("POST", "/v1/events").header("idempotency-key", &format!("n{number}")).json(&body);
        eventually("an event that is accepted", || async {
            let answer = call().send().await;
            match answer.status {
                202 => Some(()),
                409 => None,
                _ => {
                    answer.refused(503, "unavailable", "");
                    None
                }
            }
        })
        .await;
    }
}

/// How often each number arrived.
fn arrived(receiver: &Receiver) -> BTreeMap<u64, usize> {
    let mut arrived = BTreeMap::new();
    for request in receiver.received() {
        let body: serde_json::Value = serde_json::from_slice(&request.body).expect("JSON");
        *arrived.entry(body["data"]["n"].as_u64().expect("a number")).or_insert(0) += 1;
    }
    arrived
}

async fn ready(node: &App) {
    eventually("the node to be ready", || async {
        (Call::new(node.address, "GET", "/readyz").send().await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_primary_dies_and_its_standby_is_promoted_nothing_that_was_accepted_is_lost() {
    if !database::is_postgres() {
        return;
    }
    let pair = Pair::start().await;
    let first = App::with(&[("DATABASE_URL", &pair.either())]).await;
    let second = first.another(&[("DATABASE_URL", &pair.either())]).await;
    let receiver = Receiver::start().await;
    first.endpoint(&receiver.url()).await;
    let nodes = [&first, &second];
    publish(&nodes, 0..150).await;
    let (publishing, ()) =
        tokio::join!(tokio::time::timeout(Duration::from_secs(60), publish(&nodes, 150..300)), async {
            eventually("more events", || async { (receiver.received().len() > 170).then_some(()) }).await;
            pair.run("as pg_ctl -D one -m immediate stop >/dev/null");
            for node in nodes {
                Call::new(node.address, "GET", "/readyz").send().await.refused(503, "unavailable", "");
            }
            pair.run("as pg_ctl -D two -w promote >/dev/null");
        });
    publishing.expect("publishing goes on by itself");
    for node in nodes {
        ready(node).await;
    }
    let counts = eventually("every event", || async {
        let arrived = arrived(&receiver);
        (arrived.len() == 300).then_some(arrived)
    })
    .await;
    let twice = counts.values().filter(|times| **times > 1).count();
    assert!(twice <= 128, "{twice} came twice: more than was in flight");
    let total = first.get("/v1/events?per_page=1").await.expect(200).json["meta"]["pagination"]["total"].clone();
    assert_eq!(total, 300, "an idempotency key has one effect, whichever database answered");
}

#[tokio::test]
async fn while_the_disk_is_full_calls_are_refused_and_what_was_accepted_is_delivered_afterwards() {
    if !database::is_postgres() {
        return;
    }
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "100ms,100ms,100ms,100ms,100ms,100ms,100ms")]).await;
    let receiver = Receiver::start().await;
    receiver.script([crate::app::Reply::Late(Duration::from_millis(500)), crate::app::Reply::Status(500)]);
    let (id, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({ "n": 0 })).await;
    receiver.wait_for(1).await;
    // What PostgreSQL says when it cannot make a file longer: every row that would need room is refused.
    let full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS \
                $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$; \
                CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON events FOR EACH ROW EXECUTE FUNCTION full_disk(); \
                CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON attempts \
                FOR EACH ROW EXECUTE FUNCTION full_disk(); CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE \
                ON settings FOR EACH ROW EXECUTE FUNCTION full_disk();";
    database::connect(&database::url(app.folder())).await.batch_execute(full).await.expect("full");
    let refused = app.post("/v1/events", json!({ "event": EVENT, "data": { "n": 1 } })).await;
    assert_eq!(refused.refused(503, "unavailable", "").header("retry-after"), "1");
    Call::new(app.address, "GET", "/readyz").send().await.refused(503, "unavailable", "");
    app.get("/v1/webhooks").await.expect(200);
    let room =
        "DROP TRIGGER full_disk ON events; DROP TRIGGER full_disk ON attempts; DROP TRIGGER full_disk ON settings";
    database::connect(&database::url(app.folder())).await.batch_execute(room).await.expect("room");
    ready(&app).await;
    app.publish(json!({ "n": 2 })).await;
    for _ in 0..2 {
        app.delivery(&id, "success").await;
    }
    let counts = eventually("both events", || async {
        let arrived = arrived(&receiver);
        (arrived.len() == 2).then_some(arrived)
    })
    .await;
    assert!(!counts.contains_key(&1), "what was refused was not accepted");
}

async fn accepts(app: &App) {
    eventually("an event that is accepted", || async {
        (app.post("/v1/events", json!({ "event": EVENT, "data": { "n": 1 } })).await.status == 202).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_finds_the_primary_when_the_standby_is_asked_first() {
    if !database::is_postgres() {
        return;
    }
    let pair = Pair::start().await;
    let app = App::with(&[("DATABASE_URL", &pair.standby_first())]).await;
    accepts(&app).await;
}

#[tokio::test]
async fn a_node_leaves_a_server_that_takes_no_writes_any_more() {
    if !database::is_postgres() {
        return;
    }
    let pair = Pair::start().await;
    let app = App::with(&[("DATABASE_URL", &pair.either())]).await;
    accepts(&app).await;
    let refused = || async {
        let answer = app.post("/v1/events", json!({ "event": EVENT, "data": { "n": 1 } })).await;
        (answer.status == 503).then_some(())
    };
    pair.read_only(true).await;
    eventually("events to be refused", refused).await;
    pair.read_only(false).await;
    accepts(&app).await;
    pair.read_only(true).await;
    eventually("events to be refused", refused).await;
    // The first server lives on, read-only, and so do the connections to it.
    pair.run("as pg_ctl -D two -w promote >/dev/null");
    accepts(&app).await;
    ready(&app).await;
}

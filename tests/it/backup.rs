//! Backup, restore and check of the embedded store, by the real program: under load, after a lost disk, and of files
//! that are damaged. A check is made of PostgreSQL too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use aldaba::store::Holds;
use serde_json::{Value, json};

use crate::app::{App, Call, EVENT, Receiver, Reply, eventually};
use crate::command_line::{aldaba, printed, run};
use crate::crash::Server;
use crate::database;

/// What a command says that fails.
#[track_caller]
fn refused(folder: &Path, args: &[&str]) -> String {
    let output = run(folder, args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// What `aldaba check` prints, and whether it ends well.
fn checked(folder: &Path, args: &[&str]) -> (bool, Value) {
    let output = run(folder, &[&["check", "--json"][..], args].concat());
    let told = serde_json::from_slice(&output.stdout);
    let told = told.unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code() == Some(0), told)
}

#[track_caller]
fn assert_sound(folder: &Path, args: &[&str]) -> Value {
    let (ends_well, told) = checked(folder, args);
    assert!(ends_well && told["sound"] == true, "{told:#}");
    told
}

/// A key of an account, made before a server runs.
fn key(folder: &Path) -> String {
    let account = printed(folder, &["accounts", "create", "backups"]);
    printed(folder, &["keys", "create", "--account", &account])
}

async fn endpoint(server: &Server, key: &str, url: &str) -> String {
    let body = json!({ "url": url, "events": [EVENT] });
    Call::new(server.address, "POST", "/v1/webhooks").bearer(key).json(&body).send().await.expect(201).id()
}

async fn publish(server: &Server, key: &str, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let event = json!({ "event": EVENT, "data": { "n": number } });
        Call::new(server.address, "POST", "/v1/events").bearer(key).json(&event).send().await.expect(202);
    }
}

/// What arrived from the request number `first` on: each event's number, and the `webhook-id`s that it came with.
fn arrived(receiver: &Receiver, first: usize) -> BTreeMap<u64, BTreeSet<String>> {
    let mut arrived: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for request in &receiver.received()[first..] {
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        if let Some(number) = body["data"]["n"].as_u64() {
            arrived.entry(number).or_default().insert(request.header("webhook-id").to_owned());
        }
    }
    arrived
}

/// Waits until so many deliveries of the account have this status.
async fn deliveries(server: &Server, key: &str, status: &str, count: u64) {
    let path = format!("/v1/webhooks/deliveries?per_page=1&status={status}");
    eventually(&format!("{count} deliveries that are {status}"), || async {
        let listed = Call::new(server.address, "GET", &path).bearer(key).send().await.expect(200);
        (listed.json["meta"]["pagination"]["total"] == count).then_some(())
    })
    .await;
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_whole_and_holds_what_was_accepted_before_it() {
    if database::is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let key = key(folder.path());
    let server = Server::start(folder.path(), &[]);
    let receiver = Receiver::start().await;
    endpoint(&server, &key, &receiver.url()).await;
    let accepted = Arc::new(Mutex::new(BTreeSet::new()));
    let (address, noting) = (server.address, accepted.clone());
    let publishing = tokio::spawn(async move {
        let filling = "x".repeat(20_000);
        for number in 0u64.. {
            let event = json!({ "event": EVENT, "data": { "n": number, "filling": filling } });
            Call::new(address, "POST", "/v1/events").bearer(&key).json(&event).send().await.expect(202);
            noting.lock().expect("no panic").insert(number);
        }
    });
    let some = || accepted.lock().expect("no panic").clone();
    // Several megabytes, so that the copy takes several steps.
    eventually("a database of some size", || async { (some().len() > 300).then_some(()) }).await;
    let before = some();
    let at = folder.path().to_owned();
    let args = ["backup", "copy.db", "--include-master-key", "--rate", "16", "--json"];
    let told = tokio::task::spawn_blocking(move || printed(&at, &args)).await.expect("no panic");
    let during = some().len();
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert!(during > before.len(), "publishers went on meanwhile");
    // Beside the server, too.
    assert_sound(folder.path(), &[]);
    publishing.abort();
    let of_copy = assert_sound(folder.path(), &["--database-url", "sqlite://copy.db"]);
    assert_eq!(of_copy["serves"]["events"], told["events"], "{told}");
    assert!(told["newest_event_at"].is_string() && told["master_key"] == true, "{told}");
    assert_eq!((&of_copy["sealed"]["total"], &of_copy["sealed"]["opened"]), (&json!(1), &json!(true)));
    let copy = rusqlite::Connection::open(folder.path().join("copy.db")).expect("opens");
    let mut statement = copy.prepare("SELECT body FROM payloads").expect("prepared");
    let bodies = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).expect("read");
    let held: BTreeSet<u64> = bodies
        .map(|body| serde_json::from_slice::<Value>(&body.expect("a body")).expect("JSON"))
        .filter_map(|event| event["data"]["n"].as_u64())
        .collect();
    let lost: Vec<_> = before.difference(&held).collect();
    assert!(lost.is_empty(), "accepted before the backup, and not in it: {lost:?}");
    #[cfg(unix)]
    for file in ["copy.db", "copy.db.master-key"] {
        assert_eq!(format!("{:o}", mode(&folder.path().join(file))), "600", "{file}");
    }
    let left = std::fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains(".new")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_lost_disk_a_restore_on_hold_sends_nothing_until_it_is_resumed_and_then_what_was_pending() {
    if database::is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let key = key(folder.path());
    let settings = [
        ("ALDABA_WEBHOOKS__TIMEOUT", "1s"),
        ("ALDABA_WEBHOOKS__RETRY_SCHEDULE", "100ms,100ms,100ms,100ms,100ms,100ms"),
        ("ALDABA_WEBHOOKS__AUTO_DISABLE_AFTER", "1h"),
    ];
    let server = Server::start(folder.path(), &settings);
    let receiver = Receiver::start().await;
    let id = endpoint(&server, &key, &receiver.url()).await;
    publish(&server, &key, 0..10).await;
    deliveries(&server, &key, "success", 10).await;
    // These are under way or wait when the backup is made, and are delivered after it.
    receiver.always(Reply::Hang);
    publish(&server, &key, 10..30).await;
    eventually("an attempt", || async { (receiver.received().len() > 10).then_some(()) }).await;
    let told: Value =
        serde_json::from_str(&printed(folder.path(), &["backup", "copy.db", "--include-master-key", "--json"]))
            .expect("JSON");
    assert_eq!(told["events"], 30);
    receiver.always(Reply::Status(200));
    publish(&server, &key, 30..35).await;
    deliveries(&server, &key, "success", 35).await;
    let first_life = arrived(&receiver, 0);
    server.kill();
    for file in ["aldaba.db", "aldaba.db-wal", "aldaba.db-shm", "aldaba.db.lock", "aldaba.db.master-key"] {
        std::fs::remove_file(folder.path().join(file)).expect("removed");
    }

    let restored: Value =
        serde_json::from_str(&printed(folder.path(), &["restore", "copy.db", "--hold", "--json"])).expect("JSON");
    assert_eq!(
        (&restored["on_hold"], &restored["events"], &restored["aside"]),
        (&json!(true), &json!(30), &json!(null))
    );
    assert_eq!((&restored["due"], &restored["master_key_of_backup"]), (&json!(20), &json!(true)));
    assert_eq!(restored["made_at"], told["made_at"]);
    let server = Server::start(folder.path(), &settings);
    let before = receiver.received().len();
    let path = format!("/v1/webhooks/{id}/test");
    let tested = Call::new(server.address, "POST", &path).bearer(&key).send().await.expect(200);
    assert_eq!(tested.attribute("delivered"), true);
    publish(&server, &key, 100..101).await;
    assert_eq!(arrived(&receiver, before), BTreeMap::new(), "nothing but the test");
    printed(folder.path(), &["resume"]);
    let second_life = eventually("what was pending", || async {
        let arrived = arrived(&receiver, before);
        (arrived.len() >= 21).then_some(arrived)
    })
    .await;
    let numbers: Vec<u64> = second_life.keys().copied().collect();
    assert_eq!(
        numbers,
        (10..30).chain([100]).collect::<Vec<_>>(),
        "what was delivered before the backup is not sent again"
    );
    for number in 10..30 {
        assert_eq!(second_life[&number], first_life[&number], "the same webhook-id, so that a receiver knows it");
    }
    let all: BTreeSet<&String> = first_life.values().flatten().collect();
    assert!(second_life[&100].iter().all(|id| !all.contains(id)), "a new delivery has an id of its own");
    assert_eq!(server.terminate().code(), Some(0));
    assert_sound(folder.path(), &[]);
}

#[tokio::test]
async fn a_restore_replaces_nothing_unasked_and_puts_what_was_there_aside() {
    if database::is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let server = Server::start(at, &[]);
    printed(at, &["accounts", "create", "before"]);
    printed(at, &["backup", "copy.db"]);
    printed(at, &["accounts", "create", "after"]);
    assert!(refused(at, &["restore", "copy.db", "--force"]).contains("another server is running on the database"));
    assert_eq!(server.terminate().code(), Some(0));
    assert!(refused(at, &["restore", "copy.db"]).contains("add --force to put it aside"));
    let told: Value = serde_json::from_str(&printed(at, &["restore", "copy.db", "--force", "--json"])).expect("JSON");
    let names = |url: &str| -> Vec<String> {
        let listed = printed(at, &["accounts", "list", "--json", "--database-url", url]);
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        listed.as_array().expect("a list").iter().map(|row| row["name"].as_str().expect("text").to_owned()).collect()
    };
    assert_eq!(names("sqlite://aldaba.db"), ["before"]);
    // A log of SQLite that the server has left stands beside it.
    let aside = told["aside"].as_str().expect("a name");
    std::fs::copy(at.join("aldaba.db.master-key"), at.join(format!("{aside}.master-key"))).expect("copied");
    assert_eq!(names(&format!("sqlite://{aside}")), ["after", "before"]);
    assert_eq!(told["on_hold"], false);
    // A command beside the next server waits until that one has seen its change, whatever the last one had seen.
    let server = Server::start(at, &[]);
    let account = printed(at, &["accounts", "create", "next"]);
    let key = printed(at, &["keys", "create", "--account", &account]);
    Call::new(server.address, "GET", "/v1/webhooks").bearer(&key).send().await.expect(200);
}

#[tokio::test]
async fn a_backup_without_its_master_key_is_restored_only_where_that_is_known() {
    if database::is_postgres() {
        return;
    }
    let app = App::start().await;
    app.endpoint("http://127.0.0.1:9/").await;
    let told = printed(app.folder(), &["backup", "copy.db"]);
    assert!(told.contains("The master key is not inside: keep a copy of "), "{told}");
    let other = tempfile::tempdir().expect("a folder");
    std::fs::copy(app.folder().join("copy.db"), other.path().join("copy.db")).expect("copied");
    let at = other.path();
    let text = refused(at, &["restore", "copy.db"]);
    assert!(text.contains("there is no master key") && text.contains("--without-master-key"), "{text}");
    let alone = assert_sound(at, &["--database-url", "sqlite://copy.db"]);
    assert_eq!((&alone["sealed"]["total"], &alone["sealed"]["opened"]), (&json!(1), &json!(false)));
    assert!(!at.join("copy.db.master-key").exists(), "a check makes no key");
    let told = printed(at, &["restore", "copy.db", "--without-master-key"]);
    assert!(told.contains("The server does not start without the key"), "{told}");
    std::fs::copy(app.folder().join("aldaba.db.master-key"), at.join("aldaba.db.master-key")).expect("copied");
    assert_sound(at, &[]);
    assert_eq!(Server::start_without_key(at, &[]).terminate().code(), Some(0));
    // A key that is there, but is another one.
    let mut command = aldaba(at, &["restore", "copy.db", "--force"]);
    let output = command.env("ALDABA_SECRETS__MASTER_KEY", "22".repeat(32)).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("the backup has problems") && text.contains("which is not here"), "{text}");
    assert!(text.contains("--with-problems"), "{text}");
    assert!(text.contains("put the right one into the setting secrets.master_key"), "{text}");
    std::fs::write(at.join("copy.db.master-key"), "33".repeat(32)).expect("written");
    let text = refused(at, &["restore", "copy.db", "--force"]);
    assert!(text.contains("put the right one into copy.db.master-key"), "{text}");
}

#[tokio::test]
async fn files_that_are_no_place_for_a_backup_and_no_backup_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    printed(at, &["accounts", "create", "a"]);
    if database::is_postgres() {
        for args in [&["backup", "copy.db"], &["restore", "copy.db"]] {
            assert!(refused(at, args).contains("pg_dump"), "{args:?}");
        }
        return;
    }
    for own in ["aldaba.db", "./aldaba.db", "aldaba.db-wal", "aldaba.db.lock", "aldaba.db.master-key"] {
        assert!(refused(at, &["backup", own, "--force"]).contains("a file of the database itself"), "{own}");
    }
    #[cfg(unix)]
    {
        // Where the database is a link, what it leads to is the database.
        std::fs::create_dir(at.join("linked")).expect("a folder");
        std::os::unix::fs::symlink("../aldaba.db", at.join("linked/link.db")).expect("linked");
        let args = ["backup", "aldaba.db", "--force", "--database-url", "sqlite://linked/link.db"];
        assert!(refused(at, &args).contains("a file of the database itself"));
    }
    assert!(refused(at, &["backup", "."]).contains("is a folder"));
    assert!(refused(at, &["backup", "nowhere/copy.db"]).contains("is not there"));
    printed(at, &["backup", "copy.db", "--include-master-key"]);
    assert!(refused(at, &["backup", "copy.db"]).contains("is there already"));
    let stale = refused(at, &["backup", "copy.db", "--force"]);
    assert!(stale.contains("the master key of an earlier backup"), "{stale}");
    printed(at, &["backup", "copy.db", "--force", "--include-master-key"]);
    assert!(!run(at, &["backup", "other.db", "--rate", "0"]).status.success());
    let mut command = aldaba(at, &["backup", "other.db", "--include-master-key"]);
    let output = command.env("ALDABA_SECRETS__MASTER_KEY", "11".repeat(32)).output().expect("it runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains("keep a copy of your settings"));
    let gone = ["backup", "other.db", "--database-url", "sqlite://gone.db"];
    assert!(refused(at, &gone).contains("there is no database gone.db"));
    assert!(!at.join("gone.db").exists() && !at.join("other.db").exists());

    std::fs::write(at.join("junk.db"), "no database".repeat(1_000)).expect("written");
    assert!(refused(at, &["restore", "junk.db", "--force"]).contains("cannot open the database"));
    std::fs::write(at.join("empty.db"), "").expect("written");
    assert!(refused(at, &["restore", "empty.db", "--force"]).contains("is not a database of Aldaba"));
    assert!(refused(at, &["restore", "missing.db"]).contains("there is no backup missing.db"));
    assert!(refused(at, &["restore", "aldaba.db", "--force"]).contains("the database itself"));
    std::fs::write(at.join("copy.db-wal"), "a part").expect("written");
    assert!(refused(at, &["restore", "copy.db", "--force"]).contains("a part of it is in copy.db-wal"));
    std::fs::remove_file(at.join("copy.db-wal")).expect("removed");
    assert_sound(at, &[]);
}

#[tokio::test]
async fn a_check_tells_what_a_server_would_serve_and_finds_no_problem_in_what_a_server_does() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "100ms,1h")]).await;
    let receiver = Receiver::start().await;
    let base = json!({ "url": receiver.url(), "events": [EVENT] });
    let with = |name: &str, value: Value| {
        let mut body = base.clone();
        body[name] = value;
        body
    };
    let mut endpoints = Vec::new();
    for body in [
        base.clone(),
        with("ordering", json!("fifo")),
        with("rate_limit", json!("100/1s")),
        with("filter", json!({ "data": { "n": { "$gte": 0 } } })),
        with("headers", json!({ "X-Key": "a-value-of-a-header" })),
        with("events", json!(["validation.*", EVENT])),
    ] {
        endpoints.push(app.post("/v1/webhooks", body).await.expect(201).id());
    }
    let gone = app.post("/v1/webhooks", base.clone()).await.expect(201).id();
    for n in 0..5 {
        app.publish(json!({ "n": n })).await;
    }
    let paused = format!("/v1/webhooks/{}", endpoints[0]);
    app.put(&paused, json!({ "status": "disabled" })).await.expect(200);
    receiver.script([Reply::Status(500), Reply::Status(500), Reply::Status(500)]);
    for n in 5..8 {
        app.publish(json!({ "n": n })).await;
    }
    app.delete(&format!("/v1/webhooks/{gone}")).await.expect(204);
    app.call("POST", &format!("/v1/webhooks/{}/test", endpoints[2])).send().await.expect(200);
    let replay = app.replay(&endpoints[5], json!({ "from": "2026-01-01", "status": "all" })).await;
    app.replayed(&replay).await;
    let told = assert_sound(app.folder(), &[]);
    let serves = &told["serves"];
    assert_eq!(serves["endpoints"], json!({ "active": 5, "auto_disabled": 0, "disabled": 1 }), "{told:#}");
    assert_eq!((&serves["accounts"], &serves["events"]), (&json!(1), &json!(9)), "the events, and that of a test");
    assert!(serves["newest_event_at"].is_string() && serves["on_hold_since"].is_null());
    assert_eq!((&told["sealed"]["total"], &told["sealed"]["opened"]), (&json!(7), &json!(true)));
    let text = printed(app.folder(), &["check"]);
    assert!(text.contains("5 active") && text.contains("no problem was found"), "{text}");
    // Whatever the server is doing, its rows agree.
    for _ in 0..5 {
        app.publish(json!({ "n": 9 })).await;
        assert_sound(app.folder(), &[]);
    }
}

#[tokio::test]
async fn a_check_finds_rows_that_do_not_agree_and_ends_with_an_error() {
    let app = App::start().await;
    app.endpoint("http://127.0.0.1:9/").await;
    // Deliveries that are open, in the database, and listed.
    app.store.hold().await.expect("held");
    app.publish(json!({})).await;
    crate::fixture::list(&app.store).await;
    let folder = app.stop().await;
    let at = folder.path();
    assert_sound(at, &[]);
    // One after the other: what is found of a row first hides nothing of what comes later in this list.
    let of_store = if database::is_postgres() {
        [
            (
                "INSERT INTO counters (account, endpoint, shard, total) SELECT account, key, 7, 1 FROM endpoints",
                "its counter is not the number of its deliveries",
            ),
            ("DELETE FROM subscriptions", "its subscriptions are not its event types"),
            ("DELETE FROM payloads", "its body is missing"),
            ("DELETE FROM queue", "it is open, and not in the queue"),
        ]
    } else {
        [
            ("UPDATE endpoint_counters SET deliveries_total = 7", "its counter is not the number of its deliveries"),
            ("DELETE FROM delivery_lists", "the delivery index has no such entry"),
            ("DELETE FROM payloads", "its body is missing"),
            ("UPDATE deliveries SET due_at = NULL", "it is open, and neither due nor leased"),
        ]
    };
    let of_both = [
        ("UPDATE endpoints SET settings = '{'", "its settings cannot be read"),
        ("DELETE FROM endpoint_secrets", "it has no secret"),
        ("UPDATE endpoints SET status = 9", "its status is unknown"),
    ];
    for (sql, problem) in of_store.into_iter().chain(of_both) {
        database::execute(at, sql).await;
        let (ends_well, told) = checked(at, &[]);
        let problems = told["problems"].as_array().expect("a list");
        let found = problems.iter().any(|found| found["reason"].as_str().expect("text").contains(problem));
        assert!(found && !ends_well, "{sql}: {told:#}");
    }
    let text = refused(at, &["check"]);
    assert!(text.contains("the check has found"), "{text}");
}

#[tokio::test]
async fn a_check_finds_a_damaged_page_and_seals_that_no_key_opens() {
    if database::is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let key = key(at);
    let server = Server::start(at, &[]);
    endpoint(&server, &key, "http://127.0.0.1:9/").await;
    publish(&server, &key, 0..1).await;
    assert_eq!(server.terminate().code(), Some(0));
    let mut command = aldaba(at, &["check"]);
    let output = command.env("ALDABA_SECRETS__MASTER_KEY", "22".repeat(32)).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("its secret is sealed with the master key") && text.contains("which is not here"), "{text}");
    // The page where a table begins.
    let file = at.join("aldaba.db");
    let db = rusqlite::Connection::open(&file).expect("opens");
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'payloads'";
    let page: u64 = db.query_row(sql, [], |row| row.get::<_, u32>(0)).expect("a page").into();
    let page_size: u64 = db.query_row("PRAGMA page_size", [], |row| row.get::<_, u32>(0)).expect("a size").into();
    drop(db);
    let mut bytes = std::fs::read(&file).expect("read");
    let begin = usize::try_from((page - 1) * page_size).expect("a place");
    bytes[begin..begin + 16].fill(0xff);
    std::fs::write(&file, bytes).expect("written");
    let (ends_well, told) = checked(at, &[]);
    assert!(!ends_well && told["problems"].to_string().contains("SQLite finds a fault in the file"), "{told:#}");
    // A backup of it is refused, unless that is all there is.
    assert!(refused(at, &["backup", "copy.db"]).contains("the copy is damaged, and so is the database"));
    assert!(!at.join("copy.db").exists() && !at.join("copy.db.new").exists());
    printed(at, &["backup", "copy.db", "--no-check"]);
    assert!(refused(at, &["restore", "copy.db", "--force"]).contains("--with-problems"));
    let told = printed(at, &["restore", "copy.db", "--force", "--with-problems"]);
    assert!(told.contains("problem: "), "{told}");
}

//! Moving here from another sender: what a CSV file, a file of Svix's answers and Svix's API have is made once, by the
//! rules of the API, and receivers verify as before.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aldaba::domain::id::AccountId;
use aldaba::domain::permission::Permission;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::app::{App, Call, EVENT, Receiver, key};
use crate::command_line::{aldaba, printed};
use crate::reference::DOCUMENT;
use crate::verify::assert_signed;

/// What receivers have from the sender before.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

const TOKEN: &str = "testsk_the-token-of-svix";

/// Runs the import in development as somebody called ana.
async fn import(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = aldaba(folder, &[&["import"][..], args].concat());
    command.env("ALDABA_ENVIRONMENT", "development").env("USER", "ana").env_remove("SVIX_AUTH_TOKEN");
    command.envs(environment.iter().copied());
    tokio::process::Command::from(command).output().await.expect("it runs")
}

/// The lines that it printed. Nothing secret is among them.
#[track_caller]
fn lines(output: &Output, code: i32) -> Vec<String> {
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{text}{errors}");
    for hidden in [SECRET, OTHER_SECRET, TOKEN, "whpk_hidden", "hidden-value"] {
        assert!(!text.contains(hidden) && !errors.contains(hidden), "{text}{errors}");
    }
    text.lines().map(str::to_owned).collect()
}

/// The one line of an import that has stopped.
#[track_caller]
fn stopped(output: &Output) -> String {
    lines(output, 1);
    let errors = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert!(errors.starts_with("error: ") && errors.lines().count() == 1 && !errors.contains("panicked"), "{errors}");
    errors
}

/// The objects that it printed, of which the last one counts the others.
#[track_caller]
fn objects(output: &Output, code: i32) -> (Vec<Value>, Value) {
    let lines = lines(output, code);
    let mut objects: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    let counted = objects.pop().expect("a last line");
    (objects, counted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_csv_file_moves_endpoints_once_and_their_receivers_verify_as_before() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (url, account) = (receiver.url(), app.account.to_string());
    let text = format!(
        "external_id,events,url,description,secret\r\n\
         orders,{EVENT};billing.*,{url},\"Orders, \"\"paid\"\"\",{SECRET}\r\n\
         ,*,{url}2,,\r\n"
    );
    std::fs::write(app.folder().join("endpoints.csv"), text).expect("written");
    let args = ["--from", "csv", "endpoints.csv", "--account", &account];
    let dry = import(app.folder(), &[&args[..], &["--dry-run"]].concat(), &[]).await;
    let expected = [
        format!("line 2: endpoint {url} would be made"),
        format!("line 3: endpoint {url}2 would be made (it gets a new secret: rotate it to see one)"),
        "2 would be made, 0 are there already, 0 are left out, 0 cannot be moved".to_owned(),
    ];
    assert_eq!(lines(&dry, 0), expected);
    assert_eq!(app.get("/v1/webhooks").await.expect(200).json["data"], json!([]));

    let made = lines(&import(app.folder(), &args, &[]).await, 0);
    let listed = app.get("/v1/webhooks").await.expect(200).json["data"].clone();
    let [second, first] = [&listed[0], &listed[1]];
    assert_eq!(made[0], format!("line 2: endpoint {url} was made: {}", first["id"].as_str().expect("an id")));
    assert_eq!(first["attributes"]["external_id"], "orders");
    assert_eq!(first["attributes"]["events"], json!([EVENT, "billing.*"]));
    assert_eq!(first["attributes"]["description"], "Orders, \"paid\"");
    assert_eq!(first["attributes"]["secret_hint"], "...LaSw");
    assert!(second["attributes"]["external_id"].as_str().is_some_and(|name| name.starts_with("csv-")), "{second}");
    assert_eq!(second["attributes"]["events"], json!(["*"]));

    let again = lines(&import(app.folder(), &args, &[]).await, 0);
    assert_eq!(again[0], format!("line 2: endpoint {url} is there already: {}", first["id"].as_str().expect("an id")));
    assert_eq!(again[2], "0 were made, 2 are there already, 0 are left out, 0 cannot be moved");
    assert_eq!(app.get("/v1/webhooks").await.expect(200).json["data"], listed);
    let entries = Call::new(app.address, "GET", "/v1/audit-log?action=webhook.created").bearer(&app.operator);
    let entries = entries.send().await.expect(200).json["data"].clone();
    assert_eq!(entries.as_array().map(Vec::len), Some(2), "{entries}");
    for entry in entries.as_array().expect("a list") {
        let attributes = &entry["attributes"];
        assert_eq!((&attributes["actor_type"], &attributes["actor_name"]), (&json!("command_line"), &json!("ana")));
    }
    app.publish(json!({ "n": 1 })).await;
    let requests = receiver.wait_for(2).await;
    assert_signed(requests.iter().find(|request| request.path == "/hook").expect("the first"), SECRET);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_of_a_row_is_told_with_its_line_and_its_column_and_the_other_rows_move() {
    let app = App::start().await;
    let account = app.account.to_string();
    let rows = [
        b"url,events,secret,description,external_id\n".to_vec(),
        format!("http://127.0.0.1:9/a,{EVENT},,,good\n").into_bytes(),
        format!(",{EVENT},,,a\n").into_bytes(),
        b"ftp://x,no.such,too-short,,-b\n".to_vec(),
        b"http://127.0.0.1:9/c,,,,c\n".to_vec(),
        format!("http://127.0.0.1:9/d,{EVENT},,,good\n").into_bytes(),
        format!("http://127.0.0.1:9/e,{EVENT}\n").into_bytes(),
        [b"http://127.0.0.1:9/f,*,,".as_slice(), b"\xff,f\n"].concat(),
    ];
    std::fs::write(app.folder().join("endpoints.csv"), rows.concat()).expect("written");
    let args = ["--from", "csv", "endpoints.csv", "--account", &account];
    for dry_run in [true, false] {
        let flags: &[&str] = if dry_run { &["--dry-run"] } else { &[] };
        let output = import(app.folder(), &[&args[..], flags].concat(), &[]).await;
        let told = lines(&output, 1);
        let expected = [
            "line 2: endpoint http://127.0.0.1:9/a w",
            "line 3, column url: endpoint  cannot be moved: url is required.",
            "line 4, column url: endpoint ftp://x cannot be moved: url must be an absolute http(s) URL",
            "line 4, column events: endpoint ftp://x cannot be moved: events must be a list of known event types",
            "line 4, column external_id: endpoint ftp://x cannot be moved: external_id must be 1 to 255 letters",
            "line 4, column secret: endpoint ftp://x cannot be moved: secret must be 24 to 128 visible ASCII",
            "line 5, column events: endpoint http://127.0.0.1:9/c cannot be moved: events must name at least one",
            "line 6, column external_id: endpoint http://127.0.0.1:9/d cannot be moved: line 2 has the same",
            "line 7: endpoint http://127.0.0.1:9/e cannot be moved: the row has 2 cells, and the first line has 5",
            "line 8, column description: endpoint http://127.0.0.1:9/f cannot be moved: it is not UTF-8",
        ];
        assert_eq!(told.len(), expected.len() + 1, "{told:#?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected) && !told.contains("too-short"), "{told}");
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(errors.trim(), "error: 6 of 7 cannot be moved: see the reasons above");
        let listed = app.get("/v1/webhooks").await.expect(200).json["data"].as_array().map(Vec::len);
        assert_eq!(listed, Some(usize::from(!dry_run)));
    }
    let output = import(app.folder(), &[&args[..], &["--json"]].concat(), &[]).await;
    let (told, counted) = objects(&output, 1);
    assert_eq!((&told[0]["line"], &told[0]["outcome"]), (&json!(2), &json!("exists")));
    assert_eq!((&told[1]["outcome"], &told[1]["faults"][0]["field"]), (&json!("refused"), &json!("url")));
    assert_eq!(counted, json!({ "dry_run": false, "made": 0, "exist": 1, "left": 0, "refused": 6 }));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_as_a_whole_and_arguments_that_do_not_fit_make_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let account = printed(folder.path(), &["accounts", "create", "a"]);
    let file = folder.path().join("endpoints.csv");
    let args = ["--from", "csv", "endpoints.csv", "--account", &account];
    let large = "x".repeat((32 << 20) + 1);
    for (text, expected) in [
        ("", "endpoints.csv: the file is empty"),
        ("url,events,colour\n", "line 1: unknown column colour; the columns are url, events, secret, description"),
        ("url,description\n", "line 1: the column events is missing"),
        ("url,events\nhttp://127.0.0.1:9/,\"*\n", "a quote is opened and not closed"),
        (large.as_str(), "endpoints.csv is larger than 33554432 bytes"),
    ] {
        std::fs::write(&file, text).expect("written");
        let told = stopped(&import(folder.path(), &args, &[]).await);
        assert!(told.contains(expected), "{told}");
    }
    let nobody = "00000000-0000-4000-8000-000000000000";
    std::fs::write(&file, "url,events\n").expect("written");
    let wrong: [(&[&str], &str); 9] = [
        (&["--from", "csv", "missing.csv", "--account", &account], "cannot read missing.csv"),
        (&["--from", "csv", "endpoints.csv", "--account", nobody], "no such account"),
        (&["--from", "csv", "endpoints.csv"], "--from csv takes a FILE and --account ID"),
        (&["--from", "csv", "endpoints.csv", "--account", &account, "--url", "http://127.0.0.1:1"], "nothing of svix"),
        (&["--from", "svix"], "--from svix takes --url URL"),
        (&["--from", "svix", "a.jsonl", "--account", &account], "--from svix takes no --account"),
        (&["--from", "svix", "--url", "http://127.0.0.1:1"], "there is no token: set SVIX_AUTH_TOKEN"),
        (&["--from", "hook0", "--url", "http://127.0.0.1:1"], "--from must be sqlite://PATH, csv or svix"),
        (&["--from", "sqlite://a.db", "--dry-run"], "--from sqlite://PATH takes no FILE"),
    ];
    for (args, expected) in wrong {
        let told = stopped(&import(folder.path(), args, &[]).await);
        assert!(told.contains(expected), "{told}");
    }
    assert!(printed(folder.path(), &["import", "--help"]).contains("--dry-run"));
}

#[tokio::test]
async fn nothing_is_made_that_the_api_would_refuse() {
    let folder = tempfile::tempdir().expect("a folder");
    let account = printed(folder.path(), &["accounts", "create", "a"]);
    let text = "url,events\nhttp://127.0.0.1:9/,*\nhttps://localhost/,*\nhttps://10.0.0.7/,*\n";
    std::fs::write(folder.path().join("endpoints.csv"), text).expect("written");
    let args = ["--from", "csv", "endpoints.csv", "--account", &account];
    let told = lines(&import(folder.path(), &args, &[("ALDABA_ENVIRONMENT", "production")]).await, 1);
    for (told, expected) in told.iter().zip([
        "line 2, column url: endpoint http://127.0.0.1:9/ cannot be moved: url must use https.",
        "line 3, column url: endpoint https://localhost/ cannot be moved: The host localhost is or resolves to",
        "line 4, column url: endpoint https://10.0.0.7/ cannot be moved: The host 10.0.0.7 is or resolves to",
    ]) {
        assert!(told.starts_with(expected), "{told}");
    }
    let text = "url,events\nhttp://127.0.0.1:9/a,*\nhttp://127.0.0.1:9/b,*\nhttp://127.0.0.1:9/c,*\n";
    std::fs::write(folder.path().join("endpoints.csv"), text).expect("written");
    let limit = [("ALDABA_WEBHOOKS__MAX_ENDPOINTS", "2")];
    let refused = "line 4: endpoint http://127.0.0.1:9/c cannot be moved: The account has reached its limit of 2";
    for flags in [&["--dry-run"][..], &[], &[]] {
        let told = lines(&import(folder.path(), &[&args[..], flags].concat(), &limit).await, 1);
        assert!(told[2].starts_with(refused), "{told:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_imports_at_the_same_time_make_no_endpoint_twice() {
    let app = App::start().await;
    let account = app.account.to_string();
    let rows: Vec<String> = (0..8).map(|n| format!("http://127.0.0.1:9/{n},*\n")).collect();
    std::fs::write(app.folder().join("endpoints.csv"), format!("url,events\n{}", rows.concat())).expect("written");
    let args = ["--from", "csv", "endpoints.csv", "--account", &account];
    let (one, other) = tokio::join!(import(app.folder(), &args, &[]), import(app.folder(), &args, &[]));
    for output in [one, other] {
        assert_eq!(lines(&output, 0).len(), 9);
    }
    let listed = app.get("/v1/webhooks").await.expect(200).json["data"].clone();
    assert_eq!(listed.as_array().map(Vec::len), Some(8));
}

/// What a server of Svix's has, by paths without their queries: of a list all rows.
fn svix(receiver: &str) -> BTreeMap<String, Value> {
    let list = |rows: Value| json!({ "data": rows, "iterator": "last", "prevIterator": null, "done": true });
    let of = |app: &str, endpoint: &str, part: &str| format!("/api/v1/app/{app}/endpoint/{endpoint}/{part}/");
    let secret = |key: &str| json!({ "key": key });
    let plain = || json!({ "headers": {}, "sensitive": [] });
    let uid = "8b7967bd-c278-46ca-8bbb-33e3131a6239";
    let types = json!([
        { "name": "Order-Weird", "description": "", "archived": false, "deprecated": false, "schemas": null },
        { "name": "order.old", "description": "Old", "archived": true, "schemas": null },
        { "name": "order.paid", "description": "An order was paid.", "archived": false, "deprecated": true,
          "schemas": { "1": { "type": "object", "required": ["id"] } } },
    ]);
    let first = json!([
        { "id": "ep_1", "uid": "orders", "url": receiver, "version": 1, "description": "Orders", "disabled": false,
          "filterTypes": ["order.paid"], "channels": null, "rateLimit": null, "metadata": { "team": "a" } },
        { "id": "ep_2", "uid": null, "url": format!("{receiver}2"), "version": 1, "description": "", "disabled": true,
          "filterTypes": null, "channels": ["tenant_7"], "metadata": {} },
        { "id": "ep_3", "url": format!("{receiver}3"), "description": "", "disabled": false, "metadata": {} },
    ]);
    let second = json!([
        { "id": "ep_4", "url": format!("{receiver}4"), "description": "", "disabled": false, "metadata": {} },
        { "id": "ep_5", "url": format!("{receiver}5"), "description": "", "disabled": false, "metadata": {},
          "filterTypes": ["order.old", EVENT] },
    ]);
    let applications = json!([
        { "id": "app_1", "uid": "acme", "name": "Acme", "rateLimit": null, "metadata": { "plan": "gold" } },
        { "id": "app_2", "uid": uid, "name": "Umbra", "metadata": {} },
    ]);
    [
        ("/api/v1/event-type/".to_owned(), list(types)),
        ("/api/v1/app/".to_owned(), list(applications)),
        ("/api/v1/app/app_1/endpoint/".to_owned(), list(first)),
        ("/api/v1/app/app_2/endpoint/".to_owned(), list(second)),
        (of("app_1", "ep_1", "secret"), secret(SECRET)),
        (of("app_1", "ep_1", "headers"), plain()),
        (of("app_1", "ep_2", "secret"), secret(OTHER_SECRET)),
        (of("app_1", "ep_2", "headers"), plain()),
        (of("app_1", "ep_3", "secret"), secret("whpk_hidden")),
        (of("app_1", "ep_3", "headers"), plain()),
        (of("app_2", "ep_4", "secret"), secret(SECRET)),
        (of("app_2", "ep_4", "headers"), json!({ "headers": {}, "sensitive": ["Authorization"] })),
        (of("app_2", "ep_5", "secret"), secret(SECRET)),
        (of("app_2", "ep_5", "headers"), plain()),
    ]
    .into()
}

/// Checks what was made of [`svix`], and that a receiver verifies with the secret that it had.
async fn check_moved(app: &App, receiver: &Receiver) {
    let operator = |path: &str| Call::new(app.address, "GET", path).bearer(&app.operator).send();
    let acme = operator("/v1/accounts/acme").await.expect(200);
    assert_eq!((acme.attribute("name"), acme.attribute("metadata")), (&json!("Acme"), &json!({ "plan": "gold" })));
    let umbra = operator("/v1/accounts/svix:8b7967bd-c278-46ca-8bbb-33e3131a6239").await.expect(200);
    let endpoints = async |account: &str| {
        let account = AccountId::parse(account).expect("an id");
        let key = key(&app.store, Some(account), &[Permission::All]).await;
        let listed = Call::new(app.address, "GET", "/v1/webhooks").bearer(&key).send().await.expect(200);
        let rows = listed.json["data"].as_array().expect("a list").iter();
        rows.map(|row| row["attributes"].clone()).rev().collect::<Vec<Value>>()
    };
    let of_acme = endpoints(&acme.id()).await;
    assert_eq!(of_acme.len(), 2, "{of_acme:#?}");
    let names = ["external_id", "events", "status", "channels", "description", "metadata", "secret_hint"];
    let shown = |endpoint: &Value| names.map(|name| endpoint[name].clone());
    let first = json!(["orders", ["order.paid"], "active", null, "Orders", { "team": "a" }, "...LaSw"]);
    let second = json!(["ep_2", ["*"], "disabled", ["tenant_7"], null, null, "...b7oD"]);
    assert_eq!(json!([shown(&of_acme[0]), shown(&of_acme[1])]), json!([first, second]));
    let of_umbra = endpoints(&umbra.id()).await;
    assert_eq!(of_umbra.len(), 1, "{of_umbra:#?}");
    assert_eq!((&of_umbra[0]["external_id"], &of_umbra[0]["events"]), (&json!("ep_5"), &json!([EVENT])));

    let event = |data: Value| json!({ "event": "order.paid", "data": data, "account_id": "acme" });
    let publish = |data| Call::new(app.address, "POST", "/v1/events").bearer(&app.operator).json(&event(data)).send();
    publish(json!({})).await.refused(422, "event_data_invalid", "/data/attributes/data");
    publish(json!({ "id": "7" })).await.expect(202);
    let requests = receiver.wait_for(1).await;
    assert_eq!(requests[0].path, "/hook");
    assert_signed(&requests[0], SECRET);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_svixs_answers_moves_what_can_be_moved_and_says_why_the_rest_cannot() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let lines = svix(&receiver.url()).into_iter().map(|(path, body)| json!({ "path": path, "body": body }).to_string());
    std::fs::write(app.folder().join("svix.jsonl"), lines.collect::<Vec<_>>().join("\n")).expect("written");
    let args = ["--from", "svix", "svix.jsonl", "--json"];
    let (told, counted) = objects(&import(app.folder(), &[&args[..], &["--dry-run"]].concat(), &[]).await, 1);
    assert_eq!(counted, json!({ "dry_run": true, "made": 6, "exist": 0, "left": 1, "refused": 3 }));
    let shown = |entry: &Value| format!("{} {}", entry["path"].as_str().unwrap_or(""), entry["outcome"]);
    let expected = [
        "/api/v1/event-type/Order-Weird \"refused\"",
        "/api/v1/event-type/order.old \"left\"",
        "/api/v1/event-type/order.paid \"would_be_made\"",
        "/api/v1/app/app_1 \"would_be_made\"",
        "/api/v1/app/app_1/endpoint/ep_1 \"would_be_made\"",
        "/api/v1/app/app_1/endpoint/ep_2 \"would_be_made\"",
        "/api/v1/app/app_1/endpoint/ep_3 \"refused\"",
        "/api/v1/app/app_2 \"would_be_made\"",
        "/api/v1/app/app_2/endpoint/ep_4 \"refused\"",
        "/api/v1/app/app_2/endpoint/ep_5 \"would_be_made\"",
    ];
    assert_eq!(told.iter().map(shown).collect::<Vec<_>>(), expected);
    assert_eq!(told[0]["faults"][0]["field"], "name");
    assert_eq!(told[6]["faults"][0]["field"], "secret");
    assert_eq!(told[8]["faults"][0]["detail"], "Svix does not tell the values of Authorization");
    assert_eq!(told[9]["notes"], json!(["without the archived event types order.old"]));
    let acme = Call::new(app.address, "GET", "/v1/accounts/acme").bearer(&app.operator);
    acme.send().await.refused(404, "not_found", "");

    let (told, counted) = objects(&import(app.folder(), &args, &[]).await, 1);
    assert_eq!(told.len(), expected.len());
    assert_eq!(counted, json!({ "dry_run": false, "made": 6, "exist": 0, "left": 1, "refused": 3 }));
    let (_, counted) = objects(&import(app.folder(), &args, &[]).await, 1);
    assert_eq!(counted, json!({ "dry_run": false, "made": 0, "exist": 6, "left": 1, "refused": 3 }));
    check_moved(&app, &receiver).await;
    std::fs::write(app.folder().join("svix.jsonl"), "{}\n").expect("written");
    let told = stopped(&import(app.folder(), &args, &[]).await);
    assert!(told.contains("svix.jsonl: line 1: `path` must be the path of the request"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_with_headers_or_a_rate_limit_moves_with_them_or_not_at_all() {
    let app = App::start().await;
    let mut answers = svix("http://127.0.0.1:9/hook");
    let headers = json!({ "headers": { "X-Example": "hidden-value" }, "sensitive": [] });
    answers.insert("/api/v1/app/app_1/endpoint/ep_1/headers/".into(), headers);
    answers.get_mut("/api/v1/app/app_1/endpoint/").expect("a list")["data"][1]["rateLimit"] = 20.into();
    let transformation = json!({ "code": "function handler(webhook) { return webhook; }", "enabled": true });
    answers.insert("/api/v1/app/app_2/endpoint/ep_5/transformation/".into(), transformation);
    let lines = answers.into_iter().map(|(path, body)| json!({ "path": path, "body": body }).to_string());
    std::fs::write(app.folder().join("svix.jsonl"), lines.collect::<Vec<_>>().join("\n")).expect("written");
    let output = import(app.folder(), &["--from", "svix", "svix.jsonl", "--json", "--dry-run"], &[]).await;
    let (told, _) = objects(&output, 1);
    let known = &DOCUMENT["components"]["schemas"]["CreateWebhook"]["properties"];
    for (name, endpoint) in [("headers", "ep_1"), ("rate_limit", "ep_2")] {
        let path = format!("/api/v1/app/app_1/endpoint/{endpoint}");
        let entry = told.iter().find(|entry| entry["path"] == path).expect("told");
        let detail = format!("not yet: this version has no {name}");
        let expected = if known[name].is_object() { Value::Null } else { json!([{ "field": name, "detail": detail }]) };
        assert_eq!(entry["faults"], expected, "{entry}");
    }
    let changed = told.iter().find(|entry| entry["path"] == "/api/v1/app/app_2/endpoint/ep_5").expect("told");
    assert_eq!((&changed["outcome"], &changed["faults"][0]["field"]), (&json!("refused"), &json!("transformation")));
}

#[tokio::test]
async fn a_server_that_is_asked_in_clear_over_the_network_is_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    for (url, is_warned) in [
        // Nobody listens there. It is this machine, and not its loopback address.
        ("http://0.0.0.0:1", true),
        ("https://0.0.0.0:1", false),
        ("http://127.0.0.1:1", false),
        ("http://localhost:1", false),
    ] {
        let args = ["--from", "svix", "--url", url, "--dry-run"];
        let output = import(folder.path(), &args, &[("SVIX_AUTH_TOKEN", TOKEN)]).await;
        lines(&output, 1);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(errors.contains("warning: the token and the secrets"), is_warned, "{errors}");
    }
}

/// What a server answers.
enum Reply {
    Json(Value),
    Status(u16),
    /// These bytes, and the connection ends.
    Raw(Vec<u8>),
}

/// A server with Svix's API, which remembers what it was asked for.
struct Svix {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Svix {
    async fn start(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (reply, remembered) = (Arc::new(reply), asked.clone());
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (reply, asked) = (reply.clone(), remembered.clone());
                tokio::spawn(async move { converse(stream, &asked, &*reply).await });
            }
        });
        Self { address, asked, serving }
    }

    /// What it was asked for since the last time.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("no panic"))
    }

    /// Imports from it, with this token.
    async fn import(&self, folder: &Path, token: &str, flags: &[&str]) -> Output {
        let url = format!("http://{}", self.address);
        let args = [&["--from", "svix", "--url", &url][..], flags].concat();
        import(folder, &args, &[("SVIX_AUTH_TOKEN", token)]).await
    }
}

impl Drop for Svix {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn converse(mut stream: TcpStream, asked: &Mutex<Vec<String>>, reply: &(dyn Fn(&str) -> Reply + Send + Sync)) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = String::from_utf8(buffer.drain(..end).collect()).expect("text");
        let target = head.split(' ').nth(1).expect("a target").to_owned();
        let expected = format!("authorization: Bearer {TOKEN}");
        let is_known = head.lines().any(|line| line.eq_ignore_ascii_case(&expected));
        asked.lock().expect("no panic").push(target.clone());
        let answer = if is_known { reply(&target) } else { Reply::Status(401) };
        let (status, body) = match answer {
            Reply::Json(json) => (200, json.to_string()),
            Reply::Status(status) => (status, json!({ "code": "refused", "detail": "refused" }).to_string()),
            Reply::Raw(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
        };
        let sent = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(sent.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The answer of a server that has this; its pages have one row.
fn paged(answers: &BTreeMap<String, Value>, target: &str) -> Reply {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let Some(answer) = answers.get(path) else { return Reply::Status(404) };
    let Some(rows) = answer["data"].as_array() else { return Reply::Json(answer.clone()) };
    let iterator = query.split('&').find_map(|pair| pair.strip_prefix("iterator="));
    let at: usize = iterator.map_or(0, |iterator| iterator.parse().expect("one of ours"));
    let next = (at + 1).to_string();
    let row: Vec<&Value> = rows.iter().skip(at).take(1).collect();
    Reply::Json(json!({ "data": row, "iterator": next, "done": at + 1 >= rows.len() }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_read_page_by_page_and_an_import_that_broke_off_goes_on_where_it_was() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let answers = svix(&receiver.url());
    let cuts = AtomicUsize::new(0);
    // The request is tried again on a new connection: both are cut.
    let server = Svix::start(move |target| {
        let is_cut = target.contains("/ep_2/secret") && cuts.fetch_add(1, Ordering::Relaxed) < 2;
        let half = || Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 60\r\n\r\n{\"key\":".to_vec());
        if is_cut { half() } else { paged(&answers, target) }
    })
    .await;
    let told = stopped(&server.import(app.folder(), "hidden-value", &[]).await);
    assert!(told.contains("the server refuses the token") && told.contains("401"), "{told}");
    assert_eq!(server.asked().len(), 1);

    let told = stopped(&server.import(app.folder(), TOKEN, &[]).await);
    assert!(told.contains("the same command goes on where it was") && told.contains("broke"), "{told}");
    let asked = server.asked();
    let types = "/api/v1/event-type/?limit=250&with_content=true&include_archived=true";
    assert_eq!(asked[..2], [types.to_owned(), format!("{types}&iterator=1")]);
    assert!(asked.contains(&"/api/v1/app/app_1/endpoint/ep_1/secret/".to_owned()), "{asked:#?}");

    std::fs::write(app.folder().join("token"), format!("{TOKEN}\n")).expect("written");
    let output = server.import(app.folder(), "", &["--token-file", "token", "--json"]).await;
    let (_, counted) = objects(&output, 1);
    assert_eq!(counted, json!({ "dry_run": false, "made": 3, "exist": 3, "left": 1, "refused": 3 }));
    let asked = server.asked();
    assert!(!asked.iter().any(|target| target.contains("/ep_1/")), "it is there already: {asked:#?}");
    assert!(asked.contains(&"/api/v1/app/app_2/endpoint/?limit=250&iterator=1".to_owned()), "{asked:#?}");
    check_moved(&app, &receiver).await;
}

/// Makes the same reply each time.
type Fault = Box<dyn Fn() -> Reply + Send + Sync>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_answers_too_much_without_end_or_nothing_readable_is_given_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let huge = || [b"HTTP/1.1 200 OK\r\ncontent-length: 20000000\r\n\r\n".to_vec(), vec![b' '; 17 << 20]].concat();
    let faults: [(Fault, &str); 7] = [
        (Box::new(move || Reply::Raw(huge())), "is larger than 16 MiB"),
        (Box::new(|| Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello".to_vec())), "is no JSON"),
        (Box::new(|| Reply::Raw(b"nothing of HTTP\r\n\r\n".to_vec())), "broke"),
        (Box::new(|| Reply::Status(500)), "was answered with 500"),
        (Box::new(|| Reply::Status(404)), "was answered with 404"),
        (Box::new(|| Reply::Json(json!({ "data": {}, "done": true }))), "has no `data`"),
        (Box::new(|| Reply::Json(json!({ "data": [], "iterator": "a", "done": false }))), "does not end after 2 pages"),
    ];
    for (reply, expected) in faults {
        let server = Svix::start(move |_| reply()).await;
        let told = stopped(&server.import(folder.path(), TOKEN, &["--dry-run"]).await);
        assert!(told.contains(expected), "{told}");
    }
    let args = ["--from", "svix", "--url", "http://127.0.0.1:1"];
    let told = stopped(&import(folder.path(), &args, &[("SVIX_AUTH_TOKEN", TOKEN)]).await);
    assert!(told.contains("cannot connect to 127.0.0.1:1"), "{told}");
    // One that is busy is asked again.
    let (answers, busy) = (svix("http://127.0.0.1:9/hook"), AtomicUsize::new(0));
    let server = Svix::start(move |target| match busy.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::Raw(b"HTTP/1.1 429 X\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n".to_vec()),
        _ => paged(&answers, target),
    })
    .await;
    let (_, counted) = objects(&server.import(folder.path(), TOKEN, &["--dry-run", "--json"]).await, 1);
    assert_eq!(counted["made"], 6);
}

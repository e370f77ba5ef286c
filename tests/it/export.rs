//! The log as a file, opened by the tools of others: Python's csv, openpyxl.

use std::path::Path;
use std::process::{Command, Stdio};

use aldaba::domain::permission::Permission;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::app::{App, Call, EVENT, Receiver, Reply, eventually};
use crate::browser::Browser;
use crate::database;
use crate::people::PASSWORD;

const ALL: &str = "/v1/webhooks/deliveries/export";

/// Formulas that a spreadsheet finds which takes something else than a comma for what separates cells.
const APART: &str = "a;=1;\"+2\"\t-3\r\n＠4";

/// What Python finds in a file: a list of rows, each a list of cells.
fn read(format: &str, file: &[u8]) -> Vec<Vec<Value>> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    let script = match format {
        "csv" => {
            "import csv, io, json, sys; text = io.TextIOWrapper(sys.stdin.buffer, 'utf-8', newline=''); \
                  print(json.dumps(list(csv.reader(text, strict=True))))"
        }
        _ => {
            "import io, json, sys, openpyxl; book = openpyxl.load_workbook(io.BytesIO(sys.stdin.buffer.read()), \
              read_only=True); print(json.dumps([[cell for cell in row] for row in \
              book.active.iter_rows(values_only=True)]))"
        }
    };
    let mut child = Command::new(python)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run ./scripts/test once, which installs it");
    let mut input = child.stdin.take().expect("a pipe");
    let file = file.to_vec();
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut input, &file).expect("written"));
    let output = child.wait_with_output().expect("it ends");
    writing.join().expect("no panic");
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// More deliveries of the endpoint, as many as that, all of them delivered.
async fn grow(app: &App, more: u32) {
    let numbers = if database::is_postgres() {
        format!("SELECT generate_series(1, {more}) AS i")
    } else {
        format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {more}) SELECT i FROM n")
    };
    let (account, of_account) =
        if database::is_postgres() { ("account, type,", "d.account, d.type,") } else { ("", "") };
    let sql = format!(
        "INSERT INTO deliveries (id, {account} endpoint, event, status, attempt, response_status, response_time_ms, \
         response_body) SELECT d.id + n.i, {of_account} d.endpoint, d.event, 2, 1, 200, 7, 'This is what the receiver \
         has answered with, number ' || n.i FROM (SELECT * FROM deliveries ORDER BY id DESC LIMIT 1) d, ({numbers}) n"
    );
    database::execute(app.folder(), &sql).await;
}

#[tokio::test]
async fn both_files_say_what_the_list_says_and_run_nothing() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let hostile = [
        "=1+cmd|' /C calc'!A0",
        "@SUM(1)",
        "＝1",
        "a \"quoted\", ñ\r\nsecond line",
        "\u{1}<b>&amp;</b>]]>",
        " lead",
        APART,
    ];
    receiver.script(hostile.map(|text| Reply::Full(200, vec![], text.to_owned())));
    receiver.script([Reply::Status(500)]);
    let (id, _) = app.endpoint(&receiver.url()).await;
    for number in 0..=hostile.len() {
        app.publish(json!({ "id": "7f3d9a52-6c1e-4b0a-9d57-2f8e41c6b3aa", "n": number })).await;
        receiver.wait_for(number + 1).await;
    }
    app.delivery(&id, "retrying").await;
    let listed = eventually("every outcome", || async {
        let listed = app.get("/v1/webhooks/deliveries?per_page=100").await.expect(200).json;
        let rows = listed["data"].as_array().expect("a list").clone();
        rows.iter().all(|row| row["attributes"]["status"] != "pending").then_some(rows)
    })
    .await;
    for (format, path) in [
        ("csv", ALL.to_owned()),
        ("csv", format!("{ALL}?format=pdf")),
        ("csv", format!("/v1/webhooks/{id}/deliveries/export?format=csv")),
        ("xlsx", format!("{ALL}?format=xlsx")),
        ("xlsx", format!("/v1/webhooks/{id}/deliveries/export?format=XLSX")),
    ] {
        let answer = app.get(&path).await.expect(200);
        let name = answer.header("content-disposition");
        assert!(
            name.starts_with("attachment; filename=\"deliveries-2") && name.contains(&format!(".{format}\"")),
            "{name}"
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let rows = read(format, &answer.text);
        let (names, rows) = rows.split_first().expect("a first row");
        assert_eq!(rows.len(), listed.len());
        for (row, listed) in rows.iter().zip(&listed) {
            for (name, cell) in names.iter().zip(row) {
                let name = name.as_str().expect("text");
                let value = if name == "id" { &listed["id"] } else { &listed["attributes"][name] };
                let expected = match (format, value) {
                    ("csv", Value::Null) => json!(""),
                    ("csv", Value::Number(number)) => json!(number.to_string()),
                    ("csv", Value::String(text)) if text == APART => json!("a;'=1;\"'+2\"\t'-3\r\n'＠4"),
                    ("csv", Value::String(text)) if text.starts_with(['=', '@', '＝']) => json!(format!("'{text}")),
                    ("xlsx", Value::String(text)) => json!(text.replace('\u{1}', "\u{fffd}")),
                    _ => value.clone(),
                };
                assert_eq!(*cell, expected, "{name} in {path}");
            }
        }
        assert!(listed.iter().all(|row| row["attributes"].as_object().expect("fields").len() == names.len() - 1));
    }
}

#[tokio::test]
async fn filters_and_the_limit_hold_and_what_is_another_accounts_does_not_exist() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Status(400), Reply::Status(200), Reply::Status(200)]);
    let (id, _) = app.endpoint(&receiver.url()).await;
    for number in 0..3 {
        app.publish(json!({ "n": number })).await;
        receiver.wait_for(number + 1).await;
    }
    app.delivery(&id, "success").await;
    let rows = async |query: &str| {
        let answer = app.get(&format!("{ALL}?{query}")).await.expect(200);
        answer.text.split(|byte| *byte == b'\n').count() - 2
    };
    for (query, expected) in [
        ("", 3),
        ("limit=2", 2),
        ("limit=0", 1),
        ("limit=x", 3),
        ("status=retrying", 1),
        ("q=nowhere", 0),
        ("response_status=2xx&limit=1", 1),
    ] {
        assert_eq!(rows(query).await, expected, "{query}");
    }
    let refused = app.get(&format!("{ALL}?status=lost&format=xlsx")).await.refused(422, "invalid_filter", "");
    assert_eq!(refused.json["errors"][0]["source"]["parameter"], "status");
    let path = format!("/v1/webhooks/{id}/deliveries/export");
    let (_, stranger) = app.stranger().await;
    Call::new(app.address, "GET", &path).bearer(&stranger).send().await.refused(404, "not_found", "");
    let blind = app.key_for(&[Permission::EventsRead]).await;
    for path in [&path, ALL] {
        Call::new(app.address, "GET", path).bearer(&blind).send().await.refused(403, "forbidden", "");
    }
}

/// The beginning of an export, of which nothing more is read.
async fn begin(app: &App, key: &str) -> (TcpStream, Vec<u8>) {
    begin_with(app, ALL, &format!("authorization: Bearer {key}")).await
}

/// The same at this path, with this header.
#[expect(clippy::disallowed_methods, reason = "a test's client")]
async fn begin_with(app: &App, path: &str, header: &str) -> (TcpStream, Vec<u8>) {
    let socket = TcpSocket::new_v4().expect("a socket");
    // The system would take megabytes for a client that does not read.
    socket.set_recv_buffer_size(64 << 10).expect("a small buffer");
    let mut stream = socket.connect(app.address).await.expect("connected");
    let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\n{header}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut begun = vec![0; 1_000];
    stream.read_exact(&mut begun).await.expect("a beginning");
    (stream, begun)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_has_up_to_a_hundred_thousand_rows_and_a_client_that_leaves_stops_it() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (id, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    app.delivery(&id, "success").await;
    grow(&app, 100_500).await;
    let csv = app.get(ALL).await.expect(200);
    let rows = read("csv", &csv.text);
    assert_eq!(rows.len(), 100_001);
    let ids: Vec<i64> = rows[1..].iter().map(|row| row[0].as_str().expect("text").parse().expect("a number")).collect();
    assert!(ids.windows(2).all(|pair| pair[0] > pair[1]), "the newest first, and none twice");
    let book = read("xlsx", &app.get(&format!("{ALL}?format=xlsx&limit=30000")).await.expect(200).text);
    assert_eq!((book.len(), &book[30_000][0]), (30_001, &rows[30_000][0]));
    // Two that nobody goes on reading are all that an account may have.
    let two = (begin(&app, &app.key).await.0, begin(&app, &app.key).await.0);
    assert_eq!(app.get(&format!("{ALL}?limit=1")).await.refused(503, "unavailable", "").header("retry-after"), "5");
    drop(two);
    eventually("their places to be free", || async {
        let answers = [app.get(&format!("{ALL}?limit=1")).await, app.get(&format!("{ALL}?limit=1")).await];
        answers.iter().all(|answer| answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_finished_does_not_look_as_if_it_were() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (id, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({ "event": EVENT })).await;
    app.delivery(&id, "success").await;
    grow(&app, 100_000).await;
    let (mut stream, mut file) = begin(&app, &app.key).await;
    database::destroy(app.folder()).await;
    let _ = stream.read_to_end(&mut file).await;
    assert!(!file.ends_with(b"0\r\n\r\n"), "the last chunk is never sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_breaks_off_where_its_caller_may_no_longer_read_it() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (id, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({ "event": EVENT })).await;
    app.delivery(&id, "success").await;
    grow(&app, 100_000).await;
    let account = format!("/v1/accounts/{}", app.account);
    let body = json!({ "permissions": ["webhooks:read"] });
    let key = app.post(&format!("{account}/api-keys"), body.clone()).await.expect(201);
    let bearer = format!("authorization: Bearer {}", key.attribute("key").as_str().expect("a key"));
    let links = format!("{account}/portal-links");
    let link = app.call("POST", &links).bearer(&app.operator).json(&body).send().await.expect(201);
    let portal = link.attribute("url").as_str().and_then(|url| url.split_once("localhost")).expect("our address").1;
    let user = crate::people::user(&app, "viewer@example.com", "viewer").await;
    let mut browser = Browser::new(&app);
    browser.sign_in("viewer@example.com", PASSWORD, "").await.expect(200);
    let cookie = format!("cookie: aldaba_session={}", browser.session().expect("a session"));
    for (path, header, end) in [
        (ALL.to_owned(), bearer, format!("{account}/api-keys/{}", key.id())),
        (format!("{portal}/deliveries/export"), "accept: */*".to_owned(), format!("{links}/{}", link.id())),
        (format!("/accounts/{}/deliveries/export", app.account), cookie, format!("{account}/users/{user}")),
    ] {
        let (mut stream, mut file) = begin_with(&app, &path, &header).await;
        assert!(file.starts_with(b"HTTP/1.1 200"), "{path}: {}", String::from_utf8_lossy(&file));
        app.delete(&end).await.expect(204);
        let _ = stream.read_to_end(&mut file).await;
        assert!(!file.ends_with(b"0\r\n\r\n"), "{path}: the last chunk is never sent");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_whose_clients_take_nothing_of_their_exports_leave_room_for_others_and_lose_theirs() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let endpoint = json!({ "url": format!("{}?{}", receiver.url(), "x".repeat(1_900)), "events": [EVENT] });
    let event = json!({ "event": EVENT, "data": {} });
    let short = format!("{ALL}?limit=1");
    let (mut keys, mut stalled) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let (_, key) = app.stranger().await;
        app.call("POST", "/v1/webhooks").bearer(&key).json(&endpoint).send().await.expect(201);
        app.call("POST", "/v1/events").bearer(&key).json(&event).send().await.expect(202);
        eventually("the delivery", || async {
            let found = app.call("GET", "/v1/webhooks/deliveries?status=success").bearer(&key).send().await.expect(200);
            (found.json["meta"]["pagination"]["total"] == 1).then_some(())
        })
        .await;
        // 10 MiB, of which the system takes 4 MiB at most.
        grow(&app, 5_000).await;
        for _ in 0..2 {
            stalled.push(begin(&app, &key).await);
        }
        app.call("GET", &short).bearer(&key).send().await.refused(503, "unavailable", "");
        keys.push(key);
    }
    app.get(&short).await.expect(200);
    for key in &keys {
        eventually("a place of those that stall", || async {
            let answer = app.call("GET", &short).bearer(key).send().await;
            (answer.status == 200).then_some(())
        })
        .await;
    }
    let mut whole = Vec::new();
    for (mut stream, mut file) in stalled {
        let _ = stream.read_to_end(&mut file).await;
        whole.push(file.ends_with(b"0\r\n\r\n"));
    }
    // The other one of an account may still have its place, and goes on when it is read.
    assert!(whole.chunks(2).all(|pair| pair.contains(&false)), "the last chunk of one that lost its place: {whole:?}");
}

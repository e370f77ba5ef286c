//! The real program: commands beside a running server, settings, exit codes, signals, logs.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::app::{App, Call, EVENT, PATIENCE, Receiver, eventually};
use crate::crash::Server;
use crate::database;
use aldaba::store::{Accounts, Endpoints};

/// The program, in this folder, with nothing of our own environment that it would read.
pub fn aldaba(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aldaba"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ALDABA_")) {
        command.env_remove(name);
    }
    // The file is the default; what stands in the environment is not asked for.
    if database::is_postgres() {
        command.envs(database::settings(folder).into_iter().map(|(name, value)| (format!("ALDABA_{name}"), value)));
    }
    command
}

pub fn run(folder: &Path, args: &[&str]) -> Output {
    aldaba(folder, args).output().expect("it runs")
}

#[track_caller]
pub fn printed(folder: &Path, args: &[&str]) -> String {
    let output = run(folder, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

#[track_caller]
pub fn refused(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("error: ") && !text.contains("panicked") && !text.contains("stack"), "{text}");
    text
}

#[tokio::test]
async fn a_name_that_a_terminal_would_obey_makes_no_row_of_its_own_and_is_no_longer_taken() {
    let app = App::start().await;
    // An older version took it.
    app.store.create_account("Shop\n0000  forged\u{1b}[2J\u{9b}2J".into(), None).await.expect("an account");
    let listed = printed(app.folder(), &["accounts", "list"]);
    assert_eq!(listed.lines().count(), 2, "{listed:?}");
    assert!(listed.contains("  Shop·0000  forged·[2J·2J"), "{listed:?}");
    assert!(!listed.chars().any(|c| c.is_control() && c != '\n'), "{listed:?}");
    for args in [&["accounts", "create", "a\u{1b}[2J"][..], &["keys", "create", "--name", "a\nb"]] {
        assert!(refused(&run(app.folder(), args)).contains("control character"), "{args:?}");
    }
}

#[tokio::test]
async fn what_the_command_line_changes_is_seen_by_the_running_server() {
    let app = App::start().await;
    let folder = app.folder();
    let receiver = Receiver::start().await;
    let (id, secret) = app.endpoint(&receiver.url()).await;
    let account = printed(folder, &["accounts", "create", "from the shell"]);
    let key = printed(folder, &["keys", "create", "--account", &account, "--permission", "webhooks:read"]);
    assert!(key.starts_with("mxcep_") && key.len() == 70, "the key alone is printed");
    app.call("GET", "/v1/webhooks").bearer(&key).send().await.expect(200);
    app.call("POST", "/v1/webhooks").bearer(&key).send().await.refused(403, "forbidden", "");

    let own = app.account.to_string();
    let told = printed(folder, &["events", "publish", EVENT, "--account", &own, "--data", r#"{"n":1}"#, "--json"]);
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["deliveries"], 1);
    crate::verify::assert_signed(&receiver.wait_for(1).await[0], &secret);
    app.delivery(&id, "success").await;
    app.get(&format!("/v1/events/{}", told["id"].as_str().expect("an id"))).await.expect(200);

    let listed: Value =
        serde_json::from_str(&printed(folder, &["keys", "list", "--account", &account, "--json"])).expect("JSON");
    printed(folder, &["keys", "revoke", listed[0]["id"].as_str().expect("an id"), "--account", &account]);
    // At once where there is one server; a second later at most where there may be many.
    crate::app::eventually("the key to be refused", || async {
        let answer = app.call("GET", "/v1/webhooks").bearer(&key).send().await;
        assert!(answer.status == 401 || database::is_postgres(), "{}", answer.status);
        (answer.status == 401).then_some(())
    })
    .await;
    let accounts: Value = serde_json::from_str(&printed(folder, &["accounts", "list", "--json"])).expect("JSON");
    assert_eq!((accounts.as_array().map(Vec::len), &accounts[0]["id"]), (Some(2), &json!(account)));
}

#[tokio::test]
async fn the_master_key_is_rotated_beside_the_running_server() {
    if database::is_postgres() {
        // There the key is given to every node by its settings: see `given_keys_are_rotated_by_settings`.
        return;
    }
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (id, secret) = app.endpoint(&receiver.url()).await;
    let file = app.folder().join("aldaba.db.master-key");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    }
    let before = std::fs::read_to_string(&file).expect("a key");
    assert_eq!(printed(app.folder(), &["secrets", "rekey"]), "1 secrets are sealed with the current master key");
    let after = std::fs::read_to_string(&file).expect("a key");
    assert!(before != after && after.trim().len() == 64);
    app.publish(json!({})).await;
    crate::verify::assert_signed(&receiver.wait_for(1).await[0], &secret);
    let (second, _) = app.endpoint(&receiver.url()).await;
    let app = app.restart(&[]).await;
    app.publish(json!({})).await;
    receiver.wait_for(3).await;
    for endpoint in [id, second] {
        app.delivery(&endpoint, "success").await;
    }
}

#[tokio::test]
async fn a_wrong_master_key_stops_the_start() {
    let app = App::start().await;
    app.endpoint("http://127.0.0.1:9/").await;
    let folder = app.stop().await;
    let key = "ab".repeat(32);
    let mut command = aldaba(folder.path(), &["migrate"]);
    let text = refused(&command.env("ALDABA_SECRETS__MASTER_KEY", &key).output().expect("it runs"));
    assert!(text.contains("the stored secrets cannot be opened") && !text.contains(&key), "{text}");
}

#[tokio::test]
async fn given_keys_are_rotated_by_settings() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = ("11".repeat(32), "22".repeat(32));
    let with = |current: &str, previous: &str, args: &[&str]| {
        let mut command = aldaba(folder.path(), args);
        command.env("ALDABA_SECRETS__MASTER_KEY", current);
        if !previous.is_empty() {
            command.env("ALDABA_SECRETS__PREVIOUS_MASTER_KEYS", previous);
        }
        command.output().expect("it runs")
    };
    assert!(with(&old, "", &["migrate"]).status.success());
    with_an_endpoint(folder.path(), &old).await;
    refused(&with(&new, "", &["migrate"]));
    assert!(with(&new, &old, &["secrets", "rekey"]).status.success());
    assert!(with(&new, "", &["migrate"]).status.success());
    refused(&with(&old, "", &["migrate"]));
}

/// Registers an endpoint whose secret is sealed with this key.
async fn with_an_endpoint(folder: &Path, key: &str) {
    use aldaba::domain::settings::EndpointSettings;
    use aldaba::domain::url::{Environment, ReceiverUrl};
    use aldaba::store::keys::{KeySource, parse_master_key};
    use aldaba::store::{OpenOptions, Store};
    let store = Store::open(OpenOptions {
        database: database::options(folder).0,
        keys: KeySource::Given { current: parse_master_key(key).expect("a key"), previous: vec![] },
        environment: Environment::Development,
        policy: aldaba::domain::transition::DeliveryPolicy::default(),
        max_endpoints: 1,
        max_api_keys: 100,
        max_in_flight_per_endpoint: 1,
        serves: false,
        clock: std::sync::Arc::new(aldaba::clock::SystemClock),
        random: std::sync::Arc::new(aldaba::clock::SystemRandom::default()),
        inbox: None,
    })
    .await
    .expect("opens");
    let account = store.create_account("a".into(), None).await.expect("an account").id;
    let url = ReceiverUrl::parse("http://127.0.0.1:9/", Environment::Development).expect("a URL");
    let new = EndpointSettings::new(&url, vec![EVENT.into()]);
    store.create_endpoint(account, new.into(), None).await.expect("an endpoint");
}

#[test]
fn the_page_of_settings_is_what_the_program_prints() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(printed(folder.path(), &["settings"]) == page.trim(), "run: cargo run -- settings > docs/settings.md");
    let table: Value = serde_json::from_str(&printed(folder.path(), &["settings", "--json"])).expect("JSON");
    let names = table.as_array().expect("a list").iter().map(|row| row["name"].as_str().expect("a name"));
    for name in names {
        assert!(page.contains(&format!("| `{name}` |")), "{name}");
    }
}

#[test]
fn wrong_settings_and_arguments_stop_with_one_clear_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let with = |name: &str, value: &str| {
        let output = aldaba(folder.path(), &["serve"]).env(name, value).output().expect("it runs");
        refused(&output)
    };
    assert!(
        with("ALDABA_LISTEN", "nonsense").contains("setting listen (ALDABA_LISTEN) is not valid; allowed: HOST:PORT")
    );
    assert!(with("ALDABA_NO_SUCH", "1").contains("setting no_such (ALDABA_NO_SUCH) is unknown"));
    std::fs::write(folder.path().join("aldaba.toml"), "[webhooks]\ntimeout = 5\n").expect("written");
    let text = refused(&run(folder.path(), &["serve"]));
    assert!(text.contains("setting webhooks.timeout (aldaba.toml:2) is not valid; allowed: a duration"), "{text}");
    std::fs::write(folder.path().join("aldaba.toml"), "secrets = nonsense").expect("written");
    let text = refused(&run(folder.path(), &["serve"]));
    assert!(text.contains("aldaba.toml") && text.contains("line 1") && !text.contains("nonsense"), "{text}");
    std::fs::remove_file(folder.path().join("aldaba.toml")).expect("removed");
    assert!(refused(&run(folder.path(), &["serve", "--config", "missing.toml"])).contains("missing.toml"));
    let url = "sqlite:///proc/no/such/folder/a.db";
    assert!(refused(&run(folder.path(), &["serve", "--database-url", url])).contains("cannot open the database"));
    for args in [
        &["keys", "create", "--permission", "fly"][..],
        &["keys", "create", "--account", "x"],
        &["keys", "create", "--account", "00000000-0000-4000-8000-000000000000"],
        &["keys", "create", "--expires", "yesterday"],
        &["events", "publish", "no.such", "--account", "00000000-0000-4000-8000-000000000000"],
        &["events", "publish", EVENT, "--account", "00000000-0000-4000-8000-000000000000"],
        &["events", "publish", EVENT, "--account", "00000000-0000-4000-8000-000000000000", "--data", "[]"],
        &["accounts", "create", " "],
        &["listen", "--secret", "short"],
    ] {
        refused(&run(folder.path(), args));
    }
}

#[tokio::test]
async fn a_port_in_use_a_second_server_and_a_database_for_later_programs_stop_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), &[]);
    let address = server.address.to_string();
    for command in ["serve", "dev"] {
        let text = refused(&run(folder.path(), &[command, "--listen", &address]));
        assert!(text.contains(&format!("cannot listen on {address}")) && text.contains("--listen"), "{text}");
    }
    if !database::is_postgres() {
        let text = refused(&run(folder.path(), &["serve", "--listen", "127.0.0.1:0"]));
        assert!(text.contains("another server is running on the database"), "{text}");
    }
    drop(server);
    crate::migrations::pretend(folder.path(), 999, 999).await;
    let text = refused(&run(folder.path(), &["serve", "--listen", "127.0.0.1:0"]));
    assert!(text.contains("version 999") && text.contains("newer aldaba"), "{text}");
    std::fs::write(folder.path().join("junk.db"), "no database".repeat(1_000)).expect("written");
    let text =
        refused(&run(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--database-url", "sqlite://junk.db"]));
    assert!(text.contains("junk.db"), "{text}");
}

#[tokio::test]
async fn the_first_event_of_dev_is_found_by_its_validation() {
    use std::io::BufRead as _;
    let folder = tempfile::tempdir().expect("a folder");
    let mut dev = std::process::Command::new(env!("CARGO_BIN_EXE_aldaba"))
        .args(["dev", "--listen", "127.0.0.1:0"])
        .current_dir(folder.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = std::io::BufReader::new(dev.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let first = lines.next().expect("a line");
    let address = first.trim_start_matches("listening on http://").parse().expect("an address");
    let key = lines.find_map(|line| line.trim().strip_prefix("API key").map(|key| key.trim().to_owned()));
    // The outcome of the first delivery is printed when it is written.
    lines.find(|line| line.contains("is a success")).expect("a delivery");
    let path = "/v1/webhooks/deliveries?validation_id=7f3d9a52-6c1e-4b0a-9d57-2f8e41c6b3aa";
    let found = Call::new(address, "GET", path).bearer(&key.expect("a key")).send().await.expect(200);
    assert_eq!(found.json["meta"]["pagination"]["total"], 1);
    dev.kill().expect("killed");
    dev.wait().expect("gone");
}

#[test]
fn a_password_on_the_command_line_is_warned_of_and_not_repeated() {
    let folder = tempfile::tempdir().expect("a folder");
    let warning = "--database-url has a password";
    let told = |url: &str| {
        let mut command = aldaba(folder.path(), &["accounts", "list", "--database-url", url]);
        command.env("ALDABA_SECRETS__MASTER_KEY", database::MASTER_KEY);
        String::from_utf8_lossy(&command.output().expect("it runs").stderr).into_owned()
    };
    // Nothing listens there: the warning comes first.
    for url in [
        "postgres://aldaba:hunter2@127.0.0.1:1/aldaba?connect_timeout=1",
        "postgresql://aldaba@127.0.0.1:1/aldaba?connect_timeout=1&password=hunter2",
    ] {
        let text = told(url);
        assert!(text.contains("WARN") && text.contains(warning) && !text.contains("hunter2"), "{text}");
    }
    for url in ["postgres://aldaba@127.0.0.1:1/aldaba?connect_timeout=1", "sqlite://a:b@c.db"] {
        assert!(!told(url).contains(warning), "{url}");
    }
}

#[test]
fn a_server_in_development_that_others_can_reach_warns() {
    let warning = "environment is development, and other machines can reach this address";
    for (listen, environment, warns) in
        [("0.0.0.0:0", "development", true), ("127.0.0.1:0", "development", false), ("0.0.0.0:0", "production", false)]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = [("ALDABA_LISTEN", listen), ("ALDABA_ENVIRONMENT", environment)];
        let (status, logs) = Server::start_with(folder.path(), &settings).terminate_with_logs();
        assert!(status.success());
        assert_eq!(logs.contains(warning), warns, "{listen} {environment}: {logs}");
    }
}

#[test]
fn a_server_in_production_whose_links_would_name_any_host_warns() {
    let warning = "public_url is not set";
    let own = ("ALDABA_PUBLIC_URL", "https://hooks.acme.example");
    for (settings, warns) in [
        (vec![("ALDABA_ENVIRONMENT", "production")], true),
        (vec![("ALDABA_ENVIRONMENT", "production"), own], false),
        (vec![("ALDABA_ENVIRONMENT", "development")], false),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let (status, logs) = Server::start(folder.path(), &settings).terminate_with_logs();
        assert!(status.success());
        assert_eq!(logs.contains(warning), warns, "{settings:?}: {logs}");
    }
}

#[tokio::test]
async fn sigterm_ends_with_0_and_a_second_one_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), &[]);
    assert!(Call::new(server.address, "GET", "/healthz").send().await.expect(200).text.starts_with(b"ok"));
    assert_eq!(server.terminate().code(), Some(0));

    let account = printed(folder.path(), &["accounts", "create", "a"]);
    let key = printed(folder.path(), &["keys", "create", "--account", &account]);
    let server = Server::start(folder.path(), &[("ALDABA_WEBHOOKS__TIMEOUT", "60s")]);
    let receiver = Receiver::start().await;
    receiver.always(crate::app::Reply::Hang);
    let endpoint = json!({ "url": receiver.url(), "events": [EVENT] });
    Call::new(server.address, "POST", "/v1/webhooks").bearer(&key).json(&endpoint).send().await.expect(201);
    let event = json!({ "event": EVENT, "data": {} });
    Call::new(server.address, "POST", "/v1/events").bearer(&key).json(&event).send().await.expect(202);
    receiver.wait_for(1).await;
    server.signal("TERM");
    eventually("the server to stop accepting", || async {
        Call::new(server.address, "GET", "/healthz").try_send().await.is_none().then_some(())
    })
    .await;
    let begin = std::time::Instant::now();
    assert_eq!(server.terminate().code(), Some(130));
    assert!(begin.elapsed() < PATIENCE);
}

/// 1,024 is what many systems start a program with; each delivery under way is an open file.
#[cfg(target_os = "linux")]
#[test]
fn a_server_may_open_as_many_files_as_the_system_allows_and_has_room_for_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start_with_few_files(folder.path(), 512);
    let number = |file: &str, line: &str, field: usize| -> u64 {
        let text = server.kernel_says(file);
        let found = text.lines().find_map(|text| text.strip_prefix(line)).expect("a line");
        found.split_whitespace().nth(field).expect("a field").parse().unwrap_or(u64::MAX)
    };
    let (allowed, most) = (number("limits", "Max open files", 0), number("limits", "Max open files", 1));
    assert_eq!(allowed, most.min(65_536));
    assert!(number("status", "FDSize:", 0) >= allowed);
}

#[test]
fn a_signal_right_after_the_start_is_a_stop_and_no_death() {
    let folder = tempfile::tempdir().expect("a folder");
    for signal in ["TERM", "INT", "TERM", "INT"] {
        let server = Server::start(folder.path(), &[]);
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0), "{signal}");
    }
}

#[tokio::test]
async fn a_listener_tells_each_delivery_as_json_when_asked() {
    use std::io::{BufRead as _, BufReader};
    let app = App::start().await;
    let mut listen = aldaba(app.folder(), &["listen", "--listen", "127.0.0.1:0", "--json"]);
    let (id, _) = app.endpoint("http://127.0.0.1:9/").await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let rotate = format!("/v1/webhooks/{id}/regenerate-secret");
    app.post(&rotate, json!({ "secret": secret })).await.expect(200);
    let mut child = listen.env("WEBHOOK_SECRET", secret).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON") };
    let address = next()["receiving"].as_str().expect("an address").to_owned();
    app.put(&format!("/v1/webhooks/{id}"), json!({ "url": address })).await.expect(200);
    let told = app.call("POST", &format!("/v1/webhooks/{id}/test")).send().await.expect(200);
    assert_eq!(told.attribute("delivered"), true);
    let line = next();
    assert_eq!(
        (&line["event"], &line["delivery_id"], &line["answer"]),
        (&json!("test"), &json!(told.id()), &json!(200))
    );
    assert_eq!(line["verified"]["webhook-signature"], true);
    // During an overlap the old secret still verifies what can carry both.
    app.post(&rotate, json!({ "overlap_seconds": 60 })).await.expect(200);
    let told = app.call("POST", &format!("/v1/webhooks/{id}/test")).send().await.expect(200);
    assert_eq!(told.attribute("delivered"), true);
    let line = next();
    assert_eq!((&line["verified"]["x-webhook-signature"], &line["answer"]), (&json!(false), &json!(200)));
    child.kill().expect("killed");
    child.wait().expect("gone");
}

#[tokio::test]
async fn logs_are_json_when_asked_and_hold_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let account = printed(folder.path(), &["accounts", "create", "a"]);
    let key = printed(folder.path(), &["keys", "create", "--account", &account]);
    let server = Server::start(folder.path(), &[("ALDABA_LOG__FORMAT", "json"), ("ALDABA_LOG__LEVEL", "trace")]);
    let receiver = Receiver::start().await;
    let body = json!({ "url": receiver.url(), "events": [EVENT] });
    let made = Call::new(server.address, "POST", "/v1/webhooks").bearer(&key).json(&body).send().await.expect(201);
    let secret = made.attribute("secret").as_str().expect("a secret").to_owned();
    let path = format!("/v1/webhooks/{}/regenerate-secret", made.id());
    let rotated = Call::new(server.address, "POST", &path).bearer(&key).send().await.expect(200);
    let second = rotated.attribute("secret").as_str().expect("a secret").to_owned();
    let event = json!({ "event": EVENT, "data": {} });
    Call::new(server.address, "POST", "/v1/events").bearer(&key).json(&event).send().await.expect(202);
    receiver.wait_for(1).await;
    let (_, logs) = server.terminate_with_logs();
    let master = if database::is_postgres() {
        database::MASTER_KEY.to_owned()
    } else {
        std::fs::read_to_string(folder.path().join("aldaba.db.master-key")).expect("a key")
    };
    for hidden in [&key, &secret, &second, master.trim()] {
        assert!(!logs.contains(hidden));
    }
    let lines: Vec<Value> = logs.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let request = rotated.header("x-request-id");
    let of_request: Vec<_> = lines.iter().filter(|line| line["span"]["request_id"] == request).collect();
    assert!(!of_request.is_empty(), "the lines of a request carry its id");
}

#[test]
fn a_command_whose_output_is_not_read_to_its_end_ends_without_a_word() {
    use std::io::{BufRead as _, BufReader};
    let folder = tempfile::tempdir().expect("a folder");
    for args in [
        &["openapi"][..],
        &["settings"],
        &["settings", "--json"],
        &["completions", "zsh"],
        &["accounts", "create", "a"],
    ] {
        for lines in [0, 1] {
            let mut command = aldaba(folder.path(), args);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
            // As `head` does, it reads some lines and closes the pipe.
            let read = BufReader::new(child.stdout.take().expect("a pipe")).lines().take(lines).count();
            let output = child.wait_with_output().expect("it ends");
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!((read, output.status.code()), (lines, Some(0)), "{args:?}: {text}");
            assert!(!text.contains("panicked") && !text.contains("error: "), "{args:?}: {text}");
        }
    }
}

#[test]
fn every_command_explains_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    for args in [
        &["--help"][..],
        &["serve", "--help"],
        &["dev", "--help"],
        &["accounts", "create", "--help"],
        &["keys", "create", "--help"],
        &["events", "publish", "--help"],
        &["listen", "--help"],
        &["secrets", "rekey", "--help"],
        &["migrate", "--help"],
        &["openapi", "--help"],
        &["doctor", "--help"],
        &["settings", "check", "--help"],
        &["settings", "show", "--help"],
        &["import", "--help"],
        &["backup", "--help"],
        &["restore", "--help"],
        &["check", "--help"],
        &["hold", "--help"],
        &["resume", "--help"],
    ] {
        assert!(printed(folder.path(), args).contains("Usage: aldaba"), "{args:?}");
    }
    assert_eq!(printed(folder.path(), &["--version"]), concat!("aldaba ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_package_gets_completions_a_manual_and_a_settings_file() {
    let folder = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(folder.path(), &["completions", shell]);
        assert!(script.contains("aldaba") && script.contains("publish"), "{shell}: {script}");
    }
    let manual = folder.path().join("manual");
    std::fs::create_dir(&manual).expect("a folder");
    printed(folder.path(), &["man", "manual"]);
    for (page, word) in [("aldaba.1", "completions"), ("aldaba-keys-create.1", "PERMISSION")] {
        assert!(std::fs::read_to_string(manual.join(page)).expect(page).contains(word), "{page}");
    }
    assert!(refused(&run(folder.path(), &["man", "nowhere"])).contains("cannot write into nowhere"));
    std::fs::write(folder.path().join("aldaba.toml"), printed(folder.path(), &["settings", "--example"]))
        .expect("written");
    printed(folder.path(), &["accounts", "list"]);
}

//! SIGHUP: a running server takes over changed settings, logs which, and never ends because of it.

use std::path::Path;

use serde_json::json;

use crate::app::{Call, EVENT, Receiver, Reply, eventually};
use crate::command_line::{aldaba, printed};
use crate::crash::Server;

/// Waits until the server has logged this.
async fn logged(server: &Server, words: &str) -> String {
    eventually(words, || async {
        let logs = server.logs();
        logs.contains(words).then_some(logs)
    })
    .await
}

/// A server in development with a settings file, and a key of an account.
struct Fixture {
    folder: tempfile::TempDir,
    server: Server,
    key: String,
}

impl Fixture {
    fn start(settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), settings);
        let account = printed(folder.path(), &["accounts", "create", "a"]);
        let key = printed(folder.path(), &["keys", "create", "--account", &account]);
        let server = Server::start_by_file(folder.path());
        Self { folder, server, key }
    }

    /// Changes the file and sends the signal.
    fn reload(&self, settings: &str) {
        write(self.folder.path(), settings);
        self.server.signal("HUP");
    }

    fn call(&self, method: &str, path: &str) -> Call {
        Call::new(self.server.address, method, path).bearer(&self.key)
    }

    async fn endpoint(&self, receiver: &Receiver) -> String {
        let body = json!({ "url": receiver.url(), "events": [EVENT] });
        self.call("POST", "/v1/webhooks").json(&body).send().await.expect(201).id()
    }

    /// The error of a test delivery; empty for none.
    async fn test(&self, endpoint: &str) -> String {
        let told = self.call("POST", &format!("/v1/webhooks/{endpoint}/test")).send().await.expect(200);
        told.attribute("error").as_str().unwrap_or_default().to_owned()
    }
}

fn write(folder: &Path, settings: &str) {
    let text = format!("environment = 'development'\n{settings}");
    std::fs::write(folder.join("aldaba.toml"), text).expect("written");
}

#[tokio::test]
async fn a_server_takes_over_changed_settings_and_names_those_that_need_a_restart() {
    let f = Fixture::start("[webhooks]\ntimeout = '60s'\n");
    let receiver = Receiver::start().await;
    receiver.always(Reply::Hang);
    let id = f.endpoint(&receiver).await;
    let changed = "brand = 'Acme'\n[webhooks]\ntimeout = '1s'\nmax_endpoints = 1\n[limits]\nmax_body = 2048\n\
                   [rate_limits]\nwebhooks_list = '1/1h'\n[log]\nlevel = 'debug'\n";
    f.reload(changed);
    let logs = logged(&f.server, "these settings have changed and need a restart").await;
    let told = logs.lines().find(|line| line.contains("the settings were reloaded")).expect("a line");
    for change in [
        "limits.max_body: 262144 -> 2048",
        "log.level: info -> debug",
        "rate_limits.webhooks_list: 600/60s -> 1/1h",
        "webhooks.max_endpoints: 50 -> 1",
        "webhooks.timeout: 60s -> 1s",
    ] {
        assert!(told.contains(change), "{change}: {told}");
    }
    let left = logs.lines().find(|line| line.contains("need a restart")).expect("a line");
    assert!(left.contains("WARN") && left.contains("\"brand\""), "{left}");

    f.call("GET", "/v1/webhooks").send().await.expect(200);
    f.call("GET", "/v1/webhooks").send().await.refused(429, "rate_limit_exceeded", "");
    let second = json!({ "url": receiver.url(), "events": [EVENT] });
    f.call("POST", "/v1/webhooks").json(&second).send().await.refused(422, "webhook_limit_reached", "");
    let large = json!({ "event": EVENT, "data": { "text": "x".repeat(2_048) } });
    f.call("POST", "/v1/events").json(&large).send().await.refused(413, "body_too_large", "");
    let error = f.test(&id).await;
    assert!(error.starts_with("timed out after 1s"), "{error}");
    logged(&f.server, " DEBUG ").await;

    // A setting that needs a restart is named at each reload, and a setting in force is not.
    f.reload(changed);
    let logs = logged(&f.server, "the settings were read again").await;
    assert_eq!(logs.matches("the settings were reloaded").count(), 1, "{logs}");
    eventually("the warning", || async { (f.server.logs().matches("need a restart").count() == 2).then_some(()) })
        .await;
    assert!(f.server.terminate().success());
}

#[tokio::test]
async fn settings_that_are_not_valid_are_told_and_those_from_before_still_hold() {
    let f = Fixture::start("[rate_limits]\nwebhooks_list = 'off'\n");
    f.reload("[webhooks]\ntimeout = 'hidden'\n[rate_limits]\nwebhooks_list = '1/1h'\nwebhooks_lst = 'off'\n");
    let logs = logged(&f.server, "the earlier settings stay in force").await;
    for problem in [
        "setting webhooks.timeout (aldaba.toml:3) is not valid",
        "setting rate_limits.webhooks_lst (aldaba.toml:6) is unknown; is rate_limits.webhooks_list meant?",
    ] {
        assert!(logs.contains(problem), "{logs}");
    }
    for _ in 0..3 {
        f.call("GET", "/v1/webhooks").send().await.expect(200);
    }
    std::fs::remove_file(f.folder.path().join("aldaba.toml")).expect("removed");
    f.server.signal("HUP");
    logged(&f.server, "settings file aldaba.toml: No such file").await;
    f.call("GET", "/v1/webhooks").send().await.expect(200);
    // And the next ones are taken over.
    f.reload("[rate_limits]\nwebhooks_list = '1/1h'\n");
    logged(&f.server, "rate_limits.webhooks_list: off -> 1/1h").await;
    f.call("GET", "/v1/webhooks").send().await.expect(200);
    f.call("GET", "/v1/webhooks").send().await.refused(429, "rate_limit_exceeded", "");
    let (status, logs) = f.server.terminate_with_logs();
    assert!(status.success() && !logs.contains("hidden") && !logs.contains("panicked"), "{logs}");
}

#[tokio::test]
async fn a_network_that_is_denied_gets_nothing_more_over_a_connection_that_is_open() {
    let f = Fixture::start("");
    let receiver = Receiver::start().await;
    let id = f.endpoint(&receiver).await;
    assert_eq!(f.test(&id).await, "");
    f.reload("[egress]\ndeny_networks = ['127.0.0.0/8']\n");
    logged(&f.server, "egress.deny_networks:  -> 127.0.0.0/8").await;
    let error = f.test(&id).await;
    assert!(error.contains("to which nothing is sent"), "{error}");
    assert_eq!(receiver.received().len(), 1);
    f.reload("");
    logged(&f.server, "egress.deny_networks: 127.0.0.0/8 -> ").await;
    assert_eq!(f.test(&id).await, "");
}

#[tokio::test]
async fn previous_master_keys_are_taken_over_by_their_names_alone_unless_a_needed_one_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let [old, new, other] = ["77", "88", "99"].map(|digits| digits.repeat(32));
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), format!("{text}\n")).expect("written");
    let start = |with_previous: bool| {
        let mut command = aldaba(folder.path(), &["serve", "--listen", "127.0.0.1:0"]);
        command.env("ALDABA_ENVIRONMENT", "development").env("ALDABA_SECRETS__MASTER_KEY", "");
        command.env("ALDABA_SECRETS__MASTER_KEY_FILE", "key");
        if with_previous {
            command.env("ALDABA_SECRETS__PREVIOUS_MASTER_KEYS_FILE", "previous");
        }
        Server::spawn(command)
    };
    put("key", &old);
    let server = start(false);
    let command = |args: &[&str]| {
        let mut command = aldaba(folder.path(), args);
        command.env("ALDABA_SECRETS__MASTER_KEY", "").env("ALDABA_SECRETS__MASTER_KEY_FILE", "key");
        let output = command.output().expect("it runs");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    let account = command(&["accounts", "create", "a"]);
    let key = command(&["keys", "create", "--account", &account]);
    let body = json!({ "url": "http://127.0.0.1:9/", "events": [EVENT] });
    Call::new(server.address, "POST", "/v1/webhooks").bearer(&key).json(&body).send().await.expect(201);
    assert!(server.terminate().success());

    put("key", &new);
    put("previous", &old);
    let server = start(true);
    put("previous", &other);
    server.signal("HUP");
    let logs = logged(&server, "the earlier settings stay in force").await;
    assert!(logs.contains("the stored secrets cannot be opened"), "{logs}");
    put("previous", &format!("{old},{other}"));
    put("key", &"66".repeat(32));
    server.signal("HUP");
    let logs = logged(&server, "need a restart").await;
    assert!(logs.contains("changed=\"secrets.previous_master_keys\""), "{logs}");
    assert!(logs.contains("settings=\"secrets.master_key\""), "{logs}");
    for secret in [&old, &new, &other, &"66".repeat(32)] {
        assert!(!logs.contains(secret.as_str()), "{logs}");
    }
    Call::new(server.address, "GET", "/v1/webhooks").bearer(&key).send().await.expect(200);
}

#[tokio::test]
async fn dev_takes_changed_settings_over_too_and_does_not_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::spawn(aldaba(folder.path(), &["dev", "--listen", "127.0.0.1:0"]));
    server.signal("HUP");
    logged(&server, "the settings were read again").await;
    std::fs::write(folder.path().join("aldaba.toml"), "[webhooks]\ntimeout = '9s'\n").expect("written");
    server.signal("HUP");
    logged(&server, "webhooks.timeout: 10s -> 9s").await;
    Call::new(server.address, "GET", "/healthz").send().await.expect(200);
    assert!(server.terminate().success());
}

//! The settings of the real program: the check of all of them, and secrets in files.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::app::Call;
use crate::command_line::{aldaba, refused};
use crate::crash::Server;
use crate::database;

/// The program with these settings and no others.
fn command(folder: &Path, args: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = aldaba(folder, args);
    for name in ["ALDABA_DATABASE_URL", "ALDABA_SECRETS__MASTER_KEY"] {
        command.env_remove(name);
    }
    command.envs(settings.iter().copied());
    command
}

fn run(folder: &Path, args: &[&str], settings: &[(&str, &str)]) -> Output {
    command(folder, args, settings).output().expect("it runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text").trim().to_owned()
}

#[test]
fn every_problem_of_the_settings_is_told_at_once_by_the_check_and_by_serve() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = "listen = 'nowhere'\n\n[webhooks]\ntimout = '5s'\n";
    std::fs::write(folder.path().join("aldaba.toml"), file).expect("written");
    let settings = [("ALDABA_BRAND", "hidden value"), ("ALDABA_DATABASE_URL", "postgres://ana:hidden@db/hooks")];
    let expected = [
        "setting listen (aldaba.toml:1) is not valid",
        "setting webhooks.timout (aldaba.toml:4) is unknown; is webhooks.timeout meant?",
        "setting brand (ALDABA_BRAND) is not valid",
        "setting secrets.master_key is missing",
    ];
    let checked = run(folder.path(), &["settings", "check"], &settings);
    assert!(refused(&checked).contains("the settings have 4 problems"));
    let served = refused(&run(folder.path(), &["serve"], &settings));
    for text in [stdout(&checked), served] {
        assert_eq!(text.lines().count(), 4, "{text}");
        for problem in expected {
            assert!(text.contains(problem), "{text}");
        }
        assert!(!text.contains("hidden"), "{text}");
    }
    let checked = run(folder.path(), &["settings", "check", "--json"], &settings);
    refused(&checked);
    let told: Value = serde_json::from_str(&stdout(&checked)).expect("JSON");
    assert_eq!(told["valid"], false);
    let problems = told["problems"].as_array().expect("a list");
    let of = |setting: &str| problems.iter().find(|problem| problem["setting"] == setting).expect("a problem");
    assert_eq!(of("listen")["source"], "aldaba.toml:1");
    assert_eq!(of("secrets.master_key")["source"], Value::Null);
}

#[test]
fn the_check_of_valid_settings_says_what_was_read_and_starts_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let checked = run(folder.path(), &["settings", "check"], &[]);
    assert!(checked.status.success() && stdout(&checked).contains("every setting has its default"));
    std::fs::write(folder.path().join("aldaba.toml"), "brand = 'Acme'\n").expect("written");
    let args = ["settings", "check", "--json", "--database-url", "sqlite://other.db"];
    let checked = run(folder.path(), &args, &[("ALDABA_LOG__LEVEL", "warn")]);
    assert!(checked.status.success());
    let told: Value = serde_json::from_str(&stdout(&checked)).expect("JSON");
    let sources = ["aldaba.toml", "ALDABA_LOG__LEVEL", "--database-url"];
    assert_eq!(told, json!({ "valid": true, "problems": [], "sources": sources }));
    let files = std::fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    // On PostgreSQL the tests note the name of the database in `database`.
    let files: Vec<_> = files.filter(|name| name != "database").collect();
    assert_eq!(files, ["aldaba.toml"], "and no database");
}

#[test]
fn the_values_that_hold_are_shown_with_their_sources_and_without_secrets() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = "22".repeat(32);
    std::fs::write(folder.path().join("key"), &key).expect("written");
    std::fs::write(folder.path().join("aldaba.toml"), "[webhooks]\ntimeout = '5s'\n").expect("written");
    let settings = [
        ("ALDABA_SECRETS__MASTER_KEY_FILE", "key"),
        ("ALDABA_DATABASE_URL", "postgres://ana:hidden@db/hooks"),
        ("ALDABA_WEBHOOKS__TIMEOUT", "6s"),
    ];
    let shown = stdout(&run(folder.path(), &["settings", "show"], &settings));
    for line in [
        "brand = Aldaba  # default",
        "database_url = ***  # ALDABA_DATABASE_URL",
        "secrets.master_key = ***  # ALDABA_SECRETS__MASTER_KEY_FILE=key",
        "webhooks.timeout = 6s  # ALDABA_WEBHOOKS__TIMEOUT",
        "rate_limits.events_create = 600/60s  # default",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    assert!(!shown.contains("hidden") && !shown.contains(&key));
    let rows = stdout(&run(folder.path(), &["settings", "show", "--json"], &settings));
    let rows: Value = serde_json::from_str(&rows).expect("JSON");
    let row = json!({ "name": "webhooks.timeout", "value": "6s", "source": "ALDABA_WEBHOOKS__TIMEOUT" });
    assert!(rows.as_array().expect("a list").contains(&row), "{rows}");
}

#[tokio::test]
async fn a_server_starts_with_its_secrets_in_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let (url, key) = (database::url(folder.path()), "44".repeat(32));
    for (name, content) in [("url", format!("{url}\n")), ("key", format!("{key}\r\n"))] {
        std::fs::write(folder.path().join(name), content).expect("written");
    }
    let settings = [
        ("ALDABA_DATABASE_URL_FILE", "url"),
        ("ALDABA_DATABASE_URL", ""),
        ("ALDABA_SECRETS__MASTER_KEY_FILE", "key"),
        ("ALDABA_SECRETS__MASTER_KEY", ""),
        ("ALDABA_LOG__LEVEL", "trace"),
    ];
    let server = Server::start(folder.path(), &settings);
    Call::new(server.address, "GET", "/readyz").send().await.expect(200);
    let (status, logs) = server.terminate_with_logs();
    assert!(status.success() && !logs.contains(&key));
    assert!(!folder.path().join("aldaba.db.master-key").exists(), "the key of the file is the one that counts");
}

#[test]
fn a_server_does_not_start_with_a_secret_that_cannot_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = "55".repeat(32);
    std::fs::write(folder.path().join("key"), &key).expect("written");
    let file = ("ALDABA_SECRETS__MASTER_KEY_FILE", "key");
    let text = refused(&run(folder.path(), &["serve"], &[file, ("ALDABA_SECRETS__MASTER_KEY", &key)]));
    assert!(text.contains("ALDABA_SECRETS__MASTER_KEY_FILE") && text.contains("ALDABA_SECRETS__MASTER_KEY too"));
    assert!(!text.contains(&key), "{text}");
    let text = refused(&run(folder.path(), &["serve"], &[("ALDABA_SECRETS__MASTER_KEY_FILE", "/run/no/key")]));
    assert!(text.contains("ALDABA_SECRETS__MASTER_KEY_FILE") && text.contains("/run/no/key"), "{text}");
}

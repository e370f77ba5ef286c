//! `aldaba doctor` on a machine with faults and without.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::app::EVENT;
use crate::command_line::{aldaba, printed, refused};
use crate::database;
use crate::egress_proxy::{PASSWORD, Proxy};
use crate::name_server::NameServer;

/// What it found.
struct Report {
    checks: Vec<Value>,
    /// Whether it ended with 0.
    is_well: bool,
    text: String,
}

impl Report {
    /// The findings of a check.
    #[track_caller]
    fn of(&self, check: &str) -> Vec<&Value> {
        let found: Vec<_> = self.checks.iter().filter(|finding| finding["check"] == check).collect();
        assert!(!found.is_empty(), "nothing of {check}: {}", self.text);
        found
    }

    /// Checks that the check found this, with this status, and says what to do where it is not well.
    #[track_caller]
    fn says(&self, check: &str, status: &str, words: &str) {
        let is_it = |finding: &&Value| {
            let found = finding["found"].as_str().is_some_and(|found| found.contains(words));
            found && finding["status"] == status && (status == "ok") == finding["advice"].is_null()
        };
        assert!(self.of(check).iter().any(is_it), "{check} {status} {words}: {}", self.text);
    }
}

/// Runs the program in the folder with a name server that answers, and with these settings.
async fn doctor(folder: &Path, settings: &[(&str, &str)]) -> Report {
    let names = NameServer::start().await;
    let mut command = aldaba(folder, &["doctor", "--json"]);
    command.env("ALDABA_EGRESS__DNS_SERVERS", names.address.to_string());
    command.env("ALDABA_PUBLIC_URL", "https://hooks.acme.example").envs(settings.iter().copied());
    report(command).await
}

async fn report(command: Command) -> Report {
    let output = tokio::process::Command::from(command).output().await.expect("it runs");
    if !output.status.success() {
        refused(&output);
    }
    let text = String::from_utf8(output.stdout).expect("text");
    let told: Value = serde_json::from_str(&text).expect("JSON");
    let checks = told["checks"].as_array().expect("a list").clone();
    let problems = checks.iter().filter(|finding| finding["status"] == "problem").count();
    assert_eq!((&told["problems"], problems == 0), (&Value::from(problems), output.status.success()), "{text}");
    Report { checks, is_well: output.status.success(), text }
}

#[tokio::test]
async fn in_good_surroundings_each_check_says_what_it_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let account = printed(folder.path(), &["accounts", "create", "a"]);
    printed(folder.path(), &["events", "publish", EVENT, "--account", &account]);
    let report = doctor(folder.path(), &[]).await;
    assert!(report.is_well, "{}", report.text);
    report.says("settings", "ok", "ALDABA_PUBLIC_URL");
    report.says("database", "ok", "as this program");
    report.says("database", "ok", if database::is_postgres() { "PostgreSQL " } else { "SQLite 3." });
    report.says("clock", "ok", "");
    report.says("dns", "ok", "asked for addresses of hooks.acme.example: 1 found in");
    report.says("proxy", "ok", "names none");
    report.says("source", "ok", "the system chooses");
    report.says("public_url", "ok", "https://hooks.acme.example");
    // The machine that runs the tests may lack something of these.
    for check in ["disk", "files", "open files", "tls"] {
        assert!(report.of(check).iter().all(|finding| finding["status"] != "problem"), "{}", report.text);
    }
    if !database::is_postgres() {
        report.says("files", "ok", "no other user can get at");
        assert!(report.text.contains("a write of 4096 bytes") && report.text.contains("MiB are free"));
    }
    let left = std::fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("doctor")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_proxy_is_asked_whether_it_takes_the_credentials() {
    let folder = tempfile::tempdir().expect("a folder");
    let proxy = Proxy::tinyproxy(true).await;
    let of = async |url: &str| doctor(folder.path(), &[("ALDABA_EGRESS__PROXY", url)]).await;
    of(&proxy.url_with(PASSWORD)).await.says("proxy", "ok", "answers");
    let report = of(&proxy.url_with("wrong-word")).await;
    report.says("proxy", "problem", "wants other credentials");
    assert!(!report.text.contains("wrong-word"), "{}", report.text);
    of("http://127.0.0.1:1").await.says("proxy", "problem", "cannot be reached");
}

#[tokio::test]
async fn a_source_address_that_this_machine_does_not_have_is_a_problem() {
    let folder = tempfile::tempdir().expect("a folder");
    let of = async |address: &str| doctor(folder.path(), &[("ALDABA_EGRESS__SOURCE_ADDRESS", address)]).await;
    of("192.0.2.1").await.says("source", "problem", "cannot send from 192.0.2.1");
    of("127.0.0.1").await.says("source", "ok", "this machine has 127.0.0.1");
}

#[tokio::test]
async fn each_finding_is_a_line_for_people() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = NameServer::start().await;
    let mut command = aldaba(folder.path(), &["doctor", "--name", "shop.acme.example"]);
    command.env("ALDABA_EGRESS__DNS_SERVERS", names.address.to_string());
    let output = tokio::process::Command::from(command).output().await.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.lines().any(|line| line.starts_with("ok       settings   they are valid")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("warning  public_url it is not set")), "{text}");
    assert_eq!(names.asked("shop.acme.example"), 1, "{text}");
}

#[tokio::test]
async fn wrong_settings_are_the_only_finding() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = doctor(folder.path(), &[("ALDABA_BRAND", "a b"), ("ALDABA_LISTEN", "x")]).await;
    assert!(!report.is_well);
    report.says("settings", "problem", "setting brand (ALDABA_BRAND)");
    assert_eq!(report.checks.len(), 2, "{}", report.text);
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_a_problem_and_its_password_is_not_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    for (port, words) in [(1, "cannot be used"), (port, "no answer within 5 s")] {
        let url = format!("postgres://ana:hidden@127.0.0.1:{port}/hooks?connect_timeout=30");
        let settings = [("ALDABA_DATABASE_URL", &*url), ("ALDABA_SECRETS__MASTER_KEY", database::MASTER_KEY)];
        let began = Instant::now();
        let report = doctor(folder.path(), &settings).await;
        report.says("database", "problem", words);
        assert!(!report.text.contains("hidden") && !report.text.contains(database::MASTER_KEY), "{}", report.text);
        assert!(began.elapsed() < Duration::from_secs(20), "a check has 5 s, and all run at the same time");
    }
}

#[tokio::test]
async fn a_database_for_later_programs_is_a_problem() {
    let folder = tempfile::tempdir().expect("a folder");
    printed(folder.path(), &["accounts", "create", "a"]);
    crate::migrations::pretend(folder.path(), 999, 999).await;
    let report = doctor(folder.path(), &[]).await;
    report.says("database", "problem", "run a newer aldaba");
    report.says("database", "ok", "its tables have version 999");
}

#[tokio::test]
async fn a_folder_without_room_for_a_database_is_a_problem() {
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = format!("sqlite://{}/no/such/aldaba.db", folder.path().display());
    // Not even the superuser makes files in the second one.
    for url in [&*nowhere, "sqlite:///proc/aldaba.db"] {
        let report = doctor(folder.path(), &[("ALDABA_DATABASE_URL", url)]).await;
        report.says("disk", "problem", "nothing can be written to");
        report.says("database", "ok", "there is none yet");
    }
}

#[tokio::test]
async fn too_few_open_files_are_a_problem() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = aldaba(folder.path(), &["doctor", "--json"]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 256; exec \"$0\" \"$@\""]).arg(program.get_program()).args(program.get_args());
    command.current_dir(folder.path());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let names = NameServer::start().await;
    command.env("ALDABA_EGRESS__DNS_SERVERS", names.address.to_string());
    let report = report(command).await;
    report.says("open files", "problem", "256 files may be open");
}

#[tokio::test]
async fn a_name_server_that_does_not_answer_is_a_warning_beside_one_that_does_and_a_problem_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = NameServer::start().await;
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("an address");
    let both = format!("{},{silent}", names.address);
    let report = doctor(folder.path(), &[("ALDABA_EGRESS__DNS_SERVERS", &both)]).await;
    report.says("dns", "warning", &silent.to_string());
    report.says("dns", "ok", &names.address.to_string());
    assert!(report.is_well, "{}", report.text);
    let report = doctor(folder.path(), &[("ALDABA_EGRESS__DNS_SERVERS", &silent.to_string())]).await;
    report.says("dns", "problem", &silent.to_string());
    let missing = [("ALDABA_PUBLIC_URL", "https://missing.acme.example")];
    doctor(folder.path(), &missing).await.says("dns", "warning", "none found");
}

#[cfg(unix)]
#[tokio::test]
async fn files_with_secrets_that_others_can_read_are_a_warning() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("aldaba.toml");
    let key = "66".repeat(32);
    std::fs::write(&file, format!("[secrets]\nmaster_key = '{key}'\n")).expect("written");
    let set_mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("changed");
    };
    set_mode(&file, 0o644);
    let settings = [("ALDABA_SECRETS__MASTER_KEY", ""), ("ALDABA_DATABASE_URL", "sqlite://a.db")];
    let report = doctor(folder.path(), &settings).await;
    report.says("files", "warning", "aldaba.toml has a secret and every user can read it");
    assert!(report.is_well && !report.text.contains(&key), "{}", report.text);
    // As the package sets it up: without the right of the group the server could not read it.
    set_mode(&file, 0o640);
    doctor(folder.path(), &settings).await.says("files", "ok", "no other user");
    set_mode(&file, 0o600);
    std::fs::write(folder.path().join("a.db"), "").expect("written");
    set_mode(&folder.path().join("a.db"), 0o644);
    set_mode(folder.path(), 0o777);
    let report = doctor(folder.path(), &settings).await;
    report.says("files", "warning", "others can get at a.db");
    report.says("files", "warning", "others can put files into .");
}

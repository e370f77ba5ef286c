//! Backups of PostgreSQL with its own programs, as the guide shows them: a dump of a running database, and the state of
//! a moment in the past (PITR). Each is restored once.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use aldaba::domain::id::AccountId;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::app::{App, Receiver, Reply, eventually};
use crate::command_line::aldaba;
use crate::database;
use crate::failover::shell;

/// Commands that the guide shows.
const DUMP: &str = "pg_dump --format=custom --file=aldaba.dump \"$DATABASE_URL\"";
const RESTORE_DUMP: &str = "pg_restore --exit-on-error --no-owner --dbname=\"$NEW_DATABASE_URL\" aldaba.dump";
const BASE_BACKUP: &str = "pg_basebackup --pgdata=base --checkpoint=fast --dbname=\"$DATABASE_URL\"";

/// Settings of PostgreSQL that the guide shows, with a folder of its own.
const ARCHIVE: &str = "test ! -f /backup/wal/%f && cp %p /backup/wal/%f";
const RECOVER: &str = "cp /backup/wal/%f %p";

/// Attempts that hang end soon, and are made again soon.
const SETTINGS: [(&str, &str); 3] = [
    ("WEBHOOKS__TIMEOUT", "1s"),
    ("WEBHOOKS__RETRY_SCHEDULE", "100ms,100ms,100ms,100ms,100ms,100ms"),
    ("WEBHOOKS__AUTO_DISABLE_AFTER", "1h"),
];

#[test]
fn the_guide_shows_the_commands_that_are_run_here() {
    let guide = include_str!("../../docs/guides/back-up-and-restore.md");
    for shown in [DUMP, RESTORE_DUMP, BASE_BACKUP, ARCHIVE, RECOVER] {
        assert!(guide.contains(shown), "{shown}");
    }
}

/// Runs the program on this database.
fn run(folder: &Path, url: &str, args: &[&str]) -> String {
    let output = aldaba(folder, args).env("ALDABA_DATABASE_URL", url).output().expect("it runs");
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{args:?}: {told}");
    told
}

/// The numbers of the events that have arrived from the request number `first` on.
fn arrived(receiver: &Receiver, first: usize) -> BTreeSet<u64> {
    let bodies = receiver.received().into_iter().skip(first).map(|request| request.body);
    bodies.filter_map(|body| serde_json::from_slice::<Value>(&body).ok()?["data"]["n"].as_u64()).collect()
}

/// Somebody with an endpoint.
struct Customer {
    account: AccountId,
    key: String,
    endpoint: String,
    receiver: Receiver,
}

impl Customer {
    /// Registers an endpoint, and publishes five events, which are delivered.
    async fn begin(app: &App) -> Self {
        let receiver = Receiver::start().await;
        let (endpoint, _) = app.endpoint(&receiver.url()).await;
        publish(app, 0..5).await;
        eventually("five outcomes", || async {
            let path = format!("/v1/webhooks/{endpoint}/deliveries?status=success&per_page=1");
            (app.get(&path).await.expect(200).json["meta"]["pagination"]["total"] == 5).then_some(())
        })
        .await;
        Self { account: app.account, key: app.key.clone(), endpoint, receiver }
    }

    /// Starts a node on the restored database, which has nine events, four of them pending. Nothing is sent before
    /// deliveries are resumed, and then what was pending.
    async fn goes_on(&self, folder: &Path, url: &str) {
        self.receiver.always(Reply::Status(200));
        assert!(run(folder, url, &["hold"]).starts_with("deliveries are on hold"));
        run(folder, url, &["check"]);
        let mut app = App::with(&[("DATABASE_URL", url)]).await;
        (app.account, app.key) = (self.account, self.key.clone());
        let listed = app.get("/v1/events?per_page=1").await.expect(200).json;
        assert_eq!(listed["meta"]["pagination"]["total"], 9, "later events are lost, and no other");
        let first = self.receiver.received().len();
        publish(&app, 100..101).await;
        // Its attempt comes after all that would have begun before.
        let path = format!("/v1/webhooks/{}/test", self.endpoint);
        assert_eq!(app.call("POST", &path).send().await.expect(200).attribute("delivered"), true);
        assert_eq!(arrived(&self.receiver, first), BTreeSet::new());
        run(folder, url, &["resume"]);
        let expected: BTreeSet<u64> = (5..9).chain([100]).collect();
        eventually("what was pending", || async { (arrived(&self.receiver, first) == expected).then_some(()) }).await;
        app.stop().await;
        run(folder, url, &["check"]);
    }
}

async fn publish(app: &App, numbers: Range<u64>) {
    for number in numbers {
        app.publish(json!({ "n": number })).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_a_running_database_is_restored_into_another_one() {
    if !database::is_postgres() {
        return;
    }
    let app = App::with(&SETTINGS).await;
    let customer = Customer::begin(&app).await;
    customer.receiver.always(Reply::Hang);
    publish(&app, 5..9).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (url, next) = (database::url(app.folder()), database::url(folder.path()));
    let urls = format!("export DATABASE_URL='{url}' NEW_DATABASE_URL='{next}'");
    assert!(shell(folder.path(), &format!("{urls}\n{DUMP}")));
    publish(&app, 9..12).await;
    // Two servers would send everything twice.
    app.stop().await;
    assert!(shell(folder.path(), &format!("{urls}\n{RESTORE_DUMP}")));
    customer.goes_on(folder.path(), &next).await;
}

/// A cluster that archives its log, and whose folder can be lost.
struct Cluster {
    folder: TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let cluster = Self { folder: tempfile::tempdir().expect("a folder") };
        cluster.run("chmod 755 .; [ $(id -u) != 0 ] || chown postgres .");
        cluster
            .run("as initdb -D data -U postgres -A trust -E UTF8 --locale=C --no-sync >/dev/null; as mkdir socket wal");
        let archive = cluster.with_own_folder(ARCHIVE);
        cluster.set("postgresql.conf", &format!("archive_mode = on\narchive_command = '{archive}'"));
        cluster.go_on();
        database::connect(&cluster.url("postgres")).await.batch_execute("CREATE DATABASE aldaba").await.expect("made");
        cluster
    }

    fn with_own_folder(&self, setting: &str) -> String {
        setting.replace("/backup", &self.folder.path().display().to_string())
    }

    fn url(&self, name: &str) -> String {
        format!("postgres://postgres@/{name}?host={}/socket", self.folder.path().display())
    }

    /// Adds lines to a file of settings.
    fn set(&self, file: &str, lines: &str) {
        self.run(&format!("as tee -a data/{file} >/dev/null <<'LINES'\n{lines}\nLINES"));
    }

    fn go_on(&self) {
        self.run(
            "as pg_ctl -D data -l log -w start -o \"-c listen_addresses= -c unix_socket_directories=$PWD/socket \
             -c max_connections=100 -c fsync=off\" >/dev/null",
        );
    }

    fn run(&self, script: &str) {
        assert!(shell(self.folder.path(), script), "{script}");
    }

    async fn text(&self, sql: &str) -> String {
        database::connect(&self.url("postgres")).await.query_one(sql, &[]).await.expect("a row").get(0)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        shell(self.folder.path(), "as pg_ctl -D data -m immediate stop >/dev/null 2>&1");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_lost_disk_the_state_of_a_moment_is_recovered_from_a_base_backup_and_the_archive() {
    if !database::is_postgres() {
        return;
    }
    let cluster = Cluster::start().await;
    let url = cluster.url("aldaba");
    let settings = [&SETTINGS[..], &[("DATABASE_URL", url.as_str())]].concat();
    let app = App::with(&settings).await;
    let customer = Customer::begin(&app).await;
    cluster.run(&format!("export DATABASE_URL='{url}'\nas {BASE_BACKUP}"));
    customer.receiver.always(Reply::Hang);
    publish(&app, 5..9).await;
    let moment = cluster.text("SELECT clock_timestamp()::text").await;
    publish(&app, 9..12).await;
    let file = cluster.text("SELECT pg_walfile_name(pg_switch_wal())").await;
    eventually("the log to be in the archive", || async {
        let archived = cluster.text("SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver").await;
        (archived >= file).then_some(())
    })
    .await;
    app.stop().await;
    cluster.run("as pg_ctl -D data -m immediate stop >/dev/null; rm -r data");

    cluster.run("as cp -a base data");
    let recover = cluster.with_own_folder(RECOVER);
    let target = format!("recovery_target_time = '{moment}'\nrecovery_target_action = 'promote'");
    cluster.set("postgresql.auto.conf", &format!("restore_command = '{recover}'\n{target}"));
    cluster.run("as touch data/recovery.signal");
    cluster.go_on();
    eventually("the end of the recovery", || async {
        (cluster.text("SELECT pg_is_in_recovery()::text").await == "false").then_some(())
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    customer.goes_on(folder.path(), &url).await;
}

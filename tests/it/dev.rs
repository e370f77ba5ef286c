//! `aldaba dev` reads the settings, and lets in who has the link that it prints, and nobody else: not even who seems to
//! come from this machine.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;

use crate::app::Call;
use crate::command_line::printed;
use crate::database;

/// A server for trying it. It is killed when this is dropped.
struct Dev {
    address: SocketAddr,
    sign_in: String,
    child: Child,
    /// What it prints later goes here.
    _printed: BufReader<ChildStdout>,
    logs: Option<JoinHandle<String>>,
}

impl Dev {
    fn start(folder: &Path) -> Self {
        Self::with(folder, &["--listen", "127.0.0.1:0"], &[("ALDABA_LOG__LEVEL", "trace")])
    }

    fn with(folder: &Path, args: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut child = command(folder, &[&["--json"], args].concat(), settings).spawn().expect("it starts");
        let mut first = String::new();
        let mut printed = BufReader::new(child.stdout.take().expect("a pipe"));
        printed.read_line(&mut first).expect("a line");
        let mut errors = child.stderr.take().expect("a pipe");
        let logs = std::thread::spawn(move || {
            let mut text = String::new();
            errors.read_to_string(&mut text).expect("text");
            text
        });
        let told: Value = serde_json::from_str(&first).expect("JSON");
        let base = told["address"].as_str().expect("an address");
        let sign_in = told["sign_in"].as_str().unwrap_or_default().strip_prefix(base).unwrap_or("/").to_owned();
        let address = base.trim_start_matches("http://").parse().expect("an address");
        Self { address, sign_in, child, _printed: printed, logs: Some(logs) }
    }

    /// Opens a page from this machine, under the name `localhost`.
    fn open(&self, path: &str) -> Call {
        Call::new(self.address, "GET", path).header("accept", "text/html")
    }

    /// Stops it; what it has logged.
    fn stop(mut self) -> String {
        self.child.kill().expect("killed");
        self.logs.take().expect("it is stopped once").join().expect("no panic")
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(folder: &Path, args: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aldaba"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ALDABA_")) {
        command.env_remove(name);
    }
    command.arg("dev").args(args).envs(settings.iter().copied()).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn dev_listens_where_the_settings_say_and_the_command_line_wins() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("aldaba.toml"), "listen = \"127.0.0.3:0\"\n").expect("written");
    let environment = [("ALDABA_LISTEN", "127.0.0.2:0")];
    let flag = ["--listen", "127.0.0.1:0"];
    for (args, settings, expected) in
        [(&[][..], &[][..], "127.0.0.3"), (&[], &environment, "127.0.0.2"), (&flag, &environment, "127.0.0.1")]
    {
        assert_eq!(Dev::with(folder.path(), args, settings).address.ip().to_string(), expected);
    }
}

#[tokio::test]
async fn dev_takes_a_free_port_where_the_usual_one_is_taken_but_not_where_a_setting_names_it() {
    let folder = tempfile::tempdir().expect("a folder");
    // Where another program has it, that is as good.
    let _taken = std::net::TcpListener::bind("127.0.0.1:8080");
    let dev = Dev::with(folder.path(), &[], &[]);
    assert_ne!(dev.address.port(), 8080);
    dev.open("/healthz").send().await.expect(200);
    let told = dev.stop();
    assert!(told.contains("127.0.0.1:8080 is taken") && told.contains("a free port"), "{told}");
    let set = [("ALDABA_LISTEN", "127.0.0.1:8080")];
    let refused = command(folder.path(), &[], &set).output().expect("it ends");
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("cannot listen on 127.0.0.1:8080"), "{told}");
}

#[test]
fn dev_uses_the_database_of_the_settings_and_leaves_the_accounts_in_it_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    printed(folder.path(), &["accounts", "create", "Acme"]);
    let settings: Vec<_> =
        database::settings(folder.path()).into_iter().map(|(name, value)| (format!("ALDABA_{name}"), value)).collect();
    let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    for _ in 0..2 {
        drop(Dev::with(folder.path(), &["--listen", "127.0.0.1:0"], &settings));
    }
    assert!(!folder.path().join("aldaba-data/aldaba.db").exists());
    let listed: Value = serde_json::from_str(&printed(folder.path(), &["accounts", "list", "--json"])).expect("JSON");
    let mut names: Vec<_> = listed.as_array().expect("a list").iter().map(|account| &account["name"]).collect();
    names.sort_by_key(ToString::to_string);
    assert_eq!(names, ["Acme", "dev"]);
}

#[test]
fn the_guide_shows_every_line_that_dev_prints_at_its_start() {
    let labels = |text: &str| -> Vec<String> {
        let lines = text.lines().skip_while(|line| !line.starts_with("listening on "));
        let lines = lines.take_while(|line| !line.starts_with("  Publishing"));
        lines.filter_map(|line| Some(line.strip_prefix("  ")?.split_once("  ")?.0.to_owned())).collect()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = command(folder.path(), &["--listen", "127.0.0.1:0"], &[]).spawn().expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let start: Vec<_> = lines.take_while(|line| !line.starts_with("  Publishing")).collect();
    child.kill().expect("killed");
    child.wait().expect("gone");
    let printed = labels(&start.join("\n"));
    assert!(printed.contains(&"dashboard".to_owned()), "{start:?}");
    for guide in ["quick-start.md", "es/quick-start.md"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guides").join(guide);
        assert_eq!(labels(&std::fs::read_to_string(path).expect("a guide")), printed, "{guide}");
    }
}

/// What a proxy with its default settings passes on says nothing of who comes: the connection is from this machine,
/// and the name is the proxy's own for this server (`proxy_pass http://localhost:8080`).
#[tokio::test]
async fn a_stranger_behind_a_proxy_on_the_same_machine_is_not_the_owner() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(folder.path());
    let answer = dev.open("/").send().await.expect(303);
    assert_eq!((answer.header("location"), answer.header("set-cookie")), ("/sign-in", ""));
    let page = dev.open("/sign-in").send().await.expect(200);
    assert!(String::from_utf8_lossy(&page.text).contains("the sign-in link that it has printed needs no password"));
    for guess in ["/sign-in/", "/sign-in/x", &format!("/sign-in/{}", "0".repeat(64))] {
        let answer = dev.open(guess).send().await.expect(404);
        assert_eq!(answer.header("set-cookie"), "", "{guess}");
    }
}

#[tokio::test]
async fn the_link_that_dev_prints_signs_in_until_the_process_ends_and_is_in_no_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(folder.path());
    assert_eq!(dev.sign_in.len(), "/sign-in/".len() + 64, "32 random bytes");
    for _ in 0..2 {
        let answer = dev.open(&dev.sign_in).send().await.expect(303);
        assert_eq!(answer.header("location"), "/");
        let cookie = answer.header("set-cookie").split(';').next().expect("a cookie").to_owned();
        let home = dev.open("/").header("cookie", &cookie).send().await.expect(303);
        assert!(home.header("location").starts_with("/accounts/"));
    }
    let old = dev.sign_in.clone();
    let token = old.rsplit('/').next().expect("a token").to_owned();
    for misspelt in [format!("/{old}"), format!("/Sign-In/{token}"), format!("/signin/{token}/x")] {
        dev.open(&misspelt).send().await.expect(404);
    }
    let logs = dev.stop();
    assert!(logs.contains("path=/sign-in/…") && !logs.contains(&token), "{logs}");
    let next = Dev::start(folder.path());
    assert_ne!(next.sign_in, old);
    next.open(&old).send().await.expect(404);
}

/// The owner has no password yet, so that there is none to be asked for.
#[tokio::test]
async fn whoever_came_by_the_link_of_dev_invites_others_without_a_password() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(folder.path());
    let answer = dev.open(&dev.sign_in).send().await.expect(303);
    let cookie = answer.header("set-cookie").split(';').next().expect("a cookie");
    let home = dev.open("/").header("cookie", cookie).send().await.expect(303).header("location").to_owned();
    let path = format!("{home}/users/invite");
    let page = dev.open(&path).header("cookie", cookie).send().await.expect(200);
    let html = String::from_utf8_lossy(&page.text);
    let mark = html.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a mark");
    let form = format!("csrf={mark}&email=eva%40example.com&role=viewer&invite-current=");
    let call = Call::new(dev.address, "POST", &path).header("accept", "text/html").header("cookie", cookie);
    let made = call.header("content-type", "application/x-www-form-urlencoded").body(form).send().await.expect(200);
    assert!(String::from_utf8_lossy(&made.text).contains("/join/"), "an invitation");
}

#[cfg(unix)]
#[test]
fn dev_puts_its_key_through_no_link_and_into_no_folder_that_others_can_write_to() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    let folder = tempfile::tempdir().expect("a folder");
    let (data, theirs) = (folder.path().join("aldaba-data"), folder.path().join("theirs"));
    let set_mode = |mode| {
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(mode)).expect("changed");
    };
    std::fs::create_dir(&data).expect("made");
    set_mode(0o700);
    std::fs::write(&theirs, "untouched").expect("written");
    symlink("../theirs", data.join("dev-key")).expect("linked");
    symlink("../theirs", data.join("dev-key.new")).expect("linked");
    drop(Dev::start(folder.path()));
    assert_eq!(std::fs::read_to_string(&theirs).expect("text"), "untouched");
    let key = data.join("dev-key");
    let found = std::fs::symlink_metadata(&key).expect("a file");
    assert_eq!((found.is_file(), found.permissions().mode() & 0o777), (true, 0o600));
    assert!(std::fs::read_to_string(&key).expect("text").starts_with("mxcep_"));
    set_mode(0o770);
    let refused = command(folder.path(), &["--listen", "127.0.0.1:0"], &[]).output().expect("it ends");
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("aldaba-data") && told.contains("0700"), "{told}");
}

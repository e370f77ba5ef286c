//! `aldaba dev` lets in who has the link that it prints, and nobody else: not even who seems to come from this machine.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;

use crate::app::Call;

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
        let mut child = Command::new(env!("CARGO_BIN_EXE_aldaba"))
            .args(["dev", "--json", "--listen", "127.0.0.1:0"])
            .env("ALDABA_LOG__LEVEL", "trace")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
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
    let logs = dev.stop();
    assert!(logs.contains("path=/sign-in/…") && !logs.contains(&token), "{logs}");
    let next = Dev::start(folder.path());
    assert_ne!(next.sign_in, old);
    next.open(&old).send().await.expect(404);
}

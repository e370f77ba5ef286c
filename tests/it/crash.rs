//! The real process, killed at random moments under load: what was answered with 202 is delivered, whatever dies.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aldaba::clock::SeededRandom;
use serde_json::json;

use crate::app::{Call, EVENT, PATIENCE, Receiver};
use crate::command_line::{aldaba, printed};

/// Another program with these arguments, in what [`aldaba`] would have around it.
pub fn other(program: &str, folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    like(&aldaba(folder, args), command, folder)
}

/// A command with what `known` has around it.
fn like(known: &Command, mut command: Command, folder: &Path) -> Command {
    command.current_dir(folder).stdin(Stdio::null());
    for (name, value) in known.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// A server in a process of its own. It is killed when this is dropped.
pub struct Server {
    pub address: SocketAddr,
    child: Child,
    /// What it has logged so far.
    logs: Arc<Mutex<String>>,
    reading: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Starts it in development on a free port, and waits until it listens.
    pub fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        Self::run(aldaba(folder, &["serve", "--listen", "127.0.0.1:0"]), settings)
    }

    /// The same where the settings say where it listens.
    pub fn start_with(folder: &Path, settings: &[(&str, &str)]) -> Self {
        Self::run(aldaba(folder, &["serve"]), settings)
    }

    /// The same where the master key is in a file beside the database.
    pub fn start_without_key(folder: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = aldaba(folder, &["serve", "--listen", "127.0.0.1:0"]);
        command.env_remove("ALDABA_SECRETS__MASTER_KEY");
        Self::run(command, settings)
    }

    /// Starts it with what its file says, and waits until it listens.
    pub fn start_by_file(folder: &Path) -> Self {
        Self::spawn(aldaba(folder, &["serve", "--listen", "127.0.0.1:0"]))
    }

    /// The same of another program: an older version of this one, with its own default limits. It would refuse limits
    /// of buckets that it does not know.
    pub fn start_other(program: &str, folder: &Path) -> Self {
        let mut command = other(program, folder, &["serve", "--listen", "127.0.0.1:0"]);
        command.env("ALDABA_ENVIRONMENT", "development");
        Self::spawn(command)
    }

    /// The same where a process may open so few files until it asks for more.
    pub fn start_with_few_files(folder: &Path, files: u32) -> Self {
        Self::limited(folder, &format!("ulimit -S -n {files}"), &[])
    }

    /// The same where a process may never open more files than these.
    pub fn start_with_at_most_files(folder: &Path, files: u32, settings: &[(&str, &str)]) -> Self {
        Self::limited(folder, &format!("ulimit -n {files}"), settings)
    }

    fn limited(folder: &Path, limit: &str, settings: &[(&str, &str)]) -> Self {
        let server = aldaba(folder, &["serve", "--listen", "127.0.0.1:0"]);
        let limited = format!("{limit}; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &limited]).arg(server.get_program()).args(server.get_args());
        Self::run(like(&server, command, folder), settings)
    }

    /// What the kernel tells of it (`proc(5)`).
    pub fn kernel_says(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("it is there")
    }

    /// Its resident memory, in MiB: now, and at most so far.
    pub fn memory(&self) -> (u64, u64) {
        let status = self.kernel_says("status");
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") / 1_024
        };
        (of("VmRSS:"), of("VmHWM:"))
    }

    fn run(mut command: Command, settings: &[(&str, &str)]) -> Self {
        command.env("ALDABA_ENVIRONMENT", "development").envs(crate::app::without_limits());
        command.envs(settings.iter().copied());
        Self::spawn(command)
    }

    /// Runs a command that is a server, and waits until it listens.
    pub fn spawn(mut command: std::process::Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut first = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut first).expect("a line");
        let errors = BufReader::new(child.stderr.take().expect("a pipe"));
        let logs = Arc::<Mutex<String>>::default();
        let lines = logs.clone();
        let reading = std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let mut logs = lines.lock().expect("no panic");
                logs.push_str(&line);
                logs.push('\n');
            }
        });
        let Some(address) = first.trim().strip_prefix("listening on http://").map(str::to_owned) else {
            let _ = child.kill();
            let _ = reading.join();
            panic!("no address: {first:?} {}", logs.lock().expect("no panic"));
        };
        Self { address: address.parse().expect("an address"), child, logs, reading: Some(reading) }
    }

    /// What it has logged so far.
    pub fn logs(&self) -> String {
        self.logs.lock().expect("no panic").clone()
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// SIGKILL: no chance to clean up.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    /// Waits for the end.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(self) -> ExitStatus {
        self.terminate_with_logs().0
    }

    pub fn terminate_with_logs(mut self) -> (ExitStatus, String) {
        self.signal("TERM");
        let status = self.child.wait().expect("it ends");
        if let Some(reading) = self.reading.take() {
            reading.join().expect("no panic");
        }
        (status, self.logs())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Rounds of killing.
const ROUNDS: u64 = 20;

/// Publishers at once.
const PUBLISHERS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_accepted_is_lost_in_twenty_crashes() {
    let folder = tempfile::tempdir().expect("a folder");
    let account = printed(folder.path(), &["accounts", "create", "crash"]);
    let key = printed(folder.path(), &["keys", "create", "--account", &account]);
    let receiver = Receiver::start().await;
    let random = SeededRandom::new(std::process::id().into());
    let accepted = Arc::new(Mutex::new(HashSet::new()));
    let mut next = 0u64;
    for round in 0..ROUNDS {
        let server = Server::start(folder.path(), &[("ALDABA_WEBHOOKS__RETRY_SCHEDULE", "100ms,100ms,100ms")]);
        if round == 0 {
            let body = json!({ "url": receiver.url(), "events": [EVENT] });
            Call::new(server.address, "POST", "/v1/webhooks").bearer(&key).json(&body).send().await.expect(201);
        }
        let mut publishers = tokio::task::JoinSet::new();
        for publisher in 0..PUBLISHERS {
            let (key, accepted, address) = (key.clone(), accepted.clone(), server.address);
            let first = next + publisher as u64 * 1_000_000;
            publishers.spawn(async move {
                for n in first.. {
                    let event = json!({ "event": EVENT, "data": { "n": n } });
                    // With an idempotency key, as a careful publisher would, so that its commit is in the test too.
                    let call = Call::new(address, "POST", "/v1/events").bearer(&key).json(&event);
                    match call.header("idempotency-key", &format!("n-{n}")).try_send().await {
                        Some(answer) if answer.status == 202 => accepted.lock().expect("no panic").insert(n),
                        _ => return,
                    };
                }
            });
        }
        next += PUBLISHERS as u64 * 1_000_000;
        tokio::time::sleep(Duration::from_millis(20 + random.below(300))).await;
        server.kill();
        while publishers.join_next().await.is_some() {}
    }
    let server = Server::start(folder.path(), &[]);
    let accepted = accepted.lock().expect("no panic").clone();
    assert!(accepted.len() > 100, "the load was a load: {}", accepted.len());
    let begin = std::time::Instant::now();
    loop {
        let requests = receiver.received();
        let arrived: HashSet<u64> = requests
            .iter()
            .filter_map(|request| {
                serde_json::from_slice::<serde_json::Value>(&request.body).ok()?["data"]["n"].as_u64()
            })
            .collect();
        let lost: Vec<_> = accepted.difference(&arrived).collect();
        if lost.is_empty() {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{} of {} accepted events were lost", lost.len(), accepted.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    every_delivery_has_an_outcome(&server, &key).await;
    assert_eq!(server.terminate().code(), Some(0));
    // Each delivery is counted once, what is listed is as it is in its row, and a start finds all that is leased.
    printed(folder.path(), &["check"]);
}

async fn every_delivery_has_an_outcome(server: &Server, key: &str) {
    let total_of = |path: String| async move {
        let answer = Call::new(server.address, "GET", &path).bearer(key).send().await.expect(200);
        (answer.json["meta"]["pagination"]["total"].as_u64().unwrap_or(0), answer.json["data"].clone())
    };
    crate::app::eventually("every delivery to have an outcome", || async {
        let (total, _) = total_of("/v1/webhooks/deliveries?per_page=1".into()).await;
        for page in 1..=total.div_ceil(100) {
            let (_, rows) = total_of(format!("/v1/webhooks/deliveries?per_page=100&page={page}")).await;
            let open = |row: &serde_json::Value| row["attributes"]["status"] != "success";
            if rows.as_array().is_none_or(|rows| rows.iter().any(open)) {
                return None;
            }
        }
        Some(())
    })
    .await;
}

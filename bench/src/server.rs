//! The server under test: the real program in a process of its own, on a fresh database.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};

/// A running server, killed when this is dropped.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// A key that may do everything in the one account.
    pub key: String,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Makes a database with one account beside the program (on the disk that holds the build) and starts.
    pub fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("aldaba");
        ensure!(program.exists(), "{} is missing: run `cargo build --release` first", program.display());
        let folder = tempfile::tempdir_in(program.parent().context("a folder")?)?;
        let account = printed(&program, &folder, &["accounts", "create", "bench"])?;
        let key = printed(&program, &folder, &["keys", "create", "--account", &account])?;
        let mut child = command(&program, &folder, &["serve", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .context("the server starts")?;
        let mut first = String::new();
        BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut first)?;
        let address = first.trim().strip_prefix("listening on http://").context("the server's address")?.parse()?;
        Ok(Self { address, key, child, _folder: folder })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(program: &PathBuf, folder: &tempfile::TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder.path()).stdin(Stdio::null());
    // What the person who measures has set for servers of their own is not part of the measurement.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ALDABA_")) {
        command.env_remove(name);
    }
    command.env("ALDABA_ENVIRONMENT", "development").env("ALDABA_LOG__LEVEL", "warn");
    for bucket in ["EVENTS_CREATE", "WEBHOOKS_WRITE", "DELIVERIES_LIST"] {
        command.env(format!("ALDABA_RATE_LIMITS__{bucket}"), "off");
    }
    command
}

fn printed(program: &PathBuf, folder: &tempfile::TempDir, arguments: &[&str]) -> anyhow::Result<String> {
    let output = command(program, folder, arguments).output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

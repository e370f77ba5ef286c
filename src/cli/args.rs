//! What several commands take or do alike: the settings and the database, the owner of a user, files, the output, the
//! listener. It calls no command.

use std::fmt::Display;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::clock::SharedClock;
use crate::config::{Config, Reading};
use crate::domain::audit::{Actor, Origin};
use crate::store::Store;

#[derive(Args)]
pub(super) struct SettingArgs {
    /// Settings file; without it `aldaba.toml` is read if it is there
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Database: `sqlite://PATH` or `postgres://USER:PASSWORD@HOST/NAME`
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
}

impl SettingArgs {
    pub(super) fn load(&self, flags: impl IntoIterator<Item = (&'static str, String)>) -> anyhow::Result<Config> {
        Ok(self.read([], flags).config?)
    }

    /// Reads the settings of a command that has defaults of its own.
    pub(super) fn read(
        &self,
        defaults: impl IntoIterator<Item = (&'static str, String)>,
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Reading {
        let database = self.database_url.clone().map(|url| ("database_url", url));
        Reading::of(defaults, self.config.as_deref(), environment(), database.into_iter().chain(flags))
    }

    /// The same settings with the file that was read: if the file is missing later, that is an error.
    pub(super) fn with_file(&self, file: Option<PathBuf>) -> Self {
        Self { config: file, database_url: self.database_url.clone() }
    }

    /// Starts logging, and warns of a password on the command line.
    pub(super) fn start_telemetry(&self, config: &Config) {
        crate::telemetry::start(config);
        if self.database_url.as_deref().is_some_and(has_password) {
            tracing::warn!(
                "--database-url has a password, which every user of this machine can read in the list of processes: \
                 set ALDABA_DATABASE_URL, or database_url in the settings file"
            );
        }
    }

    /// The database, for a command beside the server.
    pub(super) async fn open(&self) -> anyhow::Result<Store> {
        let config = self.load([])?;
        self.start_telemetry(&config);
        let store = Store::open(crate::open_options(&config, Arc::new(SharedClock::default()), false, None)).await?;
        let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
        let actor = Actor::CommandLine(user.unwrap_or_else(|| "unknown".to_owned()));
        Ok(store.acting(Origin { actor, ..Origin::default() }))
    }
}

/// The environment. A value that is not UTF-8 becomes a text that no setting takes.
fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |value: std::ffi::OsString| value.into_string().unwrap_or_else(|_| '\u{fffd}'.to_string());
    std::env::vars_os().filter_map(move |(name, value)| Some((name.into_string().ok()?, text(value))))
}

/// Whether the URL of a PostgreSQL database has a password, in its authority or as a parameter.
fn has_password(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    let in_query =
        url::form_urlencoded::parse(query.as_bytes()).any(|(name, value)| name == "password" && !value.is_empty());
    scheme.starts_with("postgres")
        && (user.split_once(':').is_some_and(|(_, password)| !password.is_empty()) || in_query)
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct OwnerArgs {
    /// The account that they belong to
    #[arg(long, value_name = "ID")]
    pub(super) account: Option<String>,
    /// None: they run this server and see every account
    #[arg(long)]
    pub(super) operator: bool,
}

/// Which of several users with one address.
#[derive(Args)]
#[group(multiple = false)]
pub(super) struct OptionalOwnerArgs {
    /// The account that they belong to, where several have a user with the address
    #[arg(long, value_name = "ID")]
    pub(super) account: Option<String>,
    /// They belong to none: they run this server
    #[arg(long)]
    pub(super) operator: bool,
}

#[derive(Args, Clone, Copy)]
pub(super) struct Output {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Output {
    /// JSON where one of the two asks for it: a command and its subcommand each take the flag.
    pub(super) fn or(self, other: Self) -> Self {
        Self { json: self.json || other.json }
    }

    /// Prints JSON, or the text for people.
    pub(super) fn print(self, json: &serde_json::Value, text: &str) -> anyhow::Result<()> {
        if self.json { print_line(json) } else { print_line(text) }
    }
}

/// Prints a line on standard output. Whoever has closed the other end of the pipe, such as `head`, wants no more: that
/// is no error.
pub(super) fn print_line(line: impl Display) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Characters of a text from elsewhere that are printed.
const PRINTED_CHARS: usize = 600;

/// A text from elsewhere, without anything that a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    let shown: String = text.chars().take(PRINTED_CHARS).map(|c| if c.is_control() { '·' } else { c }).collect();
    if text.chars().nth(PRINTED_CHARS).is_some() { format!("{shown}…") } else { shown }
}

/// Reads a file that has at most so many bytes.
pub(super) fn read_file(path: &Path, most: usize) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let limit = u64::try_from(most).expect("no more than fits into memory").saturating_add(1);
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {shown}"))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).with_context(|| format!("cannot read {shown}"))?;
    if bytes.len() > most {
        bail!("{shown} is larger than {most} bytes");
    }
    Ok(bytes)
}

/// Binds, or says in one line why not.
pub(super) async fn bind(listen: &str) -> anyhow::Result<tokio::net::TcpListener> {
    let hint = "is another program using the port? choose another with --listen HOST:PORT";
    tokio::net::TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen} ({hint})"))
}

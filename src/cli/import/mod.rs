//! `aldaba import`: a whole SQLite database into PostgreSQL, or what another sender has, from a file or from its API.
//!
//! `csv_file` and `svix` read a source, `maker` makes what they read, `report` tells what came of it.

mod csv_file;
mod maker;
mod report;
mod svix;
mod svix_source;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use zeroize::Zeroizing;

use super::admin::{self, account_id};
use super::args::{Output, SettingArgs, read_file};
use crate::store::Database;
use maker::Maker;
use report::Report;
use svix_source::Source;

/// The variable that has the token of Svix's API. Svix's own command line reads it too.
const TOKEN_VARIABLE: &str = "SVIX_AUTH_TOKEN";

/// Largest file with a token, in bytes.
const MAX_TOKEN: usize = 4 << 10;

/// After an import that has stopped.
const STOPPED: &str = "the import has stopped; the same command goes on where it was";

#[derive(Args)]
pub(super) struct ImportArgs {
    /// `sqlite://PATH`: that whole database, into the PostgreSQL database of the settings; no server may run on either.
    /// `csv`: endpoints of an account, from FILE. `svix`: accounts, endpoints and event types, from Svix's API at --url
    /// or from FILE
    #[arg(long, value_name = "SOURCE")]
    from: String,
    /// CSV whose first line names its columns: `url`, `events`, `secret`, `description`, `external_id`. Or answers of
    /// Svix's API, one JSON object in a line: `path`, `body`
    file: Option<PathBuf>,
    /// With csv: the account that gets the endpoints
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// With svix: the server, such as `https://api.eu.svix.com`. The token is read from the variable `SVIX_AUTH_TOKEN`
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// With svix: read the token from this file instead
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// With csv and svix: say what would be made and what cannot be moved, and make nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(settings: &SettingArgs, args: ImportArgs) -> anyhow::Result<()> {
    let ImportArgs { from, file, account, url, token_file, dry_run, output } = args;
    match (from.as_str(), file, account, url, token_file) {
        ("csv", Some(file), Some(account), None, None) => {
            let account = account_id(&account)?;
            let (maker, mut report) = begin(settings, dry_run, output).await?;
            Box::pin(csv_file::import(&maker, &mut report, account, &file)).await?;
            report.finish()
        }
        ("csv", ..) => bail!("--from csv takes a FILE and --account ID, and nothing of svix"),
        ("svix", file, None, url, token_file) => {
            let mut source = match (file, url) {
                (Some(file), None) if token_file.is_none() => Source::file(&file)?,
                (None, Some(url)) => Source::server(&url, &token(token_file.as_deref())?)?,
                _ => bail!("--from svix takes --url URL, perhaps with --token-file FILE, or else a FILE of answers"),
            };
            let (mut maker, mut report) = begin(settings, dry_run, output).await?;
            Box::pin(svix::import(&mut maker, &mut report, &mut source)).await.context(STOPPED)?;
            report.finish()
        }
        ("svix", ..) => bail!("--from svix takes no --account: each application is an account"),
        (from, file, account, url, token_file) => {
            let Ok(Database::Sqlite(path)) = Database::parse(from) else {
                bail!("--from must be sqlite://PATH, csv or svix");
            };
            if dry_run || file.is_some() || account.is_some() || url.is_some() || token_file.is_some() {
                bail!("--from sqlite://PATH takes no FILE, --account, --url, --token-file or --dry-run");
            }
            let keys = settings.load([])?.keys;
            admin::import(&settings.open().await?, &path, &keys, output).await
        }
    }
}

/// Opens the database.
async fn begin(settings: &SettingArgs, dry_run: bool, output: Output) -> anyhow::Result<(Maker, Report)> {
    let config = settings.load([])?;
    let store = settings.open().await?;
    Ok((Maker::new(&config, store, dry_run), Report::new(output, dry_run)))
}

/// The token of Svix's API, which every user of this machine could read on a command line.
fn token(file: Option<&Path>) -> anyhow::Result<Zeroizing<String>> {
    let text = match file {
        Some(file) => {
            let bytes = Zeroizing::new(read_file(file, MAX_TOKEN)?);
            std::str::from_utf8(&bytes).map(str::to_owned).ok()
        }
        None => std::env::var(TOKEN_VARIABLE).ok(),
    };
    let text = Zeroizing::new(text.unwrap_or_default());
    let token = text.trim();
    if token.is_empty() {
        bail!("there is no token: set {TOKEN_VARIABLE}, or name a file that has it by --token-file");
    }
    Ok(Zeroizing::new(token.to_owned()))
}

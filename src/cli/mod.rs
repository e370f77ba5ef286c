//! Commands: what a person types, and what is printed back.

mod admin;
mod browser;
mod dev;
mod files;
mod receiver;
mod serve;
mod users;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use crate::clock::SharedClock;
use crate::config::Config;
use crate::domain::audit::{Actor, Origin};
use crate::store::{Lifecycle, Store};

/// A webhook sender: it takes your events, signs them, delivers them, and never loses one.
#[derive(Parser)]
#[command(name = "aldaba", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    settings: SettingArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct SettingArgs {
    /// Settings file; without it `aldaba.toml` is read if it is there
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Database: `sqlite://PATH` or `postgres://USER:PASSWORD@HOST/NAME`
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server: the API, and the deliveries
    Serve {
        /// Where to listen, such as 127.0.0.1:8080; port 0 takes a free one
        #[arg(long, value_name = "HOST:PORT")]
        listen: Option<String>,
    },
    /// Try it: a server in development with an account, a key and a receiver that shows what arrives
    Dev {
        /// Where to listen; without it, the setting `listen`, else 127.0.0.1:8080 or a free port where that one is
        /// taken
        #[arg(long, value_name = "HOST:PORT")]
        listen: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Make and list accounts
    Accounts {
        #[command(subcommand)]
        command: AccountsCommand,
    },
    /// Make, list and revoke API keys
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Make, list, invite and delete the people who sign in to the dashboard
    Users {
        #[command(subcommand)]
        command: UsersCommand,
    },
    /// Publish events
    Events {
        #[command(subcommand)]
        command: EventsCommand,
    },
    /// Receive deliveries: verify each and print it
    Listen {
        /// Where to listen
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9090")]
        listen: String,
        /// The endpoint's signing secret; without it nothing is verified. Better in the environment than on a command
        /// line
        #[arg(long, env = "WEBHOOK_SECRET", hide_env_values = true, value_name = "SECRET")]
        secret: Option<String>,
        /// Answer with this status
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..=599))]
        status: u16,
        #[command(flatten)]
        output: Output,
    },
    /// Bring the database to this program's version and stop
    Migrate {
        #[command(flatten)]
        output: Output,
    },
    /// Move everything from an SQLite database into the PostgreSQL database of the settings; no server may run on
    /// either
    Import {
        /// Where it comes from, such as `sqlite://aldaba.db`
        #[arg(long, value_name = "URL")]
        from: String,
        #[command(flatten)]
        output: Output,
    },
    /// Print the OpenAPI 3.1 document of the API
    Openapi,
    /// Print every setting with its values, its default and its meaning
    Settings {
        #[command(flatten)]
        output: Output,
    },
    /// Look after the master key that encrypts signing secrets
    Secrets {
        #[command(subcommand)]
        command: SecretsCommand,
    },
}

#[derive(Subcommand)]
enum AccountsCommand {
    /// Make an account and print its id
    Create {
        /// A name for people
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// List accounts, newest first
    List {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Make an API key and print it, this once; without --account an operator's key
    Create {
        /// The account that the key acts for
        #[arg(long, value_name = "ID")]
        account: Option<String>,
        /// What it may do, such as webhooks:read; repeat for more [default: *]
        #[arg(long = "permission", value_name = "PERMISSION")]
        permissions: Vec<String>,
        /// When it ends: a duration from now such as 90d, or an ISO 8601 date-time
        #[arg(long, value_name = "WHEN")]
        expires: Option<String>,
        /// A name for people
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// List keys, newest first; without --account the operators'
    List {
        /// The account
        #[arg(long, value_name = "ID")]
        account: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Revoke a key; it is refused from then on
    Revoke {
        /// The key's id
        id: String,
        /// The account that it acts for
        #[arg(long, value_name = "ID")]
        account: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
enum UsersCommand {
    /// Make a user and print the address at which they set their password, this once
    Create {
        /// Their e-mail address
        email: String,
        #[command(flatten)]
        whose: Whose,
        /// owner, developer or viewer
        #[arg(long, value_name = "ROLE", default_value = "owner")]
        role: String,
        /// Read the password from standard input instead; then there is no invitation
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        output: Output,
    },
    /// List the users of an account, or the operators
    List {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        output: Output,
    },
    /// Turn off the second factor of somebody who has lost it; they are told at their next sign-in
    ResetTwoFactor {
        /// Their e-mail address
        email: String,
        #[command(flatten)]
        whose: MaybeWhose,
        #[command(flatten)]
        output: Output,
    },
    /// Make a new invitation, for somebody who has lost their password
    Invite {
        /// Their e-mail address
        email: String,
        #[command(flatten)]
        whose: MaybeWhose,
        #[command(flatten)]
        output: Output,
    },
    /// Delete a user and end their sessions
    Delete {
        /// Their e-mail address
        email: String,
        #[command(flatten)]
        whose: MaybeWhose,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Whose {
    /// The account that they belong to
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// None: they run this server and see every account
    #[arg(long)]
    operator: bool,
}

/// Which of several users with one address.
#[derive(Args)]
#[group(multiple = false)]
struct MaybeWhose {
    /// The account that they belong to, where several have a user with the address
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// They belong to none: they run this server
    #[arg(long)]
    operator: bool,
}

#[derive(Subcommand)]
enum EventsCommand {
    /// Publish one event and print its id
    Publish {
        /// The event's type, such as validation.completed
        event: String,
        /// The account that it happened to
        #[arg(long, value_name = "ID")]
        account: String,
        /// The event's data as a JSON object; - reads it from standard input
        #[arg(long, value_name = "JSON", default_value = "{}")]
        data: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
enum SecretsCommand {
    /// Seal every signing secret with a new master key (or with `secrets.master_key`, where that is set)
    Rekey {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Args, Clone, Copy)]
struct Output {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Output {
    /// Prints JSON, or the text for people.
    fn print(self, json: &serde_json::Value, text: &str) {
        if self.json { println!("{json}") } else { println!("{text}") }
    }
}

impl SettingArgs {
    fn load(&self, flags: impl IntoIterator<Item = (&'static str, String)>) -> anyhow::Result<Config> {
        self.load_over([], flags)
    }

    /// The settings of a command that has defaults of its own.
    fn load_over(
        &self,
        defaults: impl IntoIterator<Item = (&'static str, String)>,
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> anyhow::Result<Config> {
        let database = self.database_url.clone().map(|url| ("database_url", url));
        let flags = database.into_iter().chain(flags);
        Ok(Config::load_over(defaults, self.config.as_deref(), std::env::vars(), flags)?)
    }

    /// Starts logging, and tells what it is that the command line should not have said.
    fn start_telemetry(&self, config: &Config) {
        crate::telemetry::start(config);
        if self.database_url.as_deref().is_some_and(has_password) {
            tracing::warn!(
                "--database-url has a password, which every user of this machine can read in the list of processes: \
                 set ALDABA_DATABASE_URL, or database_url in the settings file"
            );
        }
    }

    /// The database, for a command beside the server.
    async fn open(&self) -> anyhow::Result<Store> {
        let config = self.load([])?;
        self.start_telemetry(&config);
        let store = Store::open(crate::open_options(&config, Arc::new(SharedClock::default()), false, None)).await?;
        let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
        let actor = Actor::CommandLine(user.unwrap_or_else(|| "unknown".to_owned()));
        Ok(store.acting(Origin { actor, ..Origin::default() }))
    }
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

/// Runs the command line and tells the shell how it ended: 0, or 1 with one clear line on standard error.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    files::make_room();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let ended = match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    };
    // A name that is still being looked up for an attempt that is over holds up nobody.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    ended
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

async fn run(Cli { settings, command }: Cli) -> anyhow::Result<()> {
    match command {
        Command::Serve { listen } => serve::serve(&settings, listen).await,
        Command::Dev { listen, output } => dev::dev(&settings, listen, output).await,
        Command::Accounts { command: AccountsCommand::Create { name, output } } => {
            admin::create_account(&settings.open().await?, name, output).await
        }
        Command::Accounts { command: AccountsCommand::List { output } } => {
            admin::list_accounts(&settings.open().await?, output).await
        }
        Command::Keys { command: KeysCommand::Create { account, permissions, expires, name, output } } => {
            let prefix = settings.load([])?.key_prefix;
            let new = admin::new_key(account.as_deref(), &permissions, expires.as_deref(), name)?;
            admin::create_key(&settings.open().await?, new, prefix, output).await
        }
        Command::Keys { command: KeysCommand::List { account, output } } => {
            admin::list_keys(&settings.open().await?, account.as_deref(), output).await
        }
        Command::Keys { command: KeysCommand::Revoke { id, account, output } } => {
            admin::revoke_key(&settings.open().await?, &id, account.as_deref(), output).await
        }
        Command::Users { command } => users::run(&settings, command).await,
        Command::Events { command: EventsCommand::Publish { event, account, data, output } } => {
            admin::publish(&settings.open().await?, &event, &account, &data, output).await
        }
        Command::Listen { listen, secret, status, output } => {
            receiver::listen(&listen, secret.as_deref(), status, output).await
        }
        Command::Migrate { output } => {
            settings.open().await?;
            output.print(&serde_json::json!({ "migrated": true }), "the database is up to date");
            Ok(())
        }
        Command::Import { from, output } => {
            let keys = settings.load([])?.keys;
            admin::import(&settings.open().await?, &from, &keys, output).await
        }
        Command::Openapi => {
            println!("{:#}", crate::api::openapi::document(&crate::api::routes()));
            Ok(())
        }
        Command::Settings { output } => {
            output.print(&crate::config::settings_json(), crate::config::settings_page().trim_end());
            Ok(())
        }
        Command::Secrets { command: SecretsCommand::Rekey { output } } => {
            let resealed = settings.open().await?.rekey().await?;
            let text = format!("{resealed} secrets are sealed with the current master key");
            output.print(&serde_json::json!({ "resealed": resealed }), &text);
            Ok(())
        }
    }
}

/// Binds, or says in one line why not.
async fn bind(listen: &str) -> anyhow::Result<tokio::net::TcpListener> {
    let hint = "is another program using the port? choose another with --listen HOST:PORT";
    tokio::net::TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen} ({hint})"))
}

//! The command line: commands, their arguments and their output.

mod admin;
mod args;
mod backup;
mod browser;
mod check;
mod dev;
mod doctor;
mod files;
mod hold;
mod import;
mod packaging;
mod receiver;
mod reload;
mod serve;
mod service_manager;
mod settings;
mod users;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::store::Lifecycle;
use args::{Output, SettingArgs, print_line};
use backup::{BackupArgs, RestoreArgs};
use import::ImportArgs;
use settings::SettingsCommand;
use users::UsersCommand;

/// A webhook sender: it takes your events, signs them, delivers them, and never loses one.
#[derive(Parser)]
#[command(name = "aldaba", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    settings: SettingArgs,
    #[command(subcommand)]
    command: Command,
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
    /// Copy the database into a file, beside a running server too (SQLite)
    Backup(BackupArgs),
    /// Put a backup in the place of the database, while no server runs (SQLite)
    ///
    /// What was sent since the backup is sent again, with the same `webhook-id`. With --hold nothing is sent until
    /// `aldaba resume`
    Restore(RestoreArgs),
    /// Check the database, beside a running server too, and print what it contains
    ///
    /// To check a backup, name it by --database-url `sqlite://FILE`. It ends with 1 if it finds a problem
    Check {
        #[command(flatten)]
        output: Output,
    },
    /// Put all deliveries on hold: events are accepted, and nothing is sent until `aldaba resume`
    Hold {
        #[command(flatten)]
        output: Output,
    },
    /// Resume deliveries that are on hold
    Resume {
        #[command(flatten)]
        output: Output,
    },
    /// Move here: from an SQLite database into PostgreSQL, from a CSV file, or from Svix
    ///
    /// A CSV file and Svix are read beside a running server, by the rules of the API. What is there already is left as
    /// it is, so the command can be run again. It ends with 1 where something cannot be moved
    Import(ImportArgs),
    /// Print the OpenAPI 3.1 document of the API
    Openapi,
    /// Print every setting with its values, its default and its meaning; or check what is set
    Settings {
        #[command(subcommand)]
        command: Option<SettingsCommand>,
        /// Print a settings file with every setting commented out
        #[arg(long, conflicts_with = "json")]
        example: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Examine what the server depends on: database, disk, clock, name servers, limits; and say what to do
    ///
    /// It changes nothing, and may run beside the server, as the same user. It ends with 1 if it finds a problem
    Doctor {
        /// The name that each name server is asked for [default: the host of `public_url`, else the root's servers]
        #[arg(long, value_name = "HOST")]
        name: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Look after the master key that encrypts signing secrets
    Secrets {
        #[command(subcommand)]
        command: SecretsCommand,
    },
    /// Print a script that completes commands in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual, a page for each command, into a folder
    #[command(hide = true)]
    Man {
        /// The folder, which exists
        folder: PathBuf,
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
            output.print(&serde_json::json!({ "migrated": true }), "the database is up to date")
        }
        Command::Backup(args) => backup::back_up(&settings, args),
        Command::Restore(args) => backup::restore(&settings, args),
        Command::Check { output } => check::check(&settings, output).await,
        Command::Hold { output } => hold::hold(&settings.open().await?, output).await,
        Command::Resume { output } => hold::resume(&settings.open().await?, output).await,
        Command::Import(args) => import::run(&settings, args).await,
        Command::Openapi => print_line(format_args!("{:#}", crate::api::openapi::document(&crate::api::routes()))),
        Command::Settings { example: true, .. } => print_line(crate::config::settings_example().trim_end()),
        Command::Settings { command, output, .. } => settings::run(&settings, command, output),
        Command::Doctor { name, output } => doctor::doctor(&settings, name, output).await,
        Command::Secrets { command: SecretsCommand::Rekey { output } } => {
            let resealed = settings.open().await?.rekey().await?;
            let text = format!("{resealed} secrets are sealed with the current master key");
            output.print(&serde_json::json!({ "resealed": resealed }), &text)
        }
        Command::Completions { shell } => packaging::print_completions(Cli::command(), shell),
        Command::Man { folder } => packaging::write_manual(Cli::command(), &folder),
    }
}

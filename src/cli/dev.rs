//! `aldaba dev`: a server, an account and a receiver to try. Its files are in `./aldaba-data/`, its data too unless a
//! setting names another database.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::net::TcpListener;

use super::args::{Output, SettingArgs, bind, print_line};
use super::browser;
use super::receiver::{self, Receiver};
use super::reload::{self, Hangups};
use super::serve::Signals;
use crate::App;
use crate::api::SignInLink;
use crate::clock::{Clock as _, Random, SystemClock, SystemRandom};
use crate::config::{Config, Reading};
use crate::domain::account::{KeyHash, PlainKey};
use crate::domain::event::{NewEvent, message, validation_id};
use crate::domain::id::{AccountId, EndpointId, UserId};
use crate::domain::permission::Permissions;
use crate::domain::secret::Secret;
use crate::domain::settings::{EndpointChange, EndpointSettings};
use crate::domain::url::{Environment, ReceiverUrl};
use crate::domain::user::{Email, Role};
use crate::lock::RwLock;
use crate::private_files;
use crate::store::{
    Accounts, Database, Endpoints, Intake, Log, Memberships, NewApiKey, NewUser, Page, Snapshot, Store, Users,
};

/// Where everything is kept.
const FOLDER: &str = "aldaba-data";

/// The database, where no setting names one.
const DATABASE_URL: &str = "sqlite://aldaba-data/aldaba.db";

/// The name of the account that it makes.
const ACCOUNT: &str = "dev";

/// What the first event is about.
const EVENT: &str = "validation.completed";

/// Whose dashboard it is.
const EMAIL: &str = "dev@localhost";

/// How the built-in receiver's endpoint is known again.
const DESCRIPTION: &str = "the receiver built into aldaba dev";

pub(super) async fn dev(settings: &SettingArgs, listen: Option<String>, output: Output) -> anyhow::Result<()> {
    let folder = Path::new(FOLDER);
    own_folder(folder)?;
    let hangups = Hangups::new()?;
    let flags: Vec<_> = std::iter::once(("environment", "development".to_owned()))
        .chain(listen.map(|listen| ("listen", listen)))
        .collect();
    let default = ("database_url", DATABASE_URL.to_owned());
    let Reading { config, effective, file, .. } = settings.read([default.clone()], flags.clone());
    let config = config?;
    let prefix = config.key_prefix.clone();
    let data = (Database::parse(DATABASE_URL) != Ok(config.database.clone())).then(|| config.database.to_string());
    settings.start_telemetry(&config);
    let listener = bind_or_next_free(&config).await?;
    let receiver_listener = bind("127.0.0.1:0").await?;
    let again = settings.with_file(file);
    let reloads = reload::start(hangups, move || again.read([default.clone()], flags.clone()), effective);
    let app = App::open(config).await?.with_reloads(reloads);
    let store = app.store.clone();

    let base = format!("http://{}", listener.local_addr()?);
    let receiver_url = format!("http://{}/webhook", receiver_listener.local_addr()?);
    let (account, key) = account_and_key(&store, &folder.join("dev-key"), prefix).await?;
    let random: &dyn Random = &SystemRandom::default();
    let token = PlainKey::from_random("", random.array());
    let user = user(&store, account).await?;
    let app = app.with_sign_in_link(SignInLink { account, user, token: KeyHash::of(token.reveal()) });
    let sign_in = format!("{base}/sign-in/{}", token.reveal());
    let (endpoint, secret) = register(&store, account, &receiver_url).await?;

    // A signal may come as soon as the line is read.
    let signals = Signals::new()?;
    if output.json {
        let shown = json!({
            "address": base,
            "api_key": key,
            "endpoint_id": endpoint.to_string(),
            "receiver": receiver_url,
            "sign_in": sign_in,
        });
        print_line(shown)?;
    } else {
        print_start(&base, &key, endpoint, &receiver_url, &sign_in, data.as_deref())?;
        browser::open(&sign_in, &folder.join("sign-in.html"));
    }
    let receiver = Receiver {
        secret: Arc::new(RwLock::new(Some(secret))),
        status: 200,
        hint: "This receiver still has the old secret, as a real one would until you give it the new one.\n  \
               The old secret is dead. Start `aldaba dev` again and the receiver gets a new one.",
        output,
    };
    let receiving = tokio::spawn(receiver::serve(receiver_listener, receiver, std::future::pending()));
    let running = tokio::spawn(app.run(listener, signals.first()));
    publish(&store, account).await?;
    if !output.json {
        first_delivery(&store, account, endpoint).await?;
        print_next_steps(&base, &key, endpoint)?;
    }
    running.await??;
    // The receiver goes last, so that attempts under way are answered.
    receiving.abort();
    Ok(())
}

/// Makes the folder where it is missing. One that others own or can write to is refused: they could put links in the
/// place of its files.
fn own_folder(folder: &Path) -> anyhow::Result<()> {
    let made = private_files::make_folder(folder).and_then(|()| private_files::is_ours_alone(folder));
    if made.with_context(|| format!("cannot make the folder {FOLDER}"))? {
        return Ok(());
    }
    bail!(
        "other users own the folder {FOLDER} or can write to it, and would get at the API key in it: make it yours \
         with mode 0700, or start in another folder"
    )
}

/// Listens where the settings say. Where they say nothing and the usual port is taken, on a free one.
async fn bind_or_next_free(config: &Config) -> anyhow::Result<TcpListener> {
    let is_taken = |error: &anyhow::Error| {
        let error = error.downcast_ref::<std::io::Error>();
        error.is_some_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
    };
    match bind(&config.listen).await {
        Err(error) if config.listen_is_default && is_taken(&error) => {
            eprintln!("{} is taken by another program: listening on a free port instead", config.listen);
            bind("127.0.0.1:0").await
        }
        bound => bound,
    }
}

/// `database` is where its data is, if not in [`FOLDER`].
fn print_start(
    base: &str,
    key: &str,
    endpoint: EndpointId,
    receiver_url: &str,
    sign_in: &str,
    database: Option<&str>,
) -> anyhow::Result<()> {
    let (data, version) = (database.map_or_else(|| format!("./{FOLDER}/"), str::to_owned), env!("CARGO_PKG_VERSION"));
    print_line(format_args!(
        "listening on {base}\n\n  \
         Aldaba {version} is running in development. Its data is in {data}.\n\n  \
         API key    {key}\n  \
         endpoint   {endpoint}\n  \
         receiver   {receiver_url}  (built in: it verifies and prints what arrives)\n  \
         dashboard  {sign_in}  (signs you in, until this stops; keep it to yourself)\n  \
         reference  {base}/docs\n\n  \
         Publishing {EVENT} …"
    ))
}

/// The user of the dashboard: an owner, whom the link signs in without a password.
async fn user(store: &Store, account: AccountId) -> anyhow::Result<UserId> {
    let email = Email::parse(EMAIL).context("the address of the first user")?;
    let known = store.users_with(email.clone()).await?;
    if let Some(user) = known.iter().find(|user| user.account.is_some_and(|(id, _)| id == account)) {
        return Ok(user.id);
    }
    let new = NewUser { account: Some(account), email, role: Role::Owner, password: None };
    Ok(store.create_user(new, None).await?.resource.id)
}

/// The account and key of the first start. The key is kept in a file beside the database, for development only, so that
/// the next start can print it again.
async fn account_and_key(store: &Store, file: &Path, prefix: String) -> anyhow::Result<(AccountId, String)> {
    if let Ok(key) = std::fs::read_to_string(file)
        && let Some(known) = store.view().api_key(&KeyHash::of(key.trim()))
        && let Some((account, _)) = known.account
    {
        return Ok((account, key.trim().to_owned()));
    }
    // A database that the settings name may have other accounts, whose receivers want no event of ours.
    let newest = store.accounts(Page { page: 1, per_page: 100 }).await?.items;
    let account = match newest.into_iter().find(|account| account.name == ACCOUNT) {
        Some(account) => account,
        None => store.create_account(ACCOUNT.into(), None).await?,
    };
    let permissions = Permissions::all();
    let new = NewApiKey { account: Some(account.id), name: Some("aldaba dev".into()), permissions, expires_at: None };
    let made = store.create_api_key(new, prefix, None).await?;
    private_files::replace(file, made.key.reveal().as_bytes())
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok((account.id, made.key.reveal().to_owned()))
}

/// Registers the receiver, or finds it from last time and gives it its new address and a new secret.
async fn register(store: &Store, account: AccountId, url: &str) -> anyhow::Result<(EndpointId, Secret)> {
    let known = store.endpoints(account).await?;
    if let Some(endpoint) = known.into_iter().find(|e| e.settings.description.as_deref() == Some(DESCRIPTION)) {
        let change = EndpointChange { url: Some(url.to_owned()), ..EndpointChange::default() };
        store.update_endpoint(account, endpoint.id, change).await?;
        let rotated = store.rotate_secret(account, endpoint.id, None, std::time::Duration::ZERO, None).await?;
        return Ok((endpoint.id, rotated.secret));
    }
    let url = ReceiverUrl::parse(url, Environment::Development)?;
    let new =
        EndpointSettings { description: Some(DESCRIPTION.into()), ..EndpointSettings::new(&url, vec![EVENT.into()]) };
    let made = store.create_endpoint(account, new.into(), None).await?;
    Ok((made.resource.id, made.secret))
}

async fn publish(store: &Store, account: AccountId) -> anyhow::Result<()> {
    let now = SystemClock.now();
    let id = "7f3d9a52-6c1e-4b0a-9d57-2f8e41c6b3aa";
    let data = format!(r#"{{"id":"{id}","result":"valid","greeting":"hello from Aldaba"}}"#);
    let body = message(EVENT, now, &data);
    let validation_id = validation_id(EVENT, Some(id));
    let event_type = EVENT.into();
    let new = NewEvent { account, event_type, occurred_at: now, validation_id, channels: None, trace: None, body };
    store.accept(vec![new], None).await?;
    Ok(())
}

/// Waits for the first delivery's outcome, and prints it.
async fn first_delivery(store: &Store, account: AccountId, endpoint: EndpointId) -> anyhow::Result<()> {
    for _ in 0..100 {
        let newest = store.endpoint_deliveries(account, endpoint, Page { page: 1, per_page: 1 }).await?.items.pop();
        if let Some(delivery) = newest.filter(|delivery| delivery.response_time_ms.is_some()) {
            let status = delivery.response_status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
            let took = delivery.response_time_ms.unwrap_or(0);
            let (id, outcome) = (delivery.id, delivery.status.name());
            return print_line(format_args!("← {status} in {took} ms: delivery {id} is a {outcome}"));
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    print_line("  (no outcome yet: is the endpoint paused?)")
}

fn print_next_steps(base: &str, key: &str, endpoint: EndpointId) -> anyhow::Result<()> {
    print_line(format_args!(
        "\nTry next, in another terminal:\n\n\
         # publish an event\n\
         curl -X POST {base}/v1/events -H 'Authorization: Bearer {key}' \\\n  \
         -H 'Content-Type: application/json' -d '{{\"event\":\"{EVENT}\",\"data\":{{\"n\":1}}}}'\n\n\
         # list deliveries\n\
         curl {base}/v1/webhooks/{endpoint}/deliveries -H 'Authorization: Bearer {key}'\n\n\
         # rotate the signing secret: the new one is shown once, the old one stops working at once\n\
         curl -X POST {base}/v1/webhooks/{endpoint}/regenerate-secret -H 'Authorization: Bearer {key}'\n\n\
         # in production set webhooks.auto_disable_after = \"1h\": by default a receiver that restarts for 3 s\n\
         # at 10 events/s fails often enough to be disabled\n\n\
         Ctrl-C stops it.\n"
    ))
}

//! Aldaba: a webhook sender in one binary.
//!
//! An event passes these modules: `api` accepts it, `store` commits it with its deliveries, `engine` schedules them,
//! `egress` signs and sends each, and `store` records the outcome. `domain` makes the decisions and does no I/O. This
//! file wires all of them together. ARCHITECTURE.md describes them; `tests/it/tidy.rs` checks which may import which.

// `println!` panics when a reader such as `head` has closed the pipe. `print_line` of the command line does not.
#![warn(clippy::print_stdout)]

pub mod api;
pub mod cli;
mod client_socket;
mod client_stream;
pub mod clock;
pub mod config;
mod connections;
pub mod domain;
pub mod egress;
pub mod engine;
mod heavy;
mod lock;
mod log_limit;
pub mod metrics;
mod permits;
mod private_files;
mod server;
pub mod store;
mod table;
mod telemetry;
mod tls;
mod waiting;
pub mod web;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use api::{Api, HttpService, SignInLink};
use clock::{Clock, Random, SharedClock, SystemRandom};
use config::Config;
use domain::url::Environment;
use egress::{Egress, Routing};
use engine::{AttemptCounts, Engine, HttpSender, Limits};
use metrics::Metrics;
use server::{ClientLimits, ServerOptions};
use store::inbox::{Inbox, Nudge};
use store::{Health, Lifecycle, OpenError, OpenOptions, Store, StoreSettings};

/// Requests and attempts that are under way at the stop may take this much longer than an attempt's own timeout.
const GRACE: Duration = Duration::from_secs(2);

/// Connections of one address to the listener of the metrics: those who collect metrics are few.
const METRICS_CONNECTIONS: usize = 64;

/// How often the last use of keys is written down.
const KEY_USE_INTERVAL: Duration = Duration::from_secs(60);

/// A server with an open database, ready to run.
pub struct App {
    /// The store, for tests and commands that use it besides the server.
    pub store: Store,
    config: Config,
    egress: Egress,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    nudges: mpsc::UnboundedReceiver<Nudge>,
    sign_in_link: Option<SignInLink>,
    metrics_listener: Option<TcpListener>,
    reloads: Option<mpsc::Receiver<Reload>>,
}

impl App {
    /// Opens the database as a server.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        egress::check_sources(config.source_addresses).map_err(|(address, error)| {
            OpenError(format!("cannot send from {address}, which the setting egress.source_address names: {error}"))
        })?;
        let metrics_listener = listen_for_metrics(config.metrics_listen.as_deref()).await?;
        let (inbox, nudges) = Inbox::new();
        let inbox = config.roles.delivery.then_some(inbox);
        let clock: Arc<dyn Clock> = Arc::new(SharedClock::default());
        let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
        let store = Store::open(open_options(&config, clock.clone(), true, inbox)).await?;
        let egress = egress_of(&config, clock.clone(), random.clone());
        Ok(Self { store, config, egress, clock, random, nudges, sign_in_link: None, metrics_listener, reloads: None })
    }

    /// The server applies the settings that come by this channel.
    pub(crate) fn with_reloads(self, reloads: mpsc::Receiver<Reload>) -> Self {
        Self { reloads: Some(reloads), ..self }
    }

    /// Adds a link that signs in a user without a password: for `aldaba dev`.
    pub(crate) fn with_sign_in_link(self, sign_in_link: SignInLink) -> Self {
        Self { sign_in_link: Some(sign_in_link), ..self }
    }

    /// Where `/metrics` is served, if it has a listener of its own.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_listener.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves and delivers until `stop` resolves. Then it accepts nothing more, lets requests and attempts finish
    /// within a bound, writes outcomes and returns. Returns an error where a part without which nothing works has
    /// panicked.
    pub async fn run(self, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<(), RunError> {
        let Self { store, config, egress, clock, random, nudges, sign_in_link, metrics_listener, reloads } = self;
        warn_of_development(&config, &listener);
        warn_without_public_url(&config);
        let metrics = Arc::new(Metrics::default());
        let settings = api_settings(&config, sign_in_link, metrics_listener.is_some());
        let (api_clock, api_random, changing) = (clock.clone(), random.clone(), changing_settings(&config));
        let api = Api::new(store.clone(), egress.clone(), api_clock, api_random, metrics.clone(), settings, changing);
        let attempt_counts = Arc::new(AttemptCounts::default());
        let engine = Engine {
            store: store.clone(),
            sender: HttpSender { egress: egress.clone(), store: store.clone() },
            clock: clock.clone(),
            random,
            limits: Limits {
                max_in_flight: config.max_in_flight,
                max_in_flight_per_endpoint: config.max_in_flight_per_endpoint,
            },
            metrics: metrics.clone(),
            attempt_counts: attempt_counts.clone(),
        };
        let (stopping, stopped) = watch::channel(None);
        let (reloader, limits, retention) = Reloader::new(config.clone(), store.clone(), egress.clone(), api.clone());
        let mut background = vec![tokio::spawn(reloader.run(reloads))];
        background.push(tokio::spawn(engine::close_idle(egress.clone(), store.clone())));
        background.push(tokio::spawn(flush_key_uses(api.clone())));
        let mut delivering = None;
        if config.roles.delivery {
            let payer = api.clone();
            let charge = move |account, deliveries| payer.charge_replayed(account, deliveries);
            background.push(tokio::spawn(engine::replay(store.clone(), metrics.clone(), charge)));
            background.push(tokio::spawn(engine::measure_backlog(store.clone(), clock.clone(), metrics.clone())));
            background.push(tokio::spawn(engine::maintain(store.clone(), clock, metrics, retention)));
            let engine = engine.run(nudges, until(stopped.clone()));
            delivering = Some(tokio::spawn(deliver(engine, attempt_counts, store.clone())));
        }
        let mut failed = None;
        let pages = web::router(api.clone());
        let service =
            if config.roles.api { HttpService::whole(api.clone(), pages) } else { HttpService::health(api.clone()) };
        let answer = move |request, peer| service.answer(request, peer);
        let refusing = api.clone();
        let refusal: client_stream::Refusal = Arc::new(move |status| api::unreadable(&refusing, status));
        if let Some(listener) = metrics_listener {
            background.push(serve_metrics(listener, api.clone(), refusal.clone(), stopped.clone()));
        }
        let options = ServerOptions::new(limits, refusal);
        let server = tokio::spawn(server::serve(listener, answer, options, until(stopped)));
        let engine_ended = async {
            match &mut delivering {
                Some(delivering) => drop(delivering.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop => {}
            () = engine_ended => failed = Some(RunError("the delivery engine has ended: see the panic above")),
            () = store.failed() => failed = Some(RunError("the database's writer has ended: see the panic above")),
        }
        if let Some(error) = &failed {
            tracing::error!(%error, "the process ends, so that its supervisor starts it again");
        }
        let _ = stopping.send(Some(egress.timeout() + GRACE));
        finish(server, delivering, background, api, store).await;
        failed.map_or(Ok(()), Err)
    }
}

/// Serves `/metrics` on a listener of its own.
fn serve_metrics(
    listener: TcpListener,
    api: Api,
    refusal: client_stream::Refusal,
    stopped: watch::Receiver<Option<Duration>>,
) -> JoinHandle<()> {
    let service = HttpService::metrics(api);
    let answer = move |request, peer| service.answer(request, peer);
    let limits = ClientLimits { connections_per_address: METRICS_CONNECTIONS, trusted_proxies: Vec::new() };
    let stop = async {
        until(stopped).await;
        Duration::ZERO
    };
    tokio::spawn(server::serve(listener, answer, ServerOptions::new(limits.fixed(), refusal), stop))
}

/// Lets requests and attempts end, which have been told to stop, and writes what is in memory only.
async fn finish(
    server: JoinHandle<()>,
    delivering: Option<JoinHandle<()>>,
    background: Vec<JoinHandle<()>>,
    api: Api,
    store: Store,
) {
    // Both stop at the same signal. An event that is accepted in between is committed, and sent after the next start.
    let _ = server.await;
    if let Some(delivering) = delivering.filter(|delivering| !delivering.is_finished()) {
        let _ = delivering.await;
    }
    background.iter().for_each(JoinHandle::abort);
    api.flush_key_uses().await;
    if let Err(error) = store.close().await {
        tracing::warn!(%error, "the deliveries of this process could not be given back: others take them over later");
    }
}

/// Other settings for a running server.
pub(crate) struct Reload {
    /// What was read. Only a part of it may change while the server runs.
    pub config: Config,
    /// Gets the answer: this part is in force from now on, or why everything stays as it is.
    pub done: oneshot::Sender<Result<(), OpenError>>,
}

/// Gives a running server other settings.
struct Reloader {
    /// The settings in force.
    config: Config,
    store: Store,
    egress: Egress,
    api: Api,
    limits: watch::Sender<ClientLimits>,
    retention: watch::Sender<engine::RetentionPolicy>,
}

impl Reloader {
    /// With it come the settings of the listener and of the housekeeping.
    fn new(
        config: Config,
        store: Store,
        egress: Egress,
        api: Api,
    ) -> (Self, watch::Receiver<ClientLimits>, watch::Receiver<engine::RetentionPolicy>) {
        let (limits, of_listener) = watch::channel(client_limits(&config));
        let (retention, of_housekeeping) = watch::channel(retention_policy(&config));
        (Self { config, store, egress, api, limits, retention }, of_listener, of_housekeeping)
    }

    async fn run(mut self, reloads: Option<mpsc::Receiver<Reload>>) {
        let Some(mut reloads) = reloads else { return };
        while let Some(Reload { config, done }) = reloads.recv().await {
            let _ = done.send(self.reload(&config).await);
        }
    }

    /// Each part gets its new settings as a whole, or none of them does.
    async fn reload(&mut self, new: &Config) -> Result<(), OpenError> {
        let config = self.config.reloaded(new);
        let settings = StoreSettings {
            keys: config.keys.clone(),
            policy: config.policy.clone(),
            max_endpoints: config.max_endpoints,
            max_api_keys: config.max_api_keys,
        };
        self.store.reload(settings).await?;
        self.egress.reload(config.egress_rules.clone(), config.timeout);
        self.api.reload(changing_settings(&config)).await;
        self.limits.send_replace(client_limits(&config));
        self.retention.send_replace(retention_policy(&config));
        self.config = config;
        Ok(())
    }
}

/// Why a server has ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RunError(&'static str);

/// Opens the database and runs the server on `listener` until `shutdown` resolves.
pub async fn run(config: Config, listener: TcpListener, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    App::open(config).await?.run(listener, shutdown).await?;
    Ok(())
}

/// The options to open the database with, for a server or a command. With an `inbox`, this process delivers.
pub(crate) fn open_options(config: &Config, clock: Arc<dyn Clock>, serves: bool, inbox: Option<Inbox>) -> OpenOptions {
    OpenOptions {
        database: config.database.clone(),
        keys: config.keys.clone(),
        environment: config.environment,
        policy: config.policy.clone(),
        max_endpoints: config.max_endpoints,
        max_api_keys: config.max_api_keys,
        max_in_flight_per_endpoint: config.max_in_flight_per_endpoint,
        serves,
        clock,
        random: Arc::new(SystemRandom::default()),
        inbox,
    }
}

fn egress_of(config: &Config, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Egress {
    let resolver = egress::resolver(config.dns_servers.clone());
    let routing = Routing {
        environment: config.environment,
        rules: config.egress_rules.clone(),
        proxy: config.proxy.clone(),
        sources: config.source_addresses,
    };
    let spans = config.trace_context.then_some(random);
    Egress::new(routing, &config.brand, config.timeout, clock, resolver, spans)
}

/// The API for a command beside the server: what the command makes passes the checks of the API's calls.
pub(crate) fn api_of_command(config: &Config, store: Store) -> Api {
    let clock: Arc<dyn Clock> = Arc::new(SharedClock::default());
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    let egress = egress_of(config, clock.clone(), random.clone());
    let (settings, changing) = (api_settings(config, None, false), changing_settings(config));
    Api::new(store, egress, clock, random, Arc::new(Metrics::default()), settings, changing)
}

/// The part of the settings that the API reads.
fn api_settings(config: &Config, sign_in_link: Option<SignInLink>, metrics_apart: bool) -> api::Settings {
    api::Settings {
        environment: config.environment,
        brand: config.brand.clone(),
        key_prefix: config.key_prefix.clone(),
        sign_in_link,
        metrics_apart,
        max_in_flight_per_endpoint: u32::try_from(config.max_in_flight_per_endpoint).expect("it is 4,096 at most"),
        trace_context: config.trace_context,
        max_tests: (config.max_in_flight.div_ceil(8), config.max_in_flight_per_endpoint.min(4)),
    }
}

/// The part of the settings that the API reads and that may change while it serves.
fn changing_settings(config: &Config) -> api::ChangingSettings {
    api::ChangingSettings {
        max_body: config.max_body,
        rate_limits: config.rate_limits.clone(),
        retention: config.retention,
        trusted_proxies: config.trusted_proxies.clone(),
        requests_per_forwarded_address: config.connections_per_address,
        public_addresses: config.public_addresses.clone(),
        public_url: config.public_url.clone(),
        sessions: config.sessions,
    }
}

fn client_limits(config: &Config) -> ClientLimits {
    ClientLimits {
        connections_per_address: config.connections_per_address,
        trusted_proxies: config.trusted_proxies.clone(),
    }
}

async fn listen_for_metrics(address: Option<&str>) -> Result<Option<TcpListener>, OpenError> {
    let Some(address) = address else { return Ok(None) };
    let failed = |error| OpenError(format!("cannot listen on {address}, which is the setting metrics_listen: {error}"));
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    tracing::info!("metrics are at http://{}/metrics", listener.local_addr().map_err(failed)?);
    Ok(Some(listener))
}

/// In development a receiver may be any address of the private network, so a client of the server reaches these too.
fn warn_of_development(config: &Config, listener: &TcpListener) {
    let is_near = |address: SocketAddr| address.ip().to_canonical().is_loopback();
    if config.environment == Environment::Development
        && let Ok(address) = listener.local_addr()
        && !is_near(address)
    {
        tracing::warn!(
            %address,
            "environment is development, and other machines can reach this address: receivers may be private \
             addresses, and cookies do not need TLS. Listen on 127.0.0.1, or set environment to production"
        );
    }
}

fn retention_policy(config: &Config) -> engine::RetentionPolicy {
    engine::RetentionPolicy {
        history: config.retention,
        audit_log: config.audit_retention,
        idle_sessions: config.sessions.idle,
    }
}

/// Without `public_url` links to the dashboard and the portal have the host that the request named.
fn warn_without_public_url(config: &Config) {
    if config.environment == Environment::Production && config.roles.api && config.public_url.is_none() {
        tracing::warn!(
            "public_url is not set: links in invitations and to the portal are made from the Host header of the \
             request. Set it to the origin at which people reach this server, such as https://hooks.example.com"
        );
    }
}

/// Waits for the stop. Returns how long what is under way may take.
async fn until(mut stopped: watch::Receiver<Option<Duration>>) -> Duration {
    // A dropped sender is a stop too.
    let grace = stopped.wait_for(Option::is_some).await.ok().and_then(|grace| *grace);
    grace.unwrap_or(GRACE)
}

/// Runs the engine to its end, and counts outcomes to the last one.
async fn deliver(engine: impl Future<Output = ()>, attempt_counts: Arc<AttemptCounts>, store: Store) {
    let (ended, has_ended) = oneshot::channel::<()>();
    let counting = tokio::spawn(async move {
        let until_ended = async {
            let _ = has_ended.await;
        };
        attempt_counts.keep_writing(store, until_ended).await;
    });
    engine.await;
    drop(ended);
    let _ = counting.await;
}

async fn flush_key_uses(api: Api) {
    let mut ticks = tokio::time::interval(KEY_USE_INTERVAL);
    loop {
        ticks.tick().await;
        api.flush_key_uses().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use clock::SystemClock;
    use domain::time::Timestamp;

    /// A clock that breaks after some looks.
    struct FragileClock(AtomicU32);

    impl Clock for FragileClock {
        fn now(&self) -> Timestamp {
            assert!(self.0.fetch_add(1, Ordering::SeqCst) < 3, "the clock is broken");
            SystemClock.now()
        }
    }

    #[tokio::test]
    async fn a_server_whose_engine_has_died_ends_with_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("aldaba.db").display());
        let settings = [("ALDABA_DATABASE_URL".to_owned(), url), ("ALDABA_ENVIRONMENT".into(), "development".into())];
        let config = Config::load(Some(std::path::Path::new("/dev/null")), settings, []).expect("settings");
        let app = App::open(config).await.expect("opens");
        let app = App { clock: Arc::new(FragileClock(AtomicU32::new(0))), ..app };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let nudging = app.store.clone();
        let running = tokio::spawn(app.run(listener, std::future::pending()));
        let ended = tokio::time::timeout(Duration::from_secs(60), running).await;
        let ended = ended.expect("it ends by itself").expect("no panic of its own");
        assert!(ended.is_err_and(|error| error.to_string().contains("engine")));
        drop(nudging);
    }
}

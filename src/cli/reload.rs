//! SIGHUP: the settings are read again, and a running server takes over those that may change while it runs.

use tokio::sync::{mpsc, oneshot};

use crate::Reload;
use crate::config::{Change, Config, EffectiveSettings, Reading};
use crate::telemetry;

/// Catches SIGHUP, which would otherwise end the process.
pub(super) struct Hangups {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl Hangups {
    /// The signal is caught from here on.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            signal: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?,
        })
    }

    /// Resolves at the next signal. Signals that come at the same time count as one.
    #[cfg(unix)]
    async fn next(&mut self) -> Option<()> {
        self.signal.recv().await
    }

    #[cfg(not(unix))]
    async fn next(&mut self) -> Option<()> {
        std::future::pending().await
    }
}

/// Reads the settings by `read` at each signal, and hands them to the server that gets what is returned. `running` are
/// the settings with which it starts.
pub(super) fn start(
    hangups: Hangups,
    read: impl Fn() -> Reading + Send + 'static,
    running: EffectiveSettings,
) -> mpsc::Receiver<Reload> {
    let (server, reloads) = mpsc::channel(1);
    tokio::spawn(reload_on(hangups, read, running, server));
    reloads
}

async fn reload_on(
    mut hangups: Hangups,
    read: impl Fn() -> Reading + Send + 'static,
    mut running: EffectiveSettings,
    server: mpsc::Sender<Reload>,
) {
    while hangups.next().await.is_some() {
        let Reading { config, effective, .. } = read();
        let config = match config {
            Ok(config) => config,
            Err(error) => {
                for problem in error.0 {
                    tracing::error!("{}", problem.text);
                }
                tracing::error!("the settings were not reloaded: the earlier settings stay in force");
                continue;
            }
        };
        let changes = running.changes(&effective);
        let log_level = config.log_level;
        match hand_over(&server, config).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::error!(%error, "the settings were not reloaded: the earlier settings stay in force");
                continue;
            }
            None => return,
        }
        running = running.reloaded(&effective);
        // The line is logged by the level that shows more.
        let shows_more = tracing::level_filters::LevelFilter::current() < log_level;
        if shows_more {
            telemetry::set_level(log_level);
        }
        tell(&changes);
        if !shows_more {
            telemetry::set_level(log_level);
        }
    }
}

/// Has the server take the settings over. `None` where the server has ended.
async fn hand_over(server: &mpsc::Sender<Reload>, config: Config) -> Option<Result<(), crate::store::OpenError>> {
    let (done, is_done) = oneshot::channel();
    server.send(Reload { config, done }).await.ok()?;
    is_done.await.ok()
}

/// Logs which settings have changed, with values unless they are secret.
fn tell(changes: &[Change]) {
    let (taken, left): (Vec<_>, Vec<_>) = changes.iter().partition(|change| change.is_reloadable);
    if taken.is_empty() {
        tracing::info!("the settings were read again: no setting has changed that may change while the server runs");
    } else {
        let settings: Vec<String> = taken.into_iter().map(shown).collect();
        tracing::info!(changed = settings.join("; "), "the settings were reloaded");
    }
    if !left.is_empty() {
        let settings: Vec<&str> = left.iter().map(|change| change.name.as_str()).collect();
        tracing::warn!(settings = settings.join(", "), "these settings have changed and need a restart");
    }
}

fn shown(change: &Change) -> String {
    let Change { name, values: (old, new), .. } = change;
    // The old and the new value of a secret are shown as the same mask.
    if old == new { name.clone() } else { format!("{name}: {old} -> {new}") }
}

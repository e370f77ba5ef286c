//! `aldaba serve`.

use super::args::{SettingArgs, bind, print_line};
use super::reload::{self, Hangups};
use super::service_manager;
use crate::App;
use crate::config::Reading;

pub(super) async fn serve(settings: &SettingArgs, listen: Option<String>) -> anyhow::Result<()> {
    let hangups = Hangups::new()?;
    let listen = listen.map(|listen| ("listen", listen));
    let Reading { config, effective, file, .. } = settings.read([], listen.clone());
    let config = config?;
    settings.start_telemetry(&config);
    let listener = bind(&config.listen).await?;
    let again = settings.with_file(file);
    let reloads = reload::start(hangups, move || again.read([], listen.clone()), effective);
    let app = App::open(config).await?.with_reloads(reloads);
    // A signal may come as soon as the line is read.
    let signals = Signals::new()?;
    print_line(format_args!("listening on http://{}", listener.local_addr()?))?;
    service_manager::ready();
    let stop = async {
        signals.first().await;
        service_manager::stopping();
    };
    app.run(listener, stop).await?;
    Ok(())
}

/// SIGTERM and Ctrl-C: the first asks for a stop, the second ends at once.
pub(super) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// Signals are caught from here on.
    pub fn new() -> std::io::Result<Self> {
        #[cfg(unix)]
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            #[cfg(unix)]
            terminate: signal(SignalKind::terminate())?,
            #[cfg(unix)]
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Resolves at the first signal, and from then on waits for the second.
    pub async fn first(mut self) {
        self.next().await;
        tracing::info!("stopping: what is under way may finish; a second signal ends at once");
        tokio::spawn(async move {
            self.next().await;
            std::process::exit(130);
        });
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}

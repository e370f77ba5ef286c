//! What a service manager such as systemd is told, by `sd_notify`. Without `NOTIFY_SOCKET` nothing is told.

/// The database is open, and calls are answered.
pub(super) fn ready() {
    #[cfg(unix)]
    log_failure(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
}

/// A stop has begun.
pub(super) fn stopping() {
    #[cfg(unix)]
    log_failure(sd_notify::notify(&[sd_notify::NotifyState::Stopping]));
}

#[cfg(unix)]
fn log_failure(told: std::io::Result<()>) {
    if let Err(error) = told {
        tracing::warn!(%error, "the service manager could not be told (NOTIFY_SOCKET)");
    }
}

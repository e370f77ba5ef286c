//! Logs: on standard error, for people or for machines.

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Config, LogFormat};

/// Starts logging. A second call in one process changes nothing.
pub fn start(config: &Config) {
    use std::io::IsTerminal as _;
    let registry = tracing_subscriber::registry().with(LevelFilter::from_level(config.log_level));
    let _ = match config.log_format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
            registry.with(layer.with_target(false)).try_init()
        }
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr);
            registry.with(layer.flatten_event(true).with_current_span(true).with_span_list(false)).try_init()
        }
    };
}

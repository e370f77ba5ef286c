//! Logs: on standard error, for people or for machines.

use std::fmt;
use std::sync::OnceLock;

use serde_json::json;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{Format, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

use crate::api::{RequestTrace, current_request};
use crate::config::{Config, LogFormat};

/// Changes the levels while lines are written.
static LEVELS: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Starts logging. A second call in one process changes nothing.
pub fn start(config: &Config) {
    let (filter, handle) = reload::Layer::new(levels(config.log_level));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match config.log_format {
        LogFormat::Text => {
            let format = Format::default().with_target(false).with_ansi(false);
            registry
                .with(layer.with_ansi(false).event_format(WithRequest { line: format, join: for_people }))
                .try_init()
        }
        LogFormat::Json => {
            let format = Format::default().json().flatten_event(true);
            registry
                .with(
                    layer.fmt_fields(JsonFields::new()).event_format(WithRequest { line: format, join: for_machines }),
                )
                .try_init()
        }
    };
    if started.is_ok() {
        let _ = LEVELS.set(handle);
    }
}

/// Changes the least level that is logged.
pub fn set_level(level: tracing::Level) {
    if let Some(handle) = LEVELS.get()
        && let Err(error) = handle.reload(levels(level))
    {
        tracing::warn!(%error, "the log level could not be changed");
    }
}

/// The log levels. The resolver logs each unsolicited packet, so it is logged at debug level only.
fn levels(level: tracing::Level) -> Targets {
    let resolver = if level > tracing::Level::INFO { LevelFilter::from_level(level) } else { LevelFilter::OFF };
    Targets::new().with_default(level).with_target("hickory", resolver)
}

/// A line, and with it the request that it belongs to, if it belongs to one.
struct WithRequest<F> {
    line: F,
    /// The finished line with the request in it.
    join: fn(&str, &RequestTrace) -> String,
}

impl<S, N, F> FormatEvent<S, N> for WithRequest<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(request) = current_request() else {
            return self.line.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.line.format_event(context, Writer::new(&mut line), event)?;
        writeln!(writer, "{}", (self.join)(line.trim_end(), &request))
    }
}

/// For people: at the end.
fn for_people(line: &str, request: &RequestTrace) -> String {
    format!("{line} request_id={} method={} path={}", request.id, request.method, request.path())
}

/// For machines: in `span`.
fn for_machines(line: &str, request: &RequestTrace) -> String {
    let (id, method, path) = (&*request.id, request.method.as_str(), request.path());
    let span = json!({ "request_id": id, "method": method, "path": path, "name": "request" });
    format!("{},\"span\":{span}}}", line.strip_suffix('}').unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::levels;

    #[test]
    fn packets_that_somebody_sends_the_resolver_fill_no_log() {
        let target = "hickory_net::udp::udp_client_stream";
        assert!(!levels(Level::INFO).would_enable(target, &Level::ERROR));
        assert!(levels(Level::DEBUG).would_enable(target, &Level::DEBUG));
        assert!(levels(Level::INFO).would_enable("aldaba::engine", &Level::INFO));
        assert!(!levels(Level::INFO).would_enable("aldaba::engine", &Level::DEBUG));
    }
}

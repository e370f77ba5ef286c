//! Logs: on standard error, for people or for machines.

use std::fmt;

use serde_json::json;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Format, Full, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::api::{Traced, current_request};
use crate::config::{Config, LogFormat};

/// Starts logging. A second call in one process changes nothing.
pub fn start(config: &Config) {
    let registry = tracing_subscriber::registry().with(LevelFilter::from_level(config.log_level));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let _ = match config.log_format {
        LogFormat::Text => {
            let format = Format::default().with_target(false).with_ansi(false);
            registry.with(layer.with_ansi(false).event_format(Text(format))).try_init()
        }
        LogFormat::Json => {
            let format = Format::default().json().flatten_event(true);
            registry.with(layer.fmt_fields(JsonFields::new()).event_format(Machine(format))).try_init()
        }
    };
}

/// A line for people; at its end the request that it belongs to.
struct Text(Format<Full>);

/// A line for machines; in its `span` the request that it belongs to.
struct Machine(Format<Json>);

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(Traced { id, method, uri }) = current_request() else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writeln!(writer, "{} request_id={id} method={method} path={}", line.trim_end(), uri.path())
    }
}

impl<S, N> FormatEvent<S, N> for Machine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(Traced { id, method, uri }) = current_request() else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let span = json!({ "request_id": id, "method": method.as_str(), "path": uri.path(), "name": "request" });
        writeln!(writer, "{},\"span\":{span}}}", line.trim_end().strip_suffix('}').unwrap_or(&line))
    }
}

//! `aldaba hold` and `aldaba resume`: an operator stops all deliveries, and resumes them.

use serde_json::json;

use super::args::Output;
use crate::store::{Holds, Store, StoreError};

/// Puts all deliveries on hold.
pub(super) async fn hold(store: &Store, output: Output) -> anyhow::Result<()> {
    let since = store.hold().await.map_err(|error| match error {
        StoreError::OlderNodes => anyhow::anyhow!(
            "nodes of an older program, which ignore a hold, still deliver; they have been told to stop: try again in \
             some seconds"
        ),
        other => other.into(),
    })?;
    let text =
        format!("deliveries are on hold since {since}: events are accepted, and nothing is sent until `aldaba resume`");
    output.print(&json!({ "on_hold_since": since.to_string() }), &text)
}

/// Resumes deliveries.
pub(super) async fn resume(store: &Store, output: Output) -> anyhow::Result<()> {
    let since = store.resume().await?;
    let text = match since {
        Some(since) => format!("deliveries go on; they were on hold since {since}"),
        None => "deliveries were not on hold".to_owned(),
    };
    output.print(&json!({ "was_on_hold_since": since.map(|at| at.to_string()) }), &text)
}

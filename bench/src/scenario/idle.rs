//! Idle: what a server with 10,000 endpoints costs when nothing happens.

use std::time::Duration;

use super::Plan;
use crate::figure::{Figure, Unit};
use crate::load::EVENT;
use crate::server::{Server, Settings};

/// Measures over this long.
const TIME: Duration = Duration::from_secs(60);

/// Room for the endpoints.
pub const SETTINGS: Settings = &[("WEBHOOKS__MAX_ENDPOINTS", "10000")];

/// Registers the endpoints, waits for peace, and measures.
pub async fn run(server: &Server, plan: Plan, scenario: &'static str) -> anyhow::Result<Vec<Figure>> {
    let tenant = server.tenant().await?;
    for number in 0..if plan.quick { 100 } else { 10_000 } {
        server.endpoint(&tenant, &format!("http://127.0.0.1:9/{number}"), EVENT).await?;
    }
    let time = if plan.quick { Duration::from_secs(1) } else { TIME };
    tokio::time::sleep(time / 6).await;
    let before = server.cpu()?;
    tokio::time::sleep(time).await;
    let used = server.cpu()?.saturating_sub(before);
    Ok(vec![
        Figure::new(scenario, "processor", Unit::Percent, used.as_secs_f64() / time.as_secs_f64() * 100.0),
        Figure::new(scenario, "memory", Unit::MiB, server.memory()?),
    ])
}

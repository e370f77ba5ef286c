//! Export: the longest file that there is, and what it takes of the server's memory.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::Plan;
use crate::figure::{Figure, Unit};
use crate::history::{self, Past};
use crate::http::{Connection, Download, request};
use crate::server::Server;

/// Rows that one file can have.
const ROWS: usize = 100_000;

/// After a start, until the server is idle.
const PEACE: Duration = Duration::from_secs(3);

/// Between two looks at the server's memory.
const LOOK: Duration = Duration::from_millis(5);

/// Measures a file of each format.
pub async fn run(plan: Plan) -> anyhow::Result<Vec<Figure>> {
    let (rows, peace) = if plan.quick { (2_000, PEACE / 10) } else { (ROWS, PEACE) };
    let past = Past { accounts: 1, endpoints: 5, deliveries: rows, varied: true };
    let (mut server, tenants) = history::server(past, &[]).await?;
    let key = &tenants.first().context("an account")?.key;
    let mut figures = Vec::new();
    for format in ["CSV", "XLSX"] {
        // What the other file has left in memory is not what an idle server has.
        server.crash().await?;
        tokio::time::sleep(peace).await;
        let idle = server.memory()?;
        let (file, highest) = read(&server, key, format).await?;
        check(format, &file.body, rows)?;
        let mut show = |name: &str, unit, value| {
            figures.push(Figure::new("export", &format!("{format}: {name}"), unit, value));
        };
        show("memory above idle", Unit::MiB, highest - idle);
        show("first byte", Unit::Millis, file.first.as_secs_f64() * 1_000.0);
        show("whole file", Unit::Seconds, file.whole.as_secs_f64());
    }
    Ok(figures)
}

/// Reads a file. Returns also the most memory that the server had meanwhile, in MiB.
async fn read(server: &Server, key: &str, format: &str) -> anyhow::Result<(Download, f64)> {
    let mut connection = Connection::open(server.address).await?;
    let asked = request("GET", &format!("/v1/webhooks/deliveries/export?format={format}"), key, "")?;
    let mut file = std::pin::pin!(connection.download(&asked));
    let mut highest = server.memory()?;
    loop {
        tokio::select! {
            file = &mut file => return Ok((file?, highest.max(server.memory()?))),
            () = tokio::time::sleep(LOOK) => highest = highest.max(server.memory()?),
        }
    }
}

/// Every row is there. A file that broke off has no end, and was refused before.
fn check(format: &str, file: &[u8], rows: usize) -> anyhow::Result<()> {
    if format == "CSV" {
        // No cell has a line break, and the last line ends with one.
        let lines = file.split(|byte| *byte == b'\n').count() - 1;
        ensure!(lines == rows + 1, "{lines} lines instead of {rows} rows and the names of the columns");
    } else {
        ensure!(file.starts_with(b"PK"), "a workbook is a ZIP archive");
    }
    Ok(())
}

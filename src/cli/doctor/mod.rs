//! `aldaba doctor`: examines what the server depends on, with the settings in force, and says what to do.
//!
//! `finding` is what a check finds; `database`, `machine` and `network` have the checks. A check changes nothing, ends
//! within a deadline of its own, and a panic in it is one more finding.

mod database;
mod finding;
mod machine;
mod network;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};

use super::args::{Output, SettingArgs, print_line};
use super::settings::read_from;
use crate::config::Reading;
use finding::{Context, Finding, Status};

/// How long a check may take: what has not answered by then does not answer.
const DEADLINE: Duration = Duration::from_secs(5);

type Findings = Pin<Box<dyn Future<Output = Vec<Finding>> + Send>>;

/// One check.
struct Check {
    name: &'static str,
    run: fn(Arc<Context>) -> Findings,
    /// What to do if it does not end in time.
    when_late: &'static str,
}

/// Every check, in the order of the output.
const CHECKS: &[Check] = &[
    Check {
        name: "database",
        run: |context| Box::pin(database::check(context)),
        when_late: "look whether the host and the port of database_url are right and a firewall lets them through",
    },
    Check {
        name: "disk",
        run: |context| Box::pin(machine::disk(context)),
        when_late: "the disk of the database does not answer: look at the kernel's log and at the storage",
    },
    Check {
        name: "files",
        run: |context| Box::pin(machine::files(context)),
        when_late: "the disk of the database does not answer: look at the kernel's log and at the storage",
    },
    Check {
        name: "open files",
        run: |context| Box::pin(async move { machine::open_files(&context) }),
        when_late: "run it again",
    },
    Check {
        name: "dns",
        run: |context| Box::pin(network::name_servers(context)),
        when_late: "name other servers in egress.dns_servers",
    },
    Check {
        name: "proxy",
        run: |context| Box::pin(network::proxy(context)),
        when_late: "look whether the host and the port of egress.proxy are right and a firewall lets them through",
    },
    Check {
        name: "source",
        run: |context| Box::pin(async move { network::source_addresses(&context) }),
        when_late: "run it again",
    },
    Check {
        name: "tls",
        run: |context| Box::pin(network::authorities(context)),
        when_late: "look at the files that SSL_CERT_FILE and SSL_CERT_DIR name",
    },
    Check {
        name: "public_url",
        run: |context| Box::pin(async move { network::public_url(&context) }),
        when_late: "run it again",
    },
];

pub(super) async fn doctor(settings: &SettingArgs, name: Option<String>, output: Output) -> anyhow::Result<()> {
    let findings = examine(settings.read([], []), name).await;
    let count = |status| findings.iter().filter(|finding| finding.status == status).count();
    let (problems, warnings) = (count(Status::Problem), count(Status::Warning));
    if output.json {
        let shown: Vec<Value> = findings.iter().map(Finding::json).collect();
        print_line(json!({ "checks": shown, "problems": problems, "warnings": warnings }))?;
    } else {
        for finding in &findings {
            print_line(finding.line())?;
        }
    }
    match problems {
        0 => Ok(()),
        1 => bail!("there is a problem: the server would not start, or not work"),
        count => bail!("there are {count} problems: the server would not start, or not work"),
    }
}

/// Checks the settings, and with valid settings everything else.
async fn examine(reading: Reading, name: Option<String>) -> Vec<Finding> {
    let Reading { config, effective, sources, file } = reading;
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            let advice = "correct it; the other checks need valid settings";
            return error.0.into_iter().map(|problem| Finding::problem("settings", problem.text, advice)).collect();
        }
    };
    let mut findings = vec![Finding::ok("settings", format!("they are valid; {}", read_from(&sources)))];
    let context = Arc::new(Context { config, effective, file, name });
    // All begin at once, so that they take no longer together than the slowest.
    let running: Vec<_> = CHECKS.iter().map(|check| (check, tokio::spawn((check.run)(context.clone())))).collect();
    let ends_at = tokio::time::Instant::now() + DEADLINE;
    for (check, running) in running {
        match tokio::time::timeout_at(ends_at, running).await {
            Ok(Ok(found)) => findings.extend(found),
            Ok(Err(_)) => findings.push(Finding::problem(check.name, "the check has panicked", "please report it")),
            Err(_) => {
                let found = format!("there was no answer within {} s", DEADLINE.as_secs());
                findings.push(Finding::problem(check.name, found, check.when_late));
            }
        }
    }
    findings
}

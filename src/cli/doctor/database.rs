//! The database: whether it can be used, which versions it has, and its time.

use std::sync::Arc;

use super::finding::{Context, Finding};
use crate::clock::{Clock, SystemClock};
use crate::domain::time::Timestamp;
use crate::store::{Database, DatabaseTime, Inspection, Store};

const CHECK: &str = "database";
const CLOCK: &str = "clock";

/// By how much clocks may differ: what synchronised clocks differ by, and the whole seconds in which times are shown.
const MAX_DIFFERENCE_MS: i64 = 1_000;

pub(super) async fn check(context: Arc<Context>) -> Vec<Finding> {
    match Store::inspect(context.config.database.clone(), &SystemClock).await {
        Ok(Some(inspection)) => judged(&inspection, SystemClock.now()),
        Ok(None) => vec![Finding::ok(CHECK, "there is none yet; the first start makes it")],
        Err(error) => {
            let advice = match context.config.database {
                Database::Sqlite(_) => "look whether the file is the right one and this user may read it",
                Database::Postgres(_) => "look whether it runs and the URL in database_url is right",
            };
            vec![Finding::problem(CHECK, error.0, advice)]
        }
    }
}

fn judged(found: &Inspection, now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![versions(found)];
    let refusals = found.refusals.iter();
    findings.extend(refusals.map(|refusal| Finding::problem(CHECK, refusal, "the server would not start")));
    let warnings = found.warnings.iter();
    findings.extend(
        warnings.map(|warning| Finding::warning(CHECK, warning, "change it in the settings of the database server")),
    );
    findings.extend(found.time.map(|time| clock(time, now)));
    findings
}

/// The versions of the database's program and of its tables.
fn versions(found: &Inspection) -> Finding {
    let Inspection { server, version, own_version, .. } = found;
    let tables = match *version {
        0 => "it has no tables yet; the first start makes them".to_owned(),
        version if version == *own_version => format!("its tables have version {version}, as this program"),
        version if version < *own_version => {
            format!("its tables have version {version}; the next start brings them to version {own_version}")
        }
        version => format!("its tables have version {version}, and this program knows version {own_version}"),
    };
    Finding::ok(CHECK, format!("{server}: {tables}"))
}

/// This machine's clock beside the database's time.
fn clock(time: DatabaseTime, now: Timestamp) -> Finding {
    let (ahead_ms, other, agrees, effect) = match time {
        DatabaseTime::Ahead(ahead_ms) => (
            ahead_ms,
            "the database's clock",
            "this machine's clock agrees with the database's",
            "the server goes by the database's time, but the times in its log are wrong",
        ),
        // A row of the past says nothing about the clock. Only a row of the future does.
        DatabaseTime::Newest(newest) => (
            (now.as_millis() - newest.as_millis()).min(0),
            "the newest event or delivery",
            "no event and no delivery is newer than this machine's clock",
            "until it has caught up, new rows get the time of the newest one",
        ),
    };
    if ahead_ms.abs() <= MAX_DIFFERENCE_MS {
        return Finding::ok(CLOCK, agrees);
    }
    let side = if ahead_ms > 0 { "ahead of" } else { "behind" };
    let found = format!("this machine's clock is {} s {side} {other}", ahead_ms.abs() / 1_000);
    Finding::warning(CLOCK, found, format!("synchronise the clock by NTP; {effect}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_wrong_where_it_differs_by_more_than_a_second_and_what_is_old_proves_nothing() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let at = |offset_ms: i64| DatabaseTime::Newest(Timestamp::from_millis(now.as_millis() + offset_ms));
        for (time, found) in [
            (DatabaseTime::Ahead(900), "this machine's clock agrees with the database's"),
            (DatabaseTime::Ahead(61_000), "this machine's clock is 61 s ahead of the database's clock"),
            (DatabaseTime::Ahead(-2_500), "this machine's clock is 2 s behind the database's clock"),
            (at(-86_400_000), "no event and no delivery is newer than this machine's clock"),
            (at(3_600_000), "this machine's clock is 3600 s behind the newest event or delivery"),
        ] {
            let finding = clock(time, now);
            assert_eq!((finding.found.as_str(), finding.advice.is_some()), (found, found.contains(" s ")));
        }
    }
}

//! The migrations, and the steps of each. `migrate` runs them.

/// One migration. Its file has one step or several: a line `-- step` stands between two.
///
/// A step is one transaction. A step that begins with `CREATE INDEX CONCURRENTLY` is that one statement, and runs
/// outside of a transaction. The version is written with the last step. Each step of a migration with several can be
/// run again, because an interrupted migration starts at its first step; an index that was left half built is dropped
/// and built anew.
pub(super) struct Migration {
    pub name: &'static str,
    pub sql: &'static str,
    /// The oldest program that may work on the database from then on; 0 where the migration changes nothing about that.
    pub minimum: i64,
}

/// Twins of SQLite's, of the same names. Forward only; the number in the name is the version.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration { name: "0001_initial", sql: include_str!("../../../migrations/postgres/0001_initial.sql"), minimum: 0 },
    Migration { name: "0002_replay", sql: include_str!("../../../migrations/postgres/0002_replay.sql"), minimum: 0 },
    Migration { name: "0003_log", sql: include_str!("../../../migrations/postgres/0003_log.sql"), minimum: 0 },
    Migration { name: "0004_people", sql: include_str!("../../../migrations/postgres/0004_people.sql"), minimum: 0 },
    Migration { name: "0005_leased", sql: include_str!("../../../migrations/postgres/0005_leased.sql"), minimum: 0 },
    Migration {
        name: "0006_counters",
        sql: include_str!("../../../migrations/postgres/0006_counters.sql"),
        minimum: 0,
    },
    Migration { name: "0007_events", sql: include_str!("../../../migrations/postgres/0007_events.sql"), minimum: 0 },
    Migration { name: "0008_lists", sql: include_str!("../../../migrations/postgres/0008_lists.sql"), minimum: 0 },
    Migration { name: "0009_days", sql: include_str!("../../../migrations/postgres/0009_days.sql"), minimum: 0 },
    Migration { name: "0010_counts", sql: include_str!("../../../migrations/postgres/0010_counts.sql"), minimum: 0 },
    Migration {
        name: "0011_compatible",
        sql: include_str!("../../../migrations/postgres/0011_compatible.sql"),
        minimum: 0,
    },
    Migration {
        name: "0012_id_offsets",
        sql: include_str!("../../../migrations/postgres/0012_id_offsets.sql"),
        minimum: 0,
    },
    Migration {
        name: "0014_memberships",
        sql: include_str!("../../../migrations/postgres/0014_memberships.sql"),
        minimum: 0,
    },
    Migration {
        name: "0015_portal_links",
        sql: include_str!("../../../migrations/postgres/0015_portal_links.sql"),
        minimum: 0,
    },
    Migration {
        name: "0016_settings",
        sql: include_str!("../../../migrations/postgres/0016_settings.sql"),
        minimum: 0,
    },
];

/// Stands between two steps of a migration's file, on a line of its own.
const STEP: &str = "-- step";

/// What a step of a migration is.
#[derive(PartialEq, Debug)]
pub(super) enum Step<'a> {
    Transaction(&'a str),
    /// Builds the index of this name beside writers.
    Index {
        name: &'a str,
        sql: &'a str,
    },
}

impl Migration {
    pub fn version(&self) -> i64 {
        self.name[..4].parse().expect("a migration's name begins with its number")
    }

    pub fn steps(&self) -> Vec<Step<'static>> {
        let mut steps = vec![];
        let mut rest = self.sql;
        while !rest.is_empty() {
            let end = rest.match_indices(STEP).map(|(at, _)| at).find(|at| is_a_line(rest, *at)).unwrap_or(rest.len());
            steps.push(step(&rest[..end]));
            rest = rest.get(end + STEP.len()..).unwrap_or("");
        }
        steps
    }
}

/// Whether the step's mark at this place is a line of its own.
fn is_a_line(text: &str, at: usize) -> bool {
    let after = text[at + STEP.len()..].chars().next();
    (at == 0 || text[..at].ends_with('\n')) && after.is_none_or(|next| next == '\n')
}

pub(super) fn step(sql: &str) -> Step<'_> {
    let statement = sql.lines().find(|line| !line.is_empty() && !line.starts_with("--")).unwrap_or("");
    let index = ["CREATE INDEX CONCURRENTLY ", "CREATE UNIQUE INDEX CONCURRENTLY "]
        .iter()
        .find_map(|begin| statement.strip_prefix(begin));
    match index.and_then(|rest| rest.split_whitespace().next()) {
        Some(name) => Step::Index { name, sql },
        None => Step::Transaction(sql),
    }
}

/// This program's own version.
pub(super) fn newest() -> i64 {
    newest_of(MIGRATIONS)
}

pub(super) fn newest_of(migrations: &[Migration]) -> i64 {
    migrations.last().map_or(0, Migration::version)
}

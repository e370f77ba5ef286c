//! A migration's file has one step or several: a line `-- step` stands between two.
//!
//! A step is one transaction. A step that begins with `CREATE INDEX CONCURRENTLY` is that one statement, and runs
//! outside of a transaction. The version is written with the last step. Each step of a migration with several can be
//! run again, because an interrupted migration starts at its first step; an index that was left half built is dropped
//! and built anew.

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

/// The steps of a migration's file.
pub(super) fn steps(sql: &'static str) -> Vec<Step<'static>> {
    let mut steps = vec![];
    let mut rest = sql;
    while !rest.is_empty() {
        let end = rest.match_indices(STEP).map(|(at, _)| at).find(|at| is_a_line(rest, *at)).unwrap_or(rest.len());
        steps.push(step(&rest[..end]));
        rest = rest.get(end + STEP.len()..).unwrap_or("");
    }
    steps
}

/// Whether the step's mark at this place is a line of its own.
fn is_a_line(text: &str, at: usize) -> bool {
    let after = text[at + STEP.len()..].chars().next();
    (at == 0 || text[..at].ends_with('\n')) && after.is_none_or(|next| next == '\n')
}

fn step(sql: &str) -> Step<'_> {
    let statement = sql.lines().find(|line| !line.is_empty() && !line.starts_with("--")).unwrap_or("");
    let index = ["CREATE INDEX CONCURRENTLY ", "CREATE UNIQUE INDEX CONCURRENTLY "]
        .iter()
        .find_map(|begin| statement.strip_prefix(begin));
    match index.and_then(|rest| rest.split_whitespace().next()) {
        Some(name) => Step::Index { name, sql },
        None => Step::Transaction(sql),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_step_by_step() {
        let sql = "-- What it is for, -- step by step.\nCREATE TABLE a (b int);\n-- step\n-- Of many rows.\n\
                   CREATE INDEX CONCURRENTLY a_b ON a (b);\n-- step\nALTER TABLE a ADD COLUMN c int;\n";
        let steps = steps(sql);
        assert_eq!(steps.len(), 3);
        assert!(matches!(steps[0], Step::Transaction(sql) if sql.contains("step by step") && sql.contains("CREATE")));
        assert!(matches!(steps[1], Step::Index { name: "a_b", sql } if !sql.contains("ALTER")));
        assert!(matches!(steps[2], Step::Transaction(sql) if sql.contains("ALTER")));
    }
}

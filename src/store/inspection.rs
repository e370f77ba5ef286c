//! An inspection of a database, for `aldaba doctor`. It changes nothing, and the database may have any version.

use super::compatible::Versions;
use super::migrations::newest;
use crate::domain::time::Timestamp;

/// The result of an inspection.
#[derive(Debug)]
pub struct Inspection {
    /// The database's program and its version, such as `PostgreSQL 15.8`.
    pub server: String,
    /// The number of the last migration that was run; 0 where there are no tables yet.
    pub version: i64,
    /// The last migration that this program knows.
    pub own_version: i64,
    /// Why this program cannot work on the database, and what to do.
    pub refusals: Vec<String>,
    /// What weakens the promises of the program, and what to do.
    pub warnings: Vec<String>,
    /// The time of the database.
    pub time: Option<DatabaseTime>,
}

/// A time to compare this machine's clock with.
#[derive(Clone, Copy, Debug)]
pub enum DatabaseTime {
    /// PostgreSQL has a clock: this machine's clock is ahead of it by this many milliseconds.
    Ahead(i64),
    /// When the newest event or delivery was made.
    Newest(Timestamp),
}

impl Inspection {
    pub(super) fn new(server: String, versions: Versions) -> Self {
        let refusals = versions.admit(newest()).err().map(|refusal| refusal.0);
        Self {
            server,
            version: versions.version,
            own_version: newest(),
            refusals: refusals.into_iter().collect(),
            warnings: Vec::new(),
            time: None,
        }
    }
}

//! Backups of the embedded store: what is asked for, and what came of it.

use std::path::PathBuf;
use std::time::Duration;

use super::check::Checked;
use crate::domain::time::Timestamp;

/// How fast a database is copied where nobody says otherwise, in MiB a second. Much of a disk is left to the server: a
/// small disk of a cloud reads and writes 125 MiB a second together, and the copy does both.
pub const DEFAULT_RATE_MIB: u32 = 32;

/// A backup that is to be made.
pub struct NewBackup {
    /// Where it is written.
    pub file: PathBuf,
    /// Whether the master key is written beside it.
    pub with_master_key: bool,
    /// MiB a second, at least one.
    pub rate_mib: u32,
    /// Whether it may take the place of files that are there.
    pub replace: bool,
    /// Whether the copy is checked by SQLite.
    pub check: bool,
}

/// A backup that was made.
pub struct BackedUp {
    /// When it was made: what was accepted before that is in it.
    pub at: Timestamp,
    /// Bytes of the file.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
    /// Events that it holds.
    pub events: u64,
    /// When the newest of them was accepted.
    pub newest_event: Option<Timestamp>,
}

/// A backup that is to be put in the place of a database.
#[expect(clippy::struct_excessive_bools, reason = "they are the switches of a command")]
pub struct NewRestore {
    /// The backup.
    pub file: PathBuf,
    /// Whether deliveries are on hold from the first start on.
    pub hold: bool,
    /// Whether a database that is there is put aside.
    pub replace: bool,
    /// Whether it is restored although no master key is there.
    pub without_master_key: bool,
    /// Whether it is restored although the check finds problems.
    pub with_problems: bool,
}

/// A database that was restored.
pub struct Restored {
    /// When the backup was made, where it says so.
    pub made_at: Option<Timestamp>,
    /// What the check of the backup has found.
    pub checked: Checked,
    /// Where the database is that was there.
    pub aside: Option<PathBuf>,
    /// Whether the master key of the backup was put beside the database.
    pub has_master_key_of_backup: bool,
}

//! Backups of the embedded store: the requests for a backup and a restore, and their results.

use std::path::PathBuf;
use std::time::Duration;

use super::check::Checked;
use crate::domain::time::Timestamp;

/// How fast a database is copied by default, in MiB a second. This leaves much of the disk to the server: a small disk
/// of a cloud reads and writes 125 MiB a second together, and the copy does both.
pub const DEFAULT_RATE_MIB: u32 = 32;

/// A backup that is to be made.
pub struct NewBackup {
    /// Where it is written.
    pub file: PathBuf,
    /// Whether the master key is written beside it.
    pub with_master_key: bool,
    /// MiB a second, at least one.
    pub rate_mib: u32,
    /// Whether existing files are replaced.
    pub replace: bool,
    /// Whether the copy is checked by SQLite.
    pub check: bool,
}

/// A backup that was made.
pub struct BackedUp {
    /// When it was made. Every event that was accepted before is in it.
    pub at: Timestamp,
    /// Bytes of the file.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
    /// How many events it contains.
    pub events: u64,
    /// When the newest event was accepted.
    pub newest_event: Option<Timestamp>,
}

/// A backup that is to be put in the place of a database.
#[expect(clippy::struct_excessive_bools, reason = "they are the switches of a command")]
pub struct NewRestore {
    /// The backup.
    pub file: PathBuf,
    /// Whether deliveries are on hold from the first start on.
    pub hold: bool,
    /// Whether an existing database is renamed.
    pub replace: bool,
    /// Whether it is restored although no master key is there.
    pub without_master_key: bool,
    /// Whether it is restored although the check finds problems.
    pub with_problems: bool,
}

/// A database that was restored.
pub struct Restored {
    /// When the backup was made; `None` if something else than `aldaba backup` made it.
    pub made_at: Option<Timestamp>,
    /// What the check of the backup has found.
    pub checked: Checked,
    /// The new name of the database that was there.
    pub aside: Option<PathBuf>,
    /// Whether the master key of the backup was put beside the database.
    pub has_master_key_of_backup: bool,
}

//! The machine: the disk of the database, who may read the files, and how many files may be open.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::finding::{Context, Finding};
use crate::clock::{Random, SystemRandom};
use crate::private_files::{self, Access, access, all_may_read, folder_of, free_bytes};
use crate::server::{max_connections, open_files as limit_of_open_files};
use crate::store::Database;
use crate::store::keys::KeySource;

const DISK: &str = "disk";
const FILES: &str = "files";
const OPEN_FILES: &str = "open files";

/// Below this the disk is full within hours at some events a second: an event with a delivery takes about 1 KiB.
const LITTLE_SPACE: u64 = 1 << 30;

/// Below this the next burst fills the disk: SQLite's log alone keeps 32 MiB.
const NO_SPACE: u64 = 100 << 20;

/// Writes that are measured: the median leaves out a write that was delayed.
const WRITES: usize = 20;

/// Bytes of a write: a page of SQLite.
const WRITE_BYTES: usize = 4_096;

/// No further write begins after this time.
const MEASURED_FOR: Duration = Duration::from_secs(3);

/// A write of a local disk takes less than 10 ms. A commit is one write, and each call that publishes waits for one.
const SLOW_WRITE: Duration = Duration::from_millis(20);

/// Open files other than those of attempts and callers: the database, listeners, look-ups.
const OTHER_FILES: u64 = 512;

/// What a server with many callers and full use of its attempts needs.
const ENOUGH_FILES: u64 = 16_384;

/// Runs work that waits for the disk.
async fn blocking(check: &'static str, work: impl FnOnce() -> Vec<Finding> + Send + 'static) -> Vec<Finding> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| vec![Finding::problem(check, "the check has panicked", "please report it")])
}

/// The space and the speed of the disk that the embedded database is on.
pub(super) async fn disk(context: Arc<Context>) -> Vec<Finding> {
    match context.config.database.clone() {
        Database::Sqlite(path) => blocking(DISK, move || of_folder(folder_of(&path))).await,
        Database::Postgres(_) => {
            vec![Finding::ok(DISK, "the database is on its server's disk, and nothing on this one")]
        }
    }
}

fn of_folder(folder: &Path) -> Vec<Finding> {
    let shown = folder.display();
    let writes = match measured_writes(folder) {
        Ok(writes) => writes,
        Err(error) => {
            let found = format!("nothing can be written to {shown}: {error}");
            let advice = "make the folder of database_url and give it to the user of the server, with mode 0700";
            return vec![Finding::problem(DISK, found, advice)];
        }
    };
    let (ms, count) = (writes.median.as_secs_f64() * 1_000.0, writes.count);
    let speed =
        format!("a write of {WRITE_BYTES} bytes to {shown} is on the disk after {ms:.1} ms (median of {count})");
    let speed = if writes.median > SLOW_WRITE {
        Finding::warning(DISK, speed, "each commit waits for a write: put the database on a local SSD")
    } else {
        Finding::ok(DISK, speed)
    };
    [Some(speed), free_bytes(folder).map(judged_space)].into_iter().flatten().collect()
}

/// Times of writes that wait for the disk.
struct Writes {
    median: Duration,
    count: usize,
}

/// Measures writes to a file of its own, which is removed at the end.
fn measured_writes(folder: &Path) -> io::Result<Writes> {
    let random: &dyn Random = &SystemRandom::default();
    let path = folder.join(format!(".aldaba-doctor-{}", hex::encode(random.array::<8>())));
    let mut file = private_files::options().create_new(true).open(&path)?;
    let _removed = Removed(path);
    let (began, mut times) = (Instant::now(), Vec::with_capacity(WRITES));
    while times.len() < WRITES && (times.is_empty() || began.elapsed() < MEASURED_FOR) {
        let write_began = Instant::now();
        file.write_all(&[0; WRITE_BYTES])?;
        file.sync_data()?;
        times.push(write_began.elapsed());
    }
    times.sort_unstable();
    Ok(Writes { median: times[times.len() / 2], count: times.len() })
}

/// A file that is removed when this is dropped.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn judged_space(bytes: u64) -> Finding {
    let found = format!("{} MiB are free", bytes >> 20);
    let advice = "make room, or shorten retention.deliveries: with a full disk every call that writes is answered 503";
    match bytes {
        ..NO_SPACE => Finding::problem(DISK, found, advice),
        NO_SPACE..LITTLE_SPACE => Finding::warning(DISK, found, advice),
        LITTLE_SPACE.. => Finding::ok(DISK, found),
    }
}

/// Who may read and write the files that contain secrets.
pub(super) async fn files(context: Arc<Context>) -> Vec<Finding> {
    blocking(FILES, move || {
        let mut findings = settings_file(&context);
        if let Database::Sqlite(database) = &context.config.database {
            findings.extend(database_files(database, &context.config.keys));
        }
        if findings.is_empty() {
            findings.push(Finding::ok(FILES, "no other user can get at the files with secrets"));
        }
        findings
    })
    .await
}

fn settings_file(context: &Context) -> Vec<Finding> {
    let Some(file) = &context.file else { return Vec::new() };
    let shown = file.display().to_string();
    // The package gives the file to root and lets the group of the server read it.
    let is_open = context.effective.has_secret_in(&shown) && all_may_read(file).unwrap_or(false);
    let found = || format!("{shown} has a secret and every user can read it");
    let advice = "remove the right of all users by chmod o=";
    if is_open { vec![Finding::warning(FILES, found(), advice)] } else { Vec::new() }
}

fn database_files(database: &Path, keys: &KeySource) -> Vec<Finding> {
    let mut findings = Vec::new();
    let folder = folder_of(database);
    if let Ok(Access { is_ours, others_write, .. }) = access(folder) {
        let shown = folder.display();
        if others_write {
            let found = format!("others can put files into {shown}, the folder of the database");
            findings.push(Finding::warning(FILES, found, "set its mode to 0700"));
        }
        if !is_ours {
            let found = format!("{shown}, the folder of the database, belongs to another user than this one");
            findings.push(Finding::warning(FILES, found, "run commands as the user of the server"));
        }
    }
    let key = if let KeySource::File(path) = keys { Some(path.as_path()) } else { None };
    for file in [Some(database), key].into_iter().flatten() {
        let Ok(Access { is_ours, others_read, others_write }) = access(file) else { continue };
        let shown = file.display();
        if others_read || others_write {
            let advice = "set its mode to 0600; the next start does so where it may";
            findings.push(Finding::warning(FILES, format!("others can get at {shown}"), advice));
        }
        if !is_ours {
            let found = format!("{shown} belongs to another user than this one");
            findings.push(Finding::warning(FILES, found, "run the server and its commands as one user"));
        }
    }
    findings
}

/// Whether attempts, callers and the database have enough descriptors.
pub(super) fn open_files(context: &Context) -> Vec<Finding> {
    vec![judged_limit(limit_of_open_files(), context.config.max_in_flight)]
}

fn judged_limit(files: u64, max_in_flight: usize) -> Finding {
    let callers = max_connections(files);
    let found = format!("{files} files may be open, which leaves {callers} connections for callers");
    let advice = format!(
        "raise the hard limit to {ENOUGH_FILES} or more (LimitNOFILE of a systemd unit, or ulimit -Hn); \
         webhooks.max_in_flight is {max_in_flight}"
    );
    // Each attempt has a connection.
    let needed = (max_in_flight as u64).saturating_add(OTHER_FILES);
    if files < needed {
        Finding::problem(OPEN_FILES, format!("{found}, and {needed} are needed for attempts alone"), advice)
    } else if files < ENOUGH_FILES {
        Finding::warning(OPEN_FILES, found, advice)
    } else {
        Finding::ok(OPEN_FILES, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Status;

    #[test]
    fn little_space_is_a_warning_and_next_to_none_a_problem() {
        for (mib, status) in [(50, Status::Problem), (500, Status::Warning), (5_000, Status::Ok)] {
            assert!(judged_space(mib << 20).status == status, "{mib}");
        }
    }

    #[test]
    fn files_must_be_enough_for_attempts_and_should_be_for_callers() {
        for (files, in_flight, status) in [
            (256, 1_024, Status::Problem),
            (1_535, 1_024, Status::Problem),
            (1_536, 1_024, Status::Warning),
            (16_384, 1_024, Status::Ok),
            (16_384, 16_384, Status::Problem),
            (u64::MAX, 16_384, Status::Ok),
        ] {
            assert!(judged_limit(files, in_flight).status == status, "{files} {in_flight}");
        }
    }

    #[test]
    fn writes_are_measured_in_a_file_that_is_gone_afterwards() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(measured_writes(folder.path()).expect("measured").count > 0);
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}

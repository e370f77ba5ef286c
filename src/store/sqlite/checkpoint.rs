//! Checkpoints: SQLite's write-ahead log moves into the file. Nearly all of it is moved by a thread with a connection
//! of its own, beside the writer; the rest by the writer between two transactions. The next write then begins the log
//! anew.
//!
//! A log that grows costs the disk more than a log that is overwritten: each commit also records the new size.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::connection::KEPT_BYTES;
use crate::store::errors::StoreError;

/// Transactions after which the log is moved. While it is synced, commits wait for the same disk: 6 ms with 100, which
/// is what the 99th percentile of a 202 at half load is made of beside the machine's own stops, and 2.5 ms with 40.
const MOVE_AFTER_TRANSACTIONS: u32 = 40;

/// Bytes of bodies after which the log is moved, however few transactions they came in.
const MOVE_AFTER_BYTES: usize = 8 << 20;

/// An idle log is moved after this long, and cut where it is longer than [`KEPT_BYTES`].
const IDLE: Duration = Duration::from_secs(2);

/// Pages of the log (4 KiB each) from which on it is to begin anew.
const ANEW_PAGES: i64 = 1_024;

/// Pages from which on writers wait for it, where one reader or another has always kept it from beginning anew: it
/// cannot grow without end.
const LIMIT_PAGES: i64 = 8_192;

/// After writers have waited in vain, they are left alone for this long.
const RESTART_RETRY_DELAY: Duration = Duration::from_secs(10);

/// The writer's part.
pub(super) struct Checkpoints {
    wake: SyncSender<()>,
    /// Transactions, and bytes of bodies, since the checkpointer was woken.
    since: u32,
    bytes: usize,
    /// Whether anything was written since the checkpointer last looked.
    written: Arc<AtomicBool>,
    /// Writers do not wait for readers before.
    alone_until: Instant,
    /// Whether the checkpointer has moved all but what was written meanwhile, and leaves the rest to the writer.
    nearly: Arc<AtomicBool>,
}

impl Checkpoints {
    /// Starts the checkpointer.
    pub fn start(path: &Path) -> Result<Self, StoreError> {
        let unavailable = |e: std::io::Error| StoreError::Unavailable(e.to_string());
        let connection = super::connection::checkpointer(path)?;
        let file = ManuallyDrop::new(File::open(path).map_err(unavailable)?);
        let nearly = Arc::<AtomicBool>::default();
        let (wake, woken) = sync_channel(1);
        let written = Arc::<AtomicBool>::default();
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let log = log.into();
        let checkpointer = Checkpointer { connection, file, log, nearly: nearly.clone(), written: written.clone() };
        std::thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || checkpointer.run(&woken))
            .map_err(unavailable)?;
        Ok(Self { wake, since: 0, bytes: 0, written, alone_until: Instant::now(), nearly })
    }

    /// A transaction with so many bytes of bodies was committed on this connection, the only one that writes.
    pub fn wrote(&mut self, connection: &Connection, bytes: usize) {
        self.written.store(true, Ordering::Relaxed);
        if self.nearly.load(Ordering::Acquire) {
            // Nothing is added meanwhile: the log is in the file, and the next transaction begins it anew, unless
            // somebody still reads from it.
            let moved = checkpoint(connection, "PASSIVE");
            if moved.is_some_and(|(log, _)| log >= LIMIT_PAGES) && Instant::now() >= self.alone_until {
                self.wait_for_readers(connection);
            }
            self.nearly.store(false, Ordering::Release);
        }
        self.since += 1;
        self.bytes += bytes;
        if (self.since >= MOVE_AFTER_TRANSACTIONS || self.bytes >= MOVE_AFTER_BYTES) && self.wake.try_send(()).is_ok() {
            (self.since, self.bytes) = (0, 0);
        }
    }

    /// Readers who begin from here on do not need the log any more.
    fn wait_for_readers(&mut self, connection: &Connection) {
        let restarted = connection.busy_timeout(super::connection::CHECKPOINT_TIMEOUT).is_ok()
            && checkpoint(connection, "RESTART").is_some_and(|(log, moved)| log == moved);
        if let Err(error) = connection.busy_timeout(super::connection::BUSY_TIMEOUT) {
            tracing::error!(%error, "the writer's connection could not be set");
        }
        if !restarted {
            self.alone_until = Instant::now() + RESTART_RETRY_DELAY;
        }
    }
}

struct Checkpointer {
    connection: Connection,
    /// The database's file, to sync what was moved before the writer has to wait for it.
    ///
    /// It is never closed: with any handle of a file that a process closes, it loses all its locks on that file
    /// (`fcntl(2)`, "advisory record locking"), those of SQLite's connections too.
    file: ManuallyDrop<File>,
    /// The path of the log.
    log: PathBuf,
    nearly: Arc<AtomicBool>,
    written: Arc<AtomicBool>,
}

impl Checkpointer {
    fn run(self, woken: &Receiver<()>) {
        loop {
            match woken.recv_timeout(IDLE) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => {
                    self.cut_idle_log();
                    if !self.written.swap(false, Ordering::Relaxed) {
                        continue;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.nearly.load(Ordering::Acquire) {
                continue;
            }
            let Some((log, moved)) = checkpoint(&self.connection, "PASSIVE") else { continue };
            if log >= LIMIT_PAGES || log >= ANEW_PAGES && moved == log {
                self.move_the_rest();
                self.nearly.store(true, Ordering::Release);
            }
        }
        checkpoint(&self.connection, "TRUNCATE");
    }

    /// Gives the room of a long log back, where little is written. Where readers are in the way, it is tried again.
    fn cut_idle_log(&self) {
        let bytes = std::fs::metadata(&self.log).map_or(0, |file| file.len());
        if i64::try_from(bytes).is_ok_and(|bytes| bytes > KEPT_BYTES) {
            checkpoint(&self.connection, "TRUNCATE");
        }
    }

    /// Syncs what was moved, so that the writer has little to wait for, and moves what came meanwhile.
    fn move_the_rest(&self) {
        if let Err(error) = self.file.sync_data() {
            tracing::warn!(%error, "the database file could not be synced");
        }
        checkpoint(&self.connection, "PASSIVE");
    }
}

/// The pages that the log had, and those of them that are in the file now. None where somebody else is at it.
fn checkpoint(connection: &Connection, mode: &str) -> Option<(i64, i64)> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let (busy, log, moved): (bool, i64, i64) = connection
        .query_row(&sql, [], |row| row.try_into())
        .inspect_err(|error| tracing::warn!(%error, "the log could not be moved into the database file"))
        .ok()?;
    (!busy).then_some((log, moved))
}

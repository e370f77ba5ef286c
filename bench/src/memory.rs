//! The machine's memory, as it is where a server has run for long: what programs do not use is full of pages of files.
//!
//! A virtual machine may have given its host what is free, and get it back page by page when it is written to, which
//! takes microseconds each time. A file that only grows pays for that, and one that takes the place of a deleted one
//! does not.

use std::fs::File;
use std::io::Read as _;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;

/// Less than this is always free.
const LITTLE: u64 = 256 << 20;

/// A file of holes. The system keeps in memory what was read of it until somebody needs the place; closed, it would all
/// be free again.
static HOLES: Mutex<Option<File>> = Mutex::new(None);

/// Fills what is free, where the system tells how much that is (Linux: `proc_meminfo(5)`).
pub fn fill() -> anyhow::Result<()> {
    let Ok(meminfo) = std::fs::read_to_string("/proc/meminfo") else { return Ok(()) };
    let free = meminfo.lines().find_map(|line| line.strip_prefix("MemFree:")).context("MemFree")?;
    let free = free.trim().trim_end_matches("kB").trim().parse::<u64>()? << 10;
    if free < LITTLE {
        return Ok(());
    }
    let mut holes = HOLES.lock().unwrap_or_else(PoisonError::into_inner);
    let file = match &mut *holes {
        Some(file) => file,
        // On the disk that holds the build, as the databases are.
        none => none.insert(tempfile::tempfile_in(std::env::current_exe()?.parent().context("a folder")?)?),
    };
    file.set_len(file.metadata()?.len() + free)?;
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

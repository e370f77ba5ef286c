//! How many files and connections may be open.

/// More than any server here needs; the kernel's table for so many takes half a megabyte.
#[cfg(unix)]
const MAX_FILES: u64 = 65_536;

/// Lets this process open as many files as the system allows it, and makes room for them at once.
///
/// A system's first limit is often 1,024 (`RLIMIT_NOFILE`, `getrlimit(2)`), although more is allowed to who asks. And
/// where a process has several threads, Linux holds up whoever opens a file for ten milliseconds and more each time its
/// table of them has to grow, at 256, 512, 1,024 and so on; so it grows before there are threads.
#[cfg(unix)]
pub(super) fn make_room() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(MAX_FILES, |maximum| maximum.min(MAX_FILES));
    let mut allowed = limit.current.unwrap_or(MAX_FILES).min(MAX_FILES);
    if allowed < wanted && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).is_ok() {
        allowed = wanted;
    }
    if let Ok(last) = i32::try_from(allowed.saturating_sub(1)) {
        // The table stays as large as this copy made it. Without it the server runs as well, but for the waits.
        let _ = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), last);
    }
}

#[cfg(not(unix))]
pub(super) fn make_room() {}

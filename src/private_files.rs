//! Files that only their owner may read and write (0600), folders that only their owner may enter (0700), and the room
//! that their disk has.
//!
//! Modes are set by path: a process that closes any handle of an SQLite file loses its locks on that file. Where the
//! system has no modes, nothing is done.

#[cfg(unix)]
use std::fs::TryLockError;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// What group and others may do.
#[cfg(unix)]
const OTHERS: u32 = 0o077;

/// That group and others may read.
#[cfg(unix)]
const OTHERS_READ: u32 = 0o044;

/// That every user may read.
#[cfg(unix)]
const ALL_READ: u32 = 0o004;

/// That group and others may write.
#[cfg(unix)]
const OTHERS_WRITE: u32 = 0o022;

/// Makes the file where it is missing, and takes the rights of group and others away where it has some. Where that is
/// not allowed, a warning says so.
pub fn make_private(path: &Path) -> io::Result<()> {
    match options().create_new(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            close_to_others(path);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// How a file that is private is opened to be written; one that is made has the mode 0600.
pub fn options() -> OpenOptions {
    let mut options = File::options();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Puts a file that is private in the place of whatever has its name. A link that somebody has put there is replaced,
/// and not followed.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let partial = beside(path, ".new");
    match std::fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    options().create_new(true).open(&partial)?.write_all(content)?;
    std::fs::rename(&partial, path)
}

/// A file that is written beside its place and renamed when it is whole. If this is dropped before, it removes the
/// file.
pub struct Partial {
    file: File,
    path: PathBuf,
    place: PathBuf,
    is_whole: bool,
}

impl Partial {
    /// Begins a file for this place. What an interrupted process has left is removed. While another process writes a
    /// file for the place, it is an error.
    pub fn begin(place: &Path) -> io::Result<Self> {
        let path = beside(place, ".new");
        let mut made = options().create_new(true).open(&path);
        if made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            // A process that writes it has its lock. A link or a pipe that is there is removed, and not opened.
            if path.symlink_metadata()?.is_file() {
                lock(&options().open(&path)?)?;
            }
            std::fs::remove_file(&path)?;
            made = options().create_new(true).open(&path);
        }
        let file = made?;
        lock(&file)?;
        Ok(Self { file, path, place: place.to_owned(), is_whole: false })
    }

    /// Where it is written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file, to be written by this process.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Waits until the disk has the file: the rename needs no more space.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Renames the file to its place, over a file that is there. The result outlasts a loss of power.
    pub fn finish(mut self) -> io::Result<()> {
        self.sync()?;
        if !self.is_there()? {
            let path = self.path.display();
            return Err(io::Error::other(format!("another process has replaced {path}")));
        }
        std::fs::rename(&self.path, &self.place)?;
        self.is_whole = true;
        sync_folder(&self.place)
    }

    /// Whether the file has its name still: whoever may write to the folder can give the name to another one.
    #[cfg(unix)]
    fn is_there(&self) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt as _;

        let (ours, found) = (self.file.metadata()?, self.path.symlink_metadata()?);
        Ok((ours.dev(), ours.ino()) == (found.dev(), found.ino()))
    }

    /// Where the system tells no files apart, it has.
    #[cfg(not(unix))]
    fn is_there(&self) -> io::Result<bool> {
        Ok(true)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_whole && self.is_there().unwrap_or(false) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Takes the lock of a file that only one process may write. A file system without locks, such as that of a network, is
/// no reason not to write.
#[cfg(unix)]
fn lock(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::new(io::ErrorKind::WouldBlock, "another process is writing it"))
        }
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Takes no lock: here it would keep this process's own handles out as well.
#[cfg(not(unix))]
fn lock(_: &File) -> io::Result<()> {
    Ok(())
}

/// The path of a file that stands beside another and has its name with this ending.
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The folder of a file.
pub fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What was renamed or removed in the folder of `file` stays so after a loss of power.
pub fn sync_folder(file: &Path) -> io::Result<()> {
    File::open(folder_of(file))?.sync_all()
}

/// Takes the rights of group and others on a file away. What is not there needs nothing.
#[cfg(unix)]
pub fn close_to_others(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;

    let Ok(found) = std::fs::metadata(path) else { return };
    let mode = found.permissions().mode();
    if !found.is_file() || mode & OTHERS == 0 {
        return;
    }
    let file = path.display();
    match std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o600)) {
        Ok(()) => tracing::debug!(%file, "other users could open this file: its mode is 0600 now"),
        Err(error) => {
            tracing::warn!(%file, %error, "other users can open this file and its mode cannot be set: make it 0600");
        }
    }
}

/// Takes the rights of group and others on a file away.
#[cfg(not(unix))]
pub fn close_to_others(_: &Path) {}

/// Who may read and write a file or a folder.
pub struct Access {
    /// Whether it belongs to the user of this process.
    pub is_ours: bool,
    /// Whether others may read it.
    pub others_read: bool,
    /// Whether others may write to it.
    pub others_write: bool,
}

/// Reads who may read and write a file or a folder.
#[cfg(unix)]
pub fn access(path: &Path) -> io::Result<Access> {
    use std::os::unix::fs::MetadataExt as _;

    let found = std::fs::metadata(path)?;
    let is_ours = found.uid() == rustix::process::geteuid().as_raw();
    Ok(Access { is_ours, others_read: found.mode() & OTHERS_READ != 0, others_write: found.mode() & OTHERS_WRITE != 0 })
}

/// Where the system has no modes, everything is ours.
#[cfg(not(unix))]
pub fn access(path: &Path) -> io::Result<Access> {
    std::fs::metadata(path).map(|_| Access { is_ours: true, others_read: false, others_write: false })
}

/// Bytes that this user may still write in a folder; `None` where the system does not tell.
#[cfg(unix)]
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    // Some file systems of networks tell of no blocks at all.
    (found.f_blocks > 0).then(|| found.f_bavail.saturating_mul(found.f_frsize))
}

/// Nothing is known where the system has other calls.
#[cfg(not(unix))]
pub fn free_bytes(_: &Path) -> Option<u64> {
    None
}

/// Whether two folders are on one disk.
#[cfg(unix)]
pub fn are_on_one_disk(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    let disk = |folder: &Path| std::fs::metadata(folder).ok().map(|found| found.dev());
    disk(one).is_some_and(|found| Some(found) == disk(other))
}

/// Nothing is known where the system has other calls.
#[cfg(not(unix))]
pub fn are_on_one_disk(_: &Path, _: &Path) -> bool {
    false
}

/// Whether every user of the machine may read a file. Which group may is left to its owner.
#[cfg(unix)]
pub fn all_may_read(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;

    Ok(std::fs::metadata(path)?.mode() & ALL_READ != 0)
}

/// Where the system has no modes, not every user may.
#[cfg(not(unix))]
pub fn all_may_read(path: &Path) -> io::Result<bool> {
    std::fs::metadata(path).map(|_| false)
}

/// Makes a folder of our own, where it is missing.
pub fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Whether a folder is ours, and nobody else can put files into it or replace ours.
pub fn is_ours_alone(folder: &Path) -> io::Result<bool> {
    let found = access(folder)?;
    Ok(found.is_ours && !found.others_write)
}

/// Says in the log where others could put files of theirs into the folder of `file`, or remove ours.
pub fn warn_of_open_folder(file: &Path) {
    let folder = folder_of(file);
    if access(folder).is_ok_and(|found| found.others_write) {
        let folder = folder.display();
        tracing::warn!(%folder, "other users can write to the folder of the database: set its mode to 0700");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_its_place_when_it_is_whole_and_what_was_interrupted_is_in_nobodys_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("a");
        std::fs::write(&place, "before").expect("written");
        let first = Partial::begin(&place).expect("begun");
        #[cfg(unix)]
        assert!(Partial::begin(&place).is_err_and(|error| error.to_string().contains("another process")));
        drop(first);
        assert!(!beside(&place, ".new").exists(), "what is given up is removed");
        std::fs::write(beside(&place, ".new"), "left by a crash").expect("written");
        let second = Partial::begin(&place).expect("begun");
        second.file().write_all(b"after").expect("written");
        assert_eq!(std::fs::read_to_string(&place).expect("a file"), "before");
        second.finish().expect("finished");
        assert_eq!(std::fs::read_to_string(&place).expect("a file"), "after");
        assert!(!beside(&place, ".new").exists());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_others_put_in_the_place_of_a_file_is_neither_opened_nor_taken_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (place, other) = (folder.path().join("a"), folder.path().join("other"));
        let partial = beside(&place, ".new");
        std::fs::write(&other, "of somebody else").expect("written");
        std::os::unix::fs::symlink(&other, &partial).expect("linked");
        let first = Partial::begin(&place).expect("begun");
        first.file().write_all(b"ours").expect("written");
        std::fs::rename(&other, &partial).expect("replaced");
        let refused = first.finish().expect_err("refused").to_string();
        assert!(refused.contains("another process has replaced"), "{refused}");
        assert_eq!(std::fs::read_to_string(&partial).expect("it stays"), "of somebody else");
        assert!(!place.exists());
        std::fs::remove_file(&partial).expect("removed");
        // To open a pipe would wait for a reader.
        rustix::fs::mkfifoat(rustix::fs::CWD, &partial, rustix::fs::Mode::RUSR).expect("a pipe");
        Partial::begin(&place).expect("begun").finish().expect("finished");
        assert!(place.metadata().expect("a file").is_file());
    }
}

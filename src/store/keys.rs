//! Where the master keys come from: the settings, or a file beside the database that only its owner can read.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use zeroize::Zeroizing;

use super::errors::OpenError;
use crate::clock::Random;
use crate::domain::secret::Keyring;
use crate::private_files::{self, Partial};

/// A 32-byte master key that wipes itself.
pub type MasterKeyBytes = Zeroizing<[u8; 32]>;

/// How often this process has written a key file: each writing has a file of its own until it replaces the key file.
static WRITTEN: AtomicU32 = AtomicU32::new(0);

/// Where the master keys come from.
#[derive(Clone, PartialEq)]
pub enum KeySource {
    /// `secrets.master_key` and `secrets.previous_master_keys`.
    Given {
        /// Seals and opens.
        current: MasterKeyBytes,
        /// Open only.
        previous: Vec<MasterKeyBytes>,
    },
    /// One key a line, the current one first, each 64 hex characters.
    File(PathBuf),
}

impl KeySource {
    /// The file beside an SQLite database.
    pub fn file_of(database: &Path) -> Self {
        Self::File(private_files::beside(database, ".master-key"))
    }

    /// These keys with the previous ones of `new`. The key that seals stays the same, and so does a file.
    #[must_use]
    pub fn with_previous_of(&self, new: &Self) -> Self {
        match (self, new) {
            (Self::Given { current, .. }, Self::Given { previous, .. }) => {
                Self::Given { current: current.clone(), previous: previous.clone() }
            }
            _ => self.clone(),
        }
    }

    /// Whether there are keys already.
    pub fn exists(&self) -> bool {
        self.path().is_none_or(|path| path.exists())
    }

    /// Reads the keys; a file that is not there yet is made with a new key and mode 0600.
    pub fn load(&self, random: &dyn Random) -> Result<Keyring, OpenError> {
        if !self.exists() {
            self.write(&[Zeroizing::new(random.array())], first)?;
        }
        self.read_keyring()
    }

    /// Reads the keys, and makes none: `None` where there is no file.
    pub fn find(&self) -> Result<Option<Keyring>, OpenError> {
        if self.exists() { self.read_keyring().map(Some) } else { Ok(None) }
    }

    fn read_keyring(&self) -> Result<Keyring, OpenError> {
        match self {
            Self::Given { current, previous } => {
                let previous: Vec<[u8; 32]> = previous.iter().map(|key| **key).collect();
                Ok(Keyring::new(current, &previous))
            }
            Self::File(path) => {
                private_files::close_to_others(path);
                let keys = self.read_file()?;
                let previous: Vec<[u8; 32]> = keys[1..].iter().map(|key| **key).collect();
                Ok(Keyring::new(&keys[0], &previous))
            }
        }
    }

    /// Writes these keys into the file, in place of the earlier keys.
    pub fn write_file(&self, keys: &[MasterKeyBytes]) -> Result<(), OpenError> {
        self.write(keys, |partial, path| std::fs::rename(partial, path))
    }

    /// Puts a new key before those in the file, or keeps only the first: the two ends of a rekey.
    pub fn rotate_file(&self, new: Option<MasterKeyBytes>) -> Result<(), OpenError> {
        if matches!(self, Self::Given { .. }) {
            return Ok(());
        }
        let mut keys = self.read_file()?;
        match new {
            Some(key) => keys.insert(0, key),
            None => keys.truncate(1),
        }
        self.write_file(&keys)
    }

    /// The file, where the settings give no keys.
    pub fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::File(path) => Some(path),
            Self::Given { .. } => None,
        }
    }

    /// The keys of the file, the current one first; none where the settings give them.
    pub fn read_file(&self) -> Result<Vec<MasterKeyBytes>, OpenError> {
        let Some(path) = self.path() else { return Ok(vec![]) };
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map(Zeroizing::new)
            .map_err(|e| OpenError(format!("cannot read the master key file {shown}: {e}")))?;
        let keys: Option<Vec<_>> = text.lines().map(parse_master_key).collect();
        keys.filter(|keys| !keys.is_empty()).ok_or_else(|| {
            OpenError(format!("the master key file {shown} is damaged: each line must be 64 hex characters"))
        })
    }

    /// Writes these keys beside the file, from where [`Partial::finish`] puts them in its place without any more space.
    /// `None` where the settings give the keys.
    pub(super) fn write_beside(&self, keys: &[MasterKeyBytes]) -> Result<Option<Partial>, OpenError> {
        let Some(path) = self.path() else { return Ok(None) };
        let written = (|| {
            let partial = Partial::begin(path)?;
            partial.file().write_all(lines(keys).as_bytes())?;
            partial.sync()?;
            Ok::<_, std::io::Error>(Some(partial))
        })();
        written.map_err(|error| cannot_write(path, &error))
    }

    /// Writes beside and puts into place, so that a crash leaves the old file or the new one.
    fn write(
        &self,
        keys: &[MasterKeyBytes],
        put: impl Fn(&Path, &Path) -> std::io::Result<()>,
    ) -> Result<(), OpenError> {
        let Some(path) = self.path() else { return Ok(()) };
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let partial = path.with_extension(format!("master-key.{}-{number}", std::process::id()));
        let written = (|| {
            // One that a crash has left; or one that somebody else has put there, to read the key.
            match std::fs::remove_file(&partial) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = private_files::options().create_new(true).open(&partial)?;
            file.write_all(lines(keys).as_bytes())?;
            file.sync_all()?;
            put(&partial, path)?;
            private_files::sync_folder(path)
        })();
        written.map_err(|error| cannot_write(path, &error))
    }
}

/// The content of a file with these keys.
fn lines(keys: &[MasterKeyBytes]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::new());
    for key in keys {
        text.push_str(&Zeroizing::new(hex::encode(**key)));
        text.push('\n');
    }
    text
}

fn cannot_write(path: &Path, error: &std::io::Error) -> OpenError {
    OpenError(format!("cannot write the master key file {}: {error}", path.display()))
}

/// Puts the first key into place, unless another process was faster: its key is the one that counts.
fn first(partial: &Path, path: &Path) -> std::io::Result<()> {
    let linked = std::fs::hard_link(partial, path);
    std::fs::remove_file(partial)?;
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Reads 64 hex characters.
pub fn parse_master_key(text: &str) -> Option<MasterKeyBytes> {
    let mut key = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim(), &mut *key).ok()?;
    Some(key)
}

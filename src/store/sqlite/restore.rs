//! Puts a backup in the place of a database, while no server runs on it.

use std::fmt::Display;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::backup::{COMPANIONS, begin_copy, is_there, place_of, take_time};
use super::connection::writer_connection;
use super::{check, hold_row, peer};
use crate::domain::time::Timestamp;
use crate::private_files::beside;
use crate::store::backup::{NewRestore, Restored};
use crate::store::check::Checked;
use crate::store::errors::OpenError;
use crate::store::keys::KeySource;

/// Restores `database`, whose master keys are `keys`. If it fails, an earlier database is there still, under its own or
/// its new name.
pub fn restore(database: &Path, keys: &KeySource, new: &NewRestore, now: Timestamp) -> Result<Restored, OpenError> {
    check_places(database, new)?;
    let failed =
        |error: &dyn Display| OpenError(format!("cannot restore the database {}: {error}", database.display()));
    // With this lock no server can start.
    let lock = peer::take_lock(database)?;
    if is_there(database) && !new.replace {
        let shown = database.display();
        return Err(OpenError(format!("the database {shown} is there already: add --force to put it aside")));
    }
    let partial = begin_copy(database).map_err(|error| failed(&error))?;
    let copied = File::open(&new.file).and_then(|mut from| std::io::copy(&mut from, &mut partial.file()));
    copied.map_err(|error| failed(&error))?;
    let of_backup = KeySource::file_of(&new.file);
    let has_master_key_of_backup = keys.path().is_some() && of_backup.exists();
    let keyring = if has_master_key_of_backup { of_backup.find()? } else { keys.find()? };
    let db = check::open(partial.path(), &new.file)?;
    let checked = check::check_open(&db, keyring.as_ref(), now)?;
    db.close().map_err(|(_, error)| failed(&error))?;
    check_findings(&checked, keyring.is_some(), keys, new)?;
    let db = writer_connection(partial.path()).map_err(|error| failed(&error))?;
    let made_at = take_time(&db).map_err(|error| failed(&error))?;
    if new.hold {
        hold_row::begin(&db, now).map_err(|error| failed(&error))?;
    }
    // The last connection takes the log into the file.
    db.close().map_err(|(_, error)| failed(&error))?;
    let aside = put_aside(database, now).map_err(|error| failed(&error))?;
    if has_master_key_of_backup {
        put_master_key(keys, &of_backup, &aside)?;
    }
    let had_database = is_there(&aside);
    partial.finish().map_err(|error| failed(&error))?;
    // The generation in the lock file is that of the earlier database.
    lock.set_len(0).map_err(|error| failed(&error))?;
    Ok(Restored { made_at, checked, aside: had_database.then_some(aside), has_master_key_of_backup })
}

/// Refuses a file that is not a whole backup.
fn check_places(database: &Path, new: &NewRestore) -> Result<(), OpenError> {
    let shown = new.file.display();
    if !new.file.is_file() {
        return Err(OpenError(format!("there is no backup {shown}")));
    }
    if place_of(&new.file) == place_of(database) {
        return Err(OpenError(format!("{shown} is the database itself: name a backup of it")));
    }
    let log = beside(&new.file, "-wal");
    if log.metadata().is_ok_and(|log| log.len() > 0) {
        let log = log.display();
        return Err(OpenError(format!(
            "{shown} is a database that is in use, or was not closed, and no backup: a part of it is in {log}"
        )));
    }
    Ok(())
}

/// Refuses a backup with problems, or without its master key, unless that is what is wanted.
fn check_findings(checked: &Checked, has_keys: bool, keys: &KeySource, new: &NewRestore) -> Result<(), OpenError> {
    if !checked.is_sound() && !new.with_problems {
        let problems: Vec<String> = checked.problems.iter().map(|problem| format!("\n  {problem}")).collect();
        return Err(OpenError(format!(
            "the backup has problems; add --with-problems to restore it all the same:{}",
            problems.concat()
        )));
    }
    let is_sealed = checked.seals.total > 0 || checked.left_out.is_some();
    if is_sealed && !has_keys && !new.without_master_key {
        let beside_backup = beside(&new.file, ".master-key");
        let own = keys.path().map_or_else(String::new, |path| format!(", {}", path.display()));
        return Err(OpenError(format!(
            "there is no master key, without which the server does not start: put it into {}{own} or the setting \
             secrets.master_key. With --without-master-key the database is restored, and the key comes later",
            beside_backup.display()
        )));
    }
    Ok(())
}

/// Renames the files in the place of the database, and returns the new name. SQLite would read a log that stays there
/// as a part of the restored database.
fn put_aside(database: &Path, now: Timestamp) -> std::io::Result<PathBuf> {
    let stamp: String = now.to_string().chars().filter(char::is_ascii_alphanumeric).collect();
    let aside = beside(database, &format!(".before-restore-{stamp}"));
    if is_there(&aside) {
        return Err(std::io::Error::other(format!("{} is there already: try again", aside.display())));
    }
    for ending in COMPANIONS.iter().chain(&[""]) {
        let (from, to) = (beside(database, ending), beside(&aside, ending));
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

/// Puts the master key of the backup in its place. Another key that is there gets a new name.
fn put_master_key(keys: &KeySource, of_backup: &KeySource, aside: &Path) -> Result<(), OpenError> {
    let master_keys = of_backup.read_file()?;
    if keys.exists() && keys.read_file().is_ok_and(|own| own == master_keys) {
        return Ok(());
    }
    if let Some(path) = keys.path().filter(|path| is_there(path)) {
        let to = beside(aside, ".master-key");
        let shown = path.display();
        std::fs::rename(path, to)
            .map_err(|error| OpenError(format!("cannot put the master key {shown} aside: {error}")))?;
    }
    keys.write_file(&master_keys)
}

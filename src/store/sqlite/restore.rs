//! Puts a backup in the place of a database, while no server runs on it.

use std::fmt::Display;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::backup::{COMPANIONS, begin_copy, is_there, place_of, take_time};
use super::connection::writer_connection;
use super::{check, hold_row, peer};
use crate::domain::time::Timestamp;
use crate::private_files::{Partial, beside};
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
    // What needs space comes before the database gets another name: on a full disk everything stays where it was.
    let master_keys = if has_master_key_of_backup { new_master_keys(keys, &of_backup)? } else { None };
    partial.sync().map_err(|error| failed(&error))?;
    let aside = put_aside(database, now).map_err(|error| failed(&error))?;
    let had_database = is_there(&aside);
    let put = put_master_keys(keys, master_keys, &aside).and_then(|()| partial.finish());
    put.map_err(|error| {
        let stays =
            if had_database { format!(". The database that was there is {}", aside.display()) } else { String::new() };
        failed(&format!("{error}{stays}"))
    })?;
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
        let other_key = if checked.seals.of_other_keys > 0 { other_key_advice(keys, new) } else { String::new() };
        return Err(OpenError(format!(
            "the backup has problems; add --with-problems to restore it all the same:{}{other_key}",
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

/// What to do where the master key that is here is not that of the backup.
fn other_key_advice(keys: &KeySource, new: &NewRestore) -> String {
    let place = match keys.path() {
        Some(_) => beside(&new.file, ".master-key").display().to_string(),
        None => "the setting secrets.master_key".to_owned(),
    };
    format!(
        "\nThe master key that is here is another one, with which the server would not start: put the right one into \
         {place}"
    )
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

/// Writes the master keys of the backup beside the file of those that are there. `None` if these are the same.
fn new_master_keys(keys: &KeySource, of_backup: &KeySource) -> Result<Option<Partial>, OpenError> {
    let master_keys = of_backup.read_file()?;
    if keys.exists() && keys.read_file().is_ok_and(|own| own == master_keys) {
        return Ok(None);
    }
    keys.write_beside(&master_keys)
}

/// Renames them to their place. Another key that is there gets a new name.
fn put_master_keys(keys: &KeySource, new: Option<Partial>, aside: &Path) -> std::io::Result<()> {
    let Some(new) = new else { return Ok(()) };
    if let Some(path) = keys.path().filter(|path| is_there(path)) {
        std::fs::rename(path, beside(aside, ".master-key"))?;
    }
    new.finish()
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::clock::SystemClock;
    use crate::store::sqlite::migrate::migrate;

    /// A database with an event type of this name.
    fn database(path: &Path, name: &str) {
        let mut db = writer_connection(path).expect("opens");
        migrate(&mut db, &SystemClock).expect("migrated");
        db.execute("UPDATE event_types SET name = ?1 WHERE name = (SELECT MIN(name) FROM event_types)", [name])
            .expect("named");
        db.close().expect("closed");
    }

    #[test]
    fn what_is_there_stays_in_its_place_where_the_master_key_cannot_be_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, file) = (folder.path().join("a.db"), folder.path().join("backup.db"));
        database(&path, "of.now");
        database(&file, "of.the.backup");
        KeySource::file_of(&file).write_file(&[Zeroizing::new([7; 32])]).expect("written");
        let new = NewRestore { file, hold: false, replace: true, without_master_key: false, with_problems: false };
        let restored = |keys: &KeySource| restore(&path, keys, &new, Timestamp::from_millis(1_800_000_000_000));
        let refused = restored(&KeySource::File(folder.path().join("missing/key"))).err().expect("refused");
        assert!(refused.0.contains("cannot write the master key file"), "{}", refused.0);
        let has = |path: &Path, name: &str| {
            let db = writer_connection(path).expect("opens");
            db.prepare("SELECT 1 FROM event_types WHERE name = ?1").expect("prepared").exists([name]).expect("read")
        };
        assert!(has(&path, "of.now"));
        let names = || std::fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("one").file_name());
        let left =
            names().filter(|name| name.to_string_lossy().contains("before") || name.to_string_lossy().contains("new"));
        assert_eq!(left.count(), 0);
        let done = restored(&KeySource::file_of(&path)).expect("restored");
        assert!(has(&path, "of.the.backup") && has(&done.aside.expect("it is aside"), "of.now"));
        let keys = KeySource::file_of(&path).read_file().expect("keys");
        assert!(keys == [Zeroizing::new([7u8; 32])]);
    }
}

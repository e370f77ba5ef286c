//! Files beside the database belong to the server's user alone, whatever the umask says.
#![cfg(unix)]

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::json;

use crate::app::{App, EVENT};
use crate::command_line::{aldaba, printed};
use crate::crash::Server;
use crate::database;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("changed");
}

/// The files that a running server has beside its database.
const FILES: [&str; 5] = ["aldaba.db", "aldaba.db-wal", "aldaba.db-shm", "aldaba.db.lock", "aldaba.db.master-key"];

#[track_caller]
fn assert_private(folder: &Path) {
    for file in FILES {
        assert_eq!(format!("{:o}", mode(&folder.join(file))), "600", "{file}");
    }
}

/// A command under a umask that takes no right away.
fn with_open_umask(folder: &Path, args: &[&str]) -> Output {
    let program = aldaba(folder, args);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "umask 000; exec \"$0\" \"$@\""]).arg(program.get_program()).args(program.get_args());
    command.current_dir(folder).stdin(Stdio::null()).output().expect("it runs")
}

#[tokio::test]
async fn nobody_else_can_open_the_files_of_a_new_database() {
    if database::is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    assert!(with_open_umask(folder.path(), &["migrate"]).status.success());
    let server = Server::start(folder.path(), &[]);
    assert_private(folder.path());
    assert!(server.terminate().success());
}

#[tokio::test]
async fn files_of_an_older_version_are_closed_to_others_at_the_next_start() {
    if database::is_postgres() {
        return;
    }
    let folder = App::start().await.stop().await;
    for file in FILES {
        // What SQLite removes when it closes a database may be there after a crash.
        let path = folder.path().join(file);
        if !path.exists() {
            std::fs::write(&path, "").expect("written");
        }
        set_mode(&path, 0o666);
    }
    let app = App::again(folder).await;
    assert_private(app.folder());
    // The server still has its locks: nobody else becomes the server, and what is written is there.
    let key = printed(app.folder(), &["keys", "create", "--account", &app.account.to_string()]);
    let event = json!({ "event": EVENT, "data": {} });
    app.call("POST", "/v1/events").bearer(&key).json(&event).send().await.expect(202);
    let second = aldaba(app.folder(), &["serve", "--listen", "127.0.0.1:0"]).output().expect("it runs");
    assert!(String::from_utf8_lossy(&second.stderr).contains("another server is running"));
}

#[test]
fn a_folder_that_others_can_write_to_is_told_and_one_that_is_made_is_closed() {
    if database::is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let told = |output: Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let warning = "other users can write to the folder of the database";
    assert!(!told(aldaba(folder.path(), &["migrate"]).output().expect("it runs")).contains(warning));
    set_mode(folder.path(), 0o777);
    let text = told(aldaba(folder.path(), &["migrate"]).output().expect("it runs"));
    assert!(text.contains("WARN") && text.contains(warning) && text.contains("0700"), "{text}");
    // The port is not there, so that it ends by itself: the folder is made before.
    with_open_umask(folder.path(), &["dev", "--listen", "192.0.2.1:1"]);
    assert_eq!(format!("{:o}", mode(&folder.path().join("aldaba-data"))), "700");
}

#[test]
fn a_master_key_is_not_written_to_where_somebody_else_has_put_a_link() {
    if database::is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let theirs = folder.path().join("theirs");
    std::fs::write(&theirs, "untouched").expect("written");
    // The shell's own number is that of the program that takes its place.
    let program = aldaba(folder.path(), &["migrate"]);
    let script = "ln -s theirs aldaba.db.master-key.$$-0; ln -s theirs aldaba.db.master-key.$$; exec \"$0\" \"$@\"";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]).arg(program.get_program()).args(program.get_args());
    let output = command.current_dir(folder.path()).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_to_string(&theirs).expect("text"), "untouched");
    assert_eq!(format!("{:o}", mode(&folder.path().join("aldaba.db.master-key"))), "600");
    // Not even by a link in the place of the key itself is another file made.
    let second = tempfile::tempdir().expect("a folder");
    symlink("nowhere", second.path().join("aldaba.db.master-key")).expect("linked");
    assert!(!aldaba(second.path(), &["migrate"]).output().expect("it runs").status.success());
    assert!(!second.path().join("nowhere").exists());
}

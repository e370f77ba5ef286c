//! Opens a page in the browser of the person at the terminal.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::private_files;

/// Opens an address that is a key, where somebody sits at a desktop. Other users of the machine can read the
/// arguments of a program, so the browser gets the name of a private file that leads there. Where anything is
/// missing, the printed address is enough.
pub(super) fn open(address: &str, file: &Path) {
    let Some(program) = program(std::io::stdout().is_terminal(), |name| std::env::var_os(name).is_some()) else {
        return;
    };
    let Ok(path) = write_page(address, file) else { return };
    let opened =
        Command::new(program).arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    if let Ok(mut child) = opened {
        std::thread::spawn(move || child.wait());
    }
}

/// What opens a page here; none where nobody would see it.
fn program(at_terminal: bool, is_set: impl Fn(&str) -> bool) -> Option<&'static str> {
    let has_desktop = cfg!(target_os = "macos") || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY");
    (cfg!(unix) && at_terminal && has_desktop).then_some(if cfg!(target_os = "macos") { "open" } else { "xdg-open" })
}

/// Writes a page that leads to the address, for its owner alone.
fn write_page(address: &str, file: &Path) -> std::io::Result<PathBuf> {
    let page = format!(
        "<!doctype html><meta http-equiv=\"refresh\" content=\"0; url={address}\"><a href=\"{address}\">Aldaba</a>"
    );
    private_files::replace(file, page.as_bytes())?;
    file.canonicalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_opened_where_nobody_would_see_it() {
        assert_eq!(program(false, |_| true), None);
        if cfg!(target_os = "linux") {
            assert_eq!(program(true, |_| false), None);
            assert_eq!(program(true, |name| name == "WAYLAND_DISPLAY"), Some("xdg-open"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_page_that_leads_to_the_link_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("sign-in.html");
        for address in ["http://127.0.0.1:1/sign-in/first", "http://127.0.0.1:1/sign-in/2"] {
            write_page(address, &file).expect("written");
            let text = std::fs::read_to_string(&file).expect("text");
            assert!(text.contains(&format!("url={address}\"")) && text.ends_with("</a>"), "{text}");
        }
        assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    }
}

//! Parts of packages that the program writes itself: completions for shells, and the manual.

use std::path::Path;

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;

use super::args::print_line;

pub(super) fn print_completions(mut commands: Command, shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut commands, "aldaba", &mut script);
    print_line(String::from_utf8_lossy(&script).trim_end())
}

/// Writes a page for each command into a folder.
pub(super) fn write_manual(commands: Command, folder: &Path) -> anyhow::Result<()> {
    clap_mangen::generate_to(commands, folder).with_context(|| format!("cannot write into {}", folder.display()))
}

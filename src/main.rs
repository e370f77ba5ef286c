//! The `aldaba` command: see [`aldaba::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    aldaba::cli::main()
}

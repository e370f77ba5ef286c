//! The `aldaba` command: see [`aldaba::cli`].

use std::process::ExitCode;

/// Bodies and answers are made on one thread and dropped on another, which the system's allocator pays for with locks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    aldaba::cli::main()
}

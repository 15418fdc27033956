//! The program `aldis`, with the workflows that come with it.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    aldis::cli::main(aldis::workflows::all())
}

//! The program `aldis`, with the workflows and the agent that come with it.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    aldis::cli::Program::new(aldis::workflows::all()).otherwise(aldis::workflows::demo::agent()).main()
}

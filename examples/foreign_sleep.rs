//! A workflow that awaits a timer which is not the engine's: it would be gone with the process, so the run is blocked
//! with the sentence that names it, instead of waiting for something that no journal holds.
//!
//! ```text
//! cargo run --example foreign_sleep -- run nap          # exit code 3
//! cargo run --example foreign_sleep -- runs
//! ```

use std::process::ExitCode;
use std::time::Duration;

use aldis::{Context, Failure, Workflow};

async fn nap(_: Context, _: ()) -> Result<(), Failure> {
    // Right would be `cx.sleep(Duration::from_secs(1)).await?`.
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

fn main() -> ExitCode {
    aldis::cli::main([Workflow::new("nap", nap)])
}

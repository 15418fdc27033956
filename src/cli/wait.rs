//! `aldis wait`: waits for the outcome of a run that is there already.

use clap::Args;

use super::error::Error;
use super::run::{After, Wanted, advance_or_wait};
use super::{Desk, Exit};
use crate::config::Span;

/// Waits for the outcome of a run that was started before; where nobody advances runs, this process does meanwhile.
///
/// Exit code: 0 completed, 1 failed, 2 refused, 3 blocked or cancelled.
#[derive(Debug, Args)]
pub(super) struct Wait {
    /// The run's id
    run: String,
    /// Prints the run's journal once it has settled
    #[arg(long)]
    journal: bool,
    /// How long steps may go on after this process was asked to stop
    #[arg(long, default_value = "10s", value_name = "SPAN")]
    grace: Span,
}

pub(super) async fn run(desk: &Desk, asked: Wait) -> Result<Exit, Error> {
    // A run that is not there is said to be so before anything is begun.
    let client = desk.client().await?;
    client.find(&asked.run).await?;
    client.store().close().await;
    advance_or_wait(desk, Wanted::Run(asked.run), After { journal: asked.journal, grace: asked.grace.0 }).await
}

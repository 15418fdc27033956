//! `aldis journal`: what happened in a run, line by line.

use clap::Args;

use super::error::Error;
use super::{Desk, Exit, print};
use crate::journal::{self, Recorded};

/// Prints a run's journal: a line per event.
#[derive(Debug, Args)]
pub(super) struct Journal {
    /// The run's id
    pub(super) run: String,
}

pub(super) async fn run(desk: &Desk, asked: Journal) -> Result<Exit, Error> {
    let client = desk.client().await?;
    let journal = client.find(&asked.run).await?.journal().await?;
    client.store().close().await;
    print(desk, &journal)?;
    Ok(Exit::Good)
}

/// Prints a journal.
pub(super) fn print(desk: &Desk, journal: &[Recorded]) -> Result<(), Error> {
    if desk.json() {
        journal.iter().try_for_each(|line| print::json(&line.flat()))
    } else {
        print::text(&journal::print(journal))
    }
}

//! `aldis cancel`: asks a run to cancel.

use clap::Args;

use super::error::Error;
use super::{Desk, Exit};

/// Asks a run to cancel: it hears of it at its next durable wait and may clean up first.
#[derive(Debug, Args)]
pub(super) struct Cancel {
    /// The run's id
    pub(super) run: String,
    /// Why, for whoever reads the journal
    #[arg(long, default_value = "asked for on the command line")]
    pub(super) reason: String,
}

pub(super) async fn run(desk: &Desk, asked: Cancel) -> Result<Exit, Error> {
    let client = desk.client().await?;
    let run = client.find(&asked.run).await?;
    let by = std::env::var("USER").or_else(|_| std::env::var("USERNAME")).unwrap_or_else(|_| "command line".into());
    let accepted = run.cancel(&asked.reason, &by).await?;
    super::signal::told(desk, &client, &asked.run, "request to cancel", accepted).await?;
    client.store().close().await;
    Ok(Exit::Good)
}

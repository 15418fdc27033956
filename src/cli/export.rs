//! `aldis export`: a run as text.

use std::path::PathBuf;

use clap::Args;

use super::error::Error;
use super::{Desk, Exit, print};
use crate::runtime;

/// Writes a run as text, one JSON object a line, to be read or replayed elsewhere.
#[derive(Debug, Args)]
pub(super) struct Export {
    /// The run's id
    run: String,
    /// The file to write; standard output if nothing is said
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) async fn run(desk: &Desk, asked: Export) -> Result<Exit, Error> {
    let client = desk.client().await?;
    let exported = client.find(&asked.run).await?.export().await?;
    client.store().close().await;
    let text = runtime::Export::write(&exported)?;
    match asked.output {
        None => print::text(&text)?,
        Some(file) => {
            std::fs::write(&file, text).map_err(Error::io(format!("{} cannot be written", file.display())))?;
        }
    }
    Ok(Exit::Good)
}

//! `aldis import`: brings in what `aldis export` wrote.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::error::Error;
use super::{Desk, Exit, print};
use crate::runtime::{self, ExportedRun};

/// Brings in a run that was exported elsewhere, under its id.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// What `aldis export` wrote; - for standard input
    file: PathBuf,
}

pub(super) async fn run(desk: &Desk, asked: Import) -> Result<Exit, Error> {
    let exported = read(&asked.file)?;
    let events = exported.journal.len();
    let client = desk.bare().connect().await?;
    let run = client.import(exported).await?;
    client.store().close().await;
    if desk.json() {
        print::json(&json!({ "id": run.id(), "events": events }))?;
    } else {
        print::line(&format!("run {} was brought in with {events} journal lines", run.id()))?;
    }
    Ok(Exit::Good)
}

/// Reads an export from a file, or from standard input.
pub(super) fn read(file: &Path) -> Result<ExportedRun, Error> {
    let text =
        if file.as_os_str() == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(Error::io(format!("the export cannot be read from {}", file.display())))?;
    Ok(runtime::Export::read(&text)?)
}

//! `aldis journal`: what happened in a run, line by line.

use clap::Args;
use serde_json::{Map, Value};

use super::error::Error;
use super::{Desk, Exit, print};
use crate::journal::{self, Recorded};

/// Prints a run's journal: a line per event.
#[derive(Debug, Args)]
pub(super) struct Journal {
    /// The run's id
    run: String,
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
        journal.iter().try_for_each(|line| print::json(&flat(line)?))
    } else {
        print::text(&journal::print(journal))
    }
}

/// A line as one flat object: its place, time, event and name, then what the event itself has.
fn flat(line: &Recorded) -> Result<Map<String, Value>, Error> {
    let mut flat = Map::new();
    flat.insert("seq".into(), line.seq.0.into());
    flat.insert("at".into(), line.at.0.into());
    flat.insert("event".into(), line.event.kind().into());
    flat.insert("name".into(), line.event.name().into());
    let mut json = Vec::new();
    line.event.encode_into(&mut json);
    let own: Map<String, Value> =
        serde_json::from_slice(&json).map_err(|e| Error::io("a journal line has no JSON form")(e.into()))?;
    for (key, value) in own {
        flat.entry(key).or_insert(value);
    }
    Ok(flat)
}

//! `aldis signal`: sends a signal to a run.

use std::io::Read as _;

use clap::Args;
use serde_json::json;

use super::error::Error;
use super::{Desk, Exit, print};
use crate::clock::Clock;
use crate::payload::Payload;
use crate::runtime::Client;
use crate::signal::{Accepted, SignalKind};

/// Sends a signal to a run. Once this returns it is durable, and the run takes it once.
#[derive(Debug, Args)]
pub(super) struct Signal {
    /// The run's id
    pub(super) run: String,
    /// The signal's name
    pub(super) name: String,
    /// The value as JSON; - for standard input
    #[arg(value_name = "JSON")]
    pub(super) value: String,
    /// The sender's own id of the signal: the same id again is the same signal
    #[arg(long, value_name = "KEY")]
    pub(super) id: Option<String>,
}

pub(super) async fn run(desk: &Desk, asked: Signal) -> Result<Exit, Error> {
    let value = value(&asked.value)?;
    let client = desk.client().await?;
    let run = client.find(&asked.run).await?;
    let accepted = run.send(SignalKind::Signal, &asked.name, value, asked.id).await?;
    told(desk, &client, &asked.run, &format!("signal {:?}", asked.name), accepted).await?;
    client.store().close().await;
    Ok(Exit::Good)
}

/// The value that was given, or that standard input holds.
pub(super) fn value(given: &str) -> Result<Payload, Error> {
    let mut text = given.to_owned();
    if text == "-" {
        text.clear();
        let read = std::io::stdin().read_to_string(&mut text);
        read.map_err(Error::io("the value cannot be read from standard input"))?;
    }
    Payload::parse(&text)
        .map_err(|e| Error::Usage(format!("the value {text:?} is not JSON: {}; a text is written '\"so\"'", e.problem)))
}

/// Says that something was accepted, and whether somebody is there to take it.
pub(super) async fn told(desk: &Desk, client: &Client, run: &str, what: &str, accepted: Accepted) -> Result<(), Error> {
    let (word, text) = match accepted {
        Accepted::New { .. } => ("new", "accepted"),
        Accepted::Already { .. } => ("already", "was accepted before; nothing was added"),
    };
    if desk.json() {
        return print::json(&json!({ "run": run, "accepted": word, "ordinal": accepted.ordinal() }));
    }
    print::line(&format!("{what} to run {run}: {text}"))?;
    let now = Clock::System.now();
    if !client.workers().await?.iter().any(|worker| worker.lease_until > now) {
        eprintln!("nobody advances the runs of this store now; `aldis work` goes on with them");
    }
    Ok(())
}

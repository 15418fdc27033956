//! `aldis work`: advances runs until it is stopped.

use clap::Args;
use serde_json::json;

use super::error::Error;
use super::run::Span;
use super::stop::Stop;
use super::{Desk, Exit, print};

/// Advances runs until SIGINT or SIGTERM, then lets steps under way finish and gives its runs back.
#[derive(Debug, Args)]
pub(super) struct Work {
    /// Where another process advances the runs of this SQLite file: waits until it ends
    #[arg(long)]
    standby: bool,
    /// How long steps may go on after this process was asked to stop; asked again, it stops at once
    #[arg(long, default_value = "10s", value_name = "SPAN")]
    grace: Span,
    /// What people see as this worker's name
    #[arg(long)]
    name: Option<String>,
}

pub(super) async fn run(desk: &Desk, asked: Work) -> Result<Exit, Error> {
    let mut stop = Stop::listen()?;
    let mut aldis = desk.aldis().standby(asked.standby);
    if let Some(name) = asked.name {
        aldis = aldis.worker(name);
    }
    let runtime = tokio::select! {
        started = aldis.start() => started?,
        // Nothing was begun yet.
        () = stop.asked() => return Ok(Exit::Good),
    };
    let (store, workflows) = (runtime.store().location().to_owned(), runtime.registry().tags());
    let worker = runtime.engine().worker();
    if desk.json() {
        print::json(&json!({ "ready": true, "store": store, "worker": worker, "workflows": workflows }))?;
    } else {
        print::line(&format!("worker {worker} advances the runs of {store}: {}", workflows.join(", ")))?;
    }
    stop.asked().await;
    if !desk.json() {
        eprintln!("stopping; steps under way have {} to finish", print::span(asked.grace.0));
    }
    tokio::select! {
        drained = runtime.drain(asked.grace.0) => drained?,
        // As good as a crash: what was not committed did not happen.
        () = stop.asked() => return Ok(Exit::Interrupted),
    }
    Ok(Exit::Good)
}

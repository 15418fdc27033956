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
    /// How long this worker may be silent before others take over its runs (Postgres)
    #[arg(long, env = "ALDIS_LEASE", default_value = "10s", value_name = "SPAN")]
    lease: Span,
    /// How often the store is looked at when nobody has given a hint
    #[arg(long, env = "ALDIS_POLL", default_value = "1s", value_name = "SPAN")]
    poll: Span,
    /// The most runs that are worked on at the same time; more stay due in the store
    #[arg(long, env = "ALDIS_IN_FLIGHT_MAX", default_value_t = 10_000, value_name = "N")]
    in_flight_max: usize,
    /// The most waiting runs that are kept in memory, so that they go on without a replay
    #[arg(long, env = "ALDIS_LIVE_MAX", default_value_t = 1_000, value_name = "N")]
    live_max: usize,
    /// How long what subscribers of a thread see is kept
    #[arg(long, env = "ALDIS_CHUNKS_KEPT_FOR", default_value = "24h", value_name = "SPAN")]
    chunks_kept_for: Span,
    /// How many chunks of a thread are kept at the most
    #[arg(long, env = "ALDIS_CHUNKS_KEPT", default_value_t = 10_000, value_name = "N")]
    chunks_kept: u64,
    /// How many connections write (Postgres); runs are spread over them
    #[arg(long, env = "ALDIS_WRITERS", default_value_t = 1, value_name = "N")]
    writers: usize,
}

pub(super) async fn run(desk: &Desk, asked: Work) -> Result<Exit, Error> {
    let mut stop = Stop::listen()?;
    let mut aldis =
        desk.aldis().standby(asked.standby).store_options(|options| options.writers = asked.writers).engine_options(
            |options| {
                options.lease = asked.lease.0;
                options.poll = asked.poll.0;
                options.in_flight_max = asked.in_flight_max;
                options.live_max = asked.live_max;
                options.chunks_kept_for = asked.chunks_kept_for.0;
                options.chunks_kept = asked.chunks_kept;
            },
        );
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

//! `aldis work`: advances runs until it is stopped.

use clap::Args;
use serde_json::json;

use super::error::Error;
use super::reload::Reload;
use super::stop::Stop;
use super::{Desk, Exit, notify, print};
use crate::config::{Settings, Span};
use crate::runtime::Aldis;

/// Advances runs until SIGINT or SIGTERM, then lets steps under way finish and gives its runs back.
#[derive(Debug, Args)]
pub(super) struct Work {
    /// Where another process advances the runs of this SQLite file: waits until it ends
    #[arg(long)]
    standby: bool,
    /// How long steps may go on after this process was asked to stop; asked again, it stops at once [default: 10s]
    #[arg(long, env = "ALDIS_GRACE", value_name = "SPAN")]
    grace: Option<Span>,
    /// What people see as this worker's name
    #[arg(long)]
    name: Option<String>,
    /// How long this worker may be silent before others take over its runs (Postgres) [default: 10s]
    #[arg(long, env = "ALDIS_LEASE", value_name = "SPAN")]
    lease: Option<Span>,
    /// How often the store is looked at when nobody has given a hint [default: 1s]
    #[arg(long, env = "ALDIS_POLL", value_name = "SPAN")]
    poll: Option<Span>,
    /// The most runs that are worked on at the same time; more stay due in the store [default: 10000]
    #[arg(long, env = "ALDIS_IN_FLIGHT_MAX", value_name = "N")]
    in_flight_max: Option<usize>,
    /// The most waiting runs that are kept in memory, so that they go on without a replay [default: 1000]
    #[arg(long, env = "ALDIS_LIVE_MAX", value_name = "N")]
    live_max: Option<usize>,
    /// How long what subscribers of a thread see is kept [default: 24h]
    #[arg(long, env = "ALDIS_CHUNKS_KEPT_FOR", value_name = "SPAN")]
    chunks_kept_for: Option<Span>,
    /// How many chunks of a thread are kept at the most [default: 10000]
    #[arg(long, env = "ALDIS_CHUNKS_KEPT", value_name = "N")]
    chunks_kept: Option<u64>,
    /// How many connections write (Postgres); runs are spread over them [default: 1]
    #[arg(long, env = "ALDIS_WRITERS", value_name = "N")]
    writers: Option<usize>,
}

impl Work {
    /// What is said here goes before the settings.
    fn over(self, aldis: Aldis, settings: &Settings) -> Aldis {
        let (work, retention) = (&settings.work, &settings.retention);
        let writers = self.writers.unwrap_or(work.writers);
        let aldis =
            aldis.standby(self.standby).store_options(|options| options.writers = writers).engine_options(|options| {
                options.lease = self.lease.unwrap_or(work.lease).0;
                options.poll = self.poll.unwrap_or(work.poll).0;
                options.in_flight_max = self.in_flight_max.unwrap_or(work.in_flight_max);
                options.live_max = self.live_max.unwrap_or(work.live_max);
                options.chunks_kept_for = self.chunks_kept_for.unwrap_or(retention.chunks_kept_for).0;
                options.chunks_kept = self.chunks_kept.unwrap_or(retention.chunks_kept);
            });
        match self.name {
            Some(name) => aldis.worker(name),
            None => aldis,
        }
    }
}

pub(super) async fn run(desk: &Desk, asked: Work) -> Result<Exit, Error> {
    let mut stop = Stop::listen()?;
    let grace = asked.grace.unwrap_or(desk.config.settings.work.grace).0;
    let people = desk.people()?;
    let mut reload = Reload::listen(desk, people.clone())?;
    let aldis = asked.over(desk.aldis_with(&people), &desk.config.settings);
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
    notify::ready();
    let failed = tokio::select! {
        () = stop.asked() => None,
        failed = reload.whenever_asked(&runtime) => Some(failed),
    };
    notify::stopping();
    if !desk.json() {
        eprintln!("stopping; steps under way have {} to finish", print::span(grace));
    }
    tokio::select! {
        drained = runtime.drain(grace) => drained?,
        // As good as a crash: what was not committed did not happen.
        () = stop.asked() => return Ok(Exit::Interrupted),
    }
    failed.map_or(Ok(Exit::Good), Err)
}

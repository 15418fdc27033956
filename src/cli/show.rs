//! `aldis show`: how a run stands, and why it is not moving.

use std::fmt::Write as _;

use clap::Args;

use super::error::Error;
use super::print::{self, time};
use super::{Desk, Exit};
use crate::clock::{Clock, Instant};
use crate::runtime::{Shown, WaitsFor};

/// Says how a run stands: what it waits for and since when, when it goes on, who has it.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// The run's id
    run: String,
}

pub(super) async fn run(desk: &Desk, asked: Show) -> Result<Exit, Error> {
    let client = desk.client().await?;
    let shown = client.find(&asked.run).await?.show().await?;
    if desk.json() {
        print::json(&shown)?;
    } else {
        let live = client.workers().await?.iter().any(|worker| worker.lease_until > Clock::System.now());
        print::text(&text(&shown, live))?;
    }
    client.store().close().await;
    Ok(Exit::Good)
}

/// One wait, in words.
pub(super) fn wait(wait: &WaitsFor) -> String {
    let named = wait.name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
    let kind = match wait.kind {
        "signals" => "a batch of signals",
        "update" => "an update",
        kind => kind,
    };
    let mut text = format!("{kind}{named}");
    // Writing to a String cannot fail.
    let _ = match (wait.kind, wait.until) {
        ("timer", Some(until)) => write!(text, " until {until}"),
        (_, Some(until)) => write!(text, ", next attempt at {until}"),
        (_, None) => Ok(()),
    };
    if let (Some(failed @ 1..), last) = (wait.attempts_failed, &wait.last_failure) {
        let last = last.as_ref().map(|last| format!(", the last: {last}")).unwrap_or_default();
        let _ = write!(text, ", {failed} attempts failed{last}");
    }
    text
}

fn text(shown: &Shown, live: bool) -> String {
    let mut lines = vec![
        format!("run {}: {}", shown.id, shown.status),
        format!("  workflow   {} v{}", shown.workflow, shown.version),
        format!("  created    {}", time(shown.created_at)),
        format!("  changed    {}", time(shown.updated_at)),
        format!("  journal    {} lines", shown.events),
    ];
    for waits in &shown.waits_for {
        lines.push(format!("  waits for  {}, since {}", wait(waits), time(waits.since)));
    }
    if let Some(at) = shown.next_wake {
        lines.push(format!("  goes on    {} at the latest", time(at)));
    }
    if let Some(owner) = &shown.owner {
        let until = shown.lease_until.map(|at: Instant| format!(", lease until {}", time(at))).unwrap_or_default();
        lines.push(format!("  owner      {owner}{until}"));
    }
    if let Some(blocked) = &shown.blocked {
        lines.push(format!("  blocked    ({}) {}", blocked.code, blocked.reason));
    }
    if let Some(request) = &shown.cancel_requested {
        lines.push(format!("  cancel     requested: {request}"));
    }
    if shown.undos > 0 {
        lines.push(format!("  undo list  compensations: {}", shown.undos));
    }
    if shown.signals_pending > 0 {
        lines.push(format!("  pending    signals not taken: {}", shown.signals_pending));
    }
    if let Some(output) = &shown.output {
        lines.push(format!("  output     {output}"));
    }
    if let Some(failure) = &shown.failure {
        lines.push(format!("  failure    {failure}"));
    }
    if !live && matches!(shown.status, "due" | "running" | "waiting") {
        lines.push("  nobody advances the runs of this store now; start `aldis work`".into());
    }
    lines.push(String::new());
    lines.join("\n")
}

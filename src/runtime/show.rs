//! Why a run is not moving: what it waits for, since when, and who has it.

use serde::Serialize;

use super::Error;
use crate::clock::Instant;
use crate::failure::Outcome;
use crate::journal::{OpenOp, Standing, Wait, WaitMode};
use crate::payload::Payload;
use crate::run::Status;
use crate::store::{self, History, Worker};

/// A run as people ask for it. Its JSON form is what `aldis show --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// What the outside calls it.
    pub id: String,
    /// Its namespace.
    pub namespace: String,
    /// The workflow's name.
    pub workflow: String,
    /// The workflow's version.
    pub version: u32,
    /// How it stands: due, running, waiting, blocked, completed, failed, cancelled, terminated.
    pub status: &'static str,
    /// What it waits for, oldest first.
    pub waits_for: Vec<WaitsFor>,
    /// When it goes on by itself at the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_wake: Option<Instant>,
    /// Who advances it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Until when its owner's lease holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_until: Option<Instant>,
    /// Why it is blocked, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked: Option<Blocked>,
    /// The request to cancel, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_requested: Option<String>,
    /// How many compensations are on its undo list.
    pub undos: u32,
    /// How many accepted signals it has not taken.
    pub signals_pending: i64,
    /// What it returned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Payload>,
    /// Why it failed or was stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// How many lines its journal has.
    pub events: i64,
    /// When it was accepted.
    pub created_at: Instant,
    /// When it last changed.
    pub updated_at: Instant,
}

/// Why a run is blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blocked {
    /// A stable word: mismatch, unregistered, panicked, undecodable, `too_large`, `foreign_wait`, corrupt.
    pub code: &'static str,
    /// What happened and what to do.
    pub reason: String,
}

/// One thing that a run waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WaitsFor {
    /// step, timer, signal, signals or update.
    pub kind: &'static str,
    /// The name of the step or signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where in the code.
    pub op: String,
    /// Since when.
    pub since: Instant,
    /// A timer's time, or that of a step's next attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Instant>,
    /// How many attempts at the step have failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts_failed: Option<u32>,
    /// How the latest attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
}

pub(super) fn of(history: &History, workers: &[Worker]) -> Result<Shown, Error> {
    let run = &history.run;
    let standing =
        Standing::of(&history.journal).map_err(|e| store::Error::Corrupt { found: format!("run {}: {e}", run.id) })?;
    let owner = match &run.status {
        Status::Running { worker } => Some(*worker),
        _ => None,
    };
    let known = owner.and_then(|key| workers.iter().find(|worker| worker.key == key));
    let (next_wake, blocked) = match &run.status {
        Status::Due { at } => (Some(*at), None),
        Status::Waiting { wake_at } => (*wake_at, None),
        Status::Blocked { reason } => (None, Some(Blocked { code: reason.code(), reason: reason.to_string() })),
        Status::Running { .. } | Status::Closed { .. } => (None, None),
    };
    let (output, failure) = match standing.outcome {
        None => (None, None),
        Some(Outcome::Completed(output)) => (Some(output), None),
        Some(Outcome::Failed(failure)) => (None, Some(failure.to_string())),
        Some(Outcome::Cancelled { reason, .. } | Outcome::Terminated { reason }) => (None, Some(reason)),
    };
    Ok(Shown {
        id: run.id.to_string(),
        namespace: run.namespace.to_string(),
        workflow: run.workflow.clone(),
        version: run.version,
        status: run.status.word(),
        waits_for: standing.open.iter().map(|(op, open)| waits_for(op.to_string(), open)).collect(),
        next_wake,
        owner: owner.map(|key| known.map_or_else(|| format!("worker {key}"), |w| format!("worker {key} ({})", w.name))),
        lease_until: known.map(|worker| worker.lease_until),
        blocked,
        cancel_requested: standing.cancel.map(|request| format!("{} (by {})", request.reason, request.by)),
        undos: standing.undos,
        signals_pending: run.signals_pending,
        output,
        failure,
        events: run.head.0,
        created_at: run.created_at,
        updated_at: run.updated_at,
    })
}

fn waits_for(op: String, open: &OpenOp) -> WaitsFor {
    let blank = WaitsFor {
        kind: "timer",
        name: None,
        op,
        since: open.since,
        until: None,
        attempts_failed: None,
        last_failure: None,
    };
    match &open.wait {
        Wait::Step { name, attempts_failed, last_failure, retry_at, .. } => WaitsFor {
            kind: "step",
            name: Some(name.clone()),
            until: *retry_at,
            attempts_failed: Some(*attempts_failed),
            last_failure: last_failure.as_ref().map(ToString::to_string),
            ..blank
        },
        Wait::Timer { fire_at } => WaitsFor { until: Some(*fire_at), ..blank },
        Wait::Signal { name, mode } => WaitsFor {
            kind: match mode {
                WaitMode::One => "signal",
                WaitMode::Batch => "signals",
                WaitMode::Update => "update",
            },
            name: Some(name.clone()),
            ..blank
        },
    }
}

//! `aldis approve`, `aldis abort` and `aldis unsend`: a person's word on what a thread's run is doing, or is yet to do.

pub(super) mod remote;

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::error::Error;
use super::send::Whose;
use super::{Desk, Exit, print};
use crate::id::RunId;
use crate::runtime::{Answer, CancelQueued};

/// Lets a tool call run that waits for approval, or answers one that asks. Durable once this returns.
#[derive(Debug, Args)]
pub(super) struct Approve {
    /// The thread's id
    thread: String,
    /// The call's id; may be left out if one call waits
    call: Option<String>,
    #[command(flatten)]
    whose: Whose,
    /// The call must not run
    #[arg(long)]
    decline: bool,
    /// Why, for the model
    #[arg(long)]
    reason: Option<String>,
    /// What a call that asks goes on with, as JSON
    #[arg(long, value_name = "JSON", conflicts_with = "decline")]
    resume: Option<String>,
}

pub(super) async fn run(desk: &Desk, asked: Approve) -> Result<Exit, Error> {
    let resume: Option<Value> = asked
        .resume
        .as_deref()
        .map(serde_json::from_str)
        .transpose()
        .map_err(|e| Error::Usage(format!("--resume is not JSON: {e}; a text is written '\"so\"'")))?;
    let client = desk.client().await?;
    let thread = asked.whose.thread(&client, &asked.thread)?;
    let call = match asked.call {
        Some(call) => call,
        None => match &thread.waiting().await?[..] {
            [one] => one.call.clone(),
            [] => return Err(Error::Usage(format!("no call waits for an answer on thread {}", asked.thread))),
            many => {
                let calls: Vec<String> = many.iter().map(|it| format!("{} ({})", it.call, it.tool)).collect();
                return Err(Error::Usage(format!("several calls wait, name one: {}", calls.join(", "))));
            }
        },
    };
    let run = thread.answer(&call, Answer { approved: !asked.decline, reason: asked.reason, resume }).await?;
    if desk.json() {
        print::json(&json!({ "accepted": true, "run": run, "call": call }))?;
    } else {
        print::line(&format!("call {call}: {}", if asked.decline { "declined" } else { "approved" }))?;
    }
    client.store().close().await;
    Ok(Exit::Good)
}

/// Ends the run that answers a thread. What waits goes on with the next run.
#[derive(Debug, Args)]
pub(super) struct Abort {
    /// The thread's id
    thread: String,
    #[command(flatten)]
    whose: Whose,
    /// Only if this run answers it
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
}

pub(super) async fn abort(desk: &Desk, asked: Abort) -> Result<Exit, Error> {
    let expected = asked.run.as_ref().map(RunId::parse).transpose()?;
    let client = desk.client().await?;
    let aborted = asked.whose.thread(&client, &asked.thread)?.abort("cli", expected.as_ref()).await?;
    if desk.json() {
        print::json(&json!({ "aborted": aborted }))?;
    } else {
        print::line(if aborted { "aborted" } else { "there is nothing to abort" })?;
    }
    client.store().close().await;
    Ok(Exit::Good)
}

/// Takes back messages that no run has taken. What a run has taken stays, and is not in the answer.
///
/// Exit code: 0 all were taken back, 1 some or none.
#[derive(Debug, Args)]
pub(super) struct Unsend {
    /// The thread's id
    thread: String,
    /// The messages' ids
    #[arg(required_unless_present = "owner", conflicts_with = "owner")]
    ids: Vec<String>,
    #[command(flatten)]
    whose: Whose,
    /// All queued messages that carry this label of their sender
    #[arg(long, value_name = "LABEL")]
    owner: Option<String>,
}

/// How long a run may take to say what it has taken.
const SAYS_WITHIN: Duration = Duration::from_secs(30);

pub(super) async fn unsend(desk: &Desk, asked: Unsend) -> Result<Exit, Error> {
    let client = desk.client().await?;
    let thread = asked.whose.thread(&client, &asked.thread)?;
    let many = asked.ids.len();
    let which = asked.owner.map_or(CancelQueued::Ids(asked.ids), CancelQueued::Owner);
    let cancelled = tokio::time::timeout(SAYS_WITHIN, thread.cancel_queued(which, "cli")).await.map_err(|_| {
        Error::Usage("the run that has the thread does not say what it has taken; advance it: `aldis work`".to_owned())
    })??;
    if desk.json() {
        print::json(&json!({ "cancelled": cancelled }))?;
    } else if cancelled.is_empty() {
        print::line("there is nothing to take back")?;
    } else {
        print::line(&format!("taken back: {}", cancelled.join(", ")))?;
    }
    client.store().close().await;
    Ok(if cancelled.len() < many.max(1) { Exit::Bad } else { Exit::Good })
}

//! `aldis approve`, `aldis answer`, `aldis abort` and `aldis unsend`: a person's word on what a thread's run is doing, or is
//! yet to do.

pub(super) mod remote;

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::error::Error;
use super::send::Whose;
use super::{Desk, Exit, print};
use crate::agent::TurnOptions;
use crate::id::RunId;
use crate::runtime::{Answer, CancelQueued};
use crate::thread::CallResult;

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
    let resume = asked.resume.as_deref().map(|text| json_of(text, || "--resume".to_owned())).transpose()?;
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

/// Says what calls of tools came to that run elsewhere: a run goes on from there. The calls of one message are answered
/// together. Durable once this returns; the same answers again are the same run.
#[derive(Debug, Args)]
pub(super) struct Answers {
    /// The thread's id
    thread: String,
    /// A call's id and what it came to, as JSON; more of them in pairs
    #[arg(required = true, num_args = 2.., value_names = ["CALL", "JSON"])]
    results: Vec<String>,
    #[command(flatten)]
    whose: Whose,
    /// The calls have failed, and this is why
    #[arg(long)]
    failed: bool,
}

pub(super) async fn answer(desk: &Desk, asked: Answers) -> Result<Exit, Error> {
    let results = asked.results.chunks(2).map(|pair| result(pair, asked.failed)).collect::<Result<Vec<_>, _>>()?;
    let calls: Vec<String> = results.iter().map(|it| it.call.clone()).collect();
    let client = desk.client().await?;
    let thread = asked.whose.thread(&client, &asked.thread)?;
    let run = thread.continue_with(results, &TurnOptions::default()).await?;
    if desk.json() {
        print::json(&json!({ "accepted": true, "run": run, "calls": calls }))?;
    } else {
        print::line(&format!("run {run} goes on from {}", calls.join(", ")))?;
    }
    client.store().close().await;
    Ok(Exit::Good)
}

fn result(pair: &[String], failed: bool) -> Result<CallResult, Error> {
    let [call, output] = pair else {
        let call = pair.first().map_or("", String::as_str);
        return Err(Error::Usage(format!("call {call} has no result: give CALL JSON, in pairs")));
    };
    let output = json_of(output, || format!("the result of call {call}"))?;
    Ok(CallResult { call: call.clone(), output, failed })
}

fn json_of(text: &str, what: impl Fn() -> String) -> Result<Value, Error> {
    serde_json::from_str(text)
        .map_err(|e| Error::Usage(format!("{} is not JSON: {e}; a text is written '\"so\"'", what())))
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
    /// Drop what waits, too
    #[arg(long)]
    clear: bool,
}

pub(super) async fn abort(desk: &Desk, asked: Abort) -> Result<Exit, Error> {
    let expected = asked.run.as_ref().map(RunId::parse).transpose()?;
    let client = desk.client().await?;
    let thread = asked.whose.thread(&client, &asked.thread)?;
    let aborted = match asked.clear {
        true => thread.abort_and_clear("cli", expected.as_ref()).await?,
        false => thread.abort("cli", expected.as_ref()).await?,
    };
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

//! `aldis send`: sends a message to a thread, and shows the answer as it comes.

pub(super) mod remote;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::engine::with_engine;
use super::error::Error;
use super::stop::Stop;
use super::{Desk, Exit, print};
use crate::agent::model::{RecordingError, Tape};
use crate::config::Span;
use crate::intake::SendOptions;
use crate::message::{Category, NewSignal};
use crate::runtime::{self, Action, Client, Seen, Sent, Since, Subscription, ThreadHandle};

/// Sends a message to a thread. Once it says so it is durable; then the answer is shown, until the run that takes the
/// message has ended.
///
/// Exit code: 0 answered, 1 the run failed, 2 refused, 3 the run was aborted.
#[derive(Debug, Args)]
pub(super) struct Send {
    /// The thread's id; a new one is made
    thread: String,
    /// What to say
    text: String,
    #[command(flatten)]
    whose: Whose,
    /// A run of its own, after those before it
    #[arg(long)]
    queue: bool,
    /// A signal of this category instead of a message: user, notification, reactive, state
    #[arg(long, value_name = "CATEGORY", default_value = "user")]
    category: String,
    /// The sender's own id of the message: the same id again is the same message
    #[arg(long, value_name = "KEY")]
    id: Option<String>,
    /// Does not wait for the answer
    #[arg(long, conflicts_with_all = ["record", "play"])]
    detach: bool,
    /// Records what models are asked by this process, to be played later; a file that is there is not touched
    #[arg(long, value_name = "FILE", conflicts_with = "play")]
    record: Option<PathBuf>,
    /// Plays a recording instead of asking models
    #[arg(long, value_name = "FILE")]
    play: Option<PathBuf>,
    /// How long steps may go on after this process was asked to stop
    #[arg(long, default_value = "10s", value_name = "SPAN")]
    grace: Span,
}

/// Which agent, and whose thread.
#[derive(Debug, Clone, Args)]
pub(super) struct Whose {
    /// The agent that answers
    #[arg(long, env = "ALDIS_AGENT", default_value = "demo", value_name = "NAME")]
    agent: String,
    /// The thread's owner
    #[arg(long, env = "ALDIS_RESOURCE", default_value = "cli", value_name = "NAME")]
    resource: String,
}

impl Whose {
    pub(super) fn thread(&self, client: &Client, id: &str) -> Result<ThreadHandle, Error> {
        Ok(client.agent(&self.agent).thread(id, &self.resource)?)
    }
}

pub(super) async fn run(desk: &Desk, asked: Send) -> Result<Exit, Error> {
    let category = Category::of_word(&asked.category).map_err(|e| Error::Usage(e.to_string()))?;
    let signal = NewSignal { id: asked.id.clone(), ..NewSignal::new(category, asked.text.as_str()) };
    let options = SendOptions { queue: asked.queue, ..SendOptions::default() };
    if asked.detach {
        let client = desk.bare().connect().await?;
        let sent = asked.whose.thread(&client, &asked.thread)?.send_with(signal, options).await?;
        told(desk, &sent)?;
        client.store().close().await;
        return Ok(Exit::Good);
    }
    let grace: Duration = asked.grace.0;
    let recorded = tape(&asked)?.map(|tape| desk.recorded(tape));
    let desk = recorded.as_ref().unwrap_or(desk);
    with_engine(desk, grace, async |client, stop| {
        let thread = asked.whose.thread(&client, &asked.thread)?;
        let mut subscription = thread.subscribe(Since::Now);
        subscription.ready().await?;
        let sent = thread.send_with(signal, options).await?;
        told(desk, &sent)?;
        if sent.run.is_none() {
            return Ok(Exit::Good);
        }
        follow(desk, &asked.thread, &sent, subscription, stop).await
    })
    .await
}

/// The recording that is made or played.
fn tape(asked: &Send) -> Result<Option<Tape>, Error> {
    let unusable = |e: RecordingError| {
        let cause = std::error::Error::source(&e).map(|cause| format!(": {cause}")).unwrap_or_default();
        Error::Usage(format!("{e}{cause}"))
    };
    match (&asked.record, &asked.play) {
        (Some(file), _) if file.exists() => Err(Error::Usage(format!(
            "{} is there already; play it with --play, or remove it to record again",
            file.display()
        ))),
        (Some(file), _) => Tape::once(file).map(Some).map_err(unusable),
        (None, Some(file)) => Tape::play(file).map(Some).map_err(unusable),
        (None, None) => Ok(None),
    }
}

fn told(desk: &Desk, sent: &Sent) -> Result<(), Error> {
    if desk.json() {
        let Sent { signal, action, run, repeat } = sent;
        return print::json(&json!({ "signal": signal, "action": action, "run": run, "repeat": repeat }));
    }
    if sent.repeat {
        eprintln!("that was sent before; nothing was added");
    }
    match (sent.action, &sent.run) {
        (Action::Wake, Some(run)) => eprintln!("run {run}"),
        (_, Some(run)) => eprintln!("run {run} takes it"),
        (Action::Persist, None) => eprintln!("kept in the history"),
        (_, None) => eprintln!("discarded"),
    }
    Ok(())
}

/// Shows the chunks of the thread until the run that takes the message has ended.
async fn follow(
    desk: &Desk,
    thread: &str,
    sent: &Sent,
    mut subscription: Subscription,
    mut stop: Stop,
) -> Result<Exit, Error> {
    let mut taken_by: Option<String> = None;
    if sent.repeat {
        // It may have been answered long ago.
        taken_by = sent.run.as_ref().map(ToString::to_string);
    }
    loop {
        let seen = tokio::select! {
            seen = subscription.next() => seen?,
            () = stop.asked() => {
                eprintln!("the thread goes on where it was as soon as runs are advanced again: `aldis work`");
                return Ok(Exit::Interrupted);
            }
        };
        let Seen { cursor, chunk } = seen;
        if chunk["data"]["id"] == sent.signal.id.as_str() {
            taken_by = chunk["runId"].as_str().map(str::to_owned);
        }
        show(desk, thread, cursor, &chunk)?;
        if taken_by.is_some() && chunk["runId"].as_str() == taken_by.as_deref() {
            match chunk["type"].as_str() {
                Some("finish") => return Ok(Exit::Good),
                Some("error") => return Ok(Exit::Bad),
                Some("abort") => return Ok(Exit::Stopped),
                _ => {}
            }
        }
    }
}

fn show(desk: &Desk, thread: &str, cursor: i64, chunk: &Value) -> Result<(), Error> {
    if desk.json() {
        return print::json(&json!({ "cursor": cursor, "chunk": chunk }));
    }
    let payload = &chunk["payload"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match chunk["type"].as_str().unwrap_or_default() {
        "step-start" if payload["restarted"] == true => print::line("\n(once more)"),
        "text-delta" => print::text(&text(&payload["text"])),
        "text-end" => print::line(""),
        "tool-call" => print::line(&format!("[{} {}]", text(&payload["toolName"]), payload["args"])),
        "tool-call-approval" => print::line(&format!(
            "[{0} waits for approval: aldis approve {thread} {1}, or with --decline]",
            text(&payload["toolName"]),
            text(&payload["toolCallId"]),
        )),
        "tool-call-suspended" => print::line(&format!(
            "[{} asks {}: aldis approve {thread} {} --resume JSON]",
            text(&payload["toolName"]),
            payload["suspendPayload"],
            text(&payload["toolCallId"]),
        )),
        "tool-result" => print::line(&format!("[{}: {}]", text(&payload["toolName"]), payload["result"])),
        "tool-error" => print::line(&format!("[{} failed: {}]", text(&payload["toolName"]), text(&payload["error"]))),
        "tool-output-denied" => {
            print::line(&format!("[{} declined: {}]", text(&payload["toolName"]), text(&payload["approval"]["reason"])))
        }
        "error" => {
            eprintln!("the run failed: {}", text(&payload["error"]["message"]));
            Ok(())
        }
        "abort" => {
            eprintln!("the run was aborted");
            Ok(())
        }
        _ => Ok(()),
    }
}

impl From<crate::id::InvalidId> for Error {
    fn from(error: crate::id::InvalidId) -> Self {
        Self::Runtime(runtime::Error::from(error))
    }
}

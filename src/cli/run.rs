//! `aldis run`: starts a run, and waits for its outcome unless told not to.
//!
//! Where another process advances the runs of a SQLite file, the run is queued there.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::engine::with_engine;
use super::error::Error;
use super::stop::Stop;
use super::{Desk, Exit, print};
use crate::clock::{Clock, Instant};
use crate::config::Span;
use crate::failure::Outcome;
use crate::id::RunId;
use crate::payload::Payload;
use crate::run::{IdempotencyKey, IfClosed, IfOpen, KeyKept, StartOptions};
use crate::runtime::{self, Client, RunHandle, Settled, Shown};
use crate::store::Started;

/// Starts a run of a workflow, prints its id, and waits for its outcome.
///
/// Exit code: 0 completed, 1 failed, 2 refused, 3 blocked or cancelled.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// The workflow's name
    workflow: String,
    /// A file with the input as JSON; - for standard input; null if nothing is said
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The run's id; a new one if nothing is said
    #[arg(long)]
    id: Option<String>,
    /// Does not wait for the outcome; whoever advances the runs of the store begins it
    #[arg(long)]
    detach: bool,
    /// When the run is asked to cancel if it is still open: a span such as 90s or 2h, or a time as of RFC 3339
    #[arg(long, value_name = "WHEN")]
    deadline: Option<When>,
    /// A repeat with the same key comes to the same run
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// How long the key is kept after the start; as long as the run is open if nothing is said
    #[arg(long, value_name = "SPAN", requires = "idempotency_key")]
    key_kept: Option<Span>,
    /// If the id belongs to an open run
    #[arg(long, value_enum, default_value_t, value_name = "POLICY")]
    if_open: Open,
    /// If the id belongs to a run that has ended
    #[arg(long, value_enum, default_value_t, value_name = "POLICY")]
    if_closed: Ended,
    /// Begins not before this: a span such as 90s or 2h, or a time as of RFC 3339
    #[arg(long, value_name = "WHEN")]
    delay: Option<When>,
    /// Prints the run's journal once it has settled
    #[arg(long, conflicts_with = "detach")]
    journal: bool,
    /// How long steps may go on after this process was asked to stop
    #[arg(long, default_value = "10s", value_name = "SPAN")]
    grace: Span,
}

/// What to do if the id belongs to an open run.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Open {
    /// Refuse
    #[default]
    Fail,
    /// Wait for that run instead
    UseExisting,
    /// Stop it without cleanup, and start
    TerminateAndStart,
}

/// What to do if the id belongs to a run that has ended.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Ended {
    /// Start again
    #[default]
    Allow,
    /// Start again unless it completed
    AllowIfFailed,
    /// Refuse
    Refuse,
}

/// A span from now, or a time.
#[derive(Debug, Clone, Copy)]
struct When(Instant);

/// A time, or a span before now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Past(pub(super) Instant);

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(Span(span)) = text.parse() {
            return Ok(Self(Clock::System.now() + span));
        }
        time(text).map(Self)
    }
}

impl FromStr for Past {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(Span(span)) => Ok(Self(Clock::System.now() - span)),
            Err(_) => time(text).map(Self),
        }
    }
}

fn time(text: &str) -> Result<Instant, String> {
    text.parse::<jiff::Timestamp>()
        .map(|at| Instant(at.as_millisecond()))
        .map_err(|_| format!("{text:?} is no time; write a span such as 90s or 2h, or 2030-01-31T12:00:00Z"))
}

pub(super) async fn run(desk: &Desk, asked: Run) -> Result<Exit, Error> {
    let input = input(asked.input.as_deref())?;
    let options = options(&asked)?;
    let wanted = Wanted::New { workflow: asked.workflow, input, options: Box::new(options) };
    if asked.detach {
        let client = desk.bare().connect().await?;
        wanted.handle(desk, &client).await?;
        client.store().close().await;
        return Ok(Exit::Good);
    }
    advance_or_wait(desk, wanted, After { journal: asked.journal, grace: asked.grace.0 }).await
}

/// The run whose outcome is waited for.
pub(super) enum Wanted {
    /// One that is to be started.
    New { workflow: String, input: Payload, options: Box<StartOptions> },
    /// The latest one with this id.
    Run(String),
}

impl Wanted {
    async fn handle(self, desk: &Desk, client: &Client) -> Result<RunHandle, Error> {
        match self {
            Self::New { workflow, input, options } => started(desk, client.start(&workflow, input, *options).await?),
            Self::Run(id) => Ok(client.find(&id).await?),
        }
    }
}

/// What is to be done once the run has settled, or this process is asked to stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct After {
    /// Prints the journal.
    pub(super) journal: bool,
    /// How long steps may go on.
    pub(super) grace: Duration,
}

/// Waits for a run's outcome. Where nobody advances the runs of the store, this process does meanwhile.
pub(super) async fn advance_or_wait(desk: &Desk, wanted: Wanted, after: After) -> Result<Exit, Error> {
    with_engine(desk, after.grace, async |client, stop| {
        let run = wanted.handle(desk, &client).await?;
        wait(desk, &run, after, stop).await
    })
    .await
}

fn input(file: Option<&std::path::Path>) -> Result<Payload, Error> {
    let (text, named) = match file {
        None => return Ok(Payload::null()),
        Some(file) if file.as_os_str() == "-" => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(Error::io("the input cannot be read from standard input"))?;
            (text, "standard input".to_owned())
        }
        Some(file) => {
            let read = std::fs::read_to_string(file);
            let text = read.map_err(Error::io(format!("the input cannot be read from {}", file.display())))?;
            (text, file.display().to_string())
        }
    };
    Payload::parse(&text)
        .map_err(|e| Error::Usage(format!("the input in {named} is not one JSON value: {}", e.problem)))
}

fn options(asked: &Run) -> Result<StartOptions, Error> {
    let id = asked.id.as_ref().map(RunId::parse).transpose().map_err(runtime::Error::from)?;
    let kept = asked.key_kept.map_or(KeyKept::WhileOpen, |Span(span)| KeyKept::For(span));
    Ok(StartOptions {
        id,
        if_open: match asked.if_open {
            Open::Fail => IfOpen::Fail,
            Open::UseExisting => IfOpen::UseExisting,
            Open::TerminateAndStart => IfOpen::TerminateAndStart,
        },
        if_closed: match asked.if_closed {
            Ended::Allow => IfClosed::Allow,
            Ended::AllowIfFailed => IfClosed::AllowIfFailed,
            Ended::Refuse => IfClosed::Refuse,
        },
        idempotency_key: asked.idempotency_key.clone().map(|key| IdempotencyKey { key, kept }),
        not_before: asked.delay.map(|When(at)| at),
        deadline: asked.deadline.map(|When(at)| at),
        ..StartOptions::default()
    })
}

/// Prints the id: whatever happens to this process from here on, the run is found by it.
fn started(desk: &Desk, (run, how): (RunHandle, Started)) -> Result<RunHandle, Error> {
    let new = matches!(how, Started::New);
    if desk.json() {
        print::json(&json!({ "id": run.id(), "started": if new { "new" } else { "existing" } }))?;
    } else {
        print::line(run.id().as_str())?;
        if !new {
            eprintln!("run {} was there already", run.id());
        }
    }
    Ok(run)
}

/// Waits until the run has settled, and prints what became of it.
async fn wait(desk: &Desk, run: &RunHandle, after: After, mut stop: Stop) -> Result<Exit, Error> {
    let settled = tokio::select! {
        settled = run.settled() => settled?,
        never = watch(run, desk.json()) => match never {},
        () = stop.asked() => {
            eprintln!("run {} goes on where it was as soon as runs are advanced again: `aldis work`", run.id());
            return Ok(Exit::Interrupted);
        }
    };
    if after.journal {
        super::journal::print(desk, &run.journal().await?)?;
    }
    tell(desk, run, &settled)
}

fn tell(desk: &Desk, run: &RunHandle, settled: &Settled) -> Result<Exit, Error> {
    let id = run.id();
    let (exit, json, text) = match settled {
        Settled::Blocked(reason) => (
            Exit::Stopped,
            json!({ "id": id, "status": "blocked", "code": reason.code(), "reason": reason.to_string() }),
            format!("run {id} is blocked: {reason}"),
        ),
        Settled::Ended(ended) => {
            let unread = ended.signals_unread;
            match &ended.outcome {
                Outcome::Completed(output) => {
                    if desk.json() {
                        let value = json!({
                            "id": id, "status": "completed", "output": output, "signals_unread": unread
                        });
                        print::json(&value)?;
                    } else {
                        print::line(output.as_str())?;
                    }
                    return Ok(Exit::Good);
                }
                Outcome::Failed(failure) => (
                    Exit::Bad,
                    json!({ "id": id, "status": "failed", "failure": failure, "signals_unread": unread }),
                    format!("run {id} failed: {failure}"),
                ),
                Outcome::Cancelled { reason, failure } => (
                    Exit::Stopped,
                    json!({
                        "id": id, "status": "cancelled", "reason": reason, "failure": failure, "signals_unread": unread
                    }),
                    format!("run {id} was cancelled: {reason}"),
                ),
                Outcome::Terminated { reason } => (
                    Exit::Stopped,
                    json!({ "id": id, "status": "terminated", "reason": reason, "signals_unread": unread }),
                    format!("run {id} was terminated: {reason}"),
                ),
            }
        }
    };
    if desk.json() {
        print::json(&json)?
    } else {
        eprintln!("{text}")
    }
    Ok(exit)
}

/// Shows a person at a terminal what the run waits for. Never ends.
async fn watch(run: &RunHandle, json: bool) -> std::convert::Infallible {
    if json || !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
    let spinner = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    spinner.enable_steady_tick(Duration::from_millis(100));
    loop {
        // What cannot be read now is shown another time; the wait itself reports errors.
        if let Ok(shown) = run.show().await {
            spinner.set_message(waits(&shown));
        }
        Clock::System.sleep(Duration::from_millis(500)).await;
    }
}

fn waits(shown: &Shown) -> String {
    let waits: Vec<_> = shown.waits_for.iter().map(super::show::wait).collect();
    if waits.is_empty() { shown.status.to_owned() } else { format!("waits for {}", waits.join("; ")) }
}

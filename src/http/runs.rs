//! Runs of every workflow, as who operates Aldis looks at them: Aldis's own routes, in the forms of `aldis … --json`.

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::caller::Caller;
use super::error::Problem;
use super::extract::{Body, IdempotencyKey, Query};
use super::state::Shared;
use crate::id::Namespace;
use crate::payload::Payload;
use crate::run::Run;
use crate::runtime::{Error, RunHandle};
use crate::signal::{Accepted, SignalKind};
use crate::store::Filter;

/// How many runs a page has, unless it is said.
const RUNS: usize = 100;

/// The most runs of a page.
const RUNS_MAX: usize = 1_000;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/runs", get(list))
        .route("/runs/{run}", get(show))
        .route("/runs/{run}/journal", get(journal))
        .route("/runs/{run}/signal", post(signal))
        .route("/runs/{run}/cancel", post(cancel))
}

/// Newest first; the next page begins before the last one's id.
async fn list(State(shared): State<Shared>, caller: Caller, query: Query) -> Result<axum::Json<Value>, Problem> {
    caller.sees_everything()?;
    let limit = query.count("limit", RUNS)?.min(RUNS_MAX);
    let before = match query.text("before") {
        Some(run) => Some(shared.client.find(&run).await?.key()),
        None => None,
    };
    let filter = Filter {
        namespace: Some(Namespace::default()),
        workflow: query.text("workflow"),
        statuses: query.text("status").map(|words| words.split(',').map(str::to_owned).collect()).unwrap_or_default(),
        before,
    };
    let runs = shared.client.list(&filter, limit).await?;
    let last = runs.last().filter(|_| runs.len() == limit).map(|run| run.id.clone());
    Ok(axum::Json(json!({ "runs": runs.iter().map(Run::summary).collect::<Vec<_>>(), "before": last })))
}

/// Why it is not moving: what it waits for and since when.
async fn show(
    State(shared): State<Shared>,
    caller: Caller,
    Path(run): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    Ok(axum::Json(json!(seen(&shared, &caller, &run).await?.show().await?)))
}

async fn journal(
    State(shared): State<Shared>,
    caller: Caller,
    Path(run): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    let journal = seen(&shared, &caller, &run).await?.journal().await?;
    let lines: Vec<Value> = journal.iter().map(|line| Value::Object(line.flat())).collect();
    Ok(axum::Json(json!({ "events": lines })))
}

#[derive(Deserialize)]
struct Signal {
    name: String,
    #[serde(default)]
    payload: Value,
    id: Option<String>,
}

async fn signal(
    State(shared): State<Shared>,
    caller: Caller,
    Path(run): Path<String>,
    IdempotencyKey(key): IdempotencyKey,
    Body(asked): Body<Signal>,
) -> Result<axum::Json<Value>, Problem> {
    caller.sees_everything()?;
    let run = shared.client.find(&run).await?;
    let payload = Payload::of(&asked.payload).map_err(Error::from)?;
    let sent = run.send(SignalKind::Signal, &asked.name, payload, asked.id.or(key)).await?;
    Ok(axum::Json(told(&sent)))
}

#[derive(Deserialize)]
struct Cancel {
    reason: Option<String>,
}

async fn cancel(
    State(shared): State<Shared>,
    caller: Caller,
    Path(run): Path<String>,
    Body(asked): Body<Cancel>,
) -> Result<axum::Json<Value>, Problem> {
    let run = seen(&shared, &caller, &run).await?;
    let reason = asked.reason.as_deref().unwrap_or("asked for over HTTP");
    Ok(axum::Json(told(&run.cancel(reason, caller.name()).await?)))
}

fn told(accepted: &Accepted) -> Value {
    let (ordinal, repeat) = match accepted {
        Accepted::New { ordinal } => (ordinal, false),
        Accepted::Already { ordinal } => (ordinal, true),
    };
    json!({ "accepted": true, "ordinal": ordinal, "repeat": repeat })
}

/// A run that the caller may see: any, or one that answers a thread of theirs.
async fn seen(shared: &Shared, caller: &Caller, run: &str) -> Result<RunHandle, Problem> {
    let handle = shared.client.find(run).await?;
    match shared.thread_of_run(run).await? {
        Some(thread) => caller.may_see(&thread, None)?,
        None => caller.sees_everything()?,
    }
    Ok(handle)
}

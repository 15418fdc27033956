//! Runs of every workflow, as who operates Aldis looks at them: Aldis's own routes, in the forms of `aldis … --json`.

use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

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

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(journal))
        .routes(routes!(signal))
        .routes(routes!(cancel))
}

/// Newest first; the next page begins before the last one's id.
#[utoipa::path(
    get,
    path = "/runs",
    operation_id = "listRuns",
    tag = "Runs",
    summary = "Lists runs of every workflow",
    description = "The newest first; the next page begins before the id that is answered as `before`. Not for keys that open one resource.",
    params(
        ("workflow" = Option<String>, Query, description = "Only of this workflow"),
        ("status" = Option<String>, Query, description = "Only with one of these, separated by commas"),
        ("before" = Option<String>, Query, description = "Only those before this run"),
        ("limit" = Option<u32>, Query, description = "How many; 100 unless it is said")
    ),
    responses((status = 200, description = "A page of runs", body = Object, example = json!({ "runs": [{ "id": "019…", "namespace": "default", "workflow": "refund", "version": 1, "status": "waiting", "events": 7, "signals_pending": 0, "created_at": 1767323045000_i64, "updated_at": 1767323045000_i64 }], "before": null })))
)]
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
#[utoipa::path(
    get,
    path = "/runs/{run}",
    operation_id = "showRun",
    tag = "Runs",
    summary = "Says how a run stands",
    description = "What it waits for and since when, or why it is not moving.",
    params(
        ("run" = String, Path, description = "The run's id", min_length = 1)
    ),
    responses((status = 200, description = "How it stands", body = Object, example = json!({ "id": "019…", "namespace": "default", "workflow": "refund", "version": 1, "status": "waiting", "waits_for": [{ "kind": "signal", "name": "approval" }], "undos": 0, "signals_pending": 0 })))
)]
async fn show(
    State(shared): State<Shared>,
    caller: Caller,
    Path(run): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    Ok(axum::Json(json!(seen(&shared, &caller, &run).await?.show().await?)))
}

#[utoipa::path(
    get,
    path = "/runs/{run}/journal",
    operation_id = "readJournal",
    tag = "Runs",
    summary = "Reads a run's journal",
    description = "All its events, in order.",
    params(
        ("run" = String, Path, description = "The run's id", min_length = 1)
    ),
    responses((status = 200, description = "Its events", body = Object, example = json!({ "events": [{ "seq": 1, "event": "RunStarted" }] })))
)]
async fn journal(
    State(shared): State<Shared>,
    caller: Caller,
    Path(run): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    let journal = seen(&shared, &caller, &run).await?.journal().await?;
    let lines: Vec<Value> = journal.iter().map(|line| Value::Object(line.flat())).collect();
    Ok(axum::Json(json!({ "events": lines })))
}

#[derive(Deserialize, ToSchema)]
struct Signal {
    /// By which the workflow waits for it.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// Its value; null if it is absent.
    #[serde(default)]
    payload: Value,
    /// The sender's own id: the same again is the same signal.
    #[schema(min_length = 1, max_length = 100)]
    id: Option<String>,
}

#[utoipa::path(
    post,
    path = "/runs/{run}/signal",
    operation_id = "signalRun",
    tag = "Runs",
    summary = "Sends a signal to a run",
    description = "Not for keys that open one resource.",
    params(
        ("run" = String, Path, description = "The run's id", min_length = 1),
        ("idempotency-key" = Option<String>, Header, description = "The sender's key: the same request again under it is the same one, for 24 hours", min_length = 1, max_length = 255, pattern = "^[!-~]+$")
    ),
    request_body = Signal,
    responses((status = 200, description = "It is accepted", body = Object, example = json!({ "accepted": true, "ordinal": 3, "repeat": false })))
)]
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

#[derive(Deserialize, ToSchema)]
struct Cancel {
    reason: Option<String>,
}

#[utoipa::path(
    post,
    path = "/runs/{run}/cancel",
    operation_id = "cancelRun",
    tag = "Runs",
    summary = "Asks a run to cancel",
    description = "",
    params(
        ("run" = String, Path, description = "The run's id", min_length = 1)
    ),
    request_body = Cancel,
    responses((status = 200, description = "It is accepted", body = Object, example = json!({ "accepted": true, "ordinal": 3, "repeat": false })))
)]
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

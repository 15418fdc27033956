//! Runs of workflows are begun, and followed.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::caller::Caller;
use super::super::error::Problem;
use super::super::extract::{Body, IdempotencyKey, Query};
use super::super::state::Shared;
use super::records::{self, Place, Wanted};
use super::told::Told;
use super::watched::Watched;
use super::{known, run_of};
use crate::id::RunId;
use crate::payload::Payload;
use crate::run::{self, IfClosed, IfOpen, KeyKept, StartOptions};
use crate::runtime::{Error, RunHandle};
use crate::store::Started;

/// How long a key is kept under which something was sent (H13.1).
const KEY_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(start))
}

/// Routes without a bound in time.
pub(super) fn unhurried() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(start_async)).routes(routes!(streamed)).routes(routes!(observe))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Begin {
    /// The input, as the workflow's `inputSchema` says; null if it is absent.
    #[serde(default)]
    input_data: Value,
    /// Of `stream`: whether it ends where the run waits for somebody; it does unless this is false.
    close_on_suspend: Option<bool>,
}

#[utoipa::path(
    post,
    path = "/workflows/{workflow}/create-run",
    operation_id = "createWorkflowRun",
    tag = "Workflows",
    summary = "Gives an id for a run",
    description = "Nothing runs and nothing is kept: the run is there once it is started under this id. Not for keys that open one resource.",
    params(
        ("workflow" = String, Path, description = "The workflow's name", min_length = 1),
        ("runId" = Option<String>, Query, description = "The id, if it is chosen already", min_length = 1, max_length = 200)
    ),
    responses((status = 200, description = "The id", body = Object, example = json!({ "runId": "019…" })))
)]
async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    Path(workflow): Path<String>,
    query: Query,
) -> Result<axum::Json<Value>, Problem> {
    let given = query.text("runId").map(RunId::parse).transpose().map_err(Error::from)?;
    known(&shared, &workflow).await?;
    caller.sees_everything()?;
    Ok(axum::Json(json!({ "runId": given.unwrap_or_else(RunId::generate) })))
}

#[utoipa::path(
    post,
    path = "/workflows/{workflow}/start",
    operation_id = "startWorkflow",
    tag = "Workflows",
    summary = "Starts a run",
    description = "Once under its id: the same again is the same run, with another input it is refused. Not for keys that open one resource.",
    params(
        ("workflow" = String, Path, description = "The workflow's name", min_length = 1),
        ("runId" = String, Query, description = "The run's id", min_length = 1, max_length = 200),
        ("idempotency-key" = Option<String>, Header, description = "The sender's key: the same request again under it is the same one, for 24 hours", min_length = 1, max_length = 255, pattern = "^[!-~]+$")
    ),
    request_body = Begin,
    responses((status = 200, description = "It is accepted", body = Object, example = json!({ "message": "Workflow run started" })))
)]
async fn start(
    State(shared): State<Shared>,
    caller: Caller,
    Path(workflow): Path<String>,
    query: Query,
    IdempotencyKey(key): IdempotencyKey,
    Body(asked): Body<Begin>,
) -> Result<axum::Json<Value>, Problem> {
    let run = query.required("runId")?;
    begun(&shared, &caller, &workflow, Some(run), key, &asked.input_data).await?;
    Ok(axum::Json(json!({ "message": "Workflow run started" })))
}

#[utoipa::path(
    post,
    path = "/workflows/{workflow}/start-async",
    operation_id = "startWorkflowAsync",
    tag = "Workflows",
    summary = "Starts a run, and waits for its result",
    description = "Until it has ended, waits for somebody (`suspended`) or needs an operator (`paused`). Who hangs up stops nothing. Not for keys that open one resource.",
    params(
        ("workflow" = String, Path, description = "The workflow's name", min_length = 1),
        ("runId" = Option<String>, Query, description = "The run's id; a new one unless it is said", min_length = 1, max_length = 200),
        ("idempotency-key" = Option<String>, Header, description = "The sender's key: the same request again under it is the same one, for 24 hours", min_length = 1, max_length = 255, pattern = "^[!-~]+$")
    ),
    request_body = Begin,
    responses((status = 200, description = "What it came to", body = Object, example = json!({ "status": "suspended", "runId": "019…", "input": {}, "steps": { "charge": { "status": "success", "payload": {}, "output": {}, "startedAt": 1767323045000_i64, "endedAt": 1767323045000_i64 } }, "suspended": [["approval"]], "suspendPayload": { "approval": { "kind": "signal", "name": "approval" } } })))
)]
async fn start_async(
    State(shared): State<Shared>,
    caller: Caller,
    Path(workflow): Path<String>,
    query: Query,
    IdempotencyKey(key): IdempotencyKey,
    Body(asked): Body<Begin>,
) -> Result<axum::Json<Value>, Problem> {
    let run = begun(&shared, &caller, &workflow, query.text("runId"), key, &asked.input_data).await?;
    result_of(&shared, run).await
}

#[utoipa::path(
    post,
    path = "/workflows/{workflow}/stream",
    operation_id = "streamWorkflow",
    tag = "Workflows",
    summary = "Starts a run, and reads what it does",
    description = "Records of JSON, each followed by the byte 0x1E, until the run ends or waits for somebody. Who hangs up stops nothing. Not for keys that open one resource.",
    params(
        ("workflow" = String, Path, description = "The workflow's name", min_length = 1),
        ("runId" = String, Query, description = "The run's id", min_length = 1, max_length = 200),
        ("idempotency-key" = Option<String>, Header, description = "The sender's key: the same request again under it is the same one, for 24 hours", min_length = 1, max_length = 255, pattern = "^[!-~]+$")
    ),
    request_body = Begin,
    responses((status = 200, description = "The run's records", body = String, content_type = "text/plain"))
)]
async fn streamed(
    State(shared): State<Shared>,
    caller: Caller,
    Path(workflow): Path<String>,
    query: Query,
    IdempotencyKey(key): IdempotencyKey,
    Body(asked): Body<Begin>,
) -> Result<Response, Problem> {
    let (id, place) = (query.required("runId")?, Place::take(&shared)?);
    let run = begun(&shared, &caller, &workflow, Some(id), key, &asked.input_data).await?;
    let ends_at_rest = asked.close_on_suspend.unwrap_or(true);
    Ok(records::answer(&shared, place, run, Wanted { told: Told::default(), skips: 0, ends_at_rest }))
}

#[utoipa::path(
    post,
    path = "/workflows/{workflow}/observe",
    operation_id = "observeWorkflow",
    tag = "Workflows",
    summary = "Reads what a run has done and does",
    description = "Records as `stream` has them, until the run ends. They are always the same, so an offset says where to go on. Not for keys that open one resource.",
    params(
        ("workflow" = String, Path, description = "The workflow's name", min_length = 1),
        ("runId" = String, Query, description = "The run's id", min_length = 1, max_length = 200),
        ("offset" = Option<u32>, Query, description = "How many records to leave out")
    ),
    responses((status = 200, description = "The run's records", body = String, content_type = "text/plain"))
)]
async fn observe(
    State(shared): State<Shared>,
    caller: Caller,
    Path(workflow): Path<String>,
    query: Query,
) -> Result<Response, Problem> {
    let (id, skips) = (query.required("runId")?, query.count("offset", 0)?);
    let run = run_of(&shared, &caller, &workflow, &id).await?;
    let wanted = Wanted { told: Told::default(), skips, ends_at_rest: false };
    Ok(records::answer(&shared, Place::take(&shared)?, run, wanted))
}

/// A run's result once it has ended or waits for somebody (H11.2).
pub(super) async fn result_of(shared: &Shared, run: RunHandle) -> Result<axum::Json<Value>, Problem> {
    let mut watched = Watched::new(run.clone());
    let (history, told) = tokio::select! {
        rested = watched.at_rest() => rested.map_err(|error| unfinished(&run, &error.to_string()))?,
        () = shared.draining.cancelled() => return Err(unfinished(&run, "this server is being stopped")),
    };
    Ok(axum::Json(told.result(&history.run)))
}

/// Not a status of 500 or above, which has clients say it again: it was accepted (H1.7).
fn unfinished(run: &RunHandle, why: &str) -> Problem {
    let what = format!("run {} was accepted and goes on, but its result is not told here: {why}", run.id());
    Problem::new(StatusCode::REQUEST_TIMEOUT, "run_unfinished", what)
        .remedied("look it up, or observe it, by its runId")
}

/// A run that is there once, whether it was begun now or by the same request before.
async fn begun(
    shared: &Shared,
    caller: &Caller,
    workflow: &str,
    run: Option<String>,
    key: Option<String>,
    input: &Value,
) -> Result<RunHandle, Problem> {
    let id = run.map(RunId::parse).transpose().map_err(Error::from)?;
    known(shared, workflow).await?;
    caller.sees_everything()?;
    let named = id.is_some();
    let options = StartOptions {
        id: id.clone(),
        if_open: if named { IfOpen::UseExisting } else { IfOpen::Fail },
        if_closed: if named { IfClosed::Refuse } else { IfClosed::Allow },
        idempotency_key: key.map(|key| run::IdempotencyKey { key, kept: KeyKept::For(KEY_KEPT) }),
        ..StartOptions::default()
    };
    let input_given = Payload::of(input).map_err(Error::from)?;
    match (shared.client.start(workflow, input_given, options).await, id) {
        (Ok((run, Started::New)), _) => Ok(run),
        (Ok((run, Started::Existing(_))), _) => same(run, workflow, input).await,
        (Err(error), Some(id)) if error.code() == "run_closed" => {
            same(shared.client.find(id.as_str()).await?, workflow, input).await
        }
        (Err(error), _) => Err(error.into()),
    }
}

/// A run that was begun before, if that was by the same request.
async fn same(run: RunHandle, workflow: &str, input: &Value) -> Result<RunHandle, Problem> {
    if run.row().await?.workflow == workflow && run.input::<Value>().await? == *input {
        return Ok(run);
    }
    let what = format!("run {} was begun before with another input, or of another workflow", run.id());
    Err(Problem::new(StatusCode::CONFLICT, "run_id_in_use", what).remedied("start it under an id of its own"))
}

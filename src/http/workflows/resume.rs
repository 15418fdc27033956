//! Runs that wait for somebody go on: what is given goes as the signal, or the update, that they wait for.

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
use super::begin::result_of;
use super::records::{self, Place, Wanted};
use super::run_of;
use super::told::{Is, Step, Told};
use crate::journal::{Event, Recorded};
use crate::payload::Payload;
use crate::runtime::{Error, RunHandle};
use crate::signal::SignalKind;
use crate::store::History;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(resume)).routes(routes!(resume_no_wait))
}

/// Routes without a bound in time.
pub(super) fn unhurried() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(resume_async)).routes(routes!(resume_stream))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Resume {
    /// The suspended step, or the path to it, of which the last one counts; may be absent if the run waits for one thing only.
    #[schema(value_type = Option<String>)]
    step: Option<StepName>,
    /// What it is given, as its `resumeSchema` says; null if it is absent.
    #[serde(default)]
    resume_data: Value,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a step's name, or a list of names")]
enum StepName {
    One(String),
    Path(Vec<String>),
}

impl StepName {
    fn last(&self) -> Option<&str> {
        match self {
            Self::One(name) => Some(name),
            Self::Path(names) => names.last().map(String::as_str),
        }
    }
}

#[utoipa::path(
    post,
    path = "/workflows/{workflow}/resume",
    operation_id = "resumeWorkflow",
    tag = "Workflows",
    summary = "Gives a run what it waits for",
    description = "As the signal or update of the step's name. Once for each wait: who comes second with something else is refused (409), as is what comes for a run that has ended or does not wait. Not for keys that open one resource.",
    params(
        ("workflow" = String, Path, description = "The workflow's name", min_length = 1),
        ("runId" = String, Query, description = "The run's id", min_length = 1, max_length = 200),
        ("idempotency-key" = Option<String>, Header, description = "The sender's key: the same request again under it is the same one", min_length = 1, max_length = 255, pattern = "^[!-~]+$")
    ),
    request_body = Resume,
    responses((status = 200, description = "It is accepted", body = Object, example = json!({ "message": "Workflow run resumed" })))
)]
async fn resume(
    State(shared): State<Shared>,
    caller: Caller,
    Path(workflow): Path<String>,
    query: Query,
    IdempotencyKey(key): IdempotencyKey,
    Body(asked): Body<Resume>,
) -> Result<axum::Json<Value>, Problem> {
    resumed(&shared, &caller, &workflow, &query, key, &asked).await?;
    Ok(axum::Json(json!({ "message": "Workflow run resumed" })))
}

#[utoipa::path(
    post,
    path = "/workflows/{workflow}/resume-no-wait",
    operation_id = "resumeWorkflowNoWait",
    tag = "Workflows",
    summary = "Gives a run what it waits for, and answers with its id",
    description = "As `resume`.",
    params(
        ("workflow" = String, Path, description = "The workflow's name", min_length = 1),
        ("runId" = String, Query, description = "The run's id", min_length = 1, max_length = 200),
        ("idempotency-key" = Option<String>, Header, description = "The sender's key: the same request again under it is the same one", min_length = 1, max_length = 255, pattern = "^[!-~]+$")
    ),
    request_body = Resume,
    responses((status = 200, description = "It is accepted", body = Object, example = json!({ "runId": "019…" })))
)]
async fn resume_no_wait(
    State(shared): State<Shared>,
    caller: Caller,
    Path(workflow): Path<String>,
    query: Query,
    IdempotencyKey(key): IdempotencyKey,
    Body(asked): Body<Resume>,
) -> Result<axum::Json<Value>, Problem> {
    let (run, _) = resumed(&shared, &caller, &workflow, &query, key, &asked).await?;
    Ok(axum::Json(json!({ "runId": run.id() })))
}

#[utoipa::path(
    post,
    path = "/workflows/{workflow}/resume-async",
    operation_id = "resumeWorkflowAsync",
    tag = "Workflows",
    summary = "Gives a run what it waits for, and waits for its result",
    description = "As `resume`; answered as `start-async`.",
    params(
        ("workflow" = String, Path, description = "The workflow's name", min_length = 1),
        ("runId" = String, Query, description = "The run's id", min_length = 1, max_length = 200),
        ("idempotency-key" = Option<String>, Header, description = "The sender's key: the same request again under it is the same one", min_length = 1, max_length = 255, pattern = "^[!-~]+$")
    ),
    request_body = Resume,
    responses((status = 200, description = "What it came to", body = Object, example = json!({ "status": "success", "runId": "019…", "input": {}, "steps": {}, "result": { "paid": true, "decided_by": "ann" } })))
)]
async fn resume_async(
    State(shared): State<Shared>,
    caller: Caller,
    Path(workflow): Path<String>,
    query: Query,
    IdempotencyKey(key): IdempotencyKey,
    Body(asked): Body<Resume>,
) -> Result<axum::Json<Value>, Problem> {
    let (run, _) = resumed(&shared, &caller, &workflow, &query, key, &asked).await?;
    result_of(&shared, run).await
}

#[utoipa::path(
    post,
    path = "/workflows/{workflow}/resume-stream",
    operation_id = "resumeWorkflowStream",
    tag = "Workflows",
    summary = "Gives a run what it waits for, and reads what it does then",
    description = "As `resume`; answered as `stream`, with what follows.",
    params(
        ("workflow" = String, Path, description = "The workflow's name", min_length = 1),
        ("runId" = String, Query, description = "The run's id", min_length = 1, max_length = 200),
        ("idempotency-key" = Option<String>, Header, description = "The sender's key: the same request again under it is the same one", min_length = 1, max_length = 255, pattern = "^[!-~]+$")
    ),
    request_body = Resume,
    responses((status = 200, description = "The run's records", body = String, content_type = "text/plain"))
)]
async fn resume_stream(
    State(shared): State<Shared>,
    caller: Caller,
    Path(workflow): Path<String>,
    query: Query,
    IdempotencyKey(key): IdempotencyKey,
    Body(asked): Body<Resume>,
) -> Result<Response, Problem> {
    let place = Place::take(&shared)?;
    let (run, told) = resumed(&shared, &caller, &workflow, &query, key, &asked).await?;
    Ok(records::answer(&shared, place, run, Wanted { told, skips: 0, ends_at_rest: true }))
}

/// A run that was given what it waits for, and what it had told before.
async fn resumed(
    shared: &Shared,
    caller: &Caller,
    workflow: &str,
    query: &Query,
    key: Option<String>,
    asked: &Resume,
) -> Result<(RunHandle, Told), Problem> {
    let id = query.required("runId")?;
    let run = run_of(shared, caller, workflow, &id).await?;
    let history = run.history().await?;
    let told = Told::of(&history);
    if key.as_deref().is_some_and(|key| was_sent(&history, key)) {
        return Ok((run, told));
    }
    if told.has_ended() {
        return Err(not_waiting(format!("run {id} has ended ({})", told.status(&history.run))));
    }
    let step = chosen(&told, asked.step.as_ref().and_then(StepName::last), &id)?;
    let Is::Suspended(kind) = step.is else { return Err(not_waiting(format!("step {:?} is not suspended", step.id))) };
    // One that is accepted for a wait is the only one: the next has its id, and is refused if it says something else.
    let signal = key.unwrap_or_else(|| format!("resume:{}", step.seq));
    if history.pending.iter().any(|sent| sent.kind == kind && sent.name == step.name && sent.id != signal) {
        return Err(not_waiting(format!("step {:?} of run {id} was resumed already", step.id)));
    }
    send(&run, kind, &step.name, signal, &asked.resume_data).await?;
    Ok((run, told))
}

async fn send(run: &RunHandle, kind: SignalKind, name: &str, id: String, data: &Value) -> Result<(), Problem> {
    let payload = Payload::of(data).map_err(Error::from)?;
    run.send(kind, name, payload, Some(id)).await?;
    Ok(())
}

/// Whether a run was given something under an id.
fn was_sent(history: &History, id: &str) -> bool {
    let took = |line: &Recorded| match &line.event {
        Event::SignalsTaken(taken) => taken.signals.iter().any(|signal| signal.id == id),
        _ => false,
    };
    history.pending.iter().any(|sent| sent.id == id) || history.journal.iter().any(took)
}

/// The suspended step that is meant: by its id or its name, or the only one there is.
fn chosen<'a>(told: &'a Told, wanted: Option<&str>, run: &str) -> Result<&'a Step, Problem> {
    let all: Vec<&Step> = told.suspended().collect();
    let ids = || all.iter().map(|step| step.id.as_str()).collect::<Vec<_>>().join(", ");
    match (wanted, all.as_slice()) {
        (_, []) => Err(not_waiting(format!("run {run} waits for nothing from outside"))),
        (None, [only]) => Ok(only),
        (None, _) => Err(Problem::body("step", format!("expected one of those that the run waits for: {}", ids()))),
        (Some(wanted), all) => {
            let by_id = all.iter().find(|step| step.id == wanted);
            let found = by_id.or_else(|| all.iter().find(|step| step.name == wanted));
            found
                .copied()
                .ok_or_else(|| not_waiting(format!("run {run} does not wait for {wanted:?}, but for {}", ids())))
        }
    }
}

/// H11.5.
fn not_waiting(what: String) -> Problem {
    Problem::new(StatusCode::CONFLICT, "run_not_suspended", what)
        .remedied("look the run up: its status and its steps say how it stands")
}

//! Workflows over the wire (section 11): which there are, and their runs, by the words that interfaces have for them.
//!
//! A step is a step of the run's journal, and a wait for a signal or an update is a suspended step of that name: resuming it
//! sends the signal. Which steps a workflow has is in its code alone, so a description names what it accepts. Runs of
//! workflows belong to no resource: they are not for keys that open one.

mod begin;
mod past;
mod records;
mod resume;
mod told;
mod watched;

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::error::Problem;
use super::state::Shared;
use crate::payload::Payload;
use crate::runtime::{Error, RunHandle};
use crate::store::Declared;
use crate::thread::turn_of;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    let described = OpenApiRouter::new().routes(routes!(list)).routes(routes!(describe));
    described.merge(begin::routes()).merge(resume::routes()).merge(past::routes())
}

/// Routes without a bound in time: an answer takes as long as its run.
pub(super) fn unhurried() -> OpenApiRouter<Shared> {
    begin::unhurried().merge(resume::unhurried())
}

/// All workflows of this store that are nobody's turns, by their names; of each its newest version.
async fn declared(shared: &Shared) -> Result<BTreeMap<String, Declared>, Problem> {
    let turn = turn_of("");
    let all = shared.client.store().declared().await.map_err(Error::from)?;
    let all = all.into_iter().filter(|declared| !declared.workflow.starts_with(&turn));
    Ok(all.map(|declared| (declared.workflow.clone(), declared)).collect())
}

/// A workflow that some program has declared in this store.
async fn known(shared: &Shared, name: &str) -> Result<Declared, Problem> {
    let unknown = || {
        Problem::new(StatusCode::NOT_FOUND, "workflow_unknown", "Workflow not found")
            .remedied("GET /workflows lists them; agents are reached by their own routes")
    };
    declared(shared).await?.remove(name).ok_or_else(unknown)
}

/// A run of this workflow, for who may see the runs of workflows.
async fn run_of(shared: &Shared, caller: &Caller, workflow: &str, run: &str) -> Result<RunHandle, Problem> {
    known(shared, workflow).await?;
    caller.sees_everything()?;
    let none = || Problem::new(StatusCode::NOT_FOUND, "run_unknown", "Workflow run not found");
    let handle = match shared.client.find(run).await {
        Ok(handle) => handle,
        Err(Error::UnknownRun { .. }) => return Err(none()),
        Err(error) => return Err(error.into()),
    };
    if handle.row().await?.workflow == workflow { Ok(handle) } else { Err(none()) }
}

/// H11.1: an object, not a list.
#[utoipa::path(
    get,
    path = "/workflows",
    operation_id = "listWorkflows",
    tag = "Workflows",
    summary = "Lists workflows",
    description = "All workflows of this store by their names; the turns of agents are not among them.",
    params(
        ("partial" = Option<bool>, Query, description = "Shorter is fine; takes no effect")
    ),
    responses((status = 200, description = "Workflows by their names", body = Object, example = json!({ "refund": { "name": "refund", "steps": { "approval": { "id": "approval", "resumeSchema": "{\"json\":{\"type\":\"object\"}}" } }, "allSteps": {}, "stepGraph": [], "inputSchema": "{\"json\":{\"type\":\"object\"}}", "outputSchema": "{\"json\":{\"type\":\"object\"}}", "origin": "code" } })))
)]
async fn list(State(shared): State<Shared>) -> Result<axum::Json<Value>, Problem> {
    let all = declared(&shared).await?;
    let described: Map<String, Value> = all.into_iter().map(|(name, it)| (name, described(&it))).collect();
    Ok(axum::Json(described.into()))
}

#[utoipa::path(
    get,
    path = "/workflows/{workflow}",
    operation_id = "describeWorkflow",
    tag = "Workflows",
    summary = "Describes a workflow",
    description = "What it takes, returns and waits for. Its other steps are in its code alone.",
    params(
        ("workflow" = String, Path, description = "The workflow's name", min_length = 1)
    ),
    responses((status = 200, description = "The workflow", body = Object, example = json!({ "name": "refund", "steps": { "approval": { "id": "approval", "resumeSchema": "{\"json\":{\"type\":\"object\"}}" } }, "allSteps": {}, "stepGraph": [], "inputSchema": "{\"json\":{\"type\":\"object\"}}", "outputSchema": "{\"json\":{\"type\":\"object\"}}", "origin": "code" })))
)]
async fn describe(State(shared): State<Shared>, Path(workflow): Path<String>) -> Result<axum::Json<Value>, Problem> {
    Ok(axum::Json(described(&known(&shared, &workflow).await?)))
}

fn described(declared: &Declared) -> Value {
    let accepts: Map<String, Value> = declared.signals.read().unwrap_or_default();
    let step = |(name, is): (String, Value)| {
        let described = json!({ "id": name, "resumeSchema": schema(&is["schema"]) });
        (name, described)
    };
    let steps: Map<String, Value> = accepts.into_iter().map(step).collect();
    json!({
        "name": declared.workflow,
        "steps": steps,
        "allSteps": steps,
        "stepGraph": [],
        "inputSchema": schema(&value(&declared.input)),
        "outputSchema": schema(&value(&declared.output)),
        "origin": "code",
    })
}

/// Schemas are JSON in a text, as the client's helper wants them (H9.2).
fn schema(schema: &Value) -> String {
    json!({ "json": schema }).to_string()
}

/// A payload as a value; it holds nothing but JSON.
fn value(payload: &Payload) -> Value {
    payload.read().unwrap_or_default()
}

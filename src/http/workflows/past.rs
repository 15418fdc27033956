//! Runs of a workflow are looked up, listed and cancelled.

use axum::extract::{Path, State};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::caller::Caller;
use super::super::error::Problem;
use super::super::extract::{Query, instant};
use super::super::state::Shared;
use super::told::Told;
use super::{known, run_of};
use crate::clock::Instant;
use crate::id::{Namespace, RunKey};
use crate::run::Run;
use crate::runtime::Error;
use crate::store::{Filter, History};

/// The most runs of a page, and how many it has unless it is said.
const PAGE_MAX: usize = 100;

/// How many of the newest runs a list is about.
const LISTED_MAX: usize = 10_000;

/// How many rows are read at once.
const ROWS: usize = 1_000;

/// What is told of a run unless less is asked for.
const FIELDS: [&str; 9] = [
    "payload",
    "result",
    "error",
    "steps",
    "activeStepsPath",
    "suspendedPaths",
    "waitingPaths",
    "resumeLabels",
    "serializedStepGraph",
];

/// Words for how a run stands (H11.3), and those of the store under which such a run may be.
const STATUSES: [(&str, &[&str]); 11] = [
    ("pending", &["due"]),
    ("running", &["due", "running"]),
    ("waiting", &["waiting"]),
    ("suspended", &["waiting"]),
    ("paused", &["blocked"]),
    ("success", &["completed"]),
    ("failed", &["failed"]),
    ("canceled", &["cancelled", "terminated"]),
    ("bailed", &[]),
    ("tripwire", &[]),
    ("skipped", &[]),
];

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(one)).routes(routes!(cancel))
}

#[utoipa::path(
    get,
    path = "/workflows/{workflow}/runs",
    operation_id = "listWorkflowRuns",
    tag = "Workflows",
    summary = "Lists runs of a workflow",
    description = "The newest first, of the newest 10 000. Not for keys that open one resource.",
    params(
        ("workflow" = String, Path, description = "The workflow's name", min_length = 1),
        ("status" = Option<String>, Query, description = "Only with this status, such as `suspended`"),
        ("fromDate" = Option<String>, Query, description = "Only those begun at this time or later"),
        ("toDate" = Option<String>, Query, description = "Only those begun at this time or earlier"),
        ("page" = Option<u32>, Query, description = "Which page, from 0"),
        ("perPage" = Option<String>, Query, description = "How many; 100 unless it is said, and at the most"),
        ("limit" = Option<String>, Query, description = "How many, as `perPage`; `false` for as many as there may be"),
        ("offset" = Option<u32>, Query, description = "How many to leave out, instead of pages"),
        ("resourceId" = Option<String>, Query, description = "Runs of workflows are nobody's: with it there are none")
    ),
    responses((status = 200, description = "A page of runs", body = Object, example = json!({ "runs": [{ "workflowName": "refund", "runId": "019…", "snapshot": { "runId": "019…", "status": "suspended", "context": {}, "value": {} }, "resourceId": null, "createdAt": "2026-01-02T03:04:05.000Z", "updatedAt": "2026-01-02T03:04:05.000Z" }], "total": 1 })))
)]
async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Path(workflow): Path<String>,
    query: Query,
) -> Result<axum::Json<Value>, Problem> {
    let wanted = Wanted::of(&query)?;
    known(&shared, &workflow).await?;
    caller.sees_everything()?;
    let found = if query.text("resourceId").is_some() { Vec::new() } else { wanted.find(&shared, &workflow).await? };
    let page: Vec<RunKey> = found.iter().skip(wanted.offset).take(wanted.size).copied().collect();
    let runs: Vec<Value> = told(&shared, &page).await?.iter().map(|(history, told)| listed(history, told)).collect();
    Ok(axum::Json(json!({ "runs": runs, "total": found.len() })))
}

fn listed(History { run, .. }: &History, told: &Told) -> Value {
    let mut snapshot = told.result(run);
    let context = snapshot["steps"].take();
    snapshot["context"] = context;
    snapshot["value"] = json!({});
    snapshot["timestamp"] = json!(run.updated_at);
    for field in ["activeStepsPath", "suspendedPaths", "serializedStepGraph"] {
        snapshot[field] = told.field(field).unwrap_or_default();
    }
    let mut listed = of_row(run);
    listed["snapshot"] = snapshot;
    listed
}

fn of_row(run: &Run) -> Value {
    json!({
        "runId": run.id,
        "workflowName": run.workflow,
        "resourceId": null,
        "createdAt": run.created_at.to_string(),
        "updatedAt": run.updated_at.to_string(),
    })
}

/// What runs are and tell, in this order.
async fn told(shared: &Shared, runs: &[RunKey]) -> Result<Vec<(History, Told)>, Problem> {
    let histories = shared.client.store().history(runs).await.map_err(Error::from)?;
    let read = |history: Result<History, crate::store::Unreadable>| {
        let history = history.map_err(|unreadable| Error::Undecipherable(unreadable.problem))?;
        let told = Told::of(&history);
        Ok((history, told))
    };
    histories.into_iter().map(read).collect()
}

/// Which runs are asked for.
struct Wanted {
    status: Option<(&'static str, &'static [&'static str])>,
    from: Option<Instant>,
    to: Option<Instant>,
    offset: usize,
    size: usize,
}

impl Wanted {
    fn of(query: &Query) -> Result<Self, Problem> {
        let date = |name: &str| query.text(name).map(|text| instant(name, &text)).transpose();
        let size = size(query, "perPage")?.or(size(query, "limit")?).unwrap_or(PAGE_MAX).min(PAGE_MAX);
        let first_of_page = query.count("page", 0)?.saturating_mul(size);
        Ok(Self {
            status: query.text("status").map(|word| status(&word)).transpose()?,
            from: date("fromDate")?,
            to: date("toDate")?,
            offset: query.count("offset", first_of_page)?,
            size,
        })
    }

    fn is_of_time(&self, run: &Run) -> bool {
        self.from.is_none_or(|from| run.created_at >= from) && self.to.is_none_or(|to| run.created_at <= to)
    }

    /// All that fit, the newest first.
    async fn find(&self, shared: &Shared, workflow: &str) -> Result<Vec<RunKey>, Problem> {
        let mut filter = Filter {
            namespace: Some(Namespace::default()),
            workflow: Some(workflow.to_owned()),
            statuses: Vec::new(),
            before: None,
        };
        if let Some((_, words)) = self.status {
            if words.is_empty() {
                return Ok(Vec::new());
            }
            filter.statuses = words.iter().map(|&word| word.to_owned()).collect();
        }
        let mut found = Vec::new();
        for _ in 0..LISTED_MAX / ROWS {
            let rows = shared.client.list(&filter, ROWS).await?;
            found.extend(rows.iter().filter(|run| self.is_of_time(run)).map(|run| run.key));
            filter.before = rows.last().map(|run| run.key);
            if rows.len() < ROWS {
                break;
            }
        }
        match self.status {
            // The journal tells these apart.
            Some((word @ ("pending" | "running" | "waiting" | "suspended"), _)) => standing(shared, word, &found).await,
            _ => Ok(found),
        }
    }
}

/// Those of these runs that stand so.
async fn standing(shared: &Shared, word: &str, runs: &[RunKey]) -> Result<Vec<RunKey>, Problem> {
    let mut found = Vec::new();
    for some in runs.chunks(PAGE_MAX) {
        let told = told(shared, some).await?;
        let fit = told.iter().filter(|(history, told)| told.status(&history.run) == word);
        found.extend(fit.map(|(history, _)| history.run.key));
    }
    Ok(found)
}

/// A number of runs; `false` where as many are wanted as there may be.
fn size(query: &Query, name: &str) -> Result<Option<usize>, Problem> {
    match query.text(name).as_deref() {
        None => Ok(None),
        Some("false") => Ok(Some(PAGE_MAX)),
        Some(_) => query.count(name, PAGE_MAX).map(Some),
    }
}

fn status(word: &str) -> Result<(&'static str, &'static [&'static str]), Problem> {
    let known = STATUSES.iter().find(|(known, _)| *known == word);
    let words = || STATUSES.map(|(word, _)| word).join(", ");
    known.copied().ok_or_else(|| Problem::query("status", format!("expected one of {}, found {word:?}", words())))
}

#[utoipa::path(
    get,
    path = "/workflows/{workflow}/runs/{run}",
    operation_id = "readWorkflowRun",
    tag = "Workflows",
    summary = "Reads a run",
    description = "How it stands and what its steps came to. Not for keys that open one resource.",
    params(
        ("workflow" = String, Path, description = "The workflow's name", min_length = 1),
        ("run" = String, Path, description = "The run's id", min_length = 1),
        ("fields" = Option<String>, Query, description = "Which of `payload`, `result`, `error`, `steps`, `activeStepsPath`, `suspendedPaths`, `waitingPaths`, `resumeLabels`, `serializedStepGraph`, separated by commas; all unless it is said"),
        ("withNestedWorkflows" = Option<bool>, Query, description = "Takes no effect")
    ),
    responses((status = 200, description = "The run", body = Object, example = json!({ "runId": "019…", "workflowName": "refund", "resourceId": null, "createdAt": "2026-01-02T03:04:05.000Z", "updatedAt": "2026-01-02T03:04:05.000Z", "status": "suspended", "payload": {}, "result": null, "error": null, "steps": { "approval": { "status": "suspended", "payload": null, "startedAt": 1767323045000_i64, "suspendedAt": 1767323045000_i64, "suspendPayload": { "kind": "signal", "name": "approval" } } }, "activeStepsPath": {}, "suspendedPaths": { "approval": [] }, "serializedStepGraph": [] })))
)]
async fn one(
    State(shared): State<Shared>,
    caller: Caller,
    Path((workflow, run)): Path<(String, String)>,
    query: Query,
) -> Result<axum::Json<Value>, Problem> {
    let fields = query.text("fields");
    let fields: Vec<&str> = fields.as_deref().map_or_else(|| FIELDS.to_vec(), |some| some.split(',').collect());
    if let Some(unknown) = fields.iter().find(|field| !FIELDS.contains(field)) {
        return Err(Problem::query("fields", format!("expected some of {}, found {unknown:?}", FIELDS.join(", "))));
    }
    let history = run_of(&shared, &caller, &workflow, &run).await?.history().await?;
    let told = Told::of(&history);
    let mut shown = of_row(&history.run);
    shown["status"] = told.status(&history.run).into();
    for field in fields {
        shown[field] = told.field(field).unwrap_or_default();
    }
    Ok(axum::Json(shown))
}

#[utoipa::path(
    post,
    path = "/workflows/{workflow}/runs/{run}/cancel",
    operation_id = "cancelWorkflowRun",
    tag = "Workflows",
    summary = "Asks a run to cancel",
    description = "It winds up what it has begun; a run that has ended otherwise is refused (409). Not for keys that open one resource.",
    params(
        ("workflow" = String, Path, description = "The workflow's name", min_length = 1),
        ("run" = String, Path, description = "The run's id", min_length = 1)
    ),
    responses((status = 200, description = "It is accepted", body = Object, example = json!({ "message": "Workflow run cancelled" })))
)]
async fn cancel(
    State(shared): State<Shared>,
    caller: Caller,
    Path((workflow, run)): Path<(String, String)>,
) -> Result<axum::Json<Value>, Problem> {
    let run = run_of(&shared, &caller, &workflow, &run).await?;
    run.cancel("asked for over HTTP", caller.name()).await?;
    Ok(axum::Json(json!({ "message": "Workflow run cancelled" })))
}

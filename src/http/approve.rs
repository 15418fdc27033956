//! Answers to calls that wait for somebody, in both forms, and what the client's own tools came to (section 8).

use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::error::Problem;
use super::extract::{Body, Query, instant};
use super::shapes::TurnOptionsForm;
use super::sse;
use super::state::Shared;
use crate::agent::TurnOptions;
use crate::id::{Namespace, RunId, ThreadId};
use crate::intake::call_results;
use crate::message::Given;
use crate::runtime::{Answer, Error};
use crate::store::{Page, SuspendedFilter};
use crate::thread::{CallResult, OpenCall, SuspendedRun};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(send))
        .routes(routes!(approve))
        .routes(routes!(decline))
        .routes(routes!(suspended))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Approval {
    thread_id: String,
    resource_id: Option<String>,
    tool_call_id: String,
    approved: bool,
    reason: Option<String>,
    decline_context: Option<DeclineContext>,
    /// What a call that asks goes on with.
    resume_data: Option<Value>,
    /// What the client's own tools came to: messages with parts of the type `tool-result`.
    #[schema(value_type = Option<Vec<Object>>)]
    messages: Option<Value>,
    #[schema(value_type = Option<TurnOptionsForm>)]
    stream_options: Option<TurnOptions>,
}

/// Why a call is declined, in the older form.
#[derive(Deserialize, Default, ToSchema)]
struct DeclineContext {
    reason: Option<String>,
    message: Option<String>,
}

#[utoipa::path(
    post,
    path = "/agents/{agent}/send-tool-approval",
    operation_id = "sendToolApproval",
    tag = "Approvals",
    summary = "Answers a call that waits",
    description = "Lets it run or declines it; or brings what the client's own tools came to.",
    params(
        ("agent" = String, Path, description = "The agent's name", min_length = 1)
    ),
    request_body = Approval,
    responses((status = 200, description = "It is accepted", body = Object, example = json!({ "accepted": true, "runId": "019…", "toolCallId": "call-7" })))
)]
async fn send(
    State(shared): State<Shared>,
    caller: Caller,
    Path(agent): Path<String>,
    Body(asked): Body<Approval>,
) -> Result<axum::Json<Value>, Problem> {
    let results = asked.messages.as_ref().map(results).transpose()?;
    let agent = shared.agent(&agent).await?;
    let thread = shared.addressed(&agent, &caller, &asked.thread_id, asked.resource_id).await?;
    let call = asked.tool_call_id;
    let run = match results {
        Some(results) if asked.approved && !results.is_empty() => {
            thread.continue_with(results, &asked.stream_options.unwrap_or_default()).await?
        }
        _ => {
            let context = asked.decline_context.unwrap_or_default();
            let reason = asked.reason.or(context.reason).or(context.message);
            thread.answer(&call, Answer { approved: asked.approved, reason, resume: asked.resume_data }).await?
        }
    };
    Ok(axum::Json(json!({ "accepted": true, "runId": run, "toolCallId": call })))
}

/// What the client's tools came to, by their calls; whatever else its messages say does not count (H8.2).
fn results(messages: &Value) -> Result<Vec<CallResult>, Problem> {
    let given = Given::read("messages", messages).map_err(|e| Problem::body(e.field, e.problem))?;
    Ok(call_results(given.results()))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CallOfRun {
    run_id: String,
    tool_call_id: String,
    reason: Option<String>,
}

#[utoipa::path(
    post,
    path = "/agents/{agent}/approve-tool-call",
    operation_id = "approveToolCall",
    tag = "Approvals",
    summary = "Lets a call run, and reads what follows",
    description = "",
    params(
        ("agent" = String, Path, description = "The agent's name", min_length = 1)
    ),
    request_body = CallOfRun,
    responses((status = 200, description = "The run's chunks, and `[DONE]` once it ends or waits.", body = String, content_type = "text/event-stream"))
)]
async fn approve(
    State(shared): State<Shared>,
    caller: Caller,
    Path(agent): Path<String>,
    Body(asked): Body<CallOfRun>,
) -> Result<Response, Problem> {
    answer(&shared, &caller, &agent, asked, true).await
}

#[utoipa::path(
    post,
    path = "/agents/{agent}/decline-tool-call",
    operation_id = "declineToolCall",
    tag = "Approvals",
    summary = "Declines a call, and reads what follows",
    description = "",
    params(
        ("agent" = String, Path, description = "The agent's name", min_length = 1)
    ),
    request_body = CallOfRun,
    responses((status = 200, description = "The run's chunks, and `[DONE]` once it ends or waits.", body = String, content_type = "text/event-stream"))
)]
async fn decline(
    State(shared): State<Shared>,
    caller: Caller,
    Path(agent): Path<String>,
    Body(asked): Body<CallOfRun>,
) -> Result<Response, Problem> {
    answer(&shared, &caller, &agent, asked, false).await
}

/// H8.3: the same answer, told with what the run says then.
async fn answer(
    shared: &Shared,
    caller: &Caller,
    agent: &str,
    asked: CallOfRun,
    approved: bool,
) -> Result<Response, Problem> {
    let run = RunId::parse(&asked.run_id).map_err(Error::from)?;
    let agent = shared.agent(agent).await?;
    let not_waiting = || Error::UnknownRun { run: run.to_string() };
    let found = shared.thread_of_run(run.as_str()).await?.ok_or_else(not_waiting)?;
    caller.may_see(&found, None)?;
    let thread = agent.thread(found.id.as_str(), found.resource)?;
    let chunks = thread.chunks_after_call(&run, &asked.tool_call_id).await?;
    thread.answer(&asked.tool_call_id, Answer { approved, reason: asked.reason, resume: None }).await?;
    Ok(sse::run(shared, chunks))
}

/// How many suspended runs a page has, unless it is said.
const SUSPENDED: usize = 100;

/// The most suspended runs of a page.
const SUSPENDED_MAX: usize = 1_000;

/// H8.4, T13.11.
#[utoipa::path(
    get,
    path = "/agents/{agent}/suspended-runs",
    operation_id = "listSuspendedRuns",
    tag = "Approvals",
    summary = "Lists runs that wait for somebody",
    description = "With the calls they wait with, the oldest first.",
    params(
        ("agent" = String, Path, description = "The agent's name", min_length = 1),
        ("threadId" = Option<String>, Query, description = "Only of this thread"),
        ("resourceId" = Option<String>, Query, description = "The thread's owner; with a key that opens one resource, that one counts"),
        ("fromDate" = Option<String>, Query, description = "Not before this instant", format = DateTime),
        ("toDate" = Option<String>, Query, description = "Not after this instant", format = DateTime),
        ("page" = Option<u32>, Query, description = "Which page, from 0"),
        ("perPage" = Option<u32>, Query, description = "How many; 100 unless it is said")
    ),
    responses((status = 200, description = "A page of them", body = Object, example = json!({ "runs": [{ "runId": "019…", "status": "suspended", "threadId": "t-1", "resourceId": "ann", "suspendedAt": "2026-01-02T03:04:05.000Z", "toolCalls": [{ "toolCallId": "call-7", "toolName": "refund", "args": { "order": "A-1" }, "requiresApproval": true }] }], "total": 1 })))
)]
async fn suspended(
    State(shared): State<Shared>,
    caller: Caller,
    Path(agent): Path<String>,
    query: Query,
) -> Result<axum::Json<Value>, Problem> {
    let at = |name: &str| query.text(name).map(|text| instant(name, &text)).transpose();
    let (from, to) = (at("fromDate")?, at("toDate")?);
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(Problem::query("fromDate", "it is after toDate"));
    }
    let size = query.count("perPage", SUSPENDED)?.min(SUSPENDED_MAX);
    let page = Page { number: query.count("page", 0)?, size };
    shared.agent(&agent).await?;
    let resource = caller.resource(query.text("resourceId"));
    let thread = match query.text("threadId") {
        Some(thread) => {
            // What is not there is nobody's.
            let found = shared.thread(&thread).await?.ok_or_else(Problem::foreign_thread)?;
            caller.may_see(&found, resource.clone())?;
            Some(ThreadId::parse(&thread).map_err(Error::from)?)
        }
        None => None,
    };
    let filter = SuspendedFilter { namespace: Namespace::default(), thread, resource, agent: Some(agent), from, to };
    let runs = shared.client.suspended_runs(&filter, page).await?;
    let items: Vec<Value> = runs.items.iter().map(shown).collect();
    Ok(axum::Json(json!({ "runs": items, "total": runs.total })))
}

fn shown(run: &SuspendedRun) -> Value {
    json!({
        "runId": run.run,
        "status": "suspended",
        "threadId": run.thread,
        "resourceId": run.resource,
        "suspendedAt": run.suspended_at.to_string(),
        "toolCalls": run.calls.iter().map(shown_call).collect::<Vec<_>>(),
    })
}

fn shown_call(call: &OpenCall) -> Value {
    let mut shown = json!({
        "toolCallId": call.call,
        "toolName": call.tool,
        "args": call.args,
        "requiresApproval": call.requires_approval,
    });
    if let Some(payload) = &call.suspend_payload {
        shown["suspendPayload"] = payload.clone();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_clients_tools_came_to_is_unwrapped() {
        let said = r#"[
            {"role":"assistant","content":[
                {"type":"tool-call","toolCallId":"c1","toolName":"look","input":{}},
                {"type":"tool-result","toolCallId":"c1","toolName":"look","output":{"type":"json","value":{"n":1}}},
                {"type":"tool-result","toolCallId":"c2","toolName":"look","output":{"type":"error-text","value":"no"}},
                {"type":"tool-result","toolCallId":"c3","toolName":"look","output":7}]},
            {"role":"user","content":"and now?"}]"#;
        let said: Value = serde_json::from_str(said).unwrap();
        let told: Vec<String> =
            results(&said).unwrap().iter().map(|it| format!("{} {} {}", it.call, it.output, it.failed)).collect();
        assert_eq!(told, [r#"c1 {"n":1} false"#, r#"c2 "no" true"#, "c3 7 false"]);
    }
}

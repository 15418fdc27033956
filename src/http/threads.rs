//! Making, changing and deleting threads (H10.3 to H10.5).

use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::caller::Caller;
use super::error::Problem;
use super::extract::{Body, Query};
use super::memory::{seen, shown_thread};
use super::shapes::NewThread;
use super::state::Shared;
use crate::intake::Edit;
use crate::runtime::ThreadHandle;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(change, delete))
}

/// What is to be kept with a thread; what is absent, or null, stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    resource_id: Option<String>,
    thread_id: Option<String>,
    title: Option<String>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
}

impl Wanted {
    fn edit(self) -> Edit {
        Edit { title: self.title, metadata: self.metadata }
    }
}

/// A thread for what no agent has to do with. Which agent it names counts for sending only.
fn handle(shared: &Shared, query: &Query, thread: &str, resource: &str) -> Result<ThreadHandle, Problem> {
    Ok(shared.client.agent(query.text("agentId").unwrap_or_default()).thread(thread, resource)?)
}

/// Makes a thread. One that is there is changed, if it is of the same owner; nobody takes over a thread that way.
#[utoipa::path(
    post,
    path = "/memory/threads",
    operation_id = "createThread",
    tag = "Threads",
    summary = "Makes a thread",
    description = "One that is there already is changed, if it is of the same owner.",
    params(
        ("agentId" = Option<String>, Query, description = "The agent it is for")
    ),
    request_body = NewThread,
    responses((status = 200, description = "The thread", body = Object, example = json!({ "id": "t-1", "resourceId": "ann", "title": "", "metadata": {}, "createdAt": "2026-01-02T03:04:05.000Z", "updatedAt": "2026-01-02T03:04:09.000Z" })))
)]
async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    query: Query,
    Body(wanted): Body<Wanted>,
) -> Result<axum::Json<Value>, Problem> {
    let resource = caller.resource(wanted.resource_id.clone());
    let resource = resource.ok_or_else(|| Problem::body("resourceId", "a thread has an owner; expected a text"))?;
    let id = wanted.thread_id.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
    let thread = handle(&shared, &query, &id, &resource)?.create(wanted.edit()).await?;
    Ok(axum::Json(shown_thread(&shared, &thread).await?))
}

/// Changes a thread. The owner stays: naming another one is refused.
#[utoipa::path(
    patch,
    path = "/memory/threads/{thread}",
    operation_id = "changeThread",
    tag = "Threads",
    summary = "Changes a thread",
    description = "Title and metadata are replaced where they are given. The owner stays.",
    params(
        ("thread" = String, Path, description = "The thread's id", min_length = 1),
        ("resourceId" = Option<String>, Query, description = "The thread's owner; with a key that opens one resource, that one counts"),
        ("agentId" = Option<String>, Query, description = "The agent it is for")
    ),
    request_body = Wanted,
    responses((status = 200, description = "The thread", body = Object, example = json!({ "id": "t-1", "resourceId": "ann", "title": "", "metadata": {}, "createdAt": "2026-01-02T03:04:05.000Z", "updatedAt": "2026-01-02T03:04:09.000Z" })))
)]
async fn change(
    State(shared): State<Shared>,
    caller: Caller,
    Path(thread): Path<String>,
    query: Query,
    Body(wanted): Body<Wanted>,
) -> Result<axum::Json<Value>, Problem> {
    let owner = wanted.resource_id.clone().or_else(|| query.text("resourceId"));
    let thread = seen(&shared, &caller, &thread, owner).await?;
    let thread = handle(&shared, &query, thread.id.as_str(), &thread.resource)?.edit(wanted.edit()).await?;
    Ok(axum::Json(shown_thread(&shared, &thread).await?))
}

#[utoipa::path(
    delete,
    path = "/memory/threads/{thread}",
    operation_id = "deleteThread",
    tag = "Threads",
    summary = "Deletes a thread",
    description = "With its history, its runs and what is pending.",
    params(
        ("thread" = String, Path, description = "The thread's id", min_length = 1),
        ("resourceId" = Option<String>, Query, description = "The thread's owner; with a key that opens one resource, that one counts"),
        ("agentId" = Option<String>, Query, description = "The agent it is for")
    ),
    responses((status = 200, description = "It is deleted", body = Object, example = json!({ "result": "Thread deleted" })))
)]
async fn delete(
    State(shared): State<Shared>,
    caller: Caller,
    Path(thread): Path<String>,
    query: Query,
) -> Result<axum::Json<Value>, Problem> {
    let thread = seen(&shared, &caller, &thread, query.text("resourceId")).await?;
    let thread = handle(&shared, &query, thread.id.as_str(), &thread.resource)?;
    // Somebody else may have been faster.
    thread.delete(caller.name()).await?.ok_or_else(Problem::no_thread)?;
    Ok(axum::Json(json!({ "result": "Thread deleted" })))
}

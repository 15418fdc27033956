//! Subscriptions to threads, and the end of what a thread is at (section 7).

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::error::Problem;
use super::extract::{Body, Query};
use super::sse::{self, Reader};
use super::state::Shared;
use crate::id::RunId;
use crate::runtime::{Error, Since};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(subscribe, event_source)).routes(routes!(abort)).routes(routes!(observe))
}

/// Which thread, and from where on.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Subscribe {
    thread_id: String,
    resource_id: Option<String>,
    // H13.3
    /// The cursor of the last chunk that was seen; from the current run on if it is absent.
    after: Option<String>,
}

#[utoipa::path(
    post,
    path = "/agents/{agent}/threads/subscribe",
    operation_id = "subscribe",
    tag = "Subscriptions",
    summary = "Subscribes to a thread",
    description = "From the current run on, or after a cursor: then nothing is missed and nothing comes twice, on any process. A comment says every 25 seconds of silence that it is alive.",
    params(
        ("agent" = String, Path, description = "The agent's name", min_length = 1)
    ),
    request_body = Subscribe,
    responses((status = 200, description = "Chunks as they come: `data: ` and a line of JSON each, with a `cursor` from which to go on. It has no end of its own.", body = String, content_type = "text/event-stream"))
)]
async fn subscribe(
    State(shared): State<Shared>,
    caller: Caller,
    Path(agent): Path<String>,
    Body(asked): Body<Subscribe>,
) -> Result<Response, Problem> {
    let since = since(asked.after.as_deref()).map_err(|why| Problem::body("after", why))?;
    begin(&shared, &caller, &agent, asked, since, Reader::Client).await
}

/// The same for a browser's `EventSource`, which can only `GET` and says where it was by `Last-Event-ID`.
#[utoipa::path(
    get,
    path = "/agents/{agent}/threads/subscribe",
    operation_id = "subscribeEventSource",
    tag = "Subscriptions",
    summary = "Subscribes as a browser's EventSource",
    description = "The same, with `id:` lines; `Last-Event-ID` counts before `after`.",
    params(
        ("agent" = String, Path, description = "The agent's name", min_length = 1),
        ("threadId" = String, Query, description = "The thread", min_length = 1),
        ("resourceId" = Option<String>, Query, description = "The thread's owner; with a key that opens one resource, that one counts"),
        ("after" = Option<String>, Query, description = "The cursor of the last chunk that was seen", pattern = "^[0-9]{1,18}$"),
        ("last-event-id" = Option<String>, Header, description = "The last id that was seen", pattern = "^[0-9]{1,18}$")
    ),
    responses((status = 200, description = "Chunks as they come: `data: ` and a line of JSON each, with a `cursor` from which to go on. It has no end of its own.", body = String, content_type = "text/event-stream"))
)]
async fn event_source(
    State(shared): State<Shared>,
    caller: Caller,
    Path(agent): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let asked = Subscribe {
        thread_id: query.required("threadId")?,
        resource_id: query.text("resourceId"),
        after: query.text("after"),
    };
    // A reader that comes back knows better than its address, which stays as it was.
    let since = match headers.get("last-event-id").filter(|id| !id.is_empty()) {
        Some(id) => {
            since(Some(id.to_str().unwrap_or("not text"))).map_err(|why| Problem::query("Last-Event-ID", why))?
        }
        None => since(asked.after.as_deref()).map_err(|why| Problem::query("after", why))?,
    };
    begin(&shared, &caller, &agent, asked, since, Reader::EventSource).await
}

fn since(after: Option<&str>) -> Result<Since, String> {
    let Some(after) = after else { return Ok(Since::CurrentRun) };
    match after.parse::<i64>() {
        Ok(cursor) if cursor >= 0 => Ok(Since::Cursor(cursor)),
        _ => {
            Err(format!("expected the cursor of a chunk, found {after:?}; leave it out to begin with the current run"))
        }
    }
}

async fn begin(
    shared: &Shared,
    caller: &Caller,
    agent: &str,
    asked: Subscribe,
    since: Since,
    reader: Reader,
) -> Result<Response, Problem> {
    let agent = shared.agent(agent).await?;
    let thread = shared.addressed(&agent, caller, &asked.thread_id, asked.resource_id).await?;
    let mut subscription = thread.subscribe(since);
    // Before the first byte: what is sent after it is seen.
    subscription.ready().await?;
    // And what follows a cursor may not be kept any longer.
    let first = subscription.try_next().await?;
    Ok(sse::thread(shared, first, subscription, reader))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Abort {
    thread_id: String,
    resource_id: Option<String>,
    expected_run_id: Option<String>,
    /// Whether what waits is dropped too (H13.7).
    #[serde(default)]
    clear_pending_signals: bool,
}

#[utoipa::path(
    post,
    path = "/agents/{agent}/threads/abort",
    operation_id = "abort",
    tag = "Subscriptions",
    summary = "Ends the run that has a thread",
    description = "What it has said so far stays. What waits behind it goes on.",
    params(
        ("agent" = String, Path, description = "The agent's name", min_length = 1)
    ),
    request_body = Abort,
    responses((status = 200, description = "Whether a run was ended", body = Object, example = json!({ "aborted": true })))
)]
async fn abort(
    State(shared): State<Shared>,
    caller: Caller,
    Path(agent): Path<String>,
    Body(asked): Body<Abort>,
) -> Result<axum::Json<Value>, Problem> {
    let expected = asked.expected_run_id.map(RunId::parse).transpose().map_err(Error::from)?;
    let agent = shared.agent(&agent).await?;
    let thread = shared.addressed(&agent, &caller, &asked.thread_id, asked.resource_id).await?;
    let aborted = match asked.clear_pending_signals {
        true => thread.abort_and_clear(caller.name(), expected.as_ref()).await?,
        false => thread.abort(caller.name(), expected.as_ref()).await?,
    };
    Ok(axum::Json(json!({ "aborted": aborted })))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Observe {
    run_id: String,
    /// How many of the run's chunks to leave out, from the first one.
    #[serde(default)]
    offset: usize,
}

/// H9.7: what one run has said and will say, while its chunks are kept.
#[utoipa::path(
    post,
    path = "/agents/{agent}/observe",
    operation_id = "observe",
    tag = "Subscriptions",
    summary = "Reads what one run says",
    description = "While its chunks are kept, from the first one or from an offset.",
    params(
        ("agent" = String, Path, description = "The agent's name", min_length = 1)
    ),
    request_body = Observe,
    responses((status = 200, description = "The run's chunks, and `[DONE]` once it ends or waits.", body = String, content_type = "text/event-stream"))
)]
async fn observe(
    State(shared): State<Shared>,
    caller: Caller,
    Path(agent): Path<String>,
    Body(asked): Body<Observe>,
) -> Result<Response, Problem> {
    let run = RunId::parse(&asked.run_id).map_err(Error::from)?;
    let agent = shared.agent(&agent).await?;
    let unknown = || Error::UnknownRun { run: run.to_string() };
    let found = shared.thread_of_run(run.as_str()).await?.ok_or_else(unknown)?;
    caller.may_see(&found, None)?;
    let thread = agent.thread(found.id.as_str(), found.resource)?;
    Ok(sse::run(&shared, thread.chunks_of(&run).await?.skipping(asked.offset)))
}

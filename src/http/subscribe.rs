//! Subscriptions to threads, and the end of what a thread is at (section 7).

use axum::Router;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::post;
use serde::Deserialize;
use serde_json::{Value, json};

use super::caller::Caller;
use super::error::Problem;
use super::extract::{Body, Query};
use super::sse::{self, Reader};
use super::state::Shared;
use crate::id::RunId;
use crate::runtime::{Error, Since};

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/agents/{agent}/threads/subscribe", post(subscribe).get(event_source))
        .route("/agents/{agent}/threads/abort", post(abort))
        .route("/agents/{agent}/observe", post(observe))
}

/// Which thread, and from where on.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subscribe {
    thread_id: String,
    resource_id: Option<String>,
    /// The cursor of the last chunk that was seen (H13.3).
    after: Option<String>,
}

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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Abort {
    thread_id: String,
    resource_id: Option<String>,
    expected_run_id: Option<String>,
    /// Whether what waits is dropped too (H13.7).
    #[serde(default)]
    clear_pending_signals: bool,
}

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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Observe {
    run_id: String,
    #[serde(default)]
    offset: usize,
}

/// H9.7: what one run has said and will say, while its chunks are kept.
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

//! Direct calls: something is said to an agent, and the answer comes whole or as it is made (H9.3 to H9.6).
//!
//! What was accepted is durable: a caller that hangs up loses its answer and stops nothing, unless it has asked for that.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::response::sse::Event;
use futures::stream::{self, Stream, StreamExt as _};
use serde::Deserialize;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::error::Problem;
use super::extract::{Body, IdempotencyKey, part};
use super::send::own_names_out;
use super::shapes::DirectCallForm;
use super::sse::{self, Reader};
use super::state::Shared;
use crate::agent::TurnOptions;
use crate::id::RunId;
use crate::intake::Edit;
use crate::message::{Chunks, Generated, Given};
use crate::runtime::{DirectCall, DirectRun, Error, RunChunks, Seen, ThreadHandle};

/// Who owns what is said outside of every conversation, where the request does not say it.
const NOBODY: &str = "nobody";

/// Routes without a bound in time: an answer takes as long as its run.
pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(generate)).routes(routes!(streamed))
}

/// What a direct call says beside its messages and the options of its turn.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    messages: Value,
    memory: Option<Memory>,
    /// The older form of `memory`.
    thread_id: Option<String>,
    resource_id: Option<String>,
    run_id: Option<String>,
    /// Whether the run is aborted once nobody waits for its answer (H3.7).
    #[serde(default)]
    abort_on_disconnect: bool,
}

#[derive(Deserialize)]
struct Memory {
    thread: Option<Named>,
    resource: Option<String>,
}

/// A thread by its id, or with what is to be kept with it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected the id of a thread, or an object with its id")]
enum Named {
    Id(String),
    Whole { id: String, title: Option<String>, metadata: Option<Value> },
}

impl Named {
    fn split(self) -> (String, Edit) {
        match self {
            Self::Id(id) => (id, Edit::default()),
            Self::Whole { id, title, metadata } => (id, Edit { title, metadata }),
        }
    }
}

/// A call that was accepted, and somebody who waits for its answer.
struct Begun {
    run: DirectRun,
    /// What was said, as it was given.
    given: Vec<Value>,
    waits: Waits,
}

#[utoipa::path(
    post,
    path = "/agents/{agent}/generate",
    operation_id = "generate",
    tag = "Direct calls",
    summary = "Says something, and waits for the whole answer",
    description = "Behind the run that has the thread, if one has; without a thread, on one of its own that no list shows. Who hangs up stops nothing.",
    params(
        ("agent" = String, Path, description = "The agent's name", min_length = 1),
        ("idempotency-key" = Option<String>, Header, description = "The sender's key: the same request again under it is the same one, for 24 hours", min_length = 1, max_length = 255, pattern = "^[!-~]+$")
    ),
    request_body = DirectCallForm,
    responses((status = 200, description = "The answer", body = Object, example = json!({ "text": "Hello", "finishReason": "stop", "usage": { "inputTokens": 3, "outputTokens": 2, "totalTokens": 5 }, "runId": "019…", "toolCalls": [], "toolResults": [] })))
)]
async fn generate(
    State(shared): State<Shared>,
    caller: Caller,
    Path(agent): Path<String>,
    IdempotencyKey(key): IdempotencyKey,
    Body(body): Body<Value>,
) -> Result<axum::Json<Value>, Problem> {
    let Begun { run, given, waits } = begin(&shared, &caller, &agent, body, key).await?;
    let generated = tokio::select! {
        generated = run.generated() => generated.map_err(|error| unfinished(&run, &error.to_string()))?,
        () = shared.draining.cancelled() => return Err(unfinished(&run, "this server is being stopped")),
    };
    waits.no_longer();
    Ok(axum::Json(generated.to_json(&given)))
}

#[utoipa::path(
    post,
    path = "/agents/{agent}/stream",
    operation_id = "stream",
    tag = "Direct calls",
    summary = "Says something, and reads the answer as it is made",
    description = "As `generate`, told in chunks.",
    params(
        ("agent" = String, Path, description = "The agent's name", min_length = 1),
        ("idempotency-key" = Option<String>, Header, description = "The sender's key: the same request again under it is the same one, for 24 hours", min_length = 1, max_length = 255, pattern = "^[!-~]+$")
    ),
    request_body = DirectCallForm,
    responses((status = 200, description = "The run's chunks, and `[DONE]` once it ends or waits.", body = String, content_type = "text/event-stream"))
)]
async fn streamed(
    State(shared): State<Shared>,
    caller: Caller,
    Path(agent): Path<String>,
    IdempotencyKey(key): IdempotencyKey,
    Body(body): Body<Value>,
) -> Result<Response, Problem> {
    let begun = begin(&shared, &caller, &agent, body, key).await?;
    let chunks = begun.run.chunks().await.map_err(|error| unfinished(&begun.run, &error.to_string()))?;
    Ok(sse::ending(&shared, told(begun, chunks)))
}

/// Not a status of 500 or above, which has clients say it again: the call was accepted (H1.7).
fn unfinished(run: &DirectRun, why: &str) -> Problem {
    let what = format!("run {} was accepted and goes on, but its answer is not told here: {why}", run.run());
    Problem::new(StatusCode::REQUEST_TIMEOUT, "run_unfinished", what)
        .remedied("observe it by its runId, or send the same request with the same Idempotency-Key or runId")
}

/// Checked in the order of H2.4.
async fn begin(
    shared: &Shared,
    caller: &Caller,
    agent: &str,
    body: Value,
    key: Option<String>,
) -> Result<Begun, Problem> {
    let asked: Asked = part(&body)?;
    let options = own_names_out(part::<TurnOptions>(&body)?);
    let given = Given::read("messages", &asked.messages).map_err(|e| Problem::body(e.field, e.problem))?;
    if given.is_empty() {
        return Err(Problem::body("messages", "expected at least one message"));
    }
    let run = asked.run_id.map(RunId::parse).transpose().map_err(Error::from)?;
    let (thread, resource) = match asked.memory {
        Some(memory) => (memory.thread.map(Named::split), memory.resource.or(asked.resource_id)),
        None => (asked.thread_id.map(|id| (id, Edit::default())), asked.resource_id),
    };
    let mut call = direct(shared, caller, agent, thread, resource, given).await?.options(options);
    if let Some(run) = run {
        call = call.run_id(run);
    }
    if let Some(key) = key {
        call = call.idempotency_key(key);
    }
    let run = call.start().await?;
    let waits = Waits::for_answer(&run, caller, asked.abort_on_disconnect);
    let given = match asked.messages {
        Value::Array(messages) => messages,
        one => vec![one],
    };
    Ok(Begun { run, given, waits })
}

/// The call, on the thread that it names or outside of all.
async fn direct(
    shared: &Shared,
    caller: &Caller,
    agent: &str,
    thread: Option<(String, Edit)>,
    resource: Option<String>,
    given: Given,
) -> Result<DirectCall, Problem> {
    let agent = shared.agent(agent).await?;
    let resource = caller.resource(resource);
    let Some((id, edit)) = thread else {
        return Ok(agent.direct(resource.unwrap_or_else(|| NOBODY.to_owned()), given));
    };
    let owner = match resource {
        Some(resource) => resource,
        None => match shared.thread(&id).await? {
            Some(thread) => thread.resource,
            None => return Err(Problem::body("memory.resource", "a thread has an owner; expected a text")),
        },
    };
    let thread = agent.thread(&id, owner)?;
    if edit != Edit::default() {
        thread.create(edit).await?;
    }
    Ok(thread.direct(given))
}

/// What a run says to who has called it: as a subscription tells it, and how it ended in full.
fn told(begun: Begun, chunks: RunChunks) -> impl Stream<Item = Event> + Send {
    let Begun { run, given, waits } = begun;
    let so_far = Generated::of(run.run().as_str());
    let telling = Telling { run, given, waits: Some(waits), chunks, so_far };
    stream::unfold(telling, async |mut telling| telling.next().await.map(|events| (events, telling)))
        .flat_map(stream::iter)
}

struct Telling {
    run: DirectRun,
    given: Vec<Value>,
    /// None once all was told.
    waits: Option<Waits>,
    chunks: RunChunks,
    so_far: Generated,
}

impl Telling {
    async fn next(&mut self) -> Option<Vec<Event>> {
        self.waits.as_ref()?;
        match self.chunks.next().await {
            Ok(Some(seen)) => Some(self.tell(&seen)),
            Ok(None) => Some(self.end().await),
            Err(error) => {
                tracing::warn!(%error, "the stream of a call ends early");
                self.done();
                None
            }
        }
    }

    fn tell(&mut self, seen: &Seen) -> Vec<Event> {
        self.so_far.take(&seen.chunk);
        match seen.chunk["type"].as_str() {
            Some("finish") => vec![sse::alone(&self.so_far.finished((*seen.chunk).clone(), &self.given))],
            Some("error") => std::iter::once(Reader::Client.frame(seen)).chain(self.closing()).collect(),
            _ => vec![Reader::Client.frame(seen)],
        }
    }

    /// What the chunks have not said: that the run cannot go on.
    async fn end(&mut self) -> Vec<Event> {
        self.done();
        let said = self.so_far.finish.is_some();
        if let Err(error) = self.run.complete(&mut self.so_far).await {
            tracing::warn!(%error, "how a call has ended is not known");
        }
        match &self.so_far.error {
            Some(error) if !said => {
                let text = |key: &str| error[key].as_str().unwrap_or_default();
                let told = Chunks::of(self.run.run().as_str()).error(text("name"), text("message"));
                std::iter::once(sse::alone(&told)).chain(self.closing()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn closing(&self) -> Vec<Event> {
        let [step, finish] = self.so_far.closing();
        vec![sse::alone(&step), sse::alone(&self.so_far.finished(finish, &self.given))]
    }

    fn done(&mut self) {
        if let Some(waits) = self.waits.take() {
            waits.no_longer();
        }
    }
}

/// Somebody who waits for an answer. If they go away, the run is aborted where they have asked for that (H3.7).
struct Waits(Option<(ThreadHandle, RunId, String)>);

impl Waits {
    fn for_answer(run: &DirectRun, caller: &Caller, aborts: bool) -> Self {
        Self(aborts.then(|| (run.thread().clone(), run.run().clone(), caller.name().to_owned())))
    }

    fn no_longer(mut self) {
        self.0 = None;
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let Some((thread, run, by)) = self.0.take() else { return };
        tokio::spawn(async move {
            if let Err(error) = thread.abort(&by, Some(&run)).await {
                tracing::warn!(%run, %error, "a run whose caller is gone was not aborted");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_thread_is_named_by_its_id_or_with_what_is_kept_with_it() {
        let named = |json: Value| serde_json::from_value::<Named>(json).map(Named::split);
        assert_eq!(named(json!("t")).unwrap(), ("t".to_owned(), Edit::default()));
        let whole = named(json!({ "id": "t", "title": "Rent", "metadata": { "a": 1 } })).unwrap();
        assert_eq!(whole.1, Edit { title: Some("Rent".into()), metadata: Some(json!({ "a": 1 })) });
        assert!(named(json!(7)).unwrap_err().to_string().starts_with("expected the id of a thread"));
    }
}

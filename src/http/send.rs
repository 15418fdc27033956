//! Messages and signals: what is sent to a thread, and taken back (section 6, H13.4, H13.6).

use std::fmt;

use axum::extract::{Path, State};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::error::Problem;
use super::extract::{Body, IdempotencyKey};
use super::shapes::{CancelQueuedForm, SendMessage, SendSignal, SendState};
use super::state::Shared;
use crate::agent::TurnOptions;
use crate::id::RunId;
use crate::intake::SendOptions;
use crate::message::{Attributes, Category, Contents, NewSignal, NewState, ProviderOptions};
use crate::runtime::{CancelQueued, Error, Sent, SkipReason, StateSent, ThreadHandle};
use crate::thread::{IfActive, IfIdle};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(send_message))
        .routes(routes!(queue_message))
        .routes(routes!(send_signal))
        .routes(routes!(send_state))
        .routes(routes!(cancel_queued))
}

/// What all of these routes are sent (H6.1); each of them wants one of the first three.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "M: Deserialize<'de>, S: Deserialize<'de>, T: Deserialize<'de>"))]
struct Input<M = IgnoredAny, S = IgnoredAny, T = IgnoredAny> {
    #[serde(default = "Option::default")]
    message: Option<M>,
    #[serde(default = "Option::default")]
    signal: Option<S>,
    #[serde(default = "Option::default")]
    state: Option<T>,
    resource_id: Option<String>,
    thread_id: Option<String>,
    run_id: Option<String>,
    if_active: Option<Active>,
    if_idle: Option<Idle>,
    /// The sender's label of what it queues (T9.10).
    queue_owner_id: Option<String>,
}

#[derive(Deserialize, Default)]
struct Active {
    #[serde(default)]
    behavior: IfActive,
    attributes: Option<Attributes>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Idle {
    #[serde(default)]
    behavior: IfIdle,
    attributes: Option<Attributes>,
    stream_options: Option<TurnOptions>,
}

/// A message: a text, a list of parts, or either with what belongs to it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Whole {
    contents: Contents,
    attributes: Option<Attributes>,
    metadata: Option<Map<String, Value>>,
    provider_options: Option<ProviderOptions>,
}

struct Said(Whole);

impl From<Contents> for Said {
    fn from(contents: Contents) -> Self {
        Self(Whole { contents, attributes: None, metadata: None, provider_options: None })
    }
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // By hand rather than untagged, so that what is wrong is named by its path.
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Said;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a list of parts, or an object with contents")
            }

            fn visit_str<E>(self, text: &str) -> Result<Said, E> {
                Ok(Contents::from(text).into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, parts: A) -> Result<Said, A::Error> {
                Contents::deserialize(SeqAccessDeserializer::new(parts)).map(Said::from)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Said, A::Error> {
                Whole::deserialize(MapAccessDeserializer::new(map)).map(Said)
            }
        }

        from.deserialize_any(Either)
    }
}

impl From<Said> for NewSignal {
    fn from(Said(whole): Said) -> Self {
        Self {
            attributes: whole.attributes.unwrap_or_default(),
            metadata: whole.metadata.unwrap_or_default(),
            provider_options: whole.provider_options.unwrap_or_default(),
            ..Self::new(Category::User, whole.contents)
        }
    }
}

#[utoipa::path(
    post,
    path = "/agents/{agent}/send-message",
    operation_id = "sendMessage",
    tag = "Messages and signals",
    summary = "Sends a message",
    description = "A run that has the thread takes it at its next step; else it begins one. Once this is answered it is durable.",
    params(
        ("agent" = String, Path, description = "The agent's name", min_length = 1),
        ("idempotency-key" = Option<String>, Header, description = "The sender's key: the same request again under it is the same one, for 24 hours", min_length = 1, max_length = 255, pattern = "^[!-~]+$")
    ),
    request_body = SendMessage,
    responses((status = 200, description = "It is accepted", body = Object, example = json!({ "accepted": true, "runId": "019…", "action": "wake", "signal": { "id": "019…", "type": "user", "tagName": "user", "contents": "Hello", "createdAt": "2026-01-02T03:04:05.000Z" } })))
)]
async fn send_message(
    State(shared): State<Shared>,
    caller: Caller,
    Path(agent): Path<String>,
    IdempotencyKey(key): IdempotencyKey,
    Body(mut input): Body<Input<Said>>,
) -> Result<axum::Json<Value>, Problem> {
    let message = required("message", input.message.take())?;
    let (thread, options) = aim(&shared, &caller, &agent, input, key).await?;
    Ok(axum::Json(accepted(&thread.send_with(message.into(), options).await?)))
}

#[utoipa::path(
    post,
    path = "/agents/{agent}/queue-message",
    operation_id = "queueMessage",
    tag = "Messages and signals",
    summary = "Queues a message",
    description = "It gets a run of its own, after those before it.",
    params(
        ("agent" = String, Path, description = "The agent's name", min_length = 1),
        ("idempotency-key" = Option<String>, Header, description = "The sender's key: the same request again under it is the same one, for 24 hours", min_length = 1, max_length = 255, pattern = "^[!-~]+$")
    ),
    request_body = SendMessage,
    responses((status = 200, description = "It is accepted", body = Object, example = json!({ "accepted": true, "runId": "019…", "action": "wake", "signal": { "id": "019…", "type": "user", "tagName": "user", "contents": "Hello", "createdAt": "2026-01-02T03:04:05.000Z" } })))
)]
async fn queue_message(
    State(shared): State<Shared>,
    caller: Caller,
    Path(agent): Path<String>,
    IdempotencyKey(key): IdempotencyKey,
    Body(mut input): Body<Input<Said>>,
) -> Result<axum::Json<Value>, Problem> {
    let message = required("message", input.message.take())?;
    let (thread, options) = aim(&shared, &caller, &agent, input, key).await?;
    let options = SendOptions { queue: true, ..options };
    Ok(axum::Json(accepted(&thread.send_with(message.into(), options).await?)))
}

#[utoipa::path(
    post,
    path = "/agents/{agent}/signals",
    operation_id = "sendSignal",
    tag = "Messages and signals",
    summary = "Sends a signal",
    description = "What is not a message: a notification, a state, or something for the model to know.",
    params(
        ("agent" = String, Path, description = "The agent's name", min_length = 1),
        ("idempotency-key" = Option<String>, Header, description = "The sender's key: the same request again under it is the same one, for 24 hours", min_length = 1, max_length = 255, pattern = "^[!-~]+$")
    ),
    request_body = SendSignal,
    responses((status = 200, description = "It is accepted", body = Object, example = json!({ "accepted": true, "runId": "019…", "action": "wake", "signal": { "id": "019…", "type": "user", "tagName": "user", "contents": "Hello", "createdAt": "2026-01-02T03:04:05.000Z" } })))
)]
async fn send_signal(
    State(shared): State<Shared>,
    caller: Caller,
    Path(agent): Path<String>,
    IdempotencyKey(key): IdempotencyKey,
    Body(mut input): Body<Input<IgnoredAny, NewSignal>>,
) -> Result<axum::Json<Value>, Problem> {
    let signal = required("signal", input.signal.take())?;
    let (thread, options) = aim(&shared, &caller, &agent, input, key).await?;
    Ok(axum::Json(accepted(&thread.send_with(signal, options).await?)))
}

#[utoipa::path(
    post,
    path = "/agents/{agent}/state-signals",
    operation_id = "sendState",
    tag = "Messages and signals",
    summary = "Says a lane's state",
    description = "What is as it was is skipped: `{\"accepted\": true, \"skipped\": true, \"reason\": \"unchanged\"}`.",
    params(
        ("agent" = String, Path, description = "The agent's name", min_length = 1),
        ("idempotency-key" = Option<String>, Header, description = "The sender's key: the same request again under it is the same one, for 24 hours", min_length = 1, max_length = 255, pattern = "^[!-~]+$")
    ),
    request_body = SendState,
    responses((status = 200, description = "It is accepted, or skipped", body = Object, example = json!({ "accepted": true, "runId": "019…", "action": "wake", "signal": { "id": "019…", "type": "user", "tagName": "user", "contents": "Hello", "createdAt": "2026-01-02T03:04:05.000Z" } })))
)]
async fn send_state(
    State(shared): State<Shared>,
    caller: Caller,
    Path(agent): Path<String>,
    IdempotencyKey(key): IdempotencyKey,
    Body(mut input): Body<Input<IgnoredAny, IgnoredAny, NewState>>,
) -> Result<axum::Json<Value>, Problem> {
    let state = required("state", input.state.take())?;
    let (thread, options) = aim(&shared, &caller, &agent, input, key).await?;
    Ok(axum::Json(match thread.state_with(state, options).await? {
        StateSent::Sent(sent) => accepted(&sent),
        StateSent::Skipped { reason: reason @ SkipReason::Unchanged } => {
            json!({ "accepted": true, "skipped": true, "reason": reason })
        }
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Unsend {
    thread_id: String,
    resource_id: Option<String>,
    signal_ids: Option<Vec<String>>,
    queue_owner_id: Option<String>,
}

#[utoipa::path(
    post,
    path = "/agents/{agent}/threads/cancel-queued",
    operation_id = "cancelQueued",
    tag = "Messages and signals",
    summary = "Takes back what no run has taken",
    description = "By ids, or by the label under which it was queued.",
    params(
        ("agent" = String, Path, description = "The agent's name", min_length = 1)
    ),
    request_body = CancelQueuedForm,
    responses((status = 200, description = "What was taken back", body = Object, example = json!({ "cancelledSignalIds": ["019…"] })))
)]
async fn cancel_queued(
    State(shared): State<Shared>,
    caller: Caller,
    Path(agent): Path<String>,
    Body(asked): Body<Unsend>,
) -> Result<axum::Json<Value>, Problem> {
    let which = match (asked.signal_ids, asked.queue_owner_id) {
        (Some(ids), None) => CancelQueued::Ids(ids),
        (None, Some(owner)) => CancelQueued::Owner(owner),
        _ => return Err(Problem::body("root", "give either signalIds or queueOwnerId")),
    };
    let agent = shared.agent(&agent).await?;
    let thread = shared.addressed(&agent, &caller, &asked.thread_id, asked.resource_id).await?;
    Ok(axum::Json(json!({ "cancelledSignalIds": thread.cancel_queued(which, caller.name()).await? })))
}

fn required<T>(field: &str, value: Option<T>) -> Result<T, Problem> {
    value.ok_or_else(|| Problem::body(field, format!("missing field `{field}`")))
}

/// The thread that an input is for and what is asked of its routing, checked in the order of H2.4.
async fn aim<M, S, T>(
    shared: &Shared,
    caller: &Caller,
    agent: &str,
    input: Input<M, S, T>,
    key: Option<String>,
) -> Result<(ThreadHandle, SendOptions), Problem> {
    let resource = caller.resource(input.resource_id);
    if input.run_id.is_some() && input.if_idle.is_some() {
        return Err(Problem::body(
            "ifIdle",
            "a signal to a run says nothing of an idle thread; leave runId or ifIdle out",
        ));
    }
    let (active, idle) = (input.if_active.unwrap_or_default(), input.if_idle.unwrap_or_default());
    let options = SendOptions {
        if_active: active.behavior,
        active_attributes: active.attributes.unwrap_or_default(),
        if_idle: idle.behavior,
        idle_attributes: idle.attributes.unwrap_or_default(),
        turn: idle.stream_options.map(asked_of_turn).transpose()?.unwrap_or_default(),
        queue: false,
        owner: input.queue_owner_id,
        idempotency_key: key,
        only_run: None,
    };
    let Some(run) = input.run_id else {
        let (Some(thread), Some(resource)) = (input.thread_id, resource) else {
            let what = "resourceId and threadId are required when runId is not provided";
            return Err(Problem { error: what.to_owned(), ..Problem::body("root", what) });
        };
        let agent = shared.agent(agent).await?;
        return Ok((agent.thread(&thread, resource)?, options));
    };
    let agent = shared.agent(agent).await?;
    let run = RunId::parse(&run).map_err(Error::from)?;
    let thread = shared.thread_of_run(run.as_str()).await?.ok_or_else(Problem::no_active_run)?;
    caller.may_see(&thread, resource)?;
    if input.thread_id.is_some_and(|asked| asked != thread.id.as_str()) {
        return Err(Problem::no_active_run());
    }
    let options = SendOptions { only_run: Some(run), ..options };
    Ok((agent.thread(thread.id.as_str(), thread.resource)?, options))
}

/// What a client asks of a turn.
fn asked_of_turn(options: TurnOptions) -> Result<Value, Problem> {
    Ok(ThreadHandle::turn(&own_names_out(options))?)
}

/// Options without the names that are the server's own, which a client cannot set (H1.8).
pub(super) fn own_names_out(mut options: TurnOptions) -> TurnOptions {
    options.request_context.retain(|name, _| !name.starts_with("mastra__"));
    options
}

/// H6.1, H6.2, H13.2.
fn accepted(sent: &Sent) -> Value {
    let run = sent.run.as_ref().map_or(sent.signal.id.as_str(), RunId::as_str);
    json!({ "accepted": true, "runId": run, "signal": sent.signal.answer(), "action": sent.action })
}

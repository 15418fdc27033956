//! Threads and their messages, as interfaces list them (section 10).

use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::error::Problem;
use super::extract::{Body, Query, instant};
use super::shapes::DeleteMessages;
use super::state::Shared;
use crate::clock::Instant;
use crate::id::Namespace;
use crate::message::Lane;
use crate::runtime::Error;
use crate::store::{Around, MessageFilter, Page, ThreadFilter, ThreadOrder};
use crate::thread::Thread;

/// How many threads a page has, unless it is said.
const THREADS: usize = 100;

/// How many messages a page has, unless it is said.
const MESSAGES: usize = 40;

/// The most that a page may have.
const PAGE_MAX: usize = 1_000;

/// The most messages that are deleted at once.
const DELETE_MAX: usize = 1_000;

/// The most messages that are looked up beside a page.
const INCLUDE_MAX: usize = 100;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(threads))
        .routes(routes!(thread))
        .routes(routes!(messages))
        .routes(routes!(delete))
        .routes(routes!(status))
}

fn page(query: &Query, size: usize) -> Result<Page, Problem> {
    let size = query.count("perPage", size)?.min(PAGE_MAX);
    Ok(Page { number: query.count("page", 0)?, size })
}

/// A page as it is answered.
fn paged(what: &str, items: Vec<Value>, total: usize, page: Page) -> Value {
    let has_more = page.size > 0 && page.offset().saturating_add(page.size) < total;
    json!({ what: items, "total": total, "page": page.number, "perPage": page.size, "hasMore": has_more })
}

/// Field and direction, both of which may be absent; as JSON in one parameter, or a parameter each.
#[derive(Debug, Default, Deserialize)]
struct OrderBy {
    field: Option<String>,
    direction: Option<String>,
}

impl OrderBy {
    fn of(query: &Query) -> Result<Self, Problem> {
        let whole: Self = query.json("orderBy")?.unwrap_or_default();
        Ok(Self {
            field: query.text("orderBy[field]").or(whole.field),
            direction: query.text("orderBy[direction]").or(whole.direction),
        })
    }

    fn field(&self) -> Result<ThreadOrder, Problem> {
        match self.field.as_deref() {
            None | Some("createdAt") => Ok(ThreadOrder::CreatedAt),
            Some("updatedAt") => Ok(ThreadOrder::UpdatedAt),
            Some(other) => {
                Err(Problem::query("orderBy.field", format!("expected createdAt or updatedAt, found {other:?}")))
            }
        }
    }

    fn is_ascending(&self) -> Result<bool, Problem> {
        match self.direction.as_deref() {
            None | Some("DESC") => Ok(false),
            Some("ASC") => Ok(true),
            Some(other) => Err(Problem::query("orderBy.direction", format!("expected ASC or DESC, found {other:?}"))),
        }
    }
}

/// Values that must all be there.
fn scalars(name: &str, wanted: Map<String, Value>) -> Result<Map<String, Value>, Problem> {
    match wanted.iter().find(|(_, value)| value.is_object() || value.is_array()) {
        Some((key, _)) => Err(Problem::query(name, format!("{key:?} is to be a text, a number, true, false or null"))),
        None => Ok(wanted),
    }
}

#[utoipa::path(
    get,
    path = "/memory/threads",
    operation_id = "listThreads",
    tag = "Threads",
    summary = "Lists threads",
    description = "The newest first, unless it is said otherwise.",
    params(
        ("resourceId" = Option<String>, Query, description = "The thread's owner; with a key that opens one resource, that one counts"),
        ("agentId" = Option<String>, Query, description = "Takes no effect"),
        ("metadata" = Option<String>, Query, description = "JSON of texts, numbers, true, false and null that must all be there"),
        ("page" = Option<u32>, Query, description = "Which page, from 0"),
        ("perPage" = Option<u32>, Query, description = "How many; 100 unless it is said"),
        ("orderBy" = Option<String>, Query, description = "JSON `{\"field\", \"direction\"}`; or `orderBy[field]` and `orderBy[direction]`"),
        ("orderBy[field]" = Option<String>, Query, description = "`createdAt` or `updatedAt`"),
        ("orderBy[direction]" = Option<String>, Query, description = "`ASC` or `DESC`")
    ),
    responses((status = 200, description = "A page of threads", body = Object, example = json!({ "threads": [{ "id": "t-1", "resourceId": "ann", "title": "", "metadata": {}, "createdAt": "2026-01-02T03:04:05.000Z", "updatedAt": "2026-01-02T03:04:09.000Z" }], "total": 1, "page": 0, "perPage": 100, "hasMore": false })))
)]
async fn threads(State(shared): State<Shared>, caller: Caller, query: Query) -> Result<axum::Json<Value>, Problem> {
    let (page, order) = (page(&query, THREADS)?, OrderBy::of(&query)?);
    let filter = ThreadFilter {
        namespace: Namespace::default(),
        resource: caller.resource(query.text("resourceId")),
        metadata: scalars("metadata", query.json("metadata")?.unwrap_or_default())?,
        order: order.field()?,
        ascending: order.is_ascending()?,
    };
    let threads = shared.client.list_threads(&filter, page).await?;
    let mut shown = Vec::with_capacity(threads.items.len());
    for thread in &threads.items {
        shown.push(shown_thread(&shared, thread).await?);
    }
    Ok(axum::Json(paged("threads", shown, threads.total, page)))
}

#[utoipa::path(
    get,
    path = "/memory/threads/{thread}",
    operation_id = "readThread",
    tag = "Threads",
    summary = "Reads a thread",
    description = "",
    params(
        ("thread" = String, Path, description = "The thread's id", min_length = 1),
        ("resourceId" = Option<String>, Query, description = "The thread's owner; with a key that opens one resource, that one counts"),
        ("agentId" = Option<String>, Query, description = "Takes no effect")
    ),
    responses((status = 200, description = "The thread", body = Object, example = json!({ "id": "t-1", "resourceId": "ann", "title": "", "metadata": {}, "createdAt": "2026-01-02T03:04:05.000Z", "updatedAt": "2026-01-02T03:04:09.000Z" })))
)]
async fn thread(
    State(shared): State<Shared>,
    caller: Caller,
    Path(thread): Path<String>,
    query: Query,
) -> Result<axum::Json<Value>, Problem> {
    let thread = seen(&shared, &caller, &thread, query.text("resourceId")).await?;
    Ok(axum::Json(shown_thread(&shared, &thread).await?))
}

/// A thread that is there, and that the caller may see.
pub(super) async fn seen(
    shared: &Shared,
    caller: &Caller,
    id: &str,
    resource: Option<String>,
) -> Result<Thread, Problem> {
    let thread = shared.thread(id).await?.ok_or_else(Problem::no_thread)?;
    caller.may_see(&thread, resource)?;
    Ok(thread)
}

pub(super) async fn shown_thread(shared: &Shared, thread: &Thread) -> Result<Value, Problem> {
    let lanes = shared.client.store().lanes(thread.key).await.map_err(Error::from)?;
    let metadata = thread.metadata.read().unwrap_or_default();
    Ok(json!({
        "id": thread.id,
        "resourceId": thread.resource,
        "title": thread.title,
        "metadata": Lane::project(&metadata, &lanes),
        "createdAt": thread.created_at.to_string(),
        "updatedAt": thread.updated_at.to_string(),
    }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    date_range: Option<DateRange>,
    metadata: Option<Map<String, Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DateRange {
    start: Option<String>,
    end: Option<String>,
    #[serde(default)]
    start_exclusive: bool,
    #[serde(default)]
    end_exclusive: bool,
}

/// Messages around one of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Include {
    id: String,
    thread_id: Option<String>,
    #[serde(default)]
    with_previous_messages: usize,
    #[serde(default)]
    with_next_messages: usize,
}

#[utoipa::path(
    get,
    path = "/memory/threads/{thread}/messages",
    operation_id = "listMessages",
    tag = "Threads",
    summary = "Lists a thread's messages",
    description = "Without `orderBy` page 0 is the newest one; inside a page the oldest comes first.",
    params(
        ("thread" = String, Path, description = "The thread's id", min_length = 1),
        ("resourceId" = Option<String>, Query, description = "The thread's owner; with a key that opens one resource, that one counts"),
        ("agentId" = Option<String>, Query, description = "Takes no effect"),
        ("page" = Option<u32>, Query, description = "Which page, from 0"),
        ("perPage" = Option<u32>, Query, description = "How many; 40 unless it is said"),
        ("orderBy" = Option<String>, Query, description = "JSON `{\"field\", \"direction\"}`; or `orderBy[field]` and `orderBy[direction]`"),
        ("filter" = Option<String>, Query, description = "JSON `{\"dateRange\": {\"start\", \"end\"}}`"),
        ("include" = Option<String>, Query, description = "JSON `[{\"id\", \"withPreviousMessages\", \"withNextMessages\"}]`: messages around given ones"),
        ("includeSystemReminders" = Option<bool>, Query, description = "Whether reactive signals are listed too")
    ),
    responses((status = 200, description = "A page of messages", body = Object, example = json!({ "messages": [{ "id": "m1", "role": "assistant", "threadId": "t-1", "resourceId": "ann", "createdAt": "2026-01-02T03:04:06.000Z", "content": { "format": 2, "parts": [{ "type": "text", "text": "Done" }] } }], "uiMessages": null, "total": 1, "page": 0, "perPage": 40, "hasMore": false })))
)]
async fn messages(
    State(shared): State<Shared>,
    caller: Caller,
    Path(thread): Path<String>,
    query: Query,
) -> Result<axum::Json<Value>, Problem> {
    let (page, order) = (page(&query, MESSAGES)?, OrderBy::of(&query)?);
    let asked: Filter = query.json("filter")?.unwrap_or_default();
    let include: Vec<Include> = query.json("include")?.unwrap_or_default();
    if include.len() > INCLUDE_MAX {
        return Err(Problem::query("include", format!("at most {INCLUDE_MAX} messages can be included")));
    }
    let (from, to) = range(asked.date_range.unwrap_or_default())?;
    let metadata = scalars("filter.metadata", asked.metadata.unwrap_or_default())?;
    let oldest_first = order.is_ascending()?;
    let reminders = query.flag("includeSystemReminders")?;
    let thread = seen(&shared, &caller, &thread, query.text("resourceId")).await?;
    let include = around(&shared, &thread, include).await?;
    // Newest first means that the first page is the newest one (H10.6).
    let filter = MessageFilter { page, oldest_first, from, to, metadata, reminders, include };
    let listed = shared.client.list_rows(&thread, &filter).await?;
    let rows = listed.items.iter().filter_map(|message| message.content.read().ok()).collect();
    let mut answer = paged("messages", rows, listed.total, page);
    answer["uiMessages"] = Value::Null;
    Ok(axum::Json(answer))
}

/// Where messages stand that are to be included: on the thread itself, or on another one of its owner. What stands on a thread
/// that is not there is not there.
async fn around(shared: &Shared, thread: &Thread, include: Vec<Include>) -> Result<Vec<Around>, Problem> {
    let mut found = Vec::with_capacity(include.len());
    for asked in include {
        let (before, after) = (asked.with_previous_messages, asked.with_next_messages);
        let elsewhere = asked.thread_id.filter(|other| *other != thread.id.as_str());
        let thread = match elsewhere {
            None => None,
            Some(other) => match shared.thread(&other).await? {
                Some(other) if other.resource != thread.resource => return Err(Problem::foreign_thread()),
                Some(other) => Some(other.key),
                None => continue,
            },
        };
        found.push(Around { id: asked.id, thread, before, after });
    }
    Ok(found)
}

/// The first and the last millisecond of a range.
fn range(range: DateRange) -> Result<(Option<Instant>, Option<Instant>), Problem> {
    let bound = |name: &str, text: Option<String>, inwards: i64| -> Result<Option<Instant>, Problem> {
        let at = text.map(|text| instant(name, &text)).transpose()?;
        Ok(at.map(|at| Instant(at.0.saturating_add(inwards))))
    };
    let from = bound("filter.dateRange.start", range.start, i64::from(range.start_exclusive))?;
    let until = bound("filter.dateRange.end", range.end, -i64::from(range.end_exclusive))?;
    Ok((from, until))
}

/// Which messages are to be deleted: one or several, each by its id or as an object that has it (H10.7).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delete {
    message_ids: OneOrMany,
    /// Only those of this owner, and on this thread.
    resource_id: Option<String>,
    thread_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected the id of a message, an object with its id, or a list of either")]
enum OneOrMany {
    One(Named),
    Many(Vec<Named>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    Id(String),
    Message { id: String },
}

impl OneOrMany {
    fn ids(self) -> Vec<String> {
        let named = match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        };
        let id = |named| match named {
            Named::Id(id) | Named::Message { id } => id,
        };
        named.into_iter().map(id).collect()
    }
}

/// H10.7. Messages of other owners than the caller are not there for it.
#[utoipa::path(
    post,
    path = "/memory/messages/delete",
    operation_id = "deleteMessages",
    tag = "Threads",
    summary = "Deletes messages",
    description = "From the history; what a run has read it has read. Those of other owners are not there for the caller.",
    params(
        ("resourceId" = Option<String>, Query, description = "Only those of this owner"),
        ("threadId" = Option<String>, Query, description = "Only those of this thread"),
        ("agentId" = Option<String>, Query, description = "Takes no effect")
    ),
    request_body = DeleteMessages,
    responses((status = 200, description = "How many were deleted", body = Object, example = json!({ "success": true, "message": "1 message deleted successfully" })))
)]
async fn delete(
    State(shared): State<Shared>,
    caller: Caller,
    query: Query,
    Body(asked): Body<Delete>,
) -> Result<axum::Json<Value>, Problem> {
    let ids = asked.message_ids.ids();
    if ids.is_empty() || ids.len() > DELETE_MAX {
        return Err(Problem::body("messageIds", format!("expected 1 to {DELETE_MAX} messages, found {}", ids.len())));
    }
    let resource = caller.resource(asked.resource_id.or_else(|| query.text("resourceId")));
    let thread = asked.thread_id.or_else(|| query.text("threadId"));
    let deleted = shared.client.delete_messages(&ids, resource.as_deref(), thread.as_deref()).await?;
    let s = if deleted == 1 { "" } else { "s" };
    Ok(axum::Json(json!({ "success": true, "message": format!("{deleted} message{s} deleted successfully") })))
}

/// H10.8.
#[utoipa::path(
    get,
    path = "/memory/status",
    operation_id = "memoryStatus",
    tag = "Threads",
    summary = "Says that threads are kept",
    description = "",
    params(
        ("agentId" = Option<String>, Query, description = "Takes no effect")
    ),
    responses((status = 200, description = "They are", body = Object, example = json!({ "result": true, "memoryType": "local" })))
)]
async fn status() -> axum::Json<Value> {
    axum::Json(json!({ "result": true, "memoryType": "local" }))
}

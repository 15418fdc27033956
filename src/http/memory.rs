//! Threads and their messages, as interfaces list them (section 10).

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::caller::Caller;
use super::error::Problem;
use super::extract::{Query, instant};
use super::state::Shared;
use crate::clock::Instant;
use crate::id::{Namespace, ThreadKey};
use crate::message::Lane;
use crate::payload::Payload;
use crate::runtime::Error;
use crate::store::{Message, MessageList, Order, ThreadList, Window};
use crate::thread::Thread;

/// How many threads a page has, unless it is said.
const THREADS: usize = 100;

/// How many messages a page has, unless it is said.
const MESSAGES: usize = 40;

/// The most that a page may have.
const PAGE_MAX: usize = 1_000;

/// The most messages that are looked up beside a page.
const INCLUDE_MAX: usize = 100;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/memory/threads", get(threads))
        .route("/memory/threads/{thread}", get(thread))
        .route("/memory/threads/{thread}/messages", get(messages))
        .route("/memory/status", get(status))
}

/// Which page.
struct Page {
    page: usize,
    per_page: usize,
}

impl Page {
    fn of(query: &Query, per_page: usize) -> Result<Self, Problem> {
        let per_page = query.count("perPage", per_page)?.min(PAGE_MAX);
        Ok(Self { page: query.count("page", 0)?, per_page })
    }

    fn offset(&self) -> usize {
        self.page.saturating_mul(self.per_page)
    }

    /// Whether there is more after this page of so many in all.
    fn has_more(&self, total: i64) -> bool {
        let seen = i64::try_from(self.offset().saturating_add(self.per_page)).unwrap_or(i64::MAX);
        self.per_page > 0 && seen < total
    }
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

    fn field(&self) -> Result<Order, Problem> {
        match self.field.as_deref() {
            None | Some("createdAt") => Ok(Order::Created),
            Some("updatedAt") => Ok(Order::Updated),
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
fn scalars(name: &str, wanted: Option<Map<String, Value>>) -> Result<Option<Payload>, Problem> {
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else { return Ok(None) };
    if let Some((key, _)) = wanted.iter().find(|(_, value)| value.is_object() || value.is_array()) {
        return Err(Problem::query(name, format!("{key:?} is to be a text, a number, true, false or null")));
    }
    Ok(Some(Payload::of(&wanted).map_err(Error::from)?))
}

async fn threads(State(shared): State<Shared>, caller: Caller, query: Query) -> Result<axum::Json<Value>, Problem> {
    let (page, order) = (Page::of(&query, THREADS)?, OrderBy::of(&query)?);
    let list = ThreadList {
        resource: caller.resource(query.text("resourceId")),
        metadata: scalars("metadata", query.json("metadata")?)?,
        order: order.field()?,
        ascending: order.is_ascending()?,
        offset: page.offset(),
        limit: page.per_page,
    };
    let listed = shared.client.store().list_threads(&Namespace::default(), &list).await;
    let (threads, total) = listed.map_err(Error::from)?;
    let mut shown = Vec::with_capacity(threads.len());
    for thread in &threads {
        shown.push(shown_thread(&shared, thread).await?);
    }
    Ok(axum::Json(json!({
        "threads": shown,
        "total": total,
        "page": page.page,
        "perPage": page.per_page,
        "hasMore": page.has_more(total),
    })))
}

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
async fn seen(shared: &Shared, caller: &Caller, id: &str, resource: Option<String>) -> Result<Thread, Problem> {
    let thread = shared.thread(id).await?.ok_or_else(Problem::no_thread)?;
    caller.may_see(&thread, resource)?;
    Ok(thread)
}

async fn shown_thread(shared: &Shared, thread: &Thread) -> Result<Value, Problem> {
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

async fn messages(
    State(shared): State<Shared>,
    caller: Caller,
    Path(thread): Path<String>,
    query: Query,
) -> Result<axum::Json<Value>, Problem> {
    let (page, order) = (Page::of(&query, MESSAGES)?, OrderBy::of(&query)?);
    let filter: Filter = query.json("filter")?.unwrap_or_default();
    let include: Vec<Include> = query.json("include")?.unwrap_or_default();
    if include.len() > INCLUDE_MAX {
        return Err(Problem::query("include", format!("at most {INCLUDE_MAX} messages can be included")));
    }
    let (from, until) = range(filter.date_range.unwrap_or_default())?;
    let list = MessageList {
        include_reminders: query.flag("includeSystemReminders")?,
        from,
        until,
        metadata: scalars("filter.metadata", filter.metadata)?,
        // Newest first means that the first page is the newest one (H10.6).
        latest: !order.is_ascending()?,
        offset: page.offset(),
        limit: page.per_page,
    };
    let thread = seen(&shared, &caller, &thread, query.text("resourceId")).await?;
    let store = shared.client.store();
    let (mut messages, total) = store.list_messages(thread.key, &list).await.map_err(Error::from)?;
    for asked in &include {
        let around = around(&shared, &caller, &thread, asked).await?;
        messages.extend(around);
    }
    if !include.is_empty() {
        messages.sort_by_key(|message| (message.created_at, message.seq));
        messages.dedup_by(|a, b| a.id == b.id && a.seq == b.seq);
    }
    let rows: Vec<Value> = messages.iter().filter_map(|message| message.content.read().ok()).collect();
    Ok(axum::Json(json!({
        "messages": rows,
        "uiMessages": null,
        "total": total,
        "page": page.page,
        "perPage": page.per_page,
        "hasMore": page.has_more(total),
    })))
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

/// A message and those around it, on this thread or on another of the same owner.
async fn around(shared: &Shared, caller: &Caller, thread: &Thread, asked: &Include) -> Result<Vec<Message>, Problem> {
    let key: ThreadKey = match &asked.thread_id {
        Some(other) if other != thread.id.as_str() => {
            seen(shared, caller, other, Some(thread.resource.clone())).await?.key
        }
        _ => thread.key,
    };
    let store = shared.client.store();
    let named = store.messages_named(key, std::slice::from_ref(&asked.id)).await.map_err(Error::from)?;
    let Some(found) = named.into_iter().next() else { return Ok(Vec::new()) };
    let (before, after) = (asked.with_previous_messages.min(PAGE_MAX), asked.with_next_messages.min(PAGE_MAX));
    let mut messages = store.messages(key, Window::latest(found.seq - 1, before)).await.map_err(Error::from)?;
    let next = store.messages(key, Window::after(found.seq, after)).await.map_err(Error::from)?;
    messages.push(found);
    messages.extend(next);
    Ok(messages)
}

/// H10.8.
async fn status() -> axum::Json<Value> {
    axum::Json(json!({ "result": true, "memoryType": "local" }))
}

//! `aldis threads` and `aldis thread`: what threads there are, and what was said on one.

use clap::Args;
use serde_json::{Value, json};

use super::error::Error;
use super::send::Whose;
use super::{Desk, Exit, print};
use crate::clock::Clock;
use crate::message::{AssistantPart, Message, PromptMessage};
use crate::store::{Page, Window};

/// Lists threads, the one that was changed last first.
#[derive(Debug, Args)]
pub(super) struct Threads {
    /// Only those of this owner
    #[arg(long, value_name = "NAME")]
    pub(super) resource: Option<String>,
    /// How many at the most
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(super) limit: usize,
    /// Which page of so many; the first is 0
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) page: usize,
}

pub(super) async fn list(desk: &Desk, asked: Threads) -> Result<Exit, Error> {
    let client = desk.client().await?;
    let page = Page { number: asked.page, size: asked.limit };
    let threads = client.threads(asked.resource.as_deref(), page).await?;
    let now = Clock::System.now();
    let mut rows = Vec::new();
    for thread in &threads.items {
        let calls = client.store().waiting_calls(Some(thread.key), 1).await?;
        let state = match &thread.current {
            None => "idle",
            Some(_) if calls.is_empty() => "active",
            Some(_) => "suspended",
        };
        if desk.json() {
            print::json(&json!({
                "id": thread.id, "resource": thread.resource, "title": thread.title, "state": state,
                "run": thread.current.as_ref().map(|it| &it.run), "agent": thread.current.as_ref().map(|it| &it.agent),
                "queued": thread.queued, "messages": thread.last_seq,
                "created_at": thread.created_at, "updated_at": thread.updated_at,
            }))?;
        } else {
            let agent = thread.current.as_ref().map_or("", |current| current.agent.as_str());
            rows.push(vec![
                thread.id.to_string(),
                thread.resource.clone(),
                state.to_owned(),
                agent.to_owned(),
                thread.queued.to_string(),
                thread.last_seq.to_string(),
                print::from_now(thread.updated_at, now),
            ]);
        }
    }
    if !desk.json() {
        print::text(&print::table(&["THREAD", "OWNER", "STATE", "AGENT", "QUEUED", "MESSAGES", "CHANGED"], &rows))?;
        if threads.has_more(page) {
            eprintln!("{} threads in all: --page {}", threads.total, page.number + 1);
        }
    }
    client.store().close().await;
    Ok(Exit::Good)
}

/// Prints a thread's history.
#[derive(Debug, Args)]
pub(super) struct Thread {
    /// The thread's id
    pub(super) thread: String,
    #[command(flatten)]
    pub(super) whose: Whose,
    /// As the model reads it
    #[arg(long)]
    pub(super) model: bool,
    /// How many of the latest messages
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(super) limit: usize,
}

pub(super) async fn run(desk: &Desk, asked: Thread) -> Result<Exit, Error> {
    let client = desk.client().await?;
    let thread = asked.whose.thread(&client, &asked.thread)?;
    let messages = thread.history(Window::latest(i64::MAX, asked.limit)).await?;
    let waiting: Vec<String> = thread.waiting().await?.into_iter().map(|it| it.call).collect();
    let under_way = thread.find().await?.is_some_and(|thread| thread.current.is_some());
    client.store().close().await;
    told(desk, &messages, asked.model, Open { waiting: &waiting, under_way })
}

/// Prints messages as people read them, or as the model does.
pub(super) fn told(desk: &Desk, messages: &[Message], as_the_model: bool, open: Open<'_>) -> Result<Exit, Error> {
    if as_the_model {
        for prompt in messages.iter().flat_map(|message| message.prompt().0) {
            if desk.json() { print::json(&prompt)? } else { print::line(&read_by_the_model(&prompt))? }
        }
        return Ok(Exit::Good);
    }
    let shown = Message::shown(messages, false);
    for (n, message) in shown.iter().enumerate() {
        if desk.json() {
            print::json(message)?;
        } else {
            let open = Open { under_way: open.under_way && n + 1 == shown.len(), ..open };
            let parts: Vec<String> = message.parts.iter().filter_map(|it| part(it, &open)).collect();
            print::line(&format!("{}: {}", message.role, parts.join("\n  ")))?;
        }
    }
    Ok(Exit::Good)
}

/// What calls without a result wait for.
#[derive(Clone, Copy)]
pub(super) struct Open<'a> {
    /// These wait for somebody outside.
    pub(super) waiting: &'a [String],
    /// The others, of the last message, are being made.
    pub(super) under_way: bool,
}

impl Open<'_> {
    fn words(&self, call: &str) -> String {
        match self {
            Self { waiting, .. } if waiting.iter().any(|it| it == call) => format!("waits for an answer: call {call}"),
            Self { under_way: true, .. } => "is under way".to_owned(),
            Self { under_way: false, .. } => format!("has no result: call {call}"),
        }
    }
}

/// A part of a message as a person reads it.
fn part(part: &Value, open: &Open<'_>) -> Option<String> {
    match part["type"].as_str()? {
        "text" => Some(part["text"].as_str().unwrap_or_default().to_owned()),
        "reasoning" => Some(format!("(thinks: {})", part["text"].as_str().or(part["reasoning"].as_str())?)),
        "file" => Some(format!("(file {})", part["mediaType"].as_str().or(part["mimeType"].as_str())?)),
        "tool-invocation" => {
            let call = &part["toolInvocation"];
            let came_to = match (call["state"].as_str().unwrap_or_default(), call.get("result")) {
                (state, Some(result)) => format!("{state}: {result}"),
                ("call", None) => open.words(call["toolCallId"].as_str().unwrap_or_default()),
                (state, None) => state.to_owned(),
            };
            Some(format!("[{} {} {came_to}]", call["toolName"].as_str()?, call["args"]))
        }
        "data-signal" => Some(format!(
            "({} {})",
            part["data"]["tagName"].as_str().unwrap_or("signal"),
            part["data"]["contents"].as_str().map_or_else(|| part["data"]["contents"].to_string(), str::to_owned),
        )),
        _ => None,
    }
}

fn read_by_the_model(prompt: &PromptMessage) -> String {
    match prompt {
        PromptMessage::System(text) => format!("system: {text}"),
        PromptMessage::User { .. } => {
            format!("user: {}", prompt.plain_text().map_or_else(|| json!(prompt).to_string(), str::to_owned))
        }
        PromptMessage::Assistant { parts } => {
            let parts: Vec<String> = parts
                .iter()
                .map(|part| match part {
                    AssistantPart::Text(text) => text.clone(),
                    AssistantPart::Reasoning { text, .. } => format!("(thinks: {text})"),
                    AssistantPart::Call(call) => format!("[{} {}]", call.name, call.arguments),
                })
                .collect();
            format!("assistant: {}", parts.join("\n  "))
        }
        PromptMessage::Tool { results } => {
            let results: Vec<String> = results.iter().map(|it| format!("[{}: {}]", it.name, it.output)).collect();
            format!("tool: {}", results.join("\n  "))
        }
    }
}

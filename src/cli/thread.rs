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
    client.store().close().await;
    told(desk, &messages, asked.model)
}

/// Prints messages as people read them, or as the model does.
pub(super) fn told(desk: &Desk, messages: &[Message], as_the_model: bool) -> Result<Exit, Error> {
    if as_the_model {
        for prompt in messages.iter().flat_map(|message| message.prompt().0) {
            if desk.json() { print::json(&prompt)? } else { print::line(&read_by_the_model(&prompt))? }
        }
        return Ok(Exit::Good);
    }
    for shown in Message::shown(messages, false) {
        if desk.json() {
            print::json(&shown)?;
        } else {
            let parts: Vec<String> = shown.parts.iter().filter_map(part).collect();
            print::line(&format!("{}: {}", shown.role, parts.join("\n  ")))?;
        }
    }
    Ok(Exit::Good)
}

/// A part of a message as a person reads it.
fn part(part: &Value) -> Option<String> {
    match part["type"].as_str()? {
        "text" => Some(part["text"].as_str().unwrap_or_default().to_owned()),
        "reasoning" => Some(format!("(thinks: {})", part["text"].as_str().or(part["reasoning"].as_str())?)),
        "file" => Some(format!("(file {})", part["mediaType"].as_str().or(part["mimeType"].as_str())?)),
        "tool-invocation" => {
            let call = &part["toolInvocation"];
            let state = call["state"].as_str().unwrap_or_default();
            let result = call.get("result").map(|it| format!(": {it}")).unwrap_or_default();
            Some(format!("[{} {} {state}{result}]", call["toolName"].as_str()?, call["args"]))
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

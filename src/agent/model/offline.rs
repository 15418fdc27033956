//! The offline model: no key, no network, the same answer to the same prompt.
//!
//! It echoes what the user said last, word by word, and obeys a small script in it, each command on a line of its own:
//!
//! | line | what it does |
//! |---|---|
//! | `/say TEXT` | answers with TEXT; several make several lines |
//! | `/call NAME {json}` | calls the tool; several lines make several calls of one reply; no JSON means `{}` |
//! | `/think MS` | waits that long before it answers, ten minutes at most |
//!
//! To tool results it answers with what they were. A command it does not understand it answers with what is wrong.

use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Map, Value};

use super::deltas::{Blocks, words};
use super::{Deltas, Finish, Model, ModelError, Reply, Request, ToolChoice, Usage, beginning, digest_of};
use crate::message::{AssistantPart, Part, PromptMessage, ToolCall, ToolResult};

/// The longest that `/think` waits in one answer, in milliseconds.
pub const THINK_MAX_MS: u64 = 600_000;

/// The offline model; see the table above.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offline;

/// What it is going to do.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    think_ms: u64,
    text: String,
    calls: Vec<(String, Value)>,
}

impl Model for Offline {
    fn name(&self) -> &str {
        "offline"
    }

    fn ask<'a>(&'a self, request: &'a Request, deltas: &'a Deltas) -> BoxFuture<'a, Result<Reply, ModelError>> {
        Box::pin(answer(request, deltas))
    }
}

async fn answer(request: &Request, deltas: &Deltas) -> Result<Reply, ModelError> {
    let Plan { think_ms, text, calls } = plan(request);
    if think_ms > 0 {
        tokio::time::sleep(Duration::from_millis(think_ms)).await;
    }
    let digest = digest_of(request);
    let mut blocks = Blocks::new(deltas);
    let mut parts = Vec::new();
    let mut output = 0;
    if !text.is_empty() {
        for word in words(&text) {
            output += 1;
            blocks.text(word.to_owned()).await;
        }
        parts.push(AssistantPart::Text(text));
    }
    for (index, (name, arguments)) in calls.into_iter().enumerate() {
        let id = format!("call_{}_{index}", &digest[..16]);
        blocks.input(&id, &name, arguments.to_string()).await;
        output += 1;
        parts.push(AssistantPart::Call(ToolCall { id, name, arguments }));
    }
    blocks.close().await;
    let called = parts.iter().any(|part| part.as_call().is_some());
    let input = count(request);
    Ok(Reply {
        parts,
        finish: if called { Finish::ToolCalls } else { Finish::Stop },
        usage: Usage { input, output, total: input + output, cached: None, reasoning: None },
        response_id: Some(format!("offline-{}", &digest[..16])),
        model_id: request.model.clone(),
    })
}

/// The prompt's words: what it would cost.
fn count(request: &Request) -> u64 {
    let text = |text: &str| text.split_whitespace().count() as u64;
    let said = |message: &PromptMessage| match message {
        PromptMessage::System(words) => text(words),
        PromptMessage::User { parts, .. } => text(&said_in(parts)),
        PromptMessage::Assistant { parts } => {
            let words = parts.iter().map(|part| match part {
                AssistantPart::Text(words) | AssistantPart::Reasoning { text: words, .. } => text(words),
                AssistantPart::Call(_) => 1,
            });
            words.sum()
        }
        PromptMessage::Tool { results } => results.len() as u64,
    };
    request.system.iter().map(|words| text(words)).chain(request.messages.iter().map(said)).sum()
}

fn plan(request: &Request) -> Plan {
    if let Some(PromptMessage::Tool { results }) = request.messages.last() {
        return Plan { text: summed_up(results), ..Plan::default() };
    }
    // What was said since the last answer is answered together.
    let said: Vec<String> = {
        let users = request.messages.iter().rev().map_while(|message| match message {
            PromptMessage::User { parts, .. } => Some(Some(said_in(parts))),
            PromptMessage::System(_) => Some(None),
            PromptMessage::Assistant { .. } | PromptMessage::Tool { .. } => None,
        });
        let mut said: Vec<String> = users.flatten().collect();
        said.reverse();
        said
    };
    match script(&said) {
        Ok(Some(plan)) if !plan.calls.is_empty() && request.tool_choice == ToolChoice::None => {
            Plan { text: "No tool may be called now.".to_owned(), calls: Vec::new(), ..plan }
        }
        Ok(Some(plan)) => plan,
        Ok(None) => Plan { text: said.join("\n"), ..Plan::default() },
        Err(problem) => Plan { text: problem, ..Plan::default() },
    }
}

fn said_in(parts: &[Part]) -> String {
    let texts = parts.iter().filter_map(|part| match part {
        Part::Text { text, .. } => Some(text.as_str()),
        Part::File { .. } => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// Reads the commands: none at all is no script. Other lines are the text, if nothing is said in their place.
fn script(said: &[String]) -> Result<Option<Plan>, String> {
    let mut plan = Plan::default();
    let (mut commands, mut sayings, mut others) = (0, Vec::new(), Vec::new());
    for text in said {
        for line in bare(text).lines() {
            match command(line)? {
                Some(Command::Say(text)) => sayings.push(text),
                Some(Command::Think(ms)) => plan.think_ms = plan.think_ms.saturating_add(ms),
                Some(Command::Call(name, arguments)) => plan.calls.push((name, arguments)),
                None => {
                    others.push(line.to_owned());
                    continue;
                }
            }
            commands += 1;
        }
    }
    if plan.think_ms > THINK_MAX_MS {
        return Err(format!("I can think for {THINK_MAX_MS} ms at most, and was asked for {}.", plan.think_ms));
    }
    if !sayings.is_empty() {
        plan.text = sayings.join("\n");
    } else if plan.calls.is_empty() {
        plan.text = others.join("\n");
    }
    Ok((commands > 0).then_some(plan))
}

enum Command {
    Say(String),
    Think(u64),
    Call(String, Value),
}

fn command(line: &str) -> Result<Option<Command>, String> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    match word {
        "/say" => Ok(Some(Command::Say(rest.to_owned()))),
        "/think" => match rest.parse() {
            Ok(ms) => Ok(Some(Command::Think(ms))),
            Err(_) => {
                Err(format!("I do not understand {:?}: /think wants a whole number of milliseconds.", short(line)))
            }
        },
        "/call" => call(rest).map(Some).map_err(|problem| format!("I do not understand {:?}: {problem}.", short(line))),
        _ => Ok(None),
    }
}

fn call(rest: &str) -> Result<Command, String> {
    let (name, json) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    if name.is_empty() || name.starts_with(['{', '[', '"']) {
        return Err("/call wants a tool's name and then its arguments as a JSON object".to_owned());
    }
    let arguments = match json.trim() {
        "" => Value::Object(Map::new()),
        json => serde_json::from_str(json).map_err(|problem| format!("the arguments are not JSON, {problem}"))?,
    };
    if arguments.is_object() {
        Ok(Command::Call(name.to_owned(), arguments))
    } else {
        Err("the arguments are not a JSON object".to_owned())
    }
}

/// A text without the element it may be wrapped in, as a message with attributes is.
fn bare(text: &str) -> String {
    let inner = || {
        let (opening, rest) = text.trim().strip_prefix('<')?.split_once('>')?;
        let tag = opening.split(char::is_whitespace).next().filter(|tag| !tag.is_empty())?;
        rest.strip_suffix('>')?.strip_suffix(tag)?.strip_suffix("</")
    };
    match inner() {
        Some(inner) => inner.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"),
        None => text.to_owned(),
    }
}

fn summed_up(results: &[ToolResult]) -> String {
    let each = results.iter().map(|ToolResult { name, output, is_error, .. }| {
        let output = match output {
            Value::String(text) => short(text),
            other => short(&other.to_string()),
        };
        if *is_error { format!("{name} failed: {output}") } else { format!("{name} answered {output}") }
    });
    each.collect::<Vec<_>>().join("; ")
}

fn short(text: &str) -> String {
    beginning(text, 200)
}

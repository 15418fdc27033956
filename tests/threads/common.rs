//! What scenarios of threads share.

use aldis::agent::Agent;
use aldis::message::{Body, CallState, Message, ReplyPart};
use aldis::runtime::{Client, ThreadHandle};
use aldis::store::{Kind, Window};
use aldis::testing::{Error, Setup};
use serde_json::Value;

use crate::support::kit;

/// A kit with the demonstration agent, and one of another name beside it.
pub fn agents(kind: Kind) -> Setup {
    kit(kind).agent(aldis::workflows::demo::agent()).agent(Agent::new("other"))
}

/// Ann's thread `t` with the demonstration agent.
pub fn thread(client: &Client) -> ThreadHandle {
    client.agent("demo").thread("t", "ann").expect("an id")
}

/// The history, a line a message.
pub async fn history(thread: &ThreadHandle) -> Result<Vec<String>, Error> {
    Ok(thread.history(Window::latest(i64::MAX, 1_000)).await?.iter().map(line).collect())
}

fn line(message: &Message) -> String {
    match &message.body {
        Body::Signal(signal) => format!("{} {}", signal.category.word(), signal.contents.all_text()),
        Body::User(said) => format!("said {}", said.contents.all_text()),
        Body::System(said) => format!("system {}", said.contents.all_text()),
        Body::Assistant(reply) => {
            let parts = reply.parts.iter().filter_map(|part| match part {
                ReplyPart::Text { text, .. } => Some(text.clone()),
                ReplyPart::Tool(it) => Some(format!(
                    "[{} {}: {}]",
                    it.call.name,
                    it.call.arguments,
                    match &it.state {
                        CallState::Open => "open".to_owned(),
                        CallState::Done(value) => value.to_string(),
                        CallState::Failed(error) => format!("failed {error}"),
                        CallState::Denied =>
                            format!("denied {:?}", it.approval.as_ref().and_then(|it| it.reason.clone())),
                    }
                )),
                _ => None,
            });
            let aborted = if reply.aborted() { " (aborted)" } else { "" };
            format!("demo {}{aborted}", parts.collect::<Vec<_>>().join(" "))
        }
    }
}

/// All chunks of the thread, each by its type and what it is about.
pub async fn chunks(client: &Client, thread: &ThreadHandle) -> Result<Vec<String>, Error> {
    let found = thread.find().await?.expect("the thread");
    let chunks = client.store().chunks(found.key, 0, 10_000).await.map_err(aldis::Error::from)?;
    Ok(chunks.iter().map(|chunk| about(&chunk.value.read().expect("a chunk"))).collect())
}

pub fn about(chunk: &Value) -> String {
    let kind = chunk["type"].as_str().unwrap_or_default();
    let payload = &chunk["payload"];
    let more = match kind {
        "data-user-message" | "data-signal" => chunk["data"]["contents"].as_str().unwrap_or_default().to_owned(),
        "text-delta" => payload["text"].as_str().unwrap_or_default().to_owned(),
        "step-start" if payload["restarted"] == true => format!("{} again", payload["stepNumber"]),
        "step-start" => payload["stepNumber"].to_string(),
        "step-finish" | "finish" => {
            format!("{} {}", payload["stepResult"]["reason"], payload["stepResult"]["isContinued"])
        }
        "tool-call" | "tool-call-approval" | "tool-call-suspended" => {
            payload["toolName"].as_str().unwrap_or_default().to_owned()
        }
        "tool-result" => format!("{} {}", payload["toolName"].as_str().unwrap_or_default(), payload["result"]),
        "tool-error" => format!("{} {}", payload["toolName"].as_str().unwrap_or_default(), payload["error"]),
        "tool-output-denied" => {
            format!("{} {}", payload["toolName"].as_str().unwrap_or_default(), payload["approval"]["reason"])
        }
        "error" => payload["error"]["message"].to_string(),
        _ => String::new(),
    };
    format!("{kind} {more}").trim_end().to_owned()
}

/// A journal without what differs from run to run: the offline model's digests of prompts that hold a run's id, and which
/// of two calls that ran at the same time was done first.
pub fn steady(journal: &str) -> String {
    const DIGEST: &str = "\"response_id\":\"offline-";
    let mut lines: Vec<String> = Vec::new();
    for line in journal.lines() {
        let mut line = line.to_owned();
        if let Some(at) = line.find(DIGEST).map(|at| at + DIGEST.len()) {
            line.replace_range(at..at + 16, "<digest>");
        }
        let called = |line: &str| line.contains("StepFinished       work/call[");
        if let Some(last) = lines.last_mut()
            && called(last)
            && called(&line)
            && last[4..] > line[4..]
        {
            let (earlier, later) = (line[4..].to_owned(), last[4..].to_owned());
            last.replace_range(4.., &earlier);
            line.replace_range(4.., &later);
        }
        lines.push(line);
    }
    lines.join("\n")
}

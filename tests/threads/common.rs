//! What scenarios of threads share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aldis::agent::Agent;
use aldis::agent::model::{Delta, Deltas, Finish, Model, ModelError, Models, Reply, Request, Usage};
use aldis::message::{AssistantPart, Body, CallState, Message, NewSignal, ReplyPart, ToolCall};
use aldis::runtime::{Client, ThreadHandle};
use aldis::store::{Kind, Window};
use aldis::testing::{Error, Setup};
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::mpsc;

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

/// All that an assistant said in a message.
pub fn text_of(reply: &aldis::message::Reply) -> String {
    let texts = reply.parts.iter().filter_map(|part| match part {
        ReplyPart::Text { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
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
        "tripwire" => payload["reason"].as_str().unwrap_or_default().to_owned(),
        "error" => payload["error"]["message"].to_string(),
        _ => String::new(),
    };
    format!("{kind} {more}").trim_end().to_owned()
}

/// What a client makes of the chunks: pieces of a text are one, and what a step had shown before it was begun again is
/// dropped (T11.11).
pub fn told(chunks: &[Value]) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    let mut step = 0;
    for chunk in chunks {
        let said = about(chunk);
        match (said.strip_prefix("text-delta"), told.last_mut()) {
            (Some(more), Some(text)) if text.starts_with("text-delta") => {
                text.push_str(chunk["payload"]["text"].as_str().unwrap_or(more));
                continue;
            }
            _ => {}
        }
        if said.starts_with("step-start") {
            match said.strip_suffix(" again") {
                Some(begun) => {
                    assert_eq!(told.get(step).map(String::as_str), Some(begun), "another step is begun again");
                    told.truncate(step + 1);
                    continue;
                }
                None => step = told.len(),
            }
        }
        match said.starts_with("text-delta") {
            // Spaces at the end count here.
            true => told.push(format!("text-delta {}", chunk["payload"]["text"].as_str().unwrap_or_default())),
            false => told.push(said),
        }
    }
    told
}

/// Demands what holds of every thread's stream: runs do not interleave, each begins with `start` and ends with one
/// terminal chunk (T11.4, T11.5), and no run echoes a signal twice (T6.6). Gives how often each signal is echoed.
pub fn echoes(chunks: &[Value]) -> BTreeMap<String, usize> {
    let mut run = None;
    let mut runs = BTreeSet::new();
    let (mut of_run, mut echoes) = (BTreeSet::new(), BTreeMap::new());
    for chunk in chunks {
        let (of, kind) = (chunk["runId"].as_str().expect("a run"), chunk["type"].as_str().expect("a type"));
        if run.is_none() {
            assert_eq!(kind, "start", "run {of} begins with another chunk");
            assert!(runs.insert(of.to_owned()), "run {of} had ended");
            (run, of_run) = (Some(of.to_owned()), BTreeSet::new());
        }
        assert_eq!(run.as_deref(), Some(of), "runs interleave");
        if matches!(kind, "data-user-message" | "data-signal") {
            let id = chunk["data"]["id"].as_str().expect("an id").to_owned();
            assert!(of_run.insert(id.clone()), "{id} is echoed twice by run {of}");
            *echoes.entry(id).or_insert(0) += 1;
        }
        if matches!(kind, "finish" | "error" | "abort") {
            run = None;
        }
    }
    assert_eq!(run, None, "a run has not ended");
    echoes
}

/// All chunks of the thread as they are, whose places have no gap.
pub async fn stream(client: &Client, thread: &ThreadHandle) -> Result<Vec<Value>, Error> {
    let found = thread.find().await?.expect("the thread");
    let chunks = client.store().chunks(found.key, 0, 100_000).await.map_err(aldis::Error::from)?;
    assert!(chunks.iter().map(|chunk| chunk.offset).eq(1..=chunks.len() as i64), "the stream has gaps");
    Ok(chunks.iter().map(|chunk| chunk.value.read().expect("a chunk")).collect())
}

/// The ids of the messages that were sent, in the order of the history; each of them once (T20.6).
pub async fn inputs(thread: &ThreadHandle) -> Result<Vec<String>, Error> {
    let messages = thread.history(Window::latest(i64::MAX, 100_000)).await?;
    let seqs: BTreeSet<i64> = messages.iter().map(|it| it.seq).collect();
    assert_eq!(seqs.len(), messages.len(), "two messages have one place");
    let ids: Vec<String> =
        messages.iter().filter(|it| matches!(it.body, Body::Signal(_))).map(|it| it.id.clone()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "a message is there twice: {ids:?}");
    Ok(ids)
}

/// A message under the sender's id.
pub fn message(id: &str, text: &str) -> NewSignal {
    NewSignal { id: Some(id.into()), ..NewSignal::user(text) }
}

/// A model that does as the test says, each time it is asked.
#[derive(Debug)]
pub struct Puppet(mpsc::UnboundedSender<Asked>);

/// A request to a [`Puppet`]. Once it is dropped, the answer is complete.
#[derive(Debug)]
pub struct Asked {
    pub request: Request,
    does: mpsc::UnboundedSender<Does>,
}

#[derive(Debug)]
enum Does {
    Say(String),
    Call(ToolCall),
    Fail(ModelError),
}

impl Puppet {
    /// The models with a puppet, which agents ask as `puppet/x`, and its strings.
    pub fn models() -> (Models, mpsc::UnboundedReceiver<Asked>) {
        let (asks, asked) = mpsc::unbounded_channel();
        (Models::new().with(Arc::new(Self(asks))), asked)
    }
}

impl Asked {
    /// Says more.
    pub fn say(&self, text: &str) {
        self.does.send(Does::Say(text.to_owned())).expect("the model is asked");
    }

    /// Says more, if somebody still listens.
    pub fn says(&self, text: &str) -> bool {
        self.does.send(Does::Say(text.to_owned())).is_ok()
    }

    /// Ends without an answer.
    pub fn fail(self, error: ModelError) {
        self.does.send(Does::Fail(error)).expect("the model is asked");
    }

    /// Calls a tool, and that was all.
    pub fn call(self, name: &str, arguments: Value) {
        self.call_as(&format!("call-{name}"), name, arguments);
    }

    /// The same under an id.
    pub fn call_as(self, id: &str, name: &str, arguments: Value) {
        let call = ToolCall { id: id.to_owned(), name: name.to_owned(), arguments };
        self.does.send(Does::Call(call)).expect("the model is asked");
    }

    /// Says this, and that was all.
    pub fn answer(self, text: &str) {
        self.say(text);
    }

    /// All that the model is given to read.
    pub fn prompt(&self) -> String {
        serde_json::to_string(&self.request.messages).expect("a prompt")
    }
}

impl Model for Puppet {
    fn name(&self) -> &str {
        "puppet"
    }

    fn ask<'a>(&'a self, request: &'a Request, deltas: &'a Deltas) -> BoxFuture<'a, Result<Reply, ModelError>> {
        let (does, mut strings) = mpsc::unbounded_channel();
        let told = self.0.send(Asked { request: request.clone(), does });
        Box::pin(async move {
            told.expect("somebody pulls the strings");
            let (mut text, mut calls) = (String::new(), Vec::new());
            while let Some(does) = strings.recv().await {
                match does {
                    Does::Say(more) => {
                        if text.is_empty() {
                            deltas.send(Delta::TextStart { id: "t".into() }).await;
                        }
                        text.push_str(&more);
                        deltas.send(Delta::Text { id: "t".into(), text: more }).await;
                    }
                    Does::Call(call) => calls.push(AssistantPart::Call(call)),
                    Does::Fail(error) => return Err(error),
                }
            }
            let mut reply = said(request, &text);
            if !calls.is_empty() {
                reply.finish = Finish::ToolCalls;
                reply.parts.retain(|part| *part != AssistantPart::Text(String::new()));
                reply.parts.extend(calls);
            }
            Ok(reply)
        })
    }
}

/// Says more than fits into what waits to be shown, so that some of it is shown before the answer is there.
pub struct Talkative;

impl Talkative {
    /// All that it says.
    pub fn says() -> String {
        (0..600).map(|n| format!("{n} ")).collect()
    }
}

impl Model for Talkative {
    fn name(&self) -> &str {
        "talkative"
    }

    fn ask<'a>(&'a self, request: &'a Request, deltas: &'a Deltas) -> BoxFuture<'a, Result<Reply, ModelError>> {
        Box::pin(async move {
            deltas.send(Delta::TextStart { id: "t".into() }).await;
            for text in Self::says().split_inclusive(' ') {
                deltas.send(Delta::Text { id: "t".into(), text: text.into() }).await;
            }
            deltas.send(Delta::TextEnd { id: "t".into() }).await;
            Ok(said(request, &Self::says()))
        })
    }
}

/// A reply of text.
pub fn said(request: &Request, text: &str) -> Reply {
    Reply {
        parts: vec![AssistantPart::Text(text.to_owned())],
        finish: Finish::Stop,
        usage: Usage::default(),
        response_id: None,
        model_id: request.model.clone(),
    }
}

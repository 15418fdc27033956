//! A stream of events, gathered into a reply.

use std::sync::{Arc, Mutex, PoisonError};

use genai::chat::{
    ChatFrameSink, ContentPart, FnSink, StopReason, StreamEnd, ToolCall as TheirCall, Usage as TheirUsage,
};
use serde_json::{Map, Value};

use super::ProviderKind;
use super::prompt::{REDACTED, is_made_up, make_up};
use crate::agent::model::deltas::Blocks;
use crate::agent::model::{Deltas, Finish, Reply, Usage};
use crate::message::{AssistantPart, ToolCall};

/// How many of the first frames are looked at for the ids that the crate does not pass on.
const FRAMES_WITH_IDS: u32 = 4;

pub(super) struct Gathering<'a> {
    kind: ProviderKind,
    blocks: Blocks<'a>,
    calls: Vec<Seen>,
    ids: Arc<Mutex<Ids>>,
}

/// A call as far as it was streamed.
struct Seen {
    theirs: String,
    ours: String,
    name: String,
    arguments: String,
    taken: bool,
}

#[derive(Default)]
struct Ids {
    response: Option<String>,
    model: Option<String>,
}

impl<'a> Gathering<'a> {
    pub(super) fn new(kind: ProviderKind, deltas: &'a Deltas) -> Self {
        Self { kind, blocks: Blocks::new(deltas), calls: Vec::new(), ids: Arc::default() }
    }

    /// Hears every frame as the provider sent it.
    pub(super) fn listener(&self) -> Arc<dyn ChatFrameSink> {
        let ids = Arc::clone(&self.ids);
        Arc::new(FnSink::new(move |_: &genai::chat::FrameCtx, frame: genai::chat::RawFrameRef<'_>| {
            if frame.index < FRAMES_WITH_IDS
                && let Some(frame) = frame.json()
            {
                let word = |paths: [&str; 3]| {
                    let found = paths.iter().find_map(|path| frame.pointer(path)?.as_str());
                    found.filter(|word| !word.is_empty()).map(str::to_owned)
                };
                let mut ids = ids.lock().unwrap_or_else(PoisonError::into_inner);
                if ids.response.is_none() {
                    ids.response = word(["/id", "/message/id", "/responseId"]);
                }
                if ids.model.is_none() {
                    ids.model = word(["/model", "/message/model", "/modelVersion"]);
                }
            }
        }))
    }

    pub(super) async fn text(&mut self, text: String) {
        if !text.is_empty() {
            self.blocks.text(text).await;
        }
    }

    pub(super) async fn reasoning(&mut self, text: String) {
        if !text.is_empty() {
            self.blocks.reasoning(text).await;
        }
    }

    /// A call with its arguments so far; the new piece is what they have grown by.
    pub(super) async fn call(&mut self, call: TheirCall) {
        let (whole, arguments) = match call.fn_arguments {
            Value::String(so_far) => (false, so_far),
            other => (true, other.to_string()),
        };
        let known = self.calls.iter().rposition(|seen| {
            !whole && seen.theirs == call.call_id && seen.name == call.fn_name && arguments.starts_with(&seen.arguments)
        });
        let at = match known {
            Some(at) => at,
            None => self.meet(call.call_id, call.fn_name),
        };
        let last = at + 1 == self.calls.len();
        let seen = &mut self.calls[at];
        let piece = arguments[seen.arguments.len()..].to_owned();
        seen.arguments = arguments;
        // Blocks do not overlap: of a call that another has followed, the rest is in the reply.
        if last {
            let (id, name) = (seen.ours.clone(), seen.name.clone());
            self.blocks.input(&id, &name, piece).await;
        }
    }

    fn meet(&mut self, theirs: String, name: String) -> usize {
        let ours = if is_made_up(self.kind, &theirs) || self.calls.iter().any(|seen| seen.ours == theirs) {
            make_up(self.kind, &name)
        } else {
            theirs.clone()
        };
        self.calls.push(Seen { theirs, ours, name, arguments: String::new(), taken: false });
        self.calls.len() - 1
    }

    /// The reply, or nothing if the stream only ran out: for these two the crate makes up an end.
    pub(super) async fn reply(mut self, end: StreamEnd, model: &str) -> Option<Reply> {
        let silent_end = matches!(self.kind, ProviderKind::Gemini | ProviderKind::Ollama);
        if silent_end && end.captured_stop_reason.is_none() {
            return None;
        }
        self.blocks.close().await;
        let parts =
            self.parts(end.captured_content.map(|content| content.into_parts()), end.captured_reasoning_content);
        let called = parts.iter().any(|part| part.as_call().is_some());
        let ids = std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner));
        Some(Reply {
            parts,
            finish: finish(end.captured_stop_reason, called),
            usage: end.captured_usage.map(usage).unwrap_or_default(),
            response_id: ids.response.or(end.captured_response_id),
            model_id: ids.model.unwrap_or_else(|| model.to_owned()),
        })
    }

    fn parts(&mut self, content: Option<Vec<ContentPart>>, reasoning: Option<String>) -> Vec<AssistantPart> {
        let content = self.without_copies(content.unwrap_or_default());
        let on_calls: Vec<String> = if self.kind == ProviderKind::Gemini {
            let calls = content.iter().filter_map(ContentPart::as_tool_call);
            calls.filter_map(|call| call.thought_signatures.clone()).flatten().collect()
        } else {
            Vec::new()
        };
        let signed = content.iter().any(ContentPart::is_reasoning_content);
        let mut parts = Vec::with_capacity(content.len() + 1);
        if let Some(text) = reasoning.filter(|text| !signed && !text.is_empty()) {
            parts.push(AssistantPart::Reasoning { text, signature: None });
        }
        let mut content = content.into_iter().peekable();
        while let Some(part) = content.next() {
            match part {
                ContentPart::Text(text) if !text.is_empty() => parts.push(AssistantPart::Text(text)),
                ContentPart::ThoughtSignature(signature) => {
                    let text = content.next_if(ContentPart::is_reasoning_content);
                    let text = text.and_then(ContentPart::into_reasoning_content).unwrap_or_default();
                    // A seal on a call stands before the call.
                    if !text.is_empty() || !on_calls.contains(&signature) {
                        parts.push(AssistantPart::Reasoning { text, signature: Some(signature) });
                    }
                }
                ContentPart::ReasoningContent(text) => {
                    parts.push(AssistantPart::Reasoning { text, signature: None });
                }
                ContentPart::Custom(custom) => {
                    let signature = Some(format!("{REDACTED}{}", custom.data));
                    parts.push(AssistantPart::Reasoning { text: String::new(), signature });
                }
                ContentPart::ToolCall(call) => {
                    if self.kind == ProviderKind::Gemini {
                        for signature in call.thought_signatures.clone().unwrap_or_default() {
                            parts.push(AssistantPart::Reasoning { text: String::new(), signature: Some(signature) });
                        }
                    }
                    parts.push(AssistantPart::Call(self.settled(call)));
                }
                _ => {}
            }
        }
        parts
    }

    /// A stream whose calls are not numbered from nought leaves copies of a call in the gaps before it; the last one is
    /// the call.
    fn without_copies(&self, content: Vec<ContentPart>) -> Vec<ContentPart> {
        let key = |part: &ContentPart| part.as_tool_call().map(|call| (call.call_id.clone(), call.fn_name.clone()));
        let keys: Vec<_> = content.iter().map(key).collect();
        let numbered = matches!(self.kind, ProviderKind::OpenaiCompatible | ProviderKind::Openai);
        let is_copy = |at: usize| {
            numbered && keys[at].as_ref().is_some_and(|(id, _)| !id.is_empty()) && keys[at + 1..].contains(&keys[at])
        };
        content.into_iter().enumerate().filter(|(at, _)| !is_copy(*at)).map(|(_, part)| part).collect()
    }

    fn settled(&mut self, call: TheirCall) -> ToolCall {
        let streamed =
            self.calls.iter().position(|seen| !seen.taken && seen.theirs == call.call_id && seen.name == call.fn_name);
        let at = match streamed {
            Some(at) => at,
            None => self.meet(call.call_id, call.fn_name),
        };
        let seen = &mut self.calls[at];
        seen.taken = true;
        let arguments = match call.fn_arguments {
            // No arguments at all are those of a tool that takes none.
            Value::String(text) if text.trim().is_empty() => Value::Object(Map::new()),
            other => other,
        };
        ToolCall { id: seen.ours.clone(), name: seen.name.clone(), arguments }
    }
}

fn finish(reason: Option<StopReason>, called: bool) -> Finish {
    let finish = match reason {
        Some(StopReason::Completed(_) | StopReason::StopSequence(_)) => Finish::Stop,
        Some(StopReason::MaxTokens(_)) => Finish::Length,
        Some(StopReason::ToolCall(_)) => Finish::ToolCalls,
        Some(StopReason::ContentFilter(_)) => Finish::ContentFilter,
        Some(StopReason::Other(word)) => Finish::Other(word),
        None => Finish::Unknown,
    };
    // Some say that they have stopped, and mean: for the tools.
    if called && matches!(finish, Finish::Stop | Finish::Unknown) { Finish::ToolCalls } else { finish }
}

fn usage(theirs: TheirUsage) -> Usage {
    let count = |tokens: Option<i32>| tokens.and_then(|tokens| u64::try_from(tokens).ok());
    let input = count(theirs.prompt_tokens).unwrap_or(0);
    let output = count(theirs.completion_tokens).unwrap_or(0);
    Usage {
        input,
        output,
        total: count(theirs.total_tokens).unwrap_or(input + output),
        cached: count(theirs.prompt_tokens_details.and_then(|details| details.cached_tokens)).filter(|n| *n > 0),
        reasoning: count(theirs.completion_tokens_details.and_then(|details| details.reasoning_tokens)),
    }
}

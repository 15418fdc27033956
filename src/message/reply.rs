//! What the model made, as an assistant row keeps it, and the prompt messages it becomes.

use serde_json::{Map, Value, json};

use crate::message::contents::ProviderOptions;
use crate::message::old::{file_of, object, text};
use crate::message::prompt::{AssistantPart, PromptMessage, ToolCall, ToolResult};

/// An assistant row's content: one group of steps (T6.3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// In the order they were made.
    pub parts: Vec<ReplyPart>,
    /// Such as the model's id; `aborted` is the runtime's (T12.3).
    pub metadata: Map<String, Value>,
    /// The content's provider metadata.
    pub provider_options: ProviderOptions,
}

/// One part of a [`Reply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyPart {
    /// Text for the reader.
    Text {
        /// As far as it got.
        text: String,
        /// The part's provider metadata.
        provider_options: ProviderOptions,
    },
    /// The model's thinking.
    Reasoning {
        /// As far as it got.
        text: String,
        /// The provider's seal on it.
        signature: Option<String>,
        /// The part's provider metadata.
        provider_options: ProviderOptions,
    },
    /// A tool call and what came of it.
    Tool(Invocation),
    /// A file that the model made. Interfaces show it; the prompt leaves it out.
    File {
        /// Base64 text, a data URL or a URL.
        data: String,
        /// Such as `image/png`.
        media_type: String,
        /// Its name, if it has one.
        filename: Option<String>,
        /// The part's provider metadata.
        provider_options: ProviderOptions,
    },
    /// A part that only interfaces read, such as `step-start`, `source` or `data-…`: kept as it stands.
    Other(Map<String, Value>),
}

/// A tool call in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The call.
    pub call: ToolCall,
    /// What came of it.
    pub state: CallState,
    /// What a person said to it, if it was asked for.
    pub approval: Option<Approval>,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallState {
    /// Nothing yet; or, in a row that is history, nothing any more.
    Open,
    /// The tool returned.
    Done(Value),
    /// The tool failed; what the model is told.
    Failed(Value),
    /// A person, or time, declined it (T13.6); the approval says why.
    Denied,
}

/// A person's answer to a call, as stored with it (T13.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Which question it answers; the call's id.
    pub id: String,
    /// Yes or no; none while the question is open.
    pub approved: Option<bool>,
    /// Why.
    pub reason: Option<String>,
}

/// What the model is told of a declined call that came without a reason (T13.6).
pub const DENIED: &str = "Tool call was not approved by the user";

/// Where a row's metadata keep an answer of a form that was asked for.
const OBJECT: &str = "structuredOutput";

/// What the model is told of a call that never came to an end (T12.3).
pub const ABORTED: &str = "aborted";

impl Reply {
    /// One text and nothing else.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { parts: vec![ReplyPart::text(text)], ..Self::default() }
    }

    /// Whether it was cut short (T12.3).
    #[must_use]
    pub fn aborted(&self) -> bool {
        self.metadata.get("aborted") == Some(&Value::Bool(true))
    }

    /// The same, marked as cut short.
    #[must_use]
    pub fn cut_short(mut self) -> Self {
        self.metadata.insert("aborted".to_owned(), Value::Bool(true));
        self
    }

    /// The same, with the model and its provider that have made the last of it (H10.6); what is not known is left out.
    #[must_use]
    pub fn made_by(mut self, model: &str, provider: &str) -> Self {
        for (name, value) in [("modelId", model), ("provider", provider)] {
            if !value.is_empty() {
                self.metadata.insert(name.to_owned(), value.into());
            }
        }
        self
    }

    /// What was answered in a form that was asked for, if it was.
    #[must_use]
    pub fn object(&self) -> Option<&Value> {
        self.metadata.get(OBJECT)
    }

    /// The same, with what its text says in the form that was asked for.
    #[must_use]
    pub fn with_object(mut self, object: Value) -> Self {
        self.metadata.insert(OBJECT.to_owned(), object);
        self
    }

    /// All its texts, one after the other.
    #[must_use]
    pub fn whole_text(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            ReplyPart::Text { text, .. } => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    /// The prompt messages it becomes: for each step the assistant's and, if it called tools, the results of every one
    /// of its calls. A step that is left with nothing but thinking is left out, as providers refuse it.
    #[must_use]
    pub fn prompt(&self) -> Vec<PromptMessage> {
        let mut messages = Vec::new();
        let mut step = Step::default();
        for part in &self.parts {
            match part {
                ReplyPart::Text { text, .. } => {
                    step.ends_before_words(&mut messages);
                    if !text.is_empty() {
                        step.parts.push(AssistantPart::Text(text.clone()));
                    }
                }
                ReplyPart::Reasoning { text, signature, .. } => {
                    step.ends_before_words(&mut messages);
                    step.parts.push(AssistantPart::Reasoning { text: text.clone(), signature: signature.clone() });
                }
                ReplyPart::Tool(invocation) => {
                    step.parts.push(AssistantPart::Call(invocation.call.clone()));
                    step.results.push(invocation.result());
                }
                ReplyPart::Other(part) if part.get("type").and_then(Value::as_str) == Some("step-start") => {
                    step.end(&mut messages);
                }
                ReplyPart::File { .. } | ReplyPart::Other(_) => {}
            }
        }
        step.end(&mut messages);
        messages
    }
}

#[derive(Default)]
struct Step {
    parts: Vec<AssistantPart>,
    results: Vec<ToolResult>,
}

impl Step {
    /// Words after a call are of the next step: the model spoke them when it had the results.
    fn ends_before_words(&mut self, messages: &mut Vec<PromptMessage>) {
        if !self.results.is_empty() {
            self.end(messages);
        }
    }

    fn end(&mut self, messages: &mut Vec<PromptMessage>) {
        let Self { parts, results } = std::mem::take(self);
        if parts.iter().all(|part| matches!(part, AssistantPart::Reasoning { .. })) {
            return;
        }
        messages.push(PromptMessage::Assistant { parts });
        if !results.is_empty() {
            messages.push(PromptMessage::Tool { results });
        }
    }
}

impl ReplyPart {
    /// A text without provider metadata.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into(), provider_options: ProviderOptions::new() }
    }

    /// The part as it stands in a row.
    #[must_use]
    pub(crate) fn to_row(&self) -> Value {
        match self {
            Self::Text { text, provider_options } => sealed(json!({ "type": "text", "text": text }), provider_options),
            Self::Reasoning { text, signature, provider_options } => {
                let mut detail = json!({ "type": "text", "text": text });
                if let Some(signature) = signature {
                    detail["signature"] = Value::from(signature.as_str());
                }
                sealed(json!({ "type": "reasoning", "reasoning": text, "details": [detail] }), provider_options)
            }
            Self::Tool(invocation) => json!({ "type": "tool-invocation", "toolInvocation": invocation.to_row() }),
            Self::File { data, media_type, filename, provider_options } => {
                let mut part = json!({ "type": "file", "data": data, "mimeType": media_type });
                if let Some(filename) = filename {
                    part["filename"] = Value::from(filename.as_str());
                }
                sealed(part, provider_options)
            }
            Self::Other(part) => Value::Object(part.clone()),
        }
    }

    /// Reads a part of a row; nothing if it is a known part that lacks what makes it one.
    pub(crate) fn of_row(part: &Value) -> Option<Self> {
        let part = part.as_object()?;
        let provider_options = object(part, &["providerMetadata", "providerOptions"]);
        match part.get("type").and_then(Value::as_str)? {
            "text" => Some(Self::Text { text: text(part, &["text"])?, provider_options }),
            "reasoning" => {
                let details: Vec<&Map<String, Value>> = part
                    .get("details")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .flat_map(Value::as_object)
                    .collect();
                // Some writers leave the whole text to the details.
                let told = text(part, &["reasoning", "text"]).filter(|told| !told.is_empty());
                let told =
                    told.unwrap_or_else(|| details.iter().filter_map(|detail| text(detail, &["text"])).collect());
                let signature = details.iter().find_map(|detail| text(detail, &["signature"]));
                Some(Self::Reasoning { text: told, signature, provider_options })
            }
            "tool-invocation" => Invocation::of_row(part.get("toolInvocation")?.as_object()?).map(Self::Tool),
            "file" | "image" => {
                let file = file_of(part)?;
                let (data, media_type, filename) = (file.data, file.media_type, file.filename);
                Some(Self::File { data, media_type, filename, provider_options })
            }
            _ => Some(Self::Other(part.clone())),
        }
    }
}

/// A part of a row with its provider metadata, if there is any.
pub(crate) fn sealed(mut part: Value, provider_options: &ProviderOptions) -> Value {
    if !provider_options.is_empty() {
        part["providerMetadata"] = Value::Object(provider_options.clone());
    }
    part
}

impl Invocation {
    /// What the model is told of the call; a call without an end was aborted.
    #[must_use]
    pub fn result(&self) -> ToolResult {
        let (output, is_error) = match &self.state {
            CallState::Done(output) => (output.clone(), false),
            CallState::Failed(error) => (error.clone(), true),
            CallState::Denied => {
                let reason = self.approval.as_ref().and_then(|approval| approval.reason.as_deref());
                (Value::from(reason.unwrap_or(DENIED)), true)
            }
            CallState::Open => (Value::from(ABORTED), true),
        };
        ToolResult { call_id: self.call.id.clone(), name: self.call.name.clone(), output, is_error }
    }

    fn to_row(&self) -> Value {
        let ToolCall { id, name, arguments } = &self.call;
        let state = match self.state {
            CallState::Open => "call",
            CallState::Done(_) | CallState::Failed(_) => "result",
            CallState::Denied => "output-denied",
        };
        let mut row = json!({ "state": state, "toolCallId": id, "toolName": name, "args": arguments });
        match &self.state {
            CallState::Done(output) => row["result"] = output.clone(),
            CallState::Failed(error) => {
                row["result"] = error.clone();
                row["isError"] = Value::Bool(true);
            }
            CallState::Open | CallState::Denied => {}
        }
        if let Some(Approval { id, approved, reason }) = &self.approval {
            let mut approval = json!({ "id": id });
            if let Some(approved) = approved {
                approval["approved"] = Value::Bool(*approved);
            }
            if let Some(reason) = reason {
                approval["reason"] = Value::from(reason.as_str());
            }
            row["approval"] = approval;
        }
        row
    }

    pub(crate) fn of_row(row: &Map<String, Value>) -> Option<Self> {
        let id = text(row, &["toolCallId"])?;
        let name = text(row, &["toolName"])?;
        let result = || row.get("result").or_else(|| row.get("output")).cloned().unwrap_or(Value::Null);
        let state = match row.get("state").and_then(Value::as_str) {
            Some("result" | "output-available") if row.get("isError") == Some(&Value::Bool(true)) => {
                CallState::Failed(result())
            }
            Some("result" | "output-available") => CallState::Done(result()),
            Some("error" | "output-error") => {
                let error = row.get("errorText").or_else(|| row.get("error")).cloned();
                CallState::Failed(error.unwrap_or_else(result))
            }
            Some("output-denied") => CallState::Denied,
            // Whatever else it says, there is no result: the call is open.
            _ => CallState::Open,
        };
        let approval = row.get("approval").and_then(Value::as_object).map(|approval| Approval {
            id: text(approval, &["id"]).unwrap_or_else(|| id.clone()),
            approved: approval.get("approved").and_then(Value::as_bool),
            reason: text(approval, &["reason"]),
        });
        let arguments = row.get("args").or_else(|| row.get("input")).cloned();
        let arguments = arguments.unwrap_or_else(|| Value::Object(Map::new()));
        Some(Self { call: ToolCall { id, name, arguments }, state, approval })
    }
}

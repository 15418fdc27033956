//! The port to language models: one request, a stream of deltas, one reply.
//!
//! A model is asked inside a step's body. What is durable is the [`Reply`], which the step records; the deltas are for
//! whoever is watching and are lost with the process. A call never tries again by itself: an error says whether that is
//! of use, and the step's policy decides. Dropping the call cancels the request.
//!
//! [`Offline`] needs no network. The models of real providers come with the cargo feature `llm`.

mod deltas;
mod error;
#[cfg(feature = "llm")]
mod genai;
mod limits;
mod offline;
mod recorded;
mod registry;

use std::fmt;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::message::{AssistantPart, PromptMessage, ToolCall};

pub use deltas::{Delta, Deltas};
pub use error::{ModelError, TimeLimit};
#[cfg(feature = "llm")]
pub use genai::{Provider, ProviderConfig, ProviderKind, Timeouts};
pub use limits::{Gate, Held, Limited, Limits, LocalGate, Pass};
pub use offline::{Offline, THINK_MAX_MS};
pub use recorded::{Exchange, Recorded, Recording, RecordingError, Tape};
pub use registry::{Models, Resolved};

/// Something that answers a prompt: a provider with its models, or a stand-in for one.
pub trait Model: Send + Sync {
    /// The name under which it is known, such as `openai`.
    fn name(&self) -> &str;

    /// Asks once. Deltas leave as they come, and a slow listener slows the call down; the reply holds all that was
    /// said in them. Cancelled by dropping the future.
    ///
    /// A body that must stop early races it: `select! { reply = model.ask(…) => …, () = step.until_cancelled() => … }`.
    fn ask<'a>(&'a self, request: &'a Request, deltas: &'a Deltas) -> BoxFuture<'a, Result<Reply, ModelError>>;
}

impl fmt::Debug for dyn Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Model({})", self.name())
    }
}

/// What a model is asked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Request {
    /// The model's name as its provider knows it.
    pub model: String,
    /// Instructions, in order; they stand above the conversation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub system: Vec<String>,
    /// The conversation.
    pub messages: Vec<PromptMessage>,
    /// The tools that may be called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolSpec>,
    /// Whether they may or must be called.
    #[serde(default)]
    pub tool_choice: ToolChoice,
    /// How to answer.
    #[serde(default)]
    pub settings: Settings,
    /// The JSON Schema of the answer, where the answer is to be JSON. Providers hold to it as well as they can: check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
}

/// A tool as the model is told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// What it is called by.
    pub name: String,
    /// What it is for, in words for the model.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub input_schema: Value,
}

/// Whether tools may or must be called.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// As the model sees fit.
    #[default]
    Auto,
    /// No tool.
    None,
    /// At least one, whichever.
    Required,
    /// This one.
    Tool(String),
}

/// How to answer. What is absent is left to the provider.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Settings {
    /// How freely to choose words; 0 is the least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The share of likeliest words to choose from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// The longest answer, in the provider's tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u32>,
    /// Texts at which to stop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// For answers that can be had again, where the provider can do that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// How long to think first, for models that can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Effort>,
}

/// How long to think before answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    /// Not at all.
    None,
    /// A little.
    Low,
    /// Some.
    Medium,
    /// A lot.
    High,
}

/// What a model answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// What it said and called, in order. Arguments of calls are as the model gave them: text that is no JSON is a JSON
    /// string, and nothing has been checked against a tool's schema.
    pub parts: Vec<AssistantPart>,
    /// Why it stopped.
    pub finish: Finish,
    /// What it cost.
    pub usage: Usage,
    /// The provider's own id of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// The model that answered, as the provider calls it; the one asked for if the provider does not say.
    pub model_id: String,
}

impl Reply {
    /// All its text, thinking left out.
    #[must_use]
    pub fn text(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            AssistantPart::Text(text) => Some(text.as_str()),
            AssistantPart::Reasoning { .. } | AssistantPart::Call(_) => None,
        });
        texts.collect()
    }

    /// The calls it asks for, in order.
    pub fn calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(AssistantPart::as_call)
    }
}

/// Why a model stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finish {
    /// It had said all, or came to one of the texts to stop at.
    Stop,
    /// The answer was as long as it may be.
    Length,
    /// The provider held the answer back.
    ContentFilter,
    /// Tools are to be called.
    ToolCalls,
    /// For another reason, in the provider's word.
    Other(String),
    /// The provider did not say.
    Unknown,
}

impl Finish {
    /// The word for it on the wire.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ContentFilter => "content-filter",
            Self::ToolCalls => "tool-calls",
            Self::Other(_) => "other",
            Self::Unknown => "unknown",
        }
    }
}

/// What a reply cost, in the provider's tokens. Nought where the provider does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// The prompt, what came from a cache included.
    pub input: u64,
    /// The answer, thinking included.
    pub output: u64,
    /// Both, or as the provider counts them.
    pub total: u64,
    /// How much of the prompt came from a cache, where the provider says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached: Option<u64>,
    /// How much of the answer was thinking, where the provider says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<u64>,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        let both = |a: Option<u64>, b: Option<u64>| a.map_or(b, |a| Some(a.saturating_add(b.unwrap_or(0))));
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
        self.total = self.total.saturating_add(other.total);
        self.cached = both(self.cached, other.cached);
        self.reasoning = both(self.reasoning, other.reasoning);
    }
}

/// A digest of anything with a JSON form; the order of keys does not matter.
fn digest_of<T: Serialize + ?Sized>(of: &T) -> String {
    use sha2::{Digest, Sha256};
    let mut value = serde_json::to_value(of).unwrap_or_default();
    value.sort_all_objects();
    Sha256::digest(value.to_string()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The beginning of a text, for a message to a person.
fn beginning(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

//! The prompt as every model provider can be given it: what was said, by whom, and which tools were called.
//!
//! Values only. The form in JSON is part of what a run replays, so a change of it needs a version.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::message::contents::{Part, ProviderOptions, absent_is_empty};

/// One message of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", content = "content", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum PromptMessage {
    /// Instructions that stand above the conversation.
    System(String),
    /// What a person, an outside event or the runtime put in.
    User {
        /// In the order of the message; a plain text is one text part without provider options.
        parts: Vec<Part>,
        /// Options for the whole message; empty when the sender gave none.
        #[serde(default, deserialize_with = "absent_is_empty", skip_serializing_if = "ProviderOptions::is_empty")]
        provider_options: ProviderOptions,
    },
    /// What the model said and called.
    Assistant {
        /// In the order the model made them.
        parts: Vec<AssistantPart>,
    },
    /// What the called tools answered, one for each call of the assistant message before it.
    Tool {
        /// In the order of the calls.
        results: Vec<ToolResult>,
    },
}

/// One piece of what the model made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum AssistantPart {
    /// Text for the reader.
    Text(String),
    /// The model's thinking, given back to it in later calls.
    Reasoning {
        /// The thinking as text; empty where the provider hides it.
        text: String,
        /// The provider's seal on it, without which some refuse it; none where there is no such thing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<String>,
    },
    /// A tool is to be called.
    Call(ToolCall),
}

/// A tool call as the model asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolCall {
    /// The provider's id of the call, or one made for it.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments, as the model gave them.
    pub arguments: Value,
}

/// What a tool call came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolResult {
    /// The [`ToolCall::id`] it answers.
    pub call_id: String,
    /// The tool's name.
    pub name: String,
    /// What the tool returned; for a failed, denied or aborted call, what the model is told instead.
    pub output: Value,
    /// The call did not do what was asked: it failed, was denied or was aborted.
    #[serde(default)]
    pub is_error: bool,
}

impl PromptMessage {
    /// A user message of one plain text.
    #[must_use]
    pub fn user(text: impl Into<String>) -> Self {
        Self::User { parts: vec![Part::text(text)], provider_options: ProviderOptions::new() }
    }

    /// A user message's text when it is nothing but one plain text.
    #[must_use]
    pub fn plain_text(&self) -> Option<&str> {
        match self {
            Self::User { parts, provider_options } if provider_options.is_empty() => match parts.as_slice() {
                [Part::Text { text, provider_options }] if provider_options.is_empty() => Some(text),
                _ => None,
            },
            _ => None,
        }
    }
}

impl AssistantPart {
    /// The call, if it is one.
    #[must_use]
    pub fn as_call(&self) -> Option<&ToolCall> {
        match self {
            Self::Call(call) => Some(call),
            Self::Text(_) | Self::Reasoning { .. } => None,
        }
    }
}

//! What a sender may ask of the turn that its input begins (T7.1).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::limits::Budget;
use super::model::{Settings, ToolChoice};
use super::output::StructuredOutput;
use super::wire;
use crate::clock::Instant;
use crate::message::{Given, Message};

/// Options of a turn, as the wire calls them. What is not known here is ignored.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TurnOptions {
    /// Instructions instead of the agent's.
    #[serde(deserialize_with = "wire::instructions", skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// Texts that stand above the conversation, behind the instructions.
    #[serde(deserialize_with = "wire::texts", skip_serializing_if = "Vec::is_empty")]
    pub system: Vec<String>,
    /// Messages that the model reads before the history, and that are kept nowhere, in the forms of
    /// [`Given::read`](crate::message::Given::read).
    #[serde(deserialize_with = "wire::context", skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<Value>,
    /// The most steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u32>,
    /// How the model is to answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_settings: Option<ModelSettings>,
    /// Whether tools may or must be called.
    #[serde(deserialize_with = "wire::tool_choice", skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice>,
    /// The agent's tools that may be called; all if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_tools: Option<Vec<String>>,
    /// Every call needs approval.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub require_tool_approval: bool,
    /// Tools that the client runs (T13.14), by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub client_tools: BTreeMap<String, ClientTool>,
    /// The answer is to be JSON of this schema, whatever the agent says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub structured_output: Option<StructuredOutput>,
    /// What it may cost, over what the agent says.
    #[serde(skip_serializing_if = "Budget::is_empty")]
    pub budget: Budget,
    /// Values for tools and processors.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub request_context: Map<String, Value>,
}

/// How the model is to answer, as the wire says it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelSettings {
    /// How freely to choose words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The share of likeliest words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// The longest answer, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u32>,
    /// Texts at which to stop.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop_sequences: Vec<String>,
    /// For answers that can be had again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// A tool that the client runs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientTool {
    /// What it is for.
    pub description: String,
    /// The JSON Schema of its arguments.
    #[serde(alias = "parameters")]
    pub input_schema: Value,
}

impl TurnOptions {
    /// Whether a turn can go by them.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.structured_output.as_ref().map_or(Ok(()), StructuredOutput::check)
    }

    /// The messages that the model reads before the history.
    pub(super) fn context(&self) -> Vec<Message> {
        // They were read at the door; what another build has let in and this one cannot read is left out.
        let given = Given::read("context", &Value::from(self.context.as_slice())).unwrap_or_default();
        let named = |(n, it): (usize, crate::message::GivenMessage)| it.message(|| format!("context:{n}"), Instant(0));
        given.messages().iter().cloned().enumerate().map(named).collect()
    }
}

impl ModelSettings {
    /// These over an agent's own.
    pub(crate) fn over(&self, own: &Settings) -> Settings {
        Settings {
            temperature: self.temperature.or(own.temperature),
            top_p: self.top_p.or(own.top_p),
            max_output_tokens: self.max_output_tokens.or(own.max_output_tokens),
            stop: if self.stop_sequences.is_empty() { own.stop.clone() } else { self.stop_sequences.clone() },
            seed: self.seed.or(own.seed),
            reasoning: own.reasoning,
        }
    }
}

//! Options of turns in the forms in which clients write them (H9.5).

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::model::ToolChoice;
use crate::message::{Body, Given, GivenMessage};

/// Instructions: a text, or system messages.
pub(super) fn instructions<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let texts = texts(from)?;
    Ok((!texts.is_empty()).then(|| texts.join("\n\n")))
}

/// A text, a system message, or a list of both.
pub(super) fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let text = |message: &GivenMessage| match &message.body {
        Body::System(said) | Body::User(said) => Ok(said.contents.all_text()),
        Body::Assistant(_) | Body::Signal(_) => Err(D::Error::custom("expected texts or system messages")),
    };
    match Option::<Value>::deserialize(from)? {
        Some(value) => read::<D>(&value)?.messages().iter().map(text).collect(),
        None => Ok(Vec::new()),
    }
}

/// A list of messages.
pub(super) fn context<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Value>, D::Error> {
    let Some(value) = Option::<Value>::deserialize(from)? else { return Ok(Vec::new()) };
    read::<D>(&value)?;
    Ok(match value {
        Value::Array(messages) => messages,
        one => vec![one],
    })
}

fn read<'de, D: Deserializer<'de>>(value: &Value) -> Result<Given, D::Error> {
    Given::read("messages", value).map_err(D::Error::custom)
}

/// `"auto"`, `"none"`, `"required"`, or `{"type": "tool", "toolName"}`.
pub(super) fn tool_choice<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ToolChoice>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected auto, none, required, or {\"type\": \"tool\", \"toolName\"}")]
    enum Either {
        #[serde(rename_all = "camelCase")]
        Named {
            tool_name: String,
        },
        Plain(ToolChoice),
    }
    Ok(Option::<Either>::deserialize(from)?.map(|either| match either {
        Either::Named { tool_name } => ToolChoice::Tool(tool_name),
        Either::Plain(choice) => choice,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::agent::TurnOptions;

    fn options(json: Value) -> TurnOptions {
        serde_json::from_value(json).unwrap()
    }

    // H9.5
    #[test]
    fn options_are_read_in_the_forms_that_clients_write() {
        assert_eq!(options(json!({ "toolChoice": "required" })).tool_choice, Some(ToolChoice::Required));
        let named = options(json!({ "toolChoice": { "type": "tool", "toolName": "add" } }));
        assert_eq!(named.tool_choice, Some(ToolChoice::Tool("add".into())));
        assert_eq!(options(json!({ "instructions": "Be brief." })).instructions.as_deref(), Some("Be brief."));
        let several = options(json!({ "instructions": ["a", { "role": "system", "content": "b" }], "system": "c" }));
        assert_eq!((several.instructions.as_deref(), several.system), (Some("a\n\nb"), vec!["c".to_owned()]));
        let refused = serde_json::from_value::<TurnOptions>(json!({ "toolChoice": "perhaps" })).unwrap_err();
        assert!(refused.to_string().starts_with("expected auto, none, required"), "{refused}");
    }

    #[test]
    fn options_that_were_read_are_read_again() {
        let all = options(json!({
            "toolChoice": { "type": "tool", "toolName": "add" }, "instructions": "a", "system": ["b"],
            "context": ["c", { "role": "assistant", "content": "d" }], "unknown": { "to": "us" },
        }));
        assert_eq!(all.context().len(), 2);
        assert_eq!(options(serde_json::to_value(&all).unwrap()), all);
    }
}

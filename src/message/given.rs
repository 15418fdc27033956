//! What a direct call is given: messages in the forms in which the AI SDKs write them (H9.5), and how they go together with
//! what the history holds already.

use serde_json::{Map, Value, json};

use crate::clock::Instant;
use crate::message::old::{self, object, text};
use crate::message::prompt::ToolResult;
use crate::message::reply::{CallState, Invocation, Reply, ReplyPart};
use crate::message::row::{Body, Message, Said};
use crate::message::{Contents, Part};

/// The longest id of a message that a caller may choose, in characters.
const ID_CHARS_MAX: usize = 255;

/// The messages of a direct call, in their order, and what the caller's own tools came to.
///
/// Made of a text, or read from JSON by [`Given::read`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Given {
    messages: Vec<GivenMessage>,
    /// Results of calls that none of the messages holds.
    results: Vec<ToolResult>,
    /// The calls whose results it ends with; none if it ends with something that was said.
    answers: Vec<String>,
}

/// A message of a direct call.
#[derive(Debug, Clone, PartialEq)]
pub struct GivenMessage {
    /// The caller's id; one is made where it is absent.
    pub id: Option<String>,
    /// What it says.
    pub body: Body,
}

/// What of a direct call is new to a history.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct New {
    /// Messages for its end.
    pub messages: Vec<GivenMessage>,
    /// Results of calls that it holds.
    pub results: Vec<ToolResult>,
}

/// Messages that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Unfit {
    /// Which field, as a dotted path.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl From<&str> for Given {
    fn from(text: &str) -> Self {
        Self::from(Contents::from(text))
    }
}

impl From<String> for Given {
    fn from(text: String) -> Self {
        Self::from(Contents::from(text))
    }
}

impl From<Contents> for Given {
    fn from(contents: Contents) -> Self {
        let body = Body::User(Said::new(contents));
        Self { messages: vec![GivenMessage { id: None, body }], ..Self::default() }
    }
}

impl Given {
    /// Reads a text, a message, or a list of both; `field` is what errors call it. A message has a role (`user`, `assistant`,
    /// `system` or `tool`) and its contents as a text or as parts, in any of the forms that AI SDKs write: of models, of
    /// interfaces, of rows.
    ///
    /// # Errors
    /// [`Unfit`] names what cannot be read.
    pub fn read(field: &str, value: &Value) -> Result<Self, Unfit> {
        let mut given = Self::default();
        match value {
            Value::Array(list) => {
                for (n, item) in list.iter().enumerate() {
                    given.add(&format!("{field}.{n}"), item)?;
                }
            }
            one => given.add(field, one)?,
        }
        Ok(given)
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.results.is_empty()
    }

    /// The messages.
    #[must_use]
    pub fn messages(&self) -> &[GivenMessage] {
        &self.messages
    }

    /// The calls whose results it ends with: then it is a continuation of the answer that called them (T13.14).
    #[must_use]
    pub fn answers(&self) -> &[String] {
        &self.answers
    }

    /// All results in it, those of calls that it holds first.
    #[must_use]
    pub fn results(&self) -> Vec<ToolResult> {
        let settled = self.messages.iter().flat_map(GivenMessage::calls).filter(|it| it.state != CallState::Open);
        settled.map(Invocation::result).chain(self.results.iter().cloned()).collect()
    }

    /// Whether it may hold what stands in a history already, or results for it.
    #[must_use]
    pub fn looks_back(&self) -> bool {
        !self.results.is_empty() || self.messages.iter().any(|it| matches!(it.body, Body::Assistant(_)))
    }

    /// What was given, in one form: equal for what says the same.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "messages": rows(&self.messages), "results": self.results })
    }

    /// What of it is new to a history. What the history holds is left out: a message by its id, an assistant's also by its
    /// calls, of which the results remain. A result that is not at the end of what was given counts for an open call only.
    ///
    /// # Errors
    /// The call of a result that nobody has made.
    pub fn new_to(&self, history: &[Message]) -> Result<New, String> {
        let mut new = New::default();
        let mut settle = |result: ToolResult| -> Result<(), String> {
            let call = history.iter().find_map(|message| message.invocation(&result.call_id));
            let call = call.ok_or_else(|| result.call_id.clone())?;
            if call.state == CallState::Open || self.answers.contains(&result.call_id) {
                new.results.push(result);
            }
            Ok(())
        };
        for message in &self.messages {
            let by_id = message.id.as_ref().is_some_and(|id| history.iter().any(|known| known.id == *id));
            let calls: Vec<&Invocation> = message.calls().collect();
            let by_call = calls.iter().any(|it| history.iter().any(|known| known.has_call(&it.call.id)));
            if !by_id && !by_call {
                new.messages.push(message.clone());
                continue;
            }
            let settled = calls.into_iter().filter(|it| it.state != CallState::Open);
            for invocation in settled.filter(|it| history.iter().any(|known| known.has_call(&it.call.id))) {
                settle(invocation.result())?;
            }
        }
        self.results.iter().cloned().try_for_each(settle)?;
        Ok(new)
    }

    fn add(&mut self, field: &str, item: &Value) -> Result<(), Unfit> {
        let unfit = |field: String, problem: String| Err(Unfit { field, problem });
        if let Value::String(text) = item {
            self.said(None, Body::User(Said::new(text.as_str())));
            return Ok(());
        }
        let Some(message) = item.as_object() else {
            return unfit(field.to_owned(), format!("expected a text or a message, found {item}"));
        };
        let id = id_of(field, message)?;
        let role = text(message, &["role"]).unwrap_or_default();
        match role.as_str() {
            "user" | "signal" => self.said(id, Body::User(said(field, message)?)),
            "system" | "developer" => self.said(id, Body::System(said(field, message)?)),
            "assistant" => self.assistant(field, id, message)?,
            "tool" => self.tool(field, message)?,
            other => {
                let problem = format!("expected user, assistant, system or tool, found {other:?}");
                return unfit(format!("{field}.role"), problem);
            }
        }
        Ok(())
    }

    fn said(&mut self, id: Option<String>, body: Body) {
        self.answers.clear();
        self.messages.push(GivenMessage { id, body });
    }

    fn assistant(&mut self, field: &str, id: Option<String>, message: &Map<String, Value>) -> Result<(), Unfit> {
        let mut parts = Vec::new();
        let mut results = Vec::new();
        for (field, part) in parts_of(field, message) {
            match text_of_type(part) {
                Some("tool-result") => results.push(result_of(&field, part)?),
                _ => parts.push(reply_part(&field, part)?),
            }
        }
        // What the client's tools came to may stand in the call itself.
        let settled = parts.iter().rev().map_while(|part| match part {
            ReplyPart::Tool(it) if it.state != CallState::Open => Some(it.call.id.clone()),
            _ => None,
        });
        self.answers = settled.collect();
        self.answers.reverse();
        let follows = self.messages.last_mut().filter(|last| id.is_some() && last.id == id);
        match (follows.map(|last| &mut last.body), parts.is_empty()) {
            (_, true) => {}
            // A row has several steps; models are given a message for each.
            (Some(Body::Assistant(reply)), false) => {
                reply.parts.push(ReplyPart::Other(begins()));
                reply.parts.extend(parts);
            }
            _ => {
                let provider_options = object(message, &["providerMetadata", "providerOptions"]);
                let reply = Reply { parts, metadata: object(message, &["metadata"]), provider_options };
                self.messages.push(GivenMessage { id, body: Body::Assistant(reply) });
            }
        }
        results.into_iter().for_each(|result| self.settle(result));
        Ok(())
    }

    fn tool(&mut self, field: &str, message: &Map<String, Value>) -> Result<(), Unfit> {
        let parts = parts_of(field, message);
        let results: Vec<ToolResult> =
            parts.into_iter().map(|(field, part)| result_of(&field, part)).collect::<Result<_, _>>()?;
        results.into_iter().for_each(|result| self.settle(result));
        Ok(())
    }

    /// A result goes to its call, if that is here.
    fn settle(&mut self, result: ToolResult) {
        self.answers.push(result.call_id.clone());
        let call = self.messages.iter_mut().rev().find_map(|message| match &mut message.body {
            Body::Assistant(reply) => reply.parts.iter_mut().find_map(|part| match part {
                ReplyPart::Tool(it) if it.call.id == result.call_id => Some(it),
                _ => None,
            }),
            _ => None,
        });
        match call {
            Some(it) if result.is_error => it.state = CallState::Failed(result.output),
            Some(it) => it.state = CallState::Done(result.output),
            None => self.results.push(result),
        }
    }
}

impl GivenMessage {
    /// As it enters a history.
    #[must_use]
    pub fn message(self, id: impl FnOnce() -> String, at: Instant) -> Message {
        Message { id: self.id.unwrap_or_else(id), seq: 0, created_at: at, body: self.body }
    }

    fn calls(&self) -> impl Iterator<Item = &Invocation> {
        let parts = match &self.body {
            Body::Assistant(reply) => reply.parts.as_slice(),
            _ => &[],
        };
        parts.iter().filter_map(|part| match part {
            ReplyPart::Tool(invocation) => Some(invocation),
            _ => None,
        })
    }
}

fn rows(messages: &[GivenMessage]) -> Vec<Value> {
    messages.iter().map(|it| it.clone().message(String::new, Instant::default()).to_row("", "")).collect()
}

/// How a step begins, in a row.
fn begins() -> Map<String, Value> {
    Map::from_iter([("type".to_owned(), json!("step-start"))])
}

fn id_of(field: &str, message: &Map<String, Value>) -> Result<Option<String>, Unfit> {
    let Some(id) = text(message, &["id"]).filter(|id| !id.is_empty()) else { return Ok(None) };
    if id.chars().count() > ID_CHARS_MAX || id.chars().any(char::is_control) {
        let problem = format!("an id has 1 to {ID_CHARS_MAX} characters and no control characters");
        return Err(Unfit { field: format!("{field}.id"), problem });
    }
    Ok(Some(id))
}

fn text_of_type(part: &Value) -> Option<&str> {
    part.get("type").and_then(Value::as_str)
}

/// The parts of a message, wherever it has them, each with what errors call it. A text is one of them.
fn parts_of<'m>(field: &str, message: &'m Map<String, Value>) -> Vec<(String, &'m Value)> {
    let content = message.get("content");
    let (name, found) = match (message.get("parts"), content) {
        (Some(parts @ Value::Array(_)), _) => ("parts", Some(parts)),
        (_, Some(Value::Object(content))) => ("content.parts", content.get("parts").or_else(|| content.get("content"))),
        (_, found) => ("content", found),
    };
    match found {
        Some(Value::Array(parts)) => {
            parts.iter().enumerate().map(|(n, part)| (format!("{field}.{name}.{n}"), part)).collect()
        }
        Some(one @ Value::String(_)) => vec![(format!("{field}.{name}"), one)],
        _ => Vec::new(),
    }
}

fn said(field: &str, message: &Map<String, Value>) -> Result<Said, Unfit> {
    let found = parts_of(field, message);
    if found.is_empty() {
        let problem = "expected a text, or parts of text and files".to_owned();
        return Err(Unfit { field: format!("{field}.content"), problem });
    }
    let mut parts: Vec<Part> = Vec::with_capacity(found.len());
    for (field, part) in found {
        match old::part_of(part) {
            Some(read) => parts.push(read),
            None if is_of_interfaces(part) => {}
            None => return Err(unread(field, part, "a part of type text, file or image, with what belongs to it")),
        }
    }
    Ok(Said {
        contents: Contents::from(parts),
        metadata: object(message, &["metadata"]),
        provider_options: object(message, &["providerMetadata", "providerOptions"]),
    })
}

/// Parts that no model reads.
fn is_of_interfaces(part: &Value) -> bool {
    let kind = text_of_type(part).unwrap_or_default();
    kind.starts_with("data-") || kind.starts_with("source") || kind == "step-start"
}

fn unread(field: String, part: &Value, expected: &str) -> Unfit {
    let found = match text_of_type(part) {
        Some(kind) => format!("one of type {kind:?}"),
        None => "none of these".to_owned(),
    };
    Unfit { field, problem: format!("expected {expected}; found {found}") }
}

fn reply_part(field: &str, part: &Value) -> Result<ReplyPart, Unfit> {
    if let Value::String(text) = part {
        return Ok(ReplyPart::text(text.as_str()));
    }
    let kind = text_of_type(part).unwrap_or_default();
    let named = match kind {
        "tool-call" | "dynamic-tool" => Some(None),
        "tool-invocation" => None,
        // Interfaces put the tool's name there.
        other => other.strip_prefix("tool-").filter(|_| part.get("toolCallId").is_some()).map(Some),
    };
    let read = match (named, part.as_object()) {
        (Some(name), Some(fields)) => {
            let mut fields = fields.clone();
            if let Some(name) = name {
                fields.insert("toolName".to_owned(), name.into());
            }
            Invocation::of_row(&fields).map(ReplyPart::Tool)
        }
        _ => ReplyPart::of_row(part),
    };
    read.ok_or_else(|| unread(field.to_owned(), part, "a text, reasoning, a file, or a call with its id and its tool"))
}

/// What a tool came to. It may be wrapped with what it is: `{"type": "json", "value": …}`; what is not, is taken as it stands.
fn result_of(field: &str, part: &Value) -> Result<ToolResult, Unfit> {
    let fields = part.as_object().filter(|_| text_of_type(part) == Some("tool-result"));
    let call = fields.and_then(|fields| Some((text(fields, &["toolCallId"])?, fields)));
    let (call_id, fields) = call.ok_or_else(|| unread(field.to_owned(), part, "a tool-result with its toolCallId"))?;
    let output = fields.get("output").or_else(|| fields.get("result")).cloned().unwrap_or_default();
    let kind = text_of_type(&output).unwrap_or_default();
    let wrapped = matches!(kind, "json" | "text" | "content" | "error-json" | "error-text");
    let is_error = (wrapped && kind.starts_with("error-")) || fields.get("isError") == Some(&Value::Bool(true));
    let output = if wrapped { output["value"].clone() } else { output };
    Ok(ToolResult { call_id, name: text(fields, &["toolName"]).unwrap_or_default(), output, is_error })
}

impl Message {
    /// What has become of a call that it makes.
    #[must_use]
    pub fn invocation(&self, call: &str) -> Option<&Invocation> {
        let Body::Assistant(reply) = &self.body else { return None };
        reply.parts.iter().find_map(|part| match part {
            ReplyPart::Tool(invocation) if invocation.call.id == call => Some(invocation),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::prompt::ToolCall;

    fn given(messages: Value) -> Given {
        Given::read("messages", &messages).unwrap()
    }

    fn lines(given: &Given) -> Vec<String> {
        let line = |it: &GivenMessage| {
            let message = it.clone().message(String::new, Instant(0));
            let (prompt, _) = message.prompt();
            format!("{} {}", message.role(), serde_json::to_string(&prompt).unwrap())
        };
        given.messages.iter().map(line).collect()
    }

    fn unfit(messages: Value) -> String {
        Given::read("messages", &messages).unwrap_err().to_string()
    }

    // H9.5
    #[test]
    fn texts_and_messages_are_read_in_every_form_of_the_sdks() {
        let given = given(json!([
            "plain",
            { "role": "user", "content": "text" },
            { "role": "user", "content": [{ "type": "text", "text": "part" }, { "type": "image", "image": "https://x/y.png" }] },
            { "id": "u1", "role": "user", "parts": [{ "type": "text", "text": "of an interface" }, { "type": "data-mood", "data": 1 }] },
            { "role": "user", "content": { "format": 2, "parts": [{ "type": "text", "text": "of a row" }] } },
            { "role": "system", "content": "Be brief." },
        ]));
        insta::assert_snapshot!(lines(&given).join("\n"), @r#"
        user [{"role":"user","content":{"parts":[{"type":"text","text":"plain"}]}}]
        user [{"role":"user","content":{"parts":[{"type":"text","text":"text"}]}}]
        user [{"role":"user","content":{"parts":[{"type":"text","text":"part"},{"type":"file","data":"https://x/y.png","mediaType":"image/*"}]}}]
        user [{"role":"user","content":{"parts":[{"type":"text","text":"of an interface"}]}}]
        user [{"role":"user","content":{"parts":[{"type":"text","text":"of a row"}]}}]
        system [{"role":"system","content":"Be brief."}]
        "#);
        assert_eq!((given.messages[3].id.as_deref(), given.answers().len()), (Some("u1"), 0));
    }

    // T13.14: the forms in which calls and their results are given back.
    #[test]
    fn results_go_to_their_calls_in_every_form() {
        let of_models = given(json!([
            { "role": "user", "content": "Look" },
            { "role": "assistant", "content": [{ "type": "tool-call", "toolCallId": "c", "toolName": "look", "input": { "at": 1 } }] },
            { "role": "tool", "content": [{ "type": "tool-result", "toolCallId": "c", "toolName": "look", "output": { "type": "json", "value": 7 } }] },
        ]));
        let of_old_interfaces = given(json!([
            { "role": "user", "content": "Look" },
            { "role": "assistant", "content": "", "parts": [{ "type": "tool-invocation", "toolInvocation":
                { "state": "call", "toolCallId": "c", "toolName": "look", "args": { "at": 1 } } }] },
            { "role": "tool", "content": [{ "type": "tool-result", "toolCallId": "c", "toolName": "look", "result": 7 }] },
        ]));
        let of_interfaces = given(json!([
            { "role": "user", "content": "Look" },
            { "role": "assistant", "parts": [{ "type": "tool-look", "toolCallId": "c", "state": "output-available", "input": { "at": 1 }, "output": 7 }] },
        ]));
        assert_eq!(lines(&of_models), lines(&of_old_interfaces));
        assert_eq!(lines(&of_models), lines(&of_interfaces));
        for given in [&of_models, &of_old_interfaces, &of_interfaces] {
            assert_eq!(given.answers(), ["c"]);
        }
        insta::assert_snapshot!(lines(&of_models)[1], @r#"assistant [{"role":"assistant","content":{"parts":[{"type":"call","value":{"id":"c","name":"look","arguments":{"at":1}}}]}},{"role":"tool","content":{"results":[{"callId":"c","name":"look","output":7,"isError":false}]}}]"#);
    }

    #[test]
    fn what_a_history_holds_is_not_given_again() {
        let call = ReplyPart::Tool(Invocation {
            call: ToolCall { id: "c".into(), name: "look".into(), arguments: json!({}) },
            state: CallState::Open,
            approval: None,
        });
        let asked = Message::of_reply(2, "m1", Reply { parts: vec![call], ..Reply::default() }, Instant(0));
        let result = json!({ "role": "tool", "content": [{ "type": "tool-result", "toolCallId": "c", "result": 7 }] });
        let again = json!({ "id": "m1", "role": "assistant", "content": [{ "type": "tool-call", "toolCallId": "c", "toolName": "look", "input": {} }] });
        let history = [asked];
        let new = given(json!([again, result])).new_to(&history).unwrap();
        assert_eq!((new.messages.len(), new.results.len()), (0, 1));
        let new = given(json!([result])).new_to(&history).unwrap();
        assert_eq!(new.results[0].output, json!(7));
        assert_eq!(given(json!([result])).new_to(&[]).unwrap_err(), "c");
        // What is not at the end was given before: it counts for what is open.
        let then = given(json!([again, result, "And now?"]));
        assert!(then.answers().is_empty());
        assert_eq!(then.new_to(&history).unwrap().results.len(), 1);
        let Body::Assistant(mut reply) = history[0].body.clone() else { panic!() };
        let ReplyPart::Tool(it) = &mut reply.parts[0] else { panic!() };
        it.state = CallState::Done(json!(1));
        let settled = [Message::of_reply(2, "m1", reply, Instant(0))];
        assert_eq!(then.new_to(&settled).unwrap().results.len(), 0);
        assert_eq!(given(json!([again, result])).new_to(&settled).unwrap().results.len(), 1);
    }

    #[test]
    fn several_steps_of_one_message_are_one_message() {
        let step = |call: &str| json!({ "id": "m", "role": "assistant", "content": [{ "type": "tool-call", "toolCallId": call, "toolName": "look", "input": {} }] });
        let result = |call: &str| json!({ "role": "tool", "content": [{ "type": "tool-result", "toolCallId": call, "result": call }] });
        let given = given(json!([step("a"), result("a"), step("b"), result("b")]));
        assert_eq!(given.messages.len(), 1);
        assert_eq!(given.messages[0].clone().message(String::new, Instant(0)).prompt().0.len(), 4);
        assert_eq!(given.answers(), ["b"]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        insta::assert_snapshot!(unfit(json!(7)), @"messages: expected a text or a message, found 7");
        insta::assert_snapshot!(unfit(json!([{ "role": "robot", "content": "" }])), @r#"messages.0.role: expected user, assistant, system or tool, found "robot""#);
        insta::assert_snapshot!(unfit(json!(["a", { "role": "user" }])), @"messages.1.content: expected a text, or parts of text and files");
        insta::assert_snapshot!(
            unfit(json!([{ "role": "user", "content": [{ "type": "audio" }] }])),
            @r#"messages.0.content.0: expected a part of type text, file or image, with what belongs to it; found one of type "audio""#
        );
        insta::assert_snapshot!(
            unfit(json!([{ "role": "tool", "content": "seven" }])),
            @"messages.0.content: expected a tool-result with its toolCallId; found none of these"
        );
    }
}

//! A row of a thread's history, and its stored form (T6.1, H10.6).
//!
//! What this room wrote it reads back as it was. What others wrote it reads as far as it is understood (T22.3): a row that
//! has an id and a role is never refused.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::clock::Instant;
use crate::message::attributes::Attributes;
use crate::message::contents::{Contents, Part, ProviderOptions};
use crate::message::name::{Category, XmlName};
use crate::message::old::{self, instant, object, text};
use crate::message::prompt::PromptMessage;
use crate::message::render::Warning;
use crate::message::reply::{Invocation, Reply, ReplyPart, sealed};
use crate::message::signal::ThreadSignal;
use crate::message::state::StateMark;

/// One message of a thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Unique on its thread; a signal's is the signal's.
    pub id: String,
    /// Its place in the thread. The order of the page and of the prompt.
    pub seq: i64,
    /// When it entered the transcript; never before that of the message in front of it (T6.4).
    pub created_at: Instant,
    /// What it is.
    pub body: Body,
}

/// What a message is, by role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Input of a direct call; what is sent to a thread is a signal, messages included (T6.2).
    User(Said),
    /// What the model made.
    Assistant(Reply),
    /// Instructions.
    System(Said),
    /// A signal.
    Signal(Box<ThreadSignal>),
}

/// Who a message is from, as rows say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A direct call's input.
    User,
    /// The model.
    Assistant,
    /// Instructions.
    System,
    /// A signal.
    Signal,
}

/// A user's or system row's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// What it says, in plain form.
    pub contents: Contents,
    /// For interfaces.
    pub metadata: Map<String, Value>,
    /// Options for the prompt message.
    pub provider_options: ProviderOptions,
}

/// A row that cannot be a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row {seq} of the thread cannot be read: {problem}; a row is an object with an id and a role")]
pub struct Unreadable {
    /// Its place in the thread.
    pub seq: i64,
    /// What is wrong with it.
    pub problem: String,
}

impl Role {
    /// The word in rows.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::System => "system",
            Self::Signal => "signal",
        }
    }

    /// Reads the word in rows.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::User, Self::Assistant, Self::System, Self::Signal].into_iter().find(|role| role.word() == word)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Said {
    /// These contents and nothing else.
    #[must_use]
    pub fn new(contents: impl Into<Contents>) -> Self {
        Self { contents: contents.into().plain(), metadata: Map::new(), provider_options: ProviderOptions::new() }
    }
}

impl Message {
    /// The message that a signal is, entering the transcript at `at` (T6.4).
    #[must_use]
    pub fn of_signal(seq: i64, signal: ThreadSignal, at: Instant) -> Self {
        let signal = signal.entered(at);
        Self { id: signal.id.clone(), seq, created_at: at, body: Body::Signal(Box::new(signal)) }
    }

    /// The same message as the history has it, which it entered at `at`.
    #[must_use]
    pub fn entered(self, at: Instant) -> Self {
        let body = match self.body {
            Body::Signal(signal) => Body::Signal(Box::new(signal.entered(at))),
            body => body,
        };
        Self { created_at: at, body, ..self }
    }

    /// The message that a reply is.
    #[must_use]
    pub fn of_reply(seq: i64, id: impl Into<String>, reply: Reply, at: Instant) -> Self {
        Self { id: id.into(), seq, created_at: at, body: Body::Assistant(reply) }
    }

    /// Whether it calls a tool under this id.
    #[must_use]
    pub fn has_call(&self, call: &str) -> bool {
        match &self.body {
            Body::Assistant(reply) => reply.parts.iter().any(|part| match part {
                ReplyPart::Tool(invocation) => invocation.call.id == call,
                _ => false,
            }),
            _ => false,
        }
    }

    /// Who it is from.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.body {
            Body::User(_) => Role::User,
            Body::Assistant(_) => Role::Assistant,
            Body::System(_) => Role::System,
            Body::Signal(_) => Role::Signal,
        }
    }

    /// The signal, if it is one.
    #[must_use]
    pub fn as_signal(&self) -> Option<&ThreadSignal> {
        match &self.body {
            Body::Signal(signal) => Some(signal),
            Body::User(_) | Body::Assistant(_) | Body::System(_) => None,
        }
    }

    /// What it adds to the prompt, and what was amiss. An assistant's message may be several, or none.
    #[must_use]
    pub fn prompt(&self) -> (Vec<PromptMessage>, Vec<Warning>) {
        match &self.body {
            Body::Signal(signal) => {
                let (message, warnings) = signal.render();
                (vec![message], warnings)
            }
            Body::User(Said { contents, provider_options, .. }) => {
                let message =
                    PromptMessage::User { parts: contents.to_parts(), provider_options: provider_options.clone() };
                (vec![message], Vec::new())
            }
            Body::System(said) => (vec![PromptMessage::System(said.contents.all_text())], Vec::new()),
            Body::Assistant(reply) => (reply.prompt(), Vec::new()),
        }
    }

    /// The stored row, on this thread of this resource.
    #[must_use]
    pub fn to_row(&self, thread_id: &str, resource_id: &str) -> Value {
        let mut row = Map::new();
        let mut set = |key: &str, value: Value| row.insert(key.to_owned(), value);
        set("id", json!(self.id));
        set("role", json!(self.role().word()));
        if let Body::Signal(signal) = &self.body {
            set("type", json!(signal.tag));
        }
        set("threadId", json!(thread_id));
        set("resourceId", json!(resource_id));
        set("createdAt", json!(self.created_at.to_string()));
        set("content", self.content());
        Value::Object(row)
    }

    fn content(&self) -> Value {
        let mut content = json!({ "format": 2 });
        let (metadata, provider_options) = match &self.body {
            Body::User(said) | Body::System(said) => {
                content["parts"] = part_rows(&said.contents);
                (said.metadata.clone(), &said.provider_options)
            }
            Body::Assistant(reply) => {
                let text = reply.whole_text();
                if !text.is_empty() {
                    content["content"] = Value::from(text);
                }
                content["parts"] = reply.parts.iter().map(ReplyPart::to_row).collect();
                (reply.metadata.clone(), &reply.provider_options)
            }
            Body::Signal(signal) => {
                content["parts"] = part_rows(&signal.contents);
                let mut metadata = Map::new();
                metadata.insert("signal".to_owned(), signal_row(signal));
                (metadata, &signal.provider_options)
            }
        };
        if !metadata.is_empty() {
            content["metadata"] = Value::Object(metadata);
        }
        sealed(content, provider_options)
    }

    /// Reads a stored row.
    ///
    /// # Errors
    /// [`Unreadable`] if it is no object, or has no id or no role that there is.
    pub fn of_row(seq: i64, row: &Value) -> Result<Self, Unreadable> {
        let unreadable = |problem: String| Unreadable { seq, problem };
        let fields = row.as_object().ok_or_else(|| unreadable("it is no object".to_owned()))?;
        let id = text(fields, &["id"]).ok_or_else(|| unreadable("it has no id".to_owned()))?;
        let word = text(fields, &["role"]).ok_or_else(|| unreadable("it has no role".to_owned()))?;
        let role = Role::from_word(&word)
            .ok_or_else(|| unreadable(format!("there is no role {:?}", crate::message::name::shortened(&word))))?;
        // Order is the sequence's, so a row without a time is only a row without a time.
        let created_at = instant(fields, "createdAt").unwrap_or_default();
        let content = fields.get("content").unwrap_or(&Value::Null);
        let body = match role {
            Role::User => Body::User(said_of(content)),
            Role::System => Body::System(said_of(content)),
            Role::Assistant => Body::Assistant(reply_of(content)),
            Role::Signal => Body::Signal(Box::new(signal_of(&id, fields, content, created_at))),
        };
        Ok(Self { id, seq, created_at, body })
    }
}

impl Contents {
    /// All its texts, a line each.
    #[must_use]
    pub fn all_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Parts(parts) => {
                let texts = parts.iter().filter_map(|part| match part {
                    Part::Text { text, .. } => Some(text.as_str()),
                    Part::File { .. } => None,
                });
                texts.collect::<Vec<_>>().join("\n")
            }
        }
    }
}

fn part_rows(contents: &Contents) -> Value {
    let parts = contents.to_parts();
    let rows = parts.iter().map(|part| match part {
        Part::Text { text, provider_options } => sealed(json!({ "type": "text", "text": text }), provider_options),
        Part::File { data, media_type, filename, provider_options } => {
            let mut row = json!({ "type": "file", "data": data, "mimeType": media_type });
            if let Some(filename) = filename {
                row["filename"] = Value::from(filename.as_str());
            }
            sealed(row, provider_options)
        }
    });
    rows.collect()
}

/// `content.metadata.signal`: the signal without what the row says in other places.
pub(crate) fn signal_row(signal: &ThreadSignal) -> Value {
    let mut row = json!({
        "id": signal.id,
        "type": signal.category,
        "tagName": signal.tag,
        "createdAt": signal.created_at.to_string(),
        "acceptedAt": signal.accepted_at.to_string(),
    });
    if !signal.attributes.is_empty() {
        row["attributes"] = json!(signal.attributes);
    }
    let metadata = signal.shown_metadata();
    if !metadata.is_empty() {
        row["metadata"] = Value::Object(metadata);
    }
    row
}

fn fields_of(content: &Value) -> Map<String, Value> {
    content.as_object().cloned().unwrap_or_default()
}

fn said_of(content: &Value) -> Said {
    let fields = fields_of(content);
    Said {
        contents: Contents::from(old::parts_of(content)),
        metadata: object(&fields, &["metadata"]),
        provider_options: object(&fields, &["providerMetadata", "providerOptions"]),
    }
}

fn reply_of(content: &Value) -> Reply {
    let fields = fields_of(content);
    let listed = fields.get("parts").or(Some(content)).and_then(Value::as_array);
    let parts = match listed {
        Some(parts) => parts.iter().filter_map(ReplyPart::of_row).collect(),
        None => {
            // The oldest form: calls beside one text.
            let calls = fields.get("toolInvocations").and_then(Value::as_array).into_iter().flatten();
            let calls = calls.filter_map(|call| Invocation::of_row(call.as_object()?).map(ReplyPart::Tool));
            let told = content.as_str().map(str::to_owned).or_else(|| text(&fields, &["content"]));
            calls.chain(told.map(ReplyPart::text)).collect()
        }
    };
    Reply {
        parts,
        metadata: object(&fields, &["metadata"]),
        provider_options: object(&fields, &["providerMetadata", "providerOptions"]),
    }
}

fn signal_of(id: &str, row: &Map<String, Value>, content: &Value, created_at: Instant) -> ThreadSignal {
    let fields = fields_of(content);
    let told = fields.get("metadata").and_then(|metadata| metadata.get("signal")?.as_object());
    let row_tag = text(row, &["type"]).filter(|tag| !tag.is_empty());
    let contents = || Contents::from(old::parts_of(content));
    let Some(told) = told else {
        return ThreadSignal {
            id: id.to_owned(),
            category: Category::User,
            tag: row_tag.unwrap_or_else(|| Category::User.default_tag().to_owned()),
            contents: contents(),
            attributes: Attributes::new(),
            metadata: Map::new(),
            provider_options: object(&fields, &["providerMetadata", "providerOptions"]),
            transient: false,
            created_at,
            accepted_at: created_at,
            state: None,
        };
    };
    let word = text(told, &["type"]);
    let given_tag = text(told, &["tagName"]).filter(|tag| !tag.is_empty());
    let (category, tag) = match word.as_deref().map(Category::of_word) {
        Some(Ok(category)) => (category, given_tag.unwrap_or_else(|| category.default_tag().to_owned())),
        // An older type of free choice was the tag as well.
        Some(Err(_)) => {
            let tag = given_tag.or(word).filter(|tag| XmlName::is_name(tag));
            (Category::Reactive, tag.unwrap_or_else(|| Category::Reactive.default_tag().to_owned()))
        }
        None => (Category::User, given_tag.or(row_tag).unwrap_or_else(|| Category::User.default_tag().to_owned())),
    };
    let mut metadata = object(told, &["metadata"]);
    let state = StateMark::take(category, &mut metadata);
    let mut provider_options = object(&fields, &["providerMetadata", "providerOptions"]);
    if provider_options.is_empty() {
        provider_options = object(told, &["providerOptions"]);
    }
    let created_at = instant(told, "createdAt").unwrap_or(created_at);
    ThreadSignal {
        id: text(told, &["id"]).unwrap_or_else(|| id.to_owned()),
        category,
        tag,
        contents: told.get("contents").and_then(old::contents_of).unwrap_or_else(contents),
        attributes: Attributes::of_object(&object(told, &["attributes"])),
        metadata,
        provider_options,
        transient: false,
        created_at,
        accepted_at: instant(told, "acceptedAt").unwrap_or(created_at),
        state,
    }
}

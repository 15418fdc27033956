//! What a person is shown of a thread: which messages are listed, and the interface's form of them (T6.7 to T6.9).
//!
//! Hiding a message never changes what the model reads (T6.10).

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::clock::Instant;
use crate::message::name::Category;
use crate::message::reply::ReplyPart;
use crate::message::row::{Body, Message, Role, signal_row};

/// A message in the interface's form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// The message's id; of an assistant's message made for a signal alone, the signal's.
    pub id: String,
    /// `user`, `assistant` or `system`.
    pub role: &'static str,
    /// When it entered the transcript.
    #[serde(with = "crate::message::iso")]
    pub created_at: Instant,
    /// Its parts.
    pub parts: Vec<Value>,
    /// For names, avatars and badges: as in the row, so a signal's attributes and metadata stand under `signal`.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

impl Message {
    /// Whether a listing holds it (T6.9). The category decides, not the tag; of old rows of role user, how they begin.
    #[must_use]
    pub fn is_listed(&self, include_reminders: bool) -> bool {
        include_reminders
            || match &self.body {
                Body::Signal(signal) => signal.category != Category::Reactive,
                Body::User(said) => !begins_as_reminder(&said.contents.all_text()),
                Body::Assistant(_) | Body::System(_) => true,
            }
    }

    /// The interface's form of a stretch of a thread, in its order (T6.8). Signals that are not messages become parts of
    /// an assistant's message: the one before them, else the next, else one of their own.
    #[must_use]
    pub fn shown<'a>(messages: impl IntoIterator<Item = &'a Self>, include_reminders: bool) -> Vec<Shown> {
        let mut shown: Vec<Shown> = Vec::new();
        let mut waiting: Vec<(&Self, Value)> = Vec::new();
        for message in messages.into_iter().filter(|message| message.is_listed(include_reminders)) {
            match &message.body {
                Body::Signal(signal) if signal.category != Category::User => {
                    let part = json!({ "type": "data-signal", "id": signal.id, "data": signal });
                    match shown.last_mut().filter(|last| last.role == "assistant" && waiting.is_empty()) {
                        Some(last) => last.parts.push(part),
                        None => waiting.push((message, part)),
                    }
                }
                _ => {
                    let mut next = message.in_the_open();
                    if message.role() == Role::Assistant {
                        next.parts.splice(0..0, waiting.drain(..).map(|(_, part)| part));
                    }
                    shown.push(next);
                }
            }
        }
        if let Some((first, _)) = waiting.first() {
            let (id, created_at) = (first.id.clone(), first.created_at);
            let parts = waiting.into_iter().map(|(_, part)| part).collect();
            shown.push(Shown { id, role: "assistant", created_at, parts, metadata: Map::new() });
        }
        shown
    }

    /// The form of a message that stands by itself.
    fn in_the_open(&self) -> Shown {
        let (role, parts, metadata) = match &self.body {
            Body::User(said) => ("user", as_given(&said.contents.to_parts()), said.metadata.clone()),
            Body::System(said) => ("system", as_given(&said.contents.to_parts()), said.metadata.clone()),
            Body::Signal(signal) => {
                let mut metadata = Map::new();
                metadata.insert("signal".to_owned(), signal_row(signal));
                ("user", as_given(&signal.contents.to_parts()), metadata)
            }
            Body::Assistant(reply) => {
                let parts = reply.parts.iter().map(|part| {
                    let mut row = part.to_row();
                    // Only rows say it the old way.
                    if let (ReplyPart::File { .. }, Some(part)) = (part, row.as_object_mut())
                        && let Some(kind) = part.shift_remove("mimeType")
                    {
                        part.insert("mediaType".to_owned(), kind);
                    }
                    row
                });
                ("assistant", parts.collect(), reply.metadata.clone())
            }
        };
        Shown { id: self.id.clone(), role, created_at: self.created_at, parts, metadata }
    }
}

fn as_given(parts: &[crate::message::contents::Part]) -> Vec<Value> {
    parts.iter().map(|part| json!(part)).collect()
}

fn begins_as_reminder(text: &str) -> bool {
    text.strip_prefix("<system-reminder")
        .and_then(|rest| rest.chars().next())
        .is_some_and(|next| next == '>' || next == '/' || next.is_whitespace())
}

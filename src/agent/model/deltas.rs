//! What leaves while a model answers.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::Reply;
use crate::message::{AssistantPart, ToolCall};

/// A piece of an answer under way. Every piece lies between the start and the end of its block; blocks do not overlap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Delta {
    /// A text begins.
    TextStart {
        /// The block, unique within the reply.
        id: String,
    },
    /// More of it.
    Text {
        /// The block.
        id: String,
        /// The new piece.
        text: String,
    },
    /// It is complete.
    TextEnd {
        /// The block.
        id: String,
    },
    /// Thinking begins.
    ReasoningStart {
        /// The block, unique within the reply.
        id: String,
    },
    /// More of it.
    Reasoning {
        /// The block.
        id: String,
        /// The new piece.
        text: String,
    },
    /// It is complete.
    ReasoningEnd {
        /// The block.
        id: String,
    },
    /// A tool call begins.
    ToolInputStart {
        /// The call's id.
        id: String,
        /// The tool.
        name: String,
    },
    /// More of its arguments, as text.
    ToolInput {
        /// The call's id.
        id: String,
        /// The tool.
        name: String,
        /// The new piece.
        text: String,
    },
    /// Its arguments are complete, though nobody has checked them.
    ToolInputEnd {
        /// The call's id.
        id: String,
    },
}

/// Where deltas go. A full channel makes the model wait; a listener that has left makes no difference.
#[derive(Debug, Clone)]
pub struct Deltas(Option<mpsc::Sender<Delta>>);

impl Deltas {
    /// Nobody listens.
    #[must_use]
    pub const fn ignored() -> Self {
        Self(None)
    }

    /// Somebody listens, and may be behind by `capacity` deltas (at least one) before the model has to wait.
    #[must_use]
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<Delta>) {
        let (to, from) = mpsc::channel(capacity.max(1));
        (Self(Some(to)), from)
    }

    /// Hands one over, waiting for room.
    pub async fn send(&self, delta: Delta) {
        if let Some(to) = &self.0 {
            // A listener that has left does not end the answer: what counts is the reply.
            drop(to.send(delta).await);
        }
    }
}

/// Puts pieces into blocks: opens one when another kind of piece comes, and closes it in time.
pub(super) struct Blocks<'a> {
    to: &'a Deltas,
    open: Option<Open>,
    texts: usize,
    reasonings: usize,
}

#[derive(PartialEq)]
enum Open {
    Text(String),
    Reasoning(String),
    Input(String),
}

impl<'a> Blocks<'a> {
    pub(super) fn new(to: &'a Deltas) -> Self {
        Self { to, open: None, texts: 0, reasonings: 0 }
    }

    pub(super) async fn text(&mut self, text: String) {
        let id = if let Some(Open::Text(id)) = &self.open {
            id.clone()
        } else {
            self.close().await;
            let id = format!("t{}", self.texts);
            self.texts += 1;
            self.open = Some(Open::Text(id.clone()));
            self.to.send(Delta::TextStart { id: id.clone() }).await;
            id
        };
        self.to.send(Delta::Text { id, text }).await;
    }

    pub(super) async fn reasoning(&mut self, text: String) {
        let id = if let Some(Open::Reasoning(id)) = &self.open {
            id.clone()
        } else {
            self.close().await;
            let id = format!("r{}", self.reasonings);
            self.reasonings += 1;
            self.open = Some(Open::Reasoning(id.clone()));
            self.to.send(Delta::ReasoningStart { id: id.clone() }).await;
            id
        };
        self.to.send(Delta::Reasoning { id, text }).await;
    }

    /// A piece of a call's arguments; an empty piece only begins it.
    pub(super) async fn input(&mut self, id: &str, name: &str, text: String) {
        if self.open != Some(Open::Input(id.to_owned())) {
            self.close().await;
            self.open = Some(Open::Input(id.to_owned()));
            self.to.send(Delta::ToolInputStart { id: id.to_owned(), name: name.to_owned() }).await;
        }
        if !text.is_empty() {
            self.to.send(Delta::ToolInput { id: id.to_owned(), name: name.to_owned(), text }).await;
        }
    }

    pub(super) async fn close(&mut self) {
        match self.open.take() {
            Some(Open::Text(id)) => self.to.send(Delta::TextEnd { id }).await,
            Some(Open::Reasoning(id)) => self.to.send(Delta::ReasoningEnd { id }).await,
            Some(Open::Input(id)) => self.to.send(Delta::ToolInputEnd { id }).await,
            None => {}
        }
    }
}

/// The words of a text, each with the space behind it; together they are the text.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive([' ', '\n'])
}

/// Says a reply that is complete already, word by word.
pub(super) async fn say(reply: &Reply, deltas: &Deltas) {
    let mut blocks = Blocks::new(deltas);
    for part in &reply.parts {
        match part {
            AssistantPart::Text(text) => {
                for word in words(text) {
                    blocks.text(word.to_owned()).await;
                }
            }
            AssistantPart::Reasoning { text, .. } => {
                for word in words(text) {
                    blocks.reasoning(word.to_owned()).await;
                }
            }
            AssistantPart::Call(ToolCall { id, name, arguments }) => {
                blocks.input(id, name, arguments.to_string()).await;
            }
        }
    }
    blocks.close().await;
}

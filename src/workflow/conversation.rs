//! What a turn may leave with the thread that it answers: messages, what subscribers see, calls that wait.

use std::sync::Arc;

use serde::Serialize;

use super::desk::Desk;
use crate::failure::Failure;
use crate::message::{Body, Category, Message};
use crate::payload::Payload;
use crate::run::BlockReason;
use crate::thread::{NewCall, NewLane, NewMessage, TurnInput};

/// The thread that a run answers. What is left there leaves with the run's next commit, in the order in which it is said.
#[derive(Clone)]
pub struct ThreadDesk {
    desk: Arc<Desk>,
    thread: String,
    resource: String,
}

impl ThreadDesk {
    pub(super) fn new(desk: Arc<Desk>, turn: &TurnInput) -> Self {
        Self { desk, thread: turn.thread.to_string(), resource: turn.resource.clone() }
    }

    /// Adds a message to the history; it gets the next place there. One whose id is there is not added.
    pub fn add(&self, message: &Message) {
        self.enter(message, false);
    }

    /// Goes on with an assistant's message that is in the history: it stays in its place.
    pub fn rewrite(&self, message: &Message) {
        self.enter(message, true);
    }

    fn enter(&self, message: &Message, again: bool) {
        let category = match &message.body {
            Body::Signal(signal) => Some(signal.category.word()),
            // Old rows that begin as a reminder are listed as what they are (T6.9).
            _ => (!message.is_listed(false)).then_some(Category::Reactive.word()),
        };
        let row = self.encode("a message", &message.to_row(&self.thread, &self.resource));
        let role = message.role().word();
        let (id, at) = (message.id.clone(), message.created_at);
        self.desk.add_message(NewMessage { id, role, category, row, at, again });
    }

    /// Says how a lane stands with a state signal that is added in the same breath (T14.8).
    pub fn track(&self, lane: NewLane) {
        self.desk.track(lane);
    }

    /// Shows a chunk to the thread's subscribers, once it is durable.
    pub fn show<T: Serialize + ?Sized>(&self, chunk: &T) {
        let chunk = self.encode("a chunk", chunk);
        self.desk.show(chunk);
    }

    /// Leaves a tool call to somebody outside: it is listed until it is settled, or the run ends.
    pub fn suspend(&self, call: NewCall) {
        self.desk.suspend(call);
    }

    /// A call waits no longer.
    pub fn settle(&self, call: impl Into<String>) {
        self.desk.settle_call(call.into());
    }

    /// A value of the code's own that has no JSON form stops the run: there is nothing that could be kept.
    fn encode<T: Serialize + ?Sized>(&self, what: &str, value: &T) -> Payload {
        Payload::of(value).unwrap_or_else(|e| {
            self.desk.block(BlockReason::Undecodable(format!("{what} of a thread: {}", Failure::from(e))));
            Payload::null()
        })
    }
}

impl std::fmt::Debug for ThreadDesk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ThreadDesk").field("thread", &self.thread).finish_non_exhaustive()
    }
}

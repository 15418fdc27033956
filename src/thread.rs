//! Threads as values: a conversation, how it stands, and where what arrives for it goes (threads-and-signals 2 and 7).
//!
//! The store keeps them; a turn is the run that answers one. Everything here is a pure rule.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::Instant;
use crate::id::{Namespace, RunId, ThreadId, ThreadKey};
use crate::payload::Payload;

/// The most bytes that the name of a resource may have.
pub const RESOURCE_BYTES_MAX: usize = 512;

/// The most bytes that the title of a thread may have.
pub const TITLE_BYTES_MAX: usize = 4_096;

/// The name under which a turn is sent what was delivered to its thread.
pub const INPUT: &str = "input";

/// The stream of a thread in which subscribers see its runs.
pub const CHUNKS: &str = "chunks";

/// A thread's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Its key inside the store.
    pub key: ThreadKey,
    /// Its namespace.
    pub namespace: Namespace,
    /// What the outside calls it.
    pub id: ThreadId,
    /// Its owner: a user, a tenant. Compared as it is (T2.3).
    pub resource: String,
    /// What people call it; empty at first (T2.4).
    pub title: String,
    /// What clients keep with it: a JSON object, or null.
    pub metadata: Payload,
    /// The turn that is reserved, running or suspended on it; none if it is idle.
    pub current: Option<Current>,
    /// How many turns wait for the current one to end.
    pub queued: i64,
    /// The place of its last message; messages are counted from 1.
    pub last_seq: i64,
    /// When it was made.
    pub created_at: Instant,
    /// When something was last added to it.
    pub updated_at: Instant,
}

/// The turn that has a thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// Its run.
    pub run: RunId,
    /// The agent that answers.
    pub agent: String,
}

/// A resource's name that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("resource {found:?} is not usable: it has 1 to {RESOURCE_BYTES_MAX} bytes and no control characters")]
pub struct InvalidResource {
    /// The text, cut after 80 characters.
    pub found: String,
}

/// Checks a resource's name.
///
/// # Errors
/// [`InvalidResource`].
pub fn check_resource(name: &str) -> Result<(), InvalidResource> {
    if name.is_empty() || name.len() > RESOURCE_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(InvalidResource { found: name.chars().take(80).collect() });
    }
    Ok(())
}

/// The written name of the workflow that answers for an agent. A worker knows the turns of its own agents only: those of
/// others are left to workers that have them.
#[must_use]
pub fn turn_of(agent: &str) -> String {
    format!("turn:{agent}")
}

/// What the sender wants done while the addressed agent has the thread (T7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IfActive {
    /// Give it to the turn that is under way.
    #[default]
    Deliver,
    /// Put it into the history; the next turn reads it.
    Persist,
    /// Nothing.
    Discard,
}

/// What the sender wants done while the addressed agent does not have the thread (T7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IfIdle {
    /// Start a turn with it.
    #[default]
    Wake,
    /// Put it into the history.
    Persist,
    /// Nothing.
    Discard,
}

/// What the sender asks of the routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Routing {
    /// While the agent has the thread.
    pub if_active: IfActive,
    /// While it has not.
    pub if_idle: IfIdle,
    /// A queued message: it gets a turn of its own, after those before it (T9.2, T9.3). Then `if_active` and `if_idle`
    /// say nothing.
    pub queue: bool,
}

/// Which of the sender's two wishes holds; its attributes are merged (T7.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Branch {
    /// The agent has the thread.
    Active,
    /// It has not.
    Idle,
}

/// Where an input goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// A turn begins with it.
    Wake,
    /// The turn that is under way takes it.
    Deliver,
    /// It gets a turn of its own, once those before it have ended.
    Queue,
    /// Into the history.
    Persist,
    /// Nowhere.
    Discard,
}

impl Branch {
    /// The word in the store.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
        }
    }

    /// Reads the word in the store.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Active, Self::Idle].into_iter().find(|it| it.word() == word)
    }
}

impl Route {
    /// The word in the store.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Wake => "wake",
            Self::Deliver => "deliver",
            Self::Queue => "queue",
            Self::Persist => "persist",
            Self::Discard => "discard",
        }
    }

    /// Reads the word in the store.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Wake, Self::Deliver, Self::Queue, Self::Persist, Self::Discard].into_iter().find(|it| it.word() == word)
    }
}

impl Routing {
    /// Where an input for `agent` goes, while the agent `current` has the thread: the table of T7.2 to T7.8.
    #[must_use]
    pub fn decide(self, agent: &str, current: Option<&str>) -> (Branch, Route) {
        let Some(current) = current else {
            let route = match self.if_idle {
                _ if self.queue => Route::Wake,
                IfIdle::Wake => Route::Wake,
                IfIdle::Persist => Route::Persist,
                IfIdle::Discard => Route::Discard,
            };
            return (Branch::Idle, route);
        };
        if self.queue {
            // Aldis merges the active branch's attributes into what is queued behind a turn (T9.4).
            return (Branch::Active, Route::Queue);
        }
        if current == agent {
            let route = match self.if_active {
                IfActive::Deliver => Route::Deliver,
                IfActive::Persist => Route::Persist,
                IfActive::Discard => Route::Discard,
            };
            return (Branch::Active, route);
        }
        // A foreign turn counts as idle (T7.3); a wake waits for it to end, suspended or not (T7.8).
        let route = match self.if_idle {
            IfIdle::Wake => Route::Queue,
            IfIdle::Persist => Route::Persist,
            IfIdle::Discard => Route::Discard,
        };
        (Branch::Idle, route)
    }
}

/// The input of the workflow that answers a thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TurnInput {
    /// The thread's key inside the store.
    #[schemars(with = "i64")]
    pub key: ThreadKey,
    /// The thread.
    #[schemars(with = "String")]
    pub thread: ThreadId,
    /// Its owner.
    pub resource: String,
    /// The agent that answers.
    pub agent: String,
    /// What the sender of the first input asks of the turn: model settings, step limit, request context (T7.1).
    #[schemars(with = "serde_json::Value")]
    pub options: Payload,
    /// What it begins with, in the order of acceptance; what is delivered later comes as signals.
    #[schemars(with = "Vec<serde_json::Value>")]
    pub first: Vec<Payload>,
    /// What a direct call has said, as rows of the history. They enter it without an echo (H9.6).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<serde_json::Value>")]
    pub said: Vec<Payload>,
    /// What the client's own tools came to, if it goes on from there (T13.14).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<CallResult>,
    /// How many turns in a row may follow each other without an idle moment (T10.8).
    pub follow_ups_max: u32,
    /// How many of them are left.
    pub follow_ups_left: u32,
}

impl TurnInput {
    /// The turn that takes what this one has left: the same options (T7.13), all of it at once (T10.10). If none is left
    /// it is held back until somebody writes again, and the count begins anew.
    #[must_use]
    pub fn follow_up(self, first: Vec<Payload>) -> Self {
        Self {
            first,
            said: Vec::new(),
            results: Vec::new(),
            follow_ups_left: self.follow_ups_left.checked_sub(1).unwrap_or(self.follow_ups_max),
            ..self
        }
    }
}

/// What a tool that the client has run came to (T13.14).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallResult {
    /// The call.
    pub call: String,
    /// What the tool returned, or how it failed.
    pub output: serde_json::Value,
    /// Whether it failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
}

/// A message for the history of a thread, as a turn gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Its id, unique per thread.
    pub id: String,
    /// `user`, `assistant`, `system` or `signal`.
    pub role: &'static str,
    /// The category of a signal.
    pub category: Option<&'static str>,
    /// The whole row.
    pub row: Payload,
    /// When it enters. The history holds a later time if its thread has seen one: times never go back along it, although the
    /// clocks of machines differ (T6.4).
    pub at: Instant,
    /// Whether the turn has added it before: then it stays in its place, with this row. Otherwise a second message
    /// under an id is not added.
    pub again: bool,
}

/// A tool call that waits for an answer from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCall {
    /// The call's id, unique per turn.
    pub call: String,
    /// The tool.
    pub tool: String,
    /// Its arguments, whether it needs approval, and what it was suspended with.
    pub value: Payload,
    /// When it is settled by itself.
    pub expires_at: Option<Instant>,
}

/// A turn that waits for somebody outside (T13.11).
#[derive(Debug, Clone, PartialEq)]
pub struct SuspendedRun {
    /// The turn's run.
    pub run: RunId,
    /// Its thread.
    pub thread: ThreadId,
    /// The thread's owner.
    pub resource: String,
    /// The agent that answers.
    pub agent: String,
    /// Since when the call waits that waits longest.
    pub suspended_at: Instant,
    /// Its calls that wait, the one that waits longest first.
    pub calls: Vec<OpenCall>,
}

/// A call that waits for somebody outside.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenCall {
    /// The call.
    pub call: String,
    /// The tool.
    pub tool: String,
    /// Its arguments.
    pub args: Value,
    /// Whether it has not begun, and wants an approval; otherwise it has suspended itself.
    pub requires_approval: bool,
    /// What it has suspended itself with.
    pub suspend_payload: Option<Value>,
    /// Since when it waits.
    pub since: Instant,
    /// When it is settled by itself (T13.12).
    pub expires_at: Option<Instant>,
}

/// How a lane stands with a state signal that a turn adds to the history (T14.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLane {
    /// The lane.
    pub lane: String,
    /// The signal, which the same commit adds.
    pub signal: String,
    /// The producer's name for its content.
    pub cache_key: String,
    /// Whether it is a change (`delta`) rather than the whole truth.
    pub is_delta: bool,
    /// The version that it is thought to have. If the lane has moved on meanwhile, it gets the next one, in its row and
    /// its echo too: nobody's state is overwritten in silence.
    pub version: u64,
    /// Whether the lane said this already, and its copy was out of sight: then its version stays (T14.10).
    pub again: bool,
    /// The lane's signals in the window, as JSON.
    pub window: Payload,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_without_a_name_is_refused_in_words() {
        let refused = check_resource("").unwrap_err();
        insta::assert_snapshot!(refused, @r#"resource "" is not usable: it has 1 to 512 bytes and no control characters"#);
    }

    #[test]
    fn a_follow_up_keeps_the_options_and_counts_down() {
        let turn = TurnInput {
            key: ThreadKey(7),
            thread: ThreadId::parse("t").unwrap(),
            resource: "ann".into(),
            agent: "support".into(),
            options: Payload::parse(r#"{"maxSteps":3}"#).unwrap(),
            first: vec![Payload::parse(r#"{"id":"s1"}"#).unwrap()],
            said: vec![Payload::parse(r#"{"id":"m1"}"#).unwrap()],
            results: Vec::new(),
            follow_ups_max: 100,
            follow_ups_left: 1,
        };
        let next = turn.clone().follow_up(Vec::new());
        assert_eq!((next.options, next.first, next.said), (turn.options, Vec::new(), Vec::new()));
        assert_eq!(next.follow_ups_left, 0);
    }
}

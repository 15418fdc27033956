//! The lines of a journal, and how each is written down: its kind, the version of its form, and readable JSON.

use serde::{Deserialize, Serialize};

use crate::clock::Instant;
use crate::failure::{AttemptFailure, Failure, Outcome};
use crate::id::{OpId, RunId, Seq};
use crate::payload::Payload;
use crate::signal::SignalKind;

/// The version of the form that this build writes. Lines of every earlier version can be read.
pub const EVENT_VERSION: i16 = 1;

/// One line of a run's journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its place: 1, 2, 3, …
    pub seq: Seq,
    /// When it was recorded; what `now()` gives while it is being processed.
    pub at: Instant,
    /// What happened.
    pub event: Event,
}

/// A stored line that cannot be read. The run is Blocked, not Failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "journal line {seq} of kind {kind:?}, version {version}, cannot be read: {problem}; a build that knows this form can go on"
)]
pub struct Undecipherable {
    /// The line's place.
    pub seq: Seq,
    /// Its kind as stored.
    pub kind: String,
    /// Its version as stored.
    pub version: i16,
    /// What is wrong with it.
    pub problem: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident : $type:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

            impl From<$name> for Event {
                fn from(event: $name) -> Self {
                    Self::$name(event)
                }
            }
        )*

        /// What happened, in the past tense.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Event { $($(#[$doc])* $name($name),)* }

        impl Event {
            /// Every kind there is, as written in the journal.
            pub const KINDS: &'static [&'static str] = &[$(stringify!($name)),*];

            /// Its kind, as written in the journal.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)* }
            }

            /// Writes its JSON form to the end of `bytes`.
            ///
            /// # Panics
            /// Never: every field has a JSON form and a `Vec` takes every write.
            pub fn encode_into(&self, bytes: &mut Vec<u8>) {
                let written = match self { $(Self::$name(event) => serde_json::to_writer(&mut *bytes, event),)* };
                written.expect("an event's fields all have a JSON form");
            }

            /// Reads a line as the store kept it.
            ///
            /// # Errors
            /// [`Undecipherable`] for a kind, version or form that this build does not know.
            pub fn decode(seq: Seq, kind: &str, version: i16, json: &str) -> Result<Self, Undecipherable> {
                let undecipherable =
                    |problem: String| Undecipherable { seq, kind: kind.to_owned(), version, problem };
                if version != EVENT_VERSION {
                    return Err(undecipherable(format!("this build reads version {EVENT_VERSION}")));
                }
                match kind {
                    $(stringify!($name) => serde_json::from_str(json)
                        .map(Self::$name)
                        .map_err(|e| undecipherable(e.to_string())),)*
                    _ => Err(undecipherable("this build does not know the kind".into())),
                }
            }
        }
    };
}

events! {
    /// The run was accepted to be started later, or elsewhere. Not shown to the code; `RunStarted` follows.
    RunQueued {
        /// The run's id.
        run: RunId,
        /// The workflow's written name.
        workflow: String,
        /// The version it is to run on.
        version: u32,
        /// What `uuid()` and `rng()` derive from.
        seed: uuid::Uuid,
        /// The input.
        input: Payload,
        /// The latest time at which it is asked to cancel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Instant>,
    }

    /// A worker began the run. The first line that the code sees.
    RunStarted {
        /// The run's id.
        run: RunId,
        /// The workflow's written name.
        workflow: String,
        /// The version it runs on.
        version: u32,
        /// The build that began it.
        build: String,
        /// What `uuid()` and `rng()` derive from.
        seed: uuid::Uuid,
        /// The input; absent if `RunQueued` has it.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
        input: Option<Payload>,
        /// The latest time at which it is asked to cancel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Instant>,
    }

    /// The code asked for a step. Its body starts once this line is durable.
    StepScheduled {
        /// Where in the code.
        op: OpId,
        /// The step's written name.
        name: String,
        /// Its input.
        input: Payload,
        /// Whether a request to cancel leaves it alone.
        #[serde(default, skip_serializing_if = "is_false")]
        shielded: bool,
    }

    /// A body returned a value. It never runs again.
    StepFinished {
        /// Where in the code.
        op: OpId,
        /// What it returned.
        output: Payload,
    }

    /// An attempt failed and another follows. Not shown to the code.
    StepAttemptFailed {
        /// Where in the code.
        op: OpId,
        /// Which attempt, from 1.
        attempt: u32,
        /// How it failed.
        cause: AttemptFailure,
        /// When the next attempt begins.
        retry_at: Instant,
    }

    /// A body reported progress worth keeping. Not shown to the code; the next attempt receives the latest.
    StepCheckpointed {
        /// Where in the code.
        op: OpId,
        /// Which attempt, from 1.
        attempt: u32,
        /// What it reported.
        checkpoint: Payload,
    }

    /// The last attempt failed.
    StepFailed {
        /// Where in the code.
        op: OpId,
        /// How many attempts there were.
        attempts: u32,
        /// How the last one failed.
        cause: AttemptFailure,
    }

    /// The code asked to be woken.
    TimerArmed {
        /// Where in the code.
        op: OpId,
        /// When; never earlier.
        fire_at: Instant,
        /// Whether a request to cancel leaves it alone.
        #[serde(default, skip_serializing_if = "is_false")]
        shielded: bool,
    }

    /// A timer's time has come.
    TimerFired {
        /// Where in the code.
        op: OpId,
    }

    /// The code began to wait for signals or updates of a name.
    SignalAwaited {
        /// Where in the code.
        op: OpId,
        /// The name.
        name: String,
        /// How many, and of what kind.
        mode: WaitMode,
        /// Whether a request to cancel leaves it alone.
        #[serde(default, skip_serializing_if = "is_false")]
        shielded: bool,
    }

    /// Signals were given to the wait that asked for them: a batch is one line.
    SignalsTaken {
        /// The wait.
        op: OpId,
        /// The signals, in the order of their acceptance.
        signals: Vec<Taken>,
    }

    /// The code looked for signals without waiting. The list is empty if there were none.
    SignalsChecked {
        /// Where in the code.
        op: OpId,
        /// The name it looked for.
        name: String,
        /// What it took, in the order of acceptance.
        signals: Vec<Taken>,
    }

    /// The code gave up an operation: a lost race, or a scope that was left.
    WaitWithdrawn {
        /// Which operation.
        op: OpId,
    }

    /// The code published a value for queries.
    ValuePublished {
        /// Its name.
        name: String,
        /// The value.
        value: Payload,
    }

    /// The code wrote to one of its streams. The value itself is in the stream.
    StreamAppended {
        /// The stream's name.
        stream: String,
        /// The value's size in bytes.
        size: u64,
    }

    /// The code added a message to the history of its thread, or went on with one. The message itself is in the history.
    MessageAdded {
        /// The message's id.
        id: String,
        /// `user`, `assistant`, `system` or `signal`.
        role: String,
        /// The row's size in bytes.
        size: u64,
        /// Whether the code had added it before: then it has this form now.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        again: bool,
    }

    /// The code left a tool call to somebody outside. It waits until it is settled or the run ends.
    CallSuspended {
        /// The call's id.
        call: String,
        /// The tool.
        tool: String,
        /// Its arguments, and what it was suspended with.
        value: Payload,
        /// When it is settled by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<Instant>,
    }

    /// The code has its answer to a call, or wants none any more.
    CallSettled {
        /// The call's id.
        call: String,
    }

    /// The code answered an update.
    UpdateAnswered {
        /// The update's id.
        id: String,
        /// The answer.
        reply: Payload,
    }

    /// The code pushed a compensation onto the run's undo list.
    UndoPushed {
        /// Where in the code.
        op: OpId,
        /// The compensating step's name.
        name: String,
        /// Its input.
        input: Payload,
    }

    /// The code emptied the undo list: what was done stays done.
    UndosForgotten {
        /// How many compensations were dropped.
        count: u32,
    }

    /// Somebody asked the run to cancel: every open operation that is not shielded is answered with it.
    CancelRequested {
        /// Why.
        reason: String,
        /// Who asked.
        by: String,
    }

    /// The workflow returned a value. The last line.
    RunCompleted {
        /// What it returned.
        output: Payload,
    }

    /// The workflow returned an error. The last line.
    RunFailed {
        /// What went wrong.
        failure: Failure,
    }

    /// The run wound up after a request to cancel. The last line.
    RunCancelled {
        /// Why it was cancelled.
        reason: String,
        /// What the workflow returned, compensations that failed included.
        failure: Failure,
    }

    /// The run was stopped without cleanup. The last line.
    RunTerminated {
        /// Why.
        reason: String,
        /// Who asked.
        by: String,
    }
}

/// A field that is there has a value, and that may be `null`: a workflow without input has been given one all the same.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Payload>, D::Error> {
    Payload::deserialize(deserializer).map(Some)
}

/// How many signals a wait takes, and of what kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitMode {
    /// The next signal.
    One,
    /// All that are pending, at least one.
    Batch,
    /// The next update.
    Update,
}

impl WaitMode {
    /// The kind of arrival that the wait takes.
    #[must_use]
    pub fn takes(self) -> SignalKind {
        match self {
            Self::One | Self::Batch => SignalKind::Signal,
            Self::Update => SignalKind::Update,
        }
    }
}

/// One signal as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The sender's id, or the one made at acceptance.
    pub id: String,
    /// The value.
    pub payload: Payload,
}

impl Event {
    /// The operation that the line is about, if it is about one.
    #[must_use]
    pub fn op(&self) -> Option<&OpId> {
        match self {
            Self::StepScheduled(StepScheduled { op, .. })
            | Self::StepFinished(StepFinished { op, .. })
            | Self::StepAttemptFailed(StepAttemptFailed { op, .. })
            | Self::StepCheckpointed(StepCheckpointed { op, .. })
            | Self::StepFailed(StepFailed { op, .. })
            | Self::TimerArmed(TimerArmed { op, .. })
            | Self::TimerFired(TimerFired { op })
            | Self::SignalAwaited(SignalAwaited { op, .. })
            | Self::SignalsTaken(SignalsTaken { op, .. })
            | Self::SignalsChecked(SignalsChecked { op, .. })
            | Self::WaitWithdrawn(WaitWithdrawn { op })
            | Self::UndoPushed(UndoPushed { op, .. }) => Some(op),
            Self::RunQueued(_)
            | Self::RunStarted(_)
            | Self::ValuePublished(_)
            | Self::StreamAppended(_)
            | Self::MessageAdded(_)
            | Self::CallSuspended(_)
            | Self::CallSettled(_)
            | Self::UpdateAnswered(_)
            | Self::UndosForgotten(_)
            | Self::CancelRequested(_)
            | Self::RunCompleted(_)
            | Self::RunFailed(_)
            | Self::RunCancelled(_)
            | Self::RunTerminated(_) => None,
        }
    }

    /// The name that the line carries: of a step, a signal, a value, a stream or the workflow.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::RunQueued(RunQueued { workflow: name, .. })
            | Self::RunStarted(RunStarted { workflow: name, .. })
            | Self::StepScheduled(StepScheduled { name, .. })
            | Self::SignalAwaited(SignalAwaited { name, .. })
            | Self::SignalsChecked(SignalsChecked { name, .. })
            | Self::ValuePublished(ValuePublished { name, .. })
            | Self::StreamAppended(StreamAppended { stream: name, .. })
            | Self::MessageAdded(MessageAdded { id: name, .. })
            | Self::CallSuspended(CallSuspended { call: name, .. })
            | Self::CallSettled(CallSettled { call: name })
            | Self::UndoPushed(UndoPushed { name, .. }) => Some(name),
            _ => None,
        }
    }

    /// The value that the code gave with the line, if it gave one.
    #[must_use]
    pub fn given(&self) -> Option<&Payload> {
        match self {
            Self::StepScheduled(StepScheduled { input: value, .. })
            | Self::ValuePublished(ValuePublished { value, .. })
            | Self::UpdateAnswered(UpdateAnswered { reply: value, .. })
            | Self::CallSuspended(CallSuspended { value, .. })
            | Self::UndoPushed(UndoPushed { input: value, .. })
            | Self::RunCompleted(RunCompleted { output: value }) => Some(value),
            _ => None,
        }
    }

    /// Who writes such a line: the world, by what it delivers; the engine, for itself; or the code, by what it asks.
    #[must_use]
    pub fn role(&self) -> Role {
        match self {
            Self::RunStarted(_)
            | Self::StepFinished(_)
            | Self::StepFailed(_)
            | Self::TimerFired(_)
            | Self::SignalsTaken(_)
            | Self::CancelRequested(_) => Role::Delivered,
            Self::RunQueued(_) | Self::StepAttemptFailed(_) | Self::StepCheckpointed(_) | Self::RunTerminated(_) => {
                Role::Noted
            }
            Self::StepScheduled(_)
            | Self::TimerArmed(_)
            | Self::SignalAwaited(_)
            | Self::SignalsChecked(_)
            | Self::WaitWithdrawn(_)
            | Self::ValuePublished(_)
            | Self::StreamAppended(_)
            | Self::MessageAdded(_)
            | Self::CallSuspended(_)
            | Self::CallSettled(_)
            | Self::UpdateAnswered(_)
            | Self::UndoPushed(_)
            | Self::UndosForgotten(_)
            | Self::RunCompleted(_)
            | Self::RunFailed(_)
            | Self::RunCancelled(_) => Role::Asked,
        }
    }

    /// How the run ended, if the line says so.
    #[must_use]
    pub fn outcome(self) -> Option<Outcome> {
        match self {
            Self::RunCompleted(RunCompleted { output }) => Some(Outcome::Completed(output)),
            Self::RunFailed(RunFailed { failure }) => Some(Outcome::Failed(failure)),
            Self::RunCancelled(RunCancelled { reason, failure }) => Some(Outcome::Cancelled { reason, failure }),
            Self::RunTerminated(RunTerminated { reason, .. }) => Some(Outcome::Terminated { reason }),
            _ => None,
        }
    }

    /// Whether it is the last line of a journal.
    #[must_use]
    pub fn closes(&self) -> bool {
        matches!(self, Self::RunCompleted(_) | Self::RunFailed(_) | Self::RunCancelled(_) | Self::RunTerminated(_))
    }
}

/// What a line is to the workflow's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It was delivered to the code, which was then polled to rest.
    Delivered,
    /// The code asked for it while it was polled.
    Asked,
    /// The engine noted it; the code does not see it.
    Noted,
}

//! A run: what it is called, how it stands, and what may be asked of it at its start.
//!
//! ```text
//!            accept               claim, or a local start
//!   (nothing) ─────▶ Due ───────────────────────────────▶ Running ──▶ Completed │ Failed │ Cancelled
//!                     ▲                                    │   ▲
//!                     │ a signal, a timer                  ▼   │ claim, or its live future goes on
//!                     └───────────────────────────────── Waiting
//!   Due, Running ──▶ Blocked ──▶ Due when the cause is gone        any open one ──▶ Terminated
//! ```

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Instant;
use crate::id::{Namespace, RunId, RunKey, ThreadKey, WorkerKey};
use crate::payload::Payload;

/// How a run stands. A variant carries exactly what that state has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Nobody has it; any worker may claim it from `at` on.
    Due {
        /// The earliest time.
        at: Instant,
    },
    /// A worker has it: a body runs, or is about to.
    Running {
        /// Who.
        worker: WorkerKey,
    },
    /// Nobody has it, and there is nothing to do before a signal arrives or `wake_at` comes.
    Waiting {
        /// Its earliest timer; none if it waits for signals alone.
        wake_at: Option<Instant>,
    },
    /// A person or a deploy is needed; it goes on when the cause is gone.
    Blocked {
        /// The cause.
        reason: BlockReason,
    },
    /// Ended.
    Closed {
        /// How.
        how: Closed,
        /// When.
        at: Instant,
    },
}

/// How a closed run ended; what it ended with is the last line of its journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closed {
    /// The workflow returned a value.
    Completed,
    /// The workflow returned an error.
    Failed,
    /// It was asked to cancel and wound up.
    Cancelled,
    /// It was stopped without cleaning up.
    Terminated,
}

impl Closed {
    /// The status word, as in the store and in `--json`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Terminated => "terminated",
        }
    }

    /// Reads a status word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Completed, Self::Failed, Self::Cancelled, Self::Terminated].into_iter().find(|c| c.word() == word)
    }
}

impl Status {
    /// The status word, as in the store and in `--json`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Due { .. } => "due",
            Self::Running { .. } => "running",
            Self::Waiting { .. } => "waiting",
            Self::Blocked { .. } => "blocked",
            Self::Closed { how, .. } => how.word(),
        }
    }

    /// Whether the run may still go on.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self, Self::Closed { .. })
    }
}

/// Why a run cannot go on by itself. Nothing was written to its journal; it goes on when the cause is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockReason {
    /// The code asks for something else than the journal holds (engine-expectations 8).
    Mismatch(String),
    /// No worker here knows the workflow or its version.
    Unregistered(String),
    /// The workflow's code panicked.
    Panicked(String),
    /// A recorded value does not fit the code's type.
    Undecodable(String),
    /// A value that the code gives is over the limit.
    TooLarge(String),
    /// The code awaits a timer, channel or task that is not the engine's.
    ForeignWait(String),
    /// The journal contradicts itself.
    Corrupt(String),
}

impl BlockReason {
    /// A stable word for the kind of cause.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Mismatch(_) => "mismatch",
            Self::Unregistered(_) => "unregistered",
            Self::Panicked(_) => "panicked",
            Self::Undecodable(_) => "undecodable",
            Self::TooLarge(_) => "too_large",
            Self::ForeignWait(_) => "foreign_wait",
            Self::Corrupt(_) => "corrupt",
        }
    }
}

impl fmt::Display for BlockReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch(text)
            | Self::Unregistered(text)
            | Self::Panicked(text)
            | Self::Undecodable(text)
            | Self::TooLarge(text)
            | Self::ForeignWait(text)
            | Self::Corrupt(text) => f.write_str(text),
        }
    }
}

/// A run as the store's row tells it: everything but its journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its key inside the store.
    pub key: RunKey,
    /// Its namespace.
    pub namespace: Namespace,
    /// What the outside calls it.
    pub id: RunId,
    /// The workflow's written name.
    pub workflow: String,
    /// The workflow's version that it runs on.
    pub version: u32,
    /// The thread that it answers, if it is a turn.
    pub thread: Option<ThreadKey>,
    /// How it stands.
    pub status: Status,
    /// The fence of its latest owner.
    pub fence: crate::id::Fence,
    /// The last line of its journal.
    pub head: crate::id::Seq,
    /// How many signals were accepted for it so far.
    pub signals_accepted: i64,
    /// How many of them wait to be taken.
    pub signals_pending: i64,
    /// When it was accepted.
    pub created_at: Instant,
    /// When its row last changed.
    pub updated_at: Instant,
}

impl Run {
    /// Its row as one object, for programs: what `aldis runs --json` prints.
    #[must_use]
    pub fn summary(&self) -> Value {
        let mut object = json!({
            "id": self.id,
            "namespace": self.namespace,
            "workflow": self.workflow,
            "version": self.version,
            "status": self.status.word(),
            "events": self.head,
            "signals_pending": self.signals_pending,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        });
        match &self.status {
            Status::Blocked { reason } => {
                object["blocked"] = json!({ "code": reason.code(), "reason": reason.to_string() });
            }
            Status::Waiting { wake_at: Some(at) } | Status::Due { at } => object["next_wake"] = json!(at),
            Status::Closed { at, .. } => object["closed_at"] = json!(at),
            Status::Waiting { wake_at: None } | Status::Running { .. } => {}
        }
        object
    }
}

/// What to do when the id of a new run belongs to an open run (engine-expectations 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IfOpen {
    /// Refuse.
    #[default]
    Fail,
    /// Return the open run.
    UseExisting,
    /// Stop the open run without cleanup and start the new one.
    TerminateAndStart,
    /// Give the open run the signals that came with the start, and return it.
    SignalExisting,
}

/// What to do when the id of a new run belongs to a closed run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IfClosed {
    /// Start anew under the same id.
    #[default]
    Allow,
    /// Start anew only if the closed run failed, was cancelled or was terminated.
    AllowIfFailed,
    /// Refuse.
    Refuse,
}

/// A key under which a start is done once, apart from the run's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The key; unique per namespace while it is kept.
    pub key: String,
    /// How long it is kept.
    pub kept: KeyKept,
}

/// How long an idempotency key is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKept {
    /// For this long after the start.
    For(Duration),
    /// For as long as the run that it started is open.
    WhileOpen,
}

/// What a caller may ask of a start.
#[derive(Debug, Clone, Default)]
pub struct StartOptions {
    /// The run's id; a UUIDv7 if none.
    pub id: Option<RunId>,
    /// The namespace.
    pub namespace: Namespace,
    /// If the id belongs to an open run.
    pub if_open: IfOpen,
    /// If the id belongs to a closed run.
    pub if_closed: IfClosed,
    /// A repeat with the same key returns the first run.
    pub idempotency_key: Option<IdempotencyKey>,
    /// Not before this time.
    pub not_before: Option<Instant>,
    /// The run is asked to cancel at this time if it is still open.
    pub deadline: Option<Instant>,
    /// Signals accepted together with the start: name, sender's id, value.
    pub signals: Vec<(String, Option<String>, Payload)>,
}

//! Signals as values: what is sent to a run, and what becomes of it at acceptance.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::Instant;
use crate::payload::Payload;

/// What kind of arrival it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalKind {
    /// A value for the workflow.
    Signal,
    /// A value that the workflow answers.
    Update,
    /// A request to cancel; its payload is a [`CancelRequest`].
    Cancel,
}

impl SignalKind {
    /// The word in the store.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Update => "update",
            Self::Cancel => "cancel",
        }
    }

    /// Reads the word in the store.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Signal, Self::Update, Self::Cancel].into_iter().find(|k| k.word() == word)
    }
}

/// A request to cancel a run, recorded once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequest {
    /// Why.
    pub reason: String,
    /// Who asked.
    pub by: String,
}

/// An accepted signal that its run has not taken yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its place in the order of acceptance at its run; grows, with gaps.
    pub ordinal: i64,
    /// What it is.
    pub kind: SignalKind,
    /// Its name.
    pub name: String,
    /// The sender's id, or one made at acceptance.
    pub id: String,
    /// The value.
    pub payload: Payload,
    /// When it was accepted.
    pub accepted_at: Instant,
}

/// What became of a signal at the door (engine-expectations 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Accepted {
    /// It is durable and will be taken in this order.
    New {
        /// Its place in the order of acceptance at its run.
        ordinal: i64,
    },
    /// The sender's id was accepted before: nothing was added.
    Already {
        /// The place it got then.
        ordinal: i64,
    },
}

impl Accepted {
    /// The place in the order of acceptance.
    #[must_use]
    pub fn ordinal(self) -> i64 {
        match self {
            Self::New { ordinal } | Self::Already { ordinal } => ordinal,
        }
    }
}

/// Why a signal was not accepted. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such run.
    #[error("no run {run} here; see `aldis runs`")]
    UnknownRun {
        /// The id as given.
        run: String,
    },
    /// The run has ended.
    #[error("run {run} is {status} and takes no more signals")]
    ClosedRun {
        /// The id as given.
        run: String,
        /// How it ended.
        status: String,
    },
    /// Too many signals wait at the run. The same signal may be sent again later.
    #[error("run {run} has {pending} signals pending, the limit is {limit}; send it again once some were taken")]
    TooManyPending {
        /// The id as given.
        run: String,
        /// How many wait.
        pending: i64,
        /// The most that may wait.
        limit: i64,
    },
}

impl fmt::Display for SignalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

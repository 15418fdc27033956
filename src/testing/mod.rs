//! For whoever tests workflows: an engine on a store of its own, with time that moves by hand; a harness that crashes
//! it at every write; and the invariants that every history keeps.
//!
//! [`TestKit`] runs workflows: steps may be mocked by name, signals scripted, time advanced; every commit is checked by
//! replaying its run. [`Crash`] plays a scenario once for every write it makes and every way in which that write can go
//! wrong, and demands the same end. [`history`] states what must hold of any run. [`replays`] holds the code against
//! recorded histories.
//!
//! Uses the public face and the store; never sleeps: it waits until the engine rests, then moves the clock.

mod crash;
mod database;
mod effects;
pub mod history;
mod kit;
mod redact;
mod replays;
mod script;
mod setup;

pub use crash::{Crash, Crashed, Survived, World};
pub use database::Database;
pub use effects::{Attempts, Ledger};
pub use kit::TestKit;
pub use redact::Redact;
pub use replays::replays;
pub use setup::Setup;

use crate::runtime;
use crate::store;

/// Why a test could not go on, or what it found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Aldis itself refused or failed.
    #[error(transparent)]
    Aldis(#[from] runtime::Error),
    /// A scratch database could not be had.
    #[error(transparent)]
    Database(#[from] database::DatabaseError),
    /// A run was to end, and needs a person or a deploy instead.
    #[error("run {run} was to end, but it is blocked: {reason}")]
    Blocked {
        /// The run.
        run: String,
        /// Why.
        reason: String,
    },
    /// A run was to end, and waits for something that nobody is going to do.
    #[error(
        "run {run} was to end, but it is {status} and nothing is going to happen; it waits for {waits_for}: send it, or script it"
    )]
    Stuck {
        /// The run.
        run: String,
        /// How it stands.
        status: &'static str,
        /// What it waits for.
        waits_for: String,
    },
    /// Time was moved on and on, and there was always something more.
    #[error(
        "nothing came to rest although the clock was moved {moves} times, up to {at}; use `advance` for workflows that go on for ever"
    )]
    Restless {
        /// How often the clock was moved.
        moves: usize,
        /// Where it stands now.
        at: crate::clock::Instant,
    },
    /// Something does not hold that must.
    #[error("{}", problems.join("\n"))]
    Broken {
        /// Each in a sentence.
        problems: Vec<String>,
    },
    /// A recorded history could not be read, or the code does not agree with it.
    #[error("recorded history {file}: {problem}")]
    Recorded {
        /// The file.
        file: String,
        /// What is wrong.
        problem: String,
    },
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Aldis(error.into())
    }
}

impl From<crate::payload::Unencodable> for Error {
    fn from(error: crate::payload::Unencodable) -> Self {
        Self::Aldis(error.into())
    }
}

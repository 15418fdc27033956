//! Measures what a store and the engine on it can do, so that users can size their database and we can be compared.
//!
//! Every shape is measured beside the *limit*: the same logical commits, from as many tasks, through the same
//! [`Store::commit`](crate::store::Store::commit) with nothing around it, in the same call, on the same kind of fresh
//! store. Absolute figures drift with the machine; the share of the limit is what can be compared.
//!
//! Its workflows and senders use the public face only. Never touches a store that somebody uses: each measurement has a
//! fresh SQLite file, or a fresh schema on the Postgres server, and removes it afterwards.

mod fanout;
mod growth;
mod limit;
mod measure;
mod parked;
mod place;
mod replay;
mod report;
mod sequence;
mod signals;
mod turns;
mod workflows;

use std::ffi::OsString;
use std::sync::Arc;

pub use parked::{Resumed, resume};
pub use report::Report;

use crate::{runtime, store};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The store's writer with nothing around it.
    Limit,
    /// Runs of so many sequential steps.
    Seq,
    /// One run at a time: start, one step, result.
    Latency,
    /// Runs that start, wait, are signalled and finish.
    Signal,
    /// Many waiting runs, a new process, a signal for each.
    Await,
    /// One run with many parallel steps.
    Fanout,
    /// Journals read and replayed.
    Replay,
    /// One long run: whether a late step costs more than an early one.
    Growth,
    /// Messages to threads, each answered by an agent.
    Turn,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Limit,
        Self::Seq,
        Self::Latency,
        Self::Signal,
        Self::Await,
        Self::Fanout,
        Self::Replay,
        Self::Growth,
        Self::Turn,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Seq => "seq",
            Self::Latency => "latency",
            Self::Signal => "signal",
            Self::Await => "await",
            Self::Fanout => "fanout",
            Self::Replay => "replay",
            Self::Growth => "growth",
            Self::Turn => "turn",
        }
    }

    /// The shape of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.name() == name)
    }
}

/// Told what is being done, how much of it, and out of how much.
pub type Progress = Arc<dyn Fn(&str, u64, u64) + Send + Sync>;

/// How much is measured, and where.
#[derive(Clone)]
pub struct Config {
    /// `sqlite://path`: fresh files beside this one; `postgres://…`: fresh schemas in this database; none: SQLite files
    /// in the system's directory for temporary files.
    pub store: Option<String>,
    /// How many runs.
    pub runs: usize,
    /// How many steps a run has.
    pub steps: u32,
    /// How many runs or senders are under way at the same time.
    pub in_flight: usize,
    /// How many runs wait before the first is signalled.
    pub parked: usize,
    /// How many messages a long history has.
    pub history: usize,
    /// How many steps are parallel.
    pub width: u32,
    /// How often shape and limit are measured, by turns; the median counts.
    pub rounds: usize,
    /// The arguments with which this program, started again, calls [`resume`]; needed for [`Shape::Await`].
    pub again: Vec<OsString>,
    /// Who is told how far it is.
    pub progress: Progress,
}

impl Config {
    /// What is measured of a shape unless somebody says otherwise.
    #[must_use]
    pub fn of(shape: Shape) -> Self {
        let one_at_a_time = matches!(shape, Shape::Latency | Shape::Fanout | Shape::Growth | Shape::Replay);
        Self {
            store: None,
            runs: match shape {
                Shape::Latency => 500,
                Shape::Fanout | Shape::Growth => 1,
                Shape::Replay => 20,
                Shape::Limit | Shape::Seq | Shape::Signal | Shape::Await | Shape::Turn => 2_000,
            },
            steps: match shape {
                Shape::Latency => 1,
                Shape::Growth => 10_000,
                Shape::Replay => 1_000,
                _ => 5,
            },
            in_flight: if one_at_a_time { 1 } else { 64 },
            parked: 10_000,
            history: 100_000,
            width: 1_000,
            rounds: 3,
            again: Vec::new(),
            progress: Arc::new(|_, _, _| {}),
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The store's address may hold a password.
        f.debug_struct("Config").field("runs", &self.runs).field("steps", &self.steps).finish_non_exhaustive()
    }
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime refused or failed.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A fresh store could not be made or removed.
    #[error("a store for the measurement at {location} could not be {what}")]
    Place {
        /// Where.
        location: String,
        /// made, or removed.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A commit that must be applied was refused.
    #[error("the store refused a commit of the measurement: {0}")]
    Refused(store::Refusal),
    /// A task of the measurement ended early.
    #[error("a task of the measurement ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// The second process did not do its part.
    #[error("the process that was to take over did not: {0}")]
    Again(String),
    /// The measurement was asked for nothing.
    #[error("{what} is 0: there is nothing to measure; give at least 1")]
    Nothing {
        /// Which number.
        what: &'static str,
    },
}

/// Measures a shape.
///
/// # Errors
/// [`Error`] says what failed; the stores it made are removed all the same.
pub async fn run(shape: Shape, config: &Config) -> Result<Report, Error> {
    let numbers = [
        ("--runs", config.runs),
        ("--steps", config.steps as usize),
        ("--in-flight", config.in_flight),
        ("--parked", config.parked),
        ("--history", config.history),
        ("--width", config.width as usize),
        ("--rounds", config.rounds),
    ];
    if let Some((what, _)) = numbers.into_iter().find(|(_, number)| *number == 0) {
        return Err(Error::Nothing { what });
    }
    match shape {
        Shape::Limit => limit::shape(config).await,
        Shape::Seq | Shape::Latency => sequence::shape(shape, config).await,
        Shape::Signal => signals::shape(config).await,
        Shape::Await => parked::shape(config).await,
        Shape::Fanout => fanout::shape(config).await,
        Shape::Replay => replay::shape(config).await,
        Shape::Growth => growth::shape(config).await,
        Shape::Turn => turns::shape(config).await,
    }
}

//! For whoever tests workflows: an engine on a store of its own, with time that moves by hand; a harness that crashes
//! it at every write; and the invariants that every history keeps.
//!
//! [`TestKit`] runs workflows: steps may be mocked by name, signals scripted, time advanced; every commit is checked by
//! replaying its run. [`Crash`] plays a scenario once for every write it makes and every way in which that write can go
//! wrong, and demands the same end. [`history`] states what must hold of any run. [`replays`] holds the code against
//! recorded histories.
//!
//! ```
//! use std::time::Duration;
//!
//! use aldis::testing::{Crash, Error, TestKit};
//! use aldis::{Context, Failure, Signal, Step, Workflow};
//!
//! const CHARGE: Step<u32, String> = Step::new("charge").attempts(3);
//! const APPROVAL: Signal<bool> = Signal::new("approval");
//!
//! async fn order(cx: Context, cents: u32) -> Result<String, Failure> {
//!     let receipt = cx.step(&CHARGE, cents, |_, _| async { Err::<String, _>(Failure::new("no bank here")) }).await?;
//!     cx.sleep(Duration::from_secs(86_400)).await?;
//!     Ok(if cx.signal(&APPROVAL).await? { receipt } else { "declined".into() })
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Error> {
//! let setup = TestKit::sqlite()
//!     .workflow(Workflow::new("order", order))
//!     .mock(&CHARGE, |_, cents| async move { Ok(format!("receipt over {cents}")) });
//!
//! // A day passes in no time, and the signal comes when the run waits for it.
//! let kit = setup.clone().start().await?;
//! let run = kit.run("order", &4_200).await?;
//! kit.signal_when_awaited(&run, &APPROVAL, &true)?;
//! let ended = kit.run_to_end(&run).await?;
//! assert_eq!(format!("{:?}", ended.outcome), r#"Completed("receipt over 4200")"#);
//! kit.finish().await?;
//!
//! // The same through a crash before, at and after every write.
//! let survived = Crash::of(|_| setup.clone())
//!     .survives(async |world| {
//!         world.start("order-7", "order", &4_200).await?;
//!         world.signal("order-7", "approval-1", &APPROVAL, &true).await?;
//!         world.output::<String>("order-7").await
//!     })
//!     .await?;
//! assert_eq!(survived.value, "receipt over 4200");
//! # Ok(())
//! # }
//! ```
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

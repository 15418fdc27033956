//! The door in: checks what arrives and has the store accept it, durably, before the sender is told yes.
//!
//! Knows the schemas of every workflow: those of this program's registry, and those that other programs have declared in
//! the store, so that a process without the code can check as well. Never advances a run: engine and door meet at the store,
//! which takes what an engine foresees of a turn together with the input that begins it.

mod catalogue;
mod direct;
mod edit;
mod known;
mod signal;
mod start;
mod thread;

use std::sync::Arc;

pub use catalogue::CatalogueError;
pub use direct::{Direct, call_results};
pub use edit::Edit;
pub(crate) use signal::To;
pub use signal::{InvalidName, Send, SignalError};
pub use start::{Asked, StartError};
pub use thread::{InputError, SendOptions, To as ToThread};

use crate::clock::Clock;
use crate::payload::PAYLOAD_BYTES_MAX;
use crate::store::Store;
use crate::workflow::Registry;
use catalogue::Catalogue;
use known::KnownThreads;

/// What is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes that an input, a signal or an update may have.
    pub payload_bytes_max: usize,
    /// The most signals that may be pending at one run; more are refused until some were taken.
    pub pending_max: u32,
    /// How large a signal to a thread may be.
    pub signals: crate::message::Limits,
    /// How many turns of a thread may follow each other without an idle moment (T10.8).
    pub follow_ups_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            pending_max: 10_000,
            signals: crate::message::Limits::default(),
            follow_ups_max: 100,
        }
    }
}

/// The door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Door {
    store: Store,
    clock: Clock,
    limits: Limits,
    catalogue: Arc<Catalogue>,
    threads: Arc<KnownThreads>,
}

impl Door {
    /// A door to a store, which knows these workflows itself.
    #[must_use]
    pub fn new(store: Store, registry: Registry, clock: Clock, limits: Limits) -> Self {
        Self { store, clock, limits, catalogue: Arc::new(Catalogue::new(registry)), threads: Arc::default() }
    }
}

//! What a turn asks for first is found out before it has begun, so that it is written in the commit that begins it: the turn
//! is under way the moment its message is accepted.
//!
//! Nothing is done here that could be seen outside: the code is shown its beginning in memory, as a replay would. If the
//! message begins no turn after all, or not this worker's, it is dropped and the turn takes the ordinary way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::Engine;
use super::live::{Batch, Live};
use crate::id::{ThreadKey, WorkerKey};
use crate::store::{Commit, First, Foresee, History, Leaves};

/// A run whose first commit was made, and is in flight.
pub(super) struct Foreseen {
    pub(super) live: Box<Live>,
    pub(super) batch: Batch,
}

impl Foreseen {
    /// What is held beside a commit that was written; it is there once.
    pub(super) fn of(first: &First) -> Option<Self> {
        let held = first.held.downcast_ref::<Mutex<Option<Self>>>()?;
        held.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Foresee for Engine {
    fn worker(&self) -> WorkerKey {
        self.shared.worker()
    }

    fn foresee(&self, thread: ThreadKey, history: History) -> Option<First> {
        let (foreseen, commit) = self.foreseen(history)?;
        Some(First { thread, commit: Arc::new(commit), held: Arc::new(Mutex::new(Some(foreseen))) })
    }
}

impl Engine {
    /// None if the code cannot be shown its beginning, or would not be under way with it: that is told in the run's own
    /// journal once it has begun.
    fn foreseen(&self, history: History) -> Option<(Foreseen, Commit)> {
        let shared = &self.shared;
        let (run, now, build) = (&history.run, shared.clock.now(), shared.options.build.clone());
        let workflow = shared.registry.version(&run.workflow, run.version).ok()?;
        let tell = shared.teller(run.key);
        let (mut live, mut batch) = Live::revive(history, &workflow, &build, false, tell).ok()?;
        live.payload_bytes_max = shared.options.payload_bytes_max;
        let started = live.queued_start(build);
        live.deliver_start(&mut batch, started, None, now).ok()?;
        live.pump(&mut batch, &mut VecDeque::new(), now).ok()?;
        let commit = live.seal(&mut batch, shared.worker(), now);
        let goes_on = matches!(commit.leaves, Leaves::Running(_));
        goes_on.then(|| (Foreseen { live: Box::new(live), batch }, commit))
    }
}

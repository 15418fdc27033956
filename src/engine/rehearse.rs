//! Replays a journal against the code without effects: for people who ask, and as the shadow of commits in tests.

use std::sync::{Arc, PoisonError};

use super::Shared;
use super::activity::Busy;
use super::live::Live;
use crate::id::{RunKey, Seq};
use crate::run::{BlockReason, Run};
use crate::store::History;
use crate::workflow::{Registry, UnknownWorkflow};

/// A journal that the code agrees with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rehearsed {
    /// The last line of the journal; every line up to it was compared.
    pub head: Seq,
    /// How many lines the code would add at once if the run went on now.
    pub ahead: usize,
}

/// Why a journal could not be replayed to its end. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Diverged {
    /// The code's workflow or version is not registered here.
    #[error(transparent)]
    Unregistered(#[from] UnknownWorkflow),
    /// The code does not do what the journal says.
    #[error("{0}")]
    Blocked(BlockReason),
}

/// Runs the code against a journal and compares each command. No body runs and nothing is written.
///
/// With `values`, the recorded inputs and outcomes must be the same too; without, kind, name and place.
///
/// # Errors
/// [`Diverged`] names the first line that does not agree.
pub fn rehearse(history: History, registry: &Registry, build: &str, values: bool) -> Result<Rehearsed, Diverged> {
    let Run { workflow, version, head, .. } = history.run.clone();
    let workflow = registry.version(&workflow, version)?;
    let (_live, batch) = Live::revive(history, &workflow, build, values, Box::new(|| {})).map_err(Diverged::Blocked)?;
    Ok(Rehearsed { head, ahead: batch.len() })
}

/// Replays a run as it stands in the store, and keeps what does not agree for whoever runs the tests.
pub(super) async fn shadow(shared: Arc<Shared>, run: RunKey, busy: Busy) {
    let problem = match shared.store.history(&[run]).await.map(|mut histories| histories.pop()) {
        Ok(Some(Ok(history))) => {
            let id = history.run.id.clone();
            rehearse(history, &shared.registry, &shared.options.build, true)
                .err()
                .map(|e| format!("shadow replay of run {id}: {e}"))
        }
        Ok(Some(Err(unreadable))) => Some(format!("shadow replay of run {}: {unreadable}", unreadable.run.id)),
        Ok(None) => None,
        // The commit is durable; only this check could not be made.
        Err(e) => {
            tracing::warn!(error = &e as &dyn std::error::Error, "a shadow replay could not read its run");
            None
        }
    };
    if let Some(problem) = problem {
        tracing::error!("{problem}");
        shared.shadow_failures.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
    }
    drop(busy);
}

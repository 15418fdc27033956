//! Starts, at the door: checked, then written as queued runs that any worker may claim.

use std::sync::Arc;

use super::catalogue::Known;
use super::signal::check_name;
use super::{CatalogueError, Door, InvalidName};
use crate::id::{Fence, RunId, RunKey, Seq};
use crate::journal::{Event, RunQueued};
use crate::payload::{Payload, TooLarge};
use crate::run::{IfClosed, IfOpen, StartOptions};
use crate::signal::SignalKind;
use crate::store::{self, Addressee, CallerTx, Commit, Leaves, Lines, NewRun, Start, StartRefused, Started};
use crate::workflow::{InvalidPayload, Registered};

/// Why a run was not started. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The workflow is not known, or its schemas cannot be used.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The input, or a signal that came with it, does not match its schema.
    #[error(transparent)]
    Invalid(#[from] InvalidPayload),
    /// The input, or a signal that came with it, is too large.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// A signal that came with it has an unusable name or id.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The id is in use, and the caller's policy says to refuse then.
    #[error(transparent)]
    Refused(#[from] StartRefused),
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// A start that passed the checks.
#[derive(Debug)]
pub struct Asked {
    /// The row that it would get.
    pub new: NewRun,
    pub(crate) known: Known,
    pub(crate) input: Payload,
    options: StartOptions,
}

impl Asked {
    /// The workflow's code, if this program has it and the start asks for nothing that only the store can decide.
    pub(crate) fn begins_here(&self) -> Option<&Arc<Registered>> {
        let options = &self.options;
        let plain = options.if_open == IfOpen::Fail
            && options.if_closed == IfClosed::Allow
            && options.idempotency_key.is_none()
            && options.not_before.is_none()
            && options.signals.is_empty();
        match &self.known {
            Known::Here(registered) if plain => Some(registered),
            _ => None,
        }
    }

    /// When the run is asked to cancel.
    pub(crate) fn deadline(&self) -> Option<crate::clock::Instant> {
        self.options.deadline
    }
}

impl Door {
    /// Checks a start; `key` is the run's key, from a block that this process reserved.
    ///
    /// # Errors
    /// [`StartError`] for a workflow that is not known, an input that does not match or is too large.
    pub async fn check(
        &self,
        key: RunKey,
        workflow: &str,
        input: Payload,
        mut options: StartOptions,
    ) -> Result<Asked, StartError> {
        let known = self.catalogue.newest(&self.store, workflow).await?;
        let id = options.id.take().unwrap_or_else(RunId::generate);
        let input = input.within(self.limits.payload_bytes_max, || format!("the input of run {id}"))?;
        known.check_input(&input)?;
        for (name, signal_id, payload) in &options.signals {
            check_name("signal name", name)?;
            signal_id.as_deref().map_or(Ok(()), |id| check_name("signal id", id))?;
            payload
                .clone()
                .within(self.limits.payload_bytes_max, || format!("signal {name:?} that comes with run {id}"))?;
            known.check_signal(name, payload)?;
        }
        let new = NewRun {
            key,
            namespace: options.namespace.clone(),
            id,
            workflow: workflow.to_owned(),
            version: known.version(),
            thread: None,
        };
        Ok(Asked { new, known, input, options })
    }

    /// Has the store accept a start; a worker that knows the workflow claims it.
    ///
    /// # Errors
    /// [`StartError`]; nothing was written.
    pub async fn start(&self, asked: Asked, by: &str) -> Result<(RunKey, Started), StartError> {
        Ok(self.store.start(self.queued(asked, by)).await??)
    }

    /// Has the store accept many starts by few writes; each has its own answer.
    ///
    /// # Errors
    /// If the store could not take them; then some may have been written. Starts with ids or idempotency keys may be
    /// sent again.
    pub async fn start_many(
        &self,
        asked: Vec<Asked>,
        by: &str,
    ) -> Result<Vec<Result<(RunKey, Started), StartRefused>>, store::Error> {
        self.store.start_many(asked.into_iter().map(|asked| self.queued(asked, by)).collect()).await
    }

    /// Starts inside the caller's own transaction: the run exists if that is committed.
    ///
    /// # Errors
    /// [`StartError`]; nothing was written, and the transaction can go on.
    pub async fn start_in(&self, tx: CallerTx<'_>, asked: Asked, by: &str) -> Result<(RunKey, Started), StartError> {
        let start = self.queued(asked, by);
        Ok(self.store.start_in(tx, start).await??)
    }

    fn queued(&self, asked: Asked, by: &str) -> Start {
        let Asked { new, input, options, .. } = asked;
        let at = self.clock.now();
        let mut lines = Lines::default();
        let queued = RunQueued {
            run: new.id.clone(),
            workflow: new.workflow.clone(),
            version: new.version,
            seed: uuid::Uuid::new_v4(),
            input,
            deadline: options.deadline,
        };
        lines.push(at, &Event::RunQueued(queued));
        let to = Addressee::Key(new.key);
        let signals = options.signals.into_iter();
        let signals = signals
            .map(|(name, id, payload)| self.arrival(to.clone(), SignalKind::Signal, name, id, payload))
            .collect();
        let leaves = Leaves::Due { at: options.not_before.map_or(at, |not_before| not_before.max(at)) };
        Start {
            commit: Commit {
                begins: Some(Box::new(new.clone())),
                lines,
                // Nobody owns it yet: the first claim makes it the first fence.
                ..Commit::new(new.key, Fence(0), Seq::NONE, leaves, at)
            },
            if_open: options.if_open,
            if_closed: options.if_closed,
            idempotency_key: options.idempotency_key,
            signals,
            by: by.to_owned(),
        }
    }
}

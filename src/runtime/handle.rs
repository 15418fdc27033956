//! One run, from outside: its outcome, its journal, and what may be sent to it.

use std::time::Duration;

use futures::FutureExt;
use futures::future::Shared;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::client::Client;
use super::show::{self, Shown};
use super::{Error, ExportedRun};
use crate::failure::{Failure, Outcome};
use crate::id::{Namespace, RunId, RunKey};
use crate::intake::{Send, SignalError};
use crate::journal::{Event, Recorded};
use crate::payload::Payload;
use crate::run::{BlockReason, Run, Status};
use crate::signal::{Accepted, CancelRequest, SignalKind};
use crate::store::{self, History, Read};
use crate::workflow::{Published, Signal, Stream, Update};

/// How often a run of another process is looked at by who waits for it.
const POLL: Duration = Duration::from_millis(100);

/// A run. Cheap to clone; it is this run, whatever begins under its id later.
#[derive(Debug, Clone)]
pub struct RunHandle {
    client: Client,
    key: RunKey,
    namespace: Namespace,
    id: RunId,
    workflow: String,
    version: u32,
    /// Tells the outcome without a read, if the run ends while this process holds it.
    here: Option<Here>,
}

type Here = Shared<oneshot::Receiver<Outcome>>;

/// How a run ended, and what it left unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub outcome: Outcome,
    /// How many signals it never took.
    pub signals_unread: i64,
}

/// A run that does not go on by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It has ended.
    Ended(Ended),
    /// A person or a deploy is needed; it may go on later.
    Blocked(BlockReason),
}

impl RunHandle {
    pub(super) fn new(
        client: Client,
        key: RunKey,
        namespace: Namespace,
        id: RunId,
        workflow: String,
        version: u32,
    ) -> Self {
        Self { client, key, namespace, id, workflow, version, here: None }
    }

    /// A run that this process has begun.
    pub(super) fn ending_here(self, end: oneshot::Receiver<Outcome>) -> Self {
        Self { here: Some(end.shared()), ..self }
    }

    pub(super) fn of(client: Client, run: &Run) -> Self {
        Self::new(client, run.key, run.namespace.clone(), run.id.clone(), run.workflow.clone(), run.version)
    }

    /// What the outside calls it.
    #[must_use]
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its key inside the store.
    #[must_use]
    pub fn key(&self) -> RunKey {
        self.key
    }

    fn store(&self) -> &store::Store {
        &self.client.inner.store
    }

    fn unknown(&self) -> Error {
        Error::UnknownRun { run: self.id.to_string() }
    }

    // Its end.

    /// Waits until the run has ended, wherever it runs.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn outcome(&self) -> Result<Ended, Error> {
        if let Some(outcome) = self.ended_here().await {
            return Ok(Ended { outcome, signals_unread: self.row().await?.signals_pending });
        }
        loop {
            let (settled, ended) = self.look().await?;
            match settled {
                Some(Settled::Ended(ended)) => return Ok(ended),
                _ => drop(self.pause(ended).await),
            }
        }
    }

    /// Waits until the run has ended, or is blocked and needs somebody.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn settled(&self) -> Result<Settled, Error> {
        if let Some(outcome) = self.ended_here().await {
            return Ok(Settled::Ended(Ended { outcome, signals_unread: self.row().await?.signals_pending }));
        }
        loop {
            match self.look().await? {
                (Some(settled), _) => return Ok(settled),
                (None, ended) => drop(self.pause(ended).await),
            }
        }
    }

    /// Waits for the run's value.
    ///
    /// # Errors
    /// [`Error::Ended`] if it did not complete; [`Error::Undecodable`] if the value does not fit.
    pub async fn result<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let ended = |status, failure| Error::Ended { run: self.id.to_string(), status, failure };
        let outcome = match self.ended_here().await {
            Some(outcome) => outcome,
            None => self.outcome_alone().await?,
        };
        match outcome {
            Outcome::Completed(output) => self.read(&output, || format!("the output of run {}", self.id)),
            Outcome::Failed(failure) => Err(ended("failed", failure)),
            Outcome::Cancelled { reason, .. } => Err(ended("was cancelled", Failure::new(reason))),
            Outcome::Terminated { reason } => Err(ended("was terminated", Failure::new(reason))),
        }
    }

    /// Waits for how the run ended, and no more: its writer in this process tells it without a read.
    async fn outcome_alone(&self) -> Result<Outcome, Error> {
        loop {
            let (settled, bell) = self.look().await?;
            match settled {
                Some(Settled::Ended(ended)) => return Ok(ended.outcome),
                _ => {
                    if let Some(outcome) = self.pause(bell).await {
                        return Ok(outcome);
                    }
                }
            }
        }
    }

    /// Waits for the run's end in this process. None if it does not end here: it was let go, or another one ended it.
    async fn ended_here(&self) -> Option<Outcome> {
        let here = self.here.clone()?;
        loop {
            tokio::select! {
                biased;
                outcome = here.clone() => return outcome.ok(),
                () = self.client.inner.clock.sleep(POLL) => {}
            }
            match self.store().get(self.key).await {
                Ok(Some(run))
                    if matches!(run.status, Status::Due { .. } | Status::Running { .. } | Status::Waiting { .. }) => {}
                // Ended or blocked elsewhere, or unreadable: the caller looks for itself and says so.
                _ => return here.now_or_never().and_then(Result::ok),
            }
        }
    }

    /// How it stands, and a bell that rings when that changes for good in this process.
    async fn look(&self) -> Result<(Option<Settled>, oneshot::Receiver<Option<Outcome>>), Error> {
        // The bell first: what ends after it is heard, what ended before it is seen.
        let bell = self.store().watch_outcome(self.key).await;
        let run = self.store().get(self.key).await?.ok_or_else(|| self.unknown())?;
        let settled = match run.status {
            Status::Closed { .. } => Some(Settled::Ended(self.ended(run.signals_pending).await?)),
            Status::Blocked { reason } => Some(Settled::Blocked(reason)),
            Status::Due { .. } | Status::Running { .. } | Status::Waiting { .. } => None,
        };
        Ok((settled, bell))
    }

    /// Waits until the run may have changed; returns how it ended, if the writer in this process has told.
    async fn pause(&self, bell: oneshot::Receiver<Option<Outcome>>) -> Option<Outcome> {
        tokio::select! {
            told = bell => told.ok().flatten(),
            () = self.client.inner.clock.sleep(POLL) => None,
        }
    }

    async fn ended(&self, signals_unread: i64) -> Result<Ended, Error> {
        let last = self.store().outcome(self.key).await?;
        let outcome = last.and_then(|line| line.event.outcome()).ok_or_else(|| {
            let found = format!("run {} is closed, but its journal has no end", self.id);
            store::Error::Corrupt { found }
        })?;
        Ok(Ended { outcome, signals_unread })
    }

    // Signals.

    /// Sends a signal. Once this returns it is durable, and will be taken once, in the order of acceptance.
    ///
    /// # Errors
    /// If the run has ended, too many signals wait, or the value does not match. Nothing was written.
    pub async fn signal<T: Serialize>(&self, signal: &Signal<T>, value: &T) -> Result<Accepted, Error> {
        self.send(SignalKind::Signal, signal.name(), Payload::of(value)?, None).await
    }

    /// Sends a signal under the sender's own id: the same id again is the same signal.
    ///
    /// # Errors
    /// As [`RunHandle::signal`].
    pub async fn signal_as<T: Serialize>(&self, id: &str, signal: &Signal<T>, value: &T) -> Result<Accepted, Error> {
        self.send(SignalKind::Signal, signal.name(), Payload::of(value)?, Some(id.to_owned())).await
    }

    /// Sends a signal, update or request by its name, as JSON.
    ///
    /// # Errors
    /// As [`RunHandle::signal`].
    pub async fn send(
        &self,
        kind: SignalKind,
        name: &str,
        payload: Payload,
        id: Option<String>,
    ) -> Result<Accepted, Error> {
        let send = Send { kind, name: name.to_owned(), id, payload };
        let to = crate::intake::To { key: self.key, id: &self.id, workflow: &self.workflow, version: self.version };
        Ok(self.client.inner.door.signal_to(to, send).await?)
    }

    /// Asks the run to cancel. The request is durable once this returns; a repeat adds nothing.
    ///
    /// # Errors
    /// If the run has ended.
    pub async fn cancel(&self, reason: &str, by: &str) -> Result<Accepted, Error> {
        let request = CancelRequest { reason: reason.to_owned(), by: by.to_owned() };
        self.send(SignalKind::Cancel, "cancel", Payload::of(&request)?, Some("cancel".into())).await
    }

    // Updates and queries.

    /// Sends an update and waits for its answer.
    ///
    /// # Errors
    /// If the validator refuses it, nothing was written. [`Error::Unanswered`] if the run ends first.
    pub async fn update<I: Serialize, O: DeserializeOwned>(
        &self,
        update: &Update<I, O>,
        input: &I,
    ) -> Result<O, Error> {
        let id = uuid::Uuid::now_v7().to_string();
        self.update_as(&id, update, input).await
    }

    /// Sends an update under the sender's own id and waits for its answer: a repeat gets the same answer.
    ///
    /// # Errors
    /// As [`RunHandle::update`].
    pub async fn update_as<I: Serialize, O: DeserializeOwned>(
        &self,
        id: &str,
        update: &Update<I, O>,
        input: &I,
    ) -> Result<O, Error> {
        let sent = self.send(SignalKind::Update, update.name(), Payload::of(input)?, Some(id.to_owned())).await;
        match sent {
            Ok(_) => {}
            // A repeat may come after the run has ended: its answer is there all the same.
            Err(Error::Signal(SignalError::Refused(crate::signal::Refused::ClosedRun { .. })))
                if self.store().reply(self.key, id).await?.is_some() => {}
            Err(e) => return Err(e),
        }
        let reply = self.reply(id).await?;
        self.read(&reply, || format!("the answer to update {:?} of run {}", update.name(), self.id))
    }

    /// Waits for the answer to an update that was accepted.
    ///
    /// # Errors
    /// [`Error::Unanswered`] if the run ends first.
    pub async fn reply(&self, id: &str) -> Result<Payload, Error> {
        loop {
            let answered = self.client.inner.answered.notified();
            let bell = self.store().watch_outcome(self.key).await;
            let run = self.store().get(self.key).await?.ok_or_else(|| self.unknown())?;
            // Read after the row: the answer is written before, or with, the end.
            if let Some(reply) = self.store().reply(self.key, id).await? {
                return Ok(reply);
            }
            if !run.status.is_open() {
                return Err(Error::Unanswered { run: self.id.to_string(), id: id.to_owned() });
            }
            tokio::select! {
                () = answered => {}
                _ = self.pause(bell) => {}
            }
        }
    }

    /// What the run last published under a name. Works on ended runs and needs no worker.
    ///
    /// # Errors
    /// If the value does not fit `T`.
    pub async fn query<T: DeserializeOwned>(&self, published: &Published<T>) -> Result<Option<T>, Error> {
        let value = self.store().published(self.key, published.name()).await?;
        let what = || format!("the value {:?} of run {}", published.name(), self.id);
        value.map(|value| self.read(&value, what)).transpose()
    }

    /// What stands in a stream after an offset: at most `limit` values, each with its offset and part. A part of an
    /// attempt that was made again is followed by one of the later attempt.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn stream<T>(&self, stream: &Stream<T>, after: i64, limit: usize) -> Result<Vec<Read>, Error> {
        Ok(self.store().read_stream(self.key, stream.name(), after, limit).await?)
    }

    // Looking.

    /// The run's row as it stands.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn row(&self) -> Result<Run, Error> {
        self.store().get(self.key).await?.ok_or_else(|| self.unknown())
    }

    /// All that is known of the run, with its journal.
    ///
    /// # Errors
    /// If this build cannot read a line of its journal.
    pub async fn history(&self) -> Result<History, Error> {
        let history = self.store().history(&[self.key]).await?.pop().ok_or_else(|| self.unknown())?;
        history.map_err(|unreadable| Error::Undecipherable(unreadable.problem))
    }

    /// The run's journal.
    ///
    /// # Errors
    /// If this build cannot read a line of it.
    pub async fn journal(&self) -> Result<Vec<Recorded>, Error> {
        Ok(self.history().await?.journal)
    }

    /// What the run was begun with.
    ///
    /// # Errors
    /// [`Error::Undecodable`] if it does not fit; if this build cannot read its journal.
    pub async fn input<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let journal = self.journal().await?;
        let input = match journal.first().map(|line| &line.event) {
            Some(Event::RunQueued(queued)) => Some(&queued.input),
            Some(Event::RunStarted(started)) => started.input.as_ref(),
            _ => None,
        };
        self.read(input.unwrap_or(&Payload::null()), || format!("the input of run {}", self.id))
    }

    /// Why the run is not moving: what it waits for and since when, its next wake, its attempts, its owner.
    ///
    /// # Errors
    /// If this build cannot read a line of its journal.
    pub async fn show(&self) -> Result<Shown, Error> {
        let history = self.history().await?;
        let workers = self.store().workers().await?;
        show::of(&history, &workers)
    }

    /// The run as it can be taken elsewhere and replayed there.
    ///
    /// # Errors
    /// If this build cannot read a line of its journal.
    pub async fn export(&self) -> Result<ExportedRun, Error> {
        let journal = self.journal().await?;
        Ok(ExportedRun {
            namespace: self.namespace.clone(),
            id: self.id.clone(),
            workflow: self.workflow.clone(),
            version: self.version,
            journal,
        })
    }

    fn read<T: DeserializeOwned>(&self, value: &Payload, what: impl FnOnce() -> String) -> Result<T, Error> {
        value.read().map_err(|problem| Error::Undecodable {
            what: what(),
            expected: std::any::type_name::<T>(),
            problem,
        })
    }
}

//! What a program asks of Aldis: start runs, find them, list them.

use std::sync::{Arc, Weak};

use serde::Serialize;
use tokio::sync::{Mutex, Notify, oneshot};

use super::handle::RunHandle;
use super::{Error, ExportedRun};
use crate::agent::{Agents, Roster};
use crate::clock::Clock;
use crate::engine::{Begin, Engine};
use crate::id::{Namespace, RunId, RunKey};
use crate::intake::{Asked, Door, StartError};
use crate::journal::Event;
use crate::payload::Payload;
use crate::run::{Closed, Run, StartOptions};
use crate::store::{self, CallerTx, Filter, NewRun, StartRefused, Started, Store, Worker};

/// Accepts and reads. Cheap to clone; works beside a running engine in this or another process.
#[derive(Clone)]
pub struct Client {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) door: Door,
    pub(super) clock: Clock,
    pub(super) answered: Arc<Notify>,
    engine: Option<Weak<Engine>>,
    /// Hears of other processes' writes where no engine does.
    listener: std::sync::Mutex<Option<tokio::task::JoinHandle<()>>>,
    pub(super) feeds: super::subscription::Feeds,
    agents: Roster,
    keys: Mutex<std::ops::Range<i64>>,
}

/// A start for [`Client::start_many`]: the workflow, its input, and what is asked of it.
#[derive(Debug, Clone)]
pub struct Start {
    /// The workflow's written name.
    pub workflow: String,
    /// The input.
    pub input: Payload,
    /// What is asked of the start.
    pub options: StartOptions,
}

/// Who started a run, as the journal of a run that had to make way for it says.
const BY: &str = "client";

/// The most run keys that are reserved at once.
const KEYS: u32 = 1_000;

impl Client {
    pub(super) fn new(store: Store, door: Door, clock: Clock, agents: Roster, engine: Option<Weak<Engine>>) -> Self {
        let answered = engine.as_ref().and_then(Weak::upgrade).map(|engine| engine.answered()).unwrap_or_default();
        Self {
            inner: Arc::new(Inner {
                store,
                door,
                clock,
                answered,
                engine,
                listener: std::sync::Mutex::default(),
                feeds: super::subscription::Feeds::default(),
                agents,
                keys: Mutex::new(0..0),
            }),
        }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The clock that all goes by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// The agents that are declared in this program, as they are now.
    #[must_use]
    pub fn agents(&self) -> Agents {
        self.inner.agents.now()
    }

    // Starting.

    /// Starts a run of a workflow. Once this returns it is durable.
    ///
    /// # Errors
    /// For a workflow that is not known, an input that does not match its schema or is too large. Nothing was written.
    pub async fn run<I: Serialize + ?Sized>(&self, workflow: &str, input: &I) -> Result<RunHandle, Error> {
        Ok(self.start(workflow, Payload::of(input)?, StartOptions::default()).await?.0)
    }

    /// Starts a run under an id of the caller's choice.
    ///
    /// # Errors
    /// As [`Client::run`]; if the id belongs to a run that is open, that is said.
    pub async fn run_as<I: Serialize + ?Sized>(&self, id: &str, workflow: &str, input: &I) -> Result<RunHandle, Error> {
        let options = StartOptions { id: Some(RunId::parse(id)?), ..StartOptions::default() };
        Ok(self.start(workflow, Payload::of(input)?, options).await?.0)
    }

    /// Starts a run with all that can be asked of a start; says whether it is new.
    ///
    /// # Errors
    /// As [`Client::run`], and what the policies say. Nothing was written.
    pub async fn start(
        &self,
        workflow: &str,
        input: Payload,
        options: StartOptions,
    ) -> Result<(RunHandle, Started), Error> {
        let asked = self.check(workflow, input, options).await?;
        let new = asked.new.clone();
        if let Some(engine) = self.engine()
            && engine.has_room()
            && let Some(workflow) = asked.begins_here()
        {
            let (ended, end) = oneshot::channel();
            let begin = Begin {
                new: new.clone(),
                workflow: Arc::clone(workflow),
                input: asked.input.clone(),
                deadline: asked.deadline(),
                ended,
            };
            return match engine.begin(begin).await {
                Ok(()) => Ok((self.handle(new.key, &new).ending_here(end), Started::New)),
                Err(error) => Err(self.not_begun(error, &new).await),
            };
        }
        let (key, started) = self.inner.door.start(asked, BY).await?;
        Ok((self.started(key, &started, &new).await?, started))
    }

    /// Starts many runs by few writes; each has its own answer, in the order given. They are queued in the store, and
    /// begin as there is room.
    ///
    /// # Errors
    /// If one of them fails the checks nothing is written. If the store could not take them some may have been written:
    /// those with an id or an idempotency key may be sent again.
    pub async fn start_many(
        &self,
        starts: Vec<Start>,
    ) -> Result<Vec<Result<(RunHandle, Started), StartRefused>>, Error> {
        let mut asked = Vec::with_capacity(starts.len());
        for start in starts {
            asked.push(self.check(&start.workflow, start.input, start.options).await?);
        }
        let news: Vec<NewRun> = asked.iter().map(|asked| asked.new.clone()).collect();
        let answers = self.inner.door.start_many(asked, BY).await?;
        let mut started = Vec::with_capacity(answers.len());
        for (answer, new) in answers.into_iter().zip(&news) {
            started.push(match answer {
                Ok((key, how)) => Ok((self.started(key, &how, new).await?, how)),
                Err(refused) => Err(refused),
            });
        }
        Ok(started)
    }

    /// Starts a run inside the caller's own transaction on the store's database: it exists if that is committed. It is
    /// found by the next poll, or at once after [`Engine::nudge`].
    ///
    /// # Errors
    /// As [`Client::start`]; the transaction can go on.
    pub async fn start_in(
        &self,
        tx: CallerTx<'_>,
        workflow: &str,
        input: Payload,
        options: StartOptions,
    ) -> Result<(RunId, Started), Error> {
        let asked = self.check(workflow, input, options).await?;
        let id = asked.new.id.clone();
        let (_, started) = self.inner.door.start_in(tx, asked, BY).await?;
        Ok((id, started))
    }

    async fn check(&self, workflow: &str, input: Payload, options: StartOptions) -> Result<Asked, Error> {
        let key = self.next_key().await?;
        Ok(self.inner.door.check(key, workflow, input, options).await?)
    }

    /// The run that a start came to: the new one, or the one that has its id or idempotency key already.
    async fn started(&self, key: RunKey, started: &Started, new: &NewRun) -> Result<RunHandle, Error> {
        match started {
            Started::New => Ok(self.handle(key, new)),
            Started::Existing(key) => {
                let run = self.inner.store.get(*key).await?;
                run.map(|run| RunHandle::of(self.clone(), &run))
                    .ok_or_else(|| Error::UnknownRun { run: new.id.to_string() })
            }
        }
    }

    async fn not_begun(&self, error: crate::engine::BeginError, new: &NewRun) -> Error {
        let status = match self.inner.store.find(&new.namespace, &new.id).await {
            Ok(Some(run)) => run.status.word(),
            // It has gone meanwhile, or cannot be read: that it was open is all that is known.
            Ok(None) | Err(_) => "open",
        };
        Error::of_begin(error, &new.id, status)
    }

    fn handle(&self, key: RunKey, new: &NewRun) -> RunHandle {
        RunHandle::new(self.clone(), key, new.namespace.clone(), new.id.clone(), new.workflow.clone(), new.version)
    }

    /// Sees to it that subscribers here hear of what other processes write: an engine does that by itself.
    pub(super) fn listens(&self) {
        if self.inner.engine.is_some() {
            return;
        }
        let mut listener = self.inner.listener.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if listener.is_none() {
            let store = self.inner.store.clone();
            *listener = Some(tokio::spawn(async move {
                loop {
                    store.changed().await;
                    if store.is_closed() {
                        return;
                    }
                }
            }));
        }
    }

    /// The engine here, if it can take another run.
    pub(super) fn engine_with_room(&self) -> Option<Arc<Engine>> {
        self.engine().filter(|engine| engine.has_room())
    }

    fn engine(&self) -> Option<Arc<Engine>> {
        self.inner.engine.as_ref().and_then(Weak::upgrade)
    }

    /// A run key of this process's own block.
    pub(super) async fn next_key(&self) -> Result<RunKey, Error> {
        let mut keys = self.inner.keys.lock().await;
        if keys.is_empty() {
            *keys = self.inner.store.reserve_keys(KEYS).await.map_err(StartError::from)?;
        }
        let key = keys.next().map(RunKey);
        Ok(key.ok_or_else(|| store::Error::Corrupt { found: "an empty block of run keys".into() })?)
    }

    // Finding.

    /// The latest run with an id.
    ///
    /// # Errors
    /// [`Error::UnknownRun`] if there is none.
    pub async fn find(&self, id: &str) -> Result<RunHandle, Error> {
        self.find_in(&Namespace::default(), id).await
    }

    /// The latest run with an id, in a namespace.
    ///
    /// # Errors
    /// [`Error::UnknownRun`] if there is none.
    pub async fn find_in(&self, namespace: &Namespace, id: &str) -> Result<RunHandle, Error> {
        let found = self.inner.store.find(namespace, &RunId::parse(id)?).await?;
        found.map(|run| RunHandle::of(self.clone(), &run)).ok_or_else(|| Error::UnknownRun { run: id.to_owned() })
    }

    /// The run with a key, whatever has begun under its id since.
    ///
    /// # Errors
    /// [`Error::UnknownRun`] if there is none.
    pub async fn by_key(&self, key: RunKey) -> Result<RunHandle, Error> {
        let found = self.inner.store.get(key).await?;
        found.map(|run| RunHandle::of(self.clone(), &run)).ok_or_else(|| Error::UnknownRun { run: key.to_string() })
    }

    /// Runs, newest first, `limit` at the most; the next page begins before the last one's key.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn list(&self, filter: &Filter, limit: usize) -> Result<Vec<Run>, Error> {
        Ok(self.inner.store.list(filter, limit).await?)
    }

    /// How many runs there are of each workflow in each status: `(workflow, status, number)`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn counts(&self) -> Result<Vec<(String, String, i64)>, Error> {
        Ok(self.inner.store.counts(None).await?)
    }

    /// The worker processes that are registered.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn workers(&self) -> Result<Vec<Worker>, Error> {
        Ok(self.inner.store.workers().await?)
    }

    /// Brings in a run that was exported elsewhere, to be read and replayed here. It keeps its id.
    ///
    /// # Errors
    /// If the id is in use by an open run, or the store cannot take it.
    pub async fn import(&self, exported: ExportedRun) -> Result<RunHandle, Error> {
        let ExportedRun { namespace, id, workflow, version, journal } = exported;
        let closed = match journal.last().map(|line| &line.event) {
            Some(Event::RunCompleted(_)) => Some(Closed::Completed),
            Some(Event::RunFailed(_)) => Some(Closed::Failed),
            Some(Event::RunCancelled(_)) => Some(Closed::Cancelled),
            Some(Event::RunTerminated(_)) => Some(Closed::Terminated),
            _ => None,
        };
        let new = NewRun { key: self.next_key().await?, namespace, id, workflow, version, thread: None };
        let handle = self.handle(new.key, &new);
        self.inner.store.import(new, journal, closed, self.inner.clock.now()).await?.map_err(StartError::from)?;
        Ok(handle)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            listener.abort();
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("store", &self.inner.store.location()).finish_non_exhaustive()
    }
}

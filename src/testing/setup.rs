//! What a test kit is started with.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::kit::TestKit;
use super::{Database, Error, Redact};
use crate::agent::Agent;
use crate::agent::model::{Models, Tape};
use crate::clock::{Instant, VirtualClock};
use crate::engine::{self, Mock, Shadow};
use crate::failure::{AttemptFailure, Failure, Fault};
use crate::intake::Limits;
use crate::payload::Payload;
use crate::runtime::Aldis;
use crate::store::{self, Durability, Kind};
use crate::workflow::{Definition, Step, StepContext};

/// What a [`TestKit`] is started with. A clone is the same setup for another kit.
#[derive(Clone)]
#[must_use = "nothing happens before it is started"]
pub struct Setup {
    kind: Kind,
    workflows: Vec<Definition>,
    agents: Vec<Agent>,
    models: Models,
    mocks: HashMap<String, Mock>,
    limits: Limits,
    pub(super) engine: engine::Options,
    pub(super) store: store::Options,
    pub(super) begin: Instant,
    pub(super) redact: Redact,
}

/// When time begins in tests: 2026-01-05T09:00:00Z, a Monday.
const BEGIN: Instant = Instant(1_767_603_600_000);

impl Setup {
    pub(super) fn new(kind: Kind) -> Self {
        let lease = match kind {
            // The file's lock says which process has the runs: no need for a heartbeat.
            Kind::Sqlite => Duration::from_secs(1_000_000_000),
            // Short: a crash moves the clock by so much, so that the runs can be taken over.
            Kind::Postgres => Duration::from_millis(300),
        };
        let engine = engine::Options {
            build: "test".into(),
            worker: "test".into(),
            lease,
            // Everything that becomes due here is known without it.
            poll: Duration::from_secs(1_000_000_000),
            shadow: Shadow::Always,
            ..engine::Options::default()
        };
        // A test's machine may lose its power.
        let store = store::Options { durability: Durability::Normal, ..store::Options::default() };
        Self {
            kind,
            workflows: Vec::new(),
            agents: Vec::new(),
            models: Models::new(),
            mocks: HashMap::new(),
            limits: Limits::default(),
            engine,
            store,
            begin: BEGIN,
            redact: Redact::default(),
        }
    }

    /// Registers a workflow.
    pub fn workflow(mut self, workflow: impl Into<Definition>) -> Self {
        self.workflows.push(workflow.into());
        self
    }

    /// Registers workflows.
    pub fn workflows(mut self, workflows: impl IntoIterator<Item = impl Into<Definition>>) -> Self {
        self.workflows.extend(workflows.into_iter().map(Into::into));
        self
    }

    /// Registers an agent.
    pub fn agent(mut self, agent: Agent) -> Self {
        self.agents.push(agent);
        self
    }

    /// The models that agents may ask.
    pub fn models(mut self, models: Models) -> Self {
        self.models = models;
        self
    }

    /// Plays the recording in `file` if there is one, whatever models there are; else records there what they are asked. A
    /// test with a real model's answers is run once with its key, and ever after without key and network.
    ///
    /// # Errors
    /// If the file is there and is not a recording.
    pub fn recorded(mut self, file: impl Into<std::path::PathBuf>) -> Result<Self, Error> {
        let file = file.into();
        let name = file.display().to_string();
        let tape = Tape::once(file).map_err(|e| Error::Recorded { file: name, problem: e.to_string() })?;
        self.models = self.models.recorded(tape);
        Ok(self)
    }

    /// Registers no workflow: for another deploy that begins from nothing.
    pub fn without_workflows(mut self) -> Self {
        self.workflows.clear();
        self
    }

    /// Runs this body instead of the step's own, wherever the step is asked for.
    pub fn mock<I, O, E, F, A>(mut self, step: &Step<I, O, E>, body: F) -> Self
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize,
        E: Fault,
        F: Fn(StepContext, I) -> A + Send + Sync + 'static,
        A: Future<Output = Result<O, E>> + Send + 'static,
    {
        let body = Arc::new(body);
        let mock: Mock = Arc::new(move |cx, input| {
            let body = Arc::clone(&body);
            Box::pin(async move {
                let input = input.read().map_err(|e| AttemptFailure::Failed(Failure::from(e).not_retryable()))?;
                match body(cx, input).await {
                    Ok(output) => {
                        Payload::of(&output).map_err(|e| AttemptFailure::Failed(Failure::from(e).not_retryable()))
                    }
                    Err(error) => Err(AttemptFailure::Failed(error.into_failure())),
                }
            })
        });
        self.mocks.insert(step.name().to_owned(), mock);
        self
    }

    /// Lets this be the step's result, wherever the step is asked for.
    pub fn mock_with<I, O, E>(self, step: &Step<I, O, E>, output: O) -> Self
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + Clone + Send + Sync + 'static,
        E: Fault,
    {
        self.mock(step, move |_, _| {
            let output = output.clone();
            async move { Ok(output) }
        })
    }

    /// Names what the workflows were built from.
    pub fn build(mut self, build: impl Into<String>) -> Self {
        self.engine.build = build.into();
        self
    }

    /// What is let in.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How runs are advanced.
    pub fn engine_options(mut self, change: impl FnOnce(&mut engine::Options)) -> Self {
        change(&mut self.engine);
        self
    }

    /// How the store is opened.
    pub fn store_options(mut self, change: impl FnOnce(&mut store::Options)) -> Self {
        change(&mut self.store);
        self
    }

    /// When time begins.
    pub fn begins_at(mut self, at: Instant) -> Self {
        self.begin = at;
        self
    }

    /// Writes `instead` for `text` in printed journals.
    pub fn redact(mut self, text: impl Into<String>, instead: impl Into<String>) -> Self {
        self.redact = self.redact.text(text, instead);
        self
    }

    /// Which database it is for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Starts a kit on an empty database of its own.
    ///
    /// # Errors
    /// If there is no database to be had, or Aldis does not start on it.
    pub async fn start(self) -> Result<TestKit, Error> {
        let database = Database::of(self.kind).await?;
        TestKit::start(self, database).await
    }

    /// Starts a kit on a database that is there already, with a clock that others share.
    ///
    /// # Errors
    /// If Aldis does not start on it.
    pub async fn start_on(self, database: &Database, clock: &VirtualClock) -> Result<TestKit, Error> {
        TestKit::open(self, database.clone(), clock.clone(), super::Attempts::default(), Arc::default()).await
    }

    pub(super) fn aldis(&self, database: &Database) -> Aldis {
        let (engine, store) = (self.engine.clone(), self.store.clone());
        Aldis::open(database.url())
            .workflows(self.workflows.clone())
            .agents(self.agents.clone())
            .models(self.models.clone())
            .limits(self.limits)
            .engine_options(|options| *options = engine)
            .mocks(self.mocks.clone())
            .store_options(|options| *options = store)
    }
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("kind", &self.kind).field("workflows", &self.workflows).finish_non_exhaustive()
    }
}

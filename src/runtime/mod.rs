//! Assembly and life: what a program opens, starts and stops. Owns every task; the only room that knows all others.
//!
//! [`Aldis`] is set up and then either started, which advances runs here, or connected, which accepts and reads only.
//! Both give a [`Client`]. Decides nothing about runs itself.

mod chunks;
mod client;
mod continuation;
mod direct;
mod error;
mod export;
mod handle;
mod host;
mod keys;
mod show;
mod subscription;
mod thread;
mod threads;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

pub use chunks::RunChunks;
pub use client::{Client, Start};
pub use direct::{DirectCall, DirectRun};
pub use error::Error;
pub use export::{Export, ExportedRun};
pub use handle::{Ended, RunHandle, Settled};
pub use keys::NewKey;
#[cfg(feature = "server")]
pub(crate) use keys::looks_like_a_key;
pub use show::{Blocked, Shown, WaitsFor};
pub use subscription::{QueueCounts, Seen, Since, Subscription};
pub use thread::{Action, AgentHandle, Answer, CancelQueued, Sent, SkipReason, StateSent, ThreadHandle};

use crate::agent::model::Models;
use crate::agent::{Agent, Agents, Roster};
use crate::clock::{Clock, Instant};
use crate::engine::{self, Engine, Mock, Shadow};
use crate::intake::{Door, Limits};
use crate::payload::Payload;
use crate::store::{self, Declared, Kind, Store};
use crate::thread::turn_of;
use crate::workflow::{Definition, Registry};

/// A program's Aldis, being set up: `Aldis::open("sqlite://aldis.db").workflow(refund).start().await?`.
#[derive(Clone)]
#[must_use = "nothing happens before it is started or connected"]
pub struct Aldis {
    url: String,
    workflows: Vec<Definition>,
    agents: Vec<Agent>,
    models: Models,
    store: store::Options,
    engine: engine::Options,
    limits: Limits,
    clock: Clock,
    standby: bool,
}

impl Aldis {
    /// On this store: `sqlite://path` or `postgres://user@host/database`.
    pub fn open(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            workflows: Vec::new(),
            agents: Vec::new(),
            models: Models::new(),
            store: store::Options::default(),
            engine: engine::Options::default(),
            limits: Limits::default(),
            clock: Clock::System,
            standby: false,
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

    /// Registers an agent. A later one of the same name takes its place.
    pub fn agent(mut self, agent: Agent) -> Self {
        self.agents.retain(|known| known.name() != agent.name());
        self.agents.push(agent);
        self
    }

    /// Registers agents.
    pub fn agents(self, agents: impl IntoIterator<Item = Agent>) -> Self {
        agents.into_iter().fold(self, Self::agent)
    }

    /// The models that agents may ask; the offline model alone if nothing is said.
    pub fn models(mut self, models: Models) -> Self {
        self.models = models;
        self
    }

    /// The agents, and the workflows, those that answer for the agents among them.
    fn registry(&self) -> Result<(Roster, Registry), Error> {
        let agents = Agents::new(self.agents.iter().cloned(), self.models.clone()).limits(self.limits.signals);
        let roster = Roster::new(agents.clone(), self.clock.now());
        let turns = agents.all().map(|agent| crate::workflows::turn::workflow(&roster, agent.name()).into());
        let registry = Registry::new(self.workflows.iter().cloned().chain(turns))?;
        Ok((roster, registry))
    }

    /// Names what the workflows were built from. Runs that another build could not go on with are tried again.
    pub fn build(mut self, build: impl Into<String>) -> Self {
        self.engine.build = build.into();
        self
    }

    /// Names this worker for people.
    pub fn worker(mut self, worker: impl Into<String>) -> Self {
        self.engine.worker = worker.into();
        self
    }

    /// Waits until the process that advances this SQLite file's runs has ended, rather than being refused.
    pub fn standby(mut self, standby: bool) -> Self {
        self.standby = standby;
        self
    }

    /// What is let in, and how large a value of a step or a workflow may be.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self.engine.payload_bytes_max = limits.payload_bytes_max;
        self
    }

    /// How the store is opened.
    pub fn store_options(mut self, change: impl FnOnce(&mut store::Options)) -> Self {
        change(&mut self.store);
        self
    }

    /// How runs are advanced.
    pub fn engine_options(mut self, change: impl FnOnce(&mut engine::Options)) -> Self {
        change(&mut self.engine);
        self
    }

    /// Whose time it goes by.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Which commits are checked by replaying the run in a fresh instance.
    pub fn shadow(mut self, shadow: Shadow) -> Self {
        self.engine.shadow = shadow;
        self
    }

    /// Bodies to run instead of the steps' own, by the step's name: for tests.
    pub fn mocks(mut self, mocks: HashMap<String, Mock>) -> Self {
        self.engine.mocks = Arc::new(mocks);
        self
    }

    /// Opens the store and begins to advance runs in this process.
    ///
    /// # Errors
    /// If the store cannot be opened, the workflows cannot be registered, or another process advances this SQLite
    /// file's runs.
    pub async fn start(self) -> Result<Runtime, Error> {
        let (roster, registry) = self.registry()?;
        let store = Store::open(&self.url, self.store).await?;
        let lease = match store.engine_lease().await? {
            Some(lease) => lease,
            None if self.standby => {
                tracing::info!(store = store.location(), "standing by: another process advances the runs");
                store.engine_lease_when_free().await?
            }
            None => return Err(Error::EngineElsewhere { store: store.location().to_owned() }),
        };
        declare(&store, &registry, self.clock.now()).await?;
        let engine = Engine::start(store.clone(), lease, registry.clone(), self.clock.clone(), self.engine).await?;
        let engine = Arc::new(engine);
        let door = Door::new(store.clone(), registry.clone(), self.clock.clone(), self.limits);
        let client = Client::new(store, door, self.clock, roster.clone(), Some(Arc::downgrade(&engine)));
        roster.now().host().bind(host::Here(Arc::downgrade(&client.inner)));
        Ok(Runtime { client, engine, registry, roster })
    }

    /// Opens the store for accepting and reading only: other processes advance the runs.
    ///
    /// # Errors
    /// If the store cannot be opened or the workflows cannot be registered.
    pub async fn connect(self) -> Result<Client, Error> {
        let (roster, registry) = self.registry()?;
        let store = Store::open(&self.url, self.store).await?;
        let door = Door::new(store.clone(), registry, self.clock.clone(), self.limits);
        Ok(Client::new(store, door, self.clock, roster, None))
    }
}

impl std::fmt::Debug for Aldis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The store's address may hold a password.
        f.debug_struct("Aldis").field("workflows", &self.workflows).finish_non_exhaustive()
    }
}

async fn declare(store: &Store, registry: &Registry, now: Instant) -> Result<(), Error> {
    let declared = registry.all().into_iter().map(|workflow| {
        let definition = &workflow.definition;
        Ok(Declared {
            workflow: definition.name.to_owned(),
            version: definition.version,
            input: Payload::of(&definition.input)?,
            output: Payload::of(&definition.output)?,
            signals: Payload::of(&definition.signals_as_json())?,
        })
    });
    let declared = declared.collect::<Result<Vec<_>, Error>>()?;
    Ok(store.declare(&declared, now).await?)
}

/// A running Aldis: a [`Client`] whose process advances runs. Dropping it is as good as a crash: nothing is lost.
#[derive(Debug)]
pub struct Runtime {
    client: Client,
    engine: Arc<Engine>,
    registry: Registry,
    roster: Roster,
}

impl Deref for Runtime {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Runtime {
    /// A client that may be cloned and passed on.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The engine: whether it rests, and when it looks next.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The workflows registered here.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Other agents and models take the place of those that were declared, without a new start. An agent that is not among
    /// them stays as it was until the process ends; gives the names of those.
    ///
    /// A turn that began in this process finishes with what it began with, as long as [`RENEWALS_KEPT`] renewals go back.
    /// A turn from before it, which was taken over, goes on with what is declared when its code is run again, as it does after
    /// a deploy: what was recorded stays, and if the agent has processors now and had none, or the reverse, the turn is blocked
    /// until it is as before. Runs that were blocked by another `build` than this one are tried again.
    ///
    /// [`RENEWALS_KEPT`]: crate::agent::RENEWALS_KEPT
    ///
    /// # Errors
    /// If the store could not be told of new agents. Everything is then as before.
    pub async fn renew(
        &self,
        agents: impl IntoIterator<Item = Agent>,
        models: Models,
        build: &str,
    ) -> Result<Vec<String>, Error> {
        let agents = Agents::new(agents, models);
        let new = agents.all().filter(|agent| self.registry.newest(&turn_of(agent.name())).is_err());
        let turns = new.map(|agent| crate::workflows::turn::workflow(&self.roster, agent.name()));
        let new = Registry::new(turns)?;
        let now = self.client.clock().now();
        declare(self.client.store(), &new, now).await?;
        self.engine.learns(&new, build).await?;
        // The agents first: a turn that begins finds its agent.
        let gone = self.roster.renew(&agents, now);
        self.registry.join(&new);
        self.engine.nudge();
        Ok(gone)
    }

    /// Begins no more runs, lets bodies go on for `grace` at the most, gives the runs back to the store and closes it.
    ///
    /// # Errors
    /// If the store could not be told; the runs are then taken over when the lease has run out.
    pub async fn drain(self, grace: Duration) -> Result<(), Error> {
        let drained = self.engine.drain(grace).await;
        self.client.store().close().await;
        Ok(drained?)
    }

    /// Stops as a crash would: nothing is written, nothing is given back. For tests.
    pub async fn kill(self) {
        self.engine.kill().await;
    }
}

/// Which databases there are.
impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        })
    }
}

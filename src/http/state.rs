//! What all routes share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio_util::sync::CancellationToken;

use super::caller::Caller;
use super::error::Problem;
use super::failures::Failures;
use super::openapi::Reference;
use super::options::Options;
use super::watch::Metrics;
use crate::id::Namespace;
use crate::runtime::{AgentHandle, Client, ThreadHandle};
use crate::thread::Thread;

/// What all routes share. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) options: Arc<Options>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) reference: Arc<Reference>,
    pub(super) failures: Arc<Failures>,
    /// Whether there was a key, so that everybody has to prove who they are.
    pub(super) keyed: Arc<AtomicBool>,
    /// Cancelled once the server ends.
    pub(super) draining: CancellationToken,
}

impl Shared {
    pub(super) fn new(client: Client, options: Options) -> Self {
        Self {
            client,
            reference: Arc::new(Reference::new(&super::Routes::document(&options.prefix))),
            failures: Arc::new(Failures::new(options.failures_max)),
            keyed: Arc::default(),
            options: Arc::new(options),
            metrics: Arc::new(Metrics::new()),
            draining: CancellationToken::new(),
        }
    }

    /// An agent that some program has declared in this store.
    pub(super) async fn agent(&self, name: &str) -> Result<AgentHandle, Problem> {
        let agent = self.client.agent(name);
        agent.known().await?;
        Ok(agent)
    }

    /// A thread as a request names it: where it does not say the owner, whoever that is (section 7.1).
    pub(super) async fn addressed(
        &self,
        agent: &AgentHandle,
        caller: &Caller,
        thread: &str,
        resource: Option<String>,
    ) -> Result<ThreadHandle, Problem> {
        let owner = match caller.resource(resource) {
            Some(resource) => Some(resource),
            None => self.thread(thread).await?.map(|thread| thread.resource),
        };
        Ok(match owner {
            Some(owner) => agent.thread(thread, owner)?,
            None => agent.thread_of_anyone(thread)?,
        })
    }

    /// The thread that a run answers, if there is such a run and it answers one.
    pub(super) async fn thread_of_run(&self, run: &str) -> Result<Option<Thread>, Problem> {
        let row = match self.client.find(run).await {
            Ok(handle) => handle.row().await?,
            Err(crate::runtime::Error::UnknownRun { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match row.thread {
            Some(thread) => Ok(self.client.store().thread_of(thread).await.map_err(crate::runtime::Error::from)?),
            None => Ok(None),
        }
    }

    /// A thread by its id, whoever owns it.
    pub(super) async fn thread(&self, id: &str) -> Result<Option<Thread>, Problem> {
        let id = crate::id::ThreadId::parse(id).map_err(crate::runtime::Error::from)?;
        let found = self.client.store().thread(&Namespace::default(), &id).await;
        Ok(found.map_err(crate::runtime::Error::from)?)
    }
}

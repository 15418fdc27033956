//! Inputs to threads, at the door: checked, given both of their forms, and routed by the store.

use serde_json::Value;

use super::catalogue;
use super::direct::Direct;
use super::known::Known;
use super::{CatalogueError, Door};
use crate::clock::Instant;
use crate::id::{Namespace, RunId, RunKey, ThreadId, ThreadKey};
use crate::message::{Attributes, Chunks, Message, NewSignal, NewState, Refused, StateMark, ThreadSignal};
use crate::payload::{Payload, TooLarge, Unencodable};
use crate::store::{self, First, Foresee, Form, Input, LaneChange, NewTurn, NotReceived, Received};
use crate::thread::{Branch, CallResult, IfActive, IfIdle, InvalidResource, Route, Routing, check_resource, turn_of};

/// Which thread an input is for, and which agent is to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct To {
    /// The thread's namespace.
    pub namespace: Namespace,
    /// The thread.
    pub thread: ThreadId,
    /// The thread's owner.
    pub resource: String,
    /// The agent.
    pub agent: String,
}

/// What the sender of an input asks (T7.1).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SendOptions {
    /// While the agent has the thread.
    pub if_active: IfActive,
    /// Attributes that are merged then.
    pub active_attributes: Attributes,
    /// While it has not.
    pub if_idle: IfIdle,
    /// Attributes that are merged then.
    pub idle_attributes: Attributes,
    /// What is asked of the turn that it begins; nothing if null.
    pub turn: Value,
    /// A queued message: a turn of its own (T9.2).
    pub queue: bool,
    /// The sender's label of a queued message (T9.10).
    pub owner: Option<String>,
    /// A repeat with the same key within a day is the same input (T20.5).
    pub idempotency_key: Option<String>,
    /// Only if this run has the thread (T2.2).
    pub only_run: Option<RunId>,
}

/// Why an input was not accepted. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// No such agent is declared here.
    #[error("Agent with id {agent} not found{}", if known.is_empty() { String::new() } else { format!("; here are: {}", known.join(", ")) })]
    UnknownAgent {
        /// As it was asked for.
        agent: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// The thread's owner has no usable name.
    #[error(transparent)]
    Resource(#[from] InvalidResource),
    /// It breaks a rule of signals.
    #[error(transparent)]
    Signal(#[from] Refused),
    /// What clients want to keep with a thread cannot be kept, or not be looked for.
    #[error("the metadata of a thread cannot be used: {problem}")]
    Metadata {
        /// What is wrong with it.
        problem: String,
    },
    /// The thread was not copied.
    #[error(transparent)]
    NotCopied(#[from] store::NotCopied),
    /// It is too large.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// It has no JSON form.
    #[error(transparent)]
    Unencodable(#[from] Unencodable),
    /// The thread does not take it.
    #[error(transparent)]
    NotReceived(#[from] NotReceived),
    /// What is known of workflows cannot be used.
    #[error(transparent)]
    Catalogue(CatalogueError),
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Door {
    /// Has the store take an input to a thread; `keys` are two of this process's own block. A turn that it begins is
    /// `host`'s at once, if that has the agent.
    ///
    /// Names, sizes and both branches' attributes are checked first, whatever is asked (T3.17).
    ///
    /// # Errors
    /// [`InputError`]; nothing was written.
    pub async fn receive(
        &self,
        keys: (ThreadKey, RunKey),
        to: To,
        signal: NewSignal,
        options: SendOptions,
        host: Option<&dyn Foresee>,
    ) -> Result<(ThreadSignal, Received), InputError> {
        let at = self.clock.now();
        let said = Said {
            id: signal.id.clone().unwrap_or_else(new_id),
            digest: signal.digest(),
            lane: None,
            checked: signal.check(&self.limits.signals, &branches(&options)),
        };
        let accept = |id: &str, branch: &Attributes| signal.clone().accept(id, at, branch);
        self.take((keys, at, host), to, said, accept, options).await
    }

    /// Has the store take a state signal to a thread (T14.5): its version and the tracking of its lane are decided there.
    ///
    /// # Errors
    /// [`InputError`]; nothing was written. [`NotReceived::Unchanged`] if the lane says this already (T14.4).
    pub async fn receive_state(
        &self,
        keys: (ThreadKey, RunKey),
        to: To,
        state: NewState,
        options: SendOptions,
        host: Option<&dyn Foresee>,
    ) -> Result<(ThreadSignal, Received), InputError> {
        let at = self.clock.now();
        let said = Said {
            id: new_id(),
            digest: state.digest(),
            lane: Some(LaneChange { lane: state.id.clone(), cache_key: state.cache_key.clone(), mode: state.mode }),
            checked: state.check(&self.limits.signals, &branches(&options)),
        };
        let thread = to.thread.to_string();
        let accept = |id: &str, branch: &Attributes| state.clone().accept(id, at, branch, thread.as_str(), 0);
        self.take((keys, at, host), to, said, accept, options).await
    }

    async fn take(
        &self,
        (keys, at, host): ((ThreadKey, RunKey), Instant, Option<&dyn Foresee>),
        to: To,
        said: Said,
        accept: impl Fn(&str, &Attributes) -> ThreadSignal,
        options: SendOptions,
    ) -> Result<(ThreadSignal, Received), InputError> {
        let Said { id, digest, lane, checked } = said;
        check_resource(&to.resource)?;
        checked?;
        let (workflow, version, host) = self.turn_of(&to.agent, host).await?;
        let turn_id = RunId::generate();
        let active = accept(&id, &options.active_attributes);
        let idle = accept(&id, &options.idle_attributes);
        let limit = self.limits.payload_bytes_max;
        let turn =
            Payload::of(&options.turn)?.within(limit, || format!("the options of a turn of agent {}", to.agent))?;
        let transient = active.transient;
        let persist_nothing = |routing: Routing| match transient {
            // There is nothing that could be kept (T3.21).
            true => Routing {
                if_active: if routing.if_active == IfActive::Persist { IfActive::Discard } else { routing.if_active },
                if_idle: if routing.if_idle == IfIdle::Persist { IfIdle::Discard } else { routing.if_idle },
                ..routing
            },
            false => routing,
        };
        let input = Input {
            results: Vec::new(),
            said: Vec::new(),
            aside: false,
            thread_key: keys.0,
            only_run: options.only_run,
            id,
            key: options.idempotency_key,
            digest,
            category: active.category.word(),
            lane,
            routing: persist_nothing(Routing {
                if_active: options.if_active,
                if_idle: options.if_idle,
                queue: options.queue,
            }),
            owner: options.owner,
            active: form(&to, &active, &turn_id)?,
            idle: form(&to, &idle, &turn_id)?,
            turn: NewTurn {
                run: keys.1,
                named: false,
                id: turn_id,
                seed: uuid::Uuid::new_v4(),
                workflow,
                version,
                options: turn,
                follow_ups: self.limits.follow_ups_max,
                worker: host.map(Foresee::worker),
                first: None,
            },
            at,
            pending_max: i64::from(self.limits.pending_max),
            namespace: to.namespace,
            thread: to.thread,
            resource: to.resource,
            agent: to.agent,
        };
        let received = self.received(input, host).await?;
        let signal = match received.branch {
            Branch::Active => active,
            Branch::Idle => idle,
        };
        let state = signal.state.clone().map(|mark| match received.version {
            Some(version) => StateMark { version, ..mark },
            None => mark,
        });
        Ok((ThreadSignal { id: received.id.clone(), accepted_at: received.accepted_at, state, ..signal }, received))
    }

    /// Has the store take an input, together with what the turn asks for first that it may begin here.
    pub(super) async fn received(&self, mut input: Input, host: Option<&dyn Foresee>) -> Result<Received, InputError> {
        input.turn.first = host.and_then(|host| self.foreseen(&input, host));
        let (namespace, thread) = (input.namespace.clone(), input.thread.clone());
        let received = self.store.receive(input).await??;
        let known = Known { key: received.thread, busy: matches!(received.route, Route::Deliver | Route::Queue) };
        self.threads.heard(namespace, thread, known);
        Ok(received)
    }

    /// What the turn asks for first that the input is likely to begin. Where it is likely not to, that would be for nothing.
    fn foreseen(&self, input: &Input, host: &dyn Foresee) -> Option<First> {
        let wakes = input.routing.if_idle == IfIdle::Wake;
        let known = self.threads.of(&input.namespace, &input.thread);
        if !wakes || input.lane.is_some() || input.only_run.is_some() || known.is_some_and(|known| known.busy) {
            return None;
        }
        let thread = known.map_or(input.thread_key, |known| known.key);
        host.foresee(thread, input.begun(thread, host.worker()))
    }

    /// Has the store take what the client's own tools came to: a turn goes on from there (T13.14). The same calls again are
    /// the same input; with other results they are refused.
    ///
    /// # Errors
    /// [`InputError`]; nothing was written.
    pub async fn resume(
        &self,
        keys: (ThreadKey, RunKey),
        to: To,
        results: Vec<CallResult>,
        options: Value,
    ) -> Result<Received, InputError> {
        self.direct(keys, to, Direct::results(results, options), None).await
    }

    /// Whether some program has declared an agent in this store.
    ///
    /// # Errors
    /// [`InputError::UnknownAgent`], or if the store cannot be read.
    pub async fn knows_agent(&self, agent: &str) -> Result<(), InputError> {
        self.turn_of(agent, None).await.map(drop)
    }

    /// The workflow that answers for an agent, and its newest version.
    pub(super) async fn turn_of<'h>(
        &self,
        agent: &str,
        host: Option<&'h dyn Foresee>,
    ) -> Result<(String, u32, Option<&'h dyn Foresee>), InputError> {
        let workflow = turn_of(agent);
        match self.catalogue.newest(&self.store, &workflow).await {
            Ok(known @ catalogue::Known::Here(_)) => Ok((workflow, known.version(), host)),
            // A worker that does not have the agent leaves the turn to one that has.
            Ok(known) => Ok((workflow, known.version(), None)),
            Err(CatalogueError::Unknown(unknown)) => {
                let names = unknown.registered.iter().filter_map(|tag| tag.strip_prefix("turn:")?.split(' ').next());
                Err(InputError::UnknownAgent { agent: agent.to_owned(), known: names.map(str::to_owned).collect() })
            }
            Err(e) => Err(InputError::Catalogue(e)),
        }
    }
}

/// What is the same in both forms of an input.
struct Said {
    id: String,
    digest: String,
    lane: Option<LaneChange>,
    /// Whether it keeps the rules of signals.
    checked: Result<(), Refused>,
}

/// It sorts by the time it was made, so that what comes later is written behind what came before.
fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

fn branches(options: &SendOptions) -> [&Attributes; 2] {
    [&options.active_attributes, &options.idle_attributes]
}

/// What is stored if a branch holds.
fn form(to: &To, signal: &ThreadSignal, run: &RunId) -> Result<Form, Unencodable> {
    let row = Message::of_signal(0, signal.clone(), signal.accepted_at).to_row(to.thread.as_str(), &to.resource);
    let shown = Chunks::of(run.as_str()).persisted(&to.agent, signal);
    Ok(Form {
        signal: Payload::of(signal)?,
        row: Payload::of(&row)?,
        shown: shown.iter().map(Payload::of).collect::<Result<_, _>>()?,
    })
}

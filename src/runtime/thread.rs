//! One thread, from outside: what may be sent to it, its history, and who waits for an answer.

use serde_json::Value;

use super::Error;
use super::client::Client;
use super::subscription::{QueueCounts, Since, Subscription};
use crate::agent::TurnOptions;
use crate::id::{Namespace, RunId, ThreadId, ThreadKey};
use crate::intake::{InputError, SendOptions, SignalError, ToThread};
use crate::message::{Contents, Lane, Message, NewSignal, NewState, Shown, ThreadSignal};
use crate::payload::Payload;
use crate::signal::{Accepted, Refused, SignalKind};
use crate::store::{self, Foresee, NotReceived, Received, WaitingCall, Which, Window};
use crate::thread::{CallResult, INPUT, Route, Thread};
use crate::workflows::turn::{ABORT, ANSWER, Abort, CallAnswer, CallAnswered, UNSEND, Unsend, Unsent};

/// An agent, as one talks to it: `aldis.agent("support").thread("t-1", "ann")?.send("Hello").await?`.
#[derive(Debug, Clone)]
pub struct AgentHandle {
    client: Client,
    agent: String,
}

impl AgentHandle {
    pub(super) fn new(client: Client, agent: impl Into<String>) -> Self {
        Self { client, agent: agent.into() }
    }

    /// A thread of this agent with its owner. It is made by the first input that it accepts.
    ///
    /// # Errors
    /// If the text cannot be an id.
    pub fn thread(&self, id: &str, resource: impl Into<String>) -> Result<ThreadHandle, Error> {
        self.thread_in(&Namespace::default(), id, resource)
    }

    /// The same, in a namespace.
    ///
    /// # Errors
    /// If the text cannot be an id.
    pub fn thread_in(
        &self,
        namespace: &Namespace,
        id: &str,
        resource: impl Into<String>,
    ) -> Result<ThreadHandle, Error> {
        let to = ToThread {
            namespace: namespace.clone(),
            thread: ThreadId::parse(id)?,
            resource: resource.into(),
            agent: self.agent.clone(),
        };
        Ok(ThreadHandle { client: self.client.clone(), to, anyones: false })
    }

    /// A thread of this agent, whoever owns it: to be looked at, subscribed to, stopped and answered on. What is sent to it
    /// names its owner, so [`AgentHandle::thread`] is needed for that.
    ///
    /// # Errors
    /// If the text cannot be an id.
    pub fn thread_of_anyone(&self, id: &str) -> Result<ThreadHandle, Error> {
        Ok(ThreadHandle { anyones: true, ..self.thread(id, "")? })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.agent
    }

    /// Whether some program has declared it in this store.
    ///
    /// # Errors
    /// [`InputError::UnknownAgent`] if none has; or if the store cannot be read.
    pub async fn known(&self) -> Result<(), Error> {
        Ok(self.client.inner.door.knows_agent(&self.agent).await?)
    }
}

/// A thread, its owner, and the agent that answers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ThreadHandle {
    pub(super) client: Client,
    pub(super) to: ToThread,
    /// Whoever owns it.
    pub(super) anyones: bool,
}

/// What became of an input (T8.1). It is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The input as it was accepted: its id, its attributes merged, its times.
    pub signal: ThreadSignal,
    /// Where it went.
    pub action: Action,
    /// The run that takes it; none if no run does.
    pub run: Option<RunId>,
    /// Whether it had been accepted before: nothing was added (T20.4).
    pub repeat: bool,
}

/// What became of a state signal (T14.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateSent {
    /// It was accepted; its version is in the signal's mark.
    Sent(Box<Sent>),
    /// Nothing was stored or sent.
    Skipped {
        /// Why.
        reason: SkipReason,
    },
}

/// Why a state signal was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// Its lane says this already.
    Unchanged,
}

impl StateSent {
    /// What became of it, if it was not skipped.
    #[must_use]
    pub fn sent(&self) -> Option<&Sent> {
        match self {
            Self::Sent(sent) => Some(sent),
            Self::Skipped { .. } => None,
        }
    }
}

/// Where an input went, as senders are told (T8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It begins a run.
    Wake,
    /// A run that is there, or that will follow it, takes it.
    Deliver,
    /// Into the history.
    Persist,
    /// Nowhere.
    Discard,
}

/// An answer to a call that waits for somebody.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// Whether it may run.
    pub approved: bool,
    /// Why, for the model.
    pub reason: Option<String>,
    /// For a call that had suspended itself: what it goes on with.
    pub resume: Option<Value>,
}

/// What to take back (T9.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelQueued {
    /// The messages and signals with these ids, of all agents.
    Ids(Vec<String>),
    /// This agent's queued messages that carry this label of their sender.
    Owner(String),
}

impl ThreadHandle {
    /// The thread's id.
    #[must_use]
    pub fn id(&self) -> &ThreadId {
        &self.to.thread
    }

    // Sending.

    /// Sends a message (T9.1): it wakes the agent, or is taken by the run that is under way.
    ///
    /// # Errors
    /// If it breaks a rule of signals, the agent is not known, or the thread is somebody else's. Nothing was written.
    pub async fn send(&self, contents: impl Into<Contents>) -> Result<Sent, Error> {
        self.send_with(NewSignal::user(contents), SendOptions::default()).await
    }

    /// Sends a message that gets a run of its own, after those before it (T9.2).
    ///
    /// # Errors
    /// As [`ThreadHandle::send`].
    pub async fn queue(&self, contents: impl Into<Contents>) -> Result<Sent, Error> {
        self.send_with(NewSignal::user(contents), SendOptions { queue: true, ..SendOptions::default() }).await
    }

    /// Sends a signal of any category (T3.11).
    ///
    /// # Errors
    /// As [`ThreadHandle::send`].
    pub async fn signal(&self, signal: NewSignal) -> Result<Sent, Error> {
        self.send_with(signal, SendOptions::default()).await
    }

    /// Sends a signal with all that can be asked. Once this returns it is durable.
    ///
    /// # Errors
    /// As [`ThreadHandle::send`].
    pub async fn send_with(&self, signal: NewSignal, options: SendOptions) -> Result<Sent, Error> {
        check_turn(&options.turn)?;
        let keys = (ThreadKey(self.client.next_key().await?.0), self.client.next_key().await?);
        let engine = self.client.engine_with_room();
        let host = engine.as_deref().map(|engine| engine as &dyn Foresee);
        let (signal, received) = self.client.inner.door.receive(keys, self.to.clone(), signal, options, host).await?;
        Ok(Sent::of(signal, received))
    }

    /// Says how a lane of the thread stands (T14.5): it wakes the agent, unless the lane says this already.
    ///
    /// # Errors
    /// As [`ThreadHandle::send`]; and if it names no lane or no cache key, or says whether it is transient.
    pub async fn state(&self, state: NewState) -> Result<StateSent, Error> {
        self.state_with(state, SendOptions::default()).await
    }

    /// Says how a lane of the thread stands, with all that can be asked. The signal, its version and what is current in
    /// the lane are durable together (T14.6).
    ///
    /// # Errors
    /// As [`ThreadHandle::state`].
    pub async fn state_with(&self, state: NewState, options: SendOptions) -> Result<StateSent, Error> {
        check_turn(&options.turn)?;
        let keys = (ThreadKey(self.client.next_key().await?.0), self.client.next_key().await?);
        let engine = self.client.engine_with_room();
        let host = engine.as_deref().map(|engine| engine as &dyn Foresee);
        match self.client.inner.door.receive_state(keys, self.to.clone(), state, options, host).await {
            Ok((signal, received)) => Ok(StateSent::Sent(Box::new(Sent::of(signal, received)))),
            Err(InputError::NotReceived(NotReceived::Unchanged { .. })) => {
                Ok(StateSent::Skipped { reason: SkipReason::Unchanged })
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Options of a turn as [`SendOptions`] wants them.
    ///
    /// # Errors
    /// If they have no JSON form.
    pub fn turn(options: &TurnOptions) -> Result<Value, Error> {
        Ok(Payload::of(options)?.read().unwrap_or_default())
    }

    // Stopping and answering.

    /// Ends the run that has the thread; with `expected`, only if it is that one (T12.1, T12.5). False if there was
    /// nothing to end. What waits goes on with the next run (T12.4).
    ///
    /// # Errors
    /// If the thread is somebody else's, or the store does not take it.
    pub async fn abort(&self, by: &str, expected: Option<&RunId>) -> Result<bool, Error> {
        self.end_current(by, expected, false).await
    }

    /// The same, and what waits goes with it: what was delivered to the run and not taken, and what is queued, of all agents
    /// (`clearPendingSignals`, T12.4). The journals say what was dropped; nothing else does. What comes later counts.
    ///
    /// # Errors
    /// As [`ThreadHandle::abort`].
    pub async fn abort_and_clear(&self, by: &str, expected: Option<&RunId>) -> Result<bool, Error> {
        self.end_current(by, expected, true).await
    }

    async fn end_current(&self, by: &str, expected: Option<&RunId>, clear: bool) -> Result<bool, Error> {
        let Some(thread) = self.find().await? else { return Ok(false) };
        let Some(current) = thread.current.filter(|current| expected.is_none_or(|it| *it == current.run)) else {
            return Ok(false);
        };
        if clear {
            // Before the run ends: else the first of them would have the thread.
            let at = self.client.clock().now();
            let all = store::Unsend { thread: thread.key, which: Which::All, by: by.to_owned(), at };
            self.client.store().unsend(all).await?;
        }
        let run = self.client.find_in(&self.to.namespace, current.run.as_str()).await?;
        let asked = Payload::of(&Abort { by: by.to_owned(), clear })?;
        match run.send(SignalKind::Signal, ABORT.name(), asked, Some(ABORT.name().to_owned())).await {
            Ok(accepted) => Ok(matches!(accepted, Accepted::New { .. })),
            Err(Error::Signal(SignalError::Refused(Refused::ClosedRun { .. }))) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Lets a call run that waits for approval, or declines it (T13.3). The first answer stands, and a repeat of it gets
    /// the same acknowledgement (T13.10): the run that goes on.
    ///
    /// # Errors
    /// [`Error::NotWaiting`], [`Error::AnsweredOtherwise`].
    pub async fn answer(&self, call: &str, answer: Answer) -> Result<RunId, Error> {
        let thread = self.require().await?;
        let not_waiting = || Error::NotWaiting { thread: self.to.thread.to_string(), call: call.to_owned() };
        let found =
            self.client.store().calls_named(thread.key, call).await?.into_iter().next().ok_or_else(not_waiting)?;
        let WaitingCall { run, run_id, settled, .. } = found;
        let handle = self.client.by_key(run).await?;
        let update = format!("answer:{call}");
        let answer = CallAnswer {
            call: call.to_owned(),
            approved: answer.approved,
            reason: answer.reason,
            resume: answer.resume,
        };
        if settled && self.client.store().reply(run, &update).await?.is_none() {
            return Err(not_waiting());
        }
        let sent = handle.send(SignalKind::Update, ANSWER.name(), Payload::of(&answer)?, Some(update.clone())).await;
        match sent {
            Ok(Accepted::New { .. }) => return Ok(run_id),
            Ok(Accepted::Already { .. }) | Err(Error::Signal(SignalError::Refused(Refused::ClosedRun { .. }))) => {}
            Err(e) => return Err(e),
        }
        let reply = match self.client.store().reply(run, &update).await? {
            Some(reply) => reply,
            None => handle.reply(&update).await.map_err(|_| not_waiting())?,
        };
        match reply.read::<CallAnswered>() {
            Ok(CallAnswered::Taken(first)) if first == answer => Ok(run_id),
            Ok(CallAnswered::Taken(_)) => Err(Error::AnsweredOtherwise { call: call.to_owned() }),
            Ok(CallAnswered::NotWaiting) | Err(_) => Err(not_waiting()),
        }
    }

    /// Gives what the client's own tools came to: a run goes on from there, after what is pending and ahead of what is
    /// queued (T13.14). Give those of one answer together. The same calls again are the same run, and each call gets one
    /// result whatever happens.
    ///
    /// The options are those of the new run; what they leave open is as it was for the turn that made the calls, as long
    /// as that is kept: the client's tools, the form of the answer, limits.
    ///
    /// # Errors
    /// [`Error::NotWaiting`] if the history has no such call; [`Error::AnsweredOtherwise`] for other results than before.
    pub async fn continue_with(&self, results: Vec<CallResult>, options: &TurnOptions) -> Result<RunId, Error> {
        let (call, options) = self.goes_on(&results, options).await?;
        check_turn(&options)?;
        let keys = (ThreadKey(self.client.next_key().await?.0), self.client.next_key().await?);
        match self.client.inner.door.resume(keys, self.to.clone(), results, options).await {
            Ok(Received { run: Some(run), .. }) => Ok(run),
            Ok(_) => Err(Error::NotWaiting { thread: self.to.thread.to_string(), call }),
            Err(InputError::NotReceived(NotReceived::Conflict { .. })) => Err(Error::AnsweredOtherwise { call }),
            Err(e) => Err(e.into()),
        }
    }

    /// Lets a call run.
    ///
    /// # Errors
    /// As [`ThreadHandle::answer`].
    pub async fn approve(&self, call: &str) -> Result<RunId, Error> {
        self.answer(call, Answer { approved: true, ..Answer::default() }).await
    }

    /// Declines a call.
    ///
    /// # Errors
    /// As [`ThreadHandle::answer`].
    pub async fn decline(&self, call: &str, reason: Option<String>) -> Result<RunId, Error> {
        self.answer(call, Answer { approved: false, reason, resume: None }).await
    }

    /// The calls that wait for an answer.
    ///
    /// # Errors
    /// If the thread is somebody else's, or the store cannot be read.
    pub async fn waiting(&self) -> Result<Vec<WaitingCall>, Error> {
        match self.find().await? {
            Some(thread) => Ok(self.client.store().waiting_calls(Some(thread.key), 1_000).await?),
            None => Ok(Vec::new()),
        }
    }

    // Taking back.

    /// Takes back what was sent and no run has taken: it leaves no message and no echo (T9.9 to T9.12). By ids: whatever
    /// is queued on the thread, whatever is pending at the run that has it, and what is held back as too many runs had
    /// followed each other (T10.8). By the sender's label: this agent's queued messages. Who asked stands in the journals of
    /// the runs.
    ///
    /// Tells the ids of what was really taken back; what a run has taken is not among them. What is pending at a run is
    /// decided by the run itself, so this waits until a process that has the agent says so.
    ///
    /// # Errors
    /// If the thread is somebody else's, or the store does not take it.
    pub async fn cancel_queued(&self, which: CancelQueued, by: &str) -> Result<Vec<String>, Error> {
        let Some(thread) = self.find().await? else { return Ok(Vec::new()) };
        let store = self.client.store();
        let (which, mut pending) = match which {
            CancelQueued::Ids(ids) => (Which::Inputs(ids.clone()), ids),
            CancelQueued::Owner(owner) => (Which::Owner { agent: self.to.agent.clone(), owner }, Vec::new()),
        };
        let at = self.client.clock().now();
        let mut cancelled = store.unsend(store::Unsend { thread: thread.key, which, by: by.to_owned(), at }).await?;
        pending.retain(|id| !cancelled.contains(id));
        while !pending.is_empty() {
            let Some(current) = self.find().await?.and_then(|thread| thread.current) else { break };
            let run = self.client.find_in(&self.to.namespace, current.run.as_str()).await?;
            let untaken = store.untaken(run.key(), INPUT).await?;
            let ids: Vec<String> = pending.iter().filter(|id| untaken.contains(id)).cloned().collect();
            if ids.is_empty() {
                break;
            }
            match run.update(&UNSEND, &Unsend { ids, by: by.to_owned() }).await {
                Ok(Unsent { ids }) => {
                    cancelled.extend(ids);
                    break;
                }
                // It has ended meanwhile: what it had not taken, the run that follows begins with.
                Err(Error::Unanswered { .. } | Error::Signal(SignalError::Refused(Refused::ClosedRun { .. }))) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(cancelled)
    }

    /// How many messages are queued (T9.11); only this agent's with a sender's label, if one is given. What is pending at
    /// the run that has the thread is not counted.
    ///
    /// # Errors
    /// If the thread is somebody else's, or the store cannot be read.
    pub async fn queue_count(&self, owner: Option<&str>) -> Result<i64, Error> {
        match self.find().await? {
            Some(thread) => {
                let only = owner.map(|owner| (self.to.agent.as_str(), owner));
                Ok(self.client.store().queued(thread.key, only).await?)
            }
            None => Ok(0),
        }
    }

    /// How many messages are queued, now and whenever that changes (T9.11).
    #[must_use]
    pub fn queue_counts(&self, owner: Option<String>) -> QueueCounts {
        QueueCounts::new(self.client.clone(), self.clone(), owner)
    }

    // Looking.

    /// The thread as it stands; none if nothing was accepted for it yet.
    ///
    /// # Errors
    /// [`Error::ForeignThread`] if it is somebody else's (T2.3).
    pub async fn find(&self) -> Result<Option<Thread>, Error> {
        let found = self.client.store().thread(&self.to.namespace, &self.to.thread).await?;
        match found {
            Some(thread) if !self.anyones && thread.resource != self.to.resource => {
                Err(Error::ForeignThread { thread: self.to.thread.to_string() })
            }
            found => Ok(found),
        }
    }

    /// How the lanes of its state signals stand, by their names; none if nothing was accepted for it yet.
    ///
    /// # Errors
    /// As [`ThreadHandle::find`].
    pub async fn lanes(&self) -> Result<Vec<Lane>, Error> {
        match self.find().await? {
            Some(thread) => Ok(self.client.store().lanes(thread.key).await?),
            None => Ok(Vec::new()),
        }
    }

    /// Its metadata as clients read it, with the tracking of its lanes (T14.7).
    ///
    /// # Errors
    /// [`Error::UnknownThread`], [`Error::ForeignThread`].
    pub async fn metadata(&self) -> Result<Value, Error> {
        let thread = self.require().await?;
        let lanes = self.client.store().lanes(thread.key).await?;
        Ok(Lane::project(&thread.metadata.read().unwrap_or_default(), &lanes))
    }

    pub(super) async fn require(&self) -> Result<Thread, Error> {
        self.find().await?.ok_or_else(|| Error::UnknownThread { thread: self.to.thread.to_string() })
    }

    /// Messages of the history, in its order. A row that cannot be read is left out, with a warning.
    ///
    /// # Errors
    /// [`Error::UnknownThread`], [`Error::ForeignThread`].
    pub async fn history(&self, window: Window) -> Result<Vec<Message>, Error> {
        let thread = self.require().await?;
        let rows = self.client.store().messages(thread.key, window).await?;
        Ok(rows.iter().filter_map(message_of).collect())
    }

    /// The history as people read it (T6.7 to T6.9).
    ///
    /// # Errors
    /// As [`ThreadHandle::history`].
    pub async fn shown(&self, window: Window, include_reminders: bool) -> Result<Vec<Shown>, Error> {
        Ok(Message::shown(&self.history(window).await?, include_reminders))
    }

    /// What its runs say, as it comes: of the run that has the thread from its first chunk on, or what follows a cursor
    /// (T11.3, T11.10). It waits for a thread that is not there yet (T11.2), and has no end of its own.
    #[must_use]
    pub fn subscribe(&self, since: Since) -> Subscription {
        Subscription::new(self.client.clone(), self.clone(), since)
    }
}

/// Refuses options that a turn could not read: it would fail with its input in hand (T20.9).
pub(super) fn check_turn(options: &Value) -> Result<(), Error> {
    if options.is_null() {
        return Ok(());
    }
    let read: Result<TurnOptions, _> = serde_path_to_error::deserialize(options);
    let checked = read.map_err(|e| e.to_string()).and_then(|options| options.check());
    checked.map_err(|problem| Error::TurnOptions { problem })
}

/// A row of the history as a message; none, with a warning, if it is none.
pub(super) fn message_of(row: &store::Message) -> Option<Message> {
    let json: Value = row.content.read().ok()?;
    Message::of_row(row.seq, &json)
        .map(|message| message.entered(row.created_at))
        .inspect_err(|error| tracing::warn!(seq = row.seq, %error, "a message of the history is left out"))
        .ok()
}

impl Sent {
    fn of(signal: ThreadSignal, received: Received) -> Self {
        let action = match received.route {
            Route::Wake => Action::Wake,
            Route::Deliver | Route::Queue => Action::Deliver,
            Route::Persist => Action::Persist,
            Route::Discard => Action::Discard,
        };
        Self { signal, action, run: received.run, repeat: received.repeat }
    }
}

impl Client {
    /// An agent to talk to, here or in another process.
    #[must_use]
    pub fn agent(&self, name: impl Into<String>) -> AgentHandle {
        AgentHandle::new(self.clone(), name)
    }
}

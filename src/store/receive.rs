//! `receive`: the door in for threads. Where an input goes is decided in the transaction that stores it, against the
//! thread's locked row (T7.10): no window lies between how the thread stands and what becomes of the input.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::contract::{Arrival, Commit, Hint, History, Leaves, Lines, NewRun, Owned};
use super::lanes::{self, LaneChange, Standing};
use super::make;
use super::open::Store;
use super::start::CallerTx;
use super::turns::{self, Entry, Queued};
use super::writer::{self, Append, Batch, Frame, Shared};
use super::{Addressee, Chunk, Error};
use crate::clock::Instant;
use crate::id::{Fence, Namespace, RunId, RunKey, Seq, ThreadId, ThreadKey, WorkerKey};
use crate::journal::{Event, Recorded, RunQueued};
use crate::message::{Lane, LaneCopy, StateMark};
use crate::payload::Payload;
use crate::run::{Run, Status};
use crate::signal::{Accepted, Pending, SignalKind};
use crate::thread::{Branch, CHUNKS, CallResult, INPUT, NewMessage, Route, Routing, TurnInput};

/// How long a sender's idempotency key is remembered (T20.5).
const KEY_KEPT: std::time::Duration = std::time::Duration::from_secs(24 * 3_600);

/// How far ahead of its place in the queue an input is put that goes on from the client's tools.
const AHEAD: i64 = 1 << 40;

/// An input to a thread, at the door.
#[derive(Debug, Clone)]
pub struct Input {
    /// The thread's namespace.
    pub namespace: Namespace,
    /// The thread.
    pub thread: ThreadId,
    /// The thread's owner.
    pub resource: String,
    /// The key that the thread gets if it is new, from a block that this process reserved.
    pub thread_key: ThreadKey,
    /// The run that must have the thread, if the sender names one (T2.2).
    pub only_run: Option<RunId>,
    /// The agent that is addressed.
    pub agent: String,
    /// The sender's id, or one made here; unique per thread.
    pub id: String,
    /// The sender's idempotency key.
    pub key: Option<String>,
    /// Tells equal contents from different ones (T20.4).
    pub digest: String,
    /// What it is, as the history says.
    pub category: &'static str,
    /// The lane that it changes, if it is a state signal (T14.5). Its forms get their version when it is received.
    pub lane: Option<LaneChange>,
    /// What the sender asks.
    pub routing: Routing,
    /// The sender's label of a queued message (T9.10).
    pub owner: Option<String>,
    /// What is stored if the active branch holds.
    pub active: Form,
    /// What is stored if the idle branch holds.
    pub idle: Form,
    /// The turn that it begins, if it does.
    pub turn: NewTurn,
    /// What the client's own tools came to: a turn goes on from there, ahead of what is queued (T13.14). Then the two forms
    /// say nothing.
    pub results: Vec<CallResult>,
    /// What a direct call says, as rows of the history: a turn of its own begins with it. Then the two forms say nothing.
    pub said: Vec<Payload>,
    /// A thread that is made for it is not listed: it is this one call's.
    pub aside: bool,
    /// When.
    pub at: Instant,
    /// The most signals that may be pending at the turn that is under way.
    pub pending_max: i64,
}

impl Input {
    /// The turn that it begins on an idle thread with that key, as its history is then.
    #[must_use]
    pub fn begun(&self, thread: ThreadKey, worker: WorkerKey) -> History {
        let begins = self.begins(thread, &self.idle, Leaves::Running(worker));
        self.owned_by(worker, thread, &begins)
    }

    fn begins(&self, thread: ThreadKey, form: &Form, leaves: Leaves) -> Commit {
        let turn = &self.turn;
        let asks = TurnInput {
            key: thread,
            thread: self.thread.clone(),
            resource: self.resource.clone(),
            agent: self.agent.clone(),
            options: turn.options.clone(),
            first: if self.is_direct() { Vec::new() } else { vec![form.signal.clone()] },
            said: self.said.clone(),
            results: self.results.clone(),
            follow_ups_max: turn.follow_ups,
            follow_ups_left: turn.follow_ups,
        };
        let new = NewRun {
            key: turn.run,
            namespace: self.namespace.clone(),
            id: turn.id.clone(),
            workflow: turn.workflow.clone(),
            version: turn.version,
            thread: Some(thread),
        };
        begins(new, turn.seed, &asks, leaves, self.at)
    }

    /// What would be read of a turn that was just begun as a worker's own.
    fn owned_by(&self, worker: WorkerKey, thread: ThreadKey, begun: &Commit) -> History {
        let line = begun.lines.lines.first().and_then(|line| {
            let json = std::str::from_utf8(begun.lines.json(line)).ok()?;
            let event = Event::decode(Seq(1), line.kind, line.version, json).ok()?;
            Some(Recorded { seq: Seq(1), at: line.at, event })
        });
        let run = Run {
            key: begun.run,
            namespace: self.namespace.clone(),
            id: self.turn.id.clone(),
            workflow: self.turn.workflow.clone(),
            version: self.turn.version,
            thread: Some(thread),
            status: Status::Running { worker },
            fence: Fence::FIRST,
            head: Seq(1),
            signals_accepted: 0,
            signals_pending: 0,
            created_at: self.at,
            updated_at: self.at,
        };
        History { run, journal: line.into_iter().collect(), pending: Vec::new() }
    }

    /// What was found out in advance, if it holds for a thread.
    fn first_on(&self, thread: ThreadKey) -> Option<&First> {
        self.turn.first.as_ref().filter(|first| first.thread == thread)
    }
}

/// An input as one of the two branches makes it: its attributes are merged.
#[derive(Debug, Clone)]
pub struct Form {
    /// For the turn.
    pub signal: Payload,
    /// For the history.
    pub row: Payload,
    /// What subscribers are shown if it is only put into the history: the chunks of a run of its own (T11.9).
    pub shown: Vec<Payload>,
}

/// The turn that an input may begin.
#[derive(Debug, Clone)]
pub struct NewTurn {
    /// Its run's key, from a block that this process reserved.
    pub run: RunKey,
    /// Its run's id.
    pub id: RunId,
    /// Whether the sender has chosen that id: then no other run may have had it.
    pub named: bool,
    /// What its values derive from.
    pub seed: uuid::Uuid,
    /// The workflow's written name.
    pub workflow: String,
    /// The workflow's version.
    pub version: u32,
    /// What the sender asks of it.
    pub options: Payload,
    /// How many turns may follow it without an idle moment (T10.8).
    pub follow_ups: u32,
    /// The worker of this process that takes it at once, without a claim, if it is still registered; none if it is left to
    /// whoever claims it.
    pub worker: Option<WorkerKey>,
    /// What that worker's code asks for first, found out in advance: written with the turn's beginning.
    pub first: Option<First>,
}

/// The first commit of a turn that begins here, made before the turn has begun: whoever made it keeps what it holds of the
/// turn beside it, and gets that back once it is written ([`Hint::Owned`]). It is dropped if no turn begins after all.
#[derive(Clone)]
pub struct First {
    /// The thread for which it was made; on any other it does not hold.
    pub thread: ThreadKey,
    /// All that follows the turn's queued line; it leaves the turn running.
    pub commit: Arc<Commit>,
    /// What its maker holds of the turn.
    pub held: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for First {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("First").field("thread", &self.thread).field("commit", &self.commit).finish_non_exhaustive()
    }
}

/// A worker of this process that can take turns as they begin.
pub trait Foresee: Send + Sync {
    /// Its number.
    fn worker(&self) -> WorkerKey;

    /// What the code of a turn asks for first, if it begins as `history` says. None if that cannot be told in advance: then
    /// the worker looks once the turn has begun.
    fn foresee(&self, thread: ThreadKey, history: History) -> Option<First>;
}

impl Input {
    /// Whether it is no signal: a direct call, or what the client's own tools came to.
    fn is_direct(&self) -> bool {
        !self.said.is_empty() || !self.results.is_empty()
    }
}

/// What became of an input. It is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The thread.
    pub thread: ThreadKey,
    /// The id under which it was accepted: of a repeat by its key, that of the first.
    pub id: String,
    /// Which of the sender's wishes held.
    pub branch: Branch,
    /// Where it went.
    pub route: Route,
    /// The run that takes it; none if no run does.
    pub run: Option<RunId>,
    /// The version of its lane with it, if it is a state signal.
    pub version: Option<u64>,
    /// When it was accepted.
    pub accepted_at: Instant,
    /// Whether it had been accepted before: nothing was added (T20.4).
    pub repeat: bool,
}

/// Why an input was not received. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReceived {
    /// The thread is somebody else's (T2.3).
    #[error("Access denied: thread belongs to a different resource")]
    Foreign,
    /// The id, or the idempotency key, came before with other contents (T20.4).
    #[error("signal {id} was accepted before with other contents; give what is new an id or key of its own")]
    Conflict {
        /// The id under which it was accepted.
        id: String,
    },
    /// Its lane says this already (T14.4).
    #[error("lane {lane} of thread {thread} says this already; a change needs another cacheKey")]
    Unchanged {
        /// The thread.
        thread: ThreadId,
        /// The lane.
        lane: String,
    },
    /// Another run has the id that the sender has chosen.
    #[error("run id {run} belongs to another run already; choose another, or leave it out")]
    RunIdInUse {
        /// The id.
        run: RunId,
    },
    /// The named run does not have the thread (T2.2).
    #[error("No active agent run found for signal target")]
    NoRun,
    /// Too much waits for the turn that is under way.
    #[error("thread {thread} has {pending} signals pending, the limit is {limit}; send it again once some were taken")]
    TooManyPending {
        /// The thread.
        thread: ThreadId,
        /// How many wait.
        pending: i64,
        /// The most that may wait.
        limit: i64,
    },
}

impl Store {
    /// Takes an input to a thread: routes it, and stores it where it goes, in one transaction. A thread that is not
    /// there yet is made (T2.4). What is answered is durable.
    ///
    /// # Errors
    /// The inner one says why it was not received; nothing was written. [`Error::Overloaded`] if the writer's queue
    /// stayed full for five seconds; [`Error::Unavailable`], [`Error::Closed`].
    pub async fn receive(&self, input: Input) -> Result<Result<Received, NotReceived>, Error> {
        self.0.shared.open()?;
        let answer = self.send_input(input).await?;
        self.heard(answer).await
    }
}

pub(super) type InputAnswer = Result<Received, NotReceived>;

/// What became of inputs, and who is to hear of it.
#[derive(Debug, Default)]
pub(super) struct Took {
    pub(super) answers: Vec<InputAnswer>,
    new: u64,
    signalled: Vec<(RunKey, Vec<Pending>)>,
    due: bool,
    owned: Vec<Owned>,
    shown: Vec<ThreadKey>,
    /// Whether there are threads that were not there before.
    made: bool,
}

/// The key whose bell rings when there are new threads: no run and no thread has it.
pub const NEW_THREADS: i64 = 0;

/// Tells the engine here, subscribers here, and processes elsewhere.
pub(super) fn announce(shared: &Shared, took: &Took) {
    shared.arrivals.fetch_add(took.new, Ordering::SeqCst);
    for owned in &took.owned {
        shared.hints.push(Hint::Owned(Box::new(owned.clone())));
    }
    for (run, signals) in &took.signalled {
        shared.signalled(*run, signals.clone());
    }
    for thread in &took.shown {
        shared.shown(*thread);
    }
    if took.made {
        shared.flows.ring(NEW_THREADS);
    }
    if took.due {
        shared.due();
    }
}

/// How a thread stands.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) key: ThreadKey,
    pub(super) resource: String,
    /// The turn that has it, and its agent.
    pub(super) current: Option<(RunKey, RunId, String)>,
    /// If nobody has it: a turn that waits all the same, as too many had followed each other (T10.8).
    pub(super) held: Option<Queued>,
    pub(super) last_place: i64,
}

/// An input that was accepted before.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) id: String,
    pub(super) digest: String,
    pub(super) received: Received,
}

/// Takes inputs in one transaction, or as the last part of one that is open. `doubtful`: they may have landed before, and
/// nobody was told.
pub(super) async fn receive_all(
    mut tx: CallerTx<'_>,
    inputs: &[Input],
    doubtful: bool,
    frame: Frame,
) -> Result<Took, sqlx::Error> {
    let begins = if frame == Frame::Whole { Frame::Opens } else { Frame::Inside };
    let mut views = look(tx.again(), inputs, begins).await?;
    let missing: Vec<&Input> = inputs.iter().filter(|it| !views.contains_key(&name(it)) && makes_thread(it)).collect();
    if !missing.is_empty() {
        let of = |it: &&Input| make::NewThread {
            key: it.thread_key,
            namespace: it.namespace.clone(),
            id: it.thread.clone(),
            resource: it.resource.clone(),
            title: String::new(),
            metadata: Payload::null(),
            aside: it.aside,
            at: it.at,
        };
        make::insert(tx.again(), missing.iter().map(of).collect()).await?;
        views = look(tx.again(), inputs, Frame::Inside).await?;
    }
    let asked: Vec<(usize, ThreadKey)> =
        inputs.iter().enumerate().filter_map(|(i, it)| Some((i, views.get(&name(it))?.key))).collect();
    let mut known = known(tx.again(), inputs, &asked).await?;
    let changed: Vec<(ThreadKey, &str)> =
        asked.iter().filter_map(|(i, thread)| Some((*thread, inputs[*i].lane.as_ref()?.lane.as_str()))).collect();
    let lanes = lanes::standing(tx.again(), &changed).await?;
    let workers = registered(tx.again(), inputs).await?;
    let taken = super::named::taken(tx.again(), inputs).await?;
    let mut plan = Plan { due: doubtful, lanes, workers, taken, ..Plan::default() };
    for (i, input) in inputs.iter().enumerate() {
        plan.take(i, input, views.get_mut(&name(input)), known.remove(&i), doubtful);
    }
    let mut took = plan.write(tx.again(), inputs, doubtful).await?;
    took.made = !missing.is_empty() || doubtful;
    Ok(took)
}

fn name(input: &Input) -> (String, String) {
    (input.namespace.to_string(), input.thread.to_string())
}

/// Whether an input makes a thread that is not there (T2.4).
fn makes_thread(input: &Input) -> bool {
    input.only_run.is_none() && input.routing.decide(&input.agent, None).1 != Route::Discard
}

/// What inputs that have looked are going to write.
#[derive(Debug, Default)]
struct Plan {
    answers: Vec<Option<InputAnswer>>,
    /// Turns that begin, or are queued.
    begins: Batch,
    /// What is delivered, and beside it which input it is.
    arrivals: Batch,
    arrivals_of: Vec<usize>,
    /// What is new, to be remembered: which input, and what it is answered.
    accepted: Vec<(usize, Received)>,
    /// The lanes that they change, as they stood.
    lanes: Standing,
    messages: Vec<(ThreadKey, NewMessage)>,
    queue: Vec<Queued>,
    /// Turns that had been held back and become due.
    revived: Vec<Queued>,
    shown: Vec<Append>,
    /// The workers that are registered, of those that are to take turns at once.
    workers: Vec<WorkerKey>,
    /// The ids that senders have chosen for runs, and that other runs have.
    taken: HashSet<RunId>,
    /// Turns that were begun for them.
    owned: Vec<Owned>,
    /// Turns that a worker has without knowing it, and where their journals end if it has not.
    disowned: Vec<(RunKey, Seq)>,
    /// Threads as they are to stand.
    moved: HashMap<ThreadKey, Moved>,
    due: bool,
}

/// How a thread is to stand.
#[derive(Debug, Clone)]
pub(super) struct Moved {
    pub(super) run: Option<RunKey>,
    pub(super) agent: Option<String>,
    pub(super) last_place: i64,
    pub(super) at: Instant,
}

impl Plan {
    fn take(&mut self, i: usize, input: &Input, view: Option<&mut View>, known: Option<Known>, doubtful: bool) {
        let answer = match view {
            Some(view) => self.take_for(i, input, view, known, doubtful),
            None if input.only_run.is_some() => Some(Err(NotReceived::NoRun)),
            // To a thread that nobody has made yet, and it asks for nothing.
            None => {
                let version = input.lane.as_ref().map(|_| Lane::next_version(None));
                Some(Ok(received(input, input.thread_key, Branch::Idle, Route::Discard, None, version)))
            }
        };
        self.answers.push(answer);
    }

    fn take_for(
        &mut self,
        i: usize,
        input: &Input,
        view: &mut View,
        known: Option<Known>,
        doubtful: bool,
    ) -> Option<InputAnswer> {
        if view.resource != input.resource {
            return Some(Err(NotReceived::Foreign));
        }
        if let Some(known) = known {
            if known.digest != input.digest {
                return Some(Err(NotReceived::Conflict { id: known.id }));
            }
            let landed = doubtful && known.id == input.id && known.received.accepted_at == input.at;
            if landed && let (Route::Deliver, Some((run, ..))) = (known.received.route, &view.current) {
                // It landed when its answer was lost: the engine is told by the same way as if it came now.
                let form = form(input, known.received.branch, known.received.version);
                self.deliver(i, input, *run, &form);
            }
            if landed && known.received.route == Route::Wake && input.turn.worker.is_some() {
                // It landed as a worker's own, and that worker has not heard of it: it is freed, and found by a claim.
                let lines = input.first_on(view.key).map_or(0, |first| first.commit.lines.len());
                self.disowned.push((input.turn.run, Seq(1).plus(lines)));
            }
            return Some(Ok(Received { repeat: !landed, ..known.received }));
        }
        if input.only_run.as_ref().is_some_and(|only| view.current.as_ref().is_none_or(|(_, id, _)| id != only)) {
            return Some(Err(NotReceived::NoRun));
        }
        if self.taken.contains(&input.turn.id) {
            return Some(Err(NotReceived::RunIdInUse { run: input.turn.id.clone() }));
        }
        let mut version = None;
        if let Some(change) = &input.lane {
            let lane = self.lanes.get(&(view.key, change.lane.clone()));
            if lane.is_some_and(|lane| lane.says(&change.cache_key, change.mode)) {
                let (thread, lane) = (input.thread.clone(), change.lane.clone());
                return Some(Err(NotReceived::Unchanged { thread, lane }));
            }
            version = Some(Lane::next_version(lane));
        }
        let current = view.current.as_ref().map(|(_, _, agent)| agent.as_str());
        let (branch, mut route) = input.routing.decide(&input.agent, current);
        if route == Route::Wake
            && let Some(held) = view.held.take()
        {
            // Somebody writes again: what was held back goes first, and the input joins it or waits behind it.
            route = if held.agent == input.agent && !input.routing.queue { Route::Deliver } else { Route::Queue };
            view.current = Some((held.run, held.run_id.clone(), held.agent.clone()));
            self.move_thread(view, input.at);
            self.revived.push(held);
            self.due = true;
        }
        let form = &form(input, branch, version);
        let run = match route {
            Route::Wake => {
                match input.turn.worker.filter(|worker| self.workers.contains(worker)) {
                    Some(worker) => self.own(input, view.key, form, worker),
                    None => {
                        self.begins.commit(input.begins(view.key, form, Leaves::Due { at: input.at }), None);
                        self.due = true;
                    }
                }
                view.current = Some((input.turn.run, input.turn.id.clone(), input.agent.clone()));
                self.move_thread(view, input.at);
                Some(input.turn.id.clone())
            }
            Route::Queue => {
                self.begins.commit(input.begins(view.key, form, Leaves::Waiting { wake_at: None }), None);
                view.last_place += 1;
                // What goes on from the client's tools keeps its order, and is ahead of all that is queued (T9.7).
                let place = if input.results.is_empty() { view.last_place } else { view.last_place - AHEAD };
                self.queue.push(Queued::turn(view.key, place, input));
                self.move_thread(view, input.at);
                Some(input.turn.id.clone())
            }
            Route::Deliver => {
                let (run, id, _) = view.current.clone()?;
                self.deliver(i, input, run, form);
                self.accepted.push((i, received(input, view.key, branch, route, Some(id), version)));
                // Whether there is room for it is only known once it is written.
                return None;
            }
            Route::Persist => {
                self.persist(input, view, branch, form);
                None
            }
            Route::Discard => None,
        };
        let received = received(input, view.key, branch, route, run, version);
        if route != Route::Discard {
            self.accepted.push((i, received.clone()));
        }
        Some(Ok(received))
    }

    fn move_thread(&mut self, view: &View, at: Instant) {
        let moved = Moved {
            run: view.current.as_ref().map(|(run, ..)| *run),
            agent: view.current.as_ref().map(|(_, _, agent)| agent.clone()),
            last_place: view.last_place,
            at,
        };
        self.moved.insert(view.key, moved);
    }

    /// The turn begins as a worker's own: what it would read of it is known here, and what its code asks for first may be.
    fn own(&mut self, input: &Input, thread: ThreadKey, form: &Form, worker: WorkerKey) {
        let mut begins = input.begins(thread, form, Leaves::Running(worker));
        begins.fence = Fence::FIRST;
        let history = input.owned_by(worker, thread, &begins);
        let first = input.first_on(thread).cloned();
        if let Some(first) = &first {
            begins.continued(&first.commit);
        }
        self.begins.commit(begins, None);
        self.owned.push(Owned { history, first });
    }

    fn deliver(&mut self, i: usize, input: &Input, run: RunKey, form: &Form) {
        self.arrivals.arrivals.push(Arrival {
            to: Addressee::Key(run),
            kind: SignalKind::Signal,
            name: INPUT.to_owned(),
            id: input.id.clone(),
            payload: form.signal.clone(),
            at: input.at,
            pending_max: input.pending_max,
        });
        self.arrivals_of.push(i);
    }

    fn persist(&mut self, input: &Input, view: &mut View, branch: Branch, form: &Form) {
        let message = NewMessage {
            id: input.id.clone(),
            role: "signal",
            category: Some(input.category),
            row: form.row.clone(),
            at: input.at,
            again: false,
        };
        self.messages.push((view.key, message));
        match (branch, &view.current) {
            // The next turn reads it; nobody is shown it now (T7.4).
            (Branch::Active, _) => {}
            (Branch::Idle, None) => self.shown.push(turns::shown(view.key, &input.id, form.shown.clone(), input.at)),
            // Runs do not interleave: subscribers are shown it once the other agent's turn has ended (T11.9).
            (Branch::Idle, Some(_)) => {
                view.last_place += 1;
                self.queue.push(Queued::shown(view.key, view.last_place, input, form));
                self.move_thread(view, input.at);
            }
        }
    }

    async fn write(self, mut tx: CallerTx<'_>, inputs: &[Input], doubtful: bool) -> Result<Took, sqlx::Error> {
        let Self {
            mut answers,
            begins,
            arrivals,
            arrivals_of,
            mut accepted,
            lanes,
            messages,
            queue,
            revived,
            shown,
            moved,
            owned,
            disowned,
            due,
            ..
        } = self;
        let mut took = Took { due, owned, ..Took::default() };
        if !begins.commits.is_empty() {
            let facts = super::commit::write(tx.again(), &begins, Frame::Inside).await?;
            if let Some(refused) = facts.commits.iter().find(|fact| !fact.is_applied()) {
                return Err(sqlx::Error::Protocol(format!("a turn could not be begun: {refused:?}")));
            }
            took.shown.extend(facts.shown);
        }
        if !arrivals.arrivals.is_empty() {
            let facts = super::commit::rows(tx.again(), &arrivals, Frame::Inside).await?.arrivals;
            for ((arrival, fact), i) in arrivals.arrivals.iter().zip(facts).zip(arrivals_of) {
                match super::accept::answer(arrival, &fact, doubtful) {
                    Ok((run, Accepted::New { ordinal })) => {
                        let signal = super::accept::pending(arrival, ordinal);
                        match took.signalled.iter_mut().find(|(key, _)| *key == run) {
                            Some((_, signals)) => signals.push(signal),
                            None => took.signalled.push((run, vec![signal])),
                        }
                    }
                    Ok((_, Accepted::Already { .. })) => {}
                    Err(refused) => {
                        answers[i] = Some(Err(not_received(refused, &inputs[i])?));
                        accepted.retain(|(accepted, _)| *accepted != i);
                    }
                }
            }
        }
        if !accepted.is_empty() {
            remember(tx.again(), inputs, &accepted).await?;
            let changed: Vec<(ThreadKey, Lane)> =
                accepted.iter().filter_map(|(i, received)| changed(&inputs[*i], received, &lanes)).collect();
            let changed: Vec<(ThreadKey, &Lane)> = changed.iter().map(|(thread, lane)| (*thread, lane)).collect();
            lanes::track(tx.again(), &changed).await?;
        }
        if !messages.is_empty() {
            let entries = messages.iter();
            let entries: Vec<Entry<'_>> =
                entries.map(|(thread, message)| Entry { thread: *thread, run: None, message }).collect();
            turns::add_messages(tx.again(), &entries).await?;
        }
        if !queue.is_empty() {
            turns::enqueue(tx.again(), &queue).await?;
            took.shown.extend(queue.iter().map(|it| it.thread));
        }
        if !revived.is_empty() {
            turns::revive(tx.again(), &revived).await?;
        }
        if !disowned.is_empty() {
            twins!(CallerTx: tx.again(), disown(&disowned))?;
        }
        if !shown.is_empty() {
            took.shown.extend(shown.iter().map(|append| ThreadKey(append.run.0)));
            let batch = Batch::of_appends(shown);
            super::commit::rows(tx.again(), &batch, Frame::Inside).await?;
        }
        if moved.is_empty() {
            writer::end(tx).await?;
        } else {
            move_threads(tx, &moved, Frame::Closes).await?;
        }
        took.new = accepted.len() as u64;
        for (i, received) in accepted {
            if answers[i].is_none() {
                answers[i] = Some(Ok(received));
            }
        }
        took.answers = answers
            .into_iter()
            .map(|answer| answer.ok_or_else(|| sqlx::Error::Protocol("an input without an answer".into())))
            .collect::<Result<_, _>>()?;
        Ok(took)
    }
}

/// What is stored of an input, with the version of its lane in it.
fn form(input: &Input, branch: Branch, version: Option<u64>) -> Form {
    let form = match branch {
        Branch::Active => &input.active,
        Branch::Idle => &input.idle,
    };
    let Some(version) = version else { return form.clone() };
    let numbered = |payload: &Payload| numbered(payload, version);
    Form { signal: numbered(&form.signal), row: numbered(&form.row), shown: form.shown.iter().map(numbered).collect() }
}

/// A form of a state signal with its version in it.
pub(super) fn numbered(payload: &Payload, version: u64) -> Payload {
    let Ok(mut value) = payload.read::<serde_json::Value>() else { return payload.clone() };
    StateMark::number(&mut value, version);
    Payload::of(&value).unwrap_or_else(|_| payload.clone())
}

/// How the lane of an accepted input stands with it.
fn changed(input: &Input, received: &Received, lanes: &Standing) -> Option<(ThreadKey, Lane)> {
    let (change, version) = (input.lane.as_ref()?, received.version?);
    let LaneChange { lane, cache_key, mode } = change.clone();
    let before = lanes.get(&(received.thread, lane.clone()));
    let copy = LaneCopy { id: input.id.clone(), cache_key, mode, version };
    Some((received.thread, Lane::after(before, &lane, copy, &[], input.at)))
}

fn received(
    input: &Input,
    thread: ThreadKey,
    branch: Branch,
    route: Route,
    run: Option<RunId>,
    version: Option<u64>,
) -> Received {
    let id = input.id.clone();
    Received { thread, id, branch, route, run, version, accepted_at: input.at, repeat: false }
}

/// A turn that has ended does not have its thread: the commit that ends it hands the thread on.
fn not_received(refused: crate::signal::Refused, input: &Input) -> Result<NotReceived, sqlx::Error> {
    match refused {
        crate::signal::Refused::TooManyPending { pending, limit, .. } => {
            Ok(NotReceived::TooManyPending { thread: input.thread.clone(), pending, limit })
        }
        other => Err(sqlx::Error::Protocol(format!("thread {} is held by a run that is gone: {other}", input.thread))),
    }
}

/// The commit that queues a turn.
pub(super) fn begins(new: NewRun, seed: uuid::Uuid, input: &TurnInput, leaves: Leaves, at: Instant) -> Commit {
    let mut lines = Lines::default();
    let queued = RunQueued {
        run: new.id.clone(),
        workflow: new.workflow.clone(),
        version: new.version,
        seed,
        input: Payload::of(input).unwrap_or_else(|_| Payload::null()),
        deadline: None,
    };
    lines.push(at, &Event::RunQueued(queued));
    // Nobody owns it yet: the first claim makes it the first fence.
    Commit { begins: Some(Box::new(new.clone())), lines, ..Commit::new(new.key, Fence(0), Seq::NONE, leaves, at) }
}

/// The workers that are registered, of those that are to take turns at once. They stay so until the transaction ends.
async fn registered(tx: CallerTx<'_>, inputs: &[Input]) -> Result<Vec<WorkerKey>, sqlx::Error> {
    let mut workers: Vec<i64> = inputs.iter().filter_map(|input| Some(input.turn.worker?.0)).collect();
    workers.sort_unstable();
    workers.dedup();
    if workers.is_empty() {
        return Ok(Vec::new());
    }
    let registered: Vec<i64> = twins!(CallerTx: tx, registered(&workers))?;
    Ok(registered.into_iter().map(WorkerKey).collect())
}

/// How the threads stand that inputs are for, by namespace and id. Their rows are locked until the transaction ends.
async fn look(
    tx: CallerTx<'_>,
    inputs: &[Input],
    frame: Frame,
) -> Result<HashMap<(String, String), View>, sqlx::Error> {
    let mut names: Vec<(&str, &str)> =
        inputs.iter().map(|input| (input.namespace.as_str(), input.thread.as_str())).collect();
    names.sort_unstable();
    names.dedup();
    let views = twins!(CallerTx: tx, look(&names, frame))?;
    Ok(views.into_iter().collect())
}

/// Which inputs were accepted before, by their place.
async fn known(
    tx: CallerTx<'_>,
    inputs: &[Input],
    asked: &[(usize, ThreadKey)],
) -> Result<HashMap<usize, Known>, sqlx::Error> {
    if asked.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<KnownRow> = twins!(CallerTx: tx, known(inputs, asked))?;
    let mut known = HashMap::with_capacity(rows.len());
    for row in rows {
        let (i, it) = row.known()?;
        // By its id rather than by its key.
        if !known.contains_key(&i) || it.id == inputs[i].id {
            known.insert(i, it);
        }
    }
    Ok(known)
}

async fn remember(tx: CallerTx<'_>, inputs: &[Input], accepted: &[(usize, Received)]) -> Result<(), sqlx::Error> {
    twins!(CallerTx: tx, remember(inputs, accepted))
}

/// Says how threads stand now; with [`Frame::Closes`] as the end of the transaction.
pub(super) async fn move_threads(
    tx: CallerTx<'_>,
    moved: &HashMap<ThreadKey, Moved>,
    frame: Frame,
) -> Result<(), sqlx::Error> {
    twins!(CallerTx: tx, move_threads(moved, frame))
}

/// `i, thread, id, digest, branch, route, run, version, accepted_at`
#[derive(Debug, sqlx::FromRow)]
struct KnownRow {
    i: i64,
    thread: i64,
    id: String,
    digest: String,
    branch: String,
    route: String,
    run: Option<String>,
    version: Option<i64>,
    accepted_at: i64,
}

impl KnownRow {
    fn known(self) -> Result<(usize, Known), sqlx::Error> {
        let corrupt = |found: &str| sqlx::Error::Decode(format!("input {:?}: {found}", self.id).into());
        let run = self.run.as_deref().map(RunId::parse).transpose().map_err(|e| corrupt(&e.to_string()))?;
        let received = Received {
            thread: ThreadKey(self.thread),
            id: self.id.clone(),
            branch: Branch::of_word(&self.branch).ok_or_else(|| corrupt(&self.branch))?,
            route: Route::of_word(&self.route).ok_or_else(|| corrupt(&self.route))?,
            run,
            version: self.version.map(u64::try_from).transpose().map_err(|e| corrupt(&e.to_string()))?,
            accepted_at: Instant(self.accepted_at),
            repeat: true,
        };
        let i = usize::try_from(self.i).map_err(|_| corrupt("its place"))?;
        Ok((i, Known { id: self.id, digest: self.digest, received }))
    }
}

/// A thread's row as a look finds it: `key, namespace, id, resource, run, run_id, agent, last_place`, and of a turn that is
/// held back `held_place, held_run, held_id, held_agent`.
#[derive(Debug, sqlx::FromRow)]
struct ViewRow {
    key: i64,
    namespace: String,
    id: String,
    resource: String,
    run: Option<i64>,
    run_id: Option<String>,
    agent: Option<String>,
    last_place: i64,
    held_place: Option<i64>,
    held_run: Option<i64>,
    held_id: Option<String>,
    held_agent: Option<String>,
}

impl ViewRow {
    fn view(self) -> Result<((String, String), View), sqlx::Error> {
        let corrupt = |found: String| sqlx::Error::Decode(format!("thread {}: {found}", self.key).into());
        let id = |text: &str| RunId::parse(text).map_err(|e| corrupt(e.to_string()));
        let current = match (self.run, &self.run_id, &self.agent) {
            (None, ..) => None,
            (Some(run), Some(run_id), Some(agent)) => Some((RunKey(run), id(run_id)?, agent.clone())),
            (Some(run), ..) => return Err(corrupt(format!("its turn {run} is not there"))),
        };
        let held = match (self.held_place, self.held_run, &self.held_id, &self.held_agent) {
            (Some(place), Some(run), Some(run_id), Some(agent)) => {
                Some(Queued::held(ThreadKey(self.key), place, RunKey(run), id(run_id)?, agent))
            }
            _ => None,
        };
        let view =
            View { key: ThreadKey(self.key), resource: self.resource, current, held, last_place: self.last_place };
        Ok(((self.namespace, self.id), view))
    }
}

fn stored(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

/// Chunks for the subscribers of a thread.
pub(super) fn chunk(part: &str, value: Payload) -> Chunk {
    Chunk { stream: CHUNKS.to_owned(), part: part.to_owned(), value }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::SqliteConnection;

    use super::{
        Frame, HashMap, Input, KEY_KEPT, KnownRow, Moved, Received, RunKey, Seq, ThreadKey, View, ViewRow, stored,
    };
    use crate::store::json::Json;

    macro_rules! look {
        () => {
            "select t.key, t.namespace, t.id, t.resource, t.run, r.id as run_id, t.agent, t.last_place,
                    q.place as held_place, q.run as held_run, h.id as held_id, q.agent as held_agent
             from (select value ->> 0 as namespace, value ->> 1 as id from json_each($1)) n
             cross join threads t on t.namespace = n.namespace and t.id = n.id
             left join runs r on r.key = t.run
             left join queue q on t.run is null
                              and q.thread = t.key
                              and q.place = (select min(o.place) from queue o where o.thread = t.key and o.kind = 'turn')
             left join runs h on h.key = q.run"
        };
    }

    macro_rules! move_threads {
        () => {
            "update threads
             set run = m.run, agent = m.agent, last_place = m.last_place, updated_at = max(updated_at, m.at)
             from (
                 select value ->> 0 as thread, value ->> 1 as run, value ->> 2 as agent, value ->> 3 as last_place,
                        value ->> 4 as at
                 from json_each($1)
             ) m
             where threads.key = m.thread"
        };
    }

    pub(super) async fn look(
        tx: &mut SqliteConnection,
        names: &[(&str, &str)],
        frame: Frame,
    ) -> Result<Vec<((String, String), View)>, sqlx::Error> {
        let mut json = Json::default();
        for (namespace, id) in names {
            json.row().text(namespace).text(id);
        }
        let text = if frame == Frame::Opens { concat!("begin immediate; ", look!()) } else { look!() };
        let rows: Vec<ViewRow> = sqlx::query_as(text).bind(json.done()).fetch_all(tx).await?;
        rows.into_iter().map(ViewRow::view).collect()
    }

    pub(super) async fn disown(tx: &mut SqliteConnection, runs: &[(RunKey, Seq)]) -> Result<(), sqlx::Error> {
        let mut json = Json::default();
        for (run, head) in runs {
            json.row().int(run.0).int(head.0);
        }
        sqlx::query(
            "update runs
             set status = 'due', wake_at = updated_at, worker = null, fence = fence + 1
             where (key, head) in (select value ->> 0, value ->> 1 from json_each($1)) and status = 'running' and fence = 1",
        )
        .bind(json.done())
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn registered(tx: &mut SqliteConnection, workers: &[i64]) -> Result<Vec<i64>, sqlx::Error> {
        let mut json = Json::default();
        for worker in workers {
            json.row().int(*worker);
        }
        sqlx::query_scalar("select key from workers where key in (select value ->> 0 from json_each($1))")
            .bind(json.done())
            .fetch_all(tx)
            .await
    }

    pub(super) async fn known(
        tx: &mut SqliteConnection,
        inputs: &[Input],
        asked: &[(usize, ThreadKey)],
    ) -> Result<Vec<KnownRow>, sqlx::Error> {
        let mut json = Json::default();
        for (i, thread) in asked {
            let it = &inputs[*i];
            let row = json.row().size(*i).int(thread.0).text(&it.id);
            match &it.key {
                Some(key) => row.text(key).int(it.at.0 - KEY_KEPT.as_millis() as i64),
                None => row.null().null(),
            };
        }
        sqlx::query_as(
            "with asked as materialized (
                 select value ->> 0 as i, value ->> 1 as thread, value ->> 2 as id, value ->> 3 as key, value ->> 4 as since
                 from json_each($1)
             )
             select a.i, s.thread, s.id, s.digest, s.branch, s.route, s.run, s.version, s.accepted_at
             from asked a
             cross join inputs s on s.thread = a.thread and s.id = a.id
             union all
             select a.i, s.thread, s.id, s.digest, s.branch, s.route, s.run, s.version, s.accepted_at
             from asked a
             cross join inputs s on s.thread = a.thread and s.key = a.key and s.key is not null
             where s.accepted_at > a.since",
        )
        .bind(json.done())
        .fetch_all(tx)
        .await
    }

    pub(super) async fn remember(
        tx: &mut SqliteConnection,
        inputs: &[Input],
        accepted: &[(usize, Received)],
    ) -> Result<(), sqlx::Error> {
        let mut json = Json::default();
        for (i, received) in accepted {
            let it = &inputs[*i];
            let row = json.row().int(received.thread.0).text(&it.id);
            match &it.key {
                Some(key) => row.text(key),
                None => row.null(),
            };
            row.text(&it.digest).text(received.branch.word()).text(received.route.word());
            match &received.run {
                Some(run) => row.text(run.as_str()),
                None => row.null(),
            };
            row.maybe(received.version.map(stored)).int(it.at.0);
        }
        sqlx::query(
            "insert into inputs (thread, id, key, digest, branch, route, run, version, accepted_at)
             select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
                    value ->> 8
             from json_each($1)",
        )
        .bind(json.done())
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn move_threads(
        tx: &mut SqliteConnection,
        moved: &HashMap<ThreadKey, Moved>,
        frame: Frame,
    ) -> Result<(), sqlx::Error> {
        let mut json = Json::default();
        for (thread, it) in moved {
            let row = json.row().int(thread.0).maybe(it.run.map(|run| run.0));
            match &it.agent {
                Some(agent) => row.text(agent),
                None => row.null(),
            };
            row.int(it.last_place).int(it.at.0);
        }
        let text = if frame == Frame::Closes { concat!(move_threads!(), "; commit") } else { move_threads!() };
        sqlx::query(text).bind(json.done()).execute(tx).await.map(drop)
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::PgConnection;

    use super::writer::postgres::{begin, end};
    use super::{
        Frame, HashMap, Input, KEY_KEPT, KnownRow, Moved, Received, RunKey, Seq, ThreadKey, View, ViewRow, stored,
    };

    /// Locks first and looks then: a statement that had to wait for a row would see the runs of before.
    pub(super) async fn look(
        tx: &mut PgConnection,
        names: &[(&str, &str)],
        frame: Frame,
    ) -> Result<Vec<((String, String), View)>, sqlx::Error> {
        if frame == Frame::Opens {
            begin(tx).await?;
        }
        let (namespaces, ids): (Vec<&str>, Vec<&str>) = names.iter().copied().unzip();
        let keys: Vec<i64> = sqlx::query_scalar(
            "select key
             from threads
             where key = any (array(
                 select (select t.key from threads t where t.namespace = n.namespace and t.id = n.id)
                 from unnest($1::text[], $2::text[]) as n (namespace, id)))
             order by key
             for no key update",
        )
        .bind(&namespaces)
        .bind(&ids)
        .fetch_all(&mut *tx)
        .await?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<ViewRow> = sqlx::query_as(
            "select t.key, t.namespace, t.id, t.resource, t.run, (select r.id from runs r where r.key = t.run) as run_id,
                    t.agent, t.last_place, q.place as held_place, q.run as held_run,
                    (select r.id from runs r where r.key = q.run) as held_id, q.agent as held_agent
             from threads t
             left join lateral (
               select o.place, o.run, o.agent
               from queue o
               where t.run is null
                 and o.thread = t.key
                 and o.kind = 'turn'
               order by o.place
               limit 1
             ) q on true
             where t.key = any ($1)",
        )
        .bind(&keys)
        .fetch_all(tx)
        .await?;
        rows.into_iter().map(ViewRow::view).collect()
    }

    pub(super) async fn disown(tx: &mut PgConnection, runs: &[(RunKey, Seq)]) -> Result<(), sqlx::Error> {
        let (runs, heads): (Vec<i64>, Vec<i64>) = runs.iter().map(|(run, head)| (run.0, head.0)).unzip();
        sqlx::query(
            "update runs r
             set status = 'due',
                 wake_at = updated_at,
                 worker = null,
                 fence = fence + 1
             from unnest($1::bigint[], $2::bigint[]) as d (run, head)
             where r.key = any ($1)
               and r.key = d.run
               and r.head = d.head
               and r.status = 'running'
               and r.fence = 1",
        )
        .bind(&runs)
        .bind(&heads)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn registered(tx: &mut PgConnection, workers: &[i64]) -> Result<Vec<i64>, sqlx::Error> {
        sqlx::query_scalar("select key from workers where key = any ($1) for key share")
            .bind(workers)
            .fetch_all(tx)
            .await
    }

    pub(super) async fn known(
        tx: &mut PgConnection,
        inputs: &[Input],
        asked: &[(usize, ThreadKey)],
    ) -> Result<Vec<KnownRow>, sqlx::Error> {
        let places: Vec<i64> = asked.iter().map(|(i, _)| *i as i64).collect();
        let threads: Vec<i64> = asked.iter().map(|(_, thread)| thread.0).collect();
        let ids: Vec<&str> = asked.iter().map(|(i, _)| inputs[*i].id.as_str()).collect();
        let keys: Vec<Option<&str>> = asked.iter().map(|(i, _)| inputs[*i].key.as_deref()).collect();
        let since: Vec<i64> = asked.iter().map(|(i, _)| inputs[*i].at.0 - KEY_KEPT.as_millis() as i64).collect();
        // With a limit they stay subqueries, and are found by their keys whatever the planner believes.
        sqlx::query_as(
            "with asked as materialized (
               select *
               from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bigint[])
                 as a (i, thread, id, key, since)
             )
             select a.i, s.*
             from asked a
             cross join lateral (
               select thread, id, digest, branch, route, run, version, accepted_at
               from inputs
               where thread = a.thread
                 and id = a.id
               limit 1
             ) s
             union all
             select a.i, s.*
             from asked a
             cross join lateral (
               select thread, id, digest, branch, route, run, version, accepted_at
               from inputs
               where thread = a.thread
                 and key = a.key
                 and accepted_at > a.since
               limit 1
             ) s",
        )
        .bind(&places)
        .bind(&threads)
        .bind(&ids)
        .bind(&keys)
        .bind(&since)
        .fetch_all(tx)
        .await
    }

    pub(super) async fn remember(
        tx: &mut PgConnection,
        inputs: &[Input],
        accepted: &[(usize, Received)],
    ) -> Result<(), sqlx::Error> {
        let threads: Vec<i64> = accepted.iter().map(|(_, it)| it.thread.0).collect();
        let ids: Vec<&str> = accepted.iter().map(|(i, _)| inputs[*i].id.as_str()).collect();
        let keys: Vec<Option<&str>> = accepted.iter().map(|(i, _)| inputs[*i].key.as_deref()).collect();
        let digests: Vec<&str> = accepted.iter().map(|(i, _)| inputs[*i].digest.as_str()).collect();
        let branches: Vec<&str> = accepted.iter().map(|(_, it)| it.branch.word()).collect();
        let routes: Vec<&str> = accepted.iter().map(|(_, it)| it.route.word()).collect();
        let runs: Vec<Option<&str>> = accepted.iter().map(|(_, it)| it.run.as_ref().map(|run| run.as_str())).collect();
        let versions: Vec<Option<i64>> = accepted.iter().map(|(_, it)| it.version.map(stored)).collect();
        let ats: Vec<i64> = accepted.iter().map(|(i, _)| inputs[*i].at.0).collect();
        sqlx::query(
            "insert into inputs (thread, id, key, digest, branch, route, run, version, accepted_at)
             select *
             from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                         $8::bigint[], $9::bigint[])",
        )
        .bind(&threads)
        .bind(&ids)
        .bind(&keys)
        .bind(&digests)
        .bind(&branches)
        .bind(&routes)
        .bind(&runs)
        .bind(&versions)
        .bind(&ats)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn move_threads(
        tx: &mut PgConnection,
        moved: &HashMap<ThreadKey, Moved>,
        frame: Frame,
    ) -> Result<(), sqlx::Error> {
        let threads: Vec<i64> = moved.keys().map(|thread| thread.0).collect();
        let runs: Vec<Option<i64>> = moved.values().map(|it| it.run.map(|run| run.0)).collect();
        let agents: Vec<Option<&str>> = moved.values().map(|it| it.agent.as_deref()).collect();
        let places: Vec<i64> = moved.values().map(|it| it.last_place).collect();
        let ats: Vec<i64> = moved.values().map(|it| it.at.0).collect();
        sqlx::query(
            "update threads t
             set run = m.run,
                 agent = m.agent,
                 last_place = m.last_place,
                 updated_at = greatest(t.updated_at, m.at)
             from unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[])
               as m (thread, run, agent, last_place, at)
             where t.key = any ($1)
               and t.key = m.thread",
        )
        .bind(&threads)
        .bind(&runs)
        .bind(&agents)
        .bind(&places)
        .bind(&ats)
        .execute(&mut *tx)
        .await?;
        if frame == Frame::Closes { end(tx).await } else { Ok(()) }
    }
}

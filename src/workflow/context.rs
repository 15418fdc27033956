//! What a workflow's code may ask for.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::combine::{Crew, Durable, ForEach, Join, JoinAll, Race, Scope};
use super::conversation::ThreadDesk;
use super::desk::{Answer, Desk, Work};
use super::op::{Cancelled, Decode, Op};
use super::step::{Body, Step, StepContext, StepError, decode_step, erase};
use super::{Published, Signal, Stream, Update};
use crate::clock::Instant;
use crate::failure::{Failure, Fault};
use crate::id::{OpId, RunId};
use crate::journal::{Taken, WaitMode};
use crate::payload::{Payload, Undecodable};
use crate::run::BlockReason;
use crate::thread::TurnInput;
use crate::transaction::Tx;

/// The workflow's way to everything durable. Owned and cheap to clone; a clone is the same context.
///
/// Every operation takes its identity at the call: its scope and its ordinal there. Calls in an order that depends on
/// anything but the journal (the machine's clock, the order of a hash map) are found out at the next replay.
#[derive(Clone)]
pub struct Context {
    desk: Arc<Desk>,
    scope: Arc<Counters>,
    shielded: bool,
}

/// The counters of one scope.
#[derive(Debug, Default)]
struct Counters {
    path: String,
    inner: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    ops: u32,
    uuids: u32,
    scopes: HashMap<String, u32>,
}

impl Counters {
    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_op(&self) -> OpId {
        let mut counts = self.counts();
        counts.ops += 1;
        match self.path.as_str() {
            "" => OpId::new(counts.ops.to_string()),
            path => OpId::new(format!("{path}/{}", counts.ops)),
        }
    }

    fn within(&self, name: &str) -> Arc<Self> {
        let mut counts = self.counts();
        let times = counts.scopes.entry(name.to_owned()).or_insert(0);
        *times += 1;
        // The same name again is another scope: `audit`, `audit#2`, ….
        let name = if *times == 1 { name.to_owned() } else { format!("{name}#{times}") };
        let path = if self.path.is_empty() { name } else { format!("{}/{name}", self.path) };
        Arc::new(Self { path, inner: Mutex::default() })
    }
}

impl Context {
    pub(crate) fn new(desk: Arc<Desk>) -> Self {
        Self { desk, scope: Arc::default(), shielded: false }
    }

    // Steps.

    /// Runs a body and records its result once.
    ///
    /// The body gets the attempt's [`StepContext`] and the input. It begins once the call is durable, may run again if
    /// the process dies before its result is, and never runs again afterwards. What it captures is not journaled: give it
    /// what it works on as `input`.
    pub fn step<I, O, E, F, A>(&self, step: &Step<I, O, E>, input: I, body: F) -> Op<Result<O, StepError<E>>>
    where
        I: Serialize + Clone + Send + Sync + 'static,
        O: Serialize + DeserializeOwned,
        E: Fault,
        F: Fn(StepContext, I) -> A + Send + Sync + 'static,
        A: Future<Output = Result<O, E>> + Send + 'static,
    {
        let written = self.encode(step.name(), &input);
        let body = Body::Plain(Arc::new(move |cx| {
            let attempt = body(cx, input.clone());
            Box::pin(async move { erase(attempt.await) })
        }));
        self.ask(step, written, body)
    }

    /// Runs a body inside the store's own transaction: what it writes there is committed together with its result, so
    /// both happened exactly once or neither did.
    ///
    /// On SQLite the body holds up every other write while it runs: keep it short. It has five seconds unless
    /// the step has a timeout.
    pub fn transact<I, O, E, F>(&self, step: &Step<I, O, E>, input: I, body: F) -> Op<Result<O, StepError<E>>>
    where
        I: Serialize + Clone + Send + Sync + 'static,
        O: Serialize + DeserializeOwned + 'static,
        E: Fault,
        F: for<'a> Fn(StepContext, &'a mut Tx, I) -> BoxFuture<'a, Result<O, E>> + Send + Sync + 'static,
    {
        let written = self.encode(step.name(), &input);
        let body = Body::Transactional(Arc::new(move |cx, tx| {
            let attempt = body(cx, tx, input.clone());
            Box::pin(async move { erase(attempt.await) })
        }));
        self.ask(step, written, body)
    }

    fn ask<I, O: DeserializeOwned, E: Fault>(
        &self,
        step: &Step<I, O, E>,
        input: Payload,
        body: Body,
    ) -> Op<Result<O, StepError<E>>> {
        let work = Work { name: step.name(), input, policy: step.policy(), body };
        let asked = self.desk.ask_step(self.scope.next_op(), self.shielded, work);
        self.op(step.name(), asked, decode_step)
    }

    // Time.

    /// Waits for a span, through crashes and deploys. Never early.
    pub fn sleep(&self, span: Duration) -> Op<Result<(), Cancelled>> {
        self.sleep_until(self.now() + span)
    }

    /// Waits until a time. Never early.
    pub fn sleep_until(&self, at: Instant) -> Op<Result<(), Cancelled>> {
        let asked = self.desk.ask_timer(self.scope.next_op(), self.shielded, at);
        self.op("timer", asked, |_, answer| match answer {
            Answer::Fired => Ok(Ok(())),
            _ => Ok(Err(Cancelled)),
        })
    }

    /// The time of the journal line that is being processed: the same on every replay.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.desk.now()
    }

    // Signals.

    /// Waits for the next signal of a name. Signals come in the order of their acceptance, each to one wait.
    pub fn signal<T: DeserializeOwned>(&self, signal: &Signal<T>) -> Op<Result<T, Cancelled>> {
        let asked = self.desk.ask_signal(self.scope.next_op(), self.shielded, signal.name(), WaitMode::One);
        self.op(signal.name(), asked, |_, answer| match answer {
            Answer::Signals(signals) => {
                signals.first().map_or(Ok(Err(Cancelled)), |taken| taken.payload.read().map(Ok))
            }
            _ => Ok(Err(Cancelled)),
        })
    }

    /// Waits until at least one signal of a name is pending and takes all that are: one journal line, and each signal is
    /// in exactly one batch.
    pub fn signals_batch<T: DeserializeOwned>(&self, signal: &Signal<T>) -> Op<Result<Vec<T>, Cancelled>> {
        let asked = self.desk.ask_signal(self.scope.next_op(), self.shielded, signal.name(), WaitMode::Batch);
        self.op(signal.name(), asked, |_, answer| match answer {
            Answer::Signals(signals) => read_all(&signals).map(Ok),
            _ => Ok(Err(Cancelled)),
        })
    }

    /// Takes the next pending signal of a name, if there is one.
    ///
    /// That there was none is committed only if it is still so at the commit: a run that looks and then ends never
    /// leaves a signal behind that came in between.
    pub fn try_signal<T: DeserializeOwned>(&self, signal: &Signal<T>) -> Op<Result<Option<T>, Cancelled>> {
        let answer = self.desk.check_signals(self.scope.next_op(), self.shielded, signal.name(), 1, None);
        self.op(signal.name(), Err(answer), |_, answer| match answer {
            Answer::Signals(signals) => signals.first().map(|taken| taken.payload.read()).transpose().map(Ok),
            _ => Ok(Err(Cancelled)),
        })
    }

    /// Takes all pending signals of a name; none if there are none.
    ///
    /// That there were no more is committed as [`Context::try_signal`] says.
    pub fn try_signals<T: DeserializeOwned>(&self, signal: &Signal<T>) -> Op<Result<Vec<T>, Cancelled>> {
        let answer = self.desk.check_signals(self.scope.next_op(), self.shielded, signal.name(), usize::MAX, None);
        self.op(signal.name(), Err(answer), |_, answer| match answer {
            Answer::Signals(signals) => read_all(&signals).map(Ok),
            _ => Ok(Err(Cancelled)),
        })
    }

    /// Takes those pending signals of a name that have one of these senders' ids, and leaves the others where they are.
    ///
    /// That some were not pending is committed as [`Context::try_signal`] says.
    pub fn withdraw_signals<T: DeserializeOwned>(
        &self,
        signal: &Signal<T>,
        ids: &[String],
    ) -> Op<Result<Vec<T>, Cancelled>> {
        let op = self.scope.next_op();
        let answer = self.desk.check_signals(op, self.shielded, signal.name(), usize::MAX, Some(ids));
        self.op(signal.name(), Err(answer), |_, answer| match answer {
            Answer::Signals(signals) => read_all(&signals).map(Ok),
            _ => Ok(Err(Cancelled)),
        })
    }

    /// The thread that this run answers, which `turn` names. A run that is no turn is blocked when it leaves something
    /// there.
    #[must_use]
    pub fn thread(&self, turn: &TurnInput) -> ThreadDesk {
        ThreadDesk::new(Arc::clone(&self.desk), turn)
    }

    /// Waits for the next update of a name; answer it with [`Request::reply`].
    pub fn update<I: DeserializeOwned, O: Serialize>(&self, update: &Update<I, O>) -> UpdateOp<I, O> {
        let asked = self.desk.ask_signal(self.scope.next_op(), self.shielded, update.name(), WaitMode::Update);
        let taken = self.op(update.name(), asked, |_, answer| match answer {
            Answer::Signals(signals) => {
                signals.into_iter().next().map_or(Ok(Err(Cancelled)), |taken| Ok(Ok((taken.payload.read()?, taken.id))))
            }
            _ => Ok(Err(Cancelled)),
        });
        UpdateOp { taken, desk: Arc::clone(&self.desk), of: PhantomData }
    }

    // Output.

    /// Publishes a value for queries; the latest under its name is kept.
    pub fn publish<T: Serialize>(&self, published: &Published<T>, value: &T) {
        let value = self.encode(published.name(), value);
        self.desk.publish(published.name(), value);
    }

    /// Appends to a stream of the run.
    pub fn append<T: Serialize>(&self, stream: &Stream<T>, value: &T) {
        let value = self.encode(stream.name(), value);
        self.desk.append(stream.name(), value);
    }

    // Chance.

    /// A new id, the same on every replay.
    #[must_use]
    pub fn uuid(&self) -> uuid::Uuid {
        let ordinal = {
            let mut counts = self.scope.counts();
            counts.uuids += 1;
            counts.uuids
        };
        uuid::Uuid::new_v5(&self.desk.seed(), format!("{}/uuid {ordinal}", self.scope.path).as_bytes())
    }

    /// A random number generator, the same on every replay; the same name in the same scope gives the same numbers.
    #[must_use]
    pub fn rng(&self, name: &str) -> ChaCha8Rng {
        let mut digest = Sha256::new();
        digest.update(self.desk.seed().as_bytes());
        digest.update(self.scope.path.as_bytes());
        digest.update([0]);
        digest.update(name.as_bytes());
        ChaCha8Rng::from_seed(digest.finalize().into())
    }

    // Concurrency.

    /// The first of two to be done; the other is withdrawn before the next journal line is looked at. If both are done,
    /// the first one named wins.
    pub fn race<A: Durable, B: Durable>(&self, first: A, second: B) -> Race<A, B> {
        Race::new(first, second)
    }

    /// Both, at the same time.
    pub fn join<A: Durable, B: Durable>(&self, first: A, second: B) -> Join<A, B> {
        Join::new(first, second)
    }

    /// All, at the same time; results in the order given.
    pub fn join_all<D: Durable>(&self, all: impl IntoIterator<Item = D>) -> JoinAll<D> {
        JoinAll::new(all.into_iter().collect())
    }

    /// A branch per item, each in a scope `name[key]` of its own, at most `limit` at a time; results in the order given.
    ///
    /// The key is what a branch is known by in the journal: it must be the item's own, so that the items may come in
    /// another order.
    pub fn for_each<T, K, R, F, A>(
        &self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        limit: usize,
        key: impl Fn(&T) -> K,
        branch: F,
    ) -> ForEach<R>
    where
        K: fmt::Display,
        F: Fn(Context, T) -> A,
        A: Future<Output = R> + Send + 'static,
        R: Send + 'static,
    {
        let branches = items.into_iter().map(|item| {
            let cx = self.keyed(name, &key(&item));
            Box::pin(branch(cx, item)) as BoxFuture<'static, R>
        });
        ForEach::new(branches.collect(), limit)
    }

    /// Branches at the same time, to which more may be added while they run; take them with [`Crew::done`].
    #[must_use]
    pub fn crew<R>(&self) -> Crew<R> {
        Crew::new()
    }

    /// A named branch with counters of its own: editing it does not shift the others.
    pub fn scope<R, F, A>(&self, name: &str, branch: F) -> Scope<R>
    where
        F: FnOnce(Context) -> A,
        A: Future<Output = R> + Send + 'static,
    {
        Scope::new(Box::pin(branch(self.within(name))))
    }

    /// A context whose operations count on their own under this name.
    #[must_use]
    pub fn within(&self, name: &str) -> Self {
        Self { desk: Arc::clone(&self.desk), scope: self.scope.within(&plain(name)), shielded: self.shielded }
    }

    /// A context whose operations are known by an item's key: use it in loops over a set.
    #[must_use]
    pub fn keyed(&self, name: &str, key: &(impl fmt::Display + ?Sized)) -> Self {
        self.within(&format!("{name}[{key}]"))
    }

    // Ending.

    /// A context that a request to cancel does not reach: for cleanup that must run to its end.
    #[must_use]
    pub fn shielded(&self) -> Self {
        Self { shielded: true, ..self.clone() }
    }

    /// Whether the run was asked to cancel.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.desk.cancel_requested().is_some()
    }

    /// Pushes a compensation onto the undo list. If the workflow returns an error or is cancelled, the list is run in
    /// reverse, each as a step with its own policy, shielded from cancelling.
    pub fn undo<I, O, E, F, A>(&self, step: &Step<I, O, E>, input: I, body: F)
    where
        I: Serialize + Clone + Send + Sync + 'static,
        O: Serialize + DeserializeOwned,
        E: Fault,
        F: Fn(StepContext, I) -> A + Send + Sync + 'static,
        A: Future<Output = Result<O, E>> + Send + 'static,
    {
        let written = self.encode(step.name(), &input);
        let body = Body::Plain(Arc::new(move |cx| {
            let attempt = body(cx, input.clone());
            Box::pin(async move { erase(attempt.await) })
        }));
        let work = Work { name: step.name(), input: written, policy: step.policy(), body };
        self.desk.push_undo(self.scope.next_op(), work);
    }

    /// Empties the undo list: what was done stays done.
    pub fn forget_undos(&self) {
        self.desk.forget_undos();
    }

    /// Runs the undo list, latest first. Returns what could not be undone.
    pub(crate) async fn unwind(&self) -> Vec<String> {
        let cx = self.shielded().within("undo");
        let mut failed = Vec::new();
        while let Some(undo) = self.desk.pop_undo() {
            let name = undo.name;
            let asked = self.desk.ask_step(cx.scope.next_op(), true, undo);
            let undone = self.op(name, asked, |_, answer| Ok(answer)).await;
            if let Answer::Failed { attempts, cause } = undone {
                failed.push(format!("undo {name:?} failed after {attempts} attempts: {cause}"));
            }
        }
        failed
    }

    /// The run's id.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.desk.run()
    }

    fn op<T>(&self, name: &'static str, asked: Result<OpId, Answer>, decode: Decode<T>) -> Op<T> {
        Op::new(Arc::clone(&self.desk), name, asked, decode)
    }

    /// A value of the code's own that has no JSON form stops the run: there is nothing that could be journaled.
    fn encode<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Payload {
        Payload::of(value).unwrap_or_else(|e| {
            self.desk.block(BlockReason::Undecodable(format!("the value given to {name:?}: {}", Failure::from(e))));
            Payload::null()
        })
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({}/{})", self.desk.run(), self.scope.path)
    }
}

/// A scope's name may not look like a path.
fn plain(name: &str) -> String {
    if !name.contains(['/', ' ', '\n']) && name.len() <= 100 {
        return name.to_owned();
    }
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let head: String = name.chars().filter(|c| !c.is_whitespace() && *c != '/').take(60).collect();
    format!("{head}~{:016x}", hasher.finish())
}

fn read_all<T: DeserializeOwned>(signals: &[Taken]) -> Result<Vec<T>, Undecodable> {
    signals.iter().map(|taken| taken.payload.read()).collect()
}

/// An update that waits for its answer. Dropping it leaves the sender without one until another build answers.
#[must_use = "the sender of an update waits for its reply"]
pub struct Request<I, O> {
    /// What was sent.
    pub input: I,
    id: String,
    desk: Arc<Desk>,
    of: PhantomData<fn(O)>,
}

impl<I, O: Serialize> Request<I, O> {
    /// The sender's id of the update.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Answers; the sender hears of it once it is durable. A repeat under the same id gets the same answer.
    pub fn reply(self, reply: &O) {
        match Payload::of(reply) {
            Ok(reply) => self.desk.answer_update(self.id, reply),
            Err(e) => self.desk.block(BlockReason::Undecodable(format!(
                "the reply to update {:?}: {}",
                self.id,
                Failure::from(e)
            ))),
        }
    }
}

impl<I: fmt::Debug, O> fmt::Debug for Request<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("id", &self.id).field("input", &self.input).finish_non_exhaustive()
    }
}

/// A wait for an update.
#[must_use = "an operation does nothing for the workflow unless it is awaited; dropping it withdraws it"]
#[derive(Debug)]
pub struct UpdateOp<I, O> {
    taken: Op<Result<(I, String), Cancelled>>,
    desk: Arc<Desk>,
    of: PhantomData<fn(O)>,
}

impl<I, O> Future for UpdateOp<I, O> {
    type Output = Result<Request<I, O>, Cancelled>;

    fn poll(mut self: std::pin::Pin<&mut Self>, task: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        let taken = std::task::ready!(std::pin::Pin::new(&mut self.taken).poll(task));
        std::task::Poll::Ready(taken.map(|(input, id)| Request {
            input,
            id,
            desk: Arc::clone(&self.desk),
            of: PhantomData,
        }))
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Desk")
    }
}

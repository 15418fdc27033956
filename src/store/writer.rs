//! The writer: one task per lane that takes whatever waits, writes it in one transaction and tells each its own verdict.
//!
//! No timer: while one transaction is flushed, the next batch gathers. A request that is refused, or that the database
//! cannot take, does not hurt its neighbours. An outcome that is unknown, because the connection was lost, is resolved by
//! writing again: a commit carries fence and head, an arrival its id, a start its key, an append its token, so what has landed
//! is recognised.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant as Tick;
use tokio_util::sync::CancellationToken;

use super::contract::{Arrival, Chunk, Commit, Hint, Leaves, Options, Refusal, Start, StartRefused, Started, Verdict};
use super::open::Store;
use super::receive::{self, Input, InputAnswer, Took};
use super::start::{self, CallerTx};
use super::turn::Turn;
use super::wake::{Flows, HintQueue};
use super::{Error, Fault, Faults};
use crate::clock::Instant;
use crate::failure::Outcome;
use crate::id::{Fence, RunKey, Seq, ThreadKey};
use crate::signal::{Accepted, Pending, Refused};
use crate::transaction::Connection;

/// How long a write is tried again before the store counts as unavailable.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// How long the door waits for a place in the writer's queue.
const DOOR_WAITS: Duration = Duration::from_secs(5);

pub(super) type Answer<T> = oneshot::Sender<Result<T, Error>>;
pub(super) type StartAnswer = Result<(RunKey, Started), StartRefused>;
pub(super) type AcceptAnswer = Result<(RunKey, Accepted), Refused>;

/// What one asks of the writer.
pub(super) enum Request {
    Commit(Box<Commit>, Answer<Verdict>),
    Accept(Box<Arrival>, Answer<AcceptAnswer>),
    Start(Box<Start>, Answer<StartAnswer>),
    Receive(Box<Input>, Answer<InputAnswer>),
    Append(Append, Answer<()>),
    /// A write that shares its transaction with nobody.
    Alone(Box<dyn Alone>),
    /// A transactional step.
    Turn(Box<dyn Turn>),
    Close(oneshot::Sender<()>),
}

/// Values for the streams of one run, outside any commit.
#[derive(Debug, Clone)]
pub(super) struct Append {
    pub(super) run: RunKey,
    pub(super) chunks: Vec<Chunk>,
    pub(super) at: Instant,
    /// What names it among all appends; none inside a transaction that is recognised by something else.
    pub(super) token: Option<i64>,
    /// It may have landed already: nothing is added if its token is there, whoever has appended since.
    pub(super) doubtful: bool,
}

/// What one physical transaction carries. Judged and written in this order: arrivals, commits, appends. No run has two
/// commits in it, and no two begin under the same id.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) arrivals: Vec<Arrival>,
    pub(super) commits: Vec<Commit>,
    /// Beside each commit: the fence to leave, if not the commit's own. Set where a run is ended over its owner's head.
    pub(super) fences: Vec<Option<Fence>>,
    pub(super) appends: Vec<Append>,
    /// Whether some of it may be durable although the write failed: where its parts are transactions of their own.
    partly: AtomicBool,
}

impl Batch {
    /// Says that some of it is durable from here on.
    #[cfg(feature = "postgres")]
    pub(super) fn partly(&self) {
        self.partly.store(true, Ordering::Relaxed);
    }

    pub(super) fn commit(&mut self, commit: Commit, fence: Option<Fence>) {
        self.commits.push(commit);
        self.fences.push(fence);
    }

    /// Values for streams, and nothing else.
    pub(super) fn of_appends(appends: Vec<Append>) -> Self {
        Self { appends, ..Self::default() }
    }

    fn len(&self) -> usize {
        self.arrivals.len() + self.commits.len() + self.appends.len()
    }

    /// The same, whose appends may have landed already.
    fn doubted(&self) -> Self {
        Self {
            arrivals: self.arrivals.clone(),
            commits: self.commits.clone(),
            fences: self.fences.clone(),
            appends: self.appends.iter().map(|it| Append { doubtful: true, ..it.clone() }).collect(),
            partly: true.into(),
        }
    }
}

/// What the database says about each part of a batch, in the batch's order.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) arrivals: Vec<ArrivalFact>,
    pub(super) commits: Vec<CommitFact>,
    /// Whether turns became due as others ended.
    pub(super) due: bool,
    /// Threads whose subscribers have something to see.
    pub(super) shown: Vec<ThreadKey>,
}

/// What became of an arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ArrivalFact {
    /// The signal was added.
    New { run: RunKey, ordinal: i64 },
    /// A signal with this id was accepted before, at that time.
    Already { run: RunKey, ordinal: i64, at: Instant },
    /// No such run.
    Unknown,
    /// The run has ended.
    Closed { status: String },
    /// Too many are pending.
    Full { pending: i64 },
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CommitFact {
    /// Written. `due` if the run waits for nobody: it was to be left due, or was left due for a signal not yet seen.
    Applied { due: bool },
    /// Not written: the row stands so. With `begins`, a row with this very key is there already.
    Held { fence: Fence, head: Seq, accepted: i64 },
    /// Not written: it would begin, but this run has its id and is open.
    IdInUse { holder: RunKey, status: String },
    /// Not written: there is no such run.
    Gone,
}

impl CommitFact {
    pub(super) fn is_applied(&self) -> bool {
        matches!(self, Self::Applied { .. })
    }

    /// The verdict. A doubtful commit was sent before with unknown outcome: then the row shows whether it landed.
    pub(super) fn verdict(&self, commit: &Commit, doubtful: bool) -> Verdict {
        match *self {
            Self::Applied { .. } => Verdict::Applied,
            Self::Held { fence, head, accepted } => {
                let landed = commit.head.plus(commit.lines.len());
                if fence != commit.fence {
                    Verdict::Refused(Refusal::Fenced { ours: commit.fence, theirs: fence })
                } else if doubtful && head == landed && (!commit.lines.is_empty() || commit.begins.is_some()) {
                    Verdict::Applied
                } else if commit.begins.is_some() {
                    Verdict::Refused(Refusal::IdInUse)
                } else if head != commit.head {
                    Verdict::Refused(Refusal::Moved { expected: commit.head, found: head })
                } else if commit.preconditions.drained && accepted != commit.signals_seen {
                    Verdict::Refused(Refusal::Undrained { accepted, seen: commit.signals_seen })
                } else {
                    // It has ended; nothing follows the last line.
                    Verdict::Refused(Refusal::Gone)
                }
            }
            Self::IdInUse { .. } => Verdict::Refused(Refusal::IdInUse),
            Self::Gone => Verdict::Refused(Refusal::Gone),
        }
    }
}

/// Whether a batch is a transaction of its own, or part of one that is open on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    Whole,
    Inside,
    /// It opens one, and leaves it open.
    Opens,
    /// It is the last part of one that is open, and commits it.
    Closes,
}

/// What the store's tasks and its callers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) faults: Option<Faults>,
    pub(super) hints: HintQueue,
    /// Told after writes that other processes may wait for.
    pub(super) elsewhere: Notify,
    pub(super) closed: AtomicBool,
    pub(super) logical_commits: AtomicU64,
    pub(super) physical_commits: AtomicU64,
    pub(super) arrivals: AtomicU64,
    pub(super) physical_writes: AtomicU64,
    batch_max: usize,
    outcomes: Mutex<HashMap<RunKey, Vec<oneshot::Sender<Option<Outcome>>>>>,
    pub(super) flows: Flows,
}

impl Shared {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            faults: options.faults.clone(),
            hints: HintQueue::default(),
            elsewhere: Notify::new(),
            closed: AtomicBool::new(false),
            logical_commits: AtomicU64::new(0),
            physical_commits: AtomicU64::new(0),
            arrivals: AtomicU64::new(0),
            physical_writes: AtomicU64::new(0),
            batch_max: options.batch_max.max(1),
            outcomes: Mutex::default(),
            flows: Flows::default(),
        }
    }

    /// Whether a scripted crash has struck.
    pub(super) fn is_dead(&self) -> bool {
        self.faults.as_ref().is_some_and(Faults::is_dead)
    }

    /// Refuses a closed store.
    pub(super) fn open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::SeqCst) { Err(Error::Closed) } else { Ok(()) }
    }

    /// After a scripted crash nobody hears anything any more.
    pub(super) async fn alive(&self) {
        if self.is_dead() {
            std::future::pending().await
        }
    }

    /// Some run is due: tells the engine here, and other processes.
    pub(super) fn due(&self) {
        self.hints.push(Hint::Due);
        self.elsewhere.notify_one();
    }

    pub(super) fn watch(&self, run: RunKey) -> oneshot::Receiver<Option<Outcome>> {
        let (fire, fired) = oneshot::channel();
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let watchers = outcomes.entry(run).or_default();
        watchers.retain(|fire| !fire.is_closed());
        watchers.push(fire);
        fired
    }

    /// The run was closed or blocked.
    pub(super) fn ended(&self, run: RunKey, outcome: impl FnOnce() -> Option<Outcome>) {
        let watchers = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
        let Some(watchers) = watchers else { return };
        let outcome = outcome();
        for fire in watchers {
            // A watcher that has gone has nothing to hear.
            let _ = fire.send(outcome.clone());
        }
    }

    /// The run was closed over the head of whoever works on it.
    pub(super) fn taken_away(&self, run: RunKey) {
        self.ended(run, || None);
        self.hints.push(Hint::Ended(run));
    }

    /// What an applied commit means for those who listen.
    pub(super) fn applied(&self, commit: &Commit, due: bool) {
        if matches!(commit.leaves, Leaves::Closed(_) | Leaves::Blocked { .. }) {
            self.ended(commit.run, || commit.lines.outcome());
        }
        if due {
            self.due();
        }
    }

    /// Subscribers of a thread, or readers of a run's streams, have something to see.
    pub(super) fn shown(&self, thread: ThreadKey) {
        self.flows.ring(thread.0);
        self.elsewhere.notify_one();
    }

    /// What new signals mean for those who listen.
    pub(super) fn signalled(&self, run: RunKey, signals: Vec<Pending>) {
        self.hints.push(Hint::Signalled { run, signals });
        self.elsewhere.notify_one();
    }

    pub(super) fn count_commits(&self, applied: u64) {
        if applied > 0 {
            self.logical_commits.fetch_add(applied, Ordering::SeqCst);
            self.physical_commits.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// What a lane connects to.
pub(super) enum Home {
    #[cfg(feature = "sqlite")]
    Sqlite(Box<sqlx::sqlite::SqliteConnectOptions>),
    #[cfg(feature = "postgres")]
    Postgres(Box<sqlx::postgres::PgConnectOptions>),
}

/// One writer's connection, and where to get another.
pub(super) struct Lane {
    home: Home,
    connection: Option<Connection>,
    /// The program's own runtime, on which the bodies of transactional steps run.
    pub(super) bodies: Handle,
}

/// A writer that has begun.
pub(super) struct Writing {
    pub(super) requests: mpsc::Sender<Request>,
    /// Ends it where it is.
    pub(super) stop: CancellationToken,
}

impl Lane {
    /// Starts a lane's writer once it is connected. It has a thread of its own: between two statements of a transaction,
    /// while everybody waits, it does not queue behind the program's other tasks. It ends when nobody can ask it any more.
    pub(super) async fn begin(home: Home, shared: &Arc<Shared>, queue_max: usize) -> Result<Writing, sqlx::Error> {
        let (requests, queue) = mpsc::channel(queue_max.max(1));
        let (connected, outcome) = oneshot::channel();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let lane = Self { home, connection: None, bodies: Handle::current() };
        let mut writer = Writer { lane, shared: Arc::clone(shared) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = async move {
            let connection = writer.lane.connection().await.map(drop);
            let begins = connection.is_ok();
            if connected.send(connection).is_ok() && begins {
                stopped.run_until_cancelled(writer.run(queue)).await;
            }
        };
        std::thread::Builder::new().name("aldis-writer".to_owned()).spawn(move || runtime.block_on(work))?;
        outcome.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))?;
        Ok(Writing { requests, stop })
    }

    /// The connection, made anew if it was lost.
    pub(super) async fn connection(&mut self) -> Result<CallerTx<'_>, sqlx::Error> {
        if self.connection.is_none() {
            self.connection = Some(twins!(Home: &self.home, connect())?);
        }
        match &mut self.connection {
            #[cfg(feature = "sqlite")]
            Some(Connection::Sqlite(it)) => Ok(CallerTx::Sqlite(it)),
            #[cfg(feature = "postgres")]
            Some(Connection::Postgres(it)) => Ok(CallerTx::Postgres(it)),
            None => Err(sqlx::Error::WorkerCrashed),
        }
    }

    /// Whether other processes write at the same time, and rows are locked against them one by one.
    fn locks_rows(&self) -> bool {
        match &self.home {
            #[cfg(feature = "sqlite")]
            Home::Sqlite(_) => false,
            #[cfg(feature = "postgres")]
            Home::Postgres(_) => true,
        }
    }

    /// Gives up a connection whose state is not known.
    pub(super) fn forget(&mut self) {
        self.connection = None;
    }

    pub(super) fn lend(&mut self) -> Option<Connection> {
        self.connection.take()
    }

    pub(super) fn take_back(&mut self, connection: Connection) {
        self.connection = Some(connection);
    }

    /// Ends whatever transaction an error has left open.
    pub(super) async fn roll_back(&mut self) {
        let rolled_back = match self.connection().await {
            Ok(tx) => tokio::time::timeout(DOOR_WAITS, roll_back(tx)).await.is_ok_and(|done| done.is_ok()),
            Err(_) => false,
        };
        if !rolled_back {
            self.forget();
        }
    }
}

/// Opens a transaction that may write.
pub(super) async fn begin(tx: CallerTx<'_>) -> Result<(), sqlx::Error> {
    twins!(CallerTx: tx, begin())
}

/// Opens a transaction in which a body writes to tables of its own.
pub(super) async fn begin_lent(tx: CallerTx<'_>) -> Result<(), sqlx::Error> {
    twins!(CallerTx: tx, begin_lent())
}

/// Commits it.
pub(super) async fn end(tx: CallerTx<'_>) -> Result<(), sqlx::Error> {
    twins!(CallerTx: tx, end())
}

/// Rolls back what is open; nothing being open is no error.
pub(super) async fn roll_back(tx: CallerTx<'_>) -> Result<(), sqlx::Error> {
    twins!(CallerTx: tx, roll_back())
}

/// What an error of the database means for the write that met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The connection is gone: the write may or may not have landed.
    Lost,
    /// The write did not land and may be sent again: locked, deadlocked, starting up.
    Again,
    /// The write did not land and will not.
    Refused,
}

fn trouble(error: &sqlx::Error) -> Trouble {
    match error {
        sqlx::Error::Database(said) => match said.code().as_deref() {
            #[cfg(feature = "sqlite")]
            Some(code) if said.as_ref().try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() => {
                sqlite::trouble(code)
            }
            // Another writer has appended to the same stream meanwhile: the next place is another one now.
            #[cfg(feature = "postgres")]
            Some("23505") if said.constraint() == Some("streams_run_stream_place_key") => Trouble::Again,
            #[cfg(feature = "postgres")]
            Some(code) => postgres::trouble(code),
            _ => Trouble::Refused,
        },
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Trouble::Lost,
        _ => Trouble::Refused,
    }
}

/// Whether the connection is gone, and with it the answer.
pub(super) fn is_lost(error: &sqlx::Error) -> bool {
    trouble(error) == Trouble::Lost
}

impl Error {
    pub(super) fn unavailable(what: &'static str, source: sqlx::Error) -> Self {
        let broken_rule = source.as_database_error().is_some_and(|said| {
            said.is_check_violation() || said.is_unique_violation() || said.is_foreign_key_violation()
        });
        match source {
            _ if broken_rule => Self::Corrupt { found: format!("{what}: {source}") },
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::RowNotFound => {
                Self::Corrupt { found: format!("{what}: {source}") }
            }
            sqlx::Error::PoolClosed => Self::Closed,
            _ => Self::Unavailable { what, source: Arc::new(source) },
        }
    }
}

/// A write of its own, whatever it answers.
pub(super) trait Alone: Send {
    fn what(&self) -> &'static str;
    /// Whether it writes at all, or only has to see what the writer sees.
    fn writes(&self) -> bool;
    /// Does it, in a transaction of its own. `doubtful`: it was tried before with unknown outcome.
    fn run<'l>(&'l mut self, tx: CallerTx<'l>, doubtful: bool) -> BoxFuture<'l, Result<(), sqlx::Error>>;
    fn settle(self: Box<Self>, ended: Result<(), Error>);
}

struct Job<T, F> {
    what: &'static str,
    writes: bool,
    job: F,
    result: Option<T>,
    answer: Answer<T>,
}

impl<T, F> Alone for Job<T, F>
where
    T: Send + 'static,
    F: for<'t> FnMut(CallerTx<'t>, bool) -> BoxFuture<'t, Result<T, sqlx::Error>> + Send,
{
    fn what(&self) -> &'static str {
        self.what
    }

    fn writes(&self) -> bool {
        self.writes
    }

    fn run<'l>(&'l mut self, tx: CallerTx<'l>, doubtful: bool) -> BoxFuture<'l, Result<(), sqlx::Error>> {
        let doing = (self.job)(tx, doubtful);
        Box::pin(async {
            self.result = Some(doing.await?);
            Ok(())
        })
    }

    fn settle(self: Box<Self>, ended: Result<(), Error>) {
        let Self { what, result, answer, .. } = *self;
        let result = ended.and_then(|()| result.ok_or_else(|| Error::Corrupt { found: format!("{what}: no answer") }));
        // Who asked may have gone; what was written stays written.
        let _ = answer.send(result);
    }
}

impl Store {
    fn lane_of(&self, shard: u64) -> &mpsc::Sender<Request> {
        let lanes = &self.0.lanes;
        &lanes[usize::try_from(shard % lanes.len() as u64).unwrap_or(0)]
    }

    fn lane_of_run(&self, run: RunKey) -> &mpsc::Sender<Request> {
        self.lane_of(run.0.unsigned_abs())
    }

    fn lane_of_text(&self, id: &str) -> &mpsc::Sender<Request> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        self.lane_of(hasher.finish())
    }

    /// Hands a commit to its lane.
    pub(super) async fn send_commit(&self, commit: Commit) -> Result<oneshot::Receiver<Result<Verdict, Error>>, Error> {
        let (answer, answered) = oneshot::channel();
        let lane = self.lane_of_run(commit.run);
        lane.send(Request::Commit(Box::new(commit), answer)).await.map_err(|_| Error::Closed)?;
        Ok(answered)
    }

    /// Hands an arrival to its lane; waits only so long for a place.
    pub(super) async fn send_arrival(
        &self,
        arrival: Arrival,
    ) -> Result<oneshot::Receiver<Result<AcceptAnswer, Error>>, Error> {
        let (answer, answered) = oneshot::channel();
        let lane = match &arrival.to {
            super::Addressee::Key(run) => self.lane_of_run(*run),
            super::Addressee::Id(_, id) => self.lane_of_text(id.as_str()),
        };
        knock(lane, Request::Accept(Box::new(arrival), answer)).await?;
        Ok(answered)
    }

    /// Hands a start to its lane; waits only so long for a place.
    pub(super) async fn send_start(
        &self,
        start: Start,
    ) -> Result<oneshot::Receiver<Result<StartAnswer, Error>>, Error> {
        let (answer, answered) = oneshot::channel();
        let lane = match &start.commit.begins {
            Some(new) => self.lane_of_text(new.id.as_str()),
            None => self.lane_of_run(start.commit.run),
        };
        knock(lane, Request::Start(Box::new(start), answer)).await?;
        Ok(answered)
    }

    /// Hands an input to its lane; waits only so long for a place.
    pub(super) async fn send_input(
        &self,
        input: Input,
    ) -> Result<oneshot::Receiver<Result<InputAnswer, Error>>, Error> {
        let (answer, answered) = oneshot::channel();
        let lane = self.lane_of_text(input.thread.as_str());
        knock(lane, Request::Receive(Box::new(input), answer)).await?;
        Ok(answered)
    }

    pub(super) async fn send_append(&self, append: Append) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
        let (answer, answered) = oneshot::channel();
        let lane = self.lane_of_run(append.run);
        lane.send(Request::Append(append, answer)).await.map_err(|_| Error::Closed)?;
        Ok(answered)
    }

    pub(super) async fn send_turn(&self, turn: Box<dyn Turn>) -> Result<(), Error> {
        self.lane_of(0).send(Request::Turn(turn)).await.map_err(|_| Error::Closed)
    }

    /// Runs a write of its own on a writer's connection, between batches.
    pub(super) async fn alone<T, F>(&self, what: &'static str, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'t> FnMut(CallerTx<'t>, bool) -> BoxFuture<'t, Result<T, sqlx::Error>> + Send + 'static,
    {
        self.send_job(what, true, job).await
    }

    /// Reads on a writer's connection, between batches.
    #[cfg(feature = "sqlite")]
    pub(super) async fn look<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'t> FnMut(CallerTx<'t>) -> BoxFuture<'t, Result<T, sqlx::Error>> + Send + 'static,
    {
        let mut job = job;
        self.send_job("look", false, move |tx, _| job(tx)).await
    }

    async fn send_job<T, F>(&self, what: &'static str, writes: bool, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'t> FnMut(CallerTx<'t>, bool) -> BoxFuture<'t, Result<T, sqlx::Error>> + Send + 'static,
    {
        self.0.shared.open()?;
        let (answer, answered) = oneshot::channel();
        let job = Box::new(Job { what, writes, job, result: None, answer });
        self.lane_of(0).send(Request::Alone(job)).await.map_err(|_| Error::Closed)?;
        self.heard(answered).await
    }

    /// The writer's answer.
    pub(super) async fn heard<T>(&self, answered: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
        match answered.await {
            Ok(answer) => answer,
            Err(_) => {
                self.0.shared.alive().await;
                Err(Error::Closed)
            }
        }
    }
}

async fn knock(lane: &mpsc::Sender<Request>, request: Request) -> Result<(), Error> {
    lane.send_timeout(request, DOOR_WAITS).await.map_err(|e| match e {
        mpsc::error::SendTimeoutError::Timeout(_) => {
            Error::Overloaded { waiting: lane.max_capacity() - lane.capacity() }
        }
        mpsc::error::SendTimeoutError::Closed(_) => Error::Closed,
    })
}

/// Whom a commit of a batch is answered to.
enum Asked {
    Commit(Answer<Verdict>),
    /// A start that needs no look: the commit says all.
    Start(Box<crate::id::RunId>, Answer<StartAnswer>),
}

/// One round of the writer: what shares a transaction, and what follows it.
#[derive(Default)]
struct Round {
    batch: Batch,
    asked: Vec<Asked>,
    accepts: Vec<Answer<AcceptAnswer>>,
    appends: Vec<Answer<()>>,
    starts: Vec<Start>,
    start_answers: Vec<Answer<StartAnswer>>,
    inputs: Vec<Input>,
    input_answers: Vec<Answer<InputAnswer>>,
    after: Vec<Request>,
    later: VecDeque<Request>,
    runs: HashSet<RunKey>,
    signals: HashSet<(String, String)>,
    ids: HashSet<(String, String)>,
}

impl Round {
    /// Puts a request where it belongs; what cannot share this round goes to the next.
    fn take(&mut self, request: Request) {
        match request {
            Request::Commit(commit, answer) => {
                let id = commit.begins.as_ref().map(|new| (new.namespace.to_string(), new.id.to_string()));
                if !self.runs.insert(commit.run) || id.is_some_and(|id| !self.ids.insert(id)) {
                    return self.later.push_back(Request::Commit(commit, answer));
                }
                self.batch.commit(*commit, None);
                self.asked.push(Asked::Commit(answer));
            }
            Request::Start(start, answer) => {
                let Some(new) = &start.commit.begins else {
                    let found = format!("a start of run {} that begins no run", start.commit.run);
                    let _ = answer.send(Err(Error::Corrupt { found }));
                    return;
                };
                let id = (new.namespace.to_string(), new.id.to_string());
                let key = start.idempotency_key.as_ref().map(|it| (new.namespace.to_string(), format!("/{}", it.key)));
                // No id holds a slash, so keys and ids share the set.
                if self.ids.contains(&id) || key.as_ref().is_some_and(|key| self.ids.contains(key)) {
                    return self.later.push_back(Request::Start(start, answer));
                }
                self.runs.insert(start.commit.run);
                let id_of_run = new.id.clone();
                self.ids.insert(id);
                self.ids.extend(key);
                if start::is_plain(&start) {
                    self.batch.commit(start.commit, None);
                    self.asked.push(Asked::Start(Box::new(id_of_run), answer));
                } else {
                    self.starts.push(*start);
                    self.start_answers.push(answer);
                }
            }
            Request::Accept(arrival, answer) => {
                let to = match &arrival.to {
                    super::Addressee::Key(run) => run.to_string(),
                    super::Addressee::Id(namespace, id) => format!("{namespace}/{id}"),
                };
                if !self.signals.insert((to, arrival.id.clone())) {
                    return self.later.push_back(Request::Accept(arrival, answer));
                }
                self.batch.arrivals.push(*arrival);
                self.accepts.push(answer);
            }
            Request::Receive(input, answer) => {
                // No namespace holds a space. Whether a change of a lane, or a run under an id that was asked for, is taken is
                // known only once it is written, so the next one waits for it.
                let of = format!("{} {}", input.namespace, input.thread);
                let names = [
                    Some(format!("id {}", input.id)),
                    input.key.as_ref().map(|key| format!("key {key}")),
                    input.lane.as_ref().map(|change| format!("lane {}", change.lane)),
                ];
                let run = input.turn.named.then(|| (input.namespace.to_string(), input.turn.id.to_string()));
                let names = names.into_iter().flatten().map(|name| (of.clone(), name));
                let names: Vec<(String, String)> = names.chain(run).collect();
                if names.iter().any(|name| self.ids.contains(name)) {
                    return self.later.push_back(Request::Receive(input, answer));
                }
                self.ids.extend(names);
                self.inputs.push(*input);
                self.input_answers.push(answer);
            }
            Request::Append(append, answer) => {
                self.batch.appends.push(append);
                self.appends.push(answer);
            }
            Request::Alone(_) | Request::Turn(_) | Request::Close(_) => self.after.push(request),
        }
    }

    fn parts(self) -> (Parts, AskedOf) {
        let Self { batch, asked, accepts, appends, inputs, input_answers, .. } = self;
        (Parts { batch, inputs }, AskedOf { commits: asked, accepts, appends, inputs: input_answers })
    }

    /// Each part as a round of its own.
    fn each(parts: Parts, asked: AskedOf) -> Vec<Self> {
        let Parts { batch, inputs } = parts;
        let partly = batch.partly.load(Ordering::Relaxed);
        let round = || Self { batch: Batch { partly: partly.into(), ..Batch::default() }, ..Self::default() };
        let mut rounds = Vec::new();
        for (arrival, answer) in batch.arrivals.into_iter().zip(asked.accepts) {
            let mut one = round();
            one.batch.arrivals.push(arrival);
            one.accepts.push(answer);
            rounds.push(one);
        }
        for ((commit, fence), asked) in batch.commits.into_iter().zip(batch.fences).zip(asked.commits) {
            let mut one = round();
            one.batch.commit(commit, fence);
            one.asked.push(asked);
            rounds.push(one);
        }
        for (append, answer) in batch.appends.into_iter().zip(asked.appends) {
            let mut one = round();
            one.batch.appends.push(append);
            one.appends.push(answer);
            rounds.push(one);
        }
        for (input, answer) in inputs.into_iter().zip(asked.inputs) {
            rounds.push(Self { inputs: vec![input], input_answers: vec![answer], ..round() });
        }
        rounds
    }

    /// As transactions that share no rows to lock in another order: the commits of turns lock threads before runs, inputs
    /// make threads.
    fn split(self) -> [Self; 3] {
        let Self { batch, asked, accepts, appends, inputs, input_answers, .. } = self;
        let inputs = Self { inputs, input_answers, ..Self::default() };
        let (mut runs, mut turns) = (Self { accepts, appends, ..Self::default() }, Self::default());
        runs.batch = Batch { arrivals: batch.arrivals, appends: batch.appends, ..Batch::default() };
        for ((commit, fence), asked) in batch.commits.into_iter().zip(batch.fences).zip(asked) {
            let round = if commit.thread.is_some() { &mut turns } else { &mut runs };
            round.batch.commit(commit, fence);
            round.asked.push(asked);
        }
        [runs, turns, inputs]
    }
}

/// What one transaction writes.
#[derive(Default)]
struct Parts {
    batch: Batch,
    inputs: Vec<Input>,
}

/// What it came to.
struct Written {
    facts: Facts,
    took: Took,
    /// An earlier try may have landed.
    doubtful: bool,
}

/// Whom its parts are answered to.
#[derive(Default)]
struct AskedOf {
    commits: Vec<Asked>,
    accepts: Vec<Answer<AcceptAnswer>>,
    appends: Vec<Answer<()>>,
    inputs: Vec<Answer<InputAnswer>>,
}

impl Parts {
    fn len(&self) -> usize {
        self.batch.len() + self.inputs.len()
    }

    async fn write(&self, mut tx: CallerTx<'_>, doubtful: bool) -> Result<Written, sqlx::Error> {
        let Self { batch, inputs } = self;
        let doubtful = batch.partly.fetch_or(doubtful, Ordering::Relaxed) || doubtful;
        let frame = if inputs.is_empty() { Frame::Whole } else { Frame::Opens };
        let facts = if batch.len() == 0 {
            Facts::default()
        } else if doubtful && !batch.appends.is_empty() {
            // Only then do appends have to look at what is there.
            super::commit::write(tx.again(), &batch.doubted(), frame).await?
        } else {
            super::commit::write(tx.again(), batch, frame).await?
        };
        let took = match inputs.as_slice() {
            [] => Took::default(),
            inputs => {
                let frame = if batch.len() == 0 { Frame::Whole } else { Frame::Closes };
                receive::receive_all(tx, inputs, doubtful, frame).await?
            }
        };
        Ok(Written { facts, took, doubtful })
    }
}

impl AskedOf {
    fn fail(self, error: &Error) {
        for answer in self.commits {
            let _ = match answer {
                Asked::Commit(answer) => answer.send(Err(error.clone())).is_ok(),
                Asked::Start(_, answer) => answer.send(Err(error.clone())).is_ok(),
            };
        }
        for answer in self.accepts {
            let _ = answer.send(Err(error.clone()));
        }
        for answer in self.appends {
            let _ = answer.send(Err(error.clone()));
        }
        for answer in self.inputs {
            let _ = answer.send(Err(error.clone()));
        }
    }
}

struct Writer {
    lane: Lane,
    shared: Arc<Shared>,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut later: VecDeque<Request> = VecDeque::new();
        let mut waiting = Vec::with_capacity(self.shared.batch_max);
        let mut closing = Vec::new();
        loop {
            let room = self.shared.batch_max.saturating_sub(later.len());
            if later.is_empty() {
                if queue.recv_many(&mut waiting, room).await == 0 {
                    break;
                }
            } else {
                while waiting.len() < room {
                    let Ok(request) = queue.try_recv() else { break };
                    waiting.push(request);
                }
            }
            let mut round = Round::default();
            for request in later.drain(..).chain(waiting.drain(..)) {
                round.take(request);
            }
            later = std::mem::take(&mut round.later);
            let after = std::mem::take(&mut round.after);
            let starts = std::mem::take(&mut round.starts);
            let start_answers = std::mem::take(&mut round.start_answers);
            if self.lane.locks_rows() {
                for round in round.split() {
                    self.write(round).await;
                }
            } else {
                self.write(round).await;
            }
            if !starts.is_empty() {
                self.begin(starts, start_answers).await;
            }
            for request in after {
                match request {
                    Request::Alone(job) => self.alone(job).await,
                    Request::Turn(turn) => turn.take(&mut self.lane, &self.shared).await,
                    Request::Close(answer) => {
                        queue.close();
                        closing.push(answer);
                    }
                    _ => {}
                }
            }
        }
        twins_close(self.lane.lend()).await;
        for answer in closing {
            // Whoever closes may have stopped waiting.
            let _ = answer.send(());
        }
    }

    /// One physical write, tried until its outcome is known. `true` beside the result: an earlier try may have landed.
    async fn physical<T>(
        &mut self,
        what: &'static str,
        mut write: impl for<'t> FnMut(CallerTx<'t>, bool) -> BoxFuture<'t, Result<T, sqlx::Error>>,
    ) -> Result<(T, bool), Failed> {
        let give_up_at = Tick::now() + GIVE_UP_AFTER;
        let mut doubtful = false;
        let mut pause = Duration::from_millis(2);
        loop {
            let fault = strike(&self.shared).await;
            let written = match self.lane.connection().await {
                Ok(tx) => write(tx, doubtful).await,
                Err(e) => Err(e),
            };
            self.shared.physical_writes.fetch_add(1, Ordering::SeqCst);
            match fault {
                Some(Fault::CrashAfter) => die(&self.shared).await,
                Some(Fault::LoseAnswer) => {
                    self.lane.forget();
                    doubtful = true;
                    continue;
                }
                Some(Fault::CrashBefore) | None => {}
            }
            let error = match written {
                Ok(result) => return Ok((result, doubtful)),
                Err(error) => error,
            };
            match trouble(&error) {
                Trouble::Lost => {
                    self.lane.forget();
                    doubtful = true;
                }
                Trouble::Again => self.lane.roll_back().await,
                Trouble::Refused => {
                    self.lane.roll_back().await;
                    return Err(Failed { what, error, refused: true });
                }
            }
            if Tick::now() >= give_up_at {
                return Err(Failed { what, error, refused: false });
            }
            tracing::warn!(%error, what, "a write is tried again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// Writes a round in one transaction and answers everybody in it.
    async fn write(&mut self, round: Round) {
        let (parts, asked) = round.parts();
        if parts.len() == 0 {
            return;
        }
        let parts = Arc::new(parts);
        let written = self
            .physical("write a batch", |tx, doubtful| {
                let parts = Arc::clone(&parts);
                Box::pin(async move { parts.write(tx, doubtful).await })
            })
            .await;
        match written {
            Ok((written, _)) => self.answer(&parts, written, asked),
            // Something in it the database cannot take: each is tried alone, so that it hurts nobody else.
            Err(failed) if failed.refused && parts.len() > 1 => {
                let Some(parts) = Arc::into_inner(parts) else { return };
                for one in Round::each(parts, asked) {
                    Box::pin(self.write(one)).await;
                }
            }
            Err(failed) => asked.fail(&failed.error()),
        }
    }

    fn answer(&self, parts: &Parts, written: Written, asked: AskedOf) {
        let shared = &self.shared;
        let Written { facts, took, doubtful } = written;
        for thread in &facts.shown {
            shared.shown(*thread);
        }
        if facts.due {
            shared.due();
        }
        let batch = &parts.batch;
        let accepted: Vec<_> = batch
            .arrivals
            .iter()
            .zip(facts.arrivals)
            .map(|(arrival, fact)| (arrival, super::accept::answer(arrival, &fact, doubtful)))
            .collect();
        super::accept::announce(shared, accepted.iter().map(|(arrival, answer)| (*arrival, answer)));
        for ((_, answer), asked) in accepted.into_iter().zip(asked.accepts) {
            // Nobody in this loop is waited for: who has gone, has gone.
            let _ = asked.send(Ok(answer));
        }
        let judged: Vec<_> = batch
            .commits
            .iter()
            .zip(facts.commits)
            .zip(asked.commits)
            .map(|((commit, fact), asked)| (commit, fact.verdict(commit, doubtful), fact, asked))
            .collect();
        // Counted before anybody hears of them.
        let landed = |asked: fn(&Asked) -> bool| {
            judged.iter().filter(|(_, verdict, _, it)| *verdict == Verdict::Applied && asked(it)).count() as u64
        };
        shared.arrivals.fetch_add(landed(|asked| matches!(asked, Asked::Start(..))), Ordering::SeqCst);
        shared.count_commits(landed(|asked| matches!(asked, Asked::Commit(_))));
        for (commit, verdict, fact, _) in &judged {
            if *verdict == Verdict::Applied {
                let due = match fact {
                    CommitFact::Applied { due } => *due,
                    // It landed unheard; a hint too many costs a poll.
                    _ => !matches!(commit.leaves, Leaves::Running(_)),
                };
                shared.applied(commit, due);
            }
        }
        for (commit, verdict, fact, asked) in judged {
            match asked {
                Asked::Commit(answer) => drop(answer.send(Ok(verdict))),
                Asked::Start(id, answer) => {
                    drop(answer.send(start::answer_plain(&id, commit.run, verdict, &fact)));
                }
            }
        }
        for append in &batch.appends {
            shared.shown(ThreadKey(append.run.0));
        }
        for asked in asked.appends {
            let _ = asked.send(Ok(()));
        }
        receive::announce(shared, &took);
        for (answer, asked) in took.answers.into_iter().zip(asked.inputs) {
            let _ = asked.send(Ok(answer));
        }
    }

    /// Starts that must look before they write: a transaction of their own.
    async fn begin(&mut self, starts: Vec<Start>, answers: Vec<Answer<StartAnswer>>) {
        let starts = Arc::new(starts);
        let began = self
            .physical("start runs", |tx, doubtful| {
                let starts = Arc::clone(&starts);
                Box::pin(async move { start::begin_all(tx, &starts, doubtful, Frame::Whole).await })
            })
            .await;
        match began {
            Ok((began, _)) => {
                start::announce(&self.shared, &began);
                for (answer, asked) in began.answers.into_iter().zip(answers) {
                    let _ = asked.send(Ok(answer));
                }
            }
            Err(failed) if failed.refused && starts.len() > 1 => {
                let Some(starts) = Arc::into_inner(starts) else { return };
                for (start, answer) in starts.into_iter().zip(answers) {
                    Box::pin(self.begin(vec![start], vec![answer])).await;
                }
            }
            Err(failed) => {
                let error = failed.error();
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    async fn alone(&mut self, mut job: Box<dyn Alone>) {
        let what = job.what();
        let ended = loop_alone(self, what, &mut job).await;
        job.settle(ended);
    }
}

/// The same as [`Writer::physical`] for a job that keeps its own result.
async fn loop_alone(writer: &mut Writer, what: &'static str, job: &mut Box<dyn Alone>) -> Result<(), Error> {
    let give_up_at = Tick::now() + GIVE_UP_AFTER;
    let mut doubtful = false;
    let mut pause = Duration::from_millis(2);
    let writes = job.writes();
    loop {
        let fault = if writes { strike(&writer.shared).await } else { None };
        let written = match writer.lane.connection().await {
            Ok(tx) => job.run(tx, doubtful).await,
            Err(e) => Err(e),
        };
        writer.shared.physical_writes.fetch_add(u64::from(writes), Ordering::SeqCst);
        match fault {
            Some(Fault::CrashAfter) => die(&writer.shared).await,
            Some(Fault::LoseAnswer) => {
                writer.lane.forget();
                doubtful = true;
                continue;
            }
            Some(Fault::CrashBefore) | None => {}
        }
        let Err(error) = written else { return Ok(()) };
        match trouble(&error) {
            Trouble::Lost => {
                writer.lane.forget();
                doubtful = true;
            }
            Trouble::Again => writer.lane.roll_back().await,
            Trouble::Refused => {
                writer.lane.roll_back().await;
                return Err(Error::unavailable(what, error));
            }
        }
        if Tick::now() >= give_up_at {
            return Err(Error::unavailable(what, error));
        }
        tracing::warn!(%error, what, "a write is tried again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// A write that was given up.
struct Failed {
    what: &'static str,
    error: sqlx::Error,
    /// The database will not take it, however often it is sent.
    refused: bool,
}

impl Failed {
    fn error(self) -> Error {
        Error::unavailable(self.what, self.error)
    }
}

/// Asks the script, if there is one, what goes wrong at the write that follows.
pub(super) async fn strike(shared: &Shared) -> Option<Fault> {
    let faults = shared.faults.as_ref()?;
    let fault = faults.next();
    if fault == Some(Fault::CrashBefore) {
        faults.die().await;
    }
    fault
}

/// The process counts as dead.
pub(super) async fn die(shared: &Shared) {
    if let Some(faults) = &shared.faults {
        faults.die().await;
    }
}

async fn twins_close(connection: Option<Connection>) {
    use sqlx::Connection as _;
    let closed = match connection {
        #[cfg(feature = "sqlite")]
        Some(Connection::Sqlite(it)) => it.close().await,
        #[cfg(feature = "postgres")]
        Some(Connection::Postgres(it)) => it.close().await,
        None => Ok(()),
    };
    if let Err(error) = closed {
        tracing::debug!(%error, "the writer's connection did not close cleanly");
    }
}

#[cfg(feature = "sqlite")]
pub(super) mod sqlite {
    use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
    use sqlx::{Connection as _, Executor as _};

    use super::{Connection, Trouble};

    pub(in super::super) async fn connect(options: &SqliteConnectOptions) -> Result<Connection, sqlx::Error> {
        let mut connection = SqliteConnection::connect_with(options).await?;
        crate::store::commit::sqlite::prepare(&mut connection).await?;
        Ok(Connection::Sqlite(Box::new(connection)))
    }

    pub(super) async fn begin(tx: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        tx.execute("begin immediate").await.map(drop)
    }

    pub(super) async fn begin_lent(tx: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        begin(tx).await
    }

    pub(super) async fn end(tx: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        tx.execute("commit").await.map(drop)
    }

    pub(super) async fn roll_back(tx: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        match tx.execute("rollback").await {
            Err(sqlx::Error::Database(said)) if said.message().contains("no transaction is active") => Ok(()),
            rolled_back => rolled_back.map(drop),
        }
    }

    /// The extended result code as text; its low byte is the kind: 5 busy, 6 locked.
    pub(super) fn trouble(code: &str) -> Trouble {
        match code.parse::<i64>().map(|code| code & 0xff) {
            Ok(5 | 6) => Trouble::Again,
            _ => Trouble::Refused,
        }
    }
}

#[cfg(feature = "postgres")]
pub(super) mod postgres {
    use sqlx::postgres::{PgConnectOptions, PgConnection};
    use sqlx::{Connection as _, Executor as _};

    use super::{Connection, Trouble};

    pub(in super::super) async fn connect(options: &PgConnectOptions) -> Result<Connection, sqlx::Error> {
        let connection = PgConnection::connect_with(options).await?;
        Ok(Connection::Postgres(Box::new(connection)))
    }

    pub(in super::super) async fn begin(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        tx.execute("begin isolation level read committed").await.map(drop)
    }

    /// The writer's connection rules out plans that would be wrong for its own statements; a body's may need them.
    pub(super) async fn begin_lent(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        tx.execute(
            "begin isolation level read committed;
             set local plan_cache_mode = auto;
             set local enable_seqscan = on;
             set local enable_bitmapscan = on;
             set local enable_nestloop = on",
        )
        .await
        .map(drop)
    }

    pub(in super::super) async fn end(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        tx.execute("commit").await.map(drop)
    }

    /// Without an open transaction the server only warns.
    pub(in super::super) async fn roll_back(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        tx.execute("rollback").await.map(drop)
    }

    /// By SQLSTATE. What another transaction or a full server is to blame for may be sent again; a server that shuts
    /// down, an administrator who ends the connection, or a standby that takes no writes, call for another connection.
    pub(super) fn trouble(code: &str) -> Trouble {
        match code {
            "40001" | "40P01" | "55P03" | "57014" | "58030" => Trouble::Again,
            "25006" | "25P02" | "25P03" | "25P04" => Trouble::Lost,
            _ => match code.get(..2) {
                Some("53") => Trouble::Again,
                Some("08" | "57") => Trouble::Lost,
                _ => Trouble::Refused,
            },
        }
    }
}

//! Taking back what was sent to a thread and no turn has begun with: queued turns, by their inputs or by their sender's
//! label (T9.9, T9.10), and what a turn is to begin with that is held back (T10.8). The turns are ended and leave the queue in
//! one transaction, under the thread's lock; what else a turn was to begin with is left to another in its place.

use std::sync::{Arc, Mutex, PoisonError};

use super::Error;
use super::contract::{Commit, Leaves, Lines, NewRun};
use super::open::{Inner, Store};
use super::receive;
use super::start::{self, CallerTx};
use super::turns::{self, Opening, Queued, ThreadPart};
use super::writer::{self, Batch, Frame};
use crate::clock::Instant;
use crate::id::{Fence, RunId, RunKey, Seq, ThreadKey};
use crate::journal::RunTerminated;
use crate::payload::Payload;
use crate::run::Closed;
use crate::thread::TurnInput;

/// What is to be taken back.
#[derive(Debug, Clone)]
pub struct Unsend {
    /// The thread.
    pub thread: ThreadKey,
    /// Which of its queued inputs.
    pub which: Which,
    /// Who asks; recorded.
    pub by: String,
    /// When.
    pub at: Instant,
}

/// Which queued inputs are meant (T9.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Those with these ids, of all agents.
    Inputs(Vec<String>),
    /// One agent's that carry this label of their sender.
    Owner {
        /// The agent.
        agent: String,
        /// The label.
        owner: String,
    },
    /// All of them, and what had been held back for another turn too.
    All,
}

impl Store {
    /// Ends queued turns before they begin and takes them out of the queue; tells the ids of the inputs that are taken
    /// back, in the queue's order. What a turn has begun with is not among them. A turn that is held back with more than
    /// what is taken back is ended too, and another one in its place is held back with the rest.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn unsend(&self, asked: Unsend) -> Result<Vec<String>, Error> {
        let thread = asked.thread;
        // What was tried, in case it landed and nobody was told.
        let tried: Arc<Mutex<Vec<TakenBack>>> = Arc::default();
        let asked = Arc::new(asked);
        let taken_back = self
            .alone("take back what was queued", move |tx, doubtful| {
                let (asked, tried) = (Arc::clone(&asked), Arc::clone(&tried));
                Box::pin(async move { take_back(tx, &asked, &tried, doubtful).await })
            })
            .await?;
        for turn in &taken_back {
            self.0.shared.taken_away(turn.run);
        }
        if !taken_back.is_empty() {
            self.0.shared.shown(thread);
        }
        Ok(taken_back.into_iter().flat_map(|turn| turn.inputs).collect())
    }

    /// How many messages are queued on a thread; only those of one agent that carry a sender's label, if one is given.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn queued(&self, thread: ThreadKey, only: Option<(&str, &str)>) -> Result<i64, Error> {
        self.readable().await?;
        let (agent, owner) = only.unzip();
        twins!(Inner: &self.0.inner, queued(thread, agent, owner)).map_err(|e| Error::unavailable("count a queue", e))
    }

    /// The ids of the signals of a name that a run has not taken, in the order of acceptance.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn untaken(&self, run: RunKey, name: &str) -> Result<Vec<String>, Error> {
        self.readable().await?;
        twins!(Inner: &self.0.inner, untaken(run, name)).map_err(|e| Error::unavailable("list pending signals", e))
    }
}

/// A turn that has ended before it began.
#[derive(Debug, Clone)]
struct TakenBack {
    run: RunKey,
    /// The inputs that were taken back with it.
    inputs: Vec<String>,
}

async fn take_back(
    mut tx: CallerTx<'_>,
    asked: &Unsend,
    tried: &Mutex<Vec<TakenBack>>,
    doubtful: bool,
) -> Result<Vec<TakenBack>, sqlx::Error> {
    writer::begin(tx.again()).await?;
    let before = std::mem::take(&mut *tried.lock().unwrap_or_else(PoisonError::into_inner));
    let mut taken_back = Vec::new();
    if doubtful && !before.is_empty() {
        let runs: Vec<i64> = before.iter().map(|turn| turn.run.0).collect();
        let ended: Vec<i64> = twins!(CallerTx: tx.again(), ended_at(&runs, asked.at))?;
        taken_back.extend(before.into_iter().filter(|turn| ended.contains(&turn.run.0)));
    }
    let waiting: Vec<Waits> = twins!(CallerTx: tx.again(), waiting(asked))?;
    let meant = meant(tx.again(), asked, waiting).await?;
    if !meant.is_empty() {
        let mut batch = Batch::default();
        for turn in &meant {
            // Over its owner's head, should somebody be ending it already: what that one still writes is refused.
            batch.commit(turn.ends(asked), Some(Fence(turn.waits.fence + 1)));
        }
        let facts = turns::write(tx.again(), &batch, Frame::Inside).await?;
        let landed = meant.into_iter().zip(&facts.commits).filter(|(_, fact)| fact.is_applied());
        let landed: Vec<Meant> = landed.map(|(turn, _)| turn).collect();
        taken_back.extend(landed.iter().map(Meant::taken_back));
        hold_the_rest(tx.again(), asked, landed).await?;
    }
    tried.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&taken_back);
    writer::end(tx).await?;
    Ok(taken_back)
}

/// Which of the turns that wait are meant: queued ones all are, of those that are held back those with such an input.
async fn meant(tx: CallerTx<'_>, asked: &Unsend, waiting: Vec<Waits>) -> Result<Vec<Meant>, sqlx::Error> {
    let held = waiting.iter().filter(|turn| turn.is_held()).map(|turn| turn.run).collect();
    let mut openings = turns::openings(tx, held).await?;
    let meant = waiting.into_iter().filter_map(|waits| match openings.remove(&RunKey(waits.run)) {
        None => Some(Meant { inputs: vec![waits.input.clone()], waits, rest: None }),
        Some(opening) => Meant::of_held(waits, opening, asked),
    });
    Ok(meant.collect())
}

/// Has other turns held back in the places of those that have ended, with what was not taken back.
async fn hold_the_rest(mut tx: CallerTx<'_>, asked: &Unsend, ended: Vec<Meant>) -> Result<(), sqlx::Error> {
    let rests: Vec<(i64, Opening)> = ended.into_iter().filter_map(|it| Some((it.waits.place, it.rest?))).collect();
    if rests.is_empty() {
        return Ok(());
    }
    let n = rests.len() as i64;
    let first = start::keys(tx.again(), n).await? - n + 1;
    let (mut begins, mut held) = (Batch::default(), Vec::new());
    for (key, (place, opening)) in (first..).map(RunKey).zip(rests) {
        let Opening { namespace, workflow, version, input, .. } = opening;
        let id = RunId::generate();
        held.push(Queued::held(asked.thread, place, key, id.clone(), &input.agent));
        let new = NewRun { key, namespace, id, workflow, version, thread: Some(asked.thread) };
        let leaves = Leaves::Waiting { wake_at: None };
        begins.commit(receive::begins(new, uuid::Uuid::new_v4(), &input, leaves, asked.at), None);
    }
    super::commit::rows(tx.again(), &begins, Frame::Inside).await?;
    turns::enqueue(tx, &held).await
}

/// A turn in the queue: `run, input, place, fence, head, accepted`
#[derive(Debug, Clone, sqlx::FromRow)]
struct Waits {
    run: i64,
    input: String,
    place: i64,
    fence: i64,
    head: i64,
    accepted: i64,
}

impl Waits {
    /// Whether it takes what a turn before it had left, rather than an input of its own (T10.8).
    fn is_held(&self) -> bool {
        self.input.is_empty()
    }
}

/// A turn that is to end before it begins.
struct Meant {
    waits: Waits,
    /// What is taken back with it.
    inputs: Vec<String>,
    /// How the turn begins that takes its place; none if nothing is left.
    rest: Option<Opening>,
}

impl Meant {
    /// A turn that is held back; none if it is to begin with nothing that is asked for.
    fn of_held(waits: Waits, opening: Opening, asked: &Unsend) -> Option<Self> {
        let asked_for = |signal: &Payload| {
            let id = signal.read::<serde_json::Value>().ok()?["id"].as_str()?.to_owned();
            asked.which.names(&id).then_some(id)
        };
        let (mut inputs, mut first) = (Vec::new(), Vec::new());
        for signal in opening.input.first {
            match asked_for(&signal) {
                Some(id) => inputs.push(id),
                None => first.push(signal),
            }
        }
        let is_rest = !first.is_empty();
        let rest = Opening { input: TurnInput { first, ..opening.input }, ..opening };
        (!inputs.is_empty()).then(|| Self { waits, inputs, rest: is_rest.then_some(rest) })
    }

    fn taken_back(&self) -> TakenBack {
        TakenBack { run: RunKey(self.waits.run), inputs: self.inputs.clone() }
    }

    /// Why it has ended, as its journal says.
    fn reason(&self) -> String {
        match &self.rest {
            None => "its message was taken back before it began".to_owned(),
            Some(_) => format!("taken back before it began: {}; another turn has the rest", self.inputs.join(", ")),
        }
    }

    fn ends(&self, asked: &Unsend) -> Commit {
        let mut lines = Lines::default();
        lines.push(asked.at, &RunTerminated { reason: self.reason(), by: asked.by.clone() }.into());
        let leaves = Leaves::Closed(Closed::Terminated);
        let Waits { run, fence, head, accepted, .. } = self.waits;
        Commit {
            lines,
            signals_seen: accepted,
            thread: Some(Box::new(ThreadPart { thread: asked.thread, ..ThreadPart::default() })),
            ..Commit::new(RunKey(run), Fence(fence), Seq(head), leaves, asked.at)
        }
    }
}

impl Which {
    /// Whether an input is meant by its id.
    fn names(&self, id: &str) -> bool {
        matches!(self, Self::Inputs(ids) if ids.iter().any(|it| it == id))
    }

    fn parts(&self) -> (&[String], Option<&str>, Option<&str>) {
        match self {
            Self::Inputs(ids) => (ids, None, None),
            Self::Owner { agent, owner } => (&[], Some(agent), Some(owner)),
            Self::All => (&[], None, None),
        }
    }

    fn is_all(&self) -> bool {
        *self == Self::All
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::SqliteConnection;

    use super::super::open::sqlite::Reads;
    use super::{Instant, RunKey, ThreadKey, Unsend, Waits};
    use crate::store::json::Json;

    pub(super) async fn waiting(tx: &mut SqliteConnection, asked: &Unsend) -> Result<Vec<Waits>, sqlx::Error> {
        let (ids, agent, owner) = asked.which.parts();
        let mut json = Json::default();
        for id in ids {
            json.row().text(id);
        }
        sqlx::query_as(
            "select q.run, q.input, q.place, r.fence, r.head, r.signals_accepted as accepted
             from queue q
             cross join runs r on r.key = q.run
             where q.thread = $1 and q.kind = 'turn' and r.closed_at is null
               and ($5 or q.input in (select value ->> 0 from json_each($2))
                    or (q.agent = $3 and q.owner = $4)
                    or (q.input = '' and $3 is null))
             order by q.place",
        )
        .bind(asked.thread.0)
        .bind(json.done())
        .bind(agent)
        .bind(owner)
        .bind(asked.which.is_all())
        .fetch_all(tx)
        .await
    }

    pub(super) async fn ended_at(
        tx: &mut SqliteConnection,
        runs: &[i64],
        at: Instant,
    ) -> Result<Vec<i64>, sqlx::Error> {
        let mut json = Json::default();
        for run in runs {
            json.row().int(*run);
        }
        sqlx::query_scalar(
            "select r.key
             from json_each($1) a
             cross join runs r on r.key = a.value ->> 0
             where r.status = 'terminated' and r.closed_at = $2",
        )
        .bind(json.done())
        .bind(at.0)
        .fetch_all(tx)
        .await
    }

    pub(super) async fn queued(
        reads: &Reads,
        thread: ThreadKey,
        agent: Option<&str>,
        owner: Option<&str>,
    ) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(
            "select count(*)
             from queue
             where thread = $1 and kind = 'turn' and input <> '' and ($2 is null or (agent = $2 and owner = $3))",
        )
        .bind(thread.0)
        .bind(agent)
        .bind(owner)
        .fetch_one(&reads.pool)
        .await
    }

    pub(super) async fn untaken(reads: &Reads, run: RunKey, name: &str) -> Result<Vec<String>, sqlx::Error> {
        sqlx::query_scalar(
            "select id
             from signals
             where run = $1 and taken = 0 and kind = 'signal' and name = $2
             order by ordinal",
        )
        .bind(run.0)
        .bind(name)
        .fetch_all(&reads.pool)
        .await
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::PgConnection;

    use super::super::open::postgres::Reads;
    use super::{Instant, RunKey, ThreadKey, Unsend, Waits};

    /// Locks first and looks then: a statement that had to wait for a row would see the queue of before.
    pub(super) async fn waiting(tx: &mut PgConnection, asked: &Unsend) -> Result<Vec<Waits>, sqlx::Error> {
        let (ids, agent, owner) = asked.which.parts();
        sqlx::query(
            "select 1
             from threads
             where key = $1
             for no key update",
        )
        .bind(asked.thread.0)
        .execute(&mut *tx)
        .await?;
        sqlx::query_as(
            "select q.run, q.input, q.place, r.fence, r.head, r.signals_accepted as accepted
             from queue q
             join runs r on r.key = q.run
             where q.thread = $1
               and q.kind = 'turn'
               and r.closed_at is null
               and ($5 or q.input = any ($2) or (q.agent = $3 and q.owner = $4) or (q.input = '' and $3 is null))
             order by q.place
             for update of r",
        )
        .bind(asked.thread.0)
        .bind(ids)
        .bind(agent)
        .bind(owner)
        .bind(asked.which.is_all())
        .fetch_all(tx)
        .await
    }

    pub(super) async fn ended_at(tx: &mut PgConnection, runs: &[i64], at: Instant) -> Result<Vec<i64>, sqlx::Error> {
        sqlx::query_scalar(
            "select key
             from runs
             where key = any ($1)
               and status = 'terminated'
               and closed_at = $2",
        )
        .bind(runs)
        .bind(at.0)
        .fetch_all(tx)
        .await
    }

    pub(super) async fn queued(
        reads: &Reads,
        thread: ThreadKey,
        agent: Option<&str>,
        owner: Option<&str>,
    ) -> Result<i64, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_scalar(
                    "select count(*)
                     from queue
                     where thread = $1
                       and kind = 'turn'
                       and input <> ''
                       and ($2 is null or (agent = $2 and owner = $3))",
                )
                .bind(thread.0)
                .bind(agent)
                .bind(owner)
                .fetch_one(&mut *connection)
                .await
            })
            .await
    }

    pub(super) async fn untaken(reads: &Reads, run: RunKey, name: &str) -> Result<Vec<String>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_scalar(
                    "select id
                     from signals
                     where run = $1
                       and taken = 0
                       and kind = 'signal'
                       and name = $2
                     order by ordinal",
                )
                .bind(run.0)
                .bind(name)
                .fetch_all(&mut *connection)
                .await
            })
            .await
    }
}

//! Taking back what was sent to a thread and no turn has begun with: queued turns, by their inputs or by their sender's
//! label (T9.9, T9.10). They are ended and leave the queue in one transaction, under the thread's lock.

use std::sync::{Arc, Mutex, PoisonError};

use super::Error;
use super::contract::{Commit, Leaves, Lines};
use super::open::{Inner, Store};
use super::start::CallerTx;
use super::turns::{self, ThreadPart};
use super::writer::{self, Batch, Frame};
use crate::clock::Instant;
use crate::id::{Fence, RunKey, Seq, ThreadKey};
use crate::journal::RunTerminated;
use crate::run::Closed;

/// Why a queued turn has ended before it began, as its journal says.
const REASON: &str = "its message was taken back before it began";

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
    /// back, in the queue's order. What a turn has begun with is not among them.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn unsend(&self, asked: Unsend) -> Result<Vec<String>, Error> {
        let thread = asked.thread;
        // What was tried, in case it landed and nobody was told.
        let tried: Arc<Mutex<Vec<Waits>>> = Arc::default();
        let asked = Arc::new(asked);
        let taken_back = self
            .alone("take back what was queued", move |tx, doubtful| {
                let (asked, tried) = (Arc::clone(&asked), Arc::clone(&tried));
                Box::pin(async move { take_back(tx, &asked, &tried, doubtful).await })
            })
            .await?;
        for turn in &taken_back {
            self.0.shared.ended(RunKey(turn.run), || None);
        }
        if !taken_back.is_empty() {
            self.0.shared.shown(thread);
        }
        Ok(taken_back.into_iter().map(|turn| turn.input).collect())
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

async fn take_back(
    mut tx: CallerTx<'_>,
    asked: &Unsend,
    tried: &Mutex<Vec<Waits>>,
    doubtful: bool,
) -> Result<Vec<Waits>, sqlx::Error> {
    writer::begin(tx.again()).await?;
    let before = std::mem::take(&mut *tried.lock().unwrap_or_else(PoisonError::into_inner));
    let mut taken_back = Vec::new();
    if doubtful && !before.is_empty() {
        let runs: Vec<i64> = before.iter().map(|turn| turn.run).collect();
        let ended: Vec<i64> = twins!(CallerTx: tx.again(), ended_at(&runs, asked.at))?;
        taken_back.extend(before.into_iter().filter(|turn| ended.contains(&turn.run)));
    }
    let waiting: Vec<Waits> = twins!(CallerTx: tx.again(), waiting(asked))?;
    if !waiting.is_empty() {
        let mut batch = Batch::default();
        for turn in &waiting {
            // Over its owner's head, should somebody be ending it already: what that one still writes is refused.
            batch.commit(turn.ends(asked), Some(Fence(turn.fence + 1)));
        }
        let facts = turns::write(tx.again(), &batch, Frame::Inside).await?;
        let landed = waiting.iter().zip(&facts.commits).filter(|(_, fact)| fact.is_applied());
        taken_back.extend(landed.map(|(turn, _)| turn.clone()));
    }
    tried.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&taken_back);
    writer::end(tx).await?;
    Ok(taken_back)
}

/// A queued turn: `run, input, fence, head, accepted`
#[derive(Debug, Clone, sqlx::FromRow)]
struct Waits {
    run: i64,
    input: String,
    fence: i64,
    head: i64,
    accepted: i64,
}

impl Waits {
    fn ends(&self, asked: &Unsend) -> Commit {
        let mut lines = Lines::default();
        lines.push(asked.at, &RunTerminated { reason: REASON.to_owned(), by: asked.by.clone() }.into());
        let leaves = Leaves::Closed(Closed::Terminated);
        Commit {
            lines,
            signals_seen: self.accepted,
            thread: Some(Box::new(ThreadPart { thread: asked.thread, ..ThreadPart::default() })),
            ..Commit::new(RunKey(self.run), Fence(self.fence), Seq(self.head), leaves, asked.at)
        }
    }
}

impl Which {
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
            "select q.run, q.input, r.fence, r.head, r.signals_accepted as accepted
             from queue q
             cross join runs r on r.key = q.run
             where q.thread = $1 and q.kind = 'turn' and r.closed_at is null
               and ($5 or q.input in (select value ->> 0 from json_each($2)) or (q.agent = $3 and q.owner = $4))
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
            "select q.run, q.input, r.fence, r.head, r.signals_accepted as accepted
             from queue q
             join runs r on r.key = q.run
             where q.thread = $1
               and q.kind = 'turn'
               and r.closed_at is null
               and ($5 or q.input = any ($2) or (q.agent = $3 and q.owner = $4))
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

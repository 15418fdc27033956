//! `transact`: a transactional step. Its body writes through the store's own transaction, inside the writer's turn.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::contract::{Commit, Transacted, Verdict};
use super::open::Store;
use super::writer::{self, Answer, Batch, CommitFact, Frame, Lane, Shared};
use super::{Error, Fault};
use crate::transaction::Tx;

/// How long a connection may take to come home once its body was told to stop.
const HOME_BY: Duration = Duration::from_secs(1);

impl Store {
    /// Lends the store's own transaction to a body. What the body writes and the commit that it resolves to are durable
    /// together, or neither is. The writer waits meanwhile, at most until `deadline` has passed: keep bodies short.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the outcome could not be learned, or the transaction was lost before it could be
    /// committed: then nothing of it was written, and the body may be run again. [`Error::Closed`].
    pub async fn transact<A, F, B>(&self, deadline: Duration, body: F) -> Result<Transacted<A>, Error>
    where
        F: FnOnce(Tx) -> B + Send + 'static,
        B: Future<Output = Result<Commit, A>> + Send + 'static,
        A: Send + 'static,
    {
        self.0.shared.open()?;
        let (answer, answered) = oneshot::channel();
        self.send_turn(Box::new(Step { deadline, body, answer })).await?;
        self.heard(answered).await
    }
}

/// A transactional step that waits for the writer's turn.
pub(super) trait Turn: Send {
    fn take<'l>(self: Box<Self>, lane: &'l mut Lane, shared: &'l Arc<Shared>) -> BoxFuture<'l, ()>;
}

struct Step<A, F> {
    deadline: Duration,
    body: F,
    answer: Answer<Transacted<A>>,
}

impl<A, F, B> Turn for Step<A, F>
where
    F: FnOnce(Tx) -> B + Send + 'static,
    B: Future<Output = Result<Commit, A>> + Send + 'static,
    A: Send + 'static,
{
    fn take<'l>(self: Box<Self>, lane: &'l mut Lane, shared: &'l Arc<Shared>) -> BoxFuture<'l, ()> {
        Box::pin(async move {
            let Self { deadline, body, answer } = *self;
            let transacted = transact(lane, shared, deadline, body).await;
            // Who asked may have gone; what was written stays written.
            let _ = answer.send(transacted);
        })
    }
}

async fn transact<A, F, B>(
    lane: &mut Lane,
    shared: &Arc<Shared>,
    deadline: Duration,
    body: F,
) -> Result<Transacted<A>, Error>
where
    F: FnOnce(Tx) -> B + Send + 'static,
    B: Future<Output = Result<Commit, A>> + Send + 'static,
    A: Send + 'static,
{
    let unavailable = |e| Error::unavailable("run a transactional step", e);
    open_transaction(lane).await.map_err(unavailable)?;
    let Some(connection) = lane.lend() else { return Err(unavailable(sqlx::Error::WorkerCrashed)) };
    let (tx, mut home) = Tx::lend(connection);
    // The future is made inside the task: a body that panics before its first await is caught as well.
    let mut task = lane.bodies.spawn(async move { body(tx).await });
    let ended = tokio::time::timeout(deadline, &mut task).await;
    if ended.is_err() {
        task.abort();
    }
    match tokio::time::timeout(HOME_BY, &mut home).await {
        Ok(Ok(connection)) => lane.take_back(connection),
        // It was lent on, or a call of the database holds it: it rolls back when it is dropped there.
        Ok(Err(_)) | Err(_) => lane.forget(),
    }
    let commit = match ended {
        Ok(Ok(Ok(commit))) => commit,
        Ok(Ok(Err(gave_up))) => {
            lane.roll_back().await;
            return Ok(Transacted::Aborted(gave_up));
        }
        Ok(Err(stopped)) => {
            lane.roll_back().await;
            return Ok(Transacted::Panicked(words(stopped)));
        }
        Err(_) => {
            lane.roll_back().await;
            return Ok(Transacted::TimedOut);
        }
    };
    let mut batch = Batch::default();
    batch.commit(commit, None);
    let fault = writer::strike(shared).await;
    let written = seal(lane, &batch).await;
    shared.physical_writes.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let (fact, doubtful) = match (fault, written) {
        (Some(Fault::CrashAfter), _) => {
            writer::die(shared).await;
            return Err(Error::Closed);
        }
        (None | Some(Fault::CrashBefore), Ok(fact)) => (fact, false),
        (None | Some(Fault::CrashBefore), Err(e)) if !writer::is_lost(&e) => {
            lane.roll_back().await;
            return Err(unavailable(e));
        }
        // The answer was lost. Nothing can be sent again, as the body's writes are gone; so the row is asked.
        (_, written) => {
            lane.forget();
            let fact = resolve(lane, &batch).await?;
            if matches!(fact.verdict(&batch.commits[0], true), Verdict::Refused(super::Refusal::Undrained { .. }))
                || matches!(fact, CommitFact::Applied { .. })
            {
                // The row is as before the step: it did not land.
                let source = written.err().unwrap_or(sqlx::Error::WorkerCrashed);
                return Err(unavailable(source));
            }
            (fact, true)
        }
    };
    let commit = &batch.commits[0];
    match fact.verdict(commit, doubtful) {
        Verdict::Applied => {
            let due = !matches!(fact, CommitFact::Applied { due: false });
            shared.applied(commit, due);
            shared.count_commits(1);
            Ok(Transacted::Applied)
        }
        Verdict::Refused(refusal) => {
            lane.roll_back().await;
            Ok(Transacted::Refused(refusal))
        }
    }
}

async fn open_transaction(lane: &mut Lane) -> Result<(), sqlx::Error> {
    let mut tries = 0;
    loop {
        let begun = match lane.connection().await {
            Ok(tx) => writer::begin_lent(tx).await,
            Err(e) => Err(e),
        };
        match begun {
            Ok(()) => return Ok(()),
            Err(e) if tries >= 3 => return Err(e),
            Err(_) => lane.forget(),
        }
        tries += 1;
    }
}

/// Writes the commit beside the body's writes and commits both, or leaves the transaction open if it is refused.
async fn seal(lane: &mut Lane, batch: &Batch) -> Result<CommitFact, sqlx::Error> {
    let facts = super::commit::write(lane.connection().await?, batch, Frame::Inside).await?;
    let fact = facts.commits.into_iter().next().unwrap_or(CommitFact::Gone);
    if matches!(fact, CommitFact::Applied { .. }) {
        writer::end(lane.connection().await?).await?;
    }
    Ok(fact)
}

/// Asks the row how it stands, by a commit that is judged and never written.
async fn resolve(lane: &mut Lane, batch: &Batch) -> Result<CommitFact, Error> {
    let unavailable = |e| Error::unavailable("learn what became of a transactional step", e);
    open_transaction(lane).await.map_err(unavailable)?;
    let tx = lane.connection().await.map_err(unavailable)?;
    let facts = super::commit::write(tx, batch, Frame::Inside).await.map_err(unavailable)?;
    lane.roll_back().await;
    Ok(facts.commits.into_iter().next().unwrap_or(CommitFact::Gone))
}

fn words(stopped: tokio::task::JoinError) -> String {
    match stopped.try_into_panic() {
        Ok(panic) => panic_words(&*panic),
        Err(_) => "the body's task was stopped".to_owned(),
    }
}

fn panic_words(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&'static str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}

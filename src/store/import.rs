//! `import`: a run exported from another store, kept to be read and replayed.

use std::sync::Arc;

use super::Error;
use super::contract::{Lines, NewRun, StartRefused};
use super::open::Store;
use super::start::CallerTx;
use super::writer::CommitFact;
use crate::clock::Instant;
use crate::id::RunId;
use crate::journal::Recorded;
use crate::run::Closed;

impl Store {
    /// Keeps a run that was exported elsewhere, with its journal. A closed one stays closed as it was; an open one waits,
    /// without a timer, and nobody has it.
    ///
    /// # Errors
    /// The inner one if the id belongs to a run here that is open. [`Error::Corrupt`] if the lines are not dense;
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn import(
        &self,
        run: NewRun,
        lines: Vec<Recorded>,
        closed: Option<Closed>,
        now: Instant,
    ) -> Result<Result<(), StartRefused>, Error> {
        if !lines.iter().zip(1_i64..).all(|(line, seq)| line.seq.0 == seq) {
            return Err(Error::Corrupt { found: format!("the lines of imported run {} are not dense", run.id) });
        }
        let mut encoded = Lines::default();
        for line in &lines {
            encoded.push(line.at, &line.event);
        }
        let (id, key) = (run.id.clone(), run.key);
        let import = Arc::new((run, encoded, lines.last().map_or(now, |last| last.at)));
        let fact = self
            .alone("import a run", move |tx, doubtful| {
                let import = Arc::clone(&import);
                Box::pin(async move {
                    let (run, lines, last_at) = &*import;
                    super::import::write(tx, run, lines, closed, *last_at, doubtful).await
                })
            })
            .await?;
        match fact {
            CommitFact::Applied { .. } => Ok(Ok(())),
            CommitFact::IdInUse { status, .. } => {
                Ok(Err(StartRefused::Open { run: RunId::clone(&id), status: super::start::status_word(&status) }))
            }
            _ => Err(Error::Corrupt { found: format!("run key {key} of imported run {id} is in use") }),
        }
    }
}

/// As a commit that begins the run and leaves it closed or waiting.
async fn write(
    tx: CallerTx<'_>,
    run: &NewRun,
    lines: &Lines,
    closed: Option<Closed>,
    at: Instant,
    doubtful: bool,
) -> Result<CommitFact, sqlx::Error> {
    use super::contract::{Commit, Leaves, Verdict};
    use super::writer::{Batch, Frame};
    use crate::id::{Fence, Seq};

    let mut batch = Batch::default();
    let leaves = closed.map_or(Leaves::Waiting { wake_at: None }, Leaves::Closed);
    let commit = Commit {
        begins: Some(Box::new(run.clone())),
        lines: lines.clone(),
        ..Commit::new(run.key, Fence::FIRST, Seq::NONE, leaves, at)
    };
    batch.commit(commit, None);
    let facts = super::commit::write(tx, &batch, Frame::Whole).await?;
    let fact = facts.commits.into_iter().next().unwrap_or(CommitFact::Gone);
    if doubtful && fact.verdict(&batch.commits[0], true) == Verdict::Applied {
        return Ok(CommitFact::Applied { due: false });
    }
    Ok(fact)
}

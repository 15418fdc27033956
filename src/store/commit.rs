//! `commit`: what runs leave behind, gathered into one physical transaction.

use super::contract::{Commit, Verdict};
use super::open::Store;
use super::start::CallerTx;
use super::writer::{Batch, Facts, Frame};
use super::{Error, writer};

impl Store {
    /// Writes what runs want to leave behind. One verdict per commit, in the same order; the commits must be of
    /// different runs. What is `Applied` is durable, whole; of what is `Refused` nothing was written. A crash before the
    /// answer leaves each commit written whole or not at all.
    ///
    /// # Errors
    /// [`Error::Unavailable`] only after the outcome could not be learned for half a minute; [`Error::Closed`].
    pub async fn commit(&self, commits: Vec<Commit>) -> Result<Vec<Verdict>, Error> {
        self.0.shared.open()?;
        let mut answers = Vec::with_capacity(commits.len());
        for commit in commits {
            answers.push(self.send_commit(commit).await?);
        }
        let mut verdicts = Vec::with_capacity(answers.len());
        for answer in answers {
            verdicts.push(self.heard(answer).await?);
        }
        Ok(verdicts)
    }
}

/// Writes a batch: arrivals, then commits, then appends; see [`writer::Batch`]. One statement text, one hop.
pub(super) async fn write(tx: CallerTx<'_>, batch: &Batch, frame: Frame) -> Result<Facts, sqlx::Error> {
    twins!(CallerTx: tx, write(batch, frame))
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::SqliteConnection;

    use super::writer::{Batch, Facts, Frame};

    pub(super) async fn write(_tx: &mut SqliteConnection, _batch: &Batch, _frame: Frame) -> Result<Facts, sqlx::Error> {
        todo!()
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::PgConnection;

    use super::writer::{Batch, Facts, Frame};

    /// With `Frame::Whole` on no open transaction: one autocommit statement. With `Frame::Inside`: in the open one.
    /// `batch.fences[i]`, if some, is the fence to leave in the row instead of the commit's own (which must still match).
    pub(super) async fn write(_tx: &mut PgConnection, _batch: &Batch, _frame: Frame) -> Result<Facts, sqlx::Error> {
        todo!()
    }
}

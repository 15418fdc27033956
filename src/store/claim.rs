//! `claim`: a worker takes due runs.

use std::sync::Arc;

use super::Error;
use super::open::Store;
use super::start::CallerTx;
use crate::clock::Instant;
use crate::id::WorkerKey;
use crate::run::Run;

impl Store {
    /// Gives a worker up to `limit` runs whose time has come by `now` and whose workflow (`name v1`) it `knows`, earliest
    /// first. Each is `Running` with a new fence: whoever had it before is refused from here on. A worker that dies
    /// with them loses nothing; they are due again when its lease is taken over.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn claim(
        &self,
        worker: WorkerKey,
        knows: &[String],
        limit: usize,
        now: Instant,
    ) -> Result<Vec<Run>, Error> {
        let knows: Arc<[String]> = knows.into();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        // Marks the rows of this very claim, so that they are found again should its answer be lost.
        let token = (uuid::Uuid::new_v4().as_u128() & 0x7fff_ffff_ffff_ffff) as i64;
        self.alone("claim due runs", move |tx, doubtful| {
            let knows = Arc::clone(&knows);
            Box::pin(async move {
                if doubtful {
                    let claimed = twins!(CallerTx: tx, claimed(worker, token, &knows, limit, now))?;
                    return Ok(claimed);
                }
                twins!(CallerTx: tx, claim(worker, token, &knows, limit, now))
            })
        })
        .await
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::SqliteConnection;

    use super::{Instant, Run, WorkerKey};

    pub(super) async fn claim(
        _tx: &mut SqliteConnection,
        _worker: WorkerKey,
        _token: i64,
        _knows: &[String],
        _limit: i64,
        _now: Instant,
    ) -> Result<Vec<Run>, sqlx::Error> {
        todo!()
    }

    pub(super) async fn claimed(
        _tx: &mut SqliteConnection,
        _worker: WorkerKey,
        _token: i64,
        _knows: &[String],
        _limit: i64,
        _now: Instant,
    ) -> Result<Vec<Run>, sqlx::Error> {
        todo!()
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::PgConnection;

    use super::{Instant, Run, WorkerKey};

    pub(super) async fn claim(
        _tx: &mut PgConnection,
        _worker: WorkerKey,
        _token: i64,
        _knows: &[String],
        _limit: i64,
        _now: Instant,
    ) -> Result<Vec<Run>, sqlx::Error> {
        todo!()
    }

    /// What a claim whose answer was lost has taken; if it took nothing, claims.
    pub(super) async fn claimed(
        _tx: &mut PgConnection,
        _worker: WorkerKey,
        _token: i64,
        _knows: &[String],
        _limit: i64,
        _now: Instant,
    ) -> Result<Vec<Run>, sqlx::Error> {
        todo!()
    }
}

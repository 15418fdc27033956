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
    use crate::store::json::Json;
    use crate::store::read::RunRow;

    pub(super) async fn claim(
        tx: &mut SqliteConnection,
        worker: WorkerKey,
        token: i64,
        knows: &[String],
        limit: i64,
        now: Instant,
    ) -> Result<Vec<Run>, sqlx::Error> {
        let mut known = Json::default();
        for known_as in knows {
            let named = known_as.rsplit_once(" v").and_then(|(name, version)| Some((name, version.parse().ok()?)));
            if let Some((workflow, version)) = named {
                known.row().text(workflow).int(version);
            }
        }
        // The index gives due runs in the order of their time, so the look ends as soon as there are enough.
        let mut claimed: Vec<RunRow> = sqlx::query_as(
            "update runs
             set status = 'running', worker = $1, fence = fence + 1, claim = $2, updated_at = $3
             where key in (
                 select key
                 from runs
                 where status in ('due', 'waiting')
                   and wake_at is not null
                   and wake_at <= $3
                   and (workflow, version) in (select value ->> 0, value ->> 1 from json_each($4))
                 order by wake_at
                 limit $5)
             returning key, namespace, id, workflow, version, status, wake_at, worker, fence, head, signals_accepted,
                       signals_pending, block_code, block_text, closed_at, created_at, updated_at, thread",
        )
        .bind(worker.0)
        .bind(token)
        .bind(now.0)
        .bind(known.done())
        .bind(limit)
        .fetch_all(tx)
        .await?;
        // An update returns its rows in no order; `wake_at` still says when each was due.
        claimed.sort_by_key(|row| (row.wake_at, row.key));
        claimed.into_iter().map(Run::try_from).collect()
    }

    pub(super) async fn claimed(
        tx: &mut SqliteConnection,
        worker: WorkerKey,
        token: i64,
        knows: &[String],
        limit: i64,
        now: Instant,
    ) -> Result<Vec<Run>, sqlx::Error> {
        let claimed: Vec<RunRow> = sqlx::query_as(
            "select key, namespace, id, workflow, version, status, wake_at, worker, fence, head, signals_accepted,
                    signals_pending, block_code, block_text, closed_at, created_at, updated_at, thread
             from runs
             where worker = $1 and claim = $2
             order by key",
        )
        .bind(worker.0)
        .bind(token)
        .fetch_all(&mut *tx)
        .await?;
        if claimed.is_empty() {
            return claim(tx, worker, token, knows, limit, now).await;
        }
        claimed.into_iter().map(Run::try_from).collect()
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::{FromRow, PgConnection, Row};

    use super::super::read::RunRow;
    use super::{Instant, Run, WorkerKey};

    /// Until it ends, a claim holds a lock by its token: see [`claimed`].
    pub(super) async fn claim(
        tx: &mut PgConnection,
        worker: WorkerKey,
        token: i64,
        knows: &[String],
        limit: i64,
        now: Instant,
    ) -> Result<Vec<Run>, sqlx::Error> {
        // Workers that claim together pass over each other's rows instead of waiting for them.
        let mut rows = sqlx::query(
            "with due as materialized (
               select key, wake_at
               from runs
               where (select pg_advisory_xact_lock($2))::text is not null
                 and status in ('due', 'waiting')
                 and wake_at <= $5
                 and workflow || ' v' || version = any ($3)
               order by wake_at
               limit $4
               for no key update skip locked
             )
             update runs r
             set status = 'running',
                 worker = $1,
                 claim = $2,
                 fence = r.fence + 1,
                 wake_at = null,
                 updated_at = $5
             from due
             where r.key = any (array(select key from due))
               and r.key = due.key
             returning r.key, r.namespace, r.id, r.workflow, r.version, r.status, r.wake_at, r.worker, r.fence, r.head,
                       r.signals_accepted, r.signals_pending, r.block_code, r.block_text, r.closed_at, r.created_at,
                       r.updated_at, r.thread, due.wake_at as due_at",
        )
        .bind(worker.0)
        .bind(token)
        .bind(knows)
        .bind(limit)
        .bind(now.0)
        .fetch_all(tx)
        .await?
        .iter()
        .map(|row| Ok((row.try_get::<i64, _>("due_at")?, RunRow::from_row(row)?)))
        .collect::<Result<Vec<_>, sqlx::Error>>()?;
        rows.sort_by_key(|(due_at, row)| (*due_at, row.key));
        rows.into_iter().map(|(_, row)| Run::try_from(row)).collect()
    }

    /// What a claim whose answer was lost has taken; if it took nothing, claims.
    pub(super) async fn claimed(
        tx: &mut PgConnection,
        worker: WorkerKey,
        token: i64,
        knows: &[String],
        limit: i64,
        now: Instant,
    ) -> Result<Vec<Run>, sqlx::Error> {
        // The lost claim may still be at work on its own connection; once it has ended, its rows are seen.
        sqlx::query("select pg_advisory_xact_lock($1)").bind(token).execute(&mut *tx).await?;
        let rows: Vec<RunRow> = sqlx::query_as(
            "select key, namespace, id, workflow, version, status, wake_at, worker, fence, head, signals_accepted,
                    signals_pending, block_code, block_text, closed_at, created_at, updated_at, thread
             from runs
             where worker = $1
               and claim = $2
             order by key",
        )
        .bind(worker.0)
        .bind(token)
        .fetch_all(&mut *tx)
        .await?;
        if rows.is_empty() {
            return claim(tx, worker, token, knows, limit, now).await;
        }
        rows.into_iter().map(Run::try_from).collect()
    }
}

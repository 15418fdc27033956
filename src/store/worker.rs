//! Worker processes: who they are, until when they have their runs, and what becomes of those runs.

use std::sync::Arc;

use super::Error;
use super::contract::Worker;
use super::history::SignalRow;
use super::open::{Inner, Store};
use super::start::CallerTx;
use crate::clock::Instant;
use crate::id::{RunKey, WorkerKey};
use crate::signal::Pending;

/// A worker process that introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Host and process id, for people.
    pub name: String,
    /// What its workflows were built from.
    pub build: String,
    /// The workflows it can run, as `name v1`.
    pub knows: Vec<String>,
    /// When.
    pub now: Instant,
    /// Its runs are taken over after this, unless it says more.
    pub lease_until: Instant,
}

impl Store {
    /// Makes a worker known. Its runs are its own until the lease runs out.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn register(&self, worker: Registration) -> Result<WorkerKey, Error> {
        let worker = Arc::new(worker);
        let key = self
            .alone("register a worker", move |tx, doubtful| {
                let worker = Arc::clone(&worker);
                Box::pin(async move { twins!(CallerTx: tx, register(&worker, doubtful)) })
            })
            .await?;
        Ok(WorkerKey(key))
    }

    /// Extends a worker's lease. `false`: its row is gone, its runs were taken over; it must drop them.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn heartbeat(&self, worker: WorkerKey, now: Instant, lease_until: Instant) -> Result<bool, Error> {
        // A lease that ran out and that nobody has taken is still the worker's: `now` decides nothing.
        let _ = now;
        self.alone("extend a lease", move |tx, _| {
            Box::pin(async move { twins!(CallerTx: tx, heartbeat(worker, lease_until)) })
        })
        .await
    }

    /// Makes the runs of workers whose lease ran out due, with a new fence, and removes those workers. How many runs.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn take_over(&self, now: Instant) -> Result<u64, Error> {
        let taken = self
            .alone("take over the runs of dead workers", move |tx, doubtful| {
                Box::pin(async move { Ok((twins!(CallerTx: tx, take_over(now))?, doubtful)) })
            })
            .await?;
        self.freed(taken)
    }

    /// Makes the runs of all workers but one due, with a new fence, and removes those workers: for a process that knows
    /// itself alone, as the engine of a SQLite store does by its file lock. How many runs.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn take_over_all(&self, except: Option<WorkerKey>, now: Instant) -> Result<u64, Error> {
        let taken = self
            .alone("take over the runs of all other workers", move |tx, doubtful| {
                Box::pin(async move { Ok((twins!(CallerTx: tx, take_over_all(except, now))?, doubtful)) })
            })
            .await?;
        self.freed(taken)
    }

    /// A worker goes: its runs are due, with a new fence, and its row is removed. How many runs.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn release(&self, worker: WorkerKey, now: Instant) -> Result<u64, Error> {
        let released = self
            .alone("release a worker's runs", move |tx, doubtful| {
                Box::pin(async move { Ok((twins!(CallerTx: tx, release(worker, now))?, doubtful)) })
            })
            .await?;
        self.freed(released)
    }

    /// Tells of runs that were made due; after a write whose first answer was lost there may be more than it counted.
    fn freed(&self, (runs, doubtful): (u64, bool)) -> Result<u64, Error> {
        if runs > 0 || doubtful {
            self.0.shared.due();
        }
        Ok(runs)
    }

    /// Blocks due runs whose workflow no worker with a lease knows: waiting for nobody would say nothing. `build` is
    /// whose look it was; another one unblocks them. How many runs.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn block_unknown(&self, build: &str, now: Instant) -> Result<u64, Error> {
        let build: Arc<str> = build.into();
        let blocked: Vec<i64> = self
            .alone("block runs that no worker knows", move |tx, _| {
                let build = Arc::clone(&build);
                Box::pin(async move { twins!(CallerTx: tx, block_unknown(&build, now)) })
            })
            .await?;
        for run in &blocked {
            self.0.shared.ended(RunKey(*run), || None);
        }
        Ok(blocked.len() as u64)
    }

    /// Makes blocked runs of the workflows that a worker `knows` due, unless the same `build` blocked them. How many.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn unblock(&self, build: &str, knows: &[String], now: Instant) -> Result<u64, Error> {
        let build: Arc<str> = build.into();
        let knows: Arc<[String]> = knows.into();
        let unblocked = self
            .alone("unblock runs", move |tx, doubtful| {
                let (build, knows) = (Arc::clone(&build), Arc::clone(&knows));
                Box::pin(async move { Ok((twins!(CallerTx: tx, unblock(&build, &knows, now))?, doubtful)) })
            })
            .await?;
        self.freed(unblocked)
    }

    /// The database's clock minus this machine's, in milliseconds; 0 on SQLite, which has no clock of its own.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn clock_offset(&self) -> Result<i64, Error> {
        self.readable().await?;
        twins!(Inner: &self.0.inner, clock_offset()).map_err(|e| Error::unavailable("read the database's clock", e))
    }

    /// All registered workers, oldest first, those whose lease ran out included.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`]; [`Error::Corrupt`] for a row that cannot be read.
    pub async fn workers(&self) -> Result<Vec<Worker>, Error> {
        self.readable().await?;
        let rows = twins!(Inner: &self.0.inner, workers()).map_err(|e| Error::unavailable("list workers", e))?;
        rows.into_iter().map(Worker::try_from).collect()
    }

    /// The untaken signals of the runs that a worker has: what it may not have heard.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`]; [`Error::Corrupt`] for a signal that cannot be read.
    pub async fn overheard(&self, worker: WorkerKey) -> Result<Vec<(RunKey, Vec<Pending>)>, Error> {
        self.readable().await?;
        let rows: Vec<SignalRow> = twins!(Inner: &self.0.inner, overheard(worker))
            .map_err(|e| Error::unavailable("read the signals of a worker's runs", e))?;
        let mut overheard: Vec<(RunKey, Vec<Pending>)> = Vec::new();
        for row in rows {
            let run = RunKey(row.run);
            let signal = Pending::try_from(row)?;
            match overheard.last_mut() {
                Some((last, signals)) if *last == run => signals.push(signal),
                _ => overheard.push((run, vec![signal])),
            }
        }
        Ok(overheard)
    }
}

/// The sentence on a run that no worker knows.
pub(super) fn unregistered(workflow: &str, version: i64, registered: &[String]) -> String {
    let registered = if registered.is_empty() { "none".to_owned() } else { registered.join(", ") };
    format!("no worker here knows workflow {workflow} v{version}; registered: {registered}")
}

/// A worker as stored: `key, name, build, knows, lease_until`; `knows` is a JSON array of texts.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct WorkerRow {
    key: i64,
    name: String,
    build: String,
    knows: String,
    lease_until: i64,
}

impl TryFrom<WorkerRow> for Worker {
    type Error = Error;

    fn try_from(row: WorkerRow) -> Result<Self, Error> {
        let knows = serde_json::from_str(&row.knows)
            .map_err(|e| Error::Corrupt { found: format!("what worker {} knows: {e}", row.key) })?;
        Ok(Self {
            key: WorkerKey(row.key),
            name: row.name,
            build: row.build,
            lease_until: Instant(row.lease_until),
            knows,
        })
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::SqliteConnection;

    use super::super::open::sqlite::Reads;
    use super::super::writer;
    use super::{CallerTx, Instant, Registration, SignalRow, WorkerKey, WorkerRow};
    use crate::store::json::Json;

    pub(super) async fn register(
        tx: &mut SqliteConnection,
        worker: &Registration,
        doubtful: bool,
    ) -> Result<i64, sqlx::Error> {
        let knows = serde_json::Value::from(worker.knows.clone()).to_string();
        if doubtful {
            let there: Option<i64> = sqlx::query_scalar(
                "select max(key)
                 from workers
                 where name = $1 and build = $2 and lease_until = $3",
            )
            .bind(&worker.name)
            .bind(&worker.build)
            .bind(worker.lease_until.0)
            .fetch_one(&mut *tx)
            .await?;
            if let Some(key) = there {
                return Ok(key);
            }
        }
        sqlx::query_scalar(
            "insert into workers (name, build, knows, lease_until)
             values ($1, $2, $3, $4)
             returning key",
        )
        .bind(&worker.name)
        .bind(&worker.build)
        .bind(knows)
        .bind(worker.lease_until.0)
        .fetch_one(tx)
        .await
    }

    pub(super) async fn heartbeat(
        tx: &mut SqliteConnection,
        worker: WorkerKey,
        lease_until: Instant,
    ) -> Result<bool, sqlx::Error> {
        let extended = sqlx::query(
            "update workers
             set lease_until = max(lease_until, $2)
             where key = $1",
        )
        .bind(worker.0)
        .bind(lease_until.0)
        .execute(tx)
        .await?;
        Ok(extended.rows_affected() > 0)
    }

    // The runs whose worker is not there: one that is late may have begun a run after its row was removed.
    pub(super) async fn take_over(tx: &mut SqliteConnection, now: Instant) -> Result<u64, sqlx::Error> {
        writer::begin(CallerTx::Sqlite(tx)).await?;
        let taken = sqlx::query(
            "update runs
             set status = 'due', wake_at = $1, worker = null, fence = fence + 1, updated_at = $1
             where worker is not null and worker not in (select key from workers where lease_until >= $1)",
        )
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "delete from workers
             where lease_until < $1",
        )
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
        writer::end(CallerTx::Sqlite(tx)).await?;
        Ok(taken.rows_affected())
    }

    // Runs of workers whose row is missing are freed as well: nobody else would.
    pub(super) async fn take_over_all(
        tx: &mut SqliteConnection,
        except: Option<WorkerKey>,
        now: Instant,
    ) -> Result<u64, sqlx::Error> {
        writer::begin(CallerTx::Sqlite(tx)).await?;
        let taken = sqlx::query(
            "update runs
             set status = 'due', wake_at = $1, worker = null, fence = fence + 1, updated_at = $1
             where worker is not null and worker is not $2",
        )
        .bind(now.0)
        .bind(except.map(|worker| worker.0))
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "delete from workers
             where key is not $1",
        )
        .bind(except.map(|worker| worker.0))
        .execute(&mut *tx)
        .await?;
        writer::end(CallerTx::Sqlite(tx)).await?;
        Ok(taken.rows_affected())
    }

    pub(super) async fn release(
        tx: &mut SqliteConnection,
        worker: WorkerKey,
        now: Instant,
    ) -> Result<u64, sqlx::Error> {
        writer::begin(CallerTx::Sqlite(tx)).await?;
        let released = sqlx::query(
            "update runs
             set status = 'due', wake_at = $2, worker = null, fence = fence + 1, updated_at = $2
             where worker = $1",
        )
        .bind(worker.0)
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "delete from workers
             where key = $1",
        )
        .bind(worker.0)
        .execute(&mut *tx)
        .await?;
        writer::end(CallerTx::Sqlite(tx)).await?;
        Ok(released.rows_affected())
    }

    pub(super) async fn block_unknown(
        tx: &mut SqliteConnection,
        build: &str,
        now: Instant,
    ) -> Result<Vec<i64>, sqlx::Error> {
        writer::begin(CallerTx::Sqlite(tx)).await?;
        let registered: Vec<String> = sqlx::query_scalar(
            "select distinct k.value
             from workers w, json_each(w.knows) k
             where w.lease_until >= $1
             order by k.value",
        )
        .bind(now.0)
        .fetch_all(&mut *tx)
        .await?;
        let due: Vec<(String, i64)> = sqlx::query_as(
            "select distinct workflow, version
             from runs
             where status in ('due', 'waiting') and wake_at is not null and wake_at <= $1
             order by workflow, version",
        )
        .bind(now.0)
        .fetch_all(&mut *tx)
        .await?;
        let mut blocked = Vec::new();
        for (workflow, version) in due {
            if registered.iter().any(|known| *known == format!("{workflow} v{version}")) {
                continue;
            }
            let of_workflow: Vec<i64> = sqlx::query_scalar(
                "update runs
                 set status = 'blocked', wake_at = null, fence = fence + 1, updated_at = $3,
                     block_code = 'unregistered', block_text = $4, block_build = $5
                 where status in ('due', 'waiting') and wake_at is not null and wake_at <= $3
                   and workflow = $1 and version = $2
                 returning key",
            )
            .bind(&workflow)
            .bind(version)
            .bind(now.0)
            .bind(super::unregistered(&workflow, version, &registered))
            .bind(build)
            .fetch_all(&mut *tx)
            .await?;
            blocked.extend(of_workflow);
        }
        writer::end(CallerTx::Sqlite(tx)).await?;
        Ok(blocked)
    }

    pub(super) async fn unblock(
        tx: &mut SqliteConnection,
        build: &str,
        knows: &[String],
        now: Instant,
    ) -> Result<u64, sqlx::Error> {
        let mut known = Json::default();
        for known_as in knows {
            known.row().text(known_as);
        }
        let unblocked = sqlx::query(
            "update runs
             set status = 'due', wake_at = $1, fence = fence + 1, updated_at = $1,
                 block_code = null, block_text = null, block_build = null
             where status = 'blocked'
               and block_build is not $2
               and workflow || ' v' || version in (select value ->> 0 from json_each($3))",
        )
        .bind(now.0)
        .bind(build)
        .bind(known.done())
        .execute(tx)
        .await?;
        Ok(unblocked.rows_affected())
    }

    pub(super) async fn clock_offset(_reads: &Reads) -> Result<i64, sqlx::Error> {
        Ok(0)
    }

    pub(super) async fn workers(reads: &Reads) -> Result<Vec<WorkerRow>, sqlx::Error> {
        sqlx::query_as(
            "select key, name, build, knows, lease_until
             from workers
             order by key",
        )
        .fetch_all(&reads.pool)
        .await
    }

    pub(super) async fn overheard(reads: &Reads, worker: WorkerKey) -> Result<Vec<SignalRow>, sqlx::Error> {
        sqlx::query_as(
            "select s.run, s.ordinal, s.kind, s.name, s.id, s.payload, s.accepted_at
             from runs r
             cross join signals s on s.run = r.key and s.taken = 0
             where r.worker = $1
             order by s.run, s.ordinal",
        )
        .bind(worker.0)
        .fetch_all(&reads.pool)
        .await
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use std::collections::BTreeSet;

    use sqlx::PgConnection;

    use super::super::open::postgres::Reads;
    use super::super::writer::postgres::{begin, end};
    use super::{Instant, Registration, SignalRow, WorkerKey, WorkerRow};
    use crate::clock::Clock;

    /// `doubtful`: a row with the same name, build and lease may be there already; then it is this one.
    pub(super) async fn register(
        tx: &mut PgConnection,
        worker: &Registration,
        doubtful: bool,
    ) -> Result<i64, sqlx::Error> {
        if doubtful {
            let there: Option<i64> = sqlx::query_scalar(
                "select max(key)
                 from workers
                 where name = $1
                   and build = $2
                   and lease_until = $3",
            )
            .bind(&worker.name)
            .bind(&worker.build)
            .bind(worker.lease_until.0)
            .fetch_one(&mut *tx)
            .await?;
            if let Some(key) = there {
                return Ok(key);
            }
        }
        let knows = serde_json::to_string(&worker.knows).map_err(|e| sqlx::Error::Encode(e.into()))?;
        sqlx::query_scalar(
            "insert into workers (name, build, knows, lease_until)
             values ($1, $2, $3, $4)
             returning key",
        )
        .bind(&worker.name)
        .bind(&worker.build)
        .bind(knows)
        .bind(worker.lease_until.0)
        .fetch_one(tx)
        .await
    }

    pub(super) async fn heartbeat(
        tx: &mut PgConnection,
        worker: WorkerKey,
        lease_until: Instant,
    ) -> Result<bool, sqlx::Error> {
        let extended = sqlx::query(
            "update workers
             set lease_until = greatest(lease_until, $2)
             where key = $1",
        )
        .bind(worker.0)
        .bind(lease_until.0)
        .execute(tx)
        .await?;
        Ok(extended.rows_affected() > 0)
    }

    pub(super) async fn take_over(tx: &mut PgConnection, now: Instant) -> Result<u64, sqlx::Error> {
        begin(tx).await?;
        sqlx::query(
            "delete from workers
             where lease_until < $1",
        )
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
        // A worker that is late may have claimed or begun a run after its row was removed: so it is the runs whose
        // worker is not there. A worker's row is there before its runs are. The owners are found one by one in the
        // index, however many runs each has. Rows are locked in the order of their keys, here as everywhere.
        let freed = sqlx::query(
            "with recursive owner (key) as (
               select min(worker) from runs where worker is not null
               union all
               select (select min(r.worker) from runs r where r.worker > o.key) from owner o where o.key is not null
             )
             update runs
             set status = 'due',
                 wake_at = $1,
                 worker = null,
                 claim = null,
                 fence = fence + 1,
                 updated_at = $1
             where key = any (array(
                 select r.key
                 from runs r
                 where r.worker = any (array(
                     select o.key
                     from owner o
                     where o.key is not null
                       and (select w.key from workers w where w.key = o.key) is null))
                 order by r.key
                 for no key update))",
        )
        .bind(now.0)
        .execute(&mut *tx)
        .await?
        .rows_affected();
        end(tx).await?;
        Ok(freed)
    }

    pub(super) async fn take_over_all(
        tx: &mut PgConnection,
        except: Option<WorkerKey>,
        now: Instant,
    ) -> Result<u64, sqlx::Error> {
        let freed = sqlx::query_scalar::<_, i64>(
            "with gone as (
               delete from workers
               where key is distinct from $1
             ),
             freed as (
               update runs
               set status = 'due',
                   wake_at = $2,
                   worker = null,
                   claim = null,
                   fence = fence + 1,
                   updated_at = $2
               where key = any (array(
                   select r.key
                   from runs r
                   where r.worker is not null
                     and r.worker is distinct from $1
                   order by r.key
                   for no key update))
               returning key
             )
             select count(*) from freed",
        )
        .bind(except.map(|it| it.0))
        .bind(now.0)
        .fetch_one(tx)
        .await?;
        Ok(freed.unsigned_abs())
    }

    pub(super) async fn release(tx: &mut PgConnection, worker: WorkerKey, now: Instant) -> Result<u64, sqlx::Error> {
        let freed = sqlx::query_scalar::<_, i64>(
            "with gone as (
               delete from workers
               where key = $1
             ),
             freed as (
               update runs
               set status = 'due',
                   wake_at = $2,
                   worker = null,
                   claim = null,
                   fence = fence + 1,
                   updated_at = $2
               where key = any (array(
                   select r.key
                   from runs r
                   where r.worker = $1
                   order by r.key
                   for no key update))
               returning key
             )
             select count(*) from freed",
        )
        .bind(worker.0)
        .bind(now.0)
        .fetch_one(tx)
        .await?;
        Ok(freed.unsigned_abs())
    }

    /// The keys of the runs it blocked; the text is `super::unregistered`.
    pub(super) async fn block_unknown(
        tx: &mut PgConnection,
        build: &str,
        now: Instant,
    ) -> Result<Vec<i64>, sqlx::Error> {
        begin(tx).await?;
        // A worker that registers meanwhile waits, and unblocks afterwards what it knows.
        sqlx::query("lock table workers in share row exclusive mode").execute(&mut *tx).await?;
        let known: Vec<String> = sqlx::query_scalar(
            "select knows
             from workers
             where lease_until >= $1",
        )
        .bind(now.0)
        .fetch_all(&mut *tx)
        .await?;
        let mut registered = BTreeSet::new();
        for knows in known {
            let knows: Vec<String> = serde_json::from_str(&knows).map_err(|e| sqlx::Error::Decode(e.into()))?;
            registered.extend(knows);
        }
        let registered: Vec<String> = registered.into_iter().collect();
        let unknown: Vec<(String, i64)> = sqlx::query_as(
            "select distinct workflow, version
             from runs
             where status in ('due', 'waiting')
               and wake_at <= $1
               and workflow || ' v' || version <> all ($2)",
        )
        .bind(now.0)
        .bind(&registered)
        .fetch_all(&mut *tx)
        .await?;
        let mut blocked = Vec::new();
        for (workflow, version) in unknown {
            let text = super::unregistered(&workflow, version, &registered);
            let keys: Vec<i64> = sqlx::query_scalar(
                "update runs
                 set status = 'blocked',
                     wake_at = null,
                     block_code = 'unregistered',
                     block_text = $4,
                     block_build = $5,
                     fence = fence + 1,
                     updated_at = $1
                 where key = any (array(
                     select r.key
                     from runs r
                     where r.status in ('due', 'waiting')
                       and r.wake_at <= $1
                       and r.workflow = $2
                       and r.version = $3
                     order by r.key
                     for no key update))
                 returning key",
            )
            .bind(now.0)
            .bind(&workflow)
            .bind(version)
            .bind(text)
            .bind(build)
            .fetch_all(&mut *tx)
            .await?;
            blocked.extend(keys);
        }
        end(tx).await?;
        Ok(blocked)
    }

    pub(super) async fn unblock(
        tx: &mut PgConnection,
        build: &str,
        knows: &[String],
        now: Instant,
    ) -> Result<u64, sqlx::Error> {
        let unblocked = sqlx::query(
            "update runs
             set status = 'due',
                 wake_at = $3,
                 block_code = null,
                 block_text = null,
                 block_build = null,
                 fence = fence + 1,
                 updated_at = $3
             where key = any (array(
                 select r.key
                 from runs r
                 where r.status = 'blocked'
                   and r.workflow || ' v' || r.version = any ($2)
                   and r.block_build is distinct from $1
                 order by r.key
                 for no key update))",
        )
        .bind(build)
        .bind(knows)
        .bind(now.0)
        .execute(tx)
        .await?;
        Ok(unblocked.rows_affected())
    }

    /// The only statement that asks the database what time it is, to compare.
    pub(super) async fn clock_offset(reads: &Reads) -> Result<i64, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                let before = Clock::System.now().0;
                let theirs: i64 = sqlx::query_scalar("select (extract(epoch from clock_timestamp()) * 1000)::bigint")
                    .fetch_one(&mut *connection)
                    .await?;
                // The question took as long as the answer, or so one must assume.
                Ok(theirs - before.midpoint(Clock::System.now().0))
            })
            .await
    }

    pub(super) async fn workers(reads: &Reads) -> Result<Vec<WorkerRow>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select key, name, build, knows, lease_until
                         from workers
                         order by key",
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await
    }

    /// In the order of run, then ordinal.
    pub(super) async fn overheard(reads: &Reads, worker: WorkerKey) -> Result<Vec<SignalRow>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select s.run, s.ordinal, s.kind, s.name, s.id, s.payload, s.accepted_at
                         from runs r
                         join signals s on s.run = r.key
                         where r.worker = $1
                           and r.signals_pending > 0
                           and s.taken = 0
                         order by s.run, s.ordinal",
                )
                .bind(worker.0)
                .fetch_all(&mut *connection)
                .await
            })
            .await
    }
}

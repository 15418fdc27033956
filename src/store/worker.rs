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
            .alone("take over the runs of dead workers", move |tx, _| {
                Box::pin(async move { twins!(CallerTx: tx, take_over(now)) })
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
            .alone("take over the runs of all other workers", move |tx, _| {
                Box::pin(async move { twins!(CallerTx: tx, take_over_all(except, now)) })
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
            .alone("release a worker's runs", move |tx, _| {
                Box::pin(async move { twins!(CallerTx: tx, release(worker, now)) })
            })
            .await?;
        self.freed(released)
    }

    fn freed(&self, runs: u64) -> Result<u64, Error> {
        if runs > 0 {
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
            self.0.shared.ended(RunKey(*run));
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
            .alone("unblock runs", move |tx, _| {
                let (build, knows) = (Arc::clone(&build), Arc::clone(&knows));
                Box::pin(async move { twins!(CallerTx: tx, unblock(&build, &knows, now)) })
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
    use super::{Instant, Registration, SignalRow, WorkerKey, WorkerRow};

    pub(super) async fn register(
        _tx: &mut SqliteConnection,
        _worker: &Registration,
        _doubtful: bool,
    ) -> Result<i64, sqlx::Error> {
        todo!()
    }

    pub(super) async fn heartbeat(
        _tx: &mut SqliteConnection,
        _worker: WorkerKey,
        _lease_until: Instant,
    ) -> Result<bool, sqlx::Error> {
        todo!()
    }

    pub(super) async fn take_over(_tx: &mut SqliteConnection, _now: Instant) -> Result<u64, sqlx::Error> {
        todo!()
    }

    pub(super) async fn take_over_all(
        _tx: &mut SqliteConnection,
        _except: Option<WorkerKey>,
        _now: Instant,
    ) -> Result<u64, sqlx::Error> {
        todo!()
    }

    pub(super) async fn release(
        _tx: &mut SqliteConnection,
        _worker: WorkerKey,
        _now: Instant,
    ) -> Result<u64, sqlx::Error> {
        todo!()
    }

    pub(super) async fn block_unknown(
        _tx: &mut SqliteConnection,
        _build: &str,
        _now: Instant,
    ) -> Result<Vec<i64>, sqlx::Error> {
        todo!()
    }

    pub(super) async fn unblock(
        _tx: &mut SqliteConnection,
        _build: &str,
        _knows: &[String],
        _now: Instant,
    ) -> Result<u64, sqlx::Error> {
        todo!()
    }

    pub(super) async fn clock_offset(_reads: &Reads) -> Result<i64, sqlx::Error> {
        Ok(0)
    }

    pub(super) async fn workers(_reads: &Reads) -> Result<Vec<WorkerRow>, sqlx::Error> {
        todo!()
    }

    pub(super) async fn overheard(_reads: &Reads, _worker: WorkerKey) -> Result<Vec<SignalRow>, sqlx::Error> {
        todo!()
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::PgConnection;

    use super::super::open::postgres::Reads;
    use super::{Instant, Registration, SignalRow, WorkerKey, WorkerRow};

    /// `doubtful`: a row with the same name, build and lease may be there already; then it is this one.
    pub(super) async fn register(
        _tx: &mut PgConnection,
        _worker: &Registration,
        _doubtful: bool,
    ) -> Result<i64, sqlx::Error> {
        todo!()
    }

    pub(super) async fn heartbeat(
        _tx: &mut PgConnection,
        _worker: WorkerKey,
        _lease_until: Instant,
    ) -> Result<bool, sqlx::Error> {
        todo!()
    }

    pub(super) async fn take_over(_tx: &mut PgConnection, _now: Instant) -> Result<u64, sqlx::Error> {
        todo!()
    }

    pub(super) async fn take_over_all(
        _tx: &mut PgConnection,
        _except: Option<WorkerKey>,
        _now: Instant,
    ) -> Result<u64, sqlx::Error> {
        todo!()
    }

    pub(super) async fn release(_tx: &mut PgConnection, _worker: WorkerKey, _now: Instant) -> Result<u64, sqlx::Error> {
        todo!()
    }

    /// The keys of the runs it blocked; the text is `super::unregistered`.
    pub(super) async fn block_unknown(
        _tx: &mut PgConnection,
        _build: &str,
        _now: Instant,
    ) -> Result<Vec<i64>, sqlx::Error> {
        todo!()
    }

    pub(super) async fn unblock(
        _tx: &mut PgConnection,
        _build: &str,
        _knows: &[String],
        _now: Instant,
    ) -> Result<u64, sqlx::Error> {
        todo!()
    }

    /// The only statement that asks the database what time it is, to compare.
    pub(super) async fn clock_offset(_reads: &Reads) -> Result<i64, sqlx::Error> {
        todo!()
    }

    pub(super) async fn workers(_reads: &Reads) -> Result<Vec<WorkerRow>, sqlx::Error> {
        todo!()
    }

    /// In the order of run, then ordinal.
    pub(super) async fn overheard(_reads: &Reads, _worker: WorkerKey) -> Result<Vec<SignalRow>, sqlx::Error> {
        todo!()
    }
}

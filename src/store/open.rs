//! Opening a store, what it is, and closing it.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::writer::{Lane, Request, Shared};
use super::{Error, Options};

/// A database that keeps runs. Cheap to clone; clones are the same store.
///
/// What was acknowledged is on disk. Dropping the last clone lets the writer finish what it has taken.
#[derive(Clone)]
pub struct Store(pub(super) Arc<Core>);

pub(super) struct Core {
    pub(super) location: String,
    pub(super) shared: Arc<Shared>,
    pub(super) lanes: Vec<mpsc::Sender<Request>>,
    pub(super) inner: Inner,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Where reads go. The writer has its own connections.
pub(super) enum Inner {
    #[cfg(feature = "sqlite")]
    Sqlite(sqlite::Reads),
    #[cfg(feature = "postgres")]
    Postgres(postgres::Reads),
}

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One file, one machine; one process at a time advances runs.
    Sqlite,
    /// A server; any number of processes.
    Postgres,
}

/// How far the schema is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// The last migration that was applied to the database.
    pub applied: i64,
    /// The last migration that this build knows.
    pub known: i64,
}

/// What this store has written since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Commits that were applied, transactional steps included, starts through the door not.
    pub logical_commits: u64,
    /// Transactions that carried at least one of them.
    pub physical_commits: u64,
    /// What came in through the door: signals that were new, and starts that began a run.
    pub arrivals: u64,
    /// All transactions of the writer.
    pub physical_writes: u64,
}

/// The right to advance the runs of this store. Dropping it, or the death of the process, frees it.
#[derive(Debug)]
pub struct EngineLease(#[expect(dead_code, reason = "held for its lock")] Option<std::fs::File>);

/// Why a store could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The address is of no kind that this build knows.
    #[error("{url:?} is no store that this build can open; write {known}")]
    UnknownScheme {
        /// The address, without a password.
        url: String,
        /// What would be understood.
        known: &'static str,
    },
    /// The address does not say enough.
    #[error("the address {url:?} cannot be understood: {problem}")]
    BadAddress {
        /// The address, without a password.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The database cannot be reached.
    #[error("the store at {location} cannot be reached")]
    Unreachable {
        /// Where it should be.
        location: String,
        /// The database's own words.
        #[source]
        source: Arc<sqlx::Error>,
    },
    /// A newer build has been here. Nothing was changed.
    #[error("the store at {location} has schema {applied}, this build knows schemas up to {known}; use a newer build")]
    TooNew {
        /// Where it is.
        location: String,
        /// The schema it has.
        applied: i64,
        /// The newest schema that this build knows.
        known: i64,
    },
    /// The schema is older than this build needs, and opening was not to change it.
    #[error(
        "the store at {location} has schema {applied}, this build needs {known}; open it with migrations, or run `aldis migrate`"
    )]
    NotMigrated {
        /// Where it is.
        location: String,
        /// The schema it has; 0 if none.
        applied: i64,
        /// The schema that this build needs.
        known: i64,
    },
    /// A migration failed.
    #[error("the schema of the store at {location} could not be brought up to date: {problem}")]
    Migration {
        /// Where it is.
        location: String,
        /// What went wrong.
        problem: String,
    },
}

/// What opening one kind of database gives.
pub(super) struct Opened {
    pub(super) location: String,
    pub(super) inner: Inner,
    /// At least one; runs are spread over them by key.
    pub(super) lanes: Vec<Lane>,
}

impl Store {
    /// Opens a store at `sqlite://path` or `postgres://user:password@host/database`, and brings its schema up to date
    /// unless the options say otherwise.
    ///
    /// # Errors
    /// [`OpenError`] says which address or schema does not fit, and what to do.
    pub async fn open(url: &str, options: Options) -> Result<Self, OpenError> {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        let shared = Arc::new(Shared::new(&options));
        let opened = match scheme {
            #[cfg(feature = "sqlite")]
            "sqlite" => sqlite::open(url, &options, &shared).await?,
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => postgres::open(url, &options, &shared).await?,
            _ => {
                return Err(OpenError::UnknownScheme {
                    url: without_password(url),
                    known: match (cfg!(feature = "sqlite"), cfg!(feature = "postgres")) {
                        (true, true) => "sqlite://path/to/file.db or postgres://user@host/database",
                        (true, false) => "sqlite://path/to/file.db",
                        _ => "postgres://user@host/database",
                    },
                });
            }
        };
        let (lanes, tasks) = opened.lanes.into_iter().map(|lane| lane.spawn(&shared, options.queue_max)).unzip();
        Ok(Self(Arc::new(Core {
            location: opened.location,
            shared,
            lanes,
            inner: opened.inner,
            tasks: Mutex::new(tasks),
        })))
    }

    /// Which database it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &self.0.inner {
            #[cfg(feature = "sqlite")]
            Inner::Sqlite(_) => Kind::Sqlite,
            #[cfg(feature = "postgres")]
            Inner::Postgres(_) => Kind::Postgres,
        }
    }

    /// Where it is, for people and logs: never with a password.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.0.location
    }

    /// Lets the writer finish what waits for it, then closes every connection. Later calls get [`Error::Closed`].
    pub async fn close(&self) {
        let core = &self.0;
        if core.shared.is_dead() {
            core.abort();
            return;
        }
        core.shared.closed.store(true, Ordering::SeqCst);
        for lane in &core.lanes {
            let (answer, drained) = tokio::sync::oneshot::channel();
            if lane.send(Request::Close(answer)).await.is_ok() {
                // A writer that dies while it drains has nothing left to say.
                let _ = drained.await;
            }
        }
        core.shared.hints.close();
        twins!(Inner: &core.inner, close());
    }

    /// The engine's right to advance runs: on SQLite one process at a time has it, on Postgres every worker does.
    /// `None` if another process has it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the lock file beside the database cannot be used.
    pub async fn engine_lease(&self) -> Result<Option<EngineLease>, Error> {
        self.0.shared.open()?;
        twins!(Inner: &self.0.inner, engine_lease())
    }

    /// Waits until the engine's lease is free and takes it: for a standby process.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the lock file beside the database cannot be used.
    pub async fn engine_lease_when_free(&self) -> Result<EngineLease, Error> {
        loop {
            if let Some(lease) = self.engine_lease().await? {
                return Ok(lease);
            }
            // The lock of a file is not announced by the system, so it is asked for again.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// How far the schema is.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it cannot be read.
    pub async fn schema(&self) -> Result<Schema, Error> {
        self.0.shared.open()?;
        let applied = twins!(Inner: &self.0.inner, applied()).map_err(|e| Error::unavailable("read the schema", e))?;
        Ok(Schema { applied, known: self.known() })
    }

    fn known(&self) -> i64 {
        match &self.0.inner {
            #[cfg(feature = "sqlite")]
            Inner::Sqlite(_) => sqlite::known(),
            #[cfg(feature = "postgres")]
            Inner::Postgres(_) => postgres::known(),
        }
    }

    /// What this store has written since it was opened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.0.shared;
        Stats {
            logical_commits: shared.logical_commits.load(Ordering::SeqCst),
            physical_commits: shared.physical_commits.load(Ordering::SeqCst),
            arrivals: shared.arrivals.load(Ordering::SeqCst),
            physical_writes: shared.physical_writes.load(Ordering::SeqCst),
        }
    }
}

impl Core {
    fn abort(&self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // A writer that counts as dead would wait for ever; every other one ends by itself once nobody can ask it.
        if self.shared.is_dead() {
            self.abort();
        }
        self.shared.hints.close();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("kind", &self.kind()).field("location", &self.location()).finish_non_exhaustive()
    }
}

/// An address as it may be shown.
pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // The last @ ends the credentials: a password may hold one.
    match authority.rsplit_once('@') {
        Some((who, host)) => {
            let user = who.split_once(':').map_or(who, |(user, _)| user);
            format!("{scheme}://{user}@{host}{path}")
        }
        None => url.to_owned(),
    }
}

#[cfg(feature = "sqlite")]
pub(super) mod sqlite {
    use sqlx::SqlitePool;

    use super::{Arc, EngineLease, Error, OpenError, Opened, Options, Shared};

    /// The readers of one file.
    pub(in super::super) struct Reads {
        pub(in super::super) pool: SqlitePool,
    }

    pub(super) async fn open(_url: &str, _options: &Options, _shared: &Arc<Shared>) -> Result<Opened, OpenError> {
        todo!()
    }

    pub(super) fn known() -> i64 {
        todo!()
    }

    pub(super) async fn applied(_reads: &Reads) -> Result<i64, sqlx::Error> {
        todo!()
    }

    pub(super) async fn engine_lease(_reads: &Reads) -> Result<Option<EngineLease>, Error> {
        todo!()
    }

    pub(super) async fn close(reads: &Reads) {
        reads.pool.close().await;
    }
}

#[cfg(feature = "postgres")]
pub(super) mod postgres {
    use sqlx::PgPool;

    use super::{Arc, EngineLease, Error, OpenError, Opened, Options, Shared};

    /// The readers of one database.
    pub(in super::super) struct Reads {
        pub(in super::super) pool: PgPool,
    }

    /// Gives `options.writers` lanes, at least one.
    pub(super) async fn open(_url: &str, _options: &Options, _shared: &Arc<Shared>) -> Result<Opened, OpenError> {
        todo!()
    }

    pub(super) fn known() -> i64 {
        todo!()
    }

    /// The last applied migration; 0 if none.
    pub(super) async fn applied(_reads: &Reads) -> Result<i64, sqlx::Error> {
        todo!()
    }

    /// Every worker on Postgres may advance runs: leases are rows.
    pub(super) async fn engine_lease(_reads: &Reads) -> Result<Option<EngineLease>, Error> {
        Ok(Some(EngineLease(None)))
    }

    pub(super) async fn close(reads: &Reads) {
        reads.pool.close().await;
    }
}

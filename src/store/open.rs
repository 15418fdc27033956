//! Opening a store, what it is, and closing it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::writer::{Request, Shared, Writing};
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
    stops: Vec<CancellationToken>,
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

impl OpenError {
    pub(super) fn unknown_scheme(url: &str) -> Self {
        Self::UnknownScheme {
            url: without_password(url),
            known: match (cfg!(feature = "sqlite"), cfg!(feature = "postgres")) {
                (true, true) => "sqlite://path/to/file.db or postgres://user@host/database",
                (true, false) => "sqlite://path/to/file.db",
                _ => "postgres://user@host/database",
            },
        }
    }

    pub(super) fn unreachable(location: String, source: sqlx::Error) -> Self {
        Self::Unreachable { location, source: Arc::new(source) }
    }
}

/// What opening one kind of database gives.
pub(super) struct Opened {
    pub(super) location: String,
    pub(super) inner: Inner,
    /// At least one; runs are spread over them by key.
    pub(super) lanes: Vec<Writing>,
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
            _ => return Err(OpenError::unknown_scheme(url)),
        };
        let (lanes, stops) = opened.lanes.into_iter().map(|lane| (lane.requests, lane.stop)).unzip();
        Ok(Self(Arc::new(Core { location: opened.location, shared, lanes, inner: opened.inner, stops })))
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
        // Readers first: SQLite folds its write-ahead log into the file when the last connection that may write closes.
        twins!(Inner: &core.inner, close());
        for lane in &core.lanes {
            let (answer, drained) = tokio::sync::oneshot::channel();
            if lane.send(Request::Close(answer)).await.is_ok() {
                // A writer that dies while it drains has nothing left to say.
                let _ = drained.await;
            }
        }
        core.shared.hints.close();
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

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.shared.closed.load(Ordering::SeqCst)
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
        for stop in &self.stops {
            stop.cancel();
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
    use std::fs::{File, TryLockError};
    use std::path::{Path, PathBuf};
    use std::str::FromStr;
    use std::time::Duration;

    use sqlx::migrate::Migrator;
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
    use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, SqlitePool};

    use super::{Arc, EngineLease, Error, Inner, OpenError, Opened, Options, Shared};
    use crate::store::Durability;
    use crate::store::wake::sqlite::Watcher;
    use crate::store::writer::{Home, Lane};

    static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

    /// The readers of one file.
    pub(in super::super) struct Reads {
        pub(in super::super) pool: SqlitePool,
        pub(in super::super) watcher: tokio::sync::Mutex<Option<Watcher>>,
        file: PathBuf,
    }

    pub(super) async fn open(url: &str, options: &Options, shared: &Arc<Shared>) -> Result<Opened, OpenError> {
        let bad = |problem: String| OpenError::BadAddress { url: url.to_owned(), problem };
        let address = SqliteConnectOptions::from_str(url).map_err(|e| bad(e.to_string()))?;
        let file = address.get_filename().to_path_buf();
        if file.as_os_str().is_empty() || url.contains(":memory:") || url.contains("mode=memory") {
            return Err(bad("a store needs a file; write sqlite://path/to/file.db".into()));
        }
        let location = format!("sqlite://{}", file.display());
        let unreachable = |source| OpenError::Unreachable { location: location.clone(), source: Arc::new(source) };
        let write = address
            .create_if_missing(options.migrate)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(match options.durability {
                Durability::Full => SqliteSynchronous::Full,
                Durability::Normal => SqliteSynchronous::Normal,
            })
            .busy_timeout(options.busy_timeout)
            // Rows name runs that retention may remove before them; the writer keeps them together, not the database.
            .foreign_keys(false)
            .pragma("temp_store", "memory")
            // 4 MiB of pages: the journal's index and the rows of live runs stay in memory.
            .pragma("cache_size", "-4096")
            // Pages that are written again and again go to the file once in 16 MiB of log, not in 4.
            .pragma("wal_autocheckpoint", "4000")
            .row_buffer_size(2_048)
            .disable_statement_logging();
        migrate(&write, &file, &location, options.migrate).await?;
        let home = Home::Sqlite(Box::new(write.clone()));
        let lane = Lane::begin(home, shared, options.queue_max).await.map_err(unreachable)?;
        let read =
            write.clone().create_if_missing(false).read_only(true).pragma("cache_size", "-8192").row_buffer_size(4_096);
        let pool = SqlitePoolOptions::new()
            .max_connections(options.readers.max(1))
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(Duration::from_secs(30))
            .test_before_acquire(false)
            .connect_lazy_with(read);
        Ok(Opened {
            location,
            inner: Inner::Sqlite(Reads { pool, watcher: tokio::sync::Mutex::new(None), file }),
            lanes: vec![lane],
        })
    }

    /// Brings the schema up to date. SQLite's migrations take no lock of their own, so a file beside the database does.
    async fn migrate(
        options: &SqliteConnectOptions,
        file: &Path,
        location: &str,
        migrate: bool,
    ) -> Result<(), OpenError> {
        let unreachable = |source| OpenError::Unreachable { location: location.to_owned(), source: Arc::new(source) };
        let failed = |problem: String| OpenError::Migration { location: location.to_owned(), problem };
        let _lock = if migrate {
            let path = beside(file, "migrate");
            let locked = tokio::task::spawn_blocking(move || {
                let file = File::options().create(true).truncate(false).write(true).open(path)?;
                file.lock()?;
                Ok::<_, std::io::Error>(file)
            });
            let locked = locked.await.map_err(|e| failed(e.to_string()))?;
            Some(locked.map_err(|e| unreachable(sqlx::Error::Io(e)))?)
        } else {
            None
        };
        let mut connection = SqliteConnection::connect_with(options).await.map_err(unreachable)?;
        let applied = last_migration(&mut connection).await.map_err(unreachable)?;
        let known = known();
        if applied > known {
            return Err(OpenError::TooNew { location: location.to_owned(), applied, known });
        }
        if applied < known {
            if !migrate {
                return Err(OpenError::NotMigrated { location: location.to_owned(), applied, known });
            }
            // Not `run`: the compiler cannot see that its future may move to another thread.
            MIGRATIONS.run_direct(None, &mut connection, false).await.map_err(|e| failed(e.to_string()))?;
        }
        connection.close().await.map_err(unreachable)
    }

    fn beside(file: &Path, what: &str) -> PathBuf {
        let mut name = file.as_os_str().to_owned();
        name.push(".");
        name.push(what);
        PathBuf::from(name)
    }

    pub(super) fn known() -> i64 {
        MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
    }

    pub(super) async fn applied(reads: &Reads) -> Result<i64, sqlx::Error> {
        last_migration(&mut *reads.pool.acquire().await?).await
    }

    async fn last_migration(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
        let known: bool = sqlx::query_scalar(
            "select count(*) > 0
             from sqlite_schema
             where type = 'table' and name = '_sqlx_migrations'",
        )
        .fetch_one(&mut *connection)
        .await?;
        if !known {
            return Ok(0);
        }
        sqlx::query_scalar(
            "select coalesce(max(version), 0)
             from _sqlx_migrations
             where success",
        )
        .fetch_one(connection)
        .await
    }

    pub(super) async fn engine_lease(reads: &Reads) -> Result<Option<EngineLease>, Error> {
        let unavailable = |e| Error::unavailable("lock the engine's file", sqlx::Error::Io(e));
        let path = beside(&reads.file, "engine");
        let file = File::options().create(true).truncate(false).write(true).open(path).map_err(unavailable)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(EngineLease(Some(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(unavailable(e)),
        }
    }

    pub(super) async fn close(reads: &Reads) {
        reads.watcher.lock().await.take();
        reads.pool.close().await;
    }
}

#[cfg(feature = "postgres")]
pub(super) mod postgres {
    use std::str::FromStr;

    use sqlx::migrate::{MigrateError, Migrator};
    use sqlx::pool::PoolConnection;
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, Postgres};

    use super::super::wake::postgres::Word;
    use super::super::writer::{self, Home, Lane};
    use super::{Arc, EngineLease, Error, Inner, OpenError, Opened, Options, Shared, without_password};

    static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");

    /// The readers of one database.
    pub(in super::super) struct Reads {
        pub(in super::super) pool: PgPool,
        pub(in super::super) word: Word,
    }

    impl Reads {
        /// Reads on a connection of the pool; on another one if the server has ended it while it was idle.
        pub(in super::super) async fn read<T, F: Future<Output = Result<T, sqlx::Error>>>(
            &self,
            read: impl Fn(PoolConnection<Postgres>) -> F,
        ) -> Result<T, sqlx::Error> {
            for _ in 0..self.pool.options().get_max_connections() {
                match read(self.pool.acquire().await?).await {
                    Err(error) if writer::is_lost(&error) => {}
                    result => return result,
                }
            }
            read(self.pool.acquire().await?).await
        }
    }

    /// Gives `options.writers` lanes, at least one.
    pub(super) async fn open(url: &str, options: &Options, shared: &Arc<Shared>) -> Result<Opened, OpenError> {
        let home = PgConnectOptions::from_str(url)
            .map_err(|problem| OpenError::BadAddress { url: without_password(url), problem: problem.to_string() })?;
        let home = home.application_name("aldis").disable_statement_logging();
        let location = location(&home);
        let unreachable = |source| OpenError::Unreachable { location: location.clone(), source: Arc::new(source) };
        let mut connection = PgConnection::connect_with(&home).await.map_err(unreachable)?;
        migrate(&mut connection, &location, options.migrate).await?;
        // It served its purpose whether or not the server hears of its end.
        let _ = connection.close().await;

        let write = write_options(&home);
        let mut lanes = Vec::with_capacity(options.writers.max(1));
        for _ in 0..options.writers.max(1) {
            let home = Home::Postgres(Box::new(write.clone()));
            lanes.push(Lane::begin(home, shared, options.queue_max).await.map_err(unreachable)?);
        }
        // Tables grow faster than their statistics: a plan that was made for an empty table must not read all of it.
        let read = home.clone().options([("enable_seqscan", "off"), ("jit", "off")]);
        // A connection is not asked whether it is alive before each use: that would be a second round trip a read.
        let pool = PgPoolOptions::new()
            .max_connections(options.readers.max(1))
            .test_before_acquire(false)
            .connect_lazy_with(read);
        let word = Word::spread(&home, shared);
        Ok(Opened { location, inner: Inner::Postgres(Reads { pool, word }), lanes })
    }

    fn location(home: &PgConnectOptions) -> String {
        let database = home.get_database().unwrap_or_else(|| home.get_username());
        format!("postgres://{}@{}:{}/{database}", home.get_username(), home.get_host(), home.get_port())
    }

    /// The writer's statements take arrays and look up rows by key; the plan that does so is always the right one, also
    /// when the tables were empty as it was made. So a plan is made once and other paths are ruled out.
    fn write_options(home: &PgConnectOptions) -> PgConnectOptions {
        home.clone().options([
            ("default_transaction_isolation", "read committed"),
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
            ("enable_bitmapscan", "off"),
            ("enable_nestloop", "off"),
            ("jit", "off"),
            // A statement ends when its connection does, as does that of a step that was too slow.
            ("client_connection_check_interval", "1000"),
        ])
    }

    async fn migrate(connection: &mut PgConnection, location: &str, wanted: bool) -> Result<(), OpenError> {
        let applied = last_applied(connection)
            .await
            .map_err(|source| OpenError::Unreachable { location: location.to_owned(), source: Arc::new(source) })?;
        let (location, known) = (location.to_owned(), known());
        if applied > known {
            return Err(OpenError::TooNew { location, applied, known });
        }
        if applied == known {
            return Ok(());
        }
        if !wanted {
            return Err(OpenError::NotMigrated { location, applied, known });
        }
        // Takes a lock of the whole database, so that processes that open it together do not migrate it together.
        match MIGRATOR.run_direct(None, connection, false).await {
            Ok(()) => Ok(()),
            Err(MigrateError::VersionMissing(applied)) => Err(OpenError::TooNew { location, applied, known }),
            Err(problem) => Err(OpenError::Migration { location, problem: problem.to_string() }),
        }
    }

    pub(super) fn known() -> i64 {
        MIGRATOR.iter().map(|it| it.version).max().unwrap_or(0)
    }

    /// The last applied migration; 0 if none.
    pub(super) async fn applied(reads: &Reads) -> Result<i64, sqlx::Error> {
        reads.read(|mut connection| async move { last_applied(&mut connection).await }).await
    }

    async fn last_applied(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
        // Reading a table that is not there would be an error, and the server would log it.
        let there: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
            .fetch_one(&mut *connection)
            .await?;
        if !there {
            return Ok(0);
        }
        let last: Option<i64> = sqlx::query_scalar(
            "select max(version)
             from _sqlx_migrations
             where success",
        )
        .fetch_one(connection)
        .await?;
        Ok(last.unwrap_or(0))
    }

    /// Every worker on Postgres may advance runs: leases are rows.
    pub(super) async fn engine_lease(_reads: &Reads) -> Result<Option<EngineLease>, Error> {
        Ok(Some(EngineLease(None)))
    }

    pub(super) async fn close(reads: &Reads) {
        reads.word.end().await;
        reads.pool.close().await;
    }
}

//! What wakes an engine: hints from this process's writer, word of other processes, the next timer.
//!
//! All of it is a hint. What is true stands in the tables, and a lost hint costs a poll.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Notify, oneshot};

use super::Error;
use super::contract::Hint;
use super::open::{Inner, Store};
use crate::clock::Instant;
use crate::failure::Outcome;
use crate::id::RunKey;

/// How many hints wait for a listener before they are collapsed.
const HINTS_MAX: usize = 16_384;

impl Store {
    /// The earliest time after `now` at which a run may be claimed; none if none has such a time. What is due already is
    /// left out: it may be for other workers.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn next_wake(&self, now: Instant) -> Result<Option<Instant>, Error> {
        self.readable().await?;
        let at = twins!(Inner: &self.0.inner, next_wake(now))
            .map_err(|e| Error::unavailable("look for the next timer", e))?;
        Ok(at.map(Instant))
    }

    /// What this process's writes tell. One listener per store: an earlier one hears nothing more.
    #[must_use]
    pub fn hints(&self) -> Hints {
        let queue = self.0.shared.hints.0.clone();
        let mut waiting = queue.lock();
        waiting.hints.clear();
        waiting.listener += 1;
        waiting.listening = true;
        let listener = waiting.listener;
        drop(waiting);
        queue.some.notify_waiters();
        Hints { queue, listener }
    }

    /// How many hints were sent and not yet received; 0 when nobody listens.
    #[must_use]
    pub fn hints_waiting(&self) -> usize {
        self.0.shared.hints.0.lock().hints.len()
    }

    /// Resolves when another process may have written. The first call returns at once. Whoever waits for streams is told
    /// as well.
    pub async fn changed(&self) {
        self.0.shared.alive().await;
        twins!(Inner: &self.0.inner, changed(self));
        self.0.shared.flows.ring_all();
    }

    /// A bell that rings whenever this process's writer has appended to a stream of the run or thread with this key.
    /// Take it, look, then wait for it. Of what other processes append it hears nothing: [`Store::changed`] does.
    #[must_use]
    pub fn flows(&self, key: i64) -> Arc<Notify> {
        self.0.shared.flows.bell(key)
    }

    /// Fires when this process's writer has applied the commit that closed the run, and tells how it ended; or blocked it,
    /// and then tells nothing. Of what other
    /// processes write it hears nothing, so look at the run after calling this, and again when [`Store::changed`] says.
    pub async fn watch_outcome(&self, run: RunKey) -> oneshot::Receiver<Option<Outcome>> {
        self.0.shared.watch(run)
    }
}

/// The listener's end of the hints.
#[derive(Debug)]
pub struct Hints {
    queue: Arc<Queue>,
    listener: u64,
}

impl Hints {
    /// The next hint; none once the store is closed, or another listener has taken over.
    pub async fn recv(&mut self) -> Option<Hint> {
        if self.some().await { self.try_recv() } else { None }
    }

    /// Waits until there is a hint, and leaves it where it is; false once the store is closed, or another listener has
    /// taken over. Who must be seen to be at work before the hint is gone waits so, and then takes it.
    pub async fn some(&mut self) -> bool {
        loop {
            let some = self.queue.some.notified();
            {
                let waiting = self.queue.lock();
                if waiting.listener != self.listener {
                    return false;
                }
                if !waiting.hints.is_empty() {
                    return true;
                }
                if waiting.closed {
                    return false;
                }
            }
            some.await;
        }
    }

    /// The next hint, if one waits.
    pub fn try_recv(&mut self) -> Option<Hint> {
        let mut waiting = self.queue.lock();
        if waiting.listener == self.listener { waiting.hints.pop_front() } else { None }
    }
}

impl Drop for Hints {
    fn drop(&mut self) {
        let mut waiting = self.queue.lock();
        if waiting.listener == self.listener {
            waiting.listening = false;
            waiting.hints.clear();
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct HintQueue(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    some: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    hints: VecDeque<Hint>,
    listener: u64,
    listening: bool,
    closed: bool,
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HintQueue {
    pub(super) fn push(&self, hint: Hint) {
        {
            let mut waiting = self.0.lock();
            if !waiting.listening || waiting.closed {
                return;
            }
            let due_already = matches!(waiting.hints.back(), Some(Hint::Due));
            if matches!(hint, Hint::Owned(_)) {
                waiting.hints.push_back(hint);
            } else if waiting.hints.len() >= HINTS_MAX || matches!(hint, Hint::Due) {
                // One word is enough for whatever is due.
                if due_already {
                    return;
                }
                waiting.hints.push_back(Hint::Due);
            } else {
                waiting.hints.push_back(hint);
            }
        }
        self.0.some.notify_one();
    }

    pub(super) fn close(&self) {
        self.0.lock().closed = true;
        self.0.some.notify_one();
    }
}

/// Who waits for something to be appended to the streams of a run or a thread, by its key.
#[derive(Debug, Default)]
pub(super) struct Flows(Mutex<HashMap<i64, Weak<Notify>>>);

impl Flows {
    /// The bell of a key; it is forgotten once nobody has it.
    fn bell(&self, key: i64) -> Arc<Notify> {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = bells.get(&key).and_then(Weak::upgrade) {
            return bell;
        }
        bells.retain(|_, bell| bell.strong_count() > 0);
        let bell = Arc::default();
        bells.insert(key, Arc::downgrade(&bell));
        bell
    }

    fn ring_all(&self) {
        let bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for bell in bells.values().filter_map(Weak::upgrade) {
            bell.notify_waiters();
        }
    }

    pub(super) fn ring(&self, key: i64) {
        let bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = bells.get(&key).and_then(Weak::upgrade) {
            bell.notify_waiters();
        }
    }
}

#[cfg(feature = "sqlite")]
pub(super) mod sqlite {
    use std::time::Duration;

    use sqlx::pool::PoolConnection;
    use sqlx::{Sqlite, SqliteConnection};

    use super::super::open::sqlite::Reads;
    use super::super::start::CallerTx;
    use super::{Instant, Store};

    /// How often the file is looked at.
    const LOOK_EVERY: Duration = Duration::from_millis(20);

    /// A reader's connection that is kept, as a connection tells only of changes since its own last look.
    pub(in super::super) struct Watcher {
        connection: PoolConnection<Sqlite>,
        seen: i64,
        seen_by_writer: i64,
    }

    pub(super) async fn next_wake(reads: &Reads, now: Instant) -> Result<Option<i64>, sqlx::Error> {
        sqlx::query_scalar(
            "select min(wake_at)
             from runs
             where status in ('due', 'waiting') and wake_at > $1",
        )
        .bind(now.0)
        .fetch_one(&reads.pool)
        .await
    }

    async fn data_version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("pragma data_version").fetch_one(connection).await
    }

    /// As the writer sees it: its own commits do not change it, everybody else's do.
    async fn writers_version(store: &Store) -> Result<i64, super::Error> {
        store
            .look(|tx| {
                Box::pin(async move {
                    match tx {
                        CallerTx::Sqlite(it) => data_version(it).await,
                        #[cfg(feature = "postgres")]
                        CallerTx::Postgres(_) => Ok(0),
                    }
                })
            })
            .await
    }

    // A reader notices every commit, this process's own among them; only then the writer is asked whose it was.
    pub(super) async fn changed(reads: &Reads, store: &Store) {
        let mut kept = reads.watcher.lock().await;
        loop {
            if store.0.shared.open().is_err() {
                // Who closes the store waits for the watcher's connection.
                *kept = None;
                return;
            }
            let Some(watcher) = &mut *kept else {
                if let Some(watcher) = watch(reads, store).await {
                    *kept = Some(watcher);
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            };
            let Ok(seen) = data_version(&mut watcher.connection).await else {
                *kept = None;
                return;
            };
            if seen != watcher.seen {
                watcher.seen = seen;
                let Ok(seen_by_writer) = writers_version(store).await else {
                    *kept = None;
                    return;
                };
                if seen_by_writer != watcher.seen_by_writer {
                    watcher.seen_by_writer = seen_by_writer;
                    return;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn watch(reads: &Reads, store: &Store) -> Option<Watcher> {
        let mut connection = reads.pool.acquire().await.ok()?;
        let seen = data_version(&mut connection).await.ok()?;
        let seen_by_writer = writers_version(store).await.ok()?;
        Some(Watcher { connection, seen, seen_by_writer })
    }
}

#[cfg(feature = "postgres")]
pub(super) mod postgres {
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    use sqlx::PgPool;
    use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
    use tokio::sync::watch;
    use tokio::task::JoinHandle;

    use super::super::open::postgres::Reads;
    use super::super::writer::Shared;
    use super::{Arc, Store};

    /// Word is sent at most this often.
    const GATHERED: Duration = Duration::from_millis(10);

    /// How long to wait before a server that cannot be reached is tried again.
    const PAUSE: Duration = Duration::from_millis(500);

    /// Word between the processes on one database: LISTEN and NOTIFY on connections of their own, outside the path of
    /// writes. A channel belongs to a schema; a word names its sender, so that a process does not wake itself.
    pub(in super::super) struct Word {
        pool: PgPool,
        me: Arc<str>,
        /// How often word came, or may have come; 0 before anybody listens.
        heard: watch::Sender<u64>,
        seen: Mutex<u64>,
        sends: JoinHandle<()>,
        listens: Mutex<Option<JoinHandle<()>>>,
    }

    impl Word {
        /// Starts to tell other processes of this one's writes.
        pub(in super::super) fn spread(home: &PgConnectOptions, shared: &Arc<Shared>) -> Self {
            // One sends, one listens.
            let pool =
                PgPoolOptions::new().max_connections(2).test_before_acquire(false).connect_lazy_with(home.clone());
            let me: Arc<str> = uuid::Uuid::new_v4().to_string().into();
            let sends = tokio::spawn(send(pool.clone(), Arc::clone(&me), Arc::clone(shared)));
            Self { pool, me, heard: watch::channel(0).0, seen: Mutex::new(0), sends, listens: Mutex::new(None) }
        }

        pub(in super::super) async fn end(&self) {
            self.stop();
            self.pool.close().await;
        }

        fn stop(&self) {
            self.sends.abort();
            if let Some(listens) = self.listens.lock().unwrap_or_else(PoisonError::into_inner).take() {
                listens.abort();
            }
        }

        fn listen(&self) {
            let mut listens = self.listens.lock().unwrap_or_else(PoisonError::into_inner);
            if listens.is_none() {
                *listens = Some(tokio::spawn(listen(self.pool.clone(), Arc::clone(&self.me), self.heard.clone())));
            }
        }
    }

    impl Drop for Word {
        fn drop(&mut self) {
            self.stop();
        }
    }

    async fn send(pool: PgPool, me: Arc<str>, shared: Arc<Shared>) {
        loop {
            shared.elsewhere.notified().await;
            shared.alive().await;
            let sent = sqlx::query("select pg_notify('aldis_' || hashtextextended(current_schema(), 0), $1)")
                .bind(&*me)
                .execute(&pool)
                .await;
            if let Err(error) = sent {
                tracing::debug!(%error, "other processes were not told of a write; their next poll finds it");
            }
            tokio::time::sleep(GATHERED).await;
        }
    }

    async fn listen(pool: PgPool, me: Arc<str>, heard: watch::Sender<u64>) {
        loop {
            if let Err(error) = listen_once(&pool, &me, &heard).await {
                tracing::debug!(%error, "no word from other processes until the database is reached again");
            }
            heard.send_modify(|n| *n += 1);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn listen_once(pool: &PgPool, me: &str, heard: &watch::Sender<u64>) -> Result<(), sqlx::Error> {
        let channel: String =
            sqlx::query_scalar("select 'aldis_' || hashtextextended(current_schema(), 0)").fetch_one(pool).await?;
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(&channel).await?;
        heard.send_modify(|n| *n += 1);
        loop {
            match listener.try_recv().await? {
                Some(word) if word.payload() == me => {}
                // Without a word the connection was lost, and word may have been lost with it.
                Some(_) | None => heard.send_modify(|n| *n += 1),
            }
        }
    }

    pub(super) async fn next_wake(reads: &Reads, now: super::Instant) -> Result<Option<i64>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_scalar(
                    "select min(wake_at)
                         from runs
                         where status in ('due', 'waiting')
                           and wake_at > $1",
                )
                .bind(now.0)
                .fetch_one(&mut *connection)
                .await
            })
            .await
    }

    pub(super) async fn changed(reads: &Reads, store: &Store) {
        let word = &reads.word;
        if store.0.shared.open().is_ok() {
            word.listen();
        }
        let seen = *word.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut heard = word.heard.subscribe();
        // The sender is there for as long as the store is.
        let now = heard.wait_for(|n| *n != seen).await.map_or(seen, |n| *n);
        *word.seen.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

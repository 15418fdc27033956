//! What wakes an engine: hints from this process's writer, word of other processes, the next timer.
//!
//! All of it is a hint. What is true stands in the tables, and a lost hint costs a poll.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::Error;
use super::contract::Hint;
use super::open::{Inner, Store};
use crate::clock::Instant;
use crate::id::RunKey;

/// How many hints wait for a listener before they are collapsed.
const HINTS_MAX: usize = 16_384;

impl Store {
    /// The earliest time at which a run may be claimed; none if every run waits for signals alone.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn next_wake(&self) -> Result<Option<Instant>, Error> {
        self.readable().await?;
        let at =
            twins!(Inner: &self.0.inner, next_wake()).map_err(|e| Error::unavailable("look for the next timer", e))?;
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

    /// Resolves when another process may have written. The first call returns at once.
    pub async fn changed(&self) {
        self.0.shared.alive().await;
        twins!(Inner: &self.0.inner, changed(self));
    }

    /// Fires when this process's writer has applied the commit that closed the run, or blocked it. Of what other
    /// processes write it hears nothing, so look at the run after calling this, and again when [`Store::changed`] says.
    pub async fn watch_outcome(&self, run: RunKey) -> oneshot::Receiver<()> {
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
        loop {
            let some = self.queue.some.notified();
            {
                let mut waiting = self.queue.lock();
                if waiting.listener != self.listener {
                    return None;
                }
                if let Some(hint) = waiting.hints.pop_front() {
                    return Some(hint);
                }
                if waiting.closed {
                    return None;
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
            if waiting.hints.len() >= HINTS_MAX || matches!(hint, Hint::Due) {
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

#[cfg(feature = "sqlite")]
pub(super) mod sqlite {
    use std::time::Duration;

    use sqlx::pool::PoolConnection;
    use sqlx::{Sqlite, SqliteConnection};

    use super::super::open::sqlite::Reads;
    use super::super::start::CallerTx;
    use super::Store;

    /// How often the file is looked at.
    const LOOK_EVERY: Duration = Duration::from_millis(20);

    /// A reader's connection that is kept, as a connection tells only of changes since its own last look.
    pub(in super::super) struct Watcher {
        connection: PoolConnection<Sqlite>,
        seen: i64,
        seen_by_writer: i64,
    }

    pub(super) async fn next_wake(reads: &Reads) -> Result<Option<i64>, sqlx::Error> {
        sqlx::query_scalar(
            "select min(wake_at)
             from runs
             where status in ('due', 'waiting') and wake_at is not null",
        )
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
            let Some(watcher) = &mut *kept else {
                if let Some(watcher) = watch(reads, store).await {
                    *kept = Some(watcher);
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
                if store.0.shared.open().is_err() {
                    return;
                }
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
mod postgres {
    use super::super::open::postgres::Reads;
    use super::Store;

    pub(super) async fn next_wake(_reads: &Reads) -> Result<Option<i64>, sqlx::Error> {
        todo!()
    }

    /// A kept `PgListener`; after a lost connection it reports a change. The NOTIFY is sent by a task of its own that
    /// waits on `shared.elsewhere` (give it to `open`), at most every 10 ms, and names this process, so that it does not wake
    /// itself.
    pub(super) async fn changed(_reads: &Reads, _store: &Store) {
        todo!()
    }
}

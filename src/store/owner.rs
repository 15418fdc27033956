//! A thread by its key, whoever owns it: where only one of its runs is known.

use super::Error;
use super::open::{Inner, Store};
use super::threads::ThreadRow;
use crate::id::ThreadKey;
use crate::thread::Thread;

impl Store {
    /// A thread by its key; none if it was deleted.
    ///
    /// # Errors
    /// As [`Store::thread`].
    pub async fn thread_of(&self, key: ThreadKey) -> Result<Option<Thread>, Error> {
        self.readable().await?;
        let row: Option<ThreadRow> =
            twins!(Inner: &self.0.inner, thread_of(key)).map_err(|e| Error::unavailable("read a thread", e))?;
        row.map(Thread::try_from).transpose()
    }
}

const THREAD: &str =
    "select t.key, t.namespace, t.id, t.resource, t.title, t.metadata, r.id as run_id, t.agent, t.last_seq,
            (select count(*) from queue q where q.thread = t.key and q.kind = 'turn') as queued,
            t.created_at, t.updated_at
     from threads t
     left join runs r on r.key = t.run
     where t.key = $1";

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::super::open::sqlite::Reads;
    use super::{THREAD, ThreadKey, ThreadRow};

    pub(super) async fn thread_of(reads: &Reads, key: ThreadKey) -> Result<Option<ThreadRow>, sqlx::Error> {
        sqlx::query_as(THREAD).bind(key.0).fetch_optional(&reads.pool).await
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::super::open::postgres::Reads;
    use super::{THREAD, ThreadKey, ThreadRow};

    pub(super) async fn thread_of(reads: &Reads, key: ThreadKey) -> Result<Option<ThreadRow>, sqlx::Error> {
        let read = |mut connection: sqlx::pool::PoolConnection<sqlx::Postgres>| async move {
            sqlx::query_as(THREAD).bind(key.0).fetch_optional(&mut *connection).await
        };
        reads.read(read).await
    }
}

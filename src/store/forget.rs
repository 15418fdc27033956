//! Deleting messages of a thread (H10.7): they keep their places, and nobody but the run that may have read them sees them.

use std::sync::{Arc, Mutex, PoisonError};

use super::open::{Inner, Store};
use super::start::CallerTx;
use super::{Error, writer};
use crate::clock::Instant;
use crate::id::{Namespace, ThreadId, ThreadKey};

/// Where a message stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The message.
    pub message: String,
    /// Its thread's key.
    pub key: ThreadKey,
    /// Its thread.
    pub thread: ThreadId,
    /// The thread's owner.
    pub resource: String,
}

/// `message, key, thread, resource`
#[derive(Debug, sqlx::FromRow)]
struct HomeRow {
    message: String,
    key: i64,
    thread: String,
    resource: String,
}

impl TryFrom<HomeRow> for Home {
    type Error = Error;

    fn try_from(row: HomeRow) -> Result<Self, Error> {
        let thread = ThreadId::parse(&row.thread).map_err(|e| Error::Corrupt { found: e.to_string() })?;
        Ok(Self { message: row.message, key: ThreadKey(row.key), thread, resource: row.resource })
    }
}

impl Store {
    /// Where the messages with these ids stand, on all threads of a namespace. Those that were deleted stand nowhere.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`]; [`Error::Corrupt`] for a row that contradicts itself.
    pub async fn homes(&self, namespace: &Namespace, ids: &[String]) -> Result<Vec<Home>, Error> {
        self.readable().await?;
        let rows: Vec<HomeRow> =
            twins!(Inner: &self.0.inner, homes(namespace, ids)).map_err(|e| Error::unavailable("find messages", e))?;
        rows.into_iter().map(Home::try_from).collect()
    }

    /// Takes messages out of a thread's history, for whoever reads it and for the turns that follow; the turn that has the
    /// thread goes on with what it has read. Tells the ids of those that were there. Their places stay empty.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn delete_messages(
        &self,
        thread: ThreadKey,
        ids: Vec<String>,
        at: Instant,
    ) -> Result<Vec<String>, Error> {
        let tried: Arc<Mutex<Vec<String>>> = Arc::default();
        let ids = Arc::new(ids);
        self.alone("delete messages", move |mut tx, doubtful| {
            let (ids, tried) = (Arc::clone(&ids), Arc::clone(&tried));
            Box::pin(async move {
                writer::begin(tx.again()).await?;
                let mut deleted: Vec<String> = twins!(CallerTx: tx.again(), delete_messages(thread, &ids, at))?;
                {
                    let mut tried = tried.lock().unwrap_or_else(PoisonError::into_inner);
                    if doubtful && deleted.is_empty() {
                        // It landed, and nobody was told.
                        deleted.clone_from(&tried);
                    }
                    tried.clone_from(&deleted);
                }
                writer::end(tx).await?;
                Ok(deleted)
            })
        })
        .await
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::SqliteConnection;

    use super::super::open::sqlite::Reads;
    use super::{HomeRow, Instant, Namespace, ThreadKey};
    use crate::store::json::Json;

    pub(super) async fn homes(
        reads: &Reads,
        namespace: &Namespace,
        ids: &[String],
    ) -> Result<Vec<HomeRow>, sqlx::Error> {
        let mut json = Json::default();
        for id in ids {
            json.row().text(id);
        }
        sqlx::query_as(
            "select m.id as message, t.key, t.id as thread, t.resource
             from (select distinct value ->> 0 as id from json_each($2)) a
             cross join messages m on m.id = a.id and m.deleted_at is null
             cross join threads t on t.key = m.thread and t.namespace = $1
             order by t.key, m.seq",
        )
        .bind(namespace.as_str())
        .bind(json.done())
        .fetch_all(&reads.pool)
        .await
    }

    pub(super) async fn delete_messages(
        tx: &mut SqliteConnection,
        thread: ThreadKey,
        ids: &[String],
        at: Instant,
    ) -> Result<Vec<String>, sqlx::Error> {
        let mut json = Json::default();
        for id in ids {
            json.row().text(id);
        }
        sqlx::query_scalar(
            "update messages
             set deleted_at = $3, kept_for = (select t.run from threads t where t.key = $1)
             where thread = $1 and id in (select value ->> 0 from json_each($2)) and deleted_at is null
             returning id;

             update threads
             set edits = edits + 1
             where key = $1",
        )
        .bind(thread.0)
        .bind(json.done())
        .bind(at.0)
        .fetch_all(tx)
        .await
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::PgConnection;

    use super::super::open::postgres::Reads;
    use super::{HomeRow, Instant, Namespace, ThreadKey};

    pub(super) async fn homes(
        reads: &Reads,
        namespace: &Namespace,
        ids: &[String],
    ) -> Result<Vec<HomeRow>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select m.id as message, t.key, t.id as thread, t.resource
                     from messages m
                     join threads t on t.key = m.thread
                     where m.id = any ($2)
                       and m.deleted_at is null
                       and t.namespace = $1
                     order by t.key, m.seq",
                )
                .bind(namespace.as_str())
                .bind(ids)
                .fetch_all(&mut *connection)
                .await
            })
            .await
    }

    pub(super) async fn delete_messages(
        tx: &mut PgConnection,
        thread: ThreadKey,
        ids: &[String],
        at: Instant,
    ) -> Result<Vec<String>, sqlx::Error> {
        // Locked, so that no turn begins or ends in between.
        let run: Option<Option<i64>> =
            sqlx::query_scalar("update threads set edits = edits + 1 where key = $1 returning run")
                .bind(thread.0)
                .fetch_optional(&mut *tx)
                .await?;
        sqlx::query_scalar(
            "update messages
             set deleted_at = $3,
                 kept_for = $4
             where thread = $1
               and id = any ($2)
               and deleted_at is null
             returning id",
        )
        .bind(thread.0)
        .bind(ids)
        .bind(at.0)
        .bind(run.flatten())
        .fetch_all(tx)
        .await
    }
}

//! Listings of threads and of their messages, as interfaces page through them: by field, page and total.

use super::Error;
use super::open::{Inner, Store};
use super::threads::{Message, MessageRow, ThreadRow};
use crate::clock::Instant;
use crate::id::{Namespace, ThreadKey};
use crate::payload::Payload;
use crate::thread::Thread;

/// By what threads are listed. Threads of the same time stand in the order in which they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// By when they were made.
    #[default]
    Created,
    /// By when something was last added to them.
    Updated,
}

/// Which threads to list (H10.1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ThreadList {
    /// Only this resource's.
    pub resource: Option<String>,
    /// Only those whose metadata holds all of these values: a JSON object of scalars.
    pub metadata: Option<Payload>,
    /// By what.
    pub order: Order,
    /// Whether the oldest come first.
    pub ascending: bool,
    /// How many to leave out at the beginning.
    pub offset: usize,
    /// How many at the most.
    pub limit: usize,
}

/// Which messages of a thread to list (H10.6).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageList {
    /// Whether reactive signals are listed too (T6.9).
    pub include_reminders: bool,
    /// Only those that entered the history at this time or later.
    pub from: Option<Instant>,
    /// Only those that entered the history at this time or earlier.
    pub until: Option<Instant>,
    /// Only those whose metadata holds all of these values: a JSON object of scalars.
    pub metadata: Option<Payload>,
    /// Whether pages are counted from the latest message back. In a page the oldest always come first.
    pub latest: bool,
    /// How many to leave out at that end.
    pub offset: usize,
    /// How many at the most.
    pub limit: usize,
}

impl Store {
    /// A page of threads, and how many there are on all pages.
    ///
    /// # Errors
    /// As [`Store::thread`].
    pub async fn list_threads(&self, namespace: &Namespace, list: &ThreadList) -> Result<(Vec<Thread>, i64), Error> {
        self.readable().await?;
        let (rows, total): (Vec<ThreadRow>, i64) = twins!(Inner: &self.0.inner, threads(namespace, list))
            .map_err(|e| Error::unavailable("list threads", e))?;
        let threads = rows.into_iter().map(Thread::try_from).collect::<Result<_, _>>()?;
        Ok((threads, total))
    }

    /// A page of a thread's messages, in their order, and how many there are on all pages.
    ///
    /// # Errors
    /// As [`Store::thread`].
    pub async fn list_messages(&self, thread: ThreadKey, list: &MessageList) -> Result<(Vec<Message>, i64), Error> {
        self.readable().await?;
        let (mut rows, total): (Vec<MessageRow>, i64) =
            twins!(Inner: &self.0.inner, messages(thread, list)).map_err(|e| Error::unavailable("list messages", e))?;
        if list.latest {
            rows.reverse();
        }
        let messages = rows.into_iter().map(Message::try_from).collect::<Result<_, _>>()?;
        Ok((messages, total))
    }

    /// A thread by its key, whoever owns it.
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

/// 1 or -1: what a sort key is multiplied by.
fn direction(ascending: bool) -> i64 {
    if ascending { 1 } else { -1 }
}

fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::super::open::sqlite::Reads;
    use super::{MessageList, MessageRow, Namespace, Order, ThreadKey, ThreadList, ThreadRow, direction, limit_of};

    pub(super) async fn threads(
        reads: &Reads,
        namespace: &Namespace,
        list: &ThreadList,
    ) -> Result<(Vec<ThreadRow>, i64), sqlx::Error> {
        let metadata = list.metadata.as_ref().map(|it| it.as_str());
        let rows = sqlx::query_as(
            "select t.key, t.namespace, t.id, t.resource, t.title, t.metadata, r.id as run_id, t.agent, t.last_seq,
                    (select count(*) from queue q where q.thread = t.key and q.kind = 'turn') as queued,
                    t.created_at, t.updated_at
             from threads t
             left join runs r on r.key = t.run
             where t.namespace = $1 and ($2 is null or t.resource = $2)
               and not exists (
                 select 1 from json_each($3) f
                 where not exists (
                   select 1 from json_each(cast(t.metadata as text)) m
                   where m.key = f.key and m.value is f.value
                     and (m.type = f.type or (m.type in ('integer', 'real') and f.type in ('integer', 'real')))))
             order by (case when $4 then t.created_at else t.updated_at end) * $5, t.key * $5
             limit $7 offset $6",
        )
        .bind(namespace.as_str())
        .bind(list.resource.as_deref())
        .bind(metadata)
        .bind(list.order == Order::Created)
        .bind(direction(list.ascending))
        .bind(limit_of(list.offset))
        .bind(limit_of(list.limit))
        .fetch_all(&reads.pool)
        .await?;
        let total = sqlx::query_scalar(
            "select count(*)
             from threads t
             where t.namespace = $1 and ($2 is null or t.resource = $2)
               and not exists (
                 select 1 from json_each($3) f
                 where not exists (
                   select 1 from json_each(cast(t.metadata as text)) m
                   where m.key = f.key and m.value is f.value
                     and (m.type = f.type or (m.type in ('integer', 'real') and f.type in ('integer', 'real')))))",
        )
        .bind(namespace.as_str())
        .bind(list.resource.as_deref())
        .bind(metadata)
        .fetch_one(&reads.pool)
        .await?;
        Ok((rows, total))
    }

    pub(super) async fn thread_of(reads: &Reads, key: ThreadKey) -> Result<Option<ThreadRow>, sqlx::Error> {
        sqlx::query_as(
            "select t.key, t.namespace, t.id, t.resource, t.title, t.metadata, r.id as run_id, t.agent, t.last_seq,
                    (select count(*) from queue q where q.thread = t.key and q.kind = 'turn') as queued,
                    t.created_at, t.updated_at
             from threads t
             left join runs r on r.key = t.run
             where t.key = $1",
        )
        .bind(key.0)
        .fetch_optional(&reads.pool)
        .await
    }

    // A reminder is a reactive signal, or an older user row that begins as one (T6.9).
    pub(super) async fn messages(
        reads: &Reads,
        thread: ThreadKey,
        list: &MessageList,
    ) -> Result<(Vec<MessageRow>, i64), sqlx::Error> {
        let metadata = list.metadata.as_ref().map(|it| it.as_str());
        let rows = sqlx::query_as(
            "select m.seq, m.id, m.role, m.category, m.run, m.created_at, m.content
             from messages m
             where m.thread = $1
               and ($2 or not (coalesce(m.category, '') = 'reactive'
                 or m.role = 'user'
                    and coalesce(cast(m.content as text) ->> '$.content.parts[0].text', '') like '<system-reminder%'))
               and ($3 is null or m.created_at >= $3)
               and ($4 is null or m.created_at <= $4)
               and not exists (
                 select 1 from json_each($5) f
                 where not exists (
                   select 1 from json_each(cast(m.content as text), '$.content.metadata') d
                   where d.key = f.key and d.value is f.value
                     and (d.type = f.type or (d.type in ('integer', 'real') and f.type in ('integer', 'real')))))
             order by m.seq * $6
             limit $8 offset $7",
        )
        .bind(thread.0)
        .bind(list.include_reminders)
        .bind(list.from.map(|at| at.0))
        .bind(list.until.map(|at| at.0))
        .bind(metadata)
        .bind(direction(!list.latest))
        .bind(limit_of(list.offset))
        .bind(limit_of(list.limit))
        .fetch_all(&reads.pool)
        .await?;
        let total = sqlx::query_scalar(
            "select count(*)
             from messages m
             where m.thread = $1
               and ($2 or not (coalesce(m.category, '') = 'reactive'
                 or m.role = 'user'
                    and coalesce(cast(m.content as text) ->> '$.content.parts[0].text', '') like '<system-reminder%'))
               and ($3 is null or m.created_at >= $3)
               and ($4 is null or m.created_at <= $4)
               and not exists (
                 select 1 from json_each($5) f
                 where not exists (
                   select 1 from json_each(cast(m.content as text), '$.content.metadata') d
                   where d.key = f.key and d.value is f.value
                     and (d.type = f.type or (d.type in ('integer', 'real') and f.type in ('integer', 'real')))))",
        )
        .bind(thread.0)
        .bind(list.include_reminders)
        .bind(list.from.map(|at| at.0))
        .bind(list.until.map(|at| at.0))
        .bind(metadata)
        .fetch_one(&reads.pool)
        .await?;
        Ok((rows, total))
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::super::open::postgres::Reads;
    use super::{MessageList, MessageRow, Namespace, Order, ThreadKey, ThreadList, ThreadRow, direction, limit_of};

    // Postgres cannot hold U+0000 in jsonb: what has it matches no filter, rather than failing the listing.
    pub(super) async fn threads(
        reads: &Reads,
        namespace: &Namespace,
        list: &ThreadList,
    ) -> Result<(Vec<ThreadRow>, i64), sqlx::Error> {
        let metadata = list.metadata.as_ref().map(|it| it.as_str());
        reads
            .read(|mut connection| async move {
                let rows = sqlx::query_as(
                    "select t.key, t.namespace, t.id, t.resource, t.title, t.metadata, r.id as run_id, t.agent, t.last_seq,
                            (select count(*) from queue q where q.thread = t.key and q.kind = 'turn') as queued,
                            t.created_at, t.updated_at
                     from threads t
                     left join runs r on r.key = t.run
                     where t.namespace = $1
                       and ($2::text is null or t.resource = $2)
                       and ($3::text is null or case
                         when position('\\u0000' in convert_from(t.metadata, 'UTF8')) > 0 then false
                         else convert_from(t.metadata, 'UTF8')::jsonb @> $3::jsonb end)
                     order by (case when $4 then t.created_at else t.updated_at end) * $5, t.key * $5
                     limit $7 offset $6",
                )
                .bind(namespace.as_str())
                .bind(list.resource.as_deref())
                .bind(metadata)
                .bind(list.order == Order::Created)
                .bind(direction(list.ascending))
                .bind(limit_of(list.offset))
                .bind(limit_of(list.limit))
                .fetch_all(&mut *connection)
                .await?;
                let total = sqlx::query_scalar(
                    "select count(*)
                     from threads t
                     where t.namespace = $1
                       and ($2::text is null or t.resource = $2)
                       and ($3::text is null or case
                         when position('\\u0000' in convert_from(t.metadata, 'UTF8')) > 0 then false
                         else convert_from(t.metadata, 'UTF8')::jsonb @> $3::jsonb end)",
                )
                .bind(namespace.as_str())
                .bind(list.resource.as_deref())
                .bind(metadata)
                .fetch_one(&mut *connection)
                .await?;
                Ok((rows, total))
            })
            .await
    }

    pub(super) async fn thread_of(reads: &Reads, key: ThreadKey) -> Result<Option<ThreadRow>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select t.key, t.namespace, t.id, t.resource, t.title, t.metadata, r.id as run_id, t.agent, t.last_seq,
                            (select count(*) from queue q where q.thread = t.key and q.kind = 'turn') as queued,
                            t.created_at, t.updated_at
                     from threads t
                     left join runs r on r.key = t.run
                     where t.key = $1",
                )
                .bind(key.0)
                .fetch_optional(&mut *connection)
                .await
            })
            .await
    }

    pub(super) async fn messages(
        reads: &Reads,
        thread: ThreadKey,
        list: &MessageList,
    ) -> Result<(Vec<MessageRow>, i64), sqlx::Error> {
        let metadata = list.metadata.as_ref().map(|it| it.as_str());
        reads
            .read(|mut connection| async move {
                let rows = sqlx::query_as(
                    "select m.seq, m.id, m.role, m.category, m.run, m.created_at, m.content
                     from messages m
                     where m.thread = $1
                       and ($2 or coalesce(m.category, '') <> 'reactive'
                         and case
                           when m.role <> 'user' or position('\\u0000' in convert_from(m.content, 'UTF8')) > 0 then true
                           else coalesce(convert_from(m.content, 'UTF8')::jsonb #>> '{content,parts,0,text}', '')
                             not like '<system-reminder%' end)
                       and ($3::bigint is null or m.created_at >= $3)
                       and ($4::bigint is null or m.created_at <= $4)
                       and ($5::text is null or case
                         when position('\\u0000' in convert_from(m.content, 'UTF8')) > 0 then false
                         else coalesce(convert_from(m.content, 'UTF8')::jsonb #> '{content,metadata}' @> $5::jsonb, false)
                         end)
                     order by m.seq * $6
                     limit $8 offset $7",
                )
                .bind(thread.0)
                .bind(list.include_reminders)
                .bind(list.from.map(|at| at.0))
                .bind(list.until.map(|at| at.0))
                .bind(metadata)
                .bind(direction(!list.latest))
                .bind(limit_of(list.offset))
                .bind(limit_of(list.limit))
                .fetch_all(&mut *connection)
                .await?;
                let total = sqlx::query_scalar(
                    "select count(*)
                     from messages m
                     where m.thread = $1
                       and ($2 or coalesce(m.category, '') <> 'reactive'
                         and case
                           when m.role <> 'user' or position('\\u0000' in convert_from(m.content, 'UTF8')) > 0 then true
                           else coalesce(convert_from(m.content, 'UTF8')::jsonb #>> '{content,parts,0,text}', '')
                             not like '<system-reminder%' end)
                       and ($3::bigint is null or m.created_at >= $3)
                       and ($4::bigint is null or m.created_at <= $4)
                       and ($5::text is null or case
                         when position('\\u0000' in convert_from(m.content, 'UTF8')) > 0 then false
                         else coalesce(convert_from(m.content, 'UTF8')::jsonb #> '{content,metadata}' @> $5::jsonb, false)
                         end)",
                )
                .bind(thread.0)
                .bind(list.include_reminders)
                .bind(list.from.map(|at| at.0))
                .bind(list.until.map(|at| at.0))
                .bind(metadata)
                .fetch_one(&mut *connection)
                .await?;
                Ok((rows, total))
            })
            .await
    }
}

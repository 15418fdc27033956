//! Threads and messages in pages, as interfaces list them (H10.1, H10.6): filtered first, counted then, cut last.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Error;
use super::open::{Inner, Store};
use super::page::{Page, Paged, Range};
use super::threads::{Message, MessageRow, ThreadRow};
use crate::clock::Instant;
use crate::id::{Namespace, ThreadKey};
use crate::thread::Thread;

/// The most messages that are shown before, or after, one that is asked for by its id.
pub const AROUND_MAX: usize = 1_000;

/// Which threads are wanted, and in which order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ThreadFilter {
    /// In this namespace.
    pub namespace: Namespace,
    /// Of this owner.
    pub resource: Option<String>,
    /// Whose metadata has all these fields with these values.
    pub metadata: Map<String, Value>,
    /// By what they are sorted.
    pub order: ThreadOrder,
    /// The earliest first.
    pub ascending: bool,
}

/// By what threads are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ThreadOrder {
    /// When they were made.
    #[default]
    CreatedAt,
    /// When they were changed last.
    UpdatedAt,
}

/// Which messages of a thread are wanted (H10.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageFilter {
    /// The page. Page 0 is the newest one unless `oldest_first`; inside a page the oldest message is first.
    pub page: Page,
    /// Page 0 is the oldest one.
    pub oldest_first: bool,
    /// That entered at this time or later.
    pub from: Option<Instant>,
    /// That entered at this time or earlier.
    pub to: Option<Instant>,
    /// Whose metadata, that of the signal where it is one, has all these fields with these values.
    pub metadata: Map<String, Value>,
    /// Reactive signals too (T6.9).
    pub reminders: bool,
    /// Messages that are shown beside those of the page, with their neighbours, whatever the dates say.
    pub include: Vec<Around>,
}

/// A message by its id, and how many of those around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Around {
    /// The message's id.
    pub id: String,
    /// Its thread, if that is another one.
    pub thread: Option<ThreadKey>,
    /// How many before it, [`AROUND_MAX`] at the most.
    pub before: usize,
    /// How many after it, [`AROUND_MAX`] at the most.
    pub after: usize,
}

impl MessageFilter {
    /// The newest messages.
    #[must_use]
    pub fn page(page: Page) -> Self {
        Self {
            page,
            oldest_first: false,
            from: None,
            to: None,
            metadata: Map::new(),
            reminders: false,
            include: Vec::new(),
        }
    }
}

impl Store {
    /// Threads in pages; those that are one direct call's are not among them.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`]; [`Error::Corrupt`] for a row that contradicts itself.
    pub async fn list_threads(&self, filter: &ThreadFilter, page: Page) -> Result<Paged<Thread>, Error> {
        self.readable().await?;
        let unavailable = |e| Error::unavailable("list threads", e);
        let range = page.range();
        let rows: Vec<ListedRow> = twins!(Inner: &self.0.inner, list_threads(filter, range)).map_err(unavailable)?;
        let mut total = rows.first().map(|row| row.total);
        if rows.is_empty() && range.may_hide() {
            let counted: Vec<ListedRow> =
                twins!(Inner: &self.0.inner, list_threads(filter, Range::COUNT)).map_err(unavailable)?;
            total = counted.first().map(|row| row.total);
        }
        let items = rows.into_iter().map(|row| Thread::try_from(row.thread)).collect::<Result<_, _>>()?;
        Ok(Paged::of(items, total))
    }

    /// Messages of a thread in pages. The total counts those that the filter lets through; what is shown beside the page is
    /// not counted.
    ///
    /// # Errors
    /// As [`Store::list_threads`].
    pub async fn list_messages(&self, thread: ThreadKey, filter: &MessageFilter) -> Result<Paged<Message>, Error> {
        self.readable().await?;
        let unavailable = |e| Error::unavailable("list messages", e);
        let range = filter.page.range();
        let rows: Vec<PlacedRow> =
            twins!(Inner: &self.0.inner, list_messages(thread, filter, range)).map_err(unavailable)?;
        let mut total = rows.first().map(|row| row.total);
        if rows.is_empty() && range.may_hide() {
            let counted: Vec<PlacedRow> =
                twins!(Inner: &self.0.inner, list_messages(thread, filter, Range::COUNT)).map_err(unavailable)?;
            total = counted.first().map(|row| row.total);
        }
        // Along a thread times never go back, so this is its order; messages of other threads stand among them.
        let place = |of: ThreadKey, row: &MessageRow| (row.created_at, of != thread, of.0, row.seq);
        let mut places: BTreeMap<_, MessageRow> =
            rows.into_iter().map(|row| (place(thread, &row.message), row.message)).collect();
        for around in &filter.include {
            let of = around.thread.unwrap_or(thread);
            let rows: Vec<MessageRow> =
                twins!(Inner: &self.0.inner, around(of, around, filter.reminders)).map_err(unavailable)?;
            places.extend(rows.into_iter().map(|row| (place(of, &row), row)));
        }
        let items = places.into_values().map(Message::try_from).collect::<Result<_, _>>()?;
        Ok(Paged::of(items, total))
    }
}

impl Around {
    fn limits(&self) -> (i64, i64) {
        (self.before.min(AROUND_MAX) as i64, self.after.min(AROUND_MAX) as i64)
    }
}

/// A thread, and how many there are.
#[derive(Debug, sqlx::FromRow)]
struct ListedRow {
    #[sqlx(flatten)]
    thread: ThreadRow,
    total: i64,
}

/// A message, and how many there are.
#[derive(Debug, sqlx::FromRow)]
struct PlacedRow {
    #[sqlx(flatten)]
    message: MessageRow,
    total: i64,
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::super::open::sqlite::Reads;
    use super::{Around, ListedRow, MessageFilter, MessageRow, PlacedRow, Range, ThreadFilter, ThreadKey, ThreadOrder};

    pub(super) async fn list_threads(
        reads: &Reads,
        filter: &ThreadFilter,
        range: Range,
    ) -> Result<Vec<ListedRow>, sqlx::Error> {
        sqlx::query_as(
            "select t.key, t.namespace, t.id, t.resource, t.title, t.metadata, r.id as run_id, t.agent, t.last_seq,
                    (select count(*) from queue q where q.thread = t.key and q.kind = 'turn') as queued,
                    t.created_at, t.updated_at, p.total
             from (
                 select key, case $4 when 'updated' then updated_at else created_at end * $5 as rank,
                        count(*) over () as total
                 from threads
                 where namespace = $1 and ($2 is null or resource = $2) and not aside
                   and not exists (
                       select 1
                       from json_each($3) f
                       where not exists (
                           select 1
                           from json_each(cast(threads.metadata as text)) m
                           where m.key = f.key and m.type = f.type and m.atom is f.atom))
                 order by rank, key * $5
                 limit $7 offset $6
             ) p
             cross join threads t on t.key = p.key
             left join runs r on r.key = t.run
             order by p.rank, t.key * $5",
        )
        .bind(filter.namespace.as_str())
        .bind(filter.resource.as_deref())
        .bind(serde_json::Value::Object(filter.metadata.clone()).to_string())
        .bind(if filter.order == ThreadOrder::UpdatedAt { "updated" } else { "created" })
        .bind(if filter.ascending { 1 } else { -1 })
        .bind(range.offset)
        .bind(range.limit)
        .fetch_all(&reads.pool)
        .await
    }

    pub(super) async fn list_messages(
        reads: &Reads,
        thread: ThreadKey,
        filter: &MessageFilter,
        range: Range,
    ) -> Result<Vec<PlacedRow>, sqlx::Error> {
        sqlx::query_as(
            "select m.seq, m.id, m.role, m.category, m.run, m.created_at, m.content, p.total
             from (
                 select seq, count(*) over () as total
                 from messages
                 where thread = $1 and deleted_at is null and ($2 or category is not 'reactive')
                   and ($3 is null or created_at >= $3) and ($4 is null or created_at <= $4)
                   and not exists (
                       select 1
                       from json_each($8) f
                       where not exists (
                           select 1
                           from json_each(cast(messages.content as text), case messages.role
                               when 'signal' then '$.content.metadata.signal.metadata'
                               else '$.content.metadata'
                           end) m
                           where m.key = f.key and m.type = f.type and m.atom is f.atom))
                 order by seq * $5
                 limit $7 offset $6
             ) p
             cross join messages m on m.thread = $1 and m.seq = p.seq
             order by m.seq",
        )
        .bind(thread.0)
        .bind(filter.reminders)
        .bind(filter.from.map(|at| at.0))
        .bind(filter.to.map(|at| at.0))
        .bind(if filter.oldest_first { 1 } else { -1 })
        .bind(range.offset)
        .bind(range.limit)
        .bind(serde_json::Value::Object(filter.metadata.clone()).to_string())
        .fetch_all(&reads.pool)
        .await
    }

    pub(super) async fn around(
        reads: &Reads,
        thread: ThreadKey,
        around: &Around,
        reminders: bool,
    ) -> Result<Vec<MessageRow>, sqlx::Error> {
        let (before, after) = around.limits();
        sqlx::query_as(
            "with it as materialized (
                 select seq from messages where thread = $1 and id = $2 and deleted_at is null
             )
             select m.seq, m.id, m.role, m.category, m.run, m.created_at, m.content
             from (
                 select seq from it
                 union all
                 select seq from (
                     select o.seq
                     from messages o
                     where o.thread = $1 and o.seq < (select seq from it) and o.deleted_at is null
                       and ($3 or o.category is not 'reactive')
                     order by o.seq desc
                     limit $4)
                 union all
                 select seq from (
                     select o.seq
                     from messages o
                     where o.thread = $1 and o.seq > (select seq from it) and o.deleted_at is null
                       and ($3 or o.category is not 'reactive')
                     order by o.seq
                     limit $5)
             ) p
             cross join messages m on m.thread = $1 and m.seq = p.seq",
        )
        .bind(thread.0)
        .bind(&around.id)
        .bind(reminders)
        .bind(before)
        .bind(after)
        .fetch_all(&reads.pool)
        .await
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::super::open::postgres::Reads;
    use super::{Around, ListedRow, MessageFilter, MessageRow, PlacedRow, Range, ThreadFilter, ThreadKey, ThreadOrder};

    pub(super) async fn list_threads(
        reads: &Reads,
        filter: &ThreadFilter,
        range: Range,
    ) -> Result<Vec<ListedRow>, sqlx::Error> {
        let metadata = serde_json::Value::Object(filter.metadata.clone()).to_string();
        let metadata = (!filter.metadata.is_empty()).then_some(metadata);
        let metadata = metadata.as_deref();
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select t.key, t.namespace, t.id, t.resource, t.title, t.metadata, r.id as run_id, t.agent, t.last_seq,
                            (select count(*) from queue q where q.thread = t.key and q.kind = 'turn') as queued,
                            t.created_at, t.updated_at, p.total
                     from (
                       select key, case $4::text when 'updated' then updated_at else created_at end * $5 as rank,
                              count(*) over () as total
                       from threads
                       where namespace = $1
                         and ($2::text is null or resource = $2)
                         and not aside
                         and case
                               when $3::text is null then true
                               else convert_from(metadata, 'UTF8')::jsonb @> $3::jsonb
                             end
                       order by rank, key * $5
                       limit $7 offset $6
                     ) p
                     join threads t on t.key = p.key
                     left join runs r on r.key = t.run
                     order by p.rank, t.key * $5",
                )
                .bind(filter.namespace.as_str())
                .bind(filter.resource.as_deref())
                .bind(metadata)
                .bind(if filter.order == ThreadOrder::UpdatedAt { "updated" } else { "created" })
                .bind(if filter.ascending { 1_i64 } else { -1 })
                .bind(range.offset)
                .bind(range.limit)
                .fetch_all(&mut *connection)
                .await
            })
            .await
    }

    pub(super) async fn list_messages(
        reads: &Reads,
        thread: ThreadKey,
        filter: &MessageFilter,
        range: Range,
    ) -> Result<Vec<PlacedRow>, sqlx::Error> {
        let metadata = serde_json::Value::Object(filter.metadata.clone()).to_string();
        let metadata = (!filter.metadata.is_empty()).then_some(metadata);
        let metadata = metadata.as_deref();
        // A row is looked into without the character zero: `jsonb` cannot hold it, and nobody looks for it.
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select m.seq, m.id, m.role, m.category, m.run, m.created_at, m.content, p.total
                     from (
                       select seq, count(*) over () as total
                       from messages
                       where thread = $1
                         and deleted_at is null
                         and ($2 or category is distinct from 'reactive')
                         and ($3::bigint is null or created_at >= $3)
                         and ($4::bigint is null or created_at <= $4)
                         and case
                               when $8::text is null then true
                               else coalesce(
                                 regexp_replace(
                                   convert_from(content, 'UTF8'), '(?<!\\\\)((?:\\\\\\\\)*)\\\\u0000', '\\1', 'g')::jsonb
                                   #> case role
                                        when 'signal' then '{content,metadata,signal,metadata}'::text[]
                                        else '{content,metadata}'::text[]
                                      end
                                   @> $8::jsonb, false)
                             end
                       order by seq * $5
                       limit $7 offset $6
                     ) p
                     join messages m on m.thread = $1 and m.seq = p.seq
                     order by m.seq",
                )
                .bind(thread.0)
                .bind(filter.reminders)
                .bind(filter.from.map(|at| at.0))
                .bind(filter.to.map(|at| at.0))
                .bind(if filter.oldest_first { 1_i64 } else { -1 })
                .bind(range.offset)
                .bind(range.limit)
                .bind(metadata)
                .fetch_all(&mut *connection)
                .await
            })
            .await
    }

    pub(super) async fn around(
        reads: &Reads,
        thread: ThreadKey,
        around: &Around,
        reminders: bool,
    ) -> Result<Vec<MessageRow>, sqlx::Error> {
        let (before, after) = around.limits();
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "with it as materialized (
                       select seq
                       from messages
                       where thread = $1
                         and id = $2
                         and deleted_at is null
                     )
                     select m.seq, m.id, m.role, m.category, m.run, m.created_at, m.content
                     from messages m
                     where m.thread = $1
                       and m.seq = any (array(
                         select seq from it
                         union all
                         (select o.seq
                          from messages o
                          where o.thread = $1
                            and o.seq < (select seq from it)
                            and o.deleted_at is null
                            and ($3 or o.category is distinct from 'reactive')
                          order by o.seq desc
                          limit $4)
                         union all
                         (select o.seq
                          from messages o
                          where o.thread = $1
                            and o.seq > (select seq from it)
                            and o.deleted_at is null
                            and ($3 or o.category is distinct from 'reactive')
                          order by o.seq
                          limit $5)))",
                )
                .bind(thread.0)
                .bind(&around.id)
                .bind(reminders)
                .bind(before)
                .bind(after)
                .fetch_all(&mut *connection)
                .await
            })
            .await
    }
}

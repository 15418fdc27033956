//! Reads of threads that change nothing: a thread, lists, its history, and the tool calls that wait.

use super::Error;
use super::open::{Inner, Store};
use super::read::payload_of;
use crate::clock::Instant;
use crate::id::{Namespace, RunId, RunKey, ThreadId, ThreadKey};
use crate::payload::Payload;
use crate::thread::{Current, Thread};

/// A message of a thread's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its place: 1, 2, 3, …
    pub seq: i64,
    /// Its id, unique per thread.
    pub id: String,
    /// `user`, `assistant`, `system` or `signal`.
    pub role: String,
    /// The category of a signal.
    pub category: Option<String>,
    /// The turn that has added it; none if it was put there from outside.
    pub run: Option<RunKey>,
    /// When it entered the history, by the clock of the machine that was at work; never before what stands before it (T6.4).
    pub created_at: Instant,
    /// The row's content.
    pub content: Payload,
}

/// A tool call that waits for an answer from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingCall {
    /// The thread.
    pub thread: ThreadKey,
    /// The turn that is suspended.
    pub run: RunKey,
    /// The turn's id.
    pub run_id: RunId,
    /// The call.
    pub call: String,
    /// The tool.
    pub tool: String,
    /// Its arguments, and what it was suspended with.
    pub value: Payload,
    /// Since when.
    pub since: Instant,
    /// When it is settled by itself.
    pub expires_at: Option<Instant>,
    /// Whether it waits no longer.
    pub settled: bool,
}

/// What was last said on a thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recent {
    /// Rows of the history, with their places, in order.
    pub rows: Vec<(i64, Payload)>,
    /// The part that the last chunk belongs to.
    pub last_part: Option<String>,
}

/// Which messages of a history to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Only places after this one.
    pub after: i64,
    /// Only places up to this one.
    pub until: i64,
    /// How many at the most.
    pub limit: usize,
    /// Whether the latest are wanted rather than the earliest. They come in the order of the history all the same.
    pub latest: bool,
}

impl Window {
    /// The latest messages up to a place.
    #[must_use]
    pub fn latest(until: i64, limit: usize) -> Self {
        Self { after: 0, until, limit, latest: true }
    }

    /// The messages after a place.
    #[must_use]
    pub fn after(after: i64, limit: usize) -> Self {
        Self { after, until: i64::MAX, limit, latest: false }
    }
}

impl Store {
    /// A thread by its id.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`]; [`Error::Corrupt`] for a row that contradicts itself.
    pub async fn thread(&self, namespace: &Namespace, id: &ThreadId) -> Result<Option<Thread>, Error> {
        self.readable().await?;
        let row: Option<ThreadRow> =
            twins!(Inner: &self.0.inner, thread(namespace, id)).map_err(|e| Error::unavailable("read a thread", e))?;
        row.map(Thread::try_from).transpose()
    }

    /// Messages of a thread's history, in its order.
    ///
    /// # Errors
    /// As [`Store::thread`].
    pub async fn messages(&self, thread: ThreadKey, window: Window) -> Result<Vec<Message>, Error> {
        self.readable().await?;
        let mut rows: Vec<MessageRow> = twins!(Inner: &self.0.inner, messages(thread, window))
            .map_err(|e| Error::unavailable("read a history", e))?;
        if window.latest {
            rows.reverse();
        }
        rows.into_iter().map(Message::try_from).collect()
    }

    /// Messages of a thread's history by their ids, in its order; those that are not there are left out.
    ///
    /// # Errors
    /// As [`Store::thread`].
    pub async fn messages_named(&self, thread: ThreadKey, ids: &[String]) -> Result<Vec<Message>, Error> {
        self.readable().await?;
        let rows: Vec<MessageRow> = twins!(Inner: &self.0.inner, messages_named(thread, ids))
            .map_err(|e| Error::unavailable("read messages", e))?;
        rows.into_iter().map(Message::try_from).collect()
    }

    /// The latest rows of a thread's history, with their places and in order, and the part that the last chunk which its
    /// subscribers see belongs to: what a step of the turn `run` looks at, by one read. What others have put there since
    /// the turn began is for the turns that follow (T7.4), and so is that a message was deleted since (H10.7).
    ///
    /// # Errors
    /// As [`Store::thread`].
    pub async fn recent(&self, thread: ThreadKey, run: RunKey, limit: usize) -> Result<Recent, Error> {
        self.readable().await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (mut rows, last_part): Folded = twins!(Inner: &self.0.inner, recent(thread, run, limit))
            .map_err(|e| Error::unavailable("read what was last said on a thread", e))?;
        rows.sort_unstable_by_key(|(seq, ..)| *seq);
        if let Some(first) = rows.iter().find(|(_, of, _)| *of == Some(run.0)).map(|(seq, ..)| *seq) {
            rows.retain(|(seq, of, _)| *seq < first || *of == Some(run.0));
        }
        let rows = rows.into_iter().map(|(seq, _, row)| Ok((seq, payload_of(row)?))).collect::<Result<_, Error>>()?;
        Ok(Recent { rows, last_part })
    }

    /// The tool calls that wait for an answer, of one thread or of all; the one that waits longest first.
    ///
    /// # Errors
    /// As [`Store::thread`].
    pub async fn waiting_calls(&self, thread: Option<ThreadKey>, limit: usize) -> Result<Vec<WaitingCall>, Error> {
        self.readable().await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<CallRow> = twins!(Inner: &self.0.inner, waiting_calls(thread, limit))
            .map_err(|e| Error::unavailable("list calls that wait", e))?;
        rows.into_iter().map(WaitingCall::try_from).collect()
    }
}

impl Store {
    /// The calls of a thread that have this id, settled or not; the latest first.
    ///
    /// # Errors
    /// As [`Store::thread`].
    pub async fn calls_named(&self, thread: ThreadKey, call: &str) -> Result<Vec<WaitingCall>, Error> {
        self.readable().await?;
        let rows: Vec<CallRow> = twins!(Inner: &self.0.inner, calls_named(thread, call))
            .map_err(|e| Error::unavailable("look for a call", e))?;
        rows.into_iter().map(WaitingCall::try_from).collect()
    }
}

/// `key, namespace, id, resource, title, metadata, run_id, agent, last_seq, queued, created_at, updated_at`
#[derive(Debug, sqlx::FromRow)]
pub(super) struct ThreadRow {
    key: i64,
    namespace: String,
    id: String,
    resource: String,
    title: String,
    metadata: Vec<u8>,
    run_id: Option<String>,
    agent: Option<String>,
    last_seq: i64,
    queued: i64,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<ThreadRow> for Thread {
    type Error = Error;

    fn try_from(row: ThreadRow) -> Result<Self, Error> {
        let corrupt = |found: String| Error::Corrupt { found: format!("thread {}: {found}", row.key) };
        let current = match (row.run_id, row.agent) {
            (Some(run), Some(agent)) => {
                Some(Current { run: RunId::parse(&run).map_err(|e| corrupt(e.to_string()))?, agent })
            }
            _ => None,
        };
        Ok(Self {
            key: ThreadKey(row.key),
            namespace: Namespace::parse(&row.namespace).map_err(|e| corrupt(e.to_string()))?,
            id: ThreadId::parse(&row.id).map_err(|e| corrupt(e.to_string()))?,
            resource: row.resource,
            title: row.title,
            metadata: payload_of(row.metadata)?,
            current,
            queued: row.queued,
            last_seq: row.last_seq,
            created_at: Instant(row.created_at),
            updated_at: Instant(row.updated_at),
        })
    }
}

/// `seq, id, role, category, created_at, content`
#[derive(Debug, sqlx::FromRow)]
pub(super) struct MessageRow {
    pub(super) seq: i64,
    id: String,
    role: String,
    category: Option<String>,
    run: Option<i64>,
    created_at: i64,
    content: Vec<u8>,
}

impl TryFrom<MessageRow> for Message {
    type Error = Error;

    fn try_from(row: MessageRow) -> Result<Self, Error> {
        let MessageRow { seq, id, role, category, run, created_at, content } = row;
        let (run, content) = (run.map(RunKey), payload_of(content)?);
        Ok(Self { seq, id, role, category, run, created_at: Instant(created_at), content })
    }
}

/// `thread, run, run_id, call, tool, value, since, expires_at, settled`
#[derive(Debug, sqlx::FromRow)]
struct CallRow {
    thread: i64,
    run: i64,
    run_id: String,
    call: String,
    tool: String,
    value: Vec<u8>,
    since: i64,
    expires_at: Option<i64>,
    settled: i64,
}

impl TryFrom<CallRow> for WaitingCall {
    type Error = Error;

    fn try_from(row: CallRow) -> Result<Self, Error> {
        let run_id = RunId::parse(&row.run_id)
            .map_err(|e| Error::Corrupt { found: format!("the turn of call {:?}: {e}", row.call) })?;
        Ok(Self {
            thread: ThreadKey(row.thread),
            run: RunKey(row.run),
            run_id,
            call: row.call,
            tool: row.tool,
            value: payload_of(row.value)?,
            since: Instant(row.since),
            expires_at: row.expires_at.map(Instant),
            settled: row.settled != 0,
        })
    }
}

/// A message's place, turn and row, if there is one, and the part of the last chunk.
#[cfg(feature = "postgres")]
type RecentRow = (Option<i64>, Option<i64>, Option<Vec<u8>>, Option<String>);

/// Rows of a history, in any order, each with its place and its turn; and the part of the last chunk.
type Folded = (Vec<(i64, Option<i64>, Vec<u8>)>, Option<String>);

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::super::open::sqlite::Reads;
    use super::{CallRow, Folded, MessageRow, Namespace, RunKey, ThreadId, ThreadKey, ThreadRow, Window};
    use crate::store::json::Json;

    pub(super) async fn thread(
        reads: &Reads,
        namespace: &Namespace,
        id: &ThreadId,
    ) -> Result<Option<ThreadRow>, sqlx::Error> {
        sqlx::query_as(
            "select t.key, t.namespace, t.id, t.resource, t.title, t.metadata, r.id as run_id, t.agent, t.last_seq,
                    (select count(*) from queue q where q.thread = t.key and q.kind = 'turn') as queued,
                    t.created_at, t.updated_at
             from threads t
             left join runs r on r.key = t.run
             where t.namespace = $1 and t.id = $2",
        )
        .bind(namespace.as_str())
        .bind(id.as_str())
        .fetch_optional(&reads.pool)
        .await
    }

    // A row through the driver costs more than a message: all are folded into one, with separators that JSON cannot hold.
    pub(super) async fn recent(
        reads: &Reads,
        thread: ThreadKey,
        run: RunKey,
        limit: i64,
    ) -> Result<Folded, sqlx::Error> {
        let (folded, last_part): (Option<String>, Option<String>) = sqlx::query_as(
            "select (select group_concat(
                         m.seq || char(31) || coalesce(m.run, '') || char(31) || cast(m.content as text), char(30))
                     from (
                         select seq, run, content
                         from messages
                         where thread = $1 and (deleted_at is null or kept_for = $3)
                         order by seq desc
                         limit $2) m),
                    (select part from streams where run = $1 and stream = 'chunks' order by place desc limit 1)",
        )
        .bind(thread.0)
        .bind(limit)
        .bind(run.0)
        .fetch_one(&reads.pool)
        .await?;
        let unfold = |row: &str| {
            let mut fields = row.splitn(3, '\u{1f}');
            let (seq, run, content) = (fields.next()?, fields.next()?, fields.next()?);
            Some((seq.parse().ok()?, run.parse().ok(), content.as_bytes().to_vec()))
        };
        let folded = folded.unwrap_or_default();
        let rows = folded.split('\u{1e}').filter(|row| !row.is_empty()).map(unfold);
        let rows: Option<Vec<_>> = rows.collect();
        let rows = rows.ok_or_else(|| sqlx::Error::Decode(format!("the history of thread {thread}").into()))?;
        Ok((rows, last_part))
    }

    pub(super) async fn messages(
        reads: &Reads,
        thread: ThreadKey,
        window: Window,
    ) -> Result<Vec<MessageRow>, sqlx::Error> {
        let query = if window.latest {
            "select seq, id, role, category, run, created_at, content
             from messages
             where thread = $1 and seq > $2 and seq <= $3 and deleted_at is null
             order by seq desc
             limit $4"
        } else {
            "select seq, id, role, category, run, created_at, content
             from messages
             where thread = $1 and seq > $2 and seq <= $3 and deleted_at is null
             order by seq
             limit $4"
        };
        sqlx::query_as(query)
            .bind(thread.0)
            .bind(window.after)
            .bind(window.until)
            .bind(i64::try_from(window.limit).unwrap_or(i64::MAX))
            .fetch_all(&reads.pool)
            .await
    }

    pub(super) async fn messages_named(
        reads: &Reads,
        thread: ThreadKey,
        ids: &[String],
    ) -> Result<Vec<MessageRow>, sqlx::Error> {
        let mut json = Json::default();
        for id in ids {
            json.row().text(id);
        }
        sqlx::query_as(
            "select seq, id, role, category, run, created_at, content
             from messages
             where thread = $1 and id in (select value ->> 0 from json_each($2)) and deleted_at is null
             order by seq",
        )
        .bind(thread.0)
        .bind(json.done())
        .fetch_all(&reads.pool)
        .await
    }

    pub(super) async fn calls_named(reads: &Reads, thread: ThreadKey, call: &str) -> Result<Vec<CallRow>, sqlx::Error> {
        sqlx::query_as(
            "select c.thread, c.run, r.id as run_id, c.call, c.tool, c.value, c.since, c.expires_at, c.settled
             from calls c
             cross join runs r on r.key = c.run
             where c.thread = $1 and c.call = $2
             order by c.run desc",
        )
        .bind(thread.0)
        .bind(call)
        .fetch_all(&reads.pool)
        .await
    }

    pub(super) async fn waiting_calls(
        reads: &Reads,
        thread: Option<ThreadKey>,
        limit: i64,
    ) -> Result<Vec<CallRow>, sqlx::Error> {
        sqlx::query_as(
            "select c.thread, c.run, r.id as run_id, c.call, c.tool, c.value, c.since, c.expires_at, c.settled
             from calls c
             cross join runs r on r.key = c.run
             where c.settled = 0 and ($1 is null or c.thread = $1)
             order by c.since, c.run, c.call
             limit $2",
        )
        .bind(thread.map(|thread| thread.0))
        .bind(limit)
        .fetch_all(&reads.pool)
        .await
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::super::open::postgres::Reads;
    use super::{CallRow, Folded, MessageRow, Namespace, RecentRow, RunKey, ThreadId, ThreadKey, ThreadRow, Window};

    pub(super) async fn thread(
        reads: &Reads,
        namespace: &Namespace,
        id: &ThreadId,
    ) -> Result<Option<ThreadRow>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select t.key, t.namespace, t.id, t.resource, t.title, t.metadata, r.id as run_id, t.agent, t.last_seq,
                            (select count(*) from queue q where q.thread = t.key and q.kind = 'turn') as queued,
                            t.created_at, t.updated_at
                     from threads t
                     left join runs r on r.key = t.run
                     where t.namespace = $1
                       and t.id = $2",
                )
                .bind(namespace.as_str())
                .bind(id.as_str())
                .fetch_optional(&mut *connection)
                .await
            })
            .await
    }

    pub(super) async fn recent(
        reads: &Reads,
        thread: ThreadKey,
        run: RunKey,
        limit: i64,
    ) -> Result<Folded, sqlx::Error> {
        let rows: Vec<RecentRow> = reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select m.seq, m.run, m.content, p.part
                     from (select (
                             select part
                             from streams
                             where run = $1
                               and stream = 'chunks'
                             order by place desc
                             limit 1) as part) p
                     left join (
                       select seq, run, content
                       from messages
                       where thread = $1
                         and (deleted_at is null or kept_for = $3)
                       order by seq desc
                       limit $2) m on true",
                )
                .bind(thread.0)
                .bind(limit)
                .bind(run.0)
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        let last_part = rows.first().and_then(|(.., part)| part.clone());
        let rows = rows.into_iter().filter_map(|(seq, run, content, _)| Some((seq?, run, content?)));
        Ok((rows.collect(), last_part))
    }

    pub(super) async fn messages(
        reads: &Reads,
        thread: ThreadKey,
        window: Window,
    ) -> Result<Vec<MessageRow>, sqlx::Error> {
        let query = if window.latest {
            "select seq, id, role, category, run, created_at, content
             from messages
             where thread = $1
               and seq > $2
               and seq <= $3
               and deleted_at is null
             order by seq desc
             limit $4"
        } else {
            "select seq, id, role, category, run, created_at, content
             from messages
             where thread = $1
               and seq > $2
               and seq <= $3
               and deleted_at is null
             order by seq
             limit $4"
        };
        reads
            .read(|mut connection| async move {
                sqlx::query_as(query)
                    .bind(thread.0)
                    .bind(window.after)
                    .bind(window.until)
                    .bind(i64::try_from(window.limit).unwrap_or(i64::MAX))
                    .fetch_all(&mut *connection)
                    .await
            })
            .await
    }

    pub(super) async fn messages_named(
        reads: &Reads,
        thread: ThreadKey,
        ids: &[String],
    ) -> Result<Vec<MessageRow>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select seq, id, role, category, run, created_at, content
                     from messages
                     where thread = $1
                       and id = any ($2)
                       and deleted_at is null
                     order by seq",
                )
                .bind(thread.0)
                .bind(ids)
                .fetch_all(&mut *connection)
                .await
            })
            .await
    }

    pub(super) async fn calls_named(reads: &Reads, thread: ThreadKey, call: &str) -> Result<Vec<CallRow>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select c.thread, c.run, r.id as run_id, c.call, c.tool, c.value, c.since, c.expires_at, c.settled
                     from calls c
                     join runs r on r.key = c.run
                     where c.thread = $1
                       and c.call = $2
                     order by c.run desc",
                )
                .bind(thread.0)
                .bind(call)
                .fetch_all(&mut *connection)
                .await
            })
            .await
    }

    pub(super) async fn waiting_calls(
        reads: &Reads,
        thread: Option<ThreadKey>,
        limit: i64,
    ) -> Result<Vec<CallRow>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select c.thread, c.run, r.id as run_id, c.call, c.tool, c.value, c.since, c.expires_at, c.settled
                     from calls c
                     join runs r on r.key = c.run
                     where c.settled = 0
                       and ($1 is null or c.thread = $1)
                     order by c.since, c.run, c.call
                     limit $2",
                )
                .bind(thread.map(|thread| thread.0))
                .bind(limit)
                .fetch_all(&mut *connection)
                .await
            })
            .await
    }
}

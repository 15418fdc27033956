//! Reads of threads that change nothing: a thread, lists, its history, and the tool calls that wait.

use super::Error;
use super::open::{Inner, Store};
use super::read::payload_of;
use crate::clock::Instant;
use crate::id::{Namespace, RunId, RunKey, ThreadId, ThreadKey};
use crate::message::{self, Unreadable};
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
    /// How often rows of turns that have ended were changed.
    pub edits: i64,
    /// Whether these are the latest rows of all, rather than of those after the ones that the reader has seen.
    pub whole: bool,
    /// Rows of the history, in order; those of the turn that asks are the last.
    pub rows: Vec<RecentRow>,
    /// The part that the last chunk belongs to.
    pub last_part: Option<String>,
}

/// A row of a history, for the turn that reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecentRow {
    /// Its place.
    pub seq: i64,
    /// Whether the turn itself has put it there.
    pub own: bool,
    /// Whether it was deleted since the turn began, and is for no other.
    pub passing: bool,
    /// The message's row, as it is stored.
    pub content: String,
}

/// How much of a history a reader has. What it has is as it was while the thread's `edits` stay the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// How often rows had been changed then.
    pub edits: i64,
    /// Up to which place.
    pub until: i64,
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

impl RecentRow {
    /// The message that it is.
    ///
    /// # Errors
    /// If it is not JSON, or no message.
    pub fn message(&self) -> Result<message::Message, Unreadable> {
        let unreadable = |problem: serde_json::Error| Unreadable { seq: self.seq, problem: problem.to_string() };
        let row: serde_json::Value = serde_json::from_str(&self.content).map_err(unreadable)?;
        message::Message::of_row(self.seq, &row)
    }
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

    /// The latest rows of a thread's history, in order, after what the reader has `seen` if that still holds; and the part
    /// that the last chunk which its subscribers see belongs to: what a step of the turn `run` looks at, by one read. What
    /// others have put there since the turn began is for the turns that follow (T7.4), and so is that a message was deleted
    /// since (H10.7).
    ///
    /// # Errors
    /// As [`Store::thread`].
    pub async fn recent(
        &self,
        thread: ThreadKey,
        run: RunKey,
        limit: usize,
        seen: Option<Seen>,
    ) -> Result<Recent, Error> {
        self.readable().await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let seen = seen.unwrap_or(Seen { edits: -1, until: 0 });
        let Folded { edits, mut rows, last_part } = twins!(Inner: &self.0.inner, recent(thread, run, limit, seen))
            .map_err(|e| Error::unavailable("read what was last said on a thread", e))?;
        rows.sort_unstable_by_key(|(seq, ..)| *seq);
        let mut rows: Vec<RecentRow> = rows
            .into_iter()
            .map(|(seq, of, passing, content)| RecentRow { seq, own: of == Some(run.0), passing, content })
            .collect();
        if let Some(first) = rows.iter().position(|row| row.own) {
            let first = rows[first].seq;
            rows.retain(|row| row.own || row.seq < first);
        }
        Ok(Recent { edits, whole: edits != seen.edits, rows, last_part })
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
    pub(super) created_at: i64,
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

/// A thread's `edits`; a message's place, turn, whether it is deleted, and its row, if there is one; and the part of the
/// last chunk.
#[cfg(feature = "postgres")]
type FoundRow = (i64, Option<i64>, Option<i64>, Option<bool>, Option<Vec<u8>>, Option<String>);

/// A thread's `edits`; rows of its history, in any order, each with its place, its turn and whether it is deleted; the part
/// of the last chunk.
struct Folded {
    edits: i64,
    rows: Vec<(i64, Option<i64>, bool, String)>,
    last_part: Option<String>,
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::super::open::sqlite::Reads;
    use super::{CallRow, Folded, MessageRow, Namespace, RunKey, Seen, ThreadId, ThreadKey, ThreadRow, Window};
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
        seen: Seen,
    ) -> Result<Folded, sqlx::Error> {
        let (edits, folded, last_part): (i64, Option<String>, Option<String>) = sqlx::query_as(
            "select t.edits,
                    (select group_concat(
                         m.seq || char(31) || coalesce(m.run, '') || char(31) || (m.deleted_at is not null) || char(31) ||
                         cast(m.content as text), char(30))
                     from (
                         select seq, run, deleted_at, content
                         from messages
                         where thread = $1
                           and seq > case t.edits when $3 then $4 else 0 end
                           and (deleted_at is null or kept_for = $5)
                         order by seq desc
                         limit $2
                     ) m),
                    (select part from streams where run = $1 and stream = 'chunks' order by place desc limit 1)
             from threads t
             where t.key = $1",
        )
        .bind(thread.0)
        .bind(limit)
        .bind(seen.edits)
        .bind(seen.until)
        .bind(run.0)
        .fetch_one(&reads.pool)
        .await?;
        let unfold = |row: &str| {
            let mut fields = row.splitn(4, '\u{1f}');
            let (seq, run, passing) = (fields.next()?, fields.next()?, fields.next()?);
            Some((seq.parse().ok()?, run.parse().ok(), passing == "1", fields.next()?.to_owned()))
        };
        let folded = folded.unwrap_or_default();
        let rows = folded.split('\u{1e}').filter(|row| !row.is_empty()).map(unfold);
        let rows: Option<Vec<_>> = rows.collect();
        let rows = rows.ok_or_else(|| sqlx::Error::Decode(format!("the history of thread {thread}").into()))?;
        Ok(Folded { edits, rows, last_part })
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
    use super::{
        CallRow, Folded, FoundRow, MessageRow, Namespace, RunKey, Seen, ThreadId, ThreadKey, ThreadRow, Window,
    };

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
        seen: Seen,
    ) -> Result<Folded, sqlx::Error> {
        let rows: Vec<FoundRow> = reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select t.edits, m.seq, m.run, m.passing, m.content, (
                         select part
                         from streams
                         where run = $1
                           and stream = 'chunks'
                         order by place desc
                         limit 1) as part
                     from threads t
                     left join lateral (
                       select seq, run, deleted_at is not null as passing, content
                       from messages
                       where thread = $1
                         and seq > case t.edits when $3 then $4 else 0 end
                         and (deleted_at is null or kept_for = $5)
                       order by seq desc
                       limit $2) m on true
                     where t.key = $1",
                )
                .bind(thread.0)
                .bind(limit)
                .bind(seen.edits)
                .bind(seen.until)
                .bind(run.0)
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        let (edits, last_part) = match rows.first() {
            Some((edits, .., part)) => (*edits, part.clone()),
            None => return Err(sqlx::Error::RowNotFound),
        };
        let text = |content| String::from_utf8(content).map_err(|e| sqlx::Error::Decode(Box::new(e)));
        let rows =
            rows.into_iter().filter_map(|(_, seq, run, passing, content, _)| Some((seq?, run, passing?, content?)));
        let rows: Result<_, sqlx::Error> =
            rows.map(|(seq, run, passing, content)| Ok((seq, run, passing, text(content)?))).collect();
        Ok(Folded { edits, rows: rows?, last_part })
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

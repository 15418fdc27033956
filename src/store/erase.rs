//! Deleting a thread (H10.5, case 19). The journals of its runs stay.
//!
//! A thread goes in one transaction: the run that has it and those that are queued are ended over their owners' heads, so
//! that what they still write is refused; what was sent to them and not taken goes with it, and the journals say so;
//! subscribers are told by a last chunk. What is sent there later makes another thread, which has nothing of this one and
//! goes on counting its places and chunks.

use std::sync::{Arc, Mutex, PoisonError};

use super::contract::{Commit, Leaves, Lines};
use super::open::Store;
use super::receive::NotReceived;
use super::start::CallerTx;
use super::turns;
use super::writer::{self, Batch, Frame};
use super::{Error, commit};
use crate::clock::Instant;
use crate::id::{Fence, Namespace, RunId, RunKey, Seq, ThreadId, ThreadKey};
use crate::journal::RunTerminated;
use crate::message::Chunks;
use crate::payload::Payload;
use crate::run::Closed;
use crate::thread::INPUT;

/// A thread that is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erase {
    /// Its namespace.
    pub namespace: Namespace,
    /// The thread.
    pub id: ThreadId,
    /// Who it must belong to; anybody if none.
    pub resource: Option<String>,
    /// Who asks; the journals of the runs that end with it say so.
    pub by: String,
    /// When.
    pub at: Instant,
}

/// What went with a thread.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Erased {
    /// Runs that were ended: the one that had the thread, and those that were queued.
    pub runs: Vec<RunId>,
    /// The ids of inputs that no run had taken.
    pub untaken: Vec<String>,
}

impl Store {
    /// Deletes a thread with all that belongs to it; none if it is not there.
    ///
    /// # Errors
    /// The inner one is [`NotReceived::Foreign`]: it belongs to somebody else, and nothing was written.
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn delete_thread(&self, asked: Erase) -> Result<Result<Option<Erased>, NotReceived>, Error> {
        let tried: Arc<Mutex<Option<Gone>>> = Arc::default();
        let asked = Arc::new(asked);
        let gone = self
            .alone("delete a thread", move |tx, doubtful| {
                let (asked, tried) = (Arc::clone(&asked), Arc::clone(&tried));
                Box::pin(async move { erase(tx, &asked, &tried, doubtful).await })
            })
            .await?;
        Ok(gone.map(|gone| {
            gone.map(|gone| {
                for run in &gone.keys {
                    self.0.shared.taken_away(*run);
                }
                self.0.shared.shown(gone.thread);
                gone.erased
            })
        }))
    }
}

/// A thread that is no more.
#[derive(Debug, Clone)]
struct Gone {
    thread: ThreadKey,
    keys: Vec<RunKey>,
    erased: Erased,
}

async fn erase(
    mut tx: CallerTx<'_>,
    asked: &Erase,
    tried: &Mutex<Option<Gone>>,
    doubtful: bool,
) -> Result<Result<Option<Gone>, NotReceived>, sqlx::Error> {
    writer::begin(tx.again()).await?;
    let found: Option<FoundRow> = twins!(CallerTx: tx.again(), found(&asked.namespace, &asked.id))?;
    let before = tried.lock().unwrap_or_else(PoisonError::into_inner).take();
    let found = match (found, before) {
        // Another one stands there by now, or none: the first try has landed.
        (found, Some(before)) if doubtful && found.as_ref().is_none_or(|it| it.key != before.thread.0) => {
            writer::end(tx).await?;
            return Ok(Ok(Some(before)));
        }
        (None, _) => {
            writer::end(tx).await?;
            return Ok(Ok(None));
        }
        (Some(found), _) => found,
    };
    if asked.resource.as_ref().is_some_and(|resource| *resource != found.resource) {
        writer::end(tx).await?;
        return Ok(Err(NotReceived::Foreign));
    }
    let gone = take_away(tx.again(), asked, &found).await?;
    *tried.lock().unwrap_or_else(PoisonError::into_inner) = Some(gone.clone());
    writer::end(tx).await?;
    Ok(Ok(Some(gone)))
}

async fn take_away(mut tx: CallerTx<'_>, asked: &Erase, found: &FoundRow) -> Result<Gone, sqlx::Error> {
    let thread = ThreadKey(found.key);
    let open: Vec<OpenRow> = twins!(CallerTx: tx.again(), open_turns(thread))?;
    let keys: Vec<RunKey> = open.iter().map(|turn| RunKey(turn.run)).collect();
    let untaken: Vec<(i64, String)> = twins!(CallerTx: tx.again(), untaken(&keys))?;
    let mut batch = Batch::default();
    for turn in &open {
        let of_turn = untaken.iter().filter(|(run, _)| *run == turn.run).map(|(_, id)| id.as_str());
        batch.commit(turn.ends(asked, &of_turn.collect::<Vec<_>>()), Some(Fence(turn.fence + 1)));
    }
    if !batch.commits.is_empty() {
        let facts = commit::rows(tx.again(), &batch, Frame::Inside).await?.commits;
        if let Some(refused) = facts.iter().find(|fact| !fact.is_applied()) {
            return Err(sqlx::Error::Protocol(format!("a turn of a thread could not be ended: {refused:?}")));
        }
        turns::empty(tx.again(), &keys).await?;
    }
    let last_chunk: i64 = twins!(CallerTx: tx.again(), last_chunk(thread))?;
    twins!(CallerTx: tx.again(), remove(thread, asked))?;
    let told = told(asked, found, &open)?;
    let left = Left { thread, last_seq: found.last_seq, last_chunk: last_chunk + told.len() as i64 };
    twins!(CallerTx: tx, leave(asked, left, &told))?;
    let runs = open.iter().map(OpenRow::id).collect::<Result<_, _>>()?;
    let untaken = open.iter().filter_map(|turn| turn.input.clone()).chain(untaken.into_iter().map(|(_, id)| id));
    Ok(Gone { thread, keys, erased: Erased { runs, untaken: untaken.collect() } })
}

/// What subscribers are told: that the run has ended which they follow, and that the thread is no more.
fn told(asked: &Erase, found: &FoundRow, open: &[OpenRow]) -> Result<Vec<Payload>, sqlx::Error> {
    let current = open.iter().find(|turn| Some(turn.run) == found.run);
    let run = current.map_or_else(|| RunId::generate().to_string(), |turn| turn.id.clone());
    let chunks = Chunks::of(run);
    let deleted = chunks.thread_deleted(asked.id.as_str(), asked.at);
    let told = current.map(|_| chunks.abort()).into_iter().chain([deleted]);
    told.map(|chunk| Payload::of(&chunk)).collect::<Result<_, _>>().map_err(|e| sqlx::Error::Encode(Box::new(e)))
}

/// Where a thread had come to: its last place, and the chunk that tells that it is no more.
#[derive(Debug, Clone, Copy)]
struct Left {
    thread: ThreadKey,
    last_seq: i64,
    last_chunk: i64,
}

/// A thread as it stands: `key, resource, run, last_seq`
#[derive(Debug, sqlx::FromRow)]
struct FoundRow {
    key: i64,
    resource: String,
    run: Option<i64>,
    last_seq: i64,
}

/// A turn that has not ended, and the input that it was to begin with if it was queued: `run, id, fence, head, accepted, input`
#[derive(Debug, sqlx::FromRow)]
struct OpenRow {
    run: i64,
    id: String,
    fence: i64,
    head: i64,
    accepted: i64,
    input: Option<String>,
}

impl OpenRow {
    fn id(&self) -> Result<RunId, sqlx::Error> {
        RunId::parse(&self.id).map_err(|e| sqlx::Error::Decode(format!("run {}: {e}", self.run).into()))
    }

    fn ends(&self, asked: &Erase, untaken: &[&str]) -> Commit {
        let mut reason = format!("its thread {} was deleted", asked.id);
        if !untaken.is_empty() {
            reason = format!("{reason}; with it went what it had not taken: {}", untaken.join(", "));
        }
        let mut lines = Lines::default();
        lines.push(asked.at, &RunTerminated { reason, by: asked.by.clone() }.into());
        let leaves = Leaves::Closed(Closed::Terminated);
        Commit {
            lines,
            signals_seen: self.accepted,
            ..Commit::new(RunKey(self.run), Fence(self.fence), Seq(self.head), leaves, asked.at)
        }
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::SqliteConnection;

    use super::{Erase, FoundRow, INPUT, Left, Namespace, OpenRow, Payload, RunKey, ThreadId, ThreadKey};
    use crate::store::json::Json;

    pub(super) async fn found(
        tx: &mut SqliteConnection,
        namespace: &Namespace,
        id: &ThreadId,
    ) -> Result<Option<FoundRow>, sqlx::Error> {
        sqlx::query_as("select key, resource, run, last_seq from threads where namespace = $1 and id = $2")
            .bind(namespace.as_str())
            .bind(id.as_str())
            .fetch_optional(tx)
            .await
    }

    pub(super) async fn open_turns(tx: &mut SqliteConnection, thread: ThreadKey) -> Result<Vec<OpenRow>, sqlx::Error> {
        sqlx::query_as(
            "select r.key as run, r.id, r.fence, r.head, r.signals_accepted as accepted, o.input
             from (
                 select run, null as input, 0 as place from threads where key = $1 and run is not null
                 union all
                 select run, nullif(input, ''), place from queue where thread = $1 and kind = 'turn'
             ) o
             cross join runs r on r.key = o.run
             where r.closed_at is null
             order by o.input is not null, o.place",
        )
        .bind(thread.0)
        .fetch_all(tx)
        .await
    }

    pub(super) async fn untaken(tx: &mut SqliteConnection, runs: &[RunKey]) -> Result<Vec<(i64, String)>, sqlx::Error> {
        let mut json = Json::default();
        for run in runs {
            json.row().int(run.0);
        }
        sqlx::query_as(
            "select s.run, s.id
             from json_each($1) r
             cross join signals s on s.run = r.value ->> 0
             where s.taken = 0 and s.kind = 'signal' and s.name = $2
             order by r.key, s.ordinal",
        )
        .bind(json.done())
        .bind(INPUT)
        .fetch_all(tx)
        .await
    }

    pub(super) async fn last_chunk(tx: &mut SqliteConnection, thread: ThreadKey) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("select coalesce(max(place), 0) from streams where run = $1 and stream = 'chunks'")
            .bind(thread.0)
            .fetch_one(tx)
            .await
    }

    pub(super) async fn remove(tx: &mut SqliteConnection, thread: ThreadKey, asked: &Erase) -> Result<(), sqlx::Error> {
        sqlx::query(
            "delete from streams where run = $1;
             delete from streams where run = (select key from deleted_threads where namespace = $2 and id = $3);
             delete from messages where thread = $1;
             delete from inputs where thread = $1;
             delete from lanes where thread = $1;
             delete from queue where thread = $1;
             delete from calls where thread = $1;
             delete from threads where key = $1",
        )
        .bind(thread.0)
        .bind(asked.namespace.as_str())
        .bind(asked.id.as_str())
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn leave(
        tx: &mut SqliteConnection,
        asked: &Erase,
        left: Left,
        told: &[Payload],
    ) -> Result<(), sqlx::Error> {
        let mut json = Json::default();
        for chunk in told {
            json.row().text(chunk.as_str());
        }
        sqlx::query(
            "insert into streams (run, stream, place, part, at, value)
             select $1, 'chunks', $2 + c.key + 1 - json_array_length($3), 'deleted', $4, cast(c.value ->> 0 as blob)
             from json_each($3) c;

             insert into deleted_threads (namespace, id, key, last_seq, last_chunk, chunk, deleted_at)
             select $5, $6, $1, $7, s.place, s.value, $4
             from streams s
             where s.run = $1 and s.stream = 'chunks' and s.place = $2
             on conflict (namespace, id) do update
             set key = excluded.key, last_seq = excluded.last_seq, last_chunk = excluded.last_chunk,
                 chunk = excluded.chunk, deleted_at = excluded.deleted_at",
        )
        .bind(left.thread.0)
        .bind(left.last_chunk)
        .bind(json.done())
        .bind(asked.at.0)
        .bind(asked.namespace.as_str())
        .bind(asked.id.as_str())
        .bind(left.last_seq)
        .execute(tx)
        .await
        .map(drop)
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::PgConnection;

    use super::{Erase, FoundRow, INPUT, Left, Namespace, OpenRow, Payload, RunKey, ThreadId, ThreadKey};

    pub(super) async fn found(
        tx: &mut PgConnection,
        namespace: &Namespace,
        id: &ThreadId,
    ) -> Result<Option<FoundRow>, sqlx::Error> {
        sqlx::query_as(
            "select key, resource, run, last_seq
             from threads
             where namespace = $1
               and id = $2
             for update",
        )
        .bind(namespace.as_str())
        .bind(id.as_str())
        .fetch_optional(tx)
        .await
    }

    pub(super) async fn open_turns(tx: &mut PgConnection, thread: ThreadKey) -> Result<Vec<OpenRow>, sqlx::Error> {
        // The thread is locked; its runs are locked by key, as everybody does.
        sqlx::query(
            "select 1
             from runs
             where key = any (array(
                 select run from threads where key = $1 and run is not null
                 union all
                 select run from queue where thread = $1 and kind = 'turn'))
             order by key
             for no key update",
        )
        .bind(thread.0)
        .execute(&mut *tx)
        .await?;
        sqlx::query_as(
            "select o.run, (select r.id from runs r where r.key = o.run) as id,
                    (select r.fence from runs r where r.key = o.run) as fence,
                    (select r.head from runs r where r.key = o.run) as head,
                    (select r.signals_accepted from runs r where r.key = o.run) as accepted, o.input
             from (
               select run, null::text as input, 0 as place from threads where key = $1 and run is not null
               union all
               select run, nullif(input, ''), place from queue where thread = $1 and kind = 'turn'
             ) o
             where (select r.closed_at is null from runs r where r.key = o.run)
             order by o.input is not null, o.place",
        )
        .bind(thread.0)
        .fetch_all(tx)
        .await
    }

    pub(super) async fn untaken(tx: &mut PgConnection, runs: &[RunKey]) -> Result<Vec<(i64, String)>, sqlx::Error> {
        let runs: Vec<i64> = runs.iter().map(|run| run.0).collect();
        sqlx::query_as(
            "select run, id
             from signals
             where run = any ($1::bigint[])
               and taken = 0
               and kind = 'signal'
               and name = $2
             order by array_position($1::bigint[], run), ordinal",
        )
        .bind(&runs)
        .bind(INPUT)
        .fetch_all(tx)
        .await
    }

    pub(super) async fn last_chunk(tx: &mut PgConnection, thread: ThreadKey) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("select coalesce(max(place), 0) from streams where run = $1 and stream = 'chunks'")
            .bind(thread.0)
            .fetch_one(tx)
            .await
    }

    pub(super) async fn remove(tx: &mut PgConnection, thread: ThreadKey, asked: &Erase) -> Result<(), sqlx::Error> {
        let before: Option<i64> =
            sqlx::query_scalar("select key from deleted_threads where namespace = $1 and id = $2")
                .bind(asked.namespace.as_str())
                .bind(asked.id.as_str())
                .fetch_optional(&mut *tx)
                .await?;
        let streams: Vec<i64> = [Some(thread.0), before].into_iter().flatten().collect();
        sqlx::query(
            "with shown as (delete from streams where run = any ($2)),
                  history as (delete from messages where thread = $1),
                  accepted as (delete from inputs where thread = $1),
                  tracked as (delete from lanes where thread = $1),
                  queued as (delete from queue where thread = $1),
                  called as (delete from calls where thread = $1)
             delete from threads
             where key = $1",
        )
        .bind(thread.0)
        .bind(&streams)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn leave(
        tx: &mut PgConnection,
        asked: &Erase,
        left: Left,
        told: &[Payload],
    ) -> Result<(), sqlx::Error> {
        let chunks: Vec<&[u8]> = told.iter().map(|chunk| chunk.as_str().as_bytes()).collect();
        sqlx::query(
            "with told as (
               insert into streams (run, stream, place, part, at, value)
               select $1::bigint, 'chunks', $2::bigint + c.nth - cardinality($3::bytea[]), 'deleted', $4::bigint, c.value
               from unnest($3::bytea[]) with ordinality as c (value, nth)
             )
             insert into deleted_threads (namespace, id, key, last_seq, last_chunk, chunk, deleted_at)
             values ($5, $6, $1::bigint, $7, $2::bigint, ($3::bytea[])[cardinality($3::bytea[])], $4::bigint)
             on conflict (namespace, id) do update
             set key = excluded.key,
                 last_seq = excluded.last_seq,
                 last_chunk = excluded.last_chunk,
                 chunk = excluded.chunk,
                 deleted_at = excluded.deleted_at",
        )
        .bind(left.thread.0)
        .bind(left.last_chunk)
        .bind(&chunks)
        .bind(asked.at.0)
        .bind(asked.namespace.as_str())
        .bind(asked.id.as_str())
        .bind(left.last_seq)
        .execute(tx)
        .await
        .map(drop)
    }
}

//! Retention of what subscribers see (T11.10): chunks leave by age and by number, from the beginning of a thread's stream, so
//! that what is kept has no gap. The chunks of the run that has a thread stay (T11.3), and so does the last one of every
//! thread, after which it goes on counting.

use std::sync::Arc;

use super::Error;
use super::open::{Inner, Store};
use super::start::CallerTx;
use super::writer;
use crate::clock::Instant;
use crate::id::ThreadKey;

/// Which chunks may leave, and where to look for them now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retain {
    /// Only threads after this one are looked at.
    pub after: ThreadKey,
    /// How many threads are looked at.
    pub threads: usize,
    /// How many chunks leave at the most.
    pub chunks: usize,
    /// Chunks from before this time leave.
    pub before: Instant,
    /// All but so many of a thread's last chunks leave, however young they are.
    pub keep: u64,
}

/// What a look has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retained {
    /// How many chunks have left.
    pub chunks: u64,
    /// After which thread the next look begins; the first of all once all were looked at.
    pub next: ThreadKey,
}

/// The chunks of a thread that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The cursor of the first one.
    pub first: i64,
    /// The cursor of the last one.
    pub last: i64,
}

impl Store {
    /// Looks at some threads, and takes from them the chunks that are not kept any longer. It writes only if there are such.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn retain_chunks(&self, asked: Retain) -> Result<Retained, Error> {
        self.readable().await?;
        let unavailable = |e| Error::unavailable("look for old chunks", e);
        let looked: Vec<LookedRow> = twins!(Inner: &self.0.inner, look(asked)).map_err(unavailable)?;
        let dead: Vec<i64> = twins!(Inner: &self.0.inner, dead(asked)).map_err(unavailable)?;
        let next = match looked.last() {
            Some(last) if looked.len() >= asked.threads => ThreadKey(last.thread),
            _ => ThreadKey(0),
        };
        let stale: Vec<i64> = looked.iter().filter(|row| row.stale).map(|row| row.thread).collect();
        if stale.is_empty() && dead.is_empty() {
            return Ok(Retained { chunks: 0, next });
        }
        let found = Arc::new((stale, dead));
        let chunks = self
            .alone("take away old chunks", move |tx, _| {
                let found = Arc::clone(&found);
                Box::pin(async move { take(tx, asked, &found.0, &found.1).await })
            })
            .await?;
        // More may be left of these: they are looked at again.
        let next = if chunks >= asked.chunks as u64 { asked.after } else { next };
        Ok(Retained { chunks, next })
    }

    /// Which chunks of a thread are kept; none if there are none.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn kept_chunks(&self, thread: ThreadKey) -> Result<Option<Kept>, Error> {
        self.readable().await?;
        let ends: Option<(i64, i64)> =
            twins!(Inner: &self.0.inner, ends(thread)).map_err(|e| Error::unavailable("look at a stream's ends", e))?;
        Ok(ends.map(|(first, last)| Kept { first, last }))
    }
}

async fn take(mut tx: CallerTx<'_>, asked: Retain, stale: &[i64], dead: &[i64]) -> Result<u64, sqlx::Error> {
    writer::begin(tx.again()).await?;
    let taken: u64 = twins!(CallerTx: tx.again(), take(asked, stale))?;
    if !dead.is_empty() {
        twins!(CallerTx: tx.again(), bury(dead))?;
    }
    writer::end(tx).await?;
    Ok(taken)
}

/// A thread that was looked at: `thread, stale`
#[derive(Debug, sqlx::FromRow)]
struct LookedRow {
    thread: i64,
    /// Whether chunks of it may leave.
    stale: bool,
}

/// How many deleted threads are looked at.
const DEAD_MAX: i64 = 100;

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::SqliteConnection;

    use super::super::open::sqlite::Reads;
    use super::{DEAD_MAX, LookedRow, Retain, ThreadKey};
    use crate::store::json::Json;

    fn keys(of: &[i64]) -> Option<String> {
        let mut json = Json::default();
        for key in of {
            json.row().int(*key);
        }
        json.done()
    }

    pub(super) async fn look(reads: &Reads, asked: Retain) -> Result<Vec<LookedRow>, sqlx::Error> {
        sqlx::query_as(
            "select t.key as thread,
                    coalesce(f.place < l.place and (f.at < $3 or l.place - f.place >= $4), 0)
                        and (r.id is null or instr(cast(f.value as text), '\"runId\":\"' || r.id || '\"') = 0) as stale
             from (select key, run from threads where key > $1 order by key limit $2) t
             left join runs r on r.key = t.run
             left join streams f on f.run = t.key and f.stream = 'chunks' and f.place = (
                 select min(place) from streams where run = t.key and stream = 'chunks')
             left join streams l on l.run = t.key and l.stream = 'chunks' and l.place = (
                 select max(place) from streams where run = t.key and stream = 'chunks')
             order by t.key",
        )
        .bind(asked.after.0)
        .bind(asked.threads as i64)
        .bind(asked.before.0)
        .bind(i64::try_from(asked.keep).unwrap_or(i64::MAX))
        .fetch_all(&reads.pool)
        .await
    }

    pub(super) async fn dead(reads: &Reads, asked: Retain) -> Result<Vec<i64>, sqlx::Error> {
        sqlx::query_scalar("select key from deleted_threads where key is not null and deleted_at < $1 limit $2")
            .bind(asked.before.0)
            .bind(DEAD_MAX)
            .fetch_all(&reads.pool)
            .await
    }

    pub(super) async fn ends(reads: &Reads, thread: ThreadKey) -> Result<Option<(i64, i64)>, sqlx::Error> {
        let ends: (Option<i64>, Option<i64>) = sqlx::query_as(
            "select (select min(place) from streams where run = $1 and stream = 'chunks'),
                    (select max(place) from streams where run = $1 and stream = 'chunks')",
        )
        .bind(thread.0)
        .fetch_one(&reads.pool)
        .await?;
        Ok(ends.0.zip(ends.1))
    }

    /// What is cut off is found within so many chunks of each beginning as may leave at once.
    pub(super) async fn take(tx: &mut SqliteConnection, asked: Retain, stale: &[i64]) -> Result<u64, sqlx::Error> {
        sqlx::query(
            "with ends as materialized (
                 select t.key, r.id as run,
                        (select min(place) from streams where run = t.key and stream = 'chunks') as first,
                        (select max(place) from streams where run = t.key and stream = 'chunks') as last
                 from json_each($1) k
                 cross join threads t on t.key = k.value ->> 0
                 left join runs r on r.key = t.run
             ),
             old as materialized (
                 select key, run, first,
                        min(last, first + $4, max(last - $3 + 1, coalesce((
                            select s.place
                            from streams s
                            where s.run = ends.key and s.stream = 'chunks' and s.place < first + $4 and s.at >= $2
                            order by s.place
                            limit 1), first + $4))) as until
                 from ends
             ),
             cut as materialized (
                 select key,
                        min(until, coalesce((
                            select s.place
                            from streams s
                            where s.run = old.key and s.stream = 'chunks' and s.place < until
                              and instr(cast(s.value as text), '\"runId\":\"' || old.run || '\"') > 0
                            order by s.place
                            limit 1), until)) as until
                 from old
             )
             delete from streams
             where rowid in (
                 select s.rowid
                 from cut
                 cross join streams s on s.run = cut.key and s.stream = 'chunks' and s.place < cut.until
                 order by cut.key, s.place
                 limit $4)",
        )
        .bind(keys(stale))
        .bind(asked.before.0)
        .bind(i64::try_from(asked.keep).unwrap_or(i64::MAX))
        .bind(asked.chunks as i64)
        .execute(tx)
        .await
        .map(|done| done.rows_affected())
    }

    pub(super) async fn bury(tx: &mut SqliteConnection, dead: &[i64]) -> Result<(), sqlx::Error> {
        sqlx::query(
            "delete from streams where run in (select value ->> 0 from json_each($1));
             update deleted_threads set key = null where key in (select value ->> 0 from json_each($1))",
        )
        .bind(keys(dead))
        .execute(tx)
        .await
        .map(drop)
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::PgConnection;

    use super::super::open::postgres::Reads;
    use super::{DEAD_MAX, LookedRow, Retain, ThreadKey};

    pub(super) async fn look(reads: &Reads, asked: Retain) -> Result<Vec<LookedRow>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select t.key as thread,
                            coalesce(f.place < l.place and (f.at < $3 or l.place - f.place >= $4), false)
                              and (r.id is null
                                   or position(convert_to('\"runId\":\"' || r.id || '\"', 'UTF8') in f.value) = 0)
                              as stale
                     from (select key, run from threads where key > $1 order by key limit $2) t
                     left join runs r on r.key = t.run
                     left join lateral (
                       select place, at, value
                       from streams
                       where run = t.key
                         and stream = 'chunks'
                       order by place
                       limit 1
                     ) f on true
                     left join lateral (
                       select place
                       from streams
                       where run = t.key
                         and stream = 'chunks'
                       order by place desc
                       limit 1
                     ) l on true
                     order by t.key",
                )
                .bind(asked.after.0)
                .bind(asked.threads as i64)
                .bind(asked.before.0)
                .bind(i64::try_from(asked.keep).unwrap_or(i64::MAX))
                .fetch_all(&mut *connection)
                .await
            })
            .await
    }

    pub(super) async fn dead(reads: &Reads, asked: Retain) -> Result<Vec<i64>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_scalar(
                    "select key
                     from deleted_threads
                     where key is not null
                       and deleted_at < $1
                     limit $2",
                )
                .bind(asked.before.0)
                .bind(DEAD_MAX)
                .fetch_all(&mut *connection)
                .await
            })
            .await
    }

    pub(super) async fn ends(reads: &Reads, thread: ThreadKey) -> Result<Option<(i64, i64)>, sqlx::Error> {
        let ends: (Option<i64>, Option<i64>) = reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select (select min(place) from streams where run = $1 and stream = 'chunks'),
                            (select max(place) from streams where run = $1 and stream = 'chunks')",
                )
                .bind(thread.0)
                .fetch_one(&mut *connection)
                .await
            })
            .await?;
        Ok(ends.0.zip(ends.1))
    }

    /// What is cut off is found within so many chunks of each beginning as may leave at once.
    pub(super) async fn take(tx: &mut PgConnection, asked: Retain, stale: &[i64]) -> Result<u64, sqlx::Error> {
        sqlx::query(
            "with ends as materialized (
               select t.key, (select r.id from runs r where r.key = t.run) as run,
                      (select min(place) from streams where run = t.key and stream = 'chunks') as first,
                      (select max(place) from streams where run = t.key and stream = 'chunks') as last
               from threads t
               where t.key = any ($1)
             ),
             old as materialized (
               select key, run, first,
                      least(last, first + $4, greatest(last - $3 + 1, coalesce((
                        select s.place
                        from streams s
                        where s.run = ends.key
                          and s.stream = 'chunks'
                          and s.place < first + $4
                          and s.at >= $2
                        order by s.place
                        limit 1), first + $4))) as until
               from ends
             ),
             cut as materialized (
               select key,
                      least(until, (
                        select s.place
                        from streams s
                        where s.run = old.key
                          and s.stream = 'chunks'
                          and s.place < until
                          and position(convert_to('\"runId\":\"' || old.run || '\"', 'UTF8') in s.value) > 0
                        order by s.place
                        limit 1)) as until
               from old
             )
             delete from streams
             where ctid = any (array(
                 select s.ctid
                 from cut
                 cross join lateral (
                   select o.ctid, o.place
                   from streams o
                   where o.run = cut.key
                     and o.stream = 'chunks'
                     and o.place < cut.until
                   order by o.place
                   limit $4
                 ) s
                 order by cut.key, s.place
                 limit $4))",
        )
        .bind(stale)
        .bind(asked.before.0)
        .bind(i64::try_from(asked.keep).unwrap_or(i64::MAX))
        .bind(asked.chunks as i64)
        .execute(tx)
        .await
        .map(|done| done.rows_affected())
    }

    pub(super) async fn bury(tx: &mut PgConnection, dead: &[i64]) -> Result<(), sqlx::Error> {
        sqlx::query(
            "with shown as (delete from streams where run = any ($1))
             update deleted_threads
             set key = null
             where key = any ($1)",
        )
        .bind(dead)
        .execute(tx)
        .await
        .map(drop)
    }
}

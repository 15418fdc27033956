//! Streams: values that bodies write for watchers. Lazily grouped writes, not logical commits.

use super::Error;
use super::contract::{Chunk, Read};
use super::open::{Inner, Store};
use super::read::payload_of;
use super::writer::Append;
use crate::clock::Instant;
use crate::id::{RunKey, ThreadKey};
use crate::payload::Payload;
use crate::thread::CHUNKS;

impl Store {
    /// Appends values to streams of a run. They are durable once this returns and keep their order; values of other runs
    /// and commits may share the transaction.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn append(&self, run: RunKey, chunks: Vec<Chunk>, at: Instant) -> Result<(), Error> {
        self.0.shared.open()?;
        if chunks.is_empty() {
            return Ok(());
        }
        let token = i64::from_ne_bytes(uuid::Uuid::new_v4().as_u64_pair().0.to_ne_bytes());
        let answer = self.send_append(Append { run, chunks, at, token: Some(token), doubtful: false }).await?;
        self.heard(answer).await
    }

    /// Shows chunks to the subscribers of a thread, outside any commit. They are durable once this returns.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn show(&self, thread: ThreadKey, part: &str, chunks: Vec<Payload>, at: Instant) -> Result<(), Error> {
        let chunk = |value| Chunk { stream: CHUNKS.to_owned(), part: part.to_owned(), value };
        self.append(RunKey(thread.0), chunks.into_iter().map(chunk).collect(), at).await
    }

    /// What subscribers of a thread see, from the chunk after place `after` on.
    ///
    /// # Errors
    /// As [`Store::read_stream`].
    pub async fn chunks(&self, thread: ThreadKey, after: i64, limit: usize) -> Result<Vec<Read>, Error> {
        self.read_stream(RunKey(thread.0), CHUNKS, after, limit).await
    }

    /// The last chunks that subscribers of a thread see, in order.
    ///
    /// # Errors
    /// As [`Store::read_stream`].
    pub async fn last_chunks(&self, thread: ThreadKey, limit: usize) -> Result<Vec<Read>, Error> {
        self.readable().await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<ReadRow> = twins!(Inner: &self.0.inner, read_end(RunKey(thread.0), CHUNKS, limit))
            .map_err(|e| Error::unavailable("read the end of a stream", e))?;
        rows.into_iter().rev().map(Read::try_from).collect()
    }

    /// Values of a stream, in order, from the one after place `after` on; `0` reads from the beginning.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`]; [`Error::Corrupt`] for a value that is no JSON.
    pub async fn read_stream(&self, run: RunKey, stream: &str, after: i64, limit: usize) -> Result<Vec<Read>, Error> {
        self.readable().await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = twins!(Inner: &self.0.inner, read_stream(run, stream, after, limit))
            .map_err(|e| Error::unavailable("read a stream", e))?;
        rows.into_iter().map(Read::try_from).collect()
    }
}

/// A stream's value as stored: `place, part, at, value`.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct ReadRow {
    place: i64,
    part: String,
    at: i64,
    value: Vec<u8>,
}

impl TryFrom<ReadRow> for Read {
    type Error = Error;

    fn try_from(row: ReadRow) -> Result<Self, Error> {
        Ok(Self { offset: row.place, part: row.part, at: Instant(row.at), value: payload_of(row.value)? })
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::super::open::sqlite::Reads;
    use super::{ReadRow, RunKey};

    /// The last first.
    pub(super) async fn read_end(
        reads: &Reads,
        run: RunKey,
        stream: &str,
        limit: i64,
    ) -> Result<Vec<ReadRow>, sqlx::Error> {
        sqlx::query_as(
            "select place, part, at, value
             from streams
             where run = $1 and stream = $2
             order by place desc
             limit $3",
        )
        .bind(run.0)
        .bind(stream)
        .bind(limit)
        .fetch_all(&reads.pool)
        .await
    }

    pub(super) async fn read_stream(
        reads: &Reads,
        run: RunKey,
        stream: &str,
        after: i64,
        limit: i64,
    ) -> Result<Vec<ReadRow>, sqlx::Error> {
        sqlx::query_as(
            "select place, part, at, value
             from streams
             where run = $1 and stream = $2 and place > $3
             order by place
             limit $4",
        )
        .bind(run.0)
        .bind(stream)
        .bind(after)
        .bind(limit)
        .fetch_all(&reads.pool)
        .await
    }
}

#[cfg(feature = "postgres")]
pub(super) mod postgres {
    use std::collections::HashMap;

    use sqlx::PgConnection;

    use super::super::open::postgres::Reads;
    use super::{Append, Chunk, ReadRow, RunKey};

    /// Adds values at the ends of their streams. Two writers that append to one stream at the same time meet in its index;
    /// the later one's statement fails and is sent again.
    pub(in super::super) async fn append(tx: &mut PgConnection, appends: &[Append]) -> Result<(), sqlx::Error> {
        let landed = landed(tx, appends).await?;
        let mut streams: Vec<Stream<'_>> = Vec::new();
        let mut places: HashMap<(RunKey, &str), usize> = HashMap::new();
        for append in appends.iter().filter(|it| !it.token.is_some_and(|token| landed.contains(&token))) {
            for chunk in &append.chunks {
                let i = *places.entry((append.run, &chunk.stream)).or_insert_with(|| {
                    streams.push(Stream { run: append.run, name: &chunk.stream, values: Vec::new() });
                    streams.len() - 1
                });
                streams[i].values.push((chunk, append));
            }
        }
        if streams.is_empty() { Ok(()) } else { insert(tx, &streams).await }
    }

    /// The values of a batch for one stream.
    struct Stream<'a> {
        run: RunKey,
        name: &'a str,
        values: Vec<(&'a Chunk, &'a Append)>,
    }

    /// The tokens of those that an earlier try has added, of those that may have been.
    async fn landed(tx: &mut PgConnection, appends: &[Append]) -> Result<Vec<i64>, sqlx::Error> {
        let (runs, tokens): (Vec<i64>, Vec<i64>) =
            appends.iter().filter(|it| it.doubtful).filter_map(|it| Some((it.run.0, it.token?))).unzip();
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        sqlx::query_scalar(
            "select distinct token
             from streams
             where run = any ($1)
               and token = any ($2)",
        )
        .bind(&runs)
        .bind(&tokens)
        .fetch_all(tx)
        .await
    }

    async fn insert(tx: &mut PgConnection, streams: &[Stream<'_>]) -> Result<(), sqlx::Error> {
        let (mut runs, mut names, mut nths, mut parts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut ats, mut values, mut tokens): (Vec<i64>, Vec<&[u8]>, Vec<Option<i64>>) = <_>::default();
        for stream in streams {
            for ((chunk, append), nth) in stream.values.iter().zip(1_i64..) {
                runs.push(stream.run.0);
                names.push(stream.name);
                nths.push(nth);
                parts.push(chunk.part.as_str());
                ats.push(append.at.0);
                values.push(chunk.value.as_str().as_bytes());
                tokens.push(append.token);
            }
        }
        sqlx::query(
            "insert into streams (run, stream, place, part, at, value, token)
             select s.run, s.stream,
                    s.nth + coalesce((
                      select o.place
                      from streams o
                      where o.run = s.run
                        and o.stream = s.stream
                      order by o.place desc
                      limit 1), 0),
                    s.part, s.at, s.value, s.token
             from unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bytea[], $7::bigint[])
               as s (run, stream, nth, part, at, value, token)",
        )
        .bind(&runs)
        .bind(&names)
        .bind(&nths)
        .bind(&parts)
        .bind(&ats)
        .bind(&values)
        .bind(&tokens)
        .execute(tx)
        .await
        .map(drop)
    }

    /// The last first.
    pub(super) async fn read_end(
        reads: &Reads,
        run: RunKey,
        stream: &str,
        limit: i64,
    ) -> Result<Vec<ReadRow>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select place, part, at, value
                     from streams
                     where run = $1
                       and stream = $2
                     order by place desc
                     limit $3",
                )
                .bind(run.0)
                .bind(stream)
                .bind(limit)
                .fetch_all(&mut *connection)
                .await
            })
            .await
    }

    pub(super) async fn read_stream(
        reads: &Reads,
        run: RunKey,
        stream: &str,
        after: i64,
        limit: i64,
    ) -> Result<Vec<ReadRow>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select place, part, at, value
                         from streams
                         where run = $1
                           and stream = $2
                           and place > $3
                         order by place
                         limit $4",
                )
                .bind(run.0)
                .bind(stream)
                .bind(after)
                .bind(limit)
                .fetch_all(&mut *connection)
                .await
            })
            .await
    }
}

//! Streams: values that bodies write for watchers. Lazily grouped writes, not logical commits.

use super::Error;
use super::contract::{Chunk, Read};
use super::open::{Inner, Store};
use super::read::payload_of;
use super::writer::Append;
use crate::clock::Instant;
use crate::id::RunKey;

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
        let answer = self.send_append(Append { run, chunks, at, doubtful: false }).await?;
        self.heard(answer).await
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
mod postgres {
    use super::super::open::postgres::Reads;
    use super::{ReadRow, RunKey};

    pub(super) async fn read_stream(
        _reads: &Reads,
        _run: RunKey,
        _stream: &str,
        _after: i64,
        _limit: i64,
    ) -> Result<Vec<ReadRow>, sqlx::Error> {
        todo!()
    }
}

//! Reads that change nothing: a run, lists, counts, what a run has published, answered and ended with.

use super::Error;
use super::contract::Filter;
use super::open::{Inner, Store};
use crate::clock::Instant;
use crate::id::{Fence, Namespace, RunId, RunKey, Seq, ThreadKey, WorkerKey};
use crate::journal::{Event, Recorded};
use crate::payload::Payload;
use crate::run::{BlockReason, Closed, Run, Status};

impl Store {
    /// The latest run with an id.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`]; [`Error::Corrupt`] for a row that contradicts itself.
    pub async fn find(&self, namespace: &Namespace, id: &RunId) -> Result<Option<Run>, Error> {
        self.readable().await?;
        twins!(Inner: &self.0.inner, find(namespace, id)).map_err(|e| Error::unavailable("find a run", e))
    }

    /// A run by its key.
    ///
    /// # Errors
    /// As [`Store::find`].
    pub async fn get(&self, run: RunKey) -> Result<Option<Run>, Error> {
        self.readable().await?;
        twins!(Inner: &self.0.inner, get(run)).map_err(|e| Error::unavailable("read a run", e))
    }

    /// Runs, newest first.
    ///
    /// # Errors
    /// As [`Store::find`].
    pub async fn list(&self, filter: &Filter, limit: usize) -> Result<Vec<Run>, Error> {
        self.readable().await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        twins!(Inner: &self.0.inner, list(filter, limit)).map_err(|e| Error::unavailable("list runs", e))
    }

    /// How many runs of each workflow stand how: workflow, status word, number; sorted by both words.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn counts(&self, namespace: Option<&Namespace>) -> Result<Vec<(String, String, i64)>, Error> {
        self.readable().await?;
        twins!(Inner: &self.0.inner, counts(namespace)).map_err(|e| Error::unavailable("count runs", e))
    }

    /// The latest value that a run published under a name.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`]; [`Error::Corrupt`] if the stored value is no JSON.
    pub async fn published(&self, run: RunKey, name: &str) -> Result<Option<Payload>, Error> {
        self.readable().await?;
        let found = twins!(Inner: &self.0.inner, published(run, name));
        found.map_err(|e| Error::unavailable("read a published value", e))?.map(payload_of).transpose()
    }

    /// A run's answer to the update with this id.
    ///
    /// # Errors
    /// As [`Store::published`].
    pub async fn reply(&self, run: RunKey, id: &str) -> Result<Option<Payload>, Error> {
        self.readable().await?;
        let found = twins!(Inner: &self.0.inner, reply(run, id));
        found.map_err(|e| Error::unavailable("read a reply", e))?.map(payload_of).transpose()
    }

    /// The last line of a closed run; none if it is open.
    ///
    /// # Errors
    /// As [`Store::published`]; [`Error::Corrupt`] for a closed run without a last line, or one that cannot be read.
    pub async fn outcome(&self, run: RunKey) -> Result<Option<Recorded>, Error> {
        self.readable().await?;
        let last =
            twins!(Inner: &self.0.inner, last_line(run)).map_err(|e| Error::unavailable("read an outcome", e))?;
        last.map(|line| line.decode().map_err(|e| Error::Corrupt { found: format!("the end of run {run}: {e}") }))
            .transpose()
    }

    /// Refuses a closed store; keeps silent after a scripted crash.
    pub(super) async fn readable(&self) -> Result<(), Error> {
        self.0.shared.alive().await;
        self.0.shared.open()
    }
}

/// The columns of a run's row, as every statement that reads one names them.
///
/// `key, namespace, id, workflow, version, status, wake_at, worker, fence, head, signals_accepted, signals_pending,
/// block_code, block_text, closed_at, created_at, updated_at, thread`
#[derive(Debug, sqlx::FromRow)]
pub(super) struct RunRow {
    pub(super) key: i64,
    namespace: String,
    id: String,
    workflow: String,
    version: i64,
    status: String,
    /// Of a running one: when it was due, until its owner's first commit.
    pub(super) wake_at: Option<i64>,
    worker: Option<i64>,
    fence: i64,
    head: i64,
    signals_accepted: i64,
    signals_pending: i64,
    block_code: Option<String>,
    block_text: Option<String>,
    closed_at: Option<i64>,
    created_at: i64,
    updated_at: i64,
    thread: Option<i64>,
}

impl TryFrom<RunRow> for Run {
    type Error = sqlx::Error;

    /// A row that contradicts itself becomes [`Error::Corrupt`] on its way out.
    fn try_from(row: RunRow) -> Result<Self, sqlx::Error> {
        let status = status_of(&row)?;
        let corrupt = |found: String| sqlx::Error::Decode(format!("run {}: {found}", row.key).into());
        Ok(Self {
            key: RunKey(row.key),
            namespace: Namespace::parse(&row.namespace).map_err(|e| corrupt(e.to_string()))?,
            id: RunId::parse(&row.id).map_err(|e| corrupt(e.to_string()))?,
            version: u32::try_from(row.version).map_err(|_| corrupt(format!("version {}", row.version)))?,
            workflow: row.workflow,
            thread: row.thread.map(ThreadKey),
            status,
            fence: Fence(row.fence),
            head: Seq(row.head),
            signals_accepted: row.signals_accepted,
            signals_pending: row.signals_pending,
            created_at: Instant(row.created_at),
            updated_at: Instant(row.updated_at),
        })
    }
}

fn status_of(row: &RunRow) -> Result<Status, sqlx::Error> {
    let wake_at = row.wake_at.map(Instant);
    let status = match (row.status.as_str(), wake_at, row.worker, &row.block_code, row.closed_at) {
        ("due", Some(at), None, ..) => Some(Status::Due { at }),
        ("running", _, Some(worker), ..) => Some(Status::Running { worker: WorkerKey(worker) }),
        ("waiting", wake_at, None, ..) => Some(Status::Waiting { wake_at }),
        ("blocked", _, None, Some(code), _) => {
            block_reason(code, row.block_text.clone().unwrap_or_default()).map(|reason| Status::Blocked { reason })
        }
        (word, _, None, _, Some(at)) => Closed::from_word(word).map(|how| Status::Closed { how, at: Instant(at) }),
        _ => None,
    };
    status.ok_or_else(|| {
        sqlx::Error::Decode(
            format!(
                "run {}: status {:?} with wake_at {:?}, worker {:?}, block {:?}, closed_at {:?}",
                row.key, row.status, row.wake_at, row.worker, row.block_code, row.closed_at
            )
            .into(),
        )
    })
}

fn block_reason(code: &str, text: String) -> Option<BlockReason> {
    Some(match code {
        "mismatch" => BlockReason::Mismatch(text),
        "unregistered" => BlockReason::Unregistered(text),
        "panicked" => BlockReason::Panicked(text),
        "undecodable" => BlockReason::Undecodable(text),
        "too_large" => BlockReason::TooLarge(text),
        "foreign_wait" => BlockReason::ForeignWait(text),
        "corrupt" => BlockReason::Corrupt(text),
        _ => return None,
    })
}

/// A stored JSON value.
pub(super) fn payload_of(stored: Vec<u8>) -> Result<Payload, Error> {
    let corrupt = |problem: String| Error::Corrupt { found: format!("a stored value that is no JSON: {problem}") };
    let text = String::from_utf8(stored).map_err(|e| corrupt(e.to_string()))?;
    Payload::parse(&text).map_err(|e| corrupt(e.to_string()))
}

/// A journal line as stored.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct LineRow {
    pub(super) seq: i64,
    pub(super) kind: String,
    pub(super) version: i64,
    pub(super) at: i64,
    pub(super) payload: Vec<u8>,
}

impl LineRow {
    pub(super) fn decode(&self) -> Result<Recorded, crate::journal::Undecipherable> {
        let seq = Seq(self.seq);
        let version = i16::try_from(self.version).unwrap_or(i16::MAX);
        let json = std::str::from_utf8(&self.payload).map_err(|e| crate::journal::Undecipherable {
            seq,
            kind: self.kind.clone(),
            version,
            problem: e.to_string(),
        })?;
        Event::decode(seq, &self.kind, version, json).map(|event| Recorded { seq, at: Instant(self.at), event })
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::super::open::sqlite::Reads;
    use super::{Filter, LineRow, Namespace, Run, RunId, RunKey, RunRow};

    pub(super) async fn find(reads: &Reads, namespace: &Namespace, id: &RunId) -> Result<Option<Run>, sqlx::Error> {
        let found: Option<RunRow> = sqlx::query_as(
            "select key, namespace, id, workflow, version, status, wake_at, worker, fence, head, signals_accepted,
                    signals_pending, block_code, block_text, closed_at, created_at, updated_at, thread
             from runs
             where namespace = $1 and id = $2 and latest = 1",
        )
        .bind(namespace.as_str())
        .bind(id.as_str())
        .fetch_optional(&reads.pool)
        .await?;
        found.map(Run::try_from).transpose()
    }

    pub(super) async fn get(reads: &Reads, run: RunKey) -> Result<Option<Run>, sqlx::Error> {
        let found: Option<RunRow> = sqlx::query_as(
            "select key, namespace, id, workflow, version, status, wake_at, worker, fence, head, signals_accepted,
                    signals_pending, block_code, block_text, closed_at, created_at, updated_at, thread
             from runs
             where key = $1",
        )
        .bind(run.0)
        .fetch_optional(&reads.pool)
        .await?;
        found.map(Run::try_from).transpose()
    }

    pub(super) async fn list(reads: &Reads, filter: &Filter, limit: i64) -> Result<Vec<Run>, sqlx::Error> {
        let statuses = serde_json::Value::from(filter.statuses.clone()).to_string();
        let listed: Vec<RunRow> = sqlx::query_as(
            "select key, namespace, id, workflow, version, status, wake_at, worker, fence, head, signals_accepted,
                    signals_pending, block_code, block_text, closed_at, created_at, updated_at, thread
             from runs
             where ($1 is null or namespace = $1)
               and ($2 is null or workflow = $2)
               and ($3 = '[]' or status in (select value from json_each($3)))
               and ($4 is null or key < $4)
             order by key desc
             limit $5",
        )
        .bind(filter.namespace.as_ref().map(Namespace::as_str))
        .bind(filter.workflow.as_deref())
        .bind(statuses)
        .bind(filter.before.map(|key| key.0))
        .bind(limit)
        .fetch_all(&reads.pool)
        .await?;
        listed.into_iter().map(Run::try_from).collect()
    }

    pub(super) async fn counts(
        reads: &Reads,
        namespace: Option<&Namespace>,
    ) -> Result<Vec<(String, String, i64)>, sqlx::Error> {
        sqlx::query_as(
            "select workflow, status, count(*)
             from runs
             where $1 is null or namespace = $1
             group by workflow, status
             order by workflow, status",
        )
        .bind(namespace.map(Namespace::as_str))
        .fetch_all(&reads.pool)
        .await
    }

    pub(super) async fn published(reads: &Reads, run: RunKey, name: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
        sqlx::query_scalar(
            "select value
             from published
             where run = $1 and name = $2",
        )
        .bind(run.0)
        .bind(name)
        .fetch_optional(&reads.pool)
        .await
    }

    pub(super) async fn reply(reads: &Reads, run: RunKey, id: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
        sqlx::query_scalar(
            "select value
             from replies
             where run = $1 and id = $2",
        )
        .bind(run.0)
        .bind(id)
        .fetch_optional(&reads.pool)
        .await
    }

    pub(super) async fn last_line(reads: &Reads, run: RunKey) -> Result<Option<LineRow>, sqlx::Error> {
        sqlx::query_as(
            "select j.seq, j.kind, j.version, j.at, j.payload
             from runs r
             join journal j on j.run = r.key and j.seq = r.head
             where r.key = $1 and r.closed_at is not null",
        )
        .bind(run.0)
        .fetch_optional(&reads.pool)
        .await
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::super::open::postgres::Reads;
    use super::{Filter, LineRow, Namespace, Run, RunId, RunKey, RunRow};

    pub(super) async fn find(reads: &Reads, namespace: &Namespace, id: &RunId) -> Result<Option<Run>, sqlx::Error> {
        let row: Option<RunRow> = reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select key, namespace, id, workflow, version, status, wake_at, worker, fence, head,
                                signals_accepted, signals_pending, block_code, block_text, closed_at, created_at,
                                updated_at, thread
                         from runs
                         where namespace = $1
                           and id = $2
                           and latest = 1",
                )
                .bind(namespace.as_str())
                .bind(id.as_str())
                .fetch_optional(&mut *connection)
                .await
            })
            .await?;
        row.map(Run::try_from).transpose()
    }

    pub(super) async fn get(reads: &Reads, run: RunKey) -> Result<Option<Run>, sqlx::Error> {
        let row: Option<RunRow> = reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select key, namespace, id, workflow, version, status, wake_at, worker, fence, head,
                                signals_accepted, signals_pending, block_code, block_text, closed_at, created_at,
                                updated_at, thread
                         from runs
                         where key = $1",
                )
                .bind(run.0)
                .fetch_optional(&mut *connection)
                .await
            })
            .await?;
        row.map(Run::try_from).transpose()
    }

    pub(super) async fn list(reads: &Reads, filter: &Filter, limit: i64) -> Result<Vec<Run>, sqlx::Error> {
        let rows: Vec<RunRow> = reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select key, namespace, id, workflow, version, status, wake_at, worker, fence, head,
                                signals_accepted, signals_pending, block_code, block_text, closed_at, created_at,
                                updated_at, thread
                         from runs
                         where ($1::text is null or namespace = $1)
                           and ($2::text is null or workflow = $2)
                           and (cardinality($3::text[]) = 0 or status = any ($3))
                           and ($4::bigint is null or key < $4)
                         order by key desc
                         limit $5",
                )
                .bind(filter.namespace.as_ref().map(Namespace::as_str))
                .bind(filter.workflow.as_deref())
                .bind(&filter.statuses)
                .bind(filter.before.map(|run| run.0))
                .bind(limit)
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        rows.into_iter().map(Run::try_from).collect()
    }

    pub(super) async fn counts(
        reads: &Reads,
        namespace: Option<&Namespace>,
    ) -> Result<Vec<(String, String, i64)>, sqlx::Error> {
        // The order of bytes, whatever language the database speaks.
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select workflow, status, count(*)
                         from runs
                         where $1::text is null or namespace = $1
                         group by workflow, status
                         order by workflow collate \"C\", status collate \"C\"",
                )
                .bind(namespace.map(Namespace::as_str))
                .fetch_all(&mut *connection)
                .await
            })
            .await
    }

    pub(super) async fn published(reads: &Reads, run: RunKey, name: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_scalar(
                    "select value
                         from published
                         where run = $1
                           and name = $2",
                )
                .bind(run.0)
                .bind(name)
                .fetch_optional(&mut *connection)
                .await
            })
            .await
    }

    pub(super) async fn reply(reads: &Reads, run: RunKey, id: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_scalar(
                    "select value
                         from replies
                         where run = $1
                           and id = $2",
                )
                .bind(run.0)
                .bind(id)
                .fetch_optional(&mut *connection)
                .await
            })
            .await
    }

    /// The line at `head` of a run whose `closed_at` is set.
    pub(super) async fn last_line(reads: &Reads, run: RunKey) -> Result<Option<LineRow>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select j.seq, j.kind, j.version, j.at, j.payload
                         from runs r
                         join journal j on j.run = r.key and j.seq = r.head
                         where r.key = $1
                           and r.closed_at is not null",
                )
                .bind(run.0)
                .fetch_optional(&mut *connection)
                .await
            })
            .await
    }
}

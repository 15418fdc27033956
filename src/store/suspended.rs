//! Which turns wait for somebody outside, and with which calls (T13.11).

use serde_json::Value;

use super::Error;
use super::open::{Inner, Store};
use super::page::{Page, Paged, Range};
use super::read::payload_of;
use crate::clock::Instant;
use crate::id::{Namespace, RunId, ThreadId};
use crate::thread::{OpenCall, SuspendedRun};

/// Which suspended runs are wanted; what is left out says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SuspendedFilter {
    /// Of threads in this namespace.
    pub namespace: Namespace,
    /// On this thread.
    pub thread: Option<ThreadId>,
    /// On threads of this owner.
    pub resource: Option<String>,
    /// Of this agent.
    pub agent: Option<String>,
    /// Suspended at this time or later.
    pub from: Option<Instant>,
    /// Suspended at this time or earlier.
    pub to: Option<Instant>,
}

impl Store {
    /// Turns that wait for answers to calls, each with its open calls; the one that waits longest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`]; [`Error::Corrupt`] for a row that contradicts itself.
    pub async fn suspended(&self, filter: &SuspendedFilter, page: Page) -> Result<Paged<SuspendedRun>, Error> {
        self.readable().await?;
        let unavailable = |e| Error::unavailable("list suspended runs", e);
        let range = page.range();
        let mut rows: Vec<RunRow> = twins!(Inner: &self.0.inner, suspended(filter, range)).map_err(unavailable)?;
        let mut total = rows.first().map(|row| row.total);
        if rows.is_empty() && range.may_hide() {
            let counted: Vec<RunRow> =
                twins!(Inner: &self.0.inner, suspended(filter, Range::COUNT)).map_err(unavailable)?;
            total = counted.first().map(|row| row.total);
        }
        rows.truncate(page.size);
        let runs: Vec<i64> = rows.iter().map(|row| row.run).collect();
        let mut calls: Vec<CallRow> = match runs.is_empty() {
            true => Vec::new(),
            false => twins!(Inner: &self.0.inner, open_calls(&runs)).map_err(unavailable)?,
        };
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            let of_run: Vec<CallRow> = calls.extract_if(.., |call| call.run == row.run).collect();
            items.push(row.suspended(of_run)?);
        }
        Ok(Paged::of(items, total))
    }
}

/// A turn that waits, and how many do: `run, run_id, thread, resource, agent, since, total`
#[derive(Debug, sqlx::FromRow)]
struct RunRow {
    run: i64,
    run_id: String,
    thread: String,
    resource: String,
    agent: String,
    since: i64,
    total: i64,
}

/// An open call: `run, call, tool, value, since, expires_at`
#[derive(Debug, sqlx::FromRow)]
struct CallRow {
    run: i64,
    call: String,
    tool: String,
    value: Vec<u8>,
    since: i64,
    expires_at: Option<i64>,
}

impl RunRow {
    fn suspended(self, calls: Vec<CallRow>) -> Result<SuspendedRun, Error> {
        let corrupt = |e: crate::id::InvalidId| Error::Corrupt { found: format!("suspended run {}: {e}", self.run) };
        Ok(SuspendedRun {
            run: RunId::parse(&self.run_id).map_err(corrupt)?,
            thread: ThreadId::parse(&self.thread).map_err(corrupt)?,
            resource: self.resource,
            agent: self.agent,
            suspended_at: Instant(self.since),
            calls: calls.into_iter().map(CallRow::open).collect::<Result<_, _>>()?,
        })
    }
}

impl CallRow {
    fn open(self) -> Result<OpenCall, Error> {
        let value: Value = payload_of(self.value)?
            .read()
            .map_err(|e| Error::Corrupt { found: format!("call {} of run {}: {e}", self.call, self.run) })?;
        Ok(OpenCall {
            args: value["args"].clone(),
            requires_approval: value["requiresApproval"] == true,
            suspend_payload: value.get("suspendPayload").filter(|payload| !payload.is_null()).cloned(),
            call: self.call,
            tool: self.tool,
            since: Instant(self.since),
            expires_at: self.expires_at.map(Instant),
        })
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::super::open::sqlite::Reads;
    use super::{CallRow, Range, RunRow, SuspendedFilter};
    use crate::store::json::Json;

    pub(super) async fn suspended(
        reads: &Reads,
        filter: &SuspendedFilter,
        range: Range,
    ) -> Result<Vec<RunRow>, sqlx::Error> {
        sqlx::query_as(
            "select c.run, r.id as run_id, t.id as thread, t.resource, t.agent, min(c.since) as since,
                    count(*) over () as total
             from calls c
             cross join threads t on t.key = c.thread and t.run = c.run
             cross join runs r on r.key = c.run
             where c.settled = 0 and t.namespace = $1 and ($2 is null or t.id = $2) and ($3 is null or t.resource = $3)
               and ($4 is null or t.agent = $4)
             group by c.run
             having ($5 is null or min(c.since) >= $5) and ($6 is null or min(c.since) <= $6)
             order by since, c.run
             limit $8 offset $7",
        )
        .bind(filter.namespace.as_str())
        .bind(filter.thread.as_ref().map(|thread| thread.as_str()))
        .bind(filter.resource.as_deref())
        .bind(filter.agent.as_deref())
        .bind(filter.from.map(|at| at.0))
        .bind(filter.to.map(|at| at.0))
        .bind(range.offset)
        .bind(range.limit)
        .fetch_all(&reads.pool)
        .await
    }

    pub(super) async fn open_calls(reads: &Reads, runs: &[i64]) -> Result<Vec<CallRow>, sqlx::Error> {
        let mut json = Json::default();
        for run in runs {
            json.row().int(*run);
        }
        sqlx::query_as(
            "select c.run, c.call, c.tool, c.value, c.since, c.expires_at
             from json_each($1) a
             cross join calls c on c.run = a.value ->> 0
             where c.settled = 0
             order by c.since, c.call",
        )
        .bind(json.done())
        .fetch_all(&reads.pool)
        .await
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::super::open::postgres::Reads;
    use super::{CallRow, Range, RunRow, SuspendedFilter};

    pub(super) async fn suspended(
        reads: &Reads,
        filter: &SuspendedFilter,
        range: Range,
    ) -> Result<Vec<RunRow>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select c.run, r.id as run_id, t.id as thread, t.resource, t.agent, min(c.since) as since,
                            count(*) over () as total
                     from calls c
                     join threads t on t.key = c.thread and t.run = c.run
                     join runs r on r.key = c.run
                     where c.settled = 0
                       and t.namespace = $1
                       and ($2::text is null or t.id = $2)
                       and ($3::text is null or t.resource = $3)
                       and ($4::text is null or t.agent = $4)
                     group by c.run, r.id, t.id, t.resource, t.agent
                     having ($5::bigint is null or min(c.since) >= $5)
                        and ($6::bigint is null or min(c.since) <= $6)
                     order by since, c.run
                     limit $8 offset $7",
                )
                .bind(filter.namespace.as_str())
                .bind(filter.thread.as_ref().map(|thread| thread.as_str()))
                .bind(filter.resource.as_deref())
                .bind(filter.agent.as_deref())
                .bind(filter.from.map(|at| at.0))
                .bind(filter.to.map(|at| at.0))
                .bind(range.offset)
                .bind(range.limit)
                .fetch_all(&mut *connection)
                .await
            })
            .await
    }

    pub(super) async fn open_calls(reads: &Reads, runs: &[i64]) -> Result<Vec<CallRow>, sqlx::Error> {
        reads
            .read(|mut connection| async move {
                sqlx::query_as(
                    "select run, call, tool, value, since, expires_at
                     from calls
                     where run = any ($1)
                       and settled = 0
                     order by since, call",
                )
                .bind(runs)
                .fetch_all(&mut *connection)
                .await
            })
            .await
    }
}

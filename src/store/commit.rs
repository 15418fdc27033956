//! `commit`: what runs leave behind, gathered into one physical transaction.

use super::contract::{Commit, Verdict};
use super::open::Store;
use super::start::CallerTx;
use super::writer::{Batch, Facts, Frame};
use super::{Error, writer};

impl Store {
    /// Writes what runs want to leave behind. One verdict per commit, in the same order; the commits must be of
    /// different runs. What is `Applied` is durable, whole; of what is `Refused` nothing was written. A crash before the
    /// answer leaves each commit written whole or not at all.
    ///
    /// # Errors
    /// [`Error::Unavailable`] only after the outcome could not be learned for half a minute; [`Error::Closed`].
    pub async fn commit(&self, commits: Vec<Commit>) -> Result<Vec<Verdict>, Error> {
        self.0.shared.open()?;
        let mut answers = Vec::with_capacity(commits.len());
        for commit in commits {
            answers.push(self.send_commit(commit).await?);
        }
        let mut verdicts = Vec::with_capacity(answers.len());
        for answer in answers {
            verdicts.push(self.heard(answer).await?);
        }
        Ok(verdicts)
    }
}

/// Writes a batch: arrivals, then commits, then appends; see [`writer::Batch`]. One statement text, one hop.
pub(super) async fn write(tx: CallerTx<'_>, batch: &Batch, frame: Frame) -> Result<Facts, sqlx::Error> {
    twins!(CallerTx: tx, write(batch, frame))
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::SqliteConnection;

    use super::writer::{Batch, Facts, Frame};

    pub(super) async fn write(_tx: &mut SqliteConnection, _batch: &Batch, _frame: Frame) -> Result<Facts, sqlx::Error> {
        todo!()
    }
}

#[cfg(feature = "postgres")]
pub(super) mod postgres {
    use std::collections::HashMap;

    use sqlx::postgres::PgRow;
    use sqlx::{PgConnection, Row};

    use super::super::accept::postgres::accept;
    use super::super::contract::{Commit, Leaves};
    use super::super::stream::postgres::append;
    use super::writer::postgres::{begin, end, roll_back};
    use super::writer::{Batch, CommitFact, Facts, Frame};
    use crate::id::{Fence, RunKey, Seq};

    /// How often a write that ran into another process's unfinished one is sent again at once.
    const AGAIN_MAX: usize = 4;

    /// With `Frame::Whole` on no open transaction, with `Frame::Inside` in the open one.
    ///
    /// A batch of one kind is one statement, which is its own transaction. Each kind is a statement, because one statement
    /// cannot change a row twice, and an arrival may be for a run that also has a commit in the batch.
    pub(super) async fn write(tx: &mut PgConnection, batch: &Batch, frame: Frame) -> Result<Facts, sqlx::Error> {
        let kinds = [batch.arrivals.is_empty(), batch.commits.is_empty(), batch.appends.is_empty()];
        let together = frame == Frame::Whole && kinds.iter().filter(|none| !**none).count() > 1;
        for _ in 1..AGAIN_MAX {
            match once(tx, batch, together).await {
                // Another process wrote the same signal, or to the same stream, and ended just now: its row is seen next.
                Err(sqlx::Error::Database(said)) if said.is_unique_violation() && frame == Frame::Whole => {
                    roll_back(tx).await?;
                }
                written => return written,
            }
        }
        once(tx, batch, together).await
    }

    async fn once(tx: &mut PgConnection, batch: &Batch, together: bool) -> Result<Facts, sqlx::Error> {
        let mut facts = Facts::default();
        if together {
            begin(tx).await?;
        }
        if !batch.arrivals.is_empty() {
            facts.arrivals = accept(tx, &batch.arrivals).await?;
        }
        if !batch.commits.is_empty() {
            facts.commits = commit(tx, batch).await?;
        }
        if !batch.appends.is_empty() {
            append(tx, &batch.appends).await?;
        }
        if together {
            end(tx).await?;
        }
        Ok(facts)
    }

    /// Applies what may be applied and says how the rest stands.
    ///
    /// Under READ COMMITTED a statement that waited for a row's lock looks at that row again, but not at other rows: every
    /// condition is therefore on columns of the row that is locked. Rows are locked in the order of their keys, as an
    /// index scan over `any` goes in that order; so two processes do not wait for each other in a circle.
    async fn commit(tx: &mut PgConnection, batch: &Batch) -> Result<Vec<CommitFact>, sqlx::Error> {
        let mut facts = HashMap::with_capacity(batch.commits.len());
        let asked: Vec<Asked<'_>> = batch.commits.iter().zip(batch.fences.iter().copied()).collect();
        // Runs that are ended to make room for others come first: a statement does not see what another part of it does.
        let (ends, others): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(_, fence)| fence.is_some());
        for asked in [ends, others] {
            if !asked.is_empty() {
                apply(tx, &asked, &mut facts).await?;
            }
        }
        Ok(batch.commits.iter().map(|it| facts.remove(&it.run.0).unwrap_or(CommitFact::Gone)).collect())
    }

    /// A commit, and the fence to leave if it is not the commit's own.
    type Asked<'c> = (&'c Commit, Option<Fence>);

    async fn apply(
        tx: &mut PgConnection,
        asked: &[Asked<'_>],
        facts: &mut HashMap<i64, CommitFact>,
    ) -> Result<(), sqlx::Error> {
        let rows = Columns::of(asked);
        let row = match Needs::of(asked) {
            Needs::Lines => lines(tx, &rows).await?,
            Needs::Begins => begins(tx, &rows, &Begun::of(asked)).await?,
            Needs::All => all(tx, &rows, &Begun::of(asked), &Extras::of(asked)).await?,
        };
        let landed: Vec<i64> = row.try_get::<Option<_>, _>(0)?.unwrap_or_default();
        let due: Vec<i64> = row.try_get::<Option<_>, _>(1)?.unwrap_or_default();
        facts.extend(landed.iter().map(|run| (*run, CommitFact::Applied { due: false })));
        facts.extend(due.into_iter().map(|run| (run, CommitFact::Applied { due: true })));
        if landed.len() < asked.len() {
            let refused: Vec<Asked<'_>> = asked.iter().filter(|it| !facts.contains_key(&it.0.run.0)).copied().collect();
            let stand = stand(tx, &refused).await?;
            facts.extend(refused.into_iter().map(|(it, _)| it.run.0).zip(stand));
        }
        Ok(())
    }

    /// How the rows stand that refused a commit. What refused it still does: fences and counters only grow, and only the
    /// owner moves the head.
    async fn stand(tx: &mut PgConnection, refused: &[Asked<'_>]) -> Result<Vec<CommitFact>, sqlx::Error> {
        let keys: Vec<i64> = refused.iter().map(|(it, _)| it.run.0).collect();
        let begun = Begun::of(refused);
        let rows = sqlx::query(
            "select key, fence, head, signals_accepted, null as wanted, status
             from runs
             where key = any ($1)
             union all
             select h.key, 0, 0, 0, b.key, h.status
             from unnest($2::bigint[], $3::text[], $4::text[]) as b (key, namespace, id)
             cross join lateral (
               select r.key, r.status
               from runs r
               where r.namespace = b.namespace
                 and r.id = b.id
                 and r.latest = 1
             ) h",
        )
        .bind(&keys)
        .bind(&begun.key)
        .bind(&begun.namespace)
        .bind(&begun.id)
        .fetch_all(tx)
        .await?;
        let (mut held, mut holders) = (HashMap::new(), HashMap::new());
        for row in rows {
            let key: i64 = row.try_get(0)?;
            match row.try_get::<Option<i64>, _>(4)? {
                None => {
                    let (fence, head) = (Fence(row.try_get(1)?), Seq(row.try_get(2)?));
                    held.insert(key, CommitFact::Held { fence, head, accepted: row.try_get(3)? });
                }
                Some(wanted) => {
                    let status = row.try_get(5)?;
                    holders.insert(wanted, CommitFact::IdInUse { holder: RunKey(key), status });
                }
            }
        }
        let fact = |key: &i64| held.remove(key).or_else(|| holders.remove(key)).unwrap_or(CommitFact::Gone);
        Ok(keys.iter().map(fact).collect())
    }

    /// Which of the statements a batch takes: what it has none of need not be joined.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Needs {
        Lines,
        Begins,
        All,
    }

    impl Needs {
        fn of(asked: &[Asked<'_>]) -> Self {
            let need = |(commit, fence): &Asked<'_>| {
                let all = fence.is_some()
                    || !commit.taken.is_empty()
                    || !commit.published.is_empty()
                    || !commit.replies.is_empty()
                    || !commit.chunks.is_empty()
                    || matches!(commit.leaves, Leaves::Blocked { .. });
                match (all, commit.begins.is_some()) {
                    (true, _) => Self::All,
                    (false, true) => Self::Begins,
                    (false, false) => Self::Lines,
                }
            };
            asked.iter().map(need).max().unwrap_or(Self::Lines)
        }
    }

    /// The columns that every statement takes: one entry a commit, and one a line.
    #[derive(Default)]
    struct Columns<'c> {
        run: Vec<i64>,
        fence: Vec<i64>,
        head: Vec<i64>,
        lines: Vec<i64>,
        status: Vec<&'static str>,
        wake_at: Vec<Option<i64>>,
        worker: Vec<Option<i64>>,
        seen: Vec<i64>,
        drained: Vec<bool>,
        at: Vec<i64>,
        line_run: Vec<i64>,
        line_seq: Vec<i64>,
        line_kind: Vec<&'static str>,
        line_version: Vec<i64>,
        line_at: Vec<i64>,
        line_payload: Vec<&'c [u8]>,
    }

    impl<'c> Columns<'c> {
        fn of(asked: &[Asked<'c>]) -> Self {
            let mut rows = Self::default();
            for (commit, _) in asked {
                let (status, wake_at, worker) = match &commit.leaves {
                    Leaves::Running(worker) => ("running", None, Some(worker.0)),
                    Leaves::Waiting { wake_at } => ("waiting", wake_at.map(|at| at.0), None),
                    Leaves::Due { at } => ("due", Some(at.0), None),
                    Leaves::Blocked { .. } => ("blocked", None, None),
                    Leaves::Closed(how) => (how.word(), None, None),
                };
                rows.run.push(commit.run.0);
                rows.fence.push(commit.fence.0);
                rows.head.push(commit.head.0);
                rows.lines.push(commit.lines.len() as i64);
                rows.status.push(status);
                rows.wake_at.push(wake_at);
                rows.worker.push(worker);
                rows.seen.push(commit.signals_seen);
                rows.drained.push(commit.preconditions.drained);
                rows.at.push(commit.at.0);
                for (n, line) in commit.lines.lines.iter().enumerate() {
                    rows.line_run.push(commit.run.0);
                    rows.line_seq.push(commit.head.plus(n + 1).0);
                    rows.line_kind.push(line.kind);
                    rows.line_version.push(i64::from(line.version));
                    rows.line_at.push(line.at.0);
                    rows.line_payload.push(commit.lines.json(line));
                }
            }
            rows
        }
    }

    /// A query with the columns that all statements take, `$1` to `$16`.
    macro_rules! bound {
        ($sql:expr, $rows:expr) => {
            sqlx::query($sql)
                .bind(&$rows.run)
                .bind(&$rows.fence)
                .bind(&$rows.head)
                .bind(&$rows.lines)
                .bind(&$rows.status)
                .bind(&$rows.wake_at)
                .bind(&$rows.worker)
                .bind(&$rows.seen)
                .bind(&$rows.drained)
                .bind(&$rows.at)
                .bind(&$rows.line_run)
                .bind(&$rows.line_seq)
                .bind(&$rows.line_kind)
                .bind(&$rows.line_version)
                .bind(&$rows.line_at)
                .bind(&$rows.line_payload)
        };
    }

    /// Commits that only add lines and move their row.
    async fn lines(connection: &mut PgConnection, rows: &Columns<'_>) -> Result<PgRow, sqlx::Error> {
        bound!(
            "with c as (
               select *
               from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[],
                           $7::bigint[], $8::bigint[], $9::boolean[], $10::bigint[])
                 as c (run, fence, head, lines, status, wake_at, worker, seen, drained, at)
             ),
             moved as (
               update runs r
               set head = r.head + c.lines,
                   status = case when c.status = 'waiting' and c.seen < r.signals_accepted then 'due' else c.status end,
                   wake_at = case when c.status = 'waiting' and c.seen < r.signals_accepted then c.at else c.wake_at end,
                   worker = c.worker,
                   block_code = null,
                   block_text = null,
                   block_build = null,
                   closed_at = case when c.status in ('completed', 'failed', 'cancelled', 'terminated') then c.at end,
                   updated_at = c.at
               from c
               where r.key = any ($1)
                 and r.key = c.run
                 and r.fence = c.fence
                 and r.head = c.head
                 and not (c.drained and r.signals_accepted <> c.seen)
               returning r.key, r.status
             ),
             written as (
               insert into journal (run, seq, kind, version, at, payload)
               select l.run, l.seq, l.kind, l.version, l.at, l.payload
               from unnest($11::bigint[], $12::bigint[], $13::text[], $14::bigint[], $15::bigint[], $16::bytea[])
                 as l (run, seq, kind, version, at, payload)
               join moved on moved.key = l.run
             )
             select array_agg(key), array_agg(key) filter (where status = 'due')
             from moved",
            rows
        )
        .fetch_one(connection)
        .await
    }

    /// Commits of which some begin their run.
    async fn begins(
        connection: &mut PgConnection,
        rows: &Columns<'_>,
        begun: &Begun<'_>,
    ) -> Result<PgRow, sqlx::Error> {
        bound!(
            "with c as (
               select *
               from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[],
                           $7::bigint[], $8::bigint[], $9::boolean[], $10::bigint[])
                 as c (run, fence, head, lines, status, wake_at, worker, seen, drained, at)
             ),
             retired as (
               update runs r
               set latest = 0
               where r.key = any (array(
                   select (select o.key from runs o where o.namespace = b.namespace and o.id = b.id and o.latest = 1)
                   from unnest($18::text[], $19::text[]) as b (namespace, id)))
                 and r.latest = 1
                 and r.closed_at is not null
               returning r.key
             ),
             begun as (
               insert into runs (key, namespace, id, workflow, version, status, wake_at, worker, fence, head, closed_at,
                                 created_at, updated_at)
               select b.key, b.namespace, b.id, b.workflow, b.version, c.status, c.wake_at, c.worker, c.fence, c.lines,
                      case when c.status in ('completed', 'failed', 'cancelled', 'terminated') then c.at end, c.at, c.at
               from unnest($17::bigint[], $18::text[], $19::text[], $20::text[], $21::bigint[])
                 as b (key, namespace, id, workflow, version)
               join c on c.run = b.key
               where (select count(*) from retired) >= 0
               on conflict do nothing
               returning key, status
             ),
             moved as (
               update runs r
               set head = r.head + c.lines,
                   status = case when c.status = 'waiting' and c.seen < r.signals_accepted then 'due' else c.status end,
                   wake_at = case when c.status = 'waiting' and c.seen < r.signals_accepted then c.at else c.wake_at end,
                   worker = c.worker,
                   block_code = null,
                   block_text = null,
                   block_build = null,
                   closed_at = case when c.status in ('completed', 'failed', 'cancelled', 'terminated') then c.at end,
                   updated_at = c.at
               from c
               where r.key = any ($1)
                 and r.key = c.run
                 and r.fence = c.fence
                 and r.head = c.head
                 and not (c.drained and r.signals_accepted <> c.seen)
               returning r.key, r.status
             ),
             landed as (
               select key, status from moved
               union all
               select key, status from begun
             ),
             written as (
               insert into journal (run, seq, kind, version, at, payload)
               select l.run, l.seq, l.kind, l.version, l.at, l.payload
               from unnest($11::bigint[], $12::bigint[], $13::text[], $14::bigint[], $15::bigint[], $16::bytea[])
                 as l (run, seq, kind, version, at, payload)
               join landed on landed.key = l.run
             )
             select array_agg(key), array_agg(key) filter (where status = 'due')
             from landed",
            rows
        )
        .bind(&begun.key)
        .bind(&begun.namespace)
        .bind(&begun.id)
        .bind(&begun.workflow)
        .bind(&begun.version)
        .fetch_one(connection)
        .await
    }

    /// The rows of runs that begin.
    #[derive(Default)]
    struct Begun<'c> {
        key: Vec<i64>,
        namespace: Vec<&'c str>,
        id: Vec<&'c str>,
        workflow: Vec<&'c str>,
        version: Vec<i64>,
    }

    impl<'c> Begun<'c> {
        fn of(asked: &[Asked<'c>]) -> Self {
            let mut begun = Self::default();
            for (run, new) in asked.iter().filter_map(|(it, _)| Some((it.run, it.begins.as_deref()?))) {
                begun.key.push(run.0);
                begun.namespace.push(new.namespace.as_str());
                begun.id.push(new.id.as_str());
                begun.workflow.push(&new.workflow);
                begun.version.push(i64::from(new.version));
            }
            begun
        }
    }

    /// Commits of every kind.
    async fn all(
        connection: &mut PgConnection,
        rows: &Columns<'_>,
        begun: &Begun<'_>,
        extras: &Extras<'_>,
    ) -> Result<PgRow, sqlx::Error> {
        bound!(
            "with c as (
               select *
               from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[],
                           $7::bigint[], $8::bigint[], $9::boolean[], $10::bigint[], $22::bigint[], $23::bigint[],
                           $24::text[], $25::text[], $26::text[])
                 as c (run, fence, head, lines, status, wake_at, worker, seen, drained, at, leaves_fence, taken,
                       block_code, block_text, block_build)
             ),
             retired as (
               update runs r
               set latest = 0
               where r.key = any (array(
                   select (select o.key from runs o where o.namespace = b.namespace and o.id = b.id and o.latest = 1)
                   from unnest($18::text[], $19::text[]) as b (namespace, id)))
                 and r.latest = 1
                 and r.closed_at is not null
               returning r.key
             ),
             begun as (
               insert into runs (key, namespace, id, workflow, version, status, wake_at, worker, fence, head, block_code,
                                 block_text, block_build, closed_at, created_at, updated_at)
               select b.key, b.namespace, b.id, b.workflow, b.version, c.status, c.wake_at, c.worker, c.leaves_fence,
                      c.lines, c.block_code, c.block_text, c.block_build,
                      case when c.status in ('completed', 'failed', 'cancelled', 'terminated') then c.at end, c.at, c.at
               from unnest($17::bigint[], $18::text[], $19::text[], $20::text[], $21::bigint[])
                 as b (key, namespace, id, workflow, version)
               join c on c.run = b.key
               where (select count(*) from retired) >= 0
               on conflict do nothing
               returning key, status
             ),
             moved as (
               update runs r
               set fence = c.leaves_fence,
                   head = r.head + c.lines,
                   status = case when c.status = 'waiting' and c.seen < r.signals_accepted then 'due' else c.status end,
                   wake_at = case when c.status = 'waiting' and c.seen < r.signals_accepted then c.at else c.wake_at end,
                   worker = c.worker,
                   signals_pending = r.signals_pending - c.taken,
                   block_code = c.block_code,
                   block_text = c.block_text,
                   block_build = c.block_build,
                   closed_at = case when c.status in ('completed', 'failed', 'cancelled', 'terminated') then c.at end,
                   updated_at = c.at
               from c
               where r.key = any ($1)
                 and r.key = c.run
                 and r.fence = c.fence
                 and r.head = c.head
                 and not (c.drained and r.signals_accepted <> c.seen)
               returning r.key, r.status
             ),
             landed as (
               select key, status from moved
               union all
               select key, status from begun
             ),
             written as (
               insert into journal (run, seq, kind, version, at, payload)
               select l.run, l.seq, l.kind, l.version, l.at, l.payload
               from unnest($11::bigint[], $12::bigint[], $13::text[], $14::bigint[], $15::bigint[], $16::bytea[])
                 as l (run, seq, kind, version, at, payload)
               join landed on landed.key = l.run
             ),
             taken as (
               update signals s
               set taken = 1,
                   payload = null
               where s.ctid = any (array(
                   select (select o.ctid from signals o where o.run = t.run and o.ordinal = t.ordinal and o.taken = 0)
                   from unnest($27::bigint[], $28::bigint[]) as t (run, ordinal)
                   join landed on landed.key = t.run))
             ),
             shown as (
               insert into published (run, name, value)
               select p.run, p.name, p.value
               from unnest($29::bigint[], $30::text[], $31::bytea[]) as p (run, name, value)
               join landed on landed.key = p.run
               on conflict (run, name) do update set value = excluded.value
             ),
             answered as (
               insert into replies (run, id, value)
               select a.run, a.id, a.value
               from unnest($32::bigint[], $33::text[], $34::bytea[]) as a (run, id, value)
               join landed on landed.key = a.run
               on conflict do nothing
             ),
             streamed as (
               insert into streams (run, stream, place, part, at, value)
               select s.run, s.stream,
                      s.nth + coalesce((
                        select o.place
                        from streams o
                        where o.run = s.run
                          and o.stream = s.stream
                        order by o.place desc
                        limit 1), 0),
                      s.part, s.at, s.value
               from unnest($35::bigint[], $36::text[], $37::bigint[], $38::text[], $39::bigint[], $40::bytea[])
                 as s (run, stream, nth, part, at, value)
               join landed on landed.key = s.run
             )
             select array_agg(key), array_agg(key) filter (where status = 'due')
             from landed",
            rows
        )
        .bind(&begun.key)
        .bind(&begun.namespace)
        .bind(&begun.id)
        .bind(&begun.workflow)
        .bind(&begun.version)
        .bind(&extras.fence)
        .bind(&extras.taken)
        .bind(&extras.block_code)
        .bind(&extras.block_text)
        .bind(&extras.block_build)
        .bind(&extras.taken_run)
        .bind(&extras.taken_ordinal)
        .bind(&extras.published_run)
        .bind(&extras.published_name)
        .bind(&extras.published_value)
        .bind(&extras.reply_run)
        .bind(&extras.reply_id)
        .bind(&extras.reply_value)
        .bind(&extras.chunk_run)
        .bind(&extras.chunk_stream)
        .bind(&extras.chunk_nth)
        .bind(&extras.chunk_part)
        .bind(&extras.chunk_at)
        .bind(&extras.chunk_value)
        .fetch_one(connection)
        .await
    }

    /// What few commits have, and the statement for every kind takes.
    #[derive(Default)]
    struct Extras<'c> {
        fence: Vec<i64>,
        taken: Vec<i64>,
        block_code: Vec<Option<&'static str>>,
        block_text: Vec<Option<String>>,
        block_build: Vec<Option<&'c str>>,
        taken_run: Vec<i64>,
        taken_ordinal: Vec<i64>,
        published_run: Vec<i64>,
        published_name: Vec<&'c str>,
        published_value: Vec<&'c [u8]>,
        reply_run: Vec<i64>,
        reply_id: Vec<&'c str>,
        reply_value: Vec<&'c [u8]>,
        chunk_run: Vec<i64>,
        chunk_stream: Vec<&'c str>,
        chunk_nth: Vec<i64>,
        chunk_part: Vec<&'c str>,
        chunk_at: Vec<i64>,
        chunk_value: Vec<&'c [u8]>,
    }

    impl<'c> Extras<'c> {
        fn of(asked: &[Asked<'c>]) -> Self {
            let mut extras = Self::default();
            for (commit, fence) in asked {
                extras.row(commit, fence.unwrap_or(commit.fence));
                extras.values(commit);
            }
            extras
        }

        fn row(&mut self, commit: &'c Commit, fence: Fence) {
            let blocked = match &commit.leaves {
                Leaves::Blocked { reason, build } => Some((reason, build)),
                _ => None,
            };
            self.fence.push(fence.0);
            self.taken.push(commit.taken.len() as i64);
            self.block_code.push(blocked.map(|(reason, _)| reason.code()));
            self.block_text.push(blocked.map(|(reason, _)| reason.to_string()));
            self.block_build.push(blocked.map(|(_, build)| build.as_str()));
        }

        fn values(&mut self, commit: &'c Commit) {
            let run = commit.run.0;
            for ordinal in &commit.taken {
                self.taken_run.push(run);
                self.taken_ordinal.push(*ordinal);
            }
            for (i, (name, value)) in commit.published.iter().enumerate() {
                // One statement cannot write a row twice: only the last value of a name counts.
                if !commit.published[i + 1..].iter().any(|(later, _)| later == name) {
                    self.published_run.push(run);
                    self.published_name.push(name);
                    self.published_value.push(value.as_str().as_bytes());
                }
            }
            for (id, value) in &commit.replies {
                self.reply_run.push(run);
                self.reply_id.push(id);
                self.reply_value.push(value.as_str().as_bytes());
            }
            let mut places: HashMap<&str, i64> = HashMap::new();
            for chunk in &commit.chunks {
                let nth = places.entry(&chunk.stream).or_default();
                *nth += 1;
                self.chunk_run.push(run);
                self.chunk_stream.push(&chunk.stream);
                self.chunk_nth.push(*nth);
                self.chunk_part.push(&chunk.part);
                self.chunk_at.push(commit.at.0);
                self.chunk_value.push(chunk.value.as_str().as_bytes());
            }
        }
    }
}

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

/// Writes a batch, and what its commits leave with the threads that their runs answer.
pub(super) async fn write(tx: CallerTx<'_>, batch: &Batch, frame: Frame) -> Result<Facts, sqlx::Error> {
    if batch.commits.iter().any(|commit| commit.thread.is_some()) {
        super::turns::write(tx, batch, frame).await
    } else {
        rows(tx, batch, frame).await
    }
}

/// Readies a connection that has never seen a batch.
pub(super) async fn prepare(tx: CallerTx<'_>) -> Result<(), sqlx::Error> {
    twins!(CallerTx: tx, prepare())
}

/// Writes the rows of a batch: arrivals, then commits, then appends; see [`writer::Batch`]. One statement text, one hop.
pub(super) async fn rows(tx: CallerTx<'_>, batch: &Batch, frame: Frame) -> Result<Facts, sqlx::Error> {
    twins!(CallerTx: tx, write(batch, frame))
}

#[cfg(feature = "sqlite")]
pub(super) mod sqlite {
    use std::sync::OnceLock;

    use futures::TryStreamExt as _;
    use sqlx::sqlite::SqliteRow;
    use sqlx::{Either, Executor as _, Row as _, SqliteConnection};

    use super::writer::{ArrivalFact, Batch, CommitFact, Facts, Frame};
    use crate::clock::Instant;
    use crate::id::{Fence, RunKey, Seq};
    use crate::store::contract::{Addressee, Leaves};
    use crate::store::json::Json;

    /// Makes the tables in which a connection sorts a batch before it is written. They live in memory and are empty
    /// between batches.
    pub(in super::super) async fn prepare(tx: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        tx.execute(
            "create temp table if not exists arriving (
                 i integer primary key,
                 run integer,
                 kind text,
                 name text,
                 id text,
                 at integer,
                 pending_max integer,
                 place integer,
                 length integer,
                 outcome text,
                 ordinal integer,
                 accepted_at integer,
                 status text,
                 pending integer
             );
             create temp table if not exists committing (
                 i integer primary key,
                 run integer,
                 head integer,
                 lines integer,
                 status text,
                 wake_at integer,
                 worker integer,
                 fence integer,
                 at integer,
                 code text,
                 block text,
                 build text,
                 lands integer
             )",
        )
        .await
        .map(drop)
    }

    /// The parts of a batch's text. Every combination is a constant text of its own, so that it stays prepared.
    mod part {
        pub(super) const OPENS: usize = 1;
        pub(super) const ARRIVALS: usize = 2;
        pub(super) const BEGINS: usize = 4;
        pub(super) const COMMITS: usize = 8;
        pub(super) const TAKEN: usize = 16;
        pub(super) const VALUES: usize = 32;
        pub(super) const APPENDS: usize = 64;
        pub(super) const CLOSES: usize = 128;
    }

    /// The statements for those parts. `$1` commits, `$2` lines, `$3` the bytes of all payloads, `$4` runs that begin,
    /// `$5` arrivals, `$6` signals taken, `$7` values published, replied and streamed, `$8` values streamed outside
    /// commits: JSON arrays of arrays of small fields, payloads as place and length in `$3`.
    fn text(parts: usize) -> &'static str {
        static TEXTS: [OnceLock<&'static str>; 256] = [const { OnceLock::new() }; 256];
        TEXTS[parts].get_or_init(|| {
            let mut text = String::new();
            let has = |part| parts & part != 0;
            if has(part::OPENS) {
                text += "begin immediate;";
            }
            if has(part::ARRIVALS) {
                text += ARRIVE;
            }
            if has(part::BEGINS) {
                text += BEGIN_RUNS;
            }
            if has(part::COMMITS) {
                text += COMMIT;
            }
            if has(part::TAKEN) {
                text += TAKE;
            }
            if has(part::VALUES) {
                text += VALUES;
            }
            if has(part::COMMITS) {
                text += VERDICTS;
            }
            if has(part::BEGINS) {
                text += HOLDERS;
            }
            if has(part::COMMITS) {
                text += "delete from temp.committing;";
            }
            if has(part::APPENDS) {
                text += APPEND;
            }
            if has(part::CLOSES) {
                text += "commit;";
            }
            // At most 256 of them in the life of a process.
            String::leak(text)
        })
    }

    const ARRIVE: &str = "
        with rows as materialized (select key, value from json_each($5))
        insert into temp.arriving (i, run, kind, name, id, at, pending_max, place, length)
        select key,
               coalesce(
                   value ->> 0,
                   (select r.key from runs r where r.namespace = value ->> 1 and r.id = value ->> 2 and r.latest = 1)),
               value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, value ->> 8, value ->> 9
        from rows;

        update temp.arriving as a
        set outcome = 'already', ordinal = s.ordinal, accepted_at = s.accepted_at
        from signals s
        where s.run = a.run and s.id = a.id;

        update temp.arriving as a
        set outcome = n.outcome, ordinal = n.ordinal, status = n.status, pending = n.pending
        from (
            select b.i,
                   r.status,
                   r.signals_pending as pending,
                   r.signals_accepted + row_number() over of_run as ordinal,
                   case
                       when r.closed_at is not null then 'closed'
                       when r.signals_pending + row_number() over of_run <= b.pending_max then 'new'
                       else 'full'
                   end as outcome
            from temp.arriving b
            cross join runs r on r.key = b.run
            where b.outcome is null
            window of_run as (partition by b.run order by b.i)
        ) n
        where n.i = a.i;

        insert into signals (run, ordinal, kind, name, id, payload, accepted_at)
        select run, ordinal, kind, name, id, substr($3, place, length), at
        from temp.arriving
        where outcome = 'new'
        order by i;

        update runs
        set signals_accepted = n.ordinal,
            signals_pending = signals_pending + n.number,
            status = case status when 'waiting' then 'due' else status end,
            wake_at = case status when 'waiting' then min(coalesce(wake_at, n.at), n.at) else wake_at end,
            updated_at = n.at
        from (
            select run, max(ordinal) as ordinal, count(*) as number, min(at) as at
            from temp.arriving
            where outcome = 'new'
            group by run
        ) n
        where runs.key = n.run;

        select 'arrival', i, outcome, run, ordinal, accepted_at, status, pending
        from temp.arriving;

        delete from temp.arriving;";

    const BEGIN_RUNS: &str = "
        update runs
        set latest = 0
        from (select value ->> 1 as run, value ->> 2 as namespace, value ->> 3 as id from json_each($4)) b
        where runs.namespace = b.namespace
          and runs.id = b.id
          and runs.key <> b.run
          and runs.latest = 1
          and runs.closed_at is not null;

        with rows as materialized (select value from json_each($4))
        insert into runs (
            key, namespace, id, workflow, version, status, wake_at, worker, fence, created_at, updated_at, closed_at,
            thread, block_code, block_text, block_build, head)
        select value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, value ->> 8,
               value ->> 9, value ->> 10, value ->> 10, value ->> 11, value ->> 12, value ->> 13, value ->> 14,
               value ->> 15, 0
        from rows
        where true
        on conflict do nothing;";

    // JSON rows are materialized: every mention of one that is not is written out as text and read again.
    //
    // `lands`: 0 refused, 1 the row stands already as it is to be left, 2 it changes, 3 it was to wait, but a signal
    // that its owner has not seen is there. In the first case no index has to be touched.
    const COMMIT: &str = "
        with rows as materialized (select key, value from json_each($1)),
        c as materialized (
            select key as i,
                   value ->> 0 as run,
                   value ->> 1 as fence,
                   value ->> 2 as head,
                   value ->> 3 as lines,
                   value ->> 4 as seen,
                   value ->> 5 as drained,
                   value ->> 6 as status,
                   value ->> 7 as wake_at,
                   value ->> 8 as worker,
                   value ->> 9 as at,
                   value ->> 10 as leaves_fence,
                   value ->> 11 as code,
                   value ->> 12 as block,
                   value ->> 13 as build
            from rows
        )
        insert into temp.committing (
            i, run, head, lines, status, wake_at, worker, fence, at, code, block, build, lands)
        select c.i, c.run, c.head, c.lines, c.status, c.wake_at, c.worker, c.leaves_fence, c.at, c.code, c.block, c.build,
               case
                   when r.key is null
                     or r.fence <> c.fence
                     or r.head <> c.head
                     or (c.drained and r.signals_accepted <> c.seen)
                     or (r.closed_at is not null and r.head > 0)
                   then 0
                   when c.status = 'waiting' and r.signals_accepted > c.seen then 3
                   when r.status = c.status
                    and r.worker is c.worker
                    and r.wake_at is c.wake_at
                    and r.fence = c.leaves_fence
                    and r.block_code is null
                   then 1
                   else 2
               end
        from c
        left join runs r on r.key = c.run;

        with l as materialized (select value from json_each($2))
        insert into journal (run, seq, kind, version, at, payload)
        select c.run, c.head + (l.value ->> 1), l.value ->> 2, l.value ->> 3, l.value ->> 4,
               substr($3, l.value ->> 5, l.value ->> 6)
        from l
        cross join temp.committing c on c.i = l.value ->> 0
        where c.lands > 0;

        update runs
        set head = c.head + c.lines, updated_at = c.at
        from temp.committing c
        where c.lands = 1 and runs.key = c.run;

        update runs
        set head = c.head + c.lines,
            updated_at = c.at,
            status = case c.lands when 3 then 'due' else c.status end,
            wake_at = case c.lands when 3 then c.at else c.wake_at end,
            worker = c.worker,
            fence = c.fence,
            block_code = c.code,
            block_text = c.block,
            block_build = c.build,
            closed_at = case when c.status in ('completed', 'failed', 'cancelled', 'terminated') then c.at end
        from temp.committing c
        where c.lands > 1 and runs.key = c.run;";

    const TAKE: &str = "
        update runs
        set signals_pending = signals_pending - n.number
        from (
            select c.run, count(*) as number
            from json_each($6) t
            cross join temp.committing c on c.i = t.value ->> 0
            cross join signals s on s.run = c.run and s.ordinal = t.value ->> 1 and s.taken = 0
            where c.lands > 0
            group by c.run
        ) n
        where runs.key = n.run;

        update signals
        set taken = 1, payload = null
        from (
            select c.run, t.value ->> 1 as ordinal
            from json_each($6) t
            cross join temp.committing c on c.i = t.value ->> 0
            where c.lands > 0
        ) n
        where signals.run = n.run and signals.ordinal = n.ordinal and signals.taken = 0;";

    const VALUES: &str = "
        insert into published (run, name, value)
        select c.run, v.value ->> 2, substr($3, v.value ->> 4, v.value ->> 5)
        from json_each($7) v
        cross join temp.committing c on c.i = v.value ->> 0
        where c.lands > 0 and v.value ->> 1 = 'published'
        on conflict (run, name) do update set value = excluded.value;

        insert into replies (run, id, value)
        select c.run, v.value ->> 2, substr($3, v.value ->> 4, v.value ->> 5)
        from json_each($7) v
        cross join temp.committing c on c.i = v.value ->> 0
        where c.lands > 0 and v.value ->> 1 = 'reply'
        on conflict (run, id) do nothing;

        insert into streams (run, stream, place, part, at, value)
        select n.run, n.stream,
               coalesce((select max(s.place) from streams s where s.run = n.run and s.stream = n.stream), 0)
                   + row_number() over (partition by n.run, n.stream order by n.k),
               n.part, n.at, n.bytes
        from (
            select c.run, v.key as k, v.value ->> 2 as stream, v.value ->> 3 as part, c.at,
                   substr($3, v.value ->> 4, v.value ->> 5) as bytes
            from json_each($7) v
            cross join temp.committing c on c.i = v.value ->> 0
            where c.lands > 0 and v.value ->> 1 = 'stream'
        ) n;";

    const VERDICTS: &str = "
        select 'commit', c.i, c.lands, r.fence, r.head, r.signals_accepted
        from temp.committing c
        left join runs r on r.key = c.run
        where c.lands in (0, 3);";

    const HOLDERS: &str = "
        select 'holder', c.i, r.key, r.status
        from json_each($4) b
        cross join temp.committing c on c.i = b.value ->> 0
        cross join runs r on r.namespace = b.value ->> 2 and r.id = b.value ->> 3 and r.latest = 1
        where c.lands = 0;";

    const APPEND: &str = "
        insert into streams (run, stream, place, part, at, value, token)
        select n.run, n.stream,
               coalesce((select max(s.place) from streams s where s.run = n.run and s.stream = n.stream), 0)
                   + row_number() over (partition by n.run, n.stream order by n.k),
               n.part, n.at, n.bytes, n.token
        from (
            select a.key as k, a.value ->> 0 as run, a.value ->> 1 as stream, a.value ->> 2 as part,
                   a.value ->> 3 as at, a.value ->> 4 as token, a.value ->> 5 as doubtful,
                   substr($3, a.value ->> 6, a.value ->> 7) as bytes
            from json_each($8) a
        ) n
        where not n.doubtful
           or not exists (
               select 1
               from streams s
               where s.run = n.run and s.stream = n.stream and s.token = n.token);";

    /// What a batch is made of, as the statements take it.
    #[derive(Default)]
    struct Encoded {
        parts: usize,
        bytes: Vec<u8>,
        commits: Json,
        lines: Json,
        begins: Json,
        arrivals: Json,
        taken: Json,
        values: Json,
        appends: Json,
    }

    impl Encoded {
        /// Adds payload bytes; where they begin, as SQL counts, and how many.
        fn place(&mut self, bytes: &[u8]) -> (usize, usize) {
            let begin = self.bytes.len() + 1;
            self.bytes.extend_from_slice(bytes);
            (begin, bytes.len())
        }

        fn of(batch: &Batch) -> Self {
            let mut it = Self::default();
            it.arrivals(batch);
            it.commits(batch);
            it.appends(batch);
            it
        }

        fn arrivals(&mut self, batch: &Batch) {
            for arrival in &batch.arrivals {
                self.parts |= part::ARRIVALS;
                let (begin, length) = self.place(arrival.payload.as_str().as_bytes());
                let row = self.arrivals.row();
                match &arrival.to {
                    Addressee::Key(run) => row.int(run.0).null().null(),
                    Addressee::Id(namespace, id) => row.null().text(namespace.as_str()).text(id.as_str()),
                };
                row.text(arrival.kind.word()).text(&arrival.name).text(&arrival.id).int(arrival.at.0);
                row.int(arrival.pending_max).size(begin).size(length);
            }
        }

        fn commits(&mut self, batch: &Batch) {
            for (i, (commit, fence)) in batch.commits.iter().zip(&batch.fences).enumerate() {
                self.parts |= part::COMMITS;
                let left = Left::of(&commit.leaves);
                let row = self.commits.row();
                row.int(commit.run.0).int(commit.fence.0).int(commit.head.0).size(commit.lines.len());
                row.int(commit.signals_seen).int(i64::from(commit.preconditions.drained));
                row.text(left.status).maybe(left.wake_at).maybe(left.worker).int(commit.at.0);
                row.int(fence.unwrap_or(commit.fence).0);
                if let Some((code, text, build)) = &left.block {
                    row.text(code).text(text).text(build);
                }
                if let Some(new) = &commit.begins {
                    self.parts |= part::BEGINS;
                    let row = self.begins.row();
                    row.size(i).int(commit.run.0).text(new.namespace.as_str()).text(new.id.as_str());
                    row.text(&new.workflow).int(i64::from(new.version)).text(left.status).maybe(left.wake_at);
                    row.maybe(left.worker)
                        .int(commit.fence.0)
                        .int(commit.at.0)
                        .maybe(left.closed.then_some(commit.at.0))
                        .maybe(new.thread.map(|thread| thread.0));
                    if let Some((code, text, build)) = &left.block {
                        row.text(code).text(text).text(build);
                    }
                }
                let base = self.bytes.len();
                self.bytes.extend_from_slice(&commit.lines.bytes);
                for (k, line) in commit.lines.lines.iter().enumerate() {
                    let row = self.lines.row();
                    row.size(i).size(k + 1).text(line.kind).int(i64::from(line.version)).int(line.at.0);
                    row.size(base + line.begin + 1).size(line.end - line.begin);
                }
                for ordinal in &commit.taken {
                    self.parts |= part::TAKEN;
                    self.taken.row().size(i).int(*ordinal);
                }
                for (name, value) in &commit.published {
                    self.value(i, "published", name, None, value.as_str());
                }
                for (id, value) in &commit.replies {
                    self.value(i, "reply", id, None, value.as_str());
                }
                for chunk in &commit.chunks {
                    self.value(i, "stream", &chunk.stream, Some(&chunk.part), chunk.value.as_str());
                }
            }
        }

        fn value(&mut self, i: usize, what: &str, name: &str, part: Option<&str>, value: &str) {
            self.parts |= part::VALUES;
            let (begin, length) = self.place(value.as_bytes());
            let row = self.values.row();
            row.size(i).text(what).text(name);
            match part {
                Some(part) => row.text(part),
                None => row.null(),
            };
            row.size(begin).size(length);
        }

        fn appends(&mut self, batch: &Batch) {
            for append in &batch.appends {
                for chunk in &append.chunks {
                    self.parts |= part::APPENDS;
                    let (begin, length) = self.place(chunk.value.as_str().as_bytes());
                    let row = self.appends.row();
                    row.int(append.run.0).text(&chunk.stream).text(&chunk.part).int(append.at.0).maybe(append.token);
                    row.int(i64::from(append.doubtful)).size(begin).size(length);
                }
            }
        }
    }

    /// How a commit leaves its run, as columns.
    #[derive(Default)]
    struct Left<'c> {
        status: &'static str,
        wake_at: Option<i64>,
        worker: Option<i64>,
        block: Option<(&'static str, String, &'c str)>,
        closed: bool,
    }

    impl<'c> Left<'c> {
        fn of(leaves: &'c Leaves) -> Self {
            let none = Self::default();
            match leaves {
                Leaves::Running(worker) => Self { status: "running", worker: Some(worker.0), ..none },
                Leaves::Waiting { wake_at } => Self { status: "waiting", wake_at: wake_at.map(|at| at.0), ..none },
                Leaves::Due { at } => Self { status: "due", wake_at: Some(at.0), ..none },
                Leaves::Blocked { reason, build } => {
                    Self { status: "blocked", block: Some((reason.code(), reason.to_string(), build)), ..none }
                }
                Leaves::Closed(how) => Self { status: how.word(), closed: true, ..none },
            }
        }
    }

    pub(super) async fn write(tx: &mut SqliteConnection, batch: &Batch, frame: Frame) -> Result<Facts, sqlx::Error> {
        let encoded = Encoded::of(batch);
        let whole = match frame {
            Frame::Whole => part::OPENS | part::CLOSES,
            Frame::Opens => part::OPENS,
            Frame::Closes => part::CLOSES,
            Frame::Inside => 0,
        };
        let mut facts = Facts {
            arrivals: vec![ArrivalFact::Unknown; batch.arrivals.len()],
            commits: batch
                .commits
                .iter()
                .map(|commit| CommitFact::Applied { due: matches!(commit.leaves, Leaves::Due { .. }) })
                .collect(),
            ..Facts::default()
        };
        let query = sqlx::query(text(encoded.parts | whole))
            .bind(encoded.commits.done())
            .bind(encoded.lines.done())
            .bind(encoded.bytes)
            .bind(encoded.begins.done())
            .bind(encoded.arrivals.done())
            .bind(encoded.taken.done())
            .bind(encoded.values.done())
            .bind(encoded.appends.done());
        let mut told = tx.fetch_many(query);
        while let Some(said) = told.try_next().await? {
            if let Either::Right(row) = said {
                note(&mut facts, &row)?;
            }
        }
        Ok(facts)
    }

    /// Takes in what one row says about one part of the batch.
    fn note(facts: &mut Facts, row: &SqliteRow) -> Result<(), sqlx::Error> {
        let i = usize::try_from(row.try_get::<i64, _>(1)?).unwrap_or(usize::MAX);
        let about: &str = row.try_get(0)?;
        if about == "arrival" {
            let Some(fact) = facts.arrivals.get_mut(i) else { return Ok(()) };
            *fact = arrival_fact(row)?;
            return Ok(());
        }
        let Some(fact) = facts.commits.get_mut(i) else { return Ok(()) };
        *fact = match about {
            "holder" if *fact == CommitFact::Gone => {
                CommitFact::IdInUse { holder: RunKey(row.try_get(2)?), status: row.try_get(3)? }
            }
            "commit" if row.try_get::<i64, _>(2)? == 3 => CommitFact::Applied { due: true },
            "commit" => match row.try_get::<Option<i64>, _>(3)? {
                Some(fence) => {
                    CommitFact::Held { fence: Fence(fence), head: Seq(row.try_get(4)?), accepted: row.try_get(5)? }
                }
                None => CommitFact::Gone,
            },
            _ => return Ok(()),
        };
        Ok(())
    }

    fn arrival_fact(row: &SqliteRow) -> Result<ArrivalFact, sqlx::Error> {
        let outcome: Option<&str> = row.try_get(2)?;
        Ok(match outcome {
            Some("new") => ArrivalFact::New { run: RunKey(row.try_get(3)?), ordinal: row.try_get(4)? },
            Some("already") => ArrivalFact::Already {
                run: RunKey(row.try_get(3)?),
                ordinal: row.try_get(4)?,
                at: Instant(row.try_get(5)?),
            },
            Some("closed") => ArrivalFact::Closed { status: row.try_get(6)? },
            Some("full") => ArrivalFact::Full { pending: row.try_get(7)? },
            _ => ArrivalFact::Unknown,
        })
    }
}

#[cfg(feature = "postgres")]
pub(super) mod postgres {
    use std::collections::HashMap;
    use std::sync::OnceLock;
    use std::time::Duration;

    use sqlx::postgres::PgRow;
    use sqlx::{PgConnection, Row};

    use super::super::accept::postgres::accept;
    use super::super::contract::{Commit, Leaves};
    use super::super::stream::postgres::append;
    use super::writer::{Batch, CommitFact, Facts, Frame};
    use crate::id::{Fence, RunKey, Seq};
    use crate::run::Closed;

    /// How often a statement that met another process's unfinished write is sent again at once.
    const AGAIN_MAX: u32 = 4;

    /// A server that says nothing for so long is taken for lost.
    const ANSWER_BY: Duration = Duration::from_secs(30);

    /// With `Frame::Whole` on no open transaction, with `Frame::Inside` in the open one.
    ///
    /// On no open transaction each part is one statement and a transaction of its own. One statement cannot change a
    /// row twice, and an arrival may be for a run that also has a commit in the batch; one transaction of several
    /// statements would lock rows out of order, and wait for another process in a circle. If a later part fails, the
    /// batch is there partly, and is sent again as one whose outcome is unknown.
    pub(super) async fn write(tx: &mut PgConnection, batch: &Batch, frame: Frame) -> Result<Facts, sqlx::Error> {
        match frame {
            Frame::Whole => {}
            Frame::Inside => return parts(tx, batch, frame).await,
            Frame::Opens => {
                super::super::writer::postgres::begin(tx).await?;
                return parts(tx, batch, frame).await;
            }
            Frame::Closes => {
                let facts = parts(tx, batch, frame).await?;
                super::super::writer::postgres::end(tx).await?;
                return Ok(facts);
            }
        }
        // A network that has gone away does not say so.
        let answer = tokio::time::timeout(ANSWER_BY, parts(tx, batch, frame)).await;
        answer.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
    }

    /// Every connection is ready.
    pub(super) async fn prepare(_: &mut PgConnection) -> Result<(), sqlx::Error> {
        Ok(())
    }

    async fn parts(tx: &mut PgConnection, batch: &Batch, frame: Frame) -> Result<Facts, sqlx::Error> {
        let mut facts = Facts::default();
        if !batch.arrivals.is_empty() {
            facts.arrivals = accept(tx, batch, frame).await?;
        }
        if !batch.commits.is_empty() {
            facts.commits = commit(tx, batch, frame).await?;
        }
        let mut tries = Tries::of(frame);
        while !batch.appends.is_empty() {
            if let Some(appended) = tries.settled(append(tx, &batch.appends).await) {
                appended?;
                break;
            }
        }
        Ok(facts)
    }

    /// Counts how often a statement met another process that wrote the same signal, or to the same stream, or waited in
    /// a circle with this one. By then the other one has ended, and what it wrote is seen. Inside a transaction that is
    /// open there is no second try.
    pub(in super::super) struct Tries(u32);

    impl Tries {
        pub(in super::super) fn of(frame: Frame) -> Self {
            Self(if frame == Frame::Whole { AGAIN_MAX } else { 1 })
        }

        /// The result; none if the statement is to be sent again.
        pub(in super::super) fn settled<T>(
            &mut self,
            result: Result<T, sqlx::Error>,
        ) -> Option<Result<T, sqlx::Error>> {
            self.0 -= 1;
            let code = result.as_ref().err().and_then(sqlx::Error::as_database_error).and_then(|said| said.code());
            let collided = matches!(code.as_deref(), Some("23505" | "40001" | "40P01"));
            if collided && self.0 > 0 { None } else { Some(result) }
        }
    }

    /// Applies what may be applied and says how the rest stands.
    ///
    /// What is looked up stands in subqueries and arrays, not in joins: so it is found by its key whatever the planner
    /// believes about a table's size. `latest > 0` keeps the index of latest runs out of it, for the same reason.
    ///
    /// Under READ COMMITTED a statement that waited for a row's lock looks at that row again, but not at other rows:
    /// every condition is therefore on columns of the row that is locked. Rows are locked in the order of their keys, as
    /// an index scan over `any` goes in that order; so two processes do not wait for each other in a circle.
    async fn commit(tx: &mut PgConnection, batch: &Batch, frame: Frame) -> Result<Vec<CommitFact>, sqlx::Error> {
        let mut facts = HashMap::with_capacity(batch.commits.len());
        let asked: Vec<Asked<'_>> = batch.commits.iter().zip(batch.fences.iter().copied()).collect();
        // Runs that are ended to make room for others come first: no part of a statement sees what another part does.
        let (ends, others): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(_, fence)| fence.is_some());
        for mut asked in [ends, others] {
            // A run whose id was in use may begin if the one that had it has ended meanwhile.
            for _ in 0..AGAIN_MAX {
                if asked.is_empty() {
                    break;
                }
                apply(tx, &asked, frame, &mut facts).await?;
                batch.partly();
                asked.retain(|(it, _)| facts.get(&it.run.0).is_some_and(id_is_free));
            }
        }
        Ok(batch.commits.iter().map(|it| facts.remove(&it.run.0).unwrap_or(CommitFact::Gone)).collect())
    }

    fn id_is_free(fact: &CommitFact) -> bool {
        matches!(fact, CommitFact::IdInUse { status, .. } if Closed::from_word(status).is_some())
    }

    /// A commit, and the fence to leave if it is not the commit's own.
    type Asked<'c> = (&'c Commit, Option<Fence>);

    async fn apply(
        tx: &mut PgConnection,
        asked: &[Asked<'_>],
        frame: Frame,
        facts: &mut HashMap<i64, CommitFact>,
    ) -> Result<(), sqlx::Error> {
        let mut tries = Tries::of(frame);
        let row = loop {
            if let Some(row) = tries.settled(statement(tx, asked).await) {
                break row?;
            }
        };
        let landed: Vec<i64> = row.try_get::<Option<_>, _>(0)?.unwrap_or_default();
        let due: Vec<i64> = row.try_get::<Option<_>, _>(1)?.unwrap_or_default();
        let all_landed = landed.len() == asked.len();
        facts.extend(landed.into_iter().map(|run| (run, CommitFact::Applied { due: false })));
        facts.extend(due.into_iter().map(|run| (run, CommitFact::Applied { due: true })));
        if !all_landed {
            let applied = |it: &&Asked<'_>| facts.get(&it.0.run.0).is_some_and(CommitFact::is_applied);
            let refused: Vec<Asked<'_>> = asked.iter().filter(|it| !applied(it)).copied().collect();
            let stand = stand(tx, &refused).await?;
            facts.extend(refused.into_iter().map(|(it, _)| it.run.0).zip(stand));
        }
        Ok(())
    }

    /// How the rows stand that refused a commit. What refused it still does: fences and counters only grow, and only
    /// the owner moves the head.
    async fn stand(tx: &mut PgConnection, refused: &[Asked<'_>]) -> Result<Vec<CommitFact>, sqlx::Error> {
        let keys: Vec<i64> = refused.iter().map(|(it, _)| it.run.0).collect();
        let begun = Begun::of(refused);
        let rows = sqlx::query(
            "select key, fence, head, signals_accepted, null, null, status
             from runs
             where key = any ($1)
             union all
             select key, fence, head, signals_accepted, namespace, id, status
             from runs
             where key = any (array(
                 select (select r.key from runs r where r.namespace = b.namespace and r.id = b.id and r.latest = 1)
                 from unnest($2::text[], $3::text[]) as b (namespace, id)))",
        )
        .bind(&keys)
        .bind(&begun.namespace)
        .bind(&begun.id)
        .fetch_all(tx)
        .await?;
        let (mut held, mut holders) = (HashMap::new(), HashMap::new());
        for row in &rows {
            let key: i64 = row.try_get(0)?;
            if let (Some(namespace), Some(id)) =
                (row.try_get::<Option<&str>, _>(4)?, row.try_get::<Option<&str>, _>(5)?)
            {
                let wanted = begun.namespace.iter().zip(&begun.id).position(|it| it == (&namespace, &id));
                if let Some(wanted) = wanted {
                    let status = row.try_get(6)?;
                    holders.insert(begun.key[wanted], CommitFact::IdInUse { holder: RunKey(key), status });
                }
            } else {
                let (fence, head) = (Fence(row.try_get(1)?), Seq(row.try_get(2)?));
                held.insert(key, CommitFact::Held { fence, head, accepted: row.try_get(3)? });
            }
        }
        let fact = |key: &i64| held.remove(key).or_else(|| holders.remove(key)).unwrap_or(CommitFact::Gone);
        Ok(keys.iter().map(fact).collect())
    }

    /// Some commits begin their run.
    const BEGINS: usize = 1;
    /// Some take signals.
    const TAKES: usize = 2;
    /// Some block their run, or leave another fence than their own.
    const SETS: usize = 4;
    /// Some publish values.
    const PUBLISHES: usize = 8;
    /// Some answer updates.
    const REPLIES: usize = 16;
    /// Some append to streams.
    const STREAMS: usize = 32;

    /// Which parts of the statement some commits need.
    fn parts_of(asked: &[Asked<'_>]) -> usize {
        let part = |needed: bool, part| if needed { part } else { 0 };
        asked.iter().fold(0, |parts, (commit, fence)| {
            parts
                | part(commit.begins.is_some(), BEGINS)
                | part(!commit.taken.is_empty(), TAKES)
                | part(fence.is_some() || matches!(commit.leaves, Leaves::Blocked { .. }), SETS)
                | part(!commit.published.is_empty(), PUBLISHES)
                | part(!commit.replies.is_empty(), REPLIES)
                | part(!commit.chunks.is_empty(), STREAMS)
        })
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

    /// Applies commits by one statement; it tells the runs that landed, and those of them that are due.
    async fn statement(tx: &mut PgConnection, asked: &[Asked<'_>]) -> Result<PgRow, sqlx::Error> {
        let parts = parts_of(asked);
        let rows = Columns::of(asked);
        let mut query = sqlx::query(text(parts))
            .bind(rows.run)
            .bind(rows.fence)
            .bind(rows.head)
            .bind(rows.lines)
            .bind(rows.status)
            .bind(rows.wake_at)
            .bind(rows.worker)
            .bind(rows.seen)
            .bind(rows.drained)
            .bind(rows.at)
            .bind(rows.line_run)
            .bind(rows.line_seq)
            .bind(rows.line_kind)
            .bind(rows.line_version)
            .bind(rows.line_at)
            .bind(rows.line_payload);
        if parts > 0 {
            let begun = Begun::of(asked);
            query = query
                .bind(begun.key)
                .bind(begun.namespace)
                .bind(begun.id)
                .bind(begun.workflow)
                .bind(begun.version)
                .bind(begun.thread);
        }
        if parts > BEGINS {
            let extras = Extras::of(asked);
            query = query
                .bind(extras.fence)
                .bind(extras.block_code)
                .bind(extras.block_text)
                .bind(extras.block_build)
                .bind(extras.taken_run)
                .bind(extras.taken_ordinal)
                .bind(extras.published_run)
                .bind(extras.published_name)
                .bind(extras.published_value)
                .bind(extras.reply_run)
                .bind(extras.reply_id)
                .bind(extras.reply_value)
                .bind(extras.chunk_run)
                .bind(extras.chunk_stream)
                .bind(extras.chunk_nth)
                .bind(extras.chunk_part)
                .bind(extras.chunk_at)
                .bind(extras.chunk_value);
        }
        query.fetch_one(tx).await
    }

    /// The statement for commits that need these parts. A table that it does not name costs nothing; naming one that gets
    /// no row costs as much as a row. Nothing in a text comes from outside.
    fn text(parts: usize) -> &'static str {
        static TEXTS: [OnceLock<String>; 64] = [const { OnceLock::new() }; 64];
        TEXTS[parts % 64].get_or_init(|| {
            let with = |part, text: &'static str| if parts & part > 0 { text } else { "" };
            [
                "with c as (
                   select *
                   from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[],
                               $7::bigint[], $8::bigint[], $9::boolean[], $10::bigint[]",
                with(SETS, ", $23::bigint[], $24::text[], $25::text[], $26::text[]"),
                ") as c (run, fence, head, lines, status, wake_at, worker, seen, drained, at",
                with(SETS, ", leaves_fence, block_code, block_text, block_build"),
                ")),",
                with(TAKES, TAKING),
                with(BEGINS, RETIRED),
                with(BEGINS, BEGUN),
                with(BEGINS, if parts & SETS > 0 { BEGUN_SET } else { BEGUN_PLAIN }),
                if parts & BEGINS > 0 { "moved" } else { "landed" },
                " as (
                   update runs r
                   set head = r.head + c.lines,
                       status = case
                         when c.status = 'waiting' and c.seen < r.signals_accepted then 'due'
                         else c.status
                       end,
                       wake_at = case
                         when c.status = 'waiting' and c.seen < r.signals_accepted then c.at
                         else c.wake_at
                       end,
                       worker = c.worker,",
                with(TAKES, "signals_pending = r.signals_pending - coalesce(counted.signals, 0),"),
                if parts & SETS > 0 { SET } else { SET_NONE },
                "      closed_at = case
                         when c.status in ('completed', 'failed', 'cancelled', 'terminated') then c.at
                       end,
                       updated_at = c.at
                   from c",
                with(TAKES, " left join counted on counted.run = c.run"),
                " where r.key = any ($1)
                     and r.key = c.run
                     and r.fence = c.fence
                     and r.head = c.head
                     and r.closed_at is null
                     and not (c.drained and r.signals_accepted <> c.seen)
                   returning r.key, r.status
                 ),",
                with(BEGINS, LANDED),
                "written as (
                   insert into journal (run, seq, kind, version, at, payload)
                   select l.run, l.seq, l.kind, l.version, l.at, l.payload
                   from unnest($11::bigint[], $12::bigint[], $13::text[], $14::bigint[], $15::bigint[], $16::bytea[])
                     as l (run, seq, kind, version, at, payload)
                   join landed on landed.key = l.run
                 )",
                with(TAKES, TAKEN),
                with(PUBLISHES, PUBLISHED),
                with(REPLIES, REPLIED),
                with(STREAMS, STREAMED),
                " select array_agg(key), array_agg(key) filter (where status = 'due')
                 from landed",
            ]
            .concat()
        })
    }

    const SET: &str = "
                       fence = c.leaves_fence,
                       block_code = c.block_code,
                       block_text = c.block_text,
                       block_build = c.block_build,";

    const SET_NONE: &str = "
                       block_code = null,
                       block_text = null,
                       block_build = null,";

    const TAKING: &str = "
        taking as materialized (
          select t.run, (
                   select s.ctid
                   from signals s
                   where s.run = t.run
                     and s.ordinal = t.ordinal
                     and s.taken = 0) as row
          from (select distinct run, ordinal from unnest($27::bigint[], $28::bigint[]) as t (run, ordinal)) t
        ),
        counted as (
          select run, count(row) as signals
          from taking
          group by run
        ),";

    const TAKEN: &str = ",
        taken as (
          update signals s
          set taken = 1,
              payload = null
          where s.ctid = any (array(select t.row from taking t join landed on landed.key = t.run))
        )";

    const RETIRED: &str = "
        retired as (
          update runs r
          set latest = 0
          where r.key = any (array(
              select (select o.key from runs o where o.namespace = b.namespace and o.id = b.id and o.latest = 1)
              from unnest($18::text[], $19::text[]) as b (namespace, id)))
            and r.latest > 0
            and r.closed_at is not null
            and r.key <> all ($17)
          returning r.key
        ),";

    const BEGUN: &str = "
        begun as (
          insert into runs (key, namespace, id, workflow, version, thread, status, wake_at, worker, head, closed_at,
                            created_at, updated_at, fence, block_code, block_text, block_build)
          select b.key, b.namespace, b.id, b.workflow, b.version, b.thread, c.status, c.wake_at, c.worker, c.lines,
                 case when c.status in ('completed', 'failed', 'cancelled', 'terminated') then c.at end, c.at, c.at,";

    const BEGUN_PLAIN: &str = "
                 c.fence, null, null, null
          from unnest($17::bigint[], $18::text[], $19::text[], $20::text[], $21::bigint[], $22::bigint[])
            as b (key, namespace, id, workflow, version, thread)
          join c on c.run = b.key
          where (select count(*) from retired) >= 0
          order by b.namespace, b.id
          on conflict do nothing
          returning key, status
        ),";

    const BEGUN_SET: &str = "
                 c.leaves_fence, c.block_code, c.block_text, c.block_build
          from unnest($17::bigint[], $18::text[], $19::text[], $20::text[], $21::bigint[], $22::bigint[])
            as b (key, namespace, id, workflow, version, thread)
          join c on c.run = b.key
          where (select count(*) from retired) >= 0
          order by b.namespace, b.id
          on conflict do nothing
          returning key, status
        ),";

    const LANDED: &str = "
        landed as (
          select key, status from moved
          union all
          select key, status from begun
        ),";

    const PUBLISHED: &str = ",
        shown as (
          insert into published (run, name, value)
          select p.run, p.name, p.value
          from unnest($29::bigint[], $30::text[], $31::bytea[]) as p (run, name, value)
          join landed on landed.key = p.run
          on conflict (run, name) do update set value = excluded.value
        )";

    const REPLIED: &str = ",
        replied as (
          insert into replies (run, id, value)
          select a.run, a.id, a.value
          from unnest($32::bigint[], $33::text[], $34::bytea[]) as a (run, id, value)
          join landed on landed.key = a.run
          on conflict do nothing
        )";

    const STREAMED: &str = ",
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
        )";

    /// The rows of runs that begin.
    #[derive(Default)]
    struct Begun<'c> {
        key: Vec<i64>,
        namespace: Vec<&'c str>,
        id: Vec<&'c str>,
        workflow: Vec<&'c str>,
        version: Vec<i64>,
        thread: Vec<Option<i64>>,
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
                begun.thread.push(new.thread.map(|thread| thread.0));
            }
            begun
        }
    }

    /// What few commits have.
    #[derive(Default)]
    struct Extras<'c> {
        fence: Vec<i64>,
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

//! `start`: the door in for runs. A start that needs no look is a commit that begins a run; the others look first.

use std::sync::atomic::Ordering;

use super::contract::{Arrival, Commit, Leaves, Lines, Refusal, Start, StartRefused, Started, Verdict};
use super::open::Store;
use super::turns::ThreadPart;
use super::writer::{self, Batch, CommitFact, Frame, Shared, StartAnswer};
use super::{Addressee, Error};
use crate::id::{Fence, RunId, RunKey};
use crate::journal::RunTerminated;
use crate::run::{Closed, IfClosed, IfOpen, KeyKept, Run};
use crate::signal::{Accepted, Pending, Refused};

/// A caller's own transaction on the store's database.
#[derive(Debug)]
pub enum CallerTx<'t> {
    /// On SQLite.
    #[cfg(feature = "sqlite")]
    Sqlite(&'t mut sqlx::SqliteConnection),
    /// On Postgres.
    #[cfg(feature = "postgres")]
    Postgres(&'t mut sqlx::PgConnection),
}

impl CallerTx<'_> {
    pub(super) fn again(&mut self) -> CallerTx<'_> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(it) => CallerTx::Sqlite(it),
            #[cfg(feature = "postgres")]
            Self::Postgres(it) => CallerTx::Postgres(it),
        }
    }
}

impl Store {
    /// Reserves `n` run keys that no other process gets. Keys of a block that is not used up are lost, not reused.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Closed`].
    pub async fn reserve_keys(&self, n: u32) -> Result<std::ops::Range<i64>, Error> {
        let n = i64::from(n);
        let last: i64 = self.alone("reserve run keys", move |tx, _| Box::pin(keys(tx, n))).await?;
        Ok(last - n + 1..last + 1)
    }

    /// Begins a run, or finds the one that has its id or its idempotency key. It is durable once this returns: row,
    /// journal, signals and idempotency key were written together.
    ///
    /// # Errors
    /// The inner one says why nothing was begun; nothing was written. [`Error::Overloaded`] if the writer's queue stayed
    /// full for five seconds; [`Error::Unavailable`], [`Error::Closed`].
    pub async fn start(&self, start: Start) -> Result<Result<(RunKey, Started), StartRefused>, Error> {
        self.0.shared.open()?;
        let answer = self.send_start(start).await?;
        self.heard(answer).await
    }

    /// Begins many runs. Each has its own answer, in the same order, and is durable on its own.
    ///
    /// # Errors
    /// As [`Store::start`].
    pub async fn start_many(&self, starts: Vec<Start>) -> Result<Vec<Result<(RunKey, Started), StartRefused>>, Error> {
        self.0.shared.open()?;
        let mut waiting = Vec::with_capacity(starts.len());
        for start in starts {
            waiting.push(self.send_start(start).await?);
        }
        let mut answers = Vec::with_capacity(waiting.len());
        for answer in waiting {
            answers.push(self.heard(answer).await?);
        }
        Ok(answers)
    }

    /// Begins a run inside the caller's own transaction on this store's database: the run exists if and only if that
    /// transaction commits. Nobody is hinted; a poll finds the run.
    ///
    /// # Errors
    /// The inner one says why nothing was begun. [`Error::Unavailable`] if the database refuses; the caller rolls back.
    pub async fn start_in(
        &self,
        mut tx: CallerTx<'_>,
        start: Start,
    ) -> Result<Result<(RunKey, Started), StartRefused>, Error> {
        self.0.shared.open()?;
        self.0.shared.alive().await;
        // The caller's connection has never seen a batch.
        let prepared = super::commit::prepare(tx.again()).await;
        prepared.map_err(|e| Error::unavailable("start a run in the caller's transaction", e))?;
        let began = begin_all(tx, &[start], false, Frame::Inside)
            .await
            .map_err(|e| Error::unavailable("start a run in the caller's transaction", e))?;
        began.answers.into_iter().next().ok_or_else(|| Error::Corrupt { found: "a start without an answer".into() })
    }
}

/// Takes keys for runs out of the sequence, inside a transaction; the last one.
pub(super) async fn keys(tx: CallerTx<'_>, n: i64) -> Result<i64, sqlx::Error> {
    twins!(CallerTx: tx, reserve_keys(n))
}

/// Whether a start is no more than a commit that begins a run.
pub(super) fn is_plain(start: &Start) -> bool {
    start.if_open == IfOpen::Fail
        && start.if_closed == IfClosed::Allow
        && start.idempotency_key.is_none()
        && start.signals.is_empty()
}

/// What the caller of a plain start is told.
pub(super) fn answer_plain(id: &RunId, run: RunKey, verdict: Verdict, fact: &CommitFact) -> Result<StartAnswer, Error> {
    match (verdict, fact) {
        (Verdict::Applied, _) => Ok(Ok((run, Started::New))),
        (_, CommitFact::IdInUse { status, .. }) => {
            Ok(Err(StartRefused::Open { run: id.clone(), status: status_word(status) }))
        }
        // The run is there under this very key: it landed when its answer was lost, and somebody has it by now.
        (
            Verdict::Refused(Refusal::Fenced { .. } | Refusal::Moved { .. } | Refusal::IdInUse),
            CommitFact::Held { .. },
        ) => Ok(Ok((run, Started::New))),
        (Verdict::Refused(refusal), _) => Err(Error::Corrupt { found: format!("start of run {id}: {refusal}") }),
    }
}

pub(super) fn status_word(word: &str) -> &'static str {
    ["due", "running", "waiting", "blocked", "completed", "failed", "cancelled", "terminated"]
        .into_iter()
        .find(|known| *known == word)
        .unwrap_or("open")
}

/// What a start finds before it writes.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    /// The run that the idempotency key names, if the key still counts at the start's time: until it expires, or while
    /// its run is open.
    pub(super) by_key: Option<RunKey>,
    /// The latest run with the id; its row is locked.
    pub(super) latest: Option<Run>,
    /// Which of the start's signals (by place) the latest run has accepted before.
    pub(super) known: Vec<usize>,
}

/// What became of starts that looked first.
#[derive(Debug, Default)]
pub(super) struct Began {
    pub(super) answers: Vec<StartAnswer>,
    new: u64,
    signalled: Vec<(RunKey, Vec<Pending>)>,
    ended: Vec<RunKey>,
    due: bool,
}

/// Tells the engine here and processes elsewhere what was begun.
pub(super) fn announce(shared: &Shared, began: &Began) {
    let signals: usize = began.signalled.iter().map(|(_, signals)| signals.len()).sum();
    shared.arrivals.fetch_add(began.new + signals as u64, Ordering::SeqCst);
    for run in &began.ended {
        shared.taken_away(*run);
    }
    for (run, signals) in &began.signalled {
        shared.signalled(*run, signals.clone());
    }
    if began.due {
        shared.due();
    }
}

/// Starts whose ids and idempotency keys are distinct, in one transaction. `doubtful`: they may have landed before, and
/// nobody was told.
pub(super) async fn begin_all(
    mut tx: CallerTx<'_>,
    starts: &[Start],
    doubtful: bool,
    frame: Frame,
) -> Result<Began, sqlx::Error> {
    if frame == Frame::Whole {
        writer::begin(tx.again()).await?;
    }
    let mut answers: Vec<Option<StartAnswer>> = vec![None; starts.len()];
    let mut began = Began { due: doubtful, ..Began::default() };
    // On Postgres another process may take an id between the look and the write; then the start looks again.
    for _ in 0..8 {
        let open: Vec<usize> = (0..starts.len()).filter(|i| answers[*i].is_none()).collect();
        if open.is_empty() {
            break;
        }
        let asked: Vec<&Start> = open.iter().map(|i| &starts[*i]).collect();
        let looks = look(tx.again(), &asked).await?;
        let mut plan = Plan::default();
        for ((i, start), look) in open.iter().zip(asked).zip(looks) {
            if let Some(answer) = plan.decide(*i, start, look) {
                answers[*i] = Some(answer);
            }
        }
        if !plan.ends.commits.is_empty() {
            let facts = writer_write(tx.again(), &plan.ends).await?.commits;
            let ends = plan.ends.commits.iter().zip(facts);
            began.ended.extend(ends.filter(|(_, fact)| fact.is_applied()).map(|(commit, _)| commit.run));
        }
        let facts = if plan.commits.commits.is_empty() {
            Vec::new()
        } else {
            writer_write(tx.again(), &plan.commits).await?.commits
        };
        let mut landed = vec![false; starts.len()];
        for ((commit, fact), i) in plan.commits.commits.iter().zip(facts).zip(&plan.commits_of) {
            let i = *i;
            match fact {
                CommitFact::Applied { due } => {
                    began.due |= due;
                    began.new += 1;
                    landed[i] = true;
                    answers[i] = Some(Ok((commit.run, Started::New)));
                }
                CommitFact::Held { .. } => answers[i] = Some(Ok((commit.run, Started::New))),
                CommitFact::IdInUse { .. } | CommitFact::Gone => {}
            }
        }
        let keys: Vec<Kept<'_>> = starts
            .iter()
            .zip(&landed)
            .filter(|(_, landed)| **landed)
            .filter_map(|(start, _)| Kept::of(start))
            .collect();
        if !keys.is_empty() {
            keep(tx.again(), &keys).await?;
        }
        let mut arrivals = Batch::default();
        for (i, run) in &plan.signals {
            // A run that is to begin takes its signals only once it has.
            if landed[*i] || starts[*i].commit.run != *run {
                let to = Addressee::Key(*run);
                arrivals.arrivals.extend(starts[*i].signals.iter().map(|it| Arrival { to: to.clone(), ..it.clone() }));
            }
        }
        if !arrivals.arrivals.is_empty() {
            let facts = writer_write(tx.again(), &arrivals).await?.arrivals;
            for (arrival, fact) in arrivals.arrivals.iter().zip(facts) {
                if let Ok((run, Accepted::New { ordinal })) = super::accept::answer(arrival, &fact, doubtful) {
                    let signal = super::accept::pending(arrival, ordinal);
                    match began.signalled.iter_mut().find(|(key, _)| *key == run) {
                        Some((_, signals)) => signals.push(signal),
                        None => began.signalled.push((run, vec![signal])),
                    }
                }
            }
        }
    }
    began.answers = answers
        .into_iter()
        .map(|answer| answer.ok_or_else(|| sqlx::Error::Protocol("a start found its id taken again and again".into())))
        .collect::<Result<_, _>>()?;
    if frame == Frame::Whole {
        writer::end(tx).await?;
    }
    Ok(began)
}

async fn writer_write(tx: CallerTx<'_>, batch: &Batch) -> Result<writer::Facts, sqlx::Error> {
    super::commit::write(tx, batch, Frame::Inside).await
}

/// What starts that have looked are going to write.
#[derive(Default)]
struct Plan {
    /// Runs that are terminated to make room; written first, as their ids must be free.
    ends: Batch,
    commits: Batch,
    /// Beside each commit: which start it begins.
    commits_of: Vec<usize>,
    /// Which start's signals go to which run.
    signals: Vec<(usize, RunKey)>,
}

impl Plan {
    /// The answer, if nothing has to be written for it but signals.
    fn decide(&mut self, i: usize, start: &Start, look: Look) -> Option<StartAnswer> {
        let ours = start.commit.run;
        if let Some(first) = look.by_key {
            let started = if first == ours { Started::New } else { Started::Existing(first) };
            return Some(Ok((first, started)));
        }
        let Some(latest) = look.latest else { return self.begin(i, start) };
        if latest.key == ours {
            return Some(Ok((ours, Started::New)));
        }
        let (id, status) = (latest.id.clone(), latest.status.word());
        match (&latest.status, start.if_open, start.if_closed) {
            (crate::run::Status::Closed { how, .. }, _, policy) => match (policy, how) {
                (IfClosed::Refuse, _) | (IfClosed::AllowIfFailed, Closed::Completed) => {
                    Some(Err(StartRefused::Closed { run: id, status }))
                }
                (IfClosed::Allow | IfClosed::AllowIfFailed, _) => self.begin(i, start),
            },
            (_, IfOpen::Fail, _) => Some(Err(StartRefused::Open { run: id, status })),
            (_, IfOpen::UseExisting, _) => Some(Ok((latest.key, Started::Existing(latest.key)))),
            (_, IfOpen::SignalExisting, _) => {
                let new = start.signals.len() - look.known.len();
                if let Some(refused) = too_many(start, &id, latest.signals_pending, new) {
                    return Some(Err(refused));
                }
                if !start.signals.is_empty() {
                    self.signals.push((i, latest.key));
                }
                Some(Ok((latest.key, Started::Existing(latest.key))))
            }
            (_, IfOpen::TerminateAndStart, _) => {
                if let Some(refused) = too_many(start, &id, 0, start.signals.len()) {
                    return Some(Err(refused));
                }
                self.terminate(start, &latest);
                self.begin(i, start)
            }
        }
    }

    fn begin(&mut self, i: usize, start: &Start) -> Option<StartAnswer> {
        let id = start.commit.begins.as_ref().map(|new| &new.id)?;
        if let Some(refused) = too_many(start, id, 0, start.signals.len()) {
            return Some(Err(refused));
        }
        self.commits.commit(start.commit.clone(), None);
        self.commits_of.push(i);
        if !start.signals.is_empty() {
            self.signals.push((i, start.commit.run));
        }
        None
    }

    /// Ends a run over its owner's head: the fence moves on, so whatever the owner still writes is refused.
    fn terminate(&mut self, start: &Start, run: &Run) {
        let mut lines = Lines::default();
        let reason = "another run was started under its id".to_owned();
        lines.push(start.commit.at, &RunTerminated { reason, by: start.by.clone() }.into());
        let thread = run.thread.map(|thread| Box::new(ThreadPart { thread, ..ThreadPart::default() }));
        let commit = Commit {
            lines,
            signals_seen: run.signals_accepted,
            thread,
            ..Commit::new(run.key, run.fence, run.head, Leaves::Closed(Closed::Terminated), start.commit.at)
        };
        self.ends.commit(commit, Some(Fence(run.fence.0 + 1)));
    }
}

fn too_many(start: &Start, id: &RunId, pending: i64, new: usize) -> Option<StartRefused> {
    let limit = start.signals.iter().map(|it| it.pending_max).min()?;
    let new = i64::try_from(new).unwrap_or(i64::MAX);
    (new > 0 && pending.saturating_add(new) > limit)
        .then(|| Refused::TooManyPending { run: id.to_string(), pending, limit }.into())
}

/// An idempotency key to keep.
pub(super) struct Kept<'s> {
    pub(super) namespace: &'s str,
    pub(super) key: &'s str,
    pub(super) run: RunKey,
    /// None: while the run is open.
    pub(super) expires_at: Option<i64>,
}

impl<'s> Kept<'s> {
    fn of(start: &'s Start) -> Option<Self> {
        let key = start.idempotency_key.as_ref()?;
        let new = start.commit.begins.as_ref()?;
        Some(Self {
            namespace: new.namespace.as_str(),
            key: &key.key,
            run: start.commit.run,
            expires_at: match key.kept {
                KeyKept::For(span) => Some((start.commit.at + span).0),
                KeyKept::WhileOpen => None,
            },
        })
    }
}

/// What each start finds, in the same order. Rows that are found are locked until the transaction ends.
async fn look(tx: CallerTx<'_>, starts: &[&Start]) -> Result<Vec<Look>, sqlx::Error> {
    twins!(CallerTx: tx, look(starts))
}

/// Writes idempotency keys; one that is there is spent and is replaced.
async fn keep(tx: CallerTx<'_>, keys: &[Kept<'_>]) -> Result<(), sqlx::Error> {
    twins!(CallerTx: tx, keep(keys))
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::{Row as _, SqliteConnection};

    use super::{Kept, Look, Run, RunKey, Start};
    use crate::store::json::Json;
    use crate::store::read::RunRow;

    pub(super) async fn reserve_keys(tx: &mut SqliteConnection, n: i64) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(
            "update counters
             set value = value + $1
             where name = 'runs'
             returning value",
        )
        .bind(n)
        .fetch_one(tx)
        .await
    }

    // Nothing is locked row by row: the transaction is the only one that writes.
    pub(super) async fn look(tx: &mut SqliteConnection, starts: &[&Start]) -> Result<Vec<Look>, sqlx::Error> {
        let mut looks: Vec<Look> = starts.iter().map(|_| Look::default()).collect();
        let mut ids = Json::default();
        let mut keys = Json::default();
        let mut signals = Json::default();
        for (i, start) in starts.iter().enumerate() {
            let Some(new) = &start.commit.begins else { continue };
            ids.row().size(i).text(new.namespace.as_str()).text(new.id.as_str());
            if let Some(key) = &start.idempotency_key {
                keys.row().size(i).text(new.namespace.as_str()).text(&key.key).int(start.commit.at.0);
            }
            for (k, signal) in start.signals.iter().enumerate() {
                let row = signals.row();
                row.size(i).size(k).text(new.namespace.as_str()).text(new.id.as_str()).text(&signal.id);
            }
        }
        let latest = sqlx::query(
            "select l.value ->> 0 as i,
                    key, namespace, id, workflow, version, status, wake_at, worker, fence, head, signals_accepted,
                    signals_pending, block_code, block_text, closed_at, created_at, updated_at, thread
             from (select value from json_each($1)) l
             cross join runs r on r.namespace = l.value ->> 1 and r.id = l.value ->> 2 and r.latest = 1",
        )
        .bind(ids.done())
        .fetch_all(&mut *tx)
        .await?;
        for row in latest {
            if let Some(look) = place(&mut looks, row.try_get(0)?) {
                look.latest = Some(Run::try_from(<RunRow as sqlx::FromRow<_>>::from_row(&row)?)?);
            }
        }
        if let Some(keys) = keys.done() {
            let named: Vec<(i64, i64)> = sqlx::query_as(
                "select l.value ->> 0, k.run
                 from json_each($1) l
                 cross join idempotency k on k.namespace = l.value ->> 1 and k.key = l.value ->> 2
                 cross join runs r on r.key = k.run
                 where k.expires_at > l.value ->> 3
                    or (k.expires_at is null and r.closed_at is null)",
            )
            .bind(keys)
            .fetch_all(&mut *tx)
            .await?;
            for (i, run) in named {
                if let Some(look) = place(&mut looks, i) {
                    look.by_key = Some(RunKey(run));
                }
            }
        }
        if let Some(signals) = signals.done() {
            let known: Vec<(i64, i64)> = sqlx::query_as(
                "select l.value ->> 0, l.value ->> 1
                 from json_each($1) l
                 cross join runs r on r.namespace = l.value ->> 2 and r.id = l.value ->> 3 and r.latest = 1
                 cross join signals s on s.run = r.key and s.id = l.value ->> 4",
            )
            .bind(signals)
            .fetch_all(&mut *tx)
            .await?;
            for (i, k) in known {
                if let (Some(look), Ok(k)) = (place(&mut looks, i), usize::try_from(k)) {
                    look.known.push(k);
                }
            }
        }
        Ok(looks)
    }

    fn place(looks: &mut [Look], i: i64) -> Option<&mut Look> {
        looks.get_mut(usize::try_from(i).ok()?)
    }

    pub(super) async fn keep(tx: &mut SqliteConnection, keys: &[Kept<'_>]) -> Result<(), sqlx::Error> {
        let mut rows = Json::default();
        for key in keys {
            rows.row().text(key.namespace).text(key.key).int(key.run.0).maybe(key.expires_at);
        }
        sqlx::query(
            "insert into idempotency (namespace, key, run, expires_at)
             select value ->> 0, value ->> 1, value ->> 2, value ->> 3
             from json_each($1)
             where true
             on conflict (namespace, key) do update
             set run = excluded.run, expires_at = excluded.expires_at",
        )
        .bind(rows.done())
        .execute(tx)
        .await
        .map(drop)
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use std::collections::HashMap;

    use sqlx::PgConnection;

    use super::super::read::RunRow;
    use super::{IfOpen, Kept, Look, Run, RunKey, Start};

    /// Adds `n` to the counter `runs` and returns what it is then.
    pub(super) async fn reserve_keys(tx: &mut PgConnection, n: i64) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(
            "update counters
             set value = value + $1
             where name = 'runs'
             returning value",
        )
        .bind(n)
        .fetch_one(tx)
        .await
    }

    pub(super) async fn look(tx: &mut PgConnection, starts: &[&Start]) -> Result<Vec<Look>, sqlx::Error> {
        let mut looks: Vec<Look> = starts.iter().map(|_| Look::default()).collect();
        for (i, run) in spent(tx, starts).await? {
            looks[i].by_key = Some(run);
        }
        for (i, run) in latest(tx, starts).await? {
            looks[i].latest = Some(run);
        }
        for (i, signal) in known(tx, starts, &looks).await? {
            looks[i].known.push(signal);
        }
        Ok(looks)
    }

    /// The runs that idempotency keys name.
    ///
    /// A key that is not there has no row to lock. So a lock by its hash stands for it until the transaction ends: of
    /// two processes that start under one key, the second sees what the first has begun.
    async fn spent(tx: &mut PgConnection, starts: &[&Start]) -> Result<Vec<(usize, RunKey)>, sqlx::Error> {
        let (mut namespaces, mut keys, mut ats, mut of) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (i, start) in starts.iter().enumerate() {
            if let (Some(key), Some(new)) = (&start.idempotency_key, &start.commit.begins) {
                namespaces.push(new.namespace.as_str());
                keys.push(key.key.as_str());
                ats.push(start.commit.at.0);
                of.push(i);
            }
        }
        if of.is_empty() {
            return Ok(Vec::new());
        }
        // In the order of the hashes, so that two processes do not wait for each other in a circle.
        sqlx::query(
            "select pg_advisory_xact_lock(hash)
             from (
               select distinct hashtextextended(current_schema() || '/' || k.namespace || '/' || k.key, 0) as hash
               from unnest($1::text[], $2::text[]) as k (namespace, key)
               order by 1
             ) h",
        )
        .bind(&namespaces)
        .bind(&keys)
        .execute(&mut *tx)
        .await?;
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "select k.nth, k.run
             from (
               select k.nth, k.at,
                      (select i.run from idempotency i where i.namespace = k.namespace and i.key = k.key) as run,
                      (select i.expires_at from idempotency i where i.namespace = k.namespace and i.key = k.key) as until
               from unnest($1::text[], $2::text[], $3::bigint[]) with ordinality as k (namespace, key, at, nth)
             ) k
             where k.until > k.at
                or (k.until is null and (select r.closed_at is null from runs r where r.key = k.run))",
        )
        .bind(&namespaces)
        .bind(&keys)
        .bind(&ats)
        .fetch_all(tx)
        .await?;
        Ok(rows.into_iter().filter_map(|(nth, run)| Some((of[place(nth)?], RunKey(run)))).collect())
    }

    /// The latest runs with the ids, locked in the order of their keys.
    async fn latest(tx: &mut PgConnection, starts: &[&Start]) -> Result<Vec<(usize, Run)>, sqlx::Error> {
        let news = starts.iter().map(|it| it.commit.begins.as_ref());
        let namespaces: Vec<Option<&str>> = news.clone().map(|new| Some(new?.namespace.as_str())).collect();
        let ids: Vec<Option<&str>> = news.map(|new| Some(new?.id.as_str())).collect();
        let rows: Vec<RunRow> = sqlx::query_as(
            "select key, namespace, id, workflow, version, status, wake_at, worker, fence, head, signals_accepted,
                    signals_pending, block_code, block_text, closed_at, created_at, updated_at, thread
             from runs
             where key = any (array(
                 select (select r.key from runs r where r.namespace = s.namespace and r.id = s.id and r.latest = 1)
                 from unnest($1::text[], $2::text[]) as s (namespace, id)))
               and latest > 0
             order by key
             for no key update",
        )
        .bind(&namespaces)
        .bind(&ids)
        .fetch_all(tx)
        .await?;
        let mut of: HashMap<(&str, &str), usize> = HashMap::new();
        for (i, name) in namespaces.iter().zip(&ids).enumerate() {
            if let (Some(namespace), Some(id)) = name {
                of.insert((namespace, id), i);
            }
        }
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let run = Run::try_from(row)?;
            if let Some(i) = of.get(&(run.namespace.as_str(), run.id.as_str())) {
                found.push((*i, run));
            }
        }
        Ok(found)
    }

    /// Which signals the latest runs have accepted before.
    async fn known(
        tx: &mut PgConnection,
        starts: &[&Start],
        looks: &[Look],
    ) -> Result<Vec<(usize, usize)>, sqlx::Error> {
        let (mut runs, mut ids, mut of) = (Vec::new(), Vec::new(), Vec::new());
        for (i, (start, look)) in starts.iter().zip(looks).enumerate() {
            if let (IfOpen::SignalExisting, Some(latest)) = (start.if_open, &look.latest) {
                for (n, signal) in start.signals.iter().enumerate() {
                    runs.push(latest.key.0);
                    ids.push(signal.id.as_str());
                    of.push((i, n));
                }
            }
        }
        if of.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<(i64,)> = sqlx::query_as(
            "select k.nth
             from unnest($1::bigint[], $2::text[]) with ordinality as k (run, id, nth)
             where (select s.ordinal from signals s where s.run = k.run and s.id = k.id) is not null
             order by k.nth",
        )
        .bind(&runs)
        .bind(&ids)
        .fetch_all(tx)
        .await?;
        Ok(rows.into_iter().filter_map(|(nth,)| Some(of[place(nth)?])).collect())
    }

    /// What `with ordinality` counts from 1.
    fn place(nth: i64) -> Option<usize> {
        usize::try_from(nth).ok()?.checked_sub(1)
    }

    pub(super) async fn keep(tx: &mut PgConnection, keys: &[Kept<'_>]) -> Result<(), sqlx::Error> {
        let namespaces: Vec<&str> = keys.iter().map(|it| it.namespace).collect();
        let names: Vec<&str> = keys.iter().map(|it| it.key).collect();
        let runs: Vec<i64> = keys.iter().map(|it| it.run.0).collect();
        let expire: Vec<Option<i64>> = keys.iter().map(|it| it.expires_at).collect();
        sqlx::query(
            "insert into idempotency (namespace, key, run, expires_at)
             select k.namespace, k.key, k.run, k.expires_at
             from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) as k (namespace, key, run, expires_at)
             on conflict (namespace, key) do update
             set run = excluded.run,
                 expires_at = excluded.expires_at",
        )
        .bind(&namespaces)
        .bind(&names)
        .bind(&runs)
        .bind(&expire)
        .execute(tx)
        .await
        .map(drop)
    }
}

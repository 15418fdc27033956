//! What a turn's commits leave with its thread, and how the thread is handed on when a turn ends: in the commit that ends
//! it, so a signal is either taken by the turn, or its follow-up takes it, or it finds the thread idle (T10.9).

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::commit;
use super::contract::{Commit, Leaves, NewRun};
use super::lanes;
use super::receive::{self, Form, Input};
use super::start::CallerTx;
use super::writer::{self, Append, Batch, Facts, Frame};
use crate::clock::Instant;
use crate::id::{Namespace, RunId, RunKey, Seq, ThreadKey};
use crate::journal::Event;
use crate::message::{Lane, LaneCopy, Mode};
use crate::payload::Payload;
use crate::thread::{NewCall, NewLane, NewMessage, TurnInput};

/// What a commit leaves with the thread that its run answers.
#[derive(Debug, Clone, Default)]
pub struct ThreadPart {
    /// The thread.
    pub thread: ThreadKey,
    /// What enters the history, in this order.
    pub messages: Vec<NewMessage>,
    /// What subscribers are shown, in this order.
    pub shown: Vec<Payload>,
    /// Tool calls that wait for an answer from outside.
    pub suspends: Vec<NewCall>,
    /// Calls that wait no longer.
    pub settles: Vec<String>,
    /// How lanes stand with state signals among the messages.
    pub lanes: Vec<NewLane>,
}

/// A message on its way into a thread's history, where it gets the next place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'m> {
    pub(super) thread: ThreadKey,
    /// The turn that it belongs to.
    pub(super) run: Option<RunKey>,
    pub(super) message: &'m NewMessage,
}

/// What waits for the current turn of a thread to end.
#[derive(Debug, Clone)]
pub(super) struct Queued {
    pub(super) thread: ThreadKey,
    pub(super) place: i64,
    /// The turn; for what is only shown, a number that says nothing.
    pub(super) run: RunKey,
    pub(super) run_id: RunId,
    pub(super) agent: String,
    input: String,
    owner: Option<String>,
    /// What is shown; none for a turn.
    shown: Option<Vec<Payload>>,
    at: Instant,
}

impl Queued {
    pub(super) fn turn(thread: ThreadKey, place: i64, input: &Input) -> Self {
        Self {
            thread,
            place,
            run: input.turn.run,
            run_id: input.turn.id.clone(),
            agent: input.agent.clone(),
            input: input.id.clone(),
            owner: input.owner.clone(),
            shown: None,
            at: input.at,
        }
    }

    pub(super) fn shown(thread: ThreadKey, place: i64, input: &Input, form: &Form) -> Self {
        Self { shown: Some(form.shown.clone()), owner: None, ..Self::turn(thread, place, input) }
    }

    pub(super) fn held(thread: ThreadKey, place: i64, run: RunKey, run_id: RunId, agent: &str) -> Self {
        let (input, agent) = (String::new(), agent.to_owned());
        Self { thread, place, run, run_id, agent, input, owner: None, shown: None, at: Instant(0) }
    }

    fn kind(&self) -> &'static str {
        if self.shown.is_some() { "shown" } else { "turn" }
    }

    fn value(&self) -> Result<Option<Payload>, sqlx::Error> {
        self.shown.as_ref().map(Payload::of).transpose().map_err(|e| sqlx::Error::Encode(Box::new(e)))
    }
}

/// The chunks of what was put into the history of an idle thread, as a write to its stream.
pub(super) fn shown(thread: ThreadKey, part: &str, chunks: Vec<Payload>, at: Instant) -> Append {
    let chunks = chunks.into_iter().map(|value| receive::chunk(part, value)).collect();
    Append { run: RunKey(thread.0), chunks, at, token: None, doubtful: false }
}

/// Writes a batch some of whose runs are turns, in one transaction: threads are locked first, by key, then runs.
pub(super) async fn write(mut tx: CallerTx<'_>, batch: &Batch, frame: Frame) -> Result<Facts, sqlx::Error> {
    let threads = threads_of(batch);
    let rows_in = twins!(CallerTx: tx.again(), open(&threads, frame))?;
    let mut facts = commit::rows(tx.again(), batch, rows_in).await?;
    let landed: Vec<&Commit> = batch
        .commits
        .iter()
        .zip(&facts.commits)
        .filter(|(commit, fact)| commit.thread.is_some() && fact.is_applied())
        .map(|(commit, _)| commit)
        .collect();
    let last = if frame == Frame::Whole { Frame::Closes } else { Frame::Inside };
    let closed = leave(tx.again(), &landed, &mut facts, last).await?;
    if frame == Frame::Whole && !closed {
        writer::end(tx).await?;
    }
    Ok(facts)
}

/// Writes what commits that have landed leave with their threads; where it can be, the last of it is written as the `last`
/// part of the transaction. Whether it was.
async fn leave(mut tx: CallerTx<'_>, landed: &[&Commit], facts: &mut Facts, last: Frame) -> Result<bool, sqlx::Error> {
    let parts = number(tx.again(), landed).await?;
    let mut left = Left::default();
    for (commit, part) in landed.iter().zip(&parts) {
        left.gather(commit, part);
    }
    if !left.messages.is_empty() {
        add_messages(tx.again(), &left.messages).await?;
    }
    if !left.settles.is_empty() {
        twins!(CallerTx: tx.again(), settle(&left.settles))?;
    }
    if !left.suspends.is_empty() {
        twins!(CallerTx: tx.again(), suspend(&left.suspends))?;
    }
    if !left.appends.is_empty() {
        facts.shown.extend(left.appends.iter().map(|append| ThreadKey(append.run.0)));
        let batch = Batch::of_appends(left.appends);
        if left.ended.is_empty() {
            commit::rows(tx, &batch, last).await?;
            return Ok(last == Frame::Closes);
        }
        commit::rows(tx.again(), &batch, Frame::Inside).await?;
    }
    if left.ended.is_empty() { Ok(false) } else { hand_on(tx, &left.ended, facts, last).await }
}

/// What commits leave with their threads, each state signal with its version in it, and tracked (T14.6).
async fn number<'c>(mut tx: CallerTx<'_>, landed: &[&'c Commit]) -> Result<Vec<Cow<'c, ThreadPart>>, sqlx::Error> {
    let mut parts: Vec<Cow<'c, ThreadPart>> =
        landed.iter().filter_map(|commit| commit.thread.as_deref()).map(Cow::Borrowed).collect();
    let changed: Vec<(ThreadKey, &str)> =
        parts.iter().flat_map(|part| part.lanes.iter().map(|it| (part.thread, it.lane.as_str()))).collect();
    if changed.is_empty() {
        return Ok(parts);
    }
    let mut standing = lanes::standing(tx.again(), &changed).await?;
    let mut moved: HashSet<(ThreadKey, String)> = HashSet::new();
    for (commit, part) in landed.iter().zip(&mut parts) {
        for new in part.lanes.clone() {
            let name = (part.thread, new.lane.clone());
            let (lane, version) = tracked(standing.get(&name), &new, commit.at)?;
            if version != new.version {
                renumber(part.to_mut(), &new.signal, version);
            }
            standing.insert(name.clone(), lane);
            moved.insert(name);
        }
    }
    let lanes: Vec<(ThreadKey, &Lane)> = moved.iter().filter_map(|name| Some((name.0, standing.get(name)?))).collect();
    lanes::track(tx, &lanes).await?;
    Ok(parts)
}

/// How a lane stands with a signal of a processor, and the signal's version.
fn tracked(before: Option<&Lane>, new: &NewLane, at: Instant) -> Result<(Lane, u64), sqlx::Error> {
    let mode = if new.is_delta { Mode::Delta } else { Mode::Snapshot };
    let version = match before {
        Some(before) if new.again && before.says(&new.cache_key, mode) => before.version,
        before => Lane::next_version(before),
    };
    let copy = LaneCopy { id: new.signal.clone(), cache_key: new.cache_key.clone(), mode, version };
    let window: Vec<LaneCopy> = new.window.read().map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
    Ok((Lane::after(before, &new.lane, copy, &window, at), version))
}

/// A state signal gets another version: somebody else was there first.
fn renumber(part: &mut ThreadPart, signal: &str, version: u64) {
    for message in part.messages.iter_mut().filter(|message| message.id == signal) {
        message.row = receive::numbered(&message.row, version);
    }
    for chunk in &mut part.shown {
        let is_its = chunk.read::<serde_json::Value>().is_ok_and(|chunk| chunk["data"]["id"] == signal);
        if is_its {
            *chunk = receive::numbered(chunk, version);
        }
    }
}

/// What many commits leave with their threads.
#[derive(Debug, Default)]
struct Left<'c> {
    messages: Vec<Entry<'c>>,
    suspends: Vec<(RunKey, ThreadKey, &'c NewCall, Instant)>,
    settles: Vec<(RunKey, &'c str)>,
    appends: Vec<Append>,
    ended: Vec<Ended>,
}

/// A turn that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub(super) thread: ThreadKey,
    pub(super) run: RunKey,
    pub(super) at: Instant,
}

impl<'c> Left<'c> {
    fn gather(&mut self, commit: &Commit, part: &'c ThreadPart) {
        let run = Some(commit.run);
        let entry = |message| Entry { thread: part.thread, run, message };
        self.messages.extend(part.messages.iter().map(entry));
        self.suspends.extend(part.suspends.iter().map(|call| (commit.run, part.thread, call, commit.at)));
        self.settles.extend(part.settles.iter().map(|call| (commit.run, call.as_str())));
        if !part.shown.is_empty() {
            self.appends.push(shown(part.thread, &commit.run.to_string(), part.shown.clone(), commit.at));
        }
        if matches!(commit.leaves, Leaves::Closed(_)) {
            self.ended.push(Ended { thread: part.thread, run: commit.run, at: commit.at });
        }
    }
}

/// Hands threads on: to a turn that takes what was not taken, else to the head of the queue, else to nobody (T9.7). Whether
/// the transaction has ended with it.
async fn hand_on(mut tx: CallerTx<'_>, ended: &[Ended], facts: &mut Facts, last: Frame) -> Result<bool, sqlx::Error> {
    let stands: Vec<StandsRow> = twins!(CallerTx: tx.again(), stands(ended))?;
    let stands: HashMap<ThreadKey, StandsRow> = stands.into_iter().map(|row| (ThreadKey(row.key), row)).collect();
    let has_it = |it: &Ended| stands.get(&it.thread).is_some_and(|row| row.run == Some(it.run.0));
    let (ended, gone): (Vec<Ended>, Vec<Ended>) = ended.iter().partition(|it| has_it(it));
    if !gone.is_empty() {
        // They ended in the queue, before their turn.
        twins!(CallerTx: tx.again(), unqueue_runs(&gone))?;
    }
    if ended.is_empty() {
        return Ok(false);
    }
    let any =
        |what: fn(&StandsRow) -> i64| ended.iter().any(|it| stands.get(&it.thread).is_some_and(|row| what(row) != 0));
    if any(|row| row.calls) {
        twins!(CallerTx: tx.again(), settle_all(&ended))?;
    }
    let mut untaken = if any(|row| row.untaken) { untaken(tx.again(), &ended).await? } else { HashMap::new() };
    let mut openings = openings(tx.again(), untaken.keys().map(|run| run.0).collect()).await?;
    let mut queues = if any(|row| row.waiting) { heads(tx.again(), &ended).await? } else { HashMap::new() };
    let n = untaken.len() as i64;
    let mut keys = if n > 0 {
        let last = super::start::keys(tx.again(), n).await?;
        last - n + 1..last + 1
    } else {
        0..0
    };
    let mut plan = HandOn::default();
    for ended in ended {
        let last_place = stands.get(&ended.thread).map_or(0, |row| row.last_place);
        let queue = queues.remove(&ended.thread).unwrap_or_default();
        let follow_up = match untaken.remove(&ended.run) {
            None => None,
            Some(first) => {
                let opening = openings.remove(&ended.run).zip(keys.next());
                let (opening, key) =
                    opening.ok_or_else(|| sqlx::Error::Decode(format!("run {} has no beginning", ended.run).into()))?;
                Some((opening, RunKey(key), first))
            }
        };
        plan.hand_on(ended, last_place, queue, follow_up);
    }
    plan.write(tx, facts, last).await?;
    Ok(last == Frame::Closes)
}

/// How a turn began: what a follow-up of it is made of.
pub(super) struct Opening {
    pub(super) id: RunId,
    pub(super) namespace: Namespace,
    pub(super) workflow: String,
    pub(super) version: u32,
    pub(super) input: TurnInput,
}

/// What handing threads on writes.
#[derive(Debug, Default)]
struct HandOn {
    begins: Batch,
    /// Runs whose untaken signals are taken along.
    emptied: Vec<RunKey>,
    /// Turns that have left the queue and are due.
    revived: Vec<Queued>,
    /// Chunks that have left the queue and are shown.
    shown: Vec<Queued>,
    /// Turns that wait although nobody has the thread.
    held: Vec<Queued>,
    moved: HashMap<ThreadKey, receive::Moved>,
}

impl HandOn {
    fn hand_on(
        &mut self,
        ended: Ended,
        last_place: i64,
        mut queue: Vec<Queued>,
        follow_up: Option<(Opening, RunKey, Vec<Payload>)>,
    ) {
        let mut moved = receive::Moved { run: None, agent: None, last_place, at: ended.at };
        let turn = queue.pop_if(|last| last.shown.is_none());
        self.shown.extend(queue.into_iter().map(|it| Queued { at: ended.at, ..it }));
        if let Some((Opening { id, namespace, workflow, version, input }, key, first)) = follow_up {
            self.emptied.push(ended.run);
            let new = NewRun { key, namespace, id: RunId::generate(), workflow, version, thread: Some(ended.thread) };
            let leaves = if input.follow_ups_left == 0 {
                // Too many in a row (T10.8): it waits until somebody writes again, ahead of all others.
                tracing::warn!(
                    run = %id, thread = %input.thread,
                    "a thread goes idle with signals pending: {} turns followed each other", input.follow_ups_max
                );
                let place = turn.as_ref().map_or(last_place + 1, |turn| turn.place - 1);
                moved.last_place = last_place.max(place);
                self.held.push(Queued::held(ended.thread, place, key, new.id.clone(), &input.agent));
                Leaves::Waiting { wake_at: None }
            } else {
                (moved.run, moved.agent) = (Some(key), Some(input.agent.clone()));
                Leaves::Due { at: ended.at }
            };
            let next = input.follow_up(first);
            self.begins.commit(receive::begins(new, uuid::Uuid::new_v4(), &next, leaves, ended.at), None);
        } else if let Some(turn) = turn {
            (moved.run, moved.agent) = (Some(turn.run), Some(turn.agent.clone()));
            self.revived.push(Queued { at: ended.at, ..turn });
        }
        self.moved.insert(ended.thread, moved);
    }

    async fn write(self, mut tx: CallerTx<'_>, facts: &mut Facts, last: Frame) -> Result<(), sqlx::Error> {
        facts.due |= !self.begins.commits.is_empty() || !self.revived.is_empty();
        if !self.begins.commits.is_empty() {
            commit::rows(tx.again(), &self.begins, Frame::Inside).await?;
        }
        if !self.emptied.is_empty() {
            empty(tx.again(), &self.emptied).await?;
        }
        if !self.shown.is_empty() {
            unqueue(tx.again(), &self.shown).await?;
            facts.shown.extend(self.shown.iter().map(|it| it.thread));
            let appends = self.shown.into_iter();
            let appends = appends.map(|it| shown(it.thread, &it.input, it.shown.unwrap_or_default(), it.at)).collect();
            commit::rows(tx.again(), &Batch::of_appends(appends), Frame::Inside).await?;
        }
        if !self.held.is_empty() {
            enqueue(tx.again(), &self.held).await?;
        }
        if !self.revived.is_empty() {
            facts.shown.extend(self.revived.iter().map(|it| it.thread));
            revive(tx.again(), &self.revived).await?;
        }
        receive::move_threads(tx, &self.moved, last).await
    }
}

/// The threads of a batch's turns, by key.
fn threads_of(batch: &Batch) -> Vec<i64> {
    let mut threads: Vec<i64> = batch.commits.iter().filter_map(|it| Some(it.thread.as_ref()?.thread.0)).collect();
    threads.sort_unstable();
    threads.dedup();
    threads
}

/// Adds messages to histories, each at the next place of its thread; one that is there by its id stays where it is.
pub(super) async fn add_messages(mut tx: CallerTx<'_>, entries: &[Entry<'_>]) -> Result<(), sqlx::Error> {
    let again: Vec<Entry<'_>> = entries.iter().filter(|it| it.message.again).copied().collect();
    if !again.is_empty() {
        twins!(CallerTx: tx.again(), rewrite_messages(&again))?;
    }
    twins!(CallerTx: tx, add_messages(entries))
}

/// Puts turns, and what is shown, into the queues of their threads.
pub(super) async fn enqueue(tx: CallerTx<'_>, queued: &[Queued]) -> Result<(), sqlx::Error> {
    twins!(CallerTx: tx, enqueue(queued))
}

/// Takes turns out of the queue and makes them due.
pub(super) async fn revive(mut tx: CallerTx<'_>, queued: &[Queued]) -> Result<(), sqlx::Error> {
    unqueue(tx.again(), queued).await?;
    twins!(CallerTx: tx, make_due(queued))
}

/// What runs were sent and have not taken, they never will.
pub(super) async fn empty(tx: CallerTx<'_>, runs: &[RunKey]) -> Result<(), sqlx::Error> {
    twins!(CallerTx: tx, empty(runs))
}

async fn unqueue(tx: CallerTx<'_>, queued: &[Queued]) -> Result<(), sqlx::Error> {
    twins!(CallerTx: tx, unqueue(queued))
}

/// What turns were sent and have not taken, in the order of acceptance; turns that have taken everything are not in it.
async fn untaken(tx: CallerTx<'_>, ended: &[Ended]) -> Result<HashMap<RunKey, Vec<Payload>>, sqlx::Error> {
    let rows: Vec<UntakenRow> = twins!(CallerTx: tx, untaken(ended))?;
    let mut untaken: HashMap<RunKey, Vec<Payload>> = HashMap::new();
    for row in rows {
        let payload = payload_in(row.payload, || format!("a signal of run {}", row.run))?;
        untaken.entry(RunKey(row.run)).or_default().push(payload);
    }
    Ok(untaken)
}

/// How runs began.
pub(super) async fn openings(tx: CallerTx<'_>, runs: Vec<i64>) -> Result<HashMap<RunKey, Opening>, sqlx::Error> {
    if runs.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<OpeningRow> = twins!(CallerTx: tx, openings(&runs))?;
    rows.into_iter().map(|row| Ok((RunKey(row.run), row.opening()?))).collect()
}

/// The heads of the queues: what is shown, up to the first turn and with it.
async fn heads(tx: CallerTx<'_>, ended: &[Ended]) -> Result<HashMap<ThreadKey, Vec<Queued>>, sqlx::Error> {
    let rows: Vec<QueueRow> = twins!(CallerTx: tx, heads(ended))?;
    let mut queues: HashMap<ThreadKey, Vec<Queued>> = HashMap::new();
    for row in rows {
        queues.entry(ThreadKey(row.thread)).or_default().push(row.queued()?);
    }
    Ok(queues)
}

fn payload_in(stored: Vec<u8>, what: impl Fn() -> String) -> Result<Payload, sqlx::Error> {
    super::read::payload_of(stored).map_err(|e| sqlx::Error::Decode(format!("{}: {e}", what()).into()))
}

/// `key, run, last_place, waiting, untaken, calls`
#[derive(Debug, sqlx::FromRow)]
struct StandsRow {
    key: i64,
    run: Option<i64>,
    last_place: i64,
    /// Whether its queue holds something.
    waiting: i64,
    /// How many signals its turn has not taken.
    untaken: i64,
    /// Whether its turn waits for answers to calls.
    calls: i64,
}

/// `run, payload`, in the order of acceptance
#[derive(Debug, sqlx::FromRow)]
struct UntakenRow {
    run: i64,
    payload: Vec<u8>,
}

/// The run's row, and the first line of its journal: `run, namespace, id, workflow, version, kind, form, payload`
#[derive(Debug, sqlx::FromRow)]
struct OpeningRow {
    run: i64,
    namespace: String,
    id: String,
    workflow: String,
    version: i64,
    kind: String,
    form: i64,
    payload: Vec<u8>,
}

impl OpeningRow {
    fn opening(self) -> Result<Opening, sqlx::Error> {
        let run = self.run;
        let corrupt = |found: String| sqlx::Error::Decode(format!("run {run}: {found}").into());
        let json = std::str::from_utf8(&self.payload).map_err(|e| corrupt(e.to_string()))?;
        let form = i16::try_from(self.form).map_err(|e| corrupt(e.to_string()))?;
        let event = Event::decode(Seq(1), &self.kind, form, json).map_err(|e| corrupt(e.to_string()))?;
        let input = match event {
            Event::RunQueued(queued) => queued.input,
            Event::RunStarted(started) => started.input.ok_or_else(|| corrupt("no input".into()))?,
            _ => return Err(corrupt(format!("it begins with {}", self.kind))),
        };
        Ok(Opening {
            id: RunId::parse(&self.id).map_err(|e| corrupt(e.to_string()))?,
            namespace: Namespace::parse(&self.namespace).map_err(|e| corrupt(e.to_string()))?,
            workflow: self.workflow,
            version: u32::try_from(self.version).map_err(|e| corrupt(e.to_string()))?,
            input: input.read().map_err(|e| corrupt(e.to_string()))?,
        })
    }
}

/// `thread, place, kind, run, run_id, agent, input, owner, value`, sorted by thread and place
#[derive(Debug, sqlx::FromRow)]
struct QueueRow {
    thread: i64,
    place: i64,
    kind: String,
    run: Option<i64>,
    run_id: Option<String>,
    agent: Option<String>,
    input: String,
    owner: Option<String>,
    value: Option<Vec<u8>>,
}

impl QueueRow {
    fn queued(self) -> Result<Queued, sqlx::Error> {
        let corrupt = |found: String| {
            sqlx::Error::Decode(format!("place {} of thread {}: {found}", self.place, self.thread).into())
        };
        let shown = match (self.kind.as_str(), self.value) {
            ("turn", _) => None,
            (_, value) => {
                let value = payload_in(value.unwrap_or_default(), || format!("thread {}", self.thread))?;
                Some(value.read::<Vec<Payload>>().map_err(|e| corrupt(e.to_string()))?)
            }
        };
        let run_id = match (&shown, &self.run_id) {
            (None, Some(id)) => RunId::parse(id).map_err(|e| corrupt(e.to_string()))?,
            (Some(_), _) => RunId::generate(),
            (None, None) => return Err(corrupt("its turn is not there".into())),
        };
        Ok(Queued {
            thread: ThreadKey(self.thread),
            place: self.place,
            run: RunKey(self.run.unwrap_or_default()),
            run_id,
            agent: self.agent.unwrap_or_default(),
            input: self.input,
            owner: self.owner,
            shown,
            at: Instant(0),
        })
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::SqliteConnection;

    use super::{
        Ended, Entry, Frame, Instant, NewCall, OpeningRow, QueueRow, Queued, RunKey, StandsRow, ThreadKey, UntakenRow,
    };
    use crate::store::json::Json;

    /// The rows open the transaction themselves, which is then the only one that writes: nothing is locked.
    #[expect(clippy::unused_async, reason = "its twin waits")]
    pub(super) async fn open(_: &mut SqliteConnection, _: &[i64], frame: Frame) -> Result<Frame, sqlx::Error> {
        Ok(if matches!(frame, Frame::Whole | Frame::Opens) { Frame::Opens } else { Frame::Inside })
    }

    /// Messages as rows of fields, and the bytes of what they say.
    fn encoded(entries: &[Entry<'_>]) -> (Option<String>, Vec<u8>) {
        let (mut json, mut bytes) = (Json::default(), Vec::new());
        for it in entries {
            let content = it.message.row.as_str().as_bytes();
            let row = json.row().int(it.thread.0).text(&it.message.id).text(it.message.role);
            match it.message.category {
                Some(category) => row.text(category),
                None => row.null(),
            };
            row.maybe(it.run.map(|run| run.0)).int(it.message.at.0).size(bytes.len() + 1).size(content.len());
            bytes.extend_from_slice(content);
        }
        (json.done(), bytes)
    }

    pub(super) async fn rewrite_messages(tx: &mut SqliteConnection, entries: &[Entry<'_>]) -> Result<(), sqlx::Error> {
        let (json, bytes) = encoded(entries);
        sqlx::query(
            "update messages
             set content = substr($2, m.begin, m.length)
             from (
                 select value ->> 0 as thread, value ->> 1 as id, value ->> 4 as run, value ->> 6 as begin,
                        value ->> 7 as length
                 from json_each($1)
             ) m
             where messages.thread = m.thread and messages.id = m.id and messages.role = 'assistant';

             update threads
             set edits = edits + 1
             where key in (
                 select m.thread
                 from json_each($1) e
                 cross join messages m on m.thread = e.value ->> 0 and m.id = e.value ->> 1
                 where m.run is not e.value ->> 4
             )",
        )
        .bind(json)
        .bind(bytes)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn add_messages(tx: &mut SqliteConnection, entries: &[Entry<'_>]) -> Result<(), sqlx::Error> {
        let (json, bytes) = encoded(entries);
        sqlx::query(
            "insert into messages (thread, seq, id, role, category, run, created_at, content)
             select m.thread, t.last_seq + row_number() over (partition by m.thread order by m.k), m.id, m.role, m.category,
                    m.run, max(t.updated_at, max(m.at) over (partition by m.thread order by m.k)),
                    substr($2, m.begin, m.length)
             from (
                 select key as k, value ->> 0 as thread, value ->> 1 as id, value ->> 2 as role, value ->> 3 as category,
                        value ->> 4 as run, value ->> 5 as at, value ->> 6 as begin, value ->> 7 as length
                 from json_each($1)
             ) m
             cross join threads t on t.key = m.thread
             where not exists (select 1 from messages o where o.thread = m.thread and o.id = m.id)
             order by m.k
             on conflict do nothing;

             update threads
             set last_seq = coalesce((select max(o.seq) from messages o where o.thread = m.thread), last_seq),
                 updated_at = max(updated_at, m.at)
             from (select value ->> 0 as thread, max(value ->> 5) as at from json_each($1) group by 1) m
             where threads.key = m.thread",
        )
        .bind(json)
        .bind(bytes)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn settle_all(tx: &mut SqliteConnection, ended: &[Ended]) -> Result<(), sqlx::Error> {
        sqlx::query(
            "update calls
             set settled = 1
             where run in (select value ->> 1 from json_each($1)) and settled = 0",
        )
        .bind(of(ended))
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn suspend(
        tx: &mut SqliteConnection,
        calls: &[(RunKey, ThreadKey, &NewCall, Instant)],
    ) -> Result<(), sqlx::Error> {
        let (mut json, mut bytes) = (Json::default(), Vec::new());
        for (run, thread, call, at) in calls {
            let value = call.value.as_str().as_bytes();
            let row = json.row().int(run.0).text(&call.call).int(thread.0).text(&call.tool);
            row.size(bytes.len() + 1).size(value.len()).int(at.0).maybe(call.expires_at.map(|at| at.0));
            bytes.extend_from_slice(value);
        }
        sqlx::query(
            "insert into calls (run, call, thread, tool, value, since, expires_at)
             select value ->> 0, value ->> 1, value ->> 2, value ->> 3, substr($2, value ->> 4, value ->> 5), value ->> 6,
                    value ->> 7
             from json_each($1)
             where true
             on conflict do nothing",
        )
        .bind(json.done())
        .bind(bytes)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn settle(tx: &mut SqliteConnection, calls: &[(RunKey, &str)]) -> Result<(), sqlx::Error> {
        let mut json = Json::default();
        for (run, call) in calls {
            json.row().int(run.0).text(call);
        }
        sqlx::query(
            "update calls
             set settled = 1
             where (run, call) in (select value ->> 0, value ->> 1 from json_each($1))",
        )
        .bind(json.done())
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn enqueue(tx: &mut SqliteConnection, queued: &[Queued]) -> Result<(), sqlx::Error> {
        let (mut json, mut bytes) = (Json::default(), Vec::new());
        for it in queued {
            let value = it.value()?;
            let value = value.as_ref().map(|value| value.as_str().as_bytes());
            let row = json.row().int(it.thread.0).int(it.place).text(it.kind()).int(it.run.0).text(&it.input);
            match &it.owner {
                Some(owner) => row.text(owner),
                None => row.null(),
            };
            row.text(&it.agent);
            match value {
                Some(value) => row.size(bytes.len() + 1).size(value.len()),
                None => row.null().null(),
            };
            bytes.extend_from_slice(value.unwrap_or_default());
        }
        sqlx::query(
            "insert into queue (thread, place, kind, run, input, owner, agent, value)
             select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
                    substr($2, value ->> 7, value ->> 8)
             from json_each($1)",
        )
        .bind(json.done())
        .bind(bytes)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn unqueue(tx: &mut SqliteConnection, queued: &[Queued]) -> Result<(), sqlx::Error> {
        let mut json = Json::default();
        for it in queued {
            json.row().int(it.thread.0).int(it.place);
        }
        sqlx::query(
            "delete from queue
             where (thread, place) in (select value ->> 0, value ->> 1 from json_each($1))",
        )
        .bind(json.done())
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn unqueue_runs(tx: &mut SqliteConnection, gone: &[Ended]) -> Result<(), sqlx::Error> {
        let mut json = Json::default();
        for it in gone {
            json.row().int(it.thread.0).int(it.run.0);
        }
        sqlx::query(
            "delete from queue
             where kind = 'turn' and (thread, run) in (select value ->> 0, value ->> 1 from json_each($1))",
        )
        .bind(json.done())
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn make_due(tx: &mut SqliteConnection, queued: &[Queued]) -> Result<(), sqlx::Error> {
        let mut json = Json::default();
        for it in queued {
            json.row().int(it.run.0).int(it.at.0);
        }
        sqlx::query(
            "update runs
             set status = 'due', wake_at = q.at, updated_at = q.at
             from (select value ->> 0 as run, value ->> 1 as at from json_each($1)) q
             where runs.key = q.run and runs.status = 'waiting'",
        )
        .bind(json.done())
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn empty(tx: &mut SqliteConnection, runs: &[RunKey]) -> Result<(), sqlx::Error> {
        let mut json = Json::default();
        for run in runs {
            json.row().int(run.0);
        }
        let json = json.done();
        sqlx::query(
            "update runs
             set signals_pending = signals_pending - n.number
             from (
                 select s.run, count(*) as number
                 from json_each($1) r
                 cross join signals s on s.run = r.value ->> 0 and s.taken = 0
                 where s.kind = 'signal' and s.name = 'input'
                 group by s.run
             ) n
             where runs.key = n.run",
        )
        .bind(&json)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "update signals
             set taken = 1, payload = null
             where run in (select value ->> 0 from json_each($1)) and taken = 0 and kind = 'signal' and name = 'input'",
        )
        .bind(&json)
        .execute(tx)
        .await
        .map(drop)
    }

    fn of(ended: &[Ended]) -> Option<String> {
        let mut json = Json::default();
        for it in ended {
            json.row().int(it.thread.0).int(it.run.0);
        }
        json.done()
    }

    pub(super) async fn stands(tx: &mut SqliteConnection, ended: &[Ended]) -> Result<Vec<StandsRow>, sqlx::Error> {
        sqlx::query_as(
            "select t.key, t.run, t.last_place, exists (select 1 from queue q where q.thread = t.key) as waiting,
                    coalesce((select r.signals_pending from runs r where r.key = t.run), 0) as untaken,
                    exists (select 1 from calls c where c.run = t.run and c.settled = 0) as calls
             from (select distinct value ->> 0 as thread from json_each($1)) e
             cross join threads t on t.key = e.thread",
        )
        .bind(of(ended))
        .fetch_all(tx)
        .await
    }

    pub(super) async fn untaken(tx: &mut SqliteConnection, ended: &[Ended]) -> Result<Vec<UntakenRow>, sqlx::Error> {
        sqlx::query_as(
            "select s.run, s.payload
             from json_each($1) e
             cross join signals s on s.run = e.value ->> 1 and s.taken = 0
             where s.kind = 'signal' and s.name = 'input'
             order by s.run, s.ordinal",
        )
        .bind(of(ended))
        .fetch_all(tx)
        .await
    }

    pub(super) async fn openings(tx: &mut SqliteConnection, runs: &[i64]) -> Result<Vec<OpeningRow>, sqlx::Error> {
        let mut json = Json::default();
        for run in runs {
            json.row().int(*run);
        }
        sqlx::query_as(
            "select r.key as run, r.namespace, r.id, r.workflow, r.version, j.kind, j.version as form, j.payload
             from json_each($1) o
             cross join runs r on r.key = o.value ->> 0
             cross join journal j on j.run = r.key and j.seq = 1",
        )
        .bind(json.done())
        .fetch_all(tx)
        .await
    }

    pub(super) async fn heads(tx: &mut SqliteConnection, ended: &[Ended]) -> Result<Vec<QueueRow>, sqlx::Error> {
        sqlx::query_as(
            "select q.thread, q.place, q.kind, q.run, r.id as run_id, q.agent, q.input, q.owner, q.value
             from (select distinct value ->> 0 as thread from json_each($1)) e
             cross join queue q on q.thread = e.thread
             left join runs r on r.key = q.run
             where q.place <= coalesce(
                 (select min(o.place) from queue o where o.thread = q.thread and o.kind = 'turn'), q.place)
             order by q.thread, q.place",
        )
        .bind(of(ended))
        .fetch_all(tx)
        .await
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::PgConnection;

    use super::{
        Ended, Entry, Frame, Instant, NewCall, OpeningRow, QueueRow, Queued, RunKey, StandsRow, ThreadKey, UntakenRow,
    };

    /// Threads are locked before any run, by key, so that no two processes wait in a circle.
    pub(super) async fn open(tx: &mut PgConnection, threads: &[i64], frame: Frame) -> Result<Frame, sqlx::Error> {
        if matches!(frame, Frame::Whole | Frame::Opens) {
            crate::store::writer::postgres::begin(tx).await?;
        }
        sqlx::query(
            "select 1
             from threads
             where key = any ($1)
             order by key
             for no key update",
        )
        .bind(threads)
        .execute(tx)
        .await?;
        Ok(Frame::Inside)
    }

    pub(super) async fn rewrite_messages(tx: &mut PgConnection, entries: &[Entry<'_>]) -> Result<(), sqlx::Error> {
        let threads: Vec<i64> = entries.iter().map(|it| it.thread.0).collect();
        let ids: Vec<&str> = entries.iter().map(|it| it.message.id.as_str()).collect();
        let runs: Vec<Option<i64>> = entries.iter().map(|it| it.run.map(|run| run.0)).collect();
        let contents: Vec<&[u8]> = entries.iter().map(|it| it.message.row.as_str().as_bytes()).collect();
        sqlx::query(
            "update messages o
             set content = m.content
             from unnest($1::bigint[], $2::text[], $3::bigint[], $4::bytea[]) as m (thread, id, run, content)
             where o.ctid = any (array(
                 select (select x.ctid from messages x where x.thread = n.thread and x.id = n.id)
                 from unnest($1::bigint[], $2::text[]) as n (thread, id)))
               and o.thread = m.thread
               and o.id = m.id
               and o.role = 'assistant'",
        )
        .bind(&threads)
        .bind(&ids)
        .bind(&runs)
        .bind(&contents)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "update threads
             set edits = edits + 1
             where key = any (array(
                 select e.thread
                 from unnest($1::bigint[], $2::text[], $3::bigint[]) as e (thread, id, run)
                 where (select m.run from messages m where m.thread = e.thread and m.id = e.id) is distinct from e.run))",
        )
        .bind(&threads)
        .bind(&ids)
        .bind(&runs)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn add_messages(tx: &mut PgConnection, entries: &[Entry<'_>]) -> Result<(), sqlx::Error> {
        let threads: Vec<i64> = entries.iter().map(|it| it.thread.0).collect();
        let ids: Vec<&str> = entries.iter().map(|it| it.message.id.as_str()).collect();
        let roles: Vec<&str> = entries.iter().map(|it| it.message.role).collect();
        let categories: Vec<Option<&str>> = entries.iter().map(|it| it.message.category).collect();
        let runs: Vec<Option<i64>> = entries.iter().map(|it| it.run.map(|run| run.0)).collect();
        let ats: Vec<i64> = entries.iter().map(|it| it.message.at.0).collect();
        let contents: Vec<&[u8]> = entries.iter().map(|it| it.message.row.as_str().as_bytes()).collect();
        sqlx::query(
            "insert into messages (thread, seq, id, role, category, run, created_at, content)
             select m.thread,
                    (select t.last_seq from threads t where t.key = m.thread)
                      + row_number() over (partition by m.thread order by m.k),
                    m.id, m.role, m.category, m.run,
                    greatest((select t.updated_at from threads t where t.key = m.thread),
                             max(m.at) over (partition by m.thread order by m.k)),
                    m.content
             from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bytea[])
               with ordinality as m (thread, id, role, category, run, at, content, k)
             where (select o.seq from messages o where o.thread = m.thread and o.id = m.id) is null
             on conflict do nothing",
        )
        .bind(&threads)
        .bind(&ids)
        .bind(&roles)
        .bind(&categories)
        .bind(&runs)
        .bind(&ats)
        .bind(&contents)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "update threads t
             set last_seq = coalesce(
                   (select o.seq from messages o where o.thread = t.key order by o.seq desc limit 1), t.last_seq),
                 updated_at = greatest(t.updated_at, m.at)
             from (
               select thread, max(at) as at
               from unnest($1::bigint[], $2::bigint[]) as m (thread, at)
               group by thread
             ) m
             where t.key = any ($1)
               and t.key = m.thread",
        )
        .bind(&threads)
        .bind(&ats)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn settle_all(tx: &mut PgConnection, ended: &[Ended]) -> Result<(), sqlx::Error> {
        let runs: Vec<i64> = ended.iter().map(|it| it.run.0).collect();
        sqlx::query(
            "update calls
             set settled = 1
             where run = any ($1)
               and settled = 0",
        )
        .bind(&runs)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn suspend(
        tx: &mut PgConnection,
        calls: &[(RunKey, ThreadKey, &NewCall, Instant)],
    ) -> Result<(), sqlx::Error> {
        let runs: Vec<i64> = calls.iter().map(|(run, ..)| run.0).collect();
        let ids: Vec<&str> = calls.iter().map(|(_, _, call, _)| call.call.as_str()).collect();
        let threads: Vec<i64> = calls.iter().map(|(_, thread, ..)| thread.0).collect();
        let tools: Vec<&str> = calls.iter().map(|(_, _, call, _)| call.tool.as_str()).collect();
        let values: Vec<&[u8]> = calls.iter().map(|(_, _, call, _)| call.value.as_str().as_bytes()).collect();
        let since: Vec<i64> = calls.iter().map(|(.., at)| at.0).collect();
        let expire: Vec<Option<i64>> = calls.iter().map(|(_, _, call, _)| call.expires_at.map(|at| at.0)).collect();
        sqlx::query(
            "insert into calls (run, call, thread, tool, value, since, expires_at)
             select *
             from unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::bytea[], $6::bigint[], $7::bigint[])
             on conflict do nothing",
        )
        .bind(&runs)
        .bind(&ids)
        .bind(&threads)
        .bind(&tools)
        .bind(&values)
        .bind(&since)
        .bind(&expire)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn settle(tx: &mut PgConnection, calls: &[(RunKey, &str)]) -> Result<(), sqlx::Error> {
        let (runs, ids): (Vec<i64>, Vec<&str>) = calls.iter().map(|(run, call)| (run.0, *call)).unzip();
        sqlx::query(
            "update calls c
             set settled = 1
             where c.ctid = any (array(
                 select (select x.ctid from calls x where x.run = s.run and x.call = s.call)
                 from unnest($1::bigint[], $2::text[]) as s (run, call)))",
        )
        .bind(&runs)
        .bind(&ids)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn enqueue(tx: &mut PgConnection, queued: &[Queued]) -> Result<(), sqlx::Error> {
        let values: Vec<_> = queued.iter().map(Queued::value).collect::<Result<_, _>>()?;
        let values: Vec<Option<&[u8]>> =
            values.iter().map(|value| value.as_ref().map(|value| value.as_str().as_bytes())).collect();
        let threads: Vec<i64> = queued.iter().map(|it| it.thread.0).collect();
        let places: Vec<i64> = queued.iter().map(|it| it.place).collect();
        let kinds: Vec<&str> = queued.iter().map(Queued::kind).collect();
        let runs: Vec<i64> = queued.iter().map(|it| it.run.0).collect();
        let inputs: Vec<&str> = queued.iter().map(|it| it.input.as_str()).collect();
        let owners: Vec<Option<&str>> = queued.iter().map(|it| it.owner.as_deref()).collect();
        let agents: Vec<&str> = queued.iter().map(|it| it.agent.as_str()).collect();
        sqlx::query(
            "insert into queue (thread, place, kind, run, input, owner, agent, value)
             select *
             from unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[],
                         $8::bytea[])",
        )
        .bind(&threads)
        .bind(&places)
        .bind(&kinds)
        .bind(&runs)
        .bind(&inputs)
        .bind(&owners)
        .bind(&agents)
        .bind(&values)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn unqueue(tx: &mut PgConnection, queued: &[Queued]) -> Result<(), sqlx::Error> {
        let (threads, places): (Vec<i64>, Vec<i64>) = queued.iter().map(|it| (it.thread.0, it.place)).unzip();
        sqlx::query(
            "delete from queue q
             using unnest($1::bigint[], $2::bigint[]) as n (thread, place)
             where q.thread = n.thread
               and q.place = n.place",
        )
        .bind(&threads)
        .bind(&places)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn unqueue_runs(tx: &mut PgConnection, gone: &[Ended]) -> Result<(), sqlx::Error> {
        let (threads, runs): (Vec<i64>, Vec<i64>) = gone.iter().map(|it| (it.thread.0, it.run.0)).unzip();
        sqlx::query(
            "delete from queue q
             using unnest($1::bigint[], $2::bigint[]) as n (thread, run)
             where q.kind = 'turn'
               and q.thread = n.thread
               and q.run = n.run",
        )
        .bind(&threads)
        .bind(&runs)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn make_due(tx: &mut PgConnection, queued: &[Queued]) -> Result<(), sqlx::Error> {
        let (runs, ats): (Vec<i64>, Vec<i64>) = queued.iter().map(|it| (it.run.0, it.at.0)).unzip();
        sqlx::query(
            "update runs r
             set status = 'due',
                 wake_at = q.at,
                 updated_at = q.at
             from unnest($1::bigint[], $2::bigint[]) as q (run, at)
             where r.key = any ($1)
               and r.key = q.run
               and r.status = 'waiting'",
        )
        .bind(&runs)
        .bind(&ats)
        .execute(tx)
        .await
        .map(drop)
    }

    pub(super) async fn empty(tx: &mut PgConnection, runs: &[RunKey]) -> Result<(), sqlx::Error> {
        let runs: Vec<i64> = runs.iter().map(|run| run.0).collect();
        sqlx::query(
            "with taken as (
               update signals
               set taken = 1,
                   payload = null
               where run = any ($1)
                 and taken = 0
                 and kind = 'signal'
                 and name = 'input'
               returning run
             )
             update runs r
             set signals_pending = r.signals_pending - n.number
             from (select run, count(*) as number from taken group by run) n
             where r.key = any ($1)
               and r.key = n.run",
        )
        .bind(&runs)
        .execute(tx)
        .await
        .map(drop)
    }

    fn threads(ended: &[Ended]) -> Vec<i64> {
        ended.iter().map(|it| it.thread.0).collect()
    }

    pub(super) async fn stands(tx: &mut PgConnection, ended: &[Ended]) -> Result<Vec<StandsRow>, sqlx::Error> {
        sqlx::query_as(
            "select t.key, t.run, t.last_place,
                    (select count(*) from (select 1 from queue q where q.thread = t.key limit 1) q) as waiting,
                    coalesce((select r.signals_pending from runs r where r.key = t.run), 0) as untaken,
                    (select count(*) from calls c where c.run = t.run and c.settled = 0) as calls
             from threads t
             where t.key = any ($1)",
        )
        .bind(threads(ended))
        .fetch_all(tx)
        .await
    }

    pub(super) async fn untaken(tx: &mut PgConnection, ended: &[Ended]) -> Result<Vec<UntakenRow>, sqlx::Error> {
        let runs: Vec<i64> = ended.iter().map(|it| it.run.0).collect();
        sqlx::query_as(
            "select run, payload
             from signals
             where run = any ($1)
               and taken = 0
               and kind = 'signal'
               and name = 'input'
             order by run, ordinal",
        )
        .bind(&runs)
        .fetch_all(tx)
        .await
    }

    pub(super) async fn openings(tx: &mut PgConnection, runs: &[i64]) -> Result<Vec<OpeningRow>, sqlx::Error> {
        sqlx::query_as(
            "select r.key as run, r.namespace, r.id, r.workflow, r.version,
                    (select j.kind from journal j where j.run = r.key and j.seq = 1) as kind,
                    (select j.version from journal j where j.run = r.key and j.seq = 1) as form,
                    (select j.payload from journal j where j.run = r.key and j.seq = 1) as payload
             from runs r
             where r.key = any ($1)",
        )
        .bind(runs)
        .fetch_all(tx)
        .await
    }

    pub(super) async fn heads(tx: &mut PgConnection, ended: &[Ended]) -> Result<Vec<QueueRow>, sqlx::Error> {
        sqlx::query_as(
            "select q.thread, q.place, q.kind, q.run, (select r.id from runs r where r.key = q.run) as run_id, q.agent,
                    q.input, q.owner, q.value
             from queue q
             where q.thread = any ($1)
               and q.place <= coalesce(
                 (select min(o.place) from queue o where o.thread = q.thread and o.kind = 'turn'), q.place)
             order by q.thread, q.place",
        )
        .bind(threads(ended))
        .fetch_all(tx)
        .await
    }
}

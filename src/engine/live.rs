//! A run in memory: its code, its desk, and the batch that its next commit takes.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as Task, Poll, Wake, Waker};

use crate::clock::Instant;
use crate::failure::{AttemptFailure, Failure, Fault, Outcome, Retry};
use crate::id::{Fence, OpId, RunId, RunKey, Seq, ThreadKey, WorkerKey};
use crate::journal::{
    self, CancelRequested, Event, Mismatch, Recorded, RunCancelled, RunCompleted, RunFailed, RunStarted, Segments,
    SignalsTaken, Standing, StepAttemptFailed, StepCheckpointed, StepFailed, StepFinished, Taken, TimerFired, Wait,
};
use crate::payload::Payload;
use crate::run::{BlockReason, Closed};
use crate::signal::{CancelRequest, Pending};
use crate::store::{Chunk, Commit, History, Leaves, Lines, NewRun, Preconditions, ThreadPart};
use crate::workflow::{Answer, Context, Desk, Effects, ThreadEffects};
use crate::workflow::{Registered, Work};

/// Tells the engine that somebody else woke the run.
pub(super) type Tell = Box<dyn Fn() + Send + Sync>;

type Code = futures::future::BoxFuture<'static, Result<Payload, Failure>>;

/// A run whose code is in memory.
pub(super) struct Live {
    pub(super) key: RunKey,
    pub(super) id: RunId,
    pub(super) fence: Fence,
    /// The last line that is durable.
    pub(super) head: Seq,
    /// The signal counter up to which the run's signals are known here.
    pub(super) seen: i64,
    /// Whether the row says Running under this worker.
    pub(super) owned: bool,
    /// Whether signals were accepted since the last commit was sealed: if nobody had the run, its row is due now.
    pub(super) disturbed: bool,
    /// The thread that it answers, if it is a turn.
    pub(super) thread: Option<ThreadKey>,
    workflow: (&'static str, u32),
    seed: uuid::Uuid,
    at: Instant,
    code: Option<Code>,
    desk: Arc<Desk>,
    watch: Arc<Watch>,
    steps: HashMap<OpId, OpenStep>,
    retries: BTreeSet<(Instant, OpId)>,
    /// Steps whose bodies are to begin once the commit that asks for them is durable.
    ready: Vec<OpId>,
    deadline: Option<Instant>,
    /// Whether the code has been shown its first line.
    begun: bool,
    closed: Option<Closed>,
    /// How the code has ended, for those who wait for it in this process.
    pub(super) outcome: Option<Outcome>,
    /// The most bytes that a value of the code may have.
    pub(super) payload_bytes_max: usize,
}

/// What is known of a step that is open.
#[derive(Debug, Clone)]
pub(super) struct OpenStep {
    pub(super) attempts_failed: u32,
    pub(super) checkpoint: Option<Payload>,
    pub(super) since: Instant,
    retry_at: Option<Instant>,
}

/// What a body has to say.
#[derive(Debug, Clone)]
pub(super) enum Said {
    /// It ended.
    Done { op: OpId, result: Result<Payload, AttemptFailure> },
    /// It reported how far it has come.
    Checkpoint { op: OpId, value: Payload },
}

/// What the next commit takes.
#[derive(Default)]
pub(super) struct Batch {
    lines: Lines,
    effects: Effects,
    begins: Option<Box<NewRun>>,
    /// What was delivered in it, so that it can be delivered again if the commit is refused.
    pub(super) said: Vec<Said>,
    /// Steps may have been given up.
    pub(super) gave_up: bool,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }
}

/// The engine's waker for one run. A wake that the engine did not cause is somebody else's.
pub(super) struct Watch {
    delivering: AtomicBool,
    foreign: AtomicBool,
    tell: Tell,
}

impl Wake for Watch {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.delivering.load(Ordering::Relaxed) && !self.foreign.swap(true, Ordering::SeqCst) {
            (self.tell)();
        }
    }
}

/// What a run begins with.
struct Opening {
    input: Payload,
    seed: uuid::Uuid,
    deadline: Option<Instant>,
    build: String,
}

impl Live {
    /// A run that begins here. Nothing has been delivered yet.
    pub(super) fn begin(
        new: &NewRun,
        workflow: &Registered,
        input: &Payload,
        deadline: Option<Instant>,
        seed: uuid::Uuid,
        tell: Tell,
    ) -> (Self, Result<(), BlockReason>) {
        let mut live = Self::empty(new.key, new.id.clone(), Fence::FIRST, seed, tell);
        live.deadline = deadline;
        live.thread = new.thread;
        let started = live.start_code(workflow, input).map(|code| live.code = Some(code));
        (live, started)
    }

    fn empty(key: RunKey, id: RunId, fence: Fence, seed: uuid::Uuid, tell: Tell) -> Self {
        let desk = Desk::new(id.clone(), seed);
        let watch = Arc::new(Watch { delivering: false.into(), foreign: false.into(), tell });
        Self {
            key,
            id,
            fence,
            head: Seq::NONE,
            seen: 0,
            owned: false,
            disturbed: false,
            thread: None,
            workflow: ("", 0),
            seed,
            at: Instant(0),
            code: None,
            desk,
            watch,
            steps: HashMap::new(),
            retries: BTreeSet::new(),
            ready: Vec::new(),
            deadline: None,
            begun: false,
            closed: None,
            outcome: None,
            payload_bytes_max: usize::MAX,
        }
    }

    fn start_code(&mut self, workflow: &Registered, input: &Payload) -> Result<Code, BlockReason> {
        self.workflow = (workflow.definition.name, workflow.definition.version);
        let cx = Context::new(Arc::clone(&self.desk));
        catch_unwind(AssertUnwindSafe(|| (workflow.definition.begin)(cx, input)))
            .map_err(|panic| panicked(&*panic))?
            .map_err(|problem| {
                BlockReason::Undecodable(format!(
                    "the input of run {} does not fit workflow {:?}: {problem}; deploy code that reads it",
                    self.id, workflow.definition.name
                ))
            })
    }

    /// The line that begins a run which was accepted to be started later; its input stands in the journal already.
    pub(super) fn queued_start(&self, build: String) -> RunStarted {
        RunStarted {
            run: self.id.clone(),
            workflow: self.workflow.0.to_owned(),
            version: self.workflow.1,
            build,
            seed: self.seed,
            input: None,
            deadline: self.deadline,
        }
    }

    /// The line that begins a run here, and the row to insert if it has none yet.
    pub(super) fn deliver_start(
        &mut self,
        batch: &mut Batch,
        started: RunStarted,
        begins: Option<Box<NewRun>>,
        now: Instant,
    ) -> Result<(), BlockReason> {
        batch.begins = begins;
        self.deliver(batch, Event::RunStarted(started), now)
    }

    /// Rebuilds a run from its history: every recorded line is delivered again, and what the code asks for is compared
    /// with what was recorded. With `values`, recorded values must be the same too.
    ///
    /// The returned batch holds what the code asks for that is not recorded yet: the run had not been polled since
    /// its last line.
    pub(super) fn revive(
        history: History,
        workflow: &Registered,
        build: &str,
        values: bool,
        tell: Tell,
    ) -> Result<(Self, Batch), BlockReason> {
        let History { run, journal, mut pending } = history;
        let standing = Standing::of(&journal).map_err(|e| BlockReason::Corrupt(format!("run {}: {e}", run.id)))?;
        let opening = Opening::of(&journal)
            .ok_or_else(|| BlockReason::Corrupt(format!("run {}: its journal has no beginning", run.id)))?;
        let mut live = Self::empty(run.key, run.id.clone(), run.fence, opening.seed, tell);
        live.head = run.head;
        live.seen = run.signals_accepted;
        live.deadline = opening.deadline;
        live.thread = run.thread;
        live.owned = true;
        live.code = Some(live.start_code(workflow, &opening.input)?);
        let mut batch = Batch::default();
        let mut matched = VecDeque::new();
        let mut segments = Segments::of(journal).peekable();
        while let Some(segment) = segments.next() {
            // A last line with nothing after it had not been shown to the code yet, or the code asked for nothing.
            let frontier = segments.peek().is_none() && segment.asked.is_empty();
            if frontier {
                live.desk.go_live();
                live.desk.arrive(std::mem::take(&mut pending));
            } else {
                live.desk.rehearse(looked_up(&segment.asked));
            }
            let delivered = &segment.delivered;
            live.at = delivered.at;
            let (asked, effects) = live.show(&delivered.event, delivered.at)?;
            if frontier {
                live.take_up(&standing);
                live.gather(&mut batch, asked, effects);
                return Ok((live, batch));
            }
            journal::compare(&segment.asked, &asked, delivered.seq, values).map_err(|(seq, recorded, asked)| {
                BlockReason::Mismatch(
                    Mismatch {
                        run: run.id.clone(),
                        seq,
                        recorded,
                        asked,
                        matched: matched.iter().cloned().collect(),
                        recorded_build: opening.build.clone(),
                        build: build.to_owned(),
                    }
                    .to_string(),
                )
            })?;
            for line in &segment.asked {
                matched.push_back(format!("{} {}", line.seq, journal::describe(&line.event)));
                if matched.len() > 5 {
                    matched.pop_front();
                }
            }
        }
        live.desk.go_live();
        live.desk.arrive(pending);
        live.take_up(&standing);
        Ok((live, batch))
    }

    /// Takes over what the journal says of open steps.
    fn take_up(&mut self, standing: &Standing) {
        self.at = standing.at;
        for (op, open) in &standing.open {
            if let Wait::Step { attempts_failed, retry_at, checkpoint, .. } = &open.wait {
                let step = OpenStep {
                    attempts_failed: *attempts_failed,
                    checkpoint: checkpoint.clone(),
                    since: open.since,
                    retry_at: *retry_at,
                };
                match retry_at {
                    Some(at) => drop(self.retries.insert((*at, op.clone()))),
                    None => self.ready.push(op.clone()),
                }
                self.steps.insert(op.clone(), step);
            }
        }
    }

    /// Whether the workflow has been begun; a run from the queue has not.
    pub(super) fn is_begun(&self) -> bool {
        self.begun
    }

    pub(super) fn seed(&self) -> uuid::Uuid {
        self.seed
    }

    /// Signals that were accepted since. False if some in between are not known here: the run must be read again.
    pub(super) fn hear(&mut self, signals: Vec<Pending>) -> bool {
        for signal in signals {
            if signal.ordinal <= self.seen {
                continue;
            }
            if signal.ordinal != self.seen + 1 {
                return false;
            }
            self.seen = signal.ordinal;
            self.disturbed = true;
            self.desk.arrive([signal]);
        }
        true
    }

    /// Delivers all there is to deliver, one line at a time, and gathers what the code asks for.
    pub(super) fn pump(
        &mut self,
        batch: &mut Batch,
        said: &mut VecDeque<Said>,
        now: Instant,
    ) -> Result<(), BlockReason> {
        if self.watch.foreign.load(Ordering::SeqCst) {
            return Err(self.foreign_wait());
        }
        let due = self.retries_due(now);
        self.ready.extend(due);
        while self.closed.is_none() {
            if let Some(word) = said.pop_front() {
                batch.said.push(word.clone());
                self.listen(batch, word, now)?;
            } else if let Some(request) = self.desk.take_cancel() {
                self.cancel_asked(batch, &request, now)?;
            } else if !self.next_arrival(batch, now)? {
                break;
            }
        }
        Ok(())
    }

    /// The next signal or timer that something waits for, whichever came first.
    fn next_arrival(&mut self, batch: &mut Batch, now: Instant) -> Result<bool, BlockReason> {
        let timer = self.desk.next_timer().filter(|(at, _)| *at <= now);
        let deadline = self.deadline.filter(|at| *at <= now && self.desk.cancel_requested().is_none());
        let wait = self.desk.next_wait();
        let timer_at = timer.as_ref().map(|(at, _)| *at);
        // A signal that was accepted by the time at which a timer fires came first.
        if let Some((op, accepted_at)) = wait
            && [timer_at, deadline].into_iter().flatten().all(|at| accepted_at <= at)
        {
            let Some((signals, ordinals)) = self.desk.take_for(&op) else { return Ok(false) };
            batch.effects.taken.extend(ordinals);
            self.deliver(batch, Event::SignalsTaken(SignalsTaken { op, signals }), now)?;
        } else if let Some(at) = deadline
            && timer_at.is_none_or(|timer| at <= timer)
        {
            let request = CancelRequested { reason: format!("its deadline, {at}, has passed"), by: "deadline".into() };
            batch.gave_up = true;
            self.deliver(batch, Event::CancelRequested(request), now)?;
        } else if let Some((_, op)) = timer {
            self.deliver(batch, Event::TimerFired(TimerFired { op }), now)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn cancel_asked(&mut self, batch: &mut Batch, request: &Pending, now: Instant) -> Result<(), BlockReason> {
        batch.effects.taken.push(request.ordinal);
        if self.desk.cancel_requested().is_some() {
            return Ok(());
        }
        let CancelRequest { reason, by } = request
            .payload
            .read()
            .unwrap_or_else(|_| CancelRequest { reason: request.payload.to_string(), by: request.id.clone() });
        batch.gave_up = true;
        self.deliver(batch, Event::CancelRequested(CancelRequested { reason, by }), now)
    }

    fn listen(&mut self, batch: &mut Batch, said: Said, now: Instant) -> Result<(), BlockReason> {
        let at = now.max(self.at);
        match said {
            Said::Checkpoint { op, value } => {
                if let Some(step) = self.steps.get_mut(&op) {
                    step.checkpoint = Some(value.clone());
                    let attempt = step.attempts_failed + 1;
                    batch.lines.push(at, &Event::StepCheckpointed(StepCheckpointed { op, attempt, checkpoint: value }));
                    self.at = at;
                }
                Ok(())
            }
            Said::Done { op, result } => {
                // A step that was given up meanwhile is nobody's any more.
                let Some(work) = self.desk.work(&op) else { return Ok(()) };
                match result {
                    Ok(output) => self.deliver(batch, Event::StepFinished(StepFinished { op, output }), now),
                    Err(cause) => self.attempt_failed(batch, op, &work, cause, now),
                }
            }
        }
    }

    fn attempt_failed(
        &mut self,
        batch: &mut Batch,
        op: OpId,
        work: &Work,
        cause: AttemptFailure,
        now: Instant,
    ) -> Result<(), BlockReason> {
        let at = now.max(self.at);
        let Some(step) = self.steps.get_mut(&op) else { return Ok(()) };
        let attempts = step.attempts_failed + 1;
        match next_attempt(work, step, attempts, &cause, at) {
            Some(retry_at) => {
                step.attempts_failed = attempts;
                step.retry_at = Some(retry_at);
                self.retries.insert((retry_at, op.clone()));
                let event = StepAttemptFailed { op, attempt: attempts, cause, retry_at };
                batch.lines.push(at, &Event::StepAttemptFailed(event));
                self.at = at;
                Ok(())
            }
            None => self.deliver(batch, Event::StepFailed(StepFailed { op, attempts, cause }), now),
        }
    }

    /// Delivers one line, polls the code to rest, and gathers the line and what the code asked for.
    fn deliver(&mut self, batch: &mut Batch, event: Event, now: Instant) -> Result<(), BlockReason> {
        let at = now.max(self.at);
        self.at = at;
        // The line itself stays, even if the code cannot go on with it: it did happen.
        batch.lines.push(at, &event);
        let (asked, effects) = self.show(&event, at)?;
        self.check_sizes(&asked, &effects)?;
        self.gather(batch, asked, effects);
        Ok(())
    }

    /// Refuses a value over the limit. A replay does not: what is recorded stays readable if the limit is lowered.
    fn check_sizes(&self, asked: &[Event], effects: &Effects) -> Result<(), BlockReason> {
        let check = |value: &Payload, what: &dyn Fn() -> String| {
            let field = || format!("the value of {} of run {}", what(), self.id);
            value.clone().within(self.payload_bytes_max, field).map_err(|e| BlockReason::TooLarge(e.to_string()))
        };
        for event in asked {
            if let Some(value) = event.given() {
                check(value, &|| journal::describe(event))?;
            }
        }
        for (stream, value) in &effects.chunks {
            check(value, &|| format!("a write to stream {stream:?}"))?;
        }
        Ok(())
    }

    /// Puts what the code asked for into the batch.
    fn gather(&mut self, batch: &mut Batch, asked: Vec<Event>, effects: Effects) {
        for event in &asked {
            if let Event::StepScheduled(scheduled) = event {
                let step = OpenStep { attempts_failed: 0, checkpoint: None, since: self.at, retry_at: None };
                self.steps.insert(scheduled.op.clone(), step);
                self.ready.push(scheduled.op.clone());
            }
            if let Event::WaitWithdrawn(withdrawn) = event {
                batch.gave_up |= self.close_step(&withdrawn.op);
            }
            batch.lines.push(self.at, event);
        }
        batch.effects.add(effects);
    }

    fn close_step(&mut self, op: &OpId) -> bool {
        let Some(step) = self.steps.remove(op) else { return false };
        if let Some(at) = step.retry_at {
            self.retries.remove(&(at, op.clone()));
        }
        true
    }

    /// Shows the code one line and polls it to rest.
    fn show(&mut self, event: &Event, at: Instant) -> Result<(Vec<Event>, Effects), BlockReason> {
        self.begun = true;
        self.desk.begin(at);
        self.watch.delivering.store(true, Ordering::Relaxed);
        let answered = self.answer(event);
        self.watch.delivering.store(false, Ordering::Relaxed);
        let Some(code) = &mut self.code else {
            return Err(BlockReason::Corrupt(format!("run {}: its code has returned already", self.id)));
        };
        if !answered {
            return Err(BlockReason::Mismatch(format!(
                "replay of run {}: the journal holds {} for an operation that the code has not asked for",
                self.id,
                journal::describe(event)
            )));
        }
        let waker = Waker::from(Arc::clone(&self.watch));
        let polled = catch_unwind(AssertUnwindSafe(|| code.as_mut().poll(&mut Task::from_waker(&waker))));
        let end = match polled {
            Err(panic) => return Err(panicked(&*panic)),
            Ok(Poll::Ready(result)) => Some(result),
            Ok(Poll::Pending) => None,
        };
        if let Some(reason) = self.desk.blocked() {
            return Err(reason);
        }
        if self.thread.is_none() && self.desk.leaves_with_thread() {
            return Err(BlockReason::Corrupt(format!(
                "run {} leaves something with a thread, but answers none; turns are begun by sending to a thread",
                self.id
            )));
        }
        if self.watch.foreign.load(Ordering::SeqCst) || (end.is_none() && !self.desk.rests()) {
            return Err(self.foreign_wait());
        }
        if end.is_some() {
            // What the code still holds is dropped here, so that it is withdrawn in the same commit.
            self.code = None;
        }
        let (mut asked, effects) = self.desk.asked();
        if let Some(result) = end {
            asked.push(self.ending(result));
        }
        Ok((asked, effects))
    }

    /// Gives the line to the operation that it is about. False if the code has not asked for that operation.
    fn answer(&mut self, event: &Event) -> bool {
        match event {
            Event::RunStarted(_) => true,
            Event::StepFinished(StepFinished { op, output }) => {
                self.close_step(op);
                self.desk.answer(op, Answer::Output(output.clone()))
            }
            Event::StepFailed(StepFailed { op, attempts, cause }) => {
                self.close_step(op);
                self.desk.answer(op, Answer::Failed { attempts: *attempts, cause: cause.clone() })
            }
            Event::TimerFired(TimerFired { op }) => self.desk.answer(op, Answer::Fired),
            Event::SignalsTaken(SignalsTaken { op, signals }) => self.desk.answer(op, Answer::Signals(signals.clone())),
            Event::CancelRequested(request) => {
                for op in self.desk.cancel(request.clone()) {
                    self.close_step(&op);
                }
                true
            }
            _ => false,
        }
    }

    fn ending(&mut self, result: Result<Payload, Failure>) -> Event {
        let (closed, outcome, event) = match (result, self.desk.cancel_requested()) {
            (Ok(output), _) => {
                (Closed::Completed, Outcome::Completed(output.clone()), Event::RunCompleted(RunCompleted { output }))
            }
            (Err(failure), Some(CancelRequested { reason, .. })) => (
                Closed::Cancelled,
                Outcome::Cancelled { reason: reason.clone(), failure: failure.clone() },
                Event::RunCancelled(RunCancelled { reason, failure }),
            ),
            (Err(failure), None) => {
                (Closed::Failed, Outcome::Failed(failure.clone()), Event::RunFailed(RunFailed { failure }))
            }
        };
        self.closed = Some(closed);
        self.outcome = Some(outcome);
        event
    }

    /// The code awaits something that is not the engine's.
    pub(super) fn foreign_wait(&self) -> BlockReason {
        BlockReason::ForeignWait(format!(
            "the workflow of run {} awaits something that is not the engine's (a timer, channel or task of another runtime): \
             inside a workflow wait with cx.sleep, cx.signal or cx.step, and do such work in a step's body",
            self.id
        ))
    }

    /// How the run stands once the batch is committed.
    fn leaves(&self, worker: WorkerKey) -> Leaves {
        if let Some(how) = self.closed {
            Leaves::Closed(how)
        } else if self.steps.values().any(|step| step.retry_at.is_none()) {
            Leaves::Running(worker)
        } else {
            Leaves::Waiting { wake_at: self.next_wake() }
        }
    }

    /// The earliest time at which there is something to do without anybody's doing.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let timer = self.desk.next_timer().map(|(at, _)| at);
        let retry = self.retries.first().map(|(at, _)| *at);
        let deadline = self.deadline.filter(|_| self.desk.cancel_requested().is_none());
        [timer, retry, deadline].into_iter().flatten().min()
    }

    /// Whether a commit is needed: there are lines, or the row says more than is true.
    pub(super) fn needs_commit(&self, batch: &Batch) -> bool {
        let runs = matches!(self.leaves(WorkerKey(0)), Leaves::Running(_));
        // A signal that nobody waits for yet leaves a sleeping run's row due: it is put to sleep again.
        !batch.is_empty() || self.owned != runs || (self.disturbed && !self.owned)
    }

    /// Seals a batch into a commit. The batch keeps what may have to be delivered again.
    pub(super) fn seal(&self, batch: &mut Batch, worker: WorkerKey, now: Instant) -> Commit {
        self.seal_as(batch, self.leaves(worker), now)
    }

    /// Seals what there is and blocks the run.
    pub(super) fn seal_blocked(&self, batch: &mut Batch, reason: BlockReason, build: &str, now: Instant) -> Commit {
        self.seal_as(batch, Leaves::Blocked { reason, build: build.to_owned() }, now)
    }

    fn seal_as(&self, batch: &mut Batch, leaves: Leaves, now: Instant) -> Commit {
        let effects = std::mem::take(&mut batch.effects);
        let chunk = |(stream, value)| Chunk { stream, part: "code".into(), value };
        Commit {
            run: self.key,
            fence: self.fence,
            head: self.head,
            begins: batch.begins.take(),
            lines: std::mem::take(&mut batch.lines),
            leaves,
            signals_seen: self.seen,
            preconditions: Preconditions { drained: effects.drained },
            taken: effects.taken,
            published: effects.published,
            replies: effects.replies,
            chunks: effects.chunks.into_iter().map(chunk).collect(),
            thread: self.thread.map(|thread| Box::new(part_of(thread, effects.thread))),
            at: self.at.max(now),
        }
    }

    /// The steps whose bodies are to begin, now that what asked for them is durable: each is named once.
    pub(super) fn steps_to_begin(&mut self) -> Vec<OpId> {
        let mut ready = std::mem::take(&mut self.ready);
        ready.retain(|op| self.steps.get(op).is_some_and(|step| step.retry_at.is_none()));
        ready
    }

    fn retries_due(&mut self, now: Instant) -> Vec<OpId> {
        let later = self.retries.split_off(&(Instant(now.0.saturating_add(1)), OpId::new("")));
        let due = std::mem::replace(&mut self.retries, later);
        due.into_iter()
            .map(|(_, op)| {
                if let Some(step) = self.steps.get_mut(&op) {
                    step.retry_at = None;
                }
                op
            })
            .collect()
    }

    pub(super) fn step(&self, op: &OpId) -> Option<(&OpenStep, Arc<Work>)> {
        Some((self.steps.get(op)?, self.desk.work(op)?))
    }

    pub(super) fn is_open(&self, op: &OpId) -> bool {
        self.steps.contains_key(op)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // What the code holds is dropped with it; none of that is asked for.
        self.desk.close();
    }
}

impl Opening {
    fn of(journal: &[Recorded]) -> Option<Self> {
        let mut opening = None;
        for line in journal.iter().take(2) {
            match &line.event {
                Event::RunQueued(queued) => {
                    opening = Some(Self {
                        input: queued.input.clone(),
                        seed: queued.seed,
                        deadline: queued.deadline,
                        build: String::new(),
                    });
                }
                Event::RunStarted(started) => {
                    let input = started.input.clone().or_else(|| opening.as_ref().map(|o: &Self| o.input.clone()))?;
                    let build = started.build.clone();
                    return Some(Self { input, seed: started.seed, deadline: started.deadline, build });
                }
                _ => {}
            }
        }
        opening
    }
}

fn part_of(thread: ThreadKey, effects: ThreadEffects) -> ThreadPart {
    let ThreadEffects { messages, shown, suspends, settles, lanes } = effects;
    ThreadPart { thread, messages, shown, suspends, settles, lanes }
}

fn looked_up(asked: &[Recorded]) -> HashMap<OpId, Vec<Taken>> {
    let checked = asked.iter().filter_map(|line| match &line.event {
        Event::SignalsChecked(checked) => Some((checked.op.clone(), checked.signals.clone())),
        _ => None,
    });
    checked.collect()
}

/// When the next attempt begins, or none if there is to be no further one.
fn next_attempt(work: &Work, step: &OpenStep, attempts: u32, cause: &AttemptFailure, now: Instant) -> Option<Instant> {
    let retry = match cause {
        AttemptFailure::Failed(failure) => Fault::retry(failure),
        AttemptFailure::Panicked(_) => Retry::ByPolicy,
        AttemptFailure::TimedOut(crate::failure::Timeout::Total(_)) => Retry::Never,
        AttemptFailure::TimedOut(_) => Retry::ByPolicy,
    };
    let policy = work.policy.retry;
    let dice = f64::from(uuid::Uuid::new_v4().as_fields().0) / (f64::from(u32::MAX) + 1.0);
    let delay = match retry {
        Retry::Never => return None,
        Retry::ByPolicy => policy.delay_after(attempts, dice)?,
        Retry::AfterMillis(ms) => policy.delay_after(attempts, dice)?.max(std::time::Duration::from_millis(ms)),
    };
    let at = now + delay;
    // An attempt that could only begin after the step's time is up would be of no use.
    policy.total.is_none_or(|total| at < step.since + total).then_some(at)
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> BlockReason {
    BlockReason::Panicked(format!(
        "the workflow's code panicked: {}; deploy code that does not, and the run goes on where it was",
        panic_message(panic)
    ))
}

pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

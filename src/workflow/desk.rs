//! The desk that a run's code and the engine share: what was asked for, what is open, and what has been answered.
//!
//! One thread at a time works on it: the one that polls the code. The lock is never waited for.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::step::{Body, StepPolicy};
use crate::clock::Instant;
use crate::failure::AttemptFailure;
use crate::id::{OpId, RunId};
use crate::journal::{CancelRequested, Event, SignalsChecked, Taken, WaitMode, WaitWithdrawn};
use crate::payload::Payload;
use crate::run::BlockReason;
use crate::signal::{Pending, SignalKind};
use crate::thread::{NewCall, NewLane, NewMessage};

/// What an operation was answered with.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// A step returned this.
    Output(Payload),
    /// A step's last attempt failed.
    Failed { attempts: u32, cause: AttemptFailure },
    /// A timer fired.
    Fired,
    /// Signals were taken.
    Signals(Vec<Taken>),
    /// The run was asked to cancel.
    Cancelled,
}

/// A step's body and policy, for whoever runs it.
#[derive(Clone)]
pub(crate) struct Work {
    pub name: &'static str,
    pub input: Payload,
    pub policy: StepPolicy,
    pub body: Body,
}

enum Kind {
    Step(Arc<Work>),
    Timer(Instant),
    Wait { name: String, mode: WaitMode, ordinal: u64 },
}

struct Slot {
    kind: Kind,
    shielded: bool,
    answer: Option<Answer>,
    waker: Option<Waker>,
}

/// What leaves with the commit besides journal lines.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub published: Vec<(String, Payload)>,
    pub replies: Vec<(String, Payload)>,
    pub chunks: Vec<(String, Payload)>,
    pub taken: Vec<i64>,
    /// What is left with the thread that the run answers.
    pub thread: ThreadEffects,
    /// The code looked for signals and found none: true only if still none has arrived when this is committed.
    pub drained: bool,
}

impl Effects {
    /// Adds what a later line caused.
    pub(crate) fn add(&mut self, later: Self) {
        self.published.extend(later.published);
        self.replies.extend(later.replies);
        self.chunks.extend(later.chunks);
        self.taken.extend(later.taken);
        self.thread.add(later.thread);
        self.drained |= later.drained;
    }
}

/// What is left with the thread that a run answers.
#[derive(Debug, Default)]
pub(crate) struct ThreadEffects {
    pub messages: Vec<NewMessage>,
    pub shown: Vec<Payload>,
    pub suspends: Vec<NewCall>,
    pub settles: Vec<String>,
    pub lanes: Vec<NewLane>,
}

impl ThreadEffects {
    fn add(&mut self, later: Self) {
        self.messages.extend(later.messages);
        self.shown.extend(later.shown);
        self.suspends.extend(later.suspends);
        self.settles.extend(later.settles);
        self.lanes.extend(later.lanes);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.shown.is_empty()
            && self.suspends.is_empty()
            && self.settles.is_empty()
            && self.lanes.is_empty()
    }
}

struct State {
    run: RunId,
    seed: uuid::Uuid,
    at: Instant,
    slots: HashMap<OpId, Slot>,
    timers: BTreeSet<(Instant, OpId)>,
    waits: BTreeMap<u64, OpId>,
    ordinal: u64,
    parked: usize,
    asked: Vec<Event>,
    effects: Effects,
    pending: VecDeque<Pending>,
    /// While a recorded segment is replayed: what the code looked up in it without waiting.
    looked_up: HashMap<OpId, Vec<Taken>>,
    replaying: bool,
    undos: Vec<Work>,
    cancel: Option<CancelRequested>,
    block: Option<BlockReason>,
    closed: bool,
}

/// The desk. Cheap to share.
pub(crate) struct Desk(Mutex<State>);

impl Desk {
    pub(crate) fn new(run: RunId, seed: uuid::Uuid) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            run,
            seed,
            at: Instant(0),
            slots: HashMap::new(),
            timers: BTreeSet::new(),
            waits: BTreeMap::new(),
            ordinal: 0,
            parked: 0,
            asked: Vec::new(),
            effects: Effects::default(),
            pending: VecDeque::new(),
            looked_up: HashMap::new(),
            replaying: false,
            undos: Vec::new(),
            cancel: None,
            block: None,
            closed: false,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // What the author's side asks.

    pub(crate) fn now(&self) -> Instant {
        self.state().at
    }

    pub(crate) fn seed(&self) -> uuid::Uuid {
        self.state().seed
    }

    pub(crate) fn run(&self) -> RunId {
        self.state().run.clone()
    }

    pub(crate) fn cancel_requested(&self) -> Option<CancelRequested> {
        self.state().cancel.clone()
    }

    /// Opens an operation, or answers at once that the run was asked to cancel.
    pub(crate) fn ask_step(&self, op: OpId, shielded: bool, work: Work) -> Result<OpId, Answer> {
        let mut state = self.state();
        if state.refuses(shielded) {
            return Err(Answer::Cancelled);
        }
        let (name, input) = (work.name.to_owned(), work.input.clone());
        state.asked.push(Event::StepScheduled(crate::journal::StepScheduled { op: op.clone(), name, input, shielded }));
        state.open(op.clone(), shielded, Kind::Step(Arc::new(work)));
        Ok(op)
    }

    pub(crate) fn ask_timer(&self, op: OpId, shielded: bool, fire_at: Instant) -> Result<OpId, Answer> {
        let mut state = self.state();
        if state.refuses(shielded) {
            return Err(Answer::Cancelled);
        }
        state.asked.push(Event::TimerArmed(crate::journal::TimerArmed { op: op.clone(), fire_at, shielded }));
        state.timers.insert((fire_at, op.clone()));
        state.open(op.clone(), shielded, Kind::Timer(fire_at));
        Ok(op)
    }

    pub(crate) fn ask_signal(&self, op: OpId, shielded: bool, name: &str, mode: WaitMode) -> Result<OpId, Answer> {
        let mut state = self.state();
        if state.refuses(shielded) {
            return Err(Answer::Cancelled);
        }
        let name = name.to_owned();
        state.asked.push(Event::SignalAwaited(crate::journal::SignalAwaited {
            op: op.clone(),
            name: name.clone(),
            mode,
            shielded,
        }));
        state.ordinal += 1;
        let ordinal = state.ordinal;
        state.waits.insert(ordinal, op.clone());
        state.open(op.clone(), shielded, Kind::Wait { name, mode, ordinal });
        Ok(op)
    }

    /// Takes pending signals of a name without waiting, `most` at the most; only those with these ids, if some are given.
    pub(crate) fn check_signals(
        &self,
        op: OpId,
        shielded: bool,
        name: &str,
        most: usize,
        only: Option<&[String]>,
    ) -> Answer {
        let mut state = self.state();
        if state.refuses(shielded) {
            return Answer::Cancelled;
        }
        let signals = if state.replaying {
            // What is not in the recorded segment is a mismatch, which the comparison after the poll names.
            state.looked_up.remove(&op).unwrap_or_default()
        } else {
            let taken = state.take(name, SignalKind::Signal, most, only);
            if taken.is_empty() || only.is_some_and(|only| taken.len() < only.len()) {
                state.effects.drained = true;
            }
            taken
        };
        let name = name.to_owned();
        state.asked.push(Event::SignalsChecked(SignalsChecked { op, name, signals: signals.clone() }));
        Answer::Signals(signals)
    }

    pub(crate) fn publish(&self, name: &str, value: Payload) {
        let mut state = self.state();
        state.effects.published.push((name.to_owned(), value.clone()));
        let name = name.to_owned();
        state.asked.push(Event::ValuePublished(crate::journal::ValuePublished { name, value }));
    }

    pub(crate) fn append(&self, stream: &str, value: Payload) {
        let mut state = self.state();
        let size = value.size() as u64;
        state.effects.chunks.push((stream.to_owned(), value));
        let stream = stream.to_owned();
        state.asked.push(Event::StreamAppended(crate::journal::StreamAppended { stream, size }));
    }

    pub(crate) fn add_message(&self, message: NewMessage) {
        let mut state = self.state();
        let (id, role, size) = (message.id.clone(), message.role.to_owned(), message.row.size() as u64);
        let again = message.again;
        state.asked.push(Event::MessageAdded(crate::journal::MessageAdded { id, role, size, again }));
        let messages = &mut state.effects.thread.messages;
        match messages.iter_mut().find(|it| it.id == message.id) {
            // Both leave with the same commit: the later form is the one that stays.
            Some(earlier) => earlier.row = message.row,
            None => messages.push(message),
        }
    }

    /// Subscribers see it once the commit is durable. What they see is told by the other lines.
    pub(crate) fn show(&self, chunk: Payload) {
        self.state().effects.thread.shown.push(chunk);
    }

    /// What a lane says is told by the message that says it.
    pub(crate) fn track(&self, lane: NewLane) {
        self.state().effects.thread.lanes.push(lane);
    }

    pub(crate) fn suspend(&self, call: NewCall) {
        let mut state = self.state();
        state.asked.push(Event::CallSuspended(crate::journal::CallSuspended {
            call: call.call.clone(),
            tool: call.tool.clone(),
            value: call.value.clone(),
            expires_at: call.expires_at,
        }));
        state.effects.thread.suspends.push(call);
    }

    pub(crate) fn settle_call(&self, call: String) {
        let mut state = self.state();
        state.asked.push(Event::CallSettled(crate::journal::CallSettled { call: call.clone() }));
        state.effects.thread.settles.push(call);
    }

    pub(crate) fn answer_update(&self, id: String, reply: Payload) {
        let mut state = self.state();
        state.effects.replies.push((id.clone(), reply.clone()));
        state.asked.push(Event::UpdateAnswered(crate::journal::UpdateAnswered { id, reply }));
    }

    pub(crate) fn push_undo(&self, op: OpId, undo: Work) {
        let mut state = self.state();
        let (name, input) = (undo.name.to_owned(), undo.input.clone());
        state.asked.push(Event::UndoPushed(crate::journal::UndoPushed { op, name, input }));
        state.undos.push(undo);
    }

    pub(crate) fn pop_undo(&self) -> Option<Work> {
        self.state().undos.pop()
    }

    pub(crate) fn forget_undos(&self) {
        let mut state = self.state();
        let count = u32::try_from(state.undos.len()).unwrap_or(u32::MAX);
        state.undos.clear();
        state.asked.push(Event::UndosForgotten(crate::journal::UndosForgotten { count }));
    }

    /// Polls an open operation.
    pub(crate) fn poll(&self, op: &OpId, waker: &Waker) -> Poll<Answer> {
        let mut state = self.state();
        let Some(slot) = state.slots.get_mut(op) else {
            // Polled after it was answered: as any future, it stays pending.
            return Poll::Pending;
        };
        if let Some(answer) = slot.answer.take() {
            state.slots.remove(op);
            return Poll::Ready(answer);
        }
        let fresh = slot.waker.is_none();
        if !slot.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            slot.waker = Some(waker.clone());
        }
        state.parked += usize::from(fresh);
        Poll::Pending
    }

    /// Gives an operation up, if it is still open.
    pub(crate) fn withdraw(&self, op: &OpId) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        if let Some(slot) = state.close(op)
            && slot.answer.is_none()
        {
            state.asked.push(Event::WaitWithdrawn(WaitWithdrawn { op: op.clone() }));
        }
    }

    /// Stops the run where it is: a person or a deploy is needed.
    pub(crate) fn block(&self, reason: BlockReason) {
        self.state().block.get_or_insert(reason);
    }

    // What the engine asks.

    /// Answers an open operation and wakes what waits for it. False if it is not open.
    pub(crate) fn answer(&self, op: &OpId, answer: Answer) -> bool {
        let waker = {
            let mut state = self.state();
            if state.slots.get(op).is_none_or(|slot| slot.answer.is_some()) {
                return false;
            }
            state.settle(op, answer)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Begins to process a journal line: its time is `now()`.
    pub(crate) fn begin(&self, at: Instant) {
        self.state().at = at;
    }

    /// Begins to replay a recorded segment; what it recorded as looked up is what the code finds.
    pub(crate) fn rehearse(&self, looked_up: HashMap<OpId, Vec<Taken>>) {
        let mut state = self.state();
        state.replaying = true;
        state.looked_up = looked_up;
    }

    /// From here on the code runs for real.
    pub(crate) fn go_live(&self) {
        let mut state = self.state();
        state.replaying = false;
        state.looked_up.clear();
    }

    /// What the code asked for since the last call.
    pub(crate) fn asked(&self) -> (Vec<Event>, Effects) {
        let mut state = self.state();
        (std::mem::take(&mut state.asked), std::mem::take(&mut state.effects))
    }

    /// Whether the code has left something with a thread since the last call of [`Desk::asked`].
    pub(crate) fn leaves_with_thread(&self) -> bool {
        !self.state().effects.thread.is_empty()
    }

    /// Why the code cannot go on, if it cannot.
    pub(crate) fn blocked(&self) -> Option<BlockReason> {
        self.state().block.clone()
    }

    /// Whether the code rests on at least one of the engine's operations.
    pub(crate) fn rests(&self) -> bool {
        self.state().parked > 0
    }

    /// Delivers the request to cancel: every unshielded operation is answered with it.
    ///
    /// Returns the steps whose bodies are to be told.
    pub(crate) fn cancel(&self, request: CancelRequested) -> Vec<OpId> {
        let (steps, wakers) = {
            let mut state = self.state();
            state.cancel = Some(request);
            let mut open: Vec<OpId> = state
                .slots
                .iter()
                .filter(|(_, slot)| !slot.shielded && slot.answer.is_none())
                .map(|(op, _)| op.clone())
                .collect();
            open.sort();
            let mut steps = Vec::new();
            let mut wakers = Vec::new();
            for op in open {
                if matches!(state.slots.get(&op), Some(Slot { kind: Kind::Step(_), .. })) {
                    steps.push(op.clone());
                }
                wakers.extend(state.settle(&op, Answer::Cancelled));
            }
            (steps, wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
        steps
    }

    /// The body and policy of a step that is open and unanswered.
    pub(crate) fn work(&self, op: &OpId) -> Option<Arc<Work>> {
        match self.state().slots.get(op) {
            Some(Slot { kind: Kind::Step(work), answer: None, .. }) => Some(Arc::clone(work)),
            _ => None,
        }
    }

    /// The earliest timer.
    pub(crate) fn next_timer(&self) -> Option<(Instant, OpId)> {
        self.state().timers.first().cloned()
    }

    /// Adds signals that were accepted for the run.
    pub(crate) fn arrive(&self, signals: impl IntoIterator<Item = Pending>) {
        self.state().pending.extend(signals);
    }

    /// Takes the request to cancel out of the pending signals, if one is there.
    pub(crate) fn take_cancel(&self) -> Option<Pending> {
        let mut state = self.state();
        let place = state.pending.iter().position(|signal| signal.kind == SignalKind::Cancel)?;
        state.pending.remove(place)
    }

    /// The earliest accepted signal that an open wait asks for: the wait, and when the signal was accepted.
    pub(crate) fn next_wait(&self) -> Option<(OpId, Instant)> {
        let state = self.state();
        if state.waits.is_empty() {
            return None;
        }
        state.pending.iter().find_map(|signal| {
            let op = state.waits.values().find(|op| match state.slots.get(*op) {
                Some(Slot { kind: Kind::Wait { name, mode, .. }, .. }) => {
                    *name == signal.name && mode.takes() == signal.kind
                }
                _ => false,
            })?;
            Some((op.clone(), signal.accepted_at))
        })
    }

    /// Takes for a wait what it asks for, out of the pending signals.
    pub(crate) fn take_for(&self, op: &OpId) -> Option<(Vec<Taken>, Vec<i64>)> {
        let mut state = self.state();
        let (name, kind, most) = match state.slots.get(op) {
            Some(Slot { kind: Kind::Wait { name, mode, .. }, .. }) => {
                (name.clone(), mode.takes(), if *mode == WaitMode::Batch { usize::MAX } else { 1 })
            }
            _ => return None,
        };
        let before = state.effects.taken.len();
        let signals = state.take(&name, kind, most, None);
        let ordinals = state.effects.taken.split_off(before);
        (!signals.is_empty()).then_some((signals, ordinals))
    }

    /// The run is given up in this process: whatever its code still drops is not asked for.
    pub(crate) fn close(&self) {
        self.state().closed = true;
    }
}

impl State {
    fn refuses(&self, shielded: bool) -> bool {
        self.cancel.is_some() && !shielded
    }

    fn open(&mut self, op: OpId, shielded: bool, kind: Kind) {
        self.slots.insert(op, Slot { kind, shielded, answer: None, waker: None });
    }

    /// Removes a slot and what points to it.
    fn close(&mut self, op: &OpId) -> Option<Slot> {
        let slot = self.slots.remove(op)?;
        self.forget(op, &slot);
        self.parked -= usize::from(slot.waker.is_some());
        Some(slot)
    }

    /// Answers a slot, which stays until the code has taken the answer.
    fn settle(&mut self, op: &OpId, answer: Answer) -> Option<Waker> {
        let mut slot = self.slots.remove(op)?;
        self.forget(op, &slot);
        slot.answer = Some(answer);
        let waker = slot.waker.take();
        self.parked -= usize::from(waker.is_some());
        self.slots.insert(op.clone(), slot);
        waker
    }

    fn forget(&mut self, op: &OpId, slot: &Slot) {
        match &slot.kind {
            Kind::Timer(at) => drop(self.timers.remove(&(*at, op.clone()))),
            Kind::Wait { ordinal, .. } => drop(self.waits.remove(ordinal)),
            Kind::Step(_) => {}
        }
    }

    fn take(&mut self, name: &str, kind: SignalKind, most: usize, only: Option<&[String]>) -> Vec<Taken> {
        let mut taken = Vec::new();
        let mut kept = VecDeque::with_capacity(self.pending.len());
        for signal in self.pending.drain(..) {
            let meant = only.is_none_or(|only| only.contains(&signal.id));
            if taken.len() < most && signal.kind == kind && signal.name == name && meant {
                self.effects.taken.push(signal.ordinal);
                taken.push(Taken { id: signal.id, payload: signal.payload });
            } else {
                kept.push_back(signal);
            }
        }
        self.pending = kept;
        taken
    }
}

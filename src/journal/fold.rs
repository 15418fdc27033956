//! What a journal adds up to: which operations are open and since when, and how the run ended.

use indexmap::IndexMap;

use super::event::{
    CancelRequested, Event, Recorded, RunCancelled, RunCompleted, RunFailed, RunStarted, RunTerminated, SignalAwaited,
    SignalsChecked, SignalsTaken, StepAttemptFailed, StepCheckpointed, StepFailed, StepFinished, StepScheduled,
    TimerArmed, TimerFired, UndoPushed, UndosForgotten, ValuePublished, WaitMode, WaitWithdrawn,
};
use crate::clock::Instant;
use crate::failure::{AttemptFailure, Outcome};
use crate::id::{OpId, Seq};
use crate::payload::Payload;

/// What a journal adds up to, after any of its lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// The last line folded in.
    pub head: Seq,
    /// When it was recorded.
    pub at: Instant,
    /// Whether a worker has begun the run.
    pub started: bool,
    /// The operations that were asked for and are neither answered nor withdrawn, oldest first.
    pub open: IndexMap<OpId, OpenOp>,
    /// The request to cancel, if there was one.
    pub cancel: Option<CancelRequested>,
    /// How the run ended, if it has.
    pub outcome: Option<Outcome>,
    /// How many compensations are on the undo list.
    pub undos: u32,
    /// How many signals were taken.
    pub signals_taken: u64,
}

/// An operation that was asked for and not answered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOp {
    /// The line that asked for it.
    pub seq: Seq,
    /// When it was asked for.
    pub since: Instant,
    /// Whether a request to cancel leaves it alone.
    pub shielded: bool,
    /// What it waits for.
    pub wait: Wait,
}

/// What an open operation waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// A step's result.
    Step {
        /// The step's name.
        name: String,
        /// How many attempts have failed.
        attempts_failed: u32,
        /// How the latest one failed.
        last_failure: Option<AttemptFailure>,
        /// When the next attempt begins, if it waits for that.
        retry_at: Option<Instant>,
        /// The latest checkpoint.
        checkpoint: Option<Payload>,
    },
    /// A time.
    Timer {
        /// When.
        fire_at: Instant,
    },
    /// A signal or an update.
    Signal {
        /// Its name.
        name: String,
        /// How many, and of what kind.
        mode: WaitMode,
    },
}

/// A line that cannot follow the lines before it: the journal contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("journal line {seq} ({kind}) cannot follow what stands before it: {problem}")]
pub struct IllegalEvent {
    /// The line.
    pub seq: Seq,
    /// Its kind.
    pub kind: &'static str,
    /// What rule it breaks.
    pub problem: String,
}

impl Standing {
    /// Adds up a whole journal.
    ///
    /// # Errors
    /// [`IllegalEvent`] for the first line that cannot stand where it does.
    pub fn of<'a>(journal: impl IntoIterator<Item = &'a Recorded>) -> Result<Self, IllegalEvent> {
        let mut standing = Self::default();
        for line in journal {
            standing.after(line)?;
        }
        Ok(standing)
    }

    /// Adds one line: the one place that knows which line may follow which.
    ///
    /// # Errors
    /// [`IllegalEvent`] if it cannot stand there; the standing is then not to be used further.
    pub fn after(&mut self, line: &Recorded) -> Result<(), IllegalEvent> {
        let illegal = |problem: String| IllegalEvent { seq: line.seq, kind: line.event.kind(), problem };
        if line.seq != self.head.plus(1) {
            return Err(illegal(format!("line {} was expected", self.head.plus(1))));
        }
        if self.outcome.is_some() {
            return Err(illegal("the run has ended".into()));
        }
        let begins = matches!(line.event, Event::RunQueued(_) | Event::RunStarted(_) | Event::RunTerminated(_));
        if !self.started && !begins {
            return Err(illegal("the run has not started".into()));
        }
        self.head = line.seq;
        self.at = line.at;
        match &line.event {
            Event::RunQueued(_) if self.head != Seq(1) => return Err(illegal("it can only be the first line".into())),
            Event::RunQueued(_) => {}
            Event::RunStarted(RunStarted { .. }) if self.started => {
                return Err(illegal("the run has started already".into()));
            }
            Event::RunStarted(_) => self.started = true,
            Event::StepScheduled(StepScheduled { op, name, shielded, .. }) => {
                let wait = Wait::Step {
                    name: name.clone(),
                    attempts_failed: 0,
                    last_failure: None,
                    retry_at: None,
                    checkpoint: None,
                };
                self.open(line, op, *shielded, wait)?;
            }
            Event::TimerArmed(TimerArmed { op, fire_at, shielded }) => {
                self.open(line, op, *shielded, Wait::Timer { fire_at: *fire_at })?;
            }
            Event::SignalAwaited(SignalAwaited { op, name, mode, shielded }) => {
                self.open(line, op, *shielded, Wait::Signal { name: name.clone(), mode: *mode })?;
            }
            Event::StepAttemptFailed(StepAttemptFailed { op, attempt, cause, retry_at: at }) => {
                match self.open.get_mut(op).map(|open| &mut open.wait) {
                    Some(Wait::Step { attempts_failed, last_failure, retry_at, .. }) => {
                        *attempts_failed = *attempt;
                        *last_failure = Some(cause.clone());
                        *retry_at = Some(*at);
                    }
                    _ => return Err(illegal(format!("no step is open at {op}"))),
                }
            }
            Event::StepCheckpointed(StepCheckpointed { op, checkpoint: value, .. }) => {
                match self.open.get_mut(op).map(|open| &mut open.wait) {
                    Some(Wait::Step { checkpoint, .. }) => *checkpoint = Some(value.clone()),
                    _ => return Err(illegal(format!("no step is open at {op}"))),
                }
            }
            Event::StepFinished(StepFinished { op, .. }) | Event::StepFailed(StepFailed { op, .. }) => {
                self.close(line, op, |wait| matches!(wait, Wait::Step { .. }))?;
            }
            Event::TimerFired(TimerFired { op }) => {
                let at = line.at;
                self.close(line, op, |wait| matches!(wait, Wait::Timer { fire_at } if *fire_at <= at))?;
            }
            Event::SignalsTaken(SignalsTaken { op, signals }) => {
                self.close(line, op, |wait| match wait {
                    Wait::Signal { mode: WaitMode::Batch, .. } => !signals.is_empty(),
                    Wait::Signal { .. } => signals.len() == 1,
                    _ => false,
                })?;
                self.signals_taken += signals.len() as u64;
            }
            Event::SignalsChecked(SignalsChecked { signals, .. }) => self.signals_taken += signals.len() as u64,
            Event::WaitWithdrawn(WaitWithdrawn { op }) => self.close(line, op, |_| true)?,
            Event::ValuePublished(ValuePublished { .. })
            | Event::StreamAppended(_)
            | Event::MessageAdded(_)
            | Event::CallSuspended(_)
            | Event::CallSettled(_)
            | Event::UpdateAnswered(_) => {}
            Event::UndoPushed(UndoPushed { .. }) => self.undos += 1,
            Event::UndosForgotten(UndosForgotten { .. }) => self.undos = 0,
            Event::CancelRequested(_) if self.cancel.is_some() => {
                return Err(illegal("cancelling was asked for already".into()));
            }
            Event::CancelRequested(request) => {
                self.cancel = Some(request.clone());
                self.open.retain(|_, open| open.shielded);
            }
            Event::RunCompleted(RunCompleted { output }) => self.end(Outcome::Completed(output.clone())),
            Event::RunFailed(RunFailed { failure }) => self.end(Outcome::Failed(failure.clone())),
            Event::RunCancelled(RunCancelled { reason, failure }) => {
                self.end(Outcome::Cancelled { reason: reason.clone(), failure: failure.clone() });
            }
            Event::RunTerminated(RunTerminated { reason, .. }) => {
                self.end(Outcome::Terminated { reason: reason.clone() });
            }
        }
        Ok(())
    }

    fn open(&mut self, line: &Recorded, op: &OpId, shielded: bool, wait: Wait) -> Result<(), IllegalEvent> {
        let open = OpenOp { seq: line.seq, since: line.at, shielded, wait };
        match self.open.insert(op.clone(), open) {
            None => Ok(()),
            Some(_) => Err(IllegalEvent {
                seq: line.seq,
                kind: line.event.kind(),
                problem: format!("an operation is open at {op} already"),
            }),
        }
    }

    fn close(&mut self, line: &Recorded, op: &OpId, fits: impl Fn(&Wait) -> bool) -> Result<(), IllegalEvent> {
        match self.open.shift_remove(op) {
            Some(open) if fits(&open.wait) => Ok(()),
            found => Err(IllegalEvent {
                seq: line.seq,
                kind: line.event.kind(),
                problem: match found {
                    None => format!("no operation is open at {op}"),
                    Some(open) => format!("the operation at {op} waits for something else: {:?}", open.wait),
                },
            }),
        }
    }

    fn end(&mut self, outcome: Outcome) {
        self.open.clear();
        self.outcome = Some(outcome);
    }
}

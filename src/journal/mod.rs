//! What happened to a run, line by line: the events, their encoding, what they add up to, and the replay cursor.
//!
//! Pure: no I/O, no clock, no tasks. A journal is dense (1, 2, 3, …) and written by one owner at a time. Each line that
//! is delivered to the workflow's code (a result, a timer, signals) is followed by what the code asked for when it was
//! polled; both are written in one commit, so after a crash a journal never ends in the middle of a thought.

mod event;
mod fold;
mod replay;
mod text;

pub use event::{
    CallSettled, CallSuspended, CancelRequested, EVENT_VERSION, Event, MessageAdded, Recorded, RunCancelled,
    RunCompleted, RunFailed, RunQueued, RunStarted, RunTerminated, SignalAwaited, SignalsChecked, SignalsTaken,
    StepAttemptFailed, StepCheckpointed, StepFailed, StepFinished, StepScheduled, StreamAppended, Taken, TimerArmed,
    TimerFired, Undecipherable, UndoPushed, UndosForgotten, UpdateAnswered, ValuePublished, WaitMode, WaitWithdrawn,
};
pub use fold::{IllegalEvent, OpenOp, Standing, Wait};
pub use replay::{Mismatch, Segment, Segments};
pub(crate) use replay::{compare, describe};
pub use text::print;

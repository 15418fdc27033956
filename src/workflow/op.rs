//! A durable operation in flight.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use super::desk::{Answer, Desk};
use crate::id::OpId;
use crate::payload::Undecodable;
use crate::run::BlockReason;

/// The run was asked to cancel; cleanup goes into [`Context::shielded`](super::Context::shielded).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the run was asked to cancel")]
pub struct Cancelled;

pub(super) type Decode<T> = fn(&'static str, Answer) -> Result<T, Undecodable>;

/// A durable operation that the workflow asked for: a future of `T`.
///
/// It exists in the journal from the moment of the call, in the order of the calls. Dropping it before it is answered
/// withdraws it: its body is cancelled, its timer disarmed, and no signal goes to it any more.
#[must_use = "an operation does nothing for the workflow unless it is awaited; dropping it withdraws it"]
pub struct Op<T> {
    desk: Arc<Desk>,
    name: &'static str,
    state: State,
    decode: Decode<T>,
}

enum State {
    Open(OpId),
    Answered(Answer),
    Done,
}

impl<T> Op<T> {
    pub(super) fn new(desk: Arc<Desk>, name: &'static str, asked: Result<OpId, Answer>, decode: Decode<T>) -> Self {
        let state = match asked {
            Ok(op) => State::Open(op),
            Err(answer) => State::Answered(answer),
        };
        Self { desk, name, state, decode }
    }
}

impl<T> Future for Op<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<T> {
        let answer = match std::mem::replace(&mut self.state, State::Done) {
            State::Answered(answer) => answer,
            State::Open(op) => match self.desk.poll(&op, task.waker()) {
                Poll::Ready(answer) => answer,
                Poll::Pending => {
                    self.state = State::Open(op);
                    return Poll::Pending;
                }
            },
            State::Done => return Poll::Pending,
        };
        match (self.decode)(self.name, answer) {
            Ok(value) => Poll::Ready(value),
            Err(problem) => {
                self.desk.block(BlockReason::Undecodable(format!(
                    "the recorded result of {:?} does not fit the code's type {}: {problem}; deploy code that reads it",
                    self.name,
                    std::any::type_name::<T>()
                )));
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Op<T> {
    fn drop(&mut self) {
        if let State::Open(op) = &self.state {
            self.desk.withdraw(op);
        }
    }
}

impl<T> std::fmt::Debug for Op<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match &self.state {
            State::Open(op) => format!("open at {op}"),
            State::Answered(_) => "answered".into(),
            State::Done => "done".into(),
        };
        write!(f, "Op({:?}, {state})", self.name)
    }
}

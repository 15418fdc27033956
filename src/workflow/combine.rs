//! Concurrency of durable operations: race, join, fan-out, scopes.
//!
//! Only operations of the engine are taken, by type: a foreign future cannot be raced. A branch is polled again only
//! when one of its own operations was answered, so that a fan-out of a thousand costs a thousand polls, not a million.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Task, Poll, Wake, Waker};

use futures::future::BoxFuture;

use super::context::UpdateOp;
use super::op::Op;

/// What may be raced and joined: operations of the engine and what is made of them. Sealed.
pub trait Durable: Future + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! durable {
    ($($(#[$_m:meta])* <$($p:ident $(: $b:path)?),*> $name:ty;)*) => {
        $(
            impl<$($p $(: $b)?),*> sealed::Sealed for $name {}
            impl<$($p $(: $b)?),*> Durable for $name {}
        )*
    };
}

durable! {
    <T> Op<T>;
    <I, O> UpdateOp<I, O>;
    <R> Scope<R>;
    <A: Durable, B: Durable> Race<A, B>;
    <A: Durable, B: Durable> Join<A, B>;
    <D: Durable> JoinAll<D>;
    <R> ForEach<R>;
}

/// Which of two was first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raced<A, B> {
    /// The first one named.
    First(A),
    /// The second one named.
    Second(B),
}

/// The first of two; see [`Context::race`](super::Context::race).
#[must_use = "futures do nothing unless awaited"]
pub struct Race<A, B>(Option<Runners<A, B>>);

type Runners<A, B> = (Pin<Box<A>>, Pin<Box<B>>);

impl<A: Durable, B: Durable> Race<A, B> {
    pub(super) fn new(first: A, second: B) -> Self {
        Self(Some((Box::pin(first), Box::pin(second))))
    }
}

impl<A: Durable, B: Durable> Future for Race<A, B> {
    type Output = Raced<A::Output, B::Output>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        let Some((first, second)) = &mut self.0 else { return Poll::Pending };
        let won = if let Poll::Ready(value) = first.as_mut().poll(task) {
            Raced::First(value)
        } else if let Poll::Ready(value) = second.as_mut().poll(task) {
            Raced::Second(value)
        } else {
            return Poll::Pending;
        };
        // The loser is withdrawn here, before the code goes on.
        self.0 = None;
        Poll::Ready(won)
    }
}

/// Both of two; see [`Context::join`](super::Context::join).
#[must_use = "futures do nothing unless awaited"]
pub struct Join<A: Durable, B: Durable> {
    first: Half<A>,
    second: Half<B>,
}

enum Half<D: Durable> {
    Open(Pin<Box<D>>),
    Done(Option<D::Output>),
}

// The futures are boxed and the outputs are never pinned.
impl<A: Durable, B: Durable> Unpin for Join<A, B> {}

impl<D: Durable> Half<D> {
    fn is_done(&mut self, task: &mut Task<'_>) -> bool {
        if let Self::Open(future) = self {
            match future.as_mut().poll(task) {
                Poll::Ready(value) => *self = Self::Done(Some(value)),
                Poll::Pending => return false,
            }
        }
        true
    }

    fn take(&mut self) -> Option<D::Output> {
        match self {
            Self::Open(_) => None,
            Self::Done(value) => value.take(),
        }
    }
}

impl<A: Durable, B: Durable> Join<A, B> {
    pub(super) fn new(first: A, second: B) -> Self {
        Self { first: Half::Open(Box::pin(first)), second: Half::Open(Box::pin(second)) }
    }
}

impl<A: Durable, B: Durable> Future for Join<A, B> {
    type Output = (A::Output, B::Output);

    fn poll(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        let (first, second) = (self.first.is_done(task), self.second.is_done(task));
        if !(first && second) {
            return Poll::Pending;
        }
        match (self.first.take(), self.second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            _ => Poll::Pending,
        }
    }
}

/// A named branch; see [`Context::scope`](super::Context::scope).
#[must_use = "futures do nothing unless awaited"]
pub struct Scope<R>(BoxFuture<'static, R>);

impl<R> Scope<R> {
    pub(super) fn new(branch: BoxFuture<'static, R>) -> Self {
        Self(branch)
    }
}

impl<R> Future for Scope<R> {
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<R> {
        self.0.as_mut().poll(task)
    }
}

/// All of many; see [`Context::join_all`](super::Context::join_all).
#[must_use = "futures do nothing unless awaited"]
pub struct JoinAll<D: Durable> {
    branches: Branches<D, D::Output>,
}

impl<D: Durable> Unpin for JoinAll<D> {}

impl<D: Durable> JoinAll<D> {
    pub(super) fn new(all: Vec<D>) -> Self {
        let limit = all.len();
        Self { branches: Branches::new(all, limit) }
    }
}

impl<D: Durable> Future for JoinAll<D> {
    type Output = Vec<D::Output>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        self.branches.poll(task)
    }
}

/// A branch per item; see [`Context::for_each`](super::Context::for_each).
#[must_use = "futures do nothing unless awaited"]
pub struct ForEach<R> {
    branches: Branches<BoxFuture<'static, R>, R>,
}

impl<R> Unpin for ForEach<R> {}

impl<R> ForEach<R> {
    pub(super) fn new(branches: Vec<BoxFuture<'static, R>>, limit: usize) -> Self {
        Self { branches: Branches::new(branches, limit.max(1)) }
    }
}

impl<R> Future for ForEach<R> {
    type Output = Vec<R>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        self.branches.poll(task)
    }
}

/// Branches of which only those are polled that were woken.
struct Branches<F, T> {
    waiting: VecDeque<(usize, F)>,
    open: Vec<Option<Branch<F>>>,
    done: Vec<Option<T>>,
    left: usize,
    limit: usize,
    running: usize,
    woken: Arc<Woken>,
}

struct Branch<F> {
    future: Pin<Box<F>>,
    waker: Waker,
}

/// The branches to poll next, in the order in which they were woken, and whom to tell.
#[derive(Default)]
struct Woken(Mutex<(VecDeque<usize>, Option<Waker>)>);

struct BranchWaker {
    branch: usize,
    woken: Arc<Woken>,
}

impl Wake for BranchWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let parent = {
            let mut woken = self.woken.0.lock().unwrap_or_else(PoisonError::into_inner);
            woken.0.push_back(self.branch);
            woken.1.clone()
        };
        if let Some(parent) = parent {
            parent.wake();
        }
    }
}

impl<F: Future<Output = T>, T> Branches<F, T> {
    fn new(all: Vec<F>, limit: usize) -> Self {
        let n = all.len();
        Self {
            waiting: all.into_iter().enumerate().collect(),
            open: (0..n).map(|_| None).collect(),
            done: (0..n).map(|_| None).collect(),
            left: n,
            limit,
            running: 0,
            woken: Arc::default(),
        }
    }

    fn poll(&mut self, task: &mut Task<'_>) -> Poll<Vec<T>> {
        self.woken.0.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(task.waker().clone());
        loop {
            let next = self.woken.0.lock().unwrap_or_else(PoisonError::into_inner).0.pop_front();
            match next.or_else(|| self.begin_one()) {
                Some(branch) => self.poll_one(branch),
                None if self.left == 0 => return Poll::Ready(self.done.drain(..).flatten().collect()),
                None => return Poll::Pending,
            }
        }
    }

    fn begin_one(&mut self) -> Option<usize> {
        if self.running >= self.limit {
            return None;
        }
        let (branch, future) = self.waiting.pop_front()?;
        let waker = Waker::from(Arc::new(BranchWaker { branch, woken: Arc::clone(&self.woken) }));
        self.open[branch] = Some(Branch { future: Box::pin(future), waker });
        self.running += 1;
        Some(branch)
    }

    fn poll_one(&mut self, branch: usize) {
        // A branch that was woken twice is done the second time.
        let Some(open) = &mut self.open[branch] else { return };
        let waker = open.waker.clone();
        if let Poll::Ready(value) = open.future.as_mut().poll(&mut Task::from_waker(&waker)) {
            self.open[branch] = None;
            self.done[branch] = Some(value);
            self.left -= 1;
            self.running -= 1;
        }
    }
}

/// Branches that run at the same time, and to which more may be added while they do; see
/// [`Context::crew`](super::Context::crew).
pub struct Crew<R> {
    open: Vec<Option<Branch<BoxFuture<'static, R>>>>,
    running: usize,
    woken: Arc<Woken>,
}

impl<R> Crew<R> {
    pub(super) fn new() -> Self {
        Self { open: Vec::new(), running: 0, woken: Arc::default() }
    }

    /// Adds a branch. It begins when the crew is next waited for.
    pub fn push(&mut self, branch: Scope<R>) {
        let number = self.open.len();
        let waker = Waker::from(Arc::new(BranchWaker { branch: number, woken: Arc::clone(&self.woken) }));
        self.open.push(Some(Branch { future: Box::pin(branch.0), waker }));
        self.running += 1;
        self.woken.0.lock().unwrap_or_else(PoisonError::into_inner).0.push_back(number);
    }

    /// How many branches are not done.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// What the next branch that is done gives; none if there is no branch. Dropping it withdraws nothing: the branches
    /// go on, and are dropped with the crew.
    pub fn done(&mut self) -> Next<'_, R> {
        Next(self)
    }
}

/// The next branch of a [`Crew`] to be done.
#[must_use = "futures do nothing unless awaited"]
pub struct Next<'c, R>(&'c mut Crew<R>);

impl<R> Future for Next<'_, R> {
    type Output = Option<R>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Option<R>> {
        let crew = &mut *self.0;
        crew.woken.0.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(task.waker().clone());
        loop {
            let woken = crew.woken.0.lock().unwrap_or_else(PoisonError::into_inner).0.pop_front();
            let Some(number) = woken else {
                return if crew.running == 0 { Poll::Ready(None) } else { Poll::Pending };
            };
            // A branch that was woken twice is done the second time.
            let Some(branch) = &mut crew.open[number] else { continue };
            let waker = branch.waker.clone();
            if let Poll::Ready(value) = branch.future.as_mut().poll(&mut Task::from_waker(&waker)) {
                crew.open[number] = None;
                crew.running -= 1;
                return Poll::Ready(Some(value));
            }
        }
    }
}

impl<R> sealed::Sealed for Next<'_, R> {}
impl<R> Durable for Next<'_, R> {}

impl<R> std::fmt::Debug for Next<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Next")
    }
}

macro_rules! opaque_debug {
    ($($name:ident <$($p:ident $(: $b:path)?),*>;)*) => {
        $(impl<$($p $(: $b)?),*> std::fmt::Debug for $name<$($p),*> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        })*
    };
}

opaque_debug! {
    Race<A, B>;
    Join<A: Durable, B: Durable>;
    Scope<R>;
    JoinAll<D: Durable>;
    ForEach<R>;
    Crew<R>;
}

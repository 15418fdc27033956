//! A socket that is ended when the other side keeps the server waiting: for a request's head, with nothing, or by taking
//! nothing of an answer. A request under way is bound elsewhere ([`Options::timeout`](super::Options::timeout)).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long the other side may keep the server waiting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From connecting, or from a head's first byte, to the head's end.
    pub(super) head: Duration,
    /// From one answer to the next request.
    pub(super) idle: Duration,
    /// With an answer of which it takes nothing.
    pub(super) stall: Duration,
}

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing of a request has come since it was made, or since the last answer.
    Quiet,
    /// A head has begun.
    Head,
    /// A request is being answered.
    Busy,
}

/// What a connection is at, as its socket and its service both tell it: a count that grows with every change, and the phase
/// in its lowest bits, so that two waits in the same phase are not taken for one.
#[derive(Debug, Default)]
pub(super) struct Activity {
    state: AtomicU64,
    /// Who waits for more, however long a request takes, and is to know when it is answered.
    waiting: AtomicWaker,
}

impl Activity {
    const BITS: u32 = 2;

    fn phase(state: u64) -> Phase {
        match state & ((1 << Self::BITS) - 1) {
            0 => Phase::Quiet,
            1 => Phase::Head,
            _ => Phase::Busy,
        }
    }

    fn now(&self) -> u64 {
        self.state.load(Ordering::Acquire)
    }

    fn turn(&self, phase: Phase) {
        let count = (self.now() >> Self::BITS) + 1;
        self.state.store((count << Self::BITS) | phase as u64, Ordering::Release);
    }

    /// Something has come.
    fn heard(&self) {
        if Self::phase(self.now()) == Phase::Quiet {
            self.turn(Phase::Head);
        }
    }

    /// Whether nothing at all has come yet, so that ending the connection loses nothing.
    pub(super) fn is_new(&self) -> bool {
        self.now() == 0
    }

    /// A request's head is whole; it is being answered until what this returns is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Answering {
        self.turn(Phase::Busy);
        Answering(Arc::clone(self))
    }
}

/// A request that is being answered.
pub(super) struct Answering(Arc<Activity>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.turn(Phase::Quiet);
        self.0.waiting.wake();
    }
}

/// The socket.
pub(super) struct Patient<S> {
    socket: S,
    activity: Arc<Activity>,
    patience: Patience,
    reading: Alarm,
    writing: Alarm,
}

impl<S> Patient<S> {
    pub(super) fn new(socket: S, activity: Arc<Activity>, patience: Patience) -> Self {
        Self { socket, activity, patience, reading: Alarm::default(), writing: Alarm::default() }
    }

    /// Where nothing comes: an error once that has lasted too long.
    fn wait_for_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.activity.waiting.register(cx.waker());
        let state = self.activity.now();
        let span = match Activity::phase(state) {
            Phase::Busy => {
                self.reading.stop();
                return Poll::Pending;
            }
            Phase::Quiet if !self.activity.is_new() => self.patience.idle,
            Phase::Quiet | Phase::Head => self.patience.head,
        };
        ready!(self.reading.poll(cx, state, span));
        Poll::Ready(Err(timed_out("no request has come in time")))
    }

    /// Where nothing is taken: the same.
    fn wait_for_room<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.writing.poll(cx, 0, self.patience.stall));
        Poll::Ready(Err(timed_out("the answer was not taken in time")))
    }

    fn wrote<T>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_pending() {
            return self.wait_for_room(cx);
        }
        self.writing.stop();
        wrote
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

/// The end of a wait; none is set while nothing is waited for.
#[derive(Default)]
struct Alarm(Option<(u64, Pin<Box<Sleep>>)>);

impl Alarm {
    /// Ready once the wait that `which` names has lasted for the span.
    fn poll(&mut self, cx: &mut Context<'_>, which: u64, span: Duration) -> Poll<()> {
        let (set, sleep) = self.0.get_or_insert_with(|| (which, Box::pin(sleep_until(Instant::now() + span))));
        if *set != which {
            *set = which;
            sleep.as_mut().reset(Instant::now() + span);
        }
        sleep.as_mut().poll(cx)
    }

    fn stop(&mut self) {
        self.0 = None;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.socket).poll_read(cx, buffer);
        if read.is_pending() {
            return this.wait_for_more(cx);
        }
        if buffer.filled().len() > before {
            this.activity.heard();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.wrote(cx, wrote)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.socket).poll_write_vectored(cx, parts);
        this.wrote(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);
    const STALL: Duration = Duration::from_secs(60);

    /// Both ends of a connection, and what it is at.
    fn connected() -> (Patient<DuplexStream>, DuplexStream, Arc<Activity>) {
        let (here, there) = duplex(8);
        let activity = Arc::default();
        let patience = Patience { head: HEAD, idle: IDLE, stall: STALL };
        (Patient::new(here, Arc::clone(&activity), patience), there, activity)
    }

    /// How long a read waits before it is given up.
    async fn given_up_after(socket: &mut Patient<DuplexStream>) -> Duration {
        let begun = Instant::now();
        let error = socket.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_sends_no_head_is_not_waited_for() {
        let (mut socket, _there, activity) = connected();
        assert_eq!(given_up_after(&mut socket).await.as_secs(), HEAD.as_secs());
        assert!(activity.is_new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_drips_is_bound_from_its_first_byte() {
        let (mut socket, mut there, activity) = connected();
        let begun = Instant::now();
        let dripping = tokio::spawn(async move {
            while there.write_u8(b'x').await.is_ok() {
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        });
        let mut read = 0;
        while socket.read_u8().await.is_ok() {
            read += 1;
        }
        assert_eq!((read, begun.elapsed().as_secs()), (4, HEAD.as_secs()));
        assert!(!activity.is_new());
        drop(socket);
        dripping.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_under_way_is_waited_for_and_the_next_one_a_while() {
        let (mut socket, mut there, activity) = connected();
        there.write_u8(b'x').await.unwrap();
        socket.read_u8().await.unwrap();
        for _ in 0..2 {
            let answering = activity.busy();
            let longer = HEAD + IDLE + STALL;
            assert!(tokio::time::timeout(longer, socket.read_u8()).await.is_err(), "a long answer is no fault");
            drop(answering);
        }
        assert_eq!(given_up_after(&mut socket).await.as_secs(), IDLE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_ends_while_more_is_waited_for_ends_that_wait_too() {
        let (mut socket, mut there, activity) = connected();
        there.write_u8(b'x').await.unwrap();
        socket.read_u8().await.unwrap();
        let answering = activity.busy();
        let begun = Instant::now();
        let reading = tokio::spawn(async move { socket.read_u8().await });
        tokio::time::sleep(HEAD + IDLE).await;
        drop(answering);
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), HEAD + IDLE + IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_head_has_its_own_time() {
        let (mut socket, mut there, activity) = connected();
        for _ in 0..2 {
            there.write_u8(b'x').await.unwrap();
            socket.read_u8().await.unwrap();
            assert!(tokio::time::timeout(HEAD / 2, socket.read_u8()).await.is_err());
            drop(activity.busy());
            assert!(tokio::time::timeout(HEAD * 2, socket.read_u8()).await.is_err());
        }
        there.write_u8(b'x').await.unwrap();
        socket.read_u8().await.unwrap();
        assert_eq!(given_up_after(&mut socket).await.as_secs(), HEAD.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_nothing_of_an_answer_is_cut_off() {
        let (mut socket, mut there, _) = connected();
        let begun = Instant::now();
        socket.write_all(&[0; 8]).await.unwrap();
        let reading = tokio::spawn(async move {
            tokio::time::sleep(STALL / 2).await;
            there.read_u8().await.unwrap();
            there
        });
        socket.write_u8(0).await.unwrap();
        let _there = reading.await.unwrap();
        let error = socket.write_u8(0).await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, STALL / 2 + STALL));
    }
}

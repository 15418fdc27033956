//! What bodies are about to show to the subscribers of threads. Who reads what was shown waits until it has landed, so
//! that nothing appears behind what was read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::id::ThreadKey;

/// The writes that are under way in this process, by thread.
#[derive(Debug, Default)]
pub(super) struct Shows {
    under_way: Mutex<HashMap<ThreadKey, usize>>,
    landed: Notify,
}

/// A write under way; it has landed, or never will, once this is dropped.
pub(super) struct Show {
    shows: Arc<Shows>,
    thread: ThreadKey,
}

impl Shows {
    fn under_way(&self) -> MutexGuard<'_, HashMap<ThreadKey, usize>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a write, unless the attempt that asks has been told to stop: whoever looks after that sees all there is.
    pub(super) fn begin(self: &Arc<Self>, thread: ThreadKey, stop: &CancellationToken) -> Option<Show> {
        let mut under_way = self.under_way();
        if stop.is_cancelled() {
            return None;
        }
        *under_way.entry(thread).or_default() += 1;
        Some(Show { shows: Arc::clone(self), thread })
    }

    /// Waits until no write to this thread is under way.
    pub(super) async fn landed(&self, thread: ThreadKey) {
        loop {
            let landed = self.landed.notified();
            tokio::pin!(landed);
            // Before the look, so that no landing is missed in between.
            landed.as_mut().enable();
            if !self.under_way().contains_key(&thread) {
                return;
            }
            landed.await;
        }
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        let mut under_way = self.shows.under_way();
        if let Some(many) = under_way.get_mut(&self.thread) {
            *many -= 1;
            if *many == 0 {
                under_way.remove(&self.thread);
            }
        }
        drop(under_way);
        self.shows.landed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_looks_waits_for_what_was_begun_and_nothing_begins_after_a_stop() {
        let (shows, stop) = (Arc::new(Shows::default()), CancellationToken::new());
        let show = shows.begin(ThreadKey(1), &stop).expect("it is not told to stop");
        stop.cancel();
        assert!(shows.begin(ThreadKey(1), &stop).is_none());
        shows.landed(ThreadKey(2)).await;
        let mut looks = by_hand(shows.landed(ThreadKey(1)));
        assert!(looks().is_pending());
        drop(show);
        assert!(looks().is_ready());
    }

    /// A future, to be polled by hand.
    fn by_hand(future: impl Future<Output = ()>) -> impl FnMut() -> std::task::Poll<()> {
        let mut future = Box::pin(future);
        move || future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }
}

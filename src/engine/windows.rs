//! The ends of histories that turns have lately read.
//!
//! A thread's window is read at every step of its turns, and most of it is what was read before: rows of turns that have
//! ended stay as they are. They are kept here, and only what came after them is read. The thread's row counts what changes
//! in them all the same (`edits`); if that has grown, all is read again, so nobody has to tell this process anything.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use crate::id::ThreadKey;
use crate::message::Message;
use crate::store::{Recent, RecentRow, Seen};

/// How much text may have been read into what is kept, at the most twice.
const BYTES_KEPT: usize = 16 * 1024 * 1024;

/// How much text may have been read into one window; then it is read anew.
const WINDOW_BYTES_MAX: usize = 1024 * 1024;

/// In two halves: a full one takes the place of the older one, so what was not asked for meanwhile is forgotten.
#[derive(Debug, Default)]
pub(super) struct Windows(Mutex<Halves>);

#[derive(Debug, Default)]
struct Halves {
    young: HashMap<ThreadKey, Arc<Window>>,
    old: HashMap<ThreadKey, Arc<Window>>,
    /// Of the young half.
    bytes: usize,
}

/// The end of a thread's history, without the rows of the turn under way.
#[derive(Debug)]
pub(super) struct Window {
    /// What its reader has seen.
    pub(super) seen: Seen,
    /// How many messages it has, unless the history has fewer.
    limit: usize,
    messages: Vec<Message>,
    /// How much text was read into it.
    bytes: usize,
}

impl Windows {
    /// What is kept of a thread, if it is at least so much.
    pub(super) fn of(&self, thread: ThreadKey, limit: usize) -> Option<Arc<Window>> {
        self.halves(|halves| {
            if let Some(window) = halves.old.remove(&thread) {
                halves.keep(thread, window);
            }
            halves.young.get(&thread).filter(|window| window.limit >= limit).cloned()
        })
    }

    /// The latest messages of a thread: those of a window, and what was read after them. What stays as it is is kept.
    /// A row that cannot be read is left out, and `warn` is told.
    pub(super) fn join(
        &self,
        thread: ThreadKey,
        limit: usize,
        window: Option<Arc<Window>>,
        recent: Recent,
        warn: impl Fn(&dyn Display),
    ) -> Vec<Message> {
        // As many rows as were asked for: there may be more between them and the window.
        let window = window.filter(|_| !recent.whole && recent.rows.len() < limit);
        let (ended, own) = recent.rows.split_at(recent.rows.partition_point(|row| !row.own));
        let read = |row: &RecentRow| row.message().inspect_err(|problem| warn(problem)).ok();
        let window = match window {
            Some(window) if ended.is_empty() => window,
            window => {
                let mut next = Window::after(window.as_deref(), limit, recent.edits);
                next.seen.until = ended.last().map_or(next.seen.until, |row| row.seq);
                next.bytes += ended.iter().map(|row| row.content.len()).sum::<usize>();
                next.messages.extend(ended.iter().filter_map(read));
                next.messages.drain(..next.messages.len().saturating_sub(next.limit));
                let next = Arc::new(next);
                if !ended.iter().any(|row| row.passing) {
                    self.halves(|halves| halves.keep(thread, Arc::clone(&next)));
                }
                next
            }
        };
        let own: Vec<Message> = own.iter().filter_map(read).collect();
        let room = limit.saturating_sub(own.len());
        let latest = &window.messages[window.messages.len().saturating_sub(room)..];
        latest.iter().cloned().chain(own).collect()
    }

    fn halves<T>(&self, then: impl FnOnce(&mut Halves) -> T) -> T {
        then(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Window {
    fn after(window: Option<&Self>, limit: usize, edits: i64) -> Self {
        let (seen, messages, bytes) =
            window.map_or((Seen { edits, until: 0 }, Vec::new(), 0), |it| (it.seen, it.messages.clone(), it.bytes));
        Self { seen, limit: window.map_or(limit, |it| it.limit), messages, bytes }
    }
}

impl Halves {
    fn keep(&mut self, thread: ThreadKey, window: Arc<Window>) {
        self.old.remove(&thread);
        let bytes = window.bytes;
        let replaced =
            if bytes > WINDOW_BYTES_MAX { self.young.remove(&thread) } else { self.young.insert(thread, window) };
        self.bytes -= replaced.map_or(0, |it| it.bytes);
        self.bytes += if bytes > WINDOW_BYTES_MAX { 0 } else { bytes };
        if self.bytes > BYTES_KEPT {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREAD: ThreadKey = ThreadKey(7);

    fn row(seq: i64, own: bool, text: &str) -> RecentRow {
        let content = serde_json::json!({
            "id": format!("m{seq}"), "role": "user", "content": { "parts": [{ "type": "text", "text": text }] }
        });
        RecentRow { seq, own, passing: false, content: content.to_string() }
    }

    fn recent(whole: bool, edits: i64, rows: Vec<RecentRow>) -> Recent {
        Recent { whole, edits, rows, last_part: None }
    }

    /// What a turn gets, in the form of `seq` of each message.
    fn step(windows: &Windows, limit: usize, recent: Recent) -> Vec<i64> {
        let window = windows.of(THREAD, limit);
        let messages = windows.join(THREAD, limit, window, recent, |problem| panic!("{problem}"));
        messages.iter().map(|message| message.seq).collect()
    }

    #[test]
    fn a_turns_own_rows_are_read_each_time_and_those_before_them_once() {
        let windows = Windows::default();
        let rows = vec![row(1, false, "a"), row(2, false, "b"), row(3, true, "c")];
        assert_eq!(step(&windows, 10, recent(true, 0, rows)), [1, 2, 3]);
        assert_eq!(windows.of(THREAD, 10).unwrap().seen, Seen { edits: 0, until: 2 });
        assert_eq!(step(&windows, 10, recent(false, 0, vec![row(3, true, "c"), row(4, true, "d")])), [1, 2, 3, 4]);
        let next_turn = vec![row(3, false, "c"), row(4, false, "d"), row(5, true, "e")];
        assert_eq!(step(&windows, 10, recent(false, 0, next_turn)), [1, 2, 3, 4, 5]);
        assert_eq!(windows.of(THREAD, 10).unwrap().seen.until, 4);
    }

    #[test]
    fn the_latest_count_when_there_are_more_than_asked_for() {
        let windows = Windows::default();
        assert_eq!(step(&windows, 3, recent(true, 0, vec![row(1, false, "a"), row(2, false, "b")])), [1, 2]);
        let more = vec![row(3, false, "c"), row(4, true, "d")];
        assert_eq!(step(&windows, 3, recent(false, 0, more)), [2, 3, 4]);
        assert!(windows.of(THREAD, 4).is_none(), "it holds three");
        let many = vec![row(7, false, "x"), row(8, false, "y"), row(9, false, "z")];
        assert_eq!(step(&windows, 3, recent(false, 0, many)), [7, 8, 9], "there may be rows between 3 and 7");
    }

    #[test]
    fn what_has_changed_is_read_anew() {
        let windows = Windows::default();
        assert_eq!(step(&windows, 9, recent(true, 0, vec![row(1, false, "a"), row(2, false, "b")])), [1, 2]);
        assert_eq!(step(&windows, 9, recent(true, 1, vec![row(2, false, "b")])), [2]);
        assert_eq!(windows.of(THREAD, 9).unwrap().seen, Seen { edits: 1, until: 2 });
    }

    // H10.7
    #[test]
    fn what_was_deleted_since_the_turn_began_is_not_kept() {
        let windows = Windows::default();
        let deleted = RecentRow { passing: true, ..row(1, false, "a") };
        assert_eq!(step(&windows, 9, recent(true, 1, vec![deleted, row(2, false, "b")])), [1, 2]);
        assert!(windows.of(THREAD, 9).is_none());
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_used_stays() {
        let windows = Windows::default();
        let text = "x".repeat(WINDOW_BYTES_MAX / 2);
        step(&windows, 9, recent(true, 0, vec![row(1, false, "in use")]));
        for thread in 100..200 {
            let recent = recent(true, 0, vec![row(1, false, &text)]);
            windows.join(ThreadKey(thread), 9, None, recent, |problem| panic!("{problem}"));
            assert!(windows.of(THREAD, 9).is_some());
        }
        let kept = windows.halves(|halves| {
            halves.young.values().chain(halves.old.values()).map(|window| window.bytes).sum::<usize>()
        });
        assert!(kept <= 2 * (BYTES_KEPT + WINDOW_BYTES_MAX), "{kept} bytes");
        let long = recent(true, 0, vec![row(1, false, &text), row(2, false, &text), row(3, false, &text)]);
        windows.join(THREAD, 9, None, long, |problem| panic!("{problem}"));
        assert!(windows.of(THREAD, 9).is_none(), "too long to be kept");
    }
}

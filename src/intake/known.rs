//! The threads that were lately written to: what is foreseen of a turn holds for one thread, and this tells which.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::id::{Namespace, ThreadId, ThreadKey};

/// How many are kept, at the most twice.
const KEPT: usize = 16_384;

/// In two halves: a full one takes the place of the older one, so what was not written to meanwhile is forgotten.
#[derive(Debug, Default)]
pub(super) struct KnownThreads(Mutex<Halves>);

#[derive(Debug, Default)]
struct Halves {
    young: HashMap<(Namespace, ThreadId), Known>,
    old: HashMap<(Namespace, ThreadId), Known>,
}

/// What was last heard of a thread. It may have changed since: whoever relies on it is judged by the thread's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) key: ThreadKey,
    /// Whether the last input found a turn under way.
    pub(super) busy: bool,
}

impl KnownThreads {
    pub(super) fn of(&self, namespace: &Namespace, thread: &ThreadId) -> Option<Known> {
        let name = (namespace.clone(), thread.clone());
        self.halves(|halves| halves.young.get(&name).or_else(|| halves.old.get(&name)).copied())
    }

    pub(super) fn heard(&self, namespace: Namespace, thread: ThreadId, known: Known) {
        self.halves(|halves| {
            halves.young.insert((namespace, thread), known);
            if halves.young.len() >= KEPT {
                halves.old = std::mem::take(&mut halves.young);
            }
        });
    }

    fn halves<T>(&self, then: impl FnOnce(&mut Halves) -> T) -> T {
        then(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_to_stays_known_and_the_rest_is_bounded() {
        let (threads, namespace) = (KnownThreads::default(), Namespace::default());
        let id = |n: usize| ThreadId::parse(format!("t{n}")).unwrap();
        let known = |n: i64| Known { key: ThreadKey(n), busy: false };
        for n in 0..5 * KEPT {
            threads.heard(namespace.clone(), id(n), known(n as i64));
            threads.heard(namespace.clone(), id(0), known(-1));
        }
        assert_eq!(threads.of(&namespace, &id(0)), Some(known(-1)));
        assert_eq!(threads.of(&namespace, &id(1)), None);
        assert!(threads.halves(|halves| halves.young.len() + halves.old.len()) <= 2 * KEPT);
    }
}

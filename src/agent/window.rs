//! What a processor sees of its lane: in the window of the model, else in what is stored (T14.9). Pure.

use crate::message::{Category, Lane, Message, Mode, ThreadSignal};

/// A lane, as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LaneWindow {
    pub(super) active: Vec<ThreadSignal>,
    pub(super) has_snapshot: bool,
    pub(super) last_snapshot: Option<ThreadSignal>,
    pub(super) deltas: Vec<ThreadSignal>,
}

/// The signals of a lane that have to be looked up: those that tracking knows, if the window has no snapshot.
pub(super) fn wanted(lane: &str, messages: &[Message], tracking: Option<&Lane>) -> Vec<String> {
    let Some(tracking) = tracking.filter(|_| !of_lane(lane, messages).any(is_snapshot)) else { return Vec::new() };
    let mut wanted: Vec<String> = tracking.active_copies.iter().map(|copy| copy.id.clone()).collect();
    wanted.extend(tracking.last_snapshot_signal_id.clone());
    wanted.extend([tracking.last_signal_id.clone()]);
    wanted.sort();
    wanted.dedup();
    wanted
}

impl LaneWindow {
    /// A lane in a window; `stored` are the messages that were [`wanted`], in the order of the history.
    pub(super) fn of(lane: &str, messages: &[Message], stored: &[Message], tracking: Option<&Lane>) -> Self {
        let window: Vec<ThreadSignal> = of_lane(lane, messages).cloned().collect();
        let has_snapshot = window.iter().any(is_snapshot);
        let active = if has_snapshot {
            window
        } else {
            let missing = |signal: &&ThreadSignal| window.iter().all(|other| other.id != signal.id);
            of_lane(lane, stored).filter(missing).cloned().chain(window.iter().cloned()).collect()
        };
        let last = match tracking.and_then(|tracking| tracking.last_snapshot_signal_id.as_ref()) {
            Some(id) if !has_snapshot => active.iter().position(|signal| signal.id == *id),
            _ => active.iter().rposition(is_snapshot),
        };
        let deltas = match last {
            Some(last) => active[last + 1..].iter().filter(|signal| !is_snapshot(signal)).cloned().collect(),
            None => Vec::new(),
        };
        Self { has_snapshot, last_snapshot: last.map(|last| active[last].clone()), deltas, active }
    }
}

fn of_lane<'m>(lane: &'m str, messages: &'m [Message]) -> impl Iterator<Item = &'m ThreadSignal> {
    messages.iter().filter_map(Message::as_signal).filter(move |signal| {
        signal.category == Category::State && signal.state.as_ref().is_some_and(|mark| mark.id == lane)
    })
}

fn is_snapshot(signal: &ThreadSignal) -> bool {
    signal.state.as_ref().is_some_and(|mark| mark.mode == Mode::Snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Instant;
    use crate::message::{Attributes, LaneCopy, NewState};

    fn state(id: &str, mode: Mode, version: u64) -> Message {
        let state = NewState { mode, ..NewState::snapshot("l", id, id) };
        Message::of_signal(0, state.accept(id, Instant(0), &Attributes::new(), "t", version), Instant(0))
    }

    fn ids(signals: &[ThreadSignal]) -> Vec<&str> {
        signals.iter().map(|it| it.id.as_str()).collect()
    }

    // T14.9
    #[test]
    fn a_window_with_a_snapshot_counts_alone() {
        let messages = [
            state("a", Mode::Snapshot, 1),
            state("b", Mode::Delta, 2),
            state("c", Mode::Snapshot, 3),
            state("d", Mode::Delta, 4),
        ];
        let seen = LaneWindow::of("l", &messages, &[], None);
        assert_eq!(ids(&seen.active), ["a", "b", "c", "d"]);
        assert!(seen.has_snapshot);
        assert_eq!(seen.last_snapshot.as_ref().map(|it| it.id.as_str()), Some("c"));
        assert_eq!(ids(&seen.deltas), ["d"]);
    }

    // T14.9
    #[test]
    fn without_a_snapshot_in_the_window_tracking_finds_it() {
        let (snapshot, delta) = (state("a", Mode::Snapshot, 1), state("b", Mode::Delta, 2));
        let copy = |message: &Message| LaneCopy::of(&message.id, message.as_signal().unwrap().state.as_ref().unwrap());
        let tracking = Lane::after(None, "l", copy(&snapshot), &[], Instant(0));
        let tracking = Lane::after(Some(&tracking), "l", copy(&delta), &[copy(&snapshot)], Instant(0));
        let window = [delta.clone()];
        assert_eq!(wanted("l", &window, Some(&tracking)), ["a", "b"]);
        let seen = LaneWindow::of("l", &window, &[snapshot.clone(), delta], Some(&tracking));
        assert!(!seen.has_snapshot);
        assert_eq!(ids(&seen.active), ["a", "b"]);
        assert_eq!((seen.last_snapshot.unwrap().id.as_str(), ids(&seen.deltas)), ("a", vec!["b"]));
        assert_eq!(wanted("l", &[snapshot], Some(&tracking)), Vec::<String>::new());
    }
}

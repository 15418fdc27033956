//! Signals that are in the prompt of one call and nowhere else (T3.19 to T3.24).

use serde::{Deserialize, Serialize};

use crate::message::{Message, ThreadSignal};

/// A transient signal at its place in a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transient {
    /// The signal.
    pub signal: ThreadSignal,
    /// The message that it stands in front of; the end of the prompt if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// The transient signals of the call to come. They leave with it: its step has them in its input, so what begins the
/// call again finds them there, and no later call does (T3.24).
#[derive(Debug, Clone, Default)]
pub struct Transients(Vec<Transient>);

impl Transients {
    /// One more; it takes the place of a copy that is there (T3.22).
    pub fn add(&mut self, signal: ThreadSignal) {
        match self.0.iter_mut().find(|it| is_copy(&it.signal, &signal)) {
            Some(earlier) => earlier.signal = signal,
            None => self.0.push(Transient { signal, before: None }),
        }
    }

    /// A message enters the transcript: what came earlier stands in front of it.
    pub fn precede(&mut self, message: &str) {
        for it in &mut self.0 {
            it.before.get_or_insert_with(|| message.to_owned());
        }
    }

    /// Takes them along for the call.
    #[must_use]
    pub fn take(&mut self) -> Vec<Transient> {
        std::mem::take(&mut self.0)
    }

    /// Them, as they stand.
    #[must_use]
    pub fn all(&self) -> &[Transient] {
        &self.0
    }

    /// Puts them where they stand among the messages of a prompt. One whose place is above the window stands at its top.
    pub(super) fn place(transients: &[Transient], messages: &mut Vec<Message>) {
        for it in transients {
            let message = Message::of_signal(0, it.signal.clone(), it.signal.created_at);
            let place = match &it.before {
                None => messages.len(),
                Some(before) => messages.iter().position(|other| other.id == *before).unwrap_or(0),
            };
            messages.insert(place, message);
        }
    }
}

fn is_copy(one: &ThreadSignal, other: &ThreadSignal) -> bool {
    one.id == other.id || (one.category == other.category && one.tag == other.tag && one.contents == other.contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Instant;
    use crate::message::{Attributes, NewSignal};

    fn signal(id: &str, text: &str) -> ThreadSignal {
        let signal = NewSignal { transient: Some(true), ..NewSignal::user(text) };
        signal.accept(id, Instant(0), &Attributes::new())
    }

    fn ids(messages: &[Message]) -> Vec<&str> {
        messages.iter().map(|it| it.id.as_str()).collect()
    }

    // T3.22
    #[test]
    fn a_copy_takes_the_place_of_the_earlier_one() {
        let mut transients = Transients::default();
        for (id, text) in [("a", "one"), ("b", "two"), ("c", "one"), ("b", "three")] {
            transients.add(signal(id, text));
        }
        let found: Vec<_> =
            transients.take().into_iter().map(|it| (it.signal.id, it.signal.contents.all_text())).collect();
        assert_eq!(found, [("c".to_owned(), "one".to_owned()), ("b".to_owned(), "three".to_owned())]);
        assert_eq!(transients.take(), []);
    }

    #[test]
    fn they_stand_where_they_came() {
        let mut transients = Transients::default();
        transients.add(signal("a", "one"));
        transients.add(signal("b", "two"));
        transients.precede("m2");
        transients.add(signal("c", "three"));
        let message = |id: &str| Message::of_signal(0, signal(id, id), Instant(0));
        let mut messages = vec![message("m1"), message("m2")];
        Transients::place(transients.all(), &mut messages);
        assert_eq!(ids(&messages), ["m1", "a", "b", "m2", "c"]);
        let mut trimmed = vec![message("m3")];
        Transients::place(&transients.all()[..1], &mut trimmed);
        assert_eq!(ids(&trimmed), ["a", "m3"]);
    }
}

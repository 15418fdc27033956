//! The replay cursor: a journal cut into what was delivered and what the code then asked for.

use std::collections::HashMap;
use std::fmt;

use super::event::{Event, Recorded, Role};
use crate::id::{OpId, RunId, Seq};

/// One delivered line, and what the code asked for when it was polled with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The line that was delivered.
    pub delivered: Recorded,
    /// What the code asked for, in the journal's order.
    pub asked: Vec<Recorded>,
}

/// A journal as segments, in order. Lines that the engine noted for itself are left out.
#[derive(Debug)]
pub struct Segments {
    lines: std::iter::Peekable<std::vec::IntoIter<Recorded>>,
}

impl Segments {
    /// Cuts a journal. It must begin at line 1.
    #[must_use]
    pub fn of(journal: Vec<Recorded>) -> Self {
        Self { lines: journal.into_iter().peekable() }
    }
}

impl Iterator for Segments {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        let delivered = self.lines.find(|line| line.event.role() == Role::Delivered)?;
        let mut asked = Vec::new();
        while let Some(line) = self.lines.next_if(|line| line.event.role() != Role::Delivered) {
            if line.event.role() == Role::Asked {
                asked.push(line);
            }
        }
        Some(Segment { delivered, asked })
    }
}

/// The code asks for something else than the journal holds (engine-expectations 8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The run.
    pub run: RunId,
    /// The journal line in question; the line after the last if the journal holds nothing there.
    pub seq: Seq,
    /// What the journal holds there; none if the code asks for more than was recorded.
    pub recorded: Option<String>,
    /// What the code asks for now; none if it does not ask for what was recorded.
    pub asked: Option<String>,
    /// The last lines that did match, oldest first, five at the most.
    pub matched: Vec<String>,
    /// The build that recorded the run.
    pub recorded_build: String,
    /// The build that replays it.
    pub build: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recorded = self.recorded.as_deref().unwrap_or("nothing more");
        let asked = self.asked.as_deref().unwrap_or("nothing");
        write!(
            f,
            "replay of run {} diverged at event {}: the journal holds {recorded}, the code asked for {asked}",
            self.run, self.seq
        )?;
        if !self.matched.is_empty() {
            write!(f, "; matched before: {}", self.matched.join(", "))?;
        }
        write!(
            f,
            "; recorded by build {}, replayed by build {}; a changed step needs a new name in a new version of the \
             workflow: put the old code back, or keep it registered under its version for the runs that began on it",
            self.recorded_build, self.build
        )
    }
}

impl std::error::Error for Mismatch {}

/// Names an asked line as a person would: `step "charge" (1)`.
pub(crate) fn describe(event: &Event) -> String {
    let at = event.op().map(|op| format!(" at {op}")).unwrap_or_default();
    match event {
        Event::StepScheduled(e) => format!("step {:?}{at}", e.name),
        Event::TimerArmed(e) => format!("a timer for {}{at}", e.fire_at),
        Event::SignalAwaited(e) => format!("a wait for signal {:?}{at}", e.name),
        Event::SignalsChecked(e) => format!("a look for signal {:?}{at}", e.name),
        Event::WaitWithdrawn(_) => format!("the withdrawal of the operation{at}"),
        Event::ValuePublished(e) => format!("the published value {:?}", e.name),
        Event::StreamAppended(e) => format!("a write to stream {:?}", e.stream),
        Event::MessageAdded(e) => format!("the {} message {:?}", e.role, e.id),
        Event::CallSuspended(e) => format!("call {:?} of tool {:?} left to somebody", e.call, e.tool),
        Event::CallSettled(e) => format!("call {:?} settled", e.call),
        Event::UpdateAnswered(e) => format!("the answer to update {:?}", e.id),
        Event::UndoPushed(e) => format!("undo step {:?}{at}", e.name),
        Event::UndosForgotten(_) => "the undo list emptied".into(),
        Event::RunCompleted(_) => "the end of the run: completed".into(),
        Event::RunFailed(e) => format!("the end of the run: failed with {:?}", e.failure.message),
        Event::RunCancelled(_) => "the end of the run: cancelled".into(),
        other => format!("{}{at}", other.kind()),
    }
}

/// Compares what was recorded after one delivery with what the code asks for now.
///
/// Lines about an operation are matched by its id, so that branches may be written in another order; all others by
/// their order. With `values`, recorded values must be the same too (shadow replay); without, kind and name suffice.
///
/// Returns the line in question, what was recorded and what was asked.
#[allow(clippy::type_complexity, reason = "three parts of one answer, taken apart at once by the one caller")]
pub(crate) fn compare(
    recorded: &[Recorded],
    asked: &[Event],
    after: Seq,
    values: bool,
) -> Result<(), (Seq, Option<String>, Option<String>)> {
    let mut by_op: HashMap<(&OpId, bool), &Event> = HashMap::new();
    let mut others = Vec::new();
    for event in asked {
        match event.op() {
            Some(op) => drop(by_op.insert((op, matches!(event, Event::WaitWithdrawn(_))), event)),
            None => others.push(event),
        }
    }
    let mut others = others.into_iter();
    for line in recorded {
        let now = match line.event.op() {
            Some(op) => by_op.remove(&(op, matches!(line.event, Event::WaitWithdrawn(_)))),
            None => others.next(),
        };
        let fits = now.is_some_and(|now| if values { *now == line.event } else { same_kind(now, &line.event) });
        if !fits {
            return Err((line.seq, Some(describe(&line.event)), now.map(describe)));
        }
    }
    let more = others.next().or_else(|| {
        asked.iter().find(|event| {
            event.op().is_some_and(|op| by_op.contains_key(&(op, matches!(event, Event::WaitWithdrawn(_)))))
        })
    });
    match more {
        None => Ok(()),
        Some(event) => Err((after.plus(recorded.len() + 1), None, Some(describe(event)))),
    }
}

fn same_kind(now: &Event, then: &Event) -> bool {
    now.kind() == then.kind()
        && match (now, then) {
            (Event::SignalAwaited(now), Event::SignalAwaited(then)) => now.name == then.name && now.mode == then.mode,
            // A list of answers is matched by what it answers.
            (Event::UpdateAnswered(now), Event::UpdateAnswered(then)) => now.id == then.id,
            _ => now.name() == then.name(),
        }
}

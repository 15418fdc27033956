//! What must hold of every run, stated once: used by the kit, the crash harness, the property test and the soak alike.
//!
//! Each check returns sentences; none means that all holds.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Instant;
use crate::id::OpId;
use crate::journal::{Event, Recorded, Standing, Wait};
use crate::run::{Closed, Status};
use crate::store::History;

/// Everything that must hold of a run: of its journal, of its row, and of the two together.
#[must_use]
pub fn check(history: &History) -> Vec<String> {
    let run = &history.run;
    let mut problems = lines(&history.journal);
    problems.extend(row(history));
    for problem in &mut problems {
        *problem = format!("run {} ({}): {problem}", run.id, run.key);
    }
    problems
}

/// What must hold of a journal by itself: it is dense and can be folded, time does not go back, each operation is asked
/// for and answered once, attempts count up, each signal is taken once, no update is answered twice.
#[must_use]
pub fn lines(journal: &[Recorded]) -> Vec<String> {
    let mut checks = Lines::default();
    let mut standing = Standing::default();
    for line in journal {
        if let Err(illegal) = standing.after(line) {
            checks.problems.push(illegal.to_string());
            return checks.problems;
        }
        checks.line(line);
    }
    checks.problems
}

#[derive(Default)]
struct Lines {
    problems: Vec<String>,
    at: Instant,
    asked: BTreeSet<OpId>,
    failed: BTreeMap<OpId, (u32, Instant)>,
    taken: BTreeSet<String>,
    answered: BTreeSet<String>,
}

impl Lines {
    fn broken(&mut self, line: &Recorded, problem: &str) {
        self.problems.push(format!("line {} ({}): {problem}", line.seq, line.event.kind()));
    }

    fn line(&mut self, line: &Recorded) {
        if line.at < self.at {
            self.broken(line, &format!("it was recorded at {}, the line before at {}", line.at, self.at));
        }
        self.at = line.at;
        match &line.event {
            Event::StepScheduled(e) => self.asked(line, &e.op),
            Event::TimerArmed(e) => self.asked(line, &e.op),
            Event::SignalAwaited(e) => self.asked(line, &e.op),
            Event::SignalsChecked(e) => {
                self.asked(line, &e.op);
                e.signals.iter().for_each(|signal| self.taken(line, &signal.id));
            }
            Event::SignalsTaken(e) => e.signals.iter().for_each(|signal| self.taken(line, &signal.id)),
            Event::StepAttemptFailed(e) => {
                self.attempt(line, &e.op, e.attempt);
                self.failed.insert(e.op.clone(), (e.attempt, e.retry_at));
                if e.retry_at < line.at {
                    self.broken(line, "the next attempt is to begin before this one failed");
                }
            }
            Event::StepFailed(e) => self.attempt(line, &e.op, e.attempts),
            Event::StepCheckpointed(e) => self.attempt(line, &e.op, e.attempt),
            Event::StepFinished(e) => {
                if let Some((_, retry_at)) = self.failed.get(&e.op).copied()
                    && line.at < retry_at
                {
                    self.broken(line, &format!("its attempt was to begin at {retry_at}"));
                }
            }
            Event::UpdateAnswered(e) => {
                if !self.taken.contains(&e.id) {
                    self.broken(line, &format!("update {} was not taken before", e.id));
                }
                if !self.answered.insert(e.id.clone()) {
                    self.broken(line, &format!("update {} was answered before", e.id));
                }
            }
            Event::RunQueued(_)
            | Event::RunStarted(_)
            | Event::TimerFired(_)
            | Event::WaitWithdrawn(_)
            | Event::ValuePublished(_)
            | Event::StreamAppended(_)
            | Event::MessageAdded(_)
            | Event::CallSuspended(_)
            | Event::CallSettled(_)
            | Event::UndoPushed(_)
            | Event::UndosForgotten(_)
            | Event::CancelRequested(_)
            | Event::RunCompleted(_)
            | Event::RunFailed(_)
            | Event::RunCancelled(_)
            | Event::RunTerminated(_) => {}
        }
    }

    fn asked(&mut self, line: &Recorded, op: &OpId) {
        if !self.asked.insert(op.clone()) {
            self.broken(line, &format!("an operation at {op} was asked for before"));
        }
    }

    fn taken(&mut self, line: &Recorded, id: &str) {
        if !self.taken.insert(id.to_owned()) {
            self.broken(line, &format!("signal {id} was taken before"));
        }
    }

    fn attempt(&mut self, line: &Recorded, op: &OpId, attempt: u32) {
        let expected = self.failed.get(op).map_or(1, |(failed, _)| failed + 1);
        if attempt != expected {
            self.broken(line, &format!("it is about attempt {attempt} at {op}, expected {expected}"));
        }
    }
}

/// What must hold of the row, given the journal.
fn row(history: &History) -> Vec<String> {
    let History { run, journal, pending } = history;
    let mut problems = Vec::new();
    let Ok(standing) = Standing::of(journal) else { return problems };
    if run.head != standing.head {
        problems.push(format!("its row says that the journal ends at {}, it ends at {}", run.head, standing.head));
    }
    let ended = journal.last().and_then(|line| match &line.event {
        Event::RunCompleted(_) => Some(Closed::Completed),
        Event::RunFailed(_) => Some(Closed::Failed),
        Event::RunCancelled(_) => Some(Closed::Cancelled),
        Event::RunTerminated(_) => Some(Closed::Terminated),
        _ => None,
    });
    match (&run.status, ended) {
        (Status::Closed { how, .. }, Some(ended)) if *how == ended => {}
        (Status::Closed { .. }, _) | (_, Some(_)) => {
            let says = ended.map_or("open", Closed::word);
            problems.push(format!("its row says {}, its journal says {says}", run.status.word()));
        }
        (Status::Waiting { wake_at }, None) => problems.extend(waiting(journal, &standing, *wake_at)),
        (Status::Due { .. } | Status::Running { .. } | Status::Blocked { .. }, None) => {}
    }
    let waits = i64::try_from(pending.len()).unwrap_or(i64::MAX);
    if run.signals_pending != waits {
        problems.push(format!("its row says that {} signals wait, {waits} do", run.signals_pending));
    }
    let taken = i64::try_from(standing.signals_taken).unwrap_or(i64::MAX);
    if run.signals_accepted < taken + waits {
        problems.push(format!(
            "its row says that {} signals were accepted, but {taken} were taken and {waits} wait",
            run.signals_accepted
        ));
    }
    let ids: BTreeSet<String> = taken_ids(journal).into_iter().collect();
    for signal in pending {
        if ids.contains(&signal.id) {
            problems.push(format!("signal {} was taken and waits all the same", signal.id));
        }
    }
    problems
}

/// A waiting run has nothing to do before it wakes, and wakes in time.
fn waiting(journal: &[Recorded], standing: &Standing, wake_at: Option<Instant>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut wakes = Vec::new();
    for (op, open) in &standing.open {
        match &open.wait {
            Wait::Timer { fire_at } => wakes.push(*fire_at),
            Wait::Step { retry_at: Some(at), .. } => wakes.push(*at),
            Wait::Step { name, retry_at: None, .. } => {
                problems.push(format!("its row says waiting, but the body of step {name:?} at {op} is to run"));
            }
            Wait::Signal { .. } => {}
        }
    }
    if standing.cancel.is_none() {
        wakes.extend(journal.iter().find_map(|line| match &line.event {
            Event::RunStarted(started) => started.deadline,
            _ => None,
        }));
    }
    let say = |at: Option<Instant>| at.map_or_else(|| "never".to_owned(), |at| at.to_string());
    let earliest = wakes.into_iter().min();
    // An imported run waits for nobody.
    if earliest != wake_at && wake_at.is_some() {
        problems.push(format!("its row wakes at {}, its journal at {}", say(wake_at), say(earliest)));
    }
    problems
}

/// The ids of all signals that a journal has taken, in the order in which they were.
#[must_use]
pub fn taken_ids(journal: &[Recorded]) -> Vec<String> {
    let ids = journal.iter().flat_map(|line| match &line.event {
        Event::SignalsTaken(e) => e.signals.as_slice(),
        Event::SignalsChecked(e) => e.signals.as_slice(),
        _ => &[],
    });
    ids.map(|signal| signal.id.clone()).collect()
}

/// What must hold of the signals whose acceptance was acknowledged to a sender, in that order: each was taken once or
/// still waits, and those that were taken were taken in order.
#[must_use]
pub fn acknowledged(history: &History, ids: &[String]) -> Vec<String> {
    let run = &history.run;
    let taken = taken_ids(&history.journal);
    let mut problems = Vec::new();
    let mut last = None;
    for id in ids {
        let times = taken.iter().filter(|known| *known == id).count();
        let waits = history.pending.iter().any(|signal| signal.id == *id);
        match (times, waits) {
            (1, false) => {
                let place = taken.iter().position(|known| known == id);
                if place < last {
                    problems
                        .push(format!("run {}: signal {id} was taken before one that was accepted earlier", run.id));
                }
                last = place;
            }
            (0, true) => {}
            (0, false) => problems.push(format!("run {}: signal {id} was acknowledged and is lost", run.id)),
            _ => problems.push(format!("run {}: signal {id} was taken {times} times", run.id)),
        }
    }
    problems
}

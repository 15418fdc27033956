//! A journal for people: a line per event, aligned, without the noise.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::event::{Event, Recorded};
use crate::clock::Instant;

impl Recorded {
    /// A line as one flat object, for programs: its place, time, event and name, then what the event itself has.
    #[must_use]
    pub fn flat(&self) -> Map<String, Value> {
        let mut flat = Map::new();
        flat.insert("seq".into(), self.seq.0.into());
        flat.insert("at".into(), self.at.0.into());
        flat.insert("event".into(), self.event.kind().into());
        flat.insert("name".into(), self.event.name().into());
        let mut json = Vec::new();
        self.event.encode_into(&mut json);
        // What was just encoded is an object.
        let own: Map<String, Value> = serde_json::from_slice(&json).unwrap_or_default();
        for (key, value) in own {
            flat.entry(key).or_insert(value);
        }
        flat
    }
}

/// Prints a journal. Times are given as the span since its first line, which makes it stable between runs.
#[must_use]
pub fn print(journal: &[Recorded]) -> String {
    let begin = journal.first().map_or(Instant(0), |line| line.at);
    let mut text = String::new();
    for line in journal {
        let after = line.at.since(begin);
        let what = details(&line.event);
        let at = line.event.op().map(ToString::to_string).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write!(text, "{:>4}  {:>9}  {:<17}  {at:<10}  {what}", line.seq, span(after), line.event.kind());
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn span(span: std::time::Duration) -> String {
    let millis = span.as_millis();
    match millis {
        0 => "+0".into(),
        1..1_000 => format!("+{millis}ms"),
        1_000..60_000 => format!("+{}.{:03}s", millis / 1_000, millis % 1_000),
        _ => {
            let seconds = millis / 1_000;
            let (days, hours, minutes, rest) =
                (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
            let mut text = String::from("+");
            for (n, unit) in [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")] {
                if n > 0 {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "{n}{unit}");
                }
            }
            text
        }
    }
}

fn details(event: &Event) -> String {
    match event {
        Event::RunQueued(e) => format!("{} v{} {}", e.workflow, e.version, e.input),
        Event::RunStarted(e) => {
            let input = e.input.as_ref().map(|input| format!(" {input}")).unwrap_or_default();
            format!("{} v{}{input}", e.workflow, e.version)
        }
        Event::StepScheduled(e) => format!("{} {}", e.name, e.input),
        Event::StepFinished(e) => e.output.to_string(),
        Event::StepAttemptFailed(e) => format!("attempt {}: {}", e.attempt, e.cause),
        Event::StepCheckpointed(e) => format!("attempt {}: {}", e.attempt, e.checkpoint),
        Event::StepFailed(e) => format!("after {} attempts: {}", e.attempts, e.cause),
        Event::TimerArmed(e) => format!("until {}", e.fire_at),
        Event::TimerFired(_) | Event::WaitWithdrawn(_) => String::new(),
        Event::SignalAwaited(e) => format!(
            "{} ({})",
            e.name,
            match e.mode {
                super::WaitMode::One => "one",
                super::WaitMode::Batch => "batch",
                super::WaitMode::Update => "update",
            }
        ),
        Event::SignalsTaken(e) => taken(&e.signals),
        Event::SignalsChecked(e) => format!("{} {}", e.name, taken(&e.signals)),
        Event::ValuePublished(e) => format!("{} {}", e.name, e.value),
        Event::StreamAppended(e) => format!("{} {} bytes", e.stream, e.size),
        Event::MessageAdded(e) => {
            format!("{} {} {} bytes{}", e.role, e.id, e.size, if e.again { ", again" } else { "" })
        }
        Event::CallSuspended(e) => format!("{} {} {}", e.call, e.tool, e.value),
        Event::CallSettled(e) => e.call.clone(),
        Event::UpdateAnswered(e) => format!("{} {}", e.id, e.reply),
        Event::UndoPushed(e) => format!("{} {}", e.name, e.input),
        Event::UndosForgotten(e) => e.count.to_string(),
        Event::CancelRequested(e) => format!("{} (by {})", e.reason, e.by),
        Event::RunCompleted(e) => e.output.to_string(),
        Event::RunFailed(e) => e.failure.to_string(),
        Event::RunCancelled(e) => e.reason.clone(),
        Event::RunTerminated(e) => format!("{} (by {})", e.reason, e.by),
    }
}

fn taken(signals: &[super::Taken]) -> String {
    match signals {
        [] => "none".into(),
        _ => signals.iter().map(|signal| format!("{} {}", signal.id, signal.payload)).collect::<Vec<_>>().join(", "),
    }
}

//! Journals as texts that are the same every time.

use crate::clock::Instant;
use crate::journal::{self, Event, Recorded, RunQueued, RunStarted};

/// What is written instead of what changes from run to run.
#[derive(Debug, Clone, Default)]
pub struct Redact {
    texts: Vec<(String, String)>,
}

/// Times and ids have these lengths when they are printed.
const TIME: &str = "0000-00-00T00:00:00.000Z";
const UUID: &str = "00000000-0000-0000-0000-000000000000";

/// Whole numbers in values that are others in every world: the key of a turn's thread, and times.
const NUMBERS: [&str; 2] = ["\"key\":", "\"at\":"];

impl Redact {
    /// Writes `instead` for `text`.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>, instead: impl Into<String>) -> Self {
        self.texts.push((text.into(), instead.into()));
        self
    }

    /// Prints a journal: times are spans since its first line, UUIDs are numbered in their order, the part of
    /// idempotency keys that stands for the seed is named.
    #[must_use]
    pub fn print(&self, journal: &[Recorded]) -> String {
        let begin = journal.first().map_or(Instant(0), |line| line.at);
        let mut text = journal::print(journal);
        for (from, to) in &self.texts {
            text = text.replace(from, to);
        }
        if let Some(seed) = seed(journal) {
            text = text.replace(&format!(":{}:", &seed.simple().to_string()[..8]), ":<seed>:");
        }
        uuids(&times(&text, |at| format!("+{}", seconds(at.since(begin)))))
    }

    /// The lines that must be the same in every world: without places, times and keys, and without what attempts left.
    #[must_use]
    pub(super) fn comparable(&self, journal: &[Recorded]) -> Vec<String> {
        let lasting =
            |line: &&Recorded| !matches!(line.event, Event::StepAttemptFailed(_) | Event::StepCheckpointed(_));
        let lines: Vec<Recorded> = journal.iter().filter(lasting).cloned().collect();
        let mut text = String::new();
        for line in &lines {
            // Its place and its time are the first two words.
            let printed = journal::print(std::slice::from_ref(line));
            let words: Vec<&str> = printed.split_whitespace().skip(2).collect();
            text.push_str(&words.join(" "));
            text.push('\n');
        }
        for (from, to) in &self.texts {
            text = text.replace(from, to);
        }
        if let Some(seed) = seed(journal) {
            text = text.replace(&format!(":{}:", &seed.simple().to_string()[..8]), ":<seed>:");
        }
        let text = NUMBERS.iter().fold(times(&text, |_| "<time>".into()), |text, name| number(&text, name));
        uuids(&text).lines().map(str::to_owned).collect()
    }
}

fn seed(journal: &[Recorded]) -> Option<uuid::Uuid> {
    journal.iter().find_map(|line| match &line.event {
        Event::RunQueued(RunQueued { seed, .. }) | Event::RunStarted(RunStarted { seed, .. }) => Some(*seed),
        _ => None,
    })
}

fn seconds(span: std::time::Duration) -> String {
    let (whole, millis) = (span.as_secs(), span.subsec_millis());
    if millis == 0 { format!("{whole}s") } else { format!("{whole}.{millis:03}s") }
}

/// Replaces every printed time.
fn times(text: &str, instead: impl Fn(Instant) -> String) -> String {
    replace(text, TIME, |found| {
        let at: jiff::Timestamp = found.parse().ok()?;
        Some(instead(Instant(at.as_millisecond())))
    })
}

/// Replaces every whole number after `name`.
fn number(text: &str, name: &str) -> String {
    let mut parts = text.split(name);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let instead = if rest.len() < part.len() { "<n>" } else { "" };
        text + name + instead + rest
    })
}

/// Numbers every UUID in the order of its first appearance.
fn uuids(text: &str) -> String {
    let seen = std::cell::RefCell::new(Vec::<String>::new());
    replace(text, UUID, |found| {
        let mut seen = seen.borrow_mut();
        let place = seen.iter().position(|known| known == found).unwrap_or_else(|| {
            seen.push(found.to_owned());
            seen.len() - 1
        });
        Some(format!("<uuid {}>", place + 1))
    })
}

/// Replaces whatever has the shape of `shape`: a hexadecimal digit where it has a digit, the same character elsewhere.
fn replace(text: &str, shape: &str, instead: impl Fn(&str) -> Option<String>) -> String {
    let fits = |at: &[u8]| {
        at.len() >= shape.len()
            && at
                .iter()
                .zip(shape.as_bytes())
                .all(|(found, wanted)| if *wanted == b'0' { found.is_ascii_hexdigit() } else { found == wanted })
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if fits(rest.as_bytes())
            && let Some(replaced) = instead(&rest[..shape.len()])
        {
            out.push_str(&replaced);
            rest = &rest[shape.len()..];
        } else {
            out.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbered_and_times_become_spans() {
        let text = "a 0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee b 11111111-2222-4333-8444-555555555555 \
                    a 0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee until 2026-01-05T09:00:05.250Z";
        let begin = Instant(1_767_603_600_000);
        let text = uuids(&times(text, |at| format!("+{}", seconds(at.since(begin)))));
        assert_eq!(number(r#""key":12,"at":"noon""#, "\"key\":"), r#""key":<n>,"at":"noon""#);
        insta::assert_snapshot!(text, @"a <uuid 1> b <uuid 2> a <uuid 1> until +5.250s");
    }
}

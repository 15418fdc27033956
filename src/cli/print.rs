//! Printing on standard output: lines, tables, JSON objects. A reader that has gone is no panic.

use std::io::Write as _;

use serde::Serialize;

use super::error::Error;
use crate::clock::Instant;

/// Prints text and sends it on at once: who reads it may be another program.
pub(super) fn text(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    printed.map_err(Error::io("standard output cannot be written"))
}

/// Prints a line.
pub(super) fn line(line: &str) -> Result<(), Error> {
    text(&format!("{line}\n"))
}

/// Prints a JSON object as a line.
pub(super) fn json(value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
    let json = serde_json::to_string(value).map_err(|e| Error::io("a value has no JSON form")(e.into()))?;
    line(&json)
}

/// Columns as wide as their widest cell; the last one as wide as it is.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A time, and how far it is from now.
pub(super) fn time(at: Instant, now: Instant) -> String {
    format!("{at} ({})", from_now(at, now))
}

/// `3s ago`, `in 2h 5m`.
pub(super) fn from_now(at: Instant, now: Instant) -> String {
    if at > now { format!("in {}", span(at.since(now))) } else { format!("{} ago", span(now.since(at))) }
}

/// The two largest units of a span.
pub(super) fn span(span: std::time::Duration) -> String {
    let seconds = span.as_secs();
    let units = [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let first = units.iter().position(|(n, _)| *n > 0).unwrap_or(units.len() - 1);
    let parts = units[first..].iter().take(2).filter(|(n, unit)| *n > 0 || (*unit == "s" && seconds == 0));
    parts.map(|(n, unit)| format!("{n}{unit}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_span_shows_its_two_largest_units() {
        let shown = [0, 7, 60, 3_725, 200_000].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0s", "7s", "1m", "1h 2m", "2d 7h"]);
    }

    #[test]
    fn a_time_is_told_from_now() {
        let now = Instant(100_000);
        assert_eq!(from_now(Instant(90_000), now), "10s ago");
        assert_eq!(from_now(Instant(160_000), now), "in 1m");
    }

    #[test]
    fn a_table_is_as_wide_as_its_cells() {
        let rows = [vec!["a".to_owned(), "waiting".to_owned()], vec!["order-7".to_owned(), "due".to_owned()]];
        insta::assert_snapshot!(table(&["RUN", "STATUS"], &rows), @r"
        RUN      STATUS
        a        waiting
        order-7  due
        ");
    }
}

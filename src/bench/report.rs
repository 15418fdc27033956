//! What is told of a measurement.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::measure::{Measured, median, millis, peak_resident_mb, percentile};
use super::{Config, Shape};

/// The figures of a shape. Its JSON form is what `aldis bench --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What was measured.
    pub shape: &'static str,
    /// On which kind of store.
    pub store: String,
    /// What is counted: runs, signals, steps, commits, events.
    pub unit: &'static str,
    /// How many of them a second; the median of the rounds.
    pub per_s: f64,
    /// How long half of the pieces took at the most, in milliseconds.
    pub p50_ms: f64,
    /// How long all but one in a hundred took at the most.
    pub p99_ms: f64,
    /// How many of them a second the limit allows; the median of the rounds.
    pub limit_per_s: f64,
    /// `per_s` as a share of `limit_per_s`.
    pub share_of_limit: f64,
    /// How many logical commits a round made.
    pub logical_commits: u64,
    /// How many transactions carried them.
    pub physical_commits: u64,
    /// The most memory that this process had resident, in MB; null where the system does not say.
    pub peak_rss_mb: Option<f64>,
    /// How many tasks or senders there were.
    pub in_flight: usize,
    /// How many rounds.
    pub rounds: usize,
    /// What only this shape has.
    #[serde(flatten)]
    pub own: Map<String, Value>,
}

/// The rounds of a shape and of its limit.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    pub(super) shape: Vec<Measured>,
    pub(super) limit: Vec<Measured>,
}

impl Rounds {
    /// `limit_per_s` tells of a round of the limit how many of the shape's units a second it allows.
    pub(super) fn report(
        &self,
        (shape, unit): (Shape, &'static str),
        (store, config): (String, &Config),
        limit_per_s: impl Fn(&Measured) -> f64,
    ) -> Report {
        let mut each: Vec<Duration> = self.shape.iter().flat_map(|round| round.each.iter().copied()).collect();
        let mut limit_each: Vec<Duration> = self.limit.iter().flat_map(|round| round.each.iter().copied()).collect();
        let per_s = median(self.shape.iter().map(Measured::per_s).collect());
        let limit_per_s = median(self.limit.iter().map(limit_per_s).collect());
        let last = self.shape.last().map(|round| round.wrote).unwrap_or_default();
        let mut report = Report {
            shape: shape.name(),
            store,
            unit,
            per_s: rounded(per_s, 1),
            p50_ms: rounded(millis(percentile(&mut each, 0.5)), 3),
            p99_ms: rounded(millis(percentile(&mut each, 0.99)), 3),
            limit_per_s: rounded(limit_per_s, 1),
            share_of_limit: rounded(per_s / limit_per_s.max(1e-9), 3),
            logical_commits: last.logical_commits,
            physical_commits: last.physical_commits,
            peak_rss_mb: peak_resident_mb().map(|mb| rounded(mb, 1)),
            in_flight: config.in_flight,
            rounds: config.rounds,
            own: Map::new(),
        };
        report.own("commits_per_s", rounded(median(self.shape.iter().map(Measured::commits_per_s).collect()), 1));
        report.own("limit_commits_per_s", rounded(median(self.limit.iter().map(Measured::commits_per_s).collect()), 1));
        report.own("limit_p50_ms", rounded(millis(percentile(&mut limit_each, 0.5)), 3));
        report.own("limit_p99_ms", rounded(millis(percentile(&mut limit_each, 0.99)), 3));
        report
    }
}

impl Report {
    pub(super) fn own(&mut self, key: &str, value: impl Into<Value>) {
        self.own.insert(key.to_owned(), value.into());
    }
}

/// So many digits after the point as mean something.
pub(super) fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

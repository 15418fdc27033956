//! `aldis bench`: measures what a store can do, and the engine on it.

use std::sync::Arc;

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::error::Error;
use super::progress::Bar;
use super::{Desk, Exit, print};
use crate::bench::{self, Config, Report, Shape};

/// Measures a shape, and beside it the limit: the store's own writer with nothing around it.
#[derive(Debug, Args)]
pub(super) struct Bench {
    /// What to measure
    #[arg(value_parser = PossibleValuesParser::new(Shape::ALL.map(Shape::name)))]
    shape: String,
    /// How many runs; messages (turn)
    #[arg(long, alias = "messages")]
    runs: Option<usize>,
    /// How many steps a run has
    #[arg(long)]
    steps: Option<u32>,
    /// How many runs or senders are under way at the same time; threads (turn)
    #[arg(long, alias = "threads")]
    in_flight: Option<usize>,
    /// How many runs wait before the first is signalled (await)
    #[arg(long)]
    parked: Option<usize>,
    /// How many messages the long history has (turn)
    #[arg(long)]
    history: Option<usize>,
    /// How many steps are parallel (fanout)
    #[arg(long)]
    width: Option<u32>,
    /// How often shape and limit are measured, by turns; the median counts
    #[arg(long)]
    rounds: Option<usize>,
}

/// The second process of `bench await`.
#[derive(Debug, Args)]
pub(super) struct Resume {
    #[arg(long)]
    parked: usize,
    #[arg(long)]
    in_flight: usize,
}

pub(super) async fn run(desk: &Desk, asked: Bench) -> Result<Exit, Error> {
    let Some(shape) = Shape::named(&asked.shape) else {
        return Err(Error::Usage(format!("no shape is called {:?}", asked.shape)));
    };
    let bar = Bar::new();
    let shown = bar.clone();
    let usual = Config::of(shape);
    let config = Config {
        store: desk.common.store.clone(),
        runs: asked.runs.unwrap_or(usual.runs),
        steps: asked.steps.unwrap_or(usual.steps),
        in_flight: asked.in_flight.unwrap_or(usual.in_flight),
        parked: asked.parked.unwrap_or(usual.parked),
        history: asked.history.unwrap_or(usual.history),
        width: asked.width.unwrap_or(usual.width),
        rounds: asked.rounds.unwrap_or(usual.rounds),
        again: vec!["bench-resume".into()],
        progress: Arc::new(move |what, done, total| shown.show(what, done, total)),
    };
    let report = bench::run(shape, &config).await;
    bar.clear();
    let report = report?;
    if desk.json() {
        print::json(&report)?;
    } else {
        print::text(&text(&report))?;
    }
    Ok(Exit::Good)
}

pub(super) async fn resume(desk: &Desk, asked: Resume) -> Result<Exit, Error> {
    let config = Config { in_flight: asked.in_flight, ..Config::of(Shape::Await) };
    let Some(store) = &desk.common.store else {
        return Err(Error::Usage("bench-resume needs the store that `bench await` has made".into()));
    };
    let resumed = bench::resume(store, asked.parked, &config).await?;
    print::json(&resumed)?;
    Ok(Exit::Good)
}

fn text(report: &Report) -> String {
    let Report { shape, store, unit, per_s, p50_ms, p99_ms, limit_per_s, share_of_limit, .. } = report;
    let mut lines = vec![
        format!("{shape} on {store}: {per_s} {unit}/s, p50 {p50_ms} ms, p99 {p99_ms} ms"),
        format!("limit: {limit_per_s} {unit}/s; share of the limit: {:.0} %", share_of_limit * 100.0),
        format!(
            "a round: {} logical commits in {} transactions; {} in flight, {} rounds",
            report.logical_commits, report.physical_commits, report.in_flight, report.rounds
        ),
    ];
    if let Some(peak) = report.peak_rss_mb {
        lines.push(format!("at most {peak} MB resident"));
    }
    lines.extend(report.own.iter().map(|(key, value)| format!("  {key}: {value}")));
    lines.push(String::new());
    lines.join("\n")
}

//! One long run: whether a late step costs more than an early one.

use std::time::{Duration, Instant};

use super::limit::{self, Pattern};
use super::measure::{Measured, millis, percentile, since};
use super::place::Place;
use super::report::{Report, Rounds, rounded};
use super::workflows::{Marks, SEQ, Work, marking};
use super::{Config, Error, Shape};

/// How many steps around a place tell what a step costs there.
const AROUND: usize = 100;

pub(super) async fn shape(config: &Config) -> Result<Report, Error> {
    let config = &Config { in_flight: 1, runs: 1, ..config.clone() };
    let pattern = Pattern::steps(1)?;
    let mut rounds = Rounds::default();
    let (mut early, mut late) = (Vec::new(), Vec::new());
    for _ in 0..config.rounds {
        rounds.limit.push(limit::measure(config, &pattern, (config.steps as usize).min(1_000) / 2 + 1).await?);
        let measured = measure(config).await?;
        early.extend_from_slice(around(&measured.each, 100));
        late.extend_from_slice(around(&measured.each, config.steps as usize));
        rounds.shape.push(measured);
    }
    let mut report = rounds.report((Shape::Growth, "steps"), (Place::kind(config), config), Measured::per_s);
    let (early, late) = (percentile(&mut early, 0.5), percentile(&mut late, 0.5));
    report.own("steps", config.steps);
    report.own("step_100_ms", rounded(millis(early), 4));
    report.own("last_steps_ms", rounded(millis(late), 4));
    report.own("growth", rounded(millis(late) / millis(early).max(1e-9), 3));
    Ok(report)
}

/// The hundred steps around a place, or the last hundred.
fn around(each: &[Duration], place: usize) -> &[Duration] {
    let end = (place + AROUND / 2).min(each.len());
    &each[end.saturating_sub(AROUND)..end]
}

/// How long each step took: from the beginning of its body to that of the next one's.
async fn measure(config: &Config) -> Result<Measured, Error> {
    let marks = Marks::default();
    let place = Place::fresh(config).await?;
    let runtime = place.start(vec![marking(marks.clone())]).await?;
    let before = runtime.store().stats();
    let begun = Instant::now();
    let run = runtime.run(SEQ, &Work { steps: config.steps }).await?;
    let ended = run.result::<u32>().await;
    let (took, wrote) = (begun.elapsed(), since(before, runtime.store().stats()));
    place.stop(runtime).await?;
    ended?;
    let marks = marks.taken();
    let each = marks.windows(2).map(|pair| pair[1] - pair[0]).collect();
    Ok(Measured { took, each, pieces: config.steps as usize, wrote })
}

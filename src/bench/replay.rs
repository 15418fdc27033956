//! Journals read from the store and replayed against the code. The limit is the reading alone.

use std::time::{Duration, Instant};

use super::measure::{Measured, median, processor_time, spread};
use super::place::Place;
use super::report::{Report, Rounds, rounded};
use super::workflows::{SEQ, Work};
use super::{Config, Error, Shape};
use crate::engine::rehearse;
use crate::id::RunKey;
use crate::runtime::Runtime;
use crate::store::History;

/// How often each journal is replayed.
const TIMES: usize = 10;

pub(super) async fn shape(config: &Config) -> Result<Report, Error> {
    let place = Place::fresh(config).await?;
    let runtime = place.start(super::workflows::all()).await?;
    let measured = measure(&runtime, config).await;
    place.stop(runtime).await?;
    let (rounds, per_cpu_s) = measured?;
    let mut report = rounds.report((Shape::Replay, "events"), (Place::kind(config), config), Measured::per_s);
    report.own("runs", config.runs);
    report.own("steps", config.steps);
    if !per_cpu_s.is_empty() {
        report.own("per_processor_s", rounded(median(per_cpu_s), 1));
    }
    Ok(report)
}

async fn measure(runtime: &Runtime, config: &Config) -> Result<(Rounds, Vec<f64>), Error> {
    let (steps, client) = (config.steps, runtime.client().clone());
    let keys = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = std::sync::Arc::clone(&keys);
    spread(runtime.store(), (64, config.runs), (config, "writing journals"), move |_| {
        let (client, kept) = (client.clone(), std::sync::Arc::clone(&kept));
        async move {
            let run = client.run(SEQ, &Work { steps }).await?;
            run.result::<u32>().await?;
            kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(run.key());
            Ok(Duration::ZERO)
        }
    })
    .await?;
    let keys: Vec<RunKey> = std::mem::take(&mut keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let (mut rounds, mut per_cpu_s) = (Rounds::default(), Vec::new());
    for _ in 0..config.rounds {
        rounds.limit.push(each(runtime, &keys, config, |_| Ok(())).await?);
        let before = processor_time();
        let replayed = each(runtime, &keys, config, |history| {
            let replayed = rehearse(history, runtime.registry(), "bench", false);
            replayed.map(drop).map_err(|diverged| Error::Again(diverged.to_string()))
        })
        .await?;
        if let (Some(before), Some(after)) = (before, processor_time()) {
            per_cpu_s.push(replayed.pieces as f64 / (after - before).as_secs_f64().max(0.01));
        }
        rounds.shape.push(replayed);
    }
    Ok((rounds, per_cpu_s))
}

/// Reads each journal so many times, one after the other, and does something with it.
async fn each(
    runtime: &Runtime,
    keys: &[RunKey],
    config: &Config,
    with: impl Fn(History) -> Result<(), Error>,
) -> Result<Measured, Error> {
    let (mut each, mut pieces) = (Vec::new(), 0);
    let begun = Instant::now();
    for n in 0..TIMES * keys.len() {
        let one = Instant::now();
        let key = keys[n % keys.len()];
        for history in runtime.store().history(&[key]).await? {
            let history = history.map_err(|unreadable| crate::runtime::Error::Undecipherable(unreadable.problem))?;
            pieces += history.journal.len();
            with(history)?;
        }
        each.push(one.elapsed());
        (config.progress)("replaying", n as u64, (TIMES * keys.len()) as u64);
    }
    Ok(Measured { took: begun.elapsed(), each, pieces, wrote: crate::store::Stats::default() })
}

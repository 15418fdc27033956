//! Runs that start, wait, are signalled and finish.

use std::time::{Duration, Instant};

use super::limit::{self, Pattern};
use super::measure::{Measured, millis, percentile, spread};
use super::place::Place;
use super::report::{Report, Rounds, rounded};
use super::workflows::{FILLER, GO, WAIT, Work};
use super::{Config, Error, Shape};
use crate::runtime::Client;

/// How many runs tell how long a signal takes when there is nothing else to do.
const QUIET: usize = 300;

pub(super) async fn shape(config: &Config) -> Result<Report, Error> {
    let pattern = Pattern::signal()?;
    let mut rounds = Rounds::default();
    let (mut quiet, mut quiet_limit) = (Vec::new(), Vec::new());
    for round in 0..config.rounds {
        if round % 2 == 0 {
            rounds.limit.push(limit::busy_and_quiet(config, &pattern, QUIET, &mut quiet_limit).await?);
            rounds.shape.push(measure(config, &mut quiet).await?);
        } else {
            rounds.shape.push(measure(config, &mut quiet).await?);
            rounds.limit.push(limit::busy_and_quiet(config, &pattern, QUIET, &mut quiet_limit).await?);
        }
    }
    let per_run = pattern.commits() as f64;
    let mut report =
        rounds.report((Shape::Signal, "signals"), (Place::kind(config), config), |limit| limit.per_s() / per_run);
    report.own("runs", config.runs);
    let (quiet, commit) = (percentile(&mut quiet, 0.5), percentile(&mut quiet_limit, 0.5));
    report.own("low_load_p50_ms", rounded(millis(quiet), 3));
    report.own("low_load_commit_p50_ms", rounded(millis(commit), 3));
    report.own("low_load_p50_in_commits", rounded(millis(quiet) / millis(commit).max(1e-9), 2));
    Ok(report)
}

async fn measure(config: &Config, quiet: &mut Vec<Duration>) -> Result<Measured, Error> {
    let place = Place::fresh(config).await?;
    let runtime = place.start(super::workflows::all()).await?;
    let client = runtime.client().clone();
    let store = client.store().clone();
    let warm = client.clone();
    let warm_up = config.in_flight.max(20);
    spread(&store, (config.in_flight, warm_up), (config, "warming up"), move |_| one(warm.clone(), Since::Start))
        .await?;
    let busy = client.clone();
    let measured = spread(&store, (config.in_flight, config.runs), (config, "signalling"), move |_| {
        one(busy.clone(), Since::Start)
    })
    .await;
    let alone =
        spread(&store, (1, QUIET), (config, "one at a time"), move |_| one(client.clone(), Since::Signal)).await;
    place.stop(runtime).await?;
    quiet.append(&mut alone?.each);
    measured
}

/// From when on a run is timed.
#[derive(Clone, Copy)]
enum Since {
    Start,
    Signal,
}

async fn one(client: Client, since: Since) -> Result<Duration, Error> {
    let mut begun = Instant::now();
    // Once the start is durable the run is a row that waits.
    let run = client.run(WAIT, &Work { steps: 0 }).await?;
    if matches!(since, Since::Signal) {
        begun = Instant::now();
    }
    run.signal(&GO, &FILLER.to_owned()).await?;
    run.result::<String>().await?;
    Ok(begun.elapsed())
}

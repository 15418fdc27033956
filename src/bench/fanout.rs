//! One run with many parallel steps.

use std::time::Instant;

use super::limit::{self, Pattern};
use super::measure::{Measured, spread};
use super::place::Place;
use super::report::{Report, Rounds};
use super::workflows::{FANOUT, Work};
use super::{Config, Error, Shape};
use crate::runtime::Client;

/// How many tasks bring the limit for steps that all are under way at once.
const TASKS: usize = 64;

pub(super) async fn shape(config: &Config) -> Result<Report, Error> {
    let pattern = Pattern::steps(1)?;
    let width = config.width as usize;
    let limit = Config { in_flight: width.min(TASKS), ..config.clone() };
    let mut rounds = Rounds::default();
    for _ in 0..config.rounds {
        // A step is one commit; a run of the pattern has two.
        rounds.limit.push(limit::measure(&limit, &pattern, width.div_ceil(2) * config.runs).await?);
        rounds.shape.push(measure(config).await?);
    }
    let mut report = rounds.report((Shape::Fanout, "steps"), (Place::kind(config), config), Measured::per_s);
    report.own("runs", config.runs);
    report.own("width", config.width);
    Ok(report)
}

async fn measure(config: &Config) -> Result<Measured, Error> {
    let place = Place::fresh(config).await?;
    let runtime = place.start(super::workflows::all()).await?;
    let (client, width) = (runtime.client().clone(), config.width);
    one(client.clone(), width.min(10)).await?;
    let each = client.clone();
    let measured = spread(client.store(), (config.in_flight, config.runs), (config, "fanning out"), move |_| {
        one(each.clone(), width)
    })
    .await;
    place.stop(runtime).await?;
    let mut measured = measured?;
    measured.pieces = config.runs * width as usize;
    Ok(measured)
}

async fn one(client: Client, width: u32) -> Result<std::time::Duration, Error> {
    let begun = Instant::now();
    let run = client.run(FANOUT, &Work { steps: width }).await?;
    run.result::<usize>().await?;
    Ok(begun.elapsed())
}

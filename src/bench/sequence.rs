//! Runs of sequential steps, many at once (`seq`) or one at a time (`latency`).

use std::time::Instant;

use super::limit::{self, Pattern};
use super::measure::{Measured, spread};
use super::place::Place;
use super::report::{Report, Rounds, rounded};
use super::workflows::{SEQ, Work};
use super::{Config, Error, Shape};
use crate::runtime::Client;

pub(super) async fn shape(shape: Shape, config: &Config) -> Result<Report, Error> {
    let pattern = Pattern::steps(config.steps)?;
    let mut rounds = Rounds::default();
    for round in 0..config.rounds {
        // By turns, so that neither always has the warmer machine.
        if round % 2 == 0 {
            rounds.limit.push(limit::measure(config, &pattern, config.runs).await?);
            rounds.shape.push(measure(config).await?);
        } else {
            rounds.shape.push(measure(config).await?);
            rounds.limit.push(limit::measure(config, &pattern, config.runs).await?);
        }
    }
    let per_run = pattern.commits() as f64;
    let mut report = rounds.report((shape, "runs"), (Place::kind(config), config), |limit| limit.per_s() / per_run);
    report.own("runs", config.runs);
    report.own("steps", config.steps);
    report.own("steps_per_s", rounded(report.per_s * f64::from(config.steps), 1));
    if let Some(limit) = report.own.get("limit_p50_ms").and_then(serde_json::Value::as_f64) {
        report.own("p50_in_commits", rounded(report.p50_ms / limit.max(1e-9), 2));
    }
    Ok(report)
}

async fn measure(config: &Config) -> Result<Measured, Error> {
    let place = Place::fresh(config).await?;
    let runtime = place.start(super::workflows::all()).await?;
    let (client, steps) = (runtime.client().clone(), config.steps);
    let warm = client.clone();
    let warm_up = config.in_flight.max(20);
    spread(client.store(), (config.in_flight, warm_up), (config, "warming up"), move |_| one(warm.clone(), steps))
        .await?;
    let each = client.clone();
    let measured =
        spread(client.store(), (config.in_flight, config.runs), (config, "running"), move |_| one(each.clone(), steps))
            .await;
    place.stop(runtime).await?;
    measured
}

async fn one(client: Client, steps: u32) -> Result<std::time::Duration, Error> {
    let begun = Instant::now();
    let run = client.run(SEQ, &Work { steps }).await?;
    run.result::<u32>().await?;
    Ok(begun.elapsed())
}

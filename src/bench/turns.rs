//! Messages to threads, each answered by an agent whose model answers at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::limit::{self, Pattern};
use super::measure::{Measured, millis, percentile, resident_mb, spread};
use super::place::Place;
use super::report::{Report, Rounds, rounded};
use super::{Config, Error, Shape};
use crate::agent::Agent;
use crate::agent::model::{Deltas, Finish, Model, ModelError, Models, Reply, Request, Usage};
use crate::intake::SendOptions;
use crate::message::{AssistantPart, NewSignal};
use crate::runtime::{Client, Runtime, Since};
use crate::thread::IfIdle;

/// How many turns tell how long it takes to the first model call when there is nothing else to do.
const QUIET: usize = 300;

/// How many turns are measured on a thread with a long history, and on one with a short one.
const ON_HISTORY: usize = 200;

/// The short history.
const SHORT: usize = 100;

pub(super) async fn shape(config: &Config) -> Result<Report, Error> {
    let pattern = Pattern::steps(1)?;
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
    let per_turn = pattern.commits() as f64;
    let commits = rounds.shape.last().map(|it| it.wrote.logical_commits as f64 / it.pieces as f64).unwrap_or_default();
    let mut report =
        rounds.report((Shape::Turn, "turns"), (Place::kind(config), config), |limit| limit.per_s() / per_turn);
    report.own("threads", config.in_flight);
    report.own("messages", config.runs);
    report.own("commits_per_turn", rounded(commits, 2));
    let (quiet, commit) = (percentile(&mut quiet, 0.5), percentile(&mut quiet_limit, 0.5));
    report.own("low_load_first_call_p50_ms", rounded(millis(quiet), 3));
    report.own("low_load_commit_p50_ms", rounded(millis(commit), 3));
    report.own("low_load_first_call_p50_in_commits", rounded(millis(quiet) / millis(commit).max(1e-9), 2));
    let (short, long) = histories(config).await?;
    report.own("history", config.history);
    report.own("history_short_p50_ms", rounded(millis(short), 3));
    report.own("history_long_p50_ms", rounded(millis(long), 3));
    let (mut reached, resident) = subscribers(config).await?;
    report.own("subscribers", config.parked);
    report.own("subscribers_rss_mb", resident.map(|mb| rounded(mb, 1)));
    report.own("subscribers_p99_ms", rounded(millis(percentile(&mut reached, 0.99)), 3));
    report.own("history_ratio", rounded(millis(long) / millis(short).max(1e-9), 2));
    Ok(report)
}

/// A model that answers at once, and notes when it was asked.
#[derive(Debug, Default)]
struct Instantly {
    asked: Mutex<Option<Instant>>,
}

impl Model for Instantly {
    fn name(&self) -> &'static str {
        "instantly"
    }

    fn ask<'a>(&'a self, _: &'a Request, _: &'a Deltas) -> BoxFuture<'a, Result<Reply, ModelError>> {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let reply = Reply {
            parts: vec![AssistantPart::Text("It is done.".to_owned())],
            finish: Finish::Stop,
            usage: Usage::default(),
            response_id: None,
            model_id: "instantly".to_owned(),
        };
        std::future::ready(Ok(reply)).boxed()
    }
}

async fn start(place: &Place, model: Arc<Instantly>) -> Result<Runtime, Error> {
    let agent = Agent::new("bench").model("instantly/now");
    let aldis = crate::runtime::Aldis::open(place.url()).agent(agent).models(Models::new().with(model));
    Ok(aldis.start().await?)
}

async fn measure(config: &Config, quiet: &mut Vec<Duration>) -> Result<Measured, Error> {
    let place = Place::fresh(config).await?;
    let model = Arc::new(Instantly::default());
    let runtime = start(&place, Arc::clone(&model)).await?;
    let client = runtime.client().clone();
    let store = client.store().clone();
    let threads = config.in_flight;
    let warm = client.clone();
    spread(&store, (threads, threads.max(20)), (config, "warming up"), move |n| answered(warm.clone(), n % threads))
        .await?;
    let busy = client.clone();
    let measured =
        spread(&store, (threads, config.runs), (config, "answering"), move |n| answered(busy.clone(), n % threads))
            .await;
    let alone = spread(&store, (1, QUIET), (config, "one at a time"), move |_| {
        let (client, model) = (client.clone(), Arc::clone(&model));
        async move {
            let acknowledged = one(&client, "quiet").await?;
            let asked = *model.asked.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(asked.map_or(Duration::ZERO, |asked| asked.saturating_duration_since(acknowledged)))
        }
    })
    .await;
    place.stop(runtime).await?;
    quiet.append(&mut alone?.each);
    measured
}

async fn answered(client: Client, thread: usize) -> Result<Duration, Error> {
    let begun = Instant::now();
    one(&client, &format!("t{thread}")).await?;
    Ok(begun.elapsed())
}

/// Sends a message and waits until its turn has ended; when it was acknowledged.
async fn one(client: &Client, thread: &str) -> Result<Instant, Error> {
    let sent = client.agent("bench").thread(thread, "bench")?.send("How is it going?").await?;
    let acknowledged = Instant::now();
    if let Some(run) = &sent.run {
        client.find(run.as_str()).await?.result::<serde_json::Value>().await?;
    }
    Ok(acknowledged)
}

/// So many subscribers of one thread: how long it takes from the model's answer until the end of the turn has reached each,
/// and how much memory they take together.
async fn subscribers(config: &Config) -> Result<(Vec<Duration>, Option<f64>), Error> {
    let place = Place::fresh(config).await?;
    let model = Arc::new(Instantly::default());
    let runtime = start(&place, Arc::clone(&model)).await?;
    let client = runtime.client().clone();
    one(&client, "popular").await?;
    let before = resident_mb();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..config.parked {
        let mut subscription = client.agent("bench").thread("popular", "bench")?.subscribe(Since::Now);
        subscription.ready().await?;
        waiting.spawn(async move {
            loop {
                let seen = subscription.next().await?;
                if seen.chunk["type"] == "finish" {
                    return Ok::<_, Error>((Instant::now(), subscription));
                }
            }
        });
    }
    // Until each has taken its place.
    tokio::time::sleep(Duration::from_millis(200)).await;
    one(&client, "popular").await?;
    let (mut reached, mut kept) = (Vec::new(), Vec::new());
    let answered = model.asked.lock().unwrap_or_else(PoisonError::into_inner).take();
    while let Some(done) = waiting.join_next().await {
        let (at, subscription) = done??;
        reached.push(answered.map_or(Duration::ZERO, |answered| at.saturating_duration_since(answered)));
        kept.push(subscription);
    }
    let after = resident_mb();
    drop(kept);
    place.stop(runtime).await?;
    Ok((reached, before.zip(after).map(|(before, after)| (after - before).max(0.0))))
}

/// How long a turn takes on a short and on a long history: the medians.
async fn histories(config: &Config) -> Result<(Duration, Duration), Error> {
    let place = Place::fresh(config).await?;
    let runtime = start(&place, Arc::default()).await?;
    let client = runtime.client().clone();
    let store = client.store().clone();
    for (thread, messages) in [("short", SHORT), ("long", config.history)] {
        let client = client.clone();
        spread(&store, (256, messages), (config, "writing a history"), move |n| {
            let client = client.clone();
            async move {
                let options = SendOptions { if_idle: IfIdle::Persist, ..SendOptions::default() };
                let thread = client.agent("bench").thread(thread, "bench")?;
                thread.send_with(NewSignal::user(format!("message {n} of a long history")), options).await?;
                Ok(Duration::ZERO)
            }
        })
        .await?;
    }
    let (mut short, mut long) = (Vec::new(), Vec::new());
    // By turns, so that what drifts drifts for both.
    for _ in 0..ON_HISTORY {
        for (thread, each) in [("short", &mut short), ("long", &mut long)] {
            let begun = Instant::now();
            one(&client, thread).await?;
            each.push(begun.elapsed());
        }
    }
    place.stop(runtime).await?;
    Ok((percentile(&mut short, 0.5), percentile(&mut long, 0.5)))
}

//! Many waiting runs, a new process on their store, and a signal for each.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::limit::{self, Pattern};
use super::measure::{Measured, millis, resident_mb, spread};
use super::place::Place;
use super::report::{Report, Rounds, rounded};
use super::workflows::{FILLER, GO, WAIT, Work};
use super::{Config, Error, Shape};
use crate::runtime::{Aldis, Client};
use crate::store::Stats;

/// What the second process tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resumed {
    /// How long the signals and the ends of their runs took, in seconds.
    took_s: f64,
    /// How long each run took from its signal to its end, in milliseconds.
    each_ms: Vec<f64>,
    /// Logical commits.
    logical_commits: u64,
    /// Transactions that carried them.
    physical_commits: u64,
    /// Signals accepted.
    arrivals: u64,
    /// Memory resident once it was ready.
    ready_mb: Option<f64>,
}

pub(super) async fn shape(config: &Config) -> Result<Report, Error> {
    let pattern = Pattern::signal()?;
    let mut rounds = Rounds::default();
    let mut own = Vec::new();
    for _ in 0..config.rounds {
        rounds.limit.push(limit::measure(config, &pattern, config.runs).await?);
        let (measured, told) = measure(config).await?;
        rounds.shape.push(measured);
        own.push(told);
    }
    // Of a run's three writes only two are left: the signal and the end.
    let mut report =
        rounds.report((Shape::Await, "signals"), (Place::kind(config), config), |limit| limit.per_s() / 2.0);
    report.own("parked", config.parked);
    own.sort_by(|a, b| f64::total_cmp(&a.ready_ms, &b.ready_ms));
    if let Some(Told { parked_per_s, none_mb, parked_mb, ready_ms, ready_mb }) = own.into_iter().nth(config.rounds / 2)
    {
        report.own("parked_per_s", rounded(parked_per_s, 1));
        report.own("ready_ms", rounded(ready_ms, 1));
        report.own("rss_none_mb", none_mb.map(|mb| rounded(mb, 1)));
        report.own("rss_parked_mb", parked_mb.map(|mb| rounded(mb, 1)));
        let grown = parked_mb.zip(none_mb).map(|(parked, none)| rounded(parked - none, 1));
        report.own("rss_grown_mb", grown);
        report.own("rss_ready_mb", ready_mb.map(|mb| rounded(mb, 1)));
    }
    Ok(report)
}

/// What a round tells beside the rate.
struct Told {
    parked_per_s: f64,
    none_mb: Option<f64>,
    parked_mb: Option<f64>,
    ready_ms: f64,
    ready_mb: Option<f64>,
}

async fn measure(config: &Config) -> Result<(Measured, Told), Error> {
    let place = Place::fresh(config).await?;
    let runtime = place.start(super::workflows::all()).await?;
    let client = runtime.client().clone();
    let warm = client.clone();
    let tasks = config.in_flight;
    spread(client.store(), (tasks, tasks.max(1_000)), (config, "warming up"), move |_| finished(warm.clone())).await?;
    let none_mb = resident_mb();
    let parking = client.clone();
    let parked =
        spread(client.store(), (tasks, config.parked), (config, "parking"), move |n| park(parking.clone(), n)).await?;
    let parked_mb = resident_mb();
    drop(client);
    // As a crash would: what is parked is in the store, and nothing else is needed.
    let store = runtime.store().clone();
    runtime.kill().await;
    store.close().await;
    let (parked_per_s, url, again) = (parked.per_s(), place.url().to_owned(), config.clone());
    let resumed = tokio::task::spawn_blocking(move || take_over(&url, &again)).await?;
    place.remove().await?;
    let (ready, resumed) = resumed?;
    let wrote = Stats {
        logical_commits: resumed.logical_commits,
        physical_commits: resumed.physical_commits,
        arrivals: resumed.arrivals,
        physical_writes: 0,
    };
    let each = resumed.each_ms.iter().map(|ms| Duration::from_secs_f64(ms / 1_000.0)).collect();
    let took = Duration::from_secs_f64(resumed.took_s);
    let told = Told { parked_per_s, none_mb, parked_mb, ready_ms: millis(ready), ready_mb: resumed.ready_mb };
    Ok((Measured { took, each, pieces: config.parked, wrote }, told))
}

async fn finished(client: Client) -> Result<Duration, Error> {
    let run = client.run(WAIT, &Work { steps: 0 }).await?;
    run.signal(&GO, &FILLER.to_owned()).await?;
    run.result::<String>().await?;
    Ok(Duration::ZERO)
}

async fn park(client: Client, n: usize) -> Result<Duration, Error> {
    let begun = Instant::now();
    client.run_as(&id(n), WAIT, &Work { steps: 0 }).await?;
    Ok(begun.elapsed())
}

fn id(n: usize) -> String {
    format!("parked-{n}")
}

/// Starts this program again. Returns how long it took until it accepted, and what it told in the end.
fn take_over(url: &str, config: &Config) -> Result<(Duration, Resumed), Error> {
    let failed = |what: &str, e: &dyn std::fmt::Display| Error::Again(format!("{what}: {e}"));
    let program = std::env::current_exe().map_err(|e| failed("this program's file is not known", &e))?;
    let begun = Instant::now();
    let mut process = Command::new(program)
        .args(&config.again)
        .env("ALDIS_STORE", url)
        .args(["--parked", &config.parked.to_string(), "--in-flight", &config.in_flight.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| failed("it could not be started", &e))?;
    let Some(stdout) = process.stdout.take() else { return Err(Error::Again("it has no output".into())) };
    let mut told = BufReader::new(stdout);
    let mut line = String::new();
    told.read_line(&mut line).map_err(|e| failed("its output cannot be read", &e))?;
    let ready = begun.elapsed();
    let mut rest = String::new();
    told.read_to_string(&mut rest).map_err(|e| failed("its output cannot be read", &e))?;
    let status = process.wait().map_err(|e| failed("its end is not known", &e))?;
    if line.trim() != READY || !status.success() {
        return Err(Error::Again(format!("it ended with {status}")));
    }
    Ok((ready, serde_json::from_str(&rest).map_err(|e| failed("its figures cannot be read", &e))?))
}

/// What the second process says as soon as it accepts.
const READY: &str = "ready";

/// The second process's part: opens the store, says on standard output that it is ready, signals every parked run and
/// waits for its end.
///
/// # Errors
/// If the store cannot be opened or a run does not complete.
pub async fn resume(url: &str, parked: usize, config: &Config) -> Result<Resumed, Error> {
    let runtime = Aldis::open(url).workflows(super::workflows::all()).start().await?;
    println!("{READY}");
    let ready_mb = resident_mb();
    let client = runtime.client().clone();
    let store = client.store().clone();
    let measured = spread(&store, (config.in_flight, parked), (config, "resuming"), move |n| {
        let client = client.clone();
        async move {
            let run = client.find(&id(n)).await?;
            let begun = Instant::now();
            run.signal(&GO, &FILLER.to_owned()).await?;
            run.result::<String>().await?;
            Ok(begun.elapsed())
        }
    })
    .await?;
    runtime.drain(Duration::from_secs(1)).await?;
    Ok(Resumed {
        took_s: measured.took.as_secs_f64(),
        each_ms: measured.each.iter().map(|each| millis(*each)).collect(),
        logical_commits: measured.wrote.logical_commits,
        physical_commits: measured.wrote.physical_commits,
        arrivals: measured.wrote.arrivals,
        ready_mb,
    })
}

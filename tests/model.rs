//! Random operations of clients, on both databases and against a model of forty lines: what clients are told, how the
//! runs end, and the journals, which must be the same on both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aldis::store::Kind;
use aldis::testing::{Error, TestKit};
use aldis::workflow::Raced;
use aldis::{Context, Failure, Outcome, Published, Signal, Step, Workflow};
use proptest::prelude::*;

const ADD: Signal<u32> = Signal::new("add");
const SUM: Published<u32> = Published::new("sum");
const KEEP: Step<u32, u32> = Step::new("keep");

/// Adds `limit` values, and waits for each so many seconds at the most.
fn tally() -> Workflow {
    Workflow::new("tally", |cx: Context, (limit, patience): (u32, u64)| async move {
        let mut sum = 0;
        for _ in 0..limit {
            let value = match cx.race(cx.signal(&ADD), cx.sleep(Duration::from_secs(patience))).await {
                Raced::First(value) => value?,
                Raced::Second(slept) => {
                    slept?;
                    return Ok((sum, false));
                }
            };
            sum = cx.step(&KEEP, sum + value, |_, sum| async move { Ok::<_, Failure>(sum) }).await?;
            cx.publish(&SUM, &sum);
        }
        Ok::<_, Failure>((sum, true))
    })
}

/// What a client does. Times are in units of ten seconds; patience is between two of them, so that what a takeover costs
/// on Postgres changes nothing.
#[derive(Debug, Clone)]
enum Does {
    Start { run: u8, limit: u8, patience: u8 },
    Signal { run: u8, id: u8, value: u8 },
    Cancel { run: u8 },
    Advance { tens: u8 },
    Crash,
}

fn does() -> impl Strategy<Value = Does> {
    prop_oneof![
        3 => (0..3_u8, 0..4_u8, 0..4_u8).prop_map(|(run, limit, patience)| Does::Start { run, limit, patience }),
        8 => (0..3_u8, 0..6_u8, 1..9_u8).prop_map(|(run, id, value)| Does::Signal { run, id, value }),
        1 => (0..3_u8).prop_map(|run| Does::Cancel { run }),
        3 => (1..4_u8).prop_map(|tens| Does::Advance { tens }),
        2 => Just(Does::Crash),
    ]
}

/// A run as the model sees it.
#[derive(Debug)]
struct Modelled {
    left: u32,
    sum: u32,
    patience: u64,
    until: u64,
    ids: BTreeSet<u8>,
    published: Option<u32>,
    end: Option<String>,
}

#[derive(Debug, Default)]
struct Model {
    now: u64,
    runs: BTreeMap<u8, Modelled>,
}

impl Model {
    /// What the client is to be told.
    fn does(&mut self, does: &Does) -> &'static str {
        match *does {
            Does::Start { run, limit, patience } => {
                if let Some(known) = self.runs.get(&run) {
                    // A closed run's id may be used again; the test leaves it alone.
                    return if known.end.is_none() { "run_open" } else { "left alone" };
                }
                let patience = u64::from(patience) * 10 + 5;
                let mut begun = Modelled {
                    left: limit.into(),
                    sum: 0,
                    patience,
                    until: self.now + patience,
                    ids: BTreeSet::new(),
                    published: None,
                    end: None,
                };
                begun.is_complete();
                self.runs.insert(run, begun);
                "done"
            }
            Does::Signal { run, id, value } => {
                let now = self.now;
                let Some(known) = self.runs.get_mut(&run) else { return "run_unknown" };
                if known.ids.contains(&id) {
                    return "already";
                }
                if known.end.is_some() {
                    return "run_closed";
                }
                known.ids.insert(id);
                known.sum += u32::from(value);
                known.left -= 1;
                known.published = Some(known.sum);
                known.until = now + known.patience;
                known.is_complete();
                "done"
            }
            Does::Cancel { run } => {
                let Some(known) = self.runs.get_mut(&run) else { return "run_unknown" };
                // The same request again is told what it was told before.
                if known.end.as_deref() == Some("cancelled") {
                    return "done";
                }
                if known.end.is_some() {
                    return "run_closed";
                }
                known.end = Some("cancelled".into());
                "done"
            }
            Does::Advance { tens } => {
                self.now += u64::from(tens) * 10;
                for run in self.runs.values_mut().filter(|run| run.end.is_none() && run.until <= self.now) {
                    run.end = Some(format!("[{},false]", run.sum));
                }
                "done"
            }
            Does::Crash => "done",
        }
    }
}

impl Modelled {
    fn is_complete(&mut self) {
        if self.left == 0 {
            self.end = Some(format!("[{},true]", self.sum));
        }
    }
}

/// What a play came to: what clients were told, and each run's end and journal.
type Played = (Vec<String>, BTreeMap<String, Vec<String>>);

async fn play(kind: Kind, plays: &[Does]) -> Result<Played, Error> {
    let mut kit = TestKit::on(kind).workflow(tally()).start().await?;
    let mut told = Vec::new();
    for does in plays {
        if !matches!(does, Does::Crash) {
            kit.settle().await?;
        }
        let word = match *does {
            Does::Crash => {
                kit = kit.crash().await?;
                Ok("done")
            }
            Does::Advance { tens } => kit.advance(Duration::from_secs(u64::from(tens) * 10)).await.map(|()| "done"),
            Does::Start { run, limit, patience } => {
                let open = match kit.find(&name(run)).await {
                    Ok(known) => known.row().await?.status.is_open(),
                    Err(_) => true,
                };
                if open {
                    let input = (u32::from(limit), u64::from(patience) * 10 + 5);
                    kit.run_as(&name(run), "tally", &input).await.map(|_| "done").map_err(Error::from)
                } else {
                    Ok("left alone")
                }
            }
            Does::Signal { run, id, value } => match kit.find(&name(run)).await {
                Ok(run) => match run.signal_as(&format!("s{id}"), &ADD, &u32::from(value)).await {
                    Ok(aldis::signal::Accepted::New { .. }) => Ok("done"),
                    Ok(aldis::signal::Accepted::Already { .. }) => Ok("already"),
                    Err(error) => Err(error.into()),
                },
                Err(error) => Err(error.into()),
            },
            Does::Cancel { run } => match kit.find(&name(run)).await {
                Ok(run) => run.cancel("enough", "model").await.map(|_| "done").map_err(Error::from),
                Err(error) => Err(error.into()),
            },
        };
        told.push(match word {
            Ok(word) => word.to_owned(),
            Err(Error::Aldis(error)) => error.code().to_owned(),
            Err(error) => return Err(error),
        });
    }
    kit.settle().await?;
    let mut runs = BTreeMap::new();
    for run in kit.runs().await? {
        let mut lines = kit.essence(&run).await?;
        let row = run.row().await?;
        lines.push(match row.status.is_open() {
            true => format!("{:?} open", run.query(&SUM).await?),
            false => match run.outcome().await?.outcome {
                Outcome::Completed(output) => format!("{:?} {output}", run.query(&SUM).await?),
                Outcome::Cancelled { .. } => format!("{:?} cancelled", run.query(&SUM).await?),
                other => format!("{other:?}"),
            },
        });
        runs.insert(run.id().to_string(), lines);
    }
    kit.finish().await?;
    Ok((told, runs))
}

fn name(run: u8) -> String {
    format!("tally-{run}")
}

/// A dozen cases, or as many as `PROPTEST_CASES` asks for.
fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(12),
        max_shrink_iters: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_clients_are_told_what_the_model_says_on_both_databases(plays in prop::collection::vec(does(), 1..30)) {
        // At most so many takeovers fit between two times of the model.
        let crashes = plays.iter().filter(|does| matches!(does, Does::Crash)).count();
        prop_assume!(crashes < 15);
        let mut model = Model::default();
        let told: Vec<String> = plays.iter().map(|does| model.does(does).to_owned()).collect();
        let ends: BTreeMap<String, String> = model
            .runs
            .iter()
            .map(|(run, known)| (name(*run), format!("{:?} {}", known.published, known.end.as_deref().unwrap_or("open"))))
            .collect();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut journals = Vec::new();
        for kind in [Kind::Sqlite, Kind::Postgres] {
            let (was_told, runs) = runtime.block_on(play(kind, &plays)).map_err(|error| TestCaseError::fail(format!("{kind}: {error}")))?;
            prop_assert_eq!(&was_told, &told, "{}", kind);
            let found: BTreeMap<String, String> =
                runs.iter().map(|(run, lines)| (run.clone(), lines.last().cloned().unwrap_or_default())).collect();
            prop_assert_eq!(&found, &ends, "{}", kind);
            journals.push(runs);
        }
        prop_assert_eq!(&journals[0], &journals[1]);
    }
}

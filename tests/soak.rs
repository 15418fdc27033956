//! The program itself, killed again and again with SIGKILL while clients start runs and send signals: nothing that was
//! acknowledged is lost, and nothing happens twice.
//!
//! Short by default; `ALDIS_SOAK_SECONDS` makes it long. This is the one place where tests wait for the real clock: the
//! processes live by it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aldis::payload::Payload;
use aldis::run::{IfClosed, IfOpen, StartOptions};
use aldis::signal::SignalKind;
use aldis::testing::{Database, history};
use aldis::workflows::refund::{APPROVAL, Approval};
use aldis::{Aldis, Client, RunHandle};
use serde_json::{Value, json};

/// How long processes are killed.
fn soaks_for() -> Duration {
    let asked = std::env::var("ALDIS_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(asked.unwrap_or(6))
}

/// How long the last runs may take once nobody is killed any more; on Postgres a lease of ten seconds runs out first.
const WINDS_UP_WITHIN: Duration = Duration::from_secs(90);

/// A process that advances runs; killed when dropped.
struct Worker(Child);

impl Worker {
    fn start(url: &str, directory: &Path) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(directory.join("workers.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_aldis"))
            .args(["work", "--standby"])
            .env("ALDIS_STORE", url)
            .stdout(Stdio::null())
            .stderr(log.expect("a log that can be written"))
            .spawn();
        Self(child.expect("the program starts"))
    }

    fn kill(&mut self) {
        // SIGKILL. One that has ended by itself has nothing left to be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Chance, from a seed that is printed.
struct Dice(u64);

impl Dice {
    fn thrown() -> Self {
        let seed = u64::from(uuid::Uuid::new_v4().as_fields().0) | 1;
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// What a client was told about one run.
struct Told {
    id: String,
    signals: Vec<String>,
    cancelled: bool,
}

/// Asks until there is an answer: the store may be busy, but a client loses nothing by asking again.
async fn told<T>(mut ask: impl AsyncFnMut() -> Result<T, aldis::Error>) -> Result<T, aldis::Error> {
    let begun = Instant::now();
    loop {
        match ask().await {
            Err(error)
                if ["store_unavailable", "overloaded"].contains(&error.code()) && begun.elapsed() < WINDS_UP_WITHIN =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answer => return answer,
        }
    }
}

async fn start(client: &Client, id: &str, order: &Value) -> RunHandle {
    let options = StartOptions {
        id: Some(aldis::id::RunId::parse(id).expect("an id")),
        if_open: IfOpen::UseExisting,
        if_closed: IfClosed::Allow,
        ..StartOptions::default()
    };
    let input = Payload::of(order).expect("an order");
    let started = told(async || client.start("refund", input.clone(), options.clone()).await).await;
    started.unwrap_or_else(|error| panic!("{id} is not started: {error}")).0
}

/// Starts runs and sends signals until the time is up.
async fn client(client: Client, directory: &Path, until: Instant, mut dice: Dice) -> Vec<Told> {
    let mut all = Vec::new();
    while Instant::now() < until {
        let id = format!("refund-{}", all.len());
        let within = if dice.below(10) == 0 { 1 } else { 3_600 };
        let order = json!({ "order": id, "amount_cents": 100, "customer": "Ada", "approve_within_seconds": within, "ledger": ledger_of(directory, &id) });
        let run = start(&client, &id, &order).await;
        let mut run_told = Told { id: id.clone(), signals: Vec::new(), cancelled: false };
        if within > 1 && dice.below(10) == 0 {
            match told(async || run.cancel("changed my mind", "soak").await).await {
                Ok(_) => run_told.cancelled = true,
                Err(error) => panic!("{id} is not cancelled: {error}"),
            }
        } else if within > 1 {
            for n in 0..1 + dice.below(3) {
                let signal = format!("approval-{n}");
                let approval =
                    Payload::of(&Approval { approved: dice.below(2) == 0, by: signal.clone() }).expect("an approval");
                let sent = told(async || {
                    run.send(SignalKind::Signal, APPROVAL.name(), approval.clone(), Some(signal.clone())).await
                })
                .await;
                match sent {
                    Ok(_) => run_told.signals.push(signal),
                    // The first one may have been enough.
                    Err(error) => assert_eq!((n > 0, error.code()), (true, "run_closed"), "{error}"),
                }
            }
        }
        all.push(run_told);
        tokio::time::sleep(Duration::from_millis(dice.below(15))).await;
    }
    all
}

async fn soak(database: Database, processes: usize) {
    let directory = database.directory().to_owned();
    let mut workers: Vec<Worker> = (0..processes).map(|_| Worker::start(database.url(), &directory)).collect();
    let connected = Aldis::open(database.url()).workflows(aldis::workflows::all()).connect().await;
    let connected = connected.unwrap_or_else(|error| panic!("{error}"));
    let until = Instant::now() + soaks_for();
    let clients = client(connected.clone(), &directory, until, Dice::thrown());
    let killer = async {
        let mut dice = Dice::thrown();
        let mut kills = 0;
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(100 + dice.below(600))).await;
            let chosen = usize::try_from(dice.below(processes as u64)).expect("a small number");
            workers[chosen].kill();
            workers[chosen] = Worker::start(database.url(), &directory);
            kills += 1;
        }
        kills
    };
    let (all, kills) = tokio::join!(clients, killer);
    let ended = wind_up(&connected, &all).await;
    workers.iter_mut().for_each(Worker::kill);
    println!("{kills} kills, {} runs", all.len());
    let mut problems = ended;
    for told in &all {
        let run = connected.find(&told.id).await.unwrap_or_else(|error| panic!("{} is lost: {error}", told.id));
        let found = run.history().await.unwrap_or_else(|error| panic!("{}: {error}", told.id));
        problems.extend(history::check(&found));
        problems.extend(history::acknowledged(&found, &told.signals));
    }
    problems.extend(ledger(&directory, &all));
    assert_eq!(problems, Vec::<String>::new());
    assert!(kills > 3 && all.len() > 10, "{kills} kills, {} runs: hardly a soak", all.len());
    connected.store().close().await;
    database.remove().await;
}

/// Waits until every run has ended.
async fn wind_up(client: &Client, all: &[Told]) -> Vec<String> {
    let begun = Instant::now();
    let mut open: Vec<&Told> = all.iter().collect();
    while begun.elapsed() < WINDS_UP_WITHIN {
        let mut still = Vec::new();
        for told in open {
            let row = client.find(&told.id).await.expect("a run that was acknowledged").row().await.expect("its row");
            if row.status.is_open() {
                still.push(told);
            }
        }
        open = still;
        if open.is_empty() {
            return Vec::new();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    open.iter().map(|told| format!("run {} has not ended", told.id)).collect()
}

/// Each order has a ledger of its own: one that grew with the soak would have to be read by every step.
fn ledger_of(directory: &Path, order: &str) -> PathBuf {
    directory.join(format!("ledger-{order}.jsonl"))
}

/// Every line of the ledgers once; whoever was charged was paid out or given back; whoever was not cancelled was told.
fn ledger(directory: &Path, all: &[Told]) -> Vec<String> {
    // A run that was cancelled before its first step has written none.
    let read = |told: &Told| Some(std::fs::read_to_string(ledger_of(directory, &told.id)).ok()? + "\n");
    let text: String = all.iter().filter_map(read).collect();
    let mut keys: BTreeMap<String, u32> = BTreeMap::new();
    let mut moved: BTreeMap<(String, &str), u32> = BTreeMap::new();
    let mut notices = 0;
    // A line that was cut short by a kill was written again under its key.
    for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        *keys.entry(line["key"].to_string()).or_insert(0) += 1;
        for what in ["charged", "paid_out", "released"] {
            if let Some(order) = line[what].as_str() {
                *moved.entry((order.to_owned(), what)).or_insert(0) += 1;
            }
        }
        notices += usize::from(line["told"].is_string());
    }
    let mut problems: Vec<String> = keys
        .iter()
        .filter(|(_, times)| **times > 1)
        .map(|(key, times)| format!("key {key} stands {times} times"))
        .collect();
    let times = |order: &str, what: &'static str| moved.get(&(order.to_owned(), what)).copied().unwrap_or(0);
    for told in all {
        let (charged, paid, released) =
            (times(&told.id, "charged"), times(&told.id, "paid_out"), times(&told.id, "released"));
        // The charge of a cancelled run may have been given up before or after it was made.
        let fits =
            charged == paid + released && charged == 1 || told.cancelled && paid == 0 && charged <= 1 && released <= 1;
        if !fits {
            problems.push(format!("run {}: charged {charged}, paid out {paid}, released {released}", told.id));
        }
    }
    let due = all.iter().filter(|told| !told.cancelled).count();
    if notices < due {
        problems.push(format!("{notices} customers were told, {due} were to be"));
    }
    problems
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_on_sqlite_survives_being_killed() {
    let database = Database::sqlite().unwrap_or_else(|error| panic!("{error}"));
    soak(database, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_on_postgres_survive_being_killed() {
    let database = Database::postgres().await.unwrap_or_else(|error| panic!("{error}"));
    soak(database, 3).await;
}

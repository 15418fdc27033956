//! Several processes on one store: takeover, refusal, standby, drain, admission.

use std::time::Duration;

use aldis::clock::{Clock, VirtualClock};
use aldis::engine::Shadow;
use aldis::testing::{Database, Ledger, TestKit};
use aldis::{Aldis, Context, Failure, Signal, Step, Workflow};

use crate::support::{code, kit, passed, secs};

const WORK: Step<u64, u64> = Step::new("work");
const GO: Signal<u32> = Signal::new("go");

/// A step that takes so many seconds.
fn worker(ledger: &Ledger) -> Workflow {
    let ledger = ledger.clone();
    Workflow::new("worker", move |cx: Context, seconds: u64| {
        let ledger = ledger.clone();
        async move {
            let done = cx.step(&WORK, seconds, move |cx, seconds| {
                let ledger = ledger.clone();
                async move {
                    cx.sleep(secs(seconds)).await;
                    ledger.enter(&cx, format!("{seconds}"));
                    Ok::<_, Failure>(seconds)
                }
            });
            done.await.map_err(Failure::from)
        }
    })
}

/// Waits for a signal.
fn waiter() -> Workflow {
    Workflow::new("waiter", |cx: Context, (): ()| async move { cx.signal(&GO).await.map_err(Failure::from) })
}

fn second(database: &Database, clock: &VirtualClock) -> Aldis {
    Aldis::open(database.url()).clock(Clock::Virtual(clock.clone())).shadow(Shadow::Always).worker("second")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_engine_on_a_sqlite_file_is_refused_or_stands_by() {
    let case = async {
        let kit = TestKit::sqlite().workflow(waiter()).start().await?;
        let run = kit.run_as("r", "waiter", &()).await?;
        kit.settle().await?;
        let refused = second(kit.database(), kit.hands()).workflow(waiter()).start().await.unwrap_err();
        assert_eq!(code(&refused), "engine_elsewhere");
        let text = refused.to_string().replace(&*kit.database().directory().to_string_lossy(), "<dir>");
        insta::assert_snapshot!(text, @"another process advances the runs of sqlite://<dir>/aldis.db; signals and reads work beside it, and --standby waits until it ends");

        // Another process may send and read all the same.
        let client = second(kit.database(), kit.hands()).connect().await.map_err(aldis::testing::Error::from)?;
        let there = client.find("r").await?;
        assert_eq!(there.row().await?.status.word(), "waiting");

        let standby = second(kit.database(), kit.hands()).workflow(waiter()).standby(true);
        let standing = tokio::spawn(standby.start());
        there.signal_as("s", &GO, &7).await?;
        let ended = run.outcome().await?;
        assert_eq!(format!("{:?}", ended.outcome), "Completed(7)");
        assert!(!standing.is_finished());
        let database = kit.kill().await;
        let successor = standing.await.expect("a task that does not panic")?;
        let run = successor.run("waiter", &()).await?;
        successor.engine().settled().await;
        assert_eq!(run.row().await?.status.word(), "waiting");
        successor.kill().await;
        database.remove().await;
        Ok(())
    };
    passed(case.await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runs_of_a_dead_worker_are_taken_over_when_its_lease_has_run_out() {
    let case = async {
        let ledger = Ledger::default();
        let kit = TestKit::postgres().workflow(worker(&ledger)).workflow(waiter()).start().await?;
        let running = kit.run_as("running", "worker", &60).await?;
        let waiting = kit.run_as("waiting", "waiter", &()).await?;
        kit.settle().await?;
        let other = second(kit.database(), kit.hands())
            .workflow(worker(&ledger))
            .workflow(waiter())
            .engine_options(|options| options.lease = Duration::from_millis(300))
            .start()
            .await?;
        assert_eq!(other.workers().await?.len(), 2);
        let (running, waiting) = (other.by_key(running.key()).await?, other.by_key(waiting.key()).await?);
        let (clock, owner) = (kit.hands().clone(), running.row().await?.status);
        let database = kit.kill().await;
        other.engine().settled().await;
        assert_eq!(running.row().await?.status, owner, "its lease still holds");

        // A waiting run needs no takeover.
        waiting.signal(&GO, &1).await?;
        assert_eq!(format!("{:?}", waiting.outcome().await?.outcome), "Completed(1)");

        let mut moves = 0;
        while running.row().await?.status == owner {
            clock.advance(Duration::from_millis(100));
            moves += 1;
            assert!(moves < 10_000, "nobody takes the run over");
            tokio::task::yield_now().await;
            other.engine().settled().await;
        }
        while running.row().await?.status.is_open() {
            clock.advance(Duration::from_millis(100));
            other.engine().settled().await;
        }
        assert_eq!(format!("{:?}", running.outcome().await?.outcome), "Completed(60)");
        assert_eq!(ledger.times().into_values().collect::<Vec<_>>(), [1]);
        assert_eq!(other.engine().shadow_failures(), Vec::<String>::new());
        other.kill().await;
        database.remove().await;
        Ok(())
    };
    passed(case.await);
}

each_store! {
    async fn a_drained_engine_gives_its_runs_back_at_once(kind) {
        let ledger = Ledger::default();
        let kit = kit(kind).workflow(worker(&ledger)).start().await?;
        let run = kit.run_as("r", "worker", &60).await?;
        kit.settle().await?;
        assert_eq!(run.row().await?.status.word(), "running");
        let setup = kit.setup();
        let now = kit.now();
        let kit = kit.deploy(setup).await?;
        let ended = kit.run_to_end(&run).await?;
        assert_eq!(format!("{:?}", ended.outcome), "Completed(60)");
        // Nobody waited for a lease; the body was begun again.
        assert_eq!(kit.now().since(now), secs(60));
        assert_eq!(kit.attempts().of("r"), 2);
        assert_eq!(ledger.times().into_values().collect::<Vec<_>>(), [1]);
        kit.finish().await?;
    }

    async fn no_more_runs_are_worked_on_than_there_is_room_for(kind) {
        let ledger = Ledger::default();
        let kit = kit(kind)
            .workflow(worker(&ledger))
            .engine_options(|options| options.in_flight_max = 2)
            .start()
            .await?;
        let mut runs = Vec::new();
        for n in 0..5 {
            runs.push(kit.run_as(&format!("r{n}"), "worker", &10).await?);
        }
        kit.settle().await?;
        let mut words = Vec::new();
        for run in &runs {
            words.push(run.row().await?.status.word());
        }
        assert_eq!(words, ["running", "running", "due", "due", "due"]);
        let begin = kit.now();
        kit.run_to_rest().await?;
        assert_eq!(kit.now().since(begin), secs(30));
        assert_eq!(ledger.entries().len(), 5);
        kit.finish().await?;
    }

    async fn runs_that_were_let_go_of_are_read_again(kind) {
        let kit = kit(kind).workflow(waiter()).engine_options(|options| options.live_max = 3).start().await?;
        let mut runs = Vec::new();
        for n in 0..20_u32 {
            runs.push((n, kit.run_as(&format!("r{n}"), "waiter", &()).await?));
        }
        kit.settle().await?;
        for (n, run) in &runs {
            run.signal(&GO, n).await?;
        }
        for (n, run) in &runs {
            let ended = kit.run_to_end(run).await?;
            assert_eq!(format!("{:?}", ended.outcome), format!("Completed({n})"));
        }
        kit.finish().await?;
    }

    async fn several_drivers_share_the_runs(kind) {
        let kit = kit(kind).workflow(waiter()).engine_options(|options| options.drivers = 4).start().await?;
        let mut runs = Vec::new();
        for n in 0..40_u32 {
            let run = kit.run_as(&format!("r{n}"), "waiter", &()).await?;
            run.signal(&GO, &n).await?;
            runs.push((n, run));
        }
        for (n, run) in &runs {
            let ended = kit.run_to_end(run).await?;
            assert_eq!(format!("{:?}", ended.outcome), format!("Completed({n})"));
        }
        kit.finish().await?;
    }

    async fn crashes_at_any_moment_of_many_runs_leave_each_whole(kind) {
        let survived = aldis::testing::Crash::of(|ledger| kit(kind).workflow(worker(ledger)).workflow(waiter()))
            .in_any_order()
            .survives(async |world| {
                for n in 0..3 {
                    world.start(&format!("worker{n}"), "worker", &n).await?;
                    world.start(&format!("waiter{n}"), "waiter", &()).await?;
                }
                for n in 0..3_u32 {
                    world.signal(&format!("waiter{n}"), "s", &GO, &n).await?;
                }
                world.run_to_rest().await?;
                let mut words = Vec::new();
                for n in 0..3 {
                    words.push(world.status(&format!("worker{n}")).await?);
                    words.push(world.status(&format!("waiter{n}")).await?);
                }
                Ok(words)
            })
            .await?;
        assert_eq!(survived.value, ["completed"; 6]);
    }
}

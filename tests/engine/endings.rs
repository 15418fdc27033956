//! How runs end: cancelled, undone, shielded; and how they are stopped without being ended.

use std::time::Duration;

use aldis::testing::{Crash, Error};
use aldis::{Context, Failure, Signal, Step, StepContext, Workflow};

use crate::support::{kit, secs};

const BOOK: Step<String, String> = Step::new("book");
const CANCEL: Step<String, String> = Step::new("cancel_booking").attempts(3);
const PAY: Step<u32, u32> = Step::new("pay");
const TIDY: Step<(), ()> = Step::new("tidy");
const GO: Signal<u32> = Signal::new("go");

async fn book(_: StepContext, what: String) -> Result<String, Failure> {
    Ok(format!("{what} booked"))
}

/// Books flight and hotel, waits for a word, pays; what was booked is cancelled again if that fails.
fn trip() -> Workflow {
    Workflow::new("trip", |cx: Context, (): ()| async move {
        for what in ["flight", "hotel"] {
            cx.step(&BOOK, what.to_owned(), book).await?;
            cx.undo(&CANCEL, what.to_owned(), |cx, what| async move {
                // The first attempt at each fails: an undo has a policy of its own.
                if cx.attempt() == 1 { Err(Failure::new("busy")) } else { Ok(format!("{what} cancelled")) }
            });
        }
        let amount = cx.signal(&GO).await?;
        cx.step(&PAY, amount, |_, amount| async move {
            if amount > 100 { Err(Failure::new("the card was declined")) } else { Ok(amount) }
        })
        .await?;
        cx.forget_undos();
        Ok::<_, Failure>("paid".to_owned())
    })
}

each_store! {
    async fn what_was_done_is_undone_in_reverse_when_the_run_fails(kind) {
        let survived = Crash::of(|_| kit(kind).workflow(trip()))
            .survives(async |world| {
                world.start("r", "trip", &()).await?;
                world.signal("r", "s", &GO, &500).await?;
                Ok(format!("{:?}", world.end("r").await?.outcome))
            })
            .await?;
        assert!(survived.value.starts_with("Failed("), "{}", survived.value);
        says!(survived.runs["r"].join("\n"), @r#"
        RunStarted trip v1 null
        StepScheduled 1 book "flight"
        StepFinished 1 "flight booked"
        UndoPushed 2 cancel_booking "flight"
        StepScheduled 3 book "hotel"
        StepFinished 3 "hotel booked"
        UndoPushed 4 cancel_booking "hotel"
        SignalAwaited 5 go (one)
        SignalsTaken 5 s 500
        StepScheduled 6 pay 500
        StepFailed 6 after 1 attempts: the card was declined
        StepScheduled undo/1 cancel_booking "hotel"
        StepFinished undo/1 "hotel cancelled"
        StepScheduled undo/2 cancel_booking "flight"
        StepFinished undo/2 "flight cancelled"
        RunFailed step "pay" failed after 1 attempt: the card was declined
        is failed
        "#);
    }

    async fn what_was_done_is_undone_when_the_run_is_cancelled(kind) {
        let survived = Crash::of(|_| kit(kind).workflow(trip()))
            .survives(async |world| {
                world.start("r", "trip", &()).await?;
                world.settle().await?;
                world.cancel("r", "changed my mind").await?;
                world.end("r").await?;
                world.status("r").await
            })
            .await?;
        assert_eq!(survived.value, "cancelled");
        let undone: Vec<_> = survived.runs["r"].iter().filter(|line| line.starts_with("StepFinished undo")).collect();
        assert_eq!(undone, [r#"StepFinished undo/1 "hotel cancelled""#, r#"StepFinished undo/2 "flight cancelled""#]);
    }

    async fn what_cannot_be_undone_is_reported(kind) {
        let hopeless = Workflow::new("hopeless", |cx: Context, (): ()| async move {
            cx.undo(&CANCEL, "flight".to_owned(), |_, _| async { Err::<String, _>(Failure::new("the airline is gone")) });
            Err::<(), _>(Failure::new("no seats"))
        });
        let kit = kit(kind).workflow(hopeless).start().await?;
        let run = kit.run("hopeless", &()).await?;
        kit.run_to_end(&run).await?;
        assert_journal!("what_cannot_be_undone_is_reported", kit.journal(&run).await?);
        kit.finish().await?;
    }

    async fn a_run_that_completes_undoes_nothing(kind) {
        let kit = kit(kind).workflow(trip()).start().await?;
        let run = kit.run("trip", &()).await?;
        kit.signal_when_awaited(&run, &GO, &50)?;
        let ended = kit.run_to_end(&run).await?;
        assert_eq!(format!("{:?}", ended.outcome), r#"Completed("paid")"#);
        kit.finish().await?;
    }

    async fn a_shielded_cleanup_runs_to_its_end(kind) {
        let shielded = || Workflow::new("shielded", |cx: Context, (): ()| async move {
            let waited = cx.signal(&GO).await;
            if waited.is_err() {
                let cx = cx.shielded();
                cx.sleep(secs(5)).await?;
                cx.step(&TIDY, (), |_, ()| async { Ok::<_, Failure>(()) }).await?;
            }
            waited.map_err(Failure::from)
        });
        let survived = Crash::of(|_| kit(kind).workflow(shielded()))
            .survives(async |world| {
                world.start("r", "shielded", &()).await?;
                world.settle().await?;
                world.cancel("r", "enough").await?;
                world.end("r").await?;
                world.status("r").await
            })
            .await?;
        assert_eq!(survived.value, "cancelled");
        says!(survived.runs["r"].join("\n"), @r#"
        RunStarted shielded v1 null
        SignalAwaited 1 go (one)
        CancelRequested enough (by scenario)
        TimerArmed 2 until <time>
        TimerFired 2
        StepScheduled 3 tidy null
        StepFinished 3 null
        RunCancelled enough
        is cancelled
        "#);
    }

    async fn cancelling_reaches_a_body_that_runs(kind) {
        let long = || Workflow::new("long", |cx: Context, (): ()| async move {
            let result = cx.step(&TIDY, (), |cx, ()| async move {
                cx.until_cancelled().await;
                Ok::<_, Failure>(())
            });
            result.await.map_err(Failure::from)
        });
        let survived = Crash::of(|_| kit(kind).workflow(long()))
            .survives(async |world| {
                world.start("r", "long", &()).await?;
                world.settle().await?;
                world.cancel("r", "enough").await?;
                world.end("r").await?;
                world.status("r").await
            })
            .await?;
        assert_eq!(survived.value, "cancelled");
    }

    async fn a_request_to_cancel_is_recorded_once_and_refused_after_the_end(kind) {
        let kit = kit(kind).workflow(trip()).start().await?;
        let run = kit.run_as("r", "trip", &()).await?;
        kit.settle().await?;
        run.cancel("first", "me").await?;
        run.cancel("second", "me").await?;
        kit.run_to_end(&run).await?;
        let journal = kit.journal(&run).await?;
        let asked: Vec<_> = journal.lines().filter(|line| line.contains("CancelRequested")).map(str::trim).collect();
        assert_eq!(asked.len(), 1, "{journal}");
        assert!(asked[0].ends_with("first (by me)"), "{journal}");
        kit.finish().await?;
    }

    async fn a_panic_in_the_code_blocks_the_run_and_other_code_goes_on_with_it(kind) {
        let code = |fixed: bool| Workflow::new("shaky", move |cx: Context, (): ()| async move {
            cx.sleep(secs(5)).await?;
            assert!(fixed, "an index out of bounds");
            Ok::<_, Failure>(7)
        });
        let kit = kit(kind).workflow(code(false)).start().await?;
        let run = kit.run_as("r", "shaky", &()).await?;
        let blocked = kit.run_to_end(&run).await.unwrap_err();
        says!(blocked.to_string(), @"run r was to end, but it is blocked: the workflow's code panicked: an index out of bounds; deploy code that does not, and the run goes on where it was");
        let setup = kit.setup().without_workflows().workflow(code(true)).build("fixed");
        let kit = kit.deploy(setup).await?;
        let ended = kit.run_to_end(&run).await?;
        assert_eq!(format!("{:?}", ended.outcome), r#"Completed(7)"#);
        kit.finish().await?;
    }

    async fn a_wait_that_is_not_the_engines_blocks_the_run(kind) {
        let foreign = Workflow::new("foreign", |cx: Context, how: String| async move {
            match how.as_str() {
                "timer" => tokio::time::sleep(Duration::from_millis(1)).await,
                "task" => drop(tokio::spawn(async { tokio::task::yield_now().await }).await),
                "never" => std::future::pending().await,
                _ => tokio::task::yield_now().await,
            }
            cx.sleep(secs(1)).await.map_err(Failure::from)
        });
        let kit = kit(kind).workflow(foreign).start().await?;
        for how in ["timer", "task", "never", "yield"] {
            let run = kit.run_as(how, "foreign", how).await?;
            kit.settle().await?;
            let aldis::Settled::Blocked(reason) = run.settled().await? else { panic!("{how} is not blocked") };
            assert_eq!(reason.code(), "foreign_wait");
            if how == "timer" {
                says!(reason.to_string(), @"the workflow of run timer awaits something that is not the engine's (a timer, channel or task of another runtime): inside a workflow wait with cx.sleep, cx.signal or cx.step, and do such work in a step's body");
            }
        }
        kit.verify().await?;
    }

    async fn a_stuck_run_says_what_it_waits_for(kind) {
        let kit = kit(kind).workflow(trip()).start().await?;
        let run = kit.run_as("r", "trip", &()).await?;
        let stuck: Error = kit.run_to_end(&run).await.unwrap_err();
        says!(stuck.to_string(), @r#"run r was to end, but it is waiting and nothing is going to happen; it waits for signal "go": send it, or script it"#);
        kit.finish().await?;
    }
}

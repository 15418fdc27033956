//! Time: never early, through crashes, and one winner when a signal races it.

use aldis::run::StartOptions;
use aldis::testing::Crash;
use aldis::workflow::Raced;
use aldis::{Context, Failure, Signal, Workflow};

use crate::support::{id, kit, secs};

const GO: Signal<u32> = Signal::new("go");

/// Sleeps so many seconds, one span after the other; returns when it woke, in seconds since it began.
fn sleeper() -> Workflow {
    Workflow::new("sleeper", |cx: Context, spans: Vec<u64>| async move {
        let begin = cx.now();
        let mut woke = Vec::new();
        for span in spans {
            cx.sleep(secs(span)).await?;
            woke.push(cx.now().since(begin).as_secs());
        }
        Ok::<_, Failure>(woke)
    })
}

/// Waits for a signal, at the most so many seconds; says which came.
fn racer() -> Workflow {
    Workflow::new("racer", |cx: Context, limit: u64| async move {
        Ok::<_, Failure>(match cx.race(cx.signal(&GO), cx.sleep(secs(limit))).await {
            Raced::First(value) => format!("signal {}", value?),
            Raced::Second(slept) => slept.map(|()| "timer".to_owned())?,
        })
    })
}

each_store! {
    async fn a_run_sleeps_through_every_crash_and_never_wakes_early(kind) {
        let survived = Crash::of(|_| kit(kind).workflow(sleeper()))
            .survives(async |world| {
                let begin = world.now();
                world.start("r", "sleeper", &[60, 86_400, 0]).await?;
                let woke = world.output::<Vec<u64>>("r").await?;
                Ok((woke, world.now().since(begin).as_secs()))
            })
            .await?;
        assert_eq!(survived.value, (vec![60, 86_460, 86_460], 86_460));
    }

    async fn a_signal_in_time_wins_over_the_timer(kind) {
        let survived = Crash::of(|_| kit(kind).workflow(racer()))
            .survives(async |world| {
                world.start("r", "racer", &60).await?;
                world.advance(secs(30)).await?;
                world.signal("r", "s1", &GO, &7).await?;
                world.output::<String>("r").await
            })
            .await?;
        assert_eq!(survived.value, "signal 7");
        let lines = survived.runs["r"].join("\n");
        says!(lines, @r#"
        RunStarted racer v1 60
        SignalAwaited 1 go (one)
        TimerArmed 2 until <time>
        SignalsTaken 1 s1 7
        WaitWithdrawn 2
        RunCompleted "signal 7"
        is completed
        "#);
    }

    async fn a_timer_in_time_wins_over_the_signal(kind) {
        let survived = Crash::of(|_| kit(kind).workflow(racer()))
            .survives(async |world| {
                world.start("r", "racer", &60).await?;
                world.output::<String>("r").await
            })
            .await?;
        assert_eq!(survived.value, "timer");
    }

    async fn a_signal_that_was_accepted_before_the_timer_fired_wins_although_both_are_seen_later(kind) {
        let kit = kit(kind).workflow(racer()).start().await?;
        let run = kit.run_as("r", "racer", &60).await?;
        kit.settle().await?;
        // Nobody advances the run while the signal comes and the timer passes.
        let (setup, key) = (kit.setup(), run.key());
        let database = kit.database().clone();
        let clock = kit.hands().clone();
        drop(kit.kill().await);
        let elsewhere = aldis::Aldis::open(database.url())
            .clock(aldis::clock::Clock::Virtual(clock.clone()))
            .connect()
            .await
            .map_err(aldis::testing::Error::from)?;
        clock.advance(secs(30));
        elsewhere.find("r").await?.signal_as("s1", &GO, &7).await?;
        clock.advance(secs(60));
        let again = setup.start_on(&database, &clock).await?;
        let ended = again.run_to_end(&again.by_key(key).await?).await?;
        assert_eq!(format!("{:?}", ended.outcome), r#"Completed("signal 7")"#);
        again.finish().await?;
    }

    async fn many_runs_wake_at_their_own_times_in_order(kind) {
        let kit = kit(kind).workflow(sleeper()).start().await?;
        let begin = kit.now();
        let mut runs = Vec::new();
        for n in (1..=20_u64).rev() {
            runs.push(kit.run_as(&format!("r{n}"), "sleeper", &[n * 10]).await?);
        }
        kit.run_to_rest().await?;
        for run in &runs {
            let ended = run.row().await?.updated_at.since(begin).as_secs();
            assert_eq!(run.id().as_str(), format!("r{}", ended / 10));
        }
        kit.finish().await?;
    }

    async fn a_run_is_asked_to_cancel_at_its_deadline(kind) {
        let survived = Crash::of(|_| kit(kind).workflow(racer()))
            .survives(async |world| {
                let deadline = Some(world.now() + secs(10));
                world.start_with("racer", &60, StartOptions { id: Some(id("r")), deadline, ..StartOptions::default() }).await?;
                let ended = world.end("r").await?;
                Ok(format!("{:?}", ended.outcome).split(", failure").next().unwrap_or_default().to_owned())
            })
            .await?;
        assert!(survived.value.starts_with("Cancelled { reason: \"its deadline, 2026-"), "{}", survived.value);
    }
}

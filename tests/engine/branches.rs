//! Branches that run side by side: joins, fan-outs with a limit, scopes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aldis::testing::Crash;
use aldis::workflow::Raced;
use aldis::{Context, Failure, Signal, Step, StepContext, Workflow};

use crate::support::{kit, secs};

const DOUBLE: Step<u32, u32> = Step::new("double");
const NOTE: Step<String, String> = Step::new("note");
const WAIT: Step<u64, u64> = Step::new("wait");
const GO: Signal<u32> = Signal::new("go");

async fn double(_: StepContext, n: u32) -> Result<u32, Failure> {
    Ok(n * 2)
}

async fn note(_: StepContext, text: String) -> Result<String, Failure> {
    Ok(text)
}

/// Doubles each, all at the same time.
fn doubler() -> Workflow {
    Workflow::new("doubler", |cx: Context, n: u32| async move {
        let doubled = cx.join_all((0..n).map(|n| cx.step(&DOUBLE, n, double))).await;
        let doubled: Result<Vec<u32>, _> = doubled.into_iter().collect();
        Ok::<_, Failure>(doubled?)
    })
}

/// A branch per item: two steps each, three items at a time.
fn fan() -> Workflow {
    Workflow::new("fan", |cx: Context, items: Vec<String>| async move {
        let done = cx
            .for_each("item", items, 3, Clone::clone, |cx, item| async move {
                let first = cx.step(&NOTE, format!("{item} first"), note).await?;
                cx.sleep(secs(10)).await?;
                cx.step(&NOTE, format!("{first}, second"), note).await.map_err(Failure::from)
            })
            .await;
        done.into_iter().collect::<Result<Vec<String>, Failure>>()
    })
}

each_store! {
    async fn branches_side_by_side_survive_every_crash(kind) {
        let survived = Crash::of(|_| kit(kind).workflow(doubler()))
            .in_any_order()
            .survives(async |world| {
                world.start("r", "doubler", &4).await?;
                world.output::<Vec<u32>>("r").await
            })
            .await?;
        assert_eq!(survived.value, [0, 2, 4, 6]);
    }

    async fn a_thousand_branches_are_joined_in_their_order(kind) {
        let kit = kit(kind)
            .workflow(doubler())
            .engine_options(|options| options.shadow = aldis::engine::Shadow::Off)
            .start()
            .await?;
        let run = kit.run("doubler", &1_000).await?;
        let aldis::Outcome::Completed(output) = kit.run_to_end(&run).await?.outcome else { panic!("it did not complete") };
        let doubled: Vec<u32> = output.read().unwrap();
        assert_eq!(doubled, (0..1_000).map(|n| n * 2).collect::<Vec<_>>());
        // Results are folded: there are far fewer commits than branches.
        assert_eq!(kit.attempts().all().len(), 1_000);
        kit.finish().await?;
    }

    async fn items_are_known_by_their_keys_and_begun_as_there_is_room(kind) {
        let kit = kit(kind).workflow(fan()).start().await?;
        let begin = kit.now();
        let run = kit.run_as("r", "fan", &["a", "b", "c", "d"]).await?;
        let ended = kit.run_to_end(&run).await?;
        assert_eq!(
            format!("{:?}", ended.outcome),
            r#"Completed(["a first, second","b first, second","c first, second","d first, second"])"#
        );
        assert_eq!(kit.now().since(begin), secs(20));
        kit.finish().await?;

        let survived = Crash::of(|_| crate::support::kit(kind).workflow(fan()))
            .in_any_order()
            .survives(async |world| {
                world.start("r", "fan", &["a", "b", "c", "d"]).await?;
                world.output::<Vec<String>>("r").await
            })
            .await?;
        assert_eq!(survived.value.len(), 4);
        assert!(survived.runs["r"].iter().any(|line| line == "StepScheduled item[d]/3 note \"d first, second\""), "{:#?}", survived.runs["r"]);
    }

    async fn no_more_branches_run_than_the_limit_allows(kind) {
        let most = Arc::new(AtomicUsize::new(0));
        let running = Arc::new(AtomicUsize::new(0));
        let seen = most.clone();
        let limited = Workflow::new("limited", move |cx: Context, n: u64| {
            let (running, most) = (running.clone(), most.clone());
            async move {
                cx.for_each("item", 0..n, 4, |n| *n, move |cx, n| {
                    let (running, most) = (running.clone(), most.clone());
                    async move {
                        cx.step(&WAIT, n, move |cx, n| {
                            let (running, most) = (running.clone(), most.clone());
                            async move {
                                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                                cx.sleep(secs(1 + n % 3)).await;
                                running.fetch_sub(1, Ordering::SeqCst);
                                Ok::<_, Failure>(n)
                            }
                        })
                        .await
                    }
                })
                .await;
                Ok::<_, Failure>(())
            }
        });
        let kit = kit(kind).workflow(limited).start().await?;
        let run = kit.run("limited", &12).await?;
        kit.run_to_end(&run).await?;
        assert_eq!(seen.load(Ordering::SeqCst), 4);
        kit.finish().await?;
    }

    async fn the_loser_of_a_race_is_told_to_stop_and_its_branch_is_withdrawn(kind) {
        let race = || Workflow::new("race", |cx: Context, (): ()| async move {
            let slow = cx.scope("slow", |cx| async move {
                cx.step(&WAIT, 60, |cx, n| async move {
                    cx.until_cancelled().await;
                    Ok::<_, Failure>(n)
                })
                .await
            });
            let won = match cx.race(slow, cx.signal(&GO)).await {
                Raced::First(_) => "slow".to_owned(),
                Raced::Second(go) => format!("go {}", go?),
            };
            cx.step(&NOTE, won, note).await.map_err(Failure::from)
        });
        let survived = Crash::of(|_| kit(kind).workflow(race()))
            .survives(async |world| {
                world.start("r", "race", &()).await?;
                world.settle().await?;
                world.signal("r", "s", &GO, &1).await?;
                world.output::<String>("r").await
            })
            .await?;
        assert_eq!(survived.value, "go 1");
        says!(survived.runs["r"].join("\n"), @r#"
        RunStarted race v1 null
        SignalAwaited 1 go (one)
        StepScheduled slow/1 wait 60
        SignalsTaken 1 s 1
        WaitWithdrawn slow/1
        StepScheduled 2 note "go 1"
        StepFinished 2 "go 1"
        RunCompleted "go 1"
        is completed
        "#);
    }

    async fn a_signal_never_goes_to_a_wait_that_was_given_up(kind) {
        // The first wait loses against the timer; the signal that comes then is the second wait's.
        let twice = || Workflow::new("twice", |cx: Context, (): ()| async move {
            let first = match cx.race(cx.signal(&GO), cx.sleep(secs(5))).await {
                Raced::First(go) => Some(go?),
                Raced::Second(_) => None,
            };
            let second = cx.signal(&GO).await?;
            Ok::<_, Failure>((first, second))
        });
        let survived = Crash::of(|_| kit(kind).workflow(twice()))
            .survives(async |world| {
                world.start("r", "twice", &()).await?;
                world.advance(secs(6)).await?;
                world.signal("r", "s", &GO, &9).await?;
                world.output::<(Option<u32>, u32)>("r").await
            })
            .await?;
        assert_eq!(survived.value, (None, 9));
    }

    async fn ids_and_chance_are_the_same_on_every_replay(kind) {
        use rand_chacha::rand_core::RngCore;
        let chance = Workflow::new("chance", |cx: Context, (): ()| async move {
            let (a, mut dice) = (cx.uuid(), cx.rng("dice"));
            cx.sleep(secs(5)).await?;
            let first = dice.next_u32();
            let again = cx.rng("dice").next_u32();
            cx.step(&NOTE, a.to_string(), note).await?;
            Ok::<_, Failure>((a != cx.uuid(), first == again))
        });
        let kit = kit(kind).workflow(chance).start().await?;
        let run = kit.run("chance", &()).await?;
        kit.settle().await?;
        let kit = kit.crash().await?;
        let ended = kit.run_to_end(&run).await?;
        assert_eq!(format!("{:?}", ended.outcome), "Completed([true,true])");
        kit.finish().await?;
    }
}

//! Steps: recorded once, tried again as they ask, given up when their time is out.

use std::fmt;

use aldis::failure::{Fault, Retry};
use aldis::testing::{Crash, Ledger};
use aldis::{Context, Failure, Outcome, Step, StepContext, StepError, Workflow};
use serde::{Deserialize, Serialize};

use crate::support::{kit, secs};

const ADD: Step<u32, u32> = Step::new("add");

/// Adds one `n` times, a step each.
fn counting(ledger: &Ledger) -> Workflow {
    let ledger = ledger.clone();
    Workflow::new("counting", move |cx: Context, n: u32| {
        let ledger = ledger.clone();
        async move {
            let mut sum = 0;
            for _ in 0..n {
                let ledger = ledger.clone();
                sum = cx
                    .step(&ADD, sum, move |cx, sum| {
                        ledger.enter(&cx, format!("{sum} + 1"));
                        async move { Ok::<_, Failure>(sum + 1) }
                    })
                    .await?;
            }
            Ok::<_, Failure>(sum)
        }
    })
}

/// A workflow of one step: what came of it, in words.
fn one_step<O, E, F, A>(name: &'static str, step: Step<(), O, E>, body: F) -> Workflow
where
    O: Serialize + serde::de::DeserializeOwned + fmt::Debug + Send + Sync + 'static,
    E: Fault + Sync,
    F: Fn(StepContext) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<O, E>> + Send + 'static,
{
    let step = std::sync::Arc::new(step);
    Workflow::new(name, move |cx: Context, (): ()| {
        let (step, body) = (step.clone(), body.clone());
        async move {
            let result = cx.step(&step, (), move |cx, ()| body(cx)).await;
            Ok::<_, Failure>(match result {
                Ok(output) => format!("{output:?}"),
                Err(error) => error.to_string(),
            })
        }
    })
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Declined {
    code: u16,
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "declined with code {}", self.code)
    }
}

impl Fault for Declined {
    fn retry(&self) -> Retry {
        if self.code == 51 { Retry::Never } else { Retry::ByPolicy }
    }
}

each_store! {
    async fn steps_one_after_the_other_survive_every_crash(kind) {
        let survived = Crash::of(|ledger| kit(kind).workflow(counting(ledger)))
            .opening_too()
            .survives(async |world| {
                world.start("r", "counting", &3).await?;
                world.output::<u32>("r").await
            })
            .await?;
        assert_eq!(survived.value, 3);
        assert!(survived.struck >= 12, "{} worlds were struck", survived.struck);
    }

    async fn n_steps_cost_n_plus_one_logical_commits(kind) {
        let kit = kit(kind).workflow(counting(&Ledger::default())).start().await?;
        let mut costs = Vec::new();
        for n in [0, 1, 10, 100] {
            let before = kit.store().stats().logical_commits;
            let run = kit.run("counting", &n).await?;
            kit.run_to_end(&run).await?;
            costs.push(kit.store().stats().logical_commits - before);
        }
        assert_eq!(costs, [1, 2, 11, 101]);
        kit.finish().await?;
    }

    async fn a_step_is_tried_again_after_growing_waits(kind) {
        const FLAKY: Step<(), String> = Step::new("flaky").attempts(4);
        let flaky = || one_step("flaky", FLAKY, |cx| async move {
            if cx.attempt() < 4 { Err(Failure::new(format!("no answer to attempt {}", cx.attempt()))) } else { Ok("done".into()) }
        });
        let kit = kit(kind).workflow(flaky()).start().await?;
        let run = kit.run("flaky", &()).await?;
        kit.run_to_end(&run).await?;
        assert_journal!("a_step_is_tried_again_after_growing_waits", kit.journal(&run).await?);
        kit.finish().await?;

        let survived = Crash::of(|_| crate::support::kit(kind).workflow(flaky()))
            .survives(async |world| {
                world.start("r", "flaky", &()).await?;
                world.output::<String>("r").await
            })
            .await?;
        assert_eq!(survived.value, r#""done""#);
    }

    async fn an_error_may_name_its_own_wait(kind) {
        const BUSY: Step<(), u8> = Step::new("busy").attempts(2);
        let busy = one_step("busy", BUSY, |cx| async move {
            if cx.attempt() == 1 { Err(Failure::new("come back later").retry_after(secs(90))) } else { Ok(7) }
        });
        let kit = kit(kind).workflow(busy).start().await?;
        let begin = kit.now();
        let run = kit.run("busy", &()).await?;
        let ended = kit.run_to_end(&run).await?;
        assert_eq!(format!("{:?}", ended.outcome), r#"Completed("7")"#);
        assert_eq!(kit.now().since(begin), secs(90));
        kit.finish().await?;
    }

    async fn an_error_may_say_that_trying_again_is_of_no_use(kind) {
        const PAY: Step<(), u8, Declined> = Step::new("pay").attempts(9);
        let pay = one_step("pay", PAY, |cx| async move { Err(Declined { code: if cx.attempt() < 3 { 5 } else { 51 } }) });
        let kit = kit(kind).workflow(pay).start().await?;
        let run = kit.run("pay", &()).await?;
        let ended = kit.run_to_end(&run).await?;
        says!(format!("{:?}", ended.outcome), @r#"Completed("step \"pay\" failed after 3 attempts: declined with code 51")"#);
        kit.finish().await?;
    }

    async fn an_attempt_that_takes_too_long_is_told_to_stop_and_fails(kind) {
        const SLOW: Step<(), u8> = Step::new("slow").attempts(2).timeout(secs(30));
        let slow = || one_step("slow", SLOW, |cx: StepContext| async move {
            cx.until_cancelled().await;
            Err(Failure::new("stopped in good order"))
        });
        let survived = Crash::of(|_| kit(kind).workflow(slow()))
            .survives(async |world| {
                world.start("r", "slow", &()).await?;
                world.output::<String>("r").await
            })
            .await?;
        says!(survived.value, @r#"step "slow" timed out after 2 attempts: an attempt took more than 30000 ms"#);
    }

    async fn a_body_that_does_not_stop_is_dropped(kind) {
        const DEAF: Step<(), u8> = Step::new("deaf").timeout(secs(30));
        let deaf = one_step("deaf", DEAF, |cx: StepContext| async move {
            cx.sleep(secs(3_600)).await;
            Ok::<_, Failure>(1)
        });
        let kit = kit(kind).workflow(deaf).start().await?;
        let begin = kit.now();
        let run = kit.run("deaf", &()).await?;
        let ended = kit.run_to_end(&run).await?;
        says!(format!("{:?}", ended.outcome), @r#"Completed("step \"deaf\" timed out after 1 attempt: an attempt took more than 30000 ms")"#);
        // Its time, and the grace in which it might have stopped.
        assert_eq!(kit.now().since(begin), secs(35));
        kit.finish().await?;
    }

    async fn progress_resets_the_idle_timeout(kind) {
        const STREAM: Step<(), u8> = Step::new("stream").idle_timeout(secs(10));
        let stream = one_step("stream", STREAM, |cx: StepContext| async move {
            for _ in 0..5 {
                cx.sleep(secs(8)).await;
                cx.progress();
            }
            cx.until_cancelled().await;
            Ok::<_, Failure>(1)
        });
        let kit = kit(kind).workflow(stream).start().await?;
        let begin = kit.now();
        let run = kit.run("stream", &()).await?;
        let ended = kit.run_to_end(&run).await?;
        says!(format!("{:?}", ended.outcome), @r#"Completed("step \"stream\" timed out after 1 attempt: no sign of progress for 10000 ms")"#);
        assert_eq!(kit.now().since(begin), secs(50));
        kit.finish().await?;
    }

    async fn all_attempts_together_may_take_so_long(kind) {
        const LONG: Step<(), u8> = Step::new("long").attempts(10).backoff(secs(10), 1.0, secs(10)).total_timeout(secs(25));
        let long = one_step("long", LONG, |cx: StepContext| async move {
            Err(Failure::new(format!("attempt {}", cx.attempt())))
        });
        let kit = kit(kind).workflow(long).start().await?;
        let begin = kit.now();
        let run = kit.run("long", &()).await?;
        let ended = kit.run_to_end(&run).await?;
        says!(format!("{:?}", ended.outcome), @r#"Completed("step \"long\" failed after 3 attempts: attempt 3")"#);
        assert_eq!(kit.now().since(begin), secs(20));
        kit.finish().await?;
    }

    async fn the_total_time_ends_a_running_attempt(kind) {
        const LONG: Step<(), u8> = Step::new("long").attempts(10).total_timeout(secs(25));
        let long = one_step("long", LONG, |cx: StepContext| async move {
            cx.until_cancelled().await;
            Ok::<_, Failure>(1)
        });
        let kit = kit(kind).workflow(long).start().await?;
        let run = kit.run("long", &()).await?;
        let ended = kit.run_to_end(&run).await?;
        says!(format!("{:?}", ended.outcome), @r#"Completed("step \"long\" timed out after 1 attempt: all attempts together took more than 25000 ms")"#);
        kit.finish().await?;
    }

    async fn the_next_attempt_receives_the_latest_checkpoint(kind) {
        const COPY: Step<(), Vec<u32>> = Step::new("copy").attempts(3);
        let copy = || one_step("copy", COPY, |cx: StepContext| async move {
            let from = cx.checkpoint::<u32>()?.unwrap_or(0);
            cx.heartbeat(&(from + 10))?;
            cx.heartbeat(&(from + 20))?;
            if cx.attempt() < 3 { Err(Failure::new("interrupted")) } else { Ok(vec![from, cx.attempt()]) }
        });
        let kit = kit(kind).workflow(copy()).start().await?;
        let run = kit.run("copy", &()).await?;
        kit.run_to_end(&run).await?;
        assert_journal!("the_next_attempt_receives_the_latest_checkpoint", kit.journal(&run).await?);
        kit.finish().await?;
    }

    async fn a_panic_in_a_body_is_a_failed_attempt(kind) {
        const SHAKY: Step<(), u8> = Step::new("shaky").attempts(2);
        let shaky = || one_step("shaky", SHAKY, |cx: StepContext| async move {
            assert!(cx.attempt() == 0, "attempt {} of {}", cx.attempt(), 2);
            Ok::<_, Failure>(1)
        });
        let survived = Crash::of(|_| kit(kind).workflow(shaky()))
            .survives(async |world| {
                world.start("r", "shaky", &()).await?;
                world.output::<String>("r").await
            })
            .await?;
        says!(survived.value, @r#"step "shaky" panicked after 2 attempts: attempt 2 of 2"#);
    }

    async fn a_typed_error_is_in_hand_after_a_replay(kind) {
        const PAY: Step<(), u8, Declined> = Step::new("pay");
        const NOTE: Step<u16, u16> = Step::new("note");
        let pay = || Workflow::new("pay", |cx: Context, (): ()| async move {
            let code = match cx.step(&PAY, (), |_, ()| async { Err(Declined { code: 51 }) }).await {
                Err(StepError::Failed { error, .. }) => error.code,
                _ => 0,
            };
            Ok::<_, Failure>(cx.step(&NOTE, code, |_, code| async move { Ok::<_, Failure>(code) }).await?)
        });
        let survived = Crash::of(|_| kit(kind).workflow(pay()))
            .survives(async |world| {
                world.start("r", "pay", &()).await?;
                world.output::<u16>("r").await
            })
            .await?;
        assert_eq!(survived.value, 51);
    }

    async fn the_idempotency_key_is_the_same_for_every_attempt_and_for_no_other_step(kind) {
        const KEY: Step<(), String> = Step::new("key").attempts(2);
        let keys = Workflow::new("keys", |cx: Context, (): ()| async move {
            let mut keys = Vec::new();
            for _ in 0..2 {
                let failed = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
                keys.push(cx.step(&KEY, (), move |cx: StepContext, ()| {
                    let failed = failed.clone();
                    async move {
                        let key = cx.idempotency_key().to_owned();
                        if cx.attempt() == 1 {
                            *failed.lock().unwrap() = key;
                            return Err(Failure::new("once more"));
                        }
                        Ok(if *failed.lock().unwrap() == key { key } else { "another".into() })
                    }
                }).await?);
            }
            Ok::<_, Failure>(keys)
        });
        let kit = kit(kind).workflow(keys).start().await?;
        let run = kit.run_as("r", "keys", &()).await?;
        let Outcome::Completed(keys) = kit.run_to_end(&run).await?.outcome else { panic!("it did not complete") };
        let keys: Vec<String> = keys.read().unwrap();
        let shape: Vec<_> = keys.iter().map(|key| key.split(':').map(str::len).collect::<Vec<_>>()).collect();
        assert_eq!(shape, [[1, 8, 1], [1, 8, 1]], "{keys:?}");
        assert_ne!(keys[0], keys[1]);
        kit.finish().await?;
    }
}

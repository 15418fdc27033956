//! Steps: recorded once, tried again as they ask, given up when their time is out.

use aldis::testing::{Crash, Ledger};
use aldis::{Context, Failure, Step, Workflow};

use crate::support::kit;

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
                        let ledger = ledger.clone();
                        async move {
                            ledger.enter(&cx, format!("{sum} + 1"));
                            Ok::<_, Failure>(sum + 1)
                        }
                    })
                    .await?;
            }
            Ok::<_, Failure>(sum)
        }
    })
}

each_store! {
    async fn steps_one_after_the_other_survive_every_crash(kind) {
        let survived = Crash::of(|ledger| kit(kind).workflow(counting(ledger)))
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
}

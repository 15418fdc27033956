//! The refund: approved, declined, forgotten, cancelled; and every ledger line once.

use std::path::Path;

use aldis::testing::{Crash, TestKit};
use aldis::workflows::refund::{APPROVAL, Approval, PROGRESS, Refunded, workflow};
use serde_json::{Value, json};

use crate::support::{kit, passed};

fn order(directory: &Path) -> Value {
    json!({ "order": "7", "amount_cents": 4_200, "customer": "Ada", "approve_within_seconds": 3_600, "ledger": directory.join("ledger.jsonl") })
}

fn approval(approved: bool) -> Approval {
    Approval { approved, by: "Grace".into() }
}

/// What the ledger's lines say, without their keys, and how many keys there are.
fn ledger(directory: &Path) -> (Vec<String>, usize) {
    let text = std::fs::read_to_string(directory.join("ledger.jsonl")).expect("the ledger");
    let mut keys = std::collections::BTreeSet::new();
    let lines = text.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).expect("a line of JSON");
        keys.insert(line["key"].take().to_string());
        line.as_object_mut().expect("an object").remove("key");
        line.to_string()
    });
    let lines = lines.collect();
    (lines, keys.len())
}

each_store! {
    async fn an_approved_refund_is_paid_once_through_every_crash(kind) {
        let survived = Crash::of(|_| kit(kind).workflow(workflow()))
            .survives(async |world| {
                world.start("refund-7", "refund", &order(world.directory())).await?;
                world.settle().await?;
                world.signal("refund-7", "approval-1", &APPROVAL, &approval(true)).await?;
                let refunded: Refunded = world.output("refund-7").await?;
                Ok((refunded, ledger(world.directory()), world.query("refund-7", &PROGRESS).await?))
            })
            .await?;
        let (refunded, (lines, keys), progress) = survived.value;
        assert_eq!(refunded, Refunded { paid: true, decided_by: Some("Grace".into()) });
        assert_eq!(keys, 3);
        assert_eq!(lines, [
            r#"{"charged":"7","cents":4200}"#,
            r#"{"paid_out":"7","cents":4200}"#,
            r#"{"told":"Ada","text":"order 7: your refund is on its way (Grace)"}"#,
        ]);
        assert_eq!(progress.as_deref(), Some("paid out"));
    }

    async fn a_refund_that_nobody_approves_is_released_after_its_time_through_every_crash(kind) {
        let survived = Crash::of(|_| kit(kind).workflow(workflow()))
            .survives(async |world| {
                world.start("refund-7", "refund", &order(world.directory())).await?;
                let refunded: Refunded = world.output("refund-7").await?;
                Ok((refunded, ledger(world.directory()).0))
            })
            .await?;
        assert_eq!(survived.value.0, Refunded { paid: false, decided_by: None });
        assert_eq!(survived.value.1[1], r#"{"released":"7","cents":4200}"#);
    }

    async fn a_cancelled_refund_gives_the_money_back(kind) {
        let survived = Crash::of(|_| kit(kind).workflow(workflow()))
            .survives(async |world| {
                world.start("refund-7", "refund", &order(world.directory())).await?;
                world.settle().await?;
                world.cancel("refund-7", "the customer called").await?;
                world.end("refund-7").await?;
                Ok((world.status("refund-7").await?, ledger(world.directory()).0))
            })
            .await?;
        let lines = vec![r#"{"charged":"7","cents":4200}"#.to_owned(), r#"{"released":"7","cents":4200}"#.to_owned()];
        assert_eq!(survived.value, ("cancelled", lines));
    }
}

async fn pictured(name: &str, play: impl AsyncFn(&TestKit, &aldis::RunHandle) -> Result<(), aldis::testing::Error>) {
    let case = async {
        let kit = TestKit::sqlite().workflow(workflow()).start().await?;
        let run = kit.run_as("refund-7", "refund", &order(kit.database().directory())).await?;
        play(&kit, &run).await?;
        kit.run_to_end(&run).await?;
        assert_journal!(name, kit.journal(&run).await?);
        kit.finish().await
    };
    passed(case.await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_of_an_approved_refund() {
    pictured("refund_approved", async |kit, run| kit.signal_when_awaited(run, &APPROVAL, &approval(true))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_of_a_declined_refund() {
    pictured("refund_declined", async |kit, run| kit.signal_when_awaited(run, &APPROVAL, &approval(false))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_of_a_forgotten_refund() {
    pictured("refund_forgotten", async |_, _| Ok(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_of_a_cancelled_refund() {
    pictured("refund_cancelled", async |kit, run| {
        kit.settle().await?;
        run.cancel("the customer called", "Grace").await?;
        Ok(())
    })
    .await;
}

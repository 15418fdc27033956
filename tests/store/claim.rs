use std::collections::HashSet;

use aldis::id::{Fence, WorkerKey};
use aldis::run::{BlockReason, Status};
use aldis::store::{Leaves, Verdict};

use crate::support::*;

each_store! {
    async fn a_due_run_is_claimed_with_a_new_fence(store) {
        let held = store.due("r-1").await;
        let claimed = store.claim(WorkerKey(7), &knows(&["order v1"]), 9, at(20)).await.unwrap();
        assert_eq!(claimed.len(), 1);
        assert_eq!(claimed[0].key, held.run);
        assert_eq!(claimed[0].status, Status::Running { worker: WorkerKey(7) });
        assert_eq!(claimed[0].fence, Fence(2));
        assert_eq!(store.row(held.run).await, claimed[0]);
    }

    async fn a_run_is_claimed_by_one_worker(store) {
        store.due("r-1").await;
        assert_eq!(store.claim(WorkerKey(7), &knows(&["order v1"]), 9, at(20)).await.unwrap().len(), 1);
        assert_eq!(store.claim(WorkerKey(8), &knows(&["order v1"]), 9, at(20)).await.unwrap(), []);
    }

    async fn a_run_is_not_claimed_before_its_time(store) {
        let held = store.begun("r-1").await;
        store.applied(held.leaves(Leaves::Due { at: at(100) })).await;
        assert_eq!(store.claim(ME, &knows(&["order v1"]), 9, at(99)).await.unwrap(), []);
        assert_eq!(store.claim(ME, &knows(&["order v1"]), 9, at(100)).await.unwrap().len(), 1);
    }

    async fn a_waiting_run_is_claimed_when_its_timer_has_come(store) {
        let (timer, signals) = (store.begun("r-1").await, store.waiting("r-2").await);
        store.applied(timer.leaves(Leaves::Waiting { wake_at: Some(at(100)) })).await;
        assert_eq!(store.claim(ME, &knows(&["order v1"]), 9, at(99)).await.unwrap(), []);
        let claimed = store.claim(ME, &knows(&["order v1"]), 9, at(100)).await.unwrap();
        assert_eq!(claimed.iter().map(|run| run.key).collect::<Vec<_>>(), [timer.run]);
        assert_eq!(store.row(signals.run).await.status, Status::Waiting { wake_at: None });
    }

    async fn only_workflows_and_versions_that_the_worker_knows_are_claimed(store) {
        let held = store.due("r-1").await;
        for known in [&[][..], &["order v2"], &["order"], &["orders v1"]] {
            assert_eq!(store.claim(ME, &knows(known), 9, at(20)).await.unwrap(), []);
        }
        let claimed = store.claim(ME, &knows(&["other v3", "order v1"]), 9, at(20)).await.unwrap();
        assert_eq!(claimed[0].key, held.run);
    }

    async fn the_earliest_are_claimed_first_up_to_the_limit(store) {
        let mut runs = Vec::new();
        for (n, due) in [30, 20, 10, 40].into_iter().enumerate() {
            let held = store.begun(&format!("r-{n}")).await;
            store.applied(held.leaves(Leaves::Due { at: at(due) })).await;
            runs.push(held.run);
        }
        let claimed = store.claim(ME, &knows(&["order v1"]), 2, at(100)).await.unwrap();
        assert_eq!(claimed.iter().map(|run| run.key).collect::<Vec<_>>(), [runs[2], runs[1]]);
        let claimed = store.claim(ME, &knows(&["order v1"]), 9, at(100)).await.unwrap();
        assert_eq!(claimed.iter().map(|run| run.key).collect::<Vec<_>>(), [runs[0], runs[3]]);
    }

    async fn blocked_and_closed_runs_are_not_claimed(store) {
        let (blocked, closed) = (store.begun("r-1").await, store.begun("r-2").await);
        let reason = BlockReason::Panicked("oh".into());
        store.applied(blocked.leaves(Leaves::Blocked { reason, build: "b1".into() })).await;
        store.applied(closed.completes()).await;
        assert_eq!(store.claim(ME, &knows(&["order v1"]), 9, at(1_000)).await.unwrap(), []);
    }

    async fn the_old_owner_is_refused_and_the_new_one_goes_on(store) {
        let old = store.due("r-1").await;
        let new = Held::of(&store.claim(WorkerKey(2), &knows(&["order v1"]), 9, at(20)).await.unwrap()[0]);
        assert_ne!(store.verdict(old.adds([finished("1")])).await, Verdict::Applied);
        store.applied(new.adds([finished("1")])).await;
    }

    async fn two_processes_that_claim_together_share_the_runs(store) {
        let elsewhere = store.elsewhere().await;
        let mut runs = HashSet::new();
        for n in 0..40 {
            runs.insert(store.due(&format!("r-{n}")).await.run);
        }
        let known = knows(&["order v1"]);
        let mut claimed = Vec::new();
        while claimed.len() < 40 {
            let (here, there) = tokio::join!(
                store.claim(WorkerKey(1), &known, 7, at(20)),
                elsewhere.claim(WorkerKey(2), &known, 7, at(20))
            );
            let both: Vec<_> = here.unwrap().into_iter().chain(there.unwrap()).collect();
            assert!(!both.is_empty());
            claimed.extend(both.into_iter().map(|run| run.key));
        }
        assert_eq!(claimed.len(), 40);
        assert_eq!(claimed.into_iter().collect::<HashSet<_>>(), runs);
        elsewhere.close().await;
    }
}

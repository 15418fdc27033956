use std::time::Duration;

use aldis::run::BlockReason;
use aldis::store::{Commit, Hint, Leaves};

use crate::support::*;

fn told(hint: Option<Hint>) -> String {
    match hint {
        None => "nothing".into(),
        Some(Hint::Due) => "due".into(),
        Some(Hint::Ended(run)) => format!("ended {run}"),
        Some(Hint::Owned(owned)) => format!("owned {}", owned.history.run.id),
        Some(Hint::Signalled { signals, .. }) => {
            signals.iter().map(|it| format!("{}={}", it.id, it.ordinal)).collect::<Vec<_>>().join(" ")
        }
    }
}

each_store! {
    async fn the_next_wake_is_the_earliest_time_of_a_run_that_may_be_claimed(store) {
        assert_eq!(store.next_wake(at(0)).await.unwrap(), None);
        let (due, timer, done) = (store.begun("r-1").await, store.begun("r-2").await, store.begun("r-3").await);
        store.waiting("r-4").await;
        assert_eq!(store.next_wake(at(0)).await.unwrap(), None);
        store.applied(due.leaves(Leaves::Due { at: at(300) })).await;
        store.applied(timer.leaves(Leaves::Waiting { wake_at: Some(at(200)) })).await;
        store.applied(done.completes()).await;
        assert_eq!(store.next_wake(at(0)).await.unwrap(), Some(at(200)));
        assert_eq!(store.next_wake(at(200)).await.unwrap(), Some(at(300)));
        store.claim(ME, &knows(&["order v1"]), 1, at(200)).await.unwrap();
        assert_eq!(store.next_wake(at(0)).await.unwrap(), Some(at(300)));
    }

    async fn an_accepted_signal_is_told_whole(store) {
        let held = store.begun("r-1").await;
        let mut hints = store.hints();
        store.accepted(signal(&held, "go", "s-1")).await;
        let Some(Hint::Signalled { run, signals }) = hints.recv().await else { panic!("another hint") };
        assert_eq!(run, held.run);
        assert_eq!(signals, store.past(held.run).await.pending);
        assert_eq!(told(hints.try_recv()), "nothing");
    }

    async fn a_repeated_or_refused_signal_tells_nothing(store) {
        let held = store.begun("r-1").await;
        store.accepted(signal(&held, "go", "s-1")).await;
        let mut hints = store.hints();
        store.accepted(signal(&held, "go", "s-1")).await;
        store.accept(aldis::store::Arrival { pending_max: 1, ..signal(&held, "go", "s-2") }).await.unwrap().unwrap_err();
        assert_eq!(told(hints.try_recv()), "nothing");
    }

    async fn a_signal_that_makes_a_run_due_is_told_once(store) {
        let held = store.waiting("r-1").await;
        let mut hints = store.hints();
        store.accepted(signal(&held, "go", "s-1")).await;
        assert_eq!(told(hints.recv().await), "s-1=1");
        assert_eq!(store.hints_waiting(), 0);
    }

    async fn a_run_that_would_wait_with_an_unseen_signal_is_told_to_be_due(store) {
        let held = store.begun("r-1").await;
        store.accepted(signal(&held, "go", "s-1")).await;
        let mut hints = store.hints();
        store.applied(held.leaves(Leaves::Waiting { wake_at: None })).await;
        assert_eq!(told(hints.recv().await), "due");
    }

    async fn a_start_is_told(store) {
        let mut hints = store.hints();
        store.start(store.a_start("r-1").await).await.unwrap().unwrap();
        assert_eq!(told(hints.recv().await), "due");
    }

    async fn hints_wait_only_for_somebody_who_listens(store) {
        let held = store.begun("r-1").await;
        store.accepted(signal(&held, "go", "s-1")).await;
        assert_eq!(store.hints_waiting(), 0);
        let hints = store.hints();
        store.accepted(signal(&held, "go", "s-2")).await;
        assert_eq!(store.hints_waiting(), 1);
        drop(hints);
        assert_eq!(store.hints_waiting(), 0);
    }

    async fn a_new_listener_takes_over(store) {
        let held = store.begun("r-1").await;
        let mut old = store.hints();
        let mut new = store.hints();
        store.accepted(signal(&held, "go", "s-1")).await;
        assert_eq!(told(old.recv().await), "nothing");
        assert_eq!(told(new.recv().await), "s-1=1");
    }

    async fn hints_end_when_the_store_is_closed(store) {
        let mut hints = store.hints();
        let (told_last, ()) = tokio::join!(async { told(hints.recv().await) }, store.close());
        assert_eq!(told_last, "nothing");
    }

    async fn an_outcome_is_told_to_whoever_watches(store) {
        let (ends, blocks) = (store.begun("r-1").await, store.begun("r-2").await);
        let (ended, blocked) = (store.watch_outcome(ends.run).await, store.watch_outcome(blocks.run).await);
        let mut ended_again = store.watch_outcome(ends.run).await;
        store.applied(blocks.adds([finished("1")])).await;
        assert!(ended_again.try_recv().is_err());
        store.applied(ends.completes()).await;
        ended.await.unwrap();
        ended_again.await.unwrap();
        let reason = BlockReason::Panicked("oh".into());
        let blocks = Held { head: blocks.head.plus(1), ..blocks };
        store.applied(blocks.leaves(Leaves::Blocked { reason, build: "b1".into() })).await;
        blocked.await.unwrap();
    }

    async fn a_refused_commit_tells_no_outcome(store) {
        let held = store.begun("r-1").await;
        let mut ended = store.watch_outcome(held.run).await;
        store.verdict(Commit { head: aldis::id::Seq(5), ..held.completes() }).await;
        assert!(ended.try_recv().is_err());
    }

    async fn the_first_look_for_changes_returns_at_once(store) {
        store.changed().await;
    }

    async fn what_another_process_writes_is_noticed(store) {
        let elsewhere = store.elsewhere().await;
        let held = store.begun("r-1").await;
        store.changed().await;
        elsewhere.accepted(signal(&held, "go", "s-1")).await;
        tokio::time::timeout(Duration::from_secs(20), store.changed()).await.expect("a change was missed");
        elsewhere.start(elsewhere.a_start("r-2").await).await.unwrap().unwrap();
        tokio::time::timeout(Duration::from_secs(20), store.changed()).await.expect("a change was missed");
        elsewhere.close().await;
    }

    async fn what_this_process_writes_is_no_change(store) {
        let held = store.begun("r-1").await;
        store.changed().await;
        store.accepted(signal(&held, "go", "s-1")).await;
        let quiet = tokio::time::timeout(Duration::from_millis(150), store.changed()).await;
        assert!(quiet.is_err());
    }
}

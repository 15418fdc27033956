//! What is written when a process dies or a connection is lost, before and after the write.

use std::time::Duration;

use aldis::id::Fence;
use aldis::run::{IdempotencyKey, IfOpen, KeyKept};
use aldis::signal::Accepted;
use aldis::store::{
    Arrival, Chunk, Commit, Fault, Faults, Leaves, Options, Start, Started, Store, Transacted, Verdict,
};

use crate::support::*;

/// The same database under a script that strikes at the first write.
async fn struck(store: &Fresh, fault: Fault) -> (Store, Faults) {
    let faults = Faults::at(1, fault);
    let options = Options { faults: Some(faults.clone()), ..Options::default() };
    (store.elsewhere_with(options).await, faults)
}

/// Does what nobody hears the end of, until the process counts as dead.
async fn unheard<T>(faults: &Faults, doing: impl Future<Output = T>) {
    tokio::select! {
        biased;
        _ = doing => panic!("a dead process has answered"),
        () = faults.died() => {}
    }
}

each_store! {
    async fn nothing_is_written_if_the_process_dies_before(store) {
        let held = store.begun("r-1").await;
        let (dying, faults) = struck(store, Fault::CrashBefore).await;
        unheard(&faults, dying.verdict(held.adds([finished("1")]))).await;
        drop(dying);
        assert_eq!(store.row(held.run).await.head, held.head);
        store.applied(held.adds([finished("1")])).await;
    }

    async fn everything_is_written_if_the_process_dies_after(store) {
        let held = store.begun("r-1").await;
        let (dying, faults) = struck(store, Fault::CrashAfter).await;
        unheard(&faults, dying.verdict(held.adds([finished("1")]))).await;
        drop(dying);
        assert_eq!(store.row(held.run).await.head, held.head.plus(1));
    }

    async fn a_dead_process_hears_nothing_more(store) {
        let held = store.begun("r-1").await;
        let (dying, faults) = struck(store, Fault::CrashBefore).await;
        unheard(&faults, dying.reserve_keys(1)).await;
        let deaf = tokio::time::timeout(Duration::from_millis(20), dying.get(held.run)).await;
        assert!(deaf.is_err());
        let mute = tokio::time::timeout(Duration::from_millis(20), dying.verdict(held.adds([finished("1")]))).await;
        assert!(mute.is_err());
        dying.close().await;
        assert_eq!(store.row(held.run).await.head, held.head);
    }

    async fn a_commit_whose_answer_is_lost_is_applied_once(store) {
        let held = store.begun("r-1").await;
        let (shaky, faults) = struck(store, Fault::LoseAnswer).await;
        let published = vec![("p".to_owned(), json("1"))];
        let commit = Commit { published, ..held.adds([finished("1"), finished("2")]) };
        assert_eq!(shaky.verdict(commit).await, Verdict::Applied);
        assert!(faults.struck());
        assert_eq!(store.past(held.run).await.journal.len(), 3);
        shaky.close().await;
    }

    async fn a_beginning_whose_answer_is_lost_is_applied_once(store) {
        let (shaky, _) = struck(store, Fault::LoseAnswer).await;
        let begins = beginning(new_run(store.key().await, "r-1"));
        assert_eq!(shaky.verdict(begins).await, Verdict::Applied);
        assert_eq!(store.all().await.len(), 1);
        shaky.close().await;
    }

    async fn a_run_that_begins_and_ends_in_a_commit_whose_answer_is_lost_is_found(store) {
        let (shaky, _) = struck(store, Fault::LoseAnswer).await;
        let begins = beginning(new_run(store.key().await, "r-1"));
        let whole = Commit {
            lines: lines(10, [started("r-1"), completed()]),
            leaves: Leaves::Closed(aldis::run::Closed::Completed),
            ..begins
        };
        assert_eq!(shaky.verdict(whole.clone()).await, Verdict::Applied);
        let found = store.find(&Default::default(), &id("r-1")).await.unwrap().unwrap();
        assert_eq!(found.key, whole.run);
        shaky.close().await;
    }

    async fn in_a_batch_whose_answer_is_lost_each_commit_gets_its_own_verdict(store) {
        let (one, two) = (store.begun("r-1").await, store.begun("r-2").await);
        let (shaky, _) = struck(store, Fault::LoseAnswer).await;
        let stale = Commit { fence: Fence(0), ..two.adds([finished("1")]) };
        let verdicts = shaky.commit(vec![one.adds([finished("1")]), stale]).await.unwrap();
        assert_eq!(verdicts[0], Verdict::Applied);
        assert!(matches!(verdicts[1], Verdict::Refused(_)));
        assert_eq!(store.row(one.run).await.head, one.head.plus(1));
        assert_eq!(store.row(two.run).await.head, two.head);
        shaky.close().await;
    }

    async fn a_signal_whose_answer_is_lost_is_new_and_accepted_once(store) {
        let held = store.begun("r-1").await;
        let (shaky, _) = struck(store, Fault::LoseAnswer).await;
        let mut hints = shaky.hints();
        assert_eq!(shaky.accepted(signal(&held, "go", "s-1")).await, Accepted::New { ordinal: 1 });
        assert!(hints.try_recv().is_some());
        assert_eq!(store.row(held.run).await.signals_pending, 1);
        shaky.close().await;
    }

    async fn a_repeated_signal_whose_answer_is_lost_was_there_already(store) {
        let held = store.begun("r-1").await;
        store.accepted(signal(&held, "go", "s-1")).await;
        let (shaky, _) = struck(store, Fault::LoseAnswer).await;
        let again = Arrival { at: at(70), ..signal(&held, "go", "s-1") };
        assert_eq!(shaky.accepted(again).await, Accepted::Already { ordinal: 1 });
        shaky.close().await;
    }

    async fn a_start_whose_answer_is_lost_is_new_and_begun_once(store) {
        for (n, if_open) in [IfOpen::Fail, IfOpen::UseExisting, IfOpen::TerminateAndStart].into_iter().enumerate() {
            let (shaky, _) = struck(store, Fault::LoseAnswer).await;
            let idempotency_key = (n > 0)
                .then(|| IdempotencyKey { key: format!("k-{n}"), kept: KeyKept::For(Duration::from_secs(1)) });
            let start = Start { if_open, idempotency_key, ..store.a_start(&format!("r-{n}")).await };
            let run = start.commit.run;
            assert_eq!(shaky.start(start).await.unwrap(), Ok((run, Started::New)));
            assert_eq!(store.all().await.len(), n + 1);
            assert_eq!(store.row(run).await.status.word(), "due");
            shaky.close().await;
        }
    }

    async fn a_claim_whose_answer_is_lost_gives_the_same_runs(store) {
        let (one, two) = (store.due("r-1").await, store.due("r-2").await);
        let (shaky, _) = struck(store, Fault::LoseAnswer).await;
        let claimed = shaky.claim(ME, &knows(&["order v1"]), 1, at(20)).await.unwrap();
        assert_eq!(claimed.len(), 1);
        assert_eq!(claimed[0].fence, Fence(2));
        let running =
            [store.row(one.run).await, store.row(two.run).await].iter().filter(|run| run.fence == Fence(2)).count();
        assert_eq!(running, 1);
        shaky.close().await;
    }

    async fn stream_values_whose_answer_is_lost_are_appended_once(store) {
        let held = store.begun("r-1").await;
        let (shaky, _) = struck(store, Fault::LoseAnswer).await;
        let chunks = (1..4).map(|n| Chunk { stream: "out".into(), part: "3#1".into(), value: json(&n.to_string()) });
        shaky.append(held.run, chunks.collect(), at(20)).await.unwrap();
        let read = store.read_stream(held.run, "out", 0, 9).await.unwrap();
        assert_eq!(read.iter().map(|it| it.value.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
        shaky.close().await;
    }

    async fn a_transactional_step_whose_answer_is_lost_is_applied_once(store) {
        let held = store.begun("r-1").await;
        let (shaky, _) = struck(store, Fault::LoseAnswer).await;
        let commit = held.adds([finished("1")]);
        let done = shaky.transact(Duration::from_secs(30), async |_tx| Ok::<_, ()>(commit)).await.unwrap();
        assert!(matches!(done, Transacted::Applied));
        assert_eq!(store.past(held.run).await.journal.len(), 2);
        shaky.close().await;
    }

    async fn a_transactional_step_is_whole_or_not_at_all_if_the_process_dies(store) {
        for (n, (fault, lines)) in [(Fault::CrashBefore, 1), (Fault::CrashAfter, 2)].into_iter().enumerate() {
            let held = store.begun(&format!("r-{n}")).await;
            let (dying, faults) = struck(store, fault).await;
            let commit = held.adds([finished("1")]);
            let step = dying.transact(Duration::from_secs(30), async move |_tx| Ok::<_, ()>(commit));
            unheard(&faults, step).await;
            drop(dying);
            assert_eq!(store.row(held.run).await.head.0, lines);
        }
    }

    async fn every_write_is_counted_and_reads_are_not(store) {
        let held = store.begun("r-1").await;
        let faults = Faults::none();
        let counted = store.elsewhere_with(Options { faults: Some(faults.clone()), ..Options::default() }).await;
        counted.get(held.run).await.unwrap();
        counted.past(held.run).await;
        counted.next_wake(at(0)).await.unwrap();
        assert_eq!(faults.writes(), 0);
        counted.applied(held.adds([finished("1")])).await;
        counted.accepted(signal(&held, "go", "s-1")).await;
        counted.reserve_keys(3).await.unwrap();
        assert_eq!(faults.writes(), 3);
        assert_eq!(counted.stats().physical_writes, 3);
        counted.close().await;
    }
}

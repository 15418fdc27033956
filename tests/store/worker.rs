use aldis::id::{Fence, WorkerKey};
use aldis::run::{BlockReason, Status};
use aldis::store::{Leaves, Registration, Worker};

use crate::support::*;

each_store! {
    async fn a_registered_worker_is_listed(store) {
        let worker = Registration {
            name: "host:7 \"x\"".into(),
            build: "b1".into(),
            knows: knows(&["order v1", "report v12"]),
            now: at(0),
            lease_until: at(100),
        };
        let key = store.register(worker.clone()).await.unwrap();
        let listed =
            Worker { key, name: worker.name, build: worker.build, lease_until: at(100), knows: worker.knows };
        assert_eq!(store.workers().await.unwrap(), [listed]);
    }

    async fn every_worker_gets_a_key_of_its_own(store) {
        let one = store.worker("a", 100).await;
        store.release(one, at(10)).await.unwrap();
        let two = store.worker("a", 100).await;
        assert_ne!(one, two);
    }

    async fn a_heartbeat_extends_the_lease(store) {
        let worker = store.worker("a", 100).await;
        assert!(store.heartbeat(worker, at(50), at(150)).await.unwrap());
        assert_eq!(store.workers().await.unwrap()[0].lease_until, at(150));
        assert_eq!(store.take_over(at(120)).await.unwrap(), 0);
        assert!(store.heartbeat(worker, at(200), at(300)).await.unwrap());
    }

    async fn the_heartbeat_of_a_worker_that_was_taken_over_tells_it(store) {
        let worker = store.worker("a", 100).await;
        store.take_over(at(101)).await.unwrap();
        assert!(!store.heartbeat(worker, at(102), at(200)).await.unwrap());
    }

    async fn runs_of_a_worker_whose_lease_ran_out_are_due_with_a_new_fence(store) {
        let (dead, alive) = (store.worker("dead", 100).await, store.worker("alive", 300).await);
        let (one, two) = (store.due("r-1").await, store.due("r-2").await);
        store.claim(dead, &knows(&["order v1"]), 1, at(20)).await.unwrap();
        store.claim(alive, &knows(&["order v1"]), 1, at(20)).await.unwrap();
        assert_eq!(store.take_over(at(100)).await.unwrap(), 0);
        assert_eq!(store.take_over(at(101)).await.unwrap(), 1);
        let (one, two) = (store.row(one.run).await, store.row(two.run).await);
        assert_eq!((one.status, one.fence), (Status::Due { at: at(101) }, Fence(3)));
        assert_eq!((two.status, two.fence), (Status::Running { worker: alive }, Fence(2)));
        assert_eq!(store.workers().await.unwrap().iter().map(|it| it.key).collect::<Vec<_>>(), [alive]);
    }

    async fn a_process_that_is_alone_takes_over_everything(store) {
        let (me, other) = (store.worker("me", 900).await, store.worker("other", 900).await);
        let ghost = WorkerKey(9_999);
        for (n, worker) in [me, other, ghost].into_iter().enumerate() {
            store.due(&format!("r-{n}")).await;
            store.claim(worker, &knows(&["order v1"]), 1, at(20)).await.unwrap();
        }
        assert_eq!(store.take_over_all(Some(me), at(30)).await.unwrap(), 2);
        assert_eq!(store.workers().await.unwrap().iter().map(|it| it.key).collect::<Vec<_>>(), [me]);
        assert_eq!(store.take_over_all(None, at(30)).await.unwrap(), 1);
        assert_eq!(store.workers().await.unwrap(), []);
        assert_eq!(store.claim(me, &knows(&["order v1"]), 9, at(30)).await.unwrap().len(), 3);
    }

    async fn a_worker_that_goes_gives_its_runs_back(store) {
        let worker = store.worker("a", 900).await;
        let held = store.due("r-1").await;
        store.claim(worker, &knows(&["order v1"]), 1, at(20)).await.unwrap();
        let mut hints = store.hints();
        assert_eq!(store.release(worker, at(30)).await.unwrap(), 1);
        let row = store.row(held.run).await;
        assert_eq!((row.status, row.fence), (Status::Due { at: at(30) }, Fence(3)));
        assert_eq!(store.workers().await.unwrap(), []);
        assert!(hints.recv().await.is_some());
    }

    async fn due_runs_that_no_live_worker_knows_are_blocked_in_words(store) {
        let held = store.due("r-1").await;
        assert_eq!(store.block_unknown("b1", at(20)).await.unwrap(), 1);
        let Status::Blocked { reason: BlockReason::Unregistered(text) } = store.row(held.run).await.status else {
            panic!("not blocked")
        };
        insta::assert_snapshot!(text, @"no worker here knows workflow order v1; registered: none");
        assert_eq!(store.row(held.run).await.fence, Fence(2));
    }

    async fn the_sentence_names_what_is_registered(store) {
        let held = store.due("r-1").await;
        for (name, known, until) in [("a", ["report v1", "audit v2"], 900), ("dead", ["order v1", "x v1"], 10)] {
            let worker = Registration {
                name: name.into(),
                build: "b1".into(),
                knows: knows(&known),
                now: at(0),
                lease_until: at(until),
            };
            store.register(worker).await.unwrap();
        }
        let ended = store.watch_outcome(held.run).await;
        assert_eq!(store.block_unknown("b1", at(20)).await.unwrap(), 1);
        ended.await.unwrap();
        let Status::Blocked { reason } = store.row(held.run).await.status else { panic!("not blocked") };
        insta::assert_snapshot!(reason, @"no worker here knows workflow order v1; registered: audit v2, report v1");
    }

    async fn known_running_and_later_runs_are_not_blocked(store) {
        store.worker("a", 900).await;
        store.due("r-1").await;
        store.begun("r-2").await;
        store.waiting("r-3").await;
        let later = store.begun("r-4").await;
        store.applied(later.leaves(Leaves::Due { at: at(500) })).await;
        assert_eq!(store.block_unknown("b1", at(20)).await.unwrap(), 0);
        assert_eq!(store.block_unknown("b1", at(901)).await.unwrap(), 2);
    }

    async fn another_build_unblocks_what_it_knows(store) {
        let (mine, other) = (store.begun("r-1").await, store.begun("r-2").await);
        let blocked = |build: &str| Leaves::Blocked {
            reason: BlockReason::Mismatch("oh".into()),
            build: build.into(),
        };
        store.applied(mine.leaves(blocked("b1"))).await;
        store.applied(other.leaves(blocked("b2"))).await;
        assert_eq!(store.unblock("b2", &knows(&["order v2"]), at(30)).await.unwrap(), 0);
        let mut hints = store.hints();
        assert_eq!(store.unblock("b2", &knows(&["order v1"]), at(30)).await.unwrap(), 1);
        assert!(hints.recv().await.is_some());
        let row = store.row(mine.run).await;
        assert_eq!((row.status, row.fence), (Status::Due { at: at(30) }, Fence(2)));
        assert_eq!(store.row(other.run).await.status.word(), "blocked");
    }

    async fn what_a_worker_may_not_have_heard_is_read(store) {
        let (one, two) = (store.begun("r-1").await, store.begun("r-2").await);
        let waits = store.waiting("r-3").await;
        for (run, id) in [(&one, "s-1"), (&two, "s-2"), (&one, "s-3"), (&waits, "s-4")] {
            store.accepted(signal(run, "go", id)).await;
        }
        let heard = store.overheard(ME).await.unwrap();
        let heard: Vec<_> =
            heard.iter().map(|(run, all)| (*run, all.iter().map(|it| it.id.as_str()).collect::<Vec<_>>())).collect();
        assert_eq!(heard, [(one.run, vec!["s-1", "s-3"]), (two.run, vec!["s-2"])]);
        assert!(store.overheard(WorkerKey(2)).await.unwrap().is_empty());
    }

    async fn the_databases_clock_is_near_this_machines(store) {
        let offset = store.clock_offset().await.unwrap();
        assert!(offset.abs() < 60_000, "{offset}");
        if store.is_sqlite() {
            assert_eq!(offset, 0);
        }
    }
}

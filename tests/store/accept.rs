use aldis::clock::Instant;
use aldis::id::{Namespace, RunKey};
use aldis::run::{Closed, Status};
use aldis::signal::{Accepted, CancelRequest, Pending, SignalKind};
use aldis::store::{Addressee, Arrival, Commit, Leaves};

use crate::support::*;

each_store! {
    async fn an_accepted_signal_is_pending_at_its_run(store) {
        let held = store.waiting("r-1").await;
        let (run, accepted) = store.accept(signal(&held, "go", "s-1")).await.unwrap().unwrap();
        assert_eq!((run, accepted), (held.run, Accepted::New { ordinal: 1 }));
        let past = store.past(held.run).await;
        assert_eq!((past.run.signals_accepted, past.run.signals_pending), (1, 1));
        let pending = Pending {
            ordinal: 1,
            kind: SignalKind::Signal,
            name: "go".into(),
            id: "s-1".into(),
            payload: json("true"),
            accepted_at: at(50),
        };
        assert_eq!(past.pending, [pending]);
    }

    async fn a_signal_makes_a_waiting_run_due(store) {
        let held = store.waiting("r-1").await;
        store.accepted(signal(&held, "go", "s-1")).await;
        assert_eq!(store.row(held.run).await.status, Status::Due { at: at(50) });
    }

    async fn a_signal_makes_a_run_with_a_timer_due_at_the_earlier_of_both(store) {
        for (timer, due) in [(40, 40), (60, 50)] {
            let held = store.begun(&format!("r-{timer}")).await;
            store.applied(held.leaves(Leaves::Waiting { wake_at: Some(at(timer)) })).await;
            store.accepted(signal(&held, "go", "s-1")).await;
            assert_eq!(store.row(held.run).await.status, Status::Due { at: at(due) });
        }
    }

    async fn a_signal_leaves_a_running_run_with_its_owner(store) {
        let held = store.begun("r-1").await;
        store.accepted(signal(&held, "go", "s-1")).await;
        let row = store.row(held.run).await;
        assert_eq!(row.status, Status::Running { worker: ME });
        assert_eq!((row.fence, row.head), (held.fence, held.head));
    }

    async fn a_signal_does_not_start_a_run_before_its_time(store) {
        let held = store.begun("r-1").await;
        store.applied(held.leaves(Leaves::Due { at: at(900) })).await;
        store.accepted(signal(&held, "go", "s-1")).await;
        assert_eq!(store.row(held.run).await.status, Status::Due { at: at(900) });
    }

    async fn the_same_id_is_accepted_once(store) {
        let held = store.begun("r-1").await;
        assert_eq!(store.accepted(signal(&held, "go", "s-1")).await, Accepted::New { ordinal: 1 });
        assert_eq!(store.accepted(signal(&held, "go", "s-2")).await, Accepted::New { ordinal: 2 });
        assert_eq!(store.accepted(signal(&held, "go", "s-1")).await, Accepted::Already { ordinal: 1 });
        assert_eq!(store.row(held.run).await.signals_accepted, 2);
    }

    async fn an_id_is_known_after_its_signal_was_taken_and_the_run_has_ended(store) {
        let held = store.begun("r-1").await;
        let place = store.accepted(signal(&held, "go", "s-1")).await.ordinal();
        let held = store.applied(Commit { taken: vec![place], ..held.adds([finished("1")]) }).await;
        assert_eq!(store.accepted(signal(&held, "go", "s-1")).await, Accepted::Already { ordinal: 1 });
        store.applied(held.completes()).await;
        assert_eq!(store.accepted(signal(&held, "go", "s-1")).await, Accepted::Already { ordinal: 1 });
    }

    async fn two_runs_may_be_sent_the_same_id(store) {
        let (one, two) = (store.begun("r-1").await, store.begun("r-2").await);
        assert_eq!(store.accepted(signal(&one, "go", "s-1")).await, Accepted::New { ordinal: 1 });
        assert_eq!(store.accepted(signal(&two, "go", "s-1")).await, Accepted::New { ordinal: 1 });
    }

    async fn a_signal_by_id_reaches_the_latest_run(store) {
        let first = store.begun("r-1").await;
        store.applied(first.completes()).await;
        let second = store.begun("r-1").await;
        let to = Addressee::Id(Namespace::default(), id("r-1"));
        let (run, _) = store.accept(Arrival { to, ..signal(&first, "go", "s-1") }).await.unwrap().unwrap();
        assert_eq!(run, second.run);
    }

    async fn an_unknown_run_is_refused_in_words(store) {
        let held = store.begun("r-1").await;
        let to = Addressee::Id(Namespace::default(), id("r-9"));
        let refused = store.accept(Arrival { to, ..signal(&held, "go", "s-1") }).await.unwrap().unwrap_err();
        insta::assert_snapshot!(refused, @"no run r-9 here; see `aldis runs`");
        let to = Addressee::Key(RunKey(9_999_999));
        let refused = store.accept(Arrival { to, ..signal(&held, "go", "s-1") }).await.unwrap().unwrap_err();
        insta::assert_snapshot!(refused, @"no run #9999999 here; see `aldis runs`");
        let elsewhere = Addressee::Id(Namespace::parse("tenant-2").unwrap(), id("r-1"));
        let refused = store.accept(Arrival { to: elsewhere, ..signal(&held, "go", "s-1") }).await.unwrap().unwrap_err();
        insta::assert_snapshot!(refused, @"no run r-1 here; see `aldis runs`");
    }

    async fn a_run_that_has_ended_takes_no_more(store) {
        let held = store.begun("r-1").await;
        store.applied(Commit { leaves: Leaves::Closed(Closed::Failed), ..held.completes() }).await;
        let to = Addressee::Id(Namespace::default(), id("r-1"));
        let refused = store.accept(Arrival { to, ..signal(&held, "go", "s-1") }).await.unwrap().unwrap_err();
        insta::assert_snapshot!(refused, @"run r-1 is failed and takes no more signals");
        assert_eq!(store.row(held.run).await.signals_accepted, 0);
    }

    async fn too_many_pending_are_refused_until_some_are_taken(store) {
        let held = store.begun("r-1").await;
        let limited = |id: &str| Arrival {
            pending_max: 2,
            to: Addressee::Id(Namespace::default(), aldis::id::RunId::parse("r-1").unwrap()),
            ..signal(&held, "go", id)
        };
        store.accepted(limited("s-1")).await;
        let second = store.accepted(limited("s-2")).await;
        let refused = store.accept(limited("s-3")).await.unwrap().unwrap_err();
        insta::assert_snapshot!(refused, @"run r-1 has 2 signals pending, the limit is 2; send it again once some were taken");
        // What was accepted before is no addition.
        assert_eq!(store.accepted(limited("s-2")).await, Accepted::Already { ordinal: 2 });
        store.applied(Commit { taken: vec![second.ordinal()], ..held.adds([finished("1")]) }).await;
        assert_eq!(store.accepted(limited("s-3")).await, Accepted::New { ordinal: 3 });
    }

    async fn signals_sent_together_keep_to_the_limit_and_have_places_of_their_own(store) {
        let held = store.begun("r-1").await;
        let sent = (0..40).map(|n| {
            let store = (**store).clone();
            let arrival = Arrival { pending_max: 25, ..signal(&held, "go", &format!("s-{n}")) };
            tokio::spawn(async move { store.accept(arrival).await.unwrap() })
        });
        let mut places = Vec::new();
        for sent in sent.collect::<Vec<_>>() {
            if let Ok((_, accepted)) = sent.await.unwrap() {
                places.push(accepted.ordinal());
            }
        }
        places.sort_unstable();
        assert_eq!(places, (1..=25).collect::<Vec<_>>());
        let past = store.past(held.run).await;
        assert_eq!((past.run.signals_accepted, past.run.signals_pending), (25, 25));
        assert_eq!(past.pending.iter().map(|it| it.ordinal).collect::<Vec<_>>(), places);
    }

    async fn one_id_sent_twice_at_once_by_key_and_by_name_is_accepted_once(store) {
        for n in 0..10 {
            let held = store.begun(&format!("r-{n}")).await;
            let by_key = signal(&held, "go", "s-1");
            let by_id = Arrival { to: Addressee::Id(Namespace::default(), held.id.clone()), ..by_key.clone() };
            let (one, two) = tokio::join!(store.accepted(by_key), store.accepted(by_id));
            let mut both = [one, two];
            both.sort_by_key(|accepted| matches!(accepted, Accepted::Already { .. }));
            assert_eq!(both, [Accepted::New { ordinal: 1 }, Accepted::Already { ordinal: 1 }]);
            assert_eq!(store.row(held.run).await.signals_pending, 1);
        }
    }

    async fn kinds_and_payloads_survive(store) {
        let held = store.begun("r-1").await;
        let cancel = aldis::payload::Payload::of(&CancelRequest { reason: "☃ \"x\"".into(), by: "me".into() }).unwrap();
        for (kind, payload) in
            [(SignalKind::Signal, json("[1,2]")), (SignalKind::Update, json("null")), (SignalKind::Cancel, cancel)]
        {
            store.accepted(Arrival { kind, payload, ..signal(&held, "a b", kind.word()) }).await;
        }
        let pending = store.past(held.run).await.pending;
        let kinds: Vec<_> = pending.iter().map(|it| (it.kind, it.payload.as_str())).collect();
        assert_eq!(
            kinds,
            [
                (SignalKind::Signal, "[1,2]"),
                (SignalKind::Update, "null"),
                (SignalKind::Cancel, r#"{"reason":"☃ \"x\"","by":"me"}"#),
            ]
        );
    }

    async fn a_signal_and_the_commit_that_waits_for_it_never_miss_each_other(store) {
        for n in 0..20 {
            let held = store.begun(&format!("r-{n}")).await;
            let waits = held.leaves(Leaves::Waiting { wake_at: None });
            let (accepted, _) = tokio::join!(store.accepted(signal(&held, "go", "s")), store.applied(waits));
            assert_eq!(accepted, Accepted::New { ordinal: 1 });
            let Status::Due { at: Instant(10 | 50) } = store.row(held.run).await.status else {
                panic!("the run sleeps through its signal")
            };
        }
    }
}

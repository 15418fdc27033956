use std::time::Duration;

use aldis::id::{Fence, Namespace, RunKey};
use aldis::journal::Event;
use aldis::run::{Closed, IdempotencyKey, IfClosed, IfOpen, KeyKept, Status};
use aldis::store::{Arrival, CallerTx, Commit, Leaves, Refusal, Start, Started, Verdict};
use sqlx::Connection as _;

use crate::support::*;

fn key(key: &str, kept: KeyKept) -> Option<IdempotencyKey> {
    Some(IdempotencyKey { key: key.into(), kept })
}

each_store! {
    async fn keys_are_handed_out_once(store) {
        let elsewhere = store.elsewhere().await;
        let (one, two) = (store.reserve_keys(10).await.unwrap(), elsewhere.reserve_keys(5).await.unwrap());
        assert_eq!((one.end - one.start, two.end - two.start), (10, 5));
        assert!(one.end <= two.start || two.end <= one.start);
        assert!(one.start > 0 && two.start > 0);
        elsewhere.close().await;
    }

    async fn a_start_writes_a_due_run(store) {
        let start = store.a_start("r-1").await;
        let run = start.commit.run;
        assert_eq!(store.start(start).await.unwrap(), Ok((run, Started::New)));
        let past = store.past(run).await;
        assert_eq!(past.run.status, Status::Due { at: at(10) });
        assert_eq!(past.journal.len(), 1);
        assert_eq!(store.stats().arrivals, 1);
        assert_eq!(store.stats().logical_commits, 0);
    }

    async fn many_starts_have_their_own_answers(store) {
        let mut starts = Vec::new();
        for n in 0..50 {
            starts.push(store.a_start(&format!("r-{}", n % 40)).await);
        }
        let answers = store.start_many(starts.clone()).await.unwrap();
        assert_eq!(answers.len(), 50);
        for (n, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok((run, Started::New)) => assert_eq!((run, n < 40), (starts[n].commit.run, true)),
                other => assert_eq!((other.unwrap_err().to_string().contains("is open (due)"), n >= 40), (true, true)),
            }
        }
        assert_eq!(store.all().await.len(), 40);
    }

    async fn an_open_runs_id_is_refused_in_words(store) {
        store.waiting("r-1").await;
        let refused = store.start(store.a_start("r-1").await).await.unwrap().unwrap_err();
        insta::assert_snapshot!(refused, @"run r-1 is open (waiting); choose another id, or ask to use the existing run");
        let looked = Start { if_closed: IfClosed::Refuse, ..store.a_start("r-1").await };
        assert_eq!(store.start(looked).await.unwrap().unwrap_err(), refused);
    }

    async fn an_id_of_another_namespace_is_free(store) {
        store.waiting("r-1").await;
        let mut start = store.a_start("r-1").await;
        if let Some(new) = &mut start.commit.begins {
            new.namespace = Namespace::parse("tenant-2").unwrap();
        }
        assert!(matches!(store.start(start).await.unwrap(), Ok((_, Started::New))));
    }

    async fn a_start_may_use_the_open_run(store) {
        let held = store.waiting("r-1").await;
        let start = Start { if_open: IfOpen::UseExisting, ..store.a_start("r-1").await };
        assert_eq!(store.start(start).await.unwrap(), Ok((held.run, Started::Existing(held.run))));
        assert_eq!(store.all().await, [held.run]);
    }

    async fn a_start_that_would_use_an_open_run_begins_one_if_there_is_none(store) {
        let start = Start { if_open: IfOpen::UseExisting, ..store.a_start("r-1").await };
        let run = start.commit.run;
        assert_eq!(store.start(start).await.unwrap(), Ok((run, Started::New)));
        assert_eq!(store.row(run).await.status, Status::Due { at: at(10) });
    }

    async fn a_start_may_signal_the_open_run(store) {
        let held = store.waiting("r-1").await;
        let start = Start {
            if_open: IfOpen::SignalExisting,
            signals: vec![signal(&held, "go", "s-1"), signal(&held, "go", "s-2")],
            ..store.a_start("r-1").await
        };
        for _ in 0..2 {
            assert_eq!(store.start(start.clone()).await.unwrap(), Ok((held.run, Started::Existing(held.run))));
        }
        let past = store.past(held.run).await;
        assert_eq!(past.pending.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["s-1", "s-2"]);
        assert_eq!(past.run.status, Status::Due { at: at(50) });
    }

    async fn a_new_run_gets_the_signals_of_its_start(store) {
        let mut start = store.a_start("r-1").await;
        let held = Held { run: RunKey(0), id: id("r-1"), fence: Fence(1), head: aldis::id::Seq(1), seen: 0 };
        start.signals = vec![signal(&held, "go", "s-1")];
        let (run, started) = store.start(start).await.unwrap().unwrap();
        assert_eq!(started, Started::New);
        let past = store.past(run).await;
        assert_eq!(past.pending[0].id, "s-1");
        assert_eq!(past.run.signals_accepted, 1);
    }

    async fn a_start_whose_signals_do_not_fit_writes_nothing(store) {
        let held = store.waiting("r-1").await;
        store.accepted(signal(&held, "go", "s-0")).await;
        let full = |id: &str| Arrival { pending_max: 2, ..signal(&held, "go", id) };
        let start = Start {
            if_open: IfOpen::SignalExisting,
            signals: vec![full("s-1"), full("s-2")],
            ..store.a_start("r-1").await
        };
        let refused = store.start(start).await.unwrap().unwrap_err();
        insta::assert_snapshot!(refused, @"run r-1 has 1 signals pending, the limit is 2; send it again once some were taken");
        assert_eq!(store.row(held.run).await.signals_accepted, 1);
    }

    async fn a_start_may_end_the_open_run_and_begin_anew(store) {
        let old = store.begun("r-1").await;
        let start = Start { if_open: IfOpen::TerminateAndStart, by: "ops".into(), ..store.a_start("r-1").await };
        let (run, started) = store.start(start).await.unwrap().unwrap();
        assert_eq!(started, Started::New);
        let past = store.past(old.run).await;
        assert_eq!(past.run.status, Status::Closed { how: Closed::Terminated, at: at(10) });
        let Event::RunTerminated(last) = &past.journal[1].event else { panic!("no last line") };
        insta::assert_snapshot!(format!("{} (by {})", last.reason, last.by), @"another run was started under its id (by ops)");
        let fenced = Refusal::Fenced { ours: Fence(1), theirs: Fence(2) };
        assert_eq!(store.verdict(old.adds([finished("1")])).await, Verdict::Refused(fenced));
        assert_eq!(store.find(&Namespace::default(), &id("r-1")).await.unwrap().unwrap().key, run);
    }

    async fn a_closed_runs_id_is_used_again_if_the_policy_allows(store) {
        for (how, policy, allowed) in [
            (Closed::Completed, IfClosed::Allow, true),
            (Closed::Completed, IfClosed::AllowIfFailed, false),
            (Closed::Failed, IfClosed::AllowIfFailed, true),
            (Closed::Cancelled, IfClosed::AllowIfFailed, true),
            (Closed::Terminated, IfClosed::AllowIfFailed, true),
            (Closed::Failed, IfClosed::Refuse, false),
        ] {
            let name = format!("{}-{policy:?}", how.word());
            let held = store.begun(&name).await;
            store.applied(Commit { leaves: Leaves::Closed(how), ..held.completes() }).await;
            let start = Start { if_closed: policy, ..store.a_start(&name).await };
            assert_eq!(store.start(start).await.unwrap().is_ok(), allowed, "{name}");
        }
        let start = Start { if_closed: IfClosed::Refuse, ..store.a_start("failed-Refuse").await };
        let refused = store.start(start).await.unwrap().unwrap_err();
        insta::assert_snapshot!(refused, @"run failed-Refuse has ended (failed) and the start asks not to begin it again; choose another id, or another policy");
    }

    async fn a_repeat_with_the_same_key_returns_the_first_run(store) {
        let kept = KeyKept::For(Duration::from_millis(100));
        let first = Start { idempotency_key: key("k-1", kept), ..store.a_start("r-1").await };
        let run = first.commit.run;
        assert_eq!(store.start(first).await.unwrap(), Ok((run, Started::New)));
        let repeat = Start { idempotency_key: key("k-1", kept), ..store.a_start("r-2").await };
        assert_eq!(store.start(repeat.clone()).await.unwrap(), Ok((run, Started::Existing(run))));
        // Also once the first run has ended.
        let held = Held::of(&store.row(run).await);
        store.applied(held.completes()).await;
        assert_eq!(store.start(repeat).await.unwrap(), Ok((run, Started::Existing(run))));
        assert_eq!(store.all().await, [run]);
    }

    async fn a_key_counts_until_it_expires(store) {
        let kept = KeyKept::For(Duration::from_millis(100));
        let first = Start { idempotency_key: key("k-1", kept), ..store.a_start("r-1").await };
        store.start(first).await.unwrap().unwrap();
        let mut later = Start { idempotency_key: key("k-1", kept), ..store.a_start("r-2").await };
        later.commit.at = at(110);
        let run = later.commit.run;
        assert_eq!(store.start(later).await.unwrap(), Ok((run, Started::New)));
        let mut repeat = Start { idempotency_key: key("k-1", kept), ..store.a_start("r-3").await };
        repeat.commit.at = at(209);
        assert_eq!(store.start(repeat).await.unwrap(), Ok((run, Started::Existing(run))));
    }

    async fn a_key_kept_while_open_ends_with_its_run(store) {
        let start = |start: Start| Start { idempotency_key: key("k-1", KeyKept::WhileOpen), ..start };
        let first = start(store.a_start("r-1").await);
        let run = first.commit.run;
        store.start(first).await.unwrap().unwrap();
        let repeat = start(store.a_start("r-2").await);
        assert_eq!(store.start(repeat.clone()).await.unwrap(), Ok((run, Started::Existing(run))));
        store.applied(Held::of(&store.row(run).await).completes()).await;
        assert_eq!(store.start(repeat.clone()).await.unwrap(), Ok((repeat.commit.run, Started::New)));
    }

    async fn keys_of_two_namespaces_are_apart(store) {
        let kept = KeyKept::For(Duration::from_secs(1));
        let one = Start { idempotency_key: key("k-1", kept), ..store.a_start("r-1").await };
        let mut two = Start { idempotency_key: key("k-1", kept), ..store.a_start("r-1").await };
        if let Some(new) = &mut two.commit.begins {
            new.namespace = Namespace::parse("tenant-2").unwrap();
        }
        assert!(matches!(store.start(one).await.unwrap(), Ok((_, Started::New))));
        assert!(matches!(store.start(two).await.unwrap(), Ok((_, Started::New))));
    }

    async fn starts_with_one_key_sent_together_begin_one_run(store) {
        let mut sent = Vec::new();
        for n in 0..16 {
            let kept = KeyKept::For(Duration::from_secs(1));
            let start = Start { idempotency_key: key("k-1", kept), ..store.a_start(&format!("r-{n}")).await };
            let store = (**store).clone();
            sent.push(tokio::spawn(async move { store.start(start).await.unwrap().unwrap() }));
        }
        let mut runs = Vec::new();
        for sent in sent {
            runs.push(sent.await.unwrap().0);
        }
        runs.dedup();
        assert_eq!(runs, store.all().await);
    }

    async fn starts_of_one_id_from_two_processes_begin_one_run(store) {
        let elsewhere = store.elsewhere().await;
        for n in 0..10 {
            let name = format!("r-{n}");
            let start = |start: Start| Start { if_open: IfOpen::UseExisting, ..start };
            let (here, there) = (start(store.a_start(&name).await), start(store.a_start(&name).await));
            let (here, there) = tokio::join!(store.start(here), elsewhere.start(there));
            assert_eq!(here.unwrap().unwrap().0, there.unwrap().unwrap().0);
        }
        assert_eq!(store.all().await.len(), 10);
        elsewhere.close().await;
    }

    async fn a_start_in_the_callers_transaction_exists_if_that_commits(store) {
        let (dropped, kept) = (store.a_start("r-1").await, store.a_start("r-2").await);
        let run = kept.commit.run;
        if store.is_sqlite() {
            let mut connection = sqlx::SqliteConnection::connect(store.url()).await.unwrap();
            let mut tx = connection.begin_with("begin immediate").await.unwrap();
            store.start_in(CallerTx::Sqlite(&mut tx), dropped).await.unwrap().unwrap();
            tx.rollback().await.unwrap();
            let mut tx = connection.begin_with("begin immediate").await.unwrap();
            let started = store.start_in(CallerTx::Sqlite(&mut tx), kept).await.unwrap();
            assert_eq!(started, Ok((run, Started::New)));
            tx.commit().await.unwrap();
        } else {
            let mut connection = sqlx::PgConnection::connect(store.url()).await.unwrap();
            let mut tx = connection.begin().await.unwrap();
            store.start_in(CallerTx::Postgres(&mut tx), dropped).await.unwrap().unwrap();
            tx.rollback().await.unwrap();
            let mut tx = connection.begin().await.unwrap();
            let started = store.start_in(CallerTx::Postgres(&mut tx), kept).await.unwrap();
            assert_eq!(started, Ok((run, Started::New)));
            tx.commit().await.unwrap();
        }
        assert_eq!(store.all().await, [run]);
        assert_eq!(store.past(run).await.journal.len(), 1);
    }
}

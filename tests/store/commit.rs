use aldis::id::{Fence, Seq, WorkerKey};
use aldis::run::{BlockReason, Closed, Status};
use aldis::signal::SignalKind;
use aldis::store::{Arrival, Chunk, Commit, Leaves, Preconditions, Refusal, Verdict};

use crate::support::*;

each_store! {
    async fn a_commit_that_begins_a_run_writes_row_and_lines(store) {
        let held = store.begun("r-1").await;
        let past = store.past(held.run).await;
        assert_eq!(past.run.id, id("r-1"));
        assert_eq!(past.run.workflow, "order");
        assert_eq!(past.run.version, 1);
        assert_eq!(past.run.status, Status::Running { worker: ME });
        assert_eq!((past.run.fence, past.run.head), (Fence::FIRST, Seq(1)));
        assert_eq!((past.run.created_at, past.run.updated_at), (at(10), at(10)));
        assert_eq!(past.journal[0].seq, Seq(1));
        assert_eq!(past.journal[0].at, at(10));
        assert_eq!(past.journal[0].event, started("r-1"));
    }

    async fn lines_follow_the_head_without_gaps(store) {
        let held = store.begun("r-1").await;
        let held = store.applied(held.adds([finished("1"), finished("2")])).await;
        store.applied(held.adds([finished("3")])).await;
        let past = store.past(held.run).await;
        assert_eq!(past.journal.iter().map(|line| line.seq.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(past.journal[3].event, finished("3"));
        assert_eq!(past.run.head, Seq(4));
    }

    async fn a_commit_with_an_old_fence_is_refused(store) {
        let held = store.due("r-1").await;
        let theirs = store.claim(WorkerKey(2), &knows(&["order v1"]), 9, at(20)).await.unwrap();
        assert_eq!(theirs[0].fence, Fence(2));
        let Verdict::Refused(refusal) = store.verdict(held.adds([finished("1")])).await else { panic!("applied") };
        insta::assert_snapshot!(refusal, @"run is held under fence 2, this commit carries fence 1");
        assert_eq!(store.past(held.run).await.journal.len(), 1);
    }

    async fn a_commit_that_builds_on_another_head_is_refused(store) {
        let held = store.begun("r-1").await;
        store.applied(held.adds([finished("1")])).await;
        let Verdict::Refused(refusal) = store.verdict(held.adds([finished("1")])).await else { panic!("applied") };
        insta::assert_snapshot!(refusal, @"the journal ends at line 2, this commit builds on line 1");
    }

    async fn a_commit_of_no_run_is_refused(store) {
        let held = store.begun("r-1").await;
        let nowhere = Commit { run: aldis::id::RunKey(9_999_999), ..held.adds([finished("1")]) };
        assert_eq!(store.verdict(nowhere).await, Verdict::Refused(Refusal::Gone));
    }

    async fn nothing_follows_the_last_line(store) {
        let held = store.begun("r-1").await;
        let ended = store.applied(held.completes()).await;
        assert_eq!(store.verdict(ended.adds([finished("9")])).await, Verdict::Refused(Refusal::Gone));
        assert_eq!(store.past(held.run).await.journal.len(), 2);
    }

    async fn a_refused_commit_does_not_hurt_its_neighbours(store) {
        let (one, two, three) = (store.begun("r-1").await, store.begun("r-2").await, store.begun("r-3").await);
        let stale = Commit { fence: Fence(0), ..two.adds([finished("1")]) };
        let verdicts =
            store.commit(vec![one.adds([finished("1")]), stale, three.adds([finished("1")])]).await.unwrap();
        let fenced = Refusal::Fenced { ours: Fence(0), theirs: Fence(1) };
        assert_eq!(verdicts, [Verdict::Applied, Verdict::Refused(fenced), Verdict::Applied]);
        assert_eq!(store.row(one.run).await.head, Seq(2));
        assert_eq!(store.row(two.run).await.head, Seq(1));
        assert_eq!(store.row(three.run).await.head, Seq(2));
    }

    async fn of_two_values_published_under_one_name_in_one_commit_the_later_stays(store) {
        let held = store.begun("r-1").await;
        let published = vec![("a".into(), json("1")), ("a".into(), json("2"))];
        store.applied(Commit { published, ..held.adds([finished("1")]) }).await;
        assert_eq!(store.published(held.run, "a").await.unwrap(), Some(json("2")));
    }

    async fn a_second_run_may_not_begin_under_an_open_runs_id(store) {
        let first = store.begun("r-1").await;
        let second = beginning(new_run(store.key().await, "r-1"));
        assert_eq!(store.verdict(second).await, Verdict::Refused(Refusal::IdInUse));
        assert_eq!(store.all().await, [first.run]);
    }

    async fn of_two_runs_that_begin_under_one_id_together_one_is_refused(store) {
        let keys = store.reserve_keys(2).await.unwrap();
        let both = keys.map(|key| beginning(new_run(key, "r-1"))).collect();
        let mut verdicts = store.commit(both).await.unwrap();
        verdicts.sort_by_key(|verdict| *verdict != Verdict::Applied);
        assert_eq!(verdicts, [Verdict::Applied, Verdict::Refused(Refusal::IdInUse)]);
        assert_eq!(store.all().await.len(), 1);
    }

    async fn a_closed_runs_id_may_be_begun_again_and_names_the_latest(store) {
        let first = store.begun("r-1").await;
        store.applied(first.completes()).await;
        let second = store.begun("r-1").await;
        let found = store.find(&Default::default(), &id("r-1")).await.unwrap().unwrap();
        assert_eq!(found.key, second.run);
        assert_eq!(store.row(first.run).await.status.word(), "completed");
    }

    async fn a_run_left_waiting_has_no_owner_and_its_timer(store) {
        let held = store.begun("r-1").await;
        store.applied(held.leaves(Leaves::Waiting { wake_at: Some(at(900)) })).await;
        assert_eq!(store.row(held.run).await.status, Status::Waiting { wake_at: Some(at(900)) });
        store.applied(held.leaves(Leaves::Waiting { wake_at: None })).await;
        assert_eq!(store.row(held.run).await.status, Status::Waiting { wake_at: None });
    }

    async fn a_run_goes_on_from_waiting_under_the_same_fence(store) {
        let held = store.waiting("r-1").await;
        let held = store.applied(held.adds([finished("1")])).await;
        assert_eq!(store.row(held.run).await.status, Status::Running { worker: ME });
        assert_eq!(held.fence, Fence::FIRST);
    }

    async fn a_run_left_blocked_says_why(store) {
        let held = store.begun("r-1").await;
        let reason = BlockReason::Mismatch("the journal holds step \"a\"".into());
        store.applied(held.leaves(Leaves::Blocked { reason: reason.clone(), build: "b1".into() })).await;
        assert_eq!(store.row(held.run).await.status, Status::Blocked { reason });
    }

    async fn a_run_left_closed_says_how_and_when(store) {
        for how in [Closed::Completed, Closed::Failed, Closed::Cancelled, Closed::Terminated] {
            let held = store.begun(how.word()).await;
            store.applied(Commit { leaves: Leaves::Closed(how), ..held.completes() }).await;
            assert_eq!(store.row(held.run).await.status, Status::Closed { how, at: at(10) });
        }
    }

    async fn a_run_may_begin_and_end_in_one_commit(store) {
        let begins = beginning(new_run(store.key().await, "r-1"));
        let whole = Commit {
            lines: lines(10, [started("r-1"), completed()]),
            leaves: Leaves::Closed(Closed::Completed),
            ..begins
        };
        store.applied(whole.clone()).await;
        let past = store.past(whole.run).await;
        assert_eq!(past.run.status, Status::Closed { how: Closed::Completed, at: at(10) });
        assert_eq!(past.journal.len(), 2);
    }

    async fn a_run_that_would_wait_with_an_unseen_signal_is_left_due(store) {
        let held = store.begun("r-1").await;
        store.accepted(signal(&held, "go", "s-1")).await;
        store.applied(held.leaves(Leaves::Waiting { wake_at: None })).await;
        assert_eq!(store.row(held.run).await.status, Status::Due { at: at(10) });
    }

    async fn a_run_waits_with_a_signal_that_its_owner_has_seen(store) {
        let held = store.begun("r-1").await;
        let accepted = store.accepted(signal(&held, "other", "s-1")).await;
        let seen = Held { seen: accepted.ordinal(), ..held };
        store.applied(seen.leaves(Leaves::Waiting { wake_at: None })).await;
        assert_eq!(store.row(seen.run).await.status, Status::Waiting { wake_at: None });
    }

    async fn a_commit_that_wants_the_run_drained_is_refused_after_a_signal(store) {
        let held = store.begun("r-1").await;
        store.accepted(signal(&held, "go", "s-1")).await;
        let drained = Commit { preconditions: Preconditions { drained: true }, ..held.completes() };
        let Verdict::Refused(refusal) = store.verdict(drained.clone()).await else { panic!("applied") };
        insta::assert_snapshot!(refusal, @"1 signals were accepted, this commit has seen 0");
        store.applied(Commit { signals_seen: 1, ..drained }).await;
    }

    async fn a_signal_and_a_drained_commit_sent_together_never_both_succeed(store) {
        for n in 0..20 {
            let held = store.begun(&format!("r-{n}")).await;
            let drained = Commit { preconditions: Preconditions { drained: true }, ..held.completes() };
            let (accepted, verdict) = tokio::join!(store.accept(signal(&held, "go", "s")), store.verdict(drained));
            assert_eq!(accepted.unwrap().is_ok(), verdict != Verdict::Applied);
        }
    }

    async fn taken_signals_are_pending_no_more(store) {
        let held = store.begun("r-1").await;
        let first = store.accepted(signal(&held, "go", "s-1")).await;
        store.accepted(Arrival { kind: SignalKind::Update, ..signal(&held, "ask", "s-2") }).await;
        assert_eq!(store.row(held.run).await.signals_pending, 2);
        let takes = Commit { taken: vec![first.ordinal()], signals_seen: 2, ..held.adds([finished("1")]) };
        store.applied(takes).await;
        let past = store.past(held.run).await;
        assert_eq!(past.run.signals_pending, 1);
        assert_eq!(past.run.signals_accepted, 2);
        assert_eq!(past.pending.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["s-2"]);
    }

    async fn a_refused_commit_takes_publishes_and_answers_nothing(store) {
        let held = store.begun("r-1").await;
        let place = store.accepted(signal(&held, "go", "s-1")).await;
        let stale = Commit {
            head: Seq(7),
            taken: vec![place.ordinal()],
            published: vec![("progress".into(), json("1"))],
            replies: vec![("u-1".into(), json("1"))],
            chunks: vec![Chunk { stream: "out".into(), part: "code".into(), value: json("1") }],
            ..held.adds([finished("1")])
        };
        assert_ne!(store.verdict(stale).await, Verdict::Applied);
        assert_eq!(store.past(held.run).await.pending.len(), 1);
        assert_eq!(store.published(held.run, "progress").await.unwrap(), None);
        assert_eq!(store.reply(held.run, "u-1").await.unwrap(), None);
        assert_eq!(store.read_stream(held.run, "out", 0, 9).await.unwrap(), []);
    }

    async fn a_published_value_replaces_the_one_before(store) {
        let held = store.begun("r-1").await;
        let held = store.applied(Commit { published: vec![("p".into(), json("1"))], ..held.adds([]) }).await;
        store.applied(Commit { published: vec![("p".into(), json(r#"{"n":2}"#))], ..held.adds([]) }).await;
        assert_eq!(store.published(held.run, "p").await.unwrap(), Some(json(r#"{"n":2}"#)));
        assert_eq!(store.published(held.run, "q").await.unwrap(), None);
    }

    async fn the_first_reply_to_an_update_stays(store) {
        let held = store.begun("r-1").await;
        let held = store.applied(Commit { replies: vec![("u-1".into(), json("1"))], ..held.adds([]) }).await;
        store.applied(Commit { replies: vec![("u-1".into(), json("2"))], ..held.adds([]) }).await;
        assert_eq!(store.reply(held.run, "u-1").await.unwrap(), Some(json("1")));
    }

    async fn many_commits_of_many_tasks_are_gathered(store) {
        let mut held = Vec::new();
        for n in 0..32 {
            held.push(store.begun(&format!("r-{n}")).await);
        }
        let before = store.stats();
        let tasks = held.into_iter().map(|held| {
            let store = (**store).clone();
            tokio::spawn(async move {
                let mut held = held;
                for n in 0..20 {
                    let commit = held.adds([finished(&n.to_string())]);
                    assert_eq!(store.verdict(commit.clone()).await, Verdict::Applied);
                    held = held.after(&commit);
                }
                held
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            let held = task.await.unwrap();
            assert_eq!(store.past(held.run).await.journal.len(), 21);
        }
        let after = store.stats();
        assert_eq!(after.logical_commits - before.logical_commits, 640);
        assert!(after.physical_commits - before.physical_commits < 640);
    }

    async fn text_of_any_kind_survives(store) {
        let nasty = "quote \" backslash \\ newline \n tab \t snowman ☃ {}[],";
        let held = store.begun("r-☃").await;
        let value = aldis::payload::Payload::of(nasty).unwrap();
        let commit = Commit { published: vec![(nasty.into(), value.clone())], ..held.adds([finished(nasty)]) };
        store.applied(commit).await;
        assert_eq!(store.published(held.run, nasty).await.unwrap(), Some(value));
        assert_eq!(store.past(held.run).await.journal[1].event, finished(nasty));
    }

    async fn a_large_batch_of_large_lines_survives(store) {
        let held = store.begun("r-1").await;
        let big = aldis::payload::Payload::of(&"x".repeat(1_000_000)).unwrap();
        let event = aldis::journal::StepFinished { op: aldis::id::OpId::new("1"), output: big };
        store.applied(held.adds((0..8).map(|_| event.clone().into()))).await;
        let past = store.past(held.run).await;
        assert_eq!(past.journal.len(), 9);
        assert_eq!(past.journal[8].event, event.into());
    }
}

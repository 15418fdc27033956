use aldis::id::{RunKey, Seq};
use aldis::store::{Commit, Error};
use sqlx::Connection as _;

use crate::support::*;

each_store! {
    async fn histories_come_in_the_order_asked(store) {
        let (one, two) = (store.begun("r-1").await, store.begun("r-2").await);
        store.applied(two.adds([finished("1")])).await;
        let both = store.history(&[two.run, one.run]).await.unwrap();
        let both: Vec<_> = both.into_iter().map(|history| history.unwrap()).collect();
        assert_eq!((both[0].run.key, both[0].journal.len()), (two.run, 2));
        assert_eq!((both[1].run.key, both[1].journal.len()), (one.run, 1));
    }

    async fn no_runs_have_no_history(store) {
        assert!(store.history(&[]).await.unwrap().is_empty());
    }

    async fn a_missing_run_is_corrupt(store) {
        let error = store.history(&[RunKey(9_999_999)]).await.unwrap_err();
        insta::assert_snapshot!(error, @"the store holds something impossible: no run 9999999");
    }

    async fn a_long_journal_comes_whole_and_in_order(store) {
        let mut held = store.begun("r-1").await;
        for chunk in 0..6 {
            let events = (0..251).map(|n| finished(&format!("{chunk}/{n}")));
            held = store.applied(held.adds(events)).await;
        }
        let past = store.past(held.run).await;
        assert_eq!(past.journal.len(), 1_507);
        for (line, seq) in past.journal.iter().zip(1..) {
            assert_eq!(line.seq, Seq(seq));
        }
        assert_eq!(past.journal[1].event, finished("0/0"));
        assert_eq!(past.journal[1_506].event, finished("5/250"));
    }

    async fn untaken_signals_come_in_the_order_of_acceptance(store) {
        let held = store.begun("r-1").await;
        for n in 0..10 {
            store.accepted(signal(&held, "go", &format!("s-{}", 9 - n))).await;
        }
        store.applied(Commit { taken: vec![2, 4], ..held.adds([finished("1")]) }).await;
        let ordinals: Vec<_> = store.past(held.run).await.pending.iter().map(|it| it.ordinal).collect();
        assert_eq!(ordinals, [1, 3, 5, 6, 7, 8, 9, 10]);
    }

    async fn a_line_that_this_build_cannot_read_makes_only_its_own_run_unreadable(store) {
        let (good, bad) = (store.begun("r-1").await, store.begun("r-2").await);
        store.applied(bad.adds([finished("1")])).await;
        tamper(store, &format!("update journal set kind = 'StepImagined' where run = {} and seq = 2", bad.run)).await;
        let mut both = store.history(&[good.run, bad.run]).await.unwrap();
        let unreadable = both.remove(1).unwrap_err();
        assert_eq!(unreadable.run.key, bad.run);
        insta::assert_snapshot!(unreadable, @r#"journal line 2 of kind "StepImagined", version 1, cannot be read: this build does not know the kind; a build that knows this form can go on"#);
        assert_eq!(both.remove(0).unwrap().journal.len(), 1);
    }

    async fn a_journal_with_a_gap_is_corrupt(store) {
        let held = store.begun("r-1").await;
        store.applied(held.adds([finished("1"), finished("2")])).await;
        tamper(store, &format!("delete from journal where run = {} and seq = 2", held.run)).await;
        let Err(Error::Corrupt { found }) = store.history(&[held.run]).await else { panic!("read") };
        assert_eq!(found, format!("run {} has 2 journal lines and its row says 3", held.run));
    }

    async fn a_history_is_of_one_moment(store) {
        let mut held = store.begun("r-1").await;
        let writer = {
            let store = (**store).clone();
            tokio::spawn(async move {
                for n in 0..100 {
                    let commit = held.adds([finished(&n.to_string()), finished("again")]);
                    held = store.applied(commit).await;
                }
            })
        };
        let run = store.all().await[0];
        while !writer.is_finished() {
            let past = store.past(run).await;
            assert_eq!(past.run.head.0, past.journal.len() as i64);
        }
        writer.await.unwrap();
    }
}

/// Changes the database behind the store's back.
async fn tamper(store: &Fresh, statement: &str) {
    let statement = sqlx::AssertSqlSafe(statement.to_owned());
    if store.is_sqlite() {
        let mut connection = sqlx::SqliteConnection::connect(store.url()).await.unwrap();
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    } else {
        let mut connection = sqlx::PgConnection::connect(store.url()).await.unwrap();
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    }
}

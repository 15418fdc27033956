use std::time::Duration;

use aldis::id::Seq;
use aldis::store::{Refusal, Store, Transacted};
use aldis::transaction::Tx;

use crate::support::*;

const LONG: Duration = Duration::from_secs(30);

/// A write of the body's own.
async fn note(tx: &mut Tx, text: &str) {
    if let Some(connection) = tx.sqlite() {
        sqlx::query("insert into notes (text) values ($1)").bind(text).execute(connection).await.unwrap();
    } else if let Some(connection) = tx.postgres() {
        sqlx::query("insert into notes (text) values ($1)").bind(text).execute(connection).await.unwrap();
    }
}

/// All that bodies have written and that was kept.
async fn notes(store: &Store) -> Vec<String> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let read = store.transact(LONG, async move |mut tx| {
        let all: Vec<String> = if let Some(connection) = tx.sqlite() {
            sqlx::query_scalar("select text from notes order by text").fetch_all(connection).await.unwrap()
        } else if let Some(connection) = tx.postgres() {
            sqlx::query_scalar("select text from notes order by text").fetch_all(connection).await.unwrap()
        } else {
            Vec::new()
        };
        tell.send(all).unwrap();
        Err(())
    });
    assert!(matches!(read.await.unwrap(), Transacted::Aborted(())));
    told.await.unwrap()
}

async fn with_notes(store: &Fresh) {
    use sqlx::{Connection as _, Executor as _};
    let table = "create table notes (text text not null)";
    if store.is_sqlite() {
        sqlx::SqliteConnection::connect(store.url()).await.unwrap().execute(table).await.unwrap();
    } else {
        sqlx::PgConnection::connect(store.url()).await.unwrap().execute(table).await.unwrap();
    }
}

each_store! {
    async fn a_bodys_writes_and_the_commit_are_durable_together(store) {
        with_notes(store).await;
        let held = store.begun("r-1").await;
        let commit = held.adds([finished("1")]);
        let before = store.stats();
        let done = store
            .transact(LONG, async move |mut tx| {
                note(&mut tx, "kept").await;
                Ok::<_, ()>(commit)
            })
            .await
            .unwrap();
        assert!(matches!(done, Transacted::Applied));
        assert_eq!(notes(store).await, ["kept"]);
        assert_eq!(store.row(held.run).await.head, Seq(2));
        let after = store.stats();
        assert_eq!(after.logical_commits - before.logical_commits, 1);
        assert_eq!(after.physical_commits - before.physical_commits, 1);
    }

    async fn a_refused_commit_takes_the_bodys_writes_with_it(store) {
        with_notes(store).await;
        let held = store.begun("r-1").await;
        store.applied(held.adds([finished("1")])).await;
        let stale = held.adds([finished("1")]);
        let done = store
            .transact(LONG, async move |mut tx| {
                note(&mut tx, "lost").await;
                Ok::<_, ()>(stale)
            })
            .await
            .unwrap();
        let Transacted::Refused(refusal) = done else { panic!("{done:?}") };
        assert_eq!(refusal, Refusal::Moved { expected: Seq(1), found: Seq(2) });
        assert_eq!(notes(store).await, [""; 0]);
    }

    async fn a_body_that_gives_up_leaves_nothing(store) {
        with_notes(store).await;
        let done = store
            .transact(LONG, async |mut tx| {
                note(&mut tx, "lost").await;
                Err("no stock")
            })
            .await
            .unwrap();
        let Transacted::Aborted(why) = done else { panic!("{done:?}") };
        assert_eq!(why, "no stock");
        assert_eq!(notes(store).await, [""; 0]);
    }

    async fn a_body_that_panics_leaves_nothing_and_the_writer_goes_on(store) {
        with_notes(store).await;
        let held = store.begun("r-1").await;
        let done = store
            .transact::<(), _, _>(LONG, async |mut tx| {
                note(&mut tx, "lost").await;
                panic!("no {}", "stock")
            })
            .await
            .unwrap();
        let Transacted::Panicked(words) = done else { panic!("{done:?}") };
        insta::assert_snapshot!(words, @"no stock");
        assert_eq!(notes(store).await, [""; 0]);
        store.applied(held.adds([finished("1")])).await;
    }

    async fn a_body_that_takes_too_long_leaves_nothing_and_the_writer_goes_on(store) {
        with_notes(store).await;
        let held = store.begun("r-1").await;
        let done = store
            .transact::<(), _, _>(Duration::from_millis(30), async |mut tx| {
                note(&mut tx, "lost").await;
                std::future::pending().await
            })
            .await
            .unwrap();
        assert!(matches!(done, Transacted::TimedOut));
        assert_eq!(notes(store).await, [""; 0]);
        store.applied(held.adds([finished("1")])).await;
    }

    async fn a_body_that_lends_its_transaction_on_does_not_hold_the_writer(store) {
        with_notes(store).await;
        let held = store.begun("r-1").await;
        let (keep, kept) = tokio::sync::oneshot::channel();
        let done = store
            .transact::<(), _, _>(Duration::from_millis(30), async move |mut tx| {
                note(&mut tx, "lost").await;
                let _ = keep.send(tx);
                std::future::pending().await
            })
            .await
            .unwrap();
        assert!(matches!(done, Transacted::TimedOut));
        drop(kept);
        assert_eq!(notes(store).await, [""; 0]);
        store.applied(held.adds([finished("1")])).await;
    }

    async fn commits_and_transactional_steps_take_turns(store) {
        with_notes(store).await;
        let mut tasks = Vec::new();
        for n in 0..10 {
            let (steps, commits) = (store.begun(&format!("s-{n}")).await, store.begun(&format!("c-{n}")).await);
            let store = (**store).clone();
            tasks.push(tokio::spawn(async move {
                let commit = steps.adds([finished("1")]);
                let text = n.to_string();
                let step = store.transact(LONG, async move |mut tx| {
                    note(&mut tx, &text).await;
                    Ok::<_, ()>(commit)
                });
                let (step, _) = tokio::join!(step, store.applied(commits.adds([finished("1")])));
                assert!(matches!(step.unwrap(), Transacted::Applied));
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(notes(store).await.len(), 10);
    }
}

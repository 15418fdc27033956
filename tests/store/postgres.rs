//! What only a server can do to a store: end its connections, and let several processes wait for each other.

use std::time::Duration;

use aldis::store::{Options, Store, Transacted, Verdict};
use sqlx::{Connection as _, PgConnection};

use crate::support::*;

/// Ends every connection of the stores on this database, whatever it is doing.
async fn end_connections(administrator: &mut PgConnection) {
    sqlx::query(
        "select pg_terminate_backend(pid)
         from pg_stat_activity
         where datname = current_database() and application_name = 'aldis'",
    )
    .execute(administrator)
    .await
    .unwrap();
}

/// One more line for a run, and one more signal: each once, whatever happens to the connection.
async fn step(store: Store, held: Held, round: usize) -> Held {
    let commit = held.adds([finished(&round.to_string())]);
    let (verdict, accepted) = tokio::join!(
        store.verdict(commit.clone()),
        store.accepted(signal(&held, "go", &format!("{}-{round}", held.id)))
    );
    assert_eq!(verdict, Verdict::Applied);
    assert_eq!(accepted.ordinal(), i64::try_from(round).unwrap());
    held.after(&commit)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_server_ends_lose_nothing_and_write_nothing_twice() {
    const ROUNDS: usize = 20;
    let store = Fresh::postgres().await;
    let mut administrator = PgConnection::connect(store.url()).await.unwrap();
    let shaken = store.elsewhere_with(Options { writers: 2, ..Options::default() }).await;
    let mut runs = Vec::new();
    for n in 0..10 {
        runs.push(store.begun(&format!("r-{n}")).await);
    }
    for round in 1..=ROUNDS {
        let steps: Vec<_> = runs.drain(..).map(|held| tokio::spawn(step(shaken.clone(), held, round))).collect();
        end_connections(&mut administrator).await;
        for step in steps {
            runs.push(step.await.unwrap());
        }
    }
    for held in runs {
        let past = store.past(held.run).await;
        assert_eq!(past.journal.len(), 1 + ROUNDS);
        assert_eq!(past.pending.len(), ROUNDS);
        assert_eq!(past.run.signals_pending, past.run.signals_accepted);
    }
    shaken.close().await;
    store.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_write_to_the_same_runs_do_not_wait_in_a_circle() {
    let store = Fresh::postgres().await;
    let processes = [
        store.elsewhere_with(Options { writers: 2, ..Options::default() }).await,
        store.elsewhere_with(Options { writers: 2, ..Options::default() }).await,
    ];
    let mut tasks = Vec::new();
    for n in 0..20 {
        let held = store.begun(&format!("r-{n}")).await;
        let (owner, other) = (processes[n % 2].clone(), processes[(n + 1) % 2].clone());
        let sent_to = held.clone();
        tasks.push(tokio::spawn(async move {
            let mut held = held;
            for round in 0..30 {
                let commit = held.adds([finished(&round.to_string())]);
                assert_eq!(owner.verdict(commit.clone()).await, Verdict::Applied);
                held = held.after(&commit);
            }
        }));
        tasks.push(tokio::spawn(async move {
            for round in 0..30 {
                other.accepted(signal(&sent_to, "go", &round.to_string())).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    // A server counts a connection's deadlocks at its end.
    for process in processes {
        process.close().await;
    }
    let mut administrator = PgConnection::connect(store.url()).await.unwrap();
    let deadlocks: i64 =
        sqlx::query_scalar("select deadlocks from pg_stat_database where datname = current_database()")
            .fetch_one(&mut administrator)
            .await
            .unwrap();
    assert_eq!(deadlocks, 0);
    store.remove().await;
}

#[tokio::test]
async fn the_body_of_a_transactional_step_gets_ordinary_plans() {
    let store = Fresh::postgres().await;
    let (tell, told) = tokio::sync::oneshot::channel();
    let looked = store.transact(Duration::from_secs(30), async move |mut tx| {
        let settings: Vec<String> = sqlx::query_scalar(
            "select setting from pg_settings where name like 'enable\\_%scan' or name = 'enable_nestloop'",
        )
        .fetch_all(tx.postgres().unwrap())
        .await
        .unwrap();
        tell.send(settings).unwrap();
        Err(())
    });
    assert!(matches!(looked.await.unwrap(), Transacted::Aborted(())));
    assert!(told.await.unwrap().iter().all(|setting| setting == "on"));
    store.remove().await;
}

use aldis::store::{Durability, Error, Kind, OpenError, Options, Schema, Store, Verdict};

use crate::support::*;

#[tokio::test]
async fn an_unknown_scheme_is_refused_in_words() {
    for (url, shown) in [("mysql://me:secret@host/db", "mysql://me@host/db"), ("runs.db", "runs.db")] {
        let refused = Store::open(url, Options::default()).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "{shown:?} is no store that this build can open; write sqlite://path/to/file.db or postgres://user@host/database"
            )
        );
    }
}

#[tokio::test]
async fn a_sqlite_store_needs_a_file() {
    let refused = Store::open("sqlite::memory:", Options::default()).await.unwrap_err();
    insta::assert_snapshot!(refused, @r#"the address "sqlite::memory:" cannot be understood: a store needs a file; write sqlite://path/to/file.db"#);
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_says_where() {
    let refused = Store::open("sqlite:///no/such/directory/runs.db", Options::default()).await.unwrap_err();
    insta::assert_snapshot!(refused, @"the store at sqlite:///no/such/directory/runs.db cannot be reached");
    let refused = Store::open("postgres://me:secret@127.0.0.1:1/db", Options::default()).await.unwrap_err();
    assert!(matches!(refused, OpenError::Unreachable { .. }));
    insta::assert_snapshot!(refused, @"the store at postgres://me@127.0.0.1:1/db cannot be reached");
}

#[tokio::test]
async fn eight_processes_that_open_a_new_file_together_all_succeed() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", directory.path().join("runs.db").display());
    let opened = (0..8).map(|_| {
        let url = url.clone();
        tokio::spawn(async move { Store::open(&url, Options::default()).await })
    });
    for opened in opened.collect::<Vec<_>>() {
        opened.await.unwrap().unwrap().close().await;
    }
}

each_store! {
    async fn a_store_says_what_and_where_it_is(store) {
        if store.is_sqlite() {
            assert_eq!(store.kind(), Kind::Sqlite);
            assert_eq!(store.location(), store.url());
        } else {
            assert_eq!(store.kind(), Kind::Postgres);
            assert!(store.location().starts_with("postgres://"));
        }
        assert!(format!("{store:?}", store = **store).starts_with("Store { kind: "));
    }

    async fn a_fresh_store_has_the_newest_schema(store) {
        let Schema { applied, known } = store.schema().await.unwrap();
        assert_eq!(applied, known);
        assert!(known >= 1);
    }

    async fn what_was_acknowledged_is_there_after_the_store_is_opened_again(store) {
        let held = store.begun("r-1").await;
        store.close().await;
        let again = store.elsewhere().await;
        assert_eq!(again.past(held.run).await.journal.len(), 1);
        again.close().await;
    }

    async fn closing_lets_the_writer_finish(store) {
        let mut held = Vec::new();
        for n in 0..20 {
            held.push(store.begun(&format!("r-{n}")).await);
        }
        let commits = held.iter().map(|held| held.adds([finished("1")])).collect();
        let (verdicts, ()) = tokio::join!(biased; store.commit(commits), store.close());
        assert_eq!(verdicts.unwrap(), vec![Verdict::Applied; 20]);
    }

    async fn a_closed_store_says_so(store) {
        let held = store.begun("r-1").await;
        store.close().await;
        store.close().await;
        assert!(matches!(store.commit(vec![held.adds([])]).await, Err(Error::Closed)));
        assert!(matches!(store.accept(signal(&held, "go", "s")).await, Err(Error::Closed)));
        assert!(matches!(store.get(held.run).await, Err(Error::Closed)));
        let refused = store.claim(ME, &knows(&["order v1"]), 9, at(1)).await.unwrap_err();
        insta::assert_snapshot!(refused, @"the store is closed");
    }

    async fn the_engine_of_a_sqlite_store_is_one_process(store) {
        let elsewhere = store.elsewhere().await;
        let lease = store.engine_lease().await.unwrap().unwrap();
        if store.is_sqlite() {
            assert!(elsewhere.engine_lease().await.unwrap().is_none());
            let standby = tokio::spawn(async move { elsewhere.engine_lease_when_free().await.unwrap() });
            drop(lease);
            drop(standby.await.unwrap());
        } else {
            assert!(elsewhere.engine_lease().await.unwrap().is_some());
        }
    }

    async fn a_store_that_a_newer_build_has_migrated_is_refused_in_words(store) {
        newer(store).await;
        let refused = Store::open(store.url(), Options::default()).await.unwrap_err();
        let OpenError::TooNew { applied: 999, known, location } = &refused else { panic!("{refused}") };
        assert_eq!(
            refused.to_string(),
            format!("the store at {location} has schema 999, this build knows schemas up to {known}; use a newer build")
        );
    }

    async fn a_store_without_a_schema_is_not_changed_unasked(store) {
        older(store).await;
        let refused = Store::open(store.url(), Options { migrate: false, ..Options::default() }).await.unwrap_err();
        let OpenError::NotMigrated { applied: 0, known, location } = &refused else { panic!("{refused}") };
        assert_eq!(
            refused.to_string(),
            format!(
                "the store at {location} has schema 0, this build needs {known}; open it with migrations, or run `aldis migrate`"
            )
        );
    }

    async fn a_store_opened_without_migrations_works_if_it_is_up_to_date(store) {
        let options = Options { migrate: false, durability: Durability::Normal, readers: 1, ..Options::default() };
        let elsewhere = store.elsewhere_with(options).await;
        elsewhere.begun("r-1").await;
        elsewhere.close().await;
    }

    async fn a_queue_of_one_place_serves_everybody(store) {
        let narrow = store.elsewhere_with(Options { queue_max: 1, batch_max: 1, ..Options::default() }).await;
        let mut tasks = Vec::new();
        for n in 0..20 {
            let held = store.begun(&format!("r-{n}")).await;
            let narrow = narrow.clone();
            tasks.push(tokio::spawn(async move { narrow.applied(held.adds([finished("1")])).await }));
        }
        for task in tasks {
            assert_eq!(task.await.unwrap().head.0, 2);
        }
        narrow.close().await;
    }
}

async fn newer(store: &Fresh) {
    administer(
        store,
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (999, 'of tomorrow', true, '', 1)",
    )
    .await;
}

async fn older(store: &Fresh) {
    administer(store, "drop table _sqlx_migrations").await;
}

async fn administer(store: &Fresh, statement: &'static str) {
    use sqlx::{Connection as _, Executor as _};
    if store.is_sqlite() {
        sqlx::SqliteConnection::connect(store.url()).await.unwrap().execute(statement).await.unwrap();
    } else {
        sqlx::PgConnection::connect(store.url()).await.unwrap().execute(statement).await.unwrap();
    }
}

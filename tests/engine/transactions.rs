//! Transactional steps: what a body writes into the store's own database is there exactly once, with its result.

use aldis::store::Kind;
use aldis::testing::{Crash, TestKit};
use aldis::transaction::Tx;
use aldis::{Context, Failure, Outcome, Step, Workflow};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::support::kit;

const BOOK: Step<u32, i64> = Step::new("book").attempts(2);
const NOTE: Step<i64, i64> = Step::new("note");

/// Books so many amounts in the user's own table, each in a transactional step.
fn bookkeeper() -> Workflow {
    Workflow::new("bookkeeper", |cx: Context, amounts: Vec<u32>| async move {
        let mut total = 0;
        for amount in amounts {
            total = cx.transact(&BOOK, amount, |_, tx, amount| book(tx, amount)).await?;
            cx.step(&NOTE, total, |_, total| async move { Ok::<_, Failure>(total) }).await?;
        }
        Ok::<_, Failure>(total)
    })
}

/// Fails on its first attempt after it has written.
fn clumsy() -> Workflow {
    Workflow::new("clumsy", |cx: Context, amount: u32| async move {
        let booked = cx.transact(&BOOK, amount, |cx, tx, amount| {
            async move {
                let total = book(tx, amount).await?;
                match (cx.attempt(), amount) {
                    (1, 13) => panic!("thirteen"),
                    (1, _) => Err(Failure::new("changed my mind")),
                    _ => Ok(total),
                }
            }
            .boxed()
        });
        booked.await.map_err(Failure::from)
    })
}

fn book(tx: &mut Tx, amount: u32) -> BoxFuture<'_, Result<i64, Failure>> {
    async move {
        if let Some(connection) = tx.sqlite() {
            sqlx::query("insert into bookings (amount) values (?)").bind(amount).execute(&mut *connection).await?;
            return Ok(sqlx::query_scalar("select sum(amount) from bookings").fetch_one(connection).await?);
        }
        let connection = tx.postgres().ok_or_else(|| Failure::new("no connection"))?;
        sqlx::query("insert into bookings (amount) values ($1)")
            .bind(i64::from(amount))
            .execute(&mut *connection)
            .await?;
        Ok(sqlx::query_scalar("select sum(amount)::bigint from bookings").fetch_one(connection).await?)
    }
    .boxed()
}

/// Runs a statement on the kit's database, as the user's own code would.
async fn with(kit: &TestKit, statement: &'static str) -> Vec<i64> {
    use sqlx::{Connection as _, Row as _};
    match kit.database().kind() {
        Kind::Sqlite => {
            let mut connection = sqlx::SqliteConnection::connect(kit.database().url()).await.unwrap();
            let rows = sqlx::query(statement).fetch_all(&mut connection).await.unwrap();
            rows.iter().map(|row| row.get(0)).collect()
        }
        Kind::Postgres => {
            let mut connection = sqlx::PgConnection::connect(kit.database().url()).await.unwrap();
            let rows = sqlx::query(statement).fetch_all(&mut connection).await.unwrap();
            rows.iter().map(|row| row.get(0)).collect()
        }
    }
}

const TABLE: &str = "create table if not exists bookings (amount bigint not null)";
const AMOUNTS: &str = "select amount from bookings order by amount";

each_store! {
    async fn what_a_transactional_step_writes_is_there_exactly_once_through_every_crash(kind) {
        let survived = Crash::of(|_| kit(kind).workflow(bookkeeper()))
            .survives(async |world| {
                world.ask(async |kit| Ok(with(kit, TABLE).await)).await?;
                world.start("r", "bookkeeper", &[3, 5]).await?;
                let total: i64 = world.output("r").await?;
                Ok((total, world.ask(async |kit| Ok(with(kit, AMOUNTS).await)).await?))
            })
            .await?;
        assert_eq!(survived.value, (8, vec![3, 5]));
    }

    async fn what_a_failed_attempt_wrote_is_rolled_back(kind) {
        let kit = kit(kind).workflow(clumsy()).start().await?;
        with(&kit, TABLE).await;
        for (amount, booked) in [(4, vec![4]), (13, vec![4, 13])] {
            let run = kit.run("clumsy", &amount).await?;
            let ended = kit.run_to_end(&run).await?;
            assert_eq!(ended.outcome, Outcome::Completed(aldis::payload::Payload::of(&booked.iter().sum::<i64>()).unwrap()));
            assert_eq!(with(&kit, AMOUNTS).await, booked);
        }
        kit.finish().await?;
    }

    async fn a_transactional_step_costs_one_commit(kind) {
        let kit = kit(kind).workflow(bookkeeper()).start().await?;
        with(&kit, TABLE).await;
        let before = kit.store().stats().logical_commits;
        let run = kit.run("bookkeeper", &[1, 2, 3]).await?;
        kit.run_to_end(&run).await?;
        // The start, and a commit for each of three transactional steps and of three others.
        assert_eq!(kit.store().stats().logical_commits - before, 7);
        kit.finish().await?;
    }
}

//! Starts: one per id and per key, as the policies say; later, many at once, or in the caller's own transaction.

use aldis::payload::Payload;
use aldis::run::{IdempotencyKey, IfClosed, IfOpen, KeyKept, StartOptions};
use aldis::runtime::Start;
use aldis::store::{CallerTx, Filter, Kind, Started};
use aldis::testing::Crash;
use aldis::{Context, Failure, Signal, Step, StepContext, Workflow};

use crate::support::{code, id, kit, secs};

const WORD: Signal<String> = Signal::new("word");
const NOTE: Step<String, String> = Step::new("note");

/// Waits for a word; fails if it is "fail".
fn waiter() -> Workflow {
    Workflow::new("waiter", |cx: Context, n: u32| async move {
        let word = cx.signal(&WORD).await?;
        if word == "fail" { Err(Failure::new("as told")) } else { Ok(format!("{n} {word}")) }
    })
    .signal(&WORD)
}

/// One step, at once.
fn quick() -> Workflow {
    Workflow::new("quick", |cx: Context, text: String| async move {
        cx.step(&NOTE, text, |_, text| async move { Ok::<_, Failure>(text) }).await.map_err(Failure::from)
    })
}

fn named(name: &str) -> StartOptions {
    StartOptions { id: Some(id(name)), ..StartOptions::default() }
}

fn word(text: &str) -> Vec<(String, Option<String>, Payload)> {
    vec![("word".into(), Some(text.into()), Payload::of(text).unwrap())]
}

each_store! {
    async fn an_id_belongs_to_one_open_run(kind) {
        let kit = kit(kind).workflow(waiter()).start().await?;
        let one = Payload::of(&1).unwrap();
        let (first, started) = kit.start("waiter", one.clone(), named("r")).await?;
        assert_eq!(started, Started::New);
        kit.settle().await?;
        let refused = kit.start("waiter", one.clone(), named("r")).await.unwrap_err();
        says!(refused.to_string(), @"run r is open (waiting); choose another id, or ask to use the existing run");
        assert_eq!(code(&refused), "run_open");

        let (same, started) = kit.start("waiter", one.clone(), StartOptions { if_open: IfOpen::UseExisting, ..named("r") }).await?;
        assert_eq!((same.key(), started), (first.key(), Started::Existing(first.key())));

        let signalling = StartOptions { if_open: IfOpen::SignalExisting, signals: word("hello"), ..named("r") };
        let (same, _) = kit.start("waiter", Payload::of(&2).unwrap(), signalling).await?;
        assert_eq!(same.key(), first.key());
        let ended = kit.run_to_end(&first).await?;
        assert_eq!(format!("{:?}", ended.outcome), r#"Completed("1 hello")"#);
        kit.finish().await?;
    }

    async fn a_run_that_makes_way_is_terminated_with_the_start_of_the_other(kind) {
        let kit = kit(kind).workflow(waiter()).start().await?;
        let first = kit.run_as("r", "waiter", &1).await?;
        kit.settle().await?;
        let options = StartOptions { if_open: IfOpen::TerminateAndStart, signals: word("hello"), ..named("r") };
        let (second, started) = kit.start("waiter", Payload::of(&2).unwrap(), options).await?;
        assert_eq!(started, Started::New);
        assert_ne!(second.key(), first.key());
        let ended = kit.run_to_end(&second).await?;
        assert_eq!(format!("{:?}", ended.outcome), r#"Completed("2 hello")"#);
        assert_eq!(first.row().await?.status.word(), "terminated");
        kit.finish().await?;
    }

    async fn a_run_that_makes_way_is_told_to_stop_what_it_does(kind) {
        let (tells, mut told) = tokio::sync::mpsc::unbounded_channel();
        let busy = Workflow::new("busy", move |cx: Context, text: String| {
            let tells = tells.clone();
            let body = move |step: StepContext, text: String| {
                let tells = tells.clone();
                async move {
                    if text == "first" {
                        tells.send("begun").expect("somebody listens");
                        step.cancelled().cancelled().await;
                        tells.send("stopped").expect("somebody listens");
                    }
                    Ok::<_, Failure>(text)
                }
            };
            async move { cx.step(&NOTE, text, body).await.map_err(Failure::from) }
        });
        let kit = kit(kind).workflow(busy).start().await?;
        kit.run_as("r", "busy", "first").await?;
        assert_eq!(told.recv().await, Some("begun"));
        let options = StartOptions { if_open: IfOpen::TerminateAndStart, ..named("r") };
        let (second, _) = kit.start("busy", Payload::of("second").unwrap(), options).await?;
        assert_eq!(told.recv().await, Some("stopped"));
        assert_eq!(kit.run_to_end(&second).await?.signals_unread, 0);
        kit.finish().await?;
    }

    async fn what_becomes_of_the_id_of_a_closed_run_is_the_callers_to_say(kind) {
        let kit = kit(kind).workflow(waiter()).start().await?;
        let one = || Payload::of(&1).unwrap();
        let failing = StartOptions { signals: word("fail"), ..named("r") };
        let (first, _) = kit.start("waiter", one(), failing).await?;
        kit.run_to_end(&first).await?;
        let refused = kit.start("waiter", one(), StartOptions { if_closed: IfClosed::Refuse, ..named("r") }).await.unwrap_err();
        says!(refused.to_string(), @"run r has ended (failed) and the start asks not to begin it again; choose another id, or another policy");
        assert_eq!(code(&refused), "run_closed");
        let again = StartOptions { if_closed: IfClosed::AllowIfFailed, signals: word("well"), ..named("r") };
        let (second, _) = kit.start("waiter", one(), again.clone()).await?;
        kit.run_to_end(&second).await?;
        let refused = kit.start("waiter", one(), again).await.unwrap_err();
        assert_eq!(code(&refused), "run_closed");
        let (third, started) = kit.start("waiter", one(), named("r")).await?;
        assert_eq!(started, Started::New);
        assert_eq!(kit.find("r").await?.key(), third.key());
        kit.finish().await?;
    }

    async fn an_idempotency_key_starts_one_run_while_it_is_kept(kind) {
        let kit = kit(kind).workflow(quick()).start().await?;
        let keyed = |kept| StartOptions {
            idempotency_key: Some(IdempotencyKey { key: "order-7".into(), kept }),
            ..StartOptions::default()
        };
        let text = || Payload::of("once").unwrap();
        let (first, _) = kit.start("quick", text(), keyed(KeyKept::For(secs(60)))).await?;
        kit.run_to_end(&first).await?;
        let (again, started) = kit.start("quick", text(), keyed(KeyKept::For(secs(60)))).await?;
        assert_eq!((again.key(), started), (first.key(), Started::Existing(first.key())));
        kit.advance(secs(61)).await?;
        let (later, started) = kit.start("quick", text(), keyed(KeyKept::WhileOpen)).await?;
        assert_eq!(started, Started::New);
        kit.run_to_end(&later).await?;
        let (last, started) = kit.start("quick", text(), keyed(KeyKept::WhileOpen)).await?;
        assert_eq!(started, Started::New);
        kit.run_to_end(&last).await?;
        kit.finish().await?;
    }

    async fn a_start_with_everything_survives_every_crash(kind) {
        let survived = Crash::of(|_| kit(kind).workflow(waiter()))
            .survives(async |world| {
                let options = StartOptions {
                    not_before: Some(world.now() + secs(60)),
                    idempotency_key: Some(IdempotencyKey { key: "k".into(), kept: KeyKept::For(secs(600)) }),
                    signals: word("hello"),
                    ..named("r")
                };
                world.start_with("waiter", &7, options).await?;
                world.output::<String>("r").await
            })
            .await?;
        assert_eq!(survived.value, "7 hello");
        assert_eq!(survived.runs.len(), 1);
    }

    async fn a_run_does_not_begin_before_its_time(kind) {
        let kit = kit(kind).workflow(quick()).start().await?;
        let begin = kit.now();
        let options = StartOptions { not_before: Some(begin + secs(3_600)), ..StartOptions::default() };
        let (run, _) = kit.start("quick", Payload::of("later").unwrap(), options).await?;
        kit.advance(secs(3_599)).await?;
        assert_eq!(run.row().await?.status.word(), "due");
        kit.run_to_end(&run).await?;
        assert_eq!(kit.now().since(begin), secs(3_600));
        kit.finish().await?;
    }

    async fn many_starts_are_answered_one_by_one(kind) {
        let kit = kit(kind).workflow(quick()).start().await?;
        let taken = kit.run_as("n3", "quick", "first").await?;
        kit.run_to_end(&taken).await?;
        let starts = (0..50).map(|n| Start {
            workflow: "quick".into(),
            input: Payload::of(&format!("{n}")).unwrap(),
            options: StartOptions { if_closed: IfClosed::Refuse, ..named(&format!("n{n}")) },
        });
        let before = kit.store().stats().physical_writes;
        let answers = kit.start_many(starts.collect()).await?;
        assert!(kit.store().stats().physical_writes - before < 25, "one write each");
        let refused: Vec<_> = answers.iter().enumerate().filter(|(_, answer)| answer.is_err()).map(|(n, _)| n).collect();
        assert_eq!(refused, [3]);
        kit.run_to_rest().await?;
        let ended = kit.list(&Filter { statuses: vec!["completed".into()], ..Filter::default() }, 100).await?;
        assert_eq!(ended.len(), 50);
        kit.finish().await?;
    }

    async fn a_start_in_the_callers_transaction_is_there_if_that_commits(kind) {
        let kit = kit(kind).workflow(quick()).start().await?;
        for commits in [false, true] {
            let (run, started) = in_transaction(&kit, kind, commits).await?;
            assert_eq!(started, Started::New);
            kit.engine().nudge();
            kit.settle().await?;
            match kit.find(run.as_str()).await {
                Ok(found) => {
                    assert!(commits, "it was rolled back");
                    kit.run_to_end(&found).await?;
                }
                Err(error) => assert_eq!((commits, code(&error)), (false, "run_unknown")),
            }
        }
        kit.finish().await?;
    }

    async fn an_unknown_workflow_and_an_unfit_input_are_refused_in_words(kind) {
        let kit = kit(kind).workflow(quick()).workflow(waiter()).start().await?;
        let unknown = kit.run("quik", "x").await.unwrap_err();
        says!(unknown.to_string(), @r#"no workflow named "quik" is registered; registered: quick v1, waiter v1"#);
        let unfit = kit.run("waiter", "x").await.unwrap_err();
        says!(unfit.to_string(), @r#"the input of workflow "waiter" does not match its schema: the value: value is not of type "integer""#);
        assert_eq!(kit.list(&Filter::default(), 10).await?.len(), 0);
        kit.finish().await?;
    }
}

async fn in_transaction(
    kit: &aldis::testing::TestKit,
    kind: Kind,
    commits: bool,
) -> Result<(aldis::id::RunId, Started), aldis::testing::Error> {
    use sqlx::Connection as _;
    let (options, text) = (StartOptions::default(), Payload::of("mine").unwrap());
    match kind {
        Kind::Sqlite => {
            let mut connection = sqlx::SqliteConnection::connect(kit.database().url()).await.unwrap();
            let mut tx = connection.begin().await.unwrap();
            let started = kit.start_in(CallerTx::Sqlite(&mut tx), "quick", text, options).await?;
            if commits {
                tx.commit().await.unwrap()
            } else {
                tx.rollback().await.unwrap()
            }
            Ok(started)
        }
        Kind::Postgres => {
            let mut connection = sqlx::PgConnection::connect(kit.database().url()).await.unwrap();
            let mut tx = connection.begin().await.unwrap();
            let started = kit.start_in(CallerTx::Postgres(&mut tx), "quick", text, options).await?;
            if commits {
                tx.commit().await.unwrap()
            } else {
                tx.rollback().await.unwrap()
            }
            Ok(started)
        }
    }
}

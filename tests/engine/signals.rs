//! Signals: kept until taken, in the order of acceptance, each once, and never lost at the end of a run.

use aldis::intake::Limits;
use aldis::signal::Accepted;
use aldis::testing::{Crash, history};
use aldis::{Context, Failure, Signal, Step, Workflow};

use crate::support::{code, kit, secs};

const WORD: Signal<String> = Signal::new("word");
const WORK: Step<Vec<String>, usize> = Step::new("work");

/// Takes `n` words, one at a time.
fn listener() -> Workflow {
    Workflow::new("listener", |cx: Context, n: usize| async move {
        let mut words = Vec::new();
        for _ in 0..n {
            words.push(cx.signal(&WORD).await?);
        }
        Ok::<_, Failure>(words)
    })
    .signal(&WORD)
}

/// Takes batches until one of them holds "stop"; does a step for each.
fn batcher() -> Workflow {
    Workflow::new("batcher", |cx: Context, (): ()| async move {
        let mut batches = Vec::new();
        loop {
            let batch = cx.signals_batch(&WORD).await?;
            let stop = batch.iter().any(|word| word == "stop");
            cx.step(&WORK, batch.clone(), |_, batch| async move { Ok::<_, Failure>(batch.len()) }).await?;
            batches.push(batch);
            if stop {
                return Ok::<_, Failure>(batches);
            }
        }
    })
}

/// Takes what has come, sleeps, and goes on until nothing has come.
fn drainer() -> Workflow {
    Workflow::new("drainer", |cx: Context, (): ()| async move {
        let mut words = vec![cx.signal(&WORD).await?];
        while let Some(word) = cx.try_signal(&WORD).await? {
            words.push(word);
        }
        Ok::<_, Failure>(words)
    })
}

/// Sleeps a day before it listens.
fn late_riser() -> Workflow {
    Workflow::new("late_riser", |cx: Context, (): ()| async move {
        cx.sleep(secs(86_400)).await?;
        cx.signal(&WORD).await.map_err(Failure::from)
    })
}

each_store! {
    async fn signals_are_taken_in_the_order_of_their_acceptance_through_every_crash(kind) {
        let survived = Crash::of(|_| kit(kind).workflow(listener()))
            .survives(async |world| {
                world.start("r", "listener", &3).await?;
                // One before it waits, two while it waits.
                world.signal("r", "a", &WORD, &"one".into()).await?;
                world.settle().await?;
                world.signal("r", "b", &WORD, &"two".into()).await?;
                world.signal("r", "c", &WORD, &"three".into()).await?;
                // A repeat is the same signal.
                world.signal("r", "b", &WORD, &"two".into()).await.ok();
                world.output::<Vec<String>>("r").await
            })
            .await?;
        assert_eq!(survived.value, ["one", "two", "three"]);
    }

    async fn each_signal_is_in_exactly_one_batch(kind) {
        let survived = Crash::of(|_| kit(kind).workflow(batcher()))
            .whatever_is_recorded()
            .survives(async |world| {
                world.start("r", "batcher", &()).await?;
                for n in 0..4 {
                    world.signal("r", &format!("s{n}"), &WORD, &format!("word {n}")).await?;
                }
                world.settle().await?;
                world.signal("r", "s4", &WORD, &"stop".into()).await?;
                // How they fall into batches depends on who was faster; that each is in one does not.
                world.end("r").await?;
                world.ask(async |kit| {
                    let found = kit.find("r").await?.history().await?;
                    let ids: Vec<String> = (0..5).map(|n| format!("s{n}")).collect();
                    Ok((history::acknowledged(&found, &ids), history::taken_ids(&found.journal)))
                }).await
            })
            .await?;
        let taken = ["s0", "s1", "s2", "s3", "s4"].map(String::from);
        assert_eq!(survived.value, (Vec::new(), taken.into()));
    }

    async fn signals_that_wait_are_one_batch(kind) {
        let kit = kit(kind).workflow(batcher()).start().await?;
        let options = aldis::run::StartOptions {
            signals: ["a", "b", "stop"].map(|word| ("word".to_owned(), None, aldis::payload::Payload::of(word).unwrap())).into(),
            ..Default::default()
        };
        let (run, _) = kit.start("batcher", aldis::payload::Payload::null(), options).await?;
        let ended = kit.run_to_end(&run).await?;
        assert_eq!(format!("{:?}", ended.outcome), r#"Completed([["a","b","stop"]])"#);
        assert_journal!("signals_that_wait_are_one_batch", kit.journal(&run).await?);
        kit.finish().await?;
    }

    async fn a_run_that_looks_and_then_ends_leaves_no_signal_behind(kind) {
        // Signals race the end of the run: each is either taken by it or refused, never accepted and lost.
        let kit = kit(kind).workflow(drainer()).start().await?;
        for round in 0..10 {
            let run = kit.run_as(&format!("r{round}"), "drainer", &()).await?;
            let mut accepted = Vec::new();
            for n in 0..50 {
                let id = format!("s{n}");
                match run.signal_as(&id, &WORD, &format!("{n}")).await {
                    Ok(_) => accepted.push(id),
                    Err(error) => {
                        assert_eq!(error.code(), "run_closed", "{error}");
                        break;
                    }
                }
            }
            let ended = kit.run_to_end(&run).await?;
            assert_eq!(ended.signals_unread, 0);
            let found = run.history().await?;
            assert_eq!(history::acknowledged(&found, &accepted), Vec::<String>::new());
            assert_eq!(history::taken_ids(&found.journal), accepted);
        }
        kit.finish().await?;
    }

    async fn the_same_id_is_the_same_signal(kind) {
        let kit = kit(kind).workflow(listener()).start().await?;
        let run = kit.run_as("r", "listener", &2).await?;
        let first = run.signal_as("a", &WORD, &"one".into()).await?;
        let again = run.signal_as("a", &WORD, &"one".into()).await?;
        assert_eq!((first, again), (Accepted::New { ordinal: 1 }, Accepted::Already { ordinal: 1 }));
        run.signal_as("b", &WORD, &"two".into()).await?;
        kit.run_to_end(&run).await?;
        // Also when the run has ended meanwhile.
        assert_eq!(run.signal_as("a", &WORD, &"one".into()).await?, Accepted::Already { ordinal: 1 });
        kit.finish().await?;
    }

    async fn a_closed_run_an_unknown_run_and_an_unfit_value_are_told_apart(kind) {
        let kit = kit(kind).workflow(listener()).start().await?;
        let run = kit.run_as("r", "listener", &0).await?;
        kit.run_to_end(&run).await?;
        let closed = run.signal(&WORD, &"late".into()).await.unwrap_err();
        says!(closed.to_string(), @"run r is completed and takes no more signals");
        let unknown = kit.find("nobody").await.unwrap_err();
        says!(unknown.to_string(), @"no run nobody here; see `aldis runs`");
        let open = kit.run_as("open", "listener", &1).await?;
        let unfit = open.signal(&Signal::<u8>::new("word"), &7).await.unwrap_err();
        says!(unfit.to_string(), @r#"signal "word" of workflow "listener" does not match its schema: the value: value is not of type "string""#);
        assert_eq!([closed.code(), unknown.code(), unfit.code()], ["run_closed", "run_unknown", "payload_invalid"]);
        kit.finish().await?;
    }

    async fn too_many_signals_and_too_large_ones_are_refused_and_nothing_is_dropped(kind) {
        let limits = Limits { pending_max: 3, payload_bytes_max: 100, ..Limits::default() };
        let kit = kit(kind).workflow(batcher()).limits(limits).start().await?;
        let options = aldis::run::StartOptions { not_before: Some(kit.now() + secs(60)), ..Default::default() };
        let (run, _) = kit.start("batcher", aldis::payload::Payload::null(), options).await?;
        for n in 0..3 {
            run.signal_as(&format!("s{n}"), &WORD, &"stop".into()).await?;
        }
        let refused = run.signal_as("s3", &WORD, &"stop".into()).await.unwrap_err();
        let refused_text = refused.to_string().replace(run.id().as_str(), "<run>");
        says!(refused_text, @"run <run> has 3 signals pending, the limit is 3; send it again once some were taken");
        assert_eq!(code(&refused), "too_many_pending");
        let large = run.signal(&WORD, &"x".repeat(200)).await.unwrap_err();
        let large_text = large.to_string().replace(run.id().as_str(), "<run>");
        says!(large_text, @r#"signal "word" to run <run> has 202 bytes, the limit is 100; keep large data elsewhere and pass a reference, or raise payload_bytes_max"#);
        let large = kit.run("batcher", &"x".repeat(200)).await.unwrap_err();
        assert_eq!(code(&large), "payload_too_large");
        let ended = kit.run_to_end(&run).await?;
        assert_eq!(format!("{:?}", ended.outcome), r#"Completed([["stop","stop","stop"]])"#);
        kit.finish().await?;
    }

    async fn what_a_run_did_not_read_is_counted_in_its_outcome(kind) {
        let kit = kit(kind).workflow(listener()).start().await?;
        let options = aldis::run::StartOptions {
            signals: ["a", "b", "c"].map(|word| ("word".to_owned(), None, aldis::payload::Payload::of(word).unwrap())).into(),
            ..Default::default()
        };
        let (run, _) = kit.start("listener", aldis::payload::Payload::of(&1).unwrap(), options).await?;
        assert_eq!(kit.run_to_end(&run).await?.signals_unread, 2);
        kit.finish().await?;
    }

    async fn scripted_signals_come_at_their_time_or_when_they_are_awaited(kind) {
        let kit = kit(kind).workflow(listener()).start().await?;
        let run = kit.run_as("r", "listener", &2).await?;
        let begin = kit.now();
        kit.signal_after(secs(3_600), &run, &WORD, &"an hour later".into())?;
        kit.signal_when_awaited(&run, &WORD, &"at once".into())?;
        let ended = kit.run_to_end(&run).await?;
        assert_eq!(format!("{:?}", ended.outcome), r#"Completed(["at once","an hour later"])"#);
        assert_eq!(kit.now().since(begin), secs(3_600));
        kit.finish().await?;
    }

    async fn a_signal_that_nobody_waits_for_yet_leaves_the_run_asleep(kind) {
        let survived = Crash::of(|_| kit(kind).workflow(late_riser()))
            .survives(async |world| {
                world.start("r", "late_riser", &()).await?;
                world.settle().await?;
                world.signal("r", "a", &WORD, &"early".into()).await?;
                world.settle().await?;
                let status = world.status("r").await?;
                Ok((status, world.output::<String>("r").await?))
            })
            .await?;
        assert_eq!(survived.value, ("waiting", "early".to_owned()));
    }
}

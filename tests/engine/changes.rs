//! Changed code: a mismatch blocks the run and writes nothing; the old code goes on with it.

use aldis::testing::{Error, replays};
use aldis::workflow::Definition;
use aldis::{Context, Failure, Step, Workflow};
use serde_json::json;

use crate::support::{kit, secs};

const FIRST: Step<u32, u32> = Step::new("first");
const SECOND: Step<u32, u32> = Step::new("second");
const OTHER: Step<u32, u32> = Step::new("other");

async fn same(_: aldis::StepContext, n: u32) -> Result<u32, Failure> {
    Ok(n)
}

/// A step, a day's sleep, another step.
fn old() -> Workflow {
    Workflow::new("order", |cx: Context, n: u32| async move {
        let n = cx.step(&FIRST, n, same).await?;
        cx.sleep(secs(86_400)).await?;
        cx.step(&SECOND, n + 1, same).await.map_err(Failure::from)
    })
}

/// The same with another first step.
fn changed() -> Workflow {
    Workflow::new("order", |cx: Context, n: u32| async move {
        let n = cx.step(&OTHER, n, same).await?;
        cx.sleep(secs(86_400)).await?;
        cx.step(&SECOND, n + 1, same).await.map_err(Failure::from)
    })
}

/// The same code that expects another type of its first step.
fn retyped() -> Workflow {
    const FIRST: Step<u32, Vec<String>> = Step::new("first");
    Workflow::new("order", |cx: Context, n: u32| async move {
        let texts = cx.step(&FIRST, n, |_, _| async { Ok::<_, Failure>(vec![]) }).await?;
        cx.sleep(secs(86_400)).await?;
        Ok::<_, Failure>(texts.len())
    })
}

each_store! {
    async fn code_that_does_not_fit_the_journal_blocks_the_run_and_the_old_code_goes_on(kind) {
        let kit = kit(kind).workflow(old()).build("b1").start().await?;
        let run = kit.run_as("r", "order", &1).await?;
        kit.settle().await?;
        let head = run.row().await?.head;

        let setup = kit.setup();
        let kit = kit.deploy(setup.clone().without_workflows().workflow(changed()).build("b2")).await?;
        let blocked = kit.run_to_end(&run).await.unwrap_err();
        says!(blocked.to_string(), @r#"run r was to end, but it is blocked: replay of run r diverged at event 2: the journal holds step "first" at 1, the code asked for step "other" at 1; recorded by build b1, replayed by build b2; a changed step needs a new name in a new version of the workflow: put the old code back, or keep it registered under its version for the runs that began on it"#);
        let run = kit.of(&run).await?;
        assert_eq!(run.row().await?.head, head, "nothing was written");
        let shown = run.show().await?;
        assert_eq!((shown.status, shown.blocked.map(|blocked| blocked.code)), ("blocked", Some("mismatch")));

        let kit = kit.deploy(setup.build("b3")).await?;
        let ended = kit.run_to_end(&run).await?;
        assert_eq!(format!("{:?}", ended.outcome), "Completed(2)");
        kit.finish().await?;
    }

    async fn a_recorded_value_that_the_code_cannot_read_blocks_the_run_and_names_its_place(kind) {
        let kit = kit(kind).workflow(old()).build("b1").start().await?;
        let run = kit.run_as("r", "order", &1).await?;
        kit.settle().await?;
        let setup = kit.setup();
        let kit = kit.deploy(setup.clone().without_workflows().workflow(retyped()).build("b2")).await?;
        let blocked = kit.run_to_end(&run).await.unwrap_err();
        says!(blocked.to_string(), @r#"run r was to end, but it is blocked: the recorded result of "first" does not fit the code's type core::result::Result<alloc::vec::Vec<alloc::string::String>, aldis::workflow::step::StepError>: at .: invalid type: integer `1`, expected a sequence at line 1 column 1; deploy code that reads it"#);
        let kit = kit.deploy(setup.build("b3")).await?;
        let ended = kit.run_to_end(&run).await?;
        assert_eq!(format!("{:?}", ended.outcome), "Completed(2)");
        kit.finish().await?;
    }

    async fn a_run_whose_workflow_nobody_knows_is_blocked_until_somebody_does(kind) {
        let kit = kit(kind).workflow(old()).build("b1").start().await?;
        let run = kit.run_as("r", "order", &1).await?;
        kit.settle().await?;
        let setup = kit.setup();
        let unknowing = setup.clone().without_workflows().build("b2").engine_options(|options| options.lease = secs(3));
        let kit = kit.deploy(unknowing).await?;
        kit.advance(secs(90_000)).await?;
        let blocked = kit.run_to_end(&run).await.unwrap_err();
        let Error::Blocked { reason, .. } = blocked else { panic!("{blocked}") };
        assert!(reason.contains("order"), "{reason}");
        assert_eq!(kit.of(&run).await?.show().await?.blocked.map(|blocked| blocked.code), Some("unregistered"));
        let kit = kit.deploy(setup.build("b3")).await?;
        let ended = kit.run_to_end(&run).await?;
        assert_eq!(format!("{:?}", ended.outcome), "Completed(2)");
        kit.finish().await?;
    }

    async fn a_run_keeps_the_version_it_began_on(kind) {
        let kit = kit(kind).workflow(old()).start().await?;
        let run = kit.run_as("r", "order", &1).await?;
        kit.settle().await?;
        let setup = kit.setup().workflow(changed().version(2)).build("both");
        let kit = kit.deploy(setup).await?;
        let newer = kit.run_as("newer", "order", &1).await?;
        kit.run_to_rest().await?;
        let first = |journal: String| journal.lines().nth(1).and_then(|line| line.split_whitespace().nth(4)).map(str::to_owned);
        assert_eq!(first(kit.journal(&run).await?).as_deref(), Some("first"));
        assert_eq!(first(kit.journal(&newer).await?).as_deref(), Some("other"));
        kit.finish().await?;
    }

    async fn an_input_that_the_code_cannot_read_blocks_the_run(kind) {
        let texts = || Workflow::new("order", |_: Context, texts: Vec<String>| async move { Ok::<_, Failure>(texts.len()) });
        let kit = kit(kind).workflow(old()).build("b1").start().await?;
        let options = aldis::run::StartOptions { not_before: Some(kit.now() + secs(60)), ..Default::default() };
        let (run, _) = kit.start("order", aldis::payload::Payload::of(&json!(1)).unwrap(), options).await?;
        let setup = kit.setup().without_workflows().workflow(texts()).build("b2");
        let kit = kit.deploy(setup).await?;
        let blocked = kit.run_to_end(&run).await.unwrap_err().to_string().replace(run.id().as_str(), "<run>");
        says!(blocked, @r#"run <run> was to end, but it is blocked: the input of run <run> does not fit workflow "order": at .: invalid type: integer `1`, expected a sequence at line 1 column 1; deploy code that reads it"#);
        kit.finish().await?;
    }

    async fn recorded_histories_replay_and_the_first_that_does_not_is_named(kind) {
        let kit = kit(kind).workflow(old()).start().await?;
        let run = kit.run_as("r", "order", &1).await?;
        kit.run_to_end(&run).await?;
        let directory = kit.database().directory().join("histories");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("order.jsonl"), aldis::runtime::Export::write(&run.export().await?)?).unwrap();
        assert_eq!(replays(&directory, [Definition::from(old())])?, [directory.join("order.jsonl")]);
        let mismatch = replays(&directory, [Definition::from(changed())]).unwrap_err().to_string();
        let mismatch = mismatch.replace(&*directory.to_string_lossy(), "<dir>");
        says!(mismatch, @r#"recorded history <dir>/order.jsonl: replay of run r diverged at event 2: the journal holds step "first" at 1, the code asked for step "other" at 1; recorded by build test, replayed by build replays; a changed step needs a new name in a new version of the workflow: put the old code back, or keep it registered under its version for the runs that began on it"#);
        kit.finish().await?;
    }
}

//! What ends a turn although the model would go on: tokens, time, silence, stop conditions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aldis::agent::{Agent, Budget, FinishedStep, TurnOptions};
use aldis::intake::SendOptions;
use aldis::message::NewSignal;
use aldis::runtime::{Sent, ThreadHandle};
use aldis::testing::Error;
use aldis::workflows::demo;
use aldis::workflows::turn::Turned;

use crate::common::{Puppet, agents, chunks, history, message, stream, thread, told};
use crate::crashes::crash;
use crate::support::{kit, secs};

const ADD: &str = "/call add {\"a\":1,\"b\":2}";
const REFUND: &str = "/call refund {\"order\":\"A-1\",\"cents\":100}";

async fn send(thread: &ThreadHandle, text: &str, budget: Budget) -> Result<Sent, Error> {
    let turn = ThreadHandle::turn(&TurnOptions { budget, ..TurnOptions::default() })?;
    Ok(thread.send_with(NewSignal::user(text), SendOptions { turn, ..SendOptions::default() }).await?)
}

fn time(millis: u64) -> Budget {
    Budget { time_max_ms: Some(millis), ..Budget::default() }
}

fn called(steps: &[FinishedStep], tool: &str) -> bool {
    steps.iter().flat_map(|step| &step.calls).any(|call| call["toolName"] == tool && !call["result"].is_null())
}

each_store! {
    // T10.7: looked at first; what comes meanwhile begins another turn, with a budget of its own.
    async fn a_turn_that_has_used_its_tokens_ends_after_its_step(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let ask = "/call ask {\"question\":\"?\"}";
        let sent = send(&thread, ask, Budget { tokens_max: Some(1), ..Budget::default() }).await?;
        kit.settle().await?;
        thread.send("meanwhile").await?;
        let call = thread.waiting().await?[0].call.clone();
        thread.approve(&call).await?;
        kit.run_to_rest().await?;
        let seen = chunks(&kit, &thread).await?;
        let at = seen.iter().position(|it| it.starts_with("tripwire")).unwrap_or_else(|| panic!("{seen:?}"));
        assert!(seen[at].ends_with("tokens and may use 1"), "{seen:?}");
        assert_eq!(seen[at - 1..=at + 1], [
            "step-finish \"tool-calls\" false".to_owned(), seen[at].clone(), "finish \"length\" false".to_owned(),
        ]);
        let turned: Turned = kit.find(sent.run.unwrap().as_str()).await?.result().await?;
        assert_eq!((turned.reason.as_str(), turned.steps), ("length", 1));
        assert!(turned.stopped_by.unwrap().starts_with("the turn has used "));
        let lines = history(&thread).await?;
        assert_eq!(lines[2], "user meanwhile");
        assert!(lines[3].starts_with("demo "), "{lines:?}");
        kit.finish().await?;
    }

    async fn an_answer_that_is_complete_is_not_ended_by_what_it_cost(kind) {
        let kit = kit(kind).agent(demo::agent().budget(Budget { tokens_max: Some(1), ..Budget::default() })).start().await?;
        let thread = thread(&kit);
        thread.send("Hello to all of you").await?;
        kit.run_to_rest().await?;
        let seen = chunks(&kit, &thread).await?;
        assert_eq!(seen.last().unwrap(), "finish \"stop\" false");
        assert!(!seen.iter().any(|it| it.starts_with("tripwire")), "{seen:?}");
        kit.finish().await?;
    }

    async fn a_turn_whose_time_is_up_ends_with_what_was_said(kind) {
        let (models, mut strings) = Puppet::models();
        let agent = Agent::new("demo").model("puppet/x").budget(time(60_000));
        let kit = kit(kind).agent(agent).models(models).start().await?;
        let thread = thread(&kit);
        let sent = thread.send("Hello").await?;
        let asked = strings.recv().await.unwrap();
        let mut subscription = thread.subscribe(aldis::runtime::Since::Cursor(0));
        asked.say("Good mor");
        while subscription.next().await?.chunk["payload"]["text"] != "Good mor" {}
        kit.hands().advance(secs(60));
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["user Hello", "demo Good mor (aborted)"]);
        let told = told(&stream(&kit, &thread).await?);
        assert_eq!(told[told.len() - 2..], [
            "tripwire the turn has taken the 60000 ms that it may take", "finish \"other\" false",
        ]);
        let turned: Turned = kit.find(sent.run.unwrap().as_str()).await?.result().await?;
        assert_eq!((turned.reason.as_str(), turned.text.as_str()), ("other", "Good mor"));
        kit.finish().await?;
    }

    async fn the_time_of_a_turn_that_waits_for_a_person_runs_through_crashes(kind) {
        let survived = crash(kind, |kind, _| agents(kind));
        let survived = survived
            .survives(async |world| {
                let begin = world.now();
                world.ask(async |kit| {
                    let turn = ThreadHandle::turn(&TurnOptions { budget: time(60_000), ..TurnOptions::default() })?;
                    let options = SendOptions { turn, ..SendOptions::default() };
                    Ok(thread(kit).send_with(message("m1", REFUND), options).await?)
                }).await?;
                world.run_to_rest().await?;
                assert!(world.now().since(begin) < secs(3_600), "somebody was waited for");
                world.ask(async |kit| {
                    let thread = thread(kit);
                    assert_eq!(thread.waiting().await?, []);
                    Ok((history(&thread).await?, told(&stream(kit, &thread).await?)))
                }).await
            })
            .await?;
        let (lines, told) = survived.value;
        assert!(lines[1].ends_with("open] (aborted)"), "{lines:?}");
        assert_eq!(told.iter().filter(|it| it.starts_with("tripwire")).count(), 1, "{told:?}");
        assert!(survived.struck > 0);
    }

    async fn a_model_that_says_nothing_is_tried_again_as_often_as_may_be(kind) {
        let (models, mut strings) = Puppet::models();
        let kit = kit(kind).agent(Agent::new("demo").model("puppet/x")).models(models).start().await?;
        let thread = thread(&kit);
        let budget = Budget { idle_max_ms: Some(30_000), attempts_max: Some(2), ..Budget::default() };
        let sent = send(&thread, "Hello", budget).await?;
        let first = strings.recv().await.unwrap();
        kit.hands().advance(secs(30));
        let rest = async {
            let second = strings.recv().await.unwrap();
            kit.hands().advance(secs(30));
            second
        };
        let (rested, second) = tokio::join!(kit.run_to_rest(), rest);
        rested?;
        drop((first, second));
        let run = kit.find(sent.run.unwrap().as_str()).await?;
        assert_eq!(run.row().await?.status.word(), "failed");
        let seen = chunks(&kit, &thread).await?;
        let error = seen.last().unwrap();
        assert!(error.starts_with("error") && error.contains("timed out after 2 attempts"), "{seen:?}");
        kit.finish().await?;
    }

    async fn a_stop_condition_is_asked_after_each_step_and_what_it_said_is_recorded(kind) {
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let agent = demo::agent().stop_when("added", move |steps| {
            count.fetch_add(1, Ordering::SeqCst);
            called(steps, "add")
        });
        let kit = kit(kind).agent(agent).start().await?;
        let thread = thread(&kit);
        let sent = thread.send(ADD).await?;
        kit.run_to_rest().await?;
        let seen = chunks(&kit, &thread).await?;
        assert_eq!(seen[seen.len() - 2..], ["step-finish \"tool-calls\" false", "finish \"tool-calls\" false"]);
        let run = kit.find(sent.run.unwrap().as_str()).await?;
        let turned: Turned = run.result().await?;
        assert_eq!(turned.stopped_by.as_deref(), Some("the stop condition \"added\" holds"));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_journal!("turn_with_a_stop_condition", kit.journal(&run).await?);
        // It is not asked where nothing could follow, and what it says of one step is not said of another.
        thread.send("/call refund {\"order\":\"A-1\",\"cents\":100}").await?;
        kit.settle().await?;
        let call = thread.waiting().await?[0].call.clone();
        thread.decline(&call, None).await?;
        kit.run_to_rest().await?;
        assert_eq!(asked.load(Ordering::SeqCst), 3);
        assert!(history(&thread).await?[3].starts_with("demo [refund"));
        kit.finish().await?;
    }

    async fn a_stop_condition_survives_every_crash(kind) {
        let survived = crash(kind, |kind, _| kit(kind).agent(demo::agent().stop_when("added", |it| called(it, "add"))));
        let survived = survived
            .survives(async |world| {
                world.ask(async |kit| Ok(thread(kit).send_with(message("m1", ADD), SendOptions::default()).await?)).await?;
                world.run_to_rest().await?;
                world.ask(async |kit| Ok(told(&stream(kit, &thread(kit)).await?))).await
            })
            .await?;
        assert_eq!(survived.value.last().unwrap(), "finish \"tool-calls\" false");
        assert!(survived.struck > 0);
    }
}

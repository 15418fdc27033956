//! Hooks around calls of the model and of tools, and processors that have the model try again.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use aldis::Aldis;
use aldis::agent::model::ModelError;
use aldis::agent::{
    Agent, ErrorHook, Hook, InputHook, OutputHook, RequestHook, ResponseHook, StreamHook, ToolResultHook,
};
use aldis::clock::Clock;
use aldis::intake::Limits;
use aldis::message::{Category, NewSignal};
use aldis::runtime::Client;
use aldis::testing::{Error, Setup, TestKit};
use aldis::workflows::demo;
use aldis::workflows::turn::Turned;
use serde_json::json;

use crate::common::{Puppet, Talkative, chunks, echoes, history, said, stream, thread, told};
use crate::hooks::{After, Before, Broken, Ending, Failing, First, Going, Heard, Passing, Returned};
use crate::support::kit;

fn reminder(text: &str) -> NewSignal {
    NewSignal::new(Category::Reactive, text)
}

/// Messages that are all there before a worker has the turn: the first one begins it, the others have joined it.
async fn joined(setup: Setup, texts: &[&str]) -> Result<TestKit, Error> {
    let kit = setup.start().await?;
    let (setup, hands) = (kit.setup(), kit.hands().clone());
    let database = kit.kill().await;
    let client = Aldis::open(database.url()).clock(Clock::Virtual(hands.clone())).connect().await?;
    for text in texts {
        thread(&client).send(*text).await?;
    }
    client.store().close().await;
    let kit = setup.start_on(&database, &hands).await?;
    kit.run_to_rest().await?;
    Ok(kit)
}

/// What the thread's latest turn came to.
async fn turned(client: &Client, run: &aldis::id::RunId) -> Result<Turned, Error> {
    Ok(client.find(run.as_str()).await?.result().await?)
}

each_store! {
    async fn the_prompt_is_changed_as_it_goes_out_or_answered_in_the_models_place(kind) {
        let (models, mut strings) = Puppet::models();
        let going = Going::new(|hook: &mut RequestHook<'_>| {
            hook.request.system.push("Be brief.".into());
            if serde_json::to_string(&hook.request.messages).unwrap().contains("cached") {
                *hook.answer = Some(said(hook.request, "from the cache"));
            }
        });
        let agent = Agent::new("demo").model("puppet/x").processor(going);
        let kit = kit(kind).agent(agent).models(models).start().await?;
        let thread = thread(&kit);
        thread.send("Hello").await?;
        let asked = strings.recv().await.unwrap();
        assert_eq!(asked.request.system, ["Be brief."]);
        asked.answer("Hi");
        kit.run_to_rest().await?;
        thread.send("cached").await?;
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?[1..], ["demo Hi", "user cached", "demo from the cache"]);
        assert!(strings.try_recv().is_err());
        kit.finish().await?;
    }

    // T15.1: what is stored follows what is streamed.
    async fn pieces_are_changed_and_dropped_and_what_is_stored_is_what_was_let_through(kind) {
        let passing = Passing::new(|hook: &mut StreamHook<'_>| {
            let odd = hook.text.trim().parse::<u32>().is_ok_and(|n| n % 2 == 1);
            *hook.text = if odd { String::new() } else { hook.text.replace('4', "four") };
        });
        let agent = Agent::new("demo").model("talkative/x").processor(passing);
        let models = aldis::agent::model::Models::new().with(Arc::new(Talkative));
        let kit = kit(kind).agent(agent).models(models).start().await?;
        let thread = thread(&kit);
        thread.send("Count").await?;
        kit.run_to_rest().await?;
        let expected: String = (0..600).step_by(2).map(|n| format!("{n} ").replace('4', "four")).collect();
        assert_eq!(history(&thread).await?[1], format!("demo {expected}"));
        let stream = stream(&kit, &thread).await?;
        let seen: String = stream.iter().filter_map(|it| it["payload"]["text"].as_str()).collect();
        assert_eq!(seen, expected);
        kit.finish().await?;
    }

    async fn a_hook_on_pieces_that_ends_the_turn_cuts_the_model(kind) {
        let (models, mut strings) = Puppet::models();
        let passing = Passing::new(|hook: &mut StreamHook<'_>| {
            if hook.text.contains("secret") {
                hook.abort("a secret");
            }
        });
        let agent = Agent::new("demo").model("puppet/x").processor(passing);
        let kit = kit(kind).agent(agent).models(models).start().await?;
        let thread = thread(&kit);
        thread.send("Hello").await?;
        let asked = strings.recv().await.unwrap();
        asked.say("The ");
        asked.say("secret ");
        kit.run_to_rest().await?;
        assert!(!asked.says("is 42"), "somebody still listens");
        assert_eq!(history(&thread).await?, ["user Hello", "demo The "]);
        let told = told(&stream(&kit, &thread).await?);
        assert_eq!(told[told.len() - 2..], ["tripwire a secret", "finish \"tripwire\" false"]);
        assert!(!told.iter().any(|it| it.contains("secret") && it.starts_with("text")), "{told:?}");
        kit.finish().await?;
    }

    async fn what_a_tool_returned_is_changed_before_anybody_reads_it(kind) {
        let returned = Returned::new(|hook: &mut ToolResultHook<'_>| {
            assert_eq!((hook.call.name.as_str(), hook.context.thread()), ("add", "t"));
            *hook.result = json!({ "sum": *hook.result });
        });
        let kit = kit(kind).agent(demo::agent().processor(returned)).start().await?;
        let thread = thread(&kit);
        thread.send("/call add {\"a\":1,\"b\":2}").await?;
        kit.run_to_rest().await?;
        assert!(history(&thread).await?[1].starts_with(r#"demo [add {"a":1,"b":2}: {"sum":3}] "#));
        assert!(chunks(&kit, &thread).await?.contains(&r#"tool-result add {"sum":3}"#.to_owned()));
        kit.finish().await?;
    }

    // T15.7
    async fn an_answer_that_is_not_accepted_is_given_again_with_the_reason(kind) {
        let (models, mut strings) = Puppet::models();
        let after = After::new(|hook: &mut OutputHook<'_>| {
            if !hook.reply.whole_text().contains("please") {
                hook.context.retry("say please");
            }
        });
        let agent = demo::agent().model("puppet/x").processor(after);
        let kit = kit(kind).agent(agent).models(models).start().await?;
        let thread = thread(&kit);
        let sent = thread.send("Hello").await?;
        strings.recv().await.unwrap().call("add", json!({ "a": 1, "b": 2 }));
        let again = strings.recv().await.unwrap();
        assert!(again.prompt().contains("say please"), "{}", again.prompt());
        again.answer("please");
        kit.run_to_rest().await?;
        let seen = chunks(&kit, &thread).await?;
        // The call of the answer that was not accepted is not made.
        assert!(seen.contains(&"tool-error add \"the call was not made: say please\"".to_owned()), "{seen:?}");
        assert!(seen.contains(&"step-finish \"retry\" true".to_owned()), "{seen:?}");
        assert_eq!(seen.last().unwrap(), "finish \"stop\" false");
        let run = kit.find(sent.run.unwrap().as_str()).await?;
        assert_journal!("turn_that_tries_again", kit.journal(&run).await?);
        kit.finish().await?;
    }

    // T15.7
    async fn processors_may_ask_again_so_often_and_then_the_turn_ends(kind) {
        let kit = kit(kind).agent(demo::agent().processor_retries(2).processor(Ending::new(|hook: &mut OutputHook<'_>| {
            hook.context.retry("not good");
        }))).start().await?;
        let thread = thread(&kit);
        thread.send("Hello").await?;
        kit.run_to_rest().await?;
        let stream = stream(&kit, &thread).await?;
        assert_eq!(stream.iter().filter(|it| it["type"] == "step-start").count(), 3);
        let [.., tripwire, finish] = &stream[..] else { panic!("{stream:?}") };
        assert_eq!(tripwire["payload"], json!({ "reason": "not good", "processorId": "process_output_result", "retry": true }));
        assert_eq!(finish["payload"]["stepResult"]["reason"], "tripwire");
        kit.finish().await?;
    }

    // T15.1, T15.2
    async fn a_model_that_refuses_is_asked_again_with_what_a_hook_has_sent(kind) {
        let (models, mut strings) = Puppet::models();
        let failing = Failing::new(|hook: &mut ErrorHook<'_>| {
            assert_eq!(hook.failure.code.as_deref(), Some("model_request_refused"));
            hook.context.send(reminder("make it shorter")).unwrap();
            *hook.retry = true;
        });
        let agent = Agent::new("demo").model("puppet/x").processor(failing).processor_retries(1);
        let kit = kit(kind).agent(agent).models(models).start().await?;
        let thread = thread(&kit);
        let sent = thread.send("Hello").await?;
        let refused = || ModelError::Refused { model: "puppet/x".into(), status: 400, cause: "too long".into() };
        strings.recv().await.unwrap().fail(refused());
        let again = strings.recv().await.unwrap();
        assert!(again.prompt().contains("make it shorter"), "{}", again.prompt());
        again.answer("Hi");
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["user Hello", "reactive make it shorter", "demo Hi"]);
        let run = kit.find(sent.run.unwrap().as_str()).await?;
        assert_eq!(run.row().await?.status.word(), "completed");
        // Beyond what processors may ask for, the failure is the turn's.
        let sent = thread.send("Again").await?;
        for _ in 0..2 {
            strings.recv().await.unwrap().fail(refused());
        }
        kit.run_to_rest().await?;
        let run = kit.find(sent.run.unwrap().as_str()).await?;
        assert_eq!(run.row().await?.status.word(), "failed");
        assert!(chunks(&kit, &thread).await?.last().unwrap().contains("too long"));
        kit.finish().await?;
    }

    // T3.18: as an accepted one.
    async fn what_hooks_send_keeps_the_limits_of_signals(kind) {
        let before = Before::new(|hook: &mut InputHook<'_>| {
            let refused = hook.context.send(reminder("far too long")).unwrap_err();
            assert!(refused.to_string().contains("the limit is 8"), "{refused}");
        });
        let mut limits = Limits::default();
        limits.signals.contents_bytes_max = 8;
        let kit = kit(kind).agent(demo::agent().processor(before)).limits(limits).start().await?;
        let thread = thread(&kit);
        thread.send("Hello").await?;
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["user Hello", "demo Hello"]);
        kit.finish().await?;
    }

    // T10.5
    async fn what_joins_the_first_call_is_seen_by_the_hooks_before_each_call_only(kind) {
        let seen = Arc::new(AtomicU32::new(0));
        let (first, before) = (Arc::clone(&seen), Arc::clone(&seen));
        let agent = demo::agent()
            .processor(First::new(move |hook: &mut InputHook<'_>| {
                first.fetch_add(100 * hook.messages().len() as u32, Ordering::SeqCst);
                hook.context.send(reminder("begins")).unwrap();
            }))
            .processor(Before::new(move |hook: &mut InputHook<'_>| {
                before.fetch_add(hook.messages().len() as u32, Ordering::SeqCst);
            }));
        let kit = joined(kit(kind).agent(agent), &["one", "two"]).await?;
        let thread = thread(&kit);
        let lines = history(&thread).await?;
        assert_eq!(lines[..3], ["user one", "reactive begins", "user two"]);
        assert_eq!(seen.load(Ordering::SeqCst), 103);
        kit.finish().await?;
    }

    // What joined the first call was accepted: it stands in the history whatever hooks do, and the run says why it failed.
    async fn what_has_joined_a_turn_whose_hook_fails_is_in_the_history(kind) {
        for hook in [Hook::Input, Hook::InputStep, Hook::LlmRequest] {
            let kit = joined(kit(kind).agent(demo::agent().processor(Broken([hook]))), &["one", "two", "three"]).await?;
            let thread = thread(&kit);
            assert_eq!(history(&thread).await?, ["user one", "user two", "user three"], "{hook:?}");
            let chunks = stream(&kit, &thread).await?;
            assert_eq!(echoes(&chunks).into_values().collect::<Vec<_>>(), [1, 1, 1], "{hook:?}");
            let told = told(&chunks);
            assert!(told.last().unwrap().contains("it is broken"), "{hook:?}: {told:?}");
            assert_eq!(kit.runs().await?[0].row().await?.status.word(), "failed", "{hook:?}");
            kit.finish().await?;
        }
    }

    // T15.1: as it came, also where hooks change what is let through, and where one has answered in the model's place.
    async fn every_answer_is_looked_at_as_it_came(kind) {
        let (models, mut strings) = Puppet::models();
        let looked = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&looked);
        let agent = Agent::new("demo")
            .model("puppet/x")
            .processor(Going::new(|hook: &mut RequestHook<'_>| {
                if hook.request.messages.len() > 2 {
                    *hook.answer = Some(said(hook.request, "one from the cache"));
                }
            }))
            .processor(Heard::new(move |hook: &mut ResponseHook<'_>| {
                assert_eq!((hook.context.agent(), hook.context.thread()), ("demo", "t"));
                notes.lock().unwrap().push((hook.request.messages.len(), hook.reply.text()));
            }))
            .processor(Passing::new(|hook: &mut StreamHook<'_>| *hook.text = hook.text.replace("one", "1")));
        let kit = kit(kind).agent(agent).models(models).start().await?;
        let thread = thread(&kit);
        thread.send("Hello").await?;
        // Of a call that has failed there is no answer.
        let cut = ModelError::Cut { model: "puppet/x".into(), cause: "the line went dead".into() };
        strings.recv().await.unwrap().fail(cut);
        let rest = async { strings.recv().await.unwrap().answer("this one") };
        tokio::join!(kit.run_to_rest(), rest).0?;
        thread.send("And now?").await?;
        kit.run_to_rest().await?;
        assert_eq!(*looked.lock().unwrap(), [(1, "this one".to_owned()), (3, "one from the cache".to_owned())]);
        assert_eq!(history(&thread).await?, ["user Hello", "demo this 1", "user And now?", "demo 1 from the cache"]);
        kit.finish().await?;
    }

    // T15.7: nobody is asked.
    async fn a_hook_on_the_prompt_that_aborts_keeps_the_model_from_being_asked(kind) {
        let (models, mut strings) = Puppet::models();
        let going = Going::new(|hook: &mut RequestHook<'_>| hook.abort("not this"));
        let kit = kit(kind).agent(Agent::new("demo").model("puppet/x").processor(going)).models(models).start().await?;
        let thread = thread(&kit);
        let sent = thread.send("Hello").await?;
        kit.run_to_rest().await?;
        assert!(strings.try_recv().is_err());
        assert_eq!(history(&thread).await?, ["user Hello"]);
        assert_eq!(told(&stream(&kit, &thread).await?), [
            "start", "data-user-message Hello", "step-start 1", "tripwire not this", "finish \"tripwire\" false",
        ]);
        let turned = turned(&kit, &sent.run.unwrap()).await?;
        assert_eq!((turned.reason.as_str(), turned.steps), ("tripwire", 1));
        says!(turned.stopped_by.unwrap(), @r#"the processor "process_llm_request" has ended the turn: not this"#);
        kit.finish().await?;
    }

    // T15.7
    async fn a_hook_on_the_prompt_that_asks_again_reads_its_reason_in_the_next_one(kind) {
        let (models, mut strings) = Puppet::models();
        let going = Going::new(|hook: &mut RequestHook<'_>| {
            if !serde_json::to_string(&hook.request.messages).unwrap().contains("shorter") {
                hook.retry("make it shorter");
            }
        });
        let kit = kit(kind).agent(Agent::new("demo").model("puppet/x").processor(going)).models(models).start().await?;
        let thread = thread(&kit);
        thread.send("Hello").await?;
        let asked = strings.recv().await.unwrap();
        assert!(asked.prompt().contains("make it shorter"), "{}", asked.prompt());
        asked.answer("Hi");
        kit.run_to_rest().await?;
        assert!(strings.try_recv().is_err());
        let told = told(&stream(&kit, &thread).await?);
        assert_eq!(told[2..6], ["step-start 1", "data-signal Your answer was not accepted: make it shorter. Answer again with that in mind.", "step-finish \"retry\" true", "step-start 2"]);
        assert_eq!(history(&thread).await?.last().unwrap(), "demo Hi");
        kit.finish().await?;
    }

    // T15.7: what was seen stays, what it calls is not called.
    async fn a_hook_on_the_answer_ends_the_turn_or_has_another_one_given(kind) {
        let (models, mut strings) = Puppet::models();
        let heard = Heard::new(|hook: &mut ResponseHook<'_>| match hook.reply.text().as_str() {
            "bad" => hook.abort("it is bad"),
            "so so" => hook.retry("be better"),
            _ => {}
        });
        let kit = kit(kind).agent(demo::agent().model("puppet/x").processor(heard)).models(models).start().await?;
        let thread = thread(&kit);
        for first in ["so so", "bad"] {
            thread.send(first).await?;
            let asked = strings.recv().await.unwrap();
            asked.say(first);
            asked.call("add", json!({ "a": 1, "b": 2 }));
            if first == "so so" {
                let again = strings.recv().await.unwrap();
                assert!(again.prompt().contains("be better"), "{}", again.prompt());
                again.answer("good");
            }
            kit.run_to_rest().await?;
        }
        let lines = history(&thread).await?;
        assert_eq!(lines[1], r#"demo so so [add {"a":1,"b":2}: failed "the call was not made: be better"]"#);
        assert_eq!(lines[3..5], ["demo good", "user bad"]);
        assert_eq!(lines[5], r#"demo bad [add {"a":1,"b":2}: open]"#);
        let told = told(&stream(&kit, &thread).await?);
        assert_eq!(told[told.len() - 2..], ["tripwire it is bad", "finish \"tripwire\" false"]);
        assert!(!told.iter().any(|it| it.starts_with("tool-result")), "{told:?}");
        kit.finish().await?;
    }
}

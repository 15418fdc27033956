//! Direct calls: `generate` and `stream`, in the library (H9.3 to H9.6).

use std::collections::BTreeMap;

use aldis::agent::{Agent, StructuredOutput, TurnOptions};
use aldis::id::RunId;
use aldis::message::{Generated, Given, Role};
use aldis::runtime::ThreadHandle;
use aldis::store::{Page, Window};
use aldis::testing::Error;
use aldis::workflows::turn::Turned;
use serde_json::{Value, json};

use crate::common::{Puppet, agents, echoes, history, stream, thread};
use crate::crashes::crash;
use crate::support::kit;

fn given(messages: Value) -> Given {
    Given::read("messages", &messages).expect("messages")
}

fn run(id: &str) -> RunId {
    RunId::parse(id).expect("an id")
}

fn with_look() -> TurnOptions {
    let tool = serde_json::from_value(json!({ "description": "Looks.", "inputSchema": { "type": "object" } }));
    TurnOptions { client_tools: BTreeMap::from([("look".to_owned(), tool.unwrap())]), ..TurnOptions::default() }
}

/// What a client says once it has run the tool that an answer calls.
fn result_of(answer: &Generated, output: Value) -> Value {
    let call = &answer.calls()[0]["payload"];
    json!({ "role": "tool", "content": [
        { "type": "tool-result", "toolCallId": call["toolCallId"], "toolName": call["toolName"], "result": output },
    ] })
}

async fn ids(thread: &ThreadHandle) -> Result<Vec<String>, Error> {
    let rows = thread.history(Window::latest(i64::MAX, 100)).await?;
    Ok(rows.into_iter().map(|it| it.id).collect())
}

each_store! {
    // H9.3, H9.6
    async fn what_is_said_is_a_row_of_role_user_without_an_echo_and_the_whole_answer_is_waited_for(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        thread.send("My name is Ann").await?;
        kit.run_to_rest().await?;
        let answer = thread.direct("/call add {\"a\":1,\"b\":2}").generate().await?;
        assert_eq!((answer.text.as_str(), answer.finish_reason()), ("add answered 3", "stop"));
        assert_eq!((answer.steps.len(), answer.results().len()), (2, 1));
        assert_eq!(answer.usage["totalTokens"], json!(answer.steps.iter().map(|it| it.usage["totalTokens"].as_u64().unwrap()).sum::<u64>()));
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert_eq!(lines[2], "said /call add {\"a\":1,\"b\":2}", "{lines:?}");
        assert_eq!(thread.history(Window::latest(i64::MAX, 100)).await?[2].role(), Role::User);
        assert_eq!(echoes(&stream(&kit, &thread).await?).len(), 1);
        let turned: Turned = kit.find(&answer.run).await?.result().await?;
        assert_eq!((turned.text, turned.steps), (answer.text, 2));
        assert_journal!("turn_of_a_direct_call", kit.journal(&kit.find(&answer.run).await?).await?);
        kit.finish().await?;
    }

    // T2.6: it waits for the run that has the thread, whoever waits for it.
    async fn it_waits_behind_the_run_that_has_the_thread_and_nobody_has_to_wait_for_it(kind) {
        let (models, mut strings) = Puppet::models();
        let kit = kit(kind).agent(Agent::new("demo").model("puppet/x")).models(models).start().await?;
        let thread = thread(&kit);
        thread.send("one").await?;
        let first = strings.recv().await.expect("the model is asked");
        let second = thread.direct("two").start().await?;
        thread.send("more").await?;
        assert_eq!(thread.queue_count(None).await?, 1);
        first.answer("1");
        // What was delivered to the run is taken by it, before the call has its turn.
        let taken = strings.recv().await.expect("the model is asked");
        assert!(taken.prompt().contains("more") && !taken.prompt().contains("two"), "{}", taken.prompt());
        taken.answer("and more");
        let asked = strings.recv().await.expect("the model is asked");
        assert!(asked.prompt().contains("two"), "{}", asked.prompt());
        let waits = tokio::spawn(async move { second.generated().await });
        asked.answer("2");
        assert_eq!(waits.await.expect("a task")?.text, "2");
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["user one", "demo 1", "user more", "demo and more", "said two", "demo 2"]);
        kit.finish().await?;
    }

    // H13.1, T20.4, T20.5
    async fn the_same_run_id_or_key_is_the_same_call(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let call = || thread.direct("Hello").run_id(run("r-1"));
        let (first, again) = (call().start().await?, call().start().await?);
        assert_eq!((first.run().as_str(), first.is_repeat(), again.run().as_str(), again.is_repeat()), ("r-1", false, "r-1", true));
        kit.run_to_rest().await?;
        let (one, two) = (first.generated().await?, call().generate().await?);
        assert_eq!((one.text.as_str(), &one), ("Hello", &two));
        assert_eq!(thread.direct("Bye").run_id(run("r-1")).start().await.unwrap_err().code(), "signal_conflict");
        let elsewhere = kit.agent("demo").thread("t2", "ann")?;
        assert_eq!(elsewhere.direct("Hello").run_id(run("r-1")).start().await.unwrap_err().code(), "run_id_in_use");
        let keyed = || thread.direct("Again").idempotency_key("k");
        let (first, again) = (keyed().start().await?, keyed().start().await?);
        assert_eq!((first.run(), again.is_repeat()), (again.run(), true));
        assert_eq!(thread.direct("Other").idempotency_key("k").start().await.unwrap_err().code(), "signal_conflict");
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["said Hello", "demo Hello", "said Again", "demo Again"]);
        kit.finish().await?;
    }

    async fn calls_under_one_run_id_at_once_are_one_and_hurt_no_neighbour(kind) {
        let kit = agents(kind).start().await?;
        let threads: Vec<ThreadHandle> =
            (0..8).map(|n| kit.agent("demo").thread(&format!("t{n}"), "ann")).collect::<Result<_, _>>()?;
        let calls = threads.iter().enumerate().map(|(n, thread)| {
            let call = thread.direct("Hello");
            // Every other one under the same id.
            let call = if n % 2 == 0 { call.run_id(run("mine")) } else { call };
            call.start()
        });
        let started = futures::future::join_all(calls).await;
        let refused = started.iter().filter_map(|it| it.as_ref().err()).map(aldis::Error::code);
        assert_eq!(refused.collect::<Vec<_>>(), ["run_id_in_use"; 3]);
        assert!(started.iter().skip(1).step_by(2).all(Result::is_ok));
        kit.run_to_rest().await?;
        kit.finish().await?;
    }

    // T13.14, H9.3
    async fn it_goes_on_with_what_the_clients_tools_came_to(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let first = thread.direct("/call look {\"at\":\"sky\"}").options(with_look()).generate().await?;
        assert_eq!(first.finish_reason(), "tool-calls");
        // The stock client gives back what was answered, with the result behind it; streams give the result alone.
        let mut back = first.messages();
        back.push(result_of(&first, json!("blue")));
        let on = || thread.direct(given(json!(back))).options(with_look());
        let second = on().generate().await?;
        assert_eq!(second.text, "look answered blue");
        assert_eq!(second.results().len(), 1);
        let alone = thread.direct(given(json!([result_of(&first, json!("blue"))]))).options(with_look()).start().await?;
        assert_eq!((alone.run().as_str(), alone.is_repeat()), (second.run.as_str(), true));
        let other = thread.direct(given(json!([result_of(&first, json!("red"))]))).start().await.unwrap_err();
        assert_eq!(other.code(), "call_answered_otherwise");
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert_eq!(lines[1..], [r#"demo [look {"at":"sky"}: "blue"]"#, "demo look answered blue"]);
        kit.finish().await?;
    }

    async fn results_and_a_question_may_come_together(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let first = thread.direct("/call look {}").options(with_look()).generate().await?;
        let both = json!([result_of(&first, json!("blue")), { "id": "q", "role": "user", "content": "And now?" }]);
        let second = thread.direct(given(both)).options(with_look()).generate().await?;
        assert_eq!(second.text, "And now?");
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?[1..3], [r#"demo [look {}: "blue"]"#, "said And now?"]);
        let ids = ids(&thread).await?;
        assert_eq!(ids[2], "q");
        // Who gives the whole conversation every time adds what is new of it.
        let rows: Vec<Value> = ids.iter().map(|id| json!({ "id": id, "role": "user", "content": "known" })).collect();
        let all: Vec<Value> = rows.into_iter().chain([json!("Bye")]).collect();
        assert_eq!(thread.direct(given(json!(all))).generate().await?.text, "Bye");
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?.len(), 6);
        kit.finish().await?;
    }

    // H9.5: without memory.
    async fn without_a_thread_it_has_one_of_its_own_that_no_list_shows(kind) {
        let kit = agents(kind).start().await?;
        let demo = kit.agent("demo");
        let first = demo.direct("ann", "/call look {\"at\":\"sky\"}").options(with_look()).start().await?;
        let answer = first.generated().await?;
        assert_eq!(answer.finish_reason(), "tool-calls");
        assert_eq!(kit.threads(Some("ann"), Page::first(10)).await?.total, 0);
        assert_eq!(history(first.thread()).await?.len(), 2);
        // The whole conversation comes again, with the result: nothing of it is known here.
        let mut all = vec![json!("/call look {\"at\":\"sky\"}")];
        all.extend(answer.messages());
        all.push(result_of(&answer, json!("blue")));
        let second = demo.direct("ann", given(json!(all))).options(with_look()).start().await?;
        assert_ne!(first.thread().id(), second.thread().id());
        assert_eq!(second.generated().await?.text, "look answered blue");
        let unknown = demo.direct("ann", given(json!([result_of(&answer, json!("blue"))]))).start().await.unwrap_err();
        assert_eq!(unknown.code(), "call_not_waiting");
        // A repeat finds its thread, and only its own.
        let keyed = |key: &str| demo.direct("ann", "Hello").idempotency_key(key);
        let (one, again, other) = (keyed("k").start().await?, keyed("k").start().await?, keyed("l").start().await?);
        assert_eq!((one.run(), again.is_repeat(), other.is_repeat()), (again.run(), true, false));
        assert_ne!(one.thread().id(), other.thread().id());
        kit.run_to_rest().await?;
        assert_eq!(history(one.thread()).await?, ["said Hello", "demo Hello"]);
        assert!(one.thread().delete("ann").await?.is_some());
        kit.finish().await?;
    }

    // H9.5
    async fn what_stands_above_and_before_the_conversation_is_read_and_kept_nowhere(kind) {
        let (models, mut strings) = Puppet::models();
        let agent = Agent::new("demo").model("puppet/x").instructions("Be kind.");
        let kit = kit(kind).agent(agent).models(models).start().await?;
        let thread = thread(&kit);
        let options: TurnOptions = serde_json::from_value(json!({
            "system": ["Today is Monday."], "context": ["It rains.", { "role": "assistant", "content": "I know." }],
            "toolChoice": "none", "modelSettings": { "temperature": 0.5 },
        })).unwrap();
        let call = thread.direct("Well?").options(options).start().await?;
        let asked = strings.recv().await.expect("the model is asked");
        assert_eq!(asked.request.system, ["Be kind.", "Today is Monday."]);
        assert_eq!(asked.request.settings.temperature, Some(0.5));
        let prompt = asked.prompt();
        let at = |what: &str| prompt.find(what).unwrap_or_else(|| panic!("no {what}: {prompt}"));
        assert!(at("It rains.") < at("I know.") && at("I know.") < at("Well?"), "{prompt}");
        asked.answer("Yes");
        assert_eq!(call.generated().await?.text, "Yes");
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["said Well?", "demo Yes"]);
        kit.finish().await?;
    }

    // H9.4
    async fn how_it_ended_is_told_however_it_ended(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let form = StructuredOutput::schema(json!({ "type": "object", "required": ["n"] }));
        let formed = |form: StructuredOutput| TurnOptions { structured_output: Some(form), ..TurnOptions::default() };
        let fits = thread.direct("/say {\"n\":1}").options(formed(form.clone())).generate().await?;
        assert_eq!(fits.object, Some(json!({ "n": 1 })));
        let misfits = thread.direct("No").options(formed(form.answers_max(1))).generate().await?;
        assert_eq!((misfits.finish_reason(), &misfits.error.as_ref().unwrap()["name"]), ("error", &json!("answer_misfit")));
        let waits = thread.direct("/call refund {\"order\":\"A-1\",\"cents\":100}").start().await?;
        let answer = waits.generated().await?;
        assert_eq!((answer.finish_reason(), answer.waiting.len()), ("suspended", 1));
        assert!(thread.abort("ann", Some(waits.run())).await?);
        kit.run_to_rest().await?;
        assert_eq!(waits.generated().await?.finish_reason(), "aborted");
        let nothing = thread.direct(given(json!([]))).start().await.unwrap_err();
        assert_eq!(nothing.code(), "messages_invalid");
        kit.finish().await?;
    }

    async fn what_is_not_kept_of_the_stream_is_told_by_the_run(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let call = || thread.direct("Hello").run_id(run("r-1"));
        call().generate().await?;
        thread.send("Later").await?;
        kit.run_to_rest().await?;
        let key = thread.find().await?.expect("the thread").key;
        let retain = aldis::store::Retain {
            after: aldis::id::ThreadKey(0), threads: 10, chunks: 1_000, before: aldis::clock::Instant(0), keep: 1,
        };
        kit.store().retain_chunks(retain).await.map_err(aldis::Error::from)?;
        assert_eq!(kit.store().last_chunks(key, 10).await.map_err(aldis::Error::from)?.len(), 1);
        let again = call().start().await?.generated().await?;
        assert_eq!((again.text.as_str(), again.finish_reason(), again.steps.len()), ("Hello", "stop", 0));
        kit.finish().await?;
    }

    // H13.1: accepted once, whatever dies, and answered once.
    async fn a_call_that_was_accepted_is_answered_once_whatever_dies(kind) {
        let survived = crash(kind, |kind, _| agents(kind))
            .survives(async |world| {
                for (id, text) in [("r-1", "/call ask {\"question\":\"?\"}"), ("r-2", "two")] {
                    let started = world.ask(async |kit| {
                        let said = given(json!([{ "id": format!("m-{id}"), "role": "user", "content": text }]));
                        Ok(thread(kit).direct(said).run_id(run(id)).start().await?.run().to_string())
                    });
                    assert_eq!(started.await?, id);
                    world.settle().await?;
                }
                world.ask(async |kit| Ok(thread(kit).abort("ann", Some(&run("r-1"))).await?)).await?;
                world.run_to_rest().await?;
                world
                    .ask(async |kit| {
                        let call = thread(kit).direct(given(json!([{ "id": "m-r-2", "role": "user", "content": "two" }])));
                        let answer = call.run_id(run("r-2")).generate().await?;
                        assert_eq!(echoes(&stream(kit, &thread(kit)).await?).len(), 0);
                        Ok((history(&thread(kit)).await?, answer.text))
                    })
                    .await
            })
            .await?;
        let (lines, text) = &survived.value;
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!((lines[2].as_str(), lines[3].as_str(), text.as_str()), ("said two", "demo two", "two"));
        assert!(survived.struck > 0, "{survived:?}");
    }
}

//! Turns whose model is a provider behind HTTP: what comes over the wire is what the thread says, and what goes wrong
//! there is an attempt that has failed.

use std::sync::Arc;
use std::time::Duration;

use aldis::agent::model::{Models, Provider, ProviderConfig, ProviderKind, Timeouts};
use aldis::agent::{Budget, TurnOptions};
use aldis::intake::SendOptions;
use aldis::message::NewSignal;
use aldis::runtime::{Since, Subscription, ThreadHandle};
use aldis::store::Kind;
use aldis::testing::{Error, Setup};
use aldis::workflows::demo;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::common::{echoes, history, stream, thread, told};
use crate::server::{Act, KEY, Server, openai, openai_call, openai_frame};
use crate::support::{kit, secs};

const KIND: ProviderKind = ProviderKind::OpenaiCompatible;

/// The demonstration agent, asking the server's model.
fn asking(kind: Kind, provider: Provider) -> Setup {
    kit(kind).agent(demo::agent().model("test/m")).models(Models::new().with(Arc::new(provider)))
}

fn text(text: &str) -> Value {
    json!({ "content": text })
}

/// A whole answer of one text.
fn saying(said: &str) -> Act {
    Act::Stream(openai(&[text(said)], "stop"))
}

/// A whole answer that calls `add`.
fn calling_add(arguments: &str) -> Act {
    Act::Stream(openai(
        &[openai_call(0, Some("c-a"), Some("add"), ""), openai_call(0, None, None, arguments)],
        "tool_calls",
    ))
}

async fn until_seen(subscription: &mut Subscription, text: &str) -> Result<(), Error> {
    while subscription.next().await?.chunk["payload"]["text"] != text {}
    Ok(())
}

/// What the provider was sent as the conversation, without the texts above it.
fn conversation(server: &Server, request: usize) -> Vec<Value> {
    let mut messages = server.asked()[request].body["messages"].as_array().expect("messages").clone();
    messages.retain(|it| it["role"] != "system");
    messages
}

const HELLO: [&str; 8] = [
    "start",
    "data-user-message Hi",
    "step-start 1",
    "text-start",
    "text-delta Hello",
    "text-end",
    "step-finish \"stop\" false",
    "finish \"stop\" false",
];

each_store! {
    async fn a_text_is_seen_while_it_comes_and_kept_once_it_is_there(kind) {
        let go = Arc::new(Notify::new());
        let rest = Act::Stream(openai(&[text("lo")], "stop"));
        let server = Server::that([Act::Then(vec![openai_frame(&text("Hel"))], Arc::clone(&go), Box::new(rest))]).await;
        let kit = asking(kind, server.provider(KIND)).start().await?;
        let thread = thread(&kit);
        let mut subscription = thread.subscribe(Since::Cursor(0));
        thread.send("Hi").await?;
        until_seen(&mut subscription, "Hel").await?;
        assert_eq!(history(&thread).await?, ["user Hi"]);
        go.notify_one();
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["user Hi", "demo Hello"]);
        let chunks = stream(&kit, &thread).await?;
        assert_eq!(told(&chunks), HELLO);
        let finish = &chunks.last().unwrap()["payload"];
        assert_eq!(finish["output"]["usage"], json!({ "inputTokens": 12, "outputTokens": 5, "totalTokens": 17 }));
        let asked = &server.asked()[0];
        assert_eq!((&asked.body["model"], &asked.body["stream"]), (&json!("m"), &json!(true)));
        assert_eq!(asked.body["messages"][0], json!({ "role": "system", "content": "You are a demonstration." }));
        assert_eq!(conversation(&server, 0), [json!({ "role": "user", "content": "Hi" })]);
        kit.finish().await?;
    }

    // T11.11
    async fn an_answer_that_is_cut_off_is_had_again(kind) {
        let go = Arc::new(Notify::new());
        let cut = Act::Then(vec![openai_frame(&text("Hel"))], Arc::clone(&go), Box::new(Act::Break(Vec::new())));
        let server = Server::that([cut, saying("Hello")]).await;
        let kit = asking(kind, server.provider(KIND)).start().await?;
        let thread = thread(&kit);
        let mut subscription = thread.subscribe(Since::Cursor(0));
        thread.send("Hi").await?;
        until_seen(&mut subscription, "Hel").await?;
        go.notify_one();
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["user Hi", "demo Hello"]);
        let chunks = stream(&kit, &thread).await?;
        echoes(&chunks);
        let starts: Vec<_> = chunks.iter().filter(|it| it["type"] == "step-start").map(|it| &it["payload"]).collect();
        assert_eq!(starts.len(), 2);
        assert_eq!((&starts[1]["stepNumber"], &starts[1]["restarted"]), (&json!(1), &json!(true)));
        assert_eq!(told(&chunks), HELLO);
        assert_eq!(server.asked()[0].body, server.asked()[1].body);
        kit.finish().await?;
    }

    async fn an_answer_that_stalls_is_given_up_and_had_again(kind) {
        let server = Server::that([Act::Stall(vec![openai_frame(&text("Hel"))]), saying("Hello")]).await;
        let timeouts = Timeouts { read_ms: 20, ..Timeouts::default() };
        let impatient = ProviderConfig { timeouts, ..server.config(KIND) };
        let kit = asking(kind, Provider::new("test", impatient).expect("a provider")).start().await?;
        let thread = thread(&kit);
        let sent = thread.send("Hi").await?;
        kit.run_to_rest().await?;
        assert_eq!(told(&stream(&kit, &thread).await?), HELLO);
        let journal = kit.journal(&kit.find(sent.run.unwrap().as_str()).await?).await?;
        assert!(journal.contains("nothing came for 20 ms in the middle of the answer"), "{journal}");
        kit.finish().await?;
    }

    // The turn's own bound of silence: the connection is given back.
    async fn a_provider_that_says_nothing_is_left(kind) {
        let server = Server::that([Act::Stall(vec![openai_frame(&text("Hel"))]), saying("Hello")]).await;
        let kit = asking(kind, server.provider(KIND)).start().await?;
        let thread = thread(&kit);
        let mut subscription = thread.subscribe(Since::Cursor(0));
        let budget = Budget { idle_max_ms: Some(30_000), ..Budget::default() };
        let turn = ThreadHandle::turn(&TurnOptions { budget, ..TurnOptions::default() })?;
        thread.send_with(NewSignal::user("Hi"), SendOptions { turn, ..SendOptions::default() }).await?;
        until_seen(&mut subscription, "Hel").await?;
        kit.hands().advance(secs(30));
        server.until_left().await;
        kit.run_to_rest().await?;
        assert_eq!(told(&stream(&kit, &thread).await?), HELLO);
        kit.finish().await?;
    }

    // T12.1
    async fn an_abort_leaves_the_provider(kind) {
        let server = Server::that([Act::Stall(vec![openai_frame(&text("Hel"))])]).await;
        let kit = asking(kind, server.provider(KIND)).start().await?;
        let thread = thread(&kit);
        let mut subscription = thread.subscribe(Since::Cursor(0));
        thread.send("Hi").await?;
        until_seen(&mut subscription, "Hel").await?;
        assert!(thread.abort("ann", None).await?);
        server.until_left().await;
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["user Hi", "demo Hel (aborted)"]);
        kit.finish().await?;
    }

    // H10.5
    async fn a_thread_that_is_deleted_leaves_the_provider(kind) {
        let server = Server::that([Act::Stall(vec![openai_frame(&text("Hel"))])]).await;
        let kit = asking(kind, server.provider(KIND)).start().await?;
        let thread = thread(&kit);
        let mut subscription = thread.subscribe(Since::Cursor(0));
        thread.send("Hi").await?;
        until_seen(&mut subscription, "Hel").await?;
        thread.delete("ann").await?;
        server.until_left().await;
        kit.run_to_rest().await?;
        assert_eq!(thread.find().await?, None);
        kit.finish().await?;
    }

    // The provider's word goes before the built-in waits, also where it asks for more than the longest of them.
    async fn a_provider_that_is_asked_too_often_is_asked_again_when_it_says(kind) {
        let busy = |after| Act::Status(429, vec![("retry-after", after)], String::new());
        let server = Server::that([busy("90"), busy("7"), saying("Hello")]).await;
        let kit = asking(kind, server.provider(KIND)).start().await?;
        let thread = thread(&kit);
        thread.send("Hi").await?;
        for (asked, wait) in [(1, 90), (2, 7)] {
            kit.settle().await?;
            kit.advance(secs(wait) - Duration::from_millis(1)).await?;
            assert_eq!(server.asked().len(), asked);
            kit.advance(Duration::from_millis(1)).await?;
            assert_eq!(server.asked().len(), asked + 1);
        }
        assert_eq!(told(&stream(&kit, &thread).await?), HELLO);
        kit.finish().await?;
    }

    async fn a_call_is_made_and_its_result_is_read(kind) {
        let server = Server::that([calling_add("{\"a\":1,\"b\":2}"), saying("It is 3.")]).await;
        let kit = asking(kind, server.provider(KIND)).start().await?;
        let thread = thread(&kit);
        thread.send("Add 1 and 2").await?;
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["user Add 1 and 2", r#"demo [add {"a":1,"b":2}: 3] It is 3."#]);
        let told = told(&stream(&kit, &thread).await?);
        let from = told.iter().position(|it| it == "tool-call add").unwrap_or_else(|| panic!("{told:?}"));
        assert_eq!(told[from..from + 5], [
            "tool-call add", "tool-result add 3", "step-finish \"tool-calls\" true", "step-start 2", "text-start",
        ]);
        let tools = server.asked()[0].body["tools"].as_array().unwrap().clone();
        assert_eq!(tools.iter().map(|it| it["function"]["name"].as_str().unwrap()).collect::<Vec<_>>(), ["add", "refund", "ask"]);
        let read = conversation(&server, 1);
        assert_eq!(read[1]["tool_calls"][0]["function"], json!({ "name": "add", "arguments": "{\"a\":1,\"b\":2}" }));
        assert_eq!(read[2], json!({ "role": "tool", "tool_call_id": "c-a", "content": "3" }));
        kit.finish().await?;
    }

    async fn arguments_that_are_broken_are_news_for_the_model(kind) {
        let server = Server::that([calling_add("{\"a\": 1, \"b\""), calling_add("{\"a\":1,\"b\":2}"), saying("It is 3.")]).await;
        let kit = asking(kind, server.provider(KIND)).start().await?;
        let thread = thread(&kit);
        thread.send("Add 1 and 2").await?;
        kit.run_to_rest().await?;
        let read = conversation(&server, 1);
        says!(
            read[2]["content"].as_str().unwrap(),
            @r#"error: the arguments of "add" are not JSON: EOF while parsing an object at line 1 column 12"#
        );
        assert_eq!(read[2]["tool_call_id"], "c-a");
        let lines = history(&thread).await?;
        assert!(lines[1].ends_with(r#"[add {"a":1,"b":2}: 3] It is 3."#), "{lines:?}");
        kit.finish().await?;
    }

    // Nothing that is kept or shown has the key, whatever the provider says of it.
    async fn a_key_that_is_refused_fails_the_run_in_words_without_the_key(kind) {
        let refusal = json!({ "error": { "message": format!("wrong key {KEY}"), "type": "auth" } }).to_string();
        let server = Server::that([Act::Status(401, Vec::new(), refusal)]).await;
        let kit = asking(kind, server.provider(KIND)).start().await?;
        let thread = thread(&kit);
        let sent = thread.send("Hi").await?;
        kit.run_to_rest().await?;
        let run = kit.find(sent.run.unwrap().as_str()).await?;
        assert_eq!(run.row().await?.status.word(), "failed");
        let chunks = stream(&kit, &thread).await?;
        says!(
            told(&chunks).pop().unwrap(),
            @r#"error "step \"model\" failed after 1 attempt: the provider of model test/m refused the key (status 401): auth: wrong key [key]""#
        );
        for kept in [serde_json::to_string(&chunks).unwrap(), kit.journal(&run).await?] {
            assert!(kept.contains("refused the key") && !kept.contains(KEY), "{kept}");
        }
        assert_eq!(server.asked().len(), 1);
        kit.finish().await?;
    }
}

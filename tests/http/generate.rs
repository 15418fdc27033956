//! `generate` and `stream` (H9.3 to H9.6).

use std::time::Duration;

use aldis::http::{Keys, Options};
use aldis::runtime::NewKey;
use axum::http::Request;
use serde_json::{Value, json};

use crate::served::{Served, post, types};

const GENERATE: &str = "/api/agents/demo/generate";
const STREAM: &str = "/api/agents/demo/stream";

fn memory() -> Value {
    json!({ "thread": "t", "resource": "ann" })
}

fn asks(text: &str) -> Value {
    json!({ "messages": text, "memory": memory() })
}

/// The roles of the messages of Ann's thread `t`.
async fn roles(served: &Served) -> Vec<String> {
    let listed = served.get("/api/memory/threads/t/messages").await.ok();
    let of = |it: &Value| it["role"].as_str().expect("a role").to_owned();
    listed["messages"].as_array().expect("a list").iter().map(of).collect()
}

/// A request of somebody with a key.
fn keyed(key: &NewKey, mut request: Request<axum::body::Body>) -> Request<axum::body::Body> {
    let bearer = format!("Bearer {}", key.secret).parse().expect("a header");
    request.headers_mut().insert("authorization", bearer);
    request
}

each_store! {
    // H9.3, H9.4
    async fn the_whole_answer_is_one_json(kind) {
        let served = Served::start(kind).await?;
        let answer = served.post(GENERATE, asks("/call add {\"a\":1,\"b\":2}")).await.ok();
        assert_eq!((&answer["text"], &answer["finishReason"]), (&json!("add answered 3"), &json!("stop")));
        assert_eq!(answer["steps"].as_array().unwrap().len(), 2);
        assert_eq!(answer["toolResults"][0]["payload"]["result"], 3);
        assert!(answer["usage"]["totalTokens"].as_u64().unwrap() > 0, "{answer}");
        assert_eq!(answer["response"]["messages"].as_array().unwrap().len(), 3);
        assert!(answer.get("error").is_none() && answer.get("suspendPayload").is_none(), "{answer}");
        served.kit.settle().await?;
        assert_eq!(roles(&served).await, ["user", "assistant"]);
        let run = answer["runId"].as_str().unwrap();
        assert_eq!(served.get(&format!("/api/runs/{run}")).await.ok()["status"], "completed");
        served.finish().await?;
    }

    // H9.6, H4.3, H3.5
    async fn a_stream_has_no_echo_and_its_finish_says_all(kind) {
        let served = Served::start(kind).await?;
        let mut events = served.stream(post(STREAM, &asks("Hello there").to_string())).await;
        assert_eq!(events.headers["content-type"], "text/event-stream");
        let chunks = events.until("finish").await;
        let seen = types(&chunks);
        assert_eq!((seen[0], seen[1], *seen.last().unwrap()), ("start", "step-start", "finish"));
        assert!(!seen.contains(&"data-user-message"), "{seen:?}");
        let payload = &chunks.last().unwrap()["payload"];
        assert_eq!(payload["response"]["messages"][0]["content"][0]["text"], "Hello there");
        assert_eq!(payload["response"]["uiMessages"][0]["role"], "assistant");
        assert_eq!((&payload["messages"]["user"], &payload["output"]["steps"][0]["text"]), (&json!(["Hello there"]), &json!("Hello there")));
        assert_eq!(events.block().await.as_deref(), Some("data: [DONE]"));
        served.finish().await?;
    }

    // H4.5: every stream of a call ends with a finish.
    async fn a_failure_is_told_in_both_forms(kind) {
        let served = Served::start(kind).await?;
        let mut asked = asks("No");
        asked["structuredOutput"] = json!({ "schema": { "type": "object" }, "answersMax": 1 });
        let answer = served.post(GENERATE, asked.clone()).await.ok();
        assert_eq!((&answer["finishReason"], &answer["error"]["name"]), (&json!("error"), &json!("answer_misfit")));
        let chunks = served.stream(post(STREAM, &asked.to_string())).await.until("finish").await;
        let seen = types(&chunks);
        assert_eq!(seen[seen.len() - 3..], ["error", "step-finish", "finish"], "{seen:?}");
        asked["messages"] = json!("/say {}");
        assert_eq!(served.post(GENERATE, asked).await.ok()["object"], json!({}));
        served.finish().await?;
    }

    // H13.1
    async fn what_is_sent_again_is_answered_again_and_not_said_again(kind) {
        let served = Served::start(kind).await?;
        let first = served.post_keyed(GENERATE, "k", asks("Hello")).await.ok();
        assert_eq!(served.post_keyed(GENERATE, "k", asks("Hello")).await.ok(), first);
        assert_eq!(served.post_keyed(GENERATE, "k", asks("Bye")).await.refused().1, "signal_conflict");
        let mut named = asks("Named");
        named["runId"] = json!("r-1");
        let ran = served.post(GENERATE, named.clone()).await.ok();
        assert_eq!(ran["runId"], "r-1");
        let again = served.stream(post(STREAM, &named.to_string())).await.until("finish").await;
        assert!(again.iter().all(|chunk| chunk["runId"] == "r-1"), "{again:?}");
        // Without a thread too.
        let alone = |text: &str| json!({ "messages": text });
        let one = served.post_keyed(GENERATE, "k", alone("Hi")).await.ok();
        assert_eq!(served.post_keyed(GENERATE, "k", alone("Hi")).await.ok()["runId"], one["runId"]);
        assert_eq!(served.post_keyed(GENERATE, "k", alone("Ho")).await.refused().0, 409);
        let taken = json!({ "messages": "Named", "runId": "r-1" });
        assert_eq!(served.post(GENERATE, taken).await.refused().1, "run_id_in_use");
        served.kit.settle().await?;
        assert_eq!(roles(&served).await.len(), 4);
        assert_eq!(served.get("/api/memory/threads").await.ok()["total"], 1);
        served.finish().await?;
    }

    // H9.5: the older form, and a thread with what is kept with it.
    async fn the_thread_is_named_in_every_form(kind) {
        let served = Served::start(kind).await?;
        served.post(GENERATE, json!({ "messages": ["One"], "threadId": "t", "resourceId": "ann" })).await.ok();
        let whole = json!({ "id": "t", "title": "Rent", "metadata": { "a": 1 } });
        let with = json!({ "messages": [{ "role": "user", "content": "Two" }], "memory": { "thread": whole, "resource": "ann" } });
        served.post(GENERATE, with).await.ok();
        // Its owner is known now.
        served.post(GENERATE, json!({ "messages": "Three", "threadId": "t" })).await.ok();
        served.kit.settle().await?;
        let thread = served.get("/api/memory/threads/t").await.ok();
        assert_eq!((&thread["resourceId"], &thread["title"], &thread["metadata"]["a"]), (&json!("ann"), &json!("Rent"), &json!(1)));
        assert_eq!(roles(&served).await.len(), 6);
        served.finish().await?;
    }

    // H2.2, H2.4
    async fn what_is_wrong_is_named_and_nothing_is_written(kind) {
        let served = Served::start(kind).await?;
        let field = async |body: Value| {
            let answer = served.post(GENERATE, body).await;
            assert_eq!(answer.refused().0, 400, "{answer:?}");
            answer.json()["issues"][0]["field"].as_str().unwrap_or_default().to_owned()
        };
        assert_eq!(field(json!({})).await, "messages");
        assert_eq!(field(json!({ "messages": [] })).await, "messages");
        assert_eq!(field(json!({ "messages": [{ "role": "robot" }] })).await, "messages.0.role");
        assert_eq!(field(json!({ "messages": "Hi", "maxSteps": "many" })).await, "maxSteps");
        assert_eq!(field(json!({ "messages": "Hi", "memory": { "thread": "t" } })).await, "memory.resource");
        assert_eq!(field(json!({ "messages": "Hi", "memory": { "thread": 7 } })).await, "memory.thread");
        let schema = json!({ "messages": "Hi", "structuredOutput": { "schema": { "type": "objekt" } } });
        assert_eq!(served.post(GENERATE, schema).await.refused().1, "turn_options_invalid");
        let unknown = served.post("/api/agents/nobody/stream", json!({ "messages": "Hi" })).await.refused();
        assert_eq!((unknown.0, unknown.1.as_str()), (404, "agent_unknown"));
        assert_eq!(served.post("/api/agents/nobody/stream", json!({})).await.refused().0, 400);
        let result = json!({ "messages": [{ "role": "tool", "content": [{ "type": "tool-result", "toolCallId": "c" }] }] });
        assert_eq!(served.post(GENERATE, result).await.refused().1, "call_not_waiting");
        assert_eq!(served.get("/api/runs").await.ok()["runs"], json!([]));
        // What is not known passes (H1.4).
        let more = json!({ "messages": "Hi", "tracingOptions": {}, "savePerStep": true, "model": "other" });
        served.post(GENERATE, more).await.ok();
        served.finish().await?;
    }

    // H1.8, T2.3: strangers and neighbours.
    async fn nobody_speaks_on_a_thread_of_another(kind) {
        let served = Served::with(kind, Options { keys: Keys::Required, ..Options::default() }).await?;
        let (ann, bob) = (served.kit.create_key("ann's", Some("ann")).await?, served.kit.create_key("bob's", Some("bob")).await?);
        let ask = |path: &str, body: &Value| post(path, &body.to_string());
        for path in [GENERATE, STREAM] {
            assert_eq!(served.ask(ask(path, &asks("Hi"))).await.refused().0, 401);
        }
        served.ask(keyed(&ann, ask(GENERATE, &asks("Hi")))).await.ok();
        for path in [GENERATE, STREAM] {
            // The key's owner counts, whatever the request says.
            let refused = served.ask(keyed(&bob, ask(path, &asks("Hi")))).await.refused();
            assert_eq!((refused.0, refused.1.as_str()), (403, "thread_foreign"));
        }
        let titled = json!({ "messages": "Hi", "memory": { "thread": { "id": "t", "title": "mine" }, "resource": "ann" } });
        assert_eq!(served.ask(keyed(&bob, ask(GENERATE, &titled))).await.refused().0, 403);
        // What is said outside of all threads is its owner's too.
        let alone = served.ask(keyed(&bob, ask(GENERATE, &json!({ "messages": "Hi" })))).await.ok();
        let observe = json!({ "runId": alone["runId"] });
        let path = "/api/agents/demo/observe";
        assert_eq!(served.ask(keyed(&ann, ask(path, &observe))).await.refused().0, 403);
        assert!(served.ask(keyed(&bob, ask(path, &observe))).await.text.contains("finish"));
        served.finish().await?;
    }

    // H3.7
    async fn who_hangs_up_stops_nothing_unless_that_was_asked(kind) {
        let served = Served::start(kind).await?;
        let mut asked = asks("/call ask {\"question\":\"?\"}\n/call ask {\"question\":\"!\"}");
        let mut events = served.stream(post(STREAM, &asked.to_string())).await;
        let start = events.chunk().await.expect("a chunk");
        drop(events);
        served.kit.settle().await?;
        let waiting = served.get("/api/agents/demo/suspended-runs").await.ok();
        assert_eq!((&waiting["total"], &waiting["runs"][0]["runId"]), (&json!(1), &start["runId"]));
        served.post("/api/agents/demo/threads/abort", json!({ "threadId": "t", "resourceId": "ann" })).await.ok();
        served.kit.settle().await?;
        asked["messages"] = json!("/think 60000");
        asked["abortOnDisconnect"] = json!(true);
        let mut events = served.stream(post(STREAM, &asked.to_string())).await;
        let start = events.chunk().await.expect("a chunk");
        drop(events);
        let told = json!({ "runId": start["runId"] }).to_string();
        let said = served.stream(post("/api/agents/demo/observe", &told)).await.until("abort").await;
        assert_eq!(*types(&said).last().unwrap(), "abort");
        served.finish().await?;
    }

    // An answer takes as long as its run.
    async fn an_answer_is_not_bound_by_the_time_of_a_request(kind) {
        let served = Served::with(kind, Options { timeout: Duration::ZERO, ..Options::default() }).await?;
        assert_eq!(served.get("/api/agents").await.refused().0, 408);
        assert_eq!(served.post(GENERATE, asks("Hello")).await.ok()["text"], "Hello");
        served.finish().await?;
    }

    // H1.7: not a status that has the client say it again.
    async fn a_server_that_stops_says_that_the_run_goes_on(kind) {
        let served = Served::start(kind).await?;
        let mut asked = asks("/think 60000");
        asked["runId"] = json!("r-1");
        let asking = served.post(GENERATE, asked);
        let stops = async {
            while served.kit.find("r-1").await.is_err() {
                tokio::task::yield_now().await;
            }
            served.server.draining().cancel();
        };
        let (answer, ()) = tokio::join!(asking, stops);
        let (status, code, says) = answer.refused();
        assert_eq!((status, code.as_str()), (408, "run_unfinished"));
        assert!(says.starts_with("run r-1 was accepted and goes on"), "{says}");
        assert!(served.kit.find("r-1").await?.row().await?.status.is_open());
        let thread = served.kit.agent("demo").thread("t", "ann")?;
        assert!(thread.abort("the test", None).await?);
        served.finish().await?;
    }

    // H9.4: the run waits for a person.
    async fn a_call_that_needs_approval_is_told_and_goes_on_by_its_run(kind) {
        let served = Served::start(kind).await?;
        let asked = json!({ "messages": "/call add {\"a\":1,\"b\":2}", "requireToolApproval": true });
        let answer = served.post(GENERATE, asked).await.ok();
        assert_eq!((&answer["finishReason"], &answer["suspendPayload"]["toolName"]), (&json!("suspended"), &json!("add")));
        let body = json!({ "runId": answer["runId"], "toolCallId": answer["suspendPayload"]["toolCallId"] });
        let said = served.stream(post("/api/agents/demo/approve-tool-call", &body.to_string())).await.until("finish").await;
        assert_eq!(types(&said)[0], "tool-result");
        served.finish().await?;
    }
}

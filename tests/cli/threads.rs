//! Threads from the command line: talking, approving from another terminal, and SIGKILL in between.

use std::time::Duration;

use aldis::intake::SendOptions;
use aldis::message::NewSignal;
use serde_json::{Value, json};

use crate::support::Place;

#[test]
fn a_message_is_answered_and_stands_in_the_history() {
    let place = Place::sqlite();
    let sent = place.aldis(&["send", "t", "Hello"]);
    assert_eq!((sent.code, sent.out.as_str()), (0, "Hello\n"), "{sent:?}");
    let called = place.aldis(&["send", "t", "/call add {\"a\":1,\"b\":2}"]);
    assert_eq!(called.out, "[add {\"a\":1,\"b\":2}]\n[add: 3]\nadd answered 3\n");
    let history = place.aldis(&["thread", "t"]).out;
    assert!(history.starts_with("user: Hello\nassistant: Hello\n"), "{history}");
    assert_eq!(place.aldis(&["threads", "--json"]).json()[0]["state"], "idle");
}

#[test]
fn a_conversation_is_recorded_and_played() {
    let place = Place::sqlite();
    let file = "talk.json";
    let secret = ("SOME_API_KEY", "sk-very-secret-1234");
    let asked = format!("/say the key is {}", secret.1);
    let sent = place.aldis_under(&[secret], &["send", "t", &asked, "--record", file]);
    assert_eq!((sent.code, sent.out.as_str()), (0, "the key is sk-very-secret-1234\n"), "{sent:?}");
    let recorded = std::fs::read_to_string(place.folder.path().join(file)).unwrap();
    assert!(!recorded.contains(secret.1) && recorded.contains("the key is [SOME_API_KEY]"), "{recorded}");
    let again = place.aldis(&["send", "t", "Hello", "--record", file]);
    assert!(again.code == 2 && again.err.contains("is there already; play it with --play"), "{again:?}");
    // The same on a thread of its own: what the model reads is the same.
    let played = place.aldis(&["send", "u", &asked, "--play", file]);
    assert_eq!((played.code, played.out.as_str()), (0, "the key is [SOME_API_KEY]\n"), "{played:?}");
    let other = place.aldis(&["send", "v", "Something else", "--play", file]);
    assert!(other.code == 1 && other.err.contains("holds no reply to this request"), "{other:?}");
}

#[test]
fn a_thread_of_somebody_else_is_refused() {
    let place = Place::sqlite();
    place.aldis(&["send", "t", "Hello"]);
    let refused = place.aldis(&["send", "t", "Hello", "--resource", "somebody"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("Access denied: thread belongs to a different resource"), "{refused:?}");
}

#[test]
fn an_agent_that_is_not_there_is_refused_by_name() {
    let refused = Place::sqlite().aldis(&["send", "t", "Hello", "--agent", "demi"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("Agent with id demi not found; here are: demo"), "{refused:?}");
}

// T13.11: what waits for a person is listed with all that the person needs to answer it.
#[tokio::test]
async fn runs_that_wait_are_listed_with_their_calls() {
    let place = Place::sqlite();
    let talking = place.begin(&["send", "t", TWO_CALLS, "--json"]);
    waiting(&place, "t").await;
    talking.kill();
    let listed = place.aldis(&["approvals", "--json"]).json();
    assert_eq!((listed.len(), listed[0]["thread"].as_str()), (1, Some("t")), "{listed:?}");
    let call = &listed[0]["calls"][0];
    assert_eq!((call["tool"].as_str(), call["args"]["order"].as_str()), (Some("refund"), Some("A-1")));
    assert_eq!(call["requires_approval"], true);
    let history = place.aldis(&["thread", "t"]).out;
    let call = call["call"].as_str().unwrap();
    assert!(
        history.ends_with(&format!("[refund {{\"order\":\"A-1\",\"cents\":100}} waits for an answer: call {call}]\n")),
        "{history}"
    );
    assert!(history.contains("[add {\"a\":1,\"b\":2} is under way]"), "{history}");
    let table = place.aldis(&["approvals", "--thread", "t", "--since", "1h"]).out;
    assert!(table.starts_with("THREAD  OWNER  AGENT") && table.contains("refund"), "{table}");
    for others in [["--resource", "bob"], ["--until", "1h"]] {
        let nothing = place.aldis(&["approvals", "--json", others[0], others[1]]);
        assert_eq!((nothing.code, nothing.out.as_str()), (0, ""), "{nothing:?}");
    }
}

// T13.14: a call of a tool that runs elsewhere is found in the history, answered, and its turn's options go on with it.
#[tokio::test]
async fn what_a_tool_came_to_elsewhere_is_answered() {
    let place = Place::sqlite();
    let worker = place.begin(&["work", "--json"]);
    let client = aldis::Aldis::open(&place.store).connect().await.unwrap();
    let thread = client.agent("demo").thread("t", "cli").unwrap();
    let look = json!({ "description": "Looks.", "inputSchema": { "type": "object" } });
    let turn = json!({ "clientTools": { "look": look }, "maxSteps": 3 });
    let options = SendOptions { turn, ..SendOptions::default() };
    let sent =
        thread.send_with(NewSignal::user("/call look {\"at\":1}\n/call look {\"at\":2}"), options).await.unwrap();
    client.store().close().await;
    place.until(sent.run.unwrap().as_str(), "completed").await;
    let history = place.aldis(&["thread", "t"]).out;
    let calls: Vec<&str> =
        history.split("has no result: call ").skip(1).map(|it| it.split(']').next().unwrap()).collect();
    assert_eq!(calls.len(), 2, "{history}");
    let refused = |args: &[&str]| place.aldis(&[&["answer", "t"], args].concat());
    insta::assert_snapshot!(refused(&["nobody's", "1"]).err, @"aldis: no call nobody's waits for an answer on thread t: no active or suspended run was found for it; `aldis approvals` says where one waits");
    insta::assert_snapshot!(refused(&["c", "shut"]).err, @"aldis: the result of call c is not JSON: expected value at line 1 column 1; a text is written '\"so\"'");
    insta::assert_snapshot!(refused(&["c", "1", "d"]).err, @"aldis: call d has no result: give CALL JSON, in pairs");
    let answered = place.aldis(&["answer", "t", calls[0], "\"shut\"", calls[1], "{\"open\":true}", "--json"]);
    let run = answered.json()[0]["run"].as_str().unwrap_or_else(|| panic!("{answered:?}")).to_owned();
    place.until(&run, "completed").await;
    let history = place.aldis(&["thread", "t"]).out;
    assert!(
        history.contains("[look {\"at\":1} result: \"shut\"]\n  [look {\"at\":2} result: {\"open\":true}]"),
        "{history}"
    );
    let begun = &place.aldis(&["journal", &run, "--json"]).json()[0];
    assert_eq!(begun["input"]["options"]["maxSteps"], 3, "{begun}");
    let again = place.aldis(&["answer", "t", calls[0], "\"open\"", calls[1], "{\"open\":true}"]);
    assert!(again.code == 2 && again.err.contains("answered"), "{again:?}");
    assert_eq!(worker.stop(), 0);
}

/// Waits until a call waits for an answer.
async fn waiting(place: &Place, thread: &str) -> String {
    for _ in 0..600 {
        let threads = place.aldis(&["threads", "--json"]);
        if threads.code == 0 && threads.json().iter().any(|it| it["id"] == thread && it["state"] == "suspended") {
            return thread.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no call waits on {thread}: {:?}", place.aldis(&["threads"]));
}

const TWO_CALLS: &str = "/call add {\"a\":1,\"b\":2}\n/call refund {\"order\":\"A-1\",\"cents\":100}";

/// A turn with two calls is killed while one of them waits for approval; another process goes on. The call that was made
/// is not made again, the answer comes once, and a subscriber with its cursor sees no gap and no repeat.
async fn a_killed_turn_goes_on(place: Place) {
    let talking = place.begin(&["send", "t", TWO_CALLS, "--json"]);
    waiting(&place, "t").await;
    talking.kill();
    let before = place.aldis(&["runs", "--json"]).json();
    let run = before[0]["id"].as_str().expect("a run").to_owned();
    let cursor = chunks(&place).await.len();
    let worker = place.begin(&["work"]);
    assert_eq!(place.aldis(&["approve", "t"]).code, 0);
    // The same answer again is the same answer, another one is refused.
    place.until(&run, "completed").await;
    let events = place.events(&run);
    assert_eq!(events.iter().filter(|event| *event == "StepScheduled tool").count(), 2, "{events:?}");
    let finished = events.iter().filter(|event| *event == "StepFinished").count();
    assert_eq!(finished, 4, "two model calls and two tool calls: {events:?}");
    let all = chunks(&place).await;
    let places: Vec<i64> = all.iter().map(|(place, _)| *place).collect();
    assert_eq!(places, (1..=all.len() as i64).collect::<Vec<_>>(), "no gap");
    let kinds: Vec<&str> = all.iter().map(|(_, chunk)| chunk["type"].as_str().unwrap_or_default()).collect();
    for once in ["start", "data-user-message", "finish"] {
        assert_eq!(kinds.iter().filter(|kind| **kind == once).count(), 1, "{once}: {kinds:?}");
    }
    assert!(!kinds[cursor..].contains(&"tool-call"), "a call is not shown again: {kinds:?}");
    assert_eq!(worker.stop(), 0);
    place.remove().await;
}

/// All chunks of the thread `t`, with their places.
async fn chunks(place: &Place) -> Vec<(i64, Value)> {
    let client = aldis::Aldis::open(&place.store).connect().await.unwrap();
    let thread = client.agent("demo").thread("t", "cli").unwrap().find().await.unwrap().expect("the thread");
    let read = client.store().chunks(thread.key, 0, 10_000).await.unwrap();
    client.store().close().await;
    read.into_iter().map(|it| (it.offset, it.value.read().unwrap())).collect()
}

#[tokio::test]
async fn a_turn_killed_while_it_waits_for_approval_goes_on_in_another_process_on_sqlite() {
    a_killed_turn_goes_on(Place::sqlite()).await;
}

#[tokio::test]
async fn a_turn_killed_while_it_waits_for_approval_goes_on_in_another_process_on_postgres() {
    a_killed_turn_goes_on(Place::postgres().await).await;
}

// Case 3 of section 23: wake, joined, queued and persisted input, each killed right after it was acknowledged.
#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let place = Place::sqlite();
    // A call that waits for approval keeps the turn under way.
    let talking = place.begin(&["send", "t", "/call refund {\"order\":\"A-1\",\"cents\":100}", "--json"]);
    assert!(talking.first.contains("\"action\":\"wake\""), "{}", talking.first);
    let joined = place.aldis(&["send", "t", "/say joined", "--detach", "--json"]);
    assert_eq!(joined.json()[0]["action"], "deliver", "{joined:?}");
    let queued = place.aldis(&["send", "t", "/say queued", "--queue", "--detach", "--json"]);
    assert_eq!(queued.json()[0]["action"], "deliver");
    waiting(&place, "t").await;
    talking.kill();
    let worker = place.begin(&["work"]);
    assert_eq!(place.aldis(&["approve", "t"]).code, 0);
    let mut history = String::new();
    for _ in 0..400 {
        history = place.aldis(&["thread", "t"]).out;
        if history.contains("assistant: queued") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let lines: Vec<&str> = history.lines().filter(|line| line.contains("assistant: ")).collect();
    assert_eq!(lines[lines.len() - 2..], ["assistant: joined", "assistant: queued"], "{history}");
    assert_eq!(history.matches("/say joined").count(), 1);
    assert_eq!(history.matches("/say queued").count(), 1);
    assert_eq!(worker.stop(), 0);
}

use std::time::Duration;

use aldis::agent::model::{Deltas, Finish, Model, Offline, Reply, Request, ToolChoice};
use aldis::message::{AssistantPart, Part, PromptMessage, ToolCall, ToolResult};
use futures::FutureExt;
use proptest::prelude::*;
use serde_json::json;
use tokio::time::Instant;

use crate::support::{asking, heard, told};

async fn answer(request: &Request) -> Reply {
    Offline.ask(request, &Deltas::ignored()).await.expect("the offline model has no way to fail")
}

async fn says(text: &str) -> String {
    answer(&asking(text)).await.text()
}

fn calls(reply: &Reply) -> Vec<(String, serde_json::Value)> {
    reply.calls().map(|call| (call.name.clone(), call.arguments.clone())).collect()
}

#[tokio::test]
async fn it_echoes_what_the_user_said_last() {
    let mut request = asking("first");
    request.messages.push(PromptMessage::Assistant { parts: vec![AssistantPart::Text("first".to_owned())] });
    request.messages.push(PromptMessage::user("second thought"));
    let (reply, deltas) = heard(&Offline, &request).await;
    let reply = reply.expect("an answer");
    assert_eq!((reply.text().as_str(), reply.finish.word()), ("second thought", "stop"));
    assert_eq!((reply.usage.input, reply.usage.output, reply.usage.total), (4, 2, 6));
    insta::assert_snapshot!(told(&deltas), @r#"
    text t0 begins
    text t0 "second "
    text t0 "thought"
    text t0 ends
    "#);
}

#[tokio::test]
async fn what_was_said_since_its_last_answer_it_answers_together() {
    let mut request = asking("one");
    request.messages.push(PromptMessage::User {
        parts: vec![Part::text("two"), Part::file("aGk=", "text/plain"), Part::text("three")],
        provider_options: serde_json::Map::new(),
    });
    assert_eq!(answer(&request).await.text(), "one\ntwo\nthree");
}

#[tokio::test]
async fn it_says_what_it_is_told_to() {
    assert_eq!(says("/say Good day.\nthis is left out\n/say And good night.").await, "Good day.\nAnd good night.");
}

#[tokio::test]
async fn each_call_line_makes_a_call_of_one_reply() {
    let request = asking("please\n/call look {\"at\": [1, 2]}\n  /call ping\n");
    let (reply, deltas) = heard(&Offline, &request).await;
    let reply = reply.expect("an answer");
    assert_eq!(calls(&reply), [("look".to_owned(), json!({"at": [1, 2]})), ("ping".to_owned(), json!({}))]);
    assert_eq!((reply.text(), reply.finish.clone()), (String::new(), Finish::ToolCalls));
    let ids: Vec<&str> = reply.calls().map(|call| call.id.as_str()).collect();
    assert_ne!(ids[0], ids[1]);
    let told = told(&deltas).replace(ids[0], "A").replace(ids[1], "B");
    insta::assert_snapshot!(told, @r#"
    call A of look begins
    call A "{\"at\":[1,2]}"
    call A ends
    call B of ping begins
    call B "{}"
    call B ends
    "#);
    assert_eq!(answer(&request).await, reply, "the same prompt has the same answer");
    let mut longer = request.clone();
    longer.messages.insert(0, PromptMessage::user("earlier"));
    assert_ne!(answer(&longer).await.calls().next().expect("a call").id, ids[0]);
}

#[tokio::test]
async fn a_message_with_attributes_is_obeyed_inside_its_element() {
    let reply = answer(&asking("<user name=\"Ann\">/call look {\"if\": \"a &lt; b &amp;&amp; c\"}</user>")).await;
    assert_eq!(calls(&reply), [("look".to_owned(), json!({"if": "a < b && c"}))]);
    assert_eq!(says("<user name=\"Ann\">Hi</user>").await, "<user name=\"Ann\">Hi</user>");
}

#[tokio::test]
async fn to_tool_results_it_answers_with_what_they_were() {
    let mut request = asking("/call look {}\n/call ping");
    let call = |name: &str| {
        let (id, name) = (name.to_owned(), name.to_owned());
        AssistantPart::Call(ToolCall { id, name, arguments: json!({}) })
    };
    request.messages.push(PromptMessage::Assistant { parts: vec![call("look"), call("ping")] });
    let result =
        |name: &str, output, is_error| ToolResult { call_id: name.to_owned(), name: name.to_owned(), output, is_error };
    let results = vec![result("look", json!({"sun": true}), false), result("ping", json!("no answer"), true)];
    request.messages.push(PromptMessage::Tool { results });
    let reply = answer(&request).await;
    assert_eq!(reply.text(), "look answered {\"sun\":true}; ping failed: no answer");
    assert_eq!(reply.finish, Finish::Stop);
}

#[tokio::test]
async fn what_it_does_not_understand_it_says_in_words() {
    let mut said = Vec::new();
    for line in [
        "/call",
        "/call {\"a\":1}",
        "/call look {broken",
        "/call look [1]",
        "/think soon",
        "/think -1",
        "/think 600001",
    ] {
        let reply = answer(&asking(line)).await;
        assert_eq!((reply.calls().count(), reply.finish.clone()), (0, Finish::Stop), "{line}");
        said.push(reply.text());
    }
    insta::assert_snapshot!(said.join("\n"), @r#"
    I do not understand "/call": /call wants a tool's name and then its arguments as a JSON object.
    I do not understand "/call {\"a\":1}": /call wants a tool's name and then its arguments as a JSON object.
    I do not understand "/call look {broken": the arguments are not JSON, key must be a string at line 1 column 2.
    I do not understand "/call look [1]": the arguments are not a JSON object.
    I do not understand "/think soon": /think wants a whole number of milliseconds.
    I do not understand "/think -1": /think wants a whole number of milliseconds.
    I can think for 600000 ms at most, and was asked for 600001.
    "#);
}

#[tokio::test]
async fn one_call_that_is_wrong_stops_the_others_of_its_message() {
    assert_eq!(answer(&asking("/call good {}\n/call bad {")).await.calls().count(), 0);
}

#[tokio::test]
async fn it_calls_nothing_when_nothing_may_be_called() {
    let request = Request { tool_choice: ToolChoice::None, ..asking("/call look") };
    assert_eq!(answer(&request).await.text(), "No tool may be called now.");
}

#[tokio::test(start_paused = true)]
async fn it_thinks_as_long_as_it_is_told_to() {
    let begun = Instant::now();
    assert_eq!(says("/think 90000\nhello\n/think 30000").await, "hello");
    assert_eq!(begun.elapsed(), Duration::from_secs(120));
    let begun = Instant::now();
    assert_eq!(
        says("/think 400000\n/think 400000").await,
        "I can think for 600000 ms at most, and was asked for 800000."
    );
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_listener_that_has_left_does_not_end_the_answer() {
    let (deltas, from) = Deltas::channel(1);
    drop(from);
    let reply = Offline.ask(&asking("a text of several words"), &deltas).await.expect("an answer");
    assert_eq!(reply.text(), "a text of several words");
}

#[tokio::test]
async fn a_slow_listener_makes_it_wait() {
    let (deltas, mut from) = Deltas::channel(1);
    let request = asking("one two three");
    let mut asked = Offline.ask(&request, &deltas);
    assert!((&mut asked).now_or_never().is_none(), "there is room for one delta only");
    let (reply, heard) = tokio::join!(asked, async {
        let mut heard = 0;
        while heard < 5 && from.recv().await.is_some() {
            heard += 1;
        }
        heard
    });
    assert_eq!((reply.expect("an answer").text().as_str(), heard), ("one two three", 5));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_it_panic(text in "(?s)(/(say|call|think) ?|<a b>|</a>|\\{|\"|1|\n|.){0,40}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let request = asking(&text);
        let reply = runtime.block_on(answer(&request));
        prop_assert_eq!(&reply, &runtime.block_on(answer(&request)));
        prop_assert!(reply.calls().all(|call| call.arguments.is_object()));
    }
}

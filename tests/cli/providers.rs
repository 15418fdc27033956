//! A person's way to a model of a provider: `aldis.toml` with a base URL, and `aldis send`.

use serde_json::json;

use crate::server::{Act, KEY, Server, openai, openai_call, openai_frame};
use crate::support::{Done, Place};

/// A place whose agent `support` asks the server's model.
fn place(server: &Server) -> Place {
    let place = Place::sqlite();
    let settings = format!(
        "[providers.local]\nbase_url = \"{}\"\napi_key = {{ env = \"LOCAL_KEY\" }}\n\
         [agents.support]\ninstructions = \"Be brief.\"\nmodel = \"local/m\"\nbudget = {{ attempts_max = 2 }}\n",
        server.url
    );
    std::fs::write(place.folder.path().join("aldis.toml"), settings).expect("the settings");
    place
}

/// Talks to that agent; the server's answers must not wait for this.
async fn send(place: &Place, args: &[&str]) -> Done {
    let args = [&["send", "t", "--agent", "support"], args].concat();
    tokio::task::block_in_place(|| place.aldis_under(&[("LOCAL_KEY", KEY)], &args))
}

fn saying(text: &str) -> Act {
    Act::Stream(openai(&[json!({ "content": text })], "stop"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_behind_a_base_url_is_talked_to() {
    let server = Server::that([saying("Good morning."), saying("Yes, still here.")]).await;
    let place = place(&server);
    let sent = send(&place, &["Hello"]).await;
    assert_eq!((sent.code, sent.out.as_str()), (0, "Good morning.\n"), "{sent:?}");
    let sent = send(&place, &["Still there?"]).await;
    assert_eq!((sent.code, sent.out.as_str()), (0, "Yes, still here.\n"), "{sent:?}");
    let asked = server.asked();
    assert!(asked[0].headers.contains(&("authorization".to_owned(), format!("Bearer {KEY}"))));
    // Another process, the same conversation.
    let said: Vec<&str> =
        asked[1].body["messages"].as_array().unwrap().iter().map(|it| it["content"].as_str().unwrap()).collect();
    assert_eq!(said, ["Be brief.", "Hello", "Good morning.", "Still there?"]);
}

// T11.11: a stream that is cut is an attempt that has failed; a person sees that the answer begins again.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cut_off_is_had_again() {
    let server =
        Server::that([Act::Break(vec![openai_frame(&json!({ "content": "Good mor" }))]), saying("Good morning.")])
            .await;
    let sent = send(&place(&server), &["Hello"]).await;
    assert_eq!(sent.code, 0, "{sent:?}");
    // Whether its beginning was seen before the line went dead is a matter of moments.
    let whole = sent.out.strip_prefix("Good mor\n(once more)\n").unwrap_or(&sent.out);
    assert_eq!(whole, "Good morning.\n", "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_refuses_is_told_in_words_without_the_key() {
    let refusal = json!({ "error": { "message": format!("no credit on {KEY}"), "type": "billing" } }).to_string();
    let server = Server::that([Act::Status(401, Vec::new(), refusal)]).await;
    let place = place(&server);
    let sent = send(&place, &["Hello"]).await;
    assert_eq!(sent.code, 1, "{sent:?}");
    assert!(
        sent.err.contains("the provider of model local/m refused the key (status 401): billing: no credit on [key]"),
        "{sent:?}"
    );
    assert!(!format!("{sent:?}{:?}", place.aldis(&["runs", "--json"])).contains(KEY));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_a_tool_that_is_not_there_is_news_for_the_model() {
    let call = Act::Stream(openai(&[openai_call(0, Some("c-a"), Some("fly"), "{\"to\": \"the mo")], "tool_calls"));
    let server = Server::that([call, saying("I cannot fly.")]).await;
    let sent = send(&place(&server), &["Fly!"]).await;
    assert_eq!(sent.code, 0, "{sent:?}");
    assert!(
        sent.out.ends_with("I cannot fly.\n") && sent.out.contains("[fly failed: there is no tool \"fly\""),
        "{sent:?}"
    );
}

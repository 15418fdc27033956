use std::time::Duration;

use aldis::agent::model::{
    Deltas, Limited, Limits, Model, ModelError, Provider, ProviderConfig, ProviderKind, TimeLimit, Timeouts,
};
use aldis::failure::{Fault, Retry};
use serde_json::json;

use crate::server::{Act, KEY, Server, openai, openai_frame};
use crate::support::asking;

const KIND: ProviderKind = ProviderKind::OpenaiCompatible;

async fn fails(provider: &dyn Model) -> ModelError {
    let error = provider.ask(&asking("Hi"), &Deltas::ignored()).await.expect_err("an error");
    let kept = serde_json::to_string(&error.clone().into_failure()).expect("JSON");
    for text in [error.to_string(), format!("{error:?}"), kept] {
        assert!(!text.contains(KEY), "the key is in {text}");
    }
    error
}

fn hello() -> String {
    openai_frame(&json!({"content": "Hello"}))
}

fn impatient(server: &Server, timeouts: Timeouts) -> Provider {
    let config = ProviderConfig { timeouts, ..server.config(KIND) };
    Provider::new("test", config).expect("a provider")
}

#[tokio::test]
async fn a_status_says_whether_to_try_again() {
    let body = |message: &str| json!({"error": {"message": message, "type": "some_error"}}).to_string();
    let cases = [
        (429, vec![("retry-after", "7")], body("slow down")),
        (429, vec![], body("slow down")),
        (429, vec![], json!({"error": {"message": "pay first", "code": "insufficient_quota"}}).to_string()),
        (500, vec![], "<html>oops</html>".to_owned()),
        (503, vec![("retry-after-ms", "1500")], String::new()),
        (529, vec![], body("overloaded")),
        (401, vec![], body(&format!("wrong key {KEY}, sent as Authorization: Bearer {KEY}"))),
        (403, vec![], body("not for you")),
        (400, vec![], body("no such setting")),
        (404, vec![], body("no model m")),
        (307, vec![("location", "http://127.0.0.1:1/")], String::new()),
    ];
    let server = Server::that(cases.clone().map(|(status, headers, body)| Act::Status(status, headers, body))).await;
    let provider = server.provider(KIND);
    let mut said = Vec::new();
    for (status, ..) in cases {
        let error = fails(&provider).await;
        said.push(format!("{status} {} {:?}: {error}", error.code(), error.retry()));
    }
    insta::assert_snapshot!(said.join("\n"), @r#"
    429 model_rate_limited AfterMillis(7000): model test/m is asked too often: some_error: slow down
    429 model_rate_limited ByPolicy: model test/m is asked too often: some_error: slow down
    429 model_request_refused Never: the provider of model test/m refused the request (status 429): insufficient_quota: pay first
    500 model_unavailable ByPolicy: the provider of model test/m is out of order (status 500): <html>oops</html>
    503 model_unavailable AfterMillis(1500): the provider of model test/m is out of order (status 503): it gave no reason
    529 model_unavailable ByPolicy: the provider of model test/m is out of order (status 529): some_error: overloaded
    401 model_unauthorized Never: the provider of model test/m refused the key (status 401): some_error: wrong key [key], sent as Authorization: Bearer [key]
    403 model_unauthorized Never: the provider of model test/m refused the key (status 403): some_error: not for you
    400 model_request_refused Never: the provider of model test/m refused the request (status 400): some_error: no such setting
    404 model_request_refused Never: the provider of model test/m refused the request (status 404): some_error: no model m
    307 model_request_refused Never: the provider of model test/m refused the request (status 307): it gave no reason
    "#);
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_no_answer() {
    let half = hello()[..30].to_owned();
    let server = Server::that([
        Act::Stream(vec![hello()]),
        Act::Break(vec![hello()]),
        Act::Stream(vec![hello(), half]),
        Act::Stream(vec![]),
    ])
    .await;
    let provider = server.provider(KIND);
    for _ in 0..4 {
        let error = fails(&provider).await;
        assert_eq!((error.code(), error.retry()), ("model_answer_cut", Retry::ByPolicy), "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_stalls_is_given_up() {
    let server = Server::that([Act::Stall(vec![hello()])]).await;
    let error = fails(&impatient(&server, Timeouts { read_ms: 20, ..Timeouts::default() })).await;
    assert_eq!(error, ModelError::TimedOut { model: "test/m".to_owned(), limit: TimeLimit::Read(20) });
    assert_eq!(error.retry(), Retry::ByPolicy);
    insta::assert_snapshot!(error, @"model test/m took too long: nothing came for 20 ms in the middle of the answer");
}

#[tokio::test]
async fn an_answer_that_does_not_begin_is_given_up() {
    let server = Server::that([Act::Silence, Act::Silence]).await;
    let error = fails(&impatient(&server, Timeouts { headers_ms: 20, ..Timeouts::default() })).await;
    assert_eq!(error, ModelError::TimedOut { model: "test/m".to_owned(), limit: TimeLimit::Headers(20) });
    let error = fails(&impatient(&server, Timeouts { total_ms: 20, ..Timeouts::default() })).await;
    assert_eq!(error, ModelError::TimedOut { model: "test/m".to_owned(), limit: TimeLimit::Total(20) });
}

#[tokio::test]
async fn a_provider_that_is_not_there_may_be_there_later() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let config = ProviderConfig::new(KIND).base_url(format!("http://127.0.0.1:{port}/v1/")).api_key(KEY);
    let error = fails(&Provider::new("test", config).expect("a provider")).await;
    assert_eq!((error.code(), error.retry()), ("model_unreachable", Retry::ByPolicy));
}

#[tokio::test]
async fn dropping_a_call_closes_its_connection() {
    let server = Server::that([Act::Stall(vec![hello()]), Act::Silence]).await;
    let provider = server.provider(KIND);
    for _ in 0..2 {
        let request = asking("Hi");
        let (deltas, ignored) = (Deltas::ignored(), ());
        let asked = provider.ask(&request, &deltas);
        tokio::select! {
            answer = asked => panic!("there is no answer: {answer:?} {ignored:?}"),
            () = server.until_asked() => {}
        }
        tokio::time::timeout(Duration::from_secs(10), server.until_left()).await.expect("the connection is closed");
    }
}

#[tokio::test]
async fn a_refusal_holds_back_all_who_ask_the_same_provider() {
    let refusal = Act::Status(429, vec![("retry-after-ms", "20")], String::new());
    let server = Server::that([refusal, Act::Stream(openai(&[json!({"content": "x"})], "stop"))]).await;
    let limited = Limited::new(std::sync::Arc::new(server.provider(KIND)), Limits::default());
    let begun = std::time::Instant::now();
    assert_eq!(fails(&limited).await.retry(), Retry::AfterMillis(20));
    limited.ask(&asking("Hi"), &Deltas::ignored()).await.expect("an answer");
    assert!(begun.elapsed() >= Duration::from_millis(20));
}

#[test]
fn a_provider_that_is_set_up_wrongly_is_refused_in_words() {
    let refused = |config: ProviderConfig| Provider::new("mine", config).expect_err("a refusal").to_string();
    let said = [
        refused(ProviderConfig::new(KIND)),
        refused(ProviderConfig::new(KIND).base_url("not an address")),
        refused(ProviderConfig::new(KIND).base_url("ftp://example.org/")),
        refused(ProviderConfig::new(KIND).base_url("https://ann:s3cret@example.org/v1?key=s3cret")),
        refused(ProviderConfig::new(ProviderKind::Anthropic)),
    ];
    assert!(said.iter().all(|text| !text.contains("s3cret")));
    insta::assert_snapshot!(said.join("\n"), @r#"
    model mine/… cannot be asked this: a provider of kind openai_compatible needs a base_url
    model mine/… cannot be asked this: its base_url (no address): relative URL without a base
    model mine/… cannot be asked this: its base_url ftp://example.org/: only http and https are spoken here
    model mine/… cannot be asked this: its base_url https://example.org/v1: a name or password has no place in an address; use api_key
    model mine/… cannot be asked this: it needs an api_key
    "#);
}

#[test]
fn a_configuration_is_read_and_shown_without_its_secrets() {
    let config = json!({"kind": "openai_compatible", "base_url": "https://example.org/v1?key=s3cret", "api_key": KEY,
        "timeouts": {"read_ms": 5}});
    let config: ProviderConfig = serde_json::from_value(config).expect("a configuration");
    let shown = format!("{config:?} {:?}", Provider::new("mine", config.clone()).expect("a provider"));
    assert!(!shown.contains(KEY) && !shown.contains("s3cret"), "{shown}");
    insta::assert_snapshot!(format!("{config:?}"), @r#"ProviderConfig { kind: OpenaiCompatible, base_url: Some("https://example.org/v1"), api_key: Some(SecretBox<str>([REDACTED])), timeouts: Timeouts { connect_ms: 10000, headers_ms: 120000, read_ms: 5, total_ms: 1200000 } }"#);
}

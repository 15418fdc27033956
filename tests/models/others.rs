use aldis::agent::model::{Deltas, Finish, Model, ModelError, ProviderKind, Request};
use aldis::message::{AssistantPart, PromptMessage};
use serde_json::{Value, json};

use crate::server::{Act, Server};
use crate::support::{asking, heard, told};

fn gemini(parts: Value, reason: Option<&str>) -> String {
    let mut candidate = json!({"content": {"role": "model", "parts": parts}});
    if let Some(reason) = reason {
        candidate["finishReason"] = json!(reason);
    }
    let frame = json!({"candidates": [candidate], "responseId": "g-1", "modelVersion": "gemini-x-001",
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}});
    format!("data: {frame}\n\n")
}

fn ollama(message: Value, done: bool) -> String {
    let mut line = json!({"model": "llama", "message": message, "done": done});
    if done {
        line["done_reason"] = json!("stop");
        line["prompt_eval_count"] = json!(3);
        line["eval_count"] = json!(2);
    }
    format!("{line}\n")
}

#[tokio::test]
async fn geminis_calls_keep_their_seals_and_have_ids_of_their_own() {
    let call =
        |at: u32, seal: &str| json!([{"functionCall": {"name": "look", "args": {"at": at}}, "thoughtSignature": seal}]);
    let frames = || {
        vec![
            gemini(json!([{"text": "I look."}]), None),
            gemini(call(1, "seal-1"), None),
            gemini(call(2, "seal-2"), Some("STOP")),
        ]
    };
    let server = Server::that([Act::Stream(frames()), Act::Stream(frames())]).await;
    let provider = server.provider(ProviderKind::Gemini);
    let mut request = asking("Hi");
    let (reply, deltas) = heard(&provider, &request).await;
    let reply = reply.expect("an answer");
    assert_eq!((reply.finish.clone(), reply.response_id.as_deref()), (Finish::ToolCalls, Some("g-1")));
    let ids: Vec<String> = reply.calls().map(|call| call.id.clone()).collect();
    assert_ne!(ids[0], ids[1]);
    let seals: Vec<&str> = reply
        .parts
        .iter()
        .filter_map(|part| match part {
            AssistantPart::Reasoning { signature, .. } => signature.as_deref(),
            _ => None,
        })
        .collect();
    assert_eq!(seals, ["seal-1", "seal-2"]);
    insta::assert_snapshot!(told(&deltas).replace(&ids[0], "A").replace(&ids[1], "B"), @r#"
    text t0 begins
    text t0 "I look."
    text t0 ends
    call A of look begins
    call A "{\"at\":1}"
    call A ends
    call B of look begins
    call B "{\"at\":2}"
    call B ends
    "#);
    request.messages.push(PromptMessage::Assistant { parts: reply.parts });
    provider.ask(&request, &Deltas::ignored()).await.expect("an answer");
    let sent = server.asked()[1].body["contents"][1].clone();
    insta::assert_snapshot!(serde_json::to_string_pretty(&sent).expect("JSON"), @r#"
    {
      "role": "model",
      "parts": [
        {
          "text": "I look."
        },
        {
          "functionCall": {
            "name": "look",
            "args": {
              "at": 1
            }
          },
          "thoughtSignature": "seal-1"
        },
        {
          "functionCall": {
            "name": "look",
            "args": {
              "at": 2
            }
          },
          "thoughtSignature": "seal-2"
        }
      ]
    }
    "#);
}

#[tokio::test]
async fn an_end_that_the_provider_did_not_send_is_no_end() {
    let server = Server::that([
        Act::Stream(vec![gemini(json!([{"text": "Hel"}]), None)]),
        Act::Stream(vec![ollama(json!({"content": "Hel"}), false)]),
    ])
    .await;
    for kind in [ProviderKind::Gemini, ProviderKind::Ollama] {
        let error = server.provider(kind).ask(&asking("Hi"), &Deltas::ignored()).await.expect_err("an error");
        assert!(matches!(error, ModelError::Cut { .. }), "{kind:?}: {error}");
    }
}

#[tokio::test]
async fn ollama_answers_and_is_told_the_schema_in_words() {
    let call = json!({"content": "", "tool_calls": [{"function": {"name": "look", "arguments": {"at": 1}}}]});
    let pieces = vec![ollama(json!({"content": "I "}), false), ollama(json!({"content": "look."}), false)];
    let pieces = [pieces, vec![ollama(call, false), ollama(json!({"content": ""}), true)]].concat();
    let server = Server::that([Act::Stream(pieces)]).await;
    let request = Request { output_schema: Some(json!({"type": "object"})), ..asking("Hi") };
    let reply = server.provider(ProviderKind::Ollama).ask(&request, &Deltas::ignored()).await.expect("an answer");
    assert_eq!((reply.text().as_str(), reply.finish.clone(), reply.usage.total), ("I look.", Finish::ToolCalls, 5));
    assert_eq!(reply.calls().next().expect("a call").arguments, json!({"at": 1}));
    let body = server.asked().remove(0).body;
    assert_eq!(body["format"], json!("json"));
    assert!(body["messages"][0]["content"].as_str().is_some_and(|text| text.contains("{\"type\":\"object\"}")));
}

use aldis::agent::model::{Deltas, Finish, Model, ModelError, ProviderKind, Request};
use aldis::failure::{Fault, Retry};
use aldis::message::{AssistantPart, PromptMessage, ToolCall, ToolResult};
use serde_json::{Value, json};

use crate::server::{Act, KEY, Server, anthropic};
use crate::support::{asking, heard, told};

const KIND: ProviderKind = ProviderKind::Anthropic;

fn begin() -> Value {
    json!({"type": "message_start", "message": {"id": "msg_1", "model": "claude-x", "usage":
        {"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": 4}}})
}

fn answer() -> Vec<String> {
    anthropic(&[
        begin(),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Look first."}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sealed"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "xyz"}}),
        json!({"type": "content_block_stop", "index": 1}),
        json!({"type": "ping"}),
        json!({"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "I "}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "look."}}),
        json!({"type": "content_block_stop", "index": 2}),
        json!({"type": "content_block_start", "index": 3, "content_block":
            {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}}),
        json!({"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": "{\"at\":"}}),
        json!({"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": " 1}"}}),
        json!({"type": "content_block_stop", "index": 3}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 20}}),
        json!({"type": "message_stop"}),
    ])
}

#[tokio::test]
async fn text_thinking_and_a_call_are_streamed_and_gathered() {
    let server = Server::that([Act::Stream(answer())]).await;
    let (reply, deltas) = heard(&server.provider(KIND), &asking("Hi")).await;
    let reply = reply.expect("an answer");
    insta::assert_snapshot!(told(&deltas), @r#"
    reasoning r0 begins
    reasoning r0 "Look first."
    reasoning r0 ends
    text t0 begins
    text t0 "I "
    text t0 "look."
    text t0 ends
    call toolu_1 of look begins
    call toolu_1 "{\"at\":"
    call toolu_1 " 1}"
    call toolu_1 ends
    "#);
    insta::assert_snapshot!(serde_json::to_string_pretty(&reply).expect("JSON"), @r#"
    {
      "parts": [
        {
          "type": "reasoning",
          "value": {
            "text": "Look first.",
            "signature": "sealed"
          }
        },
        {
          "type": "reasoning",
          "value": {
            "text": "",
            "signature": "redacted:{\"type\":\"redacted_thinking\",\"data\":\"xyz\"}"
          }
        },
        {
          "type": "text",
          "value": "I look."
        },
        {
          "type": "call",
          "value": {
            "id": "toolu_1",
            "name": "look",
            "arguments": {
              "at": 1
            }
          }
        }
      ],
      "finish": "tool-calls",
      "usage": {
        "input": 14,
        "output": 20,
        "total": 34,
        "cached": 4
      },
      "response_id": "msg_1",
      "model_id": "claude-x"
    }
    "#);
    assert_eq!(reply.finish, Finish::ToolCalls);
    let asked = server.asked().remove(0);
    assert_eq!(asked.path, "/v1/messages");
    assert!(asked.headers.contains(&("x-api-key".to_owned(), KEY.to_owned())));
}

#[tokio::test]
async fn thinking_goes_back_as_it_came() {
    let server = Server::that([Act::Stream(answer()), Act::Stream(answer())]).await;
    let provider = server.provider(KIND);
    let mut request = asking("Hi");
    let reply = provider.ask(&request, &Deltas::ignored()).await.expect("an answer");
    request.messages.push(PromptMessage::Assistant { parts: reply.parts });
    let result = ToolResult {
        call_id: "toolu_1".to_owned(),
        name: "look".to_owned(),
        output: json!({"seen": 1}),
        is_error: false,
    };
    request.messages.push(PromptMessage::Tool { results: vec![result] });
    provider.ask(&request, &Deltas::ignored()).await.expect("an answer");
    let mut sent = server.asked()[1].body["messages"].clone();
    sent.sort_all_objects();
    insta::assert_snapshot!(serde_json::to_string_pretty(&sent).expect("JSON"), @r#"
    [
      {
        "content": "Hi",
        "role": "user"
      },
      {
        "content": [
          {
            "signature": "sealed",
            "thinking": "Look first.",
            "type": "thinking"
          },
          {
            "data": "xyz",
            "type": "redacted_thinking"
          },
          {
            "text": "I look.",
            "type": "text"
          },
          {
            "id": "toolu_1",
            "input": {
              "at": 1
            },
            "name": "look",
            "type": "tool_use"
          }
        ],
        "role": "assistant"
      },
      {
        "content": [
          {
            "content": "{\"seen\":1}",
            "tool_use_id": "toolu_1",
            "type": "tool_result"
          }
        ],
        "role": "user"
      }
    ]
    "#);
}

#[tokio::test]
async fn arguments_that_were_never_json_go_back_as_an_object() {
    let server = Server::that([Act::Stream(answer())]).await;
    let mut request = Request { ..asking("Hi") };
    let call = ToolCall { id: "toolu_1".to_owned(), name: "look".to_owned(), arguments: json!("{broken") };
    request.messages.push(PromptMessage::Assistant { parts: vec![AssistantPart::Call(call)] });
    server.provider(KIND).ask(&request, &Deltas::ignored()).await.expect("an answer");
    let sent = &server.asked()[0].body["messages"][1]["content"][0];
    assert_eq!(sent["input"], json!({"malformed_arguments": "{broken"}));
}

#[tokio::test]
async fn a_provider_that_breaks_off_in_words_is_understood() {
    let error = |kind: &str| json!({"type": "error", "error": {"type": kind, "message": "sorry"}});
    let broken = |kind: &str| Act::Stream(anthropic(&[begin(), error(kind)]));
    let kinds = ["overloaded_error", "rate_limit_error", "invalid_request_error"];
    let server = Server::that(kinds.map(broken)).await;
    let mut said = Vec::new();
    for _ in kinds {
        let error = server.provider(KIND).ask(&asking("Hi"), &Deltas::ignored()).await.expect_err("an error");
        said.push((error.code(), error.retry()));
    }
    let expected = [
        ("model_unavailable", Retry::ByPolicy),
        ("model_rate_limited", Retry::ByPolicy),
        ("model_request_refused", Retry::Never),
    ];
    assert_eq!(said, expected);
}

#[tokio::test]
async fn an_answer_without_its_end_is_cut() {
    let mut frames = answer();
    frames.pop();
    let server = Server::that([Act::Stream(frames)]).await;
    let error = server.provider(KIND).ask(&asking("Hi"), &Deltas::ignored()).await.expect_err("an error");
    assert!(matches!(error, ModelError::Cut { .. }), "{error}");
}

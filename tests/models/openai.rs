use aldis::agent::model::{
    Deltas, Effort, Finish, Model, Provider, ProviderConfig, ProviderKind, Request, Settings, ToolChoice, ToolSpec,
    Usage,
};
use aldis::message::{AssistantPart, Part, PromptMessage, ToolCall, ToolResult};
use serde_json::json;

use crate::server::{Act, KEY, Server, openai, openai_call as call};
use crate::support::{asking, heard, told};

const KIND: ProviderKind = ProviderKind::OpenaiCompatible;

#[tokio::test]
async fn text_is_streamed_and_gathered() {
    let frames = openai(&[json!({"role": "assistant", "content": "Hel"}), json!({"content": "lo"})], "stop");
    let server = Server::that([Act::Stream(frames)]).await;
    let (reply, deltas) = heard(&server.provider(KIND), &asking("Hi")).await;
    let reply = reply.expect("an answer");
    assert_eq!((reply.text().as_str(), reply.finish), ("Hello", Finish::Stop));
    assert_eq!((reply.response_id.as_deref(), reply.model_id.as_str()), (Some("chatcmpl-1"), "m-2026"));
    assert_eq!(reply.usage, Usage { input: 12, output: 5, total: 17, cached: Some(8), reasoning: Some(2) });
    insta::assert_snapshot!(told(&deltas), @r#"
    text t0 begins
    text t0 "Hel"
    text t0 "lo"
    text t0 ends
    "#);
}

#[tokio::test]
async fn an_answer_in_tiny_pieces_is_the_same_answer() {
    let frames = openai(&[json!({"content": "grüße, 世界 🎈"}), json!({"content": " – und Ende"})], "stop").concat();
    let server = Server::that([Act::Dribble(frames.clone()), Act::Dribble(frames.replace('\n', "\r\n"))]).await;
    for _ in 0..2 {
        let reply = server.provider(KIND).ask(&asking("Hi"), &Deltas::ignored()).await.expect("an answer");
        assert_eq!(reply.text(), "grüße, 世界 🎈 – und Ende");
    }
}

#[tokio::test]
async fn calls_are_streamed_and_gathered() {
    let frames = openai(
        &[
            json!({"reasoning_content": "Two "}),
            json!({"reasoning_content": "lookups."}),
            json!({"content": "I look."}),
            call(0, Some("c-a"), Some("look"), ""),
            call(0, None, None, "{\"at\""),
            call(0, None, None, ":1}"),
            call(1, Some("c-b"), Some("ping"), ""),
        ],
        "tool_calls",
    );
    let server = Server::that([Act::Stream(frames)]).await;
    let (reply, deltas) = heard(&server.provider(KIND), &asking("Hi")).await;
    let reply = reply.expect("an answer");
    assert_eq!(reply.finish, Finish::ToolCalls);
    let made = |id: &str, name: &str, arguments| {
        AssistantPart::Call(ToolCall { id: id.to_owned(), name: name.to_owned(), arguments })
    };
    let parts = [
        AssistantPart::Reasoning { text: "Two lookups.".to_owned(), signature: None },
        AssistantPart::Text("I look.".to_owned()),
        made("c-a", "look", json!({"at": 1})),
        made("c-b", "ping", json!({})),
    ];
    assert_eq!(reply.parts, parts);
    insta::assert_snapshot!(told(&deltas), @r#"
    reasoning r0 begins
    reasoning r0 "Two "
    reasoning r0 "lookups."
    reasoning r0 ends
    text t0 begins
    text t0 "I look."
    text t0 ends
    call c-a of look begins
    call c-a "{\"at\""
    call c-a ":1}"
    call c-a ends
    call c-b of ping begins
    call c-b ends
    "#);
}

#[tokio::test]
async fn broken_arguments_are_passed_on_as_they_are() {
    let frames = openai(&[call(0, Some("c-a"), Some("look"), "{\"at\": 1")], "tool_calls");
    let server = Server::that([Act::Stream(frames)]).await;
    let reply = server.provider(KIND).ask(&asking("Hi"), &Deltas::ignored()).await.expect("an answer");
    assert_eq!(reply.calls().next().expect("a call").arguments, json!("{\"at\": 1"));
}

#[tokio::test]
async fn calls_without_ids_are_given_ids_of_their_own() {
    let frames = || openai(&[call(0, None, Some("look"), "{}"), call(1, None, Some("look"), "{}")], "stop");
    let server = Server::that([Act::Stream(frames()), Act::Stream(frames())]).await;
    let provider = server.provider(KIND);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let (reply, deltas) = heard(&provider, &asking("Hi")).await;
        let reply = reply.expect("an answer");
        assert_eq!(reply.finish, Finish::ToolCalls, "whatever the provider calls it");
        let told = told(&deltas);
        for call in reply.calls() {
            assert!(told.contains(&format!("call {} of look begins", call.id)), "{told}");
            ids.push(call.id.clone());
        }
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[tokio::test]
async fn calls_that_are_not_numbered_from_nought_are_not_doubled() {
    let frames = openai(&[call(1, Some("c-a"), Some("look"), "{"), call(1, None, None, "}")], "tool_calls");
    let server = Server::that([Act::Stream(frames)]).await;
    let reply = server.provider(KIND).ask(&asking("Hi"), &Deltas::ignored()).await.expect("an answer");
    let calls: Vec<_> = reply.calls().map(|call| (call.id.as_str(), call.arguments.clone())).collect();
    assert_eq!(calls, [("c-a", json!({}))]);
}

#[tokio::test]
async fn a_request_says_all_that_was_asked() {
    let server = Server::that([Act::Stream(openai(&[json!({"content": "{}"})], "stop"))]).await;
    let request = Request {
        model: "big-high".to_owned(),
        system: vec!["Be brief.".to_owned(), "Be kind.".to_owned()],
        messages: vec![
            PromptMessage::User {
                parts: vec![Part::text("Look:"), Part::file("data:image/png;base64,aGk=", "image/png")],
                provider_options: serde_json::Map::new(),
            },
            PromptMessage::Assistant {
                parts: vec![
                    AssistantPart::Reasoning { text: "hm".to_owned(), signature: None },
                    AssistantPart::Call(ToolCall {
                        id: "c-a".to_owned(),
                        name: "look".to_owned(),
                        arguments: json!("{broken"),
                    }),
                ],
            },
            PromptMessage::Tool {
                results: vec![ToolResult {
                    call_id: "c-a".to_owned(),
                    name: "look".to_owned(),
                    output: json!("the arguments are not JSON"),
                    is_error: true,
                }],
            },
        ],
        tools: vec![ToolSpec {
            name: "look".to_owned(),
            description: "Looks.".to_owned(),
            input_schema: json!({"type": "object"}),
        }],
        tool_choice: ToolChoice::Required,
        settings: Settings {
            temperature: Some(0.5),
            top_p: Some(0.9),
            max_output_tokens: Some(64),
            stop: vec!["END".to_owned()],
            seed: Some(7),
            reasoning: None,
        },
        output_schema: Some(json!({"type": "object", "properties": {}, "additionalProperties": false})),
    };
    server.provider(KIND).ask(&request, &Deltas::ignored()).await.expect("an answer");
    let asked = server.asked().remove(0);
    assert_eq!(asked.path, "/v1/chat/completions");
    assert!(asked.headers.contains(&("authorization".to_owned(), format!("Bearer {KEY}"))));
    let mut body = asked.body;
    body.sort_all_objects();
    insta::assert_snapshot!(serde_json::to_string_pretty(&body).expect("JSON"), @r#"
    {
      "max_tokens": 64,
      "messages": [
        {
          "content": "Be brief.\n\nBe kind.",
          "role": "system"
        },
        {
          "content": [
            {
              "text": "Look:",
              "type": "text"
            },
            {
              "image_url": {
                "url": "data:image/png;base64,aGk="
              },
              "type": "image_url"
            }
          ],
          "role": "user"
        },
        {
          "content": "",
          "reasoning_content": "hm",
          "role": "assistant",
          "tool_calls": [
            {
              "function": {
                "arguments": "{\"malformed_arguments\":\"{broken\"}",
                "name": "look"
              },
              "id": "c-a",
              "type": "function"
            }
          ]
        },
        {
          "content": "error: the arguments are not JSON",
          "role": "tool",
          "tool_call_id": "c-a"
        }
      ],
      "model": "big-high",
      "reasoning_effort": null,
      "response_format": {
        "json_schema": {
          "name": "answer",
          "schema": {
            "additionalProperties": false,
            "properties": {},
            "required": [],
            "type": "object"
          },
          "strict": true
        },
        "type": "json_schema"
      },
      "seed": 7,
      "stop": [
        "END"
      ],
      "stream": true,
      "stream_options": {
        "include_usage": true
      },
      "temperature": 0.5,
      "tool_choice": "required",
      "tools": [
        {
          "function": {
            "description": "Looks.",
            "name": "look",
            "parameters": {
              "type": "object"
            },
            "strict": false
          },
          "type": "function"
        }
      ],
      "top_p": 0.9
    }
    "#);
}

#[tokio::test]
async fn an_effort_is_asked_for_where_it_was_asked_for() {
    let server = Server::that([Act::Stream(openai(&[json!({"content": "x"})], "stop"))]).await;
    let settings = Settings { reasoning: Some(Effort::Low), ..Settings::default() };
    let request = Request { model: "big-high".to_owned(), settings, ..asking("Hi") };
    server.provider(KIND).ask(&request, &Deltas::ignored()).await.expect("an answer");
    let body = server.asked().remove(0).body;
    assert_eq!((&body["model"], &body["reasoning_effort"]), (&json!("big-high"), &json!("low")));
}

#[tokio::test]
async fn a_server_without_a_key_is_sent_none() {
    let server = Server::that([Act::Stream(openai(&[json!({"content": "x"})], "stop"))]).await;
    let provider = Provider::new("local", ProviderConfig::new(KIND).base_url(&server.url)).expect("a provider");
    provider.ask(&asking("Hi"), &Deltas::ignored()).await.expect("an answer");
    assert!(server.asked()[0].headers.iter().all(|(name, _)| name != "authorization"));
}

#[tokio::test]
async fn a_file_that_would_be_left_out_is_refused() {
    let server = Server::that([]).await;
    let mut request = asking("Read this:");
    request.messages.push(PromptMessage::User {
        parts: vec![Part::file("https://example.org/a.pdf", "application/pdf")],
        provider_options: serde_json::Map::new(),
    });
    let refused = server.provider(KIND).ask(&request, &Deltas::ignored()).await.expect_err("a refusal");
    insta::assert_snapshot!(refused, @"model test/m cannot be asked this: it takes no file of type application/pdf by its address; send what is in it");
}

//! Rows: as they are stored, as older versions stored them, and the prompt they become (section 6.1, 22.3, H10.6).

use aldis::message::{
    Approval, Attributes, Body, CallState, Category, Contents, Invocation, Message, NewSignal, PromptMessage, Reply,
    ReplyPart, ThreadSignal, ToolCall,
};
use serde_json::{Value, json};

use crate::support::{NOW, picture};

fn read(row: Value) -> Message {
    Message::of_row(1, &row).expect("a row")
}

fn signal(row: Value) -> ThreadSignal {
    read(row).as_signal().expect("a signal").clone()
}

fn prompt(row: Value) -> Vec<PromptMessage> {
    let (messages, warnings) = read(row).prompt();
    assert_eq!(warnings, []);
    messages
}

fn invocation(id: &str, state: CallState, approval: Option<Approval>) -> ReplyPart {
    let call = ToolCall { id: id.into(), name: "pay".into(), arguments: json!({ "amount": 7 }) };
    ReplyPart::Tool(Invocation { call, state, approval })
}

fn paid() -> Reply {
    let yes = Approval { id: "call-7".into(), approved: Some(true), reason: None };
    let parts = vec![
        ReplyPart::Reasoning {
            text: "hm".into(),
            signature: Some("seal".into()),
            provider_options: Default::default(),
        },
        invocation("call-7", CallState::Done(json!({ "ok": true })), Some(yes)),
        ReplyPart::text("Done"),
    ];
    Reply { parts, ..Reply::default() }
}

#[test]
fn a_signals_row_is_the_one_of_the_contract_t6_1() {
    let row = json!({"id": "s1", "role": "signal", "type": "slack", "threadId": "t", "resourceId": "r",
     "createdAt": "2026-01-02T03:04:05.000Z",
     "content": {"format": 2,
       "parts": [{"type": "text", "text": "build broke"}],
       "metadata": {"signal": {"id": "s1", "type": "notification", "tagName": "slack",
         "createdAt": "2026-01-02T03:04:05.000Z", "acceptedAt": "2026-01-02T03:04:04.900Z",
         "attributes": {"from": "ann"}, "metadata": {"ticket": 7}}}}});
    assert_eq!(read(row.clone()).to_row("t", "r").to_string(), row.to_string());
}

#[test]
fn files_and_provider_options_have_other_names_in_rows_t6_1() {
    let mut sent: NewSignal = serde_json::from_value(json!({ "type": "user", "contents": [
        { "type": "text", "text": "see", "providerOptions": { "p": { "x": 1 } } },
        { "type": "file", "data": "aGk=", "mediaType": "text/plain", "filename": "a.txt" },
    ]}))
    .unwrap();
    sent.provider_options.insert("q".into(), json!({ "y": 2 }));
    let message = Message::of_signal(1, sent.accept("s1", NOW, &Attributes::new()), NOW);
    let row = message.to_row("t", "r");
    assert_eq!(read(row.clone()), message);
    picture("row_of_a_message_with_a_file", &row);
}

#[test]
fn an_assistants_row_is_the_one_of_the_wire_h10_6() {
    let row = json!({"id": "m1", "role": "assistant", "threadId": "t1", "resourceId": "r1", "createdAt": "2026-01-02T03:04:06.000Z",
     "content": {"format": 2, "content": "Done",
       "parts": [{"type": "tool-invocation", "toolInvocation": {"state": "result", "toolCallId": "call-7", "toolName": "pay",
                   "args": {"amount": 7}, "result": {"ok": true}, "approval": {"id": "call-7", "approved": true}}},
                 {"type": "text", "text": "Done"}],
       "metadata": {"modelId": "gpt-x", "provider": "openai"}}});
    assert_eq!(read(row.clone()).to_row("t1", "r1").to_string(), row.to_string());
}

#[test]
fn the_states_of_a_call_are_stored_and_read_back_t13_6() {
    let no = Approval { id: "call-3".into(), approved: Some(false), reason: Some("too dear".into()) };
    let parts = vec![
        invocation("call-1", CallState::Open, None),
        invocation("call-2", CallState::Failed(json!("no funds")), None),
        invocation("call-3", CallState::Denied, Some(no)),
        invocation("call-4", CallState::Denied, None),
    ];
    let message = Message::of_reply(1, "m1", Reply { parts, ..Reply::default() }.cut_short(), NOW);
    let row = message.to_row("t", "r");
    assert_eq!(read(row.clone()), message);
    picture("row_of_calls_without_a_result", &row);
    // T12.3: the prompt is well-formed all the same.
    picture("prompt_of_calls_without_a_result", &message.prompt().0);
}

#[test]
fn words_after_a_call_are_the_next_steps() {
    let message = Message::of_reply(1, "m1", paid(), NOW);
    picture("prompt_of_a_reply_with_a_call", &message.prompt().0);
}

#[test]
fn calls_of_one_step_stay_together_and_a_step_start_parts_them() {
    let call = |id: &str| json!({ "type": "tool-invocation", "toolInvocation": { "state": "result", "toolCallId": id, "toolName": "t", "args": {}, "result": 1 } });
    let row = |parts: Value| json!({ "id": "m", "role": "assistant", "content": { "format": 2, "parts": parts } });
    let kinds = |row| {
        let kinds = prompt(row).into_iter().map(|message| match message {
            PromptMessage::Assistant { parts } => format!("assistant {}", parts.len()),
            PromptMessage::Tool { results } => format!("tool {}", results.len()),
            other => format!("{other:?}"),
        });
        kinds.collect::<Vec<_>>()
    };
    assert_eq!(kinds(row(json!([call("1"), call("2")]))), ["assistant 2", "tool 2"]);
    let parted = row(json!([{ "type": "step-start" }, call("1"), { "type": "step-start" }, call("2")]));
    assert_eq!(kinds(parted), ["assistant 1", "tool 1", "assistant 1", "tool 1"]);
    let thinking = row(json!([{ "type": "reasoning", "reasoning": "hm", "details": [] }]));
    assert_eq!(kinds(thinking), Vec::<String>::new());
}

#[test]
fn text_up_to_an_abort_is_kept_and_marked_t12_3() {
    let message = Message::of_reply(1, "m1", Reply::text("Hel").cut_short(), NOW);
    let row = message.to_row("t", "r");
    assert_eq!(row["content"]["metadata"], json!({ "aborted": true }));
    let Body::Assistant(reply) = read(row).body else { panic!("an assistant's") };
    assert!(reply.aborted() && reply.whole_text() == "Hel");
}

#[test]
fn rows_of_direct_calls_are_read_like_signals_t6_2() {
    let row =
        json!({ "id": "u", "role": "user", "content": { "format": 2, "parts": [{ "type": "text", "text": "Hi" }] } });
    assert_eq!(prompt(row), [PromptMessage::user("Hi")]);
    let row = json!({ "id": "u", "role": "system", "content": "Be kind" });
    assert_eq!(prompt(row), [PromptMessage::System("Be kind".into())]);
}

#[test]
fn a_row_without_the_signals_metadata_is_a_users_with_the_rows_type_as_tag_t22_3() {
    let old = signal(
        json!({ "id": "s", "role": "signal", "type": "customer", "content": { "parts": [{ "type": "text", "text": "Hi" }] } }),
    );
    assert_eq!((old.category, old.tag.as_str(), old.contents), (Category::User, "customer", Contents::from("Hi")));
}

#[test]
fn an_unknown_category_in_a_row_is_reactive_and_its_tag_if_it_is_a_name_t22_3() {
    let of = |word: &str| {
        signal(json!({ "id": "s", "role": "signal", "content": { "metadata": { "signal": { "type": word } } } }))
    };
    assert_eq!((of("slack").category, of("slack").tag), (Category::Reactive, "slack".into()));
    assert_eq!((of("a b").category, of("a b").tag), (Category::Reactive, "system-reminder".into()));
    assert_eq!((of("user-message").category, of("user-message").tag), (Category::User, "user".into()));
}

#[test]
fn older_shapes_of_contents_are_understood_or_the_parts_count_t22_3() {
    let of = |contents: Value| {
        signal(json!({ "id": "s", "role": "signal", "content": { "parts": [{ "type": "text", "text": "the parts" }],
            "metadata": { "signal": { "type": "user", "contents": contents } } } }))
        .contents
    };
    assert_eq!(of(json!("Hi")), Contents::from("Hi"));
    assert_eq!(of(json!(["a", "b"])).all_text(), "a\nb");
    assert_eq!(of(json!({ "role": "user", "content": "Hi" })), Contents::from("Hi"));
    assert_eq!(of(json!({ "role": "user", "content": [{ "type": "text", "text": "Hi" }] })), Contents::from("Hi"));
    let image = of(json!([{ "type": "image", "image": "https://x/y.png", "mimeType": "image/png" }]));
    assert_eq!(json!(image), json!([{ "type": "file", "data": "https://x/y.png", "mediaType": "image/png" }]));
    for odd in [json!(7), json!([7]), json!({ "content": "x" }), json!([{ "type": "hologram" }]), json!(null)] {
        assert_eq!(of(odd), Contents::from("the parts"));
    }
}

#[test]
fn older_assistant_rows_are_understood() {
    let calls = json!([{ "state": "result", "toolCallId": "c", "toolName": "t", "args": {}, "result": 1 }]);
    let old = json!({ "id": "m", "role": "assistant", "content": { "format": 1, "content": "Done", "toolInvocations": calls } });
    assert_eq!(prompt(old).len(), 3);
    let Body::Assistant(plain) = read(json!({ "id": "m", "role": "assistant", "content": "Hi" })).body else {
        panic!("an assistant's")
    };
    assert_eq!(plain, Reply::text("Hi"));
    let told = json!({ "id": "m", "role": "assistant", "content": { "parts": [
        { "type": "reasoning", "reasoning": "", "details": [{ "type": "text", "text": "a", "signature": "s" }, { "type": "text", "text": "b" }] } ] } });
    let Body::Assistant(reply) = read(told).body else { panic!("an assistant's") };
    assert_eq!(
        reply.parts,
        [ReplyPart::Reasoning { text: "ab".into(), signature: Some("s".into()), provider_options: Default::default() }]
    );
}

#[test]
fn what_cannot_be_a_row_is_refused_in_words() {
    let wrong = [json!(1), json!({ "role": "user" }), json!({ "id": "x" }), json!({ "id": "x", "role": "tool" })];
    let said = wrong.map(|row| Message::of_row(4, &row).unwrap_err().to_string());
    insta::assert_snapshot!(said.join("\n"), @r#"
    row 4 of the thread cannot be read: it is no object; a row is an object with an id and a role
    row 4 of the thread cannot be read: it has no id; a row is an object with an id and a role
    row 4 of the thread cannot be read: it has no role; a row is an object with an id and a role
    row 4 of the thread cannot be read: there is no role "tool"; a row is an object with an id and a role
    "#);
}

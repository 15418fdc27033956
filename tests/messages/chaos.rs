//! What holds for any signal and any row: rendering is well-formed, rows come back, and no JSON makes a decoder panic.

use aldis::clock::Instant;
use aldis::message::{
    Attributes, Body, CallState, Category, Contents, Invocation, Message, Mode, NewSignal, NewState, Part,
    PromptMessage, Reply, ReplyPart, Said, Scalar, ThreadSignal, ToolCall,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use quick_xml::events::Event;
use serde_json::{Map, Value, json};

use crate::support::NOW;

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z_][A-Za-z0-9_.-]{0,8}"
}

/// Texts with the characters that XML cares about, and any other.
fn words() -> impl Strategy<Value = String> {
    prop_oneof!["[ab<>&\"'\n;\\]\\[!-]{0,12}", "\\PC{0,12}"]
}

fn scalar() -> impl Strategy<Value = Scalar> {
    prop_oneof![
        Just(Scalar::Null),
        any::<bool>().prop_map(Scalar::from),
        any::<i64>().prop_map(Scalar::from),
        words().prop_map(Scalar::from),
    ]
}

fn attributes() -> impl Strategy<Value = Attributes> {
    vec((name(), scalar()), 0..5).prop_map(|pairs| pairs.into_iter().collect())
}

fn category() -> impl Strategy<Value = Category> {
    proptest::sample::select(Category::ALL.to_vec())
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        words().prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((key(), inner), 0..5).prop_map(|pairs| Value::Object(pairs.into_iter().collect()))
        ]
    })
}

/// The keys and words that the decoders look for, so that chance gets past the first door.
fn key() -> impl Strategy<Value = String> {
    let known = [
        "id",
        "role",
        "type",
        "content",
        "contents",
        "parts",
        "metadata",
        "signal",
        "text",
        "data",
        "mimeType",
        "reasoning",
        "details",
        "toolInvocation",
        "toolInvocations",
        "toolCallId",
        "toolName",
        "state",
        "result",
        "approval",
        "attributes",
        "createdAt",
        "acceptedAt",
        "providerMetadata",
        "tagName",
        "cacheKey",
        "mode",
        "threadId",
        "version",
        "image",
    ];
    prop_oneof![9 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => name()]
}

fn known_word() -> impl Strategy<Value = Value> {
    let words = [
        "user",
        "assistant",
        "system",
        "signal",
        "text",
        "file",
        "reasoning",
        "tool-invocation",
        "result",
        "state",
        "slack",
        "call",
        "output-denied",
        "image",
    ];
    proptest::sample::select(words.to_vec()).prop_map(Value::from)
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    vec((name(), json_value()), 0..3).prop_map(|pairs| pairs.into_iter().collect())
}

fn options() -> impl Strategy<Value = Map<String, Value>> {
    vec((name(), object().prop_map(Value::Object)), 0..2).prop_map(|pairs| pairs.into_iter().collect())
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        3 => words().prop_map(Part::text),
        1 => (words(), options()).prop_map(|(text, provider_options)| Part::Text { text, provider_options }),
        1 => (words(), words(), option::of(words()), options())
            .prop_map(|(data, media_type, filename, provider_options)| Part::File { data, media_type, filename, provider_options }),
    ]
}

fn contents() -> impl Strategy<Value = Contents> {
    prop_oneof![words().prop_map(Contents::from), vec(part(), 0..4).prop_map(Contents::from)]
}

prop_compose! {
    fn new_signal()(category in category(), tag in option::of(name()), contents in contents(), attributes in attributes(),
        metadata in object(), provider_options in options(), created in 0..4_000_000_000_000_i64, at in option::of(Just(()))) -> NewSignal {
        let mut signal = NewSignal::new(category, contents).attributed(attributes);
        signal.tag = tag;
        signal.metadata = metadata;
        signal.provider_options = provider_options;
        signal.created_at = at.map(|()| Instant(created));
        signal
    }
}

fn thread_signal() -> impl Strategy<Value = ThreadSignal> {
    let state = (name(), name(), contents(), option::of(object()), attributes(), any::<bool>()).prop_map(
        |(lane, key, contents, value, attributes, whole)| {
            let mode = if whole { Mode::Snapshot } else { Mode::Delta };
            let state = NewState {
                mode,
                value: value.map(Value::Object),
                attributes,
                ..NewState::snapshot(lane, key, contents)
            };
            state.accept("s1", NOW, &Attributes::new(), "t", 3)
        },
    );
    prop_oneof![3 => (new_signal(), attributes()).prop_map(|(signal, branch)| signal.accept("s1", NOW, &branch)), 1 => state]
}

fn reply_part() -> impl Strategy<Value = ReplyPart> {
    let outcome = prop_oneof![
        Just(CallState::Open),
        Just(CallState::Denied),
        json_value().prop_map(CallState::Done),
        json_value().prop_map(CallState::Failed),
    ];
    prop_oneof![
        (words(), options()).prop_map(|(text, provider_options)| ReplyPart::Text { text, provider_options }),
        (words(), option::of(words()), options())
            .prop_map(|(text, signature, provider_options)| ReplyPart::Reasoning { text, signature, provider_options }),
        (name(), name(), json_value(), outcome).prop_map(|(id, name, arguments, state)| {
            ReplyPart::Tool(Invocation { call: ToolCall { id, name, arguments }, state, approval: None })
        }),
        (words(), words(), options()).prop_map(|(data, media_type, provider_options)| ReplyPart::File {
            data,
            media_type,
            filename: None,
            provider_options
        }),
        Just(ReplyPart::Other(Map::from_iter([("type".to_owned(), json!("step-start"))]))),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let said = || {
        (contents(), object(), options()).prop_map(|(contents, metadata, provider_options)| Said {
            contents,
            metadata,
            provider_options,
        })
    };
    let body = prop_oneof![
        said().prop_map(Body::User),
        said().prop_map(Body::System),
        (vec(reply_part(), 0..6), object(), options()).prop_map(|(parts, metadata, provider_options)| Body::Assistant(
            Reply { parts, metadata, provider_options }
        )),
        thread_signal().prop_map(|signal| Body::Signal(Box::new(signal))),
    ];
    body.prop_map(|body| {
        let id = "s1".to_owned();
        Message { id, seq: 1, created_at: NOW, body }
    })
}

/// The one element of a text: its tag, its attributes and its text, all unescaped by another's parser.
fn parsed(xml: &str) -> (String, Vec<(String, String)>, String) {
    let mut reader = quick_xml::Reader::from_str(xml);
    let (mut element, mut text) = (None, String::new());
    loop {
        match reader.read_event().expect("well-formed") {
            Event::Start(start) | Event::Empty(start) => {
                assert!(element.is_none(), "one element");
                let attributes = start.attributes().map(|attribute| {
                    let attribute = attribute.expect("an attribute");
                    let value = quick_xml::escape::unescape(&attribute.value).expect("escaped").into_owned();
                    (attribute.key.as_ref().to_owned(), value)
                });
                let attributes = attributes.collect();
                element = Some((start.name().as_ref().to_owned(), attributes));
            }
            Event::Text(piece) => text.push_str(piece.as_ref()),
            Event::GeneralRef(name) => {
                text.push_str(&format!("&{};", AsRef::<str>::as_ref(&name)));
            }
            Event::End(_) => {}
            Event::Eof => break,
            other => panic!("{other:?}"),
        }
    }
    let (tag, attributes) = element.expect("an element");
    (tag, attributes, quick_xml::escape::unescape(&text).expect("escaped").into_owned())
}

/// The texts that stand in the element (T5.4, T5.5).
fn wrapped(contents: &Contents) -> String {
    let parts = contents.to_parts();
    let texts = || {
        parts.iter().filter_map(|part| match part {
            Part::Text { text, .. } => Some(text.as_str()),
            Part::File { .. } => None,
        })
    };
    let plain =
        parts.iter().all(|part| matches!(part, Part::Text { provider_options, .. } if provider_options.is_empty()));
    if plain { texts().collect::<Vec<_>>().join("\n") } else { texts().next().unwrap_or_default().to_owned() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_the_model_reads_is_well_formed_and_says_what_was_sent(signal in thread_signal()) {
        let (message, warnings) = signal.render();
        prop_assert_eq!(warnings, []);
        let PromptMessage::User { parts, provider_options } = message else { panic!("a user's message") };
        prop_assert_eq!(&provider_options, &signal.provider_options);
        let shown: Vec<(String, String)> =
            signal.attributes.iter().filter_map(|(name, value)| Some((name.to_owned(), value.shown()?))).collect();
        if signal.category == Category::User && shown.is_empty() {
            prop_assert_eq!(parts, signal.contents.to_parts());
        } else {
            let first = parts.iter().find_map(|part| match part {
                Part::Text { text, .. } => Some(text),
                Part::File { .. } => None,
            });
            let (tag, attributes, text) = parsed(first.expect("an element"));
            prop_assert_eq!(tag, signal.tag.clone());
            prop_assert_eq!(attributes, shown);
            prop_assert_eq!(text, wrapped(&signal.contents));
        }
    }

    #[test]
    fn a_signal_on_the_wire_comes_back(signal in thread_signal()) {
        let text = serde_json::to_string(&signal).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<ThreadSignal>(&text).expect("a signal"), signal);
    }

    #[test]
    fn a_new_signal_on_the_wire_comes_back_with_its_digest(signal in new_signal()) {
        let back: NewSignal = serde_json::from_str(&serde_json::to_string(&signal).expect("JSON")).expect("a signal");
        prop_assert_eq!(back.digest(), signal.digest());
        prop_assert_eq!(back, signal);
    }

    #[test]
    fn a_row_comes_back(message in message()) {
        let row: Value = serde_json::from_str(&message.to_row("t", "r").to_string()).expect("JSON");
        prop_assert_eq!(Message::of_row(1, &row).expect("a row"), message);
    }

    #[test]
    fn a_prompt_is_well_formed_and_comes_back(message in message()) {
        let (prompt, _) = message.prompt();
        let mut open: Vec<String> = Vec::new();
        for message in &prompt {
            match message {
                PromptMessage::Assistant { parts } => {
                    prop_assert!(open.is_empty() && !parts.is_empty());
                    open = parts.iter().filter_map(|part| part.as_call()).map(|call| call.id.clone()).collect();
                }
                PromptMessage::Tool { results } => {
                    let closed: Vec<String> = results.iter().map(|result| result.call_id.clone()).collect();
                    prop_assert_eq!(std::mem::take(&mut open), closed);
                }
                PromptMessage::User { .. } | PromptMessage::System(_) => prop_assert!(open.is_empty()),
            }
        }
        prop_assert!(open.is_empty());
        let text = serde_json::to_string(&prompt).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Vec<PromptMessage>>(&text).expect("a prompt"), prompt);
    }

    #[test]
    fn no_json_makes_a_decoder_panic(fields in vec((key(), prop_oneof![json_value(), known_word()]), 0..8), role in known_word(), content in json_value()) {
        let mut row: Map<String, Value> = fields.into_iter().collect();
        let _ = serde_json::from_value::<NewSignal>(Value::Object(row.clone())).map(|signal| signal.check(&Default::default(), &[]));
        let _ = serde_json::from_value::<NewState>(Value::Object(row.clone())).map(|state| state.check(&Default::default(), &[]));
        let _ = serde_json::from_value::<PromptMessage>(Value::Object(row.clone()));
        row.insert("id".into(), json!("s1"));
        row.insert("role".into(), role);
        row.insert("content".into(), content);
        if let Ok(message) = Message::of_row(1, &Value::Object(row)) {
            // What was understood once is understood the same for ever after.
            let again = Message::of_row(1, &message.to_row("t", "r")).expect("its own row");
            prop_assert_eq!(&again.to_row("t", "r"), &message.to_row("t", "r"));
            let _ = (message.prompt(), Message::shown([&message], true));
        }
    }
}

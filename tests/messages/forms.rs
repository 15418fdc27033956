//! The echo, the answer, and what an interface is shown (section 6.2 and 6.3).

use aldis::message::{Attributes, Body, Category, HideSignals, Message, NewSignal, Reply, Said, ThreadSignal};
use serde_json::{Value, json};

use crate::support::{NOW, accepted, picture, signal};

fn slack() -> ThreadSignal {
    let mut slack = NewSignal::new(Category::Notification, "build broke").tagged("slack");
    slack.attributes = Attributes::new().with("from", "ann");
    slack.metadata.insert("ticket".into(), json!(7));
    accepted(slack)
}

fn of(seq: i64, category: Category, id: &str) -> Message {
    Message::of_signal(seq, ThreadSignal { id: id.into(), ..signal(category, id) }, NOW)
}

fn reply(seq: i64, id: &str) -> Message {
    Message::of_reply(seq, id, Reply::text(id), NOW)
}

/// Roles and texts, in short.
fn outline(messages: &[Message]) -> Vec<String> {
    let outlined = Message::shown(messages, false).into_iter().map(|shown| {
        let parts = shown.parts.iter().map(|part| part["text"].as_str().or(part["id"].as_str()).unwrap_or("?"));
        format!("{}: {}", shown.role, parts.collect::<Vec<_>>().join(" "))
    });
    outlined.collect()
}

#[test]
fn the_echo_of_a_signal_and_of_a_message_t6_6_h4_4() {
    let mut message = NewSignal::user("Hi").attributed(Attributes::new().with("name", "Ann"));
    message.transient = Some(true);
    picture("echoes", &[slack().echo("run-1"), accepted(message).echo("run-1"), signal(Category::User, "").echo("r")]);
}

#[test]
fn the_answer_is_the_signal_with_the_mark_that_clients_feed_back_h6_2() {
    let answer = slack().answer();
    assert_eq!(answer["__isCreatedSignal"], Value::Bool(true));
    assert_eq!(serde_json::from_value::<ThreadSignal>(answer.clone()).unwrap(), slack());
    assert_eq!(serde_json::from_value::<NewSignal>(answer).unwrap().digest(), {
        let mut sent = NewSignal::new(Category::Notification, "build broke").tagged("slack");
        sent.attributes = Attributes::new().with("from", "ann");
        sent.metadata.insert("ticket".into(), json!(7));
        sent.digest()
    });
}

#[test]
fn echoes_can_be_hidden_by_category_t6_9() {
    let reminders = HideSignals::Of(vec![Category::of_word("system-reminder").unwrap()]);
    assert_eq!(Category::ALL.map(|category| reminders.hides(category)), [false, false, false, true]);
    assert_eq!(Category::ALL.map(|category| HideSignals::All.hides(category)), [true; 4]);
    assert_eq!(Category::ALL.map(|category| HideSignals::None.hides(category)), [false; 4]);
}

#[test]
fn the_category_and_not_the_tag_hides_a_row_unless_asked_for_t6_9() {
    let reminder = of(1, Category::Reactive, "r");
    assert!(!reminder.is_listed(false) && reminder.is_listed(true));
    let tagged = accepted(NewSignal::new(Category::Notification, "x").tagged("system-reminder"));
    assert!(Message::of_signal(1, tagged, NOW).is_listed(false));
    for category in [Category::User, Category::State, Category::Notification] {
        assert!(of(1, category, "s").is_listed(false));
    }
    let old = |text: &str| Message { id: "u".into(), seq: 1, created_at: NOW, body: Body::User(Said::new(text)) };
    assert!(!old("<system-reminder>x</system-reminder>").is_listed(false));
    assert!(!old("<system-reminder a=\"b\" />").is_listed(false));
    assert!(old("<system-reminders>").is_listed(false) && old("say <system-reminder>").is_listed(false));
}

#[test]
fn a_signal_joins_the_assistants_message_before_it_t6_8() {
    let thread = [
        of(1, Category::User, "u1"),
        reply(2, "a1"),
        of(3, Category::Notification, "n1"),
        of(4, Category::State, "s1"),
        of(5, Category::User, "u2"),
    ];
    assert_eq!(outline(&thread), ["user: u1", "assistant: a1 n1 s1", "user: u2"]);
}

#[test]
fn with_none_before_it_goes_to_the_front_of_the_next_t6_8() {
    let thread = [
        of(1, Category::Notification, "n1"),
        of(2, Category::Notification, "n2"),
        of(3, Category::User, "u1"),
        reply(4, "a1"),
    ];
    assert_eq!(outline(&thread), ["user: u1", "assistant: n1 n2 a1"]);
}

#[test]
fn with_none_at_all_it_is_an_assistants_message_of_its_own_t6_8() {
    assert_eq!(
        outline(&[of(1, Category::User, "u1"), of(2, Category::Notification, "n1")]),
        ["user: u1", "assistant: n1"]
    );
}

#[test]
fn a_person_sees_contents_and_the_attributes_beside_them_t6_7() {
    let hello = accepted(NewSignal::user("a < b").attributed(Attributes::new().with("name", "Ann")));
    let thread = [Message::of_signal(1, hello, NOW), Message::of_signal(2, slack(), NOW), reply(3, "a1")];
    picture("what_a_person_is_shown", &Message::shown(&thread, false));
}

//! What each fuzz target does with its bytes; also run over the corpus by `tests/decoders.rs`. A body panics if a decoder
//! does, or if what it took does not come back the same.

use aldis::id::{RunId, Seq};
use aldis::journal::{EVENT_VERSION, Event, Standing};
use aldis::message::{Message, NewSignal};
use aldis::payload::Payload;
use aldis::runtime::Export;

/// A journal line as the store keeps it: the kind, a line break, the JSON.
pub fn event_line(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (kind, json) = text.split_once('\n').unwrap_or(("StepFinished", text));
    let Ok(event) = Event::decode(Seq(1), kind, EVENT_VERSION, json) else { return };
    let mut written = Vec::new();
    event.encode_into(&mut written);
    let written = String::from_utf8(written).expect("JSON is text");
    assert_eq!(Event::decode(Seq(1), event.kind(), EVENT_VERSION, &written).as_ref(), Ok(&event));
}

/// A whole exported run.
pub fn export(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(exported) = Export::read(text) else { return };
    // A journal that contradicts itself is refused in words, not by a panic.
    let _ = Standing::of(&exported.journal).map_err(|illegal| illegal.to_string());
    let written = Export::write(&exported).expect("what was read can be written");
    assert_eq!(Export::read(&written).expect("what was written can be read"), exported);
}

/// JSON from outside.
pub fn payload(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(payload) = Payload::parse(text) else { return };
    assert!(!payload.as_str().contains('\n'), "a payload is one line");
    let again = Payload::parse(payload.as_str()).expect("a payload is JSON");
    assert_eq!(again.as_str(), payload.as_str());
}

/// An id from outside.
pub fn run_id(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(id) = RunId::parse(text) {
        assert_eq!(id.as_str(), text);
        assert!(!text.contains(['/', '?', '#', ' ']) && !text.chars().any(char::is_control), "{text:?}");
    }
}

/// A row of a thread, of whatever age; and the same bytes as a signal from outside.
pub fn message_row(bytes: &[u8]) {
    if let Ok(signal) = serde_json::from_slice::<NewSignal>(bytes) {
        let _ = signal.check(&aldis::message::Limits::default(), &[]);
        let written = serde_json::to_vec(&signal).expect("what was read can be written");
        let again: NewSignal = serde_json::from_slice(&written).expect("what was written can be read");
        // Not the digest: a long fraction may lose its last bit on the way through.
        assert_eq!(again.contents.all_text(), signal.contents.all_text());
    }
    let Ok(row) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    let Ok(message) = Message::of_row(1, &row) else { return };
    let _ = (message.prompt(), Message::shown([&message], true));
    let written = message.to_row("t", "r");
    let again = Message::of_row(1, &written).expect("its own row");
    assert_eq!((&again.id, again.role(), again.created_at), (&message.id, message.role(), message.created_at));
}

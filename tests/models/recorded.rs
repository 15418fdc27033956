use std::sync::Arc;

use aldis::agent::model::{Deltas, Model, ModelError, Offline, Recorded, Reply};
use aldis::failure::{Fault, Retry};

use crate::support::{asking, heard};

async fn ask(model: &Recorded, text: &str) -> Result<Reply, ModelError> {
    model.ask(&asking(text), &Deltas::ignored()).await
}

#[tokio::test]
async fn a_conversation_is_recorded_once_and_played_ever_after() {
    let place = tempfile::tempdir().expect("a place");
    let file = place.path().join("talk.json");
    let record = Recorded::once(&file, Arc::new(Offline)).expect("a recording");
    let said = [ask(&record, "hello there").await, ask(&record, "/call look {\"at\": 1}").await];
    let deltas = heard(&record, &asking("hello there")).await.1;
    drop(record);

    for play in [Recorded::play(&file), Recorded::once(&file, Arc::new(Offline))] {
        let play = play.expect("the recording");
        assert_eq!(play.name(), "offline");
        // In another order, and more often than it was asked.
        let again = [ask(&play, "hello there").await, ask(&play, "/call look {\"at\": 1}").await];
        assert_eq!(again, said);
        let (reply, heard) = heard(&play, &asking("hello there")).await;
        assert_eq!((reply.as_ref(), heard), (said[0].as_ref(), deltas.clone()));
        assert_eq!(ask(&play, "hello there").await, said[0]);
        assert_eq!(play.recording().exchanges.len(), 3);
    }
}

#[tokio::test]
async fn a_request_that_was_not_recorded_is_refused_in_words() {
    let place = tempfile::tempdir().expect("a place");
    let file = place.path().join("talk.json");
    let record = Recorded::once(&file, Arc::new(Offline)).expect("a recording");
    ask(&record, "hello").await.expect("an answer");
    let play = Recorded::play(&file).expect("the recording");
    let refused = ask(&play, "good bye").await.expect_err("not recorded");
    assert_eq!(refused.retry(), Retry::Never);
    insta::with_settings!({filters => vec![(r"recording \S+talk.json", "recording [file]"), ("digest [0-9a-f]{12}", "digest [digest]")]}, {
        insta::assert_snapshot!(refused, @r#"the recording [file] holds no reply to this request (digest [digest], said last: "good bye"); it holds 1: "hello"; the prompt, a tool or a setting has changed: remove the file and record again"#);
    });
}

#[test]
fn what_is_not_a_recording_is_refused_in_words() {
    let place = tempfile::tempdir().expect("a place");
    let file = place.path().join("talk.json");
    let said = |file: &std::path::Path| {
        let refused = Recorded::play(file).err().map(|problem| problem.to_string());
        refused.map(|text| text.replace(&place.path().display().to_string(), "[place]")).unwrap_or_default()
    };
    insta::assert_snapshot!(said(&file), @"the recording [place]/talk.json cannot be read");
    std::fs::write(&file, "{\"version\": 7, \"model\": \"m\", \"exchanges\": []}").expect("a file");
    insta::assert_snapshot!(said(&file), @"[place]/talk.json is not a recording of version 1: its version is 7");
    std::fs::write(&file, "[]").expect("a file");
    insta::assert_snapshot!(said(&file), @"[place]/talk.json is not a recording of version 1: invalid length 0, expected struct Recording with 3 elements at line 1 column 2");
}

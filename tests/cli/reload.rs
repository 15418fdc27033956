//! SIGHUP: agents are read again without a new start, and what is under way finishes with what it began with.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Going, Place};

const WITH_REFUND: &str = r#"
[agents.clerk]
instructions = "Old."
workflows = { refund = "Pays an order back." }
"#;

const WITHOUT: &str = r#"
[agents.clerk]
instructions = "New."
[agents.second]
"#;

fn settings(place: &Place, text: &str) {
    std::fs::write(place.folder.path().join("aldis.toml"), text).unwrap();
}

/// What the model is told to call.
fn call(place: &Place) -> String {
    let order = json!({
        "order": "A-1", "amount_cents": 4999, "customer": "kim", "approve_within_seconds": 3600, "ledger": place.ledger()
    });
    format!("/call refund {order}")
}

fn send(place: &Place, thread: &str, text: &str) -> Value {
    let sent = place.aldis(&["send", thread, text, "--agent", "clerk", "--detach", "--json"]);
    assert_eq!(sent.code, 0, "{sent:?}");
    sent.json().remove(0)
}

/// The refund that waits for its approval, once there is one.
async fn waiting_refund(place: &Place) -> String {
    for _ in 0..600 {
        let runs = place.aldis(&["runs", "--workflow", "refund", "--status", "waiting", "--json"]);
        if let Some(run) = runs.json().first() {
            return run["id"].as_str().unwrap().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no refund waits: {:?}", place.aldis(&["runs"]));
}

async fn approve(place: &Place) {
    let refund = waiting_refund(place).await;
    let signalled = place.aldis(&["signal", &refund, "approval", r#"{"approved":true,"by":"ana"}"#]);
    assert_eq!(signalled.code, 0, "{signalled:?}");
    place.until(&refund, "completed").await;
}

fn reloaded(server: &mut Going) -> Value {
    server.hang_up();
    serde_json::from_str(&server.next_line()).unwrap()
}

#[tokio::test]
async fn a_turn_under_way_finishes_with_what_it_began_with() {
    let place = Place::sqlite();
    settings(&place, WITH_REFUND);
    // No run is kept in memory: every step of the turn is a replay.
    let mut server = place.begin_under(&[("ALDIS_LIVE_MAX", "0")], &["serve", "--listen", "127.0.0.1:0", "--json"]);
    let turn = send(&place, "t", &call(&place))["run"].as_str().unwrap().to_owned();
    waiting_refund(&place).await;
    settings(&place, WITHOUT);
    assert_eq!(reloaded(&mut server), json!({ "reloaded": true, "agents": ["clerk", "second"] }));
    // It joins the turn, which still has the tool.
    let joined = send(&place, "t", &call(&place));
    assert_eq!((&joined["action"], joined["run"].as_str()), (&"deliver".into(), Some(turn.as_str())));
    approve(&place).await;
    approve(&place).await;
    place.until(&turn, "completed").await;
    let history = place.aldis(&["thread", "t", "--agent", "clerk"]).out;
    assert_eq!(history.matches("\"paid\":true,\"decided_by\":\"ana\"}]").count(), 2, "{history}");
    assert_eq!(place.aldis(&["runs", "--workflow", "refund", "--json"]).json().len(), 2);
    // A turn that begins now has what is there now, and so has an agent that was not there before.
    let later = place.aldis(&["send", "u", &call(&place), "--agent", "clerk"]);
    assert!(
        later.out.contains("there is no tool \\\"refund\\\"") || later.out.contains("there is no tool \"refund\""),
        "{later:?}"
    );
    let second = place.aldis(&["send", "v", "Hello", "--agent", "second"]);
    assert_eq!((second.code, second.out.as_str()), (0, "Hello\n"), "{second:?}");
    assert_eq!(server.stop(), 0);
}

#[tokio::test]
async fn a_file_that_does_not_hold_changes_nothing() {
    let place = Place::sqlite();
    settings(&place, WITH_REFUND);
    let mut server = place.begin(&["work", "--json"]);
    settings(&place, "[agents.clerk]\nmodle = \"offline\"\n");
    let told = reloaded(&mut server);
    assert_eq!(told["reloaded"], false);
    let why = told["error"].as_str().unwrap();
    assert!(why.contains("aldis.toml:2:1: there is no key \"modle\"") && why.contains("\"model\""), "{why}");
    std::fs::remove_file(place.folder.path().join("aldis.toml")).unwrap();
    assert_eq!(reloaded(&mut server)["reloaded"], false);
    settings(&place, WITH_REFUND);
    assert_eq!(reloaded(&mut server), json!({ "reloaded": true, "agents": ["clerk"] }));
    send(&place, "t", &call(&place));
    approve(&place).await;
    assert_eq!(server.stop(), 0);
}

// After a kill the turn goes on as after a deploy: with what is declared where it is taken over. What was recorded stays.
#[tokio::test]
async fn a_turn_that_is_taken_over_goes_on_with_what_is_there() {
    let place = Place::sqlite();
    settings(&place, WITH_REFUND);
    let server = place.begin(&["serve", "--listen", "127.0.0.1:0", "--json"]);
    let turn = send(&place, "t", &call(&place))["run"].as_str().unwrap().to_owned();
    waiting_refund(&place).await;
    server.kill();
    settings(&place, &WITH_REFUND.replace("Old.", "New."));
    let worker = place.begin(&["work"]);
    approve(&place).await;
    place.until(&turn, "completed").await;
    let refunds = place.aldis(&["runs", "--workflow", "refund", "--json"]).json();
    assert_eq!(refunds.len(), 1, "the call that was begun before the kill found its refund: {refunds:?}");
    assert_eq!(worker.stop(), 0);
}

// Processors shape the journal of a turn: with other ones it is blocked, and the next reading that fits has it go on.
#[tokio::test]
async fn a_turn_that_does_not_fit_what_is_set_goes_on_once_it_does() {
    let place = Place::sqlite();
    settings(&place, WITH_REFUND);
    let server = place.begin(&["serve", "--listen", "127.0.0.1:0", "--json"]);
    let turn = send(&place, "t", &call(&place))["run"].as_str().unwrap().to_owned();
    waiting_refund(&place).await;
    server.kill();
    settings(&place, &format!("{WITH_REFUND}tasks = true\n"));
    let mut worker = place.begin(&["work", "--json"]);
    place.until(&turn, "blocked").await;
    settings(&place, WITH_REFUND);
    assert_eq!(reloaded(&mut worker)["reloaded"], true);
    approve(&place).await;
    place.until(&turn, "completed").await;
    assert_eq!(worker.stop(), 0);
}

// An agent that the file no longer has stays until a new start: what was sent to it is answered.
#[tokio::test]
async fn an_agent_that_is_gone_stays_until_a_new_start() {
    let place = Place::sqlite();
    settings(&place, WITH_REFUND);
    let mut worker = place.begin(&["work", "--json"]);
    settings(&place, "[agents.second]\n");
    assert_eq!(reloaded(&mut worker), json!({ "reloaded": true, "agents": ["clerk", "second"] }));
    let turn = send(&place, "t", "Hello")["run"].as_str().unwrap().to_owned();
    place.until(&turn, "completed").await;
    assert_eq!(worker.stop(), 0);
}

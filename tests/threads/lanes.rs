//! State signals from outside: versions, what is current, and what clients read of it.

use aldis::intake::SendOptions;
use aldis::message::{Attributes, Message, Mode, NewState};
use aldis::runtime::{Action, Sent, SkipReason, StateSent};
use aldis::store::Window;
use aldis::testing::{Crash, Error};
use aldis::thread::{IfActive, IfIdle};
use serde_json::json;

use crate::common::{agents, chunks, history, thread};

/// Leaves word only.
fn quietly() -> SendOptions {
    SendOptions { if_idle: IfIdle::Persist, ..SendOptions::default() }
}

fn sent(state: StateSent) -> Sent {
    state.sent().cloned().expect("a state that is sent")
}

fn version(sent: &Sent) -> u64 {
    sent.signal.state.as_ref().expect("its place in its lane").version
}

each_store! {
    // T14.4, T14.5
    async fn a_state_wakes_the_thread_and_the_same_again_is_skipped(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let first = sent(thread.state(NewState::snapshot("browser", "k1", "at example.org")).await?);
        assert_eq!((first.action, version(&first)), (Action::Wake, 1));
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["state at example.org", "demo <state>at example.org</state>"]);
        let same = thread.state(NewState::snapshot("browser", "k1", "at example.org")).await?;
        assert_eq!(same, StateSent::Skipped { reason: SkipReason::Unchanged });
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?.len(), 2);
        // The same key as a change is another state.
        let change = sent(thread.state_with(NewState::delta("browser", "k1", "scrolled"), quietly()).await?);
        assert_eq!((change.action, version(&change)), (Action::Persist, 2));
        kit.finish().await?;
    }

    // T14.4: only the current state counts.
    async fn a_then_b_then_a_is_three_states(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        for (n, key) in ["a", "b", "a"].into_iter().enumerate() {
            let sent = sent(thread.state_with(NewState::snapshot("l", key, key), quietly()).await?);
            assert_eq!(version(&sent), n as u64 + 1);
        }
        let other = sent(thread.state_with(NewState::snapshot("m", "a", "a"), quietly()).await?);
        assert_eq!(version(&other), 1);
        assert_eq!(history(&thread).await?, ["state a", "state b", "state a", "state a"]);
        kit.finish().await?;
    }

    // T14.2, T14.7
    async fn the_row_the_echo_and_the_metadata_tell_of_the_lane(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let snapshot = NewState { value: Some(json!({ "url": "a" })), ..NewState::snapshot("browser", "k1", "at a") };
        let first = sent(thread.state_with(snapshot, quietly()).await?);
        let change = NewState { delta: Some(json!({ "url": "b" })), ..NewState::delta("browser", "k2", "at b") };
        let second = sent(thread.state_with(change, quietly()).await?);
        let rows = thread.history(Window::latest(i64::MAX, 10)).await?;
        let marks: Vec<_> = rows.iter().map(|row| row.as_signal().unwrap().state.clone().unwrap()).collect();
        assert_eq!(marks.iter().map(|mark| (mark.version, mark.mode)).collect::<Vec<_>>(), [(1, Mode::Snapshot), (2, Mode::Delta)]);
        assert_eq!(marks[0].thread_id, "t");
        assert_eq!(marks[0].value, Some(json!({ "url": "a" })));
        let found = thread.find().await?.unwrap();
        let echoed = kit.store().chunks(found.key, 0, 100).await.map_err(aldis::Error::from)?;
        let echoed: Vec<_> = echoed
            .iter()
            .filter_map(|chunk| {
                let chunk: serde_json::Value = chunk.value.read().unwrap();
                (chunk["type"] == "data-signal").then(|| chunk["data"]["metadata"]["state"]["version"].clone())
            })
            .collect();
        assert_eq!(echoed, [json!(1), json!(2)]);
        let now = kit.now().to_string();
        assert_eq!(thread.metadata().await?, json!({ "mastra": { "stateSignals": { "browser": {
            "currentCacheKey": "k2", "currentMode": "delta", "version": 2,
            "lastSignalId": second.signal.id, "lastSnapshotSignalId": first.signal.id, "updatedAt": now,
            "activeCopies": [{ "id": second.signal.id, "cacheKey": "k2", "mode": "delta", "version": 2 }],
        } } } }));
        kit.finish().await?;
    }

    // T14.6
    async fn a_state_that_is_discarded_does_not_count_as_current(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let options = SendOptions { if_idle: IfIdle::Discard, if_active: IfActive::Discard, ..SendOptions::default() };
        let gone = sent(thread.state_with(NewState::snapshot("l", "a", "a"), options).await?);
        assert_eq!(gone.action, Action::Discard);
        assert_eq!(thread.lanes().await?, []);
        let kept = sent(thread.state_with(NewState::snapshot("l", "a", "a"), quietly()).await?);
        assert_eq!(version(&kept), 1);
        kit.finish().await?;
    }

    // T14.1, T3.20
    async fn a_state_without_a_lane_or_a_key_is_refused_in_words(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let refused = thread.state(NewState::snapshot("", "k", "x")).await.unwrap_err();
        says!(refused.to_string(), @"state signal id is required");
        let refused = thread.state(NewState::snapshot("l", "", "x")).await.unwrap_err();
        says!(refused.to_string(), @"state signal cacheKey is required");
        let transient = NewState { transient: Some(false), ..NewState::snapshot("l", "k", "x") };
        says!(thread.state(transient).await.unwrap_err().to_string(), @"state signals cannot be transient");
        assert!(thread.find().await?.is_none());
        kit.finish().await?;
    }

    // T20.5
    async fn a_repeat_of_a_state_gets_the_first_answer(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let keyed = || SendOptions { idempotency_key: Some("once".into()), ..quietly() };
        let first = sent(thread.state_with(NewState::snapshot("l", "a", "a"), keyed()).await?);
        thread.state_with(NewState::snapshot("l", "b", "b"), quietly()).await?;
        let again = sent(thread.state_with(NewState::snapshot("l", "a", "a"), keyed()).await?);
        assert_eq!(again, Sent { repeat: true, ..first });
        let other = thread.state_with(NewState::snapshot("l", "c", "a"), keyed()).await.unwrap_err();
        assert_eq!(other.code(), "signal_conflict");
        kit.finish().await?;
    }

    // T7.9
    async fn a_state_carries_the_attributes_of_the_branch_that_held(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let idle_attributes = serde_json::from_value::<Attributes>(json!({ "seen": "idle" })).unwrap();
        let options = SendOptions { idle_attributes, ..quietly() };
        thread.state_with(NewState::snapshot("l", "a", "x"), options).await?;
        let rows = thread.history(Window::latest(i64::MAX, 10)).await?;
        let said: Vec<String> = rows.iter().flat_map(|row| Message::prompt(row).0).filter_map(|it| it.plain_text().map(str::to_owned)).collect();
        assert_eq!(said, [r#"<state seen="idle">x</state>"#]);
        assert!(!chunks(&kit, &thread).await?.is_empty());
        kit.finish().await?;
    }

    // T14.6, T20.1, T20.8: whatever the crash, a state that was sent under a key is in its lane once.
    async fn lanes_survive_a_crash_at_every_write(kind) {
        Crash::of(|_| agents(kind))
            .survives(async |world| {
                for (n, key) in ["a", "b", "a"].into_iter().enumerate() {
                    let told = world
                        .ask(async |kit| {
                            let options = SendOptions { idempotency_key: Some(format!("k{n}")), ..quietly() };
                            Ok(sent(thread(kit).state_with(NewState::snapshot("l", key, key), options).await?))
                        })
                        .await?;
                    assert_eq!(version(&told), n as u64 + 1);
                }
                world
                    .ask(async |kit| {
                        let lanes = thread(kit).lanes().await?;
                        let lanes: Vec<_> = lanes.into_iter().map(|it| (it.id, it.current_cache_key, it.version)).collect();
                        Ok::<_, Error>((lanes, history(&thread(kit)).await?))
                    })
                    .await
            })
            .await?;
    }
}

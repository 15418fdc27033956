//! Lanes of state signals: versions, what is current, and producers that come at the same time.

use aldis::message::{Lane, Mode};
use aldis::store::{Commit, Form, Input, LaneChange, NotReceived, Received, Store, ThreadPart, Window};
use aldis::thread::{IfActive, IfIdle, NewLane, NewMessage, Route, Routing};

use crate::support::*;
use crate::threads::{claimed, input};

/// A state of the lane `browser`, that is only put into the history.
async fn state(store: &Store, id: &str, cache_key: &str) -> Input {
    let row = json(&format!(
        r#"{{"content":{{"metadata":{{"signal":{{"id":"{id}","metadata":{{"state":{{"version":0}}}}}}}}}}}}"#
    ));
    let signal = json(r#"{"metadata":{"state":{"version":0}}}"#);
    let form = Form { signal, row, shown: Vec::new() };
    let change = LaneChange { lane: "browser".into(), cache_key: cache_key.into(), mode: Mode::Snapshot };
    let routing = Routing { if_idle: IfIdle::Persist, ..Routing::default() };
    Input { lane: Some(change), routing, active: form.clone(), idle: form, ..input(store, id).await }
}

async fn taken(store: &Store, input: Input) -> Received {
    store.receive(input).await.unwrap().unwrap()
}

async fn lane(store: &Store, of: &Received) -> Lane {
    let lanes = store.lanes(of.thread).await.unwrap();
    assert_eq!(lanes.len(), 1, "{lanes:?}");
    lanes.into_iter().next().unwrap()
}

/// A state signal of the turn's own, with its row and its echo.
fn of_turn(of: &Received, id: &str, cache_key: &str, version: u64, again: bool) -> ThreadPart {
    let row =
        format!(r#"{{"content":{{"metadata":{{"signal":{{"metadata":{{"state":{{"version":{version}}}}}}}}}}}}}"#);
    let echo = format!(r#"{{"data":{{"id":"{id}","metadata":{{"state":{{"version":{version}}}}}}}}}"#);
    let lane = NewLane {
        lane: "browser".into(),
        signal: id.into(),
        cache_key: cache_key.into(),
        is_delta: false,
        version,
        again,
        window: json("[]"),
    };
    let message = NewMessage {
        id: id.into(),
        role: "signal",
        category: Some("state"),
        row: json(&row),
        at: at(10),
        again: false,
    };
    ThreadPart {
        thread: of.thread,
        messages: vec![message],
        shown: vec![json(&echo)],
        lanes: vec![lane],
        ..ThreadPart::default()
    }
}

/// The version in the row and in the echo of the state signal that came last.
async fn told(store: &Store, of: &Received) -> (i64, i64) {
    let row = store.messages(of.thread, Window::latest(i64::MAX, 1)).await.unwrap().remove(0);
    let row: serde_json::Value = row.content.read().unwrap();
    let echo = store.chunks(of.thread, 0, 100).await.unwrap().pop().unwrap();
    let echo: serde_json::Value = echo.value.read().unwrap();
    let in_row = &row["content"]["metadata"]["signal"]["metadata"]["state"]["version"];
    (in_row.as_i64().unwrap(), echo["data"]["metadata"]["state"]["version"].as_i64().unwrap())
}

each_store! {
    // T14.8: tracked in the commit that enters it.
    async fn a_state_of_a_turn_is_tracked_in_its_commit(store) {
        let woken = taken(store, input(store, "m1").await).await;
        let turn = claimed(store, "turn-m1").await;
        let left = of_turn(&woken, "p1", "a", 1, false);
        store.applied(Commit { thread: Some(Box::new(left)), ..turn.adds([finished("1")]) }).await;
        let lane = lane(store, &woken).await;
        assert_eq!((lane.version, lane.last_signal_id.as_str(), lane.current_cache_key.as_str()), (1, "p1", "a"));
        assert_eq!(told(store, &woken).await, (1, 1));
    }

    // T14.6: what an outside producer said meanwhile keeps its version; the turn's own gets the next one.
    async fn a_state_of_a_turn_that_comes_second_gets_the_next_version(store) {
        let woken = taken(store, input(store, "m1").await).await;
        let turn = claimed(store, "turn-m1").await;
        let routing = Routing { if_active: IfActive::Persist, ..Routing::default() };
        let outside = taken(store, Input { routing, ..state(store, "s1", "b").await }).await;
        assert_eq!(outside.version, Some(1));
        let left = of_turn(&woken, "p1", "a", 1, false);
        store.applied(Commit { thread: Some(Box::new(left)), ..turn.adds([finished("1")]) }).await;
        let lane = lane(store, &woken).await;
        assert_eq!((lane.version, lane.last_signal_id.as_str()), (2, "p1"));
        assert_eq!(told(store, &woken).await, (2, 2));
    }

    // T14.10
    async fn a_state_of_a_turn_that_is_said_again_keeps_its_version(store) {
        let woken = taken(store, input(store, "m1").await).await;
        let turn = claimed(store, "turn-m1").await;
        let left = of_turn(&woken, "p1", "a", 1, false);
        let turn = store.applied(Commit { thread: Some(Box::new(left)), ..turn.adds([finished("1")]) }).await;
        let left = of_turn(&woken, "p2", "a", 1, true);
        let turn = store.applied(Commit { thread: Some(Box::new(left)), ..turn.adds([finished("2")]) }).await;
        assert_eq!((lane(store, &woken).await.version, told(store, &woken).await), (1, (1, 1)));
        // Another state has come in between: it is not the same any more.
        let routing = Routing { if_active: IfActive::Persist, ..Routing::default() };
        taken(store, Input { routing, ..state(store, "s1", "b").await }).await;
        let left = of_turn(&woken, "p3", "a", 1, true);
        store.applied(Commit { thread: Some(Box::new(left)), ..turn.adds([finished("3")]) }).await;
        assert_eq!((lane(store, &woken).await.version, told(store, &woken).await), (3, (3, 3)));
    }

    // T14.6
    async fn a_refused_commit_leaves_tracking_alone(store) {
        let woken = taken(store, input(store, "m1").await).await;
        let turn = claimed(store, "turn-m1").await;
        let stale = Held { fence: aldis::id::Fence(turn.fence.0 - 1), ..turn.clone() };
        let left = of_turn(&woken, "p1", "a", 1, false);
        let commit = Commit { thread: Some(Box::new(left)), ..stale.adds([finished("1")]) };
        assert!(matches!(store.verdict(commit).await, aldis::store::Verdict::Refused(_)));
        assert_eq!(store.lanes(woken.thread).await.unwrap(), []);
    }

    async fn messages_are_found_by_their_ids(store) {
        let first = taken(store, state(store, "s1", "a").await).await;
        taken(store, state(store, "s2", "b").await).await;
        let ids = ["s2".to_owned(), "s9".to_owned(), "s1".to_owned()];
        let found = store.messages_named(first.thread, &ids).await.unwrap();
        assert_eq!(found.iter().map(|it| (it.seq, it.id.as_str())).collect::<Vec<_>>(), [(1, "s1"), (2, "s2")]);
        assert_eq!(store.messages_named(first.thread, &[]).await.unwrap(), []);
    }

    // T14.4, T14.5
    async fn a_lane_that_says_it_already_takes_nothing(store) {
        let first = taken(store, state(store, "s1", "a").await).await;
        assert_eq!(first.version, Some(1));
        let same = store.receive(state(store, "s2", "a").await).await.unwrap();
        let thread = aldis::id::ThreadId::parse("t").unwrap();
        assert_eq!(same, Err(NotReceived::Unchanged { thread, lane: "browser".into() }));
        assert_eq!(taken(store, state(store, "s3", "b").await).await.version, Some(2));
        assert_eq!(taken(store, state(store, "s4", "a").await).await.version, Some(3));
        let lane = lane(store, &first).await;
        assert_eq!((lane.version, lane.last_signal_id.as_str()), (3, "s4"));
        assert_eq!(lane.active_copies.len(), 1);
    }

    // T14.2
    async fn what_is_stored_holds_the_version(store) {
        taken(store, state(store, "s1", "a").await).await;
        let second = taken(store, state(store, "s2", "b").await).await;
        let rows = store.messages(second.thread, Window::after(0, 10)).await.unwrap();
        let versions: Vec<i64> = rows
            .iter()
            .map(|row| {
                let row: serde_json::Value = row.content.read().unwrap();
                row["content"]["metadata"]["signal"]["metadata"]["state"]["version"].as_i64().unwrap()
            })
            .collect();
        assert_eq!(versions, [1, 2]);
    }

    // T14.6
    async fn a_state_that_is_discarded_leaves_tracking_alone(store) {
        let first = taken(store, state(store, "s1", "a").await).await;
        let routing = Routing { if_idle: IfIdle::Discard, ..Routing::default() };
        let gone = taken(store, Input { routing, ..state(store, "s2", "b").await }).await;
        assert_eq!((gone.route, gone.version), (Route::Discard, Some(2)));
        assert_eq!(lane(store, &first).await.last_signal_id, "s1");
    }

    // T14.6
    async fn a_state_that_is_refused_leaves_tracking_alone(store) {
        let woken = taken(store, input(store, "m1").await).await;
        taken(store, input(store, "m2").await).await;
        let full = Input { pending_max: 1, ..state(store, "s1", "a").await };
        assert!(matches!(store.receive(full).await.unwrap(), Err(NotReceived::TooManyPending { .. })));
        assert_eq!(store.lanes(woken.thread).await.unwrap(), []);
        assert_eq!(taken(store, state(store, "s1", "a").await).await.version, Some(1));
    }

    // T14.6
    async fn producers_at_the_same_time_lose_nothing(store) {
        let elsewhere = store.elsewhere().await;
        let mut states = Vec::new();
        for n in 0..40 {
            states.push(state(store, &format!("s{n}"), &format!("k{n}")).await);
        }
        let here: &Store = store;
        let sends = states.into_iter().enumerate().map(|(n, state)| {
            let store = if n % 2 == 0 { here } else { &elsewhere };
            taken(store, state)
        });
        let answers = futures::future::join_all(sends).await;
        let mut versions: Vec<u64> = answers.iter().filter_map(|answer| answer.version).collect();
        versions.sort_unstable();
        assert_eq!(versions, (1..=40).collect::<Vec<u64>>());
        let last = answers.iter().find(|answer| answer.version == Some(40)).unwrap();
        assert_eq!(lane(store, last).await.last_signal_id, last.id);
    }

    // T14.4, T14.6
    async fn of_many_that_say_the_same_one_is_taken(store) {
        let mut states = Vec::new();
        for n in 0..20 {
            states.push(state(store, &format!("s{n}"), "same").await);
        }
        let answers = futures::future::join_all(states.into_iter().map(|state| store.receive(state))).await;
        let taken = answers.into_iter().filter(|answer| answer.as_ref().unwrap().is_ok());
        assert_eq!(taken.count(), 1);
    }

    // T20.5
    async fn a_state_under_the_same_idempotency_key_gets_the_first_answer(store) {
        let keyed = |input: Input| Input { key: Some("k".into()), digest: "same".into(), ..input };
        let first = taken(store, keyed(state(store, "s1", "a").await)).await;
        taken(store, state(store, "s2", "b").await).await;
        let again = taken(store, keyed(state(store, "s3", "a").await)).await;
        assert_eq!(again, Received { repeat: true, ..first.clone() });
        assert_eq!(lane(store, &first).await.last_signal_id, "s2");
    }
}

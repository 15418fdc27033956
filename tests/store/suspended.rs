//! Which turns wait for somebody, with which calls (T13.11).

use aldis::id::ThreadId;
use aldis::store::{Commit, Input, Page, Store, SuspendedFilter, ThreadPart};
use aldis::thread::NewCall;

use crate::support::*;
use crate::threads::{claimed, input, received};

/// A turn of a thread that waits with one call since `since`.
async fn waits(store: &Store, thread: &str, resource: &str, since: i64) -> (Held, ThreadPart) {
    let id = ThreadId::parse(thread).unwrap();
    let of = |it: Input| Input { thread: id, resource: resource.into(), ..it };
    let key = received(store, of(input(store, thread).await)).await.thread;
    let turn = claimed(store, &format!("turn-{thread}")).await;
    let value = json(r#"{"args":{"n":1},"requiresApproval":true,"suspendPayload":null}"#);
    let call = NewCall { call: format!("call-{thread}"), tool: "pay".into(), value, expires_at: Some(at(900)) };
    let left = ThreadPart { thread: key, suspends: vec![call], ..ThreadPart::default() };
    let commit = Commit { thread: Some(Box::new(left.clone())), at: at(since), ..turn.adds([finished("1")]) };
    (store.applied(commit).await, left)
}

async fn listed(store: &Store, filter: SuspendedFilter, page: Page) -> (Vec<String>, usize) {
    let found = store.suspended(&filter, page).await.unwrap();
    (found.items.iter().map(|run| run.run.to_string()).collect(), found.total)
}

fn names(of: &[&str]) -> Vec<String> {
    of.iter().map(|it| format!("turn-{it}")).collect()
}

each_store! {
    async fn suspended_runs_are_listed_by_thread_owner_agent_and_time_in_pages(store) {
        for (thread, resource, since) in [("a", "ann", 300), ("b", "bob", 100), ("c", "ann", 200)] {
            waits(store, thread, resource, since).await;
        }
        let all = SuspendedFilter::default();
        assert_eq!(listed(store, all.clone(), Page::first(9)).await, (names(&["b", "c", "a"]), 3));
        assert_eq!(listed(store, all.clone(), Page { number: 1, size: 2 }).await, (names(&["a"]), 3));
        for empty in [Page { number: 7, size: 2 }, Page::first(0)] {
            assert_eq!(listed(store, all.clone(), empty).await, (names(&[]), 3), "the total is told all the same");
        }
        let ann = SuspendedFilter { resource: Some("ann".into()), ..all.clone() };
        assert_eq!(listed(store, ann, Page::first(9)).await, (names(&["c", "a"]), 2));
        let thread = SuspendedFilter { thread: Some(ThreadId::parse("b").unwrap()), ..all.clone() };
        assert_eq!(listed(store, thread, Page::first(9)).await, (names(&["b"]), 1));
        let between = SuspendedFilter { from: Some(at(200)), to: Some(at(299)), ..all.clone() };
        assert_eq!(listed(store, between, Page::first(9)).await, (names(&["c"]), 1));
        let other = SuspendedFilter { agent: Some("other".into()), ..all };
        assert_eq!(listed(store, other, Page::first(9)).await, (names(&[]), 0));
    }

    async fn a_suspended_run_is_listed_with_its_open_calls_until_they_are_settled(store) {
        let (turn, left) = waits(store, "a", "ann", 100).await;
        let value = json(r#"{"args":{"q":"?"},"requiresApproval":false,"suspendPayload":{"question":"?"}}"#);
        let asks = NewCall { call: "asks".into(), tool: "ask".into(), value, expires_at: None };
        let more = ThreadPart { suspends: vec![asks], ..ThreadPart { thread: left.thread, ..ThreadPart::default() } };
        let turn = store.applied(Commit { thread: Some(Box::new(more)), ..turn.adds([finished("2")]) }).await;
        let found = store.suspended(&SuspendedFilter::default(), Page::first(9)).await.unwrap();
        let [run] = &found.items[..] else { panic!("{found:?}") };
        assert_eq!((run.thread.as_str(), run.resource.as_str(), run.agent.as_str()), ("a", "ann", "support"));
        assert_eq!(run.suspended_at, at(10), "since the one that waits longest");
        let [asks, pay] = &run.calls[..] else { panic!("{run:?}") };
        assert_eq!((pay.call.as_str(), pay.tool.as_str(), pay.requires_approval), ("call-a", "pay", true));
        assert_eq!((pay.args.to_string(), &pay.suspend_payload), (r#"{"n":1}"#.to_owned(), &None));
        assert_eq!((pay.since, pay.expires_at), (at(100), Some(at(900))));
        assert_eq!((asks.requires_approval, asks.suspend_payload.is_some()), (false, true));
        let settles = vec!["asks".into(), "call-a".into()];
        let settled = ThreadPart { thread: left.thread, settles, ..ThreadPart::default() };
        store.applied(Commit { thread: Some(Box::new(settled)), ..turn.adds([finished("3")]) }).await;
        assert_eq!(listed(store, SuspendedFilter::default(), Page::first(9)).await, (names(&[]), 0));
    }
}

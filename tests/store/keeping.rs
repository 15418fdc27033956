//! Keeping threads: made, changed, listed, paged through, deleted and copied (H10.1 to H10.7, case 19).

use aldis::id::{Namespace, RunId, RunKey, ThreadId, ThreadKey};
use aldis::journal::Event;
use aldis::run::{Closed, Status};
use aldis::store::{
    Around, Commit, CopyThread, Erase, Fault, Faults, Input, MessageFilter, NewThread, NotCopied, NotReceived, Options,
    Page, Refusal, Seen, Store, ThreadChange, ThreadFilter, ThreadOrder, ThreadPart, Verdict, Window,
};
use aldis::thread::{IfActive, IfIdle, NewMessage, Route, Routing, Thread};

use crate::support::*;
use crate::threads::{claimed, ends, input, received};

fn named(id: &str) -> ThreadId {
    ThreadId::parse(id).unwrap()
}

async fn found(store: &Store, id: &str) -> Option<Thread> {
    store.thread(&Namespace::default(), &named(id)).await.unwrap()
}

fn change(id: &str, resource: &str) -> ThreadChange {
    ThreadChange {
        namespace: Namespace::default(),
        id: named(id),
        resource: Some(resource.into()),
        title: None,
        metadata: None,
        at: at(30),
    }
}

fn new(key: i64, id: &str, resource: &str, time: i64) -> NewThread {
    NewThread {
        key: ThreadKey(key),
        namespace: Namespace::default(),
        id: named(id),
        resource: resource.into(),
        title: String::new(),
        metadata: json("null"),
        aside: false,
        at: at(time),
    }
}

async fn made(store: &Store, id: &str, resource: &str, time: i64, metadata: &str) -> Result<(), NotReceived> {
    let key = store.key().await;
    let change = ThreadChange { metadata: Some(json(metadata)), at: at(time), ..change(id, resource) };
    store.make_thread(new(key, id, resource, time), change).await.unwrap()
}

fn erase(id: &str) -> Erase {
    let (namespace, resource) = (Namespace::default(), Some("ann".to_owned()));
    Erase { namespace, id: named(id), resource, by: "ann".into(), at: at(40) }
}

async fn persisted(store: &Store, id: &str, category: &'static str, time: i64) -> ThreadKey {
    let routing = Routing { if_idle: IfIdle::Persist, if_active: IfActive::Persist, ..Routing::default() };
    received(store, Input { routing, category, at: at(time), ..input(store, id).await }).await.thread
}

async fn listed(store: &Store, filter: ThreadFilter, page: Page) -> (String, usize) {
    let found = store.list_threads(&filter, page).await.unwrap();
    (found.items.iter().map(|it| it.id.as_str()).collect::<Vec<_>>().join(" "), found.total)
}

async fn paged(store: &Store, thread: ThreadKey, filter: MessageFilter) -> (String, usize) {
    let found = store.list_messages(thread, &filter).await.unwrap();
    (found.items.iter().map(|it| it.id.as_str()).collect::<Vec<_>>().join(" "), found.total)
}

fn page(number: usize, size: usize) -> MessageFilter {
    MessageFilter::page(Page { number, size })
}

/// What subscribers of a thread are shown: the place and the type of each chunk, or the chunk itself if it is a text.
async fn shown(store: &Store, thread: ThreadKey) -> Vec<(i64, String)> {
    let chunks = store.chunks(thread, 0, 100).await.unwrap();
    let kind = |value: serde_json::Value| value["type"].as_str().or(value.as_str()).unwrap_or_default().to_owned();
    chunks.iter().map(|chunk| (chunk.offset, kind(chunk.value.read().unwrap()))).collect()
}

/// The run as it stands, and the last line of its journal.
async fn ended(store: &Store, id: &str) -> (Status, Event) {
    let run = store.find(&Namespace::default(), &RunId::parse(id).unwrap()).await.unwrap().unwrap();
    let last = store.outcome(run.key).await.unwrap().unwrap();
    (run.status, last.event)
}

each_store! {
    // H10.3, H10.4
    async fn a_thread_is_made_once_and_changed_by_its_owner_alone(store) {
        made(store, "t", "ann", 10, r#"{"a":1}"#).await.unwrap();
        let first = found(store, "t").await.unwrap();
        assert_eq!((first.title.as_str(), first.metadata.as_str(), first.created_at), ("", r#"{"a":1}"#, at(10)));
        assert_eq!(made(store, "t", "bob", 20, "{}").await, Err(NotReceived::Foreign));
        assert_eq!(found(store, "t").await.unwrap(), first, "nobody takes a thread over by making it again");
        made(store, "t", "ann", 20, r#"{"b":2}"#).await.unwrap();
        let again = found(store, "t").await.unwrap();
        assert_eq!((again.key, again.metadata.as_str()), (first.key, r#"{"b":2}"#));
        assert_eq!((again.created_at, again.updated_at), (at(10), at(20)));
        let title = ThreadChange { title: Some("Invoice".into()), at: at(15), ..change("t", "ann") };
        assert_eq!(store.change_thread(title.clone()).await.unwrap(), Ok(true));
        let titled = found(store, "t").await.unwrap();
        assert_eq!((titled.title.as_str(), titled.metadata.as_str()), ("Invoice", r#"{"b":2}"#));
        assert_eq!(titled.updated_at, at(20), "times do not go back");
        let foreign = ThreadChange { resource: Some("bob".into()), ..title.clone() };
        assert_eq!(store.change_thread(foreign).await.unwrap(), Err(NotReceived::Foreign));
        assert_eq!(store.change_thread(ThreadChange { id: named("none"), ..title }).await.unwrap(), Ok(false));
    }

    // H10.4: what a client sets does not wipe what the runtime keeps, nor is the projection of lanes taken for it.
    async fn metadata_is_replaced_and_the_key_mastra_stays(store) {
        made(store, "t", "ann", 10, r#"{"a":1,"mastra":{"note":"x","stateSignals":{"l":{}}}}"#).await.unwrap();
        assert_eq!(found(store, "t").await.unwrap().metadata.as_str(), r#"{"a":1,"mastra":{"note":"x"}}"#);
        for (given, then) in [
            (r#"{"b":2}"#, r#"{"b":2,"mastra":{"note":"x"}}"#),
            (r#"{"mastra":{"more":1}}"#, r#"{"mastra":{"note":"x","more":1}}"#),
            ("null", r#"{"mastra":{"note":"x","more":1}}"#),
        ] {
            let change = ThreadChange { metadata: Some(json(given)), ..change("t", "ann") };
            assert_eq!(store.change_thread(change).await.unwrap(), Ok(true));
            assert_eq!(found(store, "t").await.unwrap().metadata.as_str(), then);
        }
    }

    // H10.1
    async fn threads_are_listed_by_owner_and_metadata_in_either_order_in_pages(store) {
        for (id, resource, time, metadata) in [
            ("a", "ann", 10, r#"{"kind":"x","n":3,"ok":true}"#),
            ("b", "bob", 20, r#"{"kind":"x","n":4,"none":null}"#),
            ("c", "ann", 30, "null"),
        ] {
            made(store, id, resource, time, metadata).await.unwrap();
        }
        store.change_thread(ThreadChange { title: Some("t".into()), at: at(50), ..change("a", "ann") }).await.unwrap().unwrap();
        let all = ThreadFilter::default();
        let some = Page::first(9);
        assert_eq!(listed(store, all.clone(), some).await, ("c b a".into(), 3));
        assert_eq!(listed(store, ThreadFilter { ascending: true, ..all.clone() }, some).await, ("a b c".into(), 3));
        let updated = ThreadFilter { order: ThreadOrder::UpdatedAt, ..all.clone() };
        assert_eq!(listed(store, updated, some).await, ("a c b".into(), 3));
        assert_eq!(listed(store, all.clone(), Page { number: 1, size: 2 }).await, ("a".into(), 3));
        assert_eq!(listed(store, all.clone(), Page { number: 9, size: 2 }).await, (String::new(), 3));
        assert_eq!(listed(store, all.clone(), Page::first(0)).await, (String::new(), 3));
        let ann = ThreadFilter { resource: Some("ann".into()), ..all.clone() };
        assert_eq!(listed(store, ann, some).await, ("c a".into(), 2));
        for (metadata, ids) in [
            (r#"{"kind":"x"}"#, "b a"),
            (r#"{"kind":"x","n":3}"#, "a"),
            (r#"{"n":"3"}"#, ""),
            (r#"{"ok":true}"#, "a"),
            (r#"{"ok":1}"#, ""),
            (r#"{"none":null}"#, "b"),
            (r#"{"other":null}"#, ""),
        ] {
            let filter = ThreadFilter { metadata: json(metadata).read().unwrap(), ..all.clone() };
            assert_eq!(listed(store, filter, some).await.0, ids, "{metadata}");
        }
    }

    // H10.6, T6.9
    async fn a_history_is_paged_from_its_newest_message_and_hides_reactive_signals_before_it_counts(store) {
        let mut thread = ThreadKey(0);
        for n in 1..=7 {
            let category = if n == 4 { "reactive" } else { "user" };
            thread = persisted(store, &format!("s{n}"), category, 10 * n).await;
        }
        assert_eq!(paged(store, thread, page(0, 3)).await, ("s5 s6 s7".into(), 6));
        assert_eq!(paged(store, thread, page(1, 3)).await, ("s1 s2 s3".into(), 6));
        assert_eq!(paged(store, thread, page(2, 3)).await, (String::new(), 6));
        let oldest = |number| MessageFilter { oldest_first: true, ..page(number, 4) };
        assert_eq!(paged(store, thread, oldest(0)).await, ("s1 s2 s3 s5".into(), 6));
        assert_eq!(paged(store, thread, oldest(1)).await, ("s6 s7".into(), 6));
        let all = MessageFilter { reminders: true, ..page(0, 9) };
        assert_eq!(paged(store, thread, all).await, ("s1 s2 s3 s4 s5 s6 s7".into(), 7));
        let between = MessageFilter { from: Some(at(20)), to: Some(at(50)), ..page(0, 9) };
        assert_eq!(paged(store, thread, between).await, ("s2 s3 s5".into(), 3));
        let around = |id: &str, before, after| Around { id: id.into(), thread: None, before, after };
        let include = vec![around("s3", 1, 1), around("none", 5, 5)];
        assert_eq!(paged(store, thread, MessageFilter { include, ..page(0, 1) }).await, ("s2 s3 s5 s7".into(), 6));
        let include = vec![around("s2", 0, 0)];
        assert_eq!(paged(store, thread, MessageFilter { include, ..page(0, 0) }).await, ("s2".into(), 6));
    }

    // Case 19: a run is active, one is queued, and signals are pending.
    async fn a_thread_goes_with_its_runs_and_what_they_had_not_taken(store) {
        let old = received(store, input(store, "s1").await).await.thread;
        let turn = claimed(store, "turn-s1").await;
        received(store, input(store, "s2").await).await;
        let queue = Routing { queue: true, ..Routing::default() };
        received(store, Input { routing: queue, ..input(store, "q1").await }).await;
        store.show(old, "p", vec![json(r#""a""#), json(r#""b""#)], at(25)).await.unwrap();
        let erased = store.delete_thread(erase("t")).await.unwrap().unwrap().unwrap();
        assert_eq!(erased.runs.iter().map(|it| it.as_str()).collect::<Vec<_>>(), ["turn-s1", "turn-q1"]);
        assert_eq!(erased.untaken, ["q1", "s2"]);
        assert_eq!(found(store, "t").await, None);
        assert_eq!(store.delete_thread(erase("t")).await.unwrap(), Ok(None), "it is gone");
        for id in ["turn-s1", "turn-q1"] {
            let (status, last) = ended(store, id).await;
            assert!(matches!(status, Status::Closed { how: Closed::Terminated, .. }), "{id}: {status:?}");
            let Event::RunTerminated(last) = last else { panic!("{last:?}") };
            assert_eq!((last.by.as_str(), last.reason.contains("s2")), ("ann", id == "turn-s1"), "{}", last.reason);
        }
        // What the run still does is refused.
        assert!(matches!(store.verdict(ends(&turn, old)).await, Verdict::Refused(Refusal::Fenced { .. })));
        assert_eq!(store.row(turn.run).await.signals_pending, 0);
        let told = [(3, "abort".to_owned()), (4, "data-thread-deleted".to_owned())];
        assert_eq!(shown(store, old).await, told);
        // What comes later makes another thread, with nothing of the old one, which counts on.
        let fresh = received(store, Input { at: at(50), ..input(store, "s1").await }).await;
        assert_eq!((fresh.route, fresh.repeat), (Route::Wake, false), "its ids are its own");
        assert_ne!(fresh.thread, old);
        assert_eq!(shown(store, fresh.thread).await, told[1..]);
        store.show(old, "p", vec![json(r#""late""#)], at(55)).await.unwrap();
        store.show(fresh.thread, "p", vec![json(r#""c""#)], at(55)).await.unwrap();
        assert_eq!(shown(store, fresh.thread).await[1..], [(5, "c".to_owned())], "what the old run still says stays there");
        assert_eq!(found(store, "t").await.unwrap().created_at, at(50));
        assert_eq!(store.messages(fresh.thread, Window::after(0, 9)).await.unwrap(), []);
    }

    async fn places_of_a_thread_under_the_id_of_a_deleted_one_go_on_where_that_one_ended(store) {
        for round in 0..3 {
            let thread = persisted(store, "s1", "user", 10).await;
            let history = store.messages(thread, Window::after(0, 9)).await.unwrap();
            assert_eq!(history.iter().map(|it| it.seq).collect::<Vec<_>>(), [round + 1]);
            let first = store.chunks(thread, 0, 1).await.unwrap()[0].offset;
            assert_eq!(first, if round == 0 { 1 } else { 4 * round });
            let foreign = Erase { resource: Some("bob".into()), ..erase("t") };
            assert_eq!(store.delete_thread(foreign).await.unwrap(), Err(NotReceived::Foreign));
            store.delete_thread(erase("t")).await.unwrap().unwrap().unwrap();
        }
    }

    async fn what_goes_with_a_thread_is_told_although_the_answer_was_lost(store) {
        received(store, input(store, "s1").await).await;
        let options = Options { faults: Some(Faults::at(1, Fault::LoseAnswer)), ..Options::default() };
        let shaky = store.elsewhere_with(options).await;
        let erased = shaky.delete_thread(erase("t")).await.unwrap().unwrap().unwrap();
        assert_eq!(erased.runs.len(), 1);
        shaky.close().await;
        assert_eq!(found(store, "t").await, None);
    }

    async fn a_reader_gets_what_is_new_and_everything_after_a_change(store) {
        let thread = persisted(store, "s1", "user", 10).await;
        persisted(store, "s2", "user", 20).await;
        let reads = async |seen| {
            let recent = store.recent(thread, RunKey(77), 9, seen).await.unwrap();
            let rows: Vec<i64> = recent.rows.iter().map(|row| row.seq).collect();
            (recent.whole, rows, Some(Seen { edits: recent.edits, until: 2 }))
        };
        let (whole, rows, seen) = reads(None).await;
        assert_eq!((whole, rows), (true, vec![1, 2]));
        assert_eq!(reads(seen).await, (false, vec![], seen));
        persisted(store, "s3", "user", 30).await;
        assert_eq!(reads(seen).await, (false, vec![3], seen));
        store.delete_messages(thread, vec!["s1".into()], at(40)).await.unwrap();
        let (whole, rows, again) = reads(seen).await;
        assert_eq!((whole, rows), (true, vec![2, 3]));
        assert_ne!(again, seen);
        // A turn that gives a call of an earlier one its result (T13.14).
        received(store, input(store, "s4").await).await;
        let turn = claimed(store, "turn-s4").await;
        let message = |again| NewMessage {
            id: "m1".into(), role: "assistant", category: None, row: json("{}"), at: at(50), again,
        };
        let writes = |again| Some(Box::new(ThreadPart { thread, messages: vec![message(again)], ..ThreadPart::default() }));
        let turn = store.applied(Commit { thread: writes(false), ..turn.adds([finished("1")]) }).await;
        store.applied(Commit { thread: writes(true), ..turn.completes() }).await;
        let (whole, _, seen) = reads(again).await;
        assert_eq!((whole, seen), (false, again), "its own are no change");
        received(store, input(store, "s5").await).await;
        let next = claimed(store, "turn-s5").await;
        store.applied(Commit { thread: writes(true), ..next.completes() }).await;
        assert!(reads(seen).await.0);
    }

    // H10.7
    async fn a_deleted_message_is_gone_for_all_but_the_run_that_may_have_read_it(store) {
        let thread = persisted(store, "s1", "user", 10).await;
        persisted(store, "s2", "user", 20).await;
        received(store, input(store, "s3").await).await;
        let turn = claimed(store, "turn-s3").await;
        let message = |again| NewMessage {
            id: "m1".into(), role: "assistant", category: None, row: json("{}"), at: at(30), again,
        };
        let writes = |again| Some(Box::new(ThreadPart { thread, messages: vec![message(again)], ..ThreadPart::default() }));
        let turn = store.applied(Commit { thread: writes(false), ..turn.adds([finished("1")]) }).await;
        let ids = ["s1", "m1", "none"].map(str::to_owned).to_vec();
        let mut deleted = store.delete_messages(thread, ids.clone(), at(40)).await.unwrap();
        deleted.sort();
        assert_eq!(deleted, ["m1", "s1"]);
        assert_eq!(store.delete_messages(thread, ids, at(40)).await.unwrap(), Vec::<String>::new());
        assert_eq!(paged(store, thread, page(0, 9)).await, ("s2".into(), 1));
        let places = |recent: aldis::store::Recent| recent.rows.iter().map(|row| row.seq).collect::<Vec<_>>();
        assert_eq!(places(store.recent(thread, turn.run, 9, None).await.unwrap()), [1, 2, 3]);
        // The run goes on with the message, which does not come back by that.
        let last = Commit { thread: writes(true), ..turn.completes() };
        store.applied(last).await;
        assert_eq!(places(store.recent(thread, RunKey(77), 9, None).await.unwrap()), [2]);
        assert_eq!(store.messages(thread, Window::latest(i64::MAX, 9)).await.unwrap().len(), 1);
        assert_eq!(store.messages_named(thread, &["s1".into()]).await.unwrap(), []);
        persisted(store, "s4", "user", 50).await;
        let history = store.messages(thread, Window::after(0, 9)).await.unwrap();
        assert_eq!(history.iter().map(|it| it.seq).collect::<Vec<_>>(), [2, 4], "its place stays empty");
    }

    async fn a_copy_has_the_history_up_to_a_message_and_is_a_thread_of_its_own(store) {
        let mut from = ThreadKey(0);
        for n in 1..=3 {
            from = persisted(store, &format!("s{n}"), "user", 10 * n).await;
        }
        store.delete_messages(from, vec!["s1".into()], at(35)).await.unwrap();
        let copy = async |id: &str, until: Option<&str>| {
            let to = new(store.key().await, id, "ann", 60);
            store.copy_thread(CopyThread { from, until: until.map(str::to_owned), to }).await.unwrap()
        };
        assert_eq!(copy("all", None).await, Ok(2));
        assert_eq!(copy("some", Some("s2")).await, Ok(1));
        assert_eq!(copy("some", None).await, Err(NotCopied::IdInUse { thread: "some".into() }));
        let unknown = Err(NotCopied::UnknownMessage { message: "s1".into() });
        assert_eq!(copy("none", Some("s1")).await, unknown, "a deleted message is not there");
        assert_eq!(found(store, "none").await, None);
        let all = found(store, "all").await.unwrap();
        assert_eq!((all.created_at, all.updated_at, all.last_seq), (at(60), at(60), 2));
        let history = store.messages(all.key, Window::after(0, 9)).await.unwrap();
        assert_eq!(history.iter().map(|it| (it.seq, it.created_at.0)).collect::<Vec<_>>(), [(1, 20), (2, 30)]);
        for message in &history {
            assert!(!message.id.starts_with('s'), "it has an id of its own");
            let row: serde_json::Value = message.content.read().unwrap();
            assert_eq!((row["id"].as_str(), row["threadId"].as_str()), (Some(message.id.as_str()), Some("all")));
        }
        store.delete_messages(all.key, vec![history[0].id.clone()], at(70)).await.unwrap();
        assert_eq!(store.messages(from, Window::after(0, 9)).await.unwrap().len(), 2, "the other is not touched");
    }
}

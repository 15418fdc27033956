//! Inputs to threads, and how a thread is handed on when a turn ends.

use aldis::id::{Namespace, RunKey, ThreadId, ThreadKey};
use aldis::journal::Event;
use aldis::run::{Closed, Status};
use aldis::store::{
    Commit, Fault, Faults, Form, Hint, Input, Leaves, NewTurn, NotReceived, Options, Received, Store, ThreadPart,
    Unsend, Which, Window,
};
use aldis::thread::{Branch, IfActive, IfIdle, NewCall, NewMessage, Route, Routing, TurnInput};

use crate::support::*;

/// An input to thread `t` of Ann for the agent `support`, at 10.
pub async fn input(store: &Store, id: &str) -> Input {
    let keys = store.reserve_keys(2).await.unwrap();
    let form = |branch: &str| Form {
        signal: json(&format!(r#"{{"id":"{id}","branch":"{branch}"}}"#)),
        row: json(&format!(r#"{{"row":"{id} {branch}"}}"#)),
        shown: ["start", "echo", "finish"].map(|it| json(&format!(r#""{it} {id}""#))).to_vec(),
    };
    Input {
        namespace: Namespace::default(),
        thread: ThreadId::parse("t").unwrap(),
        resource: "ann".into(),
        thread_key: ThreadKey(keys.start),
        only_run: None,
        agent: "support".into(),
        id: id.into(),
        key: None,
        digest: format!("digest of {id}"),
        category: "user",
        lane: None,
        routing: Routing::default(),
        owner: None,
        active: form("active"),
        idle: form("idle"),
        turn: NewTurn {
            run: RunKey(keys.start + 1),
            named: false,
            id: aldis::id::RunId::parse(format!("turn-{id}")).unwrap(),
            seed: uuid::Uuid::nil(),
            workflow: "turn".into(),
            version: 1,
            options: json(r#"{"maxSteps":5}"#),
            follow_ups: 100,
            worker: None,
            first: None,
        },
        results: Vec::new(),
        said: Vec::new(),
        aside: false,
        at: at(10),
        pending_max: 100,
    }
}

pub async fn received(store: &Store, input: Input) -> Received {
    store.receive(input).await.unwrap().unwrap()
}

async fn sent(store: &Store, id: &str) -> Received {
    received(store, input(store, id).await).await
}

async fn queued(store: &Store, id: &str) -> Received {
    let routing = Routing { queue: true, ..Routing::default() };
    received(store, Input { routing, ..input(store, id).await }).await
}

async fn for_agent(store: &Store, agent: &str, id: &str) -> Input {
    Input { agent: agent.into(), ..input(store, id).await }
}

/// The turn with this id, claimed and begun by [`ME`].
pub async fn claimed(store: &Store, id: &str) -> Held {
    let claimed = store.claim(ME, &knows(&["turn v1"]), 10, at(20)).await.unwrap();
    let run = claimed.iter().find(|run| run.id.as_str() == id);
    Held::of(run.unwrap_or_else(|| panic!("{id} is not due; due are {claimed:?}")))
}

fn part(store_thread: ThreadKey) -> Option<Box<ThreadPart>> {
    Some(Box::new(ThreadPart { thread: store_thread, ..ThreadPart::default() }))
}

/// The commit that ends a turn of a thread.
pub fn ends(held: &Held, thread: ThreadKey) -> Commit {
    Commit { thread: part(thread), ..held.completes() }
}

/// What a turn that waits in the store begins with.
pub async fn first_of(store: &Store, id: &str) -> Vec<String> {
    let run = store.find(&Namespace::default(), &aldis::id::RunId::parse(id).unwrap()).await.unwrap().unwrap();
    let past = store.past(run.key).await;
    let Event::RunQueued(queued) = &past.journal[0].event else { panic!("{:?}", past.journal) };
    let input: TurnInput = queued.input.read().unwrap();
    input
        .first
        .iter()
        .map(|signal| signal.read::<serde_json::Value>().unwrap()["id"].as_str().unwrap().to_owned())
        .collect()
}

/// The turn that has the thread.
async fn current(store: &Store) -> Option<String> {
    let thread = store.thread(&Namespace::default(), &ThreadId::parse("t").unwrap()).await.unwrap().unwrap();
    thread.current.map(|current| current.run.to_string())
}

pub async fn shown(store: &Store, thread: ThreadKey) -> Vec<String> {
    let chunks = store.read_stream(RunKey(thread.0), "chunks", 0, 100).await.unwrap();
    chunks.iter().map(|chunk| chunk.value.read::<String>().unwrap()).collect()
}

each_store! {
    async fn an_input_to_an_idle_thread_begins_a_turn(store) {
        let woken = sent(store, "s1").await;
        assert_eq!((woken.branch, woken.route, woken.repeat), (Branch::Idle, Route::Wake, false));
        assert_eq!(woken.run.as_ref().unwrap().as_str(), "turn-s1");
        assert_eq!(current(store).await.as_deref(), Some("turn-s1"));
        assert_eq!(first_of(store, "turn-s1").await, ["s1"]);
        let turn = claimed(store, "turn-s1").await;
        assert_eq!(store.row(turn.run).await.thread, Some(woken.thread));
    }

    async fn an_input_while_the_agent_has_the_thread_goes_to_its_turn(store) {
        sent(store, "s1").await;
        let joined = sent(store, "s2").await;
        assert_eq!((joined.branch, joined.route), (Branch::Active, Route::Deliver));
        assert_eq!(joined.run.unwrap().as_str(), "turn-s1");
        let turn = claimed(store, "turn-s1").await;
        let pending = store.past(turn.run).await.pending;
        assert_eq!(pending.len(), 1);
        assert_eq!(pending[0].payload, json(r#"{"id":"s2","branch":"active"}"#));
    }

    // T10.9, T10.10
    async fn what_a_turn_has_not_taken_begins_the_next_one_in_the_commit_that_ends_it(store) {
        let thread = sent(store, "s1").await.thread;
        let turn = claimed(store, "turn-s1").await;
        for id in ["s2", "s3"] {
            assert_eq!(sent(store, id).await.route, Route::Deliver);
        }
        store.applied(ends(&turn, thread)).await;
        let next = current(store).await.expect("a follow-up");
        assert_eq!(first_of(store, &next).await, ["s2", "s3"]);
        assert_eq!(store.row(turn.run).await.signals_pending, 0);
        let next = claimed(store, &next).await;
        store.applied(ends(&next, thread)).await;
        assert_eq!(current(store).await, None);
        assert_eq!(sent(store, "s4").await.route, Route::Wake);
    }

    // T9.3, T9.7
    async fn queued_messages_get_turns_of_their_own_after_what_is_pending(store) {
        let thread = sent(store, "s1").await.thread;
        let turn = claimed(store, "turn-s1").await;
        let first = queued(store, "q1").await;
        assert_eq!((first.branch, first.route), (Branch::Active, Route::Queue));
        queued(store, "q2").await;
        sent(store, "s2").await;
        assert_eq!(store.row(turn.run).await.status.word(), "running");
        let row = store.thread(&Namespace::default(), &ThreadId::parse("t").unwrap()).await.unwrap().unwrap();
        assert_eq!(row.queued, 2);
        let mut answered = Vec::new();
        let mut turn = turn;
        loop {
            store.applied(ends(&turn, thread)).await;
            let Some(next) = current(store).await else { break };
            answered.push(first_of(store, &next).await);
            turn = claimed(store, &next).await;
        }
        assert_eq!(answered, [["s2"], ["q1"], ["q2"]]);
    }

    async fn a_queued_turn_is_not_due_before_the_current_one_has_ended(store) {
        sent(store, "s1").await;
        queued(store, "q1").await;
        let due = store.claim(ME, &knows(&["turn v1"]), 10, at(1_000_000)).await.unwrap();
        assert_eq!(due.iter().map(|run| run.id.as_str()).collect::<Vec<_>>(), ["turn-s1"]);
    }

    // T7.3, T7.8
    async fn another_agents_turn_is_waited_for(store) {
        let thread = sent(store, "s1").await.thread;
        let other = received(store, for_agent(store, "sales", "o1").await).await;
        assert_eq!((other.branch, other.route), (Branch::Idle, Route::Queue));
        let turn = claimed(store, "turn-s1").await;
        store.applied(ends(&turn, thread)).await;
        assert_eq!(current(store).await.as_deref(), Some("turn-o1"));
        // Now the other one has the thread.
        assert_eq!(sent(store, "s2").await.route, Route::Queue);
    }

    // T7.5, T11.9
    async fn an_input_that_is_only_persisted_is_in_the_history_and_shown_as_a_run_of_its_own(store) {
        let routing = Routing { if_idle: IfIdle::Persist, ..Routing::default() };
        let kept = received(store, Input { routing, ..input(store, "s1").await }).await;
        assert_eq!((kept.route, kept.run), (Route::Persist, None));
        let history = store.messages(kept.thread, Window::latest(i64::MAX, 10)).await.unwrap();
        assert_eq!(history.len(), 1);
        assert_eq!((history[0].seq, history[0].id.as_str(), history[0].role.as_str()), (1, "s1", "signal"));
        assert_eq!(history[0].content, json(r#"{"row":"s1 idle"}"#));
        assert_eq!(shown(store, kept.thread).await, ["start s1", "echo s1", "finish s1"]);
        assert_eq!(current(store).await, None);
    }

    // T6.4: the clock of another machine is behind.
    async fn times_never_go_back_along_a_history(store) {
        let persist = Routing { if_idle: IfIdle::Persist, if_active: IfActive::Persist, ..Routing::default() };
        for (id, time) in [("s1", 50), ("s2", 20), ("s3", 70), ("s4", 60)] {
            received(store, Input { routing: persist, at: at(time), ..input(store, id).await }).await;
        }
        let woken = received(store, Input { at: at(20), ..input(store, "s5").await }).await;
        let turn = claimed(store, "turn-s5").await;
        let message = |id: &str, time| NewMessage {
            id: id.into(), role: "assistant", category: None, again: false, at: at(time), row: json("{}"),
        };
        let messages = vec![message("m1", 40), message("m2", 90), message("m3", 80)];
        let left = ThreadPart { thread: woken.thread, messages, ..ThreadPart::default() };
        store.applied(Commit { thread: Some(Box::new(left)), ..turn.completes() }).await;
        let history = store.messages(woken.thread, Window::after(0, 10)).await.unwrap();
        let times: Vec<i64> = history.iter().map(|it| it.created_at.0).collect();
        assert_eq!(times, [50, 50, 70, 70, 70, 90, 90]);
        let thread = store.thread(&Namespace::default(), &ThreadId::parse("t").unwrap()).await.unwrap().unwrap();
        assert_eq!(thread.updated_at, at(90));
    }

    // T7.4
    async fn an_input_that_is_persisted_while_its_agent_has_the_thread_is_not_shown(store) {
        sent(store, "s1").await;
        let routing = Routing { if_active: IfActive::Persist, ..Routing::default() };
        let kept = received(store, Input { routing, ..input(store, "s2").await }).await;
        assert_eq!((kept.branch, kept.route), (Branch::Active, Route::Persist));
        assert_eq!(shown(store, kept.thread).await, Vec::<String>::new());
        assert_eq!(store.messages(kept.thread, Window::latest(i64::MAX, 10)).await.unwrap().len(), 1);
    }

    // T11.9
    async fn what_is_persisted_while_another_agent_has_the_thread_is_shown_when_its_turn_has_ended(store) {
        let thread = sent(store, "s1").await.thread;
        let routing = Routing { if_idle: IfIdle::Persist, ..Routing::default() };
        let kept = received(store, Input { routing, ..for_agent(store, "sales", "o1").await }).await;
        assert_eq!(kept.route, Route::Persist);
        queued(store, "q1").await;
        assert_eq!(shown(store, thread).await, Vec::<String>::new());
        let turn = claimed(store, "turn-s1").await;
        store.applied(ends(&turn, thread)).await;
        assert_eq!(shown(store, thread).await, ["start o1", "echo o1", "finish o1"]);
        assert_eq!(current(store).await.as_deref(), Some("turn-q1"));
    }

    // T7.6
    async fn an_input_that_is_discarded_leaves_nothing(store) {
        let routing = Routing { if_idle: IfIdle::Discard, ..Routing::default() };
        let gone = received(store, Input { routing, ..input(store, "s1").await }).await;
        assert_eq!(gone.route, Route::Discard);
        assert_eq!(store.thread(&Namespace::default(), &ThreadId::parse("t").unwrap()).await.unwrap(), None);
        assert_eq!(store.all().await, []);
    }

    // T20.4
    async fn the_same_id_gets_the_first_answer(store) {
        let first = sent(store, "s1").await;
        let again = sent(store, "s1").await;
        assert_eq!(again, Received { repeat: true, ..first });
        let other = Input { digest: "another".into(), ..input(store, "s1").await };
        assert_eq!(store.receive(other).await.unwrap(), Err(NotReceived::Conflict { id: "s1".into() }));
        assert_eq!(store.all().await.len(), 1);
    }

    // T20.4
    async fn the_same_id_sent_by_many_at_once_is_taken_once(store) {
        let mut inputs = Vec::new();
        for _ in 0..20 {
            inputs.push(input(store, "s1").await);
        }
        let answers = futures::future::join_all(inputs.into_iter().map(|input| received(store, input))).await;
        assert_eq!(answers.iter().filter(|answer| !answer.repeat).count(), 1);
        assert_eq!(store.all().await.len(), 1);
    }

    // T20.5
    async fn the_same_idempotency_key_gets_the_first_answer_for_a_day(store) {
        let keyed = |input: Input, at| Input { key: Some("k".into()), digest: "same".into(), at, ..input };
        let first = received(store, keyed(input(store, "s1").await, at(10))).await;
        let again = received(store, keyed(input(store, "s2").await, at(86_400_000))).await;
        assert_eq!(again, Received { repeat: true, ..first });
        let later = received(store, keyed(input(store, "s3").await, at(86_400_011))).await;
        assert!(!later.repeat);
        assert_eq!(later.route, Route::Deliver);
    }

    // T2.3
    async fn a_thread_of_somebody_else_takes_nothing(store) {
        sent(store, "s1").await;
        let theirs = Input { resource: "bob".into(), ..input(store, "s2").await };
        assert_eq!(store.receive(theirs).await.unwrap(), Err(NotReceived::Foreign));
    }

    // T2.2
    async fn an_input_for_a_run_is_taken_only_while_that_run_has_the_thread(store) {
        let only = |input: Input, run: &str| Input { only_run: Some(aldis::id::RunId::parse(run).unwrap()), ..input };
        let early = only(input(store, "s0").await, "turn-s1");
        assert_eq!(store.receive(early).await.unwrap(), Err(NotReceived::NoRun));
        sent(store, "s1").await;
        assert_eq!(received(store, only(input(store, "s2").await, "turn-s1")).await.route, Route::Deliver);
        let other = only(input(store, "s3").await, "turn-s9");
        assert_eq!(store.receive(other).await.unwrap(), Err(NotReceived::NoRun));
    }

    async fn too_many_pending_signals_are_refused_and_not_remembered(store) {
        sent(store, "s1").await;
        sent(store, "s2").await;
        let third = Input { pending_max: 1, ..input(store, "s3").await };
        let thread = ThreadId::parse("t").unwrap();
        let refused = NotReceived::TooManyPending { thread, pending: 1, limit: 1 };
        assert_eq!(store.receive(third).await.unwrap(), Err(refused));
        let again = sent(store, "s3").await;
        assert_eq!((again.route, again.repeat), (Route::Deliver, false));
    }

    // T10.13
    async fn of_many_inputs_at_once_one_wakes_the_thread_and_all_are_there(store) {
        let mut inputs = Vec::new();
        for n in 0..100 {
            inputs.push(input(store, &format!("s{n}")).await);
        }
        let answers = futures::future::join_all(inputs.into_iter().map(|input| received(store, input))).await;
        let woken: Vec<&Received> = answers.iter().filter(|answer| answer.route == Route::Wake).collect();
        assert_eq!(woken.len(), 1);
        assert!(answers.iter().all(|answer| answer.run == woken[0].run));
        let turn = claimed(store, woken[0].run.as_ref().unwrap().as_str()).await;
        assert_eq!(store.past(turn.run).await.pending.len(), 99);
    }

    // T10.8
    async fn too_many_follow_ups_leave_the_thread_idle_until_somebody_writes_again(store) {
        let mut first = input(store, "s1").await;
        first.turn.follow_ups = 1;
        let thread = received(store, first).await.thread;
        let mut turn = claimed(store, "turn-s1").await;
        for id in ["s2", "s3"] {
            sent(store, id).await;
            store.applied(ends(&turn, thread)).await;
            let Some(next) = current(store).await else { break };
            turn = claimed(store, &next).await;
        }
        assert_eq!(current(store).await, None);
        assert!(store.claim(ME, &knows(&["turn v1"]), 10, at(1_000_000)).await.unwrap().is_empty());
        let again = sent(store, "s4").await;
        assert_eq!(again.route, Route::Deliver);
        let held = current(store).await.unwrap();
        assert_eq!(held, again.run.unwrap().as_str());
        assert_eq!(first_of(store, &held).await, ["s3"]);
        let held = claimed(store, &held).await;
        assert_eq!(store.past(held.run).await.pending.len(), 1);
    }

    async fn a_turn_that_is_terminated_hands_its_thread_on(store) {
        sent(store, "s1").await;
        sent(store, "s2").await;
        let start = store.a_start("turn-s1").await;
        let start = aldis::store::Start { if_open: aldis::run::IfOpen::TerminateAndStart, ..start };
        store.start(start).await.unwrap().unwrap();
        let next = current(store).await.expect("a follow-up");
        assert_eq!(first_of(store, &next).await, ["s2"]);
    }

    async fn a_commit_leaves_messages_chunks_and_calls_with_its_thread(store) {
        let thread = sent(store, "s1").await.thread;
        let turn = claimed(store, "turn-s1").await;
        let message = |id: &str| NewMessage {
            id: id.into(),
            role: "assistant",
            category: None,
            again: false,
            at: at(10),
            row: json(&format!(r#""{id}""#)),
        };
        let call = NewCall { call: "c1".into(), tool: "refund".into(), value: json("{}"), expires_at: Some(at(900)) };
        let left = ThreadPart {
            thread,
            messages: vec![message("m1"), message("m2")],
            shown: vec![json(r#""a""#), json(r#""b""#)],
            suspends: vec![call],
            ..ThreadPart::default()
        };
        let turn = store.applied(Commit { thread: Some(Box::new(left)), ..turn.adds([finished("1")]) }).await;
        let history = store.messages(thread, Window::after(0, 10)).await.unwrap();
        assert_eq!(history.iter().map(|it| (it.seq, it.id.as_str())).collect::<Vec<_>>(), [(1, "m1"), (2, "m2")]);
        assert_eq!(shown(store, thread).await, ["a", "b"]);
        let calls = store.waiting_calls(Some(thread), 10).await.unwrap();
        assert_eq!((calls.len(), calls[0].call.as_str(), calls[0].run_id.as_str()), (1, "c1", "turn-s1"));
        assert_eq!(calls[0].expires_at, Some(at(900)));
        let again = NewMessage { again: true, row: json(r#""m1, longer""#), ..message("m1") };
        let settled =
            ThreadPart { thread, messages: vec![again, message("m3")], settles: vec!["c1".into()], ..ThreadPart::default() };
        store.applied(Commit { thread: Some(Box::new(settled)), ..turn.adds([finished("2")]) }).await;
        assert_eq!(store.waiting_calls(None, 10).await.unwrap(), []);
        let history = store.messages(thread, Window::latest(i64::MAX, 10)).await.unwrap();
        let found: Vec<_> = history.iter().map(|it| (it.seq, it.content.as_str())).collect();
        assert_eq!(found, [(1, r#""m1, longer""#), (2, r#""m2""#), (3, r#""m3""#)]);
    }

    async fn a_refused_commit_leaves_nothing_with_its_thread(store) {
        let thread = sent(store, "s1").await.thread;
        let turn = claimed(store, "turn-s1").await;
        let stale = Held { fence: aldis::id::Fence(turn.fence.0 - 1), ..turn.clone() };
        let left = ThreadPart { thread, shown: vec![json(r#""a""#)], ..ThreadPart::default() };
        let commit = Commit { leaves: Leaves::Closed(Closed::Completed), thread: Some(Box::new(left)), ..stale.completes() };
        assert!(matches!(store.verdict(commit).await, aldis::store::Verdict::Refused(_)));
        assert_eq!(shown(store, thread).await, Vec::<String>::new());
        assert_eq!(current(store).await.as_deref(), Some("turn-s1"));
        assert_eq!(store.row(turn.run).await.status, Status::Running { worker: ME });
    }

    async fn an_input_whose_answer_was_lost_is_taken_once_and_told(store) {
        for lost in [1, 2] {
            let thread = ThreadId::parse(format!("t{lost}")).unwrap();
            let of = |input: Input| Input { thread: thread.clone(), ..input };
            let (first, second) = (of(input(store, &format!("a{lost}")).await), of(input(store, &format!("b{lost}")).await));
            let options = Options { faults: Some(Faults::at(lost, Fault::LoseAnswer)), ..Options::default() };
            let shaky = store.elsewhere_with(options).await;
            let mut hints = shaky.hints();
            let woken = received(&shaky, first).await;
            assert_eq!((woken.route, woken.repeat), (Route::Wake, false));
            assert!(matches!(hints.try_recv(), Some(Hint::Due)));
            let joined = received(&shaky, second).await;
            assert_eq!((joined.route, joined.repeat), (Route::Deliver, false));
            let told = std::iter::from_fn(|| hints.try_recv());
            let told: Vec<String> = told
                .filter_map(|hint| match hint {
                    Hint::Signalled { signals, .. } => Some(signals[0].id.clone()),
                    Hint::Due | Hint::Ended(_) | Hint::Owned(_) => None,
                })
                .collect();
            assert_eq!(told, [format!("b{lost}")]);
            shaky.close().await;
        }
        assert_eq!(store.all().await.len(), 2);
    }

    // T9.9, T20.5: the answer is lost, and what landed is told all the same.
    async fn what_is_taken_back_is_told_once_although_the_answer_was_lost(store) {
        let woken = sent(store, "a").await;
        for id in ["b", "c", "d"] {
            queued(store, id).await;
        }
        for (lost, id) in [(1, "b"), (2, "c")] {
            let options = Options { faults: Some(Faults::at(lost, Fault::LoseAnswer)), ..Options::default() };
            let shaky = store.elsewhere_with(options).await;
            let which = Which::Inputs(vec![id.into(), "a".into()]);
            let asked = Unsend { thread: woken.thread, which, by: "ann".into(), at: at(30) };
            assert_eq!(shaky.unsend(asked.clone()).await.unwrap(), [id]);
            assert_eq!(shaky.unsend(asked).await.unwrap(), Vec::<String>::new());
            shaky.close().await;
        }
        assert_eq!(store.queued(woken.thread, None).await.unwrap(), 1);
        let run = store.find(&Namespace::default(), &aldis::id::RunId::parse("turn-b").unwrap()).await.unwrap().unwrap();
        assert!(matches!(run.status, Status::Closed { how: Closed::Terminated, .. }), "{run:?}");
        // What is left is next.
        let held = claimed(store, "turn-a").await;
        store.commit(vec![ends(&held, woken.thread)]).await.unwrap();
        claimed(store, "turn-d").await;
    }
}

//! Where inputs go, against a table and a small model of a thread: any inputs of two agents, and ends of turns, in any
//! order, on both databases (T7.2 to T7.8, T9.2, T9.7, T10.9, T10.10, T11.9).

use std::collections::VecDeque;

use aldis::id::{Namespace, ThreadId, ThreadKey};
use aldis::store::{Input, Window};
use aldis::thread::{Branch, IfActive, IfIdle, Route, Routing};
use proptest::prelude::*;

use crate::support::*;
use crate::threads::{claimed, ends, first_of, input, received, shown};

const AGENTS: [&str; 2] = ["support", "sales"];
const IF_ACTIVE: [IfActive; 3] = [IfActive::Deliver, IfActive::Persist, IfActive::Discard];
const IF_IDLE: [IfIdle; 3] = [IfIdle::Wake, IfIdle::Persist, IfIdle::Discard];

/// By who has the thread: the branch that holds, whose wish counts, and where that goes; and where a queued message goes.
const TABLE: [(Branch, [Route; 3], (Branch, Route)); 3] = [
    (Branch::Idle, [Route::Wake, Route::Persist, Route::Discard], (Branch::Idle, Route::Wake)),
    (Branch::Active, [Route::Deliver, Route::Persist, Route::Discard], (Branch::Active, Route::Queue)),
    (Branch::Idle, [Route::Queue, Route::Persist, Route::Discard], (Branch::Active, Route::Queue)),
];

/// What the table says.
fn looked_up(routing: Routing, agent: &str, current: Option<&str>) -> (Branch, Route) {
    let (branch, routes, queued) = match current {
        None => TABLE[0],
        Some(current) if current == agent => TABLE[1],
        Some(_) => TABLE[2],
    };
    let place = match branch {
        Branch::Active => IF_ACTIVE.iter().position(|it| *it == routing.if_active),
        Branch::Idle => IF_IDLE.iter().position(|it| *it == routing.if_idle),
    };
    if routing.queue { queued } else { (branch, routes[place.expect("a wish")]) }
}

#[test]
fn every_wish_goes_where_the_table_says() {
    for current in [None, Some(AGENTS[0]), Some(AGENTS[1])] {
        for agent in AGENTS {
            for (if_active, if_idle) in IF_ACTIVE.into_iter().flat_map(|a| IF_IDLE.map(|i| (a, i))) {
                for queue in [false, true] {
                    let routing = Routing { if_active, if_idle, queue };
                    assert_eq!(
                        routing.decide(agent, current),
                        looked_up(routing, agent, current),
                        "{routing:?} {agent} {current:?}"
                    );
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Does {
    Send { agent: &'static str, routing: Routing },
    End,
}

fn does() -> impl Strategy<Value = Does> {
    let wish = || prop_oneof![3 => Just(0_usize), 1 => Just(1), 1 => Just(2)];
    let send = (0..2_usize, wish(), wish(), prop::bool::weighted(0.2)).prop_map(|(agent, active, idle, queue)| {
        let routing = Routing { if_active: IF_ACTIVE[active], if_idle: IF_IDLE[idle], queue };
        Does::Send { agent: AGENTS[agent], routing }
    });
    prop_oneof![3 => send, 1 => Just(Does::End)]
}

/// A turn as the model sees it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Turn {
    agent: &'static str,
    first: Vec<String>,
    pending: Vec<String>,
}

#[derive(Debug, Clone)]
enum Waits {
    Turn(Turn),
    Shown(String),
}

#[derive(Debug, Default)]
struct Thread {
    current: Option<Turn>,
    queue: VecDeque<Waits>,
    history: Vec<String>,
    shown: Vec<String>,
}

impl Thread {
    fn send(&mut self, id: &str, agent: &'static str, routing: Routing) -> (Branch, Route) {
        let (branch, route) = looked_up(routing, agent, self.current.as_ref().map(|it| it.agent));
        let turn = Turn { agent, first: vec![id.to_owned()], pending: Vec::new() };
        match (route, &mut self.current) {
            (Route::Wake, current) => *current = Some(turn),
            (Route::Deliver, Some(current)) => current.pending.push(id.to_owned()),
            (Route::Deliver, None) => unreachable!("nobody has the thread"),
            (Route::Queue, _) => self.queue.push_back(Waits::Turn(turn)),
            (Route::Persist, current) => {
                self.history.push(id.to_owned());
                match (branch, current) {
                    (Branch::Active, _) => {}
                    (Branch::Idle, None) => self.show(id),
                    (Branch::Idle, Some(_)) => self.queue.push_back(Waits::Shown(id.to_owned())),
                }
            }
            (Route::Discard, _) => {}
        }
        (branch, route)
    }

    fn show(&mut self, id: &str) {
        self.shown.extend(["start", "echo", "finish"].map(|chunk| format!("{chunk} {id}")));
    }

    fn end(&mut self) {
        let Some(ended) = self.current.take() else { return };
        while let Some(Waits::Shown(id)) = self.queue.front().cloned() {
            self.show(&id);
            self.queue.pop_front();
        }
        if !ended.pending.is_empty() {
            self.current = Some(Turn { agent: ended.agent, first: ended.pending, pending: Vec::new() });
        } else if let Some(Waits::Turn(next)) = self.queue.pop_front() {
            self.current = Some(next);
        }
    }
}

/// How the store's thread stands.
async fn stands(store: &Fresh, thread: ThreadKey) -> Thread {
    let row = store.thread(&Namespace::default(), &ThreadId::parse("t").unwrap()).await.unwrap().unwrap();
    let current = match row.current {
        None => None,
        Some(current) => {
            let run = store.find(&Namespace::default(), &current.run).await.unwrap().unwrap();
            let pending = store.past(run.key).await.pending.into_iter().map(|signal| signal.id).collect();
            let agent = AGENTS.into_iter().find(|it| *it == current.agent).expect("an agent");
            Some(Turn { agent, first: first_of(store, current.run.as_str()).await, pending })
        }
    };
    let history = store.messages(thread, Window::after(0, 1_000)).await.unwrap();
    assert!(history.iter().map(|it| it.seq).eq(1..=history.len() as i64));
    let queue = (0..row.queued).map(|_| Waits::Turn(Turn::default())).collect();
    let history = history.into_iter().map(|it| it.id).collect();
    Thread { current, queue, history, shown: shown(store, thread).await }
}

async fn play(store: &Fresh, plays: &[Does]) {
    let (mut model, mut thread) = (Thread::default(), None);
    for (n, does) in plays.iter().enumerate() {
        match does {
            Does::Send { agent, routing } => {
                let id = format!("s{n}");
                let sent = Input { agent: (*agent).to_owned(), routing: *routing, ..input(store, &id).await };
                let was = received(store, sent).await;
                let run = matches!(was.route, Route::Wake | Route::Queue).then(|| format!("turn-{id}"));
                assert_eq!((was.branch, was.route), model.send(&id, agent, *routing), "{n}: {does:?}");
                if was.route != Route::Deliver {
                    assert_eq!(was.run.map(|run| run.to_string()), run, "{n}");
                }
                if was.route != Route::Discard || thread.is_some() {
                    thread = Some(was.thread);
                }
            }
            Does::End => {
                if let Some(thread) = thread.filter(|_| model.current.is_some()) {
                    let row =
                        store.thread(&Namespace::default(), &ThreadId::parse("t").unwrap()).await.unwrap().unwrap();
                    let turn = claimed(store, row.current.expect("a turn").run.as_str()).await;
                    store.applied(ends(&turn, thread)).await;
                }
                model.end();
            }
        }
        let Some(thread) = thread else { continue };
        let found = stands(store, thread).await;
        assert_eq!(found.current, model.current, "{n}: {does:?}");
        let turns = model.queue.iter().filter(|it| matches!(it, Waits::Turn(_))).count();
        assert_eq!(
            (found.queue.len(), found.history, found.shown),
            (turns, model.history.clone(), model.shown.clone()),
            "{n}: {does:?}"
        );
    }
}

/// Some cases, or as many as `PROPTEST_CASES` asks for.
fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(6),
        max_shrink_iters: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_inputs_go_where_the_model_says_on_both_databases(plays in prop::collection::vec(does(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let (sqlite, postgres) = (Fresh::sqlite().await, Fresh::postgres().await);
            play(&sqlite, &plays).await;
            play(&postgres, &plays).await;
            postgres.remove().await;
        });
    }
}

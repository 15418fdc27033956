//! Fresh stores, and builders that carry defaults: a case states only what it is about.

use std::ops::Deref;

use aldis::clock::Instant;
use aldis::id::{Fence, Namespace, OpId, RunId, RunKey, Seq, WorkerKey};
use aldis::journal::{Event, RunCompleted, RunStarted, StepFinished};
use aldis::payload::Payload;
use aldis::run::{Closed, IfClosed, IfOpen, Run};
use aldis::signal::{Accepted, SignalKind};
use aldis::store::{
    Addressee, Arrival, Commit, Filter, History, Leaves, Lines, NewRun, Options, Registration, Start, Store, Verdict,
};

/// Makes a test for each database of each case.
macro_rules! each_store {
    ($(async fn $name:ident($store:ident) $body:block)*) => {
        $(
            async fn $name($store: &$crate::support::Fresh) $body

            mod $name {
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn sqlite() {
                    let fresh = $crate::support::Fresh::sqlite().await;
                    super::$name(&fresh).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn postgres() {
                    let fresh = $crate::support::Fresh::postgres().await;
                    super::$name(&fresh).await;
                    fresh.remove().await;
                }
            }
        )*
    };
}

/// An empty store of its own.
pub struct Fresh {
    store: Store,
    url: String,
    server: Option<(String, String)>,
    _directory: Option<tempfile::TempDir>,
}

impl Deref for Fresh {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl Fresh {
    pub async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("runs.db").display());
        let store = Store::open(&url, Options::default()).await.unwrap();
        Self { store, url, server: None, _directory: Some(directory) }
    }

    pub async fn postgres() -> Self {
        let server = std::env::var("ALDIS_TEST_POSTGRES").expect(
            "the Postgres half needs ALDIS_TEST_POSTGRES, such as postgres://postgres@127.0.0.1/postgres; .ci/test sets it",
        );
        let name = format!("aldis_{}", uuid::Uuid::new_v4().simple());
        administer(&server, format!("create database {name}")).await;
        let (scheme, rest) = server.split_once("://").expect("an address with a scheme");
        let authority = rest.split('/').next().unwrap_or(rest);
        let url = format!("{scheme}://{authority}/{name}");
        let store = Store::open(&url, Options::default()).await.unwrap();
        Self { store, url, server: Some((server, name)), _directory: None }
    }

    /// Removes the database; a case that fails leaves it to be looked at.
    pub async fn remove(self) {
        self.store.close().await;
        if let Some((server, name)) = self.server {
            administer(&server, format!("drop database {name} with (force)")).await;
        }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn is_sqlite(&self) -> bool {
        self.server.is_none()
    }

    /// The same database, as another process would open it.
    pub async fn elsewhere(&self) -> Store {
        self.elsewhere_with(Options::default()).await
    }

    pub async fn elsewhere_with(&self, options: Options) -> Store {
        Store::open(&self.url, options).await.unwrap()
    }
}

async fn administer(server: &str, statement: String) {
    use sqlx::{Connection as _, Executor as _};
    let mut connection = sqlx::PgConnection::connect(server).await.expect("the server of ALDIS_TEST_POSTGRES");
    connection.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
    connection.close().await.unwrap();
}

/// The worker that cases speak of if they do not say which.
pub const ME: WorkerKey = WorkerKey(1);

pub fn at(millis: i64) -> Instant {
    Instant(millis)
}

pub fn json(text: &str) -> Payload {
    Payload::parse(text).unwrap()
}

pub fn id(text: &str) -> RunId {
    RunId::parse(text).unwrap()
}

pub fn knows(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub fn started(id: &str) -> Event {
    RunStarted {
        run: RunId::parse(id).unwrap(),
        workflow: "order".into(),
        version: 1,
        build: "b1".into(),
        seed: uuid::Uuid::nil(),
        input: Some(json("{}")),
        deadline: None,
    }
    .into()
}

pub fn finished(op: &str) -> Event {
    StepFinished { op: OpId::new(op), output: json("7") }.into()
}

pub fn completed() -> Event {
    RunCompleted { output: json(r#""done""#) }.into()
}

pub fn lines(when: i64, events: impl IntoIterator<Item = Event>) -> Lines {
    let mut lines = Lines::default();
    for event in events {
        lines.push(at(when), &event);
    }
    lines
}

pub fn signal(to: &Held, name: &str, id: &str) -> Arrival {
    Arrival {
        to: Addressee::Key(to.run),
        kind: SignalKind::Signal,
        name: name.into(),
        id: id.into(),
        payload: json("true"),
        at: at(50),
        pending_max: 100,
    }
}

/// A run as its owner holds it.
#[derive(Debug, Clone)]
pub struct Held {
    pub run: RunKey,
    pub id: RunId,
    pub fence: Fence,
    pub head: Seq,
    pub seen: i64,
}

impl Held {
    pub fn of(run: &Run) -> Self {
        Self { run: run.key, id: run.id.clone(), fence: run.fence, head: run.head, seen: run.signals_accepted }
    }

    /// A commit of these events at 10 that leaves the run with its owner.
    pub fn adds(&self, events: impl IntoIterator<Item = Event>) -> Commit {
        Commit {
            lines: lines(10, events),
            signals_seen: self.seen,
            ..Commit::new(self.run, self.fence, self.head, Leaves::Running(ME), at(10))
        }
    }

    /// A commit without lines that leaves the run so.
    pub fn leaves(&self, leaves: Leaves) -> Commit {
        Commit { leaves, ..self.adds([]) }
    }

    /// The last commit.
    pub fn completes(&self) -> Commit {
        Commit { leaves: Leaves::Closed(Closed::Completed), ..self.adds([completed()]) }
    }

    /// As it is after a commit that was applied.
    pub fn after(&self, commit: &Commit) -> Self {
        Self { head: commit.head.plus(commit.lines.len()), ..self.clone() }
    }
}

pub fn new_run(key: i64, id: &str) -> NewRun {
    NewRun {
        key: RunKey(key),
        namespace: Namespace::default(),
        id: RunId::parse(id).unwrap(),
        workflow: "order".into(),
        version: 1,
        thread: None,
    }
}

/// The commit that begins a run: one line, left with its owner.
pub fn beginning(new: NewRun) -> Commit {
    let held = Held { run: new.key, id: new.id.clone(), fence: Fence::FIRST, head: Seq::NONE, seen: 0 };
    Commit { begins: Some(Box::new(new.clone())), ..held.adds([started(new.id.as_str())]) }
}

/// What cases do again and again.
#[allow(async_fn_in_trait, reason = "only called here")]
pub trait Given {
    /// A key that no other run has.
    async fn key(&self) -> i64;
    /// A run that has begun, held by [`ME`].
    async fn begun(&self, id: &str) -> Held;
    /// A run that waits for signals alone.
    async fn waiting(&self, id: &str) -> Held;
    /// A run that is due at 10.
    async fn due(&self, id: &str) -> Held;
    /// Commits and wants it applied.
    async fn applied(&self, commit: Commit) -> Held;
    /// Commits one and tells its verdict.
    async fn verdict(&self, commit: Commit) -> Verdict;
    /// Accepts and wants it accepted; tells the place.
    async fn accepted(&self, arrival: Arrival) -> Accepted;
    /// A start of a run that is due at 10.
    async fn a_start(&self, id: &str) -> Start;
    /// The row.
    async fn row(&self, run: RunKey) -> Run;
    /// The history of one run.
    async fn past(&self, run: RunKey) -> History;
    /// The keys of all runs.
    async fn all(&self) -> Vec<RunKey>;
    /// A registered worker whose lease lasts until `until`.
    async fn worker(&self, name: &str, until: i64) -> WorkerKey;
}

impl Given for Store {
    async fn key(&self) -> i64 {
        self.reserve_keys(1).await.unwrap().start
    }

    async fn begun(&self, id: &str) -> Held {
        let key = self.key().await;
        self.applied(beginning(new_run(key, id))).await
    }

    async fn waiting(&self, id: &str) -> Held {
        let held = self.begun(id).await;
        self.applied(held.leaves(Leaves::Waiting { wake_at: None })).await
    }

    async fn due(&self, id: &str) -> Held {
        let held = self.begun(id).await;
        self.applied(held.leaves(Leaves::Due { at: at(10) })).await
    }

    async fn applied(&self, commit: Commit) -> Held {
        assert_eq!(self.verdict(commit.clone()).await, Verdict::Applied);
        Held::of(&self.row(commit.run).await)
    }

    async fn verdict(&self, commit: Commit) -> Verdict {
        let mut verdicts = self.commit(vec![commit]).await.unwrap();
        assert_eq!(verdicts.len(), 1);
        verdicts.remove(0)
    }

    async fn accepted(&self, arrival: Arrival) -> Accepted {
        self.accept(arrival).await.unwrap().unwrap().1
    }

    async fn a_start(&self, id: &str) -> Start {
        let key = self.key().await;
        Start {
            commit: Commit { leaves: Leaves::Due { at: at(10) }, ..beginning(new_run(key, id)) },
            if_open: IfOpen::default(),
            if_closed: IfClosed::default(),
            idempotency_key: None,
            signals: Vec::new(),
            by: "a test".into(),
        }
    }

    async fn row(&self, run: RunKey) -> Run {
        self.get(run).await.unwrap().unwrap()
    }

    async fn past(&self, run: RunKey) -> History {
        self.history(&[run]).await.unwrap().remove(0).unwrap()
    }

    async fn all(&self) -> Vec<RunKey> {
        self.list(&Filter::default(), 1_000).await.unwrap().into_iter().map(|run| run.key).collect()
    }

    async fn worker(&self, name: &str, until: i64) -> WorkerKey {
        let worker = Registration {
            name: name.into(),
            build: "b1".into(),
            knows: knows(&["order v1"]),
            now: at(0),
            lease_until: at(until),
        };
        self.register(worker).await.unwrap()
    }
}

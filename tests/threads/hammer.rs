//! T10.9: messages that come around the end of a turn, on a clock that nobody holds. A message is taken by the turn, or by
//! the one that follows it, or finds the thread idle; there is no fourth case.
//!
//! One round each; `ALDIS_HAMMER_ROUNDS=100` plays a hundred.

use std::sync::Arc;
use std::time::Duration;

use aldis::Aldis;
use aldis::agent::Agent;
use aldis::agent::model::{Delta, Deltas, Model, ModelError, Models, Offline, Reply, Request};
use aldis::message::{Body, NewSignal};
use aldis::runtime::{Client, Since, Subscription, ThreadHandle};
use aldis::store::{Kind, Window};
use aldis::testing::{Database, Error};
use futures::future::BoxFuture;

use crate::common::{echoes, inputs, message, stream, text_of, thread};

const MESSAGES: usize = 100;

/// Gaps between the last text of an answer and the next message, in milliseconds.
const GAPS: [u64; 10] = [0, 30, 1, 20, 2, 15, 3, 10, 5, 8];

fn rounds() -> usize {
    std::env::var("ALDIS_HAMMER_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

/// The offline model, whose answer is seen a while before it is complete.
struct Slow;

impl Model for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn ask<'a>(&'a self, request: &'a Request, deltas: &'a Deltas) -> BoxFuture<'a, Result<Reply, ModelError>> {
        Box::pin(async move {
            let reply = Offline.ask(request, &Deltas::ignored()).await?;
            deltas.send(Delta::TextStart { id: "t".into() }).await;
            deltas.send(Delta::Text { id: "t".into(), text: reply.text() }).await;
            deltas.send(Delta::TextEnd { id: "t".into() }).await;
            tokio::time::sleep(Duration::from_millis(4)).await;
            Ok(reply)
        })
    }
}

async fn running(database: &Database, model: &str) -> Result<aldis::Runtime, Error> {
    // It reads all: what is out of its sight it cannot answer.
    let agent = Agent::new("demo").model(model).memory(10_000);
    Ok(Aldis::open(database.url()).agent(agent).models(Models::new().with(Arc::new(Slow))).start().await?)
}

/// Until the next chunk of this kind.
async fn next(subscription: &mut Subscription, kind: &str) -> Result<(), Error> {
    while subscription.next().await?.chunk["type"] != kind {}
    Ok(())
}

/// Until nobody has the thread. Subscribers hear of every end.
async fn idle(thread: &ThreadHandle, subscription: &mut Subscription) -> Result<(), Error> {
    while thread.find().await?.is_some_and(|it| it.current.is_some()) {
        next(subscription, "finish").await?;
    }
    Ok(())
}

/// Each message stands in the history once, was echoed once, and is answered once after it.
async fn all_are_answered(client: &Client, thread: &ThreadHandle) -> Result<(), Error> {
    let mut ids = inputs(thread).await?;
    ids.sort();
    let expected: Vec<String> = (0..MESSAGES).map(id).collect();
    assert_eq!(ids, expected);
    let echoes = echoes(&stream(client, thread).await?);
    assert!(echoes.len() == MESSAGES && echoes.values().all(|times| *times == 1), "{echoes:?}");
    let history = thread.history(Window::latest(i64::MAX, 10_000)).await?;
    assert!(history.last().is_some_and(|last| matches!(last.body, Body::Assistant(_))), "the last is not answered");
    let (mut waiting, mut answered) = (Vec::new(), 0);
    for message in history {
        match message.body {
            Body::Signal(signal) => waiting.push(signal.contents.all_text()),
            Body::Assistant(reply) => {
                assert_eq!(text_of(&reply), waiting.join("\n"));
                answered += std::mem::take(&mut waiting).len();
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answered, MESSAGES);
    Ok(())
}

fn id(n: usize) -> String {
    format!("m{n:03}")
}

fn numbered(n: usize) -> NewSignal {
    message(&id(n), &format!("message {n:03}"))
}

async fn played(kind: Kind, model: &str, play: impl AsyncFn(&ThreadHandle) -> Result<(), Error>) -> Result<(), Error> {
    for _ in 0..rounds() {
        let database = Database::of(kind).await?;
        let aldis = running(&database, model).await?;
        let thread = thread(&aldis);
        let mut subscription = thread.subscribe(Since::Cursor(0));
        play(&thread).await?;
        idle(&thread, &mut subscription).await?;
        all_are_answered(&aldis, &thread).await?;
        aldis.drain(Duration::ZERO).await?;
        drop((thread, subscription));
        database.remove().await;
    }
    Ok(())
}

/// Each message comes some time after the last text of an answer was seen.
async fn after_each_text(thread: &ThreadHandle) -> Result<(), Error> {
    let mut subscription = thread.subscribe(Since::Cursor(0));
    for n in 0..MESSAGES {
        thread.signal(numbered(n)).await?;
        next(&mut subscription, "text-end").await?;
        tokio::time::sleep(Duration::from_millis(GAPS[n % GAPS.len()])).await;
    }
    Ok(())
}

/// Several send as fast as they can.
async fn all_at_once(thread: &ThreadHandle) -> Result<(), Error> {
    const SENDERS: usize = 4;
    let senders = (0..SENDERS).map(|sender| {
        let thread = thread.clone();
        tokio::spawn(async move {
            for n in (sender..MESSAGES).step_by(SENDERS) {
                thread.signal(numbered(n)).await?;
            }
            Ok::<_, aldis::Error>(())
        })
    });
    for sent in futures::future::join_all(senders).await {
        sent.expect("a sender")?;
    }
    Ok(())
}

each_store! {
    async fn no_message_is_lost_around_the_end_of_an_answer_that_streams(kind) {
        played(kind, "slow/x", after_each_text).await?;
    }

    async fn no_message_is_lost_around_the_end_of_an_instant_answer(kind) {
        played(kind, "offline", after_each_text).await?;
    }

    async fn no_message_is_lost_of_many_senders_to_an_instant_model(kind) {
        played(kind, "offline", all_at_once).await?;
    }
}

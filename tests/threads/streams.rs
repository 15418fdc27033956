//! Subscriptions (section 11): where they begin, and that they see everything once, wherever they are.

use std::sync::Arc;

use aldis::Aldis;
use aldis::agent::Agent;
use aldis::agent::model::Models;
use aldis::clock::Clock;
use aldis::message::HideSignals;
use aldis::runtime::{Client, Since, Subscription};
use aldis::testing::{Error, TestKit};

use crate::common::{Asked, Puppet, Talkative, about, agents, chunks, echoes, stream, thread, told};
use crate::support::kit;

/// So many chunks.
async fn next(subscription: &mut Subscription, n: usize) -> Result<Vec<String>, Error> {
    let mut seen = Vec::with_capacity(n);
    for _ in 0..n {
        seen.push(about(&subscription.next().await?.chunk));
    }
    Ok(seen)
}

/// Another client of the same database.
async fn elsewhere(kit: &TestKit) -> Result<Client, Error> {
    let aldis = Aldis::open(kit.database().url()).agent(Agent::new("demo")).clock(Clock::Virtual(kit.hands().clone()));
    Ok(aldis.connect().await?)
}

const BEGIN: [&str; 5] = ["start", "data-user-message Hello", "step-start 1", "text-start", "text-delta Good"];
const END: [&str; 4] = ["text-delta  morning", "text-end", "step-finish \"stop\" false", "finish \"stop\" false"];

/// A kit whose agent has said "Good", and goes on.
async fn mid_run(kind: aldis::store::Kind) -> Result<(TestKit, Asked), Error> {
    let (models, mut strings) = Puppet::models();
    let kit = kit(kind).agent(Agent::new("demo").model("puppet/x")).models(models).start().await?;
    let thread = thread(&kit);
    let mut subscription = thread.subscribe(Since::Now);
    // T11.2
    assert_eq!(subscription.ready().await?, None);
    thread.send("Hello").await?;
    let asked = strings.recv().await.expect("the model is asked");
    asked.say("Good");
    assert_eq!(next(&mut subscription, 5).await?, BEGIN);
    Ok((kit, asked))
}

each_store! {
    // T11.3
    async fn who_subscribes_in_the_middle_of_a_run_sees_it_from_its_start(kind) {
        let (kit, asked) = mid_run(kind).await?;
        let mut late = thread(&kit).subscribe(Since::CurrentRun);
        assert_eq!(next(&mut late, 5).await?, BEGIN);
        let mut now = thread(&kit).subscribe(Since::Now);
        now.ready().await?;
        asked.answer(" morning");
        assert_eq!(next(&mut late, 4).await?, END);
        assert_eq!(next(&mut now, 4).await?, END);
        kit.settle().await?;
        kit.finish().await?;
    }

    // T11.3: runs that have ended are not shown again.
    async fn who_subscribes_after_the_end_sees_what_comes(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        thread.send("one").await?;
        kit.run_to_rest().await?;
        let mut subscription = thread.subscribe(Since::CurrentRun);
        let last = subscription.ready().await?;
        assert_eq!(last, Some(chunks(&kit, &thread).await?.len() as i64));
        thread.send("two").await?;
        assert_eq!(next(&mut subscription, 2).await?, ["start", "data-user-message two"]);
        kit.run_to_rest().await?;
        kit.finish().await?;
    }

    // T11.3, T11.5
    async fn who_subscribes_while_a_call_waits_sees_the_whole_run(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        thread.send("before").await?;
        kit.run_to_rest().await?;
        let before = chunks(&kit, &thread).await?.len();
        thread.send("/call ask {\"question\":\"?\"}").await?;
        kit.settle().await?;
        let of_run = chunks(&kit, &thread).await?.split_off(before);
        assert_eq!(of_run.last().unwrap(), "tool-call-suspended ask");
        let mut subscription = thread.subscribe(Since::CurrentRun);
        assert_eq!(next(&mut subscription, of_run.len()).await?, of_run);
        let call = thread.waiting().await?[0].call.clone();
        thread.approve(&call).await?;
        assert_eq!(next(&mut subscription, 1).await?, [r#"tool-result ask {"approved":true}"#]);
        kit.run_to_rest().await?;
        kit.finish().await?;
    }

    // T11.10
    async fn a_cursor_is_gone_on_from_exactly(kind) {
        let (kit, asked) = mid_run(kind).await?;
        let thread = thread(&kit);
        asked.answer(" morning");
        kit.settle().await?;
        let all: Vec<String> = BEGIN.iter().chain(&END).map(|it| (*it).to_owned()).collect();
        for cursor in 0..all.len() {
            let mut subscription = thread.subscribe(Since::Cursor(cursor as i64));
            let seen = subscription.next().await?;
            assert_eq!(seen.cursor, cursor as i64 + 1);
            assert_eq!(about(&seen.chunk), all[cursor]);
            assert_eq!(next(&mut subscription, all.len() - cursor - 1).await?, all[cursor + 1..]);
        }
        kit.finish().await?;
    }

    // T11.6
    async fn a_subscriber_that_stalls_holds_up_nobody_and_misses_nothing(kind) {
        let (kit, asked) = mid_run(kind).await?;
        let thread = thread(&kit);
        let mut stalled = thread.subscribe(Since::CurrentRun);
        next(&mut stalled, 1).await?;
        let mut quick = thread.subscribe(Since::CurrentRun);
        next(&mut quick, 5).await?;
        // More than a subscriber reads at once, one by one as they come.
        const MORE: usize = 300;
        for n in 0..MORE {
            asked.say(&format!("{n} "));
            assert_eq!(quick.next().await?.chunk["payload"]["text"], format!("{n} "));
        }
        asked.answer(" morning");
        assert_eq!(next(&mut quick, 4).await?, END);
        kit.settle().await?;
        let seen = next(&mut stalled, 4 + MORE + 4).await?;
        assert_eq!(seen[..4], BEGIN[1..]);
        assert_eq!(seen[4 + MORE..], END);
        assert_eq!(seen[4..4 + MORE], (0..MORE).map(|n| format!("text-delta {n}")).collect::<Vec<_>>());
        drop(quick);
        kit.finish().await?;
    }

    // T11.2, T11.6, T21.2
    async fn subscribers_in_another_process_see_the_same(kind) {
        let (models, mut strings) = Puppet::models();
        let kit = kit(kind).agent(Agent::new("demo").model("puppet/x")).models(models).start().await?;
        let there = elsewhere(&kit).await?;
        let mut subscription = thread(&there).subscribe(Since::CurrentRun);
        assert_eq!(subscription.ready().await?, None);
        let follows = tokio::spawn(async move { next(&mut subscription, 9).await });
        // Any process accepts, and the one that has the agent answers.
        thread(&there).send("Hello").await?;
        kit.engine().nudge();
        let asked = strings.recv().await.expect("the model is asked");
        asked.say("Good");
        let mut here = thread(&kit).subscribe(Since::CurrentRun);
        assert_eq!(next(&mut here, 5).await?, BEGIN);
        asked.answer(" morning");
        let seen = follows.await.expect("a subscriber")?;
        assert_eq!(seen, BEGIN.iter().chain(&END).copied().collect::<Vec<_>>());
        let mut again = thread(&there).subscribe(Since::Cursor(5));
        assert_eq!(next(&mut again, 4).await?, END);
        kit.settle().await?;
        there.store().close().await;
        kit.finish().await?;
    }

    // T11.4: what is shown while an answer comes lies before what is shown of its end, however much else is written.
    async fn answers_that_stream_at_once_are_each_whole_and_in_order(kind) {
        let models = Models::new().with(Arc::new(Talkative));
        let kit = kit(kind).agent(Agent::new("demo").model("talkative/x")).models(models).start().await?;
        let threads: Vec<_> = (0..20).map(|n| kit.agent("demo").thread(&format!("t{n}"), "ann")).collect::<Result<_, _>>()?;
        for sent in futures::future::join_all(threads.iter().map(|thread| thread.send("Count"))).await {
            sent?;
        }
        kit.run_to_rest().await?;
        for thread in &threads {
            let chunks = stream(&kit, thread).await?;
            echoes(&chunks);
            let (texts, told) = (format!("text-delta {}", Talkative::says()), told(&chunks));
            assert_eq!(told[3..], ["text-start", texts.as_str(), "text-end", END[2], END[3]]);
        }
        kit.finish().await?;
    }

    // T2.3
    async fn who_is_not_its_owner_sees_nothing_of_a_thread(kind) {
        let kit = agents(kind).start().await?;
        let mut early = kit.agent("demo").thread("t", "bob")?.subscribe(Since::CurrentRun);
        assert_eq!(early.ready().await?, None);
        thread(&kit).send("Hello").await?;
        kit.run_to_rest().await?;
        assert_eq!(early.next().await.unwrap_err().code(), "thread_foreign");
        kit.finish().await?;
    }

    // T6.9
    async fn echoes_may_be_left_out(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        thread.send("Hello").await?;
        kit.run_to_rest().await?;
        let mut subscription = thread.subscribe(Since::Cursor(0)).hiding(HideSignals::All);
        assert_eq!(next(&mut subscription, 2).await?, ["start", "step-start 1"]);
        kit.finish().await?;
    }
}

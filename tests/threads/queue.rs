//! Messages that are taken back before a run takes them, and the queue's count.

use aldis::agent::Agent;
use aldis::id::RunId;
use aldis::intake::{Limits, SendOptions};
use aldis::message::NewSignal;
use aldis::runtime::{Action, CancelQueued, ThreadHandle};
use aldis::testing::Error;

use crate::common::{self, Puppet, agents, chunks, history, thread};
use crate::crashes::crash;
use crate::support::kit;

/// Keeps the run that has the thread waiting for a person.
const ASK: &str = "/call ask {\"question\":\"?\"}";

fn message(id: &str) -> NewSignal {
    common::message(id, id)
}

fn ids(ids: &[&str]) -> CancelQueued {
    CancelQueued::Ids(ids.iter().map(|id| (*id).to_owned()).collect())
}

async fn queue(thread: &ThreadHandle, id: &str, owner: Option<&str>) -> Result<RunId, Error> {
    let options = SendOptions { queue: true, owner: owner.map(str::to_owned), ..SendOptions::default() };
    Ok(thread.send_with(message(id), options).await?.run.expect("a run of its own"))
}

async fn approve(thread: &ThreadHandle) -> Result<(), Error> {
    let call = thread.waiting().await?[0].call.clone();
    thread.approve(&call).await?;
    Ok(())
}

each_store! {
    // T9.9, T9.12
    async fn a_queued_message_that_is_taken_back_leaves_a_line_in_its_journal_and_nothing_else(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        thread.send(ASK).await?;
        kit.settle().await?;
        let mut runs = Vec::new();
        for id in ["one", "two", "three"] {
            runs.push(queue(&thread, id, None).await?);
        }
        assert_eq!(thread.queue_count(None).await?, 3);
        assert_eq!(thread.cancel_queued(ids(&["two", "nobody's"]), "ann").await?, ["two"]);
        assert_eq!(thread.cancel_queued(ids(&["two"]), "ann").await?, Vec::<String>::new());
        assert_eq!(thread.queue_count(None).await?, 2);
        let journal = kit.journal(&kit.find(runs[1].as_str()).await?).await?;
        let last = journal.lines().last().unwrap_or_default();
        assert!(last.contains("RunTerminated") && last.contains("taken back") && last.contains("ann"), "{journal}");
        approve(&thread).await?;
        kit.run_to_rest().await?;
        let said: Vec<String> =
            history(&thread).await?.into_iter().filter(|line| line.starts_with("user ")).collect();
        assert_eq!(said, [format!("user {ASK}"), "user one".into(), "user three".into()]);
        assert!(!chunks(&kit, &thread).await?.contains(&"data-user-message two".to_owned()));
        assert_eq!(thread.queue_count(None).await?, 0);
        kit.finish().await?;
    }

    // T9.10
    async fn by_the_senders_label_only_this_agents_queued_messages_are_taken_back(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        thread.send(ASK).await?;
        kit.settle().await?;
        queue(&thread, "mine", Some("tab-1")).await?;
        queue(&thread, "another's", Some("tab-2")).await?;
        queue(&kit.agent("other").thread("t", "ann")?, "the other agent's", Some("tab-1")).await?;
        assert_eq!(thread.queue_count(Some("tab-1")).await?, 1);
        assert_eq!(thread.cancel_queued(CancelQueued::Owner("tab-1".into()), "ann").await?, ["mine"]);
        assert_eq!((thread.queue_count(Some("tab-1")).await?, thread.queue_count(None).await?), (0, 2));
        let gone = thread.cancel_queued(ids(&["the other agent's", "another's"]), "ann").await?;
        assert_eq!(gone, ["another's", "the other agent's"]);
        approve(&thread).await?;
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?.len(), 2);
        assert_eq!(thread.find().await?.unwrap().current, None);
        kit.finish().await?;
    }

    // T9.10, T9.12
    async fn what_is_pending_at_a_run_is_taken_back_by_that_run(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let sent = thread.send_with(NewSignal { id: Some("first".into()), ..NewSignal::user(ASK) }, SendOptions::default()).await?;
        kit.settle().await?;
        for id in ["one", "two", "three"] {
            thread.signal(message(id)).await?;
        }
        let asked = ids(&["three", "first", "one"]);
        // In the order of acceptance; the first one was taken.
        assert_eq!(thread.cancel_queued(asked.clone(), "ann").await?, ["one", "three"]);
        assert_eq!(thread.cancel_queued(asked, "ann").await?, Vec::<String>::new());
        approve(&thread).await?;
        kit.run_to_rest().await?;
        let said: Vec<String> =
            history(&thread).await?.into_iter().filter(|line| line.starts_with("user ")).collect();
        assert_eq!(said, [format!("user {ASK}"), "user two".into()]);
        let journal = kit.journal(&kit.find(sent.run.unwrap().as_str()).await?).await?;
        let asked = journal.lines().find(|line| line.contains("unsend") && line.contains("ann"));
        assert!(asked.is_some_and(|line| line.contains("SignalsTaken")), "{journal}");
        kit.finish().await?;
    }

    // T10.8, T9.10: the rest is still held back, and what is written next goes with it.
    async fn what_is_held_back_is_taken_back_and_the_rest_stays(kind) {
        let (models, mut strings) = Puppet::models();
        let agent = Agent::new("demo").model("puppet/x").steps_max(1);
        let limits = Limits { follow_ups_max: 1, ..Limits::default() };
        let kit = kit(kind).agent(agent).models(models).limits(limits).start().await?;
        let thread = thread(&kit);
        thread.send("begin").await?;
        for (pending, answer) in [(&["one"][..], "1"), (&["two", "three", "four"], "2")] {
            let asked = strings.recv().await.unwrap();
            for id in pending {
                thread.signal(message(id)).await?;
            }
            asked.answer(answer);
        }
        kit.run_to_rest().await?;
        assert_eq!(thread.find().await?.unwrap().current, None);
        let held = kit.runs().await?.pop().unwrap();
        assert_eq!(held.row().await?.status.word(), "waiting");
        assert_eq!(thread.cancel_queued(ids(&["four", "one", "two"]), "ann").await?, ["two", "four"]);
        assert_eq!(thread.cancel_queued(ids(&["two"]), "ann").await?, Vec::<String>::new());
        let journal = kit.journal(&held).await?;
        let last = journal.lines().last().unwrap_or_default();
        let says = "taken back before it began: two, four; another turn has the rest";
        assert!(last.contains("RunTerminated") && last.contains(says) && last.contains("ann"), "{journal}");
        // What is left goes with what is written next.
        thread.signal(message("five")).await?;
        strings.recv().await.unwrap().answer("3");
        kit.run_to_rest().await?;
        let said = ["user begin", "demo 1", "user one", "demo 2", "user three", "user five", "demo 3"];
        assert_eq!(history(&thread).await?, said);
        kit.finish().await?;
    }

    async fn once_all_that_is_held_back_was_taken_back_the_thread_is_as_any_other(kind) {
        let (models, mut strings) = Puppet::models();
        let agent = Agent::new("demo").model("puppet/x").steps_max(1);
        let limits = Limits { follow_ups_max: 0, ..Limits::default() };
        let kit = kit(kind).agent(agent).models(models).limits(limits).start().await?;
        let thread = thread(&kit);
        thread.send("begin").await?;
        let asked = strings.recv().await.unwrap();
        thread.signal(message("one")).await?;
        asked.answer("1");
        kit.run_to_rest().await?;
        // A sender's label is of queued messages only.
        assert_eq!(thread.cancel_queued(CancelQueued::Owner("tab-1".into()), "ann").await?, Vec::<String>::new());
        assert_eq!(thread.cancel_queued(ids(&["one"]), "ann").await?, ["one"]);
        assert_eq!(thread.send("two").await?.action, Action::Wake);
        strings.recv().await.unwrap().answer("2");
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["user begin", "demo 1", "user two", "demo 2"]);
        kit.finish().await?;
    }

    // T20.4
    async fn a_message_that_was_taken_back_is_not_accepted_again_under_its_id(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        thread.send(ASK).await?;
        kit.settle().await?;
        let run = queue(&thread, "one", None).await?;
        thread.cancel_queued(ids(&["one"]), "ann").await?;
        let again = thread.signal(message("one")).await?;
        assert_eq!((again.repeat, again.run), (true, Some(run)));
        approve(&thread).await?;
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?.len(), 2);
        kit.finish().await?;
    }

    async fn on_a_thread_that_is_not_there_or_somebody_elses_nothing_is_taken_back(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        assert_eq!(thread.cancel_queued(ids(&["one"]), "ann").await?, Vec::<String>::new());
        assert_eq!(thread.queue_count(None).await?, 0);
        thread.send("Hello").await?;
        let theirs = kit.agent("demo").thread("t", "bob")?;
        assert_eq!(theirs.cancel_queued(ids(&["one"]), "bob").await.unwrap_err().code(), "thread_foreign");
        kit.run_to_rest().await?;
        kit.finish().await?;
    }

    // T9.11
    async fn whoever_counts_the_queue_hears_of_each_change(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let mut counts = thread.queue_counts(None);
        let mut tab = thread.queue_counts(Some("tab-1".into()));
        assert_eq!((counts.next().await?, tab.next().await?), (0, 0));
        thread.send(ASK).await?;
        kit.settle().await?;
        queue(&thread, "one", None).await?;
        assert_eq!(counts.next().await?, 1);
        queue(&thread, "two", Some("tab-1")).await?;
        assert_eq!((counts.next().await?, tab.next().await?), (2, 1));
        thread.cancel_queued(ids(&["one"]), "ann").await?;
        assert_eq!(counts.next().await?, 1);
        approve(&thread).await?;
        assert_eq!((counts.next().await?, tab.next().await?), (0, 0));
        kit.run_to_rest().await?;
        kit.finish().await?;
    }

    // T12.4
    async fn an_abort_may_take_with_it_what_waits_whatever_dies(kind) {
        let survived = crash(kind, |kind, _| agents(kind))
            .survives(async |world| {
                let ask = world.ask(async |kit| Ok(thread(kit).send_with(common::message("m1", ASK), <_>::default()).await?.run));
                let run = ask.await?;
                world.settle().await?;
                for (id, queue) in [("pending", false), ("queued", true)] {
                    let options = || SendOptions { queue, ..SendOptions::default() };
                    world.ask(async |kit| Ok(thread(kit).send_with(message(id), options()).await?.run)).await?;
                }
                let other = RunId::parse("another").expect("an id");
                world
                    .ask(async |kit| {
                        assert!(!thread(kit).abort_and_clear("ann", Some(&other)).await?);
                        Ok(thread(kit).abort_and_clear("ann", run.as_ref()).await?)
                    })
                    .await?;
                world.run_to_rest().await?;
                world.ask(async |kit| Ok(thread(kit).send_with(message("later"), <_>::default()).await?.run)).await?;
                world.run_to_rest().await?;
                world
                    .ask(async |kit| {
                        let thread = thread(kit);
                        assert_eq!(thread.find().await?.expect("the thread").current, None);
                        let seen = chunks(kit, &thread).await?;
                        assert!(!seen.iter().any(|it| it.contains("pending") || it.contains("queued")), "{seen:?}");
                        history(&thread).await
                    })
                    .await
            })
            .await?;
        let lines = &survived.value;
        assert_eq!((lines.len(), lines[2].as_str(), lines[3].as_str()), (4, "user later", "demo later"), "{lines:?}");
        assert!(lines[1].ends_with("(aborted)"), "{lines:?}");
    }
}

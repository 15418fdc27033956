//! Messages and answers: waking, joining, queueing, persisting.

use aldis::Aldis;
use aldis::clock::Clock;
use aldis::intake::SendOptions;
use aldis::message::{Category, NewSignal};
use aldis::runtime::Action;
use aldis::thread::{IfActive, IfIdle};

use crate::common::{agents, chunks, history, thread};

each_store! {
    async fn a_message_to_an_idle_thread_is_answered(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let sent = thread.send("Hello").await?;
        assert_eq!(sent.action, Action::Wake);
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["user Hello", "demo Hello"]);
        // H4.2
        let seen = chunks(&kit, &thread).await?;
        assert_eq!(seen, [
            "start", "data-user-message Hello", "step-start 1", "text-start", "text-delta Hello", "text-end",
            "step-finish \"stop\" false", "finish \"stop\" false",
        ]);
        let run = kit.find(sent.run.unwrap().as_str()).await?;
        assert_journal!("turn_of_one_message", kit.journal(&run).await?);
        assert_eq!(thread.find().await?.unwrap().current, None);
        kit.finish().await?;
    }

    // T10.5, T10.13: nobody advances the runs while they are sent, so all are there before the first model call.
    async fn messages_that_come_before_the_first_model_call_are_answered_together(kind) {
        let kit = agents(kind).start().await?;
        let (setup, hands) = (kit.setup(), kit.hands().clone());
        let database = kit.kill().await;
        let client = Aldis::open(database.url()).clock(Clock::Virtual(hands.clone())).connect().await?;
        let mut actions = Vec::new();
        for text in ["one", "two", "three"] {
            actions.push(thread(&client).send(text).await?.action);
        }
        assert_eq!(actions, [Action::Wake, Action::Deliver, Action::Deliver]);
        client.store().close().await;
        let kit = setup.start_on(&database, &hands).await?;
        kit.run_to_rest().await?;
        let lines = history(&thread(&kit)).await?;
        assert_eq!(lines[..3], ["user one", "user two", "user three"]);
        assert_eq!(lines.len(), 4, "one answer: {lines:?}");
        assert!(["one", "two", "three"].iter().all(|word| lines[3].contains(word)), "{lines:?}");
        kit.finish().await?;
    }

    // A turn is begun by sending to a thread; its workflow started by hand would have no thread to write to.
    async fn a_turn_that_answers_no_thread_is_blocked_with_a_sentence(kind) {
        let kit = agents(kind).start().await?;
        let input = serde_json::json!({
            "key": 1, "thread": "t", "resource": "ann", "agent": "demo", "options": null, "first": [],
            "follow_ups_max": 1, "follow_ups_left": 1
        });
        let run = kit.run("turn:demo", &input).await?;
        kit.settle().await?;
        let row = run.row().await?;
        let says = format!("{:?}", row.status);
        assert!(says.contains("answers none; turns are begun by sending to a thread"), "{says}");
        kit.finish().await?;
    }

    // T20.9
    async fn options_that_no_turn_can_read_are_refused_before_anything_is_accepted(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let options = SendOptions { turn: serde_json::json!({ "maxSteps": "many" }), ..SendOptions::default() };
        let refused = thread.send_with(NewSignal::user("Hello"), options).await.unwrap_err();
        says!(refused.to_string(), @r#"the options of the turn cannot be used: maxSteps: invalid type: string "many", expected u32; send them as `TurnOptions` has them, or leave them out"#);
        assert!(thread.find().await?.is_none());
        kit.finish().await?;
    }

    // T9.2, T9.3
    async fn queued_messages_get_an_answer_each(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        for text in ["one", "two", "three"] {
            thread.queue(text).await?;
        }
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["user one", "demo one", "user two", "demo two", "user three", "demo three"]);
        kit.finish().await?;
    }

    // T7.5, T11.9
    async fn a_signal_that_is_persisted_is_read_by_the_next_turn(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let options = SendOptions { if_idle: IfIdle::Persist, ..SendOptions::default() };
        let note = NewSignal::new(Category::Notification, "the build broke");
        let sent = thread.send_with(note, options).await?;
        assert_eq!((sent.action, sent.run), (Action::Persist, None));
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["notification the build broke"]);
        assert_eq!(chunks(&kit, &thread).await?, ["start", "data-signal the build broke", "finish \"stop\" null"]);
        thread.send("and?").await?;
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert_eq!(lines[..2], ["notification the build broke", "user and?"]);
        assert!(lines[2].contains("and?"), "{lines:?}");
        kit.finish().await?;
    }

    // T7.6
    async fn a_signal_that_is_discarded_leaves_nothing(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let options = SendOptions { if_idle: IfIdle::Discard, if_active: IfActive::Discard, ..SendOptions::default() };
        let sent = thread.send_with(NewSignal::user("nothing"), options).await?;
        assert_eq!((sent.action, sent.run), (Action::Discard, None));
        assert!(thread.find().await?.is_none());
        kit.finish().await?;
    }

    // T20.4
    async fn the_same_message_twice_is_answered_once(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let message = || NewSignal { id: Some("m-1".into()), ..NewSignal::user("Hello") };
        let first = thread.signal(message()).await?;
        kit.run_to_rest().await?;
        let again = thread.signal(message()).await?;
        assert_eq!((again.repeat, &again.run, again.action), (true, &first.run, Action::Wake));
        let other = NewSignal { id: Some("m-1".into()), ..NewSignal::user("Good bye") };
        assert_eq!(thread.signal(other).await.unwrap_err().code(), "signal_conflict");
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["user Hello", "demo Hello"]);
        kit.finish().await?;
    }

    // T2.3
    async fn a_thread_belongs_to_its_owner(kind) {
        let kit = agents(kind).start().await?;
        thread(&kit).send("Hello").await?;
        let theirs = kit.agent("demo").thread("t", "bob")?;
        assert_eq!(theirs.send("Mine?").await.unwrap_err().code(), "thread_foreign");
        assert_eq!(theirs.find().await.unwrap_err().code(), "thread_foreign");
        kit.run_to_rest().await?;
        kit.finish().await?;
    }

    async fn an_agent_that_nobody_has_is_named(kind) {
        let kit = agents(kind).start().await?;
        let refused = kit.agent("demi").thread("t", "ann")?.send("Hello").await.unwrap_err();
        says!(refused.to_string(), @"Agent with id demi not found; here are: demo, other");
        kit.finish().await?;
    }

    // T7.3, T21.4
    async fn two_agents_on_one_thread_answer_one_after_the_other(kind) {
        let kit = agents(kind).start().await?;
        let (first, second) = (thread(&kit), kit.agent("other").thread("t", "ann")?);
        first.send("one").await?;
        second.send("two").await?;
        kit.run_to_rest().await?;
        let lines = history(&first).await?;
        assert_eq!(lines[0], "user one");
        assert_eq!(lines.iter().filter(|line| line.starts_with("demo ")).count(), 2, "{lines:?}");
        kit.finish().await?;
    }
}

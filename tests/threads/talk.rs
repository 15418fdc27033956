//! Messages and answers: waking, joining, queueing, persisting.

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

    // T10.4, T10.10, T10.13
    async fn messages_that_come_before_the_first_model_call_are_answered_together(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let first = thread.send("one").await?;
        // Nothing is advanced between these: a kit's time stands still only for timers, so all are sent at once.
        let (second, third) = tokio::join!(thread.send("two"), thread.send("three"));
        let (second, third) = (second?, third?);
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert_eq!(lines.iter().filter(|line| line.starts_with("user ")).count(), 3, "{lines:?}");
        for sent in [&first, &second, &third] {
            assert!(!sent.repeat);
        }
        let answered: String = lines.iter().filter(|line| line.starts_with("demo ")).cloned().collect();
        for word in ["one", "two", "three"] {
            assert!(answered.contains(word), "{lines:?}");
        }
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

//! Transient signals: in the prompt of one call, in no history.

use aldis::intake::SendOptions;
use aldis::message::{Category, NewSignal};
use aldis::runtime::Action;
use aldis::testing::Crash;
use aldis::thread::{IfActive, IfIdle};

use crate::common::{agents, chunks, history, thread};

fn whisper(text: &str) -> NewSignal {
    NewSignal { transient: Some(true), ..NewSignal::new(Category::Reactive, text) }
}

each_store! {
    // T3.19
    async fn a_transient_signal_is_read_by_one_call_and_stored_nowhere(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let sent = thread.signal(whisper("psst")).await?;
        assert_eq!((sent.action, sent.signal.transient), (Action::Wake, true));
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["demo <system-reminder>psst</system-reminder>"]);
        thread.send("Hello").await?;
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert_eq!(lines[1..], ["user Hello", "demo Hello"]);
        kit.finish().await?;
    }

    // T3.23
    async fn its_echo_carries_the_flag(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        thread.signal(whisper("psst")).await?;
        kit.run_to_rest().await?;
        let key = thread.find().await?.unwrap().key;
        let seen = kit.store().chunks(key, 0, 100).await.map_err(aldis::Error::from)?;
        let echoes: Vec<serde_json::Value> = seen
            .iter()
            .map(|chunk| chunk.value.read::<serde_json::Value>().unwrap())
            .filter(|chunk| chunk["type"] == "data-signal")
            .collect();
        assert_eq!(echoes.len(), 1);
        assert_eq!(echoes[0]["data"]["transient"], true);
        kit.finish().await?;
    }

    // T3.19, T10.3: taken while the turn waits, it is in the call after the boundary and in no later one.
    async fn it_is_not_in_later_prompts_of_the_same_turn(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        thread.send("/call ask {\"question\":\"?\"}").await?;
        kit.settle().await?;
        thread.signal(whisper("psst")).await?;
        let call = thread.waiting().await?[0].call.clone();
        thread.approve(&call).await?;
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert!(lines.last().unwrap().contains("<system-reminder>psst</system-reminder>"), "{lines:?}");
        assert!(!lines.iter().any(|line| line.starts_with("reactive")), "{lines:?}");
        let seen = chunks(&kit, &thread).await?;
        assert_eq!(seen.iter().filter(|it| *it == "data-signal psst").count(), 1, "{seen:?}");
        kit.finish().await?;
    }

    // T3.21
    async fn to_be_persisted_it_is_discarded(kind) {
        let kit = agents(kind).start().await?;
        let options =
            SendOptions { if_idle: IfIdle::Persist, if_active: IfActive::Persist, ..SendOptions::default() };
        let thread = thread(&kit);
        let sent = thread.send_with(whisper("psst"), options).await?;
        assert_eq!(sent.action, Action::Discard);
        assert!(thread.find().await?.is_none());
        kit.finish().await?;
    }

    // T3.24: whatever the crash, the call has it.
    async fn it_is_in_its_call_after_a_crash_at_any_write(kind) {
        Crash::of(|_| agents(kind))
            .survives(async |world| {
                let whisper = NewSignal { id: Some("w".into()), ..whisper("psst") };
                world.ask(async |kit| Ok(thread(kit).signal(whisper.clone()).await?.action)).await?;
                world.run_to_rest().await?;
                world.ask(async |kit| history(&thread(kit)).await).await
            })
            .await?;
    }
}

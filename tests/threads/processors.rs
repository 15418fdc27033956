//! Processors: what they send, change and stop, and the lanes that they keep.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use aldis::Failure;
use aldis::agent::{Agent, Hook, Hooked, InputHook, OutputHook, Processor, StateAccepted, StateHook};
use aldis::intake::SendOptions;
use aldis::message::{Category, NewSignal, NewState, ReplyPart};
use aldis::runtime::{Client, ThreadHandle};
use aldis::store::{Kind, Window};
use aldis::testing::{Crash, Error, Setup};
use aldis::thread::{IfActive, IfIdle};
use aldis::workflows::demo;
use serde_json::json;

use crate::common::{chunks, history};
use crate::support::kit;

fn with(kind: Kind, processors: Vec<Box<dyn FnOnce(Agent) -> Agent>>) -> Setup {
    kit(kind).agent(processors.into_iter().fold(demo::agent(), |agent, add| add(agent)))
}

fn thread(client: &Client) -> ThreadHandle {
    client.agent("demo").thread("t", "ann").expect("an id")
}

/// A processor of one input or output hook.
struct On<F> {
    id: &'static str,
    hook: [Hook; 1],
    body: F,
}

macro_rules! on {
    ($hook:ident, $method:ident, $context:ident) => {
        impl<F: Fn(&mut $context<'_>) -> Result<(), Failure> + Send + Sync> Processor for $hook<F> {
            fn id(&self) -> &str {
                self.0.id
            }

            fn hooks(&self) -> &[Hook] {
                &self.0.hook
            }

            fn $method<'h>(&'h self, mut hook: $context<'h>) -> Hooked<'h> {
                Box::pin(async move { (self.0.body)(&mut hook) })
            }
        }
    };
}

struct OnInput<F>(On<F>);
struct OnStep<F>(On<F>);
struct OnOutput<F>(On<F>);
struct OnResult<F>(On<F>);
on!(OnInput, process_input, InputHook);
on!(OnStep, process_input_step, InputHook);
on!(OnOutput, process_output_step, OutputHook);
on!(OnResult, process_output_result, OutputHook);

/// A processor with a lane, whose key and mode are what its function says.
struct Lane<F> {
    id: &'static str,
    says: F,
}

impl<F: Fn(&mut StateHook<'_>) -> Result<Option<NewState>, Failure> + Send + Sync> Processor for Lane<F> {
    fn id(&self) -> &str {
        self.id
    }

    fn hooks(&self) -> &[Hook] {
        &[Hook::State]
    }

    fn compute_state_signal<'h>(&'h self, mut hook: StateHook<'h>) -> Hooked<'h, Option<NewState>> {
        Box::pin(async move { (self.says)(&mut hook) })
    }
}

fn reminder(text: &str) -> NewSignal {
    NewSignal::new(Category::Reactive, text)
}

async fn versions(thread: &ThreadHandle) -> Result<Vec<(String, u64)>, Error> {
    let rows = thread.history(Window::latest(i64::MAX, 100)).await?;
    let marks = rows.iter().filter_map(|row| row.as_signal()?.state.clone());
    Ok(marks.map(|mark| (mark.cache_key, mark.version)).collect())
}

each_store! {
    // T15.2, T15.3, T14.14
    async fn what_an_input_hook_sends_is_echoed_in_order_before_the_model_answers(kind) {
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let remind = OnStep(On { id: "remind", hook: [Hook::InputStep], body: move |hook: &mut InputHook<'_>| {
            count.fetch_add(1, Ordering::SeqCst);
            for text in ["one", "two"] {
                let stored = hook.context.send(reminder(text))?;
                assert_eq!(stored.tag, "system-reminder");
            }
            Ok(())
        }});
        let kit = with(kind, vec![Box::new(|agent| agent.processor(remind))]).start().await?;
        let thread = thread(&kit);
        let sent = thread.send("Hello").await?;
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert_eq!(lines[..3], ["user Hello", "reactive one", "reactive two"]);
        assert!(lines[3].contains("<system-reminder>two</system-reminder>"), "{lines:?}");
        let seen = chunks(&kit, &thread).await?;
        assert_eq!(seen[..5], ["start", "data-user-message Hello", "data-signal one", "data-signal two", "step-start 1"]);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let run = kit.find(sent.run.unwrap().as_str()).await?;
        assert_journal!("turn_with_a_processor", kit.journal(&run).await?);
        kit.finish().await?;
    }

    // T15.1: no echo, as there is no stream yet; and it runs once.
    async fn what_the_first_hook_sends_has_no_echo(kind) {
        let greet = OnInput(On { id: "greet", hook: [Hook::Input], body: |hook: &mut InputHook<'_>| {
            hook.context.send(reminder("be kind"))?;
            hook.draft.system.push("Answer in verse.".into());
            Ok(())
        }});
        let kit = with(kind, vec![Box::new(|agent| agent.processor(greet))]).start().await?;
        let thread = thread(&kit);
        thread.send("/call add {\"a\":1,\"b\":2}").await?;
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert_eq!(lines.iter().filter(|line| *line == "reactive be kind").count(), 1, "{lines:?}");
        let seen = chunks(&kit, &thread).await?;
        assert!(!seen.iter().any(|it| it.contains("be kind") && it.starts_with("data-")), "{seen:?}");
        kit.finish().await?;
    }

    // T15.1: changes are for the prompt, not for the history.
    async fn an_input_hook_changes_what_the_model_reads(kind) {
        let censor = OnStep(On { id: "censor", hook: [Hook::InputStep], body: |hook: &mut InputHook<'_>| {
            hook.messages().retain(|message| message.as_signal().is_none_or(|it| it.contents.all_text() != "secret"));
            hook.draft.tools = Some(Vec::new());
            Ok(())
        }});
        let kit = with(kind, vec![Box::new(|agent| agent.processor(censor))]).start().await?;
        let thread = thread(&kit);
        let quietly = SendOptions { if_idle: IfIdle::Persist, ..SendOptions::default() };
        thread.send_with(NewSignal::user("visible"), quietly.clone()).await?;
        thread.send_with(NewSignal::user("secret"), quietly).await?;
        thread.send("Hello").await?;
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert_eq!(lines[..3], ["user visible", "user secret", "user Hello"]);
        assert!(!lines[3].contains("secret"), "{lines:?}");
        kit.finish().await?;
    }

    // T3.19, T3.22: a reminder that is sent again at each step is near the end of each prompt, and in no history.
    async fn a_transient_reminder_is_sent_at_every_step(kind) {
        let remind = OnStep(On { id: "remind", hook: [Hook::InputStep], body: |hook: &mut InputHook<'_>| {
            let text = format!("step {}", hook.context.step_number());
            hook.context.send(NewSignal { transient: Some(true), ..reminder(&text) })?;
            Ok(())
        }});
        let kit = with(kind, vec![Box::new(|agent| agent.processor(remind))]).start().await?;
        let thread = thread(&kit);
        thread.send("/call add {\"a\":1,\"b\":2}").await?;
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert!(!lines.iter().any(|line| line.starts_with("reactive")), "{lines:?}");
        let seen = chunks(&kit, &thread).await?;
        let echoes: Vec<_> = seen.iter().filter(|it| it.starts_with("data-signal")).collect();
        assert!(echoes.len() >= 2 && echoes[0] == "data-signal step 0" && echoes[1] == "data-signal step 1", "{seen:?}");
        kit.finish().await?;
    }

    // T14.8, T14.10, T14.13
    async fn a_lane_is_told_once_and_again_when_it_has_changed(kind) {
        let key = Arc::new(Mutex::new("a"));
        let now = Arc::clone(&key);
        let lane = Lane { id: "browser", says: move |hook: &mut StateHook<'_>| {
            let key = *now.lock().unwrap();
            assert_eq!(hook.lane(), "browser");
            Ok(Some(NewState::snapshot("", key, format!("at {key}"))))
        }};
        let kit = with(kind, vec![Box::new(|agent| agent.processor(lane))]).start().await?;
        let thread = thread(&kit);
        for text in ["one", "two"] {
            thread.send(text).await?;
            kit.run_to_rest().await?;
        }
        assert_eq!(versions(&thread).await?, [("a".to_owned(), 1)]);
        *key.lock().unwrap() = "b";
        thread.send("three").await?;
        kit.run_to_rest().await?;
        assert_eq!(versions(&thread).await?, [("a".to_owned(), 1), ("b".to_owned(), 2)]);
        let lanes = thread.lanes().await?;
        assert_eq!((lanes[0].current_cache_key.as_str(), lanes[0].version), ("b", 2));
        // T14.7: what the model could see, and this one.
        assert_eq!(lanes[0].active_copies.iter().map(|copy| copy.version).collect::<Vec<_>>(), [1, 2]);
        kit.finish().await?;
    }

    // T14.10
    async fn a_copy_that_is_out_of_sight_is_accepted_again_with_its_version(kind) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&seen);
        let lane = Lane { id: "l", says: move |hook: &mut StateHook<'_>| {
            let last = hook.last_snapshot().map(|it| it.contents.all_text());
            note.lock().unwrap().push((hook.has_snapshot(), hook.tracking().map(|it| it.version), last));
            Ok(Some(NewState::snapshot("", "k", "here")))
        }};
        let agent = demo::agent().memory(2).processor(lane);
        let kit = kit(kind).agent(agent).start().await?;
        let thread = thread(&kit);
        for text in ["one", "two"] {
            thread.send(text).await?;
            kit.run_to_rest().await?;
        }
        assert_eq!(versions(&thread).await?, [("k".to_owned(), 1), ("k".to_owned(), 1)]);
        let seen = seen.lock().unwrap().clone();
        assert_eq!(seen[0], (false, None, None));
        // T14.9: the window has none, the history has.
        assert_eq!(seen.last().unwrap(), &(false, Some(1), Some("here".to_owned())));
        kit.finish().await?;
    }

    // T14.9
    async fn a_lane_with_changes_is_given_them(kind) {
        let lane = Lane { id: "l", says: |hook: &mut StateHook<'_>| {
            let n = hook.deltas_since_snapshot().len();
            Ok(Some(if hook.has_snapshot() {
                assert_eq!(hook.active().len(), n + 1);
                NewState::delta("", format!("d{n}"), format!("change {n}"))
            } else {
                NewState::snapshot("", "s", "all")
            }))
        }};
        let kit = with(kind, vec![Box::new(|agent| agent.processor(lane))]).start().await?;
        let thread = thread(&kit);
        for text in ["one", "two", "three"] {
            thread.send(text).await?;
            kit.run_to_rest().await?;
        }
        assert_eq!(versions(&thread).await?, [("s".to_owned(), 1), ("d0".to_owned(), 2), ("d1".to_owned(), 3)]);
        kit.finish().await?;
    }

    // T14.8: several lanes of one processor.
    async fn a_processor_may_keep_several_lanes(kind) {
        let lane = Lane { id: "l", says: |hook: &mut StateHook<'_>| {
            let first = hook.send_state(NewState::snapshot("tabs", "k", "two tabs"))?;
            let again = hook.send_state(NewState::snapshot("tabs", "k", "two tabs"))?;
            assert_eq!(again, StateAccepted::Unchanged);
            let _ = first;
            Ok(None)
        }};
        let kit = with(kind, vec![Box::new(|agent| agent.processor(lane))]).start().await?;
        let thread = thread(&kit);
        thread.send("one").await?;
        kit.run_to_rest().await?;
        assert_eq!(thread.lanes().await?.iter().map(|lane| lane.id.clone()).collect::<Vec<_>>(), ["tabs"]);
        kit.finish().await?;
    }

    // T14.6: an outside producer that comes between the hook and its commit is not overwritten in silence.
    async fn an_outside_producer_and_a_processor_number_their_states_together(kind) {
        let outside: Arc<Mutex<Option<ThreadHandle>>> = Arc::default();
        let writes = Arc::clone(&outside);
        struct Slow(Arc<Mutex<Option<ThreadHandle>>>);
        impl Processor for Slow {
            fn id(&self) -> &str {
                "l"
            }

            fn hooks(&self) -> &[Hook] {
                &[Hook::State]
            }

            fn compute_state_signal<'h>(&'h self, hook: StateHook<'h>) -> Hooked<'h, Option<NewState>> {
                Box::pin(async move {
                    if hook.tracking().is_some() {
                        return Ok(None);
                    }
                    let thread = self.0.lock().unwrap().clone().expect("a thread");
                    let quietly = SendOptions { if_active: IfActive::Persist, ..SendOptions::default() };
                    let state = NewState::snapshot("l", "outside", "from outside");
                    thread.state_with(state, quietly).await.map_err(|e| Failure::new(e.to_string()))?;
                    Ok(Some(NewState::snapshot("", "inside", "from inside")))
                })
            }
        }
        let kit = with(kind, vec![Box::new(|agent| agent.processor(Slow(writes)))]).start().await?;
        let thread = thread(&kit);
        *outside.lock().unwrap() = Some(thread.clone());
        thread.send("one").await?;
        kit.run_to_rest().await?;
        assert_eq!(versions(&thread).await?, [("outside".to_owned(), 1), ("inside".to_owned(), 2)]);
        let lanes = thread.lanes().await?;
        assert_eq!((lanes[0].current_cache_key.as_str(), lanes[0].version), ("inside", 2));
        *outside.lock().unwrap() = None;
        kit.finish().await?;
    }

    // T15.1, T15.2: the open message stays open.
    async fn an_output_hook_sends_and_the_result_hook_changes_the_last_message(kind) {
        let look = OnOutput(On { id: "look", hook: [Hook::OutputStep], body: |hook: &mut OutputHook<'_>| {
            let text = format!("seen {} parts", hook.reply.parts.len());
            hook.context.send(reminder(&text))?;
            Ok(())
        }});
        let sign = OnResult(On { id: "sign", hook: [Hook::OutputResult], body: |hook: &mut OutputHook<'_>| {
            hook.reply.parts.push(ReplyPart::text("-- demo"));
            hook.context.send(reminder("done"))?;
            Ok(())
        }});
        let add: Vec<Box<dyn FnOnce(Agent) -> Agent>> =
            vec![Box::new(|agent| agent.processor(look)), Box::new(|agent| agent.processor(sign))];
        let kit = with(kind, add).start().await?;
        let thread = thread(&kit);
        thread.send("Hello").await?;
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["user Hello", "demo Hello -- demo", "reactive seen 2 parts", "reactive done"]);
        kit.finish().await?;
    }

    // T15.7
    async fn a_hook_that_aborts_ends_the_turn(kind) {
        let guard = OnStep(On { id: "guard", hook: [Hook::InputStep], body: |hook: &mut InputHook<'_>| {
            hook.context.abort("not today");
            Ok(())
        }});
        let kit = with(kind, vec![Box::new(|agent| agent.processor(guard))]).start().await?;
        let thread = thread(&kit);
        thread.send("Hello").await?;
        kit.run_to_rest().await?;
        let seen = chunks(&kit, &thread).await?;
        assert_eq!(seen[seen.len() - 2..], ["tripwire not today", "finish \"tripwire\" false"]);
        assert_eq!(thread.find().await?.unwrap().current, None);
        assert_eq!(history(&thread).await?, ["user Hello"]);
        kit.finish().await?;
    }

    // T14.9: what a processor keeps for itself lasts as long as the turn.
    async fn what_a_processor_keeps_lasts_as_long_as_the_turn(kind) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&seen);
        let keep = OnStep(On { id: "keep", hook: [Hook::InputStep], body: move |hook: &mut InputHook<'_>| {
            let before = hook.context.state().get("n").and_then(|n| n.as_u64()).unwrap_or(0);
            hook.context.state().insert("n".into(), json!(before + 1));
            note.lock().unwrap().push((before, hook.context.steps().len()));
            Ok(())
        }});
        let kit = with(kind, vec![Box::new(|agent| agent.processor(keep))]).start().await?;
        let thread = thread(&kit);
        thread.send("/call add {\"a\":1,\"b\":2}").await?;
        kit.run_to_rest().await?;
        thread.send("again").await?;
        kit.run_to_rest().await?;
        assert_eq!(*seen.lock().unwrap(), [(0, 0), (1, 1), (0, 0)]);
        kit.finish().await?;
    }

    // T14.14, T15.8: whatever the crash, what hooks have sent is in the history once, and the lane is tracked with it.
    async fn what_hooks_send_survives_a_crash_at_every_write(kind) {
        Crash::of(|_| {
            let lane = Lane { id: "l", says: |hook: &mut StateHook<'_>| {
                let key = hook.context.step_number().to_string();
                Ok(Some(NewState::snapshot("", key.clone(), key)))
            }};
            let remind = OnStep(On { id: "remind", hook: [Hook::InputStep], body: |hook: &mut InputHook<'_>| {
                hook.context.send(reminder("mind"))?;
                Ok(())
            }});
            kit(kind).agent(demo::agent().processor(remind).processor(lane))
        })
        .whatever_is_recorded()
        .survives(async |world| {
            let message = NewSignal { id: Some("m".into()), ..NewSignal::user("/call add {\"a\":1,\"b\":2}") };
            world.ask(async |kit| Ok(thread(kit).signal(message.clone()).await?.action)).await?;
            world.run_to_rest().await?;
            world
                .ask(async |kit| {
                    let thread = thread(kit);
                    let lanes: Vec<_> = thread.lanes().await?.into_iter().map(|it| (it.id, it.version)).collect();
                    Ok((history(&thread).await?, versions(&thread).await?, lanes, chunks(kit, &thread).await?))
                })
                .await
        })
        .await?;
    }
}

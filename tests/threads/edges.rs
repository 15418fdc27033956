//! Cases of section 23 that nobody else tells: messages and aborts in the middle of calls, answers at once, another agent's
//! turn with each thing that may be asked.

use std::sync::Arc;

use aldis::Failure;
use aldis::agent::{Agent, Function, ToolCallContext};
use aldis::intake::SendOptions;
use aldis::message::NewSignal;
use aldis::runtime::{Action, ThreadHandle};
use aldis::store::Kind;
use aldis::testing::{Error, Setup};
use aldis::thread::IfIdle;
use aldis::workflows::demo;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::{Notify, mpsc};

use crate::common::{Puppet, agents, chunks, echoes, history, message, stream, thread, told};
use crate::support::kit;

/// What the model calls, at the same time: a tool that takes its time, and one that waits for a person.
const SLOW_AND_REFUND: &str = "/call slow {}\n/call refund {\"order\":\"A-1\",\"cents\":100}";

#[derive(Debug, Deserialize, JsonSchema)]
struct Nothing {}

/// The demonstration agent with a tool `slow`: it tells that it has begun, and returns once it is let go. Whoever tells it to
/// stop is not heard.
fn with_slow(kind: Kind) -> (Setup, mpsc::UnboundedReceiver<()>, Arc<Notify>) {
    let (begins, begun) = mpsc::unbounded_channel();
    let go = Arc::new(Notify::new());
    let lets_go = Arc::clone(&go);
    let slow = Function::new("slow", "Takes its time.", move |_: ToolCallContext, Nothing {}| {
        let (begins, go) = (begins.clone(), Arc::clone(&lets_go));
        async move {
            begins.send(()).map_err(|e| Failure::new(e.to_string()))?;
            go.notified().await;
            Ok::<_, Failure>("at last")
        }
    });
    (kit(kind).agent(demo::agent().tool(slow)), begun, go)
}

/// The only call that waits.
async fn waiting(thread: &ThreadHandle) -> Result<String, Error> {
    let waiting = thread.waiting().await?;
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    Ok(waiting[0].call.clone())
}

each_store! {
    // Case 4; T10.2, T10.3: not between two calls of one step, not while one of them waits.
    async fn a_message_during_calls_is_taken_once_all_of_them_are_settled(kind) {
        let (setup, mut begun, go) = with_slow(kind);
        let kit = setup.start().await?;
        let thread = thread(&kit);
        thread.send(SLOW_AND_REFUND).await?;
        begun.recv().await.unwrap();
        assert_eq!(thread.send("during the slow one").await?.action, Action::Deliver);
        go.notify_one();
        kit.settle().await?;
        assert_eq!(thread.send("while one waits").await?.action, Action::Deliver);
        kit.settle().await?;
        assert_eq!(history(&thread).await?.len(), 2, "nothing is taken before the boundary");
        thread.approve(&waiting(&thread).await?).await?;
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert!(lines[1].starts_with(r#"demo [slow {}: "at last"] [refund "#), "{lines:?}");
        assert_eq!(lines[2..4], ["user during the slow one", "user while one waits"]);
        assert_eq!(lines.len(), 5, "they are answered together: {lines:?}");
        let told = told(&stream(&kit, &thread).await?);
        let at = |what: &str| told.iter().position(|it| it.starts_with(what)).unwrap_or_else(|| panic!("{what}: {told:?}"));
        let order = ["tool-result slow", "tool-result refund", "data-user-message during", "data-user-message while", "step-finish", "step-start 2"];
        assert!(order.map(at).is_sorted(), "{told:?}");
        kit.finish().await?;
    }

    // Case 12; T12.3: its result comes too late, and the next prompt is well-formed all the same.
    async fn an_abort_does_not_wait_for_a_tool_that_does_not_hear_it(kind) {
        let (setup, mut begun, go) = with_slow(kind);
        let kit = setup.start().await?;
        let thread = thread(&kit);
        let sent = thread.send("/call slow {}").await?;
        begun.recv().await.unwrap();
        thread.send("and now?").await?;
        assert!(thread.abort("ann", sent.run.as_ref()).await?);
        kit.find(sent.run.unwrap().as_str()).await?.settled().await?;
        go.notify_one();
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert_eq!(lines[1..3], ["demo [slow {}: open] (aborted)", "user and now?"]);
        assert!(lines[3].starts_with("demo ") && !lines[3].contains("at last"), "{lines:?}");
        let chunks = stream(&kit, &thread).await?;
        echoes(&chunks);
        assert_eq!(chunks.iter().filter(|it| it["type"] == "abort").count(), 1);
        kit.finish().await?;
    }

    // Case 12; T12.2: of many that abort at once one is told that it has.
    async fn of_many_aborts_at_once_one_counts(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let sent = thread.send("/call ask {\"question\":\"?\"}").await?;
        kit.settle().await?;
        let aborts = (0..8).map(|_| thread.abort("ann", sent.run.as_ref()));
        let told = futures::future::try_join_all(aborts).await?;
        assert_eq!(told.iter().filter(|aborted| **aborted).count(), 1, "{told:?}");
        kit.run_to_rest().await?;
        assert_eq!(chunks(&kit, &thread).await?.iter().filter(|it| *it == "abort").count(), 1);
        kit.finish().await?;
    }

    // Case 13; T13.10: the first answer holds, whoever else was told so.
    async fn of_an_approval_and_a_refusal_at_once_one_holds(kind) {
        let kit = agents(kind).start().await?;
        for round in 0..10 {
            let thread = kit.agent("demo").thread(&format!("t-{round}"), "ann")?;
            assert_eq!(thread.send("/call refund {\"order\":\"A-1\",\"cents\":100}").await?.action, Action::Wake);
            kit.settle().await?;
            let call = waiting(&thread).await?;
            assert_eq!(thread.approve("nobody's").await.unwrap_err().code(), "call_not_waiting");
            let (approved, declined) = tokio::join!(thread.approve(&call), thread.decline(&call, Some("no".into())));
            kit.run_to_rest().await?;
            let refused = match (&approved, &declined) {
                (Ok(_), Err(e)) | (Err(e), Ok(_)) => e.code(),
                _ => panic!("{approved:?} {declined:?}"),
            };
            assert_eq!(refused, "call_answered_otherwise");
            let line = history(&thread).await?.remove(1);
            assert_eq!(line.contains("denied"), declined.is_ok(), "{line}");
            assert_eq!(line.contains("\"key\""), approved.is_ok(), "{line}");
        }
        kit.finish().await?;
    }

    // Case 18; T7.3, T7.8
    async fn another_agents_turn_counts_as_idle_whatever_is_asked(kind) {
        let (models, mut strings) = Puppet::models();
        let kit = kit(kind).agent(demo::agent().model("puppet/x")).agent(Agent::new("other")).models(models).start().await?;
        for suspended in [false, true] {
            let name = format!("suspended-{suspended}");
            let (demo, other) = (kit.agent("demo").thread(&name, "ann")?, kit.agent("other").thread(&name, "ann")?);
            let current = demo.send("begin").await?.run;
            let mut asked = Some(strings.recv().await.unwrap());
            if let Some(asked) = asked.take_if(|_| suspended) {
                asked.call("refund", serde_json::json!({ "order": "A-1", "cents": 1 }));
                kit.settle().await?;
            }
            for (if_idle, action) in
                [(IfIdle::Wake, Action::Deliver), (IfIdle::Persist, Action::Persist), (IfIdle::Discard, Action::Discard)]
            {
                let id = format!("{action:?}");
                let options = SendOptions { if_idle, ..SendOptions::default() };
                let sent = other.send_with(NewSignal { ..message(&id, &id) }, options).await?;
                assert_eq!(sent.action, action, "suspended: {suspended}");
                assert_eq!(sent.run.is_some(), if_idle == IfIdle::Wake);
                assert_ne!(sent.run, current, "a run of its own");
            }
            let lines = history(&demo).await?;
            assert_eq!(lines.last().unwrap(), "user Persist", "it is kept at once: {lines:?}");
            match asked {
                Some(asked) => asked.answer("done"),
                None => {
                    demo.approve(&waiting(&demo).await?).await?;
                    strings.recv().await.unwrap().answer("done");
                }
            }
            kit.run_to_rest().await?;
            let lines = history(&demo).await?;
            assert!(!lines.iter().any(|line| line.contains("Discard")), "{lines:?}");
            let [.., woken, answer] = &lines[..] else { panic!("{lines:?}") };
            assert_eq!(woken, "user Deliver");
            assert!(answer.ends_with("Deliver"), "{lines:?}");
            // T11.9: what was kept is shown between the two turns.
            let told = told(&stream(&kit, &demo).await?);
            let at = |what: &str| told.iter().position(|it| it == what).unwrap_or_else(|| panic!("{what}: {told:?}"));
            assert!(at("data-user-message Persist") != at("data-user-message Deliver"));
            assert_eq!(told.iter().filter(|it| *it == "start").count(), 3, "{told:?}");
            echoes(&stream(&kit, &demo).await?);
        }
        kit.finish().await?;
    }
}

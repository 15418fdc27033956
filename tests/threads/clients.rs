//! Tools that the client runs.

use std::collections::BTreeMap;

use aldis::agent::{Agent, TurnOptions};
use aldis::intake::SendOptions;
use aldis::message::NewSignal;
use aldis::runtime::ThreadHandle;
use aldis::testing::Error;
use aldis::thread::{CallResult, TurnInput};
use serde_json::{Value, json};

use crate::common::{Puppet, agents, chunks, history, thread};
use crate::support::kit;

fn options() -> TurnOptions {
    let tool = serde_json::from_value(json!({ "description": "Looks.", "inputSchema": { "type": "object" } }));
    TurnOptions { client_tools: BTreeMap::from([("look".to_owned(), tool.unwrap())]), ..TurnOptions::default() }
}

async fn ask(thread: &ThreadHandle, text: &str) -> Result<(), Error> {
    let options = SendOptions { turn: ThreadHandle::turn(&options())?, ..SendOptions::default() };
    thread.send_with(NewSignal::user(text), options).await?;
    Ok(())
}

/// The calls that the history holds, in its order.
async fn calls(thread: &ThreadHandle) -> Result<Vec<String>, Error> {
    let rows = thread.shown(aldis::store::Window::latest(i64::MAX, 100), false).await?;
    let parts = rows.iter().flat_map(|it| &it.parts).filter(|part| part["type"] == "tool-invocation");
    Ok(parts.filter_map(|part| Some(part["toolInvocation"]["toolCallId"].as_str()?.to_owned())).collect())
}

fn result(call: &str, output: Value) -> CallResult {
    CallResult { call: call.to_owned(), output, failed: false }
}

each_store! {
    // T13.14
    async fn a_turn_ends_with_a_call_of_the_clients_tool_and_another_goes_on_with_its_result(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        ask(&thread, "/call look {\"at\":\"door\"}\n/call look {\"at\":\"roof\"}").await?;
        kit.run_to_rest().await?;
        assert_eq!(chunks(&kit, &thread).await?.last().unwrap(), "finish \"tool-calls\" false");
        assert_eq!(thread.find().await?.unwrap().current, None);
        let calls = calls(&thread).await?;
        let before = chunks(&kit, &thread).await?.len();
        let results = vec![
            result(&calls[0], json!("shut")),
            CallResult { call: calls[1].clone(), output: json!("too dark"), failed: true },
        ];
        let run = thread.continue_with(results.clone(), &options()).await?;
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[1], r#"demo [look {"at":"door"}: "shut"] [look {"at":"roof"}: failed "too dark"]"#);
        assert!(lines[2].contains("shut") && lines[2].contains("too dark"), "{lines:?}");
        let seen = chunks(&kit, &thread).await?.split_off(before);
        let begins = ["start", "tool-result look \"shut\"", "tool-error look \"too dark\"", "step-start 1"];
        assert_eq!(seen[..4], begins, "{seen:?}");
        // The same again is the same run; other results are refused.
        assert_eq!(thread.continue_with(results, &options()).await?, run);
        let other = vec![result(&calls[0], json!("open")), result(&calls[1], json!("bright"))];
        assert_eq!(thread.continue_with(other, &options()).await.unwrap_err().code(), "call_answered_otherwise");
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?.len(), 3);
        kit.finish().await?;
    }

    // T13.14: the model may call the client's tools again, within the same limits, and its answer has the same form.
    async fn what_goes_on_is_asked_for_as_what_it_goes_on_from(kind) {
        let (models, mut strings) = Puppet::models();
        let kit = kit(kind).agent(Agent::new("demo").model("puppet/x")).models(models).start().await?;
        let thread = thread(&kit);
        let options = TurnOptions { instructions: Some("Look.".into()), max_steps: Some(7), ..options() };
        let turn = ThreadHandle::turn(&options)?;
        thread.send_with(NewSignal::user("Is it open?"), SendOptions { turn, ..SendOptions::default() }).await?;
        strings.recv().await.unwrap().call("look", json!({ "at": "door" }));
        kit.run_to_rest().await?;
        thread.continue_with(vec![result("call-look", json!("shut"))], &TurnOptions::default()).await?;
        let asked = strings.recv().await.unwrap();
        assert_eq!(asked.request.system, ["Look."]);
        assert_eq!(asked.request.tools[0].name, "look");
        // And again from there: what the continuation was asked for is what it had inherited.
        asked.call_as("again", "look", json!({ "at": "roof" }));
        kit.run_to_rest().await?;
        let other = TurnOptions { instructions: Some("Be brief.".into()), ..TurnOptions::default() };
        let run = thread.continue_with(vec![result("again", json!("dark"))], &other).await?;
        let asked = strings.recv().await.unwrap();
        assert_eq!((&asked.request.system[..], asked.request.tools.len()), (&["Be brief.".to_owned()][..], 1));
        asked.answer("It is shut.");
        kit.run_to_rest().await?;
        let input: TurnInput = kit.find(run.as_str()).await?.input().await?;
        let asked: TurnOptions = input.options.read().unwrap();
        assert_eq!((asked.max_steps, asked.instructions.as_deref()), (Some(7), Some("Be brief.")));
        kit.finish().await?;
    }

    // T9.7, T13.14
    async fn it_goes_on_ahead_of_what_is_queued(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        ask(&thread, "/call look {}").await?;
        kit.run_to_rest().await?;
        let call = calls(&thread).await?.remove(0);
        thread.send("/call ask {\"question\":\"?\"}").await?;
        kit.settle().await?;
        thread.queue("queued").await?;
        thread.continue_with(vec![result(&call, json!("shut"))], &options()).await?;
        assert_eq!(thread.queue_count(None).await?, 2);
        thread.send("pending").await?;
        let waiting = thread.waiting().await?;
        assert!(thread.abort("ann", None).await?);
        assert_eq!(waiting.len(), 1);
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        let at = |what: &str| lines.iter().position(|it| it.starts_with(what)).unwrap_or_else(|| panic!("{lines:?}"));
        assert!(lines[1].ends_with(r#"[look {}: "shut"]"#), "{lines:?}");
        assert!(at("user pending") < at("user queued"), "{lines:?}");
        // Between them is the answer that goes on from the client's tool.
        assert_eq!(at("user queued") - at("user pending"), 3, "{lines:?}");
        kit.finish().await?;
    }

    async fn each_call_gets_one_result_whatever_is_given_together(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        ask(&thread, "/call look {\"at\":1}\n/call look {\"at\":2}").await?;
        kit.run_to_rest().await?;
        let calls = calls(&thread).await?;
        let both = vec![result(&calls[0], json!("a")), result(&calls[1], json!("b"))];
        let one = vec![result(&calls[1], json!("c"))];
        let (both, one) = (thread.continue_with(both, &options()).await?, thread.continue_with(one, &options()).await?);
        assert_ne!(both, one);
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert!(lines[1].contains(r#": "a"]"#) && lines[1].contains(r#": "b"]"#), "{lines:?}");
        assert_eq!(lines.len(), 3, "{lines:?}");
        let turned: aldis::workflows::turn::Turned = kit.find(one.as_str()).await?.result().await?;
        assert_eq!((turned.steps, turned.reason.as_str()), (0, "stop"));
        let nobodys = vec![result("nobody's", json!(1))];
        assert_eq!(thread.continue_with(nobodys, &options()).await.unwrap_err().code(), "call_not_waiting");
        assert_eq!(thread.continue_with(Vec::new(), &options()).await.unwrap_err().code(), "call_not_waiting");
        kit.finish().await?;
    }
}

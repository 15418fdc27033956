//! Turns with hooks through the crash harness: whatever dies, what a hook has changed, asked again or ended stays so.

use std::sync::Arc;

use aldis::agent::model::{Deltas, Model, ModelError, Models, Reply, Request};
use aldis::agent::{Agent, ErrorHook, OutputHook, RequestHook, ResponseHook, StreamHook, ToolResultHook};
use aldis::intake::{Limits, SendOptions};
use aldis::message::{Category, NewSignal};
use aldis::runtime::CancelQueued;
use aldis::store::Kind;
use aldis::testing::{Error, Setup, Survived};
use aldis::workflows::demo;
use futures::future::BoxFuture;
use serde_json::json;

use crate::common::{echoes, history, inputs, message, said, stream, thread, told};
use crate::crashes::crash;
use crate::hooks::{After, Failing, Going, Heard, Passing, Returned};
use crate::support::kit;

/// A model that does as it was asked once it has been told twice.
struct Corrigible;

impl Model for Corrigible {
    fn name(&self) -> &str {
        "corrigible"
    }

    fn ask<'a>(&'a self, request: &'a Request, _: &'a Deltas) -> BoxFuture<'a, Result<Reply, ModelError>> {
        let prompt = serde_json::to_string(&request.messages).expect("a prompt");
        Box::pin(async move {
            if prompt.contains("refuse") && !prompt.contains("please") {
                return Err(ModelError::Refused { model: request.model.clone(), status: 400, cause: "no".into() });
            }
            Ok(said(request, if prompt.contains("please") { "Yes, please" } else { "Yes" }))
        })
    }
}

fn corrigible(kind: Kind, agent: Agent) -> Setup {
    kit(kind).agent(agent.model("corrigible/x")).models(Models::new().with(Arc::new(Corrigible)))
}

/// One message, through every crash: the history, and what a client makes of the stream.
async fn survives(
    kind: Kind,
    setup: impl Fn() -> Setup,
    text: &str,
) -> Result<Survived<(Vec<String>, Vec<String>)>, Error> {
    let survived = crash(kind, move |_, _| setup())
        .survives(async |world| {
            world
                .ask(async |kit| Ok(thread(kit).send_with(message("m1", text), SendOptions::default()).await?))
                .await?;
            world.run_to_rest().await?;
            world
                .ask(async |kit| {
                    let thread = thread(kit);
                    let chunks = stream(kit, &thread).await?;
                    inputs(&thread).await?;
                    assert!(echoes(&chunks).values().all(|times| *times == 1));
                    Ok((history(&thread).await?, told(&chunks)))
                })
                .await
        })
        .await?;
    assert!(survived.struck > 0, "{survived:?}");
    Ok(survived)
}

fn asks_nicely(text: &str) -> bool {
    text.contains("please")
}

each_store! {
    // T15.1, T15.8
    async fn what_hooks_change_around_calls_is_changed_once(kind) {
        let setup = || {
            let agent = demo::agent()
                .processor(Going::new(|hook: &mut RequestHook<'_>| hook.request.system.push("Be brief.".into())))
                .processor(Passing::new(|hook: &mut StreamHook<'_>| *hook.text = hook.text.replace("answered", "said")))
                .processor(Returned::new(|hook: &mut ToolResultHook<'_>| *hook.result = json!({ "sum": *hook.result })));
            kit(kind).agent(agent)
        };
        let survived = survives(kind, setup, "/call add {\"a\":1,\"b\":2}").await?;
        assert_eq!(survived.value.0[1..], [r#"demo [add {"a":1,"b":2}: {"sum":3}] add said {"sum":3}"#]);
    }

    // T15.7
    async fn an_answer_that_hooks_have_given_again_is_given_again_once(kind) {
        let by_output = || After::new(|hook: &mut OutputHook<'_>| {
            if !asks_nicely(&hook.reply.whole_text()) {
                hook.context.retry("say please");
            }
        });
        let by_response = || Heard::new(|hook: &mut ResponseHook<'_>| {
            if !asks_nicely(&hook.reply.text()) {
                hook.retry("say please");
            }
        });
        let mut ends = Vec::new();
        for by in ["output", "response"] {
            let setup = || {
                let agent = Agent::new("demo");
                corrigible(kind, if by == "output" { agent.processor(by_output()) } else { agent.processor(by_response()) })
            };
            ends.push(survives(kind, setup, "Well?").await?.value);
        }
        let (lines, told) = &ends[0];
        assert_eq!((lines[1].as_str(), lines[3].as_str()), ("demo Yes", "demo Yes, please"));
        assert_eq!(told.iter().filter(|it| *it == "step-finish \"retry\" true").count(), 1, "{told:?}");
        assert_eq!(ends[0], ends[1]);
    }

    // T15.7
    async fn a_prompt_that_a_hook_has_put_again_goes_out_once(kind) {
        let setup = || corrigible(kind, Agent::new("demo").processor(Going::new(|hook: &mut RequestHook<'_>| {
            if !asks_nicely(&serde_json::to_string(&hook.request.messages).unwrap()) {
                hook.retry("say please");
            }
        })));
        let (lines, told) = survives(kind, setup, "Well?").await?.value;
        assert_eq!((lines.len(), lines[2].as_str()), (3, "demo Yes, please"), "{lines:?}");
        assert_eq!(told.iter().filter(|it| it.starts_with("step-start")).count(), 2, "{told:?}");
    }

    // T15.7
    async fn a_turn_that_a_hook_has_ended_has_ended(kind) {
        let by_request = || Going::new(|hook: &mut RequestHook<'_>| hook.abort("no"));
        let by_response = || Heard::new(|hook: &mut ResponseHook<'_>| hook.abort("no"));
        for (by, lines) in [("request", &["user Well?"][..]), ("response", &["user Well?", "demo Yes"])] {
            let setup = || {
                let agent = Agent::new("demo");
                corrigible(kind, if by == "request" { agent.processor(by_request()) } else { agent.processor(by_response()) })
            };
            let survived = survives(kind, setup, "Well?").await?.value;
            assert_eq!(survived.0, lines, "{by}");
            assert_eq!(survived.1[survived.1.len() - 2..], ["tripwire no", "finish \"tripwire\" false"], "{by}");
        }
    }

    // T15.1, T15.2
    async fn a_model_that_refused_is_asked_again_with_what_hooks_have_sent_once(kind) {
        let setup = || corrigible(kind, Agent::new("demo").processor(Failing::new(|hook: &mut ErrorHook<'_>| {
            hook.context.send(NewSignal::new(Category::Reactive, "say please")).unwrap();
            *hook.retry = true;
        })));
        let (lines, _) = survives(kind, setup, "refuse").await?.value;
        assert_eq!(lines, ["user refuse", "reactive say please", "demo Yes, please"]);
    }

    // T9.10, T10.8
    async fn what_was_held_back_and_taken_back_is_gone_and_the_rest_is_answered(kind) {
        let held = |kind, _: &_| {
            let limits = Limits { follow_ups_max: 0, ..Limits::default() };
            kit(kind).agent(demo::agent().steps_max(1)).limits(limits)
        };
        let survived = crash(kind, held)
            .whatever_is_recorded()
            .survives(async |world| {
                let send = async |id: &str, text: &str| {
                    world.ask(async |kit| Ok(thread(kit).send_with(message(id, text), SendOptions::default()).await?)).await
                };
                send("m1", "/call ask {\"question\":\"?\"}").await?;
                world.settle().await?;
                for id in ["m2", "m3", "m4"] {
                    send(id, id).await?;
                }
                let call = world.ask(async |kit| Ok(thread(kit).waiting().await?[0].call.clone())).await?;
                world.ask(async |kit| Ok(thread(kit).approve(&call).await?)).await?;
                world.run_to_rest().await?;
                let which = || CancelQueued::Ids(vec!["m2".into(), "m4".into()]);
                world.ask(async |kit| Ok(thread(kit).cancel_queued(which(), "ann").await?)).await?;
                send("m5", "m5").await?;
                world.run_to_rest().await?;
                world.ask(async |kit| Ok(history(&thread(kit)).await?)).await
            })
            .await?;
        assert_eq!(survived.value[2..], ["user m3", "user m5", "demo m3\nm5"], "{survived:?}");
    }
}

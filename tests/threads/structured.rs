//! Answers of a form that was asked for.

use std::sync::Arc;

use aldis::agent::model::{Deltas, Model, ModelError, Models, Reply, Request};
use aldis::agent::{Agent, StructuredOutput, TurnOptions};
use aldis::intake::SendOptions;
use aldis::message::{Body, NewSignal};
use aldis::runtime::{Sent, ThreadHandle};
use aldis::store::Window;
use aldis::testing::Error;
use aldis::workflows::turn::Turned;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::common::{Puppet, agents, chunks, history, message, said, stream, thread, told};
use crate::crashes::crash;
use crate::support::kit;

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Verdict {
    ok: bool,
    score: u8,
}

async fn ask(thread: &ThreadHandle, text: &str, output: StructuredOutput) -> Result<Sent, Error> {
    let turn = TurnOptions { structured_output: Some(output), ..TurnOptions::default() };
    let options = SendOptions { turn: ThreadHandle::turn(&turn)?, ..SendOptions::default() };
    Ok(thread.send_with(NewSignal::user(text), options).await?)
}

/// The objects that the history holds.
async fn objects(thread: &ThreadHandle) -> Result<Vec<Value>, Error> {
    let messages = thread.history(Window::latest(i64::MAX, 100)).await?;
    let replies = messages.into_iter().filter_map(|it| match it.body {
        Body::Assistant(reply) => reply.object().cloned(),
        _ => None,
    });
    Ok(replies.collect())
}

each_store! {
    // H4.5
    async fn an_answer_of_the_right_form_is_shown_kept_and_given_as_a_value(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let sent = ask(&thread, "/say {\"ok\":true,\"score\":7}", StructuredOutput::of::<Verdict>()).await?;
        kit.run_to_rest().await?;
        let stream = stream(&kit, &thread).await?;
        let [.., step, result, finish] = &stream[..] else { panic!("{stream:?}") };
        assert_eq!((step["type"].as_str(), finish["type"].as_str()), (Some("step-finish"), Some("finish")));
        assert_eq!((result["type"].as_str(), &result["object"]), (Some("object-result"), &json!({ "ok": true, "score": 7 })));
        assert!(result.get("payload").is_none());
        let run = kit.find(sent.run.unwrap().as_str()).await?;
        let turned: Turned = run.result().await?;
        assert_eq!(turned.object::<Verdict>().unwrap(), Some(Verdict { ok: true, score: 7 }));
        assert_eq!(objects(&thread).await?, [json!({ "ok": true, "score": 7 })]);
        assert_journal!("turn_with_an_object", kit.journal(&run).await?);
        kit.finish().await?;
    }

    async fn an_answer_of_another_form_is_asked_for_again_with_what_is_wrong(kind) {
        let (models, mut strings) = Puppet::models();
        let agent = Agent::new("demo").model("puppet/x").output(StructuredOutput::of::<Verdict>());
        let kit = kit(kind).agent(agent).models(models).start().await?;
        let thread = thread(&kit);
        let sent = thread.send("Well?").await?;
        let answers = ["Yes!", "{\"ok\":\"yes\",\"score\":7}", "```json\n{\"ok\":true,\"score\":7}\n```"];
        let mut prompts = Vec::new();
        for answer in answers {
            let asked = strings.recv().await.unwrap();
            assert_eq!(asked.request.output_schema.as_ref().unwrap()["title"], "Verdict");
            prompts.push(asked.prompt());
            asked.answer(answer);
        }
        kit.run_to_rest().await?;
        assert!(prompts[1].contains("it is not JSON: expected value at line 1 column 1"), "{}", prompts[1]);
        assert!(prompts[2].contains("/ok:") && prompts[2].contains("is not of type"), "{}", prompts[2]);
        let seen = chunks(&kit, &thread).await?;
        assert_eq!(seen.iter().filter(|it| *it == "step-finish \"retry\" true").count(), 2, "{seen:?}");
        assert_eq!(seen.last().unwrap(), "finish \"stop\" false");
        let turned: Turned = kit.find(sent.run.unwrap().as_str()).await?.result().await?;
        assert_eq!((turned.steps, turned.object::<Verdict>().unwrap()), (3, Some(Verdict { ok: true, score: 7 })));
        // What was said stays, each answer in a message of its own, and what the model was told between them.
        assert_eq!(history(&thread).await?.len(), 6);
        assert_eq!(objects(&thread).await?.len(), 1);
        kit.finish().await?;
    }

    async fn a_model_that_never_fits_fails_the_turn_in_words(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let sent = ask(&thread, "Well?", StructuredOutput::of::<Verdict>().answers_max(2)).await?;
        thread.queue("Next").await?;
        kit.run_to_rest().await?;
        let run = kit.find(sent.run.unwrap().as_str()).await?;
        assert_eq!(run.row().await?.status.word(), "failed");
        let seen = chunks(&kit, &thread).await?;
        let error = seen.iter().find(|it| it.starts_with("error")).unwrap();
        assert!(error.contains("after 2 of 2 answers: it is not JSON"), "{error}");
        assert!(!seen.iter().any(|it| it.starts_with("object-result")));
        // It costs nobody else anything.
        assert_eq!(history(&thread).await?.last().unwrap(), "demo Next");
        kit.finish().await?;
    }

    // T10.7
    async fn the_step_limit_holds_for_answers_of_another_form(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let options = json!({ "maxSteps": 1, "structuredOutput": { "schema": { "type": "object" } } });
        thread.send_with(NewSignal::user("Well?"), SendOptions { turn: options, ..SendOptions::default() }).await?;
        kit.run_to_rest().await?;
        let seen = chunks(&kit, &thread).await?;
        assert!(seen.last().unwrap().contains("after 1 of 3 answers, and the turn has had as many steps as it may"), "{seen:?}");
        assert!(seen.contains(&"step-finish \"stop\" false".to_owned()), "{seen:?}");
        kit.finish().await?;
    }

    async fn tools_are_called_before_the_answer_has_its_form(kind) {
        let (models, mut strings) = Puppet::models();
        let agent = aldis::workflows::demo::agent().model("puppet/x").output(StructuredOutput::of::<Verdict>());
        let kit = kit(kind).agent(agent).models(models).start().await?;
        let thread = thread(&kit);
        thread.send("Well?").await?;
        strings.recv().await.unwrap().call("add", json!({ "a": 1, "b": 2 }));
        strings.recv().await.unwrap().answer("{\"ok\":true,\"score\":3}");
        kit.run_to_rest().await?;
        assert_eq!(objects(&thread).await?, [json!({ "ok": true, "score": 3 })]);
        assert!(!chunks(&kit, &thread).await?.iter().any(|it| it.contains("retry")));
        kit.finish().await?;
    }

    async fn what_is_no_schema_is_refused_at_the_door(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let refused = ask(&thread, "Well?", StructuredOutput::schema(json!({ "type": 7 }))).await.unwrap_err();
        assert!(refused.to_string().contains("structuredOutput.schema is no JSON Schema at /type"), "{refused}");
        assert_eq!(thread.find().await?, None);
        kit.finish().await?;
    }

    async fn an_answer_that_is_asked_for_again_survives_every_crash(kind) {
        let survived = crash(kind, |kind, _| {
            let agent = Agent::new("demo").model("corrigible/x").output(StructuredOutput::of::<Verdict>());
            kit(kind).agent(agent).models(Models::new().with(Arc::new(Corrigible)))
        });
        let survived = survived
            .survives(async |world| {
                world.ask(async |kit| Ok(thread(kit).send_with(message("m1", "Well?"), SendOptions::default()).await?)).await?;
                world.run_to_rest().await?;
                world
                    .ask(async |kit| {
                        let thread = thread(kit);
                        Ok((history(&thread).await?, objects(&thread).await?, told(&stream(kit, &thread).await?)))
                    })
                    .await
            })
            .await?;
        let (lines, objects, told) = survived.value;
        assert_eq!((lines.len(), objects.len()), (4, 1), "{lines:?}");
        assert_eq!(told.iter().filter(|it| *it == "object-result").count(), 1, "{told:?}");
        assert!(survived.struck > 0);
    }
}

/// A model that answers in the right form once it is told of it.
struct Corrigible;

impl Model for Corrigible {
    fn name(&self) -> &str {
        "corrigible"
    }

    fn ask<'a>(&'a self, request: &'a Request, _: &'a Deltas) -> BoxFuture<'a, Result<Reply, ModelError>> {
        let told = serde_json::to_string(&request.messages).expect("a prompt").contains("does not fit");
        let text = if told { "{\"ok\":true,\"score\":1}" } else { "Yes!" };
        Box::pin(async move { Ok(said(request, text)) })
    }
}

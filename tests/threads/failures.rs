//! Models that fail: again and again until they answer, or for good; and steps that begin while nobody watches.

use aldis::agent::Agent;
use aldis::agent::model::ModelError;
use aldis::runtime::{Since, Subscription};
use aldis::testing::Error;
use serde_json::Value;

use crate::common::{Puppet, echoes, history, stream, thread, told};
use crate::support::kit;

fn cut() -> ModelError {
    ModelError::Cut { model: "puppet/x".into(), cause: "the line went dead".into() }
}

fn refused() -> ModelError {
    ModelError::Refused { model: "puppet/x".into(), status: 400, cause: "no".into() }
}

/// Until this much of a text is seen; what was seen on the way.
async fn seen_text(subscription: &mut Subscription, text: &str) -> Result<Vec<Value>, Error> {
    let mut seen = Vec::new();
    loop {
        let chunk = subscription.next().await?.chunk;
        seen.push((*chunk).clone());
        if chunk["payload"]["text"] == text {
            return Ok(seen);
        }
    }
}

each_store! {
    // T11.11
    async fn a_step_that_failed_after_some_text_is_shown_as_begun_again(kind) {
        let (models, mut strings) = Puppet::models();
        let kit = kit(kind).agent(Agent::new("demo").model("puppet/x")).models(models).start().await?;
        let thread = thread(&kit);
        let mut subscription = thread.subscribe(Since::Cursor(0));
        thread.send("Hello").await?;
        let pulls = async {
            for text in ["Good", "Good mor"] {
                let asked = strings.recv().await.unwrap();
                asked.say(text);
                seen_text(&mut subscription, text).await?;
                asked.fail(cut());
            }
            strings.recv().await.unwrap().answer("Good morning");
            Ok::<_, Error>(())
        };
        let (rested, pulled) = tokio::join!(kit.run_to_rest(), pulls);
        rested?;
        pulled?;
        assert_eq!(history(&thread).await?, ["user Hello", "demo Good morning"]);
        let chunks = stream(&kit, &thread).await?;
        echoes(&chunks);
        let starts: Vec<_> = chunks.iter().filter(|it| it["type"] == "step-start").collect();
        assert_eq!(starts.len(), 3);
        for start in &starts {
            assert_eq!(start["payload"]["stepNumber"], 1);
            assert_eq!(start["payload"]["messageId"], starts[0]["payload"]["messageId"]);
        }
        assert_eq!(starts.iter().map(|it| it["payload"]["restarted"] == true).collect::<Vec<_>>(), [false, true, true]);
        assert_eq!(told(&chunks), [
            "start", "data-user-message Hello", "step-start 1", "text-start", "text-delta Good morning", "text-end",
            "step-finish \"stop\" false", "finish \"stop\" false",
        ]);
        kit.finish().await?;
    }

    // T9.8, T10.9
    async fn a_model_that_fails_for_good_ends_its_run_and_the_queue_goes_on(kind) {
        let (models, mut strings) = Puppet::models();
        let kit = kit(kind).agent(Agent::new("demo").model("puppet/x")).models(models).start().await?;
        let thread = thread(&kit);
        let sent = thread.send("one").await?;
        let asked = strings.recv().await.unwrap();
        thread.queue("three").await?;
        thread.send("two").await?;
        asked.fail(refused());
        // What was pending is answered first, then what was queued.
        for text in ["two", "three"] {
            let asked = strings.recv().await.unwrap();
            assert!(asked.prompt().contains(text), "{}", asked.prompt());
            asked.answer(&format!("answer to {text}"));
        }
        kit.run_to_rest().await?;
        assert_eq!(
            history(&thread).await?,
            ["user one", "user two", "demo answer to two", "user three", "demo answer to three"]
        );
        let chunks = stream(&kit, &thread).await?;
        assert!(echoes(&chunks).values().all(|times| *times == 1));
        assert_eq!(
            told(&chunks)[..4],
            ["start", "data-user-message one", "step-start 1", "error \"step \\\"model\\\" failed after 1 attempt: the provider of model puppet/x refused the request (status 400): no\""]
        );
        assert_eq!(kit.find(sent.run.unwrap().as_str()).await?.row().await?.status.word(), "failed");
        kit.finish().await?;
    }

    // T12.3: a model that goes on talking while it is cut.
    async fn what_is_stored_of_an_answer_that_was_cut_is_what_was_seen_of_it(kind) {
        let (models, mut strings) = Puppet::models();
        let kit = kit(kind).agent(Agent::new("demo").model("puppet/x")).models(models).start().await?;
        for round in 0..15 {
            let thread = kit.agent("demo").thread(&format!("t-{round}"), "ann")?;
            let mut subscription = thread.subscribe(Since::Cursor(0));
            let sent = thread.send("Hello").await?;
            let asked = strings.recv().await.unwrap();
            asked.say("0 ");
            seen_text(&mut subscription, "0 ").await?;
            let talks = async {
                let mut n = 1;
                while asked.says(&format!("{n} ")) {
                    n += 1;
                    tokio::task::yield_now().await;
                }
            };
            let abort = async {
                for _ in 0..round {
                    subscription.next().await?;
                }
                thread.abort("ann", sent.run.as_ref()).await?;
                kit.find(sent.run.as_ref().unwrap().as_str()).await?.settled().await?;
                Ok::<_, Error>(())
            };
            let (_, aborted) = tokio::join!(talks, abort);
            aborted?;
            let stream = stream(&kit, &thread).await?;
            let seen: String = stream.iter().filter_map(|it| it["payload"]["text"].as_str()).collect();
            assert_eq!(history(&thread).await?[1], format!("demo {seen} (aborted)"));
            assert_eq!(stream.last().unwrap()["type"], "abort");
        }
        kit.finish().await?;
    }

    // T12.3: an abort in the middle of a text.
    async fn what_was_said_before_an_abort_is_kept_once(kind) {
        let (models, mut strings) = Puppet::models();
        let kit = kit(kind).agent(Agent::new("demo").model("puppet/x")).models(models).start().await?;
        let thread = thread(&kit);
        let mut subscription = thread.subscribe(Since::Cursor(0));
        let sent = thread.send("Hello").await?;
        let asked = strings.recv().await.unwrap();
        asked.say("Good mor");
        seen_text(&mut subscription, "Good mor").await?;
        assert!(thread.abort("ann", sent.run.as_ref()).await?);
        kit.settle().await?;
        assert_eq!(history(&thread).await?, ["user Hello", "demo Good mor (aborted)"]);
        let chunks = stream(&kit, &thread).await?;
        echoes(&chunks);
        assert_eq!(told(&chunks).last().unwrap(), "abort");
        kit.finish().await?;
    }
}

//! Other agents and workflows as tools.

use aldis::agent::{Agent, DELEGATIONS_MAX};
use aldis::runtime::Answer;
use aldis::store::{Kind, Page};
use aldis::testing::Setup;
use aldis::{Context, Failure, Workflow};
use serde_json::json;

use crate::common::{agents, chunks, history};
use crate::support::secs;

async fn double(cx: Context, n: i64) -> Result<i64, Failure> {
    cx.sleep(secs(60)).await?;
    n.checked_mul(2).filter(|it| *it < 100).ok_or_else(|| Failure::new("that is too much"))
}

/// A boss who may ask the demonstration agent and itself, and have numbers doubled.
fn boss(kind: Kind) -> Setup {
    let double = Workflow::new("double", double);
    let boss = Agent::new("boss")
        .delegate("demo", "Does as it is told.")
        .delegate("boss", "Asks itself.")
        .workflow_tool(double.clone(), "Doubles a number.");
    agents(kind).agent(boss).workflow(double)
}

each_store! {
    async fn another_agent_answers_on_a_thread_of_its_own(kind) {
        let kit = boss(kind).start().await?;
        let thread = kit.agent("boss").thread("t", "ann")?;
        thread.send("/call ask_demo {\"message\":\"Hello\"}\n/call ask_demo {\"message\":\"Bye\"}").await?;
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert!(lines[1].contains(r#"{"message":"Hello"}: "Hello"]"#), "{lines:?}");
        assert!(lines[1].contains(r#"{"message":"Bye"}: "Bye"]"#), "{lines:?}");
        let threads = kit.threads(Some("ann"), Page::first(10)).await?.items;
        assert_eq!(threads.len(), 3);
        assert!(threads.iter().all(|it| it.current.is_none()), "{threads:?}");
        kit.finish().await?;
    }

    // T20.7
    async fn after_a_crash_the_call_finds_the_same_message_and_waits_on(kind) {
        let mut kit = boss(kind).start().await?;
        let said = "/call ask_demo {\"message\":\"/call ask {\\\"question\\\":\\\"?\\\"}\"}\n/call double {\"input\":4}";
        kit.agent("boss").thread("t", "ann")?.send(said).await?;
        kit.settle().await?;
        for _ in 0..2 {
            kit = kit.crash().await?;
            kit.settle().await?;
        }
        let calls = kit.waiting_calls(10).await?;
        assert_eq!(calls.len(), 1, "{calls:?}");
        let threads = kit.threads(Some("ann"), Page::first(10)).await?.items;
        let theirs = threads.iter().find(|it| it.key == calls[0].thread).unwrap();
        let theirs = kit.agent("demo").thread(theirs.id.as_str(), "ann")?;
        let answer = Answer { approved: true, reason: None, resume: Some(json!("seven")) };
        theirs.answer(&calls[0].call, answer).await?;
        kit.run_to_rest().await?;
        let thread = kit.agent("boss").thread("t", "ann")?;
        let lines = history(&thread).await?;
        assert!(lines[1].contains("seven") && lines[1].contains(r#"[double {"input":4}: 8]"#), "{lines:?}");
        assert_eq!(history(&theirs).await?.len(), 2);
        let runs = kit.list(&aldis::store::Filter::default(), 10).await?;
        assert_eq!(runs.len(), 3, "{runs:?}");
        kit.finish().await?;
    }

    // T12.1
    async fn who_stops_asking_stops_what_was_begun_for_it(kind) {
        let kit = boss(kind).start().await?;
        let thread = kit.agent("boss").thread("t", "ann")?;
        let said = "/call ask_demo {\"message\":\"/call ask {\\\"question\\\":\\\"?\\\"}\"}\n/call double {\"input\":4}";
        thread.send(said).await?;
        kit.settle().await?;
        assert!(thread.abort("ann", None).await?);
        for _ in 0..500 {
            kit.settle().await?;
            let runs = kit.list(&aldis::store::Filter::default(), 10).await?;
            if runs.iter().all(|it| !it.status.is_open()) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let runs = kit.list(&aldis::store::Filter::default(), 10).await?;
        let mut ends: Vec<(String, &str)> = runs.iter().map(|it| (it.workflow.clone(), it.status.word())).collect();
        ends.sort();
        let expected = [("double", "cancelled"), ("turn:boss", "completed"), ("turn:demo", "completed")];
        assert_eq!(ends, expected.map(|(workflow, end)| (workflow.to_owned(), end)));
        assert_eq!(kit.waiting_calls(10).await?, []);
        kit.finish().await?;
    }

    async fn what_a_workflow_or_an_agent_fails_with_is_news_for_the_model(kind) {
        let kit = boss(kind).agent(Agent::new("lost").delegate("nobody", "Is not here.")).start().await?;
        let thread = kit.agent("boss").thread("t", "ann")?;
        thread.send("/call double {\"input\":70}").await?;
        kit.run_to_rest().await?;
        assert!(history(&thread).await?[1].contains("that is too much"));
        assert_eq!(chunks(&kit, &thread).await?.last().unwrap(), "finish \"stop\" false");
        let thread = kit.agent("lost").thread("u", "ann")?;
        thread.send("/call ask_nobody {\"message\":\"Hello\"}").await?;
        kit.run_to_rest().await?;
        assert!(history(&thread).await?[1].contains("Agent with id nobody not found"));
        kit.finish().await?;
    }

    async fn agents_do_not_ask_each_other_for_ever(kind) {
        let kit = boss(kind).start().await?;
        let thread = kit.agent("boss").thread("t", "ann")?;
        let mut said = "Hello".to_owned();
        for _ in 0..=DELEGATIONS_MAX {
            said = format!("/call ask_boss {}", json!({ "message": said }));
        }
        thread.send(said.as_str()).await?;
        kit.run_to_rest().await?;
        assert_eq!(kit.threads(None, Page::first(100)).await?.items.len(), DELEGATIONS_MAX + 1);
        assert!(history(&thread).await?[1].contains("agents have asked each other already"));
        kit.finish().await?;
    }
}

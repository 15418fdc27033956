//! Tools: calls, failures, approvals, questions, aborts.

use aldis::runtime::Answer;
use serde_json::json;

use crate::common::{agents, chunks, history, thread};
use crate::support::secs;

each_store! {
    async fn a_tool_that_is_called_is_answered_with_its_result(kind) {
        // One at a time: the picture shows in which order they ended.
        let kit = agents(kind).agent(aldis::workflows::demo::agent().calls_at_once(1)).start().await?;
        let thread = thread(&kit);
        let sent = thread.send("/call add {\"a\":1,\"b\":2}\n/call add {\"a\":3,\"b\":4}").await?;
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert!(lines[1].starts_with(r#"demo [add {"a":1,"b":2}: 3] [add {"a":3,"b":4}: 7]"#), "{lines:?}");
        let seen = chunks(&kit, &thread).await?;
        let at = |what: &str| seen.iter().position(|it| it == what).unwrap_or_else(|| panic!("{what}: {seen:?}"));
        // T13.1a: results come together, in the model's order, before the step ends.
        assert!(at("tool-result add 3") < at("tool-result add 7"));
        assert!(at("tool-result add 7") < at("step-finish \"tool-calls\" true"));
        assert!(at("step-finish \"tool-calls\" true") < at("step-start 2"));
        let run = kit.find(sent.run.unwrap().as_str()).await?;
        assert_journal!("turn_with_two_calls", kit.journal(&run).await?);
        kit.finish().await?;
    }

    async fn a_call_that_cannot_run_is_news_for_the_model(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        thread.send("/call fly {}\n/call add {\"a\":\"one\"}").await?;
        kit.run_to_rest().await?;
        let seen = chunks(&kit, &thread).await?;
        let errors: Vec<_> = seen.iter().filter(|it| it.starts_with("tool-error")).collect();
        assert_eq!(errors.len(), 2, "{seen:?}");
        assert!(errors[0].contains("there is no tool \\\"fly\\\"; there are: add, refund, ask"), "{errors:?}");
        assert!(errors[1].contains("do not fit"), "{errors:?}");
        assert_eq!(seen.last().unwrap(), "finish \"stop\" false");
        kit.finish().await?;
    }

    // T13.1 to T13.5
    async fn a_call_that_needs_approval_waits_for_it(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let sent = thread.send("/call refund {\"order\":\"A-1\",\"cents\":100}").await?;
        kit.settle().await?;
        let waiting = thread.waiting().await?;
        assert_eq!(waiting.len(), 1);
        assert_eq!((waiting[0].tool.as_str(), waiting[0].run_id.clone()), ("refund", sent.run.clone().unwrap()));
        assert_eq!(chunks(&kit, &thread).await?.last().unwrap(), "tool-call-approval refund");
        // T13.13: who writes instead is answered later.
        thread.send("Well?").await?;
        kit.settle().await?;
        assert_eq!(thread.waiting().await?.len(), 1);
        let call = waiting[0].call.clone();
        assert_eq!(thread.approve(&call).await?, sent.run.clone().unwrap());
        kit.run_to_rest().await?;
        // T13.10
        assert_eq!(thread.approve(&call).await?, sent.run.clone().unwrap());
        assert_eq!(thread.decline(&call, None).await.unwrap_err().code(), "call_answered_otherwise");
        let lines = history(&thread).await?;
        assert!(lines[1].contains(r#""order":"A-1","cents":100"#), "{lines:?}");
        assert_eq!(lines[2], "user Well?");
        let run = kit.find(sent.run.unwrap().as_str()).await?;
        // The payment's key is another in every run, and stands in the last prompt.
        let journal = kit.journal(&run).await?;
        let digest = journal.rsplit("offline-").next().unwrap()[..16].to_owned();
        assert_journal!("turn_with_an_approval", journal.replace(&digest, "<digest>"));
        kit.finish().await?;
    }

    // T13.6
    async fn a_call_that_is_declined_is_not_made(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        thread.send("/call refund {\"order\":\"A-1\",\"cents\":100}").await?;
        kit.settle().await?;
        let call = thread.waiting().await?[0].call.clone();
        thread.decline(&call, Some("too much".into())).await?;
        kit.run_to_rest().await?;
        assert!(chunks(&kit, &thread).await?.contains(&"tool-output-denied refund \"too much\"".to_owned()));
        assert!(history(&thread).await?[1].contains("denied Some(\"too much\")"));
        kit.finish().await?;
    }

    // T13.12
    async fn a_call_that_nobody_answers_in_time_counts_as_declined(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let begin = kit.now();
        thread.send("/call refund {\"order\":\"A-1\",\"cents\":100}").await?;
        kit.run_to_rest().await?;
        assert_eq!(kit.now().since(begin), secs(24 * 3_600));
        assert!(chunks(&kit, &thread).await?.contains(&"tool-output-denied refund \"expired\"".to_owned()));
        assert_eq!(thread.waiting().await?, []);
        kit.finish().await?;
    }

    // T13.7
    async fn a_tool_that_asks_a_person_goes_on_with_the_answer(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        thread.send("/call ask {\"question\":\"How many?\"}\n/call add {\"a\":1,\"b\":1}").await?;
        kit.settle().await?;
        let waiting = thread.waiting().await?;
        assert_eq!(waiting[0].tool, "ask");
        let answer = Answer { approved: true, reason: None, resume: Some(json!({ "number": 7 })) };
        thread.answer(&waiting[0].call, answer).await?;
        kit.run_to_rest().await?;
        assert!(history(&thread).await?[1].contains(r#"{"number":7}"#));
        kit.finish().await?;
    }

    // T12.1, T12.4, T12.6
    async fn an_abort_ends_a_suspended_turn_and_what_waits_goes_on(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        assert!(!thread.abort("ann", None).await?);
        let sent = thread.send("/call refund {\"order\":\"A-1\",\"cents\":100}").await?;
        kit.settle().await?;
        thread.send("never mind").await?;
        let other = aldis::id::RunId::generate();
        assert!(!thread.abort("ann", Some(&other)).await?);
        assert!(thread.abort("ann", sent.run.as_ref()).await?);
        assert!(!thread.abort("ann", sent.run.as_ref()).await?);
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert!(lines[1].ends_with("open] (aborted)"), "{lines:?}");
        assert_eq!(lines[2], "user never mind");
        assert!(lines[3].starts_with("demo "), "{lines:?}");
        assert_eq!(thread.waiting().await?, []);
        assert!(chunks(&kit, &thread).await?.contains(&"abort".to_owned()));
        kit.finish().await?;
    }

    // T10.7, T10.10
    async fn a_message_that_comes_at_the_step_limit_begins_another_turn(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let options = aldis::intake::SendOptions { turn: json!({ "maxSteps": 1 }), ..Default::default() };
        let sent = thread.send_with(aldis::message::NewSignal::user("/call ask {\"question\":\"?\"}"), options).await?;
        kit.settle().await?;
        thread.send("meanwhile").await?;
        let call = thread.waiting().await?[0].call.clone();
        thread.approve(&call).await?;
        kit.run_to_rest().await?;
        let run = kit.find(sent.run.unwrap().as_str()).await?;
        assert_eq!(run.history().await?.pending.len(), 0);
        let lines = history(&thread).await?;
        assert_eq!(lines[2], "user meanwhile");
        assert!(lines[3].contains("meanwhile"), "{lines:?}");
        kit.finish().await?;
    }
}

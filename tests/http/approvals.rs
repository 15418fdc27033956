//! Calls that wait for somebody, and tools of the client (section 8).

use serde_json::{Value, json};

use crate::served::{Served, post, types};

const REFUND: &str = "/call refund {\"order\":\"A-1\",\"cents\":100}";

async fn waiting_call(served: &Served) -> String {
    let mut events = served.subscribe(None).await;
    let seen = events.until("tool-call-approval").await;
    seen.last().unwrap()["payload"]["toolCallId"].as_str().unwrap().to_owned()
}

each_store! {
    // H8.1, T13.10
    async fn an_approval_is_acknowledged_and_its_chunks_come_by_the_subscription(kind) {
        let served = Served::start(kind).await?;
        let sent = served.say(REFUND).await?;
        let call = waiting_call(&served).await;
        let mut events = served.subscribe(None).await;
        events.until("tool-call-approval").await;
        let approval = json!({ "threadId": "t", "resourceId": "ann", "toolCallId": call, "approved": true });
        let path = "/api/agents/demo/send-tool-approval";
        let done = served.post(path, approval.clone()).await.ok();
        assert_eq!(done, json!({ "accepted": true, "runId": sent["runId"], "toolCallId": call }));
        served.kit.run_to_rest().await?;
        let seen = events.until("finish").await;
        assert_eq!(types(&seen)[0], "tool-result");
        assert_eq!(served.post(path, approval).await.ok(), done);
        let other = json!({ "threadId": "t", "resourceId": "ann", "toolCallId": call, "approved": false });
        assert_eq!(served.post(path, other).await.refused().0, 409);
        let nobodys = json!({ "threadId": "t", "resourceId": "ann", "toolCallId": "c9", "approved": true });
        let (status, code, _) = served.post(path, nobodys).await.refused();
        assert_eq!((status, code.as_str()), (404, "call_not_waiting"));
        served.finish().await?;
    }

    // H8.3: the continuation, without `start`; a repeat is told the same.
    async fn an_approval_by_its_run_streams_what_follows(kind) {
        let served = Served::start(kind).await?;
        let sent = served.say(REFUND).await?;
        let call = waiting_call(&served).await;
        let body = json!({ "runId": sent["runId"], "toolCallId": call }).to_string();
        let mut events = served.stream(post("/api/agents/demo/approve-tool-call", &body)).await;
        served.kit.run_to_rest().await?;
        let seen = events.until("finish").await;
        assert_eq!(types(&seen)[0], "tool-result");
        assert_eq!(events.block().await.unwrap(), "data: [DONE]");
        assert_eq!(events.block().await, None);
        let mut again = served.stream(post("/api/agents/demo/approve-tool-call", &body)).await;
        assert_eq!(again.until("finish").await, seen);
        served.finish().await?;
    }

    async fn a_decline_by_its_run_says_why(kind) {
        let served = Served::start(kind).await?;
        let sent = served.say(REFUND).await?;
        let call = waiting_call(&served).await;
        let body = json!({ "runId": sent["runId"], "toolCallId": call, "reason": "too much" }).to_string();
        let mut events = served.stream(post("/api/agents/demo/decline-tool-call", &body)).await;
        served.kit.run_to_rest().await?;
        let seen = events.until("finish").await;
        assert_eq!((&seen[0]["type"], &seen[0]["payload"]["approval"]["reason"]), (&json!("tool-output-denied"), &json!("too much")));
        let nobodys = json!({ "runId": "no-such-run", "toolCallId": call });
        assert_eq!(served.post("/api/agents/demo/approve-tool-call", nobodys).await.refused().0, 404);
        served.finish().await?;
    }

    // Of two calls that wait, the first answer leaves the run waiting: its stream ends.
    async fn the_stream_of_an_approval_ends_where_the_run_waits_again(kind) {
        let served = Served::start(kind).await?;
        let sent = served.say(&format!("{REFUND}\n/call refund {{\"order\":\"B-2\",\"cents\":5}}")).await?;
        let call = waiting_call(&served).await;
        let body = json!({ "runId": sent["runId"], "toolCallId": call }).to_string();
        let mut events = served.stream(post("/api/agents/demo/approve-tool-call", &body)).await;
        served.kit.settle().await?;
        let mut seen = Vec::new();
        while let Some(chunk) = events.chunk().await {
            seen.push(chunk);
        }
        assert!(seen.iter().all(|chunk| chunk["type"] == "tool-call-approval"), "{seen:?}");
        served.finish().await?;
    }

    // H8.2, T13.14
    async fn what_the_clients_own_tool_came_to_begins_a_run(kind) {
        let served = Served::start(kind).await?;
        let tools = json!({ "look": { "description": "Looks.", "inputSchema": { "type": "object" } } });
        served.post("/api/agents/demo/send-message", json!({
            "message": "/call look {\"at\":\"sky\"}", "resourceId": "ann", "threadId": "t",
            "ifIdle": { "streamOptions": { "clientTools": tools } },
        })).await.ok();
        served.kit.run_to_rest().await?;
        let mut events = served.subscribe(Some("0")).await;
        let seen = events.until("finish").await;
        let finish = seen.last().unwrap();
        // H7.4
        assert_eq!(finish["payload"]["stepResult"]["reason"], "tool-calls");
        let call: &Value = &seen.iter().find(|it| it["type"] == "tool-call").unwrap()["payload"];
        let continued = served.post("/api/agents/demo/send-tool-approval", json!({
            "resourceId": "ann", "threadId": "t", "toolCallId": call["toolCallId"], "approved": true,
            "messages": [{ "role": "assistant", "content": [
                { "type": "tool-call", "toolCallId": call["toolCallId"], "toolName": "look", "input": call["args"] },
                { "type": "tool-result", "toolCallId": call["toolCallId"], "toolName": "look",
                  "output": { "type": "json", "value": { "colour": "blue" } } },
            ] }],
        })).await.ok();
        assert_ne!(continued["runId"], finish["runId"]);
        served.kit.run_to_rest().await?;
        let seen = events.until("finish").await;
        assert!(seen.iter().all(|chunk| chunk["runId"] == continued["runId"]), "{seen:?}");
        assert_eq!(seen.last().unwrap()["payload"]["stepResult"]["reason"], "stop");
        served.finish().await?;
    }

    // H8.4
    async fn runs_that_wait_are_listed_with_their_calls(kind) {
        let served = Served::start(kind).await?;
        let sent = served.say(REFUND).await?;
        let call = waiting_call(&served).await;
        let path = "/api/agents/demo/suspended-runs";
        let listed = served.get(&format!("{path}?threadId=t&resourceId=ann")).await.ok();
        let run = &listed["runs"][0];
        assert_eq!((&listed["total"], &run["runId"], &run["threadId"]), (&json!(1), &sent["runId"], &json!("t")));
        assert_eq!(run["toolCalls"], json!([{
            "toolCallId": call, "toolName": "refund", "args": { "order": "A-1", "cents": 100 }, "requiresApproval": true,
        }]));
        assert_eq!(served.get(&format!("{path}?resourceId=bob")).await.ok()["total"], 0);
        assert_eq!(served.get(&format!("{path}?fromDate=2099-01-01T00:00:00Z")).await.ok()["total"], 0);
        for foreign in ["threadId=t&resourceId=bob", "threadId=none"] {
            assert_eq!(served.get(&format!("{path}?{foreign}")).await.refused().0, 403);
        }
        let wrong = format!("{path}?fromDate=2026-01-02T00:00:00Z&toDate=2026-01-01T00:00:00Z");
        assert_eq!(served.get(&wrong).await.json()["issues"][0]["field"], "fromDate");
        served.finish().await?;
    }
}

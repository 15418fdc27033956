//! Messages and signals, sent and taken back (section 6, H13.1 to H13.6).

use axum::http::StatusCode;
use serde_json::json;

use crate::served::Served;

each_store! {
    // H6.1 to H6.3, H13.2
    async fn a_message_is_acknowledged_with_the_run_that_takes_it(kind) {
        let served = Served::start(kind).await?;
        let sent = served.post("/api/agents/demo/send-message", json!({
            "message": { "contents": "Hi", "attributes": { "name": "Ann" } },
            "resourceId": "ann", "threadId": "t",
            "ifIdle": { "attributes": { "mood": "new" } }, "ifActive": { "attributes": { "mood": "late" } },
        })).await.ok();
        assert_eq!((&sent["accepted"], &sent["action"]), (&json!(true), &json!("wake")));
        let signal = &sent["signal"];
        assert_eq!(signal["attributes"], json!({ "name": "Ann", "mood": "new" }));
        assert_eq!(
            (&signal["type"], &signal["tagName"], &signal["contents"], &signal["__isCreatedSignal"]),
            (&json!("user"), &json!("user"), &json!("Hi"), &json!(true))
        );
        served.kit.run_to_rest().await?;
        let run = served.kit.find(sent["runId"].as_str().unwrap()).await?;
        assert_eq!(run.row().await?.status.word(), "completed");
        served.finish().await?;
    }

    // H13.1, T20.5
    async fn a_repeat_under_the_same_key_gets_the_same_answer(kind) {
        let served = Served::start(kind).await?;
        let body = json!({ "message": "once", "resourceId": "ann", "threadId": "t" });
        let path = "/api/agents/demo/send-message";
        let first = served.post_keyed(path, "k1", body.clone()).await.ok();
        served.kit.run_to_rest().await?;
        let again = served.post_keyed(path, "k1", body).await.ok();
        assert_eq!(again["runId"], first["runId"]);
        assert_eq!(again["signal"]["id"], first["signal"]["id"]);
        let other = json!({ "message": "twice", "resourceId": "ann", "threadId": "t" });
        let (status, code, _) = served.post_keyed(path, "k1", other).await.refused();
        assert_eq!((status, code.as_str()), (409, "signal_conflict"));
        served.kit.run_to_rest().await?;
        let listed = served.get("/api/memory/threads/t/messages").await.ok();
        assert_eq!(listed["total"], 2, "{listed}");
        served.finish().await?;
    }

    // T9.2, H6.1
    async fn a_queued_message_gets_a_run_of_its_own(kind) {
        let served = Served::start(kind).await?;
        let first = served.say("/call refund {\"order\":\"A-1\",\"cents\":1}").await?;
        let body = json!({ "message": "next", "resourceId": "ann", "threadId": "t", "queueOwnerId": "page" });
        let queued = served.post("/api/agents/demo/queue-message", body.clone()).await.ok();
        assert_ne!(queued["runId"], first["runId"]);
        // H13.6
        let taken_back = json!({ "threadId": "t", "resourceId": "ann", "queueOwnerId": "page" });
        let cancelled = served.post("/api/agents/demo/threads/cancel-queued", taken_back).await.ok();
        assert_eq!(cancelled["cancelledSignalIds"], json!([queued["signal"]["id"]]));
        let aborted = served.post("/api/agents/demo/threads/abort", json!({ "threadId": "t" })).await.ok();
        assert_eq!(aborted["aborted"], true);
        served.kit.run_to_rest().await?;
        let again = served.post("/api/agents/demo/threads/abort", json!({ "threadId": "t", "resourceId": "ann" }));
        assert_eq!(again.await.ok()["aborted"], false);
        served.finish().await?;
    }

    // T12.4, H13.7
    async fn an_abort_drops_what_waits_if_it_is_asked_to(kind) {
        let served = Served::start(kind).await?;
        served.say("/call refund {\"order\":\"A-1\",\"cents\":1}").await?;
        for path in ["send-message", "queue-message"] {
            let body = json!({ "message": path, "resourceId": "ann", "threadId": "t" });
            served.post(&format!("/api/agents/demo/{path}"), body).await.ok();
        }
        let abort = json!({ "threadId": "t", "clearPendingSignals": true });
        assert_eq!(served.post("/api/agents/demo/threads/abort", abort).await.ok()["aborted"], true);
        served.kit.run_to_rest().await?;
        let listed = served.get("/api/memory/threads/t/messages").await.ok();
        assert_eq!(listed["total"], 2, "{listed}");
        served.finish().await?;
    }

    // T7.5, H4.7, H6.1, H6.4
    async fn a_signal_is_kept_or_dropped_as_it_asks(kind) {
        let served = Served::start(kind).await?;
        let signal = json!({ "id": "s1", "type": "notification", "contents": "note" });
        let kept = served.post("/api/agents/demo/signals", json!({
            "signal": signal, "resourceId": "ann", "threadId": "t", "ifIdle": { "behavior": "persist" },
        })).await.ok();
        assert_eq!((&kept["action"], &kept["runId"]), (&json!("persist"), &json!("s1")));
        let dropped = served.post("/api/agents/demo/signals", json!({
            "signal": { "type": "reactive", "contents": "gone" }, "resourceId": "ann", "threadId": "t",
            "ifIdle": { "behavior": "discard" },
        })).await.ok();
        assert_eq!((&dropped["action"], &dropped["runId"]), (&json!("discard"), &dropped["signal"]["id"]));
        let listed = served.get("/api/memory/threads/t/messages").await.ok();
        assert_eq!((&listed["total"], &listed["messages"][0]["id"]), (&json!(1), &json!("s1")));
        served.finish().await?;
    }

    // H13.4
    async fn a_state_signal_that_says_nothing_new_is_skipped(kind) {
        let served = Served::start(kind).await?;
        let state = json!({
            "state": { "id": "browser", "cacheKey": "k1", "contents": "at the shop" },
            "resourceId": "ann", "threadId": "t", "ifIdle": { "behavior": "persist" },
        });
        let sent = served.post("/api/agents/demo/state-signals", state.clone()).await.ok();
        assert_eq!(sent["signal"]["metadata"]["state"]["version"], 1);
        let again = served.post("/api/agents/demo/state-signals", state).await.ok();
        assert_eq!(again, json!({ "accepted": true, "skipped": true, "reason": "unchanged" }));
        // T14.7
        let thread = served.get("/api/memory/threads/t?resourceId=ann").await.ok();
        assert_eq!(thread["metadata"]["mastra"]["stateSignals"]["browser"]["currentCacheKey"], "k1");
        served.finish().await?;
    }

    // T2.1, T2.2
    async fn a_run_can_be_addressed_by_its_id_while_it_has_the_thread(kind) {
        let served = Served::start(kind).await?;
        let first = served.say("/call refund {\"order\":\"A-1\",\"cents\":1}").await?;
        let joined = served
            .post("/api/agents/demo/send-message", json!({ "message": "Well?", "runId": first["runId"] }))
            .await
            .ok();
        assert_eq!((&joined["runId"], &joined["action"]), (&first["runId"], &json!("deliver")));
        let foreign = json!({ "message": "Well?", "runId": first["runId"], "resourceId": "bob" });
        assert_eq!(served.post("/api/agents/demo/send-message", foreign).await.status, StatusCode::FORBIDDEN);
        let both = json!({ "message": "Well?", "runId": first["runId"], "ifIdle": {} });
        assert_eq!(served.post("/api/agents/demo/send-message", both).await.json()["issues"][0]["field"], "ifIdle");
        served.post("/api/agents/demo/threads/abort", json!({ "threadId": "t" })).await.ok();
        served.kit.run_to_rest().await?;
        // H2.3
        let late = served.post("/api/agents/demo/send-message", json!({ "message": "?", "runId": first["runId"] }));
        let (status, code, says) = late.await.refused();
        assert_eq!((status, code.as_str()), (404, "run_not_active"));
        assert_eq!(says, "No active agent run found for signal target");
        served.finish().await?;
    }

    // H1.8
    async fn a_client_cannot_set_what_is_the_servers_own(kind) {
        let served = Served::start(kind).await?;
        let sent = served.post("/api/agents/demo/send-message", json!({
            "message": "Hi", "resourceId": "ann", "threadId": "t",
            "ifIdle": { "streamOptions": { "requestContext": { "mastra__user": "root", "lang": "de" }, "maxSteps": 2 } },
        })).await.ok();
        served.kit.run_to_rest().await?;
        let run = served.kit.find(sent["runId"].as_str().unwrap()).await?;
        let journal = served.kit.journal(&run).await?;
        assert!(journal.contains("lang") && !journal.contains("mastra__user"), "{journal}");
        served.finish().await?;
    }
}

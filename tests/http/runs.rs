//! Runs over HTTP: Aldis's own routes, and what one run says (H9.7).

use serde_json::json;

use crate::served::{Served, post, types};

each_store! {
    async fn a_run_is_listed_shown_and_read_line_by_line(kind) {
        let served = Served::start(kind).await?;
        let sent = served.say("/call refund {\"order\":\"A-1\",\"cents\":1}").await?;
        let run = sent["runId"].as_str().unwrap();
        let listed = served.get("/api/runs?workflow=turn:demo&status=waiting,due&limit=1").await.ok();
        assert_eq!((&listed["runs"][0]["id"], &listed["before"]), (&sent["runId"], &sent["runId"]));
        assert_eq!(served.get(&format!("/api/runs?before={run}")).await.ok()["runs"], json!([]));
        let shown = served.get(&format!("/api/runs/{run}")).await.ok();
        assert_eq!((&shown["status"], &shown["workflow"]), (&json!("waiting"), &json!("turn:demo")));
        assert!(!shown["waits_for"].as_array().unwrap().is_empty());
        let journal = served.get(&format!("/api/runs/{run}/journal")).await.ok();
        assert_eq!((&journal["events"][0]["seq"], &journal["events"][0]["event"]), (&json!(1), &json!("RunQueued")));
        assert_eq!(served.get("/api/runs/none").await.refused().1, "run_unknown");
        served.finish().await?;
    }

    async fn a_run_is_cancelled_once(kind) {
        let served = Served::start(kind).await?;
        let sent = served.say("/call refund {\"order\":\"A-1\",\"cents\":1}").await?;
        let path = format!("/api/runs/{}/cancel", sent["runId"].as_str().unwrap());
        assert_eq!(served.post(&path, json!({ "reason": "not wanted" })).await.ok()["repeat"], false);
        served.kit.run_to_rest().await?;
        let run = served.kit.find(sent["runId"].as_str().unwrap()).await?;
        assert_eq!(run.row().await?.status.word(), "cancelled");
        assert_eq!(served.post(&path, json!({})).await.ok()["repeat"], true);
        let signal = path.replace("cancel", "signal");
        let late = served.post(&signal, json!({ "name": "abort", "payload": { "by": "ann" } })).await.refused();
        assert_eq!((late.0, late.1.as_str()), (409, "run_closed"));
        served.finish().await?;
    }

    // H9.7
    async fn a_run_can_be_observed_from_an_offset_and_after_its_end(kind) {
        let served = Served::start(kind).await?;
        let sent = served.say("Hello").await?;
        served.say("Another").await?;
        let observe = |offset: u32| {
            let body = json!({ "runId": sent["runId"], "offset": offset });
            served.stream(post("/api/agents/demo/observe", &body.to_string()))
        };
        let all = observe(0).await.until("finish").await;
        assert_eq!(types(&all)[0], "start");
        assert!(all.iter().all(|chunk| chunk["runId"] == sent["runId"]), "{all:?}");
        let mut rest = observe(3).await;
        assert_eq!(rest.until("finish").await, all[3..]);
        assert_eq!(rest.block().await.unwrap(), "data: [DONE]");
        assert_eq!(rest.block().await, None);
        assert_eq!(served.post("/api/agents/demo/observe", json!({ "runId": "none" })).await.refused().0, 404);
        served.finish().await?;
    }
}

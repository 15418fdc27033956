//! Streams: framing, cursors, what ends them (sections 3, 4 and 7).

use std::time::Duration;

use aldis::http::Options;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::json;

use crate::served::{Served, types};

each_store! {
    // H3.1 to H3.4, H4.2, H13.3
    async fn a_subscriber_sees_a_run_framed_for_the_stock_client(kind) {
        let served = Served::start(kind).await?;
        let mut events = served.subscribe(None).await;
        let header = |name: &str| events.headers[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "text/event-stream");
        assert_eq!(header("cache-control"), "no-cache");
        assert_eq!(header("x-accel-buffering"), "no");
        assert_eq!(header("connection"), "keep-alive");
        assert_eq!(events.block().await.unwrap(), ": connected");
        let sent = served.say("Hello").await?;
        let seen = events.until("finish").await;
        assert_eq!(types(&seen), [
            "start", "data-user-message", "step-start", "text-start", "text-delta", "text-end", "step-finish", "finish",
        ]);
        assert!(seen.iter().all(|chunk| chunk["runId"] == sent["runId"]), "{seen:?}");
        let cursors: Vec<i64> = seen.iter().map(|it| it["cursor"].as_str().unwrap().parse().unwrap()).collect();
        assert!(cursors.is_sorted(), "{cursors:?}");
        served.finish().await?;
    }

    // T11.10, H13.3
    async fn a_cursor_goes_on_without_a_gap_or_a_repeat(kind) {
        let served = Served::start(kind).await?;
        let mut events = served.subscribe(None).await;
        served.say("Hello").await?;
        let seen = events.until("finish").await;
        drop(events);
        served.say("Again").await?;
        let mut all = served.subscribe(Some("0")).await;
        let (first, second) = (all.until("finish").await, all.until("finish").await);
        assert_eq!(first, seen);
        let from = seen[3]["cursor"].as_str().unwrap();
        let mut rest = served.subscribe(Some(from)).await;
        assert_eq!(rest.until("finish").await, seen[4..]);
        assert_eq!(rest.until("finish").await, second);
        served.finish().await?;
    }

    // T11.3: a run that waits is shown from its first chunk, one that has ended is not.
    async fn without_a_cursor_it_begins_with_the_current_run(kind) {
        let served = Served::start(kind).await?;
        served.say("before").await?;
        let waiting = served.say("/call refund {\"order\":\"A-1\",\"cents\":1}").await?;
        let mut events = served.subscribe(None).await;
        let seen = events.until("tool-call-approval").await;
        assert_eq!(seen[0]["type"], "start");
        assert!(seen.iter().all(|chunk| chunk["runId"] == waiting["runId"]), "{seen:?}");
        served.finish().await?;
    }

    async fn an_event_source_comes_back_with_the_last_id_that_it_saw(kind) {
        let served = Served::start(kind).await?;
        served.say("Hello").await?;
        let path = "/api/agents/demo/threads/subscribe?threadId=t&resourceId=ann&after=0";
        let mut events = served.stream(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(events.block().await.unwrap(), ": connected");
        let first = events.block().await.unwrap();
        let id = first.lines().next().unwrap().strip_prefix("id: ").unwrap().to_owned();
        assert!(first.lines().nth(1).unwrap().contains(&format!(r#""cursor":"{id}""#)), "{first}");
        drop(events);
        let again = Request::get(path).header("last-event-id", &id).body(Body::empty()).unwrap();
        let mut events = served.stream(again).await;
        events.block().await.unwrap();
        let next = events.block().await.unwrap();
        assert!(next.starts_with("id: ") && !next.starts_with(&format!("id: {id}\n")), "{next}");
        let bad = Request::get(path).header("last-event-id", "yesterday").body(Body::empty()).unwrap();
        let refused = served.ask(bad).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert_eq!(refused.json()["issues"][0]["field"], "Last-Event-ID");
        served.finish().await?;
    }

    // H3.4
    async fn a_silent_stream_says_that_it_is_alive(kind) {
        let options = Options { heartbeat: Duration::from_millis(5), ..Options::default() };
        let served = Served::with(kind, options).await?;
        let mut events = served.subscribe(None).await;
        assert_eq!(events.block().await.unwrap(), ": connected");
        assert_eq!(events.block().await.unwrap(), ": heartbeat");
        served.finish().await?;
    }

    async fn streams_end_when_the_server_does(kind) {
        let served = Served::start(kind).await?;
        let mut events = served.subscribe(None).await;
        assert_eq!(events.block().await.unwrap(), ": connected");
        let counted = served.get("/metrics").await.text;
        assert!(counted.contains("aldis_http_streams 1"), "{counted}");
        served.server.draining().cancel();
        assert_eq!(events.block().await, None);
        drop(events);
        assert!(served.get("/metrics").await.text.contains("aldis_http_streams 0"));
        assert_eq!(served.get("/ready").await.refused().1, "stopping");
        served.finish().await?;
    }

    // T2.3, T11.2, section 7.1
    async fn a_thread_that_is_not_there_is_waited_for(kind) {
        let served = Served::start(kind).await?;
        let request = crate::served::post("/api/agents/demo/threads/subscribe", r#"{"threadId":"t"}"#);
        let mut events = served.stream(request).await;
        served.say("Hello").await?;
        assert_eq!(types(&events.until("finish").await)[0], "start");
        let foreign = json!({ "threadId": "t", "resourceId": "bob" });
        let (status, _, says) = served.post("/api/agents/demo/threads/subscribe", foreign).await.refused();
        assert_eq!((status, says.as_str()), (403, "Access denied: thread belongs to a different resource"));
        served.finish().await?;
    }
}

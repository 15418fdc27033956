//! What is wrong with a request, and how that is told (section 2).

use aldis::http::Options;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::json;

use crate::served::{Served, post};

const SEND: &str = "/api/agents/demo/send-message";

each_store! {
    // H2.2
    async fn a_field_that_is_wrong_is_named_by_its_path(kind) {
        let served = Served::start(kind).await?;
        let to = json!({ "resourceId": "ann", "threadId": "t" });
        let mut fields = Vec::new();
        for (key, value) in [
            ("message", json!(7)),
            ("message", json!([{ "type": "text" }])),
            ("message", json!({ "attributes": {} })),
            ("message", json!(null)),
            ("ifActive", json!({ "behavior": "explode" })),
            ("ifIdle", json!({ "streamOptions": { "maxSteps": "many" } })),
        ] {
            let mut body = to.clone();
            body["message"] = "Hi".into();
            body[key] = value;
            let refused = served.post(SEND, body).await;
            assert_eq!(refused.refused().0, 400);
            assert_eq!(refused.json()["error"], "Invalid request body");
            fields.push(refused.json()["issues"][0]["field"].as_str().unwrap().to_owned());
        }
        assert_eq!(fields, ["message", "message[0].text", "message.contents", "message", "ifActive.behavior", "ifIdle.streamOptions.maxSteps"]);
        let malformed = served.ask(post(SEND, "{\"message\":")).await;
        assert_eq!((malformed.refused().0, &malformed.json()["issues"][0]["field"]), (400, &json!("body")));
        let twice = served.ask(post(SEND, "{} {}")).await;
        assert_eq!((twice.refused().0, &twice.json()["issues"][0]["field"]), (400, &json!("body")));
        assert!(served.kit.threads(None, aldis::store::Page::first(10)).await?.items.is_empty(), "nothing was written");
        served.finish().await?;
    }

    // H2.2 to H2.4
    async fn each_refusal_has_its_status_and_its_words(kind) {
        let served = Served::start(kind).await?;
        let nowhere = served.post(SEND, json!({ "message": "Hi", "threadId": "t" })).await.refused();
        assert_eq!((nowhere.0, nowhere.2.as_str()), (400, "resourceId and threadId are required when runId is not provided"));
        let whole = json!({ "message": "Hi", "resourceId": "ann", "threadId": "t" });
        let stranger = served.post("/api/agents/nobody/send-message", whole.clone()).await;
        assert_eq!(stranger.refused().2, "Agent with id nobody not found");
        assert_eq!((stranger.status.as_u16(), &stranger.json()["remedy"]), (404, &json!("here are: demo, other")));
        // The body is looked at before the agent.
        assert_eq!(served.post("/api/agents/nobody/send-message", json!({})).await.refused().0, 400);
        served.post(SEND, whole).await.ok();
        let foreign = served.post(SEND, json!({ "message": "Hi", "resourceId": "bob", "threadId": "t" })).await.refused();
        assert_eq!((foreign.0, foreign.2.as_str()), (403, "Access denied: thread belongs to a different resource"));
        let tag = json!({ "signal": { "type": "reactive", "contents": "x", "tagName": "1x" }, "resourceId": "ann", "threadId": "t" });
        let (status, code, says) = served.post("/api/agents/demo/signals", tag).await.refused();
        assert_eq!((status, code.as_str()), (400, "invalid_tag_name"));
        assert!(says.starts_with("Invalid signal XML tag name: 1x"), "{says}");
        let odd = json!({ "signal": { "type": "odd", "contents": "x" }, "resourceId": "ann", "threadId": "t" });
        assert_eq!(served.post("/api/agents/demo/signals", odd).await.json()["issues"][0]["field"], "signal.type");
        let id = json!({ "message": "Hi", "resourceId": "ann", "threadId": "a b" });
        assert_eq!(served.post(SEND, id).await.refused().1, "id_invalid");
        served.kit.run_to_rest().await?;
        served.finish().await?;
    }

    async fn what_is_too_large_is_413(kind) {
        let served = Served::with(kind, Options { body_bytes_max: 2 * 1024 * 1024, ..Options::default() }).await?;
        let said = |bytes: usize| json!({ "message": "x".repeat(bytes), "resourceId": "ann", "threadId": "t" });
        let body = served.post(SEND, said(3 * 1024 * 1024)).await.refused();
        assert_eq!((body.0, body.1.as_str()), (413, "body_too_large"));
        // T3.18
        let contents = served.post(SEND, said(1024 * 1024 + 1)).await.refused();
        assert_eq!((contents.0, contents.1.as_str()), (413, "too_many_bytes"));
        served.finish().await?;
    }

    // H1.2, H12.2, H2.1
    async fn routes_and_methods_that_are_not_there_are_told_in_json(kind) {
        let served = Served::start(kind).await?;
        let unknown = served.get("/api/agents/demo/voice/speakers").await.refused();
        assert_eq!((unknown.0, unknown.2.as_str()), (404, "Not found"));
        assert_eq!(served.get(SEND).await.refused().1, "method_not_allowed");
        assert_eq!(served.get("/elsewhere").await.refused().0, 404);
        // No content type and no body: the fields are missing, that is all.
        let empty = Request::post(SEND).body(Body::empty()).unwrap();
        assert_eq!(served.ask(empty).await.json()["issues"][0]["field"], "message");
        let key = Request::post(SEND).header("idempotency-key", "\u{e4}").body(Body::from("{\"message\":\"x\"}")).unwrap();
        assert_eq!(served.ask(key).await.refused().1, "idempotency_key_invalid");
        served.finish().await?;
    }

    // H1.1
    async fn the_prefix_is_settable_and_ids_are_decoded(kind) {
        let served = Served::with(kind, Options { prefix: "/v1/aldis".into(), ..Options::default() }).await?;
        assert_eq!(served.get("/v1/aldis/agents").await.status, StatusCode::OK);
        assert_eq!(served.get("/api/agents").await.status, StatusCode::NOT_FOUND);
        assert_eq!(served.get("/v1/aldis/agents/d%65mo").await.ok()["name"], "demo");
        served.finish().await?;
    }
}

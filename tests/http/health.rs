//! Health, counts, request ids, and which agents there are.

use aldis::http::Options;
use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use crate::served::Served;

each_store! {
    async fn a_server_tells_how_it_is(kind) {
        let served = Served::start(kind).await?;
        assert_eq!(served.get("/health").await.ok()["status"], "ok");
        assert_eq!(served.get("/ready").await.ok()["status"], "ready");
        served.get("/api/agents/nobody").await;
        let counted = served.get("/metrics").await.text;
        let line = r#"aldis_http_requests_total{method="GET",route="/api/agents/{agent}",status="404"} 1"#;
        assert!(counted.contains(line), "{counted}");
        served.finish().await?;
    }

    async fn a_request_has_an_id_that_its_answer_repeats(kind) {
        let served = Served::start(kind).await?;
        let given = Request::get("/health").header("x-request-id", "r-1").body(Body::empty()).unwrap();
        assert_eq!(served.ask(given).await.headers["x-request-id"], "r-1");
        let made = served.get("/health").await;
        assert!(uuid::Uuid::parse_str(made.headers["x-request-id"].to_str().unwrap()).is_ok());
        served.finish().await?;
    }

    // H1.9
    async fn pages_of_other_origins_are_let_in_if_that_is_said(kind) {
        let preflight = || {
            let request = Request::options("/api/agents").header("origin", "https://shop.example");
            request.header("access-control-request-method", "GET").body(Body::empty()).unwrap()
        };
        let served = Served::start(kind).await?;
        assert!(!served.ask(preflight()).await.headers.contains_key("access-control-allow-origin"));
        served.finish().await?;
        let options = Options { origins: vec!["https://shop.example".into()], ..Options::default() };
        let served = Served::with(kind, options).await?;
        let allowed = served.ask(preflight()).await;
        assert_eq!(allowed.headers["access-control-allow-origin"], "https://shop.example");
        served.finish().await?;
    }

    // H9.1, H9.2, trap 7
    async fn agents_are_listed_by_name_and_described(kind) {
        let served = Served::start(kind).await?;
        let listed = served.get("/api/agents?partial=true").await.ok();
        assert_eq!(listed.as_object().unwrap().keys().collect::<Vec<_>>(), ["demo", "other"]);
        let demo = served.get("/api/agents/demo").await.ok();
        assert_eq!(demo, listed["demo"]);
        assert_eq!((&demo["modelId"], &demo["tools"]["refund"]["requireApproval"]), (&json!("offline"), &json!(true)));
        let schema: serde_json::Value =
            serde_json::from_str(demo["tools"]["add"]["inputSchema"].as_str().unwrap()).unwrap();
        assert_eq!(schema["json"]["type"], "object");
        assert_eq!(served.get("/api/agents/nobody").await.refused().2, "Agent with id nobody not found");
        served.finish().await?;
    }
}

//! Who may come in: every route refuses a stranger, and keeps a neighbour from what is Ann's.

use aldis::http::{Keys, Options};
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::served::{Answer, Served};

/// A request with a key, if any.
fn request(method: &str, path: &str, key: Option<&str>, body: &Value) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    request.body(Body::from(body.to_string())).expect("a request")
}

async fn ask(served: &Served, method: &str, path: &str, key: Option<&str>, body: &Value) -> Answer {
    served.ask(request(method, path, key, body)).await
}

/// Every route, with what it is asked of Ann's thread, run and message; and what a neighbour gets: a refusal, or a list without it.
fn routes(run: &str, message: &str) -> Vec<(&'static str, String, Value, Neighbour)> {
    let agent = |path: &str| format!("/api/agents/demo/{path}");
    let hers = json!({ "threadId": "t", "resourceId": "ann" });
    let with = |more: Value| {
        let mut body = hers.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let call = json!({ "runId": run, "toolCallId": "c" });
    let flow = |path: &str| format!("/api/workflows/refund/{path}");
    use Neighbour::{Finds, Refused, Sees};
    vec![
        ("GET", "/api/agents".into(), json!({}), Sees),
        ("GET", "/api/agents/demo".into(), json!({}), Sees),
        ("POST", agent("send-message"), with(json!({ "message": "x" })), Refused),
        ("POST", agent("queue-message"), with(json!({ "message": "x" })), Refused),
        ("POST", agent("signals"), with(json!({ "signal": { "type": "reactive", "contents": "x" } })), Refused),
        ("POST", agent("send-message"), json!({ "message": "x", "runId": run }), Refused),
        (
            "POST",
            agent("state-signals"),
            with(json!({ "state": { "id": "l", "cacheKey": "k", "contents": "x" } })),
            Refused,
        ),
        (
            "POST",
            agent("generate"),
            json!({ "messages": "x", "memory": { "thread": "t", "resource": "ann" } }),
            Refused,
        ),
        ("POST", agent("stream"), json!({ "messages": "x", "threadId": "t", "resourceId": "ann" }), Refused),
        ("POST", agent("threads/cancel-queued"), with(json!({ "signalIds": ["x"] })), Refused),
        ("POST", agent("threads/subscribe"), hers.clone(), Refused),
        ("GET", agent("threads/subscribe?threadId=t"), json!({}), Refused),
        ("POST", agent("threads/abort"), json!({ "threadId": "t" }), Refused),
        ("POST", agent("send-tool-approval"), with(json!({ "toolCallId": "c", "approved": true })), Refused),
        ("POST", agent("approve-tool-call"), call.clone(), Refused),
        ("POST", agent("decline-tool-call"), call, Refused),
        ("POST", agent("observe"), json!({ "runId": run }), Refused),
        ("GET", agent("suspended-runs?threadId=t"), json!({}), Refused),
        ("GET", agent("suspended-runs?resourceId=ann"), json!({}), Finds("runs")),
        ("GET", "/api/memory/threads?resourceId=ann".into(), json!({}), Finds("threads")),
        ("GET", "/api/memory/threads/t".into(), json!({}), Refused),
        ("GET", "/api/memory/threads/t/messages?resourceId=ann".into(), json!({}), Refused),
        ("POST", "/api/memory/messages/delete".into(), json!({ "messageIds": message, "resourceId": "ann" }), Sees),
        ("POST", "/api/memory/threads".into(), json!({ "threadId": "t", "resourceId": "ann", "title": "x" }), Refused),
        ("PATCH", "/api/memory/threads/t".into(), json!({ "title": "x" }), Refused),
        ("DELETE", "/api/memory/threads/t".into(), json!({}), Refused),
        ("GET", "/api/memory/status".into(), json!({}), Sees),
        ("GET", "/metrics".into(), json!({}), Refused),
        ("GET", "/api/runs".into(), json!({}), Refused),
        ("GET", format!("/api/runs/{run}"), json!({}), Refused),
        ("GET", format!("/api/runs/{run}/journal"), json!({}), Refused),
        ("POST", format!("/api/runs/{run}/signal"), json!({ "name": "abort" }), Refused),
        ("POST", format!("/api/runs/{run}/cancel"), json!({}), Refused),
        ("GET", "/api/workflows".into(), json!({}), Sees),
        ("GET", "/api/workflows/refund".into(), json!({}), Sees),
        ("POST", flow("create-run"), json!({}), Refused),
        ("POST", flow("start?runId=r"), json!({ "inputData": {} }), Refused),
        ("POST", flow("start-async"), json!({ "inputData": {} }), Refused),
        ("POST", flow("stream?runId=r"), json!({ "inputData": {} }), Refused),
        ("POST", flow(&format!("observe?runId={run}")), json!({}), Refused),
        ("POST", flow(&format!("resume?runId={run}")), json!({}), Refused),
        ("POST", flow(&format!("resume-async?runId={run}")), json!({}), Refused),
        ("POST", flow(&format!("resume-no-wait?runId={run}")), json!({}), Refused),
        ("POST", flow(&format!("resume-stream?runId={run}")), json!({}), Refused),
        ("GET", flow("runs"), json!({}), Refused),
        ("GET", flow(&format!("runs/{run}")), json!({}), Refused),
        ("POST", flow(&format!("runs/{run}/cancel")), json!({}), Refused),
    ]
}

/// What a neighbour gets.
enum Neighbour {
    /// 403.
    Refused,
    /// Nothing of Ann's in this list.
    Finds(&'static str),
    /// What is nobody's.
    Sees,
}

each_store! {
    async fn strangers_and_neighbours_are_refused_on_every_route(kind) {
        let served = Served::with(kind, Options { keys: Keys::Required, ..Options::default() }).await?;
        let ann = served.kit.create_key("phone", Some("ann")).await?;
        let bob = served.kit.create_key("phone", Some("bob")).await?;
        let root = served.kit.create_key("desk", None).await?;
        // H1.8: what the key says takes the place of what the body says.
        let hers = json!({ "message": "/call refund {\"order\":\"A-1\",\"cents\":1}", "threadId": "t", "resourceId": "bob" });
        let sent = ask(&served, "POST", "/api/agents/demo/send-message", Some(&ann.secret), &hers).await.ok();
        served.kit.settle().await?;
        let run = sent["runId"].as_str().unwrap();
        for (method, path, body, neighbour) in routes(run, sent["signal"]["id"].as_str().unwrap()) {
            for key in [None, Some("aldis_0"), Some("Ann")] {
                let stranger = ask(&served, method, &path, key, &body).await;
                assert_eq!((stranger.refused().0, stranger.refused().1.as_str()), (401, "unauthorized"), "{path}");
                assert_eq!(stranger.headers["www-authenticate"], "Bearer");
            }
            let answer = ask(&served, method, &path, Some(&bob.secret), &body).await;
            match neighbour {
                Neighbour::Refused => assert_eq!(answer.refused().0, 403, "{method} {path}: {}", answer.text),
                Neighbour::Finds(list) => assert_eq!(answer.ok()[list], json!([]), "{path}"),
                Neighbour::Sees => drop(answer.ok()),
            }
        }
        // Nothing of it was done.
        let thread = ask(&served, "GET", "/api/memory/threads/t/messages", Some(&ann.secret), &json!({})).await.ok();
        assert_eq!(thread["messages"][0]["id"], sent["signal"]["id"]);
        assert_eq!(served.kit.find(run).await?.row().await?.status.word(), "waiting");
        assert_eq!(ask(&served, "GET", "/api/runs", Some(&root.secret), &json!({})).await.ok()["runs"][0]["id"], run);
        assert_eq!(served.get("/health").await.ok()["status"], "ok");
        served.finish().await?;
    }

    async fn a_key_that_was_revoked_opens_nothing(kind) {
        let served = Served::with(kind, Options { keys: Keys::Required, ..Options::default() }).await?;
        let key = served.kit.create_key("phone", None).await?;
        let with = || Request::get("/api/agents").header("x-api-key", &key.secret).body(Body::empty()).unwrap();
        served.ask(with()).await.ok();
        assert!(served.kit.revoke_key(&key.key.id).await?);
        assert_eq!(served.ask(with()).await.refused().1, "unauthorized");
        assert!(!served.kit.revoke_key("none").await?);
        let kept = served.kit.keys().await?;
        assert!(kept[0].revoked_at.is_some());
        assert!(!format!("{key:?}").contains(&key.secret), "{key:?}");
        served.finish().await?;
    }
}

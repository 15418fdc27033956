//! The reference of the routes: what it says is what there is, and the other way round.

use std::collections::BTreeSet;
use std::path::Path;

use aldis::http::{Keys, Options};
use aldis::store::Kind;
use aldis::testing::Error;
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::served::{Answer, Served};
use crate::support::passed;

/// A route with its method, as the reference has it.
struct Operation {
    method: String,
    path: String,
    is: Value,
}

impl Operation {
    /// Its path, with something in the place of ids.
    fn address(&self) -> String {
        self.path
            .replace("{agent}", "demo")
            .replace("{thread}", "nobody")
            .replace("{run}", "none")
            .replace("{workflow}", "refund")
    }

    fn is_open(&self) -> bool {
        self.is["security"] == json!([{}])
    }

    async fn ask(&self, served: &Served, method: &str) -> Answer {
        served.ask(Request::builder().method(method).uri(self.address()).body(Body::empty()).expect("a request")).await
    }
}

async fn document(served: &Served) -> Value {
    served.get("/openapi.json").await.ok()
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, is) in methods.as_object().expect("methods") {
            all.push(Operation { method: method.to_uppercase(), path: path.clone(), is: is.clone() });
        }
    }
    all
}

/// The sources of the server.
fn sources() -> Vec<(String, String)> {
    let files = ["src/http", "src/http/workflows"].map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    let files = files.iter().flat_map(|folder| std::fs::read_dir(folder).expect("the room"));
    let files = files.map(|file| file.expect("a file").path()).filter(|file| file.is_file());
    files.map(|file| (file.display().to_string(), std::fs::read_to_string(&file).expect("a text"))).collect()
}

async fn with(options: Options, test: impl AsyncFnOnce(&Served) -> Result<(), Error>) {
    let case = async {
        let served = Served::with(Kind::Sqlite, options).await?;
        test(&served).await?;
        served.finish().await
    };
    passed(case.await);
}

#[tokio::test]
async fn the_reference_is_openapi_3_1_and_changes_only_on_purpose() {
    with(Options::default(), async |served| {
        let mut document = document(served).await;
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
        assert_eq!(document["info"]["version"].take(), env!("CARGO_PKG_VERSION"));
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots/wire"));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!("openapi", format!("{document:#}")));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_the_reference_has_is_served_and_nothing_else_under_its_addresses() {
    with(Options::default(), async |served| {
        let operations = operations(&document(served).await);
        for operation in &operations {
            let methods: BTreeSet<&str> = operations
                .iter()
                .filter(|other| other.path == operation.path)
                .map(|other| other.method.as_str())
                .collect();
            let answer = operation.ask(served, &operation.method).await;
            let code = serde_json::from_str::<Value>(&answer.text).unwrap_or_default()["code"].take();
            assert!(answer.status != 405 && code != "route_unknown", "{} {}", operation.method, operation.path);
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
                if !methods.contains(method) {
                    assert_eq!(operation.ask(served, method).await.status, 405, "{method} {}", operation.path);
                }
            }
        }
        Ok(())
    })
    .await;
}

// What is served is registered with its description by `routes!`, and so in the reference.
#[tokio::test]
async fn no_route_is_registered_past_the_reference() {
    let (mut past, mut described) = (Vec::new(), 0);
    for (file, text) in sources() {
        let words = [".route(", ".route_service(", ".nest_service(", ".fallback_service("];
        past.extend(words.iter().filter(|word| text.contains(*word)).map(|word| format!("{file}: {word}")));
        described += text.matches("#[utoipa::path(").count();
    }
    assert_eq!(past, Vec::<String>::new());
    with(Options::default(), async |served| {
        let operations = operations(&document(served).await);
        assert_eq!(operations.len(), described, "each handler that is described is registered once");
        let names: BTreeSet<&str> = operations.iter().map(|it| it.is["operationId"].as_str().unwrap()).collect();
        assert_eq!(names.len(), operations.len(), "{names:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_is_not_open_asks_who_it_is() {
    with(Options { keys: Keys::Required, ..Options::default() }, async |served| {
        let operations = operations(&document(served).await);
        for operation in &operations {
            let status = operation.ask(served, &operation.method).await.status.as_u16();
            assert_eq!(status == 401, !operation.is_open(), "{} {}: {status}", operation.method, operation.path);
        }
        let open: Vec<&str> = operations.iter().filter(|it| it.is_open()).map(|it| it.path.as_str()).collect();
        assert_eq!(open, ["/health", "/ready", "/openapi.json", "/docs"].map(String::from));
        Ok(())
    })
    .await;
}

// An example that says what is never answered misleads.
#[tokio::test]
async fn examples_are_of_what_is_answered() {
    with(Options::default(), async |served| {
        let sent = served.say("/call refund {\"order\":\"A-1\",\"cents\":1}").await?;
        let run = sent["runId"].as_str().unwrap();
        let ledger = tempfile::tempdir().expect("a folder");
        let order =
            json!({ "order": "A-1", "amount_cents": 1, "customer": "ann", "ledger": ledger.path().join("l.jsonl") });
        served.post("/api/workflows/refund/start?runId=r-1", json!({ "inputData": order })).await.ok();
        served.kit.settle().await?;
        let document = document(served).await;
        let mut compared = vec![keys(
            "/agents/{agent}/send-message",
            &example(&document, "/api/agents/{agent}/send-message", "post"),
            &sent,
        )];
        for (path, address) in [
            ("/api/agents", "/api/agents"),
            ("/api/agents/{agent}", "/api/agents/demo"),
            ("/api/agents/{agent}/suspended-runs", "/api/agents/demo/suspended-runs"),
            ("/api/memory/threads", "/api/memory/threads"),
            ("/api/memory/threads/{thread}", "/api/memory/threads/t"),
            ("/api/memory/threads/{thread}/messages", "/api/memory/threads/t/messages"),
            ("/api/memory/status", "/api/memory/status"),
            ("/api/runs", "/api/runs"),
            ("/api/runs/{run}", &format!("/api/runs/{run}")),
            ("/api/runs/{run}/journal", &format!("/api/runs/{run}/journal")),
            ("/api/workflows", "/api/workflows"),
            ("/api/workflows/{workflow}", "/api/workflows/refund"),
            ("/api/workflows/{workflow}/runs", "/api/workflows/refund/runs"),
            ("/api/workflows/{workflow}/runs/{run}", "/api/workflows/refund/runs/r-1"),
            ("/health", "/health"),
            ("/ready", "/ready"),
        ] {
            let answered = served.get(address).await.ok();
            compared.push(keys(path, &example(&document, path, "get"), &answered));
        }
        let wrong: Vec<String> = compared.into_iter().flatten().collect();
        assert_eq!(wrong, Vec::<String>::new());
        Ok(())
    })
    .await;
}

fn example(document: &Value, path: &str, method: &str) -> Value {
    document["paths"][path][method]["responses"]["200"]["content"]["application/json"]["example"].clone()
}

/// The keys of an example that are not in the answer, down to the first items of its lists. Of names that are somebody's own
/// (agents, tools), that of the example may be another one.
fn keys(at: &str, example: &Value, answer: &Value) -> Vec<String> {
    match (example, answer) {
        (Value::Object(example), Value::Object(answer)) => {
            let below = |(key, value): (&String, &Value)| match answer.get(key) {
                Some(answer) => keys(&format!("{at}.{key}"), value, answer),
                None => vec![format!("{at}.{key}")],
            };
            example.iter().flat_map(below).collect()
        }
        (Value::Array(example), Value::Array(answer)) => match (example.first(), answer.first()) {
            (Some(example), Some(answer)) => keys(&format!("{at}[0]"), example, answer),
            (Some(_), None) => vec![format!("{at} is empty")],
            (None, _) => Vec::new(),
        },
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn people_read_it_without_scripts_and_without_anything_from_elsewhere() {
    with(Options::default(), async |served| {
        let page = served.get("/docs").await;
        assert_eq!(
            (page.status.as_u16(), &page.headers["content-type"]),
            (200, &"text/html; charset=utf-8".parse().unwrap())
        );
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        for operation in operations(&document(served).await) {
            let name = operation.is["operationId"].as_str().unwrap();
            assert!(page.text.contains(&format!(r#"<article id="{name}">"#)), "{name}");
            assert!(page.text.contains(&operation.path), "{}", operation.path);
        }
        for word in ["<script", "http://", "https://", "src=", "@import", "url("] {
            assert!(!page.text.contains(word), "{word}");
        }
        Ok(())
    })
    .await;
}

// H1.1: under another prefix it says so.
#[tokio::test]
async fn the_prefix_is_in_the_reference() {
    with(Options { prefix: "/v1".into(), ..Options::default() }, async |served| {
        let document = document(served).await;
        assert!(document["paths"]["/v1/agents"].is_object() && document["paths"]["/health"].is_object());
        Ok(())
    })
    .await;
}

//! A server on a test kit, and what is asked of it.

use aldis::agent::Agent;
use aldis::http::{Options, Server};
use aldis::store::Kind;
use aldis::testing::{Error, TestKit};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::{kit, secs};

/// A server whose time is moved by hand.
pub struct Served {
    pub kit: TestKit,
    pub server: Server,
    router: Router,
}

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The body of what was done.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json()
    }

    /// What an error says: its status, its code and its words.
    #[track_caller]
    pub fn refused(&self) -> (u16, String, String) {
        let problem = self.json();
        let text = |key: &str| problem[key].as_str().unwrap_or_else(|| panic!("no {key}: {problem}")).to_owned();
        (self.status.as_u16(), text("code"), text("error"))
    }
}

/// A stream of events that is being read.
pub struct Events {
    pub headers: HeaderMap,
    body: Body,
    read: String,
}

impl Events {
    /// The next block, without the empty line after it; none at the end.
    pub async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.read.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.read = rest;
                return Some(block);
            }
            let frame = tokio::time::timeout(secs(30), self.body.frame()).await.expect("something is said in time")?;
            let data = frame.expect("a frame").into_data().expect("data");
            self.read.push_str(std::str::from_utf8(&data).expect("UTF-8"));
        }
    }

    /// The next chunk, read as the stock client does (H3.1); none at the end or at `[DONE]`.
    pub async fn chunk(&mut self) -> Option<Value> {
        loop {
            let block = self.block().await?;
            let Some(json) = block.strip_prefix("data: ") else { continue };
            if json == "[DONE]" {
                return None;
            }
            return Some(serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {block:?}")));
        }
    }

    /// The types of the chunks up to one of this type.
    pub async fn until(&mut self, last: &str) -> Vec<Value> {
        let mut seen = Vec::new();
        while let Some(chunk) = self.chunk().await {
            let is_last = chunk["type"] == last;
            seen.push(chunk);
            if is_last {
                return seen;
            }
        }
        panic!("the stream has ended before {last}: {seen:?}");
    }
}

/// The types of chunks.
pub fn types(chunks: &[Value]) -> Vec<&str> {
    chunks.iter().map(|chunk| chunk["type"].as_str().expect("a type")).collect()
}

impl Served {
    pub async fn start(kind: Kind) -> Result<Self, Error> {
        Self::with(kind, Options::default()).await
    }

    pub async fn with(kind: Kind, options: Options) -> Result<Self, Error> {
        let setup = kit(kind).agent(aldis::workflows::demo::agent()).agent(Agent::new("other"));
        let kit = setup.workflow(aldis::workflows::refund::workflow()).start().await?;
        let server = Server::new((*kit).clone(), options);
        let router = server.router();
        Ok(Self { kit, server, router })
    }

    pub async fn send(&self, request: Request<Body>) -> axum::response::Response {
        self.router.clone().oneshot(request).await.expect("a router answers")
    }

    pub async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.send(request).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        Answer { status, headers, text: String::from_utf8(bytes.to_vec()).expect("UTF-8") }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Request::get(path).body(Body::empty()).expect("a request")).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(post(path, &body.to_string())).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        let mut request = post(path, &body.to_string());
        *request.method_mut() = Method::PATCH;
        self.ask(request).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.ask(Request::delete(path).body(Body::empty()).expect("a request")).await
    }

    /// Sends something under an Idempotency-Key.
    pub async fn post_keyed(&self, path: &str, key: &str, body: Value) -> Answer {
        let mut request = post(path, &body.to_string());
        request.headers_mut().insert("idempotency-key", key.parse().expect("a header"));
        self.ask(request).await
    }

    /// Says something on Ann's thread `t` and has it answered.
    pub async fn say(&self, text: &str) -> Result<Value, Error> {
        let body = json!({ "message": text, "resourceId": "ann", "threadId": "t" });
        let sent = self.post("/api/agents/demo/send-message", body).await.ok();
        self.kit.settle().await?;
        Ok(sent)
    }

    /// Opens a stream.
    pub async fn stream(&self, request: Request<Body>) -> Events {
        let response = self.send(request).await;
        if response.status() != StatusCode::OK {
            let status = response.status();
            let bytes = response.into_body().collect().await.expect("a body").to_bytes();
            panic!("{status}: {}", String::from_utf8_lossy(&bytes));
        }
        Events { headers: response.headers().clone(), body: response.into_body(), read: String::new() }
    }

    /// Subscribes to Ann's thread `t`.
    pub async fn subscribe(&self, after: Option<&str>) -> Events {
        let body = json!({ "threadId": "t", "resourceId": "ann", "after": after });
        self.stream(post("/api/agents/demo/threads/subscribe", &body.to_string())).await
    }

    pub async fn finish(self) -> Result<(), Error> {
        drop(self.router);
        drop(self.server);
        self.kit.finish().await
    }
}

pub fn post(path: &str, body: &str) -> Request<Body> {
    let request = Request::builder().method(Method::POST).uri(path);
    request.header("content-type", "application/json").body(Body::from(body.to_owned())).expect("a request")
}

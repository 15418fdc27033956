//! A provider of our own on this machine, which does as it is told.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use aldis::agent::model::{Provider, ProviderConfig, ProviderKind};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use futures::{Stream, StreamExt, stream};
use serde_json::Value;
use tokio::sync::Notify;

pub const KEY: &str = "sk-test-0123456789abcdef";

/// What the server does with a request.
pub enum Act {
    /// Sends these pieces and ends as one should.
    Stream(Vec<String>),
    /// Sends this a few bytes at a time.
    Dribble(String),
    /// Sends these pieces and breaks the connection.
    Break(Vec<String>),
    /// Sends these pieces and then nothing more.
    Stall(Vec<String>),
    /// Sends these pieces, and goes on so once it is told to.
    Then(Vec<String>, Arc<Notify>, Box<Act>),
    /// Does not answer at all.
    Silence,
    /// Answers with this status, these headers and this body.
    Status(u16, Vec<(&'static str, &'static str)>, String),
}

#[derive(Clone)]
pub struct Asked {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Value,
}

pub struct Server {
    pub url: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    acts: Mutex<VecDeque<Act>>,
    asked: Mutex<Vec<Asked>>,
    arrived: Notify,
    left: Notify,
}

/// Tells when the other side has gone.
struct Gone(Arc<State>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.left.notify_one();
    }
}

impl Server {
    pub async fn that(acts: impl IntoIterator<Item = Act>) -> Self {
        let state = Arc::new(State { acts: Mutex::new(acts.into_iter().collect()), ..State::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/v1", listener.local_addr().expect("its address"));
        let answering = Arc::clone(&state);
        let app = Router::new().fallback(move |request: Request<Body>| answer(Arc::clone(&answering), request));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, state }
    }

    pub fn config(&self, kind: ProviderKind) -> ProviderConfig {
        ProviderConfig::new(kind).base_url(&self.url).api_key(KEY)
    }

    pub fn provider(&self, kind: ProviderKind) -> Provider {
        Provider::new("test", self.config(kind)).expect("a provider")
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().expect("what was asked").clone()
    }

    pub async fn until_asked(&self) {
        self.state.arrived.notified().await;
    }

    pub async fn until_left(&self) {
        self.state.left.notified().await;
    }
}

async fn answer(state: Arc<State>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("").to_owned()));
    let asked = Asked {
        path: head.uri.to_string(),
        headers: headers.collect(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    state.asked.lock().expect("what was asked").push(asked);
    let act = state.acts.lock().expect("the acts").pop_front().expect("nothing more to do");
    let gone = Gone(Arc::clone(&state));
    state.arrived.notify_one();
    match act {
        Act::Silence => std::future::pending().await,
        Act::Status(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body)).expect("a response")
        }
        streaming => {
            let pieces = pieces_of(streaming).map(move |piece| {
                let _held = &gone;
                piece
            });
            let response = Response::builder().header("content-type", "text/event-stream");
            response.body(Body::from_stream(pieces)).expect("a response")
        }
    }
}

type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

fn pieces_of(act: Act) -> Pieces {
    match act {
        Act::Stream(pieces) => Box::pin(whole(pieces)),
        Act::Dribble(text) => {
            let pieces: Vec<Vec<u8>> = text.into_bytes().chunks(5).map(<[u8]>::to_vec).collect();
            Box::pin(stream::iter(pieces).map(|piece| Ok(Bytes::from(piece))))
        }
        Act::Break(pieces) => {
            let broken = stream::once(async {
                // What came before must be on its way first.
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                Err(io::Error::other("broken"))
            });
            Box::pin(whole(pieces).chain(broken))
        }
        Act::Stall(pieces) => Box::pin(whole(pieces).chain(stream::pending())),
        Act::Then(pieces, told, rest) => {
            let rest = stream::once(async move {
                told.notified().await;
                pieces_of(*rest)
            });
            Box::pin(whole(pieces).chain(rest.flatten()))
        }
        Act::Silence | Act::Status(..) => panic!("an answer cannot begin again"),
    }
}

fn whole(pieces: Vec<String>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::iter(pieces).map(|piece| Ok(Bytes::from(piece)))
}

/// Frames as OpenAI sends them, from choices' deltas and a reason to stop.
pub fn openai(deltas: &[Value], reason: &str) -> Vec<String> {
    let mut frames: Vec<String> = deltas.iter().map(openai_frame).collect();
    let last = serde_json::json!({"id": "chatcmpl-1", "model": "m-2026", "choices": [
        {"index": 0, "delta": {}, "finish_reason": reason}]});
    let usage = serde_json::json!({"id": "chatcmpl-1", "model": "m-2026", "choices": [], "usage": {
        "prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 8}, "completion_tokens_details": {"reasoning_tokens": 2}}});
    frames.extend([format!("data: {last}\n\n"), format!("data: {usage}\n\n"), "data: [DONE]\n\n".to_owned()]);
    frames
}

pub fn openai_frame(delta: &Value) -> String {
    let frame = serde_json::json!({"id": "chatcmpl-1", "model": "m-2026", "choices": [{"index": 0, "delta": delta}]});
    format!("data: {frame}\n\n")
}

/// A piece of a call as OpenAI sends it: with its id and its name in the first one.
pub fn openai_call(index: u32, id: Option<&str>, name: Option<&str>, arguments: &str) -> Value {
    let mut call = serde_json::json!({"index": index, "function": {"arguments": arguments}});
    if let Some(id) = id {
        call["id"] = id.into();
        call["type"] = "function".into();
    }
    if let Some(name) = name {
        call["function"]["name"] = name.into();
    }
    serde_json::json!({"tool_calls": [call]})
}

/// Frames as Anthropic sends them: each event under its own type.
pub fn anthropic(events: &[Value]) -> Vec<String> {
    let frame = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default());
    events.iter().map(frame).collect()
}

//! What these tests share.

use std::sync::atomic::{AtomicUsize, Ordering};

use aldis::agent::model::{Delta, Deltas, Finish, Model, ModelError, Reply, Request, Usage};
use aldis::message::{AssistantPart, PromptMessage};
use futures::future::BoxFuture;
use tokio::sync::Notify;

/// A request of one user message.
pub fn asking(text: &str) -> Request {
    Request { model: "m".to_owned(), messages: vec![PromptMessage::user(text)], ..Request::default() }
}

/// Asks, and gathers the deltas beside the reply.
pub async fn heard(model: &dyn Model, request: &Request) -> (Result<Reply, ModelError>, Vec<Delta>) {
    let (deltas, mut from) = Deltas::channel(1);
    let answer = async {
        let answer = model.ask(request, &deltas).await;
        drop(deltas);
        answer
    };
    let listen = async {
        let mut heard = Vec::new();
        while let Some(delta) = from.recv().await {
            heard.push(delta);
        }
        heard
    };
    tokio::join!(answer, listen)
}

/// Deltas, one a line.
pub fn told(deltas: &[Delta]) -> String {
    let lines = deltas.iter().map(|delta| match delta {
        Delta::TextStart { id } => format!("text {id} begins"),
        Delta::Text { id, text } => format!("text {id} {text:?}"),
        Delta::TextEnd { id } => format!("text {id} ends"),
        Delta::ReasoningStart { id } => format!("reasoning {id} begins"),
        Delta::Reasoning { id, text } => format!("reasoning {id} {text:?}"),
        Delta::ReasoningEnd { id } => format!("reasoning {id} ends"),
        Delta::ToolInputStart { id, name } => format!("call {id} of {name} begins"),
        Delta::ToolInput { id, text, .. } => format!("call {id} {text:?}"),
        Delta::ToolInputEnd { id } => format!("call {id} ends"),
    });
    lines.collect::<Vec<_>>().join("\n")
}

pub fn reply(text: &str) -> Reply {
    Reply {
        parts: vec![AssistantPart::Text(text.to_owned())],
        finish: Finish::Stop,
        usage: Usage { input: 1, output: 1, total: 2, cached: None, reasoning: None },
        response_id: None,
        model_id: "m".to_owned(),
    }
}

/// A model that answers when it is told to, and counts who is asking.
#[derive(Default)]
pub struct Waiting {
    pub now: AtomicUsize,
    pub most: AtomicUsize,
    pub asked: AtomicUsize,
    pub go: Notify,
}

impl Model for Waiting {
    fn name(&self) -> &str {
        "waiting"
    }

    fn ask<'a>(&'a self, _: &'a Request, _: &'a Deltas) -> BoxFuture<'a, Result<Reply, ModelError>> {
        Box::pin(async move {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.go.notified().await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            Ok(reply("done"))
        })
    }
}

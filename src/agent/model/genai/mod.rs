//! The models of real providers, through the crate `genai`.
//!
//! One request a call, always streamed, never tried again here. An answer counts once the provider has said that it is
//! complete; one that stops before is [`ModelError::Cut`]. Dropping the call closes the connection.
//!
//! No type of `genai` leaves this folder, and no key does: texts of errors have passed [`failure::Teller`].

mod failure;
mod prompt;
mod provider;
mod reply;

use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use genai::ServiceTarget;
use genai::chat::ChatStreamEvent;
use genai::resolver::{AuthData, Endpoint};
use genai::{Client, ModelIden};
use secrecy::ExposeSecret;

use self::failure::Teller;
use self::reply::Gathering;
use super::{Deltas, Model, ModelError, Reply, Request, TimeLimit};

pub use provider::{Provider, ProviderConfig, ProviderKind, Timeouts};

impl Model for Provider {
    fn name(&self) -> &str {
        &self.name
    }

    fn ask<'a>(&'a self, request: &'a Request, deltas: &'a Deltas) -> BoxFuture<'a, Result<Reply, ModelError>> {
        Box::pin(async move {
            let total_ms = self.config.timeouts.total_ms;
            let answer = self.answer(request, deltas);
            tokio::time::timeout(Duration::from_millis(total_ms), answer).await.unwrap_or_else(|_| {
                let model = self.full_name(request);
                Err(ModelError::TimedOut { model, limit: TimeLimit::Total(total_ms) })
            })
        })
    }
}

impl Provider {
    async fn answer(&self, request: &Request, deltas: &Deltas) -> Result<Reply, ModelError> {
        let teller = Teller {
            model: self.full_name(request),
            key: self.config.api_key.as_ref(),
            timeouts: self.config.timeouts,
        };
        let kind = self.config.kind;
        let (chat, options) =
            prompt::chat(kind, request).map_err(|cause| ModelError::Unfit { model: teller.model.clone(), cause })?;
        let mut gathering = Gathering::new(kind, deltas);
        let options = options
            .with_stream_header_timeout(Duration::from_millis(self.config.timeouts.headers_ms))
            .with_stream_read_timeout(Duration::from_millis(self.config.timeouts.read_ms))
            .with_raw_frame_sink_arc(gathering.listener());
        let asked = self.client.exec_chat_stream(self.target(&request.model), chat, Some(&options)).await;
        let mut stream = asked.map_err(|error| teller.tell(error))?.stream;
        while let Some(event) = stream.next().await {
            match event.map_err(|error| teller.tell(error))? {
                ChatStreamEvent::Chunk(chunk) => gathering.text(chunk.content).await,
                ChatStreamEvent::ReasoningChunk(chunk) => gathering.reasoning(chunk.content).await,
                ChatStreamEvent::ToolCallChunk(chunk) => gathering.call(chunk.tool_call).await,
                ChatStreamEvent::End(end) => {
                    return gathering
                        .reply(end, &request.model)
                        .await
                        .ok_or_else(|| teller.cut("it gave no reason to stop"));
                }
                ChatStreamEvent::Start | ChatStreamEvent::Heartbeat | ChatStreamEvent::ThoughtSignatureChunk(_) => {}
            }
        }
        Err(teller.cut("it ended before the provider said that it is complete"))
    }

    fn target(&self, model: &str) -> ServiceTarget {
        let auth = match &self.config.api_key {
            Some(key) => AuthData::Key(key.expose_secret().to_owned()),
            None => AuthData::None,
        };
        ServiceTarget {
            endpoint: Endpoint::from_owned(self.base_url.as_str()),
            auth,
            model: ModelIden::new(self.config.kind.adapter(self.config.api_key.is_some()), model),
        }
    }

    fn full_name(&self, request: &Request) -> String {
        format!("{}/{}", self.name, request.model)
    }
}

/// A client whose connections are encrypted by ring.
fn client(timeouts: Timeouts) -> Result<Client, String> {
    // An error only says that the process has a provider of cryptography already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let web = reqwest::Client::builder()
        .user_agent(concat!("aldis/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_millis(timeouts.connect_ms))
        .tcp_nodelay(true)
        // A redirect would take the key to another host.
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| error.without_url().to_string())?;
    Client::builder().with_reqwest(web).build().map_err(|error| error.to_string())
}

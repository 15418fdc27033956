//! Streams of events, framed as the stock client reads them (H3): one line of JSON a block, comments in blocks of their own.

use std::convert::Infallible;
use std::fmt::Write as _;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream, StreamExt as _};
use serde_json::Value;

use super::error::Problem;
use super::state::Shared;
use super::watch::Counted;
use crate::runtime::{RunChunks, Seen, Subscription};

/// For whom a stream of a thread is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// The stock client, to which a second line in a block is an error (H3.1).
    Client,
    /// A browser's `EventSource`, which gives the last `id:` back when it comes again.
    EventSource,
}

impl Reader {
    pub(super) fn frame(self, seen: &Seen) -> Event {
        let event = match self {
            Self::Client => Event::default(),
            Self::EventSource => Event::default().id(seen.cursor.to_string()),
        };
        event.data(with_cursor(&seen.chunk, seen.cursor))
    }
}

/// A chunk in one line of JSON, with where it stands (H13.3).
fn with_cursor(chunk: &Value, cursor: i64) -> String {
    let mut text = chunk.to_string();
    if text.len() > 2 && text.ends_with('}') {
        text.pop();
        // Writing to a text cannot fail.
        let _ = write!(text, r#","cursor":"{cursor}"}}"#);
    }
    text
}

/// What is said on a thread, from here on. It ends only with the server (H3.4).
pub(super) fn thread(shared: &Shared, first: Option<Seen>, subscription: Subscription, reader: Reader) -> Response {
    let chunks = stream::unfold(subscription, move |mut subscription| async move {
        match subscription.next().await {
            Ok(seen) => Some((reader.frame(&seen), subscription)),
            Err(error) => {
                tracing::warn!(%error, "a stream ends early; its reader comes back");
                None
            }
        }
    });
    let connected = stream::once(async { Event::default().comment("connected") });
    answer(shared, connected.chain(stream::iter(first).map(move |seen| reader.frame(&seen))).chain(chunks))
}

/// What a run says until it ends or rests; `[DONE]` follows (H3.5).
pub(super) fn run(shared: &Shared, chunks: RunChunks) -> Response {
    let said = stream::unfold(chunks, move |mut chunks| async move {
        match chunks.next().await {
            Ok(Some(seen)) => Some((Reader::Client.frame(&seen), chunks)),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, "the stream of a run ends early");
                None
            }
        }
    });
    ending(shared, said)
}

/// Events that come to an end; `[DONE]` follows (H3.5).
pub(super) fn ending(shared: &Shared, events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let done = stream::once(async { Event::default().data("[DONE]") });
    answer(shared, events.chain(done))
}

/// A chunk that stands in no thread's stream as it is.
pub(super) fn alone(chunk: &Value) -> Event {
    Event::default().data(chunk.to_string())
}

fn answer(shared: &Shared, events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let streams = &shared.metrics.streams;
    if streams.get() >= shared.options.streams_max() {
        return Problem::too_many_streams().into_response();
    }
    let open = Counted::new(streams.clone());
    let events = events.take_until(shared.draining.clone().cancelled_owned()).map(move |event| {
        // It is counted for as long as somebody reads it.
        let _ = &open;
        Ok::<_, Infallible>(event)
    });
    let alive = KeepAlive::new().interval(shared.options.heartbeat).text("heartbeat");
    let mut response = Sse::new(events).keep_alive(alive).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_chunk_is_one_line_with_its_cursor() {
        let chunk = json!({ "type": "text-delta", "payload": { "text": "a\nb" } });
        insta::assert_snapshot!(
            with_cursor(&chunk, 7),
            @r#"{"type":"text-delta","payload":{"text":"a\nb"},"cursor":"7"}"#
        );
    }
}

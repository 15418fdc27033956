//! What every request leaves behind for who operates the server: an id, a line in the log, a count.

use std::fmt;
use std::sync::Mutex;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tracing::Instrument as _;

use super::state::Shared;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id of a request that is taken from its sender.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// What is counted.
pub(super) struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Labels, Counter>,
    seconds: Family<RouteLabel, Histogram, fn() -> Histogram>,
    pub(super) streams: Gauge,
    pub(super) connections: Gauge,
}

/// Something that is open, counted until it is dropped.
pub(super) struct Counted(Gauge);

impl Counted {
    pub(super) fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("aldis");
        let requests = Family::<Labels, Counter>::default();
        let seconds = Family::new_with_constructor((|| Histogram::new(exponential_buckets(0.001, 4.0, 8))) as _);
        let (streams, connections) = (Gauge::default(), Gauge::default());
        registry.register("http_requests", "Requests that were answered", requests.clone());
        registry.register(
            "http_request_seconds",
            "How long requests took; of a stream, until its first byte",
            seconds.clone(),
        );
        registry.register("http_streams", "Streams that are open", streams.clone());
        registry.register("http_connections", "Connections that are open", connections.clone());
        Self { registry: Mutex::new(registry), requests, seconds, streams, connections }
    }

    /// All counts, as Prometheus reads them.
    pub(super) fn text(&self) -> Result<String, fmt::Error> {
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Gives a request its id, logs it and counts it.
pub(super) async fn watch(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let id = request_id(&request);
    let method = request.method().to_string();
    // Not the path: that holds ids, and there are as many as there are threads.
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default(), method, route);
    let begun = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let (took, status) = (begun.elapsed(), response.status());
    span.in_scope(|| tracing::info!(status = status.as_u16(), ms = took.as_millis() as u64, "answered"));
    shared.metrics.requests.get_or_create(&Labels { method, route: route.clone(), status: status.as_u16() }).inc();
    shared.metrics.seconds.get_or_create(&RouteLabel { route }).observe(took.as_secs_f64());
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The sender's id if it is a sane one, else a new one.
fn request_id(request: &Request) -> HeaderValue {
    let sane = |id: &&HeaderValue| {
        !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    let given = request.headers().get(REQUEST_ID).filter(sane).cloned();
    let made = || HeaderValue::try_from(uuid::Uuid::now_v7().to_string());
    given.unwrap_or_else(|| made().unwrap_or_else(|_| HeaderValue::from_static("none")))
}

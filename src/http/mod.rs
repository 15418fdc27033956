//! The server: threads, agents and runs over HTTP, as `@mastra/client-js` speaks it and with Aldis's own routes beside.
//!
//! A face: it reads a request, calls the public [`Client`], and writes the answer; it decides nothing about runs. A file
//! per family of routes, each with its `routes()`. Rules cite the wire's contract by number (`H3.1`, `H7.2`).
//!
//! What is answered with 200 to something sent is durable: SIGKILL right after it loses nothing. Streams hold nothing but a
//! cursor, so a slow reader costs nobody anything, and one that comes back goes on where it was, on any process.

mod accept;
mod agents;
mod approve;
mod auth;
mod caller;
mod docs;
mod error;
mod extract;
mod failures;
mod generate;
mod health;
mod memory;
mod openapi;
mod options;
mod patience;
mod runs;
mod send;
mod shapes;
mod sse;
mod state;
mod subscribe;
mod threads;
mod token;
mod watch;
mod workflows;

use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate as _};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::timeout::TimeoutLayer;
use utoipa_axum::router::OpenApiRouter;

pub use error::{Issue, Problem};
pub use options::{Keys, Options};
pub use token::{Jwt, JwtError};

use crate::runtime::Client;
use accept::Connections;
use state::Shared;

/// A server, ready to be served. It owns no socket and no task.
#[derive(Debug, Clone)]
pub struct Server {
    shared: Shared,
}

impl Server {
    /// A server on this client's store.
    #[must_use]
    pub fn new(client: Client, options: Options) -> Self {
        Self { shared: Shared::new(client, options) }
    }

    /// Ends all streams, so that their readers come back elsewhere, and says of itself that it is not ready.
    #[must_use]
    pub fn draining(&self) -> &CancellationToken {
        &self.shared.draining
    }

    /// All its routes, for a program that has a server already.
    pub fn router(&self) -> Router {
        let options = &self.shared.options;
        let admit = || middleware::from_fn_with_state(self.shared.clone(), auth::let_in);
        let Routes { api, unhurried, counts, open } = Routes::all();
        // What ends by itself is bound in time; a stream's answer is its first byte, so it is too.
        let timely = TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, options.timeout);
        let api = api.layer(timely).merge(unhurried).layer(admit());
        let routes = Routes { api, unhurried: OpenApiRouter::new(), counts: counts.layer(admit()), open };
        let compressed =
            DefaultPredicate::new().and(NotForContentType::const_new("text/plain")).and(NotForContentType::SSE);
        let mut routes = Router::from(routes.under(&options.prefix))
            .fallback(error::no_such_route)
            .method_not_allowed_fallback(error::no_such_method)
            .layer(middleware::map_response(error::in_json))
            .layer(CompressionLayer::new().compress_when(compressed));
        if let Some(cors) = cors(&options.origins) {
            routes = routes.layer(cors);
        }
        routes
            .layer(CatchPanicLayer::custom(error::panicked))
            .layer(DefaultBodyLimit::max(options.body_bytes_max))
            .layer(middleware::from_fn_with_state(self.shared.clone(), watch::watch))
            .with_state(self.shared.clone())
    }

    /// Serves until `stop`. Then no connection is taken any more, streams end so that their readers go elsewhere, and what
    /// was asked before is answered, for `grace` at the most. What was accepted is in the store whatever happens. Dropped,
    /// it ends all its connections at once.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()> + Send, grace: Duration) {
        let Shared { options, metrics, draining, .. } = &self.shared;
        let open = metrics.connections.clone();
        Connections::new(self.router(), options, draining.clone(), open).serve(listener, stop, grace).await;
    }
}

/// All routes, by who may ask. They are registered with what the reference says of them, by one call: there is no other way.
struct Routes {
    /// The wire, under the prefix.
    api: OpenApiRouter<Shared>,
    /// The same, where an answer takes as long as its run.
    unhurried: OpenApiRouter<Shared>,
    /// For who operates the server.
    counts: OpenApiRouter<Shared>,
    /// For everybody.
    open: OpenApiRouter<Shared>,
}

impl Routes {
    fn all() -> Self {
        let api = OpenApiRouter::new()
            .merge(agents::routes())
            .merge(send::routes())
            .merge(subscribe::routes())
            .merge(approve::routes())
            .merge(memory::routes())
            .merge(threads::routes())
            .merge(runs::routes())
            .merge(workflows::routes());
        let open = health::routes().merge(openapi::routes());
        Self { api, unhurried: generate::routes().merge(workflows::unhurried()), counts: health::counts(), open }
    }

    /// With the wire under a prefix.
    fn under(self, prefix: &str) -> OpenApiRouter<Shared> {
        let prefix = prefix.trim_end_matches('/');
        let all = OpenApiRouter::with_openapi(openapi::common());
        let api = self.api.merge(self.unhurried);
        let all = if prefix.is_empty() { all.merge(api) } else { all.nest(prefix, api) };
        all.merge(self.open).merge(self.counts)
    }

    /// What the reference says of them.
    fn document(prefix: &str) -> utoipa::openapi::OpenApi {
        Self::all().under(prefix).into_openapi()
    }
}

/// Which pages of other origins may talk to it (H1.9); none unless it is said.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let any = origins.iter().any(|origin| origin == "*");
    let listed = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    let allowed = if any { AllowOrigin::any() } else { AllowOrigin::list(listed) };
    let headers = [
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        HeaderName::from_static("idempotency-key"),
        HeaderName::from_static("last-event-id"),
        HeaderName::from_static("x-request-id"),
    ];
    let methods = [Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE];
    let cors = CorsLayer::new().allow_origin(allowed).allow_headers(headers).allow_methods(methods);
    Some(if any { cors } else { cors.allow_credentials(true) })
}

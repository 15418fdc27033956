//! Connections: how many are held, how they are talked to, and how they end when the server does.
//!
//! Beyond the bound they wait where the system lets them wait, and those that only stay open for a next request make room.
//! What is not HTTP is answered by 400, an address that is too long by 414, too many headers by 431; each ends the connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::options::Options;
use super::patience::{Activity, Patience, Patient};
use super::watch::Counted;

/// About the most bytes of a request's head, and of what is read or written at once.
const BUFFER: usize = 64 * 1024;

/// How long nothing is accepted after the system has refused to: it is out of descriptors or memory.
const AFTER_A_REFUSAL: Duration = Duration::from_millis(200);

/// From where a request has come; absent where somebody else has accepted it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// A server's connections.
pub(super) struct Connections {
    service: TowerToHyperService<Router>,
    patience: Patience,
    room: Arc<Semaphore>,
    /// Whether there is no room: no connection is kept for a next request then.
    crowded: watch::Sender<bool>,
    /// The server ends: what was asked is answered, and no more.
    ending: CancellationToken,
    /// It has ended.
    over: CancellationToken,
    open: Gauge,
}

impl Connections {
    pub(super) fn new(router: Router, options: &Options, ending: CancellationToken, open: Gauge) -> Self {
        let patience =
            Patience { head: options.head_timeout, idle: options.idle_timeout, stall: options.stall_timeout };
        Self {
            service: TowerToHyperService::new(router),
            patience,
            room: Arc::new(Semaphore::new(options.connections_max.clamp(1, Semaphore::MAX_PERMITS))),
            crowded: watch::Sender::new(false),
            ending,
            over: CancellationToken::new(),
            open,
        }
    }

    /// Takes connections until `stop`, or until the server is told to end otherwise; then lets what was asked be answered,
    /// for `grace` at the most.
    pub(super) async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>, grace: Duration) {
        let connections = Arc::new(self);
        let tasks = TaskTracker::new();
        // Whatever becomes of this future, no connection outlives it.
        let _over = connections.over.clone().drop_guard();
        tokio::select! {
            () = stop => connections.ending.cancel(),
            () = connections.ending.cancelled() => {}
            () = connections.accept(&listener, &tasks) => {}
        }
        drop(listener);
        tasks.close();
        if tokio::time::timeout(grace, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "connections are cut off: the time to end has passed");
        }
    }

    async fn accept(self: &Arc<Self>, listener: &TcpListener, tasks: &TaskTracker) {
        loop {
            let Some(room) = self.room().await else { return };
            match listener.accept().await {
                Ok((socket, peer)) => drop(tasks.spawn(Arc::clone(self).talk(socket, peer, room))),
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "no connection can be accepted for now");
                    tokio::time::sleep(AFTER_A_REFUSAL).await;
                }
            }
        }
    }

    /// Room for one more; while there is none, those that are kept open for a next request end.
    async fn room(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(room) = Arc::clone(&self.room).try_acquire_owned() {
            return Some(room);
        }
        self.crowded.send_replace(true);
        let room = Arc::clone(&self.room).acquire_owned().await;
        self.crowded.send_replace(false);
        room.ok()
    }

    /// One connection, from its first byte to its last.
    async fn talk(self: Arc<Self>, socket: TcpStream, peer: SocketAddr, _room: OwnedSemaphorePermit) {
        let _open = Counted::new(self.open.clone());
        // Small answers leave at once.
        drop(socket.set_nodelay(true));
        let activity = Arc::<Activity>::default();
        let service = service_fn(|request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer.ip().to_canonical()));
            let answering = activity.busy();
            let answer = self.service.call(request);
            let crowded = self.crowded.subscribe();
            async move {
                let mut answer = answer.await?;
                if *crowded.borrow() {
                    answer.headers_mut().entry(header::CONNECTION).or_insert(HeaderValue::from_static("close"));
                }
                // It is under way until the last of its body is written.
                Ok::<_, std::convert::Infallible>(answer.map(|body| {
                    body.map_frame(move |frame| {
                        let _ = &answering;
                        frame
                    })
                }))
            }
        });
        let socket = TokioIo::new(Patient::new(socket, Arc::clone(&activity), self.patience));
        let connection = http1::Builder::new()
            // The socket sees to it.
            .header_read_timeout(None)
            .max_buf_size(BUFFER)
            .serve_connection(socket, service);
        let mut connection = std::pin::pin!(connection);
        let (mut last, mut crowd, mut seen) = (false, self.crowded.subscribe(), false);
        loop {
            tokio::select! {
                // First, so that what has come is read before anything is ended.
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, cause = ?std::error::Error::source(&error), "a connection has ended early");
                    }
                    return;
                }
                () = self.over.cancelled() => return,
                () = self.ending.cancelled(), if !last => {
                    if activity.is_new() {
                        return;
                    }
                    last = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ = crowd.wait_for(|crowded| *crowded != seen), if !last => {
                    seen = !seen;
                    // One that has asked nothing yet may ask once.
                    if seen && !activity.is_new() {
                        last = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        }
    }
}

/// The other side has gone before it was accepted.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

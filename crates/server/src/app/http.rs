//! Serving HTTP: connections, their limits, their orderly end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tempalias_web::Peer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt as _;

/// How long a client may take for the head of a request: a slow one must not hold a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Open connections, all together. Beyond it they wait to be accepted.
pub(super) const MAX_CONNECTIONS: usize = 256;

/// One router on any number of listeners.
#[derive(Debug, Clone)]
pub(super) struct Web {
    router: Router,
    draining: watch::Sender<bool>,
    places: Arc<Semaphore>,
}

impl Web {
    pub(super) fn new(router: Router) -> Self {
        Self {
            router,
            draining: watch::Sender::new(false),
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        }
    }

    /// Accepts connections until [`Web::drain`].
    pub(super) async fn serve(self, listener: TcpListener) {
        let mut draining = self.draining.subscribe();
        loop {
            let Ok(place) = self.places.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = draining.wait_for(|draining| *draining) => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let web = self.clone();
                    tokio::spawn(async move {
                        web.converse(stream, Peer(peer.ip())).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn converse(self, stream: TcpStream, peer: Peer) {
        drop(stream.set_nodelay(true));
        let router = self.router;
        let answer = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer);
            router.clone().oneshot(request)
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), answer);
        let mut connection = std::pin::pin!(connection);
        let mut draining = self.draining.subscribe();
        tokio::select! {
            // A client that breaks off is its own business.
            _ = connection.as_mut() => return,
            _ = draining.wait_for(|draining| *draining) => {}
        }
        connection.as_mut().graceful_shutdown();
        drop(connection.await);
    }

    /// No new connections; waits for open requests, up to `limit`.
    pub(super) async fn drain(&self, limit: Duration) {
        self.draining.send_replace(true);
        let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
        drop(tokio::time::timeout(limit, self.places.acquire_many(all)).await);
    }
}

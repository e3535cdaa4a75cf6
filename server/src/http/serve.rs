//! The listener: accepts connections until the node stops, then lets them finish.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// Time for the head of a request to arrive, counted from the end of the one before.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
/// Pause after an error of `accept`, most of which mean that file descriptors ran out.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// Serves until `app.stopping()` is cancelled; then takes no new connections, and returns when the
/// open requests are answered or the drain timeout is over, whichever is first.
pub async fn serve(app: App, listener: TcpListener) {
    let router = super::router(app.clone());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = app.stopping().cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _peer)) => {
                connections.spawn(connection(stream, router.clone(), app.stopping().clone()));
            }
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_BACK_OFF).await;
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(app.config().drain_timeout, all).await.is_err() {
        tracing::warn!(open = connections.len(), "the drain timeout is over");
        connections.shutdown().await;
    }
}

async fn connection(stream: TcpStream, router: Router, stopping: CancellationToken) {
    // Without it, small writes of a stream wait for the reader's acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("TCP_NODELAY could not be set: {error}");
    }
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended early: {error}");
    }
}

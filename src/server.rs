//! The socket, its limits, and what stands between a peer and the three calls.
//!
//! ```text
//! socket ─▶ accept (peer uid, slots, preface) ─▶ tonic (HTTP/2, its limits) ─▶ guard ─▶ service
//! ```

mod accept;
mod guard;
mod limits;
pub mod socket;

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::transport::Server;
use tower::Service;

use crate::observer::Observer;
use accept::Acceptor;
use guard::GuardLayer;
pub use limits::Limits;
use socket::Socket;

/// What connections need to notice that they were cut, and tasks to end.
const AFTER_CUT: Duration = Duration::from_millis(500);

/// What a server is made of, beside its socket.
pub struct Deps<S> {
    /// Answers the calls.
    pub service: S,
    /// The uids of peers that may connect.
    pub allowed_uids: Vec<u32>,
    /// Counts.
    pub observer: Arc<dyn Observer>,
    /// How much everything may have.
    pub limits: Limits,
}

/// Why serving ended by itself.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The runtime did not take the socket.
    #[error("the socket cannot be served: {0}")]
    Socket(#[from] io::Error),
    /// tonic gave up.
    #[error("the gRPC server ended: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves the socket until `shutdown` is ready. Then accepts nothing more, says GOAWAY, waits for
/// calls that run, and returns at most [`Limits::drain`] and half a second later, whatever a peer
/// does.
///
/// # Errors
/// Where the runtime is out of descriptors at the start.
pub async fn run<S>(
    socket: Socket,
    deps: Deps<S>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let Deps {
        service,
        allowed_uids,
        observer,
        limits,
    } = deps;
    let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
    let acceptor = Acceptor::new(socket, allowed_uids, &limits, observer.clone(), cut.clone())?;
    let mut serving = pin!(
        grpc_server(&limits)
            .layer(GuardLayer::new(observer, limits.call))
            .serve_with_incoming_shutdown(service, acceptor.into_stream(), stop.cancelled())
    );
    tokio::select! {
        ended = &mut serving => return Ok(ended?),
        () = shutdown => stop.cancel(),
    }
    if let Ok(drained) = tokio::time::timeout(limits.drain, &mut serving).await {
        return Ok(drained?);
    }
    tracing::warn!("connections that did not end in time are cut");
    cut.cancel();
    match tokio::time::timeout(AFTER_CUT, serving).await {
        Ok(ended) => Ok(ended?),
        Err(_still_running) => Ok(()),
    }
}

/// tonic's own limits. `max_connection_age` stays unset: with a grace period, tonic cuts calls that
/// run.
fn grpc_server(limits: &Limits) -> Server {
    Server::builder()
        .max_concurrent_streams(limits.streams_per_connection)
        .http2_max_header_list_size(limits.header_list)
        .http2_max_pending_accept_reset_streams(Some(limits.pending_accept_resets))
        .http2_max_local_error_reset_streams(Some(limits.local_error_resets))
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
}

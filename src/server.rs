//! The socket, its limits, and what stands between a peer and the three calls.
//!
//! ```text
//! socket ─▶ accept (peer uid, slots, preface) ─▶ hyper (HTTP/2, its limits) ─▶ guard ─▶ service
//! ```
//!
//! tonic's own server is not between them: its layers serve needs that we do not have, and cost
//! time. `cargo bench --bench socket` compares the whole with a plain tonic server.

mod accept;
mod calls;
mod guard;
mod limits;
pub mod socket;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::Service;

use crate::observer::Observer;
use crate::publication::Connection;
use accept::{Acceptor, Peer};
use calls::Calls;
use guard::Guard;
pub use limits::Limits;
use socket::Socket;

/// What a server is made of, beside its socket.
pub struct Deps<F> {
    /// Makes what answers the calls of one connection.
    pub services: F,
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
}

/// Serves the socket until `shutdown` is ready. Then accepts nothing more, says GOAWAY, waits for
/// calls that run, and returns at most [`Limits::drain`] later, whatever a peer does.
///
/// # Errors
/// Where the runtime is out of descriptors at the start.
pub async fn run<S, F>(
    socket: Socket,
    deps: Deps<F>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    F: Fn(Arc<Connection>) -> S,
    S: Service<http::Request<Incoming>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let Deps {
        services,
        allowed_uids,
        observer,
        limits,
    } = deps;
    let mut acceptor = Acceptor::new(socket, allowed_uids, &limits, observer.clone())?;
    let stop = CancellationToken::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_ended) = connections.join_next() => {}
            peer = acceptor.next() => {
                let caller = peer.caller().clone();
                let service = services(caller.connection.clone());
                let guard = Guard::new(service, caller, observer.clone(), limits.call);
                connections.spawn(serve(peer, guard, limits.clone(), stop.clone()));
            }
        }
    }
    drop(acceptor);
    stop.cancel();
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, drained).await.is_err() {
        tracing::warn!("connections that did not end in time are cut");
        connections.shutdown().await;
    }
    Ok(())
}

/// Serves one connection until its peer ends it; after `stop`, until its calls are answered.
async fn serve<S>(peer: Peer, guard: Guard<S>, limits: Limits, stop: CancellationToken)
where
    S: Service<http::Request<Incoming>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let number = peer.caller().connection.number;
    let answers = service_fn(move |request| guard.call(request));
    let calls = Calls::new(limits.stream);
    let http2 = http2(&limits, calls.clone());
    let mut connection = pin!(http2.serve_connection(TokioIo::new(peer), answers));
    let ended = tokio::select! {
        ended = poll_fn(|context| calls.poll(connection.as_mut(), context)) => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            poll_fn(|context| calls.poll(connection.as_mut(), context)).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(connection = number, %error, "a connection ended by a fault");
    }
}

/// HTTP/2's own limits. A connection's age has none: kube-apiserver keeps its own for ever.
fn http2(limits: &Limits, calls: Calls) -> http2::Builder<Calls> {
    let mut http2 = http2::Builder::new(calls);
    http2
        .timer(TokioTimer::new())
        // gRPC's answers have no date, and a client that reads one has more to do.
        .auto_date_header(false)
        .max_concurrent_streams(limits.streams_per_connection)
        .max_header_list_size(limits.header_list)
        .max_pending_accept_reset_streams(limits.pending_accept_resets)
        .max_local_error_reset_streams(limits.local_error_resets)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    http2
}

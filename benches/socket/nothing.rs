//! The floor: a tonic server with plain defaults that answers constants of Claviger's sizes.
//!
//! No guard, no count, no key: tonic's own codec buffers, the system's allocator, a runtime with
//! one worker as Claviger's. What Claviger needs more than this is what Claviger costs.

use std::convert::Infallible;
use std::path::Path;
use std::task::{Context, Poll};

use claviger_proto::v2::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use futures_util::future::BoxFuture;
use prost::Message;
use tokio::net::UnixListener;
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

const KEY_ID: &str = "k1-00000000000000000000000000000000";
/// A seed of 32 bytes in Claviger's envelope.
const CIPHERTEXT_LEN: usize = 73;

/// Serves until it is killed.
pub(crate) fn serve(socket: &Path) -> crate::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = UnixListener::bind(socket)?;
        let connections = futures_util::stream::unfold(listener, |listener| async {
            Some((listener.accept().await.map(|(stream, _)| stream), listener))
        });
        Ok(Server::builder()
            .serve_with_incoming(Nothing, connections)
            .await?)
    })
}

/// As tonic's code generator writes a service, boxes included.
#[derive(Clone)]
struct Nothing;

impl Service<http::Request<Body>> for Nothing {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match request.uri().path() {
            "/v2.KeyManagementService/Status" => Box::pin(unary(status, request)),
            "/v2.KeyManagementService/Encrypt" => Box::pin(unary(encrypt, request)),
            "/v2.KeyManagementService/Decrypt" => Box::pin(unary(decrypt, request)),
            _ => Box::pin(async { Ok(Status::unimplemented("").into_http()) }),
        }
    }
}

async fn unary<Q, A>(
    answer: fn(&Q) -> A,
    request: http::Request<Body>,
) -> Result<http::Response<Body>, Infallible>
where
    Q: Message + Default + 'static,
    A: Message + 'static,
{
    Ok(Grpc::new(ProstCodec::default())
        .unary(Constant(answer), request)
        .await)
}

struct Constant<Q, A>(fn(&Q) -> A);

impl<Q, A> UnaryService<Q> for Constant<Q, A>
where
    Q: Send + Sync + 'static,
    A: Send + 'static,
{
    type Response = A;
    type Future = BoxFuture<'static, Result<Response<A>, Status>>;

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let answer = self.0;
        Box::pin(async move { Ok(Response::new(answer(request.get_ref()))) })
    }
}

fn status(_: &StatusRequest) -> StatusResponse {
    StatusResponse {
        version: "v2".to_owned(),
        healthz: "ok".to_owned(),
        key_id: KEY_ID.to_owned(),
    }
}

fn encrypt(_: &EncryptRequest) -> EncryptResponse {
    EncryptResponse {
        ciphertext: vec![1; CIPHERTEXT_LEN],
        key_id: KEY_ID.to_owned(),
        annotations: Default::default(),
    }
}

fn decrypt(_: &DecryptRequest) -> DecryptResponse {
    DecryptResponse {
        plaintext: vec![1; crate::driver::SEED.len()],
    }
}

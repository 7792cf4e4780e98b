//! Any body as a gRPC call: answered with a status; never a panic.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use claviger::config::StatusVersion;
use claviger::metrics::Metrics;
use claviger::publication::Connection;
use claviger::service::{Clock, Kms};
use claviger_keystore::testing::{NOW, open_keystore};
use http_body_util::{BodyExt, Full};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;
use tonic::body::Body;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

type Service = BoxCloneSyncService<
    http::Request<Body>,
    http::Response<Body>,
    std::convert::Infallible,
>;

static SERVER: LazyLock<(Runtime, Service)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (keystore, _) = runtime.block_on(open_keystore());
    let metrics = Arc::new(Metrics::new(NOW, || 0).unwrap());
    let clock = Clock { boottime: || Duration::from_secs(1_000), wall: || NOW };
    let kms = Kms::new(keystore, StatusVersion::V2, metrics, Arc::default(), clock);
    (runtime, BoxCloneSyncService::new(kms.into_services()(Connection::new(1, 0).into())))
});

/// The first byte chooses the call and its encoding; the rest is the body, gRPC's frame included.
fn request(input: &[u8]) -> Option<http::Request<Body>> {
    let (choice, body) = input.split_first()?;
    let method = ["Status", "Encrypt", "Decrypt", "Other"][usize::from(choice & 3)];
    let mut request = http::Request::post(format!("/v2.KeyManagementService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if choice & 4 != 0 {
        request = request.header("grpc-encoding", "gzip");
    }
    if choice & 8 != 0 {
        request = request.header("grpc-timeout", "1n");
    }
    request.body(Body::new(Full::from(body.to_vec()))).ok()
}

fuzz_target!(|input: &[u8]| {
    let Some(request) = request(input) else { return };
    let (runtime, service) = &*SERVER;
    let answer = runtime.block_on(async {
        let answer = service.clone().oneshot(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned();
        (parts, trailers)
    });
    let (parts, trailers) = answer;
    assert_eq!(parts.status, 200);
    let told = |headers: &http::HeaderMap| headers.contains_key("grpc-status");
    assert!(told(&parts.headers) || trailers.as_ref().is_some_and(told), "no gRPC status");
});

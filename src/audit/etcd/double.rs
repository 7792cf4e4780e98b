//! An etcd of tests, which can be told to compact in the middle of a scan, or to be an old one.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use prost::bytes::Bytes;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::{Grpc, ServerStreamingService, StreamingService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

use super::messages::{
    RangeRequest, RangeResponse, RangeStreamResponse, ResponseHeader, WatchRequest, WatchResponse,
};
use super::{Etcd, KeyValue};
use crate::config::EtcdConfig;

/// How many keys a part of a stream has.
const PART: usize = 100;

/// It keeps no old values: whatever was overwritten is compacted.
#[derive(Clone)]
pub(in crate::audit) struct Double(Arc<Mutex<State>>);

struct State {
    revision: i64,
    keys: BTreeMap<Bytes, KeyValue>,
    /// Whether it knows `RangeStream`.
    streams: bool,
    /// What happens before each part of a scan is sent; parts are counted over all scans.
    before_part: Box<dyn FnMut(&Double, usize) + Send>,
    parts: usize,
}

impl Double {
    pub(in crate::audit) fn new(
        streams: bool,
        before_part: impl FnMut(&Double, usize) + Send + 'static,
    ) -> Self {
        Self(Arc::new(Mutex::new(State {
            revision: 1,
            keys: BTreeMap::new(),
            streams,
            before_part: Box::new(before_part),
            parts: 0,
        })))
    }

    /// Puts a value, and compacts what was before.
    pub(in crate::audit) fn put(&self, key: &str, value: &[u8]) {
        let mut state = self.state();
        state.revision += 1;
        let key = Bytes::from(key.to_owned());
        let revision = state.revision;
        let kv = state.keys.entry(key.clone()).or_insert(KeyValue {
            key,
            create_revision: revision,
            ..KeyValue::default()
        });
        kv.mod_revision = revision;
        kv.version += 1;
        kv.value = Bytes::from(value.to_vec());
    }

    pub(in crate::audit) fn revision(&self) -> i64 {
        self.state().revision
    }

    /// How many parts were asked for until now: pages, or parts of a stream.
    pub(in crate::audit) fn parts(&self) -> usize {
        self.state().parts
    }

    /// Serves for as long as the runtime runs, and connects to it.
    pub(in crate::audit) async fn serve(&self) -> Etcd {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections = stream::unfold(listener, |listener| async {
            Some((listener.accept().await.map(|(stream, _)| stream), listener))
        });
        let served = Server::builder().serve_with_incoming(self.clone(), connections);
        tokio::spawn(served);
        let config = EtcdConfig {
            endpoints: vec![url],
            ca_file: None,
            client: None,
            prefix: String::new(),
        };
        Etcd::connect(&config).await.unwrap()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next keys, and whether there are more.
    fn part(&self, request: &RangeRequest, limit: usize) -> Result<RangeResponse, Status> {
        let (mut hook, part) = {
            let mut state = self.state();
            state.parts += 1;
            let nothing = Box::new(|_: &Double, _| {});
            let hook = std::mem::replace(&mut state.before_part, nothing);
            (hook, state.parts)
        };
        hook(self, part);
        let mut state = self.state();
        state.before_part = hook;
        if request.revision != 0 && request.revision < state.revision {
            let message = "etcdserver: mvcc: required revision has been compacted";
            return Err(Status::out_of_range(message));
        }
        let from = (Bound::Included(request.key.clone()), Bound::Unbounded);
        let mut kvs: Vec<KeyValue> = state
            .keys
            .range(from)
            .take(limit + 1)
            .map(|(_, kv)| kv.clone())
            .collect();
        let more = kvs.len() > limit;
        kvs.truncate(limit);
        Ok(RangeResponse {
            kvs,
            more,
            ..RangeResponse::default()
        })
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Status> {
        if !request.count_only {
            return self.part(request, request.limit as usize);
        }
        let state = self.state();
        Ok(RangeResponse {
            header: Some(ResponseHeader {
                cluster_id: 1,
                revision: state.revision,
                raft_term: 1,
            }),
            count: state.keys.len() as i64,
            ..RangeResponse::default()
        })
    }

    fn range_stream(&self, mut request: RangeRequest) -> Vec<Result<RangeStreamResponse, Status>> {
        let mut parts = Vec::new();
        loop {
            match self.part(&request, PART) {
                Ok(range) => {
                    let next = range.kvs.last().map(|kv| [&kv.key[..], &[0]].concat());
                    let more = range.more;
                    parts.push(Ok(RangeStreamResponse { range: Some(range) }));
                    match next {
                        Some(next) if more => request.key = next.into(),
                        _ => return parts,
                    }
                }
                Err(status) => {
                    parts.push(Err(status));
                    return parts;
                }
            }
        }
    }
}

impl Service<http::Request<Body>> for Double {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let double = self.clone();
        let streams = self.state().streams;
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/etcdserverpb.KV/Range" => grpc().unary(double, request).await,
                "/etcdserverpb.KV/RangeStream" if streams => {
                    let mut grpc = Grpc::new(ProstCodec::default());
                    grpc.server_streaming(double, request).await
                }
                "/etcdserverpb.Watch/Watch" => {
                    let mut grpc = Grpc::new(ProstCodec::default());
                    grpc.streaming(double, request).await
                }
                _ => Status::unimplemented("unknown method").into_http(),
            })
        })
    }
}

fn grpc() -> Grpc<ProstCodec<RangeResponse, RangeRequest>> {
    Grpc::new(ProstCodec::default())
}

impl UnaryService<RangeRequest> for Double {
    type Response = RangeResponse;
    type Future = BoxFuture<'static, Result<Response<RangeResponse>, Status>>;

    fn call(&mut self, request: Request<RangeRequest>) -> Self::Future {
        let answer = self.range(request.get_ref()).map(Response::new);
        Box::pin(async { answer })
    }
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

impl ServerStreamingService<RangeRequest> for Double {
    type Response = RangeStreamResponse;
    type ResponseStream = Answers<RangeStreamResponse>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<RangeRequest>) -> Self::Future {
        let parts = self.range_stream(request.into_inner());
        Box::pin(async { Ok(Response::new(stream::iter(parts).boxed())) })
    }
}

impl StreamingService<WatchRequest> for Double {
    type Response = WatchResponse;
    type ResponseStream = Answers<WatchResponse>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    /// Nothing before the newest revision is to be seen.
    fn call(&mut self, _: Request<Streaming<WatchRequest>>) -> Self::Future {
        let compacted = WatchResponse {
            compact_revision: self.revision(),
            ..WatchResponse::default()
        };
        Box::pin(async { Ok(Response::new(stream::iter([Ok(compacted)]).boxed())) })
    }
}

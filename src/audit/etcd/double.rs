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
    RangeRequest, RangeResponse, RangeStreamResponse, RequestOp, ResponseHeader, ResponseOp,
    TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};
use super::{Etcd, Event, KeyValue};
use crate::config::EtcdConfig;

/// How many keys a part of a stream has.
const PART: usize = 100;

/// It keeps events, and no old values: what asks for those must find them compacted.
#[derive(Clone)]
pub(in crate::audit) struct Double(Arc<Mutex<State>>);

/// It is given the number of the part.
type Hook = Box<dyn FnMut(&Double, usize) + Send>;

struct State {
    revision: i64,
    compacted: i64,
    keys: BTreeMap<Bytes, KeyValue>,
    /// What happened since the compaction, at it included.
    events: Vec<Event>,
    /// Whether it knows `RangeStream`.
    streams: bool,
    /// What happens before each part of a scan is sent; parts are counted over all scans.
    before_part: Hook,
    parts: usize,
}

impl Double {
    pub(in crate::audit) fn new(
        streams: bool,
        before_part: impl FnMut(&Double, usize) + Send + 'static,
    ) -> Self {
        Self(Arc::new(Mutex::new(State {
            revision: 1,
            compacted: 0,
            keys: BTreeMap::new(),
            events: Vec::new(),
            streams,
            before_part: Box::new(before_part),
            parts: 0,
        })))
    }

    /// Puts a value.
    pub(in crate::audit) fn put(&self, key: &str, value: &[u8]) {
        let mut state = self.state();
        state.revision += 1;
        let key = Bytes::from(key.to_owned());
        let revision = state.revision;
        let before = state.keys.get(&key).cloned();
        let mut kv = before.clone().unwrap_or(KeyValue {
            key: key.clone(),
            create_revision: revision,
            ..KeyValue::default()
        });
        kv.mod_revision = revision;
        kv.version += 1;
        kv.value = Bytes::from(value.to_vec());
        state.keys.insert(key, kv.clone());
        state.events.push(Event {
            kind: 0,
            kv: Some(kv),
            prev_kv: before,
        });
    }

    /// Deletes a key that is there.
    pub(in crate::audit) fn delete(&self, key: &str) {
        let mut state = self.state();
        state.revision += 1;
        let before = state.keys.remove(key.as_bytes()).unwrap();
        let event = Event {
            kind: 1,
            kv: Some(KeyValue {
                key: before.key.clone(),
                mod_revision: state.revision,
                ..KeyValue::default()
            }),
            prev_kv: Some(before),
        };
        state.events.push(event);
    }

    /// Compacts everything up to now.
    pub(in crate::audit) fn compact(&self) {
        let mut state = self.state();
        state.compacted = state.revision;
        let newest = state.revision;
        let at = |event: &Event| event.kv.as_ref().unwrap().mod_revision;
        state
            .events
            .retain(|event| at(event) == newest && event.kind == 0);
        state
            .events
            .iter_mut()
            .for_each(|event| event.prev_kv = None);
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
        if request.revision != 0 && request.revision < state.compacted {
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
                "/etcdserverpb.KV/Txn" => {
                    let mut grpc = Grpc::new(ProstCodec::default());
                    grpc.unary(Values(double), request).await
                }
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

/// Reads single keys.
struct Values(Double);

impl UnaryService<TxnRequest> for Values {
    type Response = TxnResponse;
    type Future = BoxFuture<'static, Result<Response<TxnResponse>, Status>>;

    fn call(&mut self, request: Request<TxnRequest>) -> Self::Future {
        let state = self.0.state();
        let answer = |operation: RequestOp| ResponseOp {
            range: operation.range.map(|range| RangeResponse {
                kvs: state.keys.get(&range.key).cloned().into_iter().collect(),
                ..RangeResponse::default()
            }),
        };
        let operations = request.into_inner().success.into_iter();
        let answer = TxnResponse {
            responses: operations.map(answer).collect(),
        };
        Box::pin(async { Ok(Response::new(answer)) })
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

    /// Answers what there is, and stays open.
    fn call(&mut self, request: Request<Streaming<WatchRequest>>) -> Self::Future {
        let double = self.clone();
        Box::pin(async move {
            let asked = request.into_inner().message().await?;
            let from = asked.and_then(|asked| asked.create).unwrap().start_revision;
            let state = double.state();
            let at = |event: &&Event| event.kv.as_ref().unwrap().mod_revision >= from;
            let answer = match from < state.compacted {
                true => WatchResponse {
                    compact_revision: state.compacted,
                    ..WatchResponse::default()
                },
                false => WatchResponse {
                    events: state.events.iter().filter(at).cloned().collect(),
                    ..WatchResponse::default()
                },
            };
            let answers = stream::iter([Ok(answer)]).chain(stream::pending());
            Ok(Response::new(answers.boxed()))
        })
    }
}

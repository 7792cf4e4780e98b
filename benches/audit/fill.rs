//! Objects as kube-apiserver stores them, put into etcd in large transactions.

use std::collections::BTreeMap;

use claviger_proto::Codec;
use claviger_proto::stored::EncryptedObject;
use futures_util::{StreamExt, stream};
use http::uri::PathAndQuery;
use prost::Message;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::Endpoint;

/// How many operations one transaction has; etcd's own limit.
const OPERATIONS: usize = 128;
/// How many transactions are under way at once.
const AT_ONCE: usize = 8;
/// How many namespaces there are.
const NAMESPACES: usize = 500;
/// How many seeds: as many as kube-apiservers have been started.
const SEEDS: usize = 6;
/// The bytes of a wrapped seed.
const SEED: usize = 73;
/// The bytes of an object, header and all.
const VALUE: usize = 400;
/// What an object is encrypted under. The first has the most, as after a rotation.
const KEY_IDS: [&str; 3] = [
    "k1-ed41dddad06fa5a51ae4b71183601342",
    "k1-3f2a90b1d06fa5a51ae4b71183601342",
    "k1-7c01e9aad06fa5a51ae4b71183601342",
];

/// `etcdserverpb.TxnRequest` without conditions
#[derive(Clone, PartialEq, prost::Message)]
struct TxnRequest {
    #[prost(message, repeated, tag = "2")]
    success: Vec<RequestOp>,
}

/// `etcdserverpb.RequestOp` that writes
#[derive(Clone, PartialEq, prost::Message)]
struct RequestOp {
    #[prost(message, optional, tag = "2")]
    put: Option<PutRequest>,
}

/// `etcdserverpb.PutRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// Puts these objects; another generation has other bytes.
pub(crate) async fn put(url: &str, objects: impl Iterator<Item = usize>, generation: u8) {
    let channel = Endpoint::from_shared(url.to_owned()).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut objects = objects.peekable();
    let transactions = std::iter::from_fn(|| {
        objects.peek()?;
        let some = objects.by_ref().take(OPERATIONS);
        let puts = some.map(|object| RequestOp {
            put: Some(PutRequest {
                key: key(object).into_bytes(),
                value: value(object, generation),
            }),
        });
        Some(TxnRequest {
            success: puts.collect(),
        })
    });
    let send = async |transaction| {
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Txn");
        let codec = Codec::<TxnRequest, ()>::default();
        let put = grpc.unary(Request::new(transaction), path, codec).await;
        put.unwrap();
    };
    stream::iter(transactions)
        .for_each_concurrent(AT_ONCE, send)
        .await;
}

/// Neighbours in etcd's revisions are none among its keys, as in any cluster that lives.
fn key(object: usize) -> String {
    let kind = if object % 10 < 7 {
        "secrets"
    } else {
        "configmaps"
    };
    let namespace = object % NAMESPACES;
    format!("/registry/{kind}/team-{namespace:03}/object-{object:07}")
}

fn value(object: usize, generation: u8) -> Vec<u8> {
    let mut value = b"k8s:enc:kms:v2:claviger:".to_vec();
    let mut message = EncryptedObject {
        encrypted_data: Vec::new(),
        key_id: KEY_IDS[(object % 20).saturating_sub(17)].to_owned(),
        encrypted_dek_source: vec![(object % SEEDS) as u8; SEED],
        annotations: BTreeMap::new(),
        encrypted_dek_source_type: 1,
    };
    // The data has its tag and a length of two bytes before it.
    let rest = VALUE - value.len() - message.encoded_len() - 3;
    let noise = (object as u64 ^ u64::from(generation) << 32) | 1;
    let bytes = (1..).map(|n: u64| (noise.wrapping_mul(n << 8 | 0x9d) >> 24) as u8);
    message.encrypted_data = bytes.take(rest).collect();
    message.encode(&mut value).unwrap();
    value
}

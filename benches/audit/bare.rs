//! The programs that `audit` is compared with: they read what it reads, by the same calls, and throw
//! it away.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;

use claviger_proto::Codec;
use http::uri::PathAndQuery;
use prost::bytes::Buf;
use rustix::fs::{Advice, fadvise};
use sha2::{Digest, Sha256};
use tonic::client::Grpc;
use tonic::codec::{DecodeBuf, Decoder};
use tonic::transport::Endpoint;
use tonic::{Request, Status};

/// As much as the audit lets etcd send ahead.
const WINDOW: u32 = 4 * 1024 * 1024;
/// No answer is longer.
const LONGEST: usize = 64 * 1024 * 1024;

/// `etcdserverpb.RangeRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    range_end: Vec<u8>,
}

/// Asks etcd for every key and value in one stream, as the audit does. What comes is not even taken
/// apart: gRPC's frames are passed over.
pub(crate) fn client(url: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
        let endpoint = endpoint
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW);
        let channel = endpoint.connect().await.unwrap();
        let mut grpc = Grpc::new(channel).max_decoding_message_size(LONGEST);
        grpc.ready().await.unwrap();
        let every_key = RangeRequest {
            key: vec![0],
            range_end: vec![0],
        };
        let path = PathAndQuery::from_static("/etcdserverpb.KV/RangeStream");
        let answers = grpc.server_streaming(Request::new(every_key), path, Discard::default());
        let mut answers = answers.await.unwrap().into_inner();
        let mut bytes = 0;
        while let Some(length) = answers.message().await.unwrap() {
            bytes += length;
        }
        assert!(bytes > 0, "etcd is empty");
    });
}

/// Sends protobuf, and of what comes tells only its length.
#[derive(Default)]
struct Discard(Codec<RangeRequest, ()>);

impl tonic::codec::Codec for Discard {
    type Encode = RangeRequest;
    type Decode = usize;
    type Encoder = <Codec<RangeRequest, ()> as tonic::codec::Codec>::Encoder;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Self::default()
    }
}

impl Decoder for Discard {
    type Item = usize;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<usize>, Status> {
        let length = message.remaining();
        message.advance(length);
        Ok(Some(length))
    }
}

/// Reads every page of a bbolt file in the order in which they lie there, each by a read of its own
/// into the same buffer, and looks at none of them; or hashes them, and looks at nothing else.
pub(crate) fn pages(path: &Path, hash: bool) {
    let file = File::open(path).unwrap();
    let length = file.metadata().unwrap().len();
    let mut size = [0; 4];
    // The first meta page says how long pages are.
    file.read_exact_at(&mut size, 24).unwrap();
    let size = u64::from(u32::from_le_bytes(size));
    let mut page = vec![0; usize::try_from(size).unwrap()];
    let mut hasher = Sha256::new();
    for id in 0..length / size {
        file.read_exact_at(&mut page, id * size).unwrap();
        if hash {
            hasher.update(&page);
        }
    }
    if hash {
        let mut appended = [0; 32];
        file.read_exact_at(&mut appended, length / size * size)
            .unwrap();
        assert_eq!(hasher.finalize()[..], appended, "another file");
    }
    black_box(page);
}

/// Has the kernel forget what it keeps of a file, so that it is read from the disk again. A folder in
/// memory (tmpfs) has no disk.
pub(crate) fn forget(path: &Path) {
    let file = File::open(path).unwrap();
    // What is not on the disk yet is not forgotten.
    file.sync_all().unwrap();
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
}

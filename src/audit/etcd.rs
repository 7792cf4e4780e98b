//! A client of etcd that only reads.
//!
//! One end point is used for a whole audit: the first that answers. The pinned revision makes all
//! members' answers the same, so another one would tell nothing new.

#[cfg(test)]
pub(super) mod double;
mod messages;

use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use claviger_proto::Codec;
use http::uri::PathAndQuery;
use prost::Message;
use prost::bytes::Bytes;
use tonic::client::Grpc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};

use crate::config::EtcdConfig;
pub use messages::{Event, KeyValue};
use messages::{
    RangeRequest, RangeResponse, RangeStreamResponse, RequestOp, TxnRequest, TxnResponse,
    WatchCreateRequest, WatchRequest, WatchResponse,
};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long one answer may take. etcd gives up on its own requests after some seconds.
const ANSWER: Duration = Duration::from_secs(60);
/// The window in which etcd may send ahead of us: one page.
const WINDOW: u32 = 4 * 1024 * 1024;
/// A page that is longer is asked for in smaller ones.
const MAX_PAGE: usize = 16 * 1024 * 1024;
/// A single value that is longer is none of Kubernetes'.
const MAX_VALUE: usize = 256 * 1024 * 1024;
/// As the end of a range, and as a key, it means every key there is.
const EVERY_KEY: Bytes = Bytes::from_static(&[0]);
/// How many operations a transaction may have unless etcd was told otherwise (`--max-txn-ops`).
const MAX_OPERATIONS: usize = 128;

/// A connection to etcd.
#[derive(Debug, Clone)]
pub struct Etcd {
    channel: Channel,
    endpoint: String,
}

/// Why etcd did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// A certificate or key cannot be read.
    #[error("{}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// No end point can be reached; one line for each.
    #[error("{0}")]
    Unreachable(String),
    /// etcd has compacted the revision that was asked for.
    #[error("etcd compacted the revision that was being read")]
    Compacted,
    /// A page is longer than what is read at once.
    #[error("a page is longer than what is read at once")]
    TooLong,
    /// etcd refuses this client.
    #[error("etcd refuses this client: {0}")]
    Denied(String),
    /// The connection broke, or etcd has no leader, or does not answer in time.
    #[error("{0}")]
    Away(String),
    /// This etcd is older than what was asked of it.
    #[error("etcd does not know what was asked")]
    Unknown,
    /// Anything else.
    #[error("etcd answers {code:?}: {message}")]
    Other {
        /// The gRPC code.
        code: Code,
        /// The gRPC message.
        message: String,
    },
    /// What it answers contradicts itself.
    #[error("etcd's answers contradict each other: {0}")]
    Contradiction(String),
}

/// What identifies the state of an etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// The cluster's id.
    pub cluster: u64,
    /// How many elections it has seen; it never goes back but by a restore.
    pub term: u64,
    /// The revision.
    pub revision: i64,
    /// How many keys there are at this revision; 0 until [`Etcd::count`] has told.
    pub keys: u64,
}

/// Some keys that follow each other.
#[derive(Debug)]
pub struct Page {
    /// The keys, in their order.
    pub kvs: Vec<KeyValue>,
    /// Whether there are keys after these.
    pub more: bool,
}

impl Etcd {
    /// Connects to the first end point that answers.
    ///
    /// # Errors
    /// [`EtcdError::File`], and [`EtcdError::Unreachable`] with what is wrong with each end point.
    pub async fn connect(config: &EtcdConfig) -> Result<Self, EtcdError> {
        let mut tried = Vec::new();
        for endpoint in &config.endpoints {
            let attempt = async {
                let channel = channel(endpoint, config).await?;
                let etcd = Self {
                    channel,
                    endpoint: endpoint.clone(),
                };
                // A refused client certificate shows only when something is asked.
                etcd.pin().await.map(|_| etcd)
            };
            match attempt.await {
                Ok(etcd) => return Ok(etcd),
                Err(e @ (EtcdError::File { .. } | EtcdError::Denied(_))) => return Err(e),
                Err(e) => tried.push(format!("{endpoint}: {e}")),
            }
        }
        Err(EtcdError::Unreachable(tried.join("\n")))
    }

    /// Which end point it is.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The revision now, by a linearizable read.
    pub async fn pin(&self) -> Result<Pin, EtcdError> {
        // Of a key that is not there: etcd goes through all of them where all are counted.
        let request = RangeRequest {
            key: EVERY_KEY,
            count_only: true,
            ..Default::default()
        };
        let answer: RangeResponse = self
            .call("/etcdserverpb.KV/Range", request, MAX_PAGE)
            .await?;
        let header = answer
            .header
            .ok_or_else(|| EtcdError::Contradiction("an answer without a header".to_owned()))?;
        Ok(Pin {
            cluster: header.cluster_id,
            term: header.raft_term,
            revision: header.revision,
            keys: 0,
        })
    }

    /// How many keys there are at a revision.
    pub async fn count(&self, revision: i64) -> Result<u64, EtcdError> {
        let request = RangeRequest {
            key: EVERY_KEY,
            range_end: EVERY_KEY,
            revision,
            count_only: true,
            ..Default::default()
        };
        let answer: RangeResponse = self
            .call("/etcdserverpb.KV/Range", request, MAX_PAGE)
            .await?;
        Ok(u64::try_from(answer.count).unwrap_or_default())
    }

    /// At most `limit` keys from `start` on, as they were at a revision; with their values unless
    /// `keys_only`.
    pub async fn page(
        &self,
        start: Bytes,
        limit: usize,
        revision: i64,
        keys_only: bool,
    ) -> Result<Page, EtcdError> {
        let request = RangeRequest {
            key: if start.is_empty() { EVERY_KEY } else { start },
            range_end: EVERY_KEY,
            limit: i64::try_from(limit).unwrap_or(i64::MAX),
            revision,
            keys_only,
            ..Default::default()
        };
        let longest = if limit == 1 { MAX_VALUE } else { MAX_PAGE };
        let answer: RangeResponse = self
            .call("/etcdserverpb.KV/Range", request, longest)
            .await?;
        Ok(Page {
            kvs: answer.kvs,
            more: answer.more,
        })
    }

    /// Every key as it was at a revision, in one answer of many parts: etcd does not count what is
    /// left for each of them, as it does for pages.
    pub async fn stream(&self, revision: i64, keys_only: bool) -> Result<KeyStream, EtcdError> {
        let request = RangeRequest {
            key: EVERY_KEY,
            range_end: EVERY_KEY,
            revision,
            keys_only,
            ..Default::default()
        };
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_PAGE);
        grpc.ready().await.map_err(|e| EtcdError::Away(chain(&e)))?;
        let path = PathAndQuery::from_static("/etcdserverpb.KV/RangeStream");
        let codec = Codec::<RangeRequest, RangeStreamResponse>::default();
        let answers = grpc.server_streaming(Request::new(request), path, codec);
        Ok(KeyStream {
            answers: answers.await.map_err(error)?.into_inner(),
        })
    }

    /// These keys as they were at a revision, in their order; all of them must have been there.
    pub async fn values(&self, keys: &[Bytes], revision: i64) -> Result<Vec<KeyValue>, EtcdError> {
        let mut values = Vec::with_capacity(keys.len());
        for keys in keys.chunks(MAX_OPERATIONS) {
            let operation = |key: &Bytes| RequestOp {
                range: Some(RangeRequest {
                    key: key.clone(),
                    revision,
                    ..Default::default()
                }),
            };
            let request = TxnRequest {
                success: keys.iter().map(operation).collect(),
            };
            let answer: TxnResponse = self
                .call("/etcdserverpb.KV/Txn", request, MAX_VALUE)
                .await?;
            let found = answer.responses.into_iter().filter_map(|op| op.range);
            let before = values.len();
            values.extend(found.flat_map(|range| range.kvs));
            if values.len() - before != keys.len() {
                let message = "a key that was listed cannot be read at the same revision";
                return Err(EtcdError::Contradiction(message.to_owned()));
            }
        }
        Ok(values)
    }

    /// Every event from a revision on; each with the value before it, if that is asked for.
    ///
    /// To cut a long answer into fragments, etcd measures it anew for each event in it: a second for
    /// ten thousand. Uncut, one that is too long is [`EtcdError::TooLong`].
    pub async fn watch(&self, from: i64, before: bool, cut: bool) -> Result<Watch, EtcdError> {
        let create = WatchCreateRequest {
            key: EVERY_KEY,
            range_end: EVERY_KEY,
            start_revision: from,
            prev_kv: before,
            fragment: cut,
        };
        let request = WatchRequest {
            create: Some(create),
        };
        // The stream of requests must stay open: its end is the watch's end.
        let requests = futures_util::stream::unfold(Some(request), async |next| match next {
            Some(request) => Some((request, None)),
            None => std::future::pending().await,
        });
        let longest = if cut { MAX_VALUE } else { MAX_PAGE };
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(longest);
        grpc.ready().await.map_err(|e| EtcdError::Away(chain(&e)))?;
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let codec = Codec::<WatchRequest, WatchResponse>::default();
        let answers = grpc.streaming(Request::new(requests), path, codec).await;
        Ok(Watch {
            answers: answers.map_err(error)?.into_inner(),
        })
    }

    async fn call<A, B>(&self, path: &'static str, request: A, max: usize) -> Result<B, EtcdError>
    where
        A: Message + Send + Sync + 'static,
        B: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(max);
        let call = async {
            grpc.ready()
                .await
                .map_err(|e| Status::unavailable(chain(&e)))?;
            let path = PathAndQuery::from_static(path);
            grpc.unary(Request::new(request), path, Codec::<A, B>::default())
                .await
        };
        match tokio::time::timeout(ANSWER, call).await {
            Ok(answer) => Ok(answer.map_err(error)?.into_inner()),
            Err(_) => Err(EtcdError::Away(format!(
                "no answer within {} s",
                ANSWER.as_secs()
            ))),
        }
    }
}

/// Keys as they come.
#[derive(Debug)]
pub struct KeyStream {
    answers: Streaming<RangeStreamResponse>,
}

impl KeyStream {
    /// The next keys; none after the last.
    pub async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, EtcdError> {
        match tokio::time::timeout(ANSWER, self.answers.message()).await {
            Ok(answer) => {
                let answer = answer.map_err(error)?;
                Ok(answer.map(|answer| answer.range.unwrap_or_default().kvs))
            }
            Err(_) => Err(EtcdError::Away(format!(
                "no keys within {} s",
                ANSWER.as_secs()
            ))),
        }
    }
}

/// Events as they come.
#[derive(Debug)]
pub struct Watch {
    answers: Streaming<WatchResponse>,
}

/// What a watch says next.
#[derive(Debug)]
pub enum Watched {
    /// Some events in the order of their revisions. `whole` unless others of the last one's
    /// revision may follow.
    Events {
        /// The events.
        events: Vec<Event>,
        /// Whether the last revision is complete.
        whole: bool,
    },
    /// Everything before this revision is compacted, so the watch must begin after it.
    Compacted(i64),
}

impl Watch {
    /// The next events.
    pub async fn next(&mut self) -> Result<Watched, EtcdError> {
        loop {
            let answer = tokio::time::timeout(ANSWER, self.answers.message()).await;
            let answer = match answer {
                Ok(answer) => answer.map_err(error)?,
                Err(_) => {
                    let message = format!("no event within {} s", ANSWER.as_secs());
                    return Err(EtcdError::Away(message));
                }
            };
            let answer = answer.ok_or_else(|| EtcdError::Away("the watch ended".to_owned()))?;
            if answer.compact_revision > 0 {
                return Ok(Watched::Compacted(answer.compact_revision));
            }
            if answer.canceled {
                return Err(EtcdError::Denied(answer.cancel_reason));
            }
            if !answer.events.is_empty() {
                return Ok(Watched::Events {
                    events: answer.events,
                    whole: !answer.fragment,
                });
            }
        }
    }
}

async fn channel(endpoint: &str, config: &EtcdConfig) -> Result<Channel, EtcdError> {
    let unusable = |e: tonic::transport::Error| EtcdError::Away(chain(&e));
    let mut builder = Endpoint::from_shared(endpoint.to_owned())
        .map_err(unusable)?
        .connect_timeout(CONNECT)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW);
    if endpoint.starts_with("https://") {
        let mut tls = ClientTlsConfig::new();
        if let Some(path) = &config.ca_file {
            tls = tls.ca_certificate(Certificate::from_pem(read(path)?));
        }
        if let Some(client) = &config.client {
            let (cert, key) = (read(&client.cert_file)?, read(&client.key_file)?);
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        builder = builder.tls_config(tls).map_err(unusable)?;
    }
    match tokio::time::timeout(2 * CONNECT, builder.connect()).await {
        Ok(connected) => connected.map_err(unusable),
        Err(_) => Err(EtcdError::Away("no connection in time".to_owned())),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, EtcdError> {
    fs::read(path).map_err(|cause| EtcdError::File {
        path: path.to_owned(),
        cause,
    })
}

/// Sorts what etcd and the client's own layers say.
///
/// Source of the messages: etcd 3.7, `api/v3rpc/rpctypes/error.go`.
fn error(status: Status) -> EtcdError {
    let message = status.message();
    match status.code() {
        Code::OutOfRange if message.contains("has been compacted") => EtcdError::Compacted,
        Code::OutOfRange | Code::ResourceExhausted if message.contains("too large") => {
            EtcdError::TooLong
        }
        Code::Unimplemented => EtcdError::Unknown,
        Code::PermissionDenied | Code::Unauthenticated => EtcdError::Denied(message.to_owned()),
        Code::InvalidArgument if message.contains("user name is empty") => {
            EtcdError::Denied(message.to_owned())
        }
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
            EtcdError::Away(chain(&status))
        }
        Code::Unknown if status.source().is_some() => EtcdError::Away(chain(&status)),
        code => EtcdError::Other {
            code,
            message: message.to_owned(),
        },
    }
}

/// An error with its causes, each once: tonic's own text hides them.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = match error.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => error.to_string(),
    };
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

//! The load: callers that send the next call when the last one is answered, as kube-apiserver would.
//!
//! It speaks HTTP/2 through `h2` alone, with requests that were made before, so that the server is
//! what limits the rate, as far as a client on the same machine can see to that.

use std::fmt;
use std::future::poll_fn;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use claviger_proto::v2::{
    DecryptRequest, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use h2::client::SendRequest;
use hdrhistogram::Histogram;
use http::{HeaderMap, Method, Request, StatusCode};
use prost::Message;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::{Result, host};

/// What kube-apiserver has wrapped.
pub(crate) const SEED: [u8; 32] = [7; 32];
/// As long as kube-apiserver's.
const UID: &str = "6f1ed002-ab5c-4c3e-9f1e-000000000000";

/// The longest call that the histogram tells apart, in nanoseconds.
const LONGEST: u64 = 10_000_000_000;

/// How many callers share how many connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) callers: usize,
    pub(crate) connections: usize,
}

impl FromStr for Load {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let numbers = text.split_once('x').and_then(|(callers, connections)| {
            Some((callers.parse().ok()?, connections.parse().ok()?))
        });
        match numbers {
            Some((callers, connections)) if callers >= connections && connections > 0 => Ok(Self {
                callers,
                connections,
            }),
            _ => Err("want CALLERSxCONNECTIONS, such as 16x4".to_owned()),
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}x{}", self.callers, self.connections))
    }
}

/// What one server did under one load in one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Per second.
    pub(crate) calls: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    /// Microseconds.
    pub(crate) p99: f64,
    /// Microseconds.
    pub(crate) p999: f64,
    /// Processor time of the server for each call, in microseconds.
    pub(crate) server_cpu: f64,
    /// Processor time of the driver for each call, in microseconds.
    pub(crate) driver_cpu: f64,
    /// The part of all processors that neither of the two had.
    pub(crate) others_cpu: f64,
}

/// A request that was made before.
#[derive(Clone)]
pub(crate) struct Prepared {
    head: Request<()>,
    message: Bytes,
}

impl Prepared {
    fn new(method: &str, message: &impl Message) -> Result<Self> {
        // As grpc-go sends it for kube-apiserver, which gives each call 3 s.
        let head = Request::builder()
            .method(Method::POST)
            .uri(format!("http://localhost/v2.KeyManagementService/{method}"))
            .header("content-type", "application/grpc")
            .header("user-agent", "grpc-go/1.76.0")
            .header("te", "trailers")
            .header("grpc-timeout", "2999999u")
            .body(())?;
        let mut frame = BytesMut::with_capacity(256);
        frame.put_u8(0); // not compressed
        frame.put_u32(u32::try_from(message.encoded_len())?);
        message.encode(&mut frame)?;
        Ok(Self {
            head,
            message: frame.freeze(),
        })
    }

    /// Encrypt of a seed.
    pub(crate) fn encrypt() -> Result<Self> {
        Self::new(
            "Encrypt",
            &EncryptRequest {
                plaintext: SEED.to_vec(),
                uid: UID.to_owned(),
            },
        )
    }

    /// Decrypt of what this server makes of a seed.
    pub(crate) async fn decrypt(socket: &Path) -> Result<Self> {
        let answer = call(&mut connect(socket).await?, &Self::encrypt()?).await?;
        let sealed: EncryptResponse = message(&answer)?;
        let request = DecryptRequest {
            ciphertext: sealed.ciphertext,
            uid: UID.to_owned(),
            key_id: sealed.key_id,
            annotations: sealed.annotations,
        };
        Self::new("Decrypt", &request)
    }
}

/// Whether a Status call is answered well now.
pub(crate) async fn is_well(connection: &mut SendRequest<Bytes>) -> Result<bool> {
    let status = Prepared::new("Status", &StatusRequest {})?;
    // A refusal is an answer too, but not a good one.
    let Ok(answer) = call(connection, &status).await else {
        return Ok(false);
    };
    Ok(message::<StatusResponse>(&answer)?.healthz == "ok")
}

/// One HTTP/2 connection.
pub(crate) async fn connect(socket: &Path) -> Result<SendRequest<Bytes>> {
    let (requests, connection) = h2::client::handshake(UnixStream::connect(socket).await?).await?;
    // If it breaks, the calls on it say so.
    tokio::spawn(connection);
    Ok(requests)
}

/// When a load is applied, and when it counts.
pub(crate) struct Timing {
    pub(crate) warm_up: Duration,
    pub(crate) length: Duration,
}

/// Applies a load to the server with this process id.
pub(crate) fn run(
    runtime: &Runtime,
    socket: &Path,
    request: &Prepared,
    load: Load,
    timing: &Timing,
    pid: u32,
) -> Result<Slice> {
    runtime.block_on(async {
        let mut connections = Vec::new();
        for _ in 0..load.connections {
            connections.push(connect(socket).await?);
        }
        let from = Instant::now() + timing.warm_up;
        let to = from + timing.length;
        // All callers run on the one thread of this runtime, so nobody waits for the lock.
        let latencies = Arc::new(Mutex::new(histogram()?));
        let mut callers = JoinSet::new();
        for connection in connections.iter().cycle().take(load.callers) {
            let (connection, request) = (connection.clone(), request.clone());
            callers.spawn(caller(connection, request, from..to, latencies.clone()));
        }
        drop(connections);

        sleep_until(from.into()).await;
        let before = Usage::now(pid)?;
        sleep_until(to.into()).await;
        let used = before.until(&Usage::now(pid)?);
        while let Some(caller) = callers.join_next().await {
            caller??;
        }
        let latencies = latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Ok(Slice {
            latencies,
            length: timing.length,
            used,
        })
    })
}

async fn caller(
    mut connection: SendRequest<Bytes>,
    request: Prepared,
    counts: Range<Instant>,
    latencies: Arc<Mutex<Histogram<u64>>>,
) -> Result<()> {
    let mut began = Instant::now();
    while began < counts.end {
        call(&mut connection, &request).await?;
        let ended = Instant::now();
        if counts.contains(&ended) {
            let latency = u64::try_from((ended - began).as_nanos())?;
            let mut latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
            latencies.saturating_record(latency);
        }
        began = ended;
    }
    Ok(())
}

/// One call, with its answer's message as it was framed.
async fn call(connection: &mut SendRequest<Bytes>, request: &Prepared) -> Result<Bytes> {
    poll_fn(|cx| connection.poll_ready(cx)).await?;
    let (answer, mut sending) = connection.send_request(request.head.clone(), false)?;
    sending.send_data(request.message.clone(), true)?;
    let (head, mut body) = answer.await?.into_parts();
    let mut message = Bytes::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        message = if message.is_empty() {
            chunk
        } else {
            [message, chunk].concat().into()
        };
    }
    let trailers = body.trailers().await?;
    let said = |headers: &HeaderMap| headers.get("grpc-status").is_some_and(|code| code == "0");
    if head.status != StatusCode::OK || !trailers.as_ref().is_some_and(said) {
        return Err(format!(
            "a call was not answered OK: {:?} {trailers:?}",
            head.headers
        )
        .into());
    }
    Ok(message)
}

fn message<M: Message + Default>(framed: &[u8]) -> Result<M> {
    let (_, message) = framed
        .split_first_chunk::<5>()
        .ok_or("an answer has no message")?;
    Ok(M::decode(message)?)
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(LONGEST, 3)?)
}

/// What happened while a load was applied once.
pub(crate) struct Slice {
    latencies: Histogram<u64>,
    length: Duration,
    used: Usage,
}

impl Slice {
    pub(crate) fn add(&mut self, other: &Self) -> Result<()> {
        self.latencies.add(&other.latencies)?;
        self.length += other.length;
        self.used.server += other.used.server;
        self.used.driver += other.used.driver;
        self.used.all += other.used.all;
        Ok(())
    }

    /// How many calls were answered.
    pub(crate) fn calls(&self) -> f64 {
        self.latencies.len() as f64
    }

    pub(crate) fn sample(&self) -> Result<Sample> {
        let (calls, length) = (self.calls(), self.length.as_secs_f64());
        if calls == 0.0 {
            return Err("no call was answered in time".into());
        }
        let percentile = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1e3;
        let per_call = |cpu: Duration| cpu.as_secs_f64() * 1e6 / calls;
        let own = self.used.server + self.used.driver;
        let others = self.used.all.saturating_sub(own).as_secs_f64();
        let processors = std::thread::available_parallelism()?.get() as f64;
        Ok(Sample {
            calls: calls / length,
            p50: percentile(0.5),
            p99: percentile(0.99),
            p999: percentile(0.999),
            server_cpu: per_call(self.used.server),
            driver_cpu: per_call(self.used.driver),
            others_cpu: others / length / processors,
        })
    }
}

/// Processor time of the server, of this process, and of all.
struct Usage {
    server: Duration,
    driver: Duration,
    all: Duration,
}

impl Usage {
    fn now(server: u32) -> Result<Self> {
        Ok(Self {
            server: host::cpu_of(server)?,
            driver: host::cpu_of(std::process::id())?,
            all: Duration::from_millis(10 * host::busy_ticks()?),
        })
    }

    fn until(&self, later: &Self) -> Self {
        Self {
            server: later.server.saturating_sub(self.server),
            driver: later.driver.saturating_sub(self.driver),
            all: later.all.saturating_sub(self.all),
        }
    }
}

//! A metrics server with every metric filled, and the plainest HTTP client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use claviger::config::{MetricsConfig, TlsConfig};
use claviger::metrics::{Metrics, RootFacts, RootState};
use claviger::metrics_server::{MetricsServer, Pages};
use claviger::observer::{Method, Observer, Reason};
use claviger_keystore::testing::{open_keystore, rotate};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tonic::Code;

/// No step of these tests takes so long, unless it is stuck for good.
pub(crate) const STUCK: Duration = Duration::from_secs(30);

pub(crate) const ANY_PORT: &str = "127.0.0.1:0";

/// Metrics of which each has a value.
pub(crate) fn full_metrics() -> Metrics {
    let now: Timestamp = "2026-09-14T08:00:00Z".parse().unwrap();
    let metrics = Metrics::new(now, || 3).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (keystore, _) = open_keystore().await;
        rotate(&keystore).await;
        let keyring = keystore.keyring().await.unwrap();
        metrics.keyring_open(keystore.view().snapshot().unwrap(), &keyring.header().keys);
    });
    metrics.roots(&[RootFacts {
        name: "local".into(),
        state: RootState::Fresh,
        last_success: Some(now),
    }]);
    metrics.last_done(Some(now), Some(1));
    metrics.rotation(None);
    metrics.status_answered_at(now);
    metrics.request(Method::Encrypt, Code::Ok, Duration::from_micros(15));
    metrics.refused(Reason::NotOpen);
    metrics
}

/// A running server; it ends with this.
pub(crate) struct Served {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) address: SocketAddr,
    server: Option<MetricsServer>,
    shutdown: CancellationToken,
}

impl Served {
    pub(crate) fn plain() -> Self {
        Self::start(None)
    }

    pub(crate) fn start(tls: Option<TlsConfig>) -> Self {
        let metrics = Arc::new(full_metrics());
        let (server, shutdown) = start(ANY_PORT.parse().unwrap(), tls, metrics.clone());
        let address = bound(&server);
        Self {
            metrics,
            address,
            server: Some(server),
            shutdown,
        }
    }

    pub(crate) fn stop(&mut self) {
        self.shutdown.cancel();
        if let Some(server) = self.server.take() {
            server.join();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts a server that may not be able to listen yet.
pub(crate) fn start(
    listen: SocketAddr,
    tls: Option<TlsConfig>,
    metrics: Arc<Metrics>,
) -> (MetricsServer, CancellationToken) {
    let shutdown = CancellationToken::new();
    let config = MetricsConfig { listen, tls };
    let pages = Pages::new(metrics, || Ok(()));
    (
        MetricsServer::start(config, pages, shutdown.clone()).unwrap(),
        shutdown,
    )
}

/// The address that the server is bound to, as soon as it is.
pub(crate) fn bound(server: &MetricsServer) -> SocketAddr {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let bound = runtime.block_on(async { tokio::time::timeout(STUCK, server.bound()).await });
    bound
        .expect("the server does not listen")
        .expect("the server was shut down")
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) headers: String,
    pub(crate) body: String,
}

/// Asks over a stream that is connected, until the server closes it.
pub(crate) fn ask(mut stream: impl Read + Write, method: &str, path: &str) -> Answer {
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: claviger\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("no end of the header");
    let status = head.split(' ').nth(1).expect("no status").parse().unwrap();
    Answer {
        status,
        headers: head.to_lowercase(),
        body: body.to_owned(),
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(STUCK)).unwrap();
    stream.set_write_timeout(Some(STUCK)).unwrap();
    stream
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    ask(connect(address), "GET", path)
}

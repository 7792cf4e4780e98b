//! What happens on the KMS socket is in `/metrics`, and nothing that happens to `/metrics` is felt
//! on the KMS socket.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use claviger::client::{Client, Endpoint, TIMEOUT};
use claviger::config::{MetricsConfig, ServerConfig, SocketAddress, StatusVersion};
use claviger::metrics::Metrics;
use claviger::metrics_server::{MetricsServer, Pages};
use claviger::server::socket::Socket;
use claviger::server::{self, Deps, Limits};
use claviger::service::{Clock, Kms};
use claviger_keystore::testing::{NOW, open_keystore};
use claviger_proto::v2::{DecryptRequest, EncryptRequest};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{ANY_PORT, STUCK, connect, get};

/// A plugin whose socket and whose metrics are real.
struct Plugin {
    client: Client,
    metrics: SocketAddr,
    _dir: TempDir,
    _stop: DropGuard,
}

impl Plugin {
    async fn start(ready: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        let stop = CancellationToken::new();
        let (keystore, _) = open_keystore().await;
        let metrics = Arc::new(Metrics::new(NOW, || 0).unwrap());
        let pages = Pages::new(metrics.clone(), ready);
        let config = MetricsConfig {
            listen: ANY_PORT.parse().unwrap(),
            tls: None,
        };
        let served = MetricsServer::start(config, pages, stop.clone()).unwrap();

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kms.sock");
        let uid = rustix::process::geteuid().as_raw();
        let socket = Socket::make(&ServerConfig {
            socket: SocketAddress::Path(path.clone()),
            mode: 0o600,
            group: None,
            allow_uids: vec![uid],
            status_version: StatusVersion::V2,
        });
        let clock = Clock {
            boottime: || Duration::from_secs(1_000),
            wall: || NOW,
        };
        let kms = Kms::new(
            keystore,
            StatusVersion::V2,
            metrics.clone(),
            Arc::default(),
            clock,
        );
        let deps = Deps {
            services: kms.into_services(),
            allowed_uids: vec![uid],
            observer: metrics,
            limits: Limits::default(),
        };
        tokio::spawn(server::run(
            socket.unwrap(),
            deps,
            stop.clone().cancelled_owned(),
        ));
        Self {
            client: Client::new(Endpoint::Path(path), TIMEOUT),
            metrics: served.bound().await.unwrap(),
            _dir: dir,
            _stop: stop.drop_guard(),
        }
    }

    /// Calls of each kind, all of them answered in the client's time.
    async fn calls(&self, rounds: u32) {
        for _ in 0..rounds {
            let key_id = self.client.status().await.unwrap().key_id;
            let seed = EncryptRequest {
                plaintext: vec![7; 32],
                uid: "test".to_owned(),
            };
            let sealed = self.client.encrypt(seed).await.unwrap().ciphertext;
            let opened = self
                .client
                .decrypt(decrypt(&key_id, &sealed))
                .await
                .unwrap();
            assert_eq!(opened.plaintext, [7; 32]);
        }
    }

    /// The series of a scrape that are not 0.
    fn scrape(&self) -> HashMap<String, f64> {
        let text = get(self.metrics, "/metrics").body;
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.map(|line| line.rsplit_once(' ').unwrap());
        let samples = samples.map(|(name, value)| (name.to_owned(), value.parse().unwrap()));
        samples.filter(|(_, value)| *value != 0.0).collect()
    }
}

fn decrypt(key_id: &str, ciphertext: &[u8]) -> DecryptRequest {
    let (key_id, ciphertext) = (key_id.to_owned(), ciphertext.to_owned());
    DecryptRequest {
        key_id,
        ciphertext,
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_on_the_socket_is_counted() {
    let plugin = Plugin::start(|| Ok(())).await;
    plugin.calls(3).await;
    let foreign = decrypt("k1-00000000000000000000000000000000", &[1; 73]);
    let foreign = plugin.client.decrypt(foreign).await;
    assert!(foreign.is_err());

    let expected = [
        (r#"claviger_requests_total{code="OK",method="Status"}"#, 3.0),
        (
            r#"claviger_requests_total{code="OK",method="Encrypt"}"#,
            3.0,
        ),
        (
            r#"claviger_requests_total{code="OK",method="Decrypt"}"#,
            3.0,
        ),
        (
            r#"claviger_requests_total{code="NOT_FOUND",method="Decrypt"}"#,
            1.0,
        ),
        (
            r#"claviger_request_duration_seconds_count{method="Decrypt"}"#,
            4.0,
        ),
        (r#"claviger_refusals_total{reason="unknown_key"}"#, 1.0),
        ("claviger_connections", 1.0),
    ];
    // A call is counted when it has ended, and its client may know of that end a moment earlier.
    let deadline = Instant::now() + STUCK;
    let missing = |scrape: &HashMap<String, f64>| {
        let wrong = |(series, value): &&(&str, f64)| scrape.get(*series) != Some(value);
        expected
            .iter()
            .find(wrong)
            .map(|(series, _)| (*series, scrape.get(*series).copied()))
    };
    let mut scrape = plugin.scrape();
    while let Some(missing) = missing(&scrape) {
        assert!(Instant::now() < deadline, "{missing:?}");
        scrape = plugin.scrape();
    }
    let status = scrape["claviger_status_last_timestamp_seconds"];
    assert!(status > 1_700_000_000.0, "{status}");
    let requests = scrape
        .iter()
        .filter(|(series, _)| series.starts_with("claviger_requests_total"));
    assert_eq!(requests.map(|(_, count)| count).sum::<f64>(), 10.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_metrics_thread_that_stands_still_is_not_felt() {
    let (release, released) = mpsc::channel();
    let (enter, entered) = mpsc::channel();
    let (enter, released) = (Mutex::new(enter), Mutex::new(released));
    let plugin = Plugin::start(move || {
        enter.lock().unwrap().send(()).unwrap();
        released.lock().unwrap().recv().unwrap()
    })
    .await;
    let address = plugin.metrics;
    let scraper = thread::spawn(move || get(address, "/readyz"));
    entered
        .recv_timeout(STUCK)
        .expect("nobody asks whether the plugin is ready");

    plugin.calls(200).await;
    assert!(!scraper.is_finished());
    release.send(Err("released".to_owned())).unwrap();
    let answer = scraper.join().unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (503, "released\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn hostile_scrapers_are_not_felt() {
    let plugin = Plugin::start(|| Ok(())).await;
    let address = plugin.metrics;
    let over = Arc::new(AtomicBool::new(false));
    let silent: Vec<_> = (0..100).map(|_| connect(address)).collect();
    let flood = thread::spawn({
        let over = over.clone();
        move || {
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                let mut stream = connect(address);
                let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
                sent += 1;
            }
            sent
        }
    });
    plugin.calls(200).await;
    over.store(true, Ordering::Relaxed);
    assert!(flood.join().unwrap() > 0);
    assert_eq!(get(address, "/livez").status, 200);
    drop(silent);
}

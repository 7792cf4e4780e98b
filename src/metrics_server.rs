//! `/metrics`, `/livez` and `/readyz` over HTTP/1, on a thread and a runtime of their own.
//!
//! Nothing that a scraper does reaches the KMS socket: it may be slow, silent or hostile, and all it
//! can use up is this thread and sixteen connections of at most ten seconds, of which the oldest
//! makes room for a newcomer.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::MetricsConfig;

mod pages;
mod tls;

pub use pages::Pages;
use tls::Tls;

/// Connections that are open at once.
pub const MAX_CONNECTIONS: usize = 16;

/// From the acceptance of a connection to its end, TLS handshake included. One connection carries
/// one request, so nothing needs longer.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);

/// For the TLS handshake, and again for the request's header.
const HEADER_LIMIT: Duration = Duration::from_secs(5);

/// The longest header that is read, in bytes.
const MAX_HEADER: usize = 16 * 1024;

/// After an error, the first and the longest wait before the next try.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// The running server.
pub struct MetricsServer {
    bound: watch::Receiver<Option<SocketAddr>>,
    thread: JoinHandle<()>,
}

impl MetricsServer {
    /// Starts the thread. Where the address is taken, or a TLS file cannot be read, the server says
    /// so in the log and tries again, while the plugin serves.
    ///
    /// # Errors
    /// The operating system gives no thread, or no descriptor for the runtime.
    pub fn start(
        config: MetricsConfig,
        pages: Pages,
        shutdown: CancellationToken,
    ) -> io::Result<Self> {
        let (report, bound) = watch::channel(None);
        let (built, outcome) = mpsc::channel();
        // The thread makes its runtime itself: one that is dropped here, where there was no thread
        // for it, would panic inside the plugin's own.
        let thread = thread::Builder::new()
            .name("metrics".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                match runtime {
                    Ok(runtime) => {
                        let _ = built.send(Ok(()));
                        runtime.block_on(run(config, pages, report, shutdown));
                    }
                    Err(error) => {
                        let _ = built.send(Err(error));
                    }
                }
            })?;
        outcome.recv().map_err(io::Error::other)??;
        Ok(Self { bound, thread })
    }

    /// The address that is bound, as soon as it is: with port 0 in the configuration, the port that
    /// was free. `None` if the server was shut down first.
    pub async fn bound(&self) -> Option<SocketAddr> {
        let mut bound = self.bound.clone();
        let address = bound.wait_for(Option::is_some).await.ok()?;
        *address
    }

    /// Waits for the thread after a shutdown; that is at once, since no connection is waited for.
    pub fn join(self) {
        // A panic of the thread was logged by the panic hook.
        let _ = self.thread.join();
    }
}

/// Serves until `shutdown`. `bound` is told the address.
pub async fn run(
    config: MetricsConfig,
    pages: Pages,
    bound: watch::Sender<Option<SocketAddr>>,
    shutdown: CancellationToken,
) {
    let serve = async {
        let tls = match config.tls {
            Some(files) => {
                let load = async || Tls::load(files.clone());
                Some(keep_trying("reading the metrics listener's certificate and key", load).await)
            }
            None => None,
        };
        let bind = || TcpListener::bind(config.listen);
        let doing = format!("binding the metrics listener to {}", config.listen);
        let listener = keep_trying(&doing, bind).await;
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, tls = tls.is_some(), "serving metrics");
            bound.send_replace(Some(address));
        }
        accept(listener, tls, pages).await;
    };
    shutdown.run_until_cancelled(serve).await;
}

/// Tries until it works, ever more slowly, and says in the log what goes wrong.
async fn keep_trying<T, E, F>(doing: &str, mut attempt: impl FnMut() -> F) -> T
where
    E: std::fmt::Display,
    F: Future<Output = Result<T, E>>,
{
    let (mut wait, longest) = BACK_OFF;
    // The same words are not said again.
    let mut said = String::new();
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => {
                let error = error.to_string();
                if error != said {
                    let next = "requests are served meanwhile, and this is tried again";
                    tracing::error!(error, next, "{doing} failed");
                    said = error;
                }
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(longest);
    }
}

async fn accept(listener: TcpListener, mut tls: Option<Tls>, pages: Pages) {
    let mut open = VecDeque::<AbortHandle>::with_capacity(MAX_CONNECTIONS);
    loop {
        let accepting = "accepting a connection on the metrics listener";
        let (stream, _) = keep_trying(accepting, || listener.accept()).await;
        open.retain(|connection| !connection.is_finished());
        while open.len() >= MAX_CONNECTIONS {
            if let Some(oldest) = open.pop_front() {
                oldest.abort();
            }
        }
        let tls = tls.as_mut().map(Tls::current);
        open.push_back(tokio::spawn(connection(stream, tls, pages.clone())).abort_handle());
    }
}

async fn connection<S>(stream: S, tls: Option<TlsAcceptor>, pages: Pages)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let serve = async {
        match tls {
            None => http(stream, pages).await,
            Some(tls) => match timeout(HEADER_LIMIT, tls.accept(stream)).await {
                Ok(Ok(stream)) => http(stream, pages).await,
                Ok(Err(error)) => tracing::debug!(%error, "a scraper's TLS handshake failed"),
                Err(_) => tracing::debug!("a scraper's TLS handshake took too long"),
            },
        }
    };
    if timeout(CONNECTION_LIMIT, serve).await.is_err() {
        tracing::debug!("a scraper's connection took too long");
    }
}

async fn http(stream: impl AsyncRead + AsyncWrite + Unpin, pages: Pages) {
    let service = service_fn(|request| std::future::ready(pages.answer(&request)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .max_buf_size(MAX_HEADER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a scraper's connection failed");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;
    use crate::config::TlsConfig;
    use crate::metrics::Metrics;

    fn pages() -> Pages {
        let metrics = Metrics::new("2026-09-14T08:00:00Z".parse().unwrap(), || 0).unwrap();
        Pages::new(Arc::new(metrics), || Ok(()))
    }

    /// How long a connection lives whose peer sends `bytes` and then neither writes nor reads. The
    /// clock is tokio's paused one, so nobody waits.
    async fn life_of(bytes: &[u8], pipe: usize) -> Duration {
        let (ours, mut theirs) = duplex(pipe);
        let started = Instant::now();
        let served = tokio::spawn(connection(ours, None, pages()));
        theirs.write_all(bytes).await.unwrap();
        served.await.unwrap();
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_left_after_the_header_limit() {
        assert_eq!(life_of(b"", 64 * 1024).await, HEADER_LIMIT);
        assert_eq!(
            life_of(b"GET /metrics HTTP/1.1\r\nHos", 64 * 1024).await,
            HEADER_LIMIT
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_reads_is_left_after_the_connection_limit() {
        let life = life_of(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 64).await;
        assert_eq!(life, CONNECTION_LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drop_now_and_then_does_not_lengthen_the_header_limit() {
        let (ours, mut theirs) = duplex(64 * 1024);
        let started = Instant::now();
        let served = tokio::spawn(connection(ours, None, pages()));
        for byte in b"GET /livez HTTP/1.1\r\n" {
            if theirs.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        served.await.unwrap();
        assert!(started.elapsed() < HEADER_LIMIT + Duration::from_secs(2));
    }

    #[tokio::test]
    async fn one_request_per_connection() {
        let (ours, mut theirs) = duplex(64 * 1024);
        let served = tokio::spawn(connection(ours, None, pages()));
        let request = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
        theirs
            .write_all(request.repeat(2).as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        theirs.read_to_string(&mut answer).await.unwrap();
        served.await.unwrap();
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1, "{answer}");
        assert!(
            answer.to_lowercase().contains("connection: close"),
            "{answer}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_its_certificate_nothing_is_bound() {
        let dir = tempfile::tempdir().unwrap();
        let tls = TlsConfig {
            cert_file: dir.path().join("c"),
            key_file: dir.path().join("k"),
        };
        let config = MetricsConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            tls: Some(tls),
        };
        let (report, bound) = watch::channel(None);
        let serve = run(config, pages(), report, CancellationToken::new());
        assert!(timeout(Duration::from_secs(3_600), serve).await.is_err());
        assert_eq!(*bound.borrow(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_taken_port_is_bound_when_it_is_free() {
        let blocker = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = blocker.local_addr().unwrap();
        let (report, mut bound) = watch::channel(None);
        let config = MetricsConfig { listen, tls: None };
        let serve = tokio::spawn(run(config, pages(), report, CancellationToken::new()));
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert_eq!(*bound.borrow(), None);

        drop(blocker);
        let at_last = timeout(Duration::from_secs(3_600), bound.wait_for(Option::is_some)).await;
        assert_eq!(*at_last.unwrap().unwrap(), Some(listen));
        serve.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_tried_again_ever_more_slowly() {
        let mut failures = 10;
        let started = Instant::now();
        let mut tries = Vec::new();
        let done = keep_trying("trying", || {
            tries.push(started.elapsed());
            failures -= 1;
            std::future::ready(if failures == 0 {
                Ok("done")
            } else {
                Err("not yet")
            })
        });
        assert_eq!(done.await, "done");
        let waits: Vec<_> = tries
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_millis())
            .collect();
        assert_eq!(
            waits,
            [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]
        );
    }
}

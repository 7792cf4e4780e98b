//! Connections to kube-apiserver: TCP, and TLS above it, which says whether HTTP/2 is spoken.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::either::Either;
use tower::Service;

/// How long a connection may take, TLS included.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a connection may be silent before it is asked whether it is alive, and how long it may
/// take to say so: client-go's times.
const PING_AFTER: Duration = Duration::from_secs(30);
const PING_WITHIN: Duration = Duration::from_secs(15);

/// A client, with the connections that it keeps.
pub(crate) type Http = Client<Connector, Full<Bytes>>;

/// A client that speaks to one server, by TLS where there is a configuration.
pub(super) fn client(tls: Option<(ClientConfig, ServerName<'static>)>) -> Http {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(PING_AFTER));
    let tls = tls.map(|(config, name)| (TlsConnector::from(Arc::new(config)), name));
    Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_AFTER)
        .http2_keep_alive_timeout(PING_WITHIN)
        .build(Connector { tcp, tls })
}

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

type Failure = Box<dyn Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Failure>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let dialled = self.tcp.call(server);
        let tls = self.tls.clone();
        let connect = async move {
            let tcp = dialled.await?.into_inner();
            let Some((connector, name)) = tls else {
                return Ok(Stream::new(Either::Left(tcp), false));
            };
            let tls = connector.connect(name, tcp).await?;
            let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            Ok(Stream::new(Either::Right(tls), http2))
        };
        Box::pin(async move {
            match timeout(CONNECT, connect).await {
                Ok(connected) => connected,
                Err(_) => {
                    let late = format!("no connection within {} s", CONNECT.as_secs());
                    Err(io::Error::new(io::ErrorKind::TimedOut, late).into())
                }
            }
        })
    }
}

/// A connection.
pub(crate) struct Stream {
    io: TokioIo<Either<TcpStream, TlsStream<TcpStream>>>,
    http2: bool,
}

impl Stream {
    fn new(stream: Either<TcpStream, TlsStream<TcpStream>>, http2: bool) -> Self {
        let io = TokioIo::new(stream);
        Self { io, http2 }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self.http2 {
            true => Connected::new().negotiated_h2(),
            false => Connected::new(),
        }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, buffers)
    }
}
